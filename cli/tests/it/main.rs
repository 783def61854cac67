//! Runs the real `strand`: every command, every exit status, input and output, and several
//! processes at once.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on should panic"
)]

mod archive;
mod care;
mod change;
mod etcd;
mod events;
mod exit;
mod foreign;
mod generated;
mod git;
mod habits;
mod issues;
mod merge;
mod mirror;
mod misinput;
mod pipes;
mod place;
mod streams;
mod support;
#[cfg(unix)]
mod terminal;
mod tools;
#[cfg(unix)]
mod users;
mod waiting;
