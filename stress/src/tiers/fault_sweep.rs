//! T1: each call of a set of workloads fails, once or from then on, in every way; and pairs of
//! calls fail. Then the same process goes on without a restart. The outcomes that it and its
//! readers got must agree with what is stored, also after its death and a power loss.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::panics::catch_panic;
use crate::sim::solo::{Call, Errno, Fault, FaultAt, Reach, Short};
use crate::tiers::crash_states::{Effort, Examiner, SETUPS};
use crate::tiers::pool;
use crate::tiers::tally::{Budget, Tally};
use crate::tiers::workload::{Actor, Case, Op, Setup, calls_of};

/// The operations after the faults.
const AFTERWARDS: [Op; 8] = [
    Op::Append,
    Op::Export,
    Op::Keyed,
    Op::Claim,
    Op::Buffered,
    Op::Compact,
    Op::Open,
    Op::Append,
];

/// How the end of each run is looked at.
const EFFORT: Effort = Effort {
    torn: 2,
    nested: u64::MAX,
    nested_torn: 0,
    from_moment: 0,
};

/// Counts what was swept.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    runs: Arc<AtomicU64>,
    sites: AtomicU64,
    hits: AtomicU64,
    pairs: AtomicU64,
    kinds: Mutex<BTreeSet<Call>>,
}

impl Swept {
    /// All counts, each with its name.
    pub(crate) fn counts(&self) -> Vec<(String, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let kinds = self.kinds();
        vec![
            ("call sites".to_owned(), count(&self.sites)),
            ("kinds of calls".to_owned(), kinds.len() as u64),
            ("faulty calls".to_owned(), count(&self.hits)),
            ("pairs of faults".to_owned(), count(&self.pairs)),
        ]
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeSet<Call>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workloads were run with faults.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
}

/// All ways in which one call fails.
pub(crate) fn all_faults() -> Vec<Fault> {
    let fails = Errno::ALL.into_iter().map(Fault::Fails);
    let short = Short::ALL.into_iter().map(Fault::Short);
    let lies = [Errno::Eio, Errno::Enospc].map(Fault::Lies);
    fails.chain(short).chain(lies).collect()
}

/// Runs a workload with its faults, goes on without them, and judges.
pub(crate) fn run_faulty(examiner: &Examiner, swept: &Swept, case: &Case) {
    swept.runs.fetch_add(1, Ordering::Relaxed);
    let done = catch_panic(|| {
        let mut actor = Actor::new(case);
        for op in &case.ops {
            actor.perform(*op);
        }
        let hits = actor.machine().faults_hit();
        swept.hits.fetch_add(hits, Ordering::Relaxed);
        actor.machine().set_faults(&[]);
        for op in AFTERWARDS {
            actor.perform(op);
        }
        actor
    });
    match done {
        Ok(actor) if actor.problems.is_empty() => examiner.examine_end(case, &actor),
        Ok(actor) => examiner.report_problem(case, &actor.problems.join("\n  ")),
        Err(panic) => examiner.report_problem(case, &format!("the workload {panic}")),
    }
}

/// A workload with a fault at each of its calls, of which `wanted` chooses.
pub(crate) fn sweep(
    examiner: &Examiner,
    swept: &Swept,
    case: &Case,
    faults: &[Fault],
    reaches: &[Reach],
) {
    let calls = calls_of(case);
    swept.sites.fetch_add(calls.len() as u64, Ordering::Relaxed);
    swept.kinds().extend(&calls);
    for (call, kind) in (0..).zip(&calls) {
        for fault in faults.iter().filter(|fault| fault.applies_to(*kind)) {
            for reach in reaches {
                if examiner.is_full() {
                    return;
                }
                let at = FaultAt {
                    call,
                    fault: *fault,
                    reach: *reach,
                };
                let case = Case {
                    faults: vec![at],
                    ..case.clone()
                };
                run_faulty(examiner, swept, &case);
            }
        }
    }
}

/// A workload with each pair of faults, one call of each pair's first in `one_in`.
fn sweep_pairs(examiner: &Examiner, swept: &Swept, case: &Case, rng: &mut StdRng, one_in: u32) {
    const PAIRS: [(Fault, Fault); 5] = [
        (Fault::Fails(Errno::Eio), Fault::Fails(Errno::Eio)),
        (Fault::Fails(Errno::Enospc), Fault::Fails(Errno::Enospc)),
        (Fault::Short(Short::AllButOne), Fault::Fails(Errno::Eio)),
        (Fault::Short(Short::Half), Fault::Short(Short::One)),
        (Fault::Lies(Errno::Eio), Fault::Fails(Errno::Eio)),
    ];
    let calls = calls_of(case);
    for (first, first_kind) in (0..).zip(&calls) {
        for (first_fault, then_fault) in PAIRS {
            if !first_fault.applies_to(*first_kind) || rng.random_range(0..one_in) > 0 {
                continue;
            }
            let at = |call, fault| FaultAt {
                call,
                fault,
                reach: Reach::Once,
            };
            let one = Case {
                faults: vec![at(first, first_fault)],
                ..case.clone()
            };
            // After the first fault the calls are others.
            let calls = (0..).zip(calls_of(&one));
            for (then, kind) in calls.skip_while(|(then, _)| *then <= first) {
                if examiner.is_full() {
                    return;
                }
                if then_fault.applies_to(kind) {
                    let both = Case {
                        faults: vec![at(first, first_fault), at(then, then_fault)],
                        ..case.clone()
                    };
                    swept.pairs.fetch_add(1, Ordering::Relaxed);
                    run_faulty(examiner, swept, &both);
                }
            }
        }
    }
}

/// The workloads whose calls fail.
fn workloads() -> Vec<Vec<Op>> {
    use Op::{
        Append, Batch, Buffered, Claim, Compact, Delete, Export, Keyed, Kill, Open, Rotate, Sync,
    };
    vec![
        vec![],
        vec![Append, Append, Export],
        vec![Batch, Claim, Claim, Keyed, Delete],
        vec![Buffered, Buffered, Sync, Append],
        vec![Append, Rotate, Append, Export],
        vec![Append, Compact, Export, Append, Compact],
        vec![Append, Open, Export, Claim],
        vec![Buffered, Kill(None), Append, Export],
        vec![Keyed, Compact, Keyed, Delete, Compact, Export],
    ]
}

/// One part of the work, which one thread does.
enum Task {
    Single(Case, Fault),
    Pairs(Case),
}

fn tasks(budget: &Budget) -> Vec<Task> {
    let mut tasks = Vec::new();
    let case = |ops: Vec<Op>, setup: Setup| Case {
        setup,
        ops,
        faults: Vec::new(),
        seed: budget.seed,
    };
    // Those that differ most.
    let setups: &[Setup] = if budget.quick {
        &[SETUPS[1], SETUPS[3]]
    } else {
        &SETUPS
    };
    for ops in workloads() {
        for setup in setups {
            for fault in all_faults() {
                tasks.push(Task::Single(case(ops.clone(), *setup), fault));
            }
        }
    }
    let short = [
        vec![Op::Append, Op::Append],
        vec![Op::Buffered, Op::Sync],
        vec![Op::Compact, Op::Append],
        vec![Op::Rotate, Op::Append],
        vec![Op::Claim, Op::Export],
        vec![Op::Keyed],
    ];
    for ops in short {
        for setup in [SETUPS[1], SETUPS[3]] {
            tasks.push(Task::Pairs(case(ops.clone(), setup)));
        }
    }
    tasks
}

/// Runs the tier: all of it, whatever time that takes. A quick run leaves out most of the pairs and
/// of the faults that last, and half of the ways in which a log is opened.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let examiner = Examiner::new("T1", EFFORT);
    let swept = Swept {
        runs: Arc::clone(&budget.tried),
        ..Swept::default()
    };
    let work = |(): &mut (), (number, task): (u64, Task)| {
        if examiner.is_full() {
            return ControlFlow::Break(());
        }
        let mut rng = StdRng::seed_from_u64(budget.seed ^ number << 32);
        match task {
            Task::Single(case, fault) => {
                let lasts = !budget.quick || rng.random_range(0..4) == 0;
                let reaches: &[Reach] = if lasts {
                    &[Reach::Once, Reach::Kind, Reach::All]
                } else {
                    &[Reach::Once]
                };
                sweep(&examiner, &swept, &case, &[fault], reaches);
            }
            Task::Pairs(case) => {
                let one_in = if budget.quick { 16 } else { 1 };
                sweep_pairs(&examiner, &swept, &case, &mut rng, one_in);
            }
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, (0_u64..).zip(tasks(budget)), || (), work);
    tally(examiner, &swept)
}

fn tally(examiner: Examiner, swept: &Swept) -> Tally {
    let judged = examiner.tally();
    let mut counts = swept.counts();
    counts.push(("states afterwards".to_owned(), judged.cases));
    Tally {
        unit: "runs with faults",
        cases: swept.runs(),
        counts,
        ..judged
    }
}

/// Replays one case.
#[must_use]
pub fn replay(_budget: &Budget, text: &str) -> Tally {
    replay_as("T1", text)
}

/// Like [`replay`], for a tier that sweeps, too.
pub(crate) fn replay_as(tier: &'static str, text: &str) -> Tally {
    let examiner = Examiner::new(tier, EFFORT);
    let swept = Swept::default();
    match text.parse::<Case>() {
        Ok(case) => {
            run_faulty(&examiner, &swept, &case);
            tally(examiner, &swept)
        }
        Err(error) => tally(examiner, &swept).stopped(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_of_a_workload_fails_in_every_way_that_it_can() {
        let examiner = Examiner::new("T1", EFFORT);
        let swept = Swept::default();
        let case: Case = "1024-900/append,rotate//1".parse().unwrap();
        let calls = calls_of(&case);
        assert!(calls.contains(&Call::Write) && calls.contains(&Call::SyncDir));
        sweep(&examiner, &swept, &case, &all_faults(), &[Reach::Once]);
        let expected: usize = calls
            .iter()
            .map(|call| {
                all_faults()
                    .iter()
                    .filter(|fault| fault.applies_to(*call))
                    .count()
            })
            .sum();
        assert_eq!(swept.runs(), expected as u64);
        assert!(swept.hits.load(Ordering::Relaxed) >= swept.runs());
        let tally = tally(examiner, &swept);
        assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
        assert_eq!(tally.cases, swept.runs());
    }

    #[test]
    fn every_kind_of_call_can_fail_in_eight_ways_at_least() {
        let kinds = workloads().into_iter().flat_map(|ops| {
            let case = Case {
                setup: SETUPS[1],
                ops,
                faults: Vec::new(),
                seed: 1,
            };
            calls_of(&case)
        });
        let kinds: BTreeSet<Call> = kinds.collect();
        assert!(kinds.len() >= 14, "{kinds:?}");
        for kind in kinds {
            let ways = all_faults()
                .iter()
                .filter(|fault| fault.applies_to(kind))
                .count();
            // Once and from then on.
            assert!(2 * ways >= 8, "{kind:?}");
        }
    }

    #[test]
    fn pairs_fail_at_two_calls() {
        let examiner = Examiner::new("T1", EFFORT);
        let swept = Swept::default();
        let case: Case = "1024-900/append,append//1".parse().unwrap();
        sweep_pairs(&examiner, &swept, &case, &mut StdRng::seed_from_u64(1), 1);
        assert!(swept.pairs.load(Ordering::Relaxed) > 50);
        let tally = tally(examiner, &swept);
        assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
    }
}
