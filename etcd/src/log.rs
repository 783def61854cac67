//! The log of a store on etcd: opening, writes, the state.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use strand_core::{
    Batch, CommitError, Compacted, Error, InvalidEvent, Issue, IssueEvent, Issues, Patch, Receipt,
    Result, Seq, Version,
    backend::{self, Backend, Decision, Follow, decide},
};

use crate::{
    address::Address,
    api::{Alarms, Compare, Members, Operation, Put, Range, RangeResponse, Status, Txn},
    checks,
    cluster::Cluster,
    error::{Failed, Problem},
    follow::EtcdFollower,
    gateway::Gateway,
    keys::{Epoch, FORMAT, Meta},
    nonce::nonce,
    options::Options,
    plan::{CurrentEpoch, Fate, Write},
    view::View,
};

/// The longest payload of a record, in bytes. By default, etcd takes requests of 1.5 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// How many issues one write may name. By default, etcd takes transactions of 128 operations.
pub const BATCH_ISSUES_MAX: usize = 120;

/// How long members have to say which version they run.
const VERSION_PATIENCE: Duration = Duration::from_secs(1);
/// One write in so many, of those in an epoch that is long enough, begins a new one.
const ROTATE_ONE_IN: u64 = 8;

/// A log of issues on etcd, for agents on any number of machines: what
/// [`IssueLog`](strand_core::IssueLog) is in a directory. Share it between threads by reference.
///
/// ```no_run
/// use strand_core::Issue;
/// use strand_etcd::{EtcdLog, Options};
///
/// let address = "etcd://10.0.0.1,10.0.0.2,10.0.0.3/team".parse()?;
/// let (log, _) = EtcdLog::open_or_create(&address, Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// log.claim("bd-1", "agent-7")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EtcdLog {
    pub(crate) cluster: Arc<Cluster>,
    view: Mutex<Option<View>>,
}

impl EtcdLog {
    /// Opens a store. Blocks until the members have said that they may be used.
    ///
    /// # Errors
    /// [`Error::Unfit`] with a [`Problem`] that says why the cluster must not be used;
    /// [`Error::NoStore`]; [`Error::Unavailable`].
    pub fn open(address: &Address, options: Options) -> Result<Self> {
        let opened = Self::connect(address, options).and_then(|log| {
            log.require_store()?;
            Ok(log)
        });
        opened.map_err(|failed| failed.reading(address))
    }

    /// Opens a store, and creates it if there is none. True if it did.
    ///
    /// # Errors
    /// As [`EtcdLog::open`].
    pub fn open_or_create(address: &Address, options: Options) -> Result<(Self, bool)> {
        let opened = Self::connect(address, options).and_then(|log| match log.require_store() {
            Err(failed) if failed.problem == Problem::NoStore => {
                let created = log.make(&nonce())?;
                Ok((log, created))
            }
            found => found.map(|()| (log, false)),
        });
        opened.map_err(|failed| failed.reading(address))
    }

    fn connect(address: &Address, options: Options) -> Result<Self, Failed> {
        let gateway = Gateway::new(address, &options)?;
        let allow_single_member = options.allow_single_member || address.allow_single_member;
        require_fit(
            &gateway,
            allow_single_member,
            Instant::now() + options.timeout,
        )?;
        if let Some(dir) = &options.memory {
            gateway.remember_in(dir);
        }
        Ok(Self {
            cluster: Cluster::new(gateway, address.clone(), options),
            view: Mutex::default(),
        })
    }

    fn require_store(&self) -> Result<(), Failed> {
        let head = self.cluster.head(0, self.cluster.deadline())?;
        let found = format!("{:x}", self.cluster.gateway.cluster());
        let expected = head.meta.cluster;
        if expected == found {
            Ok(())
        } else {
            Err(Problem::OtherCluster { expected, found }.into())
        }
    }

    fn make(&self, by: &str) -> Result<bool, Failed> {
        let (gateway, keys) = (&self.cluster.gateway, &self.cluster.keys);
        let epoch = Epoch {
            number: 1,
            by: by.to_owned(),
            compacted: Some(0),
        };
        let meta = Meta {
            format: FORMAT,
            store: by.to_owned(),
            cluster: format!("{:x}", gateway.cluster()),
            snapshot: None,
        };
        let txn = Txn {
            compare: vec![
                Compare::absent(&keys.epoch()),
                Compare::absent(&keys.meta()),
            ],
            success: vec![put(&keys.epoch(), &epoch)?, put(&keys.meta(), &meta)?],
            failure: Vec::new(),
        };
        let deadline = self.cluster.deadline();
        let made = self.cluster.txn(&txn, deadline)?.answer.succeeded;
        let head = self.cluster.head(0, deadline)?;
        // An attempt that got no answer may have made it.
        Ok(made || head.meta.store == by)
    }

    /// Appends one event without any condition, in one round trip. Unlike a directory, it looks at
    /// the event's idempotency key: if a record has it, nothing is written.
    ///
    /// # Errors
    /// [`Error::InvalidEvent`], also for a key of another operation, and
    /// [`Error::RecordTooLarge`]: nothing was written.
    /// [`Error::Unavailable`]: as its [`outcome`](Error::outcome) says.
    pub fn append(&self, event: &IssueEvent) -> Result<Receipt> {
        self.append_batch(std::slice::from_ref(event))
    }

    /// Appends several events as one record, without any condition, in one round trip.
    ///
    /// # Errors
    /// As [`EtcdLog::append`].
    pub fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt> {
        let batch = Batch::new();
        let batch = events.iter().cloned().fold(batch, Batch::event);
        let key = events.first().and_then(|event| event.key.clone());
        let (batch, key) = with_key(batch, key);
        let (nonce, digest) = (nonce(), backend::digest(&batch));
        let payload = encode(&batch)?;
        let ids = backend::ids(&batch);
        let ids: Vec<(&str, Option<u64>)> = ids.into_iter().map(|id| (id, None)).collect();
        let write = Write {
            nonce: &nonce,
            digest: &digest,
            key: &key,
            payload: &payload,
            ids: &ids,
        };
        let mut attempts = Attempts::new(&self.cluster);
        loop {
            let epoch = self.cluster.epoch();
            let failing = |failed: Failed| failed.writing(&self.cluster.address, &key);
            match attempts.send(&write, &epoch).map_err(failing)? {
                Fate::Stored(seq) | Fate::StoredBefore(seq) => return Ok(self.stored(seq)),
                Fate::Repeated { seq, same: true } => {
                    return Ok(backend::receipt(Seq::new(seq), true));
                }
                Fate::Repeated { seq, same: false } => {
                    let key = key.clone();
                    let seq = Seq::new(seq);
                    let message = CommitError::KeyReused { key, seq }.to_string();
                    return Err(InvalidEvent::Encoding { message }.into());
                }
                Fate::NewEpoch(epoch) => self.cluster.learn(&epoch),
                // There was no condition that could have failed.
                Fate::Changed => {}
                Fate::NoStore => {
                    return Err(Failed::from(Problem::NoStore).reading(&self.cluster.address));
                }
            }
        }
    }

    /// Writes a batch as one record if all its conditions hold: all of it or nothing. One round
    /// trip, if no other agent has changed one of its issues since this process last looked.
    ///
    /// The first call reads the state of all issues, and keeps it in memory.
    ///
    /// # Errors
    /// [`CommitError::Conflict`]: a condition does not hold; nothing was written.
    /// [`CommitError::KeyReused`]: the key belongs to another operation; nothing was written.
    /// [`CommitError::Log`] as [`EtcdLog::append`].
    pub fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        let key = backend::key(batch).map(str::to_owned);
        let (batch, key) = with_key(batch.clone(), key);
        let (nonce, digest) = (nonce(), backend::digest(&batch));
        let payload = encode(&batch)?;
        let ids = backend::ids(&batch);
        let mut attempts = Attempts::new(&self.cluster);
        // Whether the state was read during this call: then a refusal is final.
        let mut is_fresh = false;
        let failing = |attempts: &Attempts<'_>, failed: Failed| -> CommitError {
            let maybe_done = attempts.maybe_done;
            let failed = Failed {
                maybe_done,
                ..failed
            };
            failed.writing(&self.cluster.address, &key).into()
        };
        let read_now = |view: &mut Option<View>, attempts: &Attempts<'_>| {
            let read = self.cluster.bring_up(view, attempts.deadline).map(drop);
            read.map_err(|failed| failing(attempts, failed))
        };
        loop {
            let mut view = self.view();
            if view.is_none() {
                is_fresh = true;
                read_now(&mut view, &attempts)?;
            }
            let Some(state) = view.as_mut() else {
                unreachable!("it was read just now");
            };
            let epoch = self.cluster.epoch();
            if !epoch.has_tokens_since(&state.epoch) {
                is_fresh = true;
                read_now(&mut view, &attempts)?;
                continue;
            }
            match decide(&batch, &state.issues, u64::MAX) {
                Decision::Write => {}
                Decision::Repeat(seq) => return Ok(backend::receipt(seq, true)),
                Decision::KeyReused(seq) => return Err(CommitError::KeyReused { key, seq }),
                Decision::Refuse(conflict) if is_fresh => return Err(conflict.into()),
                Decision::Invalid(error) if is_fresh => return Err(error.into()),
                Decision::Refuse(_) | Decision::Invalid(_) => {
                    is_fresh = true;
                    read_now(&mut view, &attempts)?;
                    continue;
                }
            }
            let known = ids.iter().map(|id| (*id, Some(state.known(id))));
            let known: Vec<(&str, Option<u64>)> = known.collect();
            drop(view);
            let write = Write {
                nonce: &nonce,
                digest: &digest,
                key: &key,
                payload: &payload,
                ids: &known,
            };
            let fate = attempts.send(&write, &epoch);
            match fate.map_err(|failed| failing(&attempts, failed))? {
                Fate::Stored(seq) => {
                    if let (Ok(record), Some(view)) =
                        (crate::cluster::decode(seq, &payload), self.view().as_mut())
                    {
                        view.written(seq, record.events);
                    }
                    return Ok(self.stored(seq));
                }
                Fate::StoredBefore(seq) => return Ok(self.stored(seq)),
                Fate::Repeated { seq, same: true } => {
                    return Ok(backend::receipt(Seq::new(seq), true));
                }
                Fate::Repeated { seq, same: false } => {
                    let seq = Seq::new(seq);
                    return Err(CommitError::KeyReused { key, seq });
                }
                Fate::NewEpoch(epoch) => self.cluster.learn(&epoch),
                Fate::Changed => {
                    is_fresh = true;
                    read_now(&mut self.view(), &attempts)?;
                }
                Fate::NoStore => return Err(failing(&attempts, Problem::NoStore.into())),
            }
        }
    }

    /// The receipt of a record that was stored just now. Begins a new epoch when it is time.
    fn stored(&self, seq: u64) -> Receipt {
        let epoch = self.cluster.epoch();
        let is_long = seq.saturating_sub(epoch.revision) > self.cluster.options.epoch_revisions;
        if is_long && seq.is_multiple_of(ROTATE_ONE_IN) {
            // Another write will try again if this fails.
            self.begin_epoch(&epoch, epoch.compacted, self.cluster.deadline())
                .ok();
        }
        backend::receipt(Seq::new(seq), false)
    }

    /// Begins the epoch after this one. `None` if another process was faster.
    pub(crate) fn begin_epoch(
        &self,
        after: &CurrentEpoch,
        compacted: u64,
        deadline: Instant,
    ) -> Result<Option<CurrentEpoch>, Failed> {
        let key = self.cluster.keys.epoch();
        let next = Epoch {
            number: after.number + 1,
            by: nonce(),
            compacted: Some(compacted),
        };
        let txn = Txn {
            compare: vec![Compare::at(&key, after.revision)],
            success: vec![put(&key, &next)?],
            failure: vec![Operation::RequestRange(Range {
                key: key.as_slice().into(),
                ..Range::default()
            })],
        };
        let answer = self.cluster.txn(&txn, deadline)?.answer;
        let epoch = if answer.succeeded {
            CurrentEpoch {
                number: next.number,
                revision: answer.header.revision,
                compacted,
            }
        } else {
            let found = answer.responses.first();
            let Some(now) = found.and_then(|found| found.response_range.kvs.first()) else {
                return Ok(None);
            };
            // An attempt that got no answer may have begun it.
            if crate::plan::value::<Epoch>(now)? != next {
                self.cluster.learn(&crate::plan::current_epoch(now)?);
                return Ok(None);
            }
            crate::plan::current_epoch(now)?
        };
        self.cluster.learn(&epoch);
        Ok(Some(epoch))
    }

    /// Calls `look` with the state: everything that was acknowledged before the call is in it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Unfit`], [`Error::NoStore`].
    pub fn with_issues<T>(&self, look: impl FnOnce(&Issues) -> T) -> Result<T> {
        let mut view = self.view();
        let deadline = self.cluster.deadline();
        let state = self.cluster.bring_up(&mut view, deadline);
        let state = state.map_err(|failed| failed.reading(&self.cluster.address))?;
        Ok(look(&state.issues))
    }

    /// Creates an issue; see [`EtcdLog::commit`].
    ///
    /// # Errors
    /// As [`EtcdLog::commit`]; a conflict if the issue exists.
    pub fn create(&self, issue: Issue) -> Result<Receipt, CommitError> {
        self.commit(&Batch::new().create(issue))
    }

    /// Replaces an issue that is at this version; see [`EtcdLog::commit`].
    ///
    /// # Errors
    /// As [`EtcdLog::commit`]; a conflict if the issue is at another version.
    pub fn update_if(
        &self,
        issue: Issue,
        expected_version: Version,
    ) -> Result<Receipt, CommitError> {
        self.commit(&Batch::new().update_if(issue, expected_version))
    }

    /// Changes some fields of an issue, whatever its version; see [`EtcdLog::commit`].
    ///
    /// # Errors
    /// As [`EtcdLog::commit`]; a conflict if the issue does not exist.
    pub fn patch(&self, id: &str, patch: Patch) -> Result<Receipt, CommitError> {
        self.commit(&Batch::new().patch(id, patch))
    }

    /// Claims an open issue without an assignee for an agent. Of any number of concurrent claims on
    /// any machines, one succeeds.
    ///
    /// # Errors
    /// As [`EtcdLog::commit`]; a conflict if the issue is not open, or has an assignee.
    pub fn claim(&self, id: &str, agent: &str) -> Result<Receipt, CommitError> {
        self.commit(&Batch::new().claim(id, agent))
    }

    /// The records from a number on, future ones included.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::Unavailable`], [`Error::Unfit`], [`Error::NoStore`].
    pub fn follow(&self, from_seq: Seq) -> Result<EtcdFollower> {
        EtcdFollower::open(Arc::clone(&self.cluster), from_seq.get())
    }

    /// Whether there are so many records that a compaction is worth it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Unfit`].
    pub fn compaction_due(&self) -> Result<bool> {
        let count = self.count_records(self.cluster.deadline());
        let count = count.map_err(|failed| failed.reading(&self.cluster.address))?;
        Ok(count >= self.cluster.options.compact_after_records)
    }

    pub(crate) fn count_records(&self, deadline: Instant) -> Result<u64, Failed> {
        let keys = &self.cluster.keys;
        let range = Range {
            key: (&keys.records_from(0)).into(),
            range_end: (&keys.records_end()).into(),
            count_only: true,
            ..Range::default()
        };
        let counted = self.cluster.gateway.call("/v3/kv/range", &range, deadline);
        counted
            .map(|answered| -> RangeResponse { answered.answer })
            .map(|answer| answer.count)
    }

    /// How many calls were answered since the log was opened.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.cluster.gateway.round_trips()
    }

    /// The last epoch that this process knows: a write that meets a later one needs another round
    /// trip.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.cluster.epoch().number
    }

    fn view(&self) -> MutexGuard<'_, Option<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts of one write.
struct Attempts<'a> {
    cluster: &'a Cluster,
    deadline: Instant,
    /// An attempt got no answer, and may have been carried out, or may be one day.
    maybe_done: bool,
}

impl<'a> Attempts<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            deadline: cluster.deadline(),
            maybe_done: false,
        }
    }

    /// Sends the write until it is answered. An answer other than *stored* proves that no attempt
    /// so far was carried out or ever will be: its key was absent, and one of its comparisons fails
    /// from now on, since epochs and issues never return to a revision.
    fn send(&mut self, write: &Write<'_>, epoch: &CurrentEpoch) -> Result<Fate, Failed> {
        let txn = write.txn(&self.cluster.keys, epoch);
        match self.cluster.txn(&txn, self.deadline) {
            Ok(answered) => {
                self.maybe_done |= answered.maybe_done_before;
                let fate = write
                    .fate(epoch, &answered.answer)
                    .map_err(|problem| Failed {
                        problem,
                        maybe_done: self.maybe_done,
                    })?;
                self.maybe_done = false;
                Ok(fate)
            }
            Err(failed) => {
                self.maybe_done |= failed.maybe_done;
                let maybe_done = self.maybe_done;
                Err(Failed {
                    maybe_done,
                    ..failed
                })
            }
        }
    }
}

/// The batch with its key, or with one that is made up.
fn with_key(batch: Batch, key: Option<String>) -> (Batch, String) {
    let key = key.unwrap_or_else(|| format!("auto/{}", nonce()));
    (batch.key(key.as_str()), key)
}

/// The payload of a batch that etcd takes.
fn encode(batch: &Batch) -> Result<Vec<u8>> {
    let payload = backend::encode(batch)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Error::RecordTooLarge {
            bytes: payload.len() as u64,
            max: PAYLOAD_BYTES_MAX as u64,
        });
    }
    let issues = backend::ids(batch).len();
    if issues > BATCH_ISSUES_MAX {
        let message =
            format!("it names {issues} issues; on etcd, {BATCH_ISSUES_MAX} fit into one write");
        return Err(InvalidEvent::Encoding { message }.into());
    }
    Ok(payload)
}

pub(crate) fn put(key: &[u8], value: &impl serde::Serialize) -> Result<Operation, Problem> {
    let value = serde_json::to_vec(value).map_err(|error| Problem::Damaged {
        what: String::from_utf8_lossy(key).into_owned(),
        reason: error.to_string(),
    })?;
    Ok(Operation::RequestPut(Put {
        key: key.into(),
        value: value.as_slice().into(),
    }))
}

/// Asks all members for their versions at the same time, and one for the rest.
fn require_fit(
    gateway: &Gateway,
    allow_single_member: bool,
    deadline: Instant,
) -> Result<(), Failed> {
    #[derive(serde::Serialize)]
    struct Nothing {}
    let patience = deadline.min(Instant::now() + VERSION_PATIENCE);
    let versions: Vec<Result<(), Problem>> = thread::scope(|scope| {
        let ask = |endpoint| {
            let path = "/v3/maintenance/status";
            let status = gateway.call_member::<Status>(endpoint, path, &Nothing {}, patience);
            // Members that do not answer now do not matter now.
            status.map_or(Ok(()), |status| checks::version(endpoint, &status.version))
        };
        let asked = gateway
            .endpoints()
            .iter()
            .map(|endpoint| scope.spawn(move || ask(endpoint)));
        let asked: Vec<_> = asked.collect();
        asked
            .into_iter()
            .filter_map(|asked| asked.join().ok())
            .collect()
    });
    versions.into_iter().collect::<Result<(), Problem>>()?;
    let members = gateway.call::<Members>("/v3/cluster/member/list", &Nothing {}, deadline)?;
    checks::members(&members.answer, allow_single_member)?;
    let alarms = gateway.call::<Alarms>("/v3/maintenance/alarm", &Nothing {}, deadline)?;
    Ok(checks::alarms(&alarms.answer)?)
}

impl Backend for EtcdLog {
    fn append(&self, event: &IssueEvent) -> Result<Receipt> {
        Self::append(self, event)
    }

    fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt> {
        Self::append_batch(self, events)
    }

    fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        Self::commit(self, batch)
    }

    fn look(&self, look: &mut dyn FnMut(&Issues)) -> Result<()> {
        self.with_issues(look)
    }

    fn issues(&self) -> Result<Issues> {
        self.with_issues(Issues::clone)
    }

    fn follow(&self, from_seq: Seq) -> Result<Box<dyn Follow>> {
        Ok(Box::new(Self::follow(self, from_seq)?))
    }

    fn compact(&self) -> Result<Compacted> {
        Self::compact(self)
    }

    fn compaction_due(&self) -> Result<bool> {
        Self::compaction_due(self)
    }
}

impl fmt::Debug for EtcdLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLog")
            .field("address", &self.cluster.address.to_string())
            .finish_non_exhaustive()
    }
}
