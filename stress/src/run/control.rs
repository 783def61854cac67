//! A page of memory that the processes of a run share, in a file outside the store. It has the
//! start signal, and a bit for each agent that is set while the agent holds the log's lock.
//!
//! Why bits and no counter: a holder that is killed cannot decrement a counter, and every later
//! holder would look like a second one. A bit says *which* holder was seen, and the runner knows
//! whether it had been killed by then.
//!
//! - `u32(0)`: 0 before the start, 1 after it, 2 when all agents are done. Changed by the runner.
//! - `u64(agent / 64)`, bit `agent % 64`: this agent holds the lock. Changed by the holder, and by
//!   the runner after it has reaped the agent.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strand_lock::{PageError, SharedPage};

use crate::run::config::{AGENTS_MAX, COMPACTORS_MAX};

const GO_WORD: usize = 0;
const BITS: usize = 64;
/// How long a waiter sleeps at most before it looks again.
const GO_WAIT: Duration = Duration::from_millis(200);

/// The highest mark. Agents have the first ones; then follow one for a process that opens a log for
/// many, and those of the compactors.
pub const MARK_MAX: u32 = AGENTS_MAX + COMPACTORS_MAX;

const _: () = assert!((MARK_MAX as usize) / BITS < SharedPage::U64_WORDS);

/// The shared page of one run.
#[derive(Debug)]
pub struct Control {
    page: SharedPage,
    /// Words that hold the bits of this run's agents.
    words: usize,
}

impl Control {
    /// Maps the page in the file `path`, which is created when missing, for marks through
    /// number `marks`.
    ///
    /// # Errors
    /// The file could not be opened, grown or mapped.
    ///
    /// # Panics
    /// When there are marks above [`MARK_MAX`].
    pub fn open(path: &Path, marks: u32) -> Result<Control, PageError> {
        assert!(
            marks <= MARK_MAX,
            "Config::validate limits the number of agents"
        );
        Ok(Control {
            page: SharedPage::open(path)?,
            words: place(marks).0 + 1,
        })
    }

    /// Releases all that wait in [`Control::wait_for_go`], now or later.
    pub fn go(&self) {
        self.page.u32(GO_WORD).store(1, Ordering::SeqCst);
        self.page.wake_all(GO_WORD);
    }

    /// Says that the agents are done.
    pub fn end(&self) {
        self.page.u32(GO_WORD).store(2, Ordering::SeqCst);
        self.page.wake_all(GO_WORD);
    }

    /// Whether the agents are done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.page.u32(GO_WORD).load(Ordering::SeqCst) == 2
    }

    /// Waits for `time`, or until the agents are done.
    pub fn pause(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.is_over() {
                return;
            }
            self.page.wait(GO_WORD, 1, left.min(GO_WAIT));
        }
    }

    /// Waits for [`Control::go`].
    pub fn wait_for_go(&self) {
        while self.page.u32(GO_WORD).load(Ordering::SeqCst) == 0 {
            self.page.wait(GO_WORD, 0, GO_WAIT);
        }
    }

    /// Marks `agent` as a holder of the lock and returns which others are marked.
    ///
    /// Of two simultaneous holders, at least one sees the other: each sets its bit before it looks,
    /// and all these accesses are sequentially consistent.
    #[must_use]
    pub fn enter(&self, agent: u32) -> Vec<u32> {
        let (own_word, own_bit) = place(agent);
        self.page.u64(own_word).fetch_or(own_bit, Ordering::SeqCst);
        let mut others = Vec::new();
        for word in 0..self.words {
            let mut bits = self.page.u64(word).load(Ordering::SeqCst);
            if word == own_word {
                bits &= !own_bit;
            }
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                others.push(u32::try_from(word * BITS).unwrap_or(u32::MAX) + bit);
            }
        }
        others
    }

    /// Clears the mark of `agent`; `false` if it was not set.
    #[expect(clippy::must_use_candidate, reason = "what it does is the point")]
    pub fn leave(&self, agent: u32) -> bool {
        let (word, bit) = place(agent);
        self.page.u64(word).fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}

fn place(agent: u32) -> (usize, u64) {
    let agent = agent as usize;
    (agent / BITS, 1 << (agent % BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_seen_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let one = Control::open(&path, MARK_MAX).unwrap();
        let two = Control::open(&path, MARK_MAX).unwrap();
        assert_eq!(one.enter(3), Vec::<u32>::new());
        assert_eq!(two.enter(MARK_MAX), [3]);
        assert_eq!(one.enter(64), [3, MARK_MAX]);
        assert!(one.leave(3));
        assert!(!one.leave(3));
        assert!(two.leave(64));
        assert_eq!(two.enter(3), [MARK_MAX]);
    }

    #[test]
    fn go_reaches_those_who_wait_and_those_who_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let control = Control::open(&path, AGENTS_MAX).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Control::open(&path, AGENTS_MAX).unwrap().wait_for_go());
            }
            control.go();
        });
        Control::open(&path, AGENTS_MAX).unwrap().wait_for_go();
        assert!(!control.is_over());
        std::thread::scope(|scope| {
            scope.spawn(|| control.pause(Duration::from_mins(10)));
            control.end();
        });
        assert!(control.is_over());
    }
}
