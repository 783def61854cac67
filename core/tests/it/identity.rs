//! The store is the one that was opened, whatever becomes of its path.
#![cfg(unix)]

use std::{
    fmt, fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use strand_core::{
    CommitError, CorruptReason, Error, Issue, IssueEvent, IssueLog, Issues, Log, Options, Outcome,
    Reader, Seq,
    check::{Advice, check},
    repair::repair,
    testing::{
        Dir, Disk, Failpoint, FailpointHook, Host, OpenMode, Page, PageError, Storage, StorageFile,
        ThisMachine,
    },
};

use crate::support::{
    PageEvents, TS, WatchedPage, append_numbered, as_child, child, event, finish, first_segment,
    ids, open, open_issues, options, store_of,
};

/// Three segments of it are soon full.
fn small() -> Options {
    options().segment_bytes_max(300)
}

fn numbered(dir: &Path) -> Vec<String> {
    ids(Reader::open(dir).unwrap().records().unwrap())
}

fn is_well(dir: &Path) {
    let report = check(dir).unwrap();
    assert_eq!(report.advice, Advice::Nothing, "{report}");
}

/// Two stores with one record each.
fn two_stores(temp: &Path) -> [PathBuf; 2] {
    ["one", "two"].map(|name| {
        let dir = temp.join(name);
        fs::create_dir(&dir).unwrap();
        store_of(&dir, 1);
        dir
    })
}

/// Appends ten records to a log of one record, reads and follows them.
fn go_on(log: &Log<IssueEvent>) {
    append_numbered(log, 2..=11);
    assert_eq!(ids(log.records().unwrap()).len(), 11);
}

/// Many filesystems give the next file the number of the last one that was removed.
#[test]
fn a_page_of_before_in_a_file_with_the_same_number_is_not_believed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let append = |id: &str| open(dir).append(&event(id)).unwrap();
    append("bd-1");
    let page = dir.join("shm");
    let (before, number) = (fs::read(&page).unwrap(), fs::metadata(&page).unwrap().ino());
    append("bd-2");
    fs::remove_file(&page).unwrap();
    let copies: Vec<PathBuf> = (0..20).map(|copy| dir.join(format!("{copy}"))).collect();
    let is_it = |copy: &&PathBuf| {
        fs::write(copy, &before).unwrap();
        fs::metadata(copy).unwrap().ino() == number
    };
    let Some(copy) = copies.iter().find(is_it) else {
        println!("SKIPPED: the number of a removed file is not given again here");
        return;
    };
    fs::rename(copy, &page).unwrap();
    assert_eq!(numbered(dir), ["bd-1", "bd-2"]);
    append("bd-3");
    assert_eq!(numbered(dir), ["bd-1", "bd-2", "bd-3"]);
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Calls a hook once, when a page was touched to see whether it is there.
#[derive(Clone, Default)]
struct BehindTouch(Hook);

impl fmt::Debug for BehindTouch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BehindTouch")
    }
}

impl Storage for BehindTouch {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        Disk.open(dir, name, mode)
    }

    fn host(&self) -> &dyn Host {
        self
    }
}

impl Host for BehindTouch {
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

impl PageEvents for BehindTouch {
    fn touched(&self) {
        let hook = self.0.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

#[test]
fn a_thread_is_not_told_of_a_page_that_another_thread_has_left() {
    let temp = tempfile::tempdir().unwrap();
    let page = temp.path().join("shm");
    let storage = BehindTouch::default();
    let options = options().storage(Arc::new(storage.clone()));
    let log = Arc::new(Log::<IssueEvent>::open(temp.path(), options).unwrap());
    log.append(&event("bd-1")).unwrap();
    let other = Arc::clone(&log);
    *storage.0.lock().unwrap() = Some(Box::new(move || {
        fs::rename(&page, page.with_extension("away")).unwrap();
        other.append(&event("bd-2")).unwrap();
    }));
    assert_eq!(log.durable_seq().unwrap(), Some(Seq::new(2)));
    assert_eq!(ids(log.records().unwrap()), ["bd-1", "bd-2"]);
}

#[test]
fn a_moved_store_goes_on_under_its_new_name() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    let log = Log::open(&one, small()).unwrap();
    let reader = Reader::<IssueEvent>::open(&one).unwrap();
    let mut follower = reader.follow(Seq::new(2)).unwrap();
    let moved = temp.path().join("moved");
    fs::rename(&one, &moved).unwrap();
    fs::rename(&two, &one).unwrap();
    go_on(&log);
    assert_eq!(ids(reader.records().unwrap()).len(), 11);
    let mut seen = Vec::new();
    while let Some(record) = follower.try_next().unwrap() {
        seen.push(record.seq.get());
    }
    assert_eq!(seen, (2..=11).collect::<Vec<_>>());
    assert_eq!(numbered(&moved).len(), 11);
    assert_eq!(numbered(&one), ["bd-1"]);
    is_well(&moved);
    is_well(&one);
}

#[test]
fn a_store_that_was_opened_by_a_symbolic_link_stays_when_the_link_is_switched() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    let link = temp.path().join("link");
    symlink(&one, &link).unwrap();
    let log = Log::open(&link, small()).unwrap();
    let issues = open_issues(&link);
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    go_on(&log);
    issues.compact().unwrap();
    issues.claim("bd-3", "agent").unwrap();
    assert_eq!(numbered(&one).len(), 1);
    assert!(one.join("snapshot-00000000000000000011.jsonl").exists());
    assert_eq!(numbered(&two), ["bd-1"]);
    is_well(&one);
    is_well(&two);
}

#[test]
fn a_relative_path_is_not_looked_up_again_after_chdir() {
    if let Some((temp, _)) = as_child() {
        std::env::set_current_dir(temp.join("one")).unwrap();
        let log = Log::open(".", small()).unwrap();
        let issues = open_issues(Path::new("."));
        std::env::set_current_dir(temp.join("two")).unwrap();
        go_on(&log);
        issues.compact().unwrap();
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    finish(child(
        "identity::a_relative_path_is_not_looked_up_again_after_chdir",
        temp.path(),
        "",
    ));
    assert!(one.join("snapshot-00000000000000000011.jsonl").exists());
    assert_eq!(numbered(&two), ["bd-1"]);
    is_well(&one);
    is_well(&two);
}

type Deed = Box<dyn FnOnce() + Send>;

/// Does something when a point is reached for the first time.
struct Once(Failpoint, Mutex<Option<Deed>>);

impl FailpointHook for Once {
    fn reached(&self, point: Failpoint) {
        if point == self.0
            && let Some(deed) = self.1.lock().unwrap().take()
        {
            deed();
        }
    }
}

/// A log of a store, in which this is done at that point of its first append.
fn with_deed(
    dir: &Path,
    point: Failpoint,
    deed: impl FnOnce() + Send + 'static,
) -> Log<IssueEvent> {
    let slot = Arc::new(Once(point, Mutex::new(None)));
    let log = Log::open(dir, options().failpoint_hook(Arc::clone(&slot) as _)).unwrap();
    *slot.1.lock().unwrap() = Some(Box::new(deed));
    log
}

type HookOnce = Box<dyn FnOnce(&Hooks) + Send>;

/// Does things when points are reached for the first time.
#[derive(Default)]
struct Hooks(Mutex<Vec<(Failpoint, HookOnce)>>);

impl Hooks {
    fn on(&self, point: Failpoint, deed: impl FnOnce(&Self) + Send + 'static) {
        self.0.lock().unwrap().push((point, Box::new(deed)));
    }
}

impl FailpointHook for Hooks {
    fn reached(&self, point: Failpoint) {
        let mut hooks = self.0.lock().unwrap();
        let at = hooks.iter().position(|(when, _)| *when == point);
        let deed = at.map(|at| hooks.remove(at).1);
        drop(hooks);
        if let Some(deed) = deed {
            deed(self);
        }
    }
}

fn replace_by_copy(path: &Path) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    fs::rename(copy, path).unwrap();
}

fn replace_by_copy_without_late(path: &Path) {
    let copy = path.with_extension("copy");
    let text = fs::read_to_string(path).unwrap();
    let kept = text
        .split_inclusive('\n')
        .filter(|line| !line.contains("late"));
    fs::write(&copy, kept.collect::<String>()).unwrap();
    fs::rename(copy, path).unwrap();
}

fn append(log: &Log<IssueEvent>, id: &str) {
    log.append(&event(id)).unwrap();
}

/// Too long for a slot: whoever appends it takes the lock.
fn long_event(id: &str) -> IssueEvent {
    IssueEvent::add(Issue::new_at(id, &"long".repeat(1_000), TS), TS)
}

/// A copy of before that is being filled anew.
#[test]
fn a_thread_is_not_told_of_a_page_that_another_thread_has_not_filled_yet() {
    let temp = tempfile::tempdir().unwrap();
    let page = temp.path().join("shm");
    store_of(temp.path(), 1);
    let before = fs::read(&page).unwrap();
    store_of(temp.path(), 2);
    let (sender, told) = mpsc::channel::<(Option<Seq>, Option<Seq>)>();
    let (log_sender, log_of_deed) = mpsc::channel::<Arc<Log<IssueEvent>>>();
    let log = Arc::new(with_deed(
        temp.path(),
        Failpoint::RecoveryStarted,
        move || {
            let log = log_of_deed.recv().unwrap();
            std::thread::spawn(move || {
                let seqs = (log.durable_seq().unwrap(), log.tail_seq().unwrap());
                sender.send(seqs).unwrap();
            });
            // Time for the mistake. Otherwise it waits for the lock.
            std::thread::sleep(Duration::from_millis(50));
        },
    ));
    let seq = log.append(&event("bd-9")).unwrap().seq;
    fs::write(page.with_extension("copy"), &before).unwrap();
    fs::rename(page.with_extension("copy"), &page).unwrap();
    log_sender.send(Arc::clone(&log)).unwrap();
    append(&log, "bd-10");
    let (durable_seq, tail_seq) = told.recv().unwrap();
    assert!(
        durable_seq >= Some(seq) && tail_seq >= Some(seq),
        "{durable_seq:?} {tail_seq:?}"
    );
}

#[test]
fn an_acknowledged_record_is_durable_for_readers_too_if_the_page_is_replaced_beside_its_sync() {
    for point in [Failpoint::BeforeSync, Failpoint::AfterSync] {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("shm");
        let log = with_deed(dir.path(), point, move || replace_by_copy(&page));
        append(&log, "bd-1");
        let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
        assert_eq!(reader.durable_seq().unwrap(), Some(Seq::new(1)));
        assert_eq!(numbered(dir.path()), ["bd-1"]);
    }
}

#[test]
fn readers_see_what_is_durable_if_the_page_is_replaced_beside_the_sync_of_another_leader() {
    const LEADER: usize = 24;
    let temp = tempfile::tempdir().unwrap();
    let page = temp.path().join("shm");
    let slot = Arc::new(Hooks::default());
    let options = options().failpoint_hook(Arc::clone(&slot) as _);
    let log = Log::<IssueEvent>::open(temp.path(), options).unwrap();
    append(&log, "bd-1");
    let words = ThisMachine.open_page(&Dir::open(temp.path()).unwrap(), "shm", 0);
    // Of a leader that died.
    words.unwrap().u64(LEADER).store(1, Ordering::Relaxed);
    slot.on(Failpoint::LeadTakenOver, move |slot| {
        slot.on(Failpoint::LockHeld, move |_| replace_by_copy(&page));
    });
    log.append(&long_event("bd-2")).unwrap();
    let reader = Reader::<IssueEvent>::open(temp.path()).unwrap();
    assert_eq!(reader.durable_seq().unwrap(), Some(Seq::new(2)));
}

#[test]
fn readers_see_what_is_durable_if_the_page_is_cut_short_while_it_is_filled() {
    let temp = tempfile::tempdir().unwrap();
    let page = temp.path().join("shm");
    let slot = Arc::new(Hooks::default());
    let options = options().failpoint_hook(Arc::clone(&slot) as _);
    let log = Log::<IssueEvent>::open(temp.path(), options).unwrap();
    fs::remove_file(&page).unwrap();
    slot.on(Failpoint::RecoverySynced, move |_| {
        let file = fs::OpenOptions::new().write(true).open(&page);
        file.unwrap().set_len(0).unwrap();
    });
    append(&log, "bd-1");
    let reader = Reader::<IssueEvent>::open(temp.path()).unwrap();
    assert_eq!(reader.durable_seq().unwrap(), Some(Seq::new(1)));
}

/// The disk, with a note of which files were synced.
#[derive(Debug, Clone, Default)]
struct Synced(Arc<Mutex<Vec<(u64, u64)>>>);

#[derive(Debug)]
struct SyncedFile(Box<dyn StorageFile>, Synced);

impl Storage for Synced {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        Ok(Box::new(SyncedFile(file, self.clone())))
    }
}

impl StorageFile for SyncedFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.0
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        self.1.0.lock().unwrap().push(self.0.identity()?);
        Ok(())
    }
}

#[test]
fn a_leader_looks_for_the_file_that_it_synced_if_another_thread_has_opened_the_next_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = first_segment(temp.path());
    let (synced, slot) = (Synced::default(), Arc::new(Hooks::default()));
    let options = options()
        .storage(Arc::new(synced.clone()))
        .failpoint_hook(Arc::clone(&slot) as _);
    let log = Arc::new(Log::<IssueEvent>::open(temp.path(), options).unwrap());
    let other = Arc::clone(&log);
    let (sender, published) = mpsc::channel();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let was_synced = move |inode| synced.0.lock().unwrap().iter().any(|file| file.1 == inode);
    slot.on(Failpoint::AfterSync, move |slot| {
        replace_by_copy(&path);
        let named = inode(&path);
        slot.on(Failpoint::DurablePublished, move |_| {
            assert!(
                was_synced(named),
                "the records are in a file that was not synced"
            );
        });
        slot.on(Failpoint::TailPublished, move |_| sender.send(()).unwrap());
        std::thread::spawn(move || other.append(&long_event("bd-2")).unwrap());
        published.recv().unwrap();
    });
    append(&log, "bd-1");
    append(&log, "bd-3");
    assert_eq!(numbered(temp.path()).len(), 3);
    is_well(temp.path());
}

#[test]
fn a_leader_closes_no_segment_to_which_another_thread_writes() {
    let temp = tempfile::tempdir().unwrap();
    let path = first_segment(temp.path());
    let slot = Arc::new(Hooks::default());
    let options = options().failpoint_hook(Arc::clone(&slot) as _);
    let log = Arc::new(Log::<IssueEvent>::open(temp.path(), options).unwrap());
    let other = Arc::clone(&log);
    let (sender, replaced) = mpsc::channel();
    let (late_sender, late) = mpsc::channel();
    slot.on(Failpoint::AfterSync, move |slot| {
        slot.on(Failpoint::AfterWrite, move |_| {
            replace_by_copy_without_late(&path);
            sender.send(()).unwrap();
            // Time for the mistake. Otherwise the leader waits for the lock.
            std::thread::sleep(Duration::from_millis(50));
        });
        std::thread::spawn(move || late_sender.send(other.append(&long_event("late"))));
        replaced.recv().unwrap();
    });
    append(&log, "bd-1");
    let failed = late.recv().unwrap().unwrap_err();
    assert!(matches!(&failed, Error::StoreReplaced { .. }), "{failed:?}");
    append(&log, "bd-2");
    assert_eq!(numbered(temp.path()), ["bd-1", "bd-2"]);
    is_well(temp.path());
}

#[test]
fn writers_agree_on_the_lock_file_that_has_the_name() {
    type Replace = fn(&Path);
    let deeds: [(&str, Replace); 6] = [
        ("lock removed", |dir| {
            fs::remove_file(dir.join("lock")).unwrap();
        }),
        ("lock replaced", |dir| replace_by_copy(&dir.join("lock"))),
        ("lock moved away", |dir| {
            fs::rename(dir.join("lock"), dir.join("lock.old")).unwrap();
        }),
        ("lock and shm removed", |dir| {
            fs::remove_file(dir.join("lock")).unwrap();
            fs::remove_file(dir.join("shm")).unwrap();
        }),
        ("shm moved away", |dir| {
            fs::rename(dir.join("shm"), dir.join("shm.old")).unwrap();
        }),
        ("shm replaced", |dir| replace_by_copy(&dir.join("shm"))),
    ];
    for (what, deed) in deeds {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let one = open(dir);
        append(&one, "bd-1");
        deed(dir);
        // It comes when the old writer has done nothing yet.
        let two = open(dir);
        append(&two, "bd-2");
        append(&one, "bd-3");
        deed(dir);
        append(&one, "bd-4");
        append(&two, "bd-5");
        let all = ["bd-1", "bd-2", "bd-3", "bd-4", "bd-5"];
        assert_eq!(numbered(dir), all, "{what}");
        assert_eq!(ids(one.records().unwrap()), all, "{what}");
        for log in [&one, &two] {
            assert_eq!(log.durable_seq().unwrap(), Some(Seq::new(5)), "{what}");
        }
        is_well(dir);
    }
}

#[test]
fn a_holder_whose_lock_is_removed_harms_nobody_wherever_it_stands() {
    for point in [
        Failpoint::LockHeld,
        Failpoint::BeforeWrite,
        Failpoint::AfterWrite,
        Failpoint::TailPublished,
        Failpoint::BeforeUnlock,
        Failpoint::BeforeSync,
        Failpoint::AfterSync,
        Failpoint::DurablePublished,
    ] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        store_of(&dir, 1);
        let kept = Arc::new(Mutex::new(None));
        let (path, other) = (dir.clone(), Arc::clone(&kept));
        let log = with_deed(&dir, point, move || {
            fs::remove_file(path.join("lock")).unwrap();
            let log = open(&path);
            append(&log, "other-1");
            append(&log, "other-2");
            *other.lock().unwrap() = Some(log);
        });
        let done = log.append(&event("mine"));
        let stored = numbered(&dir);
        match done {
            Ok(receipt) => {
                let at = stored.iter().position(|id| id == "mine").unwrap();
                assert_eq!(receipt.seq, at as u64 + 1, "{point:?}: {stored:?}");
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::StoreReplaced { .. }),
                    "{point:?}: {error:?}"
                );
                let is_stored = stored.iter().any(|id| id == "mine");
                assert!(
                    !is_stored || error.outcome() == Outcome::Unknown,
                    "{point:?}"
                );
            }
        }
        let others: Vec<_> = stored.iter().filter(|id| id.starts_with("other")).collect();
        assert_eq!(others, ["other-1", "other-2"], "{point:?}");
        // Both go on.
        append(&log, "mine again");
        append(kept.lock().unwrap().as_ref().unwrap(), "other-3");
        let stored = numbered(&dir);
        let last = stored
            .iter()
            .rev()
            .take(2)
            .map(String::as_str)
            .collect::<Vec<_>>();
        assert_eq!(last, ["other-3", "mine again"], "{point:?}");
        is_well(&dir);
    }
}

/// The disk, on which something is done behind one of the calls that change or read names, or
/// before a rename.
///
/// Not behind other looks at a name: what changes between that and the next call can't be seen.
struct BehindCall {
    calls_left: AtomicU64,
    deed: Mutex<Option<Deed>>,
}

impl BehindCall {
    fn behind<T>(&self, done: T) -> T {
        let left = self
            .calls_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left == Ok(1)
            && let Some(deed) = self.deed.lock().unwrap().take()
        {
            deed();
        }
        done
    }
}

impl fmt::Debug for BehindCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BehindCall")
    }
}

impl Storage for BehindCall {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        self.behind(Disk.open(dir, name, mode))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<String>> {
        self.behind(Disk.list(dir))
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> io::Result<()> {
        self.behind(()); // Between the look at a lock and the rename.
        self.behind(Disk.rename(dir, from, to))
    }

    fn remove(&self, dir: &Dir, name: &str) -> io::Result<()> {
        self.behind(Disk.remove(dir, name))
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        self.behind(Disk.sync_dir(dir))
    }
}

fn remove_locks(dir: &Path) {
    for name in ["lock", "compact.lock"] {
        fs::remove_file(dir.join(name)).ok();
    }
}

/// Does `work` once for each of its calls, behind which the locks are removed and another process
/// appends: to the same segment, or beginning others and compacting. Whatever `work` was about to
/// do, it harms nothing.
fn beside_another_holder(prepare: fn(&Path), work: fn(&Path, &Options) -> Result<(), Error>) {
    for compacts in [false, true] {
        let interrupted = (1..).take_while(|calls| interrupt(prepare, work, *calls, compacts));
        let count = interrupted.count();
        assert!(count > 10, "only {count} calls");
    }
}

/// False if there are fewer calls.
fn interrupt(
    prepare: fn(&Path),
    work: fn(&Path, &Options) -> Result<(), Error>,
    calls: u64,
    compacts: bool,
) -> bool {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    prepare(&dir);
    // Not if there is no store yet, or a damaged one.
    let before = Issues::load(&dir).ok();
    let options = if compacts { small } else { options };
    let path = dir.clone();
    let storage = Arc::new(BehindCall {
        calls_left: calls.into(),
        deed: Mutex::new(Some(Box::new(move || {
            remove_locks(&path);
            repair(&path, &options()).ok(); // If there is a store.
            let log = Log::open(&path, options()).unwrap();
            append(&log, "other-1");
            append(&log, "other-2");
            if compacts {
                log.compact::<Issues>().unwrap();
            }
            append(&log, "other-3");
        }))),
    });
    match work(&dir, &options().storage(Arc::clone(&storage) as _)) {
        Ok(()) | Err(Error::StoreReplaced { .. }) => {}
        Err(error) => panic!("behind call {calls}: {error:?}"),
    }
    if storage.deed.lock().unwrap().is_some() {
        return false;
    }
    append(&open(&dir), "afterwards");
    is_well(&dir);
    let issues = Issues::load(&dir).unwrap();
    let before = before.iter().flat_map(Issues::iter).map(|(id, _)| id);
    for id in before.chain(["other-1", "other-2", "other-3", "afterwards"]) {
        assert!(
            issues.get(id).is_some(),
            "behind call {calls}: {id} is lost"
        );
    }
    true
}

#[test]
fn a_holder_whose_lock_is_removed_while_it_makes_a_store_makes_no_second_one() {
    let open_it =
        |dir: &Path, options: &Options| Log::<IssueEvent>::open(dir, options.clone()).map(drop);
    beside_another_holder(|_| {}, open_it);
}

#[test]
fn a_holder_whose_lock_is_removed_while_it_shuts_others_out_harms_nobody() {
    let prepare = |dir: &Path| {
        store_of(dir, 3);
        remove_locks(dir);
    };
    beside_another_holder(prepare, |dir, options| {
        let log = Log::<IssueEvent>::open(dir, options.clone())?;
        log.append(&event("mine")).map(drop)
    });
}

#[test]
fn a_holder_whose_lock_is_removed_while_it_shuts_others_out_harms_no_writer_that_lives() {
    for calls in 1.. {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        store_of(&dir, 3);
        let other = Arc::new(open(&dir));
        remove_locks(&dir);
        let (path, writer) = (dir.clone(), Arc::clone(&other));
        let storage = Arc::new(BehindCall {
            calls_left: AtomicU64::new(calls),
            deed: Mutex::new(Some(Box::new(move || {
                remove_locks(&path);
                append(&writer, "other-1");
                append(&writer, "other-2");
            }))),
        });
        let options = options().storage(Arc::clone(&storage) as _);
        let log = Log::<IssueEvent>::open(&dir, options);
        match log.and_then(|log| log.append(&event("mine"))) {
            Ok(_) | Err(Error::StoreReplaced { .. }) => {}
            Err(error) => panic!("behind call {calls}: {error:?}"),
        }
        if storage.deed.lock().unwrap().is_some() {
            assert!(calls > 10, "only {calls} calls");
            break;
        }
        let stored = numbered(&dir);
        for id in ["other-1", "other-2"] {
            let is_stored = stored.iter().any(|stored| stored == id);
            assert!(is_stored, "behind call {calls}: {id} is not in {stored:?}");
        }
        is_well(&dir);
    }
}

#[test]
fn a_holder_whose_locks_are_removed_while_it_rotates_or_compacts_harms_nobody() {
    let prepare = |dir: &Path| drop(store_of(dir, 3));
    beside_another_holder(prepare, |dir, options| {
        let log = Log::<IssueEvent>::open(dir, options.clone())?;
        log.append(&event("mine"))?;
        log.compact::<Issues>().map(drop)
    });
}

#[test]
fn a_holder_whose_locks_are_removed_while_it_repairs_harms_nobody() {
    let prepare = |dir: &Path| {
        let text = String::from_utf8(store_of(dir, 3)).unwrap();
        fs::write(first_segment(dir), text.replace("bd-2", "bd-X")).unwrap();
    };
    beside_another_holder(prepare, |dir, options| repair(dir, options).map(drop));
}

#[test]
fn a_holder_whose_lock_is_removed_while_it_checks_conditions_harms_nobody() {
    let prepare = |dir: &Path| {
        let log = Log::open(dir, small()).unwrap();
        for number in 1..=5 {
            append(&log, &format!("bd-{number}"));
        }
        log.compact::<Issues>().unwrap();
        append(&log, "bd-6");
    };
    beside_another_holder(prepare, |dir, options| {
        let log = IssueLog::open(dir, options.clone())?;
        for id in ["bd-2", "bd-6"] {
            match log.claim(id, "agent") {
                Ok(_) => {}
                Err(CommitError::Log(error)) => return Err(error),
                Err(error) => panic!("{error:?}"),
            }
        }
        Ok(())
    });
}

#[test]
fn a_store_that_was_removed_or_made_anew_is_refused() {
    type Replace = fn(&Path);
    let deeds: [(&str, Replace); 4] = [
        ("removed", |dir| fs::remove_dir_all(dir).unwrap()),
        ("made anew", |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir(dir).unwrap();
            store_of(dir, 5);
        }),
        ("emptied", |dir| {
            for name in crate::support::names(dir) {
                fs::remove_file(dir.join(name)).unwrap();
            }
        }),
        ("emptied and made anew", |dir| {
            for name in crate::support::names(dir) {
                fs::remove_file(dir.join(name)).unwrap();
            }
            store_of(dir, 5);
        }),
    ];
    for (what, deed) in deeds {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        fs::create_dir(&dir).unwrap();
        store_of(&dir, 3);
        let log = open(&dir);
        let reader = Reader::<IssueEvent>::open(&dir).unwrap();
        let mut follower = reader.follow(Seq::new(1)).unwrap();
        for seq in 1..=3 {
            assert_eq!(follower.try_next().unwrap().unwrap().seq, seq);
        }
        deed(&dir);
        let is_replaced = |error: &Error| matches!(error, Error::StoreReplaced { .. });
        let refused = log.append(&event("late")).unwrap_err();
        assert!(is_replaced(&refused), "{what}: {refused:?}");
        assert_eq!(refused.outcome(), Outcome::Rejected);
        let deadline = Instant::now() + Duration::from_secs(5);
        let refused = follower.next_before(deadline).unwrap_err();
        assert!(is_replaced(&refused), "{what}: {refused:?}");
        let refused = reader.records().err().unwrap();
        assert!(is_replaced(&refused), "{what}: {refused:?}");
        if what.ends_with("made anew") {
            assert_eq!(numbered(&dir).len(), 5, "{what}");
            is_well(&dir);
        }
    }
}

#[test]
fn a_segment_that_was_replaced_is_not_written_to() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let [one, two] = [open(dir), open(dir)];
    append(&one, "bd-1");
    append(&two, "bd-2");
    replace_by_copy(&first_segment(dir));
    append(&one, "bd-3");
    append(&two, "bd-4");
    assert_eq!(numbered(dir), ["bd-1", "bd-2", "bd-3", "bd-4"]);
    is_well(dir);

    // Between the write and the check.
    let path = first_segment(dir);
    let log = with_deed(dir, Failpoint::AfterWrite, move || {
        replace_by_copy_without_late(&path);
    });
    let failed = log.append(&event("late")).unwrap_err();
    assert!(matches!(&failed, Error::StoreReplaced { .. }), "{failed:?}");
    assert_eq!(failed.outcome(), Outcome::Unknown);
    append(&two, "bd-5");
    append(&log, "bd-6");
    assert_eq!(numbered(dir).len(), 6);

    // By an older copy: acknowledged records are missing, and that is said.
    fs::copy(first_segment(dir), dir.join("old")).unwrap();
    append(&one, "bd-7");
    fs::rename(dir.join("old"), first_segment(dir)).unwrap();
    for log in [&one, &two] {
        let refused = log.append(&event("bd-8")).unwrap_err();
        assert!(matches!(&refused, Error::Corrupt { .. }), "{refused:?}");
    }
}

#[test]
fn a_follower_goes_on_in_the_segment_and_the_page_that_have_the_names() {
    let temp = tempfile::tempdir().unwrap();
    let [store, other] = ["store", "other"].map(|name| temp.path().join(name));
    fs::create_dir(&store).unwrap();
    store_of(&store, 1);
    let log = Log::<IssueEvent>::open(&store, options()).unwrap();
    let reader = Reader::<IssueEvent>::open(&store).unwrap();
    let mut follower = reader.follow(Seq::new(1)).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().seq, 1);

    // What the holder of a lock that was removed appends, after another one has shut it out.
    fs::create_dir(&other).unwrap();
    fs::copy(store.join("MANIFEST"), other.join("MANIFEST")).unwrap();
    fs::copy(first_segment(&store), first_segment(&other)).unwrap();
    append(&open(&other), "nobody-knows");
    let earlier = fs::OpenOptions::new()
        .write(true)
        .open(first_segment(&store));
    replace_by_copy(&first_segment(&store));
    let orphaned = fs::read(first_segment(&other)).unwrap();
    earlier.unwrap().write_all_at(&orphaned, 0).unwrap();
    append(&log, "bd-2");
    let record = follower.try_next().unwrap().unwrap();
    assert_eq!(record.events[0].id, "bd-2");

    // A page that was moved away is still there for those who have it mapped.
    fs::rename(store.join("shm"), temp.path().join("shm")).unwrap();
    append(&log, "bd-3");
    assert_eq!(reader.durable_seq().unwrap(), Some(Seq::new(3)));
    assert_eq!(follower.try_next().unwrap().unwrap().seq, 3);
}

#[test]
fn a_copy_that_lacks_the_newest_segment_is_not_well() {
    let temp = tempfile::tempdir().unwrap();
    let [store, copy] = ["store", "copy"].map(|name| temp.path().join(name));
    fs::create_dir(&store).unwrap();
    fs::create_dir(&copy).unwrap();
    let log = Log::open(&store, small()).unwrap();
    for number in 1..=9 {
        append(&log, &format!("bd-{number}"));
    }
    let names = crate::support::names(&store);
    let mut segments: Vec<_> = names
        .iter()
        .filter(|name| name.strip_suffix(".jsonl").is_some())
        .collect();
    let last = segments.pop().unwrap();
    assert!(segments.len() > 2);
    for name in segments.iter().copied().chain([&"MANIFEST".to_owned()]) {
        fs::copy(store.join(name), copy.join(name)).unwrap();
    }
    let first_missing: u64 = last["log-".len()..][..20].parse().unwrap();
    let is_missing = |error: &Error| match error {
        Error::Corrupt {
            reason: CorruptReason::Missing { from_seq, .. },
            ..
        } => *from_seq == first_missing,
        _ => false,
    };
    let report = check(&copy).unwrap();
    assert_eq!(report.advice, Advice::Repair, "{report}");
    assert_eq!(report.gaps, [first_missing..=first_missing]);
    let read = Reader::<IssueEvent>::open(&copy)
        .unwrap()
        .verify()
        .unwrap_err();
    assert!(is_missing(&read), "{read:?}");
    let opened = Log::<IssueEvent>::open(&copy, options()).unwrap_err();
    assert!(is_missing(&opened), "{opened:?}");
    let repaired = repair(&copy, &options()).unwrap();
    assert_eq!(repaired.lost, [first_missing..=first_missing]);
    append(&open(&copy), "after");
    is_well(&copy);
    is_well(&store);

    // With it, the copy is whole.
    let whole = temp.path().join("whole");
    fs::create_dir(&whole).unwrap();
    for name in names
        .iter()
        .filter(|name| name.strip_suffix(".jsonl").is_some() || *name == "MANIFEST")
    {
        fs::copy(store.join(name), whole.join(name)).unwrap();
    }
    is_well(&whole);
    assert_eq!(numbered(&whole).len(), 9);
}

#[test]
fn hints_of_an_earlier_moment_hide_no_record_that_the_log_proves() {
    for segment_bytes in [u64::MAX, 300] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let options = || options().segment_bytes_max(segment_bytes);
        let log = Log::open(dir, options()).unwrap();
        append(&log, "bd-1");
        append(&log, "bd-2");
        let old = fs::read(dir.join("shm")).unwrap();
        for number in 3..=9 {
            append(&log, &format!("bd-{number}"));
        }
        drop(log);
        // The same file, in the same boot: a restored image of the volume.
        fs::write(dir.join("shm"), old).unwrap();
        assert_eq!(numbered(dir).len(), 9);
        let report = check(dir).unwrap();
        assert_eq!(report.advice, Advice::Open, "{report}");
        assert_eq!(report.hints_problem.as_deref(), Some("behind the log"));
        let log = Log::open(dir, options()).unwrap();
        append(&log, "bd-10");
        assert_eq!(numbered(dir).len(), 10);
        is_well(dir);
    }
}
