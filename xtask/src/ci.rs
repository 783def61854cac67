//! Everything that CI checks beside the tests: to the first failure, each step with its time.

use std::process::Command;
use std::time::Instant;

use crate::{Failure, api, cargo};

/// Short stress runs: the harness's flags. One of each kind; the long ones are `xtask stress`.
const STRESS: [&[&str]; 9] = [
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

pub(crate) fn run() -> Result<(), Failure> {
    let started = Instant::now();
    step("format", &mut cargo::command(&["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy", &mut cargo::command(&clippy))?;
    let (package, feature) = ("strand-bench", "peers");
    let mut peers = cargo::command(&["clippy", "--quiet", "--all-targets", "--package", package]);
    peers.args(["--features", feature, "--", "-D", "warnings"]);
    step("clippy of the benchmark with its peers", &mut peers)?;
    let cli = ["--package", "strand-core", "--features", "cli"];
    let mut clippy = cargo::command(&["clippy", "--quiet", "--all-targets"]);
    clippy.args(cli).args(["--", "-D", "warnings"]);
    step("clippy of the command", &mut clippy)?;
    let mut tests = cargo::command(&["test", "--quiet"]);
    tests.args(cli).args(["--bin", "strand", "--test", "cli"]);
    step("the command", &mut tests)?;
    let tracing = ["--package", "strand-core", "--features", "tracing"];
    let mut clippy = cargo::command(&["clippy", "--quiet", "--all-targets"]);
    clippy.args(tracing).args(["--", "-D", "warnings"]);
    step("clippy of the log that tells of itself", &mut clippy)?;
    let mut tests = cargo::command(&["test", "--quiet"]);
    tests.args(tracing).args(["--test", "telemetry"]);
    step("what the log tells", &mut tests)?;
    let doc = ["doc", "--quiet", "--workspace", "--no-deps"];
    step(
        "documentation",
        cargo::command(&doc).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let looking = Instant::now();
    api::run(&[])?;
    passed("public API", looking);
    // The states that take too long without optimisation.
    let model = [
        "test",
        "--quiet",
        "--release",
        "--package",
        "strand-core",
        "--test",
        "model",
    ];
    let mut model = cargo::command(&model);
    step("model", model.args(["--", "--ignored"]))?;
    let building = Instant::now();
    let harness = cargo::build_harness()?;
    passed("build the harness", building);
    for flags in STRESS {
        let mut command = Command::new(&harness);
        step(
            &format!("stress {}", flags.join(" ")),
            command.args(["run", "--quiet"]).args(flags),
        )?;
    }
    step(
        "torture --quick",
        Command::new(&harness).args(["torture", "--quick"]),
    )?;
    println!("ci: passed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, command: &mut Command) -> Result<(), Failure> {
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

fn passed(name: &str, started: Instant) {
    println!("ci: {:6.1} s  {name}", started.elapsed().as_secs_f64());
}
