//! Every exit status and its message.

use serde_json::{Value, json};

use crate::support::{Done, Store, plain, run, strand};

const CLOSE: &str = r#"{"op":"close","id":"a"}"#;

/// The status of a command that fails, with the same message as text and as JSON.
fn fails(store: &Store, command: &str, arguments: &[&str]) -> i32 {
    let text = store.run(command, arguments);
    assert!(text.err.starts_with("strand: "), "{}", text.err);
    let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let Done { code, out, err } = store.run(command, &with_json);
    assert_eq!((code, out.as_str()), (text.code, ""));
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["exit_status"], code);
    assert!(
        text.err.contains(error["message"].as_str().unwrap()),
        "{err}"
    );
    code
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_an_ordinary_failure() {
    let store = Store::of(&[("a", "")]);
    assert_eq!(fails(&store, "import", &["no/such/file"]), 1);
    assert_eq!(fails(&store, "export", &["no/such/file"]), 1);
    let full = std::path::Path::new("/dev/full");
    if full.exists() {
        let full = std::fs::OpenOptions::new().write(true).open(full).unwrap();
        let done = run(store.command("export", &[]).stdout(full));
        assert_eq!(done.code, 1, "{}", done.err);
        assert!(done.err.contains("cannot write the output"), "{}", done.err);
    }
}

/// A repetition after "not stored" would store it again.
#[test]
fn a_write_whose_answer_cannot_be_printed_has_its_own_status() {
    let store = Store::of(&[("a", "")]);
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: this test needs /dev/full");
        return;
    }
    for (command, arguments) in [
        ("create", &["only once", "--id", "b"][..]),
        ("claim", &["b", "--agent", "me"]),
        ("update", &["b", "--set", "x=1"]),
        ("close", &["b"]),
        ("reopen", &["b"]),
        ("append", &[CLOSE]),
        ("batch", &[r#"{"op":"reopen","id":"a"}"#]),
        ("import", &["/dev/null"]),
        ("compact", &[]),
        ("delete", &["b"]),
        ("repair", &[]),
        ("init", &[]),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open(full).unwrap();
        let done = run(store.command(command, arguments).stdout(full));
        assert_eq!(done.code, 12, "{command}: {}", done.err);
        assert!(done.err.contains("; stored: "), "{command}: {}", done.err);
    }
    let full = std::fs::OpenOptions::new().write(true).open(full).unwrap();
    let mut create = store.command("create", &["again", "--id", "c", "--json"]);
    let done = run(create.stdout(full));
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"], "unprinted");
    assert!(error["message"].as_str().unwrap().ends_with("stored: c"));
    assert_eq!(store.json("show", &["c"])["issue"]["title"], "again");
}

#[test]
fn wrong_arguments_have_their_own_status() {
    let store = Store::of(&[("a", "")]);
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["list", "x"],
        &["follow", "--from", "0"],
        &["--jason", "list"],
    ] {
        assert_eq!(plain(arguments).code, 2, "{arguments:?}");
    }
    for (command, arguments) in [
        ("update", &["a"][..]),
        ("close", &["a", "b", "--if-version", "1"]),
        ("append", &["--key", "k"]),
    ] {
        assert_eq!(fails(&store, command, arguments), 2, "{command}");
    }
    let done = store.run("update", &["a", "--set", "status=open"]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("double quotes"), "{}", done.err);
    let done = store.run("update", &["a", "--set", "status=open", "--json"]);
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(
        (&error["error"], &error["exit_status"]),
        (&json!("usage"), &json!(2))
    );
    assert_eq!(store.json("show", &["a"])["version"], 1);
}

#[test]
fn a_missing_issue_is_not_found() {
    let store = Store::new();
    assert_eq!(fails(&store, "show", &["a"]), 3);
    assert_eq!(fails(&store, "update", &["a", "--set", "x=1"]), 3);
    assert_eq!(fails(&store, "close", &["a", "--if-version", "1"]), 3);
    assert_eq!(fails(&store, "claim", &["--agent", "me"]), 3);
}

#[test]
fn damage_is_found_by_readers_and_reported_by_the_doctor() {
    let store = Store::of(&[("a", "")]);
    store.ok("close", &["a"]);
    let mut damaged = std::fs::read(store.first_segment()).unwrap();
    damaged[40] ^= 1;
    std::fs::write(store.first_segment(), &damaged).unwrap();
    for command in ["list", "ready", "stat", "export"] {
        assert_eq!(fails(&store, command, &[]), 6, "{command}");
    }
    assert_eq!(fails(&store, "claim", &["--agent", "me"]), 6);
    assert_eq!(fails(&store, "follow", &["--from", "1"]), 6);
    let done = store.run("doctor", &[]);
    assert_eq!(done.code, 6);
    assert!(
        done.out
            .contains("damage: log-00000000000000000001.jsonl, line 1"),
        "{}",
        done.out
    );
}

#[test]
fn every_command_needs_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let commands = [
        &["create", "T"][..],
        &["append", CLOSE],
        &["batch", CLOSE],
        &["show", "a"],
        &["list"],
        &["ready"],
        &["claim", "--agent", "me"],
        &["update", "a", "--set", "x=1"],
        &["close", "a"],
        &["reopen", "a"],
        &["delete", "a"],
        &["follow"],
        &["compact"],
        &["doctor"],
        &["repair"],
        &["stat"],
        &["import"],
        &["export"],
    ];
    for arguments in commands {
        let (command, rest) = arguments.split_first().unwrap();
        for path in [&dir.path().join("missing"), &file, &empty] {
            let done = run(strand().arg("-C").arg(path).arg(command).args(rest));
            assert_eq!(done.code, 7, "{command} {}: {}", path.display(), done.err);
        }
    }
    assert_eq!(empty.read_dir().unwrap().count(), 0);
    assert!(!dir.path().join("missing").exists());
}

/// Builds a library for `LD_PRELOAD` that makes every `fdatasync` fail.
#[cfg(target_os = "linux")]
fn failing_sync(dir: &std::path::Path) -> Option<std::path::PathBuf> {
    let (source, library) = (dir.join("sync.c"), dir.join("sync.so"));
    let text = "#include <errno.h>\nint fdatasync(int fd) { (void)fd; errno = EIO; return -1; }\n";
    std::fs::write(&source, text).unwrap();
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    let built = cc.status().is_ok_and(|status| status.success());
    if !built {
        eprintln!("SKIPPED: this test needs a C compiler");
    }
    built.then_some(library)
}

#[test]
#[cfg(target_os = "linux")]
fn a_write_whose_sync_failed_has_its_own_status() {
    let store = Store::of(&[("a", "")]);
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = failing_sync(dir.path()) else {
        return;
    };
    let failing = |arguments: &[&str]| {
        run(store
            .command("append", arguments)
            .env("LD_PRELOAD", &library))
    };
    let done = failing(&["--json", CLOSE]);
    assert_eq!((done.code, done.out.as_str()), (8, ""), "{}", done.err);
    assert!(
        done.err.contains("in doubt") && done.err.contains("os error"),
        "{}",
        done.err
    );
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"], "durability_unknown");
    // The record is in the log, and the next writer makes it durable.
    store.ok("append", &[CLOSE]);
    assert_eq!(store.json("show", &["a"])["issue"]["status"], "closed");
    assert_eq!(store.run("doctor", &[]).code, 0);
}

#[test]
fn an_event_that_is_too_large_is_refused() {
    let store = Store::of(&[("a", "")]);
    let mut append = store.command("append", &[]);
    let x = "x".repeat(5 << 20);
    let done = crate::support::fed(
        &mut append,
        &format!(r#"{{"op":"close","id":"a","x":"{x}"}}"#),
    );
    assert_eq!(done.code, 9);
    assert!(
        done.err.contains("line 1: longer than a record can be"),
        "{}",
        done.err
    );
    assert_eq!(fails(&store, "append", &[r#"{"op":"close","id":""}"#]), 9);
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let store = Store::of(&[("a", "")]);
    let path = store.file("MANIFEST");
    let manifest = std::fs::read_to_string(&path).unwrap();
    assert!(manifest.contains(r#""format":2"#), "{manifest}");
    let newer = manifest.replace(r#""format":2"#, r#""format":4"#);
    std::fs::write(&path, &newer).unwrap();
    for (command, arguments) in [("list", &[][..]), ("append", &[CLOSE]), ("repair", &[])] {
        assert_eq!(fails(&store, command, arguments), 10, "{command}");
    }
    assert_eq!(store.run("doctor", &[]).code, 10);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_record_that_was_compacted_cannot_be_followed() {
    let store = Store::of(&[("a", "")]);
    store.ok("close", &["a"]);
    store.ok("compact", &[]);
    assert_eq!(fails(&store, "follow", &["--from", "1"]), 11);
    assert_eq!(
        store.ok("follow", &["--from", "3", "--until-idle-ms", "0"]),
        ""
    );
}
