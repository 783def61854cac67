use serde_json::Value;

use crate::common::{harness, stdout};

fn report(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("report.json");
    let mut all = arguments.to_vec();
    all.extend(["--json", json.to_str().expect("a name in UTF-8")]);
    let output = harness(&all);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    serde_json::from_str(&std::fs::read_to_string(json).expect("a report")).expect("JSON")
}

#[test]
fn the_json_report_has_every_field() {
    let report = report(&["--agents", "3", "--writes", "10", "--seed", "11"]);
    assert_eq!(report["schema"], 1);
    assert_eq!(report["verdict"], "pass");
    for (name, value) in [
        ("agents", 3),
        ("writes", 10),
        ("seed", 11),
        ("iterations", 1),
    ] {
        assert_eq!(report["config"][name], value, "{name}");
    }
    for name in [
        "mode",
        "one_shot",
        "durability",
        "payload",
        "payload_bytes",
        "kill_per_second",
        "timeout_s",
        "dir",
        "keep",
        "json",
    ] {
        assert!(report["config"].get(name).is_some(), "config.{name}");
    }
    for (name, value) in [
        ("acknowledged", 30),
        ("rejected", 0),
        ("unknown", 0),
        ("stored", 30),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    assert!(report["elapsed_ms"].as_f64().expect("a number") > 0.0);
    let mut last = 0.0;
    for name in ["p50", "p90", "p99", "p999", "max"] {
        let value = report["append_us"][name].as_f64().expect("a number");
        assert!(
            value > 0.0 && value >= last,
            "append_us.{name} {value} after {last}"
        );
        last = value;
    }
    let lock = &report["lock"];
    assert_eq!(lock["max_holders"], 1);
    // One for each process, and one for each group of appends.
    assert!(lock["acquisitions"].as_u64().expect("a number") > 3);
    assert!(lock["contended"].is_u64());
    for name in ["wait_us", "hold_us"] {
        for part in ["total", "mean", "max"] {
            assert!(lock[name][part].is_f64(), "lock.{name}.{part}");
        }
    }
    let per_agent = report["per_agent"].as_array().expect("a list");
    assert_eq!(per_agent.len(), 3);
    for (number, agent) in per_agent.iter().enumerate() {
        assert_eq!(agent["agent"], number);
        assert_eq!(agent["acknowledged"], 10);
        assert!(agent["completed_ms"].as_f64().expect("a number") > 0.0);
        assert!(agent["longest_append_us"].as_f64().expect("a number") > 0.0);
    }
    assert!(
        report["starvation"]["slowest_to_fastest"]
            .as_f64()
            .expect("a number")
            >= 1.0
    );
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    let replay = report["replay"].as_str().expect("a line");
    assert!(
        replay.starts_with("cargo xtask stress --seed 11 --agents 3 --writes 10"),
        "{replay}"
    );
}

#[test]
fn iterations_take_the_next_seed_each() {
    let report = report(&[
        "--iterations",
        "3",
        "--seed",
        "5",
        "--agents",
        "2",
        "--writes",
        "4",
    ]);
    assert_eq!(report["config"]["seed"], 7);
    assert_eq!(report["acknowledged"], 8);
    assert_eq!(report["iterations"]["completed"], 3);
    assert_eq!(report["iterations"]["acknowledged"], 24);
}

#[test]
fn runs_go_on_for_a_time_with_the_next_seed_each() {
    let few = ["--seed", "5", "--agents", "2", "--writes", "4"];
    let report = report(&[&["--minutes", "0.02"][..], &few].concat());
    let runs = report["iterations"]["completed"]
        .as_u64()
        .expect("a number");
    assert!(runs > 1, "{runs}");
    assert_eq!(report["config"]["seed"], 4 + runs);
    assert_eq!(report["iterations"]["acknowledged"], 8 * runs);
}

#[test]
fn the_page_of_a_run_with_kills_says_what_the_report_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let html = dir.path().join("run.html");
    let report = report(&[
        "--workload",
        "mixed",
        "--agents",
        "4",
        "--writes",
        "60",
        "--followers",
        "1",
        "--kill-at",
        "any",
        "--tear-per-second",
        "20",
        "--html",
        html.to_str().expect("a name in UTF-8"),
    ]);
    let page = std::fs::read_to_string(html).expect("a page");
    let kills = report["timeline"]["incidents"]["killed"].as_u64();
    assert_eq!(kills, report["killed"].as_u64());
    let compared = |point: &str| {
        let mut checks = report["checks"].as_array().expect("a list").iter();
        let check = checks.find(|check| check["point"] == point);
        &check.unwrap_or_else(|| panic!("{point}: {report}"))["compared"]
    };
    assert_eq!(compared("followers"), &report["bystanders"]["followed"]);
    for point in ["foreign", "sequence", "agent_order"] {
        assert_eq!(compared(point), &report["stored"], "{point}");
    }
    assert!(compared("real_time").as_u64() >= report["acknowledged"].as_u64());
    let led: u64 = report["per_agent"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|agent| agent["led"].as_u64().expect("a number"))
        .sum();
    assert!(led > 0, "{report}");
    for part in [
        format!("PASS: {} acknowledged", report["acknowledged"]),
        format!("killed ({})", report["killed"]),
        format!("{led} syncs were led"),
        report["replay"].as_str().expect("a line").to_owned(),
    ] {
        assert!(page.contains(&part), "{part}");
    }
}
