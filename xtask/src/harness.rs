//! Commands that are the harness's own, in release mode.

use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo};

/// Builds the harness and runs one of its commands; its exit status becomes this one's.
pub(crate) fn pass_on(command: &str, arguments: &[String]) -> Result<(), Failure> {
    let harness = cargo::build_harness()?;
    run(
        Command::new(&harness).arg(command).args(arguments),
        &harness,
    )
}

/// Runs a program that says itself what is wrong; its exit status becomes this one's.
pub(crate) fn run(command: &mut Command, program: &Path) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| cannot_start(program, &error))?;
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure {
            message: String::new(),
            code,
        }),
    }
}

/// That of the harness; one that ended by a signal has violated something.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

pub(crate) fn cannot_start(harness: &Path, error: &std::io::Error) -> Failure {
    Failure::environment(format!("cannot start {}: {error}", harness.display()))
}
