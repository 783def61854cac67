use std::{
    fs::File,
    io,
    os::windows::{fs::MetadataExt, io::AsRawHandle},
    path::{Component, Path, Prefix},
    time::Duration,
};

use windows_sys::Win32::{
    Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, HANDLE},
    Storage::FileSystem::{
        BY_HANDLE_FILE_INFORMATION, GetDriveTypeW, GetFileInformationByHandle,
        LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
    },
    System::{
        IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0},
        Performance::{QueryPerformanceCounter, QueryPerformanceFrequency},
        WindowsProgramming::DRIVE_REMOTE,
    },
};

use super::FileState;
use crate::{Filesystem, FilesystemKind};

/// An open file to lock. Locks are mandatory here, so the locked byte lies far behind the page.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
}

const LOCKED_OFFSET_HIGH: u32 = 0x4000_0000;

fn locked_range() -> OVERLAPPED {
    OVERLAPPED {
        Internal: 0,
        InternalHigh: 0,
        Anonymous: OVERLAPPED_0 {
            Anonymous: OVERLAPPED_0_0 {
                Offset: 0,
                OffsetHigh: LOCKED_OFFSET_HIGH,
            },
        },
        hEvent: std::ptr::null_mut(),
    }
}

impl LockFile {
    pub(crate) fn open(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        Ok(Self { file: open()? })
    }

    fn handle(&self) -> HANDLE {
        self.file.as_raw_handle()
    }

    pub(crate) fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        let flags = LOCKFILE_FAIL_IMMEDIATELY
            | if exclusive {
                LOCKFILE_EXCLUSIVE_LOCK
            } else {
                0
            };
        let mut range = locked_range();
        // SAFETY: the handle is open, and `range` outlives the call, which does not go on afterwards
        // because the file was not opened for overlapped use.
        let locked = unsafe { LockFileEx(self.handle(), flags, 0, 1, 0, &raw mut range) };
        if locked != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        let busy = [ERROR_LOCK_VIOLATION, ERROR_IO_PENDING].map(|code| Some(code.cast_signed()));
        if busy.contains(&error.raw_os_error()) {
            Ok(false)
        } else {
            Err(error)
        }
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        let mut range = locked_range();
        // SAFETY: as in `try_lock`.
        let unlocked = unsafe { UnlockFileEx(self.handle(), 0, 1, 0, &raw mut range) };
        if unlocked != 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Nanoseconds of a clock that never jumps and that all processes of this machine share.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let (mut ticks, mut per_second) = (0, 1);
    // SAFETY: the pointer is to a live `i64`.
    unsafe { QueryPerformanceCounter(&raw mut ticks) };
    // SAFETY: as above.
    unsafe { QueryPerformanceFrequency(&raw mut per_second) };
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(per_second.max(1));
    u64::try_from(ns).unwrap_or(0)
}

pub(crate) fn file_state(file: &File) -> io::Result<FileState> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open and the pointer is to a live structure of the right type.
    let told = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) };
    if told == 0 {
        return Err(io::Error::last_os_error());
    }
    let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    Ok(FileState {
        len_bytes: wide(info.nFileSizeHigh, info.nFileSizeLow),
        // What is not there yet is found when it is written, and not by a signal.
        has_space: true,
        links: info.nNumberOfLinks.into(),
        identity: (
            info.dwVolumeSerialNumber.into(),
            wide(info.nFileIndexHigh, info.nFileIndexLow),
        ),
    })
}

/// Gives a file so many bytes.
pub(crate) fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    file.set_len(len_bytes.max(file.metadata()?.len()))
}

/// A text that changes with every boot, so that what was written to shared memory before one is known as stale.
///
/// The time of the boot, which also changes when the clock is set. Change without a boot costs its
/// user a rebuild; sameness across one would need a boot that takes less than two seconds.
#[must_use]
pub fn boot_id() -> String {
    super::boot_time()
}

/// Not asked for on Windows: a holder's note is believed as it stands.
pub(crate) fn process_started(_pid: u32) -> Option<u64> {
    None
}

pub(crate) fn running_for(_started: u64) -> Duration {
    Duration::ZERO
}

pub(crate) fn filesystem(dir: &Path) -> io::Result<Filesystem> {
    dir.metadata()?.file_attributes();
    let dir = dir.canonicalize()?;
    let Some(Component::Prefix(prefix)) = dir.components().next() else {
        return Ok(Filesystem {
            kind: FilesystemKind::Local,
            name: "unknown".to_owned(),
        });
    };
    let remote = match prefix.kind() {
        Prefix::UNC(..) | Prefix::VerbatimUNC(..) => true,
        Prefix::Disk(letter) | Prefix::VerbatimDisk(letter) => {
            let root = [u16::from(letter), u16::from(b':'), u16::from(b'\\'), 0];
            // SAFETY: `root` is a text of 16-bit units that ends with a zero.
            unsafe { GetDriveTypeW(root.as_ptr()) == DRIVE_REMOTE }
        }
        _ => false,
    };
    let kind = if remote {
        FilesystemKind::Network
    } else {
        FilesystemKind::Local
    };
    Ok(Filesystem {
        kind,
        name: prefix.as_os_str().to_string_lossy().into_owned(),
    })
}
