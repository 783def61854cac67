//! Input that would be stored and do nothing, or something else than was meant.

use serde_json::{Value, json};

use crate::support::{Store, run};

#[test]
fn an_event_that_changes_nothing_or_replaces_an_issue_says_so() {
    let store = Store::of(&[("a", "")]);
    let add = r#"{"op":"add","id":"a","data":{"id":"a","title":"Another"}}"#;
    let absent = r#"{"op":"close","id":"nix"}"#;
    let close = r#"{"op":"close","id":"a"}"#;
    for event in [add, absent] {
        let refused = store.run("append", &["--strict", event]);
        assert_eq!((refused.code, refused.out.as_str()), (4, ""), "{event}");
        let refused = store.run("append", &["--strict", event, close]);
        assert_eq!(refused.code, 4);
    }
    assert_eq!(store.json("show", &["a"])["version"], 1);
    let done = store.run("append", &[add, absent]);
    assert_eq!((done.code, done.out.as_str()), (0, "2\n3\n"));
    assert!(
        done.err.contains("replaces the issue \"a\""),
        "{}",
        done.err
    );
    assert!(done.err.contains("\"nix\" changes nothing"), "{}", done.err);
    assert_eq!(
        store.json_lines("append", &[add, close, close]),
        [
            json!({"seq":4,"repeated":false,"effect":"replaced"}),
            json!({"seq":5,"repeated":false}),
            json!({"seq":6,"repeated":false,"effect":"none"})
        ]
    );
    assert_eq!(store.run("append", &["--unchecked", absent]).err, "");
    let reopen = r#"{"op":"reopen","id":"a"}"#;
    assert_eq!(store.ok("append", &["--strict", reopen, close]), "8\n9");
    let done = store.run("batch", &[reopen, reopen]);
    assert!(done.err.contains("changes nothing"), "{}", done.err);
    assert_eq!(store.json("stat", &[])["issues"]["without_effect"], 4);
}

#[test]
fn a_name_is_not_empty() {
    let store = Store::of(&[("a", "")]);
    for (command, arguments) in [
        ("claim", &["a", "--agent", ""][..]),
        ("claim", &["--agent", " "]),
        ("create", &["T", "--prefix", ""]),
        ("create", &["T", "--type", ""]),
        ("update", &["a", "--status", ""]),
    ] {
        assert_eq!(
            store.run(command, arguments).code,
            2,
            "{command} {arguments:?}"
        );
    }
    let mut claim = store.command("claim", &["a"]);
    assert_eq!(run(claim.env("STRAND_AGENT", "")).code, 2);
    assert_eq!(store.json("show", &["a"])["version"], 1);
}

#[test]
fn a_field_that_makes_no_sense_is_refused() {
    let store = Store::of(&[("a", "")]);
    for title in ["", " ", "two\nlines"] {
        assert_eq!(store.run("create", &[title]).code, 9, "{title:?}");
        assert_eq!(
            store.run("update", &["a", "--title", title]).code,
            9,
            "{title:?}"
        );
    }
    for set in [
        r#"dependencies=[{"type":"blocks"}]"#,
        r#"dependencies=["b"]"#,
        r#"labels=[""]"#,
        r#"id="b""#,
        r#"status="""#,
        r#"priority="high""#,
    ] {
        assert_eq!(store.run("create", &["T", "--set", set]).code, 9, "{set}");
        assert_eq!(store.run("update", &["a", "--set", set]).code, 9, "{set}");
    }
    let add = r#"dependencies={"type":"blocks"}"#;
    assert_eq!(store.run("update", &["a", "--add", add]).code, 9);
    assert_eq!(store.json_lines("list", &[]).len(), 1);
    assert_eq!(store.json("show", &["a"])["version"], 1);

    let done = store.run("update", &["a", "--status", "opne"]);
    assert_eq!(done.code, 0);
    assert!(
        done.err.contains("is none of open, in_progress"),
        "{}",
        done.err
    );
}

#[test]
fn a_store_is_not_made_inside_another_one() {
    let store = Store::of(&[("a", "")]);
    let inner = store.file("log-00000000000000000002.jsonl");
    let init = |dir: &std::path::Path| run(crate::support::strand().arg("-C").arg(dir).arg("init"));
    for dir in [inner, store.file("quarantine/x"), store.file("a/b")] {
        let done = init(&dir);
        assert_eq!(done.code, 10, "{}", done.err);
        assert!(done.err.contains("is inside the store"), "{}", done.err);
        assert!(!dir.exists());
    }
    assert!(!store.file("a").exists());
    assert_eq!(init(store.dir()).code, 0);
    store.ok("compact", &[]);
    assert_eq!(store.ok("close", &["a"]), "2");
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_with_the_name_of_a_file_of_the_store_is_named() {
    let store = Store::of(&[("a", "")]);
    for name in [
        "log-00000000000000000002.jsonl",
        "log-00000000000000000009.jsonl",
        "snapshot-00000000000000000099.jsonl",
        "unclosed-00000000000000000099.jsonl",
        "log-00000000000000000099.jsonl.00c0ffee00c0ffee.new",
    ] {
        std::fs::create_dir(store.file(name)).unwrap();
        let expected = format!("{name} is not a file of strand");
        let writes: [(&str, &[&str]); 2] = [("update", &["a", "--set", "x=2"]), ("compact", &[])];
        for (command, arguments) in writes {
            let done = store.run(command, arguments);
            let is_named = done.code == 10 && done.err.contains(&expected);
            assert!(
                done.code == 0 || is_named,
                "{command}: {name}: {}",
                done.err
            );
        }
        let said = store.run("doctor", &[]).out;
        assert!(said.contains(&expected), "{said}");
        assert!(store.ok("show", &["a"]).contains("The a"));
        std::fs::remove_dir(store.file(name)).unwrap();
        store.ok("update", &["a", "--set", "x=1"]);
    }
    assert_eq!(store.json("doctor", &[])["advice"], "nothing");
}

#[test]
fn a_repeated_key_is_one_operation() {
    let store = Store::new();
    let create = |title: &str| store.run("create", &[title, "--id", "a", "--key", "k"]);
    assert_eq!(create("T").code, 0);
    assert_eq!(create("T").code, 0);
    assert_eq!(create("U").code, 4);
    let shown: Value = store.json("show", &["a"]);
    assert_eq!(shown["issue"]["title"], "T");
}
