//! A crash-safe write-ahead log of JSON events that many processes append to at once.
//!
//! A store is a directory on a local disk. Any number of threads and processes append to it, read it and follow it at
//! the same time. There is no daemon and nothing runs in the background: what happens, happens inside the calls. Each
//! record is one line of JSON with a checksum, so `jq`, `grep` and `tail -f` work on a live log.
//!
//! It was made for issue trackers whose agents are short-lived processes, and brings their events along
//! ([`IssueEvent`]): so it also keeps the state that the events lead to ([`Issues`]), and writes under conditions. A log of
//! other payloads ([`Payload`]) is appended to, read and followed in the same way, and that is all.
//!
//! # The first append
//!
//! ```
//! use strand_core::{Issue, IssueEvent, Issues, Log, Options, Timestamp};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let now = Timestamp::now();
//! let log = Log::open(dir, Options::default())?; // Makes an empty directory a store.
//! let receipt = log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
//! assert_eq!(receipt.seq, 1);
//! // The event is on the disk: it survives a crash of this process, of the system, and the loss of power.
//!
//! let store = Issues::load(dir)?;
//! assert_eq!(store.get("bd-1").map(Issue::title), Some("Mend the fence".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which type for what
//!
//! | to | take | blocks for | memory |
//! | --- | --- | --- | --- |
//! | append events as they are | [`Log::append`], [`Log::append_batch`] | the lock, and one sync, which all who append at that time share | one record |
//! | change issues that others change too | [`Log::create`], [`Log::claim`], [`Log::patch`], [`Log::update_if`]; several at once: [`Batch`] and [`Log::commit`] | the same | all issues |
//! | decide what to change | [`Log::look`] | no other process | all issues |
//! | read all records once | [`Reader::read`] | nothing | one record |
//! | get records as they come | [`Reader::follow`], a [`Follower`] | the next record, until a deadline | one record |
//! | ask for the state once; again and again | [`Issues::load`]; a [`LiveIssues`] and [`LiveIssues::refresh`] | nothing | all issues |
//! | keep the log short | [`Log::compact`], or a [`Compactor`] | itself; appends of others wait for one sync | all issues |
//! | take JSON lines over, and give them out | [`Log::import`], [`export`], [`merge`] | as appends; two syncs; nothing | all issues |
//! | see whether a store is well; make it so | [`check`](check::check); [`repair`](repair::repair) | nothing; both locks, for as long as it reads | one record; all issues |
//!
//! # Reading
//!
//! Readers take no lock, write nothing, and need no permission to write. What they see is a prefix of the one order of all
//! records, and ends at the *watermark*: a record is seen when it is durable. Records are numbered from 1 without gaps
//! ([`Record::seq`]); the number of the record that changed an issue last is its *version* ([`Issues::version`]).
//!
//! ```
//! use strand_core::{LiveIssues, Reader, Timestamp};
//! # use strand_core::{Issue, IssueEvent, Log, Options};
//!
//! let now = Timestamp::now();
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # let log = Log::open(dir, Options::default())?;
//! # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
//! let reader: Reader = Reader::open(dir)?;
//! for record in reader.read()? {
//!     let record = record?;
//!     println!("{}: {:?}", record.seq, record.events);
//! }
//! let mut state = LiveIssues::open(dir)?;
//! for (id, issue) in state.ready() {
//!     println!("{id} {}", issue.title());
//! }
//! state.refresh()?; // Reads only what is new.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Conditions
//!
//! A condition is checked under the lock, at the moment at which the record is written: of all who try, one succeeds, and
//! the others are told how the issue is now. A write with an idempotency key ([`Batch::key`]) is stored once, however often it
//! is repeated.
//!
//! ```
//! use strand_core::{Batch, Error, Issue, Log, Options, Patch, Timestamp};
//!
//! # let dir = tempfile::tempdir()?;
//! # let (dir, now) = (dir.path(), Timestamp::now());
//! let log = Log::open(dir, Options::default())?;
//! log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
//! log.claim("bd-1", "agent-7", now)?;
//! match log.claim("bd-1", "agent-8", now) {
//!     Err(Error::VersionMismatch { issue: Some(issue), .. }) => {
//!         assert_eq!(issue.assignee().as_deref(), Some("agent-7"));
//!     }
//!     other => panic!("two agents have one issue: {other:?}"),
//! }
//! let done = Batch::new(now)
//!     .key("agent-7/done/bd-1")
//!     .patch("bd-1", Patch::new().set("note", "wire is short")?)
//!     .close("bd-1");
//! let receipt = log.commit(&done)?; // Both changes or none.
//! assert_eq!(log.commit(&done)?.seq, receipt.seq); // Repeated, say after a crash.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Following
//!
//! ```
//! use std::time::{Duration, Instant};
//! use strand_core::{Error, LiveIssues, Reader, Timestamp};
//! # use strand_core::{Issue, IssueEvent, Log, Options};
//!
//! let now = Timestamp::now();
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # let log = Log::open(dir, Options::default())?;
//! # log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
//! let reader: Reader = Reader::open(dir)?;
//! let mut follower = reader.follow(1)?; // From the first record on.
//! match follower.next_before(Instant::now() + Duration::from_secs(1)) {
//!     Ok(Some(record)) => println!("{:?}", record.events),
//!     Ok(None) => println!("nothing within a second"),
//!     // It is folded into a snapshot: take the state, and go on behind it.
//!     Err(Error::Compacted { .. }) => follower = reader.follow(LiveIssues::open(dir)?.last_seq() + 1)?,
//!     Err(error) => return Err(error.into()),
//! }
//! # drop(follower);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Compaction
//!
//! The log grows until somebody calls [`Log::compact`], which folds it into a snapshot of the state and removes the segments
//! before it, beside the writers. When that is due ([`Log::compaction_due`]) is set by [`Options::compact_after_bytes`] and
//! [`Options::compact_after_records`]; who calls it is up to you: a [`Compactor`] in a process that lives long, or a command
//! after its real work. What readers have open stays readable; records that are gone are [`Error::Compacted`].
//!
//! # Durability
//!
//! With [`Durability::Synced`], the default, what a call has acknowledged survives the death of any process, a crash of the
//! system, and the loss of power. With [`Durability::Buffered`] it survives the death of any process, and
//! [`Log::sync_to`] makes it durable later. That the disk keeps what it has confirmed is taken for granted.
//!
//! # Errors, and what is left on the disk
//!
//! There is one [`Error`] for all of the crate. After a write, [`Error::outcome`] says what is left:
//!
//! | outcome | means | do |
//! | --- | --- | --- |
//! | [`Outcome::Rejected`] | nothing is stored | what the error says; again at once, if it [is retryable](Error::is_retryable) |
//! | [`Outcome::Unknown`] | the whole record is stored, once, or nothing | repeat it, if it has a [key](Batch::key); otherwise look before |
//!
//! A bad record that was acknowledged is never passed over: it is [`Error::Corrupt`], with the file and the offset, and
//! nothing is changed. What a writer left that died in the middle of a record is no error: the next writer moves it to
//! `quarantine/`. Reading never changes anything, and each function says in "Errors" what it may have left.
//!
//! # Threads and processes
//!
//! [`Log`] and [`Reader`] are shared between threads by reference ([`Sync`]), and each process opens its own. All calls
//! block; in async code they belong on a thread for blocking work. A process that is killed, wherever it is, holds nobody
//! up: the kernel frees its lock, and others finish its sync. A child made by `fork` must open the store anew. The directory
//! must be on a disk of this machine ([`Error::UnsafeFilesystem`]).
//!
//! # Programs to copy from
//!
//! In `core/examples`, each with a header that says how to run it: `claiming_agent` (an agent that waits, claims, works and
//! closes), `follower_mirror` (every record to a web hook, exactly once), `async_service` (with tokio), `migrate_jsonl` (from
//! a plain file).
//!
//! # Features
//!
//! None is on by default. `tracing` is described below. `testing` adds a module that puts a simulated machine under a
//! store and stops it at given steps.
//!
//! # Tracing
//!
//! With the feature `tracing`, a log tells what it does through the crate `tracing`, with the target `strand_core`.
//! Without it, nothing of this is compiled. The names are stable as the rest of the interface is; times are whole
//! microseconds.
//!
//! | level | span | around | fields |
//! | --- | --- | --- | --- |
//! | TRACE | `append`, `commit` | [`Log::append`] and [`Log::append_batch`]; [`Log::commit`] and what calls it | `dir` |
//! | DEBUG | `open` | [`Log::open`] | `dir` |
//! | INFO | `compact`, `repair` | [`Log::compact`], also in its thread; [`repair`](repair::repair) | `dir` |
//!
//! | level | event (`message`) | says | fields, beside `dir` where the level is not TRACE |
//! | --- | --- | --- | --- |
//! | TRACE | `lock held` | a hold of the store's lock has ended | `wait_us`, `hold_us` |
//! | TRACE | `written` | a record is in the log, durable or not | `seq`, `bytes` |
//! | TRACE | `durable` | the caller need not wait for a record's sync any more | `seq`, `wait_us` |
//! | DEBUG | `synced` | this process has led a sync, for so many records of whatever processes | `through_seq`, `group_records`, `sync_us` |
//! | DEBUG | `rotated` | a new segment is begun, the old one synced | `first_seq`, `rotate_us` |
//! | DEBUG | `compaction phase` | a phase is done: `rotate`, `fold`, `write`, `switch`, `remove` | `phase`, `phase_us` |
//! | INFO | `compacted` | a compaction is done | `through_seq`, `issues`, `snapshot_bytes`, `removed_files`, `hold_us`, `elapsed_us` |
//! | INFO | `recovered` | the hints were made anew, or records of a writer that died were adopted (DEBUG where no memory is shared, since there any other writer's are) | `rebuilt`, `adopted_records` |
//! | INFO | `lead taken over` | the leader of a sync was not heard of for too long | `leader_pid`, `durable_seq` |
//! | INFO | `healed` | doubtful records were written again and synced | `through_seq` |
//! | WARN | `sync failed` | the records through this one are doubtful, until `healed` | `through_seq`, `error` |
//! | WARN | `torn tail cut` | bytes that nobody was told about were moved to `quarantine/` | `cut_bytes`, `quarantined` |
//! | WARN | `lock not taken` | mostly: somebody held it until the deadline | `error` |
//! | WARN | `repaired` | a repair has changed the store | `replaced_files`, `lost_records` |
//! | WARN | `compactor ended` | the thread of a [`Compactor`] has met an error, and does nothing any more | `error` |
//!
//! # Further
//!
//! The bytes are described in `docs/FORMAT.md`, the reasons in `docs/DESIGN.md`. Comments such as
//! `// I3` name the invariants listed there.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "testing"),
    allow(
        unreachable_pub,
        reason = "`testing` exports what is public below `env`"
    )
)]

pub mod check;
mod env;
mod error;
mod format;
mod inspect;
mod issues;
mod options;
pub mod repair;
mod seeded;
mod state;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod wal;
mod write;

pub use error::{CorruptReason, Error, InvalidEvent, Outcome, Result};
pub use format::record::{FORMAT_VERSION, RECORD_BYTES_MAX, SEQ_MAX};
pub use format::scan::{Tail, classify};
pub use format::seq::Seq;
pub use issues::event::{IssueEvent, KEY_BYTES_MAX, Op};
pub use issues::issue::{Dependency, ID_BYTES_MAX, Issue, TITLE_BYTES_MAX};
pub use issues::issues::Issues;
pub use issues::jsonl::{
    BadLine, BadLines, Existing, ImportError, ImportOptions, Imported, export, write_jsonl,
};
pub use issues::merge::{Conflict, MergeError, Merged, Side, merge, merge_files};
pub use issues::patch::Patch;
pub use issues::query::Filter;
pub use issues::timestamp::Timestamp;
pub use issues::version::Version;
pub use options::{Durability, Options};
pub use state::compaction::{Compacted, Compaction};
pub use state::compactor::Compactor;
pub use state::live::LiveIssues;
pub use strand_lock::{Counters, Filesystem, FilesystemKind, Holder, LockError, LockState};
pub use wal::cursor::{Record, Records};
pub use wal::follower::Follower;
pub use wal::log::{Log, Receipt};
pub use wal::payload::Payload;
pub use wal::reader::Reader;
pub use wal::recovery::Recovery;
pub use write::batch::Batch;

#[cfg(strand_seeded_bugs)]
pub use seeded::Bug;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;
