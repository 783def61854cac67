//! Any store under the oracle: strand beside others, driven through a command line that a spec
//! describes, or through a program that speaks a protocol.
//!
//! A write is known by a token in its payload. What the agents were told and what the store lists
//! afterwards is put into the terms of [`crate::evidence`], whose oracle judges it as it judges
//! strand. What a store cannot show is not tested.

mod command;
mod examine;
mod faults;
mod follow;
mod history;
pub mod locked_file;
mod open;
mod outcome;
#[cfg(target_os = "linux")]
mod power;
mod preflight;
mod program;
mod reading;
pub mod runner;
mod seat;
mod serving;
pub mod shrink;
pub mod spec;
pub mod store;
pub mod template;
mod wire;
pub mod witness;

use std::path::Path;
use std::sync::atomic::AtomicU32;

use crate::run::config::{Config, Workload};
use crate::run::runner::{Moment, Watch};
use crate::run::{RunError, make_run_dir};
use crate::stores::outcome::{environment, report, set_up, skipped, usage};
use crate::stores::runner::{History, Round, Site};
use crate::stores::serving::Serving;
use crate::stores::store::Store;

pub use history::history;
pub use open::is_there;
pub use outcome::{Answers, ByHand, Report, STALL_MS};

/// Tries a store with one agent: whether the spec is right.
///
/// # Errors
/// [`RunError::Usage`] says what is wrong with the spec.
pub fn check_spec(config: &Config, exe: &Path) -> Result<String, RunError> {
    let dir = make_run_dir(config)?;
    let (store, site) = open_at(config, exe, dir.path())?;
    preflight::preflight(config, &*store, &site).map_err(usage)
}

fn open_at(config: &Config, exe: &Path, dir: &Path) -> Result<(Box<dyn Store>, Site), RunError> {
    let scratch = dir.join("preflight");
    let (store, spec) = open::open(config, exe, &scratch).map_err(usage)?;
    let site = Site {
        store: scratch.join("store"),
        scratch,
        spec,
    };
    Ok((store, site))
}

/// Does one run and judges it.
///
/// # Errors
/// [`RunError::Usage`]: the store, its spec or the flags are wrong; [`RunError::Environment`]: a
/// directory could not be made.
pub fn run(config: &Config, exe: &Path, progress: &dyn Fn(&Moment)) -> Result<Report, RunError> {
    run_until(config, exe, Watch::only(progress))
}

/// As [`run`], but ends as soon as the watch says so, and judges what was done.
///
/// # Errors
/// As [`run`].
pub fn run_until(config: &Config, exe: &Path, watch: Watch<'_>) -> Result<Report, RunError> {
    let dir = make_run_dir(config)?;
    let (store, tried) = open_at(config, exe, dir.path())?;
    let store = &*store;
    preflight::preflight(config, store, &tried).map_err(usage)?;
    let can = store.can();
    match config.workload {
        Workload::Batch if !can.batch => {
            return Err(usage(format!("{}: it has no [batch]", can.name)));
        }
        Workload::Claim if !can.claim => {
            return Err(usage(format!("{}: it has no [claim]", can.name)));
        }
        Workload::Set if !can.set => {
            return Err(usage(format!("{}: it has no [get] and [set]", can.name)));
        }
        Workload::Exclusive if !can.exclusive => {
            return Err(usage(format!("{}: it has no [exclusive]", can.name)));
        }
        _ => {}
    }
    let scratch = dir.path().join("scratch");
    let site = Site {
        store: dir.path().join("disk").join("store"),
        scratch,
        spec: tried.spec,
    };
    for path in [&site.store, &site.scratch] {
        std::fs::create_dir_all(path)
            .map_err(|error| environment(format!("{}: {error}", path.display())))?;
    }
    let is_traced = faults::Injection::of(config, 0).is_some();
    if let Some(reason) = is_traced.then(faults::obstacle).flatten() {
        return Ok(skipped(config, store, &site, reason, dir));
    }
    if config.power_cuts > 0 {
        #[cfg(target_os = "linux")]
        return power::run(config, exe, store, &site, dir, watch);
        #[cfg(not(target_os = "linux"))]
        return Err(usage("--power-cuts needs Linux".to_owned()));
    }
    let small = match config.disk_bytes {
        None => None,
        Some(bytes) => {
            let disk = dir.path().join("disk");
            match faults::SmallDisk::mount(&disk, bytes) {
                Ok(small) => Some(small),
                Err(reason) => return Ok(skipped(config, store, &site, reason, dir)),
            }
        }
    };
    if small.is_some() {
        std::fs::create_dir_all(&site.store)
            .map_err(|error| environment(format!("{}: {error}", site.store.display())))?;
    }
    let mut history = History::default();
    let serving = set_up(config, store, &site, &mut history).map_err(environment)?;
    let next: Vec<AtomicU32> = (0..config.agents).map(|_| AtomicU32::new(1)).collect();
    let round = Round {
        config,
        store,
        site: &site,
        exe,
        next: &next,
        serving: serving.as_ref(),
        machine: None,
    };
    round.work(&mut history, watch).map_err(environment)?;
    if let Some(small) = &small {
        small.grow().map_err(environment)?;
    }
    if let Some(failure) = serving.as_ref().and_then(Serving::own_end) {
        history.lose_server(failure, "in the run");
    }
    let judged = if history.server_failed {
        examine::without_list(&mut history)
    } else {
        let is_complete = history.hang.is_none() && !history.interrupted;
        examine::judge(config, store, &site, &mut history, is_complete)
    };
    drop(serving);
    let report = report(config, store, &site, history, Some(judged), None, dir);
    drop(small);
    Ok(report)
}
