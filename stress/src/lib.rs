//! The stress harness of strand: real processes write to one log, some are killed, and an oracle
//! without tolerance judges the result.
//!
//! [`run()`] does one run and judges it. The evidence comes from independent sources: the answers
//! that the agents got ([`evidence::ledger`]), the bytes of all files, also of those that a
//! compaction has removed ([`evidence::stored`], [`run::archive`]), the times when the lock was
//! held ([`run::control`]), the records that followers got ([`evidence::observations`]), and the
//! states that readers saw. [`evidence::oracle::judge`] compares them. It is a pure function, with
//! a fold of the records ([`evidence::fold`]) and a check of conditions ([`evidence::workload`]) of
//! its own.

#![forbid(unsafe_code)]

pub mod commands;
pub mod evidence;
pub mod fuzz;
mod held;
pub mod interrupt;
mod panics;
pub mod powerfs;
mod random;
pub mod report;
pub mod run;
pub mod sim;
pub mod soak;
#[cfg(unix)]
pub mod stores;
pub mod tiers;

pub use commands::run::run;
pub use run::RunError;
