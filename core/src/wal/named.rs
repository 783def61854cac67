//! Checks that the files that are open here are still the ones that other processes find by name.
//!
//! A lock excludes only those who take it on the same file. If a program removes `lock`, or puts
//! another file in its place, the next process takes its lock on that one, while an earlier holder
//! goes on. Two rules keep the log whole:
//!
//! - Who takes the lock on a file that is new, or a copy, first [shuts out](become_sole_holder) all
//!   who may hold another one: it replaces the last segment by a copy, and the page of hints by a
//!   new one. What they write from then on ends in files that have no name.
//! - Who has written a record looks before it publishes it whether its lock and its segment still
//!   have their names. If so, whoever takes another lock later finds the record in the segment, and
//!   copies it.
//!
//! So an acknowledged record is in the segment that has the name.
//!
//! A lock can be removed between the look at it and the rename for which it stands. So the holder
//! of the next lock begins by removing the files that others have prepared: a rename that comes
//! later fails, and one that came before is what that holder finds. So a new segment gets its name
//! by a rename, too. See "Files that others remove" in `docs/DESIGN.md`.

use std::sync::{Mutex, PoisonError};

use crate::{
    env::{
        storage::OpenMode,
        system::{HeldLock, StoreLock},
    },
    error::{Error, Result},
    format::record::segment_name,
    wal::{
        manifest::Manifest,
        shm::{Hints, SHM, ShmView},
        store_dir::{StoreDir, replaced},
    },
};

/// The lock file of writers.
pub(crate) const LOCK: &str = "lock";

pub(crate) type Identity = (u64, u64);

/// What is open here, as it was when all of it had its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Of the directory: while it is the same, no name changes.
    stamp: u64,
    open: OpenFiles,
}

/// The files that a writer has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    pub(crate) lock: Identity,
    /// `None` where memory is not shared.
    pub(crate) page: Option<Identity>,
    pub(crate) segment: Option<(u64, Identity)>,
}

/// Which open files are not the ones that others find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) lock: bool,
    pub(crate) page: bool,
    pub(crate) segment: bool,
}

/// What was seen last, so that it is not looked for again while no name has changed.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Names mean nothing where inodes are not stable: on filesystems that are allowed at the
    /// caller's risk.
    ignored: bool,
    seen: Mutex<Option<Standing>>,
}

impl Names {
    pub(crate) fn new(ignored: bool) -> Self {
        let seen = Mutex::default();
        Self { ignored, seen }
    }

    pub(crate) fn are_ignored(&self) -> bool {
        self.ignored
    }

    /// Looks which of the open files have lost their names. Costs one system call while no name has
    /// changed in the directory.
    pub(crate) fn lost(&self, dir: &StoreDir, open: OpenFiles) -> Result<Lost> {
        if self.ignored {
            return Ok(Lost::default());
        }
        // Before the names: one that changes behind this gives another stamp.
        let stamp = dir.stamp()?;
        let now = stamp.map(|stamp| Standing { stamp, open });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && *seen == now {
            return Ok(Lost::default());
        }
        let is_lost = |name: &str, identity: Identity| {
            let named = dir.identity_of(name)?;
            Ok::<_, Error>(named != Some(identity))
        };
        let page = open.page.map(|page| is_lost(SHM, page)).transpose()?;
        let segment = open
            .segment
            .map(|(first_seq, segment)| is_lost(&segment_name(first_seq), segment));
        let lost = Lost {
            lock: is_lost(LOCK, open.lock)?,
            page: page.unwrap_or(false),
            segment: segment.transpose()?.unwrap_or(false),
        };
        *seen = now.filter(|_| lost == Lost::default());
        Ok(lost)
    }
}

/// Checks that a held lock is the one that others find.
///
/// # Errors
/// [`Error::StoreReplaced`], [`Error::Io`].
pub(crate) fn require_named(dir: &StoreDir, name: &str, lock: &dyn StoreLock) -> Result<()> {
    if dir.identity_of(name)? == Some(lock.identity()) {
        return Ok(());
    }
    Err(replaced(&dir.path_of(name)))
}

/// Sees to it that only the holder of `lock` can change the log: if the lock file is new here, or a
/// copy, it [shuts out](shut_out) whoever may hold another one.
///
/// # Errors
/// [`Error::StoreReplaced`], [`Error::Io`]: the log is as before.
pub(crate) fn become_sole_holder(
    dir: &StoreDir,
    lock: &dyn StoreLock,
    guard: &dyn HeldLock,
) -> Result<()> {
    if !guard.is_known() {
        shut_out(dir, lock).or_else(|error| require_named(dir, LOCK, lock).and(Err(error)))?;
        guard.mark_known();
    }
    Ok(())
}

/// Replaces the files that the holder of another lock file may have open.
///
/// The segment comes first: what was published before is in the copy. The copies that others made
/// go before it: one of them may have looked at the lock in time, and be about to rename its copy.
fn shut_out(dir: &StoreDir, lock: &dyn StoreLock) -> Result<()> {
    dir.remove_new_segments()?;
    if let Some(last) = dir.segments()?.pop() {
        let name = segment_name(last);
        dir.replace_file(
            &name,
            |new| {
                // Closed before the rename: not every system can replace a file that is open.
                let old = dir.open(&name, OpenMode::Read)?;
                old.chunks(0..u64::MAX, |offset, bytes| new.write(bytes, offset))
            },
            || require_named(dir, LOCK, lock),
        )?;
    }
    // The durable number outlives the page.
    let store = Manifest::read(dir)
        .ok()
        .flatten()
        .map(|manifest| manifest.store);
    let view = store.as_ref().and_then(|store| ShmView::open(dir, store));
    let durable_seq = view.and_then(|view| view.durable_seq_of_store());
    require_named(dir, LOCK, lock)?;
    dir.remove(SHM)?;
    if let (Some(store), Some(seq)) = (store, durable_seq)
        && let Ok(hints) = Hints::shared(dir, &store)
    {
        hints.inherit(seq);
    }
    Ok(())
}
