//! Cross-process locks on files, and a page of atomics that processes share.
//!
//! The building blocks of `strand-core`, a log that many processes append to; this crate knows nothing of logs or events,
//! and can be used without it. All `unsafe` of both is here, one function for each system call.
//!
//! | for | take | blocks | needs |
//! | --- | --- | --- | --- |
//! | one at a time, or several readers, among threads and processes | [`FileLock`] | until it is free, or until a deadline | to write the lock file |
//! | words that processes share, to wait on and to wake each other | [`SharedPage`] | only in [`SharedPage::wait`] | to write the page's file |
//! | the same words, only to look at | [`SharedPageReader`] | the same | to read it |
//! | who holds a lock, without taking it | [`look_at_lock`], [`FileLock::holder`] | never | to read the lock file |
//! | to open, rename and remove what others may have open | [`files`] | on Windows, for [`files::PATIENCE`] at most | – |
//! | whether a directory can be trusted with all that | [`filesystem_of`] | no longer than the system | – |
//!
//! # Locks
//!
//! A [`FileLock`] is an advisory lock: it excludes those who take it. The kernel frees it when its holder dies, so that
//! nobody has to tell a stale lock from a live one. Unlike the kernel's own calls it waits with a deadline, and says who was
//! in the way.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use strand_lock::{FileLock, LockError};
//!
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("lock"); // Never delete or rename it: the lock belongs to the file, not to the name.
//! let lock = FileLock::open(&path)?;
//! let guard = lock.lock_until(Instant::now() + Duration::from_secs(5))?;
//! // … nobody else, in this process or another, holds the lock here …
//!
//! let other = FileLock::open(&path)?;
//! match other.lock_until(Instant::now() + Duration::from_millis(10)) {
//!     Err(error @ LockError::Timeout { .. }) => println!("{error}"), // Names this process and its command line.
//!     other => panic!("two hold it: {other:?}"),
//! }
//! guard.unlock()?;
//! assert!(other.try_lock().is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Shared pages
//!
//! A [`SharedPage`] is 4 KiB of a file that every process which opens it sees at once, as atomic words. It survives the death
//! of any process, but is no storage: after a crash of the system it may hold anything, so whoever relies on it has to be able
//! to tell ([`boot_id`], [`SharedPage::identity`]) and to do without.
//!
//! # Errors, and what is left
//!
//! After a [`LockError`] the lock is not held. Contention is a variant of its own, never an error of the system
//! ([`LockError::is_contention`]). After a [`PageError`] the page must not be touched; open it anew. The only files that this
//! crate creates are those that it is told to open, and it neither removes nor shortens any. Nothing here is durable, and
//! nothing syncs the disk.
//!
//! # Threads, processes, `fork`
//!
//! Everything can be shared between threads. A child made by `fork` can neither use nor free the locks of its parent
//! ([`LockError::Forked`]); it opens its own. Programs that the process starts inherit nothing.

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
/// nobody waits for. Does nothing where a thread has no priority of its own (all but Linux). Does not block.
///
/// ```
/// std::thread::spawn(|| {
///     strand_lock::lower_thread_priority();
///     // … long work …
/// });
/// ```
pub fn lower_thread_priority() {
    // Refused, the work is done all the same.
    #[cfg(target_os = "linux")]
    rustix::process::nice(19).ok();
}
