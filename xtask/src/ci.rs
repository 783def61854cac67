//! Everything that CI checks beside the tests: to the first failure, each step with its time.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::{Failure, api, cargo, dependencies, layout, workflows};

/// Short stress runs: the harness's flags. One of each kind; the long ones are `xtask stress`.
const STRESS: [&[&str]; 10] = [
    &["--agents", "5", "--writes", "20"],
    &[
        "--agents",
        "10",
        "--writes",
        "100",
        "--kill-per-second",
        "50",
    ],
    &[
        "--writes",
        "60",
        "--kill-at",
        "any",
        "--segment-bytes",
        "4096",
    ],
    &["--agents", "8", "--writes", "10", "--one-shot"],
    &["--agents", "8", "--writes", "10", "--one-shot", "--via-cli"],
    &[
        "--agents",
        "8",
        "--writes",
        "100",
        "--durability",
        "buffered",
    ],
    &["--agents", "8", "--writes", "100", "--mode", "thread"],
    &[
        "--agents",
        "4",
        "--writes",
        "25",
        "--payload-bytes",
        "20000",
    ],
    &[
        "--workload",
        "mixed",
        "--writes",
        "200",
        "--readers",
        "4",
        "--followers",
        "2",
        "--compact-every-ms",
        "10",
        "--kill-at",
        "any",
        "--segment-bytes",
        "16384",
    ],
    &[
        "--workload",
        "claim",
        "--agents",
        "10",
        "--writes",
        "200",
        "--readers",
        "2",
        "--followers",
        "1",
        "--compact-every-ms",
        "10",
        "--compactors",
        "2",
        "--kill-per-second",
        "20",
    ],
];

/// A part of the checks, by name.
type Part = (&'static str, fn() -> Result<(), Failure>);

const PARTS: [Part; 12] = [
    ("format", format),
    ("clippy", clippy),
    ("doc", doc),
    ("layout", layout::check),
    ("workflows", workflows::check),
    ("dependencies", dependencies::check),
    ("package", package),
    ("test", test),
    ("features", features),
    ("model", model),
    ("stress", stress),
    ("torture", torture),
];

/// Parts that run only when they are named: `.ci/run` runs the tests itself, and the code does not
/// pass `layout` yet.
const ON_DEMAND: [&str; 2] = ["test", "layout"];

/// The seed of the short torture: a change is judged by what it changes. New seeds are for long runs.
const SEED: &str = "1";

/// All parts but the tests, or those that are named.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    let chosen = chosen(names)?;
    for (_, check) in &chosen {
        check()?;
    }
    println!("ci: passed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The parts, in their order.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Part>, Failure> {
    let is_known = |name: &&String| PARTS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known = PARTS.map(|(name, _)| name).join(", ");
        let message = format!("ci: there is no part {unknown}; there are {known}");
        return Err(Failure::usage(message));
    }
    let is_chosen = |name: &str| match names {
        [] => !ON_DEMAND.contains(&name),
        _ => names.iter().any(|chosen| chosen == name),
    };
    let parts = PARTS.into_iter().filter(|(name, _)| is_chosen(name));
    Ok(parts.collect())
}

fn format() -> Result<(), Failure> {
    step("format", &mut cargo::command(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    let strict = ["--", "-D", "warnings"];
    let all = ["clippy", "--quiet", "--workspace", "--all-targets"];
    step("clippy", cargo::command(&all).args(strict))?;
    let of = |package, feature| {
        let mut command = cargo::command(&["clippy", "--quiet", "--all-targets"]);
        command.args(["--package", package, "--features", feature]);
        command.args(strict);
        command
    };
    step(
        "clippy of the benchmark with its peers",
        &mut of("strand-bench", "peers"),
    )?;
    step(
        "clippy of the log that tells of itself",
        &mut of("strand-core", "tracing"),
    )
}

fn doc() -> Result<(), Failure> {
    let doc = ["doc", "--quiet", "--workspace", "--no-deps"];
    step(
        "documentation",
        cargo::command(&doc).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let looking = Instant::now();
    api::run(&[])?;
    passed("public API", looking);
    Ok(())
}

/// The packages that are published, as their users would build them.
fn package() -> Result<(), Failure> {
    let package = ["package", "--quiet", "--allow-dirty"];
    let published = ["--package", "strand-lock", "--package", "strand-core"];
    step("package", cargo::command(&package).args(published))
}

fn test() -> Result<(), Failure> {
    step("test", &mut cargo::command(&["test", "--workspace"]))
}

/// The tests that need a feature.
fn features() -> Result<(), Failure> {
    let of = |feature| {
        let mut command = cargo::command(&["test", "--quiet", "--package", "strand-core"]);
        command.args(["--features", feature]);
        command
    };
    step(
        "what the log tells",
        of("tracing").args(["--test", "telemetry"]),
    )
}

/// The states that take too long without optimisation.
fn model() -> Result<(), Failure> {
    let model = ["test", "--quiet", "--release", "--package", "strand-core"];
    let ignored = ["--test", "model", "--", "--ignored"];
    step("model", cargo::command(&model).args(ignored))
}

fn stress() -> Result<(), Failure> {
    let harness = harness()?;
    let building = Instant::now();
    cargo::build_command()?;
    passed("build the command", building);
    for flags in STRESS {
        let mut command = Command::new(&harness);
        step(
            &format!("stress {}", flags.join(" ")),
            command.args(["run", "--quiet"]).args(flags),
        )?;
    }
    Ok(())
}

fn torture() -> Result<(), Failure> {
    step(
        "torture --quick",
        Command::new(harness()?).args(["torture", "--quick", "--seed", SEED]),
    )
}

fn harness() -> Result<PathBuf, Failure> {
    let building = Instant::now();
    let harness = cargo::build_harness()?;
    passed("build the harness", building);
    Ok(harness)
}

pub(crate) fn step(name: &str, command: &mut Command) -> Result<(), Failure> {
    let started = Instant::now();
    let status = command
        .status()
        .map_err(|error| Failure::environment(format!("ci: cannot start {name}: {error}")))?;
    if status.success() {
        passed(name, started);
        return Ok(());
    }
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Err(Failure {
        message: format!("ci: FAILED: {name} ({status})"),
        code,
    })
}

pub(crate) fn passed(name: &str, started: Instant) {
    println!("ci: {:6.1} s  {name}", started.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&str]) -> Option<Vec<&'static str>> {
        let chosen: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        let parts = super::chosen(&chosen).ok()?;
        Some(parts.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn parts_run_when_they_are_named_and_all_but_the_tests_else() {
        assert_eq!(
            names(&["torture", "format"]),
            Some(vec!["format", "torture"])
        );
        assert_eq!(names(&["format", "lint"]), None);
        let all = names(&[]).unwrap();
        assert_eq!(all.len(), PARTS.len() - ON_DEMAND.len());
        assert!(!all.contains(&"test"));
    }
}
