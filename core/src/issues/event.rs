use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{
    error::InvalidEvent,
    format::payload::Payload,
    issues::{
        issue::{Issue, at_most, validate_id},
        patch::Patch,
        timestamp::Timestamp,
    },
};

/// The longest idempotency key, in bytes; see [`crate::Batch::key`] and the example of
/// [`crate::Batch`].
pub const KEY_BYTES_MAX: usize = 256;

/// What happened to an issue; see [`IssueEvent`].
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
    /// Some of its fields were changed; see [`Patch`].
    Patch,
}

/// One event in an issue's life: the payload that this crate brings along.
///
/// Members that this crate does not know survive a round trip, in [`IssueEvent::extra`]. What each
/// does to an issue is said at [`crate::Issues`]. An event is written without a condition by
/// [`crate::Log::append`]; changes that depend on how the issue is are a [`crate::Batch`].
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Op, Patch, Seq, Timestamp};
///
/// let ts = Timestamp::now();
/// let mut store = Issues::default();
/// let life = [
///     IssueEvent::add(Issue::new("bd-1", "Mend the fence", ts), ts),
///     IssueEvent::update(Issue::new("bd-1", "Mend the gate", ts), ts),
///     IssueEvent::patch("bd-1", Patch::new().add_label("garden"), ts),
///     IssueEvent::set_blocked("bd-1", ts),
///     IssueEvent::unset_blocked("bd-1", ts),
///     IssueEvent::close("bd-1", ts).with_key("agent-7/close/1"),
///     IssueEvent::reopen("bd-1", ts),
///     IssueEvent::delete("bd-1", ts),
/// ];
/// assert_eq!(life[2].op, Op::Patch);
/// for (seq, event) in (1..).zip(life) {
///     store.apply(Seq::new(seq), event);
/// }
/// assert!(store.is_empty());
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssueEvent {
    /// When it happened, by the writer's clock.
    pub ts: Timestamp,
    /// What happened.
    pub op: Op,
    /// The issue's id.
    pub id: String,
    /// The issue after the event, where the event carries it.
    pub data: Option<Issue>,
    /// What changed; only with [`Op::Patch`].
    pub patch: Option<Patch>,
    /// The idempotency key of the append: see [`crate::Batch::key`]. In a batch the first event has
    /// it.
    pub key: Option<String>,
    /// Further members, in their order, each value as it was written.
    pub extra: Vec<(String, Box<RawValue>)>,
}

impl IssueEvent {
    fn of(op: Op, id: String, ts: Timestamp, data: Option<Issue>) -> Self {
        Self {
            ts,
            op,
            id,
            data,
            patch: None,
            key: None,
            extra: Vec::new(),
        }
    }

    /// The issue is created.
    #[must_use]
    pub fn add(issue: Issue, ts: Timestamp) -> Self {
        Self::of(Op::Add, issue.id(), ts, Some(issue))
    }

    /// The issue is changed, and now as given.
    #[must_use]
    pub fn update(issue: Issue, ts: Timestamp) -> Self {
        Self::of(Op::Update, issue.id(), ts, Some(issue))
    }

    /// The issue is closed.
    #[must_use]
    pub fn close(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Close, id.into(), ts, None)
    }

    /// The issue is opened again.
    #[must_use]
    pub fn reopen(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Reopen, id.into(), ts, None)
    }

    /// The issue is deleted.
    #[must_use]
    pub fn delete(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Delete, id.into(), ts, None)
    }

    /// The issue waits for something.
    #[must_use]
    pub fn set_blocked(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::SetBlocked, id.into(), ts, None)
    }

    /// Some fields of the issue are changed.
    #[must_use]
    pub fn patch(id: impl Into<String>, patch: Patch, ts: Timestamp) -> Self {
        Self {
            patch: Some(patch),
            ..Self::of(Op::Patch, id.into(), ts, None)
        }
    }

    /// The same event with an idempotency key, 1 to 256 bytes. [`crate::Log::append`] stores it;
    /// only [`crate::IssueLog::commit`] looks whether it is there already.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// The issue waits no more.
    #[must_use]
    pub fn unset_blocked(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::UnsetBlocked, id.into(), ts, None)
    }
}

impl Payload for IssueEvent {
    fn validate(&self) -> Result<(), InvalidEvent> {
        validate_id(&self.id)?;
        if let Some(key) = &self.key {
            validate_key(key)?;
        }
        match &self.patch {
            Some(patch) if self.op == Op::Patch && self.data.is_none() => patch.validate()?,
            None if self.op != Op::Patch => {}
            _ => return Err(InvalidEvent::PatchMismatch),
        }
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

pub(crate) fn validate_key(key: &str) -> Result<(), InvalidEvent> {
    if key.is_empty() {
        return Err(InvalidEvent::EmptyKey);
    }
    at_most("key", key.len(), KEY_BYTES_MAX)
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
        (self.ts, self.op, &self.id, &self.key) == (other.ts, other.op, &other.id, &other.key)
            && (&self.data, &self.patch) == (&other.data, &other.patch)
            && extra(self) == extra(other)
    }
}

impl Serialize for IssueEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ts", &self.ts)?;
        map.serialize_entry("op", &self.op)?;
        map.serialize_entry("id", &self.id)?;
        match &self.patch {
            Some(patch) => map.serialize_entry("patch", patch)?,
            None => map.serialize_entry("data", &self.data)?,
        }
        if let Some(key) = &self.key {
            map.serialize_entry("key", key)?;
        }
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
                let (mut ts, mut op, mut id, mut data) = (None, None, None, None);
                let (mut patch, mut key, mut extra) = (None, None, Vec::new());
                while let Some(name) = map.next_key()? {
                    match name {
                        Name::Ts => ts = Some(map.next_value()?),
                        Name::Op => op = Some(map.next_value()?),
                        Name::Id => id = Some(map.next_value()?),
                        Name::Data => data = map.next_value()?,
                        Name::Patch => patch = map.next_value()?,
                        Name::Key => key = map.next_value()?,
                        Name::Other(name) => extra.push((name, map.next_value()?)),
                    }
                }
                let missing = |name| A::Error::missing_field(name);
                Ok(IssueEvent {
                    ts: ts.ok_or_else(|| missing("ts"))?,
                    op: op.ok_or_else(|| missing("op"))?,
                    id: id.ok_or_else(|| missing("id"))?,
                    data,
                    patch,
                    key,
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
    Patch,
    Key,
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
                    "patch" => Name::Patch,
                    "key" => Name::Key,
                    name => Name::Other(name.to_owned()),
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}
