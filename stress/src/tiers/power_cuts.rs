//! T8: the power is cut under real processes.
//!
//! Agents, readers, followers and compactors work in a store on a filesystem that keeps what was
//! synced and loses, tears or reorders any part of the rest ([`crate::powerfs`]). At some request
//! the power goes: no request is answered any more, and every process is killed. The rest is
//! recovered elsewhere and examined with the whole oracle. Then the next processes begin with the
//! same rest, so that recoveries are cut off too, and several cuts stack up in one store.

use crate::tiers::tally::{Budget, Tally};

/// The tier's short name.
const TIER: &str = "T8";

/// Cuts the power under one store after the other, until the time is over.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let mut tally = Tally::new(TIER, "power cuts");
    #[cfg(target_os = "linux")]
    match crate::powerfs::mount::obstacle() {
        None => linux::run(budget, &mut tally),
        obstacle => tally.skipped = obstacle,
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = budget;
        tally.skipped = Some("filesystems of our own are served on Linux only".to_owned());
    }
    tally
}

#[cfg(target_os = "linux")]
mod linux {
    use std::any::Any;
    use std::collections::BTreeMap;
    use std::fs;
    use std::io;
    use std::ops::ControlFlow;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use strand_core::{IssueEvent, Log, Options};
    use tempfile::TempDir;

    use crate::evidence::ledger::{Ledger, Outcome};
    use crate::evidence::observations::Journal;
    use crate::evidence::stored::{first_seq, is_segment, parse_manifest};
    use crate::evidence::violation::Violation;
    use crate::panics::catch_panic;
    use crate::powerfs::mount::{Counts, PowerFs, Tripwire};
    use crate::run::config::{Config, Mode, Workload};
    use crate::run::errors::describe;
    use crate::run::examine::{Examination, examine};
    use crate::run::payload::{PayloadSource, Payloads};
    use crate::run::places::Places;
    use crate::run::pool::set_up;
    use crate::run::runner::{self, Next, Power};
    use crate::run::{Judged, judge_stored, read_journal};
    use crate::sim::crash::Losses;
    use crate::sim::disk::VirtualDisk;
    use crate::tiers::pool;
    use crate::tiers::power_cuts::TIER;
    use crate::tiers::tally::{Budget, FINDINGS_MAX, Finding, Tally};

    /// How often the power goes under one store, before the next one begins.
    const CUTS_PER_STORE: u32 = 8;
    /// The power goes within this time in any case.
    const CUT_LIMIT_MS: u64 = 150;
    /// Recovery and examination take some milliseconds; what takes longer than this hangs.
    const EXAMINATION_LIMIT: Duration = Duration::from_mins(1);
    /// No agent comes to its last write.
    const WRITES: u32 = 1_000_000;
    /// The directories of a round.
    const STORE: &str = "store";
    const ARCHIVE: &str = "archive";
    /// Most rounds begin with what the cut left; one in this many with the recovered store.
    const RECOVERED_ONE_IN: u32 = 4;

    pub(super) fn run(budget: &Budget, tally: &mut Tally) {
        let tier = Tier {
            budget,
            began: Instant::now(),
            found: Mutex::new(Found::default()),
        };
        pool::run(budget, 0.., || (), |(), number| tier.work(number));
        let found = tier.found.into_inner();
        let found = found.unwrap_or_else(PoisonError::into_inner);
        tally.cases = found.counts.get("cuts").copied().unwrap_or(0);
        let counts = found.counts.into_iter();
        let counts = counts.filter(|(name, _)| *name != "cuts");
        tally.counts = counts
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        tally.violations = found.findings;
        tally.environment = found.environment;
    }

    struct Tier<'a> {
        budget: &'a Budget,
        began: Instant,
        found: Mutex<Found>,
    }

    #[derive(Default)]
    struct Found {
        counts: BTreeMap<&'static str, u64>,
        findings: Vec<Finding>,
        environment: Option<String>,
    }

    impl Tier<'_> {
        fn work(&self, number: u64) -> ControlFlow<()> {
            if self.is_over() {
                return ControlFlow::Break(());
            }
            let seed = store_seed(self.budget.seed, number);
            match catch_panic(|| self.try_store(seed)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = format!("{error} (seed {seed})");
                    self.found().environment.get_or_insert(error);
                }
                Err(panic) => self.find(seed, format!("the harness {panic}"), None),
            }
            ControlFlow::Continue(())
        }

        fn is_over(&self) -> bool {
            let found = self.found();
            let is_enough = found.findings.len() >= FINDINGS_MAX || found.environment.is_some();
            is_enough || self.budget.is_over(self.began)
        }

        fn found(&self) -> std::sync::MutexGuard<'_, Found> {
            self.found.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn find(&self, seed: u64, what: String, kept: Option<PathBuf>) {
            let replay = format!("cargo xtask torture --tier {TIER} --seed {seed}");
            let finding = Finding { what, replay, kept };
            self.found().findings.push(finding);
        }

        /// Cuts the power under one store, again and again.
        fn try_store(&self, seed: u64) -> io::Result<()> {
            let mut store = StoreUnderTest::begin(seed)?;
            for cut in 0..CUTS_PER_STORE {
                if cut > 0 && self.is_over() {
                    break;
                }
                let violations = store.cut_power(&self.budget.exe)?;
                self.budget.count(1);
                let mut found = self.found();
                for (name, count) in &mut store.counts {
                    *found.counts.entry(name).or_default() += std::mem::take(count);
                }
                drop(found);
                if !violations.is_empty() {
                    let (what, kept) = store.keep(cut, &violations)?;
                    self.find(seed, what, Some(kept));
                    return Ok(());
                }
            }
            *self.found().counts.entry("stores").or_default() += 1;
            store.end()
        }
    }

    /// The seed of a store. The first store has the tier's seed, so that a store can be replayed.
    /// Tools that keep numbers as doubles keep it, too.
    fn store_seed(seed: u64, number: u64) -> u64 {
        if number == 0 {
            return seed;
        }
        StdRng::seed_from_u64(seed ^ number << 32)
            .random::<u32>()
            .into()
    }

    /// Draws who works on a store, and how.
    fn draw_config(seed: u64, random: &mut StdRng) -> Config {
        let mut one_in = |number: u32| random.random_range(0..number) == 0;
        let workload = if one_in(2) {
            Workload::Mixed
        } else {
            Workload::Append
        };
        let mode = if one_in(8) {
            Mode::Thread
        } else {
            Mode::Process
        };
        let one_shot = mode == Mode::Process && one_in(6);
        let (reads, follows) = (one_in(3), one_in(3));
        let compacts = one_in(2);
        let two_compact = one_in(4);
        let kills = one_in(4);
        let is_long = one_in(6);
        // Threads are cheap, and write more between two syncs.
        let agents_max = if mode == Mode::Thread { 16 } else { 4 };
        Config {
            agents: random.random_range(1..=agents_max),
            writes: WRITES,
            seed,
            mode,
            one_shot,
            workload,
            readers: u32::from(reads),
            followers: u32::from(follows),
            compact_every_ms: compacts.then(|| random.random_range(1..=12)),
            compactors: if compacts && two_compact { 2 } else { 1 },
            payload_bytes: is_long.then(|| random.random_range(600..=9_000)),
            segment_bytes: pick(
                random,
                &[None, Some(2 << 10), Some(6 << 10), Some(30 << 10)],
            ),
            preallocate_bytes: pick(
                random,
                &[None, Some(0), Some(700), Some(4 << 10), Some(16 << 10)],
            ),
            kill_per_second: if kills { 60.0 } else { 0.0 },
            ..Config::default()
        }
    }

    fn pick<T: Copy>(random: &mut StdRng, choices: &[Option<T>]) -> Option<T> {
        let index = random.random_range(0..choices.len());
        choices.get(index).copied().flatten()
    }

    /// Draws where the power goes: sometimes in the first open, sometimes long after it; often at a
    /// sync, when most is at stake.
    fn draw_tripwire(random: &mut StdRng, compacts: bool) -> Tripwire {
        // Compactions are what names are changed for.
        let kinds = if compacts { 12 } else { 8 };
        let (counts, most) = match random.random_range(0..kinds) {
            0..4 => (Counts::Changes, 9),
            4..6 => (Counts::FileSyncs, 7),
            8..10 => (Counts::Names, 6),
            10..12 => (Counts::DirSyncs, 5),
            6 => (Counts::DirSyncs, 3),
            _ => (Counts::Names, 3),
        };
        // Before the first compaction, all other processes open the store.
        let least = if compacts { 3 } else { 0 };
        let magnitude = random.random_range(least..=most);
        let passes = random.random_range(0..1_u32 << magnitude);
        Tripwire {
            counts,
            passes,
            is_done: random.random(),
        }
    }

    /// The machine between a start and a power loss.
    struct Machine {
        served: PowerFs,
        boot: String,
    }

    impl Power for Machine {
        fn boot(&self) -> String {
            self.boot.clone()
        }

        fn is_cut_within(&self, time: Duration) -> bool {
            self.served.is_cut_within(time)
        }

        fn cut(&self) {
            self.served.cut();
        }

        fn release(&self) {
            self.served.release();
        }
    }

    /// One store, through all its power cuts.
    struct StoreUnderTest {
        dir: TempDir,
        config: Config,
        source: PayloadSource,
        payloads: Payloads,
        random: StdRng,
        /// The disk after the last cut.
        remains: VirtualDisk,
        /// How often the machine was started.
        boots: u32,
        ledger: Ledger,
        next: Vec<Next>,
        tripwire: Option<Tripwire>,
        counts: BTreeMap<&'static str, u64>,
    }

    impl StoreUnderTest {
        fn begin(seed: u64) -> io::Result<StoreUnderTest> {
            let dir = tempfile::Builder::new()
                .prefix(&format!("strand-power-cut-{seed}-"))
                .tempdir()?;
            for name in ["mount", "journals", STORE, ARCHIVE] {
                fs::create_dir(dir.path().join(name))?;
            }
            let mut random = StdRng::seed_from_u64(seed);
            let config = draw_config(seed, &mut random);
            let source = crate::run::payload_source(&config).map_err(io::Error::other)?;
            let payloads =
                Payloads::open(&source, seed, config.writes).map_err(io::Error::other)?;
            let mut store = StoreUnderTest {
                next: vec![Next::first(); config.agents as usize],
                dir,
                config,
                source,
                payloads,
                random,
                remains: VirtualDisk::new(),
                boots: 0,
                ledger: Ledger::default(),
                tripwire: None,
                counts: BTreeMap::new(),
            };
            let places = store.places(store.dir.path());
            store.ledger = set_up(&store.config, &places);
            store.read_back()?;
            Ok(store)
        }

        /// The places of a round whose store and archive are in `stored`.
        fn places(&self, stored: &Path) -> Places {
            let dir = self.dir.path();
            Places {
                store: stored.join(STORE),
                etcd: None,
                control: dir.join("control"),
                stderr: dir.join("agents.stderr"),
                archive: stored.join(ARCHIVE),
                journals: dir.join("journals"),
            }
        }

        /// Puts the store and its archive in the run's directory on the disk, but not the hints:
        /// they belong to files that the next disk does not have.
        fn read_back(&mut self) -> io::Result<()> {
            let mut remains = VirtualDisk::new();
            for name in [STORE, ARCHIVE] {
                remains.copy_from(&self.dir.path().join(name), Path::new(name))?;
            }
            match remains.remove(&Path::new(STORE).join("shm")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            remains.sync_all();
            self.remains = remains;
            Ok(())
        }

        fn count(&mut self, name: &'static str, count: u64) {
            *self.counts.entry(name).or_default() += count;
        }

        /// Lets processes work until the power goes, and examines what remains.
        fn cut_power(&mut self, exe: &Path) -> io::Result<Vec<Violation>> {
            let before = self.ledger.operations.len();
            let mut violations = self.work_until_cut(exe)?;
            for operation in self.ledger.operations.iter().skip(before) {
                let name = match operation.outcome {
                    Outcome::Acknowledged { .. } => "acknowledged",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Rejected { .. } => "rejected",
                    Outcome::Unknown { .. } => "unknown",
                };
                *self.counts.entry(name).or_default() += 1;
            }
            self.drop_lost_archive()?;
            violations.extend(self.examine()?);
            self.count("cuts", 1);
            if violations.is_empty() && self.random.random_range(0..RECOVERED_ONE_IN) == 0 {
                self.read_back()?;
            }
            Ok(violations)
        }

        fn work_until_cut(&mut self, exe: &Path) -> io::Result<Vec<Violation>> {
            let control = self.dir.path().join("control");
            match fs::remove_file(&control) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut disk = self.remains.clone();
            let archive = disk.lookup(Path::new(ARCHIVE))?;
            disk.make_safe(archive)?;
            let served = PowerFs::serve(disk, &self.dir.path().join("mount"))?;
            let limit = Duration::from_millis(self.random.random_range(10..=CUT_LIMIT_MS));
            let compacts = self.config.compacting() > 0;
            let tripwire = draw_tripwire(&mut self.random, compacts);
            self.tripwire = Some(tripwire);
            served.arm(tripwire);
            let places = self.places(served.path());
            self.boots += 1;
            let machine = Machine {
                served,
                boot: format!("boot {} of {}", self.boots, self.config.seed),
            };
            let outcome = runner::run_until_cut(
                &self.config,
                &self.source,
                exe,
                &places,
                (&machine, limit),
                &mut self.next,
            );
            let random = &mut self.random;
            let (remains, losses) = machine.served.with_disk(|disk| disk.crash(random));
            machine.served.end()?;
            let outcome = outcome.map_err(io::Error::other)?;
            self.remains = remains;
            self.count_losses(losses);
            let reaped = outcome.ledger.incarnations.len() as u64;
            self.count("processes", outcome.spawned);
            self.count("processes killed before", outcome.killed);
            self.count("compactions", outcome.ledger.compactions.len() as u64);
            self.ledger.absorb(outcome.ledger);
            if let Some(error) = self.ledger.environment_errors.first() {
                return Err(io::Error::other(error.clone()));
            }
            let detail = format!(
                "{} processes were started and {reaped} reaped",
                outcome.spawned
            );
            let protocol = (outcome.spawned != reaped).then_some(Violation::Protocol { detail });
            Ok(protocol.into_iter().collect())
        }

        fn count_losses(&mut self, losses: Losses) {
            for (name, count) in losses.named() {
                self.count(name, count);
            }
            self.count(
                "cuts with nothing unsynced",
                u64::from(losses.unsynced == 0),
            );
        }

        /// Removes from the archive the segments that are in it only because their names in the
        /// store were lost. A segment was removed from the store if the manifest begins after it.
        fn drop_lost_archive(&mut self) -> io::Result<()> {
            let manifest = self.manifest();
            let manifest = manifest.and_then(|bytes| parse_manifest(bytes).ok());
            let first_stored = manifest.map_or(0, |manifest| manifest.first_seq);
            let (archive, store) = (Path::new(ARCHIVE), Path::new(STORE));
            for name in self.remains.list(archive)? {
                let of = name.split('~').next().unwrap_or(&name);
                let path = archive.join(&name);
                let is_stored = || {
                    let stored = self.remains.lookup(&store.join(of)).ok();
                    stored.is_some() && stored == self.remains.lookup(&path).ok()
                };
                let is_removed = first_seq(of).is_some_and(|first| first < first_stored);
                if is_segment(of) && !is_removed && !is_stored() {
                    self.remains.remove(&path)?;
                }
            }
            self.remains.sync_all();
            Ok(())
        }

        fn manifest(&self) -> Option<&[u8]> {
            self.remains
                .content(&Path::new(STORE).join("MANIFEST"))
                .ok()
        }

        /// Recovers what remains, in the run's directory, and judges everything up to now.
        fn examine(&mut self) -> io::Result<Vec<Violation>> {
            let dir = &self.dir.path().to_owned();
            for name in [STORE, ARCHIVE] {
                fs::remove_dir_all(dir.join(name))?;
            }
            self.remains.copy_to(dir)?;
            let is_store = self.manifest().is_some();
            let (store, archive) = (dir.join(STORE), dir.join(ARCHIVE));
            let copy = dir.join("copy");
            let examined = within(EXAMINATION_LIMIT, move || {
                // Where its creation was cut off, there is nothing to read before it is created.
                let created = if is_store { Ok(()) } else { create(&store) };
                (created, examine(&store, &archive, &copy, true))
            });
            let Some((created, mut examination)) = examined else {
                let step = "recover and examine".to_owned();
                let error = format!("it takes more than {} s", EXAMINATION_LIMIT.as_secs());
                return Ok(vec![Violation::ExaminationFailed { step, error }]);
            };
            self.count("recoveries", 2);
            self.count("cuts before there was a store", u64::from(!is_store));
            let mut journals = Vec::new();
            for follower in 0..self.config.followers {
                let path = self.places(dir).journal(follower);
                journals.push(read_journal(&path).map_err(io::Error::other)?);
            }
            let mut violations = std::mem::take(&mut examination.violations);
            if let Err(error) = created {
                let step = "create the store again".to_owned();
                violations.push(Violation::ExaminationFailed { step, error });
            }
            violations.extend(self.judge(&mut examination, &journals));
            Ok(violations)
        }

        fn judge(&mut self, examination: &mut Examination, journals: &[Journal]) -> Vec<Violation> {
            let writes = self.next.iter().map(|next| next.write - 1);
            let writes: Vec<u32> = writes.collect();
            let own_views = self.ledger.views.len();
            // The next processes begin with what the cut left, not with the examined copy.
            self.ledger.views.append(&mut examination.views);
            let violations = judge_stored(&Judged {
                config: &self.config,
                payloads: &self.payloads,
                writes: &writes,
                hints_were_lost: false,
                complete: false,
                ledger: &self.ledger,
                journals,
                examination,
            });
            self.ledger.views.truncate(own_views);
            violations
        }

        /// Keeps everything: what the cut left, what recovery made of it, and all outcomes. Returns
        /// what was wrong and where it is.
        fn keep(self, cut: u32, violations: &[Violation]) -> io::Result<(String, PathBuf)> {
            let shown = violations.iter().take(4).map(ToString::to_string);
            let shown: Vec<String> = shown.collect();
            let what = format!(
                "{} violations after power cut {} of the store: {}; {:?}, {:?}",
                violations.len(),
                cut + 1,
                shown.join(" | "),
                self.tripwire,
                self.config,
            );
            let as_left = self.dir.path().join("as-left");
            fs::create_dir(&as_left)?;
            self.remains.copy_to(&as_left)?;
            let dir = self.dir.keep();
            let json = |value: serde_json::Result<String>| value.map_err(io::Error::other);
            fs::write(
                dir.join("ledger.json"),
                json(serde_json::to_string(&self.ledger))?,
            )?;
            let violations = json(serde_json::to_string_pretty(violations))?;
            fs::write(dir.join("violations.json"), violations)?;
            fs::write(dir.join("what"), &what)?;
            Ok((what, dir))
        }

        fn end(self) -> io::Result<()> {
            self.dir.close()
        }
    }

    fn create(store: &Path) -> Result<(), String> {
        let created = catch_panic(|| {
            let log: Log<IssueEvent> = Log::open(store, Options::default())?;
            log.close()
        });
        created?.map_err(|error| describe(&error))
    }

    /// The result of `work`, if it ends in time. If not, its thread is left alone.
    fn within<T: Send + 'static>(
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = mpsc::channel();
        let worker = std::thread::spawn(move || sender.send(work()));
        match receiver.recv_timeout(limit) {
            Ok(done) => Some(done),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let panic: Box<dyn Any + Send> = match worker.join() {
                    Err(panic) => panic,
                    Ok(_) => Box::new("a thread has vanished"),
                };
                std::panic::resume_unwind(panic)
            }
        }
    }
}
