//! The calls of a virtual process: what `strand-core` sees of the machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use strand_core::{
    Counters, Filesystem, FilesystemKind, LockError,
    testing::{
        HeldLock, Host, OpenMode, Page, PageError, PageView, Storage, StorageFile, StoreLock,
    },
};

use crate::sim::START_MS;
use crate::sim::disk::InodeId;
use crate::sim::machine::{Call, Doing, Process, State, dead};
use crate::sim::page::{PageContent, Words};

impl Storage for Process {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let call = if mode == OpenMode::CreateNew {
            Call::Create
        } else {
            Call::Open
        };
        let detail = || format!("{} {mode:?}", path.display());
        let mut reported = 0;
        let what = self.call(call, &detail, |state| {
            if mode == OpenMode::CreateNew {
                self.must_hold(state, path, "create");
            }
            if let Some(page) = state.pages.get(path) {
                return Ok(What::Page(Arc::clone(page)));
            }
            let inode = state.disk.open(path, mode)?;
            reported = state.failed_syncs.get(&inode).copied().unwrap_or(0);
            Ok(What::File(inode))
        })?;
        Ok(Box::new(VirtualFile {
            process: Process {
                shared: Arc::clone(&self.shared),
                id: self.id,
            },
            what,
            reported: reported.into(),
            path: path.to_owned(),
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = self.call(Call::List, &|| dir.display().to_string(), |state| {
            let mut names = state.disk.list(dir)?;
            let special = state.pages.keys().chain(state.locks.keys());
            names.extend(
                special
                    .filter(|path| path.parent() == Some(dir))
                    .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())),
            );
            Ok(names)
        })?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> io::Result<bool> {
        self.call(Call::IsDir, &|| path.display().to_string(), |state| {
            state.disk.is_dir(path)
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::CreateDir, &|| dir.display().to_string(), |state| {
            state.disk.create_dir(dir)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let detail = || format!("{} to {}", from.display(), to.display());
        self.call(Call::Rename, &detail, |state| {
            self.must_hold(state, to, "rename");
            state.disk.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove, &|| path.display().to_string(), |state| {
            self.must_hold(state, path, "remove");
            state.disk.remove(path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::SyncDir, &|| dir.display().to_string(), |state| {
            state.disk.sync_dir(dir)
        })
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

#[derive(Debug)]
enum What {
    File(InodeId),
    Page(Arc<Words>),
}

#[derive(Debug)]
struct VirtualFile {
    process: Process,
    what: What,
    path: PathBuf,
    /// How many failed syncs of the file this open file has reported.
    reported: AtomicU64,
}

impl VirtualFile {
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
        if let What::Page(words) = &self.what {
            // Only ever cleared as a whole.
            drop(self.process.step(Call::Write, &|| "the page".to_owned()));
            words.clear();
            return Ok(bytes.len());
        }
        let What::File(inode) = self.what else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let detail = || format!("{} {} bytes at {offset}", self.path.display(), bytes.len());
        let (mut state, dies) = self.process.begin(Call::Write, &detail).ok_or_else(dead)?;
        self.process.must_hold(&mut state, &self.path, "write");
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
            self.process.must_hold(state, &self.path, "set_len");
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
}

impl Host for Process {
    fn open_lock(&self, path: &Path) -> Result<Box<dyn StoreLock>, LockError> {
        let opened = self.call(Call::Open, &|| path.display().to_string(), |state| {
            state.locks.entry(path.to_owned()).or_insert(None);
            Ok(())
        });
        opened.map_err(|source| LockError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Box::new(VirtualLock {
            process: Process {
                shared: Arc::clone(&self.shared),
                id: self.id,
            },
            path: path.into(),
        }))
    }

    fn open_page(&self, path: &Path) -> Result<Box<dyn Page>, PageError> {
        let words = self.call(Call::OpenPage, &String::new, |state| {
            let page = state.pages.entry(path.to_owned());
            Ok(Arc::clone(page.or_insert_with(|| {
                Arc::new(Words::new(&PageContent::default()))
            })))
        });
        Ok(Box::new(self.page(words, path)?))
    }

    fn open_page_to_read(&self, path: &Path) -> Result<Box<dyn PageView>, PageError> {
        let words = self.call(Call::OpenPage, &String::new, |state| {
            let page = state.pages.get(path).map(Arc::clone);
            page.ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        Ok(Box::new(self.page(words, path)?))
    }

    fn filesystem(&self, _dir: &Path) -> io::Result<Filesystem> {
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

    fn lower_priority(&self) {}

    fn random(&self) -> u64 {
        self.shared.state().rng.random()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Process {
    fn page(&self, words: io::Result<Arc<Words>>, path: &Path) -> Result<VirtualPage, PageError> {
        let words = words.map_err(|source| PageError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(VirtualPage {
            process: Process {
                shared: Arc::clone(&self.shared),
                id: self.id,
            },
            path: path.to_owned(),
            words,
            nowhere: (AtomicU64::new(0), AtomicU32::new(0)),
        })
    }
}

#[derive(Debug)]
struct VirtualLock {
    process: Process,
    path: Arc<Path>,
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
            let owner = state.locks.entry(self.path.to_path_buf()).or_insert(None);
            if owner.is_none() {
                *owner = Some(self.process.id);
                return Ok(Box::new(Held { lock: self }));
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
            let path = self.path.to_path_buf();
            state = self
                .process
                .block(state, Doing::WaitsForLock { path, until_ns });
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
}

struct Held<'a> {
    lock: &'a VirtualLock,
}

impl HeldLock for Held<'_> {
    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        drop(self.lock.process.step(Call::Unlock, &String::new));
        Ok(()) // Freed by being dropped.
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let process = &self.lock.process;
        let mut state = process.shared.state();
        if let Some(owner) = state.locks.get_mut(&*self.lock.path)
            && *owner == Some(process.id)
        {
            *owner = None;
        }
    }
}

#[derive(Debug)]
struct VirtualPage {
    process: Process,
    path: PathBuf,
    words: Arc<Words>,
    /// The target of a dead process's writes.
    nowhere: (AtomicU64, AtomicU32),
}

impl VirtualPage {
    fn wide(&self, index: usize) -> &AtomicU64 {
        let alive = self
            .process
            .step(Call::Word, &|| index.to_string())
            .is_some();
        let word = self.words.wide(index).filter(|_| alive);
        word.unwrap_or(&self.nowhere.0)
    }

    fn narrow(&self, index: usize) -> &AtomicU32 {
        let alive = self
            .process
            .step(Call::Word, &|| format!("narrow {index}"))
            .is_some();
        let word = self.words.narrow(index).filter(|_| alive);
        word.unwrap_or(&self.nowhere.1)
    }

    fn sleep(&self, index: usize, expected: u32, timeout: Duration) {
        let Some(state) = self.process.step(Call::Wait, &|| index.to_string()) else {
            return;
        };
        let now = self.words.narrow(index);
        let now = now.map(|word| word.load(Ordering::SeqCst));
        if now != Some(expected) || timeout.is_zero() {
            return;
        }
        let until_ns = state.now_ns.saturating_add(nanoseconds(timeout));
        let path = self.path.clone();
        drop(self.process.block(
            state,
            Doing::WaitsForWord {
                path,
                index,
                until_ns,
            },
        ));
    }

    fn wake(&self, index: usize, most: usize) {
        let Some(mut state) = self.process.step(Call::Wake, &|| index.to_string()) else {
            return;
        };
        let sleepers = state.processes.iter_mut().filter(|process| {
            matches!(
                &process.doing,
                Doing::WaitsForWord { path, index: at, .. } if *at == index && *path == self.path
            )
        });
        for sleeper in sleepers.take(most) {
            sleeper.doing = Doing::Runs;
        }
    }

    fn is_there(&self) -> Result<(), PageError> {
        let Some(state) = self.process.step(Call::CheckPage, &String::new) else {
            return Ok(());
        };
        if state
            .pages
            .get(&self.path)
            .is_some_and(|page| Arc::ptr_eq(page, &self.words))
        {
            return Ok(());
        }
        Err(PageError::Deleted {
            path: self.path.clone(),
        })
    }
}

/// The identity of every page's file: there is one for each path, and none is ever replaced.
const IDENTITY: (u64, u64) = (1, 2);

impl Page for VirtualPage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        self.wide(index)
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        self.narrow(index)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        self.sleep(index, expected, timeout);
    }

    fn wake_one(&self, index: usize) {
        self.wake(index, 1);
    }

    fn wake_all(&self, index: usize) {
        self.wake(index, usize::MAX);
    }

    fn check(&self) -> Result<(), PageError> {
        self.is_there()
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok(IDENTITY)
    }
}

impl PageView for VirtualPage {
    fn load_u64(&self, index: usize) -> u64 {
        self.wide(index).load(Ordering::SeqCst)
    }

    fn load_u32(&self, index: usize) -> u32 {
        self.narrow(index).load(Ordering::SeqCst)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        self.sleep(index, expected, timeout);
    }

    fn check(&self) -> Result<(), PageError> {
        self.is_there()
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok(IDENTITY)
    }
}
