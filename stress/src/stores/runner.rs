//! Lets agents work on a store at the same time, with faults, and keeps the history: every call
//! and its answer.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use strand_lock::monotonic_ns;

use crate::evidence::ledger::{Incident, IncidentKind};
use crate::evidence::listing::{Entry, token};
use crate::evidence::violation::Violation;
use crate::evidence::workload::{agent_name, claimed_issue};
use crate::run::config::{Config, Workload};
use crate::run::runner::{Moment, Watch};
use crate::stores::faults::Injection;
use crate::stores::follow::Follower;
use crate::stores::reading::is_valid;
use crate::stores::seat::Seat;
use crate::stores::serving::{Failure, Serving};
use crate::stores::spec::{Artifact, Format};
use crate::stores::store::{Answer, Deed, Job, Store, Told, job};
use crate::stores::template::Values;

/// How often the artifacts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_micros(300);
/// How long the exporter rests between two exports, at least.
const EXPORT_REST: Duration = Duration::from_millis(5);
/// And so many times as long as the last one took, so as not to slow the agents down.
const EXPORT_RESTS: u32 = 10;
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);
/// How long a process is stopped.
const STOP_MS: u64 = 60;
/// How long the witness stays under the lock at most.
const HOLD_US_MAX: u32 = 800;
/// How often it is looked whether a process was started, before a machine is released.
const STARTING_LOOKS_MAX: u32 = 300;
const AFTER_A_KILL: &str = "after a kill";
/// Writes of a batch.
pub(super) const BATCH_WRITES: u32 = 5;

/// One call of an agent with its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// The agent.
    pub agent: u32,
    /// Which of its calls, from 1; of a batch, the first write.
    pub write: u32,
    /// How many writes it makes.
    pub writes: u32,
    /// What it did.
    pub deed: Deed,
    /// The item that it competed for, numbered from 1.
    pub item: Option<u32>,
    /// What it had read before it changed the item.
    pub old: Option<String>,
    /// Before the call.
    pub begin_ns: u64,
    /// After the answer.
    pub end_ns: u64,
    /// The answer.
    pub told: Told,
    /// The receipt.
    pub receipt: Option<String>,
    /// What was done, as a line for a shell.
    pub line: String,
    /// The beginning of what was printed.
    pub output: String,
}

/// The directories and files of a run.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// The store; only this is the store's.
    pub(super) store: PathBuf,
    /// The harness's own files, and a working directory for each agent.
    pub(super) scratch: PathBuf,
    /// The directory of the spec.
    pub(super) spec: PathBuf,
}

impl Site {
    /// The values that every job has.
    pub(super) fn values(&self, agent: u32) -> Values {
        let text = |path: &Path| path.display().to_string();
        let work = self.work(agent);
        Values::from([
            ("store", text(&self.store)),
            ("run", text(&self.scratch)),
            ("work", text(&work)),
            ("spec", text(&self.spec)),
            ("export", text(&self.scratch.join("export.jsonl"))),
            ("agent", agent_name(agent)),
        ])
    }

    /// The values of a job about an item.
    pub(super) fn item(&self, agent: u32, item: &str, token: String) -> Values {
        let mut values = self.values(agent);
        values.insert("item", item.to_owned());
        values.insert("receipt", item.to_owned());
        values.insert("token", token);
        values
    }

    pub(super) fn work(&self, agent: u32) -> PathBuf {
        self.scratch.join(format!("work-{agent}"))
    }

    /// The seat of an agent.
    pub(super) fn seat(
        &self,
        agent: u32,
        over: &Arc<AtomicBool>,
        injection: Option<Injection>,
    ) -> Result<Seat, String> {
        let work = self.work(agent);
        std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
        Ok(Seat::new(Arc::clone(over), injection))
    }
}

/// The payload of a write.
pub(super) fn payload(config: &Config, agent: u32, write: u32) -> String {
    let token = token(agent, write);
    match config.payload_bytes {
        None => format!("{token} mend the fence"),
        Some(bytes) => {
            let words = "mend the fence and the gate ";
            let filler = words.repeat(bytes.saturating_sub(token.len()) / words.len() + 1);
            format!("{token} {}", filler.trim_end())
        }
    }
}

/// The job of a write.
pub(super) fn append(config: &Config, site: &Site, agent: u32, write: u32) -> Job {
    let mut values = site.values(agent);
    values.insert("token", token(agent, write));
    values.insert("payload", payload(config, agent, write));
    values.insert("write", write.to_string());
    job(Deed::Append, values)
}

/// The job of a batch.
pub(super) fn batch(config: &Config, site: &Site, agent: u32, first: u32, last: u32) -> Job {
    let writes = (first..=last).map(|write| append(config, site, agent, write).values);
    Job {
        batch: writes.collect(),
        ..job(Deed::Batch, site.values(agent))
    }
}

/// Everything that a run has so far.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) calls: Vec<Call>,
    pub(super) incidents: Vec<Incident>,
    pub(super) violations: Vec<Violation>,
    /// How often an artifact was looked at.
    pub(super) looks: u64,
    pub(super) exports: u64,
    /// What a follower was shown.
    pub(super) followed: Option<Vec<Entry>>,
    pub(super) killed: u64,
    pub(super) stopped: u64,
    /// What every agent was doing when the watchdog gave up.
    pub(super) hang: Option<Vec<String>>,
    /// The server did not come up again: there is nothing to ask for a list.
    pub(super) server_failed: bool,
    /// The user ended the run before its work was done.
    pub(super) interrupted: bool,
    pub(super) go_ns: u64,
    pub(super) elapsed_ms: f64,
    /// Names of the items that agents compete for, in the terms of the store.
    pub(super) items: Vec<String>,
}

impl History {
    /// The server did not come up, or did not stay.
    pub(super) fn lose_server(&mut self, failure: Failure, when: &str) {
        self.server_failed = true;
        self.violations.push(failure.violation(when));
    }
}

/// What ends a round before its work is done.
pub(super) trait Machine: Sync {
    /// Waits for a time; whether the machine is gone.
    fn is_gone_within(&self, time: Duration) -> bool;
    /// Ends it.
    fn end(&self);
    /// Every process has been sent the signal that kills it.
    fn release(&self);
}

/// A round of work.
pub(super) struct Round<'a> {
    pub(super) config: &'a Config,
    pub(super) store: &'a dyn Store,
    pub(super) site: &'a Site,
    pub(super) exe: &'a Path,
    /// The next write of each agent.
    pub(super) next: &'a [AtomicU32],
    pub(super) serving: Option<&'a Serving<'a>>,
    /// What ends it, and after which time at most.
    pub(super) machine: Option<(&'a dyn Machine, Duration)>,
}

/// The writes that these calls made: each with its call.
pub(super) fn writes(calls: &[Call]) -> impl Iterator<Item = (&Call, u32)> {
    let made = calls
        .iter()
        .filter(|call| matches!(call.deed, Deed::Append | Deed::Batch));
    made.flat_map(|call| (call.write..call.write + call.writes).map(move |write| (call, write)))
}

/// The acknowledged ones: agent and write.
pub(super) fn acknowledged(calls: &[Call]) -> impl Iterator<Item = (u32, u32)> {
    let told = writes(calls).filter(|(call, _)| call.told == Told::Ok);
    told.map(|(call, write)| (call.agent, write))
}

impl Round<'_> {
    /// Lets the agents work until they are done, the machine is gone or the time is over.
    pub(super) fn work(&self, history: &mut History, watch: Watch<'_>) -> Result<(), String> {
        let over = Arc::new(AtomicBool::new(false));
        let agents = self.config.agents;
        let mut seats = Vec::new();
        // The last seat is the exporter's.
        for agent in 0..=agents {
            let fault = Injection::of(self.config, agent);
            seats.push(self.site.seat(agent, &over, fault)?);
        }
        let (exporter, writers) = seats.split_last().ok_or("there is no agent")?;
        let answered = AtomicU32::new(0);
        let calls = Mutex::new(Vec::new());
        let barrier = Barrier::new(agents as usize + 1);
        let beside = Mutex::new(History::default());
        let items = std::mem::take(&mut history.items);
        let doing: Vec<Mutex<String>> = writers.iter().map(|_| Mutex::default()).collect();
        let (alive, ended) = bounded::<()>(0);
        let can = self.store.can();
        let follower = Follower::default();
        let mut following = None;
        let follower_values = self.site.values(agents);
        let follower_seat = self.site.seat(agents, &over, None)?;
        // A machine without power has no follower.
        if can.follow && self.config.workload.writes() && self.machine.is_none() {
            let first = Follower::first(&follower_values);
            following = Some(self.store.follow(&follower_seat, &first)?);
        }
        let follows = following.is_some();
        let mut victims: Vec<&Seat> = seats.iter().collect();
        victims.extend(follows.then_some(&follower_seat));
        let started = Instant::now();
        std::thread::scope(|scope| {
            if let Some(process) = following {
                let (follower, seat) = (&follower, &follower_seat);
                let values = &follower_values;
                scope.spawn(move || follower.read(self.store, seat, values, process, self.serving));
            }
            for (agent, seat) in (0..).zip(writers) {
                let (calls, barrier, answered) = (&calls, &barrier, &answered);
                let (alive, items) = (alive.clone(), &items);
                let doing = doing.get(agent as usize);
                scope.spawn(move || {
                    barrier.wait();
                    let own = self.agent(agent, seat, items, answered, doing);
                    lock(calls).extend(own);
                    drop(alive);
                });
            }
            drop(alive);
            let (over_sender, over_receiver) = bounded::<()>(0);
            if can.export && self.config.workload == Workload::Append {
                let (over, beside) = (over_receiver.clone(), &beside);
                scope.spawn(move || self.export(exporter, &over, beside));
            }
            if !can.artifacts.is_empty() {
                let (over, beside) = (over_receiver, &beside);
                scope.spawn(move || self.watch_artifacts(&over, beside));
            }
            barrier.wait();
            history.go_ns = monotonic_ns();
            self.attend(scope, &victims, &ended, &answered, history, watch);
            history.elapsed_ms += started.elapsed().as_secs_f64() * 1e3;
            if history.hang.is_some() {
                history.hang = Some(doing.iter().map(|doing| lock(doing).clone()).collect());
            }
            let is_cut_short = history.hang.is_some() || history.interrupted;
            if follows && !is_cut_short && !history.server_failed {
                // It may be stopped.
                follower_seat.signal(false);
                follower.wait_for(&acknowledged(&lock(&calls)).collect());
            }
            over.store(true, Ordering::SeqCst);
            follower_seat.kill();
            self.end(&seats, history);
            drop(over_sender);
        });
        history.items = items;
        history.calls.extend(lock(&calls).drain(..));
        history.calls.sort_by_key(|call| call.begin_ns);
        if follows {
            let lost_server = history.server_failed || self.serving.is_some_and(Serving::has_ended);
            match follower.into_shown() {
                Ok(shown) => history.followed = Some(shown),
                // It has ended with its server, which is a violation of its own.
                Err(_) if lost_server => {}
                Err(error) => history.violations.push(Violation::ExaminationFailed {
                    step: "follow".to_owned(),
                    error,
                }),
            }
        }
        let beside = std::mem::take(&mut *lock(&beside));
        history.looks += beside.looks;
        history.exports += beside.exports;
        history.violations.extend(beside.violations);
        Ok(())
    }

    /// Exports again and again, until it is over.
    fn export(&self, exporter: &Seat, over: &Receiver<()>, beside: &Mutex<History>) {
        let mut agent = self.store.agent(exporter, true);
        let mut exports = 0;
        let mut rest = EXPORT_REST;
        while over.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
            let began = Instant::now();
            agent.perform(&job(Deed::Export, self.site.values(self.config.agents)));
            rest = EXPORT_REST.max(began.elapsed() * EXPORT_RESTS);
            exports += 1;
        }
        lock(beside).exports += exports;
    }

    /// Looks at each artifact that has changed, until it is over.
    fn watch_artifacts(&self, over: &Receiver<()>, beside: &Mutex<History>) {
        let mut found = History::default();
        let mut paths = paths(&self.store.can().artifacts, self.site);
        if self.machine.is_some() {
            // This process must not wait for a machine that it may have to end.
            paths.retain(|(path, _)| !Path::new(path).starts_with(&self.site.store));
        }
        let mut seen = vec![None; paths.len()];
        while over.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            for ((path, format), seen) in paths.iter().zip(&mut seen) {
                // Read again and again, it would keep a processor busy.
                let now = state(path);
                if now != *seen {
                    *seen = now;
                    look_at(path, *format, &mut found);
                }
            }
        }
        let mut beside = lock(beside);
        beside.looks += found.looks;
        beside.violations.extend(found.violations);
    }

    /// Kills all that still works.
    fn end(&self, seats: &[Seat], history: &mut History) {
        let Some((machine, _)) = self.machine else {
            let killed = seats.iter().filter(|seat| seat.kill()).count();
            history.killed += u64::from(!history.interrupted) * killed as u64;
            return;
        };
        machine.end();
        let mut living: Vec<&Seat> = seats.iter().collect();
        living.extend(self.serving.map(Serving::close));
        // A process that is being started may wait for the machine, and holds its seat meanwhile.
        for _ in 0..STARTING_LOOKS_MAX {
            living.retain(|seat| seat.try_kill().is_none());
            if living.is_empty() {
                break;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        machine.release();
        for seat in living {
            seat.kill();
        }
    }

    /// Kills and stops at the rates of the configuration, until the agents are done.
    fn attend<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        seats: &[&Seat],
        ended: &Receiver<()>,
        answered: &AtomicU32,
        history: &mut History,
        watch: Watch<'_>,
    ) {
        let started = Instant::now();
        let mut random = StdRng::seed_from_u64(self.config.seed ^ 0xFA17);
        let (limit, tick) = match self.machine {
            Some((_, limit)) => (limit, LOOK_INTERVAL),
            None => (Duration::from_secs(self.config.timeout_s), TICK),
        };
        let mut wait = |rate: f64| -> Option<Instant> {
            let share: f64 = random.random_range(f64::EPSILON..1.0);
            (rate > 0.0).then(|| Instant::now() + Duration::from_secs_f64(-share.ln() / rate))
        };
        let mut kill_at = wait(self.config.kill_per_second);
        let mut stop_at = wait(self.config.stop_per_second);
        let mut resume: Option<(usize, Instant)> = None;
        let mut victim = self.config.seed;
        let mut draw = |seats: &[&Seat]| {
            victim = victim
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let victims = seats.len() + usize::from(self.serving.is_some());
            usize::try_from(victim >> 33).unwrap_or(0) % victims.max(1)
        };
        let mut shown = Instant::now();
        // Elsewhere: a server that waits for a machine without power can't be reaped here.
        let mut restarting: Option<ScopedJoinHandle<'_, Result<(), Failure>>> = None;
        loop {
            let now = Instant::now();
            let events = [kill_at, stop_at, resume.map(|(_, at)| at)];
            let next = events.into_iter().flatten().min().unwrap_or(now + TICK);
            let time = next.saturating_duration_since(now).min(tick);
            if ended.recv_timeout(time) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            let now = Instant::now();
            if self
                .machine
                .is_some_and(|(machine, _)| machine.is_gone_within(Duration::ZERO))
            {
                break;
            }
            let restarted = restarting.take_if(|restart| restart.is_finished());
            if let Some(failure) = restarted.and_then(failure) {
                history.lose_server(failure, AFTER_A_KILL);
                break;
            }
            if (watch.early)().is_some() {
                history.interrupted = true;
                break;
            }
            if started.elapsed() >= limit {
                if self.machine.is_none() {
                    history.hang = Some(Vec::new());
                }
                break;
            }
            // If processes took longer to start than they live, no write would ever be done.
            let allowed = u64::from(answered.load(Ordering::Relaxed)) * 2 + 64;
            if kill_at.is_some_and(|at| at <= now) {
                kill_at = wait(self.config.kill_per_second);
                let agent = draw(seats);
                let is_allowed = history.killed < allowed;
                let is_killed = match self.serving.filter(|_| agent == seats.len()) {
                    Some(server) if is_allowed && restarting.is_none() => {
                        restarting = Some(scope.spawn(|| server.restart()));
                        true
                    }
                    Some(_) => false,
                    None => is_allowed && seats.get(agent).is_some_and(|seat| seat.kill()),
                };
                if is_killed {
                    history.killed += 1;
                    history
                        .incidents
                        .push(incident(IncidentKind::Killed, agent));
                }
            }
            if stop_at.is_some_and(|at| at <= now) && resume.is_none() {
                stop_at = wait(self.config.stop_per_second);
                let agent = draw(seats);
                if seats.get(agent).is_some_and(|seat| seat.signal(true)) {
                    history.stopped += 1;
                    history
                        .incidents
                        .push(incident(IncidentKind::Stopped, agent));
                    resume = Some((agent, now + Duration::from_millis(STOP_MS)));
                }
            }
            if let Some((agent, _)) = resume.filter(|(_, at)| *at <= now) {
                seats.get(agent).map(|seat| seat.signal(false));
                resume = None;
            }
            if shown.elapsed() >= TICK {
                shown = Instant::now();
                show(watch, answered, history);
            }
        }
        if self.machine.is_none()
            && let Some(failure) = restarting.and_then(failure)
        {
            history.lose_server(failure, AFTER_A_KILL);
        }
    }

    /// Everything that one agent does.
    fn agent(
        &self,
        agent: u32,
        seat: &Seat,
        items: &[String],
        answered: &AtomicU32,
        doing: Option<&Mutex<String>>,
    ) -> Vec<Call> {
        let config = self.config;
        let mut calls = Vec::new();
        let Some(next) = self.next.get(agent as usize) else {
            return calls;
        };
        let mut worker = self.store.agent(seat, config.one_shot);
        while !seat.is_over() {
            let write = next.load(Ordering::Relaxed);
            if write > config.writes {
                break;
            }
            if self.serving.is_some_and(|serving| !serving.is_up()) {
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            }
            let (mut job, item) = self.job(agent, write, items);
            let writes = u32::try_from(job.batch.len().max(1)).unwrap_or(u32::MAX);
            if !config.makes(agent, write) {
                next.store(write + writes, Ordering::Relaxed);
                continue;
            }
            if let Some(doing) = doing {
                *lock(doing) = format!("agent {agent}: {:?} {write}", job.deed);
            }
            let mut answer = worker.perform(&job);
            let mut old = None;
            if (job.deed, &answer.told) == (Deed::Get, &Told::Ok) {
                let read = answer.receipt.take().unwrap_or_default();
                job.deed = Deed::Set;
                job.values.insert("old", read.clone());
                old = Some(read);
                answer = worker.perform(&job);
            }
            let interrupted = answer.told == Told::Info(String::new());
            let again = interrupted && job.deed == Deed::Append && self.store.can().idempotent;
            if !again {
                next.store(write + writes, Ordering::Relaxed);
            }
            answered.fetch_add(writes, Ordering::Relaxed);
            calls.push(Call {
                writes,
                old,
                ..call(agent, write, job.deed, item, answer)
            });
            if let Some(think_ms) = config.think_ms {
                std::thread::sleep(Duration::from_millis(think_ms));
            }
        }
        if let Some(doing) = doing {
            *lock(doing) = format!("agent {agent}: done");
        }
        calls
    }

    fn job(&self, agent: u32, write: u32, items: &[String]) -> (Job, Option<u32>) {
        let config = self.config;
        match config.workload {
            Workload::Claim => {
                let (agents, writes) = (config.agents, config.writes);
                let number = claimed_issue(config.seed, agent, agents, write, writes);
                let item = items.get(number as usize).cloned().unwrap_or_default();
                let values = self.site.item(agent, &item, token(agents, number + 1));
                (job(Deed::Claim, values), Some(number + 1))
            }
            Workload::Set => {
                let (agents, pool) = (config.agents, config.pool());
                let number = claimed_issue(config.seed, agent, agents, write, pool);
                let item = items.get(number as usize).cloned().unwrap_or_default();
                let mut values = self.site.item(agent, &item, token(agents, number + 1));
                values.insert("new", token(agent, write));
                (job(Deed::Get, values), Some(number + 1))
            }
            Workload::Exclusive => {
                let hold_us = (agent * 131 + write * 71) % HOLD_US_MAX;
                let words = [
                    self.exe.display().to_string(),
                    "witness".to_owned(),
                    self.site.scratch.join("control").display().to_string(),
                    agent.to_string(),
                    config.agents.to_string(),
                    hold_us.to_string(),
                ];
                let mut values = self.site.values(agent);
                values.insert("witness", crate::stores::template::shell_line(&words));
                let job = Job {
                    witness: words.to_vec(),
                    ..job(Deed::Exclusive, values)
                };
                (job, None)
            }
            Workload::Batch => {
                let last = (write + BATCH_WRITES - 1).min(config.writes);
                (batch(config, self.site, agent, write, last), None)
            }
            _ => (append(config, self.site, agent, write), None),
        }
    }
}

/// A call in the history.
pub(super) fn call(agent: u32, write: u32, deed: Deed, item: Option<u32>, answer: Answer) -> Call {
    Call {
        agent,
        write,
        writes: 1,
        deed,
        item,
        old: None,
        begin_ns: answer.begin_ns,
        end_ns: answer.end_ns,
        told: answer.told,
        receipt: answer.receipt,
        line: answer.line,
        output: answer.output,
    }
}

fn show(watch: Watch<'_>, answered: &AtomicU32, history: &History) {
    (watch.progress)(&Moment {
        acknowledged: u64::from(answered.load(Ordering::Relaxed)),
        killed: history.killed,
        stopped: history.stopped,
        ..Moment::default()
    });
}

/// Why the server was not started again.
fn failure(restart: ScopedJoinHandle<'_, Result<(), Failure>>) -> Option<Failure> {
    match restart.join() {
        Ok(restarted) => restarted.err(),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn incident(kind: IncidentKind, agent: usize) -> Incident {
    Incident {
        at_ns: monotonic_ns(),
        kind,
        who: format!("agent {agent}"),
        detail: String::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at each artifact; one that is not valid is a violation, once.
pub(super) fn look(artifacts: &[Artifact], site: &Site, found: &mut History) {
    for (path, format) in paths(artifacts, site) {
        look_at(&path, format, found);
    }
}

fn paths(artifacts: &[Artifact], site: &Site) -> Vec<(String, Format)> {
    let values = site.values(0);
    let path = |artifact: &Artifact| Some((artifact.path.fill(&values).ok()?, artifact.format));
    artifacts.iter().filter_map(path).collect()
}

fn look_at(path: &str, format: Format, found: &mut History) {
    // One that is not there is not wrong.
    let Ok(bytes) = std::fs::read(path) else {
        return;
    };
    found.looks += 1;
    let is_known = found.violations.iter().any(|violation| {
        matches!(violation, Violation::ArtifactInvalid { path: known, .. } if *known == path)
    });
    if let Err(error) = is_valid(format, &bytes)
        && !is_known
    {
        found.violations.push(Violation::ArtifactInvalid {
            path: path.to_owned(),
            at_ns: monotonic_ns(),
            error,
        });
    }
}

/// What changes with a file; `None` if it is not there.
fn state(path: &str) -> Option<[i64; 6]> {
    let found = std::fs::metadata(path).ok()?;
    let (file, length) = (found.ino().cast_signed(), found.len().cast_signed());
    let (written, changed) = (found.mtime(), found.ctime());
    Some([
        file,
        length,
        written,
        found.mtime_nsec(),
        changed,
        found.ctime_nsec(),
    ])
}
