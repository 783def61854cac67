//! The bars that strand has to clear: ratios, most of them, of values from one run.

use std::fmt;

use clap::ValueEnum as _;
use serde::Serialize;

use crate::answers::{Answer, Answers};
use crate::measure::Extras;
use crate::measured::Measured;
use crate::memory::Memory;
use crate::question::Question;
use crate::state::State;
use crate::statistics::{median, median_ratio};
use crate::systems::System;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn is_met_by(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bar) => measured >= bar,
            Self::AtMost(bar) => measured <= bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
        }
    }
}

/// A bar and the value measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) bar: String,
    #[serde(skip)]
    wants_more: bool,
    /// `None` if this run did not measure it.
    pub(crate) measured: Option<f64>,
    pub(crate) met: Option<bool>,
}

impl Ratio {
    pub(crate) fn new(name: impl Into<String>, bar: Bar, measured: Option<f64>) -> Self {
        let measured = measured.filter(|measured| measured.is_finite());
        Self {
            name: name.into(),
            bar: bar.to_string(),
            wants_more: matches!(bar, Bar::AtLeast(_)),
            measured,
            met: measured.map(|measured| bar.is_met_by(measured)),
        }
    }

    /// Whether a higher value is better.
    pub(crate) fn wants_more(&self) -> bool {
        self.wants_more
    }

    pub(crate) fn text(&self) -> String {
        match self.measured {
            None => "–".to_owned(),
            Some(value) if value >= 100.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
        }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }
}

/// Every bar, in a fixed order. `is_slow`: each sync was made slower.
pub(crate) fn ratios(rows: &[Measured], is_slow: bool, extras: &Extras) -> Vec<Ratio> {
    let of = |system, agents| {
        rows.iter()
            .find(|row| row.system == system && row.agents == agents)
    };
    let mut ratios = Vec::new();
    for (peer, against, bars) in peers() {
        for (agents, bar) in bars {
            let measured = of(System::Strand, agents)
                .zip(peer.and_then(|peer| of(peer, agents)))
                .map(|(strand, peer)| median_ratio(&strand.appends_per_s, &peer.appends_per_s));
            let name = format!("durable appends/s, {agents} agents, over {against}");
            ratios.push(Ratio::new(name, Bar::AtLeast(bar), measured));
        }
    }
    // Nobody can do better than that all of them share each sync.
    for (agents, of_all, bar) in [(5, 5.0, 0.93), (20, 20.0, 0.88), (100, 100.0, 0.8)] {
        let together = of(System::Strand, agents).zip(of(System::Strand, 1));
        let measured = together
            .filter(|_| is_slow)
            .map(|(many, one)| median_ratio(&many.appends_per_s, &one.appends_per_s) / of_all);
        let name = format!("slow syncs: appends/s of {agents} agents over {agents} × that of one");
        ratios.push(Ratio::new(name, Bar::AtLeast(bar), measured));
    }
    let mut add = |name, bar, measured| ratios.push(Ratio::new(name, bar, measured));
    let (one, twenty) = (of(System::Strand, 1), of(System::Strand, 20));
    let bare = of(System::Bare, 1);
    add(
        "1 agent: median append over the median bare fdatasync",
        Bar::AtMost(0.75),
        one.zip(bare)
            .map(|(strand, bare)| median_ratio(&strand.p50_us, &bare.p50_us)),
    );
    add(
        "20 agents: p99.9 append over the median bare fdatasync",
        Bar::AtMost(12.0),
        twenty
            .zip(bare)
            .map(|(strand, bare)| median(&strand.p999_us) / median(&bare.p50_us)),
    );
    add(
        "20 agents: slowest agent's finish over the fastest's",
        Bar::AtMost(1.2),
        twenty.map(Measured::slowest_over_fastest),
    );
    add(
        "20 agents: context switches an append",
        Bar::AtMost(1.2),
        twenty
            .filter(|strand| !strand.switches_per_append.is_empty())
            .map(|strand| median(&strand.switches_per_append)),
    );
    add(
        "5 agents × 20 writes, barrier to last ack, in ms",
        Bar::AtMost(20.0),
        extras.five_by_twenty_ms,
    );
    let opening = |log: &str| extras.opening_us.iter().find(|open| open.log == log);
    let opening = opening("64 MiB").zip(opening("1 KiB"));
    add(
        "open for append: 64 MiB of log over 1 KiB",
        Bar::AtMost(1.5),
        opening.map(|(large, small)| large.median_us / small.median_us),
    );
    let shot = extras.one_shot_us.as_ref();
    add(
        "one-shot process over the bare program",
        Bar::AtMost(1.15),
        shot.map(|shot| shot.strand_over_bare),
    );
    add(
        "one-shot `strand append` over the bare program",
        Bar::AtMost(1.3),
        shot.and_then(|shot| shot.command_over_bare),
    );
    add(
        "verify scan, MB/s",
        Bar::AtLeast(1_000.0),
        extras.verify_mb_per_s,
    );
    add(
        "fold of the events, MB/s",
        Bar::AtLeast(250.0),
        extras.fold_mb_per_s,
    );
    add(
        "memory of an appending process over an empty program, MiB",
        Bar::AtMost(6.0),
        extras.memory.as_ref().map(Memory::most_mib),
    );
    ratios.extend(of_state(extras.state.as_ref()));
    ratios.extend(of_answers(extras.answers.as_ref()));
    ratios
}

/// The bars of one-shot answers: of the worst of them.
fn of_answers(measured: Option<&Answers>) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let mut add = |name: &str, bar, measured| ratios.push(Ratio::new(name, bar, measured));
    let most = |about_one: bool, ratio: fn(&Answer) -> Option<f64>| {
        let which = |question: Question| question.is_about_one() == about_one;
        measured.and_then(|answers| answers.most(which, ratio))
    };
    add(
        "one-shot show, create, claim, update: the slowest over SQLite",
        Bar::AtMost(1.0),
        most(true, |answer| answer.over_sqlite),
    );
    add(
        "the same by the commands `strand` and `sqlite3`",
        Bar::AtMost(1.0),
        most(true, |answer| answer.command_over_sqlite3),
    );
    add(
        "the same over a tracker of 10,000 issues",
        Bar::AtMost(1.3),
        most(true, |answer| Some(answer.over_few)),
    );
    add(
        "one-shot ready and claim without an id: the slower over SQLite",
        Bar::AtMost(1.0),
        most(false, |answer| answer.over_sqlite),
    );
    add(
        "the same two by the commands `strand` and `sqlite3`",
        Bar::AtMost(1.0),
        most(false, |answer| answer.command_over_sqlite3),
    );
    add(
        "peak memory of a one-shot point read or write over an empty program, MiB",
        Bar::AtMost(8.0),
        measured.and_then(|answers| answers.memory_mib),
    );
    add(
        "memory of a long-lived writer with conditions, MiB",
        Bar::AtMost(16.0),
        measured.and_then(|answers| answers.writer_memory_mib),
    );
    add(
        "bytes written by compactions per byte appended, 1 % changed between them",
        Bar::AtMost(12.0),
        measured.and_then(|answers| answers.written_per_byte),
    );
    ratios
}

/// The bars of compaction, readers and claims.
fn of_state(measured: Option<&State>) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let mut add = |name, bar, measured| ratios.push(Ratio::new(name, bar, measured));
    let state = |value: fn(&State) -> f64| measured.map(value);
    add(
        "append p99 beside a compaction over the same without",
        Bar::AtMost(1.5),
        state(|state| state.p99_with_compaction),
    );
    add(
        "compaction beside 4 computing processes per core over the same without",
        Bar::AtMost(12.0),
        state(|state| state.compaction_in_crowd),
    );
    add(
        "append p99 beside both over the same beside the computing processes",
        Bar::AtMost(1.5),
        state(|state| state.p99_with_compaction_in_crowd),
    );
    add(
        "compaction: longest time the lock is held, less one sync, in ms",
        Bar::AtMost(1.0),
        state(|state| state.lock_held_ms - state.sync_ms),
    );
    add(
        "load of 100,000 issues from a snapshot, MB/s",
        Bar::AtLeast(500.0),
        state(|state| state.load_mb_per_s),
    );
    add(
        "load: peak memory over the file",
        Bar::AtMost(3.0),
        state(|state| state.load_peak_over_file),
    );
    add(
        "refresh after 10 records over a full load, in thousandths",
        Bar::AtMost(1.0),
        state(|state| state.refresh_us / state.load_ms),
    );
    add(
        "5 writers' throughput with 64 readers over that without",
        Bar::AtLeast(0.7),
        state(|state| state.throughput_with_readers),
    );
    add(
        "20 agents claiming, over SQLite",
        Bar::AtLeast(8.0),
        measured.and_then(|state| state.claims_over_sqlite),
    );
    add(
        "median from acknowledgement to a follower's sight, in ms",
        Bar::AtMost(1.0),
        state(|state| state.wake_p50_us / 1e3),
    );
    ratios
}

type PeerBars = (Option<System>, &'static str, Vec<(usize, f64)>);

/// The systems that strand's rate is compared with, and the bar for each number of agents.
fn peers() -> [PeerBars; 6] {
    // By its name, since a peer may not be built.
    let peer = |name| System::from_str(name, false).ok();
    [
        (
            peer("sqlite"),
            "SQLite",
            vec![(5, 7.0), (20, 22.0), (100, 35.0)],
        ),
        (peer("lmdb"), "LMDB", vec![(5, 7.0), (20, 20.0)]),
        (
            Some(System::Plan),
            "a plain locked file",
            vec![(5, 2.5), (20, 8.0)],
        ),
        (
            peer("redis"),
            "Redis",
            vec![(5, 2.0), (20, 2.5), (100, 3.0)],
        ),
        (
            peer("redis-connections"),
            "Redis, one client",
            vec![(100, 1.0)],
        ),
        (
            peer("postgres"),
            "PostgreSQL",
            vec![(5, 2.0), (20, 3.0), (100, 4.0)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_on_its_good_side_and_on_itself() {
        assert!(Bar::AtLeast(8.0).is_met_by(8.0) && Bar::AtLeast(8.0).is_met_by(9.0));
        assert!(!Bar::AtLeast(8.0).is_met_by(7.9));
        assert!(Bar::AtMost(1.5).is_met_by(1.5) && Bar::AtMost(1.5).is_met_by(1.0));
        assert!(!Bar::AtMost(1.5).is_met_by(1.6));
    }

    #[test]
    fn a_bar_without_a_value_is_neither_met_nor_missed() {
        let all = ratios(&[], true, &Extras::default());
        assert_eq!(all.len(), 46);
        assert!(
            all.iter()
                .all(|ratio| ratio.met.is_none() && ratio.measured.is_none())
        );
        assert_eq!(Ratio::new("x", Bar::AtMost(1.0), Some(f64::NAN)).met, None);
    }

    #[test]
    fn rates_are_compared_round_by_round() {
        let row = |system, rates: &[f64]| {
            let mut row = Measured::new(system, 5, 20);
            row.appends_per_s = rates.to_vec();
            row
        };
        let rows = [
            row(System::Strand, &[300.0, 30.0, 310.0]),
            row(System::Plan, &[100.0, 10.0, 100.0]),
        ];
        let all = ratios(&rows, false, &Extras::default());
        let plan = all.iter().find(|ratio| ratio.measured.is_some()).unwrap();
        assert_eq!(
            plan.name,
            "durable appends/s, 5 agents, over a plain locked file"
        );
        assert_eq!((plan.measured, plan.met), (Some(3.0), Some(true)));
    }
}
