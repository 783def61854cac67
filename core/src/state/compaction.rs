//! Compaction: replaces the log by a snapshot beside the writers. See "Compaction" in
//! `docs/DESIGN.md`.
//!
//! | step | under | dying after it leaves |
//! | --- | --- | --- |
//! | begin a new segment | `compact.lock`, `lock` | one more segment, which is harmless |
//! | fold the records before it into a state | `compact.lock` | nothing |
//! | have the caller archive those records | `compact.lock` | a copy, which it makes again |
//! | remove what an earlier compaction that died has left | `compact.lock` | less of it |
//! | write `snapshot-….jsonl.new`, sync | `compact.lock` | an orphan |
//! | rename it, sync the directory | `compact.lock` | an orphan |
//! | replace the manifest, sync the directory | `compact.lock` | obsolete files |
//! | remove the obsolete files, sync the directory | `compact.lock` | nothing |
//!
//! The next compaction and the next open remove orphans and obsolete files. A compaction that fails
//! removes the file that it was writing at once.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{Error, Result},
    format::{
        payload::Payload,
        record::{segment_name, snapshot_name, unclosed_name},
        seq::Seq,
    },
    issues::timestamp::Timestamp,
    options::Options,
    state::{State, materialize::Materialized, snapshot, throttle::Throttle},
    telemetry,
    wal::{
        durable::{DurableWatch, End},
        log::Log,
        manifest::{Manifest, SnapshotMark},
        obsolete::{Alone, COMPACT_LOCK},
        raw_log::RawLog,
        shm::Hints,
        store_dir::{StoreDir, StoreFile},
        writer::Writer,
        writer::retry_replaced,
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
        let compact = || {
            let done = writer.alone(|alone| {
                let work = Work {
                    raw: &self.raw,
                    writer,
                    alone,
                };
                work.compact::<S>(started)
            })?;
            Ok(done.unwrap_or(Compacted::AlreadyRunning))
        };
        telemetry::compact(writer.dir.path())
            .within(|| retry_replaced(compact, Error::is_displacement))
    }

    /// Whether the log behind the live snapshot has reached
    /// [`crate::Options::compact_after_bytes`] or [`crate::Options::compact_after_records`], and an
    /// eighth of a snapshot that is longer than 32 MiB. Looks only at the lengths of the files.
    /// Blocks only where [`Log::durable_seq`] does.
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
        is_due(
            &writer.dir,
            &writer.options,
            self.raw.look(Hints::tail_seq)?,
        )
    }
}

/// Whether it is time to compact the store in `dir`, and nobody does: as [`Log::compaction_due`],
/// but for a process that does not have it open. Does not block.
///
/// # Errors
/// [`Error::NoStore`], [`Error::MissingDirectory`], [`Error::NotADirectory`], [`Error::Io`], and
/// [`Error::Corrupt`] for a damaged manifest.
///
/// ```
/// use strand_core::{IssueLog, Options, compaction_due};
///
/// # let dir = tempfile::tempdir()?;
/// IssueLog::open(dir.path(), Options::default())?;
/// assert!(!compaction_due(dir.path(), &Options::default())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compaction_due(dir: impl AsRef<Path>, options: &Options) -> Result<bool> {
    let dir = StoreDir::open_at(&options.storage, dir.as_ref())?;
    let mut watch = DurableWatch::open_store(&dir)?;
    let state = dir.look_at_lock(COMPACT_LOCK);
    let is_running = state.is_some_and(|state| state.holder.is_some());
    Ok(!is_running && is_due(&dir, options, watch.durable_seq().unwrap_or(0))?)
}

/// A snapshot is written again only when the log is so long compared to it, so that compactions
/// write a bounded number of bytes for each one that is appended.
const SNAPSHOT_PER_LOG: u64 = 8;

/// Snapshots up to this length are quick to write, however short the log is.
const SHORT_SNAPSHOT_BYTES: u64 = 32 << 20;

fn is_due(dir: &StoreDir, options: &Options, last_seq: u64) -> Result<bool> {
    let manifest = Manifest::required(dir)?;
    let live = manifest.first_seq;
    let mut bytes = 0;
    let live_segments = dir.segments()?.into_iter();
    for first_seq in live_segments.filter(|first| *first >= live) {
        // Otherwise it was compacted away in between.
        if let Some(file) = dir.open_if_there(&segment_name(first_seq), OpenMode::Read)? {
            bytes += file.len_bytes()?;
        }
    }
    let snapshot_bytes = manifest.snapshot.map_or(0, |mark| mark.bytes);
    Ok(is_long(
        options,
        (last_seq + 1).saturating_sub(live),
        bytes,
        snapshot_bytes,
    ))
}

/// Whether so long a log is to be folded into so long a snapshot.
fn is_long(options: &Options, records: u64, bytes: u64, snapshot_bytes: u64) -> bool {
    let is_long = records >= options.compact_after_records || bytes >= options.compact_after_bytes;
    let pays = snapshot_bytes <= SHORT_SNAPSHOT_BYTES || bytes >= snapshot_bytes / SNAPSHOT_PER_LOG;
    records > 0 && is_long && pays
}

/// A compaction by the holder of `compact.lock`.
#[derive(Clone, Copy)]
struct Work<'a> {
    raw: &'a RawLog,
    writer: &'a Writer,
    alone: &'a Alone<'a>,
}

impl Work<'_> {
    fn compact<S: State>(self, started: Instant) -> Result<Compacted> {
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
        let (entries, bytes, removed) = self.fold_and_switch::<S>(&old, through, phase)?;
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
        self.archive(old, through)?;

        // The orphans of an earlier compaction take space that this one may need. Not before now:
        // if the live snapshot had been damaged, a repair could use them.
        let mut removed = alone.remove_obsolete(old, backups)?;
        let mut mark = None;
        writer.dir.replace_file(
            &snapshot_name(through),
            |file| {
                let throttle = self.throttle(old, through);
                let written = snapshot::write(&state, through, &old.store, file, throttle);
                mark = Some(written?);
                Ok(())
            },
            || {
                writer.reached(Failpoint::SnapshotWritten);
                alone.require_named()
            },
        )?;
        let Some(mark) = mark else {
            unreachable!("a file that was replaced was written");
        };
        writer.reached(Failpoint::SnapshotRenamed);
        self.write_unclosed(&state, mark, old);
        telemetry::compaction_phase(writer.dir.path(), "write", &mut phase);
        let new = old.compacted(mark);
        new.write(&writer.dir, || alone.require_named())?;
        writer.reached(Failpoint::ManifestReplaced);
        telemetry::compaction_phase(writer.dir.path(), "switch", &mut phase);
        removed.extend(alone.remove_obsolete(&new, backups)?);
        telemetry::compaction_phase(writer.dir.path(), "remove", &mut phase);
        Ok((state.entries() as u64, mark.bytes, removed))
    }

    /// Writes the issues that are not closed beside the snapshot. Nothing depends on it: without
    /// it, or if it is not whole, readers read the snapshot.
    fn write_unclosed<S: State>(self, state: &S, mark: SnapshotMark, old: &Manifest) {
        let Some(part) = state.unclosed() else { return };
        let dir = &self.writer.dir;
        let name = unclosed_name(mark.seq);
        let write = || {
            dir.remove(&name)?;
            let Some(file) = dir.create_new(&name)? else {
                return Ok(());
            };
            let throttle = self.throttle(old, mark.seq);
            snapshot::write_unclosed(&part, mark, &old.store, &file, throttle).map(drop)
        };
        if write().is_err() {
            dir.remove(&name).ok();
        }
    }

    /// Has the caller keep the segments that the new manifest will not need. Not later: once it is
    /// written, the next open of any process removes them.
    fn archive(self, old: &Manifest, through: u64) -> Result<()> {
        let Writer { dir, options, .. } = self.writer;
        let Some(archive) = &options.archive.0 else {
            return Ok(());
        };
        let segments = dir.segments()?.into_iter();
        for first_seq in segments.filter(|first| (old.first_seq..=through).contains(first)) {
            let name = segment_name(first_seq);
            let file = dir.open(&name, OpenMode::Read)?;
            let mut bytes = SegmentBytes {
                file: &file,
                offset: 0,
                throttle: self.throttle(old, through),
            };
            let kept = archive(&name, &mut bytes);
            kept.map_err(|error| Error::io("archive", file.path())(error))?;
        }
        Ok(())
    }

    fn throttle(self, old: &Manifest, through: u64) -> Throttle {
        let Writer { dir, .. } = self.writer;
        let records = through + 1 - old.first_seq;
        Throttle::beside_appends(dir, self.writer.hints(), through, records)
    }

    /// The state through record `through`, without what is too old to keep.
    fn fold<S: State>(self, old: &Manifest, through: u64) -> Result<S> {
        let Writer { dir, options, .. } = self.writer;
        let end = || End::Seq(through);
        let Some(folded) = Materialized::<S>::through(dir, old, self.throttle(old, through), end)?
        else {
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

/// A segment that is read from its begin.
struct SegmentBytes<'a> {
    file: &'a StoreFile,
    offset: u64,
    throttle: Throttle,
}

impl io::Read for SegmentBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.raw().read_at(buffer, self.offset)?;
        self.offset += read as u64;
        self.throttle.did(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_folded_once_it_is_long_and_not_short_beside_its_snapshot() {
        let options = Options::default()
            .compact_after_bytes(4 << 20)
            .compact_after_records(1_000);
        let due = |records, bytes, snapshot| is_long(&options, records, bytes, snapshot);
        assert!(!due(999, (4 << 20) - 1, 0) && !due(0, 5 << 20, 0));
        assert!(due(1, 4 << 20, 32 << 20) && due(1_000, 1, 32 << 20));
        // A gigabyte is written again for 128 MiB, not for 4.
        assert!(!due(5_000, 127 << 20, 1 << 30) && due(5_000, 128 << 20, 1 << 30));
    }
}
