use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exclusive,
    Shared,
}

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    None,
    Now,
    Until(Instant),
}

impl Limit {
    /// How long to sleep before the next attempt, at most `most`; `None` when the time is over.
    pub(crate) fn left(self, most: Duration) -> Option<Duration> {
        match self {
            Self::None => Some(most),
            Self::Now => None,
            Self::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                (!left.is_zero()).then(|| left.min(most))
            }
        }
    }
}

/// Excludes the threads of one process, which a file lock does not tell apart.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A thread holds the lock exclusively, or is about to take it.
    closed: bool,
    /// How many threads hold it shared.
    shared: usize,
    /// How many threads sleep until this changes.
    waiting: usize,
}

/// How a thread got through the gate.
pub(crate) enum Entry<'a> {
    /// Another thread already holds the file lock shared, for this one too.
    Joined,
    /// This thread must now take the file lock.
    First(First<'a>),
}

impl Gate {
    /// Waits for this process's other threads; returns whether it had to. `None` if the time is
    /// over.
    pub(crate) fn enter(&self, kind: Kind, limit: Limit) -> Option<(Entry<'_>, bool)> {
        let mut contended = false;
        let mut state = self.state();
        loop {
            if kind == Kind::Shared && state.shared > 0 {
                state.shared += 1;
                return Some((Entry::Joined, contended));
            }
            if !state.closed && state.shared == 0 {
                state.closed = true;
                return Some((Entry::First(First { gate: self, kind }), contended));
            }
            contended = true;
            let left = limit.left(Duration::from_secs(1))?;
            state.waiting += 1;
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Lets a thread leave. The last one calls `unlock_file` before any other thread can enter.
    pub(crate) fn leave<E>(
        &self,
        kind: Kind,
        unlock_file: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.state();
        if kind == Kind::Shared {
            state.shared -= 1;
        }
        let result = if state.shared == 0 {
            unlock_file()
        } else {
            Ok(())
        };
        self.open(state);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the gate, and wakes the sleepers: a system call, so only if there are any.
    fn open(&self, mut state: MutexGuard<'_, State>) {
        state.closed = false;
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            self.changed.notify_all();
        }
    }
}

/// A thread that closed the gate behind itself to take the file lock. Dropping it reopens the gate.
#[must_use]
pub(crate) struct First<'a> {
    gate: &'a Gate,
    kind: Kind,
}

impl First<'_> {
    /// Reports that this thread has the file lock; a shared holder lets others in to share it.
    pub(crate) fn locked_file(self) {
        if self.kind == Kind::Shared {
            let mut state = self.gate.state();
            state.shared = 1;
            self.gate.open(state);
        }
        std::mem::forget(self);
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.gate.open(self.gate.state());
    }
}
