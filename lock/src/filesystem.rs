use std::{io, path::Path};

use crate::sys;

/// The filesystem that a directory is on: returned by [`filesystem_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filesystem {
    /// Whether locks and shared pages work for every process that can reach it.
    pub kind: FilesystemKind,
    /// Its name, or its number where the system gives no name.
    pub name: String,
}

impl Filesystem {
    /// Describes a filesystem, as [`filesystem_of`] does.
    #[must_use]
    pub fn new(kind: FilesystemKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }
}

/// Whether a filesystem can be trusted with locks and shared pages: see [`filesystem_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilesystemKind {
    /// On this machine: every process that reaches it shares locks and mapped pages.
    Local,
    /// Reached by other machines too, which do not share mapped pages and often not even locks.
    Network,
    /// Served by a program of which nothing is known.
    UnknownFuse,
}

/// Asks the system which filesystem `dir` is on. Blocks no longer than the system does.
///
/// # Errors
/// The system's, for example when `dir` does not exist.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let filesystem = strand_lock::filesystem_of(dir.path())?;
/// println!("{:?} ({})", filesystem.kind, filesystem.name);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn filesystem_of(dir: impl AsRef<Path>) -> io::Result<Filesystem> {
    of(&sys::Dir::open(dir.as_ref())?)
}

/// The kind alone, which is known without a look at the table of mounts for most disks.
pub(crate) fn kind_of(dir: &sys::Dir) -> io::Result<FilesystemKind> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if system::is_on_a_local_disk(dir)? {
        return Ok(FilesystemKind::Local);
    }
    Ok(system::filesystem(dir)?.0)
}

pub(crate) fn of(dir: &sys::Dir) -> io::Result<Filesystem> {
    let (kind, name) = system::filesystem(dir)?;
    Ok(Filesystem { kind, name })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use super::{FilesystemKind, io, sys};

    /// Magic numbers of `statfs(2)` and of the kernel's `magic.h`, and the names in mountinfo.
    const NETWORK: &[(u64, &[&str])] = &[
        (0x6969, &["nfs", "nfs4"]),
        (0x517b, &["smb", "smbfs"]),
        (0xff53_4d42, &["cifs"]),
        (0xfe53_4d42, &["smb2", "smb3"]),
        (0x0102_1997, &["9p"]),
        (0x5346_414f, &["afs"]),
        (0x6b41_4653, &["kafs"]),
        (0x7375_7245, &["coda"]),
        (0x564c, &["ncp", "ncpfs"]),
        (0x00c3_6400, &["ceph"]),
        (0x0bd0_0bd0, &["lustre"]),
        (0x4750_4653, &["gpfs"]),
        (0x1983_0326, &["fhgfs", "beegfs"]),
        (0x786f_4256, &["vboxsf"]),
        (0xaad7_aaea, &["panfs"]),
        (0x2003_0528, &["orangefs", "pvfs2"]),
        (0xbacb_acbc, &["vmhgfs"]),
        (0x7c7c_6673, &["prl_fs"]),
        (0x0116_1970, &["gfs2"]),
        (0x7461_636f, &["ocfs2"]),
    ];
    const FUSE: u64 = 0x6573_5546;
    /// Filesystems of this machine, while they are on a block device of its own: ext, XFS, F2FS.
    const OF_A_DISK: &[u64] = &[0xef53, 0x5846_5342, 0xf2f5_2010];

    pub(super) fn is_on_a_local_disk(dir: &sys::Dir) -> io::Result<bool> {
        // 9p gives the number of the filesystem that its server is on, and no such device.
        Ok(OF_A_DISK.contains(&magic(dir)?) && dir.is_on_a_disk()?)
    }

    fn magic(dir: &sys::Dir) -> io::Result<u64> {
        #[allow(
            clippy::allow_attributes,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the field's type differs between machines"
        )]
        Ok(rustix::fs::fstatfs(dir.as_fd())?.f_type as u64 & 0xffff_ffff)
    }

    pub(super) fn filesystem(dir: &sys::Dir) -> io::Result<(FilesystemKind, String)> {
        let magic = magic(dir)?;
        let descriptor = dir.as_fd().as_raw_fd();
        let mount = sys::read_proc(&format!("/proc/self/fdinfo/{descriptor}"))
            .ok()
            .zip(sys::read_proc("/proc/self/mountinfo").ok());
        let mounted = mount.and_then(|(about, table)| mounted_as(&about, &table));
        Ok(judge(magic, mounted.as_deref()))
    }

    /// Judges by both numbers and names: 9p passes on the number of the filesystem that its server
    /// is on.
    fn judge(magic: u64, mounted: Option<&str>) -> (FilesystemKind, String) {
        let network = NETWORK.iter().find(|(number, names)| {
            *number == magic || mounted.is_some_and(|mounted| names.contains(&mounted))
        });
        let kind = match (network, mounted) {
            (Some(_), _) => FilesystemKind::Network,
            // A block device behind FUSE (ntfs-3g, exfat) is on this machine only.
            (None, Some("fuseblk")) => FilesystemKind::Local,
            (None, Some("fuse" | "virtiofs")) => FilesystemKind::UnknownFuse,
            (None, Some(name)) if name.starts_with("fuse.") => FilesystemKind::UnknownFuse,
            (None, _) if magic == FUSE => FilesystemKind::UnknownFuse,
            (None, _) => FilesystemKind::Local,
        };
        let by_number = || match network {
            Some((_, [name, ..])) => (*name).to_owned(),
            _ if magic == FUSE => "fuse".to_owned(),
            _ => format!("{magic:#x}"),
        };
        (kind, mounted.map_or_else(by_number, str::to_owned))
    }

    /// The type of the mount that an open file is on: `about` is what `/proc/self/fdinfo` says of
    /// it, `table` is in the format of `/proc/self/mountinfo`.
    fn mounted_as(about: &str, table: &str) -> Option<String> {
        let id = about
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))?;
        let mounts = table.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            Some((mount.split(' ').next()?, filesystem.split(' ').next()?))
        });
        let mut mounts = mounts.filter(|(mount, _)| *mount == id.trim());
        mounts.next().map(|(_, name)| name.to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::{FUSE, FilesystemKind, judge, mounted_as};

        const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 0:31 / /home rw shared:2 master:1 - fuse.sshfs host:/ rw
37 21 0:32 / /mnt/my\\040disk rw - fuseblk /dev/sdb1 rw
38 21 0:33 / /srv rw - nfs4 host:/srv rw
39 38 0:34 / /srv rw - 9p host rw,trans=virtio
not a mount
";

        fn mounted(id: u32) -> Option<String> {
            let about = format!("pos:\t0\nflags:\t0200000\nmnt_id:\t{id}\nino:\t2\n");
            mounted_as(&about, TABLE)
        }

        #[test]
        fn the_mount_that_the_file_is_on_counts() {
            let types = [21, 36, 37, 38, 39].map(|id| mounted(id).unwrap());
            assert_eq!(types, ["ext4", "fuse.sshfs", "fuseblk", "nfs4", "9p"]);
            assert_eq!(mounted(3), None);
            assert_eq!(mounted_as("pos:\t0\n", TABLE), None);
        }

        #[test]
        fn a_filesystem_that_passes_for_that_of_its_server_is_known_by_its_name() {
            const EXT4: u64 = 0xef53;
            let kind = |magic, id| judge(magic, mounted(id).as_deref()).0;
            assert_eq!(kind(EXT4, 39), FilesystemKind::Network);
            assert_eq!(kind(EXT4, 38), FilesystemKind::Network);
            assert_eq!(kind(0x6969, 3), FilesystemKind::Network);
            assert_eq!(kind(EXT4, 21), FilesystemKind::Local);
            assert_eq!(kind(FUSE, 36), FilesystemKind::UnknownFuse);
            assert_eq!(kind(FUSE, 37), FilesystemKind::Local);
            assert_eq!(kind(FUSE, 3), FilesystemKind::UnknownFuse);
            assert_eq!(judge(EXT4, Some("9p")).1, "9p");
            assert_eq!(judge(0x6969, None).1, "nfs");
            assert_eq!(judge(EXT4, None).1, "0xef53");
        }
    }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
mod system {
    use std::os::fd::AsFd as _;

    use super::{FilesystemKind, io, sys};

    const NETWORK: &[&str] = &[
        "nfs", "smbfs", "cifs", "afpfs", "webdav", "ftp", "9p", "afs", "coda",
    ];

    pub(super) fn filesystem(dir: &sys::Dir) -> io::Result<(FilesystemKind, String)> {
        let stat = rustix::fs::fstatfs(dir.as_fd())?;
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
        Ok((kind, name))
    }
}

#[cfg(windows)]
mod system {
    use std::path::{Component, Prefix};

    use super::{FilesystemKind, io, sys};

    pub(super) fn filesystem(dir: &sys::Dir) -> io::Result<(FilesystemKind, String)> {
        let Some(Component::Prefix(prefix)) = dir.path().components().next() else {
            return Ok((FilesystemKind::Local, "unknown".to_owned()));
        };
        let remote = match prefix.kind() {
            Prefix::UNC(..) | Prefix::VerbatimUNC(..) => true,
            Prefix::Disk(letter) | Prefix::VerbatimDisk(letter) => sys::is_remote_drive(letter),
            _ => false,
        };
        let kind = if remote {
            FilesystemKind::Network
        } else {
            FilesystemKind::Local
        };
        Ok((kind, prefix.as_os_str().to_string_lossy().into_owned()))
    }
}
