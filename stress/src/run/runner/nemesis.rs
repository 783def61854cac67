//! What else befalls a run beside kills: processes that are stopped for a while, half records that a
//! killed writer could have left, and lost hints.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use strand_lock::FileLock;

use crate::evidence::ledger::IncidentKind;
use crate::evidence::stored::{
    Segment, fabricate_line, first_seq, is_segment, names, parse_segment,
};
use crate::run::runner::{Parent, lock};

/// How long a process is stopped at most, on average half of it.
const STOP_MAX: Duration = Duration::from_millis(60);
/// How long the parent waits for the log's lock before it leaves half a record.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// Tell the sequences of random numbers apart that one seed gives.
const STOP_SALT: u64 = 0x5354_4f50;
const TEAR_SALT: u64 = 0x5445_4152;
const FORGET_SALT: u64 = 0x464f_5247;

impl Parent<'_> {
    /// Starts what the configuration asks for.
    pub(super) fn spawn_nemesis<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let config = self.config;
        if config.stop_per_second > 0.0 {
            scope.spawn(|| self.stop_at_random());
        }
        if config.tear_per_second > 0.0 {
            scope.spawn(|| self.tear_at_random());
        }
        if config.forget_per_second > 0.0 {
            scope.spawn(|| self.forget_at_random());
        }
    }

    /// Stops a process at a time, wherever it is, and lets it go on.
    fn stop_at_random(&self) {
        self.at_random(self.config.stop_per_second, STOP_SALT, |random| {
            let stopped = self.with_any_child(random, |live| {
                signal(live.pid, Signal::Stop).map(|()| live.pid)
            });
            let Some((slot, pid)) = stopped else {
                return Ok(());
            };
            let pid = pid?;
            self.stopped.fetch_add(1, Ordering::SeqCst);
            let time = STOP_MAX.mul_f64(random.random());
            let detail = format!("for {} ms", time.as_millis());
            self.note(IncidentKind::Stopped, slot.name(), detail);
            self.pause(time);
            let live = lock(&slot.live);
            // Its successor was never stopped.
            if live.child.is_some() && live.pid == pid {
                signal(pid, Signal::Continue)?;
            }
            Ok(())
        });
    }

    fn tear_at_random(&self) {
        self.at_random(self.config.tear_per_second, TEAR_SALT, |random| {
            if leave_half_a_record(&self.places.store, random)? {
                self.torn.fetch_add(1, Ordering::SeqCst);
                self.note(IncidentKind::Torn, String::new(), String::new());
            }
            Ok(())
        });
    }

    fn forget_at_random(&self) {
        self.at_random(self.config.forget_per_second, FORGET_SALT, |_| {
            match fs::remove_file(self.places.store.join("shm")) {
                Ok(()) => {
                    self.forgotten.fetch_add(1, Ordering::SeqCst);
                    self.note(IncidentKind::Forgotten, String::new(), String::new());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
    }
}

/// What a process can be told.
#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

/// Stops a child or lets it go on. The caller has seen that it was not reaped yet, so that its number is nobody else's.
#[cfg(unix)]
pub(crate) fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    use rustix::process::{Pid, Signal as Sent, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let sent = match signal {
        Signal::Stop => Sent::STOP,
        Signal::Continue => Sent::CONT,
    };
    Ok(kill_process(pid, sent)?)
}

/// Stops a child or lets it go on, where the system can.
#[cfg(not(unix))]
pub(crate) fn signal(_: u32, _: Signal) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes the lock as a writer does, writes a part of the next record behind the last one, and gives the lock back
/// without having published anything: for everybody else, a writer was killed in the middle of its write.
///
/// `false` when the lock could not be had in time, or half a record stands there already.
///
/// # Errors
/// The lock or a file failed the harness.
pub(crate) fn leave_half_a_record(store: &Path, random: &mut StdRng) -> io::Result<bool> {
    let lock = FileLock::open(store.join("lock")).map_err(io::Error::other)?;
    let Ok(guard) = lock.lock_until(Instant::now() + LOCK_WAIT) else {
        return Ok(false);
    };
    let torn = tear(store, random);
    guard.unlock().map_err(io::Error::other)?;
    torn
}

/// The caller holds the lock.
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
    use rand::SeedableRng as _;
    use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};

    use super::*;

    #[test]
    fn half_a_record_is_cut_off_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::default().segment_bytes_max(600);
        let add = |log: &Log, number: u64| {
            let issue = Issue::new(&format!("bd-{number}"), "A fence", Timestamp::from_ms(1));
            log.append(&IssueEvent::add(issue, Timestamp::from_ms(1)))
                .unwrap()
        };
        for round in 1..=60 {
            let mut random = StdRng::seed_from_u64(round);
            if round % 3 == 0 {
                fs::remove_file(dir.path().join("shm")).unwrap();
            }
            let log: Log = Log::open(dir.path(), options()).unwrap();
            assert_eq!(add(&log, 2 * round).seq, 2 * round - 1);
            assert!(leave_half_a_record(dir.path(), &mut random).unwrap());
            // Nobody leaves two: whoever takes the lock next deals with the first.
            assert!(!leave_half_a_record(dir.path(), &mut random).unwrap());
            assert_eq!(add(&log, 2 * round + 1).seq, 2 * round);
        }
        let cut = fs::read_dir(dir.path().join("quarantine")).unwrap();
        assert_eq!(cut.count(), 60);
    }
}
