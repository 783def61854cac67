//! Cross-process file locks with deadlines, and a page of atomics that processes share.
//!
//! These are the building blocks of `strand-core`, a log that many processes append to. This crate
//! knows nothing of logs and can be used without it. It holds all the `unsafe` code of both, one
//! function per system call.
//!
//! | task | item | blocks | permission |
//! | --- | --- | --- | --- |
//! | exclude other threads and processes | [`FileLock`] | until free or a deadline | write |
//! | share words, wait on them, wake others | [`SharedPage`] | only in its `wait` | write |
//! | look at shared words | [`SharedPageReader`] | only in its `wait` | read |
//! | look at a lock | [`look_at_lock`], [`FileLock::holder`] | never | read |
//! | stay in the directory that was opened | [`files::Dir`] | up to [`files::PATIENCE`], on Windows | – |
//! | sum bytes | [`crc32c_append`] | never | – |
//! | identify a filesystem | [`filesystem_of`] | as long as the system does | – |
//!
//! # Locks
//!
//! A [`FileLock`] is advisory: it excludes only those who take it. The kernel frees it when its
//! holder dies, so no lock is ever stale. Unlike the kernel's own calls, waiting for it has a
//! deadline, and a timeout names the holder.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use strand_lock::{FileLock, LockError};
//!
//! # let dir = tempfile::tempdir()?;
//! // Never delete or rename the file: the lock belongs to the file, not to its name.
//! let path = dir.path().join("lock");
//! let lock = FileLock::open(&path)?;
//! let guard = lock.lock_until(Instant::now() + Duration::from_secs(5))?;
//! // … nothing else, in this process or another, holds the lock here …
//!
//! let other = FileLock::open(&path)?;
//! match other.lock_until(Instant::now() + Duration::from_millis(10)) {
//!     // Names this process and its command line.
//!     Err(error @ LockError::Timeout { .. }) => println!("{error}"),
//!     other => panic!("two hold it: {other:?}"),
//! }
//! guard.unlock()?;
//! assert!(other.try_lock().is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Shared pages
//!
//! A [`SharedPage`] is 4 KiB of a file, which every process that opens it sees at once as atomic
//! words. It survives the death of any process, but it is not storage: after a crash of the system
//! it may hold anything. Its user must be able to detect that (with [`boot_id`] and
//! [`SharedPage::identity`]) and to rebuild it.
//!
//! # Errors
//!
//! After a [`LockError`] the lock is not held. Contention has its own variants and is never an I/O
//! error ([`LockError::is_contention`]). After a [`PageError`] the page must not be touched; open
//! it anew. This crate creates only the files it is asked to open, and never removes or shortens
//! one except by [`files::Dir::rename`] and [`files::Dir::remove`]. Nothing but
//! [`files::Dir::sync`] syncs the disk.
//!
//! # Threads, processes, `fork`
//!
//! Everything can be shared between threads. A child made by `fork` can neither use nor free its
//! parent's locks ([`LockError::Forked`]); it opens its own. Programs that the process starts
//! inherit nothing.

#![deny(unsafe_code)]

mod counters;
mod error;
mod file_lock;
pub mod files;
mod filesystem;
mod gate;
mod holder;
mod page;
#[expect(unsafe_code, reason = "the only place for it")]
mod sys;

pub use counters::Counters;
pub use error::LockError;
pub use file_lock::{ExclusiveGuard, FileLock, SharedGuard};
pub use filesystem::{Filesystem, FilesystemKind, filesystem_of};
pub use holder::{Holder, LockState, is_lock_content, look_at_lock, look_at_lock_in};
pub use page::{PageError, SharedPage, SharedPageReader};
pub use sys::{boot_id, crc32c_append, monotonic_ns};
