//! strand, through its library.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use strand_core::testing::{Dir, Disk, OpenMode, Storage, StorageFile};
use strand_core::{Durability, IssueEvent, Log, Options};

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

pub(crate) struct Strand(Log<IssueEvent>);

pub(super) fn prepare(dir: &Path) -> Result<()> {
    let log = Log::<IssueEvent>::open(dir, Options::default())?;
    Ok(log.close()?)
}

impl Strand {
    pub(crate) fn open(dir: &Path, durability: Durability, slow_sync: Duration) -> Result<Self> {
        let mut options = Options::default().durability(durability);
        if !slow_sync.is_zero() {
            options = options.storage(Arc::new(SlowDisk(slow_sync)));
        }
        Ok(Self(Log::open(dir, options)?))
    }
}

impl Appender for Strand {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.0.append(&event.decoded)?;
        Ok(())
    }
}

/// The disk, with syncs that take longer.
#[derive(Debug)]
struct SlowDisk(Duration);

impl Storage for SlowDisk {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(SlowFile(Disk.open(dir, name, mode)?, self.0)))
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        Disk.sync_dir(dir)?;
        sleep(self.0);
        Ok(())
    }
}

#[derive(Debug)]
struct SlowFile(Box<dyn StorageFile>, Duration);

impl StorageFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        sleep(self.1);
        Ok(())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.0.identity()
    }
}
