//! A locked file. Each append locks, opens the log, writes a line, syncs, closes and unlocks.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

pub(super) struct Plan {
    lock: File,
    log: PathBuf,
    line: Vec<u8>,
    slow_sync: Duration,
    syncs: u64,
}

pub(super) fn prepare(dir: &Path) -> Result<()> {
    File::create_new(dir.join("lock"))?;
    File::create_new(dir.join("log.jsonl"))?.sync_all()?;
    Ok(())
}

impl Plan {
    pub(super) fn open(dir: &Path, slow_sync: Duration) -> Result<Self> {
        Ok(Self {
            lock: File::open(dir.join("lock"))?,
            log: dir.join("log.jsonl"),
            line: Vec::new(),
            slow_sync,
            syncs: 0,
        })
    }
}

impl Appender for Plan {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.line.clear();
        self.line.extend_from_slice(event.text.as_bytes());
        self.line.push(b'\n');
        self.lock.lock()?;
        let mut log = OpenOptions::new().append(true).open(&self.log)?;
        log.write_all(&self.line)?;
        log.sync_all()?;
        self.syncs += 1;
        sleep(self.slow_sync);
        drop(log);
        self.lock.unlock()?;
        Ok(())
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.syncs)
    }
}
