//! Gathering: where syncs are slow, a leader waits a moment for those whom the last sync woke.
//!
//! Otherwise they come back while the next sync runs already, and two groups of half the size take
//! turns. Nobody must pay for that who has no company:
//!
//! - Only *eager* threads wait and are waited for: those that append again right after their last
//!   append was acknowledged. The page counts their records, so a leader knows how many of them its
//!   sync wakes. One that ends, dies or pauses is not counted any more.
//! - The wait ends when no record has come for a small share of a sync, and after half a sync in
//!   any case. So a thread that does not come back delays the others once, by that share.
//!
//! The leader sleeps meanwhile: if it yielded, a process that computes would have its processor for
//! milliseconds. Only the size of the groups depends on all this.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::wal::{
    round::{Rounds, coming_seq},
    shm::Hints,
    writer::Writer,
};

/// A leader waits so long for the next record, in parts of a sync,
const QUIET_PARTS: u32 = 20;
/// but at least so long: no sleep is shorter.
const QUIET_MIN: Duration = Duration::from_micros(30);
/// It waits so long in all, in parts of a sync.
const WAIT_PARTS: u32 = 2;

/// How a thread appends.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The log that it appended to last: [`Writer::id`].
    writer: u64,
    /// When that append was acknowledged.
    acknowledged: Instant,
    /// The present append began right after that.
    is_eager: bool,
}

thread_local! {
    static PACE: Cell<Option<Pace>> = const { Cell::new(None) };
}

/// A number that no other [`Writer`] of this process has.
pub(crate) fn new_writer_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Writer {
    /// Notes that this thread begins an append.
    pub(crate) fn note_begin(&self) {
        if let Some(pace) = PACE.get().filter(|pace| pace.writer == self.id) {
            let sync = Rounds::of(&self.hints()).sync_time();
            let pause = self
                .host()
                .now()
                .saturating_duration_since(pace.acknowledged);
            PACE.set(Some(Pace {
                is_eager: pause <= quiet_max(sync),
                ..pace
            }));
        }
    }

    /// Notes that its append is acknowledged.
    pub(crate) fn note_acknowledged(&self) {
        if Rounds::of(&self.hints()).syncs_are_slow() {
            PACE.set(Some(Pace {
                writer: self.id,
                acknowledged: self.host().now(),
                is_eager: false,
            }));
        }
    }

    /// Whether its present append began right after the last one.
    pub(crate) fn is_eager(&self) -> bool {
        PACE.get()
            .is_some_and(|pace| pace.writer == self.id && pace.is_eager)
    }

    /// Waits for the eager threads that the last sync woke.
    pub(crate) fn gather(&self, hints: &Hints) {
        let rounds = Rounds::of(hints);
        let sync = rounds.sync_time();
        let began = self.host().now();
        let mut last_seq = coming_seq(hints);
        while last_seq.is_some_and(|seq| seq < rounds.all_back_seq())
            && self.host().now() - began < sync / WAIT_PARTS
        {
            rounds.sleep_until_all_back(hints, quiet_max(sync));
            let seq = coming_seq(hints);
            if seq == last_seq {
                return;
            }
            last_seq = seq;
        }
    }
}

fn quiet_max(sync: Duration) -> Duration {
    QUIET_MIN.max(sync / QUIET_PARTS)
}
