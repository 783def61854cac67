//! The simulation: a disk that knows what a power loss may leave of it, and machines on it.
//!
//! [`disk`] and [`crash`] are the disk, a pure data structure. [`machine`] has processes that share
//! one, and decides which of them goes on; [`process`] is what each of them sees of it. [`solo`] is
//! a machine for one process, which is faster and remembers every moment. [`oracle`] judges what is
//! left.

pub mod crash;
pub mod disk;
pub mod image;
pub mod machine;
pub mod oracle;
pub mod page;
pub mod process;
pub mod solo;

/// So much of the log a block of an index covers. The logs of the tiers are short, and have indexes
/// all the same.
pub(crate) const INDEX_BLOCK_BYTES: u64 = 128;

/// The time of day when a machine starts, in milliseconds since 1970.
pub const START_MS: i64 = 1_706_540_000_000;
