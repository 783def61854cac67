use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{
    error::InvalidEvent,
    format::record::RECORD_BYTES_MAX,
    issues::{
        canonical_json::same,
        issue::{Fields, Issue, Name, RawFields, TITLE_BYTES_MAX, at_most, new_raw, put, raw},
    },
};

/// A longer issue would not fit into a record of its own.
const ISSUE_BYTES_MAX: usize = RECORD_BYTES_MAX - 2048;

/// A change of some fields of an issue: if two agents patch different fields, both changes survive.
///
/// Sets and unsets fields first; then removes from, adds to and appends to arrays, in this order. A
/// missing field counts as an empty array.
///
/// ```
/// use strand_core::{Issue, Patch};
///
/// let issue = Issue::from_json(r#"{"id":"bd-1","title":"Mend","x":1.10,"labels":["a"]}"#)?;
/// let patch = Patch::new().set("priority", &1)?.add_label("b").remove_label("a");
/// let patched = patch.apply(&issue)?;
/// let expected = r#"{"id":"bd-1","title":"Mend","x":1.10,"labels":["b"],"priority":1}"#;
/// assert_eq!(patched.as_json(), expected);
///
/// let patch = Patch::new().unset("x").remove("labels", "a")?.append_comment("no wire")?;
/// assert!(!patch.is_empty());
/// let patched = patch.apply(&issue)?;
/// let expected = r#"{"id":"bd-1","title":"Mend","labels":[],"comments":["no wire"]}"#;
/// assert_eq!(patched.as_json(), expected);
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Patch {
    set: Vec<(String, Box<RawValue>)>,
    unset: Vec<String>,
    remove: Lists,
    add: Lists,
    append: Lists,
    /// Members of a later version, in their order.
    extra: Vec<(String, Box<RawValue>)>,
}

/// The values for each array, by the name of its field.
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
    /// [`InvalidEvent::Encoding`] if serde can't write the value; [`InvalidEvent::LoneSurrogate`]
    /// and [`InvalidEvent::TooDeep`] if others can't read it.
    pub fn set(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        self.set.push((field.into(), new_raw(value)?));
        Ok(self)
    }

    pub(crate) fn set_string(self, field: &str, value: &str) -> Self {
        self.set(field, value).unwrap_or_else(string_fails)
    }

    /// Removes a field.
    #[must_use]
    pub fn unset(mut self, field: impl Into<String>) -> Self {
        self.unset.push(field.into());
        self
    }

    /// Adds a value to an array, unless the array has an equal one. Values are equal if they mean
    /// the same JSON value. Example: [`Patch`].
    ///
    /// # Errors
    /// As [`Patch::set`].
    pub fn add(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.add, field.into(), new_raw(value)?);
        Ok(self)
    }

    /// Removes all equal values from an array.
    ///
    /// # Errors
    /// As [`Patch::set`].
    pub fn remove(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.remove, field.into(), new_raw(value)?);
        Ok(self)
    }

    /// Appends a value to an array.
    ///
    /// Example: [`Patch`].
    ///
    /// # Errors
    /// As [`Patch::set`].
    pub fn append(
        mut self,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        push(&mut self.append, field.into(), new_raw(value)?);
        Ok(self)
    }

    /// Adds a label, unless the issue has it.
    #[must_use]
    pub fn add_label(self, label: &str) -> Self {
        self.add("labels", label).unwrap_or_else(string_fails)
    }

    /// Removes a label.
    #[must_use]
    pub fn remove_label(self, label: &str) -> Self {
        self.remove("labels", label).unwrap_or_else(string_fails)
    }

    /// Appends a comment, in the tracker's own shape.
    ///
    /// # Errors
    /// As [`Patch::set`].
    pub fn append_comment(self, comment: &(impl Serialize + ?Sized)) -> Result<Self, InvalidEvent> {
        self.append("comments", comment)
    }

    /// The value that it sets a field to.
    pub(crate) fn value_of<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        let (_, value) = self.set.iter().rev().find(|(name, _)| name == field)?;
        serde_json::from_str(value.get()).ok()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut lists = self.lists().into_iter();
        self.set.is_empty() && self.unset.is_empty() && lists.all(|(_, list)| list.is_empty())
    }

    /// Whether it changes this field.
    pub(crate) fn mentions(&self, field: &str) -> bool {
        let lists = self.lists().into_iter().flat_map(|(_, list)| list);
        let lists = lists.map(|(name, _)| name);
        let mut names = self.set.iter().map(|(name, _)| name).chain(lists);
        names.any(|name| name == field) || self.unset.iter().any(|name| name == field)
    }

    fn lists(&self) -> [(&'static str, &Lists); 3] {
        [
            ("remove", &self.remove),
            ("add", &self.add),
            ("append", &self.append),
        ]
    }

    /// Refuses a patch that would change the id, or make the title something else than a string.
    ///
    /// # Errors
    /// [`InvalidEvent::Field`], [`InvalidEvent::TooLong`].
    pub(crate) fn validate(&self) -> Result<(), InvalidEvent> {
        let lists = self.lists().into_iter().flat_map(|(_, list)| list);
        let mut others = self.unset.iter().chain(lists.map(|(field, _)| field));
        let refused = |field, expected| Err(InvalidEvent::Field { field, expected });
        if others.clone().any(|field| field == "id")
            || self.set.iter().any(|(field, _)| field == "id")
        {
            return refused("id", "thing that a patch changes");
        }
        if others.any(|field| field == "title") {
            return refused("title", "string");
        }
        for (_, value) in self.set.iter().filter(|(field, _)| field == "title") {
            let Ok(text) = serde_json::from_str::<String>(value.get()) else {
                return refused("title", "string");
            };
            at_most("title", text.len(), TITLE_BYTES_MAX)?;
        }
        Ok(())
    }

    /// The issue with the changes. All other fields keep their bytes and their order.
    ///
    /// # Errors
    /// [`InvalidEvent::NotAnArray`] if a field should be an array and is not;
    /// [`InvalidEvent::TooLong`] if the issue would no longer fit into a record.
    pub fn apply(&self, issue: &Issue) -> Result<Issue, InvalidEvent> {
        self.apply_with(issue, None)
    }

    /// Like [`Patch::apply`], but also sets `updated_at`, unless the patch sets or removes it.
    pub(crate) fn apply_with(
        &self,
        issue: &Issue,
        updated_at: Option<&RawValue>,
    ) -> Result<Issue, InvalidEvent> {
        let mut fields = issue.fields();
        for (field, value) in &self.set {
            put(&mut fields, field, value);
        }
        let mut touched = self.set.iter().map(|(field, _)| field).chain(&self.unset);
        if let Some(updated_at) = updated_at
            && !touched.any(|field| field == "updated_at")
        {
            put(&mut fields, "updated_at", updated_at);
        }
        if !self.unset.is_empty() {
            fields.retain(|(name, _)| !self.unset.iter().any(|field| field == name));
        }
        let mut arrays: Vec<(&str, Vec<Cow<'_, RawValue>>)> = Vec::new();
        for (change, list) in self.lists() {
            for (field, values) in list {
                if !arrays.iter().any(|(name, _)| name == field) {
                    arrays.push((field, array(&fields, field)?));
                }
                let array = arrays.iter_mut().find(|(name, _)| name == field);
                let Some((_, array)) = array else { continue };
                for value in values {
                    match change {
                        "remove" => array.retain(|old| !same(old, value)),
                        "add" if array.iter().any(|old| same(old, value)) => {}
                        _ => array.push(Cow::Borrowed(value)),
                    }
                }
            }
        }
        let arrays: Vec<(&str, Box<RawValue>)> = arrays
            .iter()
            .map(|(field, values)| Ok((*field, raw(values)?)))
            .collect::<Result<_, InvalidEvent>>()?;
        for (field, value) in &arrays {
            put(&mut fields, field, value);
        }
        let patched = Issue::of(&fields)?;
        at_most("issue", patched.as_json().len(), ISSUE_BYTES_MAX)?;
        Ok(patched)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "`unwrap_or_else` passes it so"
)]
fn string_fails(error: InvalidEvent) -> Patch {
    unreachable!("serde writes any string: {error}")
}

/// The elements of a field that is an array or missing.
fn array<'a>(fields: &RawFields<'a>, field: &str) -> Result<Vec<Cow<'a, RawValue>>, InvalidEvent> {
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

impl PartialEq for Patch {
    /// Whether the two are equal to the byte, not only in meaning.
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
        for (name, list) in self.lists() {
            if !list.is_empty() {
                map.serialize_entry(name, &Map(list))?;
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
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        "set" => patch.set = members(&mut map)?,
                        "unset" => patch.unset = map.next_value()?,
                        "remove" => patch.remove = members(&mut map)?,
                        "add" => patch.add = members(&mut map)?,
                        "append" => patch.append = members(&mut map)?,
                        _ => patch.extra.push((name.into_owned(), map.next_value()?)),
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
