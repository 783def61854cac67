//! A store in a cluster: reads that all others are made of.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use strand_core::{CorruptReason, IssueEvent, Issues, Record, Seq, backend};

use crate::{
    address::Address,
    api::{KeyValue, Operation, Range, RangeResponse, Txn, TxnResponse},
    error::{Failed, Problem},
    gateway::{Answered, Gateway},
    keys::{FORMAT, Keys, Meta},
    options::Options,
    plan::{CurrentEpoch, current_epoch, value},
    snapshot,
    view::View,
};

/// How many keys one call reads, at first.
const PAGE: u64 = 512;

/// A store in a cluster, for the log and its followers.
pub(crate) struct Cluster {
    pub(crate) gateway: Gateway,
    pub(crate) keys: Keys,
    pub(crate) address: Address,
    pub(crate) options: Options,
    epoch: Mutex<CurrentEpoch>,
}

/// The keys of a store that say how to read the others, at one revision.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) revision: u64,
    pub(crate) epoch: CurrentEpoch,
    pub(crate) meta: Meta,
    /// The revision that last changed `meta`.
    pub(crate) meta_revision: u64,
}

impl Cluster {
    pub(crate) fn new(gateway: Gateway, address: Address, options: Options) -> Arc<Self> {
        let epoch = CurrentEpoch {
            number: 0,
            revision: 0,
            compacted: 0,
        };
        Arc::new(Self {
            gateway,
            keys: Keys::new(address.store()),
            address,
            options,
            epoch: Mutex::new(epoch),
        })
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    /// The last epoch that is known.
    pub(crate) fn epoch(&self) -> CurrentEpoch {
        self.epoch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn learn(&self, epoch: &CurrentEpoch) {
        let mut known = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch.number > known.number {
            known.clone_from(epoch);
        }
    }

    pub(crate) fn txn(
        &self,
        txn: &Txn,
        deadline: Instant,
    ) -> Result<Answered<TxnResponse>, Failed> {
        self.gateway.call("/v3/kv/txn", txn, deadline)
    }

    /// Reads the head, now or as it was at a revision; and the records since another revision from
    /// an epoch on, as far as they fit into one answer.
    fn head_and(
        &self,
        at: u64,
        records: Option<Range>,
        deadline: Instant,
    ) -> Result<(Head, RangeResponse), Failed> {
        let read = |key: Vec<u8>| {
            Operation::RequestRange(Range {
                key: key.as_slice().into(),
                revision: at,
                ..Range::default()
            })
        };
        let mut success = vec![read(self.keys.epoch()), read(self.keys.meta())];
        success.extend(records.map(Operation::RequestRange));
        let txn = Txn {
            success,
            ..Txn::default()
        };
        let answer = self.txn(&txn, deadline)?.answer;
        let revision = if at == 0 { answer.header.revision } else { at };
        let mut found = answer
            .responses
            .into_iter()
            .map(|found| found.response_range);
        let mut one = || found.next().and_then(|range| range.kvs.into_iter().next());
        let (epoch, meta) = (one(), one());
        let (Some(epoch), Some(meta)) = (epoch, meta) else {
            return Err(Problem::NoStore.into());
        };
        let head = Head {
            revision,
            epoch: current_epoch(&epoch)?,
            meta: value(&meta)?,
            meta_revision: meta.mod_revision,
        };
        if head.meta.format > FORMAT {
            let (found, supported) = (head.meta.format, FORMAT);
            return Err(Problem::Layout { found, supported }.into());
        }
        if at == 0 {
            self.learn(&head.epoch);
        }
        Ok((head, found.next().unwrap_or_default()))
    }

    pub(crate) fn head(&self, at: u64, deadline: Instant) -> Result<Head, Failed> {
        Ok(self.head_and(at, None, deadline)?.0)
    }

    /// All keys from one up to another, as they were at a revision, in their order; without those
    /// that were last changed before another revision.
    pub(crate) fn scan(
        &self,
        from: Vec<u8>,
        end: &[u8],
        at: u64,
        changed_from: u64,
        deadline: Instant,
    ) -> Result<Vec<KeyValue>, Failed> {
        let mut found = Vec::new();
        let mut range = Range {
            key: crate::api::Bytes(from),
            range_end: end.into(),
            limit: PAGE,
            revision: at,
            min_mod_revision: changed_from,
            ..Range::default()
        };
        loop {
            let answered = self.gateway.call("/v3/kv/range", &range, deadline);
            let answer: RangeResponse = match answered {
                Ok(answered) => answered.answer,
                Err(failed) if is_too_large(&failed.problem) && range.limit > 1 => {
                    range.limit /= 2;
                    continue;
                }
                Err(failed) => return Err(failed),
            };
            let more = answer.more;
            found.extend(answer.kvs);
            let Some(last) = found.last().filter(|_| more) else {
                return Ok(found);
            };
            // The key right behind the last one.
            range.key.0.clone_from(&last.key.0);
            range.key.0.push(0);
        }
    }

    /// The records from an epoch on that are at or behind a sequence number, in their order, as of
    /// a revision.
    pub(crate) fn records(
        &self,
        epoch: u64,
        from_seq: u64,
        at: u64,
        deadline: Instant,
    ) -> Result<Vec<(u64, Vec<u8>)>, Failed> {
        let (from, end) = (self.keys.records_from(epoch), self.keys.records_end());
        Ok(in_order(self.scan(from, &end, at, from_seq, deadline)?))
    }

    /// Reads the whole state, now or as it was at a revision.
    pub(crate) fn load(&self, at: u64, deadline: Instant) -> Result<View, Failed> {
        loop {
            let head = self.head(at, deadline)?;
            match self.load_at(head, deadline) {
                // A compaction was faster.
                Err(failed) if at == 0 && is_compacted(&failed.problem) => {}
                loaded => return loaded,
            }
        }
    }

    fn load_at(&self, head: Head, deadline: Instant) -> Result<View, Failed> {
        let Head {
            revision, epoch, ..
        } = head;
        let (issues, from) = match &head.meta.snapshot {
            None => (Issues::default(), 0),
            Some(snapshot) => {
                let from = self.keys.chunks_from(snapshot.revision);
                let end = self.keys.chunks_end(snapshot.revision);
                let chunks = self.scan(from, &end, revision, 0, deadline)?;
                let issues = snapshot::decode(snapshot, &self.keys, &chunks)?;
                (issues, snapshot.revision + 1)
            }
        };
        let mut view = View::new(issues, revision, epoch);
        for (seq, payload) in self.records(0, from, revision, deadline)? {
            view.read(seq, decode(seq, &payload)?.events);
        }
        Ok(view)
    }

    /// Reads the state, or what is new in it.
    pub(crate) fn bring_up<'a>(
        &self,
        view: &'a mut Option<View>,
        deadline: Instant,
    ) -> Result<&'a mut View, Failed> {
        let read = match view.take() {
            None => self.load(0, deadline)?,
            Some(mut known) => match self.refresh(&mut known, deadline) {
                Ok(true) => known,
                Ok(false) => self.load(0, deadline)?,
                Err(failed) => {
                    // It is as it was.
                    *view = Some(known);
                    return Err(failed);
                }
            },
        };
        Ok(view.insert(read))
    }

    /// Reads what is new. False if a compaction has removed some of it.
    fn refresh(&self, view: &mut View, deadline: Instant) -> Result<bool, Failed> {
        let new = Range {
            key: (&self.keys.records_from(view.epoch.number)).into(),
            range_end: (&self.keys.records_end()).into(),
            limit: PAGE,
            min_mod_revision: view.revision + 1,
            ..Range::default()
        };
        let (head, found) = match self.head_and(0, Some(new), deadline) {
            Err(failed) if is_too_large(&failed.problem) => {
                let more = true;
                let nothing = RangeResponse {
                    more,
                    ..RangeResponse::default()
                };
                (self.head(0, deadline)?, nothing)
            }
            read => read?,
        };
        let snapshot = head.meta.snapshot.as_ref();
        if snapshot.is_some_and(|snapshot| snapshot.revision > view.revision) {
            return Ok(false);
        }
        let records = if found.more {
            let (from, at) = (view.revision + 1, head.revision);
            match self.records(view.epoch.number, from, at, deadline) {
                Err(failed) if is_compacted(&failed.problem) => return Ok(false),
                records => records?,
            }
        } else {
            in_order(found.kvs)
        };
        // All of them or none.
        let decoded = records.iter().map(|(seq, payload)| decode(*seq, payload));
        for record in decoded.collect::<Result<Vec<_>, Problem>>()? {
            view.read(record.seq.get(), record.events);
        }
        view.advanced(head.revision, head.epoch);
        Ok(true)
    }
}

/// Records by their numbers.
pub(crate) fn in_order(found: Vec<KeyValue>) -> Vec<(u64, Vec<u8>)> {
    let records = found.into_iter().map(|kv| (kv.mod_revision, kv.value.0));
    let mut records: Vec<(u64, Vec<u8>)> = records.collect();
    records.sort_unstable_by_key(|(seq, _)| *seq);
    records
}

pub(crate) fn decode(seq: u64, payload: &[u8]) -> Result<Record<IssueEvent>, Problem> {
    backend::record(Seq::new(seq), payload).map_err(|reason: CorruptReason| Problem::Damaged {
        what: format!("record {seq}"),
        reason: reason.to_string(),
    })
}

/// The revision that was to be read is compacted away.
pub(crate) fn is_compacted(problem: &Problem) -> bool {
    matches!(problem, Problem::Refused { code: 11, .. })
}

/// The answer would have been larger than the gateway takes.
fn is_too_large(problem: &Problem) -> bool {
    matches!(problem, Problem::Refused { code: 8, message } if message.contains("larger than max"))
}
