//! A machine in memory on which one process at a time uses a store: the files of a [`VirtualDisk`],
//! locks that are free unless held, a shared page of plain atomics, and a clock that moves when it
//! is read. It counts the calls, makes chosen ones fail, and remembers the disk and the page after
//! each of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use strand_core::{
    Counters, Filesystem, FilesystemKind, LockError,
    testing::{
        Dir, Failpoint, FailpointHook, HeldLock, Host, OpenMode, Page, PageError, PageView,
        Storage, StorageFile, StoreLock,
    },
};
use strand_lock::SharedPage;

use crate::sim::disk::{InodeId, VirtualDisk};
use crate::sim::page::{PageContent, Words};
use crate::sim::{INDEX_BLOCK_BYTES, START_MS};

/// The time that passes with each look at the clock.
const TICK_NS: u64 = 5_000;
/// More calls than any workload, or any operation on a small store, needs. Later calls all fail, so
/// that an endless loop ends.
pub const CALLS_MAX: u64 = 200_000;
/// Faults of a run after which calls are no longer cut short: a file that is written byte by byte
/// costs as much as ten thousand other cases, and shows no more.
const SHORTS_MAX: u64 = 64;

/// A call of the storage or of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A file is opened.
    Open,
    /// A file is created.
    Create,
    /// The names in a directory are asked for.
    List,
    /// A directory is opened.
    OpenDir,
    /// A name is looked up, or it is asked whether names changed.
    Examine,
    /// A directory is created.
    CreateDir,
    /// A file is renamed.
    Rename,
    /// A file is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file is cut or lengthened.
    SetLen,
    /// A file's length is asked for.
    Len,
    /// A file is synced.
    Sync,
    /// A lock file is opened.
    OpenLock,
    /// The shared page is opened.
    OpenPage,
    /// Not a call: a named step of the log.
    Step,
}

/// An error of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the system's")]
pub enum Errno {
    Eio,
    Enospc,
    Edquot,
    Eintr,
    Eagain,
    Erofs,
    Emfile,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Eio,
        Self::Enospc,
        Self::Edquot,
        Self::Eintr,
        Self::Eagain,
        Self::Erofs,
        Self::Emfile,
    ];

    fn error(self) -> io::Error {
        let number = match self {
            Self::Eio => 5,
            Self::Enospc => 28,
            Self::Edquot if cfg!(target_os = "linux") => 122,
            Self::Edquot => 69,
            Self::Eintr => 4,
            Self::Eagain if cfg!(target_os = "linux") => 11,
            Self::Eagain => 35,
            Self::Erofs => 30,
            Self::Emfile => 24,
        };
        io::Error::from_raw_os_error(number)
    }
}

/// How much of a read or a write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Short {
    Nothing,
    One,
    Half,
    AllButOne,
}

impl Short {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::One, Self::Half, Self::AllButOne];

    fn of(self, len: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One => len.min(1),
            Self::Half => len / 2,
            Self::AllButOne => len.saturating_sub(1),
        }
    }
}

/// The way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It fails and does nothing, but that a sync which fails has pages taken for clean.
    Fails(Errno),
    /// A read or a write does only a part. A read is never cut to nothing: that would mean the end
    /// of the file.
    Short(Short),
    /// It does all, and says that it failed.
    Lies(Errno),
}

impl Fault {
    /// Whether such a call can fail in this way.
    #[must_use]
    pub fn applies_to(self, call: Call) -> bool {
        match (self, call) {
            (_, Call::Step) => false,
            (Self::Fails(_), _) | (Self::Short(_), Call::Write) => true,
            (Self::Short(short), Call::Read) => short != Short::Nothing,
            (Self::Lies(_), _) => matches!(
                call,
                Call::Create
                    | Call::CreateDir
                    | Call::Rename
                    | Call::Remove
                    | Call::SyncDir
                    | Call::Write
                    | Call::SetLen
                    | Call::Sync
            ),
            (Self::Short(_), _) => false,
        }
    }
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// One call.
    Once,
    /// All calls of that kind from then on.
    Kind,
    /// All calls from then on.
    All,
}

/// A fault at a call, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FaultAt {
    /// Which call.
    pub call: u64,
    /// The way in which it fails.
    pub fault: Fault,
    /// How long.
    pub reach: Reach,
}

/// The machine after a call.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The call, counted from 0.
    pub call: u64,
    /// Its kind.
    pub what: Call,
    /// The last [`Solo::set_position`].
    pub position: usize,
    /// The disk after it.
    pub disk: VirtualDisk,
    /// The shared page after it, once it was opened.
    pub page: Option<Arc<PageContent>>,
}

/// A machine; clones are the same one.
#[derive(Clone)]
pub struct Solo(Arc<Machine>);

struct Machine {
    state: Mutex<State>,
    boot: String,
    started: Instant,
    clock_ns: AtomicU64,
    random: Mutex<SmallRng>,
}

#[derive(Debug)]
struct State {
    disk: VirtualDisk,
    page: Option<Arc<Words>>,
    locks: BTreeMap<PathBuf, Arc<LockState>>,
    /// How often a sync of each file failed.
    failed_syncs: BTreeMap<InodeId, u64>,
    calls: u64,
    /// The kinds of all calls, where they are wanted.
    kinds: Option<Vec<Call>>,
    faults: Vec<FaultAt>,
    /// Faults that go on, with the kind that they are for.
    lasting: Vec<(Fault, Option<Call>)>,
    faults_hit: u64,
    position: usize,
    moments: Option<Vec<Moment>>,
}

/// The way in which a call is to be done.
enum Order {
    Do,
    Fail(Errno),
    Part(Short),
    DoAndFail(Errno),
}

impl fmt::Debug for Solo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Solo")
            .field("boot", &self.0.boot)
            .finish_non_exhaustive()
    }
}

impl Solo {
    /// A machine with this disk, started for the `boot`th time. `page` is the content of the shared
    /// page's file.
    #[must_use]
    pub fn new(disk: VirtualDisk, page: Option<&PageContent>, boot: u32, seed: u64) -> Self {
        static STARTED: OnceLock<Instant> = OnceLock::new();
        let state = State {
            disk,
            page: page.map(|page| Arc::new(Words::new(page))),
            locks: BTreeMap::new(),
            failed_syncs: BTreeMap::new(),
            calls: 0,
            kinds: None,
            faults: Vec::new(),
            lasting: Vec::new(),
            faults_hit: 0,
            position: 0,
            moments: None,
        };
        Self(Arc::new(Machine {
            state: Mutex::new(state),
            boot: boot.to_string(),
            started: *STARTED.get_or_init(Instant::now),
            clock_ns: AtomicU64::new(0),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts recording the moments after each call that changes anything, and the kinds of all
    /// calls.
    pub fn record(&self) {
        let mut state = self.state();
        state.moments = Some(Vec::new());
        state.kinds = Some(Vec::new());
    }

    /// The recorded moments.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Moment> {
        self.state().moments.take().unwrap_or_default()
    }

    /// The kinds of all calls, by their numbers.
    #[must_use]
    pub fn take_kinds(&self) -> Vec<Call> {
        self.state().kinds.take().unwrap_or_default()
    }

    /// Remembers the present moment, as one of which `position` is true.
    pub fn set_position(&self, position: usize) {
        let mut state = self.state();
        state.position = position;
        state.remember(Call::Step);
    }

    /// The last [`Solo::set_position`].
    #[must_use]
    pub fn position(&self) -> usize {
        self.state().position
    }

    /// How many moments are remembered.
    #[must_use]
    pub fn moments(&self) -> usize {
        self.state().moments.as_ref().map_or(0, Vec::len)
    }

    /// Kills the process at the moment with this number, and forgets the moments after it. The
    /// caller must drop what it has open here first.
    pub fn die_at(&self, number: usize) {
        let mut state = self.state();
        let moments = state.moments.as_mut();
        let Some(moment) = moments.and_then(|moments| {
            moments.truncate(number + 1);
            moments.last().cloned()
        }) else {
            return;
        };
        state.disk = moment.disk;
        state.disk.close_all();
        let page = moment.page.as_deref();
        state.page = page.map(|page| Arc::new(Words::new(page)));
        state.position = moment.position;
        state.locks.clear();
    }

    /// The disk as it is.
    #[must_use]
    pub fn disk(&self) -> VirtualDisk {
        self.state().disk.clone()
    }

    /// The shared page as it is.
    #[must_use]
    pub fn page(&self) -> Option<PageContent> {
        self.state().page.as_ref().map(|words| words.content())
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Has calls fail; instead of what was said before.
    pub fn set_faults(&self, faults: &[FaultAt]) {
        let mut state = self.state();
        state.faults = faults.to_vec();
        state.lasting.clear();
    }

    /// How many calls did not do what they should.
    #[must_use]
    pub fn faults_hit(&self) -> u64 {
        self.state().faults_hit
    }

    fn tick(&self, ns: u64) -> u64 {
        self.0.clock_ns.fetch_add(ns, Ordering::Relaxed) + ns
    }

    /// Maps the page, and creates it or makes its file long enough where the caller may write.
    fn map(&self, path: &Path, writes: bool) -> Result<SoloPage, PageError> {
        let mut state = self.state();
        let opened = state.look(Call::OpenPage, |_| Ok(()));
        if state.page.is_none() && opened.is_ok() && writes {
            state.page = Some(Arc::new(Words::new(&PageContent::default())));
        }
        let words = state.page.clone();
        let words = opened.and_then(|()| words.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let words = words.map_err(|source| PageError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })?;
        let page = SoloPage {
            words,
            path: path.to_owned(),
            machine: self.clone(),
        };
        page.words.len_bytes(writes);
        Page::check(&page)?;
        Ok(page)
    }
}

impl State {
    /// Counts a call, and says what it is to do.
    fn enter(&mut self, what: Call) -> Order {
        let number = self.calls;
        self.calls += 1;
        if let Some(kinds) = &mut self.kinds {
            kinds.push(what);
        }
        if number >= CALLS_MAX {
            return Order::Fail(Errno::Eio);
        }
        if self.faults.is_empty() && self.lasting.is_empty() {
            return Order::Do;
        }
        let here = self.faults.iter().find(|at| at.call == number).copied();
        if let Some(FaultAt { fault, reach, .. }) = here {
            match reach {
                Reach::Once => {}
                Reach::Kind => self.lasting.push((fault, Some(what))),
                Reach::All => self.lasting.push((fault, None)),
            }
        }
        let lasting = self
            .lasting
            .iter()
            .find(|(_, kind)| kind.is_none_or(|kind| kind == what));
        let fault = here
            .map(|at| at.fault)
            .or(lasting.map(|(fault, _)| *fault))
            .filter(|fault| fault.applies_to(what))
            .filter(|fault| !matches!(fault, Fault::Short(_)) || self.faults_hit < SHORTS_MAX);
        self.faults_hit += u64::from(fault.is_some());
        match fault {
            None => Order::Do,
            Some(Fault::Fails(errno)) => Order::Fail(errno),
            Some(Fault::Short(short)) => Order::Part(short),
            Some(Fault::Lies(errno)) => Order::DoAndFail(errno),
        }
    }

    fn remember(&mut self, what: Call) {
        let (call, position) = (self.calls.saturating_sub(1), self.position);
        let Some(moments) = &mut self.moments else {
            return;
        };
        let page = self.page.as_ref().map(|words| words.content());
        let last = moments.last();
        let same = last.and_then(|last| last.page.as_ref()).filter(|same| {
            page.as_ref()
                .is_some_and(|page| page == AsRef::<PageContent>::as_ref(*same))
        });
        if what == Call::Step
            && last.is_some_and(|last| last.position == position)
            && (same.is_some() || page.is_none())
        {
            return; // Nothing has changed.
        }
        let page = same.cloned().or_else(|| page.map(Arc::new));
        let disk = self.disk.clone();
        moments.push(Moment {
            call,
            what,
            position,
            disk,
            page,
        });
    }

    /// Carries out a call that changes something.
    fn change<T>(
        &mut self,
        what: Call,
        change: impl FnOnce(&mut VirtualDisk) -> io::Result<T>,
    ) -> io::Result<T> {
        self.remember(Call::Step);
        let order = self.enter(what);
        let done = match order {
            Order::Fail(errno) => Err(errno.error()),
            Order::Do | Order::Part(_) => change(&mut self.disk),
            Order::DoAndFail(errno) => change(&mut self.disk).and_then(|_| Err(errno.error())),
        };
        self.remember(what);
        done
    }

    /// Carries out a call that changes nothing.
    fn look<T>(
        &mut self,
        what: Call,
        look: impl FnOnce(&mut VirtualDisk) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.enter(what) {
            Order::Fail(errno) | Order::DoAndFail(errno) => Err(errno.error()),
            Order::Do | Order::Part(_) => look(&mut self.disk),
        }
    }
}

fn inode_of(dir: &Dir) -> InodeId {
    InodeId::new(dir.number().unwrap_or(0))
}

impl Storage for Solo {
    fn index_block_bytes(&self) -> u64 {
        INDEX_BLOCK_BYTES
    }

    fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        let open = |disk: &mut VirtualDisk| disk.open_dir(path);
        let opened = self.state().look(Call::OpenDir, open);
        opened.map(|inode| Dir::simulated(path, inode.number()))
    }

    fn open_subdir(&self, dir: &Dir, name: &str) -> io::Result<Dir> {
        let open = |disk: &mut VirtualDisk| disk.open_dir_in(inode_of(dir), name);
        let opened = self.state().look(Call::OpenDir, open);
        opened.map(|inode| Dir::simulated(&dir.path().join(name), inode.number()))
    }

    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let open = |disk: &mut VirtualDisk| disk.open_in(inode_of(dir), name, mode);
        let mut state = self.state();
        let inode = match mode {
            OpenMode::CreateNew => state.change(Call::Create, open)?,
            OpenMode::Read | OpenMode::ReadWrite => state.look(Call::Open, open)?,
        };
        let reported = state.failed_syncs.get(&inode).copied().unwrap_or(0);
        Ok(Box::new(SoloFile {
            machine: self.clone(),
            inode,
            reported: AtomicU64::new(reported),
        }))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<String>> {
        let list = |disk: &mut VirtualDisk| disk.list_in(inode_of(dir));
        self.state().look(Call::List, list)
    }

    fn create_dir(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let create = |disk: &mut VirtualDisk| match disk.create_dir_in(inode_of(dir), name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created.map(drop),
        };
        self.state().change(Call::CreateDir, create)
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> io::Result<()> {
        let dir = inode_of(dir);
        let rename = |disk: &mut VirtualDisk| disk.rename_in((dir, from), (dir, to));
        self.state().change(Call::Rename, rename)
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if name == PAGE && state.page.is_some() {
            state.change(Call::Remove, |_| Ok(()))?;
            state.page = None;
            return Ok(());
        }
        let remove = |disk: &mut VirtualDisk| disk.remove_in(inode_of(dir), name);
        state.change(Call::Remove, remove)
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        let sync = |disk: &mut VirtualDisk| disk.sync_dir_inode(inode_of(dir));
        self.state().change(Call::SyncDir, sync)
    }

    fn identity_of(&self, dir: &Dir, name: &str) -> io::Result<(u64, u64)> {
        let mut state = self.state();
        let is_there = match name {
            PAGE => state.page.is_some(),
            _ => state.locks.contains_key(&dir.path().join(name)),
        };
        state.look(Call::Examine, |disk| {
            if is_there {
                return Ok(SPECIAL);
            }
            Ok((1, disk.lookup_in(inode_of(dir), name)?.number()))
        })
    }

    fn stamp(&self, dir: &Dir) -> io::Result<Option<u64>> {
        let changed = |disk: &mut VirtualDisk| disk.changed(inode_of(dir));
        self.state().look(Call::Examine, changed).map(Some)
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

/// The name of the page.
const PAGE: &str = "shm";
/// The identity of the page and of every lock: none is ever replaced.
const SPECIAL: (u64, u64) = (1, 1);

#[derive(Debug)]
struct SoloFile {
    machine: Solo,
    inode: InodeId,
    /// How many failed syncs of the file this open file has reported. Each one that happened while
    /// it was open is reported once, by its next sync, as on Linux.
    reported: AtomicU64,
}

impl Drop for SoloFile {
    fn drop(&mut self) {
        self.machine.state().disk.close(self.inode);
    }
}

impl StorageFile for SoloFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.machine.state();
        let len = match state.enter(Call::Read) {
            Order::Do => buffer.len(),
            Order::Fail(errno) | Order::DoAndFail(errno) => return Err(errno.error()),
            Order::Part(short) => {
                // Of what is there, but at least a byte: nothing would be the end of the file.
                let there = state.disk.len_bytes(self.inode)?.saturating_sub(offset);
                let there = usize::try_from(there).unwrap_or(usize::MAX);
                short.of(there.min(buffer.len())).max(1)
            }
        };
        let len = len.min(buffer.len());
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        state.disk.read_at(self.inode, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.machine.state();
        state.remember(Call::Step);
        let (len, error) = match state.enter(Call::Write) {
            Order::Do => (bytes.len(), None),
            Order::Fail(errno) => (0, Some(errno)),
            Order::Part(short) => (short.of(bytes.len()), None),
            Order::DoAndFail(errno) => (bytes.len(), Some(errno)),
        };
        let part = bytes.get(..len).unwrap_or_default();
        let written = state.disk.write_at(self.inode, part, offset);
        state.remember(Call::Write);
        match error {
            Some(errno) => Err(errno.error()),
            None => written,
        }
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let set_len = |disk: &mut VirtualDisk| disk.set_len(self.inode, len_bytes);
        self.machine.state().change(Call::SetLen, set_len)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let len = |disk: &mut VirtualDisk| disk.len_bytes(self.inode);
        self.machine.state().look(Call::Len, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.machine.state();
        state.remember(Call::Step);
        let order = state.enter(Call::Sync);
        let failed = state.failed_syncs.get(&self.inode).copied().unwrap_or(0);
        let unreported = self.reported.swap(failed, Ordering::Relaxed) < failed;
        let done = match order {
            Order::Do | Order::Part(_) => state.disk.sync_data(self.inode).and_then(|()| {
                if unreported {
                    return Err(Errno::Eio.error());
                }
                Ok(())
            }),
            Order::Fail(errno) => {
                state.failed_syncs.insert(self.inode, failed + 1);
                self.reported.store(failed + 1, Ordering::Relaxed);
                let failed = state.disk.fail_sync(self.inode);
                failed.and_then(|()| Err(errno.error()))
            }
            Order::DoAndFail(errno) => {
                let synced = state.disk.sync_data(self.inode);
                synced.and_then(|()| Err(errno.error()))
            }
        };
        state.faults_hit += u64::from(unreported);
        state.remember(Call::Sync);
        done
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((1, self.inode.number()))
    }
}

impl FailpointHook for Solo {
    fn reached(&self, _point: Failpoint) {
        self.state().remember(Call::Step);
    }
}

impl Host for Solo {
    fn open_lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn StoreLock>, LockError> {
        let path = dir.path().join(name);
        let mut state = self.state();
        let opened = state.look(Call::OpenLock, |_| Ok(()));
        opened.map_err(|source| LockError::Io {
            op: "open",
            path: path.clone(),
            source,
        })?;
        let held = state.locks.entry(path.clone()).or_default();
        let held = Arc::clone(held);
        Ok(Box::new(SoloLock { path, held }))
    }

    fn open_page(
        &self,
        dir: &Dir,
        name: &str,
        _area_words: usize,
    ) -> Result<Box<dyn Page>, PageError> {
        Ok(Box::new(self.map(&dir.path().join(name), true)?))
    }

    fn open_page_to_read(&self, dir: &Dir, name: &str) -> Result<Box<dyn PageView>, PageError> {
        Ok(Box::new(self.map(&dir.path().join(name), false)?))
    }

    fn filesystem(&self, _dir: &Dir) -> io::Result<Filesystem> {
        Ok(Filesystem::new(FilesystemKind::Local, "memory"))
    }

    fn boot_id(&self) -> String {
        self.0.boot.clone()
    }

    fn now(&self) -> Instant {
        self.0.started + Duration::from_nanos(self.tick(TICK_NS))
    }

    fn unix_ms(&self) -> i64 {
        let ms = self.tick(TICK_NS) / 1_000_000;
        START_MS.saturating_add_unsigned(ms)
    }

    fn yield_now(&self) {}

    fn sleep(&self, time: Duration) {
        self.tick(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4));
    }

    fn random(&self) -> u64 {
        let random = self.0.random.lock();
        random.unwrap_or_else(PoisonError::into_inner).random()
    }
}

#[derive(Debug)]
struct SoloLock {
    path: PathBuf,
    held: Arc<LockState>,
}

#[derive(Debug, Default)]
struct LockState {
    held: AtomicBool,
    known: AtomicBool,
}

struct SoloHeld(Arc<LockState>);

impl Drop for SoloHeld {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::SeqCst);
    }
}

impl HeldLock for SoloHeld {
    fn is_known(&self) -> bool {
        self.0.known.load(Ordering::SeqCst)
    }

    fn mark_known(&self) {
        self.0.known.store(true, Ordering::SeqCst);
    }

    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        Ok(())
    }
}

impl StoreLock for SoloLock {
    /// Does not wait: only the caller could free the lock.
    fn lock_until(&self, _deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        self.try_lock().map_err(|_| LockError::Timeout {
            path: self.path.clone(),
            waited: Duration::ZERO,
            holder: None,
        })
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        if self.held.held.swap(true, Ordering::SeqCst) {
            let path = self.path.as_path().into();
            return Err(LockError::Contended { path });
        }
        Ok(Box::new(SoloHeld(Arc::clone(&self.held))))
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn identity(&self) -> (u64, u64) {
        SPECIAL
    }

    fn reopen(&self) -> Result<(), LockError> {
        Ok(())
    }
}

#[derive(Debug)]
struct SoloPage {
    words: Arc<Words>,
    path: PathBuf,
    machine: Solo,
}

impl Page for SoloPage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        let word = self.words.wide(index);
        word.unwrap_or_else(|| unreachable!("the page has no word {index}"))
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        let word = self.words.narrow(index);
        word.unwrap_or_else(|| unreachable!("the page has no word {index}"))
    }

    fn wait(&self, _index: usize, _expected: u32, timeout: Duration) {
        self.machine.sleep(timeout);
    }

    fn wake_one(&self, _index: usize) {}

    fn wake_all(&self, _index: usize) {}

    fn check(&self) -> Result<(), PageError> {
        let len = self.words.len_bytes(false);
        if len < SharedPage::BYTES {
            return Err(PageError::Truncated {
                path: self.path.clone(),
                len_bytes: len as u64,
            });
        }
        Ok(())
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok(SPECIAL)
    }

    fn made_ns(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Dir {
        Dir::simulated(Path::new("/"), InodeId::ROOT.number())
    }

    /// A machine with a file of three bytes, which are durable.
    fn machine() -> (Solo, Box<dyn StorageFile>) {
        let machine = Solo::new(VirtualDisk::new(), None, 1, 1);
        let file = machine.open(&root(), "f", OpenMode::CreateNew).unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.sync_data().unwrap();
        machine.sync_dir(&root()).unwrap();
        (machine, file)
    }

    fn at(machine: &Solo, fault: Fault, reach: Reach) {
        let call = machine.calls();
        machine.set_faults(&[FaultAt { call, fault, reach }]);
    }

    fn text(file: &dyn StorageFile) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        let len = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_call_fails_once_or_from_then_on() {
        let (machine, file) = machine();
        at(&machine, Fault::Fails(Errno::Enospc), Reach::Once);
        let error = file.write_at(b"x", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.write_at(b"x", 0).unwrap(), 1);

        at(&machine, Fault::Fails(Errno::Eio), Reach::Kind);
        assert!(file.set_len(1).is_err() && file.set_len(1).is_err());
        assert_eq!(file.write_at(b"y", 0).unwrap(), 1);

        at(&machine, Fault::Fails(Errno::Eio), Reach::All);
        assert!(file.len_bytes().is_err() && file.write_at(b"z", 0).is_err());
        assert!(machine.open(&root(), "f", OpenMode::Read).is_err());
        machine.set_faults(&[]);
        assert_eq!(text(file.as_ref()), b"ybc");
        assert_eq!(machine.faults_hit(), 6);
    }

    #[test]
    fn reads_and_writes_are_short_but_no_read_says_that_the_file_ends() {
        let (machine, file) = machine();
        let mut bytes = [0; 8];
        for (short, len) in [(Short::One, 1), (Short::Half, 1), (Short::AllButOne, 2)] {
            at(&machine, Fault::Short(short), Reach::Once);
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), len);
        }
        at(&machine, Fault::Short(Short::Nothing), Reach::Once);
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 3);
        for (short, len) in [(Short::Nothing, 0), (Short::Half, 2), (Short::AllButOne, 3)] {
            at(&machine, Fault::Short(short), Reach::Once);
            assert_eq!(file.write_at(b"1234", 3).unwrap(), len);
        }
        assert_eq!(text(file.as_ref()), b"abc123");
    }

    #[test]
    fn a_call_that_lies_is_done_and_reports_a_failure() {
        let (machine, file) = machine();
        at(&machine, Fault::Lies(Errno::Eio), Reach::Once);
        assert!(file.write_at(b"x", 0).is_err());
        assert_eq!(text(file.as_ref()), b"xbc");
        at(&machine, Fault::Lies(Errno::Eio), Reach::Once);
        assert!(file.sync_data().is_err());
        assert_eq!(machine.disk().pending(), 0);
    }

    #[test]
    fn every_open_file_reports_a_failed_sync_once() {
        let (machine, file) = machine();
        let other = machine.open(&root(), "f", OpenMode::ReadWrite).unwrap();
        file.write_at(b"x", 0).unwrap();
        at(&machine, Fault::Fails(Errno::Eio), Reach::Once);
        assert!(file.sync_data().is_err());
        let late = machine.open(&root(), "f", OpenMode::ReadWrite).unwrap();
        assert!(late.sync_data().is_ok() && file.sync_data().is_ok());
        assert!(other.sync_data().is_err());
        assert!(other.sync_data().is_ok());
        assert_eq!(machine.disk().pending(), 1);
    }

    #[test]
    fn each_call_that_changes_something_is_a_moment_and_a_death_goes_back_to_one() {
        let (machine, file) = machine();
        machine.record();
        machine.set_position(3);
        file.write_at(b"x", 0).unwrap();
        text(file.as_ref());
        file.sync_data().unwrap();
        assert_eq!(machine.moments(), 3);
        drop(file);
        machine.die_at(1);
        assert_eq!(machine.disk().pending(), 1);
        let moments = machine.take_moments();
        let seen: Vec<_> = moments.iter().map(|one| (one.what, one.position)).collect();
        assert_eq!(seen, [(Call::Step, 3), (Call::Write, 3)]);
        assert_eq!(machine.take_kinds(), [Call::Write, Call::Read, Call::Sync]);
    }

    #[test]
    fn a_lock_excludes_and_a_page_is_shared() {
        let (machine, _file) = machine();
        let lock = machine.open_lock(&root(), "lock").unwrap();
        let other = machine.open_lock(&root(), "lock").unwrap();
        let held = lock.try_lock().unwrap();
        assert!(other.try_lock().is_err());
        assert!(other.lock_until(machine.now()).is_err());
        held.unlock().unwrap();
        assert!(other.try_lock().is_ok());

        assert!(machine.open_page_to_read(&root(), "shm").is_err());
        let page = machine.open_page(&root(), "shm", 0).unwrap();
        page.u64(16).store(5 << 16, Ordering::SeqCst);
        let view = machine.open_page_to_read(&root(), "shm").unwrap();
        assert_eq!(view.load_u64(16), 5 << 16);
        let content = machine.page().unwrap();
        assert_eq!(content.durable_seq(), 5);
        let again = Solo::new(VirtualDisk::new(), Some(&content), 2, 1);
        assert_eq!(again.page(), Some(content));
    }

    #[test]
    fn time_passes_with_each_look_at_the_clock_and_each_wait() {
        let (machine, _file) = machine();
        let before = machine.now();
        machine.sleep(Duration::from_secs(3));
        assert!(machine.now() - before > Duration::from_secs(3));
        assert_ne!(machine.random(), machine.random());
    }
}
