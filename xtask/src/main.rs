//! Tasks for working on strand: `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod api;
mod args;
mod cargo;
mod ci;
mod cross;
mod dependencies;
mod failure;
mod layout;
mod mutants;
mod process;
mod workflows;

use std::process::{Command, ExitCode};

use clap::Parser as _;

use args::{Arguments, Flags, Task};
use failure::Failure;

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Stress(Flags { flags }) => stress(&flags),
        Task::Torture(Flags { flags }) => harness("torture", &flags),
        Task::Powercut(Flags { flags }) => harness("powercut", &flags),
        Task::Soak(Flags { flags }) => harness("soak", &flags),
        Task::Compare(Flags { flags }) => {
            cargo::build_command().and_then(|_| harness("compare", &flags))
        }
        Task::Mutants(task) => mutants::run(&task),
        Task::Bench(Flags { flags }) => bench(&flags),
        Task::Cross(task) => cross::run(&task),
        Task::Api { bless } => api::run(bless),
        Task::Ci { parts } => ci::run(&parts),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            if !message.is_empty() {
                eprintln!("{message}");
            }
            ExitCode::from(code)
        }
    }
}

/// Runs the harness. For the store `strand-cli`, it needs the command `strand` beside it.
fn stress(flags: &[String]) -> Result<(), Failure> {
    if flags.iter().any(|flag| flag.ends_with("strand-cli")) {
        cargo::build_command()?;
    }
    harness("run", flags)
}

/// Builds the harness and runs one of its commands.
fn harness(command: &str, flags: &[String]) -> Result<(), Failure> {
    let harness = cargo::build_harness()?;
    process::go_on_as(Command::new(harness).arg(command).args(flags))
}

/// Runs the benchmark, with its peers, in the current directory: paths among the flags are relative
/// to it.
fn bench(flags: &[String]) -> Result<(), Failure> {
    cargo::build_command()?;
    let mut command = Command::new(cargo::program());
    command
        .args(["run", "--release", "--manifest-path"])
        .arg(cargo::workspace().join("Cargo.toml"))
        .args(["--package", "strand-bench", "--features", "peers", "--"]);
    process::run(command.args(flags))
}
