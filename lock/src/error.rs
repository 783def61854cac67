use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use crate::Holder;

/// Why a lock was not taken, or not released. Contention is never reported as [`LockError::Io`].
///
/// ```
/// use strand_lock::{FileLock, LockError};
///
/// # let dir = tempfile::tempdir()?;
/// let (one, other) = (FileLock::open(dir.path().join("lock"))?, FileLock::open(dir.path().join("lock"))?);
/// let guard = one.lock()?;
/// let error = other.try_lock().unwrap_err();
/// assert!(matches!(error, LockError::Contended { .. }) && error.is_contention());
/// # drop(guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// A system call failed; the lock is not held.
    #[error("cannot {op} the lock file {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        op: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else holds the lock now; answered by the `try_` functions.
    #[error("the lock {} is held by another", path.display())]
    Contended {
        /// The lock file.
        path: Arc<Path>,
    },
    /// Somebody else held the lock until the deadline.
    #[error("no lock on {} within {waited:.1?}: {}", path.display(), describe(holder.as_deref()))]
    Timeout {
        /// The lock file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// Who held it at the end, when that is known. Boxed to keep the error small.
        holder: Option<Box<Holder>>,
    },
    /// This lock was opened before a `fork` and is used in the child. The parent's lock is not
    /// touched; open the lock anew in the child.
    #[error("the lock {} was opened before fork; open it anew in the child", path.display())]
    Forked {
        /// The lock file.
        path: PathBuf,
    },
}

impl LockError {
    /// True when another holder was in the way, so that trying later can succeed.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(self, Self::Contended { .. } | Self::Timeout { .. })
    }
}

fn describe(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || "its holder is unknown".into(),
        |holder| format!("held by {holder}"),
    )
}

/// Why a shared page can't be used: from [`SharedPage::check`](crate::SharedPage::check) and the opening of
/// [`SharedPage`](crate::SharedPage)s.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// A system call failed.
    #[error("cannot {op} the shared page {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        op: &'static str,
        /// The file behind the page.
        path: PathBuf,
        /// The system's answer.
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
    /// The file was deleted: processes that open it now share another page.
    #[error("the shared page {} was deleted; reopen it", path.display())]
    Deleted {
        /// Where the file was.
        path: PathBuf,
    },
}
