use std::{io, path::Path};

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
    let (kind, name) = system::filesystem(dir.as_ref())?;
    Ok(Filesystem { kind, name })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use super::{FilesystemKind, Path, io};

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

    pub(super) fn filesystem(dir: &Path) -> io::Result<(FilesystemKind, String)> {
        #[allow(
            clippy::allow_attributes,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the field's type differs between machines"
        )]
        let magic = rustix::fs::statfs(dir)?.f_type as u64 & 0xffff_ffff;
        if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
            return Ok((FilesystemKind::Network, (*name).to_owned()));
        }
        if magic != FUSE {
            return Ok((FilesystemKind::Local, format!("{magic:#x}")));
        }
        let name = dir
            .canonicalize()
            .ok()
            .zip(std::fs::read_to_string("/proc/self/mountinfo").ok())
            .and_then(|(dir, table)| mounted_as(&dir, &table))
            .unwrap_or_else(|| "fuse".to_owned());
        // A block device behind FUSE (ntfs-3g, exfat) is on this machine only.
        let kind = if name == "fuseblk" {
            FilesystemKind::Local
        } else {
            FilesystemKind::UnknownFuse
        };
        Ok((kind, name))
    }

    /// The type of the mount with the longest mount point above `dir`, in a table in the format of
    /// `/proc/self/mountinfo`.
    fn mounted_as(dir: &Path, table: &str) -> Option<String> {
        let mounts = table.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?.replace("\\040", " ");
            let name = filesystem.split(' ').next()?;
            dir.starts_with(&point).then_some((point.len(), name))
        });
        // Of mounts on the same point, the last one is on top.
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

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
mod system {
    use super::{FilesystemKind, Path, io};

    const NETWORK: &[&str] = &[
        "nfs", "smbfs", "cifs", "afpfs", "webdav", "ftp", "9p", "afs", "coda",
    ];

    pub(super) fn filesystem(dir: &Path) -> io::Result<(FilesystemKind, String)> {
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
        Ok((kind, name))
    }
}

#[cfg(windows)]
mod system {
    use std::{
        os::windows::fs::MetadataExt as _,
        path::{Component, Prefix},
    };

    use super::{FilesystemKind, Path, io};
    use crate::sys;

    pub(super) fn filesystem(dir: &Path) -> io::Result<(FilesystemKind, String)> {
        dir.metadata()?.file_attributes();
        let dir = dir.canonicalize()?;
        let Some(Component::Prefix(prefix)) = dir.components().next() else {
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
