//! Texts for people: errors with their advice, reports, and values in the output of a
//! debugger.

use std::{error::Error as _, fs, io, path::PathBuf, sync::Arc, time::Duration};

use strand_core::{
    Batch, Compactor, CorruptReason, Durability, Error, InvalidEvent, Issue, IssueEvent, IssueLog,
    Issues, Options, Outcome, Patch, Reader, Seq, Version,
    check::{Advice, check},
};
use strand_lock::LockError;

use crate::support::{Recorder, TS, event, first_segment, open_issues, options, store_of};

#[test]
fn a_mismatch_names_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let add = Issue::new_at("bd-1", "Mend the fence", TS);
    log.create(add.clone()).unwrap();
    log.claim("bd-1", "ann").unwrap();
    let stale = log.update_if(add, Version::new(1)).unwrap_err().to_string();
    assert_eq!(
        stale,
        "issue \"bd-1\" is at version 2, not at 1; look at it again and decide anew"
    );
    let late = log.claim("bd-1", "ben").unwrap_err().to_string();
    assert_eq!(
        late,
        "issue \"bd-1\" can't be claimed: it is at version 2, not open or not free"
    );
    let unknown = log
        .commit(&Batch::at(TS).delete_if("bd-2", Version::new(3)))
        .unwrap_err();
    assert_eq!(unknown.to_string(), "there is no issue \"bd-2\"");
    assert!(unknown.is_no_such_issue());
    assert!(log.claim("bd-2", "ben").unwrap_err().is_no_such_issue());
    assert!(!log.claim("bd-1", "ben").unwrap_err().is_no_such_issue());
}

#[test]
fn every_damage_has_its_own_advice() {
    let at = |reason| {
        Error::Corrupt {
            path: "log".into(),
            offset: 5,
            reason,
        }
        .to_string()
    };
    let message = || "m".to_owned();
    let cases = [
        (
            CorruptReason::ManifestMissing,
            "no MANIFEST",
            "restore the MANIFEST",
        ),
        (
            CorruptReason::Manifest { message: message() },
            "m",
            "restore the MANIFEST",
        ),
        (
            CorruptReason::Missing {
                from_seq: 2,
                through_seq: 4,
            },
            "records 2 to 4 are missing",
            "delete `shm`",
        ),
        (
            CorruptReason::Missing {
                from_seq: 2,
                through_seq: 2,
            },
            "the acknowledged record 2 is missing",
            "delete `shm`",
        ),
        (
            CorruptReason::Payload { message: message() },
            "is whole, but is not an event: m",
            "read it with the program that wrote it",
        ),
        (
            CorruptReason::NotARecord,
            "not a record",
            "restore the file from a backup",
        ),
    ];
    for (reason, what, advice) in cases {
        let text = at(reason);
        assert!(text.contains(what) && text.contains(advice), "{text}");
    }
}

#[test]
fn a_report_names_every_damage_and_every_unreadable_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = store_of(dir.path(), 3);
    bytes[30] ^= 1;
    fs::write(first_segment(dir.path()), bytes).unwrap();
    let damaged = check(dir.path()).unwrap();
    assert_eq!(damaged.advice, Advice::Repair);
    let text = damaged.to_string();
    assert!(text.contains("damage: "), "{text}");
    assert!(text.contains("hints: good"), "{text}");

    let dir = tempfile::tempdir().unwrap();
    drop(store_of(dir.path(), 1));
    fs::remove_file(first_segment(dir.path())).unwrap();
    fs::create_dir(first_segment(dir.path())).unwrap();
    let unreadable = check(dir.path()).unwrap();
    assert_eq!(unreadable.advice, Advice::CheckDisk);
    let text = unreadable.to_string();
    assert!(text.contains("unreadable: log-"), "{text}");
    assert!(text.contains("check the disk"), "{text}");
}

#[test]
fn hints_of_a_failed_sync_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let log = IssueLog::open(dir.path(), options().storage(Arc::new(recorder.clone()))).unwrap();
    log.append(&event("bd-1")).unwrap();
    recorder.fail_next_sync();
    log.append(&event("bd-2")).unwrap_err();
    let report = check(dir.path()).unwrap();
    assert_eq!(report.hints_problem.as_deref(), Some("a sync failed"));
    assert!(report.to_string().contains("hints: a sync failed"));
    log.append(&event("bd-3")).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!(report.hints_problem, None);
}

#[test]
fn hints_of_another_store_are_reported() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for dir in [&here, &there] {
        store_of(dir.path(), 1);
    }
    fs::copy(there.path().join("shm"), here.path().join("shm")).unwrap();
    let report = check(here.path()).unwrap();
    assert_eq!(report.hints_problem.as_deref(), Some("stale"));
    assert!(report.to_string().contains("hints: stale"));
}

#[test]
fn debug_output_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.append(&event("bd-1")).unwrap();
    let path = format!("{:?}", dir.path());
    let debugged = format!("{log:?}");
    assert!(debugged.starts_with("IssueLog { log: Log {") && debugged.contains(&path));
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut follower = reader.follow(Seq::new(1)).unwrap();
    follower.try_next().unwrap().unwrap();
    assert_eq!(format!("{follower:?}"), "Follower { next_seq: Seq(2), .. }");
    let compactor =
        Compactor::start::<Issues>(Arc::clone(log.log()), Duration::from_mins(1)).unwrap();
    assert_eq!(format!("{compactor:?}"), "Compactor { .. }");
    assert_eq!(compactor.stop().unwrap(), 0);
    let issue = Issue::new_at("bd-1", "T", TS);
    assert_eq!(format!("{issue:?}"), format!("Issue({})", issue.as_json()));
    let options = Options::default()
        .durability(Durability::Buffered)
        .tombstone_ms(77);
    let debugged = format!("{options:?}");
    assert!(
        debugged.contains("durability: Buffered") && debugged.contains("tombstone_ms: 77"),
        "{debugged}"
    );
}

#[test]
fn a_value_of_the_wrong_shape_is_an_error_that_names_the_right_one() {
    let told = |text: &str| {
        let event = serde_json::from_str::<IssueEvent>(text);
        event.unwrap_err().to_string()
    };
    assert!(told("[]").contains("expected an event: an object with"));
    assert!(
        told("{\"ts\":1,\"op\":\"patch\",\"id\":\"a\",\"patch\":[]}")
            .contains("a patch: an object")
    );
    let issue = serde_json::from_str::<Issue>("7").unwrap_err();
    assert!(issue.to_string().contains("must be a JSON object"));
    assert!(serde_json::from_str::<Patch>("{\"set\":1}").is_err());
}

#[test]
fn an_error_has_a_source_and_does_not_repeat_it() {
    let source = || io::Error::other("no space");
    let path = PathBuf::from("x");
    let errors = [
        Error::Io {
            op: "write",
            path: path.clone(),
            outcome: Outcome::Rejected,
            source: source(),
        },
        Error::NotWritable {
            path,
            source: source(),
        },
        Error::from(InvalidEvent::EmptyId),
    ];
    for error in errors {
        let (text, source) = (error.to_string(), error.source().unwrap().to_string());
        assert!(!text.contains(&source), "{text}: {source}");
    }
}

#[test]
fn a_held_lock_names_its_holder_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(
        dir.path(),
        options().lock_timeout(Duration::from_millis(20)),
    )
    .unwrap();
    let other = strand_lock::FileLock::open(dir.path().join("lock")).unwrap();
    let held = other.lock().unwrap();
    let late = log.append(&event("bd-1")).unwrap_err();
    assert!(
        matches!(&late, Error::Lock(LockError::Timeout { holder: Some(holder), .. })
            if holder.pid == std::process::id()),
        "{late:?}"
    );
    assert!(late.is_retryable());
    held.unlock().unwrap();
    log.append(&event("bd-1")).unwrap();
}
