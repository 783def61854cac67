//! `compact`, `doctor` and `repair`.

use std::time::{Duration, Instant};

use serde_json::json;
use strand_lock::FileLock;

use crate::support::{Store, fed};

#[test]
fn compact_folds_the_log_once() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    assert_eq!(
        store.json("compact", &["--if-due"]),
        json!({"compacted":false,"reason":"not_due"})
    );
    let done = store.json("compact", &[]);
    assert_eq!(
        (&done["compacted"], &done["seq"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(done["issues"], 2);
    assert_eq!(done["removed"], json!(["log-00000000000000000001.jsonl"]));
    assert_eq!(
        store.json("compact", &[]),
        json!({"compacted":false,"reason":"nothing_new"})
    );
    store.ok("close", &["a"]);
    let lock = FileLock::open(store.file("compact.lock")).unwrap();
    let guard = lock.lock().unwrap();
    assert_eq!(store.json("compact", &[])["reason"], "already_running");
    assert!(store.ok("compact", &[]).contains("another process"));
    guard.unlock().unwrap();
    assert!(
        store
            .ok("compact", &[])
            .starts_with("folded the records through 2 into")
    );
    assert_eq!(store.json_lines("list", &[]).len(), 2);
}

#[test]
fn the_doctor_prints_text_or_json() {
    let store = Store::of(&[("a", "")]);
    let text = store.ok("doctor", &[]);
    assert!(text.contains(": all is well\n"), "{text}");
    let checkup = store.json("doctor", &[]);
    assert_eq!(
        (&checkup["advice"], &checkup["records"]),
        (&json!("nothing"), &json!(1))
    );
}

#[test]
fn a_repair_reports_what_is_lost_and_the_store_works_again() {
    let store = Store::of(&[("a", "")]);
    store.ok("create", &["B", "--id", "b"]);
    store.ok("create", &["C", "--id", "c"]);
    let text = std::fs::read_to_string(store.first_segment()).unwrap();
    std::fs::write(
        store.first_segment(),
        text.replace(r#""title":"B""#, r#""title":"X""#),
    )
    .unwrap();
    let done = store.run("doctor", &["--json"]);
    assert_eq!(done.code, 6);
    let checkup: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (&checkup["advice"], &checkup["damages"][0]["line"]),
        (&json!("repair"), &json!(2))
    );

    let repaired = store.json("repair", &[]);
    assert_eq!(repaired["lost"], json!([{"from_seq":2,"through_seq":2}]));
    let files = repaired["files"].as_object().unwrap();
    let kept = files.values().next().unwrap().as_str().unwrap();
    assert!(store.file(kept).is_file());
    assert_eq!(store.json("doctor", &[])["advice"], "nothing");
    assert_eq!(store.run("show", &["b"]).code, 3);
    assert_eq!(store.json("show", &["c"])["issue"]["title"], "C");
    assert_eq!(store.ok("close", &["c"]), "4");
    assert_eq!(store.json("repair", &[])["files"], json!({}));
}

/// Appends more than a log is long before it is due.
fn append_much(store: &Store, arguments: &[&str], variable: Option<&str>) {
    let text = "x".repeat(1 << 20);
    let event = |number: u32| {
        let data = json!({"id": "a", "title": "A", "description": format!("{number} {text}")});
        json!({"ts": 1, "op": "add", "id": "a", "data": data}).to_string()
    };
    let mut append = store.command("append", arguments);
    if let Some(value) = variable {
        append.env("STRAND_NO_AUTO_COMPACT", value);
    }
    let lines = (1..=5).map(event).collect::<Vec<_>>().join("\n");
    let done = fed(&mut append, &lines);
    assert_eq!(
        (done.code, done.out.as_str()),
        (0, "1\n2\n3\n4\n5\n"),
        "{}",
        done.err
    );
}

#[test]
fn a_command_that_made_the_log_long_has_it_compacted_in_the_background() {
    let store = Store::new();
    append_much(&store, &[], Some("0"));
    let deadline = Instant::now() + Duration::from_mins(1);
    while store.first_segment().exists() {
        assert!(Instant::now() < deadline, "nobody compacts it");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(store.file("snapshot-00000000000000000005.jsonl").exists());
    assert!(store.ok("show", &["a"]).contains("5 xxx"));
}

#[test]
fn nothing_is_compacted_where_the_user_does_not_want_it() {
    let by_setting = Store::new();
    by_setting.ok("init", &["--no-auto-compact"]);
    append_much(&by_setting, &[], None);
    let [by_argument, by_variable] = [Store::new(), Store::new()];
    append_much(&by_argument, &["--no-auto-compact"], None);
    append_much(&by_variable, &[], Some("1"));
    std::thread::sleep(Duration::from_millis(500));
    for store in [by_setting, by_argument, by_variable] {
        assert!(store.first_segment().exists());
        let due = store.json("compact", &["--if-due"]);
        assert_eq!(due["compacted"], json!(true));
    }
}
