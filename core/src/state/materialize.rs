//! A state that is kept up with the log: read once, then only new records.

use crate::{
    error::{Error, Result},
    format::seq::Seq,
    issues::timestamp::Timestamp,
    options::Options,
    state::{State, snapshot, throttle::Throttle},
    wal::{cursor::RawRecords, durable::End, manifest::Manifest, store_dir::StoreDir},
};

/// How often a load starts over because a compaction removed its files. Each time, a whole
/// compaction ran in between.
pub(crate) const ATTEMPTS: u32 = 100;

/// Reads something from the files that the manifest names. Starts over, with the manifest as it is
/// then, while `read` says [`Error::Compacted`] or `None`: the files are gone.
pub(crate) fn from_live_files<T>(
    dir: &StoreDir,
    mut read: impl FnMut(&Manifest) -> Result<Option<T>>,
) -> Result<T> {
    let mut attempts = 0;
    loop {
        let manifest = Manifest::required(dir)?;
        attempts += 1;
        match read(&manifest) {
            Ok(Some(read)) => return Ok(read),
            Ok(None) | Err(Error::Compacted { .. }) if attempts < ATTEMPTS => {}
            Ok(None) => {
                let source = std::io::Error::other("compactions replaced it again and again");
                return Err(Error::io("read", dir.path())(source));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The fewest records between two times that a state forgets what is too old.
const FORGET_EVERY: u64 = 4_096;

/// The state that the log leads to through some record, and the place to go on from.
#[derive(Debug)]
pub(crate) struct Materialized<S> {
    pub(crate) state: S,
    last_seq: u64,
    records: RawRecords,
    dir: StoreDir,
    scratch: Vec<u8>,
    throttle: Throttle,
    /// The first record behind the snapshot that was read.
    first_seq: u64,
    /// The record that it is time to forget at; 0 if the state was only just read.
    forgets_at_seq: u64,
}

impl<S: State> Materialized<S> {
    /// Reads the snapshot and the records behind it, to where `end` says once the snapshot is read.
    pub(crate) fn load(dir: &StoreDir, mut end: impl FnMut() -> End) -> Result<Self> {
        from_live_files(dir, |manifest| {
            Self::through(dir, manifest, Throttle::HURRIED, &mut end)
        })
    }

    /// Reads the state through `end` from the files that this manifest names; `None` if its
    /// snapshot is gone.
    pub(crate) fn through(
        dir: &StoreDir,
        manifest: &Manifest,
        mut throttle: Throttle,
        end: impl FnOnce() -> End,
    ) -> Result<Option<Self>> {
        let Some(state) = snapshot::read(dir, manifest, &mut throttle)? else {
            return Ok(None);
        };
        let mut loaded = Self {
            state,
            last_seq: manifest.first_seq - 1,
            records: RawRecords::new(dir, manifest.first_seq, end()),
            dir: dir.clone(),
            scratch: Vec::new(),
            throttle,
            first_seq: manifest.first_seq,
            forgets_at_seq: 0,
        };
        loaded.apply_all()?;
        Ok(Some(loaded))
    }

    /// The last record that the state reflects; 0 for none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Applies new records through `end`. Starts over if they were compacted away.
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

    /// Whether it is time to forget what is too old. A state that lives for long would otherwise
    /// remember every key and every deleted issue.
    pub(crate) fn is_due_to_forget(&self) -> bool {
        self.last_seq >= self.forgets_at_seq
    }

    /// Forgets what a compaction would forget now.
    pub(crate) fn forget(&mut self, options: &Options, now: Timestamp) {
        self.state.forget(
            Seq::new(self.last_seq).saturating_sub(options.idempotency_records),
            now.saturating_sub_ms(options.tombstone_ms),
        );
        self.has_forgotten();
    }

    /// Reads the snapshot of a compaction that came after this was read: it lacks what that
    /// compaction forgot.
    pub(crate) fn forget_as_compacted(&mut self, end: End) -> Result<()> {
        if self.forgets_at_seq > 0 && Manifest::required(&self.dir)?.first_seq != self.first_seq {
            let again = Self::load(&self.dir, || end)?;
            // Without hints, it may not reach as far.
            if again.last_seq >= self.last_seq {
                *self = again;
            }
        }
        self.has_forgotten();
        Ok(())
    }

    /// Forgetting goes through the whole state. So it is not due again before as many records as
    /// there are things to remember.
    fn has_forgotten(&mut self) {
        let remembered = match self.state.issue_totals() {
            Some([issues, tombstones, keys, _]) => issues + tombstones + keys,
            None => self.state.entries() as u64,
        };
        self.forgets_at_seq = self.last_seq + FORGET_EVERY.max(remembered);
    }

    fn apply_all(&mut self) -> Result<()> {
        while let Some(record) = self.records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            self.throttle.did(record.text.len());
            match record.line.body.decode(&mut self.scratch) {
                Ok(events) => self.state.apply(Seq::new(seq), events),
                Err(reason) => return Err(self.records.refuse(seq, offset, reason)),
            }
            self.last_seq = seq;
        }
        Ok(())
    }
}
