//! Group commit: one sync makes durable what all waiting threads and processes have appended.
//!
//! A thread that finds no leader becomes it. It reads the tail, syncs once, raises the durable
//! number and wakes the others, which sleep until that covers their record. The lead is a word in
//! the shared page that says only *who works now*; nothing depends on its being unique.
//!
//! A leader that died or was stopped delays no one for longer than the patience of the first
//! follower. That follower takes the lead over, and rewrites the records in doubt before it syncs,
//! since the lost leader may have seen its sync fail. If both sync, both are right: each raises the
//! durable number to a tail that it read before its own sync. // I6
//!
//! A waiting thread is in one of these states:
//!
//! | state | does | then |
//! | --- | --- | --- |
//! | `Looking` | reads the words, and has bad hints rebuilt | any state |
//! | `Leading` | gathers (see [`super::gather`]) and syncs for all | `Looking` |
//! | `TakingOver` | rewrites and syncs in the place of a leader that stopped | `Looking` |
//! | `Spinning` | yields until the round ends, to lead the next one at once | `Looking` |
//! | `Sleeping` | sleeps until it is woken, or its patience ends | `Looking` |
//! | `Durable` | returns | |
//!
//! Databases do group commit inside one process. Here it works across processes; see the
//! `DESIGN.md` question "Why is there no sync lock?".

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    env::failpoint::Failpoint,
    error::{Error, Result},
    options::Durability,
    telemetry,
    wal::{
        recovery::ValidTail,
        round::{Round, Rounds, WakeCounts},
        shm::Hints,
        writer::{Locked, Writer, page_error},
    },
};

/// A follower waits at least this long for a leader in which nothing moves,
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// and at least this many times what syncs took lately.
const PATIENCE_IN_SYNCS: u32 = 8;
/// A sync takes at least this long, for a thread that spins through two.
const SPIN_MIN: Duration = Duration::from_micros(50);

impl Writer {
    /// Makes a written record as durable as the options ask.
    pub(crate) fn acknowledge(&self, seq: u64) -> Result<()> {
        if self.options.durability == Durability::Synced && self.hints().is_shared() {
            in_the_log(seq, self.sync_to(seq))?;
            self.note_acknowledged();
        }
        Ok(())
    }

    /// Blocks until every record through `seq` is durable.
    pub(crate) fn sync_to(&self, seq: u64) -> Result<()> {
        let wait = telemetry::Clock::of_trace();
        let mut waiter = Waiter::new(self, seq);
        let synced = waiter.run();
        if waiter.is_successor {
            Rounds::of(&self.hints()).wake_all(); // The round woke no other thread to lead.
        }
        synced.inspect(|()| telemetry::durable(seq, &wait))
    }
}

impl Locked<'_> {
    /// Where no memory is shared, makes a record durable before the next process gets the lock and
    /// sees it. The record is in the log already: after an error it is not *rejected*.
    pub(crate) fn sync_unless_shared(&self, seq: u64) -> Result<()> {
        let hints = self.writer.hints();
        let is_durable = || hints.durable_seq().is_some_and(|durable| durable >= seq);
        if self.writer.options.durability == Durability::Synced
            && !hints.is_shared()
            && !is_durable()
        {
            in_the_log(seq, self.sync(seq))?;
        }
        Ok(())
    }

    /// Syncs while all others wait for the lock.
    fn sync(&self, seq: u64) -> Result<()> {
        let tail = self.validate_tail()?;
        let synced = tail.sync_by(|| tail.segment.file.raw().sync_data());
        synced.map_err(|error| Error::in_doubt(seq, error))
    }

    /// Makes everything durable in the place of a leader that stopped. It may have seen its sync
    /// fail, and died before it said so. A sync alone would prove nothing. // I7
    fn sync_in_doubt(&self) -> Result<()> {
        let tail = self.validate_tail()?;
        let durable_seq = tail.hints.durable_seq().unwrap_or(0);
        tail.sync_by(|| tail.segment.sync_in_doubt(tail.at, durable_seq))
    }
}

impl ValidTail<'_> {
    /// Raises the durable number to the tail, if `sync` succeeds.
    fn sync_by<E: Display>(
        &self,
        sync: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let clock = telemetry::Clock::of_debug();
        let (hints, seq) = (&self.hints, self.at.seq);
        self.writer.sync_or_poison(hints, seq, sync)?;
        let durable_seq = hints.durable_seq().unwrap_or(0);
        telemetry::synced(self.writer.dir.path(), durable_seq, seq, clock.us());
        hints.commit(seq);
        Ok(())
    }
}

/// The next step of a waiting thread.
enum State {
    Looking,
    Leading,
    TakingOver {
        leader: u64,
        durable_seq: u64,
    },
    Spinning {
        leader: u64,
    },
    Sleeping {
        round: Round,
        counts: WakeCounts,
        time: Duration,
    },
    Durable,
}

/// A thread that waits until a record is durable.
struct Waiter<'a> {
    writer: &'a Writer,
    seq: u64,
    hints: Arc<Hints>,
    patience: Patience,
    /// This thread spun through the last round: that round has woken no other thread to lead.
    is_successor: bool,
}

impl<'a> Waiter<'a> {
    fn new(writer: &'a Writer, seq: u64) -> Self {
        Self {
            writer,
            seq,
            hints: writer.hints(),
            patience: Patience::new(writer.host().now()),
            is_successor: false,
        }
    }

    fn run(&mut self) -> Result<()> {
        let mut state = State::Looking;
        loop {
            state = match state {
                State::Looking => self.look()?,
                State::Leading => self.lead(0, Self::sync_for_all)?,
                State::TakingOver {
                    leader,
                    durable_seq,
                } => self.lead(leader, |waiter| {
                    waiter.writer.reached(Failpoint::LeadTakenOver);
                    telemetry::lead_taken_over(waiter.writer.dir.path(), leader, durable_seq);
                    waiter.sync_in_doubt()
                })?,
                State::Spinning { leader } => self.spin(leader),
                State::Sleeping {
                    round,
                    counts,
                    time,
                } => {
                    let word = round.wake_word_for(self.seq);
                    Rounds::of(&self.hints).sleep(word, counts, time);
                    State::Looking
                }
                State::Durable => return Ok(()),
            }
        }
    }

    /// Reads the words and decides.
    fn look(&mut self) -> Result<State> {
        let rounds = Rounds::of(&self.hints);
        // Read before the state that decides whether to sleep, so that no wake is missed.
        let counts = rounds.wake_counts();
        let Some(durable_seq) = self.hints.durable_seq() else {
            return self.rebuild();
        };
        if durable_seq >= self.seq {
            // If the page was replaced by a copy of before, readers would not see the record.
            return match self.hints.check() {
                Ok(()) => Ok(State::Durable),
                Err(_) => self.rebuild(),
            };
        }
        if self.hints.is_poisoned() {
            if self.hints.poisoned().is_some_and(|last| last >= self.seq) {
                return Err(Error::in_doubt(self.seq, "the sync that covers it failed"));
            }
            // A sync would prove nothing now, not even for what was written later.
            return self.rebuild();
        }
        let leader = rounds.leader();
        let now = self.writer.host().now();
        let time = self.patience.left(rounds, leader, durable_seq, now);
        if leader == 0 {
            return Ok(State::Leading);
        }
        // Others may go on in the next page. A leader looks right before its sync.
        if self.hints.check().is_err() {
            return self.rebuild();
        }
        if time.is_zero() {
            return Ok(State::TakingOver {
                leader,
                durable_seq,
            });
        }
        let round = rounds.current();
        // One of the threads that wait for the next round stays awake, so that the disk is never
        // idle for as long as it takes to wake a process.
        if !rounds.syncs_are_slow() && !round.covers(self.seq) && rounds.claim_spinner(round) {
            return Ok(State::Spinning { leader });
        }
        Ok(State::Sleeping {
            round,
            counts,
            time,
        })
    }

    /// Has the hints rebuilt from the log, which also makes it durable.
    fn rebuild(&mut self) -> Result<State> {
        self.writer.shm.usable().map_err(page_error)?;
        self.hints = self.writer.validated_hints()?;
        Ok(State::Looking)
    }

    /// Takes the lead from `old`, does the work, and wakes the others. `work` returns the round
    /// that it has synced, if it began one.
    fn lead(
        &mut self,
        old: u64,
        work: impl FnOnce(&mut Self) -> Result<Option<Round>>,
    ) -> Result<State> {
        let token = self.writer.tokens.next();
        let hints = Arc::clone(&self.hints);
        let rounds = Rounds::of(&hints);
        if !rounds.take_lead(old, token) {
            return Ok(State::Looking);
        }
        let led = work(self);
        rounds.leave_lead(token);
        match led {
            Ok(Some(round)) => rounds.end(round),
            _ => rounds.wake_all(),
        }
        self.is_successor = false;
        self.writer.reached(Failpoint::Woken);
        led.map(|_| State::Looking)
    }

    /// Syncs once for all. Returns the round, unless there was nothing to sync.
    fn sync_for_all(&mut self) -> Result<Option<Round>> {
        let (writer, hints, seq) = (self.writer, &Arc::clone(&self.hints), self.seq);
        writer.reached(Failpoint::LeaderElected);
        if !Rounds::of(hints).syncs_are_slow() {
            // A thread that was just woken and can run on this processor appends first, and shares
            // this sync. This is no delay: if none wants to run, it returns at once.
            writer.host().yield_now();
        } else if writer.is_eager() {
            writer.gather(hints);
        }
        let Some((segment, through)) = hints.sync_target() else {
            writer.validated_hints()?;
            return Ok(None);
        };
        if through < seq {
            // Where no memory is shared, another process may have written it unseen.
            let through = if hints.is_shared() {
                through
            } else {
                writer.validated_hints()?.tail_seq().unwrap_or(0)
            };
            if through >= seq {
                return Ok(None);
            }
            let reason = format!("the log ends at record {through}");
            return Err(Error::in_doubt(seq, reason));
        }
        if segment > through {
            return Ok(None); // Rotated in between, and a rotation syncs all through `through`.
        }
        let lost = writer.lost()?;
        if lost.page {
            self.rebuild()?;
            return Ok(None);
        }
        if lost.segment {
            writer.segment.close();
        }
        let Some(segment) = writer.segment.get(segment) else {
            return self.sync_in_doubt(); // Earlier failures are not reported to a new descriptor.
        };
        let file = segment.file.raw();
        let rounds = Rounds::of(hints);
        let woken = rounds.count_woken();
        let round = rounds.begin(through);
        writer.reached(Failpoint::BeforeSync);
        let started = writer.host().now();
        let sync = || {
            // Another thread's sync of this file may have failed.
            if hints.is_poisoned() {
                return Ok(false);
            }
            file.sync_data().map(|()| true)
        };
        let synced = writer.sync_or_poison(hints, through, sync);
        if !synced.map_err(|error| Error::in_doubt(seq, error))? {
            return Ok(None);
        }
        let us = (writer.host().now() - started).as_micros();
        let us = u64::try_from(us).unwrap_or(u64::MAX);
        writer.reached(Failpoint::AfterSync);
        let durable_seq = hints.durable_seq().unwrap_or(0);
        telemetry::synced(writer.dir.path(), durable_seq, through, us);
        rounds.note_sync_us(us);
        rounds.expect_back(hints.tail_seq().unwrap_or(through), woken);
        hints.commit(through);
        writer.reached(Failpoint::DurablePublished);
        Ok(Some(round))
    }

    fn sync_in_doubt(&self) -> Result<Option<Round>> {
        let locked = self.writer.lock()?;
        locked.sync_in_doubt()?;
        locked.unlock()?;
        Ok(None)
    }

    /// Waits for the end of a leader's work without sleeping, but lets other threads run. Gives up
    /// after two syncs.
    fn spin(&mut self, leader: u64) -> State {
        let rounds = Rounds::of(&self.hints);
        let host = self.writer.host();
        let time_max = 2 * rounds.sync_time().max(SPIN_MIN);
        let started = host.now();
        self.is_successor = false;
        while host.now() - started < time_max {
            if rounds.leader() != leader {
                self.is_successor = true;
                return State::Looking;
            }
            host.yield_now();
        }
        rounds.release_spinner();
        State::Looking
    }
}

/// The result for a record that is in the log, whatever became of its sync.
fn in_the_log(seq: u64, synced: Result<()>) -> Result<()> {
    match synced {
        Err(error) if !matches!(error, Error::DurabilityUnknown { .. }) => {
            Err(Error::in_doubt(seq, error))
        }
        synced => synced,
    }
}

/// How long the present leader has gone on without anything moving.
struct Patience {
    leader: u64,
    durable_seq: u64,
    since: Instant,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self {
            leader: 0,
            durable_seq: 0,
            since: now,
        }
    }

    /// The time that is left for a leader that has not raised the durable number.
    fn left(
        &mut self,
        rounds: Rounds<'_>,
        leader: u64,
        durable_seq: u64,
        now: Instant,
    ) -> Duration {
        if (self.leader, self.durable_seq) != (leader, durable_seq) {
            *self = Self {
                leader,
                durable_seq,
                since: now,
            };
        }
        let syncs = rounds.sync_time() * PATIENCE_IN_SYNCS;
        PATIENCE_MIN.max(syncs).saturating_sub(now - self.since)
    }
}
