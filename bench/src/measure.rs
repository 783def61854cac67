//! Measurements outside the rounds: opening, reading, memory, one-shot processes, and the load that
//! the project was designed for.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use strand_core::{Durability, IssueEvent, Issues, Log, Options, Reader};
use tempfile::TempDir;

use crate::answers::{self, Answers};
use crate::appending;
use crate::cli::Cli;
use crate::error::Result;
use crate::events::Event;
use crate::memory::Memory;
use crate::one_shot::{self, OneShot};
use crate::progress::Progress;
use crate::runner::Runner;
use crate::schedule::Step;
use crate::state::{self, State};
use crate::statistics::median;
use crate::systems::System;

const LOGS: [(&str, u64); 3] = [("1 KiB", 1 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)];
const LARGE: &str = "64 MiB";
const SMALL: &str = "1 KiB";
const READ_REPEATS: usize = 7;

/// The results; `None` if not measured.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Extras {
    /// 5 agents, 20 writes each, from the barrier to the last acknowledgement.
    pub(crate) five_by_twenty_ms: Option<f64>,
    pub(crate) one_shot_us: Option<OneShot>,
    pub(crate) opening_us: Vec<Opening>,
    /// `Reader::verify`: checks checksums, numbers and frames, decodes nothing.
    pub(crate) verify_mb_per_s: Option<f64>,
    /// `Reader::records`: also decodes and copies each record.
    pub(crate) read_mb_per_s: Option<f64>,
    /// `Issues::load`.
    pub(crate) fold_mb_per_s: Option<f64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) state: Option<State>,
    pub(crate) answers: Option<Answers>,
}

/// Opening a log of some length for appending.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Opening {
    pub(crate) log: &'static str,
    pub(crate) median_us: f64,
}

impl Extras {
    /// The results as text, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ms) = self.five_by_twenty_ms {
            lines.push(format!(
                "5 agents × 20 writes, barrier to last ack: {ms:.1} ms"
            ));
        }
        if let Some(shot) = &self.one_shot_us {
            let sqlite = shot
                .sqlite_us
                .map_or_else(String::new, |us| format!("SQLite {us:.0} µs, "));
            let command = shot.command_us.map_or_else(String::new, |us| {
                format!("the command `strand append` {us:.0} µs, ")
            });
            lines.push(format!(
                "one-shot process: strand {:.0} µs, {command}{sqlite}bare program {:.0} µs, one \
                 that does nothing {:.0} µs",
                shot.strand_us, shot.bare_us, shot.nothing_us
            ));
        }
        if !self.opening_us.is_empty() {
            let logs = self.opening_us.iter();
            let logs = logs.map(|open| format!("{} {:.0} µs", open.log, open.median_us));
            lines.push(format!(
                "open for append: {}",
                logs.collect::<Vec<_>>().join(", ")
            ));
        }
        let speed =
            |name: &str, speed: Option<f64>| speed.map(|speed| format!("{name} {speed:.0} MB/s"));
        let speeds: Vec<String> = [
            speed("verify scan", self.verify_mb_per_s),
            speed("decoded read", self.read_mb_per_s),
            speed("fold", self.fold_mb_per_s),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !speeds.is_empty() {
            lines.push(format!("reading a log of {LARGE}: {}", speeds.join(", ")));
        }
        if let Some(memory) = &self.memory {
            lines.push(format!(
                "memory after {} appends, over an empty program: {SMALL} log {:.0} KiB (peak \
                 {:.0}), {LARGE} log {:.0} KiB (peak {:.0})",
                memory.appends,
                memory.small_log_kib,
                memory.small_log_peak_kib,
                memory.large_log_kib,
                memory.large_log_peak_kib,
            ));
        }
        lines.extend(self.state.iter().flat_map(State::lines));
        lines.extend(self.answers.iter().flat_map(Answers::lines));
        lines
    }
}

/// Number of parts that [`all`] reports to the progress bar.
pub(crate) fn parts(cli: &Cli) -> usize {
    match cli {
        Cli {
            rows_only: true, ..
        } => 0,
        Cli {
            answers_only: true, ..
        } => 1,
        _ => 7 + state::PARTS,
    }
}

pub(crate) fn all(
    cli: &Cli,
    runner: &Runner<'_>,
    events: &[Event],
    progress: &mut Progress,
    extras: &mut Extras,
) -> Result<()> {
    progress.part("one-shot answers");
    let answers = answers::measure(runner, events, cli.state_issues)?;
    extras.answers = Some(answers);
    if cli.answers_only {
        return Ok(());
    }
    progress.part("5 agents × 20 writes");
    extras.five_by_twenty_ms = Some(five_by_twenty_ms(runner)?);
    progress.part("one-shot processes");
    extras.one_shot_us = Some(one_shot::measure(runner.scratch, events, cli.repeats())?);
    progress.part("filling logs");
    let logs = LOGS.map(|(name, bytes)| Ok((name, fill(runner.scratch, events, bytes)?)));
    let logs: Vec<(&str, TempDir)> = logs.into_iter().collect::<Result<_>>()?;
    runner.settle()?;
    progress.part("opening");
    extras.opening_us = opening(&logs, cli.repeats())?;
    let of = |name| {
        let log = logs.iter().find(|(log, _)| *log == name);
        log.map(|(_, dir)| dir.path()).ok_or("a log is missing")
    };
    progress.part("reading");
    let large = of(LARGE)?;
    extras.verify_mb_per_s = Some(verify_mb_per_s(large)?);
    extras.read_mb_per_s = Some(read_mb_per_s(large)?);
    extras.fold_mb_per_s = Some(fold_mb_per_s(large)?);
    progress.part("memory");
    if cfg!(target_os = "linux") {
        extras.memory = Some(Memory::measure(runner, of(SMALL)?, large)?);
    }
    drop(logs);
    let rounds = cli.rounds();
    let state = state::measure(runner, events, rounds, |part| progress.part(part))?;
    extras.state = Some(state);
    Ok(())
}

fn five_by_twenty_ms(runner: &Runner<'_>) -> Result<f64> {
    let step = Step {
        round: 0,
        system: System::Strand,
        agents: 5,
        writes: 20,
    };
    let turn = |_| Ok(appending::turn(runner, &step)?.seconds * 1e3);
    let turns: Vec<f64> = (0..15).map(turn).collect::<Result<_>>()?;
    Ok(median(&turns))
}

/// Creates a store with at least `bytes` of events in one segment.
fn fill(scratch: &Path, events: &[Event], bytes: u64) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(scratch)?;
    let options = Options::default()
        .durability(Durability::Buffered)
        .segment_bytes_max(u64::MAX);
    let log = Log::<IssueEvent>::open(dir.path(), options)?;
    let mut written = 0;
    for event in events.iter().cycle() {
        log.append(&event.decoded)?;
        written += event.text.len() as u64;
        if written >= bytes {
            break;
        }
    }
    log.close()?;
    Ok(dir)
}

/// Opens the logs in turn, in this process.
fn opening(logs: &[(&'static str, TempDir)], repeats: usize) -> Result<Vec<Opening>> {
    let mut times = vec![Vec::new(); logs.len()];
    for _ in 0..repeats {
        for ((_, dir), times) in logs.iter().zip(&mut times) {
            let started = Instant::now();
            let log = Log::<IssueEvent>::open(dir.path(), Options::default())?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
            drop(log);
        }
    }
    let logs = logs.iter().zip(&times);
    let opening = logs.map(|((log, _), times)| Opening {
        log,
        median_us: median(times),
    });
    Ok(opening.collect())
}

/// The segments of a store, in order.
fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn verify_mb_per_s(dir: &Path) -> Result<f64> {
    median_mb_per_s(dir, || {
        let reader = Reader::<IssueEvent>::open(dir)?;
        black_box(reader.verify()?);
        Ok(())
    })
}

fn read_mb_per_s(dir: &Path) -> Result<f64> {
    median_mb_per_s(dir, || {
        let reader = Reader::<IssueEvent>::open(dir)?;
        for record in reader.records()? {
            black_box(record?);
        }
        Ok(())
    })
}

fn fold_mb_per_s(dir: &Path) -> Result<f64> {
    median_mb_per_s(dir, || {
        black_box(Issues::load(dir)?);
        Ok(())
    })
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn median_mb_per_s(dir: &Path, mut read: impl FnMut() -> Result<()>) -> Result<f64> {
    let bytes = content_bytes(dir)? as f64;
    let mut speeds = Vec::new();
    for _ in 0..READ_REPEATS {
        let started = Instant::now();
        read()?;
        speeds.push(bytes / 1e6 / started.elapsed().as_secs_f64());
    }
    Ok(median(&speeds))
}

/// The length of all records, without the preallocated space after the last.
fn content_bytes(dir: &Path) -> Result<usize> {
    let mut content = 0;
    for path in segments(dir)? {
        let bytes = fs::read(path)?;
        let blank = bytes
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\n')
            .count();
        content += bytes.len() - blank + 1;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_log_can_be_opened_verified_read_and_folded() {
        let dir = tempfile::tempdir().unwrap();
        let events = crate::events::sample(None).unwrap();
        let log = fill(dir.path(), &events, 100_000).unwrap();
        assert!(content_bytes(log.path()).unwrap() >= 100_000);
        assert!(verify_mb_per_s(log.path()).unwrap() > 0.0);
        assert!(read_mb_per_s(log.path()).unwrap() > 0.0);
        assert!(fold_mb_per_s(log.path()).unwrap() > 0.0);
        let opening = opening(&[("some", log)], 3).unwrap();
        assert!(opening.iter().all(|open| open.median_us > 0.0));
    }
}
