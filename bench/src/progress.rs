//! Progress: a bar on a terminal, a line per round elsewhere.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: ProgressBar,
    rounds: usize,
    shown: Option<usize>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(steps: usize, rounds: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = "{elapsed_precise} {bar:30} {pos}/{len}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            bar,
            rounds,
            shown: None,
            started: Instant::now(),
        }
    }

    /// A turn of a round begins.
    pub(crate) fn step(&mut self, round: usize, what: &str) {
        let round_of = format!("round {} of {}", round + 1, self.rounds);
        if self.bar.is_hidden() && self.shown != Some(round) {
            self.shown = Some(round);
            self.line(&round_of);
        }
        self.bar.inc(1);
        self.bar.set_message(format!("{round_of}: {what}"));
    }

    /// A measurement outside the rounds begins.
    pub(crate) fn part(&mut self, what: &str) {
        if self.bar.is_hidden() {
            self.line(what);
        }
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }
}
