//! The conditions of a write: the decision whether they hold. Pure.

use std::{collections::BTreeMap, fmt};

use crate::{
    error::{Error, InvalidEvent, Outcome},
    format::seq::Seq,
    issues::{
        issue::Issue,
        issues::{Issues, KeyedWrite},
        transition::{Effect, fold},
        version::Version,
    },
    write::batch::{Batch, Expected},
};

/// A condition that does not hold: another process was faster. In [`CommitError::Conflict`].
///
/// The state that it describes is as durable as an acknowledged append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The issue's id.
    pub id: String,
    /// The requirement of the write.
    pub expected: Expected,
    /// The issue's present version. A deleted issue has one until its tombstone is forgotten.
    pub version: Option<Version>,
    /// The issue as it is; `None` if it does not exist.
    pub issue: Option<Issue>,
}

impl Conflict {
    /// Whether the write needs an issue, and there is none with this id. Example: [`CommitError`].
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.issue.is_none() && self.expected != Expected::Absent
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        if self.is_missing() {
            return write!(f, "there is no issue {id:?}");
        }
        let is = match self.version {
            Some(version) => format!("at version {version}"),
            None => "unknown".to_owned(),
        };
        match self.expected {
            Expected::Absent => write!(f, "issue {id:?} exists already, {is}"),
            Expected::Present => write!(f, "issue {id:?} is {is}"),
            Expected::Version(expected) => write!(
                f,
                "issue {id:?} is {is}, not at {expected}; look at it again and decide anew"
            ),
            Expected::Claimable => write!(
                f,
                "issue {id:?} can't be claimed: it is {is}, not open or not free"
            ),
        }
    }
}

impl std::error::Error for Conflict {}

/// Any error of a closure that makes a new issue: see
/// [`IssueLog::create_new`](crate::IssueLog::create_new), which has the example.
pub type MakeError = Box<dyn std::error::Error + Send + Sync>;

/// Why a write with conditions failed. [`CommitError::outcome`] says what is stored.
///
/// ```
/// use strand_core::{CommitError, Issue, IssueLog, Options, Outcome, Version};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// let gate = Issue::new("bd-1", "Mend the gate");
/// let error = log.update_if(gate, Version::new(7)).unwrap_err();
/// match &error {
///     CommitError::Conflict(found) => println!("decide again: {:?}", found.issue),
///     CommitError::Log(error) if error.is_retryable() => println!("again: {error}"),
///     error if error.outcome() == Outcome::Unknown => println!("check first: {error}"),
///     error => println!("nothing was written: {error}"),
/// }
/// assert!(error.is_conflict() && !error.is_no_such_issue());
/// let unknown = log.claim("bd-2", "agent-7").unwrap_err();
/// assert!(unknown.is_no_such_issue());
/// assert_eq!(unknown.to_string(), "there is no issue \"bd-2\"");
/// assert_eq!(error.outcome(), Outcome::Rejected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition does not hold. Nothing was written.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The idempotency key is that of another operation ([`Batch::key`]). Nothing was written.
    #[error(
        "the key {key:?} belongs to another operation, record {seq}; use a key of its own for each"
    )]
    KeyReused {
        /// The key.
        key: String,
        /// The record that has it.
        seq: Seq,
    },
    /// The closure that makes a new issue failed with this error of its own
    /// ([`IssueLog::create_new`](crate::IssueLog::create_new)). Nothing was written.
    #[error("the new issue was not made")]
    Make(#[source] MakeError),
    /// The log failed, or the event is invalid.
    #[error(transparent)]
    Log(#[from] Error),
}

impl CommitError {
    /// See [`Error::is_displacement`].
    pub(crate) fn is_displacement(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_displacement())
    }

    /// The state that the failed write left behind.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Conflict(_) | Self::KeyReused { .. } | Self::Make(_) => Outcome::Rejected,
            Self::Log(error) => error.outcome(),
        }
    }

    /// Whether the same call can succeed later, without any other action.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_retryable())
    }

    /// Whether there is no issue with the id that was to be changed or claimed.
    #[must_use]
    pub fn is_no_such_issue(&self) -> bool {
        matches!(self, Self::Conflict(conflict) if conflict.is_missing())
    }

    /// Whether a condition did not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// The error of a closure that makes an issue. An invalid issue is what it is everywhere.
    pub(super) fn of_make(error: MakeError) -> Self {
        match error.downcast::<InvalidEvent>() {
            Ok(invalid) => (*invalid).into(),
            Err(other) => Self::Make(other),
        }
    }
}

impl From<InvalidEvent> for CommitError {
    fn from(error: InvalidEvent) -> Self {
        Self::Log(error.into())
    }
}

/// The decision about a batch.
///
/// Example: [`decide`].
#[derive(Debug)]
pub enum Decision {
    /// Its conditions hold.
    Write,
    /// The record with the batch's key is in the log.
    Repeat(Seq),
    /// That record is another operation.
    KeyReused(Seq),
    /// This condition does not hold.
    Refuse(Conflict),
    /// The issue is not one that the patch can change.
    Invalid(InvalidEvent),
}

/// Decides from the state right before the batch's own record. A key is remembered for so many
/// records.
///
/// ```
/// use strand_core::{Batch, Issue, Issues, Timestamp, backend::{Decision, decide}};
///
/// let create = Batch::new().create(Issue::new("bd-1", "Mend"));
/// assert!(matches!(decide(&create, &Issues::default(), u64::MAX), Decision::Write));
/// ```
#[must_use]
pub fn decide(batch: &Batch, issues: &Issues, idempotency_records: u64) -> Decision {
    let is_remembered = |write: &KeyedWrite| {
        write.seq.get().saturating_add(idempotency_records) > issues.last_seq().get()
    };
    let known = batch.key.as_deref().and_then(|key| issues.keyed_write(key));
    if let Some(KeyedWrite { seq, digest }) = known.filter(is_remembered) {
        let is_same = digest.is_none_or(|digest| digest == batch.digest());
        return if is_same {
            Decision::Repeat(seq)
        } else {
            Decision::KeyReused(seq)
        };
    }
    // The batch's own changes so far.
    let mut changed: BTreeMap<&str, Option<Issue>> = BTreeMap::new();
    for step in &batch.steps {
        let id = step.id.as_str();
        let issue = match changed.get(id) {
            Some(issue) => issue.as_ref(),
            None => issues.get(id),
        };
        let version = issues.version(id);
        if let Some(expected) = step.expected
            && !expected.holds(issue, version)
        {
            return Decision::Refuse(Conflict {
                id: id.to_owned(),
                expected,
                version,
                issue: issue.cloned(),
            });
        }
        let Some(event) = &step.event else { continue };
        match fold(issue, event) {
            Effect::Put(issue) => drop(changed.insert(id, Some(issue))),
            Effect::PutData => drop(changed.insert(id, event.data.clone())),
            Effect::Delete => drop(changed.insert(id, None)),
            Effect::Nothing => {
                if let (Some(patch), Some(issue)) = (&event.patch, issue)
                    && let Err(error) = patch.apply(issue)
                {
                    return Decision::Invalid(error);
                }
            }
        }
    }
    Decision::Write
}
