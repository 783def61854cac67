//! The report of a run of tiers: a table for people, JSON for programs.

use serde::Serialize;

use crate::evidence::verdict::Verdict;
use crate::report::machine::Machine;
use crate::report::text::{columns, grouped, json, plural};
use crate::tiers::tally::{Finding, Tally};

/// The version of the JSON report.
pub const SCHEMA: u32 = 1;

/// Everything about one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The verdict.
    pub verdict: Verdict,
    /// The seed.
    pub seed: u64,
    /// Whether it was a quick run.
    pub quick: bool,
    /// The planned time.
    pub planned_seconds: f64,
    /// The time that it took.
    pub seconds: f64,
    /// The machine.
    pub machine: Machine,
    /// The tiers that were run, in their order.
    pub tiers: Vec<TierReport>,
    /// The tier that hangs. Later tiers were not started.
    pub hang: Option<TierHang>,
    /// The command that repeats the run.
    pub replay: String,
}

/// One tier of a run.
#[derive(Debug, Clone, Serialize)]
pub struct TierReport {
    /// The target of the tier's attacks.
    pub attacks: &'static str,
    /// The planned time.
    pub planned_seconds: f64,
    /// The cases and findings.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A tier that hangs.
#[derive(Debug, Clone, Serialize)]
pub struct TierHang {
    /// Its short name.
    pub tier: &'static str,
    /// For how long no case of it had ended.
    pub after_seconds: f64,
    /// The command that repeats it.
    pub replay: String,
}

impl Report {
    /// The verdict on a run: a hang comes before a violation, that before an interrupt, and that
    /// before a failed environment, which it may have caused.
    pub(crate) fn judge(
        tiers: &[TierReport],
        hang: Option<&TierHang>,
        interrupted: bool,
    ) -> Verdict {
        if hang.is_some() {
            Verdict::Hang
        } else if tiers.iter().any(|tier| !tier.tally.violations.is_empty()) {
            Verdict::Violated
        } else if interrupted {
            Verdict::Interrupted
        } else if tiers.iter().any(|tier| tier.tally.environment.is_some()) {
            Verdict::Environment
        } else {
            Verdict::Pass
        }
    }

    /// As JSON with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// A row for each tier, then its counts and findings, with a newline after each line.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows =
            vec![["tier", "attacks", "cases", "unit", "violations", "seconds"].map(str::to_owned)];
        for tier in &self.tiers {
            rows.push(tier.row());
        }
        if let Some(hang) = &self.hang {
            let after = format!("{:.1}", hang.after_seconds);
            let row = [hang.tier, "HANG", "", "", "", &after];
            rows.push(row.map(str::to_owned));
        }
        let mut text = columns(rows, &[2, 4, 5]);
        for tier in &self.tiers {
            tier.details(&mut text);
        }
        text
    }

    /// PASS or FAIL in one line.
    #[must_use]
    pub fn verdict_line(&self) -> String {
        let tallies = || self.tiers.iter().map(|tier| &tier.tally);
        let skipped = tallies().filter(|tally| tally.skipped.is_some()).count();
        let cases: u64 = tallies().map(|tally| tally.cases).sum();
        let violations: usize = tallies().map(|tally| tally.violations.len()).sum();
        let ran = plural((self.tiers.len() - skipped) as u64, "tier");
        let ran = match skipped {
            0 => ran,
            skipped => format!("{ran} ({skipped} SKIPPED)"),
        };
        let (seed, seconds) = (self.seed, self.seconds);
        match self.verdict {
            Verdict::Pass => format!(
                "PASS: {} cases in {ran}, 0 violations (seed {seed}, {seconds:.1} s)",
                grouped(cases)
            ),
            Verdict::Violated => format!(
                "FAIL: {} in {ran} (seed {seed}, {seconds:.1} s)",
                plural(violations as u64, "violation")
            ),
            Verdict::Hang => {
                let tier = self.hang.as_ref().map_or("a tier", |hang| hang.tier);
                let after = self.hang.as_ref().map_or(0.0, |hang| hang.after_seconds);
                format!("FAIL: hang, no case of {tier} ended for {after:.1} s (seed {seed})")
            }
            Verdict::Interrupted => format!(
                "INTERRUPTED: {} cases in {ran}, 0 violations (seed {seed}, {seconds:.1} of {:.0} s)",
                grouped(cases),
                self.planned_seconds
            ),
            Verdict::Environment | Verdict::Unknown => {
                format!("FAIL: the environment stopped the run (seed {seed}, {seconds:.1} s)")
            }
        }
    }
}

impl TierReport {
    fn row(&self) -> [String; 6] {
        let tally = &self.tally;
        let seconds = format!("{:.1}", tally.seconds);
        if let Some(reason) = &tally.skipped {
            let skipped = format!("SKIPPED, NOTHING TRIED: {reason}");
            return [
                tally.tier.to_owned(),
                skipped,
                "-".into(),
                String::new(),
                "-".into(),
                seconds,
            ];
        }
        let violations = match tally.violations.len() {
            0 => "0".to_owned(),
            some => format!("{some} FOUND"),
        };
        [
            tally.tier.to_owned(),
            self.attacks.to_owned(),
            grouped(tally.cases),
            tally.unit.to_owned(),
            violations,
            seconds,
        ]
    }

    fn details(&self, text: &mut String) {
        let tally = &self.tally;
        if !tally.counts.is_empty() {
            let counts = tally.counts.iter();
            let counts = counts.map(|(name, count)| format!("{name} {}", grouped(*count)));
            let counts: Vec<String> = counts.collect();
            line(text, &format!("{}: {}", tally.tier, counts.join(", ")));
        }
        for fault in &tally.faults {
            line(text, &format!("{}: environment: {fault}", tally.tier));
        }
        if tally.interrupted {
            line(text, &format!("{}: interrupted", tally.tier));
        } else if let Some(reason) = &tally.environment {
            line(
                text,
                &format!("{}: the environment stopped it: {reason}", tally.tier),
            );
        }
        for Finding { what, replay, kept } in &tally.violations {
            line(
                text,
                &format!("{}: VIOLATION: {}", tally.tier, what.trim_end()),
            );
            if let Some(kept) = kept {
                line(text, &format!("  kept         {}", kept.display()));
            }
            line(text, &format!("  replay       {replay}"));
        }
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(tally: Tally) -> TierReport {
        TierReport {
            attacks: "something",
            planned_seconds: 1.0,
            tally,
        }
    }

    fn report(tiers: Vec<TierReport>, hang: Option<TierHang>) -> Report {
        Report {
            schema: SCHEMA,
            verdict: Report::judge(&tiers, hang.as_ref(), false),
            seed: 7,
            quick: true,
            planned_seconds: 3.0,
            seconds: 2.5,
            machine: Machine::of(std::path::Path::new("/")),
            tiers,
            hang,
            replay: "cargo xtask torture --seed 7".to_owned(),
        }
    }

    fn good() -> Tally {
        Tally {
            tier: "T7",
            unit: "kills",
            cases: 1_234_567,
            counts: vec![("AfterWrite".to_owned(), 1_000), ("Woken".to_owned(), 2)],
            seconds: 1.25,
            ..Tally::default()
        }
    }

    #[test]
    fn a_table_has_a_row_for_each_tier_and_says_what_was_skipped() {
        let skipped = Tally {
            tier: "T8",
            skipped: Some("no /dev/fuse".to_owned()),
            ..Tally::default()
        };
        let report = report(vec![tier(good()), tier(skipped)], None);
        let expected = "\
tier  attacks                                   cases  unit   violations  seconds
T7    something                             1,234,567  kills           0      1.2
T8    SKIPPED, NOTHING TRIED: no /dev/fuse          -                  -      0.0
T7: AfterWrite 1,000, Woken 2
";
        assert_eq!(report.table(), expected);
        assert_eq!(
            report.verdict_line(),
            "PASS: 1,234,567 cases in 1 tier (1 SKIPPED), 0 violations (seed 7, 2.5 s)"
        );
        assert_eq!(report.verdict.exit_status(), 0);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["tiers"][0]["counts"][1][0], "Woken");
        assert_eq!(json["tiers"][1]["skipped"], "no /dev/fuse");
        assert_eq!(json["verdict"], "pass");
    }

    #[test]
    fn a_violation_is_shown_with_its_evidence_and_counts_before_the_environment() {
        let bad = Tally {
            violations: vec![Finding {
                what: "lost: seq=5\n".to_owned(),
                replay: "cargo xtask stress --seed 3".to_owned(),
                kept: Some("run/store".into()),
            }],
            ..good()
        };
        let stopped = Tally {
            environment: Some("no space".to_owned()),
            ..good()
        };
        let report = report(vec![tier(stopped.clone()), tier(bad)], None);
        let table = report.table();
        for part in [
            "1 FOUND",
            "T7: VIOLATION: lost: seq=5\n  kept         run/store\n  replay       cargo xtask stress --seed 3\n",
            "T7: the environment stopped it: no space\n",
        ] {
            assert!(table.contains(part), "{table}");
        }
        assert_eq!(report.verdict, Verdict::Violated);
        assert!(
            report
                .verdict_line()
                .starts_with("FAIL: 1 violation in 2 tiers")
        );
        let tiers = [tier(stopped)];
        assert_eq!(Report::judge(&tiers, None, false).exit_status(), 4);
    }

    #[test]
    fn a_hang_names_its_tier() {
        let hang = TierHang {
            tier: "T4",
            after_seconds: 90.0,
            replay: String::new(),
        };
        let report = report(vec![tier(good())], Some(hang));
        assert_eq!(report.verdict.exit_status(), 3);
        assert!(
            report.table().contains("\nT4    HANG"),
            "{}",
            report.table()
        );
        assert_eq!(
            report.verdict_line(),
            "FAIL: hang, no case of T4 ended for 90.0 s (seed 7)"
        );
    }
}
