//! Snapshots of several files: a base, and runs of what changed since.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use proptest::prelude::*;
use strand_core::{
    Batch, Compacted, Error, FORMAT_VERSION, Issue, IssueEvent, IssueLog, Issues, LiveIssues,
    Options, PointReader, Timestamp,
    check::{Advice, FileKind, check},
    repair::{RepairedSnapshot, repair},
};

use crate::{
    points::{any_related, buffered, compare, compare_unclosed},
    support::{Mortal, TS, append_numbered, event, line_ends, names, open_issues, options},
};

/// Options under which a compaction leaves what is long in comparison.
fn in_runs(options: Options) -> Options {
    options.compact_after_bytes(0).tombstone_ms(u64::MAX)
}

/// The files of the live snapshot, as they are named: `snapshot-12`, `run-13-20`.
fn live(dir: &Path) -> Vec<String> {
    let report = check(dir).unwrap();
    assert_eq!(report.advice, Advice::Nothing, "{report}");
    let files = report.files.into_iter();
    let live = files.filter(|(_, (kind, _))| matches!(kind, FileKind::Snapshot | FileKind::Run));
    let mut live: Vec<String> = live.map(|(file, _)| short(&file)).collect();
    live.sort_by_key(|name| name.rsplit('-').next().unwrap().parse::<u64>().unwrap());
    live
}

fn short(file: &Path) -> String {
    let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
    let plain = |part: &str| match part.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => part.to_owned(),
    };
    stem.split('-').map(plain).collect::<Vec<_>>().join("-")
}

fn path(dir: &Path, name: &str) -> PathBuf {
    let mut found = names(dir).into_iter();
    dir.join(found.find(|file| short(Path::new(file)) == name).unwrap())
}

/// A store of a base with 30 issues, two runs, and records behind them: changed, deleted, deleted
/// and created again, with keys.
fn store(dir: &Path) -> IssueLog {
    let log = IssueLog::open(dir, in_runs(buffered())).unwrap();
    for number in 0..30 {
        let issue = Issue::new_at(&format!("bd-{number}"), &"Mend the fence ".repeat(9), TS);
        let key = format!("k{number}");
        log.commit(&Batch::at(TS).create(issue).key(key)).unwrap();
    }
    log.compact().unwrap();
    let close = |from: usize, to: usize| {
        for number in from..to {
            let close = Batch::at(TS).close(format!("bd-{number}"));
            log.commit(&close.key(format!("k{}", 100 + number)))
                .unwrap();
        }
    };
    close(0, 4);
    log.commit(&Batch::at(TS).delete("bd-7").delete("bd-8"))
        .unwrap();
    log.append(&IssueEvent::close("bd-0", TS)).unwrap();
    log.compact().unwrap();
    log.commit(&Batch::at(TS).reopen("bd-1")).unwrap();
    log.append(&event("bd-8")).unwrap();
    log.compact().unwrap();
    close(9, 10);
    log.log().sync_all().unwrap();
    assert_eq!(live(dir), ["snapshot-30", "run-31-36", "run-37-38"]);
    log
}

/// Every file, except for the locks and the hints.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = names(dir).into_iter();
    let names = names.filter(|name| name.contains(".jsonl") || name == "MANIFEST");
    names
        .map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
        .collect()
}

fn copy(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn a_run_has_what_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let text = |name: &str| fs::read_to_string(path(dir.path(), name)).unwrap();
    let run = text("run-31-36");
    let ids = ["bd-0", "bd-1", "bd-2", "bd-3", "bd-7", "bd-8"];
    let keys = ["k100", "k101", "k102", "k103"];
    assert_eq!(run.lines().count(), 1 + ids.len() + keys.len());
    for (line, id) in run.lines().skip(1).zip(ids) {
        assert!(
            line.contains(&format!(r#""id":"{id}","version":"#)),
            "{line}"
        );
    }
    for (line, key) in run.lines().skip(1 + ids.len()).zip(keys) {
        assert!(line.contains(&format!(r#""key":"{key}","seq":"#)), "{line}");
    }
    let header = run.lines().next().unwrap();
    let counts = r#""issues":4,"tombstones":2,"keys":4,"without_effect":1,"sorted_keys":true,"#;
    assert!(header.contains(counts), "{header}");
    assert!(
        header.ends_with(r#""after":30,"all_issues":28}"#),
        "{header}"
    );
    let header = text("run-37-38");
    assert!(
        header.contains(r#""after":36,"all_issues":29}"#),
        "{header}"
    );
    let report = check(dir.path()).unwrap();
    assert_eq!(report.format, Some(FORMAT_VERSION));
    let described = report.to_string();
    assert!(
        described.contains("run of record 38: 2 issues"),
        "{described}"
    );

    compare(dir.path(), Some(&log));
    compare_unclosed(dir.path());
    let Compacted::Done { entries, .. } = log.compact().unwrap() else {
        panic!("there was a new record");
    };
    assert_eq!(entries, 29);
    let files = ["snapshot-30", "run-31-36", "run-37-38", "run-39-39"];
    assert_eq!(live(dir.path()), files);
    compare(dir.path(), Some(&log));
    compare_unclosed(dir.path());
    log.append(&event("bd-late")).unwrap();
    log.compact().unwrap();
    // There would be too many.
    assert_eq!(live(dir.path()), ["snapshot-30", "run-31-40"]);
    compare(dir.path(), Some(&log));
    compare_unclosed(dir.path());
}

#[test]
fn a_merge_forgets_only_what_no_earlier_file_has() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()));
    // All tombstones and keys are too old.
    let forgets = options()
        .compact_after_bytes(0)
        .tombstone_ms(0)
        .idempotency_records(0);
    let log = IssueLog::open(dir.path(), forgets.clone()).unwrap();
    log.compact().unwrap();
    assert_eq!(live(dir.path()).len(), 4);
    let issues = Issues::load(dir.path()).unwrap();
    assert!(issues.get("bd-7").is_none() && issues.version("bd-7").is_some());
    log.append(&event("bd-x")).unwrap();
    drop(log);
    let log = IssueLog::open(dir.path(), forgets.compact_after_bytes(1 << 20)).unwrap();
    log.compact().unwrap();
    assert_eq!(live(dir.path()), ["snapshot-40"]);
    assert_eq!(
        check(dir.path()).unwrap().format,
        Some(2),
        "older programs read it"
    );
    let issues = Issues::load(dir.path()).unwrap();
    assert!(issues.version("bd-7").is_none() && issues.key("k109").is_none());
    assert!(issues.get("bd-8").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_it_is_compacted_the_state_is_that_of_all_records(
        base in prop::collection::vec(any_related(), 0..60),
        rounds in prop::collection::vec(
            (prop::collection::vec((any_related(), any::<bool>()), 1..8), 0..8_u8),
            1..12
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let open = |short| IssueLog::open(dir, in_runs(buffered()).compact_after_bytes(short));
        let mut log = open(0).unwrap();
        let mut oracle = Issues::default();
        let mut live_view = LiveIssues::open(dir).unwrap();
        let mut reader = PointReader::open(dir).unwrap();
        let mut number = 0;
        let mut append = |log: &IssueLog, oracle: &mut Issues, event: IssueEvent, keyed: bool| {
            number += 1;
            let event = if keyed { event.with_key(format!("k{}", number % 70)) } else { event };
            let seq = log.append(&event).unwrap().seq;
            oracle.apply(seq, [event]);
        };
        // What makes the base long: issues that nothing changes.
        for number in 0..20 {
            let issue = Issue::new_at(&format!("long-{number}"), &"…".repeat(200), TS);
            append(&log, &mut oracle, IssueEvent::add(issue, TS), false);
        }
        for event in base {
            append(&log, &mut oracle, event, true);
        }
        log.compact().unwrap();
        for (events, act) in rounds {
            for (event, keyed) in events {
                append(&log, &mut oracle, event, keyed);
            }
            match act {
                0 => log = open(0).unwrap(),
                1 => log = open(4 << 20).unwrap(),
                2 => {}
                _ => drop(log.compact().unwrap()),
            }
            log.log().sync_all().unwrap();
            let files = live(dir);
            prop_assert!(files.len() <= 4, "{:?}", files);
            prop_assert_eq!(&Issues::load(dir).unwrap(), &oracle, "{:?}", files);
            live_view.refresh().unwrap();
            prop_assert_eq!(live_view.state(), &oracle);
            reader.refresh().unwrap();
            for (id, issue) in oracle.iter() {
                let found = reader.get(id).unwrap();
                let found = found.map(|found| found.issue);
                prop_assert_eq!(found.as_ref(), Some(issue), "{}", id);
            }
            compare(dir, Some(&log));
            compare_unclosed(dir);
        }
    }
}

#[test]
fn a_compaction_into_a_run_that_dies_at_any_call_is_completed_or_undone_by_the_next_open() {
    let good = tempfile::tempdir().unwrap();
    let log = store(good.path());
    log.compact().unwrap();
    log.append(&event("bd-late")).unwrap();
    log.log().sync_all().unwrap();
    drop(log);
    let good = files(good.path());
    let before = ["snapshot-30", "run-31-36", "run-37-38", "run-39-39"];
    let after = ["snapshot-30", "run-31-40"];
    let mut outcomes = [0, 0];
    for calls in 0.. {
        let dir = copy(&good);
        let expected = Issues::load(dir.path()).unwrap();
        let storage = Mortal::of_calls(u64::MAX);
        let mortal = in_runs(options()).storage(Arc::new(storage.clone()));
        let log = IssueLog::open(dir.path(), mortal).unwrap();
        storage.left.store(calls, Ordering::SeqCst);
        let compacted = log.compact();
        drop(log);
        assert_eq!(
            Issues::load(dir.path()).unwrap(),
            expected,
            "after {calls} calls"
        );
        let log = open_issues(dir.path());
        assert_eq!(
            Issues::load(dir.path()).unwrap(),
            expected,
            "after {calls} calls"
        );
        let files = live(dir.path());
        let is_finished = files == after;
        assert!(
            is_finished || files == before,
            "after {calls} calls: {files:?}"
        );
        outcomes[usize::from(is_finished)] += 1;
        let all = names(dir.path());
        let runs = all
            .iter()
            .filter(|name| name.starts_with("run-") || name.contains(".new"));
        assert_eq!(
            runs.count(),
            files.len() - 1,
            "after {calls} calls: {all:?}"
        );
        assert_eq!(log.append(&event("bd-15")).unwrap().seq, 41);
        compare(dir.path(), Some(&log));
        compare_unclosed(dir.path());
        if compacted.is_ok() {
            break;
        }
    }
    assert!(outcomes[0] > 10 && outcomes[1] > 3, "{outcomes:?}");
}

#[test]
fn every_changed_byte_of_a_run_is_an_error_in_that_file_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()));
    let dir = dir.path();
    let whole = Issues::load(dir).unwrap();
    for name in ["run-31-36", "run-37-38"] {
        let path = path(dir, name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 7);
            fs::write(&path, &bytes).unwrap();
            match Issues::load(dir) {
                Err(Error::Corrupt { path: found, .. }) => assert_eq!(found, path),
                other => panic!("byte {at}: {other:?}"),
            }
            let Ok(mut reader) = PointReader::open(dir) else {
                continue;
            };
            for id in ["bd-0", "bd-1", "bd-5", "bd-7", "bd-8", "bd-9", "zz"] {
                match reader.get(id) {
                    Ok(found) => {
                        let found = found.map(|found| found.issue);
                        assert_eq!(found.as_ref(), whole.get(id), "byte {at}");
                    }
                    Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
                }
            }
        }
        for len in (0..good.len()).step_by(7) {
            fs::write(&path, &good[..len]).unwrap();
            assert!(matches!(Issues::load(dir), Err(Error::Corrupt { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Issues::load(dir), Err(Error::Corrupt { .. })));
        assert!(matches!(PointReader::open(dir), Err(Error::Corrupt { .. })));
        // One that is damaged is not compacted away.
        let mut bytes = good.clone();
        bytes[200] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let log = IssueLog::open(dir, options()).unwrap();
        assert!(matches!(log.compact(), Err(Error::Corrupt { .. })));
        fs::write(&path, good).unwrap();
    }
    compare(dir, None);
}

#[test]
fn a_damaged_run_is_repaired_as_a_damaged_snapshot_is() {
    let good = tempfile::tempdir().unwrap();
    drop(store(good.path()));
    let whole = Issues::load(good.path()).unwrap();
    let files = files(good.path());
    let damaged = |name: &str, change: &dyn Fn(&Path)| {
        let dir = copy(&files);
        let path = path(dir.path(), name);
        change(&path);
        let report = check(dir.path()).unwrap();
        assert_eq!(report.advice, Advice::Repair, "{report}");
        let file = Path::new(path.file_name().unwrap());
        assert!(
            report.damages.iter().any(|damage| damage.file == file),
            "{report}"
        );
        let report = repair(dir.path(), &options()).unwrap();
        let left = live(dir.path());
        assert_eq!(left, ["snapshot-38"], "{report}");
        assert!(!path.exists(), "it is in quarantine");
        let log = open_issues(dir.path());
        assert_eq!(log.append(&event("bd-next")).unwrap().seq, 40);
        compare(dir.path(), Some(&log));
        (Issues::load(dir.path()).unwrap(), report.snapshot.unwrap())
    };
    let (issues, report) = damaged("run-31-36", &|path| {
        let mut bytes = fs::read(path).unwrap();
        let line = line_ends(&bytes)[3];
        bytes[line + 60] ^= 1;
        fs::write(path, bytes).unwrap();
    });
    let RepairedSnapshot::GoodLines { lost_lines, .. } = report else {
        panic!("{report}");
    };
    assert_eq!(lost_lines.len(), 1);
    assert_eq!(lost_lines[0].about.as_deref(), Some("bd-2"));
    assert_eq!(
        issues.version("bd-2").unwrap(),
        3,
        "as the file before it has it"
    );
    for (id, issue) in whole.iter().filter(|(id, _)| *id != "bd-2") {
        assert_eq!(issues.get(id), Some(issue));
    }
    let (issues, report) = damaged("run-37-38", &|path| fs::remove_file(path).unwrap());
    assert!(report.to_string().contains("it does not exist"), "{report}");
    assert!(issues.get("bd-8").is_none() && issues.get("bd-7").is_none());

    // Without its base, runs alone are no state.
    let dir = copy(&files);
    fs::remove_file(path(dir.path(), "snapshot-30")).unwrap();
    assert_eq!(check(dir.path()).unwrap().advice, Advice::RestoreBackup);
    let refused = repair(dir.path(), &options());
    assert!(
        matches!(refused, Err(Error::BeyondRepair { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_older_snapshot_with_its_runs_is_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()));
    let log = IssueLog::open(dir.path(), options()).unwrap();
    let before = Issues::load(dir.path()).unwrap();
    log.append(&event("bd-late")).unwrap();
    log.compact().unwrap();
    drop(log);
    assert_eq!(live(dir.path()), ["snapshot-40"]);
    let backups = ["snapshot-30", "run-31-36", "run-37-38"];
    assert!(backups.iter().all(|name| path(dir.path(), name).exists()));
    fs::remove_file(path(dir.path(), "snapshot-40")).unwrap();
    let report = repair(dir.path(), &options()).unwrap();
    let taken = RepairedSnapshot::Backup {
        seq: 40,
        backup_seq: 38,
    };
    assert_eq!(report.snapshot, Some(taken), "the last that is whole");
    let now = Issues::load(dir.path()).unwrap();
    assert!(now.get("bd-late").is_none());
    let but_9 = |issues: &Issues| issues.iter().filter(|(id, _)| *id != "bd-9").count();
    assert_eq!(but_9(&now), but_9(&before));
    // With the next snapshot they go.
    let log = IssueLog::open(dir.path(), options().backup_snapshots(0)).unwrap();
    log.append(&event("bd-later")).unwrap();
    log.compact().unwrap();
    assert!(
        !names(dir.path())
            .iter()
            .any(|name| name.starts_with("run-"))
    );
}

#[test]
fn a_manifest_with_runs_is_rebuilt_from_the_files_and_an_older_one_yields_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), in_runs(options())).unwrap();
    append_numbered(log.log(), 0..20);
    log.compact().unwrap();
    let first = fs::read(dir.path().join("MANIFEST")).unwrap();
    log.append(&event("bd-1")).unwrap();
    log.compact().unwrap();
    log.append(&event("bd-2")).unwrap();
    drop(log);
    let good = Issues::load(dir.path()).unwrap();
    let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
    assert_eq!(live(dir.path()), ["snapshot-20", "run-21-21"]);
    for now in [None, Some(first)] {
        match now {
            None => fs::remove_file(dir.path().join("MANIFEST")).unwrap(),
            Some(bytes) => fs::write(dir.path().join("MANIFEST"), bytes).unwrap(),
        }
        assert!(Issues::load(dir.path()).is_err());
        let report = repair(dir.path(), &options()).unwrap();
        assert!(
            report.snapshot.is_none() && report.lost.is_empty(),
            "{report}"
        );
        assert_eq!(fs::read(dir.path().join("MANIFEST")).unwrap(), manifest);
        assert_eq!(Issues::load(dir.path()).unwrap(), good);
        assert_eq!(check(dir.path()).unwrap().advice, Advice::Nothing);
    }
}

#[test]
fn the_unclosed_issues_are_found_without_the_file_of_the_last_run() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    log.commit(&Batch::at(Timestamp::from_ms(1)).reopen("bd-2"))
        .unwrap();
    log.log().sync_all().unwrap();
    let unclosed = |seq: u64| dir.path().join(format!("unclosed-{seq:020}.jsonl"));
    compare_unclosed(dir.path());
    for seq in [38, 36, 30] {
        assert!(unclosed(seq).exists());
        fs::remove_file(unclosed(seq)).unwrap();
        compare_unclosed(dir.path());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_base_has_the_same_lines_however_many_files_it_is_made_of(
        events in prop::collection::vec(any_related(), 1..60),
        every in 2..20_usize,
        in_runs_first: bool,
    ) {
        // Old tombstones and keys are forgotten in both.
        let last = || buffered().compact_after_bytes(u64::MAX).idempotency_records(20);
        let base = |dir: &Path, events: &[IssueEvent]| {
            let log = IssueLog::open(dir, last()).unwrap();
            for event in events {
                log.append(event).unwrap();
            }
            log.compact().unwrap();
            let [base] = &live(dir)[..] else { panic!("{:?}", live(dir)) };
            let text = fs::read_to_string(path(dir, base)).unwrap();
            let store = check(dir).unwrap().store.unwrap();
            let header = text.lines().next().unwrap().replace(&store, "STORE");
            let lines = text.lines().skip(1).map(str::to_owned);
            // The checksum is that of the store.
            [header[18..].to_owned()].into_iter().chain(lines).collect::<Vec<_>>()
        };
        let (many, one) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (early, late) = events.split_at(events.len() * 3 / 4);
        let options = if in_runs_first { last().compact_after_bytes(0) } else { last() };
        let log = IssueLog::open(many.path(), options).unwrap();
        for (at, event) in early.iter().enumerate() {
            log.append(event).unwrap();
            if at % every == 0 {
                log.compact().unwrap();
            }
        }
        drop(log);
        prop_assert_eq!(base(many.path(), late), base(one.path(), &events));
        compare_unclosed(many.path());
    }
}
