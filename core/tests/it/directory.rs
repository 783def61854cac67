//! The names of segments: a record is durable only when the directory that names its file is.

use std::sync::Arc;

use strand_core::{IssueEvent, Log, Options};

use crate::support::{Call, Recorder, event};

#[test]
fn a_segment_whose_creation_was_interrupted_is_named_durably_before_a_record_in_it_is_acknowledged()
{
    let dir = tempfile::tempdir().unwrap();
    let storage = Recorder::default();
    let options = Options::default().segment_bytes_max(1);
    let log: Log<IssueEvent> =
        Log::open(dir.path(), options.storage(Arc::new(storage.clone()))).unwrap();
    log.append(&event("bd-1")).unwrap();
    // As if the writer died between creating the segment and syncing the directory.
    storage.fail_sync_dir(true);
    log.append(&event("bd-2")).unwrap_err();
    storage.fail_sync_dir(false);
    storage.take();
    assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
    assert!(storage.take().contains(&Call::SyncDir));
}
