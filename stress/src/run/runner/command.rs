//! Writes that are made by the command `strand append`, a process for each. What it prints and its exit status tell
//! what came of a write, to the harness as to any script.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use strand_lock::monotonic_ns;

use crate::evidence::ledger::{End, Incarnation};
use crate::run::config::{Config, Durability};
use crate::run::errors::{describe, is_environment};
use crate::run::payload::{PayloadSource, Payloads};
use crate::run::protocol::{Lane, Message};
use crate::run::reporting::Reporting;
use crate::run::runner::{EnvironmentError, Next, Parent, Slot, is_kill, lock_timeout_ms, wait};

/// A longer event is not given as an argument, whose length systems limit.
const ARGUMENT_BYTES_MAX: usize = 8 << 10;
/// The highest exit status that the command documents.
const STATUS_MAX: i32 = 11;
/// `durability_unknown`: the only one of a failure after which the event may be stored.
const STATUS_DURABILITY_UNKNOWN: i32 = 8;
/// `unusable`: no permission, or an unsafe filesystem.
const STATUS_UNUSABLE: i32 = 10;

/// The command `strand`, and what it writes.
pub(super) struct StrandCommand {
    path: PathBuf,
    payloads: Payloads,
    lock_timeout_ms: u64,
    durability: Durability,
}

/// The ends of the pipes to a process.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// What a process has printed, to its end.
#[derive(Debug, Default)]
struct Said {
    /// On standard output.
    out: Vec<u8>,
    /// When its first line was there.
    line_ns: u64,
    /// On standard error.
    error: String,
}

/// What came of a write.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Stored {
        seq: u64,
    },
    Failed {
        rejected: bool,
        environment: bool,
    },
    /// Nobody was told.
    None,
    /// The command does not say such things.
    Nonsense,
}

impl StrandCommand {
    /// `None` where agents make the writes.
    pub(super) fn new(
        config: &Config,
        payload: &PayloadSource,
        exe: &Path,
    ) -> Result<Option<StrandCommand>, EnvironmentError> {
        let Some(path) = config.command(exe) else {
            return Ok(None);
        };
        let payloads = Payloads::open(payload, config.seed, config.writes)
            .map_err(|error| EnvironmentError(describe(&error)))?;
        Ok(Some(StrandCommand {
            path,
            payloads,
            lock_timeout_ms: lock_timeout_ms(config),
            durability: config.durability,
        }))
    }

    /// Makes the directory a store, as `append` does not. Returns what it says if it fails.
    pub(super) fn init(&self, store: &Path) -> Result<Option<String>, EnvironmentError> {
        let output = Command::new(&self.path)
            .arg("init")
            .arg(store)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| EnvironmentError(format!("{}: {error}", self.path.display())))?;
        let failed = !output.status.success();
        Ok(failed.then(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("`strand init` failed ({}): {}", output.status, error.trim())
        }))
    }

    /// The command that appends an event, and what goes to its standard input: that or an argument, in turn.
    fn append(&self, store: &Path, write: u32, event: String) -> (Command, Option<String>) {
        let mut command = Command::new(&self.path);
        command.arg("append").arg(store);
        command.args(["--timeout-ms", &self.lock_timeout_ms.to_string()]);
        if self.durability == Durability::Buffered {
            command.arg("--buffered");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if write.is_multiple_of(2) && event.len() <= ARGUMENT_BYTES_MAX {
            command.arg(event).stdin(Stdio::null());
            (command, None)
        } else {
            command.stdin(Stdio::piped());
            (command, Some(event + "\n"))
        }
    }
}

impl Parent<'_> {
    /// Has the command make the first write of a lane; `None` when no more may be started.
    pub(super) fn serve_command(
        &self,
        strand: &StrandCommand,
        slot: &Slot,
        lane: &Lane,
        next: &mut [Next],
    ) -> Result<Option<(Reporting, Incarnation)>, String> {
        let (agent, write) = (lane.agent, lane.first_write);
        let event = strand.payloads.event(agent, write);
        let event = event.map_err(|error| describe(&error))?;
        let event = serde_json::to_string(&event).map_err(|error| error.to_string())?;
        let (mut command, input) = strand.append(&self.places.store, write, event);

        let start_ns = monotonic_ns();
        let pipes = self.spawn(slot, &mut command, |child| Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        });
        let Some(pipes) = pipes? else {
            return Ok(None);
        };
        let mut reporting = Reporting::default();
        let mut take = |message: Message| {
            self.follow(slot, &message, next);
            reporting.take(message);
        };
        take(Message::Invoke {
            agent,
            write,
            at_ns: start_ns,
        });
        let talked = talk(pipes, input.as_deref());
        let (status, killed) = wait(slot)?;
        let said = talked.map_err(|error| format!("cannot talk to a process: {error}"))?;
        let (answer, end) = judge(&said, status, killed);
        match answer {
            Answer::Stored { seq } => take(Message::Ack {
                agent,
                write,
                seq,
                start_ns,
                ack_ns: said.line_ns,
                repeated: false,
            }),
            Answer::Failed {
                rejected,
                environment,
            } => take(Message::Failure {
                agent,
                write,
                rejected,
                environment,
                error: format!("{status}: {}", said.error.trim()),
            }),
            Answer::None => {}
            Answer::Nonsense => {
                let out = String::from_utf8_lossy(&said.out);
                reporting.nonsense(format!("`strand append` said {out:?} and ended: {status}"));
            }
        }
        if !said.error.is_empty() {
            let told = (&self.stderr).write_all(said.error.as_bytes());
            told.map_err(|error| format!("{}: {error}", self.places.stderr.display()))?;
        }
        Ok(Some((reporting, self.bury(slot, end))))
    }
}

/// Gives a process its input and hears it out. It may be dead at any time.
fn talk(pipes: Pipes, input: Option<&str>) -> io::Result<Said> {
    let Pipes {
        stdin,
        stdout,
        stderr,
    } = pipes;
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut said = Said::default();
    if let Some(stdout) = stdout {
        let mut stdout = BufReader::new(stdout);
        stdout.read_until(b'\n', &mut said.out)?;
        said.line_ns = monotonic_ns();
        stdout.read_to_end(&mut said.out)?;
    }
    if let Some(mut stderr) = stderr {
        let mut error = Vec::new();
        stderr.read_to_end(&mut error)?;
        said.error = String::from_utf8_lossy(&error).into_owned();
    }
    Ok(said)
}

/// What came of a write, and how its process ended.
fn judge(said: &Said, status: ExitStatus, killed: bool) -> (Answer, End) {
    let was_killed = killed && is_kill(status);
    let died = || End::Died {
        status: status.to_string(),
    };
    // A line without an end is from a process that was killed while it wrote it.
    let line = said.out.strip_suffix(b"\n");
    if let Some(line) = line {
        let end = if status.success() || was_killed {
            End::Finished
        } else {
            died()
        };
        let seq = std::str::from_utf8(line).ok().and_then(|s| s.parse().ok());
        return match seq {
            Some(seq) => (Answer::Stored { seq }, end),
            None => (Answer::Nonsense, end),
        };
    }
    if was_killed {
        return (Answer::None, End::Killed);
    }
    match status.code() {
        Some(code @ 1..=STATUS_MAX) if said.out.is_empty() => {
            let failed = Answer::Failed {
                rejected: code != STATUS_DURABILITY_UNKNOWN,
                environment: code == STATUS_UNUSABLE || names_environment(&said.error),
            };
            (failed, End::Finished)
        }
        Some(0..=STATUS_MAX) => (Answer::Nonsense, End::Finished),
        _ => (Answer::None, died()),
    }
}

/// Whether a message names an error of the system whose cause lies outside the log.
fn names_environment(message: &str) -> bool {
    let codes = message.split("(os error ").skip(1).filter_map(|rest| {
        let (code, _) = rest.split_once(')')?;
        code.parse().ok()
    });
    let mut errors = codes.map(io::Error::from_raw_os_error);
    errors.any(|error| is_environment(&error))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    const KILLED: i32 = 9;
    const ABORTED: i32 = 6;

    fn said(out: &str) -> Said {
        Said {
            out: out.as_bytes().to_vec(),
            ..Said::default()
        }
    }

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn died(status: ExitStatus) -> End {
        End::Died {
            status: status.to_string(),
        }
    }

    #[test]
    fn a_receipt_counts_however_the_process_ends() {
        let stored = Answer::Stored { seq: 12 };
        let killed = ExitStatus::from_raw(KILLED);
        let answered = said("12\n");
        assert_eq!(
            judge(&answered, exit(0), false),
            (Answer::Stored { seq: 12 }, End::Finished)
        );
        assert_eq!(judge(&answered, killed, true), (stored, End::Finished));
        for status in [exit(8), exit(101), ExitStatus::from_raw(ABORTED), killed] {
            let expected = (Answer::Stored { seq: 12 }, died(status));
            assert_eq!(judge(&answered, status, false), expected);
        }
    }

    #[test]
    fn an_exit_status_tells_what_is_not_stored() {
        for (code, rejected, environment) in [
            (1, true, false),
            (5, true, false),
            (8, false, false),
            (10, true, true),
        ] {
            let failed = Answer::Failed {
                rejected,
                environment,
            };
            assert_eq!(
                judge(&said(""), exit(code), false),
                (failed, End::Finished),
                "{code}"
            );
        }
    }

    #[test]
    fn without_receipt_and_status_nobody_was_told() {
        let killed = ExitStatus::from_raw(KILLED);
        for out in ["", "1"] {
            assert_eq!(
                judge(&said(out), killed, true),
                (Answer::None, End::Killed),
                "{out}"
            );
        }
        for status in [exit(101), exit(12), ExitStatus::from_raw(ABORTED), killed] {
            let expected = (Answer::None, died(status));
            assert_eq!(judge(&said(""), status, false), expected);
        }
    }

    #[test]
    fn everything_else_is_nonsense() {
        for out in ["", "12", "x\n", "\n", "12\n13\n"] {
            let (answer, _) = judge(&said(out), exit(0), false);
            assert_eq!(answer, Answer::Nonsense, "{out:?}");
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_failure_of_the_log() {
        const ENOSPC: i32 = 28;
        let full = io::Error::from_raw_os_error(ENOSPC);
        let message = format!("strand: cannot write x: {full}\n");
        assert!(names_environment(&message), "{message}");
        for message in ["", "cannot write x: (os error 9)", "(os error x)"] {
            assert!(!names_environment(message), "{message}");
        }
    }
}
