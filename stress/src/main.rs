//! `strand-stress run`: see the library's documentation.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use strand_stress::report::progress::{Goal, Progress, State};
use strand_stress::report::run::{Report, Verdict, headline};
use strand_stress::run::config::{Config, Workload};
use strand_stress::{
    RunError,
    report::{page, run as report},
    run::process,
    soak, torture,
};

const EXIT_USAGE: u8 = 2;
const EXIT_ENVIRONMENT: u8 = 4;

#[derive(Parser)]
#[command(
    about = "Real processes write to one log; every acknowledged append must be stored, exactly",
    after_help = "Exit status: 0 every invariant holds; 1 one is violated; 2 usage; 3 hang; \
                  4 the environment failed"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start agents, let them write, and judge what is stored
    Run(Box<Config>),
    /// Let agents append the events of a file, each issue's by one of them, and judge what is stored
    Replay(Box<Config>),
    /// Attack the log tier by tier, each with its count, and end with a table
    Torture(torture::Arguments),
    /// Alternate everything for a time, and look at what grows meanwhile
    Soak(soak::Arguments),
    /// Be a process that stays (started by `soak`)
    #[command(hide = true)]
    Worker,
    /// Be an agent (started by `run`)
    #[command(hide = true)]
    Agent,
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments {
            command: Command::Run(config),
        }) => run_all(&config),
        Ok(Arguments {
            command: Command::Replay(config),
        }) => run_all(&Config {
            workload: Workload::Replay,
            ..*config
        }),
        Ok(Arguments {
            command: Command::Torture(arguments),
        }) => torture::main(&arguments),
        Ok(Arguments {
            command: Command::Soak(arguments),
        }) => soak::main(&arguments),
        Ok(Arguments {
            command: Command::Worker,
        }) => soak::worker::main(),
        Ok(Arguments {
            command: Command::Agent,
        }) => process::main(),
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // Nothing is left to be done when even this cannot be printed.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}

/// Runs all iterations, to the first failure.
fn run_all(config: &Config) -> ExitCode {
    if let Err(error) = config.validate() {
        eprintln!("strand-stress: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => {
            eprintln!("strand-stress: cannot find its own binary: {error}");
            return ExitCode::from(EXIT_ENVIRONMENT);
        }
    };
    let mut elapsed_ms = Vec::new();
    let mut acknowledged = 0;
    for iteration in 0..config.iterations {
        let seed = config.seed.wrapping_add(u64::from(iteration));
        let config = Config {
            seed,
            ..config.clone()
        };
        if !config.quiet && iteration == 0 {
            say(&headline(&config));
        }
        let mut report = match run_one(&config, &exe) {
            Ok(report) => report,
            Err(error) => {
                print_error(&config, &error);
                return ExitCode::from(error.exit_status());
            }
        };
        elapsed_ms.push(report.elapsed_ms);
        acknowledged += report.acknowledged;
        report.iterations = report::iterations(&elapsed_ms, acknowledged);
        let is_last = iteration + 1 == config.iterations || report.verdict != Verdict::Pass;
        print_report(&report, is_last);
        if is_last {
            let written = [
                report::write(config.json.as_deref(), || report.to_json()),
                report::write(config.html.as_deref(), || page::run::page(&report)),
            ] == [true; 2];
            return ExitCode::from(report.verdict.exit_status_when(written));
        }
    }
    ExitCode::SUCCESS
}

fn run_one(config: &Config, exe: &Path) -> Result<Report, RunError> {
    let progress = Progress::new(config.quiet, Goal::Count(config.operations()));
    let result = strand_stress::run(config, exe, &|moment| {
        progress.show(&State {
            done: moment.acknowledged + moment.refused,
            unit: "answered",
            events: moment.events(),
            ..State::default()
        });
    });
    progress.finish();
    result
}

/// The table belongs to the last run; those before it get a line each.
fn print_report(report: &Report, is_last: bool) {
    let config = &report.config;
    if is_last && !config.quiet {
        say(report.table().trim_end());
    }
    if is_last && (config.report_starvation) {
        say(report.starvation_table().trim_end());
    }
    if is_last && !config.quiet && report.iterations.completed > 1 {
        let together = &report.iterations;
        say(&format!(
            "iterations   {} runs, {} acknowledged, {:.2} ms median, {:.2} ms at most",
            together.completed,
            together.acknowledged,
            together.elapsed_ms_median,
            together.elapsed_ms_max
        ));
    }
    say(&report.verdict_line());
    if report.verdict != Verdict::Pass {
        say(report.failure_details().trim_end());
    } else if let Some(store) = &report.store {
        say(&format!("store        {}", store.display()));
    }
}

fn print_error(config: &Config, error: &RunError) {
    match error {
        RunError::Usage(error) => eprintln!("strand-stress: {error}"),
        RunError::Environment { message, store } => {
            say("FAIL: the environment failed");
            say(&format!("  {message}"));
            say(&report::failure_trailer(config, store.as_deref()));
        }
    }
}

/// Prints a line. Whoever closed the pipe does not want to read it.
fn say(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}
