//! One process of many that append at once.

use std::{io::Write as _, path::PathBuf, str::FromStr as _, time::Duration};

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};
use strand_lock::monotonic_ns;

use crate::{Result, barrier::Barrier, events, systems::System};

/// The first argument of such a process.
pub(crate) const COMMAND: &str = "agent";

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) system: System,
    pub(crate) store: PathBuf,
    pub(crate) page: PathBuf,
    pub(crate) events_file: PathBuf,
    pub(crate) agent: usize,
    pub(crate) agents: usize,
    pub(crate) writes: usize,
    pub(crate) cap: Duration,
}

impl Orders {
    pub(crate) fn args(&self) -> [std::ffi::OsString; 9] {
        [
            COMMAND.into(),
            self.system.name().into(),
            (&self.store).into(),
            (&self.page).into(),
            (&self.events_file).into(),
            self.agent.to_string().into(),
            self.agents.to_string().into(),
            self.writes.to_string().into(),
            self.cap.as_millis().to_string().into(),
        ]
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut next = || args.next().ok_or("too few arguments");
        Ok(Self {
            system: System::from_str(&next()?, false)?,
            store: next()?.into(),
            page: next()?.into(),
            events_file: next()?.into(),
            agent: usize::from_str(&next()?)?,
            agents: usize::from_str(&next()?)?,
            writes: usize::from_str(&next()?)?,
            cap: Duration::from_millis(u64::from_str(&next()?)?),
        })
    }
}

/// What an agent tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// From the release to this agent's last acknowledgement.
    pub(crate) finish_ns: u64,
    /// Of each append, in order.
    pub(crate) latencies_ns: Vec<u64>,
}

pub(crate) fn main(args: impl Iterator<Item = String>) -> Result<()> {
    let orders = Orders::parse(args)?;
    let agents = u32::try_from(orders.agents)?;
    let events = events::load(&orders.events_file, orders.agent, orders.writes)?;
    let mut latencies_ns = Vec::with_capacity(orders.writes);
    let barrier = Barrier::open(&orders.page)?;
    let mut appender = orders.system.open(&orders.store)?;

    let released_ns = barrier.wait_for_release(agents);
    let cap_ns = u64::try_from(orders.cap.as_nanos())?;
    let mut before_ns = monotonic_ns();
    for event in events.iter().cycle().take(orders.writes) {
        appender.append(event)?;
        let now_ns = monotonic_ns();
        latencies_ns.push(now_ns - before_ns);
        before_ns = now_ns;
        if now_ns - released_ns > cap_ns {
            break;
        }
    }
    barrier.wait_for_others(agents);

    let told = Told {
        finish_ns: before_ns - released_ns,
        latencies_ns,
    };
    Ok(std::io::stdout().write_all(&serde_json::to_vec(&told)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_command_line() {
        let orders = Orders {
            system: System::Plan,
            store: "a b".into(),
            page: "page".into(),
            events_file: "events".into(),
            agent: 3,
            agents: 5,
            writes: 20,
            cap: Duration::from_millis(1_500),
        };
        let args = orders.args().map(|arg| arg.into_string().unwrap());
        assert_eq!(args[0], COMMAND);
        assert_eq!(Orders::parse(args.into_iter().skip(1)).unwrap(), orders);
    }
}
