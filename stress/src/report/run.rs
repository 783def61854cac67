//! The report of a run: as JSON for programs, as a short table for people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::evidence::checks::Check;
use crate::evidence::ledger::{End, Ledger, Outcome};
use crate::evidence::observations::Journal;
use crate::evidence::oracle;
use crate::evidence::timeline::{Course, Timeline};
use crate::evidence::violation::Violation;
use crate::report::machine::Machine;
use crate::report::metrics::{self, BystandersReport, ConditionsReport};
use crate::report::text::columns;
use crate::run::config::{Config, Mode, TIMEOUT_S_MAX, Workload};
use crate::run::runner::Hang;

/// The version of the JSON report's form.
pub const SCHEMA: u32 = 1;
/// How many violations of each kind a person is shown; the JSON report has them all.
const VIOLATIONS_SHOWN: usize = 4;
/// How many lines of what the agents said a person is shown.
const STDERR_LINES_SHOWN: usize = 20;
/// Where a distribution of durations is looked at.
pub const SHARES: [f64; 11] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0,
];
const EXIT_PASS: u8 = 0;
const EXIT_VIOLATED: u8 = 1;
const EXIT_HANG: u8 = 3;
const EXIT_ENVIRONMENT: u8 = 4;

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every invariant holds.
    Pass,
    /// At least one does not.
    Violated,
    /// The run did not end.
    Hang,
    /// Something outside the log stopped it.
    Environment,
}

impl Verdict {
    /// The exit status of the harness.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Verdict::Pass => EXIT_PASS,
            Verdict::Violated => EXIT_VIOLATED,
            Verdict::Hang => EXIT_HANG,
            Verdict::Environment => EXIT_ENVIRONMENT,
        }
    }

    /// The exit status, where not everything could be `written` that was asked for.
    #[must_use]
    pub fn exit_status_when(self, written: bool) -> u8 {
        match self {
            Verdict::Pass if !written => EXIT_ENVIRONMENT,
            verdict => verdict.exit_status(),
        }
    }
}

/// A distribution of durations in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A point of a distribution: a share of the durations is at most so long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Share {
    /// From 0, the shortest, to 1, the longest.
    pub share: f64,
    /// How long.
    pub us: f64,
}

/// Durations of one kind, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Durations {
    /// Together.
    pub total: f64,
    /// On average.
    pub mean: f64,
    /// The longest.
    pub max: f64,
}

/// How the lock did its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LockReport {
    /// The most that held it at one time, by either measurement.
    pub max_holders: u64,
    /// How often it was taken, by its own counters. A killed process reports those of its
    /// completed operations.
    pub acquisitions: u64,
    /// How many of them had to wait.
    pub contended: u64,
    /// Waiting for it, by its own counters.
    pub wait_us: Durations,
    /// Holding it, by the intervals that the agents noted.
    pub hold_us: Durations,
}

/// What one agent got done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentReport {
    /// The agent.
    pub agent: u32,
    /// Processes it took.
    pub processes: u64,
    /// Acknowledged operations.
    pub acknowledged: u64,
    /// Rejected operations.
    pub rejected: u64,
    /// Refused operations.
    pub refused: u64,
    /// Operations whose outcome is unknown.
    pub unknown: u64,
    /// From the barrier to its last acknowledgement.
    pub completed_ms: f64,
    /// Its slowest acknowledged operation.
    pub longest_append_us: f64,
    /// From its calls until it held the lock, together.
    pub waited_ms: f64,
    /// How often it held the lock. What a killed process had not reported is missing here and below.
    pub holds: u64,
    /// How long, together.
    pub held_ms: f64,
    /// Syncs that it led for all who waited.
    pub led: u64,
}

/// How evenly the agents were served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Starvation {
    /// When the first agent was done.
    pub fastest_ms: f64,
    /// When the last one was.
    pub slowest_ms: f64,
    /// The second by the first.
    pub slowest_to_fastest: f64,
    /// The longest that a single operation took.
    pub longest_append_us: f64,
    /// The longest that anybody waited for the lock.
    pub longest_lock_wait_us: f64,
}

/// Runs with one set of flags, together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Iterations {
    /// Runs so far.
    pub completed: u32,
    /// Acknowledged operations of them all.
    pub acknowledged: u64,
    /// The median of their times.
    pub elapsed_ms_median: f64,
    /// The longest of their times.
    pub elapsed_ms_max: f64,
}

/// Everything about one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// All of it, the seed included.
    pub config: Config,
    /// What it ran on.
    pub machine: Machine,
    /// What came of it.
    pub verdict: Verdict,
    /// Operations that the log acknowledged.
    pub acknowledged: u64,
    /// Operations that it rejected.
    pub rejected: u64,
    /// Operations whose outcome nobody was told.
    pub unknown: u64,
    /// Records in the store.
    pub stored: u64,
    /// From the barrier to the last acknowledgement.
    pub elapsed_ms: f64,
    /// Acknowledged operations by that time.
    pub appends_per_second: f64,
    /// How long acknowledged operations took.
    pub append_us: Quantiles,
    /// The whole of it, from the shortest to the longest.
    pub append_distribution: Vec<Share>,
    /// How the lock did its work.
    pub lock: LockReport,
    /// Each agent.
    pub per_agent: Vec<AgentReport>,
    /// How evenly they were served.
    pub starvation: Starvation,
    /// Processes started.
    pub processes: u64,
    /// Processes killed, by chance or at a point.
    pub killed: u64,
    /// How often a process was killed at which point of the log's protocol.
    pub killed_at: BTreeMap<String, u64>,
    /// How many of those were opening the store.
    pub killed_opening_at: BTreeMap<String, u64>,
    /// How many processes of each role were killed, by chance or at a point.
    pub killed_roles: BTreeMap<&'static str, u64>,
    /// How often a process was stopped for a while.
    pub stopped: u64,
    /// How often half a record was left behind the log.
    pub torn: u64,
    /// How often the hints were deleted.
    pub forgotten: u64,
    /// The reads that were compared with the store.
    pub views: u64,
    /// Operations that were refused, since a condition did not hold.
    pub refused: u64,
    /// What became of writes with conditions.
    pub conditions: ConditionsReport,
    /// What readers, followers and compactors did.
    pub bystanders: BystandersReport,
    /// What was compared with what, point by point; nothing where a run did not end.
    pub checks: Vec<Check>,
    /// What happened when.
    pub timeline: Timeline,
    /// What is wrong, with the evidence.
    pub violations: Vec<Violation>,
    /// What stopped the run from outside the log.
    pub environment_errors: Vec<String>,
    /// What everybody was doing, if the run did not end.
    pub hang: Option<Hang>,
    /// The beginning of what the agents said on standard error.
    pub agents_stderr: String,
    /// Where the store is, if it was kept.
    pub store: Option<PathBuf>,
    /// The line that repeats the run.
    pub replay: String,
    /// This run and those before it.
    pub iterations: Iterations,
}

/// What a report is made from.
pub(crate) struct Facts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) machine: Machine,
    pub(crate) ledger: &'a Ledger,
    pub(crate) journals: &'a [Journal],
    pub(crate) go_ns: Option<u64>,
    pub(crate) stored: u64,
    pub(crate) spawned: u64,
    pub(crate) killed: u64,
    pub(crate) stopped: u64,
    pub(crate) torn: u64,
    pub(crate) forgotten: u64,
    pub(crate) checks: Vec<Check>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) hang: Option<Hang>,
}

impl Report {
    pub(crate) fn new(facts: Facts<'_>) -> Report {
        let Facts {
            config,
            machine,
            ledger,
            journals,
            go_ns,
            stored,
            spawned,
            killed,
            stopped,
            torn,
            forgotten,
            checks,
            violations,
            hang,
        } = facts;
        let since_go_ms =
            |at_ns: u64| micros(at_ns.saturating_sub(go_ns.unwrap_or(at_ns))) / 1_000.0;
        let courses = Course::all(ledger);
        let timeline = go_ns.map(|go_ns| {
            Timeline::new(
                (config.agents, config.compacting()),
                ledger,
                &courses,
                go_ns,
            )
        });
        let per_agent = per_agent(config, ledger, &courses, since_go_ms);
        let elapsed_ms = per_agent
            .iter()
            .map(|agent| agent.completed_ms)
            .fold(0.0, f64::max);
        let sum = |count: fn(&AgentReport) -> u64| per_agent.iter().map(count).sum::<u64>();
        let (acknowledged, refused, rejected, unknown) = (
            sum(|agent| agent.acknowledged),
            sum(|agent| agent.refused),
            sum(|agent| agent.rejected),
            sum(|agent| agent.unknown),
        );
        let verdict = if hang.is_some() {
            Verdict::Hang
        } else if !violations.is_empty() {
            Verdict::Violated
        } else if !ledger.environment_errors.is_empty() {
            Verdict::Environment
        } else {
            Verdict::Pass
        };
        Report {
            schema: SCHEMA,
            config: config.clone(),
            machine,
            verdict,
            acknowledged,
            rejected,
            unknown,
            stored,
            elapsed_ms,
            appends_per_second: ratio(count(acknowledged) * 1_000.0, elapsed_ms),
            append_us: quantiles(ledger.append_ns.iter().map(|(_, ns)| *ns)),
            append_distribution: distribution(ledger.append_ns.iter().map(|(_, ns)| *ns)),
            lock: lock_report(ledger),
            starvation: starvation(&per_agent, ledger),
            per_agent,
            processes: spawned,
            killed,
            killed_at: ledger.killed_at.clone(),
            killed_opening_at: ledger.killed_opening_at.clone(),
            killed_roles: killed_roles(ledger),
            stopped,
            torn,
            forgotten,
            views: ledger.views.len() as u64,
            refused,
            conditions: metrics::conditions(ledger),
            bystanders: metrics::bystanders(ledger, journals, stored),
            checks,
            timeline: timeline.unwrap_or_default(),
            violations,
            environment_errors: ledger.environment_errors.clone(),
            hang,
            agents_stderr: String::new(),
            store: None,
            replay: config.replay_line(),
            iterations: Iterations {
                completed: 1,
                acknowledged,
                elapsed_ms_median: elapsed_ms,
                elapsed_ms_max: elapsed_ms,
            },
        }
    }

    /// The report as JSON with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.map_or_else(
            |error| format!("{{\"error\":\"{error}\"}}\n"),
            |json| json + "\n",
        )
    }

    /// The figures as a short table, with a newline after each line.
    #[must_use]
    pub fn table(&self) -> String {
        let Quantiles {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self.append_us;
        let lock = self.lock;
        let holders = if lock.max_holders == 1 {
            "holder"
        } else {
            "holders"
        };
        let mean_max = |d: Durations| format!("{:.1} us mean, {:.0} max", d.mean, d.max);
        let rows = [
            format!(
                "operations   {} acknowledged, {} refused, {} rejected, {} unknown; {} stored",
                self.acknowledged, self.refused, self.rejected, self.unknown, self.stored
            ),
            format!(
                "processes    {} started, {} killed",
                self.processes, self.killed
            ),
            format!(
                "elapsed      {:.2} ms, {:.0} appends/s",
                self.elapsed_ms, self.appends_per_second
            ),
            format!(
                "append       {p50:.0} us p50, {p90:.0} p90, {p99:.0} p99, {p999:.0} p99.9, {max:.0} max"
            ),
            format!(
                "lock         {} {holders} at most, {} acquisitions, {} contended",
                lock.max_holders, lock.acquisitions, lock.contended
            ),
            format!("lock wait    {}", mean_max(lock.wait_us)),
            format!("lock hold    {}", mean_max(lock.hold_us)),
            format!("reads        {} compared with the store", self.views),
        ];
        let killed_at = self
            .killed_at
            .iter()
            .map(|(point, times)| format!("{point} {times}"));
        let killed_at = killed_at.collect::<Vec<_>>().join(", ");
        let mut rows = rows.to_vec();
        rows.extend(metrics::rows(&self.bystanders, &self.conditions));
        if !killed_at.is_empty() {
            rows.push(format!("killed at    {killed_at}"));
        }
        if self.stopped + self.torn + self.forgotten > 0 {
            rows.push(format!(
                "also         {} stopped for a while, {} torn tails, hints deleted {} times",
                self.stopped, self.torn, self.forgotten
            ));
        }
        rows.join("\n") + "\n"
    }

    /// How evenly the agents were served, with a newline after each line.
    #[must_use]
    pub fn starvation_table(&self) -> String {
        let head = ["agent", "acknowledged", "completed ms", "longest append us"];
        let agents = self.per_agent.iter().map(|agent| {
            [
                agent.agent.to_string(),
                agent.acknowledged.to_string(),
                format!("{:.2}", agent.completed_ms),
                format!("{:.0}", agent.longest_append_us),
            ]
        });
        let rows = std::iter::once(head.map(str::to_owned)).chain(agents);
        let s = self.starvation;
        columns(rows, &[1, 2, 3])
            + &format!(
                "starvation   slowest to fastest {:.2} ({:.2} / {:.2} ms), longest append {:.0} us, \
             longest lock wait {:.0} us\n",
                s.slowest_to_fastest,
                s.slowest_ms,
                s.fastest_ms,
                s.longest_append_us,
                s.longest_lock_wait_us
            )
    }

    /// PASS or FAIL in one line.
    #[must_use]
    pub fn verdict_line(&self) -> String {
        let many = self.violations.len();
        match self.verdict {
            Verdict::Pass => format!(
                "PASS: {} acknowledged, {} stored, every invariant holds (seed {}, {:.2} ms)",
                self.acknowledged, self.stored, self.config.seed, self.elapsed_ms
            ),
            Verdict::Violated => {
                format!("FAIL: {many} violation{}", if many == 1 { "" } else { "s" })
            }
            Verdict::Hang => format!("FAIL: hang, not done after {} s", self.config.timeout_s),
            Verdict::Environment => "FAIL: the environment stopped the run".to_owned(),
        }
    }

    /// What a person needs to go after a failure: the evidence, the seed and the whole
    /// configuration, where the store is, and the line that repeats the run.
    #[must_use]
    pub fn failure_details(&self) -> String {
        let mut lines = violation_lines(&self.violations);
        lines.extend(
            self.environment_errors
                .iter()
                .take(VIOLATIONS_SHOWN)
                .map(|e| format!("  {e}")),
        );
        if let Some(hang) = &self.hang {
            lines.extend(hang.agents.iter().map(|state| {
                format!(
                    "  agent {} (pid {}): {}",
                    state.agent, state.pid, state.doing
                )
            }));
            lines.extend(hang.others.iter().map(|other| format!("  {other}")));
            let holder = hang.lock_holder.as_deref().unwrap_or("nobody known");
            lines.push(format!("  lock held by {holder}"));
            lines.push(format!("  {} processes killed and reaped", hang.reaped));
        }
        if !self.agents_stderr.is_empty() {
            lines.push("agents said".to_owned());
            let said = self.agents_stderr.lines().take(STDERR_LINES_SHOWN);
            lines.extend(said.map(|line| format!("  {line}")));
        }
        lines.push(failure_trailer(&self.config, self.store.as_deref()));
        lines.join("\n") + "\n"
    }
}

/// Writes a report to the file that was asked for, if one was; `false`, and said so, when that failed.
#[must_use]
pub fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> bool {
    let written = path.map(|path| std::fs::write(path, text()).map_err(|error| (path, error)));
    if let Some(Err((path, error))) = written {
        eprintln!("strand-stress: cannot write {}: {error}", path.display());
        return false;
    }
    true
}

/// The violations, the first few of each kind.
fn violation_lines(violations: &[Violation]) -> Vec<String> {
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    for violation in violations {
        let line = violation.to_string();
        let kind = line.split(':').next().unwrap_or_default().to_owned();
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, lines)) => lines.push(line),
            None => kinds.push((kind, vec![line])),
        }
    }
    let mut shown = Vec::new();
    for (kind, lines) in kinds {
        shown.extend(
            lines
                .iter()
                .take(VIOLATIONS_SHOWN)
                .map(|line| format!("  {line}")),
        );
        if let more @ 1.. = lines.len().saturating_sub(VIOLATIONS_SHOWN) {
            shown.push(format!("  {kind}: {more} more, all in the report"));
        }
    }
    shown
}

/// The seed, the configuration, the place of the store and the replay line.
#[must_use]
pub fn failure_trailer(config: &Config, store: Option<&std::path::Path>) -> String {
    let store = store.map_or("nothing was stored".to_owned(), |path| {
        path.display().to_string()
    });
    let json = serde_json::to_string(config).unwrap_or_default();
    let seed = config.seed;
    let replay = config.replay_line();
    format!("seed         {seed}\nconfig       {json}\nstore        {store}\nreplay       {replay}")
}

/// What a run is about to do, on one line.
#[must_use]
pub fn headline(config: &Config) -> String {
    let mode = match (config.mode, config.one_shot) {
        (Mode::Thread, _) => "threads of one process",
        (Mode::Process, true) if config.via_cli => "a `strand append` for each write",
        (Mode::Process, true) => "a process for each write",
        (Mode::Process, false) => "processes",
    };
    let json = serde_json::to_string(config).unwrap_or_default();
    let (seed, agents) = (config.seed, config.agents);
    let writes = match config.workload {
        Workload::Replay => "by the events of the file".to_owned(),
        _ => format!("x {} writes", config.writes),
    };
    format!("strand-stress: seed {seed}, {agents} agents {writes}, {mode}\nconfig       {json}")
}

/// The combined figures of several runs, from their elapsed times and the sum of their operations.
#[must_use]
pub fn iterations(elapsed_ms: &[f64], acknowledged: u64) -> Iterations {
    let mut sorted = elapsed_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    Iterations {
        completed: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
        acknowledged,
        elapsed_ms_median: sorted.get(sorted.len() / 2).copied().unwrap_or(0.0),
        elapsed_ms_max: sorted.last().copied().unwrap_or(0.0),
    }
}

fn per_agent(
    config: &Config,
    ledger: &Ledger,
    courses: &BTreeMap<u32, Course>,
    since_go_ms: impl Fn(u64) -> f64,
) -> Vec<AgentReport> {
    let of_course = |agent, course: &Course| AgentReport {
        agent,
        waited_ms: micros(course.waited_ns()) / 1_000.0,
        holds: course.holds(),
        held_ms: micros(course.held_ns()) / 1_000.0,
        led: course.leads(),
        ..AgentReport::default()
    };
    let nothing = Course::default();
    let mut agents: Vec<AgentReport> = (0..config.agents)
        .map(|agent| of_course(agent, courses.get(&agent).unwrap_or(&nothing)))
        .collect();
    for operation in &ledger.operations {
        let Some(report) = agents.get_mut(operation.agent as usize) else {
            continue;
        };
        match operation.outcome {
            Outcome::Acknowledged { ack_ns, .. } => {
                report.acknowledged += 1;
                report.completed_ms = report.completed_ms.max(since_go_ms(ack_ns));
            }
            Outcome::Refused { end_ns, .. } => {
                report.refused += 1;
                report.completed_ms = report.completed_ms.max(since_go_ms(end_ns));
            }
            Outcome::Rejected { .. } => report.rejected += 1,
            Outcome::Unknown { .. } => report.unknown += 1,
        }
    }
    for &(agent, ns) in &ledger.append_ns {
        if let Some(report) = agents.get_mut(agent as usize) {
            report.longest_append_us = report.longest_append_us.max(micros(ns));
        }
    }
    for agent in ledger
        .incarnations
        .iter()
        .flat_map(|incarnation| &incarnation.agents)
    {
        if let Some(report) = agents.get_mut(*agent as usize) {
            report.processes += 1;
        }
    }
    agents
}

fn killed_roles(ledger: &Ledger) -> BTreeMap<&'static str, u64> {
    let mut roles = BTreeMap::new();
    for incarnation in &ledger.incarnations {
        if incarnation.end == End::Killed {
            *roles.entry(incarnation.role).or_default() += 1;
        }
    }
    roles
}

fn starvation(agents: &[AgentReport], ledger: &Ledger) -> Starvation {
    let fastest_ms = agents
        .iter()
        .map(|agent| agent.completed_ms)
        .fold(f64::INFINITY, f64::min);
    let fastest_ms = if fastest_ms.is_finite() {
        fastest_ms
    } else {
        0.0
    };
    let slowest_ms = agents
        .iter()
        .map(|agent| agent.completed_ms)
        .fold(0.0, f64::max);
    Starvation {
        fastest_ms,
        slowest_ms,
        slowest_to_fastest: ratio(slowest_ms, fastest_ms),
        longest_append_us: agents
            .iter()
            .map(|agent| agent.longest_append_us)
            .fold(0.0, f64::max),
        longest_lock_wait_us: micros(ledger.counters.longest_wait_ns),
    }
}

fn lock_report(ledger: &Ledger) -> LockReport {
    let counters = ledger.counters;
    let held = ledger
        .holds
        .iter()
        .map(|hold| hold.to_ns.saturating_sub(hold.from_ns));
    let (total_ns, longest_ns) =
        held.fold((0, 0), |(total, longest), ns| (total + ns, ns.max(longest)));
    LockReport {
        max_holders: oracle::max_holders(ledger),
        acquisitions: counters.acquisitions,
        contended: counters.contended,
        wait_us: durations(
            counters.wait_ns,
            counters.acquisitions,
            counters.longest_wait_ns,
        ),
        hold_us: durations(total_ns, ledger.holds.len() as u64, longest_ns),
    }
}

fn durations(total_ns: u64, number: u64, longest_ns: u64) -> Durations {
    let total = micros(total_ns);
    Durations {
        total,
        mean: ratio(total, count(number)),
        max: micros(longest_ns),
    }
}

fn histogram(all_ns: impl Iterator<Item = u64>) -> Option<Histogram<u64>> {
    const SIGNIFICANT_DIGITS: u8 = 3;
    const LONGEST_NS: u64 = TIMEOUT_S_MAX * 1_000_000_000;
    let bounded = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
    let mut histogram = bounded.ok()?;
    for ns in all_ns {
        histogram.saturating_record(ns);
    }
    Some(histogram)
}

/// Nothing when there are no durations.
fn distribution(all_ns: impl Iterator<Item = u64>) -> Vec<Share> {
    let histogram = histogram(all_ns).filter(|histogram| !histogram.is_empty());
    let shares = |histogram: Histogram<u64>| {
        let at = |share| Share {
            share,
            us: micros(histogram.value_at_quantile(share)),
        };
        SHARES.map(at).to_vec()
    };
    histogram.map_or_else(Vec::new, shares)
}

pub(crate) fn quantiles(all_ns: impl Iterator<Item = u64>) -> Quantiles {
    let Some(histogram) = histogram(all_ns) else {
        return Quantiles::default();
    };
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    Quantiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max()),
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn micros(ns: u64) -> f64 {
    count(ns) / 1_000.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people; exact up to 2^53"
)]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_durations() {
        let q = quantiles((1..=1_000).map(|us| us * 1_000));
        for (found, expected) in [
            (q.p50, 500.0),
            (q.p90, 900.0),
            (q.p99, 990.0),
            (q.p999, 999.0),
            (q.max, 1_000.0),
        ] {
            assert!((found - expected).abs() <= 1.0, "{q:?}");
        }
        assert_eq!(quantiles(std::iter::empty()), Quantiles::default());
    }

    #[test]
    fn a_person_is_shown_some_of_each_kind() {
        let lost = |write| Violation::Lost {
            agent: 0,
            write,
            seq: 1,
            ack_ns: 2,
        };
        let mut violations: Vec<_> = (1..=9).map(lost).collect();
        violations.push(Violation::TwoHolders {
            agent: 0,
            other: 1,
            at_ns: 3,
        });
        let lines = violation_lines(&violations);
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert_eq!(lines[4], "  lost: 5 more, all in the report");
        assert_eq!(lines[5], "  two holders: agent=0 at_ns=3 other=1");
    }

    #[test]
    fn iterations_have_a_median_and_a_maximum() {
        let together = iterations(&[3.0, 1.0, 2.0], 30);
        assert_eq!(
            together,
            Iterations {
                completed: 3,
                acknowledged: 30,
                elapsed_ms_median: 2.0,
                elapsed_ms_max: 3.0
            }
        );
    }
}
