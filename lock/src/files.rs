//! Directories that stay the ones that were opened, and files that other processes may have open.
//!
//! A path can lead elsewhere later: a symbolic link is switched, a directory moved, the working
//! directory changed. A [`Dir`] does not: what is done in it is done in the directory that was
//! opened.
//!
//! On Windows a file that is open elsewhere, in a virus scanner or a reader, may refuse to be
//! opened, replaced or removed. These functions retry for up to [`PATIENCE`] before they report
//! that. On other systems each of them is one system call, and blocks only on the disk.
//!
//! Example: [`Dir`].

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::sys::OpenMode;
use crate::{
    filesystem::{self, Filesystem, FilesystemKind},
    sys,
};

/// How long an operation is retried, on Windows, while another process has the file open.
///
/// Example: [`Dir`].
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An open directory. Names in it are looked up in that directory, whatever becomes of the path by
/// which it was opened. Cheap to clone.
///
/// On Windows, where a directory with open files can't be moved, it is the full path that the
/// directory had when it was opened.
///
/// ```
/// use std::io::Write as _;
/// use strand_lock::files::{self, Dir, OpenMode};
///
/// # let temp = tempfile::tempdir()?;
/// # let path = temp.path().join("store");
/// # std::fs::create_dir(&path)?;
/// let dir = Dir::open(&path)?;
/// println!("{} is on {}", dir.path().display(), dir.filesystem()?.name);
/// assert_eq!(dir.filesystem_kind()?, dir.filesystem()?.kind);
/// // Replace a file: others find the old one or the new one, even after a power failure.
/// let mut file = dir.open_file("state.new", OpenMode::CreateNew)?;
/// file.write_all(b"42")?;
/// file.sync_all()?;
/// dir.rename("state.new", "state")?;
/// dir.sync()?;
/// assert_eq!(dir.list()?, ["state"]);
///
/// // Is it still the file that is open here?
/// assert_eq!(dir.identity_of("state")?, files::identity_of(&file)?);
/// assert_eq!(files::identity(&path.join("state"))?, files::identity_of(&file)?);
/// assert_eq!(files::len_bytes(&file)?, 2);
/// # drop(file);
///
/// dir.create_dir("sub")?;
/// drop(dir.open_dir("sub")?.open_file("inner", OpenMode::CreateNew)?);
/// # #[cfg(unix)] {
/// std::fs::rename(&path, temp.path().join("moved"))?;
/// dir.remove("state")?; // In the directory that was opened, wherever it is now.
/// # }
/// # assert!(dir.stamp().is_ok());
/// let virtual_dir = Dir::simulated("store".as_ref(), 7);
/// assert_eq!((virtual_dir.number(), dir.number()), (Some(7), None));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dir(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Real(sys::Dir),
    Simulated(u64),
}

impl Dir {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// The system's: `NotFound`, `NotADirectory`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Ok(Self::new(path, Place::Real(sys::Dir::open(path)?)))
    }

    /// A directory of a simulated machine, which knows it by a number. All that this type does with
    /// it fails.
    #[must_use]
    pub fn simulated(path: &Path, number: u64) -> Self {
        Self::new(path, Place::Simulated(number))
    }

    fn new(path: &Path, place: Place) -> Self {
        let path = path.to_owned();
        Self(Arc::new(Opened { path, place }))
    }

    /// The directory and the name of the file at `path`.
    pub(crate) fn of_file(path: &Path) -> io::Result<(Self, &Path)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let here = parent.as_os_str().is_empty();
        let opened = sys::Dir::open(if here { Path::new(".") } else { parent })?;
        Ok((Self::new(parent, Place::Real(opened)), Path::new(name)))
    }

    /// The path by which it was opened, for messages. It may lead elsewhere by now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The number of a [simulated](Dir::simulated) directory.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match &self.0.place {
            Place::Real(_) => None,
            Place::Simulated(number) => Some(*number),
        }
    }

    fn real(&self) -> io::Result<&sys::Dir> {
        match &self.0.place {
            Place::Real(dir) => Ok(dir),
            Place::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Opens a directory in it.
    ///
    /// # Errors
    /// The system's: `NotFound`, `NotADirectory`.
    pub fn open_dir(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = name.as_ref();
        let opened = self.real()?.open_dir(name)?;
        Ok(Self::new(&self.path().join(name), Place::Real(opened)))
    }

    /// Opens a file in it. Others may read, write, rename and remove the file meanwhile.
    ///
    /// # Errors
    /// The system's.
    pub fn open_file(&self, name: impl AsRef<Path>, mode: OpenMode) -> io::Result<File> {
        let (dir, name) = (self.real()?, name.as_ref());
        retry(sys::is_in_use, || dir.open_file(name, mode))
    }

    /// Opens a file that processes share for reading and writing, and creates it if it is missing.
    ///
    /// Asks for creation only then: some systems refuse that for a file of another user.
    pub(crate) fn open_or_create(&self, name: &Path) -> io::Result<File> {
        loop {
            match self.open_file(name, OpenMode::ReadWrite) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
            match self.open_file(name, OpenMode::CreateNew) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created,
            }
        }
    }

    /// The names in it that are valid Unicode, in no order.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> io::Result<Vec<String>> {
        self.real()?.list()
    }

    /// Creates a directory in it, unless it exists.
    ///
    /// # Errors
    /// The system's.
    pub fn create_dir(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match self.real()?.create_dir(name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created,
        }
    }

    /// Renames a file, replacing the one that has the name `to`. A process that opens `to` finds
    /// the old file or the new one; a process that has the old one open can go on reading it.
    ///
    /// Durable after [`Dir::sync`].
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (dir, from, to) = (self.real()?, from.as_ref(), to.as_ref());
        retry(sys::may_be_in_use, || dir.rename(from, to))
    }

    /// Removes a file. A process that has it open can go on reading it.
    ///
    /// Where Windows can't remove the name of an open file (FAT, before Windows 10 1809, Wine), it
    /// stays until the file is closed everywhere.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let (dir, name) = (self.real()?, name.as_ref());
        retry(sys::is_in_use, || dir.remove(name))
    }

    /// Makes the names in it durable, as far as the system can: see "Windows and macOS" in
    /// `docs/DESIGN.md`.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.real()?.sync()
    }

    /// The device and inode of the file of that name (on Windows, its index), which all
    /// its hard links share, and a copy does not. `NotFound` when there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn identity_of(&self, name: impl AsRef<Path>) -> io::Result<(u64, u64)> {
        Ok(self.real()?.state_of(name.as_ref())?.identity)
    }

    /// A number that changes whenever a name in the directory appears, disappears or comes to mean
    /// another file. `None` where that can't be told from an equal number: the last change was a
    /// moment ago, or the directory was removed.
    ///
    /// Costs one system call on an open file, less than looking up a name.
    ///
    /// # Errors
    /// The system's.
    pub fn stamp(&self) -> io::Result<Option<u64>> {
        let change = self.real()?.last_change()?;
        let past = change.filter(|change| change.is_past(sys::filetime_ns()));
        Ok(past.map(|change| change.at_ns))
    }

    /// Whether the filesystem that it is on can be trusted: [`Filesystem::kind`] of
    /// [`Dir::filesystem`], which takes longer.
    ///
    /// # Errors
    /// The system's.
    pub fn filesystem_kind(&self) -> io::Result<FilesystemKind> {
        filesystem::kind_of(self.real()?)
    }

    /// The filesystem that it is on. Blocks no longer than the system does.
    ///
    /// # Errors
    /// The system's.
    pub fn filesystem(&self) -> io::Result<Filesystem> {
        filesystem::of(self.real()?)
    }
}

/// Renames a file by its path, as [`Dir::rename`]. Example: [`Dir`].
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    retry(sys::may_be_in_use, || sys::rename(from, to))
}

/// Makes the names in a directory durable, as [`Dir::sync`]. Example: [`Dir`].
///
/// # Errors
/// The system's.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    Dir::open(dir)?.sync()
}

/// The device and inode of the file at `path`: see [`Dir::identity_of`]. Example: [`Dir`].
///
/// # Errors
/// The system's.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let (dir, name) = Dir::of_file(path)?;
    dir.identity_of(name)
}

/// The device and inode of an open file: see [`Dir::identity_of`]. Example: [`Dir`].
///
/// # Errors
/// The system's.
pub fn identity_of(file: &File) -> io::Result<(u64, u64)> {
    Ok(sys::file_state(file)?.identity)
}

/// The length of an open file in bytes.
///
/// Unlike [`File::metadata`], it does not ask for the file's times: since Linux 6.13, that makes
/// the next sync of the file slower. Example: [`Dir`].
///
/// # Errors
/// The system's.
pub fn len_bytes(file: &File) -> io::Result<u64> {
    Ok(sys::file_state(file)?.len_bytes)
}

/// Repeats `call` while it is `refused`, for up to [`PATIENCE`].
fn retry<T>(
    refused: impl Fn(&io::Error) -> bool,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    // Short, to find a moment between two readers.
    const STEP_MAX: Duration = Duration::from_millis(2);
    let mut step = Duration::from_micros(100);
    let mut deadline = None;
    loop {
        match call() {
            Err(error) if refused(&error) => {
                let now = Instant::now();
                if now >= *deadline.get_or_insert(now + PATIENCE) {
                    return Err(error);
                }
            }
            result => return result,
        }
        std::thread::sleep(step);
        step = (step * 2).min(STEP_MAX);
    }
}
