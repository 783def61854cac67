use std::{fmt, marker::PhantomData, path::Path};

use crate::{
    error::{InvalidEvent, Result},
    format::record::EncodedPayload,
    issues::{event::IssueEvent, version::Version},
    options::Options,
    seeded::{Bug, seeded},
    telemetry,
    wal::{
        cursor::Records, payload::Payload, raw_log::RawLog, recovery::Recovery, shm::Hints,
        store_dir::StoreDir,
    },
};

/// A store's log, opened to append. Share it between threads by reference; any number of processes
/// can have the same store open.
///
/// Nothing runs in the background: what happens, happens inside the calls.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// let issue = Issue::new("bd-1", "Mend the fence", now);
/// let receipt = log.append(&IssueEvent::add(issue, now))?;
/// assert_eq!(receipt.seq, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log<P: Payload = IssueEvent> {
    pub(crate) raw: RawLog,
    payload: PhantomData<fn(P) -> P>,
}

/// What an acknowledged append returns: see [`Log`], and [`crate::Batch::key`] for repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The record's number: one more than that of the record before it, whoever wrote that.
    pub seq: u64,
    /// The record was there already: an append with the same idempotency key had stored it. Nothing
    /// was written now.
    pub repeated: bool,
}

impl Receipt {
    fn written(seq: u64) -> Self {
        let repeated = false;
        Self { seq, repeated }
    }

    /// The version of each issue that the record changed.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.seq)
    }
}

impl<P: Payload> Log<P> {
    /// Opens the store in `dir` to append; makes an empty directory a store.
    ///
    /// Blocks for the lock, at most [`Options::lock_timeout`]. Does not read the log, unless the
    /// shared hints can't be trusted (after a reboot, in a copy): then it reads the last segment,
    /// keeps a torn tail in `quarantine/` and cuts it off; see [`Log::recovery`].
    ///
    /// # Errors
    /// Nothing was written: [`Error::MissingDirectory`], [`Error::NotADirectory`], [`Error::NotWritable`],
    /// [`Error::UnsafeFilesystem`], [`Error::UnsupportedVersion`], [`Error::Lock`], [`Error::Corrupt`].
    /// [`Error::Io`]: what was done so far is found and finished by the next open.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = StoreDir::new(&options.storage, dir.as_ref());
        let raw = telemetry::open(dir.path()).within(|| RawLog::open(&dir, options))?;
        Ok(Self {
            raw,
            payload: PhantomData,
        })
    }

    /// Appends one event as a record of its own.
    ///
    /// Blocks for the lock, at most [`Options::lock_timeout`], and with [`Durability::Synced`] for
    /// one sync of the disk, which it may share with others. On return the record survives what
    /// [`Options::durability`] says.
    ///
    /// # Errors
    /// [`Error::outcome`] tells what is left: for [`Error::InvalidEvent`], [`Error::RecordTooLarge`],
    /// [`Error::Lock`] and most of [`Error::Io`] nothing; after [`Error::DurabilityUnknown`] the
    /// record is in the log, and may or may not survive the loss of power.
    pub fn append(&self, event: &P) -> Result<Receipt> {
        event.validate()?;
        let payload = EncodedPayload::one(to_json(event)?)?;
        self.raw.append(&payload).map(Receipt::written)
    }

    /// Appends several events as one record: all of them or none, also after a crash.
    ///
    /// Blocks, and is durable, as [`Log::append`].
    ///
    /// # Errors
    /// As [`Log::append`]; [`InvalidEvent::EmptyBatch`] when there are none.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// let add = IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now);
    /// let receipt = log.append_batch(&[add, IssueEvent::close("bd-1", now)])?;
    /// assert_eq!(receipt.seq, 1); // One record.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch(&self, events: &[P]) -> Result<Receipt> {
        if events.is_empty() {
            return Err(InvalidEvent::EmptyBatch.into());
        }
        events.iter().try_for_each(Payload::validate)?;
        if seeded(Bug::BatchSplit) {
            let mut receipts = events.iter().map(|event| self.append(event));
            return receipts
                .next_back()
                .unwrap_or_else(|| unreachable!("there are some"));
        }
        let payload = EncodedPayload::batch(to_json(&events)?);
        self.raw.append(&payload).map(Receipt::written)
    }

    /// Blocks until every record through `seq` is durable, whoever wrote it: for one sync of the disk at most, unless the
    /// hints have to be mended first. For appends with [`Durability::Buffered`], whose receipt tells `seq`.
    ///
    /// # Errors
    /// [`Error::DurabilityUnknown`] when the sync failed, and for a `seq` that was never written.
    /// [`Error::Lock`], [`Error::Corrupt`], [`Error::Io`] when the hints had to be mended and could not.
    /// The records stay in the log in any case.
    ///
    /// ```
    /// use strand_core::{Durability, Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default().durability(Durability::Buffered))?;
    /// let receipt = log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// assert_eq!((log.tail_seq(), log.durable_seq()), (1, 0)); // There, but not durable.
    /// assert_eq!((log.replay()?.count(), log.read()?.count()), (1, 0));
    /// log.sync_to(receipt.seq)?;
    /// assert_eq!(log.durable_seq(), 1);
    /// log.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_to(&self, seq: u64) -> Result<()> {
        self.raw.writer.sync_to(seq)
    }

    /// The records behind the live snapshot, through the watermark: what is durable now. Blocks where
    /// [`Log::durable_seq`] does; example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`crate::Reader::read`].
    pub fn read(&self) -> Result<Records<P>> {
        Ok(Records::new(self.raw.records(self.durable_seq())?))
    }

    /// The records through the tail: those too that were appended with [`Durability::Buffered`] and
    /// are not durable yet. Blocks where [`Log::durable_seq`] does; example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn replay(&self) -> Result<Records<P>> {
        Ok(Records::new(self.raw.records(self.tail_seq())?))
    }

    /// The watermark: every record through it is durable. 0 when there is none.
    ///
    /// Does not block, unless somebody has deleted the hints: then they are rebuilt, under the lock. Where that
    /// fails, it answers what was known before. Example: [`Log::sync_to`].
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        self.raw.look(Hints::durable_seq)
    }

    /// The last record that was written, durable or not. 0 when there is none.
    ///
    /// Blocks where [`Log::durable_seq`] does. Example: [`Log::sync_to`].
    #[must_use]
    pub fn tail_seq(&self) -> u64 {
        self.raw.look(Hints::tail_seq)
    }

    /// What this `Log` did with the store's lock: how often it was taken, how long it was waited for and held.
    ///
    /// ```
    /// # use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// # let log = Log::open(dir.path(), Options::default())?;
    /// # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
    /// let counters = log.lock_counters();
    /// println!("{} holds, the longest {:?}", counters.acquisitions, counters.longest_hold);
    /// # assert_eq!(counters.acquisitions, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lock_counters(&self) -> strand_lock::Counters {
        self.raw.writer.lock.counters()
    }

    /// What opening found and mended; see [`Recovery`].
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.raw.recovery
    }

    /// Closes the log, after making durable what was only buffered. Without it, dropping the log does no harm: what was
    /// acknowledged is as durable as [`Options::durability`] says.
    ///
    /// # Errors
    /// As [`Log::sync_to`].
    pub fn close(self) -> Result<()> {
        self.raw.writer.sync_to(self.tail_seq())
    }
}

impl<P: Payload> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.raw.writer.dir.path())
            .finish_non_exhaustive()
    }
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let encoding = |error: serde_json::Error| InvalidEvent::Encoding {
        message: error.to_string(),
    };
    Ok(serde_json::to_vec(value).map_err(encoding)?)
}
