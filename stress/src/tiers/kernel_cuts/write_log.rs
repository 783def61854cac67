//! The log of a block device: every write and flush that reached it, in order, in the format of
//! Linux's dm-log-writes, as QEMU's `blklogwrites` driver writes it. From it come the states that a
//! power failure may leave.
//!
//! A device may keep, lose or tear each write that no later flush covers, independently of the
//! others. Everything before the last completed flush is durable.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Bytes of a sector, the unit that a device writes atomically.
pub(super) const SECTOR_BYTES: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Everything that completed before it is durable.
    pub(super) is_flush: bool,
    /// Where on the device it writes. Empty for a flush alone.
    pub(super) target: Range<u64>,
    /// Where in the log its data begins.
    data: u64,
}

/// All requests of a recording.
#[derive(Debug)]
pub(super) struct WriteLog {
    file: File,
    pub(super) entries: Vec<Entry>,
}

/// A state that a power failure may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CrashState {
    /// The requests before this one are durable.
    pub(super) durable: usize,
    /// The power failed before this one.
    pub(super) cut: usize,
    /// The surviving parts of the writes between: parts of each, in sectors from its beginning.
    pub(super) kept: Vec<(usize, Range<u64>)>,
}

impl WriteLog {
    /// Reads the log's index.
    pub(super) fn open(file: File) -> io::Result<WriteLog> {
        let word = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at)?;
            io::Result::Ok(u64::from_le_bytes(bytes))
        };
        let malformed = |what: &str| io::Error::other(format!("the write log has {what}"));
        if word(0)? != MAGIC || word(8)? != VERSION {
            return Err(malformed("another format"));
        }
        let count = word(16)?;
        let log_sector = word(24)? & 0xffff_ffff;
        if log_sector < SECTOR_BYTES {
            return Err(malformed("no sector size"));
        }
        let mut entries = Vec::new();
        let mut at = log_sector;
        for _ in 0..count {
            let (sector, sectors, flags) = (word(at)?, word(at + 8)?, word(at + 16)?);
            at += log_sector;
            let is_discard = flags & DISCARD != 0;
            let bytes = if is_discard {
                0
            } else {
                sectors * SECTOR_BYTES
            };
            let start = sector * SECTOR_BYTES;
            // A device may ignore a discard, and this one does.
            entries.push(Entry {
                is_flush: flags & FLUSH != 0,
                target: start..start + bytes,
                data: at,
            });
            at += bytes.next_multiple_of(log_sector);
        }
        Ok(WriteLog { file, entries })
    }

    /// The data of a request.
    pub(super) fn data(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let bytes = usize::try_from(entry.target.end - entry.target.start);
        let mut data = vec![0; bytes.map_err(io::Error::other)?];
        self.file.read_exact_at(&mut data, entry.data)?;
        Ok(data)
    }

    /// Writes requests to a copy of the device, whole.
    pub(super) fn apply(&self, range: Range<usize>, device: &File) -> io::Result<()> {
        for entry in self.entries.get(range).unwrap_or_default() {
            device.write_all_at(&self.data(entry)?, entry.target.start)?;
        }
        Ok(())
    }

    /// Writes what a state kept of the requests that were in flight.
    pub(super) fn apply_kept(&self, state: &CrashState, device: &File) -> io::Result<()> {
        for (index, sectors) in &state.kept {
            let Some(entry) = self.entries.get(*index) else {
                continue;
            };
            let data = self.data(entry)?;
            let at = |sector: u64| usize::try_from(sector * SECTOR_BYTES).map_err(io::Error::other);
            let part = data.get(at(sectors.start)?..at(sectors.end)?);
            let offset = entry.target.start + sectors.start * SECTOR_BYTES;
            device.write_all_at(part.unwrap_or_default(), offset)?;
        }
        Ok(())
    }

    /// The state after the requests before `cut`: at a flush boundary, or with a random part of
    /// what came since.
    pub(super) fn crash_state(&self, cut: usize, random: &mut StdRng) -> CrashState {
        crash_state(&self.entries, cut, random)
    }
}

/// See [`WriteLog::crash_state`]; pure.
fn crash_state(entries: &[Entry], cut: usize, random: &mut StdRng) -> CrashState {
    let before = entries.get(..cut).unwrap_or(entries);
    let durable = before
        .iter()
        .rposition(|entry| entry.is_flush)
        .map_or(0, |flush| flush + 1);
    let mut kept = Vec::new();
    // Few, half or most of the writes survive; a fixed share would seldom show all or nothing.
    let share = *[0.0, 0.1, 0.5, 0.9, 1.0].choose(random).unwrap_or(&0.5);
    for (index, entry) in before.iter().enumerate().skip(durable) {
        let sectors = (entry.target.end - entry.target.start) / SECTOR_BYTES;
        if sectors == 0 || !random.random_bool(share) {
            continue;
        }
        let part = match random.random_range(0..6) {
            0 => 0..random.random_range(0..=sectors),
            1 => random.random_range(0..sectors)..sectors,
            _ => 0..sectors,
        };
        kept.push((index, part));
    }
    CrashState {
        durable,
        cut: before.len(),
        kept,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rand::SeedableRng as _;

    use super::*;

    fn log(requests: &[(u64, &[u8], u64)]) -> WriteLog {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = Vec::new();
        let count = requests.len() as u64;
        for word in [MAGIC, VERSION, count, SECTOR_BYTES] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(512, 0);
        for (sector, data, flags) in requests {
            let start = bytes.len();
            for word in [*sector, data.len() as u64 / SECTOR_BYTES, *flags, 0] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.resize(start + 512, 0);
            bytes.extend(*data);
        }
        file.write_all(&bytes).unwrap();
        WriteLog::open(file).unwrap()
    }

    #[test]
    fn a_log_is_read_and_replayed() {
        assert_eq!(MAGIC.to_le_bytes(), *b"rhswfsj\0");
        let (one, two) = ([1; 512], [2; 1024]);
        let log = log(&[
            (4, &one, 0),
            (0, &[], FLUSH),
            (1, &two, 0),
            (9, &[], DISCARD),
        ]);
        let flushes = log.entries.iter().map(|entry| entry.is_flush);
        assert_eq!(flushes.collect::<Vec<_>>(), [false, true, false, false]);
        let device = tempfile::tempfile().unwrap();
        log.apply(0..log.entries.len(), &device).unwrap();
        let mut found = vec![0; 2560];
        device.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found[512..1536], two);
        assert_eq!(found[2048..], one);
    }

    #[test]
    fn only_what_no_flush_covers_can_be_lost() {
        let log = log(&[
            (0, &[1; 512], 0),
            (0, &[], FLUSH),
            (1, &[2; 2048], 0),
            (8, &[3; 512], 0),
        ]);
        let mut random = StdRng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            let state = log.crash_state(4, &mut random);
            assert_eq!((state.durable, state.cut), (2, 4));
            assert!(state.kept.iter().all(|(index, _)| [2, 3].contains(index)));
            seen.insert(format!("{:?}", state.kept));
        }
        let boundary = log.crash_state(2, &mut random);
        assert_eq!((boundary.durable, boundary.kept.len()), (2, 0));
        // Nothing, either, both, and the first torn at each sector from either side.
        for kept in [
            "[]",
            "[(2, 0..4)]",
            "[(3, 0..1)]",
            "[(2, 0..4), (3, 0..1)]",
            "[(2, 0..2)]",
            "[(2, 3..4)]",
        ] {
            assert!(seen.contains(kept), "{kept} never drawn");
        }
    }

    #[test]
    fn another_format_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 1024]).unwrap();
        assert!(WriteLog::open(file).is_err());
    }
}
