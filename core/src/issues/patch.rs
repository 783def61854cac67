use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{
    error::InvalidEvent,
    format::record::RECORD_BYTES_MAX,
    issues::{
        canonical_json::same,
        issue::{Fields, Issue, TITLE_BYTES_MAX, at_most},
    },
};

/// A longer issue would not fit into a record of its own, with the frame.
const ISSUE_BYTES_MAX: usize = RECORD_BYTES_MAX - 2048;

/// A change of some fields of an issue, which leaves the others to others: two agents that patch
/// different fields of one issue both survive.
///
/// Applied in this order: `set` and `unset`, then `remove`, `add` and `append`, which change
/// arrays. A field that is missing is an empty array to these three.
///
/// ```
/// use strand_core::{Issue, Patch};
///
/// let text = r#"{"id":"bd-1","title":"Mend it","x":1.10,"labels":["a"]}"#;
/// let issue = Issue::from_json(text)?;
/// let patch = Patch::new().set("priority", &1)?.add_label("b").remove_label("a");
/// let patched = patch.apply(&issue)?;
/// let text = r#"{"id":"bd-1","title":"Mend it","x":1.10,"labels":["b"],"priority":1}"#;
/// assert_eq!(patched.as_json(), text);
///
/// let patch = Patch::new().unset("x").remove("labels", "a")?.append_comment("wire is short")?;
/// assert!(!patch.is_empty());
/// let patched = patch.apply(&issue)?;
/// let text = r#"{"id":"bd-1","title":"Mend it","labels":[],"comments":["wire is short"]}"#;
/// assert_eq!(patched.as_json(), text);
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Patch {
    set: Vec<(String, Box<RawValue>)>,
    unset: Vec<String>,
    remove: Vec<(String, Vec<Box<RawValue>>)>,
    add: Vec<(String, Vec<Box<RawValue>>)>,
    append: Vec<(String, Vec<Box<RawValue>>)>,
    /// Members of a later version, in their order.
    extra: Vec<(String, Box<RawValue>)>,
}

type Lists = Vec<(String, Vec<Box<RawValue>>)>;

impl Patch {
    /// A patch that changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field, in its place or at the end.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write the value.
    pub fn set(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        self.set.push((field.into(), raw(value)?));
        Ok(self)
    }

    pub(crate) fn set_string(self, field: &str, value: &str) -> Self {
        self.set(field, value).unwrap_or_else(string_fails)
    }

    /// Takes a field away.
    #[must_use]
    pub fn unset(mut self, field: impl Into<String>) -> Self {
        self.unset.push(field.into());
        self
    }

    /// Adds a value to an array, unless an equal one is in it. Equal is what means the same JSON
    /// value.
    ///
    /// Example: [`Patch`].
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write the value.
    pub fn add(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.add, field.into(), raw(value)?);
        Ok(self)
    }

    /// Takes all equal values out of an array.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write the value.
    pub fn remove(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.remove, field.into(), raw(value)?);
        Ok(self)
    }

    /// Adds a value at the end of an array.
    ///
    /// Example: [`Patch`].
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write the value.
    pub fn append(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.append, field.into(), raw(value)?);
        Ok(self)
    }

    /// Adds a label, unless the issue has it.
    #[must_use]
    pub fn add_label(self, label: &str) -> Self {
        self.add("labels", label).unwrap_or_else(string_fails)
    }

    /// Takes a label away.
    #[must_use]
    pub fn remove_label(self, label: &str) -> Self {
        self.remove("labels", label).unwrap_or_else(string_fails)
    }

    /// Adds a comment, in whatever shape the tracker gives its comments.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write it.
    pub fn append_comment(self, comment: &(impl Serialize + ?Sized)) -> Result<Self, InvalidEvent> {
        self.append("comments", comment)
    }

    /// True when it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let lists = [&self.remove, &self.add, &self.append];
        self.set.is_empty() && self.unset.is_empty() && lists.iter().all(|list| list.is_empty())
    }

    /// Refuses a patch that would take an issue its id or its title.
    ///
    /// # Errors
    /// [`InvalidEvent::Field`], [`InvalidEvent::TooLong`].
    pub(crate) fn validate(&self) -> Result<(), InvalidEvent> {
        let lists = [&self.remove, &self.add, &self.append];
        let of_lists = lists.into_iter().flatten().map(|(field, _)| field);
        let taken = self.unset.iter().chain(of_lists);
        for field in self.set.iter().map(|(field, _)| field).chain(taken.clone()) {
            if field == "id" {
                let expected = "thing that a patch changes";
                return Err(InvalidEvent::Field {
                    field: "id",
                    expected,
                });
            }
        }
        let title = InvalidEvent::Field {
            field: "title",
            expected: "string",
        };
        if taken.into_iter().any(|field| field == "title") {
            return Err(title);
        }
        for (_, value) in self.set.iter().filter(|(field, _)| field == "title") {
            let Ok(text) = serde_json::from_str::<String>(value.get()) else {
                return Err(title);
            };
            at_most("title", text.len(), TITLE_BYTES_MAX)?;
        }
        Ok(())
    }

    /// The issue with the changes; all other fields keep their bytes and their order.
    ///
    /// # Errors
    /// [`InvalidEvent::NotAnArray`] when a field that should be an array is none;
    /// [`InvalidEvent::TooLong`] when the issue would not fit into a record any more.
    pub fn apply(&self, issue: &Issue) -> Result<Issue, InvalidEvent> {
        self.apply_with(issue, None)
    }

    /// As [`Patch::apply`], and sets `updated_at` unless the patch does something to it.
    pub(crate) fn apply_with(
        &self,
        issue: &Issue,
        updated_at: Option<&RawValue>,
    ) -> Result<Issue, InvalidEvent> {
        let mut fields = issue.fields();
        for (field, value) in &self.set {
            put(&mut fields, field, value);
        }
        let touches = |name: &str| {
            self.set.iter().any(|(field, _)| field == name)
                || self.unset.iter().any(|field| field == name)
        };
        if let Some(updated_at) = updated_at.filter(|_| !touches("updated_at")) {
            put(&mut fields, "updated_at", updated_at);
        }
        if !self.unset.is_empty() {
            fields.retain(|(name, _)| !self.unset.iter().any(|field| field == name));
        }
        let lists = [&self.remove, &self.add, &self.append];
        let mut arrays: Vec<(&str, Vec<Cow<'_, RawValue>>)> = Vec::new();
        for (kind, list) in lists.into_iter().enumerate() {
            for (field, values) in list {
                let begun = arrays.iter().any(|(name, _)| *name == field.as_str());
                if !begun {
                    arrays.push((field, array(&fields, field)?));
                }
                let array = arrays.iter_mut().find(|(name, _)| *name == field.as_str());
                let Some((_, array)) = array else { continue };
                for value in values {
                    match kind {
                        0 => array.retain(|old| !same(old, value)),
                        1 if array.iter().any(|old| same(old, value)) => {}
                        _ => array.push(Cow::Borrowed(value)),
                    }
                }
            }
        }
        let arrays: Vec<(&str, Box<RawValue>)> = arrays
            .iter()
            .map(|(field, values)| Ok((*field, raw(&values)?)))
            .collect::<Result<_, InvalidEvent>>()?;
        for (field, value) in &arrays {
            put(&mut fields, field, value);
        }
        let patched = Issue::of(&fields)?;
        at_most("issue", patched.as_json().len(), ISSUE_BYTES_MAX)?;
        Ok(patched)
    }
}

fn string_fails(error: InvalidEvent) -> Patch {
    unreachable!("serde writes any string: {error}")
}

fn put<'a>(fields: &mut Vec<(Cow<'a, str>, &'a RawValue)>, field: &'a str, value: &'a RawValue) {
    match fields.iter_mut().rev().find(|(name, _)| name == field) {
        Some((_, old)) => *old = value,
        None => fields.push((Cow::Borrowed(field), value)),
    }
}

/// The elements of a field that is an array, or missing.
fn array<'a>(
    fields: &[(Cow<'a, str>, &'a RawValue)],
    field: &str,
) -> Result<Vec<Cow<'a, RawValue>>, InvalidEvent> {
    let value = fields.iter().rev().find(|(name, _)| name == field);
    let Some((_, value)) = value else {
        return Ok(Vec::new());
    };
    let elements = serde_json::from_str::<Vec<&RawValue>>(value.get());
    let elements = elements.map_err(|_| InvalidEvent::NotAnArray {
        field: field.to_owned(),
    })?;
    Ok(elements.into_iter().map(Cow::Borrowed).collect())
}

fn push(lists: &mut Lists, field: String, value: Box<RawValue>) {
    match lists.iter_mut().find(|(name, _)| *name == field) {
        Some((_, values)) => values.push(value),
        None => lists.push((field, vec![value])),
    }
}

fn raw(value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, InvalidEvent> {
    serde_json::value::to_raw_value(value).map_err(|error| InvalidEvent::Encoding {
        message: error.to_string(),
    })
}

impl PartialEq for Patch {
    /// Equal to the byte, not only in meaning.
    fn eq(&self, other: &Self) -> bool {
        serde_json::to_string(self).ok() == serde_json::to_string(other).ok()
    }
}

impl Serialize for Patch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Map<'a, V>(&'a [(String, V)]);
        impl<V: Serialize> Serialize for Map<'_, V> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
            }
        }
        let mut map = serializer.serialize_map(None)?;
        if !self.set.is_empty() {
            map.serialize_entry("set", &Map(&self.set))?;
        }
        if !self.unset.is_empty() {
            map.serialize_entry("unset", &self.unset)?;
        }
        for (name, lists) in [
            ("remove", &self.remove),
            ("add", &self.add),
            ("append", &self.append),
        ] {
            if !lists.is_empty() {
                map.serialize_entry(name, &Map(lists))?;
            }
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Patch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Patch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a patch: an object with `set`, `unset`, `remove`, `add` or `append`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patch, A::Error> {
                let mut patch = Patch::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "set" => patch.set = members(&mut map)?,
                        "unset" => patch.unset = map.next_value()?,
                        "remove" => patch.remove = members(&mut map)?,
                        "add" => patch.add = members(&mut map)?,
                        "append" => patch.append = members(&mut map)?,
                        _ => patch.extra.push((name, map.next_value()?)),
                    }
                }
                Ok(patch)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The members of an object, in their order.
fn members<'de, V: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
) -> Result<Vec<(String, V)>, A::Error> {
    let Fields(members) = map.next_value::<Fields<'de, V>>()?;
    let owned = |(name, value): (Cow<'de, str>, V)| (name.into_owned(), value);
    Ok(members.into_iter().map(owned).collect())
}
