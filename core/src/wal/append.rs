//! Appends a record behind the valid tail, and begins segments. // I2

use std::sync::PoisonError;

use crate::{
    env::{
        failpoint::Failpoint,
        storage::{OpenMode, write_full},
    },
    error::{Error, Outcome, Result},
    format::record::{END_MARK, EncodedPayload, Header, SEQ_MAX, segment_name},
    telemetry,
    wal::{
        recovery::ValidTail,
        round::Rounds,
        segment::Segment,
        shm::{TailHint, clear_page},
        writer::Locked,
    },
};

impl Locked<'_> {
    /// Writes one record behind the tail and publishes it; returns its number.
    pub(crate) fn append(&self, payload: &EncodedPayload) -> Result<u64> {
        self.validate_tail()?.append(payload)
    }

    /// Begins a new segment, unless the present one is empty; returns the last record before it.
    ///
    /// For a compaction, which removes the old segment soon. So the free space of that is not cut
    /// off, which would cost a second entry in the filesystem's journal.
    pub(crate) fn rotate(&self) -> Result<u64> {
        let mut tail = self.validate_tail()?;
        let last_seq = tail.at.seq;
        if tail.at.offset > 0 {
            tail.begin_segment()?;
        }
        Ok(last_seq)
    }
}

impl ValidTail<'_> {
    /// Writes one record behind the tail and publishes it; returns its number.
    pub(crate) fn append(mut self, payload: &EncodedPayload) -> Result<u64> {
        let writer = self.writer;
        if self.at.offset >= writer.options.segment_bytes_max {
            self.segment.file.set_len(self.at.offset)?; // The free space behind it.
            self.begin_segment()?;
        }
        let at = self.at;
        let seq = at.seq + 1; // I4
        assert!(seq <= SEQ_MAX, "sequence numbers end at {SEQ_MAX}");
        let synced = self.hints.durable_seq().unwrap_or(0);
        let mut line = writer.line.lock().unwrap_or_else(PoisonError::into_inner);
        payload.write_line(Header { seq, synced }, &mut line);
        let end = at.offset + line.len() as u64;
        self.segment
            .preallocate(writer.options.preallocate_bytes, end);
        writer.reached(Failpoint::BeforeWrite);
        if let Err(source) = write_full(self.segment.file.raw(), &line, at.offset) {
            // If the bytes can't be cut off, the next validation finds them behind the tail, and
            // keeps the record if it is whole.
            let outcome = match self.undo_write() {
                Ok(()) => Outcome::Rejected,
                Err(_) => Outcome::Unknown,
            };
            return Err(Error::Io {
                op: "append to",
                path: self.segment.file.path().to_owned(),
                outcome,
                source,
            });
        }
        writer.reached(Failpoint::AfterWrite);
        writer.require_written()?;
        if writer.is_eager() {
            Rounds::of(&self.hints).count_eager();
        }
        self.hints.tail_words().publish(TailHint {
            seq,
            last_offset: at.offset,
            offset: end,
            ..at
        });
        Rounds::of(&self.hints).wake_gathering(seq);
        writer.reached(Failpoint::TailPublished);
        telemetry::written(seq, line.len());
        Ok(seq)
    }

    /// Begins the next segment.
    ///
    /// The full segment is durable before its successor exists, so only the last one can be torn.
    fn begin_segment(&mut self) -> Result<()> {
        let Self {
            writer,
            hints,
            at,
            segment: full,
        } = self;
        let clock = telemetry::Clock::of_debug();
        // A leader that is at work, or that died at it, may have seen its sync fail.
        let sync = || match Rounds::of(hints).leader() {
            0 if !hints.is_poisoned() => full.file.sync(),
            _ => full.sync_in_doubt(*at, hints.durable_seq().unwrap_or(0)),
        };
        writer.sync_or_poison(hints, at.seq, sync)?;
        hints.commit(at.seq);
        Rounds::of(hints).wake_all();
        writer.reached(Failpoint::RotationSynced);
        writer.require_lock()?;
        // A writer that dies from here on leaves a half-changed tail: the next one rebuilds it.
        hints.tail_words().begin_change();
        if !hints.is_shared() {
            clear_page(&writer.dir)?;
        }
        let first_seq = at.seq + 1;
        let name = segment_name(first_seq);
        let file = writer.dir.open(&name, OpenMode::CreateNew)?;
        writer.dir.sync()?;
        writer.reached(Failpoint::SegmentCreated);
        // Only copies need it, so nothing waits for it.
        full.file.raw().write_at(END_MARK, at.offset).ok();
        *full = writer.segment.put(Segment::writable(first_seq, file)?);
        *at = TailHint {
            segment: first_seq,
            seq: at.seq,
            last_offset: 0,
            offset: 0,
        };
        hints.tail_words().publish(*at);
        telemetry::rotated(writer.dir.path(), first_seq, &clock);
        Ok(())
    }

    /// Cuts off, durably, what a failed write may have left behind the tail. Free space there would
    /// make a whole line of one that lacks its newline, and a power loss would bring it back.
    fn undo_write(&self) -> Result<()> {
        let Self { segment, at, .. } = self;
        segment.forget_len();
        segment.file.set_len(at.offset)?;
        // This syncs the records of others too, and only this caller learns whether it failed. //
        // I7
        self.writer
            .sync_or_poison(&self.hints, at.seq, || segment.file.sync())
    }
}
