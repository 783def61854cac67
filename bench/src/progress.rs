//! Progress: a bar on a terminal, a line now and then elsewhere.

use strand_stress::report::progress::{Goal, State};

pub(crate) struct Progress {
    shown: strand_stress::report::progress::Progress,
    rounds: usize,
    done: u64,
}

impl Progress {
    pub(crate) fn new(steps: usize, rounds: usize) -> Self {
        let shown =
            strand_stress::report::progress::Progress::new(false, Goal::Count(steps as u64));
        Self {
            shown,
            rounds,
            done: 0,
        }
    }

    /// A turn of a round begins.
    pub(crate) fn step(&mut self, round: usize, what: &str) {
        self.part(&format!("round {} of {}: {what}", round + 1, self.rounds));
    }

    /// A measurement outside the rounds begins.
    pub(crate) fn part(&mut self, what: &str) {
        let state = State {
            phase: what,
            done: self.done,
            unit: "steps",
            events: Vec::new(),
        };
        self.shown.show(&state);
        self.done += 1;
    }

    pub(crate) fn finish(&self) {
        self.shown.finish();
    }
}
