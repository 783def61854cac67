//! What `check` and `repair` find in damaged files.

pub(crate) mod find;
pub(crate) mod ranges;
pub(crate) mod scan;
