use std::{collections::BTreeMap, path::Path};

use crate::{
    Error, InvalidEvent, Issue, IssueEvent, Op, Reader, Result, records::RawRecords, time::rfc3339,
};

/// The state that the log's events lead to: every issue as it is now.
///
/// The fold is the same whoever computes it and however often. What an event does to an issue:
///
/// | event | absent | present | deleted |
/// | --- | --- | --- | --- |
/// | `add` | stored | replaced | stored |
/// | `update` | stored | replaced | – |
/// | `close`, `reopen` with `data` | stored | replaced | – |
/// | `close` | – | `status` closed, `closed_at` set | – |
/// | `reopen`, `unset_blocked` | – | `status` open, `closed_at` gone | – |
/// | `set_blocked` | – | `status` blocked | – |
/// | `delete` | – | deleted | – |
///
/// – means that the event changes nothing; [`Store::without_effect`] counts these. The events without
/// `data` also set `updated_at`.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Log, Options, Store};
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", 0), 0))?;
/// log.append(&IssueEvent::close("bd-1", 60_000))?;
///
/// let store = Store::load(dir.path())?;
/// let issue = store.get("bd-1").expect("it was added");
/// assert_eq!(issue.status().as_deref(), Some("closed"));
/// assert_eq!(store.version("bd-1"), Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    entries: BTreeMap<String, Entry>,
    present: usize,
    last_seq: u64,
    without_effect: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `None` when it was deleted.
    issue: Option<Issue>,
    version: u64,
}

impl Store {
    /// Reads the store in `dir` and folds its records. Takes no lock and writes nothing.
    ///
    /// # Errors
    /// As [`Reader::open`] and [`Reader::read`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let reader: Reader = Reader::open(dir)?;
        Self::fold(reader.raw())
    }

    fn fold(mut records: RawRecords) -> Result<Self> {
        let mut store = Self::default();
        let mut scratch = Vec::new();
        while let Some(record) = records.next()? {
            let seq = record.line.header.seq;
            let offset = record.offset;
            let applied = record
                .line
                .body
                .decode::<IssueEvent>(&mut scratch)
                .map(|events| {
                    events
                        .into_iter()
                        .try_for_each(|event| store.apply(seq, event))
                });
            match applied {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Error::InvalidEvent(error)),
                Err(reason) => return Err(records.corrupt(offset, reason)),
            }
        }
        Ok(store)
    }

    /// Applies one event of the record `seq`. Events must be applied in the order of the log.
    ///
    /// # Errors
    /// [`InvalidEvent::Encoding`] never in practice; the store is unchanged.
    pub fn apply(&mut self, seq: u64, event: IssueEvent) -> std::result::Result<(), InvalidEvent> {
        let IssueEvent {
            ts, op, id, data, ..
        } = event;
        self.last_seq = seq;
        let old = self.entries.get(&id).map(|entry| entry.issue.as_ref());
        let new = match (op, data, old) {
            (Op::Add, Some(issue), _) => Some(Some(issue)),
            (_, Some(issue), None | Some(Some(_))) if op != Op::Delete => Some(Some(issue)),
            (Op::Delete, _, Some(Some(_))) => Some(None),
            (_, None, Some(Some(issue))) => changed(issue, op, ts)?.map(Some),
            _ => None,
        };
        match new {
            None => self.without_effect += 1,
            Some(issue) => {
                let was = old.flatten().is_some();
                self.present = self.present - usize::from(was) + usize::from(issue.is_some());
                self.entries.insert(
                    id,
                    Entry {
                        issue,
                        version: seq,
                    },
                );
            }
        }
        Ok(())
    }

    /// The issue with this id, unless it was deleted.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Issue> {
        self.entries.get(id)?.issue.as_ref()
    }

    /// The number of the record that last changed the issue, or deleted it.
    #[must_use]
    pub fn version(&self, id: &str) -> Option<u64> {
        self.entries.get(id).map(|entry| entry.version)
    }

    /// The issues with their ids, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Issue)> {
        self.entries
            .iter()
            .filter_map(|(id, entry)| Some((id.as_str(), entry.issue.as_ref()?)))
    }

    /// How many issues there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The last record that was applied; 0 when none was.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// How many events changed nothing, because there was no such issue.
    #[must_use]
    pub fn without_effect(&self) -> u64 {
        self.without_effect
    }
}

/// The issue after an event that carries none; `None` when the event does not change it.
fn changed(issue: &Issue, op: Op, ts: i64) -> std::result::Result<Option<Issue>, InvalidEvent> {
    let now = rfc3339(ts);
    let issue = match op {
        Op::Close => issue.with("status", "closed")?.with("closed_at", &now)?,
        Op::Reopen | Op::UnsetBlocked => issue.with("status", "open")?.without("closed_at")?,
        Op::SetBlocked => issue.with("status", "blocked")?,
        Op::Add | Op::Update | Op::Delete => return Ok(None),
    };
    issue.with("updated_at", &now).map(Some)
}
