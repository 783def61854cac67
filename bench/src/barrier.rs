//! Two barriers in shared memory: agents begin at one, and wait at the other before they report.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Duration;

use strand_lock::{SharedPage, monotonic_ns};

use crate::error::Result;

/// 32-bit words, a cache line apart.
mod word {
    pub(super) const READY: usize = 0;
    pub(super) const RELEASED: usize = 16;
    pub(super) const DONE: usize = 32;
    pub(super) const REPORT: usize = 48;
}
/// The 64-bit word that holds the time of the release.
const RELEASED_NS: usize = 0;

/// How often the parent checks that all processes are alive.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Barrier(SharedPage);

impl Barrier {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self(SharedPage::open(path)?))
    }

    /// Agent: waits for the release, and returns its time.
    pub(crate) fn wait_for_release(&self, team: u32) -> u64 {
        self.arrive(word::READY, team);
        self.sleep_while_zero(word::RELEASED);
        self.0.u64(RELEASED_NS).load(Acquire)
    }

    /// Agent: waits until the whole team has finished.
    pub(crate) fn wait_for_others(&self, team: u32) {
        self.arrive(word::DONE, team);
        self.sleep_while_zero(word::REPORT);
    }

    /// Parent: releases the team when all of it are ready, runs `meanwhile`, and lets them report
    /// when all have finished. The team are the processes, or their threads.
    pub(crate) fn lead(
        &self,
        team: u32,
        children: &mut [Child],
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.await_all(word::READY, team, children)?;
        self.0.u64(RELEASED_NS).store(monotonic_ns(), Release);
        self.open_gate(word::RELEASED);
        meanwhile()?;
        self.await_all(word::DONE, team, children)?;
        self.open_gate(word::REPORT);
        Ok(())
    }

    fn arrive(&self, index: usize, team: u32) {
        if self.0.u32(index).fetch_add(1, AcqRel) + 1 == team {
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

    /// Sleeps until the last process has arrived, which wakes it.
    fn await_all(&self, index: usize, team: u32, children: &mut [Child]) -> Result<()> {
        let arrived = || self.0.u32(index).load(Acquire);
        loop {
            let seen = arrived();
            if seen >= team {
                return Ok(());
            }
            for child in &mut *children {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("a process ended too early: {status}").into());
                }
            }
            self.0.wait(index, seen, CHECK_INTERVAL);
        }
    }
}
