//! The soak's handle of a worker: starts the process, sends orders, reads its answers, and measures
//! the resources that it uses.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

use crate::run::child::{Child, Ended, Heard};
use crate::soak::trouble::Trouble;
use crate::soak::worker::{Answer, Order, Spec, Worked};

/// A worker that does not answer within this time hangs. Waiting for a lock takes less.
const PATIENCE: Duration = Duration::from_secs(90);

/// A worker process, which is killed when this is dropped.
pub(super) struct WorkerHandle {
    name: String,
    child: Child,
    said: Receiver<Said>,
}

enum Said {
    Answer(Answer),
    /// Not an answer.
    Nonsense(String),
    Ended(Ended),
}

impl WorkerHandle {
    /// Starts a worker, and waits until it has the store open.
    pub(super) fn start(exe: &Path, spec: &Spec) -> Result<WorkerHandle, Trouble> {
        let mut worker = WorkerHandle::spawn(exe, spec)?;
        match worker.hear()? {
            Answer::Ready => Ok(worker),
            other => Err(worker.nonsense(&format!("{other:?}"))),
        }
    }

    /// Starts a worker, and does not wait for it.
    pub(super) fn spawn(exe: &Path, spec: &Spec) -> Result<WorkerHandle, Trouble> {
        let (sender, said) = unbounded();
        let mut command = Command::new(exe);
        command.arg("worker");
        let child = Child::spawn(command, spec, move |heard| {
            let said = match heard {
                Heard::Ended(ended) => Said::Ended(ended),
                // A line without an end is from a process that was killed while it wrote it.
                Heard::Line { text } if !text.ends_with(b"\n") => return,
                Heard::Line { text } => match serde_json::from_slice(&text) {
                    Ok(answer) => Said::Answer(answer),
                    Err(_) => Said::Nonsense(String::from_utf8_lossy(&text).into_owned()),
                },
            };
            drop(sender.send(said));
        });
        Ok(WorkerHandle {
            name: spec.name.clone(),
            child: child.map_err(Trouble::Environment)?,
            said,
        })
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Has it write without a pause, and does not wait. [`WorkerHandle::worked`] has to follow.
    pub(super) fn begin_work(&mut self, time: Duration) -> Result<(), Trouble> {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.order(Order::Work(ms))
    }

    /// The answer to [`WorkerHandle::begin_work`].
    pub(super) fn worked(&mut self) -> Result<Worked, Trouble> {
        match self.hear()? {
            Answer::Worked(worked) => Ok(worked),
            other => Err(self.nonsense(&format!("{other:?}"))),
        }
    }

    /// Has it write without a pause for a time, and waits for the end of that.
    pub(super) fn work(&mut self, time: Duration) -> Result<Worked, Trouble> {
        self.begin_work(time)?;
        self.worked()
    }

    /// Has it check the store; returns the number of its live issues.
    pub(super) fn check(&mut self) -> Result<usize, Trouble> {
        self.order(Order::Check)?;
        match self.hear()? {
            Answer::Checked { wrong, live } if wrong.is_empty() => Ok(live),
            Answer::Checked { wrong, .. } => {
                let (name, wrong) = (&self.name, wrong.join("\n  "));
                Err(Trouble::Violation(format!("{name}: {wrong}")))
            }
            other => Err(self.nonsense(&format!("{other:?}"))),
        }
    }

    /// Has it close the log and end.
    pub(super) fn quit(mut self) -> Result<(), Trouble> {
        self.order(Order::Quit)?;
        match self.said.recv_timeout(PATIENCE) {
            Ok(Said::Ended(Ended {
                status: Ok(status), ..
            })) if status.success() => Ok(()),
            Ok(Said::Ended(ended)) => Err(self.died(&ended)),
            Ok(Said::Answer(other)) => Err(self.nonsense(&format!("{other:?}"))),
            Ok(Said::Nonsense(text)) => Err(self.nonsense(&text)),
            Err(_) => Err(self.hang()),
        }
    }

    /// Kills it, and returns all its answers.
    pub(super) fn kill(mut self) -> Result<Vec<Answer>, Trouble> {
        self.child.kill();
        let mut answers = Vec::new();
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(Said::Answer(answer)) => answers.push(answer),
                Ok(Said::Nonsense(_)) => {}
                Ok(Said::Ended(_)) | Err(RecvTimeoutError::Disconnected) => return Ok(answers),
                Err(RecvTimeoutError::Timeout) => {
                    let (name, seconds) = (&self.name, PATIENCE.as_secs());
                    return Err(Trouble::Environment(format!(
                        "{name} (pid {}) was killed and has not ended for {seconds} s",
                        self.child.pid()
                    )));
                }
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Trouble> {
        let told = self.child.say(&order);
        told.map_err(|error| Trouble::Environment(format!("{}: {error}", self.name)))
    }

    fn hear(&mut self) -> Result<Answer, Trouble> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(Said::Answer(answer)) => Ok(answer),
            Ok(Said::Nonsense(text)) => Err(self.nonsense(&text)),
            Ok(Said::Ended(ended)) => Err(self.died(&ended)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(self.hang()),
        }
    }

    fn hang(&self) -> Trouble {
        let (name, seconds) = (&self.name, PATIENCE.as_secs());
        Trouble::Hang(format!(
            "{name} (pid {}) has not answered for {seconds} s",
            self.child.pid()
        ))
    }

    fn died(&self, ended: &Ended) -> Trouble {
        let status = match &ended.status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Trouble::Violation(format!("{} ended: {status}", self.name))
    }

    fn nonsense(&self, answer: &str) -> Trouble {
        Trouble::Violation(format!("{} answered {answer}", self.name))
    }
}

/// The resources that a process uses, as far as the system tells (only Linux does).
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
    /// The usage of a process; `None` is this one.
    pub(super) fn of(pid: Option<u32>) -> Usage {
        let proc = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let files = fs::read_dir(format!("{proc}/fd")).ok();
        let maps = fs::read_to_string(format!("{proc}/maps")).ok();
        let status = fs::read_to_string(format!("{proc}/status")).ok();
        Usage {
            files: files.map(|files| count(files.count())),
            maps: maps.map(|maps| count(maps.lines().count())),
            memory_kib: status.as_deref().and_then(rss_kib),
        }
    }
}

fn rss_kib(status: &str) -> Option<f64> {
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
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t    3072 kB\n"), Some(3072.0));
        assert_eq!(rss_kib("Name:\tx\n"), None);
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
