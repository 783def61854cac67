//! A crash-safe write-ahead log of JSON events that many processes append to at once.
//!
//! A store is a directory. [`Log`] appends to it, from any number of threads and processes;
//! [`Reader`] and [`Store`] read it without a lock. There is no daemon, and nothing runs in the
//! background. Each record is one line of JSON, so `jq`, `grep` and `tail -f` work on a live log.
//!
//! ```
//! use strand_core::{Issue, IssueEvent, Log, Options, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! let now = 1_706_540_000_123; // milliseconds since 1970
//! let log = Log::open(dir.path(), Options::default())?;
//! log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
//! // The event is on the disk: it survives a crash of this process, of the system, and the loss of power.
//!
//! let store = Store::load(dir.path())?;
//! assert_eq!(store.get("bd-1").map(|issue| issue.title()), Some("Mend the fence".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
//! | INFO | `compact`, `repair` | [`Log::compact`], also in its thread; [`repair`] | `dir` |
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
//! | INFO | `lead taken over` | the leader of a sync was not heard of for too long | `leader_pid`, `committed_seq` |
//! | INFO | `healed` | doubtful records were written again and synced | `through_seq` |
//! | WARN | `sync failed` | the records through this one are doubtful, until `healed` | `through_seq`, `error` |
//! | WARN | `torn tail cut` | bytes that nobody was told about were moved to `quarantine/` | `cut_bytes`, `quarantined` |
//! | WARN | `lock not taken` | mostly: somebody held it until the deadline | `error` |
//! | WARN | `repaired` | a repair has changed the store | `replaced_files`, `lost_records` |
//! | WARN | `compactor ended` | the thread of a [`Compactor`] has met an error, and does nothing any more | `error` |
//!
//! The bytes are described in `docs/FORMAT.md`, the reasons in `docs/DESIGN.md`. Comments such as
//! `// I3` name the invariants listed there.
#![forbid(unsafe_code)]

mod append;
mod batch;
mod checkup;
mod commit;
mod compact;
mod compactor;
mod doctor;
mod error;
mod event;
mod fold;
mod folded;
mod follow;
mod format;
mod hints;
mod host;
mod index;
mod issue;
mod json;
mod jsonl;
mod lines;
mod log;
mod manifest;
mod merge;
mod options;
mod pace;
mod patch;
mod payload;
mod probe;
mod quarantine;
mod reader;
mod records;
mod recover;
mod recovery;
mod repair;
mod repaired;
mod salvage;
mod seeded;
mod snapshot;
mod snapshot_file;
mod storage;
mod store;
mod survey;
mod telemetry;
mod time;
mod watermark;

pub use batch::Batch;
pub use checkup::{
    Advice, Checkup, Damage, FileKind, FileSeen, FilesystemSeen, HintsState, HolderSeen, LockSeen,
    SnapshotSeen, SnapshotState, TornTail, Unreadable,
};
pub use compact::{Compacted, Compaction};
pub use compactor::Compactor;
pub use doctor::{doctor, doctor_in};
pub use error::{CorruptReason, Error, InvalidEvent, Outcome, Result};
pub use event::{IssueEvent, KEY_BYTES_MAX, Op};
pub use follow::Follower;
pub use format::{FORMAT_VERSION, RECORD_BYTES_MAX, SEQ_MAX};
pub use host::{HeldLock, Host, Page, PageView, StoreLock, ThisMachine};
pub use index::Filter;
pub use issue::{Dependency, ID_BYTES_MAX, Issue, TITLE_BYTES_MAX};
pub use jsonl::{
    BadLine, BadLines, Existing, ImportError, ImportOptions, Imported, export, write_jsonl,
};
pub use log::{Log, Receipt};
pub use merge::{Conflict, MergeError, Merged, Side, merge, merge_files};
pub use options::{Durability, Options};
pub use patch::Patch;
pub use payload::Payload;
pub use probe::{Point, Probe};
pub use reader::Reader;
pub use records::{Record, Records};
pub use recover::{Tail, classify};
pub use recovery::Recovery;
pub use repair::repair;
pub use repaired::{Counts, LostLine, Repaired, RepairedFile, RepairedSnapshot, SnapshotSource};
pub use snapshot::Snapshot;
pub use storage::{Disk, OpenMode, Storage, StorageFile};
pub use store::Store;
pub use strand_lock::{
    Counters, Filesystem, FilesystemKind, Holder, LockError, LockState, PageError,
};
pub use survey::Seqs;

#[cfg(strand_seeded_bugs)]
pub use seeded::Bug;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;
