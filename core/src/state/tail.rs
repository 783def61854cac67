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
        seq::Seq,
    },
    issues::event::IssueEvent,
    state::{
        index::{self, IndexBytes, IndexEnd, Slot},
        mentions::{self, Change, Mentions, NameHash},
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
    change: Change,
    /// Counted from `first_seq`.
    record: u32,
    /// The mention of the same name before this one.
    before: Option<u32>,
}

/// What the records did to an issue in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of them concerns it.
    Untouched,
    /// If it was closed or absent before them, it is so now.
    AsBefore,
    /// It is closed or absent.
    Closed,
    /// It may be neither.
    MayBeOpen,
}

/// The records that what an issue is now depends on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisive {
    pub(crate) seqs: Vec<u64>,
    /// Whether it also depends on what the issue was before them.
    pub(crate) on_snapshot: bool,
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
        let mut found = Vec::new();
        while let Some(record) = self.records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            let place = Place {
                segment: record.segment,
                offset,
                crc: stored_checksum(record.text).unwrap_or_default(),
            };
            self.saved.unsaved_bytes += record.text.len() as u64;
            if let Err(reason) = self.mentions_of.of(record.line.body, &mut found) {
                return Err(self.records.refuse(seq, offset, reason));
            }
            debug_assert_eq!(seq, self.last_seq() + 1);
            self.push(place, &found);
        }
        Ok(())
    }

    fn push(&mut self, place: Place, names: &[mentions::Mention]) {
        let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let record = number(self.places.len());
        self.places.push(place);
        for (name, change) in names.iter().copied() {
            let this = number(self.mentions.len());
            let before = self.last_mention.insert(name, this);
            self.mentions.push(Mention {
                name,
                change,
                record,
                before,
            });
        }
    }

    /// The records behind `after` that may concern any of these names, in order.
    pub(crate) fn concerning(&self, names: &[NameHash], after: u64) -> Vec<u64> {
        let of_name = |name: &NameHash| {
            let seqs = self.back_from_last(*name).map(|mention| self.seq(mention));
            seqs.take_while(|seq| *seq > after)
        };
        let mut found: Vec<u64> = names.iter().flat_map(of_name).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The mentions of a name, the last one first.
    fn back_from_last(&self, name: NameHash) -> impl Iterator<Item = &Mention> {
        let mention = |at: u32| self.mentions.get(at as usize);
        let last = self.last_mention.get(&name).copied().and_then(mention);
        std::iter::successors(last, move |later| later.before.and_then(mention))
    }

    fn seq(&self, mention: &Mention) -> u64 {
        self.first_seq + u64::from(mention.record)
    }

    /// What the records did to the issue whose id has this name.
    pub(crate) fn fate(&self, name: NameHash) -> Fate {
        let mut fate = Fate::Untouched;
        for mention in self.back_from_last(name) {
            fate = match mention.change {
                Change::Nothing => Fate::AsBefore,
                Change::Closes | Change::Deletes | Change::AddsClosed => return Fate::Closed,
                Change::Opens | Change::Replaces | Change::Adds => return Fate::MayBeOpen,
            };
        }
        fate
    }

    /// The names of the issues that may not be closed, although they were or did not exist before.
    pub(crate) fn opened(&self) -> impl Iterator<Item = NameHash> {
        let names = self.last_mention.keys().copied();
        names.filter(|name| self.fate(*name) == Fate::MayBeOpen)
    }

    /// The records that what the issue is now depends on: the last one that replaces all of it and
    /// those behind it, and the last one before that which says whether there was an issue.
    pub(crate) fn decisive(&self, name: NameHash) -> Decisive {
        let mut seqs = Vec::new();
        let (mut is_replaced, mut is_told) = (false, false);
        for mention in self.back_from_last(name) {
            let change = mention.change;
            is_told = matches!(change, Change::Adds | Change::AddsClosed | Change::Deletes);
            if is_told || !is_replaced {
                seqs.push(self.seq(mention));
            }
            if is_told {
                break;
            }
            is_replaced |= change == Change::Replaces;
        }
        seqs.reverse();
        seqs.dedup();
        Decisive {
            seqs,
            on_snapshot: !is_told,
        }
    }

    /// Calls `act` with the events of each of these records, which are in order.
    pub(crate) fn each_of(
        &mut self,
        seqs: &[u64],
        mut act: impl FnMut(Seq, Vec<IssueEvent>),
    ) -> Result<()> {
        let (mut lines, mut scratch) = (Lines::default(), Vec::new());
        for seq in seqs.iter().copied() {
            let at = usize::try_from(seq - self.first_seq).unwrap_or(usize::MAX);
            let Some(place) = self.places.get(at).copied() else {
                return Err(self.corrupt(self.first_seq, 0, CorruptReason::NotARecord));
            };
            let decode = |line: Line<'_>| line.body.decode(&mut scratch);
            let events = self.look(place, seq, &mut lines, decode)?;
            let events = events.and_then(|events| events).map_err(|reason| {
                // The file is not the one that was read before, or was damaged since.
                self.corrupt(place.segment, place.offset, reason)
            })?;
            act(Seq::new(seq), events);
        }
        Ok(())
    }

    /// Calls `act` with a record, which is checked. `lines` may have read of the same segment.
    fn look<T>(
        &mut self,
        place: Place,
        seq: u64,
        lines: &mut Lines,
        act: impl FnOnce(Line<'_>) -> T,
    ) -> Result<std::result::Result<T, CorruptReason>> {
        let open = self.open.take_if(|(first, _)| *first == place.segment);
        let file = if let Some((_, file)) = open {
            file
        } else {
            *lines = Lines::default();
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
                names.extend((slot.name != NO_NAME).then_some((slot.name, slot.change)));
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
            let mut lines = Lines::default();
            let found = self.look(last, self.last_seq(), &mut lines, |_| ());
            if !matches!(found, Ok(Ok(()))) {
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
            let mut names: Vec<_> = of_record.map(|one| (one.name, one.change)).collect();
            self.saved.records += 1;
            self.saved.mentions += names.len();
            if names.is_empty() {
                names.push((NO_NAME, Change::Nothing));
            }
            for (at, (name, change)) in (1..).zip(names.iter().copied()) {
                index.push(Slot {
                    name,
                    change,
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
