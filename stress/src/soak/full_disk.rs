//! A disk becomes full while processes write, and then gets space again. On the full disk, writes
//! are rejected, reads work, and a compaction fails without a change of the store. Afterwards
//! everything works again, in the same processes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use strand_core::{Compacted, IssueEvent, IssueLog, Issues, Reader};

use crate::evidence::stored::{parse_segment, read_segments};
use crate::held::{Beginning, release_mount};
use crate::run::bystanders::digest;
use crate::run::errors::describe;
use crate::run::examine::copy_store;
use crate::soak::trouble::Trouble;
use crate::soak::worker::{ERRORS_MAX, Spec, Worked, is_full, options};
use crate::soak::worker_handle::WorkerHandle;

/// The size of the disk: many times what the writers write in [`WORK`], even if a sync costs
/// nothing.
#[cfg(target_os = "linux")]
const DISK_BYTES: u64 = 32 << 20;
const WRITERS: u64 = 2;
/// How many live issues each writer has.
const ISSUES: usize = 200;
/// How long writers write at a time.
const WORK: Duration = Duration::from_millis(200);
/// How often they try to use up the space that was preallocated before the disk was full.
const TRIES: u32 = 50;

/// The results of all rounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct FullDisk {
    /// How often the disk was filled.
    pub rounds: u64,
    /// Writes that were acknowledged: before, while and after it was full.
    pub acknowledged: u64,
    /// Writes that were rejected.
    pub rejected: u64,
    /// Compactions that failed.
    pub failed_compactions: u64,
    /// Why no disk could be filled.
    pub skipped: Option<String>,
}

/// A small filesystem in memory, mounted as long as this lives.
pub(super) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `dir`, which is created.
    ///
    /// # Errors
    /// Why it can't be: on another system, or without the right to mount.
    pub(super) fn mount(dir: &Path) -> Result<SmallDisk, String> {
        fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let beginning = Beginning::new();
        mount(dir).map_err(|error| format!("a small tmpfs can't be mounted: {error}"))?;
        beginning.hold_mount(dir);
        Ok(SmallDisk {
            dir: dir.to_owned(),
        })
    }

    /// Fills it to the last byte; [`SmallDisk::free`] frees the space.
    fn fill(&self) -> Result<(), Trouble> {
        let path = self.ballast();
        let cannot =
            |error: io::Error| Trouble::Environment(format!("cannot fill the disk: {error}"));
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(cannot)?;
        for bytes in [64 << 10, 4 << 10, 1] {
            let piece = vec![0; bytes];
            loop {
                match file.write(&piece) {
                    Ok(1..) => {}
                    Ok(0) => break,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(cannot(error)),
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<(), Trouble> {
        fs::remove_file(self.ballast())
            .map_err(|error| Trouble::Environment(format!("cannot give space back: {error}")))
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.dir);
        release_mount(&self.dir);
    }
}

#[cfg(target_os = "linux")]
fn mount(dir: &Path) -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    let size = std::ffi::CString::new(format!("size={DISK_BYTES}")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("tmpfs", dir, "tmpfs", flags, size.as_c_str())?)
}

#[cfg(target_os = "linux")]
fn unmount(dir: &Path) {
    use rustix::mount::{UnmountFlags, unmount};
    if let Err(error) = unmount(dir, UnmountFlags::DETACH) {
        eprintln!("strand-stress: {} stays mounted: {error}", dir.display());
    }
}

#[cfg(not(target_os = "linux"))]
fn mount(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) {}

/// Fills a small disk once, in a directory `dir` that does not exist yet. For tests; `exe` is the
/// `strand-stress` binary.
///
/// # Errors
/// Describes what is wrong.
pub fn once(exe: &Path, dir: &Path, seed: u64) -> Result<FullDisk, Trouble> {
    let mut sum = FullDisk::default();
    match SmallDisk::mount(dir) {
        Err(reason) => sum.skipped = Some(reason),
        Ok(disk) => round(&disk, exe, seed, &dir.with_extension("kept"), &mut sum)?,
    }
    Ok(sum)
}

/// One round, with a store of its own on the small disk, which is copied to `keep` if something is
/// wrong with it. `seed` decides what is written, and whether the hints are deleted while the disk
/// is full.
pub(super) fn round(
    disk: &SmallDisk,
    exe: &Path,
    seed: u64,
    keep: &Path,
    sum: &mut FullDisk,
) -> Result<(), Trouble> {
    let store = disk.dir.join(format!("store-{seed}"));
    let environment =
        |error: io::Error| Trouble::Environment(format!("{}: {error}", store.display()));
    fs::create_dir(&store).map_err(environment)?;
    let done = fill_and_free(disk, &store, exe, seed, sum);
    if done.is_err() {
        copy_store(&store, keep).map_err(environment)?;
    }
    fs::remove_dir_all(&store).map_err(environment)?;
    done
}

fn fill_and_free(
    disk: &SmallDisk,
    store: &Path,
    exe: &Path,
    seed: u64,
    sum: &mut FullDisk,
) -> Result<(), Trouble> {
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let spec = Spec {
            store: store.to_owned(),
            name: format!("full{number}"),
            seed: seed.wrapping_add(number),
            issues: ISSUES,
            quiet: true,
            announces: false,
            compacts: false,
        };
        writers.push(WorkerHandle::start(exe, &spec)?);
    }
    let before = work(&mut writers)?;
    require(
        before.acknowledged > 0 && before.rejected_full == 0,
        "before the disk is full",
        &before,
    )?;

    disk.fill()?;
    let mut full = work(&mut writers)?;
    for _ in 0..TRIES {
        if full.rejected_full > 0 || !full.errors.is_empty() {
            break;
        }
        full.add(work(&mut writers)?);
    }
    require(full.rejected_full > 0, "while the disk is full", &full)?;
    read_all(store)?;
    check(&mut writers)?;
    let failed = compact(store)?;
    sum.failed_compactions += u64::from(!failed.is_done());
    check(&mut writers)?;
    if seed.is_multiple_of(2) {
        let removed = fs::remove_file(store.join("shm"));
        removed.map_err(|error| Trouble::Environment(error.to_string()))?;
        disk.fill()?;
        // There is no space for new hints. Writers must survive that, and reads must work.
        full.add(work(&mut writers)?);
        read_all(store)?;
    }

    disk.free()?;
    let after = work(&mut writers)?;
    require(
        after.acknowledged > 0 && after.rejected_full == 0,
        "when there is space again",
        &after,
    )?;
    match compact(store)? {
        Compaction::Done => {}
        Compaction::Full(error) => {
            return Err(Trouble::Violation(format!(
                "with space again, a compaction failed: {error}"
            )));
        }
    }
    check(&mut writers)?;
    let last = work(&mut writers)?;
    require(last.acknowledged > 0, "after the last compaction", &last)?;
    check(&mut writers)?;
    for writer in writers {
        writer.quit()?;
    }
    examine(store)?;
    for worked in [before, full, after, last] {
        sum.acknowledged += worked.acknowledged;
        sum.rejected += worked.rejected_full;
    }
    sum.rounds += 1;
    Ok(())
}

impl Worked {
    fn add(&mut self, other: Worked) {
        self.acknowledged += other.acknowledged;
        self.rejected_full += other.rejected_full;
        self.unknown += other.unknown;
        self.followed += other.followed;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_MAX);
    }
}

/// All writers write at the same time.
fn work(writers: &mut [WorkerHandle]) -> Result<Worked, Trouble> {
    let mut sum = Worked::default();
    for writer in &mut *writers {
        writer.begin_work(WORK)?;
    }
    for writer in writers {
        sum.add(writer.worked()?);
    }
    Ok(sum)
}

/// A full disk excuses no other errors, and no write in doubt: no sync has failed.
fn require(holds: bool, when: &str, worked: &Worked) -> Result<(), Trouble> {
    if holds && worked.unknown == 0 && worked.errors.is_empty() {
        Ok(())
    } else {
        Err(Trouble::Violation(format!("{when}: {worked:?}")))
    }
}

fn check(writers: &mut [WorkerHandle]) -> Result<(), Trouble> {
    for writer in writers {
        writer.check()?;
    }
    Ok(())
}

fn violation(when: &'static str) -> impl Fn(strand_core::Error) -> Trouble {
    move |error| Trouble::Violation(format!("{when}: {}", describe(&error)))
}

/// A new reader reads all records, and the state.
fn read_all(store: &Path) -> Result<(), Trouble> {
    let failed = violation("a read on a full disk");
    let reader = Reader::<IssueEvent>::open(store).map_err(&failed)?;
    reader.verify().map_err(&failed)?;
    Issues::load(store).map_err(&failed)?;
    Ok(())
}

/// How a compaction ended.
enum Compaction {
    Done,
    /// The disk is full.
    Full(String),
}

impl Compaction {
    fn is_done(&self) -> bool {
        matches!(self, Compaction::Done)
    }
}

/// Opens and compacts the store, as a new process does. Either way, the state does not change.
fn compact(store: &Path) -> Result<Compaction, Trouble> {
    let failed = violation("a compaction on a full disk");
    // A compaction may forget the rest.
    let state = || Issues::load(store).map(|state| digest(&state));
    let before = state().map_err(&failed)?;
    let compacted = IssueLog::open(store, options()).and_then(|log| {
        let compacted = log.compact()?;
        log.close()?;
        Ok(compacted)
    });
    let after = state().map_err(&failed)?;
    if before != after {
        let what = format!("a compaction on a full disk has made {after:?} of {before:?}");
        return Err(Trouble::Violation(what));
    }
    match compacted {
        Ok(Compacted::Done { .. } | Compacted::NothingNew) => Ok(Compaction::Done),
        Ok(other) => Err(Trouble::Violation(format!("a compaction was {other:?}"))),
        Err(error) if is_full(&error) => Ok(Compaction::Full(describe(&error))),
        Err(error) => Err(failed(error)),
    }
}

/// Examines the files of the store after all processes are gone.
fn examine(store: &Path) -> Result<(), Trouble> {
    let log = IssueLog::open(store, options()).map_err(violation("the last open"))?;
    log.close().map_err(violation("the last close"))?;
    let segments = read_segments(store).map_err(|error| Trouble::Environment(error.to_string()))?;
    for segment in &segments {
        let (_, bad_lines) = parse_segment(segment);
        if let Some(bad) = bad_lines.first() {
            return Err(Trouble::Violation(format!(
                "bad bytes in {}: {bad:?}",
                segment.name
            )));
        }
    }
    let left = crate::evidence::stored::names(store).unwrap_or_default();
    if let Some(name) = left.iter().find(|name| name.contains(".new")) {
        return Err(Trouble::Violation(format!("{name} was left behind")));
    }
    Ok(())
}
