use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_utils::Backoff;

use crate::{
    counters::{Counters, Totals},
    error::LockError,
    files::Dir,
    gate::{Entry, Gate, Kind, Limit},
    holder::{self, Holder, Myself, word},
    page::SharedPage,
    sys,
};

/// An advisory lock on a file, shared or exclusive, which the kernel frees when its holder dies.
///
/// It excludes other processes, other `FileLock`s on the same path in this process, and other
/// threads that use the same `FileLock`. The file holds one page with a note of the holder. Never
/// delete, rename or shorten it, because a lock belongs to a file and not to a name. Who does not
/// trust others to leave it alone compares [`FileLock::identity`] with that of the named file, and
/// calls [`FileLock::reopen`]. The descriptor is close-on-exec, and a child made by `fork` can
/// neither keep the lock nor free it.
///
/// The lock itself is `flock` (`LockFileEx` on Windows). These calls have no deadline, so waiting
/// is done here: a waiter sleeps on a word of the page, and the unlock wakes it. A holder that is
/// killed wakes no waiter, so each waiter also tries again every few milliseconds.
///
/// Waiters are woken roughly in order, but a free lock goes to the first that asks. A caller that
/// unlocks and locks again at once can overtake the waiters, and shared holders that follow each
/// other without a gap keep exclusive waiters out.
///
/// The lock is not reentrant: a thread that holds it and locks it again waits for itself.
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
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let (one, other) = (lock.lock_shared()?, lock.lock_shared_until(deadline)?);
/// assert!(lock.try_lock().is_err());
/// # drop((one, other));
/// assert_eq!(lock.counters().acquisitions, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    dir: Dir,
    name: PathBuf,
    path: Arc<Path>,
    /// Replaced only by who has closed the gate.
    opened: RwLock<OpenLock>,
    gate: Gate,
    me: Myself,
    totals: Totals,
}

/// The lock file as it is open.
#[derive(Debug)]
struct OpenLock {
    file: sys::LockFile,
    page: Option<SharedPage>,
    identity: (u64, u64),
    /// See [`holder::mark_of`].
    mark: u64,
}

/// A waiter tries again after this time, in case the holder died, and after twice as long each time
/// that this was in vain, up to the maximum. Of many waiters, one tries soon.
const RECHECK_MIN: Duration = Duration::from_millis(5);
const RECHECK_MAX: Duration = Duration::from_millis(20);

/// A caller that finds the lock held tries again after so many steps of [`Backoff`], before it
/// sleeps, since many holds are shorter than falling asleep. Each step pauses twice as long as the
/// one before. Four or eight attempts gained no more than two.
const SPINS: [u32; 2] = [4, 1];

impl FileLock {
    /// Opens the lock file at `path` for reading and writing; creates it if it is missing.
    ///
    /// Takes no lock and does not block.
    ///
    /// # Errors
    /// [`LockError::Io`] if the file can't be opened or lengthened to a page.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LockError> {
        let path = path.as_ref();
        let (dir, name) = Dir::of_file(path).map_err(io_error("open", path))?;
        Self::open_in(&dir, name)
    }

    /// As [`FileLock::open`], for a name in an open directory.
    ///
    /// # Errors
    /// As [`FileLock::open`].
    ///
    /// ```
    /// use strand_lock::{FileLock, files::Dir};
    ///
    /// # let temp = tempfile::tempdir()?;
    /// let dir = Dir::open(temp.path())?;
    /// let lock = FileLock::open_in(&dir, "lock")?;
    /// let mut guard = lock.lock()?;
    /// // Did a program remove the file, or replace it?
    /// while dir.identity_of("lock").ok() != Some(lock.identity()) {
    ///     drop(guard);
    ///     lock.reopen()?;
    ///     guard = lock.lock()?;
    /// }
    /// if !guard.is_known() {
    ///     // … see to it that who held a lock file before this one can do no harm …
    ///     guard.mark_known();
    /// }
    /// # drop(guard);
    /// # assert!(lock.lock()?.is_known());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_in(dir: &Dir, name: impl AsRef<Path>) -> Result<Self, LockError> {
        let name = name.as_ref();
        let path = dir.path().join(name);
        let opened = OpenLock::open(dir, name, &path).map_err(io_error("open", &path))?;
        Ok(Self {
            dir: dir.clone(),
            name: name.to_owned(),
            path: path.into(),
            opened: RwLock::new(opened),
            gate: Gate::default(),
            me: Myself::new(),
            totals: Totals::default(),
        })
    }

    /// Lets go of the file, and opens the one that has its name now; creates it if it is missing.
    /// For who has found that the lock file was removed or replaced: see [`FileLock::open_in`].
    ///
    /// Blocks while another thread holds this lock.
    ///
    /// # Errors
    /// As [`FileLock::open`], and [`LockError::Forked`]; the old file stays open.
    pub fn reopen(&self) -> Result<(), LockError> {
        self.refuse_in_child()?;
        let _alone = self.gate.enter(Kind::Exclusive, Limit::None);
        let opened = OpenLock::open(&self.dir, &self.name, &self.path);
        let opened = opened.map_err(io_error("open", &self.path))?;
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }

    /// The device and inode of the file that is open (on Windows, its index). Others
    /// take the lock on the file that [`Dir::identity_of`] says. Example: [`FileLock::open_in`].
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.opened().identity
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock exclusively. Blocks without limit.
    ///
    /// # Errors
    /// [`LockError::Io`], [`LockError::Forked`]: the lock is not held.
    pub fn lock(&self) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::None)
            .map(ExclusiveGuard)
    }

    /// Takes the lock exclusively if it is free. Does not block.
    ///
    /// # Errors
    /// [`LockError::Contended`] if it is held; [`LockError::Io`], [`LockError::Forked`].
    pub fn try_lock(&self) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::Now)
            .map(ExclusiveGuard)
    }

    /// Takes the lock exclusively. Blocks until `deadline` at most.
    ///
    /// # Errors
    /// [`LockError::Timeout`] with the holder, if it is known; [`LockError::Io`],
    /// [`LockError::Forked`].
    pub fn lock_until(&self, deadline: Instant) -> Result<ExclusiveGuard<'_>, LockError> {
        self.acquire(Kind::Exclusive, Limit::Until(deadline))
            .map(ExclusiveGuard)
    }

    /// Takes the lock together with other shared holders. Blocks without limit.
    ///
    /// # Errors
    /// As [`FileLock::lock`].
    pub fn lock_shared(&self) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::None).map(SharedGuard)
    }

    /// Takes the lock shared unless it is held exclusively. Does not block.
    ///
    /// # Errors
    /// As [`FileLock::try_lock`].
    pub fn try_lock_shared(&self) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::Now).map(SharedGuard)
    }

    /// Takes the lock shared. Blocks until `deadline` at most.
    ///
    /// # Errors
    /// As [`FileLock::lock_until`].
    pub fn lock_shared_until(&self, deadline: Instant) -> Result<SharedGuard<'_>, LockError> {
        self.acquire(Kind::Shared, Limit::Until(deadline))
            .map(SharedGuard)
    }

    /// The process that holds the lock exclusively, if it noted itself and is still running.
    ///
    /// The answer may be out of date when it arrives; show it to people, but don't act on it.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let opened = self.opened();
        let page = opened.touchable_page()?;
        holder::read(|index| page.u64(index).load(Ordering::Acquire))
    }

    /// The operations of this `FileLock` since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.totals.read()
    }

    fn opened(&self) -> RwLockReadGuard<'_, OpenLock> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_in_child(&self) -> Result<(), LockError> {
        if self.me.is_this_process() {
            return Ok(());
        }
        Err(LockError::Forked {
            path: self.path.to_path_buf(),
        })
    }

    fn acquire(&self, kind: Kind, limit: Limit) -> Result<Held<'_>, LockError> {
        self.refuse_in_child()?;
        let started_ns = sys::monotonic_ns();
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
        let (entry, mut contended) = self.gate.enter(kind, limit).ok_or_else(refuse)?;
        let opened = self.opened();
        if let Entry::First(first) = entry {
            let locked = opened.lock(kind, limit);
            contended |= locked
                .map_err(io_error("lock", &self.path))?
                .ok_or_else(refuse)?;
            first.locked_file();
        }
        let mut held = Held {
            lock: self,
            kind,
            acquired_ns: sys::monotonic_ns(),
            is_known: true,
        };
        self.totals
            .acquired(contended, held.acquired_ns.saturating_sub(started_ns));
        if kind == Kind::Exclusive
            && let Some(page) = opened.touchable_page()
        {
            holder::note(page, &self.me, held.acquired_ns);
            held.is_known = holder::is_known(page, opened.mark);
        }
        Ok(held)
    }

    fn release(&self, kind: Kind, acquired_ns: u64) -> Result<(), LockError> {
        if !self.me.is_this_process() {
            return Ok(()); // A forked child's copy of the guard: the lock is the parent's.
        }
        self.totals
            .released(sys::monotonic_ns().saturating_sub(acquired_ns));
        let freed = self.gate.leave(kind, || self.opened().free(kind));
        freed.map_err(io_error("unlock", &self.path))
    }
}

impl OpenLock {
    fn open(dir: &Dir, name: &Path, path: &Path) -> io::Result<Self> {
        loop {
            let mut identity = (0, 0);
            let file = sys::LockFile::open(|| {
                let file = dir.open_or_create(name)?;
                identity = sys::file_state(&file)?.identity;
                Ok(file)
            })?;
            // A mapping keeps its open file alive, even in a forked child, so the page gets a file
            // of its own. Where files can't be mapped (some network filesystems), waiters poll.
            let page_file = dir.open_or_create(name)?;
            if sys::file_state(&page_file)?.identity == identity {
                let mark = holder::mark_of(&page_file, identity);
                let page = SharedPage::map(page_file, path, 0).ok();
                return Ok(Self {
                    file,
                    page,
                    identity,
                    mark,
                });
            }
        }
    }

    /// Takes the file's lock; returns whether another held it at first. `None` if the time is over.
    fn lock(&self, kind: Kind, limit: Limit) -> io::Result<Option<bool>> {
        if self.try_lock(kind)? {
            return Ok(Some(false));
        }
        let mut recheck = RECHECK_MIN;
        if limit.left(recheck).is_none() {
            return Ok(None);
        }
        let backoff = Backoff::new();
        for spins in SPINS {
            (0..spins).for_each(|_| backoff.spin());
            if self.try_lock(kind)? {
                return Ok(Some(true));
            }
        }
        while !self.try_lock_as_waiter(kind)? {
            let Some(time) = limit.left(recheck) else {
                return Ok(None);
            };
            match self.touchable_page() {
                Some(page) => page.wait(waiters(kind), word::SLEEPING, time),
                None => std::thread::sleep(time.min(Duration::from_micros(200))),
            }
            recheck = (recheck * 2).min(RECHECK_MAX);
        }
        Ok(Some(true))
    }

    fn try_lock(&self, kind: Kind) -> io::Result<bool> {
        self.file.try_lock(kind == Kind::Exclusive)
    }

    /// Announces a waiter, then tries; in this order, so that an unlock after a failed try sees the
    /// announcement. Repeated after each sleep, because the wake that ended it cleared the
    /// announcement while others may still sleep.
    fn try_lock_as_waiter(&self, kind: Kind) -> io::Result<bool> {
        if let Some(page) = self.touchable_page() {
            page.u32(waiters(kind))
                .store(word::SLEEPING, Ordering::SeqCst);
        }
        self.try_lock(kind)
    }

    /// Frees the file's lock, and wakes who waits for it.
    fn free(&self, kind: Kind) -> io::Result<()> {
        let page = self.touchable_page();
        if kind == Kind::Exclusive
            && let Some(page) = page
        {
            holder::clear(page);
        }
        let freed = self.file.unlock();
        if let Some(page) = page {
            let slept = |word| {
                page.u32(word).load(Ordering::SeqCst) == word::SLEEPING
                    && page.u32(word).swap(word::IDLE, Ordering::SeqCst) == word::SLEEPING
            };
            if slept(word::EXCLUSIVE_WAITERS) {
                page.wake_one(word::EXCLUSIVE_WAITERS);
            }
            if slept(word::SHARED_WAITERS) {
                page.wake_all(word::SHARED_WAITERS);
            }
        }
        freed
    }

    /// The page, unless its file was cut short, which would make touching it fatal.
    fn touchable_page(&self) -> Option<&SharedPage> {
        self.page.as_ref().filter(|page| page.is_whole())
    }
}

fn waiters(kind: Kind) -> usize {
    match kind {
        Kind::Exclusive => word::EXCLUSIVE_WAITERS,
        Kind::Shared => word::SHARED_WAITERS,
    }
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    move |source| LockError::Io {
        op,
        path: path.to_owned(),
        source,
    }
}

#[derive(Debug)]
struct Held<'a> {
    lock: &'a FileLock,
    kind: Kind,
    acquired_ns: u64,
    is_known: bool,
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

/// An exclusive hold of a [`FileLock`]. Dropping it frees the lock; [`ExclusiveGuard::unlock`] also
/// reports errors.
#[derive(Debug)]
#[must_use = "the lock is freed at once when the guard is dropped"]
pub struct ExclusiveGuard<'a>(Held<'a>);

/// A shared hold of a [`FileLock`]. Dropping it frees this share; [`SharedGuard::unlock`] also
/// reports errors.
#[derive(Debug)]
#[must_use = "the lock is freed at once when the guard is dropped"]
pub struct SharedGuard<'a>(Held<'a>);

impl ExclusiveGuard<'_> {
    /// Frees the lock and wakes a waiter. Does not block.
    ///
    /// # Errors
    /// [`LockError::Io`] if the system refuses; the lock is then freed when the [`FileLock`] is
    /// dropped.
    pub fn unlock(self) -> Result<(), LockError> {
        self.0.unlock()
    }

    /// Whether [`ExclusiveGuard::mark_known`] was called on this file: false for a lock file that
    /// is new, or a copy.
    ///
    /// Then the file that others knew may have been removed, and one of them may still hold it. Who
    /// takes a lock to change other files must first see to it that such a holder can't change them
    /// any more. True where the file can't be mapped. Example: [`FileLock::open_in`].
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_known
    }

    /// Marks the file, for [`ExclusiveGuard::is_known`] of all later holders, and syncs the mark:
    /// it outlives a power failure, unless the system refuses to sync. Blocks as long as the sync.
    /// Example: [`FileLock::open_in`].
    pub fn mark_known(&self) {
        let opened = self.0.lock.opened();
        if let Some(page) = opened.touchable_page() {
            holder::mark_known(page, opened.mark);
        }
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

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<FileLock>();
};
