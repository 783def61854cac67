use std::{ops::ControlFlow, path::Path};

use crate::{
    error::Result,
    format::seq::Seq,
    issues::{issue::Issue, issues::Issues, version::Version},
    state::{
        State,
        each::{Passed, each_issue},
        materialize::Materialized,
        recent::load_unclosed,
    },
    wal::{durable::DurableWatch, store_dir::StoreDir},
};

/// The state of a log as of one record. It changes only by [`Live::refresh`], which moves it
/// forward.
///
/// Takes no lock and writes nothing. Holds the whole state in memory.
///
/// ```
/// use strand_core::{Issue, IssueLog, LiveIssues, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let mut live = LiveIssues::open(dir.path())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
///
/// assert!(live.state().get("bd-1").is_none());
/// live.refresh()?;
/// assert!(live.state().get("bd-1").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Live<S: State> {
    materialized: Materialized<S>,
    watch: DurableWatch,
}

/// The state of a log of issues as of one record.
pub type LiveIssues = Live<Issues>;

impl Issues {
    /// Reads the state of the store in `dir` through the last durable record. Takes no lock, writes
    /// nothing, and does not wait for a writer.
    ///
    /// # Errors
    /// As [`Live::open`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Live::open(dir).map(Live::into_state)
    }

    /// Reads the issues that are not closed, and perhaps some that are, through the last durable
    /// record. [`Issues::ready`], [`Issues::list`] with a status other than `closed` and
    /// `tombstone`, and, of an issue that is not closed, [`Issues::get`], [`Issues::version`] and
    /// [`Issues::blockers`] say the same as of all issues.
    ///
    /// Reads what a compaction wrote of them, and the records behind it; all issues, if there is
    /// nothing of the kind.
    ///
    /// # Errors
    /// As [`Live::open`]; of damage, only what was read is noticed.
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Issues, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// assert_eq!(Issues::load_unclosed(dir.path())?.ready().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_unclosed(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = StoreDir::on_disk(dir.as_ref())?;
        let mut watch = DurableWatch::open_store(&dir)?;
        load_unclosed(&dir, || watch.end())
    }

    /// Calls `look` with each issue, in the order of the ids, until it breaks; and returns as of
    /// which record they are. Holds in memory what changed behind the snapshot, and one issue of
    /// those in it: for a program that goes through all issues once.
    ///
    /// # Errors
    /// As [`Live::open`]. Some damage is noticed only at its place, or at the end of a file: what
    /// `look` has seen before is right, but it is not all.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use strand_core::{Issue, IssueLog, Issues, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// let passed = Issues::each(dir.path(), |id, version, issue| {
    ///     println!("{id} {version} {}", issue.title());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((passed.last_seq.get(), passed.without_effect), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn each(
        dir: impl AsRef<Path>,
        look: impl FnMut(&str, Version, &Issue) -> ControlFlow<()>,
    ) -> Result<Passed> {
        let dir = StoreDir::on_disk(dir.as_ref())?;
        let mut watch = DurableWatch::open_store(&dir)?;
        each_issue(&dir, || watch.end(), look)
    }
}

impl<S: State> Live<S> {
    /// Reads the state of the store in `dir` through the last durable record. Does not block.
    ///
    /// # Errors
    /// As [`crate::Reader::open`], and [`crate::Error::Corrupt`] with the place of damage in the
    /// snapshot or the log, or if the snapshot is that of another state.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::in_dir(&StoreDir::on_disk(dir.as_ref())?)
    }

    pub(crate) fn in_dir(dir: &StoreDir) -> Result<Self> {
        let mut watch = DurableWatch::open_store(dir)?;
        let materialized = Materialized::load(dir, || watch.end())?;
        Ok(Self {
            materialized,
            watch,
        })
    }

    /// Moves on to the last durable record, and returns the number of the last record that the
    /// state reflects now; 0 if it reflects none.
    ///
    /// Reads only new records, unless compactions have removed them: then it reads the latest
    /// snapshot. It also does that once in a while after a compaction, to forget what the snapshot
    /// forgot ([`State::forget`]). Does not wait for a writer.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`]. What was read before the damage is
    /// reflected.
    pub fn refresh(&mut self) -> Result<Seq> {
        let end = self.watch.end();
        self.materialized.advance(end)?;
        if self.materialized.is_due_to_forget() {
            self.materialized.forget_as_compacted(end)?;
        }
        Ok(Seq::new(self.materialized.last_seq()))
    }

    /// The state as of the last refresh.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.materialized.state
    }

    /// The state alone, to keep or to give away.
    ///
    /// Example: [`Live`].
    #[must_use]
    pub fn into_state(self) -> S {
        self.materialized.state
    }
}
