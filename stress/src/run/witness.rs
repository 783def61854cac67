//! A process's view of its own log through the failpoints: when it held the lock, when it led a
//! sync, and where it is to be killed.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strand_core::Options;
use strand_core::testing::{Failpoint, FailpointHook};
use strand_lock::monotonic_ns;

use crate::evidence::ledger::{Hold, Lead, Sighting};
use crate::run::archive::Archive;
use crate::run::config::{Durability, KillAt, Sabotage, UsageError};
use crate::run::control::Control;
use crate::run::protocol::{AgentSpec, KillOrder, Message, Outbox, Role};

/// The options with which a process of the run opens the log.
pub(crate) fn log_options(spec: &AgentSpec, hook: Arc<dyn FailpointHook>) -> Options {
    let durability = match spec.durability {
        Durability::Synced => strand_core::Durability::Synced,
        Durability::Buffered => strand_core::Durability::Buffered,
    };
    let options = Options::default()
        .durability(durability)
        .lock_timeout(Duration::from_millis(spec.lock_timeout_ms))
        // The events' times are long ago, so tombstones are either kept in the whole run or not at
        // all.
        .tombstone_ms(if spec.seed.is_multiple_of(2) {
            0
        } else {
            u64::MAX
        })
        // Runs, where they pay; otherwise, snapshots of one file.
        .compact_after_bytes(if spec.seed.is_multiple_of(3) {
            u64::MAX
        } else {
            0
        })
        .storage(spec.storage())
        .failpoint_hook(hook);
    let options = match spec.segment_bytes {
        Some(bytes) => options.segment_bytes_max(bytes),
        None => options,
    };
    match spec.preallocate_bytes {
        Some(bytes) => options.preallocate_bytes(bytes),
        None => options,
    }
}

/// Asks the runner to kill this process at `point`, and waits for that: it is a real SIGKILL at
/// exactly this point.
///
/// # Errors
/// The runner is gone.
pub(crate) fn ask_to_be_killed(point: &str) -> io::Result<Infallible> {
    let mut out = Outbox::default();
    let point = point.to_owned();
    out.push(&Message::KillMe { point });
    out.send()?;
    loop {
        std::thread::park();
    }
}

thread_local! {
    /// The agent of this thread; `None` in a thread that only opens the log for others.
    pub(crate) static AGENT: Cell<Option<u32>> = const { Cell::new(None) };
    /// When this thread took the lock; 0 when it does not hold it.
    static HELD_SINCE_NS: Cell<u64> = const { Cell::new(0) };
    /// When this thread began to lead a sync; 0 when it does not.
    static LEADS_SINCE_NS: Cell<u64> = const { Cell::new(0) };
}

/// Watches one log from inside: marks the holder of its lock in the shared page, and notes when the
/// lock was held and when a sync was led.
pub(crate) struct Witness {
    pub(crate) control: Control,
    archive: Archive,
    /// The mark of threads that are no agent.
    opener: u32,
    /// Agent 0 hangs at its first write, with the lock.
    hangs: bool,
    kill: Option<Execution>,
    seen: Mutex<Vec<Message>>,
}

/// A kill order that is being carried out.
struct Execution {
    at: KillAt,
    /// How many matching failpoints are left.
    left: AtomicU32,
    /// With [`KillAt::Any`]: how many rare failpoints are left, 0 if the process is killed at none
    /// of them, `None` if they count like all others.
    rare_left: Option<AtomicU32>,
}

/// Failpoints of every append. The others, of recoveries and full segments, are rare.
const COMMON_POINTS: [Failpoint; 10] = [
    Failpoint::LockHeld,
    Failpoint::BeforeWrite,
    Failpoint::AfterWrite,
    Failpoint::TailPublished,
    Failpoint::BeforeUnlock,
    Failpoint::LeaderElected,
    Failpoint::BeforeSync,
    Failpoint::AfterSync,
    Failpoint::DurablePublished,
    Failpoint::Woken,
];

impl Execution {
    fn new(order: &KillOrder, tells_rare: bool) -> Result<Execution, UsageError> {
        let at = KillAt::parse(&order.at)?;
        let left = AtomicU32::new(order.occurrence);
        let rare_left = tells_rare.then(|| AtomicU32::new(order.occurrence % 3));
        Ok(Execution {
            at,
            left,
            rare_left,
        })
    }

    /// Does not return where the process is to be killed.
    fn pass(&self, point: Failpoint) {
        let is_rare = self.at == KillAt::Any && !COMMON_POINTS.contains(&point);
        let rare_left = self.rare_left.as_ref().filter(|_| is_rare);
        let left = rare_left.unwrap_or(&self.left);
        if self.at.is_at(point) && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // It fails only without a runner, and then the process ends anyway.
            drop(ask_to_be_killed(point.name()));
        }
    }
}

impl Witness {
    /// The witness of a process. Threads that are no agents use the mark `opener`.
    pub(crate) fn new(
        spec: &AgentSpec,
        control: Control,
        opener: u32,
    ) -> Result<Witness, UsageError> {
        let is_agent = spec.role == Role::Agent;
        let kill = spec.kill.as_ref();
        Ok(Witness {
            control,
            archive: Archive::new(&spec.store, &spec.archive),
            opener,
            hangs: spec.sabotage == Some(Sabotage::Hang),
            // To a compactor, the points that are rare to agents are not.
            kill: kill
                .map(|order| Execution::new(order, is_agent))
                .transpose()?,
            seen: Mutex::new(Vec::new()),
        })
    }

    fn note(&self, message: Message) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
    }

    fn pass(&self, point: Failpoint) {
        if let Some(execution) = &self.kill {
            execution.pass(point);
        }
    }

    /// Moves what was noted to `out`.
    pub(crate) fn drain(&self, out: &mut Outbox) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for message in seen.drain(..) {
            out.push(&message);
        }
    }
}

impl FailpointHook for Witness {
    fn reached(&self, point: Failpoint) {
        let agent = AGENT.get();
        let mark = agent.unwrap_or(self.opener);
        self.archive.pass(point);
        match point {
            Failpoint::LockHeld => {
                let at_ns = monotonic_ns();
                HELD_SINCE_NS.set(at_ns);
                for other in self.control.enter(mark) {
                    self.note(Message::Sighting(Sighting {
                        agent: mark,
                        at_ns,
                        other,
                    }));
                }
                while self.hangs && agent == Some(0) {
                    std::thread::park();
                }
                self.pass(point);
            }
            Failpoint::BeforeUnlock => {
                self.pass(point);
                self.control.leave(mark);
                let from_ns = HELD_SINCE_NS.replace(0);
                let to_ns = monotonic_ns();
                self.note(Message::Hold(Hold {
                    agent: mark,
                    from_ns,
                    to_ns,
                }));
            }
            Failpoint::LeaderElected | Failpoint::LeadTakenOver => {
                LEADS_SINCE_NS.set(monotonic_ns());
                self.pass(point);
            }
            Failpoint::Woken => {
                self.note(Message::Lead(Lead {
                    agent: mark,
                    from_ns: LEADS_SINCE_NS.replace(0),
                    to_ns: monotonic_ns(),
                }));
                self.pass(point);
            }
            _ => self.pass(point),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::ledger::{End, Incarnation};
    use crate::evidence::oracle::max_holders;
    use crate::run::reporting::Reporting;

    /// The report of a witness whose log has no working lock.
    #[test]
    fn two_holders_at_once_are_seen_by_mark_and_by_clock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let witness = |opener| Witness {
            control: Control::open(&path, 8).unwrap(),
            archive: Archive::new(dir.path(), dir.path()),
            opener,
            hangs: false,
            kill: None,
            seen: Mutex::new(Vec::new()),
        };
        let (one, two) = (witness(3), witness(5));
        one.reached(Failpoint::LockHeld);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                two.reached(Failpoint::LockHeld);
                two.reached(Failpoint::BeforeUnlock);
            });
        });
        one.reached(Failpoint::BeforeUnlock);
        let mut reporting = Reporting::default();
        for witness in [one, two] {
            for message in witness.seen.into_inner().unwrap() {
                reporting.take(message);
            }
        }
        let ledger = reporting.finish(Incarnation {
            role: "agent",
            agents: vec![3, 5],
            pid: 1,
            killed_ns: None,
            reaped_ns: u64::MAX,
            end: End::Finished,
            left_holding: Vec::new(),
        });
        assert_eq!(ledger.sightings.len(), 1);
        assert_eq!(
            (ledger.sightings[0].agent, ledger.sightings[0].other),
            (5, 3)
        );
        assert_eq!(ledger.holds.len(), 2);
        assert!(ledger.holds[0].from_ns <= ledger.holds[1].from_ns);
        assert!(ledger.holds[1].to_ns <= ledger.holds[0].to_ns);
        assert_eq!(max_holders(&ledger), 2);
    }
}
