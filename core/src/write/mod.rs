//! Writes under conditions.

pub(crate) mod batch;
pub(crate) mod issue_log;
