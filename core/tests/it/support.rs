//! Shared by the tests: events, a storage that fails on demand, and child processes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use strand_core::{
    Issue, IssueEvent, IssueLog, Log, Options, Record, Timestamp,
    testing::{
        Dir, Disk, Failpoint, FailpointHook, OpenMode, Page, PageError, Storage, StorageFile,
    },
};

pub(crate) const TS: Timestamp = Timestamp::from_ms(1_706_540_000_123);
pub(crate) const T0: Timestamp = Timestamp::from_ms(0);

/// [`TS`] and so many milliseconds.
pub(crate) fn after(ms: i64) -> Timestamp {
    Timestamp::from_ms(TS.as_ms() + ms)
}

pub(crate) fn event(id: &str) -> IssueEvent {
    IssueEvent::add(Issue::new_at(id, "Mend the fence", TS), TS)
}

pub(crate) fn open(dir: &Path) -> Log<IssueEvent> {
    Log::open(dir, options()).unwrap()
}

pub(crate) fn open_issues(dir: &Path) -> IssueLog {
    IssueLog::open(dir, options()).unwrap()
}

/// Options without preallocated space, so that a file's bytes are its records.
pub(crate) fn options() -> Options {
    Options::default().preallocate_bytes(0)
}

/// Appends an issue `bd-1`, `bd-2`, … for each number.
pub(crate) fn append_numbered(log: &Log<IssueEvent>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        log.append(&event(&format!("bd-{number}"))).unwrap();
    }
}

/// A store with `count` records `bd-1`, `bd-2`, …, and the bytes of its only segment.
pub(crate) fn store_of(dir: &Path, count: u64) -> Vec<u8> {
    let log = open(dir);
    append_numbered(&log, 1..=count);
    std::fs::read(first_segment(dir)).unwrap()
}

pub(crate) fn first_segment(dir: &Path) -> PathBuf {
    dir.join("log-00000000000000000001.jsonl")
}

pub(crate) fn ids(
    records: impl Iterator<Item = strand_core::Result<Record<IssueEvent>>>,
) -> Vec<String> {
    records
        .flat_map(|record| record.unwrap().events)
        .map(|event| event.id)
        .collect()
}

/// All names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The end of each line, counted from the beginning of the file, 0 included.
pub(crate) fn line_ends(bytes: &[u8]) -> Vec<usize> {
    std::iter::once(0)
        .chain(
            bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1),
        )
        .collect()
}

/// Starts this test binary again to run the test `name`, which sees `STRAND_CHILD` and then acts as
/// a child.
pub(crate) fn child(name: &str, dir: &Path, argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("STRAND_CHILD", argument)
        .env("STRAND_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// In a child: the directory and the argument. `None` when the test runs as a test.
pub(crate) fn as_child() -> Option<(PathBuf, String)> {
    Some((
        std::env::var_os("STRAND_DIR")?.into(),
        std::env::var("STRAND_CHILD").ok()?,
    ))
}

/// Waits for a child's success, and kills it when it takes too long.
pub(crate) fn finish(mut child: Child) {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "a child failed: {status}");
            return;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a child hung");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The disk, with a note of each write and sync, and with failures on demand.
#[derive(Debug, Default, Clone)]
pub(crate) struct Recorder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    fail_next_sync: bool,
    write_next_only: Option<usize>,
    blank_next_read_from: Option<u64>,
    fail_set_len: bool,
    fail_sync_dir: bool,
    before_set_len: Hook,
}

/// Called before each call.
#[derive(Default)]
struct Hook(Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Write { offset: u64, len: usize },
    Sync,
    SyncDir,
    Remove,
    At(Failpoint),
}

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    pub(crate) fn fail_next_sync(&self) {
        self.0.lock().unwrap().fail_next_sync = true;
    }

    /// Fills the disk up to so many bytes: the next write stores no more than these, and the one
    /// after it fails.
    pub(crate) fn write_next_only(&self, bytes: usize) {
        self.0.lock().unwrap().write_next_only = Some(bytes);
    }

    /// Lets the next read find only newlines from this offset on: what stands there was written
    /// just after it.
    pub(crate) fn blank_next_read_from(&self, offset: u64) {
        self.0.lock().unwrap().blank_next_read_from = Some(offset);
    }

    pub(crate) fn fail_set_len(&self, fail: bool) {
        self.0.lock().unwrap().fail_set_len = fail;
    }

    /// Does this before a file is cut the next time.
    pub(crate) fn before_set_len(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().before_set_len = Hook(Some(Box::new(hook)));
    }

    pub(crate) fn fail_sync_dir(&self, fail: bool) {
        self.0.lock().unwrap().fail_sync_dir = fail;
    }

    fn note(&self, call: Call) {
        self.0.lock().unwrap().calls.push(call);
    }
}

impl FailpointHook for Recorder {
    fn reached(&self, point: Failpoint) {
        self.note(Call::At(point));
    }
}

impl Storage for Recorder {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        Ok(if name.starts_with("log-") {
            Box::new(RecordedFile {
                file,
                recorder: self.clone(),
            })
        } else {
            file
        })
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        self.note(Call::Remove);
        Disk.remove(dir, name)
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        if self.0.lock().unwrap().fail_sync_dir {
            return Err(io::Error::other("the sync of a directory was told to fail"));
        }
        Disk.sync_dir(dir)?;
        self.note(Call::SyncDir);
        Ok(())
    }
}

#[derive(Debug)]
struct RecordedFile {
    file: Box<dyn StorageFile>,
    recorder: Recorder,
}

impl StorageFile for RecordedFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.file
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        if let Some(from) = self.recorder.0.lock().unwrap().blank_next_read_from.take() {
            let from = usize::try_from(from.saturating_sub(offset)).unwrap();
            buffer[..read][from.min(read)..].fill(b'\n');
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.recorder.0.lock().unwrap();
        let only = state.write_next_only.take();
        if only == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.write_next_only = only.map(|_| 0);
        drop(state);
        let bytes = &bytes[..only.unwrap_or(bytes.len())];
        self.recorder.note(Call::Write {
            offset,
            len: bytes.len(),
        });
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let hook = self.recorder.0.lock().unwrap().before_set_len.0.take();
        if let Some(hook) = hook {
            hook();
        }
        if self.recorder.0.lock().unwrap().fail_set_len {
            return Err(io::Error::other("set_len was told to fail"));
        }
        self.file.set_len(len_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if std::mem::take(&mut self.recorder.0.lock().unwrap().fail_next_sync) {
            return Err(io::Error::other("the sync was told to fail"));
        }
        self.file.sync_data()?;
        self.recorder.note(Call::Sync);
        Ok(())
    }
}

/// The disk, until its calls run out; from then on as if the process were dead.
#[derive(Debug, Clone)]
pub(crate) struct Mortal {
    pub(crate) left: Arc<AtomicU64>,
    reads_count: bool,
}

impl Mortal {
    pub(crate) fn of_calls(calls: u64) -> Self {
        let left = Arc::new(AtomicU64::new(calls));
        Self {
            left,
            reads_count: true,
        }
    }

    /// Reads never fail, and do not count.
    pub(crate) fn of_changes(changes: u64) -> Self {
        Self {
            reads_count: false,
            ..Self::of_calls(changes)
        }
    }

    fn read(&self) -> io::Result<()> {
        if self.reads_count {
            self.live()
        } else {
            Ok(())
        }
    }

    fn live(&self) -> io::Result<()> {
        let spent = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        spent.map(drop).map_err(|_| io::Error::other("dead"))
    }
}

impl Storage for Mortal {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        if mode == OpenMode::Read {
            self.read()?;
        } else {
            self.live()?;
        }
        let file = Disk.open(dir, name, mode)?;
        Ok(Box::new(MortalFile {
            file,
            life: self.clone(),
        }))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<String>> {
        self.read()?;
        Disk.list(dir)
    }

    fn create_dir(&self, dir: &Dir, name: &str) -> io::Result<()> {
        self.live()?;
        Disk.create_dir(dir, name)
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> io::Result<()> {
        self.live()?;
        Disk.rename(dir, from, to)
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        self.live()?;
        Disk.remove(dir, name)
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        self.live()?;
        Disk.sync_dir(dir)
    }

    fn identity_of(&self, dir: &Dir, name: &str) -> io::Result<(u64, u64)> {
        self.read()?;
        Disk.identity_of(dir, name)
    }

    fn stamp(&self, dir: &Dir) -> io::Result<Option<u64>> {
        self.read()?;
        Disk.stamp(dir)
    }
}

#[derive(Debug)]
struct MortalFile {
    file: Box<dyn StorageFile>,
    life: Mortal,
}

impl StorageFile for MortalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.life.read()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        // A dying process may have written a part.
        match self.life.live() {
            Ok(()) => self.file.write_at(bytes, offset),
            Err(error) => {
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
                Err(error)
            }
        }
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.life.live()?;
        self.file.set_len(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.life.read()?;
        self.file.len_bytes()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.life.live()?;
        self.file.sync_data()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.life.read()?;
        self.file.identity()
    }
}

/// Does something in the place of calls of a page, or behind them.
pub(crate) trait PageEvents: fmt::Debug + Send + Sync {
    fn wait(&self, page: &dyn Page, index: usize, expected: u32, timeout: Duration) {
        page.wait(index, expected, timeout);
    }

    /// Somebody has looked whether the page is there.
    fn touched(&self) {}
}

/// A page, and what is done at its calls.
#[derive(Debug)]
pub(crate) struct WatchedPage<E>(pub(crate) Box<dyn Page>, pub(crate) E);

impl<E: PageEvents> Page for WatchedPage<E> {
    fn u64(&self, index: usize) -> &AtomicU64 {
        self.0.u64(index)
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        self.0.u32(index)
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        self.1.wait(&*self.0, index, expected, timeout);
    }

    fn wake_one(&self, index: usize) {
        self.0.wake_one(index);
    }

    fn wake_all(&self, index: usize) {
        self.0.wake_all(index);
    }

    fn check(&self) -> Result<(), PageError> {
        self.0.check()
    }

    fn is_lost(&self) -> bool {
        let is_lost = self.0.is_lost();
        self.1.touched();
        is_lost
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        self.0.identity()
    }

    fn made_ns(&self) -> u64 {
        self.0.made_ns()
    }
}
