//! The stored records, read from the files' bytes without any help of the log: the oracle must not
//! take the log's word for what the log has written.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::evidence::crc32c::crc32c;
use crate::evidence::ids::{parse_event_id, parse_operation_key};

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

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its sequence number.
    pub seq: u64,
    /// Its event, or those of its batch.
    pub events: Vec<EventText>,
    /// The line without its newline.
    pub line: Vec<u8>,
    /// Where it is.
    pub place: Place,
}

impl StoredRecord {
    /// The agent and the write that made it: by its idempotency key, or else by the issue's id.
    #[must_use]
    pub fn owner(&self) -> Option<(u32, u32)> {
        let first = self.events.first()?;
        match &first.key {
            Some(key) => parse_operation_key(key),
            None if self.events.len() == 1 => parse_event_id(&first.id),
            None => None,
        }
    }

    /// Its events as JSON, one behind the other.
    #[must_use]
    pub fn text(&self) -> String {
        let events = self.events.iter().map(|event| event.json.as_str());
        events.collect::<Vec<_>>().join(",")
    }
}

/// A file of a snapshot, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// It has what the records behind this one changed; 0 for a base, which has all.
    pub after: u64,
    /// The last record that it says it reflects.
    pub seq: u64,
    /// How many issues a run says there are, in the files before it, too.
    pub all_issues: Option<u64>,
    /// The number of events without effect.
    pub without_effect: u64,
    /// Id, version and text of each issue, in the order of the file.
    pub issues: Vec<(String, u64, String)>,
    /// Id and version of each deleted issue.
    pub tombstones: Vec<(String, u64)>,
    /// Idempotency keys with their records.
    pub keys: Vec<(String, u64)>,
}

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredManifest {
    /// The first record of the log.
    pub first_seq: u64,
    /// The base of the live snapshot.
    #[serde(default)]
    pub snapshot: Option<Mark>,
    /// The runs behind it.
    #[serde(default)]
    pub runs: Vec<Mark>,
}

impl StoredManifest {
    /// The names of the live snapshot's files, with what is said of each.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Mark)> {
        let mut after = 0;
        let marks = self.snapshot.iter().chain(&self.runs);
        let files = marks.map(|mark| {
            let name = if after == 0 {
                format!("snapshot-{:020}.jsonl", mark.seq)
            } else {
                format!("run-{:020}-{:020}.jsonl", after + 1, mark.seq)
            };
            after = mark.seq;
            (name, *mark)
        });
        files.collect()
    }
}

/// A file of the live snapshot, as the manifest describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Mark {
    /// The last record that it reflects.
    pub seq: u64,
    /// The file's length.
    pub bytes: u64,
    /// The checksum of all of it.
    pub crc: u32,
}

/// An event as it is written, down to the byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventText {
    /// The issue it is about.
    pub id: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Its JSON object.
    pub json: String,
}

/// Bytes in a segment that are no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Where it starts.
    pub place: Place,
    /// The reason.
    pub reason: String,
    /// Its first bytes.
    pub excerpt: String,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct SnapshotHeader {
    snapshot: u64,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    all_issues: Option<u64>,
    issues: usize,
    tombstones: usize,
    keys: usize,
    without_effect: u64,
}

#[derive(Deserialize)]
struct SnapshotLine<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    deleted_ms: Option<i64>,
    #[serde(borrow, default)]
    issue: Option<&'a RawValue>,
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
    /// The message of the JSON parser.
    pub fn parse(json: String) -> Result<EventText, serde_json::Error> {
        let Named { id, key } = serde_json::from_str(&json)?;
        let (id, key) = (id.into_owned(), key.map(Cow::into_owned));
        Ok(EventText { id, key, json })
    }
}

/// Reads the segments of the store in `dir` in the order of their names, which is that of their
/// first sequence numbers.
///
/// # Errors
/// The directory or a file could not be read.
pub fn read_segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut names = names(dir)?;
    names.retain(|name| is_segment(name));
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

/// The names in a directory, sorted.
///
/// # Errors
/// The directory could not be read.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Whether `name` is that of a file of a snapshot.
#[must_use]
pub fn is_snapshot(name: &str) -> bool {
    reflects(name).is_some()
}

/// The records that a file of a snapshot reflects, by its name: those behind the first number,
/// through the second. `snapshot-<20 digits>.jsonl` or `run-<20 digits>-<20 digits>.jsonl`.
#[must_use]
pub fn reflects(name: &str) -> Option<(u64, u64)> {
    if let Some(seq) = number_in_name(name, "snapshot-") {
        return Some((0, seq));
    }
    let (first, _) = name.strip_prefix("run-")?.split_once('-')?;
    let through = number_in_name(name, &format!("run-{first}-"))?;
    let first = number_in_name(&format!("{first}.jsonl"), "")?;
    Some((first.checked_sub(1)?, through))
}

/// Whether `name` is that of a segment: `log-<20 digits>.jsonl`.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    first_seq(name).is_some()
}

/// A name of a file that is being written, and will replace `name`.
#[must_use]
pub fn new_name(name: &str) -> String {
    format!("{name}.00c0ffee00c0ffee.new")
}

/// The sequence number in a segment's name.
#[must_use]
pub fn first_seq(name: &str) -> Option<u64> {
    number_in_name(name, "log-")
}

fn number_in_name(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".jsonl")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits {
        digits.parse().ok()
    } else {
        None
    }
}

/// Takes a segment apart that is followed by the one which begins with record `successor`. Behind
/// the record before that there is only free space, of which a crash may have left anything.
#[must_use]
pub fn parse_followed_segment(
    segment: &Segment,
    successor: u64,
) -> (Vec<StoredRecord>, Vec<BadLine>) {
    let (mut records, mut bad) = parse_segment(segment);
    if let Some(last) = records
        .iter()
        .position(|record| record.seq + 1 == successor)
    {
        records.truncate(last + 1);
        let end = records.last().map_or(0, |record| record.place.offset);
        bad.retain(|bad| bad.place.offset < end);
    }
    (records, bad)
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
                report(blank, "there are empty lines before a record");
            }
            match line.strip_suffix(b"\n") {
                None => report(offset, "the last line has no newline"),
                Some(line) => match parse_line(line) {
                    Ok((seq, events)) => records.push(StoredRecord {
                        seq,
                        events,
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

/// The text behind a line's checksum, which is that of its bytes.
fn checked_text(line: &[u8]) -> Result<&str, String> {
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
    std::str::from_utf8(body).map_err(|error| error.to_string())
}

/// Reads one record's line, without its newline.
///
/// # Errors
/// Describes what is wrong with it.
pub fn parse_line(line: &[u8]) -> Result<(u64, Vec<EventText>), String> {
    // The log's own members come first, and the rest is the event's object, or a batch of them.
    let body = checked_text(line)?;
    let (seq, rest) = number_member(body, "seq").ok_or("there is no number behind the checksum")?;
    let (_, rest) = number_member(rest, "synced").unwrap_or((0, rest));
    let texts = match rest.strip_prefix("\"batch\":") {
        None => vec![format!("{{{rest}")],
        Some(batch) => {
            let batch = batch.strip_suffix('}').unwrap_or_default();
            let events: Vec<&RawValue> =
                serde_json::from_str(batch).map_err(|error| error.to_string())?;
            events.iter().map(|event| event.get().to_owned()).collect()
        }
    };
    let events = texts.into_iter().map(EventText::parse);
    let events: Vec<EventText> = events
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let keys = events.iter().skip(1).filter(|event| event.key.is_some());
    match keys.count() {
        0 => Ok((seq, events)),
        _ => Err("an idempotency key is behind the first event of a batch".to_owned()),
    }
}

/// Takes a file of a snapshot apart.
///
/// # Errors
/// Describes what is wrong with it, and in which line.
pub fn parse_snapshot(bytes: &[u8]) -> Result<StoredSnapshot, String> {
    let bytes = bytes.strip_suffix(b"\n").ok_or("it has no end")?;
    let mut lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let (_, first) = lines.next().ok_or("it is empty")?;
    let text = |line| checked_text(line).map(|text| format!("{{{text}"));
    let header: SnapshotHeader =
        serde_json::from_str(&text(first)?).map_err(|error| error.to_string())?;
    let mut snapshot = StoredSnapshot {
        after: header.after,
        seq: header.snapshot,
        all_issues: header.all_issues,
        without_effect: header.without_effect,
        issues: Vec::new(),
        tombstones: Vec::new(),
        keys: Vec::new(),
    };
    for (index, line) in lines {
        let at = |error: String| format!("line {}: {error}", index + 1);
        let text = text(line).map_err(at)?;
        let line: SnapshotLine<'_> =
            serde_json::from_str(&text).map_err(|error| at(error.to_string()))?;
        match (
            line.id,
            line.version,
            line.issue,
            line.deleted_ms,
            line.key,
            line.seq,
        ) {
            (Some(id), Some(version), Some(issue), None, None, None) => {
                let issue = issue.get().to_owned();
                snapshot.issues.push((id.into_owned(), version, issue));
            }
            (Some(id), Some(version), None, Some(_), None, None) => {
                snapshot.tombstones.push((id.into_owned(), version));
            }
            (None, None, None, None, Some(key), Some(seq)) => {
                snapshot.keys.push((key.into_owned(), seq));
            }
            _ => return Err(at("it is neither issue, tombstone nor key".to_owned())),
        }
    }
    let counts = (
        snapshot.issues.len(),
        snapshot.tombstones.len(),
        snapshot.keys.len(),
    );
    if counts == (header.issues, header.tombstones, header.keys) {
        Ok(snapshot)
    } else {
        Err(format!(
            "it has {counts:?} issues, tombstones and keys, and says otherwise"
        ))
    }
}

/// Reads the manifest's line.
///
/// # Errors
/// Describes what is wrong with it.
pub fn parse_manifest(bytes: &[u8]) -> Result<StoredManifest, String> {
    let line = bytes.strip_suffix(b"\n").ok_or("it has no end")?;
    let text = format!("{{{}", checked_text(line)?);
    serde_json::from_str(&text).map_err(|error| error.to_string())
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

/// A record's line as the log would write it, without its newline: for torn tails, and fabricated
/// evidence in tests. `event` is an object.
pub(crate) fn fabricate_line(seq: u64, event: &str) -> String {
    let fields = event.strip_prefix('{').unwrap_or(event);
    with_checksum(&format!("\"seq\":{seq},\"synced\":0,{fields}"))
}

/// A line of these members, which come without the opening brace.
pub(crate) fn with_checksum(body: &str) -> String {
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
            records[0].events,
            [EventText::parse(EVENT.to_owned()).unwrap()]
        );
        let event = &records[0].events[0];
        assert_eq!((event.id.as_str(), event.json.as_str()), ("bd-t0w1", EVENT));
        assert_eq!(records[0].owner(), Some((0, 1)));
    }

    #[test]
    fn a_batch_is_read_event_by_event_with_its_key() {
        let close = r#"{"ts":5,"op":"close","id":"b","data":null}"#;
        let keyed = EVENT.replace(r#","n":1.0}}"#, r#","n":1.0},"key":"a3w4"}"#);
        let line = fabricate_line(7, &format!(r#"{{"batch":[{keyed},{close}]}}"#));
        let (records, bad) = parse_segment(&segment(format!("{line}\n")));
        assert_eq!(bad, []);
        assert_eq!(records[0].owner(), Some((3, 4)));
        assert_eq!(records[0].text(), format!("{keyed},{close}"));
        let line = fabricate_line(7, &format!(r#"{{"batch":[{close},{keyed}]}}"#));
        let (records, bad) = parse_segment(&segment(format!("{line}\n")));
        assert_eq!((records.len(), bad.len()), (0, 1));
    }

    #[test]
    fn a_snapshot_is_read_and_every_changed_byte_noticed() {
        let header =
            r#""snapshot":7,"store":"x","issues":1,"tombstones":1,"keys":1,"without_effect":2}"#;
        let lines = [
            header,
            r#""id":"a","version":3,"issue":{"id":"a","n":1.10}}"#,
            r#""id":"b","version":4,"deleted_ms":5}"#,
            r#""key":"k","seq":6}"#,
        ];
        let text = lines.map(with_checksum).join("\n") + "\n";
        let snapshot = parse_snapshot(text.as_bytes()).unwrap();
        assert_eq!((snapshot.seq, snapshot.without_effect), (7, 2));
        assert_eq!(
            snapshot.issues,
            [("a".to_owned(), 3, r#"{"id":"a","n":1.10}"#.to_owned())]
        );
        assert_eq!(snapshot.tombstones, [("b".to_owned(), 4)]);
        assert_eq!(snapshot.keys, [("k".to_owned(), 6)]);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            assert!(parse_snapshot(&bytes).is_err(), "byte {index}");
        }
        let short = lines[..3].iter().map(|line| with_checksum(line));
        let short = short.collect::<Vec<_>>().join("\n") + "\n";
        assert!(parse_snapshot(short.as_bytes()).is_err());
    }

    #[test]
    fn a_manifest_says_where_the_log_begins() {
        let old = with_checksum(r#""format":1,"store":"x","first_seq":1}"#) + "\n";
        let manifest = parse_manifest(old.as_bytes()).unwrap();
        assert_eq!((manifest.first_seq, manifest.snapshot), (1, None));
        let new = r#""format":2,"store":"x","first_seq":8,"snapshot":{"seq":7,"bytes":1,"crc":2}}"#;
        let manifest = parse_manifest((with_checksum(new) + "\n").as_bytes()).unwrap();
        let mark = Mark {
            seq: 7,
            bytes: 1,
            crc: 2,
        };
        assert_eq!((manifest.first_seq, manifest.snapshot), (8, Some(mark)));
        let runs = r#""format":3,"store":"x","first_seq":10,"snapshot":{"seq":7,"bytes":1,"crc":2},"runs":[{"seq":9,"bytes":3,"crc":4}]}"#;
        let manifest = parse_manifest((with_checksum(runs) + "\n").as_bytes()).unwrap();
        let names: Vec<String> = manifest.files().into_iter().map(|(name, _)| name).collect();
        let run = "run-00000000000000000008-00000000000000000009.jsonl";
        assert_eq!(names, ["snapshot-00000000000000000007.jsonl", run]);
        assert_eq!(reflects(run), Some((7, 9)));
        assert_eq!(reflects("run-00000000000000000008.jsonl"), None);
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
