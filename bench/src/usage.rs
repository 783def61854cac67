//! What an agent uses of the machine, as Linux reports it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Of one agent or of several together; `None` where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) processor_ns: Option<u64>,
    /// Context switches, wanted or not.
    pub(crate) switches: Option<u64>,
    /// Syncs of files with records.
    pub(crate) syncs: Option<u64>,
}

impl Usage {
    /// Of this thread until now. The syncs are those of the whole process.
    pub(crate) fn now(syncs: Option<u64>) -> Self {
        let schedule = fs::read_to_string("/proc/thread-self/schedstat").ok();
        let status = fs::read_to_string("/proc/thread-self/status").ok();
        Self {
            processor_ns: schedule.as_deref().and_then(processor_ns),
            switches: status.as_deref().and_then(switches),
            syncs,
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(self, other: Self, of: fn(u64, u64) -> u64) -> Self {
        let of = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| of(a, b));
        Self {
            processor_ns: of(self.processor_ns, other.processor_ns),
            switches: of(self.switches, other.switches),
            syncs: of(self.syncs, other.syncs),
        }
    }
}

/// The first number is the time on a processor, in nanoseconds.
fn processor_ns(schedule: &str) -> Option<u64> {
    schedule.split(' ').next()?.parse().ok()
}

fn switches(status: &str) -> Option<u64> {
    let count = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    };
    Some(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_what_linux_writes() {
        assert_eq!(processor_ns("1234567 890 12\n"), Some(1_234_567));
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), Some(10));
        assert_eq!((processor_ns(""), switches("Name:\tx\n")), (None, None));
    }

    #[test]
    fn what_one_agent_does_not_know_is_not_known_of_all() {
        let usage = |switches| Usage {
            switches,
            ..Usage::default()
        };
        assert_eq!(usage(Some(5)).plus(usage(Some(2))), usage(Some(7)));
        assert_eq!(usage(Some(5)).since(usage(Some(2))), usage(Some(3)));
        assert_eq!(usage(Some(5)).plus(usage(None)), usage(None));
    }
}
