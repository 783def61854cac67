//! The resident memory of a process, as Linux reports it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Serialize;
use strand_core::{IssueEvent, Log, Options};

use crate::error::Result;
use crate::events::Event;
use crate::process::Work;
use crate::runner::Runner;
use crate::statistics::median;

/// Appends of a process before its memory is measured.
pub(crate) const APPENDS: usize = 500;
const REPEATS: usize = 5;

/// Memory of a process that has appended, over that of a process that does nothing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) appends: usize,
    pub(crate) small_log_kib: f64,
    pub(crate) large_log_kib: f64,
    /// At its highest, while it opened the log and appended.
    pub(crate) small_log_peak_kib: f64,
    pub(crate) large_log_peak_kib: f64,
}

impl Memory {
    pub(crate) fn most_mib(&self) -> f64 {
        self.small_log_peak_kib.max(self.large_log_peak_kib) / 1024.0
    }

    pub(crate) fn measure(runner: &Runner<'_>, small: &Path, large: &Path) -> Result<Memory> {
        let append = |store: &Path| Work::AppendSome {
            store: store.to_owned(),
            events_file: runner.events_file.to_owned(),
        };
        let empty = Resident::median_of(&Work::Nothing)?;
        let (small, large) = (
            Resident::median_of(&append(small))?,
            Resident::median_of(&append(large))?,
        );
        Ok(Memory {
            appends: APPENDS,
            small_log_kib: small.now_kib - empty.now_kib,
            large_log_kib: large.now_kib - empty.now_kib,
            small_log_peak_kib: small.peak_kib - empty.peak_kib,
            large_log_peak_kib: large.peak_kib - empty.peak_kib,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Resident {
    now_kib: f64,
    pub(crate) peak_kib: f64,
}

impl Resident {
    /// Of a process that prints its `status`.
    pub(crate) fn of(work: &Work) -> Result<Self> {
        Self::parse(&work.output()?)
    }

    fn median_of(work: &Work) -> Result<Self> {
        let runs: Vec<Self> = (0..REPEATS)
            .map(|_| Self::of(work))
            .collect::<Result<_>>()?;
        let of = |value: fn(&Self) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
        Ok(Self {
            now_kib: of(|run| run.now_kib),
            peak_kib: of(|run| run.peak_kib),
        })
    }

    fn parse(status: &str) -> Result<Self> {
        let kib = |name| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.ok_or("the system does not report a process's memory")?;
            Ok(value.trim_end_matches(" kB").trim().parse()?)
        };
        Ok(Self {
            now_kib: kib("VmRSS:")?,
            peak_kib: kib("VmHWM:")?,
        })
    }
}

/// Prints what the system reports of this process.
pub(crate) fn print_status() -> Result<()> {
    print!("{}", fs::read_to_string("/proc/self/status")?);
    Ok(())
}

/// The process that appends.
pub(crate) fn append_some(store: &Path, events_file: &Path) -> Result<()> {
    let log = Log::<IssueEvent>::open(store, Options::default())?;
    // One event at a time: memory for events is not the log's.
    let file = BufReader::with_capacity(4 << 10, File::open(events_file)?);
    for line in file.lines().take(APPENDS) {
        log.append(&Event::from_json(&line?)?.decoded)?;
    }
    print_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_a_status() {
        let resident = Resident::parse("VmHWM:\t    4096 kB\nVmRSS:\t    3072 kB\n").unwrap();
        assert!((resident.now_kib - 3_072.0).abs() < 0.1);
        assert!((resident.peak_kib - 4_096.0).abs() < 0.1);
        assert!(Resident::parse("").is_err());
    }
}
