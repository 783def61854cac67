//! Says for whom the command waits: the locks of the real machine, which tell after a second who
//! holds them.
//!
//! There is no second lock protocol and no thread: a long wait is several shorter ones, and the
//! timeout of each names the holder.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use strand_core::{
    Counters, Holder, LockError,
    testing::{Disk, HeldLock, Host, OpenMode, Storage, StorageFile, StoreLock, ThisMachine},
};

use crate::output::tell;

/// After such a wait the holder is named for the first time.
const FIRST: Duration = Duration::from_secs(1);
/// And again each time that so much has passed.
const AGAIN: Duration = Duration::from_secs(5);

/// The disk of a machine whose locks say for whom they wait.
#[derive(Debug)]
pub(crate) struct Telling(TellingHost);

impl Telling {
    pub(crate) fn new(json: bool) -> Self {
        Self(TellingHost { json })
    }
}

impl Storage for Telling {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        Disk.open(path, mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }

    fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Disk.is_dir(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }

    fn host(&self) -> &dyn Host {
        &self.0
    }
}

#[derive(Debug)]
struct TellingHost {
    json: bool,
}

impl Host for TellingHost {
    fn open_lock(&self, path: &Path) -> Result<Box<dyn StoreLock>, LockError> {
        Ok(Box::new(TellingLock {
            lock: ThisMachine.open_lock(path)?,
            json: self.json,
        }))
    }
}

#[derive(Debug)]
struct TellingLock {
    lock: Box<dyn StoreLock>,
    json: bool,
}

impl StoreLock for TellingLock {
    fn lock_until(&self, deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        let started = Instant::now();
        let mut tell_at = started + FIRST;
        loop {
            let until = deadline.min(tell_at);
            match self.lock.lock_until(until) {
                Err(LockError::Timeout { path, holder, .. }) if until == deadline => {
                    let waited = started.elapsed();
                    return Err(LockError::Timeout {
                        path,
                        waited,
                        holder,
                    });
                }
                Err(LockError::Timeout { holder, .. }) => {
                    tell(&waiting_for(holder.as_deref(), self.json));
                    tell_at += AGAIN;
                }
                done => return done,
            }
        }
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        self.lock.try_lock()
    }

    fn counters(&self) -> Counters {
        self.lock.counters()
    }
}

/// Words for a person, or one JSON object.
fn waiting_for(holder: Option<&Holder>, json: bool) -> String {
    #[derive(Serialize)]
    struct Waiting<'a> {
        waiting_for: Option<Of<'a>>,
    }
    #[derive(Serialize)]
    struct Of<'a> {
        pid: u32,
        command: &'a str,
        held_ms: u128,
    }
    if json {
        let waiting_for = holder.map(|holder| Of {
            pid: holder.pid,
            command: &holder.command,
            held_ms: holder.held_for.as_millis(),
        });
        return serde_json::to_string(&Waiting { waiting_for }).unwrap_or_default();
    }
    match holder {
        Some(holder) => format!(
            "strand: waiting for pid {} ({}, {:.1} s)",
            holder.pid,
            holder.command,
            holder.held_for.as_secs_f64()
        ),
        None => "strand: waiting for the lock; its holder is unknown".to_owned(),
    }
}
