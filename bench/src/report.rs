//! Figures of a run, as a table and as JSON.

use serde::Serialize;
use strand_stress::report::run::SHARES;

use crate::{
    bars::{self, Ratio},
    cli::Cli,
    events::{self, Event},
    machine::Machine,
    measure::Extras,
    run::Turn,
    schedule::Step,
    statistics::{median, quantile},
    systems::System,
};

/// What the turns of one system with one number of agents gave, a value a turn.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) system: System,
    pub(crate) agents: usize,
    pub(crate) writes: usize,
    pub(crate) appends_per_s: Vec<f64>,
    pub(crate) p50_us: Vec<f64>,
    pub(crate) p99_us: Vec<f64>,
    pub(crate) p999_us: Vec<f64>,
    pub(crate) max_us: Vec<f64>,
    slowest_over_fastest: Vec<f64>,
    /// Of all rounds together.
    latencies_ns: Vec<u64>,
    capped: bool,
}

impl Measured {
    pub(crate) fn new(system: System, agents: usize, writes: usize) -> Self {
        Self {
            system,
            agents,
            writes,
            appends_per_s: Vec::new(),
            p50_us: Vec::new(),
            p99_us: Vec::new(),
            p999_us: Vec::new(),
            max_us: Vec::new(),
            slowest_over_fastest: Vec::new(),
            latencies_ns: Vec::new(),
            capped: false,
        }
    }

    fn add(&mut self, turn: Turn) {
        self.appends_per_s.push(turn.appends_per_s());
        self.p50_us.push(turn.quantile_us(0.5));
        self.p99_us.push(turn.quantile_us(0.99));
        self.p999_us.push(turn.quantile_us(0.999));
        self.max_us.push(turn.quantile_us(1.0));
        self.slowest_over_fastest.push(turn.slowest_over_fastest);
        self.capped |= turn.capped;
        self.latencies_ns.extend(turn.latencies_ns);
    }

    pub(crate) fn slowest_over_fastest(&self) -> f64 {
        median(&self.slowest_over_fastest)
    }

    fn row(&self) -> Row {
        let mut sorted = self.latencies_ns.clone();
        sorted.sort_unstable();
        Row {
            system: self.system.name(),
            title: self.system.title(),
            is_limit: self.system.is_limit(),
            agents: self.agents,
            writes: self.writes,
            appends_per_s: rounded(median(&self.appends_per_s)),
            p50_us: rounded(median(&self.p50_us)),
            p99_us: rounded(median(&self.p99_us)),
            p999_us: rounded(median(&self.p999_us)),
            max_us: rounded(self.max_us.iter().copied().fold(0.0, f64::max)),
            slowest_agent_over_fastest: rounded(self.slowest_over_fastest()),
            capped: self.capped,
            appends_per_s_by_turn: self.appends_per_s.iter().copied().map(rounded).collect(),
            quantiles_us: SHARES.map(|q| rounded(quantile(&sorted, q) / 1e3)),
        }
    }
}

/// To one digit behind the point, which is more than the figures are good for; two below ten.
fn rounded(value: f64) -> f64 {
    let scale = if value < 10.0 { 100.0 } else { 10.0 };
    (value * scale).round() / scale
}

/// What a run has gathered so far.
pub(crate) struct Report {
    machine: Machine,
    payload: Payload,
    rounds: usize,
    rows: Vec<Measured>,
    pub(crate) extras: Extras,
    pub(crate) seconds: f64,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Payload {
    pub(crate) source: &'static str,
    pub(crate) events: usize,
    pub(crate) mean_bytes: usize,
}

impl Report {
    pub(crate) fn new(cli: &Cli, events: &[Event]) -> Self {
        Self {
            machine: Machine::of(&cli.dir),
            payload: Payload {
                source: if cli.payload.is_some() {
                    "file"
                } else {
                    "made up"
                },
                events: events.len(),
                mean_bytes: events::mean_bytes(events),
            },
            rounds: cli.rounds(),
            rows: Vec::new(),
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
            ratios: bars::ratios(&self.rows, &self.extras),
            extras: self.extras.clone(),
        }
    }
}

/// Medians over the turns of one system with one number of agents.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) title: &'static str,
    #[serde(skip)]
    is_limit: bool,
    pub(crate) agents: usize,
    /// By each agent, in each of its turns.
    pub(crate) writes: usize,
    pub(crate) appends_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// The worst of all rounds.
    pub(crate) max_us: f64,
    pub(crate) slowest_agent_over_fastest: f64,
    /// Some turn was cut off because it took too long.
    pub(crate) capped: bool,
    pub(crate) appends_per_s_by_turn: Vec<f64>,
    /// Of all rounds together, at [`SHARES`].
    pub(crate) quantiles_us: [f64; SHARES.len()],
}

/// All that a run says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) machine: Machine,
    pub(crate) payload: Payload,
    pub(crate) limits: Vec<Row>,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) extras: Extras,
}

impl Summary {
    /// How it was measured, in one sentence.
    pub(crate) fn circumstances(&self) -> String {
        let Self {
            machine, payload, ..
        } = self;
        format!(
            "Medians of {} interleaved rounds, {:.0} s in all. {}, {} cores, {}, {}; load {:.1} when it began. \
             {} events ({}) of {} bytes on average.",
            self.rounds,
            self.seconds,
            machine.processor,
            machine.cores,
            machine.system,
            machine.filesystem,
            machine.load_before,
            payload.events,
            payload.source,
            payload.mean_bytes,
        )
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new(&[
            "agents",
            "system",
            "writes",
            "appends/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "max µs",
            "slowest/fastest",
        ]);
        let mut rows: Vec<&Row> = self.rows.iter().chain(&self.limits).collect();
        rows.sort_by_key(|row| row.agents);
        for row in rows {
            let cut = if row.capped { " (cut off)" } else { "" };
            table.row([
                row.agents.to_string(),
                format!("{}{cut}", row.title),
                row.writes.to_string(),
                format!("{:.0}", row.appends_per_s),
                format!("{:.0}", row.p50_us),
                format!("{:.0}", row.p99_us),
                format!("{:.0}", row.p999_us),
                format!("{:.0}", row.max_us),
                format!("{:.2}", row.slowest_agent_over_fastest),
            ]);
        }
        let mut bars = Table::new(&["bar", "wanted", "measured", ""]);
        for ratio in &self.ratios {
            let (name, bar) = (ratio.name.clone(), ratio.bar.clone());
            bars.row([name, bar, ratio.figure(), ratio.verdict().to_owned()]);
        }
        let mut text = format!(
            "{}\n\n{table}\n",
            self.circumstances(),
            table = table.text()
        );
        for line in self.extras.lines() {
            text.push_str(&line);
            text.push('\n');
        }
        text + "\n" + &bars.text()
    }
}

/// Columns as wide as their widest cell: words to the left, figures to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(titles: &[&str]) -> Self {
        let titles = titles.iter().map(|title| (*title).to_owned()).collect();
        Self { rows: vec![titles] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let is_figure = |column: usize| {
            let cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
            cells
                .clone()
                .all(|cell| cell == "–" || cell.parse::<f64>().is_ok())
        };
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let width = width(column);
                    if is_figure(column) {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:width$}")
                    }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Told;

    #[test]
    fn figures_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(&["what", "µs"]);
        table.row(["a".into(), "12".into()]);
        table.row(["longer".into(), "5".into()]);
        assert_eq!(table.text(), "what    µs\na       12\nlonger   5\n");
    }

    #[test]
    fn a_row_holds_medians_of_rounds_and_the_worst_maximum() {
        let mut row = Measured::new(System::Strand, 1, 2);
        for latency_ns in [100_000, 900_000, 200_000] {
            let told = Told {
                finish_ns: 2 * latency_ns,
                latencies_ns: vec![latency_ns; 2],
            };
            row.add(Turn::of(vec![told], 2));
        }
        let row = row.row();
        assert_eq!(
            (row.p50_us, row.max_us, row.appends_per_s),
            (200.0, 900.0, 5_000.0)
        );
        assert_eq!((row.quantiles_us[0], row.quantiles_us[10]), (100.0, 900.0));
    }
}
