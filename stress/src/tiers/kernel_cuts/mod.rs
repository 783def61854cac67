//! T8b: power failures under real filesystems of the running kernel.
//!
//! T8 cuts the power under a filesystem of its own. This tier takes ext4, XFS and btrfs as they
//! are: agents write to a store on a block device that logs every write and flush, and each
//! acknowledgement goes to the same device, behind the filesystem. A crash state is what the device
//! may hold after a power failure: everything before the last flush, and any part of the writes
//! since, torn or not. The kernel mounts it and replays its journal; readers then look before
//! anybody recovers, and a writer recovers and appends.
//!
//! The method is that of Linux's own dm-log-writes; QEMU's `blklogwrites` writes the same format
//! without a device mapper.

#[cfg(target_os = "linux")]
mod examine;
#[cfg(target_os = "linux")]
pub mod recording;
#[cfg(target_os = "linux")]
mod rig;
#[cfg(target_os = "linux")]
mod write_log;

use std::time::Instant;

use crate::tiers::tally::{Budget, Tally};

/// The tier's short name.
const TIER: &str = "T8b";
/// The target of its attack.
pub const ATTACKS: &str = "power failures under ext4, XFS and btrfs of this kernel";

/// Names of the filesystems that can be asked for.
#[must_use]
pub fn filesystems() -> Vec<&'static str> {
    #[cfg(target_os = "linux")]
    return rig::FILESYSTEMS.iter().map(|of| of.name).collect();
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// The limits of the tier beside its budget.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Names from [`filesystems`]; all of them when empty.
    pub filesystems: Vec<String>,
    /// Crash states of each, whatever time they take; as many as the budget allows when `None`.
    pub states: Option<u64>,
}

/// Tries crash states until the time is over.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    run_wanted(budget, &Wanted::default())
}

/// Tries the wanted crash states.
#[must_use]
pub fn run_wanted(budget: &Budget, wanted: &Wanted) -> Tally {
    let mut tally = Tally::new(TIER, "crash states of real filesystems");
    let began = Instant::now();
    #[cfg(target_os = "linux")]
    match rig::obstacle() {
        None => linux::run(budget, wanted, &mut tally),
        obstacle => tally.skipped = obstacle,
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (budget, wanted);
        tally.skipped = Some("Linux mounts these filesystems, other systems do not".to_owned());
    }
    tally.seconds = began.elapsed().as_secs_f64();
    tally
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::path::Path;
    use std::time::Instant;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use tempfile::TempDir;

    use super::Wanted;
    use super::examine::examine;
    use super::recording::{Recording, STORE};
    use super::rig::{FILESYSTEMS, Filesystem, Images, Mounted, copy_sparse};
    use crate::tiers::tally::{Budget, Finding, Tally};

    /// Crash states of one recording, before another one is made.
    const STATES_PER_RECORDING: u64 = 50;
    /// Crash states of each filesystem, however little time there is.
    const STATES_MIN: u64 = 2;
    /// One in so many states is a flush boundary.
    const BOUNDARY_ONE_IN: u32 = 4;
    /// At most one in so many states has a journal that the kernel refuses, by a fault of its own.
    const REFUSED_ONE_IN: u64 = 20;

    pub(super) fn run(budget: &Budget, wanted: &Wanted, tally: &mut Tally) {
        let is_wanted = |filesystem: &&Filesystem| {
            wanted.filesystems.is_empty()
                || wanted
                    .filesystems
                    .iter()
                    .any(|name| name == filesystem.name)
        };
        let mut tried = 0_u32;
        let all: Vec<Filesystem> = FILESYSTEMS.iter().filter(is_wanted).copied().collect();
        let began = Instant::now();
        for (done, filesystem) in (0_u32..).zip(&all) {
            if let Some(why) = filesystem.obstacle() {
                eprintln!("T8b: {} SKIPPED: {why}", filesystem.name);
                tally.add(format!("{} skipped", filesystem.name), 1);
                continue;
            }
            if budget.interrupt.is_asked() {
                break;
            }
            tried += 1;
            let share = u32::try_from(all.len()).unwrap_or(1) - done;
            let until = Instant::now() + budget.time.saturating_sub(began.elapsed()) / share;
            let mut work = Work {
                budget,
                filesystem: *filesystem,
                states: wanted.states,
                until,
                acknowledged: 0,
                refused: 0,
                tally,
            };
            let before = work.tally.cases;
            if let Err(error) = work.go() {
                tally.environment = Some(format!("{}: {error}", filesystem.name));
                return;
            }
            let (acknowledged, refused) = (work.acknowledged, work.refused);
            let states = work.tally.cases - before;
            tally.add(format!("{} states", filesystem.name), states);
            tally.add(format!("{} acknowledged", filesystem.name), acknowledged);
            if refused > 0 {
                tally.add(format!("{} journals refused", filesystem.name), refused);
            }
            if refused > 1 + states / REFUSED_ONE_IN {
                tally.environment = Some(format!(
                    "{}: the kernel refused the journal in {refused} of {states} states",
                    filesystem.name
                ));
                return;
            }
        }
        if tried == 0 && !budget.interrupt.is_asked() {
            tally.skipped = Some("no filesystem can be made here".to_owned());
        }
    }

    struct Work<'a> {
        budget: &'a Budget,
        filesystem: Filesystem,
        states: Option<u64>,
        until: Instant,
        acknowledged: u64,
        /// States whose journal the kernel did not replay, by a fault of its own.
        refused: u64,
        tally: &'a mut Tally,
    }

    impl Work<'_> {
        fn go(&mut self) -> io::Result<()> {
            let first = self.tally.cases;
            for recording in 0.. {
                let done = self.tally.cases - first;
                let left = match self.states {
                    Some(states) => states.saturating_sub(done),
                    // At least a few of each, however slow this machine is.
                    None if Instant::now() < self.until || done < STATES_MIN => {
                        STATES_PER_RECORDING
                    }
                    None => 0,
                };
                if left == 0 || self.tally.is_full() || self.budget.interrupt.is_asked() {
                    return Ok(());
                }
                self.record(recording, left.min(STATES_PER_RECORDING), first)?;
            }
            Ok(())
        }

        fn record(&mut self, number: u64, states: u64, first: u64) -> io::Result<()> {
            let seed = self.budget.seed.wrapping_add(number);
            let mut random = StdRng::seed_from_u64(seed);
            let dir = TempDir::with_prefix("strand-kernel-cuts-")?;
            let images = Images::new(dir.path());
            let mount = dir.path().join("mount");
            let recording = Recording::make(
                &images,
                self.filesystem,
                &mount,
                &self.budget.exe,
                &mut random,
            )?;
            let all = recording.log.entries.len();
            let acknowledged = recording.acknowledged(all)?;
            self.acknowledged += acknowledged
                .values()
                .map(|count| u64::from(*count))
                .sum::<u64>();
            let flushes: Vec<usize> = (recording.start..all)
                .filter(|index| {
                    recording
                        .log
                        .entries
                        .get(*index)
                        .is_some_and(|of| of.is_flush)
                })
                .map(|flush| flush + 1)
                .collect();
            let mut cuts: Vec<usize> = (0..states)
                .map(|_| match flushes.len() {
                    0 => random.random_range(recording.start..=all),
                    n if random.random_ratio(1, BOUNDARY_ONE_IN) => flushes
                        .get(random.random_range(0..n))
                        .copied()
                        .unwrap_or(all),
                    _ => random.random_range(recording.start..=all),
                })
                .collect();
            cuts.sort_unstable();
            // The durable part grows with the cuts; each state is a copy of it.
            let durable = dir.path().join("durable.img");
            copy_sparse(&images.base(), &durable)?;
            let device = File::options().write(true).open(&durable)?;
            let mut applied = 0;
            for cut in cuts {
                if self.budget.interrupt.is_asked() {
                    break;
                }
                if self.states.is_none()
                    && Instant::now() >= self.until
                    && self.tally.cases - first >= STATES_MIN
                {
                    break;
                }
                let state = recording.log.crash_state(cut, &mut random);
                recording.log.apply(applied..state.durable, &device)?;
                applied = state.durable;
                let image = dir.path().join("crash.img");
                copy_sparse(&durable, &image)?;
                recording
                    .log
                    .apply_kept(&state, &File::options().write(true).open(&image)?)?;
                let wrong = self.try_state(&recording, cut, &image, &mount, &mut random)?;
                self.tally.cases += 1;
                self.budget.count(1);
                if !wrong.is_empty() {
                    let kept = dir.path().join(format!("state-{cut}.img"));
                    copy_sparse(&durable, &kept)?;
                    recording
                        .log
                        .apply_kept(&state, &File::options().write(true).open(&kept)?)?;
                    self.find(seed, &format!("{state:?}"), &wrong, &kept);
                    // Keeps the base, the log of writes and the state.
                    let _kept = dir.keep();
                    return Ok(());
                }
            }
            Ok(())
        }

        /// Everything that is wrong with a crash state.
        fn try_state(
            &mut self,
            recording: &Recording,
            cut: usize,
            image: &Path,
            mount: &Path,
            random: &mut StdRng,
        ) -> io::Result<Vec<String>> {
            let acknowledged = recording.acknowledged(cut)?;
            let mounted = match Mounted::copy(image, self.filesystem, mount) {
                Ok(mounted) => mounted,
                Err(_) if self.filesystem.can_refuse_its_journal() => {
                    self.refused += 1;
                    return Ok(Vec::new());
                }
                Err(error) => return Ok(vec![format!("the kernel can't mount it: {error}")]),
            };
            // Each start of a machine has another boot id; with that of the recording, an old `shm`
            // would be believed, which no real machine does.
            let boot = format!("after-{:016x}", random.random::<u64>());
            let wrong = examine(&mounted.dir.join(STORE), &acknowledged, &boot);
            mounted.close()?;
            Ok(wrong)
        }

        fn find(&mut self, seed: u64, state: &str, wrong: &[String], kept: &Path) {
            let name = self.filesystem.name;
            self.tally.violations.push(Finding {
                what: format!(
                    "{name}, recording with seed {seed}, {state}: {}",
                    wrong.join("; ")
                ),
                replay: format!(
                    "cargo xtask powercut --fs {name} --states {STATES_PER_RECORDING} --seed {seed}"
                ),
                kept: Some(kept.to_owned()),
            });
        }
    }
}
