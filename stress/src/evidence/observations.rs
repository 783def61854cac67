//! The journal of a follower: every record that it got, in a file outside the store.

use serde::{Deserialize, Serialize};

use crate::evidence::fold::StateDigest;
use crate::evidence::stored;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Record {
        /// When it was seen.
        at_ns: u64,
        /// Whether the follower was waiting for it.
        live: bool,
        /// Its line without the newline.
        line: Vec<u8>,
    },
    /// The next record was compacted away, and the state behind it loaded instead.
    Gap {
        /// The record that was asked for.
        from_seq: u64,
        /// The last record of the snapshot that was named.
        snapshot_seq: u64,
        /// The state that was loaded.
        loaded: StateDigest,
    },
}

/// A journal, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Its whole lines.
    pub entries: Vec<Entry>,
    /// The length of its whole lines.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct GapText {
    from_seq: u64,
    snapshot_seq: u64,
    loaded: StateDigest,
}

impl Entry {
    /// The line, with its newline.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        match self {
            Entry::Record { at_ns, live, line } => {
                let mut text = format!("R {at_ns} {} ", u8::from(*live)).into_bytes();
                text.extend_from_slice(line);
                text.push(b'\n');
                text
            }
            Entry::Gap {
                from_seq,
                snapshot_seq,
                loaded,
            } => {
                let gap = GapText {
                    from_seq: *from_seq,
                    snapshot_seq: *snapshot_seq,
                    loaded: *loaded,
                };
                let text = serde_json::to_string(&gap)
                    .unwrap_or_else(|error| unreachable!("numbers can be written: {error}"));
                format!("G {text}\n").into_bytes()
            }
        }
    }

    fn parse(line: &[u8]) -> Option<Entry> {
        if let Some(text) = line.strip_prefix(b"G ") {
            let gap: GapText = serde_json::from_slice(text).ok()?;
            return Some(Entry::Gap {
                from_seq: gap.from_seq,
                snapshot_seq: gap.snapshot_seq,
                loaded: gap.loaded,
            });
        }
        let mut words = line.strip_prefix(b"R ")?.splitn(3, |&byte| byte == b' ');
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
        Some(Entry::Record {
            at_ns: number(words.next()?)?,
            live: number(words.next()?)? == 1,
            line: words.next()?.to_vec(),
        })
    }

    /// The record or state that the follower knew last after this.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        match self {
            Entry::Record { line, .. } => stored::parse_line(line).ok().map(|(seq, _)| seq),
            Entry::Gap { loaded, .. } => Some(loaded.seq),
        }
    }
}

impl Journal {
    /// Takes a journal apart, but for a last line that has no end.
    ///
    /// # Errors
    /// A whole line is none that a follower writes.
    pub fn parse(bytes: &[u8]) -> Result<Journal, String> {
        let mut journal = Journal::default();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            let entry = Entry::parse(text)
                .ok_or_else(|| format!("the journal has a bad line at byte {}", journal.bytes))?;
            journal.entries.push(entry);
            journal.bytes += line.len() as u64;
        }
        Ok(journal)
    }

    /// The record to go on with.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        let last = self.entries.last().and_then(Entry::seq);
        last.map_or(1, |seq| seq + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::stored::fabricate_line;

    #[test]
    fn a_journal_survives_and_goes_on_behind_its_last_whole_line() {
        let line = fabricate_line(7, r#"{"ts":5,"op":"close","id":"a b","data":null}"#);
        let entries = [
            Entry::Gap {
                from_seq: 1,
                snapshot_seq: 5,
                loaded: StateDigest {
                    seq: 6,
                    issues: 1,
                    without_effect: 2,
                    digest: u64::MAX,
                },
            },
            Entry::Record {
                at_ns: 3,
                live: true,
                line: line.into_bytes(),
            },
        ];
        let mut bytes = Vec::new();
        for (entry, next) in entries.iter().zip([7, 8]) {
            bytes.extend(entry.to_line());
            assert_eq!(Journal::parse(&bytes).unwrap().next_seq(), next);
        }
        let whole = Journal::parse(&bytes).unwrap();
        assert_eq!(whole.entries, entries);
        assert_eq!(whole.bytes, bytes.len() as u64);
        bytes.extend(b"R 5 1 {");
        assert_eq!(Journal::parse(&bytes).unwrap(), whole);
        assert!(Journal::parse(b"nonsense\n").is_err());
    }
}
