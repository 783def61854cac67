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
//! | `Leading` | gathers ([`super::gather`]), writes what waits in slots, syncs | `Looking` |
//! | `TakingOver` | rewrites and syncs in the place of a leader that stopped | `Looking` |
//! | `Sleeping` | sleeps until it is woken, or its patience ends | `Looking` |
//! | `Durable` | returns | |
//! | `Unwritten` | returns, to append by itself: its record was in a slot and is not in the log | |
//!
//! It waits for a record in the log, or for one that is in a slot (see [`super::slots`]) and has no
//! number yet.
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
    error::{Error, Outcome, Result},
    format::record::EncodedPayload,
    options::Durability,
    telemetry,
    wal::{
        recovery::ValidTail,
        round::{Round, Rounds, WakeCounts},
        shm::{Hints, SHM},
        slots::{Fate, Slots, Use},
        writer::{Locked, Writer, page_error},
    },
};

/// A follower waits at least this long for a leader in which nothing moves,
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// and at least this many times what syncs took lately.
const PATIENCE_IN_SYNCS: u32 = 8;
/// A leader whose own record is in a slot waits at most so long for the lock. Less than any
/// patience: whoever is kept waiting appends by itself, and says whom it waits for.
const LOCK_TIME: Duration = Duration::from_millis(10);
/// A leader whose own record only needs a sync waits at most so long for the lock.
const LOCK_TIME_OF_SYNC: Duration = Duration::from_millis(1);

impl Writer {
    /// Makes a written record as durable as the options ask.
    pub(crate) fn acknowledge(&self, seq: u64) -> Result<()> {
        if self.options.durability == Durability::Synced && self.hints().is_shared() {
            self.sync_to(seq).map_err(|error| in_the_log(seq, error))?;
            self.note_acknowledged();
        }
        Ok(())
    }

    /// Blocks until every record through `seq` is durable.
    pub(crate) fn sync_to(&self, seq: u64) -> Result<()> {
        self.wait_for(Goal::Record(seq), self.hints()).map(|_| ())
    }

    /// Takes the lock if it is free and no leader is at work. A sync that runs does not cover what
    /// is appended meanwhile, so the record can as well wait for the next leader in a slot.
    pub(crate) fn lock_unless_busy(&self) -> Result<Option<Locked<'_>>> {
        if !self.uses_slots() {
            return self.lock().map(Some);
        }
        if Rounds::of(&self.hints()).leader() != 0 {
            return Ok(None);
        }
        self.try_lock()
    }

    fn uses_slots(&self) -> bool {
        self.options.durability == Durability::Synced && self.hints().is_shared()
    }

    /// Has the next leader append the record. Blocks until it is durable; returns its number.
    /// `None` if it is not in the log, and the caller has to append it.
    pub(crate) fn append_through_slot(&self, payload: &EncodedPayload) -> Result<Option<u64>> {
        let hints = self.hints();
        if !self.uses_slots() || !hints.is_ours() {
            return Ok(None);
        }
        let Some(usage) = Slots::of(&hints).submit(payload, self.is_eager()) else {
            return Ok(None);
        };
        Rounds::of(&hints).wake_gathering(&hints);
        self.reached(Failpoint::SlotReady);
        let seq = self.wait_for(Goal::Slot(usage), hints)?;
        if seq.is_some() {
            self.note_acknowledged();
        }
        Ok(seq)
    }

    fn wait_for(&self, goal: Goal, hints: Arc<Hints>) -> Result<Option<u64>> {
        let wait = telemetry::Clock::of_trace();
        let mut waiter = Waiter::new(self, goal, hints);
        let seq = waiter.run();
        if !matches!(seq, Ok(Some(_))) {
            // A round may have woken this thread to lead the next one, and no other.
            Rounds::of(&self.hints()).wake_all();
        }
        seq.inspect(|seq| {
            if let Some(seq) = seq {
                telemetry::durable(*seq, &wait);
            }
        })
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
            self.sync(seq).map_err(|error| in_the_log(seq, error))?;
        }
        Ok(())
    }

    /// Syncs while all others wait for the lock.
    fn sync(&self, seq: u64) -> Result<()> {
        let tail = self.validate_tail()?;
        let synced = tail.sync_by(|| tail.segment.file.raw().sync_data());
        synced.map_err(|error| Error::in_doubt(seq, error))
    }
}

impl ValidTail<'_> {
    /// Makes everything durable in the place of a leader that stopped. It may have seen its sync
    /// fail, and died before it said so. A sync alone would prove nothing. // I7
    fn sync_in_doubt(&self) -> Result<()> {
        let durable_seq = self.hints.durable_seq().unwrap_or(0);
        self.sync_by(|| self.segment.sync_in_doubt(self.at, durable_seq))
    }

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
    Sleeping {
        round: Round,
        counts: WakeCounts,
        time: Duration,
    },
    Durable(u64),
    Unwritten,
}

/// The record for which a thread waits.
#[derive(Debug, Clone, Copy)]
enum Goal {
    Record(u64),
    /// It has no number yet. The slot is in the page that the thread knows.
    Slot(Use),
    /// It was in a slot, and is not in the log.
    Unwritten,
}

/// A thread that waits until a record is durable.
struct Waiter<'a> {
    writer: &'a Writer,
    goal: Goal,
    /// Until it had a number.
    was_in_slot: bool,
    hints: Arc<Hints>,
    patience: Patience,
}

impl<'a> Waiter<'a> {
    fn new(writer: &'a Writer, goal: Goal, hints: Arc<Hints>) -> Self {
        Self {
            writer,
            goal,
            was_in_slot: matches!(goal, Goal::Slot(_)),
            hints,
            patience: Patience::default(),
        }
    }

    /// Returns the record's number once it is durable; `None` if the record is not in the log.
    fn run(&mut self) -> Result<Option<u64>> {
        let durable = self.wait_until_durable();
        durable.map_err(|error| self.settle_after(error))
    }

    fn wait_until_durable(&mut self) -> Result<Option<u64>> {
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
                State::Sleeping {
                    round,
                    counts,
                    time,
                } => {
                    let word = round.wake_word_for(self.seq());
                    Rounds::of(&self.hints).sleep(word, counts, time);
                    State::Looking
                }
                State::Durable(seq) => return Ok(Some(seq)),
                State::Unwritten => return Ok(None),
            }
        }
    }

    /// Reads the words and decides.
    fn look(&mut self) -> Result<State> {
        let hints = Arc::clone(&self.hints);
        let rounds = Rounds::of(&hints);
        // Read before the state that decides whether to sleep, so that no wake is missed.
        let counts = rounds.wake_counts();
        // Before the slot: a record that was taken out of it later has the next round's number.
        let round = rounds.current();
        let Some(durable_seq) = self.hints.durable_seq() else {
            return self.rebuild();
        };
        self.look_at_slot()?;
        let seq = match self.goal {
            Goal::Record(seq) => Some(seq),
            Goal::Slot(_) => None,
            Goal::Unwritten => return Ok(State::Unwritten),
        };
        if let Some(seq) = seq.filter(|seq| durable_seq >= *seq) {
            return Ok(State::Durable(seq));
        }
        if self.hints.is_poisoned() {
            let poisoned = self.hints.poisoned();
            if let Some(seq) = seq.filter(|seq| poisoned.is_some_and(|last| last >= *seq)) {
                return Err(Error::in_doubt(seq, "the sync that covers it failed"));
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
        if time.is_zero() {
            // Others may go on in the next page. A leader that lives finds that out after its
            // sync, and wakes all who wait here.
            if self.hints.check().is_err() {
                return self.rebuild();
            }
            return Ok(State::TakingOver {
                leader,
                durable_seq,
            });
        }
        Ok(State::Sleeping {
            round,
            counts,
            time,
        })
    }

    /// The record's number, if it has one.
    fn seq(&self) -> Option<u64> {
        match self.goal {
            Goal::Record(seq) => Some(seq),
            Goal::Slot(_) | Goal::Unwritten => None,
        }
    }

    /// Looks what became of a record in a slot, and gives the slot back once that is known.
    fn look_at_slot(&mut self) -> Result<()> {
        let Goal::Slot(usage) = self.goal else {
            return Ok(());
        };
        let slots = Slots::of(&self.hints);
        self.take_fate(usage, slots.look(usage))
    }

    fn take_fate(&mut self, usage: Use, fate: Fate) -> Result<()> {
        self.goal = match fate {
            Fate::Waiting => return Ok(()),
            Fate::Written(seq) => Goal::Record(seq),
            Fate::Unwritten => Goal::Unwritten,
            Fate::Unknown => return Err(self.unknown()),
        };
        Slots::of(&self.hints).give_back(usage);
        Ok(())
    }

    /// The page was replaced or cleared with the record in it, or others took the thread for dead.
    fn unknown(&self) -> Error {
        Error::StoreReplaced {
            path: self.writer.dir.path_of(SHM),
            outcome: Outcome::Unknown,
        }
    }

    /// The error to return: it must say what is true of this record.
    fn settle_after(&mut self, error: Error) -> Error {
        let usage = match self.goal {
            Goal::Record(seq) if self.was_in_slot => return in_the_log(seq, error),
            Goal::Record(_) | Goal::Unwritten => return error,
            Goal::Slot(usage) => usage,
        };
        let slots = Slots::of(&self.hints);
        let fate = if slots.withdraw(usage) {
            Fate::Unwritten
        } else {
            slots.look(usage)
        };
        if fate != Fate::Waiting {
            slots.give_back(usage); // Otherwise a dead holder's successor has to settle it first.
        }
        match fate {
            Fate::Written(seq) => in_the_log(seq, error),
            Fate::Unwritten => error,
            Fate::Waiting | Fate::Unknown => self.unknown(),
        }
    }

    /// Has the hints rebuilt from the log, which also makes it durable. A slot in hints that are
    /// used no more is settled here: nobody else looks at it.
    fn rebuild(&mut self) -> Result<State> {
        self.writer.shm.usable().map_err(page_error)?;
        self.hints = self.writer.at_valid_tail(|tail| {
            if let Goal::Slot(usage) = self.goal
                && !Arc::ptr_eq(&tail.hints, &self.hints)
            {
                let slots = Slots::of(&self.hints);
                let fate =
                    slots.resolve_in_old_page(usage, |place, payload| tail.has(place, payload))?;
                self.take_fate(usage, fate)?;
            }
            Ok(Arc::clone(&tail.hints))
        })?;
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
        self.writer.reached(Failpoint::Woken);
        led.map(|_| State::Looking)
    }

    /// Syncs once for all. Returns the round, unless there was nothing to sync.
    fn sync_for_all(&mut self) -> Result<Option<Round>> {
        let (writer, hints) = (self.writer, &Arc::clone(&self.hints));
        writer.reached(Failpoint::LeaderElected);
        if writer.is_eager() {
            writer.gather(hints);
        }
        self.write_waiting()?;
        // Whoever took the lock in this process may have gone on in the next page.
        if !Arc::ptr_eq(hints, &writer.hints()) {
            self.rebuild()?;
            return Ok(None);
        }
        let Goal::Record(seq) = self.goal else {
            return Ok(None);
        };
        if hints.is_poisoned() {
            return Ok(None); // This thread's own file has told of the failed sync, and won't again.
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
        // If the segment was replaced, another file was synced than readers find. Another thread
        // may have opened that one by now. If the page was replaced by a copy of before, readers
        // would not see the number.
        let lost = writer.lost_beside(hints, &segment)?;
        if lost.segment {
            return self.sync_in_doubt();
        }
        if lost.page || hints.is_lost() {
            self.rebuild()?;
            return Ok(None);
        }
        let durable_seq = hints.durable_seq().unwrap_or(0);
        telemetry::synced(writer.dir.path(), durable_seq, through, us);
        rounds.note_sync_us(us);
        rounds.expect_back(hints.tail_seq().unwrap_or(through), woken);
        hints.commit(through);
        writer.reached(Failpoint::DurablePublished);
        Ok(Some(round))
    }

    /// Writes the records that wait in slots. If this thread's own is one of them, and the lock
    /// isn't free soon, takes it back.
    fn write_waiting(&mut self) -> Result<()> {
        let slots = Slots::of(&self.hints);
        let time = match self.goal {
            Goal::Slot(_) => {
                // A holder of the lock that died may have reset the count, or assigned the record.
                slots.announce();
                LOCK_TIME
            }
            _ if slots.ready_count() == 0 => return Ok(()),
            _ => LOCK_TIME_OF_SYNC,
        };
        match self.writer.lock_within(time)? {
            Some(locked) => {
                locked.validate_tail()?.write_waiting()?;
                locked.unlock()?;
            }
            None => {
                if let Goal::Slot(usage) = self.goal
                    && slots.withdraw(usage)
                {
                    slots.give_back(usage);
                    self.goal = Goal::Unwritten;
                }
            }
        }
        self.look_at_slot()
    }

    fn sync_in_doubt(&mut self) -> Result<Option<Round>> {
        let hints = self.writer.at_valid_tail(|tail| {
            tail.sync_in_doubt()?;
            Ok(Arc::clone(&tail.hints))
        })?;
        if self.writer.lost(&hints)?.page || hints.is_lost() {
            self.rebuild()?;
        }
        Ok(None)
    }
}

/// The error for a record that is in the log, whatever became of its sync.
fn in_the_log(seq: u64, error: Error) -> Error {
    match error {
        Error::DurabilityUnknown { .. } => error,
        error => Error::in_doubt(seq, error),
    }
}

/// How long the present leader has gone on without anything moving.
#[derive(Default)]
struct Patience {
    leader: u64,
    durable_seq: u64,
    since: Option<Instant>,
}

impl Patience {
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
                since: None,
            };
        }
        let since = *self.since.get_or_insert(now);
        let syncs = rounds.sync_time() * PATIENCE_IN_SYNCS;
        PATIENCE_MIN.max(syncs).saturating_sub(now - since)
    }
}
