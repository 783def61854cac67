//! What the doctor has seen, as data, in words and as JSON.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use strand_lock::Holder;

use crate::{error::CorruptReason, inspect::scan::Seqs};

/// How a store is: what [`crate::check`] answers.
///
/// Written with `{}` it is words for a person; serialized, it is for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Checkup {
    /// The store's directory.
    pub dir: String,
    /// What to do.
    pub advice: Advice,
    /// Tells this store from others; `None` where no manifest can be read.
    pub store: Option<String>,
    /// The format version that the manifest names.
    pub format: Option<u64>,
    /// What the directory is on.
    pub filesystem: Option<FilesystemSeen>,
    /// The first record behind the live snapshot.
    pub first_seq: u64,
    /// The last whole record; `first_seq` − 1 when there is none.
    pub last_seq: u64,
    /// How many whole records there are, void ones included.
    pub records: u64,
    /// The void records: a repair has put them in the place of lost ones.
    pub void: Vec<Seqs>,
    /// The watermark in the volatile hints, where these can be trusted.
    pub hinted_seq: Option<u64>,
    /// The last record that is known to be durable, from the hints or from what the records say.
    pub durable_seq: u64,
    /// What the volatile hints are.
    pub hints: HintsState,
    /// All snapshots, the latest first.
    pub snapshots: Vec<SnapshotSeen>,
    /// All files in the directory and in its quarantine.
    pub files: Vec<FileSeen>,
    /// Every place where bytes are not what they should be; at most 10,000.
    pub damages: Vec<Damage>,
    /// How many more there are.
    pub damages_left_off: u64,
    /// The numbers of acknowledged records that are not where they should be.
    pub gaps: Vec<Seqs>,
    /// Bytes behind the last record that were never acknowledged. No damage.
    pub torn: Option<TornTail>,
    /// The locks.
    pub locks: Vec<LockSeen>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// What to do about a store: the answer of [`crate::check`].
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
    /// The next [`crate::Log::open`] finishes what was interrupted: it cuts off a torn tail, removes what a compaction has
    /// left, makes the directory a store.
    Open,
    /// Acknowledged bytes are damaged. [`crate::repair`] makes the store usable without them; a backup may have them.
    Repair,
    /// What is lost can't be made good from what is here.
    RestoreBackup,
    /// Something could not be read: a disk that fails, or missing permissions. Nothing else is certain.
    CheckDisk,
    /// A newer program wrote the store; this one can't judge it.
    Upgrade,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "all is well; nothing needs to be done",
            Self::Open => "nothing acknowledged is damaged; the next writer that opens the store finishes what was interrupted",
            Self::Repair => "acknowledged bytes are damaged: restore a backup that has them, or repair the store, which goes on without them",
            Self::RestoreBackup => "what is lost can't be made good from what is here: restore a backup",
            Self::CheckDisk => "not everything could be read: check the disk and the permissions, then look again",
            Self::Upgrade => "a newer program wrote the store (or the MANIFEST is damaged, if none ever did: then move it away): use a newer program",
        })
    }
}

/// A file of a store's directory, as [`crate::check`] has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileSeen {
    /// Its name in the directory.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length; `None` for a directory, and where it can't be told.
    pub bytes: Option<u64>,
}

/// What a file of a store's directory is, as [`crate::check`] has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// It says which files make up the store.
    Manifest,
    /// Records.
    Segment,
    /// The live snapshot.
    Snapshot,
    /// An older snapshot.
    Backup,
    /// Left by somebody who died, or being written now. The next open or compaction removes it.
    Orphan,
    /// The target of a lock.
    Lock,
    /// The volatile hints.
    Hints,
    /// Bytes that were cut off or replaced, and notes about them.
    Quarantine,
    /// No file of a store.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Segment => "segment",
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
            Self::Orphan => "orphan",
            Self::Lock => "lock",
            Self::Hints => "hints",
            Self::Quarantine => "quarantine",
            Self::Unknown => "unknown",
        })
    }
}

/// A place where bytes are not what they should be, as [`crate::check`] has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it the bad bytes begin, or the missing ones should.
    pub offset: u64,
    /// The line, counted from 1; `None` where it is about the file as a whole.
    pub line: Option<u64>,
    /// How many bytes are bad; 0 when some are missing.
    pub bytes: u64,
    /// What is wrong.
    #[serde(serialize_with = "in_words")]
    pub reason: CorruptReason,
}

fn in_words<S: Serializer>(
    value: &impl fmt::Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}, byte {}", self.offset)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Bytes that the next open cuts off, and keeps in quarantine, as [`crate::check`] has seen them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment.
    pub file: String,
    /// Where they begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

/// A snapshot, as [`crate::check`] has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SnapshotSeen {
    /// The file.
    pub file: String,
    /// The last record that it reflects.
    pub seq: u64,
    /// [`FileKind::Snapshot`], [`FileKind::Backup`] or [`FileKind::Orphan`].
    pub kind: FileKind,
    /// What it is like.
    pub state: SnapshotState,
    /// How many issues are in it, in lines that are good.
    pub issues: u64,
    /// How many tombstones.
    pub tombstones: u64,
    /// How many idempotency keys.
    pub keys: u64,
}

/// What a snapshot is like, as [`crate::check`] has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotState {
    /// All of it is good.
    Whole,
    /// Something is not.
    Damaged,
    /// The manifest names it, but it is not there.
    Missing,
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "whole",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
        })
    }
}

/// What the volatile hints are, as [`crate::check`] has seen them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HintsState {
    /// They can be trusted.
    Good,
    /// There are none. The next writer makes them.
    Missing,
    /// They are of another boot, file or store, or damaged. The next writer makes them anew.
    Stale,
    /// A writer is changing them, or has died while it did. The next writer makes them anew.
    NotValidated,
    /// A sync failed. The next writer writes the doubtful records again.
    Poisoned,
}

impl fmt::Display for HintsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::NotValidated => "left half-changed",
            Self::Poisoned => "a sync failed",
        })
    }
}

/// A lock, as [`crate::check`] has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LockSeen {
    /// Its file.
    pub file: String,
    /// Who holds it.
    pub holder: Option<HolderSeen>,
    /// Somebody sleeps until it is free, or has died while sleeping.
    pub waiting: bool,
}

impl fmt::Display for LockSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            None => write!(f, "{}: free", self.file)?,
            Some(holder) => write!(
                f,
                "{}: held for {} ms by pid {} ({}, running for {} ms)",
                self.file, holder.held_ms, holder.pid, holder.command, holder.running_ms
            )?,
        }
        f.write_str(if self.waiting { ", somebody waits" } else { "" })
    }
}

/// Who holds a lock, as [`crate::check`] has seen it. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HolderSeen {
    /// The process.
    pub pid: u32,
    /// Its command line, cut to 64 bytes.
    pub command: String,
    /// How long it has held the lock.
    pub held_ms: u64,
    /// How long it has been running; 0 where the system does not tell.
    pub running_ms: u64,
}

impl HolderSeen {
    pub(crate) fn of(holder: Holder) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            pid: holder.pid,
            held_ms: ms(holder.held_for),
            running_ms: ms(holder.running_for),
            command: holder.command,
        }
    }
}

/// What a directory is on, as [`crate::check`] has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FilesystemSeen {
    /// The filesystem's name.
    pub name: String,
    /// Whether it can carry locks and shared memory.
    pub local: bool,
}

impl fmt::Display for FilesystemSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.local { "local" } else { "not local" };
        write!(f, "{} ({kind})", self.name)
    }
}

/// What [`crate::check`] could not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unreadable {
    /// The file.
    pub file: String,
    /// The system's answer.
    pub error: String,
}

impl fmt::Display for Checkup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.dir, self.advice)?;
        self.describe(f)?;
        self.complain(f)
    }
}

/// What is not known.
fn or_unknown(known: Option<&impl ToString>) -> String {
    known.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

impl Checkup {
    /// What there is.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (store, format) = (
            or_unknown(self.store.as_ref()),
            or_unknown(self.format.as_ref()),
        );
        let filesystem = or_unknown(self.filesystem.as_ref());
        writeln!(f, "store {store}, format {format}, on {filesystem}")?;
        writeln!(
            f,
            "log: {} records, {} to {}, durable through {}",
            self.records, self.first_seq, self.last_seq, self.durable_seq
        )?;
        if !self.void.is_empty() {
            writeln!(f, "void, in the place of lost ones: {}", ranges(&self.void))?;
        }
        let hinted = or_unknown(self.hinted_seq.as_ref());
        writeln!(f, "hints: {}, durable through {hinted}", self.hints)?;
        for snapshot in &self.snapshots {
            writeln!(
                f,
                "{} of record {}: {}, {} issues, {} tombstones, {} keys",
                snapshot.kind,
                snapshot.seq,
                snapshot.state,
                snapshot.issues,
                snapshot.tombstones,
                snapshot.keys
            )?;
        }
        for lock in &self.locks {
            writeln!(f, "{lock}")?;
        }
        writeln!(f, "files:")?;
        for file in &self.files {
            let bytes = file.bytes.map_or(String::new(), |bytes| bytes.to_string());
            writeln!(
                f,
                "  {bytes:>12}  {:<10}  {}",
                file.kind.to_string(),
                file.name
            )?;
        }
        Ok(())
    }

    /// What is wrong.
    fn complain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(TornTail {
            file,
            offset,
            bytes,
        }) = &self.torn
        {
            writeln!(
                f,
                "torn tail: {bytes} bytes in {file} from byte {offset}, which the next open moves to quarantine"
            )?;
        }
        for Unreadable { file, error } in &self.unreadable {
            writeln!(f, "unreadable: {file}: {error}")?;
        }
        for damage in &self.damages {
            writeln!(f, "damage: {damage}")?;
        }
        if self.damages_left_off > 0 {
            writeln!(f, "damage: {} more places", self.damages_left_off)?;
        }
        if !self.gaps.is_empty() {
            writeln!(f, "missing records: {}", ranges(&self.gaps))?;
        }
        Ok(())
    }
}

/// Ranges in words.
pub(crate) fn ranges(ranges: &[Seqs]) -> String {
    let words: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    words.join(", ")
}
