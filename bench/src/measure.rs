//! What is measured outside the rounds: opening, reading, memory, one-shot processes, and the load
//! that the whole project began from.

use std::{
    fs::{self, File},
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde::Serialize;
use strand_core::{Durability, Issues, Log, Options, Reader};
use tempfile::TempDir;

use crate::{
    Result,
    cli::Cli,
    events::Event,
    machine::field,
    one_shot::{self, OneShot},
    progress::Progress,
    run::Runner,
    schedule::Step,
    state::{self, State},
    statistics::median,
    systems::System,
};

/// The first argument of a process whose memory is measured.
pub(crate) const MEMORY_COMMAND: &str = "memory";

const LOGS: [(&str, u64); 3] = [("1 KiB", 1 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)];
const LARGE: &str = "64 MiB";
const SMALL: &str = "1 KiB";
/// Appends of a process before its memory is measured.
const MEMORY_APPENDS: usize = 500;
const READ_REPEATS: usize = 7;

/// The results; `None` for what this run did not measure.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Extras {
    /// 5 agents, 20 writes each, from the barrier to the last acknowledgement.
    pub(crate) five_by_twenty_ms: Option<f64>,
    pub(crate) one_shot_us: Option<OneShot>,
    pub(crate) opening_us: Vec<Opening>,
    /// The log read, its checksums, numbers and frames checked; nothing decoded.
    pub(crate) verify_mb_per_s: Option<f64>,
    /// `Reader::read`: as before, and each record decoded and copied.
    pub(crate) read_mb_per_s: Option<f64>,
    /// `Issues::load`.
    pub(crate) fold_mb_per_s: Option<f64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) state: Option<State>,
}

/// Opening a log of some length for appending.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Opening {
    pub(crate) log: &'static str,
    pub(crate) median_us: f64,
}

/// Worker memory of a process that has appended, over that of an empty program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) appends: usize,
    pub(crate) small_log_kib: f64,
    pub(crate) large_log_kib: f64,
    /// At its highest, while it opened and appended.
    pub(crate) small_log_peak_kib: f64,
    pub(crate) large_log_peak_kib: f64,
}

impl Memory {
    pub(crate) fn most_mib(&self) -> f64 {
        self.small_log_peak_kib.max(self.large_log_peak_kib) / 1024.0
    }
}

impl Extras {
    /// The results for people, a line each.
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
                "one-shot process: strand {:.0} µs, {command}{sqlite}bare program {:.0} µs, one that does nothing {:.0} µs",
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
                "memory after {} appends, over an empty program: {SMALL} log {:.0} KiB (peak {:.0}), {LARGE} log {:.0} KiB (peak {:.0})",
                memory.appends,
                memory.small_log_kib,
                memory.small_log_peak_kib,
                memory.large_log_kib,
                memory.large_log_peak_kib,
            ));
        }
        lines.extend(self.state.iter().flat_map(State::lines));
        lines
    }
}

/// How many parts [`all`] reports to the progress bar.
pub(crate) fn parts(cli: &Cli) -> usize {
    if cli.rows_only { 0 } else { 6 + state::PARTS }
}

pub(crate) fn all(
    cli: &Cli,
    runner: &Runner<'_>,
    events: &[Event],
    progress: &mut Progress,
    extras: &mut Extras,
) -> Result<()> {
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
        log.map(|(_, dir)| dir.path()).ok_or("every log is there")
    };
    progress.part("reading");
    let large = of(LARGE)?;
    extras.verify_mb_per_s = Some(verify_mb_per_s(large)?);
    extras.read_mb_per_s = Some(read_mb_per_s(large)?);
    extras.fold_mb_per_s = Some(fold_mb_per_s(large)?);
    progress.part("memory");
    if cfg!(target_os = "linux") {
        extras.memory = Some(memory(runner, of(SMALL)?, large)?);
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
    let turn = |_| Ok(runner.run(&step)?.seconds * 1e3);
    let turns: Vec<f64> = (0..15).map(turn).collect::<Result<_>>()?;
    Ok(median(&turns))
}

/// Makes a store with at least `bytes` of events in one segment.
fn fill(scratch: &Path, events: &[Event], bytes: u64) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(scratch)?;
    let options = Options::default()
        .durability(Durability::Buffered)
        .segment_bytes_max(u64::MAX);
    let log: Log = Log::open(dir.path(), options)?;
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
            let log: Log = Log::open(dir.path(), Options::default())?;
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

/// The segments of a store, in their order.
fn segments(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
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
        let reader: Reader = Reader::open(dir)?;
        black_box(reader.verify()?);
        Ok(())
    })
}

fn read_mb_per_s(dir: &Path) -> Result<f64> {
    median_mb_per_s(dir, || {
        let reader: Reader = Reader::open(dir)?;
        for record in reader.read()? {
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

/// The length of all records, without the blank space behind the last that may be kept for more.
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

fn memory(runner: &Runner<'_>, small: &Path, large: &Path) -> Result<Memory> {
    let measure = |log: Option<&Path>| -> Result<Worker> {
        let runs: Vec<Worker> = (0..5)
            .map(|_| Worker::of_process(runner, log))
            .collect::<Result<_>>()?;
        let of = |figure: fn(&Worker) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
        Ok(Worker {
            now_kib: of(|run| run.now_kib),
            peak_kib: of(|run| run.peak_kib),
        })
    };
    let (empty, small, large) = (measure(None)?, measure(Some(small))?, measure(Some(large))?);
    Ok(Memory {
        appends: MEMORY_APPENDS,
        small_log_kib: small.now_kib - empty.now_kib,
        large_log_kib: large.now_kib - empty.now_kib,
        small_log_peak_kib: small.peak_kib - empty.peak_kib,
        large_log_peak_kib: large.peak_kib - empty.peak_kib,
    })
}

/// A process's resident memory.
#[derive(Debug)]
pub(crate) struct Worker {
    now_kib: f64,
    pub(crate) peak_kib: f64,
}

impl Worker {
    /// Of a process that appends to `log`, or does nothing.
    pub(crate) fn of_process(runner: &Runner<'_>, log: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(MEMORY_COMMAND).stdin(Stdio::null());
        if let Some(log) = log {
            command.arg(log).arg(runner.events_file);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("a process for measuring memory failed: {}", output.status).into());
        }
        Self::parse(&String::from_utf8(output.stdout)?)
    }

    pub(crate) fn parse(status: &str) -> Result<Self> {
        let kib = |name| -> Result<f64> {
            let value = field(status, name).ok_or("the system does not tell a process's memory")?;
            Ok(value.trim_end_matches(" kB").parse()?)
        };
        Ok(Self {
            now_kib: kib("VmRSS")?,
            peak_kib: kib("VmHWM")?,
        })
    }
}

/// A process that appends, if it is told where, and then tells how much memory it has.
pub(crate) fn memory_main(mut args: impl Iterator<Item = String>) -> Result<()> {
    if let Some((dir, events_file)) = args.next().zip(args.next()) {
        let log: Log = Log::open(dir, Options::default())?;
        // Read one by one: what they take is not the log's memory.
        let file = std::io::BufReader::with_capacity(4 << 10, File::open(events_file)?);
        for line in std::io::BufRead::lines(file).take(MEMORY_APPENDS) {
            log.append(&Event::from_json(&line?)?.decoded)?;
        }
        print!("{}", fs::read_to_string("/proc/self/status")?);
        return Ok(());
    }
    print!("{}", fs::read_to_string("/proc/self/status")?);
    Ok(())
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

    #[test]
    fn memory_is_read_from_a_status() {
        let worker = Worker::parse("VmHWM:\t    4096 kB\nVmRSS:\t    3072 kB\n").unwrap();
        assert!((worker.now_kib - 3_072.0).abs() < 0.1);
        assert!((worker.peak_kib - 4_096.0).abs() < 0.1);
        assert!(Worker::parse("").is_err());
    }
}
