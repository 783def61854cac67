//! A soak: everything that this harness can do to a store, again and again, for a given time.
//!
//! A round is a run of the harness with a store of its own, judged by the oracle. One more store
//! stays for the whole soak. Two [workers](worker) keep it open; short-lived workers use it and are
//! killed; its hints are deleted, and it is compacted. After each round, the workers compare the
//! store with what they know, and the resources that they use are measured: a leak grows. If a
//! small filesystem can be mounted, [disks become full](full_disk), too.

pub mod full_disk;
pub mod trend;
pub mod trouble;
pub mod worker;
mod worker_handle;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use strand_core::{Issue, IssueEvent, IssueLog, Issues, Patch, Timestamp, Version};
use tempfile::TempDir;

use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::panics::catch_panic;
use crate::run::RunError;
use crate::run::config::{Config, Durability, Mode, Workload};
use crate::run::errors::describe;
use crate::run::runner::Moment;
use crate::soak::full_disk::{FullDisk, SmallDisk};
use crate::soak::trend::{Limit, Series, Trend};
use crate::soak::trouble::Trouble;
use crate::soak::worker::{Answer, Spec};
use crate::soak::worker_handle::{Usage, WorkerHandle};

/// Number of live issues of each worker.
const ISSUES: usize = 400;
const WORKERS: u64 = 2;
/// How long latency is measured after each round.
const MEASURE: Duration = Duration::from_millis(250);
/// Longest life of a worker that is killed.
const VICTIM_LIFE_MAX: Duration = Duration::from_millis(150);
/// How long a worker is stopped.
const STOP: Duration = Duration::from_millis(40);
/// The watchdog of one round.
const ROUND_TIMEOUT_S: u64 = 120;
/// Events in the trace that is replayed.
const TRACE_EVENTS: u32 = 300;
const TS: i64 = 1_706_540_000_123;

/// A kind of round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Writes with conditions among readers, followers and a compactor; all are killed at random.
    #[default]
    Mixed,
    /// All agents claim all issues, and are killed at every failpoint.
    Claim,
    /// A trace is replayed, with kills.
    Replay,
    /// Processes are stopped for a while, with the locks that they hold.
    Stops,
    /// Compactors back to back.
    Storm,
    /// Many readers and followers.
    Crowd,
    /// A process for each write, with kills.
    OneShot,
    /// Hints are deleted, and tails torn.
    Lost,
    /// Appends that are not synced, with kills.
    Buffered,
    /// Threads of one process, with kills.
    Threads,
    /// Records of some kilobytes.
    Large,
    /// A disk becomes full.
    FullDisk,
}

/// All kinds.
pub const KINDS: [Kind; 12] = [
    Kind::Mixed,
    Kind::Claim,
    Kind::Replay,
    Kind::Stops,
    Kind::Storm,
    Kind::Crowd,
    Kind::OneShot,
    Kind::Lost,
    Kind::Buffered,
    Kind::Threads,
    Kind::Large,
    Kind::FullDisk,
];

impl Kind {
    /// In one word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// The work of such a round.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Kind::Mixed => ("mixed", "writes with conditions, all killed at random"),
            Kind::Claim => ("claim", "all claim all issues, killed at every failpoint"),
            Kind::Replay => ("replay", "a trace, with kills"),
            Kind::Stops => ("stops", "processes stopped with the locks that they hold"),
            Kind::Storm => ("storm", "compactors back to back"),
            Kind::Crowd => ("crowd", "many readers and followers"),
            Kind::OneShot => ("one-shot", "a process for each write, with kills"),
            Kind::Lost => ("lost", "hints deleted, tails torn"),
            Kind::Buffered => ("buffered", "appends that are not synced, with kills"),
            Kind::Threads => ("threads", "threads of one process, with kills"),
            Kind::Large => ("large", "records of some kilobytes, with kills"),
            Kind::FullDisk => ("full disk", "a disk becomes full"),
        }
    }
}

/// A finished round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Round {
    /// The kind.
    pub kind: Kind,
    /// When it began, in seconds from the beginning of the soak.
    pub from_s: f64,
    /// When it was judged.
    pub to_s: f64,
    /// Operations that were acknowledged in it.
    pub acknowledged: u64,
    /// Processes that were killed in it.
    pub killed: u64,
    /// How often a process was stopped in it.
    pub stopped: u64,
    /// Compactions that were finished in it.
    pub compactions: u64,
}

/// The result of a soak.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// How long it took.
    pub minutes: f64,
    /// Number of rounds of each kind.
    pub rounds: BTreeMap<Kind, u64>,
    /// All rounds.
    pub course: Vec<Round>,
    /// Operations that were acknowledged, in the rounds and to the workers.
    pub acknowledged: u64,
    /// Processes that were killed.
    pub killed: u64,
    /// How often a process was stopped for a while.
    pub stopped: u64,
    /// The disks that became full.
    pub full_disk: FullDisk,
    /// The trends of all measurements.
    pub trends: Vec<Trend>,
    /// Why it ended before its time.
    pub trouble: Option<Trouble>,
    /// Where the stores are, if they were kept.
    pub kept: Option<PathBuf>,
}

/// How far a soak has come.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The current round.
    pub kind: &'a str,
    /// Finished rounds.
    pub rounds: u64,
    /// Events and their numbers.
    pub events: Vec<(&'static str, u64)>,
}

/// Soaks for `time`, and keeps the stores if something is wrong.
///
/// `exe` is the `strand-stress` binary, from which workers are started; `show` is called from time
/// to time. An interrupt ends the soak after the present round.
pub fn run(
    time: Duration,
    seed: u64,
    exe: &Path,
    dir: TempDir,
    interrupt: &Interrupt,
    show: &dyn Fn(&Stage<'_>),
) -> Outcome {
    let started = Instant::now();
    let mut soak = Soak::new(seed, exe, dir.path(), interrupt, show);
    let ended =
        catch_panic(|| soak.soak(time)).unwrap_or_else(|panic| Err(Trouble::Violation(panic)));
    let trouble = ended.err();
    let trends: Vec<Trend> = soak.series.iter().map(Series::trend).collect();
    let verdict = match &trouble {
        Some(Trouble::Violation(_)) => Verdict::Violated,
        Some(Trouble::Hang(_)) => Verdict::Hang,
        Some(Trouble::Environment(_)) => Verdict::Environment,
        None if trends.iter().any(Trend::fails) => Verdict::Violated,
        None if interrupt.is_asked() => Verdict::Interrupted,
        None => Verdict::Pass,
    };
    let Soak {
        rounds,
        course,
        acknowledged,
        killed,
        stopped,
        full_disk,
        ..
    } = soak;
    let kept = (!verdict.is_good()).then(|| dir.keep());
    Outcome {
        verdict,
        minutes: started.elapsed().as_secs_f64() / 60.0,
        rounds,
        course,
        acknowledged,
        killed,
        stopped,
        full_disk,
        trends,
        trouble,
        kept,
    }
}

struct Soak<'a> {
    seed: u64,
    exe: &'a Path,
    dir: &'a Path,
    random: StdRng,
    started: Instant,
    rounds: BTreeMap<Kind, u64>,
    course: Vec<Round>,
    acknowledged: u64,
    killed: u64,
    stopped: u64,
    victims: u64,
    full_disk: FullDisk,
    series: Vec<Series>,
    interrupt: &'a Interrupt,
    show: &'a dyn Fn(&Stage<'_>),
}

impl<'a> Soak<'a> {
    fn new(
        seed: u64,
        exe: &'a Path,
        dir: &'a Path,
        interrupt: &'a Interrupt,
        show: &'a dyn Fn(&Stage<'_>),
    ) -> Soak<'a> {
        Soak {
            seed,
            exe,
            dir,
            random: StdRng::seed_from_u64(seed),
            started: Instant::now(),
            rounds: BTreeMap::new(),
            course: Vec::new(),
            acknowledged: 0,
            killed: 0,
            stopped: 0,
            victims: 0,
            full_disk: FullDisk::default(),
            series: Vec::new(),
            interrupt,
            show,
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn soak(&mut self, time: Duration) -> Result<(), Trouble> {
        let started = Instant::now();
        let trace = self.dir.join("trace.jsonl");
        self.write_trace(&trace)
            .and_then(|()| fs::create_dir(self.store()))
            .map_err(|error| Trouble::Environment(error.to_string()))?;
        let small = SmallDisk::mount(&self.dir.join("small-disk"));
        if let Err(reason) = &small {
            self.full_disk.skipped = Some(reason.clone());
        }
        let mut workers = Vec::new();
        for number in 1..=WORKERS {
            let spec = self.spec(format!("worker{number}"), number);
            workers.push(WorkerHandle::start(self.exe, &spec)?);
        }
        let interrupt = self.interrupt;
        let is_over = || started.elapsed() >= time || interrupt.is_asked();
        while !is_over() {
            let mut kinds = KINDS;
            kinds.shuffle(&mut self.random);
            for kind in kinds {
                if is_over() {
                    break;
                }
                let seed = u64::from(self.random.random::<u32>());
                let from_s = self.started.elapsed().as_secs_f64();
                self.show(kind.name(), &Moment::default());
                let round = match (kind, &small) {
                    (Kind::FullDisk, Ok(disk)) => self.fill(disk, seed)?,
                    (Kind::FullDisk, Err(_)) => continue,
                    _ => self.round(kind, &config(kind, seed, self.dir, &trace))?,
                };
                self.course.push(Round {
                    kind,
                    from_s,
                    to_s: self.started.elapsed().as_secs_f64(),
                    ..round
                });
                *self.rounds.entry(kind).or_default() += 1;
                self.disturb(&workers)?;
                self.measure(&mut workers)?;
            }
        }
        for worker in workers {
            worker.quit()?;
        }
        Ok(())
    }

    fn spec(&self, name: String, number: u64) -> Spec {
        Spec {
            store: self.store(),
            name,
            seed: self.seed.wrapping_add(number),
            issues: ISSUES,
            quiet: false,
            announces: false,
            compacts: true,
        }
    }

    /// Shows the finished rounds and the current one.
    fn show(&self, kind: &str, now: &Moment) {
        let rounds: u64 = self.rounds.values().sum();
        let sum = |of: fn(&Round) -> u64| self.course.iter().map(of).sum::<u64>();
        let mut events = vec![
            ("acknowledged", self.acknowledged + now.acknowledged),
            ("killed", self.killed + now.killed),
            ("stopped", self.stopped + now.stopped),
            (
                "compactions",
                sum(|round| round.compactions) + now.compactions,
            ),
        ];
        events.retain(|(_, times)| *times > 0);
        (self.show)(&Stage {
            kind,
            rounds,
            events,
        });
    }

    /// A disk becomes full.
    fn fill(&mut self, disk: &SmallDisk, seed: u64) -> Result<Round, Trouble> {
        let before = self.full_disk.acknowledged;
        let store = self.dir.join("full-disk-store");
        full_disk::round(disk, self.exe, seed, &store, &mut self.full_disk)?;
        Ok(Round {
            acknowledged: self.full_disk.acknowledged - before,
            ..Round::default()
        })
    }

    /// A run of the harness, with its oracle.
    fn round(&mut self, kind: Kind, config: &Config) -> Result<Round, Trouble> {
        let show = |moment: &Moment| self.show(kind.name(), moment);
        let run = crate::run::run(config, self.exe, &show).map_err(|error| match error {
            RunError::Usage(error) => Trouble::Violation(format!("{kind:?}: {error}")),
            RunError::Environment { message, .. } => Trouble::Environment(message),
        })?;
        self.acknowledged += run.acknowledged();
        self.killed += run.gathered.killed;
        self.stopped += run.gathered.stopped;
        let what = || format!("{}\n{}", run.verdict_line(), run.failure_details());
        match run.verdict() {
            Verdict::Pass => Ok(Round {
                acknowledged: run.acknowledged(),
                killed: run.gathered.killed,
                stopped: run.gathered.stopped,
                compactions: run.compactions(),
                ..Round::default()
            }),
            Verdict::Violated => Err(Trouble::Violation(what())),
            Verdict::Hang => Err(Trouble::Hang(what())),
            Verdict::Environment | Verdict::Unknown | Verdict::Interrupted => {
                Err(Trouble::Environment(what()))
            }
        }
    }

    /// Disturbs the store that stays: a worker is killed, another one is stopped, and the hints are
    /// deleted.
    fn disturb(&mut self, workers: &[WorkerHandle]) -> Result<(), Trouble> {
        self.victims += 1;
        let name = format!("victim{}", self.victims);
        let spec = Spec {
            announces: true,
            compacts: false,
            ..self.spec(name.clone(), 1_000 + self.victims)
        };
        let mut victim = WorkerHandle::spawn(self.exe, &spec)?;
        victim.begin_work(VICTIM_LIFE_MAX)?;
        std::thread::sleep(VICTIM_LIFE_MAX.mul_f64(self.random.random()));
        let answers = victim.kill()?;
        self.killed += 1;
        if cfg!(unix)
            && let Some(worker) = workers.last()
        {
            let stopping = |error: io::Error| {
                Trouble::Environment(format!("a worker can't be stopped: {error}"))
            };
            worker.child().pause().map_err(stopping)?;
            std::thread::sleep(STOP);
            worker.child().resume().map_err(stopping)?;
            self.stopped += 1;
        }
        match fs::remove_file(self.store().join("shm")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Trouble::Environment(error.to_string()));
            }
            _ => {}
        }
        let failed =
            |error: strand_core::Error| Trouble::Violation(format!("{name}: {}", describe(&error)));
        let log = IssueLog::open(self.store(), worker::options()).map_err(failed)?;
        let state = Issues::load(self.store()).map_err(failed)?;
        let left = survivors(&state, &name, &answers).map_err(Trouble::Violation)?;
        for id in left {
            log.append(&IssueEvent::delete(id, Timestamp::from_ms(TS)))
                .map_err(failed)?;
        }
        // It may find another compaction running.
        log.compact().map_err(failed)?;
        log.close().map_err(failed)
    }

    /// Has the workers check their store, and measures their resources.
    fn measure(&mut self, workers: &mut [WorkerHandle]) -> Result<(), Trouble> {
        let mut live = 0;
        let mut samples: Vec<(String, f64, Limit)> = Vec::new();
        for (number, worker) in (1..).zip(workers) {
            let worked = worker.work(MEASURE)?;
            self.acknowledged += worked.acknowledged;
            if !worked.errors.is_empty() || worked.unknown + worked.rejected_full > 0 {
                return Err(Trouble::Violation(format!("worker {number}: {worked:?}")));
            }
            live += worker.check()?;
            if worked.acknowledged > 0 && number == 1 {
                samples.push(("append p50, us".to_owned(), worked.p50_us, LATENCY_P50));
                samples.push(("append p99, us".to_owned(), worked.p99_us, LATENCY_P99));
            }
            let usage = Usage::of(Some(worker.child().pid()));
            samples.extend(uses(&format!("worker {number}"), usage, MAPS));
        }
        samples.extend(uses("harness", Usage::of(None), HARNESS_MAPS));
        let bytes =
            disk_bytes(&self.store()).map_err(|error| Trouble::Environment(error.to_string()))?;
        if live > 0 {
            let issues = f64::from(u32::try_from(live).unwrap_or(u32::MAX));
            samples.push(("disk bytes per live issue".to_owned(), bytes / issues, DISK));
        }
        let at_s = self.started.elapsed().as_secs_f64();
        for (name, sample, limit) in samples {
            match self.series.iter_mut().find(|series| series.name == name) {
                Some(series) => {
                    series.samples.push(sample);
                    series.at_s.push(at_s);
                }
                None => self.series.push(Series {
                    name,
                    samples: vec![sample],
                    at_s: vec![at_s],
                    limit,
                }),
            }
        }
        Ok(())
    }

    /// Events of a few issues, to be replayed.
    fn write_trace(&mut self, path: &Path) -> io::Result<()> {
        let mut lines = String::new();
        for number in 0..TRACE_EVENTS {
            let id = format!("bd-trace{}", number % 60);
            let event = match number / 60 {
                0 => IssueEvent::add(
                    Issue::new_at(&id, &format!("Issue {number}"), Timestamp::from_ms(TS)),
                    Timestamp::from_ms(TS),
                ),
                1 | 3 => {
                    let priority = self.random.random_range(0..5);
                    let change = Patch::new().set("priority", &priority);
                    IssueEvent::patch(
                        id,
                        change.map_err(io::Error::other)?,
                        Timestamp::from_ms(TS),
                    )
                }
                2 => IssueEvent::close(id, Timestamp::from_ms(TS)),
                _ if number % 2 == 0 => IssueEvent::delete(id, Timestamp::from_ms(TS)),
                _ => IssueEvent::reopen(id, Timestamp::from_ms(TS)),
            };
            lines += &serde_json::to_string(&event)?;
            lines.push('\n');
        }
        fs::write(path, lines)
    }
}

const FILES: Limit = limit(1.0, 4.0);
const MAPS: Limit = limit(1.0, 24.0);
/// The allocator keeps memory that it has mapped for the many threads of the harness.
const HARNESS_MAPS: Limit = limit(1.5, 64.0);
const MEMORY: Limit = limit(1.25, 8.0 * 1024.0);
const DISK: Limit = limit(1.5, 512.0);
const LATENCY_P50: Limit = Limit {
    fails: false,
    ..limit(2.0, 50.0)
};
const LATENCY_P99: Limit = Limit {
    fails: false,
    ..limit(3.0, 500.0)
};

const fn limit(factor: f64, slack: f64) -> Limit {
    Limit {
        factor,
        slack,
        fails: true,
    }
}

fn uses(who: &str, usage: Usage, maps_limit: Limit) -> Vec<(String, f64, Limit)> {
    let Usage {
        files,
        maps,
        memory_kib,
    } = usage;
    let all = [
        ("open files", files, FILES),
        ("mappings", maps, maps_limit),
        ("memory, KiB", memory_kib, MEMORY),
    ];
    let known = all
        .into_iter()
        .filter_map(|(what, value, limit)| Some((format!("{who}: {what}"), value?, limit)));
    known.collect()
}

/// The space that the files in a directory use.
fn disk_bytes(dir: &Path) -> io::Result<f64> {
    let mut kib = 0;
    for entry in fs::read_dir(dir)? {
        // A file that is removed meanwhile uses none.
        let Ok(found) = entry?.metadata() else {
            continue;
        };
        kib += found.len().div_ceil(1024);
    }
    Ok(f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) * 1024.0)
}

/// The remaining issues of a killed worker. All acknowledged writes must be there; its last write,
/// which is in doubt, may be.
fn survivors(state: &Issues, name: &str, answers: &[Answer]) -> Result<Vec<String>, String> {
    let prefix = format!("{name}-");
    let mut said: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    let mut last_seq = 0;
    for answer in answers {
        if let Answer::Acknowledged {
            seq,
            changed,
            deleted,
        } = answer
        {
            last_seq = *seq;
            said.extend(changed.iter().map(|id| (id.as_str(), (*seq, true))));
            said.extend(deleted.iter().map(|id| (id.as_str(), (*seq, false))));
        }
    }
    let own = || {
        state
            .iter()
            .map(|(id, _)| id)
            .filter(|id| id.starts_with(&prefix))
    };
    let there = said.iter().filter(|(_, (_, is_there))| *is_there);
    // The shorter number is the lower one.
    let oldest = there.map(|(id, _)| *id).min_by_key(|id| (id.len(), *id));
    let mut later: Vec<Option<u64>> = Vec::new();
    for (id, (seq, is_there)) in said {
        let version = state.version(id).map(Version::get);
        // A worker deletes its oldest issue; a compaction may have removed the tombstone since.
        if version.is_none() && is_there && Some(id) == oldest {
            later.push(None);
            continue;
        }
        let found = (version.unwrap_or(seq), state.get(id).is_some());
        if found == (seq, is_there) {
            continue;
        }
        // Only the write after its last acknowledged one can have changed it again.
        if found.0 <= last_seq {
            return Err(format!(
                "{id}: record {seq} was acknowledged, and {found:?} is stored"
            ));
        }
        later.push(Some(found.0));
    }
    later.sort_unstable();
    later.dedup();
    if later.len() > 1 {
        return Err(format!(
            "records {later:?} were written by {name}, which has not heard of the first"
        ));
    }
    Ok(own().map(str::to_owned).collect())
}

/// The configuration of a round.
fn config(kind: Kind, seed: u64, dir: &Path, trace: &Path) -> Config {
    let base = Config {
        seed,
        agents: 4,
        writes: 100,
        timeout_s: ROUND_TIMEOUT_S,
        dir: Some(dir.to_owned()),
        segment_bytes: Some(16 << 10),
        quiet: true,
        ..Config::default()
    };
    let any = || Some("any".to_owned());
    match kind {
        Kind::Mixed | Kind::FullDisk => Config {
            workload: Workload::Mixed,
            readers: 2,
            followers: 2,
            compact_every_ms: Some(10),
            kill_per_second: 60.0,
            ..base
        },
        Kind::Claim => Config {
            workload: Workload::Claim,
            followers: 1,
            compact_every_ms: Some(20),
            kill_at: any(),
            ..base
        },
        Kind::Replay => Config {
            workload: Workload::Replay,
            payload: Some(trace.to_owned()),
            readers: 1,
            kill_per_second: 60.0,
            ..base
        },
        Kind::Stops => Config {
            workload: Workload::Mixed,
            stop_per_second: if cfg!(unix) { 20.0 } else { 0.0 },
            readers: 1,
            followers: 1,
            compact_every_ms: Some(20),
            ..base
        },
        Kind::Storm => Config {
            compact_every_ms: Some(1),
            compactors: 4,
            readers: 2,
            followers: 1,
            writes: 200,
            ..base
        },
        Kind::Crowd => Config {
            readers: 12,
            followers: 8,
            compact_every_ms: Some(30),
            ..base
        },
        Kind::OneShot => Config {
            one_shot: true,
            writes: 30,
            kill_per_second: 100.0,
            workload: Workload::Mixed,
            ..base
        },
        Kind::Lost => Config {
            forget_per_second: 20.0,
            tear_per_second: 20.0,
            writes: 60,
            kill_at: any(),
            readers: 1,
            followers: 1,
            ..base
        },
        Kind::Buffered => Config {
            durability: Durability::Buffered,
            kill_per_second: 80.0,
            followers: 1,
            writes: 200,
            ..base
        },
        Kind::Threads => Config {
            mode: Mode::Thread,
            workload: Workload::Mixed,
            kill_per_second: 20.0,
            ..base
        },
        Kind::Large => Config {
            payload_bytes: Some(20_000),
            segment_bytes: Some(1 << 20),
            writes: 30,
            kill_at: any(),
            ..base
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strand_core::Seq;

    #[test]
    fn every_round_is_one_that_the_harness_does() {
        for kind in KINDS {
            let config = config(kind, 1, Path::new("/tmp"), Path::new("trace"));
            assert_eq!(config.validate(), Ok(()), "{kind:?}");
        }
    }

    #[test]
    fn a_trace_is_one_that_can_be_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        let mut soak = Soak::new(3, Path::new("x"), dir.path(), &interrupt, &|_| {});
        let path = dir.path().join("trace.jsonl");
        soak.write_trace(&path).unwrap();
        let mut store = Issues::default();
        let text = fs::read_to_string(path).unwrap();
        for (seq, line) in (1..).zip(text.lines()) {
            store.apply(Seq::new(seq), [serde_json::from_str(line).unwrap()]);
        }
        assert_eq!(
            (store.last_seq().get(), store.len()),
            (u64::from(TRACE_EVENTS), 30)
        );
    }

    fn acknowledged(seq: u64, changed: &[&str], deleted: &[&str]) -> Answer {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Answer::Acknowledged {
            seq,
            changed: owned(changed),
            deleted: owned(deleted),
        }
    }

    #[test]
    fn what_a_victim_was_told_must_be_there_and_its_last_write_may() {
        let mut store = Issues::default();
        let mut apply = |seq, event| store.apply(seq, [event]);
        let add = |id: &str| {
            IssueEvent::add(
                Issue::new_at(id, "x", Timestamp::from_ms(TS)),
                Timestamp::from_ms(TS),
            )
        };
        apply(Seq::new(1), add("v-1"));
        apply(Seq::new(2), add("w-9"));
        apply(Seq::new(3), add("v-2"));
        apply(
            Seq::new(4),
            IssueEvent::delete("v-1", Timestamp::from_ms(TS)),
        );
        apply(
            Seq::new(5),
            IssueEvent::close("v-2", Timestamp::from_ms(TS)),
        );
        let told = [
            acknowledged(1, &["v-1"], &[]),
            acknowledged(3, &["v-2"], &[]),
        ];
        let deleted = acknowledged(4, &[], &["v-1"]);
        // The close was not acknowledged before the worker was killed.
        let all = [told[0].clone(), told[1].clone(), deleted];
        assert_eq!(survivors(&store, "v", &all), Ok(vec!["v-2".to_owned()]));
        // Both the deletion and the close came after the last acknowledgement: they can't be one
        // write.
        assert!(survivors(&store, "v", &told).is_err());
        let lost = [
            acknowledged(1, &["v-1"], &[]),
            acknowledged(6, &["v-3"], &[]),
        ];
        assert!(survivors(&store, "v", &lost).is_err());
        // Only the oldest can be gone without a trace, and by one write.
        let compacted = [
            acknowledged(3, &["v-2"], &[]),
            acknowledged(6, &["v-10"], &[]),
        ];
        let mut store = Issues::default();
        let mut apply = |seq, event| store.apply(seq, [event]);
        apply(Seq::new(3), add("w-1"));
        apply(Seq::new(6), add("v-10"));
        assert_eq!(
            survivors(&store, "v", &compacted),
            Ok(vec!["v-10".to_owned()])
        );
        assert!(survivors(&store, "v", &lost).is_err());
        store.apply(
            Seq::new(7),
            [IssueEvent::close("v-10", Timestamp::from_ms(TS))],
        );
        assert!(survivors(&store, "v", &compacted).is_err());
    }
}
