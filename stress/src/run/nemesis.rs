//! The nemesis: at random times it kills processes or stops them for a while, leaves a torn tail as
//! a killed writer does, and deletes the hints, or removes and replaces files under the processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use strand_lock::FileLock;

use crate::evidence::ledger::{IncidentKind, Ledger};
use crate::evidence::stored::{
    Segment, fabricate_line, first_seq, is_segment, names, parse_segment,
};
use crate::run::config::Config;
use crate::run::events::{Event, SideThread};

/// How long a process is stopped at most, on average half of it.
const STOP_MAX: Duration = Duration::from_millis(60);
/// How long to wait for the log's lock before leaving half a record.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// Make the random numbers of each thread differ.
const STOP_SALT: u64 = 0x5354_4f50;
const TEAR_SALT: u64 = 0x5445_4152;
const FORGET_SALT: u64 = 0x464f_5247;
const DISPLACE_SALT: u64 = 0x4449_5350;
const MOVE_SALT: u64 = 0x4d4f_5645;
/// How long the store is away at most, on average half of it.
const MOVE_MAX: Duration = Duration::from_millis(20);

/// The nemesis of a run. Each kind of fault has a thread.
pub(crate) struct Nemesis<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: &'a Path,
    /// Number of processes to choose from.
    pub(crate) slots: usize,
    pub(crate) side: SideThread,
    /// Held by who uses the store's path, takes the log's lock as a writer does, or displaces it:
    /// writers look whether their lock still has its name, the nemesis does not.
    pub(crate) hands: &'a Mutex<()>,
}

impl<'a> Nemesis<'a> {
    /// Starts the threads that the configuration asks for. They end with the run.
    pub(crate) fn spawn<'scope>(self, scope: &'scope Scope<'scope, '_>)
    where
        'a: 'scope,
    {
        let nemesis = Arc::new(self);
        let config = nemesis.config;
        let spawn = |per_second: f64, act: fn(&Nemesis<'a>)| {
            if per_second > 0.0 {
                let nemesis = Arc::clone(&nemesis);
                scope.spawn(move || act(&nemesis));
            }
        };
        spawn(config.kill_per_second, Nemesis::kill);
        spawn(config.stop_per_second, Nemesis::stop);
        spawn(config.tear_per_second, Nemesis::tear);
        spawn(config.forget_per_second, Nemesis::forget);
        spawn(config.displace_per_second, Nemesis::displace);
        spawn(config.move_per_second, Nemesis::relocate);
    }

    /// Has random processes killed.
    pub(crate) fn kill(&self) {
        self.at_random(self.config.kill_per_second, 0, |random| {
            let slot = random.random_range(0..self.slots);
            self.side.send(Event::Kill { slot });
            Ok(())
        });
    }

    /// Has random processes stopped, wherever they are, and go on some time later.
    fn stop(&self) {
        self.at_random(self.config.stop_per_second, STOP_SALT, |random| {
            let slot = random.random_range(0..self.slots);
            let time = STOP_MAX.mul_f64(random.random());
            self.side.send(Event::Stop { slot, time });
            self.side.is_over_within(time);
            self.side.send(Event::Continue);
            Ok(())
        });
    }

    fn tear(&self) {
        self.at_random(self.config.tear_per_second, TEAR_SALT, |random| {
            let _hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
            if leave_half_a_record(self.store, random)? {
                self.side.send(Event::Incident(IncidentKind::Torn));
            }
            Ok(())
        });
    }

    fn forget(&self) {
        self.at_random(self.config.forget_per_second, FORGET_SALT, |_| {
            match fs::remove_file(self.store.join("shm")) {
                Ok(()) => self.side.send(Event::Incident(IncidentKind::Forgotten)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
    }

    fn displace(&self) {
        self.at_random(self.config.displace_per_second, DISPLACE_SALT, |random| {
            let _hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
            if displace_a_file(self.store, random)? {
                self.side.send(Event::Incident(IncidentKind::Displaced));
            }
            Ok(())
        });
    }

    /// Has the path of the store lead elsewhere for a while.
    fn relocate(&self) {
        self.at_random(self.config.move_per_second, MOVE_SALT, |random| {
            let _hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
            let decoy = Decoy::put(self.store, cfg!(unix) && random.random())?;
            self.side
                .is_over_within(MOVE_MAX.mul_f64(random.random::<f64>()));
            self.side.send(Event::Incident(IncidentKind::Moved));
            let strangers = decoy.remove()?;
            if !strangers.is_empty() {
                let error = format!("processes made {strangers:?} where their store was before");
                self.side.send(Event::Watched(Box::new(Ledger {
                    fatal_errors: vec![error],
                    ..Ledger::default()
                })));
            }
            Ok(())
        });
    }

    /// Does something at random times, `per_second` on average, until the run is over or it fails.
    fn at_random(
        &self,
        per_second: f64,
        salt: u64,
        mut act: impl FnMut(&mut StdRng) -> io::Result<()>,
    ) {
        let mut random = StdRng::seed_from_u64(self.config.seed ^ salt);
        loop {
            let uniform: f64 = random.random();
            let pause_s = -(1.0 - uniform).ln() / per_second;
            let pause = Duration::try_from_secs_f64(pause_s).unwrap_or(Duration::MAX);
            if self.side.is_over_within(pause) {
                return;
            }
            if let Err(error) = act(&mut random) {
                self.side.send(Event::Failed(error.to_string()));
                return;
            }
        }
    }
}

/// An empty directory, or a link to one, in the place of a store that was moved away.
struct Decoy<'a> {
    store: &'a Path,
    is_link: bool,
}

impl<'a> Decoy<'a> {
    fn put(store: &'a Path, is_link: bool) -> io::Result<Self> {
        let decoy = Self { store, is_link };
        fs::create_dir(decoy.dir())?;
        fs::rename(store, decoy.moved())?;
        #[cfg(unix)]
        if is_link {
            std::os::unix::fs::symlink(decoy.dir(), store)?;
            return Ok(decoy);
        }
        fs::rename(decoy.dir(), store)?;
        Ok(decoy)
    }

    fn dir(&self) -> PathBuf {
        self.store.with_extension("decoy")
    }

    fn moved(&self) -> PathBuf {
        self.store.with_extension("moved")
    }

    /// Moves the store back. Returns the names of the files that were made in the directory.
    fn remove(self) -> io::Result<Vec<String>> {
        if self.is_link {
            fs::remove_file(self.store)?;
        } else {
            fs::rename(self.store, self.dir())?;
        }
        fs::rename(self.moved(), self.store)?;
        let strangers = names(&self.dir())?;
        fs::remove_dir_all(self.dir())?;
        Ok(strangers)
    }
}

/// Takes the lock as a writer does, writes a part of the next record, and releases the lock without
/// publishing anything: to all others, this looks like a writer that was killed while it wrote.
///
/// Returns `false` if the lock was not available in time, or there is half a record already.
///
/// # Errors
/// The lock or a file failed the harness.
pub(crate) fn leave_half_a_record(store: &Path, random: &mut StdRng) -> io::Result<bool> {
    as_a_writer(store, || tear(store, random))
}

/// Does something under the log's lock. Returns `false` if the lock was not available in time, or
/// is one on a file that no writer has taken yet: the writers of before may hold another, and be in
/// the middle of a record. A writer would shut them out first.
fn as_a_writer(store: &Path, act: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    let lock = FileLock::open(store.join("lock")).map_err(io::Error::other)?;
    let Ok(guard) = lock.lock_until(Instant::now() + LOCK_WAIT) else {
        return Ok(false);
    };
    let done = if guard.is_known() { act() } else { Ok(false) };
    guard.unlock().map_err(io::Error::other)?;
    done
}

/// Removes, moves away, or replaces by a copy one of the files by which processes agree, as
/// programs do that know nothing of them. The last segment is replaced under the lock: a copy that
/// was made before an append would lose that.
///
/// Returns `false` if there was no such file, or the lock was not available in time.
///
/// # Errors
/// A file failed the harness.
pub(crate) fn displace_a_file(store: &Path, random: &mut StdRng) -> io::Result<bool> {
    let files = ["lock", "lock", "compact.lock", "shm", "shm"];
    let Some(name) = files.get(random.random_range(0..=files.len())) else {
        return as_a_writer(store, || {
            let last = names(store)?.into_iter().rfind(|name| is_segment(name));
            let Some(last) = last else {
                return Ok(false);
            };
            replace_by_copy(&store.join(last)).map(|()| true)
        });
    };
    let path = store.join(name);
    let done = match random.random_range(0..3) {
        0 => fs::remove_file(&path),
        1 => fs::rename(&path, store.with_extension("displaced")),
        _ => replace_by_copy(&path),
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}

fn replace_by_copy(path: &Path) -> io::Result<()> {
    let copy = path.with_extension("displaced");
    fs::copy(path, &copy)?;
    File::open(&copy)?.sync_all()?;
    fs::rename(&copy, path)
}

/// Leaves half a record. The caller holds the lock.
fn tear(store: &Path, random: &mut StdRng) -> io::Result<bool> {
    let Some(name) = names(store)?.into_iter().rfind(|name| is_segment(name)) else {
        return Ok(false);
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(store.join(&name))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = match bytes.iter().rposition(|byte| *byte != b'\n') {
        None => 0,
        Some(last) if bytes.get(last + 1) == Some(&b'\n') => last + 2,
        Some(_) => return Ok(false),
    };
    bytes.truncate(end);
    let first = first_seq(&name).unwrap_or(1);
    let (records, bad_lines) = parse_segment(&Segment { name, bytes });
    if !bad_lines.is_empty() {
        return Ok(false);
    }
    let seq = records.last().map_or(first, |record| record.seq + 1);
    let title = "x".repeat(random.random_range(0..100));
    let line = fabricate_line(
        seq,
        &format!(
            r#"{{"ts":1,"op":"add","id":"bd-half","data":{{"id":"bd-half","title":"{title}"}}}}"#
        ),
    );
    // Without its last byte: with it, the newlines behind it would make it a record.
    let part = random.random_range(1..line.len());
    file.seek(SeekFrom::Start(end as u64))?;
    file.write_all(line.as_bytes().get(..part).unwrap_or_default())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};

    use super::*;

    #[test]
    fn half_a_record_is_cut_off_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::default().segment_bytes_max(600);
        let add = |log: &Log<IssueEvent>, number: u64| {
            let issue = Issue::new_at(&format!("bd-{number}"), "A fence", Timestamp::from_ms(1));
            log.append(&IssueEvent::add(issue, Timestamp::from_ms(1)))
                .unwrap()
        };
        for round in 1..=60 {
            let mut random = StdRng::seed_from_u64(round);
            if round % 3 == 0 {
                fs::remove_file(dir.path().join("shm")).unwrap();
            }
            let log = Log::<IssueEvent>::open(dir.path(), options()).unwrap();
            assert_eq!(add(&log, 2 * round).seq, 2 * round - 1);
            assert!(leave_half_a_record(dir.path(), &mut random).unwrap());
            // There are never two: the next holder of the lock removes the first.
            assert!(!leave_half_a_record(dir.path(), &mut random).unwrap());
            assert_eq!(add(&log, 2 * round + 1).seq, 2 * round);
        }
        let cut = fs::read_dir(dir.path().join("quarantine")).unwrap();
        assert_eq!(cut.count(), 60);
    }

    #[test]
    fn a_lock_that_no_writer_has_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::<IssueEvent>::open(dir.path(), Options::default()).unwrap();
        let add = |number: u64| {
            let issue = Issue::new_at(&format!("bd-{number}"), "A gate", Timestamp::from_ms(1));
            log.append(&IssueEvent::add(issue, Timestamp::from_ms(1)))
                .unwrap()
        };
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(add(1).seq, 1);
        fs::remove_file(dir.path().join("lock")).unwrap();
        // The writer may still hold the lock on the file that was removed.
        for _ in 0..2 {
            assert!(!leave_half_a_record(dir.path(), &mut random).unwrap());
        }
        assert_eq!(add(2).seq, 2);
        assert!(leave_half_a_record(dir.path(), &mut random).unwrap());
    }

    #[test]
    fn who_follows_the_path_of_a_store_that_was_moved_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("ours"), "").unwrap();
        for is_link in [false, cfg!(unix)] {
            let decoy = Decoy::put(&store, is_link).unwrap();
            assert_eq!(names(&store).unwrap(), [""; 0]);
            fs::write(store.join("theirs"), "").unwrap();
            assert_eq!(decoy.remove().unwrap(), ["theirs"]);
            assert_eq!(names(&store).unwrap(), ["ours"]);
        }
        assert_eq!(names(dir.path()).unwrap(), ["store"]);
    }
}
