//! One run: starts the processes, disturbs them, collects the evidence, and judges.

pub mod agent;
pub mod archive;
pub mod bystanders;
pub(crate) mod child;
pub mod config;
pub mod control;
pub(crate) mod errors;
pub(crate) mod etcd;
mod events;
pub mod examine;
pub mod judgement;
pub(crate) mod local_disk;
mod nemesis;
mod opened;
pub mod payload;
pub mod places;
pub(crate) mod pool;
pub mod process;
pub mod protocol;
pub mod replay;
pub mod reporting;
pub mod runner;
mod watcher;
pub(crate) mod witness;
pub(crate) mod writes;

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::evidence::checks::{Counts, Source, checks};
use crate::evidence::ids::operation_key;
use crate::evidence::ledger::{Ledger, Operation, Outcome};
use crate::evidence::listing::{Beside, Shows};
use crate::evidence::observations::Journal;
use crate::evidence::oracle::Evidence;
use crate::evidence::verdict::Verdict;
use crate::evidence::violation::Violation;
use crate::evidence::workload::Plan;
use crate::evidence::{oracle, stored};
use crate::run::config::{Config, UsageError, Workload};
use crate::run::examine::Examination;
use crate::run::judgement::Judgement;
use crate::run::payload::{PayloadError, PayloadSource, Payloads};
use crate::run::places::Places;
use crate::run::runner::{EnvironmentError, Moment, Watch};

/// How much of the agents' standard error is in the report.
const STDERR_BYTES_MAX: u64 = 16 << 10;

/// A run that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration makes no sense; nothing was started.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Something outside the log made the run impossible.
    #[error("{message}")]
    Environment {
        /// What.
        message: String,
        /// Where the store is, when there already was one.
        store: Option<PathBuf>,
    },
}

impl RunError {
    fn environment(message: impl Into<String>) -> RunError {
        RunError::Environment {
            message: message.into(),
            store: None,
        }
    }

    /// The exit status of the harness.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            RunError::Usage(_) => 2,
            RunError::Environment { .. } => Verdict::Environment.exit_status(),
        }
    }
}

impl From<PayloadError> for RunError {
    /// An invalid file is the caller's mistake; one that cannot be read is not.
    fn from(error: PayloadError) -> RunError {
        let text = errors::describe(&error);
        match error {
            PayloadError::Read { .. } => RunError::environment(text),
            PayloadError::Empty { .. } | PayloadError::Invalid { .. } => {
                RunError::Usage(UsageError(text))
            }
        }
    }
}

/// Does one run and judges it. `exe` is the `strand-stress` binary, from which agents are started;
/// `progress` is called from time to time.
///
/// The store is in a directory of its own, which is removed after a run that passed, unless
/// [`Config::keep`] is set; [`Judgement::store`] says where it was kept.
///
/// # Errors
/// [`RunError::Usage`] before anything was done; [`RunError::Environment`] when a directory could
/// not be made or a process not be started. Every process that was started is reaped.
pub fn run(config: &Config, exe: &Path, progress: &dyn Fn(&Moment)) -> Result<Judgement, RunError> {
    run_until(config, exe, Watch::only(progress))
}

/// As [`run`], but ends as soon as the watch says why.
///
/// # Errors
/// As [`run`]; [`RunError::Environment`] also for [`runner::Early::Broken`].
pub fn run_until(config: &Config, exe: &Path, watch: Watch<'_>) -> Result<Judgement, RunError> {
    config.validate()?;
    let source = payload_source(config)?;
    let mut payloads = Payloads::open(&source, config.seed, config.writes)?;
    if config.workload == Workload::Replay {
        payloads.partition(config.agents)?;
    } else {
        payloads.check(config.agents)?;
    }
    let writes = payloads.writes_of(config.agents);
    let run_dir = make_run_dir(config)?;
    let places = Places {
        store: run_dir.path().join("store"),
        etcd: if config.is_etcd() {
            Some(etcd::address_of_run(config)?)
        } else {
            None
        },
        control: run_dir.path().join("control"),
        stderr: run_dir.path().join("agents.stderr"),
        archive: run_dir.path().join("archive"),
        journals: run_dir.path().join("journals"),
    };
    for dir in [&places.store, &places.archive, &places.journals] {
        fs::create_dir(dir)
            .map_err(|error| RunError::environment(format!("{}: {error}", dir.display())))?;
    }
    if let Some(address) = &places.etcd {
        // For who looks at a store that was kept.
        let path = places.store.join("ADDRESS");
        fs::write(&path, format!("{address}\n"))
            .map_err(|error| RunError::environment(format!("{}: {error}", path.display())))?;
        let created = etcd::open(address, config.seed);
        created.map_err(|error| RunError::environment(errors::describe(&error)))?;
    }
    match runner::run(config, &source, &writes, exe, &places, watch) {
        Ok(outcome) => judge(config, &payloads, &places, outcome, run_dir),
        Err(EnvironmentError(message)) => {
            let store = Some(run_dir.keep().join("store"));
            Err(RunError::Environment { message, store })
        }
    }
}

/// Examines the store, judges, and keeps or removes the directory of the run.
fn judge(
    config: &Config,
    payloads: &Payloads,
    places: &Places,
    mut gathered: runner::Outcome,
    run_dir: TempDir,
) -> Result<Judgement, RunError> {
    let mut violations = Vec::new();
    let mut checked = Vec::new();
    let mut journals = Vec::new();
    let is_replay = config.workload == Workload::Replay;
    let stored;
    if gathered.hang.is_some() {
        // A hanging process may leave the store in any state: only count the records.
        let segments = stored::read_segments(&places.store).unwrap_or_default();
        stored = segments
            .iter()
            .map(|s| stored::parse_segment(s).0.len() as u64)
            .sum();
    } else {
        if config.kills() && places.etcd.is_none() {
            // The input of recovery, to look at if it goes wrong.
            let as_left = run_dir.path().join("as-left");
            examine::copy_store(&places.store, &as_left).map_err(|error| {
                RunError::environment(format!("{}: {error}", as_left.display()))
            })?;
        }
        let copy = run_dir.path().join("store-before-the-last-append");
        let mut examination = if let Some(address) = &places.etcd {
            etcd::examine::examine(address)
        } else {
            let killed = gathered.killed + gathered.torn > 0 || gathered.interrupted;
            examine::examine(&places.store, &places.archive, &copy, killed)
        };
        for follower in 0..config.followers {
            journals.push(read_journal(&places.journal(follower)).map_err(RunError::environment)?);
        }
        stored = examination.records.len() as u64;
        let views = std::mem::take(&mut examination.views);
        let recoveries = if places.etcd.is_some() {
            0
        } else {
            views.len() as u64
        };
        gathered.ledger.views.extend(views);
        let writes = writes(&gathered, payloads, config.agents);
        violations = judge_stored(&Judged {
            config,
            payloads,
            writes: &writes,
            hints_were_lost: gathered.forgotten + gathered.displaced > 0,
            complete: !gathered.interrupted,
            ledger: &gathered.ledger,
            journals: &journals,
            examination: &examination,
        });
        violations.extend(examination.violations);
        let is_whole_replay = is_replay && !gathered.interrupted;
        if let Some(model) = examination.model.as_ref().filter(|_| is_whole_replay) {
            let difference = replay::difference(payloads, model)?;
            let difference = difference.filter(|_| gathered.ledger.environment_errors.is_empty());
            violations.extend(difference.map(|detail| Violation::FoldDiffers { detail }));
        }
        violations.extend(unreaped(&gathered));
        let counts = Counts {
            stored,
            // On etcd, numbers have gaps.
            numbered: if config.is_etcd() { 0 } else { stored },
            ordered: stored,
            recoveries,
            followed: journals
                .iter()
                .map(|j: &Journal| j.entries.len() as u64)
                .sum(),
            snapshots: examination.snapshot_seqs.len() as u64,
            ..counts(&gathered.ledger)
        };
        checked = checks(Source::Bytes, &counts, &violations);
    }
    let mut judgement = Judgement {
        config: config.clone(),
        gathered,
        journals,
        stored,
        checks: checked,
        violations,
        agents_stderr: read_start(&places.stderr),
        store: None,
    };
    if !judgement.verdict().is_good() || config.keep {
        let dir = run_dir.keep();
        let path = dir.join("ledger.json");
        judgement.store = Some(dir.join("store"));
        let json = serde_json::to_string(&judgement.gathered.ledger).map_err(std::io::Error::from);
        json.and_then(|json| fs::write(&path, json))
            .map_err(|error| RunError::environment(format!("{}: {error}", path.display())))?;
    } else {
        let removed = places.etcd.as_deref().map_or(Ok(()), etcd::examine::remove);
        removed.map_err(RunError::environment)?;
        let path = run_dir.path().to_owned();
        run_dir.close().map_err(|error| {
            RunError::environment(format!("cannot remove {}: {error}", path.display()))
        })?;
    }
    Ok(judgement)
}

/// Processes that were started and never seen to end.
fn unreaped(gathered: &runner::Outcome) -> Option<Violation> {
    let (spawned, reaped) = (gathered.spawned, gathered.ledger.incarnations.len() as u64);
    let detail = format!("{spawned} processes were started and {reaped} reaped");
    (reaped != spawned).then_some(Violation::Protocol { detail })
}

/// How many writes each agent has begun: all of them, or in a run that was interrupted those up to
/// the last one that is decided.
fn writes(gathered: &runner::Outcome, payloads: &Payloads, agents: u32) -> Vec<u32> {
    if !gathered.interrupted {
        return payloads.writes_of(agents);
    }
    decided(&gathered.ledger, agents)
}

/// The last write of each agent that is decided: one that is unknown or was rejected may have been
/// about to be repeated, and counts only then.
fn decided(ledger: &Ledger, agents: u32) -> Vec<u32> {
    let mut begun = vec![0; agents as usize];
    let is_decided = |operation: &&Operation| {
        let outcome = &operation.outcome;
        matches!(
            outcome,
            Outcome::Acknowledged { .. } | Outcome::Refused { .. }
        )
    };
    for operation in ledger.operations.iter().filter(is_decided) {
        if let Some(last) = begun.get_mut(operation.agent as usize) {
            *last = operation.write.max(*last);
        }
    }
    begun
}

/// The number of reports to compare.
fn counts(ledger: &Ledger) -> Counts {
    let mut counts = Counts {
        durable_seen: ledger.durable_seen.len() as u64,
        views: ledger.views.len() as u64,
        holds: ledger.holds.len() as u64,
        conditions: ledger.plans.len() as u64,
        processes: ledger.incarnations.len() as u64,
        ..Counts::default()
    };
    for operation in &ledger.operations {
        let count = match operation.outcome {
            Outcome::Acknowledged { .. } => &mut counts.acknowledged,
            Outcome::Refused { .. } => &mut counts.refused,
            Outcome::Rejected { .. } => &mut counts.rejected,
            Outcome::Unknown { .. } => &mut counts.unknown,
        };
        *count += 1;
    }
    counts
}

/// The input of [`judge_stored`].
pub(crate) struct Judged<'a> {
    pub(crate) config: &'a Config,
    pub(crate) payloads: &'a Payloads,
    /// Writes of each agent.
    pub(crate) writes: &'a [u32],
    /// See [`Evidence::hints_were_lost`].
    pub(crate) hints_were_lost: bool,
    /// See [`Evidence::complete`].
    pub(crate) complete: bool,
    pub(crate) ledger: &'a Ledger,
    pub(crate) journals: &'a [Journal],
    pub(crate) examination: &'a Examination,
}

/// Every violation that follows from ledger, files and journals, without those that the examination
/// found.
pub(crate) fn judge_stored(judged: &Judged<'_>) -> Vec<Violation> {
    let Judged {
        config,
        payloads,
        ledger,
        examination,
        ..
    } = *judged;
    let plans = ledger.plans.iter();
    let plans: HashMap<(u32, u32), &Plan> = plans
        .map(|(agent, write, plan)| ((*agent, *write), plan))
        .collect();
    let expected = |agent, write| match plans.get(&(agent, write)) {
        Some(plan) => plan.events(&operation_key(agent, write)),
        None => vec![expected_event(payloads, agent, write)],
    };
    oracle::judge(&Evidence {
        agents: config.agents,
        writes: judged.writes,
        synced: config.durability == config::Durability::Synced,
        hints_were_lost: judged.hints_were_lost,
        complete: judged.complete,
        ledger,
        records: &examination.records,
        bad_lines: &examination.bad_lines,
        expected: &expected,
        keyed: config.workload != Workload::Append || config.is_etcd(),
        claimed: if config.workload == Workload::Claim && judged.complete {
            config.pool()
        } else {
            0
        },
        model: examination.model.as_ref(),
        snapshot_seqs: &examination.snapshot_seqs,
        journals: judged.journals,
        shows: if config.is_etcd() {
            Shows::ETCD
        } else {
            Shows::STRAND
        },
        beside: &Beside::default(),
    })
}

pub(crate) fn payload_source(config: &Config) -> Result<PayloadSource, RunError> {
    Ok(match (&config.payload, config.payload_bytes) {
        (Some(path), _) => {
            let path = path.canonicalize().map_err(|error| {
                RunError::environment(format!(
                    "cannot read the events in {}: {error}",
                    path.display()
                ))
            })?;
            PayloadSource::File { path }
        }
        (None, Some(record_bytes)) => PayloadSource::Padded { record_bytes },
        (None, None) => PayloadSource::Small,
    })
}

pub(crate) fn make_run_dir(config: &Config) -> Result<TempDir, RunError> {
    let parent = config.parent_dir();
    let cannot = |error: std::io::Error| {
        RunError::environment(format!(
            "cannot make a directory in {}: {error}",
            parent.display()
        ))
    };
    fs::create_dir_all(&parent).map_err(cannot)?;
    let parent = parent.canonicalize().map_err(cannot)?;
    tempfile::Builder::new()
        .prefix(&format!("strand-stress-{}-", config.seed))
        .tempdir_in(parent)
        .map_err(cannot)
}

/// The event that an agent gave to the log. All payloads were checked before the run; one that
/// cannot be made any more is unequal to everything.
fn expected_event(payloads: &Payloads, agent: u32, write: u32) -> String {
    payloads.expected(agent, write).unwrap_or_default()
}

/// The journal of a follower; empty if it was never started.
pub(crate) fn read_journal(path: &Path) -> Result<Journal, String> {
    match fs::read(path) {
        Ok(bytes) => Journal::parse(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Journal::default()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn read_start(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(STDERR_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_run_that_was_interrupted_only_what_is_decided_counts_as_begun() {
        let operation = |agent, write, outcome| Operation {
            agent,
            write,
            invoke_ns: 1,
            outcome,
        };
        let acknowledged = || Outcome::Acknowledged {
            seq: 1,
            ack_ns: 2,
            repeated: false,
        };
        let error = String::new;
        let operations = vec![
            operation(0, 1, acknowledged()),
            operation(0, 2, Outcome::Unknown { error: error() }),
            operation(0, 3, acknowledged()),
            operation(0, 4, Outcome::Rejected { error: error() }),
            operation(1, 1, Outcome::Unknown { error: error() }),
            operation(7, 9, acknowledged()),
        ];
        let ledger = Ledger {
            operations,
            ..Ledger::default()
        };
        assert_eq!(decided(&ledger, 2), [3, 0]);
    }
}
