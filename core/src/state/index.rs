//! The file beside a segment that says what its records mention. See `docs/FORMAT.md`.
//!
//! It is a hint that saves reading the segment. Each block has a checksum over all before it, so
//! that a file that is cut, stale or damaged is believed only as far as it was written as one.
//! Whoever uses it compares the last record that it covers with the segment, so that it is not
//! believed beside a segment that it does not belong to.

use std::ops::Range;

use strand_lock::crc32c_append;

use crate::{
    env::storage::OpenMode,
    error::Result,
    format::{
        record::{index_name, segment_name},
        search::Finder,
    },
    state::mentions::{Change, Found, Name, push_number, take_mention, take_number},
    wal::store_dir::StoreDir,
};

/// Written into the header, so that an index of another layout is not used.
const LAYOUT: u64 = 3;
const HEADER_BYTES: usize = 20;
const BLOCK_HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
/// An index that is longer is not read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// So much room is made for a block that is not on disk yet.
const ROOM_BYTES: usize = 16 << 10;

/// What the records of a segment mention, from the first one on or from that behind a block, as its
/// index has it on disk.
#[derive(Debug)]
pub(crate) struct Index {
    /// The first record of its segment.
    pub(crate) segment: u64,
    /// The file, from here on, and behind `whole` a block that is not whole yet.
    bytes: Vec<u8>,
    from: u64,
    /// The blocks begin here, behind records that are not in it.
    begin: usize,
    before: Records,
    whole: usize,
    /// The last record of the whole blocks.
    ended: Records,
    /// What is in the block that is not whole.
    block: Contents,
    /// How many records of the segment it covers, with those before the first block.
    pub(crate) records: u64,
    /// How many issues they create at most, without those.
    pub(crate) adds: u64,
    pub(crate) last: Option<Last>,
    saved: Saved,
}

/// The last record that is covered: where it begins, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) offset: u64,
    pub(crate) crc: u32,
}

/// The records of a segment through one of them.
#[derive(Debug, Clone, Copy, Default)]
struct Records {
    count: u64,
    last: Option<Last>,
}

/// The end of a block of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockEnd {
    pub(crate) segment: u64,
    /// The last record of the block.
    pub(crate) seq: u64,
    pub(crate) last: Last,
    /// Where the block ends in the index, and the checksum that it ends with.
    pub(crate) index_bytes: u64,
    pub(crate) index_crc: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Contents {
    records: u32,
    adds: u32,
    /// Where in the segment the first record begins.
    first_offset: u64,
}

/// How much of an index is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    /// So many bytes; 0 for no file of use.
    Bytes(usize),
    /// It is left alone: the segment was removed, or another process writes what differs.
    Never,
}

impl Index {
    /// An index that covers nothing yet.
    pub(crate) fn new(store: &str, segment: u64) -> Self {
        let mut bytes = header(store, segment).to_vec();
        bytes.extend_from_slice(&crc32c_append(0, &bytes).to_le_bytes());
        Self {
            segment,
            from: 0,
            begin: bytes.len(),
            before: Records::default(),
            whole: bytes.len(),
            ended: Records::default(),
            bytes,
            block: Contents::default(),
            records: 0,
            adds: 0,
            last: None,
            saved: Saved::Bytes(0),
        }
    }

    /// An index that covers nothing behind the end of this block. It knows nothing of those before.
    /// `None` if no block ends there.
    fn behind(end: &BlockEnd) -> Option<Self> {
        let before = Records {
            count: end.seq + 1 - end.segment,
            last: Some(end.last),
        };
        let bytes = end.index_crc.to_le_bytes().to_vec();
        Some(Self {
            segment: end.segment,
            from: end.index_bytes.checked_sub(bytes.len() as u64)?,
            begin: bytes.len(),
            before,
            whole: bytes.len(),
            ended: before,
            saved: Saved::Bytes(bytes.len()),
            bytes,
            block: Contents::default(),
            records: before.count,
            adds: 0,
            last: before.last,
        })
    }

    /// The end of the last whole block.
    pub(crate) fn block_end(&self) -> Option<BlockEnd> {
        Some(BlockEnd {
            segment: self.segment,
            seq: self.segment + self.ended.count - 1,
            last: self.ended.last?,
            index_bytes: self.from + self.whole as u64,
            index_crc: number_at(&self.bytes, self.whole - CHECKSUM_BYTES)?,
        })
    }

    /// Adds the next record, a line of this length with its newline. A block covers records of so
    /// many bytes, and the rest of the last one: all processes agree where blocks end.
    pub(crate) fn push(
        &mut self,
        record: Last,
        line_bytes: usize,
        found: &Found,
        block_of_bytes: u64,
    ) {
        if self.block.records == 0 {
            self.block.first_offset = record.offset;
            self.bytes.extend_from_slice(&[0; BLOCK_HEADER_BYTES]);
        }
        let before = self.last.map_or(0, |last| last.offset);
        push_number(&mut self.bytes, record.offset - before);
        push_number(&mut self.bytes, found.count);
        self.bytes.extend_from_slice(found.bytes());
        self.block.records += 1;
        self.block.adds += found.adds;
        self.records += 1;
        self.adds += u64::from(found.adds);
        self.last = Some(record);
        if record.offset + line_bytes as u64 >= self.block.first_offset + block_of_bytes {
            self.end_block();
        }
    }

    /// No record is added any more: the next one begins another segment.
    pub(crate) fn end_block(&mut self) {
        let Some(last) = self.last.filter(|_| self.block.records > 0) else {
            return;
        };
        let entries = self.bytes.len() - self.whole - BLOCK_HEADER_BYTES;
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES);
        for number in [entries, self.block.records, self.block.adds, last.crc] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&last.offset.to_le_bytes());
        let range = self.whole..self.whole + BLOCK_HEADER_BYTES;
        if let Some(room) = self.bytes.get_mut(range) {
            room.copy_from_slice(&header);
        }
        let chain = number_at(&self.bytes, self.whole - CHECKSUM_BYTES).unwrap_or_default();
        let block = self.bytes.get(self.whole..).unwrap_or_default();
        let chain = crc32c_append(chain, block);
        self.bytes.extend_from_slice(&chain.to_le_bytes());
        self.whole = self.bytes.len();
        self.ended = Records {
            count: self.records,
            last: Some(last),
        };
        self.block = Contents::default();
    }

    /// Calls `act` with every mention, in their order: how many records come before its own, and
    /// where that begins. If there are `texts`, those of other texts may be left out.
    pub(crate) fn each_mention<'a>(
        &'a self,
        texts: Option<&[Finder<'_>]>,
        mut act: impl FnMut(u64, u64, Name<'a>, Change),
    ) {
        for block in self.blocks() {
            let has = |text: &Finder<'_>| text.find(block.entries).is_some();
            if texts.is_none_or(|texts| texts.iter().any(has)) {
                block.each_mention(&mut act);
            }
        }
    }

    /// Calls `act` with every mention in these records, whose first has the number 0, as
    /// [`Index::each_mention`] does, but from the last one to the first.
    pub(crate) fn each_mention_back<'a>(
        &'a self,
        records: &Range<u64>,
        mut act: impl FnMut(u64, u64, Name<'a>, Change),
    ) {
        let blocks: Vec<Block<'_>> = self.blocks().collect();
        let mut of_block = Vec::new();
        let mut end = self.records;
        for block in blocks.iter().rev() {
            let is_near = block.record < records.end && records.start < end;
            end = block.record;
            if !is_near {
                continue;
            }
            block.each_mention(&mut |record, offset, name, change| {
                if records.contains(&record) {
                    of_block.push((record, offset, name, change));
                }
            });
            for (record, offset, name, change) in of_block.drain(..).rev() {
                act(record, offset, name, change);
            }
        }
    }

    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let Records { count, last } = self.before;
        let (mut record, mut offset) = (count, last.map_or(0, |last| last.offset));
        let mut rest = self.bytes.get(self.begin..);
        std::iter::from_fn(move || {
            let block = rest.filter(|rest| !rest.is_empty())?;
            let len = match number_at(block, 0) {
                Some(0) | None => block.len().saturating_sub(BLOCK_HEADER_BYTES),
                Some(len) => len as usize,
            };
            let found = Block {
                entries: block.get(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + len)?,
                record,
                offset,
            };
            record += u64::from(number_at(block, 4).unwrap_or_default());
            offset = offset_at(block, 16).unwrap_or_default();
            rest = block.get(BLOCK_HEADER_BYTES + len + CHECKSUM_BYTES..);
            Some(found)
        })
    }

    /// Writes the blocks that are not on disk. Several processes may do this at once, since they
    /// write the same. An index that can't be written is one that is missing. Returns whether
    /// others have blocks now that they did not have.
    pub(crate) fn save(&mut self, dir: &StoreDir) -> bool {
        if let Saved::Bytes(saved) = self.saved
            && saved < self.whole
            && self.records > u64::from(self.block.records)
        {
            let written = self.write(dir, saved);
            self.saved = match written {
                Ok(Some(_)) => Saved::Bytes(self.whole),
                Ok(None) | Err(_) => Saved::Never,
            };
            return matches!(written, Ok(Some(true)));
        }
        false
    }

    /// False if another process has written the same; `None` if the segment is gone, or the file is
    /// not as it was left.
    fn write(&self, dir: &StoreDir, saved: usize) -> Result<Option<bool>> {
        let name = index_name(self.segment);
        let file = if saved == 0 {
            // One that is there says nothing of use, or the same.
            dir.remove(&name)?;
            match dir.open_if_there(&segment_name(self.segment), OpenMode::Read)? {
                Some(_) => dir.create_new(&name)?,
                None => None, // The segment is compacted away.
            }
        } else {
            dir.open_if_there(&name, OpenMode::ReadWrite)?
        };
        let Some(file) = file else { return Ok(None) };
        let ends_alike = |end: usize| -> Result<bool> {
            let (at, mut chain) = (end - CHECKSUM_BYTES, [0; CHECKSUM_BYTES]);
            file.read(&mut chain, self.from + at as u64)?;
            Ok(self.bytes.get(at..end) == Some(&chain))
        };
        if saved > 0 && !ends_alike(saved)? {
            return Ok(None);
        }
        if ends_alike(self.whole)? {
            return Ok(Some(false));
        }
        let unsaved = self.bytes.get(saved..self.whole).unwrap_or_default();
        file.write(unsaved, self.from + saved as u64)?;
        Ok(Some(true))
    }
}

/// What an index says of some records.
#[derive(Debug, Clone, Copy)]
struct Block<'a> {
    entries: &'a [u8],
    /// Before them are so many records,
    record: u64,
    /// the last of which begins here.
    offset: u64,
}

impl<'a> Block<'a> {
    fn each_mention(&self, act: &mut impl FnMut(u64, u64, Name<'a>, Change)) {
        let end = self.try_each_mention(act);
        debug_assert!(end.is_some(), "entries are written as a whole");
    }

    /// `None` at what no program of this layout writes.
    fn try_each_mention(&self, act: &mut impl FnMut(u64, u64, Name<'a>, Change)) -> Option<()> {
        let Self {
            mut entries,
            mut record,
            mut offset,
        } = *self;
        while !entries.is_empty() {
            offset += take_number(&mut entries)?;
            for _ in 0..take_number(&mut entries)? {
                let (name, change) = take_mention(&mut entries)?;
                act(record, offset, name, change);
            }
            record += 1;
        }
        Some(())
    }
}

fn header(store: &str, segment: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let layout = LAYOUT << 32 | u64::from(crc32c_append(0, store.as_bytes()));
    let numbers = layout
        .to_le_bytes()
        .into_iter()
        .chain(segment.to_le_bytes());
    for (byte, number) in header.iter_mut().zip(numbers) {
        *byte = number;
    }
    header
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn offset_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Reads the index of a segment, of so many records at most. `None` where there is no index, or
/// none of this segment.
pub(crate) fn read(dir: &StoreDir, store: &str, segment: u64, records_max: u64) -> Option<Index> {
    let file = dir.open_if_there(&index_name(segment), OpenMode::Read);
    let file = file.ok().flatten()?;
    let len_bytes = file.len_bytes().ok()?;
    let len = usize::try_from(len_bytes.min(FILE_BYTES_MAX)).ok()?;
    // With room for the records behind it.
    let mut bytes = vec![0; len + ROOM_BYTES];
    let read = file.read(bytes.get_mut(..len)?, 0).ok()?;
    bytes.truncate(read);
    parse(bytes, &Index::new(store, segment), records_max)
}

/// As [`read`], but only what is behind a block: `None` unless that ends there with its checksum.
pub(crate) fn read_behind(dir: &StoreDir, end: &BlockEnd, records_max: u64) -> Option<Index> {
    let new = Index::behind(end)?;
    let file = dir.open_if_there(&index_name(end.segment), OpenMode::Read);
    let file = file.ok().flatten()?;
    let len_bytes = file.len_bytes().ok()?.checked_sub(new.from)?;
    let len = usize::try_from(len_bytes.min(FILE_BYTES_MAX)).ok()?;
    let mut bytes = vec![0; len + ROOM_BYTES];
    let read = file.read(bytes.get_mut(..len)?, new.from).ok()?;
    bytes.truncate(read);
    parse(bytes, &new, records_max)
}

/// Takes the whole blocks of the bytes, which begin as those of `new` do.
fn parse(bytes: Vec<u8>, new: &Index, records_max: u64) -> Option<Index> {
    bytes.starts_with(&new.bytes).then_some(())?;
    let mut index = Index { bytes, ..*new };
    while let Some(end) = index.next_block(records_max) {
        index.whole = end;
    }
    index.bytes.truncate(index.whole);
    index.saved = Saved::Bytes(index.whole);
    Some(index)
}

impl Index {
    /// Takes the block behind those that are known to be whole; returns its end. `None` if it is
    /// not whole, or has too many records.
    fn next_block(&mut self, records_max: u64) -> Option<usize> {
        let block = self.bytes.get(self.whole..)?;
        let [len, records, adds, crc] = [0, 4, 8, 12].map(|at| number_at(block, at));
        let offset = offset_at(block, 16)?;
        let len = BLOCK_HEADER_BYTES + usize::try_from(len?).ok()?;
        let chain = number_at(&self.bytes, self.whole - CHECKSUM_BYTES)?;
        let chain = crc32c_append(chain, block.get(..len)?);
        (number_at(block, len)? == chain).then_some(())?;
        let all = self.records + u64::from(records?);
        (all <= records_max).then_some(())?;
        self.records = all;
        self.adds += u64::from(adds?);
        self.last = Some(Last { offset, crc: crc? });
        self.ended = Records {
            count: self.records,
            last: self.last,
        };
        Some(self.whole + len + CHECKSUM_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES: usize = 40 << 10;

    /// The records before a mention, where its own begins, and the id.
    type Mention = (u64, u64, String);

    fn mentions(index: &Index) -> Vec<Mention> {
        let mut all = Vec::new();
        index.each_mention(None, |record, offset, name, change| {
            assert_eq!(change, Change::Adds);
            all.push((
                record,
                offset,
                String::from_utf8(name.text.to_vec()).unwrap(),
            ));
        });
        all
    }

    fn push(index: &mut Index, ids: &[&str]) {
        let mut found = Found::default();
        for id in ids {
            found.push(Name::of_id(id), Change::Adds);
        }
        let offset = index.records * LINE_BYTES as u64;
        let crc = u32::try_from(index.records).unwrap();
        index.push(Last { offset, crc }, LINE_BYTES, &found, 64 << 10);
    }

    /// An index over five records, of which the last is not in a block yet.
    fn index() -> Index {
        let mut index = Index::new("store", 5);
        for ids in [&["a"][..], &["b", "c"], &[], &["a"], &["d"]] {
            push(&mut index, ids);
        }
        index
    }

    fn whole(index: &Index) -> Vec<u8> {
        index.bytes[..index.whole].to_vec()
    }

    /// How many bytes of the file are the header, that and one block, and all.
    fn ends(index: &Index) -> [usize; 3] {
        let header = HEADER_BYTES + CHECKSUM_BYTES;
        let len = number_at(&index.bytes, header).unwrap() as usize;
        let first = header + BLOCK_HEADER_BYTES + len + CHECKSUM_BYTES;
        [header, first, index.whole]
    }

    fn records(bytes: Vec<u8>, store: &str, segment: u64) -> Option<u64> {
        let index = parse(bytes, &Index::new(store, segment), u64::MAX)?;
        Some(index.records)
    }

    #[test]
    fn an_index_is_believed_as_far_as_it_was_written() {
        let index = index();
        let all = mentions(&index);
        let ids: Vec<_> = all.iter().map(|(record, _, id)| (*record, &**id)).collect();
        assert_eq!(ids, [(0, "a"), (1, "b"), (1, "c"), (3, "a"), (4, "d")]);
        assert_eq!(all[3].1, 3 * LINE_BYTES as u64);
        let mut back = Vec::new();
        index.each_mention_back(&(0..u64::MAX), |record, offset, name, _| {
            back.push((
                record,
                offset,
                String::from_utf8(name.text.to_vec()).unwrap(),
            ));
        });
        back.reverse();
        assert_eq!(back, all);
        let mut near = Vec::new();
        let texts = [b"c", b"z"].map(|text| Finder::new(&text[..]));
        index.each_mention(Some(&texts), |record, offset, name, _| {
            near.push((
                record,
                offset,
                String::from_utf8(name.text.to_vec()).unwrap(),
            ));
        });
        assert_eq!(near, all[..3]);
        let bytes = whole(&index);
        let read = parse(bytes.clone(), &Index::new("store", 5), u64::MAX).unwrap();
        assert_eq!(mentions(&read), all[..4]);
        assert_eq!((read.records, read.adds), (4, 4));
        let offset = 3 * LINE_BYTES as u64;
        assert_eq!(read.last, Some(Last { offset, crc: 3 }));
        assert_eq!(records(bytes.clone(), "other", 5), None);
        assert_eq!(records(bytes.clone(), "store", 6), None);
        for max in 0..6 {
            let some = parse(bytes.clone(), &Index::new("store", 5), max).unwrap();
            assert_eq!(
                some.records,
                [0, 0, 2, 2, 4, 4][usize::try_from(max).unwrap()]
            );
        }
        let [header, first, _] = ends(&index);
        for len in 0..bytes.len() {
            let expected = match len {
                _ if len < header => None,
                _ if len < first => Some(0),
                _ => Some(2),
            };
            assert_eq!(
                records(bytes[..len].to_vec(), "store", 5),
                expected,
                "cut to {len}"
            );
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let index = index();
        let [header, first, _] = ends(&index);
        for bit in 0..8 * index.whole {
            let mut bytes = whole(&index);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                at if at < header => None,
                at if at < first => Some(0),
                _ => Some(2),
            };
            assert_eq!(records(bytes, "store", 5), expected, "bit {bit}");
        }
    }

    #[test]
    fn an_index_grows_only_from_where_it_was_left() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StoreDir::on_disk(temp.path()).unwrap();
        let mut gone = index();
        gone.save(&dir);
        assert_eq!(gone.saved, Saved::Never, "there is no segment");
        dir.create_new(&segment_name(5)).unwrap();
        let mut short = Index::new("store", 5);
        push(&mut short, &["a"]);
        short.save(&dir);
        assert_eq!(short.saved, Saved::Bytes(0), "no block is whole");
        let mut index = index();
        index.save(&dir);
        // Twice, as two processes would that both saw the same records.
        for _ in 0..2 {
            let mut read = read(&dir, "store", 5, u64::MAX).unwrap();
            read = parse(read.bytes, &Index::new("store", 5), 4).unwrap();
            assert_eq!(read.records, 4);
            push(&mut read, &["d"]);
            push(&mut read, &["e"]);
            assert_eq!(read.records, 6);
            read.save(&dir);
            assert_eq!(read.saved, Saved::Bytes(read.whole));
        }
        // One that is behind writes the same.
        push(&mut index, &["e"]);
        index.save(&dir);
        let found = read(&dir, "store", 5, u64::MAX).unwrap();
        assert_eq!((found.records, found.adds), (6, 6));
        assert_eq!(mentions(&found), mentions(&index));
        assert_eq!(found.bytes, index.bytes);
        let mut other = Index::new("store", 5);
        for _ in 0..3 {
            push(&mut other, &["z"]);
        }
        other.saved = Saved::Bytes(other.whole);
        push(&mut other, &["z"]);
        other.save(&dir);
        assert_eq!(other.saved, Saved::Never, "it is not as it was left");
        // The segment ends.
        index.end_block();
        push(&mut index, &["f"]);
        index.end_block();
        index.end_block();
        index.save(&dir);
        assert_eq!(read(&dir, "store", 5, u64::MAX).unwrap().records, 7);
    }
}
