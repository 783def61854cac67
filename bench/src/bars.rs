//! The bars that strand is to clear, each a ratio or a figure of one run.

use std::fmt;

use serde::Serialize;

use crate::{
    measure::Extras,
    report::Measured,
    state::State,
    statistics::{median, median_ratio},
    systems::System,
};

/// Which side of a bar is good.
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

/// A bar beside what was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) bar: String,
    #[serde(skip)]
    wants_more: bool,
    /// `null` when this run did not measure it.
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

    /// Whether more is better.
    pub(crate) fn wants_more(&self) -> bool {
        self.wants_more
    }

    /// What was measured, for people.
    pub(crate) fn figure(&self) -> String {
        match self.measured {
            None => "–".to_owned(),
            Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
            Some(figure) => format!("{figure:.2}"),
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

/// Every bar, in the order of the plan.
pub(crate) fn ratios(rows: &[Measured], extras: &Extras) -> Vec<Ratio> {
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
    let bare = of(System::Bare, 1);
    ratios.push(Ratio::new(
        "1 agent: median append over the median bare fdatasync",
        Bar::AtMost(1.15),
        of(System::Strand, 1)
            .zip(bare)
            .map(|(strand, bare)| median_ratio(&strand.p50_us, &bare.p50_us)),
    ));
    ratios.push(Ratio::new(
        "20 agents: p99.9 append over the median bare fdatasync",
        Bar::AtMost(25.0),
        of(System::Strand, 20)
            .zip(bare)
            .map(|(strand, bare)| median(&strand.p999_us) / median(&bare.p50_us)),
    ));
    ratios.push(Ratio::new(
        "20 agents: slowest agent's finish over the fastest's",
        Bar::AtMost(1.5),
        of(System::Strand, 20).map(Measured::slowest_over_fastest),
    ));
    let opening = |log: &str| extras.opening_us.iter().find(|open| open.log == log);
    let more = [
        (
            "5 agents × 20 writes, barrier to last ack, in ms",
            Bar::AtMost(20.0),
            extras.five_by_twenty_ms,
        ),
        (
            "open for append: 64 MiB of log over 1 KiB",
            Bar::AtMost(1.5),
            opening("64 MiB")
                .zip(opening("1 KiB"))
                .map(|(large, small)| large.median_us / small.median_us),
        ),
        (
            "one-shot process over the bare program",
            Bar::AtMost(1.3),
            extras
                .one_shot_us
                .as_ref()
                .map(|shot| shot.strand_over_bare),
        ),
        (
            "one-shot `strand append` over the bare program",
            Bar::AtMost(1.3),
            extras
                .one_shot_us
                .as_ref()
                .and_then(|shot| shot.command_over_bare),
        ),
        (
            "verify scan, MB/s",
            Bar::AtLeast(1_000.0),
            extras.verify_mb_per_s,
        ),
        (
            "fold of the events, MB/s",
            Bar::AtLeast(250.0),
            extras.fold_mb_per_s,
        ),
        (
            "memory of an appending process over an empty program, MiB",
            Bar::AtMost(6.0),
            extras.memory.as_ref().map(crate::measure::Memory::most_mib),
        ),
    ];
    let more = more.into_iter().chain(of_state(extras.state.as_ref()));
    ratios.extend(more.map(|(name, bar, measured)| Ratio::new(name, bar, measured)));
    ratios
}

/// The bars of compaction, readers and claims.
fn of_state(measured: Option<&State>) -> [(&'static str, Bar, Option<f64>); 8] {
    let state = |figure: fn(&State) -> f64| measured.map(figure);
    [
        (
            "append p99 beside a compaction over the same without",
            Bar::AtMost(2.0),
            state(|state| state.p99_with_compaction),
        ),
        (
            "compaction: longest time the lock is held, less one sync, in ms",
            Bar::AtMost(1.0),
            state(|state| state.lock_held_ms - state.sync_ms),
        ),
        (
            "load of 100,000 issues from a snapshot, MB/s",
            Bar::AtLeast(250.0),
            state(|state| state.load_mb_per_s),
        ),
        (
            "load: peak memory over the file",
            Bar::AtMost(3.0),
            state(|state| state.load_peak_over_file),
        ),
        (
            "refresh after 10 records over a full load, in thousandths",
            Bar::AtMost(1.0),
            state(|state| state.refresh_us / state.load_ms),
        ),
        (
            "5 writers' throughput with 64 readers over that without",
            Bar::AtLeast(0.7),
            state(|state| state.throughput_with_readers),
        ),
        (
            "20 agents claiming, over SQLite",
            Bar::AtLeast(5.0),
            measured.and_then(|state| state.claims_over_sqlite),
        ),
        (
            "median from acknowledgement to a follower's sight, in ms",
            Bar::AtMost(1.0),
            state(|state| state.wake_p50_us / 1e3),
        ),
    ]
}

type PeerBars = (Option<System>, &'static str, Vec<(usize, f64)>);

/// Whom strand's rate is compared with, for how many agents, and the least ratio.
fn peers() -> [PeerBars; 3] {
    #[cfg(feature = "peers")]
    let (sqlite, lmdb) = (Some(System::Sqlite), Some(System::Lmdb));
    #[cfg(not(feature = "peers"))]
    let (sqlite, lmdb) = (None, None);
    [
        (sqlite, "SQLite", vec![(5, 8.0), (20, 20.0), (100, 30.0)]),
        (lmdb, "LMDB", vec![(5, 4.0), (20, 12.0)]),
        (
            Some(System::Plan),
            "a plain locked file",
            vec![(5, 2.5), (20, 8.0)],
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
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let all = ratios(&[], &Extras::default());
        assert_eq!(all.len(), 25);
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
        let all = ratios(&rows, &Extras::default());
        let plan = all.iter().find(|ratio| ratio.measured.is_some()).unwrap();
        assert_eq!(
            plan.name,
            "durable appends/s, 5 agents, over a plain locked file"
        );
        assert_eq!((plan.measured, plan.met), (Some(3.0), Some(true)));
    }
}
