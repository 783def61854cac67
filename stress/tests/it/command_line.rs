use crate::common::{harness, names, stdout};

#[test]
fn usage_errors_have_status_2_and_start_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_path = dir.path().to_str().expect("a name in UTF-8");
    let bad = dir.path().join("bad.jsonl");
    std::fs::write(&bad, "nonsense\n").expect("a file");
    let bad = bad.to_str().expect("a name in UTF-8");
    for flags in [
        &["--agents", "0"][..],
        &["--agents", "many"],
        &["--writes", "0"],
        &["--no-such-flag"],
        &["--mode", "thread", "--one-shot"],
        &["--kill-per-second", "-1"],
        &["--durability", "maybe"],
        &["--kill-at", "nowhere"],
        &["--payload", bad],
    ] {
        let mut arguments = vec!["--dir", dir_path];
        arguments.extend(flags);
        let output = harness(&arguments);
        assert_eq!(output.status.code(), Some(2), "{flags:?} {output:?}");
        assert!(!output.stderr.is_empty(), "{flags:?}");
    }
    assert_eq!(names(dir.path()), ["bad.jsonl"]);
}

#[test]
fn a_failing_environment_has_status_4() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("missing");
    std::fs::write(&file, "").expect("a file");
    let below = file.join("x");
    let below = below.to_str().expect("a name in UTF-8");
    for flags in [["--dir", below], ["--payload", below]] {
        let output = harness(&flags);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(4), "{flags:?} {text}");
        assert!(text.contains("FAIL: the environment failed"), "{text}");
        assert!(text.contains("missing"), "{text}");
        assert!(
            text.contains("replay       cargo xtask stress --seed "),
            "{text}"
        );
    }
}

#[test]
fn the_configuration_is_shown_when_asked_for_and_a_missing_directory_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = dir.path().join("a/b");
    let made = made.to_str().expect("a name in UTF-8");
    let flags = ["--dir", made, "--seed", "4", "--writes", "2"];
    let text = stdout(&harness(&flags));
    assert!(text.starts_with("strand-stress: seed 4, "), "{text}");
    assert!(!text.contains("\nconfig "), "{text}");
    let output = harness(&[&flags[..], &["--verbose"]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("\nconfig       {\"agents\":5"), "{text}");
    assert_eq!(names(made.as_ref()), Vec::<String>::new());
}

#[test]
fn help_is_no_error() {
    let output = harness(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("--kill-per-second"));
}

#[test]
fn a_run_that_passed_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_path = dir.path().to_str().expect("a name in UTF-8");
    let output = harness(&["--dir", dir_path, "--seed", "4"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("strand-stress: seed 4, 5 agents x 20 writes"),
        "{text}"
    );
    assert!(
        text.contains("\nPASS: 100 acknowledged, 100 stored"),
        "{text}"
    );
    assert_eq!(names(dir.path()), Vec::<String>::new());
    assert!(
        !text.contains('\u{1b}'),
        "no colours and bars in a pipe: {text}"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_kept_store_has_every_id_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_path = dir.path().to_str().expect("a name in UTF-8");
    let output = harness(&[
        "--dir", dir_path, "--keep", "--agents", "2", "--writes", "3",
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let store = dir.path().join(&names(dir.path())[0]).join("store");
    let store = store.canonicalize().expect("the store was kept");
    assert!(
        text.contains(&format!("store        {}", store.display())),
        "{text}"
    );
    let mut ids = Vec::new();
    for name in names(&store).iter().filter(|name| name.starts_with("log-")) {
        let lines = std::fs::read_to_string(store.join(name)).expect("a segment");
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            ids.push(record["id"].as_str().expect("an id").to_owned());
        }
    }
    ids.sort();
    assert_eq!(
        ids,
        [
            "bd-t0w1", "bd-t0w2", "bd-t0w3", "bd-t1w1", "bd-t1w2", "bd-t1w3"
        ]
    );
}

#[test]
fn quiet_prints_the_verdict_only_and_starvation_its_table() {
    let output = harness(&["--quiet", "--agents", "2", "--writes", "2"]);
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("PASS: 4 acknowledged"), "{text}");
    let output = harness(&[
        "--quiet",
        "--report-starvation",
        "--agents",
        "2",
        "--writes",
        "2",
    ]);
    let text = stdout(&output);
    assert!(text.contains("slowest to fastest"), "{text}");
}

/// Ctrl-C, as soon as something was answered: a report of what was done.
#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_ends_with_a_report() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    for flags in [
        "--agents 4 --writes 1000000 --followers 1 --readers 1",
        "--agents 4 --writes 20000 --workload claim --kill-per-second 5",
        "--agents 4 --writes 1000000 --store locked-file",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let (json, page) = (dir.path().join("json"), dir.path().join("html"));
        let runs = dir.path().join("runs");
        let harness = Command::new(crate::common::exe())
            .arg("run")
            .args(flags.split(' '))
            .arg("--dir")
            .arg(&runs)
            .arg("--json")
            .arg(&json)
            .arg("--html")
            .arg(&page)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let harness = harness.expect("the harness starts");
        std::thread::sleep(Duration::from_secs(4));
        let pid = harness.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status();
        assert!(status.expect("kill").success());
        let output = harness.wait_with_output().expect("an output");
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(130), "{flags}: {output:?}");
        assert!(text.contains("\nINTERRUPTED: "), "{flags}: {text}");
        let read = |path| std::fs::read_to_string(path).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&read(&json)).expect("JSON");
        assert_eq!(report["verdict"], "interrupted", "{flags}");
        let compared = |check: &serde_json::Value| check["compared"].as_u64() > Some(0);
        let checks = report["checks"].as_array().expect("checks");
        assert!(checks.iter().any(compared), "{flags}: {checks:?}");
        assert!(read(&page).contains("INTERRUPTED: "), "{flags}");
        assert_eq!(names(&runs), Vec::<String>::new(), "{flags}");
    }
}
