//! A filesystem that loses what was not synced, when it is told to: for tests that cut the power under real
//! processes.
//!
//! [`model`] is what it stores and what remains of that, without I/O and on every system; [`mount`] serves it to
//! the kernel through `/dev/fuse`, on Linux.

pub mod model;
#[cfg(target_os = "linux")]
pub mod mount;
