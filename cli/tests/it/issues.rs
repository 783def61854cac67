//! `show`, `list`, `ready`, `import`, `export` and `stat`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Done, Store, issue};

fn ids(store: &Store, command: &str, arguments: &[&str]) -> String {
    let lines = store.json_lines(command, arguments);
    let ids: Vec<&str> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    ids.join(" ")
}

fn some_issues() -> Store {
    let blocked =
        r#","priority":0,"dependencies":[{"issue_id":"d","depends_on_id":"a","type":"blocks"}]"#;
    let store = Store::of(&[
        (
            "a",
            r#","priority":2,"labels":["x","y"],"issue_type":"bug""#,
        ),
        ("b", r#","priority":1,"labels":["x"],"assignee":"me""#),
        ("c", r#","priority":3,"description":"Needs WIRE""#),
        ("d", blocked),
    ]);
    store.ok("close", &["c"]);
    store
}

#[test]
fn an_issue_is_shown_with_its_version_and_to_the_byte() {
    let store = some_issues();
    let shown = store.json("show", &["d"]);
    assert_eq!((&shown["id"], &shown["version"]), (&json!("d"), &json!(1)));
    assert_eq!(shown["blocked_by"], json!(["a"]));
    assert_eq!(shown["issue"]["priority"], 0);
    let text = store.ok("show", &["d"]);
    assert!(
        text.starts_with("id            d\ntitle         The d\n"),
        "{text}"
    );
    assert!(text.ends_with("version:      1\nblocked by:   a"), "{text}");
    assert_eq!(store.json("show", &["c"])["version"], 2);

    let strange = Store::of(&[("e", r#","x":1.10,"y":1e400,"z":"\u00e9""#)]);
    let shown = strange.ok("show", &["e", "--json"]);
    assert!(
        shown.contains(r#","x":1.10,"y":1e400,"z":"\u00e9"}"#),
        "{shown}"
    );
}

#[test]
fn each_option_narrows_the_list() {
    let store = some_issues();
    assert_eq!(ids(&store, "list", &[]), "a b c d");
    for (arguments, expected) in [
        (&["--status", "closed"][..], "c"),
        (&["--assignee", "me"], "b"),
        (&["--label", "x"], "a b"),
        (&["--label", "x", "--label", "y"], "a"),
        (&["--priority", "3"], "c"),
        (&["--type", "bug"], "a"),
        (&["--text", "wire"], "c"),
        (&["--status", "open", "--limit", "2"], "a b"),
        (&["--status", "nix"], ""),
    ] {
        assert_eq!(ids(&store, "list", arguments), expected, "{arguments:?}");
    }
    let table = store.ok("list", &["--assignee", "me"]);
    let expected =
        "ID  STATUS  PRIORITY  TYPE  ASSIGNEE  TITLE\nb   open    1               me        The b";
    assert_eq!(table, expected);
}

#[test]
fn wide_characters_keep_the_columns_aligned() {
    let store = Store::of(&[]);
    for (id, title, agent) in [
        ("a", "修复栅栏", "小林"),
        ("b", "Party 🎉", "👩‍💻"),
        ("c", "plain", "me"),
    ] {
        let assignee = format!("assignee={agent}");
        store.ok("create", &[title, "--id", id, "--set-text", &assignee]);
    }
    let table = store.ok("list", &[]);
    let expected = "\
        ID  STATUS  PRIORITY  TYPE  ASSIGNEE  TITLE\n\
        a   open    2         task  小林      修复栅栏\n\
        b   open    2         task  👩‍💻        Party 🎉\n\
        c   open    2         task  me        plain";
    assert_eq!(table, expected);
}

#[test]
fn ready_issues_come_by_urgency() {
    let store = some_issues();
    assert_eq!(ids(&store, "ready", &[]), "b a");
    assert_eq!(ids(&store, "ready", &["--free"]), "a");
    assert_eq!(ids(&store, "ready", &["--label", "y"]), "a");
    store.ok("close", &["a"]);
    assert_eq!(ids(&store, "ready", &["--limit", "1"]), "d");
}

#[test]
fn an_export_has_every_byte_of_the_import() {
    let store = Store::new();
    let text = [issue("a", r#","x":1.10"#), issue("b", r#","y":"\u0000""#)].join("\n") + "\n";
    let done = store.fed("import", &["--json"], &text);
    assert_eq!(done.code, 0, "{}", done.err);
    let imported: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let expected = json!({
        "lines": 2, "added": 2, "replaced": 0, "unchanged": 0, "bad": 0, "bad_lines": [], "last_seq": 1
    });
    assert_eq!(imported, expected);
    assert_eq!(store.run("export", &[]).out, text);

    let file = store.dir().with_extension("jsonl");
    let path = file.to_str().unwrap();
    assert_eq!(
        store.json("export", &[path]),
        json!({"file": path, "issues": 2})
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let again = store.json("import", &[path]);
    assert_eq!(
        (&again["unchanged"], &again["last_seq"]),
        (&json!(2), &json!(0))
    );
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn an_import_reports_invalid_lines_and_obeys_its_options() {
    let store = Store::of(&[("a", r#","x":1"#)]);
    let text = [
        issue("b", ""),
        "nonsense".to_owned(),
        issue("a", r#","x":2"#),
    ]
    .join("\n");
    let x = || store.json("show", &["a"])["issue"]["x"].clone();

    let done = store.fed("import", &[], &text);
    assert_eq!(done.code, 9);
    assert!(done.err.contains("line 2: "), "{}", done.err);
    assert_eq!(ids(&store, "list", &[]), "a");

    let done = store.fed("import", &["--skip-bad-lines", "--existing", "keep"], &text);
    assert_eq!(
        done.out,
        "3 lines: 1 added, 0 replaced, 1 unchanged, 1 bad\n"
    );
    assert!(done.err.contains("line 2: "), "{}", done.err);
    assert_eq!(x(), 1);
    assert_eq!(
        store
            .fed("import", &["--existing", "refuse"], &issue("a", ""))
            .code,
        4
    );
    let done = store.fed("import", &["--skip-bad-lines", "--json"], &text);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["bad_lines"][0]["line"], 2);
    assert_eq!(x(), 2);
}

#[test]
fn stat_counts() {
    let store = some_issues();
    store.ok("compact", &[]);
    store.ok("delete", &["a"]);
    let stat = store.json("stat", &[]);
    let records = json!({"count":1,"first_seq":3,"last_seq":3,"durable_seq":3,"hinted_seq":3});
    assert_eq!(stat["records"], records);
    let issues = json!({"count":3,"ready":2,"without_effect":0,"by_status":{"closed":1,"open":2}});
    assert_eq!(stat["issues"], issues);
    let snapshot = &stat["snapshot"];
    assert_eq!(
        (&snapshot["seq"], &snapshot["issues"]),
        (&json!(2), &json!(4))
    );
    let name = "snapshot-00000000000000000002.jsonl";
    assert_eq!(
        snapshot["bytes"],
        std::fs::metadata(store.file(name)).unwrap().len()
    );
    assert_eq!(stat["log"]["files"], 1);
    let log = std::fs::metadata(store.file("log-00000000000000000003.jsonl")).unwrap();
    assert_eq!(stat["log"]["bytes"], log.len());
    let text = store.ok("stat", &[]);
    assert!(
        text.contains("records                1 (3 to 3)\n"),
        "{text}"
    );
    assert!(text.contains("  closed               1\n"), "{text}");
}

#[test]
fn thousands_of_issues_pass_through_standard_input_and_output() {
    let store = Store::new();
    let text: String = (0..5000)
        .map(|number| issue(&format!("a-{number:05}"), "") + "\n")
        .collect();
    let Done { code, err, .. } = store.fed("import", &[], &text);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(store.run("export", &[]).out, text);
}

#[test]
#[cfg(target_os = "linux")]
fn more_issues_than_fit_into_memory_are_listed_counted_and_exported() {
    use std::process::Command;

    use crate::support::{fed, run};

    let store = Store::new();
    let text = format!(r#","status":"closed","text":"{}""#, "x".repeat(20_000));
    let issues = (0..1_500).map(|number| issue(&format!("a-{number}"), &text));
    let input = issues.collect::<Vec<_>>().join("\n");
    let mut import = store.command("import", &[]);
    let done = fed(import.env("STRAND_NO_AUTO_COMPACT", "1"), &input);
    assert_eq!(done.code, 0, "{}", done.err);
    store.ok("compact", &[]);
    // Half of what the issues are, in KiB.
    let limited = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d 15000; exec \"$@\"", "sh"]);
        command.args([env!("CARGO_BIN_EXE_strand"), "-C"]);
        run(command.arg(store.dir()).args(arguments))
    };
    for (arguments, lines) in [
        (&["list"][..], 1_501),
        (&["list", "--json"], 1_500),
        (&["export"], 1_500),
    ] {
        let done = limited(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.err);
        assert_eq!(done.out.lines().count(), lines, "{arguments:?}");
        if arguments == ["list"] {
            let rows = done.out.lines().skip(1);
            let columns: BTreeSet<_> = rows.map(|row| row.find("closed")).collect();
            assert_eq!(columns.len(), 1, "ids of different lengths are padded");
        }
    }
    let stat = limited(&["stat", "--json"]);
    assert_eq!(stat.code, 0, "{}", stat.err);
    let counts: Value = serde_json::from_str(&stat.out).unwrap();
    assert_eq!(counts["issues"]["by_status"], json!({"closed": 1_500}));
    // The limit is one: sorting needs all of them.
    assert_ne!(limited(&["list", "--sort", "title"]).code, 0);
}
