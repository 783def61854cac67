use strand_stress::evidence::verdict::Verdict;
use strand_stress::run::config::{Config, Durability, Mode, Workload};

use crate::common::{config, exe, passes};

#[test]
fn ten_processes_by_a_hundred_writes_are_all_stored() {
    let report = passes(&Config {
        agents: 10,
        writes: 100,
        ..config()
    });
    assert_eq!(report.processes, 10);
    // One for each process, and one for each group of appends.
    assert!(report.lock.acquisitions > 10);
    assert!(report.views >= 8);
}

#[test]
fn twenty_lanes_of_fifty_processes_with_one_write_each() {
    let report = passes(&Config {
        agents: 20,
        writes: 50,
        one_shot: true,
        ..config()
    });
    assert_eq!(report.processes, 1_000);
    assert!(report.per_agent.iter().all(|agent| agent.processes == 50));
}

#[test]
fn threads_that_share_a_log() {
    let report = passes(&Config {
        agents: 10,
        writes: 50,
        mode: Mode::Thread,
        ..config()
    });
    assert_eq!(report.processes, 1);
}

#[test]
fn buffered_appends_of_processes_and_of_threads() {
    for mode in [Mode::Process, Mode::Thread] {
        let durability = Durability::Buffered;
        passes(&Config {
            agents: 6,
            writes: 100,
            durability,
            mode,
            ..config()
        });
    }
}

#[test]
fn long_records() {
    passes(&Config {
        agents: 3,
        writes: 10,
        payload_bytes: Some(100_000),
        ..config()
    });
}

#[test]
fn events_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events.jsonl");
    let lines = [
        r#"{"op":"add","ts":1,"id":"x-1","data":{"id":"x-1","title":"é \" \\","odd":[1.50,{}]}}"#,
        r#"{"op":"update","ts":2,"id":"x-1","data":{"title":"two","id":"x-1"}}"#,
        r#"{"op":"close","ts":3,"id":"x-1","data":null}"#,
    ];
    std::fs::write(&path, lines.join("\n")).expect("a file");
    passes(&Config {
        agents: 4,
        writes: 10,
        payload: Some(path),
        ..config()
    });
}

#[test]
fn many_small_segments() {
    passes(&Config {
        agents: 8,
        writes: 50,
        segment_bytes: Some(2_000),
        ..config()
    });
}

#[test]
fn one_agent_alone() {
    passes(&Config {
        agents: 1,
        writes: 1,
        ..config()
    });
}

#[test]
fn a_spawn_that_fails_is_an_error() {
    let missing = exe().with_file_name("no-such-harness");
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        dir: Some(dir.path().to_owned()),
        ..config()
    };
    let error = strand_stress::run(&config, &missing, &|_| {}).expect_err("nothing to start");
    assert_eq!(error.exit_status(), 4, "{error}");
    assert!(error.to_string().contains("no-such-harness"), "{error}");
}

#[test]
fn readers_followers_and_a_compactor_beside_every_workload() {
    for workload in [Workload::Append, Workload::Claim, Workload::Mixed] {
        for durability in [Durability::Synced, Durability::Buffered] {
            let report = passes(&Config {
                writes: 150,
                workload,
                durability,
                readers: 2,
                followers: 2,
                compact_every_ms: Some(2),
                compactors: 2,
                ..config()
            });
            let bystanders = &report.bystanders;
            assert_eq!(report.processes, 5 + 2 + 2 + 2, "{}", report.table());
            assert!(bystanders.states > 2, "{}", report.table());
            assert!(bystanders.followed > 0, "{}", report.table());
            assert!(bystanders.compactions > 0, "{}", report.table());
        }
    }
}

#[cfg(unix)]
#[test]
fn a_store_that_is_moved_away_and_back_is_the_one_that_was_opened() {
    let report = passes(&Config {
        agents: 5,
        writes: 400,
        followers: 1,
        segment_bytes: Some(4096),
        forget_per_second: 20.0,
        stop_per_second: 5.0,
        move_per_second: 300.0,
        ..config()
    });
    assert!(report.moved > 3, "{}", report.table());
}

#[test]
fn every_issue_of_a_pool_is_claimed_once_and_the_others_are_told() {
    let report = passes(&Config {
        agents: 8,
        writes: 50,
        workload: Workload::Claim,
        ..config()
    });
    assert_eq!(report.conditions.claims_won, 50);
    assert_eq!(report.conditions.claims_lost, 7 * 50);
}

#[test]
fn conditions_fail_now_and_then_where_everybody_changes_everything() {
    let report = passes(&Config {
        agents: 8,
        writes: 100,
        workload: Workload::Mixed,
        ..config()
    });
    let conditions = report.conditions;
    assert!(conditions.mismatches > 0, "{}", report.table());
    assert!(conditions.already_exists > 0, "{}", report.table());
    assert!(conditions.claims_won > 0, "{}", report.table());
}

/// A trace with an issue's whole life, again and again, and with lines that have no effect.
fn trace() -> String {
    let mut lines = Vec::new();
    for number in 0..400 {
        let id = format!("x-{}", number * 7 % 61);
        let data = format!(
            r#"{{"id":"{id}","title":"é \"{number}\"","n":1.{number}0,"labels":["a"],"big":18446744073709551616}}"#
        );
        let (op, data) = match number % 9 {
            0 | 1 => ("add", data.as_str()),
            2..=4 => ("update", data.as_str()),
            5 => ("close", data.as_str()),
            6 => ("close", "null"),
            7 => ("reopen", "null"),
            _ => ("delete", "null"),
        };
        lines.push(format!(
            r#"{{"op":"{op}","ts":{number},"id":"{id}","data":{data}}}"#
        ));
    }
    lines.join("\n")
}

#[test]
fn a_trace_that_many_processes_append_leads_where_one_would_get() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events.jsonl");
    std::fs::write(&path, trace()).expect("it can be written");
    for kill_per_second in [0.0, 40.0] {
        let config = Config {
            payload: Some(path.clone()),
            workload: Workload::Replay,
            kill_per_second,
            followers: 1,
            compact_every_ms: Some(5),
            ..config()
        };
        let report = strand_stress::run(&config, exe(), &|_| {});
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        let shown = || format!("{}{}", report.table(), report.failure_details);
        assert_eq!(report.verdict, Verdict::Pass, "{}", shown());
        assert_eq!(
            (report.acknowledged, report.stored),
            (400, 400),
            "{}",
            shown()
        );
    }
}
