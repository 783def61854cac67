//! The simulation: a disk that knows what a loss of power may leave on it, and what is built on it.
//!
//! [`disk`] is a pure data structure. [`machine`] has processes that share one, and who of them goes on; [`process`] is what each of them
//! sees of it. [`solo`] is a machine for one process, which is faster and remembers every moment. [`oracle`] judges what is left.

pub mod disk;
pub mod machine;
pub mod memory;
pub mod oracle;
pub mod process;
pub mod solo;
