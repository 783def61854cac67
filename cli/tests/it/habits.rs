//! What people type without looking it up.

use serde_json::json;

use crate::support::{Store, run};

#[test]
fn short_options_set_the_usual_fields() {
    let store = Store::new();
    let arguments = [
        "Mend the fence",
        "--id",
        "a",
        "-p",
        "1",
        "-t",
        "bug",
        "-a",
        "ann",
        "-s",
        "blocked",
        "-l",
        "garden",
        "-d",
        "It is broken",
    ];
    store.ok("create", &arguments);
    let issue = &store.json("show", &["a"])["issue"];
    for (field, value) in [
        ("priority", json!(1)),
        ("issue_type", json!("bug")),
        ("assignee", json!("ann")),
        ("status", json!("blocked")),
        ("labels", json!(["garden"])),
        ("description", json!("It is broken")),
    ] {
        assert_eq!(issue[field], value, "{field}");
    }
    store.ok(
        "update",
        &["a", "--title", "Mend the gate", "--status", "open"],
    );
    assert_eq!(
        store.json("show", &["a"])["issue"]["title"],
        "Mend the gate"
    );
}

#[test]
fn several_issues_are_shown_in_the_given_order() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let shown = store.json_lines("show", &["b", "a"]);
    assert_eq!(
        (&shown[0]["id"], &shown[1]["id"]),
        (&json!("b"), &json!("a"))
    );
    assert!(store.ok("show", &["b", "a"]).contains("\n\nid "));
    assert_eq!(store.run("show", &["a", "nix"]).code, 3);
}

#[test]
fn a_list_is_sorted_shortened_and_has_other_columns() {
    let store = Store::of(&[
        ("a", r#","priority":10"#),
        ("b", r#","priority":9,"x":[1]"#),
        ("c", ""),
    ]);
    let ids = |arguments: &[&str]| {
        let all: Vec<&str> = [&["--columns", "id"], arguments].concat();
        store
            .ok("ls", &all)
            .lines()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(ids(&["--sort", "priority"]), "b a c");
    assert_eq!(ids(&["--sort", "priority", "--reverse"]), "c a b");
    assert_eq!(ids(&["-n", "2"]), "a b");
    assert_eq!(
        store.ok("list", &["--columns", "title,x", "-n", "2"]),
        "TITLE  X\nThe a\nThe b  [1]"
    );
    store.ok("rm", &["a"]);
    assert_eq!(ids(&[]), "b c");
}

#[test]
fn dependencies_are_added_shown_and_removed() {
    let store = Store::of(&[("a", ""), ("b", ""), ("c", "")]);
    store.ok("dep", &["add", "c", "b"]);
    store.ok("dep", &["add", "b", "a"]);
    store.ok("dep", &["add", "b", "a"]);
    assert_eq!(store.json("show", &["b"])["blocked_by"], json!(["a"]));
    assert_eq!(store.json_lines("ready", &[]).len(), 1);
    assert_eq!(
        store.ok("dep", &["tree", "c"]),
        "c [open] The c\n  b [open] The b\n    a [open] The a"
    );
    store.ok("dep", &["rm", "b", "a"]);
    assert_eq!(store.json("show", &["b"])["blocked_by"], json!([]));
    for wrong in [
        &["add", "a", "nix"][..],
        &["add", "nix", "a"],
        &["rm", "a", "b"],
        &["tree", "nix"],
    ] {
        assert_eq!(store.run("dep", wrong).code, 3, "{wrong:?}");
    }
    assert_eq!(store.run("dep", &["add", "a", "a"]).code, 2);
    // A circle ends.
    store.ok("dep", &["add", "b", "c"]);
    assert!(store.ok("dep", &["tree", "c"]).ends_with("c (see above)"));
}

#[test]
fn the_log_of_an_issue_has_its_events() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    store.ok("comment", &["a", "The wire is short", "--author", "ann"]);
    store.ok("close", &["b"]);
    let events = store.json_lines("log", &["a"]);
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(1), Some(2)]);
    assert_eq!(events[1]["event"]["op"], "patch");
    assert!(store.ok("log", &["a"]).contains("The wire is short"));
    let comment = &store.json("show", &["a"])["issue"]["comments"][0];
    assert_eq!(
        (&comment["author"], &comment["text"]),
        (&json!("ann"), &json!("The wire is short"))
    );
    assert_eq!(store.run("log", &["nix"]).code, 3);
    assert_eq!(store.run("comment", &["a", " "]).code, 2);
}

#[test]
#[cfg(unix)]
fn an_issue_is_edited_in_the_editor() {
    let store = Store::of(&[("a", r#","x":1.10"#)]);
    let edit = |editor: &str| run(store.command("edit", &["a"]).env("VISUAL", editor));
    let done = edit("sed -i s/The.a/Mended/");
    assert_eq!((done.code, done.out.as_str()), (0, "2\n"), "{}", done.err);
    let shown = store.ok("show", &["a", "--json"]);
    assert!(
        shown.contains(r#""title":"Mended""#) && shown.contains("1.10"),
        "{shown}"
    );
    assert_eq!(edit("true").out, "nothing changed\n");
    assert_eq!(edit("false").code, 1);
    assert_eq!(edit("no/such/editor").code, 1);
    assert_eq!(edit("sed -i s/title/name/").code, 9);
    assert_eq!(store.json("show", &["a"])["version"], 2);
}
