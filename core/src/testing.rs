//! Stand-ins for the machine under a store, and hooks into the steps of the protocol. Needs the
//! feature `testing`.
//!
//! You don't need this to use a store. It is for tests that make an operation fail or a process die
//! at a given step, and for simulations of a whole machine.
//!
//! - A [`Storage`] is where the files are. Its [`Host`] provides locks, shared memory, time and
//!   randomness. [`Options::storage`], [`Reader::open_in`], [`Live::open_in`],
//!   [`PointReader::open_in`] and [`check_in`] take one.
//! - [`classify`] judges the bytes of a segment, without a store.
//! - A [`FailpointHook`] is called at every [`Failpoint`]: [`Options::failpoint_hook`] takes one.

use std::{path::Path, sync::Arc};

use crate::{
    check::{self, CheckReport},
    error::Result,
    format::payload::Payload,
    options::{Callback, Options},
    state::{State, live::Live, point_reader::PointReader},
    wal::{reader::Reader, store_dir::StoreDir},
};

pub use crate::{
    env::{
        failpoint::{Failpoint, FailpointHook},
        storage::{Dir, Disk, OpenMode, Storage, StorageFile},
        system::{HeldLock, Host, Page, PageView, StoreLock, ThisMachine},
    },
    format::scan::{Tail, classify},
};
pub use strand_lock::PageError;

impl Options {
    /// Where the files are. Default: [`Disk`]. Example: [`Storage`].
    #[must_use]
    pub fn storage(self, storage: Arc<dyn Storage>) -> Self {
        Self { storage, ..self }
    }

    /// Called at every step of the protocol. Default: none. Example: [`FailpointHook`].
    #[must_use]
    pub fn failpoint_hook(self, hook: Arc<dyn FailpointHook>) -> Self {
        Self {
            failpoint_hook: Callback(Some(hook)),
            ..self
        }
    }
}

impl<P: Payload> Reader<P> {
    /// Like [`Reader::open`], on the files of `storage`. Example: [`Storage`].
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    pub fn open_in(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Self> {
        Self::in_dir(StoreDir::open_at(storage, dir)?)
    }
}

impl PointReader {
    /// Like [`PointReader::open`], on the files of `storage`. Example: [`Storage`].
    ///
    /// # Errors
    /// Those of [`PointReader::open`].
    pub fn open_in(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Self> {
        Self::in_dir(&StoreDir::open_at(storage, dir)?)
    }
}

impl<S: State> Live<S> {
    /// Like [`Live::open`], on the files of `storage`. Example: [`Storage`].
    ///
    /// # Errors
    /// Those of [`Live::open`].
    pub fn open_in(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Self> {
        Self::in_dir(&StoreDir::open_at(storage, dir)?)
    }
}

/// Like [`check`](check::check), on the files of `storage`. Example: [`Storage`].
///
/// # Errors
/// Those of [`check`](check::check).
pub fn check_in(storage: &Arc<dyn Storage>, dir: &Path) -> Result<CheckReport> {
    check::in_dir(&StoreDir::open_at(storage, dir)?)
}
