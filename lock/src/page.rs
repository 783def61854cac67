use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    files::{Dir, OpenMode},
    sys,
};

/// A page of a file, which every process that opens it sees and changes at once.
///
/// The first half holds [`SharedPage::U64_WORDS`] 64-bit words, the second half
/// [`SharedPage::U32_WORDS`] 32-bit words, on which processes can wait. A new page is all zero.
/// Its content survives the death of any process, but not a crash of the system: after a reboot the
/// file holds whatever the system happened to write back.
///
/// # Lost pages
/// Touching a mapped page raises `SIGBUS` if its file was cut short, or if a copy-on-write
/// filesystem has no space for the changed page. This crate handles that signal for its own pages:
/// the process goes on with a page of zeros that no other sees, and [`SharedPage::check`] fails. So
/// check before a series of accesses, and again before you rely on what they have done. The
/// handler passes every other `SIGBUS` on to the one that was there before; a program that installs
/// its own later should do the same. Windows does not let a mapped file be cut.
///
/// ```
/// use std::{sync::atomic::Ordering::Relaxed, time::Duration};
/// use strand_lock::SharedPage;
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("page");
/// let (here, there) = (SharedPage::open(&path)?, SharedPage::open(&path)?);
/// here.check()?; // Before a series of accesses.
/// here.u64(SharedPage::U64_WORDS - 1).store(42, Relaxed);
/// assert_eq!(there.u64(255).load(Relaxed), 42);
///
/// // One thread sleeps until another wakes it.
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         while there.u32(0).load(Relaxed) == 0 {
///             there.wait(0, 0, Duration::from_secs(1));
///         }
///     });
///     here.u32(0).store(1, Relaxed);
///     here.wake_all(0); // Or `wake_one`.
/// });
/// assert_eq!(here.identity()?, there.identity()?);
/// assert_eq!(std::fs::metadata(&path)?.len(), SharedPage::BYTES as u64);
/// # assert_eq!(SharedPage::U32_WORDS, 512);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedPage(MappedFile);

impl SharedPage {
    /// The size of a page and of the file behind it.
    pub const BYTES: usize = sys::PAGE_BYTES;
    /// The number of 64-bit words.
    pub const U64_WORDS: usize = sys::U64_WORDS;
    /// The number of 32-bit words, on which [`SharedPage::wait`] can wait.
    pub const U32_WORDS: usize = sys::U32_WORDS;
    /// Whether numbers of a page can be claimed here: see [`SharedPage::claim`].
    pub const CAN_CLAIM: bool = cfg!(any(target_os = "linux", target_os = "android"));

    /// Opens the page at `path`. Creates the file if it is missing, and lengthens it to a page.
    ///
    /// # Errors
    /// [`PageError::Io`] if the file can't be opened, lengthened, mapped or changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PageError> {
        let (dir, name) = of_file(path.as_ref())?;
        Self::open_in(&dir, name)
    }

    /// As [`SharedPage::open`], for a name in an open directory. Example: [`Dir`], [`SharedPage`].
    ///
    /// # Errors
    /// As [`SharedPage::open`].
    pub fn open_in(dir: &Dir, name: impl AsRef<Path>) -> Result<Self, PageError> {
        Self::open_with_area_in(dir, name, 0)
    }

    /// As [`SharedPage::open_in`], with `area_words` more 64-bit words behind the page: see
    /// [`SharedPage::area`]. Processes can open the same file with areas of different lengths; the
    /// file has the longest.
    ///
    /// # Errors
    /// As [`SharedPage::open`].
    pub fn open_with_area_in(
        dir: &Dir,
        name: impl AsRef<Path>,
        area_words: usize,
    ) -> Result<Self, PageError> {
        let path = dir.path().join(&name);
        let file = dir.open_or_create(name.as_ref());
        let page = Self::map(file.map_err(io_error("open", &path))?, &path, area_words)?;
        // A copy-on-write filesystem needs space to change a page, even if the page has some.
        if page.0.words.is_changeable() {
            return Ok(page);
        }
        let source = sys::why_no_room(&page.0.file, Self::BYTES as u64);
        Err(io_error("change", &path)(source))
    }

    /// Maps an open file, after lengthening it to a page and the area.
    pub(crate) fn map(file: File, path: &Path, area_words: usize) -> Result<Self, PageError> {
        let state = sys::file_state(&file).map_err(io_error("examine", path))?;
        let bytes = bytes_with(area_words);
        // Touching a page without disk space raises SIGBUS when the disk is full.
        if state.len_bytes < bytes || !state.has_space {
            sys::reserve(&file, bytes).map_err(io_error("lengthen", path))?;
        }
        MappedFile::new(file, path, |file| sys::Words::map(file, area_words)).map(Self)
    }

    /// Checks that the page can be touched and is still the one that other processes open.
    ///
    /// Costs one system call.
    ///
    /// # Errors
    /// [`PageError::Truncated`], [`PageError::Deleted`], [`PageError::Lost`], [`PageError::Io`]:
    /// drop the page and open it anew.
    pub fn check(&self) -> Result<(), PageError> {
        self.0.check()
    }

    /// Whether touching the page has failed, as where its file was cut short: this process now uses
    /// a page of its own. Costs no system call, and says so only after the page was touched.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let page = strand_lock::SharedPage::open(dir.path().join("page"))?;
    /// assert!(!page.is_lost());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.words.is_lost()
    }

    /// Whether the page can be touched, now or again. Costs no system call while it can. For words
    /// of which each stands for itself: a page that was lost is taken again while other threads use
    /// it.
    pub(crate) fn is_whole(&self) -> bool {
        let words = &self.0.words;
        words.u64(0).load(Ordering::Relaxed);
        if !words.is_lost() {
            return true;
        }
        let len_bytes = (&self.0.file).seek(SeekFrom::End(0));
        len_bytes.is_ok_and(|len_bytes| len_bytes >= bytes_with(words.area_words()))
            && words.regain(&self.0.file)
    }

    /// The 64-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U64_WORDS`].
    #[must_use]
    pub fn u64(&self, index: usize) -> &AtomicU64 {
        self.0.words.u64(index)
    }

    /// The 32-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    #[must_use]
    pub fn u32(&self, index: usize) -> &AtomicU32 {
        self.0.words.u32(index)
    }

    /// The 64-bit words of the area behind the page.
    ///
    /// ```
    /// use std::sync::atomic::Ordering::Relaxed;
    /// use strand_lock::{SharedPage, files::Dir};
    ///
    /// # let temp = tempfile::tempdir()?;
    /// let dir = Dir::open(temp.path())?;
    /// let page = SharedPage::open_with_area_in(&dir, "page", 1000)?;
    /// assert_eq!(page.area().len(), 1000);
    /// page.area()[999].store(42, Relaxed);
    /// let without = SharedPage::open_in(&dir, "page")?;
    /// assert_eq!((without.area().len(), without.u64(255).load(Relaxed)), (0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn area(&self) -> &[AtomicU64] {
        self.0.words.area()
    }

    /// Blocks while the 32-bit word at `index` is `expected`, until it is woken or for `timeout`.
    ///
    /// Wakes can be spurious, so look at the word again. On Linux this is a futex; elsewhere it
    /// polls the word at intervals of up to a millisecond.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        self.0.wait(index, expected, timeout);
    }

    /// Wakes one waiter, of any process, on the 32-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wake_one(&self, index: usize) {
        sys::wake(self.u32(index), 1);
    }

    /// Wakes every waiter, of any process, on the 32-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wake_all(&self, index: usize) {
        sys::wake(self.u32(index), u32::MAX);
    }

    /// Vouches for the page, for as long as it is open here: what it says is of this boot. False
    /// where the system can't say so to others (all but Linux).
    ///
    /// Needed where processes see different [`boot_id`](crate::boot_id)s, as containers can. Call
    /// it after you have compared the page's boot id with your own, found the page vouched for, or
    /// filled it anew; and exclude other processes meanwhile.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use strand_lock::SharedPage;
    ///
    /// let path = dir.path().join("page");
    /// let (here, there) = (SharedPage::open(&path)?, SharedPage::open(&path)?);
    /// assert!(!there.is_vouched());
    /// if here.vouch() {
    ///     assert!(there.is_vouched() && !here.is_vouched());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(
        clippy::must_use_candidate,
        reason = "where it is false there is nothing to do"
    )]
    pub fn vouch(&self) -> bool {
        sys::vouch(&self.0.file)
    }

    /// Whether another process, or another [`SharedPage`] here, vouches for the page.
    #[must_use]
    pub fn is_vouched(&self) -> bool {
        sys::is_vouched(&self.0.file)
    }

    /// Claims a number below 2^62 for this process, for as long as the page is open here. False if
    /// another process has claimed it, or another [`SharedPage`] here; where offsets of files have
    /// 32 bits and the number is larger than 2^30; and where [`SharedPage::CAN_CLAIM`] is false:
    /// only Linux frees it when a process dies.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use strand_lock::SharedPage;
    ///
    /// let path = dir.path().join("page");
    /// let (here, there) = (SharedPage::open(&path)?, SharedPage::open(&path)?);
    /// if here.claim(7) {
    ///     assert!(there.is_claimed(7) && !here.is_claimed(7) && !there.claim(7));
    ///     drop(here);
    ///     assert!(!there.is_claimed(7) && there.claim(7));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn claim(&self, number: u64) -> bool {
        sys::claim(&self.0.file, number)
    }

    /// Whether another process, or another [`SharedPage`] here, has claimed the number.
    #[must_use]
    pub fn is_claimed(&self, number: u64) -> bool {
        sys::is_claimed(&self.0.file, number)
    }

    /// Syncs what was stored so far.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.file.sync_data()
    }

    /// The file's device and inode (on Windows, its index), which a copy of the file
    /// does not share.
    ///
    /// # Errors
    /// [`PageError::Io`] if the system does not say.
    pub fn identity(&self) -> Result<(u64, u64), PageError> {
        self.0.identity()
    }

    /// When the file was made, in nanoseconds since 1970; 0 where the system does not say. It tells
    /// the file from an earlier one that had the same number.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use strand_lock::{SharedPage, SharedPageReader};
    ///
    /// let path = dir.path().join("page");
    /// let page = SharedPage::open(&path)?;
    /// assert_eq!(SharedPageReader::open(&path)?.made_ns(), page.made_ns());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn made_ns(&self) -> u64 {
        self.0.made_ns()
    }
}

/// A read-only view of a [`SharedPage`], which needs no permission to write the file.
///
/// ```
/// use std::{sync::atomic::Ordering::Relaxed, time::Duration};
/// use strand_lock::{SharedPage, SharedPageReader};
///
/// # let dir = tempfile::tempdir()?;
/// let page = SharedPage::open(dir.path().join("page"))?;
/// let view = SharedPageReader::open(dir.path().join("page"))?;
/// page.u64(7).store(42, Relaxed);
/// view.check()?;
/// assert_eq!((view.load_u64(7), view.load_u32(0)), (42, 0));
/// view.wait(0, 0, Duration::from_millis(1)); // Times out.
/// assert_eq!(view.identity()?, page.identity()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedPageReader(MappedFile);

impl SharedPageReader {
    /// Maps the page at `path` for reading. Never creates or lengthens the file.
    ///
    /// # Errors
    /// [`PageError::Io`] if the file is missing or can't be mapped, [`PageError::Truncated`] if it
    /// is shorter than a page.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PageError> {
        let (dir, name) = of_file(path.as_ref())?;
        Self::open_in(&dir, name)
    }

    /// As [`SharedPageReader::open`], for a name in an open directory. Example: [`Dir`],
    /// [`SharedPageReader`].
    ///
    /// # Errors
    /// As [`SharedPageReader::open`].
    pub fn open_in(dir: &Dir, name: impl AsRef<Path>) -> Result<Self, PageError> {
        let path = dir.path().join(&name);
        let file = dir.open_file(name, OpenMode::Read);
        let file = file.map_err(io_error("open", &path))?;
        check(&file, &path, 0)?;
        MappedFile::new(file, &path, sys::Words::map_read_only).map(Self)
    }

    /// As [`SharedPage::check`].
    ///
    /// # Errors
    /// As [`SharedPage::check`].
    pub fn check(&self) -> Result<(), PageError> {
        self.0.check()
    }

    /// The present value of the 64-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U64_WORDS`].
    #[must_use]
    pub fn load_u64(&self, index: usize) -> u64 {
        self.0.words.u64(index).load(Ordering::Acquire)
    }

    /// The present value of the 32-bit word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    #[must_use]
    pub fn load_u32(&self, index: usize) -> u32 {
        self.0.words.u32(index).load(Ordering::Acquire)
    }

    /// As [`SharedPage::wait`].
    ///
    /// # Panics
    /// If `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        self.0.wait(index, expected, timeout);
    }

    /// As [`SharedPage::is_vouched`]; example: [`SharedPage::vouch`].
    #[must_use]
    pub fn is_vouched(&self) -> bool {
        sys::is_vouched(&self.0.file)
    }

    /// As [`SharedPage::identity`].
    ///
    /// # Errors
    /// As [`SharedPage::identity`].
    pub fn identity(&self) -> Result<(u64, u64), PageError> {
        self.0.identity()
    }

    /// When the file was made, in nanoseconds since 1970; 0 where the system does not say. It tells
    /// the file from an earlier one that had the same number.
    ///
    /// Example: [`SharedPage::made_ns`].
    #[must_use]
    pub fn made_ns(&self) -> u64 {
        self.0.made_ns()
    }
}

/// Why a shared page can't be used: returned by [`SharedPage::open`] and [`SharedPage::check`].
///
/// Example: [`SharedPage`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// A system call failed.
    #[error("cannot {op} the shared page {}", path.display())]
    Io {
        /// The failed operation, as a verb.
        op: &'static str,
        /// The file behind the page.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is shorter than a page, so touching the mapping would raise `SIGBUS`.
    #[error("the shared page {} was cut to {len_bytes} bytes; reopen it", path.display())]
    Truncated {
        /// The file behind the page.
        path: PathBuf,
        /// Its present length.
        len_bytes: u64,
    },
    /// The system could not provide the page when it was touched: the disk is full or fails, or the
    /// file was cut short at that moment. What this process has stored since is lost.
    #[error("the shared page {} was lost (a full disk?); reopen it", path.display())]
    Lost {
        /// The file behind the page.
        path: PathBuf,
    },
    /// The file was deleted: processes that open it now share another page.
    #[error("the shared page {} was deleted; reopen it", path.display())]
    Deleted {
        /// Where the file was.
        path: PathBuf,
    },
}

/// A file whose first page is mapped.
#[derive(Debug)]
struct MappedFile {
    words: sys::Words,
    file: File,
    path: PathBuf,
}

impl MappedFile {
    fn new(
        file: File,
        path: &Path,
        map: impl FnOnce(&File) -> io::Result<sys::Words>,
    ) -> Result<Self, PageError> {
        let words = map(&file).map_err(io_error("map", path))?;
        let path = path.to_owned();
        Ok(Self { words, file, path })
    }

    fn check(&self) -> Result<(), PageError> {
        check(&self.file, &self.path, self.words.area_words())?;
        if self.words.is_lost() {
            let path = self.path.clone();
            return Err(PageError::Lost { path });
        }
        Ok(())
    }

    fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        let word = self.words.u32(index);
        if word.load(Ordering::Acquire) == expected && !timeout.is_zero() {
            sys::wait(word, expected, timeout);
        }
    }

    fn identity(&self) -> Result<(u64, u64), PageError> {
        let state = sys::file_state(&self.file).map_err(io_error("examine", &self.path))?;
        Ok(state.identity)
    }

    fn made_ns(&self) -> u64 {
        sys::made_ns(&self.file).unwrap_or(0)
    }
}

/// The length of a page's file with such an area.
const fn bytes_with(area_words: usize) -> u64 {
    (SharedPage::BYTES + area_words * size_of::<AtomicU64>()) as u64
}

fn check(file: &File, path: &Path, area_words: usize) -> Result<(), PageError> {
    let state = sys::file_state(file).map_err(io_error("examine", path))?;
    let path = || path.to_owned();
    if state.len_bytes < bytes_with(area_words) {
        return Err(PageError::Truncated {
            path: path(),
            len_bytes: state.len_bytes,
        });
    }
    if state.links == 0 {
        return Err(PageError::Deleted { path: path() });
    }
    Ok(())
}

fn of_file(path: &Path) -> Result<(Dir, &Path), PageError> {
    Dir::of_file(path).map_err(io_error("open", path))
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PageError {
    move |source| PageError::Io {
        op,
        path: path.to_owned(),
        source,
    }
}
