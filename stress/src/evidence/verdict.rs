//! The verdict on a run, a tier or a soak.

use serde::Serialize;

const EXIT_PASS: u8 = 0;
const EXIT_VIOLATED: u8 = 1;
const EXIT_HANG: u8 = 3;
const EXIT_ENVIRONMENT: u8 = 4;
const EXIT_UNKNOWN: u8 = 5;
/// As the shell has it for a command that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every invariant holds.
    Pass,
    /// At least one does not.
    Violated,
    /// The run did not end.
    Hang,
    /// Something outside the log stopped it.
    Environment,
    /// Nothing is wrong, and nothing could be compared.
    Unknown,
    /// Nothing is wrong in what was done before the user interrupted it.
    Interrupted,
}

impl Verdict {
    /// The exit status of the harness.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Verdict::Pass => EXIT_PASS,
            Verdict::Violated => EXIT_VIOLATED,
            Verdict::Hang => EXIT_HANG,
            Verdict::Environment => EXIT_ENVIRONMENT,
            Verdict::Unknown => EXIT_UNKNOWN,
            Verdict::Interrupted => EXIT_INTERRUPTED,
        }
    }

    /// Whether there is nothing to look at: nothing is wrong in what was done.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Verdict::Pass | Verdict::Interrupted)
    }

    /// The exit status; a report that could not be `written` is a failure of the environment.
    #[must_use]
    pub fn exit_status_when(self, written: bool) -> u8 {
        match self {
            Verdict::Pass if !written => EXIT_ENVIRONMENT,
            verdict => verdict.exit_status(),
        }
    }
}
