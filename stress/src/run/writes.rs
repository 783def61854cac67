//! Writes with conditions in terms of the log: a [`Plan`] as a batch, an error as a [`Refusal`],
//! and the mixed workload, drawn from the state that an agent sees.

use strand_core::{
    Batch, CommitError, Expected, Issue, IssueEvent, Issues, Op, Patch, Timestamp, Version,
};

use crate::evidence::ids::EPOCH_MS;
use crate::evidence::workload::{
    Expect, Plan, Refusal, Step, claim_step, is_claimable, pool_id, step,
};
use crate::random::SplitMix64;
use crate::run::payload::{PayloadError, Payloads};

/// The batch to give to the log.
///
/// # Errors
/// The error of the log's types for an impossible step.
pub(crate) fn batch(plan: &Plan, key: &str) -> Result<Batch, String> {
    let mut batch = Batch::at(Timestamp::from_ms(plan.ts)).key(key);
    for step in &plan.steps {
        let id = step.id.as_str();
        let Some(json) = &step.event else {
            batch = match step.expect {
                Expect::Version(version) => batch.require(id, Version::new(version)),
                Expect::Absent => batch.require_absent(id),
                _ => return Err(format!("nothing can be required of {id} like that")),
            };
            continue;
        };
        let event: IssueEvent = serde_json::from_str(json).map_err(|error| error.to_string())?;
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
                (Expect::Version(version), Op::Update) => {
                    batch.update_if(issue, Version::new(*version))
                }
                _ => return Err(format!("there is no such write: {json}")),
            },
            (
                expect,
                IssueEvent {
                    patch: Some(patch), ..
                },
            ) => match expect {
                Expect::Present => batch.patch(id, patch),
                Expect::Version(version) => batch.patch_if(id, Version::new(*version), patch),
                _ => return Err(format!("there is no such write: {json}")),
            },
            (expect, IssueEvent { op, .. }) => match (expect, op) {
                (Expect::Present, Op::Close) => batch.close(id),
                (Expect::Version(version), Op::Close) => batch.close_if(id, Version::new(*version)),
                (Expect::Present, Op::Delete) => batch.delete(id),
                (Expect::Version(version), Op::Delete) => {
                    batch.delete_if(id, Version::new(*version))
                }
                (Expect::Present, Op::Reopen) => batch.reopen(id),
                _ => return Err(format!("there is no such write: {json}")),
            },
        };
    }
    Ok(batch)
}

/// The condition that did not hold, as the error says; `None` for every other error.
pub(crate) fn refusal(error: &CommitError) -> Option<Refusal> {
    let CommitError::Conflict(conflict) = error else {
        return None;
    };
    let id = conflict.id.clone();
    let expected = match conflict.expected {
        Expected::Absent => {
            let version = conflict.version.map_or(0, Version::get);
            return Some(Refusal::AlreadyExists { id, version });
        }
        Expected::Present => return Some(Refusal::NoSuchIssue { id }),
        Expected::Version(expected) => Some(expected.get()),
        _ => None,
    };
    Some(Refusal::VersionMismatch {
        id,
        expected,
        found: conflict.version.map(Version::get),
        issue: conflict
            .issue
            .as_ref()
            .map(|issue| issue.as_json().to_owned()),
    })
}

/// An event of a file, without a condition.
///
/// # Errors
/// The event cannot be written as JSON.
pub(crate) fn replayed(event: &IssueEvent) -> Result<Plan, serde_json::Error> {
    let step = Step {
        id: event.id.clone(),
        expect: Expect::Anything,
        event: Some(serde_json::to_string(event)?),
    };
    Ok(Plan {
        ts: event.ts.as_ms(),
        steps: vec![step],
    })
}

fn with_data(id: &str, expect: Expect, ts: i64, op: &str, issue: &Issue) -> Step {
    step(id, expect, ts, op, &format!("\"data\":{}", issue.as_json()))
}

fn bare(id: &str, expect: Expect, ts: i64, op: &str) -> Step {
    step(id, expect, ts, op, "\"data\":null")
}

/// The ids that one write may bring into being.
fn new_id(agent: u32, write: u32, number: u64) -> String {
    format!("bd-n{agent}w{write}n{number}")
}

/// Draws a write of the mixed workload from what the agent sees of the store.
///
/// # Errors
/// The line of the file of events is none.
pub(crate) fn mixed(
    payloads: &Payloads,
    seed: u64,
    agent: u32,
    write: u32,
    state: &Issues,
) -> Result<Plan, PayloadError> {
    let noise = SplitMix64(seed ^ (u64::from(agent) << 40) ^ (u64::from(write) << 8) ^ 5);
    let ts = EPOCH_MS + i64::from(agent) * 1_000 + i64::from(write);
    let mut draw = Draw {
        noise,
        agent,
        write,
        ts,
        state,
    };
    // Of 1,000 events of the trace these are adds, closes, reopens and deletes; the rest are
    // updates.
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
    Ok(Plan { ts, steps })
}

struct Draw<'a> {
    noise: SplitMix64,
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
        let version = self.state.version(&id).unwrap_or(Version::new(1));
        (id, version.get())
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
    use super::*;
    use crate::evidence::fold::Model;
    use crate::evidence::workload::setup;
    use crate::run::payload::PayloadSource;
    use strand_core::Seq;

    #[test]
    fn every_write_that_is_drawn_can_be_asked_for_and_is_stored_as_planned() {
        let dir = tempfile::tempdir().unwrap();
        let log = strand_core::IssueLog::open(dir.path(), strand_core::Options::default()).unwrap();
        let payloads = Payloads::open(&PayloadSource::Small, 3, 400).unwrap();
        let mut model = Model::default();
        let mut seq = 0;
        let mut refused = 0;
        let mut seen = Issues::default();
        let mut commit = |plan: &Plan, key: &str, seen: &mut Issues| {
            let expected = plan.refusal_at(&model, seq);
            match log.commit(&batch(plan, key).unwrap()) {
                Ok(receipt) => {
                    assert_eq!(expected, None, "{plan:?}");
                    seq += 1;
                    assert_eq!((receipt.seq.get(), receipt.repeated), (seq, false));
                    let events = plan.events(key);
                    model.apply(seq, events.iter().map(String::as_str)).unwrap();
                    for event in events {
                        seen.apply(Seq::new(seq), [serde_json::from_str(&event).unwrap()]);
                    }
                }
                Err(error) => {
                    let told = refusal(&error).unwrap_or_else(|| panic!("{error}: {plan:?}"));
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
        let issues =
            issues.map(|(id, issue)| (id, stored.version(id).unwrap().get(), issue.as_json()));
        assert_eq!(model.difference(seq, issues), None);
        assert_eq!(model.last_state().without_effect, stored.without_effect());
    }
}
