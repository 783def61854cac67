//! The file operations that the log needs, as traits, so that tests can record them, make them
//! fail, and lose what was not synced.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    path::Path,
};

use strand_lock::files;

use crate::env::system::{Host, ThisMachine};

/// How [`Storage::open`] opens a file. Example: [`Storage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file that does not exist yet, to read and write.
    CreateNew,
}

/// The files of a store. [`Disk`] has the real ones.
///
/// Every method is that of the real disk unless it is replaced. Errors are those of the system.
/// Implementations retry after `EINTR`.
///
/// ```
/// use std::{io, path::Path, sync::{Arc, atomic::{AtomicU64, Ordering}}};
/// use strand_core::{
///     Issue, IssueLog, Options, Timestamp,
///     testing::{Disk, OpenMode, Storage, StorageFile},
/// };
///
/// let now = Timestamp::now();
/// /// The disk, with its syncs counted.
/// #[derive(Debug, Default, Clone)]
/// struct Counted(Arc<AtomicU64>);
///
/// impl Storage for Counted {
///     fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
///         Ok(Box::new(CountedFile(Disk.open(path, mode)?, self.clone())))
///     }
/// }
///
/// #[derive(Debug)]
/// struct CountedFile(Box<dyn StorageFile>, Counted);
///
/// impl StorageFile for CountedFile {
///     fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
///         self.0.read_at(buffer, offset)
///     }
///     fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
///         self.0.write_at(bytes, offset)
///     }
///     fn set_len(&self, len_bytes: u64) -> io::Result<()> { self.0.set_len(len_bytes) }
///     fn len_bytes(&self) -> io::Result<u64> { self.0.len_bytes() }
///     fn sync_data(&self) -> io::Result<()> {
///         self.1.0.fetch_add(1, Ordering::Relaxed);
///         self.0.sync_data()
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let counted = Counted::default();
/// let log = IssueLog::open(dir.path(), Options::default().storage(Arc::new(counted.clone())))?;
/// let before = counted.0.load(Ordering::Relaxed);
/// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// assert_eq!(counted.0.load(Ordering::Relaxed) - before, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew);
        Ok(Box::new(DiskFile(files::open(&options, path)?)))
    }
    /// The names in a directory that are valid Unicode, in no order.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = dir
            .read_dir()?
            .map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }
    /// Whether `path` is a directory.
    ///
    /// # Errors
    /// Those of the system: `NotFound` when nothing is there.
    fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(path.metadata()?.is_dir())
    }
    /// Creates a directory, unless it exists.
    ///
    /// # Errors
    /// Those of the system.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }
    /// Renames a file over another.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        files::rename(from, to)
    }
    /// Removes a file. Readers that have it open can go on reading it.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()> {
        files::remove(path)
    }
    /// Makes the names in a directory durable, where the system can do that.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        files::sync_dir(dir)
    }
    /// The machine that these files are on. Example: [`Host`].
    fn host(&self) -> &dyn Host {
        &ThisMachine
    }
}

/// An open file of a [`Storage`]. Example: there.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// Reads at an offset; 0 bytes mean the end of the file.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset, with one system call; may write less.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or lengthens the file.
    ///
    /// # Errors
    /// Those of the system.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// The file's length.
    ///
    /// # Errors
    /// Those of the system.
    fn len_bytes(&self) -> io::Result<u64>;
    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// Those of the system. After one, it is unknown which writes since the last success are
    /// durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// The real files. Other storages wrap it, as in the example of [`Storage`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Storage for Disk {}

#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        let read = |buffer: &mut [u8]| std::os::unix::fs::FileExt::read_at(&self.0, buffer, offset);
        #[cfg(windows)]
        let read =
            |buffer: &mut [u8]| std::os::windows::fs::FileExt::seek_read(&self.0, buffer, offset);
        retry(|| read(buffer))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        let write = || std::os::unix::fs::FileExt::write_at(&self.0, bytes, offset);
        #[cfg(windows)]
        let write = || std::os::windows::fs::FileExt::seek_write(&self.0, bytes, offset);
        retry(write)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `buffer` is full or the file ends; returns how much was read.
pub(crate) fn read_full(
    file: &dyn StorageFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            read => done += read?,
        }
    }
    Ok(done)
}

/// Writes all of `bytes`, in as many calls as it takes: one, unless there is too little space. Then
/// the next one says so.
pub(crate) fn write_full(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => done += written,
        }
    }
    Ok(())
}
