use std::{borrow::Cow, fmt, marker::PhantomData, sync::LazyLock};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    error::{InvalidEvent, json_problem},
    format::{
        i_json::{self, NESTING_MAX},
        members::{Members, plain_string},
        search::Finder,
    },
    issues::timestamp::Timestamp,
};

/// The longest id of an [`Issue`], in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// The longest title of an [`Issue`], in bytes. Trackers hold titles of more than 5,000 bytes.
pub const TITLE_BYTES_MAX: usize = 64 << 10;

/// An issue: a JSON object, kept exactly as it was written, with accessors for the fields that
/// issue trackers share.
///
/// Fields that this crate does not know, the order of fields and the spelling of numbers survive.
/// If an object has a name twice, both are kept, and the last one counts. Each accessor parses the
/// text again, so call it once and keep the value.
///
/// ```
/// use strand_core::{Issue, Timestamp};
///
/// let issue = Issue::from_json(r#"{"id":"bd-1","title":"Mend","estimate":1.10,"labels":["a"]}"#)?;
/// assert_eq!(issue.title(), "Mend");
/// assert_eq!(issue.labels(), ["a"]);
/// let issue = issue.with("status", &"closed")?.without("labels")?;
/// let expected = r#"{"id":"bd-1","title":"Mend","estimate":1.10,"status":"closed"}"#;
/// assert_eq!(issue.as_json(), expected);
///
/// // Fields that every tracker has, and any other.
/// assert_eq!(issue.status().as_deref(), Some("closed"));
/// assert_eq!((issue.priority(), issue.assignee()), (None, None));
/// assert_eq!((issue.issue_type(), issue.description()), (None, None));
/// assert_eq!(issue.field::<f64>("estimate"), Some(1.1));
/// assert_eq!(issue.get("estimate").map(|value| value.get()), Some("1.10"));
/// assert_eq!(issue.fields().len(), 4);
///
/// let old = Issue::new_at("bd-2", "Buy wire", Timestamp::from_ms(0));
/// assert_eq!(old.field::<String>("created_at").as_deref(), Some("1970-01-01T00:00:00.000Z"));
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Clone)]
pub struct Issue(Text);

/// The text of an object.
#[derive(Clone)]
enum Text {
    /// A parser has read it.
    Parsed(Box<RawValue>),
    /// It was written as one of those, and has the checksum that it had then.
    Unchanged(Box<str>),
}

impl Issue {
    /// A new open issue, with the fields that every tracker has, created now.
    #[must_use]
    pub fn new(id: &str, title: &str) -> Self {
        Self::new_at(id, title, Timestamp::now())
    }

    /// A new open issue, with the fields that every tracker has, created at `ts`. Example:
    /// [`Issue`].
    #[must_use]
    pub fn new_at(id: &str, title: &str, ts: Timestamp) -> Self {
        #[derive(Serialize)]
        struct New<'a> {
            id: &'a str,
            title: &'a str,
            description: &'a str,
            status: &'a str,
            priority: u8,
            issue_type: &'a str,
            created_at: &'a str,
            updated_at: &'a str,
        }
        let now = ts.to_string();
        let new = New {
            id,
            title,
            description: "",
            status: "open",
            priority: 2,
            issue_type: "task",
            created_at: &now,
            updated_at: &now,
        };
        let new = raw(&new).map(Text::Parsed);
        Self(new.unwrap_or_else(|error| unreachable!("these fields can be written: {error}")))
    }

    /// Parses a JSON object that has an `id` and a `title`.
    ///
    /// # Errors
    /// [`InvalidEvent::NotAnObject`]; [`InvalidEvent::Field`] if the id or the title is missing or
    /// not a string; [`InvalidEvent::EmptyId`], [`InvalidEvent::TooLong`],
    /// [`InvalidEvent::LoneSurrogate`], [`InvalidEvent::TooDeep`].
    pub fn from_json(text: &str) -> Result<Self, InvalidEvent> {
        let issue = Self::parse(text)?;
        issue.validate()?;
        Ok(issue)
    }

    /// Parses any object.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidEvent> {
        serde_json::from_str(text).map_err(|error| InvalidEvent::NotAnObject {
            message: json_problem(&error),
        })
    }

    /// Takes the text of one that was written with a checksum, and has not changed since. To parse
    /// it again would take longer than to read it.
    pub(crate) fn unchanged(text: &str) -> Self {
        Self(Text::Unchanged(text.into()))
    }

    /// The object as it was written.
    #[must_use]
    pub fn as_json(&self) -> &str {
        match &self.0 {
            Text::Parsed(object) => object.get(),
            Text::Unchanged(text) => text,
        }
    }

    pub(crate) fn as_raw(&self) -> &RawValue {
        match &self.0 {
            Text::Parsed(object) => object,
            Text::Unchanged(text) => serde_json::from_str(text).unwrap_or(RawValue::NULL),
        }
    }

    /// Checks the id and the title, and that other programs can read the text.
    pub(crate) fn validate(&self) -> Result<(), InvalidEvent> {
        i_json::check(self.as_json().as_bytes(), NESTING_MAX)?;
        self.validated_id().map(drop)
    }

    /// The id of a valid issue.
    pub(crate) fn validated_id(&self) -> Result<String, InvalidEvent> {
        let names = Names::of(self.as_json());
        if let Some(id) = names.carried_id(self.as_json()) {
            return Ok(id);
        }
        let required = |value, field| {
            string(value).ok_or(InvalidEvent::Field {
                field,
                expected: "string",
            })
        };
        let id = required(names.id, "id")?;
        validate_id(&id)?;
        let title = required(names.title, "title")?;
        at_most("title", title.len(), TITLE_BYTES_MAX)?;
        Ok(id.into_owned())
    }

    /// The fields in their order, as they were written.
    #[must_use]
    pub fn fields(&self) -> Vec<(Cow<'_, str>, &RawValue)> {
        // An `Issue` is always an object, but its members have not been parsed.
        serde_json::from_str::<Fields<'_>>(self.as_json())
            .map(|fields| fields.0)
            .unwrap_or_default()
    }

    /// A field as it was written; the last one of its name.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&RawValue> {
        self.fields()
            .into_iter()
            .rev()
            .find(|(name, _)| name == field)
            .map(|(_, value)| value)
    }

    /// A field as a value of type `T`; `None` if it is missing or of another type.
    #[must_use]
    pub fn field<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        // Found without parsing the others.
        let fields = Members::of(self.as_json()).filter(|(name, _)| name == field);
        serde_json::from_str(fields.last()?.1).ok()
    }

    /// The same issue with a field replaced in its place, or added at the end.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] if serde can't write the value; [`InvalidEvent::LoneSurrogate`]
    /// and [`InvalidEvent::TooDeep`] if others can't read it.
    pub fn with(
        &self,
        field: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        let value = new_raw(value)?;
        let mut fields = self.fields();
        put(&mut fields, field, &value);
        Self::of(&fields)
    }

    /// The same issue without a field.
    ///
    /// # Errors
    /// None in practice.
    pub fn without(&self, field: &str) -> Result<Self, InvalidEvent> {
        let mut fields = self.fields();
        fields.retain(|(name, _)| name != field);
        Self::of(&fields)
    }

    pub(crate) fn of(fields: &[(Cow<'_, str>, &RawValue)]) -> Result<Self, InvalidEvent> {
        let bytes = |(name, value): &(Cow<'_, str>, &RawValue)| name.len() + value.get().len() + 4;
        let mut text = String::with_capacity(2 + fields.iter().map(bytes).sum::<usize>());
        for (name, value) in fields {
            text.push(if text.is_empty() { '{' } else { ',' });
            if name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                text.push('"');
                text.push_str(name);
                text.push('"');
            } else {
                text.push_str(&serde_json::to_string(name).map_err(encoding)?);
            }
            text.push(':');
            text.push_str(value.get());
        }
        text.push_str(if text.is_empty() { "{}" } else { "}" });
        let object = RawValue::from_string(text).map_err(encoding)?;
        Ok(Self(Text::Parsed(object)))
    }

    /// Its id; empty if it has none. A carried line has one that is made from its content.
    #[must_use]
    pub fn id(&self) -> String {
        let names = Names::of(self.as_json());
        let id = || string(names.id).map(Cow::into_owned);
        let carried = names.carried_id(self.as_json());
        carried.or_else(id).unwrap_or_default()
    }

    /// Whether this is no issue, but another line of a tracker's file: an object with a `_type`
    /// that is not `issue`, and without an `id` or without a `title`. It is imported, merged and
    /// exported as a whole, and no query finds it.
    ///
    /// Its id is `_`, the type, `:`, and its `key` or `id`; without these, a digest of the line.
    ///
    /// ```
    /// use strand_core::Issue;
    ///
    /// let note = Issue::from_json(r#"{"_type":"memory","key":"wire","value":"is short"}"#)?;
    /// assert!(note.is_carried());
    /// assert_eq!(note.id(), "_memory:wire");
    /// # Ok::<(), strand_core::InvalidEvent>(())
    /// ```
    #[must_use]
    pub fn is_carried(&self) -> bool {
        // Most texts end the search, without parsing.
        static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""_type""#));
        let text = self.as_json();
        TYPE.find(text.as_bytes()).is_some() && Names::of(text).carried_id(text).is_some()
    }

    /// Its title; empty if it has none.
    #[must_use]
    pub fn title(&self) -> String {
        self.field("title").unwrap_or_default()
    }

    /// Its description.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        self.field("description")
    }

    /// Its status: `open`, `in_progress`, `blocked`, `closed`, …
    #[must_use]
    pub fn status(&self) -> Option<String> {
        self.field("status")
    }

    /// Its priority; 0 is the most urgent.
    #[must_use]
    pub fn priority(&self) -> Option<i64> {
        self.field("priority")
    }

    /// Its type: `bug`, `feature`, `task`, …
    #[must_use]
    pub fn issue_type(&self) -> Option<String> {
        self.field("issue_type")
    }

    /// The agent or person who works on it.
    #[must_use]
    pub fn assignee(&self) -> Option<String> {
        self.field("assignee")
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.field("labels").unwrap_or_default()
    }
}

/// What an issue's id is made of: of each field the last value, as it was written.
#[derive(Default)]
struct Names<'a> {
    id: Option<&'a str>,
    title: Option<&'a str>,
    kind: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// Found without parsing the other fields, since every append pays for it. An object with an
    /// unreadable name seems to have no fields, as in [`Issue::fields`].
    fn of(object: &'a str) -> Self {
        let mut names = Self::default();
        let mut members = Members::of(object);
        for (name, value) in &mut members {
            match &*name {
                "id" => names.id = Some(value),
                "title" => names.title = Some(value),
                "_type" => names.kind = Some(value),
                "key" => names.key = Some(value),
                _ => {}
            }
        }
        if members.were_whole() {
            names
        } else {
            Self::default()
        }
    }

    /// The id of a line that is carried: see [`Issue::is_carried`].
    fn carried_id(&self, object: &str) -> Option<String> {
        let kind = string(self.kind)?;
        if kind == "issue" || self.id.is_some() && self.title.is_some() {
            return None;
        }
        let named = string(self.key)
            .or_else(|| string(self.id))
            .map(|key| format!("_{kind}:{key}"));
        let fits = |id: &String| id.len() <= ID_BYTES_MAX;
        let digest = || format!("_:{:016x}", digest(&[object]));
        Some(named.filter(fits).unwrap_or_else(digest))
    }
}

/// An element of the field `dependencies`.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    /// The issue that it depends on.
    pub(crate) depends_on_id: String,
    /// The kind of dependency: `blocks`, `parent-child`, `related`, …
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// A digest of some texts (FNV-1a), for names that must be the same wherever they are made.
pub(crate) fn digest(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn validate_id(id: &str) -> Result<(), InvalidEvent> {
    if id.is_empty() {
        return Err(InvalidEvent::EmptyId);
    }
    at_most("id", id.len(), ID_BYTES_MAX)
}

pub(crate) fn at_most(field: &'static str, bytes: usize, max: usize) -> Result<(), InvalidEvent> {
    if bytes > max {
        Err(InvalidEvent::TooLong { field, bytes, max })
    } else {
        Ok(())
    }
}

/// The fields of an issue, each value as it was written.
pub(crate) type RawFields<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// A value that is a string.
fn string(value: Option<&str>) -> Option<Cow<'_, str>> {
    match plain_string(value?.as_bytes()) {
        Some((text, _)) => Some(Cow::Borrowed(text)),
        None => serde_json::from_str(value?).ok().map(Cow::Owned),
    }
}

/// Sets a field in its place, or at the end.
pub(crate) fn put<'a>(fields: &mut RawFields<'a>, field: &'a str, value: &'a RawValue) {
    match fields.iter_mut().rev().find(|(name, _)| name == field) {
        Some((_, old)) => *old = value,
        None => fields.push((Cow::Borrowed(field), value)),
    }
}

pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, InvalidEvent> {
    serde_json::value::to_raw_value(value).map_err(encoding)
}

/// A new value for an issue's field.
pub(crate) fn new_raw(value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, InvalidEvent> {
    let value = raw(value)?;
    i_json::check(value.get().as_bytes(), NESTING_MAX - 1)?;
    Ok(value)
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes it so")]
fn encoding(error: serde_json::Error) -> InvalidEvent {
    InvalidEvent::Encoding {
        message: error.to_string(),
    }
}

impl PartialEq for Issue {
    /// Whether the two are equal to the byte, not only in meaning.
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Issue {}

impl fmt::Debug for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issue({})", self.as_json())
    }
}

impl Serialize for Issue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_raw().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Issue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        if value.get().starts_with('{') {
            Ok(Self(Text::Parsed(value)))
        } else {
            Err(D::Error::custom("an issue must be a JSON object"))
        }
    }
}

/// The members of an object in their order, by default each value as text.
pub(crate) struct Fields<'a, V = &'a RawValue>(pub(crate) Vec<(Cow<'a, str>, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Fields<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Fields<'de, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A member's name, borrowed unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As [`Names::of`], by a parser.
    fn parsed(issue: &Issue) -> [Option<String>; 4] {
        ["id", "title", "_type", "key"].map(|name| issue.get(name).map(|value| value.get().into()))
    }

    fn any_object() -> impl Strategy<Value = String> {
        let names = prop::sample::select(vec![
            r#""id""#,
            r#""\u0069d""#,
            r#""title""#,
            r#""t\u0069tle""#,
            r#""_type""#,
            r#""\u005ftype""#,
            r#""key""#,
            r#""x""#,
            r#""\"id\"""#,
            r#""""#,
            r#""\ud83e\udea2""#,
            r#""\udea2""#,
        ]);
        let values = prop::sample::select(vec![
            r#""bd-1""#,
            r#""\u0062d-1""#,
            r#""issue""#,
            r#""note""#,
            r#""""#,
            r#""\ud800""#,
            r#""}\"{""#,
            r#"["id","title"]"#,
            r#"{"id":"b","key":{}}"#,
            "null",
            "true",
            "-1.5e+3",
            r#""\\""#,
        ]);
        let space = prop::sample::select(vec!["", "", " ", "\n\t\r "]);
        let member = (names, values, space);
        prop::collection::vec(member, 0..6).prop_map(|members| {
            let members = members
                .into_iter()
                .map(|(name, value, space)| format!("{space}{name}{space}:{space}{value}{space}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn the_names_are_those_that_a_parser_finds(object in any_object()) {
            let issue = Issue::parse(&object).unwrap();
            let Names { id, title, kind, key } = Names::of(issue.as_json());
            let found = [id, title, kind, key].map(|value| value.map(str::to_owned));
            prop_assert_eq!(found, parsed(&issue));
        }
    }
}
