//! The parts that all tiers have: what a tier may do, and its result.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::interrupt::Interrupt;

/// How much a tier may do.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Decides everything that is drawn. A case can be replayed from it.
    pub seed: u64,
    /// About how long the tier may take. Exhaustive parts ignore it.
    pub time: Duration,
    /// Leave out what takes long: for each change, where a full run is for each night.
    pub quick: bool,
    /// How many threads may work at a time.
    pub threads: usize,
    /// The `strand-stress` binary, for tiers that start processes.
    pub exe: PathBuf,
    /// How many cases were tried so far, for the progress display.
    pub tried: Arc<AtomicU64>,
    /// Then the tier ends after the cases at hand.
    pub interrupt: Interrupt,
}

impl Budget {
    /// Whether a tier that began then has to end.
    pub(crate) fn is_over(&self, began: Instant) -> bool {
        began.elapsed() >= self.time || self.interrupt.is_asked()
    }

    /// Adds to the number of cases tried.
    pub(crate) fn count(&self, cases: u64) {
        self.tried.fetch_add(cases, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn quick(seed: u64, seconds: f64) -> Self {
        Self {
            seed,
            time: Duration::from_secs_f64(seconds),
            quick: true,
            threads: 2,
            exe: PathBuf::new(),
            tried: Arc::default(),
            interrupt: Interrupt::default(),
        }
    }
}

/// The result of a tier: what it tried, and what it found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Tally {
    /// The tier's short name: `T2`.
    pub tier: &'static str,
    /// The unit of the cases: `crash states`.
    pub unit: &'static str,
    /// How many cases were tried.
    pub cases: u64,
    /// Further counts, each with its name.
    pub counts: Vec<(String, u64)>,
    /// The violations; empty when all is well.
    pub violations: Vec<Finding>,
    /// Why nothing was tried, where the tier can't run on this machine.
    pub skipped: Option<String>,
    /// The user interrupted the tier before its end.
    pub interrupted: bool,
    /// The cause outside the log that stopped the tier early.
    pub environment: Option<String>,
    /// Faults of the environment that ended a case and not the tier, each with the place of its
    /// evidence.
    pub faults: Vec<String>,
    /// How long it took. The runner of the tiers sets it.
    pub seconds: f64,
}

impl Tally {
    /// Of a tier that has tried nothing yet.
    pub(crate) fn new(tier: &'static str, unit: &'static str) -> Self {
        Self {
            tier,
            unit,
            ..Self::default()
        }
    }

    /// Stopped by a cause outside the log.
    pub(crate) fn stopped(self, cause: impl Into<String>) -> Self {
        Self {
            environment: Some(cause.into()),
            ..self
        }
    }

    /// Adds a count.
    pub(crate) fn add(&mut self, name: impl Into<String>, count: u64) {
        self.counts.push((name.into(), count));
    }

    /// Whether enough was found.
    pub(crate) fn is_full(&self) -> bool {
        self.violations.len() >= FINDINGS_MAX
    }
}

/// A violation of what the log promises.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// The violation, with the whole configuration of the case.
    pub what: String,
    /// One command that replays it.
    pub replay: String,
    /// Where the store was kept.
    pub kept: Option<PathBuf>,
}

/// A tier stops after this many violations: more of the same would only hide them.
pub const FINDINGS_MAX: usize = 5;

/// The command that replays a case of a tier, for a case that does not say its seed with the seed.
pub(crate) fn replay_line(tier: &str, seed: Option<u64>, case: impl std::fmt::Display) -> String {
    let seed = seed.map_or_else(String::new, |seed| format!(" --seed {seed}"));
    format!("cargo xtask torture --tier {tier}{seed} --replay {case}")
}
