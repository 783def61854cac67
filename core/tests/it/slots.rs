//! What becomes of a record in a slot when the process that was about to write it dies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use strand_core::{
    IssueEvent, Log, Options,
    testing::{Failpoint, FailpointHook},
};

use crate::support::{as_child, child, event, ids, open};

const DEADLINE: Duration = Duration::from_secs(30);
const EXIT_DEAD: i32 = 9;

/// Waits for a file that another process makes.
fn wait_for(file: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "nobody makes {}", file.display());
        thread::sleep(Duration::from_micros(50));
    }
}

/// Holds the lock until the other process has left its record in a slot, and dies at `dies_at`.
struct Dying {
    is_armed: AtomicBool,
    held: PathBuf,
    waits: PathBuf,
    dies_at: Failpoint,
}

impl FailpointHook for Dying {
    fn reached(&self, point: Failpoint) {
        if !self.is_armed.load(Ordering::SeqCst) {
            return;
        }
        if point == Failpoint::LockHeld {
            fs::write(&self.held, "").unwrap();
            wait_for(&self.waits);
        }
        if point == self.dies_at {
            exit(EXIT_DEAD);
        }
    }
}

/// The writer whose record waits.
struct Waiting {
    waits: PathBuf,
    /// It has written a record itself.
    writes: AtomicBool,
}

impl FailpointHook for Waiting {
    fn reached(&self, point: Failpoint) {
        match point {
            Failpoint::SlotReady => fs::write(&self.waits, "").unwrap(),
            Failpoint::BeforeWrite => self.writes.store(true, Ordering::SeqCst),
            _ => {}
        }
    }
}

fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.with_extension("held"), dir.with_extension("waits"))
}

fn die(dir: &Path, dies_at: Failpoint) {
    let (held, waits) = files(dir);
    let hook = Arc::new(Dying {
        is_armed: AtomicBool::new(false),
        held,
        waits,
        dies_at,
    });
    let options = Options::default().failpoint_hook(Arc::clone(&hook) as _);
    let log = Log::<IssueEvent>::open(dir, options).unwrap();
    hook.is_armed.store(true, Ordering::SeqCst);
    log.append(&event("theirs")).unwrap();
}

/// Appends beside a process that dies. Returns the ids that are stored, and whether the record was
/// written by that process.
fn append_beside(name: &str) -> (Vec<String>, bool) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    fs::create_dir(&dir).unwrap();
    let (held, waits) = files(&dir);
    let hook = Arc::new(Waiting {
        waits,
        writes: AtomicBool::new(false),
    });
    let options = Options::default().failpoint_hook(Arc::clone(&hook) as _);
    let log = Log::<IssueEvent>::open(&dir, options).unwrap();
    let mut dying = child(name, &dir, "");
    wait_for(&held);
    let (done, receipt) = mpsc::channel();
    let appends = thread::spawn(move || done.send(log.append(&event("mine"))));
    let receipt = receipt.recv_timeout(DEADLINE);
    let receipt = receipt.expect("the append ends").unwrap();
    appends.join().unwrap().unwrap();
    assert_eq!(dying.wait().unwrap().code(), Some(EXIT_DEAD));
    let stored = ids(open(&dir).records().unwrap());
    let mine = stored
        .iter()
        .position(|id| id == "mine")
        .map(|at| at as u64);
    assert_eq!(mine, Some(receipt.seq.get() - 1), "{stored:?}");
    (stored, !hook.writes.load(Ordering::SeqCst))
}

#[test]
fn a_record_that_a_dead_process_has_written_is_stored_once() {
    if let Some((dir, _)) = as_child() {
        return die(&dir, Failpoint::AfterWrite);
    }
    let name = "slots::a_record_that_a_dead_process_has_written_is_stored_once";
    // On a busy machine, the writer may take its record back.
    let mut by_the_dead = 0;
    for _ in 0..20 {
        let (stored, is_by_the_dead) = append_beside(name);
        assert_eq!(stored, ["theirs", "mine"]);
        by_the_dead += u32::from(is_by_the_dead);
        if by_the_dead == 3 {
            return;
        }
    }
    assert!(by_the_dead > 0, "no record was written by another process");
}

#[test]
fn a_record_that_a_process_has_taken_before_it_died_is_written_by_its_owner() {
    if let Some((dir, _)) = as_child() {
        return die(&dir, Failpoint::BeforeWrite);
    }
    let name = "slots::a_record_that_a_process_has_taken_before_it_died_is_written_by_its_owner";
    for _ in 0..5 {
        let (stored, is_by_the_dead) = append_beside(name);
        assert_eq!(stored, ["mine"]);
        assert!(!is_by_the_dead);
    }
}
