//! The findings of a check, as data, as text and as JSON.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};
use strand_lock::{Filesystem, FilesystemKind, Holder, LockState};

use crate::{
    error::counted,
    format::resync::Damage,
    inspect::ranges::{self, words},
};

/// The condition of a store: returned by [`check`](crate::check::check).
///
/// `{}` formats it as text; serialized, it is what `strand doctor --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The store's directory.
    #[serde(serialize_with = "lossy")]
    pub dir: PathBuf,
    /// The advice.
    pub advice: Advice,
    /// The store's id; `None` if no manifest can be read.
    pub store: Option<String>,
    /// The format version in the manifest.
    pub format: Option<u64>,
    /// The filesystem that the directory is on. JSON: `name`, and whether it is `local`.
    #[serde(serialize_with = "filesystem")]
    pub filesystem: Option<Filesystem>,
    /// The first record after the live snapshot.
    pub first_seq: u64,
    /// The last whole record; `first_seq` − 1 if there is none.
    pub last_seq: u64,
    /// The number of whole records, no-op records included.
    pub records: u64,
    /// The no-op records, which repairs wrote in place of lost ones.
    #[serde(serialize_with = "ranges::serialize")]
    pub no_op: Vec<RangeInclusive<u64>>,
    /// The durable sequence number in the shared hints, if they can be trusted.
    pub hinted_seq: Option<u64>,
    /// The last record known to be durable, from the hints or from the records themselves.
    pub durable_seq: u64,
    /// Why the shared hints cannot be trusted; `None` if they can.
    pub hints_problem: Option<String>,
    /// The files of all snapshots, the latest first.
    pub snapshots: Vec<SnapshotReport>,
    /// All files of the directory and of its quarantine, each with its role and its length. The
    /// length is `None` for a directory, or if it is unknown. JSON: `file`, `kind`, `bytes`.
    #[serde(serialize_with = "files")]
    pub files: BTreeMap<PathBuf, (FileKind, Option<u64>)>,
    /// Places where bytes are not what they should be; 10,000 at most.
    pub damages: Vec<Damage>,
    /// How many more there are.
    pub damages_left_off: u64,
    /// Acknowledged records that are not where they should be.
    #[serde(serialize_with = "ranges::serialize")]
    pub gaps: Vec<RangeInclusive<u64>>,
    /// The torn tail: bytes after the last record that were never acknowledged, as a range of the
    /// last segment. Not damage: the next open moves them to quarantine. JSON: `file`, `offset`,
    /// `bytes`.
    #[serde(serialize_with = "torn")]
    pub torn: Option<(PathBuf, Range<u64>)>,
    /// The store's two lock files; `None` if a file cannot be read, or does not exist. JSON:
    /// `file`; `holder`, with times in milliseconds; and `waiting`.
    #[serde(serialize_with = "locks")]
    pub locks: Vec<(PathBuf, Option<LockState>)>,
    /// The files that could not be read, each with the system's error.
    pub unreadable: BTreeMap<PathBuf, String>,
}

/// Advice about a store: part of the report of [`check`](crate::check::check).
///
/// | newer format | unreadable | beyond repair | damaged | unfinished | advice |
/// | --- | --- | --- | --- | --- | --- |
/// | yes | | | | | `Upgrade` |
/// | no | yes | | | | `CheckDisk` |
/// | no | no | yes | | | `RestoreBackup` |
/// | no | no | no | yes | | `Repair` |
/// | no | no | no | no | yes | `Open` |
/// | no | no | no | no | no | `Nothing` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Advice {
    /// All is well.
    Nothing,
    /// The next [`Log::open`](crate::Log::open) completes what was interrupted: it cuts a torn
    /// tail, removes obsolete files, or creates the store.
    Open,
    /// Acknowledged bytes are damaged. [`repair`](crate::repair::repair) makes the store usable
    /// without them; a backup may contain them.
    Repair,
    /// The loss cannot be repaired from the files that are left.
    RestoreBackup,
    /// A file could not be read: the disk is failing, or a permission is missing. The rest of the
    /// report is uncertain.
    CheckDisk,
    /// A newer program wrote the store; this one cannot judge it.
    Upgrade,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "all is well",
            Self::Open => {
                "no acknowledged byte is damaged; the next writer completes what was interrupted"
            }
            Self::Repair => {
                "acknowledged bytes are damaged: restore a backup that contains them, or repair \
                 the store, which then goes on without them"
            }
            Self::RestoreBackup => "the damage cannot be repaired: restore a backup",
            Self::CheckDisk => {
                "not every file could be read: check the disk and the permissions, then run this \
                 again"
            }
            Self::Upgrade => {
                "a newer program wrote the store: use that (if there is none, the MANIFEST is \
                 damaged: move it away)"
            }
        })
    }
}

/// The role of a file in a store's directory: part of the report of [`check`](crate::check::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// Names the files that make up the store.
    Manifest,
    /// Records.
    Segment,
    /// Where records are that concern an issue, or the issues that are not closed. It may be
    /// deleted at any time.
    Index,
    /// The live snapshot; of several files, the base.
    Snapshot,
    /// A file of the live snapshot behind its base: what changed since the one before it.
    Run,
    /// A file of an older snapshot.
    Backup,
    /// Obsolete or half-written. The next open or compaction removes it, unless a compaction is
    /// writing it now.
    Orphan,
    /// A lock file.
    Lock,
    /// A setting of the command: `no-auto-compact`, `archive-dir`.
    Setting,
    /// The shared hints.
    Hints,
    /// Bytes that were cut off or replaced, and notes about them.
    Quarantine,
    /// The directory of what is remembered of exported and imported files.
    Mirrors,
    /// Not a file of a store.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manifest => "manifest",
            Self::Segment => "segment",
            Self::Index => "index",
            Self::Snapshot => "snapshot",
            Self::Run => "run",
            Self::Backup => "backup",
            Self::Orphan => "orphan",
            Self::Lock => "lock",
            Self::Setting => "setting",
            Self::Hints => "hints",
            Self::Quarantine => "quarantine",
            Self::Mirrors => "mirrors",
            Self::Unknown => "unknown",
        })
    }
}

/// A file of a snapshot: part of the report of [`check`](crate::check::check).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The file, relative to the store's directory.
    pub file: PathBuf,
    /// The last record that it reflects.
    pub seq: u64,
    /// [`FileKind::Snapshot`], [`FileKind::Run`], [`FileKind::Backup`] or [`FileKind::Orphan`].
    pub kind: FileKind,
    /// Why it cannot be read as a whole; `None` if it can.
    pub problem: Option<String>,
    /// The issues in its good lines.
    pub issues: u64,
    /// The tombstones in its good lines.
    pub tombstones: u64,
    /// The idempotency keys in its good lines.
    pub keys: u64,
    /// The good lines of another [`State`](crate::State) than [`Issues`](crate::Issues).
    pub other_lines: u64,
}

impl fmt::Display for SnapshotReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of record {}: {}, {}, {}",
            self.kind,
            self.seq,
            counted(self.issues, "issue"),
            counted(self.tombstones, "tombstone"),
            counted(self.keys, "key")
        )?;
        if self.other_lines > 0 {
            let lines = counted(self.other_lines, "line");
            write!(f, ", {lines} of another state")?;
        }
        match &self.problem {
            Some(problem) => write!(f, ", damaged: {problem}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.dir.display(), self.advice)?;
        self.describe(f)?;
        self.complain(f)
    }
}

impl CheckReport {
    /// The contents of the store.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (store, format) = (
            or_unknown(self.store.as_ref()),
            or_unknown(self.format.as_ref()),
        );
        let filesystem = self.filesystem.as_ref().map(|filesystem| {
            let local = if is_local(filesystem) {
                "local"
            } else {
                "not local"
            };
            format!("{} ({local})", filesystem.name)
        });
        let filesystem = or_unknown(filesystem.as_ref());
        writeln!(f, "store {store}, format {format}, on {filesystem}")?;
        match self.records {
            0 => write!(f, "log: no records, the next is {}", self.first_seq)?,
            records => {
                let records = counted(records, "record");
                write!(f, "log: {records}, {} to {}", self.first_seq, self.last_seq)?;
            }
        }
        writeln!(f, ", durable through {}", self.durable_seq)?;
        if !self.no_op.is_empty() {
            writeln!(f, "no-op records: {}", words(&self.no_op))?;
        }
        let hinted = or_unknown(self.hinted_seq.as_ref());
        let hints = self.hints_problem.as_deref().unwrap_or("good");
        writeln!(f, "hints: {hints}, durable through {hinted}")?;
        for snapshot in &self.snapshots {
            writeln!(f, "{snapshot}")?;
        }
        for (file, state) in &self.locks {
            write!(f, "{}: ", file.display())?;
            match holder(state.as_ref()) {
                Some(holder) => write!(f, "held by {holder}")?,
                None => f.write_str("free")?,
            }
            let waiting = state.as_ref().is_some_and(|state| state.waiting);
            writeln!(f, "{}", if waiting { ", a process waits" } else { "" })?;
        }
        writeln!(f, "files:")?;
        for (file, (kind, bytes)) in &self.files {
            let bytes = bytes.map_or(String::new(), |bytes| bytes.to_string());
            writeln!(f, "  {bytes:>12}  {kind:<10}  {}", file.display())?;
        }
        Ok(())
    }

    /// The damage that was found.
    fn complain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, Range { start, end })) = &self.torn {
            writeln!(
                f,
                "torn tail: {} in {} from byte {start}, which the next open moves to quarantine",
                counted(end - start, "byte"),
                file.display()
            )?;
        }
        for (file, error) in &self.unreadable {
            writeln!(f, "unreadable: {}: {error}", file.display())?;
        }
        for damage in &self.damages {
            writeln!(f, "damage: {damage}")?;
        }
        if self.damages_left_off > 0 {
            writeln!(f, "damage: {} more places", self.damages_left_off)?;
        }
        if !self.gaps.is_empty() {
            writeln!(f, "missing records: {}", words(&self.gaps))?;
        }
        Ok(())
    }
}

/// The files as a list of objects.
fn files<S: Serializer>(
    value: &BTreeMap<PathBuf, (FileKind, Option<u64>)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Json<'a> {
        file: &'a Path,
        kind: FileKind,
        bytes: Option<u64>,
    }
    let files = value.iter();
    let files = files.map(|(file, &(kind, bytes))| Json { file, kind, bytes });
    serializer.collect_seq(files)
}

fn or_unknown(known: Option<&impl ToString>) -> String {
    known.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn is_local(filesystem: &Filesystem) -> bool {
    filesystem.kind == FilesystemKind::Local
}

/// JSON has no bytes that are not Unicode.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn filesystem<S: Serializer>(value: &Option<Filesystem>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Json<'a> {
        name: &'a str,
        local: bool,
    }
    let json = value.as_ref().map(|filesystem| Json {
        name: &filesystem.name,
        local: is_local(filesystem),
    });
    json.serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn torn<S: Serializer>(
    value: &Option<(PathBuf, Range<u64>)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Json<'a> {
        file: &'a Path,
        offset: u64,
        bytes: u64,
    }
    let json = value.as_ref().map(|(file, range)| Json {
        file,
        offset: range.start,
        bytes: range.end - range.start,
    });
    json.serialize(serializer)
}

fn holder(state: Option<&LockState>) -> Option<&Holder> {
    state?.holder.as_ref()
}

fn locks<S: Serializer>(
    value: &[(PathBuf, Option<LockState>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Json<'a> {
        file: &'a Path,
        holder: Option<By<'a>>,
        waiting: bool,
    }
    #[derive(Serialize)]
    struct By<'a> {
        pid: u32,
        command: &'a str,
        held_ms: u128,
        running_ms: u128,
    }
    serializer.collect_seq(value.iter().map(|(file, state)| Json {
        file,
        holder: holder(state.as_ref()).map(|holder| By {
            pid: holder.pid,
            command: &holder.command,
            held_ms: holder.held_for.as_millis(),
            running_ms: holder.running_for.as_millis(),
        }),
        waiting: state.as_ref().is_some_and(|state| state.waiting),
    }))
}
