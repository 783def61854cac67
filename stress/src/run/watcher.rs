//! Reads the store while others write to it, like any other process would.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strand_core::{IssueEvent, Reader};
use strand_lock::monotonic_ns;

use crate::evidence::ledger::{DurableSeen, Ledger, Seen, View};
use crate::panics::catch_panic;
use crate::run::agent::read_records;
use crate::run::errors::describe;
use crate::run::events::{Event, SideThread};

/// How often the durable sequence number is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Reads of the whole log take at most this part of the run's time.
const READ_SHARE: u32 = 20;

/// Reads until the run is over, and once more; then sends all that was seen. `compacts`: the store
/// is compacted during the run. `hands`: see [`Nemesis::hands`](super::nemesis::Nemesis::hands).
pub(crate) fn watch(side: &SideThread, store: &Path, compacts: bool, hands: &Mutex<()>) {
    let mut seen = Ledger::default();
    let open = || {
        let _hands = hands.lock().unwrap_or_else(PoisonError::into_inner);
        Reader::open(store)
    };
    let watched = catch_panic(|| read(side, &open()?, compacts, &mut seen));
    let error = match watched {
        Ok(read) => read.err().map(|error| describe(&error)),
        Err(panic) => Some(panic),
    };
    seen.fatal_errors
        .extend(error.map(|e| format!("a reader beside the run failed: {e}")));
    side.send(Event::Watched(Box::new(seen)));
}

fn read(
    side: &SideThread,
    reader: &Reader<IssueEvent>,
    compacts: bool,
    seen: &mut Ledger,
) -> Result<(), strand_core::Error> {
    let mut last_read = None;
    let mut read_took = Duration::ZERO;
    loop {
        let over = side.is_over_within(LOOK_INTERVAL);
        let begin_ns = monotonic_ns();
        if let Ok(Some(seq)) = reader.durable_seq() {
            seen.durable_seen.push(DurableSeen {
                begin_ns,
                end_ns: monotonic_ns(),
                seq: seq.get(),
            });
        }
        let is_due = last_read
            .is_none_or(|at: Instant| at.elapsed() >= read_took.saturating_mul(READ_SHARE));
        if is_due || over {
            let started = Instant::now();
            let begin_ns = monotonic_ns();
            let prefix = read_records(|| reader.records())?;
            let end_ns = monotonic_ns();
            // An empty view of a compacted log says nothing.
            if prefix.count > 0 || !compacts {
                seen.views.push(View {
                    reader: "reader beside the run".into(),
                    begin_ns,
                    end_ns,
                    through_tail: false,
                    seen: Seen::Records(prefix),
                });
            }
            read_took = started.elapsed();
            last_read = Some(Instant::now());
        }
        if over {
            return Ok(());
        }
    }
}
