//! A log without the type of its payload.

use std::sync::{Arc, Mutex};

use strand_lock::{FilesystemKind, PageError, is_lock_content};

use crate::{
    env::system::StoreLock,
    error::{Error, Result},
    format::record::EncodedPayload,
    options::Options,
    telemetry,
    wal::{
        cursor::RawRecords,
        durable::End,
        gather::new_writer_id,
        manifest::Manifest,
        named::{LOCK, Names, become_sole_holder, require_named},
        obsolete::COMPACT_LOCK,
        recovery::Recovery,
        round::LeadTokens,
        segment::OpenSegment,
        shm::{Hints, SHM, Shm, is_page_content},
        store_dir::StoreDir,
        writer::{Locked, Writer, not_writable, page_error, reopen, retry_replaced, wait_for},
    },
};

/// How often the hints are looked at anew because they were deleted meanwhile.
const LOOKS_MAX: u32 = 3;

pub(crate) struct RawLog {
    pub(crate) writer: Writer,
    pub(crate) recovery: Recovery,
}

impl RawLog {
    pub(crate) fn open(dir: &StoreDir, options: &Options) -> Result<Self> {
        retry_replaced(
            || Self::open_once(dir, options.clone()),
            Error::is_displacement,
        )
    }

    fn open_once(dir: &StoreDir, options: Options) -> Result<Self> {
        let shared = memory_can_be_shared(dir, &options)?;
        // Refuse a newer store, and files of others, before anything is created in the directory.
        if Manifest::read(dir)?.is_none() {
            require_room(dir)?;
        }
        let lock: Arc<dyn StoreLock> = dir.open_lock(LOCK).map_err(not_writable)?.into();
        let names = Names::new(!shared && !is_local(dir)?);
        let mut guard = wait_for(lock.as_ref(), dir.host(), &options)?;
        while !names.are_ignored() && dir.identity_of(LOCK)? != Some(lock.identity()) {
            drop(guard);
            reopen(dir, lock.as_ref())?;
            guard = wait_for(lock.as_ref(), dir.host(), &options)?;
        }
        if !names.are_ignored() {
            become_sole_holder(dir, lock.as_ref(), guard.as_ref())?;
        }
        let manifest = match Manifest::read(dir)? {
            Some(manifest) => manifest,
            None => Manifest::create(dir, || {
                if names.are_ignored() {
                    return Ok(());
                }
                require_named(dir, LOCK, lock.as_ref())
            })?,
        };
        let writer = Writer {
            dir: dir.clone(),
            options,
            lock: Arc::clone(&lock),
            shm: Shm::open(dir, &manifest.store, shared).map_err(page_error)?,
            segment: OpenSegment::new(dir),
            names,
            line: Mutex::default(),
            syncing: Mutex::default(),
            tokens: LeadTokens::new(dir.host()),
            id: new_writer_id(),
        };
        let locked = Locked::opening(&writer, guard);
        let recovery = locked.validate_on_open()?;
        locked.unlock()?;
        writer.remove_orphans(&manifest)?;
        Ok(Self { writer, recovery })
    }

    /// Appends one record, as durable as the options ask; returns its number.
    pub(crate) fn append(&self, payload: &EncodedPayload) -> Result<u64> {
        payload.check_len()?;
        let append = || {
            self.writer.note_begin();
            let locked = match self.writer.lock_unless_busy()? {
                Some(locked) => locked,
                None => match self.writer.append_through_slot(payload)? {
                    Some(seq) => return Ok(seq),
                    None => self.writer.lock()?,
                },
            };
            let seq = locked.append(payload)?;
            locked.sync_unless_shared(seq)?;
            locked.unlock()?;
            self.writer.acknowledge(seq)?;
            Ok(seq)
        };
        telemetry::append(self.writer.dir.path())
            .within(|| retry_replaced(append, Error::is_displacement))
    }

    /// The value of `word` in the hints that all processes use now. Deleted hints would say
    /// for ever what they said then, while writers go on in the next ones.
    pub(crate) fn look(&self, word: fn(&Hints) -> Option<u64>) -> Result<u64> {
        let mut hints = None;
        for _ in 0..LOOKS_MAX {
            if let Some(value) = self.look_once(word)? {
                return Ok(value);
            }
            hints = Some(self.writer.validated_hints()?);
        }
        // They were valid under the lock just now.
        let value = hints.and_then(|hints| word(&hints));
        Ok(value.unwrap_or_else(|| self.glance(word)))
    }

    /// As [`RawLog::look`], but `None` where the hints have to be validated first. Costs one system
    /// call while no name in the directory changes.
    fn look_once(&self, word: fn(&Hints) -> Option<u64>) -> Result<Option<u64>> {
        let hints = self.writer.hints();
        if hints.is_lost() || self.writer.lost(&hints)?.page {
            return Ok(None);
        }
        Ok(word(&hints))
    }

    /// The value of `word` in the hints that are mapped here. Others may have gone on in the next
    /// ones. 0 where they are cut short.
    pub(crate) fn glance(&self, word: fn(&Hints) -> Option<u64>) -> u64 {
        let hints = self.writer.hints();
        match hints.check() {
            Ok(()) | Err(PageError::Deleted { .. }) => word(&hints).unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// The live records through this one.
    pub(crate) fn records(&self, through_seq: u64) -> Result<RawRecords> {
        let first_seq = self.writer.manifest()?.first_seq;
        let hints = self.writer.hints();
        let end = if hints.is_shared() {
            End::Seq(through_seq)
        } else {
            // Hints of this process alone do not say how far the others have come.
            End::LastValid(hints.durable_seq().unwrap_or(0))
        };
        Ok(RawRecords::new(&self.writer.dir, first_seq, end))
    }
}

/// Checks that a new store would overwrite no file of somebody else.
///
/// # Errors
/// [`Error::ForeignFile`], [`Error::Io`].
fn require_room(dir: &StoreDir) -> Result<()> {
    let found = (|| {
        dir.require_ours(LOCK, is_lock_content)?;
        dir.require_ours(COMPACT_LOCK, is_lock_content)?;
        dir.require_ours(SHM, is_page_content)
    })();
    match found {
        // Another process has made a store meanwhile, and is writing these files.
        Err(Error::ForeignFile { .. }) if Manifest::read(dir)?.is_some() => Ok(()),
        found => found,
    }
}

/// Whether processes can share memory there.
///
/// # Errors
/// [`Error::UnsafeFilesystem`] where the store must not be.
pub(crate) fn memory_can_be_shared(dir: &StoreDir, options: &Options) -> Result<bool> {
    if let Some(shared) = shares_memory(dir.filesystem_kind()?, options) {
        return Ok(shared);
    }
    let filesystem = dir.filesystem();
    Err(Error::UnsafeFilesystem {
        path: dir.path().to_owned(),
        filesystem: filesystem.map_err(Error::io("examine", dir.path()))?,
    })
}

/// `None` to refuse a store on such a filesystem.
pub(crate) fn is_local(dir: &StoreDir) -> Result<bool> {
    Ok(dir.filesystem_kind()? == FilesystemKind::Local)
}

fn shares_memory(kind: FilesystemKind, options: &Options) -> Option<bool> {
    match kind {
        FilesystemKind::Local => Some(options.share_memory),
        _ => options.allow_unsafe_filesystem.then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_that_others_reach_are_refused_unless_the_caller_insists() {
        let careful = Options::default();
        let insists = Options::default().allow_unsafe_filesystem(true);
        assert_eq!(shares_memory(FilesystemKind::Local, &careful), Some(true));
        for kind in [FilesystemKind::Network, FilesystemKind::UnknownFuse] {
            assert_eq!(shares_memory(kind, &careful), None);
            assert_eq!(shares_memory(kind, &insists), Some(false));
        }
        let alone = Options::default().share_memory(false);
        assert_eq!(shares_memory(FilesystemKind::Local, &alone), Some(false));
    }
}
