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
        index::{self, Index, IndexBytes, IndexEnd, Slot},
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

/// From this look on, what the indexes have is sorted by name,
const UNPACKED_FROM: u32 = 12;
/// and for a look at more names than these.
const SEARCHED_NAMES: usize = 4;

/// Where the records behind the snapshot are, and what they mention.
#[derive(Debug)]
pub(crate) struct Tail {
    dir: StoreDir,
    store: String,
    first_seq: u64,
    records: RawRecords,
    mentions_of: Mentions,
    /// What was read of the indexes: of the first records, as it is stored. A program that looks
    /// a few times searches it from end to end, which costs less than to sort it.
    packed: Vec<Index>,
    looks: u32,
    /// How many issues the records create at most.
    adds: usize,
    /// Of the records behind those in `packed`.
    places: Vec<Place>,
    mentions: Vec<Mention>,
    last_mention: ByName<u32>,
    /// The segment that was read last, by its first record.
    open: Option<(u64, StoreFile)>,
    saved: Saved,
}

/// A record that may concern an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    seq: u64,
    place: Place,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fate {
    /// None of them concerns it.
    #[default]
    Untouched,
    /// If it was closed or absent before them, it is so now.
    AsBefore,
    /// It is closed or absent.
    Closed,
    /// It may be neither.
    MayBeOpen,
}

/// What the records did to an issue, and which of them its present state depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Course {
    pub(crate) fate: Fate,
    /// The last one that replaces all of the issue. Those behind it count, too.
    from_seq: u64,
    /// The last one that says by itself whether there is an issue.
    told_seq: Option<u64>,
}

impl Course {
    fn go_on(&mut self, seq: u64, change: Change) {
        match change {
            Change::Nothing if self.fate == Fate::Untouched => self.fate = Fate::AsBefore,
            Change::Nothing => {}
            Change::Closes => self.fate = Fate::Closed,
            Change::Opens => self.fate = Fate::MayBeOpen,
            Change::Replaces => (self.fate, self.from_seq) = (Fate::MayBeOpen, seq),
            Change::Adds => self.begin(seq, Fate::MayBeOpen),
            Change::AddsClosed | Change::Deletes => self.begin(seq, Fate::Closed),
        }
    }

    fn begin(&mut self, seq: u64, fate: Fate) {
        (self.fate, self.from_seq, self.told_seq) = (fate, seq, Some(seq));
    }

    /// Whether the present state of the issue also depends on what it was before the records.
    pub(crate) fn is_on_snapshot(&self) -> bool {
        self.told_seq.is_none()
    }

    fn depends_on(&self, seq: u64) -> bool {
        seq >= self.from_seq || self.told_seq == Some(seq)
    }
}

/// Some names, and what belongs to each.
pub(crate) type ByName<T> = HashMap<NameHash, T, BuildHasherDefault<AsItIs>>;

/// How much of `places` and `mentions` is in the indexes on disk.
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
            packed: Vec::new(),
            looks: 0,
            adds: 0,
            places: Vec::new(),
            mentions: Vec::new(),
            last_mention: ByName::default(),
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
        self.first_seq - 1 + self.packed_records() + self.places.len() as u64
    }

    /// How many records there are in `packed`.
    fn packed_records(&self) -> u64 {
        self.packed.iter().map(|index| index.records).sum()
    }

    /// How many issues the records create at most.
    pub(crate) fn adds(&self) -> usize {
        self.adds
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
        let record = number(self.last_seq() + 1 - self.first_seq);
        self.places.push(place);
        for (name, change) in names.iter().copied() {
            self.adds += usize::from(change.is_add());
            self.mention(name, change, record);
        }
    }

    fn mention(&mut self, name: NameHash, change: Change, record: u32) {
        let this = number(self.mentions.len() as u64);
        let before = self.last_mention.insert(name, this);
        self.mentions.push(Mention {
            name,
            change,
            record,
            before,
        });
    }

    /// Sorts by name what the indexes have.
    fn unpack(&mut self) {
        if self.packed.is_empty() {
            return;
        }
        let packed = std::mem::take(&mut self.packed);
        let records = packed.iter().map(|index| index.records).sum::<u64>();
        let slots: usize = packed.iter().map(Index::len).sum();
        let later = (
            std::mem::take(&mut self.places),
            std::mem::take(&mut self.mentions),
        );
        self.last_mention = ByName::default();
        self.last_mention.reserve(slots);
        self.places
            .reserve(number(records) as usize + later.0.len());
        self.mentions.reserve(slots + later.1.len());
        for index in &packed {
            for slot in index.slots() {
                let record = number(self.places.len() as u64);
                if slot.name != NO_NAME {
                    self.mention(slot.name, slot.change, record);
                }
                if slot.is_last {
                    self.places.push(Place::of(index, slot));
                }
            }
        }
        self.saved.records += self.places.len();
        self.saved.mentions += self.mentions.len();
        self.places.extend(later.0);
        for Mention {
            name,
            change,
            record,
            ..
        } in later.1
        {
            self.mention(name, change, record);
        }
    }

    /// The records behind `after` that may concern any of these names, in order.
    pub(crate) fn concerning(&mut self, names: &[NameHash], after: u64) -> Vec<Found> {
        self.looks += 1;
        if self.looks >= UNPACKED_FROM || names.len() > SEARCHED_NAMES {
            self.unpack();
        }
        let mut found = Vec::new();
        let mut seq = self.first_seq;
        for index in &self.packed {
            for slot in index.slots() {
                if names.contains(&slot.name) && seq > after {
                    let place = Place::of(index, slot);
                    found.push(Found { seq, place });
                }
                seq += u64::from(slot.is_last);
            }
        }
        let of_name = |name: &NameHash| {
            let records = self
                .back_from_last(*name)
                .map(|mention| self.found(mention));
            records.take_while(|found| found.seq > after)
        };
        found.extend(names.iter().flat_map(of_name));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The mentions of a name, the last one first; not those in `packed`.
    fn back_from_last(&self, name: NameHash) -> impl Iterator<Item = &Mention> {
        let mention = |at: u32| self.mentions.get(at as usize);
        let last = self.last_mention.get(&name).copied().and_then(mention);
        std::iter::successors(last, move |later| later.before.and_then(mention))
    }

    fn found(&self, mention: &Mention) -> Found {
        let record = u64::from(mention.record);
        let at = usize::try_from(record - self.packed_records()).unwrap_or(usize::MAX);
        let Some(place) = self.places.get(at).copied() else {
            unreachable!("each mention is in a record that has a place");
        };
        let seq = self.first_seq + record;
        Found { seq, place }
    }

    /// Calls `act` with every mention of a name, in their order.
    fn each_mention(&self, mut act: impl FnMut(NameHash, Change, Found)) {
        let mut seq = self.first_seq;
        for index in &self.packed {
            for slot in index.slots() {
                let place = Place::of(index, slot);
                act(slot.name, slot.change, Found { seq, place });
                seq += u64::from(slot.is_last);
            }
        }
        for mention in &self.mentions {
            act(mention.name, mention.change, self.found(mention));
        }
    }

    /// What the records did to the issues whose ids have these names.
    pub(crate) fn courses(&self, names: impl Iterator<Item = NameHash>) -> ByName<Course> {
        let mut courses: ByName<Course> = names.map(|name| (name, Course::default())).collect();
        self.each_mention(|name, change, found| {
            if let Some(course) = courses.get_mut(&name) {
                course.go_on(found.seq, change);
            }
        });
        courses
    }

    /// As [`Tail::courses`], also for each issue that may not be closed although it was or did not
    /// exist before the records.
    pub(crate) fn courses_and_opened(
        &self,
        names: impl Iterator<Item = NameHash>,
    ) -> ByName<Course> {
        let mut courses: ByName<Course> = names.map(|name| (name, Course::default())).collect();
        self.each_mention(|name, change, found| {
            // Else it stays closed or absent, and whether it is absent does not change either.
            let is_seen = !matches!(change, Change::Nothing | Change::Closes);
            if is_seen || courses.contains_key(&name) {
                courses.entry(name).or_default().go_on(found.seq, change);
            }
        });
        courses
    }

    /// The records that the present state of some issues depends on, in their order.
    pub(crate) fn decisive(&self, courses: &ByName<Course>) -> Vec<Found> {
        let mut records = Vec::new();
        self.each_mention(|name, _, found| {
            let course = courses.get(&name);
            if course.is_some_and(|course| course.depends_on(found.seq))
                && records.last() != Some(&found)
            {
                records.push(found);
            }
        });
        records
    }

    /// Calls `act` with the events of each of these records, which are in order.
    pub(crate) fn each_of(
        &mut self,
        records: &[Found],
        mut act: impl FnMut(Seq, Vec<IssueEvent>),
    ) -> Result<()> {
        let (mut lines, mut scratch) = (Lines::default(), Vec::new());
        for Found { seq, place } in records.iter().copied() {
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
            let (segment, wanted) = (self.last_seq() + 1, through - self.last_seq());
            let Some(index) = index::read(&self.dir, &self.store, segment, wanted) else {
                break;
            };
            self.saved.end = Some((segment, index.end));
            let Some(last) = index.last else {
                break; // It covers no record yet.
            };
            let last = Place::of(&index, last);
            self.adds += index.adds;
            self.packed.push(index);
            let mut lines = Lines::default();
            let found = self.look(last, self.last_seq(), &mut lines, |_| ());
            if !matches!(found, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// Goes on behind the last record that an index covers. False if that is somewhere else.
    fn move_behind_indexes(&mut self, end: End) -> Result<bool> {
        let last = self.packed.last();
        let Some(last) = last.and_then(|index| Some(Place::of(index, index.last?))) else {
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
            let record = number(self.packed_records() + self.saved.records as u64);
            let of_record = self.mentions.get(self.saved.mentions..).unwrap_or_default();
            let of_record = of_record.iter().take_while(|one| one.record == record);
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

impl Place {
    /// That of the record of a slot.
    fn of(index: &Index, slot: Slot) -> Self {
        Self {
            segment: index.segment,
            offset: slot.offset,
            crc: slot.crc,
        }
    }
}

fn number(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The slot of a record that mentions no name.
const NO_NAME: NameHash = NameHash(0);

/// Uses a number that is a hash already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

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
