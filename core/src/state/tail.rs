//! The records behind the snapshot, by the issues and keys that they concern.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{Line, segment_name, stored_checksum},
        search::Finder,
        seq::Seq,
    },
    issues::{
        event::IssueEvent,
        operation::{FNV_START, fnv},
    },
    state::{
        index::{self, BlockEnd, Index, Last},
        materialize::ATTEMPTS,
        mentions::{Change, Found, Mentions, Name},
    },
    wal::{
        cursor::RawRecords,
        durable::End,
        manifest::Manifest,
        store_dir::{StoreDir, StoreFile, replaced},
    },
};

/// From this look on, the records are sorted by name,
const SORTED_FROM: u32 = 12;
/// and for a look at more names than these.
const SEARCHED_NAMES: usize = 4;

/// The records behind the snapshot: where they are, and what they mention.
#[derive(Debug)]
pub(crate) struct Tail {
    store: String,
    records: RawRecords,
    mentions_of: Mentions,
    found: Found,
    pub(crate) mentioned: Mentioned,
    pub(crate) segments: Segments,
    /// How much of the log was read that no index may have.
    unsaved_bytes: u64,
    looks: u32,
    /// A program that looks a few times searches the mentions from end to end, which costs less
    /// than to sort them.
    sorted: Option<Sorted>,
}

/// What the records behind the snapshot mention.
#[derive(Debug, Default)]
pub(crate) struct Mentioned {
    /// The last record that was read; that before the first if there is none.
    last_seq: u64,
    /// Of each segment, as it is on disk or will be.
    indexes: Vec<Index>,
}

/// The segments, of which the one that was read last is open.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: StoreDir,
    open: Option<(u64, StoreFile)>,
    /// The batch that was read last. Whoever asks for one of its issues asks for the next one soon,
    /// and decoding it takes as long as all of it is.
    batch: Option<Batch>,
    /// Empty between two looks, so that none sees what another has read: a record may be undone.
    lines: Lines,
}

#[derive(Debug)]
struct Batch {
    place: Place,
    events: Vec<IssueEvent>,
    /// The places of the events, sorted by their ids.
    by_id: Vec<u32>,
}

impl Batch {
    fn new(place: Place, events: Vec<IssueEvent>) -> Self {
        let mut by_id: Vec<u32> = (0..number(events.len())).collect();
        by_id.sort_by_key(|at| events.get(*at as usize).map(|event| event.id.as_str()));
        Self {
            place,
            events,
            by_id,
        }
    }

    fn event(&self, at: u32) -> Option<&IssueEvent> {
        self.events.get(at as usize)
    }

    /// The events of these issues, in their order.
    fn of(&self, ids: &[impl AsRef<str>]) -> Vec<IssueEvent> {
        let id_of = |at: &u32| self.event(*at).map(|event| event.id.as_str());
        let mut places = Vec::new();
        for id in ids {
            let id = Some(id.as_ref());
            let first = self.by_id.partition_point(|at| id_of(at) < id);
            let behind = self.by_id.get(first..).unwrap_or_default().iter();
            places.extend(behind.copied().take_while(|at| id_of(at) == id));
        }
        places.sort_unstable();
        places.dedup();
        let events = places.into_iter().filter_map(|at| self.event(at));
        events.cloned().collect()
    }
}

/// A record that may concern an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    seq: u64,
    /// The first record of its segment.
    segment: u64,
    offset: u64,
}

impl Place {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    #[cfg(test)]
    pub(super) fn at(seq: u64) -> Self {
        Self {
            seq,
            segment: 1,
            offset: 100 * seq,
        }
    }
}

/// The records by hashes of what they mention. Two names may have the same hash, so that records
/// are found that do not concern an issue.
#[derive(Debug, Default)]
struct Sorted {
    mentions: Vec<Mention>,
    last_mention: HashMap<u64, u32, BuildHasherDefault<IsHash>>,
}

#[derive(Debug, Clone, Copy)]
struct Mention {
    place: Place,
    /// The mention of the same hash before this one.
    before: Option<u32>,
}

/// The records of a mention, and of those of the same name before it.
fn back_from(mentions: &[Mention], last: Option<u32>) -> impl Iterator<Item = Place> {
    let mention = |at: u32| mentions.get(at as usize);
    let back = std::iter::successors(last.and_then(mention), move |later| {
        later.before.and_then(mention)
    });
    back.map(|mention| mention.place)
}

impl Mentioned {
    /// Calls `act` with every mention, in their order.
    pub(super) fn each<'a>(&'a self, act: impl FnMut(Name<'a>, Change, Place)) {
        self.each_near(None, act);
    }

    /// As [`Mentioned::each`], but may leave out those of other names than these.
    fn each_near<'a>(
        &'a self,
        texts: Option<&[Finder<'_>]>,
        mut act: impl FnMut(Name<'a>, Change, Place),
    ) {
        for index in &self.indexes {
            let segment = index.segment;
            index.each_mention(texts, |before, offset, name, change| {
                let seq = segment + before;
                let place = Place {
                    seq,
                    segment,
                    offset,
                };
                act(name, change, place);
            });
        }
    }

    /// Calls `act` with every mention in these records, from the last one to the first.
    pub(super) fn each_back<'a>(
        &'a self,
        records: &Range<u64>,
        mut act: impl FnMut(Name<'a>, Change, Place),
    ) {
        for index in self.indexes.iter().rev() {
            let segment = index.segment;
            let of_segment = |seq: u64| seq.saturating_sub(segment);
            let records = of_segment(records.start)..of_segment(records.end);
            index.each_mention_back(&records, |before, offset, name, change| {
                let seq = segment + before;
                let place = Place {
                    seq,
                    segment,
                    offset,
                };
                act(name, change, place);
            });
        }
    }

    /// The end of the last block of an index.
    pub(super) fn block_end(&self) -> Option<BlockEnd> {
        self.indexes.iter().rev().find_map(Index::block_end)
    }

    /// The length of the segments before this one, as far as it is known.
    pub(super) fn bytes_before(&self, segment: u64) -> u64 {
        let before = self.indexes.iter().filter(|index| index.segment < segment);
        let bytes = before.filter_map(|index| Some(index.last?.offset));
        bytes.sum()
    }
}

impl Sorted {
    fn of(mentioned: &Mentioned) -> Self {
        let mut sorted = Self::default();
        mentioned.each(|name, _, place| sorted.push(name, place));
        sorted
    }

    fn push(&mut self, name: Name<'_>, place: Place) {
        let this = number(self.mentions.len());
        let before = self.last_mention.insert(hash(name), this);
        self.mentions.push(Mention { place, before });
    }

    /// The records that may mention a name, the last one first.
    fn back_from_last(&self, name: Name<'_>) -> impl Iterator<Item = Place> {
        back_from(&self.mentions, self.last_mention.get(&hash(name)).copied())
    }
}

impl Tail {
    fn new(dir: &StoreDir, manifest: &Manifest, end: End) -> Self {
        let first_seq = manifest.first_seq;
        Self {
            store: manifest.store.clone(),
            records: RawRecords::new(dir, first_seq, end),
            mentions_of: Mentions::default(),
            found: Found::default(),
            mentioned: Mentioned {
                last_seq: first_seq - 1,
                indexes: Vec::new(),
            },
            segments: Segments {
                dir: dir.clone(),
                open: None,
                batch: None,
                lines: Lines::default(),
            },
            unsaved_bytes: 0,
            looks: 0,
            sorted: None,
        }
    }

    /// Reads all records behind the snapshot of this manifest, whatever indexes there are.
    pub(crate) fn scan(dir: &StoreDir, manifest: &Manifest, end: End) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let mut tail = Self::new(dir, manifest, end);
            if tail.read_on()? {
                return Ok(tail);
            }
        }
        Err(replaced(dir.path()))
    }

    /// As [`Tail::scan`], but reads no record that an index knows.
    pub(crate) fn load(dir: &StoreDir, manifest: &Manifest, end: End) -> Result<Self> {
        // An end that is not known has to be searched for in all records.
        if let End::Seq(through) = end {
            let mut tail = Self::new(dir, manifest, end);
            if !tail.read_indexes(through) || !tail.move_behind_indexes(end)? {
                return Self::scan(dir, manifest, end);
            }
            if tail.read_on()? {
                return Ok(tail);
            }
        }
        Self::scan(dir, manifest, end)
    }

    /// As [`Tail::load`], but only the records behind the end of a block of an index, through this
    /// one. `None` unless that block ends there, and the index belongs to the segment.
    pub(crate) fn load_behind(
        dir: &StoreDir,
        manifest: &Manifest,
        end: &BlockEnd,
        through: u64,
    ) -> Result<Option<Self>> {
        let mut tail = Self::new(dir, manifest, End::Seq(through));
        let records = (through + 1).saturating_sub(end.segment);
        let Some(index) = index::read_behind(dir, end, records) else {
            return Ok(None);
        };
        let is_known = end.seq <= through
            && tail.take(index)
            && tail.read_indexes(through)
            && tail.move_behind_indexes(End::Seq(through))?;
        if !is_known {
            return Ok(None);
        }
        Ok(tail.read_on()?.then_some(tail))
    }

    /// The last record that was read; that before the first if there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.mentioned.last_seq
    }

    /// How many issues the records create at most.
    pub(crate) fn adds(&self) -> usize {
        let adds: u64 = self.mentioned.indexes.iter().map(|index| index.adds).sum();
        usize::try_from(adds).unwrap_or(usize::MAX)
    }

    /// Reads new records through `end`. False if they are in other files of the same names: there,
    /// those that were read before may be elsewhere.
    pub(crate) fn advance(&mut self, end: End) -> Result<bool> {
        self.records.resume(end);
        self.read_on()
    }

    /// As [`Tail::advance`], to the end that the records have.
    fn read_on(&mut self) -> Result<bool> {
        let block_of_bytes = self.segments.dir.index_block_bytes();
        let indexes = &mut self.mentioned.indexes;
        while let Some(record) = self.records.next()? {
            if record.reopened {
                return Ok(false);
            }
            let (seq, offset) = (record.line.header.seq, record.offset);
            if let Err(reason) = self.mentions_of.of(record.line.body, &mut self.found) {
                return Err(self.records.refuse(seq, offset, reason));
            }
            let is_of = |last: &Index| last.segment == record.segment;
            if !indexes.last().is_some_and(is_of) {
                if let Some(ended) = indexes.last_mut() {
                    ended.end_block();
                }
                indexes.push(Index::new(&self.store, record.segment));
            }
            let line_bytes = record.text.len() + 1;
            self.unsaved_bytes += line_bytes as u64;
            let crc = stored_checksum(record.text).unwrap_or_default();
            if let Some(index) = indexes.last_mut() {
                index.push(
                    Last { offset, crc },
                    line_bytes,
                    &self.found,
                    block_of_bytes,
                );
            }
            self.mentioned.last_seq = seq;
            if let Some(sorted) = &mut self.sorted {
                let segment = record.segment;
                let place = Place {
                    seq,
                    segment,
                    offset,
                };
                for (name, _) in self.found.mentions() {
                    sorted.push(name, place);
                }
            }
        }
        Ok(!self.records.has_reopened())
    }

    /// The records behind `after` that may concern any of these names, in order.
    pub(crate) fn concerning(&mut self, names: &[Name<'_>], after: u64) -> Vec<Place> {
        self.looks += 1;
        if self.looks >= SORTED_FROM || names.len() > SEARCHED_NAMES {
            let all = || Sorted::of(&self.mentioned);
            self.sorted.get_or_insert_with(all);
        }
        let mut places = Vec::new();
        if let Some(sorted) = &self.sorted {
            for name in names {
                let back = sorted.back_from_last(*name);
                places.extend(back.take_while(|place| place.seq > after));
            }
        } else {
            let texts: Vec<_> = names.iter().map(|name| Finder::new(name.text)).collect();
            self.mentioned.each_near(Some(&texts), |name, _, place| {
                if names.contains(&name) && place.seq > after {
                    places.push(place);
                }
            });
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Takes what the indexes say of the records through this one. False if one of them does not
    /// belong to its segment.
    fn read_indexes(&mut self, through: u64) -> bool {
        while self.last_seq() < through {
            let (segment, wanted) = (self.last_seq() + 1, through - self.last_seq());
            let Some(index) = index::read(&self.segments.dir, &self.store, segment, wanted) else {
                break;
            };
            let is_empty = index.last.is_none();
            if !self.take(index) {
                return false;
            }
            if is_empty {
                break; // It covers no record yet.
            }
        }
        true
    }

    /// Takes what an index says of the next records. False if it does not belong to its segment.
    fn take(&mut self, index: Index) -> bool {
        let (segment, last) = (index.segment, index.last);
        self.mentioned.last_seq = segment + index.records - 1;
        self.mentioned.indexes.push(index);
        last.is_none_or(|last| self.is_last(segment, last))
    }

    /// Whether the last record that is known is the one at this place.
    fn is_last(&mut self, segment: u64, Last { offset, crc }: Last) -> bool {
        let place = Place {
            seq: self.last_seq(),
            segment,
            offset,
        };
        let mut lines = Lines::default();
        let found = self.segments.look(place, &mut lines, |_, text| {
            stored_checksum(text) == Some(crc)
        });
        matches!(found, Ok(Ok(true)))
    }

    /// Goes on behind the last record that an index covers. False if that is somewhere else.
    fn move_behind_indexes(&mut self, end: End) -> Result<bool> {
        let covering = |index: &&Index| index.last.is_some();
        let Some(index) = self.mentioned.indexes.iter().rfind(covering) else {
            return Ok(true);
        };
        let (seq, segment) = (self.last_seq(), index.segment);
        let Some(Last { offset, crc }) = index.last else {
            return Ok(true);
        };
        let records = RawRecords::at(&self.segments.dir, segment, offset, seq, end)?;
        let Some(mut records) = records else {
            return Ok(false);
        };
        let is_there = matches!(
            records.next(),
            Ok(Some(record)) if stored_checksum(record.text) == Some(crc)
        );
        self.records = records;
        self.segments.close(); // It may have the file of before open.
        Ok(is_there)
    }

    /// Adds to the indexes on disk what they lack, once that is worth it. Returns whether others
    /// know more then.
    pub(crate) fn save(&mut self) -> bool {
        if self.unsaved_bytes < self.segments.dir.index_block_bytes() {
            return false;
        }
        self.unsaved_bytes = 0;
        let mut saved = false;
        for index in &mut self.mentioned.indexes {
            saved |= index.save(&self.segments.dir);
        }
        saved
    }
}

impl Segments {
    /// Forgets what was read, since the names may be those of other files now.
    fn close(&mut self) {
        (self.open, self.batch) = (None, None);
    }

    /// Calls `act` with those events of each of these records, which are in order, that concern
    /// these issues, and perhaps others; with all events if there are no ids.
    pub(crate) fn each_of(
        &mut self,
        places: &[Place],
        ids: Option<&[impl AsRef<str>]>,
        mut act: impl FnMut(Seq, Vec<IssueEvent>),
    ) -> Result<()> {
        let (mut lines, mut scratch) = (std::mem::take(&mut self.lines), Vec::new());
        let some_of = |batch: &Batch| match ids {
            Some(ids) => batch.of(ids),
            None => batch.events.clone(),
        };
        for place in places.iter().copied() {
            if let Some(batch) = self.batch.as_ref().filter(|batch| batch.place == place) {
                act(Seq::new(place.seq), some_of(batch));
                continue;
            }
            let decode = |line: Line<'_>, _: &[u8]| line.body.decode(&mut scratch);
            let events = self.look(place, &mut lines, decode)?;
            let events = events.and_then(|events| events).map_err(|reason| {
                // The file is not the one that was read before, or was damaged since.
                self.corrupt(place, reason)
            })?;
            if events.len() > 1 {
                let batch = self.batch.insert(Batch::new(place, events));
                act(Seq::new(place.seq), some_of(batch));
            } else {
                act(Seq::new(place.seq), events);
            }
        }
        lines.restart(0);
        self.lines = lines;
        Ok(())
    }

    /// Calls `act` with a record, which is checked, and its text. `lines` may have read of the same
    /// segment.
    fn look<T>(
        &mut self,
        place: Place,
        lines: &mut Lines,
        act: impl FnOnce(Line<'_>, &[u8]) -> T,
    ) -> Result<std::result::Result<T, CorruptReason>> {
        let open = self.open.take_if(|(first, _)| *first == place.segment);
        let file = if let Some((_, file)) = open {
            file
        } else {
            lines.restart(place.offset);
            let name = segment_name(place.segment);
            self.dir.open(&name, OpenMode::Read)?
        };
        lines.seek(place.offset);
        let span = file.next_line(lines)?;
        self.open = Some((place.segment, file));
        let Some(span) = span.filter(|span| span.offset == place.offset) else {
            return Ok(Err(CorruptReason::NotARecord));
        };
        let text = lines.text(span).strip_suffix(b"\n");
        let text = text.ok_or(CorruptReason::Unterminated);
        let line = text.and_then(|text| {
            let line = Line::parse(text)?;
            let (expected, found) = (place.seq, line.header.seq);
            if found == expected {
                Ok(act(line, text))
            } else {
                Err(CorruptReason::Sequence { expected, found })
            }
        });
        Ok(line)
    }

    fn corrupt(&self, place: Place, reason: CorruptReason) -> Error {
        Error::Corrupt {
            path: self.dir.path_of(&segment_name(place.segment)),
            offset: place.offset,
            reason,
        }
    }
}

pub(super) fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn hash(name: Name<'_>) -> u64 {
    let kind: &[u8] = if name.is_key { b"key:" } else { b"id:" };
    fnv(fnv(FNV_START, kind), name.text)
}

/// Takes a number for its hash, since it is one. Whoever chooses names with one hash makes a look
/// slow, and nothing wrong.
#[derive(Default)]
struct IsHash(u64);

impl Hasher for IsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = fnv(self.0, bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
