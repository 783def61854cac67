//! Damage between two runs: which bytes are kept, cut or refused.

use std::{fs, path::Path, time::Duration};

use strand_core::{
    Compacted, CorruptReason, Error, Issue, IssueEvent, IssueLog, Log, Options, Reader, Seq,
    check::{Advice, check},
};
use strand_lock::FileLock;

use crate::support::{
    TS, append_numbered, event, first_segment, ids, line_ends, names, open, open_issues, options,
    store_of,
};

const RECORDS: u64 = 5;
/// The last record's index in the result of `line_ends`.
const LAST: usize = 4;

/// Forgets what only a running system knows, as a reboot does, but keeps the durable number on disk
/// or not.
fn forget_hints(dir: &Path) {
    fs::remove_file(dir.join("shm")).unwrap();
}

fn expected(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("bd-{number}")).collect()
}

fn corrupt_at(dir: &Path) -> (u64, CorruptReason) {
    match IssueLog::open(dir, Options::default()) {
        Err(Error::Corrupt {
            path,
            offset,
            reason,
        }) => {
            assert_eq!(path, first_segment(dir));
            (offset, reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_quarantined_and_the_next_append_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    let ends = line_ends(&bytes);
    let start = ends[LAST];
    for cut in start..bytes.len() {
        let case = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join("MANIFEST"), case.path().join("MANIFEST")).unwrap();
        fs::write(first_segment(case.path()), &bytes[..cut]).unwrap();
        let reader = Reader::<IssueEvent>::open(case.path()).unwrap();
        assert_eq!(
            ids(reader.records().unwrap()),
            expected(RECORDS - 1),
            "cut at {cut}"
        );
        let log = open_issues(case.path());
        assert_eq!(log.log().recovery().cut_bytes, (cut - start) as u64);
        match &log.log().recovery().quarantined {
            Some(path) => assert_eq!(fs::read(path).unwrap(), &bytes[start..cut]),
            None => assert_eq!(cut, start),
        }
        assert_eq!(log.append(&event("bd-next")).unwrap().seq, RECORDS);
        let mut ids_now = expected(RECORDS - 1);
        ids_now.push("bd-next".into());
        assert_eq!(ids(log.log().records().unwrap()), ids_now, "cut at {cut}");
    }
}

#[test]
fn a_writer_killed_between_write_and_publish_leaves_a_whole_record_which_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    let longer = store_of(other.path(), RECORDS + 2);
    let log = open_issues(dir.path());
    // The next two records, written after the published tail by a writer that died before it
    // published them.
    fs::write(first_segment(dir.path()), &longer).unwrap();
    assert_eq!(log.append(&event("bd-8")).unwrap().seq, RECORDS + 3);
    assert_eq!(ids(log.log().records().unwrap()), expected(RECORDS + 3));
    assert!(bytes.len() < longer.len());
}

#[test]
fn a_writer_killed_within_its_write_leaves_a_torn_record_which_is_cut_under_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = store_of(dir.path(), RECORDS);
    let log = open_issues(dir.path());
    let torn = br#"{"crc":"00000000","seq":6,"#;
    bytes.extend_from_slice(torn);
    fs::write(first_segment(dir.path()), &bytes).unwrap();
    assert_eq!(
        ids(Reader::open(dir.path()).unwrap().records().unwrap()),
        expected(RECORDS)
    );
    assert_eq!(log.append(&event("bd-6")).unwrap().seq, 6);
    assert_eq!(ids(log.log().records().unwrap()), expected(6));
    let quarantine = names(&dir.path().join("quarantine"));
    assert_eq!(quarantine.len(), 1);
    assert_eq!(
        fs::read(dir.path().join("quarantine").join(&quarantine[0])).unwrap(),
        torn
    );
}

#[test]
fn a_record_torn_within_preallocated_space_is_cut_with_it() {
    for written in [1, 2, 8, 17, 18, 100, 250] {
        let dir = tempfile::tempdir().unwrap();
        let log = IssueLog::open(dir.path(), Options::default().preallocate_bytes(4096)).unwrap();
        log.append(&event("bd-1")).unwrap();
        let mut bytes = fs::read(first_segment(dir.path())).unwrap();
        let end = line_ends(&bytes)[1];
        let torn = bytes[..written].to_vec();
        bytes[end..end + written].copy_from_slice(&torn);
        fs::write(first_segment(dir.path()), &bytes).unwrap();
        assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
        assert_eq!(ids(log.log().records().unwrap()), expected(2));
        let quarantine = dir.path().join("quarantine");
        let kept = fs::read(quarantine.join(&names(&quarantine)[0])).unwrap();
        assert_eq!(kept.strip_suffix(b"\n").unwrap_or(&kept), torn);
    }
}

#[test]
fn a_damaged_acknowledged_record_is_an_error_with_its_place_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    let ends = line_ends(&bytes);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        fs::write(first_segment(dir.path()), &damaged).unwrap();
        let start = *ends.iter().rev().find(|end| **end <= at).unwrap() as u64;
        // The reader knows the durable number from the hints.
        let error = Reader::<IssueEvent>::open(dir.path())
            .unwrap()
            .records()
            .unwrap()
            .find_map(Result::err)
            .unwrap();
        assert!(
            matches!(error, Error::Corrupt { offset, .. } if offset == start),
            "byte {at}: {error}"
        );
        let verified = Reader::<IssueEvent>::open(dir.path()).unwrap().verify();
        assert!(
            matches!(verified, Err(Error::Corrupt { offset, .. }) if offset == start),
            "byte {at}: {verified:?}"
        );
        // The writer too, even if the hints look stale: their durable number was right.
        let shm = fs::read(dir.path().join("shm")).unwrap();
        let mut stale = shm.clone();
        stale[3] ^= 0xff; // The identity, which a reboot changes.
        fs::write(dir.path().join("shm"), &stale).unwrap();
        assert_eq!(corrupt_at(dir.path()).0, start, "byte {at}");
        fs::write(dir.path().join("shm"), &shm).unwrap();
        assert_eq!(fs::read(first_segment(dir.path())).unwrap(), damaged);
    }
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn an_acknowledged_record_that_is_missing_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    let ends = line_ends(&bytes);
    fs::write(first_segment(dir.path()), &bytes[..ends[3]]).unwrap();
    let missing = CorruptReason::Missing {
        from_seq: 4,
        through_seq: RECORDS,
    };
    assert_eq!(corrupt_at(dir.path()), (ends[3] as u64, missing));
    fs::remove_file(first_segment(dir.path())).unwrap();
    let missing = CorruptReason::Missing {
        from_seq: 1,
        through_seq: RECORDS,
    };
    assert_eq!(corrupt_at(dir.path()), (0, missing));
}

#[test]
fn missing_or_damaged_hints_cost_a_scan_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), RECORDS);
    let shm = dir.path().join("shm");
    let good = fs::read(&shm).unwrap();
    for at in 0..1024 {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[at] ^= change;
            fs::write(&shm, &damaged).unwrap();
            let log = open_issues(dir.path());
            assert_eq!(
                (
                    log.log().tail_seq().unwrap(),
                    log.log().durable_seq().unwrap()
                ),
                (Some(Seq::new(RECORDS)), Some(Seq::new(RECORDS))),
                "byte {at}"
            );
            assert_eq!(
                ids(log.log().records().unwrap()),
                expected(RECORDS),
                "byte {at}"
            );
        }
    }
    for len in [0, 1, 8, 2048, 4095] {
        fs::write(&shm, &good[..len]).unwrap();
        assert_eq!(
            open_issues(dir.path()).log().tail_seq().unwrap(),
            Some(Seq::new(RECORDS))
        );
    }
    forget_hints(dir.path());
    let log = open_issues(dir.path());
    assert!(log.log().recovery().rebuilt);
    assert_eq!(log.append(&event("bd-6")).unwrap().seq, 6);
}

#[test]
#[cfg_attr(windows, ignore = "Windows cuts and removes no mapped file")]
fn hints_cut_or_deleted_under_an_open_log_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.append(&event("bd-1")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("shm"))
        .unwrap()
        .set_len(0)
        .unwrap();
    assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
    forget_hints(dir.path());
    assert_eq!(log.append(&event("bd-3")).unwrap().seq, 3);
    let other = open_issues(dir.path());
    assert_eq!(other.append(&event("bd-4")).unwrap().seq, 4);
    assert_eq!(log.append(&event("bd-5")).unwrap().seq, 5);
    assert_eq!(ids(log.log().records().unwrap()), expected(5));
    assert_eq!(ids(other.log().records().unwrap()), expected(5));
}

#[test]
#[cfg_attr(windows, ignore = "Windows cuts and removes no mapped file")]
fn hints_that_are_cut_do_not_kill_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(
        dir.path(),
        options().lock_timeout(Duration::from_millis(20)),
    )
    .unwrap();
    log.append(&event("bd-1")).unwrap();
    let cut = || {
        let page = fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("shm"));
        page.unwrap().set_len(0).unwrap();
    };
    cut();
    log.create(Issue::new_at("bd-2", "Mend the fence", TS))
        .unwrap();
    cut();
    assert!(!log.compaction_due().unwrap());
    cut();
    assert!(matches!(log.compact(), Ok(Compacted::Done { seq, .. }) if seq == 2));
    cut();
    // They cannot be rebuilt now.
    let lock = FileLock::open(dir.path().join("lock")).unwrap();
    let guard = lock.lock().unwrap();
    assert!(matches!(log.log().durable_seq(), Err(Error::Lock(_))));
    assert!(matches!(log.log().tail_seq(), Err(Error::Lock(_))));
    guard.unlock().unwrap();
    assert_eq!(
        (
            log.log().durable_seq().unwrap(),
            log.log().tail_seq().unwrap()
        ),
        (Some(Seq::new(2)), Some(Seq::new(2)))
    );
}

#[test]
fn a_copy_made_without_writers_is_a_store_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.append(&event("bd-1")).unwrap();
    drop(log);
    let copy = tempfile::tempdir().unwrap();
    for name in names(dir.path()) {
        fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    open_issues(dir.path()).append(&event("bd-2")).unwrap();
    let copied = open_issues(copy.path());
    assert!(
        copied.log().recovery().rebuilt,
        "the hints name the file that they were written to"
    );
    assert_eq!(copied.append(&event("bd-2")).unwrap().seq, 2);
    assert_eq!(ids(copied.log().records().unwrap()), expected(2));
}

#[test]
fn an_empty_last_segment_needs_a_whole_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    forget_hints(dir.path());
    fs::write(dir.path().join("log-00000000000000000006.jsonl"), "").unwrap();
    let log = open_issues(dir.path());
    assert_eq!(log.append(&event("bd-6")).unwrap().seq, 6);
    assert_eq!(ids(log.log().records().unwrap()), expected(6));
    drop(log);
    // A torn end in a segment that has a successor is corruption: it was durable before the next
    // began.
    forget_hints(dir.path());
    fs::write(dir.path().join("log-00000000000000000006.jsonl"), "").unwrap();
    fs::write(first_segment(dir.path()), &bytes[..bytes.len() - 3]).unwrap();
    let start = line_ends(&bytes)[LAST] as u64;
    assert_eq!(corrupt_at(dir.path()).0, start);
    let error = Reader::<IssueEvent>::open(dir.path())
        .unwrap()
        .records()
        .unwrap()
        .find_map(Result::err)
        .unwrap();
    assert!(
        matches!(error, Error::Corrupt { offset, .. } if offset == start),
        "{error}"
    );
}

#[test]
fn recovery_twice_gives_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), RECORDS);
    forget_hints(dir.path());
    fs::write(first_segment(dir.path()), &bytes[..bytes.len() - 7]).unwrap();
    drop(open_issues(dir.path()));
    let once = fs::read(first_segment(dir.path())).unwrap();
    forget_hints(dir.path());
    let log = open_issues(dir.path());
    assert_eq!(log.log().recovery().cut_bytes, 0);
    assert_eq!(fs::read(first_segment(dir.path())).unwrap(), once);
    assert_eq!(names(&dir.path().join("quarantine")).len(), 1);
}

/// The records that a reader reads, and the error that ends them.
fn read(dir: &Path) -> (Vec<u64>, Option<CorruptReason>) {
    let reader = Reader::<IssueEvent>::open(dir).unwrap();
    let mut seqs = Vec::new();
    for record in reader.records().unwrap() {
        match record {
            Ok(record) => seqs.push(record.seq.get()),
            Err(Error::Corrupt { reason, .. }) => return (seqs, Some(reason)),
            Err(error) => panic!("{error}"),
        }
    }
    (seqs, None)
}

#[test]
fn a_reader_without_hints_finds_a_segment_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), crate::support::options().segment_bytes_max(1)).unwrap();
    append_numbered(log.log(), 1..=4);
    drop(log);
    forget_hints(dir.path());
    let all: Vec<u64> = (1..=4).collect();
    assert_eq!(read(dir.path()), (all.clone(), None));
    for gone in 1..=3 {
        let path = dir.path().join(format!("log-{gone:020}.jsonl"));
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (seqs, reason) = read(dir.path());
        assert_eq!(seqs, all[..gone - 1]);
        assert!(
            matches!(reason, Some(CorruptReason::Missing { from_seq, .. }) if from_seq == gone as u64),
            "{reason:?}"
        );
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(read(dir.path()), (all, None));
}

#[test]
fn a_reader_without_hints_ignores_bytes_after_a_complete_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), crate::support::options().segment_bytes_max(1)).unwrap();
    append_numbered(log.log(), 1..=3);
    drop(log);
    forget_hints(dir.path());
    let mut bytes = fs::read(first_segment(dir.path())).unwrap();
    bytes.extend_from_slice(b"junk in free space\n");
    fs::write(first_segment(dir.path()), &bytes).unwrap();
    assert_eq!(read(dir.path()), (vec![1, 2, 3], None));
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem that replaces open files: NTFS since Windows 10 1809, not Wine"
)]
fn a_follower_continues_in_the_file_that_replaced_a_damaged_one() {
    for hints in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = store_of(dir.path(), RECORDS);
        if !hints {
            forget_hints(dir.path());
        }
        let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
        let mut follower = reader.follow(Seq::new(1)).unwrap();
        let mut damaged = bytes.clone();
        damaged[line_ends(&bytes)[2] + 30] ^= 1;
        fs::write(first_segment(dir.path()), &damaged).unwrap();
        for seq in 1..=2 {
            assert_eq!(follower.try_next().unwrap().unwrap().seq, seq);
        }
        for _ in 0..2 {
            let refused = follower.try_next();
            assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
        }
        fs::write(dir.path().join("new"), &bytes).unwrap();
        fs::rename(dir.path().join("new"), first_segment(dir.path())).unwrap();
        for seq in 3..=RECORDS {
            assert_eq!(follower.try_next().unwrap().unwrap().seq, seq);
        }
        assert!(follower.try_next().unwrap().is_none());
        open_issues(dir.path()).append(&event("bd-6")).unwrap();
        assert_eq!(follower.try_next().unwrap().unwrap().seq, RECORDS + 1);
    }
}

#[test]
#[cfg_attr(
    windows,
    ignore = "needs a filesystem that replaces open files: NTFS since Windows 10 1809, not Wine"
)]
fn a_writer_without_shared_memory_never_writes_to_a_segment_that_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let first = first_segment(dir.path());
    let log = IssueLog::open(dir.path(), crate::support::options().share_memory(false)).unwrap();
    log.append(&event("bd-1")).unwrap();
    let other = open_issues(dir.path());
    other.append(&event("bd-2")).unwrap();
    drop(other);
    // The second record was lost, and put back in another file, before the next segment was begun.
    let whole = fs::read(&first).unwrap();
    fs::write(dir.path().join("new"), &whole).unwrap();
    fs::write(&first, &whole[..line_ends(&whole)[1]]).unwrap();
    fs::write(dir.path().join("log-00000000000000000003.jsonl"), "").unwrap();
    fs::rename(dir.path().join("new"), &first).unwrap();
    forget_hints(dir.path());
    assert_eq!(log.append(&event("bd-3")).unwrap().seq, 3);
    assert_eq!(read(dir.path()), (vec![1, 2, 3], None));
}

/// A crash may leave old bytes of any file in the free space behind a complete segment.
#[test]
fn records_in_the_free_space_of_a_complete_segment_are_none() {
    for has_mark in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let log = Log::<IssueEvent>::open(dir, options().segment_bytes_max(300)).unwrap();
        append_numbered(&log, 1..=5);
        drop(log);
        let mut segments: Vec<_> = names(dir)
            .into_iter()
            .filter(|name| name.strip_suffix(".jsonl").is_some())
            .collect();
        let (last, previous) = (segments.pop().unwrap(), segments.pop().unwrap());
        let log = open(dir);
        append_numbered(&log, 6..=8);
        drop(log);
        let mut bytes = fs::read(dir.join(&previous)).unwrap();
        if !has_mark {
            let end = bytes.iter().rposition(|byte| *byte == b'}').unwrap();
            bytes.truncate(end + 2);
        }
        // A part of a line, and then whole ones.
        bytes.extend_from_slice(&fs::read(dir.join(&last)).unwrap()[1..]);
        fs::write(dir.join(&previous), bytes).unwrap();
        forget_hints(dir);
        let log = open(dir);
        log.append(&event("bd-9")).unwrap();
        assert_eq!(ids(log.records().unwrap()), expected(9));
        let report = check(dir).unwrap();
        assert_eq!(report.advice, Advice::Nothing, "{report}");
    }
}
