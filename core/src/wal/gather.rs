//! Gathering: a leader waits a moment for those whom the last sync woke.
//!
//! Otherwise they come back while the next sync runs already, and two groups of half the size take
//! turns. Nobody must pay for that who has no company:
//!
//! - Only *eager* threads wait and are waited for: those that append again right after their last
//!   append was acknowledged. The page counts their records, so a leader knows how many of them its
//!   sync wakes. One that ends, dies or pauses is not counted any more.
//! - The wait ends when no record has come for a small share of a sync: the smaller, the more
//!   records are there. So a thread that does not come back delays the others once, by that share.
//!
//! Where syncs are fast, the leader yields meanwhile, and those that can run on its processor
//! append at once. But beside a process that computes, a yield lasts for milliseconds. Where one
//! did, and where syncs are slow, the leader sleeps instead. Only the size of the groups depends on
//! all this.

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

/// A leader waits at most so long for the next record, in parts of a sync,
const QUIET_PARTS: u32 = 20;
/// but may wait so long in any case: no sleep is shorter.
const QUIET_MIN: Duration = Duration::from_micros(30);
/// Where it sleeps, it waits so long in all, in parts of a sync.
const WAIT_PARTS: u32 = 2;
/// Where it yields, so long: less than any patience of those that wait for it.
const YIELDS_MAX: Duration = Duration::from_millis(10);
/// From here on it sleeps.
const ASLEEP_SYNC: Duration = Duration::from_micros(600);
/// A yield for so long was one to a process that computes,
const YIELD_MAX: Duration = Duration::from_millis(1);
/// unless threads appended meanwhile, each for so long.
const APPEND_MAX: Duration = Duration::from_micros(100);

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
        PACE.set(Some(Pace {
            writer: self.id,
            acknowledged: self.host().now(),
            is_eager: false,
        }));
    }

    /// Whether its present append began right after the last one.
    pub(crate) fn is_eager(&self) -> bool {
        PACE.get()
            .is_some_and(|pace| pace.writer == self.id && pace.is_eager)
    }

    /// Waits for the eager threads that the last sync woke.
    pub(crate) fn gather(&self, hints: &Hints) {
        let (rounds, host) = (Rounds::of(hints), self.host());
        let (Some(mut last_seq), Some(durable_seq)) = (coming_seq(hints), hints.durable_seq())
        else {
            return;
        };
        let (sync, may_yield) = (rounds.sync_time(), rounds.may_yield());
        let began = host.now();
        let mut moved = began; // When the last record came.
        while last_seq < rounds.all_back_seq() {
            let wait = Wait::of(sync, last_seq.saturating_sub(durable_seq), may_yield);
            match wait {
                Wait::Yield { .. } => host.yield_now(),
                Wait::Sleep { .. } if moved - began >= sync / WAIT_PARTS => return,
                Wait::Sleep { quiet } => rounds.sleep_until_all_back(hints, quiet),
            }
            let Some(seq) = coming_seq(hints) else { return };
            let now = host.now();
            let (records, time) = (seq.saturating_sub(last_seq), now - moved);
            let is_over = match wait {
                Wait::Yield { .. } if is_dear(time, records) => {
                    rounds.avoid_yields();
                    true
                }
                Wait::Yield { quiet } => records == 0 && time >= quiet || now - began >= YIELDS_MAX,
                Wait::Sleep { .. } => records == 0,
            };
            if is_over {
                return;
            }
            if records > 0 {
                (last_seq, moved) = (seq, now);
            }
        }
    }
}

/// How a leader waits for the next record, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It lets others run on its processor.
    Yield {
        quiet: Duration,
    },
    Sleep {
        quiet: Duration,
    },
}

impl Wait {
    /// How it waits with so many records ready.
    fn of(sync: Duration, ready: u64, may_yield: bool) -> Self {
        if !may_yield {
            let quiet = quiet_max(sync);
            return Self::Sleep { quiet };
        }
        // The more are ready, the less is one more worth.
        let ready = u32::try_from(ready.max(1)).unwrap_or(u32::MAX);
        let quiet = quiet_max(sync).min(sync / WAIT_PARTS / ready);
        if sync < ASLEEP_SYNC || quiet < QUIET_MIN {
            Self::Yield { quiet }
        } else {
            Self::Sleep { quiet }
        }
    }
}

/// Whether others have computed while a leader yielded, since so few records came in that time.
fn is_dear(time: Duration, records: u64) -> bool {
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    time > YIELD_MAX.max(APPEND_MAX.saturating_mul(records))
}

fn quiet_max(sync: Duration) -> Duration {
    QUIET_MIN.max(sync / QUIET_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_one_record_more_gets_shorter_as_they_come() {
        let us = Duration::from_micros;
        let of = |sync, ready| Wait::of(us(sync), ready, true);
        let asleep = |sync| Wait::of(us(sync), 100, false);
        for (wait, expected) in [
            (of(100, 1), Wait::Yield { quiet: us(30) }),
            (of(100, 5), Wait::Yield { quiet: us(10) }),
            (of(100, 50), Wait::Yield { quiet: us(1) }),
            (of(2_000, 1), Wait::Sleep { quiet: us(100) }),
            (of(2_000, 20), Wait::Sleep { quiet: us(50) }),
            (of(2_000, 100), Wait::Yield { quiet: us(10) }),
            (of(0, 0), Wait::Yield { quiet: us(0) }),
            (asleep(2_000), Wait::Sleep { quiet: us(100) }),
            (asleep(100), Wait::Sleep { quiet: us(30) }),
        ] {
            assert_eq!(wait, expected);
        }
    }

    #[test]
    fn a_yield_in_which_others_appended_is_not_dear() {
        let ms = Duration::from_millis;
        assert!(!is_dear(ms(1), 0));
        assert!(is_dear(ms(4), 0));
        assert!(is_dear(ms(4), 30));
        assert!(!is_dear(ms(4), 50));
    }
}
