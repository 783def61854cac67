//! The calls of a virtual process: what `strand-core` sees of the machine.

use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use strand_core::{
    Counters, Filesystem, FilesystemKind, LockError,
    testing::{
        Dir, HeldLock, Host, OpenMode, Page, PageError, PageView, Storage, StorageFile, StoreLock,
    },
};

use crate::sim::disk::InodeId;
use crate::sim::machine::{Call, Doing, LockFile, PageFile, Place, Process, State, dead};
use crate::sim::page::{PageContent, Words};
use crate::sim::{INDEX_BLOCK_BYTES, START_MS};

/// The directory's inode.
fn inode_of(dir: &Dir) -> InodeId {
    InodeId::new(dir.number().unwrap_or(0))
}

fn shown(dir: &Dir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

impl Storage for Process {
    fn index_block_bytes(&self) -> u64 {
        INDEX_BLOCK_BYTES
    }

    fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        let opened = self.call(Call::OpenDir, &|| path.display().to_string(), |state| {
            state.disk.open_dir(path)
        });
        opened.map(|inode| Dir::simulated(path, inode.number()))
    }

    fn open_subdir(&self, dir: &Dir, name: &str) -> io::Result<Dir> {
        let opened = self.call(Call::OpenDir, &|| shown(dir, name), |state| {
            state.disk.open_dir_in(inode_of(dir), name)
        });
        opened.map(|inode| Dir::simulated(&dir.path().join(name), inode.number()))
    }

    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let call = if mode == OpenMode::CreateNew {
            Call::Create
        } else {
            Call::Open
        };
        let detail = || format!("{} {mode:?}", shown(dir, name));
        let mut reported = 0;
        let place = (inode_of(dir), name.to_owned());
        let what = self.call(call, &detail, |state| {
            if mode == OpenMode::CreateNew {
                self.must_hold(state, place.0, name, "create");
            }
            if let Some(page) = state.pages.get(&place) {
                return Ok(What::Page(page.clone()));
            }
            let inode = state.disk.open_in(place.0, name, mode)?;
            reported = state.failed_syncs.get(&inode).copied().unwrap_or(0);
            Ok(What::File(inode))
        })?;
        Ok(Box::new(VirtualFile {
            process: self.again(),
            what,
            reported: reported.into(),
            path: dir.path().join(name),
            place,
        }))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<String>> {
        let inode = inode_of(dir);
        let detail = || dir.path().display().to_string();
        let mut names = self.call(Call::List, &detail, |state| {
            let mut names = state.disk.list_in(inode)?;
            let special = state.pages.keys().chain(state.locks.keys());
            let special = special.filter(|(of, _)| *of == inode);
            names.extend(special.map(|(_, name)| name.clone()));
            Ok(names)
        })?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn create_dir(&self, dir: &Dir, name: &str) -> io::Result<()> {
        self.call(Call::CreateDir, &|| shown(dir, name), |state| {
            match state.disk.create_dir_in(inode_of(dir), name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                created => created.map(drop),
            }
        })
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> io::Result<()> {
        let inode = inode_of(dir);
        let detail = || format!("{} to {to}", shown(dir, from));
        self.call(Call::Rename, &detail, |state| {
            self.must_hold(state, inode, to, "rename");
            state.disk.rename_in((inode, from), (inode, to))
        })
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let place = (inode_of(dir), name.to_owned());
        self.call(Call::Remove, &|| shown(dir, name), |state| {
            self.must_hold(state, place.0, name, "remove");
            if state.pages.remove(&place).is_some() {
                return state.disk.touch_dir(place.0);
            }
            state.disk.remove_in(place.0, name)
        })
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        let detail = || dir.path().display().to_string();
        self.call(Call::SyncDir, &detail, |state| {
            state.disk.sync_dir_inode(inode_of(dir))
        })
    }

    fn identity_of(&self, dir: &Dir, name: &str) -> io::Result<(u64, u64)> {
        let place = (inode_of(dir), name.to_owned());
        self.call(Call::Examine, &|| shown(dir, name), |state| {
            let lock = state.locks.get(&place).map(|lock| lock.number);
            let page = || state.pages.get(&place).map(|page| page.number);
            match lock.or_else(page) {
                Some(number) => Ok(special_identity(number)),
                None => Ok(file_identity(state.disk.lookup_in(place.0, name)?)),
            }
        })
    }

    fn stamp(&self, dir: &Dir) -> io::Result<Option<u64>> {
        let detail = || dir.path().display().to_string();
        self.call(Call::Examine, &detail, |state| {
            state.disk.changed(inode_of(dir)).map(Some)
        })
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

fn file_identity(inode: InodeId) -> (u64, u64) {
    (1, inode.number())
}

/// Of a lock file or a page.
fn special_identity(number: u64) -> (u64, u64) {
    (2, number)
}

#[derive(Debug)]
enum What {
    File(InodeId),
    Page(PageFile),
}

#[derive(Debug)]
struct VirtualFile {
    process: Process,
    what: What,
    path: PathBuf,
    place: Place,
    /// How many failed syncs of the file this open file has reported.
    reported: AtomicU64,
}

impl VirtualFile {
    /// Notes it when a file is changed that still has its name, without the lock.
    fn must_hold(&self, state: &mut State, what: &str) {
        let (dir, name) = &self.place;
        let named = state.disk.lookup_in(*dir, name).ok();
        if matches!(self.what, What::File(inode) if named == Some(inode)) {
            self.process.must_hold(state, *dir, name, what);
        }
    }

    fn call<T>(
        &self,
        call: Call,
        detail: &dyn Fn() -> String,
        done: impl FnOnce(&mut State, InodeId) -> io::Result<T>,
    ) -> io::Result<T> {
        let detail = || format!("{} {}", self.path.display(), detail());
        self.process.call(call, &detail, |state| match &self.what {
            What::File(inode) => done(state, *inode),
            What::Page(_) => Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

impl Drop for VirtualFile {
    fn drop(&mut self) {
        if let What::File(inode) = self.what {
            self.process.shared.state().disk.close(inode);
        }
    }
}

impl StorageFile for VirtualFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buffer.len();
        let detail = || format!("{len} bytes at {offset}");
        self.call(Call::Read, &detail, |state, inode| {
            state.disk.read_at(inode, buffer, offset)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let What::Page(page) = &self.what {
            // Only ever cleared as a whole.
            drop(self.process.step(Call::Write, &|| "the page".to_owned()));
            page.words.clear();
            return Ok(bytes.len());
        }
        let What::File(inode) = self.what else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let detail = || format!("{} {} bytes at {offset}", self.path.display(), bytes.len());
        let (mut state, dies) = self.process.begin(Call::Write, &detail).ok_or_else(dead)?;
        self.must_hold(&mut state, "write");
        if dies {
            let part = state.rng.random_range(0..=bytes.len());
            state
                .disk
                .write_at(inode, bytes.get(..part).unwrap_or_default(), offset)
                .ok();
            self.process.end_here(state);
        }
        match state.fault(Call::Write) {
            None => state.disk.write_at(inode, bytes, offset),
            // Half of the failures come after a part was written, as a short write or as an error.
            Some(error) => {
                let part = match state.rng.random_range(0..4) {
                    0 | 1 => 0,
                    _ => state.rng.random_range(0..bytes.len().max(1)),
                };
                let part = bytes.get(..part).unwrap_or_default();
                let written = state.disk.write_at(inode, part, offset)?;
                if written > 0 && state.rng.random_bool(0.5) {
                    return Ok(written);
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let detail = || format!("to {len_bytes}");
        self.call(Call::SetLen, &detail, |state, inode| {
            self.must_hold(state, "set_len");
            state.disk.set_len(inode, len_bytes)
        })
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.call(Call::Len, &String::new, |state, inode| {
            state.disk.len_bytes(inode)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let detail = || self.path.display().to_string();
        let mut state = self.process.step(Call::Sync, &detail).ok_or_else(dead)?;
        let What::File(inode) = self.what else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        if let Some(error) = state.fault(Call::Sync) {
            state.disk.fail_sync(inode)?;
            let failed = state.failed_syncs.entry(inode).or_default();
            *failed += 1;
            self.reported.store(*failed, Ordering::Relaxed);
            return Err(error);
        }
        state.disk.sync_data(inode)?;
        let failed = state.failed_syncs.get(&inode).copied().unwrap_or(0);
        if self.reported.swap(failed, Ordering::Relaxed) < failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok(match &self.what {
            What::File(inode) => file_identity(*inode),
            What::Page(page) => special_identity(page.number),
        })
    }
}

impl Host for Process {
    fn open_lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn StoreLock>, LockError> {
        let lock = VirtualLock {
            process: self.again(),
            path: dir.path().join(name).into(),
            place: (inode_of(dir), name.to_owned()),
            number: AtomicU64::new(0),
        };
        lock.reopen()?;
        Ok(Box::new(lock))
    }

    fn open_page(
        &self,
        dir: &Dir,
        name: &str,
        _area_words: usize,
    ) -> Result<Box<dyn Page>, PageError> {
        let place = (inode_of(dir), name.to_owned());
        let page = self.call(Call::OpenPage, &String::new, |state| {
            if let Some(page) = state.pages.get(&place) {
                return Ok(page.clone());
            }
            state.disk.touch_dir(place.0)?;
            state.made += 1;
            let page = PageFile {
                number: state.made,
                words: Arc::new(Words::new(&PageContent::default())),
            };
            state.pages.insert(place.clone(), page.clone());
            Ok(page)
        });
        Ok(Box::new(self.page(page, dir, place)?))
    }

    fn open_page_to_read(&self, dir: &Dir, name: &str) -> Result<Box<dyn PageView>, PageError> {
        let place = (inode_of(dir), name.to_owned());
        let page = self.call(Call::OpenPage, &String::new, |state| {
            let page = state.pages.get(&place).cloned();
            page.ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        Ok(Box::new(self.page(page, dir, place)?))
    }

    fn filesystem(&self, _dir: &Dir) -> io::Result<Filesystem> {
        Ok(Filesystem::new(FilesystemKind::Local, "virtual"))
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.shared.boot)
    }

    fn now(&self) -> Instant {
        self.shared.base + Duration::from_nanos(self.shared.state().now_ns)
    }

    fn unix_ms(&self) -> i64 {
        let ms = self.shared.state().now_ns / 1_000_000;
        START_MS.saturating_add_unsigned(ms)
    }

    fn yield_now(&self) {
        drop(self.step(Call::GiveWay, &String::new));
    }

    fn sleep(&self, time: Duration) {
        if let Some(state) = self.step(Call::Sleep, &String::new) {
            let until_ns = state.now_ns + nanoseconds(time);
            drop(self.block(state, Doing::Sleeps { until_ns }));
        }
    }

    fn random(&self) -> u64 {
        self.shared.state().rng.random()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Process {
    /// The same process.
    fn again(&self) -> Process {
        Process {
            shared: Arc::clone(&self.shared),
            id: self.id,
        }
    }

    fn page(
        &self,
        page: io::Result<PageFile>,
        dir: &Dir,
        place: Place,
    ) -> Result<VirtualPage, PageError> {
        let path = dir.path().join(&place.1);
        let PageFile { number, words } = page.map_err(|source| PageError::Io {
            op: "open",
            path: path.clone(),
            source,
        })?;
        let opened = {
            let mut state = self.shared.state();
            state.made += 1;
            state.made
        };
        Ok(VirtualPage {
            process: self.again(),
            path,
            place,
            number,
            opened,
            words,
            nowhere: (AtomicU64::new(0), AtomicU32::new(0)),
        })
    }
}

#[derive(Debug)]
struct VirtualLock {
    process: Process,
    path: Arc<Path>,
    place: Place,
    /// Which lock file is open.
    number: AtomicU64,
}

impl VirtualLock {
    fn take(&self, deadline_ns: Option<u64>) -> Result<Box<dyn HeldLock + '_>, LockError> {
        let path = || self.path.display().to_string();
        let call = if deadline_ns.is_some() {
            Call::Lock
        } else {
            Call::TryLock
        };
        let failed = |source| LockError::Io {
            op: "lock",
            path: self.path.to_path_buf(),
            source,
        };
        let Some(mut state) = self.process.step(call, &path) else {
            return Err(failed(dead()));
        };
        let began_ns = state.now_ns;
        if let Some(error) = state.fault(call) {
            return Err(failed(error));
        }
        loop {
            let number = self.number.load(Ordering::SeqCst);
            if let Entry::Vacant(free) = state.holders.entry(number) {
                free.insert((self.process.id, self.place.clone()));
                let named = state.locks.get(&self.place);
                let named = named.filter(|lock| lock.number == number);
                let is_known = named.is_some_and(|lock| lock.is_known);
                return Ok(Box::new(Held {
                    lock: self,
                    number,
                    is_known,
                }));
            }
            let Some(until_ns) = deadline_ns else {
                let path = Arc::clone(&self.path);
                return Err(LockError::Contended { path });
            };
            if until_ns <= state.now_ns {
                return Err(LockError::Timeout {
                    path: self.path.to_path_buf(),
                    waited: Duration::from_nanos(state.now_ns - began_ns),
                    holder: None,
                });
            }
            let lock = number;
            state = self
                .process
                .block(state, Doing::WaitsForLock { lock, until_ns });
        }
    }
}

impl StoreLock for VirtualLock {
    fn lock_until(&self, deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        let until = deadline.saturating_duration_since(self.process.shared.base);
        self.take(Some(nanoseconds(until)))
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        self.take(None)
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn identity(&self) -> (u64, u64) {
        special_identity(self.number.load(Ordering::SeqCst))
    }

    fn reopen(&self) -> Result<(), LockError> {
        let detail = || self.path.display().to_string();
        let opened = self.process.call(Call::Open, &detail, |state| {
            let (dir, place) = (self.place.0, self.place.clone());
            let number = match state.locks.entry(place) {
                Entry::Occupied(lock) => lock.get().number,
                Entry::Vacant(missing) => {
                    state.disk.touch_dir(dir)?;
                    state.made += 1;
                    let (number, is_known) = (state.made, false);
                    missing.insert(LockFile { number, is_known }).number
                }
            };
            self.number.store(number, Ordering::SeqCst);
            Ok(())
        });
        opened.map_err(|source| LockError::Io {
            op: "open",
            path: self.path.to_path_buf(),
            source,
        })
    }
}

struct Held<'a> {
    lock: &'a VirtualLock,
    number: u64,
    is_known: bool,
}

impl HeldLock for Held<'_> {
    fn is_known(&self) -> bool {
        self.is_known
    }

    fn mark_known(&self) {
        let process = &self.lock.process;
        if let Some(mut state) = process.step(Call::Word, &|| "known".to_owned())
            && let Some(lock) = state.locks.get_mut(&self.lock.place)
            && lock.number == self.number
        {
            lock.is_known = true;
        }
    }

    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        drop(self.lock.process.step(Call::Unlock, &String::new));
        Ok(()) // Freed by being dropped.
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let process = &self.lock.process;
        let mut state = process.shared.state();
        let holder = state.holders.get(&self.number);
        if holder.is_some_and(|(holder, _)| *holder == process.id) {
            state.holders.remove(&self.number);
        }
    }
}

#[derive(Debug)]
struct VirtualPage {
    process: Process,
    path: PathBuf,
    place: Place,
    number: u64,
    /// Which open page this is.
    opened: u64,
    words: Arc<Words>,
    /// The target of a dead process's writes.
    nowhere: (AtomicU64, AtomicU32),
}

impl VirtualPage {
    fn wake(&self, index: usize, most: usize) {
        let Some(mut state) = self.process.step(Call::Wake, &|| index.to_string()) else {
            return;
        };
        let sleepers = state.processes.iter_mut().filter(|process| {
            matches!(
                &process.doing,
                Doing::WaitsForWord { page, index: at, .. } if *at == index && *page == self.number
            )
        });
        for sleeper in sleepers.take(most) {
            sleeper.doing = Doing::Runs;
        }
    }
}

impl Page for VirtualPage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        let alive = self
            .process
            .step(Call::Word, &|| index.to_string())
            .is_some();
        let word = self.words.wide(index).filter(|_| alive);
        word.unwrap_or(&self.nowhere.0)
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        let alive = self
            .process
            .step(Call::Word, &|| format!("narrow {index}"))
            .is_some();
        let word = self.words.narrow(index).filter(|_| alive);
        word.unwrap_or(&self.nowhere.1)
    }

    fn area(&self) -> &[AtomicU64] {
        self.words.area()
    }

    fn area_word(&self, index: usize) -> &AtomicU64 {
        let step = self.process.step(Call::Word, &|| format!("area {index}"));
        let word = self.words.area().get(index).filter(|_| step.is_some());
        word.unwrap_or(&self.nowhere.0)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        let Some(state) = self.process.step(Call::Wait, &|| index.to_string()) else {
            return;
        };
        let now = self.words.narrow(index);
        let now = now.map(|word| word.load(Ordering::SeqCst));
        if now != Some(expected) || timeout.is_zero() {
            return;
        }
        let until_ns = state.now_ns.saturating_add(nanoseconds(timeout));
        drop(self.process.block(
            state,
            Doing::WaitsForWord {
                page: self.number,
                index,
                until_ns,
            },
        ));
    }

    fn wake_one(&self, index: usize) {
        self.wake(index, 1);
    }

    fn wake_all(&self, index: usize) {
        self.wake(index, usize::MAX);
    }

    fn check(&self) -> Result<(), PageError> {
        let Some(state) = self.process.step(Call::CheckPage, &String::new) else {
            return Ok(());
        };
        let named = state.pages.get(&self.place);
        if named.is_some_and(|page| page.number == self.number) {
            return Ok(());
        }
        Err(PageError::Deleted {
            path: self.path.clone(),
        })
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok(special_identity(self.number))
    }

    fn made_ns(&self) -> u64 {
        0
    }

    fn claim(&self, number: u64) -> bool {
        let Some(mut state) = self.process.step(Call::Word, &|| format!("claim {number}")) else {
            return false;
        };
        let me = (self.process.id, self.opened);
        *state.claims.entry((self.number, number)).or_insert(me) == me
    }

    fn is_claimed(&self, number: u64) -> bool {
        let detail = || format!("claimed {number}?");
        let Some(state) = self.process.step(Call::Word, &detail) else {
            return false;
        };
        let claimer = state.claims.get(&(self.number, number));
        claimer.is_some_and(|claimer| *claimer != (self.process.id, self.opened))
    }
}

impl Drop for VirtualPage {
    fn drop(&mut self) {
        let me = (self.process.id, self.opened);
        let mut state = self.process.shared.state();
        state.claims.retain(|_, claimer| *claimer != me);
    }
}
