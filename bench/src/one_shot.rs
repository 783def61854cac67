//! Processes that start, open a store, append one event and end, as a command line does.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    Result,
    events::Event,
    statistics::{median, median_ratio},
    systems::System,
};

/// The first argument of such a process.
pub(crate) const COMMAND: &str = "one-shot";

/// Medians of the time from starting a process to its end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OneShot {
    pub(crate) strand_us: f64,
    /// The SQLite library doing the same.
    pub(crate) sqlite_us: Option<f64>,
    /// A program that opens a file, writes and syncs.
    pub(crate) bare_us: f64,
    /// A program that does nothing.
    pub(crate) nothing_us: f64,
    /// The median over pairs of processes that ran next to each other.
    pub(crate) strand_over_bare: f64,
}

pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let Some(system) = args.next() else {
        return Ok(());
    };
    let (dir, text) = args.next().zip(args.next()).ok_or("too few arguments")?;
    let event = Event::from_json(&text)?;
    System::from_str(&system, false)?
        .open(dir.as_ref())?
        .append(&event)
}

/// Runs such processes in turn, in stores of their own.
pub(crate) fn measure(scratch: &Path, events: &[Event], repeats: usize) -> Result<OneShot> {
    let systems = systems();
    let dirs: Vec<_> = systems
        .iter()
        .map(|system| {
            let dir = tempfile::tempdir_in(scratch)?;
            system.prepare(dir.path())?;
            Ok(dir)
        })
        .collect::<Result<_>>()?;
    let mut times = vec![Vec::new(); systems.len()];
    let mut nothing = Vec::new();
    for event in events.iter().cycle().take(repeats) {
        for ((system, dir), times) in systems.iter().zip(&dirs).zip(&mut times) {
            let mut command = command()?;
            command.arg(system.name()).arg(dir.path()).arg(&event.text);
            times.push(run_us(&mut command)?);
        }
        nothing.push(run_us(&mut command()?)?);
    }
    let of = |system| {
        let index = systems.iter().position(|other| *other == system)?;
        times.get(index)
    };
    let (strand, bare) = of(System::Strand)
        .zip(of(System::Bare))
        .ok_or("strand and the limit are always there")?;
    #[cfg(feature = "peers")]
    let sqlite = of(System::Sqlite);
    #[cfg(not(feature = "peers"))]
    let sqlite: Option<&Vec<f64>> = None;
    Ok(OneShot {
        strand_us: median(strand),
        sqlite_us: sqlite.map(|times| median(times)),
        bare_us: median(bare),
        nothing_us: median(&nothing),
        strand_over_bare: median_ratio(strand, bare),
    })
}

fn systems() -> Vec<System> {
    vec![
        System::Strand,
        System::Bare,
        #[cfg(feature = "peers")]
        System::Sqlite,
    ]
}

fn command() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(command)
}

fn run_us(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    let status = command.status()?;
    let took = started.elapsed();
    if !status.success() {
        return Err(format!("a one-shot process failed: {status}").into());
    }
    Ok(took.as_secs_f64() * 1e6)
}
