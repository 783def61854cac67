//! The issues that are in the store before the agents begin.

use std::sync::Arc;

use strand_core::{IssueLog, Options};
use strand_lock::monotonic_ns;

use crate::evidence::ids::operation_key;
use crate::evidence::ledger::{Ledger, Operation, Outcome};
use crate::evidence::workload;
use crate::panics::catch_panic;
use crate::run::archive::Archive;
use crate::run::config::Config;
use crate::run::errors::describe;
use crate::run::opened::Opened;
use crate::run::places::Places;
use crate::run::{etcd, writes};

/// Creates the pool of issues that the workload needs, as an agent after the last one would. If the
/// log panics, the ledger says so.
pub(crate) fn set_up(config: &Config, places: &Places) -> Ledger {
    catch_panic(|| create_pool(config, places)).unwrap_or_else(|panic| Ledger {
        fatal_errors: vec![panic],
        ..Ledger::default()
    })
}

fn create_pool(config: &Config, places: &Places) -> Ledger {
    let plans = workload::setup(config.pool());
    let mut ledger = Ledger::default();
    if plans.is_empty() {
        return ledger;
    }
    let written = (|| {
        let log = if let Some(address) = &places.etcd {
            Opened::Etcd(Box::new(etcd::open(address, config.seed)?))
        } else {
            let archive = Archive::new(&places.store, &places.archive);
            let options = Options::default().failpoint_hook(Arc::new(archive));
            Opened::Directory(Box::new(IssueLog::open(&places.store, options)?))
        };
        for (write, plan) in (1..).zip(plans) {
            let key = operation_key(config.agents, write);
            let batch = writes::batch(&plan, &key)?;
            ledger.plans.push((config.agents, write, plan));
            let invoke_ns = monotonic_ns();
            let receipt = log.backend().commit(&batch)?;
            ledger.operations.push(Operation {
                agent: config.agents,
                write,
                invoke_ns,
                outcome: Outcome::Acknowledged {
                    seq: receipt.seq.get(),
                    ack_ns: monotonic_ns(),
                    repeated: receipt.repeated,
                },
            });
        }
        log.close()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })();
    let failed = written.err().map(|error| describe(error.as_ref()));
    ledger
        .fatal_errors
        .extend(failed.map(|error| format!("creating the pool failed: {error}")));
    ledger
}
