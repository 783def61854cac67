//! Files that other processes have open.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use strand_lock::files::{self, Dir, OpenMode};

use crate::child::{Child, say, wait_for_word};

const OLD: &str = "what it said before";
const NEW: &str = "what it says now";

fn open(dir: &Path) -> Dir {
    Dir::open(dir).unwrap()
}

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
        let renamed = scope.spawn(|| open(dir.path()).rename("file.new", "file"));
        // Where an open file can't be replaced, the rename waits until it is closed.
        thread::sleep(Duration::from_millis(50));
        child.tell("let go");
        child.expect(OLD);
        renamed.join().unwrap().unwrap();
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), NEW);
    assert!(!new.exists());
    open(dir.path()).sync().unwrap();
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
                    open(dir.path())
                        .open_file("file", OpenMode::Read)
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
            open(dir.path()).rename("file.new", "file")
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
    open(dir.path()).remove("file").unwrap();
    child.tell("let go");
    child.expect(OLD);
    assert!(!path.exists());
    open(dir.path()).sync().unwrap();
}

#[test]
fn a_hard_link_is_the_same_file_and_a_copy_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let [file, link, copy] = ["file", "link", "copy"].map(|name| dir.path().join(name));
    fs::write(&file, OLD).unwrap();
    fs::hard_link(&file, &link).unwrap();
    fs::copy(&file, &copy).unwrap();
    let identity = |name| open(dir.path()).identity_of(name).unwrap();
    assert_eq!(identity("link"), identity("file"));
    assert_ne!(identity("copy"), identity("file"));
    let opened = File::open(&file).unwrap();
    assert_eq!(files::identity_of(&opened).unwrap(), identity("file"));
    assert_eq!(files::identity(&link).unwrap(), identity("file"));
}

#[test]
fn a_missing_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let here = open(dir.path());
    let errors = [
        here.open_file("missing", OpenMode::Read).unwrap_err(),
        here.rename("missing", "to").unwrap_err(),
        here.remove("missing").unwrap_err(),
        here.identity_of("missing").unwrap_err(),
        here.open_dir("missing").unwrap_err(),
        Dir::open(dir.path().join("missing")).unwrap_err(),
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
    let here = open(dir.path());
    let calls: [&(dyn Fn() -> io::Result<()> + Sync); 3] = [
        &|| here.open_file("file", OpenMode::Read).map(drop),
        &|| here.rename("other", "file"),
        &|| here.remove("file"),
    ];
    for call in calls {
        fs::write(&file, NEW).unwrap();
        let mut options = fs::OpenOptions::new();
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

#[test]
fn a_directory_has_the_files_and_directories_that_were_made_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = open(temp.path());
    drop(dir.open_file("new", OpenMode::CreateNew).unwrap());
    let error = dir.open_file("new", OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    for _ in 0..2 {
        dir.create_dir("sub").unwrap();
    }
    let sub = dir.open_dir("sub").unwrap();
    assert_eq!(sub.path(), temp.path().join("sub"));
    drop(sub.open_file("inner", OpenMode::CreateNew).unwrap());
    let mut names = dir.list().unwrap();
    names.sort();
    assert_eq!(names, ["new", "sub"]);
    assert!(temp.path().join("sub/inner").exists());
    let no_dirs = [Dir::open(temp.path().join("new")), dir.open_dir("new")];
    for refused in no_dirs {
        let kind = refused.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::NotADirectory);
    }
}

#[test]
#[cfg(unix)]
fn a_directory_stays_the_one_that_was_opened() {
    let temp = tempfile::tempdir().unwrap();
    let [old, new, link] = ["old", "new", "link"].map(|name| temp.path().join(name));
    fs::create_dir(&old).unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    let dir = open(&link);
    // The link leads elsewhere, and so does the path.
    fs::remove_file(&link).unwrap();
    fs::rename(&old, &new).unwrap();
    for path in [&link, &old] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), OLD).unwrap();
    }
    drop(dir.open_file("file", OpenMode::CreateNew).unwrap());
    dir.rename("file", "renamed").unwrap();
    dir.sync().unwrap();
    assert_eq!(dir.list().unwrap(), ["renamed"]);
    assert!(new.join("renamed").exists());
    dir.remove("renamed").unwrap();
    assert_eq!(fs::read_to_string(old.join("file")).unwrap(), OLD);

    fs::remove_dir(&new).unwrap();
    assert_eq!(dir.stamp().unwrap(), None);
    let refused = dir.open_file("file", OpenMode::CreateNew).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_stamp_changes_with_the_names_and_with_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let dir = open(temp.path());
    let stamp = || {
        let started = std::time::Instant::now();
        loop {
            if let Some(stamp) = dir.stamp().unwrap() {
                break stamp;
            }
            assert!(started.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    };
    let mut seen = vec![stamp()];
    let mut next = |what: &str| {
        let now = stamp();
        assert!(!seen.contains(&now), "{what}");
        assert_eq!(stamp(), now);
        seen.push(now);
    };
    fs::write(temp.path().join("file"), OLD).unwrap();
    next("created");
    fs::write(temp.path().join("other"), NEW).unwrap();
    next("created");
    dir.rename("other", "file").unwrap();
    next("renamed");
    fs::remove_file(temp.path().join("file")).unwrap();
    next("removed");
    fs::write(temp.path().join("file"), OLD).unwrap();
    next("created");
    let before = stamp();
    fs::write(temp.path().join("file"), NEW).unwrap();
    assert_eq!(stamp(), before);
}

#[test]
fn a_simulated_directory_has_a_number_and_no_files() {
    let dir = Dir::simulated(Path::new("store"), 7);
    assert_eq!((dir.number(), dir.path()), (Some(7), Path::new("store")));
    assert_eq!(dir.list().unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(open(tempfile::tempdir().unwrap().path()).number(), None);
}

#[test]
fn no_change_follows_a_stamp_unseen() {
    let temp = tempfile::tempdir().unwrap();
    let dir = open(temp.path());
    let mut stamps = 0;
    let mut change = |round: u64, change: &dyn Fn() -> io::Result<()>| {
        // At all places of the clock's tick, which takes some milliseconds.
        thread::sleep(Duration::from_micros(round * 37 % 6_000));
        let before = dir.stamp().unwrap();
        change().unwrap();
        assert!(before.is_none() || before != dir.stamp().unwrap());
        stamps += u32::from(before.is_some());
    };
    for round in 0..400 {
        change(round, &|| {
            dir.open_file("file", OpenMode::CreateNew).map(drop)
        });
        change(round * round, &|| dir.rename("file", "other"));
        change(round, &|| dir.remove("other"));
    }
    eprintln!("{stamps} of 1,200 changes came behind a stamp");
}
