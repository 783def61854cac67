//! What the holder of the lock does to append. // I2

use std::sync::{PoisonError, atomic::Ordering};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{Error, Outcome, Result},
    format::record::{EncodedPayload, Header, SEQ_MAX, segment_name},
    seeded::{Bug, seeded},
    telemetry,
    wal::{
        log::{LogCore, Segment},
        recovery::{Settled, sync_in_doubt},
        shm::{Hints, TailHint, clear_page},
    },
};

impl LogCore {
    /// Writes one record behind the tail and publishes it; returns its number. The caller holds the lock.
    pub(crate) fn append_locked(&self, payload: &EncodedPayload) -> Result<u64> {
        self.append_behind(self.tail_under_lock()?, payload)
    }

    /// As [`LogCore::append_locked`], behind a tail that was looked at under the same lock.
    pub(crate) fn append_behind(
        &self,
        (hints, mut tail, mut segment): Settled,
        payload: &EncodedPayload,
    ) -> Result<u64> {
        if tail.offset >= self.options.segment_bytes_max {
            segment.file.set_len(tail.offset)?; // The free space behind it.
            (tail, segment) = self.rotate(&hints, tail, &segment)?;
        }
        let reused = seeded(Bug::SeqReused) && tail.offset == 0 && tail.seq > 0;
        let seq = tail.seq + 1 - u64::from(reused); // I4
        assert!(seq <= SEQ_MAX, "sequence numbers end at {SEQ_MAX}");
        let synced = hints.durable_seq().unwrap_or(0);
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        payload.write_line(Header { seq, synced }, &mut line);
        self.preallocate(&segment, tail.offset + line.len() as u64);
        self.options.reached(Failpoint::BeforeWrite);
        let failed = match segment.file.raw().write_at(&line, tail.offset) {
            Ok(written) if written == line.len() || seeded(Bug::ShortWriteIgnored) => None,
            Ok(_) => Some(std::io::ErrorKind::WriteZero.into()),
            Err(error) => Some(error),
        };
        if let Some(source) = failed {
            // If what may have been written can't be cut off, the next holder of the lock finds it behind the tail, and
            // keeps the record if it is whole.
            let outcome = match self.undo_write(&hints, tail, &segment) {
                Ok(()) => Outcome::Rejected,
                Err(_) => Outcome::Unknown,
            };
            return Err(Error::Io {
                op: "append to",
                path: segment.file.path().to_owned(),
                outcome,
                source,
            });
        }
        self.options.reached(Failpoint::AfterWrite);
        let end = tail.offset + line.len() as u64;
        hints.publish_tail(TailHint {
            seq,
            last_offset: tail.offset,
            offset: end,
            ..tail
        });
        self.options.reached(Failpoint::TailPublished);
        telemetry::written(seq, line.len());
        Ok(seq)
    }

    /// Lays out free space behind the log when less than `end` is there. The caller holds the lock.
    ///
    /// Failing does no harm: the record is then written at the end of the file, or fails by itself.
    fn preallocate(&self, segment: &Segment, end: u64) {
        let want = usize::try_from(self.options.preallocate_bytes).unwrap_or(0);
        if want == 0 || end <= segment.len_bytes.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut len) = segment.file.len_bytes() else {
            return;
        };
        if end > len {
            let space = vec![b'\n'; want];
            len += segment.file.raw().write_at(&space, len).unwrap_or(0) as u64;
        }
        segment.len_bytes.store(len, Ordering::Relaxed);
    }

    /// Begins a new segment, unless the present one is empty; answers the last record before it.
    /// The caller holds the lock, and is about to fold the old segment: so its free space is not cut off, which
    /// would take a second entry in the filesystem's journal.
    pub(crate) fn rotate_locked(&self) -> Result<u64> {
        let (hints, tail, segment) = self.tail_under_lock()?;
        if tail.offset > 0 {
            self.rotate(&hints, tail, &segment)?;
        }
        Ok(tail.seq)
    }

    /// Begins the next segment. The caller holds the lock.
    ///
    /// The full segment is durable before its successor exists, so that only the last one can be torn.
    fn rotate(&self, hints: &Hints, tail: TailHint, full: &Segment) -> Result<(TailHint, Segment)> {
        let rotate = telemetry::Clock::of_debug();
        // A leader that is at work, or that died at it, may have seen its sync fail.
        let synced = match hints.leader() {
            _ if seeded(Bug::NoSyncAtRotation) => Ok(()),
            0 if !hints.is_poisoned() => full.file.sync(),
            _ => sync_in_doubt(
                full,
                tail.offset,
                tail.seq,
                hints.durable_seq().unwrap_or(0),
            ),
        };
        self.poison_unless_synced(hints, tail.seq, synced)?;
        hints.commit(tail.seq);
        hints.wake_both();
        self.options.reached(Failpoint::RotationSynced);
        // Dying from here on leaves an odd generation: the next holder looks at the files.
        hints.begin_change();
        if !hints.is_shared() {
            clear_page(&self.dir)?;
        }
        let first_seq = tail.seq + 1;
        let name = segment_name(first_seq);
        let file = self.dir.open(&name, OpenMode::CreateNew)?;
        if !seeded(Bug::NoDirSyncAtRotation) {
            self.dir.sync()?;
        }
        self.options.reached(Failpoint::SegmentCreated);
        let segment = Segment::new(first_seq, file);
        *self.cached_segment() = Some(segment.clone());
        let tail = TailHint {
            segment: first_seq,
            seq: tail.seq,
            last_offset: 0,
            offset: 0,
        };
        hints.publish_tail(tail);
        telemetry::rotated(self.dir.path(), first_seq, &rotate);
        Ok((tail, segment))
    }

    /// Cuts off what a write that failed may have left behind the tail, durably: free space there makes a whole line of
    /// one that lacks its newline, and a loss of power would bring it back. The caller holds the lock.
    fn undo_write(&self, hints: &Hints, tail: TailHint, segment: &Segment) -> Result<()> {
        segment.len_bytes.store(0, Ordering::Relaxed);
        if seeded(Bug::FailedWriteStays) {
            return Ok(());
        }
        segment.file.set_len(tail.offset)?;
        // What others have written is synced by this, too, and nobody else would be told that it failed. // I7
        self.poison_unless_synced(hints, tail.seq, segment.file.sync())
    }
}
