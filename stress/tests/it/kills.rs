use strand_stress::config::{Config, Durability, Mode};

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
    let reached = |report: &strand_stress::report::Report, name: &str| {
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
        "Committed",
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
    let kill_at = Some("any".to_owned());
    let report = passes(&Config {
        writes: 100,
        segment_bytes: Some(4096),
        kill_at,
        ..config()
    });
    for point in ["RecoveryStarted", "RotationSynced", "SegmentCreated"] {
        assert!(reached(&report, point), "{point}: {}", report.table());
    }
}
