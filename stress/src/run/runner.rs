//! The runner: starts the processes of a run, releases them together, collects their reports, and
//! kills and restarts them. One thread owns all state and handles events (`run::events`),
//! which other threads send. Every wait has a deadline.

use std::fs::File;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, select, tick, unbounded};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use strand_lock::{FileLock, monotonic_ns};

use crate::evidence::ledger::{
    self, Compacting, CompactionSeen, EVERYBODY, End, Incarnation, Incident, IncidentKind, Ledger,
};
use crate::evidence::workload::Plan;
use crate::run::child::{Child, Ended, Heard, is_kill};
use crate::run::config::{Config, Mode};
use crate::run::control::Control;
use crate::run::errors::describe;
use crate::run::events::{Event, SideThread};
use crate::run::nemesis::Nemesis;
use crate::run::payload::PayloadSource;
use crate::run::places::Places;
use crate::run::protocol::{AgentSpec, KillOrder, Lane, Message, Role};
use crate::run::reporting::Reporting;
use crate::run::{pool, watcher};

/// How many agents read the whole log after their last write.
const VIEWS_MAX: u64 = 8;
/// A process is killed at one of the first occurrences of its failpoint.
const OCCURRENCE_MAX: u32 = 8;
/// Random kills that are allowed before any operation has an outcome.
const KILLS_BEFORE_PROGRESS: u64 = 64;
/// Further random kills for each operation that has an outcome.
const KILLS_PER_OPERATION: u64 = 2;
/// How long to wait for the loss of power at a time.
const POWER_TICK: Duration = Duration::from_millis(20);
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);
/// A killed process ends within this time, unless something is wrong with the machine.
const REAP_LIMIT: Duration = Duration::from_mins(2);

/// A wait that takes longer, though there is a tick all the time, means that the whole run was
/// suspended.
const SUSPENDED_MIN: Duration = Duration::from_secs(5);

/// When a run counts as hanging. The time in which it was suspended, as by Ctrl-Z or a laptop that
/// sleeps, does not count.
#[derive(Debug)]
struct Deadline {
    comes: Instant,
    looked: Instant,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        let looked = Instant::now();
        let comes = looked + time;
        Self { comes, looked }
    }

    /// To be called right before a wait of a [`TICK`] at most: what was done before that counts,
    /// however long it took.
    fn begin_wait(&mut self, now: Instant) {
        self.looked = now;
    }

    /// To be called right after the wait.
    fn has_come(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.looked);
        if since >= SUSPENDED_MIN {
            self.comes += since;
        }
        self.looked = now;
        now >= self.comes
    }
}

/// The result of a run that is not judged yet.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that was reported.
    pub ledger: Ledger,
    /// When the agents were released; `None` if the run did not get that far.
    pub go_ns: Option<u64>,
    /// The state of all processes when the watchdog gave up.
    pub hang: Option<Hang>,
    /// The user ended the run before its work was done.
    pub interrupted: bool,
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
    /// How often a file was removed, moved away or replaced.
    pub displaced: u64,
    /// How often the store was moved away for a while.
    pub moved: u64,
}

/// A run that did not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hang {
    /// The limit of the watchdog.
    pub after_ms: u64,
    /// The step that did not come to its end.
    pub waited_for: &'static str,
    /// The holder of the log's lock, as noted in the lock file.
    pub lock_holder: Option<String>,
    /// The state of each agent.
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
    /// How often a file was removed, moved away or replaced.
    pub displaced: u64,
    /// How often the store was moved away for a while.
    pub moved: u64,
    /// Compactions finished.
    pub compactions: u64,
}

impl Moment {
    fn count(&mut self, outcome: &ledger::Outcome) {
        match outcome {
            ledger::Outcome::Acknowledged { .. } => self.acknowledged += 1,
            ledger::Outcome::Refused { .. } => self.refused += 1,
            ledger::Outcome::Rejected { .. } | ledger::Outcome::Unknown { .. } => {}
        }
    }
}

/// Why a run ends before its work is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Early {
    /// The user wants that. What was done is judged.
    Interrupted,
    /// Something outside the log does not work any more.
    Broken(String),
}

/// Who looks on while a run is done. Both are called from time to time.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Shows how far it has come.
    pub progress: &'a dyn Fn(&Moment),
    /// Says why the run is to end now.
    pub early: &'a dyn Fn() -> Option<Early>,
}

impl<'a> Watch<'a> {
    /// One that lets the run go to its end.
    #[must_use]
    pub fn only(progress: &'a dyn Fn(&Moment)) -> Watch<'a> {
        let early = &|| None;
        Watch { progress, early }
    }
}

/// The state of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentState {
    /// The agent.
    pub agent: u32,
    /// Its process.
    pub pid: u32,
    /// Its activity, and since when.
    pub doing: String,
}

/// Something outside the log made the run impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EnvironmentError(pub String);

/// The power of the machine that a store is on.
pub trait Power: Sync {
    /// Names the time between the machine's start and its loss of power.
    fn boot(&self) -> String;
    /// Waits for at most `time`; whether the power is gone.
    fn is_cut_within(&self, time: Duration) -> bool;
    /// Cuts the power, unless it is gone: from now on nothing is stored, and calls get no answer.
    fn cut(&self);
    /// Every process that may wait for an answer has been sent the signal that kills it.
    fn release(&self);
}

/// The next write of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The number of its next write.
    pub write: u32,
    /// Its plan, if it was begun before and its outcome is unknown.
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

/// Does a whole run. When it returns, every process that it started is reaped.
///
/// `writes` are those of each agent. `exe` is the harness binary, which knows the `agent`
/// subcommand.
///
/// # Errors
/// A process could not be started, or a file not be made. What was started is reaped.
pub fn run(
    config: &Config,
    payload: &PayloadSource,
    writes: &[u32],
    exe: &Path,
    places: &Places,
    watch: Watch<'_>,
) -> Result<Outcome, EnvironmentError> {
    let mut runner = Runner::new(config, payload, writes, exe, places)?;
    runner.ledger = pool::set_up(config, places);
    let attend = |runner: &mut Runner<'_>| {
        (watch.progress)(&runner.moment);
        match (watch.early)() {
            None => {}
            Some(Early::Interrupted) => runner.interrupted = true,
            Some(Early::Broken(reason)) => runner.fail(reason),
        }
    };
    let (go_ns, hang) = runner.run(&attend);
    runner.outcome(go_ns, hang)
}

/// Does a run that ends with a loss of power, on a store that is set up: starts every process, cuts
/// the power after `limit` unless it is lost before, and kills everything. `next` is the next write
/// of each agent, before and after.
///
/// The agents do not wait for each other, and this process does not touch the store.
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
    let mut runner = Runner::new(config, payload, &writes, exe, places)?;
    runner.boot = Some(power.boot());
    for slot in &mut runner.slots {
        for (agent, own) in slot.agents.iter().zip(&mut slot.next) {
            if let Some(next) = next.get(*agent as usize) {
                *own = next.clone();
            }
        }
    }
    runner.run_until_cut(power, limit);
    for slot in &mut runner.slots {
        for (agent, own) in slot.agents.iter().zip(slot.next.drain(..)) {
            if let Some(next) = next.get_mut(*agent as usize) {
                *next = own;
            }
        }
    }
    runner.outcome(None, None)
}

/// The highest mark in the shared page: see [`crate::run::control`].
fn marks(config: &Config) -> u32 {
    config.agents + config.compacting()
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

/// A place for one process at a time, and everything known about the present one.
struct Slot {
    /// Empty, unless it is for agents.
    agents: Vec<u32>,
    role: Role,
    process: Option<Process>,
    /// The last process's.
    pid: u32,
    /// How many of its processes got a kill order.
    kill_orders: u64,
    /// By position in `agents`.
    doing: Vec<Doing>,
    /// The next write of each agent, by position in `agents`.
    next: Vec<Next>,
    /// It waits for the start, or did so once.
    is_ready: bool,
    /// It starts no more processes.
    is_done: bool,
}

struct Process {
    child: Child,
    reporting: Reporting,
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
    fn new(agents: Vec<u32>, role: Role) -> Slot {
        let since_ns = monotonic_ns();
        Slot {
            doing: vec![Doing::Starting { since_ns }; agents.len()],
            next: vec![Next::first(); agents.len()],
            agents,
            role,
            process: None,
            pid: 0,
            kill_orders: 0,
            is_ready: false,
            is_done: false,
        }
    }

    fn is_agent(&self) -> bool {
        self.role == Role::Agent
    }

    /// The marks in the shared page that its process uses.
    fn marks(&self, agents: u32) -> Vec<u32> {
        match &self.role {
            // A log that threads share is opened under a mark of its own.
            Role::Agent if self.agents.len() > 1 => {
                self.agents.iter().copied().chain([agents]).collect()
            }
            Role::Agent => self.agents.clone(),
            Role::Compactor { mark, .. } => vec![*mark],
            Role::Reader { .. } | Role::Follower { .. } => Vec::new(),
        }
    }

    /// A name for people.
    fn name(&self) -> String {
        match (&self.role, self.agents.as_slice()) {
            (Role::Agent, [agent]) => format!("agent {agent}"),
            (Role::Agent, _) => EVERYBODY.to_owned(),
            (Role::Reader { number }, _) => format!("reader {number}"),
            (Role::Follower { number, .. }, _) => format!("follower {number}"),
            (Role::Compactor { number, .. }, _) => format!("compactor {number}"),
        }
    }

    /// Differs from that of every other slot.
    fn number(&self) -> u64 {
        match &self.role {
            Role::Agent => u64::from(self.agents.first().copied().unwrap_or(0)),
            Role::Reader { number } => 0x10_0000 + u64::from(*number),
            Role::Follower { number, .. } => 0x20_0000 + u64::from(*number),
            Role::Compactor { number, .. } => 0x30_0000 + u64::from(*number),
        }
    }

    /// Its agents wait for the start.
    fn get_ready(&mut self) {
        self.is_ready = true;
        let since_ns = monotonic_ns();
        self.doing.fill(Doing::Ready { since_ns });
    }

    /// Keeps up with what an agent is doing, and what is next for it.
    fn follow(&mut self, message: &Message) {
        let (agent, doing) = match *message {
            Message::Planned {
                agent,
                write,
                ref plan,
            } => {
                let plan = Some(plan.clone());
                return self.set_next(agent, Next { write, plan });
            }
            Message::Invoke {
                agent,
                write,
                at_ns: since_ns,
            } => (agent, Doing::Writing { write, since_ns }),
            Message::Answered {
                agent,
                write,
                ref outcome,
                ..
            } => {
                let since_ns = outcome.answered_ns().unwrap_or_else(monotonic_ns);
                (agent, Doing::Between { write, since_ns })
            }
            _ => return,
        };
        let Some(index) = self.agents.iter().position(|&other| other == agent) else {
            return;
        };
        if let Some(place) = self.doing.get_mut(index) {
            *place = doing;
        }
        // A write with a key is repeated; one without is not, whatever its outcome.
        let has_key = self.next.get(index).is_some_and(|next| next.plan.is_some());
        match doing {
            Doing::Writing { .. } if has_key => {}
            Doing::Writing { write, .. } | Doing::Between { write, .. } => {
                let write = write + 1;
                self.set_next(agent, Next { write, plan: None });
            }
            Doing::Starting { .. } | Doing::Ready { .. } | Doing::Finished => {}
        }
    }

    fn set_next(&mut self, agent: u32, next: Next) {
        let index = self.agents.iter().position(|&other| other == agent);
        if let Some(place) = index.and_then(|index| self.next.get_mut(index)) {
            *place = next;
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    /// The agents may write.
    Running,
    /// The agents are done: from now on, no process gets a kill order.
    Over,
    /// No more processes are started.
    Stopping,
}

struct Runner<'a> {
    config: &'a Config,
    payload: &'a PayloadSource,
    writes: &'a [u32],
    exe: &'a Path,
    places: &'a Places,
    control: Control,
    stderr: File,
    /// Those of the agents, then those of the bystanders.
    slots: Vec<Slot>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    ledger: Ledger,
    failure: Option<String>,
    moment: Moment,
    spawned: u64,
    /// Processes that were to be killed by chance.
    random_kills: u64,
    /// The slot and the process that is stopped for a while.
    paused: Option<(usize, u32)>,
    power_lost: bool,
    interrupted: bool,
    phase: Phase,
    /// See [`AgentSpec::boot`].
    boot: Option<String>,
}

impl<'a> Runner<'a> {
    fn new(
        config: &'a Config,
        payload: &'a PayloadSource,
        writes: &'a [u32],
        exe: &'a Path,
        places: &'a Places,
    ) -> Result<Runner<'a>, EnvironmentError> {
        let control = Control::open(&places.control, marks(config))
            .map_err(|error| EnvironmentError(describe(&error)))?;
        let stderr = File::create(&places.stderr)
            .map_err(|error| EnvironmentError(format!("{}: {error}", places.stderr.display())))?;
        let mut slots: Vec<Slot> = match config.mode {
            Mode::Process => (0..config.agents)
                .map(|agent| Slot::new(vec![agent], Role::Agent))
                .collect(),
            Mode::Thread => vec![Slot::new((0..config.agents).collect(), Role::Agent)],
        };
        let bystanders = bystander_roles(config, places).into_iter();
        slots.extend(bystanders.map(|role| Slot::new(Vec::new(), role)));
        let (sender, events) = unbounded();
        Ok(Runner {
            config,
            payload,
            writes,
            exe,
            places,
            control,
            stderr,
            slots,
            sender,
            events,
            ledger: Ledger::default(),
            failure: None,
            moment: Moment::default(),
            spawned: 0,
            random_kills: 0,
            paused: None,
            power_lost: false,
            interrupted: false,
            phase: Phase::Starting,
            boot: None,
        })
    }

    /// Returns when the agents were let go, and what everything was doing if the run did not end.
    fn run(&mut self, attend: &dyn Fn(&mut Self)) -> (Option<u64>, Option<Hang>) {
        let mut go_ns = None;
        let mut hang = None;
        let (over_sender, over) = bounded(0);
        let side = SideThread {
            events: self.sender.clone(),
            over,
        };
        let (config, store) = (self.config, self.places.store.as_path());
        let hands = Mutex::default();
        std::thread::scope(|scope| {
            let mut deadline = Deadline::after(Duration::from_secs(config.timeout_s));
            let mut waited_for = "every process to say that it is ready";
            self.start_all();
            let mut timely = self.listen(&mut deadline, attend, |runner| {
                runner
                    .slots
                    .iter()
                    .all(|slot| slot.is_ready || slot.is_done)
            });
            if timely && !self.is_over() {
                go_ns = Some(monotonic_ns());
                self.go();
                let nemesis = Nemesis {
                    config,
                    store,
                    slots: self.slots.len(),
                    side: side.clone(),
                    hands: &hands,
                };
                nemesis.spawn(scope);
                if !config.is_etcd() {
                    let compacts = config.compacting() > 0;
                    let hands = &hands;
                    scope.spawn(move || watcher::watch(&side, store, compacts, hands));
                }
                waited_for = "the agents to do their writes";
                timely = self.listen(&mut deadline, attend, Runner::agents_are_done);
                self.phase = Phase::Over;
                self.control.end();
            }
            drop(over_sender);
            if timely {
                waited_for = "the processes to end after the last write";
                timely = self.listen(&mut deadline, attend, |runner| {
                    runner.slots.iter().all(|slot| slot.is_done)
                });
            }
            if !timely {
                hang = Some(self.describe_hang(waited_for));
            }
            let killed = self.stop();
            if let Some(hang) = &mut hang {
                hang.reaped = killed;
            }
            self.reap();
        });
        self.hear_the_rest();
        (go_ns, hang)
    }

    fn run_until_cut(&mut self, power: &dyn Power, limit: Duration) {
        let (over_sender, over) = bounded(0);
        let side = SideThread {
            events: self.sender.clone(),
            over,
        };
        let (config, store) = (self.config, self.places.store.as_path());
        let hands = Mutex::default();
        // Whatever happens here, no process waits for the disk afterwards.
        let end = PowerEnd(power);
        std::thread::scope(|scope| {
            let mut deadline = Deadline::after(limit);
            self.go();
            self.start_all();
            if config.kill_per_second > 0.0 {
                let nemesis = Nemesis {
                    config,
                    store,
                    slots: self.slots.len(),
                    side: side.clone(),
                    hands: &hands,
                };
                scope.spawn(move || nemesis.kill());
            }
            scope.spawn(move || {
                while !side.is_over_within(Duration::ZERO) {
                    if power.is_cut_within(POWER_TICK) {
                        return side.send(Event::PowerLost);
                    }
                }
            });
            self.listen(&mut deadline, &|_| {}, |runner| {
                runner.power_lost || runner.agents_are_done()
            });
            power.cut();
            self.stop();
            drop(end);
            drop(over_sender);
            self.reap();
        });
        self.hear_the_rest();
    }

    fn outcome(self, go_ns: Option<u64>, hang: Option<Hang>) -> Result<Outcome, EnvironmentError> {
        if let Some(failure) = self.failure {
            return Err(EnvironmentError(failure));
        }
        let mut ledger = self.ledger;
        ledger
            .incarnations
            .sort_by_key(|incarnation| incarnation.reaped_ns);
        Ok(Outcome {
            ledger,
            go_ns,
            hang,
            interrupted: self.interrupted,
            spawned: self.spawned,
            killed: self.moment.killed,
            stopped: self.moment.stopped,
            torn: self.moment.torn,
            forgotten: self.moment.forgotten,
            displaced: self.moment.displaced,
            moved: self.moment.moved,
        })
    }

    /// Whether the run ends before its work is done.
    fn is_over(&self) -> bool {
        self.failure.is_some() || self.interrupted
    }

    /// Handles events until `done` or the run [is over](Self::is_over); `false` when the deadline
    /// came first.
    fn listen(
        &mut self,
        deadline: &mut Deadline,
        attend: &dyn Fn(&mut Self),
        done: impl Fn(&Self) -> bool,
    ) -> bool {
        let events = self.events.clone();
        let ticks = tick(TICK);
        while !done(self) && !self.is_over() {
            deadline.begin_wait(Instant::now());
            let has_come;
            select! {
                recv(events) -> event => {
                    has_come = deadline.has_come(Instant::now());
                    if let Ok(event) = event {
                        self.handle(event);
                    }
                }
                recv(ticks) -> _ => {
                    has_come = deadline.has_come(Instant::now());
                    attend(self);
                }
            }
            if has_come {
                return done(self);
            }
        }
        true
    }

    /// Waits until everything that was killed has ended.
    fn reap(&mut self) {
        let events = self.events.clone();
        let deadline = at(Instant::now() + REAP_LIMIT);
        while self.slots.iter().any(|slot| slot.process.is_some()) {
            select! {
                recv(events) -> event => {
                    if let Ok(event) = event {
                        self.handle(event);
                    }
                }
                recv(deadline) -> _ => return self.fail(self.describe_survivors()),
            }
        }
    }

    /// The processes that were killed and have not ended.
    fn describe_survivors(&self) -> String {
        let living = self.slots.iter().filter(|slot| slot.process.is_some());
        let living: Vec<String> = living
            .map(|slot| format!("{} (pid {})", slot.name(), slot.pid))
            .collect();
        let seconds = REAP_LIMIT.as_secs();
        let living = living.join(", ");
        format!("killed {seconds} s ago, and not ended: {living}")
    }

    /// Handles what the side threads had sent before they ended.
    fn hear_the_rest(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.handle(event);
        }
    }

    fn agents_are_done(&self) -> bool {
        let mut agents = self.slots.iter().filter(|slot| slot.is_agent());
        agents.all(|slot| slot.is_done)
    }

    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message { slot, message } => self.take(slot, message),
            Event::Nonsense { slot, text } => {
                if let Some(process) = self.process(slot) {
                    process.reporting.nonsense(text);
                }
            }
            Event::Ended { slot, ended } => self.bury(slot, ended),
            Event::Kill { slot } => {
                // If processes took longer to start than they live, no write would ever be done.
                let answered = self.moment.acknowledged + self.moment.refused;
                let allowed = answered * KILLS_PER_OPERATION + KILLS_BEFORE_PROGRESS;
                if self.random_kills <= allowed && self.phase < Phase::Over {
                    self.random_kills += 1;
                    if let Some(process) = self.victim(slot).and_then(|slot| self.process(slot)) {
                        process.child.kill();
                    }
                }
            }
            Event::Stop { slot, time } => self.pause(slot, time),
            Event::Continue => {
                let Some((slot, pid)) = self.paused.take() else {
                    return;
                };
                let process = self.process(slot).filter(|p| p.child.pid() == pid);
                if let Some(Err(error)) = process.map(|process| process.child.resume()) {
                    self.fail(error.to_string());
                }
            }
            Event::Incident(kind) => {
                match kind {
                    IncidentKind::Torn => self.moment.torn += 1,
                    IncidentKind::Forgotten => self.moment.forgotten += 1,
                    IncidentKind::Displaced => self.moment.displaced += 1,
                    IncidentKind::Moved => self.moment.moved += 1,
                    _ => {}
                }
                self.note(kind, String::new(), String::new());
            }
            Event::Watched(seen) => self.ledger.absorb(*seen),
            Event::PowerLost => self.power_lost = true,
            Event::Failed(reason) => self.fail(reason),
        }
    }

    /// Enters what was done to the run just now.
    fn note(&mut self, kind: IncidentKind, who: String, detail: String) {
        self.ledger.incidents.push(Incident {
            at_ns: monotonic_ns(),
            kind,
            who,
            detail,
        });
    }

    fn process(&mut self, slot: usize) -> Option<&mut Process> {
        self.slots.get_mut(slot)?.process.as_mut()
    }

    /// The slot, or the next one, whose process lives and was not killed.
    fn victim(&self, first: usize) -> Option<usize> {
        let lives = |slot: &usize| {
            let process = self.slots.get(*slot).and_then(|slot| slot.process.as_ref());
            process.is_some_and(|process| process.child.killed_ns().is_none())
        };
        (first..self.slots.len()).chain(0..first).find(lives)
    }

    fn pause(&mut self, slot: usize, time: Duration) {
        let Some(index) = self.victim(slot).filter(|_| self.phase < Phase::Over) else {
            return;
        };
        let paused = self.process(index).map(|process| {
            let paused = process.child.pause();
            paused.map(|()| process.child.pid())
        });
        match paused {
            Some(Ok(pid)) => {
                self.paused = Some((index, pid));
                self.moment.stopped += 1;
                let name = self.slots.get(index).map(Slot::name);
                let detail = format!("for {} ms", time.as_millis());
                self.note(IncidentKind::Stopped, name.unwrap_or_default(), detail);
            }
            Some(Err(error)) => self.fail(error.to_string()),
            None => {}
        }
    }

    /// Enters a message.
    fn take(&mut self, index: usize, message: Message) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.follow(&message);
        match &message {
            Message::Ready => slot.get_ready(),
            Message::Answered { outcome, .. } => self.moment.count(outcome),
            Message::Compacted(CompactionSeen {
                outcome: Compacting::Done { .. },
                ..
            }) => self.moment.compactions += 1,
            _ => {}
        }
        if let Some(process) = &mut slot.process {
            if matches!(message, Message::KillMe { .. }) {
                process.child.kill();
            }
            process.reporting.take(message);
        }
    }

    /// Lets the agents write.
    fn go(&mut self) {
        self.phase = Phase::Running;
        self.control.go();
    }

    /// Starts a process in each slot that has none.
    fn start_all(&mut self) {
        for index in 0..self.slots.len() {
            let is_empty = self
                .slots
                .get(index)
                .is_some_and(|slot| slot.process.is_none());
            if is_empty {
                self.start(index);
            }
        }
    }

    /// Starts the next process of a slot, unless there is nothing left to do.
    fn start(&mut self, index: usize) {
        let lanes = self.slots.get(index).map(|slot| self.lanes(slot));
        let Some((slot, lanes)) = self.slots.get_mut(index).zip(lanes) else {
            return;
        };
        let is_done = lanes.is_empty() && slot.is_agent();
        if is_done || self.phase == Phase::Stopping || self.failure.is_some() {
            slot.is_done = true;
            return;
        }
        if let Err(error) = self.start_agent(index, lanes) {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.is_done = true;
            }
            self.fail(error);
        }
    }

    /// The work of the next process of a slot; empty if all is done.
    fn lanes(&self, slot: &Slot) -> Vec<Lane> {
        let config = self.config;
        let mut lanes = Vec::new();
        for (&agent, next) in slot.agents.iter().zip(&slot.next) {
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

    fn start_agent(&mut self, index: usize, lanes: Vec<Lane>) -> Result<(), String> {
        let config = self.config;
        let (role, kill) = match self.slots.get_mut(index) {
            Some(slot) => (
                slot.role.clone(),
                kill_order(config, slot, self.phase >= Phase::Over),
            ),
            None => return Ok(()),
        };
        let spec = AgentSpec {
            store: self.places.store.clone(),
            etcd: self.places.etcd.clone(),
            control: self.places.control.clone(),
            archive: self.places.archive.clone(),
            role,
            agents: config.agents,
            marks: marks(config),
            workload: config.workload,
            compacts: config.compacting() > 0,
            lanes,
            writes: config.writes,
            seed: config.seed,
            payload: self.payload.clone(),
            durability: config.durability,
            lock_timeout_ms: config.lock_timeout_ms(),
            segment_bytes: config.segment_bytes,
            preallocate_bytes: config.preallocate_bytes,
            boot: self.boot.clone(),
            kill,
            counters_always: config.kills(),
            sabotage: config.sabotage,
        };
        let stderr = self.stderr.try_clone().map_err(|error| error.to_string())?;
        let mut command = config.command_at(index, self.exe);
        command.arg("agent").stderr(stderr);
        let (events, slot) = (self.sender.clone(), index);
        let child = Child::spawn(command, &spec, move |heard| {
            let event = match heard {
                Heard::Line { text } => {
                    let Some(line) = text.strip_suffix(b"\n") else {
                        return;
                    };
                    if let Some(message) = Message::parse(line) {
                        Event::Message { slot, message }
                    } else {
                        let text = String::from_utf8_lossy(line);
                        let text = format!("a process wrote {text:?}");
                        Event::Nonsense { slot, text }
                    }
                }
                Heard::Ended(ended) => Event::Ended { slot, ended },
            };
            drop(events.send(event));
        })?;
        self.enter(index, child);
        Ok(())
    }

    /// Enters a process that was started.
    fn enter(&mut self, index: usize, child: Child) {
        self.spawned += 1;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.pid = child.pid();
            let since_ns = monotonic_ns();
            slot.doing.fill(Doing::Starting { since_ns });
            slot.process = Some(Process {
                child,
                reporting: Reporting::default(),
            });
        }
    }

    /// Enters the end of a process, and starts the next one.
    fn bury(&mut self, index: usize, ended: Ended) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(process) = slot.process.take() else {
            return;
        };
        slot.is_done = true;
        let Process {
            child,
            mut reporting,
        } = process;
        let killed_ns = child.killed_ns();
        if let Some(trouble) = ended.trouble {
            reporting.nonsense(format!("cannot talk to a process: {trouble}"));
        }
        let status = match ended.status {
            Ok(status) => status,
            Err(error) => return self.fail(format!("cannot wait for a process: {error}")),
        };
        let end = classify_end(status, reporting.is_done(), killed_ns.is_some());
        if end == End::Killed && self.phase < Phase::Stopping {
            self.moment.killed += 1;
        }
        slot.doing.fill(Doing::Finished);
        let agents = slot.marks(self.config.agents);
        let marks = agents.iter().copied();
        let marked: Vec<u32> = marks.filter(|&mark| self.control.leave(mark)).collect();
        let goes_on = match end {
            End::Died { .. } => false,
            End::Finished => slot.is_agent(),
            End::Killed => true,
        };
        slot.is_done = !goes_on;
        self.ledger.absorb(reporting.finish(Incarnation {
            role: slot.role.name(),
            agents,
            pid: slot.pid,
            killed_ns,
            reaped_ns: monotonic_ns(),
            left_holding: if end == End::Finished {
                marked
            } else {
                Vec::new()
            },
            end,
        }));
        if goes_on {
            self.start(index);
        }
    }

    /// Kills what is left and lets nothing new start; returns how many were left.
    fn stop(&mut self) -> u64 {
        self.phase = Phase::Stopping;
        self.control.end();
        let mut killed = 0;
        for process in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.process.as_mut())
        {
            process.child.kill();
            killed += 1;
        }
        killed
    }

    fn describe_hang(&self, waited_for: &'static str) -> Hang {
        let now_ns = monotonic_ns();
        let mut agents = Vec::new();
        for slot in &self.slots {
            let states = slot.agents.iter().zip(&slot.doing);
            agents.extend(states.map(|(&agent, doing)| AgentState {
                agent,
                pid: slot.pid,
                doing: doing.describe(now_ns),
            }));
        }
        let others = self.slots.iter().filter(|slot| !slot.is_agent());
        let others = others.filter(|slot| slot.process.is_some());
        let others = others.map(|slot| format!("{:?} (pid {})", slot.role, slot.pid));
        let path = self.places.store.join("lock");
        let holder = path
            .exists()
            .then(|| FileLock::open(&path).ok()?.holder())
            .flatten();
        Hang {
            after_ms: self.config.timeout_s.saturating_mul(1_000),
            waited_for,
            lock_holder: holder.map(|holder| holder.to_string()),
            agents,
            others: others.collect(),
            reaped: 0,
        }
    }
}

/// Cuts the power, and releases the processes that wait for the disk.
struct PowerEnd<'a>(&'a dyn Power);

impl Drop for PowerEnd<'_> {
    fn drop(&mut self) {
        self.0.cut();
        self.0.release();
    }
}

/// The kill order of the next process of a slot. It depends on the number of processes so far: a
/// successor that always died at the same place in its recovery would never get anything done.
fn kill_order(config: &Config, slot: &mut Slot, is_over: bool) -> Option<KillOrder> {
    let points = config.kill_points();
    if points.is_empty() || is_over {
        return None;
    }
    let processes = slot.kill_orders;
    slot.kill_orders += 1;
    let seed = config.seed ^ (slot.number() << 40) ^ (processes << 16);
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
    // A compactor reaches each failpoint once in a compaction, and does few compactions.
    let is_first = matches!(slot.role, Role::Compactor { .. }) && processes.is_multiple_of(2);
    let occurrence = if is_first && at != "any" {
        1
    } else {
        random.random_range(1..=most)
    };
    Some(KillOrder { at, occurrence })
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

/// How a process ended. One that was killed after it had reported that it is done has finished.
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

fn is_viewer(config: &Config, agent: u32) -> bool {
    let agents = u64::from(config.agents);
    (u64::from(agent) + config.seed % agents) % agents < VIEWS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_a_run_was_suspended_does_not_count() {
        let mut deadline = Deadline::after(Duration::from_secs(50));
        let began = deadline.looked;
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(!deadline.has_come(after(4)));
        assert!(!deadline.has_come(after(3_604)), "suspended for an hour");
        assert!((3_605..3_650).all(|seconds| !deadline.has_come(after(seconds))));
        assert!(deadline.has_come(after(3_650)));
    }

    #[test]
    fn the_time_in_which_the_runner_itself_was_busy_counts() {
        let mut deadline = Deadline::after(Duration::from_secs(50));
        let began = deadline.looked;
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(!deadline.has_come(after(1)));
        // The system takes long to start a process.
        deadline.begin_wait(after(49));
        assert!(!deadline.has_come(after(49)));
        deadline.begin_wait(after(60));
        assert!(deadline.has_come(after(60)));
    }

    #[test]
    fn a_run_that_is_looked_at_all_the_time_has_its_time_and_no_more() {
        let mut deadline = Deadline::after(Duration::from_secs(50));
        let began = deadline.looked;
        assert!((1..50).all(|second| !deadline.has_come(began + Duration::from_secs(second))));
        assert!(deadline.has_come(began + Duration::from_secs(50)));
    }
}
