//! Finds the good lines in damaged bytes: reading resynchronizes at the next line whose checksum is
//! right.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use memchr::memmem;
use serde::{Serialize, Serializer};

use crate::{
    error::CorruptReason,
    format::{
        lines::Span,
        record::{RECORD_START, checked},
    },
};

/// A place where bytes are not what they should be: part of the reports of
/// [`check`](crate::check::check) and [`repair`](crate::repair::repair).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The file, relative to the store's directory.
    pub file: PathBuf,
    /// Where in the file the bad bytes begin, or the missing ones should be.
    pub offset: u64,
    /// The line, from 1; `None` if the file as a whole is damaged.
    pub line: Option<u64>,
    /// How many bytes are bad; 0 if some are missing.
    pub bytes: u64,
    /// The fault. JSON: as text.
    #[serde(serialize_with = "as_text")]
    pub reason: CorruptReason,
    /// The issue's id or the idempotency key that a bad line of a snapshot seems to belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

impl Damage {
    pub(crate) fn at(file: &Path, place: Place, reason: CorruptReason) -> Self {
        Self {
            line: Some(place.line),
            bytes: place.bytes,
            ..Self::of_file(file, place.offset, reason)
        }
    }

    pub(crate) fn of_file(file: &Path, offset: u64, reason: CorruptReason) -> Self {
        Self {
            file: file.to_owned(),
            offset,
            line: None,
            bytes: 0,
            reason,
            about: None,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}, byte {}", self.offset)?;
        }
        write!(f, ": {}", self.reason)?;
        match &self.about {
            Some(about) => write!(f, " (of {about:?})"),
            None => Ok(()),
        }
    }
}

fn as_text<S: Serializer>(value: &CorruptReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The damages that are listed one by one; the rest are only counted, so that no file can fill the
/// memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Damages {
    pub(crate) listed: Vec<Damage>,
    pub(crate) left_off: u64,
}

/// How many damages are listed one by one.
pub(crate) const LISTED_MAX: usize = 10_000;

impl Damages {
    pub(crate) fn push(&mut self, damage: Damage) {
        if self.listed.len() < LISTED_MAX {
            self.listed.push(damage);
        } else {
            self.left_off += 1;
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.left_off += other.left_off;
        other
            .listed
            .into_iter()
            .for_each(|damage| self.push(damage));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.listed.len() as u64 + self.left_off
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Its place in the line. A good one does not include its newline.
    pub(crate) text: Range<usize>,
    /// The fault.
    pub(crate) bad: Option<CorruptReason>,
}

/// Splits a line, given with its newline if it has one, into good and bad stretches.
///
/// A good line is one stretch. A bad one may be two good lines joined by damage to a newline, or
/// one that lost its end: bytes with the right checksum are what was written.
pub(crate) fn stretches(line: &[u8], is_good: impl Fn(&[u8]) -> bool) -> Vec<Stretch> {
    /// Passes over the line at most, so that no bytes can make this slow.
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

/// The length of the JSON object at the beginning of `text`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::put_checksum;

    fn line(members: &str) -> Vec<u8> {
        let mut line = format!(r#"{{"crc":"00000000",{members}}}"#).into_bytes();
        put_checksum(&mut line);
        line
    }

    fn split(line: &[u8]) -> (Vec<Vec<u8>>, Vec<(usize, usize)>) {
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
    fn good_lines_are_found_in_a_bad_line() {
        // Its payload looks like the beginning of a record.
        let one = line(r#""seq":1,"data":{"crc":"00000000","x":{"crc":"1"}}"#);
        let two = line(r#""seq":2"#);
        let (n, m) = (one.len(), two.len());
        let whole = [one.as_slice(), b"\n"].concat();
        assert_eq!(split(&whole), (vec![one.clone()], vec![]));
        // A newline that became another byte, that is missing, or that the file ends without.
        let both = vec![one.clone(), two.clone()];
        let joined = [one.as_slice(), b"x", &two, b"\n"].concat();
        assert_eq!(split(&joined), (both.clone(), vec![(n, n + 1)]));
        let joined = [one.as_slice(), &two, b"\n"].concat();
        assert_eq!(split(&joined), (both.clone(), vec![(n, n)]));
        assert_eq!(split(&one), (vec![one.clone()], vec![(n, n)]));
        let last = [one.as_slice(), b"x"].concat();
        assert_eq!(split(&last), (vec![one.clone()], vec![(n, n + 1)]));
        // Damage before, between and behind.
        let junk = [b"junk".as_slice(), &one, b"{\"crc\":\"", &two, b"end\n"].concat();
        let bad = vec![(0, 4), (4 + n, 12 + n), (12 + n + m, 15 + n + m)];
        assert_eq!(split(&junk), (both, bad));
        let nothing = b"{\"crc\":\"".repeat(1000);
        assert_eq!(split(&nothing), (vec![], vec![(0, 8000)]));
    }

    #[test]
    fn damages_beyond_the_limit_are_counted() {
        let damage = || Damage::of_file(Path::new("log"), 0, CorruptReason::NotARecord);
        let mut damages = Damages::default();
        (0..LISTED_MAX + 3).for_each(|_| damages.push(damage()));
        assert_eq!((damages.listed.len(), damages.left_off), (LISTED_MAX, 3));
        damages.append(damages.clone());
        assert_eq!(
            (damages.listed.len(), damages.count()),
            (LISTED_MAX, 20_006)
        );
    }
}
