//! The report of a run of any store, in the form of a bug report: the verdict, for each kind of
//! violation the operations around its first case, how to do it again, and a script that needs
//! nothing of ours.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::evidence::checks::Check;
use crate::evidence::listing::token;
use crate::evidence::violation::Violation;
use crate::report::page::{Cell, Column, details, document, escaped, table as html_table, verdict};
use crate::report::text::{columns, grouped};
use crate::run::config::{HistoryFormat, Workload};
use crate::stores::runner::Call;
use crate::stores::store::Told;
use crate::stores::{ByHand, Report, history};

/// How many operations are shown around the first case of a violation.
const AROUND_MAX: usize = 16;

/// The report for programs.
#[must_use]
pub fn json(report: &Report) -> String {
    crate::report::text::json(report)
}

/// Writes the folder.
///
/// # Errors
/// A file can't be written.
pub fn write_folder(report: &Report, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let format = report.config.history.unwrap_or(HistoryFormat::Jsonl);
    let name = match format {
        HistoryFormat::Jsonl => "history.jsonl",
        HistoryFormat::Edn => "history.edn",
    };
    for (name, text) in [
        ("report.json", json(report)),
        ("README.md", markdown(report)),
        ("index.html", page(report)),
        ("repro.sh", repro(report)),
        (name, history(report, format)),
    ] {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// The table on a terminal.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut rows = vec![[
        "store".to_owned(),
        format!("{} ({})", report.store, report.version),
    ]];
    rows.extend(numbers(report).map(|(name, value)| [name.to_owned(), value]));
    let mut text = columns(rows, &[]);
    let points = report.checks.iter();
    let points = points.map(|check| [result(check), compared(check), check.promise.to_owned()]);
    text += &columns(points, &[]);
    for violation in first_of_each_kind(report) {
        put!(text, "{}\n", violation.in_lines());
    }
    text
}

fn numbers(report: &Report) -> impl Iterator<Item = (&'static str, String)> {
    let answers = report.answers;
    let ms = |ms: f64| format!("{ms:.1} ms");
    [
        ("acknowledged", grouped(answers.ok)),
        ("refused", grouped(answers.refused)),
        ("failed", grouped(answers.failed)),
        ("unknown", grouped(answers.unknown)),
        ("listed", grouped(report.listed)),
        ("time", ms(report.elapsed_ms)),
        ("median call", ms(report.median_ms)),
        ("slowest call", ms(report.slowest_ms)),
        ("stalls", grouped(report.stalls)),
        ("kills", grouped(report.killed)),
        ("stops", grouped(report.stopped)),
        ("power cuts", grouped(report.cuts)),
    ]
    .into_iter()
    .filter(|(name, value)| value != "0" || !["kills", "stops", "power cuts"].contains(name))
}

/// The result of one point in words.
fn result(check: &Check) -> String {
    match (check.compared, check.violations) {
        (0, 0) => "not tested".to_owned(),
        (_, 0) => "ok".to_owned(),
        (_, wrong) => format!("WRONG {}", grouped(wrong)),
    }
}

/// What was compared at one point, and how often.
fn compared(check: &Check) -> String {
    match check.compared {
        0 => String::new(),
        some => format!("{} {}", grouped(some), check.what),
    }
}

fn first_of_each_kind(report: &Report) -> Vec<&Violation> {
    let mut first: Vec<&Violation> = Vec::new();
    for violation in &report.violations {
        if first.iter().all(|known| known.kind() != violation.kind()) {
            first.push(violation);
        }
    }
    first
}

/// The calls that a violation is about, and all at the same time as one of these.
fn around<'a>(report: &'a Report, violation: &Violation) -> Vec<&'a Call> {
    let value = serde_json::to_value(violation).unwrap_or_default();
    let number = |name: &str| value.get(name)?.as_u64();
    let pair = |name: &str| {
        let pair = value.get(name)?;
        Some((pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?))
    };
    let pairs = [pair("first"), pair("second")];
    let mut own: Vec<(u64, u64)> = pairs.into_iter().flatten().collect();
    own.extend(number("agent").zip(number("write")));
    let is_own = |call: &Call| {
        let winners = value.get("winners").and_then(Value::as_array);
        let is_winner = winners.is_some_and(|winners| {
            let item = value
                .get("item")
                .and_then(Value::as_str)
                .unwrap_or_default();
            winners.contains(&call.agent.into())
                && call.told == Told::Ok
                && item.split(" from ").all(|part| call.line.contains(part))
        });
        let is_about = |(agent, write): &(u64, u64)| {
            let writes = u64::from(call.write)..u64::from(call.write + call.writes);
            *agent == u64::from(call.agent) && writes.contains(write)
        };
        is_winner || own.iter().any(is_about)
    };
    let named: Vec<&Call> = report.calls.iter().filter(|call| is_own(call)).collect();
    let at_ns = number("at_ns").map(|at_ns| (at_ns, at_ns));
    let spans: Vec<(u64, u64)> = match named.as_slice() {
        [] => at_ns.into_iter().collect(),
        named => named
            .iter()
            .map(|call| (call.begin_ns, call.end_ns))
            .collect(),
    };
    let overlaps = |call: &&Call| {
        spans
            .iter()
            .any(|(begin, end)| call.begin_ns <= *end && call.end_ns >= *begin)
    };
    let mut calls: Vec<&Call> = named.clone();
    let others = report
        .calls
        .iter()
        .filter(overlaps)
        .filter(|call| !is_own(call));
    calls.extend(others.take(AROUND_MAX));
    calls.sort_by_key(|call| call.begin_ns);
    calls
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody looks at single nanoseconds"
)]
fn ms(report: &Report, at_ns: u64) -> String {
    let since = i128::from(at_ns) - i128::from(report.go_ns);
    format!("{:.3}", since as f64 / 1e6)
}

fn answer(call: &Call) -> String {
    let said = |what: &str, text: &str| format!("{what} {}", text.trim().replace('\n', " "));
    match (&call.told, &call.receipt) {
        (Told::Ok, Some(receipt)) => format!("ok {receipt}"),
        (Told::Ok, None) => "ok".to_owned(),
        (Told::Refused(text), _) => said("refused", text),
        (Told::Fail(text), _) => said("fail", text),
        (Told::Info(text), _) if text.is_empty() => "killed".to_owned(),
        (Told::Info(text), _) => said("unknown", text),
    }
}

const AROUND_HEAD: &str = "The operations at the time of the first case, in milliseconds from the \
                           start:";

/// The report for an issue tracker.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n\n", report.store, report.verdict_line());
    put!(
        text,
        "| | |\n| --- | ---: |\n| version | {} |\n",
        report.version
    );
    for (name, value) in numbers(report) {
        put!(text, "| {name} | {value} |\n");
    }
    text.push('\n');
    text += "| point | result | compared |\n| --- | --- | --- |\n";
    for check in &report.checks {
        put!(
            text,
            "| {} | {} | {} |\n",
            check.promise,
            result(check),
            compared(check)
        );
    }
    for violation in first_of_each_kind(report) {
        let kind = violation.kind();
        put!(
            text,
            "\n## {kind}: {}\n\n```\n{}\n```\n\n",
            report.count(&kind),
            violation.in_lines()
        );
        let calls = around(report, violation);
        if calls.is_empty() {
            continue;
        }
        put!(
            text,
            "{AROUND_HEAD}\n\n| from | to | agent | answer | command |\n| ---: | ---: | ---: | --- | --- |\n"
        );
        for call in calls {
            let cell = |text: &str| text.replace('|', "\\|");
            put!(
                text,
                "| {} | {} | {} | {} | `{}` |\n",
                ms(report, call.begin_ns),
                ms(report, call.end_ns),
                call.agent,
                cell(&answer(call)),
                cell(&call.line)
            );
        }
    }
    put!(
        text,
        "\n## Again\n\n`repro.sh` does the same with a shell and the program itself.\n\n```\n{}\n```\n",
        report.replay
    );
    text
}

/// The report for people.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut body = format!(
        "<h1>{}</h1>\n{}",
        escaped(&report.store),
        verdict(report.verdict, &report.verdict_line(), "")
    );
    let facts = std::iter::once(("version", report.version.clone())).chain(numbers(report));
    let facts = facts.map(|(name, value)| [Cell::from(name), Cell::from(value)]);
    body += &html_table("Numbers", [Column::Words(""), Column::Numbers("")], facts);
    body += "<h2>What was compared</h2>\n";
    let rows = report.checks.iter().map(|check| {
        let text = result(check);
        let cell = match check.compared {
            0 if check.violations == 0 => Cell::soft(&text),
            _ => Cell::verdict(&text, check.violations == 0),
        };
        [Cell::from(check.promise), cell, Cell::from(compared(check))]
    });
    body += &html_table(
        "Points",
        [
            Column::Words("point"),
            Column::Words("result"),
            Column::Words("compared"),
        ],
        rows,
    );
    for violation in first_of_each_kind(report) {
        let kind = violation.kind();
        put!(
            body,
            "<h2>{}: {}</h2>\n<pre class=\"command\"><code>{}</code></pre>\n",
            escaped(&kind),
            report.count(&kind),
            escaped(&violation.in_lines())
        );
        let calls = around(report, violation);
        if !calls.is_empty() {
            let rows = calls.into_iter().map(|call| {
                [
                    Cell::from(ms(report, call.begin_ns)),
                    Cell::from(ms(report, call.end_ns)),
                    Cell::from(call.agent),
                    Cell::from(answer(call)),
                    Cell::code(&call.line),
                ]
            });
            let heads = [
                Column::Numbers("from"),
                Column::Numbers("to"),
                Column::Numbers("agent"),
                Column::Words("answer"),
                Column::Words("command"),
            ];
            put!(body, "<p>{AROUND_HEAD}</p>\n");
            body += &html_table(&kind, heads, rows);
        }
    }
    put!(
        body,
        "<h2>Again</h2>\n<pre class=\"command\"><code>{}</code></pre>\n",
        escaped(&report.replay)
    );
    let script = format!(
        "<pre class=\"command\"><code>{}</code></pre>\n",
        escaped(&repro(report))
    );
    body += &details("repro.sh", &script);
    document(&report.store, &body)
}

/// A line with its places filled in by the shell, within and without single quotes.
fn with_places(line: &str) -> String {
    let mut text = String::new();
    let mut is_quoted = false;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let place = rest
            .strip_prefix('@')
            .and_then(|rest| rest.split_once('@'))
            .filter(|(name, _)| {
                ["STORE", "WORK"].contains(name)
                    || name
                        .strip_prefix("ITEM")
                        .is_some_and(|item| item.parse::<u32>().is_ok())
            });
        if let Some((name, behind)) = place {
            let quote = if is_quoted { "'" } else { "" };
            put!(text, "{quote}\"${name}\"{quote}");
            rest = behind;
            continue;
        }
        // `'\''` ends a quote and begins one again.
        is_quoted ^= first == '\'' && !text.ends_with('\\');
        text.push(first);
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    text
}

/// The items of a script: each with its name in a variable, if the store chooses that.
fn items(hand: &ByHand) -> String {
    let mut text = String::new();
    for (item, line) in (1..).zip(&hand.items) {
        let line = with_places(line);
        let Some(receipt) = &hand.receipt else {
            put!(text, "( {line} ) > /dev/null\n");
            continue;
        };
        let pattern = receipt.replace('/', r"\/").replace('\'', r"'\''");
        put!(
            text,
            "ITEM{item}=$( ( {line} ) | perl -0777 -ne 'print defined $1 ? $1 : $& if /{pattern}/m')\n\
             export ITEM{item}\n"
        );
    }
    text
}

/// The end of a script whose agents compete for items.
const WON_TWICE: &str = r#"twice=$(sort "$WORK/acknowledged" | uniq -d | tr '\n' ' ')
echo "$(wc -l < "$WORK/acknowledged") won, twice: ${twice:-none} ($STORE)"
[ -z "$twice" ] || exit 1
done
"#;

/// A script that does what the agents did, with nothing but a shell and the program.
#[must_use]
pub fn repro(report: &Report) -> String {
    let config = &report.config;
    let hand = &report.by_hand;
    let (does, must) = if config.workload == Workload::Claim {
        ("claims", "Then no item may have been\n# won twice.")
    } else {
        (
            "writes",
            "Then every write that\n# the program acknowledged has to be in its list once.",
        )
    };
    let mut text = format!(
        "#!/bin/sh\n# {} ({})\n# {}\n# {} agents work at the same time, each {} {does} one after \
         the other. {must} \
         It may take some tries: $0 [TRIES]\n",
        report.store,
        report.version,
        report.verdict_line().replace('\n', " "),
        config.agents,
        config.writes
    );
    if config.power_cuts > 0
        || config.inject.is_some()
        || config.slow_disk_ms.is_some()
        || config.disk_bytes.is_some()
    {
        text += "# The run also had faults of the machine, which a shell can't make.\n";
    }
    if hand.writes.is_empty() && hand.claims.is_empty() {
        return text + &format!("# By the harness only:\n{}\n", report.replay);
    }
    // A group of its own for each operation, so that all of it can be killed.
    text += "group=$(command -v setsid) || set -m\ntries=${1:-10}\nexport STORE WORK\n\
             while [ \"$tries\" -gt 0 ]; do\ntries=$((tries - 1))\n\
             WORK=$(mktemp -d)\nSTORE=$WORK/store\nmkdir \"$STORE\"";
    for dir in &hand.dirs {
        put!(text, " {}", with_places(dir));
    }
    text.push('\n');
    if let Some(init) = &hand.init {
        put!(text, "( {} ) > /dev/null\n", with_places(init));
    }
    let kills = config.kill_per_second > 0.0;
    if let Some((serve, ready)) = &hand.serve {
        put!(
            text,
            "$group sh -c '{}' > \"$WORK/server\" 2>&1 & server=$!\nuntil ( {} ) > /dev/null 2>&1; do sleep 0.1; done\n",
            with_places(serve).replace('\'', r"'\''"),
            with_places(ready)
        );
    }
    text += &items(hand);
    text += "op() {\n  $group sh -c \"$2\" > /dev/null 2>> \"$WORK/errors\" &\n  p=$!\n";
    if kills {
        let operations = report.calls.len().max(1);
        let one_in = (operations / usize::try_from(report.killed.max(1)).unwrap_or(1)).max(2);
        put!(
            text,
            "  n=$((n + 1))\n  if [ $((n % {one_in})) = 0 ]; then sleep 0.00$((n % 10)); kill -9 -- -$p; fi\n"
        );
    }
    text += "  wait $p && echo \"$1\" >> \"$WORK/acknowledged\"\n}\n";
    for agent in 0..config.agents {
        put!(text, "agent_{agent}() {{\n  n={agent}\n");
        for (_, write, line) in hand.writes.iter().filter(|(own, ..)| *own == agent) {
            // The line is a word of the call; the inner shell fills in its places.
            let line = with_places(line).replace('\'', r"'\''");
            put!(text, "  op {} '{line}'\n", token(agent, *write));
        }
        for (_, item, line) in hand.claims.iter().filter(|(own, ..)| *own == agent) {
            let line = with_places(line).replace('\'', r"'\''");
            put!(text, "  op {item} '{line}'\n");
        }
        text += "}\n";
    }
    text += "agents=\n";
    for agent in 0..config.agents {
        put!(text, "agent_{agent} & agents=\"$agents $!\"\n");
    }
    let end = hand.serve.as_ref().map_or("", |_| "kill -9 -- -$server\n");
    if hand.writes.is_empty() {
        return text + "wait $agents\n" + end + WON_TWICE;
    }
    put!(
        text,
        "wait $agents\n( {} ) > \"$WORK/list\"\n{end}lost=0 twice=0\nwhile read -r token; do\n  \
         n=$(grep -o -F \"$token\" \"$WORK/list\" | wc -l)\n  \
         [ \"$n\" -gt 0 ] || {{ lost=$((lost + 1)); echo \"lost: $token\"; }}\n  \
         [ \"$n\" -lt 2 ] || twice=$((twice + 1))\ndone < \"$WORK/acknowledged\"\n\
         echo \"$(wc -l < \"$WORK/acknowledged\") acknowledged, $lost lost, $twice twice ($STORE)\"\n\
         [ \"$lost$twice\" = 00 ] || exit 1\ndone\n",
        with_places(&hand.list)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_within_quotes_and_without() {
        assert_eq!(with_places("cat @STORE@/a"), "cat \"$STORE\"/a");
        assert_eq!(with_places("x 'a @STORE@ b'"), "x 'a '\"$STORE\"' b'");
        assert_eq!(
            with_places(r"x 'it'\''s @STORE@'"),
            r#"x 'it'\''s '"$STORE"''"#
        );
    }
}
