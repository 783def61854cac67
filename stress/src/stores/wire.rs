//! The protocol between the harness and the agents of any store: one JSON object a line.
//! docs/STORES.md describes it.

use serde::{Deserialize, Serialize};

use crate::stores::spec::Format;

/// The version of the protocol.
pub(super) const VERSION: u32 = 1;

/// A request, on the agent's standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(super) enum Request {
    /// The first one.
    Hello {
        version: u32,
        store: String,
        agent: String,
    },
    Init,
    Append {
        token: String,
        payload: String,
    },
    /// All of these, or none.
    Batch {
        writes: Vec<Write>,
    },
    Claim {
        item: String,
        agent: String,
    },
    List,
    /// The answers to this do not end: each has the items that are new.
    Follow {
        #[serde(default)]
        from: u64,
    },
    Show {
        item: String,
    },
    Get {
        item: String,
    },
    Set {
        item: String,
        old: String,
        new: String,
    },
    Export {
        path: String,
    },
}

/// A write of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Write {
    pub(super) token: String,
    pub(super) payload: String,
}

/// The answer, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub(super) enum Reply {
    Ok(Done),
    Refused {
        #[serde(default)]
        error: String,
    },
    Fail {
        #[serde(default)]
        error: String,
    },
    Info {
        #[serde(default)]
        error: String,
    },
}

/// Everything that a success can have with it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    /// After `append`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<String>,
    /// After `list` and `follow`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) items: Vec<Listed>,
    /// After `show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// After `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// After `hello`: what the store can do beside `append` and `list`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) can: Vec<Ability>,
    /// After `hello`: the program's name and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
}

/// A thing that a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ability {
    Claim,
    Show,
    /// `get` reads an item, and `set` changes it if it is still as it was read.
    Set,
    /// `batch` stores all of its writes or none.
    Batch,
    /// `follow` shows all writes from the first one on, each once, in the order of the list.
    Follow,
    /// `follow` begins with the write `from`, counted from 1.
    Resume,
    /// A write that is made again with its token is stored once.
    Idempotent,
    /// Writes JSON lines to `path`, which is whole whenever it is there.
    Export,
    /// `append` gives a receipt that no other write gets.
    Receipts,
    /// `list` is in the order of the writes.
    Ordered,
    /// `list` has numbers without gaps.
    Numbers,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u64>,
}

/// The form of an export.
pub(super) const EXPORT_FORMAT: Format = Format::Jsonl;
