//! A process of the run: reads what it is for, does it, and reports how that ended.

use std::io::{self, BufRead as _, Read as _};
use std::process::ExitCode;

use crate::run::errors::{describe, is_environment};
use crate::run::protocol::{AgentSpec, Message, Outbox, Role};
use crate::run::{agent, bystanders, etcd};

/// The exit status of a process whose runner is gone.
const EXIT_ORPHANED: i32 = 90;

/// Runs the process that the first line of standard input describes. It reports to standard output,
/// in [`Message`]s.
#[must_use]
pub fn main() -> ExitCode {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    let spec = read.and_then(|_| Ok(serde_json::from_str::<AgentSpec>(&line)?));
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("`strand-stress run` starts its agents and describes each: {error}");
            return ExitCode::from(2);
        }
    };
    std::thread::spawn(exit_with_runner);
    let result = match spec.role {
        Role::Agent => agent::run(&spec),
        _ => match &spec.etcd {
            Some(address) => etcd::bystanders::run(&spec, address),
            None => bystanders::run(&spec),
        },
    };
    let (message, code) = match result {
        Ok(()) => (Message::Done, ExitCode::SUCCESS),
        Err(error) => {
            let fatal = Message::Fatal {
                environment: is_environment(error.as_ref()),
                error: describe(error.as_ref()),
            };
            (fatal, ExitCode::FAILURE)
        }
    };
    let mut out = Outbox::default();
    out.push(&message);
    if out.send().is_ok() {
        code
    } else {
        ExitCode::FAILURE
    }
}

/// The runner keeps the other end of standard input open and never writes to it again.
fn exit_with_runner() {
    let mut byte = [0];
    while !matches!(io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
    std::process::exit(EXIT_ORPHANED);
}
