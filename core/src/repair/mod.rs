//! Makes a damaged store usable again.
//!
//! Every line with the right checksum is kept, wherever it is: a damaged newline loses nothing.
//! Each acknowledged record that is in no file is replaced by a *no-op record*, which has no
//! events, so that the numbers stay gapless. A damaged segment is rewritten beside the old one and
//! renamed over it; before that, the old one is copied to `quarantine/`, with a note.
//!
//! Two segments may claim the same numbers, since a file came from elsewhere. Each number belongs
//! to the segment whose name says so. Its record there counts; where it has none, that of the other
//! segment does, and so do the records that follow there. The report names what is left over.
//!
//! | step | under `compact.lock` and `lock` | if the process dies after it |
//! | --- | --- | --- |
//! | 1 | read everything, plan | nothing is changed |
//! | 2 | copy what will change to `quarantine/`, with notes; sync | the next repair finds the copies |
//! | 3 | write the new files as `….new`; sync | the next open removes them |
//! | 4 | mark the hints as half-changed | the next writer rebuilds them |
//! | 5 | if the last segment changes: create its successor; sync | it is damaged, but not the last |
//! | 6 | rename each new segment, the last first; sync the directory | fewer segments are damaged |
//! | 7 | rename the new snapshot; sync; replace the manifest | the snapshot is not the described one |
//! | | remove the damaged files of the old one | they are backups |
//! | 8 | free both locks and open the store | |
//!
//! Everything that needs space or is likely to fail comes before step 4. If the process dies later,
//! the store is still damaged, and the next repair continues: it finds in the copies what is no
//! longer in the segments.
//!
//! # Why writers may be alive during a repair
//!
//! A writer has the last segment open. If it appended to that file after the repair replaced it,
//! the record would be lost. It does not:
//!
//! - It appends under `lock`, which the repair holds until the end.
//! - When it takes the lock again, it asks the hints where to append. From step 4 on they are
//!   half-changed, so the next holder of the lock reads the directory and opens the last segment by
//!   its name. It reuses a file that it has open only if both begin with the same record. A
//!   replaced last segment has a successor with another name (step 5 before step 6), so the old
//!   file is never taken for the last segment again.
//! - Without shared memory there are no hints. Such a writer lists the directory each time it takes
//!   the lock.
//! - A writer waits for its sync, or leads one, without the lock and on the old file. That is
//!   harmless: every whole record through the published tail was read from that file, and is
//!   durable in the new one before the rename. If a sync of the old file fails, the records are in
//!   doubt, and the next writer looks at the files.
//! - A reader or follower continues in the old file, whose good part is the same. At its end, or at
//!   damage, it looks for its next record in the present files.

mod pool;
mod quarantine;
mod report;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
};

use crate::{
    env::share::replaced_name,
    error::{CorruptReason, Error, Result},
    format::{record::segment_name, resync::Damages},
    inspect::{
        find::fitting_manifest,
        ranges,
        scan::{SegmentDamage, StoreScan},
    },
    options::Options,
    repair::{
        pool::{Place, Pool, Source},
        quarantine::Kept,
        snapshot::{BadFile, SnapshotPlan},
    },
    state::{snapshot as snapshot_file, throttle::Throttle},
    telemetry,
    wal::{
        manifest::{MANIFEST, Manifest, SnapshotMark, is_new},
        named::{LOCK, become_sole_holder, require_named},
        obsolete::{COMPACT_LOCK, obsolete},
        raw_log::{RawLog, is_local, memory_can_be_shared},
        shm::{Hints, ShmView, mark_half_changed},
        store_dir::{NewFile, StoreDir, StoreFile},
        writer::{not_writable, page_error, retry_replaced, wait_for},
    },
};

pub use self::report::{RepairReport, RepairedSnapshot};

/// Makes a damaged store usable again. Opening a store never does this by itself.
///
/// Takes both of the store's locks, waiting at most [`Options::lock_timeout`] for each, and holds
/// them while it reads the store. Other processes may have the store open, and continue after the
/// repair. Deletes nothing: it copies each file that changes to `quarantine/` first, with a note.
/// If there is no damage (a torn tail is none), nothing is changed. The next repair completes one
/// that was killed.
///
/// If a backup contains what is lost, restore that instead. [`check`](crate::check::check) tells
/// what is wrong without changing anything.
///
/// # Errors
/// Nothing was changed, except for copies in `quarantine/`: [`Error::NoStore`],
/// [`Error::MissingDirectory`], [`Error::NotADirectory`], [`Error::NotWritable`],
/// [`Error::UnsafeFilesystem`], [`Error::UnsupportedVersion`], [`Error::Lock`],
/// [`Error::BeyondRepair`]. After [`Error::Io`] and [`Error::StoreReplaced`], the next repair
/// completes this one.
///
/// ```
/// use strand_core::{
///     Issue, IssueEvent, Issues, Log, Options, Timestamp,
///     check::{Advice, check},
///     repair::repair,
/// };
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// for id in ["bd-1", "bd-2", "bd-3"] {
///     log.append(&IssueEvent::add(Issue::new(id, "Mend the fence"), now))?;
/// }
/// // A byte of the second record changes.
/// let path = dir.path().join("log-00000000000000000001.jsonl");
/// let text = std::fs::read_to_string(&path)?;
/// std::fs::write(&path, text.replace(r#""id":"bd-2""#, r#""id":"bd-X""#))?;
///
/// assert_eq!(check(dir.path())?.advice, Advice::Repair);
/// let report = repair(dir.path(), &Options::default())?;
/// assert_eq!(report.lost, [2..=2]);
///
/// assert_eq!(check(dir.path())?.advice, Advice::Nothing);
/// assert_eq!(Issues::load(dir.path())?.len(), 2);
/// assert_eq!(log.append(&IssueEvent::close("bd-3", now))?.seq, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repair(dir: impl AsRef<Path>, options: &Options) -> Result<RepairReport> {
    let dir = StoreDir::open_at(&options.storage, dir.as_ref())?;
    let repair = || repair_store(&dir, options);
    // Removed locks stop it anywhere, as a death does. The next one completes it.
    telemetry::repair(dir.path()).within(|| retry_replaced(repair, Error::is_displacement))
}

fn repair_store(dir: &StoreDir, options: &Options) -> Result<RepairReport> {
    let shared = memory_can_be_shared(dir, options)?;
    if Manifest::read(dir).is_ok_and(|manifest| manifest.is_none()) && is_new(dir)? {
        let path = dir.path().to_owned();
        return Err(Error::NoStore { path });
    }
    let open = |name: &str| dir.open_lock(name).map_err(not_writable);
    let (compact_lock, lock) = (open(COMPACT_LOCK)?, open(LOCK)?);
    let alone = wait_for(compact_lock.as_ref(), dir.host(), options)?;
    let guard = wait_for(lock.as_ref(), dir.host(), options)?;
    // Where inodes are not stable, names mean nothing.
    let names_mean_files = shared || is_local(dir)?;
    let require_locks = || {
        if !names_mean_files {
            return Ok(());
        }
        require_named(dir, COMPACT_LOCK, compact_lock.as_ref())?;
        require_named(dir, LOCK, lock.as_ref())
    };
    require_locks()?;
    if names_mean_files {
        become_sole_holder(dir, lock.as_ref(), guard.as_ref())?;
    }
    let work = Work {
        dir,
        shared,
        require_locks: &require_locks,
    };
    let done = work.repair().or_else(|error| {
        require_locks()?; // If they were removed, their next holders change the same files.
        Err(error)
    });
    guard.unlock()?;
    alone.unlock()?;
    let mut report = done?;
    if !report.is_nothing() {
        let files = report.files.len() as u64;
        telemetry::repaired(dir.path(), files, ranges::count(&report.lost));
        report.opened = Some(RawLog::open(&dir.afresh(), options)?.recovery);
    }
    Ok(report)
}

/// A repair by the holder of both locks.
struct Work<'a> {
    dir: &'a StoreDir,
    /// Whether the hints are shared with other processes.
    shared: bool,
    /// Checks that others find both locks. To be called right before a name changes.
    require_locks: &'a dyn Fn() -> Result<()>,
}

struct Plan {
    manifest: Manifest,
    /// Why the manifest is rewritten, if it is.
    bad_manifest: Option<CorruptReason>,
    log: LogPlan,
    snapshot: Option<SnapshotPlan>,
    /// Files that the manifest does not need. The next open removes them.
    obsolete: Vec<String>,
}

#[derive(Default)]
struct LogPlan {
    rewrites: Vec<Rewrite>,
    /// The segment to create because the last one changes.
    successor: Option<u64>,
    lost_from: Option<u64>,
    durable_seq: u64,
}

/// A segment to rewrite.
struct Rewrite {
    first_seq: u64,
    /// The damage of the old file; `None` if there is no old file.
    damage: Option<SegmentDamage>,
    records: Vec<Source>,
    lost: Vec<RangeInclusive<u64>>,
    /// The whole records of the old file that the log will not have.
    set_aside: Vec<RangeInclusive<u64>>,
}

impl Rewrite {
    fn name(&self) -> String {
        segment_name(self.first_seq)
    }

    /// The source of a record, if it is one of this segment.
    fn source(&self, seq: u64) -> Option<Source> {
        let index = seq.checked_sub(self.first_seq)?;
        self.records.get(usize::try_from(index).ok()?).copied()
    }
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.log.rewrites.is_empty() && self.snapshot.is_none() && self.bad_manifest.is_none()
    }
}

impl Work<'_> {
    fn repair(&self) -> Result<RepairReport> {
        let names = self.dir.list()?;
        let read = Manifest::read(self.dir);
        let (manifest, bad_manifest) = fitting_manifest(self.dir, &names, read)?;
        let manifest = manifest.ok_or_else(|| Error::BeyondRepair {
            path: self.dir.path_of(MANIFEST),
            reason: "there is neither a segment nor a snapshot to rebuild it from".to_owned(),
        })?;
        let (scan, firsts) = self.scan(&manifest)?;
        let mut pool = Pool::new(self.dir, &firsts);
        let mut obsolete = obsolete(&names, &manifest, usize::MAX);
        obsolete.retain(|name| replaced_name(name).is_none());
        let plan = Plan {
            log: self.plan_log(&scan, &firsts, &mut pool)?,
            snapshot: SnapshotPlan::of(self.dir, &names, &manifest)?,
            manifest,
            bad_manifest,
            obsolete,
        };
        if plan.is_empty() {
            return Ok(RepairReport::default());
        }
        let report = self.keep_all(&plan)?;
        let mut new_files = Vec::new();
        let marks = self.write_all(&plan, &pool, &mut new_files);
        // Not every system can replace a file that is open.
        drop(pool);
        let marks = marks
            .and_then(|marks| self.replace_all(&plan, &new_files).map(|()| marks))
            .inspect_err(|_| new_files.iter().for_each(|new| self.dir.remove_new(new)))?;
        match marks {
            Some(marks) => {
                let manifest = plan.manifest.with_snapshot(&marks);
                manifest.write(self.dir, self.require_locks)?;
                self.remove_replaced(&plan)?;
            }
            None if plan.bad_manifest.is_some() => {
                plan.manifest.write(self.dir, self.require_locks)?;
            }
            None => {}
        }
        let rewrites = &plan.log.rewrites;
        let set_aside: BTreeSet<u64> = rewrites
            .iter()
            .flat_map(|rewrite| rewrite.set_aside.iter().cloned().flatten())
            .collect();
        Ok(RepairReport {
            lost: rewrites
                .iter()
                .flat_map(|rewrite| rewrite.lost.clone())
                .collect(),
            set_aside: ranges::of(set_aside),
            lost_from: plan.log.lost_from,
            snapshot: plan.snapshot.map(|plan| plan.report),
            ..report
        })
    }

    // Step 1.

    /// Reads the segments. Also returns the first records of those that should exist.
    fn scan(&self, manifest: &Manifest) -> Result<(StoreScan, Vec<u64>)> {
        let live = manifest.first_seq;
        let view = ShmView::open(self.dir, &manifest.store);
        let hints = view.and_then(|view| view.look()).unwrap_or_default();
        // A leader that syncs the old file may acknowledge a published record at any moment.
        let published = hints.tail_seq.filter(|_| hints.ours);
        let durable_seq = hints.durable_seq_of_store.max(published).unwrap_or(0);
        let mut scan = StoreScan::take(self.dir, live, durable_seq)?;
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
            let whole = segment.filter(|segment| segment.is_whole(durable_seq));
            if whole.is_some() && (next.is_some() || plan.rewrites.is_empty()) {
                continue;
            }
            let through = match next {
                Some(next) => next - 1,
                None => pool.whole_through(first, durable_seq.max(first - 1))?,
            };
            // A damaged segment may go on where this one begins.
            if whole.is_some_and(|segment| through <= segment.scan.last_seq()) {
                continue;
            }
            let damage = segment.map(|segment| SegmentDamage::of(self.dir, segment, durable_seq));
            let (records, lost) = pool.gather(first, through)?;
            // After a rewritten last segment, the log continues in a new file: see above.
            if next.is_none() && !records.is_empty() {
                plan.successor = Some(through + 1);
            }
            plan.rewrites.push(Rewrite {
                first_seq: first,
                damage: damage.transpose()?,
                records,
                lost,
                set_aside: Vec::new(),
            });
        }
        let rewrites = plan.rewrites.iter();
        let set_aside = rewrites.map(|rewrite| set_aside(scan, &plan, rewrite, pool));
        let set_aside: Vec<_> = set_aside.collect::<Result<_>>()?;
        for (rewrite, set_aside) in plan.rewrites.iter_mut().zip(set_aside) {
            rewrite.set_aside = set_aside;
        }
        Ok(plan)
    }

    // Step 2.

    /// Keeps every file that will change or be removed. Returns a report of those that will change.
    fn keep_all(&self, plan: &Plan) -> Result<RepairReport> {
        let none = Damages::default();
        let kept = |name, damages, reason| Kept {
            name,
            damages,
            reason,
            lost: &[],
            set_aside: &[],
            durable_seq: plan.log.durable_seq,
        };
        let mut files = Vec::new();
        let rewrites = plan.log.rewrites.iter();
        let rewrites: Vec<_> = rewrites.map(|rewrite| (rewrite, rewrite.name())).collect();
        for (rewrite, name) in &rewrites {
            let kept = rewrite.damage.as_ref().map(|damage| Kept {
                lost: &rewrite.lost,
                set_aside: &rewrite.set_aside,
                ..kept(name, &damage.bad, "records are missing")
            });
            files.push((name.as_str(), kept));
        }
        let written = plan.snapshot.as_ref().and_then(SnapshotPlan::written);
        files.extend(written.as_deref().map(|name| (name, None)));
        for BadFile {
            name,
            damages,
            exists,
        } in plan.snapshot.iter().flat_map(|plan| &plan.bad)
        {
            let reason = "it does not match its first line and the manifest";
            files.retain(|(other, _)| other != name);
            files.push((name, exists.then(|| kept(name, damages, reason))));
        }
        let reason = match (&plan.bad_manifest, &plan.snapshot) {
            (Some(reason), _) => Some(reason.to_string()),
            (None, Some(SnapshotPlan { issues: None, .. })) => {
                Some("it does not describe the snapshot that is there".to_owned())
            }
            _ => None,
        };
        if let Some(reason) = &reason {
            let exists = plan.bad_manifest != Some(CorruptReason::ManifestMissing);
            files.push((MANIFEST, exists.then(|| kept(MANIFEST, &none, reason))));
        }
        let mut report = RepairReport::default();
        for (name, kept) in files {
            report.damages += kept.as_ref().map_or(0, Kept::count);
            let copy = kept.map(|kept| kept.keep(self.dir)).transpose()?;
            report.files.insert(name.into(), copy);
        }
        for name in &plan.obsolete {
            kept(name, &none, "the manifest does not need it").keep(self.dir)?;
        }
        Ok(report)
    }

    // Step 3.

    /// Writes everything to `new_files`. Returns what the manifest must say of the snapshot, if
    /// that changes.
    fn write_all(
        &self,
        plan: &Plan,
        pool: &Pool<'_>,
        new_files: &mut Vec<NewFile>,
    ) -> Result<Option<Vec<SnapshotMark>>> {
        // Records may move into a later segment, which is therefore replaced first.
        for rewrite in plan.log.rewrites.iter().rev() {
            let write = |file: &StoreFile| pool.write(&rewrite.records, file);
            new_files.push(self.dir.write_new(&rewrite.name(), write)?);
        }
        let Some(snapshot) = &plan.snapshot else {
            return Ok(None);
        };
        let (Some(issues), Some(name)) = (&snapshot.issues, snapshot.written()) else {
            return Ok(Some(snapshot.marks.clone()));
        };
        let mut mark = None;
        let new = self.dir.write_new(&name, |file| {
            let (seq, store) = (snapshot.seq(), &plan.manifest.store);
            let written = snapshot_file::write(issues, seq, store, file, Throttle::HURRIED);
            mark = Some(written?);
            Ok(())
        })?;
        new_files.push(new);
        Ok(mark.map(|mark| vec![mark]))
    }

    // Steps 4 to 7, except for the manifest.

    fn replace_all(&self, plan: &Plan, new_files: &[NewFile]) -> Result<()> {
        if !plan.log.rewrites.is_empty() {
            self.invalidate_hints(&plan.manifest)?;
        }
        if let Some(first_seq) = plan.log.successor {
            let name = segment_name(first_seq);
            drop(self.dir.create_file(&name, self.require_locks)?);
            self.dir.sync()?;
        }
        for new in new_files {
            (self.require_locks)()?;
            self.dir.put_in_place(new)?;
            self.dir.sync()?;
        }
        Ok(())
    }

    /// Removes the damaged files whose place another one has taken.
    fn remove_replaced(&self, plan: &Plan) -> Result<()> {
        let Some(snapshot) = &plan.snapshot else {
            return Ok(());
        };
        let written = snapshot.written();
        for bad in &snapshot.bad {
            if bad.exists && Some(&bad.name) != written.as_ref() {
                self.dir.remove(&bad.name)?;
            }
        }
        Ok(())
    }

    /// Makes the next holder of the lock look at the files. The durable sequence number stays.
    fn invalidate_hints(&self, manifest: &Manifest) -> Result<()> {
        if !self.shared {
            return mark_half_changed(self.dir); // Other processes may share the page.
        }
        let hints = Hints::shared(self.dir, &manifest.store);
        hints.map_err(page_error)?.tail_words().begin_change();
        Ok(())
    }
}

/// The whole records of an old segment that the repaired log will not have: it has others under
/// their numbers, or none.
///
/// Asks the plan what it keeps, so that whatever a plan leaves out is said.
fn set_aside(
    scan: &StoreScan,
    plan: &LogPlan,
    old: &Rewrite,
    pool: &mut Pool<'_>,
) -> Result<Vec<RangeInclusive<u64>>> {
    let Some(damage) = &old.damage else {
        return Ok(Vec::new());
    };
    let segments = &scan.segments;
    let mut set_aside = BTreeSet::new();
    let mut of_segment: Option<(u64, BTreeMap<u64, Place>)> = None;
    for record in pool.records_before(old.first_seq, damage.end)? {
        let seq = record.1.seq;
        let rewritten = plan.rewrites.iter().find_map(|rewrite| rewrite.source(seq));
        let kept = match rewritten {
            Some(Source::Copy(place)) => Some(place),
            Some(Source::NoOp(_)) => None,
            None => {
                let at = segments.partition_point(|segment| segment.first_seq <= seq);
                let Some(segment) = at.checked_sub(1).and_then(|at| segments.get(at)) else {
                    continue; // A snapshot has it.
                };
                if of_segment.as_ref().map(|(first, _)| *first) != Some(segment.first_seq) {
                    let records = pool.of_segment(segment.first_seq, segment.scan.last_seq())?;
                    of_segment = Some((segment.first_seq, records));
                }
                let records = of_segment.as_ref().map(|(_, records)| records);
                records.and_then(|records| records.get(&seq)).copied()
            }
        };
        if !kept.map_or(Ok(false), |kept| pool.is_same(record, kept))? {
            set_aside.insert(seq);
        }
    }
    Ok(ranges::of(set_aside))
}
