//! Tests of `strand-lock` with threads, forked children and real processes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which may panic as tests do"
)]

mod child;
mod files;
mod filesystem;
#[cfg(unix)]
mod fork;
mod lock;
mod page;
mod processes;

use std::time::{Duration, Instant};

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A deadline that is meant to pass.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}
