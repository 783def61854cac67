//! A store in memory, on a machine of its own: cheap enough that a test can have half a million of them.
//!
//! An [`Image`] is what a disk holds: names and bytes, which its copies share. A [`Machine`] has one of them as its
//! disk, and is core's [`Storage`] and [`Host`]. Its locks are always free, its clock moves only when somebody looks at it
//! or sleeps, and its chance is the same each time. A machine that is asked for more than a sane program
//! needs refuses, and remembers that it did.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use strand_core::{
    Counters, Filesystem, FilesystemKind, LockError,
    testing::{
        HeldLock, Host, OpenMode, Page, PageError, PageView, Storage, StorageFile, StoreLock,
    },
};
use strand_lock::SharedPage;

/// The bytes of a file, shared by all images that have them.
pub type Bytes = Arc<Vec<u8>>;

/// The directory that every [`Machine`] has its store in.
#[must_use]
pub fn store_dir() -> &'static Path {
    Path::new("/store")
}

/// The file that is mapped by all writers.
pub const SHM: &str = "shm";
/// More calls than any operation on a small store needs: who makes them does not come to an end.
const CALLS_MAX: u64 = 200_000;
/// The time of day when a machine starts: in milliseconds since 1970.
pub const START_MS: i64 = 1_706_540_000_000;
const DEVICE: u64 = 7;
const HALF: usize = SharedPage::BYTES / 2;

/// The files of a store by their names in its directory; those in a directory below it have its name and a slash in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Names and bytes.
    pub files: BTreeMap<String, Bytes>,
    /// Where it lies: a copy elsewhere is another place, to the shared hints.
    pub place: u64,
}

impl Image {
    /// The bytes of a file, if it is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|bytes| bytes.as_slice())
    }

    /// Replaces a file.
    pub fn put(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.files.insert(name.into(), Arc::new(bytes));
    }
}

/// One machine with one store. A clone is the same machine.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Mutex<BTreeMap<String, Arc<Inode>>>,
    place: u64,
    started: Instant,
    clock_us: AtomicU64,
    drawn: AtomicU64,
    calls: AtomicU64,
    exhausted: AtomicBool,
}

#[derive(Debug)]
struct Inode {
    bytes: Mutex<Bytes>,
    /// What is mapped of it. From then on these words are its first page.
    words: OnceLock<Arc<Words>>,
}

struct Words {
    wide: [AtomicU64; SharedPage::U64_WORDS],
    narrow: [AtomicU32; SharedPage::U32_WORDS],
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").finish_non_exhaustive()
    }
}

impl Words {
    /// The words of a little-endian machine.
    fn of(bytes: &[u8]) -> Self {
        let (wide, narrow) = bytes.split_at_checked(HALF).unwrap_or((bytes, &[]));
        let mut wide = wide.chunks(8);
        let mut narrow = narrow.chunks(4);
        Self {
            wide: std::array::from_fn(|_| AtomicU64::new(u64::from_le_bytes(next(&mut wide)))),
            narrow: std::array::from_fn(|_| AtomicU32::new(u32::from_le_bytes(next(&mut narrow)))),
        }
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let wide = self.wide.iter();
        let wide = wide.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
        let narrow = self.narrow.iter();
        wide.chain(narrow.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()))
    }
}

/// The next piece, with zeros where it ends too early.
fn next<'a, const N: usize>(pieces: &mut impl Iterator<Item = &'a [u8]>) -> [u8; N] {
    let mut word = [0; N];
    for (byte, value) in word.iter_mut().zip(pieces.next().unwrap_or_default()) {
        *byte = *value;
    }
    word
}

impl Inode {
    fn new(bytes: Bytes) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            words: OnceLock::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn words(&self) -> Arc<Words> {
        let words = self.words.get_or_init(|| Arc::new(Words::of(&self.lock())));
        Arc::clone(words)
    }

    /// What a disk would hold.
    fn content(&self) -> Bytes {
        let bytes = self.lock();
        match self.words.get() {
            None => Arc::clone(&bytes),
            Some(words) => {
                let page = words.bytes().take(bytes.len());
                let rest = bytes.iter().copied().skip(SharedPage::BYTES);
                Arc::new(page.chain(rest).collect())
            }
        }
    }
}

impl Machine {
    /// A machine that has just been given this disk.
    #[must_use]
    pub fn new(image: &Image) -> Self {
        Self::with_chance(image, 0)
    }

    /// A machine whose chance begins elsewhere.
    #[must_use]
    pub fn with_chance(image: &Image, seed: u64) -> Self {
        let files = image.files.iter();
        let files = files.map(|(name, bytes)| (name.clone(), Inode::new(Arc::clone(bytes))));
        Self(Arc::new(Inner {
            files: Mutex::new(files.collect()),
            place: image.place,
            started: Instant::now(),
            clock_us: AtomicU64::new(0),
            drawn: AtomicU64::new(seed),
            calls: AtomicU64::new(0),
            exhausted: AtomicBool::new(false),
        }))
    }

    /// The same machine, as what core takes for its storage.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// What its disk holds now.
    #[must_use]
    pub fn image(&self) -> Image {
        let files = self.files();
        Image {
            files: files
                .iter()
                .map(|(name, inode)| (name.clone(), inode.content()))
                .collect(),
            place: self.0.place,
        }
    }

    /// Whether somebody asked for more than a sane program needs.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.0.exhausted.load(Ordering::Relaxed)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Inode>>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
        self.0.clock_us.fetch_add(us, Ordering::Relaxed);
    }

    fn count(&self) -> io::Result<()> {
        if self.0.calls.fetch_add(1, Ordering::Relaxed) < CALLS_MAX {
            return Ok(());
        }
        self.0.exhausted.store(true, Ordering::Relaxed);
        Err(io::Error::other("this takes more calls than it should"))
    }

    /// The name in the store of a path.
    fn name(path: &Path) -> io::Result<&str> {
        let name = path.strip_prefix(store_dir()).ok().and_then(Path::to_str);
        name.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        let found = self.files().get(Self::name(path)?).map(Arc::clone);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The inode of a file that is a page, created or lengthened where it is none.
    fn page(&self, path: &Path, creates: bool) -> io::Result<Arc<Inode>> {
        let inode = match self.inode(path) {
            Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                let inode = Inode::new(Bytes::default());
                let name = Self::name(path)?.to_owned();
                self.files().insert(name, Arc::clone(&inode));
                inode
            }
            found => found?,
        };
        if creates {
            let mut bytes = inode.lock();
            if bytes.len() < SharedPage::BYTES {
                Arc::make_mut(&mut bytes).resize(SharedPage::BYTES, 0);
            }
        }
        Ok(inode)
    }
}

impl Storage for Machine {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        self.count()?;
        let inode = match (mode, self.inode(path)) {
            (OpenMode::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, Err(_)) => {
                let inode = Inode::new(Bytes::default());
                let name = Machine::name(path)?.to_owned();
                self.files().insert(name, Arc::clone(&inode));
                inode
            }
            (_, found) => found?,
        };
        let machine = self.clone();
        Ok(Box::new(OpenFile { machine, inode }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.count()?;
        let below = match Machine::name(dir)? {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let mut names = Vec::new();
        for name in self.files().keys() {
            let Some(name) = name.strip_prefix(&below) else {
                continue;
            };
            let name = name.split('/').next().unwrap_or(name);
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> io::Result<bool> {
        self.count()?;
        if path == store_dir() {
            return Ok(true);
        }
        self.inode(path).map(|_| false)
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.count()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count()?;
        let inode = self.inode(from)?;
        let (from, to) = (Machine::name(from)?, Machine::name(to)?.to_owned());
        let mut files = self.files();
        files.remove(from);
        files.insert(to, inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.count()?;
        let removed = self.files().remove(Machine::name(path)?);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.count()
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

#[derive(Debug)]
struct OpenFile {
    machine: Machine,
    inode: Arc<Inode>,
}

impl StorageFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.machine.count()?;
        let bytes = self.inode.lock();
        let from = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let rest = bytes.get(from..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.machine.count()?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let mut content = self.inode.lock();
        let content = Arc::make_mut(&mut content);
        let end = from + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        if let Some(to) = content.get_mut(from..end) {
            to.copy_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.machine.count()?;
        let len = usize::try_from(len_bytes).map_err(io::Error::other)?;
        Arc::make_mut(&mut self.inode.lock()).resize(len, 0);
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.machine.count()?;
        Ok(self.inode.lock().len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.machine.count()
    }
}

impl Host for Machine {
    fn open_lock(&self, path: &Path) -> Result<Box<dyn StoreLock>, LockError> {
        let opened = self.count().and_then(|()| self.page(path, true));
        opened.map_err(|source| LockError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Box::new(FreeLock))
    }

    fn open_page(&self, path: &Path) -> Result<Box<dyn Page>, PageError> {
        self.open_mapped(path, true).map(|page| Box::new(page) as _)
    }

    fn open_page_to_read(&self, path: &Path) -> Result<Box<dyn PageView>, PageError> {
        let page = self.open_mapped(path, false)?;
        Page::check(&page)?;
        Ok(Box::new(page))
    }

    fn filesystem(&self, _dir: &Path) -> io::Result<Filesystem> {
        Ok(Filesystem::new(FilesystemKind::Local, "memory"))
    }

    fn boot_id(&self) -> String {
        "this boot".to_owned()
    }

    fn now(&self) -> Instant {
        self.advance(Duration::from_micros(1));
        self.0.started + Duration::from_micros(self.0.clock_us.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> i64 {
        let ms = self.0.clock_us.load(Ordering::Relaxed) / 1000;
        START_MS.saturating_add_unsigned(ms)
    }

    fn yield_now(&self) {
        self.advance(Duration::from_micros(1));
    }

    fn sleep(&self, time: Duration) {
        self.advance(time);
    }

    fn lower_priority(&self) {}

    fn random(&self) -> u64 {
        splitmix(
            self.0
                .drawn
                .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed),
        )
    }
}

/// Scatters a number over all 64 bits.
#[must_use]
pub fn splitmix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

impl Machine {
    fn open_mapped(&self, path: &Path, creates: bool) -> Result<MappedPage, PageError> {
        let opened = self.count().and_then(|()| self.page(path, creates));
        let inode = opened.map_err(|source| PageError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(MappedPage {
            words: inode.words(),
            machine: self.clone(),
            inode,
            path: path.to_owned(),
        })
    }
}

#[derive(Debug)]
struct MappedPage {
    machine: Machine,
    inode: Arc<Inode>,
    words: Arc<Words>,
    path: PathBuf,
}

impl MappedPage {
    fn wide(&self, index: usize) -> &AtomicU64 {
        let word = self.words.wide.get(index);
        word.unwrap_or_else(|| unreachable!("the page has no 64-bit word {index}"))
    }

    fn narrow(&self, index: usize) -> &AtomicU32 {
        let word = self.words.narrow.get(index);
        word.unwrap_or_else(|| unreachable!("the page has no 32-bit word {index}"))
    }
}

impl Page for MappedPage {
    fn u64(&self, index: usize) -> &AtomicU64 {
        self.wide(index)
    }

    fn u32(&self, index: usize) -> &AtomicU32 {
        self.narrow(index)
    }

    fn wait(&self, _index: usize, _expected: u32, timeout: Duration) {
        self.machine.advance(timeout);
    }

    fn wake_one(&self, _index: usize) {}

    fn wake_all(&self, _index: usize) {}

    fn check(&self) -> Result<(), PageError> {
        let io = |source| PageError::Io {
            op: "examine",
            path: self.path.clone(),
            source,
        };
        self.machine.count().map_err(io)?;
        let len = self.inode.lock().len();
        if len < SharedPage::BYTES {
            return Err(PageError::Truncated {
                path: self.path.clone(),
                len_bytes: len as u64,
            });
        }
        let named = self.machine.inode(&self.path);
        if named.is_ok_and(|named| Arc::ptr_eq(&named, &self.inode)) {
            Ok(())
        } else {
            Err(PageError::Deleted {
                path: self.path.clone(),
            })
        }
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        Ok((DEVICE, self.machine.0.place))
    }
}

impl PageView for MappedPage {
    fn load_u64(&self, index: usize) -> u64 {
        self.wide(index).load(Ordering::Acquire)
    }

    fn load_u32(&self, index: usize) -> u32 {
        self.narrow(index).load(Ordering::Acquire)
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
}

/// The lock of a machine on which nobody else runs.
#[derive(Debug)]
struct FreeLock;

impl StoreLock for FreeLock {
    fn lock_until(&self, _deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        Ok(Box::new(Free))
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        Ok(Box::new(Free))
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

struct Free;

impl HeldLock for Free {
    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        Ok(())
    }
}
