//! Real filesystems of the running kernel on a block device that logs every request.
//!
//! QEMU's storage daemon exports a raw image through its `blklogwrites` driver as a FUSE file; that
//! file becomes a loop device, and the kernel mounts it. The filesystem covers the device but for
//! [`BEHIND_BYTES`] at its end, where agents note acknowledgements: so one log has the writes of
//! the filesystem and the acknowledgements in one order.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the device behind the filesystem.
pub(super) const BEHIND_BYTES: u64 = 1 << 20;
/// The log has room for so many bytes of requests; the file is sparse.
const LOG_BYTES: u64 = 4 << 30;
/// A daemon that is neither ready nor gone within this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A filesystem and how it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filesystem {
    /// Its name on the command line and in reports.
    pub(super) name: &'static str,
    kind: &'static str,
    make: &'static [&'static str],
    mount: &'static str,
    /// Bytes of the image.
    pub(super) bytes: u64,
}

const EXT4: &[&str] = &[
    "-q",
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
];
const EXT4_FAST: &[&str] = &[
    "-q",
    "-O",
    "fast_commit",
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
];

/// All filesystems that are tried.
pub(super) const FILESYSTEMS: &[Filesystem] = &[
    Filesystem {
        name: "ext4",
        kind: "ext4",
        make: EXT4,
        mount: "data=ordered",
        bytes: 48 << 20,
    },
    Filesystem {
        name: "ext4-writeback",
        kind: "ext4",
        make: EXT4,
        mount: "data=writeback",
        bytes: 48 << 20,
    },
    Filesystem {
        name: "ext4-journal",
        kind: "ext4",
        make: EXT4,
        mount: "data=journal",
        bytes: 48 << 20,
    },
    Filesystem {
        name: "ext4-fast-commit",
        kind: "ext4",
        make: EXT4_FAST,
        mount: "data=ordered",
        bytes: 48 << 20,
    },
    Filesystem {
        name: "xfs",
        kind: "xfs",
        make: &["-q", "-K"],
        mount: "defaults",
        bytes: 300 << 20,
    },
    Filesystem {
        name: "btrfs",
        kind: "btrfs",
        make: &["-q", "-K"],
        mount: "nodiscard",
        bytes: 120 << 20,
    },
];

impl Filesystem {
    /// Whether Linux itself can leave a journal that it refuses to replay.
    ///
    /// With `data=journal`, a truncation zeroes the rest of a cached block while a commit that has
    /// the block's checksum already still writes it. The next mount says "Invalid checksum
    /// recovering data block". Seen with Linux 6.18: a program that only writes, truncates and
    /// syncs two files left such a journal in 30 of 220 crash states, without truncations in none.
    pub(super) fn can_refuse_its_journal(&self) -> bool {
        self.mount == "data=journal"
    }

    /// Why this machine can't try it.
    pub(super) fn obstacle(&self) -> Option<String> {
        let maker = format!("mkfs.{}", self.kind);
        if !has_command(&maker) {
            return Some(format!("{maker} is not installed"));
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let is_known = known.lines().any(|line| line.trim().ends_with(self.kind));
        (!is_known).then(|| format!("this kernel has no {}", self.kind))
    }
}

/// Why this machine can't have the rig at all.
pub(super) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("there is no {device}"));
        }
    }
    for command in ["qemu-storage-daemon", "losetup", "mount"] {
        if !has_command(command) {
            return Some(format!("{command} is not installed"));
        }
    }
    None
}

fn has_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .any(|dir| dir.join(name).is_file())
}

/// The files of one recording.
#[derive(Debug, Clone)]
pub(super) struct Images {
    dir: PathBuf,
}

impl Images {
    pub(super) fn new(dir: &Path) -> Images {
        let dir = dir.to_owned();
        Images { dir }
    }

    /// The device as it was before the recording.
    pub(super) fn base(&self) -> PathBuf {
        self.dir.join("base.img")
    }

    /// The requests since.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("write.log")
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// Makes the filesystem.
    pub(super) fn make(&self, filesystem: Filesystem) -> io::Result<()> {
        let disk = self.disk();
        File::create(&disk)?.set_len(filesystem.bytes)?;
        let mut maker = Command::new(format!("mkfs.{}", filesystem.kind));
        run(maker.args(filesystem.make).arg(&disk))?;
        File::options()
            .write(true)
            .open(&disk)?
            .set_len(filesystem.bytes + BEHIND_BYTES)?;
        copy_sparse(&disk, &self.base())
    }
}

/// Copies an image without filling its holes.
pub(super) fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    run(Command::new("cp").arg("--sparse=always").args([from, to]))
}

/// The daemon that logs; ends when this is dropped.
struct Daemon {
    process: std::process::Child,
    export: PathBuf,
}

impl Daemon {
    fn start(images: &Images) -> io::Result<Daemon> {
        File::create(images.log())?.set_len(LOG_BYTES)?;
        let export = images.dir.join("export");
        File::create(&export)?;
        let path = |path: PathBuf| path.display().to_string();
        let (disk, log) = (path(images.disk()), path(images.log()));
        let mut command = Command::new("qemu-storage-daemon");
        // Ctrl-C is for the harness, which ends it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command
            .args([
                "--blockdev",
                &format!("file,node-name=disk,filename={disk}"),
            ])
            .args(["--blockdev", &format!("file,node-name=log,filename={log}")])
            .args([
                "--blockdev",
                "blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512",
            ])
            .args([
                "--export",
                &format!(
                    "fuse,id=export,node-name=logged,mountpoint={},writable=on",
                    export.display()
                ),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut daemon = Daemon { process, export };
        let began = Instant::now();
        while fs::metadata(&daemon.export)?.len() == 0 {
            if let Some(status) = daemon.process.try_wait()? {
                let mut text = String::new();
                if let Some(mut stderr) = daemon.process.stderr.take() {
                    io::Read::read_to_string(&mut stderr, &mut text)?;
                }
                return Err(io::Error::other(format!(
                    "qemu-storage-daemon ended ({status}): {}",
                    text.trim()
                )));
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("qemu-storage-daemon exports nothing"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        one_write_at_a_time(&daemon.export)?;
        Ok(daemon)
    }
}

/// Lets the kernel send the daemon one write at a time. QEMU 10.0 may read the next request into
/// the buffer of a write that it has not finished, and so write the data of one to the place of
/// another.
fn one_write_at_a_time(export: &Path) -> io::Result<()> {
    const CONNECTIONS: &str = "/sys/fs/fuse/connections";
    let number = rustix::fs::minor(fs::metadata(export)?.dev());
    let limit = Path::new(CONNECTIONS).join(format!("{number}/max_background"));
    if !limit.exists() {
        run(Command::new("mount").args(["-t", "fusectl", "fusectl", CONNECTIONS]))?;
    }
    fs::write(limit, "1")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM lets it write the log's header; a killed daemon leaves none.
        let pid = i32::try_from(self.process.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A mounted image; unmounted when this is dropped.
pub(super) struct Mounted {
    /// Where the filesystem is.
    pub(super) dir: PathBuf,
    /// The block device.
    pub(super) device: PathBuf,
    unmounts: bool,
    // Goes after the mount and the loop device.
    _daemon: Option<Daemon>,
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted").field(&self.dir).finish()
    }
}

impl Mounted {
    /// Mounts the image of `images` and logs its requests.
    pub(super) fn logged(
        images: &Images,
        filesystem: Filesystem,
        dir: &Path,
    ) -> io::Result<Mounted> {
        let daemon = Daemon::start(images)?;
        let export = daemon.export.clone();
        Mounted::new(&export, filesystem, dir, Some(daemon))
    }

    /// Mounts a copy; the kernel recovers it from its journal.
    pub(super) fn copy(image: &Path, filesystem: Filesystem, dir: &Path) -> io::Result<Mounted> {
        Mounted::new(image, filesystem, dir, None)
    }

    fn new(
        image: &Path,
        filesystem: Filesystem,
        dir: &Path,
        daemon: Option<Daemon>,
    ) -> io::Result<Mounted> {
        fs::create_dir_all(dir)?;
        let mut attach = Command::new("losetup");
        attach.args(["--show", "--find"]);
        if daemon.is_some() {
            // The log then has the requests of the filesystem, and not those of a page cache above
            // it.
            attach.arg("--direct-io=on");
        }
        let device = output(attach.arg(image))?;
        let mut mounted = Mounted {
            dir: dir.to_owned(),
            device: PathBuf::from(device.trim()),
            unmounts: false,
            _daemon: daemon,
        };
        run(Command::new("mount")
            .args(["-t", filesystem.kind, "-o", filesystem.mount])
            .args([&mounted.device, &mounted.dir]))?;
        mounted.unmounts = true;
        Ok(mounted)
    }

    /// Unmounts, and says what is wrong where that fails.
    pub(super) fn close(mut self) -> io::Result<()> {
        run(Command::new("umount").arg(&self.dir))?;
        self.unmounts = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.unmounts {
            run(Command::new("umount").args(["--lazy"]).arg(&self.dir)).ok();
        }
        run(Command::new("losetup").arg("--detach").arg(&self.device)).ok();
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    output(command).map(drop)
}

/// A command's output. Its error output becomes the error.
fn output(command: &mut Command) -> io::Result<String> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(io::Error::other(format!(
        "{} ended with {}: {}",
        command.get_program().display(),
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    )))
}
