//! Two users of one store, through a group.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

const GROUP: &str = "3000";

/// Runs the command as this user, with this mask, and returns its status.
fn run_as(user: u32, mask: &str, store: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let strand = store.parent().unwrap().join("strand");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}"));
    command
        .arg(format!("--regid={GROUP}"))
        .arg("--clear-groups");
    command.args(["sh", "-c", "umask $0; exec \"$@\"", mask]);
    command.arg(strand).arg("-C").arg(store).args(arguments);
    let output = command.current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// A directory with a copy of the command, which others can run; `None`, and a reason, where the
/// test can't run.
fn shared_dir() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let is_root = dir.path().metadata().unwrap().uid() == 0;
    let there = Command::new("setpriv").arg("--version").output();
    if !is_root || there.is_err() {
        eprintln!("SKIPPED: this test needs root and setpriv");
        return None;
    }
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(dir.path(), mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_strand"), dir.path().join("strand")).unwrap();
    fs::set_permissions(dir.path().join("strand"), mode(0o755)).unwrap();
    Some(dir)
}

#[test]
fn a_compaction_by_another_user_or_by_root_locks_nobody_out() {
    let Some(dir) = shared_dir() else { return };
    for (name, user, mask) in [("a", 2002, "022"), ("b", 2002, "077"), ("c", 0, "077")] {
        let store = dir.path().join(name);
        fs::create_dir(&store).unwrap();
        let group = Some(GROUP.parse().unwrap());
        std::os::unix::fs::chown(&store, Some(2001), group).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o2775)).unwrap();
        let ok = |user: u32, mask: &str, arguments: &[&str]| {
            let (status, text) = run_as(user, mask, &store, arguments);
            assert_eq!(
                status,
                Some(0),
                "{name} {user} {mask} {arguments:?}: {text}"
            );
        };
        ok(2001, "002", &["init"]);
        ok(2001, "002", &["create", "x", "--id", "x"]);
        for round in 0..2 {
            ok(user, mask, &["compact"]);
            ok(2001, "002", &["list"]);
            ok(2001, "002", &["create", "y", "--id", &format!("y-{round}")]);
            ok(2003, "077", &["create", "z", "--id", &format!("z-{round}")]);
        }
        ok(2001, "002", &["compact"]);
    }
}

#[test]
fn a_lack_of_permission_has_one_status() {
    let Some(dir) = shared_dir() else { return };
    let store = dir.path().join("s");
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(2001), Some(GROUP.parse().unwrap())).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o2775)).unwrap();
    assert_eq!(run_as(2001, "002", &store, &["init"]).0, Some(0));
    assert_eq!(run_as(2001, "002", &store, &["create", "x"]).0, Some(0));
    let segment = "log-00000000000000000001.jsonl";
    for (file, mode, arguments) in [
        (segment, 0o644, &["create", "y"][..]),
        ("shm", 0o644, &["create", "y"]),
        ("lock", 0o644, &["create", "y"]),
        ("MANIFEST", 0o600, &["list"]),
        (segment, 0o600, &["list"]),
    ] {
        let path = store.join(file);
        let before = path.metadata().unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (status, text) = run_as(2002, "022", &store, arguments);
        assert_eq!(status, Some(10), "{file} {arguments:?}: {text}");
        fs::set_permissions(&path, before).unwrap();
    }
}
