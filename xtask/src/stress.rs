//! `cargo xtask stress`: runs the harness once, or many times up to the first failure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::{cargo, process};

/// How often a loop with a time limit prints its progress.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The flags of the loop; the others are the harness's.
#[derive(Debug, Default, PartialEq)]
struct Loop {
    iterations: Option<u64>,
    minutes: Option<f64>,
    seed: Option<u64>,
    json: Option<PathBuf>,
    harness: Vec<String>,
}

pub(crate) fn run(flags: &[String]) -> Result<(), Failure> {
    let task = Loop::parse(flags)?;
    let harness = cargo::build_harness()?;
    if task.needs_command() {
        cargo::build_command()?;
    }
    if task.is_single() {
        let mut command = task.command(&harness, 0);
        command.args(
            task.json
                .iter()
                .flat_map(|json| ["--json".as_ref(), json.as_os_str()]),
        );
        return process::go_on_as(&mut command);
    }
    run_many(&harness, &task)
}

impl Loop {
    fn parse(flags: &[String]) -> Result<Loop, Failure> {
        let mut task = Loop::default();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag.as_str(), None),
            };
            if !["--iterations", "--minutes", "--seed", "--json"].contains(&name) {
                task.harness.push(flag.clone());
                continue;
            }
            let value = value
                .or_else(|| flags.next().cloned())
                .ok_or_else(|| Failure::usage(format!("{name} takes a value")))?;
            match name {
                "--iterations" => task.iterations = Some(number(name, &value, |n| *n > 0)?),
                "--minutes" => {
                    task.minutes = Some(number(name, &value, |n: &f64| n.is_finite() && *n > 0.0)?);
                }
                "--seed" => task.seed = Some(number(name, &value, |_| true)?),
                _ => task.json = Some(value.into()),
            }
        }
        Ok(task)
    }

    /// Whether the harness's own output is shown.
    fn is_single(&self) -> bool {
        let asks_help = self
            .harness
            .iter()
            .any(|flag| flag == "--help" || flag == "-h");
        asks_help || (self.minutes.is_none() && self.iterations.unwrap_or(1) == 1)
    }

    /// Whether the harness runs the command `strand` that lies beside it.
    fn needs_command(&self) -> bool {
        self.harness.iter().any(|flag| flag.ends_with("strand-cli"))
    }

    /// The harness for a run; `index` counts from 0.
    fn command(&self, harness: &Path, index: u64) -> Command {
        let mut command = Command::new(harness);
        command.arg("run").args(&self.harness);
        if let Some(seed) = self.seed {
            command.args(["--seed".to_owned(), seed.wrapping_add(index).to_string()]);
        }
        command
    }
}

fn number<T: FromStr>(name: &str, value: &str, is_valid: fn(&T) -> bool) -> Result<T, Failure> {
    let number = value.parse().ok().filter(is_valid);
    number.ok_or_else(|| Failure::usage(format!("invalid value {value:?} for {name}")))
}

fn run_many(harness: &Path, task: &Loop) -> Result<(), Failure> {
    let started = Instant::now();
    let limit = task
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let runs_max = task.iterations.unwrap_or(u64::MAX);
    let report = std::env::temp_dir().join(format!("strand-xtask-{}.json", std::process::id()));
    let mut sum = Sum::default();
    let mut last_status = Instant::now();
    let mut result = Ok(());
    while result.is_ok()
        && sum.runs < runs_max
        && limit.is_none_or(|limit| started.elapsed() < limit)
    {
        let mut command = task.command(harness, sum.runs);
        command.arg("--json").arg(&report);
        if !task.harness.iter().any(|flag| flag == "--quiet") {
            command.arg("--quiet");
        }
        let output = process::output(&mut command)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        sum.runs += 1;
        if !output.status.success() {
            print!("{stdout}");
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            let code = process::exit_code(output.status);
            result = Err(Failure {
                message: String::new(),
                code,
            });
        } else if limit.is_none() {
            println!("run {:<5} {}", sum.runs, stdout.trim_end());
        } else if last_status.elapsed() >= STATUS_INTERVAL {
            last_status = Instant::now();
            println!(
                "{:.0} s: {} runs passed",
                started.elapsed().as_secs_f64(),
                sum.runs
            );
        }
        // A run with wrong flags or in a broken environment writes no report.
        if let Ok(text) = std::fs::read_to_string(&report) {
            sum.add(&text)?;
            if let Some(json) = &task.json {
                std::fs::write(json, text).map_err(|error| Failure::at(json, error))?;
            }
            std::fs::remove_file(&report).map_err(|error| Failure::at(&report, error))?;
        }
    }
    println!("{}", sum.describe(started.elapsed(), result.is_ok()));
    result
}

/// Totals of many runs.
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
        #[expect(clippy::cast_precision_loss, reason = "shown rounded")]
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
    fn flags_of_the_harness_are_passed_on() {
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
        assert!(needs("--store strand-cli --seed 3"));
        assert!(needs("--store=strand-cli"));
        assert!(!needs("--store sqlite"));
    }

    #[test]
    fn invalid_values_are_usage_errors() {
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
