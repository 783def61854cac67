//! Measurements of the state: compaction beside writers, loading, refreshing, readers, followers
//! and claims.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;
use strand_core::{
    Compacted, Durability, Issue, IssueEvent, IssueLog, Issues, LiveIssues, Options, Reader, Seq,
    Timestamp,
};
use strand_lock::monotonic_ns;
use tempfile::TempDir;

use crate::appending::Report;
use crate::barrier::Barrier;
use crate::error::Result;
use crate::events::Event;
use crate::memory::{Resident, print_status};
use crate::process::{Children, Member, Work, run_team};
use crate::runner::Runner;
use crate::statistics::{median, median_ratio, quantile};
use crate::systems::System;

const ISSUES: usize = 100_000;
const WRITERS: usize = 5;
const READERS: usize = 64;
/// A reader reads this many of the last records, and then sleeps.
const READ_RECORDS: u64 = 100;
const READ_SLEEP: Duration = Duration::from_millis(100);
const CLAIMERS: usize = 20;
const POOL: usize = 1_000;
const FOLLOWED: u64 = 500;
const COMPUTING: usize = 4;

/// The results.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct State {
    /// p99 of 5 writers' appends while a compaction runs, over the same without.
    pub(crate) p99_with_compaction: f64,
    /// The duration of such a compaction.
    pub(crate) compaction_s: f64,
    /// That beside processes that compute, [`COMPUTING`] for each core, over that without.
    pub(crate) compaction_in_crowd: f64,
    /// As `p99_with_compaction`, both beside them.
    pub(crate) p99_with_compaction_in_crowd: f64,
    /// The longest time for which a compaction held the lock.
    pub(crate) lock_held_ms: f64,
    /// The median of a sync by itself.
    pub(crate) sync_ms: f64,
    pub(crate) load_mb_per_s: f64,
    pub(crate) load_peak_over_file: f64,
    pub(crate) load_ms: f64,
    pub(crate) refresh_us: f64,
    /// 5 writers' throughput with 64 readers, over that without.
    pub(crate) throughput_with_readers: f64,
    pub(crate) claims_per_s: f64,
    pub(crate) sqlite_claims_per_s: Option<f64>,
    pub(crate) claims_over_sqlite: Option<f64>,
    pub(crate) wake_p50_us: f64,
    pub(crate) wake_p99_us: f64,
}

impl State {
    pub(crate) fn lines(&self) -> Vec<String> {
        let sqlite = self.sqlite_claims_per_s;
        vec![
            format!(
                "compaction of {ISSUES} issues beside {WRITERS} writers: {:.2} s, lock held {:.2} ms \
                 at the longest (a sync: {:.2} ms)",
                self.compaction_s, self.lock_held_ms, self.sync_ms
            ),
            format!(
                "load of {ISSUES} issues from a snapshot: {:.0} ms, {:.0} MB/s, peak memory {:.2} × \
                 the file",
                self.load_ms, self.load_mb_per_s, self.load_peak_over_file
            ),
            format!("refresh after 10 records: {:.0} µs", self.refresh_us),
            format!(
                "{WRITERS} writers beside {READERS} readers, each of which reads the last \
                 {READ_RECORDS} records every {} ms: {:.2} × the throughput",
                READ_SLEEP.as_millis(),
                self.throughput_with_readers
            ),
            format!(
                "{CLAIMERS} agents claim {POOL} issues: {:.0} claims/s{}",
                self.claims_per_s,
                sqlite.map_or_else(String::new, |rate| format!(", SQLite {rate:.0}"))
            ),
            format!(
                "from acknowledgement to a follower's sight: p50 {:.0} µs, p99 {:.0} µs",
                self.wake_p50_us, self.wake_p99_us
            ),
        ]
    }
}

/// Number of parts that [`measure`] reports.
pub(crate) const PARTS: usize = 4;

pub(crate) fn measure(
    runner: &Runner<'_>,
    events: &[Event],
    rounds: usize,
    mut part: impl FnMut(&str),
) -> Result<State> {
    part("compaction");
    let full = fill(runner.scratch, events)?;
    let (mut compactions, mut crowded) = (Compactions::default(), Compactions::default());
    for _ in 0..rounds {
        compactions.round(runner, full.path())?;
        let mut crowd = Children::default();
        for _ in 0..COMPUTING * std::thread::available_parallelism()?.get() {
            crowd.0.push(Work::Compute.command()?.spawn()?);
        }
        crowded.round(runner, full.path())?;
    }
    part("loading and refreshing");
    let Compacted::Done { bytes, .. } =
        IssueLog::open(full.path(), Options::default())?.compact()?
    else {
        return Err("the log could not be compacted".into());
    };
    let loading = Loading::of(full.path(), bytes, events)?;
    let waking = waking(runner.scratch, events)?;
    part("readers");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        without.push(throughput(runner, 0)?);
        with.push(throughput(runner, READERS)?);
    }
    part("claims");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(claims_per_s(runner, Claims::Strand)?);
        if cfg!(feature = "peers") {
            theirs.push(claims_per_s(runner, Claims::Sqlite)?);
        }
    }
    let compared = !theirs.is_empty();
    Ok(State {
        p99_with_compaction: median_ratio(&compactions.with_us, &compactions.without_us),
        compaction_s: median(&compactions.seconds),
        compaction_in_crowd: median_ratio(&crowded.seconds, &compactions.seconds),
        p99_with_compaction_in_crowd: median_ratio(&crowded.with_us, &crowded.without_us),
        lock_held_ms: compactions.held_ms.iter().copied().fold(0.0, f64::max),
        sync_ms: sync_ms(runner.scratch)?,
        load_mb_per_s: loading.mb_per_s,
        load_peak_over_file: loading.peak_over_file,
        load_ms: loading.ms,
        refresh_us: loading.refresh_us,
        throughput_with_readers: median_ratio(&with, &without),
        claims_per_s: median(&ours),
        sqlite_claims_per_s: compared.then(|| median(&theirs)),
        claims_over_sqlite: compared.then(|| median_ratio(&ours, &theirs)),
        wake_p50_us: quantile(&waking, 0.5) / 1e3,
        wake_p99_us: quantile(&waking, 0.99) / 1e3,
    })
}

/// A log of [`ISSUES`] issues, each with its own id and the text of one of the events.
fn fill(scratch: &Path, events: &[Event]) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(scratch)?;
    let options = Options::default().durability(Durability::Buffered);
    let log = IssueLog::open(dir.path(), options)?;
    let issues = events
        .iter()
        .filter_map(|event| event.decoded.data.as_ref());
    for (number, issue) in (0..ISSUES).zip(issues.cycle()) {
        let issue = issue.with("id", &format!("bd-{number}"))?;
        log.append(&IssueEvent::add(
            issue,
            Timestamp::from_ms(event_ts(number)?),
        ))?;
    }
    log.close()?;
    Ok(dir)
}

fn event_ts(number: usize) -> Result<i64> {
    Ok(1_706_540_000_000 + i64::try_from(number)?)
}

#[derive(Default)]
struct Compactions {
    with_us: Vec<f64>,
    without_us: Vec<f64>,
    held_ms: Vec<f64>,
    seconds: Vec<f64>,
}

impl Compactions {
    /// Runs writers on a copy of the log, first alone, then while this process compacts it.
    fn round(&mut self, runner: &Runner<'_>, full: &Path) -> Result<()> {
        let turn = tempfile::tempdir_in(runner.scratch)?;
        let store = turn.path().join("store");
        copy(full, &store)?;
        drop(IssueLog::open(&store, Options::default())?);
        runner.settle()?;
        let alone = write_for(runner, turn.path(), 1_000, || Ok(()))?;
        let mut span = (0, 0);
        let beside = write_for(runner, turn.path(), 2_500, || {
            let log = IssueLog::open(&store, Options::default())?;
            span.0 = monotonic_ns();
            let Compacted::Done {
                lock_held, elapsed, ..
            } = log.compact()?
            else {
                return Err("the log could not be compacted".into());
            };
            span.1 = monotonic_ns();
            self.held_ms.push(lock_held.as_secs_f64() * 1e3);
            self.seconds.push(elapsed.as_secs_f64());
            Ok(())
        })?;
        let p99 = |mut latencies: Vec<u64>| {
            latencies.sort_unstable();
            quantile(&latencies, 0.99) / 1e3
        };
        self.without_us
            .push(p99(alone.iter().map(|append| append.1).collect()));
        let during = beside
            .iter()
            .filter(|(start, latency)| start + latency > span.0 && *start < span.1);
        self.with_us
            .push(p99(during.map(|append| append.1).collect()));
        Ok(())
    }
}

/// The start and the duration of each append of [`WRITERS`] processes on the store `dir/store`.
fn write_for(
    runner: &Runner<'_>,
    dir: &Path,
    ms: u64,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Vec<(u64, u64)>> {
    let order = runner.appending(System::Strand, usize::MAX, Duration::from_millis(ms));
    let work = |member| Work::Append(member, order.clone());
    let reports: Vec<Report> = run_team(dir, WRITERS, 1, work, meanwhile)?;
    Ok(reports.iter().flat_map(Report::appends).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn sync_ms(scratch: &Path) -> Result<f64> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(scratch)?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[b'x'; 700])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&times))
}

struct Loading {
    ms: f64,
    mb_per_s: f64,
    peak_over_file: f64,
    refresh_us: f64,
}

impl Loading {
    /// Of a compacted store.
    #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
    fn of(store: &Path, bytes: u64, events: &[Event]) -> Result<Self> {
        let mut seconds = Vec::new();
        for _ in 0..7 {
            let started = Instant::now();
            black_box(Issues::load(store)?);
            seconds.push(started.elapsed().as_secs_f64());
        }
        let empty = Resident::of(&Work::Nothing)?;
        let loaded = Resident::of(&Work::Load(store.to_owned()))?;
        let peak_bytes = (loaded.peak_kib - empty.peak_kib) * 1024.0;

        let log = IssueLog::open(store, Options::default())?;
        let mut live = LiveIssues::open(store)?;
        let mut refreshes = Vec::new();
        for chunk in events.chunks(10).take(50) {
            for event in chunk {
                log.append(&event.decoded)?;
            }
            let started = Instant::now();
            live.refresh()?;
            refreshes.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(Self {
            ms: median(&seconds) * 1e3,
            mb_per_s: bytes as f64 / 1e6 / median(&seconds),
            peak_over_file: peak_bytes / bytes as f64,
            refresh_us: median(&refreshes),
        })
    }
}

/// From each acknowledgement to the moment when a sleeping follower has the record.
fn waking(scratch: &Path, events: &[Event]) -> Result<Vec<u64>> {
    let dir = tempfile::tempdir_in(scratch)?;
    let log = IssueLog::open(dir.path(), Options::default())?;
    let reader = Reader::<IssueEvent>::open(dir.path())?;
    let mut follower = reader.follow(Seq::new(1))?;
    let (see, seen) = mpsc::channel();
    let thread = std::thread::spawn(move || -> strand_core::Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        for _ in 0..FOLLOWED {
            if follower.next_before(deadline)?.is_some() {
                see.send(monotonic_ns()).ok();
            }
        }
        Ok(())
    });
    let mut latencies = Vec::new();
    for (_, event) in (0..FOLLOWED).zip(events.iter().cycle()) {
        std::thread::sleep(Duration::from_millis(2));
        log.append(&event.decoded)?;
        let acknowledged = monotonic_ns();
        latencies.push(seen.recv()?.saturating_sub(acknowledged));
    }
    thread.join().map_err(|_| "the follower panicked")??;
    latencies.sort_unstable();
    Ok(latencies)
}

/// Appends per second of [`WRITERS`] processes while others read.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn throughput(runner: &Runner<'_>, readers: usize) -> Result<f64> {
    let turn = tempfile::tempdir_in(runner.scratch)?;
    let store = turn.path().join("store");
    fs::create_dir(&store)?;
    drop(IssueLog::open(&store, Options::default())?);
    runner.settle()?;
    let mut reading = Children::default();
    for _ in 0..readers {
        reading
            .0
            .push(Work::Read(store.clone()).command()?.spawn()?);
    }
    if readers > 0 {
        std::thread::sleep(Duration::from_millis(300)); // Until all of them read.
    }
    let appends = write_for(runner, turn.path(), 1_500, || Ok(()))?;
    for reader in &mut reading.0 {
        if let Some(status) = reader.try_wait()? {
            return Err(format!("a reader ended: {status}").into());
        }
    }
    let first = appends.iter().map(|append| append.0).min().unwrap_or(0);
    let last = appends.iter().map(|append| append.0 + append.1).max();
    Ok(appends.len() as f64 / ((last.unwrap_or(0) - first) as f64 / 1e9))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claims {
    Strand,
    Sqlite,
}

/// Claims per second, from the barrier to the last one.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn claims_per_s(runner: &Runner<'_>, system: Claims) -> Result<f64> {
    let turn = tempfile::tempdir_in(runner.scratch)?;
    let store = turn.path().join("store");
    fs::create_dir(&store)?;
    match system {
        Claims::Strand => {
            let log = IssueLog::open(&store, Options::default())?;
            let issues: Vec<IssueEvent> = (0..POOL)
                .map(|number| IssueEvent::add(pool_issue(number), Timestamp::from_ms(0)))
                .collect();
            log.append_batch(&issues)?;
        }
        Claims::Sqlite => sqlite::prepare(&store)?,
    }
    runner.settle()?;
    let work = match system {
        Claims::Strand => Work::ClaimInStrand,
        Claims::Sqlite => Work::ClaimInSqlite,
    };
    let told: Vec<(usize, u64)> = run_team(turn.path(), CLAIMERS, 1, work, || Ok(()))?;
    let won: usize = told.iter().map(|(won, _)| won).sum();
    if won != POOL {
        return Err(format!("{won} claims of {POOL} issues succeeded").into());
    }
    let last_ns = told.iter().map(|(_, last_ns)| *last_ns).max();
    Ok(POOL as f64 / (last_ns.unwrap_or(0) as f64 / 1e9))
}

fn pool_id(number: usize) -> String {
    format!("bd-{number}")
}

fn pool_issue(number: usize) -> Issue {
    Issue::new_at(
        &pool_id(number),
        "Fix what the last change broke",
        Timestamp::from_ms(0),
    )
}

/// Goes through the pool in an order of its own, and claims each issue that is free. Returns the
/// number of claims that succeeded, and the time of the last.
fn claim_all(
    member: &Member,
    barrier: &Barrier,
    mut claim_if_free: impl FnMut(&str) -> Result<bool>,
) -> Result<(usize, u64)> {
    let released_ns = barrier.wait_for_release(member.team);
    let (mut won, mut last_ns) = (0, 0);
    for step in 0..POOL {
        let number = (member.number * POOL / CLAIMERS + step * 7) % POOL;
        if claim_if_free(&pool_id(number))? {
            won += 1;
            last_ns = monotonic_ns() - released_ns;
        }
    }
    barrier.wait_for_others(member.team);
    Ok((won, last_ns))
}

/// The process that claims in strand.
pub(crate) fn claim_in_strand(member: &Member) -> Result<(usize, u64)> {
    let barrier = Barrier::open(&member.barrier)?;
    let log = IssueLog::open(&member.store, Options::default())?;
    let name = format!("agent-{}", member.number);
    claim_all(member, &barrier, |id| {
        let found = log.get(id)?;
        if found.is_some_and(|found| found.issue.assignee().is_some()) {
            return Ok(false);
        }
        match log.claim(id, &name) {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

/// The process that claims in SQLite.
pub(crate) fn claim_in_sqlite(member: &Member) -> Result<(usize, u64)> {
    sqlite::claim(member)
}

/// The process that loads a store.
pub(crate) fn load(store: &Path) -> Result<()> {
    let issues = Issues::load(store)?;
    print_status()?;
    drop(black_box(issues));
    Ok(())
}

/// The process that reads the last records again and again, until it is killed.
pub(crate) fn read(store: &Path) -> Result<()> {
    let reader = Reader::<IssueEvent>::open(store)?;
    loop {
        let from = reader
            .durable_seq()?
            .map_or(0, Seq::get)
            .saturating_sub(READ_RECORDS);
        let mut follower = reader.follow(Seq::new(from))?;
        for _ in 0..READ_RECORDS {
            if black_box(follower.try_next()?).is_none() {
                break;
            }
        }
        std::thread::sleep(READ_SLEEP);
    }
}

#[cfg(feature = "peers")]
mod sqlite {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::{Connection, OptionalExtension as _};

    use super::{Barrier, Member, POOL, Result, claim_all, pool_id, pool_issue};

    const LOOK: &str = "SELECT version FROM issues WHERE id = ?1 AND status = 'open'";
    const CLAIM: &str = "UPDATE issues SET status = 'in_progress', assignee = ?1, \
                         version = version + 1 WHERE id = ?2 AND version = ?3";

    pub(super) fn prepare(dir: &Path) -> Result<()> {
        let mut connection = Connection::open(dir.join("issues.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute(
            "CREATE TABLE issues \
             (id TEXT PRIMARY KEY, version INTEGER, status TEXT, assignee TEXT, issue TEXT)",
            (),
        )?;
        let transaction = connection.transaction()?;
        for number in 0..POOL {
            transaction.execute(
                "INSERT INTO issues VALUES (?1, 1, 'open', NULL, ?2)",
                (pool_id(number), pool_issue(number).as_json()),
            )?;
        }
        Ok(transaction.commit()?)
    }

    pub(super) fn claim(member: &Member) -> Result<(usize, u64)> {
        let barrier = Barrier::open(&member.barrier)?;
        let connection = Connection::open(member.store.join("issues.db"))?;
        connection.busy_timeout(Duration::from_mins(1))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let (mut look, mut claim) = (connection.prepare(LOOK)?, connection.prepare(CLAIM)?);
        let name = format!("agent-{}", member.number);
        claim_all(member, &barrier, |id| {
            let version: Option<i64> = look.query_row([id], |row| row.get(0)).optional()?;
            Ok(match version {
                None => false,
                Some(version) => claim.execute((&name, id, version))? == 1,
            })
        })
    }
}

#[cfg(not(feature = "peers"))]
mod sqlite {
    use std::path::Path;

    use super::{Member, Result};

    pub(super) fn prepare(_: &Path) -> Result<()> {
        Err("this program was built without SQLite".into())
    }

    pub(super) fn claim(_: &Member) -> Result<(usize, u64)> {
        Err("this program was built without SQLite".into())
    }
}
