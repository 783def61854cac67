//! The HTML report of a run of tiers.

use crate::report::page::{
    Cell, Column, clipped, command, document, escaped, facts, table, verdict,
};
use crate::report::text::{grouped, plural};
use crate::report::tiers::{Report, TierReport};
use crate::tiers::tally::Finding;

/// The HTML report of a run of tiers: the verdict and the findings first, then tier by tier.
#[must_use]
pub fn page(report: &Report) -> String {
    let kind = if report.quick { "quick run" } else { "run" };
    let machine = &report.machine;
    let took = format!(
        "{:.1} s of about {:.0} s",
        report.seconds, report.planned_seconds
    );
    let on = format!(
        "{}, {} cores, {}",
        machine.system, machine.cores, machine.filesystem
    );
    let body = [
        format!(
            "<h1>Torture: a {kind} of {}</h1>\n",
            plural(report.tiers.len() as u64, "tier")
        ),
        outcome(report),
        facts(&[
            ("Seed", format!("<code>{}</code>", report.seed)),
            ("Took", took),
            ("Machine", escaped(&on)),
            ("To run it again", command(&report.replay)),
        ]),
        tiers(report),
        format!(
            "<h2>What else was counted</h2>\n<div class=\"plots\">\n{}</div>\n",
            report.tiers.iter().map(counts).collect::<String>()
        ),
    ];
    document("strand torture", &body.concat())
}

/// The verdict, and each violation with the line that repeats it.
fn outcome(report: &Report) -> String {
    let mut found = String::new();
    for tier in &report.tiers {
        let name = tier.tally.tier;
        for Finding { what, replay, kept } in &tier.tally.violations {
            put!(
                &mut found,
                "<h3>{name}: violation</h3>\n<pre tabindex=\"0\">{}</pre>\n<p>To do it again:</p>\n{}\n",
                escaped(&clipped(what.trim_end())),
                command(replay)
            );
            if let Some(kept) = kept {
                let kept = escaped(&kept.display().to_string());
                put!(
                    &mut found,
                    "<p>The store was kept: <code>{kept}</code></p>\n"
                );
            }
        }
        if let Some(reason) = &tier.tally.environment
            && !tier.tally.interrupted
        {
            put!(
                &mut found,
                "<p>{name}: the environment stopped it: {}</p>\n",
                escaped(reason)
            );
        }
    }
    if let Some(hang) = &report.hang {
        put!(
            &mut found,
            "<p>{} did not end; tiers behind it were not begun. To run it again:</p>\n{}\n",
            escaped(hang.tier),
            command(&hang.replay)
        );
    }
    verdict(report.verdict, &report.verdict_line(), &found)
}

fn tiers(report: &Report) -> String {
    let columns = [
        Column::Words("tier"),
        Column::Words("violations"),
        Column::Numbers("cases"),
        Column::Words("unit"),
        Column::Words("attacks"),
        Column::Numbers("seconds"),
        Column::Numbers("planned"),
    ];
    let row = |tier: &TierReport| {
        let tally = &tier.tally;
        let result = match (&tally.skipped, &tally.environment, tally.violations.len()) {
            (Some(reason), ..) => Cell::soft(&format!("skipped, nothing tried: {reason}")),
            (_, _, 0) if tally.interrupted => Cell::soft("0, interrupted"),
            (_, Some(_), 0) => Cell::verdict("stopped by the environment", false),
            (_, _, 0) => Cell::verdict("0", true),
            (.., some) => Cell::verdict(&format!("{some} found"), false),
        };
        [
            Cell::from(tally.tier),
            result,
            Cell::from(grouped(tally.cases)),
            Cell::from(tally.unit),
            Cell::from(tier.attacks),
            Cell::from(format!("{:.1}", tally.seconds)),
            Cell::from(format!("{:.0}", tier.planned_seconds)),
        ]
    };
    let hang = report.hang.iter().map(|hang| {
        [
            Cell::from(hang.tier),
            Cell::verdict("hangs", false),
            Cell::from(""),
            Cell::from(""),
            Cell::from(""),
            Cell::from(format!("{:.1}", hang.after_seconds)),
            Cell::from(""),
        ]
    });
    let rows = report.tiers.iter().map(row).chain(hang);
    format!(
        "<h2>Tier by tier</h2>\n{}",
        table("Tier by tier", columns, rows)
    )
}

/// The other counts of a tier.
fn counts(tier: &TierReport) -> String {
    let tally = &tier.tally;
    if tally.counts.is_empty() && tally.faults.is_empty() {
        return String::new();
    }
    let faults = tally.faults.iter();
    let faults = faults.map(|fault| format!("<p>Environment: {}</p>\n", escaped(fault)));
    let faults: String = faults.collect();
    let columns = [Column::Words("event"), Column::Numbers("count")];
    let rows = tally.counts.iter();
    let rows = rows.map(|(name, count)| [Cell::from(name), Cell::from(grouped(*count))]);
    let counts = table(&format!("What {} has counted", tally.tier), columns, rows);
    let name = escaped(tally.tier);
    format!("<figure><h3>{name}</h3>\n{counts}{faults}</figure>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::verdict::Verdict;
    use crate::report::machine::Machine;
    use crate::report::page::tests::assert_is_whole;
    use crate::report::tiers::TierHang;
    use crate::tiers::tally::Tally;

    fn report(verdict: Verdict, tallies: Vec<Tally>, hang: Option<TierHang>) -> Report {
        let tier = |tally| TierReport {
            attacks: "each <byte>",
            planned_seconds: 1.0,
            tally,
        };
        Report {
            schema: 1,
            verdict,
            seed: 7,
            quick: true,
            planned_seconds: 3.0,
            seconds: 2.5,
            machine: Machine::of(std::path::Path::new("/")),
            tiers: tallies.into_iter().map(tier).collect(),
            hang,
            replay: "cargo xtask torture --seed 7".to_owned(),
        }
    }

    #[test]
    fn each_violation_has_its_replay_line_before_the_table() {
        let bad = Tally {
            tier: "T9",
            unit: "stores",
            cases: 1_234,
            counts: vec![("found <b>".to_owned(), 55_555)],
            faults: vec!["etcd <died>".to_owned()],
            violations: vec![Finding {
                what: "lost: <seq>\n".to_owned(),
                replay: "cargo xtask torture --tier T9 --replay 'a<b'".to_owned(),
                kept: Some("a<b/store".into()),
            }],
            ..Tally::default()
        };
        let skipped = Tally {
            tier: "T8",
            skipped: Some("no /dev/fuse".to_owned()),
            ..Tally::default()
        };
        let page = page(&report(Verdict::Violated, vec![bad, skipped], None));
        assert_is_whole(&page);
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part}: {page}"));
        assert!(at("✗ FAIL: 1 violation") < at("lost: &lt;seq&gt;"));
        assert!(at("lost: &lt;seq&gt;") < at("--replay 'a&lt;b'"));
        assert!(at("--replay 'a&lt;b'") < at("a&lt;b/store") && at("a&lt;b/store") < at("<dl>"));
        for part in [
            "✗ 1 found",
            "skipped, nothing tried: no /dev/fuse",
            "1,234",
            "55,555",
            "Environment: etcd &lt;died&gt;",
            "each &lt;byte&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn nothing_and_a_hang_have_pages_too() {
        assert_is_whole(&page(&report(Verdict::Pass, Vec::new(), None)));
        let hang = TierHang {
            tier: "T4",
            after_seconds: 90.0,
            replay: "cargo xtask torture --tier T4".to_owned(),
        };
        let page = page(&report(Verdict::Hang, Vec::new(), Some(hang)));
        assert_is_whole(&page);
        assert!(page.contains("✗ FAIL: hang, no case of T4") && page.contains("✗ hangs"));
        assert!(page.contains("torture --tier T4</code>"));
    }
}
