//! Where an agent of a store works: one process group at a time, which others may kill or stop.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use strand_lock::monotonic_ns;

use crate::held::{Beginning, release_group};
use crate::run::errors::describe;
use crate::stores::faults::Injection;

/// The most that is kept of an output that is no list.
pub(super) const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// How many lines are shown of the end of an output.
const LAST_LINES: usize = 10;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// The seat of one agent.
#[derive(Debug)]
pub(super) struct Seat {
    living: Mutex<Living>,
    /// Nothing is started any more.
    over: Arc<AtomicBool>,
    injection: Option<Injection>,
    /// Processes that were started with a fault.
    started: AtomicU32,
}

#[derive(Debug, Default)]
struct Living {
    group: Option<Pid>,
    /// When the present process was killed, or else the last one.
    killed_ns: Option<u64>,
}

impl Living {
    fn kill(&mut self) -> bool {
        let Some(group) = self.group else {
            return false;
        };
        self.killed_ns.get_or_insert_with(monotonic_ns);
        kill_process_group(group, Signal::KILL).is_ok()
    }
}

/// The end of a process.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Whether the harness had it killed.
    pub(super) killed: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
}

impl Seat {
    pub(super) fn new(over: Arc<AtomicBool>, injection: Option<Injection>) -> Seat {
        Seat {
            living: Mutex::default(),
            over,
            injection,
            started: AtomicU32::new(0),
        }
    }

    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts nothing any more.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The words that start a program, with the fault that hits this one.
    pub(super) fn with_fault(&self, argv: &[String]) -> Vec<String> {
        match &self.injection {
            Some(injection) => {
                let number = self.started.fetch_add(1, Ordering::Relaxed);
                injection.wrap(number, argv)
            }
            None => argv.to_vec(),
        }
    }

    /// Starts a process as the head of a group of its own. Returns what takes its standard error,
    /// too.
    pub(super) fn start(
        &self,
        command: &mut Command,
        stdout: Stdio,
    ) -> Result<(Child, Printed), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let stderr = Printed::new()?;
        command
            .stdout(stdout)
            .stderr(stderr.end()?)
            .process_group(0);
        let mut living = self.living();
        if self.is_over() {
            return Err("the run is over".to_owned());
        }
        let beginning = Beginning::new();
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {program}: {}", describe(&error)))?;
        let group = child.id().cast_signed();
        beginning.hold_group(group);
        *living = Living {
            group: Pid::from_raw(group),
            killed_ns: None,
        };
        Ok((child, stderr))
    }

    /// Waits for the end of a process, and reaps it. Until then its number names no other process,
    /// so a signal can't meet a wrong one.
    pub(super) fn reap(&self, child: &mut Child) -> Result<(ExitStatus, bool), String> {
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), options).is_err_and(|error| error == Errno::INTR) {}
        }
        let mut living = self.living();
        living.group = None;
        release_group(child.id().cast_signed());
        let status = child.wait().map_err(|error| error.to_string())?;
        let by_fault = self.injection.as_ref().is_some_and(Injection::kills);
        let by_signal = status.signal() == Some(Signal::KILL.as_raw());
        if by_fault && by_signal {
            living.killed_ns.get_or_insert_with(monotonic_ns);
        }
        Ok((status, living.killed_ns.is_some() && by_signal))
    }

    /// Runs a process to its end.
    pub(super) fn run(&self, command: &mut Command) -> Result<Ended, String> {
        let begin_ns = monotonic_ns();
        let stdout = Printed::new()?;
        let (mut child, stderr) = self.start(command, stdout.end()?)?;
        let (status, killed) = self.reap(&mut child)?;
        let end_ns = monotonic_ns();
        Ok(Ended {
            status,
            killed,
            stdout: stdout.text(u64::MAX)?,
            stderr: stderr.text(OUTPUT_BYTES_MAX as u64)?,
            begin_ns,
            end_ns,
        })
    }

    /// Whether what was started here last was killed.
    pub(super) fn was_killed(&self) -> bool {
        self.living().killed_ns.is_some()
    }

    /// Whether a process that is not reaped yet has ended.
    pub(super) fn has_ended(child: &Child) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let pid = Pid::from_raw(child.id().cast_signed());
        pid.is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok_and(|ended| ended.is_some()))
    }

    /// Kills what works here; whether there was something.
    pub(super) fn kill(&self) -> bool {
        self.living().kill()
    }

    /// As [`Seat::kill`]; `None` while something is being started here.
    pub(super) fn try_kill(&self) -> Option<bool> {
        match self.living.try_lock() {
            Ok(mut living) => Some(living.kill()),
            Err(TryLockError::Poisoned(living)) => Some(living.into_inner().kill()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Stops what works here, or lets it go on; whether there was something.
    pub(super) fn signal(&self, stop: bool) -> bool {
        let signal = if stop { Signal::STOP } else { Signal::CONT };
        let living = self.living();
        living
            .group
            .is_some_and(|group| kill_process_group(group, signal).is_ok())
    }
}

/// Kills what works at the seat for too long.
pub(super) fn with_limit<T>(seat: &Seat, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = bounded::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                seat.kill();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Takes what a process prints, until it is read. In a file: somebody would have to wait at the
/// other end of a pipe, and be woken twice more.
#[derive(Debug)]
pub(super) struct Printed(File);

impl Printed {
    pub(super) fn new() -> Result<Printed, String> {
        nameless().map(Printed).map_err(|error| unreadable(&error))
    }

    /// The end for the process.
    pub(super) fn end(&self) -> Result<Stdio, String> {
        let file = self.0.try_clone().map_err(|error| unreadable(&error))?;
        Ok(file.into())
    }

    /// The last lines of what was printed so far.
    pub(super) fn last_lines(self) -> Result<String, String> {
        let bytes = self.0.metadata().map_err(|error| unreadable(&error))?.len();
        let mut end = Vec::new();
        let skipped = bytes.saturating_sub(OUTPUT_BYTES_MAX as u64);
        (&self.0)
            .seek(SeekFrom::Start(skipped))
            .and_then(|_| self.0.take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut end))
            .map_err(|error| unreadable(&error))?;
        let end = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = end.lines().collect();
        let first = lines.len().saturating_sub(LAST_LINES);
        Ok(lines.get(first..).unwrap_or_default().join("\n") + "\n")
    }

    /// Up to so many bytes of what was printed so far, from its beginning.
    pub(super) fn text(mut self, bytes_max: u64) -> Result<String, String> {
        let mut bytes = Vec::new();
        self.0
            .rewind()
            .and_then(|()| self.0.take(bytes_max).read_to_end(&mut bytes))
            .map_err(|error| unreadable(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A file without a name; in memory where there is such a thing, so that syncs of the store do not
/// have to wait for it.
pub(super) fn nameless() -> io::Result<File> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::memfd_create("strand-stress", rustix::fs::MemfdFlags::CLOEXEC)?.into());
    #[cfg(not(target_os = "linux"))]
    tempfile::tempfile()
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot take what a process prints: {error}")
}

/// The beginning of a text.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(OUTPUT_BYTES_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
