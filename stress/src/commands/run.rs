//! `strand-stress run` and `replay`: runs, each judged and reported.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::commands::{EXIT_USAGE, Runs, can_write, own_binary, say, write};
use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::report::page::run::page;
use crate::report::progress::{Goal, Progress, State};
use crate::report::run::{Report, iterations};
use crate::run::RunError;
use crate::run::config::{Config, Mode, STRAND, Workload};
use crate::run::judgement::failure_trailer;
use crate::run::runner::{Early, Moment, Watch};

/// Does one run, judges it and makes its report. `exe` is the `strand-stress` binary, from which
/// agents are started; `progress` is called from time to time.
///
/// The store is in a directory of its own, which is removed after a run that passed, unless
/// [`Config::keep`] is set; [`Report::store`] says where it was kept.
///
/// # Errors
/// [`RunError::Usage`] before anything was done; [`RunError::Environment`] when a directory could
/// not be made or a process not be started. Every process that was started is reaped.
pub fn run(config: &Config, exe: &Path, progress: &dyn Fn(&Moment)) -> Result<Report, RunError> {
    run_until(config, exe, Watch::only(progress))
}

fn run_until(config: &Config, exe: &Path, watch: Watch<'_>) -> Result<Report, RunError> {
    let report = Report::new(&crate::run::run_until(config, exe, watch)?);
    if let Some(dir) = report.store.as_deref().and_then(Path::parent) {
        let path = dir.join("report.json");
        fs::write(&path, report.to_json()).map_err(|error| RunError::Environment {
            message: format!("{}: {error}", path.display()),
            store: report.store.clone(),
        })?;
    }
    Ok(report)
}

/// Runs all iterations, up to the first failure. The exit status is that of the harness.
#[must_use]
pub fn main(config: &Config) -> ExitCode {
    if let Err(error) = config.validate() {
        eprintln!("strand-stress: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    if !can_write([config.json.as_deref(), config.html.as_deref()]) {
        return ExitCode::from(EXIT_USAGE);
    }
    if config.store != STRAND && !config.is_etcd() {
        #[cfg(unix)]
        return crate::commands::store::main(config);
        #[cfg(not(unix))]
        return {
            eprintln!("strand-stress: --store needs Unix");
            ExitCode::from(EXIT_USAGE)
        };
    }
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let interrupt = Interrupt::listen();
    let mut elapsed_ms = Vec::new();
    let (mut acknowledged, mut killed) = (0, 0);
    let mut runs = Runs::new(config);
    for iteration in 0.. {
        let config = config.of_iteration(iteration);
        if !config.quiet && iteration == 0 {
            say(&headline(&config));
            if config.verbose {
                let json = serde_json::to_string(&config).unwrap_or_default();
                say(&format!("config       {json}"));
            }
        }
        let mut report = match run_one(&config, &exe, &interrupt) {
            Ok(report) => report,
            Err(error) => {
                print_error(&config, &error);
                return ExitCode::from(error.exit_status());
            }
        };
        elapsed_ms.push(report.elapsed_ms);
        acknowledged += report.acknowledged;
        killed += report.killed;
        let is_last = report.verdict != Verdict::Pass || !runs.go_on_after(iteration);
        if is_last {
            report.iterations = iterations(&elapsed_ms, acknowledged, killed);
        }
        if is_last || runs.show() {
            print_report(&report, is_last);
        }
        if is_last {
            let written = [
                write(config.json.as_deref(), || report.to_json()),
                write(config.html.as_deref(), || page(&report)),
            ] == [true; 2];
            return ExitCode::from(report.verdict.exit_status_when(written));
        }
    }
    ExitCode::SUCCESS
}

fn run_one(config: &Config, exe: &Path, interrupt: &Interrupt) -> Result<Report, RunError> {
    let progress = Progress::new(config.quiet, Goal::Count(config.operations()));
    let show = |moment: &Moment| {
        progress.show(&State {
            done: moment.acknowledged + moment.refused,
            unit: "answered",
            events: moment.events(),
            ..State::default()
        });
    };
    let watch = Watch {
        progress: &show,
        early: &|| interrupt.is_asked().then_some(Early::Interrupted),
    };
    let result = run_until(config, exe, watch);
    progress.finish();
    result
}

/// Prints the table of the last run, and a line for each run before it.
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
            "iterations   {} runs, {} acknowledged, {} processes killed, {:.2} ms median, {:.2} ms at \
             most",
            together.completed,
            together.acknowledged,
            together.killed,
            together.elapsed_ms_median,
            together.elapsed_ms_max
        ));
    }
    say(&report.verdict_line);
    if !report.verdict.is_good() {
        say(report.failure_details.trim_end());
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
            say(&failure_trailer(config, store.as_deref()));
        }
    }
}

/// The run in one line.
fn headline(config: &Config) -> String {
    let mode = match (config.mode, config.one_shot) {
        (Mode::Thread, _) => "threads of one process",
        (Mode::Process, true) => "a process for each write",
        (Mode::Process, false) => "processes",
    };
    let (seed, agents) = (config.seed, config.agents);
    let writes = match config.workload {
        Workload::Replay => "by the events of the file".to_owned(),
        _ => format!("x {} writes", config.writes),
    };
    format!("strand-stress: seed {seed}, {agents} agents {writes}, {mode}")
}
