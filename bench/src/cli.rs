use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum as _};

use crate::systems::System;

/// Measures strand beside SQLite, LMDB and a plain locked file, on the same disk in one run.
#[derive(Debug, Parser)]
#[command(name = "strand-bench", max_term_width = 100)]
pub(crate) struct Cli {
    /// Directory on the disk to measure; everything happens in a new directory inside it.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Events to write, one JSON object a line; without it, events of about 650 bytes are made up.
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: Option<PathBuf>,
    /// Rounds, in each of which every system has its turn.
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rounds and writes: finishes in under three minutes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How many processes write at once.
    #[arg(long, value_delimiter = ',', default_value = "1,5,20,100")]
    pub(crate) agents: Vec<usize>,
    /// Events that each process writes, instead of 200, more by one alone and fewer by a hundred.
    #[arg(long)]
    writes: Option<usize>,
    /// Systems to measure, instead of all that were built.
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<System>,
    /// Measure appends only, and not opening, reading, memory and one-shot processes.
    #[arg(long)]
    pub(crate) rows_only: bool,
    /// Measure none of the appends, only the rest.
    #[arg(long, conflicts_with = "rows_only")]
    pub(crate) no_rows: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write one page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Compare the ratios with those of an earlier run's JSON; where one is worse by half or more, end with status 1.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// Write the plot of the throughput as an image to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 5 } else { 7 }).max(1)
    }

    pub(crate) fn systems(&self) -> Vec<System> {
        if self.systems.is_empty() {
            System::value_variants().to_vec()
        } else {
            self.systems.clone()
        }
    }

    /// Events that each agent writes: the same for every system. SQLite's rate depends on it, since
    /// it lets one agent go on while the others sleep: short turns would make it look slower with
    /// many agents than it is, and long ones faster with few.
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

    /// A turn that takes longer is cut off; its rate is that of the events written until then.
    pub(crate) fn cap(&self) -> Duration {
        Duration::from_secs(if self.quick { 10 } else { 30 })
    }

    /// How often a measurement outside the rounds is repeated.
    pub(crate) fn repeats(&self) -> usize {
        if self.quick { 60 } else { 200 }
    }
}
