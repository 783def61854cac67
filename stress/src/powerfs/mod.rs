//! A filesystem that loses what was not synced, on command: for tests that cut the power under real
//! processes.
//!
//! [`mount`] serves a [`VirtualDisk`](crate::sim::disk::VirtualDisk) to the kernel through
//! `/dev/fuse`, on Linux.

#[cfg(target_os = "linux")]
pub mod mount;
