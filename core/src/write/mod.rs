//! Writes under conditions.

pub(crate) mod batch;
