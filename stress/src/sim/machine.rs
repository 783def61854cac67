//! Virtual processes that share a [`VirtualDisk`], locks, pages of memory, and a clock.
//!
//! Each process is a thread, but only one of them runs at a time: at each of its calls to the
//! storage, a lock or a word of a page, a process may have to wait for its next turn. The seed
//! decides which process is next, which calls fail, which processes die and when the power goes.
//! Time passes only as the machine says. So a seed gives the same run each time.
//!
//! The processes run the real code of `strand-core`, which sees the machine as its
//! [`Storage`](strand_core::testing::Storage) and [`Host`](strand_core::testing::Host).

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::panics;
use crate::sim::disk::{InodeId, VirtualDisk};
use crate::sim::page::{PageContent, Words};

/// The faults that may occur, each with its probability at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultProfile {
    /// Another process goes on.
    pub switch: f64,
    /// Some process is killed; in the middle of a write, a part of it may be done.
    pub kill: f64,
    /// Some process is stopped for a while.
    pub stop: f64,
    /// The power goes, and every process dies.
    pub power_cut: f64,
    /// A sync fails, of files or directories.
    pub sync_fails: f64,
    /// A write fails or is short.
    pub write_fails: f64,
    /// A read fails.
    pub read_fails: f64,
    /// Any other call fails.
    pub call_fails: f64,
    /// The disk becomes full, or has room again.
    pub full: f64,
    /// A sleeper wakes without a reason.
    pub wake: f64,
    /// A lock file or a shared page is removed, or replaced by a copy.
    pub displace: f64,
    /// How long a sync takes, in microseconds. Not a probability.
    pub sync_us: u64,
}

impl FaultProfile {
    /// Nothing goes wrong.
    pub const CLEAR: FaultProfile = FaultProfile {
        switch: 0.0,
        kill: 0.0,
        stop: 0.0,
        power_cut: 0.0,
        sync_fails: 0.0,
        write_fails: 0.0,
        read_fails: 0.0,
        call_fails: 0.0,
        full: 0.0,
        wake: 0.0,
        displace: 0.0,
        sync_us: 120,
    };
}

/// How often each kind of trouble came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Steps of all processes.
    pub steps: u64,
    /// Times that another process went on.
    pub switches: u64,
    /// Processes killed.
    pub kills: u64,
    /// Processes stopped.
    pub stops: u64,
    /// Losses of power.
    pub power_cuts: u64,
    /// Lock files and pages removed or replaced.
    pub displaced: u64,
    /// Calls that failed, short writes among them.
    pub faults: u64,
}

impl Troubles {
    /// Adds what came to another machine.
    pub fn add(&mut self, other: Troubles) {
        self.steps += other.steps;
        self.switches += other.switches;
        self.kills += other.kills;
        self.stops += other.stops;
        self.power_cuts += other.power_cuts;
        self.displaced += other.displaced;
        self.faults += other.faults;
    }
}

/// A machine with its disk, from one start to the next.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// One for each process that may run.
    turns: Vec<Condvar>,
    pub(super) base: Instant,
    pub(super) boot: u64,
}

pub(super) struct State {
    pub(super) disk: VirtualDisk,
    fault_profile: FaultProfile,
    pub(super) rng: StdRng,
    pub(super) now_ns: u64,
    running: Option<usize>,
    pub(super) processes: Vec<ProcessState>,
    /// The lock files.
    pub(super) locks: BTreeMap<Place, LockFile>,
    /// Who holds which lock file, and the name that it has or had.
    pub(super) holders: BTreeMap<u64, (usize, Place)>,
    /// Who has claimed a number of a page: a process, and which of its open pages.
    pub(super) claims: BTreeMap<(u64, u64), (usize, u64)>,
    pub(super) pages: BTreeMap<Place, PageFile>,
    /// How many lock files and pages were made.
    pub(super) made: u64,
    /// How many syncs of each file failed. Each process that has the file open gets one error, as
    /// on Linux since 4.13.
    pub(super) failed_syncs: BTreeMap<InodeId, u64>,
    /// The pages as the system wrote them back at some time.
    written_back: BTreeMap<Place, PageContent>,
    full: bool,
    /// The fault of each call, for who wants to choose them one by one.
    troubles: Troubles,
    steps_max: u64,
    digest: u64,
    trace: Option<Vec<String>>,
    /// Violations: acts that no process may ever do.
    broken: Vec<String>,
    hang: Option<String>,
    power: bool,
}

/// A directory, and a name in it.
pub(super) type Place = (InodeId, String);

/// A lock file, which is no file of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockFile {
    /// No other lock file or page has it.
    pub(super) number: u64,
    /// See `HeldLock::is_known`.
    pub(super) is_known: bool,
}

/// The file of a shared page, which is no file of the disk.
#[derive(Debug, Clone)]
pub(super) struct PageFile {
    /// No other lock file or page has it.
    pub(super) number: u64,
    pub(super) words: Arc<Words>,
}

#[derive(Debug, Clone)]
pub(super) struct ProcessState {
    pub(super) doing: Doing,
    dead: bool,
    stopped_until_ns: u64,
    /// It has just looked whether names still mean the same files. What is displaced between that
    /// look and the next call is beyond what a program can see.
    looked: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Doing {
    Runs,
    WaitsForLock {
        lock: u64,
        until_ns: u64,
    },
    WaitsForWord {
        page: u64,
        index: usize,
        until_ns: u64,
    },
    Sleeps {
        until_ns: u64,
    },
    Over,
}

/// Why a thread of a process that was killed unwinds.
struct Killed;

/// How a run of processes ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Processes that panicked by themselves, with their message.
    pub panics: Vec<(usize, String)>,
    /// Violations: acts that no process may ever do.
    pub broken: Vec<String>,
    /// Why no process could go on, if none could.
    pub hang: Option<String>,
    /// Whether the power went.
    pub power_cut: bool,
}

/// The program of a process. It gets the machine as the process sees it.
pub type Program<'a> = Box<dyn FnOnce(&Arc<Process>) + Send + 'a>;

impl Machine {
    /// Starts a machine with this disk for the first time.
    #[must_use]
    pub fn start(disk: VirtualDisk, seed: u64) -> Machine {
        silence_kills();
        Machine::new(State::new(disk, seed), 1, 0)
    }

    fn new(state: State, boot: u64, processes: usize) -> Machine {
        static BASE: OnceLock<Instant> = OnceLock::new();
        let turns = (0..processes).map(|_| Condvar::new()).collect();
        Machine {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                turns,
                base: *BASE.get_or_init(Instant::now),
                boot,
            }),
        }
    }

    /// Runs one process in the caller's thread, alone, and without trouble.
    pub fn alone<T>(&mut self, work: impl FnOnce(&Arc<Process>) -> T) -> T {
        self.prepare(1, FaultProfile::CLEAR);
        self.shared.state().running = Some(0);
        let done = work(&self.process(0));
        let mut state = self.shared.state();
        state.bury(0);
        done
    }

    /// Runs processes at the same time until all have ended, with these faults.
    pub fn run(&mut self, programs: Vec<Program<'_>>, fault_profile: FaultProfile) -> Ended {
        self.prepare(programs.len(), fault_profile);
        let panics = std::thread::scope(|scope| {
            let threads: Vec<_> = programs
                .into_iter()
                .enumerate()
                .map(|(id, program)| {
                    let process = self.process(id);
                    scope.spawn(move || process.live(program))
                })
                .collect();
            {
                let mut state = self.shared.state();
                let first = state.pick();
                self.shared.hand_to(&mut state, first);
            }
            let ends = threads.into_iter().enumerate();
            ends.filter_map(|(id, thread)| {
                let message = thread
                    .join()
                    .unwrap_or_else(|panic| Some(panics::message(&*panic).to_owned()));
                message.map(|message| (id, message))
            })
            .collect()
        });
        let mut state = self.shared.state();
        Ended {
            panics,
            broken: std::mem::take(&mut state.broken),
            hang: state.hang.take(),
            power_cut: !state.power,
        }
    }

    /// Makes room for this many processes, none of which runs yet.
    fn prepare(&mut self, processes: usize, fault_profile: FaultProfile) {
        let mut state = self.shared.state();
        state.fault_profile = fault_profile;
        state.processes = vec![
            ProcessState {
                doing: Doing::Runs,
                dead: false,
                stopped_until_ns: 0,
                looked: false,
            };
            processes
        ];
        state.holders.clear();
        state.claims.clear();
        state.full = false;
        state.running = None;
        drop(state);
        if self.shared.turns.len() < processes {
            let state = self.shared.state().take();
            *self = Machine::new(state, self.shared.boot, processes);
        }
    }

    fn process(&self, id: usize) -> Arc<Process> {
        Arc::new(Process {
            shared: Arc::clone(&self.shared),
            id,
        })
    }

    /// The machine after a power loss: its disk has what was synced and a random part of the rest.
    #[must_use]
    pub fn restart(&self) -> Machine {
        let mut state = self.shared.state();
        let State {
            disk,
            rng,
            pages,
            written_back,
            ..
        } = &mut *state;
        let (left_of_disk, _) = disk.crash(rng);
        let mut left = BTreeMap::new();
        for (place, page) in pages {
            // The system writes a page back when it likes, and its name is not synced by itself.
            let content = match rng.random_range(0..8) {
                0 => continue,
                1 => PageContent::default(),
                2..=4 => page.words.content(),
                _ => written_back.get(place).cloned().unwrap_or_default(),
            };
            let words = Arc::new(Words::new(&content));
            let number = page.number;
            left.insert(place.clone(), PageFile { number, words });
        }
        let seed = rng.random();
        let mut next = state.take();
        next.disk = left_of_disk;
        next.rng = StdRng::seed_from_u64(seed);
        next.pages = left;
        next.failed_syncs = BTreeMap::new();
        next.written_back = BTreeMap::new();
        next.power = true;
        Machine::new(next, self.shared.boot + 1, 0)
    }

    /// A copy of the disk as it is now.
    #[must_use]
    pub fn disk(&self) -> VirtualDisk {
        self.shared.state().disk.clone()
    }

    /// The faults so far.
    #[must_use]
    pub fn troubles(&self) -> Troubles {
        self.shared.state().troubles
    }

    /// A number that two runs share only if all their steps were the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.state().digest
    }

    /// Has the machine write down its steps from now on.
    pub fn trace(&self) {
        self.shared.state().trace = Some(Vec::new());
    }

    /// The steps since [`Machine::trace`].
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        self.shared.state().trace.clone().unwrap_or_default()
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_to(&self, state: &mut State, process: Option<usize>) {
        state.running = process;
        match process.and_then(|process| self.turns.get(process)) {
            Some(turn) => turn.notify_all(),
            None => self.turns.iter().for_each(Condvar::notify_all),
        }
    }
}

impl State {
    fn new(disk: VirtualDisk, seed: u64) -> State {
        State {
            disk,
            fault_profile: FaultProfile::CLEAR,
            rng: StdRng::seed_from_u64(seed),
            now_ns: 0,
            running: None,
            processes: Vec::new(),
            locks: BTreeMap::new(),
            holders: BTreeMap::new(),
            claims: BTreeMap::new(),
            pages: BTreeMap::new(),
            made: 0,
            failed_syncs: BTreeMap::new(),
            written_back: BTreeMap::new(),
            full: false,
            troubles: Troubles::default(),
            steps_max: 3_000_000,
            digest: seed,
            trace: None,
            broken: Vec::new(),
            hang: None,
            power: true,
        }
    }

    /// Leaves a state that is not used again.
    fn take(&mut self) -> State {
        std::mem::replace(self, State::new(VirtualDisk::new(), 0))
    }

    fn chance(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.rng.random_bool(chance.min(1.0))
    }

    fn can_run(&self, process: &ProcessState) -> bool {
        if process.dead || process.stopped_until_ns > self.now_ns {
            return false;
        }
        match &process.doing {
            Doing::Runs => true,
            Doing::WaitsForLock { lock, until_ns } => {
                *until_ns <= self.now_ns || !self.holders.contains_key(lock)
            }
            Doing::WaitsForWord { until_ns, .. } | Doing::Sleeps { until_ns } => {
                *until_ns <= self.now_ns
            }
            Doing::Over => false,
        }
    }

    /// The time at which a process that can't run now may, if no other process acts.
    fn wakes_at_ns(process: &ProcessState) -> Option<u64> {
        let until_ns = match process.doing {
            Doing::Runs => 0,
            Doing::WaitsForLock { until_ns, .. }
            | Doing::WaitsForWord { until_ns, .. }
            | Doing::Sleeps { until_ns } => until_ns,
            Doing::Over => return None,
        };
        (!process.dead).then_some(until_ns.max(process.stopped_until_ns))
    }

    /// Chooses the next process. Where none can run now, time passes.
    fn pick(&mut self) -> Option<usize> {
        loop {
            let ready: Vec<usize> = (0..self.processes.len())
                .filter(|id| {
                    self.processes
                        .get(*id)
                        .is_some_and(|process| self.can_run(process))
                })
                .collect();
            if !ready.is_empty() {
                let index = self.rng.random_range(0..ready.len());
                return ready.get(index).copied();
            }
            let next_ns = self.processes.iter().filter_map(State::wakes_at_ns).min()?;
            self.now_ns = self.now_ns.max(next_ns);
        }
    }

    fn is_dead(&self, id: usize) -> bool {
        self.processes.get(id).is_none_or(|process| process.dead)
    }

    /// Ends a process: the system frees its locks.
    fn bury(&mut self, id: usize) {
        if let Some(process) = self.processes.get_mut(id) {
            process.doing = Doing::Over;
        }
        self.holders.retain(|_, (holder, _)| *holder != id);
        self.claims.retain(|_, (claimer, _)| *claimer != id);
    }

    fn kill(&mut self, id: usize) {
        self.bury(id);
        if let Some(process) = self.processes.get_mut(id) {
            process.dead = true;
        }
    }

    fn kill_all(&mut self) {
        (0..self.processes.len()).for_each(|id| self.kill(id));
    }

    fn note(&mut self, id: usize, call: Call, detail: &dyn Fn() -> String) {
        let number = (id as u64) << 8 | call as u64;
        self.digest = (self.digest.rotate_left(7) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{} process {id}: {call:?} {}",
                self.now_ns,
                detail()
            ));
        }
    }

    fn note_event(&mut self, what: &str, id: usize) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} *** {what} {id}", self.now_ns));
        }
    }

    /// Draws the faults of a step of `id`. True if that process dies in the middle of its call.
    fn fault_profile(&mut self, id: usize) -> bool {
        if self.chance(self.fault_profile.power_cut) {
            self.note_event("the power goes, at a step of", id);
            self.troubles.power_cuts += 1;
            self.power = false;
            return true;
        }
        if self.chance(self.fault_profile.full) {
            self.full = !self.full;
        }
        let alive = |process: &ProcessState| !process.dead && process.doing != Doing::Over;
        if self.chance(self.fault_profile.stop) {
            let who = self.rng.random_range(0..self.processes.len());
            // Shorter and longer than a follower's timeout, and now and then longer than the
            // lock's.
            let for_ns = match self.rng.random_range(0..10) {
                0..=3 => self.rng.random_range(0..1_000_000),
                4..=8 => self.rng.random_range(1_000_000..200_000_000),
                _ => 40_000_000_000,
            };
            let until_ns = self.now_ns + for_ns;
            if let Some(process) = self.processes.get_mut(who).filter(|process| alive(process)) {
                process.stopped_until_ns = until_ns;
                self.troubles.stops += 1;
                self.note_event("stopped: process", who);
            }
        }
        if self.chance(self.fault_profile.wake) {
            for process in &mut self.processes {
                if matches!(process.doing, Doing::WaitsForWord { .. }) {
                    process.doing = Doing::Runs;
                    break;
                }
            }
        }
        if self.chance(self.fault_profile.kill) {
            let mut who = self.rng.random_range(0..self.processes.len());
            // Who waits leaves the most behind.
            let waits = |other: &ProcessState| matches!(other.doing, Doing::WaitsForWord { .. });
            let waiting = self
                .processes
                .iter()
                .position(|other| alive(other) && waits(other));
            if let Some(waiting) = waiting.filter(|_| self.rng.random_bool(0.5)) {
                who = waiting;
            }
            if self.processes.get(who).is_some_and(alive) {
                self.note_event("killed: process", who);
                self.troubles.kills += 1;
                if who == id {
                    return true;
                }
                self.kill(who);
            }
        }
        if self.chance(0.002) {
            let pages = self.pages.iter();
            self.written_back = pages
                .map(|(place, page)| (place.clone(), page.words.content()))
                .collect();
        }
        false
    }

    /// Removes a lock file or a page, or replaces it by a copy, if it is time for that.
    fn displace(&mut self) {
        if !self.chance(self.fault_profile.displace) {
            return;
        }
        let looks = |process: &ProcessState| process.looked && !process.dead;
        let places: Vec<Place> = self
            .locks
            .keys()
            .chain(self.pages.keys())
            .cloned()
            .collect();
        if places.is_empty() || self.processes.iter().any(looks) {
            return;
        }
        let Some(place) = places.get(self.rng.random_range(0..places.len())) else {
            return;
        };
        let copy = self.rng.random_bool(0.5);
        self.made += 1;
        let number = self.made;
        if self.locks.remove(place).is_some() && copy {
            let is_known = false;
            let lock = LockFile { number, is_known };
            self.locks.insert(place.clone(), lock);
        }
        if let Some(page) = self.pages.remove(place).filter(|_| copy) {
            let words = Arc::new(Words::new(&page.words.content()));
            self.pages.insert(place.clone(), PageFile { number, words });
        }
        self.disk.touch_dir(place.0).ok();
        self.troubles.displaced += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{} *** displaced: {}, copy {copy}",
                self.now_ns, place.1
            ));
        }
    }

    /// The error that this call answers, if it fails.
    pub(super) fn fault(&mut self, call: Call) -> Option<io::Error> {
        let grows = matches!(
            call,
            Call::Write | Call::Create | Call::Rename | Call::CreateDir
        );
        if self.full && grows {
            self.troubles.faults += 1;
            return Some(io::ErrorKind::StorageFull.into());
        }
        let chance = match call {
            Call::Sync | Call::SyncDir => self.fault_profile.sync_fails,
            Call::Write => self.fault_profile.write_fails,
            Call::Read => self.fault_profile.read_fails,
            _ => self.fault_profile.call_fails,
        };
        if !self.chance(chance) {
            return None;
        }
        self.troubles.faults += 1;
        let errno = match (call, self.rng.random_range(0..3)) {
            (Call::Write | Call::Create, 0) => return Some(io::ErrorKind::StorageFull.into()),
            (Call::Write | Call::Create, 1) => return Some(io::ErrorKind::QuotaExceeded.into()),
            _ => EIO,
        };
        Some(io::Error::from_raw_os_error(errno))
    }
}

/// "Input/output error", on all systems that have numbers for errors like that.
const EIO: i32 = 5;

/// The kinds of calls at which a process may be made to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Create,
    List,
    OpenDir,
    Examine,
    CreateDir,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    SetLen,
    Len,
    Sync,
    Lock,
    TryLock,
    Unlock,
    OpenPage,
    CheckPage,
    Word,
    Wait,
    Wake,
    GiveWay,
    Sleep,
}

impl Call {
    fn cost_ns(self, fault_profile: &FaultProfile) -> u64 {
        match self {
            Call::Sync | Call::SyncDir => 1_000 * fault_profile.sync_us,
            Call::GiveWay => 20_000,
            Call::Word => 10,
            _ => 1_000,
        }
    }
}

/// A machine as one of its processes sees it.
pub struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) id: usize,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.id)
    }
}

impl Process {
    /// Waits for its turn, does what it has to do, and dies.
    fn live(self: &Arc<Self>, program: Program<'_>) -> Option<String> {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            drop(self.wait_for_turn(self.shared.state()));
            program(self);
        }));
        let message = match ended {
            Ok(()) => None,
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => Some(panics::message(&*panic).to_owned()),
        };
        let mut state = self.shared.state();
        state.bury(self.id);
        if state.running == Some(self.id) {
            let next = state.pick();
            self.shared.hand_to(&mut state, next);
        }
        message
    }

    fn wait_for_turn<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        loop {
            if state.is_dead(self.id) {
                drop(state);
                die();
            }
            if state.running == Some(self.id) {
                return state;
            }
            let Some(turn) = self.shared.turns.get(self.id) else {
                unreachable!("each process has a turn");
            };
            state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets others run first, if it is their turn, and then begins a call. `None` for a process
    /// that is dead already.
    pub(super) fn step(
        &self,
        call: Call,
        detail: &dyn Fn() -> String,
    ) -> Option<MutexGuard<'_, State>> {
        let (state, dies) = self.begin(call, detail)?;
        if dies {
            self.end_here(state);
        }
        Some(state)
    }

    /// Like [`Process::step`], for a call that may be done in part before the process dies.
    pub(super) fn begin(
        &self,
        call: Call,
        detail: &dyn Fn() -> String,
    ) -> Option<(MutexGuard<'_, State>, bool)> {
        let mut state = self.shared.state();
        if state.is_dead(self.id) {
            drop(state);
            if std::thread::panicking() {
                return None;
            }
            die();
        }
        state.troubles.steps += 1;
        state.now_ns += call.cost_ns(&state.fault_profile);
        if state.troubles.steps > state.steps_max && state.hang.is_none() {
            let doing: Vec<_> = state
                .processes
                .iter()
                .map(|process| process.doing.clone())
                .collect();
            state.hang = Some(format!("{} steps, and no end: {doing:?}", state.steps_max));
            state.kill_all();
            self.shared.hand_to(&mut state, None);
            drop(state);
            die();
        }
        let switch = match call {
            Call::GiveWay => 0.7,
            _ => state.fault_profile.switch,
        };
        if state.chance(switch) {
            state = self.others_first(state);
        }
        state.note(self.id, call, detail);
        let dies = state.fault_profile(self.id);
        state.displace();
        if let Some(process) = state.processes.get_mut(self.id) {
            process.looked = call == Call::Examine;
        }
        Some((state, dies))
    }

    /// Lets any process that can run go on, perhaps this one.
    fn others_first<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let next = state.pick();
        if next == Some(self.id) {
            return state;
        }
        if next.is_none() {
            let doing: Vec<_> = state
                .processes
                .iter()
                .map(|process| process.doing.clone())
                .collect();
            state.hang = Some(format!("no process can go on: {doing:?}"));
            state.kill_all();
        }
        state.troubles.switches += 1;
        self.shared.hand_to(&mut state, next);
        self.wait_for_turn(state)
    }

    /// Dies, alone or with all others.
    pub(super) fn end_here(&self, mut state: MutexGuard<'_, State>) -> ! {
        if state.power {
            state.kill(self.id);
            let next = state.pick();
            self.shared.hand_to(&mut state, next);
        } else {
            state.kill_all();
            self.shared.hand_to(&mut state, None);
        }
        drop(state);
        die()
    }

    /// Waits until `doing` is over, while others go on.
    pub(super) fn block<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        doing: Doing,
    ) -> MutexGuard<'a, State> {
        if let Some(process) = state.processes.get_mut(self.id) {
            process.doing = doing;
        }
        state = self.others_first(state);
        if let Some(process) = state.processes.get_mut(self.id) {
            process.doing = Doing::Runs;
        }
        state
    }

    /// One call to the disk.
    pub(super) fn call<T>(
        &self,
        call: Call,
        detail: &dyn Fn() -> String,
        done: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.step(call, detail).ok_or_else(dead)?;
        match state.fault(call) {
            Some(error) => Err(error),
            None => done(&mut state),
        }
    }

    /// Which of the machine's processes it is.
    #[must_use]
    pub fn number(&self) -> usize {
        self.id
    }

    /// Whether another process of the machine was killed.
    #[must_use]
    pub fn knows_dead(&self, number: usize) -> bool {
        self.shared.state().is_dead(number)
    }

    /// How many files were displaced until now.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.shared.state().troubles.displaced
    }

    /// A number for the process's own decisions.
    #[must_use]
    pub fn draw(&self, below: u64) -> u64 {
        self.shared.state().rng.random_range(0..below.max(1))
    }

    /// Notes it when a process changes a file whose lock it does not hold. // I2
    pub(super) fn must_hold(&self, state: &mut State, dir: InodeId, name: &str, what: &str) {
        let locks: &[&str] = match name.split(['-', '.']).next().unwrap_or(name) {
            // Not the store's directory.
            _ if !state.locks.keys().any(|(of, _)| *of == dir) => &[],
            // Hints, which any process writes down.
            "log" if ["index", "unclosed"].contains(&name.rsplit('.').next().unwrap_or("")) => &[],
            "log" if name.strip_suffix(".new").is_some() => &["lock", "compact.lock"],
            "log" if what == "remove" => &["compact.lock"],
            "log" => &["lock"],
            "snapshot" | "run" => &["compact.lock"],
            "MANIFEST" => &["lock", "compact.lock"],
            _ => &[],
        };
        // Its file may have been removed meanwhile.
        let holds = |lock: &&str| {
            let is_it = |(holder, place): &(usize, Place)| {
                *holder == self.id && place.0 == dir && place.1 == **lock
            };
            state.holders.values().any(is_it)
        };
        if !locks.is_empty() && !locks.iter().any(holds) {
            let id = self.id;
            let broken = format!("process {id} did {what} to {name} without {locks:?} (I2)");
            state.broken.push(broken);
        }
    }
}

fn die() -> ! {
    panic_any(Killed)
}

pub(super) fn dead() -> io::Error {
    io::Error::other("this process is dead")
}

/// Keeps the deaths of virtual processes off standard error.
fn silence_kills() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Killed>() {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use strand_core::{Issue, IssueEvent, Log, Options, Reader, Timestamp, testing::Storage};

    fn options(process: &Arc<Process>) -> Options {
        Options::default().storage(Arc::clone(process) as Arc<dyn Storage>)
    }

    fn add(process: usize, number: u32) -> IssueEvent {
        let id = format!("p{process}-{number}");
        IssueEvent::add(
            Issue::new_at(&id, "An issue", Timestamp::from_ms(0)),
            Timestamp::from_ms(0),
        )
    }

    /// Three processes append. Returns the ids of the records afterwards, and the machine's digest.
    fn three(seed: u64, fault_profile: &FaultProfile) -> (Vec<String>, u64) {
        let mut machine = Machine::start(VirtualDisk::new(), seed);
        let programs = (0..3).map(|id| -> Program<'_> {
            Box::new(move |process| {
                let log = Log::<IssueEvent>::open("", options(process)).expect("the store opens");
                for number in 0..20 {
                    log.append(&add(id, number)).expect("nothing fails");
                }
            })
        });
        let ended = machine.run(programs.collect(), fault_profile.clone());
        assert_eq!(ended.panics, []);
        assert_eq!(ended.broken, [""; 0]);
        assert_eq!(ended.hang, None);
        let ids = machine.alone(|process| {
            let reader = Reader::<IssueEvent>::open_in(&(Arc::clone(process) as _), Path::new(""))
                .expect("a store");
            let records = reader.records().expect("it can be read");
            records
                .flat_map(|record| record.expect("a good record").events)
                .map(|event| event.id)
                .collect()
        });
        (ids, machine.digest())
    }

    #[test]
    fn processes_share_a_log_and_a_seed_gives_the_same_run_again() {
        let fault_profile = FaultProfile {
            switch: 0.3,
            wake: 0.001,
            ..FaultProfile::CLEAR
        };
        let mut orders = std::collections::HashSet::new();
        for seed in 0..20 {
            let (mut ids, digest) = three(seed, &fault_profile);
            assert_eq!(three(seed, &fault_profile), (ids.clone(), digest));
            orders.insert(ids.clone());
            ids.sort();
            let mut expected: Vec<String> = (0..3)
                .flat_map(|p| (0..20).map(move |n| format!("p{p}-{n}")))
                .collect();
            expected.sort();
            assert_eq!(ids, expected);
        }
        assert!(orders.len() > 15, "{} orders", orders.len());
    }
}
