//! What the segments of a store hold, record by record and damage by damage: for the doctor and for a repair,
//! which go on where readers stop. Decides nothing, and changes nothing.

use std::{collections::BTreeSet, ops::Range};

use memchr::memmem;
use serde::Serialize;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::{Lines, Span},
        record::{Body, Line, RECORD_START, checked, segment_name},
        scan::{Scan, Tail},
    },
    wal::store_dir::{StoreDir, StoreFile},
};

/// A range of record numbers, both ends included; see [`crate::repair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Seqs {
    /// The first.
    pub from_seq: u64,
    /// The last.
    pub through_seq: u64,
}

impl Seqs {
    /// How many there are; see [`crate::repair`].
    #[must_use]
    pub fn count(self) -> u64 {
        (self.through_seq + 1).saturating_sub(self.from_seq)
    }

    /// Adds a number to ranges that end before it.
    pub(crate) fn push(ranges: &mut Vec<Self>, seq: u64) {
        match ranges.last_mut() {
            Some(last) if last.through_seq + 1 == seq => last.through_seq = seq,
            _ => ranges.push(Self {
                from_seq: seq,
                through_seq: seq,
            }),
        }
    }
}

impl std::fmt::Display for Seqs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            from_seq,
            through_seq,
        } = self;
        if from_seq == through_seq {
            write!(f, "{from_seq}")
        } else {
            write!(f, "{from_seq} to {through_seq}")
        }
    }
}

/// A list that ends somewhere, so that no file can make it fill the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) left_off: u64,
}

/// How many damages are listed one by one.
pub(crate) const LISTED_MAX: usize = 10_000;

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            left_off: 0,
        }
    }
}

impl<T> Listed<T> {
    pub(crate) fn push(&mut self, item: T) {
        if self.items.len() < LISTED_MAX {
            self.items.push(item);
        } else {
            self.left_off += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.items.len() as u64 + self.left_off
    }

    pub(crate) fn map<U>(self, change: impl FnMut(T) -> U) -> Listed<U> {
        Listed {
            items: self.items.into_iter().map(change).collect(),
            left_off: self.left_off,
        }
    }
}

/// Where in a file something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) line: u64,
    pub(crate) bytes: u64,
}

impl Place {
    pub(crate) fn of(span: Span, within: &Range<usize>) -> Self {
        Self {
            offset: span.offset + within.start as u64,
            line: span.number,
            bytes: within.len() as u64,
        }
    }
}

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where in the line it is. A good one does not include its newline.
    pub(crate) text: Range<usize>,
    /// What is wrong with it.
    pub(crate) bad: Option<CorruptReason>,
}

/// Takes a line apart, with its newline if it has one. A good line is one stretch. A bad one may be two good ones that
/// damage to a newline has joined, or one whose end was lost: what has the right checksum is what was written.
pub(crate) fn stretches(line: &[u8], is_good: impl Fn(&[u8]) -> bool) -> Vec<Stretch> {
    /// How often the line is gone through, at most, so that no bytes can make this slow.
    const PASSES: usize = 64;
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.len() < line.len() && is_good(text) {
        return vec![Stretch {
            text: 0..text.len(),
            bad: None,
        }];
    }
    let mut left = PASSES * text.len();
    let mut all = Vec::new();
    let mut done = 0;
    for start in memmem::find_iter(text, RECORD_START) {
        if start < done {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        let len = object_len(rest);
        left = left.saturating_sub(len.unwrap_or(rest.len()));
        if left == 0 {
            break;
        }
        let Some(end) = len.map(|len| start + len) else {
            continue;
        };
        if text.get(start..end).is_some_and(&is_good) {
            push_bad(&mut all, text, done..start);
            all.push(Stretch {
                text: start..end,
                bad: None,
            });
            done = end;
        }
    }
    push_bad(&mut all, text, done..text.len());
    if all.iter().all(|stretch| stretch.bad.is_none()) {
        // Nothing but a newline is missing.
        let end = all.first().map_or(0, |stretch| stretch.text.end);
        let missing = Stretch {
            text: end..end,
            bad: Some(CorruptReason::Unterminated),
        };
        all.insert(all.len().min(1), missing);
    }
    all
}

/// The length of the JSON object that a text begins with.
fn object_len(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn push_bad(all: &mut Vec<Stretch>, text: &[u8], range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    let part = text.get(range.clone()).unwrap_or_default();
    let reason = match checked(part) {
        _ if part.len() == 1 && !all.is_empty() => CorruptReason::Unterminated,
        Err(reason) => reason,
        Ok(_) => CorruptReason::NotARecord,
    };
    all.push(Stretch {
        text: range,
        bad: Some(reason),
    });
}

/// A whole record in some file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) synced: u64,
    /// Where its line begins.
    pub(crate) offset: u64,
    /// Its length without the newline.
    pub(crate) bytes: u64,
    /// It follows a stretch that is no record.
    pub(crate) after_bad: bool,
}

/// What a segment holds at some place.
#[derive(Debug)]
pub(crate) enum Piece {
    Record(Found, Place),
    Bad(CorruptReason, Place),
}

/// Goes through all lines of a segment, also behind bad ones.
pub(crate) fn walk(file: &StoreFile, mut each: impl FnMut(Piece)) -> Result<()> {
    let mut lines = Lines::default();
    let mut after_bad = false;
    while let Some(span) = file.next_line(&mut lines)? {
        let line = lines.text(span);
        for stretch in stretches(line, |text| Line::parse(text).is_ok()) {
            let place = Place::of(span, &stretch.text);
            let text = line.get(stretch.text).unwrap_or_default();
            match (stretch.bad, Line::trusted(text)) {
                (None, Some(record)) => each(Piece::Record(
                    Found {
                        seq: record.header.seq,
                        synced: record.header.synced,
                        offset: place.offset,
                        bytes: place.bytes,
                        after_bad: std::mem::take(&mut after_bad),
                    },
                    place,
                )),
                (bad, _) => {
                    after_bad = true;
                    each(Piece::Bad(bad.unwrap_or(CorruptReason::NotARecord), place));
                }
            }
        }
    }
    Ok(())
}

/// What a segment is.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    /// The last record that it may hold; `None` for the last segment, which may go on.
    pub(crate) through_seq: Option<u64>,
    pub(crate) records: u64,
    /// Those that stand for lost ones.
    pub(crate) void: Vec<Seqs>,
    pub(crate) scan: Scan,
}

/// What the segments are.
#[derive(Debug)]
pub(crate) struct StoreScan {
    pub(crate) segments: Vec<Segment>,
    /// Those that could not be read.
    pub(crate) unreadable: Vec<(u64, Error)>,
    /// Every record through this one was durable.
    pub(crate) durable_seq: u64,
}

impl StoreScan {
    /// Reads all segments from `live` on. `known_seq` is what is known to be durable otherwise.
    pub(crate) fn take(dir: &StoreDir, live: u64, known_seq: u64) -> Result<Self> {
        let mut all = dir.segments()?;
        all.retain(|first| *first >= live);
        let next = all.iter().skip(1).map(|next| Some(next - 1)).chain([None]);
        let mut scan = Self {
            segments: Vec::new(),
            unreadable: Vec::new(),
            durable_seq: known_seq.max(all.last().map_or(0, |last| last - 1)),
        };
        for (first_seq, through_seq) in all.iter().copied().zip(next) {
            match Segment::read(dir, first_seq, through_seq) {
                Ok(segment) => {
                    scan.durable_seq = scan.durable_seq.max(segment.scan.synced_seq());
                    scan.segments.push(segment);
                }
                Err(error) => scan.unreadable.push((first_seq, error)),
            }
        }
        Ok(scan)
    }

    /// The records that the first segment should hold, when that is not there.
    pub(crate) fn missing_first(&self, live: u64) -> Option<Seqs> {
        let there = self.segments.iter().map(|segment| segment.first_seq);
        let first = there
            .chain(self.unreadable.iter().map(|(first, _)| *first))
            .min();
        let through_seq = match first {
            Some(first) if first <= live => return None,
            Some(first) => first - 1,
            None => self.durable_seq.max(live),
        };
        Some(Seqs {
            from_seq: live,
            through_seq,
        })
    }
}

impl Segment {
    fn read(dir: &StoreDir, first_seq: u64, through_seq: Option<u64>) -> Result<Self> {
        let file = dir.open(&segment_name(first_seq), OpenMode::Read)?;
        let mut segment = Self {
            first_seq,
            through_seq,
            records: 0,
            void: Vec::new(),
            scan: Scan::new(first_seq, 0),
        };
        let mut lines = Lines::default();
        while let Some(span) = file.next_line(&mut lines)? {
            let line = lines.text(span);
            let before = segment.scan.next_seq;
            segment.scan.line(line, span.offset);
            if segment.scan.next_seq > before {
                segment.records += 1;
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                if Line::trusted(text).is_some_and(|line| line.body == Body::Batch(b"[]")) {
                    Seqs::push(&mut segment.void, before);
                }
            }
        }
        Ok(segment)
    }

    /// What the records through `durable_seq` make of its end.
    pub(crate) fn tail(&self, durable_seq: u64) -> Tail {
        let Some(through_seq) = self.through_seq else {
            return self.scan.tail(durable_seq);
        };
        match self.scan.tail(through_seq) {
            Tail::Clean if self.scan.last_seq() > through_seq => Tail::Corrupt {
                offset: self.scan.valid_len,
                reason: CorruptReason::Sequence {
                    expected: through_seq,
                    found: self.scan.last_seq(),
                },
            },
            // Behind the last record of a complete segment, a crash may have left anything of the free space.
            Tail::Torn { .. } if self.scan.last_seq() == through_seq => Tail::Clean,
            tail => tail,
        }
    }

    /// Whether every record that should be here is, and none that should be elsewhere.
    pub(crate) fn is_whole(&self, durable_seq: u64) -> bool {
        !matches!(self.tail(durable_seq), Tail::Corrupt { .. })
    }
}

/// The damages of a segment.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    pub(crate) bad: Listed<(Place, CorruptReason)>,
    /// The numbers of which there is no record here, in their order.
    pub(crate) gaps: Vec<Seqs>,
    /// How many records stand in their place.
    pub(crate) records: u64,
    /// The last of them.
    pub(crate) last_seq: Option<u64>,
}

impl Damages {
    /// Reads the segment again to list all that is wrong with it.
    pub(crate) fn of(dir: &StoreDir, segment: &Segment, durable_seq: u64) -> Result<Self> {
        let file = dir.open(&segment_name(segment.first_seq), OpenMode::Read)?;
        let bound = segment.through_seq.unwrap_or(durable_seq);
        let mut damages = Self::default();
        let mut expected = segment.first_seq;
        let mut torn = false;
        let mut misplaced = BTreeSet::new();
        walk(&file, |piece| {
            if torn {
                return;
            }
            match piece {
                Piece::Record(found, _)
                    if found.seq == expected
                        && found.seq <= segment.through_seq.unwrap_or(found.seq) =>
                {
                    damages.records += 1;
                    damages.last_seq = Some(expected);
                    expected += 1;
                }
                Piece::Record(found, _) if found.seq > expected && found.seq <= bound => {
                    damages.gap(expected, found.seq - 1);
                    damages.records += 1;
                    damages.last_seq = Some(found.seq);
                    expected = found.seq + 1;
                }
                // What became of the newline of the last acknowledged record.
                Piece::Bad(CorruptReason::Unterminated, place) if expected == bound + 1 => {
                    damages.bad.push((place, CorruptReason::Unterminated));
                }
                // A record that the next segment should have.
                Piece::Record(found, place)
                    if segment.through_seq == Some(found.seq - 1)
                        && expected == found.seq
                        && !found.after_bad =>
                {
                    let reason = CorruptReason::Sequence {
                        expected: bound,
                        found: found.seq,
                    };
                    damages.bad.push((place, reason));
                    torn = true;
                }
                Piece::Record(found, place)
                    if expected <= bound || damages.is_missing(found.seq) =>
                {
                    if misplaced.len() < LISTED_MAX {
                        misplaced.insert(found.seq);
                    }
                    let reason = CorruptReason::Sequence {
                        expected,
                        found: found.seq,
                    };
                    damages.bad.push((place, reason));
                }
                Piece::Bad(reason, place) if expected <= bound => {
                    damages.bad.push((place, reason));
                }
                // That is a torn tail, or free space.
                _ => torn = true,
            }
        })?;
        if expected <= bound {
            damages.gap(expected, bound);
        }
        damages.forgive(&misplaced);
        Ok(damages)
    }

    fn is_missing(&self, seq: u64) -> bool {
        let before = self.gaps.partition_point(|gap| gap.through_seq < seq);
        self.gaps.get(before).is_some_and(|gap| gap.from_seq <= seq)
    }

    fn gap(&mut self, from_seq: u64, through_seq: u64) {
        self.gaps.push(Seqs {
            from_seq,
            through_seq,
        });
    }

    /// What stands elsewhere in the file is not missing.
    fn forgive(&mut self, misplaced: &BTreeSet<u64>) {
        let mut gaps = Vec::new();
        for gap in std::mem::take(&mut self.gaps) {
            let mut from_seq = gap.from_seq;
            for found in misplaced.range(gap.from_seq..=gap.through_seq) {
                if *found > from_seq {
                    gaps.push(Seqs {
                        from_seq,
                        through_seq: found - 1,
                    });
                }
                from_seq = found + 1;
            }
            if from_seq <= gap.through_seq {
                gaps.push(Seqs {
                    from_seq,
                    through_seq: gap.through_seq,
                });
            }
        }
        self.gaps = gaps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::put_checksum;

    fn line(members: &str) -> Vec<u8> {
        let mut line = format!(r#"{{"crc":"00000000",{members}}}"#).into_bytes();
        put_checksum(&mut line);
        line
    }

    fn taken_apart(line: &[u8]) -> (Vec<Vec<u8>>, Vec<(usize, usize)>) {
        let all = stretches(line, |text| checked(text).is_ok());
        let (bad, good): (Vec<_>, Vec<_>) = all.into_iter().partition(|part| part.bad.is_some());
        let good = good.into_iter().map(|part| line[part.text].to_vec());
        (
            good.collect(),
            bad.into_iter()
                .map(|part| (part.text.start, part.text.end))
                .collect(),
        )
    }

    #[test]
    fn what_has_the_right_checksum_is_found_in_a_bad_line() {
        // Its payload looks like the beginning of a record.
        let one = line(r#""seq":1,"data":{"crc":"00000000","x":{"crc":"1"}}"#);
        let two = line(r#""seq":2"#);
        let (n, m) = (one.len(), two.len());
        let whole = [one.as_slice(), b"\n"].concat();
        assert_eq!(taken_apart(&whole), (vec![one.clone()], vec![]));
        // A newline that became another byte, that is missing, or that the file ends without.
        let both = vec![one.clone(), two.clone()];
        let joined = [one.as_slice(), b"x", &two, b"\n"].concat();
        assert_eq!(taken_apart(&joined), (both.clone(), vec![(n, n + 1)]));
        let joined = [one.as_slice(), &two, b"\n"].concat();
        assert_eq!(taken_apart(&joined), (both.clone(), vec![(n, n)]));
        assert_eq!(taken_apart(&one), (vec![one.clone()], vec![(n, n)]));
        let last = [one.as_slice(), b"x"].concat();
        assert_eq!(taken_apart(&last), (vec![one.clone()], vec![(n, n + 1)]));
        // Damage before, between and behind.
        let junk = [b"junk".as_slice(), &one, b"{\"crc\":\"", &two, b"end\n"].concat();
        let bad = vec![(0, 4), (4 + n, 12 + n), (12 + n + m, 15 + n + m)];
        assert_eq!(taken_apart(&junk), (both, bad));
        let nothing = b"{\"crc\":\"".repeat(1000);
        assert_eq!(taken_apart(&nothing), (vec![], vec![(0, 8000)]));
    }

    #[test]
    fn a_list_ends_somewhere_and_says_so() {
        let mut list = Listed::default();
        (0..LISTED_MAX + 3).for_each(|number| list.push(number));
        assert_eq!((list.items.len(), list.left_off), (LISTED_MAX, 3));
    }

    #[test]
    fn what_stands_elsewhere_is_no_gap() {
        let seqs = |from_seq, through_seq| Seqs {
            from_seq,
            through_seq,
        };
        let mut damages = Damages {
            gaps: vec![seqs(3, 5), seqs(8, 8), seqs(10, 14)],
            ..Damages::default()
        };
        damages.forgive(&BTreeSet::from([1, 3, 8, 11, 12, 20]));
        assert_eq!(damages.gaps, [seqs(4, 5), seqs(10, 10), seqs(13, 14)]);
    }
}
