//! The points of the oracle: how much was compared at each, and how much of it was wrong.

use serde::Serialize;

use crate::evidence::violation::Violation;

/// One point of the oracle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The promise that is checked.
    pub point: Point,
    /// The promise in words.
    pub promise: &'static str,
    /// Number of comparisons.
    pub compared: u64,
    /// The two sides of the comparison, in words.
    pub what: &'static str,
    /// Number of violations.
    pub violations: u64,
}

/// A promise that a violation breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Acknowledged and interrupted writes.
    Stored,
    /// Rejected and refused writes.
    Rejected,
    /// Bytes that no one wrote.
    Foreign,
    /// The numbers of records.
    Sequence,
    /// The order of one agent's writes.
    AgentOrder,
    /// The order of all writes.
    RealTime,
    /// The durable sequence number.
    DurableSeen,
    /// The records that followers get.
    Followers,
    /// The records and states that reads see.
    Reads,
    /// The lock.
    Lock,
    /// Snapshots and the state.
    Fold,
    /// Recovery.
    Recovery,
    /// The store after the run.
    Afterwards,
    /// Conditions of writes.
    Conditions,
    /// The processes of the run.
    Processes,
    /// Batches of writes.
    Batches,
    /// The receipts of a store that chooses ids.
    Receipts,
    /// The items that agents compete for.
    Claims,
    /// Files and commands that the store's description names.
    Artifacts,
}

/// How much there was to compare.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) rejected: u64,
    pub(crate) refused: u64,
    pub(crate) stored: u64,
    pub(crate) numbered: u64,
    pub(crate) ordered: u64,
    pub(crate) durable_seen: u64,
    pub(crate) followed: u64,
    pub(crate) views: u64,
    pub(crate) holds: u64,
    pub(crate) snapshots: u64,
    pub(crate) recoveries: u64,
    pub(crate) conditions: u64,
    pub(crate) processes: u64,
    pub(crate) batches: u64,
    pub(crate) receipts: u64,
    pub(crate) claims: u64,
    pub(crate) artifacts: u64,
}

/// Where what is stored is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The bytes of strand's files, or of its keys on etcd.
    Bytes,
    /// The list that a store prints.
    List,
}

/// Every point.
#[rustfmt::skip]
pub(crate) fn checks(source: Source, counts: &Counts, violations: &[Violation]) -> Vec<Check> {
    let check = |point, compared, promise, what| {
        let of_point = violations.iter().filter(|violation| point_of(violation) == point);
        let violations = of_point.count() as u64;
        Check { point, promise, compared, what, violations }
    };
    let c = counts;
    let (each, all, followed) = match source {
        Source::Bytes => (
            "operations with the stored bytes",
            "records with the operations",
            "records in journals with the stored bytes",
        ),
        Source::List => (
            "operations with the list",
            "listed writes with the operations",
            "writes that were shown with the list",
        ),
    };
    let mut checks = vec![
        check(Point::Stored, c.acknowledged + c.unknown,
            "An acknowledged write is stored once, at its number, with its bytes; an interrupted one at most once",
            each,
        ),
        check(Point::Rejected, c.rejected + c.refused,
            "A rejected or refused write is not stored",
            each,
        ),
        check(Point::Foreign, c.stored,
            "Everything that is stored was written by an agent",
            all,
        ),
        check(Point::Sequence, c.numbered,
            "Numbers rise by one through all segments",
            "records with their predecessors",
        ),
        check(Point::AgentOrder, c.ordered,
            "Each agent's writes are in their order",
            "records with those of the same agent",
        ),
        check(Point::RealTime, if c.ordered == 0 { 0 } else { c.acknowledged + c.unknown },
            "A write that began after an acknowledgement comes after it",
            "operations with the acknowledgements before them",
        ),
        check(Point::DurableSeen, c.durable_seen,
            "The durable sequence number never falls, and covers all acknowledged writes",
            "its values with earlier ones",
        ),
        check(Point::Followers, c.followed,
            "A follower gets every record, as it is stored, in its order",
            followed,
        ),
        check(Point::Reads, c.views,
            "A read sees a prefix of the log, with all that it has to contain",
            "reads with the records, and with the knowledge when they began",
        ),
        check(Point::Lock, c.holds,
            "The lock has one holder at a time",
            "intervals, and marks in shared memory, with all others",
        ),
        check(Point::Fold, c.snapshots,
            "A snapshot is the fold of its records, computed again",
            "snapshots, and the state at the end",
        ),
        check(Point::Recovery, c.recoveries,
            "Recovery leads to one state, and reading changes nothing",
            "reads before and after recovery",
        ),
        check(Point::Afterwards, u64::from(c.recoveries > 0),
            "The store accepts the next append, and nothing is left behind",
            "store, opened, appended to and compacted",
        ),
        check(Point::Conditions, c.conditions,
            "A condition held where its write is stored, and did not where it was refused",
            "writes with conditions with the states before them",
        ),
        check(Point::Processes, c.processes,
            "Every process did its work, and ended as it should",
            "processes with their work",
        ),
        check(Point::Batches, c.batches,
            "Of a batch, all is stored or nothing",
            "batches with the list",
        ),
        check(Point::Receipts, c.receipts,
            "No receipt is given to two writes",
            "receipts with all others",
        ),
        check(Point::Claims, c.claims,
            "An item is won once, and belongs to its winner",
            "items with their winners",
        ),
        check(Point::Artifacts, c.artifacts,
            "Exports and other files are whole, checks pass, and nothing is left behind",
            "files and checks with what they should be",
        ),
    ];
    checks.retain(|check| {
        source == Source::Bytes || check.violations > 0 || !is_of_strand(check.point)
    });
    checks
}

/// What no list shows is no point that the author of a description could have tested.
fn is_of_strand(point: Point) -> bool {
    matches!(
        point,
        Point::DurableSeen
            | Point::Reads
            | Point::Fold
            | Point::Recovery
            | Point::Afterwards
            | Point::Conditions
            | Point::Processes
    )
}

/// The promise that a violation breaks.
#[must_use]
pub fn point_of(violation: &Violation) -> Point {
    match violation {
        Violation::Lost { .. }
        | Violation::Duplicated { .. }
        | Violation::Misplaced { .. }
        | Violation::Altered { .. }
        | Violation::RepeatedAtFirst { .. } => Point::Stored,
        Violation::RejectedButStored { .. } | Violation::RefusedButStored { .. } => Point::Rejected,
        Violation::Foreign { .. } | Violation::BadBytes(_) => Point::Foreign,
        Violation::SeqGap { .. } | Violation::SegmentName { .. } => Point::Sequence,
        Violation::AgentOrder { .. } => Point::AgentOrder,
        Violation::RealTimeOrder { .. } => Point::RealTime,
        Violation::DurableFell { .. } | Violation::DurableBehindAck { .. } => Point::DurableSeen,
        Violation::JournalDiffers { .. }
        | Violation::FollowerBehind { .. }
        | Violation::FollowerMissed { .. }
        | Violation::FollowerTwice { .. }
        | Violation::FollowerOrder { .. }
        | Violation::FollowerOnly { .. } => Point::Followers,
        Violation::ViewDiffers { .. }
        | Violation::ViewMisses { .. }
        | Violation::ReadDiffersFromFiles { .. } => Point::Reads,
        Violation::TwoHolders { .. }
        | Violation::HoldsOverlap { .. }
        | Violation::LeftHolding { .. } => Point::Lock,
        Violation::SnapshotDiffers { .. }
        | Violation::ManifestDiffers { .. }
        | Violation::FoldDiffers { .. } => Point::Fold,
        Violation::RecoveriesDiffer { .. }
        | Violation::ReadOnlyOpenWrote { .. }
        | Violation::UnprovokedQuarantine { .. } => Point::Recovery,
        Violation::NextAppendFailed { .. }
        | Violation::LeftoverFile { .. }
        | Violation::LeftoverLock { .. }
        | Violation::ExaminationFailed { .. } => Point::Afterwards,
        Violation::ConditionBroken { .. }
        | Violation::UnfoundedRefusal { .. }
        | Violation::NotClaimedOnce { .. } => Point::Conditions,
        Violation::BatchInPart { .. } => Point::Batches,
        Violation::ReceiptTwice { .. } => Point::Receipts,
        Violation::WonTwice { .. } | Violation::WinnerNotOwner { .. } => Point::Claims,
        Violation::ArtifactInvalid { .. }
        | Violation::ArtifactMisses { .. }
        | Violation::CheckFailed { .. }
        | Violation::LeftBehind { .. } => Point::Artifacts,
        Violation::Failed { .. }
        | Violation::BegunTwice { .. }
        | Violation::NeverBegun { .. }
        | Violation::AgentDied { .. }
        | Violation::AgentFailed { .. }
        | Violation::ServerFailed { .. }
        | Violation::Protocol { .. } => Point::Processes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_is_counted_once_at_its_point() {
        let violations = [
            Violation::Lost {
                agent: 0,
                write: 1,
                seq: 2,
                ack_ns: 3,
            },
            Violation::LeftoverFile {
                path: "x".to_owned(),
            },
            Violation::LeftoverFile {
                path: "y".to_owned(),
            },
        ];
        let counts = Counts {
            acknowledged: 7,
            unknown: 2,
            ..Counts::default()
        };
        let checks = checks(Source::Bytes, &counts, &violations);
        let at = |point| checks.iter().find(|check| check.point == point).unwrap();
        assert_eq!(
            (at(Point::Stored).compared, at(Point::Stored).violations),
            (9, 1)
        );
        assert_eq!(at(Point::Afterwards).violations, 2);
        let all: u64 = checks.iter().map(|check| check.violations).sum();
        assert_eq!(all, violations.len() as u64);
    }
}
