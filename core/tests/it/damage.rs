//! Files of another moment, another store or another place: each is found out, and nothing more is
//! lost.

use std::{fs, io::Write as _, path::Path};

use strand_core::{
    Compacted, CorruptReason, Error, IssueEvent, IssueLog, Issues, Options, Reader, Seq,
};

use crate::support::{
    append_numbered, event, first_segment, line_ends, names, open_issues, options, store_of,
};

fn segment(dir: &Path, first_seq: u64) -> std::path::PathBuf {
    dir.join(format!("log-{first_seq:020}.jsonl"))
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in names(dir) {
        fs::copy(dir.join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

/// The result of reading all records.
fn read(dir: &Path) -> (usize, Option<Error>) {
    let reader = Reader::<IssueEvent>::open(dir).unwrap();
    let mut count = 0;
    for record in reader.records().unwrap() {
        match record {
            Ok(_) => count += 1,
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

fn place(error: Option<Error>) -> (std::path::PathBuf, u64, CorruptReason) {
    match error {
        Some(Error::Corrupt {
            path,
            offset,
            reason,
        }) => (path, offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_of_a_copy_knows_from_the_old_page_how_far_the_log_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 5);
    let ends = line_ends(&bytes);
    let copy = copy_of(dir.path());
    assert!(read(copy.path()).1.is_none());
    let missing = CorruptReason::Missing {
        from_seq: 4,
        through_seq: 5,
    };
    // After a cut between records, the log has no trace of the rest.
    fs::write(first_segment(copy.path()), &bytes[..ends[3]]).unwrap();
    let (count, error) = read(copy.path());
    let expected = (first_segment(copy.path()), ends[3] as u64, missing);
    assert_eq!((count, place(error)), (3, expected.clone()));
    let opened = IssueLog::open(copy.path(), Options::default());
    assert_eq!(place(opened.err()), expected);
    // And a damaged last record is no torn one.
    let mut damaged = bytes.clone();
    damaged[ends[4] + 20] ^= 1;
    fs::write(first_segment(copy.path()), &damaged).unwrap();
    let (count, error) = read(copy.path());
    assert_eq!((count, place(error).1), (4, ends[4] as u64));
    // Without the page it can't be known.
    fs::remove_file(copy.path().join("shm")).unwrap();
    assert!(matches!(read(copy.path()), (4, None)));
}

#[test]
fn leftovers_of_compacted_segments_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 5);
    let log = open_issues(dir.path());
    log.compact().unwrap();
    log.append(&event("bd-6")).unwrap();
    for left_over in [&bytes[..], b"", b"{\"crc\":"] {
        fs::write(first_segment(dir.path()), left_over).unwrap();
        let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
        let answered = reader.follow(Seq::new(1)).unwrap().try_next();
        assert!(
            matches!(
                answered,
                Err(Error::Compacted {
                    snapshot_seq: 5,
                    ..
                })
            ),
            "{answered:?}"
        );
    }
}

#[test]
fn a_torn_tail_after_a_damaged_record_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 3);
    let last = line_ends(&bytes)[2];
    let mut damaged = bytes.clone();
    damaged[last + 20] ^= 1;
    damaged.extend_from_slice(b"{\"crc\":\"9f2c");
    fs::write(first_segment(dir.path()), &damaged).unwrap();
    let before = names(dir.path());
    let opened = IssueLog::open(dir.path(), Options::default());
    assert_eq!(place(opened.err()).1, last as u64);
    assert_eq!(fs::read(first_segment(dir.path())).unwrap(), damaged);
    assert_eq!(names(dir.path()), before);
}

/// A store of three segments, with records 1 to 3, 4 to 6 and 7 to 9.
fn three_segments(dir: &Path) -> IssueLog {
    store_of(dir, 3);
    two_segments_more(dir)
}

fn two_segments_more(dir: &Path) -> IssueLog {
    let whole = fs::metadata(first_segment(dir)).unwrap().len();
    let log = IssueLog::open(dir, options().segment_bytes_max(whole)).unwrap();
    append_numbered(log.log(), 4..=9);
    assert!(segment(dir, 7).exists());
    log
}

#[test]
fn a_segment_that_claims_records_of_another_is_not_appended_to() {
    for (from, content) in [(9, 4), (8, 8)] {
        let dir = tempfile::tempdir().unwrap();
        drop(three_segments(dir.path()));
        let claims = segment(dir.path(), from);
        if content == from {
            // Of another store, whose segments begin elsewhere.
            let other = tempfile::tempdir().unwrap();
            let bytes = store_of(other.path(), 9);
            fs::write(&claims, &bytes[line_ends(&bytes)[7]..]).unwrap();
        } else {
            fs::copy(segment(dir.path(), content), &claims).unwrap();
        }
        fs::remove_file(dir.path().join("shm")).unwrap();
        let before = names(dir.path());
        let opened = IssueLog::open(dir.path(), Options::default());
        let overlaps = CorruptReason::Sequence {
            expected: 10,
            found: from,
        };
        assert_eq!(place(opened.err()), (claims.clone(), 0, overlaps));
        fs::remove_file(&claims).unwrap();
        assert_eq!(
            open_issues(dir.path()).append(&event("bd-10")).unwrap().seq,
            10
        );
        assert_eq!(names(dir.path()).len(), before.len()); // `shm` for the other.
        assert_eq!(read(dir.path()).0, 10);
    }
}

#[test]
fn an_older_page_never_leads_writes_into_a_closed_segment() {
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), 3);
    let page = fs::read(dir.path().join("shm")).unwrap();
    drop(two_segments_more(dir.path()));
    // In place: another file would not be believed.
    let shm = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("shm"));
    shm.unwrap().write_all(&page).unwrap();
    let log = open_issues(dir.path());
    assert!(log.log().recovery().rebuilt);
    assert_eq!(log.append(&event("bd-10")).unwrap().seq, 10);
    assert!(matches!(read(dir.path()), (10, None)));
}

#[test]
fn an_older_manifest_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = three_segments(dir.path());
    let manifest = |dir: &Path| dir.join("MANIFEST");
    let mut earlier = vec![fs::read(manifest(dir.path())).unwrap()];
    for number in 10..=12 {
        assert!(matches!(log.compact().unwrap(), Compacted::Done { .. }));
        earlier.push(fs::read(manifest(dir.path())).unwrap());
        log.append(&event(&format!("bd-{number}"))).unwrap();
    }
    drop(log);
    let now = earlier.pop().unwrap();
    let files = names(dir.path());
    let state = Issues::load(dir.path()).unwrap();
    for manifest_bytes in earlier {
        fs::write(manifest(dir.path()), &manifest_bytes).unwrap();
        for hints in [true, false] {
            if !hints {
                fs::remove_file(dir.path().join("shm")).unwrap();
            }
            // Whether it may append or not, the files of the right manifest stay.
            drop(IssueLog::open(dir.path(), Options::default()));
            assert!(Issues::load(dir.path()).is_err());
            assert!(!matches!(read(dir.path()), (_, None)));
        }
        fs::write(manifest(dir.path()), &now).unwrap();
        drop(open_issues(dir.path()));
        assert_eq!(names(dir.path()), files);
        assert_eq!(Issues::load(dir.path()).unwrap(), state);
    }
}

#[test]
fn a_manifest_of_another_store_removes_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(three_segments(dir.path()));
    let now = fs::read(dir.path().join("MANIFEST")).unwrap();
    store_of(other.path(), 4);
    open_issues(other.path()).compact().unwrap();
    fs::copy(other.path().join("MANIFEST"), dir.path().join("MANIFEST")).unwrap();
    let files = names(dir.path());
    drop(IssueLog::open(dir.path(), Options::default()));
    assert!(Issues::load(dir.path()).is_err());
    fs::write(dir.path().join("MANIFEST"), now).unwrap();
    let mut now = names(dir.path());
    now.retain(|name| name != "compact.lock");
    assert_eq!(now, files);
    assert!(matches!(read(dir.path()), (9, None)));
}

#[test]
fn a_snapshot_with_blank_or_foreign_lines_is_not_the_named_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = three_segments(dir.path());
    log.compact().unwrap();
    let path = dir.path().join(format!("snapshot-{:020}.jsonl", 9));
    let bytes = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let blank = b"\n".as_slice();
    let at_first = |lines: &[&[u8]]| lines.concat();
    let blank_inside = at_first(&[lines[0], blank, &lines[1..].concat()]);
    let blank_behind = at_first(&[&bytes, blank]);
    let swapped = at_first(&[lines[0], lines[2], lines[1], &lines[3..].concat()]);
    let missing = at_first(&[&lines[..3].concat(), &lines[4..].concat()]);
    for (content, offset) in [
        (blank_inside, lines[0].len()),
        (blank_behind, 0),
        (swapped, 0),
        (missing, 0),
    ] {
        fs::write(&path, content).unwrap();
        let (named, at, reason) = place(Issues::load(dir.path()).err());
        assert_eq!((named, at), (path.clone(), offset as u64));
        assert!(
            matches!(reason, CorruptReason::Snapshot { .. }),
            "{reason:?}"
        );
    }
}
