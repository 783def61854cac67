use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FlockOperation},
    io::Errno,
    time::ClockId,
};

use super::file_state::FileState;

/// An open file to lock, which a forked child lets go of at once.
///
/// `flock` belongs to the open file and is freed when its last descriptor is closed, so a child's
/// inherited descriptor would keep the lock after its parent has died. A handler that runs in the
/// child therefore replaces the descriptor with `/dev/null`.
#[derive(Debug)]
pub(crate) struct LockFile {
    /// `None` only during drop.
    file: Option<File>,
}

impl LockFile {
    /// Opens a file with `open`. No `fork` can happen before its descriptor is registered.
    pub(crate) fn open(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        fork::install()?;
        let mut inherited = fork::inherited();
        let file = open()?;
        inherited.push(file.as_raw_fd());
        Ok(Self { file: Some(file) })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("open until dropped")
    }

    /// Takes the lock if it is free; returns false if it is not.
    pub(crate) fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        let operation = if exclusive {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match rustix::io::retry_on_intr(|| rustix::fs::flock(self.file(), operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::fs::flock(self.file(), FlockOperation::Unlock)
        })?)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let descriptor = self.file().as_raw_fd();
        let mut inherited = fork::inherited();
        if let Some(index) = inherited.iter().position(|other| *other == descriptor) {
            inherited.swap_remove(index);
        }
        // Closed while no thread can fork, or a child could keep a file open that is not on the
        // list.
        self.file = None;
    }
}

/// How many forks lie between this process and the one that opened its first lock file. Unlike a
/// process id, it differs between parent and child in every case: both can be process 1 of a pid
/// namespace.
pub(crate) fn generation() -> u64 {
    fork::GENERATION.load(std::sync::atomic::Ordering::Relaxed)
}

mod fork {
    use std::{
        cell::RefCell,
        ffi::c_int,
        io,
        os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        sync::{
            Mutex, MutexGuard, OnceLock, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use rustix::fs::OFlags;

    type Descriptors = MutexGuard<'static, Vec<RawFd>>;

    /// Descriptors that a child must not inherit.
    static INHERITED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    /// `/dev/null`, which replaces them.
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    /// See [`generation`](super::generation).
    pub(super) static GENERATION: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        /// The lock on `INHERITED`, held from before a fork until after it, in parent and child.
        static DURING_FORK: RefCell<Option<Descriptors>> = const { RefCell::new(None) };
    }

    // POSIX; in every libc that std links to.
    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> c_int;
    }

    pub(super) fn inherited() -> Descriptors {
        INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Installs the handlers that run at every later `fork`, once per process.
    pub(super) fn install() -> io::Result<()> {
        static INSTALLED: Mutex<bool> = Mutex::new(false);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let nothing = rustix::fs::open(c"/dev/null", flags, rustix::fs::Mode::empty())?;
            NOTHING.get_or_init(|| nothing);
            // SAFETY: the handlers are functions without captured state, which exist until the
            // program ends.
            let failed = unsafe {
                pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child))
            };
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            *installed = true;
        }
        Ok(())
    }

    unsafe extern "C" fn before() {
        let guard = inherited();
        drop(DURING_FORK.try_with(|slot| slot.replace(Some(guard))));
    }

    unsafe extern "C" fn after_in_parent() {
        drop(DURING_FORK.try_with(RefCell::take));
    }

    /// Calls only `dup2` and `fcntl`, which a child of a threaded program may call.
    unsafe extern "C" fn after_in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        drop(DURING_FORK.try_with(|slot| {
            if let (Some(guard), Some(nothing)) = (slot.borrow().as_ref(), NOTHING.get()) {
                for descriptor in guard.iter() {
                    replace(*descriptor, nothing);
                }
            }
            slot.take()
        }));
    }

    fn replace(descriptor: RawFd, with: &OwnedFd) {
        // SAFETY: the descriptor is open, since its `LockFile` takes it off the list before it
        // closes it. `forget` below leaves it to that `LockFile`.
        let mut old = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // A failure can't be reported here. `LockError::Forked` still keeps the child off the lock.
        rustix::io::retry_on_intr(|| rustix::io::dup2(with, &mut old)).ok();
        rustix::io::fcntl_setfd(&old, rustix::io::FdFlags::CLOEXEC).ok();
        debug_assert_eq!(old.as_raw_fd(), descriptor);
        std::mem::forget(old);
    }
}

pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::Monotonic))
}

/// The clock from which the kernel takes the times of files: the time of day at its last tick.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn tick_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::RealtimeCoarse))
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

pub(crate) fn file_state(file: &File) -> io::Result<FileState> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(state) = state_without_times(file, Path::new(""), AtFlags::EMPTY_PATH)? {
        return Ok(state);
    }
    Ok(state_of_stat(&rustix::fs::fstat(file)?))
}

/// When a file was made, in nanoseconds since 1970. Does not change while it exists. All processes
/// have to get the same answer, and the standard library asks only where it is built for glibc.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn made_ns(file: &File) -> Option<u64> {
    use rustix::fs::{StatxFlags, statx};

    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let is_known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    let made = &found.stx_btime;
    let since_1970 = Duration::new(u64::try_from(made.tv_sec).ok()?, made.tv_nsec);
    u64::try_from(since_1970.as_nanos())
        .ok()
        .filter(|_| is_known)
}

/// When a file was made, in nanoseconds since 1970. Does not change while it exists.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn made_ns(file: &File) -> Option<u64> {
    let made = file.metadata().and_then(|metadata| metadata.created());
    let made = made.ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(made.as_nanos()).ok()
}

/// The state of the file `name` in an open directory.
pub(super) fn file_state_at(dir: BorrowedFd<'_>, name: &Path) -> io::Result<FileState> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(state) = state_without_times(dir, name, AtFlags::empty())? {
        return Ok(state);
    }
    Ok(state_of_stat(&rustix::fs::statat(
        dir,
        name,
        AtFlags::empty(),
    )?))
}

/// Does not ask for the times of a file. Since Linux 6.13, a file whose times were asked for gets a
/// new one at the next write, which dirties its inode: a third more time for each sync of a
/// segment.
///
/// `None` where the system doesn't know this call.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn state_without_times(
    dir: impl std::os::fd::AsFd,
    name: &Path,
    flags: AtFlags,
) -> io::Result<Option<FileState>> {
    use rustix::fs::{StatxFlags, makedev, statx};

    let wanted = StatxFlags::TYPE
        .union(StatxFlags::NLINK)
        .union(StatxFlags::INO)
        .union(StatxFlags::SIZE)
        .union(StatxFlags::BLOCKS);
    match statx(dir, name, flags, wanted) {
        Ok(found) => Ok(Some(FileState {
            len_bytes: found.stx_size,
            has_space: found.stx_blocks > 0,
            links: u64::from(found.stx_nlink),
            identity: (
                makedev(found.stx_dev_major, found.stx_dev_minor),
                found.stx_ino,
            ),
        })),
        Err(Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn state_of_stat(stat: &rustix::fs::Stat) -> FileState {
    #[allow(
        clippy::allow_attributes,
        clippy::useless_conversion,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the fields' types differ between systems"
    )]
    FileState {
        len_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        has_space: stat.st_blocks > 0,
        links: u64::from(stat.st_nlink),
        identity: (stat.st_dev as u64, stat.st_ino as u64),
    }
}

/// Lengthens a file to `len_bytes` and allocates disk space for all of it, where the filesystem
/// can.
pub(crate) fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        let reserved =
            rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len_bytes));
        if !matches!(reserved, Err(Errno::OPNOTSUPP | Errno::NOSYS)) {
            return Ok(reserved?);
        }
    }
    file.set_len(len_bytes.max(file.metadata()?.len()))
}

/// Marks a file, for as long as it is open here or in a forked child, so that [`is_vouched`] is
/// true for all others.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn vouch(file: &File) -> bool {
    set_ofd_lock(file, libc::F_RDLCK, WHOLE_PAGE)
}

/// Whether a living process other than those that share this open file has marked it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_vouched(file: &File) -> bool {
    others_ofd_lock(file, WHOLE_PAGE) == Some(kind(libc::F_RDLCK))
}

/// Claims a number of a file, for as long as it is open here or in a forked child. False if it is
/// claimed already by others.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn claim(file: &File, number: u64) -> bool {
    claim_range(number).is_some_and(|range| set_ofd_lock(file, libc::F_WRLCK, range))
}

/// Whether a living process other than those that share this open file has claimed the number.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_claimed(file: &File, number: u64) -> bool {
    let lock = claim_range(number).and_then(|range| others_ofd_lock(file, range));
    lock == Some(kind(libc::F_WRLCK))
}

/// The first byte, and how many.
#[cfg(any(target_os = "linux", target_os = "android"))]
type Range = (libc::off_t, libc::off_t);

#[cfg(any(target_os = "linux", target_os = "android"))]
const WHOLE_PAGE: Range = (0, 4096);

/// Bytes far behind the end of any page, which need not be there. `None` where there is no
/// such offset.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn claim_range(number: u64) -> Option<Range> {
    let number = libc::off_t::try_from(number).ok()?;
    Some((number.checked_add(1 << 30)?, 1))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_ofd_lock(file: &File, of: libc::c_int, range: Range) -> bool {
    let mut lock = ofd_lock(of, range);
    // SAFETY: the descriptor is open, and the call only reads `lock`.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) == 0 }
}

/// The kind of a lock that another open file has of these bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn others_ofd_lock(file: &File, range: Range) -> Option<libc::c_short> {
    let mut lock = ofd_lock(libc::F_WRLCK, range);
    // SAFETY: the descriptor is open, and `lock` has room for the answer.
    let failed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    (failed == 0 && lock.l_type != kind(libc::F_UNLCK)).then_some(lock.l_type)
}

/// A lock of bytes of a file that belongs to the open file, as `flock`, but can be asked for
/// without taking it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ofd_lock(of: libc::c_int, (start, len): Range) -> libc::flock {
    libc::flock {
        l_type: kind(of),
        l_whence: kind(libc::SEEK_SET),
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn kind(of: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(of).unwrap_or_else(|_| unreachable!("a small number"))
}

/// Never here: nothing asks who lives without taking the lock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn claim(_file: &File, _number: u64) -> bool {
    false
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_claimed(_file: &File, _number: u64) -> bool {
    false
}

/// Never here: all processes of a machine see one boot id.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn vouch(_file: &File) -> bool {
    false
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_vouched(_file: &File) -> bool {
    false
}

/// Why a page of a file can't be changed although it has space: asks for more.
pub(crate) fn why_no_room(file: &File, len_bytes: u64) -> io::Error {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        let more = fallocate(file, FallocateFlags::KEEP_SIZE, len_bytes, len_bytes);
        if let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) = more {
            return error.into();
        }
    }
    let _ = (file, len_bytes);
    io::ErrorKind::StorageFull.into()
}

/// Never true here: an open file can be opened, renamed and removed.
pub(crate) fn is_in_use(_error: &io::Error) -> bool {
    false
}

/// Never true here, either.
pub(crate) fn may_be_in_use(_error: &io::Error) -> bool {
    false
}

pub(crate) use std::fs::rename;

/// Reads a small file of the kernel's, whose length no system call says. A program that lives for a
/// few milliseconds notices a dozen reads.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn read_proc(path: &str) -> io::Result<String> {
    use std::io::Read as _;
    let mut file = File::open(path)?;
    let (mut bytes, mut len) = (vec![0; 4096], 0);
    loop {
        match file.read(bytes.get_mut(len..).unwrap_or_default())? {
            0 => break,
            read => len += read,
        }
        if len == bytes.len() {
            bytes.resize(2 * len, 0);
        }
    }
    bytes.truncate(len);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The kernel's boot id, where it has one.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn boot_id() -> Option<String> {
    let id = read_proc("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// The UUID that the kernel draws at each boot.
#[cfg(target_vendor = "apple")]
pub(crate) fn boot_id() -> Option<String> {
    use std::ffi::{CStr, c_char, c_int, c_void};

    // In the libc that std links to.
    unsafe extern "C" {
        fn sysctlbyname(
            name: *const c_char,
            old: *mut c_void,
            old_len_bytes: *mut usize,
            new: *mut c_void,
            new_len_bytes: usize,
        ) -> c_int;
    }
    let mut id = [0_u8; 64];
    let mut len_bytes = id.len();
    // SAFETY: the name ends with a zero, `id` has room for `len_bytes` bytes, and nothing is set.
    let failed = unsafe {
        sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            id.as_mut_ptr().cast(),
            &raw mut len_bytes,
            std::ptr::null_mut(),
            0,
        )
    };
    if failed != 0 {
        return None;
    }
    let id = CStr::from_bytes_until_nul(&id).ok()?.to_str().ok()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// When a process started, in hundredths of a second after boot. `None` if it has ended (a zombie
/// holds no lock any more), if it can't be seen, or where the system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn process_started(pid: u32) -> Option<u64> {
    let stat = read_proc(&format!("/proc/{pid}/stat")).ok()?;
    // The command is in parentheses and may contain spaces and parentheses itself.
    let (_, after_command) = stat.rsplit_once(") ")?;
    let mut fields = after_command.split(' ');
    let state = fields.next()?;
    if ["Z", "X", "x"].contains(&state) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn running_for(started: u64) -> Duration {
    let up = Duration::from_nanos(nanoseconds(rustix::time::clock_gettime(ClockId::Boottime)));
    up.saturating_sub(Duration::from_millis(started.saturating_mul(10)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn process_started(_pid: u32) -> Option<u64> {
    None
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn running_for(_started: u64) -> Duration {
    Duration::ZERO
}
