//! The parts that all measurements share.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::error::Result;
use crate::mode::Mode;
use crate::process::Appending;
use crate::systems::System;

/// A new directory for stores, which the user who runs a server can enter.
pub(crate) fn new_dir(parent: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    Ok(builder.prefix("strand-bench-").tempdir_in(parent)?)
}

pub(crate) struct Runner<'a> {
    /// The directory for stores, on the disk that is measured.
    pub(crate) scratch: &'a Path,
    pub(crate) events_file: &'a Path,
    /// A turn that takes longer is cut off.
    pub(crate) cap: Duration,
    /// By how much each sync is slowed.
    pub(crate) slow_sync: Duration,
    pub(crate) mode: Mode,
}

impl Runner<'_> {
    /// Waits until the filesystem has finished the work that earlier turns left.
    pub(crate) fn settle(&self) -> Result<()> {
        Ok(File::open(self.scratch)?.sync_all()?)
    }

    pub(crate) fn appending(
        &self,
        system: System,
        writes_max: usize,
        time_max: Duration,
    ) -> Appending {
        Appending {
            system,
            events_file: self.events_file.to_owned(),
            writes_max,
            time_max,
            slow_sync: self.slow_sync,
        }
    }
}
