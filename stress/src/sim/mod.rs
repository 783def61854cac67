//! The simulation: a disk that knows what a loss of power may leave on it, and what is built on it.
//!
//! [`disk`] is a pure data structure. [`machine`] has processes that share one, and who of them goes on; [`process`] is what each of them
//! sees of it.

pub mod disk;
pub mod machine;
pub mod process;
