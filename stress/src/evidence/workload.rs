//! Writes with conditions: what an agent asks for, drawn from the seed and from what it sees, and the
//! answer that it has to get, decided a second time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strand_core::{Batch, Error, Issue, IssueEvent, Issues, Op, Patch};

use crate::evidence::fold::{Effect, Event, Model, fold};
use crate::evidence::payload::{EPOCH_MS, Noise, PayloadError, Payloads};

/// How many issues one batch of the setup creates.
const SETUP_BATCH: u32 = 50;

/// One write with its conditions; all of it is one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The time of its events.
    pub ts: i64,
    /// What it needs and does, in this order.
    pub steps: Vec<Step>,
}

/// One part of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The issue.
    pub id: String,
    /// What the issue must be.
    pub expect: Expect,
    /// The event as it has to be stored, without the key; `None` where nothing changes.
    pub event: Option<String>,
}

/// What an issue must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever it is.
    Anything,
    /// Absent or deleted.
    Absent,
    /// There.
    Present,
    /// There, at this version.
    Version(u64),
    /// Open and nobody's; it becomes this agent's.
    Claimable(String),
}

/// Why a write was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refused")]
pub enum Refusal {
    /// The issue is at another version, or not to be claimed.
    VersionMismatch {
        /// The issue.
        id: String,
        /// The version asked for; `None` for a claim.
        expected: Option<u64>,
        /// The version it has.
        found: Option<u64>,
        /// Its text.
        issue: Option<String>,
    },
    /// The issue exists.
    AlreadyExists {
        /// The issue.
        id: String,
        /// Its version.
        version: u64,
    },
    /// The issue does not exist.
    NoSuchIssue {
        /// The issue.
        id: String,
    },
    /// A patch does not fit the issue.
    CannotPatch {
        /// The issue.
        id: String,
    },
}

impl Refusal {
    /// What an error says about the condition that did not hold; `None` for every other error.
    #[must_use]
    pub fn of(error: &Error) -> Option<Refusal> {
        match error {
            Error::VersionMismatch {
                id,
                expected,
                found,
                issue,
            } => Some(Refusal::VersionMismatch {
                id: id.clone(),
                expected: *expected,
                found: *found,
                issue: issue.as_ref().map(|issue| issue.as_json().to_owned()),
            }),
            Error::AlreadyExists { id, version } => Some(Refusal::AlreadyExists {
                id: id.clone(),
                version: *version,
            }),
            Error::NoSuchIssue { id } => Some(Refusal::NoSuchIssue { id: id.clone() }),
            _ => None,
        }
    }

    /// Whether an agent that should be told `self` may be told `told`: the version of a deleted
    /// issue is forgotten some time.
    fn allows(&self, told: &Refusal) -> bool {
        let mut expected = self.clone();
        if let (
            Refusal::VersionMismatch {
                found: expected,
                issue: None,
                ..
            },
            Refusal::VersionMismatch { found: None, .. },
        ) = (&mut expected, told)
        {
            *expected = None;
        }
        expected == *told
    }
}

impl Plan {
    /// The batch to give to the log.
    ///
    /// # Errors
    /// What the log's own types say about a step that cannot be one.
    pub fn batch(&self, key: &str) -> Result<Batch, String> {
        let mut batch = Batch::new(self.ts).key(key);
        for step in &self.steps {
            let id = step.id.as_str();
            let Some(json) = &step.event else {
                batch = match step.expect {
                    Expect::Version(version) => batch.require(id, version),
                    Expect::Absent => batch.require_absent(id),
                    _ => return Err(format!("nothing can be required of {id} like that")),
                };
                continue;
            };
            let event: IssueEvent =
                serde_json::from_str(json).map_err(|error| error.to_string())?;
            batch = match (&step.expect, event) {
                (Expect::Anything, event) => batch.event(event),
                (Expect::Claimable(agent), _) => batch.claim(id, agent),
                (
                    expect,
                    IssueEvent {
                        op,
                        data: Some(issue),
                        ..
                    },
                ) => match (expect, op) {
                    (Expect::Absent, Op::Add) => batch.create(issue),
                    (Expect::Present, Op::Update) => batch.update(issue),
                    (Expect::Version(version), Op::Update) => batch.update_if(issue, *version),
                    _ => return Err(format!("there is no such write: {json}")),
                },
                (
                    expect,
                    IssueEvent {
                        patch: Some(patch), ..
                    },
                ) => match expect {
                    Expect::Present => batch.patch(id, patch),
                    Expect::Version(version) => batch.patch_if(id, *version, patch),
                    _ => return Err(format!("there is no such write: {json}")),
                },
                (expect, IssueEvent { op, .. }) => match (expect, op) {
                    (Expect::Present, Op::Close) => batch.close(id),
                    (Expect::Version(version), Op::Close) => batch.close_if(id, *version),
                    (Expect::Present, Op::Delete) => batch.delete(id),
                    (Expect::Version(version), Op::Delete) => batch.delete_if(id, *version),
                    (Expect::Present, Op::Reopen) => batch.reopen(id),
                    _ => return Err(format!("there is no such write: {json}")),
                },
            };
        }
        Ok(batch)
    }

    /// The events of its record, with the key in the first one.
    #[must_use]
    pub fn events(&self, key: &str) -> Vec<String> {
        let events = self.steps.iter().filter_map(|step| step.event.clone());
        let mut events: Vec<String> = events.collect();
        if let Some(first) = events.first_mut() {
            first.pop();
            *first = format!("{first},\"key\":{}}}", serde_json::Value::from(key));
        }
        events
    }

    /// What the log has to answer where the state is that after the record `seq`; `None`: it writes.
    #[must_use]
    pub fn refusal_at(&self, model: &Model, seq: u64) -> Option<Refusal> {
        let mut changed: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for step in &self.steps {
            let id = step.id.as_str();
            let stored = model.issue(id, seq);
            let version = stored.map(|(version, _)| version);
            let now = match changed.get(id) {
                Some(issue) => issue.clone(),
                None => stored.and_then(|(_, text)| text.map(str::to_owned)),
            };
            let mismatch = |expected| {
                Some(Refusal::VersionMismatch {
                    id: step.id.clone(),
                    expected,
                    found: version,
                    issue: now.clone(),
                })
            };
            let refusal = match (&step.expect, &now) {
                (Expect::Absent, Some(_)) => Some(Refusal::AlreadyExists {
                    id: step.id.clone(),
                    version: version.unwrap_or(0),
                }),
                (Expect::Present, None) => Some(Refusal::NoSuchIssue {
                    id: step.id.clone(),
                }),
                (Expect::Version(expected), Some(_)) if version == Some(*expected) => None,
                (Expect::Version(expected), _) => mismatch(Some(*expected)),
                (Expect::Claimable(_), Some(text)) if is_claimable(text) => None,
                (Expect::Claimable(_), _) => mismatch(None),
                (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => None,
            };
            if refusal.is_some() {
                return refusal;
            }
            let event = step
                .event
                .as_deref()
                .and_then(|json| Event::parse(json).ok());
            match event.map(|event| fold(now.as_deref(), &event)) {
                Some(Effect::Put(text)) => drop(changed.insert(id, Some(text))),
                Some(Effect::Delete) => drop(changed.insert(id, None)),
                Some(Effect::CannotPatch) => {
                    return Some(Refusal::CannotPatch {
                        id: step.id.clone(),
                    });
                }
                Some(Effect::Nothing) | None => {}
            }
        }
        None
    }

    /// Whether `told` is the right answer after some record from `from` through `through`.
    #[must_use]
    pub fn is_refused_between(
        &self,
        model: &Model,
        from: u64,
        through: u64,
        told: &Refusal,
    ) -> bool {
        let ids = self.steps.iter().map(|step| step.id.as_str());
        let changes = model.changes(ids, from, through);
        std::iter::once(from).chain(changes).any(|seq| {
            let expected = self.refusal_at(model, seq);
            expected.is_some_and(|expected| expected.allows(told))
        })
    }

    fn of(ts: i64, steps: Vec<Step>) -> Plan {
        Plan { ts, steps }
    }
}

fn is_claimable(issue: &str) -> bool {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        status: serde_json::Value,
        #[serde(default)]
        assignee: serde_json::Value,
    }
    serde_json::from_str(issue).is_ok_and(|Fields { status, assignee }| {
        status == "open" && assignee.as_str().unwrap_or_default().is_empty()
    })
}

fn step(id: &str, expect: Expect, ts: i64, op: &str, rest: &str) -> Step {
    let name = serde_json::Value::from(id);
    Step {
        id: id.to_owned(),
        expect,
        event: Some(format!(
            "{{\"ts\":{ts},\"op\":\"{op}\",\"id\":{name},{rest}}}"
        )),
    }
}

fn with_data(id: &str, expect: Expect, ts: i64, op: &str, issue: &Issue) -> Step {
    step(id, expect, ts, op, &format!("\"data\":{}", issue.as_json()))
}

fn bare(id: &str, expect: Expect, ts: i64, op: &str) -> Step {
    step(id, expect, ts, op, "\"data\":null")
}

fn claim_step(id: &str, agent: u32, ts: i64) -> Step {
    let name = agent_name(agent);
    let patch =
        format!("\"patch\":{{\"set\":{{\"assignee\":\"{name}\",\"status\":\"in_progress\"}}}}");
    step(id, Expect::Claimable(name), ts, "patch", &patch)
}

/// What an agent is called where it claims.
#[must_use]
pub fn agent_name(agent: u32) -> String {
    format!("agent-{agent}")
}

/// An event of a file, without a condition.
///
/// # Errors
/// The event cannot be written as JSON.
pub fn replayed(event: &IssueEvent) -> Result<Plan, serde_json::Error> {
    let step = Step {
        id: event.id.clone(),
        expect: Expect::Anything,
        event: Some(serde_json::to_string(event)?),
    };
    Ok(Plan::of(event.ts, vec![step]))
}

/// An issue that is there before the agents begin; numbered from 0.
#[must_use]
pub fn pool_id(number: u32) -> String {
    format!("bd-p{number}")
}

/// The writes that create the pool, each with the next number, from 1.
#[must_use]
pub fn setup(pool: u32) -> Vec<Plan> {
    let first = (0..pool).step_by(SETUP_BATCH as usize);
    let numbers = first.map(|first| first..pool.min(first.saturating_add(SETUP_BATCH)));
    let create = |number: u32| {
        let (id, ts) = (pool_id(number), EPOCH_MS + i64::from(number));
        let issue = Issue::new(&id, &format!("Issue {number} of the pool"), ts);
        with_data(&id, Expect::Absent, EPOCH_MS, "add", &issue)
    };
    numbers
        .map(|numbers| Plan::of(EPOCH_MS, numbers.map(create).collect()))
        .collect()
}

/// The claim that an agent makes at one of its writes: each agent tries each issue of the pool once,
/// in an order of its own.
#[must_use]
pub fn claim(seed: u64, agent: u32, agents: u32, write: u32, pool: u32) -> Plan {
    let pool = u64::from(pool.max(1));
    let start = u64::from(agent) * pool / u64::from(agents.max(1));
    let mut stride = 1 + (seed ^ u64::from(agent)) % pool;
    while divisor(stride, pool) != 1 {
        stride += 1;
    }
    let number = (start + u64::from(write - 1) * stride) % pool;
    let id = pool_id(u32::try_from(number).unwrap_or(0));
    let ts = EPOCH_MS + i64::from(write);
    Plan::of(ts, vec![claim_step(&id, agent, ts)])
}

fn divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// The ids that one write may bring into being.
fn new_id(agent: u32, write: u32, number: u64) -> String {
    format!("bd-n{agent}w{write}n{number}")
}

/// Draws a write of the mixed workload from what the agent sees of the store.
///
/// # Errors
/// The line of the file of events is none.
pub fn mixed(
    payloads: &Payloads,
    seed: u64,
    agent: u32,
    write: u32,
    state: &Issues,
) -> Result<Plan, PayloadError> {
    let noise = Noise(seed ^ (u64::from(agent) << 40) ^ (u64::from(write) << 8) ^ 5);
    let ts = EPOCH_MS + i64::from(agent) * 1_000 + i64::from(write);
    let mut draw = Draw {
        noise,
        agent,
        write,
        ts,
        state,
    };
    // Of 1,000 events of the trace these are adds, closes, reopens and deletes; the rest are updates.
    let (op, issue) = payloads.op_and_issue(agent, write)?;
    let op = op.unwrap_or_else(|| match draw.noise.below(1000) {
        0..70 => Op::Add,
        70..103 => Op::Close,
        103..128 => Op::Reopen,
        128..164 => Op::Delete,
        _ => Op::Update,
    });
    let steps = match op {
        Op::Add => vec![draw.create(&issue)],
        Op::Close | Op::Delete => {
            let op = if op == Op::Close { "close" } else { "delete" };
            let (id, version) = draw.issue();
            let expect = draw.expect(version);
            vec![bare(&id, expect, ts, op)]
        }
        Op::Reopen => vec![bare(&draw.issue().0, Expect::Present, ts, "reopen")],
        _ => draw.update(&issue),
    };
    Ok(Plan::of(ts, steps))
}

struct Draw<'a> {
    noise: Noise,
    agent: u32,
    write: u32,
    ts: i64,
    state: &'a Issues,
}

impl Draw<'_> {
    fn one_in(&mut self, times: usize) -> bool {
        self.noise.below(times) == 0
    }

    /// An issue that the agent sees, and its version there.
    fn issue(&mut self) -> (String, u64) {
        let at = self.noise.below(self.state.len());
        let seen = self.state.iter().nth(at).map(|(id, _)| id.to_owned());
        let id = seen.unwrap_or_else(|| pool_id(0));
        let version = self.state.version(&id).unwrap_or(1);
        (id, version)
    }

    fn expect(&mut self, version: u64) -> Expect {
        if self.one_in(2) {
            Expect::Version(version)
        } else {
            Expect::Present
        }
    }

    fn create(&mut self, issue: &Issue) -> Step {
        let gone = self.noise.below(64);
        let gone = pool_id(u32::try_from(gone).unwrap_or(0));
        let id = match self.noise.below(10) {
            0..2 => self.issue().0,
            2..6 if self.state.get(&gone).is_none() => gone,
            _ => new_id(self.agent, self.write, 0),
        };
        with_data(&id, Expect::Absent, self.ts, "add", &renamed(issue, &id))
    }

    fn update(&mut self, issue: &Issue) -> Vec<Step> {
        let (id, version) = self.issue();
        let ts = self.ts;
        match self.noise.below(100) {
            0..30 => {
                let expect = Expect::Version(version);
                vec![with_data(&id, expect, ts, "update", &renamed(issue, &id))]
            }
            30..35 => vec![with_data(
                &id,
                Expect::Present,
                ts,
                "update",
                &renamed(issue, &id),
            )],
            35..60 => vec![self.patch(&id, Expect::Present)],
            60..70 => vec![self.patch(&id, Expect::Version(version))],
            70..85 => self.batch(issue, &id, version),
            _ => {
                let free = self
                    .state
                    .iter()
                    .find(|(_, issue)| is_claimable(issue.as_json()));
                let free = free.map(|(id, _)| id.to_owned());
                let id = free.filter(|_| !self.one_in(3)).unwrap_or(id);
                vec![claim_step(&id, self.agent, ts)]
            }
        }
    }

    fn patch(&mut self, id: &str, expect: Expect) -> Step {
        let (agent, write) = (self.agent, self.write);
        let patch = match self.noise.below(4) {
            0 => Patch::new().set(format!("field_{agent}"), &write),
            1 => Ok(Patch::new().add_label(&format!("label-{}", write % 7))),
            2 => Ok(Patch::new()
                .remove_label(&format!("label-{}", write % 7))
                .unset(format!("field_{}", agent + 1))),
            _ => {
                Patch::new().append_comment(&format!("{agent} was here the {write}th time, \"é\""))
            }
        };
        let patch = patch.and_then(|patch| {
            serde_json::to_string(&patch).map_err(|error| strand_core::InvalidEvent::Encoding {
                message: error.to_string(),
            })
        });
        let patch = patch.unwrap_or_else(|error| unreachable!("a patch can be written: {error}"));
        step(id, expect, self.ts, "patch", &format!("\"patch\":{patch}"))
    }

    /// A batch over two to four issues, the first of which is changed.
    fn batch(&mut self, issue: &Issue, id: &str, version: u64) -> Vec<Step> {
        let mut steps = vec![self.patch(id, Expect::Version(version))];
        for number in 1..=1 + self.noise.below(3) as u64 {
            let (id, version) = self.issue();
            let (expect, ts) = (Expect::Version(version), self.ts);
            if steps.iter().any(|step| step.id == id) {
                continue;
            }
            let new = new_id(self.agent, self.write, number);
            steps.push(match self.noise.below(6) {
                0 => self.patch(&id, expect),
                1 => with_data(&id, expect, ts, "update", &renamed(issue, &id)),
                2 => bare(&id, expect, ts, "close"),
                3 => with_data(&new, Expect::Absent, ts, "add", &renamed(issue, &new)),
                4 => Step {
                    id: new,
                    expect: Expect::Absent,
                    event: None,
                },
                _ => Step {
                    id,
                    expect,
                    event: None,
                },
            });
        }
        steps
    }
}

fn renamed(issue: &Issue, id: &str) -> Issue {
    issue
        .with("id", id)
        .unwrap_or_else(|error| unreachable!("a string can be written: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::evidence::payload::PayloadSource;

    #[test]
    fn every_agent_tries_every_issue_once() {
        for pool in [1, 7, 100] {
            for agent in 0..3 {
                let ids = (1..=pool).map(|write| claim(9, agent, 3, write, pool));
                let ids: BTreeSet<String> = ids.map(|plan| plan.steps[0].id.clone()).collect();
                assert_eq!(ids.len(), pool as usize);
            }
        }
        assert_ne!(claim(9, 0, 3, 1, 100), claim(9, 1, 3, 1, 100));
    }

    #[test]
    fn the_pool_is_created_in_batches() {
        let plans = setup(120);
        assert_eq!(
            plans
                .iter()
                .map(|plan| plan.steps.len())
                .collect::<Vec<_>>(),
            [50, 50, 20]
        );
    }

    #[test]
    fn every_write_that_is_drawn_can_be_asked_for_and_is_stored_as_planned() {
        let dir = tempfile::tempdir().unwrap();
        let log = strand_core::Log::open(dir.path(), strand_core::Options::default()).unwrap();
        let payloads = Payloads::open(&PayloadSource::Small, 3, 400).unwrap();
        let mut model = Model::default();
        let mut seq = 0;
        let mut refused = 0;
        let mut seen = Issues::default();
        let mut commit = |plan: &Plan, key: &str, seen: &mut Issues| {
            let expected = plan.refusal_at(&model, seq);
            match log.commit(&plan.batch(key).unwrap()) {
                Ok(receipt) => {
                    assert_eq!(expected, None, "{plan:?}");
                    seq += 1;
                    assert_eq!((receipt.seq, receipt.repeated), (seq, false));
                    let events = plan.events(key);
                    model.apply(seq, events.iter().map(String::as_str)).unwrap();
                    for event in events {
                        seen.apply(seq, serde_json::from_str(&event).unwrap())
                            .unwrap();
                    }
                }
                Err(error) => {
                    let told = Refusal::of(&error).unwrap_or_else(|| panic!("{error}: {plan:?}"));
                    assert_eq!(expected.as_ref(), Some(&told));
                    assert!(plan.is_refused_between(&model, 0, seq, &told));
                    refused += 1;
                }
            }
        };
        for (index, plan) in setup(20).iter().enumerate() {
            commit(plan, &format!("setup{index}"), &mut seen);
        }
        let mut old = seen.clone();
        for write in 1..=400 {
            if write % 8 == 0 {
                old = seen.clone();
            }
            let plan = mixed(&payloads, 3, 1, write, &old).unwrap();
            commit(&plan, &format!("w{write}"), &mut seen);
        }
        assert!(refused > 20, "{refused}");
        let stored = Issues::load(dir.path()).unwrap();
        let issues = stored.iter();
        let issues = issues.map(|(id, issue)| (id, stored.version(id).unwrap(), issue.as_json()));
        assert_eq!(model.difference(seq, issues), None);
        assert_eq!(model.last_state().without_effect, stored.without_effect());
    }

    #[test]
    fn a_refusal_is_told_from_another() {
        let mut model = Model::default();
        let plan = &setup(1)[0];
        model
            .apply(1, plan.events("k").iter().map(String::as_str))
            .unwrap();
        let claim = claim(1, 0, 1, 1, 1);
        model
            .apply(2, claim.events("k2").iter().map(String::as_str))
            .unwrap();
        let right = claim.refusal_at(&model, 2).unwrap();
        assert!(claim.is_refused_between(&model, 1, 2, &right));
        assert!(!claim.is_refused_between(&model, 0, 1, &right));
        let Refusal::VersionMismatch { id, issue, .. } = right else {
            panic!("{right:?}")
        };
        let old = Refusal::VersionMismatch {
            id,
            expected: None,
            found: Some(1),
            issue,
        };
        assert!(!claim.is_refused_between(&model, 0, 2, &old));
    }
}
