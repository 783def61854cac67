//! Visits and checks all states that can be reached, nearest first.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::{
    power,
    protocol::{Broken, Cause, Model, Property, check},
    state::{Key, State, Writer},
};

/// More states would take too long for a test.
const STATES_MAX: usize = 32 << 20;

const CANNOT_FINISH: Broken = Broken(Property::Progress, "a writer can't finish");

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    pub(crate) disks: usize,
    pub(crate) time: Duration,
}

/// A violation, and the shortest path to it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) broken: Broken,
    pub(crate) states: usize,
    pub(crate) trace: String,
}

pub(crate) fn search(model: &Model) -> Result<Report, Found> {
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut moves = Vec::new();
    let mut disks = HashSet::new();
    // Where each state's successors begin in `edges`, which has those without a death or failure.
    let mut starts = Vec::new();
    let mut edges = Vec::new();
    let mut steps = 0;
    seen.insert(model.start().pack(), 0);
    while let Some(key) = seen.keys.get(starts.len()).copied() {
        let from = to_u32(starts.len());
        starts.push(edges.len());
        let state = State::unpack(key);
        let looked = check(&state).and_then(|()| power::check(&state, &mut disks));
        if let Err(broken) = looked {
            return Err(seen.found(broken, from));
        }
        model.moves(&state, &mut moves);
        // This is found by `stuck` too, but only once all states are known.
        if !is_end(&state) && moves.iter().all(|(cause, _)| *cause != Cause::Step) {
            return Err(seen.found(CANNOT_FINISH, from));
        }
        for (cause, next) in &mut moves {
            steps += 1;
            match next {
                Err(broken) => return Err(seen.found(*broken, from)),
                Ok(next) => {
                    let at = seen.insert(next.pack(), from);
                    if *cause == Cause::Step {
                        edges.push(at);
                    }
                }
            }
        }
        assert!(seen.keys.len() < STATES_MAX, "too many states");
    }
    starts.push(edges.len());
    if let Some(stuck) = stuck(&seen.keys, &starts, &edges) {
        return Err(seen.found(CANNOT_FINISH, stuck));
    }
    Ok(Report {
        states: seen.keys.len(),
        moves: steps,
        disks: disks.len(),
        time: began.elapsed(),
    })
}

fn is_end(state: &State) -> bool {
    state.writers.iter().all(Writer::is_over)
}

/// A state from which the writers cannot all finish, even if no more of them die.
fn stuck(keys: &[Key], starts: &[usize], edges: &[u32]) -> Option<u32> {
    let is_end = |key: &Key| is_end(&State::unpack(*key));
    let mut ends: Vec<bool> = keys.iter().map(is_end).collect();
    // Most edges lead to a later state, so a few rounds from the back suffice.
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..keys.len()).rev() {
            if !ends[at]
                && edges[starts[at]..starts[at + 1]]
                    .iter()
                    .any(|to| ends[*to as usize])
            {
                ends[at] = true;
                changed = true;
            }
        }
    }
    ends.iter().position(|ends| !ends).map(to_u32)
}

fn to_u32(at: usize) -> u32 {
    u32::try_from(at).unwrap()
}

/// The states found, in the order in which they were, with a table to find them by: open
/// addressing, since this is where the time goes.
#[derive(Default)]
struct Seen {
    keys: Vec<Key>,
    parents: Vec<u32>,
    /// 1 + an index of `keys`; 0 for none. A power of two long.
    table: Vec<u32>,
}

impl Seen {
    /// The index of a state, which is added if it is new.
    fn insert(&mut self, key: Key, parent: u32) -> u32 {
        if self.table.len() <= self.keys.len() * 2 {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut slot = hash(key) & mask;
        while let Some(at) = self.table[slot].checked_sub(1) {
            if self.keys[at as usize] == key {
                return at;
            }
            slot = (slot + 1) & mask;
        }
        self.keys.push(key);
        self.parents.push(parent);
        let at = to_u32(self.keys.len());
        self.table[slot] = at;
        at - 1
    }

    fn grow(&mut self) {
        let mask = (self.table.len() * 4).max(1 << 12) - 1;
        self.table = vec![0; mask + 1];
        for (at, key) in self.keys.iter().enumerate() {
            let mut slot = hash(*key) & mask;
            while self.table[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.table[slot] = to_u32(at + 1);
        }
    }

    fn found(&self, broken: Broken, at: u32) -> Found {
        let mut way = vec![at];
        while let Some(at) = way.last().copied().filter(|at| *at > 0) {
            way.push(self.parents[at as usize]);
        }
        let mut trace = String::new();
        for at in way.iter().rev() {
            let state = State::unpack(self.keys[*at as usize]);
            writeln!(trace, "{state}").unwrap();
        }
        Found {
            broken,
            states: self.keys.len(),
            trace,
        }
    }
}

fn hash((shared, [a, b, c]): Key) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = shared.wrapping_mul(ODD);
    sum = (sum ^ sum >> 29 ^ a).wrapping_mul(ODD);
    sum = (sum ^ sum >> 31 ^ b).wrapping_mul(ODD);
    sum = (sum ^ sum >> 30 ^ c).wrapping_mul(ODD);
    usize::try_from(sum >> 32).unwrap()
}
