//! Files that other processes have open.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use strand_lock::files;

use crate::child::{Child, say, wait_for_word};

const OLD: &str = "what it said before";
const NEW: &str = "what it says now";

/// Keeps the file open until the parent's word, then sends the content that it sees.
pub(crate) fn keep_open(dir: &Path) {
    let mut file = File::open(dir.join("file")).unwrap();
    say("open");
    wait_for_word();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    drop(file);
    say(text);
    wait_for_word();
}

#[test]
fn a_file_that_others_have_open_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, new) = (dir.path().join("file"), dir.path().join("file.new"));
    fs::write(&file, OLD).unwrap();
    fs::write(&new, NEW).unwrap();
    let mut child = Child::start("keep_open", dir.path());
    child.expect("open");
    thread::scope(|scope| {
        let renamed = scope.spawn(|| files::rename(&new, &file));
        // Where an open file can't be replaced, the rename waits until it is closed.
        thread::sleep(Duration::from_millis(50));
        child.tell("let go");
        child.expect(OLD);
        renamed.join().unwrap().unwrap();
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), NEW);
    assert!(!new.exists());
    files::sync_dir(dir.path()).unwrap();
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_always_there() {
    let dir = tempfile::tempdir().unwrap();
    let (file, new) = (dir.path().join("file"), dir.path().join("file.new"));
    fs::write(&file, OLD).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut text = String::new();
                    files::open(OpenOptions::new().read(true), &file)
                        .and_then(|mut file| file.read_to_string(&mut text))
                        .unwrap();
                    assert!([OLD, NEW].contains(&text.as_str()), "{text:?}");
                    // Where an open file can't be replaced, readers without a pause starve
                    // the rename.
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let renamed = (0..100).try_for_each(|round| {
            fs::write(&new, [OLD, NEW][round % 2])?;
            files::rename(&new, &file)
        });
        done.store(true, Ordering::Relaxed);
        renamed.unwrap();
    });
}

#[test]
fn a_removed_file_stays_readable_where_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, OLD).unwrap();
    let mut child = Child::start("keep_open", dir.path());
    child.expect("open");
    files::remove(&path).unwrap();
    child.tell("let go");
    child.expect(OLD);
    assert!(!path.exists());
    files::sync_dir(dir.path()).unwrap();
}

#[test]
fn a_hard_link_is_the_same_file_and_a_copy_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let [file, link, copy] = ["file", "link", "copy"].map(|name| dir.path().join(name));
    fs::write(&file, OLD).unwrap();
    fs::hard_link(&file, &link).unwrap();
    fs::copy(&file, &copy).unwrap();
    let identity = files::identity(&file).unwrap();
    assert_eq!(files::identity(&link).unwrap(), identity);
    assert_ne!(files::identity(&copy).unwrap(), identity);
}

#[test]
fn a_missing_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let errors = [
        files::open(OpenOptions::new().read(true), &missing).unwrap_err(),
        files::rename(&missing, &dir.path().join("to")).unwrap_err(),
        files::remove(&missing).unwrap_err(),
        files::sync_dir(&missing).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }
}

/// A virus scanner may open a file like this.
#[test]
#[cfg(windows)]
fn a_file_that_is_open_exclusively_is_waited_for() {
    use std::os::windows::fs::OpenOptionsExt;

    let dir = tempfile::tempdir().unwrap();
    let (file, other) = (dir.path().join("file"), dir.path().join("other"));
    fs::write(&other, OLD).unwrap();
    let read = || files::open(OpenOptions::new().read(true), &file).map(drop);
    let calls: [&(dyn Fn() -> io::Result<()> + Sync); 3] =
        [&read, &|| files::rename(&other, &file), &|| {
            files::remove(&file)
        }];
    for call in calls {
        fs::write(&file, NEW).unwrap();
        let mut options = OpenOptions::new();
        let alone = options.read(true).share_mode(0).open(&file).unwrap();
        thread::scope(|scope| {
            let called = scope.spawn(call);
            thread::sleep(Duration::from_millis(50));
            assert!(!called.is_finished());
            drop(alone);
            called.join().unwrap().unwrap();
        });
    }
}

/// In a directory that all may write, the system refuses `O_CREAT` for a file of another user.
#[test]
#[cfg(target_os = "linux")]
fn a_file_of_another_user_is_opened_in_a_directory_that_all_may_write() {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    let protects = fs::read_to_string("/proc/sys/fs/protected_regular").unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let path = dir.path().join("page");
    drop(strand_lock::SharedPage::open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    if protects.trim() == "0" || chown(&path, Some(12_345), None).is_err() {
        eprintln!("SKIPPED: needs root, and a `fs.protected_regular` that is not 0");
        return;
    }
    drop(strand_lock::SharedPage::open(&path).unwrap());
    drop(strand_lock::FileLock::open(&path).unwrap().lock().unwrap());
}
