//! How much room a long computation leaves to other threads.

/// A thread computes so much before it yields: for some 30 µs.
const BYTES: usize = 32 << 10;

/// Yields now and then, or not.
///
/// A thread that computes keeps its processor for a time slice of some milliseconds, whatever its
/// priority, while an append that was just woken waits for it. Frequent yields cost nothing while
/// no other thread waits.
#[derive(Debug)]
pub(crate) struct Throttle {
    gentle: bool,
    done_bytes: usize,
}

impl Throttle {
    /// For work that a caller waits for.
    pub(crate) const HURRIED: Self = Self {
        gentle: false,
        done_bytes: 0,
    };
    /// For work in the background.
    pub(crate) const GENTLE: Self = Self {
        gentle: true,
        done_bytes: 0,
    };

    /// Counts work that is done, and yields when there was enough of it.
    pub(crate) fn did(&mut self, bytes: usize) {
        self.done_bytes += bytes;
        if self.gentle && self.done_bytes >= BYTES {
            self.done_bytes = 0;
            std::thread::yield_now();
        }
    }
}
