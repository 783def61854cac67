use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::retry_on_intr,
};

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::unix::tick_ns;
use super::{change::Change, file_state::FileState, open_mode::OpenMode, unix::file_state_at};

/// A descriptor of a directory, to which names are relative.
#[derive(Debug)]
pub(crate) struct Dir(File);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Dir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(rustix::fs::CWD, path)
    }

    pub(crate) fn open_dir(&self, name: &Path) -> io::Result<Self> {
        Self::open_at(self.0.as_fd(), name)
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path) -> io::Result<Self> {
        let opened = retry_on_intr(|| rustix::fs::openat(at, name, DIRECTORY, Mode::empty()))?;
        Ok(Self(opened.into()))
    }

    pub(crate) fn open_file(&self, name: &Path, mode: OpenMode) -> io::Result<File> {
        let flags = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let permissions = Mode::from_raw_mode(0o666);
        let open = || rustix::fs::openat(&self.0, name, flags | OFlags::CLOEXEC, permissions);
        Ok(retry_on_intr(open)?.into())
    }

    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            if let Ok(name) = entry?.file_name().to_str()
                && ![".", ".."].contains(&name)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(crate) fn create_dir(&self, name: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &self.0,
            name,
            Mode::from_raw_mode(0o777),
        )?)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    pub(crate) fn state_of(&self, name: &Path) -> io::Result<FileState> {
        file_state_at(self.0.as_fd(), name)
    }

    /// The last change of a name in it; `None` once it was removed.
    pub(crate) fn last_change(&self) -> io::Result<Option<Change>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let tick_ns = tick_ns();
        let stat = rustix::fs::fstat(&self.0)?;
        #[allow(
            clippy::allow_attributes,
            clippy::useless_conversion,
            clippy::unnecessary_fallible_conversions,
            reason = "the fields' types differ between systems"
        )]
        let (seconds, rest) = (
            u64::try_from(stat.st_ctime).unwrap_or(0),
            u64::try_from(stat.st_ctime_nsec).unwrap_or(0),
        );
        let change = Change {
            at_ns: seconds.saturating_mul(1_000_000_000).saturating_add(rest),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            clock_ns: is_of_a_disk(&stat).then_some(tick_ns),
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            clock_ns: None,
        };
        Ok((stat.st_nlink > 0).then_some(change))
    }

    /// Whether the filesystem is on a block device of this machine.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn is_on_a_disk(&self) -> io::Result<bool> {
        Ok(is_of_a_disk(&rustix::fs::fstat(&self.0)?))
    }
}

/// Whether a filesystem is on a block device of this machine, and so takes its times from the clock
/// of this kernel, or (a program behind FUSE) from one that is never behind it. Network filesystems
/// have no such device.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_of_a_disk(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::major(stat.st_dev) != 0
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
