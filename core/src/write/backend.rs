//! Stores of issues that are no directory, and the parts of this crate that they need.
//!
//! [`Backend`] has the operations of all stores, for programs that take any of them. Events, their
//! fold, batches and the decision about conditions are the same code for all.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    env::system::ThisMachine,
    error::{CorruptReason, Result},
    format::{
        record::{EncodedPayload, Header, Line},
        seq::Seq,
    },
    issues::{event::IssueEvent, issue::Issue, issues::Issues},
    state::{compaction::Compacted, point_reader::Versioned},
    wal::{cursor::Record, follower::Follower, log::Receipt, reader::Reader},
    write::{
        batch::Batch,
        conditions::{CommitError, MakeError},
        ids::draw_id,
        issue_log::IssueLog,
    },
};

pub use crate::write::conditions::{Decision, decide};

/// A store of issues: a directory ([`IssueLog`]), or a service that keeps the same promises.
///
/// Numbers of records grow strictly. Only those of a directory are also without gaps. // I4
///
/// ```
/// use strand_core::{IssueLog, Issue, Options, backend::Backend};
///
/// /// Works with any store.
/// fn take(store: &dyn Backend, agent: &str) -> Result<String, strand_core::CommitError> {
///     let (id, _) = store.create_new("bd", &mut |id| Ok(Issue::new(id, "Mend the fence")))?;
///     store.commit(&strand_core::Batch::new().claim(&id, agent))?;
///     Ok(id)
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let id = take(&log, "agent-7")?;
/// let issues = Backend::issues(&log)?;
/// assert_eq!(issues.get(&id).and_then(Issue::assignee).as_deref(), Some("agent-7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Backend: Send + Sync {
    /// See [`IssueLog::append`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn append(&self, event: &IssueEvent) -> Result<Receipt>;

    /// See [`IssueLog::append_batch`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt>;

    /// See [`IssueLog::commit`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError>;

    /// See [`IssueLog::with_issues`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn look(&self, look: &mut dyn FnMut(&Issues)) -> Result<()>;

    /// See [`IssueLog::with_unclosed`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn look_unclosed(&self, look: &mut dyn FnMut(&Issues)) -> Result<()> {
        self.look(look)
    }

    /// See [`IssueLog::get`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn get(&self, id: &str) -> Result<Option<Versioned>> {
        let mut found = None;
        self.look(&mut |issues| found = Versioned::of(issues, id))?;
        Ok(found)
    }

    /// The state with everything that was acknowledged before the call.
    ///
    /// # Errors
    /// As [`IssueLog::live`], or [`Error::Unavailable`](crate::Error::Unavailable).
    fn issues(&self) -> Result<Issues>;

    /// The records from a number on, future ones included; see [`Reader::follow`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn follow(&self, from_seq: Seq) -> Result<Box<dyn Follow>>;

    /// See [`IssueLog::compact`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn compact(&self) -> Result<Compacted>;

    /// See [`IssueLog::compaction_due`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn compaction_due(&self) -> Result<bool>;

    /// Creates an issue with a new id; see [`IssueLog::create_new`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn create_new(
        &self,
        prefix: &str,
        make: &mut dyn FnMut(&str) -> Result<Issue, MakeError>,
    ) -> Result<(String, Receipt), CommitError> {
        const ATTEMPTS: u32 = 100;
        let mut attempts = 0;
        loop {
            let mut id = String::new();
            self.look(&mut |issues| {
                loop {
                    id = draw_id(prefix, issues.len(), &ThisMachine);
                    if issues.version(&id).is_none() {
                        break;
                    }
                }
            })?;
            attempts += 1;
            let issue = make(&id).map_err(CommitError::of_make)?;
            match self.commit(&Batch::new().create(issue)) {
                Err(CommitError::Conflict(_)) if attempts < ATTEMPTS => {}
                created => return created.map(|receipt| (id, receipt)),
            }
        }
    }
}

/// The records of a [`Backend`] from a number on, future ones included.
///
/// ```
/// use std::time::Instant;
/// use strand_core::{IssueLog, Options, Seq, backend::Backend};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let mut records = log.follow(Seq::new(1))?;
/// assert!(records.try_next()?.is_none() && records.next_before(Instant::now())?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Follow {
    /// See [`Follower::try_next`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn try_next(&mut self) -> Result<Option<Record<IssueEvent>>>;

    /// See [`Follower::next_before`].
    ///
    /// # Errors
    /// As there, or [`Error::Unavailable`](crate::Error::Unavailable).
    fn next_before(&mut self, deadline: Instant) -> Result<Option<Record<IssueEvent>>>;
}

impl Backend for IssueLog {
    fn append(&self, event: &IssueEvent) -> Result<Receipt> {
        Self::append(self, event)
    }

    fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt> {
        Self::append_batch(self, events)
    }

    fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        Self::commit(self, batch)
    }

    fn look(&self, look: &mut dyn FnMut(&Issues)) -> Result<()> {
        self.with_issues(look)
    }

    fn look_unclosed(&self, look: &mut dyn FnMut(&Issues)) -> Result<()> {
        self.with_unclosed(look)
    }

    fn get(&self, id: &str) -> Result<Option<Versioned>> {
        Self::get(self, id)
    }

    fn issues(&self) -> Result<Issues> {
        Ok(self.live()?.into_state())
    }

    fn follow(&self, from_seq: Seq) -> Result<Box<dyn Follow>> {
        let reader: Reader<IssueEvent> = Reader::in_dir(self.log().raw.writer.dir.clone())?;
        Ok(Box::new(reader.follow(from_seq)?))
    }

    fn compact(&self) -> Result<Compacted> {
        Self::compact(self)
    }

    fn compaction_due(&self) -> Result<bool> {
        Self::compaction_due(self)
    }

    fn create_new(
        &self,
        prefix: &str,
        make: &mut dyn FnMut(&str) -> Result<Issue, MakeError>,
    ) -> Result<(String, Receipt), CommitError> {
        Self::create_new(self, prefix, make)
    }
}

impl Follow for Follower<IssueEvent> {
    fn try_next(&mut self) -> Result<Option<Record<IssueEvent>>> {
        Self::try_next(self)
    }

    fn next_before(&mut self, deadline: Instant) -> Result<Option<Record<IssueEvent>>> {
        Self::next_before(self, deadline)
    }
}

/// The events of a batch as they are stored: the text of one JSON object, or of an array of them.
/// Checks all that can be checked without the state.
///
/// ```
/// use strand_core::{Batch, Seq, Timestamp, backend};
///
/// let batch = Batch::at(Timestamp::from_ms(7)).key("k").close("bd-1");
/// let payload = backend::encode(&batch)?;
/// assert_eq!(payload, br#"{"ts":7,"op":"close","id":"bd-1","data":null,"key":"k"}"#);
/// assert_eq!(backend::ids(&batch).into_iter().collect::<Vec<_>>(), ["bd-1"]);
/// assert_eq!(backend::key(&batch), Some("k"));
/// let record = backend::record(Seq::new(3), &payload).expect("it was encoded just now");
/// assert_eq!((record.seq.get(), record.events.len(), record.batch), (3, 1, false));
/// # Ok::<(), strand_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidEvent`](crate::Error::InvalidEvent),
/// [`Error::RecordTooLarge`](crate::Error::RecordTooLarge).
pub fn encode(batch: &Batch) -> Result<Vec<u8>> {
    Ok(batch.encode()?.into_text())
}

/// The issues that a batch names, in its changes and in its conditions. Example: [`encode`].
#[must_use]
pub fn ids(batch: &Batch) -> BTreeSet<&str> {
    batch.steps.iter().map(|step| step.id.as_str()).collect()
}

/// The idempotency key of a batch. Example: [`encode`].
#[must_use]
pub fn key(batch: &Batch) -> Option<&str> {
    batch.key.as_deref()
}

/// The operation of a batch, in a few letters: equal for batches with equal events, whatever their
/// times, conditions and keys.
///
/// ```
/// use strand_core::{Batch, Timestamp, backend::digest};
///
/// let close = |ms, id| digest(&Batch::at(Timestamp::from_ms(ms)).close(id));
/// assert_eq!(close(1, "bd-1"), close(2, "bd-1"));
/// assert_ne!(close(1, "bd-1"), close(1, "bd-2"));
/// ```
#[must_use]
pub fn digest(batch: &Batch) -> String {
    batch.digest().into()
}

/// Applies those events of a record that concern some issues, whatever was applied before. It is
/// for a state that knows some issues sooner than others.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp, backend::apply_some};
///
/// let now = Timestamp::now();
/// let add = |id| IssueEvent::add(Issue::new(id, "Mend the fence"), now);
/// let mut issues = Issues::default();
/// apply_some(&mut issues, Seq::new(9), vec![add("bd-1")], |_| true);
/// apply_some(&mut issues, Seq::new(4), vec![add("bd-1"), add("bd-2")], |id| id != "bd-1");
/// assert_eq!((issues.version("bd-1").unwrap().get(), issues.last_seq().get()), (9, 9));
/// ```
pub fn apply_some(
    issues: &mut Issues,
    seq: Seq,
    events: Vec<IssueEvent>,
    is_wanted: impl Fn(&str) -> bool,
) {
    issues.apply_some(seq, events, is_wanted, |_| true);
}

/// The record with this number and payload: its line is the one that a directory would hold.
/// Example: [`encode`].
///
/// # Errors
/// The payload is not one that [`encode`] returns.
pub fn record(seq: Seq, payload: &[u8]) -> Result<Record<IssueEvent>, CorruptReason> {
    let broken = |message: String| CorruptReason::Payload { message };
    let batch = payload.starts_with(b"[");
    let encoded = if batch {
        EncodedPayload::batch(payload.to_owned())
    } else {
        EncodedPayload::one(payload.to_owned())
    };
    let encoded = encoded.map_err(|error| broken(error.to_string()))?;
    let header = Header {
        seq: seq.get(),
        synced: seq.get().saturating_sub(1),
    };
    let mut line = Vec::new();
    encoded.write_line(header, &mut line);
    line.pop();
    let events = Line::parse(&line)?.body.decode(&mut Vec::new())?;
    Ok(Record {
        seq,
        events,
        batch,
        line,
        offset: 0,
    })
}

/// The receipt of a write that is stored: now, or (`repeated`) by an earlier one with its key.
///
/// ```
/// use strand_core::{Seq, backend::receipt};
///
/// assert!(receipt(Seq::new(7), true).repeated);
/// ```
#[must_use]
pub fn receipt(seq: Seq, repeated: bool) -> Receipt {
    Receipt { seq, repeated }
}

/// The report of a compaction through record `seq`, into a snapshot of so many issues and bytes.
///
/// ```
/// use std::time::Duration;
/// use strand_core::{Compacted, Seq, backend::compacted};
///
/// let done = compacted(Seq::new(7), 3, 912, vec![], Duration::from_millis(4));
/// assert!(matches!(done, Compacted::Done { entries: 3, bytes: 912, .. }));
/// ```
#[must_use]
pub fn compacted(
    seq: Seq,
    entries: u64,
    bytes: u64,
    removed: Vec<String>,
    elapsed: Duration,
) -> Compacted {
    Compacted::Done {
        seq,
        entries,
        bytes,
        removed,
        lock_held: Duration::ZERO,
        elapsed,
    }
}
