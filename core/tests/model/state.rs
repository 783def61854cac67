//! One state of the model: the words of `shm`, the segments, and each writer's place in the code.
//!
//! Values that only ever are compared are kept as the answer of the comparison, which is exact and
//! makes writers interchangeable: a leader's token as "the word holds mine" and "the word is still
//! what I loaded", the number of commits as "still what I loaded".

use std::fmt;

/// Records 1 to 6 in segments of two: segment 0 holds records 1 and 2, segment 1 holds 3 and 4, …
pub(crate) const RECORDS: usize = 6;
pub(crate) const PER_SEGMENT: u8 = 2;
pub(crate) const WRITERS: usize = 3;

/// The number of a segment's first record.
pub(crate) fn first(segment: u8) -> u8 {
    segment * PER_SEGMENT + 1
}

/// Where a record's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// Nowhere, or only the half of them.
    Absent,
    /// In memory, to be written by the next sync.
    Dirty,
    /// In memory, and taken for written, but a sync that failed has not written them.
    Lost,
    /// On the disk.
    Durable,
}

const PAGES: [Page; 4] = [Page::Absent, Page::Dirty, Page::Lost, Page::Durable];

/// The state of a writer's slot, through which a leader appends for it. It outlives its writer: a
/// leader that finds it ready can't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The writer has none, or is still filling it, which no other looks at.
    Free,
    Ready,
    Assigned,
    Written,
    Unwritten,
    /// Another writer has reclaimed it.
    Gone,
}

const SLOTS: [Slot; 6] = [
    Slot::Free,
    Slot::Ready,
    Slot::Assigned,
    Slot::Written,
    Slot::Unwritten,
    Slot::Gone,
];

/// How far the holder of `lock` is with the group of records that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    None,
    /// A leader assigns slots, or is about to.
    Leads,
    /// One that appends its own record assigns slots behind that.
    Appends,
    // The records are written, but not yet published, or the slots not yet marked.
    LeaderWrote,
    AppenderWrote,
}

const GROUPS: [Group; 5] = [
    Group::None,
    Group::Leads,
    Group::Appends,
    Group::LeaderWrote,
    Group::AppenderWrote,
];

impl Group {
    pub(crate) fn is_leaders(self) -> bool {
        matches!(self, Self::Leads | Self::LeaderWrote)
    }

    pub(crate) fn is_written(self) -> bool {
        matches!(self, Self::LeaderWrote | Self::AppenderWrote)
    }

    pub(crate) fn wrote(self) -> Self {
        if self.is_leaders() {
            Self::LeaderWrote
        } else {
            Self::AppenderWrote
        }
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A writer's next step: one load, store or system call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
        pub(crate) enum Step { $($(#[$doc])* $name,)+ }
        const STEPS: &[Step] = &[$(Step::$name,)+];
    };
}

steps! {
    Dead,
    Done,
    // An append through a slot …
    /// Loads the word of the leader.
    Submit,
    /// If there is none and the lock is free, the writer appends by itself.
    TryLock,
    Ready,
    // … and one without.
    /// Waits for `lock`.
    Lock,
    // From here to `Unlock` it holds `lock`. First it validates the tail …
    ValidatePoison,
    /// Loads what only holders of `lock` change: the tail, and the file around it.
    ValidateTail,
    /// Writes the records above the durable number again: the kernel does not report an earlier
    /// failure to a file that is opened now.
    OpenLoad,
    OpenWrite,
    RepairCut,
    RepairWrite,
    // … `rebuild` …
    RebuildOdd,
    RebuildScan,
    RebuildWrite,
    RebuildSync,
    RebuildSyncing,
    RebuildDirSync,
    RebuildCommit,
    RebuildPoison,
    RebuildLead,
    // … `take_over_sync` …
    OverLoad,
    OverWrite,
    OverSync,
    OverSyncing,
    OverPoison,
    OverCommit,
    // … `rotate` …
    RotateLeader,
    RotateLoad,
    RotateWrite,
    RotateSync,
    RotateSyncing,
    RotatePoison,
    RotateCommit,
    RotateOdd,
    RotateCreate,
    RotateDirSync,
    // … the end of a validation, and a leader's group …
    Resolve,
    Assign,
    WriteGroup,
    MarkGroup,
    // … and the append.
    Write,
    PublishOdd,
    PublishSegment,
    PublishLast,
    PublishOffset,
    PublishSeq,
    PublishEven,
    Unlock,
    // `sync_to` …
    LoadWakeWord,
    LoadOtherWakeWord,
    LoadRound,
    LoadSlot,
    /// As `LoadSlot`, when it has found that the record is written.
    LoadSlotSeq,
    WithdrawSlot,
    LoadDurable,
    LoadPoison,
    AgainPoison,
    LoadLeader,
    TakeLead,
    // … how it waits …
    MarkSleeper,
    /// Asks the kernel to sleep unless the wake word has changed.
    Wait,
    Asleep,
    // … `lead` …
    /// Waits for those whom the last sync woke. The wait has a bound, so it can end at any time.
    /// Then it looks whether a slot is ready.
    Gather,
    /// Waits for `lock` to write what is in slots, but not for long.
    LockSoon,
    LeadTail,
    LeadSegment,
    BeginLoad,
    BeginStore,
    LeadSync,
    LeadSyncing,
    LeadPoison,
    LeadCommit,
    // … and how it ends.
    Leave,
    WakeLeader,
    OneCount,
    OneLook,
    OneWake,
    AllTake,
    AllCount,
    /// As `AllCount`, when there was no mark.
    AllCountOnly,
    AllLook,
    AllWake,
}

/// The word of the leader, as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// 0: there was no leader.
    NoLeader,
    /// The token that is still there.
    Same,
    /// A token that has gone, and can't come back.
    Gone,
}

const SEEN: [Seen; 3] = [Seen::NoLeader, Seen::Same, Seen::Gone];

/// The word of the round, with two bits for the number. Parity and equality are all that is asked
/// of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Round {
    pub(crate) number: u8,
    pub(crate) target: u8,
}

impl Round {
    /// The initial word, and the value of a word that is not compared any more.
    pub(crate) const NONE: Self = Self {
        number: 0,
        target: 0,
    };

    pub(crate) fn wake_word(self) -> u8 {
        self.number % 2
    }
}

/// A writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are words, marks and flags of the code"
)]
pub(crate) struct Writer {
    pub(crate) step: Step,
    /// The number of unfinished appends.
    pub(crate) left: u8,
    /// The record of its present append, as far as it knows; 0 before that is written.
    pub(crate) seq: u8,
    /// Which record that is really: what the code can't know.
    pub(crate) record: u8,
    pub(crate) slot: Slot,
    /// The record that the slot says it was assigned.
    pub(crate) slot_seq: u8,
    pub(crate) group: Group,
    pub(crate) seen: Seen,
    /// The word of the leader holds its token.
    pub(crate) leads: bool,
    /// It took the lead from another, and syncs in its place.
    pub(crate) over: bool,
    /// It holds `lock`.
    pub(crate) holds: bool,
    /// The append is going to return an error.
    pub(crate) failed: bool,
    /// One bit for each wake word that has not changed since it was loaded.
    pub(crate) quiet: u8,
    /// The round that was loaded, or that it leads.
    pub(crate) round: Round,
    /// One bit for each wake word: those still to be woken, or the one it sleeps by.
    pub(crate) wake_words: u8,
    /// The record through which it syncs or publishes; what it takes for durable when it writes
    /// again.
    pub(crate) through: u8,
    /// The segment that it syncs.
    pub(crate) segment: u8,
    /// One bit for each record of that segment which the sync under way has to write.
    pub(crate) covers: u8,
    /// 1 + the segment that it has open; 0 for none. Counted only where syncs can fail.
    pub(crate) open: u8,
    /// The kernel owes that file an error, which its next sync returns.
    pub(crate) owed: bool,
}

impl Writer {
    pub(crate) fn at(step: Step, left: u8) -> Self {
        Self {
            step,
            left,
            seq: 0,
            record: 0,
            slot: Slot::Free,
            slot_seq: 0,
            group: Group::None,
            seen: Seen::NoLeader,
            leads: false,
            over: false,
            holds: false,
            failed: false,
            quiet: 0,
            round: Round::NONE,
            wake_words: 0,
            through: 0,
            segment: 0,
            covers: 0,
            open: 0,
            owed: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.step <= Step::Done
    }

    /// Whether it waits to be told its record's number.
    pub(crate) fn has_slot(&self) -> bool {
        self.slot != Slot::Free
    }

    pub(crate) fn free_slot(&mut self) {
        (self.slot, self.slot_seq) = (Slot::Free, 0);
    }

    /// Says in the slot what became of its record. Nobody reads it when the writer is dead.
    pub(crate) fn mark_slot(&mut self, slot: Slot) {
        self.slot = slot;
        if slot == Slot::Unwritten {
            self.slot_seq = 0; // Nobody reads it.
        }
        if self.is_over() {
            self.free_slot();
            self.record = 0;
        }
    }

    /// What a death leaves: a slot in which a leader may still find a record to write, or to
    /// resolve.
    pub(crate) fn dead(&self) -> Self {
        let dead = Self::at(Step::Dead, 0);
        match self.slot {
            Slot::Ready | Slot::Assigned => Self {
                slot: self.slot,
                slot_seq: self.slot_seq,
                record: self.record,
                ..dead
            },
            _ => dead,
        }
    }

    pub(crate) fn sleep_by(&mut self, wake_word: u8) {
        let quiet = self.quiet;
        self.forget();
        self.wake_words = 1 << wake_word;
        self.quiet = quiet & self.wake_words;
    }

    /// Forgets what it has loaded, so that states that differ only in that are one.
    pub(crate) fn forget(&mut self) {
        self.seen = Seen::NoLeader;
        self.quiet = 0;
        self.round = Round::NONE;
        self.wake_words = 0;
    }
}

/// A state. `writers` are sorted, so that states that differ only in their order are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are words, marks and flags of the code"
)]
pub(crate) struct State {
    pub(crate) writers: [Writer; WRITERS],
    // The words of `shm`. Of the generation, only whether it is odd.
    pub(crate) odd: bool,
    pub(crate) segment: u8,
    pub(crate) last_offset: u8,
    pub(crate) tail_offset: u8,
    pub(crate) tail_seq: u8,
    pub(crate) durable_seq: u8,
    pub(crate) poison: u8,
    /// The word of the leader is not 0.
    pub(crate) lead: bool,
    pub(crate) round: Round,
    /// The record with which all are back that the last sync woke. Kept only where a leader waits
    /// for it without a bound: otherwise it decides nothing.
    pub(crate) all_back: u8,
    /// One bit for each wake word.
    pub(crate) sleepers: u8,
    /// The kernel's lock is taken.
    pub(crate) locked: bool,
    // The files.
    pub(crate) pages: [Page; RECORDS],
    /// The number of whole records.
    pub(crate) whole: u8,
    /// Half a record follows them.
    pub(crate) torn: bool,
    /// How many segments there are, and of how many the name is on the disk.
    pub(crate) segments: u8,
    pub(crate) named: u8,
    // The events that can still happen.
    pub(crate) deaths: u8,
    pub(crate) failures: u8,
}

impl State {
    pub(crate) fn has_slot(&self, slot: Slot) -> bool {
        self.writers.iter().any(|writer| writer.slot == slot)
    }

    pub(crate) fn page(&mut self, seq: u8) -> &mut Page {
        &mut self.pages[usize::from(seq) - 1]
    }

    /// How far the log is on the disk without a gap, including the names of its files.
    pub(crate) fn durable(&self) -> u8 {
        let mut through = 0;
        while through < self.named * PER_SEGMENT
            && self.pages.get(usize::from(through)) == Some(&Page::Durable)
        {
            through += 1;
        }
        through
    }

    /// Which records of a segment a sync begun now has to write.
    pub(crate) fn dirty(&self, segment: u8) -> u8 {
        let at = usize::from(first(segment)) - 1;
        u8::from(self.pages[at] == Page::Dirty) | u8::from(self.pages[at + 1] == Page::Dirty) << 1
    }

    /// Sets the word of the leader to 0, or to a new token, which is `who`'s.
    pub(crate) fn set_lead(&mut self, who: Option<usize>) {
        for writer in &mut self.writers {
            writer.leads = false;
            if writer.seen == Seen::Same {
                writer.seen = Seen::Gone;
            }
        }
        self.lead = who.is_some();
        if let Some(who) = who {
            self.writers[who].leads = true;
        }
    }
}

/// A state in few bits.
pub(crate) type Key = (u64, [u64; WRITERS]);

struct Bits(u64, u32);

impl Bits {
    fn put(&mut self, width: u32, value: u8) {
        debug_assert!(u32::from(value) < 1 << width);
        self.0 |= u64::from(value) << self.1;
        self.1 += width;
    }

    fn take(&mut self, width: u32) -> u8 {
        let value = self.0 & ((1 << width) - 1);
        self.0 >>= width;
        value.to_le_bytes()[0]
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }
}

impl Writer {
    fn pack(&self) -> u64 {
        let mut bits = Bits(0, 0);
        bits.put(7, self.step as u8);
        let flags = [self.leads, self.over, self.holds, self.failed, self.owed];
        for flag in flags {
            bits.put(1, u8::from(flag));
        }
        let numbers = [
            self.left,
            self.seen as u8,
            self.quiet,
            self.round.number,
            self.wake_words,
            self.segment,
            self.covers,
            self.open,
        ];
        for number in numbers {
            bits.put(2, number);
        }
        let numbers = [
            self.seq,
            self.record,
            self.slot as u8,
            self.slot_seq,
            self.group as u8,
            self.through,
            self.round.target,
        ];
        for number in numbers {
            bits.put(3, number);
        }
        bits.0
    }

    fn unpack(word: u64) -> Self {
        let mut bits = Bits(word, 0);
        let mut writer = Self {
            step: STEPS[usize::from(bits.take(7))],
            leads: bits.flag(),
            over: bits.flag(),
            holds: bits.flag(),
            failed: bits.flag(),
            owed: bits.flag(),
            left: bits.take(2),
            seen: SEEN[usize::from(bits.take(2))],
            quiet: bits.take(2),
            round: Round {
                number: bits.take(2),
                target: 0,
            },
            wake_words: bits.take(2),
            segment: bits.take(2),
            covers: bits.take(2),
            open: bits.take(2),
            seq: bits.take(3),
            record: bits.take(3),
            slot: SLOTS[usize::from(bits.take(3))],
            slot_seq: bits.take(3),
            group: GROUPS[usize::from(bits.take(3))],
            through: bits.take(3),
        };
        writer.round.target = bits.take(3);
        writer
    }
}

impl State {
    pub(crate) fn pack(&self) -> Key {
        let [a, b, c] = &self.writers;
        let mut writers = [a.pack(), b.pack(), c.pack()];
        writers.sort_unstable();
        let mut bits = Bits(0, 0);
        for flag in [self.odd, self.lead, self.locked, self.torn] {
            bits.put(1, u8::from(flag));
        }
        let numbers = [
            self.sleepers,
            self.segment,
            self.last_offset,
            self.tail_offset,
            self.segments,
            self.named,
            self.deaths,
            self.failures,
            self.round.number,
        ];
        for number in numbers {
            bits.put(2, number);
        }
        let numbers = [
            self.tail_seq,
            self.durable_seq,
            self.poison,
            self.whole,
            self.round.target,
        ];
        for number in numbers {
            bits.put(3, number);
        }
        bits.put(4, self.all_back);
        for page in self.pages {
            bits.put(2, page as u8);
        }
        (bits.0, writers)
    }

    pub(crate) fn unpack((shared, [a, b, c]): Key) -> Self {
        let mut bits = Bits(shared, 0);
        let mut state = Self {
            odd: bits.flag(),
            lead: bits.flag(),
            locked: bits.flag(),
            torn: bits.flag(),
            sleepers: bits.take(2),
            segment: bits.take(2),
            last_offset: bits.take(2),
            tail_offset: bits.take(2),
            segments: bits.take(2),
            named: bits.take(2),
            deaths: bits.take(2),
            failures: bits.take(2),
            round: Round {
                number: bits.take(2),
                target: 0,
            },
            tail_seq: bits.take(3),
            durable_seq: bits.take(3),
            poison: bits.take(3),
            whole: bits.take(3),
            all_back: 0,
            pages: [Page::Absent; RECORDS],
            writers: [Writer::unpack(a), Writer::unpack(b), Writer::unpack(c)],
        };
        state.round.target = bits.take(3);
        state.all_back = bits.take(4);
        for page in &mut state.pages {
            *page = PAGES[usize::from(bits.take(2))];
        }
        state
    }
}

/// One line of a trace. The writers may change places between lines.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for writer in &self.writers {
            let name = format!("{:?}", writer.step);
            let holds = if writer.leads { '*' } else { ' ' };
            write!(f, "{name:>16} #{} <={}{holds}", writer.seq, writer.through)?;
            let owed = if writer.owed { '!' } else { ' ' };
            write!(f, "{owed}")?;
            if writer.has_slot() {
                write!(f, "{:?} {}", writer.slot, writer.slot_seq)?;
            }
            write!(f, "|")?;
        }
        let pages = self.pages.map(|page| match page {
            Page::Absent => '.',
            Page::Dirty => 'm',
            Page::Lost => 'l',
            Page::Durable => 'D',
        });
        let pages: String = pages.iter().collect();
        let parity = if self.odd { "odd" } else { "even" };
        write!(
            f,
            " W={} tail={} segment={} {parity} poison={} lead={} sleepers={:02b} round={}<={} {pages} torn={} segments={} named={}",
            self.durable_seq,
            self.tail_seq,
            self.segment,
            self.poison,
            u8::from(self.lead),
            self.sleepers,
            self.round.number,
            self.round.target,
            u8::from(self.torn),
            self.segments,
            self.named,
        )
    }
}
