use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error, IssueEvent, Payload, Records, Result, Storage,
    hints::CommittedView,
    manifest::{Manifest, manifest_missing},
    records::{End, RawRecords, segments},
    storage::Disk,
};

/// Reads a store: takes no lock, writes nothing, and needs no permission to write. // I3
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
/// for record in reader.read()? {
///     let record = record?;
///     println!("{} {:?}", record.seq, record.events);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader<P: Payload = IssueEvent> {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    manifest: Manifest,
    committed: Option<CommittedView>,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> Reader<P> {
    /// Opens the store in `dir` for reading. Does not block.
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::MissingDirectory`], [`Error::NotADirectory`],
    /// [`Error::UnsupportedVersion`], [`Error::Corrupt`] for a damaged manifest, [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(Arc::new(Disk), dir.as_ref())
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, dir: &Path) -> Result<Self> {
        require_directory(dir)?;
        let Some(manifest) = Manifest::read(storage.as_ref(), dir)? else {
            return Err(if segments(storage.as_ref(), dir)?.is_empty() {
                Error::NoStore {
                    path: dir.to_owned(),
                }
            } else {
                manifest_missing(dir)
            });
        };
        let committed = CommittedView::open(dir, manifest.origin());
        Ok(Self {
            storage,
            dir: dir.to_owned(),
            manifest,
            committed,
            payload: PhantomData,
        })
    }

    /// All records through the present watermark. Each call looks at the watermark anew.
    ///
    /// # Errors
    /// None now; each record can be an error: [`Error::Corrupt`], [`Error::Io`].
    pub fn read(&self) -> Result<Records<P>> {
        Ok(Records::new(self.raw()))
    }

    /// Checks every record through the present watermark without decoding it: form, checksum and number.
    /// Returns how many there are. Holds one line in memory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place of the first damage, [`Error::Io`].
    pub fn verify(&self) -> Result<u64> {
        let mut records = self.raw();
        let mut count = 0;
        while records.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    pub(crate) fn raw(&self) -> RawRecords {
        let end = self.committed_seq().map_or(End::LastValid, End::Seq);
        RawRecords::new(
            Arc::clone(&self.storage),
            &self.dir,
            self.manifest.first_seq,
            end,
        )
    }

    /// The watermark: every record through it is durable. `None` where no hints can be trusted.
    #[must_use]
    pub fn committed_seq(&self) -> Option<u64> {
        self.committed.as_ref().and_then(CommittedView::committed)
    }
}

pub(crate) fn require_directory(dir: &Path) -> Result<()> {
    match dir.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotADirectory {
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
