//! Runs one turn: prepares a store, starts the agents, and collects what they tell.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    Result,
    agent::{Orders, Told},
    barrier::Barrier,
    schedule::Step,
    statistics::quantile,
};

/// What is the same for all turns.
pub(crate) struct Runner<'a> {
    pub(crate) scratch: &'a Path,
    pub(crate) events_file: &'a Path,
    pub(crate) cap: Duration,
}

/// What came of one turn.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// From the release of the barrier to the last acknowledgement.
    pub(crate) seconds: f64,
    pub(crate) appends: usize,
    /// Of all appends of all agents, sorted.
    pub(crate) latencies_ns: Vec<u64>,
    /// The slowest agent's time for one append over the fastest agent's, which is the ratio of
    /// their finishing times when all wrote the same number.
    pub(crate) slowest_over_fastest: f64,
    /// The time was over before all was written.
    pub(crate) capped: bool,
}

impl Turn {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn of(told: Vec<Told>, writes: usize) -> Self {
        let agents = told.len();
        let throttle = |told: &Told| told.finish_ns as f64 / told.latencies_ns.len().max(1) as f64;
        let slowest = told.iter().map(throttle).fold(0.0, f64::max);
        let fastest = told.iter().map(throttle).fold(f64::INFINITY, f64::min);
        let finish_ns = told.iter().map(|told| told.finish_ns).max().unwrap_or(0);
        let mut latencies_ns: Vec<u64> = told
            .into_iter()
            .flat_map(|told| told.latencies_ns)
            .collect();
        latencies_ns.sort_unstable();
        Self {
            seconds: finish_ns as f64 / 1e9,
            appends: latencies_ns.len(),
            capped: latencies_ns.len() < agents * writes,
            slowest_over_fastest: slowest / fastest,
            latencies_ns,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn appends_per_s(&self) -> f64 {
        self.appends as f64 / self.seconds
    }

    /// A quantile of the latencies in microseconds.
    pub(crate) fn quantile_us(&self, q: f64) -> f64 {
        quantile(&self.latencies_ns, q) / 1e3
    }
}

impl Runner<'_> {
    pub(crate) fn run(&self, step: &Step) -> Result<Turn> {
        let turn = tempfile::tempdir_in(self.scratch)?;
        let store = turn.path().join("store");
        fs::create_dir(&store)?;
        step.system.prepare(&store)?;
        self.settle()?;
        let page = turn.path().join("barrier");
        let barrier = Barrier::open(&page)?;
        let program = std::env::current_exe()?;
        let mut children = Children(Vec::with_capacity(step.agents));
        for agent in 0..step.agents {
            let orders = Orders {
                system: step.system,
                store: store.clone(),
                page: page.clone(),
                events_file: self.events_file.to_owned(),
                agent,
                agents: step.agents,
                writes: step.writes,
                cap: self.cap,
            };
            let child = Command::new(&program)
                .args(orders.args())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            children.0.push(child);
        }
        barrier.lead(&mut children.0)?;
        let mut told = Vec::with_capacity(step.agents);
        for child in std::mem::take(&mut children.0) {
            let output = child.wait_with_output()?;
            if !output.status.success() {
                return Err(format!("an agent failed: {step}: {}", output.status).into());
            }
            told.push(serde_json::from_slice(&output.stdout)?);
        }
        Ok(Turn::of(told, step.writes))
    }

    /// Has the filesystem finish what earlier turns left it to do.
    pub(crate) fn settle(&self) -> Result<()> {
        Ok(File::open(self.scratch)?.sync_all()?)
    }
}

/// Agents, ended when the run ends early.
#[derive(Default)]
pub(crate) struct Children(pub(crate) Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself; there is nothing else to do about it here.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(finish_ns: u64, latencies_ns: &[u64]) -> Told {
        Told {
            finish_ns,
            latencies_ns: latencies_ns.to_vec(),
        }
    }

    #[test]
    fn a_turn_lasts_until_its_slowest_agent_ends() {
        let turn = Turn::of(
            vec![told(4_000, &[2_000, 2_000]), told(6_000, &[1_000, 5_000])],
            2,
        );
        assert!((turn.appends_per_s() - 4.0 / 6e-6).abs() < 1.0);
        assert!((turn.slowest_over_fastest - 1.5).abs() < 1e-9);
        assert_eq!(turn.latencies_ns, [1_000, 2_000, 2_000, 5_000]);
        assert!(!turn.capped);
    }

    #[test]
    fn a_turn_that_was_cut_off_says_so_and_compares_the_pace() {
        let turn = Turn::of(vec![told(6_000, &[6_000]), told(6_000, &[1_500; 4])], 4);
        assert!(turn.capped);
        assert!((turn.slowest_over_fastest - 4.0).abs() < 1e-9);
    }
}
