//! A crash-safe write-ahead log of JSON events that many processes append to at once.
//!
//! A store is a directory on a local disk. Any number of threads and processes append to it, read
//! it and follow it at the same time. There is no daemon and no background work: everything happens
//! inside the calls. Each record is one line of JSON with a checksum, so `jq` and `grep` work on a
//! live log. To wait for new records, use a [`Follower`], not `tail -f`.
//!
//! The crate was made for issue trackers whose agents are short-lived processes. [`IssueLog`] is a
//! log of issue events ([`IssueEvent`]) with conditional writes; [`Issues`] is the state that the
//! events lead to. [`Log`] is the log underneath, for any [`Payload`] and [`State`].
//!
//! # The first append
//!
//! ```
//! use strand_core::{IssueLog, Issue, Issues, Options};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let log = IssueLog::open(dir, Options::default())?; // An empty directory becomes a store.
//! let receipt = log.create(Issue::new("bd-1", "Mend the fence"))?;
//! assert_eq!(receipt.seq, 1);
//! // The event is on the disk: it survives a process crash, a system crash and a power loss.
//!
//! let issues = Issues::load(dir)?;
//! assert_eq!(issues.get("bd-1").map(Issue::title), Some("Mend the fence".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which type for which task
//!
//! | task | use | blocks for | holds in memory |
//! | --- | --- | --- | --- |
//! | append events unconditionally | [`Log::append`], [`Log::append_batch`] | the lock, and one sync, shared with concurrent appends | one record |
//! | change issues that others change too | [`IssueLog::create`], [`IssueLog::claim`], [`IssueLog::patch`], [`IssueLog::update_if`]; several at once: [`Batch`] and [`IssueLog::commit`] | the same | the issues that they name |
//! | decide what to change | [`IssueLog::with_issues`] | no other process | all issues |
//! | read all records once | [`Reader::records`] | nothing | one record |
//! | receive records as they are appended | [`Reader::follow`], a [`Follower`] | the next record, or a deadline | one record |
//! | go through all issues once | [`Issues::each`] | nothing | the issues that changed behind the snapshot |
//! | query the state once; repeatedly | [`Issues::load`]; [`LiveIssues`] and [`LiveIssues::refresh`] | nothing | all issues |
//! | keep the log short | [`IssueLog::compact`], or a [`Compactor`] | itself; other appends wait for one sync | the issues that changed; at the first time, all |
//! | import and export JSON lines | [`IssueLog::import`], [`export`], [`merge`] | as appends; two syncs; nothing | all issues |
//! | check a store; repair it | [`check`](check::check); [`repair`](repair::repair) | nothing; both locks, while it reads | one record; all issues |
//!
//! # Reading
//!
//! Readers take no lock, write nothing, and need no permission to write. They see the records in
//! their one order, through the last *durable* one. Records are numbered from 1 without gaps
//! ([`Record::seq`]). The *version* of an issue is the number of the record that last changed it
//! ([`Issues::version`]).
//!
//! ```
//! use strand_core::{LiveIssues, Reader};
//! # use strand_core::{IssueLog, Issue, IssueEvent, Options};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # let log = IssueLog::open(dir, Options::default())?;
//! # log.create(Issue::new("bd-1", "Mend the fence"))?;
//! let reader = Reader::<IssueEvent>::open(dir)?;
//! for record in reader.records()? {
//!     let record = record?;
//!     println!("{}: {:?}", record.seq, record.events);
//! }
//! let mut live = LiveIssues::open(dir)?;
//! for (id, issue) in live.state().ready() {
//!     println!("{id} {}", issue.title());
//! }
//! live.refresh()?; // Reads only new records.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Conditions
//!
//! A condition is checked under the lock, right before the record is written. If several agents try
//! at once, one succeeds, and the others get the issue as it is now. A write with an idempotency
//! key ([`Batch::key`]) is stored once, however often you repeat it.
//!
//! ```
//! use strand_core::{Batch, CommitError, Issue, IssueLog, Options, Patch, Timestamp};
//!
//! # let dir = tempfile::tempdir()?;
//! # let (dir, now) = (dir.path(), Timestamp::now());
//! let log = IssueLog::open(dir, Options::default())?;
//! log.create(Issue::new("bd-1", "Mend the fence"))?;
//! log.claim("bd-1", "agent-7")?;
//! match log.claim("bd-1", "agent-8") {
//!     Err(CommitError::Conflict(found)) => {
//!         assert_eq!(found.issue.and_then(|issue| issue.assignee()).as_deref(), Some("agent-7"));
//!     }
//!     other => panic!("two agents have one issue: {other:?}"),
//! }
//! let done = Batch::new()
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
//! use strand_core::{Error, Reader, Seq};
//! # use strand_core::{IssueLog, Issues, Issue, IssueEvent, Options};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # let log = IssueLog::open(dir, Options::default())?;
//! # log.create(Issue::new("bd-1", "Mend the fence"))?;
//! let reader = Reader::<IssueEvent>::open(dir)?;
//! let mut follower = reader.follow(Seq::new(1))?; // From the first record on.
//! match follower.next_before(Instant::now() + Duration::from_secs(1)) {
//!     Ok(Some(record)) => println!("{:?}", record.events),
//!     Ok(None) => println!("nothing within a second"),
//!     // The record was compacted away: load the state, and follow from the record behind it.
//!     Err(Error::Compacted { .. }) => {
//!         follower = reader.follow(Issues::load(dir)?.last_seq().next())?;
//!     }
//!     Err(error) => return Err(error.into()),
//! }
//! # drop(follower);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Compaction
//!
//! The log grows until [`IssueLog::compact`] writes a snapshot of the state and removes the
//! segments before it; writers go on meanwhile. [`Options::compact_after_bytes`] and
//! [`Options::compact_after_records`] say when that is due ([`IssueLog::compaction_due`]). Of a
//! long snapshot of issues, most is left as it is, and a *run* of what changed is written. Nothing
//! compacts by itself: start a [`Compactor`] in a long-lived process, or compact after the real
//! work of a short one. Files that a reader has open stay readable; reading a record that is gone
//! fails with [`Error::Compacted`]. For a log of another payload, you say what its [`State`] is.
//!
//! # Durability
//!
//! With [`Durability::Synced`], the default, an acknowledged write survives the crash of any
//! process, a system crash, and a power loss. With [`Durability::Buffered`] it survives the crash
//! of any process, and [`Log::sync_to`] makes it durable later. The disk is trusted to keep what it
//! has confirmed.
//!
//! # Errors, and what is left on disk
//!
//! [`Error`] is what a log, a reader or a state fails with. A write with conditions fails with a
//! [`CommitError`]: either a [`Conflict`], or an `Error`. After a failed write,
//! [`Error::outcome`] and [`CommitError::outcome`] say what is left:
//!
//! | outcome | meaning | what to do |
//! | --- | --- | --- |
//! | [`Outcome::Rejected`] | nothing is stored | what the error says; try again if it [is retryable](Error::is_retryable) |
//! | [`Outcome::Unknown`] | the whole record is stored, once, or nothing is | repeat the write if it has a [key](Batch::key); otherwise check first |
//!
//! A damaged record that was acknowledged is never skipped: reading it fails with
//! [`Error::Corrupt`], which has the file and the offset, and changes nothing. A *torn tail*, left
//! by a writer that died in the middle of a record, is no error: the next writer moves it to
//! `quarantine/`. Readers never change anything. Under "Errors", each function says what it may
//! leave behind.
//!
//! # Threads and processes
//!
//! [`Log`], [`IssueLog`] and [`Reader`] are shared between threads by reference ([`Sync`]); each
//! process opens its own. All calls block; in async code, run them on a thread for blocking work. A
//! process that is killed at any point blocks no other: the kernel releases its lock, and others
//! finish its sync. A child made by `fork` must open the store again. The directory must be on a
//! local disk ([`Error::UnsafeFilesystem`]).
//!
//! # Programs to copy from
//!
//! Each program in `core/examples` says at its top how to run it: `claiming_agent` (waits, claims,
//! works and closes), `follower_mirror` (posts every record to a web hook, exactly once),
//! `async_service` (with tokio), `migrate_jsonl` (from a plain file).
//!
//! # Features
//!
//! None is on by default. `tracing` is described below. `testing` adds the module `testing`: the
//! machine under a store as traits, for fault injection and simulations.
//!
//! # Tracing
//!
//! With the feature `tracing`, a log reports its work through the crate `tracing`, with the target
//! `strand_core`. Without it, none of this is compiled. The names are as stable as the rest of the
//! API. Times are in whole microseconds.
//!
//! | level | span | around | fields |
//! | --- | --- | --- | --- |
//! | TRACE | `append`, `commit` | [`Log::append`] and [`Log::append_batch`]; [`IssueLog::commit`] and its callers | `dir` |
//! | DEBUG | `open` | [`Log::open`] | `dir` |
//! | INFO | `compact`, `repair` | [`IssueLog::compact`], also in its thread; [`repair`](repair::repair) | `dir` |
//!
//! | level | event (`message`) | meaning | fields, besides `dir` above TRACE |
//! | --- | --- | --- | --- |
//! | TRACE | `lock held` | the store's lock was held and released | `wait_us`, `hold_us` |
//! | TRACE | `written` | a record is in the log, durable or not | `seq`, `bytes` |
//! | TRACE | `durable` | a caller's wait for the sync of its record is over | `seq`, `wait_us` |
//! | DEBUG | `synced` | this process led a sync, for the records of any processes | `through_seq`, `group_records`, `sync_us` |
//! | DEBUG | `rotated` | a new segment was begun, and the old one synced | `first_seq`, `rotate_us` |
//! | DEBUG | `compaction phase` | a phase is done: `rotate`, `fold`, `write`, `switch`, `remove` | `phase`, `phase_us` |
//! | INFO | `compacted` | a compaction is done | `through_seq`, `entries`, `snapshot_bytes`, `removed_files`, `hold_us`, `elapsed_us` |
//! | INFO | `recovered` | the hints were rebuilt, or a dead writer's records adopted (DEBUG without shared memory, where they may be any other writer's) | `rebuilt`, `adopted_records` |
//! | INFO | `lead taken over` | the leader of a sync gave no sign of life for too long | `leader` (its token), `durable_seq` |
//! | INFO | `healed` | records in doubt were written again and synced | `through_seq` |
//! | WARN | `sync failed` | the records through this one are in doubt, until `healed` | `through_seq`, `error` |
//! | WARN | `torn tail cut` | bytes that were never acknowledged were moved to `quarantine/` | `cut_bytes`, `quarantined` |
//! | WARN | `lock not taken` | usually: another process held it until the deadline | `error` |
//! | WARN | `repaired` | a repair has changed the store | `replaced_files`, `lost_records` |
//! | WARN | `compactor failed` | the thread of a [`Compactor`] has failed, and will try again | `error` |
//!
//! # Further reading
//!
//! `docs/FORMAT.md` describes the bytes, `docs/DESIGN.md` the reasons. Comments such as `// I3`
//! refer to the invariants listed there.
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
mod state;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod wal;
mod write;

pub use error::{CorruptReason, Error, InvalidEvent, Outcome, Result};
pub use format::payload::Payload;
pub use format::record::{FORMAT_VERSION, RECORD_BYTES_MAX, SEQ_MAX};
pub use format::seq::Seq;
pub use issues::event::{IssueEvent, KEY_BYTES_MAX, Op};
pub use issues::filter::Filter;
pub use issues::issue::{ID_BYTES_MAX, Issue, TITLE_BYTES_MAX};
pub use issues::issues::Issues;
pub use issues::jsonl::write_jsonl;
pub use issues::merge::{Merged, merge};
pub use issues::merge_fields::MergeConflict;
pub use issues::patch::Patch;
pub use issues::timestamp::Timestamp;
pub use issues::version::Version;
pub use options::{Durability, Options};
pub use state::State;
pub use state::compaction::{Compacted, compaction_due};
pub use state::compactor::Compactor;
pub use state::each::Passed;
pub use state::live::{Live, LiveIssues};
pub use state::point_reader::{PointReader, Versioned};
pub use strand_lock::{Counters, Filesystem, FilesystemKind, Holder, LockError, LockState};
pub use wal::cursor::Record;
pub use wal::follower::Follower;
pub use wal::log::{Log, Receipt};
pub use wal::reader::Reader;
pub use wal::recovery::Recovery;
pub use write::backend;
pub use write::batch::{Batch, Expected};
pub use write::conditions::{CommitError, Conflict, MakeError};
pub use write::export::{export, merge_files};
pub use write::import::{ImportError, ImportOptions, Imported};
pub use write::issue_log::IssueLog;
pub use write::mirror::{export_mirror, overwrite_mirror};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;

#[cfg(doctest)]
#[doc = include_str!("../../docs/GUIDE.md")]
struct GuideExamples;
