//! Why a task failed.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// A message for standard error, and the task's exit status: that of the harness where the harness
/// failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Empty where the program that failed has said it.
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Failure {
    const VIOLATION: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    const ENVIRONMENT: u8 = 4;

    fn new(message: impl Into<String>, code: u8) -> Failure {
        let message = message.into();
        Failure { message, code }
    }

    /// A check does not hold.
    pub(crate) fn violation(message: impl Into<String>) -> Failure {
        Failure::new(message, Failure::VIOLATION)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(message, Failure::USAGE)
    }

    /// A tool is missing, or the system refused something.
    pub(crate) fn environment(message: impl Into<String>) -> Failure {
        Failure::new(message, Failure::ENVIRONMENT)
    }

    pub(crate) fn at(path: &Path, error: impl Display) -> Failure {
        Failure::environment(format!("{}: {error}", path.display()))
    }

    pub(crate) fn start(program: &Path, error: &io::Error) -> Failure {
        Failure::environment(format!("cannot start {}: {error}", program.display()))
    }
}
