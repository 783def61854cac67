//! Compaction: the state is the same before, during and after it, wherever it is interrupted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use strand_core::{
    Batch, Compacted, Compactor, Error, Issue, IssueEvent, IssueLog, Issues, LiveIssues, Patch,
    Reader, Seq, Timestamp, Version,
    testing::{Dir, Disk, Failpoint, FailpointHook, OpenMode, Storage, StorageFile},
};
use strand_lock::FileLock;

use crate::support::{
    Call, Mortal, Recorder, TS, append_numbered, event, names, open_issues, options,
};

/// The number, the issues, the bytes and the removed files of a compaction.
fn compact(log: &IssueLog) -> (u64, u64, u64, Vec<String>) {
    match log.compact().unwrap() {
        Compacted::Done {
            seq,
            entries,
            bytes,
            removed,
            ..
        } => (seq.get(), entries, bytes, removed),
        other => panic!("{other:?}"),
    }
}

fn snapshot_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("snapshot-{seq:020}.jsonl"))
}

/// Segments and snapshots.
fn data_files(dir: &Path) -> Vec<String> {
    let mut names = names(dir);
    names.retain(|name| name.starts_with("log-") || name.starts_with("snapshot-"));
    names
}

/// A store with issues, a tombstone, a key, a record without effect and several segments.
fn varied(dir: &Path) -> IssueLog {
    let log = IssueLog::open(dir, options().segment_bytes_max(700)).unwrap();
    let now = i64::MAX / 2; // No tombstone is old enough to expire.
    append_numbered(log.log(), 1..=8);
    log.append(&IssueEvent::delete("bd-3", Timestamp::from_ms(now)))
        .unwrap();
    log.append(&IssueEvent::close("bd-3", Timestamp::from_ms(now)))
        .unwrap();
    let odd = r#"{"id":"bd-9","title":"🪢 \u0041","x":1.10,"big":18446744073709551616,"x":2}"#;
    log.append(&IssueEvent::add(
        Issue::from_json(odd).unwrap(),
        Timestamp::from_ms(now),
    ))
    .unwrap();
    let keyed = Batch::at(Timestamp::from_ms(now))
        .key("k-1")
        .patch("bd-1", Patch::new().add_label("a"));
    log.commit(&keyed).unwrap();
    log.append_batch(&[
        event("bd-10"),
        IssueEvent::close("bd-2", Timestamp::from_ms(now)),
    ])
    .unwrap();
    log
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem where an open file can lose its name: NTFS since Windows 10 1809, not Wine"
)]
fn a_compaction_leaves_the_same_state_in_fewer_files_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    let before = Issues::load(dir.path()).unwrap();
    assert!(data_files(dir.path()).len() > 3);

    let (seq, entries, bytes, _) = compact(&log);
    assert_eq!((seq, entries), (13, before.len() as u64));
    assert_eq!(
        bytes,
        fs::metadata(snapshot_path(dir.path(), 13)).unwrap().len()
    );
    assert_eq!(
        data_files(dir.path()),
        [
            "log-00000000000000000014.jsonl",
            "snapshot-00000000000000000013.jsonl"
        ]
    );
    assert_eq!(Issues::load(dir.path()).unwrap(), before);
    assert_eq!(log.compact().unwrap(), Compacted::NothingNew);

    assert_eq!(log.append(&event("bd-11")).unwrap().seq, 14);
    assert_eq!(
        open_issues(dir.path()).append(&event("bd-12")).unwrap().seq,
        15
    );
    let after = Issues::load(dir.path()).unwrap();
    assert_eq!(
        (after.len(), after.last_seq().get()),
        (before.len() + 2, 15)
    );
    assert_eq!(after.version("bd-9"), before.version("bd-9"));
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let seqs: Vec<u64> = reader
        .records()
        .unwrap()
        .map(|record| record.unwrap().seq.get())
        .collect();
    assert_eq!(seqs, [14, 15]);
}

#[test]
fn without_hints_the_log_after_a_snapshot_is_recovered_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    compact(&log);
    let before = Issues::load(dir.path()).unwrap();
    drop(log);
    fs::remove_file(dir.path().join("shm")).unwrap();
    assert_eq!(Issues::load(dir.path()).unwrap(), before);
    let log = open_issues(dir.path());
    assert!(log.log().recovery().rebuilt);
    assert_eq!(log.append(&event("bd-11")).unwrap().seq, 14);
    // Without the live segment, the snapshot alone is not the store.
    drop(log);
    fs::remove_file(dir.path().join("shm")).unwrap();
    fs::remove_file(dir.path().join("log-00000000000000000014.jsonl")).unwrap();
    let refused = IssueLog::open(dir.path(), options());
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

#[test]
fn as_many_backups_are_kept_as_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), options().backup_snapshots(2)).unwrap();
    for number in 1..=5 {
        log.append(&event(&format!("bd-{number}"))).unwrap();
        compact(&log);
    }
    // An open with options that keep fewer removes none.
    drop(IssueLog::open(dir.path(), options().backup_snapshots(0)).unwrap());
    assert_eq!(
        data_files(dir.path()),
        [
            "log-00000000000000000006.jsonl",
            "snapshot-00000000000000000003.jsonl",
            "snapshot-00000000000000000004.jsonl",
            "snapshot-00000000000000000005.jsonl"
        ]
    );
}

#[test]
fn tombstones_and_keys_survive_as_long_as_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    compact(&log);
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(
        store.version("bd-3"),
        Some(Version::new(9)),
        "the tombstone is kept"
    );
    assert_eq!(store.key("k-1"), Some(Seq::new(12)));
    let again = Batch::at(TS)
        .key("k-1")
        .patch("bd-1", Patch::new().add_label("a"));
    let receipt = open_issues(dir.path()).commit(&again).unwrap();
    assert_eq!((receipt.seq.get(), receipt.repeated), (12, true));

    let short = options().tombstone_ms(0).idempotency_records(1);
    let log = IssueLog::open(dir.path(), short).unwrap();
    log.append(&IssueEvent::delete("bd-4", TS)).unwrap();
    compact(&log);
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(store.version("bd-4"), None, "deleted long ago");
    assert_eq!(
        store.version("bd-3"),
        Some(Version::new(9)),
        "deleted in the far future"
    );
    assert_eq!(store.key("k-1"), None);
}

#[test]
fn of_two_compactors_one_works_and_the_other_returns_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    let lock = Arc::new(FileLock::open(dir.path().join("compact.lock")).unwrap());
    let guard = lock.try_lock().unwrap();
    assert_eq!(log.compact().unwrap(), Compacted::AlreadyRunning);
    guard.unlock().unwrap();
    compact(&log);
}

/// Stops at one point until it is released.
struct Halt {
    point: Failpoint,
    reached: Mutex<mpsc::Sender<()>>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl FailpointHook for Halt {
    fn reached(&self, point: Failpoint) {
        if point == self.point {
            self.reached.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv().ok();
        }
    }
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem where an open file can lose its name: NTFS since Windows 10 1809, not Wine"
)]
fn writers_readers_and_opens_go_on_at_every_step_of_a_compaction() {
    let points = [
        Failpoint::CompactionRotated,
        Failpoint::SnapshotWritten,
        Failpoint::SnapshotRenamed,
        Failpoint::ManifestReplaced,
        Failpoint::BeforeRemoval,
    ];
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let other = varied(dir.path());
        let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
        let mut follower = reader.follow(Seq::new(1)).unwrap();
        let mut snapshot = LiveIssues::open(dir.path()).unwrap();
        let mut records = reader.records().unwrap();
        records.next().unwrap().unwrap();
        let expected = Issues::load(dir.path()).unwrap();

        let (reached, is_reached) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let halt = Halt {
            point,
            reached: Mutex::new(reached),
            go: Mutex::new(goes),
        };
        let path = dir.path().to_owned();
        let compactor = std::thread::spawn(move || {
            let log = IssueLog::open(&path, options().failpoint_hook(Arc::new(halt))).unwrap();
            compact(&log)
        });
        is_reached.recv_timeout(Duration::from_mins(1)).unwrap();
        assert_eq!(Issues::load(dir.path()).unwrap(), expected, "{point}");
        assert_eq!(other.append(&event("bd-new")).unwrap().seq, 14, "{point}");
        let late = open_issues(dir.path());
        assert_eq!(late.append(&event("bd-newer")).unwrap().seq, 15, "{point}");
        assert_eq!(late.compact().unwrap(), Compacted::AlreadyRunning);
        let during = Issues::load(dir.path()).unwrap();
        assert_eq!(
            (during.len(), during.last_seq().get()),
            (expected.len() + 2, 15)
        );
        drop(go);
        assert_eq!(compactor.join().unwrap().0, 13);

        assert_eq!(Issues::load(dir.path()).unwrap(), during, "{point}");
        assert_eq!(snapshot.refresh().unwrap(), 15);
        assert_eq!(*snapshot.state(), during, "{point}");
        // A reader that has the file open reads on in it; any other gets the error.
        let first = follower.try_next();
        assert!(
            matches!(
                first,
                Err(Error::Compacted {
                    from_seq: 1,
                    snapshot_seq: 13,
                    ..
                })
            ),
            "{point}: {first:?}"
        );
        records.next().unwrap().unwrap();
        let last = records.last().unwrap();
        assert!(
            matches!(last, Err(Error::Compacted { .. })),
            "{point}: {last:?}"
        );
    }
}

#[test]
fn a_compaction_that_dies_at_any_call_is_completed_or_undone_by_the_next_open() {
    let mut outcomes = [0, 0];
    for calls in 0.. {
        let dir = tempfile::tempdir().unwrap();
        drop(varied(dir.path()));
        // One compaction before, so that a live snapshot and a backup are there, too.
        compact(&open_issues(dir.path()));
        open_issues(dir.path()).append(&event("bd-13")).unwrap();
        compact(&open_issues(dir.path()));
        open_issues(dir.path()).append(&event("bd-14")).unwrap();
        let expected = Issues::load(dir.path()).unwrap();

        let storage = Mortal::of_calls(u64::MAX);
        let log = IssueLog::open(dir.path(), options().storage(Arc::new(storage.clone()))).unwrap();
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
        let files = data_files(dir.path());
        let snapshots = files.iter().filter(|name| name.starts_with("snap")).count();
        assert!(
            !names(dir.path()).iter().any(|name| name.contains(".new")),
            "after {calls} calls: {files:?}"
        );
        let finished = files.contains(&"snapshot-00000000000000000015.jsonl".to_owned());
        outcomes[usize::from(finished)] += 1;
        assert!(snapshots <= 3, "after {calls} calls: {files:?}");
        if finished {
            assert!(
                !files.contains(&"log-00000000000000000015.jsonl".to_owned()),
                "{files:?}"
            );
        }
        assert_eq!(
            log.append(&event("bd-15")).unwrap().seq,
            16,
            "after {calls} calls"
        );
        compact(&log);
        assert_eq!(data_files(dir.path()).len(), 3);
        if compacted.is_ok() {
            break;
        }
    }
    assert!(outcomes[0] > 10 && outcomes[1] > 3, "{outcomes:?}");
}

#[test]
fn files_of_a_dead_compaction_are_removed_only_after_its_manifest_is_durable() {
    let mut found = 0;
    for calls in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let storage = Mortal::of_calls(u64::MAX);
        let log = IssueLog::open(dir.path(), options().storage(Arc::new(storage.clone()))).unwrap();
        log.append(&event("bd-1")).unwrap();
        storage.left.store(calls, Ordering::SeqCst);
        let compacted = log.compact();
        drop(log);
        let recorder = Recorder::default();
        let options = options().storage(Arc::new(recorder.clone()));
        drop(IssueLog::open(dir.path(), options).unwrap());
        let calls = recorder.take();
        if let Some(removal) = calls.iter().position(|call| *call == Call::Remove) {
            found += 1;
            assert!(calls[..removal].contains(&Call::SyncDir), "{calls:?}");
        }
        if compacted.is_ok() {
            break;
        }
    }
    assert!(found > 3);
}

/// The disk, with so much space left for snapshots.
#[derive(Debug, Clone)]
struct Full {
    left_bytes: Arc<AtomicU64>,
}

impl Storage for Full {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        if name.contains("snapshot-") {
            let disk = self.clone();
            return Ok(Box::new(FullFile { file, disk }));
        }
        Ok(file)
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let len = fs::metadata(dir.path().join(name))?.len();
        Disk.remove(dir, name)?;
        self.left_bytes.fetch_add(len, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug)]
struct FullFile {
    file: Box<dyn StorageFile>,
    disk: Full,
}

impl StorageFile for FullFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.file
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let left = self.disk.left_bytes.load(Ordering::SeqCst);
        let fit = &bytes[..bytes.len().min(usize::try_from(left).unwrap())];
        if fit.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write_at(fit, offset)?;
        self.disk
            .left_bytes
            .fetch_sub(written as u64, Ordering::SeqCst);
        Ok(written)
    }
}

#[test]
fn a_compaction_on_a_full_disk_fails_without_a_trace_and_uses_the_space_of_obsolete_backups() {
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let disk = Full {
        left_bytes: Arc::new(AtomicU64::new(100)),
    };
    let with = |backups| {
        let options = options().backup_snapshots(backups);
        let options = options.storage(Arc::new(disk.clone()));
        IssueLog::open(dir.path(), options).unwrap()
    };
    let before = Issues::load(dir.path()).unwrap();
    for _ in 0..2 {
        let refused = with(1).compact();
        assert!(
            matches!(&refused, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull),
            "{refused:?}"
        );
        let files = names(dir.path());
        assert!(!files.iter().any(|name| name.contains("snapshot")));
        assert_eq!(disk.left_bytes.load(Ordering::SeqCst), 100);
        assert_eq!(Issues::load(dir.path()).unwrap(), before);
    }
    // Snapshots 13, 14 and 15, and no space for a fourth but in the place of one.
    disk.left_bytes.store(u64::MAX / 2, Ordering::SeqCst);
    for number in 14..=16 {
        compact(&with(9));
        open_issues(dir.path()).append(&event("bd-11")).unwrap();
        assert_eq!(Issues::load(dir.path()).unwrap().last_seq(), number);
    }
    disk.left_bytes.store(500, Ordering::SeqCst);
    assert!(with(9).compact().is_err());
    let (.., mut removed) = compact(&with(1));
    removed.retain(|name| name.starts_with("snapshot-"));
    let obsolete = [13, 14].map(|seq| format!("snapshot-{seq:020}.jsonl"));
    assert_eq!(removed, obsolete);
    assert_eq!(Issues::load(dir.path()).unwrap().last_seq(), 16);
}

#[test]
fn every_changed_byte_and_every_cut_of_a_snapshot_is_an_error_in_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    compact(&log);
    let path = snapshot_path(dir.path(), 13);
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        match Issues::load(dir.path()) {
            Err(Error::Corrupt {
                path: at, offset, ..
            }) => {
                assert_eq!(at, path);
                assert!(offset <= good.len() as u64, "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, &format!("byte {at}"));
        refused(&good[..at], &format!("cut at {at}"));
    }
    let mut doubled = good.clone();
    doubled.extend_from_slice(&good);
    refused(&doubled, "doubled");
    fs::remove_file(&path).unwrap();
    let missing = Issues::load(dir.path());
    assert!(matches!(missing, Err(Error::Corrupt { .. })), "{missing:?}");
    fs::write(&path, &good).unwrap();
    Issues::load(dir.path()).unwrap();
}

#[test]
fn a_snapshot_that_cannot_be_read_is_not_compacted_away() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    compact(&log);
    log.append(&event("bd-11")).unwrap();
    let path = snapshot_path(dir.path(), 13);
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(log.compact(), Err(Error::Corrupt { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(log.append(&event("bd-12")).unwrap().seq, 15);
}

#[test]
fn a_compaction_is_due_when_the_log_is_long_and_a_compactor_runs_it() {
    let dir = tempfile::tempdir().unwrap();
    let few = options().compact_after_records(3);
    let log = Arc::new(IssueLog::open(dir.path(), few).unwrap());
    assert!(!log.compaction_due().unwrap());
    append_numbered(log.log(), 1..=3);
    assert!(log.compaction_due().unwrap());
    let bytes = options().compact_after_bytes(100);
    assert!(
        IssueLog::open(dir.path(), bytes)
            .unwrap()
            .compaction_due()
            .unwrap()
    );

    let compactor =
        Compactor::start::<Issues>(Arc::clone(log.log()), Duration::from_millis(1)).unwrap();
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    while reader.records().unwrap().count() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(compactor.stop().unwrap(), 1);
    assert!(!log.compaction_due().unwrap());
    assert_eq!(Issues::load(dir.path()).unwrap().len(), 3);
}

#[test]
fn free_space_behind_the_log_does_not_make_a_compaction_due() {
    let dir = tempfile::tempdir().unwrap();
    let options = options()
        .preallocate_bytes(64 << 10)
        .compact_after_bytes(16 << 10);
    let log = IssueLog::open(dir.path(), options.clone()).unwrap();
    log.append(&event("bd-1")).unwrap();
    let path = dir.path().join("log-00000000000000000001.jsonl");
    assert!(fs::metadata(&path).unwrap().len() >= 64 << 10);
    assert!(!log.compaction_due().unwrap());
    assert!(!strand_core::compaction_due(dir.path(), &options).unwrap());
    while !log.compaction_due().unwrap() {
        log.append(&event("bd-2")).unwrap();
    }
    assert!(strand_core::compaction_due(dir.path(), &options).unwrap());
    let used = fs::read(&path).unwrap().trim_ascii_end().len();
    assert!((16 << 10..17 << 10).contains(&used), "{used}");
}

#[test]
fn a_snapshot_of_another_store_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &other] {
        compact(&varied(dir.path()));
    }
    fs::copy(
        snapshot_path(other.path(), 13),
        snapshot_path(one.path(), 13),
    )
    .unwrap();
    let refused = Issues::load(one.path());
    assert!(
        matches!(&refused, Err(error @ Error::Corrupt { .. }) if error.to_string().contains("another store")),
        "{refused:?}"
    );
}

#[test]
fn each_segment_is_archived_before_the_manifest_changes_and_a_failure_removes_nothing() {
    type Kept = Vec<(String, Vec<u8>, Vec<u8>)>;
    let dir = tempfile::tempdir().unwrap();
    drop(varied(dir.path()));
    let before = data_files(dir.path());
    let manifest = || fs::read(dir.path().join("MANIFEST")).unwrap();
    let old_manifest = manifest();

    let kept: Arc<Mutex<Kept>> = Arc::default();
    let fail = Arc::new(AtomicU64::new(1));
    let archive = {
        let (kept, fail, dir) = (Arc::clone(&kept), Arc::clone(&fail), dir.path().to_owned());
        move |name: &str, bytes: &mut dyn io::Read| {
            let mut copy = Vec::new();
            bytes.read_to_end(&mut copy)?;
            assert!(dir.join(name).exists());
            let manifest = fs::read(dir.join("MANIFEST"))?;
            let mut kept = kept.lock().unwrap();
            kept.push((name.to_owned(), copy, manifest));
            if kept.len() == 2 && fail.swap(0, Ordering::Relaxed) == 1 {
                return Err(io::Error::other("the archive is full"));
            }
            Ok(())
        }
    };
    let log = IssueLog::open(dir.path(), options().archive(archive)).unwrap();
    let error = log.compact().unwrap_err();
    assert!(
        matches!(error, Error::Io { op: "archive", .. }),
        "{error:?}"
    );
    assert_eq!(manifest(), old_manifest);
    let mut after = data_files(dir.path());
    after.retain(|name| before.contains(name));
    assert_eq!(after, before);

    kept.lock().unwrap().clear();
    let contents: Vec<Vec<u8>> = before
        .iter()
        .map(|name| fs::read(dir.path().join(name)).unwrap())
        .collect();
    let (_, _, _, removed) = compact(&log);
    let kept = kept.lock().unwrap();
    let names: Vec<&String> = kept.iter().map(|(name, ..)| name).collect();
    assert!(names.iter().copied().eq(&before), "{names:?}");
    assert!(before.iter().all(|name| removed.contains(name)));
    for ((_, copy, manifest), content) in kept.iter().zip(&contents) {
        assert_eq!((copy, manifest), (content, &old_manifest));
    }
}
