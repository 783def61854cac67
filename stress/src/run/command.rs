//! Writes that are made by the command `strand append`, a process for each. As for any script, its
//! output and its exit status say what came of a write.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::evidence::ledger::{End, Outcome};
use crate::run::child::is_kill;
use crate::run::config::{Config, Durability};
use crate::run::errors::{describe, is_environment};
use crate::run::payload::{PayloadSource, Payloads};
use crate::run::protocol::Message;

/// A longer event is not given as an argument, whose length systems limit.
const ARGUMENT_BYTES_MAX: usize = 8 << 10;
/// The highest exit status that the command documents.
const STATUS_MAX: i32 = 12;
/// `durability_unknown` and `unprinted`: those of a failure after which the event may be stored.
const STATUSES_STORED: [i32; 2] = [8, 12];
/// `unusable`: no permission, or an unsafe filesystem.
const STATUS_UNUSABLE: i32 = 10;

/// The command `strand`, and what it writes.
pub(super) struct StrandCommand {
    path: PathBuf,
    payloads: Payloads,
    lock_timeout_ms: u64,
    durability: Durability,
}

/// The standard output of a call.
#[derive(Debug, Default)]
pub(super) struct Printed {
    text: Vec<u8>,
    /// When its first line was there.
    line_ns: u64,
}

impl Printed {
    pub(super) fn add(&mut self, text: &[u8], at_ns: u64) {
        if self.text.is_empty() {
            self.line_ns = at_ns;
        }
        self.text.extend_from_slice(text);
    }
}

/// A call of the command that appends an event.
pub(super) struct Call {
    pub(super) command: Command,
    /// Its standard input.
    pub(super) input: Vec<u8>,
    pub(super) agent: u32,
    pub(super) write: u32,
}

/// The answer of the command.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Outcome {
        outcome: Outcome,
        environment: bool,
    },
    /// The process was killed or died, and said nothing.
    None,
    /// The command never answers like this.
    Nonsense,
}

impl StrandCommand {
    /// `None` where agents make the writes.
    pub(super) fn new(
        config: &Config,
        payload: &PayloadSource,
        exe: &Path,
    ) -> Result<Option<StrandCommand>, String> {
        let Some(path) = config.command(exe) else {
            return Ok(None);
        };
        let payloads = Payloads::open(payload, config.seed, config.writes)
            .map_err(|error| describe(&error))?;
        Ok(Some(StrandCommand {
            path,
            payloads,
            lock_timeout_ms: config.lock_timeout_ms(),
            durability: config.durability,
        }))
    }

    /// Makes the directory a store, which `append` does not do. Returns the error of the command if
    /// it fails.
    pub(super) fn init(&self, store: &Path) -> Result<Option<String>, String> {
        let output = Command::new(&self.path)
            .arg("-C")
            .arg(store)
            .arg("init")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        let failed = !output.status.success();
        Ok(failed.then(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("`strand init` failed ({}): {}", output.status, error.trim())
        }))
    }

    /// The call that makes a write. The event is an argument or goes to standard input, in turn.
    pub(super) fn append(&self, store: &Path, agent: u32, write: u32) -> Result<Call, String> {
        let event = self.payloads.event(agent, write);
        let event = event.map_err(|error| describe(&error))?;
        let event = serde_json::to_string(&event).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.path);
        command.arg("-C").arg(store).arg("append");
        command.args(["--timeout-ms", &self.lock_timeout_ms.to_string()]);
        if self.durability == Durability::Buffered {
            command.arg("--buffered");
        }
        command.stderr(Stdio::piped());
        let mut input = Vec::new();
        if write.is_multiple_of(2) && event.len() <= ARGUMENT_BYTES_MAX {
            command.arg(event);
        } else {
            input = (event + "\n").into_bytes();
        }
        Ok(Call {
            command,
            input,
            agent,
            write,
        })
    }
}

/// The result of a call as a message, or a description of nonsensical output; and how the process
/// ended.
pub(super) fn outcome(
    (agent, write, start_ns): (u32, u32, u64),
    printed: &Printed,
    (status, stderr): (ExitStatus, &str),
    killed: bool,
) -> (Option<Result<Message, String>>, End) {
    let (answer, end) = judge(printed, stderr, status, killed);
    let message = match answer {
        Answer::Outcome {
            outcome,
            environment,
        } => Ok(Message::Answered {
            agent,
            write,
            start_ns,
            outcome,
            environment,
        }),
        Answer::None => return (None, end),
        Answer::Nonsense => {
            let out = String::from_utf8_lossy(&printed.text);
            Err(format!(
                "`strand append` printed {out:?} and ended: {status}"
            ))
        }
    };
    (Some(message), end)
}

/// The answer of the command, and how its process ended.
fn judge(printed: &Printed, stderr: &str, status: ExitStatus, killed: bool) -> (Answer, End) {
    let was_killed = killed && is_kill(status);
    let died = || End::Died {
        status: status.to_string(),
    };
    // A line without an end is from a process that was killed while it wrote it.
    if let Some(line) = printed.text.strip_suffix(b"\n") {
        let end = if status.success() || was_killed {
            End::Finished
        } else {
            died()
        };
        let seq = std::str::from_utf8(line).ok().and_then(|s| s.parse().ok());
        let answer = seq.map_or(Answer::Nonsense, |seq| Answer::Outcome {
            outcome: Outcome::Acknowledged {
                seq,
                ack_ns: printed.line_ns,
                repeated: false,
            },
            environment: false,
        });
        return (answer, end);
    }
    if was_killed {
        return (Answer::None, End::Killed);
    }
    match status.code() {
        Some(code @ 1..=STATUS_MAX) if printed.text.is_empty() => {
            let error = format!("{status}: {}", stderr.trim());
            let answer = Answer::Outcome {
                outcome: if STATUSES_STORED.contains(&code) {
                    Outcome::Unknown { error }
                } else {
                    Outcome::Rejected { error }
                },
                environment: code == STATUS_UNUSABLE || names_environment(stderr),
            };
            (answer, End::Finished)
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

    fn judge(out: &str, status: ExitStatus, killed: bool) -> (Answer, End) {
        let mut printed = Printed::default();
        printed.add(out.as_bytes(), 7);
        super::judge(&printed, "", status, killed)
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
        let stored = || Answer::Outcome {
            outcome: Outcome::Acknowledged {
                seq: 12,
                ack_ns: 7,
                repeated: false,
            },
            environment: false,
        };
        let killed = ExitStatus::from_raw(KILLED);
        assert_eq!(judge("12\n", exit(0), false), (stored(), End::Finished));
        assert_eq!(judge("12\n", killed, true), (stored(), End::Finished));
        for status in [exit(8), exit(101), ExitStatus::from_raw(ABORTED), killed] {
            assert_eq!(judge("12\n", status, false), (stored(), died(status)));
        }
    }

    #[test]
    fn an_exit_status_tells_what_is_not_stored() {
        for (code, is_rejected, is_environment) in [
            (1, true, false),
            (5, true, false),
            (8, false, false),
            (12, false, false),
            (10, true, true),
        ] {
            let (answer, end) = judge("", exit(code), false);
            let Answer::Outcome {
                outcome,
                environment,
            } = answer
            else {
                panic!("{answer:?}")
            };
            let rejected = matches!(outcome, Outcome::Rejected { .. });
            let found = (rejected, environment, end);
            assert_eq!(
                found,
                (is_rejected, is_environment, End::Finished),
                "{code}"
            );
        }
    }

    #[test]
    fn without_receipt_and_status_nobody_was_told() {
        let killed = ExitStatus::from_raw(KILLED);
        for out in ["", "1"] {
            assert_eq!(
                judge(out, killed, true),
                (Answer::None, End::Killed),
                "{out}"
            );
        }
        for status in [exit(101), exit(13), ExitStatus::from_raw(ABORTED), killed] {
            let expected = (Answer::None, died(status));
            assert_eq!(judge("", status, false), expected);
        }
    }

    #[test]
    fn everything_else_is_nonsense() {
        for out in ["", "12", "x\n", "\n", "12\n13\n"] {
            let (answer, _) = judge(out, exit(0), false);
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
