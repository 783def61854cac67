//! Files that an earlier build wrote, and that every later one must read and write alike.

use std::{fs, path::Path};

use strand_core::{
    Batch, CommitError, Issue, IssueEvent, IssueLog, Issues, Options, Patch, Seq, Version,
};

use crate::support::{TS, after, first_segment, open_issues};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
/// The store of version 1 after more records, a compaction, and one more record.
const COMPACTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v2");
/// The same from before snapshots had digests and sorted keys.
const WITHOUT_DIGESTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/v2-without-digests"
);
/// The store of version 2 after one more record, a compaction into a run, and one more record.
const IN_RUNS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v3");
const RUN_FILES: [&str; 4] = [
    "MANIFEST",
    "snapshot-00000000000000000008.jsonl",
    "run-00000000000000000009-00000000000000000010.jsonl",
    "log-00000000000000000011.jsonl",
];
const COMPACTED_FILES: [&str; 3] = [
    "MANIFEST",
    "snapshot-00000000000000000008.jsonl",
    "log-00000000000000000009.jsonl",
];

fn events() -> Vec<Vec<IssueEvent>> {
    let odd = r#"{"id":"bd-2","title":"Zahlen: 1.10","x-float":1.10,"x-big":12345678901234567890123,"emoji":"🪢","null":null}"#;
    let extra: IssueEvent =
        serde_json::from_str(r#"{"ts":-1,"op":"close","id":"bd-1","data":null,"actor":"agent-7"}"#)
            .unwrap();
    vec![
        vec![IssueEvent::add(
            Issue::new_at("bd-1", "Mend the fence", TS),
            TS,
        )],
        vec![IssueEvent::add(Issue::from_json(odd).unwrap(), after(1))],
        vec![
            IssueEvent::set_blocked("bd-2", after(2)),
            IssueEvent::unset_blocked("bd-2", after(3)),
        ],
        vec![extra],
        vec![IssueEvent::reopen("bd-1", after(4))],
        vec![IssueEvent::delete("bd-2", after(5))],
    ]
}

fn write(dir: &Path) {
    let log = open_issues(dir);
    for events in events() {
        match events.as_slice() {
            [event] => log.append(event).unwrap(),
            events => log.append_batch(events).unwrap(),
        };
    }
}

#[test]
fn this_build_writes_the_golden_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let written = fs::read_to_string(first_segment(dir.path())).unwrap();
    let golden = fs::read_to_string(first_segment(Path::new(GOLDEN))).unwrap();
    assert_eq!(written, golden);
}

#[test]
fn this_build_reads_the_golden_store() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["MANIFEST", "log-00000000000000000001.jsonl"] {
        fs::copy(Path::new(GOLDEN).join(name), dir.path().join(name)).unwrap();
    }
    let log = open_issues(dir.path());
    let read: Vec<Vec<IssueEvent>> = log
        .log()
        .records()
        .unwrap()
        .map(|record| record.unwrap().events)
        .collect();
    assert_eq!(read, events());
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(store.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["bd-1"]);
    assert_eq!(store.get("bd-1").unwrap().status().unwrap(), "open");
}

fn copy(from: &str, names: &[&str], to: &Path) {
    for name in names {
        fs::copy(Path::new(from).join(name), to.join(name)).unwrap();
    }
}

#[test]
fn this_build_compacts_a_store_of_version_1_into_the_golden_one_of_version_2() {
    let dir = tempfile::tempdir().unwrap();
    copy(
        GOLDEN,
        &["MANIFEST", "log-00000000000000000001.jsonl"],
        dir.path(),
    );
    let keeps_tombstones = Options::default()
        .preallocate_bytes(0)
        .tombstone_ms(u64::MAX);
    let log = IssueLog::open(dir.path(), keeps_tombstones).unwrap();
    let patch = Patch::new()
        .set("n", &1.5)
        .unwrap()
        .unset("priority")
        .add_label("a");
    log.commit(&Batch::at(TS).key("k-1").patch("bd-1", patch))
        .unwrap();
    let odd = Issue::from_json(r#"{"id":"ü","title":"","x":1.10,"x":[ ]}"#).unwrap();
    let both = Batch::at(TS)
        .create(odd)
        .claim("bd-1", "agent-7")
        .key("k-2");
    log.commit(&both).unwrap();
    log.compact().unwrap();
    log.append(&IssueEvent::close("ü", TS)).unwrap();
    for name in COMPACTED_FILES {
        let written = fs::read_to_string(dir.path().join(name)).unwrap();
        let golden = Path::new(COMPACTED).join(name);
        let golden = fs::read_to_string(golden).unwrap();
        assert_eq!(written, golden, "{name}");
    }
}

#[test]
fn this_build_reads_the_golden_compacted_stores() {
    for golden in [COMPACTED, WITHOUT_DIGESTS] {
        let dir = tempfile::tempdir().unwrap();
        copy(golden, &COMPACTED_FILES, dir.path());
        check_compacted(dir.path());
    }
}

/// A key without a digest is honoured as before there were any.
#[test]
fn a_key_without_a_digest_belongs_to_every_operation() {
    let repeated = |golden| {
        let dir = tempfile::tempdir().unwrap();
        copy(golden, &COMPACTED_FILES, dir.path());
        let other = Batch::at(TS).key("k-1").close("bd-1");
        open_issues(dir.path()).commit(&other)
    };
    let receipt = repeated(WITHOUT_DIGESTS).unwrap();
    assert_eq!((receipt.seq.get(), receipt.repeated), (7, true));
    let refused = repeated(COMPACTED).unwrap_err();
    assert!(
        matches!(refused, CommitError::KeyReused { .. }),
        "{refused}"
    );
}

fn check_compacted(dir: &Path) {
    let store = Issues::load(dir).unwrap();
    assert_eq!((store.len(), store.last_seq().get()), (2, 9));
    let versions = ["bd-1", "bd-2", "ü"].map(|id| store.version(id));
    assert_eq!(
        versions,
        [8, 6, 9].map(|version| Some(Version::new(version)))
    );
    assert_eq!(
        (store.key("k-1"), store.key("k-2")),
        (Some(Seq::new(7)), Some(Seq::new(8)))
    );
    let issue = store.get("bd-1").unwrap();
    assert_eq!(issue.assignee().unwrap(), "agent-7");
    assert_eq!(issue.labels(), ["a"]);
    assert_eq!(store.get("ü").unwrap().status().unwrap(), "closed");
    let reopened = IssueEvent::reopen("ü", TS);
    assert_eq!(open_issues(dir).append(&reopened).unwrap().seq, 10);
}

#[test]
fn this_build_compacts_a_store_of_version_2_into_the_golden_one_of_version_3() {
    let dir = tempfile::tempdir().unwrap();
    copy(COMPACTED, &COMPACTED_FILES, dir.path());
    let in_runs = Options::default()
        .preallocate_bytes(0)
        .compact_after_bytes(0)
        .tombstone_ms(u64::MAX);
    let log = IssueLog::open(dir.path(), in_runs).unwrap();
    log.commit(&Batch::at(TS).key("k-3").delete("bd-1"))
        .unwrap();
    log.compact().unwrap();
    log.append(&IssueEvent::reopen("ü", TS)).unwrap();
    for name in RUN_FILES {
        let written = fs::read_to_string(dir.path().join(name)).unwrap();
        let golden = fs::read_to_string(Path::new(IN_RUNS).join(name)).unwrap();
        assert_eq!(written, golden, "{name}");
    }
}

#[test]
fn this_build_reads_the_golden_store_of_version_3() {
    let dir = tempfile::tempdir().unwrap();
    copy(IN_RUNS, &RUN_FILES, dir.path());
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!((store.len(), store.last_seq().get()), (1, 11));
    let versions = ["bd-1", "bd-2", "ü"].map(|id| store.version(id));
    assert_eq!(
        versions,
        [10, 6, 11].map(|version| Some(Version::new(version)))
    );
    let keys = ["k-1", "k-2", "k-3"].map(|key| store.key(key));
    assert_eq!(keys, [7, 8, 10].map(|seq| Some(Seq::new(seq))));
    assert_eq!(store.get("ü").unwrap().status().unwrap(), "open");
    let log = open_issues(dir.path());
    assert!(log.get("bd-1").unwrap().is_none());
    assert_eq!(log.append(&IssueEvent::close("ü", TS)).unwrap().seq, 12);
}
