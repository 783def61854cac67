use std::path::Path;

use serde_json::Value;

use crate::common::{harness, stdout};

#[test]
fn a_hang_is_reported_and_every_child_reaped() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("report.json");
    // So many that no agent is done before agent 0 has the lock: others may do its first writes.
    let output = harness(&[
        "--agents",
        "3",
        "--writes",
        "20000",
        "--timeout-s",
        "3",
        "--sabotage",
        "hang",
        "--dir",
        dir.path().to_str().expect("a name in UTF-8"),
        "--json",
        json.to_str().expect("a name in UTF-8"),
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("FAIL: hang, not done after 3 s"), "{text}");
    assert!(text.contains("waited for the agents to do"), "{text}");
    assert!(text.contains("agent 0 (pid "), "{text}");
    assert!(text.contains("in write "), "{text}");
    assert!(text.contains("3 processes killed and reaped"), "{text}");
    assert!(text.contains("cargo xtask stress --seed "), "{text}");

    let report = std::fs::read_to_string(json).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["verdict"], "hang");
    assert_eq!(report["hang"]["reaped"], 3);
    let agents = report["hang"]["agents"].as_array().expect("a list");
    assert_eq!(agents.len(), 3);
    let holder = report["hang"]["lock_holder"]
        .as_str()
        .expect("the holder is known");
    let hanging = agents[0]["pid"].as_u64().expect("a pid");
    assert!(holder.starts_with(&format!("pid {hanging} ")), "{holder}");
    if cfg!(target_os = "linux") {
        for agent in agents {
            let pid = agent["pid"].as_u64().expect("a pid");
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "{pid} is still there"
            );
        }
    }
}

#[test]
fn threads_that_hang_are_reported_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = harness(&[
        "--mode",
        "thread",
        "--agents",
        "3",
        "--timeout-s",
        "1",
        "--sabotage",
        "hang",
        "--dir",
        dir.path().to_str().expect("a name in UTF-8"),
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("agent 2 (pid "), "{text}");
    assert!(text.contains("1 processes killed and reaped"), "{text}");
}
