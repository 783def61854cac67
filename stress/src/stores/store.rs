//! A store as the runner sees it: agents that perform jobs.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use strand_lock::monotonic_ns;

use crate::evidence::listing::Entry;
use crate::stores::seat::{OUTPUT_BYTES_MAX, Printed, Seat};
use crate::stores::spec::{Artifact, Check};
use crate::stores::template::Values;

/// A store under test.
pub(super) trait Store: Sync {
    /// What it can do and show.
    fn can(&self) -> &Can;
    /// An agent at its seat.
    fn agent<'a>(&'a self, seat: &'a Seat, one_shot: bool) -> Box<dyn Agent + 'a>;
    /// Starts the store's server.
    fn serve(&self, seat: &Seat, values: &Values) -> Result<Server, String>;
    /// Starts what shows all writes as they come.
    fn follow(&self, seat: &Seat, values: &Values) -> Result<Process, String>;
    /// The writes in a line that it printed.
    fn followed(&self, line: &str) -> Result<Vec<Entry>, String>;
    /// A job as a line for a shell, whose status is 0 if the job is done. `None` if it can't be
    /// one: a claim that is refused may end with 0, too.
    fn line(&self, job: &Job) -> Option<String>;
    /// The version of the store's program.
    fn version(&self) -> String;
}

/// One that writes to a store, and waits for each answer.
pub(super) trait Agent {
    /// Does a job.
    fn perform(&mut self, job: &Job) -> Answer;
}

/// A program that runs, and the ends of its pipes.
pub(super) struct Process {
    pub(super) child: Child,
    /// `None` where it was given something else.
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: BufReader<ChildStdout>,
    pub(super) stderr: Printed,
}

impl Process {
    /// Starts one.
    pub(super) fn start(seat: &Seat, command: &mut Command) -> Result<Process, String> {
        let (mut child, stderr) = seat.start(command, Stdio::piped())?;
        let stdout = child.stdout.take().ok_or("a pipe is missing")?;
        Ok(Process {
            stdin: child.stdin.take(),
            child,
            stdout: BufReader::new(stdout),
            stderr,
        })
    }

    /// Says something to it.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }

    /// Lets it end; whether the harness had it killed, and what there is to say of it.
    pub(super) fn end(self, seat: &Seat) -> (bool, String) {
        let Process {
            mut child,
            stdin,
            mut stdout,
            stderr,
        } = self;
        drop(stdin);
        let mut rest = String::new();
        while stdout.read_line(&mut rest).is_ok_and(|bytes| bytes > 0) {}
        // What can't be reaped or read is not needed for any verdict.
        let (status, killed) = match seat.reap(&mut child) {
            Ok((_, true)) => (String::new(), true),
            Ok((status, false)) => (format!("{status}: "), false),
            Err(error) => (format!("{error}: "), false),
        };
        let stderr = stderr.text(OUTPUT_BYTES_MAX as u64).unwrap_or_default();
        let said = status + stderr.trim();
        (killed, said.trim_end_matches(": ").to_owned())
    }
}

/// A server's process, and what that prints.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) printed: [Printed; 2],
    /// How it was started, as a line for a shell.
    pub(super) line: String,
}

/// The capabilities of a store. They decide which points are judged.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each one is a capability")]
pub(super) struct Can {
    pub(super) name: String,
    /// Its list is in the order of the writes.
    pub(super) ordered: bool,
    /// Its list has numbers without gaps.
    pub(super) numbers: bool,
    /// It gives a receipt for each write.
    pub(super) receipts: bool,
    /// The pattern that finds it.
    pub(super) receipt: Option<String>,
    /// Its list has the whole payload.
    pub(super) whole: bool,
    pub(super) claim: bool,
    pub(super) show: bool,
    /// It reads an item, and changes it if it is still as it was read.
    pub(super) set: bool,
    /// It has a server, which runs beside the agents.
    pub(super) serve: bool,
    /// It stores several writes, or none of them.
    pub(super) batch: bool,
    /// It shows all writes as they come.
    pub(super) follow: bool,
    /// And can begin behind those that were shown before.
    pub(super) resumes: bool,
    pub(super) export: bool,
    pub(super) exclusive: bool,
    /// An interrupted write may be made again.
    pub(super) idempotent: bool,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) checks: Vec<Check>,
    pub(super) leftovers: Vec<String>,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Make the store.
    Init,
    /// Run the server.
    Serve,
    /// Ask the server whether it is ready.
    Ready,
    /// Make a write.
    Append,
    /// Make a batch of writes.
    Batch,
    /// Compete for an item.
    Claim,
    /// List all writes.
    List,
    /// Say whose an item is.
    Show,
    /// Read an item.
    Get,
    /// Change an item, if it is still as it was read.
    Set,
    /// Write the export.
    Export,
    /// Run the witness under the lock.
    Exclusive,
    /// One of the checks.
    Check(usize),
}

/// A job with everything that it needs.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) deed: Deed,
    pub(super) values: Values,
    /// The words that `{witness}` stands for.
    pub(super) witness: Vec<String>,
    /// The values of each write of a batch.
    pub(super) batch: Vec<Values>,
}

/// A job without anything else.
pub(super) fn job(deed: Deed, values: Values) -> Job {
    Job {
        deed,
        values,
        witness: Vec::new(),
        batch: Vec::new(),
    }
}

/// The meaning of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "said")]
pub enum Told {
    /// Done.
    Ok,
    /// Not done: a condition did not hold, or the store was busy.
    Refused(String),
    /// Not done: it failed.
    Fail(String),
    /// Done or not. Empty where the harness killed the process.
    Info(String),
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) told: Told,
    pub(super) receipt: Option<String>,
    /// The list.
    pub(super) entries: Vec<Entry>,
    /// The beginning of what was printed.
    pub(super) output: String,
    /// What was done, as a line for a shell.
    pub(super) line: String,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
}

impl Answer {
    /// An answer without a process behind it.
    fn bare(told: Told) -> Answer {
        let now_ns = monotonic_ns();
        Answer {
            told,
            receipt: None,
            entries: Vec::new(),
            output: String::new(),
            line: String::new(),
            begin_ns: now_ns,
            end_ns: now_ns,
        }
    }

    /// There was nothing to do.
    pub(super) fn ok() -> Answer {
        Answer::bare(Told::Ok)
    }

    /// The run was over before it was begun. An earlier attempt at the same write may have been
    /// carried out.
    pub(super) fn killed() -> Answer {
        Answer::bare(Told::Info(String::new()))
    }

    /// It could not be begun.
    pub(super) fn not_begun(error: String) -> Answer {
        Answer::bare(Told::Fail(error))
    }

    /// The output of what had to succeed.
    pub(super) fn success(self, what: &str) -> Result<Answer, String> {
        match &self.told {
            Told::Ok => Ok(self),
            Told::Refused(said) | Told::Fail(said) | Told::Info(said) => Err(format!(
                "{what} did not succeed: {}\n  it was: {}\n  it printed: {}",
                said.trim(),
                self.line,
                self.output.trim()
            )),
        }
    }
}
