//! When a leader waits for others before it syncs, and for how long.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use strand_core::{
    Durability, IssueEvent, Log, Seq,
    testing::{Dir, Disk, Host, OpenMode, Page, PageError, Storage, StorageFile, ThisMachine},
};

use crate::support::{PageEvents, WatchedPage, event, options};

const SYNC_US: u64 = 2_000;
const FAST_SYNC_US: u64 = 100;

/// A machine whose clock moves when a file is synced, when a thread yields or sleeps on a word of a
/// page, and when a test says so.
#[derive(Debug, Clone)]
struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    now_us: AtomicU64,
    sync_us: AtomicU64,
    yield_us: AtomicU64,
    yields: AtomicU64,
    sleeps: AtomicU64,
    /// Appends while a thread sleeps or yields.
    other: Mutex<Option<Log<IssueEvent>>>,
}

impl Machine {
    fn new(sync_us: u64) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            now_us: AtomicU64::new(0),
            sync_us: AtomicU64::new(sync_us),
            yield_us: AtomicU64::new(1),
            yields: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            other: Mutex::default(),
        }))
    }

    fn pass_us(&self, us: u64) {
        self.0.now_us.fetch_add(us, Ordering::Relaxed);
    }

    /// A log on which this thread appends without a pause.
    fn log(&self, dir: &Path) -> Log<IssueEvent> {
        let log = Log::open(dir, options().storage(Arc::new(self.clone()))).unwrap();
        for _ in 0..20 {
            assert_eq!(self.waits_of_append(&log), (0, 0));
        }
        log
    }

    /// Appends, and returns how often the thread yielded and slept until the record was durable.
    fn waits_of_append(&self, log: &Log<IssueEvent>) -> (u64, u64) {
        let counts = [&self.0.yields, &self.0.sleeps];
        for count in counts {
            count.store(0, Ordering::Relaxed);
        }
        log.append(&event("bd-1")).unwrap();
        let [yields, sleeps] = counts.map(|count| count.load(Ordering::Relaxed));
        (yields, sleeps)
    }

    /// Another process appends, if there is one.
    fn other_appends(&self) {
        if let Some(other) = &*self.0.other.lock().unwrap() {
            other.append(&event("bd-other")).unwrap();
        }
    }

    /// Has another process append whenever a thread sleeps or yields.
    fn begin_other(&self, dir: &Path) {
        let other = Log::open(dir, options().durability(Durability::Buffered)).unwrap();
        *self.0.other.lock().unwrap() = Some(other);
    }
}

impl Storage for Machine {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(SlowFile(
            Disk.open(dir, name, mode)?,
            self.clone(),
        )))
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

impl Host for Machine {
    fn now(&self) -> Instant {
        self.0.began + Duration::from_micros(self.0.now_us.load(Ordering::Relaxed))
    }

    fn yield_now(&self) {
        self.0.yields.fetch_add(1, Ordering::Relaxed);
        self.pass_us(self.0.yield_us.load(Ordering::Relaxed));
        self.other_appends();
    }

    fn open_page(
        &self,
        dir: &Dir,
        name: &str,
        area_words: usize,
    ) -> Result<Box<dyn Page>, PageError> {
        let page = ThisMachine.open_page(dir, name, area_words)?;
        Ok(Box::new(WatchedPage(page, self.clone())))
    }
}

#[derive(Debug)]
struct SlowFile(Box<dyn StorageFile>, Machine);

impl StorageFile for SlowFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.0
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass_us(self.1.0.sync_us.load(Ordering::Relaxed));
        self.0.sync_data()
    }
}

impl PageEvents for Machine {
    fn wait(&self, _page: &dyn Page, _index: usize, _expected: u32, timeout: Duration) {
        self.0.sleeps.fetch_add(1, Ordering::Relaxed);
        self.pass_us(u64::try_from(timeout.as_micros()).unwrap());
        self.other_appends();
    }
}

/// Has the page say that the last sync woke threads that come back with the records through `seq`.
fn expect_back(dir: &Path, seq: u64) {
    const ALL_BACK: usize = 29;
    let page = ThisMachine
        .open_page(&Dir::open(dir).unwrap(), "shm", 0)
        .unwrap();
    page.u64(ALL_BACK).store(seq, Ordering::Relaxed);
}

#[test]
fn a_leader_syncs_as_soon_as_all_are_back() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(SYNC_US);
    let log = machine.log(dir.path());
    machine.begin_other(dir.path());
    expect_back(dir.path(), 23);
    assert_eq!(machine.waits_of_append(&log), (0, 2));
    assert_eq!(
        log.durable_seq().unwrap(),
        Some(Seq::new(23)),
        "one sync for all three"
    );
}

#[test]
fn a_leader_waits_once_and_briefly_for_one_who_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(SYNC_US);
    let log = machine.log(dir.path());
    expect_back(dir.path(), u64::MAX);
    assert_eq!(machine.waits_of_append(&log), (0, 1));
    assert_eq!(machine.waits_of_append(&log), (0, 0));
}

#[test]
fn a_leader_waits_for_half_a_sync_at_most_while_others_come() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(SYNC_US);
    let log = machine.log(dir.path());
    machine.begin_other(dir.path());
    expect_back(dir.path(), u64::MAX);
    let (yields, sleeps) = machine.waits_of_append(&log);
    assert!((9..=11).contains(&sleeps), "{sleeps}");
    assert_eq!(yields, 0);
}

#[test]
fn a_leader_waits_no_longer_because_another_was_stopped_in_its_sync() {
    const HOUR_US: u64 = 3_600_000_000;
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(SYNC_US);
    let log = machine.log(dir.path());
    machine.0.sync_us.store(HOUR_US, Ordering::Relaxed);
    log.append(&event("bd-1")).unwrap();
    machine.0.sync_us.store(SYNC_US, Ordering::Relaxed);
    expect_back(dir.path(), u64::MAX);
    let began = machine.now();
    assert_eq!(machine.waits_of_append(&log), (0, 1));
    let time = machine.now() - began;
    assert!(time < Duration::from_millis(20), "{time:?}");
}

#[test]
fn a_thread_that_paused_waits_for_no_one() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(SYNC_US);
    let log = machine.log(dir.path());
    expect_back(dir.path(), u64::MAX);
    machine.pass_us(SYNC_US / 10);
    assert_eq!(machine.waits_of_append(&log), (0, 0));
}

#[test]
fn where_syncs_are_fast_a_leader_yields_until_all_are_back() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(FAST_SYNC_US);
    let log = machine.log(dir.path());
    machine.begin_other(dir.path());
    expect_back(dir.path(), 23);
    assert_eq!(machine.waits_of_append(&log), (2, 0));
    assert_eq!(log.durable_seq().unwrap(), Some(Seq::new(23)));
}

#[test]
fn where_syncs_are_fast_a_leader_yields_for_a_moment_to_one_who_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(FAST_SYNC_US);
    let log = machine.log(dir.path());
    expect_back(dir.path(), u64::MAX);
    let (yields, sleeps) = machine.waits_of_append(&log);
    assert!((25..=31).contains(&yields), "{yields}");
    assert_eq!(sleeps, 0);
    assert_eq!(machine.waits_of_append(&log), (0, 0));
}

#[test]
fn a_leader_yields_for_10_ms_at_most_while_others_come() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(FAST_SYNC_US);
    let log = machine.log(dir.path());
    machine.begin_other(dir.path());
    machine.0.yield_us.store(100, Ordering::Relaxed);
    expect_back(dir.path(), 20 + 1_000);
    assert_eq!(machine.waits_of_append(&log), (100, 0));
}

#[test]
fn leaders_that_yielded_to_a_process_that_computes_sleep_for_some_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(FAST_SYNC_US);
    let log = machine.log(dir.path());
    let of_append_with_one_gone = || {
        expect_back(dir.path(), u64::MAX);
        machine.waits_of_append(&log)
    };
    machine.0.yield_us.store(4_000, Ordering::Relaxed);
    assert_eq!(of_append_with_one_gone(), (1, 0));
    for _ in 0..256 {
        assert_eq!(of_append_with_one_gone(), (0, 1));
    }
    assert_eq!(of_append_with_one_gone(), (1, 0), "it is tried again");
}
