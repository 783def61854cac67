//! The machine, except its files, as traits, so that a simulation can replace it.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher as _,
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use strand_lock::{
    Counters, ExclusiveGuard, FileLock, Filesystem, FilesystemKind, LockError, LockState,
    PageError, SharedPage, SharedPageReader, files::Dir, look_at_lock_in,
};

use crate::env::share::share;

/// The machine that a store is on: locks, shared memory, time and randomness. [`ThisMachine`] is
/// the real one.
///
/// Every method defaults to that of the real machine.
///
/// ```
/// use std::sync::Arc;
/// use strand_core::{
///     Log, Options, Timestamp,
///     testing::{Host, Storage},
/// };
/// # use strand_core::{Issue, IssueEvent};
///
/// let now = Timestamp::now();
/// /// A machine whose clock does not move, and that never boots again.
/// #[derive(Debug)]
/// struct Still;
///
/// impl Host for Still {
///     fn unix_ms(&self) -> i64 { 1_706_540_000_123 }
///     fn boot_id(&self) -> String { "the only one".to_owned() }
/// }
///
/// #[derive(Debug)]
/// struct OnStill;
///
/// impl Storage for OnStill {
///     fn host(&self) -> &dyn Host { &Still }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::<IssueEvent>::open(dir.path(), Options::default().storage(Arc::new(OnStill)))?;
/// # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Host: fmt::Debug + Send + Sync {
    /// Opens the lock file `name`; creates it when missing.
    ///
    /// # Errors
    /// See [`FileLock::open_in`].
    fn open_lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn StoreLock>, LockError> {
        let is_new = dir.identity_of(name).is_err();
        let lock = FileLock::open_in(dir, name)?;
        if is_new {
            share(dir, name);
        }
        Ok(Box::new(lock))
    }

    /// Opens the shared page `name`, with that area behind it; creates it when missing.
    ///
    /// # Errors
    /// See [`SharedPage::open_with_area_in`].
    fn open_page(
        &self,
        dir: &Dir,
        name: &str,
        area_words: usize,
    ) -> Result<Box<dyn Page>, PageError> {
        let is_new = dir.identity_of(name).is_err();
        let page = SharedPage::open_with_area_in(dir, name, area_words)?;
        if is_new {
            share(dir, name);
        }
        Ok(Box::new(page))
    }

    /// Opens the shared page `name` to read it.
    ///
    /// # Errors
    /// See [`SharedPageReader::open_in`].
    fn open_page_to_read(&self, dir: &Dir, name: &str) -> Result<Box<dyn PageView>, PageError> {
        Ok(Box::new(SharedPageReader::open_in(dir, name)?))
    }

    /// See [`look_at_lock_in`].
    ///
    /// # Errors
    /// See there.
    fn look_at_lock(&self, dir: &Dir, name: &str) -> Result<LockState, PageError> {
        look_at_lock_in(dir, name)
    }

    /// The filesystem of `dir`: see [`Dir::filesystem`].
    ///
    /// # Errors
    /// Those of the system.
    fn filesystem(&self, dir: &Dir) -> io::Result<Filesystem> {
        dir.filesystem()
    }

    /// The kind of it alone: see [`Dir::filesystem_kind`].
    ///
    /// # Errors
    /// Those of the system.
    fn filesystem_kind(&self, dir: &Dir) -> io::Result<FilesystemKind> {
        Ok(self.filesystem(dir)?.kind)
    }

    /// A text that changes with each boot.
    fn boot_id(&self) -> String {
        static BOOT: OnceLock<String> = OnceLock::new();
        BOOT.get_or_init(strand_lock::boot_id).clone()
    }

    /// Monotonic time, for deadlines.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The time of day, in milliseconds since 1970-01-01 UTC.
    fn unix_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// Lets other threads run first. Returns at once if none wants to.
    fn yield_now(&self) {
        std::thread::yield_now();
    }

    /// Sleeps.
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// An unpredictable number.
    fn random(&self) -> u64 {
        // The system draws its keys, once a thread. Children of one `fork` have the same ones.
        RandomState::new().hash_one(std::process::id())
    }
}

/// The moment after `time`; one in the far future where there is none so late.
pub(crate) fn deadline_after(now: Instant, time: Duration) -> Instant {
    const DECADES: Duration = Duration::from_secs(1 << 30);
    let late = || now.checked_add(DECADES).unwrap_or(now);
    now.checked_add(time).unwrap_or_else(late)
}

/// The real machine. Other hosts replace parts of it, as in the example of [`Host`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Host for ThisMachine {
    fn filesystem_kind(&self, dir: &Dir) -> io::Result<FilesystemKind> {
        dir.filesystem_kind()
    }
}

/// A lock on a file, like [`FileLock`]. Example: there.
pub trait StoreLock: fmt::Debug + Send + Sync {
    /// See [`FileLock::lock_until`].
    ///
    /// # Errors
    /// See there.
    fn lock_until(&self, deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError>;

    /// See [`FileLock::try_lock`].
    ///
    /// # Errors
    /// See there.
    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError>;

    /// See [`FileLock::counters`].
    fn counters(&self) -> Counters;

    /// See [`FileLock::identity`].
    fn identity(&self) -> (u64, u64);

    /// See [`FileLock::reopen`].
    ///
    /// # Errors
    /// See there.
    fn reopen(&self) -> Result<(), LockError>;
}

/// A held lock, like [`ExclusiveGuard`]. Dropping it frees the lock.
pub trait HeldLock {
    /// See [`ExclusiveGuard::is_known`].
    fn is_known(&self) -> bool;

    /// See [`ExclusiveGuard::mark_known`].
    fn mark_known(&self);

    /// See [`ExclusiveGuard::unlock`].
    ///
    /// # Errors
    /// See there.
    fn unlock(self: Box<Self>) -> Result<(), LockError>;
}

impl StoreLock for FileLock {
    fn lock_until(&self, deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        Ok(Box::new(FileLock::lock_until(self, deadline)?))
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        Ok(Box::new(FileLock::try_lock(self)?))
    }

    fn counters(&self) -> Counters {
        FileLock::counters(self)
    }

    fn identity(&self) -> (u64, u64) {
        FileLock::identity(self)
    }

    fn reopen(&self) -> Result<(), LockError> {
        FileLock::reopen(self)
    }
}

impl HeldLock for ExclusiveGuard<'_> {
    fn is_known(&self) -> bool {
        ExclusiveGuard::is_known(self)
    }

    fn mark_known(&self) {
        ExclusiveGuard::mark_known(self);
    }

    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        ExclusiveGuard::unlock(*self)
    }
}

/// A page of words that processes share, like [`SharedPage`].
pub trait Page: fmt::Debug + Send + Sync {
    /// See [`SharedPage::u64`].
    fn u64(&self, index: usize) -> &AtomicU64;
    /// See [`SharedPage::u32`].
    fn u32(&self, index: usize) -> &AtomicU32;
    /// See [`SharedPage::area`]. Without an area, every append takes the lock itself.
    fn area(&self) -> &[AtomicU64] {
        &[]
    }
    /// A word of the area that other processes may use now. A simulation may let them do so first.
    ///
    /// # Panics
    /// If the area is not as long.
    fn area_word(&self, index: usize) -> &AtomicU64 {
        let word = self.area().get(index);
        word.unwrap_or_else(|| unreachable!("the area is shorter than {index} words"))
    }
    /// See [`SharedPage::wait`].
    fn wait(&self, index: usize, expected: u32, timeout: Duration);
    /// See [`SharedPage::wake_one`].
    fn wake_one(&self, index: usize);
    /// See [`SharedPage::wake_all`].
    fn wake_all(&self, index: usize);
    /// See [`SharedPage::check`].
    ///
    /// # Errors
    /// See there.
    fn check(&self) -> Result<(), PageError>;
    /// See [`SharedPage::is_lost`].
    fn is_lost(&self) -> bool {
        false
    }
    /// See [`SharedPage::identity`].
    ///
    /// # Errors
    /// See there.
    fn identity(&self) -> Result<(u64, u64), PageError>;
    /// See [`SharedPage::made_ns`]; 0 where that is not known, or no file ever has the number of
    /// an earlier one.
    fn made_ns(&self) -> u64;
    /// See [`SharedPage::vouch`].
    fn vouch(&self) -> bool {
        false
    }
    /// See [`SharedPage::is_vouched`].
    fn is_vouched(&self) -> bool {
        false
    }
    /// See [`SharedPage::claim`].
    fn claim(&self, _number: u64) -> bool {
        false
    }
    /// See [`SharedPage::is_claimed`].
    fn is_claimed(&self, _number: u64) -> bool {
        false
    }
}

impl Page for SharedPage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        SharedPage::u64(self, index)
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        SharedPage::u32(self, index)
    }

    fn area(&self) -> &[AtomicU64] {
        SharedPage::area(self)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        SharedPage::wait(self, index, expected, timeout);
    }

    fn wake_one(&self, index: usize) {
        SharedPage::wake_one(self, index);
    }

    fn wake_all(&self, index: usize) {
        SharedPage::wake_all(self, index);
    }

    fn check(&self) -> Result<(), PageError> {
        SharedPage::check(self)
    }

    fn is_lost(&self) -> bool {
        SharedPage::is_lost(self)
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        SharedPage::identity(self)
    }

    fn made_ns(&self) -> u64 {
        SharedPage::made_ns(self)
    }

    fn vouch(&self) -> bool {
        SharedPage::vouch(self)
    }

    fn is_vouched(&self) -> bool {
        SharedPage::is_vouched(self)
    }

    fn claim(&self, number: u64) -> bool {
        SharedPage::claim(self, number)
    }

    fn is_claimed(&self, number: u64) -> bool {
        SharedPage::is_claimed(self, number)
    }
}

/// A shared page that is only read, like [`SharedPageReader`]. Every [`Page`] is one.
pub trait PageView: fmt::Debug + Send + Sync {
    /// See [`SharedPageReader::load_u64`].
    fn load_u64(&self, index: usize) -> u64;
    /// See [`SharedPageReader::load_u32`].
    fn load_u32(&self, index: usize) -> u32;
    /// See [`SharedPageReader::wait`].
    fn wait(&self, index: usize, expected: u32, timeout: Duration);
    /// See [`SharedPageReader::check`].
    ///
    /// # Errors
    /// See there.
    fn check(&self) -> Result<(), PageError>;
    /// See [`SharedPageReader::identity`].
    ///
    /// # Errors
    /// See there.
    fn identity(&self) -> Result<(u64, u64), PageError>;
    /// See [`SharedPage::made_ns`]; 0 where that is not known, or no file ever has the number of
    /// an earlier one.
    fn made_ns(&self) -> u64;
    /// See [`SharedPage::is_vouched`].
    fn is_vouched(&self) -> bool {
        false
    }
}

impl<P: Page> PageView for P {
    fn load_u64(&self, index: usize) -> u64 {
        Page::u64(self, index).load(Ordering::Acquire)
    }

    fn load_u32(&self, index: usize) -> u32 {
        Page::u32(self, index).load(Ordering::Acquire)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        Page::wait(self, index, expected, timeout);
    }

    fn check(&self) -> Result<(), PageError> {
        Page::check(self)
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Page::identity(self)
    }

    fn made_ns(&self) -> u64 {
        Page::made_ns(self)
    }

    fn is_vouched(&self) -> bool {
        Page::is_vouched(self)
    }
}

impl PageView for SharedPageReader {
    fn load_u64(&self, index: usize) -> u64 {
        SharedPageReader::load_u64(self, index)
    }

    fn load_u32(&self, index: usize) -> u32 {
        SharedPageReader::load_u32(self, index)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        SharedPageReader::wait(self, index, expected, timeout);
    }

    fn check(&self) -> Result<(), PageError> {
        SharedPageReader::check(self)
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        SharedPageReader::identity(self)
    }

    fn made_ns(&self) -> u64 {
        SharedPageReader::made_ns(self)
    }

    fn is_vouched(&self) -> bool {
        SharedPageReader::is_vouched(self)
    }
}
