//! Serves a [`VirtualDisk`] to the kernel, until the power is cut.
//!
//! All processes of the machine see one page cache, since all of them go through one mount: shared
//! mappings and the kernel's own `flock` work as on any local disk. Each write and each sync
//! reaches this process at once; writes through a mapping come when the kernel writes them back.
//!
//! Unless it is to stay ([`PowerFs::serve_at`]), the mount point is detached at once: the
//! filesystem can be reached only through an open descriptor of this process ([`PowerFs::path`]).
//! So nothing is left mounted, however this process dies: the kernel ends the filesystem with it.
//! This process must not map files of it, or wait for them while it is frozen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session,
    TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;

use crate::held::{Beginning, release_mount, unmount_by_force};
use crate::sim::disk::{Attributes, InodeId, VirtualDisk};

/// The kernel need not ask again: nothing changes behind its back.
const VALID: Duration = Duration::from_hours(24);
/// How often it is looked whether the kernel has let go of a filesystem that is no longer used, and
/// how many times at most. Looks are counted, as all of this may have been stopped meanwhile.
const END_INTERVAL: Duration = Duration::from_millis(10);
const END_LOOKS_MAX: u32 = 1_000;
const BLOCK_BYTES: u32 = 4096;

/// A filesystem that is served.
#[derive(Debug)]
pub struct PowerFs {
    shared: Arc<Shared>,
    /// The only way to it, unless it is mounted or being dropped.
    root: Option<File>,
    mounted: Option<PathBuf>,
    path: PathBuf,
    ended: Receiver<io::Result<()>>,
}

/// Where the power goes by itself: at the first request of this kind after a number of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tripwire {
    /// Which requests count.
    pub counts: Counts,
    /// How many of them pass.
    pub passes: u32,
    /// Whether the one at which the power goes is still done. It is not answered in any case.
    pub is_done: bool,
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// All that change something or sync it.
    Changes,
    /// Syncs of a file.
    FileSyncs,
    /// Syncs of a directory.
    DirSyncs,
    /// New names, renames and removals.
    Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Look,
    Write,
    Name,
    FileSync,
    DirSync,
}

impl Counts {
    fn includes(self, kind: Kind) -> bool {
        match self {
            Counts::Changes => kind != Kind::Look,
            Counts::FileSyncs => kind == Kind::FileSync,
            Counts::DirSyncs => kind == Kind::DirSync,
            Counts::Names => kind == Kind::Name,
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    cut: Condvar,
    began: SystemTime,
}

struct State {
    disk: VirtualDisk,
    power: Power,
    tripwire: Option<Tripwire>,
    /// Answers that are held back until the processes that wait for them have been killed.
    parked: Vec<Box<dyn FnOnce() + Send>>,
    /// The entries of directories when they were opened.
    listings: HashMap<u64, Vec<(Arc<str>, InodeId)>>,
    next_listing: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("power", &self.power)
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// No request is done, and none is answered.
    Off,
    /// No request is done, and each gets an error.
    Over,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why filesystems can't be served here; `None` when they can.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may mount a filesystem".to_owned());
    }
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = opened {
        return Some(format!("/dev/fuse: {error}"));
    }
    let mounted =
        tempfile::tempdir().and_then(|dir| PowerFs::serve(VirtualDisk::new(), dir.path()));
    let ended = mounted.and_then(PowerFs::end);
    ended
        .err()
        .map(|error| format!("cannot mount a filesystem: {error}"))
}

impl PowerFs {
    /// Serves `disk`. `mount_point` is an empty directory that is needed for a moment only.
    ///
    /// # Errors
    /// The system refuses: no root, no `/dev/fuse`.
    pub fn serve(disk: VirtualDisk, mount_point: &Path) -> io::Result<PowerFs> {
        let mut served = PowerFs::serve_at(disk, mount_point)?;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::PATH.bits().cast_signed())
            .open(mount_point);
        // Detached also where it could not be opened: the filesystem ends with its last user.
        served.detach(false)?;
        let root = root?;
        served.path = format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd()).into();
        served.root = Some(root);
        Ok(served)
    }

    /// Serves `disk` at `mount_point`, an empty directory, where it stays mounted as long as this
    /// lives: a program that asks for its working directory needs a path to the root.
    ///
    /// # Errors
    /// The system refuses: no root, no `/dev/fuse`.
    pub fn serve_at(disk: VirtualDisk, mount_point: &Path) -> io::Result<PowerFs> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                disk,
                power: Power::On,
                tripwire: None,
                parked: Vec::new(),
                listings: HashMap::new(),
                next_listing: 1,
            }),
            cut: Condvar::new(),
            began: SystemTime::now(),
        });
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("powerfs".to_owned()),
            MountOption::NoAtime,
        ];
        let beginning = Beginning::new();
        let session = Session::new(Served(Arc::clone(&shared)), mount_point, &config)?;
        beginning.hold_mount(mount_point);
        let (sender, ended) = crossbeam_channel::unbounded();
        std::thread::Builder::new()
            .name("powerfs".to_owned())
            .spawn(move || sender.send(session.run()))?;
        Ok(PowerFs {
            shared,
            root: None,
            mounted: Some(mount_point.to_owned()),
            path: mount_point.to_owned(),
            ended,
        })
    }

    fn detach(&mut self, by_force: bool) -> io::Result<()> {
        match self.mounted.take() {
            Some(mount_point) => {
                if by_force {
                    unmount_by_force(&mount_point)?;
                } else {
                    rustix::mount::unmount(&mount_point, UnmountFlags::DETACH)?;
                }
                release_mount(&mount_point);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Its root directory, for every process that may look into this one.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the power go by itself.
    pub fn arm(&self, tripwire: Tripwire) {
        self.shared.state().tripwire = Some(tripwire);
    }

    /// Waits for the power to go, for `time` at most; whether it has gone.
    #[must_use]
    pub fn is_cut_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.shared.state();
        while state.power == Power::On {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.cut.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Cuts the power: from now on nothing is stored, nothing becomes durable, and no request is
    /// answered.
    pub fn cut(&self) {
        self.shared.state().cut();
        self.shared.cut.notify_all();
    }

    /// Answers all waiting requests, and all later ones, with an error. Call this when every
    /// process that uses the filesystem has been sent a signal that kills it: such a process can't
    /// die before it has its answer.
    pub fn release(&self) {
        let parked = {
            let mut state = self.shared.state();
            state.power = Power::Over;
            std::mem::take(&mut state.parked)
        };
        self.shared.cut.notify_all();
        for answer in parked {
            answer();
        }
    }

    /// Looks at what is stored.
    pub fn with_disk<T>(&self, look: impl FnOnce(&mut VirtualDisk) -> T) -> T {
        look(&mut self.shared.state().disk)
    }

    /// Ends the filesystem. One that does not stay mounted must no longer be in use.
    ///
    /// # Errors
    /// It is still in use, or serving it failed.
    pub fn end(mut self) -> io::Result<()> {
        self.close();
        for _ in 0..END_LOOKS_MAX {
            return match self.ended.recv_timeout(END_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => continue,
                // The kernel has given the connection up.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
                Ok(ended) => ended,
                Err(RecvTimeoutError::Disconnected) => {
                    Err(io::Error::other("the filesystem has panicked"))
                }
            };
        }
        Err(io::Error::other(
            "the filesystem that is to end is still in use",
        ))
    }

    fn close(&mut self) {
        self.release();
        // By force: a process that is still dying, or a mount namespace that was made meanwhile and
        // has a copy of the mount, may have it for any time. One that is not mounted ends with its
        // last user.
        drop(self.detach(true));
        self.root = None;
    }
}

impl Drop for PowerFs {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn cut(&mut self) {
        if self.power == Power::On {
            self.power = Power::Off;
        }
    }

    /// Whether the power goes with this request, and if so, whether it is still done.
    fn trips(&mut self, kind: Kind) -> Option<bool> {
        let tripwire = self.tripwire.as_mut()?;
        if !tripwire.counts.includes(kind) {
            return None;
        }
        let is_done = tripwire.is_done;
        match tripwire.passes.checked_sub(1) {
            Some(left) => {
                tripwire.passes = left;
                None
            }
            None => Some(is_done),
        }
    }
}

/// The side that the kernel talks to.
struct Served(Arc<Shared>);

/// A reply that can also be an error.
trait Reply: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! replies {
    ($($name:ident),+) => {
        $(impl Reply for $name {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })+
    };
}

replies!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite
);

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        io::ErrorKind::FileTooLarge => Errno::EFBIG,
        _ => Errno::EINVAL,
    }
}

impl Served {
    /// Carries out one request and answers it, unless there is no power.
    fn answer<R: Reply, T>(
        &self,
        kind: Kind,
        reply: R,
        work: impl FnOnce(&mut State) -> io::Result<T>,
        say: impl FnOnce(R, T),
    ) {
        let mut state = self.0.state();
        let trips = match state.power {
            Power::On => state.trips(kind),
            Power::Off => Some(false),
            Power::Over => {
                drop(state);
                return reply.refuse(Errno::EIO);
            }
        };
        let done = match trips {
            None => work(&mut state),
            Some(is_done) => {
                if is_done {
                    // The result reaches no process.
                    drop(work(&mut state));
                }
                state.cut();
                state.parked.push(Box::new(|| reply.refuse(Errno::EIO)));
                drop(state);
                return self.0.cut.notify_all();
            }
        };
        drop(state);
        match done {
            Ok(done) => say(reply, done),
            Err(error) => reply.refuse(errno(&error)),
        }
    }

    fn attr(&self, id: InodeId, attributes: Attributes) -> FileAttr {
        let Attributes {
            is_dir,
            len_bytes,
            names,
        } = attributes;
        let (kind, perm) = if is_dir {
            (FileType::Directory, 0o755)
        } else {
            (FileType::RegularFile, 0o644)
        };
        let began = self.0.began;
        FileAttr {
            ino: INodeNo(id.number()),
            size: len_bytes,
            blocks: len_bytes.div_ceil(512),
            atime: began,
            mtime: began,
            ctime: began,
            crtime: began,
            kind,
            perm,
            nlink: names,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }

    /// Carries out a request that leads to a file.
    fn entry(
        &self,
        kind: Kind,
        reply: ReplyEntry,
        work: impl FnOnce(&mut VirtualDisk) -> io::Result<InodeId>,
    ) {
        self.answer(
            kind,
            reply,
            |state| {
                let id = work(&mut state.disk)?;
                Ok((id, state.disk.attributes(id)?))
            },
            |reply, (id, attributes)| {
                reply.entry(&VALID, &self.attr(id, attributes), Generation(0));
            },
        );
    }

    /// Carries out a request without a result.
    fn act(
        &self,
        kind: Kind,
        reply: ReplyEmpty,
        work: impl FnOnce(&mut VirtualDisk) -> io::Result<()>,
    ) {
        let work = |state: &mut State| work(&mut state.disk);
        self.answer(kind, reply, work, |reply, ()| reply.ok());
    }
}

fn text(name: &OsStr) -> io::Result<&str> {
    let invalid = || io::ErrorKind::InvalidInput.into();
    name.to_str().ok_or_else(invalid)
}

fn id(ino: INodeNo) -> InodeId {
    InodeId::new(ino.0)
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(Kind::Look, reply, |disk| {
            disk.lookup_in(id(parent), text(name)?)
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(
            Kind::Look,
            reply,
            |state| state.disk.attributes(id(ino)),
            |reply, attributes| reply.attr(&VALID, &self.attr(id(ino), attributes)),
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let kind = if size.is_some() {
            Kind::Write
        } else {
            Kind::Look
        };
        self.answer(
            kind,
            reply,
            |state| {
                if let Some(len_bytes) = size {
                    state.disk.set_len(id(ino), len_bytes)?;
                }
                state.disk.attributes(id(ino))
            },
            |reply, attributes| reply.attr(&VALID, &self.attr(id(ino), attributes)),
        );
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.entry(Kind::Name, reply, |disk| {
            disk.create_dir_in(id(parent), text(name)?)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.act(Kind::Name, reply, |disk| {
            disk.remove_in(id(parent), text(name)?)
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.act(Kind::Name, reply, |disk| {
            disk.remove_dir_in(id(parent), text(name)?)
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.act(Kind::Name, reply, |disk| {
            if !flags.is_empty() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let (from, to) = (text(name)?, text(new_name)?);
            disk.rename_in((id(parent), from), (id(new_parent), to))
        });
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(Kind::Name, reply, |disk| {
            disk.link_in(id(ino), id(parent), text(name)?)?;
            Ok(id(ino))
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(
            Kind::Look,
            reply,
            // Never closed: the kernel may write back what was mapped after the last close.
            |state| state.disk.open_inode(id(ino)),
            |reply, ()| reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.answer(
            Kind::Name,
            reply,
            |state| {
                let name = text(name)?;
                let is_exclusive =
                    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::EXCL);
                let id = match state.disk.create_in(id(parent), name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_exclusive => {
                        state.disk.lookup_in(id(parent), name)?
                    }
                    created => created?,
                };
                state.disk.open_inode(id)?;
                Ok((id, state.disk.attributes(id)?))
            },
            |reply, (id, attributes)| {
                let attr = self.attr(id, attributes);
                let keep = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&VALID, &attr, Generation(0), FileHandle(0), keep);
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer(
            Kind::Look,
            reply,
            |state| {
                let mut bytes = vec![0; size as usize];
                let len = state.disk.read_at(id(ino), &mut bytes, offset)?;
                bytes.truncate(len);
                Ok(bytes)
            },
            |reply, bytes| reply.data(&bytes),
        );
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.answer(
            Kind::Write,
            reply,
            |state| {
                let len = state.disk.write_at(id(ino), data, offset)?;
                u32::try_from(len).map_err(io::Error::other)
            },
            ReplyWrite::written,
        );
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.act(Kind::FileSync, reply, |disk| disk.sync_data(id(ino)));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.act(Kind::DirSync, reply, |disk| disk.sync_dir_inode(id(ino)));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(
            Kind::Look,
            reply,
            |state| {
                let entries = state.disk.entries(id(ino))?;
                let handle = state.next_listing;
                state.next_listing += 1;
                state.listings.insert(handle, entries);
                Ok(handle)
            },
            |reply, handle| reply.opened(FileHandle(handle), FopenFlags::empty()),
        );
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.0.state();
        if state.power != Power::On {
            drop(state);
            return self.answer(Kind::Look, reply, |_| Ok(()), |reply, ()| reply.ok());
        }
        let entries = state.listings.get(&handle.0);
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (name, id)) in (1..).zip(entries.into_iter().flatten()).skip(first) {
            let is_dir = state.disk.attributes(*id).is_ok_and(|found| found.is_dir);
            let kind = if is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(id.number()), next, kind, &**name) {
                break;
            }
        }
        drop(state);
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.state().listings.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files) = (1 << 30, 1 << 30);
        self.answer(
            Kind::Look,
            reply,
            |_| Ok(()),
            |reply, ()| {
                reply.statfs(
                    blocks,
                    blocks,
                    blocks,
                    files,
                    files,
                    BLOCK_BYTES,
                    255,
                    BLOCK_BYTES,
                );
            },
        );
    }
}
