//! The report of a run: JSON for programs, a short table for people.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::evidence::checks::Check;
use crate::evidence::ledger::{Ledger, Outcome};
use crate::evidence::oracle;
use crate::evidence::timeline::{Course, Timeline};
use crate::evidence::verdict::Verdict;
use crate::evidence::violation::Violation;
use crate::report::machine::Machine;
use crate::report::metrics::{self, BystandersReport, ConditionsReport};
use crate::report::page::plot::Unit;
use crate::report::quantiles::{
    Durations, Quantiles, Share, count, distribution, durations, micros, quantiles, ratio,
};
use crate::report::text::{columns, json};
use crate::run::config::Config;
use crate::run::judgement::Judgement;
use crate::run::runner::Hang;

/// The version of the JSON report.
pub const SCHEMA: u32 = 1;
/// Metrics of the lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LockReport {
    /// Most simultaneous holders, by either measurement.
    pub max_holders: u64,
    /// Acquisitions, by its own counters. A killed process has reported those of its completed
    /// operations.
    pub acquisitions: u64,
    /// Acquisitions that had to wait.
    pub contended: u64,
    /// Waiting times, by its own counters.
    pub wait_us: Durations,
    /// Holding times, by the intervals that the agents noted.
    pub hold_us: Durations,
}

/// Metrics of one agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentReport {
    /// The agent.
    pub agent: u32,
    /// Number of its processes.
    pub processes: u64,
    /// Acknowledged operations.
    pub acknowledged: u64,
    /// Rejected operations.
    pub rejected: u64,
    /// Refused operations.
    pub refused: u64,
    /// Operations whose outcome is unknown.
    pub unknown: u64,
    /// From the start to its last answer.
    pub completed_ms: f64,
    /// Its slowest acknowledged operation.
    pub longest_append_us: f64,
    /// Total time from its calls until it held the lock.
    pub waited_ms: f64,
    /// How often it held the lock. Here and below, the unreported work of killed processes is
    /// missing.
    pub holds: u64,
    /// Total time for which it held the lock.
    pub held_ms: f64,
    /// Syncs that it led.
    pub led: u64,
}

/// How evenly the agents got the lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Starvation {
    /// When the first agent was done.
    pub fastest_ms: f64,
    /// When the last one was.
    pub slowest_ms: f64,
    /// Their quotient.
    pub slowest_to_fastest: f64,
    /// The slowest operation.
    pub longest_append_us: f64,
    /// The longest wait for the lock.
    pub longest_lock_wait_us: f64,
}

/// Several runs with the same flags.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Iterations {
    /// Runs so far.
    pub completed: u32,
    /// Their acknowledged operations.
    pub acknowledged: u64,
    /// Their processes that were killed.
    pub killed: u64,
    /// Their median time.
    pub elapsed_ms_median: f64,
    /// Their longest time.
    pub elapsed_ms_max: f64,
}

/// Everything about one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The configuration, with the seed.
    pub config: Config,
    /// The machine.
    pub machine: Machine,
    /// The verdict.
    pub verdict: Verdict,
    /// Operations that the log acknowledged.
    pub acknowledged: u64,
    /// Operations that it rejected.
    pub rejected: u64,
    /// Operations in doubt.
    pub unknown: u64,
    /// Records in the store.
    pub stored: u64,
    /// From the start to the last answer.
    pub elapsed_ms: f64,
    /// Acknowledged operations per second of that time.
    pub appends_per_second: f64,
    /// Latency of acknowledged operations.
    pub append_us: Quantiles,
    /// The distribution of that latency.
    pub append_distribution: Vec<Share>,
    /// Metrics of the lock.
    pub lock: LockReport,
    /// Metrics of each agent.
    pub per_agent: Vec<AgentReport>,
    /// How evenly they got the lock.
    pub starvation: Starvation,
    /// Processes started.
    pub processes: u64,
    /// Processes killed, at random or at a failpoint.
    pub killed: u64,
    /// Kills by failpoint.
    pub killed_at: BTreeMap<String, u64>,
    /// Kills by failpoint of processes that were still opening the store.
    pub killed_opening_at: BTreeMap<String, u64>,
    /// Kills by role.
    pub killed_roles: BTreeMap<&'static str, u64>,
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
    /// The reads that were compared with the store.
    pub views: u64,
    /// Operations that were refused, since a condition did not hold.
    pub refused: u64,
    /// Metrics of writes with conditions.
    pub conditions: ConditionsReport,
    /// Metrics of readers, followers and compactors.
    pub bystanders: BystandersReport,
    /// The comparisons of the oracle, point by point; empty if the run did not end.
    pub checks: Vec<Check>,
    /// The timeline.
    pub timeline: Timeline,
    /// Everything that is wrong, with its evidence.
    pub violations: Vec<Violation>,
    /// Failures outside the log.
    pub environment_errors: Vec<String>,
    /// The state of all processes, if the run did not end.
    pub hang: Option<Hang>,
    /// The beginning of the agents' standard error.
    pub agents_stderr: String,
    /// Where the store is, if it was kept.
    pub store: Option<PathBuf>,
    /// The line that repeats the run.
    pub replay: String,
    /// PASS or FAIL in one line.
    #[serde(skip)]
    pub verdict_line: String,
    /// The evidence of a failure, and how to repeat it.
    #[serde(skip)]
    pub failure_details: String,
    /// This run and those before it.
    pub iterations: Iterations,
}

impl Report {
    /// The report of a run that was judged.
    #[must_use]
    pub fn new(judgement: &Judgement) -> Report {
        let (config, gathered) = (&judgement.config, &judgement.gathered);
        let (ledger, go_ns) = (&gathered.ledger, gathered.go_ns);
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
        Report {
            schema: SCHEMA,
            config: config.clone(),
            machine: Machine::of(&config.parent_dir()),
            verdict: judgement.verdict(),
            acknowledged,
            rejected,
            unknown,
            stored: judgement.stored,
            elapsed_ms,
            appends_per_second: ratio(count(acknowledged) * 1_000.0, elapsed_ms),
            append_us: quantiles(ledger.append_ns.iter().map(|(_, ns)| *ns)),
            append_distribution: distribution(ledger.append_ns.iter().map(|(_, ns)| *ns)),
            lock: lock_report(ledger),
            starvation: starvation(&per_agent, ledger),
            per_agent,
            processes: gathered.spawned,
            killed: gathered.killed,
            killed_at: ledger.killed_at.clone(),
            killed_opening_at: ledger.killed_opening_at.clone(),
            killed_roles: judgement.killed_roles(),
            stopped: gathered.stopped,
            torn: gathered.torn,
            forgotten: gathered.forgotten,
            displaced: gathered.displaced,
            moved: gathered.moved,
            views: ledger.views.len() as u64,
            refused,
            conditions: metrics::conditions(ledger),
            bystanders: metrics::bystanders(ledger, &judgement.journals, judgement.stored),
            checks: judgement.checks.clone(),
            timeline: timeline.unwrap_or_default(),
            violations: judgement.violations.clone(),
            environment_errors: ledger.environment_errors.clone(),
            hang: gathered.hang.clone(),
            agents_stderr: judgement.agents_stderr.clone(),
            store: judgement.store.clone(),
            replay: config.replay_line(),
            verdict_line: judgement.verdict_line(),
            failure_details: judgement.failure_details(),
            iterations: Iterations {
                completed: 1,
                acknowledged,
                killed: gathered.killed,
                elapsed_ms_median: elapsed_ms,
                elapsed_ms_max: elapsed_ms,
            },
        }
    }

    /// The report as JSON with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// The metrics as a short table, with a newline after each line.
    #[must_use]
    pub fn table(&self) -> String {
        let us = |us: f64| Unit::Microseconds.text(us);
        let append = self.append_us;
        let lock = self.lock;
        let holders = if lock.max_holders == 1 {
            "holder"
        } else {
            "holders"
        };
        let mean_max = |d: Durations| format!("{} mean, {} max", us(d.mean), us(d.max));
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
                "append       {} p50, {} p90, {} p99, {} p99.9, {} max",
                us(append.p50),
                us(append.p90),
                us(append.p99),
                us(append.p999),
                us(append.max)
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
        if self.stopped + self.torn + self.forgotten + self.displaced + self.moved > 0 {
            rows.push(format!(
                "also         {} stopped for a while, {} torn tails, hints deleted {} times, \
                 {} files displaced, store moved away {} times",
                self.stopped, self.torn, self.forgotten, self.displaced, self.moved
            ));
        }
        rows.join("\n") + "\n"
    }

    /// How evenly the agents got the lock, with a newline after each line.
    #[must_use]
    pub fn starvation_table(&self) -> String {
        let us = |us: f64| Unit::Microseconds.text(us);
        let head = ["agent", "acknowledged", "completed", "longest append"];
        let agents = self.per_agent.iter().map(|agent| {
            [
                agent.agent.to_string(),
                agent.acknowledged.to_string(),
                us(agent.completed_ms * 1e3),
                us(agent.longest_append_us),
            ]
        });
        let rows = std::iter::once(head.map(str::to_owned)).chain(agents);
        let s = self.starvation;
        columns(rows, &[1, 2, 3])
            + &format!(
                "starvation   slowest to fastest {:.2} ({} / {}), longest append {}, longest lock \
                 wait {}\n",
                s.slowest_to_fastest,
                us(s.slowest_ms * 1e3),
                us(s.fastest_ms * 1e3),
                us(s.longest_append_us),
                us(s.longest_lock_wait_us)
            )
    }
}

/// The combined metrics of several runs, from their times and the sums of the others.
#[must_use]
pub fn iterations(elapsed_ms: &[f64], acknowledged: u64, killed: u64) -> Iterations {
    let mut sorted = elapsed_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    Iterations {
        completed: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
        acknowledged,
        killed,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_have_a_median_and_a_maximum() {
        let together = iterations(&[3.0, 1.0, 2.0], 30, 2);
        assert_eq!(
            together,
            Iterations {
                completed: 3,
                acknowledged: 30,
                killed: 2,
                elapsed_ms_median: 2.0,
                elapsed_ms_max: 3.0
            }
        );
    }
}
