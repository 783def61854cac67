//! Folding the log into a snapshot beside the writers. See "Compaction" in `docs/DESIGN.md`.
//!
//! | step | under | dying after it leaves |
//! | --- | --- | --- |
//! | begin a new segment | `compact.lock`, `lock` | one more segment, which is no harm |
//! | fold what is before it | `compact.lock` | nothing |
//! | remove what an earlier compaction that died has left | `compact.lock` | less of it |
//! | write `snapshot-….jsonl.new`, sync | `compact.lock` | an orphan |
//! | rename it, sync the directory | `compact.lock` | an orphan |
//! | replace the manifest, sync the directory | `compact.lock` | old files that nobody needs |
//! | remove the old files, sync the directory | `compact.lock` | nothing |
//!
//! Orphans and old files are removed by the next compaction, and by the next open. A compaction that fails
//! removes the file that it was writing at once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use strand_lock::LockError;

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{Error, Result},
    format::record::{segment_first_seq, segment_name, snapshot_name, snapshot_seq},
    issues::{event::IssueEvent, timestamp::Timestamp},
    seeded::{Bug, seeded},
    state::{live::LiveIssues, materialize::Folded, snapshot as snapshot_file, throttle::Throttle},
    telemetry,
    wal::{
        cursor::End,
        log::{Log, LogCore},
        manifest::{MANIFEST, Manifest},
        shm::Hints,
        store_dir::StoreFile,
    },
};

/// The target of the lock that whoever compacts holds.
pub(crate) const COMPACT_LOCK: &str = "compact.lock";

/// What [`Log::compact`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compacted {
    /// The log is folded into a new snapshot.
    Done(Compaction),
    /// Somebody else compacts this store now. Nothing was done.
    AlreadyRunning,
    /// There is no record behind the live snapshot. Nothing was done, but for old files that were removed.
    NothingNew,
}

/// A finished compaction: the answer of [`Log::compact`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// The last record that the snapshot reflects.
    pub seq: u64,
    /// How many issues are in it.
    pub issues: u64,
    /// Its length.
    pub bytes: u64,
    /// The old files that were removed.
    pub removed: Vec<String>,
    /// How long the store's lock was held for it.
    pub lock_held: Duration,
    /// How long all of it took.
    pub elapsed: Duration,
}

impl Log<IssueEvent> {
    /// Folds the log into a snapshot, and removes the segments that this makes superfluous.
    ///
    /// Runs in the caller's thread, and takes as long as it takes to read the state and write it. Others append
    /// meanwhile: the store's lock is held only while a new segment is begun. Call it when
    /// [`Log::compaction_due`] says so, from wherever it hurts nobody; a [`crate::Compactor`] does
    /// that in a thread. All or nothing, also when the process dies.
    ///
    /// # Errors
    /// The store is as before, but for a new segment and files that the next open removes: [`Error::Lock`],
    /// [`Error::Corrupt`] (what can't be read is not compacted), [`Error::Io`].
    ///
    /// ```
    /// use strand_core::{Compacted, Issue, IssueEvent, Issues, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// let Compacted::Done(done) = log.compact()? else { panic!("nobody else is at it") };
    /// assert_eq!((done.seq, done.issues), (1, 1));
    /// assert_eq!(Issues::load(dir.path())?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact(&self) -> Result<Compacted> {
        self.core.compact()
    }

    /// Whether the log behind the live snapshot has reached [`crate::Options::compact_after_bytes`] or
    /// [`crate::Options::compact_after_records`]. Looks at the lengths of the files only. Takes no lock and writes nothing,
    /// unless somebody has deleted the hints.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged manifest, [`Error::Io`].
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default().compact_after_records(1))?;
    /// assert!(!log.compaction_due()?);
    /// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// if log.compaction_due()? {
    ///     log.compact()?;
    /// }
    /// # assert!(!log.compaction_due()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compaction_due(&self) -> Result<bool> {
        self.core.compaction_due()
    }

    /// The state as of the present watermark, as [`LiveIssues::open`] (see the example of [`LiveIssues`]).
    ///
    /// # Errors
    /// As [`LiveIssues::open`].
    pub fn snapshot(&self) -> Result<LiveIssues> {
        LiveIssues::in_dir(&self.core.dir)
    }
}

impl LogCore {
    fn compact(&self) -> Result<Compacted> {
        let started = self.host().now();
        let span = telemetry::compact(self.dir.path());
        span.within(|| {
            let done = self.alone(|| self.compact_alone(started, &span))?;
            Ok(done.unwrap_or(Compacted::AlreadyRunning))
        })
    }

    /// Does `work` while holding `compact.lock`; `None` when somebody else holds it.
    fn alone<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let lock = self.dir.open_lock(COMPACT_LOCK)?;
        let guard = match lock.try_lock() {
            Err(LockError::Contended { .. }) => return Ok(None),
            locked => locked?,
        };
        let done = work()?;
        guard.unlock()?;
        Ok(Some(done))
    }

    /// The caller holds `compact.lock`.
    fn compact_alone(&self, started: Instant, span: &telemetry::Span) -> Result<Compacted> {
        let old = self.manifest()?;
        let mut phase = telemetry::Clock::of_debug();
        // Most is made durable before the lock is taken, so that it is not held for long. Where that failed, now or
        // before, the holder of the lock sees to it.
        match self.sync_to(self.look(Hints::tail_seq)) {
            Ok(()) | Err(Error::DurabilityUnknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut held = self.host().now();
        let through = self.locked(|| {
            held = self.host().now();
            self.rotate_locked()
        })?;
        let lock_held = self.host().now() - held;
        self.options.reached(Failpoint::CompactionRotated);
        telemetry::compaction_phase(self.dir.path(), "rotate", &mut phase);
        if through < old.first_seq {
            self.remove_superseded(&old, self.options.backup_snapshots)?;
            return Ok(Compacted::NothingNew);
        }
        // In a thread of its own, since a priority can't be raised again.
        let done = std::thread::scope(|scope| {
            let work = || {
                self.host().lower_priority();
                span.within(|| self.fold_and_switch(&old, through, phase))
            };
            match scope.spawn(work).join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let done = Compaction {
            lock_held,
            elapsed: self.host().now() - started,
            ..done
        };
        telemetry::compacted(self.dir.path(), &done);
        Ok(Compacted::Done(done))
    }

    /// Folds the records through `through`, has the manifest name the result, and removes what that replaces.
    fn fold_and_switch(
        &self,
        old: &Manifest,
        through: u64,
        mut phase: telemetry::Clock,
    ) -> Result<Compaction> {
        let folded = Folded::through(&self.dir, old, Throttle::GENTLE, || End::Seq(through))?;
        let Some(Folded { mut store, .. }) = folded else {
            let gone = std::io::Error::other("the live snapshot was replaced by somebody else");
            return Err(Error::io("read", self.dir.path())(gone));
        };
        let oldest_seq = if seeded(Bug::KeyForgotten) {
            u64::MAX
        } else {
            through.saturating_sub(self.options.idempotency_records)
        };
        store.forget_keys_before(oldest_seq);
        let now = Timestamp::from_ms(self.host().unix_ms());
        let oldest = now.saturating_sub_ms(self.options.tombstone_ms);
        let oldest = if seeded(Bug::TombstoneDropped) {
            Timestamp::from_ms(i64::MAX)
        } else {
            oldest
        };
        store.forget_tombstones_before(oldest);
        telemetry::compaction_phase(self.dir.path(), "fold", &mut phase);

        // What an earlier compaction that died has left takes space that this one may need. Not before now: had
        // the live snapshot been damaged, it could be mended with it.
        let mut removed = self.remove_obsolete(old, self.options.backup_snapshots)?;
        let mut mark = None;
        let write = |file: &StoreFile| {
            let written = snapshot_file::write(&store, &old.store, file, Throttle::GENTLE);
            mark = Some(written?);
            Ok(())
        };
        let name = snapshot_name(through);
        self.dir.replace_file(&name, write, || {
            self.options.reached(Failpoint::SnapshotWritten);
        })?;
        let Some(mark) = mark else {
            unreachable!("a file that was replaced was written");
        };
        self.options.reached(Failpoint::SnapshotRenamed);
        telemetry::compaction_phase(self.dir.path(), "write", &mut phase);
        let new = old.compacted(mark);
        if seeded(Bug::SegmentsRemovedEarly) {
            self.remove_obsolete(&new, self.options.backup_snapshots)?;
        }
        new.write(&self.dir)?;
        self.options.reached(Failpoint::ManifestReplaced);
        telemetry::compaction_phase(self.dir.path(), "switch", &mut phase);
        removed.extend(self.remove_obsolete(&new, self.options.backup_snapshots)?);
        telemetry::compaction_phase(self.dir.path(), "remove", &mut phase);
        Ok(Compaction {
            seq: through,
            issues: store.len() as u64,
            bytes: mark.bytes,
            removed,
            lock_held: Duration::ZERO,
            elapsed: Duration::ZERO,
        })
    }

    /// Removes what a compaction that died has left behind, unless somebody compacts now.
    ///
    /// `manifest` is as it was a moment ago, which tells whether to look closer.
    pub(crate) fn remove_orphans(&self, manifest: &Manifest) -> Result<()> {
        if obsolete(&self.dir.list()?, manifest, usize::MAX).is_empty() {
            return Ok(());
        }
        self.alone(|| self.remove_superseded(&self.manifest()?, usize::MAX))
            .map(drop)
    }

    /// As [`LogCore::remove_obsolete`], where the files that the manifest names are there. A manifest of an earlier moment or
    /// of another store must not take away what it knows nothing of. The caller holds `compact.lock`.
    fn remove_superseded(&self, manifest: &Manifest, backups: usize) -> Result<()> {
        let begins = self.dir.segments()?.contains(&manifest.first_seq);
        if begins && snapshot_file::is_whole(&self.dir, manifest)? {
            self.remove_obsolete(manifest, backups)?;
        }
        Ok(())
    }

    /// The caller holds `compact.lock`.
    fn remove_obsolete(&self, manifest: &Manifest, backups: usize) -> Result<Vec<String>> {
        let obsolete = obsolete(&self.dir.list()?, manifest, backups);
        if obsolete.is_empty() {
            return Ok(obsolete);
        }
        // Whoever has written the manifest may have died before its name was durable, or was told that it is not.
        self.dir.sync()?;
        self.options.reached(Failpoint::BeforeRemoval);
        for name in &obsolete {
            // It may be gone: removed by one who died then, or whose reader has closed it only now.
            self.dir.remove(name)?;
        }
        self.dir.sync()?;
        self.options.reached(Failpoint::OldFilesRemoved);
        Ok(obsolete)
    }

    fn compaction_due(&self) -> Result<bool> {
        let live = self.manifest()?.first_seq;
        let records = (self.look(Hints::tail_seq) + 1).saturating_sub(live);
        if records >= self.options.compact_after_records {
            return Ok(true);
        }
        let mut bytes = 0;
        let behind = self.dir.segments()?.into_iter();
        for first_seq in behind.filter(|first| *first >= live) {
            let name = segment_name(first_seq);
            // Otherwise it was compacted away in between.
            if let Some(file) = self.dir.open_if_there(&name, OpenMode::Read)? {
                bytes += file.len_bytes()?;
            }
        }
        Ok(records > 0 && bytes >= self.options.compact_after_bytes)
    }
}

/// The files in a store's directory that this manifest does not need: what came before its snapshot, but for
/// so many older snapshots, and what a compaction or a repair that died was about to put in their place.
pub(crate) fn obsolete(names: &[String], manifest: &Manifest, backups: usize) -> Vec<String> {
    let live = manifest.first_seq - 1;
    let older: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| snapshot_seq(name).filter(|seq| *seq < live))
        .collect();
    let kept: BTreeSet<u64> = older.into_iter().rev().take(backups).collect();
    let is_obsolete = |name: &&String| {
        let being_written = name.strip_suffix(".new").is_some_and(|name| {
            name == MANIFEST || snapshot_seq(name).or(segment_first_seq(name)).is_some()
        });
        let snapshot = snapshot_seq(name)
            .is_some_and(|seq| seq != live && !kept.contains(&seq) || manifest.snapshot.is_none());
        let segment = segment_first_seq(name).is_some_and(|first| first < manifest.first_seq);
        being_written || snapshot || segment
    };
    names.iter().filter(is_obsolete).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::manifest::SnapshotMark;

    #[test]
    fn surplus_is_what_the_manifest_does_not_need() {
        let names: Vec<String> = [
            "MANIFEST",
            "MANIFEST.new",
            "lock",
            "compact.lock",
            "shm",
            "quarantine",
            "notes.txt",
            "snapshot-00000000000000000004.jsonl",
            "snapshot-00000000000000000007.jsonl",
            "snapshot-00000000000000000009.jsonl",
            "snapshot-00000000000000000011.jsonl",
            "snapshot-00000000000000000012.jsonl.new",
            "log-00000000000000000001.jsonl",
            "log-00000000000000000008.jsonl",
            "log-00000000000000000010.jsonl",
            "log-00000000000000000012.jsonl",
            "log-00000000000000000012.jsonl.new",
        ]
        .map(str::to_owned)
        .into();
        let mark = SnapshotMark {
            seq: 9,
            bytes: 1,
            crc: 2,
        };
        let manifest = Manifest::new(&crate::env::system::ThisMachine).compacted(mark);
        let orphans = [
            "MANIFEST.new",
            "snapshot-00000000000000000011.jsonl",
            "snapshot-00000000000000000012.jsonl.new",
            "log-00000000000000000001.jsonl",
            "log-00000000000000000008.jsonl",
            "log-00000000000000000012.jsonl.new",
        ];
        assert_eq!(obsolete(&names, &manifest, usize::MAX), orphans);
        let with_one_backup = obsolete(&names, &manifest, 1);
        assert!(with_one_backup.contains(&"snapshot-00000000000000000004.jsonl".to_owned()));
        assert_eq!(with_one_backup.len(), orphans.len() + 1);
        assert_eq!(obsolete(&names, &manifest, 0).len(), orphans.len() + 2);
        let never_compacted = obsolete(
            &names,
            &Manifest::new(&crate::env::system::ThisMachine),
            usize::MAX,
        );
        assert_eq!(never_compacted.len(), 7, "{never_compacted:?}");
    }
}
