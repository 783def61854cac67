//! `strand-stress powercut`: T8b alone, with so many crash states of each filesystem.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::commands::{EXIT_USAGE, can_write, own_binary, say, write};
use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::report::machine::Machine;
use crate::report::page;
use crate::report::tiers::{Report, SCHEMA, TierReport};
use crate::run::config::fresh_seed;
#[cfg(target_os = "linux")]
pub use crate::tiers::kernel_cuts::recording::agent_main;
use crate::tiers::kernel_cuts::{ATTACKS, Wanted, filesystems, run_wanted};
use crate::tiers::tally::Budget;

/// The flags of `powercut`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Only these filesystems, with commas between them [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub fs: Vec<String>,
    /// Crash states of each filesystem
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub states: u64,
    /// Decides what is drawn; the kernel decides the rest [default: a fresh one, printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write an HTML report to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Tries the crash states. The exit status is that of the harness.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let known = filesystems();
    let is_unknown = |name: &&String| !known.contains(&name.as_str());
    if let Some(name) = arguments.fs.iter().find(is_unknown) {
        let known = known.join(", ");
        eprintln!("strand-stress: --fs takes one of {known}, not {name:?}");
        return ExitCode::from(EXIT_USAGE);
    }
    if !can_write([arguments.json.as_deref(), arguments.html.as_deref()]) {
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let states = arguments.states;
    say(&format!(
        "strand-stress: powercut, seed {seed}, {states} states of each filesystem"
    ));
    let interrupt = Interrupt::listen();
    let budget = Budget {
        seed,
        // Not the limit: the number of states is.
        time: Duration::from_hours(24 * 365),
        quick: false,
        threads: 1,
        exe,
        tried: Arc::default(),
        interrupt: interrupt.clone(),
    };
    let wanted = Wanted {
        filesystems: arguments.fs.clone(),
        states: Some(states),
    };
    let mut tally = run_wanted(&budget, &wanted);
    tally.interrupted = interrupt.is_asked();
    let chosen = match arguments.fs.as_slice() {
        [] => String::new(),
        some => format!(" --fs {}", some.join(",")),
    };
    let replay = format!("cargo xtask powercut --seed {seed} --states {states}{chosen}");
    let tiers = vec![TierReport {
        attacks: ATTACKS,
        planned_seconds: tally.seconds,
        tally,
    }];
    let seconds = tiers.iter().map(|tier| tier.tally.seconds).sum();
    let report = Report {
        schema: SCHEMA,
        verdict: Report::judge(&tiers, None, interrupt.is_asked()),
        seed,
        quick: false,
        planned_seconds: seconds,
        seconds,
        machine: Machine::of(&std::env::temp_dir()),
        tiers,
        hang: None,
        replay,
    };
    say(report.table().trim_end());
    say(&report.verdict_line());
    let written = [
        write(arguments.json.as_deref(), || report.to_json()),
        write(arguments.html.as_deref(), || page::tiers::page(&report)),
    ] == [true; 2];
    ExitCode::from(report.verdict.exit_status_when(written))
}
