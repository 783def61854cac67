//! Which issues and idempotency keys a record may concern, found without decoding it. Pure.

use memchr::memmem::Finder;

use crate::{
    error::CorruptReason,
    format::record::Body,
    issues::{
        event::IssueEvent,
        operation::{FNV_START, fnv},
    },
};

/// Identifies an id or a key. Two of them may have the same number, so the record that it leads to
/// must be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NameHash(pub(crate) u64);

impl NameHash {
    pub(crate) fn of_id(id: &str) -> Self {
        Self(fnv(fnv(FNV_START, b"id:"), id.as_bytes()))
    }

    pub(crate) fn of_key(key: &str) -> Self {
        Self(fnv(fnv(FNV_START, b"key:"), key.as_bytes()))
    }
}

/// Finds the ids and keys in the text of records.
#[derive(Debug)]
pub(crate) struct Mentions {
    id: Finder<'static>,
    key: Finder<'static>,
    /// Begins the only spelling of a letter other than the letter.
    escape: Finder<'static>,
    scratch: Vec<u8>,
}

impl Default for Mentions {
    fn default() -> Self {
        Self {
            id: Finder::new(br#""id""#),
            key: Finder::new(br#""key""#),
            escape: Finder::new(br"\u"),
            scratch: Vec::new(),
        }
    }
}

impl Mentions {
    /// Calls `each` with every id and key of the record's events, and perhaps with more: any string
    /// that is the value of a member named `id` or `key`, at whatever depth.
    pub(crate) fn of(
        &mut self,
        body: Body<'_>,
        mut each: impl FnMut(NameHash),
    ) -> Result<(), CorruptReason> {
        let (Body::One(text) | Body::Batch(text)) = body;
        if self.escape.find(text).is_none()
            && let Some(ids) = values(&self.id, text, NameHash::of_id)
            && let Some(keys) = values(&self.key, text, NameHash::of_key)
            && (!ids.is_empty() || matches!(body, Body::Batch(b"[]")))
        {
            ids.into_iter().chain(keys).for_each(each);
            return Ok(());
        }
        for event in body.decode::<IssueEvent>(&mut self.scratch)? {
            each(NameHash::of_id(&event.id));
            if let Some(key) = &event.key {
                each(NameHash::of_key(key));
            }
        }
        Ok(())
    }
}

/// The strings that are values of members with this name, each once in a row. `None` if one has
/// escapes.
fn values(name: &Finder<'_>, text: &[u8], hash: fn(&str) -> NameHash) -> Option<Vec<NameHash>> {
    let mut found = Vec::new();
    for at in name.find_iter(text) {
        let rest = text.get(at + name.needle().len()..)?.trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        let Some(value) = value.and_then(|value| value.strip_prefix(b"\"")) else {
            continue; // Text of another string, or another kind of value.
        };
        let value = value.get(..memchr::memchr(b'"', value)?)?;
        if memchr::memchr(b'\\', value).is_some() {
            return None;
        }
        let hash = hash(std::str::from_utf8(value).ok()?);
        if found.last() != Some(&hash) {
            found.push(hash);
        }
    }
    Some(found)
}
