//! `cargo xtask mutants`: shows that the tests can fail.
//!
//! Each patch `xtask/mutants/<tier>/<name>.patch` makes one mistake; the lines above its diff say
//! which. The task applies one after the other to a copy of the workspace, builds the copy, and
//! runs that tier of the torture, or the tests of a package. The tier must fail. Without a mistake
//! it must pass first: a tier that always fails proves nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use crate::args::Mutants;
use crate::failure::Failure;
use crate::{cargo, process};

const DIR: &str = "xtask/mutants";

/// The mistakes that the torture does not reach, by the tests that find them: their package, and
/// the beginning of their names.
const TESTS: &[(&str, &str, &str)] = &[
    ("lock-tests", "strand-lock", ""),
    ("etcd-tests", "strand-etcd", ""),
    ("point-reads", "strand-core", "points::"),
    ("recent", "strand-core", "recent::"),
    ("core-tests", "strand-core", "identity::"),
    ("runs", "strand-core", "runs::"),
    ("failed-sync", "strand-core", "failed_sync::"),
    ("follow", "strand-core", "follow::"),
    ("overlap", "strand-core", "overlap::"),
    ("slots", "strand-core", "slots::"),
];

/// Tiers that try everything and then end, whatever their time. Their time only sets when they
/// count as hanging, which a busy machine must not reach: T9 takes 500 s beside other work.
const EXHAUSTIVE: [&str; 3] = ["T1", "T3", "T9"];
const EXHAUSTIVE_SECONDS: u32 = 600;
/// A run of T12 takes some 30 s, and each of its three kinds of clusters has other faults.
const CLUSTERS: &str = "T12";
const CLUSTERS_SECONDS: u32 = 180;

/// How the copy is built: quickly rather than well, incrementally, with debug assertions, without
/// the warnings of a mistake.
const BUILD: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
    ("CARGO_INCREMENTAL", "1"),
    ("RUSTFLAGS", "-Awarnings"),
];

/// Exit statuses of the harness.
const EXIT_PASS: u8 = 0;
const EXIT_USAGE: u8 = 2;
const EXIT_HANG: u8 = 3;
const EXIT_ENVIRONMENT: u8 = 4;

/// A patch that makes a mistake.
#[derive(Debug)]
struct Mutant {
    name: String,
    /// The tier that must fail.
    tier: String,
    about: String,
    patch: PathBuf,
}

/// One run of a tier.
#[derive(Debug, PartialEq)]
struct Run {
    end: End,
    cases: u64,
    seconds: f64,
}

#[derive(Debug, PartialEq)]
enum End {
    Passed,
    /// Why nothing was tried.
    Skipped(String),
    /// The failure, in one line.
    Caught(String),
    /// Why the tier did not run.
    Broken(String),
}

/// Checks that each patch applies, without building anything.
pub(crate) fn check_patches() -> Result<(), Failure> {
    let mut stale = Vec::new();
    for mutant in all()? {
        let output = apply(cargo::workspace(), &mutant.patch, &["--check"])?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            stale.push(format!(
                "{}/{}: {}",
                mutant.tier,
                mutant.name,
                reason.trim_end()
            ));
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(Failure::violation(format!(
        "ci: FAILED: patches of {DIR} do not apply; adapt them to the code:\n{}",
        stale.join("\n")
    )))
}

pub(crate) fn run(task: &Mutants) -> Result<(), Failure> {
    let chosen = choose(all()?, &task.names)?;
    let copy = Copy::make()?;
    for tier in chosen
        .iter()
        .map(|mutant| &mutant.tier)
        .collect::<BTreeSet<_>>()
    {
        let run = copy.run_tier(task, tier)?;
        println!("no mistake: {tier} {}", run.describe());
        if matches!(run.end, End::Caught(_) | End::Broken(_)) {
            return Err(Failure::violation(format!(
                "mutants: FAILED: {tier} does not pass without a mistake"
            )));
        }
    }
    let mut runs = Vec::new();
    for mutant in chosen {
        let run = copy.run_mutant(task, &mutant)?;
        let caught = if matches!(run.end, End::Caught(_)) {
            "caught"
        } else {
            "NOT CAUGHT"
        };
        println!(
            "{}: {caught}: {} {}",
            mutant.name,
            mutant.tier,
            run.describe()
        );
        runs.push((mutant, run));
    }
    if let Some(path) = &task.json {
        let text = format!("{:#}\n", report(task, &runs));
        std::fs::write(path, text).map_err(|error| Failure::at(path, error))?;
    }
    let missed = runs
        .iter()
        .filter(|(_, run)| !matches!(run.end, End::Caught(_)));
    let missed: Vec<&str> = missed.map(|(mutant, _)| mutant.name.as_str()).collect();
    if missed.is_empty() {
        println!("PASS: {} mutants, each caught", runs.len());
        return Ok(());
    }
    Err(Failure::violation(format!(
        "FAIL: {} of {} mutants not caught: {}",
        missed.len(),
        runs.len(),
        missed.join(", ")
    )))
}

/// Every patch, by tier and name.
fn all() -> Result<Vec<Mutant>, Failure> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>, Failure> {
        let entries = std::fs::read_dir(dir).and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
        });
        let mut paths = entries.map_err(|error| Failure::at(dir, error))?;
        paths.sort();
        Ok(paths)
    };
    let mut all = Vec::new();
    for tier in list(&cargo::workspace().join(DIR))? {
        for patch in list(&tier)? {
            let text =
                std::fs::read_to_string(&patch).map_err(|error| Failure::at(&patch, error))?;
            let name = |path: &Path| {
                path.file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            };
            all.push(Mutant {
                name: name(&patch),
                tier: name(&tier),
                about: about(&text).ok_or_else(|| Failure::at(&patch, "no text above the diff"))?,
                patch,
            });
        }
    }
    Ok(all)
}

/// The lines above the diff, as one.
fn about(patch: &str) -> Option<String> {
    let (head, _) = patch.split_once("\ndiff --git ")?;
    let words: Vec<&str> = head.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn choose(mut all: Vec<Mutant>, names: &[String]) -> Result<Vec<Mutant>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|mutant| mutant.name != **name))
    {
        return Err(Failure::usage(format!(
            "there is no patch named {unknown:?} below {DIR}"
        )));
    }
    all.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    Ok(all)
}

/// Runs `git apply` in a directory that it takes for no repository.
fn apply(dir: &Path, patch: &Path, flags: &[&str]) -> Result<Output, Failure> {
    let mut git = Command::new("git");
    git.arg("apply").args(flags).arg(patch).current_dir(dir);
    process::output(git.env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir)))
}

/// A copy of the workspace, with a target directory of its own.
struct Copy {
    dir: PathBuf,
}

impl Copy {
    /// Copies what git tracks, as it is in the working directory, and new files that it does not
    /// ignore.
    fn make() -> Result<Copy, Failure> {
        let copy = Copy {
            dir: cargo::workspace().join("target/mutants/copy"),
        };
        if copy.dir.exists() {
            std::fs::remove_dir_all(&copy.dir).map_err(|error| Failure::at(&copy.dir, error))?;
        }
        let mut git = Command::new("git");
        git.args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let output = process::output(git.current_dir(cargo::workspace()))?;
        for file in String::from_utf8_lossy(&output.stdout).split_terminator('\0') {
            let (from, to) = (cargo::workspace().join(file), copy.dir.join(file));
            if from.is_file() {
                let parent = to.parent().unwrap_or(&copy.dir);
                std::fs::create_dir_all(parent)
                    .and_then(|()| std::fs::copy(&from, &to))
                    .map_err(|error| Failure::at(&to, error))?;
            }
        }
        Ok(copy)
    }

    /// Runs the mutant's tier with its patch applied, and takes the patch back.
    fn run_mutant(&self, task: &Mutants, mutant: &Mutant) -> Result<Run, Failure> {
        self.patch(mutant, &[])?;
        let run = self.run_tier(task, &mutant.tier)?;
        self.patch(mutant, &["--reverse"])?;
        Ok(run)
    }

    fn patch(&self, mutant: &Mutant, flags: &[&str]) -> Result<(), Failure> {
        let output = apply(&self.dir, &mutant.patch, flags)?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(Failure::violation(format!(
            "{}: {}",
            mutant.name,
            reason.trim_end()
        )))
    }

    fn run_tier(&self, task: &Mutants, tier: &str) -> Result<Run, Failure> {
        if let Some((_, package, tests)) = TESTS.iter().find(|(name, ..)| *name == tier) {
            return self.run_tests(package, tests);
        }
        let harness = match cargo::build_harness_by(self.cargo(&["build"])) {
            Ok(harness) => harness,
            // One mistake that is none in the code as it is now leaves the others to be tried.
            Err(failure) => {
                return Ok(Run {
                    end: End::Broken(failure.message),
                    cases: 0,
                    seconds: 0.0,
                });
            }
        };
        let report = self.dir.with_file_name("report.json");
        // A report of an earlier run would be taken for this one's.
        std::fs::remove_file(&report).ok();
        let least = match tier {
            CLUSTERS => CLUSTERS_SECONDS,
            tier if EXHAUSTIVE.contains(&tier) => EXHAUSTIVE_SECONDS,
            _ => 0,
        };
        let seconds = task.seconds.max(least);
        let minutes = f64::from(seconds) / 60.0;
        let mut command = Command::new(harness);
        command
            .args([
                "torture",
                "--quiet",
                "--tier",
                tier,
                "--minutes",
                &minutes.to_string(),
            ])
            .args(["--seed", &task.seed.to_string(), "--json"])
            .arg(&report);
        let started = Instant::now();
        let output = process::output(&mut command)?;
        let seconds = started.elapsed().as_secs_f64();
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&output.stderr);
        Ok(Run::of(
            process::exit_code(output.status),
            &text,
            &stderr,
            seconds,
        ))
    }

    fn run_tests(&self, package: &str, tests: &str) -> Result<Run, Failure> {
        let mut command = self.cargo(&["test"]);
        command.args(["--package", package, "--lib", "--test", "it", "--", tests]);
        // Tests that are skipped notice nothing.
        command.env("STRAND_REQUIRE_ETCD", "1");
        let started = Instant::now();
        let output = process::output(&mut command)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let failed = stdout.lines().find_map(|line| {
            line.strip_suffix(" --- FAILED")
                .or(line.strip_suffix(" ... FAILED"))
        });
        let end = match (output.status.success(), failed) {
            (true, _) => End::Passed,
            (false, Some(test)) => End::Caught(test.to_owned()),
            (false, None) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                match stderr.lines().find(|line| line.contains("(signal: ")) {
                    Some(line) => End::Caught(line.trim().to_owned()),
                    None => End::Broken(stderr.into_owned()),
                }
            }
        };
        Ok(Run {
            end,
            cases: 1,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn cargo(&self, task: &[&str]) -> Command {
        let mut command = Command::new(cargo::program());
        command
            .args(task)
            .args(["--quiet", "--release", "--target-dir"]);
        command
            .arg(self.dir.with_file_name("build"))
            .current_dir(&self.dir)
            .envs(BUILD);
        command
    }
}

impl Run {
    /// From the exit status, the JSON report, standard error, and the time.
    fn of(code: u8, report: &str, stderr: &str, seconds: f64) -> Run {
        let report: Value = serde_json::from_str(report).unwrap_or(Value::Null);
        let found = report.pointer("/tiers/0").unwrap_or(&Value::Null);
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str);
        let last_line = || stderr.lines().last().unwrap_or_default().to_owned();
        let end = match code {
            EXIT_PASS => match text("/skipped") {
                Some(reason) => End::Skipped(reason.to_owned()),
                None => End::Passed,
            },
            EXIT_HANG => End::Caught("it hangs".to_owned()),
            EXIT_USAGE => End::Broken(last_line()),
            EXIT_ENVIRONMENT => {
                End::Broken(text("/environment").map_or_else(last_line, str::to_owned))
            }
            _ => End::Caught(match text("/violations/0/what") {
                Some(what) => one_line(what),
                None => one_line(&format!("it dies: {}", last_line())),
            }),
        };
        let in_report = found.pointer("/seconds").and_then(Value::as_f64);
        Run {
            end,
            cases: found.pointer("/cases").and_then(Value::as_u64).unwrap_or(0),
            seconds: in_report.unwrap_or(seconds),
        }
    }

    fn describe(&self) -> String {
        let Run { cases, seconds, .. } = self;
        match &self.end {
            End::Passed => format!("passes {cases} cases in {seconds:.1} s"),
            End::Skipped(reason) => format!("SKIPPED: {reason}"),
            End::Caught(what) => format!("fails after {cases} cases and {seconds:.1} s: {what}"),
            End::Broken(reason) => format!("did not run: {reason}"),
        }
    }
}

fn report(task: &Mutants, runs: &[(Mutant, Run)]) -> Value {
    let mutants = runs.iter().map(|(mutant, run)| {
        json!({
            "name": mutant.name,
            "about": mutant.about,
            "tier": mutant.tier,
            "caught": matches!(run.end, End::Caught(_)),
            "cases": run.cases,
            "seconds": run.seconds,
            "end": run.describe(),
        })
    });
    let mutants: Vec<Value> = mutants.collect();
    json!({ "seed": task.seed, "seconds": task.seconds, "mutants": mutants })
}

/// The first line, cut to a readable length.
fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    // The first line of a failed run of the harness only counts the violations.
    let second = lines.next().filter(|_| first.starts_with("FAIL"));
    second.unwrap_or(first).chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str, tier: &str) -> Mutant {
        Mutant {
            name: name.to_owned(),
            tier: tier.to_owned(),
            about: "It is wrong.".to_owned(),
            patch: PathBuf::new(),
        }
    }

    const CAUGHT: &str = r#"{"tiers":[{"cases":12,"seconds":0.5,"skipped":null,
        "violations":[{"what":"lost: record 3\nmore"}]}]}"#;
    const SKIPPED: &str =
        r#"{"tiers":[{"cases":0,"seconds":0.0,"skipped":"no /dev/fuse","violations":[]}]}"#;

    #[test]
    fn mutants_are_chosen_by_name() {
        let all = || vec![mutant("no-sync", "T2"), mutant("no-lock", "T4")];
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let chosen = choose(all(), &names).ok()?;
            Some(
                chosen
                    .into_iter()
                    .map(|mutant| mutant.name)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(names(&[]).map(|names| names.len()), Some(2));
        assert_eq!(names(&["no-lock"]), Some(vec!["no-lock".to_owned()]));
        assert_eq!(names(&["none"]), None);
    }

    #[test]
    fn a_patch_says_above_its_diff_what_is_wrong() {
        let diff = "diff --git a/x b/x\n--- a/x\n+++ b/x\n";
        assert_eq!(
            about(&format!("It\nis wrong.\n\n{diff}")).as_deref(),
            Some("It is wrong.")
        );
        assert_eq!(about(diff), None);
    }

    #[test]
    fn the_harness_says_how_a_run_ended() {
        let end = |code, report: &str, stderr: &str| Run::of(code, report, stderr, 7.0).end;
        assert_eq!(end(0, r#"{"tiers":[{"cases":3}]}"#, ""), End::Passed);
        assert_eq!(end(0, SKIPPED, ""), End::Skipped("no /dev/fuse".into()));
        assert_eq!(end(1, CAUGHT, ""), End::Caught("lost: record 3".into()));
        assert_eq!(end(3, "{}", ""), End::Caught("it hangs".into()));
        let dies = end(1, "", "a\nstack overflow");
        assert_eq!(dies, End::Caught("it dies: stack overflow".into()));
        assert_eq!(end(2, "", "no tier T2"), End::Broken("no tier T2".into()));
        assert_eq!(end(4, "", "no space"), End::Broken("no space".into()));
        let run = Run::of(1, CAUGHT, "", 7.0);
        assert_eq!((run.cases, run.seconds.to_string()), (12, "0.5".to_owned()));
        assert_eq!(
            one_line("FAIL: 2 violations\n  lost: seq=1\n"),
            "lost: seq=1"
        );
    }

    #[test]
    fn the_report_says_which_mutants_were_caught() {
        let runs = [
            (mutant("no-sync", "T2"), Run::of(1, CAUGHT, "", 1.0)),
            (
                mutant("no-lock", "T4"),
                Run::of(0, r#"{"tiers":[{"cases":3}]}"#, "", 1.0),
            ),
        ];
        let task = Mutants {
            names: Vec::new(),
            seconds: 1,
            seed: 1,
            json: None,
        };
        let report = report(&task, &runs);
        assert_eq!(report["mutants"][0]["caught"], true);
        assert_eq!(report["mutants"][1]["caught"], false);
    }
}
