//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};

use crate::mode::Mode;
use crate::systems::System;

/// Measure strand and what a user would pick instead, on the same disk in one run
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Parser)]
#[command(name = "strand-bench", max_term_width = 100)]
pub(crate) struct Cli {
    /// A directory on the disk to measure; all files are in a new directory inside it
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Events to write, one JSON object a line; generated events of about 650 bytes by default
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: Option<PathBuf>,
    /// Rounds; every system has its turn in each
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rounds and writes: takes less than three minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Numbers of processes that write at once
    #[arg(long, value_delimiter = ',', default_value = "1,5,20,100")]
    pub(crate) agents: Vec<usize>,
    /// Events that each process writes; by default 200, more for one process, fewer for a hundred
    #[arg(long)]
    writes: Option<usize>,
    /// Whether agents are processes, or threads of one process that share an open store
    #[arg(long, value_enum, default_value_t, requires_if("thread", "rows_only"))]
    pub(crate) mode: Mode,
    /// Systems to measure; by default all that were built
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<System>,
    /// Make each sync take so many microseconds longer, as on a slow disk. Leaves out the systems
    /// whose syncs can't be slowed
    #[arg(long, value_name = "N", default_value_t = 0, requires = "rows_only")]
    slow_sync_us: u64,
    /// Measure appends only: not opening, reading, memory, one-shot processes and the state
    #[arg(long)]
    pub(crate) rows_only: bool,
    /// Measure everything but the appends
    #[arg(long, conflicts_with = "rows_only")]
    pub(crate) no_rows: bool,
    /// How many issues a tracker has whose one-shot answers are measured
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) state_issues: usize,
    /// Measure nothing but one-shot answers
    #[arg(long, conflicts_with_all = ["rows_only", "no_rows"])]
    pub(crate) answers_only: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write an HTML report with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Compare the ratios with those in an earlier run's JSON; exit with status 1 if one is worse
    /// by half or more
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// Write the plot of the throughput as an SVG image
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 5 } else { 7 }).max(1)
    }

    /// The systems that are measured: all but those to skip.
    pub(crate) fn systems(&self, skipped: &[(System, String)]) -> Vec<System> {
        let mut systems = self.chosen().to_vec();
        systems.retain(|system| skipped.iter().all(|(skipped, _)| skipped != system));
        systems
    }

    /// The systems that can't be measured in this run or on this machine, and why.
    pub(crate) fn skipped(&self) -> Vec<(System, String)> {
        let cannot_be_slowed = |system: System| {
            let cannot = !self.slow_sync().is_zero() && !system.can_be_slowed();
            cannot.then(|| "its syncs can't be slowed".to_owned())
        };
        let of_this_mode = |system: System| {
            let why = match self.mode {
                Mode::Process => "only one process can have it open (see --mode thread)",
                Mode::Thread => "its agents are no threads",
            };
            (!system.runs_in(self.mode)).then(|| why.to_owned())
        };
        let why = |system: System| {
            let why = of_this_mode(system).or_else(|| cannot_be_slowed(system));
            why.or_else(|| system.missing())
        };
        let systems = self.chosen().iter().copied();
        systems
            .filter_map(|system| Some((system, why(system)?)))
            .collect()
    }

    fn chosen(&self) -> &[System] {
        if self.systems.is_empty() {
            System::value_variants()
        } else {
            &self.systems
        }
    }

    /// By how much each sync is slowed.
    pub(crate) fn slow_sync(&self) -> Duration {
        Duration::from_micros(self.slow_sync_us)
    }

    /// Events that each agent writes, the same for every system. SQLite's rate depends on it: it
    /// lets one agent go on while the others sleep, so that short turns make it look slower with
    /// many agents, and long ones faster with few.
    pub(crate) fn writes(&self, agents: usize) -> usize {
        let writes = match agents {
            1 if self.quick => 1_000,
            1 => 2_000,
            50.. if self.quick => 50,
            50.. => 100,
            _ => 200,
        };
        self.writes.unwrap_or(writes).max(1)
    }

    /// A turn that takes longer is cut off. Its rate is that of the events written until then.
    pub(crate) fn cap(&self) -> Duration {
        Duration::from_secs(if self.quick { 10 } else { 30 })
    }

    /// Repetitions of a measurement outside the rounds.
    pub(crate) fn repeats(&self) -> usize {
        if self.quick { 60 } else { 200 }
    }
}
