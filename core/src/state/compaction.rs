//! Compaction: replaces the log by a snapshot beside the writers. See "Compaction" in
//! `docs/DESIGN.md`.
//!
//! | step | under | dying after it leaves |
//! | --- | --- | --- |
//! | begin a new segment | `compact.lock`, `lock` | one more segment, which is harmless |
//! | fold the records before it into a state | `compact.lock` | nothing |
//! | remove what an earlier compaction that died has left | `compact.lock` | less of it |
//! | write `snapshot-….jsonl.new`, sync | `compact.lock` | an orphan |
//! | rename it, sync the directory | `compact.lock` | an orphan |
//! | replace the manifest, sync the directory | `compact.lock` | obsolete files |
//! | remove the obsolete files, sync the directory | `compact.lock` | nothing |
//!
//! The next compaction and the next open remove orphans and obsolete files. A compaction that fails
//! removes the file that it was writing at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{Error, Result},
    format::{
        payload::Payload,
        record::{segment_name, snapshot_name},
        seq::Seq,
    },
    issues::timestamp::Timestamp,
    state::{State, materialize::Materialized, snapshot, throttle::Throttle},
    telemetry,
    wal::{
        durable::End, log::Log, manifest::Manifest, obsolete::Alone, raw_log::RawLog, shm::Hints,
        writer::Writer,
    },
};

/// The result of [`Log::compact`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compacted {
    /// A new snapshot replaces the log.
    #[non_exhaustive]
    Done {
        /// The last record that the snapshot reflects.
        seq: Seq,
        /// How many entries the state has ([`State::entries`]); for issues, how many exist.
        entries: u64,
        /// The snapshot's length in bytes.
        bytes: u64,
        /// The obsolete files that were removed.
        removed: Vec<String>,
        /// How long the store's lock was held.
        lock_held: Duration,
        /// How long the compaction took.
        elapsed: Duration,
    },
    /// Another thread or process is compacting this store. Nothing was done.
    AlreadyRunning,
    /// There is no record behind the live snapshot. At most, obsolete files were removed.
    NothingNew,
}

impl<P: Payload> Log<P> {
    /// Replaces the log by a snapshot of the state, and removes the obsolete segments. All or
    /// nothing, also if the process dies.
    ///
    /// Blocks for as long as it takes to read the state and write it. Others append meanwhile: the
    /// store's lock is held only while a new segment is begun. Call it when [`Log::compaction_due`]
    /// says so, where it delays nothing else; a [`crate::Compactor`] does that in a thread.
    ///
    /// # Errors
    /// The store is as before, except for a new segment and files that the next open removes:
    /// [`Error::Lock`], [`Error::Io`], [`Error::Corrupt`] (damaged records are not compacted, nor
    /// is a log whose snapshot is of another state).
    ///
    /// Example: [`State`].
    pub fn compact<S: State<Payload = P>>(&self) -> Result<Compacted> {
        let writer = &self.raw.writer;
        let started = writer.host().now();
        let span = telemetry::compact(writer.dir.path());
        span.within(|| {
            let done = writer.alone(|alone| {
                let work = Work {
                    raw: &self.raw,
                    writer,
                    alone,
                };
                work.compact::<S>(started, &span)
            })?;
            Ok(done.unwrap_or(Compacted::AlreadyRunning))
        })
    }

    /// Whether the log behind the live snapshot has reached
    /// [`crate::Options::compact_after_bytes`] or [`crate::Options::compact_after_records`]. Looks
    /// only at the lengths of the files. Blocks only where [`Log::durable_seq`] does.
    ///
    /// # Errors
    /// As [`Log::durable_seq`], and [`Error::Corrupt`] for a damaged manifest.
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default().compact_after_records(1))?;
    /// assert!(!log.compaction_due()?);
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// if log.compaction_due()? {
    ///     log.compact()?;
    /// }
    /// # assert!(!log.compaction_due()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compaction_due(&self) -> Result<bool> {
        let writer = &self.raw.writer;
        let live = writer.manifest()?.first_seq;
        let records = (self.raw.look(Hints::tail_seq)? + 1).saturating_sub(live);
        if records >= writer.options.compact_after_records {
            return Ok(true);
        }
        let mut bytes = 0;
        let live_segments = writer.dir.segments()?.into_iter();
        for first_seq in live_segments.filter(|first| *first >= live) {
            let name = segment_name(first_seq);
            // Otherwise it was compacted away in between.
            if let Some(file) = writer.dir.open_if_there(&name, OpenMode::Read)? {
                bytes += file.len_bytes()?;
            }
        }
        Ok(records > 0 && bytes >= writer.options.compact_after_bytes)
    }
}

/// A compaction by the holder of `compact.lock`.
#[derive(Clone, Copy)]
struct Work<'a> {
    raw: &'a RawLog,
    writer: &'a Writer,
    alone: &'a Alone<'a>,
}

impl Work<'_> {
    fn compact<S: State>(self, started: Instant, span: &telemetry::Span) -> Result<Compacted> {
        let Self { writer, alone, .. } = self;
        let old = writer.manifest()?;
        let mut phase = telemetry::Clock::of_debug();
        // Most is made durable before the lock is taken, so that it is not held for long. If that
        // failed, now or before, the rotation makes up for it.
        match writer.sync_to(self.raw.look(Hints::tail_seq)?) {
            Ok(()) | Err(Error::DurabilityUnknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let locked = writer.lock()?;
        let held = writer.host().now();
        let through = locked.rotate()?;
        locked.unlock()?;
        let lock_held = writer.host().now() - held;
        writer.reached(Failpoint::CompactionRotated);
        telemetry::compaction_phase(writer.dir.path(), "rotate", &mut phase);
        if through < old.first_seq {
            alone.remove_superseded(&old, writer.options.backup_snapshots)?;
            return Ok(Compacted::NothingNew);
        }
        // In a thread of its own, since its priority can't be raised again.
        let (entries, bytes, removed) = thread::scope(|scope| {
            let work = || {
                writer.host().lower_priority();
                span.within(|| self.fold_and_switch::<S>(&old, through, phase))
            };
            let started = thread::Builder::new().spawn_scoped(scope, work);
            let worker = started.map_err(Error::io("start a thread to compact", writer.dir.path()));
            match worker?.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let elapsed = writer.host().now() - started;
        let removed_files = removed.len() as u64;
        let dir = writer.dir.path();
        telemetry::compacted(
            dir,
            through,
            entries,
            bytes,
            removed_files,
            lock_held,
            elapsed,
        );
        Ok(Compacted::Done {
            seq: Seq::new(through),
            entries,
            bytes,
            removed,
            lock_held,
            elapsed,
        })
    }

    /// Folds the records through `through`, has the manifest name the snapshot of the result, and
    /// removes the obsolete files. Returns the state's entries, the snapshot's bytes and the
    /// removed files.
    fn fold_and_switch<S: State>(
        self,
        old: &Manifest,
        through: u64,
        mut phase: telemetry::Clock,
    ) -> Result<(u64, u64, Vec<String>)> {
        let Self { writer, alone, .. } = self;
        let backups = writer.options.backup_snapshots;
        let state = self.fold::<S>(old, through)?;
        telemetry::compaction_phase(writer.dir.path(), "fold", &mut phase);

        // The orphans of an earlier compaction take space that this one may need. Not before now:
        // if the live snapshot had been damaged, a repair could use them.
        let mut removed = alone.remove_obsolete(old, backups)?;
        let mut mark = None;
        writer.dir.replace_file(
            &snapshot_name(through),
            |file| {
                let written = snapshot::write(&state, through, &old.store, file, Throttle::GENTLE);
                mark = Some(written?);
                Ok(())
            },
            || writer.reached(Failpoint::SnapshotWritten),
        )?;
        let Some(mark) = mark else {
            unreachable!("a file that was replaced was written");
        };
        writer.reached(Failpoint::SnapshotRenamed);
        telemetry::compaction_phase(writer.dir.path(), "write", &mut phase);
        let new = old.compacted(mark);
        new.write(&writer.dir)?;
        writer.reached(Failpoint::ManifestReplaced);
        telemetry::compaction_phase(writer.dir.path(), "switch", &mut phase);
        removed.extend(alone.remove_obsolete(&new, backups)?);
        telemetry::compaction_phase(writer.dir.path(), "remove", &mut phase);
        Ok((state.entries() as u64, mark.bytes, removed))
    }

    /// The state through record `through`, without what is too old to keep.
    fn fold<S: State>(self, old: &Manifest, through: u64) -> Result<S> {
        let Writer { dir, options, .. } = self.writer;
        let end = || End::Seq(through);
        let Some(folded) = Materialized::<S>::through(dir, old, Throttle::GENTLE, end)? else {
            let gone = std::io::Error::other("the live snapshot was replaced meanwhile");
            return Err(Error::io("read", dir.path())(gone));
        };
        let mut state = folded.state;
        let before_seq = Seq::new(through).saturating_sub(options.idempotency_records);
        let now = Timestamp::from_ms(dir.host().unix_ms());
        let before = now.saturating_sub_ms(options.tombstone_ms);
        state.forget(before_seq, before);
        Ok(state)
    }
}
