use std::{
    marker::PhantomData,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::Result,
    issues::event::IssueEvent,
    state::live::LiveIssues,
    wal::{
        cursor::{RawRecords, Records},
        durable::DurableWatch,
        follower::Follower,
        manifest::Manifest,
        payload::Payload,
        store_dir::StoreDir,
    },
};

/// Reads a store: takes no lock, writes nothing, needs no permission to write, and never waits for a writer. // I3
///
/// What it sees is a prefix of the one order of all records, which ends at the watermark: a record
/// is seen when it is durable. Where the store's volatile hints are missing (after a reboot, in a
/// copy), it ends at the last whole record.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Reader, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
///
/// let reader: Reader = Reader::open(dir.path())?;
/// assert_eq!((reader.durable_seq(), reader.verify()?), (Some(1), 1));
/// for record in reader.read()? {
///     let record = record?;
///     println!("{} {:?}", record.seq, record.events);
/// }
/// assert_eq!(reader.snapshot()?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader<P: Payload = IssueEvent> {
    dir: StoreDir,
    watch: Mutex<DurableWatch>,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> Reader<P> {
    /// Opens the store in `dir` for reading. Does not block.
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::MissingDirectory`], [`Error::NotADirectory`],
    /// [`Error::UnsupportedVersion`], [`Error::Corrupt`] for a damaged manifest, [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::in_dir(StoreDir::on_disk(dir.as_ref()))
    }

    pub(crate) fn in_dir(dir: StoreDir) -> Result<Self> {
        let watch = DurableWatch::open_store(&dir)?;
        Ok(Self {
            dir,
            watch: Mutex::new(watch),
            payload: PhantomData,
        })
    }

    /// The records behind the live snapshot, through the present watermark: all records, as long as
    /// the store was never compacted. Each call looks at the manifest and the watermark anew.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged manifest, [`Error::Io`]. Each record can be an error, too:
    /// [`Error::Corrupt`], [`Error::Io`], and [`Error::Compacted`] where a compaction takes the rest
    /// of them away meanwhile.
    pub fn read(&self) -> Result<Records<P>> {
        Ok(Records::new(self.raw()?))
    }

    /// The records from `from_seq` on, also those that are yet to come; example: [`Follower`]. Does not block: it finds the
    /// place by halving, without reading what is before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged manifest, [`Error::Io`]. Where `from_seq` is compacted away,
    /// the follower's first answer says so.
    pub fn follow(&self, from_seq: u64) -> Result<Follower<P>> {
        let mut watch = self.watch().again();
        let records = RawRecords::from(&self.dir, from_seq, watch.end())?;
        Ok(Follower::new(watch, records))
    }

    /// The state that the store's issue events lead to, as of the present watermark; see [`LiveIssues`].
    ///
    /// # Errors
    /// As [`LiveIssues::open`].
    pub fn snapshot(&self) -> Result<LiveIssues> {
        LiveIssues::in_dir(&self.dir)
    }

    /// Checks every record through the present watermark without decoding it: form, checksum and number.
    /// Returns how many there are. Holds one line in memory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place of the first damage, [`Error::Io`], and [`Error::Compacted`]
    /// as for [`Reader::read`].
    pub fn verify(&self) -> Result<u64> {
        let mut records = self.raw()?;
        let mut count = 0;
        while records.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn raw(&self) -> Result<RawRecords> {
        let first_seq = Manifest::required(&self.dir)?.first_seq;
        Ok(RawRecords::new(&self.dir, first_seq, self.watch().end()))
    }

    /// The watermark: every record through it is durable. `None` where no hints can be trusted.
    #[must_use]
    pub fn durable_seq(&self) -> Option<u64> {
        self.watch().durable_seq()
    }

    fn watch(&self) -> MutexGuard<'_, DurableWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
