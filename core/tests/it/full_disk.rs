//! Full disks on which even a page that has space needs more to be changed. Needs root, loop
//! devices and the tools of the filesystems.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use strand_core::{Error, IssueEvent, Log, Options, Outcome, Reader};

use crate::support::{event, ids};

/// A filesystem in a file. It goes when this is dropped.
struct LoopDisk {
    _files: tempfile::TempDir,
    mounted: PathBuf,
}

impl LoopDisk {
    /// `None`, and says why, where there can be none.
    fn new(mkfs: &[&str], megabytes: u64) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let (image, mounted) = (files.path().join("image"), files.path().join("mounted"));
        File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        fs::create_dir(&mounted).unwrap();
        let made = run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        let done = made.and_then(|()| {
            run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&mounted))
        });
        if let Err(why) = done {
            eprintln!("SKIPPED: no filesystem of {mkfs:?} here: {why}");
            return None;
        }
        Some(Self {
            _files: files,
            mounted,
        })
    }

    /// Writes back all that is dirty. Changing a clean page of a file needs space.
    fn sync(&self) {
        run(Command::new("sync").arg("-f").arg(&self.mounted)).unwrap();
    }

    /// Fills the disk to the last block; returns the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.mounted.join("full");
        for size in [1 << 20, 4096, 1] {
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap();
            while file
                .write_all(&vec![1; size])
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
            self.sync();
        }
        path
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.mounted)).ok();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr).trim()
    ))
}

fn is_full(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        }) {
            return true;
        }
        // `io::Error::source` leaves out the error that it wraps.
        source = error.source();
    }
    false
}

/// Appends on a full disk until it has room again: every append is done or says why not, and none
/// ends the process. Returns how many were rejected.
fn survives(disk: &LoopDisk, prepare: impl Fn(&Path), again: impl Fn(&Path)) -> usize {
    let store = disk.mounted.join("store");
    fs::create_dir(&store).unwrap();
    let logs = [0, 1].map(|_| Log::open(&store, Options::default()).unwrap());
    let mut acknowledged = Vec::new();
    let mut rejected = 0;
    for number in 0..20 {
        let id = format!("before-{number}");
        logs[number % 2].append(&event(&id)).unwrap();
        acknowledged.push(id);
    }
    prepare(&disk.mounted);
    let full = disk.fill();
    for number in 0..60 {
        again(&disk.mounted);
        disk.sync();
        let id = format!("full-{number}");
        match logs[number % 2].append(&event(&id)) {
            Ok(_) => acknowledged.push(id),
            Err(error) => {
                assert!(is_full(&error), "{error:?}");
                rejected += usize::from(error.outcome() == Outcome::Rejected);
            }
        }
    }
    // Nobody can change the page now, and a reader does not need to.
    Reader::<IssueEvent>::open(&store)
        .unwrap()
        .verify()
        .unwrap();
    fs::remove_file(full).unwrap();
    disk.sync();
    for (number, log) in logs.iter().chain(&logs).enumerate() {
        let id = format!("after-{number}");
        log.append(&event(&id)).unwrap();
        acknowledged.push(id);
    }
    let stored = ids(Reader::<IssueEvent>::open(&store)
        .unwrap()
        .records()
        .unwrap());
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|id| !stored.contains(id))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    rejected
}

#[test]
fn a_full_btrfs_rejects_appends() {
    let Some(disk) = LoopDisk::new(&["mkfs.btrfs", "-q"], 128) else {
        return;
    };
    assert!(survives(&disk, |_| {}, |_| {}) > 0, "the disk was not full");
}

#[test]
fn a_full_quota_of_btrfs_rejects_appends() {
    let Some(disk) = LoopDisk::new(&["mkfs.btrfs", "-q"], 256) else {
        return;
    };
    let quota = |arguments: &[&str]| {
        run(Command::new("btrfs").args(arguments).arg(&disk.mounted)).unwrap();
    };
    quota(&["quota", "enable"]);
    quota(&["qgroup", "limit", "40M"]);
    assert!(survives(&disk, |_| {}, |_| {}) > 0, "the disk was not full");
}

#[test]
fn a_store_on_a_full_xfs_that_shares_blocks_with_a_copy_is_written_or_says_why_not() {
    let Some(disk) = LoopDisk::new(&["mkfs.xfs", "-q"], 320) else {
        return;
    };
    let copy = |mounted: &Path, name: &str| {
        let (from, to) = (mounted.join("store").join(name), mounted.join("copy"));
        run(Command::new("cp")
            .args(["-a", "--reflink=always"])
            .args([&from, &to]))
    };
    // Over the copy from before, which needs no space.
    survives(
        &disk,
        |mounted| copy(mounted, ".").unwrap(),
        |mounted| drop(copy(mounted, "shm").and_then(|()| copy(mounted, "lock"))),
    );
}
