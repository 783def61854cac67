//! A follower: a process that shows all writes as they come, beside the agents.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::evidence::listing::{Entry, tokens};
use crate::stores::seat::Seat;
use crate::stores::store::{Process, Store};

/// How often it is looked at when all writes have been made, and how often in a row it may show
/// nothing new. Looks are counted, as both may have been stopped meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const LOOKS_MAX: u32 = 300;

/// What was shown so far.
#[derive(Debug, Default)]
pub(super) struct Follower {
    shown: Mutex<Shown>,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Shown {
    entries: Vec<Entry>,
    /// Why it ended by itself.
    ended: Option<String>,
}

impl Follower {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the process prints, until it is killed.
    pub(super) fn read(&self, store: &dyn Store, seat: &Seat, mut process: Process) {
        let mut line = String::new();
        let why = loop {
            line.clear();
            let read = process.stdout.read_line(&mut line);
            if let Err(error) = read {
                break error.to_string();
            }
            if !line.ends_with('\n') {
                break "it ended".to_owned();
            }
            match store.followed(line.trim_end()) {
                Ok(entries) => self.shown().entries.extend(entries),
                Err(error) => break error,
            }
        };
        // What still runs would never end its output.
        seat.kill();
        let (_, stderr) = process.end(seat);
        if !self.is_over.load(Ordering::SeqCst) {
            self.shown().ended = Some(format!("{why} {}", stderr.trim()));
        }
    }

    /// Waits until it has shown these writes, as long as it shows any.
    pub(super) fn wait_for(&self, mut writes: BTreeSet<(u32, u32)>) {
        let (mut seen, mut looks) = (0, 0);
        while looks < LOOKS_MAX {
            let shown = self.shown();
            for entry in shown.entries.iter().skip(seen) {
                for write in tokens(&entry.text) {
                    writes.remove(&write);
                }
            }
            if writes.is_empty() || shown.ended.is_some() {
                return;
            }
            looks = if seen < shown.entries.len() {
                0
            } else {
                looks + 1
            };
            seen = shown.entries.len();
            drop(shown);
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Ends the process.
    pub(super) fn end(&self, seat: &Seat) {
        self.is_over.store(true, Ordering::SeqCst);
        seat.kill();
    }

    /// All that it has shown; why it ended before its end.
    pub(super) fn into_shown(self) -> Result<Vec<Entry>, String> {
        let shown = self.shown.into_inner();
        let shown = shown.unwrap_or_else(PoisonError::into_inner);
        match shown.ended {
            None => Ok(shown.entries),
            Some(why) => Err(why),
        }
    }
}
