//! The bytes of a lock file, changed under real locks. They hold a note of who has the lock, and a word that waiters sleep on:
//! whatever they say, the lock excludes, and who asks is told the present holder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strand_lock::{FileLock, LockError, SharedPage};

use crate::sim::memory::splitmix;
use crate::tiers::damage::{QUICK_ONE_IN, TIER, begun, message, unable};
use crate::tiers::{Budget, FINDINGS_MAX, Finding, Tally};

/// In front of a case's number.
pub(super) const PREFIX: &str = "lock-";
/// How each byte is changed: all bits, both extremes; and the file ends there.
const WAYS: usize = 11;
const CASES: usize = WAYS * SharedPage::BYTES;
/// A lock that nobody holds is taken at once, and one that is held is waited for no longer than this.
const WAIT: Duration = Duration::from_micros(10);
const AT_ONCE: Duration = Duration::from_secs(5);

/// Tries all changes of one byte and all lengths.
pub(super) fn run(budget: &Budget) -> Tally {
    let drawn = |case: &usize| {
        !budget.quick || splitmix(budget.seed ^ splitmix(*case as u64)).is_multiple_of(QUICK_ONE_IN)
    };
    let cases: Vec<usize> = (0..CASES).filter(drawn).collect();
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(begun());
    let work = || {
        let mut lock = match Damaged::new() {
            Ok(lock) => lock,
            Err(error) => {
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.environment = Some(format!("cannot make a lock file: {error}"));
                return;
            }
        };
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tried = lock.try_case(*case);
            budget.count(1);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.cases += u64::from(tried != Ok(false));
            if let Err(what) = tried {
                sum.violations.push(finding(*case, &what));
            }
            if sum.violations.len() >= FINDINGS_MAX {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..budget.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut tally = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let good = tally.cases - tally.violations.len() as u64;
    tally
        .counts
        .push(("real lock files: excludes all the same".to_owned(), good));
    tally
}

/// Does one case again.
pub(super) fn replay(case: usize) -> Tally {
    let mut lock = match Damaged::new() {
        Ok(lock) => lock,
        Err(error) => return unable(format!("cannot make a lock file: {error}")),
    };
    let mut tally = begun();
    tally.cases = 1;
    if let Err(what) = lock.try_case(case) {
        tally.violations.push(finding(case, &what));
    }
    tally
}

fn finding(case: usize, what: &str) -> Finding {
    Finding {
        what: format!("a lock file, {}: {what}", describe(case)),
        replay: format!("cargo xtask torture --tier {TIER} --replay {PREFIX}{case}"),
        kept: None,
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
    /// As a holder leaves it who is killed.
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
        let tried = catch_unwind(AssertUnwindSafe(|| excludes(path)));
        match tried {
            Ok(tried) => tried.map(|()| true),
            Err(panic) => Err(format!("panic: {}", message(panic.as_ref()))),
        }
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
