//! The HTML report of a soak.

use crate::report::page::lanes::{Lane, Lanes, Look};
use crate::report::page::plot::{Axis, Curve, Form, Mark, Plot, Sign, Size, Unit};
use crate::report::page::{
    Cell, Column, command, details, document, escaped, facts, findings, legend, table, verdict,
};
use crate::report::soak::{Quantity, Report};
use crate::report::text::grouped;
use crate::soak::KINDS;
use crate::soak::trend::{Growth, Trend};
use crate::soak::trouble::Trouble;

/// Most points of a curve; of more, the highest of each few is drawn.
const POINTS_MAX: usize = 150;
/// Most marks of one kind; of more, some are left off evenly.
const MARKS_MAX: usize = 100;
/// The colours and line styles of the curves of a plot.
const CURVES: [(&str, &str); 4] = [
    ("--holds", ""),
    ("--leads", "dashed"),
    ("--syncs", "dotted"),
    ("--waits", ""),
];
const ROUND: Look = Look {
    name: "round",
    class: "round",
    top: 0.15,
    height: 0.7,
};

/// The HTML report of a soak: the verdict first, then the rounds and the trends.
#[must_use]
pub fn page(report: &Report) -> String {
    let body = [
        "<h1>Soak</h1>\n".to_owned(),
        outcome(report),
        origin(report),
        rounds(report),
        trends(report),
    ];
    document("strand soak", &body.concat())
}

fn outcome(report: &Report) -> String {
    let trouble = report.outcome.trouble.iter();
    let trouble = trouble.map(|trouble| trouble.evidence().to_owned());
    let growing = report.outcome.trends.iter().filter(|trend| trend.fails());
    let growing = growing.map(|trend| {
        let quantity = Quantity::of(trend);
        format!(
            "{} grows: {} in the first quarter, {} in the last",
            quantity.name,
            quantity.text(trend.first),
            quantity.text(trend.last)
        )
    });
    let lines: Vec<String> = trouble.chain(growing).collect();
    let found = if lines.is_empty() {
        String::new()
    } else {
        findings(&lines, "the JSON report")
    };
    verdict(report.outcome.verdict, &report.headline(), &found)
}

fn origin(report: &Report) -> String {
    let machine = &report.machine;
    let on = format!(
        "{}, {} cores, {}",
        machine.system, machine.cores, machine.filesystem
    );
    let full = &report.outcome.full_disk;
    let disk = match &full.skipped {
        Some(reason) => format!("skipped, nothing tried: {reason}"),
        None => format!(
            "{} times; {} acknowledged, {} rejected, {} compactions failed cleanly",
            full.rounds,
            grouped(full.acknowledged),
            grouped(full.rejected),
            full.failed_compactions
        ),
    };
    let done = format!(
        "{} acknowledged; {} processes killed, {} stopped for a while",
        grouped(report.outcome.acknowledged),
        grouped(report.outcome.killed),
        grouped(report.outcome.stopped)
    );
    let took = format!(
        "{:.1} minutes, of {} planned",
        report.outcome.minutes, report.planned_minutes
    );
    let mut all = vec![
        ("Seed", format!("<code>{}</code>", report.seed)),
        ("Took", took),
        ("Operations", done),
        ("Full disks", escaped(&disk)),
        ("Machine", escaped(&on)),
        ("To run it again", command(&report.replay)),
    ];
    if let Some(kept) = &report.outcome.kept {
        let kept = escaped(&kept.display().to_string());
        all.push(("Stores", format!("<code>{kept}</code>")));
    }
    facts(&all)
}

/// The time in minutes, the same in all drawings.
fn time(report: &Report) -> Axis {
    let last = report
        .outcome
        .course
        .last()
        .map_or(0.0, |round| round.to_s / 60.0);
    Axis::between(
        "minutes",
        Unit::Count,
        0.0,
        last.max(report.outcome.minutes),
    )
}

/// The rounds over time.
fn rounds(report: &Report) -> String {
    let heading = "<h2>The rounds</h2>\n";
    if report.outcome.course.is_empty() {
        return format!("{heading}<p>None was finished.</p>\n");
    }
    let of_kind = |kind: crate::soak::Kind| {
        let rounds = report
            .outcome
            .course
            .iter()
            .filter(move |round| round.kind == kind);
        let spans = rounds.clone();
        let spans = spans.map(|round| (0, round.from_s / 60.0, round.to_s / 60.0));
        let mark = |round: &crate::soak::Round, sign, what: String| Mark {
            at: f64::midpoint(round.from_s, round.to_s) / 60.0,
            sign,
            title: what,
        };
        let killed = rounds.clone().filter(|round| round.killed > 0);
        let killed =
            killed.map(|round| mark(round, Sign::Cross, format!("{} killed", round.killed)));
        let stopped = rounds.filter(|round| round.stopped > 0);
        let stopped =
            stopped.map(|round| mark(round, Sign::Pause, format!("{} stopped", round.stopped)));
        Lane {
            name: kind.name().to_owned(),
            spans: spans.collect(),
            marks: [thinned(killed.collect()), thinned(stopped.collect())].concat(),
        }
    };
    let kinds = KINDS
        .iter()
        .filter(|kind| report.outcome.rounds.contains_key(kind));
    let drawing = Lanes {
        title: "The rounds",
        description: "A line for each kind of round; the numbers are in the table below."
            .to_owned(),
        x: time(report),
        looks: &[ROUND],
        lanes: kinds.map(|kind| of_kind(*kind)).collect(),
    };
    let samples = [
        (ROUND.sample(), "a round of this kind"),
        (Sign::Cross.svg(14.0, 5.0), "processes were killed in it"),
        (Sign::Pause.svg(14.0, 5.0), "processes were stopped in it"),
    ];
    let columns = [
        Column::Words("kind"),
        Column::Words("work"),
        Column::Numbers("rounds"),
        Column::Numbers("seconds"),
        Column::Numbers("acknowledged"),
        Column::Numbers("killed"),
        Column::Numbers("stopped"),
        Column::Numbers("compactions"),
    ];
    let rows = report.outcome.rounds.iter().map(|(kind, count)| {
        let rounds = report
            .outcome
            .course
            .iter()
            .filter(|round| round.kind == *kind);
        let sum = |of: fn(&crate::soak::Round) -> u64| rounds.clone().map(of).sum::<u64>();
        let seconds: f64 = rounds.clone().map(|round| round.to_s - round.from_s).sum();
        [
            Cell::from(kind.name()),
            Cell::from(kind.about()),
            Cell::from(count),
            Cell::from(format!("{seconds:.1}")),
            Cell::from(grouped(sum(|round| round.acknowledged))),
            Cell::from(grouped(sum(|round| round.killed))),
            Cell::from(grouped(sum(|round| round.stopped))),
            Cell::from(grouped(sum(|round| round.compactions))),
        ]
    });
    format!(
        "{heading}<p>Each is a run of the harness with a store of its own, judged by its oracle. After each, a victim to the \
         store that stays is killed, a worker is stopped, the hints of that store are deleted, and it is compacted; then it is \
         measured.</p>\n{}<figure class=\"scroll\" tabindex=\"0\">{}</figure>\n<h3>By kind</h3>\n{}",
        legend(samples),
        drawing.svg(),
        table("The rounds by kind", columns, rows)
    )
}

/// The trends: one plot for each quantity, with a curve for each process.
fn trends(report: &Report) -> String {
    let heading = "<h2>What may grow</h2>\n";
    if report.outcome.trends.is_empty() {
        return format!("{heading}<p>Nothing was measured.</p>\n");
    }
    let mut groups: Vec<(String, Vec<&Trend>)> = Vec::new();
    for trend in &report.outcome.trends {
        let (what, _) = split(&Quantity::of(trend).name);
        match groups.iter_mut().find(|(name, _)| *name == what) {
            Some((_, trends)) => trends.push(trend),
            None => groups.push((what, vec![trend])),
        }
    }
    let plots = groups
        .iter()
        .map(|(what, trends)| plot(report, what, trends));
    let plots: String = plots.collect();
    let columns = [
        Column::Words("measurement"),
        Column::Words("verdict"),
        Column::Numbers("first quarter"),
        Column::Numbers("last quarter"),
        Column::Numbers("most"),
        Column::Numbers("samples"),
        Column::Numbers("may grow by"),
    ];
    let rows = report.outcome.trends.iter().map(|trend| {
        let verdict = match trend.growth {
            Growth::None => Cell::verdict(trend.verdict(), true),
            Growth::Grows if trend.fails() => Cell::verdict(trend.verdict(), false),
            Growth::Grows | Growth::TooShort => Cell::soft(trend.verdict()),
        };
        let quantity = Quantity::of(trend);
        let slack = quantity.text(trend.limit.slack);
        [
            Cell::from(&quantity.name),
            verdict,
            Cell::from(quantity.text(trend.first)),
            Cell::from(quantity.text(trend.last)),
            Cell::from(quantity.text(trend.max)),
            Cell::from(trend.samples.len()),
            Cell::from(format!("{} × or + {slack}", trend.limit.factor)),
        ]
    });
    format!(
        "{heading}<p>Measured after each round, of the processes that stay and of their store: each point is a measurement, the \
         highest of a few where there are many. The median of the first quarter \
         is compared with that of the last.</p>\n{}\n<div class=\"plots\">\n{plots}</div>\n",
        table("What may grow", columns, rows)
    )
}

/// The name of a quantity without its process, and that.
fn split(name: &str) -> (String, String) {
    let (what, who) = if let Some((who, what)) = name.split_once(": ") {
        (what, who)
    } else if let Some(which) = name.strip_prefix("append ") {
        ("append", which)
    } else {
        (name, "the store")
    };
    (what.to_owned(), who.to_owned())
}

fn plot(report: &Report, what: &str, trends: &[&Trend]) -> String {
    let quantities: Vec<Quantity> = trends.iter().map(|trend| Quantity::of(trend)).collect();
    let whose: Vec<String> = quantities.iter().map(|of| split(&of.name).1).collect();
    let unit = quantities.first().map_or(Unit::Count, |of| of.unit);
    let title = format!(
        "{}{}",
        what.get(..1).unwrap_or_default().to_uppercase(),
        what.get(1..).unwrap_or_default()
    );
    let points: Vec<Vec<(f64, f64)>> = trends
        .iter()
        .zip(&quantities)
        .map(|(trend, of)| {
            let samples = trend.at_s.iter().zip(&trend.samples);
            let samples = samples.map(|(at_s, value)| (at_s / 60.0, value * of.factor));
            highest(&samples.collect::<Vec<_>>())
        })
        .collect();
    let styles = || CURVES.iter().cycle();
    let curves = whose.iter().zip(&points).zip(styles());
    let curves = curves.map(|((whose, points), (colour, style))| Curve {
        title: whose,
        colour,
        style,
        form: if points.len() > 40 {
            Form::Line
        } else {
            Form::Dotted
        },
        points: points.clone(),
    });
    let heights = points.iter().flatten().map(|(_, value)| *value);
    // Latencies of different quantiles differ by magnitudes.
    let (y, scale) = if unit == Unit::Microseconds {
        (Axis::powers_of_ten("", unit, heights), " (logarithmic)")
    } else {
        (Axis::from_zero("", unit, heights), "")
    };
    let growth = trends.iter();
    let growth = growth.map(|trend| format!("{}: {}", trend.name, trend.verdict()));
    let growth: Vec<String> = growth.collect();
    let plot = Plot {
        title: &title,
        description: growth.join("; "),
        x: time(report),
        y,
        curves: curves.collect(),
        marks: trouble(report),
        size: Size::Small,
    };
    let samples = whose.iter().zip(styles()).map(|(whose, (colour, style))| {
        let sample =
            format!("<path class=\"curve {style}\" style=\"stroke:var({colour})\" d=\"M1 5H27\"/>");
        (sample, whose.as_str())
    });
    let columns = [
        Column::Words("whose"),
        Column::Numbers("minute"),
        Column::Numbers("value"),
    ];
    let rows = whose.iter().zip(&points).flat_map(|(whose, points)| {
        points.iter().map(move |(at, value)| {
            [
                Cell::from(whose),
                Cell::from(format!("{at:.2}")),
                Cell::from(unit.text(*value)),
            ]
        })
    });
    format!(
        "<figure><h3>{}{scale}</h3>{}{}{}</figure>\n",
        escaped(&title),
        legend(samples),
        plot.svg(),
        details("Figures", &table(&title, columns, rows))
    )
}

/// Where a soak ended before its time.
fn trouble(report: &Report) -> Vec<Mark> {
    let mark = |_: &Trouble| Mark {
        at: report.outcome.minutes,
        sign: Sign::Cross,
        title: "the soak ended here".to_owned(),
    };
    report.outcome.trouble.iter().map(mark).collect()
}

/// Few enough points: of each few that follow each other, the highest.
fn highest(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let few = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = points
        .chunks(few)
        .filter_map(|few| few.iter().max_by(|a, b| a.1.total_cmp(&b.1)));
    highest.copied().collect()
}

fn thinned(marks: Vec<Mark>) -> Vec<Mark> {
    let step = marks.len().div_ceil(MARKS_MAX).max(1);
    marks.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evidence::verdict::Verdict;
    use crate::report::machine::Machine;
    use crate::report::page::tests::assert_is_whole;
    use crate::soak::full_disk::FullDisk;
    use crate::soak::trend::{Limit, Series};
    use crate::soak::{Kind, Outcome, Round};

    fn trend(name: &str, slope: f64) -> Trend {
        let at_s: Vec<f64> = (0..400).map(f64::from).collect();
        let series = Series {
            name: name.to_owned(),
            samples: at_s.iter().map(|at| 10.0 + slope * at).collect(),
            at_s,
            limit: Limit {
                factor: 1.5,
                slack: 1.0,
                fails: true,
            },
        };
        series.trend()
    }

    fn report(verdict: Verdict, trouble: Option<Trouble>, trends: Vec<Trend>) -> Report {
        let course = (0..40).map(|number| Round {
            kind: Kind::Mixed,
            from_s: f64::from(number) * 10.0,
            to_s: f64::from(number) * 10.0 + 9.0,
            acknowledged: 30,
            killed: 2,
            stopped: 0,
            compactions: 1,
        });
        Report {
            seed: 5,
            planned_minutes: 7.0,
            machine: Machine::of(std::path::Path::new("/")),
            replay: "cargo xtask soak --seed 5".to_owned(),
            outcome: Outcome {
                verdict,
                minutes: 6.7,
                rounds: BTreeMap::from([(Kind::Mixed, 40)]),
                course: course.collect(),
                acknowledged: 12_345,
                killed: 80,
                stopped: 0,
                full_disk: FullDisk {
                    skipped: Some("no <mount>".to_owned()),
                    ..FullDisk::default()
                },
                trends,
                trouble,
                kept: Some("a<b".into()),
            },
        }
    }

    #[test]
    fn what_grows_comes_first_and_each_quantity_has_a_plot() {
        let trends = vec![
            trend("worker 1: memory, KiB", 0.0),
            trend("harness: memory, KiB", 0.5),
            trend("append p50, us", 0.0),
            trend("append p99, us", 0.0),
        ];
        let page = page(&report(Verdict::Violated, None, trends));
        assert_is_whole(&page);
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part}: {page}"));
        assert!(at("✗ FAIL: grows: harness: memory, KiB") < at("<dl>"));
        assert!(at("harness: memory grows: ") < at("<dl>"));
        for part in [
            "✗ GROWS",
            "✓ no growth",
            "12,345",
            "no &lt;mount&gt;",
            "a&lt;b",
            "<td class=\"figure\">215 kB</td>",
        ] {
            assert!(page.contains(part), "{part}");
        }
        // One plot for both latencies, one for both memories.
        assert_eq!(page.matches("<svg class=\"small\"").count(), 2);
        assert_eq!(page.matches("<svg class=\"wide\"").count(), 1);
    }

    #[test]
    fn trouble_is_shown_with_its_evidence_and_nothing_has_a_page_too() {
        let trouble = Trouble::Violation("FAIL: 1 violation\n  lost: <seq>".to_owned());
        let failed = page(&report(Verdict::Violated, Some(trouble), Vec::new()));
        assert_is_whole(&failed);
        assert!(failed.contains("✗ FAIL: violation</strong>"));
        assert!(failed.contains("lost: &lt;seq&gt;") && failed.contains("Nothing was measured"));
        let mut empty = report(Verdict::Pass, None, Vec::new());
        empty.outcome.course.clear();
        empty.outcome.rounds.clear();
        assert_is_whole(&page(&empty));
    }

    #[test]
    fn of_many_samples_the_highest_are_drawn() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[7_777].1 = 9.0;
        let drawn = highest(&points);
        assert!(drawn.len() <= POINTS_MAX);
        assert!(drawn.contains(&(7_777.0, 9.0)));
    }
}
