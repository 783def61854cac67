use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counts what one [`FileLock`](crate::FileLock) did since it was opened, in all threads that
/// used it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// How often the lock was taken.
    pub acquisitions: u64,
    /// How many of these acquisitions had to wait for another holder.
    pub contended: u64,
    /// The total time spent until the lock was taken.
    pub wait: Duration,
    /// The total time it was held.
    pub hold: Duration,
    /// The longest single wait.
    pub longest_wait: Duration,
    /// The longest single hold.
    pub longest_hold: Duration,
}

/// The counters as threads add to them.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    acquisitions: AtomicU64,
    contended: AtomicU64,
    wait: Times,
    hold: Times,
}

impl Totals {
    pub(crate) fn acquired(&self, contended: bool, wait_ns: u64) {
        self.acquisitions.fetch_add(1, Ordering::Relaxed);
        if contended {
            self.contended.fetch_add(1, Ordering::Relaxed);
        }
        self.wait.add(wait_ns);
    }

    pub(crate) fn released(&self, hold_ns: u64) {
        self.hold.add(hold_ns);
    }

    pub(crate) fn read(&self) -> Counters {
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        Counters {
            acquisitions: self.acquisitions.load(Ordering::Relaxed),
            contended: self.contended.load(Ordering::Relaxed),
            wait: time(&self.wait.total_ns),
            hold: time(&self.hold.total_ns),
            longest_wait: time(&self.wait.longest_ns),
            longest_hold: time(&self.hold.longest_ns),
        }
    }
}

#[derive(Debug, Default)]
struct Times {
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Times {
    fn add(&self, ns: u64) {
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.longest_ns.fetch_max(ns, Ordering::Relaxed);
    }
}
