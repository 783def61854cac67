//! Rounds of syncs: the words in shared memory by which threads and processes take turns at
//! syncing, and wake each other. The protocol is in [`super::group_commit`].

use std::{
    sync::atomic::{AtomicU64, Ordering, fence},
    time::Duration,
};

use crate::{
    env::system::Host,
    wal::{
        shm::{Hints, Words, wait, word},
        slots::Slots,
    },
};

/// After a yield to a process that computes, so many rounds pass until one is tried again.
const ROUNDS_ASLEEP: u64 = 256;

/// A sync may count for so long, however long the ones before took.
const SYNC_US_MAX: u64 = 1_000_000;

/// One sync by one leader. It covers the records through its target.
///
/// A thread that waits for a covered record sleeps on the round's wake word, and all others on that
/// of the next round. There are two wake words, for even and for odd rounds, so that a sync wakes
/// the threads that it covers, and one more to lead the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    number: u16,
    target: u64,
}

impl Round {
    fn from_word(word: u64) -> Self {
        let [low, high, ..] = word.to_le_bytes();
        Self {
            number: u16::from_le_bytes([low, high]),
            target: word >> 16,
        }
    }

    fn to_word(self) -> u64 {
        self.target << 16 | u64::from(self.number)
    }

    fn wake_word(self) -> WakeWord {
        if self.number.is_multiple_of(2) {
            WakeWord::Even
        } else {
            WakeWord::Odd
        }
    }

    /// Whether the round's sync makes `seq` durable.
    pub(crate) fn covers(self, seq: u64) -> bool {
        seq <= self.target
    }

    /// The wake word of the round that makes `seq` durable: this one or the next. A record without
    /// a number is written by the next leader.
    pub(crate) fn wake_word_for(self, seq: Option<u64>) -> WakeWord {
        if seq.is_some_and(|seq| self.covers(seq)) {
            self.wake_word()
        } else {
            self.wake_word().other()
        }
    }
}

/// A counter to sleep on, and the mark that a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeWord {
    Even,
    Odd,
}

impl WakeWord {
    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Even => wait::EVEN,
            Self::Odd => wait::ODD,
        }
    }

    fn sleepers(self) -> usize {
        match self {
            Self::Even => wait::EVEN_SLEEPERS,
            Self::Odd => wait::ODD_SLEEPERS,
        }
    }
}

/// Numbers that no other leader has. They mean nothing but "still the same one". They begin at
/// random: process ids are not unique between pid namespaces.
#[derive(Debug)]
pub(crate) struct LeadTokens(AtomicU64);

impl LeadTokens {
    pub(crate) fn new(host: &dyn Host) -> Self {
        Self(AtomicU64::new(host.random()))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).max(1)
    }
}

/// How often each wake word was woken at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeCounts {
    even: u32,
    odd: u32,
}

/// The last record's number, once those that wait in slots are written.
pub(crate) fn coming_seq(hints: &Hints) -> Option<u64> {
    let tail_seq = hints.tail_seq()?;
    Some(tail_seq.saturating_add(Slots::of(hints).ready_count()))
}

/// The words about rounds in a page of hints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds<'a>(&'a Words);

impl<'a> Rounds<'a> {
    pub(crate) fn of(hints: &'a Hints) -> Self {
        Self(hints.words())
    }

    /// The present leader's token, 0 when there is none.
    pub(crate) fn leader(self) -> u64 {
        self.0.raw(word::LEADER).load(Ordering::SeqCst)
    }

    /// Makes the caller the leader in the place of `old`; false when another thread was faster.
    pub(crate) fn take_lead(self, old: u64, token: u64) -> bool {
        self.0
            .raw(word::LEADER)
            .compare_exchange(old, token, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives the lead back, unless it was taken over.
    pub(crate) fn leave_lead(self, token: u64) {
        self.0
            .raw(word::LEADER)
            .compare_exchange(token, 0, Ordering::SeqCst, Ordering::Relaxed)
            .ok();
    }

    /// How long the last syncs took.
    pub(crate) fn sync_time(self) -> Duration {
        Duration::from_micros(self.0.get(word::SYNC_US).unwrap_or(0))
    }

    /// Its process may have been stopped meanwhile, and others wait for a leader the longer, the
    /// longer syncs take. So one sync counts for no more than they would have waited.
    pub(crate) fn note_sync_us(self, us: u64) {
        let before = self.0.get(word::SYNC_US).unwrap_or(0);
        let most = SYNC_US_MAX.max(8 * before.min(1 << 40));
        self.0.set(word::SYNC_US, (before * 7 + us.min(most)) / 8);
    }

    /// Counts the records of eager threads. Only for the holder of the store's lock.
    pub(crate) fn count_eager(self, records: u64) {
        self.0
            .raw(word::EAGER)
            .fetch_add(records, Ordering::Relaxed);
    }

    /// The number of eager threads that a sync which begins now will wake.
    pub(crate) fn count_woken(self) -> u64 {
        let eager = self.0.raw(word::EAGER).load(Ordering::Relaxed);
        let synced = self.0.raw(word::EAGER_SYNCED);
        eager.wrapping_sub(synced.swap(eager, Ordering::Relaxed))
    }

    /// The record with which all eager threads are back that the last sync woke.
    pub(crate) fn all_back_seq(self) -> u64 {
        self.0.raw(word::ALL_BACK).load(Ordering::Relaxed)
    }

    /// Expects so many threads back, each with a record behind `tail_seq`.
    pub(crate) fn expect_back(self, tail_seq: u64, woken: u64) {
        let seq = tail_seq.saturating_add(woken);
        self.0.raw(word::ALL_BACK).store(seq, Ordering::Relaxed);
    }

    /// Whether a leader yields while it gathers in this round. To be called once in each.
    pub(crate) fn may_yield(self) -> bool {
        let word = self.0.raw(word::ROUNDS_ASLEEP);
        let left = word.load(Ordering::Relaxed).min(ROUNDS_ASLEEP);
        if left > 0 {
            word.store(left - 1, Ordering::Relaxed);
        }
        left == 0
    }

    /// Has leaders sleep while they gather, for some rounds.
    pub(crate) fn avoid_yields(self) {
        let word = self.0.raw(word::ROUNDS_ASLEEP);
        word.store(ROUNDS_ASLEEP, Ordering::Relaxed);
    }

    /// Sleeps until all eager threads are back, for `time` at most.
    pub(crate) fn sleep_until_all_back(self, hints: &Hints, time: Duration) {
        let page = self.0.page();
        let count = page.u32(wait::GATHER).load(Ordering::SeqCst);
        page.u32(wait::GATHERERS).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if coming_seq(hints).is_some_and(|seq| seq < self.all_back_seq()) {
            page.wait(wait::GATHER, count, time);
        }
        page.u32(wait::GATHERERS).store(0, Ordering::Relaxed);
    }

    /// Wakes a leader that waits for eager threads, if all are back: the caller's record was the
    /// last one.
    pub(crate) fn wake_gathering(self, hints: &Hints) {
        let page = self.0.page();
        fence(Ordering::SeqCst);
        if page.u32(wait::GATHERERS).load(Ordering::SeqCst) != 0
            && coming_seq(hints).is_some_and(|seq| seq >= self.all_back_seq())
        {
            page.u32(wait::GATHER).fetch_add(1, Ordering::SeqCst);
            page.wake_one(wait::GATHER);
        }
    }

    /// The present round, or the last one.
    pub(crate) fn current(self) -> Round {
        Round::from_word(self.0.raw(word::ROUND).load(Ordering::SeqCst))
    }

    /// Begins the round whose sync will cover the records through `target`.
    pub(crate) fn begin(self, target: u64) -> Round {
        let round = Round {
            number: self.current().number.wrapping_add(1),
            target,
        };
        let word = self.0.raw(word::ROUND);
        word.store(round.to_word(), Ordering::SeqCst);
        round
    }

    /// Read these first, then the state that decides whether to [`Rounds::sleep`].
    pub(crate) fn wake_counts(self) -> WakeCounts {
        let count = |word: WakeWord| self.0.page().u32(word.index()).load(Ordering::SeqCst);
        WakeCounts {
            even: count(WakeWord::Even),
            odd: count(WakeWord::Odd),
        }
    }

    /// Sleeps until `word` is woken, unless it was since `counts` were read; for `time` at most.
    pub(crate) fn sleep(self, word: WakeWord, counts: WakeCounts, time: Duration) {
        let count = match word {
            WakeWord::Even => counts.even,
            WakeWord::Odd => counts.odd,
        };
        let page = self.0.page();
        page.u32(word.sleepers()).store(1, Ordering::SeqCst);
        page.wait(word.index(), count, time);
    }

    /// Ends a round: wakes one thread that waits for the next round, to lead that, and all that
    /// wait for this one.
    pub(crate) fn end(self, round: Round) {
        self.wake_one(round.wake_word().other());
        self.wake_sleepers(round.wake_word());
        self.wake_followers();
    }

    /// Wakes all sleeping threads, whatever they wait for.
    pub(crate) fn wake_all(self) {
        self.wake_sleepers(WakeWord::Even);
        self.wake_sleepers(WakeWord::Odd);
        self.wake_followers();
    }

    /// Wakes the readers that follow the log. One system call, even if none sleeps.
    fn wake_followers(self) {
        let page = self.0.page();
        page.u32(wait::FOLLOWERS).fetch_add(1, Ordering::SeqCst);
        page.wake_all(wait::FOLLOWERS);
    }

    /// Clears the mark of sleepers *before* it changes the wake word. A thread that sets the mark
    /// later either sees the new word, or sleeps until the next change. In the other order, a
    /// sleeper could lose its mark and be forgotten.
    fn wake_sleepers(self, word: WakeWord) {
        let page = self.0.page();
        let sleepers = page.u32(word.sleepers());
        let slept = sleepers.swap(0, Ordering::SeqCst) != 0;
        page.u32(word.index()).fetch_add(1, Ordering::SeqCst);
        // Set since then: by a thread that sleeps on the old count, or that will see the new one.
        let sleeps = sleepers.load(Ordering::SeqCst) != 0;
        if slept || sleeps {
            page.wake_all(word.index());
        }
    }

    /// Leaves the mark of sleepers, since only one of them is woken.
    fn wake_one(self, word: WakeWord) {
        let page = self.0.page();
        page.u32(word.index()).fetch_add(1, Ordering::SeqCst);
        if page.u32(word.sleepers()).load(Ordering::SeqCst) != 0 {
            page.wake_one(word.index());
        }
    }
}
