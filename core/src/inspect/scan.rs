//! Reads segments record by record, past damage where readers stop. Changes nothing.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{Body, END_MARK, Line, segment_name},
        resync::{Damage, Damages, LISTED_MAX, Place, stretches},
        scan::{Scan, Tail},
    },
    inspect::ranges,
    wal::store_dir::{StoreDir, StoreFile},
};

/// A whole record in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) synced: u64,
    /// Where its line begins.
    pub(crate) offset: u64,
    /// Its length without the newline.
    pub(crate) bytes: u64,
    /// Whether it follows a stretch that is not a record.
    pub(crate) after_bad: bool,
}

#[derive(Debug)]
pub(crate) enum Piece {
    Record(Found, Place),
    Bad(CorruptReason, Place),
}

/// Passes every stretch of a segment to `each`.
pub(crate) fn walk(file: &StoreFile, mut each: impl FnMut(Piece)) -> Result<()> {
    let mut lines = Lines::default();
    let mut after_bad = false;
    while let Some(span) = file.next_line(&mut lines)? {
        let line = lines.text(span);
        if line == END_MARK {
            continue;
        }
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

/// A segment that was read through its first bad line.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    /// The last record that it may hold; `None` for the last segment, which may go on.
    pub(crate) through_seq: Option<u64>,
    pub(crate) records: u64,
    pub(crate) no_op: Vec<RangeInclusive<u64>>,
    pub(crate) scan: Scan,
}

/// The segments of a store.
#[derive(Debug)]
pub(crate) struct StoreScan {
    pub(crate) segments: Vec<Segment>,
    /// Those that could not be read.
    pub(crate) unreadable: Vec<(u64, Error)>,
    /// Every record through this one was durable.
    pub(crate) durable_seq: u64,
}

impl StoreScan {
    /// Reads the segments from `live` on. Records through `durable_seq` are known to be durable
    /// from elsewhere.
    pub(crate) fn take(dir: &StoreDir, live: u64, durable_seq: u64) -> Result<Self> {
        let mut all = dir.segments()?;
        all.retain(|first| *first >= live);
        let next = all.iter().skip(1).map(|next| Some(next - 1)).chain([None]);
        let mut scan = Self {
            segments: Vec::new(),
            unreadable: Vec::new(),
            durable_seq: durable_seq.max(all.last().map_or(0, |last| last - 1)),
        };
        for (first_seq, through_seq) in all.iter().copied().zip(next) {
            match Segment::read(dir, first_seq, through_seq) {
                Ok(segment) => {
                    scan.durable_seq = scan.durable_seq.max(segment.scan.durable_seq());
                    scan.segments.push(segment);
                }
                Err(error) => scan.unreadable.push((first_seq, error)),
            }
        }
        // What the missing successor began with is missing, at least.
        let last = scan
            .segments
            .last()
            .filter(|last| last.through_seq.is_none());
        if let Some(Scan {
            goes_on: true,
            next_seq,
            ..
        }) = last.map(|last| &last.scan)
        {
            scan.durable_seq = scan.durable_seq.max(*next_seq);
        }
        Ok(scan)
    }

    /// The records of the first segment, if that is missing.
    pub(crate) fn missing_first(&self, live: u64) -> Option<RangeInclusive<u64>> {
        let there = self.segments.iter().map(|segment| segment.first_seq);
        let first = there
            .chain(self.unreadable.iter().map(|(first, _)| *first))
            .min();
        let through_seq = match first {
            Some(first) if first <= live => return None,
            Some(first) => first - 1,
            None => self.durable_seq.max(live),
        };
        Some(live..=through_seq)
    }
}

impl Segment {
    fn read(dir: &StoreDir, first_seq: u64, through_seq: Option<u64>) -> Result<Self> {
        let file = dir.open(&segment_name(first_seq), OpenMode::Read)?;
        let mut segment = Self {
            first_seq,
            through_seq,
            records: 0,
            no_op: Vec::new(),
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
                    ranges::push(&mut segment.no_op, before);
                }
            }
        }
        Ok(segment)
    }

    /// The condition of its end, if the records through `durable_seq` are durable.
    pub(crate) fn tail(&self, durable_seq: u64) -> Tail {
        let Some(through_seq) = self.through_seq else {
            return self.scan.tail(durable_seq);
        };
        match self.scan.tail_before_successor(through_seq) {
            // Its successor claims some of its records, whatever follows them.
            _ if self.scan.last_seq() > through_seq => Tail::Corrupt {
                offset: self.scan.valid_len,
                reason: CorruptReason::Sequence {
                    expected: through_seq,
                    found: self.scan.last_seq(),
                },
            },
            // After the last record of a complete segment, a crash may have left any part of the
            // preallocated space.
            Tail::Torn { .. } if self.scan.last_seq() == through_seq => Tail::Clean,
            tail => tail,
        }
    }

    /// Whether it holds every record that it should, and no other.
    pub(crate) fn is_whole(&self, durable_seq: u64) -> bool {
        !matches!(self.tail(durable_seq), Tail::Corrupt { .. })
    }
}

/// The damage of a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentDamage {
    pub(crate) bad: Damages,
    /// The missing records, in order.
    pub(crate) gaps: Vec<RangeInclusive<u64>>,
    /// How many records are in their place.
    pub(crate) records: u64,
    /// The last of them.
    pub(crate) last_seq: Option<u64>,
    /// The end of what its records and their damage take up: behind it a crash may have left
    /// anything.
    pub(crate) end: u64,
}

impl SegmentDamage {
    /// Reads the segment again, past its first bad line.
    pub(crate) fn of(dir: &StoreDir, segment: &Segment, durable_seq: u64) -> Result<Self> {
        let name = segment_name(segment.first_seq);
        let file = dir.open(&name, OpenMode::Read)?;
        let name = PathBuf::from(name);
        // The records through this one were acknowledged.
        let bound = segment.through_seq.unwrap_or(durable_seq);
        let sequence = |expected, found| CorruptReason::Sequence { expected, found };
        let mut damage = Self::default();
        let mut expected = segment.first_seq;
        let mut ended = false;
        let mut goes_too_far = false;
        let mut misplaced = BTreeSet::new();
        walk(&file, |piece| {
            if ended {
                return;
            }
            let (Piece::Record(_, place) | Piece::Bad(_, place)) = &piece;
            let end = place.offset + place.bytes;
            match piece {
                Piece::Record(Found { after_bad, .. }, _) if goes_too_far => ended = after_bad,
                Piece::Record(Found { seq, .. }, _)
                    if seq == expected && segment.through_seq.is_none_or(|last| seq <= last)
                        || seq > expected && seq <= bound =>
                {
                    if seq > expected {
                        damage.gaps.push(expected..=seq - 1);
                    }
                    damage.records += 1;
                    damage.last_seq = Some(seq);
                    expected = seq + 1;
                }
                // It belongs to the next segment.
                Piece::Record(
                    Found {
                        seq,
                        after_bad: false,
                        ..
                    },
                    place,
                ) if seq == expected && segment.through_seq == Some(seq - 1) => {
                    damage
                        .bad
                        .push(Damage::at(&name, place, sequence(bound, seq)));
                    goes_too_far = true;
                }
                Piece::Record(Found { seq, .. }, place)
                    if expected <= bound || damage.is_missing(seq) =>
                {
                    if misplaced.len() < LISTED_MAX {
                        misplaced.insert(seq);
                    }
                    damage
                        .bad
                        .push(Damage::at(&name, place, sequence(expected, seq)));
                }
                // The last acknowledged record may have lost no more than its newline.
                Piece::Bad(reason, place)
                    if expected <= bound
                        || expected == bound + 1 && reason == CorruptReason::Unterminated =>
                {
                    damage.bad.push(Damage::at(&name, place, reason));
                }
                // A torn tail, or preallocated space.
                _ => ended = true,
            }
            if !ended {
                damage.end = end;
            }
        })?;
        if expected <= bound {
            damage.gaps.push(expected..=bound);
        }
        damage.forgive(&misplaced);
        Ok(damage)
    }

    fn is_missing(&self, seq: u64) -> bool {
        ranges::contain(&self.gaps, seq)
    }

    /// A record elsewhere in the file is not missing.
    fn forgive(&mut self, misplaced: &BTreeSet<u64>) {
        let mut gaps = Vec::new();
        for gap in &self.gaps {
            let mut first = *gap.start();
            for found in misplaced.range(gap.clone()) {
                gaps.push(first..=found - 1);
                first = found + 1;
            }
            gaps.push(first..=*gap.end());
        }
        gaps.retain(|gap| !gap.is_empty());
        self.gaps = gaps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misplaced_record_is_not_missing() {
        let mut damage = SegmentDamage {
            gaps: vec![3..=5, 8..=8, 10..=14],
            ..SegmentDamage::default()
        };
        damage.forgive(&BTreeSet::from([1, 3, 8, 11, 12, 20]));
        assert_eq!(damage.gaps, [4..=5, 10..=10, 13..=14]);
    }
}
