//! One process: threads, and several locks on one path.

use std::{
    fs,
    sync::{
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use strand_lock::{FileLock, LockError, look_at_lock};
use tempfile::TempDir;

use crate::{deadline, soon};

fn is_contended<T>(result: Result<T, LockError>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert!(error.is_contention(), "{error}");
            assert!(matches!(error, LockError::Contended { .. }), "{error}");
            true
        }
    }
}

/// Two locks on one path.
fn two_locks() -> (TempDir, FileLock, FileLock) {
    let dir = tempfile::tempdir().unwrap();
    let open = || FileLock::open(dir.path().join("lock")).unwrap();
    let (one, other) = (open(), open());
    (dir, one, other)
}

/// Adds to a number in two steps, which loses additions unless threads exclude each other.
fn add_in_threads<'a>(lock_of: impl Fn(usize) -> &'a FileLock + Sync) {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 300;
    let (inside, sum) = (AtomicU32::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (inside, sum, lock_of) = (&inside, &sum, &lock_of);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let guard = lock_of(thread).lock_until(deadline()).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    let old = sum.load(Ordering::Relaxed);
                    thread::yield_now();
                    sum.store(old + 1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.unlock().unwrap();
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), THREADS as u64 * ROUNDS);
}

#[test]
fn threads_that_share_a_lock_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let lock = FileLock::open(dir.path().join("lock")).unwrap();
    add_in_threads(|_| &lock);
    assert_eq!(lock.path(), dir.path().join("lock"));
    let counters = lock.counters();
    assert_eq!(counters.acquisitions, 4 * 300);
    assert!(counters.contended <= counters.acquisitions);
}

#[test]
fn locks_on_one_path_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let locks = [(); 4].map(|()| FileLock::open(dir.path().join("lock")).unwrap());
    add_in_threads(|thread| &locks[thread]);
}

#[test]
fn only_shared_goes_with_shared() {
    let (_dir, one, other) = two_locks();
    // The second is tried on the same lock, from this thread and another, and on another lock.
    for second in [&one, &other] {
        let shared = one.try_lock_shared().unwrap();
        assert!(!is_contended(second.try_lock_shared()));
        assert!(is_contended(second.try_lock()));
        thread::scope(|scope| {
            let tried = scope.spawn(|| {
                assert!(!is_contended(second.try_lock_shared()));
                assert!(is_contended(second.try_lock()));
            });
            tried.join().unwrap();
        });
        shared.unlock().unwrap();

        let exclusive = one.try_lock().unwrap();
        assert!(is_contended(second.try_lock_shared()));
        assert!(is_contended(second.try_lock()));
        thread::scope(|scope| {
            let tried = scope.spawn(|| {
                assert!(is_contended(second.try_lock_shared()));
                assert!(is_contended(second.try_lock()));
            });
            tried.join().unwrap();
        });
        exclusive.unlock().unwrap();
        assert!(!is_contended(second.try_lock()));
    }
}

#[test]
fn the_last_shared_holder_of_a_process_frees_the_file() {
    let (_dir, one, other) = two_locks();
    let guards = [(); 3].map(|()| one.lock_shared_until(deadline()).unwrap());
    for guard in guards {
        assert!(is_contended(other.try_lock()));
        drop(guard);
    }
    assert!(!is_contended(other.try_lock()));
}

#[test]
fn a_shared_waiter_and_an_exclusive_one_both_get_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let holder = FileLock::open(&path).unwrap();
    for same in [true, false] {
        let guard = holder.lock().unwrap();
        let other = FileLock::open(&path).unwrap();
        let lock = if same { &holder } else { &other };
        thread::scope(|scope| {
            scope.spawn(|| lock.lock_shared_until(deadline()).unwrap().unlock());
            scope.spawn(|| lock.lock_until(deadline()).unwrap().unlock());
            scope.spawn(|| lock.lock_shared().unwrap().unlock());
            scope.spawn(|| lock.lock().unwrap().unlock());
            guard.unlock().unwrap();
        });
    }
}

#[test]
fn a_panic_frees_the_lock_and_a_guard_may_end_in_another_thread() {
    let (_dir, one, other) = two_locks();
    thread::scope(|scope| {
        for shared in [true, false] {
            let one = &one;
            let panicked = scope.spawn(move || {
                let _exclusive = (!shared).then(|| one.lock().unwrap());
                let _shared = shared.then(|| one.lock_shared().unwrap());
                std::panic::resume_unwind(Box::new("on purpose"));
            });
            panicked.join().unwrap_err();
            drop(other.try_lock().unwrap());
            drop(one.try_lock().unwrap());
        }
        let guard = one.lock().unwrap();
        scope.spawn(|| drop(guard)).join().unwrap();
    });
    drop(other.try_lock().unwrap());
    drop(one.try_lock().unwrap());
}

#[test]
fn a_deadline_ends_the_wait() {
    let (_dir, one, other) = two_locks();
    let _guard = one.lock().unwrap();
    for lock in [&one, &other] {
        for shared in [true, false] {
            let (began, deadline) = (Instant::now(), soon());
            let error = if shared {
                lock.lock_shared_until(deadline).unwrap_err()
            } else {
                lock.lock_until(deadline).unwrap_err()
            };
            assert!(Instant::now() >= deadline);
            assert!(error.is_contention());
            let LockError::Timeout {
                path,
                waited,
                holder,
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!(path, one.path());
            assert!(waited >= Duration::from_millis(29) && waited <= began.elapsed());
            assert_eq!(holder.unwrap().pid, std::process::id());
        }
    }
}

#[test]
fn a_deadline_in_the_past_still_takes_a_free_lock() {
    let dir = tempfile::tempdir().unwrap();
    let lock = FileLock::open(dir.path().join("lock")).unwrap();
    let past = Instant::now();
    lock.lock_until(past).unwrap().unlock().unwrap();
    lock.lock_shared_until(past).unwrap().unlock().unwrap();
}

#[test]
fn counters_add_up() {
    let (_dir, one, other) = two_locks();
    assert_eq!(one.counters(), strand_lock::Counters::default());

    drop(one.lock().unwrap());
    drop(one.lock_shared().unwrap());
    let counters = one.counters();
    assert_eq!((counters.acquisitions, counters.contended), (2, 0));
    assert!(counters.longest_hold <= counters.hold);
    assert!(counters.longest_wait <= counters.wait);

    // A refusal and a timeout are no acquisitions.
    let guard = other.lock().unwrap();
    one.try_lock().unwrap_err();
    one.lock_until(soon()).unwrap_err();
    assert_eq!(one.counters(), counters);

    // The waiter began before the lock was freed, and got it afterwards.
    let (began, begins) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            began.send(Instant::now()).unwrap();
            drop(one.lock_until(deadline()).unwrap());
        });
        let (start, deadline) = (begins.recv().unwrap(), deadline());
        guard.unlock().unwrap();
        while one.counters().acquisitions < 3 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        assert!(one.counters().wait <= counters.wait + start.elapsed());
    });
    let after = one.counters();
    assert_eq!(after.acquisitions, 3);
    assert!(after.longest_wait <= after.wait);
    assert!(after.longest_hold <= after.hold);
    assert!(after.hold > counters.hold);
}

#[test]
fn a_long_file_is_unchanged_beyond_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    fs::write(&path, vec![0xab; 10_000]).unwrap();
    let (one, other) = (
        FileLock::open(&path).unwrap(),
        FileLock::open(&path).unwrap(),
    );
    thread::scope(|scope| {
        let guard = one.lock().unwrap();
        scope.spawn(|| drop(other.lock_until(deadline()).unwrap()));
        drop(guard);
    });
    drop((one, other));
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), 10_000);
    assert!(content[4096..].iter().all(|byte| *byte == 0xab));
}

#[test]
fn a_short_file_is_lengthened_and_keeps_what_the_note_does_not_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    fs::write(&path, vec![0xab; 1000]).unwrap();
    drop(FileLock::open(&path).unwrap().lock().unwrap());
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), 4096);
    assert!(content[128..1000].iter().all(|byte| *byte == 0xab));
}

#[test]
#[cfg(unix)]
fn a_file_cut_short_while_in_use_keeps_excluding() {
    let (_dir, one, other) = two_locks();
    let guard = one.lock().unwrap();
    let file = fs::OpenOptions::new().write(true).open(one.path()).unwrap();
    file.set_len(0).unwrap();
    assert!(is_contended(other.try_lock()));
    let error = other.lock_until(soon()).unwrap_err();
    assert!(matches!(error, LockError::Timeout { holder: None, .. }));
    assert!(
        error.to_string().ends_with("its holder is unknown"),
        "{error}"
    );
    guard.unlock().unwrap();
    add_in_threads(|thread| if thread % 2 == 0 { &one } else { &other });
    assert_eq!(file.metadata().unwrap().len(), 0);

    // The next open lengthens it to a page again, which all of them then use.
    let new = FileLock::open(one.path()).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4096);
    add_in_threads(|thread| [&one, &other, &new][thread % 3]);
    let guard = new.lock().unwrap();
    let pid = one.holder().unwrap().pid;
    assert_eq!(pid, std::process::id());
    drop(guard);
}

#[test]
fn a_path_that_cannot_be_opened_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = FileLock::open(dir.path().join("no such directory/lock")).unwrap_err();
    assert!(!error.is_contention());
    assert!(matches!(error, LockError::Io { op: "open", .. }), "{error}");
}

#[test]
fn looking_at_a_lock_shows_holder_and_waiters_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    assert!(look_at_lock(&path).is_err());
    assert!(!path.exists());
    fs::write(&path, "short").unwrap();
    assert!(look_at_lock(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"short");
    let lock = FileLock::open(&path).unwrap();
    let free = look_at_lock(&path).unwrap();
    assert_eq!((free.holder, free.waiting), (None, false));
    let guard = lock.lock().unwrap();
    let bytes = fs::read(&path).unwrap();
    let held = look_at_lock(&path).unwrap();
    assert_eq!(held.holder.unwrap().pid, std::process::id());
    assert!(!held.waiting);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let other = FileLock::open(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(other.lock_until(deadline()).unwrap()));
        let give_up = deadline();
        while !look_at_lock(&path).unwrap().waiting {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
        drop(guard);
    });
}

#[test]
fn a_lock_file_is_known_once_it_was_marked_and_a_new_one_or_a_copy_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = FileLock::open(&path).unwrap();
    let other = FileLock::open(&path).unwrap();
    assert!(!lock.lock().unwrap().is_known());
    let guard = other.lock().unwrap();
    guard.mark_known();
    assert!(!guard.is_known(), "it was not when the lock was taken");
    drop(guard);
    assert!(lock.lock().unwrap().is_known());

    // Windows may refuse to replace an open file.
    drop((lock, other));
    std::fs::copy(&path, dir.path().join("copy")).unwrap();
    std::fs::rename(dir.path().join("copy"), &path).unwrap();
    assert!(!FileLock::open(&path).unwrap().lock().unwrap().is_known());
}

#[test]
#[cfg(unix)]
fn a_reopened_lock_excludes_who_opens_the_new_file() {
    let temp = tempfile::tempdir().unwrap();
    let dir = strand_lock::files::Dir::open(temp.path()).unwrap();
    let lock = FileLock::open_in(&dir, "lock").unwrap();
    assert_eq!(lock.path(), temp.path().join("lock"));
    assert_eq!(dir.identity_of("lock").unwrap(), lock.identity());
    let guard = lock.lock().unwrap();
    std::fs::remove_file(lock.path()).unwrap();
    let other = FileLock::open_in(&dir, "lock").unwrap();
    assert_ne!(lock.identity(), other.identity());
    assert_eq!(dir.identity_of("lock").unwrap(), other.identity());
    // Locks belong to files: now there are two.
    let elsewhere = other.try_lock().unwrap();
    thread::scope(|scope| {
        let reopened = scope.spawn(|| lock.reopen());
        thread::sleep(Duration::from_millis(30));
        assert!(!reopened.is_finished(), "the old lock is held");
        drop(guard);
        reopened.join().unwrap().unwrap();
    });
    assert_eq!(lock.identity(), other.identity());
    assert!(lock.try_lock().unwrap_err().is_contention());
    drop(elsewhere);
    drop(lock.try_lock().unwrap());

    std::fs::remove_dir_all(temp.path()).unwrap();
    let gone = lock.reopen().unwrap_err();
    assert!(
        matches!(&gone, LockError::Io { op: "open", source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{gone:?}"
    );
}
