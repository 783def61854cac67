//! A repair keeps everything that is whole, names what is lost, and can be killed at any step and
//! repeated.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use strand_core::{
    Batch, CorruptReason, Error, IssueEvent, IssueLog, Issues, LiveIssues, Patch, Reader, Seq,
    Timestamp, Version,
    check::{Advice, check},
    repair::{RepairReport, RepairedSnapshot, repair},
};

use crate::{
    check::{copy, files, varied},
    support::{
        Mortal, T0, append_numbered, event, first_segment, line_ends, names, open_issues, options,
        store_of,
    },
};

const LIVE: &str = "snapshot-00000000000000000005.jsonl";
const BACKUP: &str = "snapshot-00000000000000000003.jsonl";

const BACKUP_TAKEN: RepairedSnapshot = RepairedSnapshot::Backup {
    seq: 5,
    backup_seq: 3,
};

/// The records of a log as they are stored, by their numbers.
pub(crate) type Lines = BTreeMap<u64, Vec<u8>>;

pub(crate) fn lines(dir: &Path) -> Lines {
    let reader = Reader::<IssueEvent>::open(dir).unwrap();
    let records = reader.records().unwrap().map(Result::unwrap);
    records
        .map(|record| (record.seq.get(), record.line))
        .collect()
}

pub(crate) fn lost(repaired: &RepairReport) -> Vec<u64> {
    repaired.lost.iter().cloned().flatten().collect()
}

/// Repairs a store and checks everything that must hold afterwards.
pub(crate) fn repaired(dir: &Path, before: &Lines) -> RepairReport {
    let damaged = files(dir);
    let report = repair(dir, &options()).unwrap();
    assert!(!report.is_nothing());
    let text = report.to_string();
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("\"lost\":")
    );
    for (file, kept) in &report.files {
        assert!(text.contains(file.to_str().unwrap()), "{text}");
        // The old file is kept as it was, with a note.
        if let Some(kept) = kept {
            let old = &damaged[&dir.join(file)];
            assert_eq!(&fs::read(dir.join(kept)).unwrap(), old);
            let note = fs::read(dir.join(format!("{}.json", kept.display()))).unwrap();
            let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
            assert_eq!((&note["file"], &note["kept"]), (&json!(file), &json!(kept)));
            assert!(!note["damages"].as_array().unwrap().is_empty(), "{note}");
        }
    }
    let lost = lost(&report);
    let now = lines(dir);
    let reader = Reader::<IssueEvent>::open(dir).unwrap();
    for record in reader.records().unwrap() {
        let record = record.unwrap();
        assert_eq!(record.events.is_empty(), lost.contains(&record.seq.get()));
        if let Some(line) = before
            .get(&record.seq.get())
            .filter(|_| !lost.contains(&record.seq.get()))
        {
            assert_eq!(line, &record.line);
        }
    }
    for seq in &lost {
        assert!(now.contains_key(seq), "{seq} is neither there nor a no-op");
    }
    assert_is_well(dir);
    report
}

/// A store that needs nothing, and to which can be appended.
pub(crate) fn assert_is_well(dir: &Path) {
    let found = check(dir).unwrap();
    assert_eq!(found.advice, Advice::Nothing, "{found}");
    assert!(!names(dir).iter().any(|name| name.contains(".new")));
    let state = files(dir);
    let again = repair(dir, &options()).unwrap();
    assert!(again.is_nothing(), "{again}");
    assert_eq!(again.to_string(), "nothing to repair\n");
    for (path, bytes) in files(dir) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.contains("lock") {
            assert_eq!(state.get(&path), Some(&bytes), "{name}");
        }
    }
    let last = lines(dir).last_key_value().map(|(seq, _)| *seq);
    let log = open_issues(dir);
    let seq = log.append(&event("bd-next")).unwrap().seq;
    assert!(last.is_none_or(|last| seq == last + 1), "{last:?} {seq}");
    assert!(Issues::load(dir).unwrap().get("bd-next").is_some());
    fs::remove_file(dir.join("shm")).unwrap();
    assert_eq!(
        open_issues(dir).append(&event("bd-next")).unwrap().seq,
        seq.next()
    );
}

fn store(dir: &Path) -> Lines {
    drop(varied(dir));
    lines(dir)
}

fn change(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x04;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let empty = repair(dir.path(), &options());
    assert!(matches!(empty, Err(Error::NoStore { .. })), "{empty:?}");
    assert!(names(dir.path()).is_empty());
    store(dir.path());
    assert_is_well(dir.path());
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn a_torn_tail_is_left_to_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = store_of(dir.path(), 3);
    bytes.extend_from_slice(b"{\"crc\":");
    fs::write(first_segment(dir.path()), &bytes).unwrap();
    assert!(repair(dir.path(), &options()).unwrap().is_nothing());
    assert_eq!(fs::read(first_segment(dir.path())).unwrap(), bytes);
}

#[test]
fn a_no_op_record_has_its_number_and_no_events() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 4);
    let before = lines(dir.path());
    let mut follower = Reader::<IssueEvent>::open(dir.path())
        .unwrap()
        .follow(Seq::new(1))
        .unwrap();
    change(&first_segment(dir.path()), line_ends(&bytes)[1] + 50);
    let report = repaired(dir.path(), &before);
    assert_eq!(lost(&report), [2]);
    let text = fs::read_to_string(first_segment(dir.path())).unwrap();
    let void = text.lines().nth(1).unwrap();
    assert_eq!(void, r#"{"crc":"5621a2f9","seq":2,"synced":0,"batch":[]}"#);
    let note = dir
        .path()
        .join("quarantine")
        .join("log-00000000000000000001.jsonl-0.damaged.json");
    let note: serde_json::Value = serde_json::from_slice(&fs::read(note).unwrap()).unwrap();
    assert_eq!(note["damages"][0]["line"], 2);
    assert_eq!(note["damages"][0]["offset"], line_ends(&bytes)[1]);
    assert_eq!(note["lost"][0]["from_seq"], 2);
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(
        (store.version("bd-1"), store.version("bd-2")),
        (Some(Version::new(1)), None)
    );
    assert_eq!(store.version("bd-3"), Some(Version::new(3)));
    assert_eq!(check(dir.path()).unwrap().no_op, [2..=2]);
    for seq in 1..=5 {
        let record = follower.try_next().unwrap().unwrap();
        assert_eq!(
            (record.seq.get(), record.events.len()),
            (seq, usize::from(seq != 2))
        );
    }
    // It goes the way of all records.
    open_issues(dir.path()).compact().unwrap();
    assert_eq!(
        Issues::load(dir.path()).unwrap().version("bd-3"),
        Some(Version::new(3))
    );
}

#[test]
fn a_changed_byte_loses_at_most_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let good = Issues::load(dir.path()).unwrap();
    let shm = fs::read(dir.path().join("shm")).unwrap();
    let mut count = BTreeMap::new();
    for (path, bytes) in files(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        // Nothing depends on the file of the unclosed issues.
        let is_needed = !name.contains("lock") && name != "shm" && !name.starts_with("unclosed-");
        if !is_needed || name == BACKUP {
            continue;
        }
        // Each byte of one line, and some of each other.
        for at in (0..bytes.len()).filter(|at| at % 7 == 0 || bytes[*at] == b'\n' || *at < 30) {
            let case = tempfile::tempdir().unwrap();
            copy(dir.path(), case.path());
            // Damage to the mark behind a full segment is harmless.
            let records_end = bytes.iter().rposition(|byte| *byte == b'}').unwrap() + 2;
            if at >= records_end {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(case.path().join(name), &damaged).unwrap();
            let advice = check(case.path()).unwrap().advice;
            *count.entry((name.to_owned(), advice as u8)).or_insert(0) += 1;
            if advice != Advice::Repair {
                // The last record, which nothing says was acknowledged, without the hints; a newer
                // format.
                let is_last = name.ends_with("8.jsonl") || name.ends_with("9.jsonl");
                assert!(
                    advice == Advice::Open && is_last
                        || advice == Advice::Upgrade && name == "MANIFEST",
                    "{name} byte {at}: {advice:?}"
                );
                continue;
            }
            let report = repaired(case.path(), &before);
            let lost = lost(&report);
            if name.starts_with("log-") {
                let line = line_ends(&bytes[..at]).len() as u64 - 1;
                let first: u64 = name[4..24].parse().unwrap();
                let newline = bytes[at] == b'\n';
                let expected = if newline { vec![] } else { vec![first + line] };
                assert_eq!(lost, expected, "{name} byte {at}");
            } else {
                assert!(lost.is_empty());
            }
            if name == "MANIFEST" {
                let now = fs::read(case.path().join("MANIFEST")).unwrap();
                assert_eq!(now, bytes, "byte {at}");
            }
            let now = Issues::load(case.path()).unwrap();
            let gone = good
                .iter()
                .filter(|(id, issue)| now.get(id) != Some(issue))
                .count();
            let allowed = usize::from(!lost.is_empty() || name == LIVE);
            assert!(gone <= allowed, "{name} byte {at}: {gone} issues are gone");
        }
    }
    assert_eq!(fs::read(dir.path().join("shm")).unwrap(), shm);
    assert!(count.len() >= 5, "{count:?}");
}

#[test]
fn records_missing_at_the_end_become_no_ops_as_far_as_the_hints_say() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let (first, last) = (
        *before.first_key_value().unwrap().0,
        *before.last_key_value().unwrap().0,
    );
    let last_file = names(dir.path())
        .into_iter()
        .rfind(|name| name.starts_with("log-") && !name.contains(".jsonl."))
        .unwrap();
    let last_first: u64 = last_file[4..24].parse().unwrap();
    fs::write(dir.path().join(&last_file), "").unwrap();
    let report = repaired(dir.path(), &before);
    assert_eq!(lost(&report), (last_first..=last).collect::<Vec<_>>());
    assert!(first < last_first);
}

#[test]
fn a_missing_segment_becomes_no_ops() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let segments: Vec<String> = names(dir.path())
        .into_iter()
        .filter(|name| name.starts_with("log-"))
        .collect();
    assert!(segments.len() > 1);
    for (number, name) in segments.iter().enumerate() {
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        fs::remove_file(case.path().join(name)).unwrap();
        if number + 1 == segments.len() {
            // Without the hints, the mark in the one before it says only that it began.
            let first: u64 = name[4..24].parse().unwrap();
            let report = repaired(case.path(), &before);
            assert_eq!(lost(&report), [first]);
            continue;
        }
        let next: u64 = segments[number + 1][4..24].parse().unwrap();
        let first: u64 = name[4..24].parse().unwrap();
        let report = repaired(case.path(), &before);
        assert_eq!(lost(&report), (first..next).collect::<Vec<_>>());
        assert_eq!(report.files.first_key_value().unwrap().1, &None);
    }
}

#[test]
fn a_log_without_any_file_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 3);
    fs::remove_file(dir.path().join("shm")).unwrap();
    fs::remove_file(first_segment(dir.path())).unwrap();
    let report = repaired(dir.path(), &Lines::new());
    assert_eq!((report.lost_from, report.lost.len()), (Some(1), 0));
    assert!(report.to_string().contains("record 1 and any after it"));
}

#[test]
fn an_absurd_gap_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 3);
    fs::write(dir.path().join("log-00000000000009999999.jsonl"), "").unwrap();
    assert_eq!(check(dir.path()).unwrap().advice, Advice::RestoreBackup);
    let before = files(dir.path());
    let refused = repair(dir.path(), &options());
    assert!(
        matches!(refused, Err(Error::BeyondRepair { .. })),
        "{refused:?}"
    );
    for (path, bytes) in before {
        if !path.to_str().unwrap().contains("lock") {
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn misplaced_records_are_put_in_their_place() {
    // Two blocks that changed places, blocks that are there twice, and one that is there instead of
    // another.
    let orders: [&[usize]; 4] = [
        &[1, 2, 6, 7, 5, 3, 4, 8, 9],
        &[1, 2, 3, 4, 5, 6, 7, 8, 2, 3, 9],
        &[1, 2, 3, 4, 1, 2, 5, 6, 7, 8, 9],
        &[1, 2, 3, 4, 2, 3, 7, 8, 9],
    ];
    for order in orders {
        let dir = tempfile::tempdir().unwrap();
        let bytes = store_of(dir.path(), 9);
        let before = lines(dir.path());
        let ends = line_ends(&bytes);
        let line = |number: usize| &bytes[ends[number - 1]..ends[number]];
        let all: Vec<u8> = order
            .iter()
            .flat_map(|number| line(*number))
            .copied()
            .collect();
        fs::write(first_segment(dir.path()), all).unwrap();
        let report = repaired(dir.path(), &before);
        let expected = (1..=9).filter(|number| !order.contains(number));
        let expected: Vec<u64> = expected.map(|number| number as u64).collect();
        assert_eq!(lost(&report), expected, "{order:?}");
    }
}

#[test]
fn a_copy_of_a_segment_under_another_name_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 9);
    let before = lines(dir.path());
    fs::copy(
        first_segment(dir.path()),
        dir.path().join("log-00000000000000000005.jsonl"),
    )
    .unwrap();
    assert_eq!(check(dir.path()).unwrap().advice, Advice::Repair);
    let report = repaired(dir.path(), &before);
    assert!(report.lost.is_empty(), "{report}");
    assert_eq!(report.files.len(), 2);
}

#[test]
fn a_snapshot_is_rebuilt_from_all_records_while_they_exist() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    append_numbered(log.log(), 1..=3);
    let kept = files(dir.path());
    log.compact().unwrap();
    let backed = files(dir.path());
    log.append(&event("bd-4")).unwrap();
    log.append(&IssueEvent::delete(
        "bd-1",
        Timestamp::from_ms(i64::MAX / 2),
    ))
    .unwrap();
    let more = files(dir.path());
    log.compact().unwrap();
    log.append(&event("bd-6")).unwrap();
    let good = Issues::load(dir.path()).unwrap();
    let before = lines(dir.path());
    drop(log);
    let restore = |name: &str, from: &BTreeMap<PathBuf, Vec<u8>>| {
        fs::write(dir.path().join(name), &from[&dir.path().join(name)]).unwrap();
    };
    // A compaction removes these last: the older snapshot and the segment after it, or all
    // segments.
    let second = "log-00000000000000000004.jsonl";
    restore(second, &more);
    assert!(backed.contains_key(&dir.path().join(BACKUP)));
    change(&dir.path().join(LIVE), 200);
    let report = repair(dir.path(), &options()).unwrap();
    let since_seq = 3;
    assert_eq!(
        report.snapshot,
        Some(RepairedSnapshot::Records { seq: 5, since_seq }),
        "{report}"
    );
    let text = report.to_string();
    assert!(
        text.contains("rebuilt from that of record 3 and all records since"),
        "{text}"
    );
    assert_eq!(Issues::load(dir.path()).unwrap(), good);

    fs::remove_file(dir.path().join(BACKUP)).unwrap();
    fs::remove_file(dir.path().join(LIVE)).unwrap();
    restore(second, &more);
    restore("log-00000000000000000001.jsonl", &kept);
    let report = repair(dir.path(), &options()).unwrap();
    let since_seq = 0;
    assert_eq!(
        report.snapshot,
        Some(RepairedSnapshot::Records { seq: 5, since_seq })
    );
    assert!(report.to_string().contains("rebuilt from all records"));
    assert_eq!(Issues::load(dir.path()).unwrap(), good);
    assert!(lines(dir.path()) == before);
    assert_is_well(dir.path());
}

#[test]
fn a_snapshot_without_its_records_is_rebuilt_from_its_good_lines() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let good = Issues::load(dir.path()).unwrap();
    let path = dir.path().join(LIVE);
    let bytes = fs::read(&path).unwrap();
    let ends = line_ends(&bytes);
    change(&path, ends[1] + 60);
    let report = repaired(dir.path(), &before);
    let Some(RepairedSnapshot::GoodLines {
        lost_lines,
        counts_before,
        counts,
        ..
    }) = &report.snapshot
    else {
        panic!("{report}");
    };
    assert_eq!(lost_lines[0].line, Some(2));
    assert_eq!(lost_lines[0].about.as_deref(), Some("bd-1"));
    assert_eq!((*counts_before, *counts), (Some([3, 1, 0]), [2, 1, 0]));
    assert!(report.to_string().contains("bd-1"), "{report}");
    let now = Issues::load(dir.path()).unwrap();
    assert!(now.get("bd-1").is_none() && now.version("bd-2").is_some());
    assert_eq!(now.get("bd-3"), good.get("bd-3"));
}

#[test]
fn a_missing_or_repeated_line_of_a_snapshot_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let path = dir.path().join(LIVE);
    let bytes = fs::read(&path).unwrap();
    let ends = line_ends(&bytes);
    let good = Issues::load(dir.path()).unwrap();
    let gone = [&bytes[..ends[1]], &bytes[ends[2]..]].concat();
    let doubled = [&bytes[..], &bytes[ends[1]..ends[2]]].concat();
    for (text, issues) in [(gone, 2), (doubled, 3)] {
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        fs::write(case.path().join(LIVE), text).unwrap();
        let found = check(case.path()).unwrap();
        assert!(found.damages[0].line.is_none(), "{found}");
        let report = repaired(case.path(), &before);
        assert!(matches!(
            report.snapshot,
            Some(RepairedSnapshot::GoodLines { counts_before: Some([3, ..]), counts: [now, ..], .. })
                if now == issues
        ));
        if issues == 3 {
            let now = Issues::load(case.path()).unwrap();
            assert!(good.iter().all(|(id, issue)| now.get(id) == Some(issue)));
        }
    }
}

#[test]
fn a_missing_snapshot_is_replaced_by_the_backup_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    fs::remove_file(dir.path().join(LIVE)).unwrap();
    let hopeless = tempfile::tempdir().unwrap();
    copy(dir.path(), hopeless.path());
    let report = repaired(dir.path(), &before);
    let snapshot = report.snapshot.as_ref().unwrap();
    assert_eq!(*snapshot, BACKUP_TAKEN);
    let text = report.to_string();
    assert!(
        text.contains("that of record 3 took its place")
            && text.contains("lost: what the records 4 to 5 did"),
        "{text}"
    );
    let now = Issues::load(dir.path()).unwrap();
    assert!(now.get("bd-2").is_some(), "its deletion is lost");

    fs::remove_file(hopeless.path().join(BACKUP)).unwrap();
    let refused = repair(hopeless.path(), &options());
    assert!(
        matches!(refused, Err(Error::BeyondRepair { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_manifest_is_rebuilt_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
    for text in [None, Some(""), Some("{\"crc\":\"")] {
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        match text {
            None => fs::remove_file(case.path().join("MANIFEST")).unwrap(),
            Some(text) => fs::write(case.path().join("MANIFEST"), text).unwrap(),
        }
        let report = repaired(case.path(), &before);
        assert!(
            report.lost.is_empty() && report.snapshot.is_none(),
            "{report}"
        );
        assert_eq!(fs::read(case.path().join("MANIFEST")).unwrap(), manifest);
    }
    // Manifest and snapshot, and a log without a snapshot.
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    let bytes = fs::read(dir.path().join(LIVE)).unwrap();
    change(&dir.path().join(LIVE), line_ends(&bytes)[1] + 60);
    let report = repaired(dir.path(), &before);
    assert!(matches!(
        &report.snapshot,
        Some(RepairedSnapshot::GoodLines { lost_lines, .. }) if lost_lines.len() == 1
    ));

    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 3);
    let before = lines(dir.path());
    let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
    change(&dir.path().join("MANIFEST"), 10);
    repaired(dir.path(), &before);
    assert_eq!(
        fs::read(dir.path().join("MANIFEST")).unwrap(),
        manifest,
        "its id was readable"
    );
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    repaired(dir.path(), &before);
}

#[test]
fn an_older_or_foreign_manifest_yields_to_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
    let good = Issues::load(dir.path()).unwrap();
    store_of(other.path(), 1);
    fs::copy(other.path().join("MANIFEST"), dir.path().join("MANIFEST")).unwrap();
    let found = check(dir.path()).unwrap();
    assert_eq!(found.advice, Advice::Repair, "{found}");
    assert_eq!(found.damages[0].file, Path::new("MANIFEST"));
    let report = repair(dir.path(), &options()).unwrap();
    assert!(
        report.lost.is_empty() && report.snapshot.is_none(),
        "{report}"
    );
    assert_eq!(fs::read(dir.path().join("MANIFEST")).unwrap(), manifest);
    assert!(Issues::load(dir.path()).unwrap() == good);
    assert!(lines(dir.path()) == before);
    assert_is_well(dir.path());
}

#[test]
fn a_snapshot_with_blank_lines_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    let bytes = fs::read(dir.path().join(LIVE)).unwrap();
    for at in [0, line_ends(&bytes)[2], bytes.len()] {
        let mut blank = bytes.clone();
        blank.insert(at, b'\n');
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        fs::write(case.path().join(LIVE), blank).unwrap();
        assert!(Issues::load(case.path()).is_err());
        repaired(case.path(), &before);
        assert_eq!(fs::read(case.path().join(LIVE)).unwrap(), bytes);
    }
}

#[test]
fn a_newer_store_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let path = dir.path().join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\":2", "\"format\":4")).unwrap();
    let refused = repair(dir.path(), &options());
    assert!(
        matches!(refused, Err(Error::UnsupportedVersion { .. })),
        "{refused:?}"
    );
}

/// A store with every kind of damage, and with records in the wrong segments.
fn wreck(dir: &Path) -> (Lines, Lines) {
    let log = IssueLog::open(dir, options()).unwrap();
    log.append(&event("bd-0")).unwrap();
    log.append(&event("bd-00")).unwrap();
    log.compact().unwrap();
    drop(log);
    let log = IssueLog::open(dir, options().segment_bytes_max(500)).unwrap();
    append_numbered(log.log(), 3..=14);
    drop(log);
    let before = lines(dir);
    let segments: Vec<PathBuf> = names(dir)
        .into_iter()
        .filter(|name| name.starts_with("log-"))
        .map(|name| dir.join(name))
        .collect();
    let [first, second, .., last] = segments.as_slice() else {
        panic!("{segments:?}");
    };
    // The first two have exchanged their bytes; one record of each is damaged, and one of the last.
    let (one, two) = (fs::read(first).unwrap(), fs::read(second).unwrap());
    fs::write(first, &two).unwrap();
    fs::write(second, &one).unwrap();
    change(first, 60);
    change(second, 70);
    change(last, 60);
    let bytes = fs::read(dir.join("snapshot-00000000000000000002.jsonl")).unwrap();
    change(
        &dir.join("snapshot-00000000000000000002.jsonl"),
        line_ends(&bytes)[1] + 60,
    );
    change(&dir.join("MANIFEST"), 70);
    let expected = tempfile::tempdir().unwrap();
    copy(dir, expected.path());
    fs::copy(dir.join("shm"), expected.path().join("shm")).unwrap();
    repair(expected.path(), &options()).unwrap();
    (before, lines(expected.path()))
}

#[test]
fn a_repair_that_dies_at_any_call_is_completed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (before, expected) = wreck(dir.path());
    let void = expected
        .iter()
        .filter(|(_, line)| line.ends_with(b"\"batch\":[]}"))
        .count();
    assert_eq!(void, 3);
    assert_eq!(expected.len(), before.len());
    let mut again = 0;
    for calls in 0.. {
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        let life = Mortal::of_changes(calls);
        let died = repair(case.path(), &options().storage(Arc::new(life)));
        let rest = repair(case.path(), &options()).unwrap();
        again += u64::from(!rest.is_nothing());
        // Where only the open was left, it is the next one that does it.
        drop(open_issues(case.path()));
        assert!(lines(case.path()) == expected, "after {calls} calls");
        let store = Issues::load(case.path()).unwrap();
        assert_eq!(store.len(), 10, "after {calls} calls");
        let kept = names(&case.path().join("quarantine"));
        let copies = kept
            .iter()
            .filter(|name| name.ends_with(".damaged"))
            .count();
        assert!((5..=6).contains(&copies), "after {calls} calls: {kept:?}");
        assert_is_well(case.path());
        if died.is_ok() {
            break;
        }
    }
    assert!(again > 20, "{again}");
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem that replaces open files: NTFS since Windows 10 1809, not Wine"
)]
fn an_open_writer_loses_nothing_wherever_the_repair_dies() {
    for share in [true, false] {
        let with = || options().share_memory(share);
        let healthy = tempfile::tempdir().unwrap();
        store(healthy.path());
        let damage = |dir: &Path| {
            let last = names(dir)
                .into_iter()
                .rfind(|name| name.starts_with("log-") && !name.contains(".jsonl."));
            let path = dir.join(last.unwrap());
            let mut bytes = fs::read(&path).unwrap();
            bytes[60] ^= 1;
            // The record in progress when its writer died.
            bytes.extend_from_slice(b"{\"crc\":");
            fs::write(path, bytes).unwrap();
            change(&dir.join("log-00000000000000000006.jsonl"), 60);
        };
        let mut appended = [0, 0];
        for calls in 0.. {
            let case = tempfile::tempdir().unwrap();
            copy(healthy.path(), case.path());
            let log = IssueLog::open(case.path(), with()).unwrap();
            let other = IssueLog::open(case.path(), with()).unwrap();
            let mut acknowledged = Vec::new();
            let mut append = |log: &IssueLog, id: &'static str| {
                let appended = log.append(&event(id));
                if let Ok(receipt) = &appended {
                    acknowledged.push((receipt.seq, id));
                }
                appended.is_ok()
            };
            assert!(append(&log, "bd-before") && append(&other, "bd-other"));
            damage(case.path());
            let life = Mortal::of_changes(calls);
            let died = repair(case.path(), &with().storage(Arc::new(life)));
            // They may be refused until the repair is done, but not forgotten. Of the two, the
            // first one rebuilds the hints, and the second one believes them.
            appended[usize::from(append(&log, "bd-during"))] += 1;
            append(&other, "bd-other-during");
            repair(case.path(), &with()).unwrap();
            assert!(append(&log, "bd-after") && append(&other, "bd-other-after"));
            let all = lines(case.path());
            assert_eq!(all.len() as u64, all.last_key_value().unwrap().0 - 5);
            for (seq, id) in acknowledged {
                let text = String::from_utf8_lossy(&all[&seq.get()]);
                let is_it = text.contains(&format!("{id:?}"));
                assert!(
                    is_it,
                    "{share}, {calls} calls: record {seq} ({id}) is {text}"
                );
            }
            assert_is_well(case.path());
            if died.is_ok() {
                break;
            }
        }
        assert!(appended[0] > 0 && appended[1] > 0, "{share}: {appended:?}");
    }
}

#[test]
fn unacknowledged_records_do_not_come_back_from_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 6);
    let ends = line_ends(&bytes);
    fs::remove_file(dir.path().join("shm")).unwrap();
    // Record 2 is damaged; 4 is whole, but nothing says that it was acknowledged, and 3 is not
    // there.
    let mut text = bytes[..ends[2]].to_vec();
    text[ends[1] + 50] ^= 1;
    let third = &bytes[ends[2]..ends[3]];
    text.extend_from_slice(third);
    text.extend_from_slice(b"junk\n");
    text.extend_from_slice(&bytes[ends[4]..ends[5]]);
    fs::write(first_segment(dir.path()), text).unwrap();
    let report = repair(dir.path(), &options()).unwrap();
    assert_eq!(lost(&report), [2, 4]);
    let now = lines(dir.path());
    assert_eq!(now.len(), 5, "5 says that 4 was durable");
    // As if the note covered fewer records: then the copy is no source of later ones.
    let note = dir
        .path()
        .join("quarantine/log-00000000000000000001.jsonl-0.damaged.json");
    let text = fs::read_to_string(&note).unwrap();
    assert!(text.contains("\"durable_seq\": 4"), "{text}");
    fs::write(
        &note,
        text.replace("\"durable_seq\": 4", "\"durable_seq\": 2"),
    )
    .unwrap();
    let path = first_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    change(&path, line_ends(&bytes)[2] + 50);
    assert_eq!(lost(&repair(dir.path(), &options()).unwrap()), [3]);
}

#[test]
fn files_that_a_rebuilt_manifest_does_not_need_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    append_numbered(log.log(), 1..=3);
    let old = files(dir.path());
    log.compact().unwrap();
    let before = lines(dir.path());
    drop(log);
    // A compaction died before it removed the segment that it had folded, and then the manifest was
    // lost.
    let segment = first_segment(dir.path());
    fs::write(&segment, &old[&segment]).unwrap();
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    repaired(dir.path(), &before);
    assert!(!segment.exists());
    let kept = dir
        .path()
        .join("quarantine/log-00000000000000000001.jsonl-0.damaged");
    assert_eq!(fs::read(kept).unwrap(), old[&segment]);
    assert_eq!(
        Issues::load(dir.path()).unwrap().version("bd-3"),
        Some(Version::new(3))
    );
}

#[test]
fn another_snapshot_is_not_taken_for_the_live_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = store(dir.path());
    store(other.path());
    // That of another store, then an older one.
    fs::copy(other.path().join(LIVE), dir.path().join(LIVE)).unwrap();
    let report = repaired(dir.path(), &before);
    assert_eq!(report.snapshot, Some(BACKUP_TAKEN));

    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path());
    fs::rename(dir.path().join(BACKUP), dir.path().join(LIVE)).unwrap();
    assert_eq!(check(dir.path()).unwrap().advice, Advice::Repair);
    let report = repaired(dir.path(), &before);
    assert_eq!(report.snapshot, Some(BACKUP_TAKEN));
    assert!(
        report
            .to_string()
            .contains("lost: what the records 4 to 5 did")
    );
}

#[test]
fn a_snapshot_alone_is_not_taken_for_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    for name in names(dir.path()) {
        if name != LIVE {
            let path = dir.path().join(&name);
            fs::remove_file(path).unwrap();
        }
    }
    let refused = IssueLog::open(dir.path(), options());
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(check(dir.path()).unwrap().advice, Advice::Repair);
    let report = repaired(dir.path(), &Lines::new());
    assert_eq!(report.lost_from, Some(6));
    assert_eq!(
        Issues::load(dir.path()).unwrap().version("bd-3"),
        Some(Version::new(3))
    );
}

#[test]
fn a_repair_on_a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    wreck(dir.path());
    let before = files(dir.path());
    // All calls of the copies and of the new files, up to the first rename over one of the store's.
    let mut untouched = 0;
    for calls in 0.. {
        let life = Mortal::of_changes(calls);
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        let died = repair(case.path(), &options().storage(Arc::new(life)));
        let same = before.iter().all(|(path, bytes)| {
            let name = path.file_name().unwrap();
            let volatile = ["lock", "compact.lock", "shm"]
                .map(std::ffi::OsStr::new)
                .contains(&name);
            volatile || fs::read(case.path().join(name)).unwrap() == *bytes
        });
        if died.is_ok() || !same {
            break;
        }
        untouched += 1;
    }
    assert!(untouched > 30, "{untouched}");
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem that replaces open files: NTFS since Windows 10 1809, not Wine"
)]
fn open_writers_followers_and_states_continue() {
    for share in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let with = || options().share_memory(share);
        let log = IssueLog::open(dir.path(), with()).unwrap();
        append_numbered(log.log(), 1..=9);
        let other = IssueLog::open(dir.path(), with()).unwrap();
        let label = |log: &IssueLog, id: &str| {
            let patch = Batch::at(T0).patch(id, Patch::new().add_label("x"));
            log.commit(&patch).unwrap().seq
        };
        assert_eq!(label(&other, "bd-1"), 10);
        let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
        let mut ahead = reader.follow(Seq::new(1)).unwrap();
        for seq in 1..=6 {
            assert_eq!(ahead.try_next().unwrap().unwrap().seq, seq);
        }
        let mut behind = reader.follow(Seq::new(1)).unwrap();
        let mut snapshot = LiveIssues::open(dir.path()).unwrap();
        let bytes = fs::read(first_segment(dir.path())).unwrap();
        let mut damaged = bytes.clone();
        damaged[line_ends(&bytes)[3] + 50] ^= 1;
        // A torn tail, too, which must not come between the open file and the next.
        damaged.extend_from_slice(b"{\"crc\":");
        fs::write(first_segment(dir.path()), damaged).unwrap();
        for seq in 1..=3 {
            assert_eq!(behind.try_next().unwrap().unwrap().seq, seq);
        }
        assert!(behind.try_next().is_err());

        let report = repair(dir.path(), &with()).unwrap();
        assert_eq!(lost(&report), [4]);
        assert_eq!(log.append(&event("bd-11")).unwrap().seq, 11, "{share}");
        assert_eq!(label(&other, "bd-2"), 12, "{share}");
        assert_eq!(log.append(&event("bd-13")).unwrap().seq, 13);
        for seq in 4..=13 {
            assert_eq!(behind.try_next().unwrap().unwrap().seq, seq);
        }
        for seq in 7..=13 {
            assert_eq!(ahead.try_next().unwrap().unwrap().seq, seq);
        }
        assert_eq!(snapshot.refresh().unwrap(), 13);
        assert!(snapshot.state().get("bd-13").is_some());
        let store = Issues::load(dir.path()).unwrap();
        assert_eq!(store.len(), 10);
        assert_eq!(store.version("bd-2"), Some(Version::new(12)));
        assert_eq!(check(dir.path()).unwrap().advice, Advice::Nothing);
    }
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem that replaces open files: NTFS since Windows 10 1809, not Wine"
)]
fn nothing_acknowledged_is_lost_while_repairs_run_beside_writers() {
    let dir = tempfile::tempdir().unwrap();
    let with = || options().segment_bytes_max(3000).preallocate_bytes(1000);
    drop(IssueLog::open(dir.path(), with()).unwrap());
    let ended = Instant::now() + Duration::from_secs(3);
    let (acknowledged, repairs) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|agent| {
                let dir = dir.path();
                scope.spawn(move || {
                    let log = IssueLog::open(dir, with()).unwrap();
                    let mut done = Vec::new();
                    for number in 0.. {
                        if Instant::now() > ended {
                            break;
                        }
                        let id = format!("bd-{agent}-{number}");
                        // Opening a damaged segment may fail until the repair comes.
                        match log.append(&event(&id)) {
                            Ok(receipt) => done.push((receipt.seq, id)),
                            Err(Error::Corrupt { .. }) => {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                    done
                })
            })
            .collect();
        let mut damaged = Vec::new();
        while Instant::now() < ended {
            std::thread::sleep(Duration::from_millis(20));
            // The record before the last one, in the file that everybody has open.
            let Some(name) = names(dir.path())
                .into_iter()
                .rfind(|name| name.starts_with("log-") && !name.contains(".jsonl."))
            else {
                continue;
            };
            let path = dir.path().join(name);
            let bytes = fs::read(&path).unwrap();
            let starts: Vec<usize> = memchr(&bytes);
            let [.., at, _, _] = starts.as_slice() else {
                continue;
            };
            let seq = std::str::from_utf8(&bytes[at + 24..]).unwrap_or_default();
            let seq: String = seq.chars().take_while(char::is_ascii_digit).collect();
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::FileExt::write_at(&file, b"X", *at as u64 + 60).unwrap();
            #[cfg(windows)]
            std::os::windows::fs::FileExt::seek_write(&file, b"X", *at as u64 + 60).unwrap();
            drop(file);
            damaged.push(seq.parse::<u64>().unwrap());
            repair(dir.path(), &with()).unwrap();
        }
        let all: Vec<_> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect();
        (all, damaged)
    });
    repair(dir.path(), &with()).unwrap();
    let found = check(dir.path()).unwrap();
    assert!(
        matches!(found.advice, Advice::Nothing | Advice::Open),
        "{found}"
    );
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let records: BTreeMap<u64, Vec<IssueEvent>> = reader
        .records()
        .unwrap()
        .map(|record| {
            record
                .map(|record| (record.seq.get(), record.events))
                .unwrap()
        })
        .collect();
    for (seq, id) in &acknowledged {
        let events = &records[&seq.get()];
        let lost = events.is_empty() && repairs.contains(&seq.get());
        assert!(
            lost || events.len() == 1 && events[0].id == *id,
            "record {seq} ({id}): {events:?}"
        );
    }
    assert!(
        repairs.len() > 5 && acknowledged.len() > 30,
        "{} repairs",
        repairs.len()
    );
}

/// Where records begin.
fn memchr(bytes: &[u8]) -> Vec<usize> {
    let start = b"{\"crc\":\"";
    (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(start))
        .collect()
}

#[test]
fn a_damaged_record_that_nobody_has_read_yet_is_found_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 3);
    change(&first_segment(dir.path()), line_ends(&bytes)[1] + 50);
    let refused = Issues::load(dir.path());
    assert!(
        matches!(&refused, Err(error @ Error::Corrupt { reason: CorruptReason::Checksum { .. }, .. }) if error.to_string().contains("repair")),
        "{refused:?}"
    );
}
