//! The names of segments: a record is durable only when the directory that names its file is.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use strand_core::{Disk, IssueEvent, Log, OpenMode, Options, Storage, StorageFile};

use crate::support::event;

/// The disk, whose directories can't be synced while `fails`.
#[derive(Debug, Default)]
struct Directories {
    fails: AtomicBool,
    synced: AtomicUsize,
}

impl Storage for Directories {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        Disk.open(path, mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the sync of a directory was told to fail"));
        }
        self.synced.fetch_add(1, Ordering::Relaxed);
        Disk.sync_dir(dir)
    }
}

#[test]
fn a_segment_whose_creation_was_interrupted_is_named_durably_before_a_record_in_it_is_acknowledged()
{
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Directories::default());
    let log: Log<IssueEvent> = Log::open(
        dir.path(),
        Options::default()
            .segment_bytes_max(1)
            .storage(Arc::clone(&storage) as Arc<dyn Storage>),
    )
    .unwrap();
    log.append(&event("bd-1")).unwrap();
    // As if the writer died between creating the segment and syncing the directory.
    storage.fails.store(true, Ordering::Relaxed);
    log.append(&event("bd-2")).unwrap_err();
    storage.fails.store(false, Ordering::Relaxed);
    let before = storage.synced.load(Ordering::Relaxed);
    assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
    assert!(storage.synced.load(Ordering::Relaxed) > before);
}
