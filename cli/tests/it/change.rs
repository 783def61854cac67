//! `create`, `update`, `close`, `reopen`, `delete` and `claim`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Done, Store, run, spawn};

#[test]
fn a_created_issue_gets_a_short_id_or_the_requested_one() {
    let store = Store::new();
    let arguments = [
        "Paint the fence",
        "--set",
        "priority=0",
        "--add-label",
        "garden",
    ];
    let id = store.ok("create", &arguments);
    assert!(id.starts_with("bd-") && id.len() == 6, "{id}");
    let issue = &store.json("show", &[&id])["issue"];
    assert_eq!(
        (&issue["title"], &issue["priority"]),
        (&json!("Paint the fence"), &json!(0))
    );
    assert_eq!(issue["labels"], json!(["garden"]));
    assert_eq!(issue["id"], json!(id));
    assert_eq!(issue["status"], "open");

    assert!(
        store
            .ok("create", &["Next", "--prefix", "x"])
            .starts_with("x-")
    );
    let created = store.json("create", &["Buy wire", "--id", "w"]);
    assert_eq!(created, json!({"id":"w","seq":3,"repeated":false}));
    let done = store.run("create", &["Buy wire", "--id", "w", "--json"]);
    assert_eq!(done.code, 4);
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!((&error["id"], &error["version"]), (&json!("w"), &json!(3)));
}

#[test]
fn an_update_changes_only_the_named_fields() {
    let store = Store::of(&[(
        "a",
        r#","x":1.10,"labels":["p","q"],"list":[1,2],"gone":true"#,
    )]);
    let arguments = [
        "a",
        "--set",
        "priority=1",
        "--set-text",
        "status=in_progress",
        "--set-text",
        "note=a=\"b\"",
        "--unset",
        "gone",
        "--add-label",
        "r",
        "--remove-label",
        "p",
        "--add",
        "list=3",
        "--remove",
        "list=1",
        "--append",
        r#"comments={"text":"hello"}"#,
    ];
    assert_eq!(store.ok("update", &arguments), "2");
    let shown = store.ok("show", &["a", "--json"]);
    assert!(
        shown.contains(r#""x":1.10,"labels":["q","r"],"list":[2,3],"priority":1,"#),
        "{shown}"
    );
    let issue = &store.json("show", &["a"])["issue"];
    assert_eq!(
        (&issue["status"], &issue["note"]),
        (&json!("in_progress"), &json!("a=\"b\""))
    );
    assert_eq!(issue["comments"], json!([{"text":"hello"}]));
    assert_eq!(issue.get("gone"), None);
}

#[test]
fn a_change_to_an_old_version_is_a_conflict_that_shows_the_present_issue() {
    let store = Store::of(&[("a", "")]);
    assert_eq!(
        store.ok("update", &["a", "--set", "x=1", "--if-version", "1"]),
        "2"
    );
    for (command, arguments) in [
        ("update", &["a", "--set", "x=2", "--if-version", "1"][..]),
        ("close", &["a", "--if-version", "1"]),
        ("reopen", &["a", "--if-version", "1"]),
        ("delete", &["a", "--if-version", "1"]),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let done = store.run(command, &arguments);
        assert_eq!((done.code, done.out.as_str()), (4, ""), "{command}");
        let error: Value = serde_json::from_str(&done.err).unwrap();
        assert_eq!(error["error"], "conflict");
        assert_eq!(
            (&error["version"], &error["issue"]["x"]),
            (&json!(2), &json!(1))
        );
    }
    assert_eq!(store.ok("close", &["a", "--if-version", "2"]), "3");
}

#[test]
fn several_issues_are_changed_together_or_not_at_all() {
    let store = Store::of(&[("a", ""), ("b", "")]);
    let status = |id: &str| store.json("show", &[id])["issue"]["status"].clone();
    assert_eq!(store.run("close", &["a", "nix"]).code, 3);
    assert_eq!(status("a"), "open");
    assert_eq!(store.ok("close", &["a", "b"]), "2");
    assert_eq!(
        (status("a"), status("b")),
        (json!("closed"), json!("closed"))
    );
    assert_eq!(store.ok("reopen", &["a"]), "3");
    assert_eq!(status("a"), "open");
    assert_eq!(store.ok("delete", &["a", "b"]), "4");
    assert_eq!(store.json_lines("list", &[]), Vec::<Value>::new());
}

#[test]
fn an_invalid_change_is_refused() {
    let store = Store::of(&[("a", r#","list":1"#)]);
    for arguments in [
        &["a", "--add", "list=1"][..],
        &["a", "--set", "title=1"],
        &["a", "--unset", "id"],
    ] {
        assert_eq!(store.run("update", arguments).code, 9, "{arguments:?}");
    }
    assert_eq!(store.run("create", &["T", "--add", "title=1"]).code, 9);
    assert_eq!(store.run("create", &["T", "--id", ""]).code, 9);
    assert_eq!(store.json("stat", &[])["records"]["count"], 1);
}

#[test]
fn a_claim_gives_the_issue_to_the_agent_and_to_no_other() {
    let store = Store::of(&[("a", "")]);
    assert_eq!(store.run("claim", &["a"]).code, 2);
    let claimed = store.json("claim", &["a", "--agent", "me"]);
    assert_eq!((&claimed["id"], &claimed["seq"]), (&json!("a"), &json!(2)));
    assert_eq!(claimed["issue"]["assignee"], "me");
    assert_eq!(claimed["issue"]["status"], "in_progress");
    assert_eq!(store.run("claim", &["a", "--agent", "me"]).code, 4);
    assert_eq!(store.run("claim", &["nix", "--actor", "me"]).code, 3);
}

#[test]
fn a_claim_without_id_takes_the_most_urgent_one_that_is_free_and_matches() {
    let store = Store::of(&[
        ("a", r#","priority":2,"labels":["x"]"#),
        ("b", r#","priority":1"#),
        ("c", r#","priority":0,"assignee":"other""#),
        ("d", r#","priority":3,"issue_type":"bug""#),
        ("e", r#","priority":4"#),
    ]);
    let mut by_environment = store.command("claim", &["--label", "x"]);
    assert_eq!(run(by_environment.env("STRAND_AGENT", "me")).out, "a\n");
    assert_eq!(store.ok("claim", &["--agent", "me", "--type", "bug"]), "d");
    assert_eq!(
        store.ok("claim", &["--agent", "me", "--priority", "4"]),
        "e"
    );
    assert_eq!(store.ok("claim", &["--agent", "me"]), "b");
    let done = store.run("claim", &["--agent", "me"]);
    assert_eq!((done.code, done.out.as_str()), (3, ""));
    assert!(done.err.contains("no issue is ready"), "{}", done.err);
    assert_eq!(store.json("show", &["a"])["issue"]["assignee"], "me");
}

const AGENTS: usize = 10;

#[test]
fn of_ten_processes_that_claim_one_issue_one_gets_it() {
    let store = Store::of(&[("a", "")]);
    let agents: Vec<String> = (0..AGENTS).map(|agent| format!("agent-{agent}")).collect();
    let children: Vec<_> = agents
        .iter()
        .map(|agent| spawn(&mut store.command("claim", &["a", "--agent", agent])))
        .collect();
    let done: Vec<Done> = children
        .into_iter()
        .map(|child| Done::of(child.wait_with_output().unwrap()))
        .collect();
    let winners: Vec<usize> = (0..AGENTS).filter(|agent| done[*agent].code == 0).collect();
    assert_eq!(winners.len(), 1, "{done:?}");
    assert!(
        done.iter().all(|done| matches!(done.code, 0 | 4)),
        "{done:?}"
    );
    assert_eq!(
        store.json("show", &["a"])["issue"]["assignee"],
        json!(agents[winners[0]])
    );
}

#[test]
fn ten_processes_that_claim_the_next_issue_get_ten_issues() {
    let ids: Vec<String> = (0..AGENTS).map(|number| format!("i-{number}")).collect();
    let issues: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "")).collect();
    let store = Store::of(&issues);
    let claim = |agent: usize| {
        let agent = format!("agent-{agent}");
        (
            spawn(&mut store.command("claim", &["--agent", &agent])),
            agent,
        )
    };
    let children: Vec<_> = (0..AGENTS + 2).map(claim).collect();
    let mut claimed = BTreeSet::new();
    let mut too_late = 0;
    for (child, agent) in children {
        let done = Done::of(child.wait_with_output().unwrap());
        if done.code == 3 {
            too_late += 1;
            continue;
        }
        assert_eq!(done.code, 0, "{}", done.err);
        let id = done.out.trim_end().to_owned();
        assert_eq!(
            store.json("show", &[&id])["issue"]["assignee"],
            json!(agent)
        );
        claimed.insert(id);
    }
    assert_eq!((claimed.len(), too_late), (AGENTS, 2));
}

#[test]
fn a_list_says_which_names_no_issue_has() {
    let store = Store::of(&[("a", "")]);
    let note = |arguments: &[&str]| store.run("list", arguments).err;
    assert!(note(&["--status", "opne"]).contains("no issue has the status \"opne\""));
    assert!(note(&["--sort", "priorty"]).contains("has a field \"priorty\""));
    assert!(note(&["--columns", "id,titel"]).contains("has a field \"titel\""));
    for quiet in [
        &["--status", "closed"][..],
        &["--columns", "id,title,status"],
        &["--status", "opne", "--json"],
    ] {
        assert_eq!(note(quiet), "", "{quiet:?}");
    }
    let missing = run(crate::support::strand().args(["-C", "/no/such/dir", "list"]));
    assert!(
        missing.code == 7 && missing.err.contains("`strand init`"),
        "{}",
        missing.err
    );
}
