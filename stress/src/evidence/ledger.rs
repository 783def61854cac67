//! The ledger: every answer that the processes of a run got from the log, kept outside the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::fold::StateDigest;
use crate::evidence::workload::{Plan, Refusal};

/// How an operation ended, as far as its agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The log gave a receipt.
    Acknowledged {
        /// The number in the receipt.
        seq: u64,
        /// Immediately after the call returned.
        ack_ns: u64,
        /// Whether it came from the idempotency key.
        repeated: bool,
    },
    /// A condition did not hold, and the log said so.
    Refused {
        /// The answer of the log.
        refusal: Refusal,
        /// Immediately after the call returned.
        end_ns: u64,
    },
    /// The log said that nothing was stored.
    Rejected {
        /// The error.
        error: String,
    },
    /// The agent was killed, or the log could not say.
    Unknown {
        /// The error; empty when the agent was killed.
        error: String,
    },
}

impl Outcome {
    /// When the log answered: immediately after the call, where that was noted.
    #[must_use]
    pub fn answered_ns(&self) -> Option<u64> {
        match self {
            Outcome::Acknowledged { ack_ns: at_ns, .. }
            | Outcome::Refused { end_ns: at_ns, .. } => Some(*at_ns),
            Outcome::Rejected { .. } | Outcome::Unknown { .. } => None,
        }
    }
}

/// One write of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The agent.
    pub agent: u32,
    /// Which of its writes, from 1.
    pub write: u32,
    /// When it began: no later than the call.
    pub invoke_ns: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The lock was held by `agent` in this interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The holder.
    pub agent: u32,
    /// After the lock was taken.
    pub from_ns: u64,
    /// Before the lock was given back.
    pub to_ns: u64,
}

/// `agent` led a sync for all waiting agents in this interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// The leader.
    pub agent: u32,
    /// When it took the lead.
    pub from_ns: u64,
    /// After it had woken the others.
    pub to_ns: u64,
}

/// The name of a process whose threads are all agents.
pub const EVERYBODY: &str = "all agents";

/// Something done to the run, or by a compactor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// When.
    pub at_ns: u64,
    /// The kind.
    pub kind: IncidentKind,
    /// The process concerned; empty if it is the store.
    pub who: String,
    /// Details.
    pub detail: String,
}

/// A kind of [`Incident`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A process was killed.
    Killed,
    /// A process was stopped for a while.
    Stopped,
    /// Half a record was left behind the log.
    Torn,
    /// The hints were deleted.
    Forgotten,
    /// A file was removed, moved away, or replaced by a copy.
    Displaced,
    /// The store was moved away for a while.
    Moved,
    /// A compaction was finished.
    Compacted,
}

/// A holder of the lock saw another agent marked as a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The holder that looked.
    pub agent: u32,
    /// When.
    pub at_ns: u64,
    /// The other one.
    pub other: u32,
}

/// The result of one read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The reader, for the evidence.
    pub reader: String,
    /// Before the read.
    pub begin_ns: u64,
    /// After the read.
    pub end_ns: u64,
    /// Whether it read to the tail, and not only through the durable record.
    pub through_tail: bool,
    /// The records, the state or the number seen.
    pub seen: Seen,
}

/// The view of a store that a read returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Its records, or those behind its snapshot.
    Records(Prefix),
    /// The state that they lead to.
    State(StateDigest),
}

impl Seen {
    /// The last record of the view.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        match self {
            Seen::Records(prefix) => prefix.last_seq,
            Seen::State(state) => state.seq,
        }
    }
}

/// One call of a compactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionSeen {
    /// Before the call.
    pub begin_ns: u64,
    /// After the call.
    pub end_ns: u64,
    /// How it ended.
    pub outcome: Compacting,
}

/// How a compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compacting {
    /// There is a new snapshot.
    Done {
        /// The last record that it reflects.
        seq: u64,
        /// Its length.
        bytes: u64,
        /// How long the store's lock was held.
        lock_held_ns: u64,
    },
    /// Another compaction was running.
    AlreadyRunning,
    /// There was no new record.
    NothingNew,
}

/// The durable sequence number, read at some moment of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableSeen {
    /// Before it was read.
    pub begin_ns: u64,
    /// After it was read.
    pub end_ns: u64,
    /// The records, the state or the number seen.
    pub seq: u64,
}

/// `strand_lock::Counters` in plain numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCounters {
    /// Times the lock was taken.
    pub acquisitions: u64,
    /// Those that had to wait.
    pub contended: u64,
    /// Total time waited.
    pub wait_ns: u64,
    /// Longest single wait.
    pub longest_wait_ns: u64,
    /// Total time held.
    pub hold_ns: u64,
    /// Longest single hold.
    pub longest_hold_ns: u64,
}

/// A digest of consecutive records of a log: two reads that began with one record saw one order
/// exactly when the shorter one's digest is the longer one's at the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Sequence number of the record that is, or would be, the first one.
    pub first_seq: u64,
    /// Number of records.
    pub count: u64,
    /// Sequence number of the last one; that before the first one when there is none.
    pub last_seq: u64,
    /// FNV-1a over all lines with their newlines.
    pub digest: u64,
}

impl Default for Prefix {
    fn default() -> Prefix {
        Prefix::behind(0)
    }
}

impl Prefix {
    /// Nothing yet, behind the record `seq`.
    #[must_use]
    pub fn behind(seq: u64) -> Prefix {
        Prefix {
            first_seq: seq + 1,
            count: 0,
            last_seq: seq,
            digest: 0xCBF2_9CE4_8422_2325,
        }
    }

    /// The prefix that is longer by one record.
    #[must_use]
    pub fn with(self, seq: u64, line: &[u8]) -> Prefix {
        let mix =
            |digest: u64, &byte: &u8| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        let digest = mix(line.iter().fold(self.digest, mix), &b'\n');
        Prefix {
            // A log that was compacted begins with a later record.
            first_seq: if self.count == 0 { seq } else { self.first_seq },
            count: self.count + 1,
            last_seq: seq,
            digest,
        }
    }
}

/// How a process of an agent ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It did all it was asked to.
    Finished,
    /// The harness killed it.
    Killed,
    /// It ended by itself before it should have.
    Died {
        /// Its exit status.
        status: String,
    },
}

/// One process, from its start to its reaping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    /// Its role.
    pub role: &'static str,
    /// The agents that it ran, one or all as threads, and its other marks in the shared page.
    pub agents: Vec<u32>,
    /// Its process id.
    pub pid: u32,
    /// Just before it was killed.
    pub killed_ns: Option<u64>,
    /// After it was reaped and its marks in the shared page were cleared.
    pub reaped_ns: u64,
    /// How it ended.
    pub end: End,
    /// Agents whose mark was still set although the process finished.
    pub left_holding: Vec<u32>,
}

impl Incarnation {
    /// A name for people.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.role, self.agents.as_slice()) {
            ("agent", [agent]) => format!("agent {agent}"),
            ("agent", _) => EVERYBODY.to_owned(),
            (role, _) => role.to_owned(),
        }
    }
}

/// Everything that was reported in one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// In the order of their invocation by one process.
    pub operations: Vec<Operation>,
    /// Completed intervals.
    pub holds: Vec<Hold>,
    /// Completed syncs.
    pub leads: Vec<Lead>,
    /// Incidents.
    pub incidents: Vec<Incident>,
    /// Marks of others seen.
    pub sightings: Vec<Sighting>,
    /// Reads.
    pub views: Vec<View>,
    /// Reads of the durable sequence number.
    pub durable_seen: Vec<DurableSeen>,
    /// The plans of writes with conditions: agent, write, plan.
    pub plans: Vec<(u32, u32, Plan)>,
    /// Calls of the compactors.
    pub compactions: Vec<CompactionSeen>,
    /// Processes.
    pub incarnations: Vec<Incarnation>,
    /// The lock's counters, summed up over the processes (the longest ones: their maximum).
    pub counters: LockCounters,
    /// Duration of each acknowledged call.
    pub append_ns: Vec<(u32, u64)>,
    /// Kills by failpoint.
    pub killed_at: BTreeMap<String, u64>,
    /// How many of these processes were still opening the store.
    pub killed_opening_at: BTreeMap<String, u64>,
    /// Violations of the protocol between runner and process.
    pub protocol_errors: Vec<String>,
    /// Failures of processes whose cause is outside the log.
    pub environment_errors: Vec<String>,
    /// Failures of processes whose cause is the log.
    pub fatal_errors: Vec<String>,
}

impl Ledger {
    /// Adds what another process reported.
    pub fn absorb(&mut self, other: Ledger) {
        let Ledger {
            operations,
            holds,
            leads,
            incidents,
            sightings,
            views,
            durable_seen,
            plans,
            compactions,
            incarnations,
            counters,
            append_ns,
            killed_at,
            killed_opening_at,
            protocol_errors,
            environment_errors,
            fatal_errors,
        } = other;
        self.operations.extend(operations);
        self.holds.extend(holds);
        self.leads.extend(leads);
        self.incidents.extend(incidents);
        self.sightings.extend(sightings);
        self.views.extend(views);
        self.durable_seen.extend(durable_seen);
        self.plans.extend(plans);
        self.compactions.extend(compactions);
        self.incarnations.extend(incarnations);
        self.append_ns.extend(append_ns);
        self.protocol_errors.extend(protocol_errors);
        self.environment_errors.extend(environment_errors);
        self.fatal_errors.extend(fatal_errors);
        for (all, some) in [
            (&mut self.killed_at, killed_at),
            (&mut self.killed_opening_at, killed_opening_at),
        ] {
            for (point, times) in some {
                *all.entry(point).or_default() += times;
            }
        }
        let sum = &mut self.counters;
        sum.acquisitions += counters.acquisitions;
        sum.contended += counters.contended;
        sum.wait_ns += counters.wait_ns;
        sum.hold_ns += counters.hold_ns;
        sum.longest_wait_ns = sum.longest_wait_ns.max(counters.longest_wait_ns);
        sum.longest_hold_ns = sum.longest_hold_ns.max(counters.longest_hold_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_the_order_and_on_line_ends() {
        let one = Prefix::default().with(1, b"ab").with(2, b"c");
        assert_ne!(one, Prefix::default().with(1, b"a").with(2, b"bc"));
        assert_ne!(one, Prefix::default().with(1, b"c").with(2, b"ab"));
        assert_eq!(one, Prefix::default().with(1, b"ab").with(2, b"c"));
    }
}
