//! T2: after each call of a workload, the states that a power loss may leave on the disk, and the
//! death of the process. Each of these states is recovered and judged, recovered again, appended to
//! and judged again. Some lose power in the middle of that, too.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use strand_core::{IssueLog, Issues, LiveIssues, testing::Storage};

use crate::panics::catch_panic;
use crate::run::errors::describe;
use crate::sim::disk::VirtualDisk;
use crate::sim::image::{Digest, Image};
use crate::sim::oracle::{Ledger, Loss, Operation, Oracle, Order, Outcome};
use crate::sim::page::PageContent;
use crate::sim::solo::{Call, Errno, Fault, FaultAt, Moment, Reach, Short, Solo};
use crate::tiers::pool;
use crate::tiers::tally::{Budget, FINDINGS_MAX, Finding, Tally, replay_line};
use crate::tiers::workload::{
    Actor, Case, DIR, Op, Performed, Setup, calls_of, marker_event, options, perform, texts,
};

/// Operations that are appended to a recovered store have this number and lower ones.
const AFTER: u32 = u32::MAX;
/// How many of the calls before a state are shown.
const CALLS_SHOWN: usize = 24;
/// The most operations that are appended.
const AFTER_MAX: u32 = 8;

/// How much is tried with each workload.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How many torn writes at each moment.
    pub torn: usize,
    /// One state in this many loses power in its recovery, too.
    pub nested: u64,
    /// How many states at each moment of such a recovery.
    pub nested_torn: usize,
    /// The first moment that is looked at.
    pub from_moment: usize,
}

impl Effort {
    /// The effort of T2.
    pub const FULL: Self = Self {
        torn: 48,
        nested: 256,
        nested_torn: 3,
        from_moment: 0,
    };
}

/// Recovers and judges states, each once, from any number of threads.
#[derive(Debug)]
pub struct Examiner {
    tier: &'static str,
    effort: Effort,
    seen: Mutex<HashSet<u128>>,
    counts: Counts,
    findings: Mutex<Vec<Finding>>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    distinct: Arc<AtomicU64>,
    deaths: AtomicU64,
    nested: AtomicU64,
    workloads: AtomicU64,
    moments: AtomicU64,
    /// The most records that were lost with the power.
    torn: AtomicU64,
}

/// One state of a workload: the moment, and which of those that are possible then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    moment: usize,
    /// `None`: the process died.
    state: Option<usize>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            Some(state) => write!(f, "{}.{state}", self.moment),
            None => write!(f, "{}.death", self.moment),
        }
    }
}

impl At {
    fn parse(text: &str) -> Option<Self> {
        let (moment, state) = text.split_once('.')?;
        let moment = moment.parse().ok()?;
        let state = match state {
            "death" => None,
            state => Some(state.parse().ok()?),
        };
        Some(Self { moment, state })
    }
}

/// A state that is to be recovered, and all that is known of it.
#[derive(Clone, Copy)]
struct Found<'a> {
    disk: &'a VirtualDisk,
    page: Option<&'a PageContent>,
    boot: u32,
    ledger: &'a Ledger,
    durable_seq: u64,
    loss: Loss,
    setup: Setup,
    /// Decides what is left to chance.
    chance: u64,
}

impl Examiner {
    /// Examines for a tier.
    #[must_use]
    pub fn new(tier: &'static str, effort: Effort) -> Self {
        Self {
            tier,
            effort,
            seen: Mutex::default(),
            counts: Counts::default(),
            findings: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Whether enough is found.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The result.
    #[must_use]
    pub fn tally(self) -> Tally {
        let mut tally = Tally::new(self.tier, "distinct crash states");
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tally.cases = count(&self.counts.distinct);
        for (name, counted) in [
            ("workloads", &self.counts.workloads),
            ("moments", &self.counts.moments),
            ("deaths of the process", &self.counts.deaths),
            ("with a torn tail", &self.counts.torn),
            ("within a recovery", &self.counts.nested),
        ] {
            tally.add(name, count(counted));
        }
        let findings = self.findings.into_inner();
        tally.violations = findings.unwrap_or_else(PoisonError::into_inner);
        tally
    }

    /// Reports what is wrong with a workload as a whole.
    pub(crate) fn report_problem(&self, case: &Case, what: &str) {
        self.report(case, None, what, None);
    }

    /// Examines what a process has left at its end, if it is torn from it now.
    pub(crate) fn examine_end(&self, case: &Case, actor: &Actor) {
        let machine = actor.machine();
        let page = machine.page().map(Arc::new);
        let moment = Moment {
            call: machine.calls(),
            what: Call::Step,
            position: 0,
            disk: machine.disk(),
            page: page.clone(),
        };
        let pages: Vec<Arc<PageContent>> = page.into_iter().collect();
        let place = Place {
            case,
            number: None,
            moment: &moment,
            ledger: actor.ledger(),
            pages: &pages,
            durable_seq: pages.first().map_or(0, |page| page.durable_seq()),
            kinds: &[],
        };
        self.examine_moment(&place, &mut Oracle::default(), None);
    }

    fn is_new(&self, key: u128) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(key)
    }

    fn report(&self, case: &Case, at: Option<At>, what: &str, image: Option<&Image>) {
        let place = at.map_or_else(String::new, |at| format!("/{at}"));
        let replay = replay_line(self.tier, None, format_args!("{case}{place}"));
        let kept = image.and_then(keep);
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(Finding {
            what: format!("{what}\n  case {case}{place}"),
            replay,
            kept,
        });
        if findings.len() >= FINDINGS_MAX {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Runs a workload, and examines all states that it may leave, or only `only`.
    pub fn examine(&self, case: &Case, only: Option<At>) {
        let Performed {
            moments,
            ledgers,
            problems,
            kinds,
        } = match catch_panic(|| perform(case)) {
            Ok(performed) => performed,
            Err(panic) => return self.report_problem(case, &format!("the workload {panic}")),
        };
        if !problems.is_empty() {
            self.report(case, None, &problems.join("\n  "), None);
            return;
        }
        self.counts.workloads.fetch_add(1, Ordering::Relaxed);
        let mut oracle = Oracle::default();
        let mut pages: Vec<Arc<PageContent>> = Vec::new();
        let mut durable_seq = 0;
        for (number, moment) in moments.iter().enumerate() {
            if let Some(page) = &moment.page {
                durable_seq = durable_seq.max(page.durable_seq());
                if !pages.last().is_some_and(|last| Arc::ptr_eq(last, page)) {
                    pages.push(Arc::clone(page));
                }
            }
            let Some(ledger) = ledgers.get(moment.position) else {
                continue;
            };
            if number < self.effort.from_moment || only.is_some_and(|at| at.moment != number) {
                continue;
            }
            self.counts.moments.fetch_add(1, Ordering::Relaxed);
            let place = Place {
                case,
                number: Some(number),
                moment,
                ledger,
                pages: &pages,
                durable_seq,
                kinds: &kinds,
            };
            if !self.examine_moment(&place, &mut oracle, only) {
                return; // One finding of each workload tells enough.
            }
        }
    }

    /// False when something was found.
    fn examine_moment(&self, place: &Place<'_>, oracle: &mut Oracle, only: Option<At>) -> bool {
        let Place {
            case,
            number,
            moment,
            ledger,
            pages,
            durable_seq,
            ..
        } = *place;
        let outcome = digest_of(ledger);
        let base = Found {
            disk: &moment.disk,
            page: None,
            boot: 2,
            ledger,
            durable_seq,
            loss: Loss::Power,
            setup: case.setup,
            chance: 0,
        };
        let at = |state| number.map(|moment| At { moment, state });
        // The process dies: what it wrote is there, and the page as it is.
        if only.is_none_or(|only| only.state.is_none()) {
            let mut disk = moment.disk.clone();
            disk.close_all();
            let key =
                disk.digest() ^ outcome ^ moment.page.as_ref().map_or(0, |page| page.digest());
            if self.is_new(key) || only.is_some() {
                self.counts.deaths.fetch_add(1, Ordering::Relaxed);
                let found = Found {
                    disk: &disk,
                    page: moment.page.as_deref(),
                    boot: 1,
                    loss: Loss::Processes,
                    chance: low(key),
                    ..base
                };
                if !self.judge(&found, oracle, place, at(None)) {
                    return false;
                }
            }
        }
        let seed = case.seed ^ (number.unwrap_or(0) as u64) << 20;
        for (state, disk) in moment.disk.crash_disks(seed, self.effort.torn).enumerate() {
            if only.is_some_and(|only| only.state != Some(state)) {
                continue;
            }
            let key = disk.digest() ^ outcome;
            if !self.is_new(key) && only.is_none() {
                continue;
            }
            self.counts.distinct.fetch_add(1, Ordering::Relaxed);
            // The file of the page may be lost, or hold anything that it ever held.
            let page = match low(key) % 3 {
                0 => None,
                1 => pages.last(),
                _ => {
                    let count = pages.len().max(1) as u64;
                    let drawn = usize::try_from(low(key) / 3 % count).unwrap_or(0);
                    pages.get(drawn)
                }
            }
            .map(AsRef::as_ref);
            let found = Found {
                disk: &disk,
                page,
                chance: low(key),
                ..base
            };
            if !self.judge(&found, oracle, place, at(Some(state))) {
                return false;
            }
        }
        true
    }

    fn judge(
        &self,
        found: &Found<'_>,
        oracle: &mut Oracle,
        place: &Place<'_>,
        at: Option<At>,
    ) -> bool {
        let recovered = catch_panic(|| self.recover(found, oracle, true));
        let Err(mut what) = recovered.flatten() else {
            return true;
        };
        let _infallible = write!(
            what,
            "\n  after {:?}; page {:?}\n  outcomes, with {} durable:",
            found.loss, found.page, found.ledger.durable_seq
        );
        for operation in &found.ledger.operations {
            let _infallible = write!(what, " {} {:?};", operation.marker, operation.outcome);
        }
        let last = usize::try_from(place.moment.call).unwrap_or(0);
        let calls = place
            .kinds
            .get(last.saturating_sub(CALLS_SHOWN)..=last)
            .unwrap_or_default();
        let _infallible = write!(what, "\n  calls through {last}: {calls:?}");
        self.report(place.case, at, &what, Some(&found.disk.image()));
        false
    }

    /// Recovers a state and judges, recovers again, appends and judges again.
    fn recover(
        &self,
        found: &Found<'_>,
        oracle: &mut Oracle,
        outermost: bool,
    ) -> Result<(), String> {
        let one_in = |some: u64| found.chance.is_multiple_of(some);
        let nested = outermost
            && one_in(match found.loss {
                Loss::Power => self.effort.nested,
                Loss::Processes => self.effort.nested.div_ceil(16),
            });
        let machine = Solo::new(found.disk.clone(), found.page, found.boot, found.chance);
        if nested {
            machine.record();
        }
        let log = IssueLog::open(DIR, options(found.setup, &machine))
            .map_err(|error| format!("the recovery failed: {}", describe(&error)))?;
        if log.log().recovery().cut_bytes > 0 {
            self.counts.torn.fetch_add(1, Ordering::Relaxed);
        }
        let mut seen = None;
        if nested || one_in(4) {
            // Through the tail: where the hints are believed, not all of it need be durable.
            let order = log
                .with_issues(|state| {
                    oracle.judge(found.ledger, state, found.durable_seq, found.loss)
                })
                .map_err(|error| {
                    format!("reading failed after the recovery: {}", describe(&error))
                })?
                .map_err(|wrong| format!("after the recovery: {}", wrong.join("; ")))?;
            seen = Some(order);
        }
        drop(log);
        let recovered = machine.disk();
        if nested {
            let inner = Found {
                boot: found.boot + 1,
                loss: Loss::Power,
                ..*found
            };
            self.lose_power_within(&inner, oracle, &machine.take_moments())?;
        }

        // Once more, without any hint; and append.
        let again = Solo::new(recovered.clone(), None, found.boot + 1, found.chance);
        let log = IssueLog::open(DIR, options(found.setup, &again))
            .map_err(|error| format!("the second recovery failed: {}", describe(&error)))?;
        if again.disk().digest() != recovered.digest() {
            return Err(format!(
                "the second recovery changed files: {}",
                difference(&recovered.image(), &again.disk().image())
            ));
        }
        if nested {
            again.record();
        }
        // A state that was seen survives a power loss, too: a process that finds no hints to
        // believe makes everything durable.
        let settled = seen.map(|order| found.ledger.settled(&order, true));
        let (ledger, event) = with_one_more(settled.as_ref().unwrap_or(found.ledger));
        let receipt = log.append(&event).map_err(|error| {
            format!("an append after the recovery failed: {}", describe(&error))
        })?;
        if nested {
            let inner = Found {
                boot: found.boot + 2,
                loss: Loss::Power,
                ledger: &ledger,
                ..*found
            };
            self.lose_power_within(&inner, oracle, &again.take_moments())?;
        }
        let storage: Arc<dyn Storage> = Arc::new(again.clone());
        let state = LiveIssues::open_in(&storage, Path::new(DIR))
            .map_err(|error| format!("reading failed after an append: {}", describe(&error)))?;
        let order = oracle
            .judge(&ledger, state.state(), found.durable_seq, found.loss)
            .map_err(|wrong| format!("after an append: {}", wrong.join("; ")))?;
        let added = ledger.operations.last().map(|operation| operation.number);
        if order.last().copied() != added || receipt.seq != order.len() as u64 {
            return Err(format!(
                "an append after the recovery is not the last record, {}",
                receipt.seq
            ));
        }
        if one_in(2) {
            compare_parts(&log, state.state())?;
        }
        if one_in(8) {
            check_files(&ledger, &order, &again.disk())?;
        }
        Ok(())
    }

    /// Loses the power during a recovery, or after it; `found` is what is true then.
    fn lose_power_within(
        &self,
        found: &Found<'_>,
        oracle: &mut Oracle,
        moments: &[Moment],
    ) -> Result<(), String> {
        let mut rng = StdRng::seed_from_u64(found.chance);
        let outcome = digest_of(found.ledger);
        for moment in moments {
            let states = moment
                .disk
                .crash_disks(rng.random(), self.effort.nested_torn);
            let few = 4 + self.effort.nested_torn;
            let states: Vec<VirtualDisk> = states.collect();
            for _ in 0..few.min(states.len()) {
                let drawn = rng.random_range(0..states.len());
                let Some(disk) = states.get(drawn) else {
                    continue;
                };
                // Drawn for the states that are passed over, too, so that a replay draws the same
                // for the others.
                let (keeps_page, chance): (bool, u64) = rng.random();
                if !self.is_new(disk.digest() ^ outcome) {
                    continue;
                }
                self.counts.distinct.fetch_add(1, Ordering::Relaxed);
                self.counts.nested.fetch_add(1, Ordering::Relaxed);
                let page = moment.page.as_deref().filter(|_| keeps_page);
                let inner = Found {
                    disk,
                    page,
                    chance,
                    ..*found
                };
                let recovered = self.recover(&inner, oracle, false);
                recovered.map_err(|wrong| {
                    format!("power lost within, after call {}: {wrong}", moment.call)
                })?;
            }
        }
        Ok(())
    }
}

/// A moment of a workload.
#[derive(Clone, Copy)]
struct Place<'a> {
    case: &'a Case,
    /// `None`: the end of a run that is not looked at before.
    number: Option<usize>,
    moment: &'a Moment,
    ledger: &'a Ledger,
    pages: &'a [Arc<PageContent>],
    durable_seq: u64,
    kinds: &'a [Call],
}

fn low(key: u128) -> u64 {
    let [low @ .., _, _, _, _, _, _, _, _] = key.to_le_bytes();
    u64::from_le_bytes(low)
}

/// The ledger with one more operation, which has no outcome yet.
fn with_one_more(ledger: &Ledger) -> (Ledger, strand_core::IssueEvent) {
    let others = ledger.operations.iter();
    let others = others.filter(|operation| operation.number > AFTER - AFTER_MAX);
    let number = AFTER - u32::try_from(others.count()).unwrap_or(0);
    let marker = format!("after-{}", AFTER - number);
    let event = marker_event(&marker, 20);
    let mut ledger = ledger.clone();
    ledger.operations.push(Operation {
        number,
        marker: marker.into(),
        events: texts(std::slice::from_ref(&event)),
        key: None,
        condition: None,
        outcome: Outcome::Nothing,
        span: (u64::MAX - 1, u64::MAX),
    });
    (ledger, event)
}

/// Whether what is looked up, through the indexes that are there, is what all issues say.
fn compare_parts(log: &IssueLog, all: &Issues) -> Result<(), String> {
    let failed = |error| format!("a look-up failed: {}", describe(&error));
    let unclosed = log.with_unclosed(|some| {
        let differs = (some.last_seq(), some.ready()) != (all.last_seq(), all.ready());
        differs.then(|| format!("{:?} are ready, and not {:?}", some.ready(), all.ready()))
    });
    if let Some(differs) = unclosed.map_err(failed)? {
        return Err(format!("without the closed issues, {differs}"));
    }
    for (id, issue) in all.iter() {
        let found = log.get(id).map_err(failed)?;
        let found = found.as_ref().map(|found| (&found.issue, found.version));
        if found != all.version(id).map(|version| (issue, version)) {
            return Err(format!("{id} is {issue:?}, and was looked up as {found:?}"));
        }
    }
    Ok(())
}

fn check_files(ledger: &Ledger, order: &Order, disk: &VirtualDisk) -> Result<(), String> {
    let dir = DIR.trim_start_matches('/');
    let wrong = Oracle::judge_files(ledger, order, &disk.image(), dir);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("the files: {}", wrong.join("; ")))
    }
}

fn difference(before: &Image, after: &Image) -> String {
    let changed = after
        .files
        .iter()
        .filter(|(path, bytes)| before.files.get(*path) != Some(*bytes));
    let gone = before.files.keys();
    let gone = gone.filter(|path| !after.files.contains_key(*path));
    let names: Vec<&str> = changed
        .map(|(path, _)| &**path)
        .chain(gone.map(|path| &**path))
        .collect();
    names.join(", ")
}

fn digest_of(ledger: &Ledger) -> u128 {
    let mut digest = Digest::default();
    digest.add(&ledger.durable_seq.to_le_bytes());
    for operation in &ledger.operations {
        let (kind, seq) = match operation.outcome {
            Outcome::Nothing => (0, 0),
            Outcome::Acknowledged { seq } => (1, seq),
            Outcome::Rejected => (2, 0),
            Outcome::Refused { seq } => (3, seq),
            Outcome::Unknown => (4, 0),
        };
        digest.add(&[kind]);
        digest.add(&seq.to_le_bytes());
    }
    digest.end()
}

/// Writes an image to a directory of its own.
fn keep(image: &Image) -> Option<PathBuf> {
    let dir = tempfile::Builder::new()
        .prefix("strand-torture-")
        .tempdir()
        .ok()?;
    image.write_to(dir.path()).ok()?;
    Some(dir.keep().join(DIR.trim_start_matches('/')))
}

/// The workloads that are tried first.
fn fixed_workloads() -> Vec<Vec<Op>> {
    use Op::{
        Append, Batch, Buffered, Claim, Compact, Delete, Export, Keyed, Kill, Open, Rotate, Sync,
    };
    vec![
        vec![],
        vec![Append, Append, Append],
        vec![Batch, Append, Batch],
        vec![Claim, Claim, Claim, Claim],
        vec![Keyed, Append, Keyed],
        vec![Batch, Delete, Delete, Delete],
        vec![Buffered, Buffered, Buffered, Sync, Buffered, Append],
        vec![Append, Rotate, Append, Rotate, Append],
        vec![Append, Compact, Append],
        vec![Append, Compact, Append, Compact, Compact, Append, Compact],
        vec![Keyed, Batch, Delete, Compact, Keyed, Delete, Compact],
        vec![Append, Export, Open, Append, Export],
        vec![Buffered, Kill(None), Append, Buffered, Rotate],
        vec![Buffered, Buffered, Compact, Kill(None), Append],
        vec![Append, Kill(Some(3)), Append, Append],
        vec![Compact, Kill(Some(9)), Append, Compact],
    ]
}

/// The ways in which logs are opened.
pub(crate) const SETUPS: [Setup; 4] = [
    Setup {
        preallocate_bytes: 0,
        segment_bytes_max: 1 << 20,
        share_memory: true,
    },
    Setup {
        preallocate_bytes: 1 << 10,
        segment_bytes_max: 1 << 20,
        share_memory: true,
    },
    Setup {
        preallocate_bytes: 1 << 10,
        segment_bytes_max: 900,
        share_memory: true,
    },
    Setup {
        preallocate_bytes: 1 << 10,
        segment_bytes_max: 900,
        share_memory: false,
    },
];

/// A workload that is drawn.
fn random_case(rng: &mut StdRng) -> Case {
    let any_op = |rng: &mut StdRng| {
        let drawn = Op::ALL.get(rng.random_range(0..Op::ALL.len()));
        match drawn.copied().unwrap_or(Op::Append) {
            Op::Kill(_) if rng.random() => Op::Kill(Some(rng.random_range(0..24))),
            op => op,
        }
    };
    let ops = (0..rng.random_range(3..9)).map(|_| any_op(rng)).collect();
    let size_of = |rng: &mut StdRng, sizes: [u64; 3]| {
        let drawn = sizes.get(rng.random_range(0..sizes.len()));
        drawn.copied().unwrap_or(0)
    };
    let mut case = Case {
        setup: Setup {
            preallocate_bytes: size_of(rng, [0, 100, 1 << 10]),
            segment_bytes_max: size_of(rng, [400, 900, 1 << 20]),
            share_memory: rng.random_range(0..4) > 0,
        },
        ops,
        faults: Vec::new(),
        seed: rng.random(),
    };
    for _ in 0..rng.random_range(0..4_u32) {
        let faults: Vec<FaultAt> = changing_calls(&case)
            .into_iter()
            .map(|(call, kind)| any_fault(rng, call, kind))
            .collect();
        let drawn = faults.get(rng.random_range(0..faults.len().max(1)));
        case.faults.extend(drawn);
    }
    case
}

/// The calls of a workload that change something. With few exceptions, a fault there changes what
/// is stored.
fn changing_calls(case: &Case) -> Vec<(u64, Call)> {
    let calls = (0..).zip(calls_of(case));
    calls
        .filter(|(_, kind)| Fault::Lies(Errno::Eio).applies_to(*kind))
        .collect()
}

fn any_fault(rng: &mut StdRng, call: u64, kind: Call) -> FaultAt {
    let errno = if rng.random() {
        Errno::Eio
    } else {
        Errno::Enospc
    };
    let short = Short::ALL.get(rng.random_range(0..Short::ALL.len()));
    let drawn = match rng.random_range(0..4) {
        0 | 1 => Fault::Fails(errno),
        2 => Fault::Short(short.copied().unwrap_or(Short::Half)),
        _ => Fault::Lies(errno),
    };
    let fault = Some(drawn)
        .filter(|fault| fault.applies_to(kind))
        .unwrap_or(Fault::Fails(errno));
    // Writing all byte by byte would make more states than can be looked at.
    let may_last = !matches!(fault, Fault::Short(_));
    let reach = if may_last && rng.random_range(0..8) == 0 {
        Reach::Kind
    } else {
        Reach::Once
    };
    FaultAt { call, fault, reach }
}

/// Workloads in which one call that changes something fails.
fn faulty_workloads(seed: u64) -> Vec<Case> {
    use Op::{Append, Batch, Buffered, Compact, Keyed, Open, Rotate};
    let workloads = [
        vec![Append, Batch, Append],
        vec![Buffered, Keyed, Buffered, Append],
        vec![Append, Rotate, Append],
        vec![Append, Compact, Append, Open],
    ];
    let mut cases = Vec::new();
    for (ops, setup) in workloads.into_iter().zip(SETUPS.iter().cycle().skip(1)) {
        let case = Case {
            setup: *setup,
            ops,
            faults: Vec::new(),
            seed,
        };
        for (call, kind) in changing_calls(&case) {
            for fault in [Fault::Fails(Errno::Eio), Fault::Short(Short::AllButOne)] {
                if fault.applies_to(kind) {
                    let reach = Reach::Once;
                    let faults = vec![FaultAt { call, fault, reach }];
                    cases.push(Case {
                        faults,
                        ..case.clone()
                    });
                }
            }
        }
    }
    cases
}

/// Runs the tier.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let started = Instant::now();
    let mut examiner = Examiner::new("T2", Effort::FULL);
    examiner.counts.distinct = Arc::clone(&budget.tried);
    let mut fixed = Vec::new();
    for (index, ops) in fixed_workloads().into_iter().enumerate() {
        for setup in SETUPS {
            fixed.push(Case {
                setup,
                ops: ops.clone(),
                faults: Vec::new(),
                seed: budget.seed.wrapping_add(index as u64),
            });
        }
    }
    fixed.extend(faulty_workloads(budget.seed));
    let work = |(): &mut (), number: usize| {
        if examiner.is_full() || budget.is_over(started) {
            return ControlFlow::Break(());
        }
        let mut rng = StdRng::seed_from_u64(budget.seed ^ (number as u64) << 32);
        match fixed.get(number) {
            Some(case) => examiner.examine(case, None),
            None => examiner.examine(&random_case(&mut rng), None),
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, 0.., || (), work);
    examiner.tally()
}

/// Replays one case: that of a finding, with or without its moment.
#[must_use]
pub fn replay(_budget: &Budget, text: &str) -> Tally {
    replay_as("T2", text)
}

/// Like [`replay`], for a tier that examines, too.
pub(crate) fn replay_as(tier: &'static str, text: &str) -> Tally {
    let (case, at) = match text.rsplit_once('/') {
        Some((case, at)) if at.contains('.') => (case, At::parse(at)),
        _ => (text, None),
    };
    let examiner = Examiner::new(tier, Effort::FULL);
    match case.parse::<Case>() {
        Ok(case) => {
            examiner.examine(&case, at);
            examiner.tally()
        }
        Err(error) => examiner.tally().stopped(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_finds_nothing_in_many_distinct_states() {
        let tally = run(&Budget::quick(1, 2.0));
        assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
        assert!(tally.cases > 300, "{tally:?}");
        assert!(
            tally.counts.iter().all(|(_, count)| *count > 0),
            "{tally:?}"
        );
    }

    #[test]
    fn a_state_is_examined_once() {
        let examiner = Examiner::new("T2", Effort::FULL);
        let case: Case = "1024-900/append//1".parse().unwrap();
        examiner.examine(&case, None);
        let once = examiner.counts.distinct.load(Ordering::Relaxed);
        assert!(once > 50);
        examiner.examine(&case, None);
        assert_eq!(examiner.counts.distinct.load(Ordering::Relaxed), once);
        let at = At {
            moment: 20,
            state: None,
        };
        examiner.examine(&case, Some(at));
        assert!(examiner.findings.lock().unwrap().is_empty());
    }

    /// A disk whose log has lost an acknowledged record is found, kept, and can be done again.
    #[test]
    fn a_lost_record_is_found_kept_and_replayed() {
        let examiner = Examiner::new("T2", Effort::FULL);
        let case: Case = "0-1048576/append//1".parse().unwrap();
        let Performed {
            moments, ledgers, ..
        } = perform(&case);
        let (lost, whole) = (moments.iter().find(|one| one.position == 2), moments.last());
        let (lost, whole) = (lost.unwrap(), whole.unwrap());
        let place = Place {
            case: &case,
            number: Some(7),
            moment: lost,
            ledger: &ledgers[whole.position],
            pages: &[],
            durable_seq: 0,
            kinds: &[],
        };
        assert!(!examiner.examine_moment(&place, &mut Oracle::default(), None));
        let findings = examiner.findings.lock().unwrap();
        let finding = &findings[0];
        assert!(
            finding.what.contains("op-1 was answered Acknowledged"),
            "{}",
            finding.what
        );
        assert!(
            finding
                .replay
                .contains("--tier T2 --replay 0-1048576/append//1/7.")
        );
        let kept = finding.kept.as_deref().unwrap();
        assert!(kept.join("MANIFEST").exists());
        std::fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_case_is_replayed_as_a_whole_or_at_one_moment_and_nonsense_is_refused() {
        let whole = replay(&Budget::quick(1, 0.0), "1024-900/append,compact//1");
        let one = replay(&Budget::quick(1, 0.0), "1024-900/append,compact//1/40.0");
        assert!(whole.violations.is_empty() && one.violations.is_empty());
        assert!(whole.cases > 100 && one.cases <= 1, "{whole:?} {one:?}");
        let nonsense = replay(&Budget::quick(1, 0.0), "nonsense");
        assert!(nonsense.environment.is_some());
    }
}
