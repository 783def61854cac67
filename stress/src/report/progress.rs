//! Progress on standard error: on a terminal a bar with a live line for each kind of event,
//! elsewhere a plain line from time to time. No colours.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::quantiles::count;
use crate::report::text::grouped;
use crate::run::runner::Moment;

/// Nothing is shown before this time.
const AFTER: Duration = Duration::from_secs(1);
/// How often there is a plain line.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The length of the bar in its own units.
const BAR_LENGTH: u32 = 1_000;

/// When it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// After this many.
    Count(u64),
    /// After about this time.
    Time(Duration),
}

/// The present state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State<'a> {
    /// The current phase; may be empty.
    pub phase: &'a str,
    /// How many are done.
    pub done: u64,
    /// The unit of `done`.
    pub unit: &'a str,
    /// Other events and their numbers.
    pub events: Vec<(&'a str, u64)>,
}

/// Shows how far something has come.
#[derive(Debug)]
pub struct Progress {
    goal: Goal,
    started: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    /// Since when there has been no line.
    Lines(Mutex<Instant>),
    Live(ProgressBar),
}

impl Progress {
    /// Of something that begins now.
    #[must_use]
    pub fn new(is_quiet: bool, goal: Goal) -> Progress {
        let started = Instant::now();
        let shown = if is_quiet {
            Shown::Nothing
        } else {
            let bar = ProgressBar::new(BAR_LENGTH.into());
            // Not a terminal, or one that can't move its cursor.
            if bar.is_hidden() {
                Shown::Lines(Mutex::new(started))
            } else {
                let style = ProgressStyle::with_template("{bar:30} {msg}");
                Shown::Live(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
            }
        };
        Progress {
            goal,
            started,
            shown,
        }
    }

    /// Shows the state, if that is due.
    pub fn show(&self, state: &State<'_>) {
        let elapsed = self.started.elapsed();
        match &self.shown {
            Shown::Live(bar) if elapsed > AFTER => {
                let lines = lines(self.goal, elapsed, state);
                bar.set_message(lines.join("\n"));
                bar.set_position(self.goal.position(elapsed, state.done));
            }
            Shown::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let lines = lines(self.goal, elapsed, state);
                    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
                    eprintln!("{:.0} s: {}", elapsed.as_secs_f64(), lines.join("; "));
                }
            }
            Shown::Live(_) | Shown::Nothing => {}
        }
    }

    /// Prints a line that stays.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Lines(_) => eprintln!("{line}"),
            Shown::Live(bar) => bar.suspend(|| eprintln!("{line}")),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Shown::Live(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Goal {
    fn position(self, elapsed: Duration, done: u64) -> u64 {
        let length = u64::from(BAR_LENGTH);
        match self {
            Goal::Count(all) => (done.saturating_mul(length) / all.max(1)).min(length),
            Goal::Time(all) => {
                let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                (ms(elapsed).saturating_mul(length) / ms(all).max(1)).min(length)
            }
        }
    }

    /// The estimated time left.
    fn left(self, elapsed: Duration, done: u64) -> Option<Duration> {
        match self {
            Goal::Time(all) => Some(all.saturating_sub(elapsed)),
            Goal::Count(_) if done == 0 => None,
            Goal::Count(all) => {
                let left = elapsed.as_secs_f64() * count(all.saturating_sub(done)) / count(done);
                Duration::try_from_secs_f64(left).ok()
            }
        }
    }
}

impl Moment {
    /// The events that occurred, and their numbers.
    #[must_use]
    pub fn events(&self) -> Vec<(&'static str, u64)> {
        let mut events = vec![
            ("refused", self.refused),
            ("killed", self.killed),
            ("stopped", self.stopped),
            ("tails torn", self.torn),
            ("hints deleted", self.forgotten),
            ("files displaced", self.displaced),
            ("moved", self.moved),
            ("compactions", self.compactions),
        ];
        events.retain(|(_, times)| *times > 0);
        events
    }
}

/// A line for the state, and one for each kind of event.
fn lines(goal: Goal, elapsed: Duration, state: &State<'_>) -> Vec<String> {
    let rate = |number: u64| match count(number) / elapsed.as_secs_f64().max(0.001) {
        few if few < 9.95 => format!("{few:.1}"),
        many => format!("{many:.0}"),
    };
    let of = match goal {
        Goal::Count(all) => format!(" of {}", grouped(all)),
        Goal::Time(_) => String::new(),
    };
    let left = goal.left(elapsed, state.done);
    let left = left.map_or_else(String::new, |left| format!(", {} left", short(left)));
    let phase = if state.phase.is_empty() {
        String::new()
    } else {
        format!("{}: ", state.phase)
    };
    let first = format!(
        "{phase}{}{of} {}, {}/s{left}",
        grouped(state.done),
        state.unit,
        rate(state.done)
    );
    let event =
        |(name, times): &(&str, u64)| format!("{:>12} {name}, {}/s", grouped(*times), rate(*times));
    std::iter::once(first)
        .chain(state.events.iter().map(event))
        .collect()
}

/// In one or two units.
fn short(time: Duration) -> String {
    match time.as_secs() {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_has_rate_and_end_and_each_event_its_own() {
        let moment = Moment {
            acknowledged: 1_500,
            refused: 0,
            killed: 12,
            compactions: 3,
            ..Moment::default()
        };
        let state = State {
            done: moment.acknowledged,
            unit: "acknowledged",
            events: moment.events(),
            ..State::default()
        };
        let shown = lines(Goal::Count(6_000), Duration::from_secs(3), &state);
        assert_eq!(
            shown,
            [
                "1,500 of 6,000 acknowledged, 500/s, 9.0 s left",
                "          12 killed, 4.0/s",
                "           3 compactions, 1.0/s",
            ]
        );
    }

    #[test]
    fn nobody_knows_the_end_before_the_beginning() {
        let count = Goal::Count(10);
        assert_eq!(count.left(Duration::from_secs(5), 0), None);
        assert_eq!(count.position(Duration::ZERO, 20), u64::from(BAR_LENGTH));
        let time = Goal::Time(Duration::from_secs(100));
        let late = Duration::from_secs(130);
        assert_eq!(time.left(late, 0), Some(Duration::ZERO));
        assert_eq!(time.position(late, 0), u64::from(BAR_LENGTH));
        assert_eq!(time.position(Duration::from_secs(25), 0), 250);
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (4, "4.0 s"),
            (119, "119 s"),
            (125, "2 min 5 s"),
            (7_260, "2 h 1 min"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
