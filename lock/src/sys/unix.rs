use std::{
    cell::RefCell,
    ffi::c_int,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
    time::ClockId,
};

use super::{FileState, Refusal};

/// An open file to lock, which a forked child lets go of at once.
///
/// `flock` belongs to the open file and is freed when its last descriptor is closed, so a child's
/// inherited descriptor would keep the lock of a parent that dies. A handler that runs in the child
/// puts `/dev/null` in the descriptor's place.
#[derive(Debug)]
pub(crate) struct LockFile {
    /// `None` only while being dropped.
    file: Option<File>,
}

impl LockFile {
    /// Opens a file by `open`, with no `fork` between that and the note that it exists.
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

    /// Takes the lock if it is free; false when it is not.
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
        // Closed while nobody can fork: a child born after the note is gone would keep the file open.
        self.file = None;
    }
}

mod fork {
    use super::{
        Mutex, MutexGuard, OFlags, OnceLock, OwnedFd, PoisonError, RawFd, RefCell, c_int, io,
    };
    use crate::seeded::{FORK_KEEPS_LOCK, seeded};
    use std::os::fd::{AsRawFd, FromRawFd};

    /// Descriptors that a child must not inherit.
    static INHERITED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();

    thread_local! {
        /// The lock on `INHERITED`, kept from before the fork until after it, in parent and child.
        static DURING_FORK: RefCell<Option<MutexGuard<'static, Vec<RawFd>>>> = const { RefCell::new(None) };
    }

    // POSIX; in every libc that std links to.
    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> c_int;
    }

    pub(super) fn inherited() -> MutexGuard<'static, Vec<RawFd>> {
        INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the handlers called at every later `fork`, once for the process.
    pub(super) fn install() -> io::Result<()> {
        static INSTALLED: Mutex<bool> = Mutex::new(false);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let nothing = rustix::fs::open(c"/dev/null", flags, rustix::fs::Mode::empty())?;
            NOTHING.get_or_init(|| nothing);
            // Asked for now, since a child may not read its environment.
            seeded(FORK_KEEPS_LOCK);
            // SAFETY: the handlers are functions without captured state that live as long as the program.
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

    /// Only `dup2` and `fcntl` are called here, as a child of a threaded program may.
    unsafe extern "C" fn after_in_child() {
        drop(DURING_FORK.try_with(|slot| {
            if let (Some(guard), Some(nothing)) = (slot.borrow().as_ref(), NOTHING.get()) {
                let kept = seeded(FORK_KEEPS_LOCK);
                for descriptor in guard.iter().filter(|_| !kept) {
                    replace(*descriptor, nothing);
                }
            }
            slot.take()
        }));
    }

    fn replace(descriptor: RawFd, with: &OwnedFd) {
        // SAFETY: the descriptor is open, since its `LockFile` takes it off the list before closing
        // it; `forget` below leaves it to that `LockFile`.
        let mut old = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // Failures can't be reported here; `LockError::Forked` still keeps the child from using the lock.
        rustix::io::retry_on_intr(|| rustix::io::dup2(with, &mut old)).ok();
        rustix::io::fcntl_setfd(&old, rustix::io::FdFlags::CLOEXEC).ok();
        debug_assert_eq!(old.as_raw_fd(), descriptor);
        std::mem::forget(old);
    }
}

/// Nanoseconds of a clock that never jumps and that all processes of this machine share: times that can be told apart
/// in a [`SharedPage`](crate::SharedPage), which an [`Instant`](std::time::Instant) can't be.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

pub(crate) fn file_state(file: &File) -> io::Result<FileState> {
    let stat = rustix::fs::fstat(file)?;
    #[allow(
        clippy::allow_attributes,
        clippy::useless_conversion,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the fields' types differ between systems"
    )]
    Ok(FileState {
        len_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        has_space: stat.st_blocks > 0,
        links: u64::from(stat.st_nlink),
        identity: (stat.st_dev as u64, stat.st_ino as u64),
    })
}

/// Gives a file so many bytes, with space on the disk for all of them. Where the filesystem can't promise that, it only
/// becomes long enough.
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

/// Open files are in nobody's way here.
pub(crate) fn patiently<T>(
    _refusal: Refusal,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    call()
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A text that changes with every boot, so that what was written to shared memory before one is known as stale: in a
/// [`SharedPage`](crate::SharedPage), say.
///
/// The system's boot id on Linux and on Apple's systems; elsewhere the time of the boot, which also changes when the clock
/// is set. Change without a boot costs its user a rebuild; sameness across one would need a boot that
/// takes less than two seconds.
#[must_use]
pub fn boot_id() -> String {
    #[cfg(target_vendor = "apple")]
    let id = boot_session();
    #[cfg(not(target_vendor = "apple"))]
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    id.map_or_else(super::boot_time, |id| id.trim().to_owned())
}

/// A UUID that the kernel draws at each boot.
#[cfg(target_vendor = "apple")]
fn boot_session() -> Option<String> {
    use std::ffi::{CStr, c_char, c_void};

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
    // SAFETY: the name ends with a zero, `id` has room for as many bytes as `len_bytes` says, and nothing is set.
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

/// When a process started, in ticks of a hundredth of a second after boot. `None` when it has
/// ended (a zombie holds no lock any more), when it can't be seen, and where the system does not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn process_started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command stands in parentheses and may hold spaces and parentheses itself.
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

pub(crate) use filesystem::filesystem;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod filesystem {
    use super::{Path, io};
    use crate::{Filesystem, FilesystemKind};

    /// Magic numbers of `statfs(2)` and of the kernel's `magic.h`.
    const NETWORK: &[(u64, &str)] = &[
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x5346_414f, "afs"),
        (0x6b41_4653, "kafs"),
        (0x7375_7245, "coda"),
        (0x564c, "ncp"),
        (0x00c3_6400, "ceph"),
        (0x0bd0_0bd0, "lustre"),
        (0x4750_4653, "gpfs"),
        (0x1983_0326, "fhgfs"),
        (0x786f_4256, "vboxsf"),
        (0xaad7_aaea, "panfs"),
        (0x2003_0528, "orangefs"),
        (0xbacb_acbc, "vmhgfs"),
        (0x7c7c_6673, "prl_fs"),
        (0x0116_1970, "gfs2"),
        (0x7461_636f, "ocfs2"),
    ];
    const FUSE: u64 = 0x6573_5546;

    pub(crate) fn filesystem(dir: &Path) -> io::Result<Filesystem> {
        #[allow(
            clippy::allow_attributes,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the field's type differs between machines"
        )]
        let magic = rustix::fs::statfs(dir)?.f_type as u64 & 0xffff_ffff;
        if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
            return Ok(Filesystem {
                kind: FilesystemKind::Network,
                name: (*name).to_owned(),
            });
        }
        if magic != FUSE {
            return Ok(Filesystem {
                kind: FilesystemKind::Local,
                name: format!("{magic:#x}"),
            });
        }
        let name = dir
            .canonicalize()
            .ok()
            .zip(std::fs::read_to_string("/proc/self/mountinfo").ok())
            .and_then(|(dir, table)| mounted_as(&dir, &table))
            .unwrap_or_else(|| "fuse".to_owned());
        // A block device behind FUSE (ntfs-3g, exfat) is on this machine and nowhere else.
        let kind = if name == "fuseblk" {
            FilesystemKind::Local
        } else {
            FilesystemKind::UnknownFuse
        };
        Ok(Filesystem { kind, name })
    }

    /// The type of the mount with the longest mount point above `dir`, in a table such as
    /// `/proc/self/mountinfo`.
    fn mounted_as(dir: &Path, table: &str) -> Option<String> {
        let mounts = table.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?.replace("\\040", " ");
            let name = filesystem.split(' ').next()?;
            dir.starts_with(&point).then_some((point.len(), name))
        });
        // The last of equals lies on top.
        mounts
            .max_by_key(|(len, _)| *len)
            .map(|(_, name)| name.to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::{Path, mounted_as};

        #[test]
        fn the_innermost_and_last_mount_counts() {
            let table = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 0:31 / /home rw shared:2 master:1 - fuse.sshfs host:/ rw
37 21 0:32 / /mnt/my\\040disk rw - fuseblk /dev/sdb1 rw
38 21 0:33 / /srv rw - nfs4 host:/srv rw
39 38 0:34 / /srv rw - fuse.mergerfs a:b rw
not a mount
";
            let mounted_as = |dir| mounted_as(Path::new(dir), table).unwrap();
            assert_eq!(mounted_as("/etc"), "ext4");
            assert_eq!(mounted_as("/home"), "fuse.sshfs");
            assert_eq!(mounted_as("/homestead"), "ext4");
            assert_eq!(mounted_as("/mnt/my disk/x"), "fuseblk");
            assert_eq!(mounted_as("/srv/x"), "fuse.mergerfs");
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod filesystem {
    use super::{Path, io};
    use crate::{Filesystem, FilesystemKind};

    const NETWORK: &[&str] = &[
        "nfs", "smbfs", "cifs", "afpfs", "webdav", "ftp", "9p", "afs", "coda",
    ];

    pub(crate) fn filesystem(dir: &Path) -> io::Result<Filesystem> {
        let stat = rustix::fs::statfs(dir)?;
        #[allow(
            clippy::allow_attributes,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the type of a C char differs between machines"
        )]
        let bytes: Vec<u8> = stat
            .f_fstypename
            .iter()
            .map(|byte| *byte as u8)
            .take_while(|byte| *byte != 0)
            .collect();
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let kind = if NETWORK.contains(&name.as_str()) {
            FilesystemKind::Network
        } else if name.contains("fuse") {
            FilesystemKind::UnknownFuse
        } else {
            FilesystemKind::Local
        };
        Ok(Filesystem { kind, name })
    }
}
