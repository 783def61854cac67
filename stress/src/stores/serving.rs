//! The server of a store: it runs beside the agents, and may be killed as they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stores::seat::{OUTPUT_BYTES_MAX, Seat, with_limit};
use crate::stores::store::{Deed, Server, Store, Told, job};
use crate::stores::template::Values;

/// How long a server may take until it is ready.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(10);

/// A server that runs as long as this lives.
pub(super) struct Serving<'a> {
    store: &'a dyn Store,
    values: Values,
    seat: Seat,
    running: Mutex<Option<Server>>,
    is_up: AtomicBool,
}

impl<'a> Serving<'a> {
    /// Starts the server; `None` if the store has none.
    pub(super) fn start(
        store: &'a dyn Store,
        seat: Seat,
        values: Values,
    ) -> Result<Option<Serving<'a>>, String> {
        if !store.can().serve {
            return Ok(None);
        }
        let serving = Serving {
            store,
            values,
            seat,
            running: Mutex::default(),
            is_up: AtomicBool::new(false),
        };
        serving.restart()?;
        Ok(Some(serving))
    }

    fn running(&self) -> MutexGuard<'_, Option<Server>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills it, starts another one and waits until that is ready.
    pub(super) fn restart(&self) -> Result<(), String> {
        self.kill();
        *self.running() = Some(self.store.serve(&self.seat, &self.values)?);
        let asking = Seat::new(Arc::default(), None);
        let mut agent = self.store.agent(&asking, true);
        let began = Instant::now();
        loop {
            let ask = || agent.perform(&job(Deed::Ready, self.values.clone()));
            let answer = with_limit(&asking, ask);
            if answer.told == Told::Ok {
                self.is_up.store(true, Ordering::SeqCst);
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                let said = self.kill();
                return Err(format!(
                    "the server is not ready after {LIMIT:?}: {:?}\n  it printed: {}",
                    answer.told,
                    said.trim()
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether it is there to be asked.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    /// Sends it the signal that kills it.
    pub(super) fn strike(&self) {
        self.is_up.store(false, Ordering::SeqCst);
        self.seat.kill();
    }

    /// Kills it and waits for its end; what it has printed.
    fn kill(&self) -> String {
        self.strike();
        let Some(mut server) = self.running().take() else {
            return String::new();
        };
        // What can't be reaped or read is not needed for any verdict.
        drop(self.seat.reap(&mut server.child));
        let texts = server
            .printed
            .map(|printed| printed.text(OUTPUT_BYTES_MAX as u64));
        texts.into_iter().flatten().collect()
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
