//! The bytes of a lock file, changed under real locks. They hold a note of the holder, and a word
//! that waiters sleep on. Whatever they say, the lock excludes, and a waiter that asks gets the
//! present holder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use strand_lock::{FileLock, LockError, SharedPage};

use crate::panics::catch_panic;
use crate::tiers::pool;
use crate::tiers::tally::{Budget, Finding, Tally, replay_line};

/// In front of a case's number.
pub(super) const PREFIX: &str = "lock-";
/// How each byte is changed: all bits, both extremes; and the file ends there.
const WAYS: usize = 11;
const CASES: usize = WAYS * SharedPage::BYTES;
/// A free lock is taken at once, and a held one is waited for no longer than this.
const WAIT: Duration = Duration::from_micros(10);
const AT_ONCE: Duration = Duration::from_secs(5);

/// Tries all changes of one byte and all lengths; in a quick run, one in `quick_one_in` of them.
pub(super) fn run(budget: &Budget, random: &mut StdRng, quick_one_in: u32, tally: Tally) -> Tally {
    let one_in = if budget.quick { quick_one_in } else { 1 };
    let cases = (0..CASES).filter(|_| random.random_ratio(1, one_in));
    let sum = Mutex::new(tally);
    let work = |lock: &mut io::Result<Damaged>, case| {
        let tried = lock.as_mut().map(|lock| lock.try_case(case));
        budget.count(1);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        match tried {
            Ok(tried) => add(&mut sum, case, tried),
            Err(error) => sum.environment = Some(cannot(error)),
        }
        if sum.is_full() || sum.environment.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, cases, Damaged::new, work);
    let mut tally = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let good = tally.cases - tally.violations.len() as u64;
    tally.add("real lock files: excludes all the same", good);
    tally
}

/// Replays one case.
pub(super) fn replay(case: usize, mut tally: Tally) -> Tally {
    match Damaged::new() {
        Ok(mut lock) => {
            let tried = lock.try_case(case).map(|_| true);
            add(&mut tally, case, tried);
            tally
        }
        Err(error) => tally.stopped(cannot(&error)),
    }
}

fn cannot(error: &io::Error) -> String {
    format!("cannot make a lock file: {error}")
}

fn add(tally: &mut Tally, case: usize, tried: Result<bool, String>) {
    tally.cases += u64::from(tried != Ok(false));
    if let Err(what) = tried {
        tally.violations.push(Finding {
            what: format!("a lock file, {}: {what}", describe(case)),
            replay: replay_line(tally.tier, None, format_args!("{PREFIX}{case}")),
            kept: None,
        });
    }
}

fn describe(case: usize) -> String {
    let (at, way) = (case / WAYS, case % WAYS);
    match way {
        0..8 => format!("bit {way} of byte {at} flipped"),
        8 => format!("byte {at} is 0"),
        9 => format!("byte {at} is 0xff"),
        _ => format!("{at} bytes long"),
    }
}

/// A lock file that has been held, and what is written into it for each case.
struct Damaged {
    /// Removes the file in the end.
    _dir: tempfile::TempDir,
    path: PathBuf,
    file: File,
    /// As a holder that is killed leaves it.
    bytes: Vec<u8>,
}

impl Damaged {
    fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let lock = FileLock::open(&path).map_err(io::Error::other)?;
        let guard = lock.lock().map_err(io::Error::other)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        guard.unlock().map_err(io::Error::other)?;
        Ok(Self {
            _dir: dir,
            path,
            file,
            bytes,
        })
    }

    /// False where the case changes nothing.
    fn try_case(&mut self, case: usize) -> Result<bool, String> {
        let (at, way) = (case / WAYS, case % WAYS);
        let mut bytes = self.bytes.clone();
        let Some(byte) = bytes.get_mut(at) else {
            return Ok(false);
        };
        match way {
            0..8 => *byte ^= 1 << way,
            8 => *byte = 0,
            9 => *byte = 0xFF,
            _ => bytes.truncate(at),
        }
        if bytes == self.bytes {
            return Ok(false);
        }
        self.write(&bytes).map_err(|error| error.to_string())?;
        let path = self.path.as_path();
        catch_panic(|| excludes(path)).flatten().map(|()| true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)?;
        self.file.set_len(bytes.len() as u64)
    }
}

/// Whether a lock is free at first, excludes while it is held, names its holder, and is free again.
fn excludes(path: &Path) -> Result<(), String> {
    let text = |error: LockError| error.to_string();
    let open = || FileLock::open(path).map_err(text);
    let (one, other) = (open()?, open()?);
    let held = one.lock_until(Instant::now() + AT_ONCE).map_err(text)?;
    match other.try_lock() {
        Err(LockError::Contended { .. }) => {}
        Err(error) => return Err(format!("held by another: {error}")),
        Ok(_) => return Err("two hold it".to_owned()),
    }
    match other.lock_until(Instant::now() + WAIT) {
        Err(LockError::Timeout { holder, .. }) => {
            let pid = holder.map(|holder| holder.pid);
            if pid != Some(std::process::id()) {
                return Err(format!("the holder is said to be {pid:?}"));
            }
        }
        Err(error) => return Err(format!("held by another: {error}")),
        Ok(_) => return Err("two hold it".to_owned()),
    }
    held.unlock().map_err(text)?;
    let held = other.lock_until(Instant::now() + AT_ONCE).map_err(text)?;
    held.unlock().map_err(text)
}
