//! Each bad input has its own error, and changes nothing.

use std::time::Duration;

use strand_core::{
    CorruptReason, Error, ID_BYTES_MAX, InvalidEvent, Issue, IssueEvent, LiveIssues, LockError,
    Log, Options, Outcome, Reader, TITLE_BYTES_MAX,
};

use crate::support::{TS, event, first_segment, names, open, store_of};

fn refused(log: &Log<IssueEvent>, event: &IssueEvent) -> InvalidEvent {
    match log.append(event).unwrap_err() {
        Error::InvalidEvent(reason) => reason,
        error => panic!("{error}"),
    }
}

#[test]
fn events_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let titled = |title: &str| IssueEvent::add(Issue::new_at("bd-1", title, TS), TS);
    assert_eq!(refused(&log, &event("")), InvalidEvent::EmptyId);
    assert_eq!(
        refused(&log, &IssueEvent::close("", TS)),
        InvalidEvent::EmptyId
    );
    let long_id = "x".repeat(ID_BYTES_MAX + 1);
    assert!(matches!(
        refused(&log, &event(&long_id)),
        InvalidEvent::TooLong {
            field: "id",
            bytes: 257,
            max: 256
        }
    ));
    let long_title = "é".repeat(TITLE_BYTES_MAX / 2) + "x";
    assert!(matches!(
        refused(&log, &titled(&long_title)),
        InvalidEvent::TooLong { field: "title", .. }
    ));
    let mut without_issue = event("bd-1");
    without_issue.data = None;
    assert_eq!(refused(&log, &without_issue), InvalidEvent::MissingIssue);
    let mut other = event("bd-1");
    other.id = "bd-2".into();
    assert!(matches!(
        refused(&log, &other),
        InvalidEvent::IdMismatch { .. }
    ));
    let mut untitled = event("bd-1");
    untitled.data = Some(untitled.data.unwrap().without("title").unwrap());
    assert_eq!(
        refused(&log, &untitled),
        InvalidEvent::Field {
            field: "title",
            expected: "string"
        }
    );
    assert!(matches!(
        log.append_batch(&[]),
        Err(Error::InvalidEvent(InvalidEvent::EmptyBatch))
    ));
    assert!(log.append_batch(&[event("bd-1"), event("")]).is_err());
    for text in [
        "[]",
        "{",
        "null",
        r#"{"id":7,"title":""}"#,
        r#"{"title":"T"}"#,
    ] {
        assert!(Issue::from_json(text).is_err(), "{text}");
    }
    // The limits themselves are allowed.
    assert_eq!(std::fs::read(first_segment(dir.path())).unwrap(), b"");
    log.append(&event(&long_id[1..])).unwrap();
    log.append(&titled(&long_title[2..])).unwrap();
}

#[test]
fn no_member_of_an_event_hides_one_of_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for member in ["crc", "seq", "synced", "batch"] {
        let text = format!(r#"{{"op":"close","id":"a","{member}":5000}}"#);
        let event = IssueEvent::from_json(&text, TS).unwrap();
        assert_eq!(refused(&log, &event), InvalidEvent::Reserved { member });
        assert!(log.append_batch(&[event]).is_err());
    }
    let inside = r#"{"op":"add","id":"a","data":{"id":"a","title":"T","seq":1,"batch":[]}}"#;
    log.append(&IssueEvent::from_json(inside, TS).unwrap())
        .unwrap();
    for twice in ["data", "patch", "key"] {
        let text = format!(r#"{{"op":"close","id":"a","{twice}":null,"{twice}":null}}"#);
        assert!(IssueEvent::from_json(&text, TS).is_err(), "{text}");
    }
    let twice = r#"{"op":"close","id":"a","op":"delete"}"#;
    let error = IssueEvent::from_json(twice, TS).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("not an event: duplicate field `op`"),
        "{error}"
    );
}

#[test]
fn a_record_beyond_the_limit_is_refused_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let sized = |bytes: usize| {
        IssueEvent::add(
            Issue::new_at("bd-1", "T", TS)
                .with("description", &"x".repeat(bytes))
                .unwrap(),
            TS,
        )
    };
    let error = log
        .append(&sized(strand_core::RECORD_BYTES_MAX))
        .unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Rejected);
    let log_of_large = log
        .append(&sized(strand_core::RECORD_BYTES_MAX - 1000))
        .unwrap();
    assert_eq!(log_of_large.seq, 1);
    assert_eq!(log.records().unwrap().count(), 1);
    assert!(!open(dir.path()).recovery().rebuilt);
}

#[test]
fn directories_that_cannot_be_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let open =
        |path: &std::path::Path| Log::<IssueEvent>::open(path, Options::default()).unwrap_err();
    assert!(matches!(open(&missing), Error::MissingDirectory { path } if path == missing));
    assert!(matches!(
        Reader::<IssueEvent>::open(&missing),
        Err(Error::MissingDirectory { .. })
    ));
    let file = dir.path().join("file");
    std::fs::write(&file, "something").unwrap();
    assert!(matches!(open(&file), Error::NotADirectory { path } if path == file));
    let below = open(&file.join("below"));
    // Windows only says that there is no such path.
    assert!(
        matches!(below, Error::NotADirectory { .. })
            || cfg!(windows) && matches!(below, Error::MissingDirectory { .. }),
        "{below}"
    );
    assert!(matches!(
        Reader::<IssueEvent>::open(dir.path()),
        Err(Error::NoStore { .. })
    ));
    assert_eq!(names(dir.path()), ["file"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"something");
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_without_write_permission() {
    // Not even root may create files here.
    let error = Log::<IssueEvent>::open("/sys/kernel", Options::default()).unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 1);
    let manifest = dir.path().join("MANIFEST");
    std::fs::write(&manifest, "{\"format\":4,\"all\":\"new\"}\n").unwrap();
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let before = names(dir.path());
    for error in [
        Log::<IssueEvent>::open(dir.path(), Options::default()).unwrap_err(),
        Reader::<IssueEvent>::open(dir.path()).unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                Error::UnsupportedVersion {
                    found: 4,
                    supported: 3,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(names(dir.path()), before);
}

#[test]
fn every_changed_byte_of_the_manifest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 1);
    let path = dir.path().join("MANIFEST");
    let manifest = std::fs::read(&path).unwrap();
    // The newline after the object is white space.
    for at in 0..manifest.len() - 1 {
        for change in [0x01, 0x80, manifest[at]] {
            let mut damaged = manifest.clone();
            damaged[at] ^= change;
            std::fs::write(&path, damaged).unwrap();
            match Reader::<IssueEvent>::open(dir.path()) {
                Err(Error::Corrupt {
                    path: named,
                    offset: 0,
                    ..
                }) => assert_eq!(named, path),
                Err(Error::UnsupportedVersion { .. }) => {}
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn logs_without_a_manifest_are_not_taken_for_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 2);
    std::fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    let error = Log::<IssueEvent>::open(dir.path(), Options::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Corrupt {
                reason: CorruptReason::ManifestMissing,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(std::fs::read(first_segment(dir.path())).unwrap(), bytes);
}

#[test]
fn a_reader_finds_no_store_while_one_is_being_created() {
    let dir = tempfile::tempdir().unwrap();
    // A creation begins with this file.
    std::fs::write(first_segment(dir.path()), "").unwrap();
    let refused = Reader::<IssueEvent>::open(dir.path());
    assert!(matches!(refused, Err(Error::NoStore { .. })), "{refused:?}");
    let refused = LiveIssues::open(dir.path());
    assert!(matches!(refused, Err(Error::NoStore { .. })), "{refused:?}");
    assert_eq!(names(dir.path()).len(), 1);
    open(dir.path()).append(&event("bd-1")).unwrap();
    assert_eq!(LiveIssues::open(dir.path()).unwrap().state().len(), 1);
    // Records without a manifest are another matter, and so is a later segment.
    std::fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    let missing = |dir: &std::path::Path| {
        let refused = Reader::<IssueEvent>::open(dir);
        let reason = match refused {
            Err(Error::Corrupt { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason, CorruptReason::ManifestMissing);
    };
    missing(dir.path());
    let later = tempfile::tempdir().unwrap();
    std::fs::write(later.path().join("log-00000000000000000002.jsonl"), "").unwrap();
    missing(later.path());
}

#[test]
fn a_lock_that_is_held_too_long_is_an_error_that_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::<IssueEvent>::open(
        dir.path(),
        Options::default().lock_timeout(Duration::from_millis(20)),
    )
    .unwrap();
    let other = strand_lock::FileLock::open(dir.path().join("lock")).unwrap();
    let guard = other.lock().unwrap();
    let error = log.append(&event("bd-1")).unwrap_err();
    assert!(error.is_retryable());
    let Error::Lock(LockError::Timeout { holder, waited, .. }) = &error else {
        panic!("{error}")
    };
    assert!(*waited >= Duration::from_millis(20));
    assert_eq!(holder.as_ref().unwrap().pid, std::process::id());
    guard.unlock().unwrap();
    assert_eq!(log.append(&event("bd-1")).unwrap().seq, 1);
}
