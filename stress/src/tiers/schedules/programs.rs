//! The programs of the virtual processes.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strand_core::{
    Batch, CommitError, Durability, Error, Follower, Issue, IssueEvent, IssueLog, LiveIssues,
    Options, Patch, Reader, Receipt, Record, Result, Seq, Timestamp,
    check::Advice,
    repair,
    testing::{Host as _, Storage, check_in},
};

use crate::sim::machine::Process;
use crate::tiers::schedules::history::{
    History, Kind, Outcome, View, key, marker, operation_of, shared,
};

pub(super) type Shared = Arc<Mutex<History>>;

/// How the writers of a case write.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    /// How many operations each writer tries.
    pub(super) operations: u64,
    pub(super) issues: u32,
    pub(super) keys: u32,
    pub(super) segment_bytes_max: u64,
    pub(super) preallocate_bytes: u64,
    pub(super) share_memory: bool,
    /// Some of the writers do not wait for the disk.
    pub(super) buffers: bool,
    pub(super) compacts: bool,
}

impl Habits {
    pub(super) fn options(&self, process: &Arc<Process>) -> Options {
        Options::default()
            .storage(Arc::clone(process) as Arc<dyn Storage>)
            .segment_bytes_max(self.segment_bytes_max)
            .preallocate_bytes(self.preallocate_bytes)
            .share_memory(self.share_memory)
            .backup_snapshots(0)
            .compact_after_bytes(0) // Runs, where they pay.
    }
}

fn lock(history: &Shared) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that an answer is one which no trouble excuses.
fn blame(history: &Shared, process: &Process, what: &str, error: &Error) {
    if matches!(
        error,
        Error::Corrupt { .. } | Error::InvalidEvent(_) | Error::NoStore { .. }
    ) {
        let detail = format!("{process:?}: {what} was answered with {error}: {error:?}");
        lock(history).wrong.push(detail);
    }
}

/// Writes in the place of another process, as soon as one was killed.
pub(super) fn succeed(process: &Arc<Process>, habits: &Habits, others: usize, history: &Shared) {
    const LOOKS: u64 = 100;
    for _ in 0..LOOKS {
        if (0..others).any(|other| process.knows_dead(other)) {
            return write(process, habits, history);
        }
        process.sleep(Duration::from_micros(process.draw(200)));
    }
}

/// Opens the log, and writes to it.
pub(super) fn write(process: &Arc<Process>, habits: &Habits, history: &Shared) {
    let buffers = habits.buffers && process.draw(2) == 0;
    let durability = if buffers {
        Durability::Buffered
    } else {
        Durability::Synced
    };
    let open = || {
        // The faults may end.
        for _ in 0..20 {
            match IssueLog::open("", habits.options(process).durability(durability)) {
                Ok(log) => return Some(log),
                Err(error) => blame(history, process, "open", &error),
            }
            process.sleep(Duration::from_millis(1));
        }
        None
    };
    let Some(mut log) = open() else { return };
    for _ in 0..habits.operations {
        let draw = |below: u32| u32::try_from(process.draw(below.into())).unwrap_or(0);
        let kind = match process.draw(17) {
            // Others may delete the hints at any time.
            14 if habits.share_memory => {
                let dir = process.open_dir(Path::new(""));
                lock(history).hints_removed += 1;
                dir.and_then(|dir| process.remove(&dir, "shm")).ok();
                continue;
            }
            15 => {
                look(process, history);
                continue;
            }
            16 => {
                repair(process, habits, history);
                continue;
            }
            0 => Kind::Batch(2 + draw(3)),
            1 | 2 => Kind::Create(draw(habits.issues)),
            3 | 4 => Kind::Claim(draw(habits.issues)),
            5 => Kind::Patch(draw(habits.issues)),
            6 => Kind::Delete(draw(habits.issues)),
            7 => Kind::Keyed(draw(habits.keys)),
            8 if habits.compacts => {
                if let Err(error) = log.compact() {
                    blame(history, process, "compact", &error);
                }
                continue;
            }
            9 => {
                drop(log);
                let Some(opened) = open() else { return };
                log = opened;
                continue;
            }
            10 if buffers => {
                let synced = log.log().tail_seq().and_then(|tail_seq| {
                    let through_seq = tail_seq.unwrap_or_default();
                    log.log().sync_to(through_seq).map(|()| through_seq)
                });
                match synced {
                    Ok(through_seq) => lock(history).synced(process.number(), through_seq.get()),
                    Err(error) => blame(history, process, "sync", &error),
                }
                continue;
            }
            _ => Kind::Append,
        };
        let operation = {
            let mut history = lock(history);
            history.bury(|other| process.knows_dead(other));
            history.begin(process.number(), kind.clone())
        };
        let receipt = ask(&log, process, operation, &kind);
        let outcome = match &receipt {
            // It may be repeated of one that is lost with the power.
            Ok(Receipt { repeated: true, .. }) if buffers => Outcome::Rejected,
            Ok(Receipt {
                seq,
                repeated: true,
                ..
            }) => Outcome::Repeated(seq.get()),
            // The operations of one key differ by their markers.
            Err(CommitError::KeyReused { seq, .. }) if !buffers => Outcome::Repeated(seq.get()),
            Ok(Receipt { seq, .. }) if buffers => Outcome::Buffered(seq.get()),
            Ok(Receipt { seq, .. }) => Outcome::Acknowledged(seq.get()),
            Err(error) if error.outcome() == strand_core::Outcome::Rejected => Outcome::Rejected,
            Err(_) => Outcome::Unknown,
        };
        lock(history).end(operation, outcome);
        if let Err(CommitError::Log(error)) = &receipt {
            blame(history, process, "a write", error);
        }
    }
}

/// Checks a store that is not damaged.
fn look(process: &Arc<Process>, history: &Shared) {
    if let Ok(report) = check_in(&(Arc::clone(process) as _), Path::new(""))
        && matches!(
            report.advice,
            Advice::Repair | Advice::RestoreBackup | Advice::Upgrade
        )
    {
        let detail = format!("{process:?}: a check of a good store says {report}");
        lock(history).wrong.push(detail);
    }
}

/// Repairs a store that is not damaged.
fn repair(process: &Arc<Process>, habits: &Habits, history: &Shared) {
    match repair::repair("", &habits.options(process)) {
        Ok(repaired) if !repaired.is_nothing() => {
            let detail = format!("{process:?}: a store that is whole was repaired: {repaired}");
            lock(history).wrong.push(detail);
        }
        Err(error @ Error::BeyondRepair { .. }) => {
            let detail = format!("{process:?}: a store that is whole: {error}");
            lock(history).wrong.push(detail);
        }
        Err(error) => blame(history, process, "a repair", &error),
        Ok(_) => {}
    }
}

fn ask(
    log: &IssueLog,
    process: &Process,
    operation: u32,
    kind: &Kind,
) -> Result<Receipt, CommitError> {
    let mark = |part| Issue::new_at(&marker(operation, part), "A marker", Timestamp::from_ms(0));
    let batch = Batch::at(Timestamp::from_ms(process.unix_ms()));
    let batch = match kind {
        Kind::Append => return Ok(log.append(&IssueEvent::add(mark(0), Timestamp::from_ms(0)))?),
        Kind::Batch(parts) => {
            let events: Vec<IssueEvent> = (0..*parts)
                .map(|part| IssueEvent::add(mark(part), Timestamp::from_ms(0)))
                .collect();
            return Ok(log.append_batch(&events)?);
        }
        Kind::Create(issue) => batch.create(Issue::new_at(
            &shared(*issue),
            "A shared issue",
            Timestamp::from_ms(0),
        )),
        Kind::Claim(issue) => batch.claim(shared(*issue), &format!("process-{}", process.number())),
        Kind::Patch(issue) => batch.patch(shared(*issue), Patch::new().add_label("patched")),
        Kind::Delete(issue) => batch.delete(shared(*issue)),
        Kind::Keyed(number) => batch.key(key(*number)),
    };
    log.commit(&batch.create(mark(0)))
}

/// Reads the store in the three ways that there are, again and again.
pub(super) fn read(process: &Arc<Process>, habits: &Habits, number: usize, history: &Shared) {
    const VIEWS: u64 = 6;
    let storage = Arc::clone(process) as Arc<dyn Storage>;
    let dir = Path::new("");
    let mut snapshot: Option<LiveIssues> = None;
    // A snapshot keeps what it has seen, be it durable or not.
    let mut snapshot_is_loose = false;
    let mut follower: Option<Follower<IssueEvent>> = None;
    let mut got: Vec<(u64, u32)> = Vec::new();
    let losses = || process.displaced() + lock(history).hints_removed;
    let losses_before = losses();
    let mut follower_is_loose = !habits.share_memory;
    for _ in 0..VIEWS {
        process.sleep(Duration::from_micros(process.draw(2_000)));
        let begun = lock(history).tick();
        let lost = losses();
        let name =
            |what: &str| format!("{what} {number} of {process:?}, boot {}", process.boot_id());
        let way = process.draw(3);
        let seen = match way {
            0 => Reader::open_in(&storage, dir)
                .and_then(|reader| records(&reader))
                .map(|seen| (name("reader"), seen)),
            1 => refreshed(&storage, &mut snapshot).map(|seen| (name("snapshot"), seen)),
            _ => {
                let reader = Reader::open_in(&storage, dir);
                follower_is_loose |= reader.as_ref().is_ok_and(is_loose);
                let got_more = follow(&storage, process, &mut follower, &mut got);
                got_more.map(|()| (name("follower"), None))
            }
        };
        match seen {
            Ok((_, None)) | Err(Error::NoStore { .. }) => {}
            Ok((reader, Some((last_seq, operations, mut loose)))) => {
                loose |= losses() > lost;
                if way == 1 {
                    snapshot_is_loose |= loose;
                    loose = snapshot_is_loose;
                }
                let mut history = lock(history);
                history.saw(View {
                    reader,
                    begun,
                    last_seq,
                    operations,
                    loose,
                });
            }
            Err(error) => blame(history, process, "a read", &error),
        }
    }
    follower_is_loose |= losses() > losses_before;
    // The records that a follower got are one growing view.
    let mut history = lock(history);
    let begun = history.tick();
    let last_seq = u64::MAX;
    history.saw(View {
        reader: format!(
            "follower {number} of {process:?}, boot {}",
            process.boot_id()
        ),
        begun,
        last_seq,
        operations: got,
        loose: follower_is_loose,
    });
}

type Seen = Option<(u64, Vec<(u64, u32)>, bool)>;

fn operations(record: &Record<IssueEvent>) -> Option<(u64, u32)> {
    let found = record
        .events
        .iter()
        .find_map(|event| operation_of(&event.id));
    found.map(|(operation, _)| (record.seq.get(), operation))
}

/// Whether a read has no bound: there are no hints. They may be removed at any time, so it is asked
/// before and after the read.
fn is_loose(reader: &Reader<IssueEvent>) -> bool {
    reader.durable_seq().is_err()
}

fn records(reader: &Reader<IssueEvent>) -> Result<Seen> {
    let loose = is_loose(reader);
    let mut seen = Vec::new();
    let mut last_seq = None;
    for record in reader.records()? {
        match record {
            Ok(record) => {
                last_seq = Some(record.seq);
                seen.extend(operations(&record));
            }
            // A compaction took the rest.
            Err(Error::Compacted { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let loose = loose || is_loose(reader);
    Ok(last_seq.map(|last_seq| (last_seq.get(), seen, loose)))
}

fn refreshed(storage: &Arc<dyn Storage>, snapshot: &mut Option<LiveIssues>) -> Result<Seen> {
    let reader = Reader::<IssueEvent>::open_in(storage, Path::new(""))?;
    let loose = is_loose(&reader);
    let fresh = match snapshot.take() {
        None => LiveIssues::open_in(storage, Path::new(""))?,
        Some(mut old) => {
            old.refresh()?;
            old
        }
    };
    let state = fresh.state();
    let markers = state
        .iter()
        .filter_map(|(id, _)| Some((state.version(id)?.get(), operation_of(id)?.0)));
    let mut seen: Vec<(u64, u32)> = markers.collect();
    seen.sort_unstable();
    seen.dedup();
    let last_seq = state.last_seq();
    *snapshot = Some(fresh);
    let loose = loose || is_loose(&reader);
    Ok(Some((last_seq.get(), seen, loose)))
}

fn follow(
    storage: &Arc<dyn Storage>,
    process: &Process,
    follower: &mut Option<Follower<IssueEvent>>,
    got: &mut Vec<(u64, u32)>,
) -> Result<()> {
    if follower.is_none() {
        let from_seq = got.last().map_or(1, |(seq, _)| seq + 1);
        *follower = Some(Reader::open_in(storage, Path::new(""))?.follow(Seq::new(from_seq))?);
    }
    let Some(open) = follower else { return Ok(()) };
    for _ in 0..process.draw(8) {
        let deadline = process.now() + Duration::from_micros(process.draw(5_000));
        match open.next_before(deadline) {
            Ok(Some(record)) => got.extend(operations(&record)),
            Ok(None) => return Ok(()),
            Err(Error::Compacted { snapshot_seq, .. }) => {
                *follower = Some(
                    Reader::open_in(storage, Path::new(""))?.follow(Seq::new(snapshot_seq + 1))?,
                );
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
