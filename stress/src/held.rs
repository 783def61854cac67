//! What would outlive this process if it ended at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Held {
    mounts: BTreeSet<PathBuf>,
    #[cfg(unix)]
    groups: BTreeSet<i32>,
}

static HELD: Mutex<Held> = Mutex::new(Held {
    mounts: BTreeSet::new(),
    #[cfg(unix)]
    groups: BTreeSet::new(),
});

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A filesystem was mounted there.
pub(crate) fn hold_mount(dir: &Path) {
    held().mounts.insert(dir.to_owned());
}

/// It is unmounted.
pub(crate) fn release_mount(dir: &Path) {
    held().mounts.remove(dir);
}

/// A process group was started, which Ctrl-C on a terminal does not reach.
#[cfg(unix)]
pub(crate) fn hold_group(group: i32) {
    held().groups.insert(group);
}

/// It is about to be reaped.
#[cfg(unix)]
pub(crate) fn release_group(group: i32) {
    held().groups.remove(&group);
}

/// Kills and unmounts all of it.
pub(crate) fn end() {
    let held = held();
    #[cfg(unix)]
    for group in &held.groups {
        use rustix::process::{Pid, Signal, kill_process_group};
        // One that has ended meanwhile is not there.
        if let Some(group) = Pid::from_raw(*group) {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
    for dir in &held.mounts {
        if let Err(error) = unmount(dir) {
            let dir = dir.display();
            eprintln!("strand-stress: {error}: end this with `umount -l {dir}`");
        }
    }
}

#[cfg(target_os = "linux")]
fn unmount(dir: &Path) -> Result<(), String> {
    use rustix::mount::UnmountFlags;
    match rustix::mount::unmount(dir, UnmountFlags::DETACH) {
        // It was unmounted just now, by its owner.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(format!("{} stays mounted ({error})", dir.display())),
    }
}

#[cfg(not(target_os = "linux"))]
fn unmount(dir: &Path) -> Result<(), String> {
    Err(format!("{} stays mounted", dir.display()))
}
