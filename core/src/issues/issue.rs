use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{error::InvalidEvent, issues::timestamp::Timestamp};

/// The longest id of an [`Issue`], in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// The longest title of an [`Issue`], in bytes.
pub const TITLE_BYTES_MAX: usize = 4096;

/// An issue: a JSON object, kept exactly as it was written, with views on the fields that issue
/// trackers share.
///
/// Fields that this crate does not know, the order of the fields and the spelling of numbers all
/// survive. Where an object names a field twice, the last one counts, and both are kept. Each view
/// reads the text anew, so take what you need once.
///
/// ```
/// use strand_core::Issue;
///
/// let text = r#"{"id":"bd-1","title":"Mend the fence","estimate":1.10,"labels":["garden"]}"#;
/// let issue = Issue::from_json(text)?;
/// assert_eq!(issue.title(), "Mend the fence");
/// assert_eq!(issue.labels(), ["garden"]);
/// let issue = issue.with("status", &"closed")?.without("labels")?;
/// let text = r#"{"id":"bd-1","title":"Mend the fence","estimate":1.10,"status":"closed"}"#;
/// assert_eq!(issue.as_json(), text);
///
/// // Fields that every tracker has, and any other.
/// assert_eq!(issue.status().as_deref(), Some("closed"));
/// assert_eq!((issue.priority(), issue.assignee()), (None, None));
/// assert_eq!((issue.issue_type(), issue.description()), (None, None));
/// assert_eq!((issue.created_at(), issue.updated_at(), issue.closed_at()), (None, None, None));
/// assert!(issue.comments().is_empty() && issue.dependencies().is_empty());
/// assert_eq!(issue.field::<f64>("estimate"), Some(1.1));
/// assert_eq!(issue.get("estimate").map(|value| value.get()), Some("1.10"));
/// assert_eq!(issue.fields().len(), 4);
/// issue.validate()?;
/// # Ok::<(), strand_core::InvalidEvent>(())
/// ```
#[derive(Clone)]
pub struct Issue(Box<RawValue>);

impl Issue {
    /// A new open issue, with the fields that every tracker has.
    #[must_use]
    pub fn new(id: &str, title: &str, ts: Timestamp) -> Self {
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
        Self(raw(&new).unwrap_or_else(|error| unreachable!("these fields can be written: {error}")))
    }

    /// Takes a JSON object that has an `id` and a `title`.
    ///
    /// # Errors
    /// [`InvalidEvent::NotAnObject`], and what [`Issue::validate`] refuses.
    pub fn from_json(text: &str) -> Result<Self, InvalidEvent> {
        let not_an_object = |error: serde_json::Error| InvalidEvent::NotAnObject {
            message: error.to_string(),
        };
        let issue: Self = serde_json::from_str(text).map_err(not_an_object)?;
        issue.validate()?;
        Ok(issue)
    }

    /// The object as it was written.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Refuses an issue without a proper id and title.
    ///
    /// # Errors
    /// [`InvalidEvent::Field`] when one is missing or no string, [`InvalidEvent::EmptyId`],
    /// [`InvalidEvent::TooLong`].
    pub fn validate(&self) -> Result<(), InvalidEvent> {
        self.validated_id().map(drop)
    }

    /// The id of a valid issue. One look at the text, since every append pays for it.
    pub(crate) fn validated_id(&self) -> Result<String, InvalidEvent> {
        let fields = self.fields();
        let string = |field| {
            let value = fields.iter().rev().find(|(name, _)| name == field);
            let text =
                value.and_then(|(_, value)| serde_json::from_str::<String>(value.get()).ok());
            text.ok_or(InvalidEvent::Field {
                field,
                expected: "string",
            })
        };
        let id = string("id")?;
        validate_id(&id)?;
        at_most("title", string("title")?.len(), TITLE_BYTES_MAX)?;
        Ok(id)
    }

    /// The fields in their order, as they were written.
    #[must_use]
    pub fn fields(&self) -> Vec<(Cow<'_, str>, &RawValue)> {
        // Only an object gets into an `Issue`, but its text was not parsed deeper than that.
        serde_json::from_str::<Fields<'_>>(self.as_json())
            .map(|fields| fields.0)
            .unwrap_or_default()
    }

    /// One field as it was written; the last one where the name is used twice.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&RawValue> {
        self.fields()
            .into_iter()
            .rev()
            .find(|(name, _)| name == field)
            .map(|(_, value)| value)
    }

    /// One field as a value of some type; `None` when it is missing or of another type.
    #[must_use]
    pub fn field<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        self.get(field)
            .and_then(|value| serde_json::from_str(value.get()).ok())
    }

    /// The same issue with one field replaced in its place, or added at the end.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] when serde can't write the value.
    pub fn with(
        &self,
        field: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, InvalidEvent> {
        let value = raw(value).map_err(|error| InvalidEvent::Encoding {
            message: error.to_string(),
        })?;
        let mut fields = self.fields();
        match fields.iter_mut().rev().find(|(name, _)| name == field) {
            Some((_, old)) => *old = &value,
            None => fields.push((Cow::Borrowed(field), &value)),
        }
        Self::of(&fields)
    }

    /// The same issue without a field.
    ///
    /// # Errors
    /// None in practice; serde can't tell.
    pub fn without(&self, field: &str) -> Result<Self, InvalidEvent> {
        let mut fields = self.fields();
        fields.retain(|(name, _)| name != field);
        Self::of(&fields)
    }

    pub(crate) fn of(fields: &[(Cow<'_, str>, &RawValue)]) -> Result<Self, InvalidEvent> {
        let encoding = |error: serde_json::Error| InvalidEvent::Encoding {
            message: error.to_string(),
        };
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
        RawValue::from_string(text).map(Self).map_err(encoding)
    }

    /// The issue's name; empty in an object that has none.
    #[must_use]
    pub fn id(&self) -> String {
        self.field("id").unwrap_or_default()
    }

    /// One line that says what it is about.
    #[must_use]
    pub fn title(&self) -> String {
        self.field("title").unwrap_or_default()
    }

    /// More about it.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        self.field("description")
    }

    /// Its state, as the tracker calls it: `open`, `in_progress`, `blocked`, `closed`, …
    #[must_use]
    pub fn status(&self) -> Option<String> {
        self.field("status")
    }

    /// Its urgency; trackers of this family count from 0, the most urgent.
    #[must_use]
    pub fn priority(&self) -> Option<i64> {
        self.field("priority")
    }

    /// Its kind: `bug`, `feature`, `task`, …
    #[must_use]
    pub fn issue_type(&self) -> Option<String> {
        self.field("issue_type")
    }

    /// Who works on it.
    #[must_use]
    pub fn assignee(&self) -> Option<String> {
        self.field("assignee")
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.field("labels").unwrap_or_default()
    }

    /// When it was created, as the tracker wrote it.
    #[must_use]
    pub fn created_at(&self) -> Option<String> {
        self.field("created_at")
    }

    /// When it was last changed, as the tracker wrote it.
    #[must_use]
    pub fn updated_at(&self) -> Option<String> {
        self.field("updated_at")
    }

    /// When it was closed, as the tracker wrote it.
    #[must_use]
    pub fn closed_at(&self) -> Option<String> {
        self.field("closed_at")
    }

    /// What it depends on; dependencies of another shape are only in [`Issue::get`].
    #[must_use]
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.field("dependencies").unwrap_or_default()
    }

    /// What was said about it, each comment as it was written.
    #[must_use]
    pub fn comments(&self) -> Vec<Box<RawValue>> {
        self.field("comments").unwrap_or_default()
    }
}

/// That one issue depends on another: from [`Issue::dependencies`]; see [`crate::Issues::ready`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Dependency {
    /// The issue that depends.
    pub issue_id: String,
    /// The issue that it depends on.
    pub depends_on_id: String,
    /// In what way: `blocks`, `parent-child`, `related`, …
    #[serde(rename = "type")]
    pub kind: String,
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

fn raw(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
}

impl PartialEq for Issue {
    /// Equal to the byte, not only in meaning.
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
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Issue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        if value.get().starts_with('{') {
            Ok(Self(value))
        } else {
            Err(D::Error::custom("an issue must be a JSON object"))
        }
    }
}

/// The members of an object in their order, by default with the text of each value.
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

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
