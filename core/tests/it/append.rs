use std::time::{Duration, Instant};

use strand_core::{Durability, Issue, IssueEvent, Issues, Log, Op, Options, Reader, Seq, Version};

use crate::support::{TS, append_numbered, event, first_segment, ids, names, open};

#[test]
fn appended_records_are_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for number in 1..=20 {
        assert_eq!(
            log.append(&event(&format!("bd-{number}"))).unwrap().seq,
            number
        );
    }
    let expected: Vec<String> = (1..=20).map(|number| format!("bd-{number}")).collect();
    assert_eq!(ids(log.records().unwrap()), expected);
    assert_eq!(
        ids(Reader::open(dir.path()).unwrap().records().unwrap()),
        expected
    );
    assert_eq!(
        Reader::<IssueEvent>::open(dir.path())
            .unwrap()
            .verify()
            .unwrap(),
        20
    );
    drop(log);
    let again = open(dir.path());
    assert_eq!(again.append(&event("bd-21")).unwrap().seq, 21);
    assert!(
        !again.recovery().rebuilt,
        "the hints of a living system are trusted"
    );
    assert_eq!(
        names(dir.path()),
        ["MANIFEST", "lock", "log-00000000000000000001.jsonl", "shm"]
    );
}

#[test]
fn each_line_is_json_that_begins_with_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&event("bd-1")).unwrap();
    log.append_batch(&[event("bd-2"), event("bd-3")]).unwrap();
    let text = std::fs::read_to_string(first_segment(dir.path())).unwrap();
    for (number, line) in text.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["seq"], number + 1);
        let crc = crc32c::crc32c(&line.as_bytes()[18..]);
        assert!(
            line.starts_with(&format!(r#"{{"crc":"{crc:08x}","seq":"#)),
            "{line}"
        );
    }
}

#[test]
fn a_batch_is_one_record_with_one_number() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert_eq!(
        log.append_batch(&[event("bd-1"), event("bd-2")])
            .unwrap()
            .seq,
        1
    );
    assert_eq!(log.append(&event("bd-3")).unwrap().seq, 2);
    let records: Vec<_> = log.records().unwrap().map(Result::unwrap).collect();
    assert_eq!(
        records
            .iter()
            .map(|record| (record.seq.get(), record.batch, record.events.len()))
            .collect::<Vec<_>>(),
        [(1, true, 2), (2, false, 1)]
    );
    assert_eq!(Issues::load(dir.path()).unwrap().len(), 3);
}

#[test]
fn buffered_records_are_replayed_at_once_and_read_when_synced() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(
        dir.path(),
        Options::default().durability(Durability::Buffered),
    )
    .unwrap();
    let receipt = log.append(&event("bd-1")).unwrap();
    assert_eq!(
        (log.durable_seq().unwrap(), log.tail_seq().unwrap()),
        (None, Some(Seq::new(1)))
    );
    assert_eq!(ids(log.records().unwrap()), [""; 0]);
    assert_eq!(ids(log.records_to_tail().unwrap()), ["bd-1"]);
    log.sync_to(receipt.seq).unwrap();
    assert_eq!(ids(log.records().unwrap()), ["bd-1"]);
    assert!(
        log.sync_to(Seq::new(2)).is_err(),
        "a record that was never written can't become durable"
    );
    log.append(&event("bd-2")).unwrap();
    log.close().unwrap();
    assert_eq!(
        Reader::<IssueEvent>::open(dir.path())
            .unwrap()
            .durable_seq()
            .unwrap(),
        Some(Seq::new(2))
    );
}

#[test]
fn unknown_fields_order_and_number_spelling_survive() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let issue = r#"{"zeta":1.10,"id":"bd-1","big":123456789012345678901234567890,"title":"T \u00e9 😀","nested":{"b":[1, 2],"a":null},"zeta":2e3}"#;
    let event = format!(
        r#"{{"op":"add","ts":1,"id":"bd-1","data":{issue},"actor":{{"name":"a","n":1.0}}}}"#
    );
    let event: IssueEvent = serde_json::from_str(&event).unwrap();
    log.append(&event).unwrap();
    let stored = log
        .records()
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .events
        .remove(0);
    assert_eq!(stored, event);
    assert_eq!(stored.data.as_ref().unwrap().as_json(), issue);
    assert_eq!(stored.extra[0].1.get(), r#"{"name":"a","n":1.0}"#);
    assert_eq!(
        Issues::load(dir.path())
            .unwrap()
            .get("bd-1")
            .unwrap()
            .field::<f64>("zeta"),
        Some(2000.0)
    );
}

#[test]
fn an_issue_that_spans_lines_is_stored_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let pretty = "{\n  \"id\": \"bd-1\",\r\n\t\"title\": \"a \\\" b \\\\\",\n  \"n\": [ 1.50 ]\n}";
    log.append(&IssueEvent::add(Issue::from_json(pretty).unwrap(), TS))
        .unwrap();
    log.append(&event("bd-2")).unwrap();
    let first = log.records().unwrap().next().unwrap().unwrap();
    let stored = first.events[0].data.as_ref().unwrap();
    assert_eq!(
        stored.as_json(),
        r#"{"id":"bd-1","title":"a \" b \\","n":[1.50]}"#
    );
}

#[test]
fn segments_roll_over_and_are_read_as_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().segment_bytes_max(1000);
    let log = Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
    append_numbered(&log, 1..=30);
    let segments = names(dir.path())
        .iter()
        .filter(|name| name.starts_with("log-"))
        .count();
    assert!(segments > 5, "{segments} segments");
    let expected: Vec<String> = (1..=30).map(|number| format!("bd-{number}")).collect();
    assert_eq!(ids(log.records().unwrap()), expected);
    drop(log);
    // Without the hints, the tail is found in the last segment.
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(
        ids(Reader::open(dir.path()).unwrap().records().unwrap()),
        expected
    );
    let log = Log::<IssueEvent>::open(dir.path(), options).unwrap();
    assert_eq!(log.append(&event("bd-31")).unwrap().seq, 31);
}

#[test]
fn space_is_preallocated_used_and_cut_at_the_end_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default()
        .preallocate_bytes(1000)
        .segment_bytes_max(5000);
    let log = Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
    let other = Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
    let mut expected = Vec::new();
    for number in 1..=40 {
        let log = if number % 3 == 0 { &other } else { &log };
        expected.push(format!("bd-{number}"));
        log.append(&event(&expected[number - 1])).unwrap();
        assert_eq!(ids(log.records().unwrap()), expected);
    }
    let segments: Vec<_> = names(dir.path())
        .into_iter()
        .filter(|name| name.starts_with("log-"))
        .collect();
    let (last, full) = segments.split_last().unwrap();
    assert!(full.len() >= 2);
    for name in full {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        let end = b"}\n\t \t \t \t\n";
        assert!(
            bytes.ends_with(end),
            "{name} ends with its last record and the mark"
        );
    }
    let bytes = std::fs::read(dir.path().join(last)).unwrap();
    assert!(
        bytes.ends_with(b"\n\n"),
        "the last segment ends with free space"
    );
    assert!(bytes.len() < 5000 + 1000 + 500);
    // Preallocated space is recognised without the hints too.
    drop((log, other));
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(
        ids(Reader::open(dir.path()).unwrap().records().unwrap()),
        expected
    );
    let log = Log::<IssueEvent>::open(dir.path(), options).unwrap();
    assert_eq!(log.recovery().cut_bytes, 0);
    assert_eq!(log.append(&event("bd-41")).unwrap().seq, 41);
}

#[test]
fn a_log_whose_hints_were_deleted_sees_later_appends_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = || -> Log<IssueEvent> { Log::open(dir.path(), Options::default()).unwrap() };
    let (here, there) = (log(), log());
    here.append(&event("bd-1")).unwrap();
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(there.append(&event("bd-2")).unwrap().seq, 2);
    assert_eq!(here.durable_seq().unwrap(), Some(Seq::new(2)));
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(there.append(&event("bd-3")).unwrap().seq, 3);
    assert_eq!(ids(here.records().unwrap()), ["bd-1", "bd-2", "bd-3"]);
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(there.append(&event("bd-4")).unwrap().seq, 4);
    assert_eq!(
        (here.tail_seq().unwrap(), here.durable_seq().unwrap()),
        (Some(Seq::new(4)), Some(Seq::new(4)))
    );
}

#[test]
fn logs_without_shared_memory_find_appends_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().segment_bytes_max(2000);
    let alone = options.clone().share_memory(false);
    let logs: [Log<IssueEvent>; 3] =
        [alone.clone(), alone, options].map(|options| Log::open(dir.path(), options).unwrap());
    let mut expected = Vec::new();
    for number in 1..=60_usize {
        expected.push(format!("bd-{number}"));
        let receipt = logs[number * 7 % 3]
            .append(&event(&expected[number - 1]))
            .unwrap();
        assert_eq!(receipt.seq, number as u64);
    }
    for log in &logs[..2] {
        assert_eq!(ids(log.records().unwrap()), expected);
    }
    // The one that shares learns of the others' records when it appends or opens.
    logs[2].append(&event("bd-61")).unwrap();
    expected.push("bd-61".into());
    assert_eq!(ids(logs[2].records().unwrap()), expected);
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(move || {
                for _ in 0..20 {
                    log.append(&event("bd-x")).unwrap();
                }
            });
        }
    });
    assert_eq!(
        logs[0]
            .records()
            .unwrap()
            .map(Result::unwrap)
            .last()
            .unwrap()
            .seq,
        121
    );
}

#[test]
fn the_fold_follows_its_table() {
    let mut store = Issues::default();
    let issue = |status: &str| Issue::new_at("a", "T", TS).with("status", status).unwrap();
    let mut seq = 0;
    let mut apply = |store: &mut Issues, event| {
        seq += 1;
        store.apply(Seq::new(seq), [event]);
        store.get("a").and_then(Issue::status)
    };
    assert_eq!(apply(&mut store, IssueEvent::close("a", TS)), None);
    assert_eq!(apply(&mut store, IssueEvent::delete("a", TS)), None);
    assert_eq!(store.without_effect(), 2);
    assert_eq!(
        apply(&mut store, IssueEvent::add(issue("open"), TS)).unwrap(),
        "open"
    );
    assert_eq!(
        apply(&mut store, IssueEvent::set_blocked("a", TS)).unwrap(),
        "blocked"
    );
    assert_eq!(
        apply(&mut store, IssueEvent::unset_blocked("a", TS)).unwrap(),
        "open"
    );
    assert_eq!(
        apply(&mut store, IssueEvent::close("a", TS)).unwrap(),
        "closed"
    );
    assert!(
        store
            .get("a")
            .unwrap()
            .field::<String>("closed_at")
            .is_some()
    );
    assert_eq!(
        apply(&mut store, IssueEvent::reopen("a", TS)).unwrap(),
        "open"
    );
    assert_eq!(store.get("a").unwrap().field::<String>("closed_at"), None);
    assert_eq!(
        apply(&mut store, IssueEvent::update(issue("in_progress"), TS)).unwrap(),
        "in_progress"
    );
    assert_eq!(store.version("a"), Some(Version::new(8)));
    assert_eq!(apply(&mut store, IssueEvent::delete("a", TS)), None);
    assert_eq!(
        apply(&mut store, IssueEvent::update(issue("open"), TS)),
        None,
        "deleted stays deleted"
    );
    assert_eq!((store.len(), store.without_effect()), (0, 3));
    assert_eq!(
        apply(&mut store, IssueEvent::add(issue("open"), TS)).unwrap(),
        "open"
    );
    assert_eq!(store.len(), 1);
    assert_eq!(
        serde_json::to_string(&Op::UnsetBlocked).unwrap(),
        r#""unset_blocked""#
    );
}

#[test]
fn five_threads_of_twenty_writes_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for agent in 0..5 {
            let log = &log;
            scope.spawn(move || {
                for write in 0..20 {
                    log.append(&event(&format!("bd-t{agent}w{write}"))).unwrap();
                }
            });
        }
    });
    let elapsed = started.elapsed();
    println!("5 threads x 20 writes: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
    let mut stored = ids(log.records().unwrap());
    assert_eq!(stored.len(), 100);
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), 100);
    // One to open, and one for each group of appends; on a busy machine also one for each lead that
    // is taken over.
    let holds = log.lock_counters().acquisitions;
    assert!((2..=201).contains(&holds), "{holds} holds");
}

#[test]
fn a_payload_of_another_type_is_stored_as_serde_writes_it() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Job {
        name: String,
    }
    impl strand_core::Payload for Job {}
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nothing {}
    impl strand_core::Payload for Nothing {}
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Ambiguous {
        batch: Vec<u8>,
    }
    impl strand_core::Payload for Ambiguous {}

    let dir = tempfile::tempdir().unwrap();
    let jobs: Log<Job> = Log::open(dir.path(), Options::default()).unwrap();
    jobs.append(&Job {
        name: "build".into(),
    })
    .unwrap();
    assert_eq!(
        jobs.records().unwrap().next().unwrap().unwrap().events,
        [Job {
            name: "build".into()
        }]
    );
    let nothing: Log<Nothing> = Log::open(dir.path(), Options::default()).unwrap();
    nothing.append(&Nothing {}).unwrap();
    assert_eq!(nothing.records().unwrap().count(), 2);
    let ambiguous: Log<Ambiguous> = Log::open(dir.path(), Options::default()).unwrap();
    assert!(ambiguous.append(&Ambiguous { batch: vec![] }).is_err());
    // An event of another type is an error that names its place.
    let error = jobs.records().unwrap().nth(1).unwrap().unwrap_err();
    assert!(
        matches!(error, strand_core::Error::Corrupt { offset, .. } if offset > 0),
        "{error}"
    );
}
