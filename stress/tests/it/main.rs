//! The harness from outside: what must pass passes, and what must fail fails as documented.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

mod common;

mod agent;
mod command_line;
mod etcd;
mod fuzz;
mod kills;
mod misdeeds;
mod power_cuts;
#[cfg(target_os = "linux")]
mod powerfs;
mod report;
mod runs;
mod soak;
#[cfg(unix)]
mod stores;
mod torture;
mod watchdog;
