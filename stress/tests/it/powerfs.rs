//! The filesystem that loses unsynced bytes, through the kernel: real system calls, real processes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use strand_lock::{FileLock, LockError, SharedPage};
use strand_stress::powerfs::mount::{Counts, PowerFs, Tripwire, obstacle};
use strand_stress::sim::disk::VirtualDisk;

const ROLE: &str = "STRAND_STRESS_TEST_ROLE";
const DIR: &str = "STRAND_STRESS_TEST_DIR";
/// Tells a child's messages from what the test harness prints.
const MARK: &str = "@@";
/// An operation that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty filesystem, unless there can be none here, which is said loudly.
fn serve() -> Option<PowerFs> {
    if let Some(why) = obstacle() {
        println!("SKIPPED: no filesystem is served: {why}");
        return None;
    }
    let mount_point = tempfile::tempdir().unwrap();
    Some(PowerFs::serve(VirtualDisk::new(), mount_point.path()).unwrap())
}

/// This test binary again, in a role. It is killed when this is dropped.
struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    messages: Receiver<String>,
}

impl Child {
    fn start(role: &str, dir: &Path) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "powerfs::role",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, message)) = line.split_once(MARK) {
                    drop(sender.send(message.to_owned()));
                }
            }
        });
        let input = process.stdin.take();
        Child {
            process,
            input,
            messages,
        }
    }

    fn expect(&self, message: &str) {
        let heard = self.messages.recv_timeout(PATIENCE);
        assert_eq!(heard.as_deref(), Ok(message));
    }

    /// Has it go on from [`wait`].
    fn go_on(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Whether it ends in time.
    fn ends(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It can't die while it waits for a filesystem without power: don't wait for it.
        self.process.kill().ok();
        self.process.try_wait().ok();
    }
}

fn say(message: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{message}").unwrap();
    out.flush().unwrap();
}

/// Waits for the parent.
fn wait() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The work of child processes; nothing in the tests' own process.
#[test]
fn role() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match role.to_str().unwrap() {
        "hold" => {
            let page = SharedPage::open(dir.join("page")).unwrap();
            let lock = FileLock::open(dir.join("lock")).unwrap();
            let guard = lock.lock().unwrap();
            page.u64(7).store(42, Ordering::SeqCst);
            say("held");
            while page.u64(8).load(Ordering::SeqCst) != 43 {
                page.wait(0, 0, Duration::from_millis(20));
            }
            say("answered");
            wait();
            drop(guard);
        }
        "join" => {
            let page = SharedPage::open(dir.join("page")).unwrap();
            let lock = FileLock::open(dir.join("lock")).unwrap();
            say(page.u64(7).load(Ordering::SeqCst));
            page.u64(8).store(43, Ordering::SeqCst);
            page.wake_all(0);
            say(matches!(lock.try_lock(), Err(LockError::Contended { .. })));
            wait();
            say(lock.try_lock().is_ok());
        }
        "append" => {
            let mut file = OpenOptions::new();
            let file = file
                .append(true)
                .create(true)
                .open(dir.join("log"))
                .unwrap();
            for number in 0_u64.. {
                (&file).write_all(&number.to_le_bytes()).unwrap();
                file.sync_data().unwrap();
                say(number);
            }
        }
        other => panic!("there is no role {other}"),
    }
}

#[test]
fn system_calls_do_what_they_do_on_every_filesystem() {
    let Some(served) = serve() else { return };
    let at = |name: &str| served.path().join(name);
    let kind = |result: std::io::Result<File>| result.map(drop).map_err(|error| error.kind());

    // One file, written and read through several handles.
    let create_new = || File::create_new(at("file"));
    let one = create_new().unwrap();
    assert_eq!(kind(create_new()), Err(ErrorKind::AlreadyExists));
    one.write_all_at(b"0123456789", 0).unwrap();
    let two = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("file"))
        .unwrap();
    two.write_all_at(b"xx", 9).unwrap();
    assert_eq!(one.metadata().unwrap().len(), 11);
    assert_eq!(fs::read(at("file")).unwrap(), b"012345678xx");
    one.set_len(4).unwrap();
    assert_eq!(two.metadata().unwrap().len(), 4);
    assert_eq!(fs::read(at("file")).unwrap(), b"0123");
    two.set_len(6).unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"0123\0\0");
    let mut end = OpenOptions::new().append(true).open(at("file")).unwrap();
    end.write_all(b"end").unwrap();
    one.write_all_at(b"0", 9).unwrap();
    end.write_all(b"!").unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"0123\0\0end0!");
    let large: Vec<u8> = (0..3_000_000_u32)
        .flat_map(u32::to_le_bytes)
        .take(3_000_001)
        .collect();
    fs::write(at("large"), &large).unwrap();
    assert!(fs::read(at("large")).unwrap() == large);
    File::create(at("large")).unwrap();
    assert_eq!(fs::read(at("large")).unwrap(), b"");

    // Names.
    fs::hard_link(at("file"), at("second")).unwrap();
    assert_eq!(one.metadata().unwrap().nlink(), 2);
    assert_eq!(
        one.metadata().unwrap().ino(),
        at("second").metadata().unwrap().ino()
    );
    fs::rename(at("second"), at("large")).unwrap();
    assert_eq!(fs::read(at("large")).unwrap(), b"0123\0\0end0!");
    assert_eq!(kind(File::open(at("second"))), Err(ErrorKind::NotFound));
    fs::remove_file(at("large")).unwrap();
    fs::remove_file(at("file")).unwrap();
    // Who has it open can go on.
    assert_eq!(one.metadata().unwrap().nlink(), 0);
    one.write_all_at(b"still", 0).unwrap();
    let mut bytes = [0; 5];
    two.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"still");
    assert_eq!(kind(File::open(at("file"))), Err(ErrorKind::NotFound));

    // Directories, also those that do not fit into one answer.
    fs::create_dir(at("dir")).unwrap();
    let name = |number: u32| {
        format!("a name that is rather long, so that there are many answers {number}")
    };
    let names: BTreeSet<String> = (0..1_500).map(name).collect();
    for name in &names {
        File::create(at("dir").join(name)).unwrap();
    }
    let listed = || {
        fs::read_dir(at("dir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    assert_eq!(listed().collect::<BTreeSet<_>>(), names);
    assert_eq!(listed().count(), names.len());
    assert_eq!(
        fs::remove_dir(at("dir")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    fs::remove_dir_all(at("dir")).unwrap();
    assert!(!at("dir").exists());
    one.sync_all().unwrap();
    File::open(served.path()).unwrap().sync_all().unwrap();
    drop((one, two, end));
    served.end().unwrap();
}

#[test]
fn processes_share_locks_and_memory() {
    let Some(served) = serve() else { return };
    let mut holder = Child::start("hold", served.path());
    holder.expect("held");
    let mut other = Child::start("join", served.path());
    other.expect("42");
    other.expect("true");
    holder.expect("answered");
    // The kernel frees the lock of a process that is killed.
    holder.kill();
    assert!(holder.ends());
    other.go_on();
    other.expect("true");
    assert!(other.ends());
    // Bytes written through the mapping are in the file.
    let bytes = fs::read(served.path().join("page")).unwrap();
    assert_eq!(bytes.len(), SharedPage::BYTES);
    let word = |index: usize| bytes[index * 8..][..8].to_vec();
    assert_eq!(
        (word(7), word(8)),
        (42_u64.to_le_bytes().to_vec(), 43_u64.to_le_bytes().to_vec())
    );
    let stored = served.with_disk(|disk| disk.content(Path::new("page")).unwrap().to_vec());
    assert_eq!(stored, bytes);
    served.end().unwrap();
}

/// Acknowledged bytes are there, no call is acknowledged after the cut, and all processes can be
/// killed.
#[test]
fn a_power_cut_under_a_process() {
    let kinds = [Counts::Changes, Counts::FileSyncs];
    for (round, counts) in (0..12).zip(kinds.into_iter().cycle()) {
        let Some(served) = serve() else { return };
        let file = fs::write(served.path().join("log"), b"");
        file.and_then(|()| File::open(served.path())?.sync_all())
            .unwrap();
        served.arm(Tripwire {
            counts,
            passes: round,
            is_done: round % 3 == 0,
        });
        let mut child = Child::start("append", served.path());
        assert!(served.is_cut_within(PATIENCE), "round {round}");
        let heard: Vec<u64> = std::iter::from_fn(|| {
            let heard = child.messages.recv_timeout(Duration::from_millis(50));
            heard.ok().map(|number| number.parse().unwrap())
        })
        .collect();
        let acknowledged = heard.len() as u64;
        assert!(heard.iter().copied().eq(0..acknowledged));
        if counts == Counts::FileSyncs {
            assert_eq!(acknowledged, u64::from(round));
        }
        child.kill();
        served.release();
        assert!(child.ends(), "round {round}");
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (left, _) = served.with_disk(|disk| disk.crash(&mut random));
            let bytes = left.content(Path::new("log")).unwrap();
            let expected: Vec<u8> = (0..acknowledged).flat_map(u64::to_le_bytes).collect();
            assert!(
                bytes.starts_with(&expected),
                "round {round}, seed {seed}: {bytes:?}"
            );
            assert!(bytes.len() <= expected.len() + 8);
        }
        served.end().unwrap();
    }
}

#[test]
fn nothing_is_left_mounted() {
    type Serve = fn(VirtualDisk, &Path) -> std::io::Result<PowerFs>;
    if serve().is_none() {
        return;
    }
    // Other tests have theirs mounted at the same time.
    let is_mounted = |dir: &Path| {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        table.contains(dir.to_str().unwrap())
    };
    for (serve, stays) in [
        (PowerFs::serve as Serve, false),
        (PowerFs::serve_at as Serve, true),
    ] {
        let mount_point = tempfile::tempdir().unwrap();
        let served = serve(VirtualDisk::new(), mount_point.path()).unwrap();
        assert_eq!(is_mounted(mount_point.path()), stays);
        let path = served.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        let panicked = std::thread::spawn(move || {
            let _served = served;
            panic!("as a tier may");
        });
        assert!(panicked.join().is_err());
        assert!(fs::read(path.join("file")).is_err());
        assert!(!is_mounted(mount_point.path()));
    }
}

/// A mount namespace has a copy of every mount that there was when it was made, for as long as a
/// process is in it.
#[test]
fn a_filesystem_ends_that_another_mount_namespace_still_has() {
    if serve().is_none() {
        return;
    }
    let mount_point = tempfile::tempdir().unwrap();
    let served = PowerFs::serve_at(VirtualDisk::new(), mount_point.path()).unwrap();
    let mut other = Command::new("unshare");
    other.args(["--mount", "--propagation", "private", "sh", "-c"]);
    other
        .arg("cd \"$1\" && echo there && exec sleep 1000")
        .arg("sh");
    let mut other = other
        .arg(mount_point.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(other.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let ended = served.end();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(line, "there\n");
    ended.unwrap();
}
