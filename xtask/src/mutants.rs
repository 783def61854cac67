//! Shows that the tests can fail: each deliberate bug of `core` and `lock` has to be caught by a tier of the torture.
//!
//! First every tier has to pass without one, with the same budget: who cries wolf catches nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{cannot_start, exit_code};
use crate::{Failure, cargo};

/// Names the bug that is switched on.
const SWITCH: &str = "STRAND_SEEDED_BUG";
/// What catches bugs of `lock` that no tier can meet: its own tests.
const LOCK_TESTS: &str = "lock tests";
/// How long a tier gets for a bug.
const SECONDS: f64 = 30.0;
const SEED: u64 = 1;
const EXIT_PASS: u8 = 0;
const EXIT_USAGE: u8 = 2;
const EXIT_HANG: u8 = 3;
const EXIT_ENVIRONMENT: u8 = 4;

#[derive(Debug, PartialEq)]
struct Task {
    /// Only these; none means all.
    bugs: Vec<String>,
    seconds: f64,
    seed: u64,
    json: Option<PathBuf>,
}

/// A deliberate bug, as the harness lists it.
#[derive(Debug, Clone, PartialEq)]
struct Bug {
    name: String,
    /// The tier that has to catch it.
    tier: String,
    about: String,
}

/// What a tier did with a bug, or without one.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    tier: String,
    end: End,
    cases: u64,
    seconds: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum End {
    Passed,
    /// Nothing was tried, and why.
    Skipped(String),
    /// What was found, in one line.
    Caught(String),
    /// The tier could not be run, and why.
    Failed(String),
}

/// A bug, and the runs of tiers that tried to catch it: the last one is the one that did, if any did.
struct Hunt {
    bug: Bug,
    runs: Vec<Run>,
}

/// Whether it takes the arguments.
pub(crate) fn accepts(arguments: &[String]) -> Result<(), Failure> {
    Task::parse(arguments).map(drop)
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let task = Task::parse(arguments)?;
    let harness = cargo::build_harness_with_bugs()?;
    let all = bugs(&harness)?;
    let chosen = choose(&all, &task.bugs)?;
    let tiers: BTreeSet<&str> = chosen.iter().map(|bug| bug.tier.as_str()).collect();
    for tier in &tiers {
        let run = task.run_tier(&harness, tier, None)?;
        println!("no bug: {}", run.describe());
        match run.end {
            End::Passed => {}
            End::Skipped(_) => {
                println!("        what only {tier} can catch will not be caught here");
            }
            End::Caught(_) | End::Failed(_) => {
                let message = format!(
                    "mutants: {tier} does not pass without a bug, so that it proves nothing"
                );
                return Err(Failure { message, code: 1 });
            }
        }
    }
    let mut hunts = Vec::new();
    for bug in chosen {
        let hunt = task.hunt(&harness, bug, &tiers)?;
        println!("{}", hunt.describe());
        hunts.push(hunt);
    }
    println!("{}", table(&hunts).trim_end());
    if let Some(path) = &task.json {
        let report = report(&task, &hunts);
        std::fs::write(path, format!("{report:#}\n"))
            .map_err(|error| Failure::environment(format!("{}: {error}", path.display())))?;
    }
    let missed: Vec<&str> = missed(&hunts);
    if missed.is_empty() {
        println!("PASS: {} bugs, each caught", hunts.len());
        return Ok(());
    }
    let message = format!(
        "FAIL: {} of {} bugs not caught: {}",
        missed.len(),
        hunts.len(),
        missed.join(", ")
    );
    Err(Failure { message, code: 1 })
}

impl Task {
    fn parse(arguments: &[String]) -> Result<Task, Failure> {
        let mut task = Task {
            bugs: Vec::new(),
            seconds: SECONDS,
            seed: SEED,
            json: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            if !["--bug", "--seconds", "--seed", "--json"].contains(&name) {
                return Err(Failure::usage(format!(
                    "mutants takes --bug, --seconds, --seed and --json, not {argument:?}"
                )));
            }
            let value = value
                .or_else(|| arguments.next().cloned())
                .ok_or_else(|| Failure::usage(format!("{name} takes a value")))?;
            let nonsense = || Failure::usage(format!("{name} takes a number, not {value:?}"));
            match name {
                "--bug" => task.bugs.push(value),
                "--seconds" => task.seconds = value.parse().map_err(|_| nonsense())?,
                "--seed" => task.seed = value.parse().map_err(|_| nonsense())?,
                _ => task.json = Some(value.into()),
            }
        }
        if !task.seconds.is_finite() || task.seconds <= 0.0 {
            return Err(Failure::usage("--seconds takes a number above 0"));
        }
        Ok(task)
    }

    /// Has the tier try that must catch the bug, and then the others.
    fn hunt(&self, harness: &Path, bug: &Bug, tiers: &BTreeSet<&str>) -> Result<Hunt, Failure> {
        let expected = bug.tier.as_str();
        let others = tiers.iter().copied();
        let others = others.filter(|tier| *tier != expected && *tier != LOCK_TESTS);
        let mut hunt = Hunt {
            bug: bug.clone(),
            runs: Vec::new(),
        };
        for tier in std::iter::once(expected).chain(others) {
            hunt.runs.push(self.run_tier(harness, tier, Some(bug))?);
            if hunt.caught_by().is_some() {
                break;
            }
        }
        Ok(hunt)
    }

    fn run_tier(&self, harness: &Path, tier: &str, bug: Option<&Bug>) -> Result<Run, Failure> {
        if tier == LOCK_TESTS {
            return lock_tests(bug);
        }
        let report =
            std::env::temp_dir().join(format!("strand-mutants-{}.json", std::process::id()));
        // What an earlier run has left would be taken for this one's.
        std::fs::remove_file(&report).ok();
        let minutes = (self.seconds / 60.0).to_string();
        let mut command = Command::new(harness);
        command
            .args(["torture", "--quiet", "--tier", tier, "--minutes", &minutes])
            .args(["--seed", &self.seed.to_string()])
            .arg("--json")
            .arg(&report)
            .env_remove(SWITCH)
            .stdin(Stdio::null());
        if let Some(bug) = bug {
            command.env(SWITCH, &bug.name);
        }
        let started = Instant::now();
        let output = command
            .output()
            .map_err(|error| cannot_start(harness, &error))?;
        let seconds = started.elapsed().as_secs_f64();
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        std::fs::remove_file(&report).ok();
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Run::of(
            tier,
            exit_code(output.status),
            &text,
            &said,
            seconds,
        ))
    }
}

fn lock_tests(bug: Option<&Bug>) -> Result<Run, Failure> {
    let mut command = cargo::lock_tests_with_bugs();
    command.env_remove(SWITCH).stdin(Stdio::null());
    if let Some(bug) = bug {
        command.env(SWITCH, &bug.name);
    }
    let started = Instant::now();
    let output = command
        .output()
        .map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said.lines().find(|line| line.ends_with("--- FAILED"));
    Ok(Run {
        tier: LOCK_TESTS.to_owned(),
        end: match (output.status.success(), failed) {
            (true, _) => End::Passed,
            (false, Some(test)) => End::Caught(test.trim_end_matches(" --- FAILED").to_owned()),
            (false, None) => End::Failed(String::from_utf8_lossy(&output.stderr).into_owned()),
        },
        cases: u64::from(bug.is_some()),
        seconds: started.elapsed().as_secs_f64(),
    })
}

impl Run {
    /// From the exit status, the JSON report, what was said on standard error, and how long it took.
    fn of(tier: &str, code: u8, report: &str, said: &str, seconds: f64) -> Run {
        let report: Value = serde_json::from_str(report).unwrap_or(Value::Null);
        let found = report.pointer("/tiers/0").unwrap_or(&Value::Null);
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str);
        let last_words = || said.lines().last().unwrap_or_default().to_owned();
        let end = match code {
            EXIT_PASS => match text("/skipped") {
                Some(reason) => End::Skipped(reason.to_owned()),
                None => End::Passed,
            },
            EXIT_HANG => End::Caught("it hangs".to_owned()),
            EXIT_USAGE => End::Failed(last_words()),
            EXIT_ENVIRONMENT => {
                End::Failed(text("/environment").map_or_else(last_words, str::to_owned))
            }
            _ => End::Caught(match text("/violations/0/what") {
                Some(what) => one_line(what),
                None => one_line(&format!("it dies: {}", last_words())),
            }),
        };
        let in_report = found.pointer("/seconds").and_then(Value::as_f64);
        Run {
            tier: tier.to_owned(),
            end,
            cases: found.pointer("/cases").and_then(Value::as_u64).unwrap_or(0),
            seconds: in_report.unwrap_or(seconds),
        }
    }

    fn describe(&self) -> String {
        let Run {
            tier,
            cases,
            seconds,
            ..
        } = self;
        match &self.end {
            End::Passed => format!("{tier} passes {cases} cases in {seconds:.1} s"),
            End::Skipped(reason) => format!("{tier} was SKIPPED: {reason}"),
            End::Caught(what) => format!("{tier}, after {cases} cases and {seconds:.1} s: {what}"),
            End::Failed(reason) => format!("{tier} could not be run: {reason}"),
        }
    }
}

impl Hunt {
    fn caught_by(&self) -> Option<&Run> {
        self.runs
            .last()
            .filter(|run| matches!(run.end, End::Caught(_)))
    }

    fn describe(&self) -> String {
        let name = &self.bug.name;
        if let Some(run) = self.caught_by() {
            return format!("{name}: caught by {}", run.describe());
        }
        let runs: Vec<String> = self.runs.iter().map(Run::describe).collect();
        format!("{name}: NOT CAUGHT: {}", runs.join("; "))
    }
}

/// The bugs that the harness was built with.
fn bugs(harness: &Path) -> Result<Vec<Bug>, Failure> {
    let output = Command::new(harness)
        .arg("bugs")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| cannot_start(harness, &error))?;
    let listed = parse_bugs(&String::from_utf8_lossy(&output.stdout));
    match listed {
        Some(bugs) if output.status.success() && !bugs.is_empty() => Ok(bugs),
        _ => Err(Failure::environment("the harness does not list its bugs")),
    }
}

/// A bug a line: name, tier, description, with tabs between them.
fn parse_bugs(text: &str) -> Option<Vec<Bug>> {
    let parse = |line: &str| {
        let mut fields = line.splitn(3, '\t').map(str::to_owned);
        Some(Bug {
            name: fields.next()?,
            tier: fields.next()?,
            about: fields.next()?,
        })
    };
    text.lines().map(parse).collect()
}

fn choose<'a>(all: &'a [Bug], names: &[String]) -> Result<Vec<&'a Bug>, Failure> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|bug| bug.name == *name);
        found.ok_or_else(|| Failure::usage(format!("there is no bug named {name:?}")))
    };
    names.iter().map(find).collect()
}

fn missed(hunts: &[Hunt]) -> Vec<&str> {
    let missed = hunts.iter().filter(|hunt| hunt.caught_by().is_none());
    missed.map(|hunt| hunt.bug.name.as_str()).collect()
}

fn table(hunts: &[Hunt]) -> String {
    let width = hunts
        .iter()
        .map(|hunt| hunt.bug.name.len())
        .max()
        .unwrap_or(0);
    let row = |bug: &str, expected: &str, caught: &str, cases: &str, seconds: &str, what: &str| {
        format!("{bug:<width$}  {expected:<8}  {caught:<9}  {cases:>10}  {seconds:>7}  {what}\n")
    };
    let mut text = row(
        "bug",
        "expected",
        "caught by",
        "cases",
        "seconds",
        "what it is",
    );
    for Hunt { bug, runs } in hunts {
        let hunt = runs.last().filter(|run| matches!(run.end, End::Caught(_)));
        let (caught, cases, seconds) = match hunt {
            Some(run) => (
                run.tier.as_str(),
                run.cases.to_string(),
                format!("{:.1}", run.seconds),
            ),
            None => ("NOBODY", String::new(), String::new()),
        };
        text += &row(&bug.name, &bug.tier, caught, &cases, &seconds, &bug.about);
    }
    text
}

fn report(task: &Task, hunts: &[Hunt]) -> Value {
    let run = |run: &Run| {
        json!({
            "tier": run.tier,
            "cases": run.cases,
            "seconds": run.seconds,
            "end": run.describe(),
        })
    };
    let bugs: Vec<Value> = hunts
        .iter()
        .map(|hunt| {
            json!({
                "name": hunt.bug.name,
                "about": hunt.bug.about,
                "expected": hunt.bug.tier,
                "caught_by": hunt.caught_by().map(|run| &run.tier),
                "runs": hunt.runs.iter().map(run).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "seed": task.seed, "seconds": task.seconds, "bugs": bugs })
}

/// The first line, as far as it can be read.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    // A run of the harness says in its first line only how many violations there are.
    let second = lines.next().filter(|_| first.starts_with("FAIL"));
    second.unwrap_or(first).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Task, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Task::parse(&words)
    }

    fn bug(name: &str, tier: &str) -> Bug {
        Bug {
            name: name.to_owned(),
            tier: tier.to_owned(),
            about: "it is wrong".to_owned(),
        }
    }

    const CAUGHT: &str = r#"{"tiers":[{"cases":12,"seconds":0.5,"skipped":null,
        "violations":[{"what":"lost: record 3\nmore"}]}]}"#;
    const SKIPPED: &str =
        r#"{"tiers":[{"cases":0,"seconds":0.0,"skipped":"no /dev/fuse","violations":[]}]}"#;

    #[test]
    fn flags_are_parsed_and_nonsense_is_refused() {
        let Ok(task) = parse("--bug a --seconds=2.5 --bug b --seed 9 --json x") else {
            panic!("these are flags")
        };
        let expected = Task {
            bugs: vec!["a".into(), "b".into()],
            seconds: 2.5,
            seed: 9,
            json: Some("x".into()),
        };
        assert_eq!(task, expected);
        for line in ["--seconds 0", "--seconds x", "--bug", "--tier T1", "x"] {
            assert!(
                parse(line).is_err_and(|failure| failure.code == Failure::USAGE),
                "{line}"
            );
        }
    }

    #[test]
    fn bugs_are_listed_and_chosen() {
        let all =
            parse_bugs("no-sync\tT2\tit is wrong\nno-lock\tT4\tit is wrong\n").unwrap_or_default();
        assert_eq!(all, [bug("no-sync", "T2"), bug("no-lock", "T4")]);
        assert_eq!(parse_bugs("no-sync T2\n"), None);
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(choose(&all, &[]).is_ok_and(|chosen| chosen.len() == 2));
        assert!(choose(&all, &names(&["no-lock"])).is_ok_and(|chosen| *chosen == [&all[1]]));
        assert!(choose(&all, &names(&["none"])).is_err());
    }

    #[test]
    fn each_end_of_a_run_is_told_apart() {
        let end = |code, report: &str, said: &str| Run::of("T2", code, report, said, 7.0).end;
        assert_eq!(end(0, r#"{"tiers":[{"cases":3}]}"#, ""), End::Passed);
        assert_eq!(end(0, SKIPPED, ""), End::Skipped("no /dev/fuse".into()));
        assert_eq!(end(1, CAUGHT, ""), End::Caught("lost: record 3".into()));
        assert_eq!(end(3, "{}", ""), End::Caught("it hangs".into()));
        assert_eq!(
            end(1, "", "a\nstack overflow"),
            End::Caught("it dies: stack overflow".into())
        );
        assert_eq!(end(2, "", "no tier T2"), End::Failed("no tier T2".into()));
        assert_eq!(end(4, "", "no space"), End::Failed("no space".into()));
        let run = Run::of("T2", 1, CAUGHT, "", 7.0);
        assert_eq!((run.cases, run.seconds.to_string()), (12, "0.5".to_owned()));
        assert_eq!(
            one_line("FAIL: 2 violations\n  lost: seq=1\n"),
            "lost: seq=1"
        );
    }

    #[test]
    fn the_table_shows_who_caught_what() {
        let passed = Run::of("T2", 0, r#"{"tiers":[{"cases":3}]}"#, "", 1.0);
        let caught = Run::of("T4", 1, CAUGHT, "", 1.0);
        let hunts = [
            Hunt {
                bug: bug("no-sync", "T2"),
                runs: vec![passed.clone(), caught],
            },
            Hunt {
                bug: bug("no-lock", "T2"),
                runs: vec![passed],
            },
        ];
        let expected = "\
bug      expected  caught by       cases  seconds  what it is
no-sync  T2        T4                 12      0.5  it is wrong
no-lock  T2        NOBODY                          it is wrong
";
        assert_eq!(table(&hunts), expected);
        assert_eq!(missed(&hunts), ["no-lock"]);
        let task = Task {
            bugs: Vec::new(),
            seconds: 1.0,
            seed: 1,
            json: None,
        };
        let report = report(&task, &hunts);
        assert_eq!(report["bugs"][0]["caught_by"], "T4");
        assert_eq!(report["bugs"][1]["caught_by"], Value::Null);
    }
}
