//! `init`, `append`, `batch` and `follow`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use serde_json::json;

use crate::support::{Store, lines, run, spawn, strand};

#[test]
fn only_init_creates_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    let init = || lines(&run(strand().arg("-C").arg(&dir).args(["init", "--json"])).out);
    let made = |created: bool| vec![json!({ "dir": dir, "created": created })];
    assert_eq!(init(), made(true));
    assert_eq!(init(), made(false));

    let empty = tempfile::tempdir().unwrap();
    let close = r#"{"op":"close","id":"a"}"#;
    let done = run(strand().arg("-C").arg(empty.path()).args(["append", close]));
    assert_eq!(done.code, 7, "{}", done.err);
    assert_eq!(empty.path().read_dir().unwrap().count(), 0);
}

#[test]
fn each_event_in_the_arguments_is_a_record() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let events = [
        r#"{"op":"close","id":"a","ts":5,"by":"me"}"#,
        r#"{"op":"delete","id":"b"}"#,
    ];
    assert_eq!(store.ok("append", &events), "2\n3");
    assert_eq!(
        store.json_lines("append", &events),
        [
            json!({"seq":4,"repeated":false,"effect":"none"}),
            json!({"seq":5,"repeated":false,"effect":"none"})
        ]
    );
    assert_eq!(store.json("show", &["a"])["issue"]["status"], "closed");
    assert_eq!(store.run("show", &["b"]).code, 3);
    let log = std::fs::read_to_string(store.first_segment()).unwrap();
    assert!(
        log.contains(r#""seq":2,"synced":1,"ts":5,"op":"close","id":"a","data":null,"by":"me"}"#)
    );
}

#[test]
fn events_from_standard_input_are_acknowledged_one_by_one() {
    let store = Store::of(&[("a", "")]);
    let mut child = spawn(store.command("append", &[]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for (op, seq) in [("close", "2\n"), ("reopen", "3\n"), ("close", "4\n")] {
        writeln!(stdin, r#"{{"op":"{op}","id":"a"}}"#).unwrap();
        let mut line = String::new();
        // The next event is sent only after this one's receipt.
        out.read_line(&mut line).unwrap();
        assert_eq!(line, seq);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_invalid_event_ends_the_input_and_is_located() {
    let store = Store::of(&[("a", "")]);
    let input =
        "{\"op\":\"close\",\"id\":\"a\"}\n\n{\"op\":\"close\"}\n{\"op\":\"reopen\",\"id\":\"a\"}\n";
    let done = store.fed("append", &[], input);
    assert_eq!((done.code, done.out.as_str()), (9, "2\n"));
    assert!(
        done.err
            .contains("line 3: not an event: missing field `id`"),
        "{}",
        done.err
    );
    assert_eq!(store.json("show", &["a"])["issue"]["status"], "closed");

    let done = store.run(
        "append",
        &[r#"{"op":"add","id":"x","data":{"id":"y","title":""}}"#],
    );
    assert_eq!(done.code, 9);
    assert!(done.err.contains("event 1: invalid event"), "{}", done.err);
}

#[test]
fn a_batch_is_one_record_all_or_nothing() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let close = |id: &str| format!("{{\"op\":\"close\",\"id\":\"{id}\"}}\n");
    let done = store.fed("batch", &[], &(close("a") + &close("b")));
    assert_eq!((done.code, done.out.as_str()), (0, "2\n"));
    assert_eq!(store.json("show", &["a"])["version"], 2);
    assert_eq!(store.json("show", &["b"])["version"], 2);

    let reopen = r#"{"op":"reopen","id":"a"}"#;
    let done = store.run("batch", &[reopen, "nonsense"]);
    assert_eq!((done.code, done.out.as_str()), (9, ""));
    assert_eq!(store.run("batch", &[]).code, 9);
    assert_eq!(store.json("show", &["a"])["version"], 2);
}

#[test]
fn a_batch_is_written_only_if_its_conditions_hold() {
    let store = Store::of(&[("a", ""), ("b=c", "")]);
    let close = r#"{"op":"close","id":"a"}"#;
    assert_eq!(store.run("batch", &["--require", "b=c=7", close]).code, 4);
    assert_eq!(
        store.run("batch", &["--require-absent", "a", close]).code,
        4
    );
    assert_eq!(store.run("batch", &["--require", "nix=1", close]).code, 3);
    assert_eq!(store.json("show", &["a"])["version"], 1);
    let all = [
        "--require",
        "b=c=1",
        "--require",
        "a=1",
        "--require-absent",
        "nix",
        close,
    ];
    assert_eq!(store.ok("batch", &all), "2");
}

#[test]
fn a_write_with_a_key_is_stored_once() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let close = r#"{"op":"close","id":"a"}"#;
    let keyed = |command: &str, key: &str, arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--key", key]).collect();
        let answer = store.json(command, &all);
        (
            answer["seq"].as_u64().unwrap(),
            answer["repeated"].as_bool().unwrap(),
        )
    };
    assert_eq!(keyed("append", "k1", &[close]), (2, false));
    assert_eq!(keyed("append", "k1", &[close]), (2, true));
    assert_eq!(keyed("batch", "k2", &[close, close]), (3, false));
    assert_eq!(keyed("batch", "k2", &[close, close]), (3, true));
    assert_eq!(keyed("update", "k3", &["b", "--set", "x=1"]), (4, false));
    assert_eq!(keyed("update", "k3", &["b", "--set", "x=1"]), (4, true));
    assert_eq!(keyed("claim", "k4", &["b", "--agent", "me"]), (5, false));
    assert_eq!(keyed("claim", "k4", &["b", "--agent", "me"]), (5, true));
    assert_eq!(keyed("delete", "k5", &["b"]), (6, false));
    assert_eq!(keyed("delete", "k5", &["b"]), (6, true));
    assert_eq!(keyed("create", "k6", &["New", "--id", "c"]), (7, false));
    assert_eq!(keyed("create", "k6", &["New", "--id", "c"]), (7, true));
    assert_eq!(store.run("append", &["--key", "k7", close, close]).code, 2);
    assert_eq!(store.run("create", &["New", "--key", "k8"]).code, 2);
}

#[test]
fn a_key_of_another_operation_is_a_conflict() {
    let store = Store::of(&[("x1", "")]);
    let claim = |agent: &str| store.run("claim", &["x1", "--agent", agent, "--key", "claim/x1"]);
    assert_eq!(claim("A").code, 0);
    assert_eq!(claim("A").code, 0);
    let refused = claim("B");
    assert_eq!(refused.code, 4);
    assert!(
        refused.err.contains("another operation, record 2"),
        "{}",
        refused.err
    );
    store.ok("create", &["one", "--id", "k1", "--key", "kk"]);
    assert_eq!(
        store
            .run("create", &["two", "--id", "k2", "--key", "kk"])
            .code,
        4
    );
    assert_eq!(store.run("show", &["k2"]).code, 3);
}

#[test]
fn follow_prints_the_lines_of_the_log() {
    let store = Store::of(&[("a", "")]);
    store.ok(
        "batch",
        &[r#"{"op":"close","id":"a"}"#, r#"{"op":"reopen","id":"a"}"#],
    );
    let all = store.ok("follow", &["--from", "1", "--until-idle-ms", "0"]);
    let log = std::fs::read_to_string(store.first_segment()).unwrap();
    assert_eq!(all, log.trim_end());
    assert_eq!(lines(&all)[1]["batch"][1]["op"], "reopen");
    assert_eq!(store.ok("follow", &["--until-idle-ms", "0"]), "");
    let second = store.ok("follow", &["--from", "2", "--limit", "1"]);
    assert_eq!(second, log.lines().nth(1).unwrap());
}

#[test]
fn follow_waits_for_new_records() {
    let store = Store::of(&[("a", "")]);
    let mut child = spawn(&mut store.command("follow", &["--from", "1"]));
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        lines(&line)[0]["seq"].as_u64()
    };
    assert_eq!(next(), Some(1));
    store.ok("close", &["a"]);
    assert_eq!(next(), Some(2));
    store.ok("compact", &[]);
    store.ok("reopen", &["a"]);
    assert_eq!(next(), Some(3));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn follow_prints_logs_of_other_payloads() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Job {
        name: String,
    }
    impl strand_core::Payload for Job {}
    let dir = tempfile::tempdir().unwrap();
    let log = strand_core::Log::<Job>::open(dir.path(), strand_core::Options::default()).unwrap();
    let name = "build".to_owned();
    log.append(&Job { name }).unwrap();
    let mut follow = strand();
    follow
        .arg("-C")
        .arg(dir.path())
        .args(["follow", "--from", "1", "--until-idle-ms", "0"]);
    assert_eq!(lines(&run(&mut follow).out)[0]["name"], "build");
}
