//! The state that a log's records lead to: its snapshots, and the compaction that writes them.

mod base;
pub(crate) mod compaction;
pub(crate) mod compactor;
mod courses;
pub(crate) mod each;
pub(crate) mod index;
pub(crate) mod issues;
pub(crate) mod live;
pub(crate) mod lookup;
pub(crate) mod materialize;
pub(crate) mod mentions;
pub(crate) mod point_reader;
pub(crate) mod points;
pub(crate) mod recent;
pub(crate) mod runs;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod throttle;
pub(crate) mod unclosed;

use serde::{Serialize, de::DeserializeOwned};

use crate::{format::payload::Payload, format::seq::Seq, issues::timestamp::Timestamp};

/// A state that the records of a log lead to, so that the log can be compacted:
/// [`crate::Log::compact`] replaces records by a snapshot of it. [`crate::Issues`] is one.
///
/// A snapshot consists of lines of JSON. Restoring them, in their order, into a default state must
/// give the state that wrote them.
///
/// ```
/// use std::collections::BTreeMap;
/// use serde::{Deserialize, Serialize};
/// use strand_core::{Live, Log, Options, Payload, Seq, State};
///
/// #[derive(Serialize, Deserialize)]
/// struct Job { name: String, seconds: u64 }
/// impl Payload for Job {}
///
/// /// How long all jobs of a name took.
/// #[derive(Default)]
/// struct Totals(BTreeMap<String, u64>);
///
/// impl State for Totals {
///     const NAME: &'static str = "job totals";
///     type Payload = Job;
///     type Line = (String, u64);
///
///     fn apply(&mut self, _seq: Seq, jobs: Vec<Job>) {
///         for job in jobs {
///             *self.0.entry(job.name).or_default() += job.seconds;
///         }
///     }
///
///     fn lines(&self) -> impl Iterator<Item = impl Serialize> {
///         self.0.iter()
///     }
///
///     fn restore(&mut self, (name, seconds): (String, u64)) {
///         self.0.insert(name, seconds);
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::<Job>::open(dir.path(), Options::default())?;
/// for seconds in [2, 3] {
///     log.append(&Job { name: "build".into(), seconds })?;
/// }
/// log.compact::<Totals>()?;
/// log.append(&Job { name: "build".into(), seconds: 5 })?;
/// let totals = Live::<Totals>::open(dir.path())?.into_state();
/// assert_eq!(totals.0["build"], 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait State: Default {
    /// Stands in the snapshots, so that another state does not read them. Never change it.
    const NAME: &'static str;

    /// The payload of the log's records.
    type Payload: Payload;

    /// A line of a snapshot, as it is read.
    type Line: DeserializeOwned;

    /// Applies the events of record `seq`. Called for each record once, in order.
    ///
    /// It must not depend on anything but the state and the arguments: everybody who reads the log
    /// must get the same state.
    fn apply(&mut self, seq: Seq, events: Vec<Self::Payload>);

    /// The lines of a snapshot, as they are written. Each is read again as a [`State::Line`].
    fn lines(&self) -> impl Iterator<Item = impl Serialize>;

    /// Applies a line of a snapshot.
    fn restore(&mut self, line: Self::Line);

    /// Forgets what is too old to keep: whatever needs it only belongs to records before
    /// `before_seq` ([`crate::Options::idempotency_records`]), or to deletions before `before`
    /// ([`crate::Options::tombstone_ms`]). A compaction calls it before it writes the snapshot. By
    /// default, nothing is forgotten.
    fn forget(&mut self, before_seq: Seq, before: Timestamp) {
        let _ = (before_seq, before);
    }

    /// How many entries there are, for [`crate::Compacted::Done`]. By default, one a line.
    fn entries(&self) -> usize {
        self.lines().count()
    }

    /// The part of [`crate::Issues`] that is not closed, which gets a file of its own, unless it is
    /// longer than that.
    #[doc(hidden)]
    fn unclosed(&self, bytes_max: u64) -> Option<Self> {
        let _ = bytes_max;
        None
    }

    /// The header of a snapshot of [`crate::Issues`], which is older than this trait: the issues,
    /// tombstones and keys, and the events without effect.
    #[doc(hidden)]
    fn issue_totals(&self) -> Option<[u64; 4]> {
        None
    }

    /// Applies the header of a snapshot of [`crate::Issues`].
    #[doc(hidden)]
    fn restore_issue_totals(&mut self, last_seq: Seq, without_effect: u64) {
        let _ = (last_seq, without_effect);
    }
}
