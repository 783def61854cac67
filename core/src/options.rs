use std::{fmt, io, sync::Arc, time::Duration};

use strand_lock::Holder;

use crate::env::{
    failpoint::{Failpoint, FailpointHook},
    storage::{Disk, Storage},
};

/// The failures that an acknowledged append survives: set with [`Options::durability`].
///
/// Example: [`crate::Log::sync_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The append returns once the record is on disk (`fdatasync`; `F_FULLFSYNC` on macOS,
    /// `FlushFileBuffers` on Windows). It survives the crash of any process, a system crash and a
    /// power loss, as long as the disk keeps what it has confirmed.
    #[default]
    Synced,
    /// The append returns once the record is in the system's memory. It survives the crash of any
    /// process. A system crash or a power loss can take it, and every later record.
    /// [`crate::Log::sync_to`] makes it durable afterwards.
    Buffered,
}

/// Defines each option once: its doc comment, name, type and default.
macro_rules! options {
    ($(#[$type_doc:meta])* Options { $($(#[$doc:meta])* $name:ident: $of:ty = $default:expr;)+ }) => {
        $(#[$type_doc])*
        #[derive(Debug, Clone)]
        pub struct Options {
            $(pub(crate) $name: $of,)+
            pub(crate) on_lock_wait: Callback<OnLockWait>,
            pub(crate) archive: Callback<Archive>,
            pub(crate) failpoint_hook: Callback<dyn FailpointHook>,
            pub(crate) storage: Arc<dyn Storage>,
        }

        impl Default for Options {
            fn default() -> Self {
                Self {
                    $($name: $default,)+
                    on_lock_wait: Callback(None),
                    archive: Callback(None),
                    failpoint_hook: Callback(None),
                    storage: Arc::new(Disk),
                }
            }
        }

        impl Options {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(self, $name: $of) -> Self {
                    Self { $name, ..self }
                }
            )+
        }
    };
}

options! {
    /// How a store is opened. The defaults suit most uses.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strand_core::{Durability, Options};
    ///
    /// let options = Options::default()
    ///     .durability(Durability::Buffered)
    ///     .lock_timeout(Duration::from_secs(2))
    ///     .on_lock_wait(|holder, waited| eprintln!("waiting for {holder:?} for {waited:.0?}"));
    ///
    /// // Where disk space is scarce:
    /// let options = options
    ///     .segment_bytes_max(4 << 20)
    ///     .preallocate_bytes(0)
    ///     .compact_after_bytes(1 << 20)
    ///     .compact_after_records(10_000)
    ///     .backup_snapshots(0)
    ///     .tombstone_ms(24 * 3600 * 1000)
    ///     .idempotency_records(10_000);
    ///
    /// // On a network filesystem whose locks are known to exclude all machines:
    /// let options = options.share_memory(false).allow_unsafe_filesystem(true);
    /// # drop(options);
    /// ```
    Options {
        /// The failures that acknowledged appends survive. Default: [`Durability::Synced`].
        durability: Durability = Durability::Synced;

        /// How long an append or an open waits for the lock. Default: 30 s.
        lock_timeout: Duration = Duration::from_secs(30);

        /// The size at which a segment is followed by a new one, in bytes. Default: 64 MiB.
        segment_bytes_max: u64 = 64 << 20;

        /// How many bytes of free space (newlines) are preallocated behind the log at a time; 0 for
        /// none. Default: 256 KiB.
        ///
        /// Syncing bytes that overwrite free space is faster: the file has no new length to record.
        preallocate_bytes: u64 = 256 << 10;

        /// [`crate::Log::compaction_due`] once the log behind the snapshot has so many bytes. A
        /// snapshot of issues that is no longer is always written as a whole; of a longer one, a
        /// compaction writes what changed. Default: 4 MiB.
        compact_after_bytes: u64 = 4 << 20;

        /// [`crate::Log::compaction_due`] once so many records are behind the snapshot. Default:
        /// 100,000.
        compact_after_records: u64 = 100_000;

        /// How many older snapshots a compaction leaves in the directory as backups. Default: 1.
        backup_snapshots: usize = 1;

        /// How long a compaction keeps the tombstone of a deleted issue, in milliseconds after the
        /// `ts` of the event that deleted it. Default: 30 days.
        tombstone_ms: u64 = 30 * 24 * 3600 * 1000;

        /// For how many records an idempotency key is remembered. Default: 1,000,000.
        ///
        /// Set the same in all processes: a key is forgotten once it is too old for the process
        /// that looks it up, or for one that compacts.
        idempotency_records: u64 = 1_000_000;

        /// Whether to open a store on a network or unknown filesystem. Default: false.
        ///
        /// If so, no memory is shared there, see [`Options::share_memory`]. Whether the lock
        /// excludes other machines is up to that filesystem.
        allow_unsafe_filesystem: bool = false;

        /// Whether to share hints with other processes through the mapped file `shm`. Default:
        /// true.
        ///
        /// Without them, every append looks for records of other processes, and syncs while it
        /// holds the lock: correct, but slow. For machines where processes cannot share mapped
        /// files. Other processes may share them meanwhile.
        share_memory: bool = true;
    }
}

type OnLockWait = dyn Fn(Option<&Holder>, Duration) + Send + Sync;
type Archive = dyn Fn(&str, &mut dyn io::Read) -> io::Result<()> + Send + Sync;

impl Options {
    /// A function to call when a lock of the store was waited for for 1 s, and again after each
    /// further second. It gets the holder, if that is known, and the time waited so far. Default:
    /// none.
    ///
    /// It is called by the thread that waits, which does not get the lock meanwhile.
    #[must_use]
    pub fn on_lock_wait(
        self,
        on_lock_wait: impl Fn(Option<&Holder>, Duration) + Send + Sync + 'static,
    ) -> Self {
        let on_lock_wait = Callback(Some(Arc::new(on_lock_wait) as Arc<OnLockWait>));
        Self {
            on_lock_wait,
            ..self
        }
    }

    /// A function that keeps the history which a compaction erases. Default: none.
    ///
    /// A compaction calls it with the name and the bytes of each segment that its snapshot is about
    /// to replace, in the order of their records. When it returns, a copy must be durable: from
    /// then on, any process may remove the segment. If it fails, the compaction does too, and
    /// nothing is removed. After a crash it may get the same segment again.
    ///
    /// ```
    /// use std::{fs, io};
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let archive = tempfile::tempdir()?;
    /// # let archive = archive.path().to_owned();
    /// let options = Options::default().archive(move |segment, bytes| {
    ///     let mut copy = fs::File::create(archive.join(segment))?;
    ///     io::copy(bytes, &mut copy)?;
    ///     copy.sync_all()?;
    ///     fs::File::open(&archive)?.sync_all() // Its name, too.
    /// });
    /// let log = IssueLog::open(dir.path(), options)?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// log.compact()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn archive(
        self,
        archive: impl Fn(&str, &mut dyn io::Read) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let archive = Callback(Some(Arc::new(archive) as Arc<Archive>));
        Self { archive, ..self }
    }

    pub(crate) fn reached(&self, point: Failpoint) {
        if let Some(hook) = &self.failpoint_hook.0 {
            hook.reached(point);
        }
    }
}

/// A function that the caller may have set.
pub(crate) struct Callback<F: ?Sized>(pub(crate) Option<Arc<F>>);

impl<F: ?Sized> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ?Sized> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}
