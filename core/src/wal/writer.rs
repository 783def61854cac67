//! An open store, for one process that writes to it; and the store's lock.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use strand_lock::{LockError, PageError};

use crate::{
    env::{
        failpoint::Failpoint,
        system::{HeldLock, Host, StoreLock, deadline_after},
    },
    error::{Error, Outcome, Result},
    format::record::segment_name,
    options::Options,
    telemetry,
    wal::{
        manifest::Manifest,
        named::{Identity, LOCK, Lost, Names, OpenFiles, become_sole_holder},
        round::LeadTokens,
        segment::{OpenSegment, Segment},
        shm::{Hints, Shm},
        store_dir::{StoreDir, replaced},
    },
};

/// A lock file that is removed again and again is given up on.
const REOPEN_MAX: u32 = 100;

/// A store that is open to be written. Threads share it.
pub(crate) struct Writer {
    pub(crate) dir: StoreDir,
    pub(crate) options: Options,
    pub(crate) lock: Arc<dyn StoreLock>,
    pub(crate) shm: Shm,
    pub(crate) segment: OpenSegment,
    pub(crate) names: Names,
    /// The line being written. Kept for its capacity; used under the lock.
    pub(crate) line: Mutex<Vec<u8>>,
    /// Held by the thread that syncs: see [`Writer::sync_or_poison`].
    pub(crate) syncing: Mutex<()>,
    pub(crate) tokens: LeadTokens,
    /// Unique in this process.
    pub(crate) id: u64,
}

impl Writer {
    /// Takes the lock on the file that others find, too. Waits at most [`Options::lock_timeout`].
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let report = |error: &_| telemetry::lock_not_taken(self.dir.path(), error);
        self.lock_by(move || {
            wait_for(self.lock.as_ref(), self.host(), &self.options).inspect_err(report)
        })
    }

    /// As [`Writer::lock`], but does not wait; `None` if the lock is not free.
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>> {
        match self.lock_by(move || self.lock.try_lock()) {
            Err(Error::Lock(LockError::Contended { .. })) => Ok(None),
            locked => locked.map(Some),
        }
    }

    /// As [`Writer::lock`], but waits at most `time`; `None` if the lock is not free by then.
    pub(crate) fn lock_within(&self, time: Duration) -> Result<Option<Locked<'_>>> {
        let deadline = deadline_after(self.host().now(), time);
        match self.lock_by(move || self.lock.lock_until(deadline)) {
            Err(Error::Lock(LockError::Timeout { .. })) => Ok(None),
            locked => locked.map(Some),
        }
    }

    fn lock_by<'w>(
        &'w self,
        take: impl Fn() -> std::result::Result<Box<dyn HeldLock + 'w>, LockError> + 'w,
    ) -> Result<Locked<'w>> {
        let wait = telemetry::Clock::of_trace();
        let guard = self.take_lock(take)?;
        let held = Some((wait.us(), telemetry::Clock::of_trace()));
        self.reached(Failpoint::LockHeld);
        Ok(Locked {
            writer: self,
            guard: Some(guard),
            held,
        })
    }

    fn take_lock<'w>(
        &'w self,
        take: impl Fn() -> std::result::Result<Box<dyn HeldLock + 'w>, LockError>,
    ) -> Result<Box<dyn HeldLock + 'w>> {
        for _ in 0..REOPEN_MAX {
            let guard = take()?;
            let lost = self.lost(&self.hints())?;
            if lost.lock {
                drop(guard);
                self.manifest()?; // Is it still this store?
                reopen(&self.dir, self.lock.as_ref())?;
                continue;
            }
            if lost.segment {
                self.segment.close();
            }
            if !self.names.are_ignored() && !guard.is_known() {
                self.manifest()?; // Is it still this store?
                match become_sole_holder(&self.dir, self.lock.as_ref(), guard.as_ref()) {
                    Err(Error::StoreReplaced { .. }) => continue,
                    done => done?,
                }
                self.segment.close();
            }
            if lost.page {
                self.shm.remap().map_err(page_error)?;
            }
            return Ok(guard);
        }
        Err(replaced(&self.dir.path_of(LOCK)))
    }

    /// Looks which open files have lost their names: see [`Names::lost`]. The page is that of
    /// `hints`, as another thread may have gone on in the next one.
    pub(crate) fn lost(&self, hints: &Hints) -> Result<Lost> {
        self.lost_of(hints, self.segment.identity())
    }

    /// As [`Writer::lost`], for a segment that another thread may have closed since.
    pub(crate) fn lost_beside(&self, hints: &Hints, segment: &Segment) -> Result<Lost> {
        self.lost_of(hints, segment.identity())
    }

    fn lost_of(&self, hints: &Hints, segment: Option<(u64, Identity)>) -> Result<Lost> {
        let open = OpenFiles {
            lock: self.lock.identity(),
            page: hints.file(),
            segment,
        };
        self.names.lost(&self.dir, open)
    }

    /// Checks that the held lock is the one that others find. To be called right before a name
    /// changes, and after a segment was opened to be written.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`], [`Error::Io`]: nothing was changed.
    pub(crate) fn require_lock(&self) -> Result<()> {
        if self.lost(&self.hints())?.lock {
            return Err(replaced(&self.dir.path_of(LOCK)));
        }
        Ok(())
    }

    /// Checks, after a record was written and before it is published, that it is in the log that
    /// others find.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`], [`Error::Io`]: the record may be stored, or not.
    pub(crate) fn require_written(&self) -> Result<()> {
        let lost = self.lost(&self.hints()).map_err(|error| match error {
            Error::Io {
                op, path, source, ..
            } => Error::Io {
                op,
                path,
                outcome: Outcome::Unknown,
                source,
            },
            error => error,
        })?;
        let lost = match lost {
            Lost { lock: true, .. } => self.dir.path_of(LOCK),
            Lost { segment: true, .. } => {
                let open = self.segment.identity();
                self.segment.close();
                self.dir
                    .path_of(&segment_name(open.map_or(0, |(first, _)| first)))
            }
            _ => return Ok(()),
        };
        Err(Error::StoreReplaced {
            path: lost,
            outcome: Outcome::Unknown,
        })
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.dir.host()
    }

    /// The hints as they are mapped here. Others may have gone on in the next ones.
    pub(crate) fn hints(&self) -> Arc<Hints> {
        self.shm.current()
    }

    /// The manifest as it is now: a compaction replaces it.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        Manifest::required(&self.dir)
    }

    /// Calls the failpoint hook.
    pub(crate) fn reached(&self, point: Failpoint) {
        self.options.reached(point);
    }

    /// Calls `sync`. If that fails, all processes see that the records through `seq` are in doubt,
    /// and none acknowledges one before it is rewritten. // I7
    ///
    /// One thread at a time: they share the file, and the system tells a failure to one of them.
    /// The others must not take their own success for an answer until the records are marked.
    pub(crate) fn sync_or_poison<T, E: fmt::Display>(
        &self,
        hints: &Hints,
        seq: u64,
        sync: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = sync();
        synced.inspect_err(|error| {
            hints.poison(seq);
            telemetry::sync_failed(self.dir.path(), seq, error);
        })
    }
}

/// A [`Writer`] that holds the store's lock. Dropping it frees the lock; [`Locked::unlock`] also
/// says whether that worked.
#[must_use]
pub(crate) struct Locked<'a> {
    pub(crate) writer: &'a Writer,
    guard: Option<Box<dyn HeldLock + 'a>>,
    /// How long it was waited for, and since when it is held; `None` while a store is opened.
    held: Option<(u64, telemetry::Clock)>,
}

impl<'a> Locked<'a> {
    /// Takes over a lock that was taken while `writer` did not exist yet.
    pub(crate) fn opening(writer: &'a Writer, guard: Box<dyn HeldLock + 'a>) -> Self {
        writer.reached(Failpoint::LockHeld);
        Self {
            writer,
            guard: Some(guard),
            held: None,
        }
    }

    /// Frees the lock after successful work.
    ///
    /// # Errors
    /// The lock is perhaps still held, but all was done.
    pub(crate) fn unlock(mut self) -> Result<()> {
        let freed = self.release();
        freed.map_err(|error| done_but_held(error, self.writer.dir.path()))
    }

    fn release(&mut self) -> std::result::Result<(), LockError> {
        self.writer.reached(Failpoint::BeforeUnlock);
        let freed = self.guard.take().map_or(Ok(()), HeldLock::unlock);
        if let Some((wait_us, clock)) = self.held.take() {
            telemetry::lock_held(wait_us, &clock);
        }
        freed
    }
}

impl Drop for Locked<'_> {
    /// Reached with the lock only after an error.
    fn drop(&mut self) {
        if self.guard.is_none() || std::thread::panicking() {
            return;
        }
        self.release().ok();
    }
}

/// Calls again while a file is replaced in the moment of the call, and nothing was changed: the
/// next call finds the files that have the names then.
pub(crate) fn retry_replaced<T, E>(
    mut call: impl FnMut() -> std::result::Result<T, E>,
    is_displacement: impl Fn(&E) -> bool,
) -> std::result::Result<T, E> {
    for _ in 1..REOPEN_MAX {
        match call() {
            Err(error) if is_displacement(&error) => {}
            done => return done,
        }
    }
    call()
}

/// Opens the lock file anew that has the name `lock` now.
///
/// # Errors
/// [`Error::StoreReplaced`] if the directory is gone; [`Error::Lock`], [`Error::NotWritable`].
pub(crate) fn reopen(dir: &StoreDir, lock: &dyn StoreLock) -> Result<()> {
    lock.reopen().map_err(|error| match error {
        LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            replaced(dir.path())
        }
        error => not_writable(error),
    })
}

/// Takes a lock of a store. Waits at most [`Options::lock_timeout`], and meanwhile calls
/// [`Options::on_lock_wait`]: one long wait is many short ones, whose timeouts name the holder.
pub(crate) fn wait_for<'lock>(
    lock: &'lock dyn StoreLock,
    host: &dyn Host,
    options: &Options,
) -> std::result::Result<Box<dyn HeldLock + 'lock>, LockError> {
    const EVERY: Duration = Duration::from_secs(1);
    let started = host.now();
    let deadline = deadline_after(started, options.lock_timeout);
    let Some(on_lock_wait) = &options.on_lock_wait.0 else {
        return lock.lock_until(deadline);
    };
    let mut call_at = started + EVERY;
    loop {
        match lock.lock_until(deadline.min(call_at)) {
            Err(LockError::Timeout { path, holder, .. }) => {
                let waited = host.now() - started;
                if deadline <= call_at {
                    return Err(LockError::Timeout {
                        path,
                        waited,
                        holder,
                    });
                }
                on_lock_wait(holder.as_deref(), waited);
                call_at += EVERY;
            }
            taken => return taken,
        }
    }
}

pub(crate) fn not_writable(error: LockError) -> Error {
    match error {
        LockError::Io { path, source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Error::NotWritable { path, source }
        }
        error => Error::Lock(error),
    }
}

pub(crate) fn page_error(error: PageError) -> Error {
    let path = match error {
        PageError::Io { op, path, source } => return Error::io(op, path)(source),
        PageError::Truncated { ref path, .. } | PageError::Deleted { ref path } => path.clone(),
        _ => PathBuf::from("shm"),
    };
    Error::io("use", path)(io::Error::other(error))
}

fn done_but_held(error: LockError, dir: &Path) -> Error {
    let source = io::Error::other(error);
    Error::Io {
        op: "unlock",
        path: dir.to_owned(),
        outcome: Outcome::Unknown,
        source,
    }
}
