//! Following a log, and keeping a state up with it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use strand_core::{
    CommitError, Durability, Error, Issue, IssueEvent, Issues, LiveIssues, Log, Options, Reader,
    Seq, testing::Storage,
};

use crate::support::{
    Mortal, Recorder, TS, append_numbered, as_child, child, event, finish, first_segment,
    line_ends, open, open_issues, options,
};

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

#[test]
fn a_follower_sees_every_record_once_across_rotation_and_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(dir.path(), options().segment_bytes_max(300)).unwrap();
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut follower = reader.follow(Seq::new(1)).unwrap();
    for number in 1..=60 {
        log.append(&event(&format!("bd-{number}"))).unwrap();
        let record = follower.next_before(soon()).unwrap().unwrap();
        assert_eq!(
            (record.seq.get(), record.events[0].id.as_str()),
            (number, &*format!("bd-{number}"))
        );
        assert_eq!(follower.try_next().unwrap(), None);
        if number % 7 == 0 {
            log.compact::<Issues>().unwrap();
        }
    }
    assert_eq!(follower.next_seq(), 61);
}

#[test]
fn a_follower_can_begin_within_a_segment_or_beyond_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append_numbered(&log, 1..=5);
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut middle = reader.follow(Seq::new(3)).unwrap();
    let mut future = reader.follow(Seq::new(7)).unwrap();
    assert_eq!(middle.try_next().unwrap().unwrap().seq, 3);
    assert!(future.try_next().unwrap().is_none());
    log.append(&event("bd-6")).unwrap();
    assert!(future.try_next().unwrap().is_none());
    log.append(&event("bd-7")).unwrap();
    assert_eq!(future.try_next().unwrap().unwrap().seq, 7);
    assert_eq!(middle.try_next().unwrap().unwrap().seq, 4);
}

/// As after a start of the machine: a reader that begins before the first writer does not see what
/// that writer has not made durable.
#[test]
fn a_follower_that_began_without_hints_sees_only_durable_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&event("bd-1")).unwrap();
    log.close().unwrap();
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut follower = reader.follow(Seq::new(1)).unwrap();
    let mut late = reader.follow(Seq::new(1)).unwrap();
    let mut records = reader.records().unwrap();
    let seq = |record: Option<strand_core::Record<IssueEvent>>| record.map(|record| record.seq);
    assert_eq!(seq(follower.try_next().unwrap()), Some(Seq::new(1)));

    let buffered = Options::default().durability(Durability::Buffered);
    let log = Log::<IssueEvent>::open(dir.path(), buffered).unwrap();
    log.append(&event("bd-2")).unwrap();
    assert_eq!(
        (log.tail_seq().unwrap(), log.durable_seq().unwrap()),
        (Some(Seq::new(2)), Some(Seq::new(1)))
    );
    assert_eq!(seq(follower.try_next().unwrap()), None);
    assert_eq!(seq(records.next().transpose().unwrap()), Some(Seq::new(1)));
    assert_eq!(seq(records.next().transpose().unwrap()), None);
    assert_eq!(seq(late.try_next().unwrap()), Some(Seq::new(1)));
    assert_eq!(seq(late.try_next().unwrap()), None);
    log.sync_to(Seq::new(2)).unwrap();
    for follower in [&mut follower, &mut late] {
        assert_eq!(seq(follower.try_next().unwrap()), Some(Seq::new(2)));
        assert_eq!(follower.next_seq(), 3);
    }
}

#[test]
fn a_follower_can_begin_at_any_record_of_a_long_segment() {
    let dir = tempfile::tempdir().unwrap();
    let buffered = Options::default().durability(Durability::Buffered);
    let log = Log::<IssueEvent>::open(dir.path(), buffered).unwrap();
    append_numbered(&log, 1..=2000);
    log.sync_to(Seq::new(1500)).unwrap();
    let through = log.durable_seq().unwrap();
    log.append(&event("bd-2001")).unwrap();
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    for from in (1..2010).step_by(7) {
        let mut follower = reader.follow(Seq::new(from)).unwrap();
        let next = follower.try_next().unwrap().map(|record| record.seq);
        assert_eq!(
            next,
            (Some(from) <= through.map(Seq::get))
                .then_some(from)
                .map(Seq::new),
            "from {from}"
        );
        assert_eq!(follower.next_seq(), from + u64::from(next.is_some()));
    }
    // Damage before it is not read; damage in it is an error.
    let segment = crate::support::first_segment(dir.path());
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    assert_eq!(
        reader
            .follow(Seq::new(1400))
            .unwrap()
            .try_next()
            .unwrap()
            .unwrap()
            .seq,
        1400
    );
    assert!(matches!(
        reader.follow(Seq::new(1)).unwrap().try_next(),
        Err(Error::Corrupt { .. })
    ));
}

#[test]
fn a_follower_that_begins_too_late_learns_where_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append_numbered(&log, 1..=5);
    log.compact::<Issues>().unwrap();
    log.append(&event("bd-6")).unwrap();
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut late = reader.follow(Seq::new(3)).unwrap();
    for _ in 0..2 {
        match late.try_next() {
            Err(Error::Compacted {
                from_seq,
                snapshot_seq,
                snapshot,
            }) => {
                assert_eq!((from_seq, snapshot_seq), (3, 5));
                assert!(snapshot.is_file());
            }
            other => panic!("{other:?}"),
        }
    }
    let snapshot = LiveIssues::open(dir.path()).unwrap();
    let mut follower = reader.follow(snapshot.state().last_seq()).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().seq, 6);
}

#[test]
fn a_follower_sees_only_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(
        dir.path(),
        Options::default().durability(Durability::Buffered),
    )
    .unwrap();
    let mut follower = Reader::<IssueEvent>::open(dir.path())
        .unwrap()
        .follow(Seq::new(1))
        .unwrap();
    let receipt = log.append(&event("bd-1")).unwrap();
    let short = Instant::now() + Duration::from_millis(20);
    assert!(follower.next_before(short).unwrap().is_none());
    log.sync_to(receipt.seq).unwrap();
    assert_eq!(follower.next_before(soon()).unwrap().unwrap().seq, 1);
}

#[test]
fn followers_continue_when_the_hints_are_deleted_or_never_existed() {
    for share in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::<IssueEvent>::open(dir.path(), options().share_memory(share)).unwrap();
        let mut follower = Reader::<IssueEvent>::open(dir.path())
            .unwrap()
            .follow(Seq::new(1))
            .unwrap();
        log.append(&event("bd-1")).unwrap();
        assert_eq!(follower.next_before(soon()).unwrap().unwrap().seq, 1);
        std::fs::remove_file(dir.path().join("shm")).ok();
        log.append(&event("bd-2")).unwrap();
        assert_eq!(follower.next_before(soon()).unwrap().unwrap().seq, 2);
        log.append(&event("bd-3")).unwrap();
        assert_eq!(follower.next_before(soon()).unwrap().unwrap().seq, 3);
    }
}

#[test]
fn a_reader_without_hints_does_not_report_a_record_in_progress_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for number in 1..=9 {
        let issue = Issue::new_at(&format!("bd-{number}"), &"fence ".repeat(200), TS);
        log.append(&IssueEvent::add(issue, TS)).unwrap();
    }
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    let bytes = std::fs::read(first_segment(dir.path())).unwrap();
    let recorder = Recorder::default();
    let reader =
        Reader::<IssueEvent>::open_in(&(Arc::new(recorder.clone()) as _), dir.path()).unwrap();
    let mut places = line_ends(&bytes);
    let middles: Vec<_> = places
        .windows(2)
        .map(|line| line[0].midpoint(line[1]))
        .collect();
    places.extend(middles);
    for place in places {
        recorder.blank_next_read_from(place as u64);
        let found = reader.records().unwrap().collect::<Result<Vec<_>, _>>();
        // It may end early. If it does not, nothing is missing.
        let found = found.unwrap_or_else(|error| panic!("blank from {place}: {error}"));
        let sure = line_ends(&bytes[..place]).len() as u64 - 1;
        assert!(
            found.len() as u64 >= sure,
            "blank from {place}: {}",
            found.len()
        );
    }
    // Bytes that are still bad at a second look are damage.
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    std::fs::write(first_segment(dir.path()), &damaged).unwrap();
    let last = reader.records().unwrap().last().unwrap();
    assert!(matches!(last, Err(Error::Corrupt { .. })), "{last:?}");
}

#[test]
fn a_sleeping_follower_is_woken_by_another_process() {
    if let Some((dir, _)) = as_child() {
        let log = open(&dir);
        append_numbered(&log, 1..=20);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let mut follower = Reader::<IssueEvent>::open(dir.path())
        .unwrap()
        .follow(Seq::new(1))
        .unwrap();
    let writer = child(
        "follow::a_sleeping_follower_is_woken_by_another_process",
        dir.path(),
        "write",
    );
    for number in 1..=20 {
        assert_eq!(follower.next_before(soon()).unwrap().unwrap().seq, number);
    }
    finish(writer);
}

#[test]
fn a_record_that_is_not_an_issue_event_is_an_error_and_never_skipped() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Other {
        n: u32,
    }
    impl strand_core::Payload for Other {}
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.append(&event("bd-1")).unwrap();
    let mut snapshot = LiveIssues::open(dir.path()).unwrap();
    let mut follower = Reader::<IssueEvent>::open(dir.path())
        .unwrap()
        .follow(Seq::new(2))
        .unwrap();
    let other: Log<Other> = Log::open(dir.path(), options()).unwrap();
    other.append(&Other { n: 1 }).unwrap();
    log.append(&event("bd-3")).unwrap();
    for _ in 0..3 {
        assert!(matches!(snapshot.refresh(), Err(Error::Corrupt { .. })));
        assert!(matches!(follower.try_next(), Err(Error::Corrupt { .. })));
        assert!(matches!(
            log.claim("bd-1", "agent-7"),
            Err(CommitError::Log(Error::Corrupt { .. }))
        ));
    }
    assert_eq!(
        (snapshot.state().last_seq().get(), snapshot.state().len()),
        (1, 1)
    );
}

#[test]
fn a_refreshed_state_equals_a_new_load() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(dir.path(), options().segment_bytes_max(400)).unwrap();
    let mut snapshot = LiveIssues::open(dir.path()).unwrap();
    for number in 1..=30 {
        log.append(&event(&format!("bd-{}", number % 7))).unwrap();
        if number % 3 == 0 {
            assert_eq!(snapshot.refresh().unwrap(), number);
            assert_eq!(*snapshot.state(), Issues::load(dir.path()).unwrap());
        }
        if number % 10 == 5 {
            log.compact::<Issues>().unwrap();
        }
    }
}

/// Whichever call fails, the next one goes on with the same record.
#[test]
fn a_call_that_failed_is_tried_again_at_the_same_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(dir.path(), options().segment_bytes_max(300)).unwrap();
    append_numbered(&log, 1..=9);
    log.close().unwrap();
    let life = Mortal::of_calls(u64::MAX);
    let storage: Arc<dyn Storage> = Arc::new(life.clone());
    for has_hints in [true, false] {
        if !has_hints {
            std::fs::remove_file(dir.path().join("shm")).unwrap();
        }
        let mut failures = 0;
        for calls in 0.. {
            let reader = Reader::<IssueEvent>::open_in(&storage, dir.path()).unwrap();
            let mut follower = reader.follow(Seq::new(1)).unwrap();
            let mut seen = Vec::new();
            life.left.store(calls, Ordering::SeqCst);
            let failed = loop {
                match follower.try_next() {
                    Ok(Some(record)) => seen.push(record.seq.get()),
                    Ok(None) => break false,
                    Err(Error::Io { .. }) => break true,
                    Err(error) => panic!("call {calls}: {error}"),
                }
            };
            life.left.store(u64::MAX, Ordering::SeqCst);
            while let Some(record) = follower.try_next().unwrap() {
                seen.push(record.seq.get());
            }
            assert_eq!(seen, (1..=9).collect::<Vec<_>>(), "call {calls}");
            if !failed {
                break;
            }
            failures += 1;
        }
        assert!(failures > 20, "{failures} calls failed");
    }
}

#[test]
fn a_refresh_that_failed_is_tried_again_at_the_same_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(dir.path(), options().segment_bytes_max(300)).unwrap();
    let life = Mortal::of_calls(u64::MAX);
    let storage: Arc<dyn Storage> = Arc::new(life.clone());
    let mut issues = LiveIssues::open_in(&storage, dir.path()).unwrap();
    for compacts in [false, true] {
        let mut failures = 0;
        for calls in 0.. {
            for number in 0..3 {
                log.append(&event(&format!("bd-{}", calls * 3 + number)))
                    .unwrap();
            }
            if compacts {
                log.compact::<Issues>().unwrap();
            }
            life.left.store(calls, Ordering::SeqCst);
            let refreshed = issues.refresh();
            life.left.store(u64::MAX, Ordering::SeqCst);
            let failed = match refreshed {
                Ok(_) => false,
                Err(Error::Io { .. }) => true,
                Err(error) => panic!("call {calls}: {error}"),
            };
            issues.refresh().unwrap();
            assert_eq!(
                *issues.state(),
                Issues::load(dir.path()).unwrap(),
                "call {calls}"
            );
            if !failed {
                break;
            }
            failures += 1;
        }
        assert!(failures > 5, "{failures} calls failed");
    }
}
