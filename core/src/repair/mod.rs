//! Makes a damaged store usable again, and says what is lost.
//!
//! What has the right checksum is kept, wherever it stands: a damaged newline loses nothing. Each acknowledged record
//! that is nowhere to be found is replaced by a *void* one, without events, so that the numbers stay gapless. A segment
//! that changes is written anew beside the old one, and put in its place by a rename; a copy of the old one is in
//! `quarantine/` before, with a note.
//!
//! | step | under `compact.lock` and `lock` | dying after it leaves |
//! | --- | --- | --- |
//! | 1 | read everything, decide | nothing |
//! | 2 | copy each file that will change to `quarantine/`, with a note; sync | copies, which the next repair finds |
//! | 3 | write each new segment and the new snapshot as `….new`; sync | files that the next open removes |
//! | 4 | mark the hints as half-changed | hints that the next writer makes anew |
//! | 5 | if the last segment will change: begin a new one behind it; sync the directory | a damaged segment that has a successor |
//! | 6 | rename each new segment; sync the directory | fewer damaged segments |
//! | 7 | rename the new snapshot; sync; replace the manifest | a snapshot that is whole, but not the one that the manifest describes |
//! | 8 | free both locks and open the store | |
//!
//! All that needs space, or that is likely to fail, comes before step 4. Dying later leaves a store that is damaged
//! still, and the next repair goes on: what it does not find in the segments any more it finds in the copies.
//!
//! # Why writers may be alive meanwhile
//!
//! A writer has the last segment open, and would lose what it appends if it went on in a file that has no name any
//! more. It can't:
//!
//! - It appends under `lock`, which the repair holds until the end.
//! - The next time it takes the lock, it asks the hints where to append. From step 4 on they are half-changed, so
//!   whoever comes first reads the directory, and opens the last segment by its name. A file that it has open already
//!   it takes for that segment only if both begin with the same record. A last segment that changes has a successor by
//!   then, with another name (step 5 before step 6), so nobody takes the file that was replaced for the last one again.
//! - Without shared memory nobody sees the hints; such a writer lists the directory each time it takes the lock.
//! - A writer that waits for its sync, or leads one, does so without the lock, on the old file. That does no harm:
//!   every whole record through the tail that is published was read from that file, and is durable in the new one
//!   before it has its name. A sync of the old one that fails makes the records doubtful, and the next writer looks at
//!   the files.
//! - A reader or follower goes on in the old file, whose good part is the same. Where that ends, or is damaged, it
//!   looks for its next record in the files as they are then.

mod quarantine;
pub(crate) mod report;

use std::path::Path;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::record::{segment_name, snapshot_name},
    inspect::{
        find::{Pool, SnapshotPlan, Source, guess_manifest, later_manifest, plan_snapshot},
        scan::{Damages, Listed, Seqs, StoreScan},
    },
    options::Options,
    repair::{
        quarantine::{Kept, NotedDamage, keep},
        report::{Repaired, RepairedFile},
    },
    state::{
        compaction::{COMPACT_LOCK, obsolete},
        snapshot as snapshot_file,
        throttle::Throttle,
    },
    telemetry,
    wal::{
        log::{LOCK, LogCore, memory_can_be_shared, not_writable, page_error},
        manifest::{MANIFEST, Manifest, SnapshotMark},
        reader::is_new,
        shm::{Hints, ShmView, mark_half_changed},
        store_dir::StoreDir,
    },
};

/// Makes a damaged store usable again: explicit, never a part of opening it.
///
/// Blocks for both of the store's locks, at most [`Options::lock_timeout`] each, and holds them for as long as it takes
/// to read the store. Others may have it open; they go on behind the repair. Deletes nothing: each file that changes is
/// copied to `quarantine/` first, with a note. A torn tail is no damage. Where there is nothing to repair, nothing is
/// changed, and a repair that was killed is finished by the next.
///
/// Restore a backup instead if it has what is lost; [`crate::check`] says what is wrong without changing anything.
///
/// # Errors
/// Nothing was changed, but for copies in `quarantine/`: [`Error::NoStore`], [`Error::MissingDirectory`],
/// [`Error::NotADirectory`], [`Error::NotWritable`], [`Error::UnsafeFilesystem`], [`Error::UnsupportedVersion`],
/// [`Error::Lock`], [`Error::BeyondRepair`]. [`Error::Io`]: what was done so far is found and finished by the next repair.
///
/// ```
/// use strand_core::{Advice, Issue, IssueEvent, Issues, Log, Options, Timestamp, doctor, repair};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// for id in ["bd-1", "bd-2", "bd-3"] {
///     log.append(&IssueEvent::add(Issue::new(id, "Mend the fence", now), now))?;
/// }
/// // A byte of the second record changes.
/// let path = dir.path().join("log-00000000000000000001.jsonl");
/// let text = std::fs::read_to_string(&path)?;
/// std::fs::write(&path, text.replace(r#""id":"bd-2""#, r#""id":"bd-X""#))?;
///
/// assert_eq!(doctor(dir.path())?.advice, Advice::Repair);
/// let repaired = repair(dir.path(), &Options::default())?;
/// assert_eq!((repaired.lost[0].from_seq, repaired.lost[0].through_seq), (2, 2));
///
/// assert_eq!(doctor(dir.path())?.advice, Advice::Nothing);
/// assert_eq!(Issues::load(dir.path())?.len(), 2);
/// assert_eq!(log.append(&IssueEvent::close("bd-3", now))?.seq, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repair(dir: impl AsRef<Path>, options: &Options) -> Result<Repaired> {
    let dir = StoreDir::new(&options.storage, dir.as_ref());
    telemetry::repair(dir.path()).within(|| repair_store(&dir, options))
}

fn repair_store(dir: &StoreDir, options: &Options) -> Result<Repaired> {
    dir.require()?;
    let shared = memory_can_be_shared(dir, options)?;
    if Manifest::read(dir).is_ok_and(|manifest| manifest.is_none()) && is_new(dir)? {
        let path = dir.path().to_owned();
        return Err(Error::NoStore { path });
    }
    let host = dir.host();
    let open = |name: &str| dir.open_lock(name).map_err(not_writable);
    let (compact_lock, lock) = (open(COMPACT_LOCK)?, open(LOCK)?);
    let alone = compact_lock.lock_until(host.now() + options.lock_timeout)?;
    let guard = lock.lock_until(host.now() + options.lock_timeout)?;
    let work = Work { dir, shared };
    let done = work.repair();
    guard.unlock()?;
    alone.unlock()?;
    let mut repaired = done?;
    if !repaired.is_nothing() {
        telemetry::repaired(dir.path(), &repaired);
        let opened = LogCore::open(dir, options.clone())?;
        repaired.opened = Some(opened.recovery.to_string());
    }
    Ok(repaired)
}

/// A repair by the holder of both locks.
struct Work<'a> {
    dir: &'a StoreDir,
    shared: bool,
}

/// All that a repair will do.
struct Plan {
    manifest: Manifest,
    /// Why the manifest is made anew.
    bad_manifest: Option<CorruptReason>,
    log: LogPlan,
    snapshot: Option<SnapshotPlan>,
    /// What the manifest does not need, and the next open removes.
    obsolete: Vec<String>,
}

/// What is to be done about the log.
#[derive(Default)]
struct LogPlan {
    rewrites: Vec<Rewrite>,
    /// The segment to begin, because the last one changes.
    new_live: Option<u64>,
    lost_from: Option<u64>,
    durable_seq: u64,
}

/// A segment that is written anew.
struct Rewrite {
    name: String,
    /// What is wrong with the old one; `None` when there is none.
    damages: Option<Damages>,
    records: Vec<Source>,
    lost: Vec<Seqs>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.log.rewrites.is_empty() && self.snapshot.is_none() && self.bad_manifest.is_none()
    }

    /// The files that are written under other names first.
    fn written(&self) -> impl Iterator<Item = String> {
        let segments = self.log.rewrites.iter().map(|rewrite| rewrite.name.clone());
        let snapshot = self.snapshot.iter().filter(|plan| plan.store.is_some());
        segments.chain(snapshot.map(|plan| snapshot_name(plan.mark.seq)))
    }
}

impl Work<'_> {
    fn repair(&self) -> Result<Repaired> {
        let names = self.dir.list()?;
        let (manifest, bad_manifest) = match Manifest::read(self.dir) {
            Ok(Some(manifest)) => match later_manifest(self.dir, &names, &manifest)? {
                Some((later, reason)) => (later, Some(reason)),
                None => (manifest, None),
            },
            Ok(None) => (self.guess(&names)?, Some(CorruptReason::ManifestMissing)),
            Err(Error::Corrupt { reason, .. }) => (self.guess(&names)?, Some(reason)),
            Err(error) => return Err(error),
        };
        let (scan, firsts) = self.scan(&manifest)?;
        let mut pool = Pool::new(self.dir, &firsts);
        let mut obsolete = obsolete(&names, &manifest, usize::MAX);
        obsolete.retain(|name| name.strip_suffix(".new").is_none());
        let plan = Plan {
            log: self.plan_log(&scan, &firsts, &mut pool)?,
            snapshot: plan_snapshot(self.dir, &names, &manifest)?,
            manifest,
            bad_manifest,
            obsolete,
        };
        if plan.is_empty() {
            return Ok(Repaired::default());
        }
        let files = self.keep_all(&plan)?;
        let undo_write = || {
            for name in plan.written() {
                self.dir.remove_new(&name);
            }
        };
        let mark = self.write_all(&plan, &pool).inspect_err(|_| undo_write())?;
        // Not every system replaces a file that is open.
        drop(pool);
        self.replace_all(&plan).inspect_err(|_| undo_write())?;
        match mark {
            Some(mark) => plan.manifest.compacted(mark).write(self.dir)?,
            None if plan.bad_manifest.is_some() => plan.manifest.write(self.dir)?,
            None => {}
        }
        let lost = plan.log.rewrites.into_iter();
        Ok(Repaired {
            lost: lost.flat_map(|rewrite| rewrite.lost).collect(),
            lost_from: plan.log.lost_from,
            files,
            snapshot: plan.snapshot.map(|plan| plan.report),
            opened: None,
        })
    }

    fn guess(&self, names: &[String]) -> Result<Manifest> {
        guess_manifest(self.dir, names)?.ok_or_else(|| {
            let reason = "there is neither a segment nor a snapshot to make it from";
            Error::BeyondRepair {
                path: self.dir.path_of(MANIFEST),
                reason: reason.to_owned(),
            }
        })
    }

    // Step 1.

    /// The segments, and with which records those begin that should be there.
    fn scan(&self, manifest: &Manifest) -> Result<(StoreScan, Vec<u64>)> {
        let live = manifest.first_seq;
        let view = ShmView::open(self.dir, &manifest.store);
        let hints = view.and_then(|view| view.look()).unwrap_or_default();
        // What is published may be acknowledged at any moment, by a leader that syncs the old file.
        let published = hints.tail_seq.filter(|_| hints.ours);
        let known_seq = hints.durable_seq_of_store.max(published).unwrap_or(0);
        let mut scan = StoreScan::take(self.dir, live, known_seq)?;
        if let Some((_, error)) = scan.unreadable.pop() {
            return Err(error);
        }
        let segments = scan.segments.iter().map(|segment| segment.first_seq);
        let missing = scan.missing_first(live).map(|_| live);
        let firsts = missing.into_iter().chain(segments).collect();
        Ok((scan, firsts))
    }

    fn plan_log(&self, scan: &StoreScan, firsts: &[u64], pool: &mut Pool<'_>) -> Result<LogPlan> {
        let durable_seq = scan.durable_seq;
        let mut plan = LogPlan {
            durable_seq,
            ..LogPlan::default()
        };
        if scan.segments.is_empty() {
            plan.lost_from = firsts.first().copied().filter(|first| *first > durable_seq);
        }
        let nexts = firsts.iter().copied().skip(1).map(Some).chain([None]);
        for (first, next) in firsts.iter().copied().zip(nexts) {
            let mut segments = scan.segments.iter();
            let segment = segments.find(|segment| segment.first_seq == first);
            if segment.is_some_and(|segment| segment.is_whole(durable_seq)) {
                continue;
            }
            let through = match next {
                Some(next) => next - 1,
                None => pool.whole_through(first, durable_seq.max(first - 1))?,
            };
            let name = segment_name(first);
            let damages = segment.map(|segment| Damages::of(self.dir, segment, durable_seq));
            let (records, lost) = pool.gather(first, through)?;
            // Behind records, the log goes on in a new file: see above.
            if next.is_none() && !records.is_empty() {
                plan.new_live = Some(through + 1);
            }
            plan.rewrites.push(Rewrite {
                name,
                damages: damages.transpose()?,
                records,
                lost,
            });
        }
        Ok(plan)
    }

    // Step 2.

    /// Keeps all files that will change or go; answers what the report says of those that change.
    fn keep_all(&self, plan: &Plan) -> Result<Vec<RepairedFile>> {
        let keep = |name: &str, damages: &Listed<NotedDamage>, lost: &[Seqs]| {
            let kept = Kept {
                name,
                damages,
                lost,
                durable_seq: plan.log.durable_seq,
            };
            keep(self.dir, &kept)
        };
        let done = |name: &str, kept: Option<String>, damages: u64| RepairedFile {
            file: name.to_owned(),
            kept,
            damages,
        };
        let mut files = Vec::new();
        for Rewrite {
            name,
            damages,
            lost,
            ..
        } in &plan.log.rewrites
        {
            let Some(damages) = damages else {
                files.push(done(name, None, 0));
                continue;
            };
            let noted = damages.bad.clone().map(NotedDamage::of_segment);
            let noted = noted.or_else("records are missing");
            files.push(done(name, Some(keep(name, &noted, lost)?), noted.count()));
        }
        if let Some(snapshot) = plan.snapshot.as_ref().filter(|plan| plan.store.is_some()) {
            let name = snapshot_name(snapshot.mark.seq);
            let noted = snapshot.bad.clone().map(NotedDamage::of_snapshot);
            let noted = noted.or_else("it is not what its first line and the manifest say");
            let kept = snapshot.exists.then(|| keep(&name, &noted, &[]));
            files.push(done(&name, kept.transpose()?, noted.count()));
        }
        let reason = match &plan.bad_manifest {
            Some(CorruptReason::ManifestMissing) => {
                files.push(done(MANIFEST, None, 0));
                None
            }
            Some(reason) => Some(reason.to_string()),
            None => plan
                .snapshot
                .as_ref()
                .filter(|snapshot| snapshot.store.is_none())
                .map(|_| "it does not describe the snapshot that is there".to_owned()),
        };
        if let Some(reason) = reason {
            let noted = Listed::default().or_else(&reason);
            let kept = keep(MANIFEST, &noted, &[])?;
            files.push(done(MANIFEST, Some(kept), noted.count()));
        }
        for name in &plan.obsolete {
            let noted = Listed::default().or_else("the manifest has no use for it");
            keep(name, &noted, &[])?;
        }
        Ok(files)
    }

    // Step 3.

    /// Writes everything under other names. Answers what the manifest should say of the snapshot, where that changes.
    fn write_all(&self, plan: &Plan, pool: &Pool<'_>) -> Result<Option<SnapshotMark>> {
        for Rewrite { name, records, .. } in &plan.log.rewrites {
            self.dir.write_new(name, |file| pool.write(records, file))?;
        }
        let Some(snapshot) = &plan.snapshot else {
            return Ok(None);
        };
        let Some(store) = &snapshot.store else {
            return Ok(Some(snapshot.mark));
        };
        let (id, name) = (&plan.manifest.store, snapshot_name(snapshot.mark.seq));
        let mut mark = None;
        self.dir.write_new(&name, |file| {
            let written = snapshot_file::write(store, id, file, Throttle::HURRIED)?;
            mark = Some(written);
            Ok(())
        })?;
        Ok(mark)
    }

    // Steps 4 to 7, but for the manifest.

    fn replace_all(&self, plan: &Plan) -> Result<()> {
        if !plan.log.rewrites.is_empty() {
            self.unsettle(&plan.manifest)?;
        }
        if let Some(first_seq) = plan.log.new_live {
            let name = segment_name(first_seq);
            drop(self.dir.open(&name, OpenMode::CreateNew)?);
            self.dir.sync()?;
        }
        for name in plan.written() {
            self.dir.put_in_place(&name)?;
        }
        self.dir.sync()
    }

    /// Has whoever takes the lock next look at the files, but leaves the watermark.
    fn unsettle(&self, manifest: &Manifest) -> Result<()> {
        if !self.shared {
            return mark_half_changed(self.dir); // Others may share the page.
        }
        let hints = Hints::shared(self.dir, &manifest.store);
        hints.map_err(page_error)?.begin_change();
        Ok(())
    }
}
