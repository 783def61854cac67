//! `cargo xtask bench`: measures strand and what a user would pick instead, on one disk in one run.
//!
//! Systems take turns (see [`schedule`]), each with real processes that begin together and write
//! the same events. docs/PERFORMANCE.md describes the output.
#![forbid(unsafe_code)]

mod answers;
mod appending;
mod barrier;
mod bars;
mod cli;
mod compare;
#[cfg(all(feature = "peers", unix))]
mod connections;
mod error;
mod events;
mod html;
mod measure;
mod measured;
mod memory;
mod mode;
mod one_shot;
mod process;
mod progress;
mod question;
mod report;
mod runner;
mod schedule;
mod state;
mod statistics;
mod systems;
mod usage;

use std::iter::successors;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use serde::Serialize;

use cli::Cli;
use compare::Earlier;
use error::Result;
use process::Work;
use progress::Progress;
use report::Report;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    // The processes that are measured are this program too, and skip the command line's parser.
    let result = match args.next().as_deref() {
        Some(process::COMMAND) => work(args.next()),
        Some(one_shot::COMMAND) => one_shot::main(args),
        Some(answers::COMMAND) => answers::main(args),
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

/// A process that is measured.
fn work(json: Option<String>) -> Result<()> {
    match serde_json::from_str(&json.unwrap_or_default())? {
        Work::Append(member, order) => print_json(&appending::work(&member, &order)?),
        #[cfg(all(feature = "peers", unix))]
        Work::AppendByConnections(member, order, connections) => {
            print_json(&connections::work(&member, &order, connections)?)
        }
        #[cfg(not(all(feature = "peers", unix)))]
        Work::AppendByConnections(..) => Err("built without servers as peers".into()),
        Work::AppendByThreads(member, order, threads) => {
            print_json(&appending::work_in_threads(&member, &order, threads)?)
        }
        Work::ClaimInStrand(member) => print_json(&state::claim_in_strand(&member)?),
        Work::ClaimInSqlite(member) => print_json(&state::claim_in_sqlite(&member)?),
        Work::Read(store) => state::read(&store),
        Work::Load(store) => state::load(&store),
        Work::AppendSome { store, events_file } => memory::append_some(&store, &events_file),
        Work::Answer {
            question,
            dir,
            id,
            version,
        } => answers::answer_and_print(question, &dir, &id, version),
        Work::Change(store) => answers::change(&store),
        Work::Compute => loop {
            std::hint::spin_loop();
        },
        Work::Nothing => memory::print_status(),
    }
}

fn print_json(report: &impl Serialize) -> Result<()> {
    Ok(serde_json::to_writer(std::io::stdout(), report)?)
}

fn bench() -> Result<()> {
    let cli = Cli::parse();
    let started = Instant::now();
    // Read first: the run may overwrite it.
    let earlier = cli.compare.as_deref().map(earlier).transpose()?.flatten();
    let scratch = runner::new_dir(&cli.dir)?;
    let events = events::sample(cli.payload.as_deref())?;
    let events_file = scratch.path().join("events.jsonl");
    events::save(&events, &events_file)?;

    let rounds = if cli.no_rows || cli.answers_only {
        0
    } else {
        cli.rounds()
    };
    let skipped = cli.skipped();
    for (system, why) in &skipped {
        eprintln!("{}: SKIPPED, {why}", system.title());
    }
    let steps = schedule::steps(rounds, &cli.agents, &cli.systems(&skipped), |agents| {
        cli.writes(agents)
    });
    let mut progress = Progress::new(steps.len() + measure::parts(&cli), cli.rounds());
    let mut report = Report::new(&cli, &events, skipped);
    let runner = runner::Runner {
        scratch: scratch.path(),
        events_file: &events_file,
        cap: cli.cap(),
        slow_sync: cli.slow_sync(),
        mode: cli.mode,
    };
    for step in &steps {
        progress.step(step.round, &step.to_string());
        report.add(step, appending::turn(&runner, step)?);
    }
    if !cli.rows_only {
        measure::all(&cli, &runner, &events, &mut progress, &mut report.extras)?;
    }
    progress.finish();
    report.seconds = started.elapsed().as_secs_f64();

    let summary = report.summary();
    print!("{}", summary.text());
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
            return Err("some ratios are worse than in the earlier run".into());
        }
    }
    Ok(())
}

/// `None` if the file does not exist, as before the first run.
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
        format!("{} is not the JSON of a run: {error}", path.display())
    })?))
}
