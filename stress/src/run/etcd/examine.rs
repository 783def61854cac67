//! Examines a store on etcd after the agents are gone: its history, the state that it reads, a
//! compaction, and the next append.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use strand_core::{Compacted, Error, Issue, Issues, Seq, Timestamp, backend};
use strand_etcd::Address;
use strand_lock::monotonic_ns;

use crate::evidence::fold::Model;
use crate::evidence::ledger::{Seen, View};
use crate::evidence::stored::{BadLine, Place, StoredRecord, parse_line};
use crate::evidence::violation::Violation;
use crate::panics::catch_panic;
use crate::run::bystanders::digest;
use crate::run::errors::describe;
use crate::run::etcd::history::{self, Put};
use crate::run::etcd::{open, patiently};
use crate::run::examine::{Examination, NEXT_APPEND_LIMIT, NEXT_ID, issues};

/// A history that is the same after this time is whole,
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// or after so many times that.
const SETTLED_WITHIN: u32 = 20;

/// Examines the store of a run.
#[must_use]
pub(crate) fn examine(address: &str) -> Examination {
    let mut examination = Examination::default();
    let read = parse(address).and_then(|address| read_settled(&address));
    match read {
        Ok(puts) => take(&mut examination, puts),
        Err(error) => fail(&mut examination, "read the history", error),
    }
    let looked = catch_panic(|| look(&mut examination, address));
    let looked = looked.and_then(|looked| looked.map_err(|error| describe(&error)));
    if let Err(error) = looked {
        fail(&mut examination, "use the store", error);
    }
    examination
}

/// Reads the history once it stays the same: requests of agents that were killed may still be on
/// their way through the cluster.
fn read_settled(address: &Address) -> Result<Vec<Put>, String> {
    let mut puts = history::read(address)?;
    for _ in 0..SETTLED_WITHIN {
        thread::sleep(SETTLED_AFTER);
        let before = puts.len();
        puts = history::read(address)?;
        if puts.len() == before {
            break;
        }
    }
    Ok(puts)
}

/// Removes the store of a run.
///
/// # Errors
/// The cluster does not answer.
pub(crate) fn remove(address: &str) -> Result<(), String> {
    parse(address).and_then(|address| history::remove(&address))
}

fn parse(address: &str) -> Result<Address, String> {
    let parsed = address.parse::<Address>();
    parsed.map_err(|error| error.to_string())
}

fn fail(examination: &mut Examination, step: &str, error: String) {
    let step = step.to_owned();
    examination
        .violations
        .push(Violation::ExaminationFailed { step, error });
}

/// Takes the history apart: records, snapshots, and whether each record belongs to the epoch in
/// which it was written.
fn take(examination: &mut Examination, puts: Vec<Put>) {
    #[derive(Deserialize)]
    struct Epoch {
        number: u64,
    }
    #[derive(Deserialize)]
    struct Meta {
        snapshot: Option<Snapshot>,
    }
    #[derive(Deserialize)]
    struct Snapshot {
        last_seq: u64,
    }
    let mut epoch = 0;
    // Those of one revision are in the order of their keys: `epoch` is before `r/`.
    for put in puts {
        let taken = if put.key == "epoch" {
            serde_json::from_slice::<Epoch>(&put.value).map(|now| epoch = now.number)
        } else if put.key == "meta" {
            serde_json::from_slice::<Meta>(&put.value).map(|meta| {
                let seq = meta.snapshot.map(|snapshot| snapshot.last_seq);
                examination.snapshot_seqs.extend(seq);
            })
        } else {
            Ok(())
        };
        let reason = match (taken, put.key.strip_prefix("r/")) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(()), None) => continue,
            (Ok(()), Some(key)) => record(key, &put, epoch),
        };
        match reason {
            Ok(record) => examination.records.push(record),
            Err(reason) => examination.bad_lines.push(BadLine {
                place: place(&put),
                reason,
                excerpt: String::from_utf8_lossy(&put.value)
                    .chars()
                    .take(160)
                    .collect(),
            }),
        }
    }
    match Model::of(&examination.records) {
        Ok(model) => examination.model = Some(model),
        Err(detail) => examination
            .violations
            .push(Violation::FoldDiffers { detail }),
    }
}

fn place(put: &Put) -> Place {
    Place {
        file: put.key.clone(),
        offset: put.revision,
    }
}

fn record(key: &str, put: &Put, epoch: u64) -> Result<StoredRecord, String> {
    let own = key.split('/').next().and_then(|own| own.parse().ok());
    if own != Some(epoch) {
        return Err(format!("the record was written in epoch {epoch}"));
    }
    if put.version != 1 {
        return Err(format!("the record was written {} times", put.version));
    }
    let record = backend::record(Seq::new(put.revision), &put.value);
    let line = record.map_err(|error| error.to_string())?.line;
    let (seq, events) = parse_line(&line)?;
    Ok(StoredRecord {
        seq,
        events,
        line,
        place: place(put),
    })
}

/// Reads the state twice, compacts, reads it again, and appends.
fn look(examination: &mut Examination, address: &str) -> Result<(), Error> {
    let differs = |examination: &mut Examination, when: &str, state: &Issues| {
        let Some(model) = &examination.model else {
            return;
        };
        let (expected, found) = (model.last_state(), digest(state));
        let difference = model.difference(expected.seq, issues(state));
        let difference = difference.or_else(|| {
            (expected != found).then(|| format!("{expected:?} expected, {found:?} read"))
        });
        if let Some(difference) = difference {
            let detail = format!("{when}: {difference}");
            examination
                .violations
                .push(Violation::FoldDiffers { detail });
        }
    };
    let seeds = [1, 2];
    for seed in seeds {
        let begin_ns = monotonic_ns();
        let log = open(address, seed)?;
        let state = patiently(|| log.with_issues(Issues::clone))?;
        examination.views.push(View {
            reader: "reader after the run".to_owned(),
            begin_ns,
            end_ns: monotonic_ns(),
            through_tail: true,
            seen: Seen::State(digest(&state)),
        });
        differs(examination, "after the run", &state);
    }
    let log = open(address, 1)?;
    let compacted = patiently(|| log.compact())?;
    if !matches!(compacted, Compacted::Done { .. } | Compacted::NothingNew) {
        let detail = format!("the last compaction was {compacted:?}");
        examination
            .violations
            .push(Violation::FoldDiffers { detail });
    }
    let state = patiently(|| open(address, 1)?.with_issues(Issues::clone))?;
    differs(examination, "after the last compaction", &state);

    let started = Instant::now();
    let next = Issue::new_at(NEXT_ID, "The next one", Timestamp::from_ms(1));
    let created = log.create(next).map(|receipt| receipt.seq);
    let mut fail = |detail| {
        examination
            .violations
            .push(Violation::NextAppendFailed { detail });
    };
    match created {
        Ok(seq) if seq <= state.last_seq() => {
            fail(format!("its number is {seq}, after {}", state.last_seq()));
        }
        Ok(_) if started.elapsed() > NEXT_APPEND_LIMIT => {
            fail(format!("it took {} ms", started.elapsed().as_millis()));
        }
        Ok(_) => {
            let is_there = |issues: &Issues| issues.get(NEXT_ID).is_some();
            let is_there = patiently(|| open(address, 1)?.with_issues(is_there))?;
            if !is_there {
                fail("a read that began after it does not show it".to_owned());
            }
        }
        Err(error) => fail(describe(&error)),
    }
    Ok(())
}
