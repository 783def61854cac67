//! Readers, followers and compactors of a store on etcd. While the cluster does not answer, they
//! try again.

use std::path::Path;
use std::time::{Duration, Instant};

use strand_core::{Error, Issues, Seq};
use strand_etcd::EtcdLog;
use strand_lock::monotonic_ns;

use crate::evidence::ledger::{Seen, View};
use crate::evidence::observations::Entry;
use crate::run::bystanders::{
    FOLLOWER_WAIT, OPEN_ANEW_EVERY, Outcome, READER_PAUSE, READER_SHARE, digest, ready, resume,
    seen,
};
use crate::run::control::Control;
use crate::run::etcd::{PATIENCE, open, patiently};
use crate::run::protocol::{AgentSpec, Message, Outbox, Role};

/// Runs a bystander.
pub(crate) fn run(spec: &AgentSpec, address: &str) -> Outcome {
    let control = Control::open(&spec.control, spec.marks)?;
    let log = open(address, spec.seed)?;
    ready(&control)?;
    match &spec.role {
        Role::Agent => Ok(()),
        Role::Reader { number } => read(spec, address, *number, &control, log),
        Role::Follower { journal, .. } => follow(journal, &control, &log),
        Role::Compactor { every_ms, .. } => compact(*every_ms, &control, &log),
    }
}

fn read(
    spec: &AgentSpec,
    address: &str,
    number: u32,
    control: &Control,
    mut log: EtcdLog,
) -> Outcome {
    let reader = format!("reader {number}");
    let mut out = Outbox::default();
    let mut over_since = None;
    for round in 0_u32.. {
        if control.is_over() {
            over_since.get_or_insert_with(Instant::now);
        }
        let began = Instant::now();
        if round % OPEN_ANEW_EVERY == OPEN_ANEW_EVERY - 1 {
            log = open(address, spec.seed)?;
        }
        let begin_ns = monotonic_ns();
        match log.with_issues(digest) {
            Ok(state) => {
                out.push(&Message::View(View {
                    reader: reader.clone(),
                    begin_ns,
                    end_ns: monotonic_ns(),
                    through_tail: true,
                    seen: Seen::State(state),
                }));
                out.send()?;
                if over_since.is_some() {
                    return Ok(());
                }
            }
            Err(Error::Unavailable { .. })
                if over_since.is_none_or(|since| since.elapsed() < PATIENCE) => {}
            Err(error) => return Err(error.into()),
        }
        control.pause((began.elapsed() * READER_SHARE).max(READER_PAUSE));
    }
    Ok(())
}

fn follow(path: &Path, control: &Control, log: &EtcdLog) -> Outcome {
    let mut journal = resume(path)?;
    let mut next = journal.next_seq;
    // The records that exist at the start are not awaited ones.
    let mut is_waiting = false;
    let mut last_seq = None;
    let mut follower = None;
    loop {
        if control.is_over() && last_seq.is_none() {
            last_seq = Some(patiently(|| log.with_issues(Issues::last_seq))?);
        }
        let got = match follower.as_mut() {
            None => match log.follow(Seq::new(next)) {
                Ok(opened) => {
                    follower = Some(opened);
                    continue;
                }
                Err(error) => Err(error),
            },
            Some(follower) => follower.next_before(Instant::now() + FOLLOWER_WAIT),
        };
        let at_ns = monotonic_ns();
        match got {
            Ok(None) => {
                is_waiting = true;
                if last_seq.is_some_and(|last| Seq::new(next) > last) {
                    return Ok(());
                }
            }
            Ok(Some(record)) => {
                next = record.seq.next().get();
                journal.write(&Entry::Record {
                    at_ns,
                    live: is_waiting,
                    line: record.line,
                })?;
            }
            Err(Error::Compacted {
                from_seq,
                snapshot_seq,
                ..
            }) => {
                is_waiting = false;
                let loaded = patiently(|| log.with_issues(digest))?;
                next = loaded.seq + 1;
                journal.write(&Entry::Gap {
                    from_seq,
                    snapshot_seq,
                    loaded,
                })?;
                follower = None;
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn compact(every_ms: u64, control: &Control, log: &EtcdLog) -> Outcome {
    let mut out = Outbox::default();
    while !control.is_over() {
        let begin_ns = monotonic_ns();
        match log.compact() {
            Ok(done) => {
                out.push(&seen(begin_ns, &done));
                out.send()?;
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        control.pause(Duration::from_millis(every_ms));
    }
    Ok(())
}
