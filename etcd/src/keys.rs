//! The keys of a store, and the values of the small ones. Pure.
//!
//! | key below `strand/1/<store>/` | value | changed by |
//! | --- | --- | --- |
//! | `meta` | [`Meta`]: which snapshot is live | `init`, a compaction |
//! | `epoch` | [`Epoch`] | a writer or a compaction that begins a new one |
//! | `r/<epoch>/<nonce>` | the payload of a record, whose number is the key's revision | a write, once |
//! | `v/<issue>` | nothing: its revision is that of the last record that names the issue | each write that names it |
//! | `k/<key>` | the nonce and the digest of the record that carries the idempotency key | a write, once |
//! | `s/<revision>/<n>` | a part of a snapshot | a compaction, once |

use serde::{Deserialize, Serialize};

/// Digits of an epoch in a key, so that keys sort like epochs.
const EPOCH_DIGITS: usize = 16;

/// The keys of one store.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(store: &str) -> Self {
        Self {
            prefix: format!("strand/1/{store}/"),
        }
    }

    fn key(&self, rest: impl AsRef<str>) -> Vec<u8> {
        format!("{}{}", self.prefix, rest.as_ref()).into_bytes()
    }

    pub(crate) fn meta(&self) -> Vec<u8> {
        self.key("meta")
    }

    pub(crate) fn epoch(&self) -> Vec<u8> {
        self.key("epoch")
    }

    pub(crate) fn record(&self, epoch: u64, nonce: &str) -> Vec<u8> {
        self.key(format!("r/{epoch:0EPOCH_DIGITS$}/{nonce}"))
    }

    /// Before all records of this epoch, and after all of earlier ones.
    pub(crate) fn records_from(&self, epoch: u64) -> Vec<u8> {
        self.key(format!("r/{epoch:0EPOCH_DIGITS$}/"))
    }

    pub(crate) fn records_end(&self) -> Vec<u8> {
        self.key("r0")
    }

    pub(crate) fn issue(&self, id: &str) -> Vec<u8> {
        self.key(format!("v/{id}"))
    }

    pub(crate) fn idempotency(&self, key: &str) -> Vec<u8> {
        self.key(format!("k/{key}"))
    }

    pub(crate) fn chunk(&self, revision: u64, n: usize) -> Vec<u8> {
        self.key(format!("s/{revision:020}/{n:08}"))
    }

    /// Before all parts of this snapshot, and after all of earlier ones.
    pub(crate) fn chunks_from(&self, revision: u64) -> Vec<u8> {
        self.key(format!("s/{revision:020}/"))
    }

    /// After all parts of this snapshot.
    pub(crate) fn chunks_end(&self, revision: u64) -> Vec<u8> {
        self.key(format!("s/{revision:020}0"))
    }

    /// Before all parts of all snapshots.
    pub(crate) fn chunks(&self) -> Vec<u8> {
        self.key("s/")
    }
}

/// The value of `epoch`. A record is written under the condition that its epoch still is, so a new
/// one ends all writes of the old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) number: u64,
    /// Who began it.
    pub(crate) by: String,
    /// The last epoch, this one included, that a compaction began. `None` where a build began it
    /// that did not say so.
    #[serde(default)]
    pub(crate) compacted: Option<u64>,
}

/// The version of this layout.
pub(crate) const FORMAT: u64 = 1;

/// The value of `meta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format: u64,
    /// The store's id, drawn when it was created.
    pub(crate) store: String,
    /// The cluster in which it was created.
    pub(crate) cluster: String,
    pub(crate) snapshot: Option<Snapshot>,
}

/// The live snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// It is the state at this revision, at which a new epoch began.
    pub(crate) revision: u64,
    /// The last record that it reflects.
    pub(crate) last_seq: u64,
    pub(crate) chunks: usize,
    pub(crate) bytes: u64,
    /// CRC-32C of all its bytes.
    pub(crate) crc: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_epoch_and_by_snapshot() {
        let keys = Keys::new("team");
        let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
        assert_eq!(text(keys.issue("a/b")), "strand/1/team/v/a/b");
        let sorted = [
            keys.epoch(),
            keys.idempotency("zz"),
            keys.meta(),
            keys.records_from(0),
            keys.record(9, "ff"),
            keys.records_from(10),
            keys.record(10, "00"),
            keys.records_end(),
            keys.chunks(),
            keys.chunk(9, 0),
            keys.chunks_from(10),
            keys.chunk(10, 0),
            keys.chunk(10, 11),
            keys.chunks_end(10),
            keys.chunk(11, 0),
            keys.issue(""),
        ];
        assert!(sorted.is_sorted(), "{:?}", sorted.map(text));
    }
}
