//! Finds everything in damaged files, for `check` and `repair`.

pub(crate) mod find;
pub(crate) mod ranges;
pub(crate) mod scan;
