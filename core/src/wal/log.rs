use std::{fmt, marker::PhantomData, path::Path};

#[cfg(doc)]
use crate::{error::Error, options::Durability};
use crate::{
    error::{InvalidEvent, Result},
    format::{payload::Payload, record::EncodedPayload, seq::Seq},
    options::Options,
    telemetry,
    wal::{
        cursor::{Record, Records},
        raw_log::RawLog,
        recovery::Recovery,
        shm::Hints,
        store_dir::StoreDir,
    },
};

/// A log opened for appending. Share it between threads by reference; each process opens its own.
///
/// Its records carry payloads of the type `P`, of which it knows no more than [`Payload`] says. For
/// issues, [`crate::IssueLog`] adds conditional writes. Nothing runs in the background: all work
/// happens inside the calls.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use strand_core::{Log, Options, Payload};
///
/// #[derive(Serialize, Deserialize)]
/// struct Job { name: String }
/// impl Payload for Job {}
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::<Job>::open(dir.path(), Options::default())?;
/// let receipt = log.append(&Job { name: "build".into() })?;
/// assert_eq!(receipt.seq, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log<P: Payload> {
    pub(crate) raw: RawLog,
    payload: PhantomData<fn(P) -> P>,
}

/// The result of an acknowledged append.
///
/// Example: [`Log`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The record's number: one more than that of the record before it.
    pub seq: Seq,
    /// An earlier append with the same idempotency key ([`crate::Batch::key`]) stored this record.
    /// Nothing was written now.
    pub repeated: bool,
}

impl Receipt {
    fn written(seq: u64) -> Self {
        let repeated = false;
        Self {
            seq: Seq::new(seq),
            repeated,
        }
    }
}

impl<P: Payload> Log<P> {
    /// Opens the store in `dir`. An empty directory becomes a store.
    ///
    /// Blocks for the lock, at most [`Options::lock_timeout`]. Reads the log only where the shared
    /// hints can't be trusted (after a reboot, in a copy): then it reads the last segment, and
    /// moves a torn tail to `quarantine/`; see [`Log::recovery`].
    ///
    /// # Errors
    /// Nothing was written: [`Error::MissingDirectory`], [`Error::NotADirectory`],
    /// [`Error::NotWritable`], [`Error::UnsafeFilesystem`], [`Error::UnsupportedVersion`],
    /// [`Error::Lock`], [`Error::Corrupt`]. After [`Error::Io`], the next open finishes what was
    /// begun.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "options are made for one log, as a rule"
    )]
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = StoreDir::open_at(&options.storage, dir.as_ref())?;
        let raw = telemetry::open(dir.path()).within(|| RawLog::open(&dir, &options))?;
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
    /// [`Error::outcome`] says what is left: nothing for [`Error::InvalidEvent`],
    /// [`Error::RecordTooLarge`], [`Error::Lock`] and most of [`Error::Io`]. After
    /// [`Error::DurabilityUnknown`] the record is in the log, and may not survive a power loss.
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
    /// As [`Log::append`]; [`InvalidEvent::EmptyBatch`] if there are none.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// let add = IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now);
    /// let receipt = log.append_batch(&[add, IssueEvent::close("bd-1", now)])?;
    /// assert_eq!(receipt.seq, 1); // One record.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch(&self, events: &[P]) -> Result<Receipt> {
        if events.is_empty() {
            return Err(InvalidEvent::EmptyBatch.into());
        }
        events.iter().try_for_each(Payload::validate)?;
        let payload = EncodedPayload::batch(to_json(&events)?)?;
        self.raw.append(&payload).map(Receipt::written)
    }

    /// Blocks until every record through `seq` is durable, whoever wrote it: for at most one sync
    /// of the disk, unless the hints must be rebuilt first. For appends with
    /// [`Durability::Buffered`], whose receipt has the `seq`.
    ///
    /// # Errors
    /// [`Error::DurabilityUnknown`] if the sync failed, or no record has this number.
    /// [`Error::Lock`], [`Error::Corrupt`], [`Error::Io`] if the hints could not be rebuilt.
    /// The records stay in the log in any case.
    ///
    /// ```
    /// use strand_core::{Durability, Issue, IssueEvent, Log, Options, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default().durability(Durability::Buffered))?;
    /// let receipt = log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
    /// assert_eq!(log.tail_seq()?, Some(Seq::new(1)));
    /// assert_eq!(log.durable_seq()?, None); // Not yet.
    /// assert_eq!(log.records_to_tail()?.count(), 1);
    /// assert_eq!(log.records()?.count(), 0);
    /// log.sync_to(receipt.seq)?;
    /// assert_eq!(log.durable_seq()?, Some(Seq::new(1)));
    /// log.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_to(&self, seq: Seq) -> Result<()> {
        self.raw.writer.sync_to(seq.get())
    }

    /// The records behind the live snapshot, through the last durable one: what also every
    /// [`crate::Reader`] sees. Blocks only where [`Log::durable_seq`] does; example:
    /// [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`crate::Reader::records`] and [`Log::durable_seq`].
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record<P>>> + use<P>> {
        let last = self.raw.look(Hints::durable_seq)?;
        Ok(Records::new(self.raw.records(last)?))
    }

    /// As [`Log::records`], but through the last record, durable or not. Example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`Log::records`].
    pub fn records_to_tail(&self) -> Result<impl Iterator<Item = Result<Record<P>>> + use<P>> {
        let last = self.raw.look(Hints::tail_seq)?;
        Ok(Records::new(self.raw.records(last)?))
    }

    /// The last durable record; `None` if there is none yet.
    ///
    /// Does not block, unless the hints were deleted: then they are rebuilt under the lock.
    /// Example: [`Log::sync_to`].
    ///
    /// # Errors
    /// [`Error::Lock`], [`Error::Corrupt`], [`Error::Io`] if the hints could not be rebuilt.
    pub fn durable_seq(&self) -> Result<Option<Seq>> {
        self.raw.look(Hints::durable_seq).map(some_record)
    }

    /// The last record, durable or not; `None` if there is none yet. Blocks, and fails, as
    /// [`Log::durable_seq`].
    ///
    /// Example: [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`Log::durable_seq`].
    pub fn tail_seq(&self) -> Result<Option<Seq>> {
        self.raw.look(Hints::tail_seq).map(some_record)
    }

    /// How often this `Log` took the store's lock, and how long it waited for it and held it.
    ///
    /// ```
    /// # use strand_core::{Issue, IssueEvent, Log, Options, Timestamp};
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// # let log = Log::open(dir.path(), Options::default())?;
    /// # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
    /// let counters = log.lock_counters();
    /// println!("{} holds, the longest {:?}", counters.acquisitions, counters.longest_hold);
    /// # assert_eq!(counters.acquisitions, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lock_counters(&self) -> strand_lock::Counters {
        self.raw.writer.lock.counters()
    }

    /// The damage that opening found and repaired; see [`Recovery`].
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.raw.recovery
    }

    /// Makes durable what was only buffered, and closes the log. Dropping it instead does no harm:
    /// what was acknowledged is as durable as [`Options::durability`] says.
    ///
    /// # Errors
    /// As [`Log::sync_to`].
    pub fn close(self) -> Result<()> {
        self.sync_all()
    }

    /// Makes every record durable that is in the log now. Blocks, and fails, as [`Log::sync_to`].
    ///
    /// # Errors
    /// As [`Log::sync_to`].
    pub fn sync_all(&self) -> Result<()> {
        self.raw.writer.sync_to(self.raw.look(Hints::tail_seq)?)
    }
}

/// Records are numbered from 1: 0 stands for none.
pub(crate) fn some_record(seq: u64) -> Option<Seq> {
    (seq > 0).then_some(Seq::new(seq))
}

impl<P: Payload> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.raw.writer.dir.path())
            .finish_non_exhaustive()
    }
}

/// Most texts fit into it. A `Vec` that grows moves its text again and again.
const TEXT_BYTES: usize = 1_024;

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let encoding = |error: serde_json::Error| InvalidEvent::Encoding {
        message: error.to_string(),
    };
    let mut text = Vec::with_capacity(TEXT_BYTES);
    serde_json::to_writer(&mut text, value).map_err(encoding)?;
    Ok(text)
}
