//! `cargo xtask stress`, `torture`, `soak`, `mutants`, `bench`, `cross`, `api` and `ci`.

#![forbid(unsafe_code)]

mod api;
mod bench;
mod cargo;
mod ci;
mod cross;
mod dependencies;
mod harness;
mod layout;
mod mutants;
mod stress;
mod workflows;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  stress [--iterations N] [--minutes M] [flags of the harness]
        build the harness in release mode and run it, with the next seed (or a fresh
        one) each time, to the first failure; `cargo xtask stress --help` lists the flags, among
        them --json FILE and --html FILE: the last run as a report and as a page
  torture [--quick | --minutes M] [--tier Tn]... [--seed S] [--json FILE] [--html FILE]
        build the harness in release mode, and attack the log tier by tier: faults, crash
        states, kills, power cuts, damage; ends with a table
  soak --minutes M [--seed S] [--json FILE] [--html FILE]
        alternate everything for so long, and report the trend of open files, memory, disk
        and latency
  mutants [--bug NAME]... [--seconds S] [--seed S] [--json FILE]
        build the harness with deliberate bugs, and show which tier catches each
  bench [flags of the benchmark]
        build the benchmark with the systems it compares strand with, in release mode, and
        run it; `cargo xtask bench --help` lists the flags
  cross windows | check [TARGET]...
        build for Windows and run the tests and the harness under Wine, or type-check for
        other systems; `cargo xtask cross --help` lists what it takes
  api [--bless]
        compare the public API of the crates with core/api.txt and lock/api.txt, and look
        whether all of it has examples; `--bless` writes these files
  ci [PART]...
        everything that CI checks beside the tests, or only these parts: format, clippy, doc, layout,
        workflows, dependencies, package, test, features, model, stress, torture";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let result = match task.as_deref() {
        Some("stress") => stress::run(&rest),
        Some(task @ ("torture" | "soak")) => harness::pass_on(task, &rest),
        Some("mutants") => mutants::run(&rest),
        Some("bench") => bench::run(&rest),
        Some("cross") => cross::run(&rest),
        Some("api") => api::run(&rest),
        Some("ci") => ci::run(&rest),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(Failure::usage(USAGE)),
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

/// Why a task failed, and its exit status: that of the harness where the harness failed.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    const USAGE: u8 = 2;
    const ENVIRONMENT: u8 = 4;

    fn usage(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: Failure::USAGE,
        }
    }

    /// Something is not as it has to be.
    fn violation(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: 1,
        }
    }

    fn environment(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: Failure::ENVIRONMENT,
        }
    }
}
