//! The event of each write, as a function of the seed, the agent and the number of the write: the
//! agent makes it, and the oracle makes it again to compare it with what is stored.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strand_core::{Issue, IssueEvent, Op, Timestamp};

use crate::evidence::fold::issue_digest;
use crate::evidence::ids::{EPOCH_MS, event_id};
use crate::random::SplitMix64;

/// Made-up records differ in length, so that remains of one show behind another in its place.
const SMALL_DESCRIPTION_BYTES_MAX: usize = 300;
/// The frame of a record (checksum, seq, synced, ts, op, id) is about this long.
const FRAME_BYTES: usize = 110;

/// Where events come from; small enough to hand to each agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadSource {
    /// Made up, and small.
    Small,
    /// Made up, with a description that makes the record about so many bytes long.
    Padded {
        /// The length to come near to.
        record_bytes: usize,
    },
    /// The lines of a file in turn, with new ids.
    File {
        /// JSONL, one event a line.
        path: PathBuf,
    },
}

/// A file of events could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The file could not be read.
    #[error("cannot read the events in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has no lines.
    #[error("there are no events in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not an event.
    #[error("line {line} of {path} is not an event: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The message of the parser.
        reason: String,
    },
}

/// The events of a run.
#[derive(Debug)]
pub struct Payloads {
    seed: u64,
    /// Writes of each agent, so that agents take different parts of a file.
    writes: u32,
    kind: Kind,
    /// The lines of each agent in a replay.
    parts: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Kind {
    Made {
        record_bytes: usize,
    },
    File {
        path: PathBuf,
        text: String,
        lines: Vec<Range<usize>>,
    },
}

impl Payloads {
    /// Prepares the events of a run. A file is read, and not parsed before an event is asked for:
    /// a process that makes one write should not pay for twelve thousand.
    ///
    /// # Errors
    /// [`PayloadError::Read`] and [`PayloadError::Empty`].
    pub fn open(source: &PayloadSource, seed: u64, writes: u32) -> Result<Payloads, PayloadError> {
        let kind = match source {
            PayloadSource::Small => Kind::Made { record_bytes: 0 },
            PayloadSource::Padded { record_bytes } => Kind::Made {
                record_bytes: *record_bytes,
            },
            PayloadSource::File { path } => {
                let text = std::fs::read_to_string(path).map_err(|source| PayloadError::Read {
                    path: path.clone(),
                    source,
                })?;
                let lines = line_ranges(&text);
                if lines.is_empty() {
                    return Err(PayloadError::Empty { path: path.clone() });
                }
                Kind::File {
                    path: path.clone(),
                    text,
                    lines,
                }
            }
        };
        Ok(Payloads {
            seed,
            writes,
            kind,
            parts: Vec::new(),
        })
    }

    /// Gives each line of a file to one of `agents`, all lines of one issue to the same.
    ///
    /// # Errors
    /// [`PayloadError::Invalid`] with the first line that is not an event.
    pub fn partition(&mut self, agents: u32) -> Result<(), PayloadError> {
        let Kind::File { path, text, lines } = &self.kind else {
            return Ok(());
        };
        let mut parts = vec![Vec::new(); agents as usize];
        for index in 0..lines.len() {
            let id = parse_line(path, text, lines, index)?.id;
            let hash = issue_digest(&id, 0, "") % u64::from(agents.max(1));
            let part = usize::try_from(hash)
                .ok()
                .and_then(|agent| parts.get_mut(agent));
            if let Some(part) = part {
                part.push(index);
            }
        }
        self.parts = parts;
        Ok(())
    }

    /// How many writes each agent has: after [`Payloads::partition`], its lines.
    #[must_use]
    pub fn writes_of(&self, agents: u32) -> Vec<u32> {
        if self.parts.is_empty() {
            return vec![self.writes; agents as usize];
        }
        let parts = self.parts.iter();
        parts
            .map(|part| u32::try_from(part.len()).unwrap_or(u32::MAX))
            .collect()
    }

    /// A line of the file as it is; `write` counts the agent's own lines from 1.
    ///
    /// # Errors
    /// [`PayloadError::Invalid`]: it is not an event.
    pub fn replayed(&self, agent: u32, write: u32) -> Result<IssueEvent, PayloadError> {
        let part = self.parts.get(agent as usize);
        let index = part.and_then(|part| part.get((write as usize).checked_sub(1)?));
        match (&self.kind, index) {
            (Kind::File { path, text, lines }, Some(index)) => {
                parse_line(path, text, lines, *index)
            }
            _ => Err(PayloadError::Empty {
                path: PathBuf::new(),
            }),
        }
    }

    /// All events of the file in its order.
    pub fn file(&self) -> impl Iterator<Item = Result<IssueEvent, PayloadError>> {
        let (path, text, lines): (&Path, &str, &[Range<usize>]) = match &self.kind {
            Kind::File { path, text, lines } => (path, text, lines),
            Kind::Made { .. } => (Path::new(""), "", &[]),
        };
        (0..lines.len()).map(move |index| parse_line(path, text, lines, index))
    }

    /// Checks the events of a whole run of `agents` by `writes`.
    ///
    /// # Errors
    /// [`PayloadError::Invalid`] with the first line that is not an event.
    pub fn check(&self, agents: u32) -> Result<(), PayloadError> {
        if let Kind::File { path, text, lines } = &self.kind {
            let used = u64::from(agents) * u64::from(self.writes);
            for index in 0..lines.len().min(usize::try_from(used).unwrap_or(usize::MAX)) {
                parse_line(path, text, lines, index)?;
            }
        }
        Ok(())
    }

    /// The event of one write.
    ///
    /// # Errors
    /// [`PayloadError::Invalid`]: the line of the file is not an event.
    pub fn event(&self, agent: u32, write: u32) -> Result<IssueEvent, PayloadError> {
        let id = event_id(agent, write);
        match &self.kind {
            Kind::Made { record_bytes } => Ok(self.made(&id, agent, write, *record_bytes)),
            Kind::File { path, text, lines } => {
                let turn = u64::from(agent) * u64::from(self.writes) + u64::from(write) - 1;
                let index = usize::try_from(turn % lines.len() as u64).unwrap_or(0);
                let mut event = parse_line(path, text, lines, index)?;
                let invalid = |reason: String| PayloadError::Invalid {
                    path: path.clone(),
                    line: index + 1,
                    reason,
                };
                if let Some(data) = event.data.take() {
                    event.data = Some(
                        data.with("id", &id)
                            .map_err(|error| invalid(error.to_string()))?,
                    );
                }
                event.id = id;
                Ok(event)
            }
        }
    }

    /// The op of one write's event, unless it is generated, and an issue for it.
    ///
    /// # Errors
    /// As [`Payloads::event`].
    pub fn op_and_issue(
        &self,
        agent: u32,
        write: u32,
    ) -> Result<(Option<Op>, Issue), PayloadError> {
        let event = self.event(agent, write)?;
        let op = matches!(self.kind, Kind::File { .. }).then_some(event.op);
        let made = || Issue::new_at(&event.id, "An issue without a text", event.ts);
        let issue = event.data.clone().unwrap_or_else(made);
        Ok((op, issue))
    }

    /// The JSON text of one write's event, as the oracle expects to find it.
    ///
    /// # Errors
    /// As [`Payloads::event`].
    pub fn expected(&self, agent: u32, write: u32) -> Result<String, PayloadError> {
        let event = self.event(agent, write)?;
        serde_json::to_string(&event).map_err(|error| PayloadError::Invalid {
            path: PathBuf::new(),
            line: 0,
            reason: error.to_string(),
        })
    }

    fn made(&self, id: &str, agent: u32, write: u32, record_bytes: usize) -> IssueEvent {
        let ts = EPOCH_MS + i64::from(agent) * 1_000 + i64::from(write);
        let mut noise = SplitMix64(self.seed ^ (u64::from(agent) << 32) ^ u64::from(write));
        let mut title = String::with_capacity(64);
        assert!(
            write!(title, "Agent {agent}, write {write}, {:016x}", noise.next()).is_ok(),
            "writing to memory does not fail"
        );
        let issue = Issue::new_at(id, &title, Timestamp::from_ms(ts));
        let description_bytes = match record_bytes.checked_sub(issue.as_json().len() + FRAME_BYTES)
        {
            None | Some(0) => noise.below(SMALL_DESCRIPTION_BYTES_MAX),
            Some(missing) => missing - missing / 8 + noise.below(missing / 4),
        };
        let description = padding(&mut noise, description_bytes);
        let issue = issue
            .with("description", &description)
            .unwrap_or_else(|error| unreachable!("text can be written as JSON: {error}"));
        IssueEvent::add(issue, Timestamp::from_ms(ts))
    }
}

/// Text whose JSON form is about `json_bytes` long, with characters that need escaping.
fn padding(noise: &mut SplitMix64, json_bytes: usize) -> String {
    const ALPHABET: [char; 64] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r',
        's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J',
        'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', '0', '1', '2', '3', '4', '5',
        '6', '7', '8', '9', ' ', '\n', '"', '\\', '{', 'é',
    ];
    let mut text = String::with_capacity(json_bytes);
    let mut length = 0;
    while length < json_bytes {
        let mut bits = noise.next();
        for _ in 0..10 {
            let index = usize::try_from(bits % 64).unwrap_or(0);
            let character = ALPHABET.get(index).copied().unwrap_or('-');
            text.push(character);
            length += if matches!(character, '\n' | '"' | '\\' | 'é') {
                2
            } else {
                1
            };
            bits >>= 6;
            if length >= json_bytes {
                break;
            }
        }
    }
    text
}

fn line_ranges(text: &str) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        if !line.trim().is_empty() {
            lines.push(start..end);
        }
        start = end;
    }
    lines
}

fn parse_line(
    path: &Path,
    text: &str,
    lines: &[Range<usize>],
    index: usize,
) -> Result<IssueEvent, PayloadError> {
    let line = lines
        .get(index)
        .and_then(|range| text.get(range.clone()))
        .unwrap_or_default();
    serde_json::from_str(line.trim()).map_err(|error| PayloadError::Invalid {
        path: path.to_owned(),
        line: index + 1,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_depend_on_seed_agent_and_write_and_on_nothing_else() {
        let text = |seed, agent, write| {
            let source = PayloadSource::Padded { record_bytes: 500 };
            Payloads::open(&source, seed, 20)
                .unwrap()
                .expected(agent, write)
                .unwrap()
        };
        assert_eq!(text(1, 2, 3), text(1, 2, 3));
        assert_ne!(text(1, 2, 3), text(2, 2, 3));
        assert_ne!(text(1, 2, 3), text(1, 3, 3));
        assert_ne!(text(1, 2, 3), text(1, 2, 4));
    }

    #[test]
    fn padding_makes_records_of_about_the_size_asked_for() {
        for record_bytes in [600_usize, 1_000, 10_000] {
            let source = PayloadSource::Padded { record_bytes };
            let payloads = Payloads::open(&source, 9, 99).unwrap();
            let lengths: Vec<usize> = (1..=99)
                .map(|write| payloads.expected(1, write).unwrap().len())
                .collect();
            let mean = lengths.iter().sum::<usize>() / lengths.len();
            assert!(
                mean.abs_diff(record_bytes) < record_bytes / 8,
                "{mean} for {record_bytes}"
            );
            assert!(
                lengths
                    .iter()
                    .all(|bytes| bytes.abs_diff(record_bytes) < record_bytes / 4)
            );
        }
    }

    #[test]
    fn made_up_records_differ_in_length() {
        let payloads = Payloads::open(&PayloadSource::Small, 9, 99).unwrap();
        let lengths: std::collections::BTreeSet<usize> = (1..=99)
            .map(|write| payloads.expected(1, write).unwrap().len())
            .collect();
        assert!(lengths.len() > 50, "{lengths:?}");
    }

    #[test]
    fn a_file_gives_its_events_in_turn_with_new_ids() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let lines = [
            r#"{"op":"add","ts":5,"id":"x-1","data":{"id":"x-1","title":"one","odd":[1.50,null]}}"#,
            r#"{"op":"close","ts":6,"id":"x-1","data":null}"#,
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let payloads = Payloads::open(&PayloadSource::File { path }, 1, 2).unwrap();
        payloads.check(2).unwrap();
        let first = payloads.event(1, 1).unwrap();
        assert_eq!(
            (first.id.as_str(), first.ts),
            ("bd-t1w1", Timestamp::from_ms(5))
        );
        let data: serde_json::Value =
            serde_json::from_str(first.data.as_ref().unwrap().as_json()).unwrap();
        assert_eq!(data["id"], "bd-t1w1");
        assert!(
            first
                .data
                .as_ref()
                .unwrap()
                .as_json()
                .contains("[1.50,null]")
        );
        let second = payloads.event(1, 2).unwrap();
        assert_eq!(
            (second.id.as_str(), second.ts),
            ("bd-t1w2", Timestamp::from_ms(6))
        );
        assert!(second.data.is_none());
    }

    #[test]
    fn a_replay_gives_each_line_to_one_agent_and_an_issues_lines_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let line = |number: u32| {
            let id = number % 7;
            format!(r#"{{"op":"close","ts":{number},"id":"x-{id}","data":null}}"#)
        };
        let text: Vec<String> = (0..70).map(line).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        let mut payloads = Payloads::open(&PayloadSource::File { path }, 1, 2).unwrap();
        payloads.partition(3).unwrap();
        let writes = payloads.writes_of(3);
        assert_eq!(writes.iter().sum::<u32>(), 70);
        let mut owners = std::collections::BTreeMap::new();
        for (agent, writes) in (0..).zip(writes) {
            let mut last = -1;
            for write in 1..=writes {
                let event = payloads.replayed(agent, write).unwrap();
                assert!(event.ts > Timestamp::from_ms(last));
                last = event.ts.as_ms();
                assert_eq!(*owners.entry(event.id).or_insert(agent), agent);
            }
            assert!(payloads.replayed(agent, writes + 1).is_err());
        }
        assert_eq!(payloads.file().count(), 70);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let source = PayloadSource::File { path: path.clone() };
        assert!(matches!(
            Payloads::open(&source, 1, 5),
            Err(PayloadError::Read { .. })
        ));
        std::fs::write(&path, "\n\n").unwrap();
        assert!(matches!(
            Payloads::open(&source, 1, 5),
            Err(PayloadError::Empty { .. })
        ));
        let good = r#"{"op":"close","ts":6,"id":"x-1","data":null}"#;
        std::fs::write(&path, format!("{good}\nnonsense\n")).unwrap();
        let payloads = Payloads::open(&source, 1, 5).unwrap();
        assert!(matches!(
            payloads.check(1),
            Err(PayloadError::Invalid { line: 2, .. })
        ));
    }
}
