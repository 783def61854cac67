use std::path::Path;

use crate::{
    error::Result,
    format::seq::Seq,
    issues::issues::Issues,
    state::materialize::Folded,
    wal::{durable::DurableWatch, store_dir::StoreDir},
};

/// The state of a store as of one record: consistent, and it changes only by [`LiveIssues::refresh`],
/// which moves it forward.
///
/// Takes no lock and writes nothing. Holds all issues in memory. Everything that [`Issues`] answers
/// can be asked of it.
///
/// ```
/// use strand_core::{Issue, IssueEvent, LiveIssues, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// let mut live = LiveIssues::open(dir.path())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
///
/// assert!(live.state().get("bd-1").is_none());
/// live.refresh()?;
/// assert!(live.state().get("bd-1").is_some());
/// assert_eq!(live.into_state().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LiveIssues {
    folded: Folded,
    watch: DurableWatch,
}

impl LiveIssues {
    /// Reads the state of the store in `dir` as of the present watermark. Does not block.
    ///
    /// # Errors
    /// As [`crate::Reader::open`], and [`crate::Error::Corrupt`] with the place of damage in the snapshot or the log.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::in_dir(&StoreDir::on_disk(dir.as_ref()))
    }

    pub(crate) fn in_dir(dir: &StoreDir) -> Result<Self> {
        let mut watch = DurableWatch::open_store(dir)?;
        let folded = Folded::load(dir, || watch.end())?;
        Ok(Self { folded, watch })
    }

    /// Moves on to the present watermark, and answers the last record that is reflected now.
    ///
    /// Reads only what was appended since, unless compactions have taken that away: then it reads
    /// the latest snapshot. It does so also once in a while after a compaction, to forget with it
    /// what is too old: idempotency keys, and that an issue was deleted. Does not wait for a writer.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`]. What was read before the damage is reflected.
    pub fn refresh(&mut self) -> Result<Seq> {
        let end = self.watch.end();
        self.folded.advance(end)?;
        if self.folded.is_due_to_forget() {
            // Who lives for long would else remember every key and every deleted issue that there ever was.
            self.folded.forget_as_compacted(end)?;
        }
        Ok(self.folded.store.last_seq())
    }

    /// The state as of the last refresh.
    #[must_use]
    pub fn state(&self) -> &Issues {
        &self.folded.store
    }

    /// The state alone, to keep or to give away.
    #[must_use]
    pub fn into_state(self) -> Issues {
        self.folded.store
    }
}

impl Issues {
    /// Reads the state of the store in `dir` through the last durable record. Takes no lock, writes
    /// nothing, and does not wait for a writer.
    ///
    /// # Errors
    /// As [`LiveIssues::open`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        LiveIssues::open(dir).map(LiveIssues::into_state)
    }
}
