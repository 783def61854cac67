//! The events of a log with the feature `tracing`, compared with what happened.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on should panic"
)]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use strand_core::{
    Batch, Compacted, Compactor, Durability, Error, Issue, IssueEvent, IssueLog, Issues, Options,
    Seq, Timestamp,
    repair::repair,
    testing::{Dir, Disk, Failpoint, FailpointHook, OpenMode, Storage, StorageFile},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// An event as the subscriber got it.
#[derive(Debug, Clone)]
struct Seen {
    level: Level,
    fields: BTreeMap<&'static str, String>,
    /// The spans it was in, outermost first.
    spans: Vec<&'static str>,
}

impl Seen {
    fn number(&self, field: &str) -> u64 {
        self.fields[field].parse().unwrap()
    }
}

/// Keeps every event under the directory that it or one of its spans names.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<(&'static str, BTreeMap<&'static str, String>)>>,
    events: Mutex<Vec<(PathBuf, Seen)>>,
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for &'static Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "strand_core"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        let mut spans = self.spans.lock().unwrap();
        spans.push((span.metadata().name(), fields.0));
        Id::from_u64(spans.len() as u64)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let spans = self.spans.lock().unwrap();
        let entered: Vec<_> = ENTERED.with_borrow(|entered| {
            let span = |id: &u64| &spans[usize::try_from(*id).unwrap() - 1];
            entered.iter().map(span).collect()
        });
        let mut dirs = entered.iter().filter_map(|(_, fields)| fields.get("dir"));
        let dir = fields.0.get("dir").or(dirs.next_back());
        let seen = Seen {
            level: *event.metadata().level(),
            spans: entered.iter().map(|(name, _)| *name).collect(),
            fields: fields.0.clone(),
        };
        let dir = dir.map(PathBuf::from).unwrap_or_default();
        self.events.lock().unwrap().push((dir, seen));
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.truncate(entered.len() - 1));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// The one of all tests, because a compaction works in a thread of its own.
fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();
    COLLECTOR.get_or_init(|| {
        let collector: &'static Collector = Box::leak(Box::default());
        tracing::subscriber::set_global_default(collector).unwrap();
        collector
    })
}

/// The events of this name, of the store in `dir`, since the last call.
fn take(dir: &Path, message: &str) -> Vec<Seen> {
    let mut taken = Vec::new();
    collector().events.lock().unwrap().retain(|(of, seen)| {
        let matches = of == dir && seen.fields["message"] == message;
        if matches {
            taken.push(seen.clone());
        }
        !matches
    });
    taken
}

/// Waits for another thread.
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !done() {
        assert!(Instant::now() < deadline, "in vain");
        std::thread::yield_now();
    }
}

/// The only event of that name.
fn take_one(dir: &Path, message: &str) -> Seen {
    let taken = take(dir, message);
    assert_eq!(taken.len(), 1, "{message}: {taken:?}");
    taken.into_iter().next().unwrap()
}

/// The disk, whose syncs fail on demand, and take at least 2 ms.
#[derive(Debug, Default, Clone)]
struct SlowDisk(Arc<AtomicBool>);

impl Storage for SlowDisk {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        let fails = Arc::clone(&self.0);
        Ok(Box::new(SlowFile { file, fails }))
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn StorageFile>,
    fails: Arc<AtomicBool>,
}

impl StorageFile for SlowFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.file
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("told to fail"));
        }
        self.file.sync_data()
    }
}

/// Stays at a point for 5 ms.
struct SlowAt(Failpoint);

impl FailpointHook for SlowAt {
    fn reached(&self, point: Failpoint) {
        if point == self.0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stops the first leader until another thread takes its lead.
#[derive(Default)]
struct Stuck(AtomicBool, AtomicBool);

impl FailpointHook for Stuck {
    fn reached(&self, point: Failpoint) {
        match point {
            Failpoint::BeforeSync if !self.0.swap(true, Ordering::SeqCst) => {
                wait_until(|| self.1.load(Ordering::SeqCst));
            }
            Failpoint::LeadTakenOver => self.1.store(true, Ordering::SeqCst),
            _ => {}
        }
    }
}

const T0: Timestamp = Timestamp::from_ms(0);

fn event(id: &str) -> IssueEvent {
    IssueEvent::add(Issue::new_at(id, "Mend the fence", T0), T0)
}

fn options(disk: &SlowDisk) -> Options {
    let storage = Arc::new(disk.clone());
    Options::default().preallocate_bytes(0).storage(storage)
}

fn first_segment(dir: &Path) -> PathBuf {
    dir.join("log-00000000000000000001.jsonl")
}

#[test]
fn an_append_emits_lock_record_and_sync() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let probe = Arc::new(SlowAt(Failpoint::BeforeUnlock));
    let options = options(&SlowDisk::default()).failpoint_hook(probe);
    let log = IssueLog::open(dir, options).unwrap();
    let opened = take_one(dir, "recovered");
    assert_eq!(opened.level, Level::INFO);
    assert_eq!(opened.spans, ["open"]);
    assert_eq!(opened.fields["rebuilt"], "true");
    take(dir, "lock held");

    for seq in 1..=2 {
        let before = first_segment(dir).metadata().unwrap().len();
        log.append(&event(&format!("bd-{seq}"))).unwrap();
        let held = take_one(dir, "lock held");
        assert_eq!(held.level, Level::TRACE);
        assert_eq!(held.spans, ["append"]);
        assert!(held.number("hold_us") >= 5_000, "{held:?}");
        held.number("wait_us"); // Nobody else holds it: whatever it is, it is told.
        let written = take_one(dir, "written");
        let len = first_segment(dir).metadata().unwrap().len();
        assert_eq!(
            (written.number("seq"), written.number("bytes")),
            (seq, len - before)
        );
        let synced = take_one(dir, "synced");
        assert_eq!(
            (synced.level, synced.spans.as_slice()),
            (Level::DEBUG, &["append"][..])
        );
        assert_eq!(
            (synced.number("through_seq"), synced.number("group_records")),
            (seq, 1)
        );
        let durable = take_one(dir, "durable");
        assert_eq!(durable.number("seq"), seq);
        let (sync_us, wait_us) = (synced.number("sync_us"), durable.number("wait_us"));
        assert!(
            (2_000..=wait_us).contains(&sync_us),
            "{sync_us} of {wait_us}"
        );
    }
    log.commit(&Batch::at(T0).close("bd-1")).unwrap();
    assert_eq!(take_one(dir, "written").spans, ["commit"]);
}

#[test]
fn a_sync_event_counts_the_records_that_share_it() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let options = options(&SlowDisk::default()).durability(Durability::Buffered);
    let log = IssueLog::open(dir, options).unwrap();
    for number in 0..8 {
        log.append(&event(&format!("bd-{number}"))).unwrap();
    }
    assert_eq!(take(dir, "synced").len(), 0, "nothing is synced yet");
    log.log().sync_to(Seq::new(5)).unwrap();
    let synced = take_one(dir, "synced");
    assert_eq!(
        (synced.number("through_seq"), synced.number("group_records")),
        (8, 8)
    );
    log.log().sync_to(Seq::new(8)).unwrap();
    assert_eq!(take(dir, "synced").len(), 0, "it is durable already");
}

#[test]
fn a_stuck_leader_loses_the_lead_with_an_event() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let probe = Arc::new(Stuck::default());
    let log = IssueLog::open(
        dir.path(),
        Options::default().failpoint_hook(Arc::clone(&probe) as _),
    )
    .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| log.append(&event("bd-1")).unwrap());
        wait_until(|| probe.0.load(Ordering::SeqCst));
        log.append(&event("bd-2")).unwrap();
    });
    let told = take_one(dir.path(), "lead taken over");
    assert_eq!(told.level, Level::INFO);
    assert_ne!(told.number("leader"), 0);
    assert_eq!(told.number("durable_seq"), 0);
    let synced = take(dir.path(), "synced");
    // Whichever of the two syncs is the first.
    let covers_all = |synced: &Seen| synced.number("through_seq") == 2;
    assert!(synced.iter().any(covers_all), "{synced:?}");
}

#[test]
fn a_failed_sync_and_its_healing_are_events() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = SlowDisk::default();
    let log = IssueLog::open(dir, options(&disk)).unwrap();
    log.append(&event("bd-1")).unwrap();
    assert_eq!(
        take(dir, "healed").len(),
        0,
        "a store that is new has nothing to heal"
    );
    disk.0.store(true, Ordering::Relaxed);
    let failed = log.append(&event("bd-2")).unwrap_err();
    assert!(matches!(failed, Error::DurabilityUnknown { seq: 2, .. }));
    let told = take_one(dir, "sync failed");
    assert_eq!((told.level, told.number("through_seq")), (Level::WARN, 2));
    assert_eq!(told.fields["error"], "told to fail");
    assert_eq!(take(dir, "healed").len(), 0);

    log.append(&event("bd-3")).unwrap();
    let told = take_one(dir, "healed");
    assert_eq!((told.level, told.number("through_seq")), (Level::INFO, 2));
}

#[test]
fn recovery_emits_what_it_did() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = IssueLog::open(dir, options(&SlowDisk::default())).unwrap();
    log.append(&event("bd-1")).unwrap();
    take(dir, "recovered");
    let whole = std::fs::read(first_segment(dir)).unwrap();
    std::fs::write(first_segment(dir), [whole, b"half a rec".to_vec()].concat()).unwrap();
    log.append(&event("bd-2")).unwrap();
    let cut = take_one(dir, "torn tail cut");
    assert_eq!((cut.level, cut.number("cut_bytes")), (Level::WARN, 10));
    assert_eq!(cut.spans, ["append"]);
    assert_eq!(
        std::fs::read(&cut.fields["quarantined"]).unwrap(),
        b"half a rec"
    );
    assert_eq!(
        take(dir, "recovered").len(),
        0,
        "the hints were right, and no record is adopted"
    );

    // After a reboot, say.
    std::fs::write(dir.join("shm"), [0; 4096]).unwrap();
    drop(log);
    let log = IssueLog::open(dir, options(&SlowDisk::default())).unwrap();
    let recovered = take_one(dir, "recovered");
    assert_eq!(recovered.level, Level::INFO);
    assert_eq!(
        (
            recovered.fields["rebuilt"].as_str(),
            recovered.number("adopted_records")
        ),
        ("true", 0)
    );
    drop(log);

    let text = std::fs::read_to_string(first_segment(dir)).unwrap();
    std::fs::write(first_segment(dir), text.replacen("bd-1", "bd-X", 1)).unwrap();
    let done = repair(dir, &options(&SlowDisk::default())).unwrap();
    let told = take_one(dir, "repaired");
    assert_eq!(
        (told.level, told.spans.as_slice()),
        (Level::WARN, &["repair"][..])
    );
    assert_eq!(
        told.number("lost_records"),
        done.lost.iter().cloned().flatten().count() as u64
    );
    assert_eq!(told.number("replaced_files"), done.files.len() as u64);
}

#[test]
fn a_compaction_emits_its_phases_also_from_a_compactor() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let log = IssueLog::open(dir, options(&SlowDisk::default())).unwrap();
    for number in 0..3 {
        log.append(&event(&format!("bd-{number}"))).unwrap();
    }
    take(dir, "lock held");
    let Compacted::Done { bytes, removed, .. } = log.compact().unwrap() else {
        panic!("nobody else is at it");
    };
    let phases = take(dir, "compaction phase");
    let names: Vec<_> = phases
        .iter()
        .map(|phase| phase.fields["phase"].as_str())
        .collect();
    assert_eq!(names, ["rotate", "fold", "write", "switch", "remove"]);
    for phase in &phases {
        assert_eq!(
            (phase.level, phase.spans.as_slice()),
            (Level::DEBUG, &["compact"][..])
        );
    }
    let phases_us: u64 = phases.iter().map(|phase| phase.number("phase_us")).sum();
    let compacted = take_one(dir, "compacted");
    assert_eq!(
        (compacted.level, compacted.spans.as_slice()),
        (Level::INFO, &["compact"][..])
    );
    assert_eq!(compacted.number("through_seq"), 3);
    assert_eq!(compacted.number("entries"), 3);
    assert_eq!(compacted.number("snapshot_bytes"), bytes);
    assert_eq!(compacted.number("removed_files"), removed.len() as u64);
    let (hold_us, elapsed_us) = (compacted.number("hold_us"), compacted.number("elapsed_us"));
    assert!(
        hold_us <= phases_us && phases_us <= elapsed_us,
        "{hold_us}, {phases_us}, {elapsed_us}"
    );
    let rotated = take_one(dir, "rotated");
    assert_eq!(
        (rotated.level, rotated.number("first_seq")),
        (Level::DEBUG, 4)
    );
    assert!((2_000..=elapsed_us).contains(&rotated.number("rotate_us")));
}

#[test]
fn a_compactor_tells_of_each_failure_and_goes_on_when_its_cause_is_gone() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let options = options(&SlowDisk::default()).compact_after_records(1);
    let log = IssueLog::open(dir.path(), options).unwrap();
    log.append(&event("bd-1")).unwrap();
    let manifest = dir.path().join("MANIFEST");
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, "damaged").unwrap();
    let start = || Compactor::start::<Issues>(Arc::clone(log.log()), Duration::from_millis(1));
    let told = |count: usize| {
        let mut told = Vec::new();
        wait_until(|| {
            told.extend(take(dir.path(), "compactor failed"));
            told.len() >= count
        });
        told
    };
    let compactor = start().unwrap();
    told(1);
    let error = compactor.stop().unwrap_err();

    let compactor = start().unwrap();
    for told in told(2) {
        assert_eq!(
            (told.level, &told.fields["error"]),
            (Level::WARN, &error.to_string())
        );
    }
    std::fs::write(&manifest, whole).unwrap();
    wait_until(|| !log.compaction_due().unwrap());
    assert_eq!(compactor.stop().unwrap(), 1);
    assert_eq!(Issues::load(dir.path()).unwrap().len(), 1);
}

#[test]
fn a_lock_timeout_event_names_the_holder() {
    collector();
    let dir = tempfile::tempdir().unwrap();
    let options = options(&SlowDisk::default()).lock_timeout(Duration::from_millis(20));
    let log = IssueLog::open(dir.path(), options).unwrap();
    let other = strand_lock::FileLock::open(dir.path().join("lock")).unwrap();
    let held = other.lock().unwrap();
    let error = log.append(&event("bd-1")).unwrap_err();
    let told = take_one(dir.path(), "lock not taken");
    assert_eq!(told.level, Level::WARN);
    assert_eq!(told.fields["error"], error.to_string());
    assert!(told.fields["error"].contains(&format!("pid {}", std::process::id())));
    held.unlock().unwrap();
}
