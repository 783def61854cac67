//! Files that an earlier build wrote, and that every later one must read and write alike.

use std::{fs, path::Path};

use strand_core::{Issue, IssueEvent, Store};

use crate::support::{TS, first_segment, open};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

fn events() -> Vec<Vec<IssueEvent>> {
    let odd = r#"{"id":"bd-2","title":"Zahlen: 1.10","x-float":1.10,"x-big":12345678901234567890123,"emoji":"🪢","null":null}"#;
    let extra: IssueEvent =
        serde_json::from_str(r#"{"ts":-1,"op":"close","id":"bd-1","data":null,"actor":"agent-7"}"#)
            .unwrap();
    vec![
        vec![IssueEvent::add(
            Issue::new("bd-1", "Mend the fence", TS),
            TS,
        )],
        vec![IssueEvent::add(Issue::from_json(odd).unwrap(), TS + 1)],
        vec![
            IssueEvent::set_blocked("bd-2", TS + 2),
            IssueEvent::unset_blocked("bd-2", TS + 3),
        ],
        vec![extra],
        vec![IssueEvent::reopen("bd-1", TS + 4)],
        vec![IssueEvent::delete("bd-2", TS + 5)],
    ]
}

fn write(dir: &Path) {
    let log = open(dir);
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
    let log = open(dir.path());
    let read: Vec<Vec<IssueEvent>> = log
        .read()
        .unwrap()
        .map(|record| record.unwrap().events)
        .collect();
    assert_eq!(read, events());
    let store = Store::load(dir.path()).unwrap();
    assert_eq!(store.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["bd-1"]);
    assert_eq!(store.get("bd-1").unwrap().status().unwrap(), "open");
}
