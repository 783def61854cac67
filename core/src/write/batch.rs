//! Writes with conditions: what is to be written, and the decision whether it may be. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    env::system::Host,
    error::{Error, InvalidEvent, Result},
    format::{record::EncodedPayload, seq::Seq},
    issues::{
        event::{IssueEvent, validate_key},
        issue::{Issue, validate_id},
        issues::Issues,
        patch::Patch,
        timestamp::Timestamp,
        transition::{Effect, fold},
        version::Version,
    },
    seeded::{Bug, seeded},
    wal::{log::to_json, payload::Payload},
};

/// Several changes that are made together or not at all, each under a condition.
///
/// All conditions hold at the moment at which the record is written, or nothing is written. Versions
/// are those before the batch; whether an issue exists is as the batch's earlier changes left it.
///
/// ```
/// use strand_core::{IssueLog, Batch, Error, Issue, Options, Patch, Timestamp};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let now = Timestamp::now();
/// let version = log.create(Issue::new("bd-1", "Mend the fence", now), now)?.version();
///
/// let split = Batch::new(now)
///     .key("agent-7/split/bd-1")
///     .create(Issue::new("bd-2", "Buy wire", now))
///     .patch_if("bd-1", version, Patch::new().add_label("split"));
/// let receipt = log.commit(&split)?;
/// // Repeated, say after a timeout, it is answered with the first receipt.
/// assert_eq!(log.commit(&split)?.seq, receipt.seq);
///
/// let late = log.commit(&Batch::new(now).close_if("bd-1", version));
/// assert!(matches!(late, Err(Error::VersionMismatch { .. })));
///
/// // Hand one over, and delete the other, as long as a third is as it was, and a fourth was not created.
/// log.create(Issue::new("bd-3", "Paint it", now), now)?;
/// let version = log.with_issues(|issues| issues.version("bd-3"))?.unwrap_or_default();
/// let more = Batch::new(now)
///     .claim("bd-2", "agent-7")
///     .update(Issue::new("bd-1", "Mend the gate", now))
///     .patch("bd-1", Patch::new().add_label("gate"))
///     .close("bd-1")
///     .reopen("bd-1")
///     .delete("bd-2")
///     .require("bd-3", version)
///     .require_absent("bd-4");
/// log.commit(&more)?;
/// log.commit(&Batch::new(now).update_if(Issue::new("bd-3", "Paint the gate", now), version))?;
/// assert!(log.commit(&Batch::new(now).delete_if("bd-3", version)).is_err_and(|error| error.is_conflict()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    ts: Timestamp,
    key: Option<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    id: String,
    expect: Expect,
    event: Option<IssueEvent>,
}

/// What an issue must be for a step to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Anything,
    Absent,
    Present,
    Version(Version),
    /// Open, and nobody's.
    Claimable,
}

impl Batch {
    /// An empty batch. `ts` is the time of its events.
    #[must_use]
    pub fn new(ts: Timestamp) -> Self {
        Self {
            ts,
            key: None,
            steps: Vec::new(),
        }
    }

    /// Makes the batch repeatable: where a record with this key is in the log, [`crate::IssueLog::commit`] answers with
    /// its receipt, and writes nothing. What the two contain is not compared. 1 to 256 bytes; remembered for
    /// [`crate::Options::idempotency_records`].
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Creates an issue; [`Error::AlreadyExists`] when there is one with this id.
    #[must_use]
    pub fn create(self, issue: Issue) -> Self {
        let event = IssueEvent::add(issue, self.ts);
        self.step(Expect::Absent, event)
    }

    /// Replaces an issue; [`Error::NoSuchIssue`] when there is none.
    #[must_use]
    pub fn update(self, issue: Issue) -> Self {
        let event = IssueEvent::update(issue, self.ts);
        self.step(Expect::Present, event)
    }

    /// Replaces an issue that is still at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn update_if(self, issue: Issue, version: Version) -> Self {
        let event = IssueEvent::update(issue, self.ts);
        self.step(Expect::Version(version), event)
    }

    /// Changes some fields of an issue; [`Error::NoSuchIssue`] when there is none.
    #[must_use]
    pub fn patch(self, id: impl Into<String>, patch: Patch) -> Self {
        let event = IssueEvent::patch(id, patch, self.ts);
        self.step(Expect::Present, event)
    }

    /// Changes some fields of an issue that is still at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn patch_if(self, id: impl Into<String>, version: Version, patch: Patch) -> Self {
        let event = IssueEvent::patch(id, patch, self.ts);
        self.step(Expect::Version(version), event)
    }

    /// Gives an issue to an agent: `assignee` is the agent, `status` is `in_progress`. Only one that is open and has no
    /// assignee; otherwise [`Error::VersionMismatch`], also for the agent that has it.
    #[must_use]
    pub fn claim(self, id: impl Into<String>, agent: &str) -> Self {
        let set = |patch: Patch, field, value: &str| {
            patch
                .set(field, &value)
                .unwrap_or_else(|error| unreachable!("a string can be written: {error}"))
        };
        let patch = set(Patch::new(), "assignee", agent);
        let event = IssueEvent::patch(id, set(patch, "status", "in_progress"), self.ts);
        self.step(Expect::Claimable, event)
    }

    /// Closes an issue; [`Error::NoSuchIssue`] when there is none.
    #[must_use]
    pub fn close(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::close(id, self.ts);
        self.step(Expect::Present, event)
    }

    /// Closes an issue that is still at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn close_if(self, id: impl Into<String>, version: Version) -> Self {
        let event = IssueEvent::close(id, self.ts);
        self.step(Expect::Version(version), event)
    }

    /// Opens a closed issue again; [`Error::NoSuchIssue`] when there is none.
    #[must_use]
    pub fn reopen(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::reopen(id, self.ts);
        self.step(Expect::Present, event)
    }

    /// Deletes an issue; [`Error::NoSuchIssue`] when there is none.
    #[must_use]
    pub fn delete(self, id: impl Into<String>) -> Self {
        let event = IssueEvent::delete(id, self.ts);
        self.step(Expect::Present, event)
    }

    /// Deletes an issue that is still at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn delete_if(self, id: impl Into<String>, version: Version) -> Self {
        let event = IssueEvent::delete(id, self.ts);
        self.step(Expect::Version(version), event)
    }

    /// Adds an event without any condition.
    #[must_use]
    pub fn event(self, event: IssueEvent) -> Self {
        self.step(Expect::Anything, event)
    }

    /// Changes nothing, but needs an issue to be at this version; otherwise [`Error::VersionMismatch`].
    #[must_use]
    pub fn require(self, id: impl Into<String>, version: Version) -> Self {
        self.push(id.into(), Expect::Version(version), None)
    }

    /// Changes nothing, but needs that there is no such issue; otherwise [`Error::AlreadyExists`].
    #[must_use]
    pub fn require_absent(self, id: impl Into<String>) -> Self {
        self.push(id.into(), Expect::Absent, None)
    }

    fn step(self, expect: Expect, event: IssueEvent) -> Self {
        self.push(event.id.clone(), expect, Some(event))
    }

    fn push(mut self, id: String, expect: Expect, event: Option<IssueEvent>) -> Self {
        self.steps.push(Step { id, expect, event });
        self
    }

    /// As [`Batch::event`], or with `new` as [`Batch::create`].
    pub(crate) fn add(&mut self, event: IssueEvent, new: bool) {
        self.steps.push(Step {
            id: event.id.clone(),
            expect: if new {
                Expect::Absent
            } else {
                Expect::Anything
            },
            event: Some(event),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Checks all that can be checked without the store, and encodes the record.
    pub(crate) fn encode(&self) -> Result<EncodedPayload> {
        if let Some(key) = &self.key {
            validate_key(key)?;
        }
        for step in &self.steps {
            match &step.event {
                Some(event) => event.validate()?,
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
            events => EncodedPayload::batch(to_json(&events)?),
        };
        payload.check_len()?;
        Ok(payload)
    }
}

/// What becomes of a batch.
#[derive(Debug)]
pub(crate) enum Decision {
    Write,
    /// The record with its key is there already.
    Repeat(Seq),
    /// A condition does not hold.
    Refuse(Error),
}

/// Decides from the state right before the batch's own record.
pub(crate) fn decide(batch: &Batch, store: &Issues, idempotency_records: u64) -> Decision {
    let remembered =
        |seq: &Seq| seq.get().saturating_add(idempotency_records) > store.last_seq().get();
    let known = batch.key.as_deref().and_then(|key| store.key(key));
    if let Some(seq) = known.filter(remembered) {
        return Decision::Repeat(seq);
    }
    // What the batch itself has changed so far.
    let mut changed: BTreeMap<&str, Option<Issue>> = BTreeMap::new();
    for step in &batch.steps {
        let id = step.id.as_str();
        let now = match changed.get(id) {
            Some(issue) => issue.as_ref(),
            None => store.get(id),
        };
        if let Some(refusal) = refusal(step, now, store.version(id)) {
            return Decision::Refuse(refusal);
        }
        let Some(event) = &step.event else { continue };
        match fold(now, event) {
            Effect::Put(issue) => {
                changed.insert(id, Some(issue));
            }
            Effect::Delete => {
                changed.insert(id, None);
            }
            Effect::Nothing => {
                if let (Some(patch), Some(issue)) = (&event.patch, now)
                    && let Err(error) = patch.apply(issue)
                {
                    return Decision::Refuse(error.into());
                }
            }
        }
    }
    Decision::Write
}

/// Why a step may not be taken.
fn refusal(step: &Step, now: Option<&Issue>, version: Option<Version>) -> Option<Error> {
    let id = || step.id.clone();
    let mismatch = |expected| Error::VersionMismatch {
        id: id(),
        expected,
        found: version,
        issue: now.cloned().map(Box::new),
    };
    match (step.expect, now) {
        (Expect::Absent, Some(_)) => Some(Error::AlreadyExists {
            id: id(),
            version: version.unwrap_or_default(),
        }),
        (Expect::Present, None) => Some(Error::NoSuchIssue { id: id() }),
        (Expect::Version(expected), None) => Some(mismatch(Some(expected))),
        (Expect::Version(expected), Some(_)) => {
            (version != Some(expected)).then(|| mismatch(Some(expected)))
        }
        (Expect::Claimable, Some(_)) if seeded(Bug::ClaimUnchecked) => None,
        (Expect::Claimable, _) => (!now.is_some_and(is_claimable)).then(|| mismatch(None)),
        (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => None,
    }
}

fn is_claimable(issue: &Issue) -> bool {
    let free = issue.assignee().is_none_or(|agent| agent.is_empty());
    free && issue.status().as_deref() == Some("open")
}

/// An id that nobody has in this state.
pub(crate) fn draw_id(prefix: &str, store: &Issues, host: &dyn Host) -> String {
    let digits = id_digits(store.len());
    loop {
        let id = format!("{prefix}-{}", random_digits(digits, host.random()));
        if store.version(&id).is_none() {
            return id;
        }
    }
}

/// How many random characters keep a new id free of collisions with so many issues: one draw in 64 at most
/// has to be repeated.
fn id_digits(issues: usize) -> u32 {
    const DIGITS_MIN: u32 = 3;
    const DIGITS_MAX: u32 = 12;
    let room = (issues as u64).saturating_mul(64);
    (DIGITS_MIN..DIGITS_MAX)
        .find(|digits| 36_u64.pow(*digits) >= room)
        .unwrap_or(DIGITS_MAX)
}

fn random_digits(count: u32, mut draw: u64) -> String {
    let digit = |_| {
        let digit = u32::try_from(draw % 36).unwrap_or(0);
        draw /= 36;
        char::from_digit(digit, 36).unwrap_or('0')
    };
    (0..count).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_the_number_of_issues_and_stay_short() {
        assert_eq!([0, 700, 26_000, 900_000].map(id_digits), [3, 3, 4, 5]);
        assert_eq!(id_digits(usize::MAX), 12);
        for digits in 3..=12 {
            assert_eq!(random_digits(digits, u64::MAX).len(), digits as usize);
        }
    }
}
