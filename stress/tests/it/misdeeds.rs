//! The harness notices what it is there to notice: agent 0 misbehaves, and the exit status is 1.

use serde_json::Value;

use crate::common::{harness, names, stdout};

fn kinds_of(sabotage: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_path = dir.path().to_str().expect("a name in UTF-8");
    let output = harness(&["--dir", dir_path, "--seed", "9", "--sabotage", sabotage]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\nFAIL: "), "{text}");
    let replay = "cargo xtask stress --seed 9 --agents 5 --writes 20 --mode process";
    assert!(text.contains(replay), "{text}");
    assert!(text.contains(&format!("--sabotage {sabotage}")), "{text}");
    assert!(text.contains("\"seed\":9"), "{text}");

    // The evidence was kept, and the report says where.
    let kept = names(dir.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    let run_dir = dir.path().join(&kept[0]);
    let run_dir = run_dir.canonicalize().expect("the directory exists");
    assert!(
        text.contains(&format!("store        {}", run_dir.join("store").display())),
        "{text}"
    );
    assert!(names(&run_dir.join("store")).contains(&"MANIFEST".to_owned()));
    for name in ["report.json", "ledger.json", "agents.stderr"] {
        assert!(run_dir.join(name).exists(), "{name}");
    }
    let report = std::fs::read_to_string(run_dir.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["verdict"], "violated");
    let violations = report["violations"].as_array().expect("a list");
    violations
        .iter()
        .map(|v| v["kind"].as_str().expect("a kind").to_owned())
        .collect()
}

#[test]
fn an_acknowledged_write_that_was_never_made_is_lost() {
    assert!(kinds_of("skip").contains(&"lost".to_owned()));
}

#[test]
fn a_write_that_was_made_twice_is_a_duplicate() {
    assert_eq!(kinds_of("repeat"), ["duplicated"]);
}

#[test]
fn an_agent_that_dies_by_itself_is_noticed() {
    assert_eq!(kinds_of("die"), ["agent_died", "never_begun"]);
}
