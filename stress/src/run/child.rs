//! A child process that is heard while it runs. All processes of the harness are children of this
//! kind: agents, bystanders, calls of the command and the workers of a soak.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde::Serialize;
use shared_child::SharedChild;
use strand_lock::monotonic_ns;

/// Thousands of children may run at a time, each heard by a thread that needs little.
const STACK_BYTES: usize = 256 << 10;

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
    stdin: Option<ChildStdin>,
    killed_ns: Option<u64>,
}

impl Child {
    /// Starts a child and returns at once. A thread passes its output to `hear`, and reaps it.
    ///
    /// The thread writes `input` to standard input and closes it. Without an input, standard input
    /// stays open for [`Child::say`].
    ///
    /// # Errors
    /// The process or the thread could not be started.
    pub(crate) fn spawn(
        command: &mut Command,
        input: Option<Vec<u8>>,
        hear: impl FnMut(Heard) + Send + 'static,
    ) -> Result<Child, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the harness. It ends its children, or they end with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let program = Path::new(command.get_program()).display().to_string();
        let cannot = |error| format!("cannot start {program}: {error}");
        let process = Arc::new(SharedChild::spawn(command).map_err(cannot)?);
        let mut child = Child {
            stdin: process.take_stdin(),
            process: Arc::clone(&process),
            killed_ns: None,
        };
        let input = input.and_then(|input| Some((child.stdin.take()?, input)));
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn(move || attend(&process, input, hear));
        if let Err(error) = thread {
            child.kill();
            drop(child.process.wait());
            return Err(cannot(error));
        }
        Ok(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line of JSON to standard input. Does nothing if the child is gone.
    ///
    /// # Errors
    /// The pipe failed.
    pub(crate) fn say(&mut self, order: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let said = self.stdin.as_mut().map(|stdin| stdin.write_all(&line));
        unless_gone(said.unwrap_or(Ok(())))
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

/// Writes the input, passes on the output, and reaps the child.
fn attend(
    process: &SharedChild,
    input: Option<(ChildStdin, Vec<u8>)>,
    mut hear: impl FnMut(Heard),
) {
    let talked = (|| {
        if let Some((mut stdin, input)) = input {
            unless_gone(stdin.write_all(&input))?;
        }
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
