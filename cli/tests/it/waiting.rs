//! Waiting for the lock, which the test process holds.

use std::time::{Duration, Instant};

use serde_json::Value;
use strand_lock::FileLock;

use crate::support::{Done, Store, lines, spawn};

const CLOSE: &str = r#"{"op":"close","id":"a"}"#;

#[test]
fn the_lock_holder_is_named_while_waiting_and_after_the_timeout() {
    let store = Store::of(&[("a", "")]);
    let lock = FileLock::open(store.file("lock")).unwrap();
    let guard = lock.lock().unwrap();
    let started = Instant::now();
    let done = store.run("append", &["--timeout-ms", "1400", CLOSE]);
    assert!(started.elapsed() >= Duration::from_millis(1400));
    assert_eq!((done.code, done.out.as_str()), (5, ""));
    let me = format!("pid {} (", std::process::id());
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", done.err);
    assert!(
        lines[0].starts_with(&format!("strand: waiting for {me}")),
        "{}",
        done.err
    );
    assert!(lines[0].ends_with(" s)"), "{}", done.err);
    assert!(lines[1].contains("no lock on "), "{}", done.err);
    assert!(lines[1].contains(" within 1.4s: held by "), "{}", done.err);
    assert!(lines[1].contains(&me), "{}", done.err);

    // A short timeout does not wait for the first message.
    let done = store.run("close", &["a", "--timeout-ms", "0", "--json"]);
    assert_eq!(done.code, 5);
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"], "lock_timeout");
    assert!(error["message"].as_str().unwrap().contains(&me), "{error}");
    // Readers need no lock.
    assert_eq!(store.json("show", &["a"])["version"], 1);
    guard.unlock().unwrap();
}

#[test]
fn a_wait_that_succeeds_prints_the_holder_once() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let lock = FileLock::open(store.file("lock")).unwrap();
    let guard = lock.lock().unwrap();
    let text = spawn(&mut store.command("append", &[CLOSE]));
    // Of one issue, the second close would say that it changes nothing.
    let other = r#"{"op":"close","id":"b"}"#;
    let json = spawn(&mut store.command("append", &["--json", other]));
    std::thread::sleep(Duration::from_millis(2500));
    guard.unlock().unwrap();
    let text = Done::of(text.wait_with_output().unwrap());
    let json = Done::of(json.wait_with_output().unwrap());
    assert_eq!((text.code, json.code), (0, 0), "{text:?} {json:?}");
    assert_eq!(text.err.lines().count(), 1, "{}", text.err);
    assert!(
        text.err.starts_with("strand: waiting for pid "),
        "{}",
        text.err
    );
    let waits = lines(&json.err);
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!(waits[0]["waiting_for"]["pid"], std::process::id());
    assert!(
        waits[0]["waiting_for"]["held_ms"].as_u64().unwrap() >= 900,
        "{waits:?}"
    );
    assert_eq!(lines(&json.out)[0]["repeated"], false);
}

#[test]
fn a_repair_waits_too() {
    let store = Store::of(&[("a", "")]);
    let lock = FileLock::open(store.file("compact.lock")).unwrap();
    let guard = lock.lock().unwrap();
    let done = store.run("repair", &["--timeout-ms", "1200"]);
    assert_eq!(done.code, 5);
    assert!(
        done.err.starts_with("strand: waiting for pid "),
        "{}",
        done.err
    );
    guard.unlock().unwrap();
    assert_eq!(store.run("repair", &[]).code, 0);
}

#[test]
fn no_timeout_is_too_long() {
    let store = Store::of(&[("a", "")]);
    let forever = u64::MAX.to_string();
    assert_eq!(store.ok("append", &["--timeout-ms", &forever, CLOSE]), "2");
    let idle = ["--from", "1", "--limit", "1", "--until-idle-ms", &forever];
    assert_eq!(lines(&store.ok("follow", &idle))[0]["seq"], 1);
}
