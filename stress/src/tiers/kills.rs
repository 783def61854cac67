//! T7: real processes are killed, at random and at every failpoint, in recoveries and compactions
//! too. Each round is a run of the harness, judged by its oracle.
//!
//! Most rounds draw their configuration. Others are made for the failpoint with the fewest kills so
//! far, since some are reached only when another process has died or a tail is torn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use strand_core::testing::Failpoint;

use crate::evidence::verdict::Verdict;
use crate::run::RunError;
use crate::run::config::{Config, Durability, Mode, Workload};
use crate::run::judgement::Judgement;
use crate::tiers::tally::{Budget, FINDINGS_MAX, Finding, Tally};

/// How many kills at each failpoint a run of [`FULL`] must reach.
const KILLS_AT_EACH_IN_FULL: u64 = 10;
const FULL: Duration = Duration::from_mins(1);
/// A run of this length must reach one kill at each failpoint. A shorter one promises nothing.
const QUICK: Duration = Duration::from_secs(15);
/// When the time is over and a failpoint has too few kills, rounds are made for it for up to this
/// many times the tier's time.
const EXTRA_TIME: u32 = 2;
/// The watchdog of one round.
const ROUND_TIMEOUT_S: u64 = 60;

/// Rounds until the time is over.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let started = Instant::now();
    let mut random = StdRng::seed_from_u64(budget.seed);
    let mut sum = Sum::default();
    let goal = kills_at_each(budget.time);
    for turn in 0_u64.. {
        if sum.findings.len() >= FINDINGS_MAX || sum.environment.is_some() {
            break;
        }
        let (rarest, kills) = sum.rarest();
        let is_short = kills < goal;
        if budget.interrupt.is_asked() {
            break;
        }
        let is_over = budget.is_over(started);
        if is_over && !(is_short && started.elapsed() < budget.time * EXTRA_TIME) {
            break;
        }
        let is_for_one = if is_short {
            is_over || turn % 4 != 3
        } else {
            turn % 4 == 3
        };
        let config = if is_for_one {
            made_for(rarest, &mut random)
        } else {
            drawn(&mut random)
        };
        let killed = sum.killed;
        sum.add(&config, crate::run::run(&config, &budget.exe, &|_| {}));
        budget.count(sum.killed - killed);
    }
    let ended_early =
        !sum.findings.is_empty() || sum.environment.is_some() || budget.interrupt.is_asked();
    for point in Failpoint::ALL.iter().filter(|_| !ended_early) {
        let kills = sum.kills_at(*point);
        if kills < goal {
            let seed = budget.seed;
            sum.findings.push(Finding {
                what: format!(
                    "only {kills} of {goal} kills at {point} (seed {seed}): it is no longer reached"
                ),
                replay: made_for(*point, &mut StdRng::seed_from_u64(seed)).replay_line(),
                kept: None,
            });
        }
    }
    sum.tally()
}

/// How often a run of this length must kill at each step.
fn kills_at_each(time: Duration) -> u64 {
    if time >= FULL {
        KILLS_AT_EACH_IN_FULL
    } else {
        u64::from(time >= QUICK)
    }
}

/// The sum of all rounds.
#[derive(Debug, Default)]
struct Sum {
    rounds: u64,
    killed: u64,
    at: BTreeMap<String, u64>,
    opening: u64,
    roles: BTreeMap<&'static str, u64>,
    acknowledged: u64,
    stopped: u64,
    torn: u64,
    forgotten: u64,
    displaced: u64,
    findings: Vec<Finding>,
    environment: Option<String>,
}

impl Sum {
    fn add(&mut self, config: &Config, ran: Result<Judgement, RunError>) {
        self.rounds += 1;
        let run = match ran {
            Ok(run) => run,
            Err(RunError::Environment { message, .. }) => {
                self.environment = Some(message);
                return;
            }
            Err(error @ RunError::Usage(_)) => {
                self.findings.push(Finding {
                    what: format!("a round was refused: {error}"),
                    replay: config.replay_line(),
                    kept: None,
                });
                return;
            }
        };
        self.killed += run.gathered.killed;
        self.opening += run.gathered.ledger.killed_opening_at.values().sum::<u64>();
        self.acknowledged += run.acknowledged();
        self.stopped += run.gathered.stopped;
        self.torn += run.gathered.torn;
        self.forgotten += run.gathered.forgotten;
        self.displaced += run.gathered.displaced;
        for (point, times) in &run.gathered.ledger.killed_at {
            *self.at.entry(point.clone()).or_default() += times;
        }
        for (role, times) in run.killed_roles() {
            *self.roles.entry(role).or_default() += times;
        }
        match run.verdict() {
            Verdict::Pass => {}
            Verdict::Environment | Verdict::Unknown | Verdict::Interrupted => {
                self.environment = Some(run.gathered.ledger.environment_errors.join("; "));
            }
            Verdict::Violated | Verdict::Hang => self.findings.push(Finding {
                what: format!("{}\n{}", run.verdict_line(), run.failure_details()),
                replay: config.replay_line(),
                kept: run.store.clone(),
            }),
        }
    }

    fn kills_at(&self, point: Failpoint) -> u64 {
        self.at.get(point.name()).copied().unwrap_or(0)
    }

    /// The step at which the fewest were killed, and how many.
    fn rarest(&self) -> (Failpoint, u64) {
        let points = Failpoint::ALL
            .iter()
            .map(|point| (*point, self.kills_at(*point)));
        let rarest = points.min_by_key(|(_, kills)| *kills);
        rarest.unwrap_or((Failpoint::LockHeld, u64::MAX))
    }

    fn tally(self) -> Tally {
        let named = |name: &str, count| (name.to_owned(), count);
        let points = Failpoint::ALL.iter();
        let mut counts: Vec<(String, u64)> = points
            .map(|point| named(point.name(), self.kills_at(*point)))
            .collect();
        let at_points: u64 = self.at.values().sum();
        counts.push(named("at random", self.killed.saturating_sub(at_points)));
        counts.push(named("while opening the store", self.opening));
        for (role, killed) in &self.roles {
            counts.push(named(&format!("of {role}s"), *killed));
        }
        for (name, count) in [
            ("torn tails", self.torn),
            ("hints deleted", self.forgotten),
            ("files displaced", self.displaced),
            ("stops", self.stopped),
            ("rounds", self.rounds),
            ("acknowledged", self.acknowledged),
        ] {
            counts.push(named(name, count));
        }
        Tally {
            tier: "T7",
            unit: "kills",
            cases: self.killed,
            counts,
            violations: self.findings,
            environment: self.environment,
            ..Tally::default()
        }
    }
}

/// The configuration that all rounds share.
fn round(random: &mut StdRng) -> Config {
    Config {
        seed: u64::from(random.random::<u32>()),
        timeout_s: ROUND_TIMEOUT_S,
        quiet: true,
        ..Config::default()
    }
}

/// A round in which processes of all kinds are killed anywhere.
fn drawn(random: &mut StdRng) -> Config {
    let mut config = round(random);
    let one_in = |random: &mut StdRng, many: u32| random.random_ratio(1, many);
    config.workload = match random.random_range(0..5) {
        0 | 1 => Workload::Append,
        2 | 3 => Workload::Mixed,
        _ => Workload::Claim,
    };
    config.agents = random.random_range(2..=6);
    config.writes = random.random_range(20..=80);
    match random.random_range(0..8) {
        0 => config.mode = Mode::Thread,
        1 | 2 => {
            config.one_shot = true;
            config.writes /= 3;
        }
        _ => {}
    }
    if one_in(random, 4) {
        config.durability = Durability::Buffered;
    }
    if one_in(random, 2) {
        config.readers = random.random_range(0..=3);
        config.followers = random.random_range(0..=2);
    }
    if one_in(random, 2) {
        config.compact_every_ms = Some(random.random_range(1..=20));
        config.compactors = random.random_range(1..=2);
    }
    let sizes = [Some(2 << 10), Some(8 << 10), Some(64 << 10), None];
    config.segment_bytes = sizes.choose(random).copied().flatten();
    if one_in(random, 8) {
        config.payload_bytes = Some(random.random_range(1_000..=8_000));
    }
    if random.random_ratio(2, 5) {
        config.kill_per_second = random.random_range(100..=400).into();
    } else {
        config.kill_at = Some("any".to_owned());
    }
    if one_in(random, 3) {
        config.tear_per_second = random.random_range(20..=200).into();
    }
    if one_in(random, 3) {
        config.forget_per_second = random.random_range(10..=100).into();
    }
    if cfg!(unix) && one_in(random, 4) {
        config.stop_per_second = random.random_range(5..=20).into();
    } else if cfg!(unix) && one_in(random, 3) {
        // Not beside stops: no check covers a file that is displaced while its process stands
        // between the check and the call behind it.
        config.displace_per_second = random.random_range(10..=80).into();
    }
    config
}

/// A round in which many processes reach one failpoint and are killed there.
fn made_for(point: Failpoint, random: &mut StdRng) -> Config {
    let mut config = Config {
        agents: 4,
        writes: 50,
        ..round(random)
    };
    let mut others = Vec::new();
    match point {
        // A process has to die as the leader.
        Failpoint::LeadTakenOver => others.push(Failpoint::BeforeSync),
        Failpoint::Quarantined | Failpoint::TornTailCut => {
            config.tear_per_second = 200.0;
            config.writes = 150;
        }
        Failpoint::RecoveryStarted => others.push(Failpoint::AfterWrite),
        Failpoint::RecoverySynced => {
            config.forget_per_second = 200.0;
            config.writes = 150;
        }
        Failpoint::RotationSynced | Failpoint::SegmentCreated => {
            config.segment_bytes = Some(1 << 10);
        }
        Failpoint::CompactionRotated
        | Failpoint::SnapshotWritten
        | Failpoint::SnapshotRenamed
        | Failpoint::ManifestReplaced
        | Failpoint::BeforeRemoval
        | Failpoint::OldFilesRemoved => {
            config.agents = 2;
            config.writes = 300;
            config.workload = Workload::Mixed;
            config.compact_every_ms = Some(1);
            config.compactors = 2;
            config.segment_bytes = Some(8 << 10);
        }
        _ => {}
    }
    if matches!(point, Failpoint::BeforeRemoval | Failpoint::OldFilesRemoved) {
        // A compaction that died leaves files, which the next process that opens the store removes.
        others.push(Failpoint::ManifestReplaced);
        if random.random_ratio(1, 2) {
            config.one_shot = true;
            config.writes = 60;
        }
    }
    let points = others.into_iter().chain([point]);
    let names: Vec<&str> = points.map(Failpoint::name).collect();
    config.kill_at = Some(names.join(","));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_one_that_the_harness_does() {
        let mut random = StdRng::seed_from_u64(1);
        for point in Failpoint::ALL.iter().cycle().take(200) {
            for config in [made_for(*point, &mut random), drawn(&mut random)] {
                assert_eq!(config.validate(), Ok(()), "{config:?}");
                assert!(config.kills(), "{config:?}");
            }
            let config = made_for(*point, &mut random);
            assert!(config.kill_points().contains(&point.name()), "{config:?}");
        }
    }

    #[test]
    fn the_longer_a_run_the_more_it_promises() {
        let promises = [1, 20, 100].map(|seconds| kills_at_each(Duration::from_secs(seconds)));
        assert_eq!(promises, [0, 1, KILLS_AT_EACH_IN_FULL]);
    }

    #[test]
    fn the_rarest_point_is_driven_at() {
        let mut sum = Sum::default();
        for point in Failpoint::ALL {
            sum.at.insert(point.name().to_owned(), 5);
        }
        sum.at.insert("Woken".to_owned(), 3);
        assert_eq!(sum.rarest(), (Failpoint::Woken, 3));
        sum.killed = 500;
        let tally = sum.tally();
        let count = |name: &str| {
            let found = tally.counts.iter().find(|(other, _)| other == name);
            found.map(|(_, count)| *count)
        };
        assert_eq!(count("Woken"), Some(3));
        let at_points = 5 * (Failpoint::ALL.len() as u64 - 1) + 3;
        assert_eq!(count("at random"), Some(500 - at_points));
    }

    #[test]
    fn a_round_that_could_not_be_done_stops_the_tier() {
        let mut sum = Sum::default();
        let error = RunError::Environment {
            message: "no space".to_owned(),
            store: None,
        };
        sum.add(&Config::default(), Err(error));
        let tally = sum.tally();
        assert_eq!(tally.environment.as_deref(), Some("no space"));
        assert!(tally.violations.is_empty());
    }
}
