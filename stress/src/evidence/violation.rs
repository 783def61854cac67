//! Everything that can be wrong with a run, each kind with its evidence.

use std::fmt;

use serde::Serialize;

use crate::evidence::ledger::{DurableSeen, Hold, View};
use crate::evidence::stored::{BadLine, Place};
use crate::evidence::workload::Refusal;

/// Why a read has to contain a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// It had been acknowledged before the read began.
    Acknowledged,
    /// It was at or below a durable number that had been seen before the read began.
    DurableSeen,
    /// A read that had ended before this one began contained it.
    EarlierRead,
}

/// A broken promise. The numbers are those in the comments of the oracle.
#[expect(missing_docs, reason = "the names of the fields say it")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Violation {
    /// (1) An acknowledged operation is not stored.
    Lost {
        agent: u32,
        write: u32,
        /// 0 where receipts have no numbers.
        #[serde(skip_serializing_if = "is_zero")]
        seq: u64,
        ack_ns: u64,
    },
    /// (1, 3) An operation is stored more than once.
    Duplicated {
        agent: u32,
        write: u32,
        seqs: Vec<u64>,
    },
    /// (1) An acknowledged operation is stored at another number.
    Misplaced {
        agent: u32,
        write: u32,
        acknowledged_seq: u64,
        stored_seq: u64,
    },
    /// (1, 3) An operation is stored with other bytes than were given to the log.
    Altered {
        agent: u32,
        write: u32,
        place: Place,
        expected: String,
        found: String,
    },
    /// (2) An operation that the log rejected is stored.
    RejectedButStored {
        agent: u32,
        write: u32,
        seq: u64,
        error: String,
    },
    /// (4) A record that no agent has written.
    Foreign { seq: u64, id: String, place: Place },
    /// (4) Bytes in a segment that are no record.
    BadBytes(BadLine),
    /// (5) A number does not follow its predecessor.
    SeqGap {
        expected: u64,
        found: u64,
        place: Place,
    },
    /// (5) A segment is not named after its first record.
    SegmentName { file: String, first_seq: u64 },
    /// (6) Two operations of one agent are stored in the wrong order.
    AgentOrder {
        agent: u32,
        stored_first: u32,
        stored_second: u32,
        seq: u64,
    },
    /// (7) An operation that began after another one was acknowledged has a lower number.
    RealTimeOrder {
        acknowledged_seq: u64,
        ack_ns: u64,
        invoke_ns: u64,
        seq: u64,
    },
    /// (8) The durable sequence number fell.
    DurableFell {
        highest: u64,
        seen_ns: u64,
        later: DurableSeen,
    },
    /// (8) The durable sequence number was lower than one acknowledged as durable.
    DurableBehindAck {
        acknowledged_seq: u64,
        ack_ns: u64,
        later: DurableSeen,
    },
    /// (3, 9) The records of a read are not the first records that are stored now.
    ViewDiffers {
        view: View,
        /// The digest of as many stored records; `None`: there are fewer.
        stored_digest: Option<u64>,
    },
    /// (9, 10) A read missed a record that it had to contain.
    ViewMisses {
        view: View,
        seq: u64,
        source: Promise,
        known_ns: u64,
    },
    /// (2) A write whose condition did not hold, as the log said, is stored.
    RefusedButStored {
        agent: u32,
        write: u32,
        seq: u64,
        refusal: Refusal,
    },
    /// A write was answered from its idempotency key when it was made for the first time.
    RepeatedAtFirst { agent: u32, write: u32, seq: u64 },
    /// A write is stored although its condition did not hold at its place.
    ConditionBroken {
        agent: u32,
        write: u32,
        /// Its place.
        seq: u64,
        refusal: Refusal,
    },
    /// A write was refused for a reason that held at no moment between its call and its answer.
    UnfoundedRefusal {
        agent: u32,
        write: u32,
        refusal: Refusal,
        /// The last record that was certainly there at the call.
        from_seq: u64,
        /// The last record that can have been there at the answer.
        through_seq: u64,
    },
    /// An issue of the pool was not claimed, or more than once.
    NotClaimedOnce { id: String, seqs: Vec<u64> },
    /// (8, 9) The records of a follower are not those stored, or not in order.
    JournalDiffers { follower: u32, detail: String },
    /// (8) A follower ended before it had got all acknowledged records.
    FollowerBehind {
        follower: u32,
        last_seq: u64,
        acknowledged_seq: u64,
    },
    /// (12) A snapshot is not the fold of the records that it covers.
    SnapshotDiffers { file: String, detail: String },
    /// The manifest does not fit the files that it names.
    ManifestDiffers { detail: String },
    /// (11) A holder of the lock found another living holder.
    TwoHolders {
        /// The holder that looked.
        agent: u32,
        other: u32,
        at_ns: u64,
    },
    /// (11) Two intervals in which the lock was held overlap.
    HoldsOverlap { first: Hold, second: Hold },
    /// (11, 15) A process finished and had not released the lock.
    LeftHolding { agent: u32, pid: u32 },
    /// (12) `Issues::load` is not the fold of the records.
    FoldDiffers { detail: String },
    /// (13) Opening the store twice gave two states.
    RecoveriesDiffer { first: String, second: String },
    /// (13) A read-only open changed the store.
    ReadOnlyOpenWrote { changes: Vec<String> },
    /// The log reads other records than its files contain.
    ReadDiffersFromFiles { detail: String },
    /// (15) The next append failed or took too long.
    NextAppendFailed { detail: String },
    /// (15) A file was left behind.
    LeftoverFile { path: String },
    /// (15) A lock is still taken although no process is left.
    LeftoverLock { file: String, error: String },
    /// Recovery quarantined bytes although no process had been killed.
    UnprovokedQuarantine { path: String },
    /// An operation failed for no reason.
    Failed {
        agent: u32,
        write: u32,
        /// Whether the log said that nothing was stored.
        rejected: bool,
        error: String,
    },
    /// An agent began one of its writes more than once.
    BegunTwice { agent: u32, write: u32, times: u64 },
    /// An agent did not begin some of its writes.
    NeverBegun {
        agent: u32,
        first_write: u32,
        writes: u32,
    },
    /// A process died.
    AgentDied {
        role: &'static str,
        agents: Vec<u32>,
        pid: u32,
        status: String,
    },
    /// A process could not go on.
    AgentFailed { error: String },
    /// A process broke the protocol.
    Protocol { detail: String },
    /// Some writes of a batch are stored and others are not.
    BatchInPart {
        agent: u32,
        /// The first one.
        write: u32,
        stored: Vec<u32>,
        missing: Vec<u32>,
    },
    /// A follower was not shown an acknowledged write.
    FollowerMissed { agent: u32, write: u32 },
    /// A follower was shown a write more than once.
    FollowerTwice { agent: u32, write: u32 },
    /// A follower was shown a write behind one that is stored behind it: agent and write of that.
    FollowerOrder {
        agent: u32,
        write: u32,
        behind: (u32, u32),
    },
    /// A follower was shown what is not stored.
    FollowerOnly { shown: String },
    /// A receipt was given to two writes: agent and write of each.
    ReceiptTwice {
        receipt: String,
        first: (u32, u32),
        second: (u32, u32),
    },
    /// Several agents were told that they have an item for themselves.
    WonTwice {
        item: String,
        winners: Vec<u32>,
        owner: Option<String>,
    },
    /// An item does not belong to the only agent that was told so.
    WinnerNotOwner {
        item: String,
        winner: u32,
        owner: Option<String>,
    },
    /// A file that has to be valid at all times was not.
    ArtifactInvalid {
        path: String,
        at_ns: u64,
        error: String,
    },
    /// A file that has to contain every acknowledged write does not.
    ArtifactMisses { path: String, writes: Vec<String> },
    /// A check of the store failed.
    CheckFailed { name: String, said: String },
    /// A file was left behind that the store's description calls a leftover.
    LeftBehind { path: String },
    /// The store could not be examined after the run.
    ExaminationFailed { step: String, error: String },
    /// The store's server did not come up: when, its command, how it is, and the end of its output.
    ServerFailed {
        when: String,
        command: String,
        status: String,
        said: String,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes it like that"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Kinds of trouble, which are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// What was acknowledged is not so.
    Safety,
    /// A file beside the store is not valid.
    Artifacts,
    /// Something was left behind.
    Leftovers,
}

impl Violation {
    /// The kind of trouble.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Violation::ArtifactInvalid { .. }
            | Violation::ArtifactMisses { .. }
            | Violation::CheckFailed { .. } => Class::Artifacts,
            Violation::LeftBehind { .. } | Violation::LeftoverFile { .. } => Class::Leftovers,
            _ => Class::Safety,
        }
    }

    /// The name of its kind.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = self.to_string();
        text.split(':').next().unwrap_or_default().to_owned()
    }

    /// As [`fmt::Display`] has it, but what a program printed in lines of its own.
    #[must_use]
    pub fn in_lines(&self) -> String {
        match self {
            Violation::ServerFailed {
                when,
                command,
                status,
                said,
            } => {
                let said = said.trim_end().replace('\n', "\n  ");
                format!("server failed: {when}: {status}\n  {command}\n  {said}")
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Violation {
    /// The kind and its evidence on one line, as in the JSON report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        let fields = json.as_object().ok_or(fmt::Error)?;
        let kind = fields
            .get("kind")
            .and_then(|kind| kind.as_str())
            .ok_or(fmt::Error)?;
        write!(f, "{}:", kind.replace('_', " "))?;
        for (name, value) in fields.iter().filter(|(name, _)| *name != "kind") {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}
