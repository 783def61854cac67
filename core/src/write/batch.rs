//! Writes with conditions: what is to be written, and the decision whether it may be. Pure, but for
//! [`Log::commit`] and its relatives, which take the lock, look, and write.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use crate::{
    env::system::Host,
    error::{Error, InvalidEvent, Outcome, Result},
    format::record::EncodedPayload,
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
    state::materialize::Folded,
    telemetry,
    wal::{
        durable::End,
        log::{Log, Receipt, to_json},
        payload::Payload,
        raw_log::RawLog,
        shm::Hints,
    },
};

/// Several changes that are made together or not at all, each under a condition.
///
/// All conditions hold at the moment at which the record is written, or nothing is written. Versions
/// are those before the batch; whether an issue exists is as the batch's earlier changes left it.
///
/// ```
/// use strand_core::{Batch, Error, Issue, Log, Options, Patch, Timestamp};
///
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
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
/// let version = log.look(|store| store.version("bd-3"))?.unwrap_or_default();
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

    /// Makes the batch repeatable: where a record with this key is in the log, [`Log::commit`] answers with
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
    fn encode(&self) -> Result<EncodedPayload> {
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
enum Decision {
    Write,
    /// The record with its key is there already.
    Repeat(u64),
    /// A condition does not hold.
    Refuse(Error),
}

/// Decides from the state right before the batch's own record.
fn decide(batch: &Batch, store: &Issues, idempotency_records: u64) -> Decision {
    let remembered = |seq: &u64| seq.saturating_add(idempotency_records) > store.last_seq();
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

impl Log<IssueEvent> {
    /// Writes a batch as one record, if all its conditions hold: all of it or nothing, also after a crash.
    ///
    /// Blocks as [`Log::append`] does. The first call reads the store's state, and keeps it in memory;
    /// later ones read what was appended since, so that their cost does not grow with the log.
    ///
    /// # Errors
    /// Nothing was written: [`Error::VersionMismatch`], [`Error::AlreadyExists`], [`Error::NoSuchIssue`]
    /// (each tells of a state that is as durable as an acknowledged append), [`Error::InvalidEvent`],
    /// [`Error::Corrupt`]. Otherwise as [`Log::append`].
    ///
    /// Examples: [`Batch`].
    pub fn commit(&self, batch: &Batch) -> Result<Receipt> {
        telemetry::commit(self.raw.writer.dir.path()).within(|| self.raw.commit(batch))
    }

    /// Looks at the state that conditions are checked against, as it is now: through the last record, durable or not.
    ///
    /// To decide what to write. Takes no lock that another process would wait for, unless no memory is shared; other threads
    /// that write with conditions through this `Log` wait until `look` returns. The first call reads the whole state.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Lock`].
    ///
    /// ```
    /// use strand_core::{Filter, Issue, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
    /// let next = log.look(|store| store.ready().first().map(|(id, _)| (*id).to_owned()))?;
    /// if let Some(id) = next {
    ///     log.claim(&id, "agent-7", now)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn look<T>(&self, look: impl FnOnce(&Issues) -> T) -> Result<T> {
        let state = self.raw.fresh_state()?;
        let Some(Folded { store, .. }) = state.as_ref() else {
            unreachable!("it was read just now");
        };
        Ok(look(store))
    }

    /// Creates an issue. Blocks as [`Log::commit`].
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; otherwise as [`Log::commit`].
    ///
    /// ```
    /// use strand_core::{Error, Issue, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
    /// let again = log.create(Issue::new("bd-1", "Buy wire", now), now);
    /// assert!(matches!(again, Err(Error::AlreadyExists { version, .. }) if version == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(&self, issue: Issue, ts: Timestamp) -> Result<Receipt> {
        self.commit(&Batch::new(ts).create(issue))
    }

    /// Creates an issue with a new id: the prefix, a hyphen, and 3 random characters or, as the issues become
    /// more, 4, 5, …. That nobody has the id is checked under the lock.
    ///
    /// `make` is called with the id, and again with another one should somebody have been faster.
    ///
    /// # Errors
    /// As [`Log::commit`]. [`Error::AlreadyExists`] when a hundred ids were taken, which is not by chance.
    ///
    /// ```
    /// use strand_core::{Issue, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// let (id, _) = log.create_new("bd", now, |id| Issue::new(id, "Mend the fence", now))?;
    /// assert!(id.starts_with("bd-") && id.len() == 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(
        &self,
        prefix: &str,
        ts: Timestamp,
        mut make: impl FnMut(&str) -> Issue,
    ) -> Result<(String, Receipt)> {
        const ATTEMPTS: u32 = 100;
        let mut attempts = 0;
        loop {
            let id = self.look(|store| draw_id(prefix, store, self.raw.writer.host()))?;
            attempts += 1;
            match self.create(make(&id), ts) {
                Err(Error::AlreadyExists { .. }) if attempts < ATTEMPTS => {}
                created => return created.map(|receipt| (id, receipt)),
            }
        }
    }

    /// Replaces an issue that is still at this version, see [`Issues::version`]. Blocks as [`Log::commit`].
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] with the present version and issue; otherwise as [`Log::commit`].
    ///
    /// ```
    /// use strand_core::{Issue, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// let version = log.create(Issue::new("bd-1", "Mend the fence", now), now)?.version();
    /// log.update_if(Issue::new("bd-1", "Mend the gate", now), version, now)?;
    /// let late = log.update_if(Issue::new("bd-1", "Mend the roof", now), version, now);
    /// assert!(late.is_err_and(|error| error.is_conflict()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update_if(
        &self,
        issue: Issue,
        expected_version: Version,
        ts: Timestamp,
    ) -> Result<Receipt> {
        self.commit(&Batch::new(ts).update_if(issue, expected_version))
    }

    /// Changes some fields of an issue, and leaves the others to others. Blocks as [`Log::commit`].
    ///
    /// # Errors
    /// [`Error::NoSuchIssue`]; [`InvalidEvent::NotAnArray`] where the patch adds to a field that is none; otherwise
    /// as [`Log::commit`].
    ///
    /// ```
    /// use strand_core::{Issue, Log, Options, Patch, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
    /// log.patch("bd-1", Patch::new().add_label("garden"), now)?;
    /// log.patch("bd-1", Patch::new().set("priority", &0)?, now)?;
    /// let issue = log.look(|store| store.get("bd-1").cloned())?.expect("it is there");
    /// assert_eq!((issue.labels(), issue.priority()), (vec!["garden".to_owned()], Some(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn patch(&self, id: &str, patch: Patch, ts: Timestamp) -> Result<Receipt> {
        self.commit(&Batch::new(ts).patch(id, patch))
    }

    /// Gives an open issue that is nobody's to an agent. Of any number who try, one succeeds. Blocks as [`Log::commit`].
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] with the present version and issue; otherwise as [`Log::commit`].
    ///
    /// ```
    /// use strand_core::{Error, Issue, Log, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
    /// log.claim("bd-1", "agent-7", now)?;
    /// let Err(Error::VersionMismatch { issue: Some(issue), .. }) = log.claim("bd-1", "agent-8", now) else {
    ///     panic!("it is taken");
    /// };
    /// assert_eq!(issue.assignee().as_deref(), Some("agent-7"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn claim(&self, id: &str, agent: &str, ts: Timestamp) -> Result<Receipt> {
        self.commit(&Batch::new(ts).claim(id, agent))
    }
}

impl RawLog {
    fn commit(&self, batch: &Batch) -> Result<Receipt> {
        let payload = batch.encode()?;
        // Most of what is new is read before the lock is taken, so that it is not held for long.
        if self.writer.hints().is_shared() {
            drop(self.state_through(self.glance(Hints::tail_seq))?);
        }
        let locked = self.writer.lock()?;
        let tail = locked.validate_tail()?;
        let tail_seq = tail.at.seq;
        let mut state = self.state();
        let known_seq = if seeded(Bug::StaleCondition) {
            0
        } else {
            tail_seq
        };
        let store = self.advance(&mut state, known_seq)?;
        let decision = decide(batch, store, self.writer.options.idempotency_records);
        let seq = match &decision {
            Decision::Write => tail.append(&payload)?,
            Decision::Repeat(seq) => *seq,
            // What the answer tells of must not be lost afterwards.
            Decision::Refuse(refusal) => match refusal {
                Error::VersionMismatch { found, .. } => found.map_or(tail_seq, Version::get),
                Error::AlreadyExists { version, .. } => version.get(),
                _ => tail_seq,
            },
        };
        drop(state);
        let synced = locked.sync_unless_shared(seq);
        locked.unlock()?;
        let durable = synced.and_then(|()| self.writer.acknowledge(seq));
        let repeated = matches!(decision, Decision::Repeat(_));
        let Decision::Refuse(refusal) = decision else {
            return durable.map(|()| Receipt { seq, repeated });
        };
        match durable {
            // Nothing of this batch was written, whatever became of what it met.
            Err(Error::DurabilityUnknown { source, .. }) => Err(Error::Io {
                op: "sync",
                path: self.writer.dir.path().to_owned(),
                outcome: Outcome::Rejected,
                source: std::io::Error::other(source),
            }),
            durable => durable.and(Err(refusal)),
        }
    }

    /// The state through the present tail.
    fn fresh_state(&self) -> Result<MutexGuard<'_, Option<Folded>>> {
        if self.writer.hints().is_shared() {
            return self.state_through(self.look(Hints::tail_seq));
        }
        // Nobody tells there what others are only just writing, and may take back.
        let locked = self.writer.lock()?;
        let state = self.state_through(locked.validate_tail()?.at.seq)?;
        locked.unlock()?;
        Ok(state)
    }

    /// The state through this record, which is published; read without the lock.
    fn state_through(&self, tail_seq: u64) -> Result<MutexGuard<'_, Option<Folded>>> {
        let mut state = self.state();
        self.advance(&mut state, tail_seq)?;
        if let Some(folded) = state.as_mut() {
            self.forget_old(folded);
        }
        Ok(state)
    }

    /// Forgets the keys and tombstones that a compaction would, now and then: who lives for long would else
    /// remember every one that there ever was.
    fn forget_old(&self, folded: &mut Folded) {
        if !folded.is_due_to_forget() {
            return;
        }
        let store = &mut folded.store;
        let last_seq = store.last_seq();
        store.forget_keys_before(last_seq.saturating_sub(self.writer.options.idempotency_records));
        let now = Timestamp::from_ms(self.writer.host().unix_ms());
        store.forget_tombstones_before(now.saturating_sub_ms(self.writer.options.tombstone_ms));
        folded.has_forgotten();
    }

    fn state(&self) -> MutexGuard<'_, Option<Folded>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new through `tail_seq`. After an error the state is read anew the next time.
    fn advance<'a>(&self, state: &'a mut Option<Folded>, tail_seq: u64) -> Result<&'a Issues> {
        let end = End::Seq(tail_seq);
        let folded = match state.take() {
            None => Folded::load(&self.writer.dir, || end)?,
            Some(mut folded) => {
                folded.advance(end)?;
                folded
            }
        };
        Ok(&state.insert(folded).store)
    }
}

/// An id that nobody has in this state.
fn draw_id(prefix: &str, store: &Issues, host: &dyn Host) -> String {
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
