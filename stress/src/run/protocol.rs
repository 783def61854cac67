//! The messages that the processes of a run send to the runner through standard output: one JSON
//! value a line.
//!
//! An agent writes the outcome of one operation and the start of the next with one system call. A
//! line without its newline is from a process that was killed while it wrote it; it counts for
//! nothing.

use std::io::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_core::testing::{Disk, Storage};

use crate::evidence::ledger::{
    CompactionSeen, DurableSeen, Hold, Lead, LockCounters, Outcome, Sighting, View,
};
use crate::evidence::workload::Plan;
use crate::run::config::{Durability, Sabotage, Workload};
use crate::run::local_disk::LocalDisk;
use crate::run::payload::PayloadSource;

/// The description of a process: one line of JSON on its standard input, which then stays open
/// until the runner exits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The store under test.
    pub store: std::path::PathBuf,
    /// Its address, if it is on etcd: then `store` is not used.
    pub etcd: Option<String>,
    /// The file of the shared page, outside the store.
    pub control: std::path::PathBuf,
    /// Keeps the files that are removed from the store.
    pub archive: std::path::PathBuf,
    /// The role of this process.
    pub role: Role,
    /// Number of agents in the whole run.
    pub agents: u32,
    /// The highest mark in the shared page.
    pub marks: u32,
    /// The workload.
    pub workload: Workload,
    /// Whether the store is compacted during the run.
    pub compacts: bool,
    /// Its work: a lane for each thread.
    pub lanes: Vec<Lane>,
    /// Writes of each agent in the whole run.
    pub writes: u32,
    /// Decides the payloads.
    pub seed: u64,
    /// Where the events come from.
    pub payload: PayloadSource,
    /// The durability of its writes.
    pub durability: Durability,
    /// The size of a segment.
    pub segment_bytes: Option<u64>,
    /// How many bytes to preallocate at a time.
    pub preallocate_bytes: Option<u64>,
    /// Set if the store is on a filesystem of the harness, which the log has to take for a local
    /// one: the name of the machine's boot.
    pub boot: Option<String>,
    /// How long the log waits for its lock: longer than the watchdog.
    pub lock_timeout_ms: u64,
    /// Where this process asks to be killed.
    pub kill: Option<KillOrder>,
    /// Report the lock's counters with every operation, since this process may be killed.
    pub counters_always: bool,
    /// The misdeed of agent 0.
    pub sabotage: Option<Sabotage>,
}

/// A failpoint at which the process asks to be killed and waits for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillOrder {
    /// A point's name, or `any`.
    pub at: String,
    /// The occurrence at which it is killed, from 1.
    pub occurrence: u32,
}

/// The role of a process.
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
    /// The name of the role.
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
    /// The plan of the first write, if a predecessor was killed during it: it is repeated.
    pub repeat: Option<Plan>,
}

/// One message of an agent. All times are [`strand_lock::monotonic_ns`].
#[expect(missing_docs, reason = "the names of the fields say it")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The log is open; the agent waits for the start.
    Ready,
    /// The plan of the next operation, with its events as they have to be stored.
    Planned { agent: u32, write: u32, plan: Plan },
    /// The operation is about to begin.
    Invoke { agent: u32, write: u32, at_ns: u64 },
    /// The operation has ended.
    Answered {
        agent: u32,
        write: u32,
        /// Immediately before the call.
        start_ns: u64,
        outcome: Outcome,
        /// Whether it failed for a reason outside the log: a full disk, a missing permission.
        environment: bool,
    },
    /// The durable sequence number, read in an interval.
    DurableSeen(DurableSeen),
    /// The lock was held in an interval.
    Hold(Hold),
    /// A sync was led in an interval.
    Lead(Lead),
    /// At `LockHeld`, another agent was marked as a holder.
    Sighting(Sighting),
    /// The lock's counters of this process, from its start.
    Counters(LockCounters),
    /// The result of a read.
    View(View),
    /// The result of a compaction.
    Compacted(CompactionSeen),
    /// The process gives up: the log did not open, or a read failed.
    Fatal {
        /// Whether the cause lies outside the log.
        environment: bool,
        error: String,
    },
    /// The process waits at this failpoint to be killed.
    KillMe { point: String },
    /// All lanes of this process are finished.
    Done,
}

impl Message {
    /// Reads one line without its newline; `None` where it is not a message.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Message> {
        serde_json::from_slice(line).ok()
    }
}

/// Messages that are not sent yet.
#[derive(Debug, Default)]
pub struct Outbox(Vec<u8>);

impl Outbox {
    /// Adds a message.
    ///
    /// # Panics
    /// Never: writing plain data to memory does not fail.
    pub fn push(&mut self, message: &Message) {
        let written = serde_json::to_writer(&mut self.0, message);
        assert!(written.is_ok(), "plain data can be written: {written:?}");
        self.0.push(b'\n');
    }

    /// Writes all messages to standard output, with one system call.
    ///
    /// # Errors
    /// The runner does not listen any more.
    pub fn send(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.0)?;
        stdout.flush()?;
        self.0.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::workload::Refusal;

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let answered = |outcome| Message::Answered {
            agent: 1,
            write: 2,
            start_ns: 3,
            outcome,
            environment: false,
        };
        let messages = [
            Message::Ready,
            answered(Outcome::Refused {
                end_ns: u64::MAX,
                refusal: Refusal::VersionMismatch {
                    id: "a \"{".into(),
                    expected: None,
                    found: Some(7),
                    issue: Some("{}".into()),
                },
            }),
            answered(Outcome::Unknown {
                error: "a \"quoted\"\nsecond line: 7".into(),
            }),
            Message::Counters(LockCounters::default()),
        ];
        let mut outbox = Outbox::default();
        for message in &messages {
            outbox.push(message);
        }
        let lines = outbox.0.strip_suffix(b"\n").unwrap().split(|&b| b == b'\n');
        let read: Vec<_> = lines.filter_map(Message::parse).collect();
        assert_eq!(read, messages);
    }

    #[test]
    fn a_part_of_a_line_is_no_message() {
        let mut outbox = Outbox::default();
        outbox.push(&Message::KillMe {
            point: "AfterWrite".into(),
        });
        for end in 0..outbox.0.len() - 1 {
            assert_eq!(Message::parse(&outbox.0[..end]), None);
        }
    }
}
