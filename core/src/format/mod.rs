//! The bytes of a log, without I/O. See `docs/FORMAT.md`.

pub(crate) mod lines;
pub(crate) mod record;
pub(crate) mod resync;
pub(crate) mod scan;
pub(crate) mod seq;
