//! The limit: one process, one write and one `fdatasync` per event.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

const PREALLOCATED_BYTES: usize = 16 << 20;

pub(super) struct Bare {
    log: File,
    line: Vec<u8>,
    slow_sync: Duration,
    syncs: u64,
}

/// Fills the file with newlines, so that later writes change neither its length nor its extents.
pub(super) fn preallocate(dir: &Path) -> Result<()> {
    let mut log = File::create_new(dir.join("log.jsonl"))?;
    log.write_all(&vec![b'\n'; PREALLOCATED_BYTES])?;
    Ok(log.sync_all()?)
}

impl Bare {
    pub(super) fn open(dir: &Path, slow_sync: Duration) -> Result<Self> {
        let mut log = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("log.jsonl"))?;
        log.rewind()?;
        Ok(Self {
            log,
            line: Vec::new(),
            slow_sync,
            syncs: 0,
        })
    }
}

impl Appender for Bare {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.line.clear();
        self.line.extend_from_slice(event.text.as_bytes());
        self.line.push(b'\n');
        self.log.write_all(&self.line)?;
        self.log.sync_data()?;
        self.syncs += 1;
        sleep(self.slow_sync);
        Ok(())
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.syncs)
    }
}
