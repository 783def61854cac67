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
