//! strand, through its library.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use strand_core::testing::{Dir, Disk, OpenMode, Storage, StorageFile};
use strand_core::{Durability, IssueEvent, Log, Options};

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

pub(crate) struct Strand {
    log: Arc<Log<IssueEvent>>,
    syncs: Arc<AtomicU64>,
}

pub(super) fn prepare(dir: &Path) -> Result<()> {
    let log = Log::<IssueEvent>::open(dir, Options::default())?;
    Ok(log.close()?)
}

impl Strand {
    pub(crate) fn open(dir: &Path, durability: Durability, slow_sync: Duration) -> Result<Self> {
        let syncs = Arc::new(AtomicU64::new(0));
        let disk = MeasuredDisk {
            slow_sync,
            syncs: Arc::clone(&syncs),
        };
        let options = Options::default().durability(durability);
        let log = Arc::new(Log::open(dir, options.storage(Arc::new(disk)))?);
        Ok(Self { log, syncs })
    }

    /// The same open log. The one that opened it counts the syncs of all.
    pub(super) fn for_another_thread(&self) -> Self {
        Self {
            log: Arc::clone(&self.log),
            syncs: Arc::default(),
        }
    }
}

impl Appender for Strand {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.log.append(&event.decoded)?;
        Ok(())
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.syncs.load(Ordering::Relaxed))
    }
}

/// The disk, with syncs that are counted, and take longer if that is wanted.
#[derive(Debug, Clone)]
struct MeasuredDisk {
    slow_sync: Duration,
    /// Of files: those of directories are not for records.
    syncs: Arc<AtomicU64>,
}

impl MeasuredDisk {
    fn slow_down(&self) {
        if !self.slow_sync.is_zero() {
            sleep(self.slow_sync);
        }
    }
}

impl Storage for MeasuredDisk {
    fn open(&self, dir: &Dir, name: &str, mode: OpenMode) -> io::Result<Box<dyn StorageFile>> {
        let file = Disk.open(dir, name, mode)?;
        Ok(Box::new(MeasuredFile(file, self.clone())))
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        Disk.sync_dir(dir)?;
        self.slow_down();
        Ok(())
    }
}

#[derive(Debug)]
struct MeasuredFile(Box<dyn StorageFile>, MeasuredDisk);

impl StorageFile for MeasuredFile {
    fn inner(&self) -> &dyn StorageFile {
        &*self.0
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        self.1.slow_down();
        Ok(())
    }
}
