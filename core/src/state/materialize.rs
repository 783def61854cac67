//! A state that is kept up with the log: read once, then only what is new.

use crate::{
    error::{Error, Result},
    format::seq::Seq,
    issues::{event::IssueEvent, issues::Issues},
    state::{snapshot as snapshot_file, throttle::Throttle},
    wal::{cursor::RawRecords, durable::End, manifest::Manifest, store_dir::StoreDir},
};

/// How often a reader begins anew because a compaction took its files away. Each time, somebody has
/// done a whole compaction in between.
const ATTEMPTS: u32 = 100;

/// A state that is kept up forgets what is too old once in so many records, at most.
const FORGET_EVERY: u64 = 4_096;

/// The fold of the log through some record, and the place to go on from.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) store: Issues,
    records: RawRecords,
    dir: StoreDir,
    scratch: Vec<u8>,
    throttle: Throttle,
    /// The first record behind the snapshot that was read.
    first_seq: u64,
    /// From which record on it is time to forget what is too old; 0 when it was only just read.
    forgets_at_seq: u64,
}

impl Folded {
    /// Reads the snapshot and the records behind it, to where `end` says once the snapshot is read.
    pub(crate) fn load(dir: &StoreDir, mut end: impl FnMut() -> End) -> Result<Self> {
        let mut attempts = 0;
        loop {
            let manifest = Manifest::required(dir)?;
            let loaded = Self::through(dir, &manifest, Throttle::HURRIED, &mut end);
            attempts += 1;
            match loaded {
                Ok(Some(folded)) => return Ok(folded),
                Ok(None) | Err(Error::Compacted { .. }) if attempts < ATTEMPTS => {}
                Ok(None) => {
                    let source = std::io::Error::other("compactions replaced it again and again");
                    return Err(Error::io("read", dir.path())(source));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the state through `end` from the files that this manifest names; `None` when its snapshot is gone.
    pub(crate) fn through(
        dir: &StoreDir,
        manifest: &Manifest,
        mut throttle: Throttle,
        end: impl FnOnce() -> End,
    ) -> Result<Option<Self>> {
        let Some(store) = snapshot_file::read(dir, manifest, &mut throttle)? else {
            return Ok(None);
        };
        let mut folded = Self {
            store,
            records: RawRecords::new(dir, manifest.first_seq, end()),
            dir: dir.clone(),
            scratch: Vec::new(),
            throttle,
            first_seq: manifest.first_seq,
            forgets_at_seq: 0,
        };
        folded.apply_all()?;
        Ok(Some(folded))
    }

    /// Applies what is new through `end`. Begins anew where that was compacted away.
    pub(crate) fn advance(&mut self, end: End) -> Result<()> {
        self.records.resume(end);
        match self.apply_all() {
            Err(Error::Compacted { .. }) => {
                *self = Self::load(&self.dir, || end)?;
                Ok(())
            }
            applied => applied,
        }
    }

    /// Whether it is time to forget what is too old: now and then, since that goes through all that is known.
    pub(crate) fn is_due_to_forget(&self) -> bool {
        self.store.last_seq().get() >= self.forgets_at_seq
    }

    /// What was too old is forgotten: for as many records as are remembered now, nothing is.
    pub(crate) fn has_forgotten(&mut self) {
        let remembered = self.store.remembered() as u64;
        self.forgets_at_seq = self.store.last_seq().get() + FORGET_EVERY.max(remembered);
    }

    /// Begins anew where a compaction came after this was read: its snapshot lacks the keys and tombstones that it found too old.
    pub(crate) fn forget_as_compacted(&mut self, end: End) -> Result<()> {
        let compacted = || {
            let manifest = Manifest::required(&self.dir)?;
            Ok::<bool, Error>(manifest.first_seq != self.first_seq)
        };
        if self.forgets_at_seq > 0 && compacted()? {
            let anew = Self::load(&self.dir, || end)?;
            // Without hints, nobody knows how far it may read.
            if anew.store.last_seq() >= self.store.last_seq() {
                *self = anew;
            }
        }
        self.has_forgotten();
        Ok(())
    }

    fn apply_all(&mut self) -> Result<()> {
        while let Some(record) = self.records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            self.throttle.did(record.text.len());
            let events = record.line.body.decode::<IssueEvent>(&mut self.scratch);
            let applied = events.map(|events| self.store.apply_record(Seq::new(seq), events));
            match applied {
                Ok(applied) => drop(applied.map_err(Error::InvalidEvent)?),
                Err(reason) => return Err(self.records.refuse(seq, offset, reason)),
            }
        }
        Ok(())
    }
}
