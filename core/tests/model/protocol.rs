//! A writer's next step on a state: `append.rs`, `recovery.rs`, `commit.rs` and
//! `hints.rs` of `core/src`, one load, store or system call at a time.

use crate::state::{PER_SEGMENT, Page, RECORDS, Round, Seen, State, Step, WRITERS, Writer, first};

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
    /// A spinning successor that gave up, and sleeps, is still counted on to lead.
    SuccessorSleeps,
    /// A spinning successor that is done without leading wakes no other. It was in `core/src`.
    SuccessorLeaves,
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
                let step = if left == 0 { Step::Done } else { Step::Lock };
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
            spinner: Round::NONE,
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
        for choice in 0..WRITERS {
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
            next.writers[who] = Writer::at(Step::Dead, 0);
            moves.push((Cause::Death, Ok(next)));
            if writer.step == Step::Write {
                next.torn = true;
                moves.push((Cause::Death, Ok(next)));
            }
        }
    }

    /// Whether a step can be taken in this way: 0 is the usual one, 1 with a failure or out of
    /// patience. When one sleeper is woken, the choice is which.
    fn may(&self, state: &State, writer: &Writer, choice: usize) -> bool {
        match (writer.step, choice) {
            (Step::Lock, 0) => !state.locked || self.has(Bug::AppendWithoutLock),
            (Step::Asleep, _) => choice == 1 && self.timeouts,
            (Step::OneWake, _) => {
                let sleeps = |who: usize| sleeps_by(&state.writers[who], other_wake_word(writer));
                sleeps(choice) || choice == 0 && !(0..WRITERS).any(sleeps)
            }
            (step, 0) if is_syncing(step) => !writer.owed,
            (step, 1) if is_syncing(step) => writer.owed || state.failures > 0,
            (Step::LoadLeader, 1) => self.timeouts && state.lead,
            (Step::LoadSuccessor, 1) => true,
            (Step::Gather, 0) => state.tail_seq >= state.all_back,
            _ => choice == 0,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn step(&self, state: &mut State, who: usize, choice: usize) -> Result<(), Broken> {
        let step = state.writers[who].step;
        let synced = is_syncing(step) && self.sync_end(state, who, choice == 1);
        let next = if step <= Step::RepairWrite {
            Ok(self.validate(state, who))
        } else if step <= Step::RebuildLead {
            Ok(self.rebuild(state, who, synced))
        } else if step <= Step::OverCommit {
            Ok(self.take_over(state, who, synced))
        } else if step <= Step::RotateDirSync {
            Ok(self.rotate(state, who, synced))
        } else if step <= Step::Unlock {
            self.write(state, who)
        } else if step <= Step::TakeLead {
            self.sync_to(state, who, choice)
        } else if step <= Step::Asleep {
            Ok(self.wait(state, who, choice))
        } else if step <= Step::LeadCommit {
            Ok(self.lead(state, who, synced))
        } else {
            self.leave(state, who, choice)
        };
        state.writers[who].step = next?;
        Ok(())
    }

    /// `tail_under_lock`, and `repair`.
    fn validate(&self, state: &mut State, who: usize) -> Step {
        match state.writers[who].step {
            Step::Lock => {
                (state.locked, state.writers[who].holds) = (true, true);
                Step::ValidatePoison
            }
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
        if writer.over {
            Step::OverLoad
        } else if writer.seq > 0 {
            Step::Unlock // It only came to rebuild.
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

    /// The rest of `append_locked`, and `publish_tail`, which `repair`, `rebuild` and `rotate` use
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
                state.whole = seq;
                *state.page(seq) = Page::Dirty;
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
                } else if self.has(Bug::RotationPublishedBeforeCommit) && offset == 0 {
                    Step::RotateCommit
                } else {
                    self.validated(state, who)
                }
            }
            Step::Unlock => {
                writer.through = 0;
                (state.locked, writer.holds) = (false, false);
                if writer.over {
                    return Ok(Step::Leave);
                }
                if writer.failed {
                    return self.give_up(state, who);
                }
                if self.has(Bug::AcknowledgedBeforeSync) {
                    return acknowledge(state, who);
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
            Step::LoadDurable
        }
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
                } else {
                    Step::LoadDurable
                }
            }
            Step::LoadDurable if state.durable_seq >= writer.seq => {
                if !writer.spinning || self.has(Bug::SuccessorLeaves) {
                    return acknowledge(state, who);
                }
                writer.forget();
                writer.spinning = false;
                writer.wake_words = 3;
                self.first_wake()
            }
            Step::LoadDurable => Step::LoadPoison,
            Step::LoadPoison if state.poison > 0 => {
                writer.forget();
                Step::AgainPoison
            }
            Step::LoadPoison => Step::LoadLeader,
            Step::AgainPoison if state.poison > writer.seq => return self.give_up(state, who),
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
                Step::LoadRound
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
                writer.spinning = false;
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

    /// How `sync_to` waits.
    fn wait(&self, state: &mut State, who: usize, choice: usize) -> Step {
        let sleep = if self.has(Bug::WakeWordsLoadedLate) {
            Step::LoadWakeWord
        } else {
            Step::MarkSleeper
        };
        let writer = &mut state.writers[who];
        match writer.step {
            Step::LoadRound => {
                writer.round = state.round;
                if writer.seq <= writer.round.target {
                    writer.sleep_by(writer.round.wake_word());
                    sleep
                } else {
                    Step::LoadSuccessor
                }
            }
            // The choice is to have been awake for long enough in this round.
            Step::LoadSuccessor if state.spinner == writer.round || choice == 1 => {
                writer.sleep_by(1 - writer.round.wake_word());
                sleep
            }
            Step::LoadSuccessor => {
                writer.same_spinner = true;
                Step::BecomeSuccessor
            }
            Step::BecomeSuccessor if writer.same_spinner => {
                let round = writer.round;
                writer.quiet = 0;
                writer.spinning = true;
                state.set_spinner(round);
                Step::Awake
            }
            Step::BecomeSuccessor => {
                writer.sleep_by(1 - writer.round.wake_word());
                sleep
            }
            // It has been awake for long enough.
            Step::Awake if writer.seen == Seen::Same && !self.has(Bug::SuccessorSleeps) => {
                Step::Withdraw
            }
            Step::Withdraw => {
                writer.forget();
                state.set_spinner(Round::NONE);
                self.again()
            }
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
            Step::Awake | Step::Wait | Step::Asleep => {
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
    fn lead(&self, state: &mut State, who: usize, synced: bool) -> Step {
        let begin = if self.sleeps {
            Step::BeginLoad
        } else {
            Step::LeadSync
        };
        let writer = &mut state.writers[who];
        match writer.step {
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
                    Some(Bug::WakeBeforeLeave) if self.sleeps => Step::WakeSuccessor,
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
        let (one, round, leads) = (other_wake_word(writer), writer.round, writer.leads);
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
                if a_round { Step::WakeSuccessor } else { all }
            }
            Step::WakeSuccessor if state.spinner == round => all,
            Step::WakeSuccessor if self.has(Bug::NoneWokenToLead) => all,
            Step::WakeSuccessor => Step::OneCount,
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
        } else if writer.leads {
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
        Ok(self.again())
    }

    fn wake(&self, sleeper: &mut Writer) {
        sleeper.forget();
        sleeper.step = self.again();
    }

    /// The append returns an error.
    fn give_up(&self, state: &mut State, who: usize) -> Result<Step, Broken> {
        if self.failures == 0 {
            return Err(Broken(Property::Progress, "an error, and no sync failed"));
        }
        Ok(finish(state, who))
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

fn acknowledge(state: &mut State, who: usize) -> Result<Step, Broken> {
    if state.durable() < state.writers[who].seq {
        return Err(Broken(
            Property::Acknowledged,
            "acknowledged, but not durable",
        ));
    }
    Ok(finish(state, who))
}

/// Continues with the writer's next append.
fn finish(state: &mut State, who: usize) -> Step {
    let Writer {
        left, open, owed, ..
    } = state.writers[who];
    let step = if left > 1 { Step::Lock } else { Step::Done };
    let writer = Writer::at(step, left - 1);
    state.writers[who] = if step == Step::Lock {
        Writer {
            open,
            owed,
            ..writer
        }
    } else {
        writer
    };
    step
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
