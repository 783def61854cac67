//! The records behind the snapshot, by the issues and keys that they concern.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{Line, segment_name, stored_checksum},
    },
    issues::event::IssueEvent,
    state::{
        index::{self, IndexBytes, IndexEnd, Slot},
        mentions::{Mentions, NameHash},
    },
    wal::{
        cursor::RawRecords,
        durable::End,
        manifest::Manifest,
        store_dir::{StoreDir, StoreFile},
    },
};

/// So much of the log is read again by everybody before it is worth a place in the index.
const SAVED_EVERY_BYTES: u64 = 64 << 10;

/// Where the records behind the snapshot are, and what they mention.
#[derive(Debug)]
pub(crate) struct Tail {
    dir: StoreDir,
    store: String,
    first_seq: u64,
    records: RawRecords,
    mentions_of: Mentions,
    places: Vec<Place>,
    mentions: Vec<Mention>,
    last_mention: HashMap<NameHash, u32, BuildHasherDefault<AsItIs>>,
    /// The segment that was read last, by its first record.
    open: Option<(u64, StoreFile)>,
    saved: Saved,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The first record of its segment.
    segment: u64,
    offset: u64,
    crc: u32,
}

#[derive(Debug, Clone, Copy)]
struct Mention {
    name: NameHash,
    /// Counted from `first_seq`.
    record: u32,
    /// The mention of the same name before this one.
    before: Option<u32>,
}

/// How much of the tail is in the indexes on disk.
#[derive(Debug, Default)]
struct Saved {
    records: usize,
    mentions: usize,
    /// The last segment of which something is, and where its index ends.
    end: Option<(u64, IndexEnd)>,
    unsaved_bytes: u64,
    /// A segment whose index is left alone: it was removed, or another process writes one that
    /// differs.
    skipped: Option<u64>,
}

impl Tail {
    fn new(dir: &StoreDir, manifest: &Manifest, end: End) -> Self {
        let first_seq = manifest.first_seq;
        Self {
            dir: dir.clone(),
            store: manifest.store.clone(),
            first_seq,
            records: RawRecords::new(dir, first_seq, end),
            mentions_of: Mentions::default(),
            places: Vec::new(),
            mentions: Vec::new(),
            last_mention: HashMap::default(),
            open: None,
            saved: Saved::default(),
        }
    }

    /// Reads all records behind the snapshot of this manifest, whatever indexes there are.
    pub(crate) fn scan(dir: &StoreDir, manifest: &Manifest, end: End) -> Result<Self> {
        let mut tail = Self::new(dir, manifest, end);
        tail.read_on()?;
        Ok(tail)
    }

    /// As [`Tail::scan`], but reads no record that an index knows.
    pub(crate) fn load(dir: &StoreDir, manifest: &Manifest, end: End) -> Result<Self> {
        // An end that is not known has to be searched for in all records.
        if let End::Seq(through) = end {
            let mut tail = Self::new(dir, manifest, end);
            if !tail.read_indexes(through) || !tail.move_behind_indexes(end)? {
                return Self::scan(dir, manifest, end);
            }
            tail.read_on()?;
            return Ok(tail);
        }
        Self::scan(dir, manifest, end)
    }

    /// The last record that was read; that before the first if there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq - 1 + self.places.len() as u64
    }

    /// How many names are mentioned.
    pub(crate) fn names(&self) -> usize {
        self.last_mention.len()
    }

    /// Reads new records through `end`.
    pub(crate) fn advance(&mut self, end: End) -> Result<()> {
        self.records.resume(end);
        self.read_on()
    }

    fn read_on(&mut self) -> Result<()> {
        while let Some(record) = self.records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            let place = Place {
                segment: record.segment,
                offset,
                crc: stored_checksum(record.text).unwrap_or_default(),
            };
            self.saved.unsaved_bytes += record.text.len() as u64;
            let mut found = Vec::new();
            let named = self
                .mentions_of
                .of(record.line.body, |name| found.push(name));
            if let Err(reason) = named {
                return Err(self.records.refuse(seq, offset, reason));
            }
            debug_assert_eq!(seq, self.last_seq() + 1);
            self.push(place, &found);
        }
        Ok(())
    }

    fn push(&mut self, place: Place, names: &[NameHash]) {
        let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let record = number(self.places.len());
        self.places.push(place);
        for name in names {
            let this = number(self.mentions.len());
            let before = self.last_mention.insert(*name, this);
            self.mentions.push(Mention {
                name: *name,
                record,
                before,
            });
        }
    }

    /// The records behind `after` that may concern any of these names, in order.
    pub(crate) fn concerning(&self, names: &[NameHash], after: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for name in names {
            let mut next = self.last_mention.get(name).copied();
            while let Some(mention) = next.and_then(|at| self.mentions.get(at as usize)) {
                let seq = self.first_seq + u64::from(mention.record);
                if seq <= after {
                    break;
                }
                found.push(seq);
                next = mention.before;
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Reads the events of a record.
    pub(crate) fn events(&mut self, seq: u64) -> Result<Vec<IssueEvent>> {
        let at = usize::try_from(seq - self.first_seq).unwrap_or(usize::MAX);
        let Some(place) = self.places.get(at).copied() else {
            return Err(self.corrupt(self.first_seq, 0, CorruptReason::NotARecord));
        };
        let decode = |line: Line<'_>| line.body.decode(&mut Vec::new());
        let events = self.look(place, seq, decode)?;
        events.and_then(|events| events).map_err(|reason| {
            // The file is not the one that was read before, or was damaged since.
            self.corrupt(place.segment, place.offset, reason)
        })
    }

    /// Calls `act` with a record, which is checked.
    fn look<T>(
        &mut self,
        place: Place,
        seq: u64,
        act: impl FnOnce(Line<'_>) -> T,
    ) -> Result<std::result::Result<T, CorruptReason>> {
        let open = self.open.take_if(|(first, _)| *first == place.segment);
        let file = match open {
            Some((_, file)) => file,
            None => self
                .dir
                .open(&segment_name(place.segment), OpenMode::Read)?,
        };
        let mut lines = Lines::default();
        lines.restart(place.offset);
        let span = file.next_line(&mut lines)?;
        self.open = Some((place.segment, file));
        let Some(span) = span.filter(|span| span.offset == place.offset) else {
            return Ok(Err(CorruptReason::NotARecord));
        };
        let text = lines.text(span).strip_suffix(b"\n");
        let text = text.ok_or(CorruptReason::Unterminated);
        let line = text.and_then(|text| {
            let line = Line::parse(text)?;
            let found = (line.header.seq, stored_checksum(text));
            if found == (seq, Some(place.crc)) {
                Ok(line)
            } else {
                let (expected, found) = (seq, line.header.seq);
                Err(CorruptReason::Sequence { expected, found })
            }
        });
        Ok(line.map(act))
    }

    fn corrupt(&self, segment: u64, offset: u64, reason: CorruptReason) -> Error {
        Error::Corrupt {
            path: self.dir.path_of(&segment_name(segment)),
            offset,
            reason,
        }
    }

    /// Takes what the indexes say of the records through this one. False if one of them does not
    /// belong to its segment.
    fn read_indexes(&mut self, through: u64) -> bool {
        while self.last_seq() < through {
            let segment = self.last_seq() + 1;
            let (dir, store) = (self.dir.clone(), self.store.clone());
            let (mut names, mut end) = (Vec::new(), None);
            let begin = index::read(&dir, &store, segment, |slot, behind| {
                names.extend((slot.name != NO_NAME).then_some(slot.name));
                if slot.is_last && self.last_seq() < through {
                    let place = Place {
                        segment,
                        offset: slot.offset,
                        crc: slot.crc,
                    };
                    self.push(place, &names);
                    names.clear();
                    end = Some(behind);
                }
            });
            let Some(begin) = begin else { break };
            self.saved.end = Some((segment, end.unwrap_or(begin)));
            let Some(last) = self.places.last().copied().filter(|_| end.is_some()) else {
                break; // It covers no record yet.
            };
            if !matches!(self.look(last, self.last_seq(), |_| ()), Ok(Ok(()))) {
                return false;
            }
        }
        self.saved.records = self.places.len();
        self.saved.mentions = self.mentions.len();
        true
    }

    /// Goes on behind the last record that an index covers. False if that is somewhere else.
    fn move_behind_indexes(&mut self, end: End) -> Result<bool> {
        let Some(last) = self.places.last().copied() else {
            return Ok(true);
        };
        let seq = self.last_seq();
        let records = RawRecords::at(&self.dir, last.segment, last.offset, seq, end)?;
        let Some(mut records) = records else {
            return Ok(false);
        };
        let is_there = matches!(
            records.next(),
            Ok(Some(record)) if stored_checksum(record.text) == Some(last.crc)
        );
        self.records = records;
        Ok(is_there)
    }

    /// Adds to the indexes on disk what they lack, once that is worth it. Several processes may do
    /// this at once, since they write the same. An index that can't be written is one that is
    /// missing.
    pub(crate) fn save(&mut self) {
        if self.saved.unsaved_bytes < SAVED_EVERY_BYTES {
            return;
        }
        self.saved.unsaved_bytes = 0;
        while let Some(next) = self.places.get(self.saved.records).copied() {
            let segment = next.segment;
            let index = self.new_of_segment(segment);
            if self.saved.skipped == Some(segment) {
                continue;
            }
            let end = index.write(&self.dir, segment).ok().flatten();
            self.saved.end = end.map(|end| (segment, end));
            if end.is_none() {
                self.saved.skipped = Some(segment);
            }
        }
    }

    /// What the index of this segment lacks. It counts as saved from now on.
    fn new_of_segment(&mut self, segment: u64) -> IndexBytes {
        let mut index = match self.saved.end {
            Some((of, end)) if of == segment => IndexBytes::behind(end),
            _ => IndexBytes::new(&self.store, segment),
        };
        while let Some(place) = self.places.get(self.saved.records)
            && place.segment == segment
        {
            let number = u32::try_from(self.saved.records).unwrap_or(u32::MAX);
            let of_record = self.mentions.get(self.saved.mentions..).unwrap_or_default();
            let of_record = of_record.iter().take_while(|one| one.record == number);
            let mut names: Vec<NameHash> = of_record.map(|one| one.name).collect();
            self.saved.records += 1;
            self.saved.mentions += names.len();
            if names.is_empty() {
                names.push(NO_NAME);
            }
            for (at, name) in (1..).zip(&names) {
                index.push(Slot {
                    name: *name,
                    offset: place.offset,
                    is_last: at == names.len(),
                    crc: place.crc,
                });
            }
        }
        index
    }
}

/// The slot of a record that mentions no name.
const NO_NAME: NameHash = NameHash(0);

/// Uses a number that is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only a `NameHash` is hashed")
    }
}
