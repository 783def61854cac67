//! Input and output that are no plain files.

use std::{fs, io::Write as _, process::Stdio};

use serde_json::json;

use crate::support::{Store, issue, lines, run};

const CLOSE: &str = r#"{"op":"close","id":"a"}"#;

#[test]
fn a_byte_order_mark_at_the_start_of_the_input_is_skipped() {
    let store = Store::of(&[("a", "")]);
    for command in ["append", "batch"] {
        let done = store.fed(command, &[], &format!("\u{feff}{CLOSE}\n"));
        assert_eq!(done.code, 0, "{command}: {}", done.err);
        let done = store.fed(command, &[], &format!("{CLOSE}\n\u{feff}{CLOSE}\n"));
        assert_eq!(done.code, 9, "{command}: {}", done.err);
    }
}

#[test]
fn only_what_json_takes_for_white_space_may_stand_around_an_event_or_an_issue() {
    let store = Store::of(&[("a", "")]);
    for space in [" ", "\t", "\r"] {
        let line = format!("{space}{CLOSE}{space}\n");
        assert_eq!(store.fed("append", &[], &line).code, 0, "{space:?}");
        let line = format!("{space}{}{space}\n", issue("a", ""));
        assert_eq!(store.fed("import", &[], &line).code, 0, "{space:?}");
    }
    for space in ["\u{a0}", "\u{2003}", "\u{b}", "\u{c}"] {
        for text in [format!("{space}{CLOSE}"), format!("{CLOSE}{space}")] {
            assert_eq!(store.fed("append", &[], &text).code, 9, "{space:?}");
            assert_eq!(store.run("append", &[&text]).code, 9, "{space:?}");
        }
        let line = format!("{space}{}\n", issue("a", ""));
        assert_eq!(store.fed("import", &[], &line).code, 9, "{space:?}");
    }
}

#[test]
fn a_dash_is_standard_input_and_standard_output() {
    let store = Store::new();
    let done = store.fed("import", &["-"], &issue("a", ""));
    assert_eq!(done.code, 0, "{}", done.err);
    let mut export = store.command("export", &["-"]);
    let done = run(export.current_dir(store.dir()));
    assert_eq!(done.out, issue("a", "") + "\n");
    assert!(!store.file("-").exists());
}

#[cfg(unix)]
#[test]
fn a_pipe_is_imported_and_exported_to() {
    use std::{os::unix::fs::FileTypeExt as _, process::Command};

    use crate::support::{Done, spawn};

    let store = Store::new();
    let fifo = store.file("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let name = fifo.to_str().unwrap();
    // As the shell's `import <(…)`.
    let child = spawn(&mut store.command("import", &[name]));
    fs::write(&fifo, issue("a", "") + "\n" + &issue("b", "")).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);

    let child = spawn(&mut store.command("export", &[name]));
    assert_eq!(lines(&fs::read_to_string(&fifo).unwrap()).len(), 2);
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(fifo.metadata().unwrap().file_type().is_fifo());
}

#[cfg(target_os = "linux")]
#[test]
fn an_export_to_the_standard_output_by_name_goes_where_that_leads() {
    let store = Store::of(&[("a", "")]);
    let path = store.file("out");
    for name in ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"] {
        fs::write(&path, "before\n").unwrap();
        let mut out = fs::File::options().append(true).open(&path).unwrap();
        out.flush().unwrap();
        let mut export = store.command("export", &[name]);
        assert!(export.stdout(out).status().unwrap().success());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("before\n{}\n", issue("a", "")), "{name}");
    }
    assert!(std::path::Path::new("/dev/stdout").is_symlink());
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_unicode_is_printed_as_well_as_json_can() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use crate::support::strand;

    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    let done = run(strand().arg("-C").arg(&odd).args(["init", "--json"]));
    let name = odd.to_string_lossy();
    assert_eq!(lines(&done.out), [json!({"dir": name, "created": true})]);
    let file = odd.join(OsStr::from_bytes(b"\xff.jsonl"));
    let done = run(strand()
        .arg("-C")
        .arg(&odd)
        .args(["export", "--json"])
        .arg(&file));
    let name = file.to_string_lossy();
    assert_eq!(lines(&done.out), [json!({"file": name, "issues": 0})]);
    for command in ["stat", "doctor"] {
        let done = run(strand().arg("-C").arg(&odd).args([command, "--json"]));
        assert_eq!((done.code, lines(&done.out).len()), (0, 1), "{}", done.err);
    }
}

#[cfg(unix)]
#[test]
fn a_follower_of_an_idle_store_ends_when_its_reader_does() {
    use std::time::{Duration, Instant};

    use crate::support::spawn;

    let store = Store::of(&[("a", "")]);
    for before in [false, true] {
        let mut follow = store.command("follow", &["--from", "1"]);
        let mut child = spawn(follow.stdin(Stdio::null()));
        if before {
            // Until it waits for the next record.
            let mut line = [0; 8];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        }
        drop(child.stdout.take());
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the follower does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
