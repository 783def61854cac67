use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    Holder, LockError, SharedPage, files,
    holder::{self, Myself},
    sys,
};

/// An advisory lock on a file, shared or exclusive, freed by the kernel when its holder dies.
///
/// It excludes other processes, other `FileLock`s on the same path in this process, and other
/// threads that use the same `FileLock`. The file holds one page with a note of who holds the
/// lock; it is never deleted, renamed or shortened, because a lock belongs to a file and not to a name.
/// The descriptor is close-on-exec, and a child made by `fork` neither keeps the lock alive nor can free it.
///
/// The lock itself is `flock` (`LockFileEx` on Windows). Waiting is not left to the kernel, which
/// knows no deadline for it: a waiter sleeps on a word of the page and is woken by the unlock.
/// A holder that is killed wakes nobody, so waiters also look by themselves every few milliseconds.
///
/// Waiters are woken about in the order in which they came, but a lock that is free goes to whoever
/// asks first: a caller that unlocks and locks again at once can get ahead of those who wait, and
/// shared holders that follow each other without a gap keep exclusive waiters out.
///
/// It is not reentrant: a thread that holds it and locks it again waits for itself.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strand_lock::FileLock;
///
/// # let dir = tempfile::tempdir()?;
/// let lock = FileLock::open(dir.path().join("lock"))?;
/// let guard = lock.lock()?;
/// assert_eq!(lock.holder().map(|holder| holder.pid), Some(std::process::id()));
/// assert!(lock.try_lock_shared().is_err_and(|error| error.is_contention()));
/// guard.unlock()?;
///
/// // Several at a time.
/// let (one, other) = (lock.lock_shared()?, lock.lock_shared_until(Instant::now() + Duration::from_secs(5))?);
/// assert!(lock.try_lock().is_err());
/// # drop((one, other));
/// assert_eq!(lock.counters().acquisitions, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    file: sys::LockFile,
    page: Option<SharedPage>,
    path: Arc<Path>,
    gate: Gate,
    me: Myself,
    totals: Totals,
}

/// A waiter looks at the lock by itself after this time, in case that its holder died, and after
/// twice as long each time that it does so in vain, up to the second. Of many waiters some looks soon.
const FIRST_RECHECK: Duration = Duration::from_millis(5);
const LAST_RECHECK: Duration = Duration::from_millis(20);

/// How often a caller that finds the lock held tries again before it sleeps, since many holds are
/// shorter than falling asleep. Four or eight tries gained no more than two.
const SPINS: u32 = 2;
const PAUSES_PER_SPIN: u32 = 20;

/// The 32-bit words of the page that waiters sleep on: those who want the lock for themselves are
/// woken one at a time, those who share it all together.
pub(crate) const EXCLUSIVE_WAITERS: usize = 0;
pub(crate) const SHARED_WAITERS: usize = 1;
const NOBODY_SLEEPS: u32 = 0;
pub(crate) const SOMEBODY_SLEEPS: u32 = 1;

impl FileLock {
    /// Opens the lock file at `path` for reading and writing; creates it when missing.
    ///
    /// Takes no lock and does not block.
    ///
    /// # Errors
    /// [`LockError::Io`] when the file can't be opened or lengthened to a page.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LockError> {
        let path = path.as_ref();
        let open = || files::open_or_create(path);
        let io = |source| LockError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        };
        let file = sys::LockFile::open(open).map_err(io)?;
        // A mapping keeps its open file alive, in a forked child too, so the page gets one of its
        // own. Where files can't be mapped (some network filesystems), waiting is done by polling.
        let page = SharedPage::map(open().map_err(io)?, path).ok();
        Ok(Self {
            file,
            page,
            path: path.into(),
            gate: Gate::default(),
            me: Myself::new(),
            totals: Totals::default(),
        })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock exclusively; blocks without limit.
    ///
    /// # Errors
    /// [`LockError::Io`], [`LockError::Forked`]: the lock is not held.
    pub fn lock(&self) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::None)
            .map(ExclusiveGuard)
    }

    /// Takes the lock exclusively if nobody holds it now; does not block.
    ///
    /// # Errors
    /// [`LockError::Contended`] when somebody holds it; [`LockError::Io`], [`LockError::Forked`].
    pub fn try_lock(&self) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::Now)
            .map(ExclusiveGuard)
    }

    /// Takes the lock exclusively; blocks until `deadline` at most.
    ///
    /// # Errors
    /// [`LockError::Timeout`] with the holder when it is known; [`LockError::Io`], [`LockError::Forked`].
    pub fn lock_until(&self, deadline: Instant) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::Until(deadline))
            .map(ExclusiveGuard)
    }

    /// Takes the lock together with other shared holders; blocks without limit.
    ///
    /// # Errors
    /// As [`FileLock::lock`].
    pub fn lock_shared(&self) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::None).map(SharedGuard)
    }

    /// Takes the lock shared if nobody holds it exclusively now; does not block.
    ///
    /// # Errors
    /// As [`FileLock::try_lock`].
    pub fn try_lock_shared(&self) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::Now).map(SharedGuard)
    }

    /// Takes the lock shared; blocks until `deadline` at most.
    ///
    /// # Errors
    /// As [`FileLock::lock_until`].
    pub fn lock_shared_until(&self, deadline: Instant) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::Until(deadline))
            .map(SharedGuard)
    }

    /// Who holds the lock exclusively, if it left a note and still runs.
    ///
    /// A snapshot for people: the lock may have changed hands since.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let page = self.touchable_page()?;
        holder::read(|index| page.u64(index).load(Ordering::Acquire))
    }

    /// What this `FileLock` did since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.totals.read()
    }

    fn acquire(&self, kind: Kind, limit: Limit) -> Result<Held<'_>, LockError> {
        if !self.me.is_this_process() {
            return Err(LockError::Forked {
                path: self.path.to_path_buf(),
            });
        }
        let started_ns = sys::monotonic_ns();
        let mut contended = false;
        let refuse = || match limit {
            Limit::Now => LockError::Contended {
                path: Arc::clone(&self.path),
            },
            Limit::None | Limit::Until(_) => LockError::Timeout {
                path: self.path.to_path_buf(),
                waited: Duration::from_nanos(sys::monotonic_ns().saturating_sub(started_ns)),
                holder: self.holder().map(Box::new),
            },
        };

        let mut entry = self
            .gate
            .enter(kind, limit, &mut contended)
            .ok_or_else(refuse)?;
        if entry.needs_file_lock() {
            let io = |source| LockError::Io {
                op: "lock",
                path: self.path.to_path_buf(),
                source,
            };
            if !self.file.try_lock(kind == Kind::Exclusive).map_err(io)? {
                contended = true;
                let mut recheck = FIRST_RECHECK;
                if limit.left(recheck).is_none() {
                    return Err(refuse());
                }
                if !self.spin(kind).map_err(io)? {
                    while !self.try_lock_as_waiter(kind).map_err(io)? {
                        self.sleep(kind, limit.left(recheck).ok_or_else(refuse)?);
                        recheck = (recheck * 2).min(LAST_RECHECK);
                    }
                }
            }
        }
        entry.complete();
        let held = Held {
            lock: self,
            kind,
            acquired_ns: sys::monotonic_ns(),
        };
        self.totals
            .acquired(contended, held.acquired_ns.saturating_sub(started_ns));
        if kind == Kind::Exclusive
            && let Some(page) = self.touchable_page()
        {
            holder::note(page, &self.me, held.acquired_ns);
        }
        Ok(held)
    }

    /// Tries a few times more, for a microsecond or two.
    fn spin(&self, kind: Kind) -> io::Result<bool> {
        for _ in 0..SPINS {
            (0..PAUSES_PER_SPIN).for_each(|_| std::hint::spin_loop());
            if self.file.try_lock(kind == Kind::Exclusive)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Announces a waiter, then tries; in this order, so that an unlock after a failed try sees the
    /// announcement. Repeated after each sleep, because the wake that ended it took the announcement
    /// back while others may still sleep.
    fn try_lock_as_waiter(&self, kind: Kind) -> io::Result<bool> {
        if let Some(page) = self.touchable_page() {
            page.u32(kind.waiters())
                .store(SOMEBODY_SLEEPS, Ordering::SeqCst);
        }
        self.file.try_lock(kind == Kind::Exclusive)
    }

    fn sleep(&self, kind: Kind, time: Duration) {
        match self.touchable_page() {
            Some(page) => page.wait(kind.waiters(), SOMEBODY_SLEEPS, time),
            None => std::thread::sleep(time.min(Duration::from_micros(200))),
        }
    }

    fn release(&self, kind: Kind, acquired_ns: u64) -> Result<(), LockError> {
        if !self.me.is_this_process() {
            return Ok(()); // A forked child's copy of the guard: the lock is the parent's.
        }
        self.totals
            .released(sys::monotonic_ns().saturating_sub(acquired_ns));
        self.gate.leave(kind, || {
            let page = self.touchable_page();
            if kind == Kind::Exclusive
                && let Some(page) = page
            {
                holder::clear(page);
            }
            let freed = self.file.unlock();
            if let Some(page) = page {
                let slept = |word| {
                    page.u32(word).load(Ordering::SeqCst) == SOMEBODY_SLEEPS
                        && page.u32(word).swap(NOBODY_SLEEPS, Ordering::SeqCst) == SOMEBODY_SLEEPS
                };
                if slept(EXCLUSIVE_WAITERS) {
                    page.wake_one(EXCLUSIVE_WAITERS);
                }
                if slept(SHARED_WAITERS) {
                    page.wake_all(SHARED_WAITERS);
                }
            }
            freed.map_err(|source| LockError::Io {
                op: "unlock",
                path: self.path.to_path_buf(),
                source,
            })
        })
    }

    /// The page, unless somebody cut the file short, which would make touching it fatal.
    fn touchable_page(&self) -> Option<&SharedPage> {
        self.page.as_ref().filter(|page| page.is_whole())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exclusive,
    Shared,
}

impl Kind {
    fn waiters(self) -> usize {
        match self {
            Self::Exclusive => EXCLUSIVE_WAITERS,
            Self::Shared => SHARED_WAITERS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    Now,
    Until(Instant),
}

impl Limit {
    /// How long to sleep before the next look, `most` at most; `None` when time is over.
    fn left(self, most: Duration) -> Option<Duration> {
        match self {
            Self::None => Some(most),
            Self::Now => None,
            Self::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                (!left.is_zero()).then(|| left.min(most))
            }
        }
    }
}

/// Excludes the threads of one process, which a file lock does not tell apart.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    /// A thread holds the lock exclusively, or is about to get it.
    closed: bool,
    /// Threads that hold it shared.
    shared: usize,
    /// Threads that sleep until this changes.
    waiting: usize,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this process's other threads. `None` when time is over.
    fn enter(&self, kind: Kind, limit: Limit, contended: &mut bool) -> Option<GateEntry<'_>> {
        let mut state = self.state();
        loop {
            if kind == Kind::Shared && state.shared > 0 {
                state.shared += 1;
                return Some(GateEntry {
                    gate: self,
                    kind,
                    stage: Stage::Joined,
                });
            }
            if !state.closed && state.shared == 0 {
                state.closed = true;
                return Some(GateEntry {
                    gate: self,
                    kind,
                    stage: Stage::Closed,
                });
            }
            *contended = true;
            let left = limit.left(Duration::from_secs(1))?;
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting -= 1;
        }
    }

    /// Has the sleepers look at the changed state. A system call, so not without sleepers.
    fn wake(&self, state: MutexGuard<'_, GateState>) {
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Gives the place back; the last one out calls `unlock_file` before anybody else gets in.
    fn leave<R>(&self, kind: Kind, unlock_file: impl FnOnce() -> Result<(), R>) -> Result<(), R> {
        let mut state = self.state();
        if kind == Kind::Shared {
            state.shared -= 1;
        }
        let result = if state.shared == 0 {
            unlock_file()
        } else {
            Ok(())
        };
        state.closed = false;
        self.wake(state);
        result
    }
}

/// A thread's place in the gate, given back on drop unless [`GateEntry::complete`] was called.
struct GateEntry<'a> {
    gate: &'a Gate,
    kind: Kind,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    /// This thread closed the gate and must now take the file lock.
    Closed,
    /// Another thread holds the file lock shared for all of us.
    Joined,
    Completed,
}

impl GateEntry<'_> {
    fn needs_file_lock(&self) -> bool {
        self.stage == Stage::Closed
    }

    fn complete(&mut self) {
        if self.stage == Stage::Closed && self.kind == Kind::Shared {
            let mut state = self.gate.state();
            state.closed = false;
            state.shared = 1;
            self.gate.wake(state);
        }
        self.stage = Stage::Completed;
    }
}

impl Drop for GateEntry<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::Closed {
            let mut state = self.gate.state();
            state.closed = false;
            self.gate.wake(state);
        }
    }
}

#[derive(Debug)]
struct Held<'a> {
    lock: &'a FileLock,
    kind: Kind,
    acquired_ns: u64,
}

impl Held<'_> {
    fn unlock(self) -> Result<(), LockError> {
        let result = self.lock.release(self.kind, self.acquired_ns);
        std::mem::forget(self);
        result
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Drop can't report; closing the file frees the lock at the latest.
        drop(self.lock.release(self.kind, self.acquired_ns));
    }
}

/// The lock, held by nobody else: from [`FileLock::lock`] of a [`FileLock`]. Freed on drop; [`ExclusiveGuard::unlock`] also
/// reports.
#[derive(Debug)]
#[must_use = "the lock is freed at once when the guard is dropped"]
pub struct ExclusiveGuard<'a>(Held<'a>);

/// The lock, held together with other shared holders: from [`FileLock::lock_shared`] of a [`FileLock`]. Freed on drop;
/// [`SharedGuard::unlock`] also reports.
#[derive(Debug)]
#[must_use = "the lock is freed at once when the guard is dropped"]
pub struct SharedGuard<'a>(Held<'a>);

impl ExclusiveGuard<'_> {
    /// Frees the lock, and wakes one who waits for it. Does not block.
    ///
    /// # Errors
    /// [`LockError::Io`] when the system refuses; it then frees the lock when the [`FileLock`] is dropped.
    pub fn unlock(self) -> Result<(), LockError> {
        self.0.unlock()
    }
}

impl SharedGuard<'_> {
    /// Frees this holder's share of the lock. Does not block.
    ///
    /// # Errors
    /// As [`ExclusiveGuard::unlock`].
    pub fn unlock(self) -> Result<(), LockError> {
        self.0.unlock()
    }
}

/// What one [`FileLock`] did since it was opened, over all threads that used it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// How often the lock was taken.
    pub acquisitions: u64,
    /// How often of these somebody else held it at first.
    pub contended: u64,
    /// Time spent until it was taken, in all.
    pub wait: Duration,
    /// Time it was held, in all.
    pub hold: Duration,
    /// The longest single wait.
    pub longest_wait: Duration,
    /// The longest single hold.
    pub longest_hold: Duration,
}

#[derive(Debug, Default)]
struct Totals {
    acquisitions: AtomicU64,
    contended: AtomicU64,
    wait_ns: AtomicU64,
    hold_ns: AtomicU64,
    longest_wait_ns: AtomicU64,
    longest_hold_ns: AtomicU64,
}

impl Totals {
    fn acquired(&self, contended: bool, wait_ns: u64) {
        self.acquisitions.fetch_add(1, Ordering::Relaxed);
        if contended {
            self.contended.fetch_add(1, Ordering::Relaxed);
        }
        add(wait_ns, &self.wait_ns, &self.longest_wait_ns);
    }

    fn released(&self, hold_ns: u64) {
        add(hold_ns, &self.hold_ns, &self.longest_hold_ns);
    }

    fn read(&self) -> Counters {
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        Counters {
            acquisitions: self.acquisitions.load(Ordering::Relaxed),
            contended: self.contended.load(Ordering::Relaxed),
            wait: time(&self.wait_ns),
            hold: time(&self.hold_ns),
            longest_wait: time(&self.longest_wait_ns),
            longest_hold: time(&self.longest_hold_ns),
        }
    }
}

fn add(ns: u64, total_ns: &AtomicU64, longest_ns: &AtomicU64) {
    total_ns.fetch_add(ns, Ordering::Relaxed);
    longest_ns.fetch_max(ns, Ordering::Relaxed);
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<FileLock>();
};
