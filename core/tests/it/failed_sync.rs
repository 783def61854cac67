//! A failed sync that the system tells to one thread only, while another uses the same file.

use std::{
    fs, io,
    ops::Range,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use strand_core::{
    IssueEvent, Log, Outcome, Seq,
    testing::{Dir, Disk, Host, OpenMode, Storage, StorageFile, ThisMachine},
};

use crate::support::{event, options};

/// A disk whose first sync of a segment, once asked to, fails after others had a moment to write.
/// All that was written by then is lost unless it is written again.
#[derive(Debug, Clone, Default)]
struct FailingDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    fails: bool,
    is_failing: bool,
    /// What was written of the segment, and not synced.
    written: Range<u64>,
    lost: Range<u64>,
    writes: u32,
    /// Syncs that succeeded while something was lost.
    in_vain: u32,
}

#[derive(Debug)]
struct File {
    file: Box<dyn StorageFile>,
    /// `None` where it is another file than the first segment.
    disk: Option<FailingDisk>,
}

impl FailingDisk {
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.0.lock().unwrap())
    }

    fn wait_until(&self, time_max: Duration, is_so: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let waited = self
            .0
            .1
            .wait_timeout_while(state, time_max, |state| !is_so(state));
        drop(waited.unwrap());
    }
}

impl Storage for FailingDisk {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let is_first = name == "log-00000000000000000001.jsonl";
        let file = Disk.open(dir, name, mode)?;
        let disk = is_first.then(|| self.clone());
        Ok(Box::new(File { file, disk }))
    }

    fn host(&self) -> &dyn Host {
        &ThisMachine
    }
}

impl StorageFile for File {
    fn inner(&self) -> &dyn StorageFile {
        &*self.file
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.file.write_at(bytes, offset)?;
        if let Some(disk) = &self.disk {
            disk.state(|state| {
                let end = offset + len as u64;
                state.writes += 1;
                let before = state.written.clone();
                let before = if before.is_empty() {
                    offset..end
                } else {
                    before
                };
                state.written = offset.min(before.start)..end.max(before.end);
                if offset <= state.lost.start && state.lost.end <= end {
                    state.lost = 0..0;
                }
            });
            disk.0.1.notify_all();
        }
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else {
            return self.file.sync_data();
        };
        if !disk.state(|state| std::mem::take(&mut state.fails)) {
            // The system tells the one whose sync came first.
            disk.wait_until(Duration::from_secs(20), |state| !state.is_failing);
            return disk.state(|state| {
                state.in_vain += u32::from(!state.lost.is_empty());
                state.written = 0..0;
                self.file.sync_data()
            });
        }
        let writes = disk.state(|state| {
            state.is_failing = true;
            state.writes
        });
        disk.0.1.notify_all();
        disk.wait_until(Duration::from_millis(300), |state| state.writes > writes);
        disk.state(|state| {
            state.lost = state.written.clone();
            state.is_failing = false;
        });
        disk.0.1.notify_all();
        Err(io::Error::other("this disk has failed"))
    }
}

#[test]
fn a_sync_beside_one_that_fails_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let options = options()
        .storage(Arc::new(disk.clone()))
        .segment_bytes_max(1)
        .preallocate_bytes(0);
    let log = Log::<IssueEvent>::open(dir.path(), options).unwrap();
    disk.state(|state| state.fails = true);
    thread::scope(|scope| {
        let first = scope.spawn(|| log.append(&event("bd-1")));
        disk.wait_until(Duration::from_secs(20), |state| !state.fails);
        // Begins the next segment, for which it syncs the one whose sync is failing.
        assert_eq!(log.append(&event("bd-2")).unwrap().seq, 2);
        let first = first.join().unwrap();
        assert!(first.is_err_and(|error| error.outcome() == Outcome::Unknown));
    });
    assert_eq!(disk.state(|state| state.in_vain), 0);
    assert_eq!(log.durable_seq().unwrap(), Some(Seq::new(2)));
}

/// The system tells nobody who opens a file later that a sync of it failed.
#[test]
fn without_shared_memory_a_segment_that_is_opened_anew_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let options = options()
        .storage(Arc::new(disk.clone()))
        .share_memory(false)
        .preallocate_bytes(0);
    let open = || Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
    let (one, other) = (open(), open());
    other.append(&event("bd-1")).unwrap();
    one.append(&event("bd-2")).unwrap();
    // As a process does that finds another one in a lock that has lost its name.
    let [log, copy] = ["log-00000000000000000001.jsonl", "copy"].map(|name| dir.path().join(name));
    fs::copy(&log, &copy).unwrap();
    fs::rename(&copy, &log).unwrap();

    disk.state(|state| state.fails = true);
    let failed = one.append(&event("bd-3")).unwrap_err();
    assert_eq!(failed.outcome(), Outcome::Unknown);
    assert_eq!(other.append(&event("bd-4")).unwrap().seq, Seq::new(4));
    disk.state(|state| assert_eq!((state.in_vain, state.lost.clone()), (0, 0..0)));
}
