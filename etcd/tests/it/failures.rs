use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use strand_core::{
    Batch, CommitError, Error, Issue, IssueEvent, Outcome, Seq, Version, backend::Backend as _,
};
use strand_etcd::{Options, testing::Nodes};

use crate::{NOW, open, open_with};

fn add(id: &str) -> IssueEvent {
    IssueEvent::add(Issue::new_at(id, "Mend", NOW), NOW)
}

/// Agents go on while the leader is killed or stopped, again and again. All that was acknowledged
/// is stored once, and what was rejected is not.
#[test]
fn nothing_is_lost_when_leaders_die_or_stop() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    let address = nodes.address("s");
    open(&nodes, "s");
    let done = AtomicBool::new(false);
    let told: Mutex<BTreeMap<String, Result<Seq, Outcome>>> = Mutex::default();
    let longest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for agent in 0..3 {
            let (address, done, told, longest) = (&address, &done, &told, &longest);
            scope.spawn(move || {
                let options = Options::default().timeout(Duration::from_secs(20));
                let (log, _) =
                    strand_etcd::EtcdLog::open_or_create(&address.parse().unwrap(), options)
                        .unwrap();
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    let id = format!("w{agent}-{n}");
                    n += 1;
                    let started = Instant::now();
                    let result = if n % 2 == 0 {
                        log.append(&add(&id).with_key(id.clone()))
                            .map_err(|error| error.outcome())
                    } else {
                        let batch = Batch::at(NOW)
                            .key(id.clone())
                            .event(add(&id))
                            .require_absent(&id);
                        log.commit(&batch).map_err(|error| error.outcome())
                    };
                    let mut longest = longest.lock().unwrap();
                    *longest = started.elapsed().max(*longest);
                    told.lock()
                        .unwrap()
                        .insert(id, result.map(|receipt| receipt.seq));
                }
            });
        }
        for round in 0..4 {
            thread::sleep(Duration::from_millis(700));
            nodes.await_leader();
            let Some(leader) = nodes.leader() else {
                continue;
            };
            if round % 2 == 0 {
                nodes.kill(leader);
                thread::sleep(Duration::from_secs(3));
                nodes.restart(leader);
            } else {
                nodes.signal(leader, "STOP");
                thread::sleep(Duration::from_secs(4));
                nodes.signal(leader, "CONT");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let told = told.into_inner().unwrap();
    let state = open(&nodes, "s").issues().unwrap();
    for (id, result) in &told {
        let found = state.version(id).map(Version::get);
        match result {
            Ok(seq) => assert_eq!(found, Some(seq.get()), "{id}"),
            Err(Outcome::Rejected) => assert_eq!(found, None, "{id}"),
            Err(Outcome::Unknown) => {}
        }
    }
    assert!(state.iter().all(|(id, _)| told.contains_key(id)));
    let stored = told.values().filter(|result| result.is_ok()).count();
    assert!(stored > 50, "{stored}");
    let longest = longest.into_inner().unwrap();
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

#[test]
fn a_write_without_a_majority_is_unknown_and_repeatable() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    let options = || {
        let options = Options::default().timeout(Duration::from_secs(3));
        options.attempt_timeout(Duration::from_millis(700))
    };
    let log = open_with(&nodes, "s", options());
    let first = log.create(Issue::new_at("a", "T", NOW)).unwrap();
    nodes.kill(1);
    nodes.kill(2);
    let batch = Batch::at(NOW).create(Issue::new_at("b", "T", NOW));
    let started = Instant::now();
    let error = log.commit(&batch).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(6));
    let CommitError::Log(Error::Unavailable {
        key: Some(key),
        outcome: Outcome::Unknown,
        ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert!(log.with_issues(|_| ()).is_err());
    nodes.restart(1);
    nodes.restart(2);
    nodes.await_leader();
    let log = open(&nodes, "s");
    let receipt = log.commit(&batch.key(key)).unwrap();
    assert!(receipt.seq > first.seq);
    let stored = log.issues().unwrap();
    assert_eq!(stored.version("b"), Some(receipt.version()));
    let mut follower = log.follow(Seq::new(1)).unwrap();
    for expected in [first.seq, receipt.seq] {
        let deadline = Instant::now() + Duration::from_secs(10);
        assert_eq!(
            follower.next_before(deadline).unwrap().unwrap().seq,
            expected
        );
    }
    assert!(follower.try_next().unwrap().is_none());
}

#[test]
fn a_follower_goes_on_when_its_node_stops_or_dies() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    let log = open(&nodes, "s");
    let mut follower = log.follow(Seq::new(1)).unwrap();
    let mut written = Vec::new();
    let mut seen = Vec::new();
    for round in 0..3_usize {
        written.push(log.append(&add(&format!("r{round}"))).unwrap().seq);
        if round == 1 {
            nodes.signal(round, "STOP");
        } else {
            nodes.kill(round);
        }
        written.push(log.append(&add(&format!("s{round}"))).unwrap().seq);
        while seen.len() < written.len() {
            let deadline = Instant::now() + Duration::from_secs(30);
            seen.push(
                follower
                    .next_before(deadline)
                    .unwrap()
                    .expect("it was written")
                    .seq,
            );
        }
        nodes.signal(round, "CONT");
        nodes.restart(round);
        nodes.await_leader();
    }
    assert_eq!(seen, written);
}
