//! `cargo xtask cross`: builds for other systems. `windows` also runs the tests and the harness
//! under Wine; `check` type-checks.

mod tools;
mod wine;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::args::Cross;
use crate::cargo;
use crate::failure::Failure;
use tools::{Rust, WINDOWS, Windows, target_dir};
use wine::{Fault, Wine, run_to_end};

const CHECKED: [&str; 6] = [
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "x86_64-unknown-linux-musl",
    "i686-unknown-linux-gnu",
    "x86_64-unknown-freebsd",
];
/// Runs of the harness: its flags.
const RUNS: [&str; 7] = [
    "--agents 5 --writes 20",
    "--agents 5 --writes 1000",
    "--writes 60 --kill-at any --segment-bytes 4096",
    "--agents 8 --writes 10 --one-shot",
    "--workload mixed --writes 100 --readers 2 --followers 1 --compact-every-ms 50 --kill-at any \
     --segment-bytes 16384",
    "--agents 5 --writes 100 --kill-per-second 20",
    "--workload mixed --writes 60 --readers 2 --followers 1 --compact-every-ms 50 \
     --kill-per-second 10 --segment-bytes 16384",
];

pub(crate) fn run(task: &Cross) -> Result<(), Failure> {
    match task {
        Cross::Windows => windows(),
        Cross::Check { targets } => check(targets),
    }
}

/// How a step ended, and what it says of itself, or why.
enum End {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        match fault {
            Fault::Avoided(about) => End::Passed(about),
            Fault::Open(about) => End::Failed(about),
            Fault::NotLookedFor(why) => End::Skipped(why),
        }
    }
}

/// Prints the steps as they end, and counts them.
#[derive(Default)]
struct Steps {
    count: usize,
    failed: usize,
    /// Tests that were ignored, and why.
    ignored: Vec<String>,
}

impl Steps {
    fn add(&mut self, name: impl Display, started: Instant, end: End) {
        self.count += 1;
        self.failed += usize::from(matches!(end, End::Failed(_)));
        let (word, about) = match end {
            End::Passed(about) => ("passed", about),
            End::Failed(about) => ("FAILED", about),
            End::Skipped(about) => ("skipped", about),
        };
        let seconds = started.elapsed().as_secs_f64();
        println!("cross: {word:<8}{seconds:>7.1} s  {name}: {about}");
    }

    fn finish(self, task: &str) -> Result<(), Failure> {
        for test in &self.ignored {
            println!("cross: ignored {test}");
        }
        let Steps { count, failed, .. } = self;
        match failed {
            0 => Ok(()),
            _ => Err(Failure::violation(format!(
                "{task}: FAILED: {failed} of {count} steps"
            ))),
        }
    }
}

fn not_run(task: &str, missing: &[String]) -> Failure {
    let list: Vec<String> = missing.iter().map(|what| format!("- {what}")).collect();
    Failure::environment(format!("{task}: NOT RUN; missing:\n{}", list.join("\n")))
}

fn check(targets: &[String]) -> Result<(), Failure> {
    let targets: Vec<&str> = if targets.is_empty() {
        CHECKED.to_vec()
    } else {
        targets.iter().map(String::as_str).collect()
    };
    let mut steps = Steps::default();
    let mut missing = Vec::new();
    for target in targets {
        let started = Instant::now();
        let rust = match Rust::find(target) {
            Ok(rust) => rust,
            Err(what) => {
                steps.add(
                    target,
                    started,
                    End::Skipped("no Rust for this target".to_owned()),
                );
                missing.push(what);
                continue;
            }
        };
        let mut command = rust.command("check", target, "panic_abort", &target_dir());
        command
            .arg("--quiet")
            // The others use `strand-etcd`, whose TLS needs a C compiler for the target.
            .args([
                "--package=strand-lock",
                "--package=strand-core",
                "--package=xtask",
            ])
            .current_dir(cargo::workspace());
        let end = match command.status() {
            Ok(status) if status.success() => {
                End::Passed(format!("type-checked; {}", rust.describe()))
            }
            Ok(status) => End::Failed(status.to_string()),
            Err(error) => End::Failed(error.to_string()),
        };
        steps.add(target, started, end);
    }
    if !missing.is_empty() && missing.len() == steps.count {
        return Err(not_run("cross check", &missing));
    }
    steps.finish("cross check")
}

fn windows() -> Result<(), Failure> {
    let tools = Windows::find().map_err(|missing| not_run("cross windows", &missing))?;
    let mut steps = Steps::default();
    let started = Instant::now();
    let programs = build(&tools)?;
    let about = format!("{} programs by {}", programs.len(), tools.rust.describe());
    steps.add("build", started, End::Passed(about));
    let started = Instant::now();
    let wine = Wine::prepare(&tools)?;
    steps.add("prepare Wine", started, End::Passed(tools.wine_version()));
    let started = Instant::now();
    let end = match wine.look_for_the_fault() {
        Ok(fault) => fault.into(),
        Err(error) => End::Failed(error),
    };
    steps.add("the fault of Wine's shared page", started, end);
    let _session = wine.keep_session()?;
    for program in programs.iter().filter(|program| program.is_test) {
        let started = Instant::now();
        let name = format!("test {}", program.name);
        if program.name.ends_with("/model") {
            let why = "the model is the same on every system";
            steps.add(name, started, End::Skipped(why.to_owned()));
            continue;
        }
        let mut command = wine.command(&program.path);
        command.arg("--test-threads=4").current_dir(&program.dir);
        let said = run_to_end(&mut command, &program.name)?;
        steps.ignored.extend(ignored(&program.name, &said.text));
        let end = match results(&said.text) {
            Some(results) if said.succeeded() => End::Passed(results),
            results => {
                println!("{}", said.text);
                End::Failed(results.unwrap_or_else(|| said.end()))
            }
        };
        steps.add(name, started, end);
    }
    let harness = programs
        .iter()
        .find(|program| !program.is_test && program.name == "strand-stress")
        .ok_or_else(|| Failure::environment("cargo did not name the harness it built"))?;
    for flags in RUNS {
        let started = Instant::now();
        let mut command = wine.command(&harness.path);
        command
            .args(["run", "--quiet"])
            .args(flags.split_whitespace());
        let said = run_to_end(&mut command, "run")?;
        let end = if said.succeeded() {
            End::Passed(said.text.lines().last().unwrap_or_default().to_owned())
        } else {
            println!("{}", said.text);
            End::Failed(said.end())
        };
        steps.add(format!("harness {flags}"), started, end);
    }
    steps.finish("cross windows")
}

/// A program that cargo built.
#[derive(Debug, PartialEq)]
struct Program {
    /// Of a test: its package and its target.
    name: String,
    path: PathBuf,
    /// The directory to run it in.
    dir: PathBuf,
    is_test: bool,
}

fn build(tools: &Windows) -> Result<Vec<Program>, Failure> {
    let mut programs = Vec::new();
    let tests = [
        "--no-run",
        "--package=strand-lock",
        "--package=strand-core",
        "--package=strand",
    ];
    let harness = ["--package=strand-stress"];
    for (task, packages) in [("test", &tests[..]), ("build", &harness[..])] {
        // The same standard library for both, so that it is built once.
        let mut command = tools
            .rust
            .command(task, WINDOWS, "panic_unwind", &target_dir());
        command
            .arg("--quiet")
            .args(packages)
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", &tools.cc)
            .current_dir(cargo::workspace());
        let messages = cargo::build(&mut command)?.ok_or_else(|| {
            Failure::violation(format!("cross windows: FAILED: cargo {task} for {WINDOWS}"))
        })?;
        programs.extend(messages.iter().filter_map(Program::built));
    }
    Ok(programs)
}

impl Program {
    /// The program that a message of cargo's is about.
    fn built(message: &Value) -> Option<Program> {
        let text = |pointer: &str| message.pointer(pointer)?.as_str().map(str::to_owned);
        let path = text("/executable")?.into();
        let dir = PathBuf::from(text("/manifest_path")?).parent()?.to_owned();
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        let target = text("/target/name")?;
        let name = if is_test {
            format!("{}/{target}", dir.file_name()?.to_str()?)
        } else {
            target
        };
        Some(Program {
            name,
            path,
            dir,
            is_test,
        })
    }
}

/// The counts that a test program prints at its end.
fn results(text: &str) -> Option<String> {
    let line = text
        .lines()
        .rfind(|line| line.starts_with("test result: "))?;
    let (_, counts) = line.split_once(". ")?;
    let counts = counts.split("; ").filter(|count| {
        !count.starts_with("0 ")
            && !count.ends_with("filtered out")
            && !count.starts_with("finished")
    });
    Some(counts.collect::<Vec<_>>().join(", "))
}

/// The tests that were ignored for a reason.
fn ignored(program: &str, text: &str) -> Vec<String> {
    let tests = text.lines().filter_map(|line| {
        let (name, reason) = line.strip_prefix("test ")?.split_once(" ... ignored, ")?;
        Some(format!("{program} {name}: {reason}"))
    });
    tests.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let artifact = |dir: &str, target: &str, is_test: bool, executable: Value| {
            json!({
                "manifest_path": format!("w/{dir}/Cargo.toml"), "executable": executable,
                "target": {"name": target}, "profile": {"test": is_test},
            })
        };
        let messages = [
            artifact("core", "it", true, json!("t/it.exe")),
            artifact("core", "strand_core", false, json!(null)),
            artifact("s", "strand-stress", false, json!("t/s.exe")),
            json!({"reason": "build-finished", "success": true}),
        ];
        let programs: Vec<_> = messages.iter().filter_map(Program::built).collect();
        let names: Vec<_> = programs
            .iter()
            .map(|program| (program.name.as_str(), program.is_test))
            .collect();
        assert_eq!(names, [("core/it", true), ("strand-stress", false)]);
        assert_eq!(programs[0].dir, Path::new("w/core"));
    }

    #[test]
    fn the_results_of_tests_are_found() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... ignored, not here\ntest c ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(results(text).as_deref(), Some("2 passed, 1 ignored"));
        assert_eq!(ignored("core/it", text), ["core/it b: not here"]);
        assert_eq!(results("it died"), None);
    }

    #[test]
    fn failures_count_and_skips_do_not() {
        let mut steps = Steps::default();
        steps.add("one", Instant::now(), End::Passed("1 passed".to_owned()));
        steps.add("two", Instant::now(), End::Skipped("why".to_owned()));
        assert!(steps.finish("t").is_ok());
        let mut steps = Steps::default();
        steps.add("one", Instant::now(), End::Failed("1 failed".to_owned()));
        assert_eq!(steps.finish("t").unwrap_err().code, 1);
    }
}
