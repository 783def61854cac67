//! Torture: the tiers of tests that attack a store, each with a count of its cases.
//!
//! A tier is a function from a [`Budget`] to a [`Tally`]. It tries as much as its time allows, in
//! an order that its seed decides, and stops after a few violations. [`TIERS`] has them all;
//! [`torture`](crate::commands::torture) runs them one after the other.

pub mod cluster;
pub mod crash_states;
pub mod damage;
pub mod fault_sweep;
pub mod kernel_cuts;
pub mod kills;
mod pool;
pub mod power_cuts;
pub mod schedules;
pub mod short_workloads;
pub mod tally;
pub mod workload;

use tally::{Budget, Tally};

/// A tier in the list of all.
#[derive(Debug, Clone, Copy)]
pub struct Tier {
    /// Its short name: `T2`.
    pub name: &'static str,
    /// The target of the attack, in a few words.
    pub attacks: &'static str,
    /// Runs it.
    pub run: fn(&Budget) -> Tally,
    /// Replays the case that a finding's replay line names, where a case can be run alone.
    pub replay: Option<fn(&Budget, &str) -> Tally>,
    /// Its share, in seconds, of a full run of [`FULL_SECONDS`].
    pub seconds: u32,
    /// Its share, in seconds, of a quick run of [`QUICK_SECONDS`].
    pub quick_seconds: u32,
}

/// How long a full run of all tiers takes.
pub const FULL_SECONDS: u32 = 720;
/// How long a quick run of all tiers takes.
pub const QUICK_SECONDS: u32 = 160;

/// All tiers, in the order in which they run.
pub const TIERS: &[Tier] = &[
    Tier {
        name: "T1",
        attacks: "each call fails, in every way",
        run: fault_sweep::run,
        replay: Some(fault_sweep::replay),
        seconds: 60,
        quick_seconds: 15,
    },
    Tier {
        name: "T2",
        attacks: "what a power loss may leave, after each call",
        run: crash_states::run,
        replay: Some(crash_states::replay),
        seconds: 130,
        quick_seconds: 30,
    },
    Tier {
        name: "T3",
        attacks: "all workloads of up to three operations",
        run: short_workloads::run,
        replay: Some(short_workloads::replay),
        seconds: 30,
        quick_seconds: 20,
    },
    Tier {
        name: "T4",
        attacks: "virtual processes in seeded schedules, with faults, kills and power cuts",
        run: schedules::run,
        replay: Some(schedules::replay),
        seconds: 80,
        quick_seconds: 20,
    },
    Tier {
        name: "T7",
        attacks: "real processes, killed at random and at every failpoint",
        run: kills::run,
        replay: None,
        seconds: 90,
        quick_seconds: 20,
    },
    Tier {
        name: "T8",
        attacks: "real processes on a disk that loses what was not synced",
        run: power_cuts::run,
        replay: None,
        seconds: 80,
        quick_seconds: 15,
    },
    Tier {
        name: "T8b",
        attacks: kernel_cuts::ATTACKS,
        run: kernel_cuts::run,
        replay: None,
        seconds: 60,
        quick_seconds: 10,
    },
    Tier {
        name: "T9",
        attacks: "every byte of a store damaged, every file cut, blocks and files swapped",
        run: damage::run,
        replay: Some(damage::replay),
        seconds: 130,
        quick_seconds: 10,
    },
    Tier {
        name: cluster::TIER,
        attacks: cluster::ATTACKS,
        run: cluster::run,
        replay: None,
        seconds: 60,
        quick_seconds: 20,
    },
];
