//! Writes with conditions: a plan of what an agent asks for, and the answer that it has to get,
//! decided independently of the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::fold::{Effect, Event, Model, fold};
use crate::evidence::ids::EPOCH_MS;

/// How many issues one batch of the setup creates.
const SETUP_BATCH: u32 = 50;

/// One write with its conditions; all of it is one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The time of its events.
    pub ts: i64,
    /// Its conditions and changes, in order.
    pub steps: Vec<Step>,
}

/// One part of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The issue.
    pub id: String,
    /// The condition.
    pub expect: Expect,
    /// The event as it has to be stored, without the key; `None` where nothing changes.
    pub event: Option<String>,
}

/// A condition on an issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// None.
    Anything,
    /// Absent or deleted.
    Absent,
    /// There.
    Present,
    /// There, at this version.
    Version(u64),
    /// Open and unassigned; it is assigned to this agent.
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
    /// A store that is not strand said so.
    Said {
        /// Its words.
        text: String,
    },
}

impl Refusal {
    /// Whether `told` is an acceptable answer where `self` is expected: the version of a deleted
    /// issue is forgotten at some point.
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

    /// The refusal that the log has to give in the state after the record `seq`; `None` if it has
    /// to write.
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

    /// Whether `told` is the right answer in the state after some record from `from` through
    /// `through`.
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
}

pub(crate) fn is_claimable(issue: &str) -> bool {
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

pub(crate) fn step(id: &str, expect: Expect, ts: i64, op: &str, rest: &str) -> Step {
    let name = serde_json::Value::from(id);
    Step {
        id: id.to_owned(),
        expect,
        event: Some(format!(
            "{{\"ts\":{ts},\"op\":\"{op}\",\"id\":{name},{rest}}}"
        )),
    }
}

pub(crate) fn claim_step(id: &str, agent: u32, ts: i64) -> Step {
    let name = agent_name(agent);
    let patch =
        format!("\"patch\":{{\"set\":{{\"assignee\":\"{name}\",\"status\":\"in_progress\"}}}}");
    step(id, Expect::Claimable(name), ts, "patch", &patch)
}

/// The name under which an agent claims.
#[must_use]
pub fn agent_name(agent: u32) -> String {
    format!("agent-{agent}")
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
        let id = pool_id(number);
        let data = format!(
            "\"data\":{{\"id\":\"{id}\",\"title\":\"Issue {number} of the pool\",\
             \"description\":\"\",\"status\":\"open\",\"priority\":2}}"
        );
        step(&id, Expect::Absent, EPOCH_MS, "add", &data)
    };
    numbers
        .map(|numbers| Plan {
            ts: EPOCH_MS,
            steps: numbers.map(create).collect(),
        })
        .collect()
}

/// The issue of the pool that an agent claims at one of its writes. Each agent tries each issue
/// once: half of the agents in the same order, so that their claims collide, and each of the others
/// in an order of its own.
#[must_use]
pub fn claimed_issue(seed: u64, agent: u32, agents: u32, write: u32, pool: u32) -> u32 {
    let pool = u64::from(pool.max(1));
    let own = if agent.is_multiple_of(2) { 0 } else { agent };
    let start = u64::from(own) * pool / u64::from(agents.max(1));
    let mut stride = 1 + (seed ^ u64::from(own)) % pool;
    while divisor(stride, pool) != 1 {
        stride += 1;
    }
    u32::try_from((start + u64::from(write - 1) * stride) % pool).unwrap_or(0)
}

/// The claim that an agent makes at one of its writes.
#[must_use]
pub fn claim(seed: u64, agent: u32, agents: u32, write: u32, pool: u32) -> Plan {
    let id = pool_id(claimed_issue(seed, agent, agents, write, pool));
    let ts = EPOCH_MS + i64::from(write);
    Plan {
        ts,
        steps: vec![claim_step(&id, agent, ts)],
    }
}

fn divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_agent_tries_every_issue_once() {
        for pool in [1, 7, 100] {
            for agent in 0..3 {
                let ids = (1..=pool).map(|write| claim(9, agent, 3, write, pool));
                let ids: BTreeSet<String> = ids.map(|plan| plan.steps[0].id.clone()).collect();
                assert_eq!(ids.len(), pool as usize);
            }
        }
        let order = |agent| (1..=100).map(move |write| claimed_issue(9, agent, 4, write, 100));
        assert!(order(0).eq(order(2)));
        assert!(order(0).ne(order(1)) && order(1).ne(order(3)));
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
