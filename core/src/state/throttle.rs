//! How much room a long computation leaves to the appends of its store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::wal::{shm::Hints, store_dir::StoreDir};

/// A thread computes so much before it looks who waits: for some 30 µs.
const BYTES: usize = 32 << 10;

/// How long after an append the next one is expected.
const APPENDS_WITHIN: Duration = Duration::from_millis(20);

/// Yields the processor to those who append to the same store, or to nobody.
///
/// A thread that computes keeps its processor for a time slice of some milliseconds, while an
/// append that was just woken waits for it. Yields cost little while nobody else can run. Beside
/// processes that only compute, each one costs their time slices, so they have to end some day.
#[derive(Debug)]
pub(crate) struct Throttle {
    beside: Option<Beside>,
    done_bytes: usize,
}

/// The appends of a store, as its hints show them.
#[derive(Debug)]
struct Beside {
    dir: StoreDir,
    hints: Arc<Hints>,
    last_seq: u64,
    /// From this record on, the log grows faster than it is folded.
    hurries_from: u64,
    appended: Option<Instant>,
    started: Instant,
    yielded: Duration,
}

impl Throttle {
    /// For work that a caller waits for.
    pub(crate) const HURRIED: Self = Self {
        beside: None,
        done_bytes: 0,
    };

    /// For work in the background beside appends, on so many records that end with `through`.
    pub(crate) fn beside_appends(
        dir: &StoreDir,
        hints: Arc<Hints>,
        through: u64,
        records: u64,
    ) -> Self {
        let beside = Beside {
            hints,
            last_seq: through,
            hurries_from: through.saturating_add(records.max(1_000)),
            appended: None,
            started: dir.host().now(),
            yielded: Duration::ZERO,
            dir: dir.clone(),
        };
        Self {
            beside: Some(beside),
            done_bytes: 0,
        }
    }

    /// Counts work that is done, and yields when there was enough of it.
    pub(crate) fn did(&mut self, bytes: usize) {
        self.done_bytes += bytes;
        if self.done_bytes >= BYTES {
            self.done_bytes = 0;
            if let Some(beside) = &mut self.beside {
                beside.make_room();
            }
        }
    }
}

impl Beside {
    fn make_room(&mut self) {
        let now = self.dir.host().now();
        if !self.expects_an_append(now) || self.last_seq >= self.hurries_from {
            return;
        }
        // At most as long as the work took, so that it takes at most twice the time.
        let worked = (now - self.started).saturating_sub(self.yielded);
        if self.yielded <= worked {
            std::thread::yield_now();
            self.yielded += self.dir.host().now() - now;
        }
    }

    fn expects_an_append(&mut self, now: Instant) -> bool {
        // While the page is there, it can be touched.
        let last_seq = self.hints.check().ok().and_then(|()| self.hints.tail_seq());
        if let Some(seq) = last_seq.filter(|seq| *seq != self.last_seq) {
            self.last_seq = seq;
            self.appended = Some(now);
        }
        self.appended
            .is_some_and(|then| now - then < APPENDS_WITHIN)
    }
}
