//! The bytes of a log, without I/O. `docs/FORMAT.md` describes them.

pub(crate) mod i_json;
pub(crate) mod lines;
pub(crate) mod members;
pub(crate) mod payload;
pub(crate) mod record;
pub(crate) mod resync;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod seq;
