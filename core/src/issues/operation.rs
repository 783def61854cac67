//! The digest of a write with an idempotency key: whether a repetition is the same operation.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::issues::{
    canonical_json::{meaning, meaning_of_members},
    event::IssueEvent,
    issue::{RawFields, raw},
};

/// The fields of an issue that say when, not what: whoever repeats a write stamps them anew.
const TIMES: [&str; 3] = ["created_at", "updated_at", "closed_at"];

/// Identifies what a write does, whenever it does it. `docs/FORMAT.md` defines it, since snapshots
/// have it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct OperationDigest(u64);

impl OperationDigest {
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a IssueEvent>) -> Self {
        let hash = events.into_iter().fold(FNV_START, |hash, event| {
            let line = canonical(event) + "\n";
            fnv(hash, line.as_bytes())
        });
        Self(hash)
    }
}

/// An event without its times and its key, in one spelling.
fn canonical(event: &IssueEvent) -> String {
    let extra = event.extra.iter();
    let extra: RawFields<'_> = extra
        .map(|(name, value)| (Cow::Borrowed(&**name), &**value))
        .collect();
    let issue = event.data.as_ref().map(|issue| {
        let mut fields = issue.fields();
        fields.retain(|(name, _)| !TIMES.contains(&&**name));
        meaning_of_members(fields)
    });
    let text =
        |value: Result<Box<RawValue>, _>| value.map_or(String::new(), |value| meaning(&value));
    [
        text(raw(&event.op)),
        text(raw(&event.id)),
        issue.unwrap_or_default(),
        event
            .patch
            .as_ref()
            .map(|patch| text(raw(patch)))
            .unwrap_or_default(),
        meaning_of_members(extra),
    ]
    .join(",")
}

pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of 64 bits.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl fmt::Debug for OperationDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<OperationDigest> for String {
    fn from(digest: OperationDigest) -> Self {
        format!("{digest:?}")
    }
}

impl TryFrom<String> for OperationDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digest = u64::from_str_radix(&text, 16).map(Self);
        let digest = digest.map_err(|_| "a digest has 16 hexadecimal digits")?;
        let is_canonical = format!("{digest:?}") == text;
        is_canonical
            .then_some(digest)
            .ok_or("a digest has 16 hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use crate::issues::{issue::Issue, patch::Patch, timestamp::Timestamp};

    use super::*;

    fn events(json: &str) -> Vec<IssueEvent> {
        serde_json::from_str(json).unwrap()
    }

    fn same(a: &str, b: &str) -> bool {
        OperationDigest::of(&events(a)) == OperationDigest::of(&events(b))
    }

    #[test]
    fn the_algorithm_is_the_documented_one() {
        let close = r#"[{"ts":1,"op":"close","id":"a","data":null,"key":"k"}]"#;
        assert_eq!(canonical(&events(close)[0]), r#""close","a",,,{}"#);
        assert_eq!(fnv(FNV_START, b"foobar"), 0x8594_4171_f739_67e8);
        let digest = OperationDigest::of(&events(close));
        assert_eq!(digest.0, fnv(FNV_START, b"\"close\",\"a\",,,{}\n"));
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(
            serde_json::from_str::<OperationDigest>(&text).unwrap(),
            digest
        );
        for wrong in [
            r#""""#,
            r#""12""#,
            r#""00000000000000FF""#,
            r#""+000000000000001""#,
            "1",
        ] {
            assert!(
                serde_json::from_str::<OperationDigest>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn times_and_spelling_do_not_count() {
        let later = |ms: i64| {
            let ts = Timestamp::from_ms(ms);
            let patch = Patch::new().set("n", &1.5).unwrap();
            let add = IssueEvent::add(Issue::new_at("a", "T", ts), ts);
            OperationDigest::of(&[add.with_key("k"), IssueEvent::patch("a", patch, ts)])
        };
        assert_eq!(later(0), later(1_706_540_000_123));
        assert!(same(
            r#"[{"ts":1,"op":"add","id":"a","data":{"id":"a","title":"T","n":1.0},"x":1,"y":2}]"#,
            r#"[{"y":2,"x":1,"ts":2,"op":"add","id":"a","data":{"title":"\u0054","n":1.00,"id":"a"}}]"#,
        ));
    }

    #[test]
    fn everything_else_counts() {
        let all = [
            r#"[{"ts":1,"op":"close","id":"a"}]"#,
            r#"[{"ts":1,"op":"close","id":"b"}]"#,
            r#"[{"ts":1,"op":"reopen","id":"a"}]"#,
            r#"[{"ts":1,"op":"close","id":"a","by":"me"}]"#,
            r#"[{"ts":1,"op":"close","id":"a"},{"ts":1,"op":"close","id":"a"}]"#,
            r#"[{"ts":1,"op":"close","id":"a","data":{"id":"a","title":"T"}}]"#,
            r#"[{"ts":1,"op":"close","id":"a","data":{"id":"a","title":"U"}}]"#,
            r#"[{"ts":1,"op":"patch","id":"a","patch":{"set":{"assignee":"A"}}}]"#,
            r#"[{"ts":1,"op":"patch","id":"a","patch":{"set":{"assignee":"B"}}}]"#,
        ];
        for (index, a) in all.iter().enumerate() {
            for b in all.iter().skip(index + 1) {
                assert!(!same(a, b), "{a} {b}");
            }
        }
    }
}
