//! The log: appending, group commit, recovery, reading. Knows nothing of issues.
//!
//! Each file may use those before it:
//!
//! - `store_dir`, `manifest`, `shm`, `segment`: what is on the disk and in shared memory
//! - `slots`: records that wait in shared memory
//! - `named`, `writer`, `recovery`, `round`, `gather`, `append`, `group_commit`, `obsolete`:
//!   changes to it, most of them under the lock, as methods of [`writer::Locked`]
//! - `durable`, `cursor`, `follower`, `reader`: reading, without the lock
//! - `raw_log`, `log`: a log without and with the type of its payload

pub(crate) mod append;
pub(crate) mod cursor;
pub(crate) mod durable;
pub(crate) mod follower;
pub(crate) mod gather;
pub(crate) mod group_commit;
pub(crate) mod log;
pub(crate) mod manifest;
pub(crate) mod named;
pub(crate) mod obsolete;
pub(crate) mod raw_log;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod round;
pub(crate) mod segment;
pub(crate) mod shm;
pub(crate) mod slots;
pub(crate) mod store_dir;
pub(crate) mod writer;
