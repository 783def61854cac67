//! The evidence of a run: the answers of the log, the bytes that are stored, and the oracle that
//! compares them. Knows nothing of `strand-core`.

pub mod checks;
pub mod crc32c;
pub mod fold;
pub mod ids;
pub mod ledger;
pub mod listing;
pub mod observations;
pub mod oracle;
pub mod stored;
pub mod timeline;
pub mod verdict;
pub mod violation;
pub mod workload;
