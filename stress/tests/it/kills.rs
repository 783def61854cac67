use strand_stress::run::config::{Config, Durability, Mode, Workload};

use crate::common::{config, passes};

/// Runs with other victims each time, and kills that hit all phases of a process's life.
fn rounds(number: u64, config: &Config) {
    let mut killed = 0;
    let mut unknown = 0;
    for round in 0..number {
        let report = passes(&Config {
            seed: config.seed + round,
            ..config.clone()
        });
        killed += report.killed;
        unknown += report.unknown;
    }
    println!("{killed} processes killed, {unknown} operations with an unknown outcome");
    assert!(
        killed >= number,
        "{killed} kills in {number} rounds test nothing"
    );
    assert!(unknown > 0, "no kill hit an operation");
}

#[test]
fn fifty_rounds_of_kills() {
    rounds(
        50,
        &Config {
            agents: 4,
            writes: 25,
            kill_per_second: 80.0,
            ..config()
        },
    );
}

#[test]
fn kills_of_buffered_writers() {
    let durability = Durability::Buffered;
    rounds(
        5,
        &Config {
            agents: 4,
            writes: 100,
            kill_per_second: 80.0,
            durability,
            ..config()
        },
    );
}

#[test]
fn kills_of_one_shot_processes() {
    rounds(
        5,
        &Config {
            agents: 4,
            writes: 15,
            kill_per_second: 100.0,
            one_shot: true,
            ..config()
        },
    );
}

#[test]
fn kills_of_all_threads_at_once() {
    let mode = Mode::Thread;
    rounds(
        5,
        &Config {
            agents: 4,
            writes: 100,
            kill_per_second: 30.0,
            mode,
            ..config()
        },
    );
}

/// Every step of the protocol is one that a process can die at. Points that only a recovery or a
/// full segment comes to are not reached in every run.
#[test]
fn kills_at_every_point() {
    let reached = |report: &strand_stress::report::run::Report, name: &str| {
        report.killed_at.get(name).is_some_and(|times| *times > 0)
    };
    for point in [
        "LockHeld",
        "BeforeWrite",
        "AfterWrite",
        "TailPublished",
        "BeforeUnlock",
    ] {
        for durability in [Durability::Synced, Durability::Buffered] {
            let kill_at = Some(point.to_owned());
            let report = passes(&Config {
                writes: 30,
                kill_at,
                durability,
                ..config()
            });
            assert!(reached(&report, point), "{point}: {}", report.table());
        }
    }
    for point in [
        "LeaderElected",
        "BeforeSync",
        "AfterSync",
        "DurablePublished",
        "Woken",
    ] {
        let report = passes(&Config {
            writes: 30,
            kill_at: Some(point.to_owned()),
            ..config()
        });
        assert!(reached(&report, point), "{point}: {}", report.table());
    }
    // Small segments, so that a process can also die while it begins one.
    let in_small_segments = |point: &str| {
        passes(&Config {
            writes: 50,
            segment_bytes: Some(4096),
            kill_at: Some(point.to_owned()),
            ..config()
        })
    };
    for point in ["RotationSynced", "SegmentCreated"] {
        let report = in_small_segments(point);
        assert!(reached(&report, point), "{point}: {}", report.table());
    }
    // A recovery takes another death before it.
    let is_recovery_reached = |_| reached(&in_small_segments("any"), "RecoveryStarted");
    assert!((0..20).any(is_recovery_reached));
}

/// Readers, followers and a compactor beside the agents, all of which are killed.
fn among_all(workload: Workload) -> Config {
    Config {
        agents: 4,
        writes: 100,
        workload,
        readers: 3,
        followers: 2,
        compact_every_ms: Some(10),
        segment_bytes: Some(8192),
        ..config()
    }
}

#[test]
fn kills_among_readers_followers_and_a_compactor() {
    for workload in [Workload::Append, Workload::Claim, Workload::Mixed] {
        let kill_per_second = 80.0;
        rounds(
            2,
            &Config {
                kill_per_second,
                ..among_all(workload)
            },
        );
    }
}

#[test]
fn kills_at_every_step_of_a_compaction() {
    for point in [
        "CompactionRotated",
        "SnapshotWritten",
        "SnapshotRenamed",
        "ManifestReplaced",
        "BeforeRemoval",
        "OldFilesRemoved",
    ] {
        let report = passes(&Config {
            kill_at: Some(point.to_owned()),
            compact_every_ms: Some(1),
            ..among_all(Workload::Mixed)
        });
        let killed = report.killed_at.get(point).copied().unwrap_or(0);
        assert!(killed > 0, "{point}: {}", report.table());
    }
}

#[test]
fn kills_of_one_shot_processes_and_of_threads_that_write_with_conditions() {
    for (one_shot, mode) in [(true, Mode::Process), (false, Mode::Thread)] {
        let report = passes(&Config {
            one_shot,
            mode,
            writes: 40,
            kill_at: Some("any".to_owned()),
            ..among_all(Workload::Mixed)
        });
        assert!(report.killed > 0, "{}", report.table());
        assert!(report.conditions.repeated > 0, "{}", report.table());
    }
}
