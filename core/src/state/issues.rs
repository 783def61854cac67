//! [`Issues`] as the state of a log: how a snapshot has it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    format::seq::Seq,
    issues::{
        event::IssueEvent,
        index::Facts,
        issue::Issue,
        issues::{Entry, Issues, KeyedWrite},
        operation::OperationDigest,
        timestamp::Timestamp,
        version::Version,
    },
    state::State,
};

impl State for Issues {
    const NAME: &'static str = "issues";
    type Payload = IssueEvent;
    type Line = IssueLine;

    fn apply(&mut self, seq: Seq, events: Vec<IssueEvent>) {
        let _new = Issues::apply(self, seq, events);
    }

    fn lines(&self) -> impl Iterator<Item = impl Serialize> {
        let entries = self.entries().map(|(id, entry)| Item::of_entry(id, entry));
        let keys = self.keys().map(|(key, write)| Item::of_key(key, write));
        entries.chain(keys)
    }

    fn restore(&mut self, line: IssueLine) {
        match line.0 {
            IssuePart::Entry(id, entry) => self.restore_entry(id, entry),
            IssuePart::Key(key, write) => self.restore_key(&key, write),
        }
    }

    fn forget(&mut self, before_seq: Seq, before: Timestamp) {
        self.forget_before(before_seq, before);
    }

    fn entries(&self) -> usize {
        self.len()
    }

    fn unclosed(&self, bytes_max: u64) -> Option<Self> {
        self.without_closed(bytes_max)
    }

    fn issue_totals(&self) -> Option<[u64; 4]> {
        let [issues, tombstones, keys] = self.counts();
        Some([issues, tombstones, keys, self.without_effect()])
    }

    fn restore_issue_totals(&mut self, last_seq: Seq, without_effect: u64) {
        self.restore_header(last_seq, without_effect);
    }
}

/// A line of a snapshot of [`Issues`].
#[derive(Debug, Deserialize)]
#[serde(try_from = "Item<'static>")]
pub struct IssueLine(pub(crate) IssuePart);

#[derive(Debug)]
pub(crate) enum IssuePart {
    /// An issue, or the tombstone of one, by its id.
    Entry(String, Entry),
    /// An idempotency key, and the write that carried it.
    Key(String, KeyedWrite),
}

/// The members of a line. Which are there tells what it is.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Item<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<OperationDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_ms: Option<Timestamp>,
    /// What queries ask for of the issue, which has it, too.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    facts: Option<Box<Facts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue: Option<Cow<'a, Issue>>,
}

impl<'a> Item<'a> {
    pub(super) fn of_entry(id: &'a str, entry: &'a Entry) -> Self {
        let item = Self {
            id: Some(Cow::Borrowed(id)),
            version: Some(entry.version()),
            ..Self::default()
        };
        match entry {
            Entry::Present { issue, .. } => Self {
                issue: Some(Cow::Borrowed(issue)),
                ..item
            },
            Entry::Deleted { ts, .. } => Self {
                deleted_ms: Some(*ts),
                ..item
            },
        }
    }

    pub(super) fn with_facts(id: &'a str, entry: &'a Entry) -> Self {
        Self {
            facts: entry.issue().map(|issue| Box::new(Facts::of(issue))),
            ..Self::of_entry(id, entry)
        }
    }

    pub(super) fn of_key(key: &'a str, write: KeyedWrite) -> Self {
        Self {
            key: Some(Cow::Borrowed(key)),
            seq: Some(write.seq),
            digest: write.digest,
            ..Self::default()
        }
    }

    /// The issue of the line, by its id.
    pub(super) fn to_issue(&self) -> Option<(String, Entry)> {
        let issue = self.issue.as_deref()?.clone();
        let version = self.version?;
        Some((
            self.id.as_deref()?.to_owned(),
            Entry::Present { issue, version },
        ))
    }
}

impl TryFrom<Item<'_>> for IssueLine {
    type Error = &'static str;

    fn try_from(item: Item<'_>) -> std::result::Result<Self, Self::Error> {
        let part = match item {
            Item {
                id: Some(id),
                version: Some(version),
                issue: Some(issue),
                ..
            } => {
                let issue = issue.into_owned();
                IssuePart::Entry(id.into_owned(), Entry::Present { issue, version })
            }
            Item {
                id: Some(id),
                version: Some(version),
                deleted_ms: Some(ts),
                ..
            } => IssuePart::Entry(id.into_owned(), Entry::Deleted { ts, version }),
            Item {
                key: Some(key),
                seq: Some(seq),
                digest,
                ..
            } => IssuePart::Key(key.into_owned(), KeyedWrite { seq, digest }),
            _ => return Err("it is neither an issue, a tombstone nor a key"),
        };
        Ok(Self(part))
    }
}
