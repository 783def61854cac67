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

/// The shortest pause after a failure,
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// and the longest one, unless the interval is longer.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A thread that compacts a store when it is due, so that no append has to wait for it.
///
/// It ends when it is stopped or dropped. After an error it tries again: after twice the interval,
/// then after twice as long each time, up to a minute. Each failure is the event `compactor failed`
/// of the feature `tracing`.
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
        let run = move || {
            let (mut compactions, mut last) = (0, Ok(()));
            let mut pause = interval;
            while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                last = compact_if_due::<S>(&log).map(|done| compactions += u64::from(done));
                pause = match &last {
                    Ok(()) => interval,
                    Err(error) => {
                        telemetry::compactor_failed(log.raw.writer.dir.path(), error);
                        (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX).max(interval)
                    }
                };
            }
            last.map(|()| compactions)
        };
        let builder = std::thread::Builder::new().name("strand compactor".to_owned());
        let thread = builder.spawn(run)?;
        let running = Some((stop, thread));
        Ok(Self { running })
    }

    /// Ends the thread, and returns how many compactions it did. Blocks until a running compaction
    /// is done; so does dropping the compactor.
    ///
    /// # Errors
    /// The error of the last try, if that failed: those of [`Log::compaction_due`] and
    /// [`Log::compact`].
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

/// Whether a compaction was due, and is done.
fn compact_if_due<S: State>(log: &Log<S::Payload>) -> Result<bool> {
    Ok(log.compaction_due()? && matches!(log.compact::<S>()?, Compacted::Done { .. }))
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
