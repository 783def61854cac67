use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{InvalidEvent, Issue, Payload, issue::validate_id};

/// What happened to an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// It was created; `data` is the whole issue.
    Add,
    /// It was changed; `data` is the whole issue.
    Update,
    /// It was closed; `data` may be the whole issue.
    Close,
    /// It was opened again; `data` may be the whole issue.
    Reopen,
    /// It was deleted.
    Delete,
    /// It waits for something.
    SetBlocked,
    /// It waits no more.
    UnsetBlocked,
}

/// One event in an issue's life: the payload that this crate brings along.
///
/// Members that this crate does not know survive a round trip, in [`IssueEvent::extra`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssueEvent {
    /// When it happened, in milliseconds since 1970, as the writer's clock said.
    pub ts: i64,
    /// What happened.
    pub op: Op,
    /// The issue's id.
    pub id: String,
    /// The issue after the event, where the event carries it.
    pub data: Option<Issue>,
    /// Further members, in their order, each value as it was written.
    pub extra: Vec<(String, Box<RawValue>)>,
}

impl IssueEvent {
    fn of(op: Op, id: String, ts: i64, data: Option<Issue>) -> Self {
        Self {
            ts,
            op,
            id,
            data,
            extra: Vec::new(),
        }
    }

    /// The issue is created.
    #[must_use]
    pub fn add(issue: Issue, ts: i64) -> Self {
        Self::of(Op::Add, issue.id(), ts, Some(issue))
    }

    /// The issue is changed, and now as given.
    #[must_use]
    pub fn update(issue: Issue, ts: i64) -> Self {
        Self::of(Op::Update, issue.id(), ts, Some(issue))
    }

    /// The issue is closed.
    #[must_use]
    pub fn close(id: impl Into<String>, ts: i64) -> Self {
        Self::of(Op::Close, id.into(), ts, None)
    }

    /// The issue is opened again.
    #[must_use]
    pub fn reopen(id: impl Into<String>, ts: i64) -> Self {
        Self::of(Op::Reopen, id.into(), ts, None)
    }

    /// The issue is deleted.
    #[must_use]
    pub fn delete(id: impl Into<String>, ts: i64) -> Self {
        Self::of(Op::Delete, id.into(), ts, None)
    }

    /// The issue waits for something.
    #[must_use]
    pub fn set_blocked(id: impl Into<String>, ts: i64) -> Self {
        Self::of(Op::SetBlocked, id.into(), ts, None)
    }

    /// The issue waits no more.
    #[must_use]
    pub fn unset_blocked(id: impl Into<String>, ts: i64) -> Self {
        Self::of(Op::UnsetBlocked, id.into(), ts, None)
    }
}

impl Payload for IssueEvent {
    fn validate(&self) -> Result<(), InvalidEvent> {
        validate_id(&self.id)?;
        match &self.data {
            None if matches!(self.op, Op::Add | Op::Update) => Err(InvalidEvent::MissingIssue),
            None => Ok(()),
            Some(issue) => {
                let id = issue.validated_id()?;
                if id == self.id {
                    Ok(())
                } else {
                    Err(InvalidEvent::IdMismatch {
                        event: self.id.clone(),
                        issue: id,
                    })
                }
            }
        }
    }
}

impl PartialEq for IssueEvent {
    /// Equal to the byte, not only in meaning.
    fn eq(&self, other: &Self) -> bool {
        let extra = |event: &Self| {
            event
                .extra
                .iter()
                .map(|(name, value)| (name.clone(), value.get().to_owned()))
                .collect::<Vec<_>>()
        };
        (self.ts, self.op, &self.id, &self.data) == (other.ts, other.op, &other.id, &other.data)
            && extra(self) == extra(other)
    }
}

impl Serialize for IssueEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ts", &self.ts)?;
        map.serialize_entry("op", &self.op)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("data", &self.data)?;
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for IssueEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = IssueEvent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event: an object with `ts`, `op`, `id` and `data`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IssueEvent, A::Error> {
                let (mut ts, mut op, mut id, mut data, mut extra) =
                    (None, None, None, None, Vec::new());
                while let Some(name) = map.next_key()? {
                    match name {
                        Name::Ts => ts = Some(map.next_value()?),
                        Name::Op => op = Some(map.next_value()?),
                        Name::Id => id = Some(map.next_value()?),
                        Name::Data => data = map.next_value()?,
                        Name::Other(name) => extra.push((name, map.next_value()?)),
                    }
                }
                let missing = |name| A::Error::missing_field(name);
                Ok(IssueEvent {
                    ts: ts.ok_or_else(|| missing("ts"))?,
                    op: op.ok_or_else(|| missing("op"))?,
                    id: id.ok_or_else(|| missing("id"))?,
                    data,
                    extra,
                })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

enum Name {
    Ts,
    Op,
    Id,
    Data,
    Other(String),
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "ts" => Name::Ts,
                    "op" => Name::Op,
                    "id" => Name::Id,
                    "data" => Name::Data,
                    name => Name::Other(name.to_owned()),
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}
