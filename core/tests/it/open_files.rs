//! A store whose files others have open, by whatever program.

use std::{fs::File, io::Read, thread, time::Duration};

use strand_core::{Compacted, IssueEvent, IssueLog, Issues, Reader, Seq};

use crate::support::{event, names, options};

#[test]
fn a_store_is_written_and_compacted_while_another_process_has_every_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), options().segment_bytes_max(500)).unwrap();
    let append = |number: u64| log.append(&event(&format!("bd-{number}"))).unwrap().seq;
    (1..=9).for_each(|number| assert_eq!(append(number), number));
    assert!(matches!(log.compact(), Ok(Compacted::Done { .. })));
    (10..=19).for_each(|number| assert_eq!(append(number), number));

    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut follower = reader.follow(Seq::new(10)).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().seq, 10);
    let opened = |name: &String| (name.clone(), File::open(dir.path().join(name)).unwrap());
    let files = names(dir.path());
    let files = files.iter().filter(|name| dir.path().join(name).is_file());
    let (manifest, mut files): (Vec<_>, Vec<_>) =
        files.map(opened).partition(|(name, _)| name == "MANIFEST");
    assert!(files.len() > 5, "{files:?}");
    thread::scope(|scope| {
        scope.spawn(move || {
            // Where an open file can't be replaced, the compaction waits until this is closed.
            thread::sleep(Duration::from_millis(100));
            drop(manifest);
        });
        assert!(matches!(log.compact(), Ok(Compacted::Done { seq, .. }) if seq == 19));
    });
    assert_eq!(append(20), 20);
    // A reader that has the file open reads on in it, and then gets the error.
    assert_eq!(follower.try_next().unwrap().unwrap().seq, 11);
    for (name, file) in &mut files {
        if name.contains(".jsonl") {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert!(text.contains("bd-"), "{name}");
        }
    }
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!((store.len(), store.last_seq().get()), (20, 20));

    drop((follower, reader, files, log));
    drop(IssueLog::open(dir.path(), options()).unwrap());
    let left = names(dir.path());
    let segments = left.iter().filter(|name| name.starts_with("log-")).count();
    assert_eq!(segments, 1, "{left:?}");
    assert_eq!(Issues::load(dir.path()).unwrap(), store);
}
