//! The machine, as far as the log needs it: files, locks, shared memory, clock; and the failpoints.

pub(crate) mod failpoint;
pub(crate) mod share;
pub(crate) mod storage;
pub(crate) mod system;
