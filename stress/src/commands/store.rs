//! `strand-stress run --store S` for stores other than strand, and `check-spec`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::commands::{EXIT_USAGE, Runs, own_binary, say, write};
use crate::evidence::verdict::Verdict;
use crate::interrupt::{Interrupt, end_when_asked};
use crate::report::progress::{Goal, Progress, State};
use crate::report::store::{json, page, table, write_folder};
use crate::run::RunError;
use crate::run::config::Config;
use crate::run::runner::{Early, Moment, Watch};
use crate::stores::shrink::shrink;
use crate::stores::{self, Report};

/// Runs all iterations, up to the first failure. The exit status is that of the harness.
#[must_use]
pub fn main(config: &Config) -> ExitCode {
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let interrupt = Interrupt::listen();
    let mut runs = Runs::new(config);
    for iteration in 0.. {
        let config = config.of_iteration(iteration);
        if !config.quiet && iteration == 0 {
            let Config {
                seed,
                store,
                agents,
                writes,
                ..
            } = &config;
            say(&format!(
                "strand-stress: seed {seed}, {store}, {agents} agents x {writes} writes"
            ));
        }
        let report = match run(&config, &exe, &interrupt) {
            Ok(report) => report,
            Err(error) => return explain(&error),
        };
        if report.verdict == Verdict::Pass && runs.go_on_after(iteration) {
            if runs.show() {
                say(&report.verdict_line());
            }
            continue;
        }
        return finish(report, &config, &exe, &interrupt);
    }
    ExitCode::SUCCESS
}

fn run(config: &Config, exe: &Path, interrupt: &Interrupt) -> Result<Report, RunError> {
    let progress = Progress::new(config.quiet, Goal::Count(config.operations()));
    let show = |moment: &Moment| {
        progress.show(&State {
            done: moment.acknowledged,
            unit: "answered",
            events: moment.events(),
            ..State::default()
        });
    };
    let watch = Watch {
        progress: &show,
        early: &|| interrupt.is_asked().then_some(Early::Interrupted),
    };
    let report = stores::run_until(config, exe, watch);
    progress.finish();
    report
}

/// Prints the report; makes a failing run smaller first.
fn finish(report: Report, config: &Config, exe: &Path, interrupt: &Interrupt) -> ExitCode {
    if !config.quiet {
        say(table(&report).trim_end());
    }
    say(&report.verdict_line());
    let (verdict, operations) = (report.verdict, report.config.operations());
    let mut written = vec![
        write(config.json.as_deref(), || json(&report)),
        write(config.html.as_deref(), || page(&report)),
    ];
    if verdict == Verdict::Violated {
        let limit = Duration::from_secs(config.shrink_s);
        let smallest = shrink(report, exe, limit, &|| interrupt.is_asked());
        let kept = smallest.kept.as_deref().map(|kept| kept.join("report"));
        if let Some(dir) = config.report.clone().or(kept) {
            written.push(folder(&smallest, &dir));
        }
        if smallest.config.operations() < operations {
            say(&format!("smaller      {}", smallest.verdict_line()));
        }
        say(&format!("replay       {}", smallest.replay));
        if let Some(kept) = &smallest.kept {
            say(&format!("store        {}", kept.display()));
        }
    } else {
        if let Some(dir) = &config.report {
            written.push(folder(&report, dir));
        }
        for line in report.hang.iter().flatten() {
            say(&format!("  {line}"));
        }
        if let Some(kept) = &report.kept {
            say(&format!("store        {}", kept.display()));
        }
    }
    ExitCode::from(verdict.exit_status_when(written.iter().all(|written| *written)))
}

fn folder(report: &Report, dir: &Path) -> bool {
    match write_folder(report, dir) {
        Ok(()) => {
            say(&format!("report       {}", dir.display()));
            true
        }
        Err(error) => {
            eprintln!("strand-stress: cannot write {}: {error}", dir.display());
            false
        }
    }
}

/// Tries a spec and says what is tested.
#[must_use]
pub fn check_spec(config: &Config) -> ExitCode {
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    end_when_asked();
    match stores::check_spec(config, &exe) {
        Ok(summary) => {
            say(summary.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => explain(&error),
    }
}

fn explain(error: &RunError) -> ExitCode {
    eprintln!("strand-stress: {error}");
    match error {
        RunError::Usage(_) => ExitCode::from(EXIT_USAGE),
        RunError::Environment { .. } => ExitCode::from(error.exit_status()),
    }
}
