//! The barrier that agents start from, and a second one at which they wait before they report, so
//! that reports and exits disturb nobody who still writes.

use std::{
    path::Path,
    process::Child,
    sync::atomic::Ordering::{AcqRel, Acquire, Release},
    time::Duration,
};

use strand_lock::{SharedPage, monotonic_ns};

use crate::Result;

/// 32-bit words, a cache line apart.
mod word {
    pub(super) const READY: usize = 0;
    pub(super) const RELEASED: usize = 16;
    pub(super) const DONE: usize = 32;
    pub(super) const REPORT: usize = 48;
}
/// The 64-bit word that holds the time of the release.
const RELEASED_NS: usize = 0;

/// How often the parent looks whether an agent has died.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct Barrier(SharedPage);

impl Barrier {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self(SharedPage::open(path)?))
    }

    /// Agent: waits for the release, and answers when that was.
    pub(crate) fn wait_for_release(&self, agents: u32) -> u64 {
        self.arrive(word::READY, agents);
        self.sleep_while_zero(word::RELEASED);
        self.0.u64(RELEASED_NS).load(Acquire)
    }

    /// Agent: waits until all have done their work.
    pub(crate) fn wait_for_others(&self, agents: u32) {
        self.arrive(word::DONE, agents);
        self.sleep_while_zero(word::REPORT);
    }

    /// Parent: releases the agents when all are there, and lets them report when all are done.
    pub(crate) fn lead(&self, children: &mut [Child]) -> Result<()> {
        self.lead_while(children, || ())
    }

    /// As [`Barrier::lead`], and does something while the agents work.
    pub(crate) fn lead_while(&self, children: &mut [Child], work: impl FnOnce()) -> Result<()> {
        self.await_all(word::READY, children)?;
        self.0.u64(RELEASED_NS).store(monotonic_ns(), Release);
        self.open_gate(word::RELEASED);
        work();
        self.await_all(word::DONE, children)?;
        self.open_gate(word::REPORT);
        Ok(())
    }

    fn arrive(&self, index: usize, agents: u32) {
        if self.0.u32(index).fetch_add(1, AcqRel) + 1 == agents {
            self.0.wake_all(index);
        }
    }

    fn sleep_while_zero(&self, index: usize) {
        while self.0.u32(index).load(Acquire) == 0 {
            self.0.wait(index, 0, Duration::from_secs(1));
        }
    }

    fn open_gate(&self, index: usize) {
        self.0.u32(index).store(1, Release);
        self.0.wake_all(index);
    }

    /// Sleeps until the last one has arrived; only that one wakes.
    fn await_all(&self, index: usize, children: &mut [Child]) -> Result<()> {
        let arrived = || self.0.u32(index).load(Acquire);
        loop {
            let seen = arrived();
            if usize::try_from(seen)? >= children.len() {
                return Ok(());
            }
            for child in &mut *children {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("an agent ended before its time: {status}").into());
                }
            }
            self.0.wait(index, seen, LOOK);
        }
    }
}
