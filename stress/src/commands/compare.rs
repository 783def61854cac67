//! `strand-stress compare`: every store of this machine in the same runs, as one table and page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::commands::{EXIT_USAGE, can_write, own_binary, run, say, write};
use crate::evidence::listing::kinds;
use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::report::compare::{Comparison, Missing, PICTURED, Row, markdown, page, picture, table};
use crate::report::text::json;
use crate::run::RunError;
use crate::run::config::{Config, STRAND, fresh_seed};
use crate::stores::spec::BUILT_IN;
use crate::stores::{self, is_there};

/// Agents and writes of each.
const SHAPES: [(u32, u32); 3] = [(5, 20), PICTURED, (20, 20)];
/// The rate of kills, in runs with kills.
const KILLS_PER_SECOND: f64 = 10.0;
/// A run that takes longer hangs.
const LIMIT_S: u64 = 120;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these stores [default: all that are installed]
    #[arg(long, value_name = "S", value_delimiter = ',')]
    stores: Vec<String>,
    /// Decides victims
    #[arg(long, default_value_t = fresh_seed(), hide_default_value = true, value_name = "S")]
    seed: u64,
    /// Make the stores in new directories below this one [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write an HTML report to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the table as Markdown to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a picture of the runs with 10 agents and a process for each write to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does all runs. The exit status says whether there was something to compare; what the stores lose
/// is in the table.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    if !can_write([arguments.json.as_deref(), arguments.html.as_deref()]) {
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let mut names: Vec<&str> = vec![STRAND, "locked-file"];
    names.extend(BUILT_IN.into_iter().map(|(name, _)| name));
    if !arguments.stores.is_empty() {
        names = arguments.stores.iter().map(String::as_str).collect();
    }
    let dir = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut comparison = Comparison::new(arguments.seed, &dir);
    let interrupt = Interrupt::listen();
    for name in names {
        if let Err(reason) = is_there(name, &exe) {
            say(&format!("SKIPPED {name}: {reason}"));
            let store = name.to_owned();
            comparison.missing.push(Missing { store, reason });
            continue;
        }
        for config in configs(name, arguments) {
            if interrupt.is_asked() {
                break;
            }
            match row(&config, &exe) {
                Ok(row) => {
                    say(&row.line());
                    comparison.rows.push(row);
                }
                Err(error) => {
                    say(&format!("SKIPPED {name}: {error}"));
                    let reason = error.to_string();
                    let store = name.to_owned();
                    comparison.missing.push(Missing { store, reason });
                    break;
                }
            }
        }
    }
    say(&table(&comparison));
    let written = [
        write(arguments.html.as_deref(), || page(&comparison)),
        write(arguments.markdown.as_deref(), || markdown(&comparison)),
        write(arguments.svg.as_deref(), || picture(&comparison)),
        write(arguments.json.as_deref(), || json(&comparison)),
    ];
    let verdict = if interrupt.is_asked() {
        Verdict::Interrupted
    } else if comparison.rows.is_empty() {
        Verdict::Environment
    } else {
        Verdict::Pass
    };
    ExitCode::from(verdict.exit_status_when(written == [true; 4]))
}

/// The runs of one store.
fn configs(store: &str, arguments: &Arguments) -> Vec<Config> {
    // A command is a process for each write in any case.
    let is_resident = store == STRAND || store.starts_with("locked-file");
    let modes = if is_resident {
        &[true, false][..]
    } else {
        &[true]
    };
    let mut configs = Vec::new();
    for &one_shot in modes {
        for (agents, writes) in SHAPES {
            for kill_per_second in [0.0, KILLS_PER_SECOND] {
                configs.push(Config {
                    store: store.to_owned(),
                    agents,
                    writes,
                    one_shot,
                    kill_per_second,
                    seed: arguments.seed,
                    dir: arguments.dir.clone(),
                    timeout_s: LIMIT_S,
                    shrink_s: 0,
                    ..Config::default()
                });
            }
        }
    }
    configs
}

fn row(config: &Config, exe: &Path) -> Result<Row, RunError> {
    if config.store == STRAND {
        let report = run::run(config, exe, &|_| {})?;
        discard(report.store.as_deref().and_then(Path::parent));
        return Ok(Row {
            store: STRAND.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: config.clone(),
            verdict: report.verdict,
            seconds: report.elapsed_ms / 1e3,
            acknowledged: report.acknowledged,
            refused: report.refused,
            unknown: report.unknown,
            stalls: None,
            kinds: kinds(&report.violations),
        });
    }
    let report = stores::run(config, exe, &|_| {})?;
    discard(report.kept.as_deref());
    Ok(Row {
        store: report.store,
        version: report.version,
        config: config.clone(),
        verdict: report.verdict,
        seconds: report.elapsed_ms / 1e3,
        acknowledged: report.answers.ok,
        refused: report.answers.refused + report.answers.failed,
        unknown: report.answers.unknown,
        stalls: Some(report.stalls),
        kinds: report.kinds,
    })
}

/// A run that lost something is repeated by its line; its files are not needed here.
fn discard(kept: Option<&Path>) {
    drop(kept.map(std::fs::remove_dir_all));
}
