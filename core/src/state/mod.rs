//! State that is kept beside the log: snapshots, and the compaction that writes them.

pub(crate) mod compaction;
pub(crate) mod compactor;
pub(crate) mod live;
pub(crate) mod materialize;
pub(crate) mod snapshot;
pub(crate) mod throttle;
