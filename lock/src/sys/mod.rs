//! The system calls, and all `unsafe` of this crate: one function a call, safe to use from outside.

mod words;
pub(crate) use words::{PAGE_BYTES, U32_WORDS, U64_WORDS, Words};

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    LockFile, file_state, filesystem, patiently, process_started, rename, reserve, running_for,
    sync_dir,
};
#[cfg(unix)]
pub use unix::{boot_id, monotonic_ns};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{
    LockFile, file_state, filesystem, patiently, process_started, rename, reserve, running_for,
    sync_dir,
};
#[cfg(windows)]
pub use windows::{boot_id, monotonic_ns};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod futex;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use futex::{wait, wake};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod poll;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use poll::{wait, wake};

/// What is known of an open file.
pub(crate) struct FileState {
    pub(crate) len_bytes: u64,
    /// Whether the disk has any space for it: false for one that was only lengthened.
    pub(crate) has_space: bool,
    /// Names that the file has; 0 when it was deleted.
    pub(crate) links: u64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

/// What may be refused because somebody else has the file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Opening or removing a file.
    Open,
    /// Replacing one, which Windows refuses as it does where permission lacks.
    Rename,
}

/// When this machine was booted, to two seconds.
fn boot_time() -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let up = std::time::Duration::from_nanos(monotonic_ns());
    format!("{}", now.saturating_sub(up).as_secs() / 2)
}
