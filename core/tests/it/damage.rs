//! Files of another moment, another store or another place: each is found out, and nothing more is lost.

use std::{fs, path::Path};

use strand_core::{CorruptReason, Error, IssueEvent, Log, Options, Reader};

use crate::support::{event, first_segment, line_ends, names, open, store_of};

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in names(dir) {
        fs::copy(dir.join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

/// What reading all records ends with.
fn read(dir: &Path) -> (usize, Option<Error>) {
    let reader: Reader = Reader::open(dir).unwrap();
    let mut count = 0;
    for record in reader.read().unwrap() {
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
    // Cut behind a record, nothing in the log tells that there was more.
    fs::write(first_segment(copy.path()), &bytes[..ends[3]]).unwrap();
    let (count, error) = read(copy.path());
    let expected = (first_segment(copy.path()), ends[3] as u64, missing);
    assert_eq!((count, place(error)), (3, expected.clone()));
    let opened = Log::<IssueEvent>::open(copy.path(), Options::default());
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
fn what_is_left_of_compacted_segments_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = store_of(dir.path(), 5);
    let log = open(dir.path());
    log.compact().unwrap();
    log.append(&event("bd-6")).unwrap();
    for left_over in [&bytes[..], b"", b"{\"crc\":"] {
        fs::write(first_segment(dir.path()), left_over).unwrap();
        let reader: Reader = Reader::open(dir.path()).unwrap();
        let answered = reader.follow(1).unwrap().try_next();
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

