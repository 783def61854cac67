//! A state that is kept up with the log: read once, then only what is new.

use std::{path::Path, sync::Arc};

use crate::{
    Error, IssueEvent, Result, Storage, Store,
    manifest::Manifest,
    pace::Pace,
    records::{End, RawRecords},
    snapshot_file,
};

/// How often a reader begins anew because a compaction took its files away. Each time, somebody has
/// done a whole compaction in between.
const ATTEMPTS: u32 = 100;

/// The fold of the log through some record, and the place to go on from.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) store: Store,
    records: RawRecords,
    storage: Arc<dyn Storage>,
    scratch: Vec<u8>,
    pace: Pace,
    /// From which record on it is time to forget what is too old.
    pub(crate) forgets_at_seq: u64,
}

impl Folded {
    /// Reads the snapshot and the records behind it, to where `end` says once the snapshot is read.
    pub(crate) fn load(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        mut end: impl FnMut() -> End,
    ) -> Result<Self> {
        let mut attempts = 0;
        loop {
            let manifest = Manifest::required(storage.as_ref(), dir)?;
            let loaded = Self::through(storage, dir, &manifest, Pace::HURRIED, &mut end);
            attempts += 1;
            match loaded {
                Ok(Some(folded)) => return Ok(folded),
                Ok(None) | Err(Error::Compacted { .. }) if attempts < ATTEMPTS => {}
                Ok(None) => {
                    let source = std::io::Error::other("compactions replaced it again and again");
                    return Err(Error::io("read", dir)(source));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the state through `end` from the files that this manifest names; `None` when its snapshot is gone.
    pub(crate) fn through(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        manifest: &Manifest,
        mut pace: Pace,
        end: impl FnOnce() -> End,
    ) -> Result<Option<Self>> {
        let Some(store) = snapshot_file::read(storage.as_ref(), dir, manifest, &mut pace)? else {
            return Ok(None);
        };
        let mut folded = Self {
            store,
            records: RawRecords::new(Arc::clone(storage), dir, manifest.first_seq, end()),
            storage: Arc::clone(storage),
            scratch: Vec::new(),
            pace,
            forgets_at_seq: 0,
        };
        folded.apply_all()?;
        Ok(Some(folded))
    }

    /// Applies what is new through `end`. Begins anew where that was compacted away.
    pub(crate) fn advance(&mut self, dir: &Path, end: End) -> Result<()> {
        self.records.resume(end);
        match self.apply_all() {
            Err(Error::Compacted { .. }) => {
                let storage = Arc::clone(&self.storage);
                *self = Self::load(&storage, dir, || end)?;
                Ok(())
            }
            applied => applied,
        }
    }

    fn apply_all(&mut self) -> Result<()> {
        while let Some(record) = self.records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            self.pace.did(record.text.len());
            let events = record.line.body.decode::<IssueEvent>(&mut self.scratch);
            let applied = events.map(|events| self.store.apply_record(seq, events));
            match applied {
                Ok(applied) => drop(applied.map_err(Error::InvalidEvent)?),
                Err(reason) => return Err(self.records.refuse(seq, offset, reason)),
            }
        }
        Ok(())
    }
}
