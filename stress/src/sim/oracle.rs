//! The state that a store must have after any faults: a pure function of the outcomes that callers
//! got and of the state that is read.
//!
//! Each operation adds an issue that nothing else touches, its *marker*. The marker's version is
//! the number of the operation's record, however often the log was compacted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use strand_core::{Issues, Seq, Version};

use crate::evidence::fold::Model;
use crate::evidence::stored::{self, Segment};
use crate::sim::image::Image;

/// An operation and its outcome.
#[derive(Debug, Clone)]
pub struct Operation {
    /// No other operation of the run has it, and it always means the same operation.
    pub number: u32,
    /// The issue that its record adds, and nothing else touches.
    pub marker: Arc<str>,
    /// The events of its record, as JSON.
    pub events: Arc<[String]>,
    /// Its idempotency key.
    pub key: Option<Arc<str>>,
    /// Its condition beyond that of its events.
    pub condition: Option<Condition>,
    /// The outcome that the caller got.
    pub outcome: Outcome,
    /// When it began, and when its outcome came; `u64::MAX` until then.
    pub span: (u64, u64),
}

/// A condition on the state right before the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The issue is open and has no assignee.
    Claimable(Arc<str>),
    /// There is such an issue.
    Present(Arc<str>),
}

/// The outcome of an operation, as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing yet, or never, since its process died.
    Nothing,
    /// It is stored as this record. How durable that is, [`Ledger::durable_seq`] says.
    Acknowledged {
        /// The record.
        seq: u64,
    },
    /// Certainly nothing is stored.
    Rejected,
    /// The condition did not hold.
    Refused {
        /// The record that the refusal named, which must be as durable as an acknowledged one; 0
        /// for none.
        seq: u64,
    },
    /// It may be stored, once.
    Unknown,
}

/// The outcomes of all operations at one moment.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The operations that were begun, in the order in which they were.
    pub operations: Vec<Operation>,
    /// The records through this one were reported to survive a power loss.
    pub durable_seq: u64,
    /// The records through this one were read.
    pub seen_seq: u64,
}

impl Ledger {
    /// The ledger once a state was read: what is in the state stays, and what is not in it will
    /// never come. With `durable`, no power loss takes it back either.
    #[must_use]
    pub fn settled(&self, order: &Order, durable: bool) -> Self {
        let mut ledger = self.clone();
        for operation in &mut ledger.operations {
            let place = order.iter().position(|one| *one == operation.number);
            operation.outcome = match (place, operation.outcome) {
                (Some(index), _) if durable => Outcome::Acknowledged {
                    seq: index as u64 + 1,
                },
                (None, Outcome::Nothing | Outcome::Acknowledged { .. } | Outcome::Unknown) => {
                    Outcome::Rejected
                }
                (_, outcome) => outcome,
            };
        }
        if durable {
            ledger.durable_seq = order.len() as u64;
        }
        ledger
    }
}

/// The loss before the state was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing, or processes died: all that was written is there.
    Processes,
    /// The power went: what was not durable may be lost.
    Power,
}

/// The order in which a state has the operations.
pub type Order = Vec<u32>;

/// Judges states. Caches the states that sequences of operations lead to, since the same ones come
/// again and again.
#[derive(Debug, Default)]
pub struct Oracle {
    expected: HashMap<Order, Arc<Expected>>,
}

/// The state that a sequence of operations leads to.
#[derive(Debug, Default)]
struct Expected {
    /// Id, version and text.
    issues: Vec<(String, u64, String)>,
    /// Id and version of the deleted ones.
    deleted: Vec<(String, u64)>,
    without_effect: u64,
    /// The faults of the sequence itself.
    wrong: Vec<String>,
}

impl Oracle {
    /// Judges a state, and returns the order of the operations in it. `durable_seq` is the highest
    /// durable sequence number that could be read before.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn judge(
        &mut self,
        ledger: &Ledger,
        store: &Issues,
        durable_seq: u64,
        loss: Loss,
    ) -> Result<Order, Vec<String>> {
        let mut wrong = Vec::new();
        let placed = place(ledger, store, loss, &mut wrong);
        let last_seq = store.last_seq();
        let named = [
            ("was reported durable", ledger.durable_seq),
            ("was below the durable sequence number", durable_seq),
        ];
        for (how, seq) in named {
            if last_seq < Seq::new(seq) {
                wrong.push(format!(
                    "record {seq} {how}, and the log ends at {last_seq}"
                ));
            }
        }
        let mut order = Order::with_capacity(placed.len());
        for (expected, (seq, operation)) in (1..).zip(&placed) {
            if *seq != expected {
                wrong.push(format!(
                    "no operation is record {expected}, and {} is {seq}",
                    operation.marker
                ));
                break;
            }
            order.push(operation.number);
        }
        if last_seq != placed.len() as u64 {
            let count = placed.len();
            wrong.push(format!(
                "the log ends at {last_seq}, and {count} operations are in it"
            ));
        }
        // An operation that was answered before another began is stored before it.
        let mut latest: Option<&Operation> = None;
        for operation in placed.values() {
            if let Some(before) = latest.filter(|before| operation.span.1 < before.span.0) {
                wrong.push(format!(
                    "{} was answered before {} began, and is stored after it",
                    operation.marker, before.marker
                ));
            }
            if latest.is_none_or(|latest| latest.span.0 < operation.span.0) {
                latest = Some(operation);
            }
        }
        if wrong.is_empty() {
            let expected = if let Some(known) = self.expected.get(&order) {
                Arc::clone(known)
            } else {
                let expected = Arc::new(Expected::of(placed.values().copied()));
                self.expected.insert(order.clone(), Arc::clone(&expected));
                expected
            };
            expected.compare(store, &mut wrong);
            for operation in &ledger.operations {
                let of = |key: &Arc<str>| {
                    (
                        store.key(key).map(Seq::get),
                        seq_of(store, &operation.marker),
                    )
                };
                if let Some((found, expected)) =
                    operation.key.as_ref().map(of).filter(|(a, b)| a != b)
                {
                    wrong.push(format!(
                        "the key of {} leads to {found:?}, and it is {expected:?}",
                        operation.marker
                    ));
                }
            }
        }
        if wrong.is_empty() {
            Ok(order)
        } else {
            Err(wrong)
        }
    }

    /// Everything that is wrong with the files of a store in `dir`, read without the log's help;
    /// `order` is that of its state.
    #[must_use]
    pub fn judge_files(ledger: &Ledger, order: &Order, image: &Image, dir: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let file = |name: &str| image.files.get(format!("{dir}/{name}").as_str());
        let manifest = file("MANIFEST").map(|bytes| stored::parse_manifest(bytes));
        let manifest = match manifest {
            Some(Ok(manifest)) => manifest,
            Some(Err(error)) => return vec![format!("the manifest: {error}")],
            None => return vec!["there is no manifest".to_owned()],
        };
        for (name, mark) in manifest.files() {
            let snapshot = file(&name).map(|bytes| stored::parse_snapshot(bytes));
            match snapshot {
                Some(Ok(snapshot)) if snapshot.seq == mark.seq => {}
                found => wrong.push(format!("{name}: {found:?}")),
            }
        }
        let mut next = manifest.first_seq;
        let segments: Vec<(u64, &str, &Arc<Vec<u8>>)> = image
            .files
            .iter()
            .filter_map(|(path, bytes)| {
                let name = path.strip_prefix(dir).unwrap_or(path);
                let name = name.trim_start_matches('/');
                Some((stored::first_seq(name)?, name, bytes))
            })
            .filter(|(first, ..)| *first >= manifest.first_seq)
            .collect();
        for (number, (first, name, bytes)) in segments.iter().enumerate() {
            if *first != next {
                wrong.push(format!("{name} begins where {next} should"));
            }
            let segment = Segment {
                name: (*name).to_owned(),
                bytes: bytes.to_vec(),
            };
            let successor = segments.get(number + 1).map(|(first, ..)| *first);
            let (records, bad) = match successor {
                Some(successor) => stored::parse_followed_segment(&segment, successor),
                None => stored::parse_segment(&segment),
            };
            wrong.extend(bad.into_iter().map(|bad| format!("{bad:?}")));
            for record in records {
                let place = usize::try_from(record.seq - 1).unwrap_or(usize::MAX);
                let of = order.get(place);
                let operations = &mut ledger.operations.iter();
                let operation = of.and_then(|of| operations.find(|one| one.number == *of));
                let found = record.events.iter().map(|event| event.json.as_str());
                let expected = operation.map(|operation| operation.events.iter());
                if record.seq != next {
                    wrong.push(format!("{name}: record {} for {next}", record.seq));
                }
                if !expected.is_some_and(|expected| expected.eq(found)) {
                    wrong.push(format!(
                        "{name}: record {} has other bytes: {:.200}",
                        record.seq,
                        record.text()
                    ));
                }
                next = record.seq + 1;
            }
        }
        if next != order.len() as u64 + 1 {
            wrong.push(format!(
                "the files end before record {next}, and the state has {}",
                order.len()
            ));
        }
        wrong
    }
}

/// The record that last changed an issue.
fn seq_of(store: &Issues, id: &str) -> Option<u64> {
    store.version(id).map(Version::get)
}

/// Where each operation is, and whether it may be there.
fn place<'a>(
    ledger: &'a Ledger,
    store: &Issues,
    loss: Loss,
    wrong: &mut Vec<String>,
) -> BTreeMap<u64, &'a Operation> {
    let mut placed: BTreeMap<u64, &Operation> = BTreeMap::new();
    let durable_seq = ledger.durable_seq.max(ledger.seen_seq);
    for operation in &ledger.operations {
        let marker = &operation.marker;
        let at = seq_of(store, marker);
        let must_be = |seq: u64| loss == Loss::Processes || seq <= durable_seq;
        let allowed = match operation.outcome {
            Outcome::Acknowledged { seq } => at == Some(seq) || at.is_none() && !must_be(seq),
            Outcome::Rejected => at.is_none(),
            Outcome::Refused { seq } => {
                if seq > store.last_seq().get() && must_be(seq) {
                    wrong.push(format!(
                        "{marker} was refused for record {seq}, and the log ends at {}",
                        store.last_seq()
                    ));
                }
                at.is_none()
            }
            Outcome::Nothing | Outcome::Unknown => true,
        };
        if !allowed {
            wrong.push(format!(
                "{marker} was answered {:?}, and is {at:?}",
                operation.outcome
            ));
        }
        let Some(seq) = at else { continue };
        if store.get(marker).is_none() {
            wrong.push(format!("{marker} was deleted"));
        }
        if let Some(other) = placed.insert(seq, operation) {
            wrong.push(format!("{marker} and {} are both {seq}", other.marker));
        }
    }
    placed
}

impl Expected {
    fn of<'a>(operations: impl Iterator<Item = &'a Operation>) -> Self {
        let mut model = Model::default();
        let mut expected = Self::default();
        let mut ids: Vec<String> = Vec::new();
        let mut last_seq = 0;
        for (seq, operation) in (1..).zip(operations) {
            let before = |id: &str| model.issue(id, seq - 1).and_then(|(_, text)| text);
            let holds = match &operation.condition {
                None => true,
                Some(Condition::Present(id)) => before(id).is_some(),
                Some(Condition::Claimable(id)) => before(id).is_some_and(is_claimable),
            };
            if !holds {
                let (marker, condition) = (&operation.marker, &operation.condition);
                let text = format!("{marker} is record {seq}, where {condition:?} did not hold");
                expected.wrong.push(text);
            }
            let events = operation.events.iter().map(String::as_str);
            if let Err(error) = model.apply(seq, events) {
                expected.wrong.push(error);
            }
            ids.extend(operation.events.iter().filter_map(|event| {
                let event = crate::evidence::fold::Event::parse(event).ok()?;
                Some(event.id.into_owned())
            }));
            last_seq = seq;
        }
        let issues = model.issues_at(last_seq);
        expected.issues = issues
            .map(|(id, version, text)| (id.to_owned(), version, text.to_owned()))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let deleted = ids.into_iter().filter_map(|id| {
            let (version, text) = model.issue(&id, last_seq)?;
            text.is_none().then_some((id, version))
        });
        expected.deleted = deleted.collect();
        expected.without_effect = model.last_state().without_effect;
        expected
    }

    fn compare(&self, store: &Issues, wrong: &mut Vec<String>) {
        wrong.extend(self.wrong.iter().cloned());
        let mut found = store.iter();
        for (id, version, text) in &self.issues {
            let is = found.next();
            let same = is.is_some_and(|(other, issue)| id == other && text == issue.as_json());
            if !same || seq_of(store, id) != Some(*version) {
                let (version_found, is) = (store.version(id), is.map(|(_, issue)| issue));
                wrong.push(format!(
                    "{id} should be {text} as of {version}, and is {is:?} as of {version_found:?}"
                ));
                return;
            }
        }
        if let Some((id, _)) = found.next() {
            wrong.push(format!("{id} should not be there"));
        }
        if store.len() != self.issues.len() {
            wrong.push(format!(
                "there are {} issues, and it says {}",
                self.issues.len(),
                store.len()
            ));
        }
        for (id, version) in &self.deleted {
            if store.get(id).is_some() || seq_of(store, id) != Some(*version) {
                let found = store.version(id);
                wrong.push(format!("{id} was deleted by {version}, and is {found:?}"));
            }
        }
        if store.without_effect() != self.without_effect {
            wrong.push(format!(
                "{} events were without effect, and it says {}",
                self.without_effect,
                store.without_effect()
            ));
        }
    }
}

/// Decided without the log's help.
fn is_claimable(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Claimable {
        #[serde(default)]
        status: String,
        #[serde(default)]
        assignee: Option<String>,
    }
    let issue: Result<Claimable, _> = serde_json::from_str(text);
    issue.is_ok_and(|issue| issue.status == "open" && issue.assignee.unwrap_or_default().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strand_core::IssueEvent;

    /// An operation that adds its marker, and does what `more` says.
    fn operation(number: u32, more: &[&str], outcome: Outcome) -> Operation {
        let marker = format!("op-{number}");
        let add = format!(
            r#"{{"ts":0,"op":"add","id":"{marker}","data":{{"id":"{marker}","title":"t","status":"open"}}}}"#
        );
        let more = more.iter().map(|text| (*text).to_owned());
        let begun = u64::from(number) * 10;
        Operation {
            number,
            marker: marker.into(),
            events: std::iter::once(add).chain(more).collect(),
            key: None,
            condition: None,
            outcome,
            span: (begun, begun + 5),
        }
    }

    fn acknowledged(seq: u64) -> Outcome {
        Outcome::Acknowledged { seq }
    }

    /// The state after these operations, one record each.
    fn store(operations: &[&Operation]) -> Issues {
        let mut store = Issues::default();
        for (seq, operation) in (1..).zip(operations) {
            let events = operation.events.iter().enumerate().map(|(index, text)| {
                let event: IssueEvent = serde_json::from_str(text).unwrap();
                match &operation.key {
                    Some(key) if index == 0 => event.with_key(&**key),
                    _ => event,
                }
            });
            store.apply(Seq::new(seq), events.collect::<Vec<_>>());
        }
        store
    }

    fn ledger(operations: &[Operation], durable_seq: u64) -> Ledger {
        Ledger {
            operations: operations.to_vec(),
            durable_seq,
            seen_seq: 0,
        }
    }

    fn judge(ledger: &Ledger, store: &Issues, loss: Loss) -> Result<Order, Vec<String>> {
        Oracle::default().judge(ledger, store, 0, loss)
    }

    #[track_caller]
    fn assert_finds(found: Result<Order, Vec<String>>, what: &str) {
        let wrong = found.unwrap_err();
        assert!(wrong.iter().any(|wrong| wrong.contains(what)), "{wrong:?}");
    }

    #[test]
    fn what_was_acknowledged_is_there_at_its_record() {
        let (a, b) = (
            operation(0, &[], acknowledged(1)),
            operation(1, &[], acknowledged(2)),
        );
        let both = ledger(&[a.clone(), b.clone()], 2);
        assert_eq!(judge(&both, &store(&[&a, &b]), Loss::Power), Ok(vec![0, 1]));
        assert_finds(
            judge(&both, &store(&[&a]), Loss::Power),
            "op-1 was answered",
        );
        assert_finds(
            judge(&both, &store(&[&b]), Loss::Power),
            "op-0 was answered",
        );
        assert_finds(
            judge(&both, &store(&[&b, &a]), Loss::Power),
            "op-0 was answered",
        );
    }

    #[test]
    fn what_is_not_durable_may_be_lost_with_the_power_but_not_with_a_process() {
        let (a, b) = (
            operation(0, &[], acknowledged(1)),
            operation(1, &[], acknowledged(2)),
        );
        let one_durable = ledger(&[a.clone(), b.clone()], 1);
        let left = store(&[&a]);
        assert_eq!(judge(&one_durable, &left, Loss::Power), Ok(vec![0]));
        assert_finds(
            judge(&one_durable, &left, Loss::Processes),
            "op-1 was answered",
        );
        let seen = Ledger {
            seen_seq: 2,
            ..one_durable.clone()
        };
        assert_finds(judge(&seen, &left, Loss::Power), "op-1 was answered");
        let judged = Oracle::default().judge(&one_durable, &left, 2, Loss::Power);
        assert_finds(judged, "below the durable sequence number");
    }

    #[test]
    fn what_was_rejected_or_refused_is_never_there_and_the_unknown_at_most_once() {
        let a = operation(0, &[], acknowledged(1));
        for outcome in [Outcome::Rejected, Outcome::Refused { seq: 1 }] {
            let b = operation(1, &[], outcome);
            let both = ledger(&[a.clone(), b.clone()], 1);
            assert_eq!(judge(&both, &store(&[&a]), Loss::Power), Ok(vec![0]));
            assert_finds(
                judge(&both, &store(&[&a, &b]), Loss::Power),
                "op-1 was answered",
            );
        }
        for outcome in [Outcome::Nothing, Outcome::Unknown] {
            let b = operation(1, &[], outcome);
            let both = ledger(&[a.clone(), b.clone()], 1);
            assert_eq!(judge(&both, &store(&[&a]), Loss::Power), Ok(vec![0]));
            let there = store(&[&a, &b]);
            assert_eq!(judge(&both, &there, Loss::Power), Ok(vec![0, 1]));
            let twice = store(&[&a, &b, &b]);
            assert_finds(
                judge(&both, &twice, Loss::Power),
                "no operation is record 2",
            );
        }
    }

    #[test]
    fn the_record_that_a_refusal_names_is_there() {
        let a = operation(0, &[], Outcome::Unknown);
        let b = operation(1, &[], Outcome::Refused { seq: 1 });
        let both = ledger(&[a.clone(), b], 1);
        assert_eq!(judge(&both, &store(&[&a]), Loss::Power), Ok(vec![0]));
        assert_finds(
            judge(&both, &store(&[]), Loss::Power),
            "was refused for record 1",
        );
    }

    #[test]
    fn every_record_is_an_operation() {
        let (a, b) = (
            operation(0, &[], acknowledged(1)),
            operation(7, &[], acknowledged(2)),
        );
        let only_a = ledger(std::slice::from_ref(&a), 1);
        assert_finds(
            judge(&only_a, &store(&[&a, &b]), Loss::Power),
            "1 operations are in it",
        );
    }

    #[test]
    fn a_batch_is_there_as_a_whole() {
        let more = r#"{"ts":0,"op":"add","id":"x","data":{"id":"x","title":"t"}}"#;
        let a = operation(0, &[more], Outcome::Unknown);
        let part = operation(0, &[], Outcome::Unknown);
        let one = ledger(std::slice::from_ref(&a), 0);
        assert_eq!(judge(&one, &store(&[&a]), Loss::Power), Ok(vec![0]));
        assert_finds(judge(&one, &store(&[&part]), Loss::Power), "x should be");
        let without = ledger(std::slice::from_ref(&part), 0);
        assert_finds(
            judge(&without, &store(&[&a]), Loss::Power),
            "x should not be there",
        );
    }

    #[test]
    fn deleted_issues_stay_deleted_and_events_without_effect_are_counted() {
        let more = r#"{"ts":0,"op":"add","id":"x","data":{"id":"x","title":"t"}}"#;
        let delete = r#"{"ts":0,"op":"delete","id":"x","data":null}"#;
        let a = operation(0, &[more], acknowledged(1));
        let b = operation(1, &[delete], acknowledged(2));
        let idle = operation(
            1,
            &["{\"ts\":0,\"op\":\"close\",\"id\":\"y\"}"],
            acknowledged(2),
        );
        let forgotten = operation(1, &[], acknowledged(2));
        let both = ledger(&[a.clone(), b.clone()], 2);
        assert_eq!(judge(&both, &store(&[&a, &b]), Loss::Power), Ok(vec![0, 1]));
        assert_finds(
            judge(&both, &store(&[&a, &forgotten]), Loss::Power),
            "x should not be there",
        );
        // As if it had never been: without its tombstone.
        let c = operation(0, &[], acknowledged(1));
        assert_finds(
            judge(&both, &store(&[&c, &forgotten]), Loss::Power),
            "x was deleted by 2",
        );
        let other = ledger(&[a.clone(), forgotten], 2);
        assert_finds(
            judge(&other, &store(&[&a, &idle]), Loss::Power),
            "without effect",
        );
    }

    #[test]
    fn of_two_claims_the_first_record_wins_and_there_is_no_other() {
        let claim = r#"{"ts":0,"op":"patch","id":"x","patch":{"set":{"assignee":"a","status":"in_progress"}}}"#;
        let more = r#"{"ts":0,"op":"add","id":"x","data":{"id":"x","title":"t","status":"open"}}"#;
        let a = operation(0, &[more], acknowledged(1));
        let claims = |number, seq| Operation {
            condition: Some(Condition::Claimable("x".into())),
            ..operation(number, &[claim], acknowledged(seq))
        };
        let (b, c) = (claims(1, 2), claims(2, 3));
        let one = ledger(&[a.clone(), b.clone()], 2);
        assert_eq!(judge(&one, &store(&[&a, &b]), Loss::Power), Ok(vec![0, 1]));
        let two = ledger(&[a.clone(), b.clone(), c.clone()], 3);
        assert_finds(
            judge(&two, &store(&[&a, &b, &c]), Loss::Power),
            "did not hold",
        );
    }

    #[test]
    fn a_key_leads_to_its_record_and_to_none_where_there_is_none() {
        let keyed = |outcome| Operation {
            key: Some("k".into()),
            ..operation(0, &[], outcome)
        };
        let a = keyed(acknowledged(1));
        let one = ledger(std::slice::from_ref(&a), 1);
        assert_eq!(judge(&one, &store(&[&a]), Loss::Power), Ok(vec![0]));
        let forgotten = operation(0, &[], acknowledged(1));
        assert_finds(
            judge(&one, &store(&[&forgotten]), Loss::Power),
            "the key of op-0",
        );
        let b = Operation {
            key: Some("k".into()),
            ..operation(1, &[], acknowledged(1))
        };
        let lost = ledger(
            &[keyed(Outcome::Unknown), operation(1, &[], acknowledged(1))],
            1,
        );
        assert_finds(judge(&lost, &store(&[&b]), Loss::Power), "the key of op-0");
    }

    #[test]
    fn an_operation_that_was_answered_before_another_began_is_stored_before_it() {
        let (a, b) = (
            operation(0, &[], acknowledged(2)),
            operation(1, &[], acknowledged(1)),
        );
        let swapped = ledger(&[a.clone(), b.clone()], 2);
        assert_finds(
            judge(&swapped, &store(&[&b, &a]), Loss::Power),
            "was answered before",
        );
        let at_once = Operation {
            span: (0, 100),
            ..a.clone()
        };
        let swapped = ledger(&[at_once.clone(), b.clone()], 2);
        let judged = judge(&swapped, &store(&[&b, &at_once]), Loss::Power);
        assert_eq!(judged, Ok(vec![1, 0]));
    }

    #[test]
    fn what_was_seen_stays_and_what_was_not_never_comes() {
        let (a, b) = (
            operation(0, &[], Outcome::Unknown),
            operation(1, &[], Outcome::Nothing),
        );
        let before = ledger(&[a.clone(), b.clone()], 0);
        let settled = before.settled(&vec![0], true);
        assert_eq!(judge(&settled, &store(&[&a]), Loss::Power), Ok(vec![0]));
        assert_finds(
            judge(&settled, &store(&[]), Loss::Power),
            "op-0 was answered",
        );
        assert_finds(
            judge(&settled, &store(&[&a, &b]), Loss::Power),
            "op-1 was answered",
        );
    }

    #[test]
    fn the_files_hold_the_events_of_the_operations_and_nothing_else() {
        let a = operation(0, &[], acknowledged(1));
        let one = ledger(std::slice::from_ref(&a), 1);
        let manifest = stored::with_checksum(r#""format":2,"store":"x","first_seq":1}"#) + "\n";
        let line = |seq, text: &str| stored::fabricate_line(seq, text) + "\n";
        let image = |log: String| {
            let files = [
                ("s/MANIFEST".into(), manifest.as_bytes().to_vec().into()),
                (
                    format!("s/log-{:020}.jsonl", 1).into(),
                    log.as_bytes().to_vec().into(),
                ),
            ];
            Image {
                files: files.into(),
                dirs: ["s".into()].into(),
            }
        };
        let judge = |log: String| Oracle::judge_files(&one, &vec![0], &image(log), "s");
        let right = line(1, &a.events[0]);
        assert_eq!(judge(right.clone()), [""; 0]);
        let other = a.events[0].replace("open", "shut");
        let wrong = [
            String::new(),
            line(1, &other),
            line(2, &a.events[0]),
            format!("{right}{}", line(2, &a.events[0])),
            format!("{right}{{"),
        ];
        for log in wrong {
            assert_ne!(judge(log.clone()), [""; 0], "{log}");
        }
        let nothing = Oracle::judge_files(&one, &vec![0], &Image::default(), "s");
        assert_eq!(nothing, ["there is no manifest"]);
    }
}
