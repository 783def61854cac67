//! What a store stands on: its files, and what it needs of the machine beside them (locks, shared memory, time, chance),
//! as traits; and the steps of the protocol, at which it can be watched.
//!
//! Not needed to use a store. It is for tests that make something fail or die at some step, for simulations of a machine,
//! and for programs that stand between a log and its machine: the command `strand` does, to say for whom it waits.
//!
//! [`Options::storage`](crate::Options::storage) takes a [`Storage`], whose [`Host`] opens the locks and the shared page;
//! [`Options::failpoint_hook`](crate::Options::failpoint_hook) takes a [`FailpointHook`]. Each of the three has an example. [`doctor_in`],
//! [`Reader::open_in`](crate::Reader::open_in) and [`LiveIssues::open_in`](crate::LiveIssues::open_in) read from a [`Storage`].

pub use crate::{
    check::doctor_in,
    env::{
        failpoint::{Failpoint, FailpointHook},
        storage::{Disk, OpenMode, Storage, StorageFile},
        system::{HeldLock, Host, Page, PageView, StoreLock, ThisMachine},
    },
};
pub use strand_lock::{LockState, PageError};
