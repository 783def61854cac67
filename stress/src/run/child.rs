//! A child process that is heard while it runs. All processes of the harness are children of this
//! kind: agents, bystanders and the workers of a soak.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use shared_child::SharedChild;
use strand_lock::monotonic_ns;

/// Thousands of children may run at a time, each heard by a thread that needs little.
const STACK_BYTES: usize = 256 << 10;
/// A system that does not start a process within this time won't. Where the call itself waits for
/// the process, as on Windows, it may never return.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Output of a child.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A line of standard output with its newline. Without one, the child ended while it wrote it.
    Line { text: Vec<u8> },
    /// The child has ended and was reaped; nothing follows.
    Ended(Ended),
}

/// The end of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: io::Result<ExitStatus>,
    /// A pipe failed.
    pub(crate) trouble: Option<io::Error>,
}

/// A child process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Arc<SharedChild>,
    stdin: ChildStdin,
    killed_ns: Option<u64>,
}

impl Child {
    /// Starts a child, tells it `first`, and returns. A thread does both, passes its output to
    /// `hear`, and reaps it. Standard input stays open for [`Child::say`].
    ///
    /// # Errors
    /// The process or the thread could not be started within [`START_LIMIT`].
    pub(crate) fn spawn(
        command: Command,
        first: &impl Serialize,
        hear: impl FnMut(Heard) + Send + 'static,
    ) -> Result<Child, String> {
        Child::spawn_within(START_LIMIT, command, first, hear)
    }

    fn spawn_within(
        limit: Duration,
        mut command: Command,
        first: &impl Serialize,
        hear: impl FnMut(Heard) + Send + 'static,
    ) -> Result<Child, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the harness. It ends its children, or they end with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let program = Path::new(command.get_program()).display().to_string();
        let cannot = |error: io::Error| format!("cannot start {program}: {error}");
        let line = line(first).map_err(cannot)?;
        // Nobody takes a child that comes too late.
        let (sender, started) = bounded(0);
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn(move || start(command, &line, &sender, hear));
        thread.map_err(cannot)?;
        match started.recv_timeout(limit) {
            Ok(child) => child.map_err(cannot),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "cannot start {program}: it was not started and told what to do within {limit:?}"
            )),
            Err(RecvTimeoutError::Disconnected) => {
                Err(format!("cannot start {program}: the thread for it died"))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line of JSON to standard input. Does nothing if the child is gone.
    ///
    /// # Errors
    /// The pipe failed.
    pub(crate) fn say(&mut self, order: &impl Serialize) -> io::Result<()> {
        unless_gone(self.stdin.write_all(&line(order)?))
    }

    /// Kills the child. Does nothing if it has ended.
    pub(crate) fn kill(&mut self) {
        self.killed_ns.get_or_insert_with(monotonic_ns);
        let killed = self.process.kill();
        assert!(killed.is_ok(), "cannot kill a child: {killed:?}");
    }

    /// When the child was killed first.
    pub(crate) fn killed_ns(&self) -> Option<u64> {
        self.killed_ns
    }

    /// Stops the child; it keeps the locks that it holds.
    ///
    /// # Errors
    /// The system can't.
    pub(crate) fn pause(&self) -> io::Result<()> {
        signal(&self.process, true)
    }

    /// Lets a stopped child go on. Does nothing if it has ended.
    ///
    /// # Errors
    /// The system can't.
    pub(crate) fn resume(&self) -> io::Result<()> {
        signal(&self.process, false)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It fails only if the child has ended.
        drop(self.process.kill());
    }
}

#[cfg(unix)]
fn signal(process: &SharedChild, stop: bool) -> io::Result<()> {
    use rustix::process::Signal;
    use shared_child::unix::SharedChildExt as _;
    let signal = if stop { Signal::STOP } else { Signal::CONT };
    process.send_signal(signal.as_raw())
}

#[cfg(not(unix))]
fn signal(_: &SharedChild, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The line of JSON that says something.
fn line(said: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    Ok(line)
}

/// Starts a child, tells it the first line, and attends to it, if anybody still waits for it.
fn start(
    mut command: Command,
    first: &[u8],
    started: &Sender<io::Result<Child>>,
    hear: impl FnMut(Heard),
) {
    let child = (|| {
        let process = Arc::new(SharedChild::spawn(&mut command)?);
        let stdin = process.take_stdin();
        let mut child = Child {
            stdin: stdin.ok_or(io::ErrorKind::BrokenPipe)?,
            process,
            killed_ns: None,
        };
        unless_gone(child.stdin.write_all(first))?;
        Ok(child)
    })();
    // It has ends of pipes that are the child's.
    drop(command);
    let process = child.as_ref().ok().map(|child| Arc::clone(&child.process));
    match (started.send(child), process) {
        (Ok(()), Some(process)) => attend(&process, hear),
        // Dropping the child kills it.
        (Err(unwanted), Some(process)) => {
            drop(unwanted);
            drop(process.wait());
        }
        (_, None) => {}
    }
}

/// Passes on the output, and reaps the child.
fn attend(process: &SharedChild, mut hear: impl FnMut(Heard)) {
    let talked = (|| {
        if let Some(stdout) = process.take_stdout() {
            let mut stdout = BufReader::with_capacity(64 << 10, stdout);
            let mut text = Vec::new();
            while stdout.read_until(b'\n', &mut text)? > 0 {
                let text = std::mem::take(&mut text);
                hear(Heard::Line { text });
            }
        }
        Ok(())
    })();
    hear(Heard::Ended(Ended {
        status: process.wait(),
        trouble: talked.err(),
    }));
}

fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Whether a process ended as one does that [`Child::kill`] has killed.
#[cfg(unix)]
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

/// Whether a process ended as one does that [`Child::kill`] has killed.
#[cfg(not(unix))]
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_and_heard_and_reaped() {
        let (sender, heard) = bounded(8);
        let hear = move |heard| drop(sender.send(heard));
        let mut child = Child::spawn(Command::new("cat"), &"first", hear).unwrap();
        let Ok(Heard::Line { text }) = heard.recv_timeout(START_LIMIT) else {
            panic!("no line");
        };
        assert_eq!(text, b"\"first\"\n");
        child.kill();
        let Ok(Heard::Ended(ended)) = heard.recv_timeout(START_LIMIT) else {
            panic!("no end");
        };
        assert!(is_kill(ended.status.unwrap()) && ended.trouble.is_none());
    }

    #[test]
    fn a_start_that_takes_too_long_is_given_up_and_named() {
        let mut command = Command::new("sleep");
        command.arg("2");
        // It does not read, and the pipe is full.
        let first = "x".repeat(1 << 20);
        let limit = Duration::from_millis(200);
        let error = Child::spawn_within(limit, command, &first, |_| {}).unwrap_err();
        assert!(
            error.contains("cannot start sleep") && error.contains("200ms"),
            "{error}"
        );
        let absent = Child::spawn(Command::new("no-such-program"), &"", |_| {}).unwrap_err();
        assert!(absent.contains("cannot start no-such-program"), "{absent}");
    }
}
