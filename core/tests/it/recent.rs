//! The file of the issues that are not closed after a record behind the snapshot.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use strand_core::{Batch, Durability, Issue, IssueEvent, IssueLog, Issues, Patch, PointReader};

use crate::{
    points::{any_related, buffered, compare, compare_unclosed, compare_unclosed_with},
    support::{TS, names, options},
};

/// An issue that is closed, and nobody asks for.
const PAD: &str = "pad";

fn new(id: &str) -> Issue {
    Issue::new_at(id, "Mend the fence", TS)
}

/// How many records that each fill a block make the file due: one more than four times 64 KiB,
const DUE: usize = 5;
/// and one with which the process has read them.
const WRITTEN: usize = DUE + 1;

/// Makes records that each fill a block of the index, and returns the number of the last one.
fn pad(log: &IssueLog, records: usize) -> u64 {
    pad_with("x", log, records)
}

fn pad_with(text: &str, log: &IssueLog, records: usize) -> u64 {
    if log.get(PAD).unwrap().is_none() {
        log.commit(&Batch::at(TS).create(new(PAD)).close(PAD))
            .unwrap();
    }
    let mut last = 0;
    for _ in 0..records {
        let patch = Patch::new().set("description", &text.repeat(66_000));
        let done = log.commit(&Batch::at(TS).patch(PAD, patch.unwrap()));
        last = done.unwrap().seq.get();
    }
    last
}

fn has_end(name: &str, end: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found == end)
}

/// The files, by their names.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = names(dir).into_iter();
    let names = names.filter(|name| has_end(name, "unclosed"));
    names
        .map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
        .collect()
}

/// The only one of them.
fn file(dir: &Path) -> (PathBuf, Vec<u8>) {
    let mut files = files(dir).into_iter();
    let (name, bytes) = files.next().expect("it was written");
    assert_eq!(files.next(), None);
    (dir.join(name), bytes)
}

fn header(bytes: &[u8]) -> Value {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    serde_json::from_slice(&bytes[..end]).unwrap()
}

/// The record through which it goes.
fn seq(bytes: &[u8]) -> u64 {
    header(bytes)["snapshot"].as_u64().unwrap()
}

/// With another text in place of one, and the checksums that belong to it.
fn forged(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains(from));
    let mut forged = Vec::new();
    for line in text.replace(from, to).lines() {
        let crc = crc32c::crc32c(&line.as_bytes()[18..]);
        forged.extend(format!("{{\"crc\":\"{crc:08x}\",{}\n", &line[18..]).bytes());
    }
    forged
}

fn titles(dir: &Path) -> Vec<String> {
    let open = Issues::load_unclosed(dir).unwrap();
    let ready = open.ready().into_iter();
    ready.map(|(_, issue)| issue.title()).collect()
}

/// A store with open issues, a snapshot, and the file, which goes through the last record but one.
fn with_file(dir: &Path) -> IssueLog {
    let log = IssueLog::open(dir, buffered()).unwrap();
    for number in 0..6 {
        log.commit(&Batch::at(TS).create(new(&format!("bd-{number}"))))
            .unwrap();
    }
    log.commit(&Batch::at(TS).close("bd-0").close("bd-1"))
        .unwrap();
    log.compact().unwrap();
    log.commit(&Batch::at(TS).close("bd-2").reopen("bd-1"))
        .unwrap();
    let last = pad(&log, WRITTEN);
    log.log().sync_all().unwrap();
    assert_eq!(seq(&file(dir).1), last - 1);
    log
}

#[test]
fn whoever_extends_the_index_writes_it_and_others_go_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = with_file(dir);
    compare(dir, Some(&log));
    // It ends with a block, wherever the log ends that has been read.
    fs::remove_file(file(dir).0).unwrap();
    let block = Patch::new().set("description", &"x".repeat(66_000));
    let block = log.append(&IssueEvent::patch(PAD, block.unwrap(), TS));
    let note = || Patch::new().append("notes", "once").unwrap();
    for id in ["bd-3", "bd-4"] {
        log.append(&IssueEvent::patch(id, note(), TS)).unwrap();
    }
    log.commit(&Batch::at(TS).patch("bd-5", note())).unwrap();
    log.log().sync_all().unwrap();
    let (path, good) = file(dir);
    let written = seq(&good);
    assert_eq!(written, block.unwrap().seq.get());
    compare(dir, Some(&log));
    log.commit(&Batch::at(TS).close("bd-3").create(new("bd-9")))
        .unwrap();
    pad(&log, 2);
    log.log().sync_all().unwrap();
    assert_eq!(seq(&file(dir).1), written, "too little is behind it");
    compare(dir, Some(&log));
    // It is read: what it says counts, as long as its checksums are right.
    fs::write(&path, forged(&good, "Mend the fence", "Sell the fence")).unwrap();
    let [.., last] = &titles(dir)[..] else {
        panic!("there are some")
    };
    assert_eq!(last, "Mend the fence");
    assert_eq!(titles(dir)[0], "Sell the fence");
    let titles = IssueLog::open(dir, buffered()).unwrap();
    let titles = titles.with_unclosed(|open| open.ready()[0].1.title());
    assert_eq!(titles.unwrap(), "Sell the fence");
    // Readers write nothing.
    fs::remove_file(&path).unwrap();
    compare(dir, None);
    assert_eq!(files(dir), BTreeMap::new());
    // It was due long ago.
    let last = pad(&log, 1);
    assert_eq!(seq(&file(dir).1), last - 1);
    log.compact().unwrap();
    assert_eq!(files(dir), BTreeMap::new());
}

#[test]
fn a_file_that_is_damaged_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = with_file(dir);
    log.commit(&Batch::at(TS).reopen("bd-2").close("bd-3"))
        .unwrap();
    log.log().sync_all().unwrap();
    let (path, good) = file(dir);
    let whole = Issues::load(dir).unwrap();
    let compare = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        compare_unclosed_with(dir, &whole);
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= if at % 2 == 0 { 0x01 } else { b'\n' ^ good[at] };
        compare(&bytes);
        if at % 8 == 0 {
            compare(&good[..at]);
            bytes[at..].fill(0);
            compare(&bytes);
        }
    }
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let last = lines.len() - 1;
    compare(&lines[..last].concat());
    compare(&[&good, lines[last]].concat());
    // As many lines as there should be.
    compare(&[&lines[..last - 1].concat(), lines[last], lines[last]].concat());
    // Whoever writes it next does not mind.
    fs::write(&path, b"{").unwrap();
    let last = pad(&log, 2);
    assert_eq!(seq(&file(dir).1), last - 1);
}

#[test]
fn a_file_of_another_store_or_another_record_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = with_file(dir);
    let (path, good) = file(dir);
    // All but its first line are right, and that has the right checksum.
    let title = forged(&good, "Mend the fence", "Sell the fence");
    let said = header(&good);
    let place = &said["log"];
    let other = |value: &Value| match value.as_u64() {
        Some(number) if number % 10 == 0 => number + 1,
        Some(number) => number - 1,
        None => unreachable!("{value}"),
    };
    let members = [
        ("snapshot", &said["snapshot"]),
        ("unclosed_of", &said["unclosed_of"]),
        ("offset", &place["offset"]),
        ("crc", &place["crc"]),
        ("index_bytes", &place["index_bytes"]),
        ("index_crc", &place["index_crc"]),
        ("issues", &said["issues"]),
    ];
    for (name, value) in members {
        let [from, to] =
            [value.clone(), other(value).into()].map(|value| format!("\"{name}\":{value}"));
        fs::write(&path, forged(&title, &from, &to)).unwrap();
        compare_unclosed(dir);
    }
    for (name, to) in [
        ("index_bytes", "3"),
        ("index_bytes", "18446744073709551615"),
    ]
    .into_iter()
    .chain([("offset", "18446744073709551615"), ("snapshot", "0")])
    {
        let value = said.get(name).unwrap_or(&place[name]);
        let [from, to] = [value.to_string(), to.to_owned()];
        let [from, to] = [from, to].map(|value| format!("\"{name}\":{value}"));
        fs::write(&path, forged(&title, &from, &to)).unwrap();
        compare_unclosed(dir);
    }
    let store = said["store"].as_str().unwrap();
    let another = store.chars().map(|_| '7').collect::<String>();
    fs::write(&path, forged(&title, store, &another)).unwrap();
    compare_unclosed(dir);
    for (from, to) in [
        ("\"log\":", "\"gol\":"),
        ("\"unclosed_of\":", "\"nuclosed_of\":"),
        ("\"tombstones\":0", "\"tombstones\":1"),
        ("\"keys\":0", "\"keys\":1"),
    ] {
        fs::write(&path, forged(&title, from, to)).unwrap();
        compare_unclosed(dir);
    }
    // With the index as it is, that is what is compared.
    fs::write(&path, &title).unwrap();
    assert_eq!(titles(dir)[0], "Sell the fence");
    let index = path.with_extension("index");
    let bytes = fs::read(&index).unwrap();
    for bytes in [&bytes[..bytes.len() - 1], b""] {
        fs::write(&index, bytes).unwrap();
        compare_unclosed(dir);
    }
    fs::remove_file(&index).unwrap();
    compare_unclosed(dir);
    drop(log);
    // In the place of one of a later segment, and of a segment that is gone.
    fs::write(&index, &bytes).unwrap();
    let log = IssueLog::open(dir, buffered().segment_bytes_max(1)).unwrap();
    log.commit(&Batch::at(TS).close("bd-3")).unwrap();
    log.log().sync_all().unwrap();
    fs::write(&path, &good).unwrap();
    compare_unclosed(dir);
    for name in names(dir) {
        if name.starts_with("log-") && has_end(&name, "jsonl") {
            let name = name.replace(".jsonl", ".unclosed");
            fs::write(dir.join(name), &title).unwrap();
        }
    }
    fs::write(&path, &good).unwrap();
    compare_unclosed(dir);
    log.compact().unwrap();
    fs::write(&path, &title).unwrap();
    compare_unclosed(dir);
}

/// Copies the files of a store, except what is of one moment only.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        if name != "shm" {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

#[test]
fn a_file_of_another_past_of_the_same_log_is_not_believed() {
    let temp = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| temp.path().join(name));
    fs::create_dir(&one).unwrap();
    let log = IssueLog::open(&one, buffered()).unwrap();
    for number in 0..6 {
        log.commit(&Batch::at(TS).create(new(&format!("bd-{number}"))))
            .unwrap();
    }
    log.close().unwrap();
    copy(&one, &other);
    // Two pasts in which all records have the same lengths and times, and the last ones are equal.
    for (dir, id) in [(&one, "bd-1"), (&other, "bd-2")] {
        let log = IssueLog::open(dir, buffered()).unwrap();
        log.commit(&Batch::at(TS).close(id)).unwrap();
        pad(&log, WRITTEN);
        log.close().unwrap();
        compare_unclosed(dir);
    }
    let segment = |dir: &Path| fs::read(crate::support::first_segment(dir)).unwrap();
    let [of_one, of_other] = [&one, &other].map(|dir| segment(dir));
    assert_eq!(of_one.len(), of_other.len());
    let last = of_one.len() - 60_000;
    assert_eq!(of_one[last..], of_other[last..]);
    let [(_, foreign), (path, good)] = [file(&one), file(&other)];
    assert_ne!(foreign, good);
    fs::write(&path, &foreign).unwrap();
    compare_unclosed(&other);
    // The index of the other past is there, too.
    for text in ["x", "y"] {
        fs::remove_dir_all(&other).unwrap();
        copy(&one, &other);
        for (dir, text, id) in [(&one, "x", "bd-3"), (&other, text, "bd-4")] {
            let log = IssueLog::open(dir, buffered()).unwrap();
            log.commit(&Batch::at(TS).close(id)).unwrap();
            pad_with(text, &log, WRITTEN);
            log.append(&IssueEvent::close("bd-5", TS)).unwrap();
            log.close().unwrap();
        }
        for name in names(&one) {
            let is_index = has_end(&name, "index") && text == "y";
            if is_index || has_end(&name, "unclosed") {
                assert_ne!(
                    fs::read(one.join(&name)).unwrap(),
                    fs::read(other.join(&name)).unwrap()
                );
                fs::copy(one.join(&name), other.join(&name)).unwrap();
            }
        }
        compare_unclosed(&other);
        let log = IssueLog::open(&other, buffered()).unwrap();
        pad_with(text, &log, 1);
        log.close().unwrap();
        compare_unclosed(&other);
    }
}

#[test]
fn a_file_of_a_record_that_a_power_cut_took_back_is_not_believed() {
    let temp = tempfile::tempdir().unwrap();
    let [dir, early] = ["store", "early"].map(|name| temp.path().join(name));
    fs::create_dir(&dir).unwrap();
    let log = IssueLog::open(&dir, buffered()).unwrap();
    for number in 0..4 {
        log.commit(&Batch::at(TS).create(new(&format!("bd-{number}"))))
            .unwrap();
    }
    pad(&log, 3);
    log.log().sync_all().unwrap();
    copy(&dir, &early);
    log.commit(&Batch::at(TS).close("bd-1")).unwrap();
    pad(&log, 3);
    drop(log);
    let (_, late) = file(&dir);
    // What was synced is there, and the hints, which were not, happen to be there, too.
    for name in names(&dir) {
        if has_end(&name, "index") || has_end(&name, "unclosed") {
            fs::copy(dir.join(&name), early.join(&name)).unwrap();
        }
    }
    let path = early.join("log-00000000000000000001.unclosed");
    compare_unclosed(&early);
    let log = IssueLog::open(&early, buffered()).unwrap();
    assert_eq!(log.with_unclosed(|open| open.ready().len()).unwrap(), 4);
    log.commit(&Batch::at(TS).close("bd-2")).unwrap();
    log.log().sync_all().unwrap();
    fs::write(&path, &late).unwrap();
    compare_unclosed(&early);
    pad(&log, 3);
    log.log().sync_all().unwrap();
    fs::write(&path, &late).unwrap();
    compare_unclosed(&early);
}

#[test]
fn a_reader_sees_nothing_of_it_that_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = with_file(dir);
    let durable = log.log().durable_seq().unwrap().unwrap();
    log.commit(&Batch::at(TS).close("bd-3")).unwrap();
    pad(&log, WRITTEN);
    assert!(seq(&file(dir).1) > durable.get());
    assert_eq!(log.log().durable_seq().unwrap(), Some(durable));
    let open = Issues::load_unclosed(dir).unwrap();
    assert_eq!(open.last_seq(), durable);
    assert!(open.ready().iter().any(|(id, _)| *id == "bd-3"));
    compare_unclosed(dir);
    let at_tail = log.with_unclosed(|open| open.ready().len()).unwrap();
    assert_eq!(at_tail, open.ready().len() - 1);
}

/// An issue that is a part of another.
fn part_of(id: &str, whole: &str) -> Issue {
    let on = json!([{"issue_id": id, "depends_on_id": whole, "type": "parent-child"}]);
    new(id).with("dependencies", &on).unwrap()
}

#[test]
fn parents_and_issues_that_it_lacks_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = IssueLog::open(dir, buffered()).unwrap();
    let blocked = |id: &str, on: &str| {
        let on = json!({"issue_id": id, "depends_on_id": on, "type": "blocks"});
        Patch::new().append("dependencies", &on).unwrap()
    };
    let mut all = Batch::at(TS);
    for id in [
        "block",
        "old",
        "closed",
        "late",
        "gone",
        "spelled \"\n\u{fc}",
    ] {
        all = all.create(new(id));
    }
    for (id, whole) in [
        ("bd-1", "closed"),
        ("bd-2", "late"),
        ("bd-3", "never"),
        ("bd-4", "gone"),
        ("bd-5", "bd-1"),
    ] {
        all = all.create(part_of(id, whole));
    }
    log.commit(&all).unwrap();
    log.commit(&Batch::at(TS).patch("closed", blocked("closed", "block")))
        .unwrap();
    let close = Batch::at(TS).close("closed").close("old").delete("gone");
    log.commit(&close).unwrap();
    for compact in [true, false] {
        if compact {
            log.compact().unwrap();
        }
        pad(&log, WRITTEN);
        log.log().sync_all().unwrap();
        file(dir);
        compare_unclosed(dir);
    }
    // What it says of these is not all, and of the last two it says nothing.
    for step in [
        Batch::at(TS).patch("late", blocked("late", "block")),
        Batch::at(TS).close("late"),
        Batch::at(TS).reopen("old"),
        Batch::at(TS).patch("bd-3", blocked("bd-3", "old")),
        Batch::at(TS).close("block"),
        Batch::at(TS).patch("closed", blocked("closed", "old")),
        Batch::at(TS).create(new("never")).close("never"),
        Batch::at(TS).create(part_of("bd-6", "old")).close("old"),
        Batch::at(TS).reopen("closed").delete("bd-1"),
        Batch::at(TS).patch("spelled \"\n\u{fc}", blocked("spelled \"\n\u{fc}", "bd-3")),
    ] {
        log.commit(&step).unwrap();
        log.log().sync_all().unwrap();
        compare_unclosed(dir);
        let found = log.with_unclosed(|open| open.ready().len()).unwrap();
        let other = IssueLog::open(dir, buffered()).unwrap();
        assert_eq!(found, other.with_issues(|all| all.ready().len()).unwrap());
    }
}

#[test]
fn issues_that_are_too_many_for_it_are_read_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = IssueLog::open(dir, buffered()).unwrap();
    for number in 0..20 {
        let issue = new(&format!("bd-{number}"));
        let issue = issue.with("description", &"…".repeat(20_000)).unwrap();
        log.commit(&Batch::at(TS).create(issue)).unwrap();
    }
    pad(&log, 1);
    log.log().sync_all().unwrap();
    let (_, bytes) = file(dir);
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    assert_eq!(lines.count(), 1);
    compare_unclosed(dir);
    pad(&log, 2);
    assert_eq!(file(dir).1, bytes, "nobody tries again at once");
    compare_unclosed(dir);
}

#[derive(Debug, Clone)]
enum Act {
    Append(Box<IssueEvent>),
    Batch(Vec<IssueEvent>),
    /// A block of the index.
    Pad,
    /// An agent that claims the first issue that is free.
    Claim,
    Close(u8),
    Compact,
    /// Other processes.
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any_related().prop_map(|event| Act::Append(Box::new(event))),
        2 => prop::collection::vec(any_related(), 1..5).prop_map(Act::Batch),
        6 => Just(Act::Pad),
        3 => Just(Act::Claim),
        2 => (0..8_u8).prop_map(Act::Close),
        1 => Just(Act::Compact),
        1 => Just(Act::Reopen),
    ]
}

/// The first issue that is ready and free, with its version, and what is known of it.
fn first_free(issues: &Issues) -> Option<(String, Option<strand_core::Version>, Issue)> {
    let ready = issues.ready().into_iter();
    let mut free = ready.filter(|(_, issue)| issue.assignee().is_none());
    let (id, issue) = free.next()?;
    Some((id.to_owned(), issues.version(id), issue.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_read_from_files_of_any_record_is_what_the_full_fold_has(
        acts in prop::collection::vec(any_act(), 1..60),
        segment_bytes in prop_oneof![Just(200_000_u64), Just(64 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let open = || IssueLog::open(dir, buffered().segment_bytes_max(segment_bytes)).unwrap();
        let (log, whole) = (open(), open());
        let mut agent = open();
        let mut written: Vec<(String, Vec<u8>)> = Vec::new();
        for act in acts {
            match act {
                Act::Append(event) => drop(log.append(&event).unwrap()),
                Act::Batch(events) => drop(log.append_batch(&events).unwrap()),
                Act::Pad => drop(pad(&log, 2)),
                Act::Claim => {
                    let found = agent.with_unclosed(first_free).unwrap();
                    prop_assert_eq!(&found, &whole.with_issues(first_free).unwrap());
                    if let Some((id, version, _)) = found {
                        let patch = Patch::new().set("notes", &"x".repeat(30_000)).unwrap();
                        let claim = Batch::at(TS).claim(&id, "agent-7");
                        agent.commit(&claim.patch_if(&id, version.unwrap(), patch)).unwrap();
                    }
                }
                Act::Close(number) => {
                    // There may be no such issue.
                    drop(agent.commit(&Batch::at(TS).close(format!("bd-{number}"))));
                }
                Act::Compact => drop(log.compact().unwrap()),
                Act::Reopen => agent = open(),
            }
            let new = files(dir).into_iter();
            let new: Vec<_> = new.filter(|file| !written.contains(file)).collect();
            written.extend(new);
        }
        log.log().sync_all().unwrap();
        compare(dir, Some(&agent));
        for (name, bytes) in written {
            fs::write(dir.join(name), bytes).unwrap();
            compare_unclosed(dir);
            prop_assert_eq!(
                open().with_unclosed(first_free).unwrap(),
                whole.with_issues(first_free).unwrap()
            );
        }
    }
}

#[test]
fn a_writer_that_lives_for_long_goes_on_from_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    drop(with_file(dir));
    let (agent, other) = [0; 2]
        .map(|_| IssueLog::open(dir, buffered()).unwrap())
        .into();
    for round in 0..40 {
        let id = format!("new-{round}");
        other.commit(&Batch::at(TS).create(new(&id))).unwrap();
        let next = agent.with_unclosed(first_free).unwrap().unwrap();
        assert_eq!(Some(&next), other.with_issues(first_free).unwrap().as_ref());
        agent.claim(&next.0, "agent-7").unwrap();
        assert!(agent.claim(&next.0, "agent-8").is_err());
        agent.commit(&Batch::at(TS).close(&next.0)).unwrap();
        match round % 10 {
            3 => drop(pad(&agent, 3)),
            5 => drop(pad(&other, WRITTEN)),
            7 => drop(other.compact().unwrap()),
            _ => {}
        }
    }
    other.log().sync_all().unwrap();
    compare(dir, Some(&agent));
}

#[test]
fn a_store_that_nobody_may_write_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let [dir, other] = ["store", "other"].map(|name| temp.path().join(name));
    fs::create_dir(&dir).unwrap();
    let log = with_file(&dir);
    // A directory has its name.
    let (path, _) = file(&dir);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    pad(&log, WRITTEN);
    log.log().sync_all().unwrap();
    compare_unclosed(&dir);
    fs::remove_dir(&path).unwrap();
    pad(&log, WRITTEN);
    log.log().sync_all().unwrap();
    copy(&dir, &other);
    compare_unclosed(&other);
    assert!(
        PointReader::open(&other)
            .unwrap()
            .get("bd-3")
            .unwrap()
            .is_some()
    );
    let log = IssueLog::open(&other, options().durability(Durability::Synced)).unwrap();
    pad(&log, WRITTEN);
    compare_unclosed(&other);
}
