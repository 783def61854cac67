//! The HTML report of a run.

use crate::evidence::ledger::IncidentKind;
use crate::evidence::timeline::{AGENTS_MAX, Doing, MARKS_MAX, Timeline};
use crate::report::page::lanes::{self, Lanes, Look};
use crate::report::page::plot::{self, Axis, Curve, Form, Plot, Sign, Size, Unit, at_share};
use crate::report::page::{
    Cell, Column, command, details, document, escaped, facts, findings, legend, members, table,
    verdict,
};
use crate::report::quantiles::{Share, count};
use crate::report::run::{AgentReport, Report};
use crate::report::text::grouped;
use crate::run::config::{Config, Durability, Mode, Workload};

/// How many agents the table has.
const AGENTS_SHOWN: usize = 40;
/// How many have a bar.
const BARS: usize = 16;
/// The activities of an agent; later ones are drawn over earlier ones. [`look`] maps them.
const LOOKS: [Look; 5] = [
    Look {
        name: "on its way to the lock",
        class: "waits",
        top: 0.4,
        height: 0.2,
    },
    Look {
        name: "waits for a sync",
        class: "syncs",
        top: 0.25,
        height: 0.5,
    },
    Look {
        name: "in doubt: killed before an answer",
        class: "doubt",
        top: 0.45,
        height: 0.1,
    },
    Look {
        name: "holds the lock",
        class: "holds",
        top: 0.0,
        height: 1.0,
    },
    Look {
        name: "leads a sync for all",
        class: "leads",
        top: 0.6,
        height: 0.4,
    },
];

fn look(doing: Doing) -> usize {
    match doing {
        Doing::Waits => 0,
        Doing::Syncs => 1,
        Doing::Doubt => 2,
        Doing::Holds => 3,
        Doing::Leads => 4,
    }
}

/// The form of a kind of incident, and its name for one and for several.
fn sign(kind: IncidentKind) -> (Sign, &'static str, &'static str) {
    match kind {
        IncidentKind::Killed => (Sign::Cross, "killed", "kills"),
        IncidentKind::Stopped => (Sign::Pause, "stopped for a while", "stops"),
        IncidentKind::Torn => (Sign::Triangle, "half a record left behind", "torn tails"),
        IncidentKind::Forgotten => (Sign::Ring, "hints deleted", "hints lost"),
        IncidentKind::Displaced => (Sign::Ring, "file displaced", "files displaced"),
        IncidentKind::Moved => (Sign::Ring, "store moved away", "moves"),
        IncidentKind::Compacted => (Sign::Diamond, "compaction finished", "compactions"),
    }
}

/// The HTML report of a run: the verdict first, then its evidence.
#[must_use]
pub fn page(report: &Report) -> String {
    let body = [
        "<h1>Stress run</h1>\n".to_owned(),
        outcome(report),
        origin(report),
        checks(report),
        latency(report),
        throughput(&report.timeline),
        lock(report),
        fairness(report),
        faults(report),
        format!(
            "<h2>All metrics</h2>\n<pre tabindex=\"0\">{}</pre>\n",
            escaped(report.table().trim_end())
        ),
        details(
            "The whole configuration",
            &members("Configuration", &report.config),
        ),
    ];
    document("strand stress run", &body.concat())
}

/// The verdict and the findings.
fn outcome(report: &Report) -> String {
    let mut lines: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    lines.extend(report.environment_errors.iter().cloned());
    if let Some(hang) = &report.hang {
        let holder = hang.lock_holder.as_deref().unwrap_or("an unknown holder");
        lines.push(format!("it waited for {}", hang.waited_for));
        lines.push(format!("the lock is held by {holder}"));
        let agents = hang.agents.iter();
        lines.extend(agents.map(|a| format!("agent {} (pid {}): {}", a.agent, a.pid, a.doing)));
        lines.extend(hang.others.iter().cloned());
    }
    let mut text = if lines.is_empty() {
        String::new()
    } else {
        findings(&lines, "the JSON report")
    };
    if !report.agents_stderr.is_empty() {
        let said = format!(
            "<pre tabindex=\"0\">{}</pre>\n",
            escaped(&report.agents_stderr)
        );
        text += &details("Standard error of the processes", &said);
    }
    verdict(report.verdict, &report.verdict_line, &text)
}

/// The configuration, the machine, and how to repeat the run.
fn origin(report: &Report) -> String {
    let machine = &report.machine;
    let mut all = vec![
        ("Seed", format!("<code>{}</code>", report.config.seed)),
        ("Configuration", escaped(&configuration(&report.config))),
        (
            "Machine",
            escaped(&format!(
                "{}, {} cores, {}",
                machine.system, machine.cores, machine.filesystem
            )),
        ),
        ("To run it again", command(&report.replay)),
    ];
    let together = &report.iterations;
    if together.completed > 1 {
        let text = format!(
            "the last of {} runs, which acknowledged {} operations in {:.2} ms each (median; {:.2} ms at most)",
            together.completed,
            grouped(together.acknowledged),
            together.elapsed_ms_median,
            together.elapsed_ms_max
        );
        all.push(("One of several", text));
    }
    if let Some(store) = &report.store {
        let store = escaped(&store.display().to_string());
        all.push(("Store", format!("<code>{store}</code>")));
    }
    facts(&all)
}

/// The configuration in words.
fn configuration(config: &Config) -> String {
    let writes = match config.workload {
        Workload::Replay => "the events of a file".to_owned(),
        _ => format!("{} writes each", config.writes),
    };
    let mode = match (config.mode, config.one_shot) {
        (Mode::Thread, _) => "threads of one process",
        (Mode::Process, true) => "a process for each write",
        (Mode::Process, false) => "processes",
    };
    let workload = match config.workload {
        Workload::Append | Workload::Batch | Workload::Set | Workload::Exclusive => {
            "appends without conditions"
        }
        Workload::Claim => "claims of the same issues",
        Workload::Mixed => "writes with conditions on shared issues",
        Workload::Replay => "a trace",
    };
    let durability = match config.durability {
        Durability::Synced => "synced",
        Durability::Buffered => "not synced",
    };
    let mut parts = vec![
        format!("{} agents ({mode}), {writes}", config.agents),
        workload.to_owned(),
        durability.to_owned(),
    ];
    for (number, one, more) in [
        (config.readers, "reader", "readers"),
        (config.followers, "follower", "followers"),
        (config.compacting(), "compactor", "compactors"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {}", if number == 1 { one } else { more }));
        }
    }
    for (rate, what) in [
        (config.kill_per_second, "kills"),
        (config.stop_per_second, "stops"),
        (config.tear_per_second, "torn tails"),
        (config.forget_per_second, "deleted hints"),
        (config.displace_per_second, "displaced files"),
        (config.move_per_second, "moves"),
    ] {
        if rate > 0.0 {
            parts.push(format!("{rate} {what} a second"));
        }
    }
    if let Some(at) = &config.kill_at {
        parts.push(format!("kills at {at}"));
    }
    parts.join("; ")
}

/// The points of the oracle.
fn checks(report: &Report) -> String {
    let heading = "<h2>The comparisons of the oracle</h2>\n";
    if report.checks.is_empty() {
        return format!("{heading}<p>None: the run did not end.</p>\n");
    }
    let columns = [
        Column::Words("promise"),
        Column::Words("violations"),
        Column::Numbers("compared"),
        Column::Words("comparison"),
    ];
    let rows = report.checks.iter().map(|check| {
        let result = match (check.compared, check.violations) {
            (0, 0) => Cell::soft("nothing to compare"),
            (_, 0) => Cell::verdict("0", true),
            (_, some) => Cell::verdict(&grouped(some), false),
        };
        [
            Cell::from(check.promise),
            result,
            Cell::from(grouped(check.compared)),
            Cell::from(check.what),
        ]
    });
    format!(
        "{heading}<p>The oracle knows the answers of the log, the bytes in the files, and when the lock was held, \
         from sources that do not know of each other.</p>\n{}",
        table("The comparisons of the oracle", columns, rows)
    )
}

fn latency(report: &Report) -> String {
    let heading = "<h2>Latency of acknowledged operations</h2>\n";
    let distribution = &report.append_distribution;
    if distribution.is_empty() {
        return format!("{heading}<p>None was acknowledged.</p>\n");
    }
    let q = report.append_us;
    let plot = Plot {
        title: "Latency of acknowledged operations",
        description: format!(
            "Half took at most {}, 99 of 100 at most {}, the longest {}.",
            Unit::Microseconds.text(q.p50),
            Unit::Microseconds.text(q.p99),
            Unit::Microseconds.text(q.max)
        ),
        x: Axis::of_shares("share of operations"),
        y: Axis::powers_of_ten(
            "at most",
            Unit::Microseconds,
            distribution.iter().map(|s| s.us),
        ),
        curves: vec![Curve {
            title: "at most",
            colour: "--holds",
            style: "",
            form: Form::Dotted,
            points: distribution
                .iter()
                .map(|s| (at_share(s.share), s.us))
                .collect(),
        }],
        marks: Vec::new(),
        size: Size::Small,
    };
    let columns = [
        Column::Numbers("share of operations"),
        Column::Numbers("at most"),
    ];
    let rows = distribution.iter().map(|Share { share, us }| {
        let name = match share {
            0.0 => "the shortest".to_owned(),
            1.0 => "the longest".to_owned(),
            _ => format!("{} %", (share * 1_000.0).round() / 10.0),
        };
        [Cell::from(name), Cell::from(Unit::Microseconds.text(*us))]
    });
    format!(
        "{heading}<p>From the call to the answer, {} operations. Each point is a row of the table: this share of the \
         operations took at most so long. The vertical axis is logarithmic; lower is better.</p>\n\
         <div class=\"plots\"><figure>{}</figure>\n{}</div>\n",
        grouped(report.acknowledged),
        plot.svg(),
        table("Latency of acknowledged operations", columns, rows)
    )
}

/// Throughput over time, with the incidents below it.
fn throughput(timeline: &Timeline) -> String {
    let heading = "<h2>Throughput over time</h2>\n";
    let slices = &timeline.slices;
    if slices
        .iter()
        .all(|slice| slice.acknowledged + slice.refused == 0)
    {
        return format!("{heading}<p>There were no answers.</p>\n");
    }
    let at = |index: usize| timeline.slice_ms * count(index as u64);
    let end = at(slices.len());
    let per_second = |number: u64| count(number) * 1_000.0 / timeline.slice_ms;
    let x = Axis::between(
        "time since the start",
        Unit::Microseconds,
        0.0,
        end * 1_000.0,
    );
    let mut points: Vec<(f64, f64)> = slices
        .iter()
        .enumerate()
        .map(|(index, slice)| {
            (
                at(index) * 1_000.0,
                per_second(slice.acknowledged + slice.refused),
            )
        })
        .collect();
    // The last one lasts as long as the others.
    points.extend(points.last().map(|(_, rate)| (end * 1_000.0, *rate)));
    let highest = points.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let plot = Plot {
        title: "Throughput over time",
        description: format!(
            "In slices of {}; at most {} a second.",
            Unit::Microseconds.text(timeline.slice_ms * 1_000.0),
            Unit::Count.text(highest)
        ),
        y: Axis::from_zero(
            "answers/s",
            Unit::Count,
            points.iter().map(|(_, rate)| *rate),
        ),
        x: x.clone(),
        curves: vec![Curve {
            title: "answers",
            colour: "--holds",
            style: "",
            form: Form::Columns,
            points,
        }],
        marks: Vec::new(),
        size: Size::Wide,
    };
    let columns = [
        Column::Numbers("from, ms"),
        Column::Numbers("acknowledged"),
        Column::Numbers("refused"),
        Column::Numbers("lock held, %"),
    ];
    let rows = slices.iter().enumerate().map(|(index, slice)| {
        [
            Cell::from(format!("{:.2}", at(index))),
            Cell::from(slice.acknowledged),
            Cell::from(slice.refused),
            Cell::from(format!("{:.0}", 100.0 * slice.held_ms / timeline.slice_ms)),
        ]
    });
    let figures = table("Throughput over time", columns, rows);
    format!(
        "{heading}<p>Operations that were acknowledged or refused, in slices of {}.</p>\n\
         <figure class=\"scroll\" tabindex=\"0\">{}{}</figure>\n{}{}",
        Unit::Microseconds.text(timeline.slice_ms * 1_000.0),
        plot.svg(),
        incidents(timeline, x),
        incidents_note(timeline),
        details("Figures of the slices", &figures),
    )
}

/// A timeline for each kind of incident.
fn incidents(timeline: &Timeline, x: Axis) -> String {
    if timeline.marks.is_empty() {
        return String::new();
    }
    let of_kind = |kind: IncidentKind| lanes::Lane {
        name: sign(kind).2.to_owned(),
        spans: Vec::new(),
        marks: marks(timeline.marks.iter().filter(|mark| mark.kind == kind)),
    };
    let counts = timeline.incidents.iter();
    let counts = counts.map(|(kind, count)| format!("{} {}", grouped(*count), sign(*kind).2));
    let drawing = Lanes {
        title: "What was done to the run",
        description: format!("{}.", counts.collect::<Vec<_>>().join(", ")),
        x,
        looks: &[],
        lanes: timeline
            .incidents
            .keys()
            .map(|kind| of_kind(*kind))
            .collect(),
    };
    drawing.svg()
}

fn incidents_note(timeline: &Timeline) -> String {
    if timeline.marks.is_empty() {
        return String::new();
    }
    let kinds = timeline.incidents.iter().map(|(kind, count)| {
        let (sign, name, _) = sign(*kind);
        (sign.svg(14.0, 5.0), format!("{name} ({})", grouped(*count)))
    });
    let kinds: Vec<(String, String)> = kinds.collect();
    let all: u64 = timeline.incidents.values().sum();
    let thinned = if all > timeline.marks.len() as u64 {
        format!(
            "<p>Of each kind at most {MARKS_MAX} are marked, evenly chosen; the numbers count all.</p>\n"
        )
    } else {
        String::new()
    };
    let columns = [
        Column::Numbers("at, ms"),
        Column::Words("event"),
        Column::Words("process"),
        Column::Words("more"),
    ];
    let rows = timeline.marks.iter().map(|mark| {
        [
            Cell::from(format!("{:.2}", mark.at_ms)),
            Cell::from(sign(mark.kind).1),
            Cell::from(&mark.who),
            Cell::from(&mark.detail),
        ]
    });
    let figures = table("What was done to the run", columns, rows);
    legend(
        kinds
            .iter()
            .map(|(sample, name)| (sample.clone(), name.as_str())),
    ) + &thinned
        + &details("The marks one by one", &figures)
}

fn marks<'a>(marks: impl Iterator<Item = &'a crate::evidence::timeline::Mark>) -> Vec<plot::Mark> {
    let mark = |mark: &crate::evidence::timeline::Mark| {
        let (sign, name, _) = sign(mark.kind);
        let what = [mark.who.as_str(), name, mark.detail.as_str()];
        let what: Vec<&str> = what.into_iter().filter(|word| !word.is_empty()).collect();
        plot::Mark {
            at: mark.at_ms * 1_000.0,
            sign,
            title: format!("{:.2} ms: {}", mark.at_ms, what.join(" ")),
        }
    };
    marks.map(mark).collect()
}

/// The agents in a part of the run: waiting, holding the lock, leading a sync.
fn lock(report: &Report) -> String {
    let heading = "<h2>Waiting, holding the lock, leading a sync</h2>\n";
    let lock = &report.lock;
    let led: u64 = report.per_agent.iter().map(|agent| agent.led).sum();
    let summary = format!(
        "<p>The lock was taken {} times ({} times after a wait); it was held for {} on average and {} at most. \
         {} syncs were led for all who waited.</p>\n",
        grouped(lock.acquisitions),
        grouped(lock.contended),
        Unit::Microseconds.text(lock.hold_us.mean),
        Unit::Microseconds.text(lock.hold_us.max),
        grouped(led),
    );
    let window = &report.timeline.window;
    if window.lanes.iter().all(|lane| lane.spans.is_empty()) {
        return format!(
            "{heading}{summary}<p>There is no timeline: no process reported an operation.</p>\n"
        );
    }
    let lanes = window.lanes.iter().map(|lane| lanes::Lane {
        name: lane.name.clone(),
        spans: lane
            .spans
            .iter()
            .map(|span| {
                (
                    look(span.doing),
                    span.from_ms * 1_000.0,
                    span.to_ms * 1_000.0,
                )
            })
            .collect(),
        marks: marks(lane.marks.iter()),
    });
    let drawing = Lanes {
        title: "Waiting, holding the lock, leading a sync",
        description: format!(
            "From {:.2} to {:.2} ms, a line for each agent. The metrics of the whole run are in the table of agents.",
            window.from_ms, window.to_ms
        ),
        x: Axis::between(
            "time since the start",
            Unit::Microseconds,
            window.from_ms * 1_000.0,
            window.to_ms * 1_000.0,
        ),
        looks: &LOOKS,
        lanes: lanes.collect(),
    };
    let mut samples: Vec<(String, &str)> = LOOKS
        .iter()
        .map(|look| (look.sample(), look.name))
        .collect();
    let mut kinds: Vec<IncidentKind> = window
        .lanes
        .iter()
        .flat_map(|lane| &lane.marks)
        .map(|m| m.kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    samples.extend(
        kinds
            .into_iter()
            .map(|kind| (sign(kind).0.svg(14.0, 5.0), sign(kind).1)),
    );
    format!(
        "{heading}{summary}<p>{}</p>\n{}<figure class=\"scroll\" tabindex=\"0\">{}</figure>\n",
        sampled(report),
        legend(samples),
        drawing.svg()
    )
}

/// The part of the run that the timelines show.
fn sampled(report: &Report) -> String {
    let window = &report.timeline.window;
    let agents = report.config.agents;
    let who = if agents > AGENTS_MAX {
        format!("{AGENTS_MAX} of the {agents} agents, evenly chosen")
    } else {
        "all agents".to_owned()
    };
    let whole = report.timeline.slice_ms * count(report.timeline.slices.len() as u64);
    let when = if window.from_ms <= 0.0 && window.to_ms >= report.elapsed_ms {
        "the whole run".to_owned()
    } else {
        let around = if window.is_around_incident {
            "around the first kill or stop of an agent"
        } else {
            "from its middle"
        };
        format!(
            "{:.2} to {:.2} ms of {whole:.0} ms, {around}, so that an agent has some thirty operations",
            window.from_ms, window.to_ms
        )
    };
    format!(
        "Shown: {who}; {when}. “On its way” is from the call until the lock is held. What a process had not reported when \
         it was killed is missing."
    )
}

/// How evenly the agents got the lock.
fn fairness(report: &Report) -> String {
    let s = report.starvation;
    let mut agents: Vec<&AgentReport> = report.per_agent.iter().collect();
    agents.sort_by(|a, b| a.completed_ms.total_cmp(&b.completed_ms));
    let many = agents.len();
    let bars: Vec<&AgentReport> = ends(&agents, BARS);
    let lanes = bars.iter().map(|agent| lanes::Lane {
        name: format!("agent {}", agent.agent),
        spans: vec![(0, 0.0, agent.completed_ms * 1_000.0)],
        marks: Vec::new(),
    });
    let drawing = Lanes {
        title: "When each agent was done",
        description: format!(
            "The fastest after {:.2} ms, the slowest after {:.2} ms.",
            s.fastest_ms, s.slowest_ms
        ),
        x: Axis::from_zero(
            "from the start to its last answer",
            Unit::Microseconds,
            agents.iter().map(|agent| agent.completed_ms * 1_000.0),
        ),
        looks: &[Look {
            name: "",
            class: "holds",
            top: 0.15,
            height: 0.7,
        }],
        lanes: lanes.collect(),
    };
    let some = if many > BARS {
        format!(" The {BARS} bars are the fastest and the slowest of {many} agents.")
    } else {
        String::new()
    };
    let columns = [
        Column::Numbers("agent"),
        Column::Numbers("processes"),
        Column::Numbers("acknowledged"),
        Column::Numbers("refused"),
        Column::Numbers("unknown"),
        Column::Numbers("done after"),
        Column::Numbers("longest"),
        Column::Numbers("on its way"),
        Column::Numbers("times held"),
        Column::Numbers("held for"),
        Column::Numbers("syncs led"),
    ];
    let shown: Vec<&AgentReport> = ends(&agents, AGENTS_SHOWN);
    let rows = shown.into_iter().map(|agent| {
        [
            Cell::from(agent.agent),
            Cell::from(agent.processes),
            Cell::from(grouped(agent.acknowledged)),
            Cell::from(grouped(agent.refused)),
            Cell::from(grouped(agent.unknown)),
            Cell::from(ms(agent.completed_ms)),
            Cell::from(Unit::Microseconds.text(agent.longest_append_us)),
            Cell::from(ms(agent.waited_ms)),
            Cell::from(grouped(agent.holds)),
            Cell::from(ms(agent.held_ms)),
            Cell::from(grouped(agent.led)),
        ]
    });
    let cut = if many > AGENTS_SHOWN {
        format!(
            "<p>The {AGENTS_SHOWN} fastest and slowest of {many}; the JSON report has all.</p>\n"
        )
    } else {
        String::new()
    };
    format!(
        "<h2>Fairness</h2>\n<p>The slowest agent took {:.2} times as long as the fastest ({:.2} and {:.2} ms); the \
         longest operation took {}, the longest wait for the lock {}.{some}</p>\n\
         <figure class=\"scroll\" tabindex=\"0\">{}</figure>\n<h3>Each agent, the whole run</h3>\n{}{cut}",
        s.slowest_to_fastest,
        s.slowest_ms,
        s.fastest_ms,
        Unit::Microseconds.text(s.longest_append_us),
        Unit::Microseconds.text(s.longest_lock_wait_us),
        drawing.svg(),
        table("Each agent", columns, rows)
    )
}

/// A duration in the unit that it is short in.
fn ms(ms: f64) -> String {
    Unit::Microseconds.text(ms * 1e3)
}

/// The first and the last ones of many.
fn ends<'a>(all: &[&'a AgentReport], most: usize) -> Vec<&'a AgentReport> {
    if all.len() <= most {
        return all.to_vec();
    }
    let last = all.len() - most / 2;
    let first = all.iter().take(most - most / 2);
    first.chain(all.iter().skip(last)).copied().collect()
}

/// Where processes were killed.
fn faults(report: &Report) -> String {
    if report.killed_at.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Words("at which point of the protocol"),
        Column::Numbers("killed"),
        Column::Numbers("of these at opening"),
    ];
    let rows = report.killed_at.iter().map(|(point, times)| {
        let opening = report.killed_opening_at.get(point).copied().unwrap_or(0);
        [
            Cell::from(point),
            Cell::from(grouped(*times)),
            Cell::from(grouped(opening)),
        ]
    });
    format!(
        "<h2>Where processes were killed</h2>\n{}",
        table("Where processes were killed", columns, rows)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::evidence::checks::{Counts, Source, checks};
    use crate::evidence::ledger::{
        End, Hold, Incarnation, Incident, Lead, Ledger, Operation, Outcome,
    };
    use crate::evidence::violation::Violation;
    use crate::report::page::tests::assert_is_whole;
    use crate::run::judgement::Judgement;
    use crate::run::runner::{self, AgentState, Hang};

    const GO_NS: u64 = 1_000_000;

    fn report(ledger: &Ledger, violations: Vec<Violation>, hang: Option<Hang>) -> Report {
        let config = Config {
            agents: 3,
            ..Config::default()
        };
        let counts = Counts {
            stored: 4_321,
            views: 17,
            ..Counts::default()
        };
        Report::new(&Judgement {
            config,
            journals: Vec::new(),
            stored: 4_321,
            checks: if hang.is_some() {
                Vec::new()
            } else {
                checks(Source::Bytes, &counts, &violations)
            },
            violations,
            gathered: runner::Outcome {
                ledger: ledger.clone(),
                go_ns: Some(GO_NS),
                hang,
                interrupted: false,
                spawned: 4,
                killed: 1,
                stopped: 0,
                torn: 0,
                forgotten: 0,
                displaced: 0,
                moved: 0,
            },
            agents_stderr: String::new(),
            store: None,
        })
    }

    /// Three agents, of which the second is killed once.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for write in 1..=200 {
            let agent = write % 3;
            let invoke_ns = GO_NS + u64::from(write) * 71_000;
            let took_ns = 50_000 + u64::from(write * write);
            let outcome = if write == 100 {
                Outcome::Unknown {
                    error: String::new(),
                }
            } else {
                ledger.append_ns.push((agent, took_ns));
                Outcome::Acknowledged {
                    seq: write.into(),
                    ack_ns: invoke_ns + took_ns,
                    repeated: false,
                }
            };
            ledger.operations.push(Operation {
                agent,
                write,
                invoke_ns,
                outcome,
            });
            ledger.holds.push(Hold {
                agent,
                from_ns: invoke_ns + 9_000,
                to_ns: invoke_ns + 19_000,
            });
            ledger.leads.push(Lead {
                agent,
                from_ns: invoke_ns + 20_000,
                to_ns: invoke_ns + 40_000,
            });
        }
        let killed_ns = GO_NS + 7_150_000;
        ledger.incarnations.push(Incarnation {
            role: "agent",
            agents: vec![1],
            pid: 7,
            killed_ns: Some(killed_ns),
            reaped_ns: killed_ns + 1,
            end: End::Killed,
            left_holding: Vec::new(),
        });
        ledger.incidents.push(Incident {
            at_ns: killed_ns,
            kind: IncidentKind::Killed,
            who: "agent 1".to_owned(),
            detail: "at AfterWrite".to_owned(),
        });
        ledger.killed_at.insert("AfterWrite".to_owned(), 1);
        ledger
    }

    /// The cells of each row of the table with this name.
    fn rows(page: &str, label: &str) -> Vec<Vec<String>> {
        let from = format!("aria-label=\"{label}\"");
        let (_, table) = page.split_once(&from).expect("the table is there");
        let (table, _) = table.split_once("</table>").expect("it has an end");
        let text = |cell: &str| {
            let (_, text) = cell.split_once('>').expect("a tag has an end");
            let (text, _) = text.split_once("</td>").expect("a cell has an end");
            text.to_owned()
        };
        let rows = table.split("<tr>").skip(2);
        rows.map(|row| row.split("<td").skip(1).map(text).collect())
            .collect()
    }

    #[test]
    fn the_figures_are_those_of_the_json_report() {
        let report = report(&ledger(), Vec::new(), None);
        let page = page(&report);
        assert_is_whole(&page);
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let number = |value: &Value| value.as_f64().expect("a number");
        let list = |value: &Value| value.as_array().expect("a list").clone();

        let checks = list(&json["checks"]);
        let shown = rows(&page, "The comparisons of the oracle");
        assert_eq!(shown.len(), checks.len());
        for (row, check) in shown.iter().zip(&checks) {
            assert_eq!(row[0], escaped(check["promise"].as_str().unwrap()));
            assert_eq!(row[2].replace(',', ""), check["compared"].to_string());
        }
        let distribution = list(&json["append_distribution"]);
        let shown = rows(&page, "Latency of acknowledged operations");
        assert_eq!(shown.len(), distribution.len());
        for (row, share) in shown.iter().zip(&distribution) {
            assert_eq!(row[1], Unit::Microseconds.text(number(&share["us"])));
        }
        assert_eq!(
            number(&distribution[3]["us"]).to_bits(),
            number(&json["append_us"]["p50"]).to_bits()
        );
        let slices = list(&json["timeline"]["slices"]);
        let shown = rows(&page, "Throughput over time");
        assert_eq!(shown.len(), slices.len());
        for (row, slice) in shown.iter().zip(&slices) {
            assert_eq!(row[1], slice["acknowledged"].to_string());
        }
        let all: u64 = slices
            .iter()
            .map(|slice| slice["acknowledged"].as_u64().unwrap())
            .sum();
        assert_eq!(all, json["acknowledged"].as_u64().unwrap());
        let shown = rows(&page, "Each agent");
        assert_eq!(shown.len(), 3);
        for row in &shown {
            let number_of: usize = row[0].parse().unwrap();
            let agent = &json["per_agent"][number_of];
            assert_eq!(row[2], agent["acknowledged"].to_string());
            assert_eq!(row[5], ms(number(&agent["completed_ms"])));
            assert_eq!(row[8], agent["holds"].to_string());
            assert_eq!(row[10], agent["led"].to_string());
        }
        let marks = list(&json["timeline"]["marks"]);
        assert_eq!(rows(&page, "What was done to the run").len(), marks.len());
        assert_eq!(
            rows(&page, "Where processes were killed"),
            [["AfterWrite", "1", "0"]]
        );
        for part in [
            report.replay.as_str(),
            &report.verdict_line,
            "agent 1 killed at AfterWrite",
            "class=\"waits\"",
            "class=\"doubt\"",
            "class=\"leads\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn a_violation_comes_first_and_is_text() {
        let wicked = "<script src=x>alert(\"1\")</script>&";
        let violation = Violation::Protocol {
            detail: wicked.to_owned(),
        };
        let mut report = report(&ledger(), vec![violation; 60], None);
        report.config.dir = Some(wicked.into());
        report.config.payload = Some(wicked.into());
        report.replay = report.config.replay_line();
        report.store = Some(wicked.into());
        report.agents_stderr = wicked.to_owned();
        let page = page(&report);
        assert_is_whole(&page.replace("src=x", ""));
        assert!(!page.contains("<script"), "{page}");
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part}: {page}"));
        assert!(at("✗ FAIL: 60 violations") < at("protocol: detail="));
        assert!(at("protocol: detail=") < at("<dl>") && at("<dl>") < at("<h2>"));
        assert!(at("and 10 more, all in the JSON report") < at("<dl>"));
        let rows = rows(&page, "The comparisons of the oracle");
        assert!(rows.iter().any(|row| row[1] == "✗ 60"), "{rows:?}");
    }

    #[test]
    fn nothing_and_a_hang_have_pages_too() {
        let empty = page(&report(&Ledger::default(), Vec::new(), None));
        assert_is_whole(&empty);
        for part in [
            "None was acknowledged",
            "There were no answers",
            "no process reported",
        ] {
            assert!(empty.contains(part), "{part}");
        }
        let hang = Hang {
            after_ms: 5,
            waited_for: "the agents to do their writes",
            lock_holder: Some("pid 5 <agent>".to_owned()),
            agents: vec![AgentState {
                agent: 2,
                pid: 9,
                doing: "in write 3".to_owned(),
            }],
            others: Vec::new(),
            reaped: 1,
        };
        let page = page(&report(&ledger(), Vec::new(), Some(hang)));
        assert_is_whole(&page);
        for part in [
            "✗ FAIL: hang",
            "it waited for the agents to do their writes",
            "held by pid 5 &lt;agent&gt;",
            "agent 2 (pid 9): in write 3",
            "the run did not end",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
