//! The messages of etcd's JSON gateway that this crate uses. Pure.
//!
//! The gateway writes 64-bit numbers as strings, bytes in base64, and leaves out what is zero,
//! empty or false.

use serde::{Deserialize, Serialize};

/// Bytes, in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes.0)
    }
}

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Bytes {
    fn from(bytes: &T) -> Self {
        Self(bytes.as_ref().to_owned())
    }
}

/// A 64-bit number as a string.
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Text(String),
            Number(u64),
        }
        match Spelling::deserialize(from)? {
            Spelling::Text(text) => text.parse().map_err(D::Error::custom),
            Spelling::Number(number) => Ok(number),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_empty(bytes: &Bytes) -> bool {
    bytes.0.is_empty()
}

/// The state of the cluster, in each answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    #[serde(with = "number")]
    pub(crate) cluster_id: u64,
    #[serde(with = "number")]
    pub(crate) revision: u64,
}

/// An answer that says of which cluster it is.
pub(crate) trait Answer: serde::de::DeserializeOwned {
    fn header(&self) -> Header;
}

macro_rules! answers {
    ($($name:ident),*) => {
        $(impl Answer for $name {
            fn header(&self) -> Header {
                self.header
            }
        })*
    };
}
answers!(
    TxnResponse,
    RangeResponse,
    Status,
    Members,
    Alarms,
    Authenticated,
    Empty
);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are etcd's")]
pub(crate) struct Range {
    pub(crate) key: Bytes,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) range_end: Bytes,
    #[serde(with = "number", skip_serializing_if = "is_zero")]
    pub(crate) limit: u64,
    #[serde(with = "number", skip_serializing_if = "is_zero")]
    pub(crate) revision: u64,
    #[serde(with = "number", skip_serializing_if = "is_zero")]
    pub(crate) min_mod_revision: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) count_only: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RangeResponse {
    pub(crate) header: Header,
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) more: bool,
    #[serde(with = "number")]
    pub(crate) count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct KeyValue {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    #[serde(with = "number")]
    pub(crate) mod_revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Put {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeleteRange {
    pub(crate) key: Bytes,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) range_end: Bytes,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names are etcd's")]
pub(crate) enum Operation {
    RequestRange(Range),
    RequestPut(Put),
    RequestDeleteRange(DeleteRange),
}

/// A condition on the revision that last changed a key; 0 if the key does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Compare {
    pub(crate) key: Bytes,
    target: &'static str,
    pub(crate) result: Relation,
    #[serde(with = "number")]
    pub(crate) mod_revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Relation {
    Equal,
    Less,
}

impl Compare {
    /// The key was last changed by exactly this revision.
    pub(crate) fn at(key: &[u8], revision: u64) -> Self {
        Self::new(key, Relation::Equal, revision)
    }

    /// The key does not exist.
    pub(crate) fn absent(key: &[u8]) -> Self {
        Self::at(key, 0)
    }

    /// No revision after this one has changed the key.
    pub(crate) fn unchanged_since(key: &[u8], revision: u64) -> Self {
        Self::new(key, Relation::Less, revision + 1)
    }

    fn new(key: &[u8], result: Relation, mod_revision: u64) -> Self {
        Self {
            key: key.into(),
            target: "MOD",
            result,
            mod_revision,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Txn {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) compare: Vec<Compare>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) success: Vec<Operation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failure: Vec<Operation>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TxnResponse {
    pub(crate) header: Header,
    pub(crate) succeeded: bool,
    pub(crate) responses: Vec<OperationResponse>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OperationResponse {
    pub(crate) response_range: RangeResponse,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Compaction {
    #[serde(with = "number")]
    pub(crate) revision: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Empty {
    pub(crate) header: Header,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) header: Header,
    pub(crate) version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Members {
    pub(crate) header: Header,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    #[serde(rename = "isLearner")]
    pub(crate) is_learner: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarms {
    pub(crate) header: Header,
    pub(crate) alarms: Vec<Alarm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarm {
    /// `NOSPACE` or `CORRUPT`.
    pub(crate) alarm: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Authenticate<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: &'a str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Authenticated {
    pub(crate) header: Header,
    pub(crate) token: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct WatchRequest {
    pub(crate) create_request: WatchCreate,
}

#[derive(Debug, Serialize)]
pub(crate) struct WatchCreate {
    pub(crate) key: Bytes,
    pub(crate) range_end: Bytes,
    #[serde(with = "number")]
    pub(crate) start_revision: u64,
    pub(crate) filters: [&'static str; 1],
}

/// A line of a watch's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchLine {
    pub(crate) result: WatchResponse,
    pub(crate) error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchResponse {
    pub(crate) header: Header,
    pub(crate) canceled: bool,
    pub(crate) cancel_reason: String,
    #[serde(with = "number")]
    pub(crate) compact_revision: u64,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) kv: KeyValue,
}

/// The gateway's answer to a call that it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    /// A status of gRPC.
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_spelled_as_the_gateway_expects() {
        let txn = Txn {
            compare: vec![
                Compare::at(b"a", 7),
                Compare::absent(b"b"),
                Compare::unchanged_since(b"c", 9),
            ],
            success: vec![Operation::RequestPut(Put {
                key: b"d".into(),
                value: b"e".into(),
            })],
            failure: vec![Operation::RequestRange(Range {
                key: b"a".into(),
                ..Range::default()
            })],
        };
        let expected = concat!(
            r#"{"compare":[{"key":"YQ==","target":"MOD","result":"EQUAL","mod_revision":"7"},"#,
            r#"{"key":"Yg==","target":"MOD","result":"EQUAL","mod_revision":"0"},"#,
            r#"{"key":"Yw==","target":"MOD","result":"LESS","mod_revision":"10"}],"#,
            r#""success":[{"request_put":{"key":"ZA==","value":"ZQ=="}}],"#,
            r#""failure":[{"request_range":{"key":"YQ=="}}]}"#
        );
        assert_eq!(serde_json::to_string(&txn).unwrap(), expected);
    }

    #[test]
    fn what_an_answer_leaves_out_is_zero() {
        let text = r#"{"header":{"cluster_id":"11","revision":"5","raft_term":"2"},"responses":[
            {"response_range":{"header":{"revision":"5"},"kvs":[{"key":"YQ==","mod_revision":"4"}],
            "count":"1"}},{"response_put":{}}]}"#;
        let answer: TxnResponse = serde_json::from_str(text).unwrap();
        assert!(!answer.succeeded);
        assert_eq!((answer.header.cluster_id, answer.header.revision), (11, 5));
        let kv = &answer.responses[0].response_range.kvs[0];
        assert_eq!(
            (kv.key.0.as_slice(), kv.value.0.len(), kv.mod_revision),
            (&b"a"[..], 0, 4)
        );
        assert!(answer.responses[1].response_range.kvs.is_empty());
        assert!(serde_json::from_str::<KeyValue>(r#"{"mod_revision":"x"}"#).is_err());
        assert!(serde_json::from_str::<KeyValue>(r#"{"key":"?"}"#).is_err());
    }
}
