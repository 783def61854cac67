//! Agents that append at once, and what comes of it.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};
use strand_lock::monotonic_ns;

use crate::barrier::Barrier;
use crate::error::Result;
use crate::events;
use crate::mode::Mode;
use crate::process::{Appending, Member, Work, run_team};
use crate::runner::{Runner, new_dir};
use crate::schedule::Step;
use crate::statistics::quantile;
use crate::systems::Appender;
use crate::usage::Usage;

/// Events that one process decodes before it begins.
const EVENTS_MAX: usize = 2_000;
/// Latencies for which one process reserves memory before it begins.
const RESERVED_MAX: usize = 100_000;

/// The report of one agent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When the team was released, on the monotonic clock.
    pub(crate) released_ns: u64,
    /// When this process began its first append.
    pub(crate) began_ns: u64,
    /// Of each append, in order, one after the other.
    pub(crate) latencies_ns: Vec<u64>,
    /// From before the release to the last acknowledgement.
    pub(crate) usage: Usage,
}

impl Report {
    /// From the release to the last acknowledgement.
    fn finish_ns(&self) -> u64 {
        self.began_ns + self.latencies_ns.iter().sum::<u64>() - self.released_ns
    }

    /// The start and the duration of each append.
    pub(crate) fn appends(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.latencies_ns
            .iter()
            .scan(self.began_ns, |start_ns, latency_ns| {
                let append = (*start_ns, *latency_ns);
                *start_ns += latency_ns;
                Some(append)
            })
    }
}

/// The process.
pub(crate) fn work(member: &Member, order: &Appending) -> Result<Report> {
    let barrier = Barrier::open(&member.barrier)?;
    let appender = order.system.open(&member.store, order.slow_sync)?;
    append(appender, member.number, member.team, order, &barrier)
}

/// The process whose threads are the agents. They share one open store where the system can.
pub(crate) fn work_in_threads(
    member: &Member,
    order: &Appending,
    threads: usize,
) -> Result<Vec<Report>> {
    let barrier = Barrier::open(&member.barrier)?;
    let appenders = order
        .system
        .open_for_threads(&member.store, order.slow_sync, threads)?;
    thread::scope(|scope| {
        let agent = |(number, appender)| {
            let barrier = &barrier;
            // The cause is for the parent's error, as text: other errors can't change threads.
            let work = move || {
                append(appender, number, member.team, order, barrier)
                    .map_err(|error| error.to_string())
            };
            scope.spawn(work)
        };
        let agents: Vec<_> = appenders.into_iter().enumerate().map(agent).collect();
        let mut reports = Vec::new();
        for agent in agents {
            let report = agent.join().map_err(|_| "an agent's thread panicked")?;
            reports.push(report?);
        }
        Ok(reports)
    })
}

/// The agent.
fn append(
    mut appender: Box<dyn Appender>,
    number: usize,
    team: u32,
    order: &Appending,
    barrier: &Barrier,
) -> Result<Report> {
    let Appending {
        events_file,
        writes_max,
        time_max,
        ..
    } = order;
    let events = events::load(events_file, number, (*writes_max).min(EVENTS_MAX))?;
    let mut latencies_ns = Vec::with_capacity((*writes_max).min(RESERVED_MAX));
    let time_max_ns = u64::try_from(time_max.as_nanos())?;

    let before = Usage::now(appender.syncs());
    let released_ns = barrier.wait_for_release(team);
    let began_ns = monotonic_ns();
    let mut before_ns = began_ns;
    for event in events.iter().cycle().take(*writes_max) {
        appender.append(event)?;
        let now_ns = monotonic_ns();
        latencies_ns.push(now_ns - before_ns);
        before_ns = now_ns;
        if now_ns - released_ns > time_max_ns {
            break;
        }
    }
    let usage = Usage::now(appender.syncs()).since(before);
    barrier.wait_for_others(team);
    Ok(Report {
        released_ns,
        began_ns,
        latencies_ns,
        usage,
    })
}

/// The result of one turn of a system.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// From the release to the last acknowledgement.
    pub(crate) seconds: f64,
    pub(crate) appends: usize,
    /// Of all appends of all agents, sorted.
    pub(crate) latencies_ns: Vec<u64>,
    /// The slowest agent's time for one append over the fastest agent's. That is the ratio of their
    /// finishing times if all wrote the same number.
    pub(crate) slowest_over_fastest: f64,
    /// The turn was cut off before all was written.
    pub(crate) capped: bool,
    /// Of all agents together.
    usage: Usage,
}

impl Turn {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn of(reports: Vec<Report>, writes: usize) -> Self {
        let agents = reports.len();
        let pace =
            |report: &Report| report.finish_ns() as f64 / report.latencies_ns.len().max(1) as f64;
        let slowest = reports.iter().map(pace).fold(0.0, f64::max);
        let fastest = reports.iter().map(pace).fold(f64::INFINITY, f64::min);
        let finish_ns = reports.iter().map(Report::finish_ns).max().unwrap_or(0);
        let usages = reports.iter().map(|report| report.usage);
        let usage = usages.reduce(Usage::plus).unwrap_or_default();
        let mut latencies_ns: Vec<u64> = reports
            .into_iter()
            .flat_map(|report| report.latencies_ns)
            .collect();
        latencies_ns.sort_unstable();
        Self {
            seconds: finish_ns as f64 / 1e9,
            appends: latencies_ns.len(),
            capped: latencies_ns.len() < agents * writes,
            slowest_over_fastest: slowest / fastest,
            latencies_ns,
            usage,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn appends_per_s(&self) -> f64 {
        self.appends as f64 / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn records_per_sync(&self) -> Option<f64> {
        let syncs = self.usage.syncs.filter(|syncs| *syncs > 0)?;
        Some(self.appends as f64 / syncs as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn switches_per_append(&self) -> Option<f64> {
        Some(self.usage.switches? as f64 / self.appends as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn processor_us_per_append(&self) -> Option<f64> {
        Some(self.usage.processor_ns? as f64 / 1e3 / self.appends as f64)
    }

    pub(crate) fn quantile_us(&self, q: f64) -> f64 {
        quantile(&self.latencies_ns, q) / 1e3
    }
}

/// Runs a turn on a new store.
pub(crate) fn turn(runner: &Runner<'_>, step: &Step) -> Result<Turn> {
    let dir = new_dir(runner.scratch)?;
    let store = dir.path().join("store");
    fs::create_dir(&store)?;
    let _prepared = step.system.prepare(&store)?;
    runner.settle()?;
    let order = runner.appending(step.system, step.writes, runner.cap);
    let agents = step.agents;
    let reports: Vec<Vec<Report>> = if step.system.is_one_process() {
        let work = |member| Work::AppendByConnections(member, order.clone(), agents);
        run_team(dir.path(), 1, 1, work, || Ok(()))?
    } else if runner.mode == Mode::Thread {
        let work = |member| Work::AppendByThreads(member, order.clone(), agents);
        run_team(dir.path(), 1, agents, work, || Ok(()))?
    } else {
        let work = |member| Work::Append(member, order.clone());
        let reports = run_team(dir.path(), agents, 1, work, || Ok(()))?;
        vec![reports]
    };
    Ok(Turn::of(
        reports.into_iter().flatten().collect(),
        step.writes,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(finish_ns: u64, latencies_ns: &[u64]) -> Report {
        let began_ns = finish_ns - latencies_ns.iter().sum::<u64>();
        Report {
            released_ns: 0,
            began_ns,
            latencies_ns: latencies_ns.to_vec(),
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_turn_lasts_until_its_slowest_agent_ends() {
        let reports = vec![
            report(4_000, &[2_000, 2_000]),
            report(6_000, &[1_000, 5_000]),
        ];
        let turn = Turn::of(reports, 2);
        assert!((turn.appends_per_s() - 4.0 / 6e-6).abs() < 1.0);
        assert!((turn.slowest_over_fastest - 1.5).abs() < 1e-9);
        assert_eq!(turn.latencies_ns, [1_000, 2_000, 2_000, 5_000]);
        assert!(!turn.capped);
    }

    #[test]
    fn a_turn_that_was_cut_off_compares_the_pace_of_the_agents() {
        let turn = Turn::of(vec![report(6_000, &[6_000]), report(6_000, &[1_500; 4])], 4);
        assert!(turn.capped);
        assert!((turn.slowest_over_fastest - 4.0).abs() < 1e-9);
    }

    #[test]
    fn an_append_begins_where_the_one_before_it_ended() {
        let appends: Vec<_> = report(10, &[2, 3]).appends().collect();
        assert_eq!(appends, [(5, 2), (7, 3)]);
    }
}
