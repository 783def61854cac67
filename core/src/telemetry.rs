//! Spans and events about the work of a log (feature `tracing`). Without the feature, all of this
//! is empty.
//!
//! The names of spans, events and fields are part of the public interface. The crate's
//! documentation lists them under "Tracing".
#![cfg_attr(
    not(feature = "tracing"),
    expect(clippy::unused_self, reason = "there is nothing to look at")
)]

use std::{fmt::Display, path::Path, time::Duration};

/// An event. Its values are evaluated only if there is a subscriber.
macro_rules! event {
    ($level:ident, $message:literal, $($field:ident = $value:expr),+ $(,)?) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "strand_core", tracing::Level::$level, { $($field = $value),+ }, $message);
        #[cfg(not(feature = "tracing"))]
        let _never = || {
            $(let _ = &$value;)+
        };
    };
}

/// A span over the work in a store's directory.
macro_rules! span {
    ($level:ident, $name:literal, $dir:expr) => {{
        #[cfg(feature = "tracing")]
        let span = Span(tracing::span!(
            target: "strand_core", tracing::Level::$level, $name, dir = shown($dir.display())
        ));
        #[cfg(not(feature = "tracing"))]
        let span = {
            let _never = || shown($dir.display());
            Span()
        };
        span
    }};
}

#[cfg(feature = "tracing")]
use tracing::field::display as shown;

#[cfg(not(feature = "tracing"))]
fn shown<T: Display>(value: T) -> T {
    value
}

/// A span, or nothing.
pub(crate) struct Span(#[cfg(feature = "tracing")] tracing::Span);

impl Span {
    /// Does `work` in this span, in any thread.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        return self.0.in_scope(work);
        #[cfg(not(feature = "tracing"))]
        work()
    }
}

pub(crate) fn open(dir: &Path) -> Span {
    span!(DEBUG, "open", dir)
}

pub(crate) fn append(dir: &Path) -> Span {
    span!(TRACE, "append", dir)
}

pub(crate) fn commit(dir: &Path) -> Span {
    span!(TRACE, "commit", dir)
}

pub(crate) fn compact(dir: &Path) -> Span {
    span!(INFO, "compact", dir)
}

pub(crate) fn repair(dir: &Path) -> Span {
    span!(INFO, "repair", dir)
}

/// Measures time, if there is a subscriber.
pub(crate) struct Clock(#[cfg(feature = "tracing")] Option<std::time::Instant>);

impl Clock {
    /// For an event of level TRACE.
    pub(crate) fn of_trace() -> Self {
        Self(
            #[cfg(feature = "tracing")]
            tracing::enabled!(target: "strand_core", tracing::Level::TRACE)
                .then(std::time::Instant::now),
        )
    }

    /// For an event of level DEBUG.
    pub(crate) fn of_debug() -> Self {
        Self(
            #[cfg(feature = "tracing")]
            tracing::enabled!(target: "strand_core", tracing::Level::DEBUG)
                .then(std::time::Instant::now),
        )
    }

    /// The microseconds since it was started; 0 without a subscriber.
    pub(crate) fn us(&self) -> u64 {
        #[cfg(feature = "tracing")]
        return self.0.map_or(0, |started| us(started.elapsed()));
        #[cfg(not(feature = "tracing"))]
        0
    }
}

fn us(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The store's lock was freed.
pub(crate) fn lock_held(wait_us: u64, hold: &Clock) {
    event!(TRACE, "lock held", wait_us = wait_us, hold_us = hold.us());
}

/// Another thread or process held the store's lock until the deadline, or taking it failed.
pub(crate) fn lock_not_taken(dir: &Path, error: &strand_lock::LockError) {
    event!(
        WARN,
        "lock not taken",
        dir = shown(dir.display()),
        error = shown(error)
    );
}

/// A record is in the log, durable or not.
pub(crate) fn written(seq: u64, bytes: usize) {
    event!(TRACE, "written", seq = seq, bytes = bytes as u64);
}

/// A record is durable, and the caller need not wait any longer.
pub(crate) fn durable(seq: u64, wait: &Clock) {
    event!(TRACE, "durable", seq = seq, wait_us = wait.us());
}

/// A sync has succeeded, and will raise the durable number. Its group is the records that this
/// adds.
pub(crate) fn synced(dir: &Path, durable_seq: u64, through_seq: u64, sync_us: u64) {
    event!(
        DEBUG,
        "synced",
        dir = shown(dir.display()),
        through_seq = through_seq,
        group_records = through_seq.saturating_sub(durable_seq),
        sync_us = sync_us
    );
}

/// A sync has failed. The records through this one are in doubt until the next holder of the lock
/// has rewritten them.
pub(crate) fn sync_failed(dir: &Path, through_seq: u64, error: &dyn Display) {
    event!(
        WARN,
        "sync failed",
        dir = shown(dir.display()),
        through_seq = through_seq,
        error = shown(error)
    );
}

/// Records in doubt were rewritten and synced.
pub(crate) fn healed(dir: &Path, through_seq: u64) {
    event!(
        INFO,
        "healed",
        dir = shown(dir.display()),
        through_seq = through_seq
    );
}

/// A leader made no progress for too long. `leader` is its token.
pub(crate) fn lead_taken_over(dir: &Path, leader: u64, durable_seq: u64) {
    event!(
        INFO,
        "lead taken over",
        dir = shown(dir.display()),
        leader = leader,
        durable_seq = durable_seq
    );
}

/// A torn tail was moved to quarantine.
pub(crate) fn torn_tail_cut(dir: &Path, cut_bytes: u64, quarantined: &Path) {
    event!(
        WARN,
        "torn tail cut",
        dir = shown(dir.display()),
        cut_bytes = cut_bytes,
        quarantined = shown(quarantined.display())
    );
}

/// The log did not end where the hints say. Where no memory is shared, that only means that others
/// have appended.
pub(crate) fn recovered(dir: &Path, rebuilt: bool, adopted: u64, shared: bool) {
    if shared {
        event!(
            INFO,
            "recovered",
            dir = shown(dir.display()),
            rebuilt = rebuilt,
            adopted_records = adopted
        );
    } else {
        event!(
            DEBUG,
            "recovered",
            dir = shown(dir.display()),
            rebuilt = rebuilt,
            adopted_records = adopted
        );
    }
}

/// A new segment was begun.
pub(crate) fn rotated(dir: &Path, first_seq: u64, rotate: &Clock) {
    event!(
        DEBUG,
        "rotated",
        dir = shown(dir.display()),
        first_seq = first_seq,
        rotate_us = rotate.us()
    );
}

/// A phase of a compaction is done.
pub(crate) fn compaction_phase(dir: &Path, phase: &'static str, clock: &mut Clock) {
    event!(
        DEBUG,
        "compaction phase",
        dir = shown(dir.display()),
        phase = phase,
        phase_us = clock.us()
    );
    *clock = Clock::of_debug();
}

/// A compaction is done.
pub(crate) fn compacted(
    dir: &Path,
    through_seq: u64,
    entries: u64,
    snapshot_bytes: u64,
    removed_files: u64,
    hold: Duration,
    elapsed: Duration,
) {
    event!(
        INFO,
        "compacted",
        dir = shown(dir.display()),
        through_seq = through_seq,
        entries = entries,
        snapshot_bytes = snapshot_bytes,
        removed_files = removed_files,
        hold_us = us(hold),
        elapsed_us = us(elapsed)
    );
}

/// The thread of a [`crate::Compactor`] has failed, and will try again.
pub(crate) fn compactor_failed(dir: &Path, error: &dyn Display) {
    event!(
        WARN,
        "compactor failed",
        dir = shown(dir.display()),
        error = shown(error)
    );
}

/// A repair has changed the store.
pub(crate) fn repaired(dir: &Path, replaced_files: u64, lost_records: u64) {
    event!(
        WARN,
        "repaired",
        dir = shown(dir.display()),
        replaced_files = replaced_files,
        lost_records = lost_records
    );
}
