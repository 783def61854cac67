//! Recovery: validates the tail of the log under the lock, before every append.
//!
//! The hints say where the log ends. Usually the log agrees. Otherwise a writer died, the system
//! failed, or a file was changed by other means, and recovery finds the tail in the log itself. The
//! table in [`next`] decides what to do from what was found, without I/O.
//!
//! Both ways to recover (*repair* from the hinted tail on, *rebuild* from the last segment) keep
//! whole records, move a torn tail to `quarantine/`, and stop at corruption without changing
//! anything. They rewrite the records that they keep, since a sync that failed may have left them
//! in memory only. A recovery that dies at any step leaves a state that the next one treats alike.
//! // I9

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    env::{failpoint::Failpoint, storage::OpenMode},
    error::{CorruptReason, Error, Result},
    format::{
        record::{EncodedPayload, Line, segment_name},
        scan::{Scan, Tail},
        search,
    },
    telemetry,
    wal::{
        segment::{Behind, Segment},
        shm::{Hints, TailHint},
        slots::{Place, Slots},
        store_dir::QUARANTINE,
        writer::{Locked, Writer, page_error, retry_replaced},
    },
};

/// The result of a recovery, from [`crate::Log::recovery`].
///
/// ```
/// use std::io::Write as _;
/// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let log = Log::open(dir, Options::default().preallocate_bytes(0))?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
/// // A writer dies in the middle of a record.
/// let path = dir.join("log-00000000000000000001.jsonl");
/// let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
/// file.write_all(br#"{"crc":"#)?;
///
/// let log = Log::<IssueEvent>::open(dir, Options::default())?;
/// assert_eq!(log.recovery().cut_bytes, 7);
/// println!("{}", log.recovery());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The hints could not be trusted, and the last segment was read.
    pub rebuilt: bool,
    /// How many whole records a writer had written but not published. They are kept.
    pub adopted: u64,
    /// How many bytes of a torn tail were cut off.
    pub cut_bytes: u64,
    /// The file in quarantine that has these bytes.
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
        f.write_str(if *rebuilt {
            "read the last segment"
        } else {
            "trusted the hints"
        })?;
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

/// The page of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HintsFound {
    Good,
    /// Empty, damaged, or of another boot, store or file.
    Foreign,
    /// A sync failed, and the records that it covers are in doubt.
    Poisoned,
    /// A writer died while it changed the tail, or the tail makes no sense.
    HalfChanged,
}

/// The segment that the hints name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentFound {
    Unopened,
    /// This process had it open already.
    Open,
    /// It was opened just now. The system may not report to it that an earlier sync failed, so the
    /// records in doubt must be rewritten before a sync proves anything. // I7
    Opened,
    /// It is not there, or not the last one.
    Missing,
}

/// The last record before the hinted tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordFound {
    /// An append reads it only if there are bytes behind it.
    Unneeded,
    Unread,
    AsHinted,
    Other,
}

/// A segment that begins with the record behind the tail. Then the page is of an earlier moment,
/// and was put back while the system runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SuccessorFound {
    Unsought,
    Absent,
    Present,
}

/// All that was found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    hints: HintsFound,
    segment: SegmentFound,
    /// `None` until it was looked at.
    behind: Option<Behind>,
    record: RecordFound,
    successor: SuccessorFound,
}

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    OpenSegment,
    LookBehindTail,
    ReadLastRecord,
    SeekSuccessor,
    /// Keep or cut what is behind the tail. Afterwards nothing is.
    Repair,
    /// Find the tail without the hints, and fill them anew.
    Rebuild,
    /// Rewrite the records in doubt. Afterwards the segment is as good as one that was open.
    Rewrite,
    /// Nothing: the tail is valid.
    Accept,
}

/// Makes the function `next` of rows, and for a test the list of the rows that fit.
macro_rules! table {
    ($($row:literal: $($pattern:pat),+ => $next:ident;)+) => {
        /// Decides from what was found. For each combination there is exactly one row.
        fn next(found: Found) -> Next {
            let Found { hints, segment, behind, record, successor } = found;
            match (hints, segment, behind, record, successor) {
                $(($($pattern),+) => Next::$next,)+
            }
        }

        #[cfg(test)]
        fn rows_that_fit(found: Found) -> Vec<u32> {
            let Found { hints, segment, behind, record, successor } = found;
            let found = (hints, segment, behind, record, successor);
            let rows = [$(($row, matches!(found, ($($pattern),+)))),+];
            rows.into_iter().filter(|(_, fits)| *fits).map(|(row, _)| row).collect()
        }
    };
}

use Behind::{Bytes, NotATail, Nothing};
use HintsFound::{Foreign, Good, HalfChanged, Poisoned};
use RecordFound::{AsHinted, Other, Unneeded, Unread};
use SegmentFound::{Missing, Open, Opened, Unopened};
use SuccessorFound::{Absent, Present, Unsought};

#[rustfmt::skip]
table! {
//      hints        segment        behind the tail last record          successor
    1:  Foreign,     _,             _,              _,                   _         => Rebuild;
    2:  Poisoned,    _,             _,              _,                   _         => Rebuild;
    3:  HalfChanged, _,             _,              _,                   _         => Rebuild;
    4:  Good,        Unopened,      _,              _,                   _         => OpenSegment;
    5:  Good,        Missing,       _,              _,                   _         => Rebuild;
    6:  Good,        Open | Opened, None,           _,                   _         => LookBehindTail;
    7:  Good,        Open | Opened, Some(NotATail), _,                   _         => Rebuild;
    8:  Good,        Open | Opened, Some(Bytes),    Unneeded | Unread,   _         => ReadLastRecord;
    9:  Good,        Open | Opened, Some(Bytes),    Other,               _         => Rebuild;
    10: Good,        Open | Opened, Some(Bytes),    AsHinted,            _         => Repair;
    11: Good,        Open | Opened, Some(Nothing),  Unread,              _         => ReadLastRecord;
    12: Good,        Open | Opened, Some(Nothing),  Other,               _         => Rebuild;
    13: Good,        Open,          Some(Nothing),  Unneeded | AsHinted, _         => Accept;
    14: Good,        Opened,        Some(Nothing),  Unneeded | AsHinted, Unsought  => SeekSuccessor;
    15: Good,        Opened,        Some(Nothing),  Unneeded | AsHinted, Present   => Rebuild;
    16: Good,        Opened,        Some(Nothing),  Unneeded | AsHinted, Absent    => Rewrite;
}

impl Locked<'_> {
    /// Validates the tail before an append.
    pub(crate) fn validate_tail(&self) -> Result<ValidTail<'_>> {
        let mut validation = Validation::new(self.writer);
        let tail = validation.run(Unneeded);
        validation.tell(&self.writer.hints());
        tail
    }

    /// Validates the tail when a store is opened: reads the last record too.
    pub(crate) fn validate_on_open(&self) -> Result<Recovery> {
        let mut validation = Validation::new(self.writer);
        let tail = validation.run(Unread)?;
        validation.tell(&tail.hints);
        Ok(validation.report)
    }
}

impl Writer {
    /// Takes the lock, validates the tail, and frees the lock: for a thread that can't trust the
    /// hints. Where they are rebuilt, all of the log is durable afterwards.
    pub(crate) fn validated_hints(&self) -> Result<Arc<Hints>> {
        self.at_valid_tail(|tail| Ok(Arc::clone(&tail.hints)))
    }

    /// Calls `act` under the lock. Again, if a file is replaced in that moment.
    pub(crate) fn at_valid_tail<T>(
        &self,
        mut act: impl FnMut(&ValidTail<'_>) -> Result<T>,
    ) -> Result<T> {
        let once = || {
            let locked = self.lock()?;
            let done = act(&locked.validate_tail()?)?;
            locked.unlock()?;
            Ok(done)
        };
        retry_replaced(once, Error::is_displacement)
    }
}

/// The valid tail of the log, for as long as the lock is held.
pub(crate) struct ValidTail<'l> {
    pub(crate) writer: &'l Writer,
    pub(crate) hints: Arc<Hints>,
    pub(crate) at: TailHint,
    pub(crate) segment: Arc<Segment>,
}

impl ValidTail<'_> {
    /// Settles what a holder of the lock that died left assigned in slots. So it is done before
    /// anything is appended.
    fn settle_slots(&self) -> Result<()> {
        Slots::of(&self.hints).resolve(|place, payload| self.has(place, payload))
    }

    /// Whether this record is in the log there; `None` if the segment is gone.
    pub(crate) fn has(&self, place: Place, payload: &EncodedPayload) -> Result<Option<bool>> {
        if place.seq > self.at.seq {
            return Ok(Some(false));
        }
        let other = if place.segment == self.segment.first_seq {
            None
        } else {
            let name = segment_name(place.segment);
            let Some(file) = self.writer.dir.open_if_there(&name, OpenMode::Read)? else {
                return Ok(None);
            };
            Some(file)
        };
        let file = other.as_ref().unwrap_or(&self.segment.file);
        let mut line = vec![0; payload.line_bytes_max()];
        let read = file.read(&mut line, place.offset)?;
        let text = line.get(..read).unwrap_or_default();
        let found = search::byte(b'\n', text).and_then(|end| text.get(..=end));
        let header = found.and_then(|line| Line::parse(line.strip_suffix(b"\n")?).ok());
        let Some(header) = header
            .map(|line| line.header)
            .filter(|found| found.seq == place.seq)
        else {
            return Ok(Some(false));
        };
        let mut written = Vec::new();
        payload.write_line(header, &mut written);
        Ok(Some(found == Some(written.as_slice())))
    }
}

/// One validation, and what it did.
struct Validation<'l> {
    writer: &'l Writer,
    report: Recovery,
}

impl<'l> Validation<'l> {
    fn new(writer: &'l Writer) -> Self {
        let report = Recovery::default();
        Self { writer, report }
    }

    /// Emits events about what was done, if anything was.
    fn tell(&self, hints: &Hints) {
        let Recovery {
            rebuilt,
            adopted,
            cut_bytes,
            quarantined,
        } = &self.report;
        let dir = self.writer.dir.path();
        if let Some(kept) = quarantined {
            telemetry::torn_tail_cut(dir, *cut_bytes, kept);
        }
        if *rebuilt || *adopted > 0 {
            telemetry::recovered(dir, *rebuilt, *adopted, hints.is_shared());
        }
    }

    /// Does what [`next`] says until the tail is valid.
    fn run(&mut self, record: RecordFound) -> Result<ValidTail<'l>> {
        self.validate(record).or_else(|error| {
            // The holder of another lock may have changed one file between two that were read.
            self.writer.require_lock()?;
            Err(error)
        })
    }

    fn validate(&mut self, record: RecordFound) -> Result<ValidTail<'l>> {
        let hints = self.writer.shm.touched().map_err(page_error)?;
        let tail = hints.tail_words().read();
        let mut found = Found {
            hints: match tail {
                _ if !hints.is_ours() => Foreign,
                _ if hints.is_poisoned() => Poisoned,
                None => HalfChanged,
                Some(_) => Good,
            },
            segment: Unopened,
            behind: None,
            record,
            successor: Unsought,
        };
        let mut at = tail.unwrap_or_default();
        let mut segment = None;
        loop {
            match (next(found), &segment) {
                (Next::Rebuild, _) => return self.rebuild(hints),
                (Next::OpenSegment, _) => {
                    (found.segment, segment) = self.open_segment(&hints, at.segment)?;
                    // What is opened behind this is the work of another lock's holder.
                    if found.segment == Opened {
                        self.writer.require_lock()?;
                    }
                }
                (Next::LookBehindTail, Some(segment)) => found.behind = Some(segment.behind(at)?),
                (Next::ReadLastRecord, Some(segment)) => {
                    found.record = if segment.ends_with(at)? {
                        AsHinted
                    } else {
                        Other
                    };
                }
                (Next::SeekSuccessor, Some(_)) => found.successor = self.seek_successor(at)?,
                (Next::Repair, Some(segment)) => {
                    at = self.repair(&hints, at, segment)?;
                    found.behind = Some(Nothing);
                }
                (Next::Rewrite, Some(segment)) => {
                    segment.rewrite_in_doubt(at, hints.durable_seq().unwrap_or(0))?;
                    found.segment = Open;
                }
                (Next::Accept, Some(segment)) => {
                    hints.vouch();
                    let (writer, segment) = (self.writer, Arc::clone(segment));
                    let tail = ValidTail {
                        writer,
                        hints,
                        at,
                        segment,
                    };
                    tail.settle_slots()?;
                    return Ok(tail);
                }
                (_, None) => unreachable!("the segment is opened before it is used"),
            }
        }
    }

    fn open_segment(
        &self,
        hints: &Hints,
        first_seq: u64,
    ) -> Result<(SegmentFound, Option<Arc<Segment>>)> {
        // Where no memory is shared, another process may have begun a segment since, and a repair
        // may have replaced the one that is open here.
        if !hints.is_shared() && self.writer.dir.segments()?.last() != Some(&first_seq) {
            return Ok((Missing, None));
        }
        if let Some(segment) = self.writer.segment.get(first_seq) {
            return Ok((Open, Some(segment)));
        }
        Ok(match self.writer.segment.open(first_seq)? {
            None => (Missing, None),
            segment => (Opened, segment),
        })
    }

    fn seek_successor(&self, tail: TailHint) -> Result<SuccessorFound> {
        let name = segment_name(tail.seq + 1);
        let is_other = tail.seq >= tail.segment;
        let file = is_other.then(|| self.writer.dir.open_if_there(&name, OpenMode::Read));
        Ok(match file.transpose()?.flatten() {
            Some(_) => Present,
            None => Absent,
        })
    }

    /// Deals with the bytes that a writer left behind the published tail.
    fn repair(&mut self, hints: &Hints, tail: TailHint, segment: &Segment) -> Result<TailHint> {
        self.writer.reached(Failpoint::RecoveryStarted);
        let scan = segment.scan(tail.seq + 1, tail.offset)?;
        self.act(&scan, hints.durable_seq().unwrap_or(0), segment)?;
        let adopted = scan.last_seq() - tail.seq;
        if adopted == 0 {
            return Ok(tail);
        }
        self.report.adopted += adopted;
        if hints.is_shared() {
            segment.rewrite(tail.offset, scan.valid_len)?;
        }
        let tail = TailHint {
            seq: scan.last_seq(),
            last_offset: scan.last_offset,
            offset: scan.valid_len,
            ..tail
        };
        hints.tail_words().publish(tail);
        Ok(tail)
    }

    /// Finds the tail without the hints, makes everything through it durable, and fills the hints
    /// anew.
    fn rebuild(&mut self, hints: Arc<Hints>) -> Result<ValidTail<'l>> {
        let writer = self.writer;
        writer.reached(Failpoint::RecoveryStarted);
        self.report.rebuilt = true;
        let poisoned = hints.is_ours() && hints.is_poisoned();
        let durable_seq = hints.durable_seq_of_store().unwrap_or(0);
        hints.tail_words().begin_change();
        writer.segment.close();
        let all = writer.dir.segments()?;
        // Read after the list, so that a segment that a compaction removed is not missed.
        let live = writer.manifest()?.first_seq;
        let Some(&last) = all.last().filter(|last| **last >= live) else {
            return Err(self.segment_missing(live, durable_seq.max(live)));
        };
        let Some(segment) = writer.segment.open(last)? else {
            return Err(self.segment_missing(last, last));
        };
        // What is opened behind this is the work of another lock's holder.
        writer.require_lock()?;
        let scan = segment.scan(last, 0)?;
        if last > live {
            let previous = all.iter().rev().copied().find(|first| *first < last);
            if scan.last_seq() < last {
                let Some(previous) = previous else {
                    return Err(self.segment_missing(live, last - 1));
                };
                self.require_whole(previous, last)?;
            } else if let Some(previous) = previous {
                self.require_end(previous, last)?;
            }
        }
        self.act(&scan, durable_seq, &segment)?;
        let at = TailHint {
            segment: last,
            seq: scan.last_seq(),
            last_offset: scan.last_offset,
            offset: scan.valid_len,
        };
        let durable_seq = durable_seq.max(scan.durable_seq());
        writer.sync_or_poison(&hints, at.seq, || segment.sync_in_doubt(at, durable_seq))?;
        // The writer that created the segment may have died before its name was durable.
        writer.dir.sync()?;
        writer.reached(Failpoint::RecoverySynced);
        let tail = ValidTail {
            writer,
            hints,
            at,
            segment,
        };
        if tail.hints.is_ours() {
            tail.settle_slots()?;
        } else {
            let is_of_same_store = tail.hints.is_of_this_store_or_blank();
            Slots::of(&tail.hints).adopt(
                is_of_same_store,
                writer.host().random(),
                |place, payload| tail.has(place, payload),
            )?;
        }
        tail.hints.tail_words().rebuild(at);
        tail.hints.vouch();
        if poisoned {
            telemetry::healed(writer.dir.path(), at.seq);
        }
        Ok(tail)
    }

    /// Checks that all records before `last` are there. An empty last segment does not tell.
    fn require_whole(&self, previous: u64, last: u64) -> Result<()> {
        let name = segment_name(previous);
        let Some(file) = self.writer.dir.open_if_there(&name, OpenMode::Read)? else {
            // Compacted away since the names were listed?
            return if self.writer.manifest()?.first_seq >= last {
                Ok(())
            } else {
                Err(self.segment_missing(previous, last - 1))
            };
        };
        let segment = Segment::new(previous, file);
        let scan = segment.scan(previous, 0)?;
        if scan.next_seq > last {
            return Err(self.overlapping(scan.next_seq, last));
        }
        match scan.tail_before_successor(last - 1) {
            // Behind the last record a crash may have left anything of the free space.
            Tail::Clean | Tail::Torn { .. } => Ok(()),
            Tail::Corrupt { offset, reason } => Err(corrupt(&segment, offset, reason)),
        }
    }

    /// Checks that the last segment does not begin with a record that its predecessor has. Then it
    /// is another store's, or a copy, and what is appended to it would be lost.
    ///
    /// Reads only the first and the last line of the predecessor, unless that is a later record. A
    /// crash may have left one in the free space.
    fn require_end(&self, previous: u64, last: u64) -> Result<()> {
        let name = segment_name(previous);
        let Some(file) = self.writer.dir.open_if_there(&name, OpenMode::Read)? else {
            return Ok(()); // Compacted away since the names were listed.
        };
        let segment = Segment::new(previous, file);
        let begins = segment.first_record()? == Some(previous);
        let found = segment.last_record()?.map(|header| header.seq);
        match found.filter(|_| begins) {
            Some(found) if found >= last => match segment.scan(previous, 0)?.next_seq {
                next if next > last => Err(self.overlapping(next, last)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The name of the segment `found` says that it begins with a record of its predecessor.
    fn overlapping(&self, expected: u64, found: u64) -> Error {
        Error::Corrupt {
            path: self.writer.dir.path_of(&segment_name(found)),
            offset: 0,
            reason: CorruptReason::Sequence { expected, found },
        }
    }

    fn segment_missing(&self, from_seq: u64, through_seq: u64) -> Error {
        let reason = CorruptReason::Missing {
            from_seq,
            through_seq,
        };
        Error::Corrupt {
            path: self.writer.dir.path_of(&segment_name(from_seq)),
            offset: 0,
            reason,
        }
    }

    /// Acts on what the scan found behind the last whole record.
    fn act(&mut self, scan: &Scan, durable_seq: u64, segment: &Segment) -> Result<()> {
        match scan.tail(durable_seq) {
            Tail::Clean => Ok(()),
            Tail::Corrupt { offset, reason } => Err(corrupt(segment, offset, reason)),
            Tail::Torn { valid_len } => self.cut(segment, valid_len, scan.content_len),
        }
    }

    /// Moves a torn tail to quarantine.
    fn cut(&mut self, segment: &Segment, valid_len: u64, content_len: u64) -> Result<()> {
        self.report.cut_bytes += content_len - valid_len;
        let kept = self.quarantine(segment, valid_len, content_len)?;
        self.report.quarantined = Some(kept);
        self.writer.reached(Failpoint::Quarantined);
        segment.file.set_len(valid_len)?;
        self.writer.reached(Failpoint::TornTailCut);
        Ok(())
    }

    /// Copies bytes of a segment to a file of their own, durably.
    fn quarantine(&self, segment: &Segment, from: u64, to: u64) -> Result<PathBuf> {
        let dir = self.writer.dir.create_subdir(QUARANTINE)?;
        let name = segment_name(segment.first_seq);
        let mut copies =
            (0..).map(|number| dir.create_new(&format!("{name}-{from}-{number}.torn")));
        let copy = copies.find_map(Result::transpose);
        let copy = copy.unwrap_or_else(|| unreachable!("the numbers do not end"))?;
        let write = |offset, bytes: &[u8]| copy.write(bytes, offset - from);
        segment.file.chunks(from..to, write)?;
        copy.sync()?;
        dir.sync()?;
        self.writer.dir.sync()?;
        Ok(copy.path().to_owned())
    }
}

fn corrupt(segment: &Segment, offset: u64, reason: CorruptReason) -> Error {
    Error::Corrupt {
        path: segment.file.path().to_owned(),
        offset,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Found> {
        let hints = [Good, Foreign, Poisoned, HalfChanged];
        let segments = [Unopened, Open, Opened, Missing];
        let behind = [None, Some(Nothing), Some(Bytes), Some(NotATail)];
        let records = [Unneeded, Unread, AsHinted, Other];
        let successors = [Unsought, Absent, Present];
        hints.into_iter().flat_map(move |hints| {
            segments.into_iter().flat_map(move |segment| {
                behind.into_iter().flat_map(move |behind| {
                    records.into_iter().flat_map(move |record| {
                        successors.map(|successor| Found {
                            hints,
                            segment,
                            behind,
                            record,
                            successor,
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn each_combination_has_exactly_one_row_and_each_row_a_combination() {
        let mut rows: Vec<u32> = Vec::new();
        for found in all() {
            let fitting = rows_that_fit(found);
            assert_eq!(fitting.len(), 1, "{found:?} has the rows {fitting:?}");
            rows.extend(fitting);
        }
        assert_eq!(rows.len(), 4 * 4 * 4 * 4 * 3);
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows, (1..=16).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_looked_at_twice_and_every_validation_ends() {
        for found in all() {
            match next(found) {
                Next::OpenSegment => assert_eq!(found.segment, Unopened),
                Next::LookBehindTail => assert_eq!(found.behind, None),
                Next::ReadLastRecord => assert!(matches!(found.record, Unneeded | Unread)),
                Next::SeekSuccessor => assert_eq!(found.successor, Unsought),
                // Each of these changes what it was found by, and nothing makes that again.
                Next::Repair => assert_eq!(found.behind, Some(Bytes)),
                Next::Rewrite => assert_eq!(found.segment, Opened),
                Next::Rebuild | Next::Accept => {}
            }
        }
    }

    #[test]
    fn only_a_tail_that_the_log_confirms_is_accepted() {
        for found in all().filter(|found| next(*found) == Next::Accept) {
            assert_eq!((found.hints, found.segment), (Good, Open));
            assert_eq!(found.behind, Some(Nothing));
            assert!(matches!(found.record, Unneeded | AsHinted));
        }
    }
}
