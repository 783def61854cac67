//! Deliberate mistakes, each of which the tests must find: a test that can't fail proves nothing.
//!
//! They exist only where the compiler is told `--cfg strand_seeded_bugs`, and then one of them is switched on by the variable
//! `STRAND_SEEDED_BUG` of the environment. No build without debug assertions can have them. `cargo xtask mutants` runs
//! them all.

#![cfg_attr(
    not(strand_seeded_bugs),
    expect(unreachable_pub, reason = "public where the mistakes can be made")
)]

#[cfg(all(strand_seeded_bugs, not(debug_assertions)))]
compile_error!("deliberate mistakes are not for release builds");

macro_rules! bugs {
    ($($variant:ident, $name:literal, $tier:literal, $what:literal;)+) => {
        /// A deliberate mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug { $(#[doc = $what] $variant,)+ }

        #[cfg(strand_seeded_bugs)]
        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name, as in the environment.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The tier of tests that must find it.
            #[must_use]
            pub fn tier(self) -> &'static str {
                match self { $(Self::$variant => $tier,)+ }
            }

            /// What is wrong.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $what,)+ }
            }
        }
    };
}

bugs! {
    NoDataSync, "no-data-sync", "T2", "the leader of a group does not sync";
    NoSyncAtRotation, "no-sync-at-rotation", "T2", "a full segment is not synced before its successor is created";
    NoDirSyncAtRotation, "no-dir-sync-at-rotation", "T2", "the name of a new segment is not made durable";
    NoDirSyncOfReplaced, "no-dir-sync-of-replaced", "T2", "a file is replaced, but its new name not made durable";
    NoSyncInRecovery, "no-sync-in-recovery", "T2", "what recovery finds is told to be durable without a sync";
    AckBeforeSync, "ack-before-sync", "T8", "an append is acknowledged when it is written";
    DurableEarly, "watermark-early", "T4", "the watermark is raised before the sync";
    DurableTooHigh, "watermark-too-high", "T4", "the watermark is raised to what was written meanwhile, too";
    RetryFailedSync, "retry-failed-sync", "T2", "a failed sync is tried again, and believed";
    NoPoison, "no-poison", "T4", "a failed sync is told to its leader only";
    RenameBeforeSync, "rename-before-sync", "T2", "a file gets its name before its bytes are durable";
    ManifestInPlace, "manifest-in-place", "T2", "the manifest is written over in place";
    NoChecksum, "no-checksum", "T9", "the checksum of a record is not looked at";
    NoSnapshotChecksum, "no-snapshot-checksum", "T9", "the checksums of a snapshot are not looked at";
    CutBelowDurable, "cut-below-watermark", "T9", "damage below the watermark is cut off like a torn tail";
    TornTailStays, "torn-tail-stays", "T4", "a torn tail is moved to quarantine, but not cut off";
    TornTailThrownAway, "torn-tail-thrown-away", "T9", "a torn tail is cut off without a copy";
    NoLock, "no-lock", "T4", "appends do not take the lock";
    LockKeptAfterError, "lock-kept-after-error", "T1", "an append that fails does not free the lock";
    ShortWriteIgnored, "short-write-ignored", "T1", "a short write is taken for a whole one";
    FailedWriteStays, "failed-write-stays", "T1", "what a failed write has written is not cut off";
    ReadErrorIsEnd, "read-error-is-end", "T1", "a read that fails is taken for the end of the file";
    SeqReused, "seq-reused", "T3", "the first record of a new segment has the number of the last one before it";
    SegmentsRemovedEarly, "segments-removed-early", "T2", "old segments are removed before the manifest does without them";
    StaleHintsTrusted, "stale-hints-trusted", "T4", "the hints of another boot are believed";
    ReaderPastDurable, "reader-past-watermark", "T4", "readers see what is written but not durable";
    MissingSegmentSkipped, "missing-segment-skipped", "T9", "a segment that is not there is passed over";
    FollowerSkips, "follower-skips", "T4", "a follower misses the first record of each new segment";
    TombstoneDropped, "tombstone-dropped", "T3", "a compaction forgets what was deleted";
    KeyForgotten, "key-forgotten", "T3", "a compaction forgets idempotency keys";
    BatchSplit, "batch-split", "T2", "a batch is written as several records";
    ClaimUnchecked, "claim-unchecked", "T3", "an issue can be claimed that somebody has";
    StaleCondition, "stale-condition", "T4", "a condition is checked against the state of an earlier moment";
}

/// Whether this mistake is to be made.
#[cfg(not(strand_seeded_bugs))]
pub(crate) const fn seeded(_bug: Bug) -> bool {
    false
}

/// Whether this mistake is to be made.
#[cfg(strand_seeded_bugs)]
pub(crate) fn seeded(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("STRAND_SEEDED_BUG").ok()?;
        Bug::ALL.iter().find(|bug| bug.name() == name).copied()
    });
    *chosen == Some(bug)
}
