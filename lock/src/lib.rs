//! Cross-process locks on files, and a page of atomics that processes share.
//!
//! [`FileLock`] is an advisory lock that the kernel frees when its holder dies, with deadlines,
//! the holder's name in the timeout error, and protection against `fork`.
//! [`SharedPage`] is 4 KiB of a file mapped by every process that opens it, with a cross-process
//! wait and wake. [`files`] opens, renames and removes what others may have open. [`filesystem_of`] tells whether a directory's filesystem can be trusted with either.
//!
//! This crate knows nothing of logs or events.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use strand_lock::FileLock;
//!
//! # let dir = tempfile::tempdir()?;
//! let lock = FileLock::open(dir.path().join("lock"))?;
//! let guard = lock.lock_until(Instant::now() + Duration::from_secs(5))?;
//! // … nobody else, in this process or another, holds the lock here …
//! guard.unlock()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod file_lock;
pub mod files;
mod filesystem;
mod holder;
mod page;
mod seeded;
mod sys;

pub use error::{LockError, PageError};
pub use file_lock::{Counters, ExclusiveGuard, FileLock, SharedGuard};
pub use filesystem::{Filesystem, FilesystemKind, filesystem_of};
pub use holder::{Holder, LockState, look_at_lock};
pub use page::{SharedPage, SharedPageReader};
#[cfg(strand_seeded_bugs)]
pub use seeded::SEEDED_BUGS;
pub use sys::{boot_id, monotonic_ns};

/// Has this thread run only when no other wants the processor, for the rest of its life: for work that
/// nobody waits for. Does nothing where a thread has no priority of its own (all but Linux).
pub fn lower_thread_priority() {
    // Refused, the work is done all the same.
    #[cfg(target_os = "linux")]
    rustix::process::nice(19).ok();
}
