//! A log inside an async program: many tasks share one [`Log`] through `spawn_blocking`, a thread
//! feeds the appended records into a channel, and everything ends in order.
//!
//! ```sh
//! mkdir -p service
//! cargo run -q -p strand-core --example async_service -- service 200
//! ```
//!
//! Expect the time of one durable append alone, and the time of 200 concurrent ones: far less than
//! 200 times as long, since they share syncs of the disk. Then, that the follower saw every record,
//! in order.
//!
//! Calls of this crate block, for a sync of the disk or for the lock. On a thread of the async
//! runtime they would hold up other tasks, so they run where blocking is allowed. That is all it
//! takes.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use strand_core::{
    Error, Issue, IssueEvent, Log, Options, Reader, Receipt, Record, Result, Seq, Timestamp,
};
use tokio::{sync::mpsc, task, time};

/// How soon the follower's thread notices that it should end.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How many records the channel holds. When it is full, the follower waits.
const AHEAD_MAX: usize = 64;

/// A log for async code.
#[derive(Clone)]
struct AsyncLog(Arc<Log<IssueEvent>>);

impl AsyncLog {
    /// Appends an event, and returns once it is durable.
    ///
    /// If the task is dropped while it waits here, the append finishes by itself: the event may be
    /// stored although no receipt was returned. Where that matters, commit a [`strand_core::Batch`]
    /// with a key instead, and repeat it.
    async fn append(&self, event: IssueEvent) -> Result<Receipt> {
        let log = Arc::clone(&self.0);
        let appending = task::spawn_blocking(move || log.append(&event));
        match appending.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// The records of a store as a channel, from a thread of its own.
struct Following {
    records: mpsc::Receiver<Result<Record<IssueEvent>>>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Following {
    fn start(reader: &Reader<IssueEvent>, from_seq: u64) -> Result<Self> {
        let mut follower = reader.follow(Seq::new(from_seq))?;
        let (sender, records) = mpsc::channel(AHEAD_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                let record = match follower.next_before(Instant::now() + LOOK_UP) {
                    Ok(None) => continue,
                    Ok(Some(record)) => Ok(record),
                    Err(error) => Err(error),
                };
                let is_last = record.is_err();
                // Fails once the channel's receiver is gone.
                if sender.blocking_send(record).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Self {
            records,
            stop,
            thread,
        })
    }

    /// Ends the thread, even while it waits for room in the channel.
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.records);
        let joined = task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            eprintln!("the follower has panicked");
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [dir, count] = arguments.as_slice() else {
        return Err("usage: async_service DIR HOW-MANY-TASKS".into());
    };
    let count: u64 = count.parse()?;

    // Opening blocks, too, but nothing else runs yet.
    let log = Arc::new(Log::open(dir, Options::default())?);
    let reader = Reader::open(dir)?;
    let service = AsyncLog(Arc::clone(&log));

    let started = Instant::now();
    let first_seq = service.append(new_job()).await?.seq.next();
    println!("one task: {} µs", started.elapsed().as_micros());

    // All tasks at once. Each waits only for its own event.
    let mut following = Following::start(&reader, first_seq.get())?;
    let started = Instant::now();
    let mut tasks = task::JoinSet::new();
    for _ in 0..count {
        let service = service.clone();
        tasks.spawn(async move { service.append(new_job()).await });
    }
    // Meanwhile the follower receives the records.
    let seen = async {
        let mut seqs = Vec::new();
        while (seqs.len() as u64) < count {
            match following.records.recv().await {
                Some(record) => seqs.push(record?.seq),
                None => break,
            }
        }
        Ok::<_, Error>(seqs)
    };
    let appended = async { (tasks.join_all().await, started.elapsed()) };
    let (seen, (receipts, took)) =
        tokio::join!(time::timeout(Duration::from_mins(1), seen), appended);
    receipts.into_iter().collect::<Result<Vec<_>>>()?;
    println!("{count} tasks: {} µs", took.as_micros());
    let seen = seen.map_err(|_| "the follower has not seen all within a minute")??;
    let expected = (first_seq.get()..).take(seen.len()).map(Seq::new);
    if seen.len() as u64 != count || !seen.iter().copied().eq(expected) {
        return Err(format!("the follower saw {seen:?}").into());
    }
    println!("the follower saw {} records, in order", seen.len());

    // First the tasks that append, then the follower, then the log, which has no other owner now.
    drop(service);
    following.stop().await;
    let Some(log) = Arc::into_inner(log) else {
        return Err("a task still has the log".into());
    };
    task::spawn_blocking(move || log.close()).await??;
    println!("closed");
    Ok(())
}

fn new_job() -> IssueEvent {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
    let id = format!("job-{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    IssueEvent::add(
        Issue::new_at(&id, "Mend the fence", Timestamp::from_ms(now)),
        Timestamp::from_ms(now),
    )
}
