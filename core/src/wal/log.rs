use std::{
    fmt, io,
    marker::PhantomData,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
};

use strand_lock::{FilesystemKind, LockError, PageError};

use crate::{
    env::{
        failpoint::Failpoint,
        storage::OpenMode,
        system::{Host, StoreLock},
    },
    error::{Error, InvalidEvent, Outcome, Result},
    format::record::{EncodedPayload, segment_name},
    issues::{event::IssueEvent, version::Version},
    options::{Durability, Options},
    seeded::{Bug, seeded},
    state::materialize::Folded,
    telemetry,
    wal::{
        cursor::{End, RawRecords, Records},
        manifest::{Manifest, manifest_missing},
        payload::Payload,
        reader::is_new,
        recovery::Recovery,
        shm::Hints,
        store_dir::{StoreDir, StoreFile},
    },
};

/// How often the hints are looked at anew because somebody deleted them meanwhile.
const LOOKS_MAX: u32 = 3;

/// The target of the lock that whoever changes the log holds.
pub(crate) const LOCK: &str = "lock";

/// A store's log, opened to append. Share it between threads by reference; any number of processes
/// can have the same store open.
///
/// Nothing runs in the background: what happens, happens inside the calls.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// let issue = Issue::new("bd-1", "Mend the fence", now);
/// let receipt = log.append(&IssueEvent::add(issue, now))?;
/// assert_eq!(receipt.seq, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log<P: Payload = IssueEvent> {
    pub(crate) core: LogCore,
    payload: PhantomData<fn(P) -> P>,
}

/// What an acknowledged append returns: see [`Log`], and [`crate::Batch::key`] for repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The record's number: one more than that of the record before it, whoever wrote that.
    pub seq: u64,
    /// The record was there already: an append with the same idempotency key had stored it. Nothing
    /// was written now.
    pub repeated: bool,
}

impl Receipt {
    /// The version of each issue that the record changed.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.seq)
    }
}

impl<P: Payload> Log<P> {
    /// Opens the store in `dir` to append; makes an empty directory a store.
    ///
    /// Blocks for the lock, at most [`Options::lock_timeout`]. Does not read the log, unless the
    /// shared hints can't be trusted (after a reboot, in a copy): then it reads the last segment,
    /// keeps a torn tail in `quarantine/` and cuts it off; see [`Log::recovery`].
    ///
    /// # Errors
    /// Nothing was written: [`Error::MissingDirectory`], [`Error::NotADirectory`], [`Error::NotWritable`],
    /// [`Error::UnsafeFilesystem`], [`Error::UnsupportedVersion`], [`Error::Lock`], [`Error::Corrupt`].
    /// [`Error::Io`]: what was done so far is found and finished by the next open.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = StoreDir::new(&options.storage, dir.as_ref());
        let core = telemetry::open(dir.path()).within(|| LogCore::open(&dir, options))?;
        Ok(Self {
            core,
            payload: PhantomData,
        })
    }

    /// Appends one event as a record of its own.
    ///
    /// Blocks for the lock, at most [`Options::lock_timeout`], and with [`Durability::Synced`] for
    /// one sync of the disk, which it may share with others. On return the record survives what
    /// [`Options::durability`] says.
    ///
    /// # Errors
    /// [`Error::outcome`] tells what is left: for [`Error::InvalidEvent`], [`Error::RecordTooLarge`],
    /// [`Error::Lock`] and most of [`Error::Io`] nothing; after [`Error::DurabilityUnknown`] the
    /// record is in the log, and may or may not survive the loss of power.
    pub fn append(&self, event: &P) -> Result<Receipt> {
        event.validate()?;
        self.core.append(&EncodedPayload::one(to_json(event)?)?)
    }

    /// Appends several events as one record: all of them or none, also after a crash.
    ///
    /// Blocks, and is durable, as [`Log::append`].
    ///
    /// # Errors
    /// As [`Log::append`]; [`InvalidEvent::EmptyBatch`] when there are none.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// let add = IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now);
    /// let receipt = log.append_batch(&[add, IssueEvent::close("bd-1", now)])?;
    /// assert_eq!(receipt.seq, 1); // One record.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch(&self, events: &[P]) -> Result<Receipt> {
        if events.is_empty() {
            return Err(InvalidEvent::EmptyBatch.into());
        }
        events.iter().try_for_each(Payload::validate)?;
        if seeded(Bug::BatchSplit) {
            let mut receipts = events.iter().map(|event| self.append(event));
            return receipts
                .next_back()
                .unwrap_or_else(|| unreachable!("there are some"));
        }
        self.core.append(&EncodedPayload::batch(to_json(&events)?))
    }

    /// Blocks until every record through `seq` is durable, whoever wrote it: for one sync of the disk at most, unless the
    /// hints have to be mended first. For appends with [`Durability::Buffered`], whose receipt tells `seq`.
    ///
    /// # Errors
    /// [`Error::DurabilityUnknown`] when the sync failed, and for a `seq` that was never written.
    /// [`Error::Lock`], [`Error::Corrupt`], [`Error::Io`] when the hints had to be mended and could not.
    /// The records stay in the log in any case.
    ///
    /// ```
    /// use strand_core::{Durability, Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default().durability(Durability::Buffered))?;
    /// let receipt = log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// assert_eq!((log.tail_seq(), log.durable_seq()), (1, 0)); // There, but not durable.
    /// assert_eq!((log.replay()?.count(), log.read()?.count()), (1, 0));
    /// log.sync_to(receipt.seq)?;
    /// assert_eq!(log.durable_seq(), 1);
    /// log.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_to(&self, seq: u64) -> Result<()> {
        self.core.sync_to(seq)
    }

    /// The records behind the live snapshot, through the watermark: what is durable now. Blocks where
    /// [`Log::durable_seq`] does; example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`crate::Reader::read`].
    pub fn read(&self) -> Result<Records<P>> {
        Ok(Records::new(self.core.raw(self.durable_seq())?))
    }

    /// The records through the tail: those too that were appended with [`Durability::Buffered`] and
    /// are not durable yet. Blocks where [`Log::durable_seq`] does; example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn replay(&self) -> Result<Records<P>> {
        Ok(Records::new(self.core.raw(self.tail_seq())?))
    }

    /// The watermark: every record through it is durable. 0 when there is none.
    ///
    /// Does not block, unless somebody has deleted the hints: then they are rebuilt, under the lock. Where that
    /// fails, it answers what was known before. Example: [`Log::sync_to`].
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        self.core.look(Hints::durable_seq)
    }

    /// The last record that was written, durable or not. 0 when there is none.
    ///
    /// Blocks where [`Log::durable_seq`] does. Example: [`Log::sync_to`].
    #[must_use]
    pub fn tail_seq(&self) -> u64 {
        self.core.look(Hints::tail_seq)
    }

    /// What this `Log` did with the store's lock: how often it was taken, how long it was waited for and held.
    ///
    /// ```
    /// # use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// # let log = Log::open(dir.path(), Options::default())?;
    /// # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// let counters = log.lock_counters();
    /// println!("{} holds, the longest {:?}", counters.acquisitions, counters.longest_hold);
    /// # assert_eq!(counters.acquisitions, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lock_counters(&self) -> strand_lock::Counters {
        self.core.lock.counters()
    }

    /// What opening found and mended; see [`Recovery`].
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.core.recovery
    }

    /// Closes the log, after making durable what was only buffered. Without it, dropping the log does no harm: what was
    /// acknowledged is as durable as [`Options::durability`] says.
    ///
    /// # Errors
    /// As [`Log::sync_to`].
    pub fn close(self) -> Result<()> {
        self.core.sync_to(self.tail_seq())
    }
}

impl<P: Payload> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.core.dir.path())
            .finish_non_exhaustive()
    }
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let encoding = |error: serde_json::Error| InvalidEvent::Encoding {
        message: error.to_string(),
    };
    Ok(serde_json::to_vec(value).map_err(encoding)?)
}

/// The log without the type of its payload. Its parts: `append` (what the lock's holder does),
/// `recovery` (what it does when the hints and the log differ), `commit` (how a record becomes durable).
pub(crate) struct LogCore {
    pub(crate) dir: StoreDir,
    pub(crate) options: Options,
    /// Tells this store from others; see [`Manifest::store`].
    pub(crate) store_id: String,
    pub(crate) lock: Arc<dyn StoreLock>,
    /// Replaced when the page's file was cut short or deleted.
    hints: RwLock<Arc<Hints>>,
    segment: Mutex<Option<Segment>>,
    /// The line being written; used by the holder of `lock`.
    pub(crate) line: Mutex<Vec<u8>>,
    /// The state that conditions are checked against; read when the first one is.
    pub(crate) state: Mutex<Option<Folded>>,
    pub(crate) recovery: Recovery,
}

/// An open segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    pub(crate) file: Arc<StoreFile>,
    /// How long the file was when this process last looked, free space included. Only a hint.
    pub(crate) len_bytes: Arc<AtomicU64>,
}

impl Segment {
    pub(crate) fn new(first_seq: u64, file: StoreFile) -> Self {
        Self {
            first_seq,
            file: Arc::new(file),
            len_bytes: Arc::default(),
        }
    }
}

impl LogCore {
    pub(crate) fn open(dir: &StoreDir, options: Options) -> Result<Self> {
        dir.require()?;
        let shared = memory_can_be_shared(dir, &options)?;
        let host = dir.host();
        // Refuse a newer store before anything is created in its directory.
        Manifest::read(dir)?;
        let lock: Arc<dyn StoreLock> = dir.open_lock(LOCK).map_err(not_writable)?.into();
        let guard = lock.lock_until(host.now() + options.lock_timeout)?;
        let manifest = match Manifest::read(dir)? {
            Some(manifest) => manifest,
            None => create_store(dir)?,
        };
        let hints = if shared {
            Hints::shared(dir, &manifest.store)
        } else {
            Hints::private(host, &manifest.store)
        };
        let hints = hints.map_err(page_error)?;
        let mut core = Self {
            dir: dir.clone(),
            store_id: manifest.store.clone(),
            lock: Arc::clone(&lock),
            hints: RwLock::new(Arc::new(hints)),
            segment: Mutex::default(),
            line: Mutex::default(),
            state: Mutex::default(),
            recovery: Recovery::default(),
            options,
        };
        core.options.reached(Failpoint::LockHeld);
        let recovered = core.recover_on_open();
        core.options.reached(Failpoint::BeforeUnlock);
        guard.unlock()?;
        core.recovery = recovered?;
        core.remove_orphans(&manifest)?;
        Ok(core)
    }

    fn append(&self, payload: &EncodedPayload) -> Result<Receipt> {
        payload.check_len()?;
        telemetry::append(self.dir.path()).within(|| {
            let seq = self.locked(|| {
                let seq = self.append_locked(payload)?;
                self.sync_in_lock(seq)?;
                Ok(seq)
            })?;
            self.acknowledge(seq)?;
            Ok(Receipt {
                seq,
                repeated: false,
            })
        })
    }

    /// Where no memory is shared, a record must be durable before the next holder of the lock sees it. It is in the log
    /// already: whatever fails now, it is not *rejected*.
    pub(crate) fn sync_in_lock(&self, seq: u64) -> Result<()> {
        let hints = self.hints();
        let is_durable = || {
            hints
                .durable_seq()
                .is_some_and(|durable_seq| durable_seq >= seq)
        };
        if self.options.durability == Durability::Synced && !hints.is_shared() && !is_durable() {
            written(seq, self.sync_locked(seq))?;
        }
        Ok(())
    }

    /// Makes a written record as durable as the options ask.
    pub(crate) fn acknowledge(&self, seq: u64) -> Result<()> {
        if self.options.durability == Durability::Synced && self.hints().is_shared() {
            written(seq, self.sync_to(seq))?;
        }
        Ok(())
    }

    /// What `word` says in the hints that everybody uses. Who has only looked at a page since it was deleted would
    /// see for ever what it said then, while others go on in the next one.
    pub(crate) fn look(&self, word: fn(&Hints) -> Option<u64>) -> u64 {
        let mut hints = self.hints();
        for _ in 0..LOOKS_MAX {
            // As long as the page is there, nobody goes on in another one.
            if hints.check().is_ok()
                && let Some(value) = word(&hints)
            {
                return value;
            }
            match self.mend() {
                Ok(mended) => hints = mended,
                Err(_) => break,
            }
        }
        self.glance(word)
    }

    /// What `word` says in the hints that are open here; others may have gone on in the next ones. 0 where they are cut.
    pub(crate) fn glance(&self, word: fn(&Hints) -> Option<u64>) -> u64 {
        let hints = self.hints();
        match hints.check() {
            Ok(()) | Err(PageError::Deleted { .. }) => word(&hints).unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Does `work` while holding the lock.
    pub(crate) fn locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let deadline = self.host().now() + self.options.lock_timeout;
        if seeded(Bug::NoLock) {
            return work();
        }
        let wait = telemetry::Clock::of_trace();
        let taken = self.lock.lock_until(deadline);
        let guard = taken.inspect_err(|error| telemetry::lock_not_taken(self.dir.path(), error))?;
        let (wait_us, hold) = (wait.us(), telemetry::Clock::of_trace());
        self.options.reached(Failpoint::LockHeld);
        let done = work();
        if done.is_err() && seeded(Bug::LockKeptAfterError) {
            std::mem::forget(guard);
            return done;
        }
        self.options.reached(Failpoint::BeforeUnlock);
        let freed = guard.unlock();
        telemetry::lock_held(wait_us, &hold);
        let done = done?;
        freed.map_err(|error| done_but_held(error, self.dir.path()))?;
        Ok(done)
    }

    fn raw(&self, through_seq: u64) -> Result<RawRecords> {
        let first_seq = self.manifest()?.first_seq;
        let end = self.end(through_seq);
        Ok(RawRecords::new(&self.dir, first_seq, end))
    }

    /// Where a read ends that is to reach this record.
    fn end(&self, through_seq: u64) -> End {
        // Without shared memory, nobody tells how far the others have come.
        if self.hints().is_shared() {
            End::Seq(through_seq)
        } else {
            End::LastValid(self.hints().durable_seq().unwrap_or(0))
        }
    }

    /// The manifest as it is now: a compaction replaces it.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        Manifest::required(&self.dir)
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.dir.host()
    }

    pub(crate) fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.hints.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the page anew, after its file was cut short or deleted.
    pub(crate) fn reopen_hints(&self) -> Result<Arc<Hints>> {
        let hints = Hints::shared(&self.dir, &self.store_id);
        let hints = Arc::new(hints.map_err(page_error)?);
        *self.hints.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&hints);
        Ok(hints)
    }

    /// The segment that begins with `first_seq`, opened once.
    pub(crate) fn segment(&self, first_seq: u64) -> Result<Segment> {
        let mut cached = self.cached_segment();
        if let Some(segment) = cached
            .as_ref()
            .filter(|segment| segment.first_seq == first_seq)
        {
            return Ok(segment.clone());
        }
        let name = segment_name(first_seq);
        let segment = Segment::new(first_seq, self.dir.open(&name, OpenMode::ReadWrite)?);
        *cached = Some(segment.clone());
        Ok(segment)
    }

    /// As [`Hints::poison_unless_synced`], and tells of it.
    pub(crate) fn poison_unless_synced<E: fmt::Display>(
        &self,
        hints: &Hints,
        seq: u64,
        synced: std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let synced = hints.poison_unless_synced(seq, synced);
        synced.inspect_err(|error| telemetry::sync_failed(self.dir.path(), seq, error))
    }

    /// Whether this process has the segment open already.
    pub(crate) fn has_open(&self, first_seq: u64) -> bool {
        self.cached_segment()
            .as_ref()
            .is_some_and(|segment| segment.first_seq == first_seq)
    }

    pub(crate) fn cached_segment(&self) -> MutexGuard<'_, Option<Segment>> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn memory_can_be_shared(dir: &StoreDir, options: &Options) -> Result<bool> {
    let filesystem = dir.host().filesystem(dir.path());
    let filesystem = filesystem.map_err(Error::io("examine", dir.path()))?;
    shares_memory(filesystem.kind, options).ok_or_else(|| Error::UnsafeFilesystem {
        path: dir.path().to_owned(),
        filesystem,
    })
}

/// Whether a store on such a filesystem shares memory between processes; `None` to refuse it.
fn shares_memory(kind: FilesystemKind, options: &Options) -> Option<bool> {
    match kind {
        FilesystemKind::Local => Some(options.share_memory),
        _ => options.allow_unsafe_filesystem.then_some(false),
    }
}

/// Makes `dir` a store. The caller holds the lock. Dying in here leaves an empty segment at the most.
fn create_store(dir: &StoreDir) -> Result<Manifest> {
    if !is_new(dir)? {
        return Err(manifest_missing(dir));
    }
    let manifest = Manifest::new(dir.host());
    drop(dir.create_new(&segment_name(manifest.first_seq))?);
    dir.sync()?;
    manifest.write(dir)?;
    Ok(manifest)
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
    let message = error.to_string();
    match error {
        PageError::Io { op, path, source } => Error::io(op, path)(source),
        PageError::Truncated { path, .. } | PageError::Deleted { path } => {
            Error::io("use", path)(io::Error::other(message))
        }
        error => Error::io("use", "shm")(io::Error::other(error)),
    }
}

/// What came of making a record durable that is in the log already.
fn written(seq: u64, synced: Result<()>) -> Result<()> {
    match synced {
        Err(error) if !matches!(error, Error::DurabilityUnknown { .. }) => {
            let reason = error.to_string();
            Err(Error::DurabilityUnknown { seq, reason })
        }
        synced => synced,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_that_others_reach_are_refused_unless_the_caller_insists() {
        let careful = Options::default();
        let insists = Options::default().allow_unsafe_filesystem(true);
        assert_eq!(shares_memory(FilesystemKind::Local, &careful), Some(true));
        for kind in [FilesystemKind::Network, FilesystemKind::UnknownFuse] {
            assert_eq!(shares_memory(kind, &careful), None);
            assert_eq!(shares_memory(kind, &insists), Some(false));
        }
        let alone = Options::default().share_memory(false);
        assert_eq!(shares_memory(FilesystemKind::Local, &alone), Some(false));
    }
}
