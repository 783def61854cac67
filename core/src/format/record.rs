//! The bytes of a record, and the names of files.

use strand_lock::crc32c_append;

use crate::{
    error::{CorruptReason, Error, InvalidEvent},
    format::{
        i_json::{self, PAYLOAD_NESTING_MAX},
        search,
    },
};

/// The version of the format that this crate writes. It reads all earlier ones. [`crate::check`]
/// reports that of a store.
///
/// Example: [`check`](crate::check::check).
pub const FORMAT_VERSION: u64 = 3;

/// The version of a store whose snapshot is one file. Older programs read it.
pub(crate) const FORMAT_WITHOUT_RUNS: u64 = 2;

/// The maximum length of a record in bytes, with its newline. A longer one is
/// [`Error::RecordTooLarge`]; see [`Error`].
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// The largest sequence number of a [`crate::Record`]. An append behind it panics. At a million
/// records a second, a log reaches it in nine years.
pub const SEQ_MAX: u64 = (1 << 48) - 1;

/// The first bytes of every record. A JSON string can't contain them, since its quotes are escaped.
pub(crate) const RECORD_START: &[u8] = br#"{"crc":""#;
const CRC_DIGITS: usize = 8;
/// The offset of the first byte that the checksum covers.
const CHECKED_FROM: usize = RECORD_START.len() + CRC_DIGITS + br#"","#.len();
const BATCH_KEY: &[u8] = br#""batch":"#;

const _: () = assert!(CHECKED_FROM == 18);

/// A record's number, and how far the log was durable when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) seq: u64,
    /// Every record through this one was durable before this line was written.
    pub(crate) synced: u64,
}

/// A line whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) header: Header,
    pub(crate) body: Body<'a>,
}

/// The payload of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// The members of one object, without its opening brace.
    One(&'a [u8]),
    /// An array of objects.
    Batch(&'a [u8]),
}

/// A payload to write: the text of one object, or of an array of objects.
#[derive(Debug)]
pub(crate) struct EncodedPayload {
    text: Vec<u8>,
    batch: bool,
}

impl EncodedPayload {
    /// Takes the JSON text of one object.
    pub(crate) fn one(text: Vec<u8>) -> Result<Self, InvalidEvent> {
        if !text.starts_with(b"{") {
            let message = "it is not an object".to_owned();
            return Err(InvalidEvent::Encoding { message });
        }
        if let Some(member) = i_json::reserved_member(&text) {
            return Err(InvalidEvent::Reserved { member });
        }
        Self::of(text, false)
    }

    /// Takes the JSON text of an array of objects.
    pub(crate) fn batch(text: Vec<u8>) -> Result<Self, InvalidEvent> {
        Self::of(text, true)
    }

    fn of(text: Vec<u8>, batch: bool) -> Result<Self, InvalidEvent> {
        i_json::check(&text, PAYLOAD_NESTING_MAX)?;
        let text = on_one_line(text);
        Ok(Self { text, batch })
    }

    /// The JSON text.
    pub(crate) fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Refuses a payload that does not fit into a record.
    pub(crate) fn check_len(&self) -> Result<(), Error> {
        let bytes = self.line_bytes_max();
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::RecordTooLarge {
                bytes: bytes as u64,
                max: RECORD_BYTES_MAX as u64,
            });
        }
        Ok(())
    }

    /// The length of the whole line with the longest header.
    pub(crate) fn line_bytes_max(&self) -> usize {
        const HEADER_BYTES_MAX: usize =
            CHECKED_FROM + 2 * 15 + br#""seq":,"synced":,"batch":}"#.len() + 1;
        self.text.len() + HEADER_BYTES_MAX
    }

    /// Takes a payload that was encoded before, by this process or another.
    pub(crate) fn encoded(text: Vec<u8>, batch: bool) -> Self {
        Self { text, batch }
    }

    /// The JSON text, and whether it is an array.
    pub(crate) fn parts(&self) -> (&[u8], bool) {
        (&self.text, self.batch)
    }

    /// Replaces `line` with the record and its newline.
    pub(crate) fn write_line(&self, header: Header, line: &mut Vec<u8>) {
        line.clear();
        self.push_line(header, line);
    }

    /// Adds the record and its newline to `lines`.
    pub(crate) fn push_line(&self, header: Header, lines: &mut Vec<u8>) {
        let from = lines.len();
        assert!(header.seq <= SEQ_MAX, "sequence numbers end at {SEQ_MAX}");
        assert!(
            header.synced < header.seq,
            "a record can't be durable before it is written"
        );
        lines.extend_from_slice(br#"{"crc":"00000000","seq":"#);
        push_number(lines, header.seq);
        lines.extend_from_slice(br#","synced":"#);
        push_number(lines, header.synced);
        if self.batch {
            lines.push(b',');
            lines.extend_from_slice(BATCH_KEY);
            lines.extend_from_slice(&self.text);
            lines.push(b'}');
        } else {
            let members = self.text.get(1..).unwrap_or_default();
            if members != b"}" {
                lines.push(b',');
            }
            lines.extend_from_slice(members);
        }
        put_checksum(lines.get_mut(from..).unwrap_or_default());
        lines.push(b'\n');
    }
}

/// The checksum that a line without its newline says it has.
pub(crate) fn stored_checksum(line: &[u8]) -> Option<u32> {
    line.strip_prefix(RECORD_START)?
        .get(..CRC_DIGITS)
        .and_then(hex)
}

/// Writes its checksum into a line without a newline.
pub(crate) fn put_checksum(line: &mut [u8]) {
    let crc = crc32c_append(0, line.get(CHECKED_FROM..).unwrap_or_default());
    let digits = line.iter_mut().skip(RECORD_START.len()).take(CRC_DIGITS);
    for (digit, shift) in digits.zip((0..CRC_DIGITS).rev()) {
        let value = crc >> (4 * shift) & 0xf;
        *digit = char::from_digit(value, 16).map_or(b'0', |c| c as u8);
    }
}

/// Checks the frame and the checksum of a line without its newline. Returns the checked bytes.
pub(crate) fn checked(line: &[u8]) -> Result<&[u8], CorruptReason> {
    let digits = line
        .strip_prefix(RECORD_START)
        .and_then(|rest| rest.get(..CRC_DIGITS));
    let stored = digits.and_then(hex).ok_or(CorruptReason::NotARecord)?;
    let frame = line.get(RECORD_START.len() + CRC_DIGITS..CHECKED_FROM);
    if frame != Some(br#"","#) || line.last() != Some(&b'}') {
        return Err(CorruptReason::NotARecord);
    }
    let bytes = line.get(CHECKED_FROM..).ok_or(CorruptReason::NotARecord)?;
    let computed = crc32c_append(0, bytes);
    if stored != computed {
        return Err(CorruptReason::Checksum { stored, computed });
    }
    Ok(bytes)
}

impl<'a> Line<'a> {
    /// Parses a line without its newline. Accepts any bytes.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, CorruptReason> {
        let bytes = checked(line)?;
        Self::members(bytes).ok_or(CorruptReason::NotARecord)
    }

    /// Parses a line that [`Line::parse`] has accepted, without checking its checksum again.
    pub(crate) fn trusted(line: &'a [u8]) -> Option<Self> {
        Self::members(line.get(CHECKED_FROM..)?)
    }

    fn members(bytes: &'a [u8]) -> Option<Self> {
        let (seq, rest) = take_number(bytes.strip_prefix(br#""seq":"#)?)?;
        let (synced, rest) = take_number(rest.strip_prefix(br#","synced":"#)?)?;
        if synced >= seq || seq > SEQ_MAX {
            return None;
        }
        let body = match rest.strip_prefix(b",") {
            None if rest == b"}" => Body::One(rest),
            None => return None,
            Some(members) => match members.strip_prefix(BATCH_KEY) {
                Some(array) => Body::Batch(array.strip_suffix(b"}")?),
                None => Body::One(members),
            },
        };
        Some(Self {
            header: Header { seq, synced },
            body,
        })
    }
}

/// Removes white space between tokens where there are newlines, since a record must be one line.
fn on_one_line(text: Vec<u8>) -> Vec<u8> {
    if search::either(b'\n', b'\r', &text).is_none() {
        return text;
    }
    let mut in_string = false;
    let mut escaped = false;
    let keep = |byte: &u8| {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return true;
        }
        in_string = *byte == b'"';
        !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
    };
    let mut text = text;
    text.retain(keep);
    text
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u32::from(digit))
    })
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    use std::io::Write as _;
    write!(line, "{number}").unwrap_or_else(|_| unreachable!("writing to a Vec can't fail"));
}

/// Takes a decimal number without leading zeros.
fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number: u64 = 0;
    let mut rest = bytes;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        rest = behind;
    }
    let digits = bytes.len() - rest.len();
    let is_canonical = digits == 1 || digits > 1 && !bytes.starts_with(b"0");
    is_canonical.then_some((number, rest))
}

/// The name of the snapshot that reflects the records through this one.
pub(crate) fn snapshot_name(seq: u64) -> String {
    format!("snapshot-{seq:020}.jsonl")
}

/// The number in a snapshot's name.
pub(crate) fn snapshot_seq(name: &str) -> Option<u64> {
    numbered(name, "snapshot-", ".jsonl")
}

/// Which records a file of the snapshot reflects: those behind `after`, through `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reflects {
    /// 0 for a file that has all of the state: the base.
    pub(crate) after: u64,
    pub(crate) through: u64,
}

impl Reflects {
    /// Those of a base.
    pub(crate) fn all(through: u64) -> Self {
        Self { after: 0, through }
    }

    pub(crate) fn is_base(self) -> bool {
        self.after == 0
    }

    /// The name of the file: a snapshot, or a run of what changed since one.
    pub(crate) fn name(self) -> String {
        let Self { after, through } = self;
        match after {
            0 => snapshot_name(through),
            _ => format!("run-{:020}-{through:020}.jsonl", after + 1),
        }
    }

    /// The records that the file with this name reflects.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        if let Some(through) = snapshot_seq(name) {
            return Some(Self::all(through));
        }
        let (first, through) = name.strip_prefix("run-")?.split_once('-')?;
        let (first, through) = (number(first)?, number(through.strip_suffix(".jsonl")?)?);
        let after = first.checked_sub(1)?;
        (0 < after && after < through).then_some(Self { after, through })
    }
}

/// The line behind the last record of a segment that has a successor: a copy that lacks that one
/// shows it. White space only, which programs that read JSON skip.
pub(crate) const END_MARK: &[u8] = b"\t \t \t \t\n";

/// The name of the segment whose first record has this number.
pub(crate) fn segment_name(first_seq: u64) -> String {
    format!("log-{first_seq:020}.jsonl")
}

/// The number in a segment's name.
pub(crate) fn segment_first_seq(name: &str) -> Option<u64> {
    numbered(name, "log-", ".jsonl")
}

/// The name of the file of the issues that are not closed, beside the snapshot with this number.
pub(crate) fn unclosed_name(seq: u64) -> String {
    format!("unclosed-{seq:020}.jsonl")
}

/// The number in such a name.
pub(crate) fn unclosed_seq(name: &str) -> Option<u64> {
    numbered(name, "unclosed-", ".jsonl")
}

/// The name of the index over the segment whose first record has this number.
pub(crate) fn index_name(first_seq: u64) -> String {
    format!("log-{first_seq:020}.index")
}

/// The number in an index's name.
pub(crate) fn index_first_seq(name: &str) -> Option<u64> {
    numbered(name, "log-", ".index")
}

/// The name of the file of the issues that are not closed after a record of the segment whose first
/// record has this number.
pub(crate) fn recent_name(first_seq: u64) -> String {
    format!("log-{first_seq:020}.unclosed")
}

/// The number in such a name.
pub(crate) fn recent_first_seq(name: &str) -> Option<u64> {
    numbered(name, "log-", ".unclosed")
}

/// Whether a file of this name only makes answers faster.
pub(crate) fn is_hint(name: &str) -> bool {
    let number = index_first_seq(name).or(recent_first_seq(name));
    number.or(unclosed_seq(name)).is_some()
}

fn numbered(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    number(name.strip_prefix(prefix)?.strip_suffix(suffix)?)
}

/// A number in a name.
fn number(digits: &str) -> Option<u64> {
    let number = (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten();
    number.filter(|number| *number <= SEQ_MAX)
}
