//! The processes that are measured: this program again, with its work as JSON in an argument.
//!
//! Processes that append or claim form a team: they begin together, and wait for each other before
//! they report, so that no report or exit disturbs a process that still writes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::barrier::Barrier;
use crate::error::Result;
use crate::question::Question;
use crate::systems::System;

/// The first argument of such a process; the second is its [`Work`].
pub(crate) const COMMAND: &str = "work";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Work {
    Append(Member, Appending),
    /// Append through so many connections.
    AppendByConnections(Member, Appending, usize),
    /// Append by so many threads, which are a team.
    AppendByThreads(Member, Appending, usize),
    ClaimInStrand(Member),
    ClaimInSqlite(Member),
    /// Read the last records of a store again and again, until killed.
    Read(PathBuf),
    /// Load the issues of a store, and print the memory used.
    Load(PathBuf),
    /// Append, and print the memory used.
    AppendSome {
        store: PathBuf,
        events_file: PathBuf,
    },
    /// Answer a question about one issue, and print the memory used.
    Answer {
        question: Question,
        dir: PathBuf,
        id: String,
        version: u64,
    },
    /// Change many issues of a store, and print the memory used.
    Change(PathBuf),
    /// Keep a processor busy, until killed.
    Compute,
    /// Print the memory used.
    Nothing,
}

/// A process's place in its team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) store: PathBuf,
    pub(crate) barrier: PathBuf,
    pub(crate) number: usize,
    pub(crate) team: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Appending {
    pub(crate) system: System,
    pub(crate) events_file: PathBuf,
    pub(crate) writes_max: usize,
    pub(crate) time_max: Duration,
    pub(crate) slow_sync: Duration,
}

impl Work {
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(COMMAND)
            .arg(serde_json::to_string(self)?)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a process to its end, and returns what it prints.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self.command()?.output()?;
        if !output.status.success() {
            return Err(format!("a process failed: {self:?}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Runs so many processes on the store `dir/store`, and `meanwhile` while they work; returns their
/// reports. The team are as many as the processes have threads together.
pub(crate) fn run_team<T: DeserializeOwned>(
    dir: &Path,
    processes: usize,
    threads: usize,
    work: impl Fn(Member) -> Work,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Vec<T>> {
    let team = u32::try_from(processes * threads)?;
    let page = tempfile::NamedTempFile::new_in(dir)?;
    let barrier = Barrier::open(page.path())?;
    let mut children = Children::default();
    for number in 0..processes {
        let work = work(Member {
            store: dir.join("store"),
            barrier: page.path().to_owned(),
            number,
            team,
        });
        children
            .0
            .push(work.command()?.stdout(Stdio::piped()).spawn()?);
    }
    barrier.lead(team, &mut children.0, meanwhile)?;
    let mut reports = Vec::new();
    for child in std::mem::take(&mut children.0) {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("a process failed: {}", output.status).into());
        }
        reports.push(serde_json::from_slice(&output.stdout)?);
    }
    Ok(reports)
}

/// Processes that are killed when the run ends early.
#[derive(Default)]
pub(crate) struct Children(pub(crate) Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Fails for a process that has ended.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_survives_the_command_line() {
        let member = Member {
            store: "a b".into(),
            barrier: "page".into(),
            number: 3,
            team: 5,
        };
        let work = Work::Append(
            member,
            Appending {
                system: System::Plan,
                events_file: "events".into(),
                writes_max: 20,
                time_max: Duration::from_millis(1_500),
                slow_sync: Duration::from_micros(7),
            },
        );
        let command = work.command().unwrap();
        let args: Vec<&str> = command.get_args().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(args[0], COMMAND);
        assert_eq!(serde_json::from_str::<Work>(args[1]).unwrap(), work);
    }
}
