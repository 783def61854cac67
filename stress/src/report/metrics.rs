//! Metrics of bystanders and of writes with conditions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::evidence::ledger::{Compacting, End, Ledger, Outcome, Seen};
use crate::evidence::observations::{Entry, Journal};
use crate::evidence::workload::{Expect, Refusal};
use crate::report::page::plot::Unit;
use crate::report::quantiles::{Quantiles, count, quantiles};

/// The work of readers, followers and compactors.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BystandersReport {
    /// Processes killed, by role.
    pub killed: BTreeMap<&'static str, u64>,
    /// States that readers saw, each compared with the fold of the records.
    pub states: u64,
    /// How long it took to get one.
    pub refresh_us: Quantiles,
    /// Records that followers got, each compared with the stored one.
    pub followed: u64,
    /// How often a follower came too late, and loaded a snapshot.
    pub gaps: u64,
    /// Records that no follower got, since they were compacted before.
    pub unfollowed: u64,
    /// From the acknowledgement of a record to its arrival at a waiting follower; 0 if the follower
    /// was faster.
    pub wake_up_us: Quantiles,
    /// Finished compactions.
    pub compactions: u64,
    /// Calls that found another compaction running.
    pub already_running: u64,
    /// Calls that found nothing new.
    pub nothing_new: u64,
    /// Length of the largest snapshot.
    pub snapshot_bytes_max: u64,
    /// How long a finished compaction took.
    pub compaction_us: Quantiles,
    /// How long it held the store's lock.
    pub compaction_lock_held_us: Quantiles,
}

/// The outcomes of writes with conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConditionsReport {
    /// Claims that were stored.
    pub claims_won: u64,
    /// Claims that were refused.
    pub claims_lost: u64,
    /// Other writes that met another version.
    pub mismatches: u64,
    /// Creates of an issue that existed.
    pub already_exists: u64,
    /// Writes to an issue that did not exist.
    pub no_such_issue: u64,
    /// Writes that were answered from their idempotency key.
    pub repeated: u64,
}

/// The metrics of bystanders; `stored` is the number of records.
pub(crate) fn bystanders(ledger: &Ledger, journals: &[Journal], stored: u64) -> BystandersReport {
    let mut killed = BTreeMap::new();
    for incarnation in ledger.incarnations.iter().filter(|i| i.end == End::Killed) {
        *killed.entry(incarnation.role).or_default() += 1;
    }
    let states = ledger.views.iter();
    let states = states.filter(|view| matches!(view.seen, Seen::State(_)));
    let refreshes = states
        .clone()
        .map(|view| view.end_ns.saturating_sub(view.begin_ns));
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    for operation in &ledger.operations {
        if let Outcome::Acknowledged { seq, ack_ns, .. } = operation.outcome {
            acknowledged.entry(seq).or_insert(ack_ns);
        }
    }
    let (mut followed, mut gaps, mut wake_ups, mut seen) = (0, 0, Vec::new(), BTreeSet::new());
    for entry in journals.iter().flat_map(|journal| &journal.entries) {
        let Entry::Record { at_ns, live, .. } = entry else {
            gaps += 1;
            continue;
        };
        followed += 1;
        let Some(seq) = entry.seq() else { continue };
        seen.insert(seq);
        let ack_ns = acknowledged.get(&seq).filter(|_| *live);
        wake_ups.extend(ack_ns.map(|ack_ns| at_ns.saturating_sub(*ack_ns)));
    }
    let unfollowed = if journals.is_empty() {
        0
    } else {
        stored.saturating_sub(seen.len() as u64)
    };
    let count = |wanted: fn(&Compacting) -> bool| {
        let outcomes = ledger
            .compactions
            .iter()
            .map(|compaction| compaction.outcome);
        outcomes.filter(wanted).count() as u64
    };
    let done = ledger
        .compactions
        .iter()
        .filter_map(|compaction| match compaction.outcome {
            Compacting::Done {
                bytes,
                lock_held_ns,
                ..
            } => {
                let took_ns = compaction.end_ns.saturating_sub(compaction.begin_ns);
                Some((bytes, took_ns, lock_held_ns))
            }
            Compacting::AlreadyRunning | Compacting::NothingNew => None,
        });
    BystandersReport {
        killed,
        states: states.count() as u64,
        refresh_us: quantiles(refreshes),
        followed,
        gaps,
        unfollowed,
        wake_up_us: quantiles(wake_ups.into_iter()),
        compactions: done.clone().count() as u64,
        already_running: count(|outcome| *outcome == Compacting::AlreadyRunning),
        nothing_new: count(|outcome| *outcome == Compacting::NothingNew),
        snapshot_bytes_max: done.clone().map(|(bytes, ..)| bytes).max().unwrap_or(0),
        compaction_us: quantiles(done.clone().map(|(_, took_ns, _)| took_ns)),
        compaction_lock_held_us: quantiles(done.map(|(.., held_ns)| held_ns)),
    }
}

/// The metrics of writes with conditions.
pub(crate) fn conditions(ledger: &Ledger) -> ConditionsReport {
    let plans = ledger.plans.iter();
    let claims: BTreeSet<(u32, u32)> = plans
        .filter(|(.., plan)| {
            let mut steps = plan.steps.iter();
            steps.any(|step| matches!(step.expect, Expect::Claimable(_)))
        })
        .map(|(agent, write, _)| (*agent, *write))
        .collect();
    let mut report = ConditionsReport::default();
    for operation in &ledger.operations {
        let is_claim = claims.contains(&(operation.agent, operation.write));
        match &operation.outcome {
            Outcome::Acknowledged { repeated, .. } => {
                report.claims_won += u64::from(is_claim);
                report.repeated += u64::from(*repeated);
            }
            Outcome::Refused { refusal, .. } => match refusal {
                Refusal::VersionMismatch { .. } if is_claim => report.claims_lost += 1,
                Refusal::VersionMismatch { .. } => report.mismatches += 1,
                Refusal::AlreadyExists { .. } => report.already_exists += 1,
                Refusal::NoSuchIssue { .. }
                | Refusal::CannotPatch { .. }
                | Refusal::Said { .. } => {
                    report.no_such_issue += 1;
                }
            },
            Outcome::Rejected { .. } | Outcome::Unknown { .. } => {}
        }
    }
    report
}

/// The rows of the table; none for a kind that did not occur.
pub(crate) fn rows(bystanders: &BystandersReport, conditions: &ConditionsReport) -> Vec<String> {
    let mut rows = Vec::new();
    let median_p99 = |q: &Quantiles| {
        let us = |us| Unit::Microseconds.text(us);
        format!("{} p50, {} p99", us(q.p50), us(q.p99))
    };
    if bystanders.states > 0 {
        let took = median_p99(&bystanders.refresh_us);
        rows.push(format!(
            "states       {} compared with the fold, {took}",
            bystanders.states
        ));
    }
    if bystanders.followed + bystanders.gaps > 0 {
        let BystandersReport {
            followed,
            gaps,
            unfollowed,
            ..
        } = bystanders;
        let wake_up = median_p99(&bystanders.wake_up_us);
        rows.push(format!(
            "followers    {followed} records, {gaps} gaps, {unfollowed} records seen by none"
        ));
        rows.push(format!("wake-up      {wake_up} after the acknowledgement"));
    }
    if bystanders.compactions + bystanders.already_running + bystanders.nothing_new > 0 {
        let (done, running) = (bystanders.compactions, bystanders.already_running);
        let took = median_p99(&bystanders.compaction_us);
        rows.push(format!(
            "compactions  {done} done, {running} found another, {} nothing new; {took}; snapshots \
             to {}",
            bystanders.nothing_new,
            Unit::Bytes.text(count(bystanders.snapshot_bytes_max))
        ));
        let held = &bystanders.compaction_lock_held_us;
        rows.push(format!(
            "  lock held  {}, {} max",
            median_p99(held),
            Unit::Microseconds.text(held.max)
        ));
    }
    let ConditionsReport {
        claims_won,
        claims_lost,
        mismatches,
        already_exists,
        no_such_issue,
        repeated,
    } = conditions;
    if *conditions != ConditionsReport::default() {
        rows.push(format!(
            "conditions   {claims_won} claims won, {claims_lost} lost; {mismatches} mismatches, \
             {already_exists} existed, {no_such_issue} did not; {repeated} repeated"
        ));
    }
    if !bystanders.killed.is_empty() {
        let killed = bystanders.killed.iter();
        let killed = killed.map(|(role, times)| format!("{role} {times}"));
        let killed: Vec<String> = killed.collect();
        rows.push(format!("killed       {}", killed.join(", ")));
    }
    rows
}
