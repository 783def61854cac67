//! The parent of the agents: starts them, lets them go together, hears all they report, kills
//! some, reads meanwhile, and does not wait for ever.

mod command;
pub(crate) mod nemesis;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use strand_core::{IssueEvent, Log, Options, Reader};
use strand_lock::{FileLock, monotonic_ns};

use crate::evidence::ids::operation_key;
use crate::evidence::ledger::{
    self, Compacting, CompactionSeen, DurableSeen, End, Incarnation, Incident, IncidentKind,
    Ledger, Operation, Seen, View,
};
use crate::evidence::workload::{self, Plan};
use crate::panics::catch_panic;
use crate::run::agent::read_records;
use crate::run::archive::Archive;
use crate::run::config::{Config, Mode};
use crate::run::control::Control;
use crate::run::errors::describe;
use crate::run::payload::PayloadSource;
use crate::run::protocol::{AgentSpec, KillOrder, Lane, Message, Role};
use crate::run::reporting::Reporting;
use crate::run::writes;

use crate::run::runner::command::StrandCommand;

/// How often the parent looks at the watermark while agents write.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A read of the whole log costs at most this part of the time that the run takes.
const READ_SHARE: u32 = 20;
/// How many agents read the whole log after their last write.
const VIEWS_MAX: u64 = 8;
/// A process that is killed at a point is so at one of this many times that it comes there.
const OCCURRENCE_MAX: u32 = 8;
/// So many processes are killed by chance before any operation has an outcome.
const KILLS_BEFORE_PROGRESS: u64 = 64;
/// So many more for each operation that has one.
const KILLS_PER_OPERATION: u64 = 2;
/// How often a run that loses power looks whether there is anybody left to lose it.
const POWER_TICK: Duration = Duration::from_millis(20);
/// How often the progress is drawn, and the deadline looked at.
const TICK: Duration = Duration::from_millis(100);
/// Agents wait for the lock this much longer than the watchdog waits for them.
const LOCK_TIMEOUT_BEYOND_WATCHDOG: Duration = Duration::from_mins(10);

/// Where a run happens. Only `store` is the log's; the rest is the harness's own.
#[derive(Debug, Clone)]
pub struct Places {
    /// The store under test.
    pub store: PathBuf,
    /// The file of the shared page.
    pub control: PathBuf,
    /// What the agents say on standard error.
    pub stderr: PathBuf,
    /// Where files of the store stay that are removed from it.
    pub archive: PathBuf,
    /// The directory of the followers' journals.
    pub journals: PathBuf,
}

impl Places {
    /// The journal of a follower.
    #[must_use]
    pub fn journal(&self, follower: u32) -> PathBuf {
        self.journals.join(format!("follower-{follower}"))
    }
}

/// What came out of a run, before it is judged.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that was reported.
    pub ledger: Ledger,
    /// The start that all waited for; `None` when it never came to that.
    pub go_ns: Option<u64>,
    /// What everybody was doing when the watchdog lost patience.
    pub hang: Option<Hang>,
    /// Processes started.
    pub spawned: u64,
    /// Processes that were killed.
    pub killed: u64,
    /// How often a process was stopped for a while.
    pub stopped: u64,
    /// How often half a record was left behind the log.
    pub torn: u64,
    /// How often the hints were deleted.
    pub forgotten: u64,
}

/// A run that did not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hang {
    /// After how long the watchdog lost patience.
    pub after_ms: u64,
    /// Who had the lock of the log, as noted by that holder.
    pub lock_holder: Option<String>,
    /// What each agent was doing.
    pub agents: Vec<AgentState>,
    /// The other processes that had not ended.
    pub others: Vec<String>,
    /// Processes that were killed and reaped.
    pub reaped: u64,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Operations that were refused, since a condition did not hold.
    pub refused: u64,
    /// Processes killed.
    pub killed: u64,
    /// How often a process was stopped for a while.
    pub stopped: u64,
    /// How often half a record was left behind the log.
    pub torn: u64,
    /// How often the hints were deleted.
    pub forgotten: u64,
    /// Compactions finished.
    pub compactions: u64,
}

/// What one agent was doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentState {
    /// The agent.
    pub agent: u32,
    /// Its process.
    pub pid: u32,
    /// What it was doing, and since when.
    pub doing: String,
}

/// Something outside the log made the run impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EnvironmentError(pub String);

/// The power of the machine that a store is on.
pub trait Power {
    /// Names the time between the machine's start and its loss of power.
    fn boot(&self) -> String;
    /// Waits for it to go by itself, for `time` at most; whether it has gone.
    fn is_cut_within(&self, time: Duration) -> bool;
    /// Cuts it, if it has not gone: from now on nothing is stored, and nobody who uses the store gets an answer.
    fn cut(&self);
    /// Every process that may wait for an answer has been sent the signal that kills it.
    fn release(&self);
}

/// What is next for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The number of its next write.
    pub write: u32,
    /// What that write is, where it was begun before and its outcome is not known.
    pub plan: Option<Plan>,
}

impl Next {
    /// The first write.
    #[must_use]
    pub fn first() -> Next {
        Next {
            write: 1,
            plan: None,
        }
    }
}

/// Does a whole run: every process that it starts is reaped when it returns.
///
/// `writes` are those of each agent. `exe` is the harness binary, which knows the `agent` subcommand.
///
/// # Errors
/// A process could not be started, or a file not be made. What was started is reaped.
pub fn run(
    config: &Config,
    payload: &PayloadSource,
    writes: &[u32],
    exe: &Path,
    places: &Places,
    progress: &(dyn Fn(&Moment) + Sync),
) -> Result<Outcome, EnvironmentError> {
    let parent = Parent::new(config, payload, writes, exe, places)?;
    lock(&parent.tally).ledger.absorb(set_up(config, places));
    if let Some(command) = &parent.command {
        let failed = command.init(&places.store)?;
        lock(&parent.tally).ledger.fatal_errors.extend(failed);
    }
    parent.run(progress)
}

/// Does a run that is ended by a loss of power, on a store that is set up: starts every process, cuts the power after `limit` unless
/// it goes by itself before, and kills everything. `next` says where each agent begins, and then where it would go on.
///
/// Nobody waits for the others before the first write, and this process does not look into the store.
///
/// # Errors
/// As [`run`]; the power is cut all the same.
pub fn run_until_cut(
    config: &Config,
    payload: &PayloadSource,
    exe: &Path,
    places: &Places,
    (power, limit): (&dyn Power, Duration),
    next: &mut [Next],
) -> Result<Outcome, EnvironmentError> {
    let writes = vec![config.writes; config.agents as usize];
    let mut parent = Parent::new(config, payload, &writes, exe, places)?;
    parent.boot = Some(power.boot());
    for slot in &parent.slots {
        let begins = |agent: &u32| next.get(*agent as usize).cloned();
        let begin = slot
            .agents
            .iter()
            .map(|agent| begins(agent).unwrap_or_else(Next::first));
        *lock(&slot.next) = begin.collect();
    }
    parent.run_until_cut(power, limit);
    for slot in &parent.slots {
        for (agent, then) in slot.agents.iter().zip(lock(&slot.next).drain(..)) {
            if let Some(next) = next.get_mut(*agent as usize) {
                *next = then;
            }
        }
    }
    parent.outcome(None, None)
}

/// The highest mark in the shared page: see [`crate::run::control`].
fn marks(config: &Config) -> u32 {
    config.agents + config.compacting()
}

/// How long a process of the run may wait for the log's lock.
fn lock_timeout_ms(config: &Config) -> u64 {
    let watchdog = Duration::from_secs(config.timeout_s);
    let timeout = watchdog.saturating_add(LOCK_TIMEOUT_BEYOND_WATCHDOG);
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

fn bystander_roles(config: &Config, places: &Places) -> Vec<Role> {
    let readers = (0..config.readers).map(|number| Role::Reader { number });
    let followers = (0..config.followers).map(|number| Role::Follower {
        number,
        journal: places.journal(number),
    });
    let compactors = (0..config.compacting()).map(|number| Role::Compactor {
        number,
        mark: config.agents + 1 + number,
        every_ms: config.compact_every_ms.unwrap_or(1),
    });
    readers.chain(followers).chain(compactors).collect()
}

/// Creates the pool of issues that the workload needs, as an agent behind the last one would. Should the log
/// panic, the ledger says so.
pub(crate) fn set_up(config: &Config, places: &Places) -> Ledger {
    catch_panic(|| create_pool(config, places)).unwrap_or_else(|panic| Ledger {
        fatal_errors: vec![panic],
        ..Ledger::default()
    })
}

fn create_pool(config: &Config, places: &Places) -> Ledger {
    let plans = workload::setup(config.pool());
    let mut ledger = Ledger::default();
    if plans.is_empty() {
        return ledger;
    }
    let written = (|| {
        let archive = Archive::new(&places.store, &places.archive);
        let options = Options::default().failpoint_hook(Arc::new(archive));
        let log: Log<IssueEvent> = Log::open(&places.store, options)?;
        for (write, plan) in (1..).zip(plans) {
            let key = operation_key(config.agents, write);
            let batch = writes::batch(&plan, &key)?;
            ledger.plans.push((config.agents, write, plan));
            let invoke_ns = monotonic_ns();
            let receipt = log.commit(&batch)?;
            ledger.operations.push(Operation {
                agent: config.agents,
                write,
                invoke_ns,
                outcome: ledger::Outcome::Acknowledged {
                    seq: receipt.seq,
                    ack_ns: monotonic_ns(),
                    repeated: receipt.repeated,
                },
            });
        }
        log.close()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })();
    let failed = written.err().map(|error| describe(error.as_ref()));
    ledger
        .fatal_errors
        .extend(failed.map(|error| format!("creating the pool failed: {error}")));
    ledger
}

/// A place for one process at a time, and what is known of the present one.
struct Slot {
    /// None, unless it is for agents.
    agents: Vec<u32>,
    role: Role,
    /// Started so far.
    processes: AtomicU64,
    live: Mutex<Live>,
    /// Where its agents begin, and then where they would go on; by position in `agents`.
    next: Mutex<Vec<Next>>,
}

struct Live {
    child: Option<Child>,
    pid: u32,
    killed_ns: Option<u64>,
    /// By position in [`Slot::agents`].
    doing: Vec<Doing>,
}

#[derive(Clone, Copy)]
enum Doing {
    Starting { since_ns: u64 },
    Ready { since_ns: u64 },
    Writing { write: u32, since_ns: u64 },
    Between { write: u32, since_ns: u64 },
    Finished,
}

impl Slot {
    /// The marks in the shared page that its process uses.
    fn marks(&self, agents: u32) -> Vec<u32> {
        match &self.role {
            // A log that threads share was opened under a mark of its own.
            Role::Agent if self.agents.len() > 1 => {
                self.agents.iter().copied().chain([agents]).collect()
            }
            Role::Agent => self.agents.clone(),
            Role::Compactor { mark, .. } => vec![*mark],
            Role::Reader { .. } | Role::Follower { .. } => Vec::new(),
        }
    }

    /// For people.
    fn name(&self) -> String {
        match (&self.role, self.agents.as_slice()) {
            (Role::Agent, [agent]) => format!("agent {agent}"),
            (Role::Agent, _) => ledger::EVERYBODY.to_owned(),
            (Role::Reader { number }, _) => format!("reader {number}"),
            (Role::Follower { number, .. }, _) => format!("follower {number}"),
            (Role::Compactor { number, .. }, _) => format!("compactor {number}"),
        }
    }

    /// Tells it from the others.
    fn number(&self) -> u64 {
        match &self.role {
            Role::Agent => u64::from(self.agents.first().copied().unwrap_or(0)),
            Role::Reader { number } => 0x10_0000 + u64::from(*number),
            Role::Follower { number, .. } => 0x20_0000 + u64::from(*number),
            Role::Compactor { number, .. } => 0x30_0000 + u64::from(*number),
        }
    }

    fn new(agents: Vec<u32>, role: Role) -> Slot {
        let doing = vec![
            Doing::Starting {
                since_ns: monotonic_ns()
            };
            agents.len()
        ];
        Slot {
            next: Mutex::new(vec![Next::first(); agents.len()]),
            agents,
            role,
            processes: AtomicU64::new(0),
            live: Mutex::new(Live {
                child: None,
                pid: 0,
                killed_ns: None,
                doing,
            }),
        }
    }
}

#[derive(Default)]
struct Tally {
    ready: usize,
    /// Slots of agents that are done.
    finished: usize,
    /// Other slots that are done.
    bystanders_finished: usize,
    failure: Option<String>,
    ledger: Ledger,
}

struct Parent<'a> {
    config: &'a Config,
    payload: &'a PayloadSource,
    writes: &'a [u32],
    exe: &'a Path,
    /// Makes each write instead of an agent.
    command: Option<StrandCommand>,
    places: &'a Places,
    control: Control,
    stderr: File,
    /// Those of the agents.
    slots: Vec<Slot>,
    /// Those of the readers, followers and compactors.
    bystanders: Vec<Slot>,
    tally: Mutex<Tally>,
    changed: Condvar,
    /// The agents are done, and nobody is killed any more.
    over: AtomicBool,
    /// No more processes are to be started.
    stopping: AtomicBool,
    /// Operations that were acknowledged or refused.
    answered: AtomicU64,
    refused: AtomicU64,
    spawned: AtomicU64,
    killed: AtomicU64,
    stopped: AtomicU64,
    torn: AtomicU64,
    forgotten: AtomicU64,
    compactions: AtomicU64,
    /// See [`AgentSpec::boot`].
    boot: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the power and kills everything when it is dropped.
struct PowerEnd<'a> {
    parent: &'a Parent<'a>,
    power: &'a dyn Power,
}

impl Drop for PowerEnd<'_> {
    fn drop(&mut self) {
        self.power.cut();
        self.parent.stop();
        self.power.release();
    }
}

impl<'a> Parent<'a> {
    fn new(
        config: &'a Config,
        payload: &'a PayloadSource,
        writes: &'a [u32],
        exe: &'a Path,
        places: &'a Places,
    ) -> Result<Parent<'a>, EnvironmentError> {
        let control = Control::open(&places.control, marks(config))
            .map_err(|error| EnvironmentError(describe(&error)))?;
        let stderr = File::create(&places.stderr)
            .map_err(|error| EnvironmentError(format!("{}: {error}", places.stderr.display())))?;
        let slots: Vec<Slot> = match config.mode {
            Mode::Process => (0..config.agents)
                .map(|agent| Slot::new(vec![agent], Role::Agent))
                .collect(),
            Mode::Thread => vec![Slot::new((0..config.agents).collect(), Role::Agent)],
        };
        let bystanders = bystander_roles(config, places);
        let bystanders = bystanders
            .into_iter()
            .map(|role| Slot::new(Vec::new(), role));
        let command = StrandCommand::new(config, payload, exe)?;
        Ok(Parent {
            config,
            payload,
            writes,
            exe,
            command,
            places,
            control,
            stderr,
            slots,
            bystanders: bystanders.collect(),
            tally: Mutex::new(Tally::default()),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            spawned: AtomicU64::new(0),
            killed: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            torn: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            boot: None,
        })
    }
}

impl Parent<'_> {
    /// Serves every slot in a thread of its own.
    fn serve_all<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        for (index, slot) in self.all_slots().enumerate() {
            let builder = std::thread::Builder::new().stack_size(512 << 10);
            let spawned = builder.spawn_scoped(scope, move || self.serve(slot));
            if let Err(error) = spawned {
                self.fail(format!(
                    "cannot start a thread for process {index}: {error}"
                ));
                break;
            }
        }
    }

    fn run_until_cut(&self, power: &dyn Power, limit: Duration) {
        self.control.go();
        std::thread::scope(|scope| {
            // Whatever happens here, the processes are killed: the scope waits for those who wait for them.
            let _end = PowerEnd {
                parent: self,
                power,
            };
            self.serve_all(scope);
            if self.config.kill_per_second > 0.0 {
                scope.spawn(|| self.kill_at_random());
            }
            let deadline = Instant::now() + limit;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                // Where nobody is left to use any, nobody trips.
                let is_cut = power.is_cut_within(left.min(POWER_TICK));
                if is_cut || left.is_zero() || self.is_over(&lock(&self.tally)) {
                    break;
                }
            }
        });
    }

    fn run(self, progress: &(dyn Fn(&Moment) + Sync)) -> Result<Outcome, EnvironmentError> {
        let mut go_ns = None;
        let mut hang = None;
        std::thread::scope(|scope| {
            self.serve_all(scope);
            let deadline = Instant::now() + Duration::from_secs(self.config.timeout_s);
            let (agents, bystanders) = (self.slots.len(), self.bystanders.len());
            let mut timely = self.wait_until(deadline, progress, |tally| {
                tally.ready + tally.finished + tally.bystanders_finished >= agents + bystanders
            });
            if timely && lock(&self.tally).failure.is_none() {
                go_ns = Some(monotonic_ns());
                self.control.go();
                scope.spawn(|| self.watch());
                if self.config.kill_per_second > 0.0 {
                    scope.spawn(|| self.kill_at_random());
                }
                self.spawn_nemesis(scope);
                timely = self.wait_until(deadline, progress, |tally| tally.finished >= agents);
                self.over.store(true, Ordering::SeqCst);
                self.control.end();
                timely = timely
                    && self.wait_until(deadline, progress, |tally| {
                        tally.bystanders_finished >= bystanders
                    });
            }
            if !timely {
                hang = Some(self.describe_hang());
            }
            let reaped = self.stop();
            if let Some(hang) = &mut hang {
                hang.reaped = reaped;
            }
        });
        self.outcome(go_ns, hang)
    }

    fn outcome(self, go_ns: Option<u64>, hang: Option<Hang>) -> Result<Outcome, EnvironmentError> {
        let tally = self
            .tally
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = tally.failure {
            return Err(EnvironmentError(failure));
        }
        let mut ledger = tally.ledger;
        ledger
            .incarnations
            .sort_by_key(|incarnation| incarnation.reaped_ns);
        Ok(Outcome {
            ledger,
            go_ns,
            hang,
            spawned: self.spawned.into_inner(),
            killed: self.killed.into_inner(),
            stopped: self.stopped.into_inner(),
            torn: self.torn.into_inner(),
            forgotten: self.forgotten.into_inner(),
        })
    }

    /// Waits until `done` or a failure; `false` when the deadline came first.
    fn wait_until(
        &self,
        deadline: Instant,
        progress: &(dyn Fn(&Moment) + Sync),
        done: impl Fn(&Tally) -> bool,
    ) -> bool {
        let mut tally = lock(&self.tally);
        loop {
            if done(&tally) || tally.failure.is_some() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(tally, left.min(TICK));
            tally = waited.unwrap_or_else(PoisonError::into_inner).0;
            let moment = self.moment();
            drop(tally);
            progress(&moment);
            tally = lock(&self.tally);
        }
    }

    fn moment(&self) -> Moment {
        let refused = self.refused.load(Ordering::Relaxed);
        let answered = self.answered.load(Ordering::Relaxed);
        Moment {
            acknowledged: answered.saturating_sub(refused),
            refused,
            killed: self.killed.load(Ordering::Relaxed),
            stopped: self.stopped.load(Ordering::Relaxed),
            torn: self.torn.load(Ordering::Relaxed),
            forgotten: self.forgotten.load(Ordering::Relaxed),
            compactions: self.compactions.load(Ordering::Relaxed),
        }
    }

    /// Enters what was done to the run just now.
    fn note(&self, kind: IncidentKind, who: String, detail: String) {
        let at_ns = monotonic_ns();
        lock(&self.tally).ledger.incidents.push(Incident {
            at_ns,
            kind,
            who,
            detail,
        });
    }

    fn all_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.bystanders)
    }

    fn fail(&self, reason: String) {
        lock(&self.tally).failure.get_or_insert(reason);
        self.changed.notify_all();
    }

    fn is_over(&self, tally: &Tally) -> bool {
        tally.finished >= self.slots.len() || tally.failure.is_some() || self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits for `time`, or until the run is over; `true` when it is.
    fn pause(&self, time: Duration) -> bool {
        let started = Instant::now();
        let mut tally = lock(&self.tally);
        loop {
            if self.is_over(&tally) {
                return true;
            }
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(tally, left.min(TICK));
            tally = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Serves one slot to its end: starts its process, hears it out, reaps it, starts its successor.
    fn serve(&self, slot: &Slot) {
        let mut next = std::mem::take(&mut *lock(&slot.next));
        let mut announced = false;
        let command = self.command.as_ref();
        let command = command.filter(|_| slot.role == Role::Agent);
        if command.is_some() {
            // It is not started before it is to write.
            self.announce(slot, &mut announced);
            self.control.wait_for_go();
        }
        while !self.is_stopping() {
            let lanes = self.lanes(&slot.agents, &next);
            if lanes.is_empty() && slot.role == Role::Agent {
                break;
            }
            let served = match (command, lanes.as_slice()) {
                (Some(command), [lane]) => self.serve_command(command, slot, lane, &mut next),
                _ => self.serve_agent(slot, lanes, &mut next, &mut announced),
            };
            let (reporting, incarnation) = match served {
                Ok(Some(served)) => served,
                Ok(None) => break,
                Err(error) => {
                    self.fail(error);
                    break;
                }
            };
            let goes_on = match incarnation.end {
                End::Died { .. } => false,
                End::Finished => slot.role == Role::Agent,
                End::Killed => true,
            };
            lock(&self.tally)
                .ledger
                .absorb(reporting.finish(incarnation));
            if !goes_on {
                break;
            }
        }
        *lock(&slot.next) = next;
        let mut tally = lock(&self.tally);
        match slot.role {
            Role::Agent => tally.finished += 1,
            _ => tally.bystanders_finished += 1,
        }
        drop(tally);
        self.changed.notify_all();
    }

    /// Starts a process of the harness, hears it out and reaps it; `None` when no more may be started.
    fn serve_agent(
        &self,
        slot: &Slot,
        lanes: Vec<Lane>,
        next: &mut [Next],
        announced: &mut bool,
    ) -> Result<Option<(Reporting, Incarnation)>, String> {
        let Some(stdout) = self.start(slot, lanes)? else {
            return Ok(None);
        };
        let mut reporting = Reporting::default();
        self.hear(slot, stdout, &mut reporting, next, announced);
        let (status, killed) = wait(slot)?;
        let end = classify_end(status, reporting.is_done(), killed);
        Ok(Some((reporting, self.bury(slot, end))))
    }

    /// What the next process of a slot has to do; nothing when all is done.
    fn lanes(&self, agents: &[u32], next: &[Next]) -> Vec<Lane> {
        let config = self.config;
        let mut lanes = Vec::new();
        for (&agent, next) in agents.iter().zip(next) {
            let first_write = next.write;
            let writes = self.writes.get(agent as usize).copied().unwrap_or(0);
            if first_write <= writes {
                let last_write = if config.one_shot { first_write } else { writes };
                let view = last_write == writes && is_viewer(config, agent);
                lanes.push(Lane {
                    agent,
                    first_write,
                    last_write,
                    view,
                    repeat: next.plan.clone(),
                });
            }
        }
        lanes
    }

    /// Starts the next process of a slot; `None` when no more may be started.
    fn start(&self, slot: &Slot, lanes: Vec<Lane>) -> Result<Option<ChildStdout>, String> {
        let config = self.config;
        let spec = AgentSpec {
            store: self.places.store.clone(),
            control: self.places.control.clone(),
            archive: self.places.archive.clone(),
            role: slot.role.clone(),
            agents: config.agents,
            marks: marks(config),
            workload: config.workload,
            compacts: config.compacting() > 0,
            lanes,
            writes: config.writes,
            seed: config.seed,
            payload: self.payload.clone(),
            durability: config.durability,
            lock_timeout_ms: lock_timeout_ms(config),
            segment_bytes: config.segment_bytes,
            preallocate_bytes: config.preallocate_bytes,
            boot: self.boot.clone(),
            kill: self.kill_order(slot),
            counters_always: config.kills(),
            sabotage: config.sabotage,
        };
        let mut briefing = serde_json::to_string(&spec).map_err(|error| error.to_string())?;
        briefing.push('\n');
        let stderr = self.stderr.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(self.exe);
        command
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let begun = self.spawn(slot, &mut command, |child| {
            let stdin = child.stdin.as_mut();
            let told = stdin.map(|stdin| stdin.write_all(briefing.as_bytes()));
            (child.stdout.take(), told)
        });
        let Some((stdout, told)) = begun? else {
            return Ok(None);
        };
        // The child may already be dead; then its silence tells.
        match told {
            Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(format!("cannot tell an agent what to do: {error}"))
            }
            _ => stdout
                .map(Some)
                .ok_or_else(|| "an agent has no standard output".to_owned()),
        }
    }

    /// Spawns the next process of a slot, and has `first` talk to it; `None` when no more may be started.
    fn spawn<T>(
        &self,
        slot: &Slot,
        command: &mut Command,
        first: impl FnOnce(&mut Child) -> T,
    ) -> Result<Option<T>, String> {
        // Under the lock: who stops the run either sees this child or keeps it from being started.
        let mut live = lock(&slot.live);
        if self.is_stopping() {
            return Ok(None);
        }
        let mut child = command.spawn().map_err(|error| {
            let program = Path::new(command.get_program());
            format!("cannot start {}: {error}", program.display())
        })?;
        self.spawned.fetch_add(1, Ordering::SeqCst);
        live.pid = child.id();
        live.killed_ns = None;
        live.doing.fill(Doing::Starting {
            since_ns: monotonic_ns(),
        });
        let talked = first(&mut child);
        live.child = Some(child);
        Ok(Some(talked))
    }

    /// Where the next process of a slot is to be killed. The number of processes so far is part of
    /// it: a successor that always died at the same place, in its recovery, would never be done.
    fn kill_order(&self, slot: &Slot) -> Option<KillOrder> {
        let points = self.config.kill_points();
        if points.is_empty() || self.over.load(Ordering::SeqCst) {
            return None;
        }
        let processes = slot.processes.fetch_add(1, Ordering::SeqCst);
        let seed = self.config.seed ^ (slot.number() << 40) ^ (processes << 16);
        let mut random = StdRng::seed_from_u64(seed);
        let drawn = match points.len() {
            1 => 0,
            many => random.random_range(0..many),
        };
        let at = (*points.get(drawn)?).to_owned();
        let most = if at == "any" {
            8 * OCCURRENCE_MAX
        } else {
            OCCURRENCE_MAX
        };
        // A compactor comes to each of its points once in a compaction, and to few compactions.
        let is_first = matches!(slot.role, Role::Compactor { .. }) && processes.is_multiple_of(2);
        let occurrence = if is_first && at != "any" {
            1
        } else {
            random.random_range(1..=most)
        };
        Some(KillOrder { at, occurrence })
    }

    /// Takes in what a process reports, to its end.
    fn hear(
        &self,
        slot: &Slot,
        stdout: ChildStdout,
        reporting: &mut Reporting,
        next: &mut [Next],
        announced: &mut bool,
    ) {
        let mut stdout = BufReader::with_capacity(64 << 10, stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match stdout.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    reporting.nonsense(format!("cannot read from an agent: {error}"));
                    return;
                }
            }
            // A line without an end is from a process that was killed while it wrote it.
            let Some(text) = line.strip_suffix(b"\n") else {
                return;
            };

            let Some(message) = Message::parse(text) else {
                let text = String::from_utf8_lossy(text);
                reporting.nonsense(format!("an agent said {text:?}"));
                continue;
            };
            self.follow(slot, &message, next);
            if matches!(message, Message::KillMe { .. }) {
                kill(&mut lock(&slot.live));
            }
            if message == Message::Ready {
                self.announce(slot, announced);
            }
            reporting.take(message);
        }
    }

    /// The agents of a slot wait for the start. Only the first time counts.
    fn announce(&self, slot: &Slot, announced: &mut bool) {
        lock(&slot.live).doing.fill(Doing::Ready {
            since_ns: monotonic_ns(),
        });
        if !*announced {
            *announced = true;
            lock(&self.tally).ready += 1;
            self.changed.notify_all();
        }
    }

    /// Keeps up with what the agents of a slot are doing, and what is next for them.
    fn follow(&self, slot: &Slot, message: &Message, next: &mut [Next]) {
        if let Message::Planned { agent, write, plan } = message {
            let index = slot.agents.iter().position(|other| other == agent);
            if let Some(next) = index.and_then(|index| next.get_mut(index)) {
                *next = Next {
                    write: *write,
                    plan: Some(plan.clone()),
                };
            }
            return;
        }
        let (agent, doing) = match *message {
            Message::Compacted(CompactionSeen {
                outcome: Compacting::Done { .. },
                ..
            }) => {
                self.compactions.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Message::Invoke {
                agent,
                write,
                at_ns,
            } => (
                agent,
                Doing::Writing {
                    write,
                    since_ns: at_ns,
                },
            ),
            Message::Ack {
                agent,
                write,
                ack_ns,
                ..
            }
            | Message::Refused {
                agent,
                write,
                end_ns: ack_ns,
                ..
            } => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                if matches!(message, Message::Refused { .. }) {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                (
                    agent,
                    Doing::Between {
                        write,
                        since_ns: ack_ns,
                    },
                )
            }
            Message::Failure { agent, write, .. } => (
                agent,
                Doing::Between {
                    write,
                    since_ns: monotonic_ns(),
                },
            ),
            _ => return,
        };
        let Some(index) = slot.agents.iter().position(|&other| other == agent) else {
            return;
        };
        if let Some(place) = lock(&slot.live).doing.get_mut(index) {
            *place = doing;
        }
        let Some(next) = next.get_mut(index) else {
            return;
        };
        match doing {
            // With its key it is begun again; without, it is not, whatever becomes of it.
            Doing::Writing { .. } if next.plan.is_some() => {}
            Doing::Writing { write, .. } | Doing::Between { write, .. } => {
                *next = Next {
                    write: write + 1,
                    plan: None,
                };
            }
            Doing::Starting { .. } | Doing::Ready { .. } | Doing::Finished => {}
        }
    }

    /// Enters the end of the process of a slot, which was waited for.
    fn bury(&self, slot: &Slot, end: End) -> Incarnation {
        let mut live = lock(&slot.live);
        if end == End::Killed && !self.is_stopping() {
            self.killed.fetch_add(1, Ordering::SeqCst);
        }
        live.doing.fill(Doing::Finished);
        let (pid, killed_ns) = (live.pid, live.killed_ns);
        drop(live);
        let agents = slot.marks(self.config.agents);
        let marks = agents.iter().copied();
        let marked: Vec<u32> = marks.filter(|&mark| self.control.leave(mark)).collect();
        let left_holding = if end == End::Finished {
            marked
        } else {
            Vec::new()
        };
        Incarnation {
            role: slot.role.name(),
            agents,
            pid,
            killed_ns,
            reaped_ns: monotonic_ns(),
            end,
            left_holding,
        }
    }

    /// Kills what is left and lets nothing new start; returns how many were left. Their servants
    /// reap them: the scope that runs them does not end before.
    fn stop(&self) -> u64 {
        self.stopping.store(true, Ordering::SeqCst);
        self.control.end();
        self.changed.notify_all();
        let mut stopped = 0;
        for slot in self.all_slots() {
            let mut live = lock(&slot.live);
            if live.child.is_some() {
                kill(&mut live);
                stopped += 1;
            }
        }
        stopped
    }

    /// Kills random agents at random times until the run is over.
    fn kill_at_random(&self) {
        let mut kills = 0;
        self.at_random(self.config.kill_per_second, 0, |random| {
            // On a machine so busy that processes take longer to start than they live, nothing would ever be done.
            let allowed = self.answered.load(Ordering::Relaxed) * KILLS_PER_OPERATION;
            if kills <= allowed + KILLS_BEFORE_PROGRESS {
                kills += 1;
                self.with_any_child(random, kill);
            }
            Ok(())
        });
    }

    /// Does something at random times, `per_second` on average, until the run is over or it fails.
    fn at_random(
        &self,
        per_second: f64,
        salt: u64,
        mut act: impl FnMut(&mut StdRng) -> io::Result<()>,
    ) {
        let mut random = StdRng::seed_from_u64(self.config.seed ^ salt);
        loop {
            let uniform: f64 = random.random();
            let pause_s = -(1.0 - uniform).ln() / per_second;
            if self.pause(Duration::try_from_secs_f64(pause_s).unwrap_or(Duration::MAX)) {
                return;
            }
            if let Err(error) = act(&mut random) {
                self.fail(error.to_string());
                return;
            }
        }
    }

    /// Hands over the process that the dice chose, or the next one that lives; nothing when there is none.
    fn with_any_child<T>(
        &self,
        random: &mut StdRng,
        act: impl FnOnce(&mut Live) -> T,
    ) -> Option<(&Slot, T)> {
        let first = random.random_range(0..self.slots.len() + self.bystanders.len());
        let (from, before) = (self.all_slots().skip(first), self.all_slots().take(first));
        for slot in from.chain(before) {
            let mut live = lock(&slot.live);
            if live.child.is_some() && live.killed_ns.is_none() {
                return Some((slot, act(&mut live)));
            }
        }
        None
    }

    /// Reads while others write, like any other process would.
    fn watch(&self) {
        let mut seen = Ledger::default();
        let watched = catch_panic(|| self.watch_store(&mut seen));
        let error = match watched {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(&error)),
            Err(panic) => Some(panic),
        };
        seen.fatal_errors
            .extend(error.map(|e| format!("a reader beside the run failed: {e}")));
        lock(&self.tally).ledger.absorb(seen);
    }

    fn watch_store(&self, seen: &mut Ledger) -> Result<(), strand_core::Error> {
        let reader = Reader::<IssueEvent>::open(&self.places.store)?;
        let mut last_read = None;
        let mut read_took = Duration::ZERO;
        loop {
            let over = self.pause(LOOK_INTERVAL);
            let begin_ns = monotonic_ns();
            if let Some(seq) = reader.durable_seq() {
                seen.durable_seen.push(DurableSeen {
                    begin_ns,
                    end_ns: monotonic_ns(),
                    seq,
                });
            }
            let is_due = last_read
                .is_none_or(|at: Instant| at.elapsed() >= read_took.saturating_mul(READ_SHARE));
            if self.answered.load(Ordering::Relaxed) > 0 && (is_due || over) {
                let started = Instant::now();
                let begin_ns = monotonic_ns();
                let prefix = read_records(|| reader.read())?;
                let end_ns = monotonic_ns();
                // Of a compacted log that looks empty, nobody can tell what was seen.
                if prefix.count > 0 || self.config.compacting() == 0 {
                    seen.views.push(View {
                        reader: "reader beside the run".into(),
                        begin_ns,
                        end_ns,
                        through_tail: false,
                        seen: Seen::Records(prefix),
                    });
                }
                read_took = started.elapsed();
                last_read = Some(Instant::now());
            }
            if over {
                return Ok(());
            }
        }
    }

    fn describe_hang(&self) -> Hang {
        let now_ns = monotonic_ns();
        let mut agents = Vec::new();
        for slot in &self.slots {
            let live = lock(&slot.live);
            agents.extend(
                slot.agents
                    .iter()
                    .zip(&live.doing)
                    .map(|(&agent, doing)| AgentState {
                        agent,
                        pid: live.pid,
                        doing: doing.describe(now_ns),
                    }),
            );
        }
        let others = self.bystanders.iter().filter_map(|slot| {
            let live = lock(&slot.live);
            let role = &slot.role;
            live.child
                .is_some()
                .then(|| format!("{role:?} (pid {})", live.pid))
        });
        let others = others.collect();
        let path = self.places.store.join("lock");
        let holder = path
            .exists()
            .then(|| FileLock::open(&path).ok()?.holder())
            .flatten();
        Hang {
            after_ms: self.config.timeout_s.saturating_mul(1_000),
            lock_holder: holder.map(|holder| holder.to_string()),
            agents,
            others,
            reaped: 0,
        }
    }
}

impl Doing {
    fn describe(self, now_ns: u64) -> String {
        let ms = |since_ns: u64| now_ns.saturating_sub(since_ns) / 1_000_000;
        match self {
            Doing::Starting { since_ns } => format!("starting for {} ms", ms(since_ns)),
            Doing::Ready { since_ns } => format!("ready, not writing, for {} ms", ms(since_ns)),
            Doing::Writing { write, since_ns } => {
                format!("in write {write} for {} ms", ms(since_ns))
            }
            Doing::Between { write, since_ns } => {
                format!("done with write {write} for {} ms", ms(since_ns))
            }
            Doing::Finished => "ended".to_owned(),
        }
    }
}

fn kill(live: &mut Live) {
    if let Some(child) = &mut live.child {
        live.killed_ns.get_or_insert_with(monotonic_ns);
        // It fails only for a child that has been reaped, and this one has not been.
        let killed = child.kill();
        assert!(killed.is_ok(), "cannot kill a child: {killed:?}");
    }
}

/// Waits for the process of a slot, which has closed its output, and says whether it was sent the signal that kills.
fn wait(slot: &Slot) -> Result<(ExitStatus, bool), String> {
    let mut live = lock(&slot.live);
    let waited = match live.child.take() {
        Some(mut child) => child.wait(),
        None => Err(io::Error::other("there is none")),
    };
    let status = waited.map_err(|error| format!("cannot wait for a process: {error}"))?;
    Ok((status, live.killed_ns.is_some()))
}

/// How a process ended. One that was killed after it had said that it is done has finished.
fn classify_end(status: ExitStatus, done: bool, killed: bool) -> End {
    let was_killed = killed && is_kill(status);
    if done && (status.success() || was_killed) {
        End::Finished
    } else if was_killed {
        End::Killed
    } else {
        End::Died {
            status: status.to_string(),
        }
    }
}

/// Whether this is the end that [`Child::kill`] makes.
#[cfg(unix)]
fn is_kill(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

/// Whether this is the end that [`Child::kill`] makes.
#[cfg(not(unix))]
fn is_kill(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

fn is_viewer(config: &Config, agent: u32) -> bool {
    let agents = u64::from(config.agents);
    (u64::from(agent) + config.seed % agents) % agents < VIEWS_MAX
}
