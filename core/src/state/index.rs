//! The file beside a segment that says where the records are that concern an issue. See
//! `docs/FORMAT.md`.
//!
//! It is a hint that saves reading the segment. Each slot has a checksum over all slots before it,
//! so that a file that is cut, stale or damaged is believed only as far as it was written as one.
//! Whoever uses it compares the last record that it covers with the segment, so that it is not
//! believed beside a segment that it does not belong to.

use crate::{
    env::storage::OpenMode,
    error::Result,
    format::record::{index_name, segment_name},
    state::mentions::{Change, NameHash},
    wal::store_dir::StoreDir,
};

/// Written into the first slot, so that an index of another layout is not used.
const LAYOUT: u64 = 2;
const SLOT_BYTES: usize = 24;
/// An index that is longer is not read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One id or key that a record mentions; one at least for each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: NameHash,
    /// What the record does to the issue.
    pub(crate) change: Change,
    /// Where in the segment the record begins.
    pub(crate) offset: u64,
    /// Whether it is the last one of its record.
    pub(crate) is_last: bool,
    /// The record's checksum.
    pub(crate) crc: u32,
}

/// The end of an index: how many slots there are, that of the header included, and the checksum
/// over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEnd {
    slots: u64,
    chain: u32,
}

/// The index of a segment as it is built.
#[derive(Debug)]
pub(crate) struct IndexBytes {
    /// The slots behind `from`.
    bytes: Vec<u8>,
    from: Option<IndexEnd>,
    end: IndexEnd,
}

impl IndexBytes {
    /// An index that begins with the header.
    pub(crate) fn new(store: &str, first_seq: u64) -> Self {
        let mut new = Self {
            bytes: Vec::new(),
            from: None,
            end: IndexEnd { slots: 0, chain: 0 },
        };
        new.put(header(store, first_seq));
        new
    }

    /// What follows the end of an index.
    pub(crate) fn behind(end: IndexEnd) -> Self {
        Self {
            bytes: Vec::new(),
            from: Some(end),
            end,
        }
    }

    pub(crate) fn push(&mut self, slot: Slot) {
        let place = slot.offset << 4 | (slot.change as u64) << 1 | u64::from(slot.is_last);
        self.put((slot.name.0, place, slot.crc));
    }

    fn put(&mut self, (name, place, crc): (u64, u64, u32)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&name.to_le_bytes());
        self.bytes.extend_from_slice(&place.to_le_bytes());
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        let slot = self.bytes.get(start..).unwrap_or_default();
        self.end.chain = crc32c::crc32c_append(self.end.chain, slot);
        self.end.slots += 1;
        self.bytes.extend_from_slice(&self.end.chain.to_le_bytes());
    }

    /// Writes it, and returns its end. `None` if the segment is gone, or the file is not as it was
    /// left.
    pub(crate) fn write(&self, dir: &StoreDir, first_seq: u64) -> Result<Option<IndexEnd>> {
        let name = index_name(first_seq);
        let file = match self.from {
            None => {
                // One that is there says nothing of use, or the same.
                dir.remove(&name)?;
                match dir.open_if_there(&segment_name(first_seq), OpenMode::Read)? {
                    Some(_) => dir.create_new(&name)?,
                    None => None, // The segment is compacted away.
                }
            }
            Some(_) => dir.open_if_there(&name, OpenMode::ReadWrite)?,
        };
        let Some(file) = file else { return Ok(None) };
        let offset = self.from.map_or(0, |from| from.slots * SLOT_BYTES as u64);
        if let Some(from) = self.from {
            let mut chain = [0; 4];
            file.read(&mut chain, offset - 4)?;
            if u32::from_le_bytes(chain) != from.chain {
                return Ok(None);
            }
        }
        file.write(&self.bytes, offset)?;
        Ok(Some(self.end))
    }
}

fn header(store: &str, first_seq: u64) -> (u64, u64, u32) {
    let layout = LAYOUT << 32 | u64::from(crc32c::crc32c(store.as_bytes()));
    (layout, first_seq, 0)
}

/// An index as far as it can be believed: the slots of whole records.
#[derive(Debug)]
pub(crate) struct Index {
    /// The first record of its segment.
    pub(crate) segment: u64,
    /// The slots behind the header.
    bytes: Vec<u8>,
    /// How many records it covers.
    pub(crate) records: u64,
    /// How many issues they create at most.
    pub(crate) adds: usize,
    /// The last slot of the last record.
    pub(crate) last: Option<Slot>,
    pub(crate) end: IndexEnd,
}

impl Index {
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        let slots = self.bytes.chunks_exact(SLOT_BYTES);
        slots.filter_map(|slot| Slot::of(slot.first_chunk()?))
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / SLOT_BYTES
    }
}

impl Slot {
    /// `None` for what no program of this layout writes.
    fn of(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (name, place, crc) = numbers(bytes)?;
        Some(Self {
            name: NameHash(name),
            change: Change::of_number(place >> 1 & 7)?,
            offset: place >> 4,
            is_last: place & 1 == 1,
            crc,
        })
    }
}

fn numbers(slot: &[u8; SLOT_BYTES]) -> Option<(u64, u64, u32)> {
    let (name, rest) = slot.split_first_chunk()?;
    let (place, rest) = rest.split_first_chunk()?;
    let crc = rest.first_chunk()?;
    Some((
        u64::from_le_bytes(*name),
        u64::from_le_bytes(*place),
        u32::from_le_bytes(*crc),
    ))
}

/// Reads the index of a segment, of so many records at most. `None` where there is no index, or
/// none of this segment.
pub(crate) fn read(dir: &StoreDir, store: &str, first_seq: u64, records_max: u64) -> Option<Index> {
    let file = dir.open_if_there(&index_name(first_seq), OpenMode::Read);
    let file = file.ok().flatten()?;
    let len_bytes = file.len_bytes().ok()?;
    let mut bytes = vec![0; usize::try_from(len_bytes.min(FILE_BYTES_MAX)).ok()?];
    let read = file.read(&mut bytes, 0).ok()?;
    bytes.truncate(read);
    parse(bytes, store, first_seq, records_max)
}

fn parse(mut bytes: Vec<u8>, store: &str, first_seq: u64, records_max: u64) -> Option<Index> {
    let mut end = IndexEnd { slots: 0, chain: 0 };
    let (slots, _) = bytes.as_chunks::<SLOT_BYTES>();
    let mut slots = slots.iter().map_while(|slot| {
        let (content, stored) = slot.split_last_chunk::<4>()?;
        end.chain = crc32c::crc32c_append(end.chain, content);
        end.slots += 1;
        (end.chain == u32::from_le_bytes(*stored)).then_some((slot, end))
    });
    let (first, begin) = slots.next()?;
    (numbers(first)? == header(store, first_seq)).then_some(())?;
    let mut index = Index {
        segment: first_seq,
        bytes: Vec::new(),
        records: 0,
        adds: 0,
        last: None,
        end: begin,
    };
    let mut adds = 0;
    for (slot, end) in slots {
        if index.records == records_max {
            break;
        }
        let Some(slot) = Slot::of(slot) else { break };
        adds += usize::from(slot.change.is_add());
        if slot.is_last {
            index.records += 1;
            (index.adds, index.last, index.end) = (adds, Some(slot), end);
        }
    }
    let whole = usize::try_from(index.end.slots).ok()?;
    bytes.truncate(whole * SLOT_BYTES);
    bytes.drain(..SLOT_BYTES);
    index.bytes = bytes;
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: u64, offset: u64, is_last: bool) -> Slot {
        Slot {
            name: NameHash(name),
            change: Change::Adds,
            offset,
            is_last,
            crc: 7,
        }
    }

    /// An index over two records, the second of which mentions two names.
    fn index() -> (Vec<Slot>, IndexBytes) {
        let slots = vec![slot(1, 0, true), slot(2, 90, false), slot(3, 90, true)];
        let mut bytes = IndexBytes::new("store", 5);
        for slot in &slots {
            bytes.push(*slot);
        }
        (slots, bytes)
    }

    fn parsed(bytes: &[u8], store: &str, first_seq: u64) -> Option<Vec<Slot>> {
        let index = parse(bytes.to_owned(), store, first_seq, u64::MAX)?;
        Some(index.slots().collect())
    }

    /// The slots of whole records among the first ones.
    fn whole(slots: &[Slot], len: usize) -> Vec<Slot> {
        let last = slots[..len].iter().rposition(|slot| slot.is_last);
        slots[..last.map_or(0, |last| last + 1)].to_vec()
    }

    #[test]
    fn an_index_is_believed_as_far_as_it_was_written() {
        let (slots, index) = index();
        assert_eq!(parsed(&index.bytes, "store", 5).as_ref(), Some(&slots));
        assert_eq!(parsed(&index.bytes, "other", 5), None);
        assert_eq!(parsed(&index.bytes, "store", 6), None);
        for len in 0..index.bytes.len() {
            let expected = (len / SLOT_BYTES).checked_sub(1);
            let expected = expected.map(|len| whole(&slots, len));
            let cut = parsed(&index.bytes[..len], "store", 5);
            assert_eq!(cut, expected, "cut to {len}");
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let (slots, index) = index();
        for bit in 0..8 * index.bytes.len() {
            let mut bytes = index.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let before = (bit / 8 / SLOT_BYTES).checked_sub(1);
            let expected = before.map(|len| whole(&slots, len));
            assert_eq!(parsed(&bytes, "store", 5), expected, "bit {bit}");
        }
    }

    #[test]
    fn an_index_grows_only_from_where_it_was_left() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StoreDir::on_disk(temp.path()).unwrap();
        let (mut slots, index) = index();
        assert_eq!(index.write(&dir, 5).unwrap(), None, "there is no segment");
        dir.create_new(&segment_name(5)).unwrap();
        let end = index.write(&dir, 5).unwrap().unwrap();
        // Twice, as two processes would that both saw the same records.
        let more = slot(4, 200, true);
        for _ in 0..2 {
            let mut grown = IndexBytes::behind(end);
            grown.push(more);
            assert_eq!(grown.write(&dir, 5).unwrap(), Some(grown.end));
        }
        slots.push(more);
        let found = read(&dir, "store", 5, u64::MAX).unwrap();
        assert_eq!((found.records, found.adds, found.end.slots), (3, 4, 5));
        assert_eq!(found.slots().collect::<Vec<_>>(), slots);
        let first = read(&dir, "store", 5, 1).unwrap();
        assert_eq!(first.slots().collect::<Vec<_>>(), slots[..1]);
        assert_eq!((first.len(), first.last), (1, Some(slots[0])));
        let elsewhere = IndexEnd { chain: 1, ..end };
        assert_eq!(IndexBytes::behind(elsewhere).write(&dir, 5).unwrap(), None);
    }
}
