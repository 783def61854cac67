//! The events of a run, from the children of the runner and from its side threads.

use std::convert::Infallible;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::evidence::ledger::{IncidentKind, Ledger};
use crate::run::child::Ended;
use crate::run::protocol::Message;

/// An event for the runner. `slot` is the index of a process.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process of the harness reports.
    Message { slot: usize, message: Message },
    /// A process of the harness wrote a line that is no message.
    Nonsense { slot: usize, text: String },
    /// A process has ended and was reaped.
    Ended { slot: usize, ended: Ended },
    /// A process is to be killed: the one at `slot`, or the next one that lives.
    Kill { slot: usize },
    /// A process is to be stopped for about so long, chosen as for a kill.
    Stop { slot: usize, time: Duration },
    /// The process that was stopped is to go on.
    Continue,
    /// Something was done to the store.
    Incident(IncidentKind),
    /// The watcher of the store is done.
    Watched(Box<Ledger>),
    /// The machine lost its power.
    PowerLost,
    /// Something outside the log makes the run impossible.
    Failed(String),
}

/// A thread beside the runner: it sends events until the run is over.
#[derive(Debug, Clone)]
pub(crate) struct SideThread {
    pub(crate) events: Sender<Event>,
    /// Disconnected when the run is over.
    pub(crate) over: Receiver<Infallible>,
}

impl SideThread {
    /// Tells the runner, which listens until its side threads have ended.
    pub(crate) fn send(&self, event: Event) {
        drop(self.events.send(event));
    }

    /// Waits for `time`, or until the run is over; `true` when it is.
    pub(crate) fn is_over_within(&self, time: Duration) -> bool {
        self.over.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }
}
