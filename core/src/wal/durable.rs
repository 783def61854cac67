//! Watches how far the log is durable, without the lock.

use std::time::{Duration, Instant};

use crate::{
    env::{storage::OpenMode, system::Host},
    error::{Error, Result},
    format::record::segment_name,
    wal::{
        manifest::{Manifest, is_new, manifest_missing},
        segment::Segment,
        shm::{SHM, ShmView},
        store_dir::StoreDir,
    },
};

/// How long a follower sleeps where no writer can wake it.
const POLL: Duration = Duration::from_millis(20);
/// A mapped page is looked for anew after this time. On an overlay filesystem, one that was mapped
/// before the first writer came stays that of the lower layer, and nothing else shows it.
const REMAP_AFTER: Duration = Duration::from_secs(1);
/// How long it sleeps at most where one can: that may have died before it woke the followers.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Where a read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After this record. All through it must be there.
    Seq(u64),
    /// Where the good records end, since there is no better bound. All through this one were
    /// durable at some time, so these must be there.
    LastValid(u64),
    /// As `LastValid`, until the hints say how far the log is durable; then as `Seq`.
    Unknown(u64),
}

impl End {
    /// All records through this one must be there.
    pub(crate) fn durable_seq(self) -> u64 {
        let (Self::Seq(seq) | Self::LastValid(seq) | Self::Unknown(seq)) = self;
        seq
    }
}

/// The durable number in the store's hints. Opens their page again after it was not usable.
#[derive(Debug)]
pub(crate) struct DurableWatch {
    dir: StoreDir,
    store: String,
    /// When the page was mapped.
    mapped: Option<Instant>,
    view: Option<ShmView>,
    /// Of the directory, when the page had its name.
    stamp: Option<u64>,
}

impl DurableWatch {
    pub(crate) fn open(dir: &StoreDir, store: &str) -> Self {
        Self {
            dir: dir.clone(),
            store: store.to_owned(),
            mapped: None,
            view: None,
            stamp: None,
        }
    }

    /// As [`DurableWatch::open`], after checking that there is a store in `dir`.
    pub(crate) fn open_store(dir: &StoreDir) -> Result<Self> {
        let mut manifest = Manifest::read(dir)?;
        if manifest.is_none() {
            if is_new(dir)? {
                let path = dir.path().to_owned();
                return Err(Error::NoStore { path });
            }
            // It may have been created in between, and records appended.
            manifest = Manifest::read(dir)?;
        }
        match manifest {
            Some(manifest) => Ok(Self::open(dir, &manifest.store)),
            None => Err(manifest_missing(dir)),
        }
    }

    /// A second one for the same store.
    pub(crate) fn again(&self) -> Self {
        Self::open(&self.dir, &self.store)
    }

    /// Checks that the store is the one that was opened.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`], and those of reading the manifest.
    pub(crate) fn require_same(&self) -> Result<()> {
        Manifest::read(&self.dir).map(drop)
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.dir.host()
    }

    /// `None` if no hints can be trusted.
    pub(crate) fn durable_seq(&mut self) -> Option<u64> {
        let now = self.dir.host().now();
        let is_new = |mapped: Instant| now.saturating_duration_since(mapped) < REMAP_AFTER;
        if self.mapped.is_some_and(is_new) && self.page_is_named() {
            let durable_seq = self.view.as_ref().and_then(ShmView::durable_seq);
            if durable_seq.is_some() {
                return durable_seq;
            }
        }
        self.mapped = Some(now);
        // Before the page: its number only rises.
        let proven_seq = self.proven_seq().unwrap_or(0);
        self.stamp = None;
        self.view = ShmView::open(&self.dir, &self.store);
        let durable_seq = self.view.as_ref().and_then(ShmView::durable_seq);
        if durable_seq.is_some_and(|seq| seq < proven_seq) {
            self.view = None;
            return None;
        }
        durable_seq
    }

    /// Whether writers go on in the page that is mapped here: a program may have moved it away, or
    /// put another file in its place. Costs one system call while no name in the directory changes.
    fn page_is_named(&mut self) -> bool {
        let Some(view) = &self.view else {
            return false;
        };
        // Before the name: a change behind this gives another stamp.
        let stamp = self.dir.stamp().ok().flatten();
        if stamp.is_some() && stamp == self.stamp {
            return true;
        }
        let named = self.dir.identity_of(SHM).ok().flatten();
        let is_named = named == Some(view.file);
        self.stamp = stamp.filter(|_| is_named);
        is_named
    }

    /// Every record through this one is durable, according to the log itself.
    ///
    /// If the page says less, it is of an earlier moment: a snapshot of the volume was restored
    /// while the system ran, say. It would hide acknowledged records.
    fn proven_seq(&self) -> Result<u64> {
        let Some(last) = self.dir.segments()?.pop() else {
            return Ok(0);
        };
        let file = self
            .dir
            .open_if_there(&segment_name(last), OpenMode::Read)?;
        let header = match file {
            Some(file) => Segment::new(last, file).last_record()?,
            None => None,
        };
        // A segment begins once all before it is durable.
        Ok(header.map_or(0, |header| header.synced).max(last - 1))
    }

    /// The end of a read that begins now.
    pub(crate) fn end(&mut self) -> End {
        match (self.durable_seq(), &self.view) {
            (Some(seq), _) => End::Seq(seq),
            // The page is not valid now, but was this store's once.
            (None, Some(view)) => End::Unknown(view.durable_seq_of_store().unwrap_or(0)),
            (None, None) => End::Unknown(0),
        }
    }

    /// For [`DurableWatch::sleep`]. Read it before the state that decides whether to sleep.
    pub(crate) fn wake_count(&self) -> Option<u32> {
        let view = self.view.as_ref()?;
        view.durable_seq().map(|_| view.wake_count())
    }

    /// Sleeps until the durable number may have risen, for `time` at most.
    pub(crate) fn sleep(&self, wake_count: Option<u32>, time: Duration) {
        match (&self.view, wake_count) {
            (Some(view), Some(wake_count)) => view.sleep(wake_count, time.min(SLEEP_MAX)),
            _ => self.host().sleep(time.min(POLL)),
        }
    }
}
