//! What is stored after a run, put into the terms of the oracle, and its judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::evidence::checks::{Check, Counts, Source, checks};
use crate::evidence::ledger::{End, Incarnation, Ledger, Operation, Outcome, Sighting};
use crate::evidence::listing::{Beside, Entry, Item, Shows, number, records, token};
use crate::evidence::oracle::{Evidence, judge as judge_evidence};
use crate::evidence::stored::StoredRecord;
use crate::evidence::violation::Violation;
use crate::evidence::workload::Refusal;
use crate::run::config::{Config, Workload};
use crate::stores::runner::{Call, History, Site, acknowledged, look, payload, writes};
use crate::stores::seat::{Seat, with_limit};
use crate::stores::spec::Pattern;
use crate::stores::store::{Agent, Deed, Store, Told, job};
use crate::stores::witness;

/// How many writes a violation names.
const NAMED_MAX: usize = 20;

/// The judgement of a run.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) violations: Vec<Violation>,
    pub(super) checks: Vec<Check>,
    /// The listed writes.
    pub(super) stored: Vec<(u32, u32)>,
    pub(super) cuts: u64,
}

/// Lists what is stored, looks at the rest, and judges. `complete`: every agent did all its writes.
pub(super) fn judge(
    config: &Config,
    store: &dyn Store,
    site: &Site,
    history: &mut History,
    complete: bool,
) -> Judged {
    let over = Arc::new(AtomicBool::new(false));
    let seat = match site.seat(config.agents, &over, None) {
        Ok(seat) => seat,
        Err(error) => {
            return Judged {
                violations: vec![failed("prepare", error)],
                ..Judged::default()
            };
        }
    };
    let can = store.can();
    let (listed, mut beside) = look_around(config, store, site, &seat, history);
    beside.violations.append(&mut history.violations);
    beside
        .violations
        .extend(incomplete(store, site, &history.calls));
    beside
        .violations
        .extend(leftovers(&can.leftovers, &site.store));
    let payload_of = |agent, write| {
        if can.whole {
            payload(config, agent, write)
        } else {
            token(agent, write)
        }
    };
    let records_of = |entries: &[Entry]| records(entries, &payload_of);
    let records = records_of(&listed);
    let mut ledger = ledger(&history.calls);
    // The receipt of a batch is not the number of each of its writes.
    if !can.numbers || config.workload == Workload::Batch {
        number(&mut ledger, &records);
    }
    let batches = history.calls.iter().filter(|call| call.deed == Deed::Batch);
    let batches = batches.map(|call| (call.agent, call.write, call.write + call.writes - 1));
    beside.batches = batches.collect();
    beside.followed = history.followed.take().map(|shown| {
        let mut shown = records_of(&shown);
        for record in &mut shown {
            "follower".clone_into(&mut record.place.file);
        }
        shown
    });
    if can.receipts {
        let receipts = history.calls.iter();
        let receipts = receipts.filter(|call| call.deed == Deed::Append && call.told == Told::Ok);
        let receipts =
            receipts.filter_map(|call| Some((call.receipt.clone()?, (call.agent, call.write))));
        beside.receipts = receipts.collect();
    }
    let expected = |agent, write| vec![payload_of(agent, write)];
    let writes = if complete && config.workload.writes() && config.only.is_none() {
        vec![config.writes; config.agents as usize]
    } else {
        Vec::new()
    };
    let shows = Shows {
        order: can.ordered,
        numbers: can.numbers,
        retries: false,
        never_fails: false,
    };
    let violations = judge_evidence(&Evidence {
        agents: config.agents,
        writes: &writes,
        synced: true,
        hints_were_lost: false,
        complete,
        ledger: &ledger,
        records: &records,
        bad_lines: &[],
        expected: &expected,
        keyed: can.idempotent,
        claimed: 0,
        model: None,
        snapshot_seqs: &BTreeSet::new(),
        journals: &[],
        shows,
        beside: &beside,
    });
    let counts = counts(&ledger, &records, shows, &beside, history);
    Judged {
        checks: checks(Source::List, &counts, &violations),
        stored: records.iter().filter_map(StoredRecord::owner).collect(),
        violations,
        cuts: 0,
    }
}

/// The judgement where there is no server that could be asked for the list.
pub(super) fn without_list(history: &mut History) -> Judged {
    let violations = std::mem::take(&mut history.violations);
    Judged {
        checks: checks(Source::List, &Counts::default(), &violations),
        violations,
        ..Judged::default()
    }
}

/// The list, and what is found beside it.
fn look_around(
    config: &Config,
    store: &dyn Store,
    site: &Site,
    seat: &Seat,
    history: &mut History,
) -> (Vec<Entry>, Beside) {
    let can = store.can();
    let mut beside = Beside::default();
    let mut listed = Vec::new();
    with_limit(seat, || {
        let mut agent = store.agent(seat, true);
        if config.workload != Workload::Exclusive {
            match list(&mut *agent, site, config.agents) {
                Ok(entries) => listed = entries,
                Err(violation) => beside.violations.push(violation),
            }
        }
        if config.workload == Workload::Claim {
            beside.items = items(&mut *agent, config, site, can.show, history);
        }
        if config.workload == Workload::Set {
            beside.items = changes(&mut *agent, config, site, history);
        }
        if can.export && config.workload == Workload::Append {
            let values = site.values(config.agents);
            match agent
                .perform(&job(Deed::Export, values))
                .success("the last export")
            {
                Ok(_) => look(&can.artifacts, site, history),
                Err(error) => beside.violations.push(failed("export", error)),
            }
        } else {
            look(&can.artifacts, site, history);
        }
        for (number, check) in can.checks.iter().enumerate() {
            let values = site.values(config.agents);
            let answer = agent.perform(&job(Deed::Check(number), values));
            if let Err(said) = answer.success("the check") {
                let name = check.name.clone();
                beside
                    .violations
                    .push(Violation::CheckFailed { name, said });
            }
            history.looks += 1;
        }
    });
    (listed, beside)
}

fn failed(step: &str, error: String) -> Violation {
    Violation::ExaminationFailed {
        step: step.to_owned(),
        error,
    }
}

/// The list, which is the same each time.
fn list(agent: &mut dyn Agent, site: &Site, who: u32) -> Result<Vec<Entry>, Violation> {
    let mut list = || {
        let answer = agent.perform(&job(Deed::List, site.values(who)));
        answer.success("the list").map(|answer| answer.entries)
    };
    let first = list().map_err(|error| failed("list", error))?;
    let second = list().map_err(|error| failed("list again", error))?;
    if first == second {
        return Ok(first);
    }
    Err(Violation::RecoveriesDiffer {
        first: format!("{} entries", first.len()),
        second: format!("{} entries", second.len()),
    })
}

/// The items with their winners, and their owners as the store says.
fn items(
    agent: &mut dyn Agent,
    config: &Config,
    site: &Site,
    show: bool,
    history: &History,
) -> Vec<Item> {
    let names = (1..).zip(&history.items);
    names
        .map(|(number, name)| {
            let claims = history.calls.iter().filter(|call| {
                call.deed == Deed::Claim && call.item == Some(number) && call.told == Told::Ok
            });
            let values = site.item(config.agents, name, token(config.agents, number));
            let answer = show.then(|| agent.perform(&job(Deed::Show, values)));
            Item {
                name: name.clone(),
                winners: claims.map(|call| call.agent).collect(),
                is_shown: answer
                    .as_ref()
                    .is_some_and(|answer| answer.told == Told::Ok),
                owner: answer.and_then(|answer| answer.receipt),
            }
        })
        .collect()
}

/// Each change of an item from a value: who was told to have made it. From the value that an item
/// has at the end nobody has changed it.
fn changes(agent: &mut dyn Agent, config: &Config, site: &Site, history: &History) -> Vec<Item> {
    let mut changes = Vec::new();
    for (number, name) in (1..).zip(&history.items) {
        let values = site.item(config.agents, name, token(config.agents, number));
        let answer = agent.perform(&job(Deed::Get, values));
        let last = answer.receipt.filter(|_| answer.told == Told::Ok);
        let mut winners: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let done = history.calls.iter().filter(|call| {
            call.deed == Deed::Set && call.item == Some(number) && call.told == Told::Ok
        });
        for call in done {
            let old = call.old.as_deref().unwrap_or_default();
            winners.entry(old).or_default().push(call.agent);
        }
        changes.extend(winners.into_iter().map(|(old, winners)| Item {
            name: format!("{name} from {old}"),
            winners,
            is_shown: last.as_deref() == Some(old),
            owner: last.clone(),
        }));
    }
    changes
}

/// Artifacts that have to be complete and are not.
fn incomplete(store: &dyn Store, site: &Site, calls: &[Call]) -> Vec<Violation> {
    let complete = store
        .can()
        .artifacts
        .iter()
        .filter(|artifact| artifact.complete);
    let misses = complete.filter_map(|artifact| {
        let path = artifact.path.fill(&site.values(0)).ok()?;
        let text = std::fs::read(&path).ok()?;
        let text = String::from_utf8_lossy(&text);
        let missing = acknowledged(calls).map(|(agent, write)| token(agent, write));
        let writes: Vec<String> = missing
            .filter(|token| !text.contains(token.as_str()))
            .take(NAMED_MAX)
            .collect();
        (!writes.is_empty()).then_some(Violation::ArtifactMisses { path, writes })
    });
    misses.collect()
}

/// The files in a store that are of a kind which must not be left behind.
pub(super) fn leftovers(patterns: &[String], dir: &Path) -> Vec<Violation> {
    let patterns: Vec<Pattern> = patterns
        .iter()
        .filter_map(|glob| glob_pattern(glob))
        .collect();
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let (Some(dir), false) = (open.pop(), patterns.is_empty()) {
        // A directory that can't be read has nothing that anyone left there.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if patterns.iter().any(|pattern| pattern.is_in(&name)) {
                let path = path.display().to_string();
                found.push(Violation::LeftBehind { path });
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

/// `*.tmp` as a pattern.
fn glob_pattern(glob: &str) -> Option<Pattern> {
    let parts: Vec<String> = glob.split('*').map(regex_lite::escape).collect();
    Pattern::try_from(format!("^{}$", parts.join(".*"))).ok()
}

/// The answers in the terms of the oracle.
fn ledger(calls: &[Call]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.operations.extend(writes(calls).map(|(call, write)| {
        Operation {
            agent: call.agent,
            write,
            invoke_ns: call.begin_ns,
            outcome: match &call.told {
                Told::Ok => Outcome::Acknowledged {
                    seq: call
                        .receipt
                        .as_ref()
                        .and_then(|receipt| receipt.parse().ok())
                        .unwrap_or(0),
                    ack_ns: call.end_ns,
                    repeated: false,
                },
                Told::Refused(text) => Outcome::Refused {
                    refusal: Refusal::Said { text: text.clone() },
                    end_ns: call.end_ns,
                },
                Told::Fail(error) => Outcome::Rejected {
                    error: error.clone(),
                },
                Told::Info(error) => Outcome::Unknown {
                    error: error.clone(),
                },
            },
        }
    }));
    for call in calls.iter().filter(|call| call.deed == Deed::Exclusive) {
        if call.told == Told::Info(String::new()) {
            // Its mark is excused from its call until it was cleared.
            ledger.incarnations.push(Incarnation {
                role: "agent",
                agents: vec![call.agent],
                pid: 0,
                killed_ns: Some(call.begin_ns),
                reaped_ns: call.end_ns,
                end: End::Killed,
                left_holding: Vec::new(),
            });
        }
        if let Some((at_ns, others)) = witness::read(&call.output) {
            let agent = call.agent;
            ledger
                .sightings
                .extend(others.into_iter().map(|other| Sighting {
                    agent,
                    at_ns,
                    other,
                }));
        }
    }
    ledger
}

fn counts(
    ledger: &Ledger,
    records: &[StoredRecord],
    shows: Shows,
    beside: &Beside,
    history: &History,
) -> Counts {
    let stored = records.len() as u64;
    let mut counts = Counts {
        stored,
        numbered: if shows.numbers { stored } else { 0 },
        ordered: if shows.order { stored } else { 0 },
        followed: beside
            .followed
            .as_ref()
            .map_or(0, |shown| shown.len() as u64),
        batches: beside.batches.len() as u64,
        receipts: beside.receipts.len() as u64,
        claims: beside.items.len() as u64,
        artifacts: history.looks,
        ..Counts::default()
    };
    for operation in &ledger.operations {
        *match operation.outcome {
            Outcome::Acknowledged { .. } => &mut counts.acknowledged,
            Outcome::Refused { .. } => &mut counts.refused,
            Outcome::Rejected { .. } => &mut counts.rejected,
            Outcome::Unknown { .. } => &mut counts.unknown,
        } += 1;
    }
    let held = history
        .calls
        .iter()
        .filter(|call| call.deed == Deed::Exclusive);
    counts.holds = held.filter(|call| call.told == Told::Ok).count() as u64;
    counts
}
