//! Issues, their events, and what these lead to. No I/O.

pub(crate) mod canonical_json;
pub(crate) mod drawn_twice;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod index;
pub(crate) mod issue;
#[expect(
    clippy::module_inception,
    reason = "the type `Issues` is what the folder is about"
)]
pub(crate) mod issues;
pub(crate) mod jsonl;
pub(crate) mod merge;
pub(crate) mod merge_fields;
pub(crate) mod merge_sides;
pub(crate) mod operation;
pub(crate) mod patch;
pub(crate) mod query;
pub(crate) mod timestamp;
pub(crate) mod transition;
pub(crate) mod version;
