//! The issues of `strand` on [etcd](https://etcd.io), for agents on several machines.
//!
//! A directory serves the processes of one machine. [`EtcdLog`] has the same operations (append,
//! batch, compare and set, claim, idempotency keys, follow, compaction) on a cluster that keeps
//! every record on a majority of its members. Events, their fold, batches and the decision about
//! conditions are those of [`strand_core`]; programs that take both use [`open`] and
//! [`Backend`](strand_core::backend::Backend).
//!
//! The differences: numbers of records grow strictly, but with gaps. There are no writes, and no
//! reads, without a majority of the members. A record has at most [`PAYLOAD_BYTES_MAX`] bytes, and
//! names at most [`BATCH_ISSUES_MAX`] issues.
//!
//! The crate talks to etcd's JSON gateway, and needs no code generator and no async runtime. All
//! its calls block, with deadlines.
#![forbid(unsafe_code)]

mod address;
mod api;
mod checks;
mod cluster;
mod compaction;
mod error;
mod follow;
mod gateway;
mod keys;
mod log;
mod memory;
mod nonce;
mod options;
mod place;
mod plan;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;
mod view;

pub use address::Address;
pub use error::Problem;
pub use follow::EtcdFollower;
pub use log::{BATCH_ISSUES_MAX, EtcdLog, PAYLOAD_BYTES_MAX};
pub use options::Options;
pub use place::open;
