use std::{io, path::Path};

use crate::sys;

/// The filesystem that a directory is on: the answer of [`filesystem_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filesystem {
    /// Whether locks and shared pages work between all who can reach it.
    pub kind: FilesystemKind,
    /// Its name, or its number where the system gives no name.
    pub name: String,
}

impl Filesystem {
    /// Describes a filesystem, as [`filesystem_of`] does.
    #[must_use]
    pub fn new(kind: FilesystemKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }
}

/// Whether a filesystem can carry locks and shared pages: see [`filesystem_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilesystemKind {
    /// On this machine: every process that reaches it shares locks and mapped pages.
    Local,
    /// Reached by other machines too, which share neither mapped pages nor, often, locks.
    Network,
    /// Served by some program, of which nothing is known.
    UnknownFuse,
}

/// Asks the system which filesystem `dir` is on.
///
/// # Errors
/// The system's, as when `dir` does not exist.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let filesystem = strand_lock::filesystem_of(dir.path())?;
/// println!("{:?} ({})", filesystem.kind, filesystem.name);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn filesystem_of(dir: impl AsRef<Path>) -> io::Result<Filesystem> {
    sys::filesystem(dir.as_ref())
}
