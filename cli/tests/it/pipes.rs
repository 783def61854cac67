//! The reader may close the output at any time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Store, issue, spawn};

/// Runs the command, reads one line, and closes the pipe.
fn closed_after_a_line(command: &mut Command) -> (Option<i32>, String) {
    let mut child = spawn(command);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    (
        ended.status.code(),
        String::from_utf8(ended.stderr).unwrap(),
    )
}

fn large_store() -> Store {
    let store = Store::new();
    let text: String = (0..5000)
        .map(|number| issue(&format!("a-{number:05}"), r#","x":"………………""#) + "\n")
        .collect();
    assert_eq!(store.fed("import", &[], &text).code, 0);
    // More records than fit into a pipe.
    let closes = "{\"op\":\"close\",\"id\":\"nix\"}\n".repeat(5000);
    assert_eq!(store.fed("append", &["--buffered"], &closes).code, 0);
    store.ok("append", &[closes.lines().next().unwrap()]);
    store
}

#[test]
fn a_closed_pipe_ends_the_output_without_an_error() {
    let store = large_store();
    for (command, arguments) in [
        ("list", &[][..]),
        ("list", &["--json"]),
        ("ready", &[]),
        ("export", &[]),
        ("follow", &["--from", "2"]),
    ] {
        let ended = closed_after_a_line(&mut store.command(command, arguments));
        assert_eq!(ended, (Some(0), String::new()), "{command} {arguments:?}");
    }
}

#[test]
fn events_are_stored_even_if_the_receipts_are_not_read() {
    let store = Store::of(&[("a", "")]);
    let mut child = spawn(store.command("append", &[]).stdin(Stdio::piped()));
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..20 {
        writeln!(stdin, r#"{{"op":"close","id":"a"}}"#).unwrap();
    }
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0));
    assert_eq!(store.json("stat", &[])["records"]["count"], 21);
}

#[test]
fn a_failure_with_closed_pipes_keeps_its_status() {
    let store = Store::new();
    for (command, arguments) in [("show", &["a"][..]), ("show", &[]), ("doctor", &["--help"])] {
        let mut child = spawn(&mut store.command(command, arguments));
        drop((child.stdout.take(), child.stderr.take()));
        let expected = match arguments {
            ["a"] => 3,
            [] => 2,
            _ => 0,
        };
        assert_eq!(
            child.wait().unwrap().code(),
            Some(expected),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_follower_notices_a_closed_pipe_at_the_next_record() {
    let store = Store::of(&[("a", "")]);
    let mut child = spawn(&mut store.command("follow", &["--from", "1"]));
    drop(child.stdout.take());
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the follower does not stop");
        store.ok("append", &[r#"{"op":"close","id":"a"}"#]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
