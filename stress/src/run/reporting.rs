//! Builds the ledger of one process from the messages that it sends.

use std::collections::HashMap;

use crate::evidence::ledger::{
    End, Incarnation, Incident, IncidentKind, Ledger, LockCounters, Operation, Outcome,
};
use crate::run::protocol::Message;

/// The ledger of one process while it runs.
#[derive(Debug, Default)]
pub struct Reporting {
    ledger: Ledger,
    /// The operation of each agent that has begun and not ended.
    open: HashMap<u32, (u32, u64)>,
    counters: LockCounters,
    /// The failpoint at which it waits to be killed.
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
            Message::Invoke {
                agent,
                write,
                at_ns,
            } => {
                if let Some((open, _)) = self.open.insert(agent, (write, at_ns)) {
                    self.nonsense(format!("agent {agent} invoked {write} during {open}"));
                }
            }
            Message::Answered {
                agent,
                write,
                start_ns,
                outcome,
                environment,
            } => {
                if let Outcome::Acknowledged { ack_ns, .. } = &outcome {
                    let took_ns = ack_ns.saturating_sub(start_ns);
                    ledger.append_ns.push((agent, took_ns));
                }
                if let (true, Outcome::Rejected { error } | Outcome::Unknown { error }) =
                    (environment, &outcome)
                {
                    let text = format!("agent {agent}, write {write}: {error}");
                    ledger.environment_errors.push(text);
                }
                self.close(agent, write, start_ns, outcome);
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

    fn close(&mut self, agent: u32, write: u32, start_ns: u64, outcome: Outcome) {
        match self.open.remove(&agent) {
            Some((open, _)) if open == write => self.ledger.operations.push(Operation {
                agent,
                write,
                invoke_ns: start_ns,
                outcome,
            }),
            open => self.nonsense(format!(
                "agent {agent} reported {outcome:?} for write {write}, open was {open:?}"
            )),
        }
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

    fn invoke(write: u32, at_ns: u64) -> Message {
        Message::Invoke {
            agent: 4,
            write,
            at_ns,
        }
    }

    const ACKNOWLEDGED: Outcome = Outcome::Acknowledged {
        seq: 9,
        ack_ns: 15,
        repeated: false,
    };

    fn acknowledged() -> Message {
        Message::Answered {
            agent: 4,
            write: 1,
            start_ns: 11,
            outcome: ACKNOWLEDGED,
            environment: false,
        }
    }

    #[test]
    fn an_operation_without_an_outcome_is_unknown() {
        let mut reporting = Reporting::default();
        reporting.take(invoke(1, 10));
        reporting.take(acknowledged());
        reporting.take(invoke(2, 16));
        let ledger = reporting.finish(incarnation(End::Killed));
        let operations = ledger.operations.iter();
        let outcomes: Vec<_> = operations
            .map(|op| (op.write, op.outcome.clone()))
            .collect();
        let error = String::new();
        assert_eq!(
            outcomes,
            [(1, ACKNOWLEDGED), (2, Outcome::Unknown { error })]
        );
        assert_eq!(ledger.append_ns, [(4, 4)]);
        assert!(ledger.protocol_errors.is_empty());
    }

    #[test]
    fn finishing_in_the_middle_of_an_operation_is_a_protocol_error() {
        let mut reporting = Reporting::default();
        reporting.take(invoke(1, 10));
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
        reporting.take(acknowledged());
        let ledger = reporting.finish(incarnation(End::Finished));
        assert!(ledger.operations.is_empty());
        assert_eq!(ledger.protocol_errors.len(), 1);
    }
}
