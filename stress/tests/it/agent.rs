use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use strand_stress::run::config::{Durability, Workload};
use strand_stress::run::payload::PayloadSource;
use strand_stress::run::protocol::{AgentSpec, Lane, Message, Role};

use crate::common::exe;

/// An agent that waits for a start that never comes, because its runner is gone.
#[test]
fn an_agent_ends_when_its_runner_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    std::fs::create_dir(&store).expect("a directory");
    let spec = AgentSpec {
        store,
        etcd: None,
        control: dir.path().join("control"),
        archive: dir.path().to_owned(),
        role: Role::Agent,
        agents: 1,
        marks: 1,
        workload: Workload::Append,
        compacts: false,
        lanes: vec![Lane {
            agent: 0,
            first_write: 1,
            last_write: 1,
            view: false,
            repeat: None,
        }],
        writes: 1,
        seed: 1,
        payload: PayloadSource::Small,
        durability: Durability::Synced,
        lock_timeout_ms: 10_000,
        segment_bytes: None,
        preallocate_bytes: None,
        boot: None,
        kill: None,
        counters_always: false,
        sabotage: None,
    };
    let mut child = Command::new(exe())
        .arg("agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{}", serde_json::to_string(&spec).expect("JSON")).expect("it listens");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("it speaks");
    assert_eq!(
        Message::parse(line.trim_end().as_bytes()),
        Some(Message::Ready)
    );
    drop(stdin);
    assert_eq!(child.wait().expect("it ends").code(), Some(90));
}

#[test]
fn an_agent_without_a_runner_is_a_usage_error() {
    let output = Command::new(exe())
        .arg("agent")
        .stdin(Stdio::null())
        .output()
        .expect("the agent starts");
    assert_eq!(output.status.code(), Some(2));
}
