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

use std::time::{Duration, Instant};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{Error, Result},
    format::{
        record::{segment_name, snapshot_name},
        seq::Seq,
    },
    issues::{event::IssueEvent, timestamp::Timestamp},
    seeded::{Bug, seeded},
    state::{materialize::Folded, snapshot as snapshot_file, throttle::Throttle},
    telemetry,
    wal::{
        durable::End, log::Log, manifest::Manifest, obsolete::Alone, raw_log::RawLog, shm::Hints,
        store_dir::StoreFile,
    },
};

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
    pub seq: Seq,
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
    /// assert_eq!((done.seq.get(), done.issues), (1, 1));
    /// assert_eq!(Issues::load(dir.path())?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact(&self) -> Result<Compacted> {
        self.raw.compact()
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
        self.raw.compaction_due()
    }
}

impl RawLog {
    fn compact(&self) -> Result<Compacted> {
        let started = self.writer.host().now();
        let span = telemetry::compact(self.writer.dir.path());
        span.within(|| {
            let done = self
                .writer
                .alone(|alone| self.compact_alone(alone, started, &span))?;
            Ok(done.unwrap_or(Compacted::AlreadyRunning))
        })
    }

    fn compact_alone(
        &self,
        alone: &Alone<'_>,
        started: Instant,
        span: &telemetry::Span,
    ) -> Result<Compacted> {
        let old = self.writer.manifest()?;
        let mut phase = telemetry::Clock::of_debug();
        // Most is made durable before the lock is taken, so that it is not held for long. Where that failed, now or
        // before, the holder of the lock sees to it.
        match self.writer.sync_to(self.look(Hints::tail_seq)?) {
            Ok(()) | Err(Error::DurabilityUnknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let locked = self.writer.lock()?;
        let held = self.writer.host().now();
        let through = locked.rotate()?;
        locked.unlock()?;
        let lock_held = self.writer.host().now() - held;
        self.writer.reached(Failpoint::CompactionRotated);
        telemetry::compaction_phase(self.writer.dir.path(), "rotate", &mut phase);
        if through < old.first_seq {
            alone.remove_superseded(&old, self.writer.options.backup_snapshots)?;
            return Ok(Compacted::NothingNew);
        }
        // In a thread of its own, since a priority can't be raised again.
        let done = std::thread::scope(|scope| {
            let work = || {
                self.writer.host().lower_priority();
                span.within(|| self.fold_and_switch(alone, &old, through, phase))
            };
            match scope.spawn(work).join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let done = Compaction {
            lock_held,
            elapsed: self.writer.host().now() - started,
            ..done
        };
        telemetry::compacted(
            self.writer.dir.path(),
            done.seq.get(),
            done.issues,
            done.bytes,
            done.removed.len() as u64,
            lock_held,
            done.elapsed,
        );
        Ok(Compacted::Done(done))
    }

    /// Folds the records through `through`, has the manifest name the result, and removes what that replaces.
    fn fold_and_switch(
        &self,
        alone: &Alone<'_>,
        old: &Manifest,
        through: u64,
        mut phase: telemetry::Clock,
    ) -> Result<Compaction> {
        let folded = Folded::through(&self.writer.dir, old, Throttle::GENTLE, || {
            End::Seq(through)
        })?;
        let Some(Folded { mut store, .. }) = folded else {
            let gone = std::io::Error::other("the live snapshot was replaced by somebody else");
            return Err(Error::io("read", self.writer.dir.path())(gone));
        };
        let oldest_seq = if seeded(Bug::KeyForgotten) {
            u64::MAX
        } else {
            through.saturating_sub(self.writer.options.idempotency_records)
        };
        store.forget_keys_before(Seq::new(oldest_seq));
        let now = Timestamp::from_ms(self.writer.host().unix_ms());
        let oldest = now.saturating_sub_ms(self.writer.options.tombstone_ms);
        let oldest = if seeded(Bug::TombstoneDropped) {
            Timestamp::from_ms(i64::MAX)
        } else {
            oldest
        };
        store.forget_tombstones_before(oldest);
        telemetry::compaction_phase(self.writer.dir.path(), "fold", &mut phase);

        // What an earlier compaction that died has left takes space that this one may need. Not before now: had
        // the live snapshot been damaged, it could be mended with it.
        let mut removed = alone.remove_obsolete(old, self.writer.options.backup_snapshots)?;
        let mut mark = None;
        let write = |file: &StoreFile| {
            let written = snapshot_file::write(&store, &old.store, file, Throttle::GENTLE);
            mark = Some(written?);
            Ok(())
        };
        let name = snapshot_name(through);
        self.writer.dir.replace_file(&name, write, || {
            self.writer.reached(Failpoint::SnapshotWritten);
        })?;
        let Some(mark) = mark else {
            unreachable!("a file that was replaced was written");
        };
        self.writer.reached(Failpoint::SnapshotRenamed);
        telemetry::compaction_phase(self.writer.dir.path(), "write", &mut phase);
        let new = old.compacted(mark);
        if seeded(Bug::SegmentsRemovedEarly) {
            alone.remove_obsolete(&new, self.writer.options.backup_snapshots)?;
        }
        new.write(&self.writer.dir)?;
        self.writer.reached(Failpoint::ManifestReplaced);
        telemetry::compaction_phase(self.writer.dir.path(), "switch", &mut phase);
        removed.extend(alone.remove_obsolete(&new, self.writer.options.backup_snapshots)?);
        telemetry::compaction_phase(self.writer.dir.path(), "remove", &mut phase);
        Ok(Compaction {
            seq: Seq::new(through),
            issues: store.len() as u64,
            bytes: mark.bytes,
            removed,
            lock_held: Duration::ZERO,
            elapsed: Duration::ZERO,
        })
    }

    fn compaction_due(&self) -> Result<bool> {
        let live = self.writer.manifest()?.first_seq;
        let records = (self.look(Hints::tail_seq)? + 1).saturating_sub(live);
        if records >= self.writer.options.compact_after_records {
            return Ok(true);
        }
        let mut bytes = 0;
        let behind = self.writer.dir.segments()?.into_iter();
        for first_seq in behind.filter(|first| *first >= live) {
            let name = segment_name(first_seq);
            // Otherwise it was compacted away in between.
            if let Some(file) = self.writer.dir.open_if_there(&name, OpenMode::Read)? {
                bytes += file.len_bytes()?;
            }
        }
        Ok(records > 0 && bytes >= self.writer.options.compact_after_bytes)
    }
}
