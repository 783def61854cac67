//! Copies of what a repair replaces, each with a note.

use std::{io, path::Path};

use serde::Serialize;

use crate::{
    env::storage::{
        CHUNK_BYTES, OpenMode, Storage, StorageFile, open_if_there, read_full, replace_file,
        write_full,
    },
    error::{CorruptReason, Error, Result},
    inspect::scan::{Listed, Place, Seqs},
    state::snapshot::BadPart,
};

/// The directory of what was cut off or replaced.
pub(crate) const QUARANTINE: &str = "quarantine";
/// How the names of copies end.
pub(crate) const DAMAGED: &str = ".damaged";
/// What stands behind the name of a copy in that of the note about it.
pub(crate) const NOTE: &str = ".json";

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
    storage: &dyn Storage,
    dir: &Path,
    &Kept {
        name,
        damages,
        lost,
        durable_seq,
    }: &Kept<'_>,
) -> Result<String> {
    let path = dir.join(name);
    let old = storage
        .open(&path, OpenMode::Read)
        .map_err(Error::io("open", &path))?;
    let quarantine = dir.join(QUARANTINE);
    storage
        .create_dir(&quarantine)
        .map_err(Error::io("create", &quarantine))?;
    let copy = copy_once(storage, &quarantine, name, old.as_ref())?;
    let kept = format!("{QUARANTINE}/{copy}");
    let note = Note {
        file: name,
        kept: &kept,
        repaired_ms: storage.host().unix_ms(),
        damages: &damages.items,
        damages_left_off: damages.left_off,
        lost,
        durable_seq,
    };
    let text = serde_json::to_vec_pretty(&note).unwrap_or_default();
    let write = |file: &dyn StorageFile, at: &Path| {
        write_full(file, &text, 0).map_err(Error::io("write", at))
    };
    let note = format!("{copy}{NOTE}");
    if open_if_there(storage, &quarantine.join(&note))?.is_none() {
        replace_file(storage, &quarantine, &note, write, || {})?;
    }
    storage.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(kept)
}

fn copy_once(
    storage: &dyn Storage,
    quarantine: &Path,
    name: &str,
    old: &dyn StorageFile,
) -> Result<String> {
    for number in 0.. {
        let copy = format!("{name}-{number}{DAMAGED}");
        let path = quarantine.join(&copy);
        if let Some(kept) = open_if_there(storage, &path)? {
            if is_same(kept.as_ref(), old).map_err(Error::io("read", &path))? {
                return Ok(copy);
            }
            continue;
        }
        let write = |file: &dyn StorageFile, at: &Path| {
            chunks(old, |offset, bytes| write_full(file, bytes, offset))
                .map_err(Error::io("copy to", at))
        };
        replace_file(storage, quarantine, &copy, write, || {})?;
        return Ok(copy);
    }
    unreachable!("the numbers do not end")
}

/// Reads a file from its beginning to its end.
fn chunks(
    file: &dyn StorageFile,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = read_full(file, &mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        each(offset, buffer.get(..read).unwrap_or_default())?;
        offset += read as u64;
    }
}

/// Whether two files have the same bytes.
fn is_same(one: &dyn StorageFile, other: &dyn StorageFile) -> io::Result<bool> {
    if one.len_bytes()? != other.len_bytes()? {
        return Ok(false);
    }
    let mut same = true;
    let mut buffer = vec![0; CHUNK_BYTES];
    chunks(one, |offset, bytes| {
        let part = buffer.get_mut(..bytes.len()).unwrap_or_default();
        let read = read_full(other, part, offset)?;
        same &= part.get(..read) == Some(bytes);
        Ok(())
    })?;
    Ok(same)
}
