//! T12: agents on several "hosts", and a cluster of real etcd nodes whose machines fail.
//!
//! Each case is a run of the harness on etcd, judged by its oracle, while nodes are killed or
//! stopped, hosts are cut off, in one direction or both, and the power of nodes' disks is cut. The
//! faults end when most operations have an outcome; the rest of the run and its examination have a
//! whole cluster.

#[cfg(target_os = "linux")]
mod hosts;
#[cfg(target_os = "linux")]
mod machines;

use std::time::Instant;

use crate::tiers::tally::{Budget, Tally};

/// The tier's short name.
pub const TIER: &str = "T12";
/// The target of its attack.
pub const ATTACKS: &str = "etcd nodes killed, stopped, cut off, and without power";

/// Runs until the time is over.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let mut tally = Tally::new(TIER, "runs");
    let began = Instant::now();
    #[cfg(target_os = "linux")]
    linux::run(budget, &mut tally);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = budget;
        tally.skipped = Some("network namespaces need Linux".to_owned());
    }
    tally.seconds = began.elapsed().as_secs_f64();
    tally
}

/// Ends the nodes and removes the networks that are left, here and by processes that were killed.
pub fn clean_up() {
    #[cfg(target_os = "linux")]
    hosts::sweep();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::thread;
    use std::time::{Duration, Instant};

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use strand_etcd::testing;

    use super::TIER;
    use super::hosts::{self, Hosts};
    use super::machines::{AGENT_HOSTS, Machines};
    use crate::evidence::violation::Violation;
    use crate::powerfs::mount;
    use crate::run::RunError;
    use crate::run::config::{Config, Workload};
    use crate::run::judgement::Judgement;
    use crate::run::runner::{Early, Moment, Watch};
    use crate::tiers::tally::{Budget, Finding, Tally};

    /// The nodes of the larger clusters.
    const NODES: usize = 3;
    /// Runs on one cluster.
    const RUNS_PER_CLUSTER: u64 = 3;
    /// The watchdog of one run.
    const RUN_TIMEOUT_S: u64 = 240;
    /// A run that is still getting on after this time is slow, which is no hang: where processes
    /// take longer to start than they live until the next kill. It is judged as it is.
    const LONG: Duration = Duration::from_secs(150);
    /// One that has answered nothing for so long does not get on.
    const STILL: Duration = Duration::from_secs(40);
    /// So many clusters more than there are runs may fail.
    const FAULTS_MAX: u64 = 2;
    /// The faults end when this part of the operations, in percent, has an outcome.
    const DISTURBED_PERCENT: u64 = 85;
    /// Or after this time.
    const DISTURBED: Duration = Duration::from_secs(40);
    /// Between two faults is up to this time. Most is written then: a cluster that has just lost a
    /// node answers seconds later.
    const CALM: Duration = Duration::from_millis(1_200);
    /// A quick run has both divided by this.
    const QUICKER: u32 = 8;

    pub(super) fn run(budget: &Budget, tally: &mut Tally) {
        let no_etcd = testing::obstacle();
        if no_etcd.is_some() && testing::is_required() {
            tally.environment = no_etcd;
            return;
        }
        let obstacle = no_etcd.or_else(hosts::obstacle);
        if obstacle.is_some() {
            tally.skipped = obstacle;
            return;
        }
        let no_power = mount::obstacle();
        if let Some(why) = &no_power {
            eprintln!("{TIER}: power cuts SKIPPED: {why}");
            tally.add("clusters without power cuts", 1);
        }
        let work = || -> Result<Sum, String> {
            hosts::sweep();
            let hosts = Hosts::make(NODES + AGENT_HOSTS, "t12");
            let hosts = hosts.map_err(|error| error.to_string())?;
            hosts.enter().map_err(|error| error.to_string())?;
            let mut sum = Sum::default();
            let began = Instant::now();
            for cluster in 0_u64.. {
                if sum.is_over(budget, began) {
                    break;
                }
                let seed = budget.seed.wrapping_add(cluster);
                let (nodes, has_power) = match seed % 3 {
                    0 => (NODES, false),
                    1 => (1, true),
                    _ => (NODES, true),
                };
                let has_power = has_power && no_power.is_none();
                let machines = Machines::start(&hosts, nodes, has_power);
                let mut machines = machines.map_err(|error| error.to_string())?;
                let mut used = machines.bring_up().map_err(|error| error.to_string());
                let runs = if budget.quick { 1 } else { RUNS_PER_CLUSTER };
                for number in 0..runs {
                    if used.is_err() || sum.is_over(budget, began) {
                        break;
                    }
                    used = sum.add(budget, (seed, number), &mut machines)?;
                }
                if let Err(what) = used {
                    sum.give_up(&what, seed, &mut machines)?;
                }
            }
            Ok(sum)
        };
        // A thread that has moved to another network does not come back.
        let done = thread::scope(|scope| scope.spawn(work).join());
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match done {
            Ok(sum) => sum.tell(tally),
            Err(error) => tally.environment = Some(error),
        }
    }

    #[derive(Default)]
    struct Sum {
        cases: u64,
        counts: BTreeMap<&'static str, u64>,
        findings: Vec<Finding>,
        faults: Vec<String>,
    }

    impl Sum {
        fn is_over(&self, budget: &Budget, began: Instant) -> bool {
            let is_late = budget.is_over(began);
            let is_enough = self.cases > 0 || budget.interrupt.is_asked();
            !self.findings.is_empty() || (is_late && is_enough)
        }

        /// Does a run on a cluster, which can't be used any more after an inner error: an
        /// environment that fails, and no fault of the log.
        fn add(
            &mut self,
            budget: &Budget,
            (seed, number): (u64, u64),
            machines: &mut Machines<'_>,
        ) -> Result<Result<(), String>, String> {
            let mut random = StdRng::seed_from_u64(seed ^ number << 32);
            let config = draw(&mut random, machines, budget.quick);
            let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
            let broken: Mutex<Option<String>> = Mutex::default();
            let is_broken = || {
                broken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            };
            let enough = config.operations() * DISTURBED_PERCENT / 100;
            let started = Instant::now();
            let progress = Mutex::new((0, started));
            let progress = || progress.lock().unwrap_or_else(PoisonError::into_inner);
            let cut_short = AtomicBool::new(false);
            let ran = thread::scope(|scope| {
                let disturbing = scope.spawn(|| {
                    while !begun.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    let divisor = if budget.quick { QUICKER } else { 1 };
                    let times = (DISTURBED / divisor, CALM / divisor);
                    if let Err(error) = machines.disturb(&mut random, times, &over) {
                        let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                        *broken = Some(error.to_string());
                    }
                });
                let show = |moment: &Moment| {
                    let answered = moment.acknowledged + moment.refused;
                    begun.fetch_or(answered > 0, Ordering::Relaxed);
                    over.fetch_or(answered >= enough, Ordering::Relaxed);
                    let mut progress = progress();
                    if progress.0 < answered {
                        *progress = (answered, Instant::now());
                    }
                };
                let early = || {
                    let is_slow = started.elapsed() > LONG && progress().1.elapsed() < STILL;
                    cut_short.fetch_or(is_slow, Ordering::Relaxed);
                    over.fetch_or(is_slow, Ordering::Relaxed);
                    let is_over = is_slow || budget.interrupt.is_asked();
                    let interrupted = is_over.then_some(Early::Interrupted);
                    is_broken().map(Early::Broken).or(interrupted)
                };
                let watch = Watch {
                    progress: &show,
                    early: &early,
                };
                let ran = crate::run::run_until(&config, &budget.exe, watch);
                over.store(true, Ordering::Relaxed);
                begun.store(true, Ordering::Relaxed);
                if let Err(panic) = disturbing.join() {
                    std::panic::resume_unwind(panic);
                }
                ran
            });
            for (name, count) in machines.take_counts() {
                *self.counts.entry(name).or_default() += count;
            }
            budget.count(1);
            let cut_short = u64::from(cut_short.into_inner());
            *self.counts.entry("runs cut short").or_default() += cut_short;
            if let Some(what) = is_broken() {
                return Ok(Err(what));
            }
            let judgement = match ran {
                Ok(judgement) => judgement,
                Err(RunError::Usage(error)) => return Err(error.to_string()),
                Err(RunError::Environment { message, .. }) => return Ok(Err(message)),
            };
            let ended = machines.ended();
            // A node that has ended by itself leaves nothing to look at.
            if !ended.is_empty() && is_unseen(&judgement) {
                return Ok(Err(format!("etcd has ended: {}", ended.join("; "))));
            }
            self.cases += 1;
            self.judge(&judgement, &config, seed, &ended);
            Ok(if ended.is_empty() {
                Ok(())
            } else {
                Err(format!("etcd has ended: {}", ended.join("; ")))
            })
        }

        /// Counts a cluster that does not work any more, and keeps its logs.
        fn give_up(
            &mut self,
            what: &str,
            seed: u64,
            machines: &mut Machines<'_>,
        ) -> Result<(), String> {
            let kept = machines.keep_logs().map_err(|error| error.to_string())?;
            let logs = kept.display();
            let fault = format!("{what} (cluster {seed}; its logs are in {logs})");
            eprintln!("{TIER}: a cluster is given up: {fault}");
            for (name, count) in machines.take_counts() {
                *self.counts.entry(name).or_default() += count;
            }
            *self.counts.entry("clusters given up").or_default() += 1;
            self.faults.push(fault);
            if self.faults.len() as u64 > FAULTS_MAX + self.cases {
                return Err(format!("most clusters fail: {}", self.faults.join("; ")));
            }
            Ok(())
        }

        fn judge(&mut self, judgement: &Judgement, config: &Config, seed: u64, ended: &[String]) {
            let unknown = judgement.unknown();
            for (name, count) in [
                ("acknowledged", judgement.acknowledged()),
                ("refused", judgement.refused()),
                ("unknown, then repeated", unknown),
                ("agents killed", judgement.gathered.killed),
                ("compactions", judgement.compactions()),
            ] {
                *self.counts.entry(name).or_default() += count;
            }
            if !judgement.verdict().is_good() {
                let what = format!(
                    "{}; {}; {config:?}\n{}",
                    judgement.verdict_line(),
                    ended.join("; "),
                    judgement.failure_details()
                );
                self.findings.push(Finding {
                    what,
                    replay: format!("cargo xtask torture --tier {TIER} --seed {seed}"),
                    kept: judgement.store.clone(),
                });
            }
        }

        fn tell(self, tally: &mut Tally) {
            tally.cases = self.cases;
            for (name, count) in self.counts {
                tally.add(name, count);
            }
            tally.violations = self.findings;
            tally.faults = self.faults;
        }
    }

    /// Whether nothing of a run could be judged.
    fn is_unseen(judgement: &Judgement) -> bool {
        let is_unseen =
            |violation: &Violation| matches!(violation, Violation::ExaminationFailed { .. });
        judgement.gathered.hang.is_some()
            || !judgement.violations.is_empty() && judgement.violations.iter().all(is_unseen)
    }

    fn draw(random: &mut StdRng, machines: &Machines<'_>, quick: bool) -> Config {
        let workload = match random.random_range(0..5) {
            0 => Workload::Claim,
            1 | 2 => Workload::Mixed,
            _ => Workload::Append,
        };
        let agents = random.random_range(8..=20);
        // A disk that can lose its power is slow.
        let operations = match (quick, machines.has_power()) {
            (true, _) => 600,
            (false, true) => 3_000,
            (false, false) => 8_000,
        };
        let writes = match workload {
            Workload::Claim => operations / 20,
            // These agents need no state, which others read again and again.
            Workload::Append => 2 * operations / agents,
            _ => operations / agents,
        };
        let one_in = |random: &mut StdRng, of: u32| random.random_ratio(1, of);
        Config {
            seed: random.random::<u32>().into(),
            store: machines.nodes.address("t12"),
            netns: Some(machines.agents()),
            agents,
            writes,
            workload,
            readers: u32::from(one_in(random, 2)),
            followers: random.random_range(1..=2),
            compact_every_ms: one_in(random, 2).then(|| random.random_range(300..2_000)),
            kill_per_second: if one_in(random, 2) { 2.0 } else { 0.0 },
            timeout_s: RUN_TIMEOUT_S,
            ..Config::default()
        }
    }
}
