use std::fmt;

/// A place in the log's code that a test can watch, stop or kill at.
///
/// Named places let a test kill a process between any two steps of the protocol.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A named step of the protocol, at which [`FailpointHook::reached`] is called; example: [`FailpointHook`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Failpoint { $($(#[$doc])* $name,)+ }

        impl Failpoint {
            /// All points; example: [`FailpointHook`].
            #[cfg(feature = "testing")]
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The point's name, as in the source; example: [`FailpointHook`].
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

points! {
    /// The lock was taken.
    LockHeld,
    /// The record is about to be written.
    BeforeWrite,
    /// The record was written, but its place is not published.
    AfterWrite,
    /// The new tail is published.
    TailPublished,
    /// The lock is about to be freed.
    BeforeUnlock,
    /// This thread leads the next sync.
    LeaderElected,
    /// This thread took the lead from one that is not heard of any more.
    LeadTakenOver,
    /// The leader is about to sync.
    BeforeSync,
    /// The sync succeeded, but the watermark is not published.
    AfterSync,
    /// The watermark is published, but nobody is woken.
    DurablePublished,
    /// Those who waited are woken.
    Woken,
    /// Bytes were found behind the published tail, or the hints can't be trusted.
    RecoveryStarted,
    /// Torn bytes are in quarantine, but still in the log too.
    Quarantined,
    /// Torn bytes are cut off.
    TornTailCut,
    /// Doubtful records were written again and synced, but nothing is published.
    RecoverySynced,
    /// The full segment is synced, and its successor does not exist.
    RotationSynced,
    /// The new segment exists and is durable, but is not published.
    SegmentCreated,
    /// A compaction has begun a new segment, and will fold what is before it.
    CompactionRotated,
    /// The snapshot is written and synced, but has not got its name.
    SnapshotWritten,
    /// The snapshot has its name, durably, but the manifest does not name it.
    SnapshotRenamed,
    /// The manifest names the new snapshot; the files before it are still there.
    ManifestReplaced,
    /// Files that the manifest does not need are about to be removed, by a compaction or by an open.
    BeforeRemoval,
    /// They are removed.
    OldFilesRemoved,
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Watches a log from inside; for tests and tracing.
///
/// Called by the thread that does the work, also while the lock is held: whatever this does, everybody waits for.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use strand_core::{IssueLog, Timestamp, Issue, Options, testing::{Failpoint, FailpointHook}};
///
/// let now = Timestamp::now();
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
/// let log = IssueLog::open(dir.path(), Options::default().failpoint_hook(Arc::clone(&steps) as Arc<dyn FailpointHook>))?;
/// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// assert_eq!(steps.0.lock().unwrap().last(), Some(&"Woken"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FailpointHook: Send + Sync {
    /// The work has come to `point`.
    fn reached(&self, point: Failpoint);
}
