//! The other end of a resident: starts the process, gives it orders, hears its answers, and looks at what it uses.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::soak::Trouble;
use crate::soak::worker::{Answer, Order, Spec, Worked};

/// A resident that does not answer for so long hangs: longer than a lock may be waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A resident process, which is killed when this is dropped.
pub(super) struct WorkerHandle {
    name: String,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Answer>,
}

impl WorkerHandle {
    /// Starts a resident, and waits until it has the store open.
    pub(super) fn start(exe: &Path, spec: &Spec) -> Result<WorkerHandle, Trouble> {
        let mut worker_handle = WorkerHandle::spawn(exe, spec)?;
        match worker_handle.hear()? {
            Answer::Ready => Ok(worker_handle),
            other => Err(worker_handle.nonsense(&other)),
        }
    }

    /// Starts a resident, and does not wait for it.
    pub(super) fn spawn(exe: &Path, spec: &Spec) -> Result<WorkerHandle, Trouble> {
        let environment =
            |error: io::Error| Trouble::Environment(format!("cannot start a resident: {error}"));
        let mut child = Command::new(exe)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(environment)?;
        let (Some(mut orders), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Trouble::Environment("a resident has no pipes".to_owned()));
        };
        let line = serde_json::to_string(spec).unwrap_or_default() + "\n";
        orders.write_all(line.as_bytes()).map_err(environment)?;
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            // A line without an end is from a process that was killed while it wrote it.
            while matches!(lines.read_line(&mut line), Ok(1..)) && line.ends_with('\n') {
                let Ok(answer) = serde_json::from_str(&line) else {
                    return;
                };
                if sender.send(answer).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(WorkerHandle {
            name: spec.name.clone(),
            child,
            orders,
            answers,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it write without a pause; it goes on meanwhile. To be followed by [`WorkerHandle::worked`].
    pub(super) fn begin_work(&mut self, time: Duration) -> Result<(), Trouble> {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.order(Order::Work(ms))
    }

    /// What came of [`WorkerHandle::begin_work`].
    pub(super) fn worked(&mut self) -> Result<Worked, Trouble> {
        match self.hear()? {
            Answer::Worked(worked) => Ok(worked),
            other => Err(self.nonsense(&other)),
        }
    }

    /// Has it write without a pause for a time, and waits for the end of that.
    pub(super) fn work(&mut self, time: Duration) -> Result<Worked, Trouble> {
        self.begin_work(time)?;
        self.worked()
    }

    /// Has it compare the store with what must be in it; answers how many live issues are its own.
    pub(super) fn check(&mut self) -> Result<usize, Trouble> {
        self.order(Order::Check)?;
        match self.hear()? {
            Answer::Checked { wrong, live } if wrong.is_empty() => Ok(live),
            Answer::Checked { wrong, .. } => {
                let (name, wrong) = (&self.name, wrong.join("\n  "));
                Err(Trouble::Violation(format!("{name}: {wrong}")))
            }
            other => Err(self.nonsense(&other)),
        }
    }

    /// Has it close the log and end.
    pub(super) fn quit(mut self) -> Result<(), Trouble> {
        self.order(Order::Quit)?;
        match self.answers.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => return Err(self.hang()),
            Ok(other) => return Err(self.nonsense(&other)),
        }
        let ended = self.child.wait();
        match ended {
            Ok(status) if status.success() => Ok(()),
            ended => Err(Trouble::Violation(format!(
                "{} ended with {ended:?}",
                self.name
            ))),
        }
    }

    /// Kills it, and answers all that it had said.
    pub(super) fn kill(mut self) -> Vec<Answer> {
        self.end();
        self.answers.iter().collect()
    }

    fn end(&mut self) {
        // It fails only for a process that has ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn order(&mut self, order: Order) -> Result<(), Trouble> {
        let line = serde_json::to_string(&order).unwrap_or_default() + "\n";
        let sent = self.orders.write_all(line.as_bytes());
        sent.map_err(|_| self.died())
    }

    fn hear(&mut self) -> Result<Answer, Trouble> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(self.hang()),
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
        }
    }

    fn hang(&self) -> Trouble {
        let (name, seconds) = (&self.name, PATIENCE.as_secs());
        Trouble::Hang(format!(
            "{name} (pid {}) has not answered for {seconds} s",
            self.pid()
        ))
    }

    fn died(&mut self) -> Trouble {
        let (name, status) = (self.name.clone(), self.child.wait());
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Trouble::Violation(format!("{name} ended by itself: {status}"))
    }

    fn nonsense(&self, answer: &Answer) -> Trouble {
        Trouble::Violation(format!("{} said {answer:?}", self.name))
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a process uses, as far as the system tells (only Linux does).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Open files.
    pub(super) files: Option<f64>,
    /// Mapped ranges of memory.
    pub(super) maps: Option<f64>,
    /// Worker memory.
    pub(super) memory_kib: Option<f64>,
}

impl Usage {
    /// That of a process; `None` for this one.
    pub(super) fn of(pid: Option<u32>) -> Usage {
        let proc = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let files = fs::read_dir(format!("{proc}/fd")).ok();
        let maps = fs::read_to_string(format!("{proc}/maps")).ok();
        let status = fs::read_to_string(format!("{proc}/status")).ok();
        Usage {
            files: files.map(|files| count(files.count())),
            maps: maps.map(|maps| count(maps.lines().count())),
            memory_kib: status.as_deref().and_then(resident_kib),
        }
    }
}

fn resident_kib(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        assert_eq!(
            resident_kib("Name:\tx\nVmRSS:\t    3072 kB\n"),
            Some(3072.0)
        );
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let before = Usage::of(None);
        let file = fs::File::open("/proc/self/status").unwrap();
        let after = Usage::of(None);
        assert!(before.memory_kib.unwrap() > 0.0 && before.maps.unwrap() > 0.0);
        assert!(after.files.unwrap() > 2.0);
        drop(file);
    }
}
