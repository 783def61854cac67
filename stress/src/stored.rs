//! The stored records, read from the files' bytes without any help of the log: the oracle must not
//! take the log's word for what the log has written.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::crc32c::crc32c;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name in the store.
    pub name: String,
    /// Everything in it.
    pub bytes: Vec<u8>,
}

/// A place in a file of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file's name in the store.
    pub file: String,
    /// Where the line starts.
    pub offset: u64,
}

/// One stored record of a single event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its sequence number.
    pub seq: u64,
    /// The event.
    pub event: EventText,
    /// The line without its newline.
    pub line: Vec<u8>,
    /// Where it is.
    pub place: Place,
}

/// An event as it is written, down to the byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventText {
    /// The issue it is about.
    pub id: String,
    /// Its JSON object.
    pub json: String,
}

/// Bytes in a segment that are no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Where it starts.
    pub place: Place,
    /// What is wrong.
    pub reason: String,
    /// Its first bytes.
    pub excerpt: String,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// `{"crc":"9f2c01ab",` is in front of what the checksum covers.
const CRC_PREFIX: &[u8] = b"{\"crc\":\"";
const CRC_DIGITS: usize = 8;
const CRC_SUFFIX: &[u8] = b"\",";
const EXCERPT_BYTES: usize = 160;

impl EventText {
    /// The event that `json` describes.
    ///
    /// # Errors
    /// What the JSON parser says.
    pub fn parse(json: String) -> Result<EventText, serde_json::Error> {
        let id = serde_json::from_str::<Named<'_>>(&json)?.id.into_owned();
        Ok(EventText { id, json })
    }
}

/// Reads the segments of the store in `dir` in the order of their names, which is that of their
/// first sequence numbers.
///
/// # Errors
/// The directory or a file could not be read.
pub fn read_segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut names: Vec<String> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.retain(|name| is_segment(name));
    names.sort();
    names
        .into_iter()
        .map(|name| {
            Ok(Segment {
                bytes: std::fs::read(dir.join(&name))?,
                name,
            })
        })
        .collect()
}

/// Whether `name` is that of a segment: `log-<20 digits>.jsonl`.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    first_seq(name).is_some()
}

/// The sequence number in a segment's name.
#[must_use]
pub fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".jsonl")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits {
        digits.parse().ok()
    } else {
        None
    }
}

/// Takes one segment apart. Empty lines are the space that was allocated in advance: they may only
/// stand behind the last record.
#[must_use]
pub fn parse_segment(segment: &Segment) -> (Vec<StoredRecord>, Vec<BadLine>) {
    let mut records = Vec::new();
    let mut bad = Vec::new();
    let mut offset = 0;
    let mut first_blank = None;
    for line in segment.bytes.split_inclusive(|&byte| byte == b'\n') {
        let place = |offset| Place {
            file: segment.name.clone(),
            offset,
        };
        let mut report = |offset, reason: &str| {
            let excerpt = line
                .get(..line.len().min(EXCERPT_BYTES))
                .unwrap_or_default();
            let excerpt = String::from_utf8_lossy(excerpt).into_owned();
            bad.push(BadLine {
                place: place(offset),
                reason: reason.to_owned(),
                excerpt,
            });
        };
        if line == b"\n" {
            first_blank.get_or_insert(offset);
        } else {
            if let Some(blank) = first_blank.take() {
                report(blank, "empty lines stand before a record");
            }
            match line.strip_suffix(b"\n") {
                None => report(offset, "the last line has no newline"),
                Some(line) => match parse_line(line) {
                    Ok((seq, event)) => records.push(StoredRecord {
                        seq,
                        event,
                        line: line.to_vec(),
                        place: place(offset),
                    }),
                    Err(reason) => report(offset, &reason),
                },
            }
        }
        offset += line.len() as u64;
    }
    (records, bad)
}

fn parse_line(line: &[u8]) -> Result<(u64, EventText), String> {
    let covered = covered_bytes(line).ok_or("the line does not begin with a checksum")?;
    let (digits, body) = covered;
    let written = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or("the checksum is not eight lower-case hexadecimal digits")?;
    let computed = crc32c(body);
    if written != computed {
        return Err(format!(
            "the checksum says {written:08x}, the bytes {computed:08x}"
        ));
    }
    // The log's own members come first, and the rest is the event's object.
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let (seq, rest) = number_member(body, "seq").ok_or("there is no number behind the checksum")?;
    let (_, rest) = number_member(rest, "synced").unwrap_or((0, rest));
    let event = EventText::parse(format!("{{{rest}")).map_err(|error| error.to_string())?;
    Ok((seq, event))
}

/// The number in `"name":17,` at the start of `text`, and what follows it.
fn number_member<'a>(text: &'a str, name: &str) -> Option<(u64, &'a str)> {
    let rest = text
        .strip_prefix('"')?
        .strip_prefix(name)?
        .strip_prefix("\":")?;
    let (digits, rest) = rest.split_once(',')?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some((number, rest))
}

/// The checksum's digits and the bytes that it covers: after the comma, through the last brace.
fn covered_bytes(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(CRC_PREFIX)?;
    let (digits, rest) = rest.split_at_checked(CRC_DIGITS)?;
    let body = rest.strip_prefix(CRC_SUFFIX)?;
    body.ends_with(b"}").then_some((digits, body))
}

/// A record's line as the log would write it, for fabricated evidence in tests.
#[cfg(test)]
pub(crate) fn fabricate_line(seq: u64, event: &str) -> String {
    let fields = event.strip_prefix('{').unwrap();
    let body = format!("\"seq\":{seq},\"synced\":0,{fields}");
    format!("{{\"crc\":\"{:08x}\",{body}", crc32c(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"ts":5,"op":"add","id":"bd-t0w1","data":{"id":"bd-t0w1","n":1.0}}"#;

    fn segment(bytes: impl Into<Vec<u8>>) -> Segment {
        Segment {
            name: format!("log-{:020}.jsonl", 1),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn a_line_is_read_with_its_data_as_written() {
        let line = fabricate_line(7, EVENT);
        let (records, bad) = parse_segment(&segment(format!("{line}\n\n\n")));
        assert_eq!(bad, []);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].seq, 7);
        assert_eq!(
            records[0].event,
            EventText::parse(EVENT.to_owned()).unwrap()
        );
        assert_eq!(
            (records[0].event.id.as_str(), records[0].event.json.as_str()),
            ("bd-t0w1", EVENT)
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let line = fabricate_line(7, EVENT);
        for index in 0..line.len() {
            let mut bytes = format!("{line}\n").into_bytes();
            bytes[index] ^= 1;
            let (records, bad) = parse_segment(&segment(bytes));
            assert!(records.is_empty(), "byte {index}");
            assert!(!bad.is_empty(), "byte {index}");
        }
    }

    #[test]
    fn a_torn_end_and_a_gap_of_empty_lines_are_bad() {
        let line = fabricate_line(7, EVENT);
        for length in 1..=line.len() {
            let torn = &line[..length];
            let (records, bad) = parse_segment(&segment(format!("{line}\n{torn}")));
            assert_eq!((records.len(), bad.len()), (1, 1));
            assert_eq!(bad[0].place.offset, line.len() as u64 + 1);
        }
        let (records, bad) = parse_segment(&segment(format!("{line}\n\n{line}\n")));
        assert_eq!((records.len(), bad.len()), (2, 1));
        assert_eq!(bad[0].place.offset, line.len() as u64 + 1);
    }

    #[test]
    fn only_segments_have_a_segments_name() {
        assert_eq!(first_seq("log-00000000000000000017.jsonl"), Some(17));
        for name in [
            "log-17.jsonl",
            "log-00000000000000000017.jsonl.tmp",
            "lock",
            "MANIFEST",
        ] {
            assert!(!is_segment(name), "{name}");
        }
    }
}
