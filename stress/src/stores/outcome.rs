//! The outcome of a run of any store, and what it takes to make one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use tempfile::TempDir;

use crate::evidence::checks::Check;
use crate::evidence::ledger::Incident;
use crate::evidence::listing::{kinds, token};
use crate::evidence::verdict::Verdict;
use crate::evidence::violation::{Class, Violation};
use crate::evidence::workload::claimed_issue;
use crate::run::RunError;
use crate::run::config::{Config, UsageError, Workload};
use crate::stores::examine::Judged;
use crate::stores::runner::{Call, History, Site, append, call};
use crate::stores::serving::Serving;
use crate::stores::store::{Deed, Store, Told, job};

/// How a run of a store went.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The store's name.
    pub store: String,
    /// The version of its program.
    pub version: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Violations by class; those that are not there have none.
    pub classes: BTreeMap<Class, u64>,
    /// Violations by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Calls by answer.
    pub answers: Answers,
    /// Entries in the list at the end.
    pub listed: u64,
    /// From the start to the last answer.
    pub elapsed_ms: f64,
    /// Processes killed.
    pub killed: u64,
    /// Processes stopped for a while.
    pub stopped: u64,
    /// Times the power was cut.
    pub cuts: u64,
    /// The longest call and the median.
    pub slowest_ms: f64,
    /// The median call.
    pub median_ms: f64,
    /// Calls that took longer than [`STALL_MS`].
    pub stalls: u64,
    /// The comparisons of the oracle; those without a number were not tested.
    pub checks: Vec<Check>,
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
    /// What each agent was doing when the watchdog gave up.
    pub hang: Option<Vec<String>>,
    /// A fault of the environment that was asked for and is not possible here.
    pub skipped: Option<String>,
    /// The line that repeats the run.
    pub replay: String,
    /// Where the store was kept.
    pub kept: Option<PathBuf>,
    /// The configuration.
    pub config: Config,
    /// Every call.
    #[serde(skip)]
    pub calls: Vec<Call>,
    /// What was done to the run.
    #[serde(skip)]
    pub incidents: Vec<Incident>,
    /// When the agents began.
    #[serde(skip)]
    pub go_ns: u64,
    /// The writes that are listed, in the order of the list.
    #[serde(skip)]
    pub stored: Vec<(u32, u32)>,
    /// How to do it by hand.
    #[serde(skip)]
    pub by_hand: ByHand,
}

/// A call that takes longer stalls.
pub const STALL_MS: f64 = 1_000.0;

/// How often each answer was given.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Answers {
    /// Done.
    pub ok: u64,
    /// Refused.
    pub refused: u64,
    /// Failed.
    pub failed: u64,
    /// Unknown.
    pub unknown: u64,
}

/// Lines for a shell that do what the agents did. `$STORE` is the store.
#[derive(Debug, Clone, Default)]
pub struct ByHand {
    /// Makes the store.
    pub init: Option<String>,
    /// Runs the server, and asks whether it is ready.
    pub serve: Option<(String, String)>,
    /// Makes each item that agents compete for.
    pub items: Vec<String>,
    /// Finds an item's name in what that prints, if it is not in the lines.
    pub receipt: Option<String>,
    /// Competes for an item: agent, item, line.
    pub claims: Vec<(u32, u32, String)>,
    /// Makes each write of each agent: agent, write, line.
    pub writes: Vec<(u32, u32, String)>,
    /// Lists all writes.
    pub list: String,
    /// The directories that lines need.
    pub dirs: Vec<String>,
    /// Files beside the spec that lines name.
    pub needs: Vec<String>,
}

impl Report {
    /// Everything in one line.
    #[must_use]
    pub fn verdict_line(&self) -> String {
        let Answers {
            ok,
            refused,
            failed,
            unknown,
        } = self.answers;
        let counts = format!(
            "{ok} acknowledged, {refused} refused, {failed} failed, {unknown} unknown, {} listed \
             (seed {}, {:.0} ms)",
            self.listed, self.config.seed, self.elapsed_ms
        );
        match self.verdict {
            Verdict::Pass => format!("PASS: {counts}"),
            Verdict::Hang => format!("FAIL: hang, not done after {} s", self.config.timeout_s),
            Verdict::Unknown => format!("UNKNOWN: nothing was acknowledged: {counts}"),
            Verdict::Interrupted => format!("INTERRUPTED: nothing is wrong so far: {counts}"),
            Verdict::Environment => {
                let reason = self.skipped.as_deref().unwrap_or("the environment failed");
                format!("SKIPPED: {reason}")
            }
            Verdict::Violated => {
                let found = self.kinds.iter();
                let found: Vec<String> = found.map(|(kind, n)| format!("{n} {kind}")).collect();
                format!("FAIL: {}; {counts}", found.join(", "))
            }
        }
    }

    /// How many violations of this kind there are.
    #[must_use]
    pub fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }
}

pub(super) fn environment(message: String) -> RunError {
    RunError::Environment {
        message,
        store: None,
    }
}

pub(super) fn usage(message: String) -> RunError {
    RunError::Usage(UsageError(message))
}

/// Makes the store, starts its server, and makes the items that agents compete for.
pub(super) fn set_up<'a>(
    config: &Config,
    store: &'a dyn Store,
    site: &Site,
    history: &mut History,
) -> Result<Option<Serving<'a>>, String> {
    let over = Arc::new(AtomicBool::new(false));
    let agent = config.agents;
    let seat = site.seat(agent, &over, None)?;
    let mut worker = store.agent(&seat, false);
    worker
        .perform(&job(Deed::Init, site.values(agent)))
        .success("init")?;
    let server = site.seat(agent, &Arc::default(), None)?;
    let serving = Serving::start(store, server, site.values(agent));
    let serving = serving.map_err(|failure| failure.to_string())?;
    for write in 1..=config.pool() {
        let job = append(config, site, agent, write);
        let answer = worker.perform(&job).success("the append of an item")?;
        let token = job.values.get("token").cloned().unwrap_or_default();
        history.items.push(answer.receipt.clone().unwrap_or(token));
        history
            .calls
            .push(call(agent, write, Deed::Append, None, answer));
    }
    Ok(serving)
}

/// The report on a run that is not possible here.
pub(super) fn skipped(
    config: &Config,
    store: &dyn Store,
    site: &Site,
    reason: String,
    dir: TempDir,
) -> Report {
    let history = History::default();
    report(config, store, site, history, None, Some(reason), dir)
}

/// The report; keeps the store unless all is well.
pub(super) fn report(
    config: &Config,
    store: &dyn Store,
    site: &Site,
    history: History,
    judged: Option<Judged>,
    skipped: Option<String>,
    dir: TempDir,
) -> Report {
    let judged = judged.unwrap_or_default();
    let own = history
        .calls
        .iter()
        .filter(|call| call.agent < config.agents);
    let mut answers = Answers::default();
    let mut times: Vec<u64> = Vec::new();
    for call in own {
        *match call.told {
            Told::Ok => &mut answers.ok,
            Told::Refused(_) => &mut answers.refused,
            Told::Fail(_) => &mut answers.failed,
            Told::Info(_) => &mut answers.unknown,
        } += u64::from(call.writes);
        times.push(call.end_ns.saturating_sub(call.begin_ns));
    }
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody looks at single nanoseconds"
    )]
    let ms = |ns: Option<&u64>| ns.copied().unwrap_or(0) as f64 / 1e6;
    let mut classes = BTreeMap::new();
    for violation in &judged.violations {
        *classes.entry(violation.class()).or_default() += 1;
    }
    let verdict = if skipped.is_some() {
        Verdict::Environment
    } else if history.hang.is_some() {
        Verdict::Hang
    } else if !judged.violations.is_empty() {
        Verdict::Violated
    } else if history.interrupted {
        Verdict::Interrupted
    } else if answers.ok == 0 {
        Verdict::Unknown
    } else {
        Verdict::Pass
    };
    let by_hand = by_hand(config, store, site);
    let is_kept = config.keep || !(verdict.is_good() || verdict == Verdict::Environment);
    let kept = if is_kept {
        Some(dir.keep())
    } else {
        // What can't be removed is in the directory for temporary files.
        drop(dir.close());
        None
    };
    Report {
        store: store.can().name.clone(),
        version: store.version(),
        verdict,
        classes,
        kinds: kinds(&judged.violations),
        answers,
        listed: judged.stored.len() as u64,
        elapsed_ms: history.elapsed_ms,
        killed: history.killed,
        stopped: history.stopped,
        cuts: judged.cuts,
        slowest_ms: ms(times.last()),
        median_ms: ms(times.get(times.len() / 2)),
        stalls: times.iter().filter(|ns| ms(Some(ns)) > STALL_MS).count() as u64,
        checks: judged.checks,
        violations: judged.violations,
        hang: history.hang,
        skipped,
        replay: config.replay_line(),
        kept,
        config: config.clone(),
        calls: history.calls,
        incidents: history.incidents,
        go_ns: history.go_ns,
        stored: judged.stored,
        by_hand,
    }
}

/// The largest number of writes that is written out.
const BY_HAND_MAX: u64 = 20_000;

fn by_hand(config: &Config, store: &dyn Store, site: &Site) -> ByHand {
    let mut by_hand = ByHand::default();
    let is_simple = matches!(config.workload, Workload::Append | Workload::Claim);
    if config.operations() > BY_HAND_MAX || !is_simple {
        return by_hand;
    }
    // A place that each shell fills in.
    let place = Site {
        store: "@STORE@".into(),
        scratch: "@WORK@".into(),
        spec: site.spec.clone(),
    };
    let values = place.values(0);
    by_hand.init = store.line(&job(Deed::Init, values.clone()));
    let line = |deed| store.line(&job(deed, values.clone()));
    by_hand.serve = line(Deed::Serve).zip(line(Deed::Ready));
    by_hand.list = store.line(&job(Deed::List, values)).unwrap_or_default();
    by_hand.receipt.clone_from(&store.can().receipt);
    for write in 1..=config.pool() {
        let line = store.line(&append(config, &place, config.agents, write));
        by_hand.items.extend(line);
    }
    for agent in 0..config.agents {
        by_hand.dirs.push(place.work(agent).display().to_string());
        for write in 1..=config.writes {
            if !config.makes(agent, write) {
                continue;
            }
            if config.workload == Workload::Claim {
                let item =
                    1 + claimed_issue(config.seed, agent, config.agents, write, config.writes);
                let token = token(config.agents, item);
                let name = if store.can().receipts {
                    format!("@ITEM{item}@")
                } else {
                    token.clone()
                };
                let line = store.line(&job(Deed::Claim, place.item(agent, &name, token)));
                by_hand.claims.extend(line.map(|line| (agent, item, line)));
                continue;
            }
            let job = append(config, &place, agent, write);
            let line = store.line(&job);
            by_hand.writes.extend(line.map(|line| (agent, write, line)));
        }
    }
    by_hand
}
