use std::{
    fs::{File, OpenOptions},
    io,
    os::windows::{
        ffi::OsStrExt,
        fs::OpenOptionsExt,
        io::{AsRawHandle, FromRawHandle, OwnedHandle},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use windows_sys::{
    Wdk::System::SystemInformation::{NtQuerySystemInformation, SystemTimeOfDayInformation},
    Win32::{
        Foundation::{
            ERROR_ACCESS_DENIED, ERROR_INVALID_FUNCTION, ERROR_INVALID_HANDLE,
            ERROR_INVALID_PARAMETER, ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, ERROR_NOT_SUPPORTED,
            ERROR_SHARING_VIOLATION, FILETIME, HANDLE, WAIT_TIMEOUT,
        },
        Storage::FileSystem::{
            BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, GetDriveTypeW,
            GetFileInformationByHandle, LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY,
            LockFileEx, MOVEFILE_REPLACE_EXISTING, MOVEFILE_WRITE_THROUGH, MoveFileExW,
            UnlockFileEx,
        },
        System::{
            IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0},
            Performance::{QueryPerformanceCounter, QueryPerformanceFrequency},
            Threading::{
                GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
                PROCESS_SYNCHRONIZE, WaitForSingleObject,
            },
            WindowsProgramming::DRIVE_REMOTE,
        },
    },
};

use super::{change::Change, file_state::FileState};

/// An open file to lock. Locks are mandatory here, so the locked byte is far beyond the page.
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
        // SAFETY: the handle is open. `range` outlives the call, which does not continue in the
        // background because the file was not opened for overlapped use.
        let locked = unsafe { LockFileEx(self.handle(), flags, 0, 1, 0, &raw mut range) };
        if locked != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if is(&error, ERROR_LOCK_VIOLATION) || is(&error, ERROR_IO_PENDING) {
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

/// Never here: all processes of a machine see one boot id.
pub(crate) fn vouch(_file: &File) -> bool {
    false
}

pub(crate) fn claim(_file: &File, _number: u64) -> bool {
    false
}

pub(crate) fn is_claimed(_file: &File, _number: u64) -> bool {
    false
}

pub(crate) fn is_vouched(_file: &File) -> bool {
    false
}

/// Never needed here: pages are not lost.
pub(crate) fn why_no_room(_file: &File, _len_bytes: u64) -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// Always the same: nothing forks here.
pub(crate) fn generation() -> u64 {
    0
}

pub(crate) fn monotonic_ns() -> u64 {
    let (mut ticks, mut per_second) = (0, 1);
    // SAFETY: the pointer is to a live `i64`.
    unsafe { QueryPerformanceCounter(&raw mut ticks) };
    // SAFETY: as above.
    unsafe { QueryPerformanceFrequency(&raw mut per_second) };
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(per_second.max(1));
    u64::try_from(ns).unwrap_or(0)
}

fn information(file: &File) -> io::Result<BY_HANDLE_FILE_INFORMATION> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open and the pointer is to a live structure of the right type.
    let done = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// The last change of a file, or of a name in a directory; `None` once it was removed.
pub(super) fn last_change(file: &File) -> io::Result<Option<Change>> {
    let info = information(file)?;
    let written = info.ftLastWriteTime;
    let ticks = wide(written.dwHighDateTime, written.dwLowDateTime);
    let change = Change {
        at_ns: ticks.saturating_mul(100),
        clock_ns: None,
    };
    Ok((info.nNumberOfLinks > 0).then_some(change))
}

pub(crate) fn file_state(file: &File) -> io::Result<FileState> {
    let info = information(file)?;
    Ok(FileState {
        len_bytes: wide(info.nFileSizeHigh, info.nFileSizeLow),
        // A full disk is an error of the write here, not a signal on a mapped page.
        has_space: true,
        links: info.nNumberOfLinks.into(),
        // Without the volume, which Wine no longer knows of an open file that was renamed. Files
        // that are compared are in one directory.
        identity: (0, wide(info.nFileIndexHigh, info.nFileIndexLow)),
    })
}

/// Never here: NTFS gives a new file the time of the one that had its name before, and Wine gives
/// each the time of its last change. A file's index lasts as long as the file.
pub(crate) fn made_ns(_file: &File) -> Option<u64> {
    None
}

/// Lengthens a file to `len_bytes`.
pub(crate) fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    file.set_len(len_bytes.max(file.metadata()?.len()))
}

/// Whether another process has the file open in a way that excludes this call.
pub(crate) fn is_in_use(error: &io::Error) -> bool {
    is(error, ERROR_SHARING_VIOLATION)
}

/// As [`is_in_use`], for replacing a file, which is refused with the same error as when a
/// permission is missing.
pub(crate) fn may_be_in_use(error: &io::Error) -> bool {
    is_in_use(error) || is(error, ERROR_ACCESS_DENIED)
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

/// Renames and waits until the disk has it. Where that is refused, std does the rename: it also
/// handles long paths, and replaces open files where the filesystem can.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let wide = |path: &Path| -> Vec<u16> { path.as_os_str().encode_wide().chain([0]).collect() };
    let (wide_from, wide_to) = (wide(from), wide(to));
    let flags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    // SAFETY: both are zero-terminated UTF-16 and outlive the call.
    let renamed = unsafe { MoveFileExW(wide_from.as_ptr(), wide_to.as_ptr(), flags) };
    if renamed != 0 {
        return Ok(());
    }
    std::fs::rename(from, to)
}

/// Flushes the directory. This is not documented to work, and some filesystems refuse it, which is
/// no error: [`rename`] writes through by itself.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    let refusals = [
        ERROR_ACCESS_DENIED,
        ERROR_INVALID_FUNCTION,
        ERROR_INVALID_HANDLE,
        ERROR_INVALID_PARAMETER,
        ERROR_NOT_SUPPORTED,
    ];
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
        .open(dir);
    match opened.and_then(|dir| dir.sync_all()) {
        Err(error) if refusals.iter().any(|code| is(&error, *code)) => Ok(()),
        synced => synced,
    }
}

/// The time of the boot as the system noted it then, not shifted when the clock is set.
pub(crate) fn boot_id() -> Option<String> {
    /// `SYSTEM_TIMEOFDAY_INFORMATION`, whose members the headers do not name.
    #[repr(C)]
    #[derive(Default)]
    struct TimeOfDay {
        boot_time: i64,
        current_time: i64,
        time_zone_bias: i64,
        time_zone_id: u32,
        reserved: u32,
        boot_time_bias: u64,
        sleep_time_bias: u64,
    }
    let mut time = TimeOfDay::default();
    let len_bytes = size_of::<TimeOfDay>().try_into().unwrap_or(0);
    // SAFETY: the pointer is to a live structure of plain numbers, `len_bytes` long.
    let status = unsafe {
        NtQuerySystemInformation(
            SystemTimeOfDayInformation,
            (&raw mut time).cast(),
            len_bytes,
            std::ptr::null_mut(),
        )
    };
    if status < 0 || time.boot_time == 0 {
        return None;
    }
    let noted = time.boot_time.wrapping_sub_unsigned(time.boot_time_bias);
    Some(format!("{noted:x}"))
}

/// When a process started, in ticks of 100 ns since 1601. `None` if it has ended or can't be seen.
pub(crate) fn process_started(pid: u32) -> Option<u64> {
    let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
    // SAFETY: takes numbers only.
    let process = unsafe { OpenProcess(access, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: the handle was just opened, and nothing else closes it.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    // SAFETY: the handle is open.
    let waited = unsafe { WaitForSingleObject(process.as_raw_handle(), 0) };
    if waited != WAIT_TIMEOUT {
        return None; // It has ended, and is still there because another process has a handle to it.
    }
    let mut times = [FILETIME::default(); 4];
    let [started, ended, kernel, user] = times.each_mut().map(std::ptr::from_mut);
    // SAFETY: the handle is open and the pointers are to live structures of the right type.
    let done = unsafe { GetProcessTimes(process.as_raw_handle(), started, ended, kernel, user) };
    let [started, ..] = times;
    (done != 0).then(|| wide(started.dwHighDateTime, started.dwLowDateTime))
}

pub(crate) fn running_for(started: u64) -> Duration {
    const TICKS_BEFORE_1970: u64 = 116_444_736_000_000_000;
    let ticks = started.saturating_sub(TICKS_BEFORE_1970);
    let since_1970 = Duration::from_micros(ticks / 10);
    SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .saturating_sub(since_1970)
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Whether a drive letter names a drive of another machine.
pub(crate) fn is_remote_drive(letter: u8) -> bool {
    let root = [u16::from(letter), u16::from(b':'), u16::from(b'\\'), 0];
    // SAFETY: `root` is zero-terminated UTF-16 and outlives the call.
    unsafe { GetDriveTypeW(root.as_ptr()) == DRIVE_REMOTE }
}
