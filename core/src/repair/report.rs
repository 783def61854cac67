//! The actions of a repair, as data, as text and as JSON.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf};

use serde::{Serialize, Serializer};

use crate::{
    format::resync::Damage,
    inspect::ranges::{self, words},
    wal::recovery::Recovery,
};

/// The actions of a repair: returned by [`repair`](crate::repair::repair).
///
/// `{}` formats it as text; serialized, it is what `strand repair --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// The lost records. A no-op record takes the place of each.
    #[serde(serialize_with = "ranges::serialize")]
    pub lost: Vec<RangeInclusive<u64>>,
    /// Whole records that the log does not have any more, but only quarantine: two segments claimed
    /// the same numbers, and the log has the records of the later one. These are the others, and
    /// what followed them.
    #[serde(serialize_with = "ranges::serialize")]
    pub set_aside: Vec<RangeInclusive<u64>>,
    /// All records from this one on are lost; how many there were is unknown.
    pub lost_from: Option<u64>,
    /// The files that were replaced or created, each with the copy of the old one in quarantine, or
    /// `None` if there was no old one. The note about a copy has its name with `.json` appended.
    /// Paths are relative to the store's directory.
    pub files: BTreeMap<PathBuf, Option<PathBuf>>,
    /// In how many places the old files were damaged.
    pub damages: u64,
    /// The new live snapshot; `None` if the old one was good.
    pub snapshot: Option<RepairedSnapshot>,
    /// The recovery at the end of the repair. JSON: as text.
    #[serde(serialize_with = "in_words")]
    pub opened: Option<Recovery>,
}

/// How the live snapshot was repaired: part of the report of
/// [`repair`](crate::repair::repair).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairedSnapshot {
    /// It was whole, and the manifest describes it again. Nothing is lost.
    Itself {
        /// The last record that it reflects.
        seq: u64,
    },
    /// Rebuilt from an older snapshot, or from none, and all records since. Nothing is lost.
    Records {
        /// The last record that it reflects.
        seq: u64,
        /// The last record that the older snapshot reflects; 0 if there was none.
        since_seq: u64,
    },
    /// Rebuilt from its own good lines.
    GoodLines {
        /// The last record that it reflects.
        seq: u64,
        /// The lines that could not be kept; 10,000 at most.
        lost_lines: Vec<Damage>,
        /// How many more there were.
        lost_lines_left_off: u64,
        /// The number of issues, tombstones and keys that the old first line states; `None` if that
        /// line is lost.
        counts_before: Option<[u64; 3]>,
        /// The number of issues, tombstones and keys now.
        counts: [u64; 3],
    },
    /// An older snapshot took its place: what the records after `backup_seq` did is lost.
    Backup {
        /// The last record that it reflects.
        seq: u64,
        /// The last record that the older snapshot reflects.
        backup_seq: u64,
    },
}

impl RepairReport {
    /// Whether there was nothing to [repair](crate::repair::repair).
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.files.is_empty()
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return writeln!(f, "nothing to repair");
        }
        for (file, kept) in &self.files {
            write!(f, "{}: ", file.display())?;
            match kept {
                Some(kept) => writeln!(f, "repaired; the old file is {}", kept.display())?,
                None => writeln!(f, "was missing, and is rebuilt")?,
            }
        }
        writeln!(f, "damaged places: {}", self.damages)?;
        if self.lost.is_empty() && self.lost_from.is_none() && self.set_aside.is_empty() {
            writeln!(f, "no record is lost")?;
        }
        if !self.lost.is_empty() {
            let count = ranges::count(&self.lost);
            writeln!(f, "lost records ({count}): {}", words(&self.lost))?;
        }
        if !self.set_aside.is_empty() {
            let count = ranges::count(&self.set_aside);
            let numbers = words(&self.set_aside);
            writeln!(
                f,
                "whole records that only quarantine has now ({count}): {numbers}"
            )?;
        }
        if let Some(from) = self.lost_from {
            writeln!(f, "lost: record {from} and any after it")?;
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
        match self {
            Self::Itself { seq } => {
                writeln!(
                    f,
                    "snapshot of record {seq}: whole; the manifest describes it again"
                )
            }
            Self::Records { seq, since_seq: 0 } => {
                writeln!(
                    f,
                    "snapshot of record {seq}: rebuilt from all records; nothing is lost"
                )
            }
            Self::Records { seq, since_seq } => writeln!(
                f,
                "snapshot of record {seq}: rebuilt from that of record {since_seq} and all records \
                 since; nothing is lost"
            ),
            Self::Backup { seq, backup_seq } => writeln!(
                f,
                "snapshot of record {seq}: that of record {backup_seq} took its place\n  \
                 lost: what the records {} did",
                words(&[backup_seq + 1..=*seq])
            ),
            Self::GoodLines {
                seq,
                lost_lines,
                lost_lines_left_off,
                counts_before,
                counts,
            } => {
                writeln!(f, "snapshot of record {seq}: rebuilt from its good lines")?;
                for line in lost_lines {
                    writeln!(f, "  lost: {line}")?;
                }
                if *lost_lines_left_off > 0 {
                    writeln!(f, "  lost: {lost_lines_left_off} more lines")?;
                }
                let before = counts_before.unwrap_or(*counts);
                let names = ["issues", "tombstones", "keys"];
                for ((before, now), name) in before.iter().zip(counts).zip(names) {
                    if before != now {
                        writeln!(f, "  {name}: {now} of {before}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn in_words<S: Serializer>(value: &Option<Recovery>, serializer: S) -> Result<S::Ok, S::Error> {
    value
        .as_ref()
        .map(ToString::to_string)
        .serialize(serializer)
}
