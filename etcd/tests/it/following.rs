use std::{
    thread,
    time::{Duration, Instant},
};

use strand_core::{Error, Issue, IssueEvent, Seq};
use strand_etcd::{EtcdFollower, testing::Nodes};

use crate::{NOW, open};

fn add(n: u64) -> IssueEvent {
    IssueEvent::add(Issue::new_at(&format!("bd-{n}"), "Mend", NOW), NOW)
}

fn next(follower: &mut EtcdFollower) -> Option<Seq> {
    let deadline = Instant::now() + Duration::from_secs(20);
    follower
        .next_before(deadline)
        .unwrap()
        .map(|record| record.seq)
}

#[test]
fn a_follower_sees_each_record_once_and_soon() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open(&nodes, "s");
    let mut written: Vec<Seq> = (0..5).map(|n| log.append(&add(n)).unwrap().seq).collect();
    let mut follower = log.follow(Seq::new(1)).unwrap();
    let mut seen: Vec<Seq> = (0..5).map(|_| next(&mut follower).unwrap()).collect();
    assert!(follower.try_next().unwrap().is_none());
    let started = Instant::now();
    assert!(
        follower
            .next_before(started + Duration::from_millis(100))
            .unwrap()
            .is_none()
    );
    assert!(started.elapsed() >= Duration::from_millis(100));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let log = &log;
                scope.spawn(move || {
                    let events = (0..50).map(|n| add(100 + writer * 100 + n));
                    events
                        .map(|event| log.append(&event).unwrap().seq)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        seen.extend((0..150).map(|_| next(&mut follower).unwrap()));
        written.extend(
            writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap()),
        );
    });
    written.sort();
    assert_eq!(seen, written);
    // Awake, it is there within moments.
    let (sent, receipt) = (Instant::now(), log.append(&add(999)).unwrap());
    assert_eq!(next(&mut follower), Some(receipt.seq));
    assert!(
        sent.elapsed() < Duration::from_secs(3),
        "{:?}",
        sent.elapsed()
    );

    // From the middle.
    let mut late = log.follow(written[70]).unwrap();
    assert_eq!(next(&mut late), Some(written[70]));
    assert_eq!(next(&mut late), Some(written[71]));
}

#[test]
fn a_record_that_was_compacted_away_is_an_error() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = open(&nodes, "s");
    for n in 0..5 {
        log.append(&add(n)).unwrap();
    }
    let mut behind = log.follow(Seq::new(1)).unwrap();
    let mut even = log.follow(Seq::new(1)).unwrap();
    for _ in 0..5 {
        next(&mut even);
    }
    log.compact().unwrap();
    let receipt = log.append(&add(9)).unwrap();
    // One that had read everything goes on, and one that had its records in memory, too.
    assert_eq!(next(&mut even), Some(receipt.seq));
    let seen: Vec<_> = (0..6).map(|_| next(&mut behind).unwrap()).collect();
    assert_eq!(seen.last(), Some(&receipt.seq));
    let Err(Error::Compacted {
        from_seq: 1,
        snapshot_seq,
        ..
    }) = log.follow(Seq::new(1))
    else {
        panic!("it is gone");
    };
    let mut next_one = log.follow(Seq::new(snapshot_seq + 1)).unwrap();
    assert_eq!(next(&mut next_one), Some(receipt.seq));
}
