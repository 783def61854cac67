//! The order of writes, syncs and publications, and what a failure of each leaves behind.

use std::{io, sync::Arc};

use strand_core::{
    Batch, Compacted, Durability, Error, Issue, IssueLog, Outcome, Seq, testing::Failpoint,
};

use crate::support::{Call, Recorder, T0, event, ids, names, options};

fn recorded(dir: &std::path::Path) -> (IssueLog, Recorder) {
    let recorder = Recorder::default();
    let options = options()
        .storage(Arc::new(recorder.clone()))
        .failpoint_hook(Arc::new(recorder.clone()));
    let log = IssueLog::open(dir, options).unwrap();
    recorder.take();
    (log, recorder)
}

#[test]
fn a_lone_append_is_one_write_and_one_sync_and_published_after_each() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = recorded(dir.path());
    log.append(&event("bd-1")).unwrap();
    let len = recorder.take().iter().find_map(|call| match call {
        Call::Write { len, .. } => Some(*len),
        _ => None,
    });
    log.append(&event("bd-2")).unwrap();
    let at = Call::At;
    let write = Call::Write {
        offset: len.unwrap() as u64,
        len: len.unwrap(),
    };
    assert_eq!(
        recorder.take(),
        [
            at(Failpoint::LockHeld),
            at(Failpoint::BeforeWrite),
            write,
            at(Failpoint::AfterWrite),
            at(Failpoint::TailPublished),
            at(Failpoint::BeforeUnlock),
            at(Failpoint::LeaderElected),
            at(Failpoint::BeforeSync),
            Call::Sync,
            at(Failpoint::AfterSync),
            at(Failpoint::DurablePublished),
            at(Failpoint::Woken),
        ]
    );
}

#[test]
fn a_failed_sync_leaves_records_in_doubt_and_the_next_append_rewrites_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = recorded(dir.path());
    log.append(&event("bd-1")).unwrap();
    recorder.fail_next_sync();
    let error = log.append(&event("bd-2")).unwrap_err();
    assert!(
        matches!(error, Error::DurabilityUnknown { seq: 2, .. }),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(log.log().durable_seq().unwrap(), Some(Seq::new(1)));
    assert!(
        matches!(
            log.log().sync_to(Seq::new(2)),
            Err(Error::DurabilityUnknown { .. })
        ),
        "a second sync proves nothing"
    );
    recorder.take();
    assert_eq!(log.append(&event("bd-3")).unwrap().seq, 3);
    let calls = recorder.take();
    let writes: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call, Call::Write { .. } | Call::Sync))
        .collect();
    assert!(
        matches!(
            writes[..],
            [
                Call::Write { .. },
                Call::Sync,
                Call::Write { .. },
                Call::Sync
            ]
        ),
        "written again, synced, and only then appended to: {writes:?}"
    );
    assert_eq!(ids(log.log().records().unwrap()), ["bd-1", "bd-2", "bd-3"]);
}

#[test]
fn a_compaction_makes_durable_what_a_failed_sync_left_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = recorded(dir.path());
    recorder.fail_next_sync();
    let error = log.append(&event("bd-1")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let compacted = log.compact().unwrap();
    assert!(
        matches!(&compacted, Compacted::Done { seq, .. } if *seq == 1),
        "{compacted:?}"
    );
    assert_eq!(log.log().durable_seq().unwrap(), Some(Seq::new(1)));
}

#[test]
fn a_write_on_a_full_disk_is_undone_and_rejected_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = recorded(dir.path());
    log.append(&event("bd-1")).unwrap();
    for only in [0, 1, 30] {
        recorder.write_next_only(only);
        let error = log.append(&event("bd-lost")).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Rejected, "{error}");
        let is_full = |source: &io::Error| source.kind() == io::ErrorKind::StorageFull;
        assert!(
            matches!(&error, Error::Io { source, .. } if is_full(source)),
            "{error:?}"
        );
    }
    assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
    assert_eq!(ids(log.log().records().unwrap()), ["bd-1", "bd-2"]);
    assert!(!names(dir.path()).contains(&"quarantine".to_owned()));
}

#[test]
fn a_rejected_record_is_off_the_disk_before_its_caller_learns_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let options = options()
        .preallocate_bytes(4096)
        .storage(Arc::new(recorder.clone()));
    let log = IssueLog::open(dir.path(), options).unwrap();
    log.append(&event("bd-1")).unwrap();
    // Its newline is there already: it is the free space. So this is a whole record, until it is
    // cut off.
    let line_bytes = |calls: Vec<Call>| {
        calls.iter().find_map(|call| match call {
            Call::Write { len, .. } if *len < 4096 => Some(*len),
            _ => None,
        })
    };
    let only = line_bytes(recorder.take()).unwrap() - 1;
    recorder.write_next_only(only);
    let error = log.append(&event("bd-2")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Rejected, "{error}");
    assert_eq!(recorder.take().last(), Some(&Call::Sync));
    assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);

    // A sync that fails leaves it in doubt, with all that was not durable before.
    recorder.write_next_only(only);
    recorder.fail_next_sync();
    let error = log.append(&event("bd-3")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(log.append(&event("bd-4")).unwrap().seq, 3);
    assert_eq!(ids(log.log().records().unwrap()), ["bd-1", "bd-2", "bd-4"]);
}

#[test]
fn without_shared_memory_answers_are_durable_and_written_records_are_not_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let alone = |storage: &Recorder| {
        options()
            .share_memory(false)
            .storage(Arc::new(storage.clone()))
    };
    let log = IssueLog::open(dir.path(), alone(&recorder)).unwrap();
    let other = alone(&Recorder::default()).durability(Durability::Buffered);
    let other = IssueLog::open(dir.path(), other).unwrap();
    let create = Batch::at(T0)
        .key("k")
        .create(Issue::new_at("bd-1", "Mend", T0));
    assert_eq!(other.commit(&create).unwrap().seq, 1);
    recorder.take();
    let taken = log.create(Issue::new_at("bd-1", "Mend", T0)).unwrap_err();
    assert!(taken.is_conflict(), "{taken}");
    assert!(recorder.take().contains(&Call::Sync));

    let create = Batch::at(T0)
        .key("l")
        .create(Issue::new_at("bd-2", "Mend", T0));
    assert_eq!(other.commit(&create).unwrap().seq, 2);
    recorder.take();
    assert!(log.commit(&create).unwrap().repeated);
    assert!(recorder.take().contains(&Call::Sync));
    assert_eq!(other.append(&event("bd-3")).unwrap().seq, 3);
    log.log().sync_to(Seq::new(3)).unwrap();

    recorder.fail_next_sync();
    let error = log.append(&event("bd-4")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}

#[test]
fn a_short_write_that_cannot_be_undone_is_in_doubt_and_repaired_by_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = recorded(dir.path());
    recorder.write_next_only(30);
    recorder.fail_set_len(true);
    let error = log.append(&event("bd-lost")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    recorder.fail_set_len(false);
    assert_eq!(log.append(&event("bd-1")).unwrap().seq, 1);
    assert_eq!(ids(log.log().records().unwrap()), ["bd-1"]);
    assert_eq!(names(&dir.path().join("quarantine")).len(), 1);
}
