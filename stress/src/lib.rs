//! Stress harness for strand: real processes that write to one log at the same time, some of them
//! killed, and an oracle that knows no tolerance.
//!
//! [`run`] does one run and judges it; the `strand-stress` binary is a thin shell around it.
//! The verdict is made from sources that do not know of each other: what the agents were told
//! ([`evidence::ledger`]), the bytes in the files ([`evidence::stored`]; also of those that a compaction has removed, [`run::archive`]),
//! the moments at which the lock was held ([`run::control`] and the intervals in the ledger), what
//! followers got ([`evidence::observations`]) and which states readers saw. [`evidence::oracle::judge`] puts them together and is a
//! pure function; what the records lead to, it knows from a fold of its own ([`evidence::fold`]), and which
//! conditions hold, from [`evidence::workload`].

#![forbid(unsafe_code)]

pub mod commands;
pub mod evidence;
pub mod fuzz;
mod panics;
pub mod powerfs;
mod random;
pub mod report;
pub mod run;
pub mod sim;
pub mod soak;
pub mod tiers;

pub use commands::run::run;
pub use run::RunError;
