use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    env::storage::{Disk, Storage, open_if_there},
    error::{Error, Result},
    format::record::{segment_name, snapshot_seq},
    issues::event::IssueEvent,
    state::live::LiveIssues,
    wal::{
        cursor::{RawRecords, Records, segments},
        durable::DurableWatch,
        follower::Follower,
        manifest::{Manifest, manifest_missing},
        payload::Payload,
    },
};

/// Reads a store: takes no lock, writes nothing, needs no permission to write, and never waits for a writer. // I3
///
/// What it sees is a prefix of the one order of all records, which ends at the watermark: a record
/// is seen when it is durable. Where the store's volatile hints are missing (after a reboot, in a
/// copy), it ends at the last whole record.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Reader};
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", 1_706_540_000_123), 1_706_540_000_123))?;
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
    storage: Arc<dyn Storage>,
    dir: PathBuf,
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
        Self::in_storage(Arc::new(Disk), dir.as_ref())
    }

    pub(crate) fn in_storage(storage: Arc<dyn Storage>, dir: &Path) -> Result<Self> {
        let watch = open_durable_watch(&storage, dir)?;
        Ok(Self {
            storage,
            dir: dir.to_owned(),
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
        let storage = Arc::clone(&self.storage);
        let records = RawRecords::from(storage, &self.dir, from_seq, watch.end())?;
        Ok(Follower::new(watch, records))
    }

    /// The state that the store's issue events lead to, as of the present watermark; see [`LiveIssues`].
    ///
    /// # Errors
    /// As [`LiveIssues::open`].
    pub fn snapshot(&self) -> Result<LiveIssues> {
        LiveIssues::in_storage(&self.storage, &self.dir)
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
        let first_seq = Manifest::required(self.storage.as_ref(), &self.dir)?.first_seq;
        let end = self.watch().end();
        let storage = Arc::clone(&self.storage);
        Ok(RawRecords::new(storage, &self.dir, first_seq, end))
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

/// Makes sure that there is a store in `dir`.
pub(crate) fn open_durable_watch(storage: &Arc<dyn Storage>, dir: &Path) -> Result<DurableWatch> {
    require_directory(storage.as_ref(), dir)?;
    let mut manifest = Manifest::read(storage.as_ref(), dir)?;
    if manifest.is_none() {
        if is_new(storage.as_ref(), dir)? {
            return Err(Error::NoStore {
                path: dir.to_owned(),
            });
        }
        // It may have been created in between, and records appended.
        manifest = Manifest::read(storage.as_ref(), dir)?;
    }
    match manifest {
        Some(manifest) => Ok(DurableWatch::open(storage, dir, &manifest.store)),
        None => Err(manifest_missing(dir)),
    }
}

/// Whether a directory without manifest holds no store yet: nothing, or what a creation begins with, which is
/// an empty first segment.
pub(crate) fn is_new(storage: &dyn Storage, dir: &Path) -> Result<bool> {
    let names = storage.list(dir).map_err(Error::io("list", dir))?;
    if names.iter().any(|name| snapshot_seq(name).is_some()) {
        return Ok(false);
    }
    match segments(storage, dir)?.as_slice() {
        [] => Ok(true),
        [1] => {
            let path = dir.join(segment_name(1));
            match open_if_there(storage, &path)? {
                None => Ok(true),
                Some(file) => {
                    let len = file.len_bytes().map_err(Error::io("examine", &path))?;
                    Ok(len == 0)
                }
            }
        }
        _ => Ok(false),
    }
}

pub(crate) fn require_directory(storage: &dyn Storage, dir: &Path) -> Result<()> {
    match storage.is_dir(dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotADirectory {
            path: dir.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::MissingDirectory {
            path: dir.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::NotADirectory {
            path: dir.to_owned(),
        }),
        Err(error) => Err(Error::io("examine", dir)(error)),
    }
}
