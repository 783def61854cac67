//! T4: virtual processes share a store, in an order that the seed decides, while calls fail,
//! processes are killed and stopped, and the power goes. See [`crate::sim::machine`].

mod history;
mod programs;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use strand_core::{Issue, IssueEvent, Issues, Log, Reader, Timestamp, testing::Storage};

use crate::sim::disk::VirtualDisk;
use crate::sim::machine::{Ended, FaultProfile, Machine, Process, Program, Troubles};
use crate::tiers::pool;
use crate::tiers::schedules::history::{History, Kind, Outcome, marker};
use crate::tiers::schedules::programs::{Habits, Shared};
use crate::tiers::tally::{Budget, Finding, Tally, replay_line};

const TIER: &str = "T4";
const UNIT: &str = "seeds";

/// One store's life, drawn from a seed.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    writers: usize,
    /// Processes that begin to write once another was killed.
    successors: usize,
    readers: usize,
    habits: Habits,
    fault_profiles: Vec<FaultProfile>,
}

/// The counts of a case.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    troubles: Troubles,
    operations: u64,
    acknowledged: u64,
    views: u64,
}

/// Tries seeds until the time is over.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let started = Instant::now();
    let sum = Mutex::new((Tally::new(TIER, UNIT), Counts::default()));
    let work = |(): &mut (), number| {
        if budget.is_over(started) {
            return ControlFlow::Break(());
        }
        let seed = budget.seed.wrapping_add(number);
        let (counts, wrong) = Case::draw(seed).run(None);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.0.cases += 1;
        budget.count(1);
        sum.1.add(counts);
        sum.0.violations.extend(finding(seed, &wrong));
        if sum.0.is_full() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, 0.., || (), work);
    let (mut tally, counts) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (name, count) in [
        ("steps", counts.troubles.steps),
        ("switches", counts.troubles.switches),
        ("operations", counts.operations),
        ("acknowledged", counts.acknowledged),
        ("views", counts.views),
        ("faults", counts.troubles.faults),
        ("kills", counts.troubles.kills),
        ("stops", counts.troubles.stops),
        ("power cuts", counts.troubles.power_cuts),
        ("files displaced", counts.troubles.displaced),
    ] {
        tally.add(name, count);
    }
    tally
}

/// Replays one seed, and prints each step that its processes take.
#[must_use]
pub fn replay(_budget: &Budget, seed: &str) -> Tally {
    let mut tally = Tally::new(TIER, UNIT);
    let Ok(seed) = seed.parse() else {
        return tally.stopped(format!("{seed:?} is no seed"));
    };
    let mut steps = Vec::new();
    let (_, wrong) = Case::draw(seed).run(Some(&mut steps));
    let mut out = std::io::stdout().lock();
    for step in steps {
        // A closed pipe is no failure.
        drop(writeln!(out, "{step}"));
    }
    tally.cases = 1;
    tally.violations.extend(finding(seed, &wrong));
    tally
}

/// The finding of a case, if anything is wrong.
fn finding(seed: u64, wrong: &[String]) -> Option<Finding> {
    let case = Case::draw(seed);
    (!wrong.is_empty()).then(|| Finding {
        what: format!("{}\n  {case:?}", wrong.join("\n")),
        replay: replay_line(TIER, None, seed),
        kept: None,
    })
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.views += other.views;
        self.troubles.add(other.troubles);
    }
}

impl Case {
    fn draw(seed: u64) -> Case {
        let mut rng = StdRng::seed_from_u64(seed);
        let phases = rng.random_range(1..=3);
        Case {
            seed,
            writers: rng.random_range(1..=4),
            successors: rng.random_range(0..=2),
            readers: rng.random_range(0..=2),
            habits: Habits {
                operations: rng.random_range(2..=8),
                issues: rng.random_range(1..=3),
                keys: rng.random_range(1..=3),
                segment_bytes_max: *[400, 1500, 1 << 20].choose(&mut rng).unwrap_or(&400),
                preallocate_bytes: *[0, 700, 5000].choose(&mut rng).unwrap_or(&0),
                share_memory: rng.random_bool(0.9),
                buffers: rng.random_bool(0.2),
                compacts: rng.random_bool(0.6),
            },
            fault_profiles: (0..phases).map(|_| draw_fault_profile(&mut rng)).collect(),
        }
    }

    fn run(&self, steps: Option<&mut Vec<String>>) -> (Counts, Vec<String>) {
        let mut machine = Machine::start(VirtualDisk::new(), self.seed);
        if steps.is_some() {
            machine.trace();
        }
        let history: Shared = Arc::new(Mutex::new(History::default()));
        let mut wrong = Vec::new();
        let mut counts = Counts::default();
        for fault_profile in &self.fault_profiles {
            let ended = machine.run(self.programs(&history), fault_profile.clone());
            let displaced = machine.troubles().displaced > 0;
            history
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .displaced |= displaced;
            if ended.power_cut {
                machine = machine.restart();
            }
            wrong.extend(self.judge(&mut machine, &history, &ended));
            if !wrong.is_empty() {
                break;
            }
        }
        if let Some(steps) = steps {
            *steps = machine.steps();
        }
        let history = history.lock().unwrap_or_else(PoisonError::into_inner);
        counts.troubles = machine.troubles();
        counts.views = history.views_seen;
        counts.operations = history.entries.len() as u64;
        let acknowledged = |outcome: &Option<(u64, Outcome)>| {
            matches!(outcome, Some((_, Outcome::Acknowledged(_))))
        };
        counts.acknowledged = history
            .entries
            .iter()
            .filter(|entry| acknowledged(&entry.ended))
            .count() as u64;
        (counts, wrong)
    }

    fn programs<'a>(&'a self, history: &Shared) -> Vec<Program<'a>> {
        let writers = (0..self.writers).map(|_| {
            let history = Arc::clone(history);
            Box::new(move |process: &Arc<Process>| programs::write(process, &self.habits, &history))
                as Program<'a>
        });
        let readers = (0..self.readers).map(|number| {
            let history = Arc::clone(history);
            Box::new(move |process: &Arc<Process>| {
                programs::read(process, &self.habits, number, &history);
            }) as Program<'a>
        });
        let successors = (0..self.successors).map(|_| {
            let history = Arc::clone(history);
            Box::new(move |process: &Arc<Process>| {
                programs::succeed(process, &self.habits, self.writers, &history);
            }) as Program<'a>
        });
        writers.chain(successors).chain(readers).collect()
    }

    /// The violations after a phase, when nothing fails any more.
    fn judge(&self, machine: &mut Machine, history: &Shared, ended: &Ended) -> Vec<String> {
        let mut wrong: Vec<String> = ended.broken.clone();
        wrong.extend(ended.hang.iter().map(|hang| format!("hang: {hang}")));
        wrong.extend(
            ended
                .panics
                .iter()
                .map(|(id, panic)| format!("process {id} panicked: {panic}")),
        );
        if !wrong.is_empty() {
            return wrong;
        }
        let checked = machine.alone(|process| self.check(process, history, ended.power_cut));
        if let Err(error) = checked {
            wrong.push(format!("when nothing fails any more: {error}"));
        }
        let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.append(&mut history.wrong);
        wrong
    }

    /// Opens the store, compares it with the history, opens it again, and appends.
    fn check(
        &self,
        process: &Arc<Process>,
        history: &Shared,
        power_cut: bool,
    ) -> Result<(), String> {
        let storage = || Arc::clone(process) as Arc<dyn Storage>;
        let dir = Path::new("");
        let text = |what: &'static str| {
            move |error: strand_core::Error| format!("{what}: {error}: {error:?}")
        };
        let log =
            Log::<IssueEvent>::open(dir, self.habits.options(process)).map_err(text("open"))?;
        // Buffered records are not shown before they are durable.
        log.sync_all().map_err(text("sync"))?;
        let state = || -> Result<Issues, String> {
            let snapshot =
                strand_core::LiveIssues::open_in(&storage(), dir).map_err(text("load"))?;
            Ok(snapshot.into_state())
        };
        let store = state()?;
        let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
        history.judge(&store, power_cut);
        drop(log);
        let log = Log::<IssueEvent>::open(dir, self.habits.options(process))
            .map_err(text("open again"))?;
        let again = state()?;
        if again.last_seq() != store.last_seq()
            || log.recovery().adopted > 0
            || log.recovery().cut_bytes > 0
        {
            return Err(format!(
                "a second recovery finds something else: {:?} (I9)",
                log.recovery()
            ));
        }
        let operation = history.begin(usize::MAX, Kind::Append);
        let issue = Issue::new_at(&marker(operation, 0), "After all", Timestamp::from_ms(0));
        let receipt = log
            .append(&IssueEvent::add(issue, Timestamp::from_ms(0)))
            .map_err(text("append"))?;
        history.end(operation, Outcome::Acknowledged(receipt.seq.get()));
        log.sync_to(receipt.seq).map_err(text("sync"))?;
        let reader = Reader::<IssueEvent>::open_in(&storage(), dir).map_err(text("read"))?;
        reader.verify().map_err(text("verify"))?;
        history.judge(&state()?, false);
        Ok(())
    }
}

fn draw_fault_profile(rng: &mut StdRng) -> FaultProfile {
    let mut chance = |often: f64, low: f64, high: f64| {
        if rng.random_bool(often) {
            rng.random_range(low..high)
        } else {
            0.0
        }
    };
    FaultProfile {
        switch: chance(1.0, 0.01, 0.5),
        kill: chance(0.5, 0.000_2, 0.004),
        stop: chance(0.4, 0.000_2, 0.003),
        power_cut: chance(0.5, 0.000_1, 0.002),
        sync_fails: chance(0.3, 0.02, 0.4),
        write_fails: chance(0.3, 0.01, 0.2),
        read_fails: chance(0.2, 0.001, 0.02),
        call_fails: chance(0.2, 0.001, 0.02),
        full: chance(0.2, 0.001, 0.005),
        wake: chance(0.3, 0.001, 0.02),
        displace: chance(0.3, 0.000_2, 0.004),
        // From 250 on, leaders wait for those who come back at once.
        sync_us: if chance(0.5, 0.0, 1.0) > 0.0 {
            2_000
        } else {
            120
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_seeds_pass_and_each_runs_the_same_way_twice() {
        for seed in 0..60 {
            let (counts, wrong) = Case::draw(seed).run(None);
            assert!(
                wrong.is_empty(),
                "seed {seed}: {}\n{:?}",
                wrong.join("\n"),
                Case::draw(seed)
            );
            let (again, _) = Case::draw(seed).run(None);
            assert_eq!(counts, again, "seed {seed}");
        }
    }
}
