//! What can be wrong with a run: each kind with the evidence that shows it.

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
    /// A watermark at or above it had been seen before the read began.
    DurableSeen,
    /// A read that had ended before this one began contained it.
    EarlierRead,
}

/// A broken promise. The numbers in brackets are the points of the design's oracle (DESIGN.md §9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Violation {
    /// (1) An acknowledged operation is not stored.
    Lost {
        /// Who was told.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// The acknowledged number.
        seq: u64,
        /// When it was told.
        ack_ns: u64,
    },
    /// (1, 3) An operation is stored more than once.
    Duplicated {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Where it is.
        seqs: Vec<u64>,
    },
    /// (1) An acknowledged operation is stored at another number.
    Misplaced {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// The acknowledged number.
        acknowledged_seq: u64,
        /// The stored number.
        stored_seq: u64,
    },
    /// (1, 3) An operation is stored with other bytes than were given to the log.
    Altered {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Where.
        place: Place,
        /// What was given.
        expected: String,
        /// What is there.
        found: String,
    },
    /// (2) An operation that the log rejected is stored.
    RejectedButStored {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Where it is.
        seq: u64,
        /// Why the log had rejected it.
        error: String,
    },
    /// (4) A record that no agent has written.
    Foreign {
        /// Its number.
        seq: u64,
        /// Its id.
        id: String,
        /// Where it is.
        place: Place,
    },
    /// (4) Bytes in a segment that are no record.
    BadBytes(BadLine),
    /// (5) A number does not follow its predecessor.
    SeqGap {
        /// The number that should be here.
        expected: u64,
        /// The number that is here.
        found: u64,
        /// Where.
        place: Place,
    },
    /// (5) A segment is not named after its first record.
    SegmentName {
        /// The file.
        file: String,
        /// The number of its first record.
        first_seq: u64,
    },
    /// (6) Two operations of one agent are stored in the wrong order.
    AgentOrder {
        /// Whose.
        agent: u32,
        /// The write with the higher number that is stored first.
        stored_first: u32,
        /// The write with the lower number that is stored after it.
        stored_second: u32,
        /// Where the second one is.
        seq: u64,
    },
    /// (7) An operation that began after another one was acknowledged has a lower number.
    RealTimeOrder {
        /// The acknowledged operation: its number.
        acknowledged_seq: u64,
        /// When it was acknowledged.
        ack_ns: u64,
        /// When the other one began.
        invoke_ns: u64,
        /// The other one's number.
        seq: u64,
    },
    /// (8) The watermark was seen lower than before.
    DurableFell {
        /// What had been seen.
        highest: u64,
        /// The end of that look.
        seen_ns: u64,
        /// The look that found less.
        later: DurableSeen,
    },
    /// (8) The watermark was lower than a number that had been acknowledged as durable.
    DurableBehindAck {
        /// The acknowledged number.
        acknowledged_seq: u64,
        /// When.
        ack_ns: u64,
        /// The look that found less.
        later: DurableSeen,
    },
    /// (3, 9) What a read saw is not the beginning of what is stored now.
    ViewDiffers {
        /// The read.
        view: View,
        /// The digest of as many stored records; `None`: there are fewer.
        stored_digest: Option<u64>,
    },
    /// (9, 10) A read did not see what it had to.
    ViewMisses {
        /// The read.
        view: View,
        /// The number that it had to contain.
        seq: u64,
        /// Why.
        source: Promise,
        /// Since when that was known.
        known_ns: u64,
    },
    /// (2) A write whose condition did not hold, as the log said, is stored.
    RefusedButStored {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Where it is.
        seq: u64,
        /// What the log had said.
        refusal: Refusal,
    },
    /// A write was answered from its idempotency key when it was made for the first time.
    RepeatedAtFirst {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// The number in the receipt.
        seq: u64,
    },
    /// A write is stored although its condition did not hold at its place.
    ConditionBroken {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Its place.
        seq: u64,
        /// What the log should have said.
        refusal: Refusal,
    },
    /// A write was refused for a reason that there was at no moment between its call and its answer.
    UnfoundedRefusal {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// What the log said.
        refusal: Refusal,
        /// The last record that was certainly there at the call.
        from_seq: u64,
        /// The last record that can have been there at the answer.
        through_seq: u64,
    },
    /// An issue of the pool was not claimed, or more than once.
    NotClaimedOnce {
        /// The issue.
        id: String,
        /// The records that claim it.
        seqs: Vec<u64>,
    },
    /// (8, 9) What a follower got is not what is stored, or not in order.
    JournalDiffers {
        /// Which follower.
        follower: u32,
        /// How.
        detail: String,
    },
    /// (8) A follower ended before it had got what had been acknowledged.
    FollowerBehind {
        /// Which follower.
        follower: u32,
        /// The last record that it got.
        last_seq: u64,
        /// The last that was acknowledged.
        acknowledged_seq: u64,
    },
    /// (12) A snapshot file is not the fold of the records that it stands for.
    SnapshotDiffers {
        /// Its name.
        file: String,
        /// How.
        detail: String,
    },
    /// The manifest does not fit the files that it names.
    ManifestDiffers {
        /// How.
        detail: String,
    },
    /// (5) A segment was replaced by another of the same name.
    SegmentReplaced {
        /// Its name.
        file: String,
    },
    /// (11) A holder of the lock found another living holder.
    TwoHolders {
        /// The holder that looked.
        agent: u32,
        /// The one it found.
        other: u32,
        /// When.
        at_ns: u64,
    },
    /// (11) Two intervals in which the lock was held overlap.
    HoldsOverlap {
        /// The one that began first.
        first: Hold,
        /// The one that began before the first one had ended.
        second: Hold,
    },
    /// (11, 15) A process ended by itself and had not given the lock back.
    LeftHolding {
        /// The agent.
        agent: u32,
        /// Its process.
        pid: u32,
    },
    /// (12) `Issues::load` is not the fold of what `read` gives.
    FoldDiffers {
        /// How.
        detail: String,
    },
    /// (13) Opening the store twice gave two states.
    RecoveriesDiffer {
        /// After the first.
        first: String,
        /// After the second.
        second: String,
    },
    /// (13) A read-only open changed the store.
    ReadOnlyOpenWrote {
        /// What is different.
        changes: Vec<String>,
    },
    /// The log reads something else than its files contain.
    ReadDiffersFromFiles {
        /// How.
        detail: String,
    },
    /// (15) The next append did not come through in time.
    NextAppendFailed {
        /// What happened.
        detail: String,
    },
    /// (15) A file was left behind.
    LeftoverFile {
        /// Its path in the store.
        path: String,
    },
    /// (15) A lock is still taken although no process is left.
    LeftoverLock {
        /// The lock's file.
        file: String,
        /// What the lock said.
        error: String,
    },
    /// Recovery took bytes out although no process had been killed.
    UnprovokedQuarantine {
        /// What is in the quarantine.
        path: String,
    },
    /// An operation failed although nothing was done to make it fail.
    Failed {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// Whether the log said that nothing was stored.
        rejected: bool,
        /// The error.
        error: String,
    },
    /// An agent began one of its writes more than once.
    BegunTwice {
        /// Whose.
        agent: u32,
        /// Which of its writes.
        write: u32,
        /// How often it began.
        times: u64,
    },
    /// An agent never came to some of its writes.
    NeverBegun {
        /// Whose.
        agent: u32,
        /// The first of them.
        first_write: u32,
        /// How many.
        writes: u32,
    },
    /// A process ended by itself before it should have.
    AgentDied {
        /// What it was for.
        role: &'static str,
        /// Its agents.
        agents: Vec<u32>,
        /// Its process id.
        pid: u32,
        /// Its exit status.
        status: String,
    },
    /// A process could not go on.
    AgentFailed {
        /// What it said.
        error: String,
    },
    /// A process reported something that makes no sense.
    Protocol {
        /// What.
        detail: String,
    },
    /// The store could not be examined after the run.
    ExaminationFailed {
        /// Which step.
        step: String,
        /// The error.
        error: String,
    },
}

impl Violation {
    /// Whether it says that two held the lock.
    #[must_use]
    pub fn is_about_holders(&self) -> bool {
        matches!(
            self,
            Violation::TwoHolders { .. } | Violation::HoldsOverlap { .. }
        )
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
