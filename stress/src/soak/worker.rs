//! A worker: a process that keeps a store open during a soak, writes to it, follows it, compacts
//! it, and knows its expected content.
//!
//! It reads orders (`Order`), one a line, from standard input, and answers each with one line
//! (`Answer`). Between orders it writes a little, unless it is to be quiet.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use strand_core::{
    Batch, CommitError, Compactor, Error, Follower, Issue, IssueEvent, IssueLog, Issues,
    LiveIssues, Options, Outcome, Patch, Reader, Receipt, Seq, Timestamp, Version,
};

use crate::run::errors::describe;

/// How often it writes between orders.
const BACKGROUND_EVERY: Duration = Duration::from_millis(5);
/// How often its compactor checks whether a compaction is due.
const COMPACTOR_EVERY: Duration = Duration::from_millis(100);
/// Most errors that are reported.
pub(super) const ERRORS_MAX: usize = 5;
const TS: i64 = 1_706_540_000_123;

type Failure = Box<dyn StdError + Send + Sync>;

/// The description of a worker: the first line on its standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The store.
    pub(crate) store: PathBuf,
    /// The prefix of the ids of its issues, which no one else changes.
    pub(crate) name: String,
    /// Decides what it writes.
    pub(crate) seed: u64,
    /// About how many live issues it keeps.
    pub(crate) issues: usize,
    /// It does nothing without an order.
    pub(crate) quiet: bool,
    /// It reports each acknowledged write, since it will be killed.
    pub(crate) announces: bool,
    /// It compacts the store when that is due.
    pub(crate) compacts: bool,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Write without a pause for this many milliseconds, and report how it went.
    Work(u64),
    /// Compare the store with its expected content.
    Check,
    /// Close the log and end.
    Quit,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The log is open.
    Ready,
    /// To [`Order::Work`]: the work since the last such answer.
    Worked(Worked),
    /// To [`Order::Check`]: what is wrong, and how many live issues are its own.
    Checked { wrong: Vec<String>, live: usize },
    /// A write was acknowledged as the record `seq`.
    Acknowledged {
        seq: u64,
        changed: Vec<String>,
        deleted: Vec<String>,
    },
}

/// The work of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Worked {
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Writes that were rejected since the disk is full.
    pub(crate) rejected_full: u64,
    /// Writes in doubt.
    pub(crate) unknown: u64,
    /// Records that it got as a follower.
    pub(crate) followed: u64,
    /// Median latency of acknowledged writes without a pause.
    pub(crate) p50_us: f64,
    /// 99th percentile of the same.
    pub(crate) p99_us: f64,
    /// Everything that is wrong.
    pub(crate) errors: Vec<String>,
}

/// Runs a worker.
#[must_use]
pub fn main() -> ExitCode {
    let ended = read_spec().and_then(|spec| Worker::open(spec)?.serve());
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a worker failed: {}", describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn read_spec() -> Result<Spec, Failure> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn say(answer: &Answer) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()?;
    Ok(())
}

/// The options of the log: small limits, so that everything happens often.
pub(crate) fn options() -> Options {
    Options::default()
        .segment_bytes_max(1 << 20)
        .preallocate_bytes(64 << 10)
        .compact_after_records(2_000)
        .tombstone_ms(0)
        .idempotency_records(1_000)
}

/// The expected state of an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    version: u64,
    title: String,
    /// Whether a claim of it must be refused.
    claimed: bool,
    closed: bool,
}

struct Worker {
    spec: Spec,
    log: IssueLog,
    /// Kept up to date, as in a program that shows the issues.
    snapshot: LiveIssues,
    reader: Reader<IssueEvent>,
    follower: Follower<IssueEvent>,
    followed_seq: u64,
    known: BTreeMap<String, Known>,
    /// Its issues in the order in which they were made.
    order: VecDeque<String>,
    /// Issues in doubt after a failed write.
    in_doubt: Vec<String>,
    made: u64,
    random: StdRng,
    worked: Worked,
    compactor: Option<Compactor>,
}

/// A write and its expected effect.
struct Write {
    batch: Batch,
    changed: Vec<(String, Known)>,
    deleted: Vec<String>,
    /// It must be refused, since the issue is claimed.
    refused: bool,
}

impl Worker {
    fn open(spec: Spec) -> Result<Worker, Failure> {
        let log = IssueLog::open(&spec.store, options())?;
        let reader = Reader::open(&spec.store)?;
        let snapshot = LiveIssues::open(&spec.store)?;
        let next = snapshot.state().last_seq().next();
        let compactor = if spec.compacts {
            Some(Compactor::start::<Issues>(
                Arc::clone(log.log()),
                COMPACTOR_EVERY,
            )?)
        } else {
            None
        };
        Ok(Worker {
            follower: reader.follow(next)?,
            followed_seq: next.get() - 1,
            reader,
            snapshot,
            log,
            known: BTreeMap::new(),
            order: VecDeque::new(),
            in_doubt: Vec::new(),
            made: 0,
            random: StdRng::seed_from_u64(spec.seed),
            worked: Worked::default(),
            compactor,
            spec,
        })
    }

    fn serve(mut self) -> Result<(), Failure> {
        let orders = orders();
        say(&Answer::Ready)?;
        loop {
            match orders.recv_timeout(BACKGROUND_EVERY) {
                Ok(Order::Work(ms)) => {
                    let worked = self.work(Duration::from_millis(ms))?;
                    say(&Answer::Worked(worked))?;
                }
                Ok(Order::Check) => {
                    let wrong = self.check()?;
                    let live = self.known.len();
                    say(&Answer::Checked { wrong, live })?;
                }
                // The soak is gone.
                Ok(Order::Quit) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if self.spec.quiet => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.write()?;
                    self.follow()?;
                    self.snapshot.refresh()?;
                }
            }
        }
        if let Some(compactor) = self.compactor.take() {
            compactor.stop()?;
        }
        self.log.log().sync_all()?;
        Ok(())
    }

    /// Writes without a pause.
    fn work(&mut self, time: Duration) -> Result<Worked, Failure> {
        let until = Instant::now() + time;
        let mut took = Histogram::<u64>::new(3)?;
        while Instant::now() < until {
            let started = Instant::now();
            if self.write()? {
                let ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                took.record(ns)?;
            }
        }
        self.follow()?;
        self.snapshot.refresh()?;
        let us = |quantile| {
            f64::from(u32::try_from(took.value_at_quantile(quantile)).unwrap_or(u32::MAX)) / 1e3
        };
        self.worked.p50_us = us(0.5);
        self.worked.p99_us = us(0.99);
        Ok(std::mem::take(&mut self.worked))
    }

    /// Makes one write; returns whether it was acknowledged.
    fn write(&mut self) -> Result<bool, Failure> {
        let write = self.draw()?;
        let result = self.log.commit(&write.batch);
        self.settle(write, result)
    }

    /// Enters how a write went.
    fn settle(
        &mut self,
        write: Write,
        result: Result<Receipt, CommitError>,
    ) -> Result<bool, Failure> {
        match result {
            Ok(_) if write.refused => {
                self.complain("a claim of a claimed issue was acknowledged".to_owned());
            }
            Ok(receipt) => {
                if self.spec.announces {
                    say(&Answer::Acknowledged {
                        seq: receipt.seq.get(),
                        changed: write.changed.iter().map(|(id, _)| id.clone()).collect(),
                        deleted: write.deleted.clone(),
                    })?;
                }
                for (id, known) in write.changed {
                    if !self.known.contains_key(&id) {
                        self.order.push_back(id.clone());
                    }
                    let version = receipt.seq;
                    self.known.insert(
                        id,
                        Known {
                            version: version.get(),
                            ..known
                        },
                    );
                }
                for id in &write.deleted {
                    self.known.remove(id);
                }
                self.order.retain(|id| !write.deleted.contains(id));
                self.worked.acknowledged += 1;
                return Ok(true);
            }
            Err(CommitError::Conflict(_)) if write.refused => {}
            Err(error) if error.outcome() == Outcome::Unknown => {
                self.worked.unknown += 1;
                self.complain(format!(
                    "the outcome of a write is unknown: {}",
                    describe(&error)
                ));
                let changed = write.changed.into_iter().map(|(id, _)| id);
                self.in_doubt.extend(changed.chain(write.deleted));
            }
            Err(CommitError::Log(error)) if is_full(&error) => self.worked.rejected_full += 1,
            Err(error) => self.complain(format!("a write failed: {}", describe(&error))),
        }
        Ok(false)
    }

    fn complain(&mut self, what: String) {
        if self.worked.errors.len() < ERRORS_MAX {
            self.worked.errors.push(what);
        }
    }

    /// Draws the next write.
    fn draw(&mut self) -> Result<Write, Failure> {
        let kind = self.random.random_range(0..100);
        let drawn = (!self.order.is_empty())
            .then(|| self.random.random_range(0..self.order.len()))
            .and_then(|at| self.order.get(at).cloned());
        let drawn = drawn.and_then(|id| Some((self.known.get(&id)?.clone(), id)));
        let mut write = Write {
            batch: Batch::at(Timestamp::from_ms(TS)),
            changed: Vec::new(),
            deleted: Vec::new(),
            refused: false,
        };
        let Some((known, id)) = drawn.filter(|_| self.known.len() >= self.spec.issues) else {
            self.add(&mut write);
            return Ok(write);
        };
        match kind {
            0..35 => {
                let title = format!("title {}", self.random.random::<u32>());
                let patch = Patch::new().set("title", &title)?;
                write.batch = write
                    .batch
                    .patch_if(&id, Version::new(known.version), patch);
                write.changed.push((id, Known { title, ..known }));
            }
            35..55 => {
                write.refused = known.claimed;
                write.batch = write.batch.claim(&id, &self.spec.name);
                let claimed = true;
                write.changed.push((id, Known { claimed, ..known }));
            }
            // Closing it again would change nothing, and not count.
            55..70 if !known.closed => {
                // All or nothing, and with a new key.
                let key = format!("{}/{}/{}", self.spec.name, self.made, known.version);
                write.batch = write.batch.key(key).close(&id);
                let (claimed, closed) = (true, true);
                write.changed.push((
                    id,
                    Known {
                        claimed,
                        closed,
                        ..known
                    },
                ));
                self.add(&mut write);
            }
            _ => {
                let oldest = self.order.front().cloned().unwrap_or(id);
                write.batch = write.batch.delete(&oldest);
                write.deleted.push(oldest);
            }
        }
        Ok(write)
    }

    fn add(&mut self, write: &mut Write) {
        self.made += 1;
        let (id, title) = (
            format!("{}-{}", self.spec.name, self.made),
            format!("issue {}", self.made),
        );
        let batch = std::mem::replace(&mut write.batch, Batch::at(Timestamp::from_ms(TS)));
        write.batch = batch.create(Issue::new_at(&id, &title, Timestamp::from_ms(TS)));
        let known = Known {
            version: 0,
            title,
            claimed: false,
            closed: false,
        };
        write.changed.push((id, known));
    }

    /// Reads the new records, and complains about gaps.
    fn follow(&mut self) -> Result<(), Failure> {
        loop {
            match self.follower.try_next() {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => {
                    if record.seq != self.followed_seq + 1 {
                        let (seq, last) = (record.seq, self.followed_seq);
                        self.complain(format!("a follower got record {seq} behind {last}"));
                    }
                    self.followed_seq = record.seq.get();
                    self.worked.followed += 1;
                }
                Err(Error::Compacted { snapshot_seq, .. }) => {
                    let state = Issues::load(&self.spec.store)?;
                    if snapshot_seq <= self.followed_seq
                        || state.last_seq() < Seq::new(snapshot_seq)
                    {
                        let (loaded, last) = (state.last_seq(), self.followed_seq);
                        self.complain(format!(
                            "a follower behind {last} was sent to a snapshot through {snapshot_seq}, and got {loaded}"
                        ));
                    }
                    self.followed_seq = state.last_seq().get();
                    self.follower = self.reader.follow(Seq::new(self.followed_seq + 1))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Compares its own issues in three states of the store, each obtained in another way, with
    /// what it knows.
    fn check(&mut self) -> Result<Vec<String>, Failure> {
        self.snapshot.refresh()?;
        let loaded = Issues::load(&self.spec.store)?;
        for id in std::mem::take(&mut self.in_doubt) {
            self.believe(&loaded, id);
        }
        let mut wrong = Vec::new();
        let prefix = format!("{}-", self.spec.name);
        self.compare(
            "a state that was kept up",
            self.snapshot.state(),
            &prefix,
            &mut wrong,
        );
        self.compare("a state that was loaded", &loaded, &prefix, &mut wrong);
        self.log
            .with_issues(|store| self.compare("the log's own state", store, &prefix, &mut wrong))?;
        Ok(wrong)
    }

    /// Takes over the stored state of an issue in doubt.
    fn believe(&mut self, store: &Issues, id: String) {
        self.order.retain(|other| *other != id);
        self.known.remove(&id);
        if let (Some(issue), Some(version)) = (store.get(&id), store.version(&id)) {
            let known = Known {
                version: version.get(),
                title: issue.title(),
                claimed: issue.assignee().is_some() || issue.status().as_deref() != Some("open"),
                closed: issue.status().as_deref() == Some("closed"),
            };
            self.known.insert(id.clone(), known);
            self.order.push_back(id);
        }
    }

    fn compare(&self, what: &str, store: &Issues, prefix: &str, wrong: &mut Vec<String>) {
        let own = store.iter().filter(|(id, _)| id.starts_with(prefix));
        let found: BTreeMap<&str, (u64, String)> = own
            .map(|(id, issue)| {
                (
                    id,
                    (store.version(id).map_or(0, Version::get), issue.title()),
                )
            })
            .collect();
        for (id, known) in &self.known {
            let expected = (known.version, known.title.clone());
            let is = found.get(id.as_str());
            if is != Some(&expected) {
                wrong.push(format!(
                    "{what}: {id} is {is:?}, and {expected:?} was acknowledged"
                ));
            }
        }
        let obsolete = found.keys().filter(|id| !self.known.contains_key(**id));
        wrong.extend(
            obsolete.map(|id| format!("{what}: {id} is there, and was deleted or never added")),
        );
        wrong.truncate(2 * ERRORS_MAX);
    }
}

/// The orders on standard input.
fn orders() -> Receiver<Order> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let order = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            // Anything but an order ends the process, as the end of the input does.
            if order.is_none_or(|order| sender.send(order).is_err()) {
                return;
            }
        }
    });
    orders
}

/// Whether the cause is a full disk.
pub(crate) fn is_full(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::StorageFull
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use strand_core::IssueEvent;

    use super::*;

    fn worker(dir: &std::path::Path) -> Worker {
        let spec = Spec {
            store: dir.to_owned(),
            name: "r".to_owned(),
            seed: 1,
            issues: 20,
            quiet: true,
            announces: false,
            compacts: false,
        };
        Worker::open(spec).unwrap()
    }

    #[test]
    fn what_it_knows_is_what_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(dir.path());
        for round in 0..4 {
            for _ in 0..40 {
                worker.write().unwrap();
            }
            let done = worker.work(Duration::from_millis(5)).unwrap();
            assert_eq!(done.errors, Vec::<String>::new());
            assert!(done.acknowledged > 0 && done.followed > 0, "{done:?}");
            if round == 2 {
                worker.log.compact().unwrap();
                std::fs::remove_file(dir.path().join("shm")).unwrap();
            }
            assert_eq!(worker.check().unwrap(), Vec::<String>::new());
        }
        assert!(worker.known.len() >= 19, "{}", worker.known.len());
    }

    #[test]
    fn it_complains_of_what_is_lost_and_of_what_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(dir.path());
        while worker.order.len() < 10 {
            worker.write().unwrap();
        }
        let id = worker.order.back().cloned().unwrap();
        worker.known.remove(&id);
        let wrong = worker.check().unwrap();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].contains("was deleted or never added"), "{wrong:?}");
        let other = worker.order.front().cloned().unwrap();
        worker
            .log
            .append(&IssueEvent::delete(&other, Timestamp::from_ms(TS)))
            .unwrap();
        assert!(worker.check().unwrap()[0].contains("was acknowledged"));
        // For issues in doubt, the store decides.
        worker.in_doubt.extend([id, other]);
        assert_eq!(worker.check().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let error = |kind: io::ErrorKind| Error::Io {
            op: "write",
            path: "x".into(),
            outcome: Outcome::Rejected,
            source: kind.into(),
        };
        assert!(is_full(&error(io::ErrorKind::StorageFull)));
        assert!(!is_full(&error(io::ErrorKind::PermissionDenied)));
    }
}
