use std::{fmt, sync::Arc, time::Duration};

use crate::env::{
    failpoint::{Failpoint, FailpointHook},
    storage::{Disk, Storage},
};

/// What an acknowledged append survives: set with [`Options::durability`], as in the example of [`Options`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The append returns after the record is on the disk (`fdatasync`; `F_FULLFSYNC` on macOS,
    /// `FlushFileBuffers` on Windows). It survives the death of any process, of the system, and the
    /// loss of power, as far as the disk keeps its word.
    #[default]
    Synced,
    /// The append returns after the record is in the system's memory. It survives the death of any
    /// process, but the loss of power or a crash of the system can take it, and every later one.
    /// [`crate::Log::sync_to`] makes it durable afterwards.
    Buffered,
}

/// How a log is opened. `Options::default()` is right for most.
///
/// ```
/// use std::time::Duration;
/// use strand_core::{Durability, Options};
///
/// let options = Options::default().durability(Durability::Buffered).lock_timeout(Duration::from_secs(2));
///
/// // Where disk space is scarce.
/// let options = options
///     .segment_bytes_max(4 << 20)
///     .preallocate_bytes(0)
///     .compact_after_bytes(1 << 20)
///     .compact_after_records(10_000)
///     .backup_snapshots(0)
///     .tombstone_ms(24 * 3600 * 1000)
///     .idempotency_records(10_000);
/// // On a filesystem whose locks are known to work between all machines that reach it.
/// let options = options.share_memory(false).allow_unsafe_filesystem(true);
/// # drop(options);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// What acknowledged appends survive. Default: [`Durability::Synced`].
    pub durability: Durability,
    /// How long an append or an open waits for the lock. Default: 30 s.
    pub lock_timeout: Duration,
    /// A segment that has reached this size is followed by a new one. Default: 64 MiB.
    pub segment_bytes_max: u64,
    /// How much free space (newlines) is laid out behind the log at a time; 0 for none. Default: 256 KiB.
    ///
    /// A sync of bytes that overwrite laid-out ones has no new length to record, and is faster for it.
    pub preallocate_bytes: u64,
    /// [`crate::Log::compaction_due`] once the log behind the snapshot has so many bytes. Default: 16 MiB.
    pub compact_after_bytes: u64,
    /// [`crate::Log::compaction_due`] once so many records are behind the snapshot. Default: 100,000.
    pub compact_after_records: u64,
    /// How many older snapshots a compaction leaves in the directory, as backups. Default: 1.
    pub backup_snapshots: usize,
    /// How long a compaction keeps the tombstone of a deleted issue, in milliseconds after the `ts` of
    /// the event that deleted it. Default: 30 days.
    pub tombstone_ms: u64,
    /// For how many records after its own an idempotency key is remembered. Default: 1,000,000.
    ///
    /// All who use a store should say the same: a key is forgotten when the one who asks, or a
    /// compaction, thinks it too old.
    pub idempotency_records: u64,
    /// Open a store on a network or unknown filesystem all the same. Default: false.
    ///
    /// Then no memory is shared, see [`Options::share_memory`]. Whether the lock excludes other
    /// machines is up to that filesystem.
    pub allow_unsafe_filesystem: bool,
    /// Share hints with other processes through the mapped file `shm`. Default: true.
    ///
    /// Without, every append looks for what others have appended, and syncs while it holds the lock:
    /// right, but slow. For machines where mapped files are not shared between all who use the store;
    /// others may share meanwhile. Never shared where [`Options::allow_unsafe_filesystem`] was needed.
    pub share_memory: bool,
    pub(crate) failpoint_hook: Option<Arc<dyn FailpointHook>>,
    pub(crate) storage: Arc<dyn Storage>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            lock_timeout: Duration::from_secs(30),
            segment_bytes_max: 64 << 20,
            preallocate_bytes: 256 << 10,
            compact_after_bytes: 16 << 20,
            compact_after_records: 100_000,
            backup_snapshots: 1,
            tombstone_ms: 30 * 24 * 3600 * 1000,
            idempotency_records: 1_000_000,
            allow_unsafe_filesystem: false,
            share_memory: true,
            failpoint_hook: None,
            storage: Arc::new(Disk),
        }
    }
}

impl Options {
    /// Sets [`Options::durability`].
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Sets [`Options::lock_timeout`].
    #[must_use]
    pub fn lock_timeout(self, lock_timeout: Duration) -> Self {
        Self {
            lock_timeout,
            ..self
        }
    }

    /// Sets [`Options::segment_bytes_max`].
    #[must_use]
    pub fn segment_bytes_max(self, segment_bytes_max: u64) -> Self {
        Self {
            segment_bytes_max,
            ..self
        }
    }

    /// Sets [`Options::preallocate_bytes`].
    #[must_use]
    pub fn preallocate_bytes(self, preallocate_bytes: u64) -> Self {
        Self {
            preallocate_bytes,
            ..self
        }
    }

    /// Sets [`Options::compact_after_bytes`].
    #[must_use]
    pub fn compact_after_bytes(self, compact_after_bytes: u64) -> Self {
        Self {
            compact_after_bytes,
            ..self
        }
    }

    /// Sets [`Options::compact_after_records`].
    #[must_use]
    pub fn compact_after_records(self, compact_after_records: u64) -> Self {
        Self {
            compact_after_records,
            ..self
        }
    }

    /// Sets [`Options::backup_snapshots`].
    #[must_use]
    pub fn backup_snapshots(self, backup_snapshots: usize) -> Self {
        Self {
            backup_snapshots,
            ..self
        }
    }

    /// Sets [`Options::tombstone_ms`].
    #[must_use]
    pub fn tombstone_ms(self, tombstone_ms: u64) -> Self {
        Self {
            tombstone_ms,
            ..self
        }
    }

    /// Sets [`Options::idempotency_records`].
    #[must_use]
    pub fn idempotency_records(self, idempotency_records: u64) -> Self {
        Self {
            idempotency_records,
            ..self
        }
    }

    /// Sets [`Options::allow_unsafe_filesystem`].
    #[must_use]
    pub fn allow_unsafe_filesystem(self, allow_unsafe_filesystem: bool) -> Self {
        Self {
            allow_unsafe_filesystem,
            ..self
        }
    }

    /// Sets [`Options::share_memory`].
    #[must_use]
    pub fn share_memory(self, share_memory: bool) -> Self {
        Self {
            share_memory,
            ..self
        }
    }

    pub(crate) fn reached(&self, point: Failpoint) {
        if let Some(hook) = &self.failpoint_hook {
            hook.reached(point);
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("lock_timeout", &self.lock_timeout)
            .field("segment_bytes_max", &self.segment_bytes_max)
            .field("preallocate_bytes", &self.preallocate_bytes)
            .field("compact_after_bytes", &self.compact_after_bytes)
            .field("compact_after_records", &self.compact_after_records)
            .field("backup_snapshots", &self.backup_snapshots)
            .field("tombstone_ms", &self.tombstone_ms)
            .field("idempotency_records", &self.idempotency_records)
            .field("allow_unsafe_filesystem", &self.allow_unsafe_filesystem)
            .field("share_memory", &self.share_memory)
            .field("failpoint_hook", &self.failpoint_hook.is_some())
            .field("storage", &self.storage)
            .finish()
    }
}
