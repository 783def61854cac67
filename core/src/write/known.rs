//! The state that conditions are checked against, kept from one to the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    error::Result,
    issues::{issues::Issues, timestamp::Timestamp},
    state::materialize::Materialized,
    wal::{durable::End, raw_log::RawLog, shm::Hints, store_dir::StoreDir},
};

/// The state of a log, once it was asked for.
#[derive(Default)]
pub(crate) struct KnownIssues(Mutex<Option<Materialized<Issues>>>);

/// The state, while no other thread uses it.
pub(crate) struct Known<'a>(MutexGuard<'a, Option<Materialized<Issues>>>);

impl KnownIssues {
    /// The state through the tail.
    pub(crate) fn at_tail(&self, raw: &RawLog) -> Result<Known<'_>> {
        if raw.writer.hints().is_shared() {
            return self.through(raw, raw.look(Hints::tail_seq)?);
        }
        // Without shared memory, only the lock tells a record from one that may be undone.
        let locked = raw.writer.lock()?;
        let known = self.through(raw, locked.validate_tail()?.at.seq)?;
        locked.unlock()?;
        Ok(known)
    }

    /// The state through this record, which must be published. Forgets what is too old.
    pub(crate) fn through(&self, raw: &RawLog, seq: u64) -> Result<Known<'_>> {
        let mut known = self.lock();
        known.advance(&raw.writer.dir, seq)?;
        let (options, host) = (&raw.writer.options, raw.writer.host());
        if let Some(state) = known.0.as_mut().filter(|state| state.is_due_to_forget()) {
            state.forget(options, Timestamp::from_ms(host.unix_ms()));
        }
        Ok(known)
    }

    /// The state as it was when it was last used.
    pub(crate) fn lock(&self) -> Known<'_> {
        Known(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known<'_> {
    /// Reads new records through this one. After an error, the next call reads the whole state.
    pub(crate) fn advance(&mut self, dir: &StoreDir, seq: u64) -> Result<&Issues> {
        let end = End::Seq(seq);
        let state = match self.0.take() {
            None => Materialized::load(dir, || end)?,
            Some(mut state) => {
                state.advance(end)?;
                state
            }
        };
        Ok(&self.0.insert(state).state)
    }

    /// The state; `None` if it was never read.
    pub(crate) fn issues(&self) -> Option<&Issues> {
        self.0.as_ref().map(|state| &state.state)
    }
}
