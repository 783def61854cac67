//! Files that other processes may have open: std's operations, plus the retries that Windows needs.
//!
//! On Windows a file that is open elsewhere, in a virus scanner or a reader, may refuse to be
//! opened, replaced or removed. These functions retry for up to [`PATIENCE`] before they report
//! that. On other systems each of them is one system call, and blocks only on the disk.
//!
//! ```
//! use std::{fs::OpenOptions, io::Write as _};
//! use strand_lock::files;
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // Replace a file: others find the old one or the new one, even after a power failure.
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
//! files::remove(&path)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    time::{Duration, Instant},
};

use crate::sys;

/// How long an operation is retried, on Windows, while another process has the file open.
///
/// Example: [`crate::files`].
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a file. Others may read, write, rename and remove it meanwhile.
///
/// # Errors
/// The system's.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    retry(sys::is_in_use, || options.open(path))
}

/// Opens a file that processes share for reading and writing, and creates it if it is missing.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match open(&options, path) {
        // In a directory that all may write (`/tmp`), Linux refuses to open another's file for
        // writing if it could have been created (`fs.protected_regular`).
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open(options.create(true).truncate(false), path)
        }
        opened => opened,
    }
}

/// Renames a file, replacing the one at `to`. A process that opens `to` finds the old file or the
/// new one; a process that has the old one open can go on reading it.
///
/// Durable after [`sync_dir`].
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    retry(sys::may_be_in_use, || sys::rename(from, to))
}

/// Removes a file. A process that has it open can go on reading it.
///
/// Where Windows can't remove the name of an open file (FAT, before Windows 10 1809, Wine), it
/// stays until the file is closed everywhere.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    retry(sys::is_in_use, || std::fs::remove_file(path))
}

/// Makes the names in a directory durable, as far as the system can: see "Windows and macOS" in
/// `docs/DESIGN.md`.
///
/// # Errors
/// The system's.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    sys::sync_dir(dir)
}

/// Returns the device and inode of the file at `path` (on Windows, its volume and index), which all
/// its hard links share.
///
/// # Errors
/// The system's.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = open(OpenOptions::new().read(true), path)?;
    Ok(sys::file_state(&file)?.identity)
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
