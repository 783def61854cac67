//! The server of a store: it runs beside the agents, and may be killed as they are.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::evidence::violation::Violation;
use crate::stores::seat::{Printed, Seat, with_limit};
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
    kills: AtomicU64,
}

/// A server that did not come up.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// How it was started.
    command: String,
    /// How it is.
    status: String,
    /// The end of what it has printed.
    said: String,
}

impl Failure {
    pub(super) fn violation(self, when: &str) -> Violation {
        Violation::ServerFailed {
            when: when.to_owned(),
            command: self.command,
            status: self.status,
            said: self.said,
        }
    }
}

impl From<String> for Failure {
    fn from(status: String) -> Failure {
        Failure {
            status,
            ..Failure::default()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server did not come up: {}\n  it was: {}\n  it printed: {}",
            self.status,
            self.command,
            self.said.trim()
        )
    }
}

impl<'a> Serving<'a> {
    /// Starts the server; `None` if the store has none.
    pub(super) fn start(
        store: &'a dyn Store,
        seat: Seat,
        values: Values,
    ) -> Result<Option<Serving<'a>>, Failure> {
        if !store.can().serve {
            return Ok(None);
        }
        let serving = Serving {
            store,
            values,
            seat,
            running: Mutex::default(),
            is_up: AtomicBool::new(false),
            kills: AtomicU64::new(0),
        };
        serving.restart()?;
        Ok(Some(serving))
    }

    fn running(&self) -> MutexGuard<'_, Option<Server>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills it, starts another one and waits until that is ready, or nobody waits any more.
    ///
    /// # Errors
    /// It does not come up, or the one before had ended by itself.
    pub(super) fn restart(&self) -> Result<(), Failure> {
        if let Some(failure) = self.own_end() {
            return Err(failure);
        }
        self.is_up.store(false, Ordering::SeqCst);
        // Counted before its clients can notice it, and after nobody takes it for up any more.
        let is_running = self.running().is_some();
        self.kills
            .fetch_add(u64::from(is_running), Ordering::SeqCst);
        drop(self.kill());
        *self.running() = Some(self.store.serve(&self.seat, &self.values)?);
        let asking = Seat::new(Arc::default(), None);
        let mut agent = self.store.agent(&asking, true);
        let began = Instant::now();
        while !self.seat.is_over() {
            let had_ended = self.has_ended();
            let ask = || agent.perform(&job(Deed::Ready, self.values.clone()));
            let answer = with_limit(&asking, ask);
            if answer.told == Told::Ok {
                self.is_up.store(true, Ordering::SeqCst);
                return Ok(());
            }
            if had_ended {
                return Err(self.kill().unwrap_or_default());
            }
            if began.elapsed() > LIMIT {
                let status = format!("it is not ready after {LIMIT:?}: {:?}", answer.told);
                return Err(Failure {
                    status,
                    ..self.kill().unwrap_or_default()
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it is there to be asked.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    /// How often it was killed to be started again.
    pub(super) fn kills(&self) -> u64 {
        self.kills.load(Ordering::SeqCst)
    }

    /// Whether it has ended and is not killed yet.
    pub(super) fn has_ended(&self) -> bool {
        let running = self.running();
        let server = running.as_ref();
        server.is_some_and(|server| Seat::has_ended(&server.child))
    }

    /// How it ended, if it did so by itself.
    pub(super) fn own_end(&self) -> Option<Failure> {
        if self.has_ended() { self.kill() } else { None }
    }

    /// It does not come up again. Where it is to be killed.
    pub(super) fn close(&self) -> &Seat {
        self.is_up.store(false, Ordering::SeqCst);
        self.seat.close();
        &self.seat
    }

    /// Kills it and waits for its end; what there is to say of it.
    fn kill(&self) -> Option<Failure> {
        self.is_up.store(false, Ordering::SeqCst);
        self.seat.kill();
        let mut server = self.running().take()?;
        // What can't be reaped or read is not needed for any verdict.
        let status = match self.seat.reap(&mut server.child) {
            Ok((status, _)) => status.to_string(),
            Err(error) => error,
        };
        let said = server.printed.map(Printed::last_lines);
        Some(Failure {
            command: server.line,
            status,
            said: said.into_iter().flatten().collect(),
        })
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        drop(self.kill());
    }
}
