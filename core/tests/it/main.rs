//! One binary for all integration tests; the modules are the areas.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on should panic"
)]

mod append;
mod bad_input;
mod check;
mod classify;
mod commit;
mod compact;
mod conditions;
mod damage;
mod directory;
mod examples;
mod failed_sync;
mod fold;
mod follow;
#[cfg(target_os = "linux")]
mod full_disk;
mod gather;
mod golden;
mod identity;
mod jsonl;
mod lock_wait;
mod machine;
mod merge;
mod open_files;
mod overlap;
mod points;
mod processes;
mod recent;
mod recover;
mod repair;
mod runs;
#[cfg(target_os = "linux")]
mod slots;
mod state;
mod support;
mod words;
