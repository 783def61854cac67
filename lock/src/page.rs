use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use crate::{PageError, files, sys};

/// A page of a file that every process which opens it sees and changes at once.
///
/// The first half holds [`SharedPage::U64_WORDS`] 64-bit words, the second half
/// [`SharedPage::U32_WORDS`] 32-bit words, on which processes can wait. A new page is all zero.
/// Its content survives the death of any process, and the loss of nothing else: after a reboot
/// the file holds whatever the system happened to write back.
///
/// # Truncation
/// Touching a mapped page whose file was cut short raises `SIGBUS`, so call [`SharedPage::check`]
/// before a series of accesses. A page that another program cuts *between* the check and the access
/// (some nanoseconds) still kills the process, as with every file mapping. Windows cuts no mapped file.
///
/// ```
/// use std::{sync::atomic::Ordering::Relaxed, time::Duration};
/// use strand_lock::SharedPage;
///
/// # let dir = tempfile::tempdir()?;
/// let (here, there) = (SharedPage::open(dir.path().join("page"))?, SharedPage::open(dir.path().join("page"))?);
/// here.check()?; // Before a series of accesses.
/// here.u64(SharedPage::U64_WORDS - 1).store(42, Relaxed);
/// assert_eq!(there.u64(255).load(Relaxed), 42);
///
/// // One sleeps until another rings.
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
/// assert_eq!(std::fs::metadata(dir.path().join("page"))?.len(), SharedPage::BYTES as u64);
/// # assert_eq!(SharedPage::U32_WORDS, 512);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedPage {
    words: sys::Words,
    file: File,
    path: PathBuf,
}

impl SharedPage {
    /// Size of a page and of the file behind it.
    pub const BYTES: usize = sys::PAGE_BYTES;
    /// Number of 64-bit words.
    pub const U64_WORDS: usize = sys::U64_WORDS;
    /// Number of 32-bit words, on which [`SharedPage::wait`] can wait.
    pub const U32_WORDS: usize = sys::U32_WORDS;

    /// Opens the page at `path`; creates the file when missing, and lengthens it to a page.
    ///
    /// # Errors
    /// [`PageError::Io`] when the file can't be opened, lengthened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PageError> {
        let path = path.as_ref();
        let file = files::open_or_create(path).map_err(io_error("open", path))?;
        Self::map(file, path)
    }

    /// Maps an open file, lengthening it to a page first.
    pub(crate) fn map(file: File, path: &Path) -> Result<Self, PageError> {
        let state = sys::file_state(&file).map_err(io_error("examine", path))?;
        // Touching a page that the disk has no space for raises SIGBUS, so it must have some before.
        if state.len_bytes < Self::BYTES as u64 || !state.has_space {
            sys::reserve(&file, Self::BYTES as u64).map_err(io_error("lengthen", path))?;
        }
        let words = sys::Words::map(&file).map_err(io_error("map", path))?;
        Ok(Self {
            words,
            file,
            path: path.to_owned(),
        })
    }

    /// Tells whether the page can be touched, and is still the one that others open.
    ///
    /// Costs one system call.
    ///
    /// # Errors
    /// [`PageError::Truncated`], [`PageError::Deleted`], [`PageError::Io`]: drop the page and open it anew.
    pub fn check(&self) -> Result<(), PageError> {
        check(&self.file, &self.path)
    }

    /// Tells whether the page can be touched, at less than half the cost of [`SharedPage::check`].
    pub(crate) fn is_whole(&self) -> bool {
        let len_bytes = (&self.file).seek(SeekFrom::End(0));
        len_bytes.is_ok_and(|len_bytes| len_bytes >= Self::BYTES as u64)
    }

    /// The 64-bit word at `index`.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U64_WORDS`].
    #[must_use]
    pub fn u64(&self, index: usize) -> &AtomicU64 {
        self.words.u64(index)
    }

    /// The 32-bit word at `index`.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    #[must_use]
    pub fn u32(&self, index: usize) -> &AtomicU32 {
        self.words.u32(index)
    }

    /// Blocks while the 32-bit word at `index` is `expected`, until a wake or for `timeout`.
    ///
    /// Returns without a reason too (a spurious wake), so look at the word again. A futex on
    /// Linux; elsewhere a loop that looks at the word and sleeps a millisecond at most in between.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        wait(self.u32(index), expected, timeout);
    }

    /// Wakes one waiter of the 32-bit word at `index`, in whatever process it is.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wake_one(&self, index: usize) {
        sys::wake(self.u32(index), 1);
    }

    /// Wakes every waiter of the 32-bit word at `index`, in whatever process it is.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wake_all(&self, index: usize) {
        sys::wake(self.u32(index), u32::MAX);
    }

    /// The file's device and inode (its index on Windows), which a copy of the file does not share.
    ///
    /// # Errors
    /// [`PageError::Io`] when the system does not tell.
    pub fn identity(&self) -> Result<(u64, u64), PageError> {
        let state = sys::file_state(&self.file).map_err(io_error("examine", &self.path))?;
        Ok(state.identity)
    }
}

/// A [`SharedPage`] that can only be looked at, and needs no permission to write.
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
/// view.wait(0, 0, Duration::from_millis(1)); // Nobody rings.
/// assert_eq!(view.identity()?, page.identity()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedPageReader {
    words: sys::Words,
    file: File,
    path: PathBuf,
}

impl SharedPageReader {
    /// Maps the page at `path` for reading. Never creates or lengthens it.
    ///
    /// # Errors
    /// [`PageError::Io`] when the file is missing or can't be mapped, [`PageError::Truncated`] when it is short.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PageError> {
        let path = path.as_ref();
        let file = files::open(OpenOptions::new().read(true), path);
        let file = file.map_err(io_error("open", path))?;
        check(&file, path)?;
        let words = sys::Words::map_read_only(&file).map_err(io_error("map", path))?;
        Ok(Self {
            words,
            file,
            path: path.to_owned(),
        })
    }

    /// As [`SharedPage::check`].
    ///
    /// # Errors
    /// As [`SharedPage::check`].
    pub fn check(&self) -> Result<(), PageError> {
        check(&self.file, &self.path)
    }

    /// The 64-bit word at `index`, now.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U64_WORDS`].
    #[must_use]
    pub fn load_u64(&self, index: usize) -> u64 {
        self.words.u64(index).load(Ordering::Acquire)
    }

    /// The 32-bit word at `index`, now.
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    #[must_use]
    pub fn load_u32(&self, index: usize) -> u32 {
        self.words.u32(index).load(Ordering::Acquire)
    }

    /// As [`SharedPage::wait`].
    ///
    /// # Panics
    /// When `index` is not below [`SharedPage::U32_WORDS`].
    pub fn wait(&self, index: usize, expected: u32, timeout: Duration) {
        wait(self.words.u32(index), expected, timeout);
    }

    /// As [`SharedPage::identity`].
    ///
    /// # Errors
    /// As [`SharedPage::identity`].
    pub fn identity(&self) -> Result<(u64, u64), PageError> {
        let state = sys::file_state(&self.file).map_err(io_error("examine", &self.path))?;
        Ok(state.identity)
    }
}

fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    if word.load(Ordering::Acquire) == expected && !timeout.is_zero() {
        sys::wait(word, expected, timeout);
    }
}

fn check(file: &File, path: &Path) -> Result<(), PageError> {
    let state = sys::file_state(file).map_err(io_error("examine", path))?;
    if state.len_bytes < SharedPage::BYTES as u64 {
        return Err(PageError::Truncated {
            path: path.to_owned(),
            len_bytes: state.len_bytes,
        });
    }
    if state.links == 0 {
        return Err(PageError::Deleted {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PageError {
    move |source| PageError::Io {
        op,
        path: path.to_owned(),
        source,
    }
}
