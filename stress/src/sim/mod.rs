//! The simulation: a disk that knows what a loss of power may leave on it, and what is built on it.
//!
//! [`disk`] is a pure data structure.

pub mod disk;
