//! Compaction: a snapshot takes the place of the records before it.

use std::{collections::BTreeSet, time::Instant};

use strand_core::{Compacted, Issues, Result, Seq, State, Timestamp, backend};

use crate::{
    api::{Compaction, Compare, DeleteRange, Empty, Operation, Put, Range, Txn},
    cluster::is_compacted,
    error::Failed,
    keys::Meta,
    log::{EtcdLog, put},
    plan::value,
    snapshot::{self, CHUNK_BYTES_MAX},
};

/// How many keys one transaction removes; etcd takes 128 operations.
const REMOVE_AT_ONCE: usize = 100;

impl EtcdLog {
    /// Replaces the records by a snapshot of the state: all or nothing, also if the process dies.
    /// Others write meanwhile; each of their next writes needs more round trips than one.
    ///
    /// It begins a new epoch, so that no record can be added to those before it. It writes the
    /// state at that revision, in parts. One transaction then names the snapshot in `meta` and
    /// removes the records, unless another compaction was faster.
    ///
    /// # Errors
    /// The store is as before, except for parts that the next compaction removes:
    /// [`Error::Unavailable`](strand_core::Error::Unavailable),
    /// [`Error::Unfit`](strand_core::Error::Unfit).
    pub fn compact(&self) -> Result<Compacted> {
        match self.compact_now() {
            // A faster one has trimmed the history that this one was to read.
            Err(failed) if is_compacted(&failed.problem) => Ok(Compacted::AlreadyRunning),
            compacted => compacted.map_err(|failed| failed.reading(&self.cluster.address)),
        }
    }

    fn compact_now(&self) -> Result<Compacted, Failed> {
        let (cluster, keys) = (&self.cluster, &self.cluster.keys);
        let started = Instant::now();
        let deadline = || cluster.deadline();
        if self.count_records(deadline())? == 0 {
            return Ok(Compacted::NothingNew);
        }
        let current = cluster.head(0, deadline())?.epoch;
        let Some(epoch) = self.begin_epoch(&current, current.number + 1, deadline())? else {
            return Ok(Compacted::AlreadyRunning);
        };
        let head = cluster.head(epoch.revision, deadline())?;
        let (meta, view) = (head.meta, cluster.load(epoch.revision, deadline())?);
        let mut issues = view.issues;
        let forgotten = self.forget(&mut issues);
        let encoded = snapshot::encode(&issues, epoch.revision);
        let (snapshot, text) = encoded.map_err(|error| broken(&error))?;

        let is_same = Compare::at(&keys.meta(), head.meta_revision);
        for (n, chunk) in text.chunks(CHUNK_BYTES_MAX).enumerate() {
            let txn = Txn {
                compare: vec![is_same.clone()],
                success: vec![Operation::RequestPut(Put {
                    key: (&keys.chunk(epoch.revision, n)).into(),
                    value: chunk.into(),
                })],
                failure: Vec::new(),
            };
            if !cluster.txn(&txn, deadline())?.answer.succeeded {
                return Ok(Compacted::AlreadyRunning);
            }
        }
        let (seq, bytes) = (snapshot.last_seq, snapshot.bytes);
        let meta = Meta {
            snapshot: Some(snapshot),
            ..meta
        };
        let remove = |from: Vec<u8>, end: Vec<u8>| {
            Operation::RequestDeleteRange(DeleteRange {
                key: (&from).into(),
                range_end: (&end).into(),
            })
        };
        let switch = Txn {
            compare: vec![is_same],
            success: vec![
                put(&keys.meta(), &meta)?,
                remove(keys.records_from(0), keys.records_from(epoch.number)),
                remove(keys.chunks(), keys.chunks_from(epoch.revision)),
            ],
            failure: vec![Operation::RequestRange(Range {
                key: (&keys.meta()).into(),
                ..Range::default()
            })],
        };
        let answer = cluster.txn(&switch, deadline())?.answer;
        if !answer.succeeded {
            let found = answer.responses.first();
            let now = found.and_then(|found| found.response_range.kvs.first());
            // An attempt that got no answer may have done it.
            if now.map(value::<Meta>).transpose()? != Some(meta) {
                return Ok(Compacted::AlreadyRunning);
            }
        }
        self.remove(&forgotten, epoch.revision)?;
        if cluster.options.trim_history {
            let revision = epoch.revision;
            let trim = Compaction { revision };
            // Another one may have trimmed more.
            cluster
                .gateway
                .call::<Empty>("/v3/kv/compaction", &trim, deadline())
                .ok();
        }
        let entries = issues.len() as u64;
        // The epoch that it ended, and all before.
        let removed = keys.records_from(current.number);
        let removed = vec![String::from_utf8_lossy(&removed).into_owned()];
        let elapsed = started.elapsed();
        Ok(backend::compacted(
            Seq::new(seq),
            entries,
            bytes,
            removed,
            elapsed,
        ))
    }

    /// Forgets what is too old, and returns the keys that only served it.
    fn forget(&self, issues: &mut Issues) -> Vec<Vec<u8>> {
        let (keys, options) = (&self.cluster.keys, &self.cluster.options);
        let before = entries(issues);
        let mut seqs: Vec<u64> = before.keys.iter().map(|(seq, _)| *seq).collect();
        seqs.sort_unstable();
        let oldest = seqs.len().checked_sub(options.idempotency_keys);
        let oldest = oldest.and_then(|n| seqs.get(n)).copied();
        let before_seq = match oldest {
            Some(seq) => Seq::new(seq),
            None if options.idempotency_keys == 0 => issues.last_seq().next(),
            None => Seq::new(0),
        };
        let moment = Timestamp::now().saturating_sub_ms(options.tombstone_ms);
        issues.forget(before_seq, moment);
        let after = entries(issues);
        let keys_gone = before.keys.difference(&after.keys);
        let keys_gone = keys_gone.map(|(_, key)| keys.idempotency(key));
        let ids_gone = before.ids.difference(&after.ids).map(|id| keys.issue(id));
        keys_gone.chain(ids_gone).collect()
    }

    /// Removes keys that nobody has written since a revision.
    fn remove(&self, forgotten: &[Vec<u8>], unless_since: u64) -> Result<(), Failed> {
        for some in forgotten.chunks(REMOVE_AT_ONCE) {
            if !self.remove_all(some, unless_since)? {
                for one in some.chunks(1) {
                    self.remove_all(one, unless_since)?;
                }
            }
        }
        Ok(())
    }

    fn remove_all(&self, some: &[Vec<u8>], unless_since: u64) -> Result<bool, Failed> {
        let old = some
            .iter()
            .map(|key| Compare::unchanged_since(key, unless_since));
        let remove = some.iter().map(|key| {
            Operation::RequestDeleteRange(DeleteRange {
                key: key.into(),
                range_end: Vec::new().as_slice().into(),
            })
        });
        let txn = Txn {
            compare: old.collect(),
            success: remove.collect(),
            failure: Vec::new(),
        };
        Ok(self
            .cluster
            .txn(&txn, self.cluster.deadline())?
            .answer
            .succeeded)
    }
}

/// All that a state remembers: the ids of issues and tombstones, and keys with their records.
struct Entries {
    ids: BTreeSet<String>,
    keys: BTreeSet<(u64, String)>,
}

fn entries(issues: &Issues) -> Entries {
    #[derive(serde::Deserialize)]
    struct Line {
        id: Option<String>,
        key: Option<String>,
        seq: Option<u64>,
    }
    let mut found = Entries {
        ids: BTreeSet::new(),
        keys: BTreeSet::new(),
    };
    for line in issues.lines() {
        let line = serde_json::to_string(&line).and_then(|line| serde_json::from_str(&line));
        match line {
            Ok(Line { id: Some(id), .. }) => drop(found.ids.insert(id)),
            Ok(Line {
                key: Some(key),
                seq: Some(seq),
                ..
            }) => drop(found.keys.insert((seq, key))),
            _ => {}
        }
    }
    found
}

fn broken(error: &serde_json::Error) -> crate::error::Problem {
    crate::error::Problem::Damaged {
        what: "a snapshot".to_owned(),
        reason: error.to_string(),
    }
}
