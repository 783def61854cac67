//! What agents tell the parent through their standard output: one message a line.
//!
//! An agent writes the outcome of one operation and the start of the next with one write, so that
//! reporting costs it one system call per operation. A line without its newline is from an agent
//! that was killed while it wrote, and means nothing.

use std::io::Write as _;
use std::str::SplitAsciiWhitespace;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_core::testing::{Disk, Storage};

use crate::evidence::ledger::{
    CompactionSeen, DurableSeen, Hold, Lead, LockCounters, Sighting, View,
};
use crate::evidence::workload::{Plan, Refusal};
use crate::run::config::{Durability, Sabotage, Workload};
use crate::run::local_disk::LocalDisk;
use crate::run::payload::PayloadSource;

/// What the parent hands to an agent process: one line of JSON on its standard input, which then
/// stays open for as long as the parent lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The store under test.
    pub store: std::path::PathBuf,
    /// The file of the shared page, outside the store.
    pub control: std::path::PathBuf,
    /// Where files of the store stay that are removed from it.
    pub archive: std::path::PathBuf,
    /// What this process is for.
    pub role: Role,
    /// Number of agents in the whole run.
    pub agents: u32,
    /// The highest mark in the shared page that anybody in the run uses.
    pub marks: u32,
    /// What agents write.
    pub workload: Workload,
    /// Whether somebody compacts the store during the run.
    pub compacts: bool,
    /// What this process does: one lane per thread.
    pub lanes: Vec<Lane>,
    /// Writes of each agent in the whole run.
    pub writes: u32,
    /// Decides the payloads.
    pub seed: u64,
    /// Where the events come from.
    pub payload: PayloadSource,
    /// What to ask of the log.
    pub durability: Durability,
    /// When to begin a new segment.
    pub segment_bytes: Option<u64>,
    /// How much free space to make behind the log at a time.
    pub preallocate_bytes: Option<u64>,
    /// The store is on a filesystem of the harness, which the log does not know and is to take for a local one; this names the
    /// start of the machine that it is on.
    pub boot: Option<String>,
    /// How long the log may wait for its lock: longer than the watchdog.
    pub lock_timeout_ms: u64,
    /// Where this process asks to be killed.
    pub kill: Option<KillOrder>,
    /// Report the lock's counters with every operation, since this process may be killed.
    pub counters_always: bool,
    /// What agent 0 is to do wrong.
    pub sabotage: Option<Sabotage>,
}

/// Where a process asks to be killed: it says so, and then stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillOrder {
    /// A point's name, or `any`.
    pub at: String,
    /// At the how-manieth such place it comes to, from 1.
    pub occurrence: u32,
}

/// What a process of the run is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It writes.
    Agent,
    /// It holds a state of the store and refreshes it, again and again.
    Reader {
        /// Its number among the readers.
        number: u32,
    },
    /// It follows the log and writes what it gets to a journal of its own.
    Follower {
        /// Its number among the followers.
        number: u32,
        /// The journal, which its predecessors have begun.
        journal: std::path::PathBuf,
    },
    /// It compacts the store, again and again.
    Compactor {
        /// Its number among the compactors.
        number: u32,
        /// Its mark in the shared page.
        mark: u32,
        /// How long it waits between two compactions.
        every_ms: u64,
    },
}

impl AgentSpec {
    /// Where the store's files are.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        match &self.boot {
            Some(boot) => Arc::new(LocalDisk::new(boot)),
            None => Arc::new(Disk),
        }
    }
}

impl Role {
    /// In one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Reader { .. } => "reader",
            Role::Follower { .. } => "follower",
            Role::Compactor { .. } => "compactor",
        }
    }
}

/// A contiguous part of one agent's writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The agent, from 0.
    pub agent: u32,
    /// Its first write in this process, from 1.
    pub first_write: u32,
    /// Its last write in this process.
    pub last_write: u32,
    /// Read the log after the last write and report what was seen.
    pub view: bool,
    /// What the first write was when a predecessor was killed during it: it is repeated.
    pub repeat: Option<Plan>,
}

/// One message of an agent. All times are [`strand_lock::monotonic_ns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The log is open; the agent waits for the start.
    Ready,
    /// What the next operation will be, with the events as they have to be stored.
    Planned {
        /// Who.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// What.
        plan: Plan,
    },
    /// The operation is about to begin.
    Invoke {
        /// Who.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// When, before the operation.
        at_ns: u64,
    },
    /// The operation was acknowledged.
    Ack {
        /// Who.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// The sequence number in the receipt.
        seq: u64,
        /// Immediately before the call.
        start_ns: u64,
        /// Immediately after the call.
        ack_ns: u64,
        /// Whether it was answered from its idempotency key.
        repeated: bool,
    },
    /// A condition of the operation did not hold.
    Refused {
        /// Who.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Immediately before the call.
        start_ns: u64,
        /// Immediately after the call.
        end_ns: u64,
        /// Which, and what the log says about it.
        refusal: Refusal,
    },
    /// The operation failed.
    Failure {
        /// Who.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Whether the log says that nothing was stored.
        rejected: bool,
        /// Whether the cause lies outside the log: a full disk, a missing permission.
        environment: bool,
        /// The error and its causes.
        error: String,
    },
    /// The committed watermark, read in an interval.
    DurableSeen(DurableSeen),
    /// The lock was held in an interval.
    Hold(Hold),
    /// A sync was led in an interval.
    Lead(Lead),
    /// At `LockHeld`, another agent was marked as a holder.
    Sighting(Sighting),
    /// The lock's counters of this process, from its start.
    Counters(LockCounters),
    /// What a read saw.
    View(View),
    /// What a compactor did.
    Compacted(CompactionSeen),
    /// The agent cannot go on: the log did not open, or a read failed.
    Fatal {
        /// Whether the cause lies outside the log.
        environment: bool,
        /// What failed, and its causes.
        error: String,
    },
    /// The process stands still at this point, and waits to be killed.
    KillMe {
        /// The point's name.
        point: String,
    },
    /// All lanes of this process are finished.
    Done,
}

impl Message {
    /// Appends the line of this message to `out`.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let written = match self {
            Message::Ready => writeln!(out, "ready"),
            Message::Invoke {
                agent,
                write,
                at_ns,
            } => writeln!(out, "I {agent} {write} {at_ns}"),
            Message::Planned { agent, write, plan } => {
                writeln!(out, "P {agent} {write} {}", json(plan))
            }
            Message::Ack {
                agent,
                write,
                seq,
                start_ns,
                ack_ns,
                repeated,
            } => {
                let repeated = u8::from(*repeated);
                writeln!(
                    out,
                    "A {agent} {write} {seq} {start_ns} {ack_ns} {repeated}"
                )
            }
            Message::Refused {
                agent,
                write,
                start_ns,
                end_ns,
                refusal,
            } => {
                let refusal = json(refusal);
                writeln!(out, "R {agent} {write} {start_ns} {end_ns} {refusal}")
            }
            Message::Failure {
                agent,
                write,
                rejected,
                environment,
                error,
            } => {
                let error = json_text(error);
                let (rejected, environment) = (u8::from(*rejected), u8::from(*environment));
                writeln!(out, "F {agent} {write} {rejected} {environment} {error}")
            }
            Message::DurableSeen(DurableSeen {
                begin_ns,
                end_ns,
                seq,
            }) => {
                writeln!(out, "W {begin_ns} {end_ns} {seq}")
            }
            Message::Hold(Hold {
                agent,
                from_ns,
                to_ns,
            }) => {
                writeln!(out, "H {agent} {from_ns} {to_ns}")
            }
            Message::Lead(Lead {
                agent,
                from_ns,
                to_ns,
            }) => {
                writeln!(out, "L {agent} {from_ns} {to_ns}")
            }
            Message::Sighting(Sighting {
                agent,
                at_ns,
                other,
            }) => {
                writeln!(out, "S {agent} {at_ns} {other}")
            }
            Message::Counters(counters) => writeln!(
                out,
                "C {} {} {} {} {} {}",
                counters.acquisitions,
                counters.contended,
                counters.wait_ns,
                counters.longest_wait_ns,
                counters.hold_ns,
                counters.longest_hold_ns
            ),
            Message::View(view) => writeln!(out, "V {}", json(view)),
            Message::Compacted(seen) => writeln!(out, "X {}", json(seen)),
            Message::Fatal { environment, error } => {
                writeln!(out, "fatal {} {}", u8::from(*environment), json_text(error))
            }
            Message::KillMe { point } => writeln!(out, "kill {}", json_text(point)),
            Message::Done => writeln!(out, "done"),
        };
        assert!(written.is_ok(), "writing to memory does not fail");
    }

    /// Reads one line without its newline; `None` when it is not a message.
    #[must_use]
    pub fn parse(line: &str) -> Option<Message> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        // A text or an object is the rest of its line, in JSON.
        let (numbers, text) = match rest.find(['"', '{']) {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, ""),
        };
        let mut words = numbers.split_ascii_whitespace();
        let message = match kind {
            "ready" => Message::Ready,
            "done" => Message::Done,
            "kill" => Message::KillMe {
                point: serde_json::from_str(text).ok()?,
            },
            "I" => Message::Invoke {
                agent: number(&mut words)?,
                write: number(&mut words)?,
                at_ns: number(&mut words)?,
            },
            "P" => Message::Planned {
                agent: number(&mut words)?,
                write: number(&mut words)?,
                plan: serde_json::from_str(text).ok()?,
            },
            "A" => Message::Ack {
                agent: number(&mut words)?,
                write: number(&mut words)?,
                seq: number(&mut words)?,
                start_ns: number(&mut words)?,
                ack_ns: number(&mut words)?,
                repeated: number::<u8>(&mut words)? == 1,
            },
            "R" => Message::Refused {
                agent: number(&mut words)?,
                write: number(&mut words)?,
                start_ns: number(&mut words)?,
                end_ns: number(&mut words)?,
                refusal: serde_json::from_str(text).ok()?,
            },
            "F" => Message::Failure {
                agent: number(&mut words)?,
                write: number(&mut words)?,
                rejected: number::<u8>(&mut words)? == 1,
                environment: number::<u8>(&mut words)? == 1,
                error: serde_json::from_str(text).ok()?,
            },
            "W" => Message::DurableSeen(DurableSeen {
                begin_ns: number(&mut words)?,
                end_ns: number(&mut words)?,
                seq: number(&mut words)?,
            }),
            "H" => Message::Hold(Hold {
                agent: number(&mut words)?,
                from_ns: number(&mut words)?,
                to_ns: number(&mut words)?,
            }),
            "L" => Message::Lead(Lead {
                agent: number(&mut words)?,
                from_ns: number(&mut words)?,
                to_ns: number(&mut words)?,
            }),
            "S" => Message::Sighting(Sighting {
                agent: number(&mut words)?,
                at_ns: number(&mut words)?,
                other: number(&mut words)?,
            }),
            "C" => Message::Counters(LockCounters {
                acquisitions: number(&mut words)?,
                contended: number(&mut words)?,
                wait_ns: number(&mut words)?,
                longest_wait_ns: number(&mut words)?,
                hold_ns: number(&mut words)?,
                longest_hold_ns: number(&mut words)?,
            }),
            "V" => Message::View(serde_json::from_str(text).ok()?),
            "X" => Message::Compacted(serde_json::from_str(text).ok()?),
            "fatal" => Message::Fatal {
                environment: number::<u8>(&mut words)? == 1,
                error: serde_json::from_str(text).ok()?,
            },
            _ => return None,
        };
        words.next().is_none().then_some(message)
    }
}

fn number<T: std::str::FromStr>(words: &mut SplitAsciiWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("plain data can be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::ledger::{Compacting, Prefix, Seen};

    fn lead() -> Message {
        Message::Lead(Lead {
            agent: 1,
            from_ns: 2,
            to_ns: 3,
        })
    }

    #[test]
    fn every_message_survives_the_pipe() {
        let messages = [
            Message::Ready,
            Message::Invoke {
                agent: 1,
                write: 2,
                at_ns: 3,
            },
            Message::Ack {
                agent: 1,
                write: 2,
                seq: 3,
                start_ns: 4,
                ack_ns: u64::MAX,
                repeated: true,
            },
            Message::Planned {
                agent: 1,
                write: 2,
                plan: crate::evidence::workload::claim(1, 1, 2, 2, 9),
            },
            Message::Refused {
                agent: 1,
                write: 2,
                start_ns: 3,
                end_ns: 4,
                refusal: Refusal::VersionMismatch {
                    id: "a \"{".into(),
                    expected: None,
                    found: Some(7),
                    issue: Some("{}".into()),
                },
            },
            Message::Compacted(CompactionSeen {
                begin_ns: 1,
                end_ns: 2,
                outcome: Compacting::Done {
                    seq: 3,
                    bytes: 4,
                    lock_held_ns: 5,
                },
            }),
            Message::Failure {
                agent: 1,
                write: 2,
                rejected: true,
                environment: false,
                error: "a \"quoted\"\nsecond line: 7".into(),
            },
            Message::DurableSeen(DurableSeen {
                begin_ns: 1,
                end_ns: 2,
                seq: 3,
            }),
            Message::Hold(Hold {
                agent: 1,
                from_ns: 2,
                to_ns: 3,
            }),
            lead(),
            Message::Sighting(Sighting {
                agent: 1,
                at_ns: 2,
                other: 3,
            }),
            Message::Counters(LockCounters {
                acquisitions: 1,
                contended: 2,
                wait_ns: 3,
                longest_wait_ns: 4,
                hold_ns: 5,
                longest_hold_ns: 6,
            }),
            Message::View(View {
                reader: "agent 1".into(),
                begin_ns: 2,
                end_ns: 3,
                through_tail: true,
                seen: Seen::Records(Prefix::default().with(1, b"{}")),
            }),
            Message::Fatal {
                environment: true,
                error: String::new(),
            },
            Message::KillMe {
                point: "AfterWrite".into(),
            },
            Message::Done,
        ];
        for message in messages {
            let mut line = Vec::new();
            message.encode(&mut line);
            let text = std::str::from_utf8(&line)
                .unwrap()
                .strip_suffix('\n')
                .unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(Message::parse(text), Some(message), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_message_is_not_taken_for_one() {
        for line in [
            "",
            "A 1 2",
            "A 1 2 3 4 5 0 7",
            "A 1 2 3 4 x",
            "Z 1",
            "F 1 2 0 0 text",
        ] {
            assert_eq!(Message::parse(line), None, "{line}");
        }
    }
}
