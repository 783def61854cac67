//! Which issues and idempotency keys a record may concern, and what it does to them, found without
//! decoding it. Pure.

use crate::{
    error::CorruptReason,
    format::{
        members::{closing, plain_string, string_end},
        record::Body,
        search::Finder,
    },
    issues::{
        event::{EventStart, IssueEvent, Op},
        transition::is_closed,
    },
};

/// An id or an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name<'a> {
    pub(crate) is_key: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Name<'a> {
    pub(crate) fn of_id(id: &'a str) -> Self {
        Self {
            is_key: false,
            text: id.as_bytes(),
        }
    }

    pub(crate) fn of_key(key: &'a str) -> Self {
        Self {
            is_key: true,
            text: key.as_bytes(),
        }
    }
}

/// What an event does to an issue, as far as it can be told without the issue: whether that is
/// closed then, whether it exists, and whether what it was before matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// An issue that is closed or absent stays so.
    Nothing = 0,
    /// The issue is closed or absent.
    Closes = 1,
    /// The issue is absent.
    Deletes = 2,
    /// An issue that is closed may not be so any more.
    Opens = 3,
    /// An issue that exists is what the event says, which is not closed.
    Replaces = 4,
    /// The issue is what the event says, which is not closed.
    Adds = 5,
    /// The issue is what the event says, which is closed.
    AddsClosed = 6,
}

impl Change {
    /// Whether it may create an issue.
    pub(crate) fn is_add(self) -> bool {
        matches!(self, Self::Adds | Self::AddsClosed)
    }

    /// The change with this number.
    fn of_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Nothing,
            1 => Self::Closes,
            2 => Self::Deletes,
            3 => Self::Opens,
            4 => Self::Replaces,
            5 => Self::Adds,
            6 => Self::AddsClosed,
            _ => return None,
        })
    }

    fn of(event: &IssueEvent) -> Self {
        let patches_status = || match &event.patch {
            Some(patch) => patch.mentions("status"),
            None => false,
        };
        match &event.data {
            Some(issue) => Self::with_issue(event.op, is_closed(issue)),
            None => Self::without_issue(event.op, patches_status),
        }
    }

    fn with_issue(op: Op, is_closed: bool) -> Self {
        match (op, is_closed) {
            (Op::Delete, _) => Self::Deletes,
            (Op::Add, true) => Self::AddsClosed,
            (Op::Add, false) => Self::Adds,
            (_, true) => Self::Closes,
            (_, false) => Self::Replaces,
        }
    }

    fn without_issue(op: Op, patches_status: impl FnOnce() -> bool) -> Self {
        match op {
            Op::Delete => Self::Deletes,
            Op::Close => Self::Closes,
            Op::Reopen => Self::Opens,
            Op::Patch if patches_status() => Self::Opens,
            Op::Patch | Op::Add | Op::Update | Op::SetBlocked | Op::UnsetBlocked => Self::Nothing,
        }
    }
}

/// Finds the ids and keys in the text of records.
#[derive(Debug)]
pub(crate) struct Mentions {
    id: Finder<'static>,
    key: Finder<'static>,
    status: Finder<'static>,
    data: Finder<'static>,
    /// Begins the only spelling of a letter other than the letter.
    escape: Finder<'static>,
    scratch: Vec<u8>,
}

/// The ids and keys that a record mentions, with what it does to the issues, as an index has them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    bytes: Vec<u8>,
    pub(crate) count: u64,
    /// How many issues the record creates at most.
    pub(crate) adds: u32,
}

impl Found {
    fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.adds) = (0, 0);
    }

    pub(crate) fn push(&mut self, name: Name<'_>, change: Change) {
        let Name { is_key, text } = name;
        self.bytes.push((change as u8) << 1 | u8::from(is_key));
        push_number(&mut self.bytes, text.len() as u64);
        self.bytes.extend_from_slice(text);
        self.count += 1;
        self.adds += u32::from(change.is_add());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn mentions(&self) -> impl Iterator<Item = (Name<'_>, Change)> {
        let mut bytes = self.bytes();
        std::iter::from_fn(move || take_mention(&mut bytes))
    }
}

/// Takes the mention that the bytes of a [`Found`] begin with.
pub(crate) fn take_mention<'a>(bytes: &mut &'a [u8]) -> Option<(Name<'a>, Change)> {
    let (kind, rest) = bytes.split_first()?;
    *bytes = rest;
    let len = usize::try_from(take_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    let is_key = kind & 1 == 1;
    Some((Name { is_key, text }, Change::of_number(kind >> 1)?))
}

/// Writes a number, 7 bits a byte, the lowest ones first; all bytes but the last have the eighth.
pub(crate) fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// Takes a number that [`push_number`] wrote.
pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = match *bytes {
        // Most are short.
        [low @ ..0x80, rest @ ..] => (u64::from(*low), rest),
        [low, high @ ..0x80, rest @ ..] => (u64::from(low & 0x7f) | u64::from(*high) << 7, rest),
        _ => return take_long_number(bytes),
    };
    *bytes = rest;
    Some(number)
}

#[cold]
fn take_long_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl Default for Mentions {
    fn default() -> Self {
        Self {
            id: Finder::new(br#""id""#),
            key: Finder::new(br#""key""#),
            status: Finder::new(br#""status""#),
            data: Finder::new(br#""data""#),
            escape: Finder::new(br"\u"),
            scratch: Vec::new(),
        }
    }
}

impl Mentions {
    /// Replaces `found` with every id and key of the record's events, in their order, and perhaps
    /// more: any string that is the value of a member named `id` or `key`, at whatever depth.
    pub(crate) fn of(&mut self, body: Body<'_>, found: &mut Found) -> Result<(), CorruptReason> {
        found.clear();
        if self.find(body, found).is_none() {
            found.clear();
            for event in body.decode::<IssueEvent>(&mut self.scratch)? {
                found.push(Name::of_id(&event.id), Change::of(&event));
                if let Some(key) = &event.key {
                    found.push(Name::of_key(key), Change::Nothing);
                }
            }
        }
        Ok(())
    }

    /// `None` if the text is spelled in an unusual way.
    fn find(&self, body: Body<'_>, found: &mut Found) -> Option<()> {
        let (Body::One(text) | Body::Batch(text)) = body;
        if self.escape.find(text).is_some() {
            return None;
        }
        match body {
            Body::One(members) => self.find_in_event(members, found),
            Body::Batch(array) => {
                let mut rest = array.strip_prefix(b"[")?;
                while let Some(event) = rest.strip_prefix(b"{") {
                    let end = closing(event)?;
                    self.find_in_event(event.get(..=end)?, found)?;
                    rest = event.get(end + 1..)?;
                    rest = rest.strip_prefix(b",").unwrap_or(rest);
                }
                (rest == b"]").then_some(())
            }
        }
    }

    /// `members` are those of the event, without its opening brace.
    fn find_in_event(&self, members: &[u8], found: &mut Found) -> Option<()> {
        let (id, change) = self.change_in(members)?;
        found.push(Name::of_id(id), change);
        let other = |other| Some(Name::of_id(other)).filter(|_| other != id);
        values(&self.id, members, other, found)?;
        values(&self.key, members, |key| Some(Name::of_key(key)), found)
    }

    /// The id of an event in the layout that this crate writes, and what the event does.
    fn change_in<'a>(&self, members: &'a [u8]) -> Option<(&'a str, Change)> {
        let EventStart { op, id, rest, .. } = EventStart::of(members)?;
        let change = if let Some(patch) = rest.strip_prefix(br#","patch":"#) {
            if op != Op::Patch || self.data.find(patch).is_some() {
                return None;
            }
            Change::without_issue(op, || self.status.find(patch).is_some())
        } else {
            let data = rest.strip_prefix(br#","data":"#)?;
            if data.starts_with(b"null") && op != Op::Patch {
                Change::without_issue(op, || false)
            } else {
                Change::with_issue(op, self.says_closed(data)?)
            }
        };
        Some((id, change))
    }

    /// Whether the issue that the text begins with is closed. `None` if that is not easy to tell.
    fn says_closed(&self, text: &[u8]) -> Option<bool> {
        let issue = text.strip_prefix(b"{")?;
        let mut closed_at = None;
        let mut others = 0;
        for at in self.status.find_iter(issue) {
            let rest = issue.get(at + self.status.needle().len()..)?;
            let Some(value) = member_value(rest) else {
                continue; // A string of this text, which names no member.
            };
            if value.starts_with(br#""closed""#) || value.starts_with(br#""tombstone""#) {
                closed_at = Some(at);
            } else {
                others += 1;
            }
        }
        match (closed_at, others) {
            (None, _) => Some(false),
            (Some(at), 0) => is_member_at(issue, at).then_some(true),
            // The last one counts.
            (Some(_), _) => None,
        }
    }
}

/// Adds the strings that are values of members with this name. `None` if one has escapes.
fn values<'a>(
    name: &Finder<'_>,
    text: &'a [u8],
    named: impl Fn(&'a str) -> Option<Name<'a>>,
    found: &mut Found,
) -> Option<()> {
    for at in name.find_iter(text) {
        let value = member_value(text.get(at + name.needle().len()..)?);
        let Some(value) = value.filter(|value| value.starts_with(b"\"")) else {
            continue; // Text of another string, or another kind of value.
        };
        let (value, _) = plain_string(value)?;
        if let Some(name) = named(value) {
            found.push(name, Change::Nothing);
        }
    }
    Some(())
}

/// What follows the colon behind a member's name.
fn member_value(behind_name: &[u8]) -> Option<&[u8]> {
    let value = behind_name.trim_ascii_start().strip_prefix(b":");
    value.map(<[u8]>::trim_ascii_start)
}

/// Whether a string at this place is a member's name, or a value, of the object whose opening brace
/// stands before the text.
fn is_member_at(text: &[u8], place: usize) -> bool {
    let mut depth = 1_u32;
    let mut at = 0;
    while at < place {
        match text.get(at) {
            Some(b'"') => match string_end(text, at) {
                Some(end) => at = end,
                None => return false,
            },
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return false;
        }
        at += 1;
    }
    at == place && depth == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id or, behind a colon, a key; and what happens to it.
    type Mention = (String, Change);

    fn mentions(found: &Found) -> Vec<Mention> {
        let text = |name: Name<'_>| {
            let colon = if name.is_key { ":" } else { "" };
            format!("{colon}{}", std::str::from_utf8(name.text).unwrap())
        };
        let mut bytes = found.bytes();
        let mentions = std::iter::from_fn(|| take_mention(&mut bytes));
        mentions
            .map(|(name, change)| (text(name), change))
            .collect()
    }

    /// What is found in the text of an event, and what its fields say.
    fn both(event: &str) -> (Option<Vec<Mention>>, Mention) {
        let mut found = Found::default();
        let body = Body::One(event.strip_prefix('{').unwrap().as_bytes());
        let is_plain = Mentions::default().find(body, &mut found).is_some();
        let found = is_plain.then(|| mentions(&found));
        let event: IssueEvent = serde_json::from_str(event).unwrap();
        let change = Change::of(&event);
        (found, (event.id, change))
    }

    #[test]
    fn numbers_survive() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 1 << 48, u64::MAX] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!(take_number(&mut rest), Some(number));
            assert!(rest.is_empty());
            assert_eq!(take_number(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_number(&mut &[0xff; 11][..]), None);
    }

    #[test]
    fn the_text_of_an_event_says_what_it_does() {
        use Change::{Adds, AddsClosed, Closes, Deletes, Nothing, Opens, Replaces};
        let statuses = [
            (r#""status":"open""#, Replaces),
            (r#""status":"closed""#, Closes),
            (r#""status" : "tombstone""#, Closes),
            (r#""status":7"#, Replaces),
            (r#""x":"status""#, Replaces),
            // Only a member of the issue itself counts.
            (r#""x":{"status":"open"},"y":1"#, Replaces),
            (r#""status":"closed","x":["a\\",{"y":"}"}]"#, Closes),
        ];
        for (fields, expected) in statuses {
            for (op, expected) in [
                ("update", expected),
                ("close", expected),
                ("reopen", expected),
                ("set_blocked", expected),
                ("delete", Deletes),
                ("add", if expected == Closes { AddsClosed } else { Adds }),
            ] {
                let data = format!(r#"{{"id":"a","title":"\"{{","x":[{{}}],{fields}}}"#);
                let text = format!(r#"{{"ts":1,"op":"{op}","id":"a","data":{data},"key":"k"}}"#);
                let (found, decoded) = both(&text);
                assert_eq!(decoded.1, expected, "{text}");
                let key = (":k".to_owned(), Nothing);
                assert_eq!(found, Some(vec![decoded, key]), "{text}");
            }
        }
        for (op, expected) in [
            ("close", Closes),
            ("reopen", Opens),
            ("delete", Deletes),
            ("set_blocked", Nothing),
            ("unset_blocked", Nothing),
        ] {
            let text = format!(r#"{{"ts":1,"op":"{op}","id":"a","data":null,"x":{{"id":"b"}}}}"#);
            let (found, decoded) = both(&text);
            assert_eq!(decoded.1, expected, "{text}");
            let other = ("b".to_owned(), Nothing);
            assert_eq!(found, Some(vec![decoded, other]), "{text}");
        }
        for (patch, expected) in [
            (r#"{"set":{"status":"closed"}}"#, Opens),
            (r#"{"unset":["status"]}"#, Opens),
            (r#"{"append":{"status":[1]}}"#, Opens),
            (r#"{"set":{"priority":1},"add":{"labels":["l"]}}"#, Nothing),
        ] {
            let text = format!(r#"{{"ts":1,"op":"patch","id":"a","patch":{patch}}}"#);
            let (found, decoded) = both(&text);
            assert_eq!(decoded.1, expected, "{text}");
            assert_eq!(found, Some(vec![decoded]), "{text}");
        }
    }

    #[test]
    fn what_the_text_does_not_say_plainly_is_decoded() {
        for text in [
            // In another order, with escapes, with a status twice or further inside.
            r#"{"op":"close","ts":1,"id":"a","data":null}"#,
            r#"{"ts":1,"op":"close","id":"a\n","data":null}"#,
            r#"{"ts":1,"op":"add","id":"a","data":{"id":"a","st\u0061tus":"closed"}}"#,
            r#"{"ts":1,"op":"add","id":"a","data":{"status":"closed","status":"open"}}"#,
            r#"{"ts":1,"op":"add","id":"a","data":{"x":{"status":"closed"}}}"#,
            r#"{"ts":1,"op":"add","id":"a","data":{},"status":"closed"}"#,
            r#"{"ts":1,"op":"add","id":"a","data":{"x\"status":"closed"}}"#,
            r#"{"ts":1,"op":"patch","id":"a","patch":{},"data":{"status":"closed"}}"#,
            r#"{"ts":1,"op":"patch","id":"a","data":null,"patch":{"set":{"status":"open"}}}"#,
        ] {
            let (found, decoded) = both(text);
            assert_eq!(found, None, "{text}");
            let body = Body::One(text.strip_prefix('{').unwrap().as_bytes());
            let mut found = Found::default();
            Mentions::default().of(body, &mut found).unwrap();
            assert_eq!(mentions(&found), [decoded], "{text}");
        }
    }

    #[test]
    fn each_event_of_a_batch_is_found_with_what_it_does() {
        let add = r#"{"ts":1,"op":"add","id":"a","data":{"id":"a","title":"]},\""},"key":"k"}"#;
        let close = r#"{"ts":1,"op":"close","id":"a","data":null}"#;
        let [a, k] = ["a", ":k"].map(str::to_owned);
        let expected = [
            (a.clone(), Change::Adds),
            (k, Change::Nothing),
            (a, Change::Closes),
        ];
        let (mut finder, mut found) = (Mentions::default(), Found::default());
        for (batch, expected) in [
            (format!("[{add},{close}]"), &expected[..]),
            // With white space, it is decoded.
            (format!("[{add}, {close}]"), &expected[..]),
            ("[]".to_owned(), &[]),
        ] {
            let body = Body::Batch(batch.as_bytes());
            finder.of(body, &mut found).unwrap();
            assert_eq!(mentions(&found), expected, "{batch}");
        }
        assert!(finder.of(Body::Batch(b"[{}]"), &mut found).is_err());
    }
}
