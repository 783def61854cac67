//! Gathers the records of a damaged segment from all files that may hold them.

use std::{collections::BTreeMap, io, ops::RangeInclusive};

use serde::Deserialize;

use crate::{
    env::storage::OpenMode,
    error::{Error, Result},
    format::record::{EncodedPayload, Header, Line, segment_name},
    inspect::{
        find::{LOST_MAX, read_start},
        ranges,
        scan::{Found, Piece, walk},
    },
    repair::quarantine::{DAMAGED, NOTE},
    wal::store_dir::{CHUNK_BYTES, QUARANTINE, StoreDir, StoreFile},
};

/// The source of a record's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Copy(Place),
    NoOp(Header),
}

/// A record, with the index of its file.
pub(crate) type Place = (usize, Found);

/// All whole records in any file of the store.
pub(crate) struct Pool<'a> {
    dir: &'a StoreDir,
    firsts: &'a [u64],
    files: Vec<StoreFile>,
}

/// Records by number.
type Records = BTreeMap<u64, Place>;

/// The part of a note in quarantine that says how far its copy can be trusted.
#[derive(Deserialize)]
struct Trust {
    durable_seq: u64,
    #[serde(default, deserialize_with = "ranges::deserialize")]
    set_aside: Vec<RangeInclusive<u64>>,
}

impl<'a> Pool<'a> {
    /// The pool of a store whose segments begin with `firsts`.
    pub(crate) fn new(dir: &'a StoreDir, firsts: &'a [u64]) -> Self {
        Self {
            dir,
            firsts,
            files: Vec::new(),
        }
    }

    /// The records from `from`, the first of a segment, to `through`, in order. Also returns those
    /// that are lost.
    pub(crate) fn gather(
        &mut self,
        from: u64,
        through: u64,
    ) -> Result<(Vec<Source>, Vec<RangeInclusive<u64>>)> {
        let all = (through + 1).saturating_sub(from);
        let mut found = self.of_segment(from, through)?;
        if (found.len() as u64) < all {
            self.search_elsewhere(&mut found, from, through)?;
        }
        let lost = all - found.len() as u64;
        if lost > LOST_MAX {
            return Err(Error::BeyondRepair {
                path: self.dir.path_of(&segment_name(from)),
                reason: format!(
                    "{lost} of the records {from} to {through} are missing; a repair replaces \
                     {LOST_MAX} at most"
                ),
            });
        }
        let (mut records, mut lost) = (Vec::new(), Vec::new());
        // A segment is created only once all records before it are durable.
        let mut synced = from - 1;
        for seq in from..=through {
            if let Some(place) = found.get(&seq) {
                synced = synced.max(place.1.synced);
                records.push(Source::Copy(*place));
            } else {
                ranges::push(&mut lost, seq);
                records.push(Source::NoOp(Header { seq, synced }));
            }
        }
        Ok((records, lost))
    }

    /// The last record of the last segment, `first`: they follow `durable` without a gap or a bad
    /// byte in it, and then in the segments before it. One of those may go on where the last one
    /// begins, and then has what that one lacks.
    pub(crate) fn whole_through(&mut self, first: u64, durable: u64) -> Result<u64> {
        let mut through = durable;
        // The record of that number, as far as it was found.
        let mut last: Option<Place> = None;
        self.walk(self.dir, &segment_name(first), |file, piece| {
            if let Piece::Record(found, _) = piece {
                let follows = found.seq == through + 1 && (through == durable || !found.after_bad);
                through += u64::from(follows);
                if found.seq == through {
                    last = Some((file, found));
                }
            }
        })?;
        for first in self
            .firsts
            .iter()
            .rev()
            .skip_while(|other| **other >= first)
        {
            let mut previous: Option<Place> = None;
            // What follows here, with the record before it.
            let mut run: Option<(Option<Place>, Place)> = None;
            self.walk(self.dir, &segment_name(*first), |file, piece| {
                let Piece::Record(found, _) = piece else {
                    return;
                };
                let before = previous.replace((file, found));
                let before =
                    before.filter(|(_, before)| !found.after_bad && before.seq + 1 == found.seq);
                match &mut run {
                    Some((_, end)) if before.is_some_and(|(_, before)| before.seq == end.1.seq) => {
                        *end = (file, found);
                    }
                    None if found.seq == through + 1
                        && (before.is_some() || through == durable) =>
                    {
                        run = Some((before, (file, found)));
                    }
                    _ => {}
                }
            })?;
            let Some((before, end)) = run else {
                continue;
            };
            // What follows another record than ours is no continuation of ours.
            let agrees = match (last, before) {
                (Some(last), Some(before)) => self.is_same(last, before)?,
                (last, _) => last.is_none(),
            };
            if agrees {
                through = end.1.seq;
                last = Some(end);
            }
        }
        Ok(through)
    }

    /// The whole records of a segment up to an offset.
    pub(crate) fn records_before(&mut self, first: u64, end: u64) -> Result<Vec<Place>> {
        let mut records = Vec::new();
        self.walk(self.dir, &segment_name(first), |file, piece| {
            if let Piece::Record(found, _) = piece
                && found.offset < end
            {
                records.push((file, found));
            }
        })?;
        Ok(records)
    }

    /// Whether two records are the same, byte for byte.
    pub(crate) fn is_same(&self, one: Place, other: Place) -> Result<bool> {
        let (mut line, mut other_line) = (Vec::new(), Vec::new());
        self.read(one, &mut line)?;
        self.read(other, &mut other_line)?;
        Ok(line == other_line)
    }

    /// Reads a record's line, without its newline.
    fn read(&self, (file, found): Place, line: &mut Vec<u8>) -> Result<()> {
        let Some(file) = self.files.get(file) else {
            unreachable!("files are only added");
        };
        line.resize(usize::try_from(found.bytes).unwrap_or(usize::MAX), 0);
        let read = file.read(line, found.offset)?;
        let again = Line::parse(line.get(..read).unwrap_or_default());
        if again.is_ok_and(|line| line.header.seq == found.seq) {
            return Ok(());
        }
        let changed = io::Error::other("a record changed while it was copied");
        Err(Error::io("read", file.path())(changed))
    }

    /// Writes records to a new segment.
    pub(crate) fn write(&self, records: &[Source], to: &StoreFile) -> Result<()> {
        let no_op = EncodedPayload::batch(b"[]".to_vec())?;
        let (mut chunk, mut line) = (Vec::new(), Vec::new());
        let mut offset = 0;
        for record in records {
            match record {
                Source::NoOp(header) => no_op.write_line(*header, &mut line),
                Source::Copy(place) => {
                    self.read(*place, &mut line)?;
                    line.push(b'\n');
                }
            }
            chunk.extend_from_slice(&line);
            if chunk.len() >= CHUNK_BYTES {
                to.write(&chunk, offset)?;
                offset += chunk.len() as u64;
                chunk.clear();
            }
        }
        to.write(&chunk, offset)
    }

    /// Walks through a file, if it exists. Opens it once.
    fn walk(
        &mut self,
        dir: &StoreDir,
        name: &str,
        mut each: impl FnMut(usize, Piece),
    ) -> Result<()> {
        let path = dir.path_of(name);
        let known = self.files.iter().position(|file| file.path() == path);
        let index = known.unwrap_or(self.files.len());
        if known.is_none() {
            let Some(file) = dir.open_if_there(name, OpenMode::Read)? else {
                return Ok(());
            };
            self.files.push(file);
        }
        match self.files.get(index) {
            Some(file) => walk(file, |piece| each(index, piece)),
            None => Ok(()),
        }
    }

    /// The records in their own segment. Of two with the same number, the one in its place.
    pub(crate) fn of_segment(&mut self, first: u64, through: u64) -> Result<Records> {
        let mut records = Records::new();
        let mut expected = first;
        self.walk(self.dir, &segment_name(first), |index, piece| {
            if let Piece::Record(found, _) = piece {
                let in_place = found.seq == expected;
                expected = found.seq + 1;
                if (first..=through).contains(&found.seq)
                    && (in_place || !records.contains_key(&found.seq))
                {
                    records.insert(found.seq, (index, found));
                }
            }
        })?;
        Ok(records)
    }

    /// Searches the other segments, and the copies of earlier repairs, for the rest of a range.
    fn search_elsewhere(&mut self, records: &mut Records, from: u64, through: u64) -> Result<()> {
        let mut take =
            |pool: &mut Self, dir: &StoreDir, name: &str, is_good: &dyn Fn(u64) -> bool| {
                pool.walk(dir, name, |index, piece| match piece {
                    Piece::Record(found, _)
                        if (from..=through).contains(&found.seq) && is_good(found.seq) =>
                    {
                        records.entry(found.seq).or_insert((index, found));
                    }
                    _ => {}
                })
            };
        for first in self.firsts {
            take(self, self.dir, &segment_name(*first), &|_| true)?;
        }
        let Some(quarantine) = self.dir.subdir(QUARANTINE) else {
            return Ok(());
        };
        let mut kept = quarantine.list()?;
        kept.retain(|name| name.starts_with("log-") && name.ends_with(DAMAGED));
        kept.sort_unstable();
        for name in kept {
            // The number of a record that was not acknowledged then may belong to another one now.
            if let Some(trust) = trust(&quarantine, &format!("{name}{NOTE}"))? {
                let is_good =
                    |seq| seq <= trust.durable_seq && !ranges::contain(&trust.set_aside, seq);
                take(self, &quarantine, &name, &is_good)?;
            }
        }
        Ok(())
    }
}

/// `None` if the note is missing.
fn trust(quarantine: &StoreDir, note: &str) -> Result<Option<Trust>> {
    const NOTE_BYTES_MAX: usize = 16 << 20;
    let Some(text) = read_start(quarantine, note, NOTE_BYTES_MAX)? else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&text).ok())
}
