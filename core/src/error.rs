use std::{fmt, io, iter::successors, path::PathBuf};

use strand_lock::{Filesystem, LockError};

/// The result of this crate's functions: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a store failed. Each variant says what is left on disk.
///
/// The text says what failed, where, and what to do. [`source`](std::error::Error::source) says
/// why; print both.
///
/// ```
/// use strand_core::{Error, Issues};
///
/// # let dir = tempfile::tempdir()?;
/// match Issues::load(dir.path()) {
///     Ok(issues) => println!("{} issues", issues.len()),
///     Err(Error::NoStore { path }) => println!("nothing was ever written to {}", path.display()),
///     Err(error) if error.is_retryable() => println!("again: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed. [`Error::outcome`] says whether an append may be stored nevertheless.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// The attempted operation, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The state that a failed append left behind.
        outcome: Outcome,
        /// The system's error.
        source: io::Error,
    },
    /// Bytes violate `docs/FORMAT.md`. Nothing was changed or skipped.
    #[error("{} is corrupt at byte {offset}: {reason}; {}", path.display(), reason.advice())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the first bad or missing line begins.
        offset: u64,
        /// The fault that was found there.
        reason: CorruptReason,
    },
    /// The store was written by a newer version of this crate. Nothing was changed.
    #[error(
        "{} has format version {found}, but this program knows versions up to {supported}; \
         use a newer program", path.display()
    )]
    UnsupportedVersion {
        /// The store's manifest.
        path: PathBuf,
        /// The version in the manifest.
        found: u64,
        /// The newest version that this crate knows.
        supported: u64,
    },
    /// The lock was not taken; [`LockError::Timeout`] names the holder. Nothing was written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory does not exist. Nothing was created.
    #[error("the directory {} does not exist; create it first", path.display())]
    MissingDirectory {
        /// The missing directory.
        path: PathBuf,
    },
    /// The store's path is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory holds no store. Nothing was created. Only readers and
    /// [`repair`](crate::repair::repair) return this; [`crate::Log::open`] creates the store.
    #[error("{} holds no store (no MANIFEST)", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// This process has no permission to write. Nothing was changed.
    #[error("cannot write {}", path.display())]
    NotWritable {
        /// The file that could not be opened for writing.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// On the directory's filesystem, locks or shared memory may not work between all processes
    /// that reach it. Nothing was created or changed.
    #[error(
        "{} is on {} ({:?}), where a lock may not exclude other machines; move the store to a \
         local disk, or set `allow_unsafe_filesystem`",
        path.display(), filesystem.name, filesystem.kind
    )]
    UnsafeFilesystem {
        /// The directory.
        path: PathBuf,
        /// The filesystem that it is on.
        filesystem: Filesystem,
    },
    /// Where a store would have its `lock`, `shm` or `compact.lock`, there is a file of somebody
    /// else; or a directory has the name of a store's file. Nothing was changed.
    #[error(
        "{} is not a file of strand, but has the name of one; move it, or use another directory",
        path.display()
    )]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// The store was removed or replaced while it was open here, or a file was by which processes
    /// agree on it. [`Error::outcome`] says whether an append may be stored nevertheless. Open the
    /// store again.
    #[error(
        "{} was removed or replaced while the store was open; open the store again", path.display()
    )]
    StoreReplaced {
        /// The file or directory that is not the one that was opened.
        path: PathBuf,
        /// What a failed append left behind.
        outcome: Outcome,
    },
    /// A repair would lose too much, or has nothing to work with. Nothing was changed.
    #[error("cannot repair {}: {reason}; restore a backup", path.display())]
    BeyondRepair {
        /// The file that cannot be repaired.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A line of a file is no issue. Nothing was changed.
    #[error("line {line} of {}: {reason}; nothing was changed", file.display())]
    BadLine {
        /// The file, or `ours` or `theirs`.
        file: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The event was refused. Nothing was written.
    #[error("invalid event")]
    InvalidEvent(#[from] InvalidEvent),
    /// The record would be longer than [`crate::RECORD_BYTES_MAX`]. Nothing was written.
    #[error(
        "the record would have {bytes} bytes, more than {max}; split the batch or shorten the event"
    )]
    RecordTooLarge {
        /// Its length.
        bytes: u64,
        /// The maximum.
        max: u64,
    },
    /// The requested record has been folded into a snapshot, and its segment removed. Only reading
    /// returns this. Load [`crate::LiveIssues`], and continue after the record that it reflects.
    #[error(
        "record {from_seq} is compacted away; load {} and continue with record {}",
        snapshot.display(), snapshot_seq + 1
    )]
    Compacted {
        /// The requested record.
        from_seq: u64,
        /// The last record that the snapshot reflects.
        snapshot_seq: u64,
        /// The snapshot's file; of several, the last.
        snapshot: PathBuf,
    },
    /// How far the log is durable is unknown: the shared hints are missing, or from before a
    /// reboot. The next writer rebuilds them. Only [`crate::Reader::durable_seq`] returns this.
    #[error(
        "how far the log in {} is durable is unknown until the next writer opens it", path.display()
    )]
    DurableSeqUnknown {
        /// The store's directory.
        path: PathBuf,
    },
    /// A sync failed: the record is in the log, but may not survive a power failure. It is not
    /// acknowledged, and may later be seen whole, or never. The next append writes the records in
    /// doubt again before its own.
    #[error("record {seq} is written, but it is in doubt whether it is durable")]
    DurabilityUnknown {
        /// The record's sequence number.
        seq: u64,
        /// The known part of the failure. If another process led the sync, no more than that it
        /// failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store that is a service gave no answer, or none that settles the call. Only a
    /// [`Backend`](crate::backend::Backend) that is not a directory returns this.
    #[error(
        "{store} did not complete the call{}",
        key.as_ref().map(|key| format!("; the write can be repeated with the key {key:?}"))
            .unwrap_or_default()
    )]
    Unavailable {
        /// The store's address.
        store: String,
        /// What a failed write left behind.
        outcome: Outcome,
        /// The idempotency key of a write whose outcome is unknown: repeated with it, the write is
        /// stored once.
        key: Option<String>,
        /// The known part of the failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store that is a service must not be used as it is: it might lose what it acknowledges.
    /// Nothing was changed.
    #[error("{store} must not be used")]
    Unfit {
        /// The store's address.
        store: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The state that a failed operation left behind: see [`Error::outcome`] and the example of
/// [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing is stored.
    Rejected,
    /// The record may be stored, whole, at most once.
    Unknown,
}

impl Error {
    /// The state that an append left behind when it failed with this error.
    ///
    /// Example: [`Error`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Io { outcome, .. }
            | Self::Unavailable { outcome, .. }
            | Self::StoreReplaced { outcome, .. } => *outcome,
            Self::DurabilityUnknown { .. } => Outcome::Unknown,
            _ => Outcome::Rejected,
        }
    }

    /// Whether a file was replaced in the moment of the call, which has changed nothing.
    pub(crate) fn is_displacement(&self) -> bool {
        let rejected = Outcome::Rejected;
        matches!(self, Self::StoreReplaced { outcome, .. } if *outcome == rejected)
    }

    /// Whether the same call can succeed later, without any other action.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Lock(error) => error.is_contention(),
            Self::Unavailable { outcome, .. } => *outcome == Outcome::Rejected,
            _ => false,
        }
    }

    pub(crate) fn in_doubt(
        seq: u64,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self::DurabilityUnknown { seq, source }
    }

    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            op,
            path,
            outcome: Outcome::Rejected,
            source,
        }
    }
}

/// The text of an error in JSON of usually one line, whose number would be mistaken for that of a
/// line in a file.
pub(crate) fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replacen(" at line 1 column ", " at column ", 1)
}

/// A number of things, such as `1 issue` or `2 issues`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{end}")
}

/// The text of an error and those of its sources, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let chain = successors(Some(error), |error| error.source());
    chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The fault in damaged bytes: part of [`Error::Corrupt`], and of the report of
/// [`check`](crate::check::check).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorruptReason {
    /// The line does not begin like a record.
    NotARecord,
    /// The line's checksum is not that of its bytes.
    Checksum {
        /// The checksum in the line.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// The line has no newline, although it is not a torn tail.
    Unterminated,
    /// The record has the wrong sequence number.
    Sequence {
        /// The right number.
        expected: u64,
        /// The number in the line.
        found: u64,
    },
    /// Records that were acknowledged as durable are missing.
    Missing {
        /// The first missing record.
        from_seq: u64,
        /// The last acknowledged record.
        through_seq: u64,
    },
    /// The record's checksum is right, but its content is not an event.
    Payload {
        /// The decoder's error.
        message: String,
    },
    /// The manifest is not one that this crate writes.
    Manifest {
        /// The fault.
        message: String,
    },
    /// There are log files, but no manifest.
    ManifestMissing,
    /// The file is not the snapshot that the manifest describes.
    Snapshot {
        /// The fault.
        message: String,
    },
}

impl CorruptReason {
    fn advice(&self) -> &'static str {
        match self {
            Self::ManifestMissing | Self::Manifest { .. } => {
                "restore the MANIFEST from a backup, or repair the store"
            }
            Self::Missing { .. } => {
                "restore the file from a backup, or repair the store (if you restored an older \
                 copy on purpose, delete `shm`)"
            }
            Self::Payload { .. } => "read it with the program that wrote it",
            _ => "restore the file from a backup, or repair the store",
        }
    }
}

impl fmt::Display for CorruptReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => write!(f, "this line is not a record"),
            Self::Checksum { stored, computed } => {
                write!(
                    f,
                    "the line has checksum {stored:08x}, but its bytes give {computed:08x}"
                )
            }
            Self::Unterminated => write!(f, "the line has no newline"),
            Self::Sequence { expected, found } => {
                write!(f, "record {found} is in the place of {expected}")
            }
            Self::Missing {
                from_seq,
                through_seq,
            } if from_seq == through_seq => {
                write!(f, "the acknowledged record {from_seq} is missing")
            }
            Self::Missing {
                from_seq,
                through_seq,
            } => {
                write!(
                    f,
                    "the acknowledged records {from_seq} to {through_seq} are missing"
                )
            }
            Self::Payload { message } => {
                write!(f, "the record is whole, but is not an event: {message}")
            }
            Self::Manifest { message } | Self::Snapshot { message } => write!(f, "{message}"),
            Self::ManifestMissing => write!(f, "there are log files, but no MANIFEST"),
        }
    }
}

/// Why an event is refused. Nothing was written.
///
/// ```
/// use strand_core::{InvalidEvent, Issue};
///
/// let refused = Issue::from_json(r#"{"id":"bd-1"}"#);
/// assert_eq!(refused.err(), Some(InvalidEvent::Field { field: "title", expected: "string" }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// The id is empty.
    #[error("the id is empty")]
    EmptyId,
    /// The agent of a claim is empty: the issue would be nobody's, and never free again.
    #[error("the agent is empty")]
    EmptyAgent,
    /// The idempotency key is empty.
    #[error("the idempotency key is empty")]
    EmptyKey,
    /// The id, title or key is longer than allowed.
    #[error("the {field} has {bytes} bytes, more than {max}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The maximum.
        max: usize,
    },
    /// An add or update needs the issue in `data`.
    #[error("the event has no issue in `data`")]
    MissingIssue,
    /// A field of the issue is missing or of the wrong type.
    #[error("the issue's {field} is not a JSON {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The right type.
        expected: &'static str,
    },
    /// The event and its issue have different ids.
    #[error("the event is for {event:?}, but its issue is {issue:?}")]
    IdMismatch {
        /// The event's id.
        event: String,
        /// The issue's id.
        issue: String,
    },
    /// The issue is not a JSON object.
    #[error("the issue is not a JSON object: {message}")]
    NotAnObject {
        /// The parser's error.
        message: String,
    },
    /// The text is not an event.
    #[error("not an event: {message}")]
    NotAnEvent {
        /// The parser's error.
        message: String,
    },
    /// A string has an escape that is half a surrogate pair, such as `\\ud800`: it stands for no
    /// character, and other programs refuse it (RFC 7493).
    #[error(
        "half a surrogate pair at column {column}, which stands for no character; write \\ufffd \
         instead"
    )]
    LoneSurrogate {
        /// Where the escape begins, in bytes, from 1. In an event that was not parsed from text:
        /// within the payload as it would be stored.
        column: usize,
    },
    /// Objects and arrays are nested too deeply for other programs.
    #[error("objects and arrays are nested deeper than {max} levels")]
    TooDeep {
        /// The maximum.
        max: usize,
    },
    /// A member would hide the record's own member of the same name.
    #[error("a member named `{member}` would hide the record's own")]
    Reserved {
        /// Its name.
        member: &'static str,
    },
    /// Only a patch has a `patch`, and every patch has one.
    #[error("`op` patch and the member `patch` go together")]
    PatchMismatch,
    /// A patch changes an array, but the field is not one.
    #[error("the issue's {field} is not an array")]
    NotAnArray {
        /// Which field.
        field: String,
    },
    /// The batch has no events.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The payload cannot be encoded as a record.
    #[error("the payload cannot be encoded as a JSON object: {message}")]
    Encoding {
        /// The fault.
        message: String,
    },
}
