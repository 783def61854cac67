use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::Result,
    state::{State, compaction::Compacted},
    telemetry,
    wal::log::Log,
};

/// A thread that compacts a store when it is due, so that no append has to wait for it.
///
/// It ends when it is stopped or dropped, and after an error.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use strand_core::{Compactor, IssueLog, Issues, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let compactor = Compactor::start::<Issues>(Arc::clone(log.log()), Duration::from_secs(1))?;
/// // … append …
/// let compactions = compactor.stop()?;
/// # assert_eq!(compactions, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Compactor {
    /// The thread, and the channel whose end tells it to stop.
    running: Option<(mpsc::Sender<Infallible>, JoinHandle<Result<u64>>)>,
}

impl Compactor {
    /// Starts the thread, which calls [`Log::compaction_due`] at this interval. Each process may
    /// have one: only one of them compacts at a time.
    ///
    /// # Errors
    /// The system's, if it can't start a thread.
    pub fn start<S>(log: Arc<Log<S::Payload>>, interval: Duration) -> std::io::Result<Self>
    where
        S: State,
        S::Payload: 'static,
    {
        let (stop, stopped) = mpsc::channel();
        let compact_when_due = move |log: &Log<S::Payload>| {
            let mut compactions = 0;
            while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                if log.compaction_due()? && matches!(log.compact::<S>()?, Compacted::Done { .. }) {
                    compactions += 1;
                }
            }
            Ok(compactions)
        };
        let builder = std::thread::Builder::new().name("strand compactor".to_owned());
        let thread = builder.spawn(move || {
            let done = compact_when_due(&log);
            done.inspect_err(|error| telemetry::compactor_ended(log.raw.writer.dir.path(), error))
        })?;
        let running = Some((stop, thread));
        Ok(Self { running })
    }

    /// Ends the thread, and returns how many compactions it did. Blocks until a running compaction
    /// is done; so does dropping the compactor.
    ///
    /// # Errors
    /// The error that had ended the thread: those of [`Log::compaction_due`] and [`Log::compact`].
    pub fn stop(mut self) -> Result<u64> {
        self.end().unwrap_or(Ok(0))
    }

    fn end(&mut self) -> Option<Result<u64>> {
        let (stop, thread) = self.running.take()?;
        drop(stop);
        match thread.join() {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(self.end());
        }
    }
}

impl fmt::Debug for Compactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compactor").finish_non_exhaustive()
    }
}
