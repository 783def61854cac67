use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{
    error::{InvalidEvent, json_problem},
    format::{
        i_json::{self, NESTING_MAX, PAYLOAD_NESTING_MAX, RESERVED},
        members::plain_string,
        payload::Payload,
        search,
    },
    issues::{
        issue::{Issue, Name, at_most, validate_id},
        patch::Patch,
        timestamp::Timestamp,
    },
};

/// The longest idempotency key, in bytes; see [`crate::Batch::key`].
///
/// Example: [`crate::Batch`].
pub const KEY_BYTES_MAX: usize = 256;

/// A change to an issue; see [`IssueEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// It was created; `data` is the whole issue.
    Add,
    /// It was replaced; `data` is the whole issue.
    Update,
    /// It was closed; `data` may be the whole issue.
    Close,
    /// It was reopened; `data` may be the whole issue.
    Reopen,
    /// It was deleted.
    Delete,
    /// It became blocked.
    SetBlocked,
    /// It is no longer blocked.
    UnsetBlocked,
    /// Some of its fields were changed; see [`Patch`].
    Patch,
}

/// An event in an issue's life: the [payload](crate::Payload) of an [`IssueLog`](crate::IssueLog).
///
/// [`crate::Issues`] documents what each event does to an issue. Members that this crate does not
/// know survive a round trip, in [`IssueEvent::extra`].
/// [`IssueLog::append`](crate::IssueLog::append) writes an event without a condition; for
/// conditions, see [`crate::Batch`].
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Op, Patch, Seq, Timestamp};
///
/// let ts = Timestamp::now();
/// let mut issues = Issues::default();
/// let life = [
///     IssueEvent::add(Issue::new("bd-1", "Mend the fence"), ts),
///     IssueEvent::update(Issue::new("bd-1", "Mend the gate"), ts),
///     IssueEvent::patch("bd-1", Patch::new().add_label("garden"), ts),
///     IssueEvent::set_blocked("bd-1", ts),
///     IssueEvent::unset_blocked("bd-1", ts),
///     IssueEvent::close("bd-1", ts).with_key("agent-7/close/1"),
///     IssueEvent::reopen("bd-1", ts),
///     IssueEvent::delete("bd-1", ts),
/// ];
/// assert_eq!(life[2].op, Op::Patch);
/// for (seq, event) in (1..).zip(life) {
///     issues.apply(Seq::new(seq), [event]);
/// }
/// assert!(issues.is_empty());
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssueEvent {
    /// When it happened, by the writer's clock.
    pub ts: Timestamp,
    /// The kind of change.
    pub op: Op,
    /// The issue's id.
    pub id: String,
    /// The issue after the event, where the event carries it.
    pub data: Option<Issue>,
    /// The changes; only with [`Op::Patch`].
    pub patch: Option<Patch>,
    /// The idempotency key of the write: see [`crate::Batch::key`]. In a batch, the first event has
    /// it.
    pub key: Option<String>,
    /// All other members, in their order, each value as it was written.
    pub extra: Vec<(String, Box<RawValue>)>,
}

impl IssueEvent {
    /// Parses an event: an object with `op`, `id`, and what the operation needs. An event without
    /// `ts` gets the time `now`.
    ///
    /// # Errors
    /// [`InvalidEvent::NotAnEvent`], also if one of the members that this crate knows occurs twice;
    /// [`InvalidEvent::LoneSurrogate`], with its place in `text`; [`InvalidEvent::TooDeep`]. The
    /// issue is checked when the event is written.
    ///
    /// ```
    /// use strand_core::{IssueEvent, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let close = IssueEvent::from_json(r#"{"op":"close","id":"bd-1"}"#, now)?;
    /// assert_eq!(close, IssueEvent::close("bd-1", now));
    /// assert!(IssueEvent::from_json(r#"{"op":"close","id":"bd-1","id":"bd-2"}"#, now).is_err());
    /// # Ok::<(), strand_core::InvalidEvent>(())
    /// ```
    pub fn from_json(text: &str, now: Timestamp) -> Result<Self, InvalidEvent> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer.deserialize_map(Members { now: Some(now) });
        let event = members.and_then(|event| deserializer.end().map(|()| event));
        let event = event.map_err(|error| InvalidEvent::NotAnEvent {
            message: json_problem(&error),
        })?;
        i_json::check(text.as_bytes(), PAYLOAD_NESTING_MAX)?;
        Ok(event)
    }

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

    /// Creates an issue.
    #[must_use]
    pub fn add(issue: Issue, ts: Timestamp) -> Self {
        Self::of(Op::Add, issue.id(), ts, Some(issue))
    }

    /// Replaces an issue.
    #[must_use]
    pub fn update(issue: Issue, ts: Timestamp) -> Self {
        Self::of(Op::Update, issue.id(), ts, Some(issue))
    }

    /// Closes an issue.
    #[must_use]
    pub fn close(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Close, id.into(), ts, None)
    }

    /// Reopens an issue.
    #[must_use]
    pub fn reopen(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Reopen, id.into(), ts, None)
    }

    /// Deletes an issue.
    #[must_use]
    pub fn delete(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::Delete, id.into(), ts, None)
    }

    /// Marks an issue as blocked.
    #[must_use]
    pub fn set_blocked(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::SetBlocked, id.into(), ts, None)
    }

    /// Changes some fields of an issue.
    #[must_use]
    pub fn patch(id: impl Into<String>, patch: Patch, ts: Timestamp) -> Self {
        Self {
            patch: Some(patch),
            ..Self::of(Op::Patch, id.into(), ts, None)
        }
    }

    /// The same event with an idempotency key of 1 to 256 bytes.
    /// [`IssueLog::append`](crate::IssueLog::append) stores it; only
    /// [`IssueLog::commit`](crate::IssueLog::commit) checks whether the log has it.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Marks an issue as no longer blocked.
    #[must_use]
    pub fn unset_blocked(id: impl Into<String>, ts: Timestamp) -> Self {
        Self::of(Op::UnsetBlocked, id.into(), ts, None)
    }
}

/// How an event begins in the layout that this crate writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventStart<'a> {
    ts: &'a [u8],
    pub(crate) op: Op,
    pub(crate) id: &'a str,
    /// What follows the id.
    pub(crate) rest: &'a [u8],
}

impl<'a> EventStart<'a> {
    /// Of the members of an event, without its opening brace.
    pub(crate) fn of(members: &'a [u8]) -> Option<Self> {
        let rest = members.strip_prefix(br#""ts":"#)?;
        let (ts, rest) = rest.split_at_checked(search::byte(b',', rest)?)?;
        let (op, rest) = plain_string(rest.strip_prefix(br#","op":"#)?)?;
        let (id, rest) = plain_string(rest.strip_prefix(br#","id":"#)?)?;
        let op = match op {
            "add" => Op::Add,
            "update" => Op::Update,
            "close" => Op::Close,
            "reopen" => Op::Reopen,
            "delete" => Op::Delete,
            "set_blocked" => Op::SetBlocked,
            "unset_blocked" => Op::UnsetBlocked,
            "patch" => Op::Patch,
            _ => return None,
        };
        Some(Self { ts, op, id, rest })
    }
}

impl IssueEvent {
    /// The event with these members, if it is in the layout that this crate writes, without
    /// members that this crate does not know.
    fn plain(members: &str) -> Option<Self> {
        let EventStart { ts, op, id, rest } = EventStart::of(members.as_bytes())?;
        if !id.bytes().all(is_of_string) {
            return None;
        }
        let event = Self::of(op, id.to_owned(), serde_json::from_slice(ts).ok()?, None);
        let rest = members.get(members.len() - rest.len()..)?;
        let (event, rest) = if let Some(rest) = rest.strip_prefix(r#","patch":"#) {
            let (patch, rest) = value(rest)?;
            (Self { patch, ..event }, rest)
        } else {
            let (data, rest) = value(rest.strip_prefix(r#","data":"#)?)?;
            (Self { data, ..event }, rest)
        };
        if rest == "}" {
            return Some(event);
        }
        let (key, rest) = plain_string(rest.strip_prefix(r#","key":"#)?.as_bytes())?;
        (rest == b"}" && key.bytes().all(is_of_string)).then(|| event.with_key(key))
    }
}

/// Whether a string of JSON may have this byte as it is.
fn is_of_string(byte: u8) -> bool {
    byte >= b' '
}

/// The value that the text begins with, and what follows.
fn value<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

impl Payload for IssueEvent {
    fn of_members(members: &str) -> Option<Self> {
        Self::plain(members)
    }

    fn validate(&self) -> Result<(), InvalidEvent> {
        validate_id(&self.id)?;
        let is_reserved = |member: &&str| self.extra.iter().any(|(name, _)| name == member);
        if let Some(member) = RESERVED.into_iter().find(is_reserved) {
            return Err(InvalidEvent::Reserved { member });
        }
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
            Some(issue) => match issue.validated_id()? {
                id if id == self.id => i_json::check(issue.as_json().as_bytes(), NESTING_MAX),
                issue => Err(InvalidEvent::IdMismatch {
                    event: self.id.clone(),
                    issue,
                }),
            },
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
    /// Whether the two are equal to the byte, not only in meaning.
    fn eq(&self, other: &Self) -> bool {
        let texts = |event: &Self| {
            let extra = event.extra.iter();
            extra
                .map(|(name, value)| (name.clone(), value.get().to_owned()))
                .collect::<Vec<_>>()
        };
        (self.ts, self.op, &self.id, &self.key) == (other.ts, other.op, &other.id, &other.key)
            && (&self.data, &self.patch) == (&other.data, &other.patch)
            && texts(self) == texts(other)
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
        deserializer.deserialize_map(Members { now: None })
    }
}

/// Reads an event's members.
struct Members {
    /// The time of an event that has none.
    now: Option<Timestamp>,
}

impl<'de> Visitor<'de> for Members {
    type Value = IssueEvent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: an object with `ts`, `op`, `id` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IssueEvent, A::Error> {
        let (mut ts, mut op, mut id, mut data) = (None, None, None, None);
        let (mut patch, mut key, mut extra) = (None, None, Vec::new());
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "ts" => once("ts", &mut ts, &mut map)?,
                "op" => once("op", &mut op, &mut map)?,
                "id" => once("id", &mut id, &mut map)?,
                "data" => once("data", &mut data, &mut map)?,
                "patch" => once("patch", &mut patch, &mut map)?,
                "key" => once("key", &mut key, &mut map)?,
                _ => extra.push((name.into_owned(), map.next_value()?)),
            }
        }
        let missing = |name| A::Error::missing_field(name);
        Ok(IssueEvent {
            ts: ts.or(self.now).ok_or_else(|| missing("ts"))?,
            op: op.ok_or_else(|| missing("op"))?,
            id: id.ok_or_else(|| missing("id"))?,
            data: data.flatten(),
            patch: patch.flatten(),
            key: key.flatten(),
            extra,
        })
    }
}

/// Reads a member that occurs at most once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    name: &'static str,
    member: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    if member.replace(map.next_value()?).is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn any_event() -> impl Strategy<Value = Value> {
        let op = prop_oneof!["[a-z_]{3,6}", "add|update|close|reopen|delete|patch"];
        let text = r#"[a-c"\\{},: \x01ü]{0,4}"#;
        let value = prop_oneof![
            Just(Value::Null),
            text.prop_map(|title| json!({"id": "a", "title": title, "data": {"patch": [1.5]}})),
            text.prop_map(|note| json!({"set": {"notes": note}, "unset": ["labels"]})),
            Just(json!("text")),
        ];
        let name = prop_oneof![Just("data"), Just("patch"), Just("other")];
        let more = prop::collection::vec((name, value.clone()), 0..2);
        (
            any::<i32>(),
            op,
            text,
            value,
            any::<bool>(),
            prop::option::of(text),
            more,
        )
            .prop_map(|(ts, op, id, value, is_patch, key, more)| {
                let name = if is_patch { "patch" } else { "data" };
                let mut event = json!({"ts": ts, "op": op, "id": id, name: value});
                event.as_object_mut().unwrap().extend(
                    key.map(|key| ("key".to_owned(), key.into()))
                        .into_iter()
                        .chain(
                            more.into_iter()
                                .map(|(name, value)| (name.to_owned(), value)),
                        ),
                );
                event
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_event_in_the_usual_layout_is_what_a_parser_finds(
            event in any_event(),
            at in any::<prop::sample::Index>(),
            change in prop_oneof![4 => Just(None), 1 => r#"["{},:\\0 a]?"#.prop_map(Some)],
        ) {
            // As this crate orders them: `json!` may sort.
            let names = ["ts", "op", "id", "patch", "data", "key", "other"].into_iter();
            let members = names.filter_map(|name| Some((name, event.get(name)?)));
            let members = members.map(|(name, value)| format!("\"{name}\":{value}"));
            let mut text = format!("{{{}", members.collect::<Vec<_>>().join(","));
            text += "}";
            if let Some(change) = change {
                let at = at.index(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.replace_range(at..=at, &change);
                }
            }
            let members = text.strip_prefix('{').unwrap_or_default();
            if let Some(found) = IssueEvent::plain(members) {
                let parsed = serde_json::from_str::<IssueEvent>(&format!("{{{members}"));
                prop_assert_eq!(Some(found), parsed.ok(), "{}", text);
            }
        }
    }

    #[test]
    fn events_as_they_are_written_are_in_the_usual_layout() {
        let ts = Timestamp::from_ms(1);
        let patch = Patch::new().set("notes", "a \" b").unwrap();
        for event in [
            IssueEvent::add(Issue::new("a", "Mend"), ts),
            IssueEvent::close("a", ts),
            IssueEvent::patch("a", patch, ts).with_key("k"),
        ] {
            let text = serde_json::to_string(&event).unwrap();
            let members = text.strip_prefix('{').unwrap();
            assert_eq!(IssueEvent::plain(members), Some(event), "{text}");
        }
        for text in [
            "\"ts\":1,\"op\":\"close\",\"id\":\"a\u{1}\",\"data\":null}",
            r#""ts":01,"op":"close","id":"a","data":null}"#,
            r#""ts":1,"op":"close","id":"a","data":null,"key":"k","by":"me"}"#,
            r#""ts":1,"op":"close","id":"a","data":null}}"#,
            r#""ts":1,"op":"add","id":"a","data":{"id":}}"#,
        ] {
            assert_eq!(IssueEvent::plain(text), None, "{text}");
        }
    }
}
