//! Records as they are written.

use std::{
    collections::VecDeque,
    fmt,
    io::{BufRead, BufReader},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use strand_core::{Error, IssueEvent, Record, Result, Seq, backend::Follow};

use crate::{
    api::{WatchCreate, WatchLine, WatchRequest},
    checks,
    cluster::{Cluster, decode, in_order, is_compacted},
    error::Problem,
    gateway::Pause,
};

/// How many records a watch may be ahead of its follower.
const AHEAD_MAX: usize = 1024;

/// The records of an [`EtcdLog`](crate::EtcdLog) from a number on, future ones included.
///
/// Its thread watches one member, and the next one when that one fails or is silent for 5 s. The
/// thread ends at most 5 s after the follower is dropped.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use strand_core::Seq;
/// use strand_etcd::{EtcdLog, Options};
///
/// let log = EtcdLog::open(&"etcd://h1,h2,h3/team".parse()?, Options::default())?;
/// let mut follower = log.follow(Seq::new(1))?;
/// while let Some(record) = follower.next_before(Instant::now() + Duration::from_secs(60))? {
///     println!("{} {:?}", record.seq, record.events);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EtcdFollower {
    cluster: Arc<Cluster>,
    /// Every record from this one on is still to come.
    next_seq: u64,
    ready: VecDeque<(u64, Vec<u8>)>,
    watch: Option<Receiver<Watched>>,
}

/// A word of a watch.
#[derive(Debug)]
enum Watched {
    Record(u64, Vec<u8>),
    /// etcd has forgotten the next record, or may have. The watch has ended.
    Forgotten,
    /// The watch has ended.
    Failed(Problem),
}

impl EtcdFollower {
    pub(crate) fn open(cluster: Arc<Cluster>, next_seq: u64) -> Result<Self> {
        let mut follower = Self {
            cluster,
            next_seq,
            ready: VecDeque::new(),
            watch: None,
        };
        follower.catch_up()?;
        Ok(follower)
    }

    /// The next record if it is there already. Does not wait for new ones; it may have to ask the
    /// cluster for old ones.
    ///
    /// # Errors
    /// [`Error::Compacted`]: load the state, and follow from the record behind it.
    /// [`Error::Unavailable`], [`Error::Unfit`], [`Error::NoStore`]. The next call tries the same
    /// record again.
    pub fn try_next(&mut self) -> Result<Option<Record<IssueEvent>>> {
        self.next(|watch| match watch.try_recv() {
            Ok(watched) => Some(watched),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Watched::Forgotten),
        })
    }

    /// The next record, or `None` at the deadline. Blocks until then.
    ///
    /// # Errors
    /// As [`EtcdFollower::try_next`].
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Record<IssueEvent>>> {
        self.next(|watch| {
            let left = deadline.saturating_duration_since(Instant::now());
            match watch.recv_timeout(left) {
                Ok(watched) => Some(watched),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Watched::Forgotten),
            }
        })
    }

    /// The number from which on records are still to come. Store it to go on from there.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        Seq::new(self.next_seq)
    }

    fn next(
        &mut self,
        mut receive: impl FnMut(&Receiver<Watched>) -> Option<Watched>,
    ) -> Result<Option<Record<IssueEvent>>> {
        loop {
            if let Some((seq, payload)) = self.ready.front() {
                let record = decode(*seq, payload);
                let record = record.map_err(|problem| self.failed(problem))?;
                self.next_seq = seq + 1;
                self.ready.pop_front();
                return Ok(Some(record));
            }
            let Some(watch) = &self.watch else {
                self.catch_up()?;
                continue;
            };
            match receive(watch) {
                None => return Ok(None),
                Some(Watched::Record(seq, payload)) => self.ready.push_back((seq, payload)),
                Some(Watched::Forgotten) => self.watch = None,
                Some(Watched::Failed(problem)) => {
                    self.watch = None;
                    return Err(self.failed(problem));
                }
            }
        }
    }

    fn failed(&self, problem: Problem) -> Error {
        crate::error::Failed::from(problem).reading(&self.cluster.address)
    }

    /// Reads the records that are there, and watches for those behind them.
    fn catch_up(&mut self) -> Result<()> {
        let cluster = &self.cluster;
        let deadline = cluster.deadline();
        let failing = |failed: crate::error::Failed| failed.reading(&cluster.address);
        loop {
            let head = cluster.head(0, deadline).map_err(failing)?;
            let snapshot = head.meta.snapshot;
            let folded = snapshot.filter(|snapshot| self.next_seq <= snapshot.last_seq);
            if let Some(snapshot) = folded {
                let name = cluster.keys.chunks_from(snapshot.revision);
                return Err(Error::Compacted {
                    from_seq: self.next_seq,
                    snapshot_seq: snapshot.last_seq,
                    snapshot: String::from_utf8_lossy(&name).into_owned().into(),
                });
            }
            let records = match cluster.records(0, self.next_seq, head.revision, deadline) {
                // A compaction was faster.
                Err(failed) if is_compacted(&failed.problem) => {
                    continue;
                }
                records => records.map_err(failing)?,
            };
            self.ready = records.into();
            self.watch = Some(watch(Arc::clone(cluster), head.revision + 1));
            return Ok(());
        }
    }
}

impl Follow for EtcdFollower {
    fn try_next(&mut self) -> Result<Option<Record<IssueEvent>>> {
        Self::try_next(self)
    }

    fn next_before(&mut self, deadline: Instant) -> Result<Option<Record<IssueEvent>>> {
        Self::next_before(self, deadline)
    }
}

impl fmt::Debug for EtcdFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdFollower")
            .field("next_seq", &self.next_seq)
            .finish_non_exhaustive()
    }
}

/// Watches in a thread, until the receiver is dropped.
fn watch(cluster: Arc<Cluster>, from: u64) -> Receiver<Watched> {
    let (sender, receiver) = mpsc::sync_channel(AHEAD_MAX);
    let failed = sender.clone();
    let watching = thread::Builder::new().name("strand-watch".to_owned());
    let started = watching.spawn(move || keep_watching(&cluster, from, &sender));
    if let Err(error) = started {
        let reason = error.to_string();
        let what = "a thread".to_owned();
        failed
            .try_send(Watched::Failed(Problem::Damaged { what, reason }))
            .ok();
    }
    receiver
}

/// One watch after another, each from where the last one ended.
fn keep_watching(cluster: &Cluster, mut next: u64, sender: &SyncSender<Watched>) {
    let mut pause = Pause::new(cluster.gateway.endpoints().len());
    let mut last_word = Instant::now();
    loop {
        match watch_once(cluster, &mut next, sender) {
            Ended::Dropped => return,
            Ended::Told(last) => {
                sender.send(last).ok();
                return;
            }
            Ended::Silent { heard, problem } => {
                if heard {
                    last_word = Instant::now();
                    pause = Pause::new(cluster.gateway.endpoints().len());
                } else if last_word.elapsed() > cluster.options.timeout {
                    sender.send(Watched::Failed(problem)).ok();
                    return;
                }
                cluster.gateway.turn();
                pause.before_next(Instant::now() + Duration::from_secs(1));
            }
        }
    }
}

/// How a watch ended.
enum Ended {
    /// Nobody listens any more.
    Dropped,
    Told(Watched),
    /// It must be begun again, on another member. `heard` if this one had answered.
    Silent {
        heard: bool,
        problem: Problem,
    },
}

fn watch_once(cluster: &Cluster, next: &mut u64, sender: &SyncSender<Watched>) -> Ended {
    let request = WatchRequest {
        create_request: WatchCreate {
            key: (&cluster.keys.records_from(0)).into(),
            range_end: (&cluster.keys.records_end()).into(),
            start_revision: *next,
            filters: ["NODELETE"],
        },
    };
    let deadline = Instant::now() + cluster.options.attempt_timeout;
    let begun = cluster
        .gateway
        .prepare(deadline)
        .and_then(|()| cluster.gateway.watch(&request));
    let mut lines = match begun {
        Ok(answer) => BufReader::new(answer),
        Err(problem) => {
            return Ended::Silent {
                heard: false,
                problem,
            };
        }
    };
    let mut heard = false;
    let mut line = Vec::new();
    loop {
        let silent = |heard, reason: String| Ended::Silent {
            heard,
            problem: Problem::NoAnswer {
                endpoint: "a watch".to_owned(),
                reason,
            },
        };
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => return silent(heard, "it ended".to_owned()),
            Ok(_) => {}
            Err(error) => return silent(heard, error.to_string()),
        }
        let parsed = match serde_json::from_slice::<WatchLine>(&line) {
            Ok(parsed) => parsed,
            // A connection that breaks in the middle of a line.
            Err(error) => return silent(heard, error.to_string()),
        };
        if let Some(error) = parsed.error {
            return silent(heard, error.to_string());
        }
        let watched = parsed.result;
        let header = watched.header;
        let known = Some(cluster.gateway.cluster());
        if let Err(problem) = checks::continuity(known, header.cluster_id, 0, 0) {
            return Ended::Told(Watched::Failed(problem));
        }
        if watched.compact_revision > 0 {
            return Ended::Told(Watched::Forgotten);
        }
        if watched.canceled {
            return silent(heard, watched.cancel_reason);
        }
        heard = true;
        let records = watched.events.into_iter().map(|event| event.kv);
        for (seq, payload) in in_order(records.collect()) {
            *next = seq + 1;
            if sender.send(Watched::Record(seq, payload)).is_err() {
                return Ended::Dropped;
            }
        }
    }
}
