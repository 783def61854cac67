//! An agent: opens the log, waits for the start, writes, and reports each answer.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use strand_core::testing::FailpointHook;
use strand_core::{CommitError, IssueEvent, IssueLog, Issues, LiveIssues, Record};
use strand_etcd::EtcdLog;
use strand_lock::monotonic_ns;

use crate::evidence::ids::operation_key;
use crate::evidence::ledger::{DurableSeen, LockCounters, Outcome, Prefix, Seen, View};
use crate::evidence::workload::{self, Plan};
use crate::run::bystanders::digest;
use crate::run::config::{Durability, Sabotage, Workload};
use crate::run::control::Control;
use crate::run::errors::{describe, is_environment};
use crate::run::opened::Opened;
use crate::run::payload::Payloads;
use crate::run::protocol::{AgentSpec, Lane, Message, Outbox};
use crate::run::witness::{AGENT, Witness, log_options};
use crate::run::{etcd, writes};

/// The exit status of an agent whose misdeed is to die.
const EXIT_SABOTAGE: i32 = 91;
/// One write in so many is drawn from a stale state.
const STALE_ONE_IN: u32 = 3;

type Failure = Box<dyn Error + Send + Sync>;

/// One write.
enum Task {
    /// An event without a condition.
    Append(Box<IssueEvent>),
    /// The same with a key. The plan is for who repeats it.
    AppendWithKey(Box<IssueEvent>, Plan),
    /// Changes with conditions.
    Commit(Plan),
}

impl Task {
    fn plan(&self) -> Option<&Plan> {
        match self {
            Task::Append(_) => None,
            Task::AppendWithKey(_, plan) | Task::Commit(plan) => Some(plan),
        }
    }
}

/// The state that all lanes of a process share.
struct Agent<'a> {
    spec: &'a AgentSpec,
    log: Opened,
    witness: Arc<Witness>,
    payloads: Payloads,
}

pub(crate) fn run(spec: &AgentSpec) -> Result<(), Failure> {
    let mut payloads = Payloads::open(&spec.payload, spec.seed, spec.writes)?;
    if spec.workload == Workload::Replay {
        payloads.partition(spec.agents)?;
    }
    let control = Control::open(&spec.control, spec.marks)?;
    let first = spec.lanes.first().map_or(0, |lane| lane.agent);
    // A log that threads share is opened under a mark of its own.
    let opener = if spec.lanes.len() > 1 {
        spec.agents
    } else {
        first
    };
    let witness = Arc::new(Witness::new(spec, control, opener)?);
    let log = if let Some(address) = &spec.etcd {
        Opened::Etcd(Box::new(etcd::open(address, spec.seed)?))
    } else {
        let options = log_options(spec, Arc::clone(&witness) as Arc<dyn FailpointHook>);
        Opened::Directory(Box::new(IssueLog::open(&spec.store, options)?))
    };
    let mut out = Outbox::default();
    out.push(&Message::Ready);
    witness.drain(&mut out);
    out.send()?;
    let agent = Agent {
        spec,
        log,
        witness,
        payloads,
    };
    agent.witness.control.wait_for_go();
    match spec.lanes.as_slice() {
        [lane] => agent.run_lane(lane)?,
        lanes => std::thread::scope(|scope| {
            let threads: Vec<_> = lanes
                .iter()
                .map(|lane| scope.spawn(|| agent.run_lane(lane)))
                .collect();
            for thread in threads {
                thread.join().map_err(|_| "a thread panicked")??;
            }
            Ok::<(), Failure>(())
        })?,
    }
    agent.log.close()?;
    agent.witness.drain(&mut out);
    out.send()?;
    Ok(())
}

impl Agent<'_> {
    fn run_lane(&self, lane: &Lane) -> Result<(), Failure> {
        AGENT.set(Some(lane.agent));
        let mut out = Outbox::default();
        let mut seen = match (self.spec.workload, &self.log) {
            (Workload::Mixed, Opened::Directory(_)) => {
                let live = LiveIssues::open_in(&self.spec.storage(), &self.spec.store)?;
                Some(Sight::Directory(Box::new(live)))
            }
            (Workload::Mixed, Opened::Etcd(log)) => {
                let state = etcd::patiently(|| log.with_issues(Issues::clone))?;
                Some(Sight::Etcd(log, Box::new(state)))
            }
            _ => None,
        };
        for write in lane.first_write..=lane.last_write {
            let task = match (&lane.repeat, &mut seen) {
                (Some(plan), _) if write == lane.first_write => Task::Commit(plan.clone()),
                (_, Some(seen)) => Task::Commit(self.draw(lane.agent, write, seen)?),
                _ => self.task(lane.agent, write)?,
            };
            loop {
                if let Some(plan) = task.plan() {
                    out.push(&Message::Planned {
                        agent: lane.agent,
                        write,
                        plan: plan.clone(),
                    });
                }
                out.push(&Message::Invoke {
                    agent: lane.agent,
                    write,
                    at_ns: monotonic_ns(),
                });
                out.send()?;
                let is_known = self.operate(lane.agent, write, &task, &mut out)?;
                // Only a store on etcd fails for a reason that goes away.
                if is_known || self.log.directory().is_some() {
                    break;
                }
            }
            self.witness.drain(&mut out);
            if self.spec.counters_always {
                out.push(&Message::Counters(self.counters()));
            }
        }
        out.push(&Message::Counters(self.counters()));
        out.send()?;
        if lane.view {
            let begin_ns = monotonic_ns();
            let seen = self.view()?;
            let end_ns = monotonic_ns();
            // An empty view of a compacted log says nothing.
            let is_empty = matches!(&seen, Seen::Records(prefix) if prefix.count == 0);
            if !(is_empty && self.spec.compacts) {
                out.push(&Message::View(View {
                    reader: format!("agent {}", lane.agent),
                    begin_ns,
                    end_ns,
                    through_tail: true,
                    seen,
                }));
            }
            out.send()?;
        }
        Ok(())
    }

    fn task(&self, agent: u32, write: u32) -> Result<Task, Failure> {
        let AgentSpec {
            seed,
            agents,
            writes,
            ..
        } = *self.spec;
        Ok(match self.spec.workload {
            Workload::Claim => Task::Commit(workload::claim(seed, agent, agents, write, writes)),
            Workload::Replay => {
                Task::Commit(writes::replayed(&self.payloads.replayed(agent, write)?)?)
            }
            Workload::Append
            | Workload::Mixed
            | Workload::Batch
            | Workload::Set
            | Workload::Exclusive => {
                let event = self.payloads.event(agent, write)?;
                if self.log.directory().is_some() {
                    Task::Append(Box::new(event))
                } else {
                    let plan = writes::replayed(&event)?;
                    let event = event.with_key(operation_key(agent, write));
                    Task::AppendWithKey(Box::new(event), plan)
                }
            }
        })
    }

    /// Draws a write from the state that the agent sees, which may be stale.
    fn draw(&self, agent: u32, write: u32, seen: &mut Sight<'_>) -> Result<Plan, Failure> {
        if !write.is_multiple_of(STALE_ONE_IN) {
            seen.refresh()?;
        }
        let plan = writes::mixed(&self.payloads, self.spec.seed, agent, write, seen.state())?;
        Ok(plan)
    }

    /// Makes one write and reports how it went; false if it has to be repeated to know.
    fn operate(
        &self,
        agent: u32,
        write: u32,
        task: &Task,
        out: &mut Outbox,
    ) -> Result<bool, Failure> {
        let sabotage = self.spec.sabotage.filter(|_| (agent, write) == (0, 1));
        let key = operation_key(agent, write);
        let batch = match task {
            Task::Commit(plan) => Some(writes::batch(plan, &key)?),
            Task::Append(_) | Task::AppendWithKey(..) => None,
        };
        let log = self.log.backend();
        let append = |event| log.append(event).map_err(CommitError::from);
        let start_ns = monotonic_ns();
        let receipt = |seq| (seq, false);
        let result = match (task, &batch, sabotage) {
            (_, Some(batch), _) => log.commit(batch).map(|r| (r.seq.get(), r.repeated)),
            (Task::Commit(_), None, _) => return Err("a plan is a batch".into()),
            (Task::Append(event), _, None | Some(Sabotage::Hang))
            | (Task::AppendWithKey(event, _), _, _) => {
                append(event).map(|r| (r.seq.get(), r.repeated))
            }
            (_, _, Some(Sabotage::Skip)) => {
                let directory = self.log.directory();
                let tail_seq = directory.map(|log| log.log().tail_seq()).transpose()?;
                Ok(receipt(tail_seq.flatten().unwrap_or_default().next().get()))
            }
            (Task::Append(event), _, Some(Sabotage::Repeat)) => {
                let twice = append(event).and_then(|_| append(event));
                twice.map(|r| receipt(r.seq.get()))
            }
            (_, _, Some(Sabotage::Die)) => std::process::exit(EXIT_SABOTAGE),
        };
        let ack_ns = monotonic_ns();
        let directory = self.log.directory();
        let durable_seq = directory.map_or(Ok(None), |log| log.log().durable_seq());
        let end_ns = monotonic_ns();
        let mut environment = false;
        let outcome = match result {
            Ok((seq, repeated)) => Outcome::Acknowledged {
                seq,
                ack_ns,
                repeated,
            },
            Err(error) => {
                environment = matches!(&error, CommitError::Log(error) if is_environment(error));
                let text = describe(&error);
                match writes::refusal(&error) {
                    Some(refusal) => Outcome::Refused {
                        refusal,
                        end_ns: ack_ns,
                    },
                    None if error.outcome() == strand_core::Outcome::Rejected => {
                        Outcome::Rejected { error: text }
                    }
                    None => Outcome::Unknown { error: text },
                }
            }
        };
        let is_known = outcome.answered_ns().is_some();
        out.push(&Message::Answered {
            agent,
            write,
            start_ns,
            outcome,
            environment,
        });
        if let Ok(Some(seq)) = durable_seq {
            out.push(&Message::DurableSeen(DurableSeen {
                begin_ns: ack_ns,
                end_ns,
                seq: seq.get(),
            }));
        }
        Ok(is_known)
    }

    /// Reads through the tail. If acknowledged means synced, every read does.
    fn view(&self) -> Result<Seen, strand_core::Error> {
        let log = match &self.log {
            Opened::Directory(log) => log.log(),
            Opened::Etcd(log) => {
                return etcd::patiently(|| log.with_issues(digest)).map(Seen::State);
            }
        };
        let prefix = match self.spec.durability {
            Durability::Synced => read_records(|| log.records()),
            Durability::Buffered => read_records(|| log.records_to_tail()),
        };
        prefix.map(Seen::Records)
    }

    fn counters(&self) -> LockCounters {
        let Some(log) = self.log.directory() else {
            return LockCounters::default();
        };
        let counters = log.log().lock_counters();
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        LockCounters {
            acquisitions: counters.acquisitions,
            contended: counters.contended,
            wait_ns: ns(counters.wait),
            longest_wait_ns: ns(counters.longest_wait),
            hold_ns: ns(counters.hold),
            longest_hold_ns: ns(counters.longest_hold),
        }
    }
}

/// The state that an agent draws its writes from.
enum Sight<'a> {
    Directory(Box<LiveIssues>),
    Etcd(&'a EtcdLog, Box<Issues>),
}

impl Sight<'_> {
    fn refresh(&mut self) -> Result<(), strand_core::Error> {
        match self {
            Sight::Directory(live) => live.refresh().map(drop),
            Sight::Etcd(log, state) => {
                **state = etcd::patiently(|| log.with_issues(Issues::clone))?;
                Ok(())
            }
        }
    }

    fn state(&self) -> &Issues {
        match self {
            Sight::Directory(live) => live.state(),
            Sight::Etcd(_, state) => state,
        }
    }
}

/// Reads all records. If a compaction removes them meanwhile, the read starts again.
pub(crate) fn read_records<R>(
    mut open: impl FnMut() -> Result<R, strand_core::Error>,
) -> Result<Prefix, strand_core::Error>
where
    R: Iterator<Item = Result<Record<IssueEvent>, strand_core::Error>>,
{
    loop {
        let mut prefix = Prefix::default();
        let read = open()?.try_for_each(|record| {
            let record = record?;
            prefix = prefix.with(record.seq.get(), &record.line);
            Ok(())
        });
        match read {
            Err(strand_core::Error::Compacted { .. }) => {}
            read => return read.map(|()| prefix),
        }
    }
}
