use strand_stress::config::{Config, Durability, Mode};

use crate::common::{config, exe, passes};

#[test]
fn ten_processes_by_a_hundred_writes_are_all_stored() {
    let report = passes(&Config {
        agents: 10,
        writes: 100,
        ..config()
    });
    assert_eq!(report.processes, 10);
    assert!(report.lock.acquisitions >= 1_000);
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
