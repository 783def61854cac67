//! Appends a record behind the valid tail, and begins segments. // I2

use std::sync::PoisonError;

use crate::{
    env::{failpoint::Failpoint, storage::write_full},
    error::{Error, Outcome, Result},
    format::record::{END_MARK, EncodedPayload, Header, SEQ_MAX, segment_name},
    telemetry,
    wal::{
        recovery::ValidTail,
        round::Rounds,
        segment::Segment,
        shm::{TailHint, clear_page},
        slots::{Place, Slots, Stage},
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
    /// Writes one record behind the tail and publishes it; returns its number. Writes the records
    /// that wait in slots behind it, too.
    pub(crate) fn append(self, payload: &EncodedPayload) -> Result<u64> {
        let seq = self.at.seq + 1; // I4
        self.write_group(Some(payload))?;
        Ok(seq)
    }

    /// Writes the records that wait in slots.
    pub(crate) fn write_waiting(self) -> Result<()> {
        self.write_group(None)
    }

    fn write_group(mut self, own: Option<&EncodedPayload>) -> Result<()> {
        let writer = self.writer;
        if self.at.offset >= writer.options.segment_bytes_max {
            self.segment.file.set_len(self.at.offset)?; // The free space behind it.
            self.begin_segment()?;
        }
        let mut group = Group::begin(self.at, self.hints.durable_seq().unwrap_or(0));
        let mut lines = writer.line.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clear();
        if let Some(payload) = own {
            group.push(payload, &mut lines);
        }
        let slots = Slots::of(&self.hints);
        let taken = slots.assign(|waiting| group.push(&waiting.payload, &mut lines));
        if lines.is_empty() {
            return Ok(());
        }
        self.segment
            .preallocate(writer.options.preallocate_bytes, group.tail.offset);
        writer.reached(Failpoint::BeforeWrite);
        if let Err(source) = write_full(self.segment.file.raw(), &lines, self.at.offset) {
            // If the bytes can't be cut off, the next validation finds them behind the tail, keeps
            // the records that are whole, and settles what was assigned.
            let outcome = match self.undo_write() {
                Ok(()) => {
                    slots.settle(&taken, Stage::Unwritten);
                    Outcome::Rejected
                }
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
        writer
            .require_written()
            .inspect_err(|_| slots.settle(&taken, Stage::Unknown))?;
        let own_is_eager = own.is_some() && writer.is_eager();
        let eager = taken.iter().filter(|one| one.is_eager).count() as u64;
        let rounds = Rounds::of(&self.hints);
        rounds.count_eager(eager + u64::from(own_is_eager));
        self.hints.tail_words().publish(group.tail);
        rounds.wake_gathering(&self.hints);
        writer.reached(Failpoint::TailPublished);
        slots.settle(&taken, Stage::Written);
        if !taken.is_empty() {
            writer.reached(Failpoint::SlotsWritten);
        }
        telemetry::written(group.tail.seq, lines.len());
        Ok(())
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
        // A writer that dies from here on leaves a half-changed tail: the next one rebuilds it.
        hints.tail_words().begin_change();
        if !hints.is_shared() {
            clear_page(&writer.dir)?;
        }
        let first_seq = at.seq + 1;
        let name = segment_name(first_seq);
        let file = writer.dir.create_file(&name, || writer.require_lock())?;
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

/// Records that are written at once.
struct Group {
    /// The tail behind them.
    tail: TailHint,
    durable_seq: u64,
}

impl Group {
    fn begin(tail: TailHint, durable_seq: u64) -> Self {
        Self { tail, durable_seq }
    }

    /// Adds a record to the lines, and says where it will be.
    fn push(&mut self, payload: &EncodedPayload, lines: &mut Vec<u8>) -> Place {
        let (from, tail) = (lines.len(), &mut self.tail);
        let seq = tail.seq + 1; // I4
        assert!(seq <= SEQ_MAX, "sequence numbers end at {SEQ_MAX}");
        let synced = self.durable_seq;
        payload.push_line(Header { seq, synced }, lines);
        let place = Place {
            segment: tail.segment,
            seq,
            offset: tail.offset,
        };
        *tail = TailHint {
            seq,
            last_offset: tail.offset,
            offset: tail.offset + (lines.len() - from) as u64,
            ..*tail
        };
        place
    }
}
