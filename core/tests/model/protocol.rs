//! A writer's next step on a state: `append.rs`, `recovery.rs`, `slots.rs`,
//! `group_commit.rs` and `round.rs` of `core/src/wal`, one load, store or system call at a time.

use crate::state::{
    Group, PER_SEGMENT, Page, RECORDS, Round, Seen, Slot, State, Step, WRITERS, Writer, first,
};

/// The invariants of every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    /// P1: an acknowledged append is durable.
    Acknowledged,
    /// P2: everything through the durable number is durable, and the number never falls.
    Durable,
    /// P3: `lock` has one holder at most.
    OneHolder,
    /// P4: numbers have no gap, and no record is written over.
    Gapless,
    /// P5: a reader finds a valid record at each number through the durable one.
    Readable,
    /// P6: every living writer can finish, and succeeds if no sync failed.
    Progress,
    /// P7: recovery after a power failure keeps every acknowledged record.
    Recoverable,
    /// P8: an append is in the log once at most, and not at all if it was rejected.
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) Property, pub(crate) &'static str);

/// A bug that the protocol could contain. Those marked so were in `core/src` until this search
/// found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    // A leader's steps.
    TailLoadedAfterSync,
    SegmentLoadedBeforeTail,
    CommitBeforeSync,
    CommitIsAStore,
    /// A leader waits for all whom the last sync woke, although some may be gone.
    GatherWithoutBound,
    /// Harmless: nothing depends on there being one leader.
    LeaveIsAStore,
    // The steps of the holder of the lock.
    AcknowledgedBeforeSync,
    PublishedBeforeWrite,
    AppendWithoutLock,
    TornTailStays,
    RotationWithoutSync,
    /// Neither syncs nor raises the durable number.
    RotationOnlyCreates,
    RotationPublishedBeforeCommit,
    /// The successor is created while the generation is even.
    RotationStaysEven,
    /// A segment whose creator died, or failed, before it synced the directory is appended to. It
    /// was in `core/src`.
    RebuildWithoutDirSync,
    // How followers wait.
    /// The wake words are read only before sleeping, not before the state that decides to.
    WakeWordsLoadedLate,
    SleeperNotMarked,
    /// The mark of sleepers is cleared after the wake: it may be that of a thread that sleeps until
    /// the next one.
    WakeBeforeMark,
    /// The mark is cleared before the wake, and a thread that sets it between the two is forgotten.
    /// It was in `core/src`.
    MarkNotLookedAtAgain,
    WakeBeforeLeave,
    NoWake,
    /// Only those that the sync covers are woken.
    NoneWokenToLead,
    /// A rotation raises the durable number and wakes no thread: the one that is woken to lead has
    /// nothing left to do, and the others sleep on. It was in `core/src`.
    RotationDoesNotWake,
    // The steps after a failed sync.
    FailedSyncTriedAgain,
    RebuildWithoutWriting,
    FailureNotMarked,
    RotationFailureNotMarked,
    /// It was in `core/src`.
    TakeoverFailureNotMarked,
    /// A writer that opens a segment does not rewrite the records above the durable number,
    /// although the kernel reports to a file no failure from before it was opened. It was in
    /// `core/src`.
    OpenTrusts,
    /// Harmless, unless combined with the last one.
    TakeoverOnlySyncs,
    // Appends through a slot.
    /// A slot is taken for written when the holder that assigned it has died, without a look at the
    /// log,
    ResolvedAsWritten,
    /// or for not written.
    ResolvedAsUnwritten,
    /// A holder of the lock that appends its own record leaves the slots of a holder that died.
    ResolutionLeftOut,
    /// A leader takes the lock only if a record waits, and not to learn what became of its own.
    LeaderSkipsAssigned,
    AcknowledgedWhenWritten,
    WithdrawnWhenAssigned,
    /// After the write, a slot becomes ready again.
    GroupStaysReady,
    MarkedBeforeWrite,
    MarkedBeforePublication,
    /// The number that a slot was assigned in its last use is still in it.
    SlotSeqNotCleared,
    /// The owner reads the number, and does not look whether the slot is still its own.
    ReclaimedSlotBelieved,
    /// The round is loaded after the slot: a record that was combined in between seems to wait for
    /// the next round.
    RoundLoadedLate,
}

/// To whom the kernel reports that pages could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To each file that was open then, at its next sync. (Linux since 4.13.)
    Each,
    /// To the one whose sync it was.
    One,
}

/// A configuration.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is by itself on or off")]
pub(crate) struct Model {
    /// The number of records that are durable at the start.
    pub(crate) records: u8,
    /// The number of appends of each writer.
    pub(crate) appends: [u8; WRITERS],
    /// How many writers may be killed, each at any step.
    pub(crate) deaths: u8,
    /// How many syncs may fail.
    pub(crate) failures: u8,
    pub(crate) told: Told,
    /// Followers may run out of patience.
    pub(crate) timeouts: bool,
    /// Followers sleep. Otherwise they look again and again, which for all but `Progress` comes to
    /// the same: no other part of the protocol looks at the words by which they wait.
    pub(crate) sleeps: bool,
    /// Fewer steps, where only the order of waits and wakes is in question: what changes or loads
    /// the tail is one, and so are a submission, a round's begin, and the load of both wake words.
    pub(crate) coarse: bool,
    /// A writer that finds a leader, or the lock taken, leaves its append to whoever writes next,
    /// through a slot.
    ///
    /// All payloads are alike, so a record in the log does not tell whose it is. A group ends with
    /// its segment, where the code lets a segment become longer.
    pub(crate) combine: bool,
    /// A leader may wait too long for the lock. Then it withdraws its slot, to append by itself, or
    /// syncs without the records in slots.
    pub(crate) withdraws: bool,
    /// At any moment no slot may be free, and a slot be too old: it is refused or reclaimed.
    pub(crate) ages: bool,
    pub(crate) bug: Option<Bug>,
}

/// Why a state follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Step,
    Death,
    Failure,
}

pub(crate) type Move = (Cause, Result<State, Broken>);

impl Model {
    pub(crate) fn start(&self) -> State {
        let last = self.records.saturating_sub(1) / PER_SEGMENT;
        let mut pages = [Page::Absent; RECORDS];
        pages[..usize::from(self.records)].fill(Page::Durable);
        let offset = self.records + 1 - first(last);
        State {
            writers: self.appends.map(|left| {
                let step = if left == 0 { Step::Done } else { self.begin() };
                Writer::at(step, left)
            }),
            odd: false,
            segment: last,
            last_offset: offset.saturating_sub(1),
            tail_offset: offset,
            tail_seq: self.records,
            durable_seq: self.records,
            poison: 0,
            lead: false,
            round: Round::NONE,
            all_back: 0,
            sleepers: 0,
            locked: false,
            pages,
            whole: self.records,
            torn: false,
            segments: last + 1,
            named: last + 1,
            deaths: self.deaths,
            failures: self.failures,
        }
    }

    /// All moves from a state.
    pub(crate) fn moves(&self, state: &State, moves: &mut Vec<Move>) {
        moves.clear();
        for who in 0..WRITERS {
            // Two writers in the same situation lead to the same states.
            if who == 0 || state.writers[who] != state.writers[who - 1] {
                self.moves_of(state, who, moves);
            }
        }
    }

    fn moves_of(&self, state: &State, who: usize, moves: &mut Vec<Move>) {
        let writer = &state.writers[who];
        if writer.is_over() {
            return;
        }
        for choice in 0..2 * WRITERS {
            if self.may(state, writer, choice) {
                let mut next = *state;
                let stepped = self.step(&mut next, who, choice).and_then(|()| {
                    if next.durable_seq < state.durable_seq {
                        return Err(Broken(Property::Durable, "the durable number fell"));
                    }
                    Ok(next)
                });
                let failure = next.failures < state.failures;
                moves.push((if failure { Cause::Failure } else { Cause::Step }, stepped));
            }
        }
        if state.deaths > 0 {
            let mut next = *state;
            next.deaths -= 1;
            next.locked &= !writer.holds;
            next.writers[who] = writer.dead();
            moves.push((Cause::Death, Ok(next)));
            match writer.step {
                Step::Write => {
                    next.torn = true;
                    moves.push((Cause::Death, Ok(next)));
                }
                Step::WriteGroup => {
                    let mut alive = *state;
                    while alive.whole < writer.through {
                        next.torn = true;
                        moves.push((Cause::Death, Ok(next)));
                        let written = write_of_group(&mut alive, who);
                        next = State {
                            deaths: next.deaths,
                            locked: next.locked,
                            ..alive
                        };
                        next.writers[who] = alive.writers[who].dead();
                        moves.push((Cause::Death, written.map(|()| next)));
                    }
                }
                // Before it says which record the slot is assigned.
                Step::Assign => {
                    for owner in 0..WRITERS {
                        if next.writers[owner].slot == Slot::Ready {
                            let mut assigned = next;
                            assigned.writers[owner].slot = Slot::Assigned;
                            moves.push((Cause::Death, Ok(assigned)));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a step can be taken in this way: 0 is the usual one, 1 with a failure or out of
    /// patience. When one sleeper is woken or one slot is looked at, the choice is which; from
    /// `WRITERS` on, that slot is too old.
    fn may(&self, state: &State, writer: &Writer, choice: usize) -> bool {
        let slot = |slot| state.writers[choice % WRITERS].slot == slot;
        let old = choice >= WRITERS;
        match (writer.step, choice) {
            (Step::Submit, 1) => self.ages,
            (Step::Ready, _) if old => self.may_reclaim(state, choice % WRITERS),
            (Step::Resolve, _) => !old && slot(Slot::Assigned),
            (Step::Assign, _) if old => self.ages && slot(Slot::Ready),
            (Step::Assign, _) if has_room(state, writer) && state.has_slot(Slot::Ready) => {
                slot(Slot::Ready)
            }
            (Step::LockSoon, 0) => !state.locked,
            (Step::LockSoon, 1) => state.locked && self.withdraws,
            (Step::Lock, 0) => !state.locked || self.has(Bug::AppendWithoutLock),
            (Step::Asleep, _) => choice == 1 && self.timeouts,
            (Step::OneWake, _) if old => false,
            (Step::OneWake, _) => {
                let sleeps = |who: usize| sleeps_by(&state.writers[who], other_wake_word(writer));
                sleeps(choice) || choice == 0 && !(0..WRITERS).any(sleeps)
            }
            (step, 0) if is_syncing(step) => !writer.owed,
            (step, 1) if is_syncing(step) => writer.owed || state.failures > 0,
            (Step::LoadLeader, 1) => self.timeouts && state.lead,
            (Step::Gather, 0) => {
                let ready = |writer: &&Writer| writer.slot == Slot::Ready;
                let ready = state.writers.iter().filter(ready).count();
                usize::from(state.tail_seq) + ready >= usize::from(state.all_back)
            }
            _ => choice == 0,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn step(&self, state: &mut State, who: usize, choice: usize) -> Result<(), Broken> {
        self.single_step(state, who, choice)?;
        while self.is_hidden(state.writers[who].step) {
            self.single_step(state, who, 0)?;
        }
        Ok(())
    }

    /// Whether a step is taken together with the one before it.
    fn is_hidden(&self, step: Step) -> bool {
        match step {
            // It never changes.
            Step::LoadPoison | Step::ValidatePoison => self.failures == 0,
            // Only the next holder of `lock` looks at these words, and not while the tail is odd.
            Step::PublishLast | Step::PublishOffset => true,
            Step::Ready => self.coarse && !self.ages,
            Step::TryLock
            | Step::ValidateTail
            | Step::PublishOdd
            | Step::PublishSegment
            | Step::PublishSeq
            | Step::PublishEven
            | Step::LoadOtherWakeWord
            | Step::LeadSegment
            | Step::BeginStore => self.coarse,
            _ => false,
        }
    }

    fn single_step(&self, state: &mut State, who: usize, choice: usize) -> Result<(), Broken> {
        let step = state.writers[who].step;
        let synced = is_syncing(step) && self.sync_end(state, who, choice == 1);
        let next = if step <= Step::Ready {
            Ok(self.submit(state, who, choice))
        } else if step <= Step::RepairWrite {
            Ok(self.validate(state, who))
        } else if step <= Step::RebuildLead {
            Ok(self.rebuild(state, who, synced))
        } else if step <= Step::OverCommit {
            Ok(self.take_over(state, who, synced))
        } else if step <= Step::RotateDirSync {
            Ok(self.rotate(state, who, synced))
        } else if step <= Step::MarkGroup {
            self.combine(state, who, choice)
        } else if step <= Step::Unlock {
            self.write(state, who)
        } else if step <= Step::TakeLead {
            self.sync_to(state, who, choice)
        } else if step <= Step::Asleep {
            Ok(self.wait(state, who))
        } else if step <= Step::LeadCommit {
            Ok(self.lead(state, who, choice, synced))
        } else {
            self.leave(state, who, choice)
        };
        state.writers[who].step = next?;
        Ok(())
    }

    /// Where an append begins.
    fn begin(&self) -> Step {
        if self.combine {
            Step::Submit
        } else {
            Step::Lock
        }
    }

    /// `submit`.
    fn submit(&self, state: &mut State, who: usize, choice: usize) -> Step {
        match state.writers[who].step {
            // The choice is that no slot is free.
            Step::Submit if choice == 1 => Step::Lock,
            Step::Submit if state.lead => Step::Ready,
            Step::Submit => Step::TryLock,
            Step::TryLock if state.locked => Step::Ready,
            Step::TryLock => lock(state, who),
            Step::Ready => {
                if choice >= WRITERS {
                    state.writers[choice % WRITERS].slot = Slot::Gone;
                }
                let writer = &mut state.writers[who];
                writer.slot = Slot::Ready;
                if !self.has(Bug::SlotSeqNotCleared) {
                    writer.slot_seq = 0;
                }
                self.again()
            }
            step => unreachable!("{step:?}"),
        }
    }

    fn may_reclaim(&self, state: &State, owner: usize) -> bool {
        let slot = state.writers[owner].slot;
        self.ages && matches!(slot, Slot::Written | Slot::Unwritten)
    }

    /// `validate_tail`, and `repair`.
    fn validate(&self, state: &mut State, who: usize) -> Step {
        match state.writers[who].step {
            Step::Lock => lock(state, who),
            Step::ValidatePoison if state.poison > 0 => Step::RebuildOdd,
            Step::ValidatePoison => Step::ValidateTail,
            Step::ValidateTail if state.odd => Step::RebuildOdd,
            Step::ValidateTail if self.must_open(state, who, state.segment) => {
                let segment = state.segment;
                self.open(state, who, segment);
                if self.has(Bug::OpenTrusts) {
                    Step::ValidateTail
                } else {
                    Step::OpenLoad
                }
            }
            Step::OpenLoad => {
                state.writers[who].through = state.durable_seq;
                Step::OpenWrite
            }
            Step::OpenWrite => {
                write_in_doubt(state, who);
                state.writers[who].through = 0;
                Step::ValidateTail
            }
            Step::ValidateTail => {
                if state.torn && !self.has(Bug::TornTailStays) {
                    Step::RepairCut
                } else if state.whole > state.tail_seq {
                    Step::RepairWrite
                } else {
                    self.validated(state, who)
                }
            }
            Step::RepairCut => {
                state.torn = false;
                Step::ValidateTail
            }
            Step::RepairWrite => {
                let (from, through) = (state.tail_seq + 1, state.whole);
                write_again(state, from, through);
                state.writers[who].through = through;
                Step::PublishOdd
            }
            step => unreachable!("{step:?}"),
        }
    }

    /// The next step of the holder of `lock` when the tail is right.
    fn validated(&self, state: &mut State, who: usize) -> Step {
        let writer = &mut state.writers[who];
        let appends = !writer.over && !writer.group.is_leaders();
        let resolves = !(appends && self.has(Bug::ResolutionLeftOut));
        if resolves && state.has_slot(Slot::Assigned) {
            Step::Resolve
        } else {
            self.resolved(state, who)
        }
    }

    /// The same when there is no slot of a leader that died.
    fn resolved(&self, state: &mut State, who: usize) -> Step {
        let anything_ready = state.has_slot(Slot::Ready);
        let writer = &mut state.writers[who];
        let combines = writer.group == Group::Leads;
        if writer.over {
            Step::OverLoad
        } else if combines && !anything_ready || !combines && (writer.seq > 0 || writer.has_slot())
        {
            // Another writer was faster, or it only came to rebuild, or to resolve its slot.
            Step::Unlock
        } else if combines && state.tail_offset < PER_SEGMENT {
            Step::Assign
        } else if anything_ready && state.tail_offset < PER_SEGMENT {
            writer.group = Group::Appends;
            writer.seq = state.tail_seq + 1;
            writer.through = writer.seq;
            Step::Assign
        } else if state.tail_offset < PER_SEGMENT {
            if self.has(Bug::PublishedBeforeWrite) {
                writer.through = state.tail_seq + 1;
                Step::PublishOdd
            } else {
                Step::Write
            }
        } else if self.has(Bug::RotationOnlyCreates) {
            Step::RotateOdd
        } else if self.has(Bug::RotationWithoutSync) {
            Step::RotateCommit
        } else {
            Step::RotateLeader
        }
    }

    /// `take_over_sync`, once the tail is right.
    fn take_over(&self, state: &mut State, who: usize, synced: bool) -> Step {
        match state.writers[who].step {
            Step::OverLoad => {
                state.writers[who].through = state.durable_seq;
                Step::OverWrite
            }
            Step::OverWrite => {
                write_in_doubt(state, who);
                Step::OverSync
            }
            Step::OverSync => {
                sync_begin(state, who, state.segment);
                Step::OverSyncing
            }
            Step::OverSyncing if synced => Step::OverCommit,
            Step::OverSyncing => {
                state.writers[who].failed = true;
                if self.has(Bug::TakeoverFailureNotMarked) {
                    Step::Unlock
                } else {
                    Step::OverPoison
                }
            }
            Step::OverPoison => {
                state.poison = state.tail_seq + 1;
                Step::Unlock
            }
            Step::OverCommit => {
                state.durable_seq = state.durable_seq.max(state.tail_seq);
                Step::Unlock
            }
            step => unreachable!("{step:?}"),
        }
    }

    /// `rebuild`.
    fn rebuild(&self, state: &mut State, who: usize, synced: bool) -> Step {
        let last = state.segments - 1;
        match state.writers[who].step {
            Step::RebuildOdd => {
                state.writers[who].through = state.durable_seq;
                state.odd = true;
                Step::RebuildScan
            }
            Step::RebuildScan => {
                state.writers[who].open = 0;
                self.open(state, who, last);
                state.torn = false;
                if self.has(Bug::RebuildWithoutWriting) {
                    Step::RebuildSync
                } else {
                    Step::RebuildWrite
                }
            }
            Step::RebuildWrite => {
                let durable = state.writers[who].through;
                write_again(state, first(last).max(durable + 1), state.whole);
                Step::RebuildSync
            }
            Step::RebuildSync => {
                sync_begin(state, who, last);
                Step::RebuildSyncing
            }
            Step::RebuildSyncing if synced => {
                if self.has(Bug::RebuildWithoutDirSync) {
                    Step::RebuildCommit
                } else {
                    Step::RebuildDirSync
                }
            }
            Step::RebuildSyncing => {
                state.writers[who].failed = true;
                Step::Unlock
            }
            Step::RebuildDirSync => {
                state.named = state.segments;
                Step::RebuildCommit
            }
            Step::RebuildCommit => {
                state.durable_seq = state.durable_seq.max(state.whole);
                Step::RebuildPoison
            }
            Step::RebuildPoison => {
                state.poison = 0;
                Step::RebuildLead
            }
            Step::RebuildLead => {
                state.set_lead(None);
                state.writers[who].through = state.whole;
                Step::PublishOdd
            }
            step => unreachable!("{step:?}"),
        }
    }

    /// `rotate`.
    fn rotate(&self, state: &mut State, who: usize, synced: bool) -> Step {
        let publishes_first = self.has(Bug::RotationPublishedBeforeCommit);
        match state.writers[who].step {
            Step::RotateLeader if state.lead => Step::RotateLoad,
            Step::RotateLeader => Step::RotateSync,
            Step::RotateLoad => {
                state.writers[who].through = state.durable_seq;
                Step::RotateWrite
            }
            Step::RotateWrite => {
                write_in_doubt(state, who);
                Step::RotateSync
            }
            Step::RotateSync => {
                sync_begin(state, who, state.segment);
                Step::RotateSyncing
            }
            Step::RotateSyncing if !synced => {
                state.writers[who].failed = true;
                if self.has(Bug::RotationFailureNotMarked) {
                    Step::Unlock
                } else {
                    Step::RotatePoison
                }
            }
            Step::RotateSyncing if publishes_first => Step::RotateOdd,
            Step::RotateSyncing => Step::RotateCommit,
            Step::RotatePoison => {
                state.poison = state.tail_seq + 1;
                Step::Unlock
            }
            Step::RotateCommit => {
                state.durable_seq = state.durable_seq.max(state.tail_seq);
                if self.sleeps && !self.has(Bug::RotationDoesNotWake) {
                    state.writers[who].wake_words = 3;
                    self.first_wake()
                } else {
                    self.rotation_goes_on()
                }
            }
            Step::RotateOdd => {
                state.odd = true;
                Step::RotateCreate
            }
            Step::RotateCreate if state.segments > state.segment + 1 => {
                state.writers[who].failed = true; // The file exists.
                Step::Unlock
            }
            Step::RotateCreate => {
                state.segments += 1;
                self.open(state, who, state.segments - 1);
                Step::RotateDirSync
            }
            Step::RotateDirSync => {
                state.named = state.segments;
                state.writers[who].through = state.tail_seq;
                Step::PublishOdd
            }
            step => unreachable!("{step:?}"),
        }
    }

    fn rotation_goes_on(&self) -> Step {
        match self.bug {
            Some(Bug::RotationPublishedBeforeCommit) => Step::Write,
            Some(Bug::RotationStaysEven) => Step::RotateCreate,
            _ => Step::RotateOdd,
        }
    }

    /// The end of `validate_tail`, `resolve`; and what the holder of `lock` writes for others.
    fn combine(&self, state: &mut State, who: usize, choice: usize) -> Result<Step, Broken> {
        let owner = choice % WRITERS;
        Ok(match state.writers[who].step {
            Step::Resolve => {
                let slot = &mut state.writers[owner];
                let is_written = match self.bug {
                    Some(Bug::ResolvedAsWritten) => true,
                    Some(Bug::ResolvedAsUnwritten) => false,
                    _ => slot.slot_seq > 0 && slot.slot_seq <= state.tail_seq,
                };
                slot.mark_slot(if is_written {
                    Slot::Written
                } else {
                    Slot::Unwritten
                });
                if state.has_slot(Slot::Assigned) {
                    Step::Resolve
                } else {
                    self.resolved(state, who)
                }
            }
            Step::Assign if choice >= WRITERS => {
                state.writers[owner].mark_slot(Slot::Unwritten);
                Step::Assign
            }
            Step::Assign if state.has_slot(Slot::Ready) && has_room(state, &state.writers[who]) => {
                let seq = state.writers[who].through.max(state.tail_seq) + 1;
                state.writers[who].through = seq;
                let slot = &mut state.writers[owner];
                (slot.slot, slot.slot_seq) = (Slot::Assigned, seq);
                Step::Assign
            }
            Step::Assign if state.writers[who].through == 0 => Step::Unlock, // All were refused.
            Step::Assign if self.has(Bug::MarkedBeforeWrite) => Step::MarkGroup,
            Step::Assign => Step::WriteGroup,
            Step::WriteGroup => {
                while state.whole < state.writers[who].through {
                    write_of_group(state, who)?;
                }
                state.writers[who].group = state.writers[who].group.wrote();
                if self.has(Bug::MarkedBeforePublication) {
                    Step::MarkGroup
                } else {
                    Step::PublishOdd
                }
            }
            Step::MarkGroup => {
                let mark = if self.has(Bug::GroupStaysReady) {
                    Slot::Ready
                } else {
                    Slot::Written
                };
                let assigned = state.writers.iter_mut();
                let assigned = assigned.filter(|writer| writer.slot == Slot::Assigned);
                if let Some(first) = assigned.min_by_key(|writer| writer.slot_seq) {
                    first.mark_slot(mark);
                }
                if state.has_slot(Slot::Assigned) {
                    Step::MarkGroup
                } else if self.has(Bug::MarkedBeforeWrite) && !state.writers[who].group.is_written()
                {
                    Step::WriteGroup
                } else if self.has(Bug::MarkedBeforePublication) {
                    Step::PublishOdd
                } else {
                    Step::Unlock
                }
            }
            step => unreachable!("{step:?}"),
        })
    }

    /// The rest of `append`, and `publish`, which `repair`, `rebuild` and `rotate` use
    /// too: what they publish is always where the last segment ends.
    fn write(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        let offset = writer.through + 1 - first(state.segments - 1).min(writer.through + 1);
        Ok(match writer.step {
            Step::Write => {
                let seq = state.whole + 1;
                let early = u8::from(self.has(Bug::PublishedBeforeWrite));
                let at = first(state.segment) + state.tail_offset;
                if at != seq + early || state.tail_seq + 1 != seq + early || state.torn {
                    return Err(Broken(
                        Property::Gapless,
                        "written where the log does not end",
                    ));
                }
                writer.seq = seq;
                writer.through = seq;
                store(state, who, seq)?;
                if early == 1 {
                    Step::Unlock
                } else {
                    Step::PublishOdd
                }
            }
            Step::PublishOdd => {
                state.odd = true;
                Step::PublishSegment
            }
            Step::PublishSegment => {
                state.segment = state.segments - 1;
                Step::PublishLast
            }
            Step::PublishLast => {
                state.last_offset = offset.saturating_sub(1);
                Step::PublishOffset
            }
            Step::PublishOffset => {
                state.tail_offset = offset;
                Step::PublishSeq
            }
            Step::PublishSeq => {
                state.tail_seq = writer.through;
                Step::PublishEven
            }
            Step::PublishEven => {
                state.odd = false;
                let ahead = writer.through > state.whole;
                writer.through = 0;
                if ahead {
                    Step::Write
                } else if writer.group.is_written() {
                    written(state)
                } else if self.has(Bug::RotationPublishedBeforeCommit)
                    && offset == 0
                    && writer.seq == 0
                {
                    Step::RotateCommit
                } else {
                    self.validated(state, who)
                }
            }
            Step::Unlock => {
                writer.through = 0;
                (state.locked, writer.holds) = (false, false);
                let combined = writer.group.is_leaders();
                writer.group = Group::None;
                if writer.over || combined && writer.failed {
                    return Ok(Step::Leave);
                }
                if combined && matches!(writer.slot, Slot::Unwritten | Slot::Gone) {
                    return Ok(Step::Leave);
                }
                if combined {
                    return Ok(self.lead_begins());
                }
                if writer.failed {
                    return self.give_up(state, who);
                }
                if self.has(Bug::AcknowledgedBeforeSync) && writer.seq > 0 {
                    return self.acknowledge(state, who);
                }
                self.again()
            }
            step => unreachable!("{step:?}"),
        })
    }

    /// Where the loop of `sync_to` begins.
    fn again(&self) -> Step {
        if self.sleeps && !self.has(Bug::WakeWordsLoadedLate) {
            Step::LoadWakeWord
        } else {
            Step::LoadSlot
        }
    }

    /// Whether the round is loaded only once there is a leader.
    fn loads_round_late(&self) -> bool {
        self.has(Bug::RoundLoadedLate) || self.has(Bug::WakeWordsLoadedLate)
    }

    /// `sync_to`.
    fn sync_to(&self, state: &mut State, who: usize, choice: usize) -> Result<Step, Broken> {
        let late = self.has(Bug::WakeWordsLoadedLate);
        let writer = &mut state.writers[who];
        Ok(match writer.step {
            Step::LoadWakeWord => {
                writer.quiet |= 1;
                Step::LoadOtherWakeWord
            }
            Step::LoadOtherWakeWord => {
                writer.quiet |= 2;
                if late {
                    Step::MarkSleeper
                } else if self.loads_round_late() {
                    Step::LoadSlot
                } else {
                    Step::LoadRound
                }
            }
            Step::LoadRound => {
                writer.round = state.round;
                if self.loads_round_late() {
                    self.waits(writer)
                } else {
                    Step::LoadSlot
                }
            }
            Step::LoadSlot => match writer.slot {
                Slot::Free => return self.load_durable(state, who),
                Slot::Ready | Slot::Assigned => Step::LoadPoison,
                Slot::Written if self.has(Bug::ReclaimedSlotBelieved) => Step::LoadSlotSeq,
                Slot::Written => {
                    self.take_number(writer);
                    if self.has(Bug::AcknowledgedWhenWritten) {
                        return self.acknowledge(state, who);
                    }
                    return self.load_durable(state, who);
                }
                Slot::Unwritten | Slot::Gone => return self.ends_without_number(state, who),
            },
            Step::LoadSlotSeq if writer.slot == Slot::Gone => {
                writer.free_slot();
                let other = state.writers.iter().find(|writer| writer.has_slot());
                let seq = other.map_or(0, |writer| writer.slot_seq);
                state.writers[who].seq = seq;
                Step::LoadDurable
            }
            Step::LoadSlotSeq => {
                self.take_number(writer);
                Step::LoadDurable
            }
            Step::WithdrawSlot => {
                self.withdraw(writer);
                return self.give_up(state, who);
            }
            Step::LoadDurable => return self.load_durable(state, who),
            Step::LoadPoison if state.poison > 0 => {
                writer.forget();
                Step::AgainPoison
            }
            Step::LoadPoison => Step::LoadLeader,
            Step::AgainPoison if !writer.has_slot() && state.poison > writer.seq => {
                return self.give_up(state, who);
            }
            Step::AgainPoison => Step::Lock, // To rebuild.
            // The choice is to have no patience left.
            Step::LoadLeader if !state.lead || choice == 1 => {
                writer.forget();
                writer.seen = if state.lead {
                    Seen::Same
                } else {
                    Seen::NoLeader
                };
                Step::TakeLead
            }
            Step::LoadLeader if self.sleeps => {
                writer.seen = Seen::Same;
                if self.loads_round_late() {
                    Step::LoadRound
                } else {
                    self.waits(writer)
                }
            }
            Step::LoadLeader => self.again(),
            Step::TakeLead => {
                let over = writer.seen == Seen::Same;
                let is_first = over || writer.seen == Seen::NoLeader && !state.lead;
                writer.forget();
                if !is_first {
                    return Ok(self.again());
                }
                writer.over = over && !self.has(Bug::TakeoverOnlySyncs);
                let next = if writer.over {
                    Step::Lock
                } else {
                    Step::Gather
                };
                state.set_lead(Some(who));
                next
            }
            step => unreachable!("{step:?}"),
        })
    }

    /// Learns the number of its record.
    fn take_number(&self, writer: &mut Writer) {
        writer.seq = writer.slot_seq;
        self.free_slot(writer);
    }

    fn free_slot(&self, writer: &mut Writer) {
        let seq = writer.slot_seq;
        writer.free_slot();
        if self.has(Bug::SlotSeqNotCleared) {
            writer.slot_seq = seq;
        }
    }

    fn load_durable(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        if state.durable_seq < writer.seq {
            return Ok(Step::LoadPoison);
        }
        self.acknowledge(state, who)
    }

    /// A writer that was woken to lead, perhaps, and is not going to, wakes another in its place.
    fn wake_instead(&self, writer: &mut Writer) -> Step {
        writer.forget();
        writer.wake_words = 3;
        self.first_wake()
    }

    /// Its record is not written, or it can't learn the number any more.
    fn ends_without_number(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        if self.sleeps {
            // It may be the only one that was woken to lead.
            if writer.slot == Slot::Unwritten {
                self.free_slot(writer);
            }
            return Ok(self.wake_instead(writer));
        }
        self.append_or_end(state, who)
    }

    /// What a writer without a number does then: it appends by itself, or reports that it does not
    /// know what became of its record.
    fn append_or_end(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        if writer.slot == Slot::Gone {
            return self.give_up(state, who);
        }
        writer.forget();
        self.free_slot(writer);
        Ok(Step::Lock)
    }

    /// `withdraw`: nobody else has taken the record up then. The slot is freed later by its owner,
    /// but no other looks at it any more.
    fn withdraw(&self, writer: &mut Writer) {
        let assigned = writer.slot == Slot::Assigned && self.has(Bug::WithdrawnWhenAssigned);
        if writer.slot == Slot::Ready || assigned {
            writer.mark_slot(Slot::Unwritten);
        }
    }

    /// How it waits for the end of a round.
    fn waits(&self, writer: &mut Writer) -> Step {
        let is_covered = !writer.has_slot() && writer.seq <= writer.round.target;
        let word = writer.round.wake_word();
        writer.sleep_by(if is_covered { word } else { 1 - word });
        if self.has(Bug::WakeWordsLoadedLate) {
            Step::LoadWakeWord
        } else {
            Step::MarkSleeper
        }
    }

    /// How `sync_to` waits.
    fn wait(&self, state: &mut State, who: usize) -> Step {
        let writer = &mut state.writers[who];
        match writer.step {
            Step::MarkSleeper => {
                if !self.has(Bug::SleeperNotMarked) {
                    state.sleepers |= writer.wake_words;
                }
                Step::Wait
            }
            Step::Wait if writer.quiet & writer.wake_words > 0 => {
                writer.quiet = 0;
                Step::Asleep
            }
            Step::Wait | Step::Asleep => {
                writer.forget();
                self.again()
            }
            step => unreachable!("{step:?}"),
        }
    }

    fn lead_begins(&self) -> Step {
        match self.bug {
            Some(Bug::SegmentLoadedBeforeTail | Bug::TailLoadedAfterSync) => Step::LeadSegment,
            _ => Step::LeadTail,
        }
    }

    /// `lead`, and `sync_target`.
    fn lead(&self, state: &mut State, who: usize, choice: usize, synced: bool) -> Step {
        let begin = if self.sleeps {
            Step::BeginLoad
        } else {
            Step::LeadSync
        };
        let anything_ready = state.has_slot(Slot::Ready);
        let writer = &mut state.writers[who];
        match writer.step {
            // Its own slot may have been assigned by one that died.
            Step::Gather
                if anything_ready
                    || writer.slot == Slot::Assigned && !self.has(Bug::LeaderSkipsAssigned) =>
            {
                Step::LockSoon
            }
            Step::LockSoon if choice == 0 => {
                writer.group = Group::Leads;
                lock(state, who)
            }
            Step::LockSoon if !writer.has_slot() => self.lead_begins(),
            Step::LockSoon => {
                self.withdraw(writer);
                Step::Leave
            }
            Step::Gather => self.lead_begins(),
            Step::LeadTail => {
                writer.through = state.tail_seq;
                match self.bug {
                    Some(Bug::SegmentLoadedBeforeTail) => targeted(writer, begin),
                    Some(Bug::TailLoadedAfterSync) => Step::LeadCommit,
                    _ => Step::LeadSegment,
                }
            }
            Step::LeadSegment => {
                writer.segment = state.segment;
                match self.bug {
                    Some(Bug::SegmentLoadedBeforeTail) => Step::LeadTail,
                    Some(Bug::TailLoadedAfterSync) => begin,
                    Some(Bug::CommitBeforeSync) => Step::LeadCommit,
                    _ => targeted(writer, begin),
                }
            }
            Step::BeginLoad => {
                writer.round = state.round;
                Step::BeginStore
            }
            Step::BeginStore => {
                let number = (writer.round.number + 1) % 4;
                let target = writer.through;
                writer.round = Round { number, target };
                state.round = writer.round;
                Step::LeadSync
            }
            Step::LeadSync => {
                let segment = writer.segment;
                if self.must_open(state, who, segment) && !self.has(Bug::OpenTrusts) {
                    let writer = &mut state.writers[who];
                    (writer.over, writer.through) = (true, 0);
                    return Step::Lock;
                }
                self.open(state, who, segment);
                sync_begin(state, who, segment);
                Step::LeadSyncing
            }
            Step::LeadSyncing if synced => match self.bug {
                Some(Bug::TailLoadedAfterSync) => Step::LeadTail,
                Some(Bug::CommitBeforeSync) => Step::Leave,
                _ => Step::LeadCommit,
            },
            Step::LeadSyncing if self.has(Bug::FailedSyncTriedAgain) => Step::LeadSync,
            Step::LeadSyncing => {
                state.writers[who].failed = true;
                if self.has(Bug::FailureNotMarked) {
                    Step::Leave
                } else {
                    Step::LeadPoison
                }
            }
            Step::LeadPoison => {
                state.poison = writer.through + 1;
                Step::Leave
            }
            Step::LeadCommit => {
                writer.wake_words = 1 << writer.round.wake_word();
                let falls = self.has(Bug::CommitIsAStore);
                let least = if falls { 0 } else { state.durable_seq };
                if self.has(Bug::GatherWithoutBound) {
                    let woken = writer.through.saturating_sub(state.durable_seq);
                    state.all_back = state.tail_seq + woken;
                }
                state.durable_seq = writer.through.max(least);
                match self.bug {
                    Some(Bug::CommitBeforeSync) => begin,
                    Some(Bug::WakeBeforeLeave) if self.sleeps => Step::WakeLeader,
                    _ => Step::Leave,
                }
            }
            step => unreachable!("{step:?}"),
        }
    }

    /// `leave_lead`, `wake` and `wake_both`.
    fn leave(&self, state: &mut State, who: usize, choice: usize) -> Result<Step, Broken> {
        let wake_first = self.has(Bug::WakeBeforeMark);
        let all = self.first_wake();
        let writer = &mut state.writers[who];
        let (one, leads) = (other_wake_word(writer), writer.leads);
        // The lowest of the words still to be woken.
        let wake_word = writer.wake_words & writer.wake_words.wrapping_neg();
        let next = match writer.step {
            Step::Leave => {
                (writer.through, writer.segment) = (0, 0);
                writer.over = false;
                let a_round = writer.wake_words > 0;
                if !a_round {
                    writer.wake_words = 3;
                }
                if leads || self.has(Bug::LeaveIsAStore) {
                    state.set_lead(None);
                }
                let wake_count_before = a_round && self.has(Bug::WakeBeforeLeave);
                if !self.sleeps || wake_count_before || self.has(Bug::NoWake) {
                    return self.round_is_over(state, who);
                }
                if a_round { Step::WakeLeader } else { all }
            }
            Step::WakeLeader if self.has(Bug::NoneWokenToLead) => all,
            Step::WakeLeader => Step::OneCount,
            Step::OneCount => {
                wake(state, one);
                Step::OneLook
            }
            Step::OneLook if state.sleepers & one > 0 => Step::OneWake,
            Step::OneLook => all,
            Step::OneWake => {
                if sleeps_by(&state.writers[choice], one) {
                    self.wake(&mut state.writers[choice]);
                }
                all
            }
            Step::AllTake => {
                let is_marked = state.sleepers & wake_word > 0;
                state.sleepers &= !wake_word;
                match (wake_first, is_marked) {
                    (true, true) => Step::AllWake,
                    (true, false) => return self.wake_count(state, who, all),
                    (false, true) => Step::AllCount,
                    (false, false) => Step::AllCountOnly,
                }
            }
            Step::AllCount | Step::AllCountOnly => {
                let was_marked = writer.step == Step::AllCount;
                wake(state, wake_word);
                if wake_first {
                    Step::AllTake
                } else if was_marked {
                    Step::AllWake
                } else if self.has(Bug::MarkNotLookedAtAgain) {
                    return self.wake_count(state, who, all);
                } else {
                    Step::AllLook
                }
            }
            Step::AllLook if state.sleepers & wake_word > 0 => Step::AllWake,
            Step::AllLook => return self.wake_count(state, who, all),
            Step::AllWake => {
                for sleeper in &mut state.writers {
                    if sleeps_by(sleeper, wake_word) {
                        self.wake(sleeper);
                    }
                }
                return self.wake_count(state, who, all);
            }
            step => unreachable!("{step:?}"),
        };
        Ok(next)
    }

    fn first_wake(&self) -> Step {
        if self.has(Bug::WakeBeforeMark) {
            Step::AllCount
        } else {
            Step::AllTake
        }
    }

    /// Continues with the next wake word.
    fn wake_count(&self, state: &mut State, who: usize, all: Step) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        writer.wake_words &= writer.wake_words - 1;
        if writer.wake_words > 0 {
            Ok(all)
        } else if writer.leads && !writer.holds {
            writer.wake_words = 1; // A round, which was woken first.
            Ok(Step::Leave)
        } else {
            self.round_is_over(state, who)
        }
    }

    fn round_is_over(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &mut state.writers[who];
        writer.forget();
        if writer.holds {
            return Ok(self.rotation_goes_on());
        }
        if writer.failed {
            return self.give_up(state, who);
        }
        if writer.seq == 0 && matches!(writer.slot, Slot::Free | Slot::Gone) {
            return self.append_or_end(state, who);
        }
        Ok(self.again())
    }

    fn wake(&self, sleeper: &mut Writer) {
        sleeper.forget();
        sleeper.step = self.again();
    }

    /// The append returns an error: that its record was rejected if it has no number and is certain
    /// that no leader has taken it up.
    fn give_up(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &state.writers[who];
        if self.failures == 0 && writer.slot != Slot::Gone {
            return Err(Broken(Property::Progress, "an error, and no sync failed"));
        }
        let is_rejected = match writer.slot {
            Slot::Ready | Slot::Assigned if writer.step != Step::WithdrawSlot => {
                return Ok(Step::WithdrawSlot);
            }
            // What becomes of the record is not known, and the slot is lost to this writer.
            Slot::Assigned => {
                state.writers[who] = writer.dead();
                return Ok(Step::Dead);
            }
            Slot::Free => writer.seq == 0,
            slot => slot == Slot::Unwritten,
        };
        if is_rejected && writer.record > 0 {
            return Err(Broken(Property::Once, "rejected, but in the log"));
        }
        Ok(self.finish(state, who))
    }

    fn acknowledge(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        let writer = &state.writers[who];
        let broken = |why| Err(Broken(Property::Acknowledged, why));
        if writer.seq != writer.record {
            return broken("acknowledged with the number of another record");
        }
        if state.durable() < writer.seq {
            return broken("acknowledged, but not durable");
        }
        Ok(self.finish(state, who))
    }

    /// Continues with the writer's next append.
    fn finish(&self, state: &mut State, who: usize) -> Step {
        let before = state.writers[who];
        if before.left <= 1 {
            state.writers[who] = Writer::at(Step::Done, 0);
            return Step::Done;
        }
        let mut writer = Writer::at(self.begin(), before.left - 1);
        (writer.open, writer.owed) = (before.open, before.owed);
        if self.has(Bug::SlotSeqNotCleared) {
            writer.slot_seq = before.slot_seq;
        }
        state.writers[who] = writer;
        writer.step
    }

    fn must_open(&self, state: &State, who: usize, segment: u8) -> bool {
        self.failures > 0 && state.writers[who].open != segment + 1
    }

    fn open(&self, state: &mut State, who: usize, segment: u8) {
        let opens = self.must_open(state, who, segment);
        let writer = &mut state.writers[who];
        if opens {
            writer.open = segment + 1;
            writer.owed = false;
        }
    }

    /// Ends a sync; tells whether it succeeded. What was written after its begin is not counted on.
    fn sync_end(&self, state: &mut State, who: usize, fails: bool) -> bool {
        let Writer {
            segment,
            covers,
            owed,
            ..
        } = state.writers[who];
        let writer = &mut state.writers[who];
        (writer.covers, writer.owed) = (0, false);
        if writer.step != Step::LeadSyncing {
            writer.segment = 0;
        }
        if fails && owed {
            return false; // An error of before, which this file had not been told.
        }
        if !fails {
            for at in (0..PER_SEGMENT).filter(|at| covers >> at & 1 == 1) {
                *state.page(first(segment) + at) = Page::Durable;
            }
            return true;
        }
        // The worst case: what was written during the sync is lost too.
        state.failures -= 1;
        let lost = state.dirty(segment);
        for at in (0..PER_SEGMENT).filter(|at| lost >> at & 1 == 1) {
            *state.page(first(segment) + at) = Page::Lost;
        }
        for other in &mut state.writers {
            if other.segment == segment {
                other.covers &= !lost;
            }
            let open = other.open == segment + 1;
            other.owed |= self.told == Told::Each && open;
        }
        state.writers[who].owed = false;
        false
    }
}

fn is_syncing(step: Step) -> bool {
    matches!(
        step,
        Step::RebuildSyncing | Step::OverSyncing | Step::RotateSyncing | Step::LeadSyncing
    )
}

fn sync_begin(state: &mut State, who: usize, segment: u8) {
    let covers = state.dirty(segment);
    let writer = &mut state.writers[who];
    writer.segment = segment;
    writer.covers = covers;
}

/// Whether what was loaded for a sync is to be synced.
fn targeted(writer: &mut Writer, begin: Step) -> Step {
    if writer.through < writer.seq {
        writer.failed = true;
        Step::Leave
    } else if first(writer.segment) > writer.through {
        Step::Leave // Rotated in between, by one who has synced.
    } else {
        begin
    }
}

/// The wake word that the writer's own round does not end with, as a bit.
fn other_wake_word(writer: &Writer) -> u8 {
    1 << (1 - writer.round.wake_word())
}

fn sleeps_by(writer: &Writer, wake_word: u8) -> bool {
    writer.step == Step::Asleep && writer.wake_words == wake_word
}

fn wake(state: &mut State, wake_word: u8) {
    for writer in &mut state.writers {
        writer.quiet &= !wake_word;
    }
}

/// Writes the records above the loaded durable number again.
fn write_in_doubt(state: &mut State, who: usize) {
    let durable = state.writers[who].through;
    let (from, through) = (first(state.segment), state.tail_seq);
    write_again(state, from.max(durable + 1), through);
}

/// Writes records as they are. One on the disk stays on the disk.
fn write_again(state: &mut State, from: u8, through: u8) {
    for seq in from..=through {
        let page = state.page(seq);
        if *page != Page::Durable {
            *page = Page::Dirty;
        }
    }
}

/// Adds a record to the log.
fn store(state: &mut State, who: usize, seq: u8) -> Result<(), Broken> {
    if state.writers[who].record > 0 {
        return Err(Broken(Property::Once, "an append is in the log twice"));
    }
    state.writers[who].record = seq;
    state.whole = seq;
    *state.page(seq) = Page::Dirty;
    Ok(())
}

/// Adds the next record of a group.
fn write_of_group(state: &mut State, who: usize) -> Result<(), Broken> {
    let seq = state.whole + 1;
    if state.torn || state.whole >= first(state.segment) + PER_SEGMENT - 1 {
        return Err(Broken(
            Property::Gapless,
            "a group written where the log does not end",
        ));
    }
    let told = |writer: &Writer| writer.seq == seq && writer.record == 0;
    let owner = if told(&state.writers[who]) {
        Some(who) // Its own record.
    } else {
        let assigned = |writer: &Writer| writer.slot_seq == seq && writer.slot != Slot::Free;
        let owner = state.writers.iter().position(assigned);
        // The owner may know the number already, if the slot was marked too early.
        owner.or_else(|| state.writers.iter().position(told))
    };
    if let Some(owner) = owner {
        return store(state, owner, seq);
    }
    state.whole = seq;
    *state.page(seq) = Page::Dirty;
    Ok(())
}

fn lock(state: &mut State, who: usize) -> Step {
    (state.locked, state.writers[who].holds) = (true, true);
    Step::ValidatePoison
}

/// The next step of one that has published its group.
fn written(state: &State) -> Step {
    if state.has_slot(Slot::Assigned) {
        Step::MarkGroup
    } else {
        Step::Unlock
    }
}

/// Whether a group can have one more record.
fn has_room(state: &State, writer: &Writer) -> bool {
    writer.through.max(state.tail_seq) + 1 < first(state.segment) + PER_SEGMENT
}

/// Checks a state by itself, except for P7.
pub(crate) fn check(state: &State) -> Result<(), Broken> {
    let holders = state.writers.iter().filter(|writer| writer.holds);
    if holders.count() != usize::from(state.locked) {
        return Err(Broken(
            Property::OneHolder,
            "not as many holders as the lock says",
        ));
    }
    if state.durable_seq > state.whole {
        return Err(Broken(
            Property::Readable,
            "no record at the durable number",
        ));
    }
    if state.durable_seq > state.durable() {
        return Err(Broken(
            Property::Durable,
            "the durable number is above what is durable",
        ));
    }
    if !state.odd && state.durable_seq > state.tail_seq {
        return Err(Broken(
            Property::Gapless,
            "the tail is before the durable number",
        ));
    }
    Ok(())
}
