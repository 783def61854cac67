//! Writes under conditions, import and export.

pub mod backend;
pub(crate) mod batch;
pub(crate) mod conditions;
pub(crate) mod export;
pub(crate) mod ids;
pub(crate) mod import;
pub(crate) mod issue_log;
pub(crate) mod known;
pub(crate) mod mirror;
pub(crate) mod peer;
