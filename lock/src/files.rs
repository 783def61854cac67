//! Files that other processes may have open: what std does, with the answers that Windows needs.
//!
//! Elsewhere these are single system calls. On Windows a file that somebody has open may refuse to be opened, replaced or removed:
//! by a scanner for viruses, or by a reader where the filesystem knows no replacement of open files. Such refusals
//! are waited out for [`PATIENCE`] before they are reported; elsewhere nothing blocks but the disk.
//!
//! ```
//! use std::{fs::OpenOptions, io::Write as _};
//! use strand_lock::files;
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // Others find the old file or the new one, also after a loss of power.
//! let (new, path) = (dir.join("state.new"), dir.join("state"));
//! let mut file = files::open(OpenOptions::new().write(true).create(true), &new)?;
//! file.write_all(b"42")?;
//! file.sync_all()?;
//! files::rename(&new, &path)?;
//! files::sync_dir(dir)?;
//!
//! std::fs::hard_link(&path, dir.join("link"))?;
//! assert_eq!(files::identity(&path)?, files::identity(&dir.join("link"))?);
//!
//! files::remove(&path)?; // For `PATIENCE` at most.
//! # assert!(files::PATIENCE.as_secs() > 0);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    time::Duration,
};

use crate::sys;

/// How long a file that somebody else has open is waited for, on Windows.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a file; others may read, write, rename and remove it meanwhile.
///
/// # Errors
/// The system's.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    sys::patiently(sys::Refusal::Open, || options.open(path))
}

/// Opens a file that processes share, to read and write it, and creates it if it is not there.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    open(&options, path)
}

/// Renames a file over another. Whoever opens the new name finds the old file or the new one, never
/// none; who had the old one open goes on reading it.
///
/// Durable after [`sync_dir`].
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    sys::patiently(sys::Refusal::Rename, || sys::rename(from, to))
}

/// Removes a file. Who has it open goes on reading it. Where Windows can't take the name away before
/// the last of them has closed it (FAT, before Windows 10 1809, Wine), it stays until then.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    sys::patiently(sys::Refusal::Open, || std::fs::remove_file(path))
}

/// Makes the names in a directory durable, as far as the system can: see "Windows and macOS" in `docs/DESIGN.md`.
///
/// # Errors
/// The system's.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    sys::sync_dir(dir)
}

/// Device and inode of the file at `path` (its volume and index on Windows), which its hard links share.
///
/// # Errors
/// The system's.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = open(OpenOptions::new().read(true), path)?;
    Ok(sys::file_state(&file)?.identity)
}
