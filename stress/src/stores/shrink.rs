//! Makes a failing run small: half of the agents, half of the writes, then fewer and fewer single
//! operations, as long as it still fails.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::evidence::verdict::Verdict;
use crate::run::config::{Config, Only, Workload};
use crate::run::runner::{Early, Watch};
use crate::stores::Report;
use crate::stores::runner::BATCH_WRITES;

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
    let mut config = report.config.clone();
    let mut smallest = report;
    let mut is_smaller = |candidates: Vec<Config>| {
        let mut candidates = candidates.into_iter();
        let smaller = candidates.find_map(|config| fails(&config, exe, &kinds, &is_over));
        let is_found = smaller.is_some();
        if let Some(smaller) = smaller {
            let larger = std::mem::replace(&mut smallest, smaller);
            // It is no longer needed.
            drop(larger.kept.as_deref().map(std::fs::remove_dir_all));
        }
        is_found.then(|| smallest.config.clone())
    };
    while let Some(smaller) = is_smaller(candidates(&config)) {
        config = smaller;
    }
    // In so many parts, of which one is left out.
    let mut parts = 2;
    while !is_over() {
        let operations = operations(&config);
        if operations.len() < 2 {
            break;
        }
        parts = parts.min(operations.len());
        match is_smaller(without_a_part(&config, &operations, parts)) {
            Some(smaller) => {
                config = smaller;
                parts = (parts - 1).max(2);
            }
            None if parts == operations.len() => break,
            None => parts *= 2,
        }
    }
    smallest
}

/// What the agents do: agent and write of each.
fn operations(config: &Config) -> Vec<(u32, u32)> {
    let each = match config.workload {
        Workload::Batch => BATCH_WRITES as usize,
        _ => 1,
    };
    let all = (0..config.agents).flat_map(|agent| {
        let writes = (1..=config.writes).step_by(each);
        writes.map(move |write| (agent, write))
    });
    all.filter(|&(agent, write)| config.makes(agent, write))
        .collect()
}

fn without_a_part(config: &Config, operations: &[(u32, u32)], parts: usize) -> Vec<Config> {
    let chunk = operations.len().div_ceil(parts);
    let chunks = operations.chunks(chunk);
    let without = chunks.enumerate().map(|(left_out, _)| {
        let rest = operations.chunks(chunk).enumerate();
        let rest = rest.filter(|(at, _)| *at != left_out);
        Config {
            only: Some(Only::these(rest.flat_map(|(_, part)| part.iter().copied()))),
            ..config.clone()
        }
    });
    without.collect()
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
