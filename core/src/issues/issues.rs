use std::collections::{BTreeMap, HashMap};

use crate::{
    format::seq::Seq,
    issues::{
        event::IssueEvent,
        index::{KnownFacts, Lazy},
        issue::Issue,
        operation::OperationDigest,
        timestamp::Timestamp,
        transition::{Effect, fold, is_closed},
        version::Version,
    },
};

/// The state that the events of a log lead to: every issue as it is now.
///
/// Every reader of a log gets the same state. An event's effect depends on the issue's `status`
/// (`tombstone` counts as closed; every other status but `closed` and `blocked`, as open):
///
/// | event | absent | open | blocked | closed | deleted |
/// | --- | --- | --- | --- | --- | --- |
/// | `add` | stored | replaced | replaced | replaced | stored |
/// | `update`, `close`, `reopen` with `data` | – | replaced | replaced | replaced | – |
/// | `patch` | – | changed | changed | changed | – |
/// | `close` | – | closed, `closed_at` set | closed, `closed_at` set | – | – |
/// | `reopen` | – | – | – | open, `closed_at` gone | – |
/// | `set_blocked` | – | blocked | – | – | – |
/// | `unset_blocked` | – | – | open | – | – |
/// | `delete` | – | deleted | deleted | deleted | – |
///
/// An event marked – changes nothing, not even the version; [`Issues::without_effect`] counts them.
/// So does a patch if one of the fields that it treats as an array is not one. Events without
/// `data` also set `updated_at`.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Log, Options, Timestamp, Version};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
/// log.append(&IssueEvent::close("bd-1", now))?;
///
/// let issues = Issues::load(dir.path())?;
/// let issue = issues.get("bd-1").expect("it was added");
/// assert_eq!(issue.status().as_deref(), Some("closed"));
/// assert_eq!(issues.version("bd-1"), Some(Version::new(2)));
/// assert_eq!((issues.len(), issues.last_seq().get(), issues.without_effect()), (1, 2, 0));
/// for (id, issue) in issues.iter() {
///     println!("{id} {}", issue.title());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issues {
    entries: BTreeMap<Box<str>, Entry>,
    keys: HashMap<Box<str>, KeyedWrite>,
    present: usize,
    last_seq: Seq,
    without_effect: u64,
    pub(crate) index: Lazy,
}

/// The state's memory of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Present {
        issue: Issue,
        version: Version,
    },
    /// A *tombstone*. `ts` is the time of the event that deleted the issue.
    Deleted {
        ts: Timestamp,
        version: Version,
    },
}

/// What the state remembers of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyedWrite {
    pub(crate) seq: Seq,
    /// `None` from a snapshot that does not have it.
    pub(crate) digest: Option<OperationDigest>,
}

impl Entry {
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::Present { version, .. } | Self::Deleted { version, .. } => *version,
        }
    }

    pub(crate) fn issue(&self) -> Option<&Issue> {
        match self {
            Self::Present { issue, .. } => Some(issue),
            Self::Deleted { .. } => None,
        }
    }
}

impl Issues {
    /// Applies the events of the record `seq` and returns true, unless it was applied before.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut issues = Issues::default();
    /// assert!(issues.is_empty());
    /// let add = IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now);
    /// assert!(issues.apply(Seq::new(1), [add.with_key("agent-7/1")]));
    /// assert_eq!(issues.key("agent-7/1"), Some(Seq::new(1)));
    /// assert!(issues.apply(Seq::new(2), [IssueEvent::close("bd-1", now)]));
    /// assert!(!issues.apply(Seq::new(2), [IssueEvent::reopen("bd-1", now)]));
    /// ```
    pub fn apply(&mut self, seq: Seq, events: impl Into<Vec<IssueEvent>>) -> bool {
        if seq <= self.last_seq {
            return false;
        }
        self.apply_some(seq, events.into(), |_| true, |_| true);
        true
    }

    /// Applies those events of a record that concern some issues, and its key if that is wanted,
    /// whatever was applied before.
    pub(crate) fn apply_some(
        &mut self,
        seq: Seq,
        events: Vec<IssueEvent>,
        is_wanted: impl Fn(&str) -> bool,
        is_wanted_key: impl Fn(&str) -> bool,
    ) {
        // In a batch, the first event has the key.
        if let Some(key) = events.first().and_then(|event| event.key.as_deref())
            && is_wanted_key(key)
        {
            let digest = Some(OperationDigest::of(&events));
            self.restore_key(key, KeyedWrite { seq, digest });
        }
        for event in events {
            if is_wanted(&event.id) {
                self.apply_event(seq, event);
            }
        }
        self.last_seq = self.last_seq.max(seq);
    }

    /// Applies one event of the record `seq`, which counts as read only with the last one of them:
    /// see [`Issues::moved_on`].
    pub(crate) fn apply_event(&mut self, seq: Seq, event: IssueEvent) {
        let old = self.entries.get_mut(event.id.as_str());
        let now = old.as_ref().and_then(|entry| entry.issue());
        let was = now.is_some();
        let effect = fold(now, &event);
        let IssueEvent { ts, id, data, .. } = event;
        let version = seq.into();
        let put = match effect {
            Effect::Nothing => {
                self.without_effect += 1;
                return;
            }
            Effect::Put(issue) => Some(issue),
            Effect::PutData => data,
            Effect::Delete => None,
        };
        let entry = match put {
            Some(issue) => Entry::Present { issue, version },
            None => Entry::Deleted { ts, version },
        };
        let is = entry.issue().is_some();
        self.present = self.present + usize::from(is) - usize::from(was);
        self.index.put(&id, entry.issue());
        match old {
            Some(old) => *old = entry,
            None => drop(self.entries.insert(id.into(), entry)),
        }
    }

    /// The issues that are not closed. `None` if they are longer than that.
    pub(crate) fn without_closed(&self, bytes_max: u64) -> Option<Self> {
        let mut bytes = 0;
        let mut part = Self::default();
        for (id, entry) in self.entries() {
            if let Some(issue) = entry.issue()
                && !is_closed(issue)
            {
                bytes += issue.as_json().len() as u64;
                if bytes > bytes_max {
                    return None;
                }
                part.restore_entry(id.to_owned(), entry.clone());
            }
        }
        part.last_seq = self.last_seq;
        Some(part)
    }

    /// Leaves only what records behind this one changed.
    pub(crate) fn retain_after(&mut self, seq: Seq) {
        self.keys.retain(|_, write| write.seq > seq);
        self.retain(|_, entry| entry.version() > seq.into());
    }

    /// Leaves only some issues and tombstones.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&str, &Entry) -> bool) {
        self.entries.retain(|id, entry| stays(id, entry));
        self.present = self.iter().count();
        self.index = Lazy::default();
    }

    /// Restores what a later part of the state has.
    pub(crate) fn restore_all(&mut self, later: &Self) {
        for (id, entry) in later.entries() {
            self.restore_entry(id.to_owned(), entry.clone());
        }
        for (key, write) in later.keys() {
            self.restore_key(key, write);
        }
        self.last_seq = later.last_seq;
    }

    /// No record through this one concerns this part of a state any further.
    pub(crate) fn moved_on(&mut self, last_seq: Seq) {
        self.last_seq = last_seq;
    }

    /// The issue with this id; `None` if it does not exist.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Issue> {
        self.entries.get(id)?.issue()
    }

    pub(crate) fn get_with_id(&self, id: &str) -> Option<(&str, &Issue)> {
        let (id, entry) = self.entries.get_key_value(id)?;
        Some((id, entry.issue()?))
    }

    /// The version of the issue. A deleted issue has one, too, until it is forgotten
    /// ([`crate::Options::tombstone_ms`]).
    #[must_use]
    pub fn version(&self, id: &str) -> Option<Version> {
        self.entries.get(id).map(Entry::version)
    }

    /// When the issue was deleted, until that is forgotten.
    pub(crate) fn deleted_at(&self, id: &str) -> Option<Timestamp> {
        match self.entries.get(id)? {
            Entry::Deleted { ts, .. } => Some(*ts),
            Entry::Present { .. } => None,
        }
    }

    /// The record with this idempotency key, while it is remembered
    /// ([`crate::Options::idempotency_records`]). Example: [`Issues::apply`].
    #[must_use]
    pub fn key(&self, key: &str) -> Option<Seq> {
        Some(self.keyed_write(key)?.seq)
    }

    pub(crate) fn keyed_write(&self, key: &str) -> Option<KeyedWrite> {
        self.keys.get(key).copied()
    }

    /// The issues, sorted by id (by bytes).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Issue)> {
        let present = self.entries.iter();
        present.filter_map(|(id, entry)| Some((&**id, entry.issue()?)))
    }

    /// The number of issues.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present
    }

    /// Whether there are no issues. Example: [`Issues::apply`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The last applied record; 0 if none was.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The number of events that changed nothing.
    #[must_use]
    pub fn without_effect(&self) -> u64 {
        self.without_effect
    }

    /// What is remembered of an id.
    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// All issues and tombstones, sorted by id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(id, entry)| (&**id, entry))
    }

    /// The idempotency keys, sorted by their bytes.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, KeyedWrite)> {
        let keys = self.keys.iter().map(|(key, write)| (&**key, *write));
        let mut keys: Vec<(&str, KeyedWrite)> = keys.collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.into_iter()
    }

    /// The numbers of issues, tombstones and keys.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let deleted = self.entries.len() - self.present;
        [self.present, deleted, self.keys.len()].map(|count| count as u64)
    }

    /// Restores an issue or a tombstone from a snapshot.
    pub(crate) fn restore_entry(&mut self, id: String, entry: Entry) {
        self.index.put(&id, entry.issue());
        self.present += usize::from(entry.issue().is_some());
        if let Some(old) = self.entries.insert(id.into(), entry) {
            self.present -= usize::from(old.issue().is_some());
        }
    }

    /// Takes out what is remembered of an id.
    pub(crate) fn take_entry(&mut self, id: &str) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.present -= usize::from(entry.issue().is_some());
        self.index.put(id, None);
        Some(entry)
    }

    /// Restores issues and tombstones, sorted by id, of some of which the indexed fields are known.
    pub(crate) fn of_entries(entries: Vec<(Box<str>, Entry)>, known: KnownFacts) -> Self {
        let entries: BTreeMap<Box<str>, Entry> = entries.into_iter().collect();
        let present = entries.values().filter(|entry| entry.issue().is_some());
        Self {
            present: present.count(),
            entries,
            index: Lazy::with(known),
            ..Self::default()
        }
    }

    /// Remembers an idempotency key.
    pub(crate) fn restore_key(&mut self, key: &str, write: KeyedWrite) {
        self.keys.insert(key.into(), write);
    }

    /// Restores the totals of a snapshot.
    pub(crate) fn restore_header(&mut self, last_seq: Seq, without_effect: u64) {
        self.last_seq = last_seq;
        self.without_effect = without_effect;
    }

    /// Forgets the idempotency keys of records before `seq`, and the tombstones of issues that were
    /// deleted before `moment`.
    pub(crate) fn forget_before(&mut self, seq: Seq, moment: Timestamp) {
        self.keys.retain(|_, write| write.seq >= seq);
        let remains = |entry: &Entry| !matches!(entry, Entry::Deleted { ts, .. } if *ts < moment);
        self.entries.retain(|_, entry| remains(entry));
    }
}
