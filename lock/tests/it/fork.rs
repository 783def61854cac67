//! Children made by `fork`, which inherit everything.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use strand_lock::{FileLock, LockError};

use crate::{
    child::{Child, say, wait_for_word},
    deadline, soon,
};

/// A child made by `fork`. Dropping it kills and reaps it.
struct Forked {
    pid: libc::pid_t,
}

impl Forked {
    /// Runs `in_child` in a forked child, which exits with the returned status.
    ///
    /// The test harness has other threads, so `in_child` should not print through it.
    fn run(in_child: impl FnOnce() -> i32) -> Self {
        // SAFETY: the child has only this thread; it does nothing but `in_child`, which keeps to
        // what works in that state (allocation and system calls), and leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let status = catch_unwind(AssertUnwindSafe(in_child)).unwrap_or(101);
            // SAFETY: ends the process without running any more of its code.
            unsafe { libc::_exit(status) };
        }
        Self { pid }
    }

    fn status(self) -> i32 {
        let mut status = 0;
        // SAFETY: the pointer is to a live integer.
        let ended = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(ended, self.pid);
        std::mem::forget(self);
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: no pointers; the child was not waited for, so its number is still its own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: as above; a null pointer asks for no status.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

fn open(dir: &Path) -> FileLock {
    FileLock::open(dir.join("lock")).unwrap()
}

fn is_forked<T>(result: &Result<T, LockError>) -> bool {
    matches!(result, Err(LockError::Forked { .. }))
}

fn is_contended<T>(result: &Result<T, LockError>) -> bool {
    matches!(result, Err(LockError::Contended { .. }))
}

#[test]
fn an_inherited_lock_is_refused_in_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let lock = open(dir.path());
    let refused = || {
        is_forked(&lock.lock())
            && is_forked(&lock.try_lock())
            && is_forked(&lock.lock_until(soon()))
            && is_forked(&lock.lock_shared())
            && is_forked(&lock.try_lock_shared())
            && is_forked(&lock.lock_shared_until(soon()))
    };
    assert_eq!(Forked::run(|| i32::from(refused())).status(), 1);
    let guard = lock.lock().unwrap();
    assert_eq!(Forked::run(|| i32::from(refused())).status(), 1);
    drop(guard);
    let guard = lock.lock_shared().unwrap();
    assert_eq!(Forked::run(|| i32::from(refused())).status(), 1);
    drop(guard);
    assert!(!refused());
}

#[test]
fn a_child_does_not_free_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let other = open(dir.path());
    let lock = open(dir.path());
    for shared in [false, true] {
        // Options, so that the child can drop its copies without moving them away from the parent.
        let mut exclusive = (!shared).then(|| lock.lock().unwrap());
        let mut sharing = shared.then(|| lock.lock_shared().unwrap());

        // It ends.
        assert_eq!(Forked::run(|| 7).status(), 7);
        assert!(is_contended(&other.try_lock()));
        // It drops the guard.
        let dropped = Forked::run(|| {
            drop((exclusive.take(), sharing.take()));
            i32::from(is_contended(&open(dir.path()).try_lock()))
        });
        assert_eq!(dropped.status(), 1);
        assert!(is_contended(&other.try_lock()));
        // It unlocks explicitly, which is no error, since its copy of the lock is gone.
        let unlocked = Forked::run(|| {
            let exclusive = exclusive.take().is_none_or(|guard| guard.unlock().is_ok());
            let sharing = sharing.take().is_none_or(|guard| guard.unlock().is_ok());
            i32::from(exclusive && sharing)
        });
        assert_eq!(unlocked.status(), 1);
        assert!(is_contended(&other.try_lock()));

        drop((exclusive, sharing));
        drop(other.try_lock().unwrap());
    }
}

#[test]
fn a_child_that_drops_the_lock_itself_does_not_free_it() {
    let dir = tempfile::tempdir().unwrap();
    let other = open(dir.path());
    let lock = Box::new(open(dir.path()));
    // Leaked, so that the lock is held without a borrow, and can be dropped.
    std::mem::forget(lock.lock().unwrap());
    let mut slot = Some(lock);
    let dropped = Forked::run(|| {
        drop(slot.take());
        i32::from(is_contended(&open(dir.path()).try_lock()))
    });
    assert_eq!(dropped.status(), 1);
    assert!(is_contended(&other.try_lock()));
    // The parent's drop does.
    drop(slot);
    drop(other.lock_until(deadline()).unwrap());
}

#[test]
fn a_lock_opened_in_the_child_is_the_childs() {
    let dir = tempfile::tempdir().unwrap();
    let lock = open(dir.path());
    drop(lock.lock().unwrap()); // The parent has left a note before.
    let child = Forked::run(|| {
        let own = open(dir.path());
        let Ok(guard) = own.try_lock() else { return 2 };
        let note = own.holder().map(|holder| holder.pid);
        if note != Some(std::process::id()) {
            return 3;
        }
        i32::from(guard.unlock().is_ok())
    });
    assert_eq!(child.status(), 1);

    let guard = lock.lock().unwrap();
    let child = Forked::run(|| {
        let own = open(dir.path());
        let timeout = own.lock_until(soon());
        i32::from(matches!(timeout, Err(LockError::Timeout { .. })))
    });
    assert_eq!(child.status(), 1);
    drop(guard);
}

#[test]
fn a_grandchild_is_a_child_too() {
    let dir = tempfile::tempdir().unwrap();
    let lock = open(dir.path());
    let _guard = lock.lock().unwrap();
    let child = Forked::run(|| {
        let own = open(dir.path());
        Forked::run(|| i32::from(is_forked(&own.try_lock()) && is_forked(&lock.try_lock())))
            .status()
    });
    assert_eq!(child.status(), 1);
    assert!(is_contended(&open(dir.path()).try_lock()));
}

/// Holds the lock and forks a child that outlives it.
pub(crate) fn hold_and_fork(dir: &Path) {
    let lock = open(dir);
    let guard = lock.lock_until(deadline()).unwrap();
    let child = Forked::run(|| {
        say("forked");
        wait_for_word();
        say("the child ends");
        0
    });
    assert_eq!(child.status(), 0);
    guard.unlock().unwrap();
}

#[test]
fn a_child_does_not_keep_the_lock_of_a_killed_parent() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Child::start("hold_and_fork", dir.path());
    parent.expect("forked");
    let lock = open(dir.path());
    assert!(is_contended(&lock.try_lock()));
    parent.kill();
    drop(lock.lock_until(deadline()).unwrap());
    // The parent's child was there all the time.
    assert_eq!(parent.hear_all(), ["the child ends"]);
}

#[test]
fn a_child_forked_while_other_threads_open_lock_and_close_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, pause) = (AtomicBool::new(false), Mutex::new(()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(pause.lock().unwrap());
                    let own = open(dir.path());
                    // Leaked, so that the lock is held until the file is closed.
                    std::mem::forget(own.lock_until(deadline()).unwrap());
                }
            });
        }
        let failed = (0..300).find_map(|_| {
            let _child = Forked::run(|| {
                std::thread::sleep(2 * crate::PATIENCE);
                0
            });
            // The living child must not hold the lock.
            let _pause = pause.lock().unwrap();
            let free = open(dir.path()).lock_until(deadline()).map(drop);
            free.err()
        });
        stop.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}

/// Parent and child are both process 1, each of a pid namespace of its own: their ids do not tell
/// them apart.
#[test]
#[cfg(target_os = "linux")]
fn a_child_with_its_parents_pid_is_refused_too() {
    const NOT_ALLOWED: i32 = 77;
    /// Has the next children live in a new pid namespace.
    fn leave_pid_namespace() -> bool {
        [libc::CLONE_NEWPID, libc::CLONE_NEWPID | libc::CLONE_NEWUSER]
            .into_iter()
            // SAFETY: changes what this process belongs to, and no memory.
            .any(|flags| unsafe { libc::unshare(flags) } == 0)
    }

    let dir = tempfile::tempdir().unwrap();
    let outside = Forked::run(|| {
        if !leave_pid_namespace() {
            return NOT_ALLOWED;
        }
        let parent = Forked::run(|| {
            let lock = open(dir.path());
            let Ok(guard) = lock.lock() else { return 2 };
            if !leave_pid_namespace() {
                return NOT_ALLOWED;
            }
            let pid = std::process::id();
            let child = Forked::run(|| {
                if std::process::id() != pid {
                    return 3;
                }
                i32::from(is_forked(&lock.try_lock()) && is_forked(&lock.lock_until(soon())))
            });
            drop(guard);
            child.status()
        });
        parent.status()
    });
    match outside.status() {
        NOT_ALLOWED => eprintln!("SKIPPED: this system does not allow pid namespaces"),
        status => assert_eq!(status, 1),
    }
}
