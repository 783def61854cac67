use std::marker::PhantomData;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result, json_problem},
    format::{
        lines::{Lines, Span},
        payload::Payload,
        record::{Body, END_MARK, Line, Reflects, segment_name},
        scan::{Scan, Tail},
        seq::Seq,
    },
    wal::{
        durable::{DurableWatch, End},
        manifest::{Manifest, SnapshotFile},
        store_dir::{StoreDir, StoreFile},
    },
};

/// A record of the log: from [`crate::Reader::records`], [`crate::Log::records`] or a
/// [`crate::Follower`].
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
/// let record = log.records()?.next().expect("there is one")?;
/// assert_eq!((record.seq.get(), record.events.len()), (1, 1));
/// assert_eq!((record.batch, record.offset), (false, 0));
/// assert!(record.line.ends_with(b"}"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<P> {
    /// Its number: from 1, without gaps.
    pub seq: Seq,
    /// Its events: one, or any number in a batch.
    pub events: Vec<P>,
    /// Whether it is a batch, as [`crate::Log::append_batch`] writes.
    pub batch: bool,
    /// Its bytes as stored, without the newline.
    pub line: Vec<u8>,
    /// The offset of its line in its segment, in bytes.
    pub offset: u64,
}

/// The records of a log, in order.
pub(crate) struct Records<P> {
    raw: RawRecords,
    scratch: Vec<u8>,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> Records<P> {
    pub(crate) fn new(raw: RawRecords) -> Self {
        Self {
            raw,
            scratch: Vec::new(),
            payload: PhantomData,
        }
    }
}

impl<P: Payload> Iterator for Records<P> {
    type Item = Result<Record<P>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.raw.next_decoded(&mut self.scratch).transpose()
    }
}

impl Body<'_> {
    /// The events of a record whose checksum is right.
    pub(crate) fn decode<P: Payload>(
        self,
        scratch: &mut Vec<u8>,
    ) -> std::result::Result<Vec<P>, CorruptReason> {
        let payload = |message: String| CorruptReason::Payload { message };
        let text = match self {
            Self::One(members) => {
                let plain = std::str::from_utf8(members).ok().and_then(P::of_members);
                if let Some(event) = plain {
                    return Ok(vec![event]);
                }
                scratch.clear();
                scratch.push(b'{');
                scratch.extend_from_slice(members);
                scratch
            }
            Self::Batch(array) => array,
        };
        // Validated once as a whole: faster than string by string.
        let text = std::str::from_utf8(text).map_err(|error| payload(error.to_string()))?;
        let events = match self {
            Self::One(_) => serde_json::from_str(text).map(|event| vec![event]),
            Self::Batch(_) => serde_json::from_str(text),
        };
        events.map_err(|error| payload(json_problem(&error)))
    }
}

/// A record whose checksum is right, in the buffer of its iterator.
#[derive(Debug)]
pub(crate) struct RawRecord<'a> {
    pub(crate) line: Line<'a>,
    pub(crate) text: &'a [u8],
    /// The first record of the segment that has it.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// See [`RawRecords::has_reopened`].
    pub(crate) reopened: bool,
}

/// Iterates over the lines of a log through its segments; checks them, but does not decode them.
#[derive(Debug)]
pub(crate) struct RawRecords {
    dir: StoreDir,
    segment: Option<OpenSegment>,
    lines: Lines,
    /// Where the last record of the open segment ends.
    valid_len: u64,
    next_seq: u64,
    /// Records before this one are skipped.
    from_seq: u64,
    /// Records before this one are compacted away, whatever is left of their segments.
    live_seq: u64,
    end: End,
    done: bool,
    /// The records for which the files were reopened, so that this happens once for each cause.
    reopened_for: [u64; 2],
    /// See [`RawRecords::has_reopened`].
    reopened: bool,
    /// May find out where [`End::Unknown`] is.
    watch: Option<DurableWatch>,
    /// How often `lines` had read when `watch` was asked last.
    asked_after: u64,
    /// How often `lines` had read when the open segment was last seen to have its name.
    named_after: u64,
    /// Of the directory, when the open segment had its name.
    stamp: Option<u64>,
}

/// Why the files are opened again.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Damage,
    Replacement,
}

#[derive(Debug)]
struct OpenSegment {
    first_seq: u64,
    file: StoreFile,
}

impl RawRecords {
    /// The records from `first_seq` on, the first of a segment.
    pub(crate) fn new(dir: &StoreDir, first_seq: u64, end: End) -> Self {
        let mut records = Self {
            dir: dir.clone(),
            segment: None,
            lines: Lines::default(),
            valid_len: 0,
            next_seq: first_seq,
            from_seq: first_seq,
            live_seq: 0,
            end,
            done: false,
            reopened_for: [0; 2],
            reopened: false,
            watch: None,
            asked_after: 0,
            named_after: 0,
            stamp: None,
        };
        records.resume(end);
        records
    }

    /// The records from `seq` on, which begins at this offset of the segment `first_seq`. The
    /// records before it are neither read nor checked. `None` where there is no such segment.
    pub(crate) fn at(
        dir: &StoreDir,
        first_seq: u64,
        offset: u64,
        seq: u64,
        end: End,
    ) -> Result<Option<Self>> {
        let name = segment_name(first_seq);
        let Some(file) = dir.open_if_there(&name, OpenMode::Read)? else {
            return Ok(None);
        };
        let mut records = Self::new(dir, seq, end);
        records.segment = Some(OpenSegment { first_seq, file });
        records.valid_len = offset;
        records.lines.restart(offset);
        Ok(Some(records))
    }

    /// The records from `from_seq` on, anywhere in a segment.
    pub(crate) fn from(dir: &StoreDir, from_seq: u64, end: End) -> Result<Self> {
        let from_seq = from_seq.max(1);
        let mut records = Self::in_segment_of(dir, from_seq, end)?;
        // Without a known end, the whole segment has to be checked.
        if let End::Seq(through_seq) = end {
            // Not beyond the end, where the iteration stops.
            let near = from_seq.min(through_seq);
            if records.next_seq < near {
                match records.open_next_segment() {
                    Ok(true) => records.seek(near)?,
                    // The first call says so, as it does if the compaction comes later.
                    Ok(false) | Err(Error::Compacted { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(records)
    }

    /// As [`RawRecords::from`], but checks all records before that one in its segment.
    fn in_segment_of(dir: &StoreDir, from_seq: u64, end: End) -> Result<Self> {
        let live = Manifest::required(dir)?.first_seq;
        let all = dir.segments()?;
        let before = all
            .into_iter()
            .rfind(|first| (live..=from_seq).contains(first));
        // If there is none, nothing is found there either, and the manifest says why.
        let mut records = Self::new(dir, before.unwrap_or(from_seq), end);
        records.from_seq = from_seq;
        records.live_seq = live;
        Ok(records)
    }

    /// Moves to shortly before a record of the open segment by binary search, without reading or
    /// checking all records before it. Stays at the beginning if it finds none.
    fn seek(&mut self, seq: u64) -> Result<()> {
        /// So much is read at once anyway.
        const NEAR_BYTES: u64 = 16 << 10;
        let Some(OpenSegment { file, .. }) = &self.segment else {
            return Ok(());
        };
        let (mut low, mut high) = (0, file.len_bytes()?);
        while high - low > NEAR_BYTES {
            let middle = low + (high - low) / 2;
            // The first line that begins behind the middle.
            self.lines.restart(middle);
            let mut line = file.next_line(&mut self.lines)?;
            if line.is_some() {
                line = file.next_line(&mut self.lines)?;
            }
            let found = line.and_then(|span| {
                let text = self.lines.text(span).strip_suffix(b"\n")?;
                let line = Line::parse(text).ok()?;
                Some((span.offset, line.header.seq))
            });
            match found {
                Some((offset, first)) if first <= seq && offset < high => {
                    (low, self.valid_len, self.next_seq) = (offset, offset, first);
                }
                _ => high = middle,
            }
        }
        self.lines.restart(self.valid_len);
        Ok(())
    }

    /// Continues behind the last record, to another end.
    pub(crate) fn resume(&mut self, end: End) {
        self.end = end;
        self.done = matches!(end, End::Seq(seq) if seq < self.next_seq);
        self.reopened_for = [0; 2];
        self.lines.restart(self.valid_len);
    }

    /// Whether it has gone on in other files of the same names than it began in. What was read in
    /// those may be elsewhere in these, and others may write to those.
    pub(crate) fn has_reopened(&self) -> bool {
        self.reopened
    }

    /// The number of the record that [`RawRecords::next`] returns next.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq.max(self.from_seq)
    }

    /// The next record; `None` at the end and after an error.
    pub(crate) fn next(&mut self) -> Result<Option<RawRecord<'_>>> {
        let span = loop {
            let Some(span) = self.step()? else {
                return Ok(None);
            };
            if self.next_seq > self.from_seq {
                break span;
            }
        };
        let text = self.lines.text(span);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let segment = self.segment.as_ref().map_or(0, |open| open.first_seq);
        // Checked by `advance`. Parsing it again is cheap.
        match Line::trusted(text) {
            Some(line) => Ok(Some(RawRecord {
                line,
                text,
                segment,
                offset: span.offset,
                reopened: self.reopened,
            })),
            None => Err(self.corrupt(span.offset, CorruptReason::NotARecord)),
        }
    }

    /// Moves over one record, unless the end is reached.
    fn step(&mut self) -> Result<Option<Span>> {
        if self.done {
            return Ok(None);
        }
        let found = self.find();
        // Only here, so that whatever fails leaves the place and the number as they were.
        if let Ok(Some(span)) = found {
            self.done = self.end == End::Seq(self.next_seq);
            self.valid_len = span.end();
            self.next_seq += 1;
        } else {
            self.done = true;
        }
        found
    }

    /// The line of the record `next_seq`, if it may be seen; in the file that has the name.
    fn find(&mut self) -> Result<Option<Span>> {
        let found = loop {
            let found = self.advance();
            let cause = match (&found, self.end) {
                (Err(Error::Corrupt { .. }), _) => Some(Cause::Damage),
                // Where the end is unknown, nothing else shows that the log goes on in another
                // file.
                (Ok(None), End::LastValid(_) | End::Unknown(_)) => self.replacement()?,
                // Whoever held a lock that was removed may write to a file without a name.
                (Ok(Some(_)), _) if self.named_after != self.lines.reads() => {
                    self.named_after = self.lines.reads();
                    self.replacement()?
                }
                _ => None,
            };
            // The file that was opened just now may have lost its name by then, too.
            match cause {
                Some(cause) if self.reopen(cause)? => {}
                _ => break found,
            }
        };
        if let Ok(Some(span)) = found
            && matches!(self.end, End::Unknown(_))
        {
            return Ok(self.may_be_seen()?.then_some(span));
        }
        found
    }

    /// Whether the reader may see the record that was found. Writers publish how far the log is
    /// durable before they append: bytes that were read before that were there before them. // I6
    fn may_be_seen(&mut self) -> Result<bool> {
        if self.asked_after == self.lines.reads() {
            return Ok(true);
        }
        self.asked_after = self.lines.reads();
        if self.watch.is_none() {
            let store = Manifest::required(&self.dir)?.store;
            self.watch = Some(DurableWatch::open(&self.dir, &store));
        }
        let Some(seq) = self.watch.as_mut().and_then(DurableWatch::durable_seq) else {
            return Ok(true);
        };
        self.end = End::Seq(seq);
        Ok(self.next_seq <= seq)
    }

    /// Whether the open segment is not the file that has its name now. Costs one system call while
    /// no name in the directory changes.
    fn replacement(&mut self) -> Result<Option<Cause>> {
        let Some(OpenSegment { first_seq, file }) = &self.segment else {
            return Ok(None);
        };
        // Before the name: a change behind this gives another stamp.
        let stamp = self.dir.stamp()?;
        if stamp.is_some() && stamp == self.stamp {
            return Ok(None);
        }
        let named = self.dir.identity_of(&segment_name(*first_seq))?;
        if named.is_some() && named != Some(file.identity()?) {
            return Ok(Some(Cause::Replacement));
        }
        self.stamp = stamp;
        Ok(None)
    }

    /// Looks for the next record in the files as they are now. A repair may have replaced the open
    /// one, or a writer was writing the record when its bytes were read. The proof that it was
    /// durable was read later, so it is whole now if it ever was. False if this was tried already.
    fn reopen(&mut self, cause: Cause) -> Result<bool> {
        let wanted = self.next_seq();
        let mut reopened_for = self.reopened_for;
        let tried = reopened_for.get_mut(cause as usize);
        if tried.map(|tried| std::mem::replace(tried, wanted)) == Some(wanted) {
            return Ok(false);
        }
        // Not by binary search, which would skip the damage.
        *self = Self {
            reopened_for,
            reopened: true,
            ..Self::in_segment_of(&self.dir, wanted, self.end)?
        };
        Ok(true)
    }

    /// The next record with its events; `None` at the end and after an error.
    pub(crate) fn next_decoded<P: Payload>(
        &mut self,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Record<P>>> {
        let Some(raw) = self.next()? else {
            return Ok(None);
        };
        let (seq, offset) = (raw.line.header.seq, raw.offset);
        let batch = matches!(raw.line.body, Body::Batch(_));
        let record = raw.line.body.decode(scratch).map(|events| Record {
            seq: Seq::new(seq),
            events,
            batch,
            line: raw.text.to_owned(),
            offset,
        });
        record
            .map(Some)
            .map_err(|reason| self.refuse(seq, offset, reason))
    }

    /// Ends the iteration before a record that could not be decoded. Resuming returns to it. // I10
    pub(crate) fn refuse(&mut self, seq: u64, offset: u64, reason: CorruptReason) -> Error {
        (self.done, self.next_seq, self.valid_len) = (true, seq, offset);
        self.corrupt(offset, reason)
    }

    /// Reads on to the line of the record `next_seq`, and checks it.
    fn advance(&mut self) -> Result<Option<Span>> {
        if self.next_seq() < self.live_seq {
            return Err(self.compacted(self.live_seq - 1));
        }
        loop {
            let Some(segment) = &self.segment else {
                if !self.open_next_segment()? {
                    return Ok(None);
                }
                continue;
            };
            let Some(span) = segment.file.next_line(&mut self.lines)? else {
                if !self.open_next_segment()? {
                    return Ok(None);
                }
                continue;
            };
            let text = self.lines.text(span);
            if text == END_MARK {
                if self.open_next_segment()? {
                    continue;
                }
                let from_seq = self.next_seq;
                let reason = CorruptReason::Missing {
                    from_seq,
                    through_seq: self.end.durable_seq().max(from_seq),
                };
                return Err(self.corrupt(self.valid_len, reason));
            }
            let expected = self.next_seq;
            let parsed = text
                .strip_suffix(b"\n")
                .ok_or(CorruptReason::Unterminated)
                .and_then(Line::parse);
            let reason = match parsed.map(|line| line.header.seq) {
                Ok(seq) if seq == expected => return Ok(Some(span)),
                Ok(found) => CorruptReason::Sequence { expected, found },
                Err(reason) => reason,
            };
            if self.has_successor()? && self.open_next_segment()? {
                continue;
            }
            return match self.end {
                End::Seq(_) => Err(self.corrupt(self.valid_len, reason)),
                End::LastValid(_) | End::Unknown(_) => self.judge(span).map(|()| None),
            };
        }
    }

    /// Opens the segment that begins with `next_seq`; false if the log ends here.
    fn open_next_segment(&mut self) -> Result<bool> {
        let first_seq = self.next_seq;
        let name = segment_name(first_seq);
        let is_open = |open: &OpenSegment| open.first_seq == first_seq;
        if !self.segment.as_ref().is_some_and(is_open) {
            if let Some(file) = self.dir.open_if_there(&name, OpenMode::Read)? {
                // It is of the store that was opened, if that is here now.
                Manifest::required(&self.dir)?;
                self.lines.restart(0);
                self.valid_len = 0;
                (self.segment, self.stamp) = (Some(OpenSegment { first_seq, file }), None);
                return Ok(true);
            }
            let live = Manifest::required(&self.dir)?.first_seq;
            if live > self.from_seq.max(first_seq) {
                return Err(self.compacted(live - 1));
            }
            if live > first_seq {
                (self.next_seq, self.segment) = (live, None);
                return Ok(true);
            }
        }
        let durable_seq = self.end.durable_seq();
        let all = self.dir.segments()?;
        let later = all.into_iter().find(|first| *first > first_seq);
        let through_seq = later.map_or(durable_seq, |later| durable_seq.max(later - 1));
        // There is always a first segment.
        if through_seq < first_seq && self.segment.is_some() {
            return Ok(false);
        }
        let reason = CorruptReason::Missing {
            from_seq: first_seq,
            through_seq: through_seq.max(first_seq),
        };
        if later.is_none() && self.segment.is_some() {
            return Err(self.corrupt(self.valid_len, reason)); // The last one ends too early.
        }
        Err(Error::Corrupt {
            path: self.dir.path_of(&name),
            offset: 0,
            reason,
        })
    }

    /// The error for a next record that is compacted away.
    fn compacted(&self, snapshot_seq: u64) -> Error {
        let now = Manifest::read(&self.dir).ok().flatten();
        let files = now.map(|manifest| manifest.files()).unwrap_or_default();
        let mut files = files.iter().map(SnapshotFile::reflects);
        let file = files.find(|file| file.through == snapshot_seq);
        let name = file.unwrap_or(Reflects::all(snapshot_seq)).name();
        Error::Compacted {
            from_seq: self.next_seq(),
            snapshot_seq,
            snapshot: self.dir.path_of(&name),
        }
    }

    /// Judges a bad line where the end of the log is unknown: a torn tail ends it, anything else is
    /// an error.
    fn judge(&mut self, bad: Span) -> Result<()> {
        let all = self.dir.segments()?;
        let Some(OpenSegment { file, .. }) = &self.segment else {
            return Ok(());
        };
        let mut scan = Scan::new(self.next_seq, self.valid_len);
        let mut next = Some(bad);
        while let Some(line) = next {
            scan.line(self.lines.text(line), line.offset);
            next = file.next_line(&mut self.lines)?;
        }
        // A later segment begins only after all of this one is durable.
        let later = all.into_iter().find(|first| *first > self.next_seq);
        let durable_seq = self.end.durable_seq();
        let tail = match later {
            Some(first) => scan.tail_before_successor(durable_seq.max(first - 1)),
            None => scan.tail(durable_seq),
        };
        match tail {
            Tail::Corrupt { offset, reason } => Err(self.corrupt(offset, reason)),
            Tail::Clean | Tail::Torn { .. } => Ok(()),
        }
    }

    /// Whether a segment begins with the next record. Then the open one is complete, and the bytes
    /// behind its records are free space, of which a crash may have left anything.
    fn has_successor(&self) -> Result<bool> {
        let is_open = |open: &OpenSegment| open.first_seq == self.next_seq;
        if self.segment.as_ref().is_none_or(is_open) {
            return Ok(false);
        }
        let all = self.dir.segments()?;
        Ok(all.contains(&self.next_seq))
    }

    fn corrupt(&self, offset: u64, reason: CorruptReason) -> Error {
        let segment = self.segment.as_ref();
        let path = segment.map_or(self.dir.path(), |segment| segment.file.path());
        Error::Corrupt {
            path: path.to_owned(),
            offset,
            reason,
        }
    }
}
