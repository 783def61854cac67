//! Loops the harness, with another seed each time, to the first failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::harness::{cannot_start, exit_code};
use crate::{Failure, cargo};

/// A loop by time prints where it is this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// What the loop itself has to know; all other flags are the harness's.
#[derive(Debug, Default, PartialEq)]
struct Loop {
    iterations: Option<u64>,
    minutes: Option<f64>,
    seed: Option<u64>,
    json: Option<PathBuf>,
    harness: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let task = Loop::parse(arguments)?;
    let harness = cargo::build_harness()?;
    if task.needs_command() {
        cargo::build_command()?;
    }
    if task.is_single() {
        run_once(&harness, &task)
    } else {
        run_many(&harness, &task)
    }
}

impl Loop {
    fn parse(arguments: &[String]) -> Result<Loop, Failure> {
        let mut task = Loop::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            if !["--iterations", "--minutes", "--seed", "--json"].contains(&name) {
                task.harness.push(argument.clone());
                continue;
            }
            let value = value
                .or_else(|| arguments.next().cloned())
                .ok_or_else(|| Failure::usage(format!("{name} takes a value")))?;
            match name {
                "--iterations" => task.iterations = Some(number(name, &value)?),
                "--minutes" => task.minutes = Some(number(name, &value)?),
                "--seed" => task.seed = Some(number(name, &value)?),
                _ => task.json = Some(value.into()),
            }
        }
        if task.iterations == Some(0) {
            return Err(Failure::usage("--iterations takes a number from 1"));
        }
        if task
            .minutes
            .is_some_and(|minutes| !minutes.is_finite() || minutes <= 0.0)
        {
            return Err(Failure::usage("--minutes takes a number above 0"));
        }
        Ok(task)
    }

    /// One run is shown as the harness shows it.
    fn is_single(&self) -> bool {
        let asks_help = self
            .harness
            .iter()
            .any(|flag| flag == "--help" || flag == "-h");
        asks_help || (self.minutes.is_none() && self.iterations.unwrap_or(1) == 1)
    }

    /// Whether the harness looks for the command `strand` beside itself.
    fn needs_command(&self) -> bool {
        let has = |name: &str| {
            let name_of = |flag: &String| flag.split('=').next() == Some(name);
            self.harness.iter().any(name_of)
        };
        has("--via-cli") && !has("--strand")
    }

    /// The harness for run number `index`, counted from 0.
    fn command(&self, harness: &Path, index: u64) -> Command {
        let mut command = Command::new(harness);
        command.arg("run").args(&self.harness);
        if let Some(seed) = self.seed {
            command.args(["--seed".to_owned(), seed.wrapping_add(index).to_string()]);
        }
        command
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value
        .parse()
        .map_err(|_| Failure::usage(format!("{name} takes a number, not {value:?}")))
}

fn run_once(harness: &Path, task: &Loop) -> Result<(), Failure> {
    let mut command = task.command(harness, 0);
    if let Some(json) = &task.json {
        command.arg("--json").arg(json);
    }
    let status = command
        .status()
        .map_err(|error| cannot_start(harness, &error))?;
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure {
            message: String::new(),
            code,
        }),
    }
}

fn run_many(harness: &Path, task: &Loop) -> Result<(), Failure> {
    let started = Instant::now();
    let limit = task
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let runs_max = task
        .iterations
        .unwrap_or(if limit.is_some() { u64::MAX } else { 1 });
    let report = std::env::temp_dir().join(format!("strand-xtask-{}.json", std::process::id()));
    let mut sum = Sum::default();
    let mut last_status = Instant::now();
    let mut result = Ok(());
    while sum.runs < runs_max && limit.is_none_or(|limit| started.elapsed() < limit) {
        let mut command = task.command(harness, sum.runs);
        command.arg("--json").arg(&report);
        if !task.harness.iter().any(|flag| flag == "--quiet") {
            command.arg("--quiet");
        }
        let output = command
            .output()
            .map_err(|error| cannot_start(harness, &error))?;
        sum.runs += 1;
        let code = exit_code(output.status);
        if code != 0 {
            print(&output);
            result = Err(Failure {
                message: String::new(),
                code,
            });
        } else if limit.is_none() {
            println!(
                "run {:<5} {}",
                sum.runs,
                String::from_utf8_lossy(&output.stdout).trim_end()
            );
        } else if last_status.elapsed() >= STATUS_INTERVAL {
            last_status = Instant::now();
            println!(
                "{:.0} s: {} runs passed",
                started.elapsed().as_secs_f64(),
                sum.runs
            );
        }
        // A run that its flags or its environment prevented has no report.
        if let Ok(text) = std::fs::read_to_string(&report) {
            sum.add(&text)?;
            if let Some(json) = &task.json {
                std::fs::write(json, text).map_err(|error| {
                    Failure::environment(format!("cannot write {}: {error}", json.display()))
                })?;
            }
            std::fs::remove_file(&report).map_err(|error| {
                Failure::environment(format!("cannot remove {}: {error}", report.display()))
            })?;
        }
        if result.is_err() {
            break;
        }
    }
    println!("{}", sum.describe(started.elapsed(), result.is_ok()));
    result
}

/// The figures of many runs.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    acknowledged: u64,
    killed: u64,
    elapsed_ms: Vec<f64>,
}

impl Sum {
    fn add(&mut self, report: &str) -> Result<(), Failure> {
        let report: serde_json::Value = serde_json::from_str(report)
            .map_err(|error| Failure::environment(format!("the harness's report: {error}")))?;
        let count = |name: &str| report.get(name).and_then(serde_json::Value::as_u64);
        self.acknowledged += count("acknowledged").unwrap_or(0);
        self.killed += count("killed").unwrap_or(0);
        let elapsed_ms = report.get("elapsed_ms").and_then(serde_json::Value::as_f64);
        self.elapsed_ms.push(elapsed_ms.unwrap_or(0.0));
        Ok(())
    }

    fn describe(&self, took: Duration, passed: bool) -> String {
        let mut sorted = self.elapsed_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let worst = sorted.last().copied().unwrap_or(0.0);
        let total_s: f64 = sorted.iter().sum::<f64>() / 1_000.0;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = if total_s > 0.0 {
            self.acknowledged as f64 / total_s
        } else {
            0.0
        };
        format!(
            "{}: {} runs in {:.1} s, {} appends acknowledged, {rate:.0} appends/s, {} processes \
             killed, elapsed {median:.2} ms median, {worst:.2} ms at most",
            if passed { "PASS" } else { "FAIL" },
            self.runs,
            took.as_secs_f64(),
            self.acknowledged,
            self.killed,
        )
    }
}

fn print(output: &Output) {
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Loop, Failure> {
        Loop::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_loops_flags_are_taken_and_all_others_passed_on() {
        let line = "--agents 5 --iterations 20 --seed=7 --keep --minutes 1.5 --json a=b.json";
        let Ok(task) = parse(line) else {
            panic!("{line}")
        };
        assert_eq!(
            task,
            Loop {
                iterations: Some(20),
                minutes: Some(1.5),
                seed: Some(7),
                json: Some("a=b.json".into()),
                harness: vec!["--agents".into(), "5".into(), "--keep".into()],
            }
        );
        assert!(!task.is_single());
        assert!(parse("--iterations 1").is_ok_and(|task| task.is_single()));
        assert!(parse("--iterations 9 --help").is_ok_and(|task| task.is_single()));
    }

    #[test]
    fn the_command_is_built_where_the_harness_looks_for_it() {
        let needs = |line: &str| parse(line).is_ok_and(|task| task.needs_command());
        assert!(needs("--one-shot --via-cli --seed 3"));
        assert!(!needs("--one-shot"));
        assert!(!needs("--one-shot --via-cli --strand a/strand"));
        assert!(!needs("--one-shot --via-cli --strand=a/strand"));
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "--iterations",
            "--iterations x",
            "--iterations 0",
            "--minutes -1",
            "--seed -",
        ] {
            assert!(
                parse(line).is_err_and(|failure| failure.code == Failure::USAGE),
                "{line}"
            );
        }
    }

    #[test]
    fn sums_are_over_all_runs() {
        let mut sum = Sum {
            runs: 2,
            ..Sum::default()
        };
        for report in [
            r#"{"acknowledged":100,"killed":1,"elapsed_ms":10.0}"#,
            r#"{"acknowledged":100,"killed":2,"elapsed_ms":30.0}"#,
        ] {
            assert!(sum.add(report).is_ok());
        }
        assert!(sum.add("nonsense").is_err());
        let text = sum.describe(Duration::from_secs(1), true);
        assert!(
            text.contains("200 appends acknowledged, 5000 appends/s, 3 processes"),
            "{text}"
        );
        assert!(text.contains("30.00 ms median, 30.00 ms at most"), "{text}");
    }
}
