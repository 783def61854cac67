//! The log: appending, group commit, recovery, reading. Knows nothing of issues.

pub(crate) mod cursor;
pub(crate) mod durable;
pub(crate) mod follower;
pub(crate) mod group_commit;
pub(crate) mod log;
pub(crate) mod manifest;
pub(crate) mod payload;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod shm;
pub(crate) mod store_dir;
pub(crate) mod writer;
