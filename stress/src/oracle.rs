//! Decides whether a run kept every promise: a pure function of what the agents were told, of the
//! bytes that are stored, and of who held the lock when. There is no tolerance in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ledger::{End, Hold, Ledger, Operation, Outcome, View};
use crate::payload::parse_event_id;
use crate::stored::{BadLine, EventText, StoredRecord, first_seq};
use crate::violation::{Promise, Violation};
use crate::wire::Prefix;

/// What the verdict is made from.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Agents of the run.
    pub agents: u32,
    /// Writes of each.
    pub writes: u32,
    /// Whether acknowledged means synced, and a read therefore ends at the last acknowledged one.
    pub synced: bool,
    /// What was reported.
    pub ledger: &'a Ledger,
    /// All records in the order of the files.
    pub records: &'a [StoredRecord],
    /// What is in the files and no record.
    pub bad_lines: &'a [BadLine],
    /// The event that an agent gave to the log at one of its writes.
    pub expected: &'a dyn Fn(u32, u32) -> EventText,
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
    // What may have caused the rest comes first.
    check_processes(evidence.ledger, &mut violations);
    check_operations(evidence, &mut violations);
    check_sequence(evidence.records, &mut violations);
    check_agent_order(evidence.records, &mut violations);
    check_real_time(evidence, &mut violations);
    check_watermarks(evidence, &mut violations);
    check_views(evidence, &mut violations);
    check_holds(&evidence.ledger.holds, &mut violations);
    check_sightings(evidence.ledger, &mut violations);
    check_invocations(evidence, &mut violations);
    violations
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

/// (1) to (4): what became of each operation.
fn check_operations(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let mut stored: HashMap<(u32, u32), Vec<&StoredRecord>> = HashMap::new();
    let invoked: HashSet<(u32, u32)> = evidence
        .ledger
        .operations
        .iter()
        .map(|op| (op.agent, op.write))
        .collect();
    for record in evidence.records {
        match parse_event_id(&record.event.id).filter(|key| invoked.contains(key)) {
            Some(key) => stored.entry(key).or_default().push(record),
            None => violations.push(Violation::Foreign {
                seq: record.seq,
                id: record.event.id.clone(),
                place: record.place.clone(),
            }),
        }
    }
    for operation in &evidence.ledger.operations {
        let copies = stored
            .get(&(operation.agent, operation.write))
            .map_or(&[][..], Vec::as_slice);
        check_operation(evidence, operation, copies, violations);
    }
}

fn check_operation(
    evidence: &Evidence<'_>,
    operation: &Operation,
    copies: &[&StoredRecord],
    violations: &mut Vec<Violation>,
) {
    let Operation { agent, write, .. } = *operation;
    if let Outcome::Rejected { error } = &operation.outcome {
        violations.extend(copies.iter().map(|copy| Violation::RejectedButStored {
            agent,
            write,
            seq: copy.seq,
            error: error.clone(),
        }));
        return;
    }
    if copies.len() > 1 {
        let seqs = copies.iter().map(|copy| copy.seq).collect();
        violations.push(Violation::Duplicated { agent, write, seqs });
    }
    if let Outcome::Acknowledged { seq, ack_ns } = operation.outcome {
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
        if copy.event != expected {
            violations.push(Violation::Altered {
                agent,
                write,
                place: copy.place.clone(),
                expected: expected.json,
                found: copy.event.json.clone(),
            });
        }
    }
}

/// Each write was begun exactly once, and ended well unless its agent was killed. A run that its
/// environment stopped is judged only by what it did.
fn check_invocations(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let ledger = evidence.ledger;
    let stopped = !ledger.environment_errors.is_empty();
    let mut begun: HashMap<(u32, u32), u64> = HashMap::new();
    for operation in &ledger.operations {
        let Operation { agent, write, .. } = *operation;
        *begun.entry((agent, write)).or_default() += 1;
        let (rejected, error) = match &operation.outcome {
            Outcome::Rejected { error } => (true, error),
            Outcome::Unknown { error } if !error.is_empty() => (false, error),
            Outcome::Acknowledged { .. } | Outcome::Unknown { .. } => continue,
        };
        if !stopped {
            let error = error.clone();
            violations.push(Violation::Failed {
                agent,
                write,
                rejected,
                error,
            });
        }
    }
    for agent in 0..evidence.agents {
        let mut missing = (0, 0);
        for write in 1..=evidence.writes {
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
        if record.place.file != file {
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
        let Some((agent, write)) = parse_event_id(&record.event.id) else {
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

/// What was known at a moment: a number, and since when.
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

fn acknowledgements(ledger: &Ledger) -> Vec<Known> {
    let acknowledged = |operation: &Operation| match operation.outcome {
        Outcome::Acknowledged { seq, ack_ns } => Some((ack_ns, seq)),
        _ => None,
    };
    ledger.operations.iter().filter_map(acknowledged).collect()
}

/// (7): who began after an acknowledgement comes after it; also those whose outcome is unknown.
fn check_real_time(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let mut stored: HashMap<(u32, u32), u64> = HashMap::new();
    for record in evidence.records {
        if let Some(key) = parse_event_id(&record.event.id) {
            stored.entry(key).or_insert(record.seq);
        }
    }
    let begun = evidence.ledger.operations.iter().filter_map(|operation| {
        let seq = match operation.outcome {
            Outcome::Acknowledged { seq, .. } => Some(seq),
            _ => stored.get(&(operation.agent, operation.write)).copied(),
        };
        seq.map(|seq| (operation.invoke_ns, (operation.invoke_ns, seq)))
    });
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

/// (8): no look at the watermark finds less than an earlier one, nor, when acknowledged means
/// synced, less than what had been acknowledged.
fn check_watermarks(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let looks = &evidence.ledger.watermarks;
    let later = || {
        looks
            .iter()
            .map(|&look| (look.begin_ns, look))
            .collect::<Vec<_>>()
    };
    let seen = looks.iter().map(|look| (look.end_ns, look.seq)).collect();
    for ((seen_ns, highest), later) in known_before(seen, later()) {
        if later.seq < highest {
            violations.push(Violation::WatermarkFell {
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
                violations.push(Violation::WatermarkBehindAck {
                    acknowledged_seq,
                    ack_ns,
                    later,
                });
            }
        }
    }
}

/// (9), (10) and the second half of (3): each read saw a prefix of what is stored now; it saw all
/// that had been acknowledged before it began, as far as it was to read it, all below a watermark
/// that had been seen, and all that earlier reads of its kind had seen.
fn check_views(evidence: &Evidence<'_>, violations: &mut Vec<Violation>) {
    let mut prefixes = vec![Prefix::default()];
    let mut prefix = Prefix::default();
    for record in evidence.records {
        prefix = prefix.with(record.seq, &record.line);
        prefixes.push(prefix);
    }
    let ledger = evidence.ledger;
    for view in &ledger.views {
        let count = usize::try_from(view.prefix.count).unwrap_or(usize::MAX);
        let stored = prefixes.get(count).copied();
        if stored != Some(view.prefix) {
            let stored_digest = stored.map(|stored| stored.digest);
            violations.push(Violation::ViewDiffers {
                view: view.clone(),
                stored_digest,
            });
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
            .map(|view| (view.end_ns, view.prefix.last_seq))
            .collect()
    };
    let watermarks = ledger
        .watermarks
        .iter()
        .map(|look| (look.end_ns, look.seq))
        .collect();
    for (source, known, later) in [
        (Promise::Acknowledged, acknowledgements(ledger), later(true)),
        (Promise::Watermark, watermarks, later(false)),
        (Promise::EarlierRead, seen(false), later(false)),
        (Promise::EarlierRead, seen(true), later(true)),
    ] {
        for ((known_ns, seq), view) in known_before(known, later) {
            let misses = Violation::ViewMisses {
                view: view.clone(),
                seq,
                source,
                known_ns,
            };
            // Two of the sources can find the same.
            if view.prefix.last_seq < seq && !violations.contains(&misses) {
                violations.push(misses);
            }
        }
    }
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
