use std::fmt;

/// Lists the failpoints: places in the log's code at which a test can watch, stop or kill a
/// process, so that it can do so between any two steps of the protocol.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A named step of the protocol, at which [`FailpointHook::reached`] is called. Example:
        /// [`FailpointHook`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Failpoint { $($(#[$doc])* $name,)+ }

        impl Failpoint {
            /// All failpoints. Example: [`FailpointHook`].
            #[cfg(feature = "testing")]
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in the source. Example: [`FailpointHook`].
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

points! {
    /// The record waits in a slot for the next holder of the lock.
    SlotReady,
    /// The lock was taken.
    LockHeld,
    /// The record is about to be written.
    BeforeWrite,
    /// The record was written, but its place is not published.
    AfterWrite,
    /// The new tail is published.
    TailPublished,
    /// The owners of the records that were written from slots can see that.
    SlotsWritten,
    /// The lock is about to be freed.
    BeforeUnlock,
    /// This thread leads the next sync.
    LeaderElected,
    /// This thread took the lead over from a leader that stopped.
    LeadTakenOver,
    /// The leader is about to sync.
    BeforeSync,
    /// The sync succeeded, but the durable number is not published.
    AfterSync,
    /// The durable number is published, but no thread is woken.
    DurablePublished,
    /// The threads that waited are woken.
    Woken,
    /// Bytes were found behind the published tail, or the hints can't be trusted.
    RecoveryStarted,
    /// Torn bytes are in quarantine, but still in the log too.
    Quarantined,
    /// Torn bytes are cut off.
    TornTailCut,
    /// Records in doubt were rewritten and synced, but nothing is published.
    RecoverySynced,
    /// The full segment is synced, and its successor does not exist.
    RotationSynced,
    /// The new segment exists and is durable, but is not published.
    SegmentCreated,
    /// A compaction has begun a new segment, and will fold what is before it.
    CompactionRotated,
    /// The snapshot is written and synced, but does not have its name yet.
    SnapshotWritten,
    /// The snapshot has its name, durably, but the manifest does not name it.
    SnapshotRenamed,
    /// The manifest names the new snapshot; the files before it are still there.
    ManifestReplaced,
    /// A compaction or an open is about to remove obsolete files.
    BeforeRemoval,
    /// The obsolete files are removed.
    OldFilesRemoved,
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Watches the steps of the protocol, in tests.
///
/// The thread that does the work calls it, often under the lock: all other writers wait for it.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use strand_core::{IssueLog, Issue, Options, testing::{Failpoint, FailpointHook}};
///
/// #[derive(Default)]
/// struct Steps(Mutex<Vec<&'static str>>);
///
/// impl FailpointHook for Steps {
///     fn reached(&self, point: Failpoint) {
///         assert!(Failpoint::ALL.contains(&point));
///         self.0.lock().unwrap().push(point.name());
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let steps = Arc::new(Steps::default());
/// let hook = Arc::clone(&steps) as Arc<dyn FailpointHook>;
/// let log = IssueLog::open(dir.path(), Options::default().failpoint_hook(hook))?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// assert_eq!(steps.0.lock().unwrap().last(), Some(&"Woken"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FailpointHook: Send + Sync {
    /// The thread has reached `point`.
    fn reached(&self, point: Failpoint);
}
