//! `cargo xtask ci`: what CI checks beside the tests, in parts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum as _;

use crate::args::Part;
use crate::failure::Failure;
use crate::{api, cargo, dependencies, layout, mutants, process, workflows};

/// Short runs of the harness: its flags. The long ones are `cargo xtask stress`.
const STRESS: [&str; 10] = [
    "--agents 5 --writes 20",
    "--agents 10 --writes 100 --kill-per-second 50",
    "--writes 60 --kill-at any --segment-bytes 4096",
    "--agents 8 --writes 10 --one-shot",
    "--agents 8 --writes 10 --store strand-cli --kill-per-second 20",
    "--agents 8 --writes 100 --durability buffered",
    "--agents 8 --writes 100 --mode thread",
    "--agents 4 --writes 25 --payload-bytes 20000",
    "--workload mixed --writes 200 --readers 4 --followers 2 --compact-every-ms 10 --kill-at any \
     --segment-bytes 16384",
    "--workload claim --agents 10 --writes 200 --readers 2 --followers 1 --compact-every-ms 10 \
     --compactors 2 --kill-per-second 20",
];

/// The seed of the quick torture, always the same, so that a failure points to the change under
/// test. Long runs draw new seeds.
const SEED: &str = "1";

/// Runs the parts named, or all but the tests, which `.ci/run` runs first.
pub(crate) fn run(named: &[Part]) -> Result<(), Failure> {
    let started = Instant::now();
    for part in chosen(named) {
        let part_started = Instant::now();
        match part {
            Part::Format => format(),
            Part::Clippy => clippy(),
            Part::Doc => doc(),
            Part::Layout => layout::check(),
            Part::Workflows => workflows::check(),
            Part::Dependencies => dependencies::check(),
            Part::Package => package(),
            Part::Patches => mutants::check_patches(),
            Part::Test => step("test", &mut cargo::command(&["test", "--workspace"])),
            Part::Features => features(),
            Part::Model => model(),
            Part::Stress => stress(),
            Part::Torture => torture(),
        }?;
        let name = part
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        passed(&name.unwrap_or_default(), part_started);
    }
    passed("all", started);
    Ok(())
}

/// In their order, each once.
fn chosen(named: &[Part]) -> Vec<Part> {
    let is_chosen = |part: &Part| match named {
        [] => *part != Part::Test,
        _ => named.contains(part),
    };
    Part::value_variants()
        .iter()
        .copied()
        .filter(is_chosen)
        .collect()
}

fn format() -> Result<(), Failure> {
    step("rustfmt", &mut cargo::command(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    let sets = [
        (
            "workspace, peers, tracing",
            "--all-targets --workspace --features strand-bench/peers,strand-core/tracing",
        ),
        // Without the feature `testing`, which the tests of the package switch on.
        ("strand-core, no features", "--lib --package strand-core"),
    ];
    for (name, packages) in sets {
        let mut command = cargo::command(&["clippy", "--quiet"]);
        command
            .args(packages.split(' '))
            .args(["--", "-D", "warnings"]);
        step(&format!("clippy ({name})"), &mut command)?;
    }
    Ok(())
}

fn doc() -> Result<(), Failure> {
    let mut command = cargo::command(&["doc", "--quiet", "--workspace", "--no-deps"]);
    step("rustdoc", command.env("RUSTDOCFLAGS", "-D warnings"))?;
    api::run(false)
}

/// Packs the two libraries, and builds each as its users get it.
///
/// The target directory is a new one. Cargo puts the packed `strand-lock` into a registry there,
/// and unpacks it into its own home by the registry's path, once: under a path of before,
/// `strand-core` would be built on the `strand-lock` of that time.
fn package() -> Result<(), Failure> {
    let target = cargo::workspace().join("target");
    let built = std::fs::create_dir_all(&target)
        .and_then(|()| {
            tempfile::Builder::new()
                .prefix("package-")
                .tempdir_in(&target)
        })
        .map_err(|error| Failure::at(&target, error))?;
    let mut command = cargo::command(&["package", "--quiet", "--allow-dirty"]);
    command.args(["--package", "strand-lock", "--package", "strand-core"]);
    command.arg("--target-dir").arg(built.path());
    step("cargo package", &mut command)
}

fn features() -> Result<(), Failure> {
    let mut command = cargo::command(&["test", "--quiet", "--package", "strand-core"]);
    command.args(["--features", "tracing", "--test", "telemetry"]);
    step("test telemetry", &mut command)
}

/// The states of the model that take too long without optimisation.
fn model() -> Result<(), Failure> {
    let mut command = cargo::command(&["test", "--quiet", "--release", "--package", "strand-core"]);
    command.args(["--test", "model", "--", "--ignored"]);
    step("test model", &mut command)
}

fn stress() -> Result<(), Failure> {
    let harness = harness()?;
    cargo::build_command()?;
    for flags in STRESS {
        let mut command = Command::new(&harness);
        command
            .args(["run", "--quiet"])
            .args(flags.split_whitespace());
        step(&format!("stress {flags}"), &mut command)?;
    }
    Ok(())
}

fn torture() -> Result<(), Failure> {
    let mut command = Command::new(harness()?);
    command.args(["torture", "--quick", "--seed", SEED]);
    step("torture --quick", &mut command)
}

fn harness() -> Result<PathBuf, Failure> {
    let started = Instant::now();
    let harness = cargo::build_harness()?;
    passed("build the harness", started);
    Ok(harness)
}

/// Runs a program, and prints how long it took.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<(), Failure> {
    let started = Instant::now();
    let status = process::status(command)?;
    if status.success() {
        passed(name, started);
        return Ok(());
    }
    Err(Failure {
        message: format!("ci: FAILED: {name} ({status})"),
        code: process::exit_code(status),
    })
}

fn passed(name: &str, started: Instant) {
    println!("ci: {:6.1} s  {name}", started.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_all_parts_run_but_those_on_demand() {
        assert_eq!(
            chosen(&[Part::Torture, Part::Format]),
            [Part::Format, Part::Torture]
        );
        let all = chosen(&[]);
        assert_eq!(all.len(), Part::value_variants().len() - 1);
        assert!(!all.contains(&Part::Test));
    }
}
