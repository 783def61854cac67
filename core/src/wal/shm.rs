//! The volatile hints that writers share: where the log ends, and how far it is durable.
//!
//! They live in the mapped file `shm`, or in this process alone where memory can't be shared.
//! Nothing here is believed unchecked. Each word carries a tag. The page carries the identity of
//! the store, of its own file and of the boot. Every append compares the tail with the log itself.
//! If anything is off, the hints are rebuilt from the log.
//!
//! The words that writers use to take turns at syncing are in [`super::round`].

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use strand_lock::{PageError, SharedPage, crc32c_append};

use crate::{
    env::{
        storage::OpenMode,
        system::{Host, Page, PageView},
    },
    wal::store_dir::StoreDir,
};

pub(crate) const SHM: &str = "shm";

/// Indices of 64-bit words. Those that change independently are a cache line (8 words) apart.
pub(super) mod word {
    pub(in crate::wal) const IDENTITY: usize = 0;
    pub(in crate::wal) const STORE: usize = 1;
    pub(in crate::wal) const BOOT: usize = 2;
    /// Odd while the words of the tail are being changed.
    pub(in crate::wal) const GENERATION: usize = 8;
    pub(in crate::wal) const SEGMENT: usize = 9;
    pub(in crate::wal) const TAIL_OFFSET: usize = 10;
    pub(in crate::wal) const LAST_OFFSET: usize = 11;
    pub(in crate::wal) const TAIL_SEQ: usize = 12;
    /// Counts the records of eager threads: see [`crate::wal::gather`].
    pub(in crate::wal) const EAGER: usize = 13;
    pub(in crate::wal) const DURABLE: usize = 16;
    /// 0, or 1 + the highest record whose sync failed.
    pub(in crate::wal) const POISON: usize = 17;
    pub(in crate::wal) const LEADER: usize = 24;
    pub(in crate::wal) const SYNC_US: usize = 25;
    /// The running sync's number and target: see [`crate::wal::round::Round`].
    pub(in crate::wal) const ROUND: usize = 26;
    /// That count, as it was when the last sync began.
    pub(in crate::wal) const EAGER_SYNCED: usize = 28;
    /// The record with which all eager threads are back that the last sync woke.
    pub(in crate::wal) const ALL_BACK: usize = 29;
    /// In so many more rounds, leaders don't yield while they gather.
    pub(in crate::wal) const ROUNDS_ASLEEP: usize = 30;
    pub(in crate::wal) const ALL: usize = 32;
}

/// Indices of 32-bit words.
pub(super) mod wait {
    /// The wake words of even and of odd rounds, a cache line apart.
    pub(in crate::wal) const EVEN: usize = 0;
    pub(in crate::wal) const ODD: usize = 16;
    /// Not 0 while a thread sleeps on that wake word.
    pub(in crate::wal) const EVEN_SLEEPERS: usize = 1;
    pub(in crate::wal) const ODD_SLEEPERS: usize = 17;
    /// Counts how often the durable number rose. Followers sleep on it. They can't leave a mark,
    /// since they don't write.
    pub(in crate::wal) const FOLLOWERS: usize = 32;
    /// A leader sleeps on it until those are back whom the last sync woke.
    pub(in crate::wal) const GATHER: usize = 48;
    /// Not 0 while one does.
    pub(in crate::wal) const GATHERERS: usize = 49;
    pub(in crate::wal) const ALL: usize = 50;
}

/// Indices of words of the area behind the page: see [`crate::wal::slots`].
pub(super) mod area {
    pub(in crate::wal) const SLOTS_MAX: usize = 128;
    /// Behind the stages of all slots. Not 0 while a record may be assigned.
    pub(in crate::wal) const ANY_ASSIGNED: usize = SLOTS_MAX;
    /// About how many records are ready. Raw.
    pub(in crate::wal) const READY_COUNT: usize = SLOTS_MAX + 8;
    pub(in crate::wal) const SLOTS_FROM: usize = 256;
    pub(in crate::wal) const SLOT_WORDS: usize = 256;
    /// Words of a slot.
    pub(in crate::wal) const SEQ: usize = 0;
    pub(in crate::wal) const SEGMENT: usize = 1;
    pub(in crate::wal) const OFFSET: usize = 2;
    /// Bits 0 to 31: the length in bytes. Bit 32: a batch. Bit 33: its owner is eager.
    pub(in crate::wal) const LEN: usize = 3;
    pub(in crate::wal) const CRC: usize = 4;
    pub(in crate::wal) const OWNER: usize = 5;
    pub(in crate::wal) const TEXT: usize = 8;
    pub(in crate::wal) const TEXT_BYTES_MAX: usize = 8 * (SLOT_WORDS - TEXT);
    pub(in crate::wal) const ALL: usize = SLOTS_FROM + SLOTS_MAX * SLOT_WORDS;
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// Packs a 48-bit value with a tag that a stray write, a zeroed page or a wrong index lacks. The
/// value is in the upper bits, so that sealed words compare as their values do.
pub(super) fn seal(index: usize, value: u64) -> u64 {
    debug_assert!(value < 1 << 48);
    value << 16 | u64::from(tag(index, value))
}

pub(super) fn unseal(index: usize, word: u64) -> Option<u64> {
    let value = word >> 16;
    (word & 0xffff == u64::from(tag(index, value))).then_some(value)
}

fn tag(index: usize, value: u64) -> u16 {
    let [a, b, ..] = crc32c_append(
        0x5f72_616e ^ u32::from(index.to_le_bytes()[0]),
        &value.to_le_bytes(),
    )
    .to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// 48 bits that identify a text.
fn digest(text: &str) -> u64 {
    let (low, high) = (
        crc32c_append(0, text.as_bytes()),
        crc32c_append(0x9e37_79b9, text.as_bytes()),
    );
    u64::from(high & 0xffff) << 32 | u64::from(low)
}

/// The version of the page's layout.
const LAYOUT: u64 = 4;

/// The identity that a page must have to be believed: this layout and store, and this very file,
/// not a copy of it, also where that has the number of a file that was removed. And it must be of
/// this boot.
fn identity_of(store: &str, (device, inode): (u64, u64), made_ns: u64) -> u64 {
    digest(&format!("{LAYOUT} {store} {device} {inode} {made_ns}"))
}

/// Tells whether a page is of this boot.
///
/// Processes may see different boot ids (a container with a `/proc` of its own). So a page with
/// another boot's id is believed, too, while a living process vouches for it. Each does so once it
/// has validated the page, so the first one of a boot has found its own id there, or has filled the
/// page anew.
#[derive(Debug)]
struct Boot {
    /// A digest of the id that this process sees.
    ours: u64,
    /// That of another id of this boot, once one was found; else the same.
    theirs: AtomicU64,
}

impl Boot {
    fn of(host: &dyn Host) -> Self {
        let ours = digest(&host.boot_id());
        Self {
            ours,
            theirs: AtomicU64::new(ours),
        }
    }

    fn is_this(&self, found: Option<u64>, is_vouched: impl FnOnce() -> bool) -> bool {
        let Some(found) = found else { return false };
        if found == self.ours || found == self.theirs.load(Ordering::Relaxed) {
            return true;
        }
        let is_vouched = is_vouched();
        if is_vouched {
            self.theirs.store(found, Ordering::Relaxed);
        }
        is_vouched
    }
}

/// Whether a file with this content may be a page of hints: it is empty or zero, or a page that was
/// once filled for some store.
#[expect(
    clippy::host_endian_bytes,
    reason = "the page never leaves the machine"
)]
pub(crate) fn is_page_content(bytes: &[u8]) -> bool {
    let word = |index: usize| {
        let bytes = bytes.get(8 * index..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let is_sealed = |index| word(index).is_some_and(|word| unseal(index, word).is_some());
    let is_blank = bytes.iter().all(|byte| *byte == 0);
    is_blank || bytes.len() >= SharedPage::BYTES && is_sealed(word::STORE)
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

    fn made_ns(&self) -> u64 {
        0
    }
}

/// The page's words. Those of 64 bits are sealed, unless they are used raw.
#[derive(Debug)]
pub(super) struct Words(Box<dyn Page>);

impl Words {
    #[cfg(test)]
    pub(super) fn of(page: Box<dyn Page>) -> Self {
        Self(page)
    }

    pub(super) fn page(&self) -> &dyn Page {
        self.0.as_ref()
    }

    pub(super) fn raw(&self, index: usize) -> &AtomicU64 {
        self.0.u64(index)
    }

    /// `None` where the word has no valid tag.
    pub(super) fn get(&self, index: usize) -> Option<u64> {
        unseal(index, self.raw(index).load(Ordering::Acquire))
    }

    pub(super) fn set(&self, index: usize, value: u64) {
        self.raw(index).store(seal(index, value), Ordering::Release);
    }
}

/// The slots that this process has claimed in one open page: see [`crate::wal::slots`].
#[derive(Debug)]
pub(super) struct Claims {
    /// Tells who has put a record into a slot. This process claims it before its first slot.
    pub(super) owner: u64,
    claimed: Mutex<Claimed>,
}

#[derive(Debug, Default)]
pub(super) struct Claimed {
    pub(super) is_owner: bool,
    pub(super) all: BTreeSet<usize>,
    /// Those that no thread uses.
    pub(super) free: Vec<usize>,
}

impl Claims {
    pub(super) fn new(random: u64) -> Self {
        // None of them is the number of a slot, and each can be sealed, and claimed also where
        // offsets of files have 32 bits.
        const OWNERS_FROM: u64 = if cfg!(target_pointer_width = "64") {
            1 << 47
        } else {
            1 << 29
        };
        Self {
            owner: OWNERS_FROM | random & (OWNERS_FROM - 1),
            claimed: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Claimed> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page of hints that is mapped to be written.
#[derive(Debug)]
pub(crate) struct Hints {
    words: Words,
    shared: bool,
    /// See [`identity_of`].
    identity: u64,
    store: u64,
    /// What identifies the page's file.
    file: (u64, u64),
    boot: Boot,
    vouches: AtomicBool,
    claims: Claims,
}

impl Hints {
    /// Maps the page of the store in `dir`. `store` is its id in the manifest.
    pub(crate) fn shared(dir: &StoreDir, store: &str) -> Result<Self, PageError> {
        let area_words = if SharedPage::CAN_CLAIM { area::ALL } else { 0 };
        let page = dir.open_page(SHM, area_words)?;
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
        let file = page.identity()?;
        Ok(Self {
            identity: identity_of(store, file, page.made_ns()),
            file,
            store: digest(store),
            boot: Boot::of(host),
            vouches: AtomicBool::new(false),
            claims: Claims::new(host.random()),
            words: Words(page),
            shared,
        })
    }

    /// What identifies the page's file; `None` where no other process sees it.
    pub(crate) fn file(&self) -> Option<(u64, u64)> {
        self.shared.then_some(self.file)
    }

    /// Gives a new page the durable number of the one before it, as if it were a copy of that.
    pub(crate) fn inherit(&self, durable_seq: u64) {
        self.words.set(word::DURABLE, durable_seq);
        self.words.set(word::STORE, self.store);
    }

    /// Whether the page names this store, or none: writers that share no memory clear it.
    pub(crate) fn is_of_this_store_or_blank(&self) -> bool {
        let store = self.words.get(word::STORE);
        store.is_none_or(|store| store == self.store)
    }

    /// What this process has claimed in the page.
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Checks that the page is still backed by its file. Costs a system call when it is shared.
    pub(crate) fn check(&self) -> Result<(), PageError> {
        self.words.page().check()
    }

    /// Whether the page was lost, as far as touching it shows: see [`SharedPage::is_lost`].
    pub(crate) fn is_lost(&self) -> bool {
        self.words.raw(word::IDENTITY).load(Ordering::Relaxed);
        self.words.page().is_lost()
    }

    /// Whether the page was filled for this store, in this file, since this boot.
    pub(crate) fn is_ours(&self) -> bool {
        let identity = self.words.get(word::IDENTITY);
        let is_vouched = || self.words.page().is_vouched();
        identity == Some(self.identity) && self.boot.is_this(self.words.get(word::BOOT), is_vouched)
    }

    /// Vouches for a page that was found to be of this boot. Only for the holder of the store's
    /// lock.
    pub(crate) fn vouch(&self) {
        if !self.vouches.swap(true, Ordering::Relaxed) {
            self.words.page().vouch();
        }
    }

    /// The tail's words. Only the holder of the store's lock may use them.
    pub(crate) fn tail_words(&self) -> TailWords<'_> {
        TailWords(self)
    }

    /// Every record through this one is durable. `None` for a page that is not filled for this
    /// store, in this file, since this boot, or not yet: it may be a copy of before.
    pub(crate) fn durable_seq(&self) -> Option<u64> {
        // First: a page has the right number by the time it becomes ours.
        self.is_ours().then(|| self.words.get(word::DURABLE))?
    }

    /// The durable number, if the page was ever this store's. It holds even after a reboot and in a
    /// copy, since the records were durable before the number was written here.
    pub(crate) fn durable_seq_of_store(&self) -> Option<u64> {
        let ours = self.words.get(word::STORE) == Some(self.store);
        self.words.get(word::DURABLE).filter(|_| ours)
    }

    /// The last record's number, without the lock. `None` as for [`Hints::durable_seq`].
    pub(crate) fn tail_seq(&self) -> Option<u64> {
        self.is_ours().then(|| self.words.get(word::TAIL_SEQ))?
    }

    /// The range of a sync that begins now: the segment to sync, and the last record in it.
    ///
    /// The tail is read before the segment. If that segment begins behind that tail, the log was
    /// rotated in between, and the rotation has synced all before. Then there is nothing to do.
    pub(crate) fn sync_target(&self) -> Option<(u64, u64)> {
        let seq = self.tail_seq()?;
        let segment = self.words.get(word::SEGMENT)?;
        Some((segment, seq))
    }

    /// Raises the durable number; never lowers it. // I6
    pub(crate) fn commit(&self, seq: u64) {
        self.words
            .raw(word::DURABLE)
            .fetch_max(seal(word::DURABLE, seq), Ordering::AcqRel);
    }

    /// Puts the records through `seq` in doubt, since their sync failed: see
    /// [`Writer::sync_or_poison`](super::writer::Writer::sync_or_poison).
    pub(crate) fn poison(&self, seq: u64) {
        self.words.set(word::POISON, seq + 1);
    }

    /// The highest record that a failed sync has put in doubt.
    pub(crate) fn poisoned(&self) -> Option<u64> {
        self.words.get(word::POISON)?.checked_sub(1)
    }

    /// Whether records are in doubt. A damaged mark counts too.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.words.get(word::POISON) != Some(0)
    }
}

/// The words that say where the log ends, for the holder of the store's lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TailWords<'a>(&'a Hints);

impl TailWords<'_> {
    /// The tail, unless a writer died while changing it.
    pub(crate) fn read(self) -> Option<TailHint> {
        let words = &self.0.words;
        let generation = words.get(word::GENERATION)?;
        let tail = TailHint {
            segment: words.get(word::SEGMENT)?,
            seq: words.get(word::TAIL_SEQ)?,
            last_offset: words.get(word::LAST_OFFSET)?,
            offset: words.get(word::TAIL_OFFSET)?,
        };
        let plausible = generation % 2 == 0
            && tail.segment <= tail.seq + 1
            && tail.last_offset <= tail.offset
            && words.get(word::DURABLE)? <= tail.seq;
        plausible.then_some(tail)
    }

    /// Publishes a new tail.
    ///
    /// A writer that dies in here leaves an odd generation, and the next one rebuilds. `TAIL_SEQ`
    /// comes last, because leaders read it without the lock: see [`Hints::sync_target`].
    pub(crate) fn publish(self, tail: TailHint) {
        let words = &self.0.words;
        let generation = self.begin_change();
        words.set(word::SEGMENT, tail.segment);
        words.set(word::LAST_OFFSET, tail.last_offset);
        words.set(word::TAIL_OFFSET, tail.offset);
        words.set(word::TAIL_SEQ, tail.seq);
        words.set(word::GENERATION, generation + 1);
    }

    /// Marks the tail as half changed, until [`TailWords::publish`].
    pub(crate) fn begin_change(self) -> u64 {
        let words = &self.0.words;
        let generation = words.get(word::GENERATION).unwrap_or(0) & ((1 << 47) - 1) | 1;
        words.set(word::GENERATION, generation);
        generation
    }

    /// Fills the page anew. Everything through `tail` must be durable.
    pub(crate) fn rebuild(self, tail: TailHint) {
        let Hints { words, store, .. } = self.0;
        self.begin_change();
        if words.get(word::STORE) != Some(*store) {
            // Until both are right, the durable number belongs to no store.
            words.raw(word::STORE).store(0, Ordering::Release);
        }
        if words.get(word::DURABLE).is_none_or(|seq| seq > tail.seq) {
            words.set(word::DURABLE, tail.seq);
        }
        self.0.commit(tail.seq);
        words.set(word::STORE, *store);
        words.set(word::POISON, 0);
        words.raw(word::LEADER).store(0, Ordering::Release);
        words.set(word::SYNC_US, 0);
        self.publish(tail);
        // From here on all believe the numbers, and readers see no record behind the durable one
        // (I6).
        words.set(word::BOOT, self.0.boot.ours);
        words.set(word::IDENTITY, self.0.identity);
    }
}

/// The hints that this process uses: replaced when their file was cut short or deleted.
#[derive(Debug)]
pub(crate) struct Shm {
    dir: StoreDir,
    store: String,
    current: RwLock<Arc<Hints>>,
}

impl Shm {
    /// Maps the page in `dir`, or keeps the hints in this process unless they are to be `shared`.
    pub(crate) fn open(dir: &StoreDir, store: &str, shared: bool) -> Result<Self, PageError> {
        let hints = if shared {
            Hints::shared(dir, store)?
        } else {
            Hints::private(dir.host(), store)?
        };
        Ok(Self {
            dir: dir.clone(),
            store: store.to_owned(),
            current: RwLock::new(Arc::new(hints)),
        })
    }

    /// The hints that were mapped last.
    pub(crate) fn current(&self) -> Arc<Hints> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The current hints, mapped anew if they were lost. Costs no system call while they are not:
    /// for the holder of the lock, who has just seen that their file has its name.
    pub(crate) fn touched(&self) -> Result<Arc<Hints>, PageError> {
        let hints = self.current();
        if hints.is_lost() {
            return self.remap();
        }
        Ok(hints)
    }

    /// The current hints, mapped anew if their file was cut short or deleted.
    pub(crate) fn usable(&self) -> Result<Arc<Hints>, PageError> {
        let hints = self.current();
        if hints.check().is_ok() {
            return Ok(hints);
        }
        self.remap()
    }

    /// Maps the page of that name anew.
    pub(crate) fn remap(&self) -> Result<Arc<Hints>, PageError> {
        let hints = Arc::new(Hints::shared(&self.dir, &self.store)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&hints);
        Ok(hints)
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

/// The hints as a reader sees them: without the lock, and without writing.
#[derive(Debug)]
pub(crate) struct ShmView {
    page: Box<dyn PageView>,
    /// The page's device and inode.
    pub(crate) file: (u64, u64),
    identity: u64,
    store: u64,
    boot: Boot,
}

/// All that the page says, for a check of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// As [`Hints::is_ours`].
    pub(crate) ours: bool,
    /// As [`Hints::durable_seq_of_store`].
    pub(crate) durable_seq_of_store: Option<u64>,
    pub(crate) durable_seq: Option<u64>,
    pub(crate) tail_seq: Option<u64>,
    /// The tail is not half changed.
    pub(crate) tail_is_whole: bool,
    /// A sync failed, and the records are still in doubt.
    pub(crate) poisoned: bool,
}

impl ShmView {
    /// `None` when there are no hints, or none that can be trusted.
    pub(crate) fn open(dir: &StoreDir, store: &str) -> Option<Self> {
        let page = dir.open_page_to_read(SHM)?;
        let file = page.identity().ok()?;
        Some(Self {
            identity: identity_of(store, file, page.made_ns()),
            store: digest(store),
            boot: Boot::of(dir.host()),
            page,
            file,
        })
    }

    /// As [`Hints::is_ours`].
    fn is_ours(&self) -> bool {
        self.get(word::IDENTITY) == Some(self.identity)
            && self
                .boot
                .is_this(self.get(word::BOOT), || self.page.is_vouched())
    }

    fn get(&self, index: usize) -> Option<u64> {
        unseal(index, self.page.load_u64(index))
    }

    /// The durable number, if writers use this page: at least what it was when the call began.
    pub(crate) fn durable_seq(&self) -> Option<u64> {
        self.page.check().ok()?;
        if !self.is_ours() {
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

    /// `None` when the page can't be touched.
    pub(crate) fn look(&self) -> Option<Look> {
        self.page.check().ok()?;
        // Before the durable number: a writer clears them while it changes that.
        let ours = self.is_ours();
        let of_store = self.get(word::STORE) == Some(self.store);
        let durable_seq = self.get(word::DURABLE);
        self.page.check().ok()?;
        Some(Look {
            ours,
            durable_seq_of_store: durable_seq.filter(|_| of_store),
            durable_seq,
            tail_seq: self.get(word::TAIL_SEQ),
            tail_is_whole: self
                .get(word::GENERATION)
                .is_some_and(|generation| generation % 2 == 0),
            poisoned: self.get(word::POISON) != Some(0),
        })
    }

    /// How often the durable number rose, for [`ShmView::sleep`].
    pub(crate) fn wake_count(&self) -> u32 {
        self.page.load_u32(wait::FOLLOWERS)
    }

    /// Sleeps until the durable number rises, unless it did since `wake_count` was read; for `time`
    /// at most.
    pub(crate) fn sleep(&self, wake_count: u32, time: Duration) {
        self.page.wait(wait::FOLLOWERS, wake_count, time);
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
