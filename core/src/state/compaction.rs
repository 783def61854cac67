//! Compaction: replaces the log by a snapshot beside the writers. See "Compaction" in
//! `docs/DESIGN.md`.
//!
//! The snapshot of issues consists of several files, once it is long: a base, and runs of what
//! changed since. A compaction writes the last one, and may put it in the place of earlier ones.
//!
//! | step | under | dying after it leaves |
//! | --- | --- | --- |
//! | begin a new segment | `compact.lock`, `lock` | one more segment, which is harmless |
//! | fold the records before it into a state, or into a part of it | `compact.lock` | nothing |
//! | have the caller archive those records | `compact.lock` | a copy, which it makes again |
//! | remove what an earlier compaction that died has left | `compact.lock` | less of it |
//! | write `snapshot-….new` or `run-….new`, sync | `compact.lock` | an orphan |
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
        record::{Reflects, segment_name, unclosed_name},
        seq::Seq,
    },
    issues::{issues::Issues, timestamp::Timestamp},
    options::Options,
    state::{
        State,
        base::{NewBase, fold_changed},
        materialize::Materialized,
        runs, snapshot,
        throttle::Throttle,
        unclosed,
    },
    telemetry,
    wal::{
        durable::{DurableWatch, End},
        log::Log,
        manifest::{Manifest, SnapshotMark},
        obsolete::{Alone, COMPACT_LOCK},
        raw_log::RawLog,
        shm::Hints,
        store_dir::{CHUNK_BYTES, StoreDir, StoreFile},
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
        /// How many bytes of the snapshot were written.
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
    /// [`crate::Options::compact_after_bytes`] or [`crate::Options::compact_after_records`], and,
    /// if the snapshot is longer than 32 MiB, 1/512 of it, or 1/8 if it is of another state than
    /// [`crate::Issues`]. Looks only at the lengths of the files, and, if they are long enough, at
    /// where the records end and at the first line of the snapshot.
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

/// A snapshot is as long as so many logs at most, so that compactions write a bounded number of
/// bytes for each one that is appended.
const SNAPSHOT_PER_LOG: u64 = 512;

/// The same for a snapshot that is always written as a whole.
const WHOLE_SNAPSHOT_PER_LOG: u64 = 8;

/// Snapshots up to this length are quick to write, however short the log is.
const SHORT_SNAPSHOT_BYTES: u64 = 32 << 20;

/// The file of the issues that are not closed is at most so long, or as long as the log, or a
/// quarter of the base.
const UNCLOSED_BYTES: u64 = 1 << 20;

fn is_due(dir: &StoreDir, options: &Options, last_seq: u64) -> Result<bool> {
    let manifest = Manifest::required(dir)?;
    let (first_seq, snapshot_bytes) = (manifest.first_seq, manifest.snapshot_bytes());
    let records = (last_seq + 1).saturating_sub(first_seq);
    let is_due = |bytes| -> Result<bool> {
        let is_long = |per_log| is_long(options, records, bytes, snapshot_bytes, per_log);
        Ok(is_long(WHOLE_SNAPSHOT_PER_LOG)
            || is_long(SNAPSHOT_PER_LOG) && snapshot::is_of_issues(dir, &manifest)?)
    };
    let with_free_space = log_bytes(dir, first_seq, u64::MAX, u64::MAX, StoreFile::len_bytes)?;
    if !is_due(with_free_space)? {
        return Ok(false); // Most often, with nothing read.
    }
    let enough = snapshot_bytes.max(options.compact_after_bytes);
    is_due(log_bytes(dir, first_seq, u64::MAX, enough, content_bytes)?)
}

/// The length of the segments that begin with one of these records, or so much that it is `enough`.
fn log_bytes(
    dir: &StoreDir,
    first_seq: u64,
    through: u64,
    enough: u64,
    len_of: impl Fn(&StoreFile) -> Result<u64>,
) -> Result<u64> {
    let mut bytes = 0;
    for first in dir.segments()? {
        if bytes >= enough {
            break;
        }
        // One that is missing was compacted away in between.
        if (first_seq..=through).contains(&first)
            && let Some(file) = dir.open_if_there(&segment_name(first), OpenMode::Read)?
        {
            bytes += len_of(&file)?;
        }
    }
    Ok(bytes)
}

/// The length of a segment without the free space at its end.
fn content_bytes(file: &StoreFile) -> Result<u64> {
    let mut end = file.len_bytes()?;
    let mut buffer = vec![0; CHUNK_BYTES];
    while end > 0 {
        let from = end.saturating_sub(CHUNK_BYTES as u64);
        let read = file.read(&mut buffer, from)?;
        let used = buffer.get(..read).unwrap_or_default().trim_ascii_end();
        if !used.is_empty() {
            return Ok(from + used.len() as u64);
        }
        end = from;
    }
    Ok(0)
}

/// Whether so long a log is to be folded into so long a snapshot.
fn is_long(
    options: &Options,
    records: u64,
    bytes: u64,
    snapshot_bytes: u64,
    snapshot_per_log: u64,
) -> bool {
    let is_long = records >= options.compact_after_records || bytes >= options.compact_after_bytes;
    let pays = snapshot_bytes <= SHORT_SNAPSHOT_BYTES || bytes >= snapshot_bytes / snapshot_per_log;
    records > 0 && is_long && pays
}

/// A compaction's file of the snapshot, and what belongs to it.
struct Written {
    mark: SnapshotMark,
    /// How many entries the whole state has.
    entries: u64,
    /// The obsolete files that were removed before.
    removed: Vec<String>,
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
        let dir = &writer.dir;
        let is_of_issues = S::default().issue_totals().is_some();
        let log_bytes = log_bytes(dir, old.first_seq, through, u64::MAX, content_bytes)?;
        let kept = if is_of_issues {
            let files = old.files();
            let bytes: Vec<u64> = files.iter().map(|file| file.mark.bytes).collect();
            runs::kept(&bytes, log_bytes, writer.options.compact_after_bytes)
        } else {
            0
        };
        let written = if kept > 0 {
            self.write_run(old, through, kept, log_bytes, &mut phase)?
        } else if is_of_issues
            && let Some(written) = self.write_merged_base(old, through, &mut phase)?
        {
            written
        } else {
            self.write_base::<S>(old, through, &mut phase)?
        };
        let Written { mark, entries, .. } = written;
        telemetry::compaction_phase(dir.path(), "write", &mut phase);
        let files = old.files().into_iter().take(kept);
        let marks: Vec<SnapshotMark> = files.map(|file| file.mark).chain([mark]).collect();
        let new = old.with_snapshot(&marks);
        new.write(dir, || alone.require_named())?;
        writer.reached(Failpoint::ManifestReplaced);
        telemetry::compaction_phase(dir.path(), "switch", &mut phase);
        let mut removed = written.removed;
        removed.extend(alone.remove_obsolete(&new, writer.options.backup_snapshots)?);
        telemetry::compaction_phase(dir.path(), "remove", &mut phase);
        Ok((entries, mark.bytes, removed))
    }

    /// Folds everything into one file.
    fn write_base<S: State>(
        self,
        old: &Manifest,
        through: u64,
        phase: &mut telemetry::Clock,
    ) -> Result<Written> {
        let state = self.fold::<S>(old, through)?;
        telemetry::compaction_phase(self.writer.dir.path(), "fold", phase);
        self.archive(old, through)?;
        let removed = self.make_room(old)?;
        let write = |file: &StoreFile| {
            let throttle = self.throttle(old, through);
            snapshot::write(&state, through, &old.store, file, throttle)
        };
        let mark = self.put(Reflects::all(through), write)?;
        let part = state.unclosed(UNCLOSED_BYTES.max(mark.bytes / 4));
        self.write_unclosed(part.as_ref(), mark, old);
        Ok(Written {
            mark,
            entries: state.entries() as u64,
            removed,
        })
    }

    /// As [`Work::write_base`], of the files of a snapshot of issues, without holding them all in
    /// memory. `None` if there are none, or they are not in order.
    fn write_merged_base(
        self,
        old: &Manifest,
        through: u64,
        phase: &mut telemetry::Clock,
    ) -> Result<Option<Written>> {
        let dir = &self.writer.dir;
        let files = old.files();
        let Some(last) = files.last() else {
            return Ok(None);
        };
        let (mut later, entries) = self.fold_part(old, through, files.len())?;
        later.retain_after(Seq::new(last.mark.seq));
        let (before_seq, before) = self.forgets_before(through);
        let base = NewBase {
            dir,
            manifest: old,
            later: &later,
            before_seq,
            before,
        };
        let unclosed_bytes_max = UNCLOSED_BYTES.max(old.snapshot_bytes() / 4);
        let mut throttle = self.throttle(old, through);
        let Some(summary) = base.summary(unclosed_bytes_max, &mut throttle)? else {
            return Ok(None);
        };
        if summary.issues != entries {
            let found = summary.issues;
            let message = format!("there are {found} issues in all files, and it says {entries}");
            let path = dir.path_of(&last.name());
            return Err(snapshot::corrupt(&path, 0, snapshot::wrong(&message)));
        }
        telemetry::compaction_phase(dir.path(), "fold", phase);
        self.archive(old, through)?;
        let removed = self.make_room(old)?;
        let write = |file: &StoreFile| {
            let mut throttle = self.throttle(old, through);
            let written = base.write(&summary, through, file, &mut throttle)?;
            written.ok_or_else(|| snapshot_gone(dir))
        };
        let mark = self.put(Reflects::all(through), write)?;
        self.write_unclosed(summary.unclosed.as_ref(), mark, old);
        Ok(Some(Written {
            mark,
            entries,
            removed,
        }))
    }

    /// Folds what changed since the first `kept` files of the snapshot into a run behind them.
    fn write_run(
        self,
        old: &Manifest,
        through: u64,
        kept: usize,
        log_bytes: u64,
        phase: &mut telemetry::Clock,
    ) -> Result<Written> {
        let dir = &self.writer.dir;
        let files = old.files();
        let after = kept.checked_sub(1).and_then(|last| files.get(last));
        let after = after.map_or(0, |file| file.mark.seq);
        let (mut part, entries) = self.fold_part(old, through, kept)?;
        part.retain_after(Seq::new(after));
        telemetry::compaction_phase(dir.path(), "fold", phase);
        self.archive(old, through)?;
        let removed = self.make_room(old)?;
        let reflects = Reflects { after, through };
        let write = |file: &StoreFile| {
            let throttle = self.throttle(old, through);
            snapshot::write_run(&part, reflects, entries, &old.store, file, throttle)
        };
        let mark = self.put(reflects, write)?;
        let unclosed = unclosed::after(dir, old, &files, files.len() - kept, |_| true);
        let unclosed = unclosed.and_then(|mut unclosed| {
            unclosed.restore_all(&part);
            unclosed.unclosed(UNCLOSED_BYTES.max(log_bytes))
        });
        self.write_unclosed(unclosed.as_ref(), mark, old);
        Ok(Written {
            mark,
            entries,
            removed,
        })
    }

    /// Removes the orphans of an earlier compaction, which take space that this one may need. Not
    /// before the old files are read: if one had been damaged, a repair could use them.
    fn make_room(self, old: &Manifest) -> Result<Vec<String>> {
        self.alone
            .remove_obsolete(old, self.writer.options.backup_snapshots)
    }

    /// Writes a file of the snapshot, and puts it in its place.
    fn put(
        self,
        reflects: Reflects,
        write: impl FnOnce(&StoreFile) -> Result<SnapshotMark>,
    ) -> Result<SnapshotMark> {
        let Self { writer, alone, .. } = self;
        let mut mark = None;
        writer.dir.replace_file(
            &reflects.name(),
            |file| {
                mark = Some(write(file)?);
                Ok(())
            },
            || {
                writer.reached(Failpoint::SnapshotWritten);
                alone.require_named()
            },
        )?;
        writer.reached(Failpoint::SnapshotRenamed);
        let Some(mark) = mark else {
            unreachable!("a file that was replaced was written");
        };
        Ok(mark)
    }

    /// Writes the issues that are not closed beside the file of the snapshot that ends with them.
    /// Nothing depends on it: without it, or if it is not whole, readers read an earlier one, or
    /// the snapshot.
    fn write_unclosed<S: State>(self, part: Option<&S>, mark: SnapshotMark, old: &Manifest) {
        let Some(part) = part else { return };
        let dir = &self.writer.dir;
        let name = unclosed_name(mark.seq);
        let write = || {
            dir.remove(&name)?;
            let Some(file) = dir.create_new(&name)? else {
                return Ok(());
            };
            let throttle = self.throttle(old, mark.seq);
            snapshot::write_unclosed(part, mark, &old.store, &file, throttle).map(drop)
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
        let dir = &self.writer.dir;
        let end = || End::Seq(through);
        let Some(folded) = Materialized::<S>::through(dir, old, self.throttle(old, through), end)?
        else {
            return Err(snapshot_gone(dir));
        };
        let mut state = folded.state;
        let (before_seq, before) = self.forgets_before(through);
        state.forget(before_seq, before);
        Ok(state)
    }

    /// What is too old to keep: keys of records before the one, tombstones from before the other.
    fn forgets_before(self, through: u64) -> (Seq, Timestamp) {
        let Writer { dir, options, .. } = self.writer;
        let now = Timestamp::from_ms(dir.host().unix_ms());
        (
            Seq::new(through).saturating_sub(options.idempotency_records),
            now.saturating_sub_ms(options.tombstone_ms),
        )
    }

    /// As [`fold_changed`], through record `through`.
    fn fold_part(self, old: &Manifest, through: u64, kept: usize) -> Result<(Issues, u64)> {
        let dir = &self.writer.dir;
        let mut throttle = self.throttle(old, through);
        let changed = fold_changed(dir, old, kept, End::Seq(through), &mut throttle)?;
        changed.ok_or_else(|| snapshot_gone(dir))
    }
}

fn snapshot_gone(dir: &StoreDir) -> Error {
    let gone = std::io::Error::other("the live snapshot was replaced meanwhile");
    Error::io("read", dir.path())(gone)
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
        let due = |records, bytes, snapshot| is_long(&options, records, bytes, snapshot, 8);
        assert!(!due(999, (4 << 20) - 1, 0) && !due(0, 5 << 20, 0));
        assert!(due(1, 4 << 20, 32 << 20) && due(1_000, 1, 32 << 20));
        // A gigabyte is written again for 128 MiB, not for 4.
        assert!(!due(5_000, 127 << 20, 1 << 30) && due(5_000, 128 << 20, 1 << 30));
    }
}
