//! Makes a failing run small: half of the agents, half of the writes, as long as it still fails.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::evidence::verdict::Verdict;
use crate::run::config::Config;
use crate::run::runner::{Early, Watch};
use crate::stores::Report;

/// How often a smaller run may pass before it is given up.
const TRIES: u64 = 3;

/// The smallest run found within `limit`, or before an interrupt, that fails in one of the ways of
/// `report`.
#[must_use]
pub fn shrink(
    report: Report,
    exe: &Path,
    limit: Duration,
    is_interrupted: &dyn Fn() -> bool,
) -> Report {
    let until = Instant::now() + limit;
    let is_over = || Instant::now() >= until || is_interrupted();
    let kinds: Vec<String> = report.kinds.keys().cloned().collect();
    let mut smallest = report;
    while let Some(smaller) = candidates(&smallest.config)
        .into_iter()
        .find_map(|config| fails(&config, exe, &kinds, &is_over))
    {
        if let Some(old) = smallest.kept.as_deref() {
            // The larger run is no longer needed.
            drop(std::fs::remove_dir_all(old));
        }
        smallest = smaller;
    }
    smallest
}

fn candidates(config: &Config) -> Vec<Config> {
    let mut smaller = Vec::new();
    if config.agents > 2 {
        let agents = (config.agents / 2).max(2);
        smaller.push(Config {
            agents,
            ..config.clone()
        });
    }
    if config.writes > 1 {
        let writes = config.writes / 2;
        smaller.push(Config {
            writes,
            ..config.clone()
        });
    }
    smaller
}

fn fails(
    config: &Config,
    exe: &Path,
    kinds: &[String],
    is_over: &dyn Fn() -> bool,
) -> Option<Report> {
    let watch = Watch {
        progress: &|_| {},
        early: &|| is_over().then_some(Early::Interrupted),
    };
    for again in 0..TRIES {
        if is_over() {
            return None;
        }
        let seed = config.seed.wrapping_add(again);
        let config = Config {
            seed,
            ..config.clone()
        };
        let report = super::run_until(&config, exe, watch).ok()?;
        let is_same = report.kinds.keys().any(|kind| kinds.contains(kind));
        if report.verdict == Verdict::Violated && is_same {
            return Some(report);
        }
        if let Some(kept) = report.kept.as_deref() {
            drop(std::fs::remove_dir_all(kept));
        }
    }
    None
}
