//! Torture: the tiers of tests that attack a store, each with a count of what it tried.
//!
//! A tier is a function from a [`Budget`] to a [`Tally`]. It tries as much as its time allows, in an order that its seed
//! decides, and stops at the first few violations. [`TIERS`] has them all; [`command`] runs them one after the other.

pub mod command;
pub mod crash_states;
pub mod damage;
pub mod fault_sweep;
pub mod kills;
pub mod power_cuts;
pub mod schedules;
pub mod short_workloads;
pub mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much a tier may do.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Decides everything that is drawn. One case can be replayed from it.
    pub seed: u64,
    /// About how long the tier may take. What must be exhaustive ignores it.
    pub time: Duration,
    /// Leave out what takes long: for each change, where a full run is for each night.
    pub quick: bool,
    /// How many threads may work at a time.
    pub threads: usize,
    /// The `strand-stress` binary, for tiers that start processes.
    pub exe: PathBuf,
    /// How many cases were tried so far, for who looks on.
    pub tried: Arc<AtomicU64>,
}

impl Budget {
    /// So many cases more were tried.
    fn count(&self, cases: u64) {
        self.tried.fetch_add(cases, Ordering::Relaxed);
    }
}

/// What a tier tried, and what it found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Tally {
    /// The tier's short name: `T2`.
    pub tier: &'static str,
    /// What a case is: `crash states`.
    pub unit: &'static str,
    /// How many were tried.
    pub cases: u64,
    /// What else is worth counting, each with its name.
    pub counts: Vec<(String, u64)>,
    /// What should not have been. Empty when all is well.
    pub violations: Vec<Finding>,
    /// Why nothing was tried, where the tier can't run on this machine.
    pub skipped: Option<String>,
    /// What outside the log stopped the tier before it was done.
    pub environment: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A tier, as it is run and listed.
#[derive(Debug, Clone, Copy)]
pub struct Tier {
    /// Its short name: `T2`.
    pub name: &'static str,
    /// What it attacks, in a few words.
    pub attacks: &'static str,
    /// Does it.
    pub run: fn(&Budget) -> Tally,
    /// Does one case again that [`Finding::replay`] names, where a case can be done alone.
    pub replay: Option<fn(&Budget, &str) -> Tally>,
    /// Its part, in seconds, of a full run of [`FULL_SECONDS`].
    pub seconds: u32,
    /// Its part, in seconds, of a quick run of [`QUICK_SECONDS`].
    pub quick_seconds: u32,
}

/// How long a full run of all tiers takes.
pub const FULL_SECONDS: u32 = 600;
/// How long a quick run of all tiers takes.
pub const QUICK_SECONDS: u32 = 150;

/// All tiers, in the order in which they are run.
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
        attacks: "what a loss of power may leave, after each call",
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
        attacks: "real processes, killed at random and at every step",
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
        name: "T9",
        attacks: "every byte of a store damaged, every file cut, blocks and files swapped",
        run: damage::run,
        replay: Some(damage::replay),
        seconds: 130,
        quick_seconds: 10,
    },
];

/// A violation of what the log promises.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// What was wrong, with the whole configuration of the case.
    pub what: String,
    /// One command that does it again.
    pub replay: String,
    /// Where the store was kept.
    pub kept: Option<PathBuf>,
}

/// A tier stops when it has found so many violations: more of the same would only hide them.
pub const FINDINGS_MAX: usize = 5;
