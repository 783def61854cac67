//! Several processes.

use std::{fs, path::Path, process::Stdio, sync::atomic::Ordering, thread, time::Duration};

use strand_lock::{FileLock, LockError, SharedPage, monotonic_ns};

use crate::{
    child::{Child, command, say, wait_for_word},
    deadline, soon,
};

fn open(dir: &Path) -> FileLock {
    FileLock::open(dir.join("lock")).unwrap()
}

/// Holds the lock until the parent's word.
pub(crate) fn hold(dir: &Path) {
    let lock = open(dir);
    let guard = lock.lock_until(deadline()).unwrap();
    say("held");
    wait_for_word();
    guard.unlock().unwrap();
    say("freed");
}

/// Waits for the lock.
pub(crate) fn acquire(dir: &Path) {
    let lock = open(dir);
    say("begun");
    let guard = lock.lock_until(deadline()).unwrap();
    say("got it");
    guard.unlock().unwrap();
}

/// Reports which locks are free.
pub(crate) fn try_all(dir: &Path) {
    let lock = open(dir);
    let exclusive = lock.try_lock().is_ok();
    let shared = lock.try_lock_shared().is_ok();
    say(format_args!("exclusive {exclusive}, shared {shared}"));
}

/// Lives, with everything that it inherited, until the parent's word.
pub(crate) fn linger() {
    say("lingering");
    wait_for_word();
    say("lingered");
}

/// Holds the lock and starts a child by `Command` that outlives it.
pub(crate) fn hold_and_spawn(dir: &Path) {
    let lock = open(dir);
    let guard = lock.lock_until(deadline()).unwrap();
    let mut lingering = command("linger", dir)
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .spawn()
        .unwrap();
    lingering.wait().unwrap();
    guard.unlock().unwrap();
}

#[test]
fn only_shared_goes_with_shared_between_processes() {
    let dir = tempfile::tempdir().unwrap();
    let lock = open(dir.path());
    let others = || Child::start("try", dir.path()).hear();
    assert_eq!(others(), "exclusive true, shared true");
    let guard = lock.lock_shared().unwrap();
    assert_eq!(others(), "exclusive false, shared true");
    drop(guard);
    let guard = lock.lock().unwrap();
    assert_eq!(others(), "exclusive false, shared false");
    drop(guard);
    assert_eq!(others(), "exclusive true, shared true");
}

#[test]
fn a_timeout_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Child::start("hold", dir.path());
    child.expect("held");
    let lock = open(dir.path());
    assert!(matches!(lock.try_lock(), Err(LockError::Contended { .. })));
    let error = lock.lock_until(soon()).unwrap_err();
    let text = error.to_string();
    let LockError::Timeout { waited, holder, .. } = error else {
        panic!("{error}");
    };
    assert!(waited >= Duration::from_millis(29));
    let holder = holder.unwrap();
    assert_eq!(holder.pid, child.pid());
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_str().unwrap();
    assert!(
        holder.command.starts_with(program) && holder.command.contains("--exact child::role"),
        "{holder}"
    );
    assert!(holder.held_for >= waited);
    if cfg!(any(target_os = "linux", windows)) {
        // The start is known to within a hundredth of a second.
        assert!(holder.running_for + Duration::from_millis(10) >= holder.held_for);
        assert!(holder.running_for < crate::PATIENCE);
    }
    assert!(
        text.contains(&format!("held by pid {}", child.pid())),
        "{text}"
    );

    child.tell("go on");
    child.expect("freed");
    assert_eq!(lock.holder(), None);
    drop(lock.try_lock().unwrap());
}

#[test]
fn a_killed_holder_frees_the_lock_and_waiters_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Child::start("hold", dir.path());
    holder.expect("held");
    let waiters = [(); 3].map(|()| Child::start("acquire", dir.path()));
    for waiter in &waiters {
        waiter.expect("begun");
    }
    holder.kill();
    for waiter in &waiters {
        waiter.expect("got it");
    }
    drop(open(dir.path()).lock_until(deadline()).unwrap());
}

#[test]
#[cfg(any(target_os = "linux", windows))]
fn the_note_of_a_killed_holder_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Child::start("hold", dir.path());
    killed.expect("held");
    let lock = open(dir.path());
    assert_eq!(lock.holder().unwrap().pid, killed.pid());
    killed.kill();
    // A shared holder leaves no note, so the old one is still there.
    let guard = lock.lock_shared_until(deadline()).unwrap();
    for zombie in [true, false] {
        assert_eq!(lock.holder(), None, "zombie: {zombie}");
        let error = open(dir.path()).lock_until(soon()).unwrap_err();
        assert!(matches!(error, LockError::Timeout { holder: None, .. }));
        killed.reap();
    }
    drop(guard);
}

#[test]
fn a_killed_waiter_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Child::start("hold", dir.path());
    holder.expect("held");
    let mut killed = [(); 3].map(|()| Child::start("acquire", dir.path()));
    let waiter = Child::start("acquire", dir.path());
    for child in killed.iter().chain([&waiter]) {
        child.expect("begun");
    }
    killed.iter_mut().for_each(Child::kill);
    holder.tell("go on");
    waiter.expect("got it");
}

#[test]
fn a_child_started_by_command_does_not_keep_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Child::start("hold_and_spawn", dir.path());
    parent.expect("lingering");
    let lock = open(dir.path());
    assert!(matches!(lock.try_lock(), Err(LockError::Contended { .. })));
    parent.kill();
    drop(lock.lock_until(deadline()).unwrap());
    // Its child was alive all the time.
    assert_eq!(parent.hear_all(), ["lingered"]);
}

#[test]
fn all_processes_see_the_same_boot() {
    let dir = tempfile::tempdir().unwrap();
    let boot = strand_lock::boot_id();
    assert!(!boot.is_empty());
    for _ in 0..3 {
        Child::start("boot", dir.path()).expect(&boot);
        assert_eq!(strand_lock::boot_id(), boot);
    }
}

const CYCLES: u64 = 500;

/// Adds to a number in a file, in steps that lose additions unless processes exclude each other.
pub(crate) fn increment(dir: &Path) {
    const THREADS: usize = 3;
    let lock = open(dir);
    let path = dir.join("number");
    say("ready");
    wait_for_word();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..CYCLES {
                    let guard = lock.lock_until(deadline()).unwrap();
                    let number: u64 = fs::read_to_string(&path).unwrap().parse().unwrap();
                    fs::write(&path, (number + 1).to_string()).unwrap();
                    guard.unlock().unwrap();
                }
            });
        }
    });
    let counters = lock.counters();
    assert_eq!(counters.acquisitions, 3 * CYCLES);
    assert!(counters.contended <= counters.acquisitions);
    assert!(counters.longest_wait <= counters.wait);
    assert!(counters.longest_hold <= counters.hold);
    say("done");
}

#[test]
fn no_addition_is_lost_and_no_waiter_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("number"), "0").unwrap();
    let mut children = [(); 4].map(|()| Child::start("increment", dir.path()));
    for child in &children {
        child.expect("ready");
    }
    for child in &mut children {
        child.tell("go");
    }
    for child in &children {
        child.expect("done");
    }
    let number = fs::read_to_string(dir.path().join("number")).unwrap();
    assert_eq!(number, (4 * 3 * CYCLES).to_string());
}

/// Words of the page in [`lock_serialization`].
const INSIDE: usize = 0;
const MOST_INSIDE: usize = 1;

/// Takes the lock ten times and sends the interval of each hold.
pub(crate) fn intervals(dir: &Path) {
    let lock = open(dir);
    let page = SharedPage::open(dir.join("page")).unwrap();
    say("ready");
    wait_for_word();
    let held = [(); 10].map(|()| {
        let guard = lock.lock_until(deadline()).unwrap();
        let from = monotonic_ns();
        let inside = page.u64(INSIDE).fetch_add(1, Ordering::SeqCst) + 1;
        page.u64(MOST_INSIDE).fetch_max(inside, Ordering::SeqCst);
        thread::yield_now();
        page.u64(INSIDE).fetch_sub(1, Ordering::SeqCst);
        let to = monotonic_ns();
        guard.unlock().unwrap();
        (from, to)
    });
    for (from, to) in held {
        say(format_args!("{from} {to}"));
    }
}

#[test]
fn lock_serialization() {
    let dir = tempfile::tempdir().unwrap();
    let page = SharedPage::open(dir.path().join("page")).unwrap();
    let mut children = [(); 3].map(|()| Child::start("intervals", dir.path()));
    for child in &children {
        child.expect("ready");
    }
    for child in &mut children {
        child.tell("go");
    }
    let mut intervals: Vec<(u64, u64)> = children
        .iter_mut()
        .flat_map(Child::hear_all)
        .map(|line| {
            let (from, to) = line.split_once(' ').unwrap();
            (from.parse().unwrap(), to.parse().unwrap())
        })
        .collect();
    intervals.sort_unstable();
    assert_eq!(intervals.len(), 30);
    for pair in intervals.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "these overlap: {pair:?}");
    }
    assert_eq!(page.u64(MOST_INSIDE).load(Ordering::SeqCst), 1);
    assert_eq!(page.u64(INSIDE).load(Ordering::SeqCst), 0);
}
