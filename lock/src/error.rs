use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use crate::holder::Holder;

/// Why a lock could not be taken or released. Contention is never reported as [`LockError::Io`].
///
/// ```
/// use strand_lock::{FileLock, LockError};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("lock");
/// let (one, other) = (FileLock::open(&path)?, FileLock::open(&path)?);
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
        /// The failed operation, as a verb.
        op: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The lock is held by another; returned by the `try_` functions.
    #[error("the lock {} is held by another", path.display())]
    Contended {
        /// The lock file.
        path: Arc<Path>,
    },
    /// The lock was held by another until the deadline.
    #[error("no lock on {} within {waited:.1?}: {}", path.display(), describe(holder.as_deref()))]
    Timeout {
        /// The lock file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The holder at the end, if it is known. Boxed to keep the error small.
        holder: Option<Box<Holder>>,
    },
    /// This lock was opened before a `fork` and is used in the child. The parent's lock is not
    /// affected; open the lock anew in the child.
    #[error("the lock {} was opened before fork; open it anew in the child", path.display())]
    Forked {
        /// The lock file.
        path: PathBuf,
    },
}

impl LockError {
    /// Whether another holder was in the way, so that a later attempt can succeed.
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
