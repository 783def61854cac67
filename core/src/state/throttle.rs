//! How much room long work leaves to others.

/// So much is done without a look at others: some 30 µs.
const BYTES: usize = 32 << 10;

/// Gives way, or not, after each piece of work.
///
/// A thread that computes keeps its processor for as long as the system's time slice, some milliseconds, whatever
/// its priority, while an append that was just woken waits for it. Giving way often costs nothing when nobody waits.
#[derive(Debug)]
pub(crate) struct Throttle {
    gentle: bool,
    done_bytes: usize,
}

impl Throttle {
    /// Somebody waits for the work.
    pub(crate) const HURRIED: Self = Self {
        gentle: false,
        done_bytes: 0,
    };
    /// Nobody does.
    pub(crate) const GENTLE: Self = Self {
        gentle: true,
        done_bytes: 0,
    };

    /// So many bytes were worked on.
    pub(crate) fn did(&mut self, bytes: usize) {
        self.done_bytes += bytes;
        if self.gentle && self.done_bytes >= BYTES {
            self.done_bytes = 0;
            std::thread::yield_now();
        }
    }
}
