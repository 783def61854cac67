//! The power is cut under any store: its files are on a filesystem that loses, tears and reorders
//! what was not synced ([`crate::powerfs`]). After each cut everything that was acknowledged so far
//! has to be there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;

use crate::powerfs::mount::{Counts, PowerFs, Tripwire, obstacle};
use crate::run::RunError;
use crate::run::config::Config;
use crate::run::runner::Watch;
use crate::sim::disk::VirtualDisk;
use crate::stores::examine::{judge, without_list};
use crate::stores::outcome::{Report, environment, report, set_up, skipped, usage};
use crate::stores::runner::{History, Machine, Round, Site};
use crate::stores::serving::{Failure, Serving};
use crate::stores::store::Store;

/// The power goes within this time in any case.
const CUT_LIMIT_MS: u64 = 1_500;

impl Machine for PowerFs {
    fn is_gone_within(&self, time: Duration) -> bool {
        self.is_cut_within(time)
    }

    fn end(&self) {
        self.cut();
    }

    fn release(&self) {
        PowerFs::release(self);
    }
}

/// Cuts the power as often as the configuration says, or until something is wrong.
pub(super) fn run(
    config: &Config,
    exe: &Path,
    store: &dyn Store,
    site: &Site,
    dir: TempDir,
    watch: Watch<'_>,
) -> Result<Report, RunError> {
    if !config.workload.writes() {
        let reason = "--power-cuts is for --workload append or batch";
        return Err(usage(reason.to_owned()));
    }
    if let Some(reason) = obstacle() {
        return Ok(skipped(config, store, site, reason, dir));
    }
    let mut history = History::default();
    let failed = |error: std::io::Error| environment(error.to_string());
    let mount = dir.path().join("disk");
    std::fs::remove_dir(&site.store).map_err(failed)?;
    let mut random = StdRng::seed_from_u64(config.seed);
    let mut disk = VirtualDisk::new();
    let next: Vec<AtomicU32> = (0..config.agents).map(|_| AtomicU32::new(1)).collect();
    let serve = || {
        let seat = site.seat(config.agents, &Arc::default(), None)?;
        Serving::start(store, seat, site.values(config.agents))
    };
    let not_there = |history: &mut History, failure: Failure, when: &str| {
        history.lose_server(failure, when);
        without_list(history)
    };
    let mut judged = None;
    let mut cuts = 0;
    while cuts < u64::from(config.power_cuts) {
        let served = PowerFs::serve_at(disk, &mount).map_err(failed)?;
        let serving = if cuts == 0 {
            std::fs::create_dir(&site.store).map_err(failed)?;
            let serving = set_up(config, store, site, &mut history).map_err(environment)?;
            served.with_disk(VirtualDisk::sync_all);
            serving
        } else {
            match serve() {
                Ok(serving) => serving,
                Err(failure) => {
                    judged = Some(not_there(&mut history, failure, "after an orderly restart"));
                    served.end().map_err(failed)?;
                    break;
                }
            }
        };
        let magnitude = random.random_range(1..=8);
        // Mostly soon after some call that changes something.
        served.arm(Tripwire {
            counts: if random.random() {
                Counts::Changes
            } else {
                Counts::FileSyncs
            },
            passes: random.random_range(0..1_u32 << magnitude),
            is_done: random.random(),
        });
        let round = Round {
            config,
            store,
            site,
            exe,
            next: &next,
            serving: serving.as_ref(),
            machine: Some((&served, Duration::from_millis(CUT_LIMIT_MS))),
        };
        round.work(&mut history, watch).map_err(environment)?;
        drop(serving);
        let (remains, _) = served.with_disk(|disk| disk.crash(&mut random));
        served.end().map_err(failed)?;
        cuts += 1;
        // The machine is on again.
        let served = PowerFs::serve_at(remains, &mount).map_err(failed)?;
        let found = match serve() {
            Ok(_serving) => judge(config, store, site, &mut history, false),
            Err(failure) => not_there(&mut history, failure, "after a power cut"),
        };
        let is_wrong = !found.violations.is_empty();
        judged = Some(found);
        if is_wrong {
            // To look at.
            let kept = dir.path().join("after-the-cut");
            let mut copy = std::process::Command::new("cp");
            drop(copy.arg("-a").arg(&site.store).arg(kept).status());
        }
        disk = served.with_disk(|disk| disk.clone());
        served.end().map_err(failed)?;
        if is_wrong || history.interrupted {
            break;
        }
        disk.sync_all();
    }
    if let Some(judged) = &mut judged {
        judged.cuts = cuts;
    }
    Ok(report(config, store, site, history, judged, None, dir))
}
