//! `strand-stress soak`: a soak, reported.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tempfile::TempDir;

use crate::commands::{EXIT_USAGE, can_write, own_binary, say, write};
use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::report::machine::Machine;
use crate::report::page::soak::page;
use crate::report::progress::{Goal, Progress, State};
use crate::report::soak::Report;
use crate::run::config::{MINUTES_MAX, UsageError, fresh_seed};
use crate::soak;

/// The flags of `soak`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How long to soak, in minutes
    #[arg(long, value_name = "M")]
    pub minutes: f64,
    /// Decides all random choices [default: a new one, printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Write a JSON report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write an HTML report to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print only the verdict
    #[arg(long)]
    pub quiet: bool,
    /// Make the stores in a new directory below this one [default: the system's temporary
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Soaks and reports. The exit status is that of the harness.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    if let Err(error) = validate(arguments) {
        eprintln!("strand-stress: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    if !arguments.quiet {
        say(&format!(
            "strand-stress: soak, seed {seed}, {} minutes",
            arguments.minutes
        ));
    }
    if !can_write([arguments.json.as_deref(), arguments.html.as_deref()]) {
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let dir = match make_dir(arguments, seed) {
        Ok(dir) => dir,
        Err(error) => {
            eprintln!("strand-stress: {error}");
            return ExitCode::from(Verdict::Environment.exit_status());
        }
    };
    let machine = Machine::of(dir.path());
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let progress = Progress::new(arguments.quiet, Goal::Time(time));
    let interrupt = Interrupt::listen();
    let outcome = soak::run(time, seed, &exe, dir, &interrupt, &|stage| {
        progress.show(&State {
            phase: stage.kind,
            done: stage.rounds,
            unit: "rounds",
            events: stage.events.clone(),
        });
    });
    progress.finish();
    let minutes = arguments.minutes;
    let report = Report {
        seed,
        planned_minutes: minutes,
        machine,
        outcome,
        replay: format!("cargo xtask soak --minutes {minutes} --seed {seed}"),
    };
    if !arguments.quiet {
        say(report.table().trim_end());
    }
    say(&report.verdict_line());
    let written = [
        write(arguments.json.as_deref(), || report.to_json()),
        write(arguments.html.as_deref(), || page(&report)),
    ] == [true; 2];
    ExitCode::from(report.outcome.verdict.exit_status_when(written))
}

fn validate(arguments: &Arguments) -> Result<(), UsageError> {
    let minutes = arguments.minutes;
    if !minutes.is_finite() || minutes <= 0.0 || minutes > MINUTES_MAX {
        let what = format!("--minutes takes a number above 0, up to {MINUTES_MAX}");
        return Err(UsageError(what));
    }
    Ok(())
}

fn make_dir(arguments: &Arguments, seed: u64) -> io::Result<TempDir> {
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    fs::create_dir_all(&parent)?;
    tempfile::Builder::new()
        .prefix(&format!("strand-soak-{seed}-"))
        .tempdir_in(parent.canonicalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        for minutes in [0.0, -1.0, f64::NAN, MINUTES_MAX + 1.0] {
            let arguments = Arguments {
                minutes,
                seed: None,
                json: None,
                html: None,
                quiet: false,
                dir: None,
            };
            assert!(validate(&arguments).is_err(), "{minutes}");
        }
    }
}
