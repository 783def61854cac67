use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use strand_core::{Batch, Compacted, Issue, IssueEvent, Issues, Patch, Seq, backend::Backend as _};
use strand_etcd::{EtcdLog, Options, testing::Nodes};

use crate::{NOW, open, open_with};

fn add(n: u64) -> IssueEvent {
    IssueEvent::add(
        Issue::new_at(&format!("bd-{n}"), &"x".repeat(2000), NOW),
        NOW,
    )
}

#[test]
fn the_state_is_the_same_before_and_after() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open_with(&nodes, "s", Options::default().compact_after_records(400));
    assert_eq!(log.compact().unwrap(), Compacted::NothingNew);
    for n in 0..400 {
        assert!(!log.compaction_due().unwrap() || n == 400);
        log.append(&add(n % 350).with_key(format!("k{n}"))).unwrap();
    }
    assert!(log.compaction_due().unwrap());
    // A moment ago, so that it is not forgotten yet.
    log.commit(&Batch::new().delete("bd-7")).unwrap();
    let before = log.issues().unwrap();
    let Compacted::Done {
        seq, entries: 349, ..
    } = log.compact().unwrap()
    else {
        panic!("it was due");
    };
    assert_eq!(seq, before.last_seq());
    assert_eq!(log.compact().unwrap(), Compacted::NothingNew);
    assert!(!log.compaction_due().unwrap());
    assert!(log.issues().unwrap() == before);
    let fresh = open(&nodes, "s");
    assert!(fresh.issues().unwrap() == before);
    // Keys and versions survive.
    assert!(fresh.append(&add(3).with_key("k3")).unwrap().repeated);
    let version = before.version("bd-9").unwrap();
    fresh
        .update_if(Issue::new_at("bd-9", "T", NOW), version)
        .unwrap();
    assert!(
        log.update_if(Issue::new_at("bd-9", "U", NOW), version)
            .unwrap_err()
            .is_conflict()
    );
}

#[test]
fn old_keys_and_tombstones_are_forgotten_and_only_they() {
    let Some(nodes) = Nodes::start(1) else { return };
    let options = || Options::default().idempotency_keys(2).tombstone_ms(0);
    let log = open_with(&nodes, "s", options());
    for n in 0..5 {
        log.append(&add(n).with_key(format!("k{n}"))).unwrap();
    }
    log.commit(&Batch::at(NOW).key("gone").delete("bd-1"))
        .unwrap();
    log.compact().unwrap();
    let state = open(&nodes, "s").issues().unwrap();
    assert_eq!((state.key("k3"), state.version("bd-1")), (None, None));
    assert!(state.key("k4").is_some() && state.key("gone").is_some());
    let again = log.append(&add(3).with_key("k3")).unwrap();
    assert!(!again.repeated && log.append(&add(4).with_key("k4")).unwrap().repeated);
    // A writer that has not looked since sees that the issue is gone.
    log.create(Issue::new_at("bd-1", "again", NOW)).unwrap();
}

#[test]
fn a_writer_looks_again_after_a_compaction_and_not_after_an_epoch() {
    let Some(nodes) = Nodes::start(1) else { return };
    let options = || Options::default().epoch_revisions(16).tombstone_ms(0);
    let (log, other) = (open(&nodes, "s"), open_with(&nodes, "s", options()));
    let create = |log: &EtcdLog, id: &str| {
        let before = log.round_trips();
        log.create(Issue::new_at(id, "T", NOW)).unwrap();
        log.round_trips() - before
    };
    create(&log, "a");
    create(&log, "b");
    let begun = log.epoch();
    for n in 0..100 {
        other.append(&add(n)).unwrap();
    }
    assert!(other.epoch() > begun, "epoch {}", other.epoch());
    // It learns the epoch, and reads none of its records.
    assert_eq!([create(&log, "c"), create(&log, "d")], [2, 1]);

    other.commit(&Batch::at(NOW).delete("a")).unwrap();
    other
        .commit(&Batch::at(NOW).patch("b", Patch::new().add_label("x")))
        .unwrap();
    other.compact().unwrap();
    // Nothing in etcd says any more that there was an issue `a`.
    let missing = log.patch("a", Patch::new().add_label("y")).unwrap_err();
    assert!(missing.is_no_such_issue(), "{missing}");
    log.patch("b", Patch::new().add_label("y")).unwrap();
    // Epochs that begin later do not hide the compaction.
    let (late, begun) = (open(&nodes, "s"), other.epoch());
    late.with_issues(Issues::last_seq).unwrap();
    other.commit(&Batch::at(NOW).delete("c")).unwrap();
    other.compact().unwrap();
    for n in 0..100 {
        other.append(&add(n)).unwrap();
    }
    assert!(other.epoch() > begun + 1, "epoch {}", other.epoch());
    let missing = late.patch("c", Patch::new().add_label("y")).unwrap_err();
    assert!(missing.is_no_such_issue(), "{missing}");
}

#[test]
fn writers_and_readers_go_on_beside_compactions() {
    const WRITERS: u64 = 3;
    let Some(nodes) = Nodes::start(1) else { return };
    let options = || Options::default().epoch_revisions(64);
    let log = open_with(&nodes, "s", options());
    let done = AtomicBool::new(false);
    let (mut records, compactions) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let nodes = &nodes;
                scope.spawn(move || {
                    let log = open_with(nodes, "s", options());
                    let id = format!("w{writer}");
                    log.create(Issue::new_at(&id, "T", NOW)).unwrap();
                    (0..100_u64)
                        .map(|n| {
                            let version = log
                                .with_issues(|issues| issues.version(&id))
                                .unwrap()
                                .unwrap();
                            let patch = Patch::new().append("n", &n).unwrap();
                            let receipt = if n % 3 == 0 {
                                log.append(&IssueEvent::patch(&id, patch, NOW)).unwrap()
                            } else {
                                log.commit(&Batch::at(NOW).patch_if(&id, version, patch))
                                    .unwrap()
                            };
                            receipt.seq
                        })
                        .collect::<Vec<Seq>>()
                })
            })
            .collect();
        let compactors: Vec<_> = (0..2)
            .map(|_| {
                let (nodes, done) = (&nodes, &done);
                scope.spawn(move || {
                    let log = open_with(nodes, "s", options());
                    let mut compactions = 0;
                    while !done.load(Ordering::Relaxed) {
                        compactions +=
                            u64::from(matches!(log.compact().unwrap(), Compacted::Done { .. }));
                        thread::sleep(Duration::from_millis(20));
                    }
                    compactions
                })
            })
            .collect();
        let records: Vec<Seq> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect();
        done.store(true, Ordering::Relaxed);
        (
            records,
            compactors
                .into_iter()
                .map(|compactor| compactor.join().unwrap())
                .sum::<u64>(),
        )
    });
    assert!(compactions >= 3, "{compactions}");
    records.sort();
    records.dedup();
    assert_eq!(records.len(), 100 * 3);
    let check = |issues: &Issues| {
        for writer in 0..WRITERS {
            let issue = issues.get(&format!("w{writer}")).unwrap();
            let appended: Vec<u64> = issue.field("n").unwrap();
            assert_eq!(appended, (0..100).collect::<Vec<u64>>());
        }
        assert_eq!(issues.last_seq(), *records.last().unwrap());
    };
    log.with_issues(check).unwrap();
    log.compact().unwrap();
    check(&open(&nodes, "s").issues().unwrap());
}
