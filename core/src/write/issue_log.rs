//! A log of issues: [`Log`], and the state that its conditions are checked against.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    format::seq::Seq,
    issues::{
        event::IssueEvent, issue::Issue, issues::Issues, patch::Patch, timestamp::Timestamp,
        version::Version,
    },
    options::Options,
    state::{compaction::Compacted, live::LiveIssues, point_reader::Versioned, points::Wanted},
    telemetry,
    wal::{
        log::{Log, Receipt},
        shm::Hints,
        writer::retry_replaced,
    },
    write::{
        batch::Batch,
        conditions::{CommitError, Decision, MakeError, decide},
        ids::draw_id,
        known::KnownIssues,
    },
};

/// A log of issues, opened for appending: [`Log`], and writes with conditions. Share it between
/// threads by reference; each process opens its own.
///
/// A write with a condition looks up the issues that it names, and reads no others. Only
/// [`IssueLog::with_issues`] reads them all, and keeps them in memory from then on.
///
/// ```
/// use strand_core::{Issue, IssueLog, Options, Seq};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// log.claim("bd-1", "agent-7")?;
/// assert_eq!(log.log().tail_seq()?, Some(Seq::new(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IssueLog {
    log: Arc<Log<IssueEvent>>,
    known: KnownIssues,
}

impl IssueLog {
    /// Opens the store in `dir`; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Ok(Self {
            log: Arc::new(Log::open(dir, options)?),
            known: KnownIssues::default(),
        })
    }

    /// The log itself, for all that has nothing to do with issues. Clone it for a
    /// [`crate::Compactor`].
    #[must_use]
    pub fn log(&self) -> &Arc<Log<IssueEvent>> {
        &self.log
    }

    /// Appends one event without any condition; see [`Log::append`].
    ///
    /// Example: [`IssueLog`].
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append(&self, event: &IssueEvent) -> Result<Receipt> {
        self.log.append(event)
    }

    /// Appends several events as one record, without any condition; see [`Log::append_batch`].
    ///
    /// # Errors
    /// As [`Log::append_batch`].
    pub fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt> {
        self.log.append_batch(events)
    }

    /// Writes a batch as one record if all its conditions hold: all of it or nothing, also after a
    /// crash.
    ///
    /// Blocks as [`IssueLog::append`] does. Looks up the issues that the batch names, in the
    /// snapshot and among the records behind it, and reads no others. The first call reads all
    /// records behind the snapshot once, unless an index on disk knows what they concern.
    ///
    /// # Errors
    /// [`CommitError::Conflict`]: a condition does not hold; nothing was written. What the conflict
    /// says of the issue is as durable as an acknowledged append. [`CommitError::KeyReused`]: the
    /// batch's key belongs to another operation; nothing was written. [`CommitError::Log`] with
    /// [`Error::InvalidEvent`] or [`Error::Corrupt`]: nothing was written. Otherwise as
    /// [`IssueLog::append`].
    ///
    /// Examples: [`Batch`].
    pub fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        let commit = || self.commit_now(batch);
        let commit = || retry_replaced(commit, CommitError::is_displacement);
        telemetry::commit(self.log.raw.writer.dir.path()).within(commit)
    }

    /// Calls `look` with the state that conditions are checked against: through the last record,
    /// durable or not. Use it to decide what to write.
    ///
    /// Blocks no other process, unless shared memory is not available. Other threads wait with
    /// their conditional writes through this `IssueLog` until `look` returns. The first call reads
    /// the state of all issues.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Lock`].
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Issues, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// let next = |issues: &Issues| issues.ready().first().map(|(id, _)| (*id).to_owned());
    /// if let Some(id) = log.with_issues(next)? {
    ///     log.claim(&id, "agent-7")?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_issues<T>(&self, look: impl FnOnce(&Issues) -> T) -> Result<T> {
        let known = self.known.at_tail(&self.log.raw)?;
        let Some(issues) = known.issues() else {
            unreachable!("it was read just now");
        };
        Ok(look(issues))
    }

    /// As [`IssueLog::with_issues`], but reads the issues that are not closed, and not all of the
    /// others: see [`Issues::load_unclosed`]. Keeps issues in memory only where a file has them, of
    /// 1 MiB at most, and what changed since.
    ///
    /// # Errors
    /// As [`IssueLog::with_issues`].
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// assert_eq!(log.with_unclosed(|issues| issues.ready().len())?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_unclosed<T>(&self, look: impl FnOnce(&Issues) -> T) -> Result<T> {
        self.known.unclosed_at_tail(&self.log.raw, look)
    }

    /// Creates an issue. Blocks as [`IssueLog::commit`].
    ///
    /// # Errors
    /// As [`IssueLog::commit`]; a conflict if the issue exists.
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// let again = log.create(Issue::new("bd-1", "Buy wire"));
    /// assert!(again.is_err_and(|error| error.is_conflict()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(&self, issue: Issue) -> Result<Receipt, CommitError> {
        self.commit(&self.batch().create(issue))
    }

    /// Creates an issue with a new id: the prefix, a hyphen, and 3 random characters, or more as
    /// the issues become more. That the id is free is checked under the lock.
    ///
    /// Calls `make` with the id, and again with another one if a concurrent write took the first.
    ///
    /// # Errors
    /// As [`IssueLog::commit`]; [`CommitError::Make`] if `make` fails with an error other than
    /// [`InvalidEvent`](crate::InvalidEvent); a conflict if `make` returns an issue that exists, a
    /// hundred times.
    ///
    /// ```
    /// use strand_core::{CommitError, Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// let (id, _) = log.create_new("bd", |id| Ok(Issue::new(id, "Mend the fence")))?;
    /// assert!(id.starts_with("bd-") && id.len() == 6);
    ///
    /// // What the closure needs may fail in any way.
    /// let no_title = |id: &str| Ok(Issue::new(id, &std::fs::read_to_string("no/such/file")?));
    /// assert!(matches!(log.create_new("bd", no_title), Err(CommitError::Make(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(
        &self,
        prefix: &str,
        mut make: impl FnMut(&str) -> Result<Issue, MakeError>,
    ) -> Result<(String, Receipt), CommitError> {
        const ATTEMPTS: u32 = 100;
        let (raw, host) = (&self.log.raw, self.log.raw.writer.host());
        let (_, mut issues) = self.known.part_at_tail(raw, &Wanted::default())?;
        let mut attempts = 0;
        loop {
            let id = draw_id(prefix, issues, host);
            let wanted = Wanted::id(&id);
            let (part, at_most) = self.known.part_at_tail(raw, &wanted)?;
            issues = at_most;
            // Nor does an issue get the id of a deleted one that is remembered.
            if part.version(&id).is_some() {
                continue;
            }
            attempts += 1;
            match self.create(make(&id).map_err(CommitError::of_make)?) {
                Err(CommitError::Conflict(_)) if attempts < ATTEMPTS => {}
                created => return created.map(|receipt| (id, receipt)),
            }
        }
    }

    /// The issue with this id through the last record, durable or not; `None` if it does not exist.
    /// Reads no other issues.
    ///
    /// Blocks as [`IssueLog::with_issues`]. For durable records only, see [`crate::PointReader`].
    ///
    /// # Errors
    /// As [`IssueLog::with_issues`].
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// let version = log.create(Issue::new("bd-1", "Mend the fence"))?.version();
    /// assert_eq!(log.get("bd-1")?.map(|found| found.version), Some(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, id: &str) -> Result<Option<Versioned>> {
        let (part, _) = self.known.part_at_tail(&self.log.raw, &Wanted::id(id))?;
        Ok(Versioned::of(&part, id))
    }

    /// Replaces an issue that is at this version; see [`Issues::version`]. Blocks as
    /// [`IssueLog::commit`].
    ///
    /// # Errors
    /// As [`IssueLog::commit`]; a conflict if the issue is at another version.
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// let version = log.create(Issue::new("bd-1", "Mend the fence"))?.version();
    /// log.update_if(Issue::new("bd-1", "Mend the gate"), version)?;
    /// let late = log.update_if(Issue::new("bd-1", "Mend the roof"), version);
    /// assert!(late.is_err_and(|error| error.is_conflict()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The version is a type of its own, so that you cannot mistake another number for it:
    ///
    /// ```compile_fail,E0308
    /// # fn mistaken(log: strand_core::IssueLog, issue: strand_core::Issue) {
    /// # use strand_core::Seq;
    /// log.update_if(issue, Seq::new(7)).ok();
    /// # }
    /// ```
    pub fn update_if(
        &self,
        issue: Issue,
        expected_version: Version,
    ) -> Result<Receipt, CommitError> {
        self.commit(&self.batch().update_if(issue, expected_version))
    }

    /// Changes some fields of an issue, whatever its version. Blocks as [`IssueLog::commit`].
    ///
    /// # Errors
    /// As [`IssueLog::commit`]; a conflict if the issue does not exist, and
    /// [`crate::InvalidEvent::NotAnArray`] if the patch adds to a field that is not an array.
    ///
    /// ```
    /// use strand_core::{Issue, IssueLog, Options, Patch};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// log.patch("bd-1", Patch::new().add_label("garden"))?;
    /// log.patch("bd-1", Patch::new().set("priority", &0)?)?;
    /// let issue = log.with_issues(|issues| issues.get("bd-1").cloned())?.expect("it is there");
    /// assert_eq!((issue.labels(), issue.priority()), (vec!["garden".to_owned()], Some(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn patch(&self, id: &str, patch: Patch) -> Result<Receipt, CommitError> {
        self.commit(&self.batch().patch(id, patch))
    }

    /// Claims an open issue without an assignee for an agent; see [`Batch::claim`]. Of any number
    /// of concurrent claims, one succeeds. Blocks as [`IssueLog::commit`].
    ///
    /// # Errors
    /// As [`IssueLog::commit`]; a conflict if the issue is not open, or has an assignee.
    ///
    /// ```
    /// use strand_core::{CommitError, Issue, IssueLog, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// log.claim("bd-1", "agent-7")?;
    /// let Err(CommitError::Conflict(conflict)) = log.claim("bd-1", "agent-8") else {
    ///     panic!("it is taken");
    /// };
    /// assert_eq!(conflict.issue.and_then(|issue| issue.assignee()).as_deref(), Some("agent-7"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn claim(&self, id: &str, agent: &str) -> Result<Receipt, CommitError> {
        self.commit(&self.batch().claim(id, agent))
    }

    /// Compacts the log into a snapshot of [`Issues`]; see [`Log::compact`].
    ///
    /// # Errors
    /// As [`Log::compact`].
    pub fn compact(&self) -> Result<Compacted> {
        self.log.compact::<Issues>()
    }

    /// Whether it is time to compact; see [`Log::compaction_due`].
    ///
    /// # Errors
    /// As [`Log::compaction_due`].
    pub fn compaction_due(&self) -> Result<bool> {
        self.log.compaction_due()
    }

    /// The state through the last durable record, as [`LiveIssues::open`] reads it. Unlike that of
    /// [`IssueLog::with_issues`], it is the caller's own.
    ///
    /// # Errors
    /// As [`LiveIssues::open`].
    pub fn live(&self) -> Result<LiveIssues> {
        LiveIssues::in_dir(&self.log.raw.writer.dir)
    }

    /// Makes durable what was only buffered, and closes the log; see [`Log::close`].
    ///
    /// # Errors
    /// As [`Log::close`].
    pub fn close(self) -> Result<()> {
        self.log.sync_all()
    }

    /// An empty batch with the time of this machine.
    fn batch(&self) -> Batch {
        Batch::at(Timestamp::from_ms(self.log.raw.writer.host().unix_ms()))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.log.raw.writer.dir.path()
    }

    pub(crate) fn lock_timeout(&self) -> Duration {
        self.log.raw.writer.options.lock_timeout
    }

    fn commit_now(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        let (raw, writer) = (&self.log.raw, &self.log.raw.writer);
        writer.note_begin();
        let payload = batch.encode()?;
        let wanted = batch.wanted();
        // Reads most of it before it takes the lock, so as not to hold it for long.
        let mut part = None;
        if writer.hints().is_shared() {
            let seq = raw.glance(Hints::tail_seq);
            part = self.known.prepare(raw, seq, &wanted)?;
        }
        let locked = writer.lock()?;
        let tail = locked.validate_tail()?;
        let tail_seq = tail.at.seq;
        let mut known = self.known.lock();
        let issues = known.part(&writer.dir, tail_seq, &wanted, &mut part)?;
        let decision = decide(batch, issues, writer.options.idempotency_records);
        let seq = match &decision {
            Decision::Write => tail.append(&payload)?,
            Decision::Repeat(seq) | Decision::KeyReused(seq) => seq.get(),
            // The error's state must not be lost afterwards.
            Decision::Refuse(conflict) => conflict.version.map_or(tail_seq, Version::get),
            Decision::Invalid(_) => tail_seq,
        };
        drop(known);
        let synced = locked.sync_unless_shared(seq);
        locked.unlock()?;
        let durable = synced.and_then(|()| writer.acknowledge(seq));
        self.known.lock().save();
        let seq = Seq::new(seq);
        let refused: CommitError = match decision {
            Decision::Write => return receipt(durable, seq, false),
            Decision::Repeat(_) => return receipt(durable, seq, true),
            Decision::KeyReused(seq) => {
                let key = batch.key.clone().unwrap_or_default();
                CommitError::KeyReused { key, seq }
            }
            Decision::Refuse(conflict) => conflict.into(),
            Decision::Invalid(error) => error.into(),
        };
        match durable {
            Ok(()) => Err(refused),
            // Nothing of this batch was written, whatever became of the record that it met.
            Err(Error::DurabilityUnknown { source, .. }) => {
                let sync = Error::io("sync", writer.dir.path());
                Err(sync(std::io::Error::other(source)).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn receipt(durable: Result<()>, seq: Seq, repeated: bool) -> Result<Receipt, CommitError> {
    durable?;
    Ok(Receipt { seq, repeated })
}

impl Receipt {
    /// The version of each issue that the record changed.
    ///
    /// Example: [`IssueLog::update_if`].
    #[must_use]
    pub fn version(&self) -> Version {
        self.seq.into()
    }
}

impl fmt::Debug for IssueLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueLog")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}
