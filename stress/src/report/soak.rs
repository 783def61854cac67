//! The report of a soak: a table for people, JSON for programs.

use serde::Serialize;

use crate::evidence::verdict::Verdict;
use crate::report::machine::Machine;
use crate::report::page::plot::Unit;
use crate::report::text::{columns, grouped, json, plural};
use crate::soak::Outcome;
use crate::soak::trend::Trend;
use crate::soak::trouble::Trouble;

/// Everything about one soak.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How long it was to take.
    pub planned_minutes: f64,
    /// The machine.
    pub machine: Machine,
    /// The result.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The command that repeats it.
    pub replay: String,
}

/// The measured quantity of a trend. Its values are given in the unit at the end of its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    /// Without the unit.
    pub(super) name: String,
    /// How its values are shown.
    pub(super) unit: Unit,
    /// From the unit of the measurement to that of [`Unit`].
    pub(super) factor: f64,
}

impl Quantity {
    pub(super) fn of(trend: &Trend) -> Quantity {
        let (name, unit, factor) = match trend.name.rsplit_once(", ") {
            Some((name, "us")) => (name, Unit::Microseconds, 1.0),
            Some((name, "KiB")) => (name, Unit::Bytes, 1_024.0),
            _ => (trend.name.as_str(), Unit::Count, 1.0),
        };
        let name = name.to_owned();
        match name.strip_prefix("disk bytes") {
            Some(rest) => Quantity {
                name: format!("disk space{rest}"),
                unit: Unit::Bytes,
                factor,
            },
            None => Quantity { name, unit, factor },
        }
    }

    /// A value of the measurement.
    pub(super) fn text(&self, value: f64) -> String {
        self.unit.text(value * self.factor)
    }
}

impl Report {
    /// As JSON with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// The work and the trends, with a newline after each line.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = Vec::new();
        let rounds = self
            .outcome
            .rounds
            .iter()
            .map(|(kind, rounds)| format!("{kind:?} {rounds}"));
        lines.push(format!(
            "rounds       {}",
            rounds.collect::<Vec<_>>().join(", ")
        ));
        lines.push(format!(
            "operations   {} acknowledged; {} processes killed, {} stopped for a while",
            grouped(self.outcome.acknowledged),
            grouped(self.outcome.killed),
            grouped(self.outcome.stopped)
        ));
        let full = &self.outcome.full_disk;
        lines.push(match &full.skipped {
            Some(reason) => format!("full disk    SKIPPED, NOTHING TRIED: {reason}"),
            None => format!(
                "full disk    {} times; {} acknowledged, {} rejected, {} compactions failed cleanly",
                full.rounds,
                grouped(full.acknowledged),
                grouped(full.rejected),
                full.failed_compactions
            ),
        });
        let head = [
            "trend",
            "first 1/4",
            "last 1/4",
            "max",
            "samples",
            "verdict",
        ];
        let trends = self.outcome.trends.iter().map(|trend| {
            let quantity = Quantity::of(trend);
            [
                quantity.name.clone(),
                quantity.text(trend.first),
                quantity.text(trend.last),
                quantity.text(trend.max),
                trend.samples.len().to_string(),
                trend.verdict().to_owned(),
            ]
        });
        let rows = std::iter::once(head.map(str::to_owned)).chain(trends);
        lines.join("\n") + "\n" + &columns(rows, &[1, 2, 3, 4])
    }

    /// PASS or FAIL in a few words.
    #[must_use]
    pub fn headline(&self) -> String {
        let (minutes, seed) = (self.outcome.minutes, self.seed);
        let rounds = plural(self.outcome.rounds.values().sum(), "round");
        if self.outcome.verdict == Verdict::Pass {
            return format!(
                "PASS: {rounds} in {minutes:.1} minutes, nothing lost, nothing grows (seed {seed})"
            );
        }
        if self.outcome.verdict == Verdict::Interrupted {
            return format!(
                "INTERRUPTED: {rounds} in {minutes:.1} of {} minutes, nothing lost, nothing grows (seed {seed})",
                self.planned_minutes
            );
        }
        let growing = self.outcome.trends.iter().filter(|trend| trend.fails());
        let growing: Vec<&str> = growing.map(|trend| trend.name.as_str()).collect();
        match &self.outcome.trouble {
            Some(Trouble::Violation(_)) => "FAIL: violation".to_owned(),
            Some(Trouble::Hang(_)) => "FAIL: hang".to_owned(),
            Some(Trouble::Environment(_)) => "FAIL: the environment stopped the soak".to_owned(),
            None => format!("FAIL: grows: {}", growing.join(", ")),
        }
    }

    /// PASS or FAIL in one line; after a failure with the evidence and how to repeat it.
    #[must_use]
    pub fn verdict_line(&self) -> String {
        let mut what = self.headline();
        if self.outcome.verdict.is_good() {
            return what;
        }
        if let Some(trouble) = &self.outcome.trouble {
            what = format!("{what}: {}", trouble.evidence());
        }
        let seed = self.seed;
        let kept = self
            .outcome
            .kept
            .as_ref()
            .map_or_else(String::new, |path| path.display().to_string());
        let replay = &self.replay;
        format!("{what}\nseed         {seed}\nkept         {kept}\nreplay       {replay}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::soak::Kind;
    use crate::soak::full_disk::FullDisk;
    use crate::soak::trend::{Limit, Series};

    #[test]
    fn a_report_says_what_was_skipped_and_what_grows() {
        let series = Series {
            name: "harness: open files".to_owned(),
            samples: (0..20).map(f64::from).collect(),
            at_s: (0..20).map(f64::from).collect(),
            limit: Limit {
                factor: 1.0,
                slack: 4.0,
                fails: true,
            },
        };
        let mut report = Report {
            seed: 5,
            planned_minutes: 1.0,
            machine: Machine::of(std::path::Path::new("/")),
            replay: "cargo xtask soak".to_owned(),
            outcome: Outcome {
                verdict: Verdict::Violated,
                minutes: 1.0,
                rounds: BTreeMap::from([(Kind::Mixed, 3)]),
                course: Vec::new(),
                acknowledged: 12_345,
                killed: 4,
                stopped: 0,
                full_disk: FullDisk {
                    skipped: Some("no".to_owned()),
                    ..FullDisk::default()
                },
                trends: vec![series.trend()],
                trouble: None,
                kept: None,
            },
        };
        let table = report.table();
        for part in [
            "Mixed 3",
            "12,345 acknowledged",
            "SKIPPED, NOTHING TRIED: no",
            "GROWS",
        ] {
            assert!(table.contains(part), "{table}");
        }
        assert!(
            report
                .verdict_line()
                .starts_with("FAIL: grows: harness: open files\n")
        );
        report.outcome.trouble = Some(Trouble::Hang("worker1".to_owned()));
        assert!(report.verdict_line().starts_with("FAIL: hang: worker1\n"));
        report.outcome.verdict = Verdict::Pass;
        assert!(report.verdict_line().starts_with("PASS: 3 rounds"));
        report.outcome.verdict = Verdict::Interrupted;
        let line = report.verdict_line();
        assert!(
            line.starts_with("INTERRUPTED: 3 rounds in 1.0 of 1 minutes"),
            "{line}"
        );
        report.outcome.rounds = BTreeMap::from([(Kind::Mixed, 1)]);
        assert!(report.verdict_line().starts_with("INTERRUPTED: 1 round in"));
    }
}
