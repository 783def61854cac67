//! A run without a fault, and for each point of the oracle a fabricated one that breaks it.

use super::*;
use crate::evidence::fold::StateDigest;
use crate::evidence::ids::event_id;
use crate::evidence::ledger::{DurableSeen, Incarnation, Sighting, View};
use crate::evidence::stored::{Segment, fabricate_line, parse_segment};

fn event_json(agent: u32, write: u32) -> String {
    let id = event_id(agent, write);
    format!(r#"{{"ts":{write},"op":"add","id":"{id}","data":{{"id":"{id}","title":"t"}}}}"#)
}

fn events(agent: u32, write: u32) -> Vec<String> {
    vec![event_json(agent, write)]
}

/// Two agents with two writes each, stored in turn: (0,1) (1,1) (0,2) (1,2) at 1 to 4.
/// Operation n runs from 100n to 100n + 50 and holds the lock from 100n + 10 to 100n + 20.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a fact of its own about the run"
)]
struct Run {
    ledger: Ledger,
    records: Vec<StoredRecord>,
    bad_lines: Vec<BadLine>,
    synced: bool,
    hints_were_lost: bool,
    complete: bool,
    keyed: bool,
    claimed: u32,
    snapshot_seqs: BTreeSet<u64>,
    journals: Vec<Journal>,
    shows: Shows,
    beside: Beside,
}

fn parsed(line: String) -> (Vec<StoredRecord>, Vec<BadLine>) {
    let name = format!("log-{:020}.jsonl", 1);
    let bytes = (line + "\n").into();
    parse_segment(&Segment { name, bytes })
}

fn stored(seq: u64, event: &str) -> StoredRecord {
    let (mut records, bad) = parsed(fabricate_line(seq, event));
    assert_eq!(bad, []);
    records.remove(0)
}

fn record(seq: u64, agent: u32, write: u32) -> StoredRecord {
    stored(seq, &event_json(agent, write))
}

fn acknowledged(agent: u32, write: u32, seq: u64) -> Operation {
    Operation {
        agent,
        write,
        invoke_ns: seq * 100,
        outcome: acknowledgement(seq, seq * 100 + 50, false),
    }
}

fn acknowledgement(seq: u64, ack_ns: u64, repeated: bool) -> Outcome {
    Outcome::Acknowledged {
        seq,
        ack_ns,
        repeated,
    }
}

fn unknown(error: &str) -> Outcome {
    let error = error.to_owned();
    Outcome::Unknown { error }
}

fn rejected(error: &str) -> Outcome {
    let error = error.to_owned();
    Outcome::Rejected { error }
}

fn durable(seq: u64, begin_ns: u64, end_ns: u64) -> DurableSeen {
    DurableSeen {
        begin_ns,
        end_ns,
        seq,
    }
}

fn hold(agent: u32, from_ns: u64, to_ns: u64) -> Hold {
    Hold {
        agent,
        from_ns,
        to_ns,
    }
}

fn sighting(agent: u32, at_ns: u64, other: u32) -> Sighting {
    Sighting {
        agent,
        at_ns,
        other,
    }
}

fn prefix(records: &[StoredRecord], count: usize) -> Prefix {
    let add = |prefix: Prefix, record: &StoredRecord| prefix.with(record.seq, &record.line);
    records.iter().take(count).fold(Prefix::default(), add)
}

fn killed(agent: u32, killed_ns: u64, reaped_ns: u64) -> Incarnation {
    Incarnation {
        role: "agent",
        agents: vec![agent],
        pid: 7,
        killed_ns: Some(killed_ns),
        reaped_ns,
        end: End::Killed,
        left_holding: Vec::new(),
    }
}

impl Run {
    fn good() -> Run {
        let order = [(1, 0, 1), (2, 1, 1), (3, 0, 2), (4, 1, 2)];
        let records: Vec<_> = order.iter().map(|&(s, a, w)| record(s, a, w)).collect();
        let durable_seq = |seq| durable(seq, seq * 100 + 51, seq * 100 + 52);
        let hold = |&(s, agent, _): &(u64, u32, u32)| hold(agent, s * 100 + 10, s * 100 + 20);
        let view = |begin_ns, count| View {
            reader: "test".into(),
            begin_ns,
            end_ns: begin_ns + 5,
            through_tail: true,
            seen: Seen::Records(prefix(&records, count)),
        };
        let ledger = Ledger {
            operations: order
                .iter()
                .map(|&(s, a, w)| acknowledged(a, w, s))
                .collect(),
            holds: order.iter().map(hold).collect(),
            durable_seen: (1..=4).map(durable_seq).collect(),
            views: vec![view(10, 0), view(260, 2), view(255, 3), view(500, 4)],
            ..Ledger::default()
        };
        Run::of(ledger, records)
    }

    fn of(ledger: Ledger, records: Vec<StoredRecord>) -> Run {
        Run {
            ledger,
            records,
            bad_lines: Vec::new(),
            synced: true,
            hints_were_lost: false,
            complete: true,
            keyed: false,
            claimed: 0,
            snapshot_seqs: BTreeSet::new(),
            journals: Vec::new(),
            shows: Shows::STRAND,
            beside: Beside::default(),
        }
    }

    fn judge(&self) -> Vec<Violation> {
        judge(&Evidence {
            agents: 2,
            writes: &[2, 2],
            synced: self.synced,
            hints_were_lost: self.hints_were_lost,
            complete: self.complete,
            ledger: &self.ledger,
            records: &self.records,
            bad_lines: &self.bad_lines,
            expected: &|agent, write| {
                let mut plans = self.ledger.plans.iter();
                let plan = plans.find(|plan| (plan.0, plan.1) == (agent, write));
                let key = crate::evidence::ids::operation_key(agent, write);
                plan.map_or_else(|| events(agent, write), |plan| plan.2.events(&key))
            },
            keyed: self.keyed,
            claimed: self.claimed,
            model: Model::of(&self.records).ok().as_ref(),
            snapshot_seqs: &self.snapshot_seqs,
            journals: &self.journals,
            shows: self.shows,
            beside: &self.beside,
        })
    }

    /// The violations with their evidence.
    fn shown(&self) -> Vec<String> {
        self.judge().iter().map(Violation::to_string).collect()
    }

    /// The violations' kinds, each once, without those that only follow from a changed file.
    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self
            .judge()
            .iter()
            .map(|violation| {
                let json = serde_json::to_value(violation).unwrap();
                json["kind"].as_str().unwrap().to_owned()
            })
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Without reads: a test that changes the stored records would make each of them wrong, too.
    fn unread() -> Run {
        let mut run = Run::good();
        run.ledger.views.clear();
        run
    }

    /// What is wrong if the last read lacks what it has to contain through `seq`.
    fn misses(&self, seq: u64, source: Promise, known_ns: u64) -> Violation {
        let view = self.ledger.views[3].clone();
        Violation::ViewMisses {
            view,
            seq,
            source,
            known_ns,
        }
    }

    fn outcome(&mut self, index: usize, outcome: Outcome) {
        self.ledger.operations[index].outcome = outcome;
    }
}

#[test]
fn a_good_run_is_good() {
    assert_eq!(Run::good().judge(), []);
    assert_eq!(max_holders(&Run::good().ledger), 1);
}

#[test]
fn point_1_a_lost_write() {
    let mut run = Run::unread();
    run.records.pop();
    assert_eq!(run.shown(), ["lost: ack_ns=450 agent=1 seq=4 write=2"]);
}

#[test]
fn point_1_a_duplicate() {
    let mut run = Run::unread();
    run.records.push(record(5, 1, 2));
    assert_eq!(run.shown(), ["duplicated: agent=1 seqs=[4,5] write=2"]);
}

#[test]
fn point_1_another_seq_than_acknowledged() {
    let mut run = Run::unread();
    run.outcome(3, acknowledgement(5, 450, false));
    run.ledger.durable_seen.clear();
    assert_eq!(
        run.shown(),
        ["misplaced: acknowledged_seq=5 agent=1 stored_seq=4 write=2"]
    );
}

#[test]
fn point_1_other_bytes() {
    for (from, to) in [
        ("\"t\"", "\"T\""),
        ("\"t\"", " \"t\""),
        ("\"ts\":2", "\"ts\":3"),
    ] {
        let mut run = Run::unread();
        run.records[3].events[0].json = event_json(1, 2).replace(from, to);
        assert_ne!(run.records[3].events[0].json, event_json(1, 2));
        assert_eq!(run.kinds(), ["altered"], "{from} {to}");
    }
}

#[test]
fn point_2_a_rejected_write_is_stored() {
    let mut run = Run::unread();
    run.outcome(3, rejected("full"));
    assert_eq!(run.kinds(), ["failed", "rejected_but_stored"]);
    run.records.pop();
    assert_eq!(run.kinds(), ["failed"]);
    run.ledger
        .environment_errors
        .push("the disk is full".into());
    assert_eq!(run.judge(), []);
}

#[test]
fn point_3_an_unknown_write_is_stored_at_most_once_and_whole() {
    let mut run = Run::unread();
    run.outcome(3, unknown(""));
    assert_eq!(run.judge(), []);
    run.records.push(record(5, 1, 2));
    assert_eq!(run.kinds(), ["duplicated"]);
    run.records.truncate(3);
    assert_eq!(run.judge(), []);
    let mut changed = record(4, 1, 2);
    changed.events[0].json.pop();
    run.records.push(changed);
    assert_eq!(run.kinds(), ["altered"]);
}

#[test]
fn point_3_an_unknown_write_that_was_seen_stays() {
    let mut run = Run::good();
    run.outcome(3, unknown(""));
    run.records.pop();
    assert_eq!(run.kinds(), ["view_differs"]);
}

#[test]
fn point_4_nothing_else_is_there() {
    for foreign in [record(5, 2, 1), record(5, 0, 3), record(5, 1, 3)] {
        let mut run = Run::unread();
        run.records.push(foreign);
        assert_eq!(run.kinds(), ["foreign"]);
    }
    let mut run = Run::unread();
    run.bad_lines = parsed("{\"seq\":5}".to_owned()).1;
    assert_eq!(run.kinds(), ["bad_bytes"]);
}

#[test]
fn point_5_the_numbers_have_no_gap_and_segments_are_named_after_them() {
    let mut run = Run::unread();
    run.records[3] = record(5, 1, 2);
    run.outcome(3, acknowledgement(5, 550, false));
    assert_eq!(run.kinds(), ["seq_gap"]);

    let mut run = Run::unread();
    run.records[2].place.file = format!("log-{:020}.jsonl", 3);
    run.records[3].place.file = format!("log-{:020}.jsonl", 3);
    assert_eq!(run.judge(), []);
    run.records[3].place.file = format!("log-{:020}.jsonl", 5);
    assert_eq!(run.kinds(), ["segment_name"]);
}

#[test]
fn point_6_an_agents_writes_in_its_order() {
    let mut run = Run::unread();
    run.records[0] = record(1, 0, 2);
    run.records[2] = record(3, 0, 1);
    // They overlap in time, so that only the agent's own order is broken.
    run.ledger.operations[0] = acknowledged(0, 1, 3);
    run.ledger.operations[2] = acknowledged(0, 2, 1);
    for operation in &mut run.ledger.operations {
        operation.invoke_ns = 100;
    }
    assert_eq!(run.kinds(), ["agent_order"]);
}

#[test]
fn point_7_after_an_acknowledgement_comes_a_higher_number() {
    let mut run = Run::unread();
    run.ledger.durable_seen.clear();
    // (1,2) at 4 was acknowledged at 450; (0,2) at 3 begins only then.
    run.ledger.operations[2].invoke_ns = 451;
    run.outcome(2, acknowledgement(3, 460, false));
    assert_eq!(
        run.shown(),
        ["real time order: ack_ns=450 acknowledged_seq=4 invoke_ns=451 seq=3"]
    );
    // The same for a write whose outcome is unknown, but which is stored.
    run.outcome(2, unknown(""));
    assert_eq!(run.kinds(), ["real_time_order"]);
    run.ledger.operations[2].invoke_ns = 450;
    assert_eq!(run.judge(), []);
}

#[test]
fn point_8_the_durable_number_never_falls() {
    let mut run = Run::unread();
    run.synced = false;
    run.ledger.durable_seen.push(durable(3, 453, 460));
    assert_eq!(run.kinds(), ["durable_fell"]);
    // Looks that overlap prove nothing.
    run.ledger.durable_seen[4].begin_ns = 452;
    assert_eq!(run.judge(), []);
}

#[test]
fn point_8_the_durable_number_covers_what_was_acknowledged_as_synced() {
    let mut run = Run::unread();
    run.ledger.durable_seen = vec![durable(3, 451, 452)];
    assert_eq!(run.kinds(), ["durable_behind_ack"]);
    run.synced = false;
    assert_eq!(run.judge(), []);
}

#[test]
fn point_9_reads_are_prefixes_of_one_order() {
    let mut run = Run::good();
    let mut other = run.records.clone();
    other.swap(0, 1);
    run.ledger.views[2].seen = Seen::Records(prefix(&other, 3));
    assert_eq!(run.kinds(), ["view_differs"]);

    let mut run = Run::good();
    let mut longer = run.records.clone();
    longer.push(record(5, 0, 3));
    run.ledger.views[3].seen = Seen::Records(prefix(&longer, 5));
    assert_eq!(run.kinds(), ["view_differs"]);
}

#[test]
fn point_9_reads_only_grow() {
    let mut run = Run::good();
    run.synced = false;
    run.ledger.durable_seen.clear();
    run.ledger.operations.clear();
    let misses = |run: &Run| {
        let expected = run.misses(3, Promise::EarlierRead, 260);
        run.judge().contains(&expected)
    };
    run.ledger.views[3].seen = Seen::Records(prefix(&run.records, 2));
    assert!(misses(&run));
    // A read of what is synced may end before one that went through the tail, but not the reverse.
    run.ledger.views[3].through_tail = false;
    assert!(!misses(&run));
    run.ledger.views[2].through_tail = false;
    assert!(misses(&run));
    run.ledger.views[3].through_tail = true;
    assert!(misses(&run));
    run.hints_were_lost = true;
    assert!(!misses(&run));
    run.hints_were_lost = false;
    // They overlap.
    run.ledger.views[3].begin_ns = 260;
    assert!(!misses(&run));
}

#[test]
fn point_10_a_read_contains_what_was_acknowledged_before_it() {
    let mut run = Run::good();
    run.ledger.durable_seen.clear();
    run.ledger.views[3].seen = Seen::Records(prefix(&run.records, 3));
    assert_eq!(run.judge(), [run.misses(4, Promise::Acknowledged, 450)]);
    run.ledger.views[3].begin_ns = 450;
    assert_eq!(run.judge(), []);
    // Of a buffered log, only a read through the tail has to.
    run.ledger.views[3].begin_ns = 451;
    run.ledger.views[3].through_tail = false;
    assert_eq!(run.kinds(), ["view_misses"]);
    run.synced = false;
    assert_eq!(run.judge(), []);
}

#[test]
fn a_read_contains_what_is_below_a_durable_number_seen_before_it() {
    let mut run = Run::good();
    run.synced = false;
    run.ledger.views[3].seen = Seen::Records(prefix(&run.records, 3));
    run.ledger.views[3].through_tail = false;
    assert_eq!(run.judge(), [run.misses(4, Promise::DurableSeen, 452)]);
    run.ledger.views[3].begin_ns = 452;
    assert_eq!(run.judge(), []);
}

#[test]
fn point_11_intervals_overlap() {
    let mut run = Run::good();
    // It lies in the first one, which is longer than the next one.
    run.ledger.holds[0].to_ns = 450;
    run.ledger.holds.truncate(2);
    run.ledger.holds.push(hold(1, 440, 460));
    let first = run.ledger.holds[0];
    assert_eq!(
        run.judge(),
        [
            Violation::HoldsOverlap {
                first,
                second: run.ledger.holds[1]
            },
            Violation::HoldsOverlap {
                first,
                second: run.ledger.holds[2]
            },
        ]
    );
    assert_eq!(max_holders(&run.ledger), 2);
    // One begins when the other ends.
    run.ledger.holds = vec![hold(0, 10, 20), hold(1, 20, 20), hold(0, 20, 30)];
    assert_eq!(run.judge(), []);
    assert_eq!(max_holders(&run.ledger), 1);
}

#[test]
fn point_11_a_second_holder_is_seen_unless_it_is_dead() {
    let mut run = Run::good();
    run.ledger.sightings.push(sighting(0, 200, 1));
    let found = [Violation::TwoHolders {
        agent: 0,
        other: 1,
        at_ns: 200,
    }];
    assert_eq!(run.judge(), found);
    assert_eq!(max_holders(&run.ledger), 2);
    // Somebody else was killed, or it was killed later, or was already gone, or ended by itself.
    for incarnation in [
        killed(0, 150, 250),
        killed(1, 201, 250),
        killed(1, 100, 199),
        Incarnation {
            end: End::Finished,
            ..killed(1, 150, 250)
        },
    ] {
        run.ledger.incarnations = vec![incarnation];
        assert_eq!(run.judge(), found);
    }
    run.ledger.incarnations = vec![killed(1, 150, 250)];
    assert_eq!(run.judge(), []);
    assert_eq!(max_holders(&run.ledger), 1);
}

#[test]
fn point_11_three_holders_are_three() {
    let mut run = Run::good();
    run.ledger.sightings = vec![sighting(0, 200, 1), sighting(0, 200, 2)];
    assert_eq!(max_holders(&run.ledger), 3);
}

#[test]
fn processes_that_end_badly() {
    let mut run = Run::good();
    let died = End::Died {
        status: "exit status: 101".into(),
    };
    run.ledger.incarnations = vec![Incarnation {
        killed_ns: None,
        end: died,
        ..killed(1, 0, 9)
    }];
    assert_eq!(run.kinds(), ["agent_died"]);
    run.ledger.incarnations = vec![Incarnation {
        killed_ns: None,
        end: End::Finished,
        left_holding: vec![1],
        ..killed(1, 0, 9)
    }];
    assert_eq!(run.kinds(), ["left_holding"]);

    let mut run = Run::good();
    run.ledger.fatal_errors.push("cannot open".into());
    run.ledger.protocol_errors.push("nonsense".into());
    assert_eq!(run.kinds(), ["agent_failed", "protocol"]);
}

#[test]
fn each_write_begins_exactly_once() {
    let mut run = Run::unread();
    run.ledger.operations.pop();
    run.records.pop();
    assert_eq!(run.shown(), ["never begun: agent=1 first_write=2 writes=1"]);

    let mut run = Run::unread();
    let again = run.ledger.operations[3].clone();
    run.ledger.operations.push(again);
    assert_eq!(run.kinds(), ["begun_twice"]);
}

#[test]
fn an_error_without_a_cause_is_a_violation() {
    let mut run = Run::unread();
    run.outcome(3, unknown("sync failed"));
    assert_eq!(run.kinds(), ["failed"]);
}

#[test]
fn a_violation_is_printed_with_its_evidence() {
    let violation = Violation::Lost {
        agent: 1,
        write: 2,
        seq: 4,
        ack_ns: 450,
    };
    assert_eq!(
        violation.to_string(),
        "lost: ack_ns=450 agent=1 seq=4 write=2"
    );
}

/// Two issues that two agents try to claim, each in its own order; agent 2 created them at 1.
/// Operation n runs from 100n to 100n + 50.
fn claiming() -> Run {
    let mut model = Model::default();
    let mut run = Run {
        keyed: true,
        claimed: 2,
        ..Run::of(Ledger::default(), Vec::new())
    };
    let order = [(2, 1), (0, 1), (1, 1), (0, 2), (1, 2)];
    for (number, (agent, write)) in (1..).zip(order) {
        let plan = match agent {
            2 => crate::evidence::workload::setup(2).remove(0),
            _ => crate::evidence::workload::claim(0, agent, 2, write, 2),
        };
        let seq = model.last_state().seq;
        let (invoke_ns, end_ns) = (number * 100, number * 100 + 50);
        let outcome = if let Some(refusal) = plan.refusal_at(&model, seq) {
            Outcome::Refused { refusal, end_ns }
        } else {
            let record = keyed_record(seq + 1, agent, write, &plan);
            let events = record.events.iter().map(|event| event.json.as_str());
            model.apply(seq + 1, events).unwrap();
            run.records.push(record);
            acknowledgement(seq + 1, end_ns, false)
        };
        run.ledger.plans.push((agent, write, plan));
        run.ledger.operations.push(Operation {
            agent,
            write,
            invoke_ns,
            outcome,
        });
    }
    run
}

fn keyed_record(seq: u64, agent: u32, write: u32, plan: &Plan) -> StoredRecord {
    let events = plan.events(&crate::evidence::ids::operation_key(agent, write));
    let event = match events.as_slice() {
        [event] => event.clone(),
        events => format!("{{\"batch\":[{}]}}", events.join(",")),
    };
    stored(seq, &event)
}

impl Run {
    /// The index of the first refused operation.
    fn refused(&self) -> usize {
        let mut operations = self.ledger.operations.iter();
        let refused = |operation: &Operation| matches!(operation.outcome, Outcome::Refused { .. });
        operations.position(refused).unwrap()
    }

    fn state(&self, seq: u64) -> StateDigest {
        Model::of(&self.records).unwrap().state(seq).unwrap()
    }

    /// A follower that got every record at 1,000 and later.
    fn follow(&mut self) {
        let entries = self.records.iter().map(|record| Entry::Record {
            at_ns: 1_000 + record.seq,
            live: true,
            line: record.line.clone(),
        });
        let entries = entries.collect();
        self.journals = vec![Journal { entries, bytes: 0 }];
    }
}

#[test]
fn claims_that_are_as_they_should_be() {
    let run = claiming();
    assert_eq!(run.judge(), []);
    assert_eq!((run.records.len(), run.ledger.operations.len()), (3, 5));
}

#[test]
fn point_2_a_refused_write_is_stored() {
    let mut run = claiming();
    let Operation { agent, write, .. } = run.ledger.operations[run.refused()];
    let plans = run.ledger.plans.clone();
    let (.., plan) = plans
        .iter()
        .find(|plan| (plan.0, plan.1) == (agent, write))
        .unwrap();
    run.records.push(keyed_record(4, agent, write, plan));
    let kinds = ["condition_broken", "not_claimed_once", "refused_but_stored"];
    assert_eq!(run.kinds(), kinds);
}

#[test]
fn a_write_that_was_interrupted_is_made_again_and_stored_once() {
    let mut run = claiming();
    let interrupted = Operation {
        invoke_ns: 195,
        outcome: unknown(""),
        ..run.ledger.operations[1].clone()
    };
    run.ledger.operations.insert(1, interrupted);
    let repeated = acknowledgement(2, 250, true);
    run.outcome(2, repeated.clone());
    assert_eq!(run.judge(), []);
    run.keyed = false;
    assert_eq!(run.kinds(), ["begun_twice"]);
    run.keyed = true;
    run.ledger.operations.remove(1);
    run.outcome(1, repeated);
    assert_eq!(run.kinds(), ["repeated_at_first"]);
}

#[test]
fn a_store_that_fails_at_times_is_asked_until_the_outcome_is_known() {
    let mut run = claiming();
    run.shows = Shows::ETCD;
    let attempt = |run: &Run, outcome| Operation {
        invoke_ns: 195,
        outcome,
        ..run.ledger.operations[1].clone()
    };
    let unknown = attempt(&run, unknown("no answer"));
    let rejected = attempt(&run, rejected("no answer"));
    let repeated = acknowledgement(2, 250, true);
    let ending = |before: &[&Operation], last: Option<&Outcome>| {
        let mut run = claiming();
        run.shows = Shows::ETCD;
        let own = run.ledger.operations.remove(1);
        let last = last.map(|outcome| Operation {
            outcome: outcome.clone(),
            ..own.clone()
        });
        let all = before.iter().copied().cloned().chain(last);
        run.ledger.operations.splice(1..1, all);
        run.kinds()
    };
    let none: [&str; 0] = [];
    assert_eq!(ending(&[&unknown], Some(&repeated)), none);
    assert_eq!(ending(&[&rejected, &unknown], Some(&repeated)), none);
    assert_eq!(ending(&[&rejected], Some(&own_answer(&run))), none);
    // What was rejected is stored.
    let kinds = ["repeated_at_first"];
    assert_eq!(ending(&[&rejected], Some(&repeated)), kinds);
    let kinds = ["never_begun", "rejected_but_stored"];
    assert_eq!(ending(&[&rejected], None), kinds);
    // The last attempt did not arrive, and the one before it did.
    assert_eq!(ending(&[&unknown, &rejected], None), ["never_begun"]);
}

fn own_answer(run: &Run) -> Outcome {
    run.ledger.operations[1].outcome.clone()
}

#[test]
fn numbers_of_a_store_on_etcd_may_have_gaps() {
    let mut run = claiming();
    // Everything is renumbered: record n becomes 10 n.
    let sparse = |seq: u64| seq * 10;
    for record in &mut run.records {
        let seq = sparse(record.seq);
        let event = match record.events.as_slice() {
            [event] => event.json.clone(),
            _ => format!("{{\"batch\":[{}]}}", record.text()),
        };
        record.line = fabricate_line(seq, &event).into_bytes();
        record.seq = seq;
    }
    for operation in &mut run.ledger.operations {
        match &mut operation.outcome {
            Outcome::Acknowledged { seq, .. } => *seq = sparse(*seq),
            Outcome::Refused {
                refusal: Refusal::VersionMismatch { found, .. },
                ..
            } => *found = found.map(sparse),
            outcome => panic!("{outcome:?}"),
        }
    }
    run.follow();
    assert_eq!(run.kinds(), ["segment_name", "seq_gap"]);
    run.shows = Shows::ETCD;
    assert_eq!(run.judge(), []);
    // A follower must not leave out a record all the same.
    run.journals[0].entries.remove(1);
    assert_eq!(run.kinds(), ["journal_differs"]);
}

#[test]
fn a_refusal_needs_a_reason_at_a_moment_of_the_call() {
    let mut run = claiming();
    let refused = run.refused();
    let told = run.ledger.operations[refused].outcome.clone();
    let Outcome::Refused { refusal, end_ns } = told.clone() else {
        panic!("{told:?}")
    };
    let Refusal::VersionMismatch {
        id, issue, found, ..
    } = refusal
    else {
        panic!("{refusal:?}")
    };
    for (found, issue) in [(Some(1), issue.clone()), (found, None), (None, issue)] {
        let refusal = Refusal::VersionMismatch {
            id: id.clone(),
            expected: None,
            found,
            issue,
        };
        run.outcome(refused, Outcome::Refused { refusal, end_ns });
        assert_eq!(run.kinds(), ["unfounded_refusal"]);
    }
    // It was over before anybody claimed anything.
    run.outcome(refused, told);
    run.ledger.operations[refused].invoke_ns = 160;
    if let Outcome::Refused { end_ns, .. } = &mut run.ledger.operations[refused].outcome {
        *end_ns = 170;
    }
    assert!(run.kinds().contains(&"unfounded_refusal".to_owned()));
}

#[test]
fn every_issue_of_the_pool_is_claimed() {
    let mut run = claiming();
    run.claimed = 3;
    let id = pool_id(2);
    let seqs = Vec::new();
    assert_eq!(run.judge(), [Violation::NotClaimedOnce { id, seqs }]);
}

#[test]
fn points_9_and_10_states_are_those_that_the_records_lead_to() {
    let mut run = claiming();
    let view = |begin_ns, state| View {
        reader: "reader 1".into(),
        begin_ns,
        end_ns: begin_ns + 5,
        through_tail: false,
        seen: Seen::State(state),
    };
    run.ledger.views = vec![view(151, run.state(1)), view(900, run.state(3))];
    assert_eq!(run.judge(), []);
    run.ledger.views[1].seen = Seen::State(run.state(2));
    assert_eq!(run.kinds(), ["view_misses"]);
    let changes: [fn(&mut StateDigest); 4] = [
        |state| state.digest ^= 1,
        |state| state.issues += 1,
        |state| state.without_effect += 1,
        |state| state.seq = 9,
    ];
    for change in changes {
        let mut state = run.state(3);
        change(&mut state);
        run.ledger.views[1].seen = Seen::State(state);
        assert_eq!(run.kinds(), ["view_differs"]);
    }
}

#[test]
fn point_9_only_a_snapshot_takes_the_place_of_the_first_records() {
    let mut run = Run::good();
    let behind = Prefix::behind(2).with(3, &run.records[2].line);
    run.ledger.views[2].seen = Seen::Records(behind);
    assert_eq!(run.kinds(), ["view_differs"]);
    run.snapshot_seqs = BTreeSet::from([2]);
    assert_eq!(run.judge(), []);
    let other = Prefix::behind(2).with(3, &run.records[1].line);
    run.ledger.views[2].seen = Seen::Records(other);
    assert_eq!(run.kinds(), ["view_differs"]);
}

#[test]
fn points_8_and_9_followers_get_every_record_in_its_order() {
    let mut run = claiming();
    run.follow();
    assert_eq!(run.judge(), []);
    run.journals[0].entries.swap(0, 1);
    assert_eq!(run.kinds(), ["journal_differs"]);
    run.follow();
    run.journals[0].entries.remove(1);
    assert_eq!(run.kinds(), ["journal_differs"]);
    run.follow();
    let again = run.journals[0].entries[2].clone();
    run.journals[0].entries.push(again);
    assert_eq!(run.kinds(), ["journal_differs"]);
    run.follow();
    let other = keyed_record(3, 0, 1, &run.ledger.plans[1].2);
    if let Entry::Record { line, .. } = &mut run.journals[0].entries[2] {
        *line = other.line;
    }
    assert_eq!(run.kinds(), ["journal_differs"]);
    run.follow();
    run.journals[0].entries.pop();
    assert_eq!(run.kinds(), ["follower_behind"]);
    // Where the power went, nobody had to be done.
    run.complete = false;
    assert_eq!(run.judge(), []);
    run.complete = true;
    run.follow();
    run.ledger.durable_seen = vec![durable(2, 2_000, 2_001)];
    assert_eq!(run.kinds(), ["durable_behind_ack", "durable_fell"]);
}

#[test]
fn a_follower_that_comes_too_late_gets_a_snapshot_that_goes_as_far_as_needed() {
    let mut run = claiming();
    run.snapshot_seqs = BTreeSet::from([2]);
    run.follow();
    let record = run.journals[0].entries.remove(2);
    let gap = |from_seq, snapshot_seq, loaded| Entry::Gap {
        from_seq,
        snapshot_seq,
        loaded,
    };
    let right = gap(1, 2, run.state(2));
    run.journals[0].entries = vec![right.clone(), record.clone()];
    assert_eq!(run.judge(), []);
    let mut other = run.state(2);
    other.digest ^= 1;
    for wrong in [
        gap(2, 2, run.state(2)),
        gap(1, 0, run.state(2)),
        gap(1, 2, run.state(1)),
        gap(1, 1, run.state(2)),
        gap(1, 2, other),
    ] {
        run.journals[0].entries = vec![wrong, record.clone()];
        assert_eq!(run.kinds(), ["journal_differs"]);
    }
    run.journals[0].entries = vec![right];
    assert_eq!(run.kinds(), ["follower_behind"]);
}

#[test]
fn point_12_a_compaction_that_was_reported_left_a_snapshot() {
    let mut run = claiming();
    run.ledger.compactions = vec![crate::evidence::ledger::CompactionSeen {
        begin_ns: 1,
        end_ns: 2,
        outcome: Compacting::Done {
            seq: 2,
            bytes: 9,
            lock_held_ns: 1,
        },
    }];
    assert_eq!(run.kinds(), ["snapshot_differs"]);
    run.snapshot_seqs = BTreeSet::from([2]);
    assert_eq!(run.judge(), []);
}

#[test]
fn a_batch_in_part_is_named_and_a_whole_one_or_none_is_not() {
    let mut run = Run::good();
    run.beside.batches = vec![(0, 1, 2), (1, 2, 3), (1, 7, 9)];
    assert_eq!(run.kinds(), ["batch_in_part"]);
    let found = run.judge();
    let missing = [Violation::BatchInPart {
        agent: 1,
        write: 2,
        stored: vec![2],
        missing: vec![3],
    }];
    assert_eq!(found, missing);
}

#[test]
fn a_follower_is_shown_everything_once_in_order_and_nothing_else() {
    let shown = |order: &[usize], more: &[StoredRecord]| {
        let mut run = Run::good();
        let records = order.iter().map(|&at| run.records[at].clone());
        run.beside.followed = Some(records.chain(more.iter().cloned()).collect());
        run
    };
    assert_eq!(shown(&[0, 1, 2, 3], &[]).kinds(), Vec::<String>::new());
    assert_eq!(shown(&[0, 1, 3], &[]).kinds(), ["follower_missed"]);
    assert_eq!(shown(&[0, 1, 1, 2, 3], &[]).kinds(), ["follower_twice"]);
    assert_eq!(shown(&[0, 2, 1, 3], &[]).kinds(), ["follower_order"]);
    let foreign = record(5, 7, 7);
    let only = shown(&[0, 1, 2, 3], &[foreign]);
    assert_eq!(only.kinds(), ["follower_only"]);
    let mut early = shown(&[0, 1], &[]);
    early.complete = false;
    assert_eq!(early.kinds(), Vec::<String>::new());
    // One that the list has twice may be shown twice.
    let mut twice = shown(&[0, 1, 2, 3, 3], &[]);
    twice.records.push(record(5, 1, 2));
    assert!(!twice.kinds().contains(&"follower_twice".to_owned()));
}
