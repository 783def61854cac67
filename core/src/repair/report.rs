//! What a repair has done, as data, in words and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{check::report::ranges, inspect::scan::Seqs, state::snapshot::BadPart};

/// What [`crate::repair`] did.
///
/// Written with `{}` it is words for a person; serialized, it is for programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Repaired {
    /// The records that are lost. A void record has the place of each.
    pub lost: Vec<Seqs>,
    /// All records from this one on are lost, and nobody can say how many there were.
    pub lost_from: Option<u64>,
    /// The files that were replaced or created.
    pub files: Vec<RepairedFile>,
    /// What was done about the snapshot.
    pub snapshot: Option<RepairedSnapshot>,
    /// What the open found that ended the repair.
    pub opened: Option<String>,
}

/// A file that a [repair](crate::repair) has replaced or created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairedFile {
    /// Its name.
    pub file: String,
    /// Where the old one is, in the store's directory; `None` when there was none. The note about it has the same name with
    /// `.json` behind it.
    pub kept: Option<String>,
    /// In how many places the old one was damaged.
    pub damages: u64,
}

/// What a [repair](crate::repair) has done about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairedSnapshot {
    /// The last record that it reflects.
    pub seq: u64,
    /// What it was made from.
    pub from: SnapshotSource,
    /// The lines that are lost.
    pub lost_lines: Vec<LostLine>,
    /// How many more there are.
    pub lost_lines_left_off: u64,
    /// How many issues, tombstones and keys the old one should have had, and how many are there now; `None` where its
    /// first line is lost.
    pub counts: Option<[Counts; 3]>,
    /// The records whose events are not in it.
    pub lost: Option<Seqs>,
}

/// How many there should be of something after a [repair](crate::repair), and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// What the old snapshot's first line said.
    pub before: u64,
    /// What is in the new one.
    pub now: u64,
}

impl Counts {
    pub(crate) fn of(before: [u64; 3], now: [u64; 3]) -> [Self; 3] {
        let mut counts = before.map(|before| Self { before, now: 0 });
        for (counts, now) in counts.iter_mut().zip(now) {
            counts.now = now;
        }
        counts
    }
}

/// What a snapshot was made from in a [repair](crate::repair).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotSource {
    /// It was whole; only the manifest did not describe it. Nothing is lost.
    Itself,
    /// An older snapshot, or none, and all records since. Nothing is lost.
    Records {
        /// The last record that the older snapshot reflects; 0 for none.
        since_seq: u64,
    },
    /// Its own good lines.
    GoodLines,
    /// An older snapshot alone: the events of the records since are lost.
    Backup {
        /// The last record that it reflects.
        seq: u64,
    },
}

/// A line of a snapshot that a [repair](crate::repair) could not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostLine {
    /// Which line it was, counted from 1.
    pub line: u64,
    /// Where it began.
    pub offset: u64,
    /// How long it was.
    pub bytes: u64,
    /// The id or the key that it seems to have been about.
    pub about: Option<String>,
}

impl LostLine {
    pub(crate) fn of(bad: BadPart) -> Self {
        Self {
            line: bad.place.line,
            offset: bad.place.offset,
            bytes: bad.place.bytes,
            about: bad.about,
        }
    }
}

impl Repaired {
    /// Whether there was nothing to do for the [repair](crate::repair).
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.files.is_empty()
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return writeln!(f, "nothing to repair");
        }
        for RepairedFile {
            file,
            kept,
            damages,
        } in &self.files
        {
            match kept {
                Some(kept) => writeln!(
                    f,
                    "{file}: {damages} damaged places; the old file is {kept}"
                )?,
                None => writeln!(f, "{file}: it was missing, and is there again")?,
            }
        }
        if self.lost.is_empty() && self.lost_from.is_none() {
            writeln!(f, "no record is lost")?;
        }
        if !self.lost.is_empty() {
            let count: u64 = self.lost.iter().map(|lost| lost.count()).sum();
            writeln!(f, "lost records ({count}): {}", ranges(&self.lost))?;
        }
        if let Some(from) = self.lost_from {
            writeln!(
                f,
                "lost: record {from} and all behind it, if there were any"
            )?;
        }
        if let Some(snapshot) = &self.snapshot {
            write!(f, "{snapshot}")?;
        }
        if let Some(opened) = &self.opened {
            writeln!(f, "opened: {opened}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RepairedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot of record {}: ", self.seq)?;
        match self.from {
            SnapshotSource::Itself => {
                writeln!(f, "it was whole; the manifest describes it again")?;
            }
            SnapshotSource::Records { since_seq: 0 } => {
                writeln!(f, "made anew from all records; nothing is lost")?;
            }
            SnapshotSource::Records { since_seq } => {
                writeln!(
                    f,
                    "made anew from that of record {since_seq} and all records since; nothing is lost"
                )?;
            }
            SnapshotSource::GoodLines => writeln!(f, "made from its good lines")?,
            SnapshotSource::Backup { seq } => {
                writeln!(f, "that of record {seq} was taken in its place")?;
            }
        }
        for line in &self.lost_lines {
            let about = line.about.as_deref().unwrap_or("nobody can say of what");
            writeln!(
                f,
                "  lost: line {} ({} bytes): {about}",
                line.line, line.bytes
            )?;
        }
        if self.lost_lines_left_off > 0 {
            writeln!(f, "  lost: {} more lines", self.lost_lines_left_off)?;
        }
        for (Counts { before, now }, what) in
            self.counts
                .iter()
                .flatten()
                .zip(["issues", "tombstones", "keys"])
        {
            if before != now {
                writeln!(f, "  {what}: {now} of {before}")?;
            }
        }
        if let Some(lost) = self.lost {
            writeln!(f, "  lost: what the records {lost} did")?;
        }
        Ok(())
    }
}
