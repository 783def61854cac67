//! Slots: records in shared memory that wait for the next holder of the lock to write them.
//!
//! While a leader syncs, others don't take the lock one after the other. Each puts its record into
//! a slot and sleeps. Whoever appends next writes all waiting records at once, behind its own. So a
//! thread is woken once for each append, and the lock is taken once for each group.
//!
//! | stage | set by | the record |
//! | --- | --- | --- |
//! | `Free` | the owner | |
//! | `Filling` | the owner | is being copied into the slot |
//! | `Ready` | the owner | waits; the owner can take it back |
//! | `Assigned` | a holder of the lock | has a place in the log, and is being written there |
//! | `Written` | a holder of the lock | is in the log, under the number in the slot |
//! | `Unwritten` | a holder of the lock | is certainly not in the log |
//! | `Unknown` | a holder of the lock | may be in the log of a store that was replaced |
//!
//! Only the lock's holder makes a record `Assigned`, and it leaves none so. One that is found under
//! the lock was left by a holder that died: the log says whether it was written. Nothing else can
//! have its place by then, since every holder looks at that before it appends.
//!
//! A process claims the slots that it uses, for as long as it lives. The record of a dead process
//! is not written: whoever has seen the process end must not find the record later. The next
//! process to claim the slot is no owner of that record. So each record names its owner, by a
//! number that this process has claimed too. Each use of a slot has its own generation, so no
//! thread takes the fate of another record for that of its own.
//!
//! The idea is that of flat combining (Hendler, Incze, Shavit and Tzafrir, 2010).

use std::sync::atomic::{AtomicU64, Ordering};

use strand_lock::crc32c_append;

use crate::{
    format::record::EncodedPayload,
    wal::shm::{Claims, Hints, Words, area, seal, unseal},
};

const STAGE_BITS: u32 = 3;
const GENERATION_MAX: u64 = (1 << (48 - STAGE_BITS)) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Free,
    Filling,
    Ready,
    Assigned,
    Written,
    Unwritten,
    Unknown,
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::Free,
        Self::Filling,
        Self::Ready,
        Self::Assigned,
        Self::Written,
        Self::Unwritten,
        Self::Unknown,
    ];

    fn of(value: u64) -> Option<Self> {
        let index = usize::try_from(value & ((1 << STAGE_BITS) - 1)).ok()?;
        Self::ALL.get(index).copied()
    }
}

/// One use of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    slot: usize,
    generation: u64,
}

/// What became of a record in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Waiting,
    Written(u64),
    Unwritten,
    Unknown,
}

/// Where a record is, or was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

/// A record that was in a slot.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) usage: Use,
    pub(crate) payload: EncodedPayload,
    pub(crate) is_eager: bool,
}

/// The slots in a page of hints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots<'a> {
    words: &'a Words,
    claims: &'a Claims,
    count: usize,
}

impl<'a> Slots<'a> {
    pub(crate) fn of(hints: &'a Hints) -> Self {
        let words = hints.words();
        let room = words.page().area().len().saturating_sub(area::SLOTS_FROM);
        let count = (room / area::SLOT_WORDS).min(area::SLOTS_MAX);
        Self {
            words,
            claims: hints.claims(),
            count,
        }
    }

    /// Puts a record into a slot. `None` if there is none, or the record is too long.
    ///
    /// Where the page was lost, no other process sees the record, and its owner finds that out when
    /// it waits.
    pub(crate) fn submit(self, payload: &EncodedPayload, is_eager: bool) -> Option<Use> {
        let (text, batch) = payload.parts();
        if text.len() > area::TEXT_BYTES_MAX {
            return None;
        }
        let slot = self.claim()?;
        let Some(usage) = self.occupy(slot) else {
            self.claims.lock().free.push(slot);
            return None;
        };
        let slot = usage.slot;
        self.set(slot, area::SEQ, 0);
        let len = text.len() as u64;
        let flags = u64::from(batch) << 32 | u64::from(is_eager) << 33;
        self.set(slot, area::LEN, len | flags);
        self.set(slot, area::CRC, u64::from(crc32c_append(0, text)));
        self.set(slot, area::OWNER, self.claims.owner);
        self.put_text(slot, text);
        if !self.change(usage, Stage::Filling, Stage::Ready) {
            self.give_back(usage);
            return None;
        }
        self.word(area::READY_COUNT).fetch_add(1, Ordering::SeqCst);
        Some(usage)
    }

    /// A slot that no other thread uses.
    fn claim(self) -> Option<usize> {
        let mut claimed = self.claims.lock();
        if let Some(slot) = claimed.free.pop() {
            return Some(slot);
        }
        let page = self.words.page();
        if !claimed.is_owner {
            claimed.is_owner = page.claim(self.claims.owner);
            if !claimed.is_owner {
                return None;
            }
        }
        // Each process begins elsewhere. If all began with the first slot, the hundredth would try
        // to claim those of all others first.
        let from = self.claims.owner.checked_rem(self.count as u64)?;
        let from = usize::try_from(from).ok()?;
        let mut others = (from..self.count)
            .chain(0..from)
            .filter(|slot| !claimed.all.contains(slot));
        let slot = others.find(|slot| page.claim(*slot as u64))?;
        claimed.all.insert(slot);
        Some(slot)
    }

    /// Whether the process lives that has put the record into the slot.
    fn has_owner(self, slot: usize) -> bool {
        let Some(owner) = self.get(slot, area::OWNER) else {
            return false;
        };
        let is_own = owner == self.claims.owner && self.claims.lock().is_owner;
        is_own || self.words.page().is_claimed(owner)
    }

    /// Begins a use. Whoever used the slot before is done with it, or dead.
    fn occupy(self, slot: usize) -> Option<Use> {
        let word = self.word(slot);
        let old = word.load(Ordering::SeqCst);
        let generation = match self.stage(slot) {
            // Left by a process that died, until it is settled.
            None | Some((_, Stage::Assigned)) => return None,
            Some((generation, _)) => generation,
        };
        let usage = Use {
            slot,
            generation: generation % GENERATION_MAX + 1,
        };
        let new = seal(slot, value_of(usage.generation, Stage::Filling));
        let changed = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        changed.is_ok().then_some(usage)
    }

    /// What became of the record. For its owner.
    pub(crate) fn look(self, usage: Use) -> Fate {
        match self.stage(usage.slot) {
            Some((generation, stage)) if generation == usage.generation => match stage {
                Stage::Ready | Stage::Assigned => Fate::Waiting,
                Stage::Written => {
                    let seq = self.get(usage.slot, area::SEQ).filter(|seq| *seq > 0);
                    // Again, since the slot may have been used for another record in between.
                    let now = self.stage(usage.slot);
                    match seq.filter(|_| now == Some((usage.generation, Stage::Written))) {
                        Some(seq) => Fate::Written(seq),
                        None => Fate::Unknown,
                    }
                }
                Stage::Unwritten => Fate::Unwritten,
                Stage::Free | Stage::Filling | Stage::Unknown => Fate::Unknown,
            },
            _ => Fate::Unknown,
        }
    }

    /// Gives the slot back, once its owner knows the fate of the record.
    pub(crate) fn give_back(self, usage: Use) {
        self.claims.lock().free.push(usage.slot);
    }

    /// Takes the record back. Then it is certain that it is not and will not be in the log.
    pub(crate) fn withdraw(self, usage: Use) -> bool {
        self.change(usage, Stage::Ready, Stage::Free)
    }

    /// Has the next holder of the lock look for waiting records.
    pub(crate) fn announce(self) {
        self.word(area::READY_COUNT).fetch_max(1, Ordering::SeqCst);
    }

    /// About how many records wait.
    pub(crate) fn ready_count(self) -> u64 {
        if self.count == 0 {
            return 0;
        }
        self.word(area::READY_COUNT).load(Ordering::SeqCst)
    }
}

/// For the holder of the lock.
impl Slots<'_> {
    /// Takes the waiting records out of the slots, and passes each to `place`, which says where it
    /// will be written. They are `Assigned` until [`Slots::settle`].
    pub(crate) fn assign(self, mut place: impl FnMut(&Taken) -> Place) -> Vec<Taken> {
        if self.ready_count() == 0 {
            return Vec::new();
        }
        // A record that gets ready from here on is counted again, whether it is found here or not.
        self.word(area::READY_COUNT).store(0, Ordering::SeqCst);
        self.set_any_assigned(true);
        let mut taken = Vec::new();
        for slot in 0..self.count {
            let Some((generation, Stage::Ready)) = self.stage(slot) else {
                continue;
            };
            let usage = Use { slot, generation };
            if !self.change(usage, Stage::Ready, Stage::Assigned) {
                continue; // Withdrawn.
            }
            let text = self.has_owner(slot).then(|| self.text(slot)).flatten();
            let Some((payload, is_eager)) = text else {
                self.change(usage, Stage::Assigned, Stage::Unwritten);
                continue;
            };
            let one = Taken {
                usage,
                payload,
                is_eager,
            };
            let Place {
                segment,
                seq,
                offset,
            } = place(&one);
            self.set(slot, area::SEGMENT, segment);
            self.set(slot, area::OFFSET, offset);
            self.set(slot, area::SEQ, seq);
            taken.push(one);
        }
        if taken.is_empty() {
            self.set_any_assigned(false);
        }
        taken
    }

    /// Tells the owners of assigned records what became of them.
    pub(crate) fn settle(self, taken: &[Taken], fate: Stage) {
        for one in taken {
            self.change(one.usage, Stage::Assigned, fate);
        }
        if !taken.is_empty() {
            self.set_any_assigned(false);
        }
    }

    /// Settles the records that a holder left `Assigned` when it died. `is_in_log` compares one
    /// with the log.
    ///
    /// # Errors
    /// Those of `is_in_log`; the rest is for the next holder.
    pub(crate) fn resolve<E>(
        self,
        is_in_log: impl Fn(Place, &EncodedPayload) -> Result<Option<bool>, E>,
    ) -> Result<(), E> {
        if self.count == 0 {
            return Ok(());
        }
        let any = self.word(area::ANY_ASSIGNED);
        if [0, seal(area::ANY_ASSIGNED, 0)].contains(&any.load(Ordering::Acquire)) {
            return Ok(());
        }
        for slot in 0..self.count {
            let Some((generation, Stage::Assigned)) = self.stage(slot) else {
                continue;
            };
            let fate = self.fate_of_assigned(slot, &is_in_log)?;
            self.change(Use { slot, generation }, Stage::Assigned, fate);
        }
        self.set_any_assigned(false);
        Ok(())
    }

    /// The same for one record, by its owner, in a page that is used no more. The log may have
    /// another record of equal bytes in its place by now, so it can only say that it is *not*
    /// there.
    pub(crate) fn resolve_in_old_page<E>(
        self,
        usage: Use,
        is_in_log: impl Fn(Place, &EncodedPayload) -> Result<Option<bool>, E>,
    ) -> Result<Fate, E> {
        if self.withdraw(usage) {
            return Ok(Fate::Unwritten);
        }
        if self.stage(usage.slot) == Some((usage.generation, Stage::Assigned)) {
            self.settle_in_doubt(usage, is_in_log)?;
        }
        Ok(self.look(usage))
    }

    fn fate_of_assigned<E>(
        self,
        slot: usize,
        is_in_log: impl Fn(Place, &EncodedPayload) -> Result<Option<bool>, E>,
    ) -> Result<Stage, E> {
        let word = |word| self.get(slot, word);
        let (Some(seq), Some((payload, _))) = (word(area::SEQ), self.text(slot)) else {
            return Ok(Stage::Unknown);
        };
        if seq == 0 {
            return Ok(Stage::Unwritten); // It had no place yet.
        }
        let (Some(segment), Some(offset)) = (word(area::SEGMENT), word(area::OFFSET)) else {
            return Ok(Stage::Unknown);
        };
        let place = Place {
            segment,
            seq,
            offset,
        };
        Ok(match is_in_log(place, &payload)? {
            Some(true) => Stage::Written,
            Some(false) => Stage::Unwritten,
            None => Stage::Unknown,
        })
    }

    /// Settles all slots of a page that is filled anew. Holders of the lock who know nothing of
    /// slots may have appended since, so the log can only say that an assigned record is *not*
    /// there. Records that wait go on waiting, if the page is of the same store. `salt` is
    /// unpredictable.
    ///
    /// # Errors
    /// Those of `is_in_log`.
    pub(crate) fn adopt<E>(
        self,
        is_of_same_store: bool,
        salt: u64,
        is_in_log: impl Fn(Place, &EncodedPayload) -> Result<Option<bool>, E>,
    ) -> Result<(), E> {
        if self.count == 0 {
            return Ok(());
        }
        let mut any_waits = false;
        for slot in 0..self.count {
            match self.stage(slot) {
                None => {
                    let value = value_of(salt % GENERATION_MAX + 1, Stage::Free);
                    self.word(slot).store(seal(slot, value), Ordering::SeqCst);
                }
                // In a copy of the page, nobody has claimed it.
                Some((_, Stage::Ready)) if is_of_same_store && self.has_owner(slot) => {
                    any_waits = true;
                }
                Some((generation, Stage::Ready)) => {
                    let usage = Use { slot, generation };
                    self.change(usage, Stage::Ready, Stage::Unwritten);
                }
                Some((generation, Stage::Assigned)) => {
                    let usage = Use { slot, generation };
                    self.settle_in_doubt(usage, &is_in_log)?;
                }
                Some(_) => {}
            }
        }
        self.set_any_assigned(false);
        let count = self.word(area::READY_COUNT);
        count.store(any_waits.into(), Ordering::SeqCst);
        Ok(())
    }

    /// The log may have another record of equal bytes in the place of this one.
    fn settle_in_doubt<E>(
        self,
        usage: Use,
        is_in_log: impl Fn(Place, &EncodedPayload) -> Result<Option<bool>, E>,
    ) -> Result<(), E> {
        let fate = match self.fate_of_assigned(usage.slot, is_in_log)? {
            Stage::Unwritten => Stage::Unwritten,
            _ => Stage::Unknown,
        };
        self.change(usage, Stage::Assigned, fate);
        Ok(())
    }

    fn set_any_assigned(self, any: bool) {
        let word = self.word(area::ANY_ASSIGNED);
        word.store(seal(area::ANY_ASSIGNED, u64::from(any)), Ordering::SeqCst);
    }
}

impl<'a> Slots<'a> {
    /// `None` where the word is damaged.
    fn stage(self, slot: usize) -> Option<(u64, Stage)> {
        let word = self.word(slot).load(Ordering::SeqCst);
        if word == 0 {
            return Some((0, Stage::Free));
        }
        let value = unseal(slot, word)?;
        Some((value >> STAGE_BITS, Stage::of(value)?))
    }

    /// Changes the stage, if that is `from` and the use is the present one.
    fn change(self, usage: Use, from: Stage, to: Stage) -> bool {
        let sealed = |stage| seal(usage.slot, value_of(usage.generation, stage));
        let word = self.word(usage.slot);
        word.compare_exchange(sealed(from), sealed(to), Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// The payload, and whether its owner is eager. `None` if it is damaged.
    fn text(self, slot: usize) -> Option<(EncodedPayload, bool)> {
        let len = self.get(slot, area::LEN)?;
        let (batch, is_eager) = (len >> 32 & 1 == 1, len >> 33 & 1 == 1);
        let len = usize::try_from(len & u64::from(u32::MAX)).ok()?;
        if len > area::TEXT_BYTES_MAX {
            return None;
        }
        let mut text = vec![0; len.next_multiple_of(8)];
        let (parts, _) = text.as_chunks_mut::<8>();
        for (part, word) in parts.iter_mut().zip(self.text_words(slot)) {
            *part = word.load(Ordering::Relaxed).to_le_bytes();
        }
        text.truncate(len);
        let crc = self.get(slot, area::CRC)?;
        (crc == u64::from(crc32c_append(0, &text)))
            .then(|| (EncodedPayload::encoded(text, batch), is_eager))
    }

    fn put_text(self, slot: usize, text: &[u8]) {
        let (parts, rest) = text.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let parts = parts.iter().chain([&last]);
        for (word, part) in self.text_words(slot).iter().zip(parts) {
            word.store(u64::from_le_bytes(*part), Ordering::Relaxed);
        }
    }

    fn text_words(self, slot: usize) -> &'a [AtomicU64] {
        let (from, end) = (slot_word(slot, area::TEXT), slot_word(slot + 1, 0));
        let words = self.words.page().area().get(from..end);
        words.unwrap_or_default()
    }

    fn get(self, slot: usize, word: usize) -> Option<u64> {
        let index = slot_word(slot, word);
        unseal(index, self.word(index).load(Ordering::Acquire))
    }

    fn set(self, slot: usize, word: usize, value: u64) {
        let index = slot_word(slot, word);
        let word = self.word(index);
        word.store(seal(index, value), Ordering::Release);
    }

    fn word(self, index: usize) -> &'a AtomicU64 {
        self.words.page().area_word(index)
    }
}

fn value_of(generation: u64, stage: Stage) -> u64 {
    let stage = match stage {
        Stage::Free => 0,
        Stage::Filling => 1,
        Stage::Ready => 2,
        Stage::Assigned => 3,
        Stage::Written => 4,
        Stage::Unwritten => 5,
        Stage::Unknown => 6,
    };
    generation << STAGE_BITS | stage
}

fn slot_word(slot: usize, word: usize) -> usize {
    area::SLOTS_FROM + slot * area::SLOT_WORDS + word
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, AtomicU64},
        },
        time::Duration,
    };

    use strand_lock::PageError;

    use super::*;
    use crate::env::system::Page;

    const SLOTS: usize = 2;

    #[derive(Debug, Clone, Default)]
    struct TestPage {
        area: Arc<Vec<AtomicU64>>,
        claimed: Arc<Mutex<BTreeSet<u64>>>,
        /// Claimed by another process as soon as anybody asks for any claim.
        claimed_meanwhile: Arc<Mutex<Vec<u64>>>,
    }

    impl Page for TestPage {
        fn u64(&self, _index: usize) -> &AtomicU64 {
            unreachable!("only the area is used")
        }

        fn u32(&self, _index: usize) -> &AtomicU32 {
            unreachable!("only the area is used")
        }

        fn area(&self) -> &[AtomicU64] {
            &self.area
        }

        fn wait(&self, _index: usize, _expected: u32, _timeout: Duration) {}

        fn wake_one(&self, _index: usize) {}

        fn wake_all(&self, _index: usize) {}

        fn check(&self) -> Result<(), PageError> {
            Ok(())
        }

        fn identity(&self) -> Result<(u64, u64), PageError> {
            Ok((1, 1))
        }

        fn made_ns(&self) -> u64 {
            0
        }

        fn claim(&self, number: u64) -> bool {
            self.claimed.lock().unwrap().insert(number)
        }

        fn is_claimed(&self, number: u64) -> bool {
            let mut claimed = self.claimed.lock().unwrap();
            claimed.extend(self.claimed_meanwhile.lock().unwrap().drain(..));
            claimed.contains(&number)
        }
    }

    /// A process: the page, and what it has claimed there.
    struct Process(TestPage, Words, Claims);

    impl Process {
        fn new() -> Self {
            let len = area::SLOTS_FROM + SLOTS * area::SLOT_WORDS;
            let area = (0..len).map(|_| AtomicU64::new(0)).collect();
            Self::on(TestPage {
                area: Arc::new(area),
                ..TestPage::default()
            })
        }

        fn on(page: TestPage) -> Self {
            static MADE: AtomicU64 = AtomicU64::new(0);
            let words = Words::of(Box::new(page.clone()));
            // Each begins with the first slot.
            let random = SLOTS as u64 * MADE.fetch_add(1, Ordering::Relaxed);
            Self(page, words, Claims::new(random))
        }

        /// Another one.
        fn other(&self) -> Self {
            Self::on(self.0.clone())
        }

        fn slots(&self) -> Slots<'_> {
            Slots {
                words: &self.1,
                claims: &self.2,
                count: SLOTS,
            }
        }

        fn dies(self) {
            let mut claimed = self.0.claimed.lock().unwrap();
            claimed.remove(&self.2.owner);
            for slot in &self.2.lock().all {
                claimed.remove(&(*slot as u64));
            }
        }
    }

    fn payload(text: &str) -> EncodedPayload {
        EncodedPayload::encoded(text.as_bytes().to_vec(), false)
    }

    fn submit(slots: Slots<'_>, text: &str) -> Option<Use> {
        slots.submit(&payload(text), true)
    }

    fn assign(slots: Slots<'_>) -> Vec<(Taken, Place)> {
        let mut places = Vec::new();
        let taken = slots.assign(|_| {
            let place = Place {
                segment: 1,
                seq: 7 + places.len() as u64,
                offset: 500,
            };
            places.push(place);
            place
        });
        taken.into_iter().zip(places).collect()
    }

    fn resolve(slots: Slots<'_>, is_in_log: Option<bool>) {
        let resolved: Result<(), ()> = slots.resolve(|_, _| Ok(is_in_log));
        assert_eq!(resolved, Ok(()));
    }

    fn adopt(slots: Slots<'_>, is_of_same_store: bool, is_in_log: Option<bool>) {
        let adopted: Result<(), ()> = slots.adopt(is_of_same_store, 41, |_, _| Ok(is_in_log));
        assert_eq!(adopted, Ok(()));
    }

    #[test]
    fn a_page_that_is_filled_anew_keeps_the_records_that_wait() {
        let process = Process::new();
        let slots = process.slots();
        for (is_in_log, fate) in [
            (Some(true), Fate::Unknown),
            (Some(false), Fate::Unwritten),
            (None, Fate::Unknown),
        ] {
            let assigned = submit(slots, "{}").unwrap();
            assign(slots);
            let waiting = submit(slots, "{}").unwrap();
            adopt(slots, true, is_in_log);
            assert_eq!(slots.look(assigned), fate);
            assert_eq!(slots.look(waiting), Fate::Waiting);
            let taken: Vec<_> = assign(slots).into_iter().map(|(one, _)| one).collect();
            assert_eq!(taken[0].usage, waiting);
            slots.settle(&taken, Stage::Written);
            adopt(slots, true, Some(false));
            assert_eq!(slots.look(waiting), Fate::Written(7));
            slots.give_back(waiting);
            slots.give_back(assigned);
        }
        let waiting = submit(slots, "{}").unwrap();
        adopt(slots, false, None);
        assert_eq!(slots.look(waiting), Fate::Unwritten, "of another store");
        assert!(assign(slots).is_empty());
    }

    #[test]
    fn records_are_taken_with_their_bytes_and_their_owners_learn_their_numbers() {
        let process = Process::new();
        let slots = process.slots();
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(area::TEXT_BYTES_MAX - 8));
        let (first, second) = (submit(slots, "{}").unwrap(), submit(slots, &long).unwrap());
        assert_eq!(submit(slots, "{}"), None, "both slots are in use");
        assert_eq!(slots.look(first), Fate::Waiting);
        let taken = assign(slots);
        let texts: Vec<_> = taken.iter().map(|(one, _)| one.payload.parts()).collect();
        assert_eq!(texts, [("{}".as_bytes(), false), (long.as_bytes(), false)]);
        assert!(taken.iter().all(|(one, _)| one.is_eager));
        assert!(!slots.withdraw(first), "it is being written");
        assert!(assign(slots).is_empty(), "each is taken once");

        let taken: Vec<_> = taken.into_iter().map(|(one, _)| one).collect();
        slots.settle(&taken, Stage::Written);
        assert_eq!(slots.look(first), Fate::Written(7));
        assert_eq!(slots.look(second), Fate::Written(8));
        slots.give_back(first);
        assert!(submit(slots, "{}").is_some());
        assert_eq!(
            slots.look(first),
            Fate::Unknown,
            "the slot has another record"
        );
        assert_eq!(submit(slots, &format!("{long} ")), None, "too long");
    }

    #[test]
    fn a_record_that_was_taken_back_is_not_taken() {
        let process = Process::new();
        let slots = process.slots();
        let usage = submit(slots, "{}").unwrap();
        assert!(slots.withdraw(usage));
        assert!(assign(slots).is_empty());
        assert!(!slots.withdraw(usage));
    }

    #[test]
    fn the_log_decides_about_records_of_a_holder_that_died() {
        let process = Process::new();
        let slots = process.slots();
        for (is_in_log, fate) in [
            (Some(true), Fate::Written(7)),
            (Some(false), Fate::Unwritten),
            (None, Fate::Unknown),
        ] {
            let usage = submit(slots, "{}").unwrap();
            assert_eq!(assign(slots).len(), 1);
            assert_eq!(slots.look(usage), Fate::Waiting);
            let failed = slots.resolve(|_, _| Err("disk"));
            assert_eq!(failed, Err("disk"));
            resolve(slots, is_in_log);
            assert_eq!(slots.look(usage), fate);
            resolve(slots, Some(true));
            assert_eq!(slots.look(usage), fate, "it is settled once");
            slots.give_back(usage);
        }
        // It died before it had given the record a place.
        let usage = submit(slots, "{}").unwrap();
        assert!(slots.change(usage, Stage::Ready, Stage::Assigned));
        slots.set_any_assigned(true);
        resolve(slots, Some(true));
        assert_eq!(slots.look(usage), Fate::Unwritten);
    }

    #[test]
    fn in_an_old_page_the_log_can_only_say_that_a_record_is_not_there() {
        let process = Process::new();
        let slots = process.slots();
        for (is_in_log, fate) in [(true, Fate::Unknown), (false, Fate::Unwritten)] {
            let usage = submit(slots, "{}").unwrap();
            assign(slots);
            let found: Result<_, ()> = slots.resolve_in_old_page(usage, |_, _| Ok(Some(is_in_log)));
            assert_eq!(found, Ok(fate));
            slots.give_back(usage);
        }
        let usage = submit(slots, "{}").unwrap();
        let found: Result<_, ()> = slots.resolve_in_old_page(usage, |_, _| Ok(Some(true)));
        assert_eq!(found, Ok(Fate::Unwritten), "nobody took it, and nobody can");
        assert_eq!(slots.look(usage), Fate::Unknown);
    }

    #[test]
    fn the_records_of_the_dead_are_not_written_and_their_slots_are_used_again() {
        let process = Process::new();
        let other = process.other();
        let slots = process.slots();
        let usage = submit(other.slots(), "{}").unwrap();
        let mine = submit(slots, "{}").unwrap();
        assert_ne!(usage.slot, mine.slot);
        assert_eq!(submit(slots, "{}"), None, "each slot has an owner");
        other.dies();
        let taken = assign(slots);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].0.usage, mine);
        let next = submit(slots, "{}").unwrap();
        assert_eq!(next.slot, usage.slot);
        assert_eq!(slots.look(usage), Fate::Unknown);
        assert!(!slots.withdraw(usage));
        assert_eq!(slots.look(next), Fate::Waiting);
    }

    #[test]
    fn the_record_of_a_dead_process_is_not_taken_for_one_of_who_claims_its_slot() {
        let process = Process::new();
        let other = process.other();
        let usage = submit(other.slots(), "{}").unwrap();
        other.dies();
        // While it is looked at, or before.
        let meanwhile = &process.0.claimed_meanwhile;
        meanwhile.lock().unwrap().push(usage.slot as u64);
        assert!(assign(process.slots()).is_empty());
        process.0.claimed.lock().unwrap().clear();
        let other = process.other();
        let usage = submit(other.slots(), "{}").unwrap();
        other.dies();
        let next = process.other();
        assert_eq!(next.slots().claim(), Some(usage.slot));
        assert!(assign(process.slots()).is_empty());
        // Nor where the page was copied.
        submit(next.slots(), "{}").unwrap();
        let copy = Process::on(TestPage {
            claimed: Arc::default(),
            ..process.0.clone()
        });
        adopt(copy.slots(), true, None);
        copy.slots().claim().unwrap();
        assert!(assign(process.slots()).is_empty());
    }

    #[test]
    fn a_process_begins_with_a_slot_of_its_own_and_finds_all_others() {
        let mut process = Process::new();
        process.2 = Claims::new(1);
        let slots = process.slots();
        assert_eq!([(); 3].map(|()| slots.claim()), [Some(1), Some(0), None]);
    }

    #[test]
    fn damaged_slots_are_not_written() {
        let process = Process::new();
        let slots = process.slots();
        let usage = submit(slots, r#"{"a":1}"#).unwrap();
        slots.text_words(usage.slot)[0].fetch_xor(1, Ordering::Relaxed);
        assert!(assign(slots).is_empty());
        assert_eq!(slots.look(usage), Fate::Unwritten);

        slots.word(0).store(7, Ordering::Relaxed);
        assert_eq!(slots.look(Use { slot: 0, ..usage }), Fate::Unknown);
        adopt(slots, true, None);
        assert_eq!(slots.stage(0), Some((42, Stage::Free)));
        assert!(assign(slots).is_empty());
    }
}
