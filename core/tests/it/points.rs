//! Point reads: single issues, found without reading all of them.

use std::{
    fs, io,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use strand_core::{
    Batch, Durability, Error, Filter, Issue, IssueEvent, IssueLog, Issues, Log, Options, Patch,
    Payload, PointReader, Seq, Version,
    testing::{Dir, Disk, OpenMode, Storage, StorageFile},
};

use crate::{
    fold::any_event,
    support::{TS, options},
};

/// Compares what point reads say of every id and key with the fold of everything.
pub(crate) fn compare(dir: &Path, log: Option<&IssueLog>) {
    let whole = Issues::load(dir).unwrap();
    let mut reader = PointReader::open(dir).unwrap();
    let ids = whole.iter().map(|(id, _)| id.to_owned());
    let strange = ["", "bd", "bd-", "bd-1\n", "zz", "\u{10ffff}"].map(str::to_owned);
    let usual = (0..5).map(|number| format!("bd-{number}"));
    for id in ids.chain(strange).chain(usual) {
        let expected = whole.get(&id).cloned();
        let version = whole.version(&id).filter(|_| expected.is_some());
        let found = reader.get(&id).unwrap();
        assert_eq!(found.as_ref().map(|found| found.version), version, "{id:?}");
        assert_eq!(found.map(|found| found.issue), expected, "{id:?}");
        assert_eq!(reader.blockers(&id).unwrap(), whole.blockers(&id), "{id:?}");
        if let Some(log) = log {
            let found = log.get(&id).unwrap();
            assert_eq!(found.map(|found| found.issue), expected, "{id:?}");
        }
    }
    for key in (0..100)
        .chain((100..800).step_by(9))
        .map(|number| format!("k{number}"))
    {
        assert_eq!(reader.key(&key).unwrap(), whole.key(&key), "{key}");
    }
    compare_unclosed(dir);
    compare_each(dir);
}

#[test]
fn an_issue_is_read_in_the_file_that_has_the_name_now() {
    const LOG: &str = "log-00000000000000000001.jsonl";
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |dir: &Path| IssueLog::open(dir, options()).unwrap();
    let log = open(dir.path());
    log.create(Issue::new("bd-1", "Mend the fence")).unwrap();
    for name in ["MANIFEST", LOG] {
        fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
    }
    let mut reader = PointReader::open(dir.path()).unwrap();
    assert!(
        reader.get("bd-1").unwrap().is_some(),
        "the file is open now"
    );

    // A writer whose lock was removed still writes to a file that has lost its name.
    log.patch("bd-1", Patch::new().add_label("lost")).unwrap();
    drop(log);
    open(other.path()).claim("bd-1", "agent-7").unwrap();
    fs::rename(other.path().join(LOG), dir.path().join(LOG)).unwrap();

    assert_eq!(reader.refresh().unwrap(), Seq::new(2));
    let found = reader.get("bd-1").unwrap().unwrap();
    assert_eq!(found.issue.labels(), Vec::<String>::new());
    assert_eq!(found.issue.assignee().as_deref(), Some("agent-7"));
}

/// Compares the issues that are read one after the other with the fold of everything.
pub(crate) fn compare_each(dir: &Path) {
    let whole = Issues::load(dir).unwrap();
    let all = whole.iter().map(|(id, issue)| {
        let version = whole.version(id).unwrap();
        (id.to_owned(), version, issue.clone())
    });
    let all: Vec<_> = all.collect();
    for most in [0, 1, all.len() / 2, all.len(), usize::MAX] {
        let mut found = Vec::new();
        let passed = Issues::each(dir, |id, version, issue| {
            found.push((id.to_owned(), version, issue.clone()));
            if found.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let passed = passed.unwrap();
        assert_eq!(passed.last_seq, whole.last_seq());
        assert_eq!(passed.without_effect, whole.without_effect());
        assert_eq!(found, all[..most.clamp(1.min(all.len()), all.len())]);
    }
}

/// Compares what is read of the issues that are not closed with all issues.
pub(crate) fn compare_unclosed(dir: &Path) {
    compare_unclosed_with(dir, &Issues::load(dir).unwrap());
}

pub(crate) fn compare_unclosed_with(dir: &Path, whole: &Issues) {
    let part = Issues::load_unclosed(dir).unwrap();
    assert_eq!(part.last_seq(), whole.last_seq());
    assert_eq!(part.ready(), whole.ready());
    for status in ["open", "blocked", "hooked", "in_progress"] {
        let filter = Filter::new().status(status);
        let found = part.list(&filter);
        assert_eq!(found, whole.list(&filter));
        for (id, _) in found {
            assert_eq!(part.version(id), whole.version(id), "{id}");
            assert_eq!(part.blockers(id), whole.blockers(id), "{id}");
        }
    }
}

/// Events of issues that block each other and are parts of each other.
pub(crate) fn any_related() -> impl Strategy<Value = IssueEvent> {
    let kinds = prop_oneof![Just("blocks"), Just("parent-child"), Just("related")];
    let depends = prop::collection::vec((0..8_u8, kinds), 0..3);
    let status = prop_oneof![
        Just("open"),
        Just("closed"),
        Just("closed"),
        Just("tombstone")
    ];
    let issue = (0..8_u8, status, depends).prop_map(|(number, status, depends)| {
        let id = format!("bd-{number}");
        let of =
            |(on, kind)| json!({"issue_id": id, "depends_on_id": format!("bd-{on}"), "type": kind});
        let depends: Vec<Value> = depends.into_iter().map(of).collect();
        let issue = Issue::new(&id, "Mend").with("status", status).unwrap();
        issue.with("dependencies", &depends).unwrap()
    });
    prop_oneof![
        issue.prop_map(|issue| IssueEvent::add(issue, TS)),
        any_event(),
        any_event(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_unclosed_issues_are_those_of_the_full_fold(
        events in prop::collection::vec(any_related(), 1..60),
        compacted_after in 0..60_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = IssueLog::open(dir.path(), buffered()).unwrap();
        for (at, events) in events.chunk_by(|event, _| event.ts.as_ms() % 3 == 0).enumerate() {
            match events {
                [event] => log.append(event).unwrap(),
                events => log.append_batch(events).unwrap(),
            };
            if at == compacted_after {
                log.compact().unwrap();
            }
        }
        log.log().sync_all().unwrap();
        compare_unclosed(dir.path());
        let ready = log.with_unclosed(|issues| issues.ready().len()).unwrap();
        prop_assert_eq!(ready, log.with_issues(|issues| issues.ready().len()).unwrap());
    }
}

#[test]
fn whatever_three_events_do_to_an_issue_the_unclosed_ones_are_found() {
    const KINDS: usize = 12;
    let issue = |id: &str, status: &str| {
        let issue = Issue::new_at(id, "Mend", TS);
        issue.with("status", status).unwrap()
    };
    let patch = |status: &str| Patch::new().set("status", status).unwrap();
    let event = |kind: usize, id: &str| match kind {
        0 => IssueEvent::add(issue(id, "open"), TS),
        1 => IssueEvent::add(issue(id, "closed"), TS),
        2 => IssueEvent::update(issue(id, "open"), TS),
        3 => IssueEvent::update(issue(id, "tombstone"), TS),
        4 => IssueEvent::close(id, TS),
        5 => IssueEvent::reopen(id, TS),
        6 => IssueEvent::delete(id, TS),
        7 => IssueEvent::set_blocked(id, TS),
        8 => IssueEvent::unset_blocked(id, TS),
        9 => IssueEvent::patch(id, patch("open"), TS),
        10 => IssueEvent::patch(id, patch("closed"), TS),
        _ => IssueEvent::patch(id, Patch::new().add_label("a"), TS),
    };
    let ids =
        |begin: usize| (0..KINDS.pow(3)).map(move |case| (format!("bd-{begin}-{case}"), case));
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), buffered().tombstone_ms(u64::MAX)).unwrap();
    // In the snapshot: absent, open, closed and deleted ones.
    for (id, _) in (1..4).flat_map(ids) {
        log.append(&event(usize::from(id.starts_with("bd-2")), &id))
            .unwrap();
        if id.starts_with("bd-3") {
            log.append(&IssueEvent::delete(id, TS)).unwrap();
        }
    }
    log.compact().unwrap();
    for step in 0..3 {
        for (id, case) in (0..4).flat_map(ids) {
            let kind = case / KINDS.pow(step) % KINDS;
            log.append(&event(kind, &id)).unwrap();
        }
    }
    log.log().sync_all().unwrap();
    compare_unclosed(dir.path());
}

#[test]
fn a_parent_that_the_log_closed_passes_on_what_the_log_says_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), buffered()).unwrap();
    let on = |id: &str, on: &str, kind: &str| {
        Patch::new()
            .append(
                "dependencies",
                &json!({"issue_id": id, "depends_on_id": on, "type": kind}),
            )
            .unwrap()
    };
    for id in ["bd-1", "bd-2", "bd-3"] {
        log.create(Issue::new(id, "Mend")).unwrap();
    }
    log.patch("bd-1", on("bd-1", "bd-2", "parent-child"))
        .unwrap();
    log.compact().unwrap();
    log.patch("bd-2", on("bd-2", "bd-3", "blocks")).unwrap();
    log.commit(&Batch::new().close("bd-2")).unwrap();
    log.log().sync_all().unwrap();
    compare_unclosed(dir.path());
    let part = Issues::load_unclosed(dir.path()).unwrap();
    assert_eq!(part.blockers("bd-1"), ["bd-3"]);
}

#[test]
fn a_damaged_or_foreign_file_of_the_unclosed_issues_changes_no_answer() {
    let make = |title: &str| {
        let dir = tempfile::tempdir().unwrap();
        let log = IssueLog::open(dir.path(), buffered()).unwrap();
        for number in 0..8 {
            log.create(Issue::new(&format!("bd-{number}"), title))
                .unwrap();
            if number % 2 == 0 {
                log.commit(&Batch::new().close(format!("bd-{number}")))
                    .unwrap();
            }
        }
        log.compact().unwrap();
        log.commit(&Batch::new().reopen("bd-2").close("bd-3"))
            .unwrap();
        log.log().sync_all().unwrap();
        dir
    };
    let (dir, other) = (make("Mend the fence"), make("Paint the fence"));
    let name = "unclosed-00000000000000000012.jsonl";
    compare_unclosed(dir.path());
    let path = dir.path().join(name);
    let good = fs::read(&path).unwrap();
    assert!(String::from_utf8_lossy(&good).lines().count() == 5);
    for at in 0..good.len() {
        for change in [0x01, b'\n' ^ good[at]] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            fs::write(&path, &bytes).unwrap();
            compare_unclosed(dir.path());
        }
        fs::write(&path, &good[..at]).unwrap();
        compare_unclosed(dir.path());
    }
    fs::copy(other.path().join(name), &path).unwrap();
    compare_unclosed(dir.path());
    fs::remove_file(&path).unwrap();
    compare_unclosed(dir.path());
}

/// The indexes in a store, by name.
fn indexes(dir: &Path) -> Vec<String> {
    let names = crate::support::names(dir).into_iter();
    names.filter(|name| name.contains(".index")).collect()
}

/// A text that makes a record long enough that indexes are written after a few.
fn long() -> String {
    "…".repeat(5_000)
}

pub(crate) fn buffered() -> Options {
    options().durability(Durability::Buffered)
}

#[derive(Debug, Clone)]
enum Act {
    Append(Box<IssueEvent>),
    Batch(Vec<IssueEvent>),
    /// A write under conditions, which also keeps the indexes up.
    Patch(u8, bool),
    Compact,
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any_event().prop_map(|event| Act::Append(Box::new(event))),
        2 => prop::collection::vec(any_event(), 1..5).prop_map(Act::Batch),
        6 => (0..8_u8, any::<bool>()).prop_map(|(id, long)| Act::Patch(id, long)),
        1 => Just(Act::Compact),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_point_read_equals_the_full_fold(
        acts in prop::collection::vec(any_act(), 1..80),
        segment_bytes in prop_oneof![Just(1_000_u64), Just(100_000), Just(64 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let open = || IssueLog::open(dir.path(), buffered().segment_bytes_max(segment_bytes)).unwrap();
        let other = open();
        let mut log = open();
        for (at, act) in (1..).zip(acts) {
            match act {
                Act::Append(event) => drop(log.append(&event).unwrap()),
                Act::Batch(events) => drop(log.append_batch(&events).unwrap()),
                Act::Patch(id, is_long) => {
                    let text = if is_long { long() } else { String::new() };
                    let patch = Patch::new().set("description", &text).unwrap();
                    let batch = Batch::at(TS).key(format!("k{at}")).patch(format!("bd-{id}"), patch);
                    // There may be no such issue.
                    drop(if at % 2 == 0 { log.commit(&batch) } else { other.commit(&batch) });
                }
                Act::Compact => drop(log.compact().unwrap()),
                Act::Reopen => log = open(),
            }
            if at % 32 == 0 {
                log.log().sync_all().unwrap();
                compare(dir.path(), Some(&other));
            }
        }
        log.log().sync_all().unwrap();
        compare(dir.path(), Some(&log));
        // Where no hints say how far the log is durable.
        fs::remove_file(dir.path().join("shm")).unwrap();
        compare(dir.path(), None);
    }
}

/// A store with a snapshot, and behind it several segments with indexes.
fn indexed(dir: &Path) {
    let log = IssueLog::open(dir, buffered().segment_bytes_max(100_000)).unwrap();
    for number in 0..8 {
        log.create(Issue::new_at(&format!("bd-{number}"), "Mend the fence", TS))
            .unwrap();
    }
    log.compact().unwrap();
    for round in 0..4 {
        for number in 0..8 {
            let patch = Patch::new().set("description", &format!("{round} {}", long()));
            let id = format!("bd-{}", (number * 3 + round) % 8);
            let batch = Batch::at(TS).patch(id, patch.unwrap());
            log.commit(&batch.key(format!("k{}", 8 * round + number)))
                .unwrap();
        }
    }
    log.log().sync_all().unwrap();
}

#[test]
fn an_index_that_is_missing_cut_stale_foreign_or_damaged_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    indexed(dir);
    let names = indexes(dir);
    assert!(names.len() > 2, "{names:?}");
    compare(dir, None);
    let another = tempfile::tempdir().unwrap();
    indexed(another.path());
    for name in &names {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        let foreign = fs::read(another.path().join(name)).unwrap();
        let variants = (0..good.len()).step_by(good.len() / 6).map(|at| {
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            changed
        });
        let cut = (0..good.len())
            .step_by(good.len() / 4)
            .map(|len| good[..len].to_vec());
        let holed = (0..good.len()).step_by(good.len() / 2).map(|at| {
            let mut holed = good.clone();
            holed[at..].fill(0);
            holed
        });
        for bytes in variants.chain(cut).chain(holed).chain([foreign]) {
            fs::write(&path, bytes).unwrap();
            compare(dir, None);
        }
        fs::remove_file(&path).unwrap();
        compare(dir, None);
        fs::write(&path, good).unwrap();
    }
    // One segment's index in the place of another's.
    fs::copy(dir.join(&names[0]), dir.join(&names[1])).unwrap();
    compare(dir, None);
}

#[test]
fn an_index_of_another_past_of_the_same_log_is_not_believed() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, saved) = (temp.path().join("store"), temp.path().join("saved"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&saved).unwrap();
    let write = |prefix: &str| {
        let log = IssueLog::open(&dir, buffered()).unwrap();
        for number in 0..40 {
            let issue = Issue::new_at(&format!("{prefix}-{number}"), &long()[..600], TS);
            let issue = issue.with("description", &long()).unwrap();
            log.create(issue).unwrap();
        }
        log.log().sync_all().unwrap();
    };
    write("bd");
    for name in crate::support::names(&dir) {
        fs::copy(dir.join(&name), saved.join(&name)).unwrap();
    }
    write("old");
    let stale = fs::read(dir.join(&indexes(&dir)[0])).unwrap();
    // The log as it was before, in the same files, goes on otherwise.
    for name in crate::support::names(&saved) {
        fs::write(dir.join(&name), fs::read(saved.join(&name)).unwrap()).unwrap();
    }
    write("new");
    fs::write(dir.join(&indexes(&dir)[0]), stale).unwrap();
    compare(&dir, None);
    write("more");
    compare(&dir, None);
}

#[test]
fn long_ids_that_begin_and_end_alike_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), buffered()).unwrap();
    let ids = ["bd-begin-1-end-of-it", "bd-begin-2-end-of-it"];
    for id in ids {
        log.create(Issue::new(id, "Mend the fence")).unwrap();
    }
    log.commit(&Batch::new().close(ids[0])).unwrap();
    log.log().sync_all().unwrap();
    compare_unclosed(dir.path());
    let open = Issues::load_unclosed(dir.path()).unwrap();
    assert_eq!(open.ready().len(), 1);
    assert_eq!(open.ready()[0].0, ids[1]);
}

/// Two ids with the same 64-bit FNV-1a hash behind `id:`, as indexes of layout 2 had it.
const ALIKE: [&str; 2] = ["bd-i6ptJQuQQ4B.FytsI", "bd-i6pGF.kEeWKkW8-iI"];

#[test]
fn issues_whose_ids_have_one_hash_are_told_apart() {
    let hash = |id: &str| {
        let bytes = b"id:".iter().chain(id.as_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    assert_eq!(hash(ALIKE[0]), hash(ALIKE[1]));
    for [one, other] in [ALIKE, [ALIKE[1], ALIKE[0]]] {
        let new = |id: &str| Batch::at(TS).create(Issue::new_at(id, "Mend the fence", TS));
        let acts: [&[Batch]; 5] = [
            &[new(one), new(other), Batch::at(TS).close(one)],
            &[new(one), Batch::at(TS).close(one), new(other)],
            &[new(one), new(other), Batch::at(TS).delete(other)],
            &[
                new(one),
                Batch::at(TS).close(one),
                new(other),
                Batch::at(TS).reopen(one),
            ],
            &[new(one), new(other), Batch::at(TS).claim(one, "agent-7")],
        ];
        let cases = acts.into_iter();
        for (acts, compact_after) in
            cases.flat_map(|acts| (0..=acts.len()).map(move |after| (acts, after)))
        {
            let dir = tempfile::tempdir().unwrap();
            let log = IssueLog::open(dir.path(), buffered()).unwrap();
            for (at, act) in acts.iter().enumerate() {
                if at == compact_after {
                    log.compact().unwrap();
                }
                log.commit(act).unwrap();
                log.log().sync_all().unwrap();
                compare(dir.path(), Some(&log));
            }
            // Long enough for an index, and for a look at records that are sorted.
            for number in 0..20 {
                let issue = Issue::new_at(&format!("bd-{number}"), "Buy wire", TS);
                let issue = issue.with("description", &long()).unwrap();
                log.commit(&Batch::at(TS).create(issue)).unwrap();
            }
            log.log().sync_all().unwrap();
            assert_eq!(indexes(dir.path()).len(), 1);
            compare(dir.path(), Some(&log));
        }
    }
}

#[test]
fn damage_in_a_snapshot_leads_to_an_error_and_never_to_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), buffered()).unwrap();
    for number in 0..6 {
        let create = Batch::at(TS).create(Issue::new_at(&format!("bd-{number}"), "Mend", TS));
        log.commit(&create.key(format!("k{}", 6 - number))).unwrap();
    }
    log.commit(&Batch::at(TS).delete("bd-3")).unwrap();
    log.compact().unwrap();
    let whole = Issues::load(dir.path()).unwrap();
    let path = dir.path().join("snapshot-00000000000000000007.jsonl");
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..good.len() {
        for change in [0x01, 0x20, b'\n' ^ good[at]] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            fs::write(&path, &bytes).unwrap();
            let mut check = |found: strand_core::Result<bool>| match found {
                Ok(equal) => assert!(equal, "byte {at} changed by {change:#x}"),
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            };
            let mut reader = match PointReader::open(dir.path()) {
                Ok(reader) => reader,
                Err(error) => {
                    check(Err(error));
                    continue;
                }
            };
            for id in ["bd-0", "bd-2", "bd-3", "bd-5", "bd-9", "a"] {
                let found = reader.get(id);
                check(found.map(|found| found.map(|found| found.issue).as_ref() == whole.get(id)));
            }
            for key in ["k1", "k4", "k9"] {
                check(reader.key(key).map(|found| found == whole.key(key)));
            }
        }
    }
    assert!(refused > 3 * good.len(), "{refused}");
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(
        PointReader::open(dir.path()),
        Err(Error::Corrupt { .. })
    ));
    fs::write(&path, good).unwrap();
    compare(dir.path(), None);
}

/// Any text as a payload.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text(Box<RawValue>);

impl Payload for Text {}

#[test]
fn an_event_is_found_however_it_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<Text>::open(dir.path(), buffered()).unwrap();
    for text in [
        r#"{"ts":1,"op":"add","id":"bd-1","data":{"id":"bd-1","title":"one"}}"#,
        r#"{"ts":1,"op":"add","id":"b\u0064-2","data":{"id":"bd-2","title":"two"}}"#,
        r#"{"ts":1,"op":"add","\u0069d":"bd-3","data":{"id":"bd-3","title":"three"}}"#,
        r#"{ "id" : "bd-4" , "ts":1,"op":"add","data":{"id":"x","title":"\"id\":\"bd-1\""}}"#,
        r#"{"ts":1,"op":"add","id":"bd\/5","data":{"id":"bd/5","title":"five"}}"#,
        r#"{"ts":1,"op":"add","id":"ü\n","key" : "k1","data":{"id":"ü\n","title":"\\u"}}"#,
        r#"{"ts":1,"op":"patch","id":"bd-1","patch":{"set":{"id2":"bd-7"}},"key":"k\u0032"}"#,
        r#"{"ts":1,"op":"patch","id":"bd-1","patch":{"set":{"id2":"bd-8"}},"key":"k3"}"#,
    ] {
        log.append(&Text(serde_json::from_str(text).unwrap()))
            .unwrap();
    }
    log.sync_all().unwrap();
    compare(dir.path(), None);
    let whole = Issues::load(dir.path()).unwrap();
    assert_eq!((whole.len(), whole.key("k2")), (6, Some(Seq::new(7))));
    assert_eq!(whole.key("k3"), Some(Seq::new(8)));
    let mut reader = PointReader::open(dir.path()).unwrap();
    for id in ["bd/5", "ü\n", "bd-3"] {
        assert!(reader.get(id).unwrap().is_some(), "{id}");
    }
    // What is no event is not skipped.
    log.append(&Text(serde_json::from_str(r#"{"job":1}"#).unwrap()))
        .unwrap();
    log.sync_all().unwrap();
    assert!(matches!(
        PointReader::open(dir.path()),
        Err(Error::Corrupt { .. })
    ));
}

#[test]
fn keys_of_a_snapshot_of_the_first_release_are_found() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2-without-digests");
    let dir = tempfile::tempdir().unwrap();
    for name in crate::support::names(&golden) {
        fs::copy(golden.join(&name), dir.path().join(&name)).unwrap();
    }
    let mut reader = PointReader::open(dir.path()).unwrap();
    let keys = ["k-1", "k-2", "k-3"].map(|key| reader.key(key).unwrap());
    assert_eq!(keys, [Some(Seq::new(7)), Some(Seq::new(8)), None]);
    compare_each(dir.path()); // Its keys are not in order.
    assert_eq!(
        reader.get("ü").unwrap().map(|found| found.version),
        Some(Version::new(9))
    );
}

/// The disk, with the bytes counted that are read.
#[derive(Debug, Default, Clone)]
struct Counted(Arc<AtomicU64>);

impl Storage for Counted {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        Ok(Box::new(CountedFile(file, self.clone())))
    }
}

#[derive(Debug)]
struct CountedFile(Box<dyn StorageFile>, Counted);

impl StorageFile for CountedFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.0
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, offset)?;
        self.1.0.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[test]
fn a_point_read_or_write_reads_little_of_a_long_store() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let counted = Counted::default();
    let open = || IssueLog::open(dir, buffered().storage(Arc::new(counted.clone()))).unwrap();
    let log = open();
    let create = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let issue = Issue::new_at(&format!("bd-{number}"), &"…".repeat(300), TS);
            log.create(issue).unwrap();
        }
    };
    create(0..2_000);
    log.compact().unwrap();
    create(2_000..4_000);
    log.log().sync_all().unwrap();
    let total: u64 = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(total > 4_000_000);
    let read = |act: &mut dyn FnMut()| {
        let before = counted.0.load(Ordering::Relaxed);
        act();
        counted.0.load(Ordering::Relaxed) - before
    };
    let storage: Arc<dyn Storage> = Arc::new(counted.clone());
    let show = read(&mut || {
        let mut reader = PointReader::open_in(&storage, dir).unwrap();
        assert!(reader.get("bd-7").unwrap().is_some() && reader.get("bd-3007").unwrap().is_some());
    });
    let claim = read(&mut || assert!(open().claim("bd-77", "agent-7").is_ok()));
    let again = read(&mut || assert!(log.claim("bd-78", "agent-7").is_ok()));
    let close = (0..4_000).filter(|number| number % 200 > 0);
    let close = close.fold(Batch::new(), |batch, number| {
        batch.close(format!("bd-{number}"))
    });
    log.commit(&close).unwrap();
    log.compact().unwrap();
    let ready = read(&mut || {
        let found = open().with_unclosed(|issues| issues.ready().len());
        assert_eq!(found.unwrap(), 20);
    });
    assert!(ready < total / 10, "{ready} of {total}");
    assert!(show < total / 10, "{show} of {total}");
    assert!(claim < total / 10, "{claim} of {total}");
    assert!(again < total / 20, "{again} of {total}");
}
