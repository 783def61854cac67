//! `compact`, `doctor` and `repair`.

use serde_json::json;
use strand_lock::FileLock;

use crate::support::Store;

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
