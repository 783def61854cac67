use std::thread;

use strand_core::{
    Batch, CommitError, Error, InvalidEvent, Issue, IssueEvent, Issues, Outcome, Patch, Seq,
    Version, backend::Backend,
};
use strand_etcd::{BATCH_ISSUES_MAX, Options, PAYLOAD_BYTES_MAX, testing::Nodes};

use crate::{NOW, open, open_with};

fn issue(id: &str) -> Issue {
    Issue::new_at(id, "Mend the fence", NOW)
}

#[test]
fn writes_are_stored_once_in_one_order_and_with_one_round_trip() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open(&nodes, "s");
    let first = log.create(issue("a")).unwrap();
    let second = log.append(&IssueEvent::close("a", NOW)).unwrap();
    assert!(second.seq > first.seq);
    assert_eq!(
        log.with_issues(|issues| issues.version("a")).unwrap(),
        Some(second.version())
    );

    // A write with condition and key.
    let before = log.round_trips();
    let batch = Batch::at(NOW).key("k").create(issue("b")).patch_if(
        "a",
        second.version(),
        Patch::new().add_label("x"),
    );
    let third = log.commit(&batch).unwrap();
    assert_eq!(log.round_trips() - before, 1);
    let again = log.commit(&batch).unwrap();
    assert_eq!((again.seq, again.repeated), (third.seq, true));
    // Its own writes do not make it stale.
    let before = log.round_trips();
    log.patch("b", Patch::new().add_label("y")).unwrap();
    log.update_if(issue("a"), third.version()).unwrap();
    log.append(&IssueEvent::reopen("b", NOW)).unwrap();
    assert_eq!(log.round_trips() - before, 3);

    // Another process sees the same, and finds the key.
    let other = open(&nodes, "s");
    assert!(other.issues().unwrap() == log.issues().unwrap());
    assert_eq!(other.commit(&batch).unwrap().seq, third.seq);
    // A key belongs to one operation, whether the state is known or not.
    let close = Batch::at(NOW).key("k").close("b");
    for log in [&other, &open(&nodes, "s")] {
        let reused = log.commit(&close).unwrap_err();
        assert!(matches!(reused, CommitError::KeyReused { .. }), "{reused}");
    }
    let reused = other.append(&IssueEvent::close("b", NOW).with_key("k"));
    assert!(matches!(reused, Err(Error::InvalidEvent(_))), "{reused:?}");
}

#[test]
fn a_conflict_shows_the_issue_as_it_is() {
    let Some(nodes) = Nodes::start(1) else { return };
    let (log, other) = (open(&nodes, "s"), open(&nodes, "s"));
    let version = log.create(issue("a")).unwrap().version();
    other.claim("a", "agent-1").unwrap();
    let conflict = |result: Result<_, CommitError>| match result {
        Err(CommitError::Conflict(conflict)) => conflict,
        other => panic!("{other:?}"),
    };
    // The state of `log` is older than the claim.
    let late = conflict(log.claim("a", "agent-2"));
    assert_eq!(late.issue.unwrap().assignee().as_deref(), Some("agent-1"));
    let stale = conflict(log.update_if(issue("a"), version));
    assert!(stale.version.unwrap() > version);
    conflict(log.create(issue("a")));
    conflict(log.update_if(issue("zz"), Version::new(7)));
    conflict(log.commit(&Batch::at(NOW).create(issue("b")).require_absent("a")));
    // What was refused here is allowed once another has made way.
    other.commit(&Batch::at(NOW).delete("a")).unwrap();
    log.create(issue("a")).unwrap();
    assert!(log.with_issues(|issues| issues.get("b").is_none()).unwrap());

    other
        .patch("a", Patch::new().set("x", &7).unwrap())
        .unwrap();
    let invalid = log.patch("a", Patch::new().append("x", &7).unwrap());
    let Err(CommitError::Log(Error::InvalidEvent(InvalidEvent::NotAnArray { .. }))) = invalid
    else {
        panic!("{invalid:?}");
    };
}

#[test]
fn each_issue_is_claimed_once() {
    const ISSUES: u64 = 20;
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open(&nodes, "s");
    let make = |n| IssueEvent::add(issue(&format!("bd-{n}")), NOW);
    log.append_batch(&(0..ISSUES).map(make).collect::<Vec<_>>())
        .unwrap();
    let won: Vec<String> = thread::scope(|scope| {
        let agents: Vec<_> = (0..8)
            .map(|agent| {
                let nodes = &nodes;
                scope.spawn(move || {
                    let log = open(nodes, "s");
                    let name = format!("agent-{agent}");
                    let won = (0..ISSUES).map(|n| format!("bd-{}", (n + agent * 3) % ISSUES));
                    won.filter(|id| match log.claim(id, &name) {
                        Ok(_) => true,
                        Err(CommitError::Conflict(_)) => false,
                        Err(error) => panic!("{error}"),
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        agents
            .into_iter()
            .flat_map(|agent| agent.join().unwrap())
            .collect()
    });
    let mut ids = won.clone();
    ids.sort();
    ids.dedup();
    assert_eq!((won.len(), ids.len()), (20, 20));
}

#[test]
fn records_are_replayed_alike_whatever_the_epoch() {
    let Some(nodes) = Nodes::start(1) else { return };
    let options = || Options::default().epoch_revisions(16);
    let (log, reader) = (open_with(&nodes, "s", options()), open(&nodes, "s"));
    let mut expected = Issues::default();
    for n in 0..120 {
        let event = IssueEvent::add(issue(&format!("bd-{}", n % 7)), NOW).with_key(format!("k{n}"));
        let receipt = log.append(&event).unwrap();
        expected.apply(receipt.seq, [event]);
        if n % 40 == 3 {
            reader
                .with_issues(|issues| assert!(*issues == expected))
                .unwrap();
        }
    }
    assert!(log.epoch() > 3, "epoch {}", log.epoch());
    assert!(reader.issues().unwrap() == expected);
    assert!(open(&nodes, "s").issues().unwrap() == expected);
}

#[test]
fn large_records_are_stored_and_too_large_ones_refused() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open(&nodes, "s");
    let reader = open(&nodes, "s");
    assert_eq!(reader.issues().unwrap().len(), 0);
    let large = |id: &str, bytes: usize| issue(id).with("description", &"x".repeat(bytes)).unwrap();
    for n in 0..12 {
        log.create(large(&format!("bd-{n}"), PAYLOAD_BYTES_MAX - 1000))
            .unwrap();
    }
    // More than one answer of the gateway may have.
    assert_eq!(reader.issues().unwrap().len(), 12);
    assert_eq!(open(&nodes, "s").issues().unwrap().len(), 12);
    let refused = log.create(large("e", PAYLOAD_BYTES_MAX)).unwrap_err();
    assert!(
        matches!(refused, CommitError::Log(Error::RecordTooLarge { .. })),
        "{refused}"
    );
    assert_eq!(refused.outcome(), Outcome::Rejected);
    let many = |count| {
        let ids = (0..count).map(|n| format!("many-{n}"));
        ids.fold(Batch::at(NOW), |batch, id| batch.create(issue(&id)))
    };
    log.commit(&many(BATCH_ISSUES_MAX)).unwrap();
    let refused = log.commit(&many(BATCH_ISSUES_MAX + 1)).unwrap_err();
    assert!(refused.to_string().contains("invalid event"), "{refused}");
}

#[test]
fn stores_of_one_cluster_do_not_see_each_other() {
    let Some(nodes) = Nodes::start(1) else { return };
    let (one, two) = (open(&nodes, "team"), open(&nodes, "team2"));
    one.create(issue("a")).unwrap();
    two.create(issue("a")).unwrap();
    let (id, _) = Backend::create_new(&two, "bd", &mut |id| Ok(issue(id))).unwrap();
    assert!(id.starts_with("bd-"));
    assert_eq!(
        (one.issues().unwrap().len(), two.issues().unwrap().len()),
        (1, 2)
    );
    assert_eq!(
        one.issues().unwrap().last_seq(),
        Seq::new(one.issues().unwrap().version("a").unwrap().get())
    );
}
