//! `cargo xtask bench`: strand beside what a user would pick instead, on one disk in one run.
//!
//! Systems take turns (see [`schedule`]), each with real processes that begin at one barrier and
//! write the same events. What it prints is described in `docs/PERFORMANCE.md`.
#![forbid(unsafe_code)]

mod agent;
mod barrier;
mod bars;
mod cli;
mod compare;
mod events;
mod html;
mod machine;
mod measure;
mod one_shot;
mod progress;
mod report;
mod run;
mod schedule;
mod state;
mod statistics;
mod systems;

use std::{iter::successors, path::Path, process::ExitCode, time::Instant};

use clap::Parser as _;

use crate::{cli::Cli, compare::Earlier, progress::Progress, report::Report};

/// An error that ends the program with a message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    // The processes that are measured are this program too; they get no further than this, so that
    // none of them pays for parsing a command line.
    let result = match args.next().as_deref() {
        Some(agent::COMMAND) => agent::main(args),
        Some(one_shot::COMMAND) => one_shot::main(args),
        Some(state::COMMAND) => state::main(args),
        Some(measure::MEMORY_COMMAND) => measure::memory_main(args),
        _ => bench(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in successors(error.source(), |error| error.source()) {
                eprintln!("caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let cli = Cli::parse();
    let started = Instant::now();
    // Read first: the run may write over it.
    let earlier = cli.compare.as_deref().map(earlier).transpose()?.flatten();
    let scratch = tempfile::Builder::new()
        .prefix("strand-bench-")
        .tempdir_in(&cli.dir)?;
    let events = events::sample(cli.payload.as_deref())?;
    let events_file = scratch.path().join("events.jsonl");
    events::save(&events, &events_file)?;

    let rounds = if cli.no_rows { 0 } else { cli.rounds() };
    let steps = schedule::steps(rounds, &cli.agents, &cli.systems(), |agents| {
        cli.writes(agents)
    });
    let mut progress = Progress::new(steps.len() + measure::parts(&cli), cli.rounds());
    let mut report = Report::new(&cli, &events);
    let runner = run::Runner {
        scratch: scratch.path(),
        events_file: &events_file,
        cap: cli.cap(),
    };
    for step in &steps {
        progress.step(step.round, &step.to_string());
        report.add(step, runner.run(step)?);
    }
    if !cli.rows_only {
        measure::all(&cli, &runner, &events, &mut progress, &mut report.extras)?;
    }
    progress.finish();
    report.seconds = started.elapsed().as_secs_f64();

    let summary = report.summary();
    print!("{}", summary.table());
    if let Some(path) = &cli.json {
        std::fs::write(path, serde_json::to_string_pretty(&summary)? + "\n")?;
    }
    if let Some(path) = &cli.html {
        std::fs::write(path, html::page(&summary))?;
    }
    if let Some(path) = &cli.svg {
        std::fs::write(path, html::image(&summary))?;
    }
    if let Some(earlier) = earlier {
        let (table, is_worse) = compare::table(&compare::compare(&earlier, &summary.ratios));
        print!("\n{table}");
        if is_worse {
            return Err("some figures are worse than in the earlier run".into());
        }
    }
    Ok(())
}

/// `None` where there is none: the first run has nothing to compare with.
fn earlier(path: &Path) -> Result<Option<Earlier>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{}: no earlier run to compare with", path.display());
            return Ok(None);
        }
        text => text.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let earlier = serde_json::from_slice(&text);
    Ok(Some(earlier.map_err(|error| {
        format!("{} is no run's JSON: {error}", path.display())
    })?))
}
