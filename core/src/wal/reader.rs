use std::{
    marker::PhantomData,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, Result},
    format::{payload::Payload, seq::Seq},
    wal::{
        cursor::{RawRecords, Record, Records},
        durable::DurableWatch,
        follower::Follower,
        log::some_record,
        manifest::Manifest,
        store_dir::StoreDir,
    },
};

/// Reads a log. Takes no lock, writes nothing, needs no permission to write, and never waits for a
/// writer. // I3
///
/// It sees the records in their one order, through the last durable one. Where the shared hints are
/// missing (after a reboot, in a copy), it reads through the last whole record.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Reader, Seq, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
///
/// let reader = Reader::<IssueEvent>::open(dir.path())?;
/// assert_eq!((reader.durable_seq()?, reader.verify()?), (Some(Seq::new(1)), 1));
/// for record in reader.records()? {
///     let record = record?;
///     println!("{} {:?}", record.seq, record.events);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader<P: Payload> {
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
        Self::in_dir(StoreDir::on_disk(dir.as_ref())?)
    }

    pub(crate) fn in_dir(dir: StoreDir) -> Result<Self> {
        let watch = DurableWatch::open_store(&dir)?;
        Ok(Self {
            dir,
            watch: Mutex::new(watch),
            payload: PhantomData,
        })
    }

    /// The records behind the live snapshot, through the last durable one: all records, if the
    /// store was never compacted. Each call looks at the manifest and the hints again. The iterator
    /// ends after an error, takes no lock, does not block, and holds one line in memory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged manifest, [`Error::Io`]. Each record can be an error, too:
    /// [`Error::Corrupt`], [`Error::Io`], and [`Error::Compacted`] if a compaction removes the rest
    /// of them meanwhile.
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record<P>>> + use<P>> {
        Ok(Records::new(self.raw()?))
    }

    /// The records from `from_seq` on, future ones included; example: [`Follower`]. Does not block:
    /// a binary search finds the first record, without reading those before it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged manifest, [`Error::Io`]. If `from_seq` was compacted away,
    /// the follower's first call says so.
    pub fn follow(&self, from_seq: Seq) -> Result<Follower<P>> {
        let mut watch = self.watch().again();
        let records = RawRecords::from(&self.dir, from_seq.get(), watch.end())?;
        Ok(Follower::new(watch, records))
    }

    /// The records that are written from now on; example: [`Follower`]. Does not block, but where
    /// no hints can be trusted (see [`Reader::durable_seq`]), it reads all records first.
    ///
    /// # Errors
    /// As [`Reader::records`].
    pub fn follow_new(&self) -> Result<Follower<P>> {
        match self.durable_seq() {
            Err(Error::DurableSeqUnknown { .. }) => {
                let mut records = self.raw()?;
                while records.next()?.is_some() {}
                Ok(Follower::new(self.watch().again(), records))
            }
            known => self.follow(known?.unwrap_or_default().next()),
        }
    }

    /// Checks the form, the checksum and the number of every record that [`Reader::records`] would
    /// read, and returns how many there are. Decodes no payload, and holds one line in memory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place of the first damage, [`Error::Io`], and
    /// [`Error::Compacted`] as for [`Reader::records`].
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

    /// The last durable record; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Error::DurableSeqUnknown`] where no hints can be trusted (after a reboot, in a copy).
    pub fn durable_seq(&self) -> Result<Option<Seq>> {
        let seq = self.watch().durable_seq();
        let unknown = || Error::DurableSeqUnknown {
            path: self.dir.path().to_owned(),
        };
        seq.map(some_record).ok_or_else(unknown)
    }

    fn watch(&self) -> MutexGuard<'_, DurableWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
