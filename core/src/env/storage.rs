//! The file operations that the log needs, as traits, so that tests can record them, make them
//! fail, and lose what was not synced.

use std::{fmt, fs::File, io, path::Path};

use strand_lock::files;
pub use strand_lock::files::{Dir, OpenMode};

use crate::env::{
    share::share,
    system::{Host, ThisMachine},
};

/// The files of a store. [`Disk`] has the real ones.
///
/// Every method is that of the real disk unless it is replaced. Errors are those of the system.
/// Implementations retry after `EINTR`. A directory is opened once, and all that follows is done in
/// that one, whatever becomes of its path.
///
/// ```
/// use std::{io, sync::{Arc, atomic::{AtomicU64, Ordering}}};
/// use strand_core::{
///     Issue, IssueLog, Options,
///     testing::{Dir, Disk, OpenMode, Storage, StorageFile},
/// };
///
/// /// The disk, with its syncs counted.
/// #[derive(Debug, Default, Clone)]
/// struct Counted(Arc<AtomicU64>);
///
/// impl Storage for Counted {
///     fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
///         Ok(Box::new(CountedFile(Disk.open(dir, name, mode)?, self.clone())))
///     }
/// }
///
/// #[derive(Debug)]
/// struct CountedFile(Box<dyn StorageFile>, Counted);
///
/// impl StorageFile for CountedFile {
///     fn inner(&self) -> &dyn StorageFile { &*self.0 }
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
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// assert_eq!(counted.0.load(Ordering::Relaxed) - before, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a directory.
    ///
    /// # Errors
    /// Those of the system: `NotFound`, `NotADirectory`.
    fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        Dir::open(path)
    }
    /// Opens a directory in a directory.
    ///
    /// # Errors
    /// Those of the system: `NotFound`, `NotADirectory`.
    fn open_subdir(&self, dir: &Dir, name: &str) -> io::Result<Dir> {
        dir.open_dir(name)
    }
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = dir.open_file(name, mode)?;
        if mode == OpenMode::CreateNew {
            share(dir, name);
        }
        Ok(Box::new(DiskFile(file)))
    }
    /// The names in a directory that are valid Unicode, in no order.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, dir: &Dir) -> io::Result<Vec<String>> {
        dir.list()
    }
    /// Creates a directory in a directory, unless it exists.
    ///
    /// # Errors
    /// Those of the system.
    fn create_dir(&self, dir: &Dir, name: &str) -> io::Result<()> {
        dir.create_dir(name)
    }
    /// Renames a file over another.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, dir: &Dir, from: &str, to: &str) -> io::Result<()> {
        dir.rename(from, to)
    }
    /// Removes a file. Readers that have it open can go on reading it.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        dir.remove(name)
    }
    /// Makes the names in a directory durable, where the system can do that.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        dir.sync()
    }
    /// What identifies the file of that name: see [`StorageFile::identity`].
    ///
    /// # Errors
    /// Those of the system: `NotFound`.
    fn identity_of(&self, dir: &Dir, name: &str) -> io::Result<(u64, u64)> {
        dir.identity_of(name)
    }
    /// A number that changes with the names in a directory: see [`Dir::stamp`].
    ///
    /// # Errors
    /// Those of the system.
    fn stamp(&self, dir: &Dir) -> io::Result<Option<u64>> {
        dir.stamp()
    }
    /// How much of the log a block of an index covers, in bytes: what `docs/FORMAT.md` says, by
    /// default. All programs that use a store must agree. A simulation whose logs are short says
    /// less, so that they have indexes, too.
    fn index_block_bytes(&self) -> u64 {
        64 << 10
    }
    /// The machine that these files are on. Example: [`Host`].
    fn host(&self) -> &dyn Host {
        &ThisMachine
    }
}

/// An open file of a [`Storage`]. Example: there.
///
/// Every method is that of the [`inner`](Self::inner) file unless it is replaced.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// The file that this one wraps. One that replaces all other methods wraps none.
    fn inner(&self) -> &dyn StorageFile {
        unreachable!("{self:?} wraps no file, and lacks a method")
    }
    /// Reads at an offset; 0 bytes mean the end of the file.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner().read_at(buffer, offset)
    }
    /// Writes at an offset, with one system call; may write less.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner().write_at(bytes, offset)
    }
    /// Cuts or lengthens the file.
    ///
    /// # Errors
    /// Those of the system.
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.inner().set_len(len_bytes)
    }
    /// The file's length.
    ///
    /// # Errors
    /// Those of the system.
    fn len_bytes(&self) -> io::Result<u64> {
        self.inner().len_bytes()
    }
    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// Those of the system. After one, it is unknown which writes since the last success are
    /// durable.
    fn sync_data(&self) -> io::Result<()> {
        self.inner().sync_data()
    }
    /// What identifies the file, by whatever name: device and inode.
    ///
    /// # Errors
    /// Those of the system.
    fn identity(&self) -> io::Result<(u64, u64)> {
        self.inner().identity()
    }
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
        files::len_bytes(&self.0)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        files::identity_of(&self.0)
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
