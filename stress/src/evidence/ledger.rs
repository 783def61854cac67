//! What the agents were told, kept outside the store: built from their messages, one process at a
//! time, and then put together.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::evidence::fold::StateDigest;
use crate::evidence::workload::{Plan, Refusal};
use crate::run::protocol::{LockCounters, Message, Prefix};

/// How an operation ended, as far as its agent could tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The log gave a receipt.
    Acknowledged {
        /// The number in the receipt.
        seq: u64,
        /// Immediately after the call returned.
        ack_ns: u64,
        /// Whether it came from the idempotency key.
        repeated: bool,
    },
    /// A condition did not hold, and the log said so.
    Refused {
        /// What the log said.
        refusal: Refusal,
        /// Immediately after the call returned.
        end_ns: u64,
    },
    /// The log said that nothing was stored.
    Rejected {
        /// The error.
        error: String,
    },
    /// The agent was killed, or the log could not say.
    Unknown {
        /// The error; empty when the agent was killed.
        error: String,
    },
}

/// One write of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Who.
    pub agent: u32,
    /// Which of its writes, from 1.
    pub write: u32,
    /// When it began: no later than the call.
    pub invoke_ns: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The lock was held by `agent` in this interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The holder.
    pub agent: u32,
    /// After the lock was taken.
    pub from_ns: u64,
    /// Before the lock was given back.
    pub to_ns: u64,
}

/// `agent` led a sync for all who waited in this interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lead {
    /// The leader.
    pub agent: u32,
    /// When it took the lead.
    pub from_ns: u64,
    /// After it had woken the others.
    pub to_ns: u64,
}

/// The name of a process whose threads are all agents.
pub const EVERYBODY: &str = "all agents";

/// Something that was done to the run, or that a compactor did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// When.
    pub at_ns: u64,
    /// What.
    pub kind: IncidentKind,
    /// To which process, or by which; empty when to the store.
    pub who: String,
    /// More about it.
    pub detail: String,
}

/// A kind of [`Incident`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A process was killed.
    Killed,
    /// A process was stopped for a while.
    Stopped,
    /// Half a record was left behind the log.
    Torn,
    /// The hints were deleted.
    Forgotten,
    /// A compaction was finished.
    Compacted,
}

/// A holder of the lock saw another agent marked as a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// The holder that looked.
    pub agent: u32,
    /// When.
    pub at_ns: u64,
    /// The other one.
    pub other: u32,
}

/// What one read saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Who read, for the evidence.
    pub reader: String,
    /// Before the read.
    pub begin_ns: u64,
    /// After the read.
    pub end_ns: u64,
    /// Whether it read to the tail, and not only what is known to be synced.
    pub through_tail: bool,
    /// What was seen.
    pub seen: Seen,
}

/// What can be seen of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Its records, or those behind its snapshot.
    Records(Prefix),
    /// The state that they lead to.
    State(StateDigest),
}

impl Seen {
    /// The last record that was seen, or is reflected in what was seen.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        match self {
            Seen::Records(prefix) => prefix.last_seq,
            Seen::State(state) => state.seq,
        }
    }
}

/// One call of a compactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionSeen {
    /// Before the call.
    pub begin_ns: u64,
    /// After the call.
    pub end_ns: u64,
    /// What it did.
    pub outcome: Compacting,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compacting {
    /// There is a new snapshot.
    Done {
        /// The last record that it reflects.
        seq: u64,
        /// Its length.
        bytes: u64,
        /// How long the store's lock was held.
        lock_held_ns: u64,
    },
    /// Somebody else was at it.
    AlreadyRunning,
    /// There was no new record.
    NothingNew,
}

/// The watermark, seen at some moment of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DurableSeen {
    /// Before the look.
    pub begin_ns: u64,
    /// After the look.
    pub end_ns: u64,
    /// What was seen.
    pub seq: u64,
}

/// How a process of an agent ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It did all it was asked to.
    Finished,
    /// The harness killed it.
    Killed,
    /// It ended by itself before it should have.
    Died {
        /// Its exit status.
        status: String,
    },
}

/// One process, from its start to its reaping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    /// What it was for.
    pub role: &'static str,
    /// The agents that it ran: one, or all of them as threads; and its further marks in the shared page.
    pub agents: Vec<u32>,
    /// Its process id.
    pub pid: u32,
    /// Just before it was killed.
    pub killed_ns: Option<u64>,
    /// After it was reaped and its marks in the shared page were taken away.
    pub reaped_ns: u64,
    /// How it ended.
    pub end: End,
    /// Agents whose mark was still there although the process ended by itself.
    pub left_holding: Vec<u32>,
}

impl Incarnation {
    /// For people.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.role, self.agents.as_slice()) {
            ("agent", [agent]) => format!("agent {agent}"),
            ("agent", _) => EVERYBODY.to_owned(),
            (role, _) => role.to_owned(),
        }
    }
}

/// Everything that was reported in one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// In the order of their invocation by one process.
    pub operations: Vec<Operation>,
    /// Completed intervals.
    pub holds: Vec<Hold>,
    /// Completed syncs for all who waited.
    pub leads: Vec<Lead>,
    /// What was done to the run.
    pub incidents: Vec<Incident>,
    /// Marks of others seen.
    pub sightings: Vec<Sighting>,
    /// Reads.
    pub views: Vec<View>,
    /// Looks at the watermark.
    pub durable_seen: Vec<DurableSeen>,
    /// What was asked for in writes with conditions: agent, write, what.
    pub plans: Vec<(u32, u32, Plan)>,
    /// Calls of the compactors.
    pub compactions: Vec<CompactionSeen>,
    /// Processes.
    pub incarnations: Vec<Incarnation>,
    /// The lock's counters, summed up over the processes (the longest ones: their maximum).
    pub counters: LockCounters,
    /// Duration of each acknowledged call.
    pub append_ns: Vec<(u32, u64)>,
    /// How often a process was killed at which point of the log's protocol.
    pub killed_at: BTreeMap<String, u64>,
    /// How many of those were at it while they opened the store, before they had said that they are ready.
    pub killed_opening_at: BTreeMap<String, u64>,
    /// Messages that make no sense, and why.
    pub protocol_errors: Vec<String>,
    /// Reasons why a process could not go on that lie outside the log.
    pub environment_errors: Vec<String>,
    /// Reasons why a process could not go on that lie in the log.
    pub fatal_errors: Vec<String>,
}

/// The ledger of one process while it runs.
#[derive(Debug, Default)]
pub struct Reporting {
    ledger: Ledger,
    /// The operation of each agent that has begun and not ended.
    open: HashMap<u32, (u32, u64)>,
    counters: LockCounters,
    /// The point of the protocol at which it stands still to be killed.
    killed_at: Option<String>,
    ready: bool,
    done: bool,
}

impl Reporting {
    /// Enters one message.
    pub fn take(&mut self, message: Message) {
        let ledger = &mut self.ledger;
        match message {
            Message::Ready => self.ready = true,
            Message::Done => self.done = true,
            Message::KillMe { point } => {
                if !self.ready {
                    *ledger.killed_opening_at.entry(point.clone()).or_default() += 1;
                }
                *ledger.killed_at.entry(point.clone()).or_default() += 1;
                self.killed_at = Some(point);
            }
            Message::Counters(counters) => self.counters = counters,
            Message::Planned { agent, write, plan } => ledger.plans.push((agent, write, plan)),
            Message::Compacted(seen) => ledger.compactions.push(seen),
            Message::Refused {
                agent,
                write,
                start_ns,
                end_ns,
                refusal,
            } => {
                let outcome = Outcome::Refused { refusal, end_ns };
                self.close(agent, write, Some(start_ns), outcome);
            }
            Message::Invoke {
                agent,
                write,
                at_ns,
            } => {
                if let Some((open, _)) = self.open.insert(agent, (write, at_ns)) {
                    self.nonsense(format!("agent {agent} invoked {write} during {open}"));
                }
            }
            Message::Ack {
                agent,
                write,
                seq,
                start_ns,
                ack_ns,
                repeated,
            } => {
                ledger
                    .append_ns
                    .push((agent, ack_ns.saturating_sub(start_ns)));
                self.close(
                    agent,
                    write,
                    Some(start_ns),
                    Outcome::Acknowledged {
                        seq,
                        ack_ns,
                        repeated,
                    },
                );
            }
            Message::Failure {
                agent,
                write,
                rejected,
                environment,
                error,
            } => {
                if environment {
                    let text = format!("agent {agent}, write {write}: {error}");
                    ledger.environment_errors.push(text);
                }
                let rejection = Outcome::Rejected {
                    error: error.clone(),
                };
                let outcome = if rejected {
                    rejection
                } else {
                    Outcome::Unknown { error }
                };
                self.close(agent, write, None, outcome);
            }
            Message::Fatal { environment, error } => {
                let errors = if environment {
                    &mut ledger.environment_errors
                } else {
                    &mut ledger.fatal_errors
                };
                errors.push(error);
            }
            Message::DurableSeen(durable_seq) => ledger.durable_seen.push(durable_seq),
            Message::Hold(hold) => ledger.holds.push(hold),
            Message::Lead(lead) => ledger.leads.push(lead),
            Message::Sighting(sighting) => ledger.sightings.push(sighting),
            Message::View(view) => ledger.views.push(view),
        }
    }

    /// Enters a line that is not a message.
    pub fn nonsense(&mut self, text: String) {
        self.ledger.protocol_errors.push(text);
    }

    /// Whether the process said that it finished.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The ledger of the process, which has ended: what had begun and not ended is unknown.
    #[must_use]
    pub fn finish(mut self, incarnation: Incarnation) -> Ledger {
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort_unstable();
        for (agent, (write, invoke_ns)) in open {
            if incarnation.end == End::Finished {
                let text = format!("agent {agent} finished without an outcome of write {write}");
                self.ledger.protocol_errors.push(text);
            }
            let outcome = Outcome::Unknown {
                error: String::new(),
            };
            self.ledger.operations.push(Operation {
                agent,
                write,
                invoke_ns,
                outcome,
            });
        }
        if let (Some(at_ns), End::Killed) = (incarnation.killed_ns, &incarnation.end) {
            let at = self
                .killed_at
                .map_or("at random".to_owned(), |at| format!("at {at}"));
            self.ledger.incidents.push(Incident {
                at_ns,
                kind: IncidentKind::Killed,
                who: incarnation.name(),
                detail: at,
            });
        }
        self.ledger.counters = self.counters;
        self.ledger.incarnations.push(incarnation);
        self.ledger
    }

    fn close(&mut self, agent: u32, write: u32, start_ns: Option<u64>, outcome: Outcome) {
        match self.open.remove(&agent) {
            Some((open, invoke_ns)) if open == write => {
                let invoke_ns = start_ns.unwrap_or(invoke_ns);
                self.ledger.operations.push(Operation {
                    agent,
                    write,
                    invoke_ns,
                    outcome,
                });
            }
            open => self.nonsense(format!(
                "agent {agent} reported {outcome:?} for write {write}, open was {open:?}"
            )),
        }
    }
}

impl Ledger {
    /// Adds what another process reported.
    pub fn absorb(&mut self, other: Ledger) {
        let Ledger {
            operations,
            holds,
            leads,
            incidents,
            sightings,
            views,
            durable_seen,
            plans,
            compactions,
            incarnations,
            counters,
            append_ns,
            killed_at,
            killed_opening_at,
            protocol_errors,
            environment_errors,
            fatal_errors,
        } = other;
        self.operations.extend(operations);
        self.holds.extend(holds);
        self.leads.extend(leads);
        self.incidents.extend(incidents);
        self.sightings.extend(sightings);
        self.views.extend(views);
        self.durable_seen.extend(durable_seen);
        self.plans.extend(plans);
        self.compactions.extend(compactions);
        self.incarnations.extend(incarnations);
        self.append_ns.extend(append_ns);
        self.protocol_errors.extend(protocol_errors);
        self.environment_errors.extend(environment_errors);
        self.fatal_errors.extend(fatal_errors);
        for (all, some) in [
            (&mut self.killed_at, killed_at),
            (&mut self.killed_opening_at, killed_opening_at),
        ] {
            for (point, times) in some {
                *all.entry(point).or_default() += times;
            }
        }
        let sum = &mut self.counters;
        sum.acquisitions += counters.acquisitions;
        sum.contended += counters.contended;
        sum.wait_ns += counters.wait_ns;
        sum.hold_ns += counters.hold_ns;
        sum.longest_wait_ns = sum.longest_wait_ns.max(counters.longest_wait_ns);
        sum.longest_hold_ns = sum.longest_hold_ns.max(counters.longest_hold_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(end: End) -> Incarnation {
        Incarnation {
            role: "agent",
            agents: vec![4],
            pid: 1,
            killed_ns: None,
            reaped_ns: 100,
            end,
            left_holding: Vec::new(),
        }
    }

    #[test]
    fn an_operation_without_an_outcome_is_unknown() {
        let mut reporting = Reporting::default();
        reporting.take(Message::Invoke {
            agent: 4,
            write: 1,
            at_ns: 10,
        });
        reporting.take(Message::Ack {
            agent: 4,
            write: 1,
            seq: 9,
            start_ns: 11,
            ack_ns: 15,
            repeated: false,
        });
        reporting.take(Message::Invoke {
            agent: 4,
            write: 2,
            at_ns: 16,
        });
        let ledger = reporting.finish(incarnation(End::Killed));
        let outcomes: Vec<_> = ledger
            .operations
            .iter()
            .map(|op| (op.write, &op.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                (
                    1,
                    &Outcome::Acknowledged {
                        seq: 9,
                        ack_ns: 15,
                        repeated: false
                    }
                ),
                (
                    2,
                    &Outcome::Unknown {
                        error: String::new()
                    }
                ),
            ]
        );
        assert_eq!(ledger.append_ns, [(4, 4)]);
        assert!(ledger.protocol_errors.is_empty());
    }

    #[test]
    fn finishing_in_the_middle_of_an_operation_is_a_protocol_error() {
        let mut reporting = Reporting::default();
        reporting.take(Message::Invoke {
            agent: 4,
            write: 1,
            at_ns: 10,
        });
        assert_eq!(
            reporting
                .finish(incarnation(End::Finished))
                .protocol_errors
                .len(),
            1
        );
    }

    #[test]
    fn an_outcome_of_an_operation_that_never_began_is_a_protocol_error() {
        let mut reporting = Reporting::default();
        reporting.take(Message::Ack {
            agent: 4,
            write: 1,
            seq: 9,
            start_ns: 11,
            ack_ns: 15,
            repeated: false,
        });
        let ledger = reporting.finish(incarnation(End::Finished));
        assert!(ledger.operations.is_empty());
        assert_eq!(ledger.protocol_errors.len(), 1);
    }
}
