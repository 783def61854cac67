//! The results of a run, as text and as JSON.

use std::fs;
use std::path::Path;

use serde::Serialize;
use strand_stress::report::machine::Machine;
use strand_stress::report::text::columns;

use crate::appending::Turn;
use crate::bars::{self, Ratio};
use crate::cli::Cli;
use crate::events::{self, Event};
use crate::measure::Extras;
use crate::measured::{Measured, Row, rounded};
use crate::mode::Mode;
use crate::schedule::Step;
use crate::systems::System;

/// The results so far.
pub(crate) struct Report {
    machine: Circumstances,
    payload: Payload,
    rounds: usize,
    mode: Mode,
    is_slow: bool,
    rows: Vec<Measured>,
    skipped: Vec<Skipped>,
    pub(crate) extras: Extras,
    pub(crate) seconds: f64,
}

/// The events written.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Payload {
    pub(crate) source: &'static str,
    pub(crate) events: usize,
    pub(crate) mean_bytes: usize,
}

/// A system that could not be measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    title: &'static str,
    why: String,
}

impl Report {
    pub(crate) fn new(cli: &Cli, events: &[Event], skipped: Vec<(System, String)>) -> Self {
        let skipped = skipped.into_iter().map(|(system, why)| Skipped {
            title: system.title(),
            why,
        });
        Self {
            machine: Circumstances::of(&cli.dir),
            payload: Payload {
                source: if cli.payload.is_some() {
                    "file"
                } else {
                    "generated"
                },
                events: events.len(),
                mean_bytes: events::mean_bytes(events),
            },
            rounds: cli.rounds(),
            mode: cli.mode,
            is_slow: !cli.slow_sync().is_zero(),
            rows: Vec::new(),
            skipped: skipped.collect(),
            extras: Extras::default(),
            seconds: 0.0,
        }
    }

    pub(crate) fn add(&mut self, step: &Step, turn: Turn) {
        let same = |row: &&mut Measured| (row.system, row.agents) == (step.system, step.agents);
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.add(turn);
        } else {
            let mut row = Measured::new(step.system, step.agents, step.writes);
            row.add(turn);
            self.rows.push(row);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let (limits, rows) = self
            .rows
            .iter()
            .map(Measured::row)
            .partition(|row: &Row| row.is_limit);
        Summary {
            seconds: rounded(self.seconds),
            rounds: self.rounds,
            machine: self.machine.clone(),
            payload: self.payload.clone(),
            limits,
            rows,
            skipped: self.skipped.clone(),
            // The bars are of processes.
            ratios: match self.mode {
                Mode::Process => bars::ratios(&self.rows, self.is_slow, &self.extras),
                Mode::Thread => Vec::new(),
            },
            agents: self.mode,
            extras: self.extras.clone(),
        }
    }
}

/// The machine, and how busy it was.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Circumstances {
    processor: String,
    #[serde(flatten)]
    machine: Machine,
    /// The load average of the last minute before the run. Results from a busy machine are noisy.
    load_before: f64,
}

impl Circumstances {
    fn of(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().and_then(|load| load.parse().ok());
        Self {
            processor: model
                .unwrap_or_default()
                .trim_start_matches(['\t', ' ', ':'])
                .to_owned(),
            machine: Machine::of(dir),
            load_before: load.unwrap_or(f64::NAN),
        }
    }
}

/// All results of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    /// What an agent is.
    pub(crate) agents: Mode,
    pub(crate) machine: Circumstances,
    pub(crate) payload: Payload,
    pub(crate) limits: Vec<Row>,
    pub(crate) rows: Vec<Row>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) extras: Extras,
}

impl Summary {
    /// How and where it was measured.
    pub(crate) fn circumstances(&self) -> String {
        let Self {
            machine, payload, ..
        } = self;
        format!(
            "Medians of {} interleaved rounds, {:.0} s in all. {}, {} cores, {}, {}; load {:.1} at \
             the start. {} events ({}) of {} bytes on average. Agents are {}.",
            self.rounds,
            self.seconds,
            machine.processor,
            machine.machine.cores,
            machine.machine.system,
            machine.machine.filesystem,
            machine.load_before,
            payload.events,
            payload.source,
            payload.mean_bytes,
            match self.agents {
                Mode::Process => "processes",
                Mode::Thread => "threads of one process",
            },
        )
    }

    /// The rows of all systems, by number of agents.
    pub(crate) fn sorted_rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().chain(&self.limits).collect();
        rows.sort_by_key(|row| row.agents);
        rows
    }

    pub(crate) fn skipped_lines(&self) -> impl Iterator<Item = String> {
        let skipped = self.skipped.iter();
        skipped.map(|skipped| format!("{}: SKIPPED, {}", skipped.title, skipped.why))
    }

    pub(crate) fn text(&self) -> String {
        let head = Row::COLUMNS.map(str::to_owned);
        let rows = self.sorted_rows().into_iter().map(Row::cells);
        let numbers = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let rows = columns(std::iter::once(head).chain(rows), &numbers);
        let skipped: String = self.skipped_lines().map(|line| line + "\n").collect();
        let extras: String = self
            .extras
            .lines()
            .into_iter()
            .map(|line| line + "\n")
            .collect();
        let head = ["bar", "wanted", "measured", ""].map(str::to_owned);
        let bars = self.ratios.iter().map(|ratio| {
            [
                ratio.name.clone(),
                ratio.bar.clone(),
                ratio.text(),
                ratio.verdict().to_owned(),
            ]
        });
        let bars = match self.ratios.as_slice() {
            [] => String::new(),
            _ => format!("\n{}", columns(std::iter::once(head).chain(bars), &[2])),
        };
        format!(
            "{}\n\n{rows}{skipped}\n{extras}{bars}",
            self.circumstances()
        )
    }
}
