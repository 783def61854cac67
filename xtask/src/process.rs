//! Running other programs.

use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use crate::failure::Failure;

/// Runs a program that reports its own errors; its exit status becomes this task's.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        message: String::new(),
        code: exit_code(status),
    })
}

/// Runs a program in the place of this one where that is possible: then Ctrl-C is for it alone.
pub(crate) fn go_on_as(command: &mut Command) -> Result<(), Failure> {
    #[cfg(unix)]
    {
        let error = std::os::unix::process::CommandExt::exec(command);
        Err(Failure::start(Path::new(command.get_program()), &error))
    }
    #[cfg(not(unix))]
    run(command)
}

pub(crate) fn status(command: &mut Command) -> Result<ExitStatus, Failure> {
    let started = command.status();
    started.map_err(|error| Failure::start(Path::new(command.get_program()), &error))
}

/// Runs a program without input and collects its output; standard error too, unless the command
/// sends it elsewhere.
pub(crate) fn output(command: &mut Command) -> Result<Output, Failure> {
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|error| Failure::start(Path::new(command.get_program()), &error))
}

/// The exit status; 1 for a program that a signal ended.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(1)
}
