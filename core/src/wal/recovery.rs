//! What the holder of the lock does before anything else: make sure that the log ends where the
//! hints say, and mend it if not. What the bytes *are* is decided in `recover`, without I/O.
//!
//! | hints | the log behind the hinted tail | then |
//! | --- | --- | --- |
//! | good | nothing, or newlines | go on |
//! | good | bytes: a writer died before it published | *repair*: read from the tail on |
//! | good | shorter than the tail | *rebuild* |
//! | cut, deleted, of another boot, store or file; damaged; poisoned; half-changed | – | *rebuild*: read the last segment |
//!
//! Both keep whole records (and write them again, since a sync that failed may have left them in
//! memory only), move a torn tail to `quarantine/`, and stop at corruption without changing anything.
//! Dying at any step leaves a state that the next holder treats the same way. // I9

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{Line, RECORD_BYTES_MAX, segment_name},
        scan::{Scan, Tail},
    },
    seeded::{Bug, seeded},
    telemetry,
    wal::{
        log::{LogCore, Segment},
        shm::{Hints, TailHint},
        store_dir::{QUARANTINE, StoreFile},
    },
};

/// What was found behind the acknowledged records, and what was done about it: see [`crate::Log::recovery`].
///
/// ```
/// use std::io::Write as _;
/// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let log = Log::open(dir, Options::default().preallocate_bytes(0))?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
/// // A writer dies in the middle of a record.
/// let mut file = std::fs::OpenOptions::new().append(true).open(dir.join("log-00000000000000000001.jsonl"))?;
/// file.write_all(br#"{"crc":"#)?;
///
/// let log: Log = Log::open(dir, Options::default())?;
/// assert_eq!(log.recovery().cut_bytes, 7);
/// println!("{}", log.recovery());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The hints could not be trusted, and the last segment was read.
    pub rebuilt: bool,
    /// Whole records that a writer had written but not published; they are kept.
    pub adopted: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
    /// Where the cut bytes are kept.
    pub quarantined: Option<PathBuf>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rebuilt,
            adopted,
            cut_bytes,
            quarantined,
        } = self;
        write!(
            f,
            "{}",
            if *rebuilt {
                "read the last segment"
            } else {
                "trusted the hints"
            }
        )?;
        if *adopted > 0 {
            write!(f, ", kept {adopted} whole records that were not published")?;
        }
        if let Some(path) = quarantined {
            write!(
                f,
                ", moved {cut_bytes} bytes of a torn tail to {}",
                path.display()
            )?;
        }
        Ok(())
    }
}

/// The tail that holds, with what is needed to append to it.
pub(crate) type Settled = (Arc<Hints>, TailHint, Segment);

/// What stands behind the hinted tail.
#[derive(Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Bytes,
    /// The log is shorter than the hint, or no record ends there.
    NotATail,
}

impl LogCore {
    /// Makes sure that the log ends where the hints say. The caller holds the lock.
    pub(crate) fn tail_under_lock(&self) -> Result<Settled> {
        let mut report = Recovery::default();
        let settled = self.settle(&mut report);
        telemetry::recovered(self.dir.path(), &report, self.hints().is_shared());
        settled
    }

    /// As [`LogCore::tail_under_lock`], and reads the last record too.
    pub(crate) fn recover_on_open(&self) -> Result<Recovery> {
        let mut report = Recovery::default();
        let (hints, tail, segment) = self.settle(&mut report)?;
        if !report.rebuilt && !last_record_is(&segment, tail)? {
            self.rebuild(&hints, &mut report)?;
        }
        telemetry::recovered(self.dir.path(), &report, hints.is_shared());
        Ok(report)
    }

    fn settle(&self, report: &mut Recovery) -> Result<Settled> {
        let mut hints = self.hints();
        if hints.check().is_err() {
            hints = self.reopen_hints()?;
        }
        if !hints.is_ours() || hints.is_poisoned() {
            return self.rebuild(&hints, report);
        }
        let Some(mut tail) = hints.tail() else {
            return self.rebuild(&hints, report);
        };
        // Where no memory is shared, another process may have begun a segment since, and a repair may have
        // replaced the one that is open here.
        if !hints.is_shared() && self.dir.segments()?.last() != Some(&tail.segment) {
            return self.rebuild(&hints, report);
        }
        let opens = !self.has_open(tail.segment);
        let Some(segment) = self.segment_if_there(tail.segment)? else {
            return self.rebuild(&hints, report);
        };
        match behind(&segment, tail)? {
            Behind::NotATail => return self.rebuild(&hints, report),
            // What comes behind a damaged record is not touched.
            Behind::Bytes if !last_record_is(&segment, tail)? => {
                return self.rebuild(&hints, report);
            }
            Behind::Bytes => tail = self.repair(&hints, tail, &segment, report)?,
            Behind::Nothing => {}
        }
        if opens && hints.is_shared() {
            // A page of an earlier moment, put back while the system runs, would have records written into a
            // segment that has a successor.
            let successor = segment_name(tail.seq + 1);
            if tail.seq >= tail.segment
                && self
                    .dir
                    .open_if_there(&successor, OpenMode::Read)?
                    .is_some()
            {
                return self.rebuild(&hints, report);
            }
            // The system does not tell a file of syncs that failed before it was opened, so what is
            // not known to be durable has to be written through this one. (I7)
            let durable_seq = hints.durable_seq().unwrap_or(0);
            if let Some(from) = in_doubt_from(&segment, tail.offset, tail.seq, durable_seq)? {
                write_again(&segment, from, tail.offset)?;
            }
        }
        Ok((hints, tail, segment))
    }

    fn segment_if_there(&self, first_seq: u64) -> Result<Option<Segment>> {
        match self.segment(first_seq) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Deals with the bytes that a writer left behind the published tail.
    fn repair(
        &self,
        hints: &Hints,
        tail: TailHint,
        segment: &Segment,
        report: &mut Recovery,
    ) -> Result<TailHint> {
        self.options.reached(Failpoint::RecoveryStarted);
        let scan = scan_file(&segment.file, tail.seq + 1, tail.offset)?;
        self.act(&scan, hints.durable_seq().unwrap_or(0), segment, report)?;
        let adopted = scan.last_seq() - tail.seq;
        if adopted == 0 {
            return Ok(tail);
        }
        report.adopted += adopted;
        if hints.is_shared() {
            write_again(segment, tail.offset, scan.valid_len)?;
        }
        let tail = TailHint {
            seq: scan.last_seq(),
            last_offset: scan.last_offset,
            offset: scan.valid_len,
            ..tail
        };
        hints.publish_tail(tail);
        Ok(tail)
    }

    /// Finds the tail without the hints, makes everything through it durable, and fills the hints anew.
    fn rebuild(&self, hints: &Arc<Hints>, report: &mut Recovery) -> Result<Settled> {
        self.options.reached(Failpoint::RecoveryStarted);
        report.rebuilt = true;
        let poisoned = hints.is_ours() && hints.is_poisoned();
        let known_seq = hints.durable_seq_of_store().unwrap_or(0);
        hints.begin_change();
        *self.cached_segment() = None;
        let all = self.dir.segments()?;
        // Read after the list, so that a segment which a compaction removed is not missed.
        let live = self.manifest()?.first_seq;
        let Some(&last) = all.last().filter(|last| **last >= live) else {
            return Err(self.segment_missing(live, known_seq.max(live)));
        };
        let segment = self.segment(last)?;
        let scan = scan_file(&segment.file, last, 0)?;
        let last_seq = scan.last_seq();
        let durable_seq = known_seq.max(scan.synced_seq());
        if last > live {
            if last_seq < last {
                self.require_whole_before(&all, live, last)?;
            } else {
                self.require_ends_before(&all, last)?;
            }
        }
        self.act(&scan, known_seq, &segment, report)?;
        let synced = if seeded(Bug::NoSyncInRecovery) {
            Ok(())
        } else {
            sync_in_doubt(&segment, scan.valid_len, last_seq, durable_seq)
        };
        self.poison_unless_synced(hints, last_seq, synced)?;
        // Whoever created the segment may have died before its name was durable.
        self.dir.sync()?;
        self.options.reached(Failpoint::RecoverySynced);
        let tail = TailHint {
            segment: last,
            seq: last_seq,
            last_offset: scan.last_offset,
            offset: scan.valid_len,
        };
        hints.rebuild(tail);
        if poisoned {
            telemetry::healed(self.dir.path(), last_seq);
        }
        Ok((Arc::clone(hints), tail, segment))
    }

    /// Makes everything durable in the place of a leader that is not heard of any more. It may have seen
    /// its sync fail, and died before it told, so a sync alone would prove nothing.
    pub(crate) fn take_over_sync(&self) -> Result<()> {
        self.locked(|| {
            let (hints, tail, segment) = self.tail_under_lock()?;
            let durable_seq = hints.durable_seq().unwrap_or(0);
            let sync = telemetry::Clock::of_debug();
            let synced = sync_in_doubt(&segment, tail.offset, tail.seq, durable_seq);
            self.poison_unless_synced(&hints, tail.seq, synced)?;
            telemetry::synced(self.dir.path(), &hints, tail.seq, sync.us());
            hints.commit(tail.seq);
            Ok(())
        })
    }

    /// An empty last segment says nothing of the record before it, so its predecessor must be whole.
    fn require_whole_before(&self, all: &[u64], live: u64, last: u64) -> Result<()> {
        let Some(&previous) = all.iter().rev().find(|first| **first < last) else {
            return Err(self.segment_missing(live, last - 1));
        };
        let file = self.dir.open(&segment_name(previous), OpenMode::Read)?;
        let scan = scan_file(&file, previous, 0)?;
        if scan.next_seq > last {
            return Err(self.overlapping(scan.next_seq, last));
        }
        match scan.tail(last - 1) {
            // Behind its last record a crash may have left anything of the free space.
            Tail::Clean | Tail::Torn { .. } => Ok(()),
            Tail::Corrupt { offset, reason } => Err(Error::Corrupt {
                path: file.path().to_owned(),
                offset,
                reason,
            }),
        }
    }

    /// The last segment must not begin with a record that its predecessor has: it is another store's, or a copy, and
    /// nobody would find what is appended to it. Looks at the first and at the last line of the predecessor only.
    fn require_ends_before(&self, all: &[u64], last: u64) -> Result<()> {
        let Some(&previous) = all.iter().rev().find(|first| **first < last) else {
            return Ok(());
        };
        let name = segment_name(previous);
        let Some(file) = self.dir.open_if_there(&name, OpenMode::Read)? else {
            return Ok(()); // Compacted away since the names were listed.
        };
        let begins = first_record(&file)? == Some(previous);
        match last_record(&file)?.filter(|_| begins) {
            Some(found) if found >= last => Err(self.overlapping(found + 1, last)),
            _ => Ok(()),
        }
    }

    /// The segment `found` has a name that says that it begins with a record which stands before it.
    fn overlapping(&self, expected: u64, found: u64) -> Error {
        Error::Corrupt {
            path: self.dir.path_of(&segment_name(found)),
            offset: 0,
            reason: CorruptReason::Sequence { expected, found },
        }
    }

    fn segment_missing(&self, from_seq: u64, through_seq: u64) -> Error {
        let path = self.dir.path_of(&segment_name(from_seq));
        let reason = CorruptReason::Missing {
            from_seq,
            through_seq,
        };
        Error::Corrupt {
            path,
            offset: 0,
            reason,
        }
    }

    /// Acts on the decision: nothing, or quarantine and cut, or refuse.
    fn act(
        &self,
        scan: &Scan,
        durable_seq: u64,
        segment: &Segment,
        report: &mut Recovery,
    ) -> Result<()> {
        let tail = match scan.tail(durable_seq) {
            Tail::Corrupt { offset, .. } if seeded(Bug::CutBelowDurable) => {
                Tail::Torn { valid_len: offset }
            }
            tail => tail,
        };
        match tail {
            Tail::Clean => Ok(()),
            Tail::Corrupt { offset, reason } => Err(Error::Corrupt {
                path: segment.file.path().to_owned(),
                offset,
                reason,
            }),
            Tail::Torn { valid_len } => {
                report.cut_bytes += scan.content_len - valid_len;
                if !seeded(Bug::TornTailThrownAway) {
                    let kept = self.quarantine(segment, valid_len, scan.content_len)?;
                    report.quarantined = Some(kept);
                }
                self.options.reached(Failpoint::Quarantined);
                if seeded(Bug::TornTailStays) {
                    return Ok(());
                }
                segment.file.set_len(valid_len)?;
                self.options.reached(Failpoint::TornTailCut);
                Ok(())
            }
        }
    }

    /// Copies bytes of a segment to a file of their own, durably.
    fn quarantine(&self, segment: &Segment, from: u64, to: u64) -> Result<PathBuf> {
        let dir = self.dir.subdir(QUARANTINE);
        dir.create()?;
        let segment_name = segment_name(segment.first_seq);
        let mut copies =
            (0..).map(|number| dir.create_new(&format!("{segment_name}-{from}-{number}.torn")));
        let copy = copies.find_map(Result::transpose);
        let copy = copy.unwrap_or_else(|| unreachable!("the numbers do not end"))?;
        let torn = from..to;
        segment
            .file
            .chunks(torn, |offset, bytes| copy.write(bytes, offset - from))?;
        copy.sync()?;
        dir.sync()?;
        self.dir.sync()?;
        Ok(copy.path().to_owned())
    }
}

/// Scans a segment from a place on, where the record `first_seq` should be.
fn scan_file(file: &StoreFile, first_seq: u64, from: u64) -> Result<Scan> {
    let mut scan = Scan::new(first_seq, from);
    let mut lines = Lines::default();
    lines.restart(from);
    while let Some(span) = file.next_line(&mut lines)? {
        scan.line(lines.text(span), span.offset);
    }
    Ok(scan)
}

/// Looks at the byte before the tail and the one behind it.
fn behind(segment: &Segment, tail: TailHint) -> Result<Behind> {
    let mut bytes = [0; 2];
    let before = tail.offset.min(1);
    let window = bytes
        .get_mut(..1 + usize::from(before == 1))
        .unwrap_or_default();
    let read = segment.file.read(window, tail.offset - before)?;
    Ok(match (before, window.get(..read).unwrap_or_default()) {
        (0, [] | [b'\n']) | (1, [b'\n'] | [b'\n', b'\n']) => Behind::Nothing,
        (0, [_]) | (1, [b'\n', _]) => Behind::Bytes,
        _ => Behind::NotATail,
    })
}

/// Reads the last record: is it the one that the hints say?
fn last_record_is(segment: &Segment, tail: TailHint) -> Result<bool> {
    if tail.seq < tail.segment {
        return Ok(tail.offset == 0);
    }
    let Ok(len) = usize::try_from(tail.offset - tail.last_offset) else {
        return Ok(false);
    };
    if len > RECORD_BYTES_MAX {
        return Ok(false);
    }
    let mut line = vec![0; len];
    let read = segment.file.read(&mut line, tail.last_offset)?;
    let text = line.get(..read).and_then(|line| line.strip_suffix(b"\n"));
    Ok(text
        .and_then(|text| Line::parse(text).ok())
        .is_some_and(|line| line.header.seq == tail.seq))
}

/// The number of the record that a segment begins with; `None` where its first line is none.
fn first_record(file: &StoreFile) -> Result<Option<u64>> {
    let mut lines = Lines::default();
    lines.restart(0);
    let Some(span) = file.next_line(&mut lines)? else {
        return Ok(None);
    };
    let text = lines.text(span).strip_suffix(b"\n");
    Ok(text
        .and_then(|text| Line::parse(text).ok())
        .map(|line| line.header.seq))
}

/// The number of the record that a segment ends with; `None` where its last line is none. Reads backwards.
fn last_record(file: &StoreFile) -> Result<Option<u64>> {
    let mut end = file.len_bytes()?;
    // What was read of the last line.
    let mut line = Vec::new();
    loop {
        let from = end.saturating_sub(64 << 10);
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
        let read = file.read(&mut bytes, from)?;
        bytes.truncate(read);
        if line.is_empty() {
            let content = bytes.iter().rposition(|byte| *byte != b'\n');
            bytes.truncate(content.map_or(0, |last| last + 1)); // Without the free space.
        }
        bytes.append(&mut line);
        let start = memchr::memrchr(b'\n', &bytes).map(|newline| newline + 1);
        if start.is_some() || from == 0 || bytes.len() > RECORD_BYTES_MAX {
            let text = bytes.get(start.unwrap_or(0)..).unwrap_or_default();
            return Ok(Line::parse(text).ok().map(|line| line.header.seq));
        }
        (end, line) = (from, bytes);
    }
}

/// Where the records above the watermark begin, in a segment whose good records end at `end`.
///
/// They are few, so this reads backwards, in growing steps. `None` when there are none.
fn in_doubt_from(
    segment: &Segment,
    end: u64,
    last_seq: u64,
    durable_seq: u64,
) -> Result<Option<u64>> {
    if durable_seq >= last_seq {
        return Ok(None);
    }
    let mut window = 64 << 10;
    loop {
        let from = end.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(usize::MAX)];
        segment.file.read(&mut bytes, from)?;
        // The first line of a window that begins within the file is only the end of one.
        let mut offset = from;
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let whole = number > 0 || from == 0;
            let seq = Line::trusted(text)
                .filter(|_| whole)
                .map(|line| line.header.seq);
            match seq {
                Some(seq) if seq == durable_seq + 1 => return Ok(Some(offset)),
                Some(seq) if seq > durable_seq + 1 && from > 0 => break,
                _ => offset += line.len() as u64,
            }
        }
        if from == 0 {
            return Ok(Some(0)); // All of this segment is doubtful.
        }
        window *= 8;
    }
}

/// Writes the records above the watermark again, and syncs.
pub(crate) fn sync_in_doubt(
    segment: &Segment,
    end: u64,
    last_seq: u64,
    durable_seq: u64,
) -> Result<()> {
    if let Some(from) = in_doubt_from(segment, end, last_seq, durable_seq)? {
        write_again(segment, from, end)?;
    }
    segment.file.sync()
}

/// Writes bytes of the log again as they are. After a failed sync the system may take pages for
/// clean that never reached the disk; only what is written again is synced again.
fn write_again(segment: &Segment, from: u64, to: u64) -> Result<()> {
    let file = &segment.file;
    file.chunks(from..to, |offset, bytes| file.write(bytes, offset))
}
