//! The HTML report: one page without scripts, other files or anything from the network.

use strand_stress::report::page::plot::{Axis, Curve, Form, Plot, Size, Unit, at_share};
use strand_stress::report::page::{self, Cell, Column, escaped};
use strand_stress::report::quantiles::SHARES;

use crate::bars::Ratio;
use crate::measured::Row;
use crate::report::Summary;

pub(crate) fn page(summary: &Summary) -> String {
    let rows: Vec<&Row> = summary.rows.iter().chain(&summary.limits).collect();
    let mut extras = summary.extras.lines();
    extras.extend(summary.skipped_lines());
    let extras: String = extras
        .iter()
        .map(|line| ["<li>", &escaped(line), "</li>\n"].concat())
        .collect();
    let extras = if extras.is_empty() {
        extras
    } else {
        format!("<h2>Other measurements</h2>\n<ul>\n{extras}</ul>\n")
    };
    let body = format!(
        "<h1>Durable appends by many processes at once</h1>\n<p><strong>{verdict}</strong></p>\n\
         <p>{circumstances}</p>\n\
         <h2>Throughput by agents</h2>\n\
         <p>Every agent is a process. Both axes are logarithmic; higher is better.</p>\n{throughput}\
         <h2>Latency distribution by system</h2>\n\
         <p>The time within which the given share of appends was done, over all rounds. Logarithmic; \
         lower is better.</p>\n\
         {legend}<div class=\"plots\">\n{latency}</div>\n\
         <h2>The bars</h2>\n{bars}{extras}<h2>All results</h2>\n{results}",
        verdict = escaped(&verdict(&summary.ratios)),
        circumstances = escaped(&summary.circumstances()),
        throughput = throughput(&rows),
        legend = legend(&rows),
        latency = latency(&rows),
        bars = bars(&summary.ratios),
        results = results(&summary.sorted_rows()),
    );
    page::document("strand bench", &body)
}

/// How many of the bars are met, in one sentence.
fn verdict(ratios: &[Ratio]) -> String {
    let measured = ratios.iter().filter(|ratio| ratio.met.is_some()).count();
    let missed: Vec<&str> = ratios
        .iter()
        .filter(|ratio| ratio.met == Some(false))
        .map(|ratio| ratio.name.as_str())
        .collect();
    let met = measured - missed.len();
    let missed = if missed.is_empty() {
        String::new()
    } else {
        format!(" Missed: {}.", missed.join("; "))
    };
    format!("Bars: {met} of {measured} that were measured are met.{missed}")
}

/// The colour, of the style sheet, and the line style of a system in all plots.
fn look(system: &str) -> (&'static str, &'static str) {
    match system {
        "strand" => ("--strand", ""),
        "strand-buffered" => ("--strand", "dashed"),
        "plan" => ("--plan", ""),
        "sqlite" => ("--sqlite", ""),
        "lmdb" => ("--lmdb", ""),
        "redis" => ("--redis", ""),
        "redis-connections" => ("--redis", "dashed"),
        "postgres" => ("--postgres", ""),
        "bare" => ("--limit", "dashed"),
        _ => ("--limit", "dotted"),
    }
}

/// The systems in the order of their first row.
fn systems<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    let mut systems: Vec<&Row> = Vec::new();
    for row in rows {
        if systems.iter().all(|seen| seen.system != row.system) {
            systems.push(row);
        }
    }
    systems
}

fn legend(rows: &[&Row]) -> String {
    page::legend(systems(rows).iter().map(|row| {
        let (colour, style) = look(&row.system);
        let sample =
            format!("<path class=\"curve {style}\" style=\"stroke:var({colour})\" d=\"M1 5H27\"/>");
        (sample, row.title)
    }))
}

/// The plot of the throughput as an SVG image.
pub(crate) fn image(summary: &Summary) -> String {
    let rows: Vec<&Row> = summary.rows.iter().chain(&summary.limits).collect();
    let entries = systems(&rows);
    let names = entries
        .iter()
        .map(|row| (look(&row.system), row.title))
        .map(|((colour, style), title)| (colour, style, title));
    throughput_plot(&rows).image(&names.collect::<Vec<_>>())
}

fn throughput(rows: &[&Row]) -> String {
    let plot = throughput_plot(rows).svg();
    format!("{}<figure class=\"one\">{plot}</figure>\n", legend(rows))
}

#[expect(clippy::cast_precision_loss, reason = "numbers of agents are small")]
fn throughput_plot<'a>(rows: &[&'a Row]) -> Plot<'a> {
    let mut agents: Vec<usize> = rows.iter().map(|row| row.agents).collect();
    agents.sort_unstable();
    agents.dedup();
    let last = agents.last().copied().unwrap_or(1);
    let curves = systems(rows).into_iter().map(|system| {
        let mine = rows.iter().filter(|row| row.system == system.system);
        let mut points: Vec<(f64, f64)> = mine
            .map(|row| (row.agents as f64, row.appends_per_s))
            .collect();
        // A limit of one process becomes a horizontal line.
        if let ([(agents, rate)], true) = (points.as_slice(), last > 1) {
            let beyond = (last as f64, *rate);
            if *agents < beyond.0 {
                points.push(beyond);
            }
        }
        let (colour, style) = look(&system.system);
        Curve {
            title: system.title,
            colour,
            style,
            form: Form::Dotted,
            points,
        }
    });
    let curves: Vec<Curve<'_>> = curves.collect();
    let ticks = agents.iter().map(|n| ((*n as f64), n.to_string()));
    let across = curves.iter().flat_map(|curve| &curve.points);
    Plot {
        title: "Appends per second by number of agents",
        description: "A curve for each system; the last table has the numbers.".to_owned(),
        x: Axis::of_ticks("agents", true, ticks.collect(), across.map(|(x, _)| *x)),
        y: Axis::powers_of_ten("appends/s", Unit::Count, heights(&curves)),
        curves,
        marks: Vec::new(),
        size: Size::Small,
    }
}

fn heights<'a>(curves: &'a [Curve<'_>]) -> impl Iterator<Item = f64> + 'a {
    curves
        .iter()
        .flat_map(|curve| &curve.points)
        .map(|(_, y)| *y)
}

fn latency(rows: &[&Row]) -> String {
    let mut agents: Vec<usize> = rows.iter().map(|row| row.agents).collect();
    agents.sort_unstable();
    agents.dedup();
    let curves = |agents: usize| -> Vec<Curve<'_>> {
        let mine = rows.iter().filter(|row| row.agents == agents);
        mine.map(|row| {
            let (colour, style) = look(&row.system);
            let points = SHARES.iter().zip(row.quantiles_us);
            Curve {
                title: row.title,
                colour,
                style,
                form: Form::Dotted,
                points: points.map(|(q, us)| (at_share(*q), us)).collect(),
            }
        })
        .collect()
    };
    // One scale for all plots, so that they can be compared.
    let every: Vec<Curve<'_>> = agents.iter().flat_map(|agents| curves(*agents)).collect();
    let axis_y = Axis::powers_of_ten("", Unit::Microseconds, heights(&every));
    let plots = agents.iter().map(|agents| {
        let heading = if *agents == 1 {
            "1 agent".to_owned()
        } else {
            format!("{agents} agents")
        };
        let plot = Plot {
            title: &format!("Latency of appends with {heading}"),
            description: "A curve for each system; the last table has the numbers.".to_owned(),
            x: Axis::of_shares("share of appends"),
            y: axis_y.clone(),
            curves: curves(*agents),
            marks: Vec::new(),
            size: Size::Small,
        };
        format!("<figure><h3>{heading}</h3>{}</figure>\n", plot.svg())
    });
    plots.collect()
}

fn bars(ratios: &[Ratio]) -> String {
    let columns = [
        Column::Words("what"),
        Column::Numbers("bar"),
        Column::Numbers("measured"),
        Column::Words(""),
    ];
    let rows = ratios.iter().map(|ratio| {
        let verdict = match ratio.met {
            Some(is_met) => Cell::verdict(ratio.verdict(), is_met),
            None => Cell::soft(ratio.verdict()),
        };
        [
            Cell::from(&ratio.name),
            Cell::from(&ratio.bar),
            Cell::from(ratio.text()),
            verdict,
        ]
    });
    page::table("The bars", columns, rows)
}

fn results(rows: &[&Row]) -> String {
    let columns = Row::COLUMNS.map(|name| match name {
        "system" => Column::Words(name),
        _ => Column::Numbers(name),
    });
    page::table(
        "All results",
        columns,
        rows.iter().map(|row| row.cells().map(Cell::from)),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::appending::{self, Turn};
    use crate::cli::Cli;
    use crate::report::Report;
    use crate::schedule;
    use crate::systems::System;

    fn summary() -> Summary {
        let cli = Cli::parse_from(["bench", "--rounds", "2"]);
        let mut report = Report::new(&cli, &[], Vec::new());
        let systems = [System::Strand, System::Plan, System::Bare];
        for step in schedule::steps(2, &[1, 5], &systems, |_| 3) {
            let told = |_| appending::Report {
                released_ns: 0,
                began_ns: 0,
                latencies_ns: vec![100_000, 300_000, 500_000],
                ..appending::Report::default()
            };
            report.add(&step, Turn::of((0..step.agents).map(told).collect(), 3));
        }
        report.summary()
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let page = page(&summary());
        for outside in ["http", "src=", "<link", "<script", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
        assert_eq!(
            page.matches("<figure").count(),
            1 + 2,
            "throughput, and latency by agents"
        );
        assert!(!page.contains("NaN") && !page.contains("inf"));
        for tag in [
            "svg", "figure", "table", "tr", "td", "th", "li", "ul", "div", "p", "text", "g",
        ] {
            let opened = page.matches(&format!("<{tag} ")).count()
                + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_run_without_results_has_a_page() {
        let report = Report::new(&Cli::parse_from(["bench"]), &[], Vec::new());
        let page = page(&report.summary());
        assert!(page.ends_with("</html>\n") && page.contains("not measured"));
    }

    #[test]
    fn the_verdict_names_what_is_missed() {
        let ratio = |name, measured| Ratio::new(name, crate::bars::Bar::AtLeast(1.0), measured);
        let ratios = [
            ratio("a", Some(2.0)),
            ratio("b", None),
            ratio("c", Some(0.5)),
        ];
        let text = verdict(&ratios);
        assert_eq!(text, "Bars: 1 of 2 that were measured are met. Missed: c.");
        assert_eq!(verdict(&[]), "Bars: 0 of 0 that were measured are met.");
    }
}
