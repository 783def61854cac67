//! The parts of a write with conditions. Pure.

use std::borrow::Cow;

use crate::{
    error::{InvalidEvent, Result},
    format::{payload::Payload as _, record::EncodedPayload},
    issues::{
        event::{IssueEvent, validate_key},
        issue::{Issue, validate_id},
        operation::OperationDigest,
        patch::Patch,
        timestamp::Timestamp,
        version::Version,
    },
    state::points::Wanted,
    wal::log::to_json,
};

/// The requirement of a write on an issue: see [`crate::Conflict`].
///
/// Example: [`crate::CommitError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// The issue does not exist.
    Absent,
    /// The issue exists.
    Present,
    /// The issue is at this version.
    Version(Version),
    /// The issue is open and has no assignee.
    Claimable,
}

/// Whether a claim names an agent.
fn has_agent(claim: &IssueEvent) -> bool {
    let patch = claim.patch.as_ref();
    let agent: Option<String> = patch.and_then(|patch| patch.value_of("assignee"));
    agent.is_some_and(|agent| !agent.trim().is_empty())
}

impl Expected {
    pub(crate) fn holds(self, issue: Option<&Issue>, version: Option<Version>) -> bool {
        match self {
            Self::Absent => issue.is_none(),
            Self::Present => issue.is_some(),
            Self::Version(expected) => issue.is_some() && version == Some(expected),
            Self::Claimable => issue.is_some_and(is_claimable),
        }
    }
}

fn is_claimable(issue: &Issue) -> bool {
    let free = issue.assignee().is_none_or(|agent| agent.is_empty());
    free && issue.status().as_deref() == Some("open")
}

/// Several changes, each under a condition, that are made together or not at all.
///
/// The conditions are checked under the lock, right before the record is written. If one does not
/// hold, nothing is written: [`CommitError::Conflict`](crate::CommitError::Conflict). Versions are
/// those before the batch. Whether an issue exists depends on the batch's earlier changes, too.
///
/// ```
/// use strand_core::{Batch, Issue, IssueLog, Options, Patch, Timestamp};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let version = log.create(Issue::new("bd-1", "Mend the fence"))?.version();
///
/// let split = Batch::new()
///     .key("agent-7/split/bd-1")
///     .create(Issue::new("bd-2", "Buy wire"))
///     .patch_if("bd-1", version, Patch::new().add_label("split"));
/// let receipt = log.commit(&split)?;
/// // Repeated, say after a timeout, it returns the first receipt.
/// assert_eq!(log.commit(&split)?.seq, receipt.seq);
///
/// let late = log.commit(&Batch::new().close_if("bd-1", version));
/// assert!(late.is_err_and(|error| error.is_conflict()));
///
/// // Hand one over and delete the other, provided that a third is unchanged and a fourth absent.
/// let version = log.create(Issue::new("bd-3", "Paint it"))?.version();
/// let more = Batch::new()
///     .claim("bd-2", "agent-7")
///     .update(Issue::new("bd-1", "Mend the gate"))
///     .patch("bd-1", Patch::new().add_label("gate"))
///     .close("bd-1")
///     .reopen("bd-1")
///     .delete("bd-2")
///     .require("bd-3", version)
///     .require_absent("bd-4");
/// log.commit(&more)?;
/// log.commit(&Batch::at(Timestamp::from_ms(0)).reopen("bd-1"))?; // Long ago.
/// log.commit(&Batch::new().update_if(Issue::new("bd-3", "Paint the gate"), version))?;
/// let late = log.commit(&Batch::new().delete_if("bd-3", version));
/// assert!(late.is_err_and(|error| error.is_conflict()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    ts: Timestamp,
    pub(crate) key: Option<String>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) expected: Option<Expected>,
    pub(crate) event: Option<IssueEvent>,
}

impl Batch {
    /// An empty batch, whose events will have the present time.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "the time is no default value")]
    pub fn new() -> Self {
        Self::at(Timestamp::now())
    }

    /// An empty batch, whose events will have the time `ts`. Example: [`Batch`].
    #[must_use]
    pub fn at(ts: Timestamp) -> Self {
        Self {
            ts,
            key: None,
            steps: Vec::new(),
        }
    }

    /// Makes the batch repeatable with an *idempotency key* of 1 to 256 bytes: if a record with
    /// this key is in the log, [`commit`](crate::IssueLog::commit) returns its receipt and writes
    /// nothing. If that record's events are others, it fails with
    /// [`CommitError::KeyReused`](crate::CommitError::KeyReused); their times (`ts` and the fields
    /// `created_at`, `updated_at` and `closed_at`) and the batch's conditions do not count. The key
    /// is remembered for [`crate::Options::idempotency_records`].
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Creates an issue that does not exist.
    #[must_use]
    pub fn create(self, issue: Issue) -> Self {
        let event = IssueEvent::add(issue, self.ts);
        self.step(Expected::Absent, event)
    }

    /// Replaces an issue that exists.
    #[must_use]
    pub fn update(self, issue: Issue) -> Self {
        let event = IssueEvent::update(issue, self.ts);
        self.step(Expected::Present, event)
    }

    /// Replaces an issue that is at this version.
    #[must_use]
    pub fn update_if(self, issue: Issue, version: Version) -> Self {
        let event = IssueEvent::update(issue, self.ts);
        self.step(Expected::Version(version), event)
    }

    /// Changes some fields of an issue that exists.
    #[must_use]
    pub fn patch(self, id: impl Into<String>, patch: Patch) -> Self {
        let event = IssueEvent::patch(id, patch, self.ts);
        self.step(Expected::Present, event)
    }

    /// Changes some fields of an issue that is at this version.
    #[must_use]
    pub fn patch_if(self, id: impl Into<String>, version: Version, patch: Patch) -> Self {
        let event = IssueEvent::patch(id, patch, self.ts);
        self.step(Expected::Version(version), event)
    }

    /// Claims an open issue without an assignee: `assignee` becomes the agent, `status`
    /// `in_progress`. A claim is a conflict also for the agent that holds the issue. An empty agent
    /// is invalid.
    #[must_use]
    pub fn claim(self, id: impl Into<String>, agent: &str) -> Self {
        let patch = Patch::new().set_string("assignee", agent);
        let event = IssueEvent::patch(id, patch.set_string("status", "in_progress"), self.ts);
        self.step(Expected::Claimable, event)
    }

    /// Closes an issue that exists.
    #[must_use]
    pub fn close(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::close(id, self.ts);
        self.step(Expected::Present, event)
    }

    /// Closes an issue that is at this version.
    #[must_use]
    pub fn close_if(self, id: impl Into<String>, version: Version) -> Self {
        let event = IssueEvent::close(id, self.ts);
        self.step(Expected::Version(version), event)
    }

    /// Reopens an issue that exists.
    #[must_use]
    pub fn reopen(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::reopen(id, self.ts);
        self.step(Expected::Present, event)
    }

    /// Deletes an issue that exists.
    #[must_use]
    pub fn delete(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::delete(id, self.ts);
        self.step(Expected::Present, event)
    }

    /// Deletes an issue that is at this version.
    #[must_use]
    pub fn delete_if(self, id: impl Into<String>, version: Version) -> Self {
        let event = IssueEvent::delete(id, self.ts);
        self.step(Expected::Version(version), event)
    }

    /// Adds an event without a condition.
    #[must_use]
    pub fn event(self, event: IssueEvent) -> Self {
        self.push(event.id.clone(), None, Some(event))
    }

    /// Requires an issue to be at this version, without changing it.
    #[must_use]
    pub fn require(self, id: impl Into<String>, version: Version) -> Self {
        self.push(id.into(), Some(Expected::Version(version)), None)
    }

    /// Requires that an issue does not exist.
    #[must_use]
    pub fn require_absent(self, id: impl Into<String>) -> Self {
        self.push(id.into(), Some(Expected::Absent), None)
    }

    fn step(self, expected: Expected, event: IssueEvent) -> Self {
        self.push(event.id.clone(), Some(expected), Some(event))
    }

    fn push(mut self, id: String, expected: Option<Expected>, event: Option<IssueEvent>) -> Self {
        self.steps.push(Step {
            id,
            expected,
            event,
        });
        self
    }

    /// What it does, for comparison with the record that has its key.
    pub(crate) fn digest(&self) -> OperationDigest {
        OperationDigest::of(self.steps.iter().filter_map(|step| step.event.as_ref()))
    }

    /// What must be known of the state to decide about the batch.
    pub(crate) fn wanted(&self) -> Wanted {
        let ids = self.steps.iter().map(|step| step.id.clone()).collect();
        Wanted::new(ids, self.key.clone())
    }

    /// Checks all that can be checked without the state, and encodes the record.
    pub(crate) fn encode(&self) -> Result<EncodedPayload> {
        if let Some(key) = &self.key {
            validate_key(key)?;
        }
        for step in &self.steps {
            match &step.event {
                Some(event) => {
                    event.validate()?;
                    if step.expected == Some(Expected::Claimable) && !has_agent(event) {
                        return Err(InvalidEvent::EmptyAgent.into());
                    }
                }
                None => validate_id(&step.id)?,
            }
        }
        let events = self.steps.iter().filter_map(|step| step.event.as_ref());
        let mut events: Vec<Cow<'_, IssueEvent>> = events.map(Cow::Borrowed).collect();
        let first = events.first_mut().ok_or(InvalidEvent::EmptyBatch)?;
        if self.key.is_some() {
            first.to_mut().key.clone_from(&self.key);
        }
        let payload = match events.as_slice() {
            [event] => EncodedPayload::one(to_json(event)?)?,
            events => EncodedPayload::batch(to_json(&events)?)?,
        };
        payload.check_len()?;
        Ok(payload)
    }
}
