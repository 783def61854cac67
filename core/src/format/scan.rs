//! Classifies the bytes of a segment: clean, torn or corrupt.
//!
//! The *durable number* tells a torn tail from corruption: all records through it were durable
//! before any was acknowledged. It is known from the shared hints, and from each record's `synced`.
//! A bad line in the place of such a record is corruption. A later one was never acknowledged as
//! durable: a crash may have torn it, or lost it while a later record survived.

use crate::{
    error::CorruptReason,
    format::record::{END_MARK, Line, RECORD_START},
};

/// The end of a segment, as [`classify`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Records, followed by nothing but newlines.
    Clean,
    /// Whole records through `valid_len`, followed by bytes that were never acknowledged as
    /// durable.
    Torn {
        /// The length of the good part in bytes.
        valid_len: u64,
    },
    /// An acknowledged record is damaged or missing. Nothing may be cut.
    Corrupt {
        /// The offset of the damage.
        offset: u64,
        /// The kind of damage.
        reason: CorruptReason,
    },
}

/// Classifies the bytes of a segment whose first record should be `first_seq`.
///
/// `durable_seq` is the last record that is known to be acknowledged as durable; 0 for none.
///
/// | bytes | the bad line's record | answer |
/// | --- | --- | --- |
/// | whole records in sequence, then only newlines | – | `Clean` |
/// | … but they end before `durable_seq` | – | `Corrupt`, `Missing`, at the end |
/// | a bad line | ≤ `durable_seq`, or ≤ some record's `synced` | `Corrupt` at that line |
/// | a bad line | above all of these | `Torn` before that line |
/// | whole records, then the mark of a segment with a successor | – | `Corrupt`, `Missing`, at the end |
///
/// A line is bad if it has no newline, is not a record, has a wrong checksum, or is out of
/// sequence. The damage begins where the good records end. Blank lines do not count.
///
/// ```
/// use strand_core::testing::{Tail, classify};
///
/// assert_eq!(classify(b"", 1, 0), Tail::Clean);
/// assert_eq!(classify(b"{\"crc\":\"9f2c", 1, 0), Tail::Torn { valid_len: 0 });
/// assert!(matches!(classify(b"{\"crc\":\"9f2c", 1, 1), Tail::Corrupt { offset: 0, .. }));
/// ```
#[must_use]
#[cfg(feature = "testing")]
pub fn classify(bytes: &[u8], first_seq: u64, durable_seq: u64) -> Tail {
    let mut scan = Scan::new(first_seq, 0);
    let mut offset = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        scan.line(line, offset);
        offset += line.len() as u64;
    }
    scan.tail(durable_seq)
}

/// The state of a scan over consecutive lines.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The number that the next record should have.
    pub(crate) next_seq: u64,
    /// Where the last good record begins.
    pub(crate) last_offset: u64,
    /// The end of the last good record.
    pub(crate) valid_len: u64,
    /// The highest `synced` of all good records, including those behind a bad line.
    durable_seq: u64,
    /// The damage behind `valid_len`.
    bad: Option<CorruptReason>,
    /// The end of the last line that is not blank.
    pub(crate) content_len: u64,
    /// The records are followed by an [`END_MARK`]: the log goes on in another segment.
    pub(crate) goes_on: bool,
}

impl Scan {
    pub(crate) fn new(first_seq: u64, offset: u64) -> Self {
        let at = offset;
        Self {
            next_seq: first_seq,
            last_offset: at,
            valid_len: at,
            durable_seq: 0,
            bad: None,
            content_len: at,
            goes_on: false,
        }
    }

    /// Scans the next line, given with its newline if it has one.
    pub(crate) fn line(&mut self, line: &[u8], offset: u64) {
        let text = line.strip_suffix(b"\n");
        if text.is_some_and(<[u8]>::is_empty) {
            return;
        }
        let end = offset + line.len() as u64;
        self.content_len = end;
        if line == END_MARK && self.bad.is_none() {
            self.goes_on = true;
            return;
        }
        if self.goes_on {
            self.bad.get_or_insert(CorruptReason::NotARecord);
        }
        let parsed = text
            .ok_or(CorruptReason::Unterminated)
            .and_then(Line::parse);
        let synced = match &parsed {
            Ok(line) => Some(line.header.synced),
            Err(_) => text
                .and_then(record_at_the_end)
                .map(|line| line.header.synced),
        };
        self.durable_seq = self.durable_seq.max(synced.unwrap_or(0));
        if self.bad.is_some() {
            return;
        }
        let expected = self.next_seq;
        match parsed {
            Ok(Line { header, .. }) if header.seq == expected => {
                self.next_seq += 1;
                self.last_offset = offset;
                self.valid_len = end;
            }
            Ok(Line { header, .. }) => {
                self.bad = Some(CorruptReason::Sequence {
                    expected,
                    found: header.seq,
                });
            }
            Err(reason) => self.bad = Some(reason),
        }
    }

    /// Every record through this one was durable, according to the records themselves.
    pub(crate) fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The last good record's number; the one before the first if there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// The result, after the last line of the last segment.
    pub(crate) fn tail(&self, durable_seq: u64) -> Tail {
        // A successor began with an acknowledged record, and is missing.
        let at_least = if self.goes_on { self.next_seq } else { 0 };
        self.tail_before_successor(durable_seq.max(self.durable_seq).max(at_least))
    }

    /// The result, after the last line of a segment whose successor begins behind `durable_seq`.
    ///
    /// Behind its records a crash may have left old bytes of any file, with whole records, too.
    pub(crate) fn tail_before_successor(&self, durable_seq: u64) -> Tail {
        let lost = self.next_seq <= durable_seq;
        match self.bad.clone() {
            None if !lost => Tail::Clean,
            None => Tail::Corrupt {
                offset: self.valid_len,
                reason: CorruptReason::Missing {
                    from_seq: self.next_seq,
                    through_seq: durable_seq,
                },
            },
            Some(reason) if lost => Tail::Corrupt {
                offset: self.valid_len,
                reason,
            },
            Some(_) => Tail::Torn {
                valid_len: self.valid_len,
            },
        }
    }
}

/// The good record at the end of a bad line, if there is one: damage to a newline joins two lines.
///
/// Tries only a few places, so that no bytes can make this slow.
fn record_at_the_end(line: &[u8]) -> Option<Line<'_>> {
    const PLACES: usize = 8;
    let starts = memchr::memmem::rfind_iter(line, RECORD_START).take(PLACES);
    starts
        .filter_map(|start| line.get(start..))
        .find_map(|text| Line::parse(text).ok())
}
