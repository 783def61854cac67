//! The crate against real etcd nodes, which the tests start.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

mod compaction;
mod failures;
mod following;
#[cfg(target_os = "linux")]
mod hosts;
mod opening;
mod writing;

use strand_core::Timestamp;
use strand_etcd::{Address, EtcdLog, Options, testing::Nodes};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

fn address(nodes: &Nodes, store: &str) -> Address {
    nodes.address(store).parse().unwrap()
}

fn open(nodes: &Nodes, store: &str) -> EtcdLog {
    open_with(nodes, store, Options::default())
}

fn open_with(nodes: &Nodes, store: &str, options: Options) -> EtcdLog {
    EtcdLog::open_or_create(&address(nodes, store), options)
        .unwrap()
        .0
}
