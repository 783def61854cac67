//! The witness of a lock: a command that a lock command runs while it holds its lock. It marks
//! itself in the shared page of the run, and prints who else was marked.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use strand_lock::monotonic_ns;

use crate::run::control::Control;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    page: PathBuf,
    agent: u32,
    agents: u32,
    hold_us: u64,
}

/// Looks while it holds the lock.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let control = match Control::open(&arguments.page, arguments.agents) {
        Ok(control) => control,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let at_ns = monotonic_ns();
    let mut others = control.enter(arguments.agent);
    std::thread::sleep(Duration::from_micros(arguments.hold_us));
    // One that came meanwhile is seen, too.
    control.leave(arguments.agent);
    others.extend(control.enter(arguments.agent));
    control.leave(arguments.agent);
    others.sort_unstable();
    others.dedup();
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    println!("{at_ns} {}", others.join(","));
    ExitCode::SUCCESS
}

/// When a witness looked, and the agents that it saw.
pub(super) fn read(output: &str) -> Option<(u64, Vec<u32>)> {
    let (at_ns, others) = output.lines().last()?.split_once(' ')?;
    let others = others.split(',').filter_map(|other| other.parse().ok());
    Some((at_ns.parse().ok()?, others.collect()))
}
