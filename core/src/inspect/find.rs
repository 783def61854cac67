//! Finds out what a damaged store was: what is left of its snapshots, and what the manifest must
//! have said. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::record::{Reflects, segment_first_seq, segment_name},
    state::snapshot::{Contents, Part, examine},
    wal::{
        manifest::{MANIFEST, Manifest, SnapshotMark, random_id},
        store_dir::StoreDir,
    },
};

/// How many records a repair replaces by no-op records; a failing disk does not lose more.
pub(crate) const LOST_MAX: u64 = 1 << 20;

/// The usable part of a file of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it.
    Whole,
    /// Some of its lines.
    GoodLines,
    /// A whole base, but of this earlier record.
    Older(u64),
    /// Nothing of this store.
    Nothing,
}

impl Left {
    pub(crate) fn of(contents: &Contents, reflects: Reflects, store: &str) -> Self {
        let is_empty = contents.counts == [0; 4];
        match &contents.header {
            None if is_empty => Self::Nothing,
            None => Self::GoodLines,
            Some(header) if header.store != store => Self::Nothing,
            Some(_) if contents.is_whole(reflects, Some(store)) => Self::Whole,
            Some(header) if header.reflects() == reflects => {
                if is_empty && header.counts() != [0; 4] {
                    Self::Nothing
                } else {
                    Self::GoodLines
                }
            }
            Some(header)
                if header.reflects().is_base()
                    && header.snapshot < reflects.through
                    && contents.is_whole(header.reflects(), Some(store)) =>
            {
                Self::Older(header.snapshot)
            }
            Some(_) => Self::Nothing,
        }
    }
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

/// A base and the runs behind it: the files of a snapshot that there may have been.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) marks: Vec<SnapshotMark>,
    /// Whether all files are whole, and of one store.
    pub(crate) is_whole: bool,
    pub(crate) is_of_other_state: bool,
    /// What the base says.
    pub(crate) store: Option<String>,
}

impl Chain {
    /// The last record that it reflects.
    pub(crate) fn seq(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.seq)
    }
}

/// The snapshots that these files make up, one for each last record, the latest first. Where
/// several have the same, one that is whole, and then the one of the fewest files.
pub(crate) fn chains(dir: &StoreDir, names: &[String]) -> Result<Vec<Chain>> {
    let all = names.iter().filter_map(|name| Reflects::of_name(name));
    let mut all: Vec<Reflects> = all.collect();
    // The prefix of a run ends before the run does.
    all.sort_unstable_by_key(|file| (file.through, file.after));
    let mut chains = BTreeMap::<u64, Chain>::new();
    for file in all {
        let before = chains.get(&file.after);
        if before.is_none() && !file.is_base() {
            continue;
        }
        let contents = contents(dir, &file.name(), |_| {})?.unwrap_or_default();
        let store = contents.header.as_ref().map(|header| &*header.store);
        let is_whole = contents.is_whole(file, None)
            && before.is_none_or(|before| before.is_whole && before.store.as_deref() == store);
        let marks = before.into_iter().flat_map(|before| &before.marks);
        let chain = Chain {
            marks: marks
                .copied()
                .chain([contents.mark(file.through)])
                .collect(),
            is_whole,
            is_of_other_state: contents.is_of_other_state(),
            store: store.map(str::to_owned),
        };
        let known = chains.get(&file.through);
        if known.is_none_or(|known| is_whole && !known.is_whole) {
            chains.insert(file.through, chain);
        }
    }
    Ok(chains.into_values().rev().collect())
}

/// The manifest that fits these files, and whether its snapshot is whole; `None` if none does.
///
/// It names the latest snapshot that is whole and followed by a segment. Otherwise, no snapshot if
/// there is a first segment. Otherwise, the latest snapshot, damaged or missing, that is followed
/// by a segment.
fn guess_manifest(dir: &StoreDir, names: &[String]) -> Result<Option<(Manifest, bool)>> {
    let segments = names.iter().filter_map(|name| segment_first_seq(name));
    let segments: BTreeSet<u64> = segments.filter(|first| *first > 0).collect();
    let chains = chains(dir, names)?;
    let latest = |fits: &dyn Fn(&Chain) -> bool| {
        let latest = chains.iter().find(|chain| fits(chain));
        latest.map(|chain| chain.marks.clone())
    };
    let is_followed = |chain: &Chain| segments.contains(&(chain.seq() + 1));
    let unknown = |seq| SnapshotMark {
        seq,
        bytes: 0,
        crc: 0,
    };
    let marks = latest(&|chain| is_followed(chain) && chain.is_whole)
        .or_else(|| segments.contains(&1).then(Vec::new))
        .or_else(|| latest(&is_followed))
        .or_else(|| Some(vec![unknown(segments.first()? - 1)]))
        .or_else(|| latest(&|chain| chain.is_whole));
    let Some(marks) = marks else {
        return Ok(None);
    };
    let chosen = chains.iter().find(|chain| chain.marks == marks);
    let mut stores = chosen.into_iter().chain(&chains).flat_map(|one| &one.store);
    let store = match stores.next() {
        Some(store) => store.clone(),
        None => id_in_manifest(dir)?.unwrap_or_else(|| random_id(dir.host())),
    };
    let new = Manifest {
        store,
        ..Manifest::new(dir.host())
    };
    let is_whole = chosen.is_some_and(|chain| chain.is_whole);
    Ok(Some((new.with_snapshot(&marks), is_whole)))
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
    let guess = guess_manifest(dir, names)?;
    Ok((guess.map(|(manifest, _)| manifest), Some(reason)))
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
    let Some((guess, is_whole)) = guess_manifest(dir, names)? else {
        return Ok(None);
    };
    let fits = is_whole
        && guess.first_seq > manifest.first_seq
        && names.contains(&segment_name(guess.first_seq));
    let message = format!(
        "its first segment, of record {}, is missing; the snapshot of record {} and its log are not",
        manifest.first_seq,
        guess.first_seq - 1
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
