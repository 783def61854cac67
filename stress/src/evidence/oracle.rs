//! Decides whether a run kept every promise: a pure function of the answers of the log, the bytes
//! that are stored, and the intervals in which the lock was held. It has no tolerance.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::evidence::fold::{Members, Model};
use crate::evidence::ledger::{
    Compacting, End, Hold, Incident, IncidentKind, Ledger, Operation, Outcome, Prefix, Seen, View,
};
use crate::evidence::listing::{Beside, LIST, Shows};
use crate::evidence::observations::{Entry, Journal};
use crate::evidence::stored::{self, BadLine, StoredRecord, first_seq};
use crate::evidence::violation::{Promise, Violation};
use crate::evidence::workload::{Plan, Refusal, agent_name, pool_id};

/// The evidence for the verdict.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a fact of its own about the run"
)]
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Agents of the run.
    pub agents: u32,
    /// Writes of each.
    pub writes: &'a [u32],
    /// Whether acknowledged means synced, and a read therefore ends at the last acknowledged one.
    pub synced: bool,
    /// Whether the hints were deleted during the run. A read without hints may see records that are
    /// not durable yet, and so more than a later read with hints.
    pub hints_were_lost: bool,
    /// Whether all processes finished: then followers have got every record.
    pub complete: bool,
    /// The reports of the processes.
    pub ledger: &'a Ledger,
    /// All records in the order of the files.
    pub records: &'a [StoredRecord],
    /// Bytes in the files that are no record.
    pub bad_lines: &'a [BadLine],
    /// The events that an agent gave to the log at one of its writes.
    pub expected: &'a dyn Fn(u32, u32) -> Vec<String>,
    /// Whether writes have idempotency keys: one that was interrupted is made again.
    pub keyed: bool,
    /// Number of issues that all agents tried to claim.
    pub claimed: u32,
    /// Every state that the records lead to; `None` when they lead to none.
    pub model: Option<&'a Model>,
    /// The records that end a snapshot that there was at some time.
    pub snapshot_seqs: &'a BTreeSet<u64>,
    /// The journals of the followers.
    pub journals: &'a [Journal],
    /// What the store shows; points about the rest are not tested.
    pub shows: Shows,
    /// What was found beside the records.
    pub beside: &'a Beside,
}

/// Every violation that the evidence shows.
#[must_use]
pub fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations: Vec<Violation> = evidence
        .bad_lines
        .iter()
        .cloned()
        .map(Violation::BadBytes)
        .collect();
    // Possible causes come before their effects.
    check_processes(evidence.ledger, &mut violations);
    check_operations(evidence, &mut violations);
    if evidence.shows.numbers {
        check_sequence(evidence.records, &mut violations);
    }
    if evidence.shows.order {
        check_agent_order(evidence.records, &mut violations);
        check_real_time(evidence, &mut violations);
    }
    check_durable(evidence, &mut violations);
    check_views(evidence, &mut violations);
    // Whose lock was removed holds it until it looks, beside the holder of the new one.
    if !had(evidence.ledger, IncidentKind::Displaced) {
        check_holds(&evidence.ledger.holds, &mut violations);
        check_sightings(evidence.ledger, &mut violations);
    }
    check_invocations(evidence, &mut violations);
    check_compactions(evidence, &mut violations);
    check_journals(evidence, &mut violations);
    check_conditions(evidence, &mut violations);
    check_claims(evidence, &mut violations);
    check_batches(evidence, &mut violations);
    check_followed(evidence, &mut violations);
    check_receipts(evidence.beside, &mut violations);
    check_wins(evidence.beside, &mut violations);
    violations.extend(evidence.beside.violations.iter().cloned());
    violations
}

/// Whether there was such an incident.
fn had(ledger: &Ledger, kind: IncidentKind) -> bool {
    let mut incidents = ledger.incidents.iter();
    incidents.any(|incident: &Incident| incident.kind == kind)
}

/// The most holders of the lock that were seen at one time, by either measurement: the marks in
/// the shared page, and the overlap of the reported intervals.
#[must_use]
pub fn max_holders(ledger: &Ledger) -> u64 {
    let mut together: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for sighting in ledger
        .sightings
        .iter()
        .filter(|s| !is_excused(ledger, s.other, s.at_ns))
    {
        *together
            .entry((sighting.agent, sighting.at_ns))
            .or_insert(1) += 1;
    }
    let marked = together.into_values().max().unwrap_or(0);
    let mut edges: Vec<(u64, bool)> = Vec::with_capacity(ledger.holds.len() * 2);
    // An interval without a length has no moment in which another could have held it, too.
    for hold in ledger.holds.iter().filter(|hold| hold.from_ns < hold.to_ns) {
        edges.push((hold.from_ns, true));
        edges.push((hold.to_ns, false));
    }
    // At one and the same moment an end comes before a beginning: that is no overlap.
    edges.sort_unstable();
    let (mut now, mut overlapping) = (0_u64, u64::from(!ledger.holds.is_empty()));
    for (_, begins) in edges {
        now = if begins {
            now + 1
        } else {
            now.saturating_sub(1)
        };
        overlapping = overlapping.max(now);
    }
    marked.max(overlapping)
}

/// One write of one agent.
type Key = (u32, u32);

/// The attempts at each write, in their order.
fn attempts(ledger: &Ledger) -> BTreeMap<Key, Vec<&Operation>> {
    let mut attempts: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for operation in &ledger.operations {
        let key = (operation.agent, operation.write);
        attempts.entry(key).or_default().push(operation);
    }
    for attempts in attempts.values_mut() {
        attempts.sort_by_key(|operation| operation.invoke_ns);
    }
    attempts
}

/// (1) to (4): what became of each operation.
fn check_operations(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let attempts = attempts(evidence.ledger);
    let mut stored: HashMap<Key, Vec<&StoredRecord>> = HashMap::new();
    for record in evidence.records {
        match record.owner().filter(|key| attempts.contains_key(key)) {
            Some(key) => stored.entry(key).or_default().push(record),
            None => violations.push(Violation::Foreign {
                seq: record.seq,
                id: record
                    .events
                    .first()
                    .map_or_else(String::new, |event| event.id.clone()),
                place: record.place.clone(),
            }),
        }
    }
    for (key, attempts) in attempts {
        let copies = stored.get(&key).map_or(&[][..], Vec::as_slice);
        check_operation(evidence, key, &attempts, copies, violations);
    }
}

fn check_operation(
    evidence: &Evidence<'_>,
    (agent, write): Key,
    attempts: &[&Operation],
    copies: &[&StoredRecord],
    violations: &mut Vec<Violation>,
) {
    let is_rejected = |attempt: &&Operation| matches!(attempt.outcome, Outcome::Rejected { .. });
    // Had an earlier attempt been stored, the last one would have been answered with its receipt,
    // unless it did not reach the store.
    let is_final = !evidence.shows.retries || attempts.iter().all(is_rejected);
    match attempts.last().map(|last| &last.outcome) {
        Some(Outcome::Rejected { error }) if is_final => {
            violations.extend(copies.iter().map(|copy| Violation::RejectedButStored {
                agent,
                write,
                seq: copy.seq,
                error: error.clone(),
            }));
            return;
        }
        Some(Outcome::Refused { refusal, .. }) => {
            violations.extend(copies.iter().map(|copy| Violation::RefusedButStored {
                agent,
                write,
                seq: copy.seq,
                refusal: refusal.clone(),
            }));
            return;
        }
        _ => {}
    }
    if copies.len() > 1 {
        let seqs = copies.iter().map(|copy| copy.seq).collect();
        violations.push(Violation::Duplicated { agent, write, seqs });
    }
    for (index, attempt) in attempts.iter().enumerate() {
        let Outcome::Acknowledged {
            seq,
            ack_ns,
            repeated,
        } = attempt.outcome
        else {
            continue;
        };
        // What was rejected is not stored, and so is no reason.
        if repeated && attempts.iter().take(index).all(is_rejected) {
            violations.push(Violation::RepeatedAtFirst { agent, write, seq });
        }
        if copies.is_empty() {
            violations.push(Violation::Lost {
                agent,
                write,
                seq,
                ack_ns,
            });
        } else if copies.iter().all(|copy| copy.seq != seq) {
            violations.extend(copies.first().map(|copy| Violation::Misplaced {
                agent,
                write,
                acknowledged_seq: seq,
                stored_seq: copy.seq,
            }));
        }
    }
    for copy in copies {
        let expected = (evidence.expected)(agent, write);
        let found = copy.events.iter().map(|event| event.json.as_str());
        if !found.eq(expected.iter().map(String::as_str)) {
            violations.push(Violation::Altered {
                agent,
                write,
                place: copy.place.clone(),
                expected: expected.join(","),
                found: copy.text(),
            });
        }
    }
}

/// Each write was begun exactly once, and ended well unless its agent was killed; then one with a
/// key was begun again. A run that its environment stopped is judged only by what it did.
fn check_invocations(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let ledger = evidence.ledger;
    // A file that is removed in the midst of a write fails that, too.
    let stopped = !ledger.environment_errors.is_empty() || had(ledger, IncidentKind::Displaced);
    let mut begun: HashMap<(u32, u32), u64> = HashMap::new();
    for operation in &ledger.operations {
        let Operation { agent, write, .. } = *operation;
        let is_repeated = match &operation.outcome {
            Outcome::Unknown { error } => error.is_empty() || evidence.shows.retries,
            Outcome::Rejected { .. } => evidence.shows.retries,
            Outcome::Acknowledged { .. } | Outcome::Refused { .. } => false,
        };
        if !(evidence.keyed && is_repeated) {
            *begun.entry((agent, write)).or_default() += 1;
        }
        let (rejected, error) = match &operation.outcome {
            Outcome::Rejected { error } => (true, error),
            Outcome::Unknown { error } if !error.is_empty() => (false, error),
            Outcome::Acknowledged { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => {
                continue;
            }
        };
        // A writer that dies leaves those in doubt for whom it wrote, if the page is deleted as
        // well.
        let is_in_doubt =
            !rejected && had(ledger, IncidentKind::Forgotten) && had(ledger, IncidentKind::Killed);
        if !stopped && !is_in_doubt && evidence.shows.never_fails {
            let error = error.clone();
            violations.push(Violation::Failed {
                agent,
                write,
                rejected,
                error,
            });
        }
    }
    for (agent, writes) in (0..).zip(evidence.writes) {
        let mut missing = (0, 0);
        for write in 1..=*writes {
            let times = begun.get(&(agent, write)).copied().unwrap_or(0);
            if times > 1 {
                violations.push(Violation::BegunTwice {
                    agent,
                    write,
                    times,
                });
            } else if times == 0 {
                missing = (
                    missing.0 + 1,
                    if missing.0 == 0 { write } else { missing.1 },
                );
            }
        }
        if let (writes @ 1.., first_write) = missing
            && !stopped
        {
            violations.push(Violation::NeverBegun {
                agent,
                first_write,
                writes,
            });
        }
    }
}

/// (5): the numbers rise by one through all segments, which are named after their first ones.
fn check_sequence(records: &[StoredRecord], violations: &mut Vec<Violation>) {
    let mut expected = 1;
    let mut file = "";
    for record in records {
        if record.seq != expected {
            let place = record.place.clone();
            violations.push(Violation::SeqGap {
                expected,
                found: record.seq,
                place,
            });
        }
        expected = record.seq.saturating_add(1);
        if record.place.file != LIST && record.place.file != file {
            file = &record.place.file;
            if first_seq(file) != Some(record.seq) {
                let file = file.to_owned();
                violations.push(Violation::SegmentName {
                    file,
                    first_seq: record.seq,
                });
            }
        }
    }
}

/// (6): an agent waits for one write before it begins the next.
fn check_agent_order(records: &[StoredRecord], violations: &mut Vec<Violation>) {
    let mut latest: HashMap<u32, u32> = HashMap::new();
    for record in records {
        let Some((agent, write)) = record.owner() else {
            continue;
        };
        match latest.get(&agent) {
            Some(&before) if before > write => violations.push(Violation::AgentOrder {
                agent,
                stored_first: before,
                stored_second: write,
                seq: record.seq,
            }),
            _ => {
                latest.insert(agent, write);
            }
        }
    }
}

/// A number that was known, and since when.
type Known = (u64, u64);

/// For each of `later` (its beginning and an item): the highest number of `earlier` (the end of
/// learning it, the number) that was known before it began.
fn known_before<T>(mut earlier: Vec<Known>, mut later: Vec<(u64, T)>) -> Vec<(Known, T)> {
    earlier.sort_unstable();
    later.sort_by_key(|(begin_ns, _)| *begin_ns);
    let mut earlier = earlier.into_iter().peekable();
    let mut highest: Option<Known> = None;
    let mut known = Vec::new();
    for (begin_ns, item) in later {
        while let Some((at_ns, number)) = earlier.next_if(|(at_ns, _)| *at_ns < begin_ns) {
            if highest.is_none_or(|(_, before)| number > before) {
                highest = Some((at_ns, number));
            }
        }
        known.extend(highest.map(|highest| (highest, item)));
    }
    known
}

/// The last record that an answer of the log implies, and when it came: a refusal implies one, too.
fn acknowledgements(ledger: &Ledger) -> Vec<Known> {
    let acknowledged = |operation: &Operation| match &operation.outcome {
        Outcome::Acknowledged { seq, ack_ns, .. } => Some((*ack_ns, *seq)),
        Outcome::Refused { refusal, end_ns } => match refusal {
            Refusal::VersionMismatch { found, .. } => found.map(|seq| (*end_ns, seq)),
            Refusal::AlreadyExists { version, .. } => Some((*end_ns, *version)),
            Refusal::NoSuchIssue { .. } | Refusal::CannotPatch { .. } | Refusal::Said { .. } => {
                None
            }
        },
        _ => None,
    };
    ledger.operations.iter().filter_map(acknowledged).collect()
}

/// When each stored write was begun for the first time, and its number.
fn begun(evidence: &Evidence<'_>) -> Vec<(u64, u64)> {
    let mut stored: HashMap<Key, u64> = HashMap::new();
    for record in evidence.records {
        if let Some(key) = record.owner() {
            stored.entry(key).or_insert(record.seq);
        }
    }
    let attempts = attempts(evidence.ledger);
    let begun = attempts.iter().filter_map(|(key, attempts)| {
        let acknowledged = attempts.iter().find_map(|attempt| match attempt.outcome {
            Outcome::Acknowledged { seq, .. } => Some(seq),
            _ => None,
        });
        let seq = acknowledged.or_else(|| stored.get(key).copied())?;
        // A write that a list does not have has no place in it.
        (seq > 0).then_some((attempts.first()?.invoke_ns, seq))
    });
    begun.collect()
}

/// (7): an operation that began after an acknowledgement comes after it, even if its outcome is
/// unknown.
fn check_real_time(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let begun = begun(evidence).into_iter();
    let begun = begun.map(|(invoke_ns, seq)| (invoke_ns, (invoke_ns, seq)));
    let known = known_before(acknowledgements(evidence.ledger), begun.collect());
    violations.extend(
        known
            .into_iter()
            .filter(|((_, known), (_, seq))| seq <= known)
            .map(
                |((ack_ns, acknowledged_seq), (invoke_ns, seq))| Violation::RealTimeOrder {
                    acknowledged_seq,
                    ack_ns,
                    invoke_ns,
                    seq,
                },
            ),
    );
}

/// Every compaction that was reported has left a snapshot.
fn check_compactions(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    for compaction in &evidence.ledger.compactions {
        if let Compacting::Done { seq, .. } = compaction.outcome
            && !evidence.snapshot_seqs.contains(&seq)
        {
            violations.push(Violation::SnapshotDiffers {
                file: format!("snapshot-{seq:020}.jsonl"),
                detail: "a compaction reported it, and there never was one".to_owned(),
            });
        }
    }
}

/// When which record was seen by a follower.
fn sightings(journals: &[Journal]) -> Vec<Known> {
    let entries = journals.iter().flat_map(|journal| &journal.entries);
    let sighting = |entry: &Entry| match entry {
        Entry::Record { at_ns, .. } => Some((*at_ns, entry.seq()?)),
        Entry::Gap { .. } => None,
    };
    entries.filter_map(sighting).collect()
}

/// (8), (9): followers got what is stored, in its order, and all of it but for what they were told
/// is in a snapshot.
fn check_journals(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let acknowledged = acknowledgements(evidence.ledger).into_iter();
    let acknowledged_seq = acknowledged.map(|(_, seq)| seq).max().unwrap_or(0);
    for (follower, journal) in (0..).zip(evidence.journals) {
        let mut next = 1;
        for entry in &journal.entries {
            match check_entry(evidence, next, entry) {
                Ok(seq) => next = seq + 1,
                Err(detail) => {
                    violations.push(Violation::JournalDiffers { follower, detail });
                    next = journal.next_seq();
                    break;
                }
            }
        }
        let last_seq = next - 1;
        if evidence.complete && evidence.synced && last_seq < acknowledged_seq {
            violations.push(Violation::FollowerBehind {
                follower,
                last_seq,
                acknowledged_seq,
            });
        }
    }
}

/// The record that a follower knew last after `entry`, if that is as it should be.
fn check_entry(evidence: &Evidence<'_>, next: u64, entry: &Entry) -> Result<u64, String> {
    match entry {
        Entry::Record { line, .. } => {
            let (seq, _) = stored::parse_line(line)?;
            let at = evidence.records.partition_point(|record| record.seq < next);
            let stored = evidence.records.get(at);
            // Numbers may have gaps.
            let next = stored.map_or(next, |record| record.seq);
            if seq != next {
                return Err(format!("it got record {seq}, and {next} was the next"));
            }
            if stored.map(|record| &record.line) != Some(line) {
                return Err(format!("it got another record {seq} than is stored"));
            }
            Ok(seq)
        }
        Entry::Gap {
            from_seq,
            snapshot_seq,
            loaded,
        } => {
            if *from_seq != next || snapshot_seq < from_seq || loaded.seq < *snapshot_seq {
                let loaded = loaded.seq;
                return Err(format!(
                    "it asked for {next}, was told that {from_seq} is in the snapshot through \
                     {snapshot_seq}, and got the one through {loaded}"
                ));
            }
            if !evidence.snapshot_seqs.contains(snapshot_seq) {
                return Err(format!("there never was a snapshot through {snapshot_seq}"));
            }
            match evidence.model {
                Some(model) if model.state(loaded.seq) != Some(*loaded) => Err(format!(
                    "it loaded {loaded:?}, and the records lead to {:?}",
                    model.state(loaded.seq)
                )),
                _ => Ok(loaded.seq),
            }
        }
    }
}

/// At its place, each stored write's condition held; and each refusal had a reason between the call
/// and the answer.
fn check_conditions(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let Some(model) = evidence.model else { return };
    let plans = evidence.ledger.plans.iter();
    let plans: HashMap<Key, &Plan> = plans
        .map(|(agent, write, plan)| ((*agent, *write), plan))
        .collect();
    for record in evidence.records {
        let Some(key) = record.owner() else { continue };
        let plan = plans.get(&key);
        if let Some(refusal) = plan.and_then(|plan| plan.refusal_at(model, record.seq - 1)) {
            violations.push(Violation::ConditionBroken {
                agent: key.0,
                write: key.1,
                seq: record.seq,
                refusal,
            });
        }
    }
    let refused = evidence.ledger.operations.iter().filter_map(|operation| {
        let Outcome::Refused { refusal, end_ns } = &operation.outcome else {
            return None;
        };
        Some((operation.invoke_ns, (operation, refusal, *end_ns)))
    });
    // The beginning is always known.
    let mut known = acknowledgements(evidence.ledger);
    known.push((0, 0));
    let mut later = begun(evidence);
    later.sort_unstable();
    let mut lowest = model.last_state().seq + 1;
    for (_, seq) in later.iter_mut().rev() {
        lowest = lowest.min(*seq);
        *seq = lowest;
    }
    for ((_, from_seq), (operation, refusal, end_ns)) in known_before(known, refused.collect()) {
        let Operation { agent, write, .. } = *operation;
        let after = later.partition_point(|(invoke_ns, _)| *invoke_ns <= end_ns);
        let first_after = later
            .get(after)
            .map_or(model.last_state().seq + 1, |(_, seq)| *seq);
        let through_seq = first_after - 1;
        let founded = plans
            .get(&(agent, write))
            .is_some_and(|plan| plan.is_refused_between(model, from_seq, through_seq, refusal));
        if !founded {
            violations.push(Violation::UnfoundedRefusal {
                agent,
                write,
                refusal: refusal.clone(),
                from_seq,
                through_seq,
            });
        }
    }
}

/// Of a batch all writes are stored, or none.
fn check_batches(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let stored: BTreeSet<Key> = owners(evidence.records).collect();
    for &(agent, first, last) in &evidence.beside.batches {
        let (stored, missing): (Vec<u32>, Vec<u32>) =
            (first..=last).partition(|&write| stored.contains(&(agent, write)));
        if !(stored.is_empty() || missing.is_empty()) {
            violations.push(Violation::BatchInPart {
                agent,
                write: first,
                stored,
                missing,
            });
        }
    }
}

fn owners(records: &[StoredRecord]) -> impl Iterator<Item = Key> {
    records.iter().filter_map(StoredRecord::owner)
}

/// A follower is shown every acknowledged write once, in the order of the list, and nothing else.
fn check_followed(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let Some(followed) = &evidence.beside.followed else {
        return;
    };
    let mut places: HashMap<Key, Vec<usize>> = HashMap::new();
    for (place, owner) in owners(evidence.records).enumerate() {
        places.entry(owner).or_default().push(place);
    }
    let mut shown: HashMap<Key, usize> = HashMap::new();
    let mut last: Option<(usize, Key)> = None;
    for record in followed {
        let found = record.owner().map(|key| (key, places.get(&key)));
        let Some(((agent, write), Some(own_places))) = found else {
            let shown = record.text();
            violations.push(Violation::FollowerOnly { shown });
            continue;
        };
        let times = shown.entry((agent, write)).or_default();
        let place = own_places.get(*times);
        *times += 1;
        // One that is stored twice is shown twice.
        let Some(&place) = place else {
            violations.push(Violation::FollowerTwice { agent, write });
            continue;
        };
        let expected = (evidence.expected)(agent, write);
        if !record.events.iter().map(|event| &event.json).eq(&expected) {
            violations.push(Violation::Altered {
                agent,
                write,
                place: record.place.clone(),
                expected: expected.join(","),
                found: record.text(),
            });
        }
        match last {
            Some((before, behind)) if evidence.shows.order && before > place => {
                violations.push(Violation::FollowerOrder {
                    agent,
                    write,
                    behind,
                });
            }
            _ => last = Some((place, (agent, write))),
        }
    }
    if !evidence.complete {
        return;
    }
    for operation in &evidence.ledger.operations {
        let Operation { agent, write, .. } = *operation;
        let is_acknowledged = matches!(operation.outcome, Outcome::Acknowledged { .. });
        // What is lost is no fault of the follower.
        let key = (agent, write);
        if is_acknowledged && places.contains_key(&key) && !shown.contains_key(&key) {
            violations.push(Violation::FollowerMissed { agent, write });
        }
    }
}

/// No receipt was given to two writes.
fn check_receipts(beside: &Beside, violations: &mut Vec<Violation>) {
    let mut first: HashMap<&str, Key> = HashMap::new();
    for (receipt, key) in &beside.receipts {
        match first.insert(receipt, *key) {
            Some(other) if other != *key => violations.push(Violation::ReceiptTwice {
                receipt: receipt.clone(),
                first: other,
                second: *key,
            }),
            _ => {}
        }
    }
}

/// Each item was won once, and belongs to whom it was given.
fn check_wins(beside: &Beside, violations: &mut Vec<Violation>) {
    for item in &beside.items {
        let shown = item.owner.as_deref().filter(|owner| !owner.is_empty());
        match item.winners.as_slice() {
            [winner] if item.is_shown && shown != Some(&agent_name(*winner)) => {
                violations.push(Violation::WinnerNotOwner {
                    item: item.name.clone(),
                    winner: *winner,
                    owner: item.owner.clone(),
                });
            }
            [] | [_] => {}
            winners => violations.push(Violation::WonTwice {
                item: item.name.clone(),
                winners: winners.to_vec(),
                owner: item.owner.clone(),
            }),
        }
    }
}

/// Every issue of the pool was claimed once, by whom its assignee is.
fn check_claims(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let stopped = !evidence.ledger.environment_errors.is_empty();
    let Some(model) = evidence.model.filter(|_| !stopped) else {
        return;
    };
    let mut claims: HashMap<&str, Vec<u64>> = HashMap::new();
    let mut claimants: HashMap<&str, u32> = HashMap::new();
    for record in evidence.records {
        let owner = record.owner().filter(|(agent, _)| *agent < evidence.agents);
        if let (Some((agent, _)), Some(event)) = (owner, record.events.first()) {
            claims.entry(&event.id).or_default().push(record.seq);
            claimants.insert(&event.id, agent);
        }
    }
    for number in 0..evidence.claimed {
        let id = pool_id(number);
        let seqs = claims.remove(id.as_str()).unwrap_or_default();
        let claimant = claimants.get(id.as_str()).map(|agent| agent_name(*agent));
        let issue = model.issue(&id, model.last_state().seq);
        let assignee = issue.and_then(|(_, text)| {
            let issue = Members::parse(text?).ok()?;
            serde_json::from_str::<String>(issue.get("assignee")?).ok()
        });
        if seqs.len() != 1 || assignee.is_none() || assignee != claimant {
            violations.push(Violation::NotClaimedOnce { id, seqs });
        }
    }
}

/// (8): no look at the durable number finds less than an earlier one, nor, when acknowledged means
/// synced, less than what had been acknowledged.
fn check_durable(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let looks = &evidence.ledger.durable_seen;
    let later = || {
        looks
            .iter()
            .map(|&look| (look.begin_ns, look))
            .collect::<Vec<_>>()
    };
    let mut seen: Vec<Known> = looks.iter().map(|look| (look.end_ns, look.seq)).collect();
    if !evidence.hints_were_lost {
        seen.extend(sightings(evidence.journals));
    }
    for ((seen_ns, highest), later) in known_before(seen, later()) {
        if later.seq < highest {
            violations.push(Violation::DurableFell {
                highest,
                seen_ns,
                later,
            });
        }
    }
    if evidence.synced {
        let known = known_before(acknowledgements(evidence.ledger), later());
        for ((ack_ns, acknowledged_seq), later) in known {
            if later.seq < acknowledged_seq {
                violations.push(Violation::DurableBehindAck {
                    acknowledged_seq,
                    ack_ns,
                    later,
                });
            }
        }
    }
}

/// (9), (10) and the second half of (3): each read saw a prefix of what is stored now. It saw all
/// that had been acknowledged before it began, as far as it was to read it, all below a durable
/// number that had been seen, and all that earlier reads of its kind had seen.
fn check_views(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let ledger = evidence.ledger;
    let mut of_records: BTreeMap<u64, Vec<(&View, Prefix)>> = BTreeMap::new();
    for view in &ledger.views {
        match view.seen {
            Seen::Records(prefix) => {
                let views = of_records.entry(prefix.first_seq).or_default();
                views.push((view, prefix));
            }
            Seen::State(state) => {
                let stored = evidence.model.map(|model| model.state(state.seq));
                if let Some(stored) = stored.filter(|stored| *stored != Some(state)) {
                    violations.push(Violation::ViewDiffers {
                        view: view.clone(),
                        stored_digest: stored.map(|stored| stored.digest),
                    });
                }
            }
        }
    }
    for (first_seq, views) in of_records {
        let before = first_seq - 1;
        // Only a snapshot can take the place of the first records.
        let begins_well = before == 0 || evidence.snapshot_seqs.contains(&before);
        let prefixes = if begins_well {
            prefixes_behind(before, evidence.records)
        } else {
            Vec::new()
        };
        for (view, prefix) in views {
            let count = usize::try_from(prefix.count).unwrap_or(usize::MAX);
            let stored = prefixes.get(count).copied();
            if stored != Some(prefix) {
                violations.push(Violation::ViewDiffers {
                    view: view.clone(),
                    stored_digest: stored.map(|stored| stored.digest),
                });
            }
        }
    }
    let reads_tail = |view: &View| evidence.synced || view.through_tail;
    let later = |of_tail: bool| -> Vec<(u64, &View)> {
        let views = ledger
            .views
            .iter()
            .filter(|view| !of_tail || reads_tail(view));
        views.map(|view| (view.begin_ns, view)).collect()
    };
    let seen = |of_tail: bool| -> Vec<Known> {
        let views = ledger
            .views
            .iter()
            .filter(|view| of_tail || evidence.synced || !view.through_tail);
        views
            .map(|view| (view.end_ns, view.seen.last_seq()))
            .chain(sightings(evidence.journals))
            .collect()
    };
    let durable_seen = ledger
        .durable_seen
        .iter()
        .map(|look| (look.end_ns, look.seq))
        .collect();
    for (source, known, later) in [
        (Promise::Acknowledged, acknowledgements(ledger), later(true)),
        (Promise::DurableSeen, durable_seen, later(false)),
        (Promise::EarlierRead, seen(false), later(false)),
        (Promise::EarlierRead, seen(true), later(true)),
    ] {
        if source == Promise::EarlierRead && evidence.hints_were_lost {
            continue;
        }
        for ((known_ns, seq), view) in known_before(known, later) {
            let misses = Violation::ViewMisses {
                view: view.clone(),
                seq,
                source,
                known_ns,
            };
            // Two of the sources can find the same.
            if view.seen.last_seq() < seq && !violations.contains(&misses) {
                violations.push(misses);
            }
        }
    }
}

/// The prefixes that reads of the records behind `seq` see.
fn prefixes_behind(seq: u64, records: &[StoredRecord]) -> Vec<Prefix> {
    let first = records.partition_point(|record| record.seq <= seq);
    let mut prefix = Prefix::behind(seq);
    let longer = records
        .get(first..)
        .unwrap_or_default()
        .iter()
        .map(|record| {
            prefix = prefix.with(record.seq, &record.line);
            prefix
        });
    std::iter::once(Prefix::behind(seq)).chain(longer).collect()
}

/// (11), by the clock.
fn check_holds(holds: &[Hold], violations: &mut Vec<Violation>) {
    let mut holds = holds.to_vec();
    holds.sort_unstable_by_key(|hold| (hold.from_ns, hold.to_ns));
    let mut first: Option<Hold> = None;
    for second in holds {
        match first {
            Some(first) if second.from_ns < first.to_ns => {
                violations.push(Violation::HoldsOverlap { first, second });
            }
            _ => {}
        }
        if first.is_none_or(|first| second.to_ns > first.to_ns) {
            first = Some(second);
        }
    }
}

/// (11), by the marks in the shared page.
fn check_sightings(ledger: &Ledger, violations: &mut Vec<Violation>) {
    for sighting in &ledger.sightings {
        if !is_excused(ledger, sighting.other, sighting.at_ns) {
            violations.push(Violation::TwoHolders {
                agent: sighting.agent,
                other: sighting.other,
                at_ns: sighting.at_ns,
            });
        }
    }
}

/// Whether `agent` had been killed by then, and not yet been cleared away: its mark is that of a
/// dead holder, whose lock the kernel has freed.
fn is_excused(ledger: &Ledger, agent: u32, at_ns: u64) -> bool {
    ledger.incarnations.iter().any(|incarnation| {
        incarnation.end == End::Killed
            && incarnation.agents.contains(&agent)
            && incarnation
                .killed_ns
                .is_some_and(|killed_ns| killed_ns <= at_ns)
            && at_ns <= incarnation.reaped_ns
    })
}

/// No process ended in a way that it should not have.
fn check_processes(ledger: &Ledger, violations: &mut Vec<Violation>) {
    let stopped = !ledger.environment_errors.is_empty();
    for incarnation in &ledger.incarnations {
        let pid = incarnation.pid;
        match &incarnation.end {
            End::Died { status } if !stopped => violations.push(Violation::AgentDied {
                role: incarnation.role,
                agents: incarnation.agents.clone(),
                pid,
                status: status.clone(),
            }),
            End::Died { .. } | End::Finished | End::Killed => {}
        }
        let left = incarnation.left_holding.iter();
        violations.extend(left.map(|&agent| Violation::LeftHolding { agent, pid }));
    }
    let failed = ledger.fatal_errors.iter().cloned();
    violations.extend(failed.map(|error| Violation::AgentFailed { error }));
    let protocol = ledger.protocol_errors.iter().cloned();
    violations.extend(protocol.map(|detail| Violation::Protocol { detail }));
}

#[cfg(test)]
mod tests;
