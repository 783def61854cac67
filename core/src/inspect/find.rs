//! Finds out what a damaged store was: what is left of its snapshots, and what the manifest must
//! have said. Changes nothing.

use std::{collections::BTreeSet, path::Path};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::record::{segment_first_seq, segment_name, snapshot_name, snapshot_seq},
    state::snapshot::{Contents, Part, examine},
    wal::{
        manifest::{MANIFEST, Manifest, SnapshotMark, random_id},
        store_dir::StoreDir,
    },
};

/// How many records a repair replaces by no-op records; a failing disk does not lose more.
pub(crate) const LOST_MAX: u64 = 1 << 20;

/// The usable part of a snapshot's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it.
    Whole,
    /// Some of its lines.
    GoodLines,
    /// A whole snapshot, but of this earlier record.
    Older(u64),
    /// Nothing of this store.
    Nothing,
}

impl Left {
    pub(crate) fn of(contents: &Contents, seq: u64, store: &str) -> Self {
        let is_empty = contents.counts == [0; 4];
        match &contents.header {
            None if is_empty => Self::Nothing,
            None => Self::GoodLines,
            Some(header) if header.store != store => Self::Nothing,
            Some(_) if contents.is_whole(seq, Some(store)) => Self::Whole,
            Some(header) if header.snapshot == seq => {
                if is_empty && header.counts() != [0; 4] {
                    Self::Nothing
                } else {
                    Self::GoodLines
                }
            }
            Some(header)
                if header.snapshot < seq && contents.is_whole(header.snapshot, Some(store)) =>
            {
                Self::Older(header.snapshot)
            }
            Some(_) => Self::Nothing,
        }
    }
}

/// The numbers of the snapshots among the files of a store.
pub(crate) fn snapshots(names: &[String]) -> BTreeSet<u64> {
    names.iter().filter_map(|name| snapshot_seq(name)).collect()
}

/// Reads a snapshot past damaged lines, and passes the good ones to `each`; `None` if it does not
/// exist.
pub(crate) fn contents(
    dir: &StoreDir,
    name: &str,
    each: impl FnMut(Part<'_>),
) -> Result<Option<Contents>> {
    let file = dir.open_if_there(name, OpenMode::Read)?;
    file.map(|file| examine(&file, Path::new(name), each))
        .transpose()
}

/// The manifest that fits these files; `None` if none does.
///
/// It names the latest snapshot that is whole and followed by a segment. Otherwise, no snapshot if
/// there is a first segment. Otherwise, the latest snapshot, damaged or missing, that is followed
/// by a segment.
fn guess_manifest(dir: &StoreDir, names: &[String]) -> Result<Option<Manifest>> {
    let segments = names.iter().filter_map(|name| segment_first_seq(name));
    let segments: BTreeSet<u64> = segments.filter(|first| *first > 0).collect();
    let mut found = Vec::new();
    for seq in snapshots(names).into_iter().rev() {
        let contents = contents(dir, &snapshot_name(seq), |_| {})?;
        found.push((seq, contents.unwrap_or_default()));
    }
    let latest = |fits: &dyn Fn(u64, &Contents) -> bool| {
        let mut all = found.iter();
        let latest = all.find(|(seq, contents)| fits(*seq, contents));
        latest.map(|(seq, contents)| Some(contents.mark(*seq)))
    };
    let is_followed = |seq: u64| segments.contains(&(seq + 1));
    let unknown = |seq| SnapshotMark {
        seq,
        bytes: 0,
        crc: 0,
    };
    let snapshot = latest(&|seq, contents| is_followed(seq) && contents.is_whole(seq, None))
        .or_else(|| segments.contains(&1).then_some(None))
        .or_else(|| latest(&|seq, _| is_followed(seq)))
        .or_else(|| Some(Some(unknown(segments.first()? - 1))))
        .or_else(|| latest(&|seq, contents| contents.is_whole(seq, None)));
    let Some(snapshot) = snapshot else {
        return Ok(None);
    };
    let seq = snapshot.map_or(0, |mark| mark.seq);
    let nearest = found.iter().filter(|(of, _)| *of == seq).chain(&found);
    let mut headers = nearest.filter_map(|(_, contents)| contents.header.as_ref());
    let store = match headers.next() {
        Some(header) => header.store.clone().into_owned(),
        None => id_in_manifest(dir)?.unwrap_or_else(|| random_id(dir.host())),
    };
    Ok(Some(Manifest {
        store,
        first_seq: seq + 1,
        snapshot,
        ..Manifest::new(dir.host())
    }))
}

/// The manifest to work with, from the one that was read: itself, or the one that fits the files,
/// with what is wrong with the first.
pub(crate) fn fitting_manifest(
    dir: &StoreDir,
    names: &[String],
    read: Result<Option<Manifest>>,
) -> Result<(Option<Manifest>, Option<CorruptReason>)> {
    let reason = match read {
        Ok(Some(manifest)) => {
            return Ok(match later_manifest(dir, names, &manifest)? {
                Some((later, reason)) => (Some(later), Some(reason)),
                None => (Some(manifest), None),
            });
        }
        Ok(None) => CorruptReason::ManifestMissing,
        Err(Error::Corrupt { reason, .. }) => reason,
        Err(error) => return Err(error),
    };
    Ok((guess_manifest(dir, names)?, Some(reason)))
}

/// The manifest that fits the files, if the one that is there is from before, or of another store:
/// its first segment is missing, but there is a later snapshot, whole and followed by a segment.
fn later_manifest(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
) -> Result<Option<(Manifest, CorruptReason)>> {
    if names.contains(&segment_name(manifest.first_seq)) {
        return Ok(None);
    }
    let Some(guess) = guess_manifest(dir, names)? else {
        return Ok(None);
    };
    let Some(mark) = guess.snapshot.filter(|mark| mark.seq >= manifest.first_seq) else {
        return Ok(None);
    };
    let contents = contents(dir, &snapshot_name(mark.seq), |_| {})?.unwrap_or_default();
    let fits = contents.is_whole(mark.seq, Some(&guess.store))
        && names.contains(&segment_name(guess.first_seq));
    let message = format!(
        "its first segment, of record {}, is missing; the snapshot of record {} and its log are not",
        manifest.first_seq, mark.seq
    );
    Ok(fits.then_some((guess, CorruptReason::Manifest { message })))
}

/// The store's id in a damaged manifest. If it is damaged too, it is as good as a new one.
fn id_in_manifest(dir: &StoreDir) -> Result<Option<String>> {
    const NAME: &[u8] = br#""store":""#;
    const DIGITS: usize = 32;
    let Some(text) = read_start(dir, MANIFEST, 4096)? else {
        return Ok(None);
    };
    let id = memchr::memmem::find(&text, NAME).and_then(|at| {
        let digits = text.get(at + NAME.len()..)?.get(..DIGITS)?;
        let id = std::str::from_utf8(digits).ok()?;
        let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    });
    Ok(id)
}

/// The first bytes of a file; `None` if it does not exist.
pub(crate) fn read_start(dir: &StoreDir, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>> {
    let Some(file) = dir.open_if_there(name, OpenMode::Read)? else {
        return Ok(None);
    };
    let len = usize::try_from(file.len_bytes()?).unwrap_or(bytes_max);
    let mut bytes = vec![0; len.min(bytes_max)];
    let read = file.read(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
