//! The life of an agent process: open the log, say so, wait for the start, write, report.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strand_core::{
    IssueEvent, LiveIssues, Log, Options, Outcome, Records,
    testing::{Failpoint, FailpointHook},
};
use strand_lock::monotonic_ns;

use crate::evidence::ids::operation_key;
use crate::evidence::ledger::{
    DurableSeen, Hold, Lead, LockCounters, Prefix, Seen, Sighting, View,
};
use crate::evidence::workload::{self, Plan};
use crate::run::archive::Archive;
use crate::run::bystanders;
use crate::run::config::{Durability, KillAt, Sabotage, UsageError, Workload};
use crate::run::control::Control;
use crate::run::payload::Payloads;
use crate::run::protocol::{AgentSpec, KillOrder, Lane, Message, Role};
use crate::run::writes;

/// The exit status of an agent whose parent is gone.
const EXIT_ORPHANED: i32 = 90;
/// The exit status of an agent that was told to die.
const EXIT_SABOTAGE: i32 = 91;

/// Runs the agent that the first line of standard input describes. Everything it has to say goes
/// to standard output as [`Message`]s.
#[must_use]
pub fn main() -> ExitCode {
    let mut line = String::new();
    let spec = match io::stdin().lock().read_line(&mut line) {
        Ok(_) => serde_json::from_str::<AgentSpec>(&line).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("an agent is started by `strand-stress run`, which describes it: {error}");
            return ExitCode::from(2);
        }
    };
    std::thread::spawn(exit_with_parent);
    let result = match spec.role {
        Role::Agent => run(&spec),
        _ => bystanders::run(&spec),
    };
    let mut out = Vec::new();
    let code = match result {
        Ok(()) => {
            Message::Done.encode(&mut out);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let environment = is_environment(error.as_ref());
            Message::Fatal {
                environment,
                error: describe(error.as_ref()),
            }
            .encode(&mut out);
            ExitCode::FAILURE
        }
    };
    if send(&mut out).is_ok() {
        code
    } else {
        ExitCode::FAILURE
    }
}

/// The parent keeps the other end of standard input open and never writes to it again.
fn exit_with_parent() {
    let mut byte = [0];
    while !matches!(io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
    std::process::exit(EXIT_ORPHANED);
}

/// An agent draws one write in so many from what it saw before its last one.
const STALE_ONE_IN: u32 = 3;

/// One write.
enum Task {
    /// An event without a condition.
    Append(Box<IssueEvent>),
    /// Changes with conditions.
    Commit(Plan),
}

/// What all lanes of a process share.
struct Agent<'a> {
    spec: &'a AgentSpec,
    log: Log<IssueEvent>,
    probe: Arc<HoldProbe>,
    payloads: Payloads,
}

fn run(spec: &AgentSpec) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut payloads = Payloads::open(&spec.payload, spec.seed, spec.writes)?;
    if spec.workload == Workload::Replay {
        payloads.partition(spec.agents)?;
    }
    let control = Control::open(&spec.control, spec.marks)?;
    let first = spec.lanes.first().map_or(0, |lane| lane.agent);
    // A shared log is opened by none of its threads: it has a mark of its own.
    let opener = if spec.lanes.len() > 1 {
        spec.agents
    } else {
        first
    };
    let probe = Arc::new(HoldProbe::new(spec, control, opener)?);
    let options = log_options(spec, Arc::clone(&probe) as Arc<dyn FailpointHook>);
    let log = Log::open(&spec.store, options)?;
    let mut out = Vec::new();
    Message::Ready.encode(&mut out);
    probe.drain(&mut out);
    send(&mut out)?;
    let agent = Agent {
        spec,
        log,
        probe,
        payloads,
    };
    agent.probe.control.wait_for_go();
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
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        })?,
    }
    agent.log.close()?;
    agent.probe.drain(&mut out);
    send(&mut out)?;
    Ok(())
}

/// How a process of the run opens the log.
pub(crate) fn log_options(spec: &AgentSpec, probe: Arc<dyn FailpointHook>) -> Options {
    let durability = match spec.durability {
        Durability::Synced => strand_core::Durability::Synced,
        Durability::Buffered => strand_core::Durability::Buffered,
    };
    let options = Options::default()
        .durability(durability)
        .lock_timeout(Duration::from_millis(spec.lock_timeout_ms))
        // The events' times are long ago: tombstones are kept for ever in one run, and not at all in the next.
        .tombstone_ms(if spec.seed.is_multiple_of(2) {
            0
        } else {
            u64::MAX
        })
        .storage(spec.storage())
        .failpoint_hook(probe);
    let options = match spec.segment_bytes {
        Some(bytes) => options.segment_bytes_max(bytes),
        None => options,
    };
    match spec.preallocate_bytes {
        Some(bytes) => options.preallocate_bytes(bytes),
        None => options,
    }
}

impl Agent<'_> {
    fn run_lane(&self, lane: &Lane) -> Result<(), Box<dyn Error + Send + Sync>> {
        AGENT.set(Some(lane.agent));
        let mut out = Vec::with_capacity(512);
        let mut seen = match self.spec.workload {
            Workload::Mixed => Some(LiveIssues::open_in(&self.spec.storage(), &self.spec.store)?),
            Workload::Append | Workload::Claim | Workload::Replay => None,
        };
        for write in lane.first_write..=lane.last_write {
            let task = match (&lane.repeat, &mut seen) {
                (Some(plan), _) if write == lane.first_write => Task::Commit(plan.clone()),
                (_, Some(seen)) => Task::Commit(self.draw(lane.agent, write, seen)?),
                _ => self.task(lane.agent, write)?,
            };
            if let Task::Commit(plan) = &task {
                Message::Planned {
                    agent: lane.agent,
                    write,
                    plan: plan.clone(),
                }
                .encode(&mut out);
            }
            Message::Invoke {
                agent: lane.agent,
                write,
                at_ns: monotonic_ns(),
            }
            .encode(&mut out);
            send(&mut out)?;
            self.operate(lane.agent, write, &task, &mut out)?;
            self.probe.drain(&mut out);
            if self.spec.counters_always {
                Message::Counters(self.counters()).encode(&mut out);
            }
        }
        Message::Counters(self.counters()).encode(&mut out);
        send(&mut out)?;
        if lane.view {
            let begin_ns = monotonic_ns();
            let prefix = self.view()?;
            let end_ns = monotonic_ns();
            // Of a compacted log that looks empty, nobody can tell what was seen.
            if prefix.count > 0 || !self.spec.compacts {
                Message::View(View {
                    reader: format!("agent {}", lane.agent),
                    begin_ns,
                    end_ns,
                    through_tail: true,
                    seen: Seen::Records(prefix),
                })
                .encode(&mut out);
            }
            send(&mut out)?;
        }
        Ok(())
    }

    fn task(&self, agent: u32, write: u32) -> Result<Task, Box<dyn Error + Send + Sync>> {
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
            Workload::Append | Workload::Mixed => {
                Task::Append(Box::new(self.payloads.event(agent, write)?))
            }
        })
    }

    /// Draws a write from what the agent sees, which is not always the latest.
    fn draw(
        &self,
        agent: u32,
        write: u32,
        seen: &mut LiveIssues,
    ) -> Result<Plan, Box<dyn Error + Send + Sync>> {
        if !write.is_multiple_of(STALE_ONE_IN) {
            seen.refresh()?;
        }
        let plan = writes::mixed(&self.payloads, self.spec.seed, agent, write, seen)?;
        Ok(plan)
    }

    /// One write, and the messages that tell how it went.
    fn operate(
        &self,
        agent: u32,
        write: u32,
        task: &Task,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let sabotage = self.spec.sabotage.filter(|_| (agent, write) == (0, 1));
        let key = operation_key(agent, write);
        let batch = match task {
            Task::Commit(plan) => Some(writes::batch(plan, &key)?),
            Task::Append(_) => None,
        };
        let start_ns = monotonic_ns();
        let receipt = |seq| (seq, false);
        let result = match (task, &batch, sabotage) {
            (_, Some(batch), _) => self.log.commit(batch).map(|r| (r.seq, r.repeated)),
            (Task::Commit(_), None, _) => return Err("a plan is a batch".into()),
            (Task::Append(event), _, None | Some(Sabotage::Hang)) => {
                self.log.append(event).map(|r| (r.seq, r.repeated))
            }
            (_, _, Some(Sabotage::Skip)) => Ok(receipt(self.log.tail_seq() + 1)),
            (Task::Append(event), _, Some(Sabotage::Repeat)) => {
                let twice = self.log.append(event).and_then(|_| self.log.append(event));
                twice.map(|r| receipt(r.seq))
            }
            (_, _, Some(Sabotage::Die)) => std::process::exit(EXIT_SABOTAGE),
        };
        let ack_ns = monotonic_ns();
        let seq = self.log.durable_seq();
        let end_ns = monotonic_ns();
        match result {
            Ok((seq, repeated)) => Message::Ack {
                agent,
                write,
                seq,
                start_ns,
                ack_ns,
                repeated,
            },
            Err(error) => match writes::refusal(&error) {
                Some(refusal) => Message::Refused {
                    agent,
                    write,
                    start_ns,
                    end_ns: ack_ns,
                    refusal,
                },
                None => Message::Failure {
                    agent,
                    write,
                    rejected: error.outcome() == Outcome::Rejected,
                    environment: is_environment(&error),
                    error: describe(&error),
                },
            },
        }
        .encode(out);
        Message::DurableSeen(DurableSeen {
            begin_ns: ack_ns,
            end_ns,
            seq,
        })
        .encode(out);
        Ok(())
    }

    /// What a read sees that goes through the tail. Where acknowledged means synced, every read does.
    fn view(&self) -> Result<Prefix, strand_core::Error> {
        read_records(|| match self.spec.durability {
            Durability::Synced => self.log.read(),
            Durability::Buffered => self.log.replay(),
        })
    }

    fn counters(&self) -> LockCounters {
        let counters = self.log.lock_counters();
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

/// Reads all records there are. Where a compaction takes them away meanwhile, the read begins again.
pub(crate) fn read_records(
    mut open: impl FnMut() -> Result<Records<IssueEvent>, strand_core::Error>,
) -> Result<Prefix, strand_core::Error> {
    loop {
        let mut prefix = Prefix::default();
        let read = open()?.try_for_each(|record| {
            let record = record?;
            prefix = prefix.with(record.seq, &record.line);
            Ok(())
        });
        match read {
            Err(strand_core::Error::Compacted { .. }) => {}
            read => return read.map(|()| prefix),
        }
    }
}

/// Sends and empties `out`. Standard output passes text that ends with a newline on with one
/// system call.
pub(crate) fn send(out: &mut Vec<u8>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(out)?;
    stdout.flush()?;
    out.clear();
    Ok(())
}

thread_local! {
    /// The agent that this thread is; none in a thread that only opens a log for others.
    static AGENT: Cell<Option<u32>> = const { Cell::new(None) };
    /// When this thread took the lock; 0 when it does not hold it.
    static HELD_SINCE_NS: Cell<u64> = const { Cell::new(0) };
    /// When this thread began to lead a sync; 0 when it does not.
    static LEADS_SINCE_NS: Cell<u64> = const { Cell::new(0) };
}

/// Watches one log from inside: marks the holder of its lock in the shared page, and notes when it was held
/// and when a sync was led.
pub(crate) struct HoldProbe {
    pub(crate) control: Control,
    archive: Archive,
    /// Whose mark is used by a thread that is no agent.
    opener: u32,
    /// Agent 0 hangs at its first write, with the lock.
    hangs: bool,
    kill: Option<Execution>,
    seen: Mutex<Vec<Message>>,
}

/// Where the process asks to be killed.
struct Execution {
    at: KillAt,
    /// How many such places are left to come to.
    left: AtomicU32,
    /// Of [`KillAt::Any`]: how many are left of those that few processes come to at all; 0: it is
    /// not killed at one; `None`: they count like all others.
    rare_left: Option<AtomicU32>,
}

/// Points that every append comes to; the others belong to recoveries and full segments.
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

    /// Does not return where the process is to be killed: it is the parent that kills, so that it
    /// is a real SIGKILL, at exactly this point.
    fn pass(&self, point: Failpoint) {
        let is_rare = self.at == KillAt::Any && !COMMON_POINTS.contains(&point);
        let rare_left = self.rare_left.as_ref().filter(|_| is_rare);
        let left = rare_left.unwrap_or(&self.left);
        if self.at.is_at(point) && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let mut out = Vec::new();
            Message::KillMe {
                point: point.name().to_owned(),
            }
            .encode(&mut out);
            if send(&mut out).is_ok() {
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

impl HoldProbe {
    /// The probe of a process whose threads that are no agents use the mark `opener`.
    pub(crate) fn new(
        spec: &AgentSpec,
        control: Control,
        opener: u32,
    ) -> Result<HoldProbe, UsageError> {
        let is_agent = spec.role == Role::Agent;
        let kill = spec.kill.as_ref();
        Ok(HoldProbe {
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
    pub(crate) fn drain(&self, out: &mut Vec<u8>) {
        for message in self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            message.encode(out);
        }
    }
}

impl FailpointHook for HoldProbe {
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

/// The error and its causes on one line.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether the cause lies outside the log: no space, no permission, no file handles.
pub(crate) fn is_environment(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(strand_core::Error::UnsafeFilesystem { .. }) = error.downcast_ref() {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::OutOfMemory
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind) -> crate::run::payload::PayloadError {
        crate::run::payload::PayloadError::Read {
            path: "x".into(),
            source: kind.into(),
        }
    }

    /// What the probe of a log without a working lock would report.
    #[test]
    fn two_holders_at_once_are_seen_by_mark_and_by_clock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let probe = |opener| HoldProbe {
            control: Control::open(&path, 8).unwrap(),
            archive: Archive::new(dir.path(), dir.path()),
            opener,
            hangs: false,
            kill: None,
            seen: Mutex::new(Vec::new()),
        };
        let (one, two) = (probe(3), probe(5));
        one.reached(Failpoint::LockHeld);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                two.reached(Failpoint::LockHeld);
                two.reached(Failpoint::BeforeUnlock);
            });
        });
        one.reached(Failpoint::BeforeUnlock);
        let mut reporting = crate::run::reporting::Reporting::default();
        for probe in [one, two] {
            for message in probe.seen.into_inner().unwrap() {
                reporting.take(message);
            }
        }
        let ledger = reporting.finish(crate::evidence::ledger::Incarnation {
            role: "agent",
            agents: vec![3, 5],
            pid: 1,
            killed_ns: None,
            reaped_ns: u64::MAX,
            end: crate::evidence::ledger::End::Finished,
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
        assert_eq!(crate::evidence::oracle::max_holders(&ledger), 2);
    }

    #[test]
    fn only_what_lies_outside_the_log_is_the_environment() {
        assert!(is_environment(&io_error(io::ErrorKind::StorageFull)));
        assert!(!is_environment(&io_error(io::ErrorKind::InvalidData)));
        assert!(!is_environment(&crate::run::config::UsageError("x".into())));
    }

    #[test]
    fn a_description_names_each_cause_once() {
        let text = describe(&io_error(io::ErrorKind::StorageFull));
        assert_eq!(text, "cannot read the events in x: no storage space");
    }
}
