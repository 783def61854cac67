//! The reports of `check` on good, damaged and busy stores. A check leaves no trace.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use strand_core::{
    CorruptReason, Error, FilesystemKind, IssueEvent, IssueLog, Issues, Reader, Timestamp,
    check::{Advice, CheckReport, FileKind, check},
};
use strand_lock::FileLock;
use tempfile::TempDir;

use crate::support::{
    append_numbered, event, first_segment, line_ends, names, open_issues, options, store_of,
};

/// A store with a backup, a live snapshot and three segments behind it: the records 1 to 9, and 6
/// to 9 in segments.
pub(crate) fn varied(dir: &Path) -> IssueLog {
    let log = IssueLog::open(dir, options()).unwrap();
    append_numbered(log.log(), 1..=3);
    log.compact().unwrap();
    log.append(&IssueEvent::delete(
        "bd-2",
        Timestamp::from_ms(i64::MAX / 2),
    ))
    .unwrap();
    log.append(&event("bd-5")).unwrap();
    log.compact().unwrap();
    drop(log);
    let log = IssueLog::open(dir, options().segment_bytes_max(400)).unwrap();
    append_numbered(log.log(), 6..=9);
    log
}

/// All files, with their bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                all.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// A copy of a directory's files, but for those that mean nothing elsewhere.
pub(crate) fn copy(from: &Path, to: &Path) {
    for name in names(from) {
        if !["lock", "compact.lock", "shm", "quarantine"].contains(&name.as_str()) {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

fn look(dir: &Path) -> CheckReport {
    let before = files(dir);
    let report = check(dir).unwrap();
    assert_eq!(files(dir), before, "the doctor changed something");
    let text = report.to_string();
    assert!(text.contains(&report.advice.to_string()), "{text}");
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["records"], report.records, "{json}");
    report
}

fn change(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x04;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_healthy_store_needs_nothing_and_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Nothing);
    assert_eq!(
        (report.first_seq, report.last_seq, report.records),
        (6, 9, 4)
    );
    assert_eq!((report.hinted_seq, report.durable_seq), (Some(9), 9));
    assert_eq!((report.format, &report.hints_problem), (Some(2), &None));
    assert_eq!(
        report.filesystem.as_ref().unwrap().kind,
        FilesystemKind::Local
    );
    assert_eq!(report.store.as_ref().unwrap().len(), 32);
    let kinds: BTreeMap<&str, FileKind> = report
        .files
        .iter()
        .map(|(file, (kind, _))| (file.to_str().unwrap(), *kind))
        .collect();
    assert_eq!(kinds["MANIFEST"], FileKind::Manifest);
    assert_eq!(kinds["log-00000000000000000006.jsonl"], FileKind::Segment);
    assert_eq!(
        kinds["snapshot-00000000000000000005.jsonl"],
        FileKind::Snapshot
    );
    assert_eq!(
        kinds["snapshot-00000000000000000003.jsonl"],
        FileKind::Backup
    );
    assert_eq!(kinds["lock"], FileKind::Lock);
    assert_eq!(kinds["compact.lock"], FileKind::Lock);
    assert_eq!(kinds["shm"], FileKind::Hints);
    assert_eq!(kinds["notes.txt"], FileKind::Unknown);
    let live = &report.snapshots[0];
    assert_eq!((live.seq, &live.problem), (5, &None));
    assert_eq!((live.issues, live.tombstones, live.keys), (3, 1, 0));
    assert_eq!(report.snapshots[1].seq, 3);
    drop(log);

    // A copy has no hints and no locks, and gets none.
    let elsewhere = tempfile::tempdir().unwrap();
    copy(dir.path(), elsewhere.path());
    let report = look(elsewhere.path());
    assert_eq!(report.advice, Advice::Nothing);
    assert_eq!(
        (report.hinted_seq, report.hints_problem.as_deref()),
        (None, Some("missing"))
    );
}

#[test]
fn a_directory_without_a_store_is_reported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(look(dir.path()).advice, Advice::Open);
    fs::write(first_segment(dir.path()), "").unwrap();
    assert_eq!(look(dir.path()).advice, Advice::Open);
    let missing = check(dir.path().join("missing"));
    assert!(matches!(missing, Err(Error::MissingDirectory { .. })));
    let file = check(first_segment(dir.path()));
    assert!(matches!(file, Err(Error::NotADirectory { .. })));
}

#[test]
fn every_damage_is_listed_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 9);
    let ends = line_ends(&bytes);
    let path = first_segment(dir.path());
    // The records 2 and 5, the newline of 7, and the beginning of 9.
    for at in [ends[1] + 50, ends[4] + 60, ends[7] - 1, ends[8]] {
        change(&path, at);
    }
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Repair);
    let places: Vec<(u64, Option<u64>)> = report
        .damages
        .iter()
        .map(|damage| (damage.offset, damage.line))
        .collect();
    let at = |line: usize, offset: usize| (offset as u64, Some(line as u64));
    assert_eq!(
        places,
        [
            at(2, ends[1]),
            at(5, ends[4]),
            at(7, ends[7] - 1),
            at(8, ends[8])
        ]
    );
    let reasons: Vec<&CorruptReason> = report.damages.iter().map(|damage| &damage.reason).collect();
    assert!(matches!(
        reasons[..],
        [
            CorruptReason::Checksum { .. },
            CorruptReason::Checksum { .. },
            CorruptReason::Unterminated,
            CorruptReason::NotARecord
        ]
    ));
    assert_eq!(report.gaps, [2..=2, 5..=5, 9..=9]);
    assert_eq!(report.records, 6);
    assert!(report.to_string().contains("missing records: 2, 5, 9"));

    // The last record is known to be acknowledged only as long as the hints are there.
    fs::remove_file(dir.path().join("shm")).unwrap();
    let report = look(dir.path());
    assert_eq!(report.damages.len(), 3);
    assert_eq!(report.last_seq, 8);
    fs::remove_file(&path).unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Repair);
    let [damage] = &report.damages[..] else {
        panic!("{report}");
    };
    assert!(matches!(
        damage.reason,
        CorruptReason::Missing { from_seq: 1, .. }
    ));
}

#[test]
fn a_misplaced_record_is_damage_but_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 4);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let orders = [[0, 1, 3, 2], [0, 2, 1, 3], [3, 0, 1, 2], [0, 3, 2, 1]];
    for order in orders {
        let changed: Vec<&[u8]> = order.map(|line| lines[line]).into();
        fs::write(first_segment(dir.path()), changed.concat()).unwrap();
        let report = look(dir.path());
        assert_eq!(
            (report.advice, report.damages.is_empty()),
            (Advice::Repair, false),
            "{order:?}: {report}"
        );
        assert_eq!(report.gaps, [], "{order:?}: {report}");
    }
}

#[test]
fn what_the_next_open_completes_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let last = dir.path().join("log-00000000000000000008.jsonl");
    let mut bytes = fs::read(&last).unwrap();
    let len = bytes.len() as u64;
    bytes.extend_from_slice(b"{\"crc\":\"00000000\",\"se");
    fs::write(&last, &bytes).unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Open);
    assert_eq!(report.torn.unwrap().1, len..len + 21);
    drop(open_issues(dir.path()));
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Nothing);
    assert!(
        report
            .files
            .iter()
            .any(|(file, found)| file.starts_with("quarantine")
                && *found == (FileKind::Quarantine, Some(21)))
    );

    fs::write(
        dir.path()
            .join("snapshot-00000000000000000009.jsonl.00c0ffee00c0ffee.new"),
        "",
    )
    .unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Open);
    // A compaction that runs now may be writing it.
    let lock = FileLock::open(dir.path().join("compact.lock")).unwrap();
    let guard = lock.lock().unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Nothing);
    let kinds = report.files.values().map(|(kind, _)| *kind);
    assert_eq!(kinds.filter(|kind| *kind == FileKind::Orphan).count(), 1);
    let state = report.locks[1].1.as_ref().unwrap();
    let holder = state.holder.as_ref().unwrap();
    assert_eq!(holder.pid, std::process::id());
    assert!(report.to_string().contains("compact.lock: held by pid"));
    drop(guard);
}

#[test]
fn a_damaged_snapshot_can_be_repaired_as_long_as_anything_is_left() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let live = dir.path().join("snapshot-00000000000000000005.jsonl");
    let backup = dir.path().join("snapshot-00000000000000000003.jsonl");
    let bytes = fs::read(&live).unwrap();
    change(&live, line_ends(&bytes)[2] + 40);
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Repair);
    let problem = report.snapshots[0].problem.as_deref();
    assert_eq!(problem, Some("1 damaged lines"));
    assert_eq!(report.damages[0].line, Some(3));
    fs::remove_file(&live).unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Repair);
    let problem = report.snapshots[0].problem.as_deref();
    assert_eq!(
        problem,
        Some("the MANIFEST names it, but it does not exist")
    );
    change(&backup, 30);
    assert_eq!(look(dir.path()).advice, Advice::RestoreBackup);
    // Damage to the backup alone does no harm.
    fs::write(&live, &bytes).unwrap();
    let report = look(dir.path());
    assert_eq!(report.advice, Advice::Nothing);
    assert!(report.snapshots[1].problem.is_some());
}

#[test]
fn a_newer_store_is_not_judged() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let path = dir.path().join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\":2", "\"format\":4")).unwrap();
    let report = look(dir.path());
    assert_eq!((report.advice, report.format), (Advice::Upgrade, Some(4)));
}

#[test]
#[cfg(unix)]
fn an_unreadable_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    // A directory can be opened, but not read.
    let path = dir.path().join("log-00000000000000000006.jsonl");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!(report.advice, Advice::CheckDisk);
    assert!(
        report
            .unreadable
            .contains_key(Path::new("log-00000000000000000006.jsonl"))
    );
}

/// The state and the lines that readers find.
fn state(dir: &Path) -> Result<(Issues, Vec<Vec<u8>>), Error> {
    let reader = Reader::<IssueEvent>::open(dir)?;
    let lines: Result<Vec<Vec<u8>>, Error> =
        reader.records()?.map(|record| Ok(record?.line)).collect();
    Ok((Issues::load(dir)?, lines?))
}

#[test]
fn for_any_changed_byte_check_and_readers_agree() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let good = state(dir.path()).unwrap();
    for (path, bytes) in files(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains("lock") || name == "shm" {
            continue;
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            let report = check(dir.path()).unwrap();
            let well = matches!(report.advice, Advice::Nothing | Advice::Open);
            match state(dir.path()) {
                Ok(now) => assert!(
                    now == good && (well || report.gaps.is_empty()),
                    "{name} byte {at}"
                ),
                Err(error) => assert!(!well, "{name} byte {at}: {error}"),
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(look(dir.path()).advice, Advice::Nothing);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_check_panic(
        file in 0_usize..6,
        at in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        junk in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        static STORE: LazyLock<(TempDir, BTreeMap<PathBuf, Vec<u8>>)> = LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            drop(varied(dir.path()));
            let good = files(dir.path());
            (dir, good)
        });
        let (dir, good) = &*STORE;
        for (path, bytes) in good {
            fs::write(path, bytes).unwrap();
        }
        let name = [
            "MANIFEST",
            "shm",
            "lock",
            "log-00000000000000000006.jsonl",
            "log-00000000000000000008.jsonl",
            "snapshot-00000000000000000005.jsonl",
        ][file];
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        let end = if cut { bytes.len() } else { (at + junk.len()).min(bytes.len()) };
        bytes.splice(at..end, junk);
        fs::write(&path, &bytes).unwrap();
        look(dir.path());
    }
}

#[test]
fn a_store_in_use_is_not_reported_as_damaged() {
    for share in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let busy = || {
            options()
                .segment_bytes_max(2000)
                .preallocate_bytes(512)
                .share_memory(share)
        };
        drop(IssueLog::open(dir.path(), busy()).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for agent in 0..3 {
                let (stop, dir) = (&stop, dir.path());
                scope.spawn(move || {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let log = IssueLog::open(dir, busy()).unwrap();
                        for _ in 0..20 {
                            number += 1;
                            log.append(&event(&format!("bd-{agent}-{}", number % 7)))
                                .unwrap();
                        }
                    }
                });
            }
            let (stopped, path) = (&stop, dir.path());
            scope.spawn(move || {
                let log = IssueLog::open(path, busy()).unwrap();
                while !stopped.load(Ordering::Relaxed) {
                    log.compact().unwrap();
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            let ended = std::time::Instant::now() + Duration::from_secs(3);
            let mut looks = 0;
            let mut bad = None;
            while std::time::Instant::now() < ended && bad.is_none() {
                let report = check(dir.path()).unwrap();
                let well = matches!(report.advice, Advice::Nothing | Advice::Open);
                looks += 1;
                bad = (!well).then_some(report);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(bad.is_none(), "{}", bad.unwrap());
            assert!(looks > 1, "{looks}");
        });
        assert_eq!(look(dir.path()).advice, Advice::Nothing);
    }
}
