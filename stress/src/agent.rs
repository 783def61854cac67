//! The life of an agent process: open the log, say so, wait for the start, write, report.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strand_core::{IssueEvent, Log, Options, Outcome, Point, Probe};
use strand_lock::monotonic_ns;

use crate::config::{Durability, KillAt, Sabotage, UsageError};
use crate::control::Control;
use crate::ledger::{Hold, Sighting, View, Watermark};
use crate::payload::Payloads;
use crate::wire::{AgentSpec, KillOrder, Lane, LockCounters, Message, Prefix};

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
    let result = run(&spec);
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

/// What all lanes of a process share.
struct Agent<'a> {
    spec: &'a AgentSpec,
    log: Log<IssueEvent>,
    probe: Arc<HoldProbe>,
    payloads: Payloads,
}

fn run(spec: &AgentSpec) -> Result<(), Box<dyn Error + Send + Sync>> {
    let payloads = Payloads::open(&spec.payload, spec.seed, spec.writes)?;
    let control = Control::open(&spec.control, spec.agents)?;
    let first = spec.lanes.first().map_or(0, |lane| lane.agent);
    let probe = Arc::new(HoldProbe {
        control,
        // A shared log is opened by none of its threads: it has a mark of its own.
        opener: if spec.lanes.len() > 1 {
            spec.agents
        } else {
            first
        },
        hangs: spec.sabotage == Some(Sabotage::Hang),
        kill: spec.kill.as_ref().map(Execution::new).transpose()?,
        seen: Mutex::new(Vec::new()),
    });
    let durability = match spec.durability {
        Durability::Synced => strand_core::Durability::Synced,
        Durability::Buffered => strand_core::Durability::Buffered,
    };
    let options = Options::default()
        .durability(durability)
        .lock_timeout(Duration::from_millis(spec.lock_timeout_ms))
        .probe(Arc::clone(&probe) as Arc<dyn Probe>);
    let options = match spec.segment_bytes {
        Some(bytes) => options.segment_bytes_max(bytes),
        None => options,
    };
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
        [lane] => agent.run_lane(*lane)?,
        lanes => std::thread::scope(|scope| {
            let threads: Vec<_> = lanes
                .iter()
                .map(|lane| scope.spawn(|| agent.run_lane(*lane)))
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

impl Agent<'_> {
    fn run_lane(&self, lane: Lane) -> Result<(), Box<dyn Error + Send + Sync>> {
        AGENT.set(Some(lane.agent));
        let mut out = Vec::with_capacity(512);
        for write in lane.first_write..=lane.last_write {
            let event = self.payloads.event(lane.agent, write)?;
            Message::Invoke {
                agent: lane.agent,
                write,
                at_ns: monotonic_ns(),
            }
            .encode(&mut out);
            send(&mut out)?;
            self.operate(lane.agent, write, &event, &mut out);
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
            Message::View(View {
                reader: format!("agent {}", lane.agent),
                begin_ns,
                end_ns: monotonic_ns(),
                through_tail: true,
                prefix,
            })
            .encode(&mut out);
            send(&mut out)?;
        }
        Ok(())
    }

    /// One append, and the messages that tell how it went.
    fn operate(&self, agent: u32, write: u32, event: &IssueEvent, out: &mut Vec<u8>) {
        let sabotage = self.spec.sabotage.filter(|_| (agent, write) == (0, 1));
        let start_ns = monotonic_ns();
        let result = match sabotage {
            None | Some(Sabotage::Hang) => self.log.append(event).map(|receipt| receipt.seq),
            Some(Sabotage::Skip) => Ok(self.log.tail_seq() + 1),
            Some(Sabotage::Repeat) => self
                .log
                .append(event)
                .and_then(|_| self.log.append(event))
                .map(|r| r.seq),
            Some(Sabotage::Die) => std::process::exit(EXIT_SABOTAGE),
        };
        let ack_ns = monotonic_ns();
        let seq = self.log.committed_seq();
        let end_ns = monotonic_ns();
        match result {
            Ok(seq) => Message::Ack {
                agent,
                write,
                seq,
                start_ns,
                ack_ns,
            },
            Err(error) => Message::Failure {
                agent,
                write,
                rejected: error.outcome() == Outcome::Rejected,
                environment: is_environment(&error),
                error: describe(&error),
            },
        }
        .encode(out);
        Message::Watermark(Watermark {
            begin_ns: ack_ns,
            end_ns,
            seq,
        })
        .encode(out);
    }

    /// What a read sees that goes through the tail. Where acknowledged means synced, every read does.
    fn view(&self) -> Result<Prefix, strand_core::Error> {
        let records = match self.spec.durability {
            Durability::Synced => self.log.read()?,
            Durability::Buffered => self.log.replay()?,
        };
        let mut prefix = Prefix::default();
        for record in records {
            let record = record?;
            prefix = prefix.with(record.seq, &record.line);
        }
        Ok(prefix)
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

/// Sends and empties `out`. Standard output passes text that ends with a newline on with one
/// system call.
fn send(out: &mut Vec<u8>) -> io::Result<()> {
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
}

/// Watches the lock of one log from inside: marks its holder in the shared page, and notes the
/// intervals.
struct HoldProbe {
    control: Control,
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
    /// not killed at one.
    rare_left: AtomicU32,
}

/// Points that every append comes to; the others belong to recoveries and full segments.
const COMMON_POINTS: [Point; 10] = [
    Point::LockHeld,
    Point::BeforeWrite,
    Point::AfterWrite,
    Point::TailPublished,
    Point::BeforeUnlock,
    Point::LeaderElected,
    Point::BeforeSync,
    Point::AfterSync,
    Point::Committed,
    Point::Woken,
];

impl Execution {
    fn new(order: &KillOrder) -> Result<Execution, UsageError> {
        let at = KillAt::parse(&order.at)?;
        let left = AtomicU32::new(order.occurrence);
        Ok(Execution {
            at,
            left,
            rare_left: AtomicU32::new(order.occurrence % 3),
        })
    }

    /// Does not return where the process is to be killed: it is the parent that kills, so that it
    /// is a real SIGKILL, at exactly this point.
    fn pass(&self, point: Point) {
        let is_rare = self.at == KillAt::Any && !COMMON_POINTS.contains(&point);
        let left = if is_rare { &self.rare_left } else { &self.left };
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
    fn note(&self, message: Message) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
    }

    fn pass(&self, point: Point) {
        if let Some(execution) = &self.kill {
            execution.pass(point);
        }
    }

    /// Moves what was noted to `out`.
    fn drain(&self, out: &mut Vec<u8>) {
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

impl Probe for HoldProbe {
    fn hit(&self, point: Point) {
        let agent = AGENT.get();
        let mark = agent.unwrap_or(self.opener);
        match point {
            Point::LockHeld => {
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
            Point::BeforeUnlock => {
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

    fn io_error(kind: io::ErrorKind) -> crate::payload::PayloadError {
        crate::payload::PayloadError::Read {
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
            opener,
            hangs: false,
            kill: None,
            seen: Mutex::new(Vec::new()),
        };
        let (one, two) = (probe(3), probe(5));
        one.hit(Point::LockHeld);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                two.hit(Point::LockHeld);
                two.hit(Point::BeforeUnlock);
            });
        });
        one.hit(Point::BeforeUnlock);
        let mut reporting = crate::ledger::Reporting::default();
        for probe in [one, two] {
            for message in probe.seen.into_inner().unwrap() {
                reporting.take(message);
            }
        }
        let ledger = reporting.finish(crate::ledger::Incarnation {
            agents: vec![3, 5],
            pid: 1,
            killed_ns: None,
            reaped_ns: u64::MAX,
            end: crate::ledger::End::Finished,
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
        assert_eq!(crate::oracle::max_holders(&ledger), 2);
    }

    #[test]
    fn only_what_lies_outside_the_log_is_the_environment() {
        assert!(is_environment(&io_error(io::ErrorKind::StorageFull)));
        assert!(!is_environment(&io_error(io::ErrorKind::InvalidData)));
        assert!(!is_environment(&crate::config::UsageError("x".into())));
    }

    #[test]
    fn a_description_names_each_cause_once() {
        let text = describe(&io_error(io::ErrorKind::StorageFull));
        assert_eq!(text, "cannot read the events in x: no storage space");
    }
}
