//! The system calls, and all the `unsafe` of this crate: one function per call, each safe to use.

mod change;
#[cfg(target_arch = "x86_64")]
mod crc32c;
#[cfg(unix)]
mod fault;
#[cfg(windows)]
#[path = "no_fault.rs"]
mod fault;
mod file_state;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod futex;
mod open_mode;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod poll;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod unix_dir;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
mod windows_dir;
mod words;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use futex::{wait, wake};
pub use open_mode::OpenMode;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use poll::{wait, wake};
#[cfg(unix)]
use unix as system;
#[cfg(unix)]
pub(crate) use unix_dir::Dir;
#[cfg(windows)]
use windows as system;
#[cfg(windows)]
pub(crate) use windows::is_remote_drive;
#[cfg(windows)]
pub(crate) use windows_dir::Dir;
pub(crate) use words::{PAGE_BYTES, U32_WORDS, U64_WORDS, Words};

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use system::read_proc;
pub(crate) use system::{
    LockFile, claim, file_state, generation, is_claimed, is_in_use, is_vouched, made_ns,
    may_be_in_use, process_started, rename, reserve, running_for, vouch, why_no_room,
};

/// The CRC-32C of what `crc` is the sum of, 0 for nothing, and these bytes behind it.
///
/// As `crc32c::crc32c_append`, but costs a process less the first time.
///
/// ```
/// let sum = strand_lock::crc32c_append(0, b"1234");
/// assert_eq!(strand_lock::crc32c_append(sum, b"56789"), 0xe306_9283);
/// ```
#[must_use]
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = crc32c::append(crc, bytes) {
        return sum;
    }
    ::crc32c::crc32c_append(crc, bytes)
}

/// Reads a monotonic clock that all processes of this machine share, in nanoseconds.
///
/// Unlike an [`Instant`](std::time::Instant), the time can be stored in a
/// [`SharedPage`](crate::SharedPage) and compared by another process.
#[must_use]
pub fn monotonic_ns() -> u64 {
    system::monotonic_ns()
}

/// The time of day, as times of files are: in nanoseconds since 1970, on Windows since 1601.
pub(crate) fn filetime_ns() -> u64 {
    const BEFORE_1970_S: u64 = if cfg!(windows) { 11_644_473_600 } else { 0 };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = now + std::time::Duration::from_secs(BEFORE_1970_S);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a text that changes with every boot, so that shared memory from before it can be
/// recognised as stale.
///
/// On Linux and Apple's systems it is the kernel's boot id. Elsewhere it is the time of the boot.
/// Windows corrects that time for changes of the clock; on the other systems setting the clock
/// changes the text, which costs its user one rebuild. Two boots share a text only if they are less
/// than two seconds apart.
///
/// Example: [`crate::filesystem_of`].
#[must_use]
pub fn boot_id() -> String {
    system::boot_id().unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let up = std::time::Duration::from_nanos(monotonic_ns());
        (now.saturating_sub(up).as_secs() / 2).to_string()
    })
}
