//! How a record becomes durable: one sync for everybody who waits.
//!
//! Whoever finds no leader becomes it: it reads the tail, syncs once, raises the watermark and wakes
//! all. The others sleep until the watermark covers them. The lead is a word in the shared page that
//! says only *who works now*, so that not everybody syncs at once; nothing depends on its being
//! unique. A leader that died or was stopped holds up nobody for longer than the patience of the
//! first follower, who takes the lead from it, and writes the doubtful records again before it syncs,
//! since the lost leader may have seen its sync fail. Should both sync, both are right: each raises the
//! watermark to a tail that it read before its own sync. // I6
//!
//! Group commit over a shared watermark is what databases do inside one process; see the `DESIGN.md`
//! question "Why is there no sync lock?".

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    env::{failpoint::Failpoint, system::Host},
    error::{Error, Result},
    seeded::{Bug, seeded},
    telemetry,
    wal::{
        log::LogCore,
        shm::{Hints, Round},
    },
};

/// The least time that a follower gives a leader in which nothing moves.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// … and otherwise this many times what syncs took lately.
const PATIENCE_IN_SYNCS: u32 = 8;

impl LogCore {
    /// Blocks until every record through `seq` is durable.
    pub(crate) fn sync_to(&self, seq: u64) -> Result<()> {
        if seeded(Bug::AckBeforeSync) {
            return Ok(());
        }
        let mut counted_on = false;
        let wait = telemetry::Clock::of_trace();
        let synced = self.follow_or_lead(seq, &mut counted_on);
        if counted_on {
            self.hints().wake_both(); // Nobody else was woken to lead.
        }
        synced.inspect(|()| telemetry::durable(seq, &wait))
    }

    /// Sets `counted_on` while this thread is the one who stayed awake to lead the next round.
    fn follow_or_lead(&self, seq: u64, counted_on: &mut bool) -> Result<()> {
        let mut hints = self.hints();
        let mut watch = Watch::new(self.host().now());
        loop {
            if hints.check().is_err() {
                hints = self.mend()?;
            }
            // Read before the state that decides whether to sleep, so that no bell is missed.
            let wake_count = hints.wake_count();
            let Some(durable_seq) = hints.durable_seq() else {
                hints = self.mend()?;
                continue;
            };
            if durable_seq >= seq {
                return Ok(());
            }
            if hints.is_poisoned() {
                if hints.poisoned().is_some_and(|through| through >= seq) {
                    let reason = "the sync that covers it failed".to_owned();
                    return Err(Error::DurabilityUnknown { seq, reason });
                }
                // A sync would now prove nothing, also for what was written later.
                hints = self.mend()?;
                continue;
            }
            let leader = hints.leader();
            let patience =
                PATIENCE_MIN.max(Duration::from_micros(hints.sync_us()) * PATIENCE_IN_SYNCS);
            let left = watch.left(leader, durable_seq, patience, self.host().now());
            if leader == 0 || left.is_zero() {
                let token = new_token();
                if hints.take_lead(leader, token) {
                    *counted_on = false;
                    let led = if leader == 0 {
                        self.lead(&hints, seq)
                    } else {
                        self.options.reached(Failpoint::LeadTakenOver);
                        telemetry::lead_taken_over(self.dir.path(), leader, durable_seq);
                        self.take_over_sync().map(|()| None)
                    };
                    hints.leave_lead(token);
                    match led {
                        Ok(Some(round)) => hints.wake(round),
                        _ => hints.wake_both(),
                    }
                    self.options.reached(Failpoint::Woken);
                    led?;
                }
            } else {
                let round = hints.round();
                // One of those who wait for the next round stays awake, so that the disk is never idle
                // for as long as it takes to wake a process.
                if !round.covers(seq) && hints.claim_spinner(round) {
                    *counted_on = spin(self.host(), &hints, leader);
                    if !*counted_on {
                        hints.withdraw();
                    }
                } else {
                    hints.sleep(round.wake_word_for(seq), wake_count, left);
                }
            }
        }
    }

    /// Syncs once for everybody. Answers the round, unless there was nothing to sync.
    fn lead(&self, hints: &Hints, seq: u64) -> Result<Option<Round>> {
        self.options.reached(Failpoint::LeaderElected);
        // Whoever can run on this processor and has just been woken, appends first and shares this sync.
        // Not a delay: with nobody to give way to, it returns at once.
        self.host().yield_now();
        let Some((segment, through)) = hints.sync_target() else {
            self.mend()?;
            return Ok(None);
        };
        if through < seq {
            // Where no memory is shared, another process may have written it unseen.
            let through = if hints.is_shared() {
                through
            } else {
                self.mend()?.tail_seq().unwrap_or(0)
            };
            if through >= seq {
                return Ok(None);
            }
            let reason = format!("the log ends at record {through}");
            return Err(Error::DurabilityUnknown { seq, reason });
        }
        if segment > through {
            return Ok(None); // Rotated in between: whoever did that has synced all through `through`.
        }
        if !self.has_open(segment) {
            self.take_over_sync()?; // Opening it takes care of what its sync would not tell.
            return Ok(None);
        }
        let file = self.segment(segment)?.file;
        let round = hints.begin_round(through);
        self.options.reached(Failpoint::BeforeSync);
        let started = self.host().now();
        if seeded(Bug::DurableEarly) {
            hints.commit(through);
        }
        let mut synced = Ok(());
        if !seeded(Bug::NoDataSync) {
            synced = file.raw().sync_data();
        }
        synced = match synced {
            Err(_) if seeded(Bug::RetryFailedSync) => file.raw().sync_data(),
            synced => synced,
        };
        if !seeded(Bug::NoPoison) {
            synced = self.poison_unless_synced(hints, through, synced);
        }
        synced.map_err(|error| unknown(seq, &error))?;
        let us = u64::try_from((self.host().now() - started).as_micros()).unwrap_or(u64::MAX);
        self.options.reached(Failpoint::AfterSync);
        telemetry::synced(self.dir.path(), hints, through, us);
        let read_late = seeded(Bug::DurableTooHigh).then(|| hints.tail_seq());
        hints.commit(read_late.flatten().unwrap_or(through));
        hints.note_sync_us(us);
        self.options.reached(Failpoint::DurablePublished);
        Ok(Some(round))
    }

    /// Syncs while holding the lock, which everybody else waits for.
    pub(crate) fn sync_locked(&self, seq: u64) -> Result<()> {
        let (hints, tail, segment) = self.tail_under_lock()?;
        let sync = telemetry::Clock::of_debug();
        let synced = self.poison_unless_synced(&hints, tail.seq, segment.file.raw().sync_data());
        synced.map_err(|error| unknown(seq, &error))?;
        telemetry::synced(self.dir.path(), &hints, tail.seq, sync.us());
        hints.commit(tail.seq);
        Ok(())
    }

    /// Has the hints rebuilt from the log, which also makes it durable.
    pub(crate) fn mend(&self) -> Result<Arc<Hints>> {
        self.locked(|| self.tail_under_lock().map(|(hints, ..)| hints))
    }
}

/// What a record is after its sync failed.
fn unknown(seq: u64, error: &std::io::Error) -> Error {
    let reason = error.to_string();
    Error::DurabilityUnknown { seq, reason }
}

/// Waits for the end of a leader's work without sleeping, but giving way to whoever has work to do;
/// false when that takes longer than two syncs of a fast disk. On a slow one, waking costs nothing in
/// comparison.
fn spin(host: &dyn Host, hints: &Hints, leader: u64) -> bool {
    let most = Duration::from_micros(2 * hints.sync_us().clamp(50, 500));
    let started = host.now();
    while host.now() - started < most {
        if hints.leader() != leader {
            return true;
        }
        host.yield_now();
    }
    false
}

/// A number that no other leader has: its value means nothing but "the same one still".
fn new_token() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff;
    u64::from(std::process::id()) << 32 | count.max(1)
}

/// How long the present leader has gone on without anything moving.
struct Watch {
    leader: u64,
    durable_seq: u64,
    since: Instant,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            leader: 0,
            durable_seq: 0,
            since: now,
        }
    }

    /// What is left of `patience` with a leader that has not moved the watermark.
    fn left(
        &mut self,
        leader: u64,
        durable_seq: u64,
        patience: Duration,
        now: Instant,
    ) -> Duration {
        if (self.leader, self.durable_seq) != (leader, durable_seq) {
            *self = Self {
                leader,
                durable_seq,
                since: now,
            };
        }
        patience.saturating_sub(now - self.since)
    }
}
