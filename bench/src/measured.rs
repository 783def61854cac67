//! The results of one system with one number of agents.

use serde::Serialize;
use strand_stress::report::quantiles::SHARES;

use crate::appending::Turn;
use crate::statistics::{median, quantile};
use crate::systems::System;

/// One value per turn.
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
    // Empty where it is not known.
    records_per_sync: Vec<f64>,
    pub(crate) switches_per_append: Vec<f64>,
    processor_us_per_append: Vec<f64>,
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
            records_per_sync: Vec::new(),
            switches_per_append: Vec::new(),
            processor_us_per_append: Vec::new(),
            latencies_ns: Vec::new(),
            capped: false,
        }
    }

    pub(crate) fn add(&mut self, turn: Turn) {
        self.appends_per_s.push(turn.appends_per_s());
        self.p50_us.push(turn.quantile_us(0.5));
        self.p99_us.push(turn.quantile_us(0.99));
        self.p999_us.push(turn.quantile_us(0.999));
        self.max_us.push(turn.quantile_us(1.0));
        self.slowest_over_fastest.push(turn.slowest_over_fastest);
        if !self.system.has_helpers() {
            self.records_per_sync.extend(turn.records_per_sync());
            self.switches_per_append.extend(turn.switches_per_append());
            self.processor_us_per_append
                .extend(turn.processor_us_per_append());
        }
        self.capped |= turn.capped;
        self.latencies_ns.extend(turn.latencies_ns);
    }

    pub(crate) fn slowest_over_fastest(&self) -> f64 {
        median(&self.slowest_over_fastest)
    }

    pub(crate) fn row(&self) -> Row {
        let mut sorted = self.latencies_ns.clone();
        sorted.sort_unstable();
        let known = |values: &[f64]| (!values.is_empty()).then(|| rounded(median(values)));
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
            records_per_sync: known(&self.records_per_sync),
            switches_per_append: known(&self.switches_per_append),
            processor_us_per_append: known(&self.processor_us_per_append),
            capped: self.capped,
            appends_per_s_by_turn: self.appends_per_s.iter().copied().map(rounded).collect(),
            quantiles_us: SHARES.map(|q| rounded(quantile(&sorted, q) / 1e3)),
        }
    }
}

/// To one digit after the point, two below ten: more than the precision of the measurement.
pub(crate) fn rounded(value: f64) -> f64 {
    let scale = if value < 10.0 { 100.0 } else { 10.0 };
    (value * scale).round() / scale
}

/// Medians over the turns.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) title: &'static str,
    #[serde(skip)]
    pub(crate) is_limit: bool,
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
    // Of the agents; `None` where it is not known, or others work for them.
    pub(crate) records_per_sync: Option<f64>,
    pub(crate) switches_per_append: Option<f64>,
    pub(crate) processor_us_per_append: Option<f64>,
    /// Some turn was cut off because it took too long.
    pub(crate) capped: bool,
    pub(crate) appends_per_s_by_turn: Vec<f64>,
    /// Of all rounds together, at [`SHARES`].
    pub(crate) quantiles_us: [f64; SHARES.len()],
}

impl Row {
    pub(crate) const COLUMNS: [&str; 12] = [
        "agents",
        "system",
        "writes",
        "appends/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "slowest/fastest",
        "records/sync",
        "switches/append",
        "CPU µs/append",
    ];

    /// The values of [`Row::COLUMNS`].
    pub(crate) fn cells(&self) -> [String; 12] {
        let known = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let cut = if self.capped { " (cut off)" } else { "" };
        [
            self.agents.to_string(),
            format!("{}{cut}", self.title),
            self.writes.to_string(),
            format!("{:.0}", self.appends_per_s),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
            format!("{:.0}", self.p999_us),
            format!("{:.0}", self.max_us),
            format!("{:.2}", self.slowest_agent_over_fastest),
            known(self.records_per_sync, 1),
            known(self.switches_per_append, 2),
            known(self.processor_us_per_append, 1),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appending::Report;

    #[test]
    fn a_row_has_medians_of_rounds_and_the_worst_maximum() {
        let mut row = Measured::new(System::Strand, 1, 2);
        for latency_ns in [100_000, 900_000, 200_000] {
            let latencies_ns = vec![latency_ns; 2];
            let report = Report {
                released_ns: 0,
                began_ns: 0,
                latencies_ns,
                ..Report::default()
            };
            row.add(Turn::of(vec![report], 2));
        }
        let row = row.row();
        assert_eq!(
            (row.p50_us, row.max_us, row.appends_per_s),
            (200.0, 900.0, 5_000.0)
        );
        assert_eq!((row.quantiles_us[0], row.quantiles_us[10]), (100.0, 900.0));
    }
}
