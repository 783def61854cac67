//! What the log needs of its machine: files, locks, shared memory, clock; and the failpoints.

pub(crate) mod failpoint;
pub(crate) mod storage;
pub(crate) mod system;
