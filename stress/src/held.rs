//! What would outlive this process if it ended at once: mounts, and processes that no terminal
//! reaches. Each is begun under a [`Beginning`], so that [`end`] misses none.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long [`end`] waits for what is being begun.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
const LOOKS_MAX: u32 = 1_000;

#[derive(Debug)]
struct Held {
    /// What begins now is ended by who begins it.
    is_over: bool,
    mounts: BTreeSet<PathBuf>,
    #[cfg(unix)]
    groups: BTreeSet<i32>,
}

static HELD: Mutex<Held> = Mutex::new(Held {
    is_over: false,
    mounts: BTreeSet::new(),
    #[cfg(unix)]
    groups: BTreeSet::new(),
});
static BEGINNINGS: AtomicUsize = AtomicUsize::new(0);

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that would outlive this process is being begun.
#[derive(Debug)]
pub(crate) struct Beginning(());

impl Beginning {
    /// Does not return if this process is about to end.
    pub(crate) fn new() -> Beginning {
        BEGINNINGS.fetch_add(1, Ordering::SeqCst);
        let beginning = Beginning(());
        if held().is_over {
            drop(beginning);
            loop {
                std::thread::park();
            }
        }
        beginning
    }

    /// A filesystem was mounted there.
    pub(crate) fn hold_mount(self, dir: &Path) {
        let mut held = held();
        if held.is_over {
            unmount_or_say(dir);
        }
        held.mounts.insert(dir.to_owned());
        drop(self);
    }

    /// A process group was started, which Ctrl-C on a terminal does not reach.
    #[cfg(unix)]
    pub(crate) fn hold_group(self, group: i32) {
        let mut held = held();
        if held.is_over {
            kill(group);
        }
        held.groups.insert(group);
        drop(self);
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        BEGINNINGS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// It is unmounted.
pub(crate) fn release_mount(dir: &Path) {
    held().mounts.remove(dir);
}

/// It is about to be reaped.
#[cfg(unix)]
pub(crate) fn release_group(group: i32) {
    held().groups.remove(&group);
}

/// Kills and unmounts all of it, before this process ends.
pub(crate) fn end() {
    {
        let mut held = held();
        held.is_over = true;
        #[cfg(unix)]
        held.groups.iter().copied().for_each(kill);
        held.mounts.iter().for_each(|dir| unmount_or_say(dir));
    }
    for _ in 0..LOOKS_MAX {
        if BEGINNINGS.load(Ordering::SeqCst) == 0 {
            break;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// One that has ended meanwhile is not there.
#[cfg(unix)]
fn kill(group: i32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(group) = Pid::from_raw(group) {
        kill_process_group(group, Signal::KILL).ok();
    }
}

fn unmount_or_say(dir: &Path) {
    if let Err(error) = unmount(dir) {
        let dir = dir.display();
        let said = format!("strand-stress: {error}: end this with `umount -l {dir}`");
        drop(writeln!(std::io::stderr(), "{said}"));
    }
}

#[cfg(target_os = "linux")]
fn unmount(dir: &Path) -> Result<(), String> {
    match unmount_by_force(dir) {
        // It was unmounted just now, by its owner.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(format!("{} stays mounted ({error})", dir.display())),
    }
}

/// A process, or a thread of this one, that waits for a filesystem without power can't be killed
/// before it has its answer. In a user namespace, the force may not be allowed.
#[cfg(target_os = "linux")]
pub(crate) fn unmount_by_force(dir: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    match unmount(dir, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        Err(rustix::io::Errno::PERM) => unmount(dir, UnmountFlags::DETACH),
        done => done,
    }
}

#[cfg(not(target_os = "linux"))]
fn unmount(dir: &Path) -> Result<(), String> {
    Err(format!("{} stays mounted", dir.display()))
}
