//! The operations of virtual processes, their outcomes and what readers saw; and whether all of it
//! can be true.
//!
//! Each operation creates marker issues of its own in the same record, and no other operation
//! touches them. So the version of a marker is the number of its operation's record, also after a
//! compaction.

use std::collections::{BTreeMap, BTreeSet};

use strand_core::{Issues, Seq, Version};

/// An operation of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One event without a condition.
    Append,
    /// This many events as one record, without a condition.
    Batch(u32),
    /// Creates a shared issue.
    Create(u32),
    /// Claims a shared issue.
    Claim(u32),
    /// Changes a field of a shared issue.
    Patch(u32),
    /// Deletes a shared issue.
    Delete(u32),
    /// Writes under a key, of which there are few.
    Keyed(u32),
}

/// The outcome that the caller got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Acknowledged(u64),
    /// It is written, and not durable yet.
    Buffered(u64),
    /// It was written before, under the same key.
    Repeated(u64),
    /// A condition does not hold, or something failed; nothing is stored.
    Rejected,
    /// It may be stored.
    Unknown,
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) process: usize,
    pub(crate) kind: Kind,
    /// When it began and ended, by a clock that counts events.
    pub(crate) begun: u64,
    pub(crate) ended: Option<(u64, Outcome)>,
    /// When its process was known to have died in it.
    died: Option<u64>,
    /// The record that it was found in, and whether that was after it was certainly durable.
    stored: Option<u64>,
}

/// The state that a reader saw at once.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) reader: String,
    pub(crate) begun: u64,
    /// The last record that it reflects.
    pub(crate) last_seq: u64,
    /// Records and the operations whose markers they have.
    pub(crate) operations: Vec<(u64, u32)>,
    /// Whether records that are not durable may be in it.
    pub(crate) loose: bool,
}

/// All that happened to one store.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: u64,
    pub(crate) entries: Vec<Entry>,
    views: Vec<View>,
    /// How many views there were.
    pub(crate) views_seen: u64,
    /// Whether lock files were displaced: then a reader without hints may read a record that the
    /// holder of an earlier one wrote to a segment that is being replaced.
    pub(crate) displaced: bool,
    /// How often a program removed the hints.
    pub(crate) hints_removed: u64,
    /// The contradictions.
    pub(crate) wrong: Vec<String>,
}

/// The id of one of an operation's markers.
pub(crate) fn marker(operation: u32, part: u32) -> String {
    format!("op-{operation}-{part}")
}

/// The operation that a marker is of, and which part.
pub(crate) fn operation_of(id: &str) -> Option<(u32, u32)> {
    let (operation, part) = id.strip_prefix("op-")?.split_once('-')?;
    Some((operation.parse().ok()?, part.parse().ok()?))
}

/// The id of a shared issue.
pub(crate) fn shared(number: u32) -> String {
    format!("shared-{number}")
}

/// The text of an idempotency key.
pub(crate) fn key(number: u32) -> String {
    format!("key-{number}")
}

impl Kind {
    pub(crate) fn markers(&self) -> u32 {
        match self {
            Kind::Batch(markers) => *markers,
            _ => 1,
        }
    }
}

impl History {
    /// One event more.
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// An operation begins; answers its number.
    pub(crate) fn begin(&mut self, process: usize, kind: Kind) -> u32 {
        let begun = self.tick();
        self.entries.push(Entry {
            process,
            kind,
            begun,
            ended: None,
            died: None,
            stored: None,
        });
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// Some processes are dead: none of their operations happens from now on.
    pub(crate) fn bury(&mut self, is_dead: impl Fn(usize) -> bool) {
        let now = self.tick();
        for entry in &mut self.entries {
            if entry.ended.is_none() && is_dead(entry.process) {
                entry.died.get_or_insert(now);
            }
        }
    }

    /// The caller got the outcome of an operation.
    pub(crate) fn end(&mut self, operation: u32, outcome: Outcome) {
        let now = self.tick();
        if let Some(entry) = self.entries.get_mut(operation as usize) {
            entry.ended = Some((now, outcome));
        }
    }

    /// The records that a process had buffered through this one are durable now.
    pub(crate) fn synced(&mut self, process: usize, through_seq: u64) {
        let now = self.tick();
        for entry in &mut self.entries {
            if let (true, Some(ended)) = (entry.process == process, &mut entry.ended)
                && let Outcome::Buffered(seq) = ended.1
                && seq <= through_seq
            {
                *ended = (now, Outcome::Acknowledged(seq));
            }
        }
    }

    pub(crate) fn saw(&mut self, view: View) {
        self.views_seen += 1;
        self.views.push(view);
    }

    /// Judges the state that is there now, and remembers it: what was seen once must stay.
    ///
    /// `power_cut` says that what was only buffered may be lost.
    pub(crate) fn judge(&mut self, store: &Issues, power_cut: bool) {
        let mut wrong = std::mem::take(&mut self.wrong);
        self.bury(|_| true);
        let last_seq = store.last_seq();
        let mut order: BTreeMap<u64, u32> = BTreeMap::new();
        for (number, entry) in (0..).zip(&mut self.entries) {
            let versions: BTreeSet<Option<u64>> = (0..entry.kind.markers())
                .map(|part| store.version(&marker(number, part)).map(Version::get))
                .collect();
            let [found] = versions.iter().copied().collect::<Vec<_>>()[..] else {
                wrong.push(format!(
                    "{number} {entry:?} is stored in part: {versions:?} (whole or not at all)"
                ));
                continue;
            };
            if let Some(seq) = found
                && let Some(other) = order.insert(seq, number)
            {
                wrong.push(format!(
                    "record {seq} is both of operation {other} and of {number}"
                ));
            }
            wrong.extend(
                entry
                    .judge(found, power_cut)
                    .map(|what| format!("operation {number}: {what}: {entry:?}")),
            );
            entry.stored = found;
        }
        let missing: Vec<u64> = (1..=last_seq.get())
            .filter(|seq| !order.contains_key(seq))
            .collect();
        if !missing.is_empty()
            || order
                .keys()
                .next_back()
                .is_some_and(|last| *last > last_seq.get())
        {
            wrong.push(format!(
                "the records through {last_seq} are not gapless: {missing:?} belong to no \
                 operation (I4)"
            ));
        }
        for (id, _) in store.iter() {
            if let Some((operation, part)) = operation_of(id) {
                let known = self.entries.get(operation as usize);
                if known.is_none_or(|entry| part >= entry.kind.markers()) {
                    wrong.push(format!("{id} was never asked for"));
                }
            }
        }
        self.check_order(&mut wrong);
        self.check_views(&order, &mut wrong);
        self.check_fold(&order, store, &mut wrong);
        self.wrong = wrong;
    }

    /// Each process's operations in its order, and all in that of their beginnings and ends.
    fn check_order(&self, wrong: &mut Vec<String>) {
        let mut by_begin: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.stored.is_some())
            .collect();
        // Whatever the outcome: what is stored at all was so by then, or had its place.
        let mut by_end: Vec<(u64, u64)> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let ended = entry.ended.as_ref().map(|(ended, _)| *ended);
                Some((ended.or(entry.died)?, entry.stored?))
            })
            .collect();
        by_begin.sort_by_key(|entry| entry.begun);
        by_end.sort_unstable();
        let mut ends = by_end.iter().peekable();
        let mut highest = 0;
        for entry in by_begin {
            while let Some((_, seq)) = ends.next_if(|(ended, _)| *ended < entry.begun) {
                highest = highest.max(*seq);
            }
            if entry.stored.is_some_and(|seq| seq <= highest) {
                wrong.push(format!(
                    "{entry:?} began after the call for record {highest} was answered or its \
                     process had died, and is stored before it"
                ));
            }
        }
    }

    /// All views are of one order; each has what was acknowledged before it began; none shrinks.
    fn check_views(&mut self, order: &BTreeMap<u64, u32>, wrong: &mut Vec<String>) {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for view in &self.views {
            for (seq, operation) in &view.operations {
                let may_be_gone = view.loose && (self.displaced || !order.contains_key(seq));
                if order.get(seq) != Some(operation) && !may_be_gone {
                    let now = order.get(seq);
                    wrong.push(format!(
                        "{} saw operation {operation} as record {seq}, which is {now:?}: {view:?}",
                        view.reader
                    ));
                    break;
                }
            }
            let acknowledged = self.entries.iter().filter_map(|entry| match entry.ended {
                Some((ended, Outcome::Acknowledged(seq))) if ended < view.begun => Some(seq),
                _ => None,
            });
            let acknowledged = acknowledged.max().unwrap_or(0);
            if view.last_seq < acknowledged {
                wrong.push(format!(
                    "{} saw records through {} after {acknowledged} was acknowledged",
                    view.reader, view.last_seq
                ));
            }
            let before = last.insert(&view.reader, view.last_seq);
            if before.is_some_and(|before| before > view.last_seq) && !view.loose {
                wrong.push(format!(
                    "{} saw records through {before:?}, and later through {}",
                    view.reader, view.last_seq
                ));
            }
        }
        // Judged once; what they saw is known to be there now.
        self.views.clear();
    }

    /// The conditions held at each record, and lead to this state: a second fold, independent of
    /// the first.
    fn check_fold(&self, order: &BTreeMap<u64, u32>, store: &Issues, wrong: &mut Vec<String>) {
        #[derive(Default)]
        struct Shared {
            there: bool,
            owner: Option<usize>,
            version: u64,
        }
        let mut issues: BTreeMap<u32, Shared> = BTreeMap::new();
        let mut keys: BTreeMap<u32, u64> = BTreeMap::new();
        for (seq, number) in order {
            let Some(entry) = self.entries.get(*number as usize) else {
                continue;
            };
            let mut broken = false;
            match entry.kind {
                Kind::Append | Kind::Batch(_) => {}
                Kind::Create(issue) => {
                    let issue = issues.entry(issue).or_default();
                    broken = issue.there;
                    *issue = Shared {
                        there: true,
                        owner: None,
                        version: *seq,
                    };
                }
                Kind::Claim(issue) => {
                    let issue = issues.entry(issue).or_default();
                    broken = !issue.there || issue.owner.is_some();
                    (issue.owner, issue.version) = (Some(entry.process), *seq);
                }
                Kind::Patch(issue) => {
                    let issue = issues.entry(issue).or_default();
                    broken = !issue.there;
                    issue.version = *seq;
                }
                Kind::Delete(issue) => {
                    let issue = issues.entry(issue).or_default();
                    broken = !issue.there;
                    *issue = Shared {
                        there: false,
                        owner: None,
                        version: *seq,
                    };
                }
                Kind::Keyed(key) => broken = keys.insert(key, *seq).is_some(),
            }
            if broken {
                wrong.push(format!(
                    "operation {number} is stored as record {seq}, where its condition does not \
                     hold: {entry:?}"
                ));
            }
        }
        for (number, issue) in &issues {
            let id = shared(*number);
            let now = store.get(&id);
            let owner = now.and_then(strand_core::Issue::assignee);
            let expected = issue.owner.map(|owner| format!("process-{owner}"));
            let version = store.version(&id).map(Version::get);
            if now.is_some() != issue.there || owner != expected || version != Some(issue.version) {
                wrong.push(format!(
                    "{id} should be {} with owner {expected:?} at version {}, and is {now:?} at \
                     {version:?}",
                    if issue.there { "there" } else { "deleted" },
                    issue.version
                ));
            }
        }
        for (number, seq) in &keys {
            if store.key(&key(*number)) != Some(Seq::new(*seq)) {
                wrong.push(format!(
                    "{} is of record {seq}, and known as {:?}",
                    key(*number),
                    store.key(&key(*number))
                ));
            }
        }
        for entry in &self.entries {
            if let (Kind::Keyed(key), Some((_, Outcome::Repeated(seq)))) =
                (&entry.kind, &entry.ended)
                && keys.get(key) != Some(seq)
            {
                wrong.push(format!(
                    "a repeated append was answered with record {seq}, which is not its key's: \
                     {entry:?}"
                ));
            }
        }
    }
}

impl Entry {
    /// The fault in finding this operation in this record, or nowhere.
    fn judge(&mut self, found: Option<u64>, power_cut: bool) -> Option<String> {
        if self.stored.is_some() && self.stored != found {
            // Only what was never acknowledged as durable can go, and only with the power.
            let may_go = power_cut && !matches!(self.ended, Some((_, Outcome::Acknowledged(_))));
            if found.is_some() || !may_go {
                return Some(format!(
                    "was seen as record {:?}, and is now {found:?}",
                    self.stored
                ));
            }
        }
        let outcome = self.ended.as_ref().map(|(_, outcome)| outcome.clone());
        match (outcome, found) {
            (Some(Outcome::Acknowledged(seq)), found) if found != Some(seq) => Some(format!(
                "was acknowledged as record {seq}, and is stored as {found:?}"
            )),
            (Some(Outcome::Buffered(seq)), Some(found)) if found != seq => Some(format!(
                "was written as record {seq}, and is stored as {found}"
            )),
            (Some(Outcome::Buffered(seq)), None) if !power_cut => {
                Some(format!("was written as record {seq}, and is gone"))
            }
            (Some(Outcome::Buffered(_)), None) => {
                if let Some((_, outcome)) = &mut self.ended {
                    *outcome = Outcome::Unknown; // Lost with the power, as is allowed.
                }
                None
            }
            (Some(Outcome::Rejected | Outcome::Repeated(_)), Some(found)) => {
                Some(format!("was not to be written, and is record {found}"))
            }
            _ => None,
        }
    }
}
