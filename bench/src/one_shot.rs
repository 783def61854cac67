//! One-shot processes: each starts, opens a store, appends one event and ends, as a command does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use serde::Serialize;

use crate::error::Result;
use crate::events::Event;
use crate::statistics::{median, median_ratio};
use crate::systems::System;

/// The first argument of such a process. The others are plain words: parsing JSON would count.
pub(crate) const COMMAND: &str = "one-shot";

/// Medians of the time from the start of a process to its end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OneShot {
    pub(crate) strand_us: f64,
    /// The SQLite library doing the same.
    pub(crate) sqlite_us: Option<f64>,
    /// A program that opens a file, writes and syncs.
    pub(crate) bare_us: f64,
    /// A program that does nothing.
    pub(crate) nothing_us: f64,
    /// The median over pairs of processes that ran one after the other.
    pub(crate) strand_over_bare: f64,
    /// The command `strand append`, if its binary is beside this one.
    pub(crate) command_us: Option<f64>,
    /// As `strand_over_bare`.
    pub(crate) command_over_bare: Option<f64>,
}

pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let Some(system) = args.next() else {
        return Ok(());
    };
    let (dir, text) = args.next().zip(args.next()).ok_or("too few arguments")?;
    let event = Event::from_json(&text)?;
    System::from_str(&system, false)?
        .open(dir.as_ref(), Duration::ZERO)?
        .append(&event)
}

/// Runs the processes in turn, each system in its own store.
pub(crate) fn measure(scratch: &Path, events: &[Event], repeats: usize) -> Result<OneShot> {
    let systems = systems();
    let dirs: Vec<_> = systems
        .iter()
        .map(|system| {
            let dir = tempfile::tempdir_in(scratch)?;
            let prepared = system.prepare(dir.path())?;
            Ok((dir, prepared))
        })
        .collect::<Result<_>>()?;
    let mut times = vec![Vec::new(); systems.len()];
    let mut nothing = Vec::new();
    let strand = strand_command()?;
    let store = tempfile::tempdir_in(scratch)?;
    let _prepared = System::Strand.prepare(store.path())?;
    let mut by_command = Vec::new();
    for event in events.iter().cycle().take(repeats) {
        for ((system, (dir, _)), times) in systems.iter().zip(&dirs).zip(&mut times) {
            let mut command = command()?;
            command.arg(system.name()).arg(dir.path()).arg(&event.text);
            times.push(run_us(&mut command)?);
        }
        nothing.push(run_us(&mut command()?)?);
        if let Some(path) = &strand {
            let mut command = quiet(path);
            command.arg("-C").arg(store.path());
            command.arg("append").arg(&event.text);
            by_command.push(run_us(&mut command)?);
        }
    }
    let has_command = strand.is_some();
    let of = |system| {
        let index = systems.iter().position(|other| *other == system)?;
        times.get(index)
    };
    let (strand, bare) = of(System::Strand)
        .zip(of(System::Bare))
        .ok_or("strand and its limit are always measured")?;
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
        command_us: has_command.then(|| median(&by_command)),
        command_over_bare: has_command.then(|| median_ratio(&by_command, bare)),
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
    let mut command = quiet(&std::env::current_exe()?);
    command.arg(COMMAND);
    Ok(command)
}

/// The binary `strand` beside this one.
pub(crate) fn strand_command() -> Result<Option<PathBuf>> {
    let name = format!("strand{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::current_exe()?.with_file_name(name);
    Ok(Some(path).filter(|path| path.is_file()))
}

pub(crate) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

pub(crate) fn run_us(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    let status = command.status()?;
    let took = started.elapsed();
    if !status.success() {
        return Err(format!("a one-shot process failed: {status}").into());
    }
    Ok(took.as_secs_f64() * 1e6)
}
