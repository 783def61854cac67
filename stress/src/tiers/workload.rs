//! Workloads of one process on a machine in memory: its operations, the calls that fail meanwhile,
//! and the outcomes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use strand_core::{
    Batch, CommitError, Compacted, Durability, Error, Issue, IssueEvent, IssueLog, LiveIssues,
    Options, Patch, Receipt, Seq, Timestamp, Version, testing::Storage, write_jsonl,
};

use crate::run::errors::describe;
use crate::sim::disk::VirtualDisk;
use crate::sim::oracle::{Condition, Ledger, Loss, Operation, Oracle, Outcome};
use crate::sim::solo::{Call, Errno, Fault, FaultAt, Moment, Reach, Short, Solo};

/// Where the store is on the machine.
pub const DIR: &str = "/store";
/// The time of all events (ms since 1970): soon enough that no tombstone expires.
const TS: i64 = 1_706_540_000_000;
/// Issues to be claimed.
const POOL: u32 = 3;

/// One thing that a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Appends an event.
    Append,
    /// Appends several events as one record.
    Batch,
    /// Claims an issue; each is claimed twice.
    Claim,
    /// Commits a batch with an idempotency key, twice.
    Keyed,
    /// Deletes an issue.
    Delete,
    /// Appends an event that need not be durable.
    Buffered,
    /// Makes all durable.
    Sync,
    /// Appends an event behind the beginning of a new segment.
    Rotate,
    /// Compacts.
    Compact,
    /// Exports the state.
    Export,
    /// Closes the log and opens it again.
    Open,
    /// Dies; in the middle of what it did before, at the moment with this number, or behind it.
    Kill(Option<u16>),
}

impl Op {
    /// All but the deaths at some moment.
    pub const ALL: [Self; 12] = [
        Self::Append,
        Self::Batch,
        Self::Claim,
        Self::Keyed,
        Self::Delete,
        Self::Buffered,
        Self::Sync,
        Self::Rotate,
        Self::Compact,
        Self::Export,
        Self::Open,
        Self::Kill(None),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Batch => "batch",
            Self::Claim => "claim",
            Self::Keyed => "keyed",
            Self::Delete => "delete",
            Self::Buffered => "buffered",
            Self::Sync => "sync",
            Self::Rotate => "rotate",
            Self::Compact => "compact",
            Self::Export => "export",
            Self::Open => "open",
            Self::Kill(_) => "kill",
        }
    }
}

/// How the log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setup {
    /// Free space behind the log.
    pub preallocate_bytes: u64,
    /// When a new segment is begun.
    pub segment_bytes_max: u64,
    /// Whether the hints are shared.
    pub share_memory: bool,
}

/// A workload. Equal ones do the same. Its text can be given to a replay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Case {
    /// How the log is opened.
    pub setup: Setup,
    /// The operations.
    pub ops: Vec<Op>,
    /// Which calls fail.
    pub faults: Vec<FaultAt>,
    /// Decides how long the events are.
    pub seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup {
            preallocate_bytes,
            segment_bytes_max,
            share_memory,
        } = self.setup;
        let alone = if share_memory { "" } else { "-alone" };
        write!(f, "{preallocate_bytes}-{segment_bytes_max}{alone}/")?;
        for (index, op) in self.ops.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", op.name())?;
            if let Op::Kill(Some(moment)) = op {
                write!(f, "@{moment}")?;
            }
        }
        write!(f, "/")?;
        for (index, at) in self.faults.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (kind, what) = match at.fault {
                Fault::Fails(errno) => ("", lower(&errno)),
                Fault::Short(short) => ("short-", lower(&short)),
                Fault::Lies(errno) => ("lies-", lower(&errno)),
            };
            write!(f, "{comma}{}:{kind}{what}:{}", at.call, lower(&at.reach))?;
        }
        write!(f, "/{}", self.seed)
    }
}

fn lower(value: &impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("no {what} in the case {text:?}");
        let mut parts = text.split('/');
        let mut part = |what| parts.next().ok_or_else(|| wrong(what));
        let mut setup = part("setup")?.split('-');
        let mut number = |what| {
            let number = setup.next().and_then(|number| number.parse().ok());
            number.ok_or_else(|| wrong(what))
        };
        let setup = Setup {
            preallocate_bytes: number("free space")?,
            segment_bytes_max: number("length of a segment")?,
            share_memory: setup.next().is_none(),
        };
        let ops = part("operations")?.split(',').filter(|op| !op.is_empty());
        let ops = ops.map(|op| {
            let (name, moment) = op.split_once('@').unzip();
            let known = Op::ALL
                .into_iter()
                .find(|known| known.name() == name.unwrap_or(op));
            match (known, moment) {
                (Some(Op::Kill(_)), Some(moment)) => {
                    let moment = moment.parse().map_err(|_| wrong("moment"))?;
                    Ok(Op::Kill(Some(moment)))
                }
                (Some(known), None) => Ok(known),
                _ => Err(wrong("known operation")),
            }
        });
        let ops = ops.collect::<Result<_, String>>()?;
        let faults = part("faults")?.split(',').filter(|at| !at.is_empty());
        let faults = faults.map(|at| parse_fault(at).ok_or_else(|| wrong("known fault")));
        let faults = faults.collect::<Result<_, String>>()?;
        let seed = part("seed")?.parse().map_err(|_| wrong("seed"))?;
        Ok(Self {
            setup,
            ops,
            faults,
            seed,
        })
    }
}

fn parse_fault(text: &str) -> Option<FaultAt> {
    let mut parts = text.split(':');
    let call = parts.next()?.parse().ok()?;
    let what = parts.next()?;
    let errno = |name: &str| Errno::ALL.into_iter().find(|errno| lower(errno) == name);
    let fault = if let Some(name) = what.strip_prefix("short-") {
        Fault::Short(Short::ALL.into_iter().find(|short| lower(short) == name)?)
    } else if let Some(name) = what.strip_prefix("lies-") {
        Fault::Lies(errno(name)?)
    } else {
        Fault::Fails(errno(what)?)
    };
    let name = parts.next()?;
    let all = [Reach::Once, Reach::Kind, Reach::All];
    let reach = all.into_iter().find(|reach| lower(reach) == name)?;
    Some(FaultAt { call, fault, reach })
}

/// A process that does a workload, and the machine that it is on.
pub struct Actor {
    machine: Solo,
    setup: Setup,
    rng: StdRng,
    log: Option<IssueLog>,
    buffered: Option<IssueLog>,
    ledger: Ledger,
    ledgers: Vec<Arc<Ledger>>,
    clock: u64,
    claims: u32,
    victims: Vec<String>,
    /// The first moment of the operation before.
    op_began: usize,
    /// How many calls had failed when something was last written.
    faults_repaired: u64,
    oracle: Oracle,
    /// The violations.
    pub problems: Vec<String>,
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor")
            .field("machine", &self.machine)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

/// The result of a workload.
#[derive(Debug)]
pub struct Performed {
    /// The machine after each call.
    pub moments: Vec<Moment>,
    /// The outcomes until then, by [`Moment::position`].
    pub ledgers: Vec<Arc<Ledger>>,
    /// The violations.
    pub problems: Vec<String>,
    /// The kinds of the calls.
    pub kinds: Vec<Call>,
}

/// An empty disk with a directory for the store.
#[must_use]
pub fn empty_disk() -> VirtualDisk {
    let mut disk = VirtualDisk::new();
    let made = disk.create_dir(Path::new(DIR));
    made.and_then(|()| disk.sync_dir(Path::new("/")))
        .unwrap_or_else(|error| unreachable!("an empty disk takes a directory: {error}"));
    disk
}

/// The options of a log on such a machine.
#[must_use]
pub fn options(setup: Setup, machine: &Solo) -> Options {
    Options::default()
        .preallocate_bytes(setup.preallocate_bytes)
        .segment_bytes_max(setup.segment_bytes_max)
        .share_memory(setup.share_memory)
        .compact_after_bytes(0) // Runs, where they pay.
        .storage(Arc::new(machine.clone()))
        .failpoint_hook(Arc::new(machine.clone()))
}

/// An event that adds a marker.
#[must_use]
pub fn marker_event(id: &str, description_bytes: usize) -> IssueEvent {
    let issue = Issue::new_at(id, "Mend the fence", Timestamp::from_ms(TS));
    let description = "x".repeat(description_bytes);
    let issue = issue
        .with("description", &description)
        .unwrap_or_else(|error| unreachable!("a text can be written: {error}"));
    IssueEvent::add(issue, Timestamp::from_ms(TS))
}

/// Events as the log writes them.
#[must_use]
pub fn texts(events: &[IssueEvent]) -> Arc<[String]> {
    let text = |event: &IssueEvent| {
        serde_json::to_string(event)
            .unwrap_or_else(|error| unreachable!("an event can be written: {error}"))
    };
    events.iter().map(text).collect()
}

fn patch(fields: &[(&str, &str)]) -> Patch {
    fields.iter().fold(Patch::new(), |patch, (field, value)| {
        patch
            .set(*field, value)
            .unwrap_or_else(|error| unreachable!("a text can be written: {error}"))
    })
}

/// Runs a whole workload, and records every moment.
#[must_use]
pub fn perform(case: &Case) -> Performed {
    let mut actor = Actor::new(case);
    for op in &case.ops {
        actor.perform(*op);
    }
    actor.finish()
}

/// The kinds of a workload's calls, from the first one that a fault can be put at.
#[must_use]
pub fn calls_of(case: &Case) -> Vec<Call> {
    let before = if case.ops.is_empty() {
        0
    } else {
        let first = usize::try_from(Actor::new(case).machine().calls());
        first.unwrap_or(usize::MAX)
    };
    let kinds = perform(case).kinds;
    kinds.get(before..).unwrap_or_default().to_vec()
}

impl Actor {
    /// A process on a new machine, with a store that holds what the operations need. The faults
    /// count from the first call after that, unless there are no operations.
    #[must_use]
    pub fn new(case: &Case) -> Self {
        let machine = Solo::new(empty_disk(), None, 1, 7);
        machine.record();
        let mut actor = Self {
            machine: machine.clone(),
            setup: case.setup,
            rng: StdRng::seed_from_u64(case.seed),
            log: None,
            buffered: None,
            ledger: Ledger::default(),
            ledgers: vec![Arc::default()],
            clock: 0,
            claims: 0,
            victims: vec!["victim".to_owned()],
            op_began: 0,
            faults_repaired: 0,
            oracle: Oracle::default(),
            problems: Vec::new(),
        };
        if case.ops.is_empty() {
            machine.set_faults(&case.faults);
        }
        actor.prepare();
        if !case.ops.is_empty() {
            let first = machine.calls();
            let mut faults = case.faults.clone();
            for at in &mut faults {
                at.call += first;
            }
            machine.set_faults(&faults);
        }
        actor
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Solo {
        &self.machine
    }

    /// The outcomes so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends the process.
    #[must_use]
    pub fn finish(mut self) -> Performed {
        (self.log, self.buffered) = (None, None);
        Performed {
            moments: self.machine.take_moments(),
            ledgers: self.ledgers,
            problems: self.problems,
            kinds: self.machine.take_kinds(),
        }
    }

    fn note(&mut self) {
        self.ledgers.push(Arc::new(self.ledger.clone()));
        self.machine.set_position(self.ledgers.len() - 1);
    }

    /// Creates the issues that operations need.
    fn prepare(&mut self) {
        let ids = (1..=POOL).map(|number| format!("pool-{number}"));
        let ids: Vec<String> = ids.chain(["victim".to_owned()]).collect();
        self.write(
            |marker| {
                let others = ids.iter().map(|id| marker_event(id, 0));
                std::iter::once(marker).chain(others).collect()
            },
            None,
            append,
        );
    }

    /// Carries out one operation.
    pub fn perform(&mut self, op: Op) {
        let began = self.machine.moments();
        match op {
            Op::Append => {
                self.write(|marker| vec![marker], None, append);
            }
            Op::Batch => self.batch(),
            Op::Claim => self.claim(),
            Op::Keyed => self.keyed(),
            Op::Delete => self.delete(),
            Op::Buffered => self.buffered(),
            Op::Sync => self.sync(),
            Op::Rotate => self.rotate(),
            Op::Compact => self.compact(),
            Op::Export => self.export(),
            Op::Open => self.reopen(),
            Op::Kill(moment) => {
                self.kill(moment);
                return;
            }
        }
        self.op_began = began;
    }

    /// Reports an error that nothing explains.
    fn check_error(&mut self, what: &str, error: &Error, faults_before: u64) {
        let hit = self.machine.faults_hit() > faults_before;
        // After a failed sync, durability is in doubt until the next write repairs it.
        let unknown = matches!(error, Error::DurabilityUnknown { .. });
        // Without shared memory, one log does not know that the other has repaired it.
        let shared = self.setup.share_memory;
        let repaired = if shared { self.faults_repaired } else { 0 };
        let in_doubt = self.machine.faults_hit() > repaired;
        let excused = in_doubt && unknown && matches!(what, "sync_to" | "close");
        if matches!(error, Error::Corrupt { .. }) {
            self.problems
                .push(format!("{what} says of a good store: {}", describe(error)));
        } else if !hit && !excused {
            self.problems.push(format!(
                "{what} failed without a fault: {}",
                describe(error)
            ));
        }
    }

    fn opened(&mut self) -> Option<&IssueLog> {
        if self.log.is_none() {
            let faults = self.machine.faults_hit();
            match IssueLog::open(DIR, options(self.setup, &self.machine)) {
                Ok(log) => self.log = Some(log),
                Err(error) => self.check_error("open", &error, faults),
            }
        }
        self.log.as_ref()
    }

    /// Begins an operation, unless the log can't be opened; answers its number.
    fn begin(
        &mut self,
        events: impl FnOnce(IssueEvent) -> Vec<IssueEvent>,
        condition: Option<Condition>,
        key: Option<&str>,
    ) -> Option<(usize, Vec<IssueEvent>)> {
        self.opened()?;
        let index = self.ledger.operations.len();
        let marker = format!("op-{index}");
        let description_bytes = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..700),
            _ => self.rng.random_range(0..60),
        };
        let event = marker_event(&marker, description_bytes);
        let mut events = events(event);
        if let (Some(key), Some(first)) = (key, events.first_mut()) {
            first.key = Some(key.to_owned());
        }
        self.clock += 1;
        self.ledger.operations.push(Operation {
            number: u32::try_from(index).unwrap_or(u32::MAX),
            marker: marker.into(),
            events: texts(&events),
            key: key.map(Into::into),
            condition,
            outcome: Outcome::Nothing,
            span: (self.clock, u64::MAX),
        });
        self.note();
        Some((index, events))
    }

    /// Notes an operation's outcome.
    fn end(&mut self, index: usize, outcome: Outcome, synced: bool) {
        self.clock += 1;
        if let Some(operation) = self.ledger.operations.get_mut(index) {
            operation.outcome = outcome;
            operation.span.1 = self.clock;
        }
        if let (Outcome::Acknowledged { seq } | Outcome::Refused { seq }, true) = (outcome, synced)
        {
            self.ledger.durable_seq = self.ledger.durable_seq.max(seq);
        }
        self.note();
    }

    /// Appends or commits once, and notes the outcome.
    fn write(
        &mut self,
        events: impl FnOnce(IssueEvent) -> Vec<IssueEvent>,
        condition: Option<Condition>,
        write: impl FnOnce(&IssueLog, &[IssueEvent]) -> Result<Receipt, CommitError>,
    ) {
        self.write_keyed(events, condition, None, write);
    }

    fn write_keyed(
        &mut self,
        events: impl FnOnce(IssueEvent) -> Vec<IssueEvent>,
        condition: Option<Condition>,
        key: Option<&str>,
        write: impl FnOnce(&IssueLog, &[IssueEvent]) -> Result<Receipt, CommitError>,
    ) {
        let Some((index, events)) = self.begin(events, condition, key) else {
            return;
        };
        let faults = self.machine.faults_hit();
        let Some(log) = &self.log else { return };
        let outcome = write(log, &events);
        let outcome = self.outcome_of(outcome, faults);
        self.end(index, outcome, true);
    }

    fn outcome_of(&mut self, outcome: Result<Receipt, CommitError>, faults_before: u64) -> Outcome {
        match outcome {
            Ok(receipt) => {
                // Where no memory is shared, each log that is open keeps its own doubts.
                if self.setup.share_memory {
                    self.faults_repaired = self.machine.faults_hit();
                }
                Outcome::Acknowledged {
                    seq: receipt.seq.get(),
                }
            }
            Err(CommitError::Conflict(conflict)) => Outcome::Refused {
                seq: conflict.version.map_or(0, Version::get),
            },
            Err(error @ (CommitError::KeyReused { .. } | CommitError::Make(_))) => {
                self.problems.push(format!("a write: {}", describe(&error)));
                Outcome::Rejected
            }
            Err(CommitError::Log(error)) => {
                self.check_error("a write", &error, faults_before);
                match error.outcome() {
                    strand_core::Outcome::Rejected => Outcome::Rejected,
                    strand_core::Outcome::Unknown => Outcome::Unknown,
                }
            }
        }
    }

    fn batch(&mut self) {
        let number = self.ledger.operations.len();
        let (extra, gone) = (format!("extra-{number}"), format!("gone-{number}"));
        let label = Patch::new().add_label("garden");
        let others = [
            IssueEvent::patch("pool-1", label, Timestamp::from_ms(TS)),
            marker_event(&extra, 5),
            IssueEvent::close(extra.clone(), Timestamp::from_ms(TS)),
            IssueEvent::close("nobody", Timestamp::from_ms(TS)),
            marker_event(&gone, 0),
            IssueEvent::delete(gone, Timestamp::from_ms(TS)),
        ];
        self.write(
            |marker| std::iter::once(marker).chain(others).collect(),
            None,
            append,
        );
        self.victims.push(extra);
    }

    fn claim(&mut self) {
        let id = format!("pool-{}", 1 + self.claims / 2 % POOL);
        self.claims += 1;
        let agent = format!("agent-{}", self.claims);
        let key = format!("{agent}/claim");
        let fields = [("assignee", agent.as_str()), ("status", "in_progress")];
        let claim = IssueEvent::patch(id.clone(), patch(&fields), Timestamp::from_ms(TS));
        let condition = Condition::Claimable(id.as_str().into());
        self.write_keyed(
            |marker| vec![marker, claim],
            Some(condition),
            Some(&key),
            |log, events| {
                let batch = create(events, Batch::at(Timestamp::from_ms(TS)).key(&*key));
                log.commit(&batch.claim(&id, &agent))
            },
        );
    }

    fn delete(&mut self) {
        let id = self.victims.pop().unwrap_or_else(|| "nobody".to_owned());
        let condition = Condition::Present(id.as_str().into());
        self.write(
            |marker| {
                vec![
                    marker,
                    IssueEvent::delete(id.clone(), Timestamp::from_ms(TS)),
                ]
            },
            Some(condition),
            |log, events| {
                log.commit(&create(events, Batch::at(Timestamp::from_ms(TS))).delete(id.clone()))
            },
        );
    }

    fn keyed(&mut self) {
        let key = format!("key-{}", self.ledger.operations.len());
        let fields = [("note", key.as_str())];
        let noted = IssueEvent::patch("pool-2", patch(&fields), Timestamp::from_ms(TS));
        let condition = Condition::Present("pool-2".into());
        let begun = self.begin(|marker| vec![marker, noted], Some(condition), Some(&key));
        let Some((index, mut events)) = begun else {
            return;
        };
        if let Some(first) = events.first_mut() {
            first.key = None;
        }
        let batch = create(&events, Batch::at(Timestamp::from_ms(TS)).key(&*key))
            .patch("pool-2", patch(&fields));
        let mut before = Outcome::Rejected;
        for attempt in 0..2 {
            if attempt > 0 && before == Outcome::Rejected {
                // A rejected operation begins anew.
                if let Some(operation) = self.ledger.operations.get_mut(index) {
                    operation.outcome = Outcome::Nothing;
                    operation.span.1 = u64::MAX;
                }
                self.note();
            }
            let faults = self.machine.faults_hit();
            let Some(log) = &self.log else { return };
            let answer = log.commit(&batch);
            if let (Ok(receipt), Outcome::Acknowledged { seq }) = (&answer, before)
                && (receipt.seq.get(), receipt.repeated) != (seq, true)
            {
                self.problems.push(format!(
                    "{key} was acknowledged as {seq}, and then answered with {receipt:?}"
                ));
            }
            if let (Ok(Receipt { repeated: true, .. }), Outcome::Rejected) = (&answer, before) {
                self.problems.push(format!(
                    "{key} was rejected, and is there (attempt {attempt})"
                ));
            }
            let outcome = self.outcome_of(answer, faults);
            before = match (before, outcome) {
                (_, outcome @ Outcome::Acknowledged { .. }) | (Outcome::Rejected, outcome) => {
                    outcome
                }
                (before, _) => before,
            };
            self.end(index, before, true);
        }
    }

    fn buffered(&mut self) {
        if self.buffered.is_none() {
            let faults = self.machine.faults_hit();
            let options = options(self.setup, &self.machine).durability(Durability::Buffered);
            match IssueLog::open(DIR, options) {
                Ok(log) => self.buffered = Some(log),
                Err(error) => {
                    self.check_error("open", &error, faults);
                    return;
                }
            }
        }
        let Some((index, events)) = self.begin(|marker| vec![marker], None, None) else {
            return;
        };
        let faults = self.machine.faults_hit();
        let Some(log) = &self.buffered else { return };
        let answer = append(log, &events);
        let outcome = self.outcome_of(answer, faults);
        self.end(index, outcome, false);
    }

    fn sync(&mut self) {
        let acknowledged = self
            .ledger
            .operations
            .iter()
            .filter_map(|one| match one.outcome {
                Outcome::Acknowledged { seq } => Some(seq),
                _ => None,
            });
        let seq = acknowledged.max().unwrap_or(0);
        let faults = self.machine.faults_hit();
        let Some(log) = self.opened() else { return };
        match log.log().sync_to(Seq::new(seq)) {
            Ok(()) => self.durable(seq),
            Err(error) => self.check_error("sync_to", &error, faults),
        }
    }

    fn durable(&mut self, seq: u64) {
        self.ledger.durable_seq = self.ledger.durable_seq.max(seq);
        self.note();
    }

    fn rotate(&mut self) {
        let setup = Setup {
            segment_bytes_max: 1,
            ..self.setup
        };
        let faults = self.machine.faults_hit();
        match IssueLog::open(DIR, options(setup, &self.machine)) {
            Ok(log) => self.write(
                |marker| vec![marker],
                None,
                |_, events| append(&log, events),
            ),
            Err(error) => self.check_error("open", &error, faults),
        }
    }

    fn compact(&mut self) {
        let faults = self.machine.faults_hit();
        let Some(log) = self.opened() else { return };
        match log.compact() {
            Ok(Compacted::Done { seq, .. }) => self.durable(seq.get()),
            Ok(Compacted::NothingNew) => {}
            Ok(Compacted::AlreadyRunning) => self
                .problems
                .push("a compaction says that another one runs".to_owned()),
            Ok(other) => self.problems.push(format!("a compaction says {other:?}")),
            Err(error) => self.check_error("compact", &error, faults),
        }
    }

    fn export(&mut self) {
        let faults = self.machine.faults_hit();
        let storage: Arc<dyn Storage> = Arc::new(self.machine.clone());
        let state = match LiveIssues::open_in(&storage, Path::new(DIR)) {
            Ok(live) => live.into_state(),
            Err(Error::NoStore { .. }) if self.ledger.operations.is_empty() => return,
            Err(error) => {
                self.check_error("export", &error, faults);
                return;
            }
        };
        // A reader sees what is durable, whatever else was written.
        let judged = self.oracle.judge(&self.ledger, &state, 0, Loss::Power);
        if let Err(wrong) = judged {
            let wrong = wrong.into_iter();
            self.problems
                .extend(wrong.map(|wrong| format!("a reader: {wrong}")));
        }
        if self.setup.share_memory {
            // Without hints, a reader sees what is written, durable or not.
            self.ledger.seen_seq = self.ledger.seen_seq.max(state.last_seq().get());
        }
        let mut lines = Vec::new();
        let written = write_jsonl(&state, &mut lines);
        let exported = lines.split_inclusive(|byte| *byte == b'\n');
        let mut exported = exported.map(|line| line.strip_suffix(b"\n").unwrap_or_default());
        let same = state
            .iter()
            .all(|(_, issue)| exported.next() == Some(issue.as_json().as_bytes()));
        if written.is_err() || !same || exported.next().is_some() {
            self.problems
                .push("the export is not what the state is".to_owned());
        }
        self.note();
    }

    fn reopen(&mut self) {
        for log in [self.buffered.take(), self.log.take()]
            .into_iter()
            .flatten()
        {
            let faults = self.machine.faults_hit();
            let tail_seq = log.log().tail_seq();
            match tail_seq.and_then(|tail_seq| log.close().map(|()| tail_seq)) {
                Ok(tail_seq) => self.durable(tail_seq.unwrap_or_default().get()),
                Err(error) => self.check_error("close", &error, faults),
            }
        }
        self.opened();
    }

    fn kill(&mut self, moment: Option<u16>) {
        (self.log, self.buffered) = (None, None);
        let last = self.machine.moments().saturating_sub(1);
        let number = moment.map_or(last, |moment| {
            (self.op_began + usize::from(moment)).min(last)
        });
        self.machine.die_at(number);
        let position = self.machine.position();
        self.ledgers.truncate(position + 1);
        if let Some(ledger) = self.ledgers.last() {
            self.ledger = Ledger::clone(ledger);
        }
        self.op_began = last;
    }
}

fn append(log: &IssueLog, events: &[IssueEvent]) -> Result<Receipt, CommitError> {
    Ok(match events {
        [event] => log.append(event)?,
        events => log.append_batch(events)?,
    })
}

/// A batch that creates the marker, which the first event adds.
fn create(events: &[IssueEvent], batch: Batch) -> Batch {
    let marker = events.first().and_then(|event| event.data.clone());
    marker.into_iter().fold(batch, Batch::create)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Case {
        text.parse().unwrap()
    }

    #[test]
    fn the_text_of_a_case_leads_back_to_it() {
        let texts = [
            "0-1048576///1",
            "1024-900-alone/append,kill@7,kill,open/\
             12:eio:once,3:short-allbutone:kind,9:lies-enospc:all/42",
        ];
        for text in texts {
            assert_eq!(case(text).to_string(), text);
        }
        let all = Op::ALL.map(Op::name).join(",");
        let all = format!("0-1/{all}//0");
        assert_eq!(case(&all).ops, Op::ALL);
        let wrong = [
            "",
            "1/append//1",
            "0-1/sing//1",
            "0-1/append@3//1",
            "0-1//3:eio/1",
            "0-1//3:esomething:once/1",
            "0-1///x",
        ];
        for text in wrong {
            assert!(text.parse::<Case>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn equal_workloads_do_the_same() {
        let text = "1024-900/append,batch,claim,keyed,delete,compact,rotate,open/30:eio:once/7";
        let digests = || -> Vec<u128> {
            let moments = perform(&case(text)).moments;
            moments.iter().map(|moment| moment.disk.digest()).collect()
        };
        assert_eq!(digests(), digests());
    }

    #[test]
    fn all_operations_are_acknowledged_in_order_and_the_second_claim_is_refused() {
        let ops = "append,batch,claim,claim,keyed,delete,buffered,sync,rotate,compact,export,open";
        let performed = perform(&case(&format!("1024-900/{ops}//3")));
        assert_eq!(performed.problems, [""; 0]);
        let last = performed.ledgers.last().unwrap();
        let outcome: Vec<Outcome> = last.operations.iter().map(|one| one.outcome).collect();
        let acknowledged = |seq| Outcome::Acknowledged { seq };
        let refused = Outcome::Refused { seq: 4 };
        let mut expected: Vec<Outcome> = (1..=4).map(acknowledged).collect();
        expected.push(refused);
        expected.extend((5..=8).map(acknowledged));
        assert_eq!(outcome, expected);
        assert_eq!(last.durable_seq, 8);
    }

    #[test]
    fn a_death_takes_back_what_came_after_its_moment() {
        let whole = perform(&case("0-1048576/append//3"));
        let first =
            whole.moments.len() - perform(&case("0-1048576/append,kill@0//3")).moments.len();
        assert!(first > 3);
        let performed = perform(&case("0-1048576/append,kill@0,append//3"));
        assert_eq!(performed.problems, [""; 0]);
        let last = performed.ledgers.last().unwrap();
        let outcome: Vec<Outcome> = last.operations.iter().map(|one| one.outcome).collect();
        assert_eq!(outcome[0], Outcome::Acknowledged { seq: 1 });
        assert_eq!(outcome[1], Outcome::Nothing);
        assert_eq!(outcome[2], Outcome::Acknowledged { seq: 2 });
    }

    #[test]
    fn a_failed_write_is_rejected_and_an_unexplained_error_is_reported() {
        let calls = calls_of(&case("0-1048576/append//3"));
        let write = calls.iter().position(|call| *call == Call::Write).unwrap();
        let performed = perform(&case(&format!(
            "0-1048576/append,append/{write}:eio:once/3"
        )));
        assert_eq!(performed.problems, [""; 0]);
        let outcome = |index: usize| performed.ledgers.last().unwrap().operations[index].outcome;
        assert_eq!(outcome(1), Outcome::Rejected);
        assert_eq!(outcome(2), Outcome::Acknowledged { seq: 2 });

        let mut actor = Actor::new(&case("0-1048576/append//3"));
        let none = Error::NoStore {
            path: Path::new(DIR).to_owned(),
        };
        actor.check_error("a read", &none, actor.machine.faults_hit());
        assert_eq!(actor.problems.len(), 1);
    }
}
