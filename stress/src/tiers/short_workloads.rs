//! T3: all workloads of up to three operations, through the crash states of T2 and the faults of
//! T1. A process that is killed dies at each moment of the operation before.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::sim::solo::{Errno, Fault, Reach, Short};
use crate::tiers::crash_states::{self, Effort, Examiner, SETUPS};
use crate::tiers::fault_sweep::{self, Swept, sweep};
use crate::tiers::pool;
use crate::tiers::tally::{Budget, Tally};
use crate::tiers::workload::{Actor, Case, Op, Setup};

/// The operations of the workloads.
const OPS: [Op; 8] = [
    Op::Append,
    Op::Batch,
    Op::Claim,
    Op::Compact,
    Op::Rotate,
    Op::Export,
    Op::Open,
    Op::Kill(None),
];
/// The most operations.
const LEN_MAX: u32 = 3;

const EFFORT: Effort = Effort {
    torn: 48,
    nested: 512,
    nested_torn: 3,
    from_moment: 0,
};
const QUICK_EFFORT: Effort = Effort {
    torn: 8,
    nested: 2048,
    ..EFFORT
};
/// The faults at each call.
const FAULTS: [Fault; 3] = [
    Fault::Fails(Errno::Eio),
    Fault::Short(Short::AllButOne),
    Fault::Lies(Errno::Enospc),
];

/// All sequences of up to [`LEN_MAX`] operations, the short ones first.
fn sequences() -> Vec<Vec<Op>> {
    let mut all = Vec::new();
    let mut longest = vec![Vec::new()];
    for _ in 0..LEN_MAX {
        longest = longest
            .iter()
            .flat_map(|ops: &Vec<Op>| {
                OPS.map(|op| {
                    let mut ops = ops.clone();
                    ops.push(op);
                    ops
                })
            })
            .collect();
        all.extend(longest.iter().cloned());
    }
    all
}

/// The same workload with its first death at each moment of the operation before.
fn with_deaths(case: &Case) -> Vec<Case> {
    let is_death = |op: &Op| matches!(op, Op::Kill(_));
    let Some(index) = case
        .ops
        .iter()
        .position(is_death)
        .filter(|index| *index > 0)
    else {
        return Vec::new();
    };
    let mut actor = Actor::new(case);
    let mut began = 0;
    for op in case.ops.iter().take(index) {
        began = actor.machine().moments();
        actor.perform(*op);
    }
    let moments = actor.machine().moments().saturating_sub(began);
    let with = |moment| {
        let mut case = case.clone();
        if let Some(op) = case.ops.get_mut(index) {
            *op = Op::Kill(u16::try_from(moment).ok());
        }
        case
    };
    (0..moments).map(with).collect()
}

/// Runs the tier: all of it, whatever time that takes. A quick run leaves out the faults, and the
/// deaths in the middle of an operation, where there are three operations.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let (effort, setups): (Effort, &[Setup]) = if budget.quick {
        (QUICK_EFFORT, &SETUPS[1..2])
    } else {
        (EFFORT, &SETUPS[1..])
    };
    let examiner = Examiner::new("T3", effort);
    let swept = Swept::default();
    let jobs = sequences().into_iter().flat_map(|ops| {
        let setups = setups.iter().enumerate();
        setups.map(move |(which, setup)| (ops.clone(), which, *setup))
    });
    let work = |(): &mut (), (ops, which, setup)| {
        // One seed for all: what they have in common is examined once.
        let case = Case {
            setup,
            ops,
            faults: Vec::new(),
            seed: budget.seed,
        };
        budget.count(1);
        examiner.examine(&case, None);
        if !budget.quick || case.ops.len() <= 2 {
            for case in with_deaths(&case) {
                examiner.examine(&case, None);
            }
            if which == 0 {
                sweep(&examiner, &swept, &case, &FAULTS, &[Reach::Once]);
            }
        }
        if examiner.is_full() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, jobs, || (), work);
    let states = examiner.tally();
    let mut counts = vec![("distinct crash states".to_owned(), states.cases)];
    counts.extend(states.counts.clone());
    counts.push(("runs with faults".to_owned(), swept.runs()));
    counts.extend(swept.counts());
    Tally {
        unit: "workloads",
        cases: budget.tried.load(Ordering::Relaxed),
        counts,
        ..states
    }
}

/// Replays one case. A run with faults goes on without them, as in T1.
#[must_use]
pub fn replay(_budget: &Budget, text: &str) -> Tally {
    let faults = text.split('/').nth(2);
    if faults.is_some_and(|faults| !faults.is_empty()) {
        fault_sweep::replay_as("T3", text)
    } else {
        crash_states::replay_as("T3", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workloads_of_up_to_three_operations_are_there_once() {
        let all = sequences();
        assert_eq!(all.len(), 8 + 64 + 512);
        let mut distinct = all.clone();
        distinct.sort_by_key(|ops| format!("{ops:?}"));
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_process_dies_at_each_moment_of_what_it_did_before() {
        let case = Case {
            setup: SETUPS[0],
            ops: vec![Op::Append, Op::Kill(None), Op::Append],
            faults: Vec::new(),
            seed: 1,
        };
        let deaths = with_deaths(&case);
        assert!(deaths.len() > 4, "{deaths:?}");
        assert_eq!(deaths[2].ops[1], Op::Kill(Some(2)));
    }
}
