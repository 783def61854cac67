//! Copies of what a repair replaces, each with a note.

use serde::Serialize;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Result},
    inspect::{
        find::{DAMAGED, NOTE},
        scan::{Listed, Place, Seqs},
    },
    state::snapshot::BadPart,
    wal::store_dir::{CHUNK_BYTES, QUARANTINE, StoreDir, StoreFile},
};

/// A file to keep.
pub(crate) struct Kept<'a> {
    pub(crate) name: &'a str,
    /// What is wrong with it.
    pub(crate) damages: &'a Listed<NotedDamage>,
    /// The records that are lost with it.
    pub(crate) lost: &'a [Seqs],
    /// All records through this one that are in it were acknowledged.
    pub(crate) durable_seq: u64,
}

/// What is written about a copy.
#[derive(Serialize)]
struct Note<'a> {
    /// The file that it was.
    file: &'a str,
    kept: &'a str,
    repaired_ms: i64,
    damages: &'a [NotedDamage],
    damages_left_off: u64,
    lost: &'a [Seqs],
    durable_seq: u64,
}

/// What was wrong with the file.
#[derive(Serialize)]
pub(crate) struct NotedDamage {
    offset: u64,
    /// `None` where it is about the file as a whole.
    line: Option<u64>,
    bytes: u64,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
}

impl NotedDamage {
    pub(crate) fn of_segment((place, reason): (Place, CorruptReason)) -> Self {
        Self {
            offset: place.offset,
            line: Some(place.line),
            bytes: place.bytes,
            reason: reason.to_string(),
            about: None,
        }
    }

    pub(crate) fn of_snapshot(bad: BadPart) -> Self {
        Self {
            about: bad.about,
            ..Self::of_segment((bad.place, bad.reason))
        }
    }
}

impl Listed<NotedDamage> {
    /// A note says why, also where no line is bad by itself.
    pub(crate) fn or_else(mut self, reason: &str) -> Self {
        if self.is_empty() {
            self.push(NotedDamage {
                offset: 0,
                line: None,
                bytes: 0,
                reason: reason.to_owned(),
                about: None,
            });
        }
        self
    }
}

/// Copies a file of the store in `dir` to quarantine, with a note, durably; answers the copy's name.
///
/// Where there is such a copy already, that is the one: a repair was killed, or the same file was kept before.
pub(crate) fn keep(
    dir: &StoreDir,
    &Kept {
        name,
        damages,
        lost,
        durable_seq,
    }: &Kept<'_>,
) -> Result<String> {
    let old = dir.open(name, OpenMode::Read)?;
    let quarantine = dir.subdir(QUARANTINE);
    quarantine.create()?;
    let copy = copy_once(&quarantine, name, &old)?;
    let kept = format!("{QUARANTINE}/{copy}");
    let note = Note {
        file: name,
        kept: &kept,
        repaired_ms: dir.host().unix_ms(),
        damages: &damages.items,
        damages_left_off: damages.left_off,
        lost,
        durable_seq,
    };
    let text = serde_json::to_vec_pretty(&note).unwrap_or_default();
    let note = format!("{copy}{NOTE}");
    if quarantine.open_if_there(&note, OpenMode::Read)?.is_none() {
        quarantine.replace_file(&note, |file| file.write(&text, 0), || {})?;
    }
    dir.sync()?;
    Ok(kept)
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
        quarantine.replace_file(&copy, write, || {})?;
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
