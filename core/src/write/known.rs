//! The state that conditions are checked against, kept from one to the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    error::Result,
    issues::{issues::Issues, timestamp::Timestamp},
    state::{
        materialize::Materialized,
        points::{Points, Wanted},
        recent::Recent,
    },
    wal::{durable::End, raw_log::RawLog, shm::Hints, store_dir::StoreDir},
};

/// The state of a log, once it was asked for.
#[derive(Default)]
pub(crate) struct KnownIssues(Mutex<State>);

#[derive(Default)]
struct State {
    /// All issues, if a caller wanted to see them.
    whole: Option<Materialized<Issues>>,
    /// Otherwise, how to find some.
    points: Option<Points>,
    /// Those that are not closed, if a caller wanted to see them, and a file has them.
    recent: Option<Recent>,
}

/// The state, while no other thread uses it.
pub(crate) struct Known<'a>(MutexGuard<'a, State>);

impl KnownIssues {
    /// The whole state through the tail.
    pub(crate) fn at_tail(&self, raw: &RawLog) -> Result<Known<'_>> {
        self.act_at_tail(raw, |known, seq| {
            known.whole(&raw.writer.dir, seq).map(drop)
        })?;
        let mut known = self.lock();
        known.forget(raw);
        Ok(known)
    }

    /// What the state through the tail has of this, and how many issues there may be.
    pub(crate) fn part_at_tail(&self, raw: &RawLog, wanted: &Wanted) -> Result<(Issues, usize)> {
        self.act_at_tail(raw, |known, seq| {
            let dir = &raw.writer.dir;
            if known.0.whole.is_some() {
                let issues = known.whole(dir, seq)?;
                return Ok((wanted.part_of(issues), issues.len()));
            }
            let part = known.points(dir, seq)?.part(wanted)?;
            Ok((part, known.points(dir, seq)?.issues_at_most()))
        })
    }

    /// Calls `look` with the issues that are not closed, and perhaps others, through the tail.
    pub(crate) fn unclosed_at_tail<T>(
        &self,
        raw: &RawLog,
        look: impl FnOnce(&Issues) -> T,
    ) -> Result<T> {
        self.act_at_tail(raw, |known, seq| {
            let dir = &raw.writer.dir;
            if known.0.whole.is_some() {
                return known.whole(dir, seq).map(look);
            }
            if let Ok(Some(mut recent)) = known.take_recent(dir, seq)
                && let Ok(Some(unclosed)) = recent.unclosed(seq)
            {
                let looked = look(unclosed);
                known.0.recent = Some(recent);
                return Ok(looked);
            }
            let unclosed = known.points(dir, seq).and_then(Points::unclosed);
            if let Ok(Some(unclosed)) = unclosed {
                return Ok(look(&unclosed));
            }
            // Whatever is wrong, reading everything says so.
            let all = Materialized::load(dir, || End::Seq(seq))?;
            Ok(look(&all.state))
        })
    }

    fn act_at_tail<T>(
        &self,
        raw: &RawLog,
        act: impl FnOnce(&mut Known<'_>, u64) -> Result<T>,
    ) -> Result<T> {
        if raw.writer.hints().is_shared() {
            let seq = raw.look(Hints::tail_seq)?;
            return act(&mut self.lock(), seq);
        }
        // Without shared memory, only the lock tells a record from one that may be undone.
        let locked = raw.writer.lock()?;
        let seq = locked.validate_tail()?.at.seq;
        let done = act(&mut self.lock(), seq)?;
        locked.unlock()?;
        Ok(done)
    }

    /// Reads ahead through this record, which must be published, so that there is little left to do
    /// under the lock. Returns what the state has of `wanted`; `None` if all of it is there anyway.
    pub(crate) fn prepare(
        &self,
        raw: &RawLog,
        seq: u64,
        wanted: &Wanted,
    ) -> Result<Option<Issues>> {
        let mut known = self.lock();
        let dir = &raw.writer.dir;
        if known.0.whole.is_some() {
            known.whole(dir, seq)?;
            known.forget(raw);
            return Ok(None);
        }
        if let Some(part) = known.part_of_recent(seq, wanted) {
            return Ok(Some(part));
        }
        let points = known.points(dir, seq)?;
        points.keep_up()?;
        points.part(wanted).map(Some)
    }

    /// The state as it was when it was last used.
    pub(crate) fn lock(&self) -> Known<'_> {
        Known(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known<'_> {
    /// The state through this record, as far as `wanted` goes. `part` is an earlier answer.
    pub(crate) fn part<'a>(
        &'a mut self,
        dir: &StoreDir,
        seq: u64,
        wanted: &Wanted,
        part: &'a mut Option<Issues>,
    ) -> Result<&'a Issues> {
        if self.0.whole.is_some() {
            return self.whole(dir, seq);
        }
        if let Some(found) = self.part_of_recent(seq, wanted) {
            return Ok(part.insert(found));
        }
        let points = self.points(dir, seq)?;
        let renewed = match part.take() {
            Some(mut part) => {
                points.renew(&mut part, wanted)?;
                part
            }
            None => points.part(wanted)?,
        };
        Ok(part.insert(renewed))
    }

    /// The whole state through this record. After an error, the next call reads it anew.
    fn whole(&mut self, dir: &StoreDir, seq: u64) -> Result<&Issues> {
        let end = End::Seq(seq);
        let state = match self.0.whole.take() {
            None => Materialized::load(dir, || end)?,
            Some(mut state) => {
                state.advance(end)?;
                state
            }
        };
        (self.0.points, self.0.recent) = (None, None);
        Ok(&self.0.whole.insert(state).state)
    }

    /// The parts of the state through this record. After an error, the next call opens the files
    /// anew.
    fn points(&mut self, dir: &StoreDir, seq: u64) -> Result<&mut Points> {
        let end = End::Seq(seq);
        let points = match self.0.points.take() {
            None => Points::load(dir, || end)?,
            Some(mut points) => {
                points.advance(end)?;
                points
            }
        };
        Ok(self.0.points.insert(points))
    }

    /// The issues that are not closed, to go on from. Whoever is done puts them back.
    fn take_recent(&mut self, dir: &StoreDir, seq: u64) -> Result<Option<Recent>> {
        match self.0.recent.take() {
            None => Recent::load(dir, seq),
            recent => Ok(recent),
        }
    }

    /// What those issues have of this, for a program that has not had to ask for others. After an
    /// error, they are not asked again.
    fn part_of_recent(&mut self, seq: u64, wanted: &Wanted) -> Option<Issues> {
        if self.0.points.is_some() {
            return None;
        }
        let mut recent = self.0.recent.take()?;
        let part = recent.part(wanted, seq).ok()?;
        self.0.recent = Some(recent);
        part
    }

    /// Writes down, for others, where the records are that were read.
    pub(crate) fn save(&mut self) {
        if let Some(points) = &mut self.0.points {
            points.save();
        }
        if let Some(recent) = &mut self.0.recent {
            recent.save();
        }
    }

    /// Forgets what is too old, when it is time to.
    fn forget(&mut self, raw: &RawLog) {
        let (options, host) = (&raw.writer.options, raw.writer.host());
        if let Some(state) = self
            .0
            .whole
            .as_mut()
            .filter(|state| state.is_due_to_forget())
        {
            state.forget(options, Timestamp::from_ms(host.unix_ms()));
        }
    }

    /// The whole state; `None` if it was never read.
    pub(crate) fn issues(&self) -> Option<&Issues> {
        self.0.whole.as_ref().map(|state| &state.state)
    }
}
