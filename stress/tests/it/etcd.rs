//! Runs on real etcd nodes, which the tests start. SKIPPED without etcd.

use std::thread;
use std::time::Duration;

use strand_etcd::testing::Nodes;
use strand_stress::evidence::verdict::Verdict;
use strand_stress::report::run::Report;
use strand_stress::run::config::{Config, Mode, Workload};

use crate::common::{config, exe};

/// Does a run that has to pass, with an outcome for each operation.
fn passes(config: &Config) -> Report {
    let report = strand_stress::run(config, exe(), &|_| {});
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", config.replay_line()));
    let shown = || format!("{}{}", report.table(), report.failure_details);
    assert_eq!(report.verdict, Verdict::Pass, "{}", shown());
    if config.workload == Workload::Append {
        assert_eq!(report.stored, config.operations(), "{}", shown());
    }
    println!("{}", report.table());
    report
}

#[test]
fn every_kind_of_run_beside_killed_agents_and_compactions() {
    let Some(nodes) = Nodes::start(1) else { return };
    let run = |workload, mode| Config {
        store: nodes.address("runs"),
        agents: 4,
        writes: 30,
        workload,
        mode,
        followers: 1,
        readers: 1,
        compact_every_ms: Some(100),
        ..config()
    };
    for workload in [Workload::Append, Workload::Claim, Workload::Mixed] {
        passes(&Config {
            kill_per_second: 10.0,
            ..run(workload, Mode::Process)
        });
    }
    passes(&run(Workload::Mixed, Mode::Thread));
}

#[test]
fn twenty_agents_go_on_when_the_leader_is_killed() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    let config = Config {
        store: nodes.address("leader"),
        agents: 20,
        writes: 25,
        workload: Workload::Mixed,
        followers: 1,
        ..config()
    };
    thread::scope(|scope| {
        let nodes = &mut nodes;
        scope.spawn(move || {
            thread::sleep(Duration::from_secs(2));
            let leader = nodes.leader().expect("a leader");
            nodes.kill(leader);
        });
        passes(&config);
    });
}

#[test]
fn flags_of_directories_are_not_for_etcd() {
    for flag in [
        "--kill-at any",
        "--tear-per-second 1",
        "--segment-bytes 4096",
    ] {
        let words = flag.split(' ');
        let words: Vec<&str> = ["--store", "etcd://h1/x"]
            .into_iter()
            .chain(words)
            .collect();
        let output = crate::common::harness(&words);
        assert_eq!(output.status.code(), Some(2), "{flag}");
    }
    let output = crate::common::harness(&["--store", "etcds://h1/x"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A T12 that is killed leaves its hosts; one that is interrupted leaves none, not even of others.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_t12_leaves_no_hosts_and_no_nodes() {
    use std::process::{Command, Stdio};

    let start = || {
        Command::new(crate::common::exe())
            .args(["torture", "--tier", "T12", "--minutes", "5"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the harness starts")
    };
    let hosts_of = |pid: u32| {
        let hosts = std::fs::read_dir("/run/netns").into_iter().flatten();
        let names = hosts.flatten().map(|entry| entry.file_name());
        let prefix = format!("strand-{pid}-");
        names
            .filter(|name| name.to_string_lossy().starts_with(&prefix))
            .count()
    };
    let mut killed = start();
    thread::sleep(Duration::from_secs(8));
    let left = hosts_of(killed.id());
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ends");
    if left == 0 {
        println!("SKIPPED: there are no hosts and nodes here");
        return;
    }
    let interrupted = start();
    thread::sleep(Duration::from_secs(12));
    let pid = interrupted.id();
    assert!(hosts_of(pid) > 0, "it has hosts of its own");
    let status = Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status();
    assert!(status.expect("kill").success());
    let output = interrupted.wait_with_output().expect("an output");
    let text = crate::common::stdout(&output);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert_eq!((hosts_of(killed.id()), hosts_of(pid)), (0, 0), "{text}");
}
