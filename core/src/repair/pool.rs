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
    Copy { file: usize, found: Found },
    NoOp(Header),
}

/// All whole records in any file of the store.
pub(crate) struct Pool<'a> {
    dir: &'a StoreDir,
    firsts: &'a [u64],
    files: Vec<StoreFile>,
}

/// Records by number, each with the index of its file.
type Records = BTreeMap<u64, (usize, Found)>;

/// The part of a note in quarantine that says how far its copy can be trusted.
#[derive(Deserialize)]
struct Trust {
    durable_seq: u64,
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
            if let Some((file, found)) = found.get(&seq) {
                synced = synced.max(found.synced);
                records.push(Source::Copy {
                    file: *file,
                    found: *found,
                });
            } else {
                ranges::push(&mut lost, seq);
                records.push(Source::NoOp(Header { seq, synced }));
            }
        }
        Ok((records, lost))
    }

    /// The last record of the last segment that follows `durable` without a gap or a bad byte.
    pub(crate) fn whole_through(&mut self, first: u64, durable: u64) -> Result<u64> {
        let mut through = durable;
        self.walk(self.dir, &segment_name(first), |_, piece| match piece {
            Piece::Record(found, _)
                if found.seq == through + 1 && (through == durable || !found.after_bad) =>
            {
                through += 1;
            }
            _ => {}
        })?;
        Ok(through)
    }

    /// Writes records to a new segment.
    pub(crate) fn write(&self, records: &[Source], to: &StoreFile) -> Result<()> {
        let no_op = EncodedPayload::batch(b"[]".to_vec())?;
        let (mut chunk, mut line) = (Vec::new(), Vec::new());
        let mut offset = 0;
        for record in records {
            match record {
                Source::NoOp(header) => no_op.write_line(*header, &mut line),
                Source::Copy { file, found } => {
                    let Some(file) = self.files.get(*file) else {
                        unreachable!("files are only added");
                    };
                    line.resize(usize::try_from(found.bytes).unwrap_or(usize::MAX), 0);
                    let read = file.read(&mut line, found.offset)?;
                    let again = Line::parse(line.get(..read).unwrap_or_default());
                    if again.is_ok_and(|line| line.header.seq == found.seq) {
                        line.push(b'\n');
                    } else {
                        let changed = io::Error::other("a record changed while it was copied");
                        return Err(Error::io("read", file.path())(changed));
                    }
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
    fn of_segment(&mut self, first: u64, through: u64) -> Result<Records> {
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
        let mut take = |pool: &mut Self, dir: &StoreDir, name: &str, through: u64| {
            pool.walk(dir, name, |index, piece| match piece {
                Piece::Record(found, _) if (from..=through).contains(&found.seq) => {
                    records.entry(found.seq).or_insert((index, found));
                }
                _ => {}
            })
        };
        for first in self.firsts {
            take(self, self.dir, &segment_name(*first), through)?;
        }
        let Some(quarantine) = self.dir.subdir(QUARANTINE) else {
            return Ok(());
        };
        let mut kept = quarantine.list()?;
        kept.retain(|name| name.starts_with("log-") && name.ends_with(DAMAGED));
        kept.sort_unstable();
        for name in kept {
            // The number of a record that was not acknowledged then may belong to another one now.
            if let Some(durable_seq) = trust(&quarantine, &format!("{name}{NOTE}"))? {
                take(self, &quarantine, &name, through.min(durable_seq))?;
            }
        }
        Ok(())
    }
}

/// The last record that was acknowledged when the copy was made; `None` if the note is missing.
fn trust(quarantine: &StoreDir, note: &str) -> Result<Option<u64>> {
    const NOTE_BYTES_MAX: usize = 16 << 20;
    let Some(text) = read_start(quarantine, note, NOTE_BYTES_MAX)? else {
        return Ok(None);
    };
    let trust: Option<Trust> = serde_json::from_slice(&text).ok();
    Ok(trust.map(|trust| trust.durable_seq))
}
