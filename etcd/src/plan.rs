//! The transaction of a write, and what its answer means. Pure.

use crate::{
    api::{Compare, KeyValue, Operation, Put, Range, Txn, TxnResponse},
    error::Problem,
    keys::{Epoch, Keys},
};

/// The current epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CurrentEpoch {
    pub(crate) number: u64,
    /// The revision at which it began.
    pub(crate) revision: u64,
    /// The last epoch, this one included, that a compaction began, or may have.
    pub(crate) compacted: u64,
}

impl CurrentEpoch {
    /// Whether the conditions of a writer that knows the state in an earlier epoch hold in this
    /// one. A compaction removes tokens of issues: one that was changed and forgotten would look
    /// unchanged to a writer that knows it as it was before.
    pub(crate) fn has_tokens_since(&self, known: &Self) -> bool {
        self.compacted <= known.number
    }
}

/// A write, ready to be sent any number of times.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) key: &'a str,
    pub(crate) payload: &'a [u8],
    /// The issues that it names, and up to which revision the writer knows each; `None` if it does
    /// not matter.
    pub(crate) ids: &'a [(&'a str, Option<u64>)],
}

/// The fate of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is stored, as this record.
    Stored(u64),
    /// It is stored, as this record, by an attempt that got no answer.
    StoredBefore(u64),
    /// A record with its key is stored: this one. `same` if it is the same operation.
    Repeated { seq: u64, same: bool },
    /// Nothing was written: this epoch has begun.
    NewEpoch(CurrentEpoch),
    /// Nothing was written: another write was faster with one of the issues.
    Changed,
    /// Nothing was written: there is no such store.
    NoStore,
}

impl Write<'_> {
    /// All or nothing, in one round trip: whatever the outcome, the answer says why.
    pub(crate) fn txn(&self, keys: &Keys, epoch: &CurrentEpoch) -> Txn {
        let idempotency = keys.idempotency(self.key);
        let mut compare = vec![
            Compare::at(&keys.epoch(), epoch.revision),
            Compare::absent(&idempotency),
        ];
        let put = |key: &[u8], value: &[u8]| {
            Operation::RequestPut(Put {
                key: key.into(),
                value: value.into(),
            })
        };
        let mut success = vec![
            put(&keys.record(epoch.number, self.nonce), self.payload),
            put(&idempotency, self.carrier().as_bytes()),
        ];
        let read = |key: &[u8]| {
            Operation::RequestRange(Range {
                key: key.into(),
                ..Range::default()
            })
        };
        let mut failure = vec![read(&keys.epoch()), read(&idempotency)];
        for (id, known) in self.ids {
            let issue = keys.issue(id);
            if let Some(revision) = known {
                compare.push(Compare::unchanged_since(&issue, *revision));
                failure.push(read(&issue));
            }
            success.push(put(&issue, b""));
        }
        Txn {
            compare,
            success,
            failure,
        }
    }

    /// The value of its idempotency key.
    fn carrier(&self) -> String {
        format!("{} {}", self.nonce, self.digest)
    }

    /// Reads the answer to [`Write::txn`].
    pub(crate) fn fate(&self, epoch: &CurrentEpoch, answer: &TxnResponse) -> Result<Fate, Problem> {
        if answer.succeeded {
            return Ok(Fate::Stored(answer.header.revision));
        }
        let mut found = answer.responses.iter().map(only);
        let (now, idempotency) = (found.next().flatten(), found.next().flatten());
        if let Some(kv) = idempotency {
            let seq = kv.mod_revision;
            if kv.value.0 == self.carrier().as_bytes() {
                return Ok(Fate::StoredBefore(seq));
            }
            let same = kv.value.0.ends_with(self.digest.as_bytes());
            return Ok(Fate::Repeated { seq, same });
        }
        let Some(now) = now else {
            return Ok(Fate::NoStore);
        };
        if now.mod_revision != epoch.revision {
            return Ok(Fate::NewEpoch(current_epoch(now)?));
        }
        Ok(Fate::Changed)
    }
}

fn only(response: &crate::api::OperationResponse) -> Option<&KeyValue> {
    response.response_range.kvs.first()
}

pub(crate) fn current_epoch(kv: &KeyValue) -> Result<CurrentEpoch, Problem> {
    let epoch: Epoch = value(kv)?;
    Ok(CurrentEpoch {
        number: epoch.number,
        revision: kv.mod_revision,
        compacted: epoch.compacted.unwrap_or(epoch.number),
    })
}

/// The value of a key, which is JSON.
pub(crate) fn value<T: serde::de::DeserializeOwned>(kv: &KeyValue) -> Result<T, Problem> {
    serde_json::from_slice(&kv.value.0).map_err(|error| Problem::Damaged {
        what: String::from_utf8_lossy(&kv.key.0).into_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Bytes, Header, OperationResponse, RangeResponse, Relation};

    const WRITE: Write<'_> = Write {
        nonce: "n1",
        digest: "d1",
        key: "k1",
        payload: b"{}",
        ids: &[("bd-1", Some(8)), ("bd-2", None)],
    };

    fn epoch() -> CurrentEpoch {
        CurrentEpoch {
            number: 2,
            revision: 5,
            compacted: 1,
        }
    }

    fn kv(key: &[u8], value: &[u8], mod_revision: u64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            mod_revision,
        }
    }

    /// The answer to a transaction that failed.
    fn failed(found: [Option<KeyValue>; 3]) -> TxnResponse {
        let response = |kv: Option<KeyValue>| OperationResponse {
            response_range: RangeResponse {
                kvs: kv.into_iter().collect(),
                ..RangeResponse::default()
            },
        };
        TxnResponse {
            header: Header {
                revision: 20,
                ..Header::default()
            },
            succeeded: false,
            responses: found.map(response).into(),
        }
    }

    #[test]
    fn a_write_is_one_transaction_that_reads_what_it_compares() {
        let keys = Keys::new("s");
        let txn = WRITE.txn(&keys, &epoch());
        let compared: Vec<(Bytes, Relation, u64)> = txn
            .compare
            .into_iter()
            .map(|compare| (compare.key, compare.result, compare.mod_revision))
            .collect();
        let expected = [
            (keys.epoch(), Relation::Equal, 5),
            (keys.idempotency("k1"), Relation::Equal, 0),
            (keys.issue("bd-1"), Relation::Less, 9),
        ];
        assert_eq!(
            compared,
            expected.map(|(key, how, at)| (Bytes(key), how, at))
        );
        let written: Vec<Bytes> = txn
            .success
            .into_iter()
            .map(|op| match op {
                Operation::RequestPut(put) => put.key,
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [
            keys.record(2, "n1"),
            keys.idempotency("k1"),
            keys.issue("bd-1"),
            keys.issue("bd-2"),
        ];
        assert_eq!(written, expected.map(Bytes));
        assert_eq!(txn.failure.len(), 3);
    }

    #[test]
    fn an_answer_says_why_nothing_was_written() {
        let keys = Keys::new("s");
        let now = |number: u64, revision| {
            let value = format!(r#"{{"number":{number},"by":"x"}}"#);
            Some(kv(&keys.epoch(), value.as_bytes(), revision))
        };
        let carried = |nonce: &[u8]| Some(kv(&keys.idempotency("k1"), nonce, 7));
        let changed = || Some(kv(&keys.issue("bd-1"), b"", 9));
        let fate = |found| WRITE.fate(&epoch(), &failed(found)).unwrap();

        let own = carried(b"n1 d1");
        assert_eq!(fate([now(2, 5), own, None]), Fate::StoredBefore(7));
        // Also when all has changed since.
        for (value, same) in [(b"n0 d1", true), (b"n0 d0", false)] {
            let repeated = Fate::Repeated { seq: 7, same };
            assert_eq!(fate([now(3, 9), carried(value), changed()]), repeated);
        }
        let next = CurrentEpoch {
            number: 3,
            revision: 9,
            // Whoever began it did not say why.
            compacted: 3,
        };
        assert_eq!(fate([now(3, 9), None, changed()]), Fate::NewEpoch(next));
        assert_eq!(fate([now(2, 5), None, changed()]), Fate::Changed);
        assert_eq!(fate([None, None, None]), Fate::NoStore);
        let broken = failed([Some(kv(b"epoch", b"?", 9)), None, None]);
        assert!(WRITE.fate(&epoch(), &broken).is_err());

        let mut stored = failed([None, None, None]);
        stored.succeeded = true;
        assert_eq!(WRITE.fate(&epoch(), &stored), Ok(Fate::Stored(20)));
    }
}
