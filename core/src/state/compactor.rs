use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::Result, issues::event::IssueEvent, state::compaction::Compacted, telemetry,
    wal::log::Log,
};

/// A thread that compacts a store when it is due, so that no append has to.
///
/// It ends when it is dropped or stopped, and after an error.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use strand_core::{Compactor, IssueLog, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let compactor = Compactor::start(Arc::clone(log.log()), Duration::from_secs(1))?;
/// // … append …
/// let compactions = compactor.stop()?;
/// # assert_eq!(compactions, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Compactor {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<Result<u64>>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    wake_word: Condvar,
}

impl Compactor {
    /// Starts the thread, which asks [`Log::compaction_due`] at this interval. Each process may have one: of those that
    /// want to compact at once, one does.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(log: Arc<Log<IssueEvent>>, interval: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let asked = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("strand compactor".to_owned());
        let compact_when_due = move |log: &Log<IssueEvent>| {
            let mut compactions = 0;
            while !asked.within(interval) {
                if log.compaction_due()? && matches!(log.compact()?, Compacted::Done(_)) {
                    compactions += 1;
                }
            }
            Ok(compactions)
        };
        let thread = builder.spawn(move || {
            let done = compact_when_due(&log);
            done.inspect_err(|error| telemetry::compactor_ended(log.raw.writer.dir.path(), error))
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread, after the compaction that it may be at, and answers how many it did. Blocks until then, as
    /// dropping the compactor does.
    ///
    /// # Errors
    /// The error that had ended it before: those of [`Log::compact`].
    pub fn stop(mut self) -> Result<u64> {
        self.end().unwrap_or(Ok(0))
    }

    fn end(&mut self) -> Option<Result<u64>> {
        let thread = self.thread.take()?;
        *self
            .stop
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.wake_word.notify_all();
        match thread.join() {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Stop {
    /// Waits for the end; false when it has not come within `time`.
    fn within(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .wake_word
            .wait_timeout_while(asked, time, |asked| !*asked);
        let (asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *asked
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
