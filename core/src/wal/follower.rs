use std::{
    fmt,
    marker::PhantomData,
    time::{Duration, Instant},
};

use crate::{
    error::Result,
    format::{payload::Payload, seq::Seq},
    wal::{
        cursor::{RawRecords, Record},
        durable::{DurableWatch, End},
    },
};

/// The records of a log from a number on, future ones included: from [`crate::Reader::follow`] or
/// [`crate::Reader::follow_new`]. As an iterator, it waits for each record, and never ends.
///
/// Takes no lock and writes nothing. Sleeps until a writer wakes it; without shared hints, it polls
/// every 20 ms. Rotation and compaction do not disturb it, unless its next record was compacted
/// away: then every call returns [`crate::Error::Compacted`]. Load the state with
/// [`crate::LiveIssues::open`], and follow from the record behind it.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strand_core::{Issue, IssueEvent, Log, Options, Reader, Seq, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// let reader = Reader::<IssueEvent>::open(dir.path())?;
/// let mut follower = reader.follow(Seq::new(1))?;
/// assert!(follower.try_next()?.is_none());
///
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let record = follower.next_before(deadline)?.expect("one was appended");
/// assert_eq!((record.seq.get(), follower.next_seq().get()), (1, 2));
///
/// let follower = reader.follow_new()?;
/// log.append(&IssueEvent::close("bd-1", now))?;
/// for record in follower {
///     assert_eq!(record?.seq.get(), 2);
///     break; // It would wait for the next one.
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Follower<P: Payload> {
    watch: DurableWatch,
    records: RawRecords,
    scratch: Vec<u8>,
    payload: PhantomData<fn() -> P>,
}

impl<P: Payload> Follower<P> {
    pub(crate) fn new(watch: DurableWatch, records: RawRecords) -> Self {
        Self {
            watch,
            records,
            scratch: Vec::new(),
            payload: PhantomData,
        }
    }

    /// The next record if it is durable, else `None`. Does not block.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`], [`crate::Error::Corrupt`], [`crate::Error::Io`]. The next call
    /// tries the same record again.
    pub fn try_next(&mut self) -> Result<Option<Record<P>>> {
        if let Some(record) = self.records.next_decoded(&mut self.scratch)? {
            return Ok(Some(record));
        }
        let end = self.watch.end();
        if matches!(end, End::Unknown(_)) {
            self.watch.require_same()?;
        }
        self.records.resume(end);
        self.records.next_decoded(&mut self.scratch)
    }

    /// The next record as soon as it is durable, or `None` at the deadline. Blocks until then.
    ///
    /// # Errors
    /// As [`Follower::try_next`].
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Record<P>>> {
        loop {
            let wake_count = self.watch.wake_count();
            if let Some(record) = self.try_next()? {
                return Ok(Some(record));
            }
            let left = deadline.saturating_duration_since(self.watch.host().now());
            if left.is_zero() {
                return Ok(None);
            }
            self.watch.sleep(wake_count, left);
        }
    }

    /// The number of the next record. Store it to go on from there after a restart.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        Seq::new(self.records.next_seq())
    }
}

/// Each item is the next record as soon as it is durable. Blocks until then. After an error, the
/// next call tries the same record again.
impl<P: Payload> Iterator for Follower<P> {
    type Item = Result<Record<P>>;

    fn next(&mut self) -> Option<Self::Item> {
        const A_WHILE: Duration = Duration::from_hours(1);
        loop {
            let deadline = self.watch.host().now() + A_WHILE;
            if let Some(record) = self.next_before(deadline).transpose() {
                return Some(record);
            }
        }
    }
}

impl<P: Payload> fmt::Debug for Follower<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("next_seq", &self.next_seq())
            .finish_non_exhaustive()
    }
}
