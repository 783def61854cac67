//! A follower: a process that shows all writes as they come, beside the agents.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::evidence::listing::{Entry, tokens};
use crate::stores::seat::Seat;
use crate::stores::serving::Serving;
use crate::stores::store::{Process, Store};
use crate::stores::template::Values;

/// How often it is looked at when all writes have been made, and how often in a row it may show
/// nothing new. Looks are counted, as both may have been stopped meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const LOOKS_MAX: u32 = 300;

/// What was shown so far.
#[derive(Debug, Default)]
pub(super) struct Follower {
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    entries: Vec<Entry>,
    /// How often it began anew.
    beginnings: u64,
    /// Why it ended by itself.
    ended: Option<String>,
}

impl Follower {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values with which one begins that was shown nothing.
    pub(super) fn first(values: &Values) -> Values {
        Follower::behind(values, 0)
    }

    /// The values with which one goes on behind an entry.
    pub(super) fn behind(values: &Values, last: u64) -> Values {
        let mut values = values.clone();
        values.insert("from", last.saturating_add(1).to_string());
        values
    }

    /// Reads what the process prints, until it is killed at the end, when the seat is closed. One
    /// that is killed before, or ends after the server was killed, goes on in another process.
    pub(super) fn read(
        &self,
        store: &dyn Store,
        seat: &Seat,
        values: &Values,
        first: Process,
        serving: Option<&Serving<'_>>,
    ) {
        let kills = || serving.map_or(0, Serving::kills);
        let (mut process, mut kills_before) = (first, 0);
        let why = loop {
            let read = self.read_one(store, &mut process);
            let was_killed = seat.was_killed();
            // What still runs would never end its output.
            seat.kill();
            // One that had ended by itself before it was killed has another status.
            let (by_kill, said) = process.end(seat);
            let has_reason = (was_killed && by_kill) || kills() != kills_before;
            match read {
                Err(error) => break format!("{error}: {said}"),
                Ok(()) if !has_reason => break format!("it ended: {said}"),
                Ok(()) => {}
            }
            loop {
                if seat.is_over() {
                    return;
                }
                kills_before = kills();
                if serving.is_none_or(Serving::is_up) {
                    break;
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
            let last = self.last(store.can().resumes);
            match store.follow(seat, &Follower::behind(values, last)) {
                Ok(next) => process = next,
                Err(_) if seat.is_over() => return,
                Err(error) => break error,
            }
        };
        self.shown().ended = Some(why);
    }

    /// Reads to the end of the output.
    fn read_one(&self, store: &dyn Store, process: &mut Process) -> Result<(), String> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = process.stdout.read_line(&mut line);
            read.map_err(|error| error.to_string())?;
            if !line.ends_with('\n') {
                return Ok(());
            }
            let entries = store.followed(line.trim_end())?;
            self.shown().entries.extend(entries);
        }
    }

    /// The number of the last write that was shown. Where a follower can't go on behind it, nothing
    /// was shown.
    fn last(&self, resumes: bool) -> u64 {
        let mut shown = self.shown();
        if !resumes {
            shown.beginnings += 1;
            shown.entries.clear();
        }
        number(&shown.entries)
    }

    /// Waits until it has shown these writes, as long as it shows any.
    pub(super) fn wait_for(&self, writes: &BTreeSet<(u32, u32)>) {
        let mut missing = writes.clone();
        let (mut beginnings, mut seen, mut looks) = (0, 0, 0);
        while looks < LOOKS_MAX {
            let shown = self.shown();
            if beginnings != shown.beginnings {
                beginnings = shown.beginnings;
                seen = 0;
                missing.clone_from(writes);
            }
            for entry in shown.entries.iter().skip(seen) {
                for write in tokens(&entry.text) {
                    missing.remove(&write);
                }
            }
            if missing.is_empty() || shown.ended.is_some() {
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

/// The number of the last of these; without numbers, how many there are.
pub(super) fn number(entries: &[Entry]) -> u64 {
    let last = entries.last().and_then(|entry| entry.number);
    last.unwrap_or(entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::stores::program::ProgramStore;

    /// The first one is killed while the harness waits for it to read the greeting.
    #[test]
    fn one_that_is_killed_before_it_was_greeted_is_started_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let marker = dir.path().join("started");
        let program = r#"
            if [ ! -e "$0" ]; then touch "$0"; exec sleep 1000; fi
            read hello; read follow
            echo '{"type":"ok"}'
            echo '{"type":"ok","items":[{"text":"qa1w1q"}]}'
            exec sleep 1000
        "#;
        let marker_name = marker.display().to_string();
        let argv = ["sh", "-c", program, &marker_name].map(str::to_owned);
        let store = ProgramStore::bare(argv.to_vec());
        let seat = Seat::new(Arc::default(), None);
        // More than a pipe holds.
        let values = Values::from([
            ("store", "x".repeat(70_000)),
            ("agent", "agent-0".to_owned()),
        ]);
        let follower = Follower::default();
        std::thread::scope(|scope| {
            scope.spawn(|| kill_at(&marker, &seat));
            let first = store
                .follow(&seat, &Follower::first(&values))
                .expect("a process");
            scope.spawn(|| follower.read(&store, &seat, &values, first, None));
            follower.wait_for(&BTreeSet::from([(1, 1)]));
            seat.close();
            seat.kill();
        });
        let shown = follower.into_shown().expect("no failure");
        assert_eq!(shown.len(), 1, "{shown:?}");
    }

    fn kill_at(marker: &Path, seat: &Seat) {
        while !marker.exists() {
            std::thread::sleep(LOOK_INTERVAL);
        }
        seat.kill();
    }
}
