//! The volatile hints that writers share: where the log ends, and how far it is durable.
//!
//! They live in the mapped file `shm`, or, where memory can't be shared, in this process alone.
//! Nothing here is believed without a check: each word carries a tag, the page carries the identity
//! of the store, of its own file and of the boot, and whoever takes the lock compares the tail with
//! the log itself. If anything is off, the hints are rebuilt from the log.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use strand_lock::{PageError, SharedPage};

use crate::{
    env::{
        storage::OpenMode,
        system::{Host, Page, PageView},
    },
    seeded::{Bug, seeded},
    wal::store_dir::StoreDir,
};

pub(crate) const SHM: &str = "shm";

/// Indices of 64-bit words; those that change independently are cache lines (8 words) apart.
mod word {
    pub(super) const IDENTITY: usize = 0;
    pub(super) const STORE: usize = 1;
    /// Odd while the words of the tail are being changed.
    pub(super) const GENERATION: usize = 8;
    pub(super) const SEGMENT: usize = 9;
    pub(super) const TAIL_OFFSET: usize = 10;
    pub(super) const LAST_OFFSET: usize = 11;
    pub(super) const TAIL_SEQ: usize = 12;
    pub(super) const DURABLE: usize = 16;
    /// 0, or 1 + the highest record whose sync failed.
    pub(super) const POISON: usize = 17;
    pub(super) const LEADER: usize = 24;
    pub(super) const SYNC_US: usize = 25;
    /// What the sync that runs will cover, and its round: see [`super::Round`].
    pub(super) const ROUND: usize = 26;
    /// The last round in which somebody stayed awake to lead the next.
    pub(super) const SPINNER: usize = 27;
    pub(super) const ALL: usize = 32;
}

/// Indices of 32-bit words.
mod wait {
    /// The bells of even and of odd rounds, apart by a cache line.
    pub(super) const WAKE_WORDS: [usize; 2] = [0, 16];
    /// Not 0 when somebody sleeps until that bell rings.
    pub(super) const SLEEPERS: [usize; 2] = [1, 17];
    /// Counts how often the watermark rose; followers sleep on it. They can't leave a mark: they don't write.
    pub(super) const FOLLOWERS_WAKE_WORD: usize = 32;
    pub(super) const ALL: usize = 33;
}

/// A round is one sync by one leader. It covers the records through its target; who waits for one of
/// them sleeps until its bell rings, and everybody else until the next round's. There are two bells,
/// for even and for odd rounds, so that a sync wakes those whom it covers, and one more to lead the next.
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

    fn wake_word(self) -> usize {
        usize::from(self.number % 2)
    }

    /// Whether the round's sync makes `seq` durable.
    pub(crate) fn covers(self, seq: u64) -> bool {
        seq <= self.target
    }

    /// The bell that rings when `seq` is durable.
    pub(crate) fn wake_word_for(self, seq: u64) -> usize {
        if seq <= self.target {
            self.wake_word()
        } else {
            1 - self.wake_word()
        }
    }
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailHint {
    /// The first record of the segment that is written to.
    pub(crate) segment: u64,
    /// The last record's number; that before `segment` when the segment is empty.
    pub(crate) seq: u64,
    /// Where the last record begins.
    pub(crate) last_offset: u64,
    /// Where it ends and the next begins.
    pub(crate) offset: u64,
}

/// Packs a 48-bit value with a tag that a stray write, a zeroed page or a wrong index does not have.
/// The value stands above, so that sealed words compare as their values do.
fn seal(index: usize, value: u64) -> u64 {
    debug_assert!(value < 1 << 48);
    value << 16 | u64::from(tag(index, value))
}

fn unseal(index: usize, word: u64) -> Option<u64> {
    let value = word >> 16;
    (word & 0xffff == u64::from(tag(index, value))).then_some(value)
}

fn tag(index: usize, value: u64) -> u16 {
    let [a, b, ..] = crc32c::crc32c_append(
        0x5f72_616e ^ u32::from(index.to_le_bytes()[0]),
        &value.to_le_bytes(),
    )
    .to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// 48 bits that stand for a text.
fn digest(text: &str) -> u64 {
    let (low, high) = (
        crc32c::crc32c(text.as_bytes()),
        crc32c::crc32c_append(0x9e37_79b9, text.as_bytes()),
    );
    u64::from(high & 0xffff) << 32 | u64::from(low)
}

#[derive(Debug)]
pub(crate) struct Hints {
    page: Box<dyn Page>,
    shared: bool,
    /// See [`identity_of`].
    identity: u64,
    store: u64,
}

/// The version of the page's layout.
const LAYOUT: u64 = 1;

/// What a page must say to be believed: this layout and store, this boot, and this very file, which
/// a copy is not.
fn identity_of(host: &dyn Host, store: &str, (device, inode): (u64, u64)) -> u64 {
    let boot = host.boot_id();
    digest(&format!("{LAYOUT} {store} {boot} {device} {inode}"))
}

/// A page that no other process sees.
#[derive(Debug)]
struct PrivatePage {
    wide: [AtomicU64; word::ALL],
    narrow: [AtomicU32; wait::ALL],
}

impl Page for PrivatePage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        self.wide
            .get(index)
            .unwrap_or_else(|| unreachable!("indices are constants"))
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        self.narrow
            .get(index)
            .unwrap_or_else(|| unreachable!("indices are constants"))
    }

    fn wait(&self, _index: usize, _expected: u32, timeout: Duration) {
        std::thread::sleep(timeout.min(Duration::from_micros(100)));
    }

    fn wake_one(&self, _index: usize) {}

    fn wake_all(&self, _index: usize) {}

    fn check(&self) -> Result<(), PageError> {
        Ok(())
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok((0, 0))
    }
}

impl Hints {
    /// Maps the page of the store in `dir`. `store` is the manifest's name for it.
    pub(crate) fn shared(dir: &StoreDir, store: &str) -> Result<Self, PageError> {
        let page = dir.host().open_page(&dir.path_of(SHM))?;
        Self::on(page, true, dir.host(), store)
    }

    /// Hints that no other process sees.
    pub(crate) fn private(host: &dyn Host, store: &str) -> Result<Self, PageError> {
        let wide = std::array::from_fn(|_| AtomicU64::new(0));
        let narrow = std::array::from_fn(|_| AtomicU32::new(0));
        Self::on(Box::new(PrivatePage { wide, narrow }), false, host, store)
    }

    fn on(
        page: Box<dyn Page>,
        shared: bool,
        host: &dyn Host,
        store: &str,
    ) -> Result<Self, PageError> {
        let identity = identity_of(host, store, page.identity()?);
        let store = digest(store);
        Ok(Self {
            page,
            shared,
            identity,
            store,
        })
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Tells whether the page can still be touched. Costs a system call when it is shared.
    pub(crate) fn check(&self) -> Result<(), PageError> {
        self.page.check()
    }

    fn wide(&self, index: usize) -> &AtomicU64 {
        self.page.u64(index)
    }

    fn narrow(&self, index: usize) -> &AtomicU32 {
        self.page.u32(index)
    }

    fn get(&self, index: usize) -> Option<u64> {
        unseal(index, self.wide(index).load(Ordering::Acquire))
    }

    fn set(&self, index: usize, value: u64) {
        self.wide(index)
            .store(seal(index, value), Ordering::Release);
    }

    /// True when the page was filled for this store, in this file, since this boot.
    pub(crate) fn is_ours(&self) -> bool {
        if seeded(Bug::StaleHintsTrusted) {
            return self.get(word::IDENTITY).is_some();
        }
        self.get(word::IDENTITY) == Some(self.identity)
    }

    /// The watermark, if the page was ever this store's; true also after a reboot or in a copy,
    /// since it was durable before it was written here.
    pub(crate) fn durable_seq_of_store(&self) -> Option<u64> {
        if self.get(word::STORE) == Some(self.store) {
            self.durable_seq()
        } else {
            None
        }
    }

    /// The tail, if it is whole. The caller holds the lock.
    pub(crate) fn tail(&self) -> Option<TailHint> {
        let generation = self.get(word::GENERATION)?;
        let tail = TailHint {
            segment: self.get(word::SEGMENT)?,
            seq: self.get(word::TAIL_SEQ)?,
            last_offset: self.get(word::LAST_OFFSET)?,
            offset: self.get(word::TAIL_OFFSET)?,
        };
        let plausible = generation % 2 == 0
            && tail.segment <= tail.seq + 1
            && tail.last_offset <= tail.offset
            && self.durable_seq()? <= tail.seq;
        plausible.then_some(tail)
    }

    /// Publishes a new tail. The caller holds the lock.
    ///
    /// Dying in here leaves an odd generation, and the next holder rebuilds. `TAIL_SEQ` comes last,
    /// because a leader reads it without the lock: see [`Hints::sync_target`].
    pub(crate) fn publish_tail(&self, tail: TailHint) {
        let generation = self.begin_change();
        self.set(word::SEGMENT, tail.segment);
        self.set(word::LAST_OFFSET, tail.last_offset);
        self.set(word::TAIL_OFFSET, tail.offset);
        self.set(word::TAIL_SEQ, tail.seq);
        self.set(word::GENERATION, generation + 1);
    }

    /// Marks the tail as being changed, until [`Hints::publish_tail`]. The caller holds the lock.
    pub(crate) fn begin_change(&self) -> u64 {
        let generation = self.get(word::GENERATION).unwrap_or(0) & ((1 << 47) - 1) | 1;
        self.set(word::GENERATION, generation);
        generation
    }

    /// Fills the page anew. The caller holds the lock, and everything through `tail` is durable.
    pub(crate) fn rebuild(&self, tail: TailHint) {
        self.begin_change();
        if self.get(word::STORE) != Some(self.store) {
            // Until both are right, the watermark is nobody's.
            self.wide(word::STORE).store(0, Ordering::Release);
        }
        if self
            .durable_seq()
            .is_none_or(|durable_seq| durable_seq > tail.seq)
        {
            self.set(word::DURABLE, tail.seq);
        }
        self.commit(tail.seq);
        self.set(word::STORE, self.store);
        // From here on readers believe the watermark, and no record behind it that they find then. // I6
        self.set(word::IDENTITY, self.identity);
        self.set(word::POISON, 0);
        self.wide(word::LEADER).store(0, Ordering::Release);
        self.set(word::SYNC_US, 0);
        self.publish_tail(tail);
    }

    /// Every record through this one is durable.
    pub(crate) fn durable_seq(&self) -> Option<u64> {
        self.get(word::DURABLE)
    }

    /// The last record's number, without the lock.
    pub(crate) fn tail_seq(&self) -> Option<u64> {
        self.get(word::TAIL_SEQ)
    }

    /// What a sync begun now will cover: the segment to sync, and the last record in it.
    ///
    /// The tail is read before the segment. If the segment read begins behind that tail, the log was
    /// rotated in between, and whoever rotated has synced all before; then there is nothing to do.
    pub(crate) fn sync_target(&self) -> Option<(u64, u64)> {
        let seq = self.tail_seq()?;
        let segment = self.get(word::SEGMENT)?;
        Some((segment, seq))
    }

    /// Raises the watermark, never lowers it (I6).
    pub(crate) fn commit(&self, seq: u64) {
        self.wide(word::DURABLE)
            .fetch_max(seal(word::DURABLE, seq), Ordering::AcqRel);
    }

    /// Marks the records through `seq` as doubtful if their sync failed, and passes the result on.
    /// Everybody sees it, and nobody acknowledges them before they are written again. // I7
    pub(crate) fn poison_unless_synced<E>(&self, seq: u64, synced: Result<(), E>) -> Result<(), E> {
        if synced.is_err() {
            self.set(word::POISON, seq + 1);
        }
        synced
    }

    /// The highest record whose sync failed, if one did and nobody has mended it.
    pub(crate) fn poisoned(&self) -> Option<u64> {
        self.get(word::POISON)?.checked_sub(1)
    }

    /// Whether a poison mark or a damaged one is there.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.get(word::POISON) != Some(0)
    }

    /// The present leader's token, 0 when there is none.
    pub(crate) fn leader(&self) -> u64 {
        self.wide(word::LEADER).load(Ordering::SeqCst)
    }

    /// Makes the caller the leader in the place of `old`; false when another was faster.
    pub(crate) fn take_lead(&self, old: u64, token: u64) -> bool {
        self.wide(word::LEADER)
            .compare_exchange(old, token, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives the lead back, unless somebody has taken it over.
    pub(crate) fn leave_lead(&self, token: u64) {
        self.wide(word::LEADER)
            .compare_exchange(token, 0, Ordering::SeqCst, Ordering::Relaxed)
            .ok();
    }

    /// How long the last syncs took, in microseconds.
    pub(crate) fn sync_us(&self) -> u64 {
        self.get(word::SYNC_US).unwrap_or(0)
    }

    pub(crate) fn note_sync_us(&self, us: u64) {
        self.set(word::SYNC_US, (self.sync_us() * 7 + us.min(1 << 40)) / 8);
    }

    /// The round that runs, or ran last.
    pub(crate) fn round(&self) -> Round {
        Round::from_word(self.wide(word::ROUND).load(Ordering::SeqCst))
    }

    /// Begins the round whose sync will cover the records through `target`.
    pub(crate) fn begin_round(&self, target: u64) -> Round {
        let round = Round {
            number: self.round().number.wrapping_add(1),
            target,
        };
        self.wide(word::ROUND)
            .store(round.to_word(), Ordering::SeqCst);
        round
    }

    /// Makes the caller the one who stays awake in this round, to lead the next at once.
    pub(crate) fn claim_spinner(&self, round: Round) -> bool {
        let word = self.wide(word::SPINNER);
        let old = word.load(Ordering::SeqCst);
        old != round.to_word()
            && word
                .compare_exchange(old, round.to_word(), Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// Takes that back. A leader that ends now either sees this and wakes somebody, or has left
    /// the lead before, which the caller sees when it looks again.
    pub(crate) fn withdraw(&self) {
        self.wide(word::SPINNER).store(0, Ordering::SeqCst);
    }

    /// How often each bell has rung, to be given to [`Hints::sleep`].
    pub(crate) fn wake_count(&self) -> [u32; 2] {
        wait::WAKE_WORDS.map(|wake_word| self.narrow(wake_word).load(Ordering::SeqCst))
    }

    /// Sleeps until `wake_word` rings, unless it has rung since `wake_count` was read; for `time` at most.
    ///
    /// Read `wake_count` first, then the state that says whether to sleep.
    pub(crate) fn sleep(&self, wake_word: usize, wake_count: [u32; 2], time: Duration) {
        let (Some(word), Some(sleepers), Some(wake_count)) = (
            wait::WAKE_WORDS.get(wake_word),
            wait::SLEEPERS.get(wake_word),
            wake_count.get(wake_word),
        ) else {
            return;
        };
        self.narrow(*sleepers).store(1, Ordering::SeqCst);
        self.page.wait(*word, *wake_count, time);
    }

    /// Ends a round: wakes one who waits for the next, so that it leads that, unless somebody stayed
    /// awake for it; and all who waited for this one.
    pub(crate) fn wake(&self, round: Round) {
        if self.wide(word::SPINNER).load(Ordering::SeqCst) != round.to_word() {
            self.wake_one_waiter(1 - round.wake_word());
        }
        self.wake_all_waiters(round.wake_word());
        self.wake_followers();
    }

    /// Wakes all who sleep, whatever they wait for.
    pub(crate) fn wake_both(&self) {
        self.wake_all_waiters(0);
        self.wake_all_waiters(1);
        self.wake_followers();
    }

    /// Wakes the readers who sleep until the watermark rises. One system call, also when nobody sleeps.
    fn wake_followers(&self) {
        self.narrow(wait::FOLLOWERS_WAKE_WORD)
            .fetch_add(1, Ordering::SeqCst);
        self.page.wake_all(wait::FOLLOWERS_WAKE_WORD);
    }

    /// The mark of sleepers is taken back *before* the bell rings: who sets it later has heard the
    /// bell, or sleeps until the next. The other way round, a sleeper could lose its mark and be forgotten.
    fn wake_all_waiters(&self, wake_word: usize) {
        let (Some(word), Some(sleepers)) = (
            wait::WAKE_WORDS.get(wake_word),
            wait::SLEEPERS.get(wake_word),
        ) else {
            return;
        };
        let slept = self.narrow(*sleepers).swap(0, Ordering::SeqCst) != 0;
        self.narrow(*word).fetch_add(1, Ordering::SeqCst);
        // Set since: by one who sleeps on the old count, or by one who will find the new one.
        let sleeps = self.narrow(*sleepers).load(Ordering::SeqCst) != 0;
        if slept || sleeps {
            self.page.wake_all(*word);
        }
    }

    /// Leaves the mark of sleepers, since only one of them is woken.
    fn wake_one_waiter(&self, wake_word: usize) {
        let (Some(word), Some(sleepers)) = (
            wait::WAKE_WORDS.get(wake_word),
            wait::SLEEPERS.get(wake_word),
        ) else {
            return;
        };
        self.narrow(*word).fetch_add(1, Ordering::SeqCst);
        if self.narrow(*sleepers).load(Ordering::SeqCst) != 0 {
            self.page.wake_one(*word);
        }
    }
}

/// Clears the page that other processes may share while this one does not. Otherwise they would go
/// on in a segment that is full by now; without hints they look at the files.
pub(crate) fn clear_page(dir: &StoreDir) -> crate::error::Result<()> {
    write_to_page(dir, &[0; SharedPage::BYTES], 0)
}

/// Marks the tail in the page's file as half changed, so that the next writer rebuilds it. Leaves
/// the durable number.
pub(crate) fn mark_half_changed(dir: &StoreDir) -> crate::error::Result<()> {
    write_to_page(dir, &[0; 8], 8 * word::GENERATION as u64)
}

fn write_to_page(dir: &StoreDir, bytes: &[u8], offset: u64) -> crate::error::Result<()> {
    match dir.open_if_there(SHM, OpenMode::ReadWrite)? {
        Some(file) => file.write(bytes, offset),
        None => Ok(()),
    }
}

/// The watermark as a reader sees it: without the lock, and without writing.
#[derive(Debug)]
pub(crate) struct ShmView {
    page: Box<dyn PageView>,
    identity: u64,
    store: u64,
}

/// What the page says to those who only look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// As [`Hints::is_ours`].
    pub(crate) ours: bool,
    /// As [`Hints::durable_seq_of_store`].
    pub(crate) durable_seq_of_store: Option<u64>,
    pub(crate) durable_seq: Option<u64>,
    pub(crate) tail_seq: Option<u64>,
    /// Nobody has died within a change of the tail, or is at it now.
    pub(crate) settled: bool,
    /// A sync failed, and nobody has mended it.
    pub(crate) poisoned: bool,
}

impl ShmView {
    /// `None` when there are no hints, or none that can be trusted.
    pub(crate) fn open(dir: &StoreDir, store: &str) -> Option<Self> {
        let page = dir.host().open_page_to_read(&dir.path_of(SHM)).ok()?;
        let identity = identity_of(dir.host(), store, page.identity().ok()?);
        let store = digest(store);
        Some(Self {
            page,
            identity,
            store,
        })
    }

    fn get(&self, index: usize) -> Option<u64> {
        unseal(index, self.page.load_u64(index))
    }

    /// The watermark; at least what it was when this began.
    pub(crate) fn durable_seq(&self) -> Option<u64> {
        // As long as the page is there, nobody goes on in another one.
        self.page.check().ok()?;
        if self.get(word::IDENTITY) != Some(self.identity) {
            return None;
        }
        self.get(word::DURABLE)
    }

    /// As [`Hints::durable_seq_of_store`].
    pub(crate) fn durable_seq_of_store(&self) -> Option<u64> {
        self.page.check().ok()?;
        if self.get(word::STORE) != Some(self.store) {
            return None;
        }
        self.get(word::DURABLE)
    }

    /// All that tells how the store is; `None` when the page can't be touched.
    pub(crate) fn look(&self) -> Option<Look> {
        self.page.check().ok()?;
        // These before the watermark: they are taken away while it is changed.
        let ours = self.get(word::IDENTITY) == Some(self.identity);
        let of_store = self.get(word::STORE) == Some(self.store);
        let durable_seq = self.get(word::DURABLE);
        self.page.check().ok()?;
        Some(Look {
            ours,
            durable_seq_of_store: durable_seq.filter(|_| of_store),
            durable_seq,
            tail_seq: self.get(word::TAIL_SEQ),
            settled: self
                .get(word::GENERATION)
                .is_some_and(|generation| generation % 2 == 0),
            poisoned: self.get(word::POISON) != Some(0),
        })
    }

    /// How often the watermark rose, to be given to [`ShmView::sleep`].
    pub(crate) fn wake_count(&self) -> u32 {
        self.page.load_u32(wait::FOLLOWERS_WAKE_WORD)
    }

    /// Sleeps until the watermark rises, unless it did since `wake_count` was read; for `time` at most.
    pub(crate) fn sleep(&self, wake_count: u32, time: Duration) {
        self.page.wait(wait::FOLLOWERS_WAKE_WORD, wake_count, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_word_gives_its_value_back_and_no_changed_bit_passes() {
        for value in [0, 1, 2, 255, 65_535, 65_536, (1 << 48) - 1] {
            for index in 0..word::ALL {
                let sealed = seal(index, value);
                assert_eq!(unseal(index, sealed), Some(value));
                for bit in 0..64 {
                    assert_eq!(
                        unseal(index, sealed ^ 1 << bit),
                        None,
                        "value {value}, bit {bit}"
                    );
                }
                assert_eq!(unseal(index, 0), None, "a zeroed page is no hint");
                assert_eq!(unseal(index, u64::MAX), None);
            }
        }
    }
}
