//! Copies of the files that a repair replaces, each with a note.

use std::{ops::RangeInclusive, path::PathBuf};

use serde::Serialize;

use crate::{
    env::storage::OpenMode,
    error::Result,
    format::resync::{Damage, Damages},
    inspect::ranges,
    wal::store_dir::{CHUNK_BYTES, QUARANTINE, StoreDir, StoreFile},
};

/// The end of the names of copies.
pub(crate) const DAMAGED: &str = ".damaged";
/// The end of a note's name, after the name of its copy.
pub(crate) const NOTE: &str = ".json";

/// A file to keep.
pub(crate) struct Kept<'a> {
    pub(crate) name: &'a str,
    pub(crate) damages: &'a Damages,
    /// The fault, if no line is damaged by itself.
    pub(crate) reason: &'a str,
    /// The records that are lost with it.
    pub(crate) lost: &'a [RangeInclusive<u64>],
    /// Its whole records that the log will not have.
    pub(crate) set_aside: &'a [RangeInclusive<u64>],
    /// Its records through this one were acknowledged.
    pub(crate) durable_seq: u64,
}

/// The note about a copy: FORMAT.md, "What a repair keeps".
#[derive(Serialize)]
struct Note<'a> {
    file: &'a str,
    kept: &'a str,
    repaired_ms: i64,
    damages: Vec<NotedDamage<'a>>,
    damages_left_off: u64,
    #[serde(serialize_with = "ranges::serialize")]
    lost: &'a [RangeInclusive<u64>],
    #[serde(serialize_with = "ranges::serialize")]
    set_aside: &'a [RangeInclusive<u64>],
    durable_seq: u64,
}

#[derive(Serialize)]
struct NotedDamage<'a> {
    offset: u64,
    line: Option<u64>,
    bytes: u64,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<&'a str>,
}

impl<'a> NotedDamage<'a> {
    fn of(damage: &'a Damage) -> Self {
        Self {
            offset: damage.offset,
            line: damage.line,
            bytes: damage.bytes,
            reason: damage.reason.to_string(),
            about: damage.about.as_deref(),
        }
    }

    fn of_file(reason: &str) -> Self {
        Self {
            offset: 0,
            line: None,
            bytes: 0,
            reason: reason.to_owned(),
            about: None,
        }
    }
}

impl Kept<'_> {
    /// Copies the file to quarantine, with a note, durably. Returns the path of the copy in the
    /// store.
    ///
    /// If there is such a copy, it serves: an earlier repair was killed, or kept the same file.
    pub(crate) fn keep(&self, dir: &StoreDir) -> Result<PathBuf> {
        let old = dir.open(self.name, OpenMode::Read)?;
        let quarantine = dir.create_subdir(QUARANTINE)?;
        let copy = copy_once(&quarantine, self.name, &old)?;
        let kept = format!("{QUARANTINE}/{copy}");
        let mut damages: Vec<_> = self.damages.listed.iter().map(NotedDamage::of).collect();
        if damages.is_empty() {
            damages.push(NotedDamage::of_file(self.reason));
        }
        let note = Note {
            file: self.name,
            kept: &kept,
            repaired_ms: dir.host().unix_ms(),
            damages,
            damages_left_off: self.damages.left_off,
            lost: self.lost,
            set_aside: self.set_aside,
            durable_seq: self.durable_seq,
        };
        let text = serde_json::to_vec_pretty(&note)
            .unwrap_or_else(|error| unreachable!("a note can be written: {error}"));
        let note = format!("{copy}{NOTE}");
        if quarantine.open_if_there(&note, OpenMode::Read)?.is_none() {
            quarantine.replace_file(&note, |file| file.write(&text, 0), || Ok(()))?;
        }
        dir.sync()?;
        Ok(kept.into())
    }

    /// The number of damaged places in the note.
    pub(crate) fn count(&self) -> u64 {
        self.damages.count().max(1)
    }
}

fn copy_once(quarantine: &StoreDir, name: &str, old: &StoreFile) -> Result<String> {
    for number in 0.. {
        let copy = format!("{name}-{number}{DAMAGED}");
        if let Some(kept) = quarantine.open_if_there(&copy, OpenMode::Read)? {
            if is_same(&kept, old)? {
                return Ok(copy);
            }
            continue;
        }
        let write =
            |file: &StoreFile| old.chunks(0..u64::MAX, |offset, bytes| file.write(bytes, offset));
        quarantine.replace_file(&copy, write, || Ok(()))?;
        return Ok(copy);
    }
    unreachable!("the numbers do not end")
}

/// Whether two files have the same bytes.
fn is_same(one: &StoreFile, other: &StoreFile) -> Result<bool> {
    if one.len_bytes()? != other.len_bytes()? {
        return Ok(false);
    }
    let mut same = true;
    let mut buffer = vec![0; CHUNK_BYTES];
    one.chunks(0..u64::MAX, |offset, bytes| {
        let part = buffer.get_mut(..bytes.len()).unwrap_or_default();
        let read = other.read(part, offset)?;
        same &= part.get(..read) == Some(bytes);
        Ok(())
    })?;
    Ok(same)
}
