//! The timeline of a run: the whole run in slices, and a part of it agent by agent.
//!
//! All times are milliseconds from the start of the agents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::evidence::ledger::{
    Compacting, EVERYBODY, End, Incident, IncidentKind, Ledger, Outcome,
};

/// Most slices of a run.
pub const SLICES_MAX: u32 = 120;
/// Most marks of one kind; more are thinned evenly.
pub const MARKS_MAX: usize = 200;
/// Most agents that have a lane.
pub const AGENTS_MAX: u32 = 16;
const COMPACTORS_MAX: u32 = 4;
/// The part that is shown agent by agent has about this many operations of each.
const OPERATIONS_SHOWN: f64 = 30.0;
/// With fewer operations in a slice, its rate would be chance. There are at least about
/// [`SLICES_MIN`] slices.
const OPERATIONS_A_SLICE: u64 = 5;
const SLICES_MIN: u64 = 10;

/// The timeline of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// How long a slice is.
    pub slice_ms: f64,
    /// The whole run from its beginning.
    pub slices: Vec<Slice>,
    /// Incidents and compactions: at most [`MARKS_MAX`] of each kind.
    pub marks: Vec<Mark>,
    /// How many of each kind there were in all.
    pub incidents: BTreeMap<IncidentKind, u64>,
    /// A part of it, for pages only: the ledger has all of it.
    #[serde(skip)]
    pub window: Window,
}

/// One slice of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Slice {
    /// Operations that were acknowledged in it.
    pub acknowledged: u64,
    /// Operations that were refused in it.
    pub refused: u64,
    /// How long the lock was held in it.
    pub held_ms: f64,
}

/// An [`Incident`], in the time of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// When.
    pub at_ms: f64,
    /// The kind.
    pub kind: IncidentKind,
    /// The process concerned; empty if it is the store.
    pub who: String,
    /// Details.
    pub detail: String,
}

/// A part of a run, agent by agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Where it begins.
    pub from_ms: f64,
    /// Where it ends.
    pub to_ms: f64,
    /// Whether it is around the first incident of an agent; otherwise it is the middle of the run.
    pub is_around_incident: bool,
    /// Some of the agents, or all, and compactors.
    pub lanes: Vec<Lane>,
}

/// One agent or compactor within a [`Window`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lane {
    /// A name for people.
    pub name: String,
    /// Its activities.
    pub spans: Vec<Span>,
    /// Incidents that concern it.
    pub marks: Vec<Mark>,
}

/// An activity of an agent, for some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// From when.
    pub from_ms: f64,
    /// Until when.
    pub to_ms: f64,
    /// The activity.
    pub doing: Doing,
}

/// An activity of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// An operation has begun, and does not hold the lock yet.
    Waits,
    /// It is done with the lock, and not acknowledged yet.
    Syncs,
    /// An operation in doubt: its process was killed.
    Doubt,
    /// It holds the lock.
    Holds,
    /// It leads a sync.
    Leads,
}

/// Everything that one agent, or another holder of the lock, did in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    /// From the call to the answer, or to the death of the process.
    operations: Vec<(u64, u64, Ended)>,
    holds: Vec<(u64, u64)>,
    leads: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Acknowledged,
    Refused,
    Killed,
}

impl Course {
    /// The courses of all holders.
    pub(crate) fn all(ledger: &Ledger) -> BTreeMap<u32, Course> {
        let mut deaths: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for incarnation in &ledger.incarnations {
            let killed_ns = incarnation
                .killed_ns
                .filter(|_| incarnation.end == End::Killed);
            for (agent, at_ns) in incarnation.agents.iter().zip(killed_ns.iter().cycle()) {
                deaths.entry(*agent).or_default().push(*at_ns);
            }
        }
        let mut courses: BTreeMap<u32, Course> = BTreeMap::new();
        for operation in &ledger.operations {
            let began = operation.invoke_ns;
            let ended = match &operation.outcome {
                Outcome::Acknowledged { ack_ns, .. } => Some((*ack_ns, Ended::Acknowledged)),
                Outcome::Refused { end_ns, .. } => Some((*end_ns, Ended::Refused)),
                Outcome::Unknown { error } if error.is_empty() => {
                    let deaths = deaths.get(&operation.agent).into_iter().flatten();
                    let death = deaths.copied().filter(|at_ns| *at_ns >= began).min();
                    death.map(|at_ns| (at_ns, Ended::Killed))
                }
                // The time of their end was not noted.
                Outcome::Unknown { .. } | Outcome::Rejected { .. } => None,
            };
            if let Some((at_ns, how)) = ended {
                let course = courses.entry(operation.agent).or_default();
                course.operations.push((began, at_ns, how));
            }
        }
        for hold in &ledger.holds {
            let course = courses.entry(hold.agent).or_default();
            course.holds.push((hold.from_ns, hold.to_ns));
        }
        for lead in &ledger.leads {
            let course = courses.entry(lead.agent).or_default();
            course.leads.push((lead.from_ns, lead.to_ns));
        }
        for course in courses.values_mut() {
            course.operations.sort_unstable_by_key(|(from, ..)| *from);
            course.holds.sort_unstable();
            course.leads.sort_unstable();
        }
        courses
    }

    /// How often it held the lock.
    pub(crate) fn holds(&self) -> u64 {
        self.holds.len() as u64
    }

    /// How long it held the lock.
    pub(crate) fn held_ns(&self) -> u64 {
        self.holds
            .iter()
            .map(|(from, to)| to.saturating_sub(*from))
            .sum()
    }

    /// How many syncs it led.
    pub(crate) fn leads(&self) -> u64 {
        self.leads.len() as u64
    }

    /// From the calls until the lock was held: also what is done before the lock is asked for.
    pub(crate) fn waited_ns(&self) -> u64 {
        let operations = self.operations.iter();
        let waits = operations.filter_map(|(from, to, _)| {
            let (held_from, _) = self.holds_within(*from, *to).first()?;
            Some(held_from - from)
        });
        waits.sum()
    }

    /// The holds that begin within an interval.
    fn holds_within(&self, from_ns: u64, to_ns: u64) -> &[(u64, u64)] {
        let first = self.holds.partition_point(|(from, _)| *from < from_ns);
        let behind = self.holds.partition_point(|(from, _)| *from <= to_ns);
        self.holds.get(first..behind).unwrap_or_default()
    }

    /// Everything that overlaps an interval.
    fn spans(&self, within: (u64, u64), ms: impl Fn(u64) -> f64) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut span = |from: u64, to: u64, doing| {
            if to >= within.0 && from <= within.1 && from <= to {
                spans.push(Span {
                    from_ms: ms(from.max(within.0)),
                    to_ms: ms(to.min(within.1)),
                    doing,
                });
            }
        };
        for (from, to, how) in &self.operations {
            if *how == Ended::Killed {
                span(*from, *to, Doing::Doubt);
                continue;
            }
            let held = self.holds_within(*from, *to);
            let first = held.first().map_or(*to, |(from, _)| *from);
            span(*from, first, Doing::Waits);
            if let Some((_, last)) = held.last() {
                span(*last, *to, Doing::Syncs);
            }
        }
        for (from, to) in &self.holds {
            span(*from, *to, Doing::Holds);
        }
        for (from, to) in &self.leads {
            span(*from, *to, Doing::Leads);
        }
        spans
    }
}

impl Timeline {
    /// The timeline of a run of so many agents and compactors, which started at `go_ns`.
    pub(crate) fn new(
        (agents, compactors): (u32, u32),
        ledger: &Ledger,
        courses: &BTreeMap<u32, Course>,
        go_ns: u64,
    ) -> Timeline {
        let ms = |at_ns: u64| millis(at_ns.saturating_sub(go_ns));
        let incidents = incidents(ledger);
        let of_agents = courses.range(..agents);
        let operations = || of_agents.clone().flat_map(|(_, course)| &course.operations);
        let end_ns = operations().map(|(_, to, _)| *to);
        let end_ns = end_ns.chain(incidents.iter().map(|incident| incident.at_ns));
        let end_ns = end_ns.max().unwrap_or(go_ns).max(go_ns);

        let slice_ns = slice_ns(end_ns - go_ns, operations().count() as u64);
        let index = |at_ns: u64| usize::try_from(at_ns.saturating_sub(go_ns) / slice_ns);
        let mut slices = vec![Slice::default(); index(end_ns).map_or(0, |last| last + 1)];
        let mut at = |at_ns: u64, change: &dyn Fn(&mut Slice)| {
            if let Some(slice) = index(at_ns).ok().and_then(|index| slices.get_mut(index)) {
                change(slice);
            }
        };
        for (_, to, how) in operations() {
            match how {
                Ended::Acknowledged => at(*to, &|slice| slice.acknowledged += 1),
                Ended::Refused => at(*to, &|slice| slice.refused += 1),
                Ended::Killed => {}
            }
        }
        for (from, to) in courses.values().flat_map(|course| &course.holds) {
            let (mut from, to) = ((*from).max(go_ns), (*to).min(end_ns));
            while from < to {
                let next = go_ns + ((from - go_ns) / slice_ns + 1) * slice_ns;
                let held = next.min(to) - from;
                at(from, &|slice| slice.held_ms += millis(held));
                from = next;
            }
        }

        let mut counts: BTreeMap<IncidentKind, u64> = BTreeMap::new();
        for incident in &incidents {
            *counts.entry(incident.kind).or_default() += 1;
        }
        let mark = |incident: &Incident| Mark {
            at_ms: ms(incident.at_ns),
            kind: incident.kind,
            who: incident.who.clone(),
            detail: incident.detail.clone(),
        };
        let mut marks = Vec::new();
        for (kind, count) in &counts {
            let of_kind = incidents.iter().filter(|incident| incident.kind == *kind);
            let step = usize::try_from(*count)
                .unwrap_or(usize::MAX)
                .div_ceil(MARKS_MAX);
            marks.extend(of_kind.step_by(step.max(1)).map(mark));
        }
        marks.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));

        let is_of_agent = |who: &str| who.starts_with("agent ") || who == EVERYBODY;
        let first = incidents
            .iter()
            .find(|incident| incident.at_ns >= go_ns && is_of_agent(&incident.who));
        let within = window(
            (go_ns, end_ns),
            operations().count() as u64 / u64::from(agents.max(1)),
            first.map(|incident| incident.at_ns),
        );
        let chosen = chosen(agents, compactors);
        let lane = |(number, name): &(u32, String)| {
            let course = courses.get(number).cloned().unwrap_or_default();
            let own = incidents.iter().filter(|incident| {
                incident.who == *name || (incident.who == EVERYBODY && *number < agents)
            });
            let inside = own.filter(|incident| (within.0..=within.1).contains(&incident.at_ns));
            Lane {
                name: name.clone(),
                spans: course.spans(within, ms),
                marks: inside.map(mark).collect(),
            }
        };
        Timeline {
            slice_ms: millis(slice_ns),
            slices,
            marks,
            incidents: counts,
            window: Window {
                from_ms: ms(within.0),
                to_ms: ms(within.1),
                is_around_incident: first.is_some(),
                lanes: chosen.iter().map(lane).collect(),
            },
        }
    }
}

/// Incidents and finished compactions, in the order of time.
fn incidents(ledger: &Ledger) -> Vec<Incident> {
    let compactions = ledger.compactions.iter().filter_map(|compaction| {
        let Compacting::Done { seq, .. } = compaction.outcome else {
            return None;
        };
        Some(Incident {
            at_ns: compaction.end_ns,
            kind: IncidentKind::Compacted,
            who: String::new(),
            detail: format!("through record {seq}"),
        })
    });
    let mut incidents: Vec<Incident> = ledger
        .incidents
        .iter()
        .cloned()
        .chain(compactions)
        .collect();
    incidents.sort_by_key(|incident| incident.at_ns);
    incidents
}

/// The numbers and names of the lanes: agents, chosen evenly, and compactors.
fn chosen(agents: u32, compactors: u32) -> Vec<(u32, String)> {
    let shown = agents.min(AGENTS_MAX);
    let lanes = (0..shown).map(|place| {
        let agent = u64::from(place) * u64::from(agents) / u64::from(shown);
        let agent = u32::try_from(agent).unwrap_or(place);
        (agent, format!("agent {agent}"))
    });
    let compactors = (0..compactors.min(COMPACTORS_MAX))
        .map(|number| (agents + 1 + number, format!("compactor {number}")));
    lanes.chain(compactors).collect()
}

/// The part with about [`OPERATIONS_SHOWN`] of each agent: around the first incident, or in the
/// middle.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a length that is a number of nanoseconds"
)]
fn window((from, to): (u64, u64), operations_each: u64, incident: Option<u64>) -> (u64, u64) {
    let share = (OPERATIONS_SHOWN / operations_each.max(1) as f64).min(1.0);
    let length = ((to - from) as f64 * share) as u64;
    let middle = incident.unwrap_or(u64::midpoint(from, to));
    let begin = middle
        .saturating_sub(length / 2)
        .clamp(from, (to - length).max(from));
    (begin, begin + length)
}

/// A round length, of which at most [`SLICES_MAX`] make up the whole, with a few operations in
/// each.
fn slice_ns(length_ns: u64, operations: u64) -> u64 {
    let most = (operations / OPERATIONS_A_SLICE).clamp(SLICES_MIN, u64::from(SLICES_MAX) - 1);
    let least = (length_ns / most).max(1);
    let mut power = 1;
    loop {
        for factor in [1, 2, 5] {
            if factor * power >= least {
                return factor * power;
            }
        }
        power *= 10;
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people; exact up to 2^53")]
fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::ledger::{Hold, Lead, Operation};

    const MS: u64 = 1_000_000;

    fn acknowledged(agent: u32, invoke_ms: u64, ack_ms: u64) -> Operation {
        Operation {
            agent,
            write: 1,
            invoke_ns: invoke_ms * MS,
            outcome: Outcome::Acknowledged {
                seq: 1,
                ack_ns: ack_ms * MS,
                repeated: false,
            },
        }
    }

    fn hold(agent: u32, from_ms: u64, to_ms: u64) -> Hold {
        Hold {
            agent,
            from_ns: from_ms * MS,
            to_ns: to_ms * MS,
        }
    }

    fn timeline(ledger: &Ledger) -> Timeline {
        Timeline::new((2, 0), ledger, &Course::all(ledger), 10 * MS)
    }

    #[test]
    fn an_operation_waits_holds_and_is_synced() {
        let ledger = Ledger {
            operations: vec![acknowledged(1, 12, 20)],
            // Before the start, and within the operation.
            holds: vec![hold(1, 5, 6), hold(1, 15, 16)],
            leads: vec![Lead {
                agent: 1,
                from_ns: 17 * MS,
                to_ns: 19 * MS,
            }],
            ..Ledger::default()
        };
        let courses = Course::all(&ledger);
        let course = &courses[&1];
        assert_eq!((course.holds(), course.held_ns()), (2, 2 * MS));
        assert_eq!((course.leads(), course.waited_ns()), (1, 3 * MS));
        let lane = &timeline(&ledger).window.lanes[1];
        let spans: Vec<_> = lane
            .spans
            .iter()
            .map(|span| (span.doing, span.from_ms, span.to_ms))
            .collect();
        assert_eq!(
            spans,
            [
                (Doing::Waits, 2.0, 5.0),
                (Doing::Syncs, 6.0, 10.0),
                (Doing::Holds, 5.0, 6.0),
                (Doing::Leads, 7.0, 9.0),
            ]
        );
    }

    #[test]
    fn slices_hold_every_answer_and_all_time_of_the_lock() {
        let ledger = Ledger {
            operations: (0..100)
                .map(|n| acknowledged(n % 2, 10 + u64::from(n), 11 + u64::from(n)))
                .collect(),
            holds: vec![hold(0, 5, 11), hold(0, 30, 57)],
            ..Ledger::default()
        };
        let timeline = timeline(&ledger);
        assert!((2..=SLICES_MAX as usize).contains(&timeline.slices.len()));
        let answered: u64 = timeline.slices.iter().map(|slice| slice.acknowledged).sum();
        let held: f64 = timeline.slices.iter().map(|slice| slice.held_ms).sum();
        assert_eq!(answered, 100);
        assert!((held - 28.0).abs() < 1e-6, "{held}");
        assert!(
            timeline
                .slices
                .iter()
                .all(|slice| slice.held_ms <= timeline.slice_ms + 1e-9)
        );
    }

    #[test]
    fn marks_are_thinned_evenly_and_counted_in_full() {
        let incident = |n: u64| Incident {
            at_ns: (20 + n) * MS,
            kind: IncidentKind::Torn,
            who: String::new(),
            detail: String::new(),
        };
        let ledger = Ledger {
            incidents: (0..1_000).map(incident).collect(),
            ..Ledger::default()
        };
        let timeline = timeline(&ledger);
        assert_eq!(timeline.incidents[&IncidentKind::Torn], 1_000);
        assert_eq!(timeline.marks.len(), MARKS_MAX);
        assert!((timeline.marks[MARKS_MAX - 1].at_ms - 1_005.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_has_a_time_line_too() {
        let timeline = timeline(&Ledger::default());
        assert_eq!((timeline.slices.len(), timeline.marks.len()), (1, 0));
        assert_eq!(timeline.window.lanes.len(), 2);
    }

    #[test]
    fn a_window_is_a_part_of_the_run() {
        assert_eq!(window((100, 200), 5, None), (100, 200));
        assert_eq!(window((0, 1_000), 300, None), (450, 550));
        assert_eq!(window((0, 1_000), 300, Some(3)), (0, 100));
        assert_eq!(window((0, 1_000), 300, Some(999)), (900, 1_000));
    }
}
