//! A store on etcd, which the test starts.

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use strand_etcd::testing::Nodes;

use crate::support::strand;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(place: &str, arguments: &[&str]) -> Ran {
    let output = strand()
        .env("STRAND_DIR", place)
        .env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// What the command remembers of the only cluster that has had so many revisions.
fn a_cluster_behind_the_last_revision_is_refused(place: &str, version: &Value) {
    let memory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strand/etcd");
    let file = fs::read_dir(memory).unwrap().map(|entry| entry.unwrap());
    let file = file.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap());
    let file = file.unwrap().path();
    let seen: u64 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(Some(seen) >= version.as_u64(), "{seen}");
    fs::write(&file, "1000000").unwrap();
    let refused = run(place, &["list"]);
    assert_eq!(refused.code, 10, "{}", refused.err);
    assert!(
        refused.err.contains("revision 1000000 was seen"),
        "{}",
        refused.err
    );
    fs::remove_file(&file).unwrap();
}

#[test]
fn the_commands_are_the_same_on_etcd() {
    let Some(nodes) = Nodes::start(1) else { return };
    let place = nodes.address("team");
    let ok = |arguments: &[&str]| {
        let ran = run(&place, arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out
    };
    let missing = run(&place, &["list"]);
    assert_eq!(missing.code, 7, "{}", missing.err);
    assert!(ok(&["init"]).contains("is now a store"));
    assert!(ok(&["init"]).contains("is already a store"));

    assert_eq!(ok(&["create", "Mend the fence", "--id", "bd-1"]), "bd-1\n");
    let other = ok(&["create", "Buy wire"]);
    assert!(other.starts_with("bd-"), "{other}");
    ok(&["close", other.trim()]);
    assert_eq!(ok(&["claim", "--agent", "agent-7"]), "bd-1\n");
    let late = run(&place, &["claim", "bd-1", "--agent", "agent-8"]);
    assert_eq!(late.code, 4, "{}", late.err);
    let shown: Value = serde_json::from_str(&ok(&["show", "bd-1", "--json"])).unwrap();
    assert_eq!(shown["issue"]["assignee"], "agent-7");
    a_cluster_behind_the_last_revision_is_refused(&place, &shown["version"]);
    let version = shown["version"].to_string();
    let update = [
        "update",
        "bd-1",
        "--set",
        "priority=0",
        "--if-version",
        &version,
    ];
    let seq = ok(&update);
    assert!(seq.trim().parse::<u64>().unwrap() > version.parse().unwrap());
    assert_eq!(run(&place, &update).code, 4);
    assert_eq!(run(&place, &["show", "none"]).code, 3);
    let keyed = ["append", "--key", "k", r#"{"op":"reopen","id":"bd-1"}"#];
    assert_eq!(ok(&keyed), ok(&keyed));
    let batch = r#"{"op":"close","id":"bd-1"}"#;
    assert_eq!(
        run(&place, &["batch", batch, "--require-absent", "bd-1"]).code,
        4
    );
    assert!(ok(&["list"]).contains("Mend the fence"));
    assert!(ok(&["ready"]).starts_with("ID"));

    let followed = ok(&["follow", "--from", "1", "--until-idle-ms", "300"]);
    assert_eq!(followed.lines().count(), 6, "{followed}");
    let first: Value = serde_json::from_str(followed.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["op"], &first["id"]),
        (&"add".into(), &"bd-1".into())
    );

    // Every command that is not for directories only.
    ok(&["create", "Buy wire", "--id", "bd-9"]);
    ok(&["dep", "add", "bd-9", "bd-1"]);
    assert_eq!(ok(&["dep", "tree", "bd-9"]).lines().count(), 2);
    ok(&["dep", "rm", "bd-9", "bd-1"]);
    ok(&["comment", "bd-9", "It is short", "--author", "ann"]);
    let mut edit = strand();
    edit.args(["-C", &place, "edit", "bd-9"]);
    let edited = crate::support::run(
        edit.env("EDITOR", "sed -i s/wire/rope/")
            .env_remove("VISUAL"),
    );
    assert_eq!(edited.code, 0, "{}", edited.err);
    let history = ok(&["log", "bd-9"]);
    assert_eq!(history.lines().count(), 5, "{history}");
    assert!(
        history.lines().last().unwrap().contains("Buy rope"),
        "{history}"
    );
    ok(&["delete", "bd-9"]);

    let before = ok(&["export"]);
    assert!(ok(&["compact"]).contains("2 issues"));
    assert_eq!(ok(&["export", "-"]), before);
    assert_eq!(run(&place, &["follow", "--from", "1"]).code, 11);
    let compacted = run(&place, &["log", "bd-1"]);
    assert_eq!(compacted.code, 3, "{}", compacted.err);
    assert!(compacted.err.contains("are compacted"), "{}", compacted.err);
}

#[test]
fn what_is_for_directories_is_refused_and_bad_addresses_say_why() {
    // Nobody is asked.
    let place = "etcd://127.0.0.1:1/team";
    for arguments in [
        &["doctor"][..],
        &["repair"],
        &["stat"],
        &["import"],
        &["export", "x"],
    ] {
        let refused = run(place, arguments);
        assert_eq!(refused.code, 2, "{arguments:?}: {}", refused.err);
        assert!(refused.err.contains("on etcd, use"), "{}", refused.err);
    }
    let buffered = run(place, &["close", "bd-1", "--buffered"]);
    assert_eq!(buffered.code, 2, "{}", buffered.err);
    let wrong = run("etcd://h1", &["list"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("names no store"),
        "{}",
        wrong.err
    );
    let nobody = run(place, &["close", "bd-1", "--timeout-ms", "300"]);
    assert_eq!(nobody.code, 1, "{}", nobody.err);
}

#[test]
fn a_directory_and_etcd_take_each_others_changes_although_both_ways_are_killed() {
    let Some(nodes) = Nodes::start(1) else { return };
    let place = nodes.address("mirror");
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("store").display().to_string();
    let ok = |place: &str, arguments: &[&str]| {
        let ran = run(place, arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out
    };
    ok(&local, &["init"]);
    ok(&place, &["init"]);
    let line = |n: u32| format!("{{\"id\":\"bd-{n}\",\"title\":\"Issue {n}\"}}\n");
    let file = dir.path().join("issues.jsonl");
    std::fs::write(&file, (0..700).map(line).collect::<String>()).unwrap();
    ok(&local, &["import", &file.display().to_string()]);
    ok(&place, &["create", "Of others", "--id", "bd-other"]);

    let (local, place) = (local.as_str(), place.as_str());
    let (push, pull) = (["push", local, place], ["pull", place, local]);
    for attempt in 0..12 {
        let arguments = if attempt % 2 == 0 { push } else { pull };
        let mut child = strand().args(arguments).spawn().unwrap();
        thread::sleep(Duration::from_millis(15 * attempt));
        child.kill().unwrap();
        child.wait().unwrap();
        // Both sides go on meanwhile.
        ok(
            local,
            &[
                "comment",
                &format!("bd-{attempt}"),
                "Local",
                "--author",
                "a",
            ],
        );
    }
    ok(place, &["rm", "bd-other"]);
    ok("", &push);
    ok("", &pull);
    let ours = ok(local, &["export"]);
    assert_eq!(ours, ok(place, &["export"]));
    assert_eq!(
        (ours.lines().count(), ours.matches("Local").count()),
        (700, 12)
    );

    let mut following = strand()
        .args(["pull", "--follow", place, local])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    ok(place, &["create", "Fresh", "--id", "bd-fresh"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while run(local, &["show", "bd-fresh"]).code != 0 {
        assert!(Instant::now() < deadline, "it does not follow");
        thread::sleep(Duration::from_millis(50));
    }
    following.kill().unwrap();
    following.wait().unwrap();

    // Where both change the same, one of the two is chosen.
    ok(place, &["update", "bd-3", "--title", "Theirs"]);
    ok(local, &["update", "bd-3", "--title", "Ours"]);
    let refused = run("", &pull);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("bd-3"), "{}", refused.err);
    ok("", &[&pull[..], &["--prefer", "other"]].concat());
    assert!(ok(local, &["show", "bd-3"]).contains("Theirs"));
    // The wrong way round.
    assert_eq!(run("", &["push", place, local]).code, 2);
}
