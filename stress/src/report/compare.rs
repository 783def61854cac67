//! The comparison of stores: one table and one page.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Serialize;

use crate::evidence::verdict::Verdict;
use crate::report::machine::Machine;
use crate::report::page::{Cell, Column, document, escaped, table as html_table};
use crate::report::text::{columns, grouped};
use crate::run::config::Config;

/// All runs of all stores.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The day.
    pub date: String,
    /// The machine.
    pub machine: Machine,
    /// The seed of every run.
    pub seed: u64,
    /// The runs.
    pub rows: Vec<Row>,
    /// Stores that are not here, and why.
    pub missing: Vec<Missing>,
}

/// A store that was not run.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// Its name.
    pub store: String,
    /// Why.
    pub reason: String,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The store.
    pub store: String,
    /// Its version.
    pub version: String,
    /// The run.
    pub config: Config,
    /// How it went.
    pub verdict: Verdict,
    /// From the start to the last answer.
    pub seconds: f64,
    /// Writes by answer.
    pub acknowledged: u64,
    /// Refused and failed writes.
    pub refused: u64,
    /// Writes whose answer is unknown: mostly those that were killed.
    pub unknown: u64,
    /// Calls of more than 1 s, where they are counted.
    pub stalls: Option<u64>,
    /// Violations by kind.
    pub kinds: BTreeMap<String, u64>,
}

impl Comparison {
    /// Nothing yet; the stores are below `dir`.
    #[must_use]
    pub fn new(seed: u64, dir: &std::path::Path) -> Comparison {
        let date = Command::new("date").args(["-u", "+%F"]).output();
        let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Comparison {
            date: date.unwrap_or_default(),
            machine: Machine::of(dir),
            seed,
            rows: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Where and when, in one line.
    fn headline(&self) -> String {
        let machine = &self.machine;
        format!(
            "{}, {} processors, {}, {}, seed {}",
            self.date, machine.cores, machine.system, machine.filesystem, self.seed
        )
    }

    /// The stores with their versions, each once.
    fn stores(&self) -> Vec<String> {
        let mut stores: Vec<String> = Vec::new();
        for row in &self.rows {
            let store = format!("{} ({})", row.store, row.version);
            if !stores.contains(&store) {
                stores.push(store);
            }
        }
        stores
    }
}

/// Agents and writes of the runs that the picture shows.
pub const PICTURED: (u32, u32) = (10, 100);
/// The sizes of the picture: so narrow that it can be read on a phone.
const WIDTH: u32 = 520;
const TOP: u32 = 74;
const ROW: u32 = 78;
const BARS_WIDTH: f64 = 440.0;

const HEADS: [&str; 11] = [
    "store",
    "processes",
    "writes",
    "kills",
    "seconds",
    "acknowledged",
    "lost",
    "twice",
    "refused",
    "stalls",
    "else",
];
/// Columns of words.
const WORDS: [usize; 3] = [0, 1, 10];

impl Row {
    fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    fn cells(&self) -> [String; 11] {
        let config = &self.config;
        let others = self.kinds.iter();
        let others = others.filter(|(kind, _)| !["lost", "duplicated"].contains(&kind.as_str()));
        let mut others: Vec<String> = others.map(|(kind, n)| format!("{n} {kind}")).collect();
        let kills = config.kill_per_second > 0.0;
        if self.unknown > 0 && !kills {
            others.push(format!("{} unknown", grouped(self.unknown)));
        }
        match self.verdict {
            Verdict::Hang => others.push("hang".to_owned()),
            Verdict::Unknown => others.push("nothing acknowledged".to_owned()),
            _ => {}
        }
        [
            self.store.clone(),
            if config.one_shot {
                "one a write"
            } else {
                "one an agent"
            }
            .to_owned(),
            format!("{} × {}", config.agents, config.writes),
            if kills { "yes" } else { "" }.to_owned(),
            format!("{:.2}", self.seconds),
            grouped(self.acknowledged),
            grouped(self.count("lost")),
            grouped(self.count("duplicated")),
            grouped(self.refused),
            self.stalls.map_or_else(|| "–".to_owned(), grouped),
            others.join(", "),
        ]
    }

    /// Whether the picture shows it.
    fn is_pictured(&self, with_kills: bool) -> bool {
        let config = &self.config;
        let has_kills = config.kill_per_second > 0.0;
        (config.agents, config.writes) == PICTURED && config.one_shot && has_kills == with_kills
    }

    /// What is wrong, in words; whether anything is.
    fn judged(&self) -> (String, bool) {
        let mut found: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, count)| match kind.as_str() {
                "duplicated" => format!("{} stored twice", grouped(*count)),
                kind => format!("{} {kind}", grouped(*count)),
            })
            .collect();
        if self.verdict == Verdict::Hang {
            found.push("it hangs".to_owned());
        }
        let is_wrong = !found.is_empty();
        if found.is_empty() {
            found.push("nothing lost".to_owned());
        }
        let all = u64::from(self.config.agents * self.config.writes);
        if self.config.kill_per_second <= 0.0 && self.acknowledged < all {
            let [acknowledged, all] = [self.acknowledged, all].map(grouped);
            found.push(format!("only {acknowledged} of {all} acknowledged"));
        }
        (found.join(", "), is_wrong)
    }

    /// The run in one line.
    #[must_use]
    pub fn line(&self) -> String {
        self.cells().join("  ")
    }
}

/// The table on a terminal.
#[must_use]
pub fn table(comparison: &Comparison) -> String {
    let heads = std::iter::once(HEADS.map(str::to_owned));
    let numbers: Vec<usize> = (0..HEADS.len()).filter(|at| !WORDS.contains(at)).collect();
    let rows = heads.chain(comparison.rows.iter().map(Row::cells));
    format!("{}\n{}", comparison.headline(), columns(rows, &numbers))
}

/// The table as Markdown.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = format!("{}\n\n", comparison.headline());
    put!(text, "| {} |\n|", HEADS.join(" | "));
    for at in 0..HEADS.len() {
        text += if WORDS.contains(&at) {
            " --- |"
        } else {
            " ---: |"
        };
    }
    text.push('\n');
    for row in &comparison.rows {
        put!(text, "| {} |\n", row.cells().join(" | "));
    }
    text.push('\n');
    for store in comparison.stores() {
        put!(text, "- {store}\n");
    }
    for Missing { store, reason } in &comparison.missing {
        put!(text, "- {store}: SKIPPED, {reason}\n");
    }
    text
}

/// The page.
#[must_use]
pub fn page(comparison: &Comparison) -> String {
    let mut body = format!(
        "<h1>Stores under the oracle</h1>\n<p>{}</p>\n",
        escaped(&comparison.headline())
    );
    let heads: [Column<'_>; 11] = std::array::from_fn(|at| {
        let name = HEADS.get(at).copied().unwrap_or_default();
        if WORDS.contains(&at) {
            Column::Words(name)
        } else {
            Column::Numbers(name)
        }
    });
    let rows = comparison.rows.iter().map(|row| {
        let is_good = row.verdict == Verdict::Pass;
        let mut at = 0;
        row.cells().map(|text| {
            at += 1;
            // What is lost or stored twice, and whatever else is wrong.
            // Writes that are only unknown are no violation.
            let is_told = !text.is_empty() && text != "0" && !(at == 11 && is_good);
            let is_judged = [7, 8, 11].contains(&at) && is_told;
            if is_judged || (at == 7 && is_good) {
                Cell::verdict(&text, !is_judged)
            } else {
                Cell::from(text)
            }
        })
    });
    body += &html_table("Runs", heads, rows);
    body += "<h2>Versions</h2>\n<ul>\n";
    for store in comparison.stores() {
        put!(body, "<li>{}</li>\n", escaped(&store));
    }
    for Missing { store, reason } in &comparison.missing {
        put!(
            body,
            "<li>{}: SKIPPED, {}</li>\n",
            escaped(store),
            escaped(reason)
        );
    }
    body += "</ul>\n";
    document("Stores under the oracle", &body)
}

/// The picture: for each store how long the runs took, and what was lost.
#[must_use]
pub fn picture(comparison: &Comparison) -> String {
    let runs: Vec<&Row> = comparison
        .rows
        .iter()
        .filter(|row| row.is_pictured(false))
        .collect();
    let longest = runs.iter().map(|row| row.seconds).fold(0.001, f64::max);
    let many = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let height = TOP + ROW * many + 24;
    let (agents, writes) = PICTURED;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Stores under the oracle</title>\n<style>\n\
         svg {{ color-scheme: light dark; --ink: #1d1d1b; --soft: #62625d; --good: #17724b; --bad: #b3301e; --bar: #2a78d6; }}\n\
         @media (prefers-color-scheme: dark) {{ svg {{ --ink: #ecebe6; --soft: #a3a29b; --good: #4cc38a; --bad: #f2836f; --bar: #5aa2f2; }} }}\n\
         text {{ font: 13px system-ui, sans-serif; fill: var(--ink); }}\n\
         .head {{ font-weight: 600; font-size: 15px; }} .soft {{ fill: var(--soft); }} .good {{ fill: var(--good); }} .bad {{ fill: var(--bad); }}\n\
         rect {{ fill: var(--bar); }}\n</style>\n\
         <text class=\"head\" x=\"0\" y=\"16\">{} writes by {agents} agents at once, a process for each write</text>\n\
         <text class=\"soft\" x=\"0\" y=\"36\">how long that takes; below, what the oracle found:</text>\n\
         <text class=\"soft\" x=\"0\" y=\"53\">without other trouble, and with processes killed at random</text>\n",
        grouped(u64::from(agents * writes)),
    );
    for (row, number) in runs.iter().zip(0..) {
        let y = TOP + ROW * number + 14;
        let width = BARS_WIDTH * row.seconds / longest;
        put!(
            svg,
            "<text x=\"0\" y=\"{y}\">{} <tspan class=\"soft\">{}</tspan></text><rect x=\"0\" y=\"{}\" width=\"{width:.1}\" height=\"10\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1} s</text>\n",
            escaped(&row.store),
            version_number(&row.version),
            y + 7,
            width + 6.0,
            y + 16,
            row.seconds
        );
        let killed = comparison
            .rows
            .iter()
            .find(|other| other.store == row.store && other.is_pictured(true));
        for (name, run, below) in [("", Some(*row), 33), ("with kills: ", killed, 49)] {
            let Some(run) = run else { continue };
            let (text, is_wrong) = run.judged();
            put!(
                svg,
                "<text class=\"soft\" x=\"0\" y=\"{}\">{name}<tspan class=\"{}\">{}</tspan></text>\n",
                y + below,
                if is_wrong { "bad" } else { "good" },
                escaped(&text)
            );
        }
    }
    put!(
        svg,
        "<text class=\"soft\" x=\"0\" y=\"{}\">{}</text>\n</svg>\n",
        height - 6,
        escaped(&comparison.headline())
    );
    svg
}

/// The number in a version as programs print it.
fn version_number(version: &str) -> &str {
    let numbers = version.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let mut numbers = numbers.map(|number| number.trim_matches('.'));
    numbers.find(|number| number.contains('.')).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::tests::assert_is_whole;

    #[test]
    fn what_is_lost_is_in_the_table_and_on_the_page() {
        let mut comparison = Comparison::new(7, &std::env::temp_dir());
        comparison.rows.push(Row {
            store: "a <file>".to_owned(),
            version: "1.0".to_owned(),
            config: Config::default(),
            verdict: Verdict::Violated,
            seconds: 1.5,
            acknowledged: 1_000,
            refused: 0,
            unknown: 0,
            stalls: None,
            kinds: [("lost".to_owned(), 82), ("receipt twice".to_owned(), 3)].into(),
        });
        let reason = "not installed".to_owned();
        let store = "x".to_owned();
        comparison.missing.push(Missing { store, reason });
        let row = "| a <file> | one an agent | 5 × 20 |  | 1.50 | 1,000 | 82 | 0 | 0 | – | 3 receipt twice |";
        assert!(
            markdown(&comparison).contains(row),
            "{}",
            markdown(&comparison)
        );
        assert!(table(&comparison).contains("82"));
        let page = page(&comparison);
        assert_is_whole(&page);
        assert!(
            page.contains("✗ 82") && page.contains("SKIPPED, not installed"),
            "{page}"
        );
    }

    #[test]
    fn a_version_is_shown_as_its_number() {
        for (version, number) in [
            ("3.40.1 2022-12-28 14:03:47 df5c.253", "3.40.1"),
            ("Redis server v=7.0.15 sha=00000000:0", "7.0.15"),
            ("a shell, coreutils", ""),
        ] {
            assert_eq!(version_number(version), number);
        }
    }

    #[test]
    fn the_picture_has_each_store_once_with_its_losses() {
        let mut comparison = Comparison::new(7, &std::env::temp_dir());
        for (kill_per_second, lost) in [(0.0, 0), (10.0, 82)] {
            comparison.rows.push(Row {
                store: "a <file>".to_owned(),
                version: "1.0".to_owned(),
                config: Config {
                    agents: PICTURED.0,
                    writes: PICTURED.1,
                    one_shot: true,
                    kill_per_second,
                    ..Config::default()
                },
                verdict: Verdict::Pass,
                seconds: 1.5,
                acknowledged: 996,
                refused: 4,
                unknown: 0,
                stalls: None,
                kinds: (lost > 0)
                    .then(|| ("lost".to_owned(), lost))
                    .into_iter()
                    .collect(),
            });
        }
        let picture = picture(&comparison);
        assert_eq!(picture.matches("<rect ").count(), 1);
        assert_eq!(picture.matches("a &lt;file&gt;").count(), 1);
        for part in [
            "good\">nothing lost, only 996 of 1,000 acknowledged<",
            "bad\">82 lost<",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }
}
