//! Bystanders: readers, followers and compactors. Each runs until the agents are done, and may be
//! killed at any moment.

use std::error::Error as StdError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strand_core::{
    Compacted, Error, IssueEvent, IssueLog, Issues, LiveIssues, Reader, Seq, Version,
    testing::FailpointHook,
};
use strand_lock::monotonic_ns;

use crate::evidence::fold::{StateDigest, issue_digest};
use crate::evidence::ledger::{Compacting, CompactionSeen, Seen, View};
use crate::evidence::observations::{Entry, Journal};
use crate::run::control::Control;
use crate::run::protocol::{AgentSpec, Message, Outbox, Role};
use crate::run::witness::{Witness, ask_to_be_killed, log_options};

/// How often a bystander checks whether the store exists.
const STORE_WAIT: Duration = Duration::from_millis(1);
/// A reader looks at each state so many times as long as it took to get it.
pub(crate) const READER_SHARE: u32 = 3;
/// The shortest time between two refreshes of a reader.
pub(crate) const READER_PAUSE: Duration = Duration::from_millis(1);
/// One refresh in so many is a new open instead.
pub(crate) const OPEN_ANEW_EVERY: u32 = 16;
/// How long a follower sleeps at most before it looks whether the agents are done.
pub(crate) const FOLLOWER_WAIT: Duration = Duration::from_millis(20);

pub(crate) type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

/// Runs a bystander.
pub(crate) fn run(spec: &AgentSpec) -> Outcome {
    let control = Control::open(&spec.control, spec.marks)?;
    let mut end = Execution::new(spec);
    match &spec.role {
        Role::Agent => Ok(()),
        Role::Reader { number } => read(spec, *number, &control, &mut end),
        Role::Follower { journal, .. } => follow(spec, journal, &control, &mut end),
        Role::Compactor { mark, every_ms, .. } => compact(spec, *mark, *every_ms, control),
    }
}

/// The digest of all issues of a state.
#[must_use]
pub fn digest(store: &Issues) -> StateDigest {
    let issues = store.iter().map(|(id, issue)| {
        let version = store.version(id).map_or(0, Version::get);
        issue_digest(id, version, issue.as_json())
    });
    StateDigest {
        seq: store.last_seq().get(),
        issues: store.len() as u64,
        without_effect: store.without_effect(),
        digest: issues.fold(0, u64::wrapping_add),
    }
}

/// The kill order of a process that reaches no failpoints.
struct Execution {
    rounds_left: Option<u32>,
}

impl Execution {
    fn new(spec: &AgentSpec) -> Execution {
        // A reader takes many small rounds.
        let rounds = if matches!(spec.role, Role::Reader { .. }) {
            8
        } else {
            1
        };
        let any = spec.kill.as_ref().filter(|order| order.at == "any");
        Execution {
            rounds_left: any.map(|order| order.occurrence * rounds),
        }
    }

    fn pass(&mut self, place: &str) -> io::Result<()> {
        let Some(left) = &mut self.rounds_left else {
            return Ok(());
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        match ask_to_be_killed(place)? {}
    }
}

fn wait_for_store(dir: &Path) {
    while !dir.join("MANIFEST").exists() {
        std::thread::sleep(STORE_WAIT);
    }
}

pub(crate) fn ready(control: &Control) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(&Message::Ready);
    out.send()?;
    control.wait_for_go();
    Ok(())
}

fn read(spec: &AgentSpec, number: u32, control: &Control, end: &mut Execution) -> Outcome {
    wait_for_store(&spec.store);
    let reader = format!("reader {number}");
    let storage = spec.storage();
    let mut held: Option<LiveIssues> = None;
    ready(control)?;
    let mut out = Outbox::default();
    for round in 0_u32.. {
        let over = control.is_over();
        let began = Instant::now();
        let begin_ns = monotonic_ns();
        match &mut held {
            Some(snapshot) if round % OPEN_ANEW_EVERY != 0 => drop(snapshot.refresh()?),
            _ => held = Some(LiveIssues::open_in(&storage, &spec.store)?),
        }
        let end_ns = monotonic_ns();
        let state = held.as_ref().map(|live| digest(live.state()));
        out.push(&Message::View(View {
            reader: reader.clone(),
            begin_ns,
            end_ns,
            through_tail: false,
            seen: Seen::State(state.unwrap_or_default()),
        }));
        out.send()?;
        if over {
            break;
        }
        end.pass("Reading")?;
        control.pause((began.elapsed() * READER_SHARE).max(READER_PAUSE));
    }
    Ok(())
}

fn follow(spec: &AgentSpec, path: &Path, control: &Control, end: &mut Execution) -> Outcome {
    wait_for_store(&spec.store);
    let mut journal = resume(path)?;
    let mut next = journal.next_seq;
    let reader = Reader::<IssueEvent>::open_in(&spec.storage(), &spec.store)?;
    ready(control)?;
    // The records that exist at the start are not awaited ones.
    let mut live = false;
    'again: loop {
        let mut follower = reader.follow(Seq::new(next))?;
        loop {
            let over = control.is_over();
            let deadline = Instant::now() + FOLLOWER_WAIT;
            let got = match follower.try_next() {
                Ok(None) if over => return Ok(()),
                Ok(None) => {
                    live = true;
                    follower.next_before(deadline)
                }
                got => got,
            };
            let at_ns = monotonic_ns();
            match got {
                Ok(None) => {}
                Ok(Some(record)) => {
                    journal.write(&Entry::Record {
                        at_ns,
                        live,
                        line: record.line,
                    })?;
                    end.pass("Following")?;
                }
                Err(Error::Compacted {
                    from_seq,
                    snapshot_seq,
                    ..
                }) => {
                    live = false;
                    let snapshot = Issues::load(&spec.store)?;
                    journal.write(&Entry::Gap {
                        from_seq,
                        snapshot_seq,
                        loaded: digest(&snapshot),
                    })?;
                    next = snapshot.last_seq().next().get();
                    continue 'again;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(crate) struct JournalFile {
    file: File,
    pub(crate) next_seq: u64,
}

impl JournalFile {
    pub(crate) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.file.write_all(&entry.to_line())
    }
}

/// Opens a journal behind its last whole line, and cuts off the line that a killed predecessor was
/// writing.
pub(crate) fn resume(path: &Path) -> Result<JournalFile, Box<dyn StdError + Send + Sync>> {
    let mut options = OpenOptions::new();
    let file = options.create(true).read(true).append(true).open(path)?;
    let bytes = std::fs::read(path)?;
    let journal = Journal::parse(&bytes)?;
    file.set_len(journal.bytes)?;
    Ok(JournalFile {
        file,
        next_seq: journal.next_seq(),
    })
}

/// The report of a compaction that is done now.
pub(crate) fn seen(begin_ns: u64, done: &Compacted) -> Message {
    let outcome = match *done {
        Compacted::Done {
            seq,
            bytes,
            lock_held,
            ..
        } => Compacting::Done {
            seq: seq.get(),
            bytes,
            lock_held_ns: u64::try_from(lock_held.as_nanos()).unwrap_or(u64::MAX),
        },
        Compacted::AlreadyRunning => Compacting::AlreadyRunning,
        _ => Compacting::NothingNew,
    };
    Message::Compacted(CompactionSeen {
        begin_ns,
        end_ns: monotonic_ns(),
        outcome,
    })
}

fn compact(spec: &AgentSpec, mark: u32, every_ms: u64, control: Control) -> Outcome {
    wait_for_store(&spec.store);
    let witness = Arc::new(Witness::new(spec, control, mark)?);
    let options = log_options(spec, Arc::clone(&witness) as Arc<dyn FailpointHook>);
    let log = IssueLog::open(&spec.store, options)?;
    let mut out = Outbox::default();
    witness.drain(&mut out);
    out.send()?;
    ready(&witness.control)?;
    while !witness.control.is_over() {
        let begin_ns = monotonic_ns();
        let done = log.compact()?;
        out.push(&seen(begin_ns, &done));
        witness.drain(&mut out);
        out.send()?;
        witness.control.pause(Duration::from_millis(every_ms));
    }
    log.close()?;
    witness.drain(&mut out);
    out.send()?;
    Ok(())
}
