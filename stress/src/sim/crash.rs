//! The states that a power loss may leave of a [`VirtualDisk`]: all where there are few, and a
//! choice of them otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};
use serde::Serialize;

use crate::sim::disk::{DirInode, Edit, FileInode, Inode, InodeId, VirtualDisk, put};

/// Disks write this much as a whole, as far as they write anything as a whole.
const SECTOR_BYTES: usize = 512;
/// Where there are too many changes for all subsets: how many are left out, kept alone, and so on.
const SAMPLES_MAX: usize = 64;
/// How many of the last writes to each file are torn.
const RECENT: usize = 64;
/// The most changes of which all subsets are tried.
const SUBSETS_OF_MAX: usize = 12;
/// How many in a hundred of the drawn writes are torn.
const TORN_PERCENT: u32 = 35;
/// How many in a hundred of the drawn writes leave the file's new length, whatever their data.
const LENGTH_PERCENT: u32 = 45;
/// A disk that reorders nothing loses at most this many of the last changes.
const TAIL_MAX: u64 = 24;

/// The part of a change that survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    All,
    /// The first bytes of a write.
    Prefix(usize),
    /// The bytes of a write from this one on.
    Suffix(usize),
    /// Of a write, the sectors whose bit is set; and of the sector with the byte `cut`, only the
    /// bytes before it.
    Sectors {
        mask: u64,
        cut: usize,
    },
}

/// The surviving part of a change, and the content in place of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Survival {
    part: Part,
    /// Of a write that lengthened the file: whether its whole length survived all the same.
    length: bool,
    /// Content where the length survived and the data did not.
    stale: Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stale {
    Zeros,
    /// The beginning of the longest file on the disk.
    OldBytes,
    /// Bytes of the same file, from this place on.
    OwnBytes(usize),
    Noise(u64),
}

impl Survival {
    const NOTHING: Self = Self::of(Part::Nothing);
    const ALL: Self = Self::of(Part::All);

    const fn of(part: Part) -> Self {
        Self {
            part,
            length: false,
            stale: Stale::Zeros,
        }
    }

    const fn whole(survives: bool) -> Self {
        if survives { Self::ALL } else { Self::NOTHING }
    }
}

/// A change that may or may not survive.
#[derive(Debug, Clone, Copy)]
enum Optional {
    Name(usize),
    /// The inode, and which of its changes.
    File(InodeId, usize),
}

/// The changes that are not durable.
#[derive(Debug)]
struct Pending {
    changes: Vec<Optional>,
    /// Where the changes of a file begin.
    firsts: BTreeMap<InodeId, usize>,
}

/// The losses of a power loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Changes that were not synced at the power loss.
    pub unsynced: u64,
    /// Writes of which nothing is left.
    pub writes: u64,
    /// Writes of which a part is left.
    pub torn: u64,
    /// Lengths that survived without their bytes.
    pub lengths_without_bytes: u64,
    /// Other changes of a length.
    pub lengths: u64,
    /// New names.
    pub names: u64,
    /// Renames.
    pub renames: u64,
    /// Removals: the name is back.
    pub removals: u64,
}

impl Losses {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("unsynced changes", self.unsynced),
            ("writes lost", self.writes),
            ("writes torn", self.torn),
            ("lengths without bytes", self.lengths_without_bytes),
            ("lengths lost", self.lengths),
            ("names lost", self.names),
            ("renames lost", self.renames),
            ("removals undone", self.removals),
        ]
    }
}

/// The states that a power loss may leave, as an iterator.
///
/// First all subsets of the changes (where there are few, otherwise a choice of them), then torn
/// ones. The seed decides the order.
#[derive(Debug)]
pub struct CrashStates<'a> {
    disk: &'a VirtualDisk,
    pending: Pending,
    plans: std::vec::IntoIter<Plan>,
    rng: StdRng,
    /// How many more are drawn after the plans.
    drawn: usize,
}

#[derive(Debug, Clone)]
enum Plan {
    Subset(u64),
    AllBut(usize),
    Only(usize),
    First(usize),
    Last(usize),
    Random,
    /// One change survives in this way, and the others as the last field says.
    Torn(usize, Survival, Others),
}

#[derive(Debug, Clone, Copy)]
enum Others {
    Nothing,
    All,
    /// Those before it, and none after it.
    Before,
}

/// The changes that one drawn power loss keeps, of those that were not synced.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Everything,
    Nothing,
    /// The changes through this one, as on a disk that reorders nothing.
    Through(u64),
    /// Each change with this probability, in percent.
    Each(u32),
}

impl VirtualDisk {
    fn pending_changes(&self) -> Pending {
        let names = 0..self.name_changes.len();
        let mut changes: Vec<Optional> = names.map(Optional::Name).collect();
        let mut firsts = BTreeMap::new();
        for (id, inode) in &self.inodes {
            if let Inode::File(file) = inode.as_ref() {
                firsts.insert(*id, changes.len());
                changes.extend((0..file.changes.len()).map(|index| Optional::File(*id, index)));
            }
        }
        Pending { changes, firsts }
    }

    /// The states that a power loss now may leave, as disks on which everything is durable and
    /// nothing open.
    ///
    /// All subsets of the pending changes where there are 12 at most, else a choice of them; then
    /// torn changes. `torn_max` of those are chosen by the seed where there are more. Where there
    /// are less, and anything can be torn, the rest is drawn. The same state may come more than
    /// once.
    #[must_use]
    pub fn crash_disks(&self, seed: u64, torn_max: usize) -> CrashStates<'_> {
        let mut rng = StdRng::seed_from_u64(seed);
        let pending = self.pending_changes();
        let mut tears: Vec<Plan> = Vec::new();
        for (place, change) in pending.changes.iter().enumerate() {
            let Optional::File(id, index) = change else {
                continue;
            };
            let Ok(file) = self.file(*id) else { continue };
            let is_recent = index + RECENT >= file.changes.len();
            if let (Some(Edit::Write { offset, bytes }), true) = (file.edit(*index), is_recent) {
                let lengthens = offset + bytes.len() > file.base.len();
                for way in ways_to_tear(*offset, bytes.len(), lengthens) {
                    for others in [Others::Nothing, Others::All, Others::Before] {
                        tears.push(Plan::Torn(place, way, others));
                    }
                }
            }
        }
        let count = pending.changes.len();
        let mut plans: Vec<Plan> = Vec::new();
        if count <= SUBSETS_OF_MAX {
            plans.extend((0..1 << count).map(Plan::Subset));
        } else {
            plans.extend([Plan::First(0), Plan::First(count)]);
            for index in (0..count).step_by(count.div_ceil(SAMPLES_MAX)) {
                plans.extend([Plan::AllBut(index), Plan::Only(index)]);
                plans.extend([Plan::First(index), Plan::Last(index)]);
            }
            plans.extend(std::iter::repeat_n(Plan::Random, 256));
        }
        let drawn = if tears.is_empty() {
            0
        } else {
            torn_max.saturating_sub(tears.len())
        };
        for index in 0..torn_max.min(tears.len()) {
            let other = rng.random_range(index..tears.len());
            tears.swap(index, other);
        }
        tears.truncate(torn_max);
        plans.append(&mut tears);
        CrashStates {
            disk: self,
            pending,
            plans: plans.into_iter(),
            rng,
            drawn,
        }
    }

    /// One state that a power loss now may leave, and what it lost: a function of the disk and of
    /// the random numbers alone.
    pub fn crash(&self, rng: &mut impl Rng) -> (Self, Losses) {
        self.crash_with(rng, |_, survival| survival)
    }

    /// The same for programs that rely on what usual filesystems and disks do beyond the
    /// assumptions above: names survive, since each sync commits the journal, and of a write, whole
    /// sectors up to one of them, and nothing else in their place.
    pub fn crash_in_sectors(&self, rng: &mut impl Rng) -> (Self, Losses) {
        self.crash_with(rng, |edit, survival| match (edit, survival.part) {
            (None, _) => Survival::ALL,
            (_, Part::Nothing | Part::All) => Survival::of(survival.part),
            (Some(Edit::Write { offset, .. }), Part::Prefix(len) | Part::Suffix(len)) => {
                let end = (offset + len) / SECTOR_BYTES * SECTOR_BYTES;
                Survival::of(Part::Prefix(end.saturating_sub(*offset)))
            }
            (_, _) => Survival::NOTHING,
        })
    }

    fn crash_with(
        &self,
        rng: &mut impl Rng,
        adapt: impl Fn(Option<&Edit>, Survival) -> Survival,
    ) -> (Self, Losses) {
        let kept = match rng.random_range(0..10) {
            0 => Kept::Everything,
            1 => Kept::Nothing,
            // The last changes are those that are not synced.
            2 | 3 => Kept::Through(self.changes.saturating_sub(rng.random_range(0..TAIL_MAX))),
            4 | 5 => Kept::Each(10),
            6 | 7 => Kept::Each(50),
            _ => Kept::Each(90),
        };
        let pending = self.pending_changes();
        let mut losses = Losses::default();
        let mut choice = Vec::with_capacity(pending.changes.len());
        for change in &pending.changes {
            let at = self.at(*change);
            let survival = match kept {
                Kept::Everything => Survival::ALL,
                Kept::Nothing => Survival::NOTHING,
                Kept::Through(last) if at == last + 1 => self.draw(rng, *change, 0, 100),
                Kept::Through(last) => Survival::whole(at <= last),
                Kept::Each(percent) => self.draw(rng, *change, percent, TORN_PERCENT),
            };
            let edit = self.edit_of(*change).map(|(_, edit)| edit);
            let survival = adapt(edit, survival);
            self.count(*change, survival, &mut losses);
            choice.push(survival);
        }
        (self.crashed(&pending, &choice), losses)
    }

    fn edit_of(&self, change: Optional) -> Option<(&FileInode, &Edit)> {
        let Optional::File(id, index) = change else {
            return None;
        };
        let file = self.file(id).ok()?;
        Some((file, file.edit(index)?))
    }

    /// The number of a change among all of the disk.
    fn at(&self, change: Optional) -> u64 {
        let at = match change {
            Optional::Name(index) => self.name_changes.get(index).map(|change| change.at),
            Optional::File(id, index) => {
                let file = self.file(id).ok();
                file.and_then(|file| file.changes.get(index))
                    .map(|change| change.at)
            }
        };
        at.unwrap_or(0)
    }

    /// Any way in which a change may survive: whole with one probability, torn with another.
    fn draw(
        &self,
        rng: &mut impl Rng,
        change: Optional,
        percent: u32,
        torn_percent: u32,
    ) -> Survival {
        let whole = rng.random_ratio(percent, 100);
        let Some((file, Edit::Write { bytes, .. })) = self.edit_of(change) else {
            return Survival::whole(whole);
        };
        let len = bytes.len();
        let part = if rng.random_ratio(torn_percent, 100) {
            match rng.random_range(0..4) {
                0 => Part::Prefix(rng.random_range(0..=len)),
                1 => Part::Suffix(rng.random_range(0..=len)),
                _ => Part::Sectors {
                    // In some writes a few sectors survive, in others most of them.
                    mask: match rng.random_range(0..3) {
                        0 => rng.random::<u64>() & rng.random::<u64>(),
                        1 => rng.random(),
                        _ => rng.random::<u64>() | rng.random::<u64>(),
                    },
                    cut: rng.random_range(0..len.max(1)),
                },
            }
        } else if whole {
            Part::All
        } else {
            Part::Nothing
        };
        let stale = match rng.random_range(0..8) {
            0 => Stale::OldBytes,
            1 => Stale::OwnBytes(rng.random_range(0..file.base.len().max(1))),
            2 | 3 => Stale::Noise(rng.random()),
            _ => Stale::Zeros,
        };
        Survival {
            part,
            length: rng.random_ratio(LENGTH_PERCENT, 100),
            stale,
        }
    }

    fn count(&self, change: Optional, survival: Survival, losses: &mut Losses) {
        losses.unsynced += 1;
        let is_lost = survival.part == Part::Nothing;
        match (change, self.edit_of(change)) {
            (_, Some((file, Edit::Write { offset, bytes }))) => {
                losses.writes += u64::from(is_lost);
                losses.torn += u64::from(!is_lost && survival.part != Part::All);
                let lengthens = offset + bytes.len() > file.base.len();
                let has_length = survival.part != Part::All && survival.length;
                losses.lengths_without_bytes += u64::from(has_length && lengthens);
            }
            (_, Some((_, Edit::SetLen(_)))) => losses.lengths += u64::from(is_lost),
            (Optional::Name(index), None) if is_lost => {
                let change = self.name_changes.get(index);
                match change.map(|change| (&change.taken, &change.given)) {
                    Some((None, _)) => losses.names += 1,
                    Some((_, None)) => losses.removals += 1,
                    Some(_) => losses.renames += 1,
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// The disk after a power loss that each change survives as `choice` says.
    fn crashed(&self, pending: &Pending, choice: &[Survival]) -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            name_changes: Vec::new(),
            next_inode: self.next_inode,
            changes: 0,
        };
        let mut names: BTreeMap<InodeId, BTreeMap<Arc<str>, InodeId>> = BTreeMap::new();
        for (change, survival) in self.name_changes.iter().zip(choice) {
            if survival.part == Part::Nothing {
                continue;
            }
            change.each(|dir, name, inode| {
                if let Ok(DirInode { base, .. }) = self.dir(dir) {
                    let names = names.entry(dir).or_insert_with(|| base.clone());
                    put(names, name, inode);
                }
            });
        }
        let survivals = |id| {
            let first = pending.firsts.get(&id).copied();
            first
                .and_then(|first| choice.get(first..))
                .unwrap_or_default()
        };
        self.revive(InodeId::ROOT, &mut names, &survivals, &mut disk);
        disk
    }

    fn revive<'a>(
        &self,
        id: InodeId,
        names: &mut BTreeMap<InodeId, BTreeMap<Arc<str>, InodeId>>,
        survivals: &impl Fn(InodeId) -> &'a [Survival],
        to: &mut Self,
    ) {
        let Some(inode) = self.inodes.get(&id) else {
            return;
        };
        match inode.as_ref() {
            Inode::File(file) if file.changes.is_empty() && file.opens == 0 => {
                to.inodes.insert(id, Arc::clone(inode));
            }
            Inode::File(file) => {
                let content = self.remainder(file, survivals(id));
                let file = FileInode {
                    bytes: Arc::clone(&content),
                    base: content,
                    ..FileInode::default()
                };
                to.inodes.insert(id, Arc::new(Inode::File(file)));
            }
            Inode::Dir(dir) => {
                let base = names.remove(&id).unwrap_or_else(|| dir.base.clone());
                for inode in base.values() {
                    self.revive(*inode, names, survivals, to);
                }
                let dir = DirInode {
                    names: base.clone(),
                    base,
                    ..DirInode::default()
                };
                to.inodes.insert(id, Arc::new(Inode::Dir(dir)));
            }
        }
    }

    /// The content of a file of whose changes this survives.
    fn remainder(&self, file: &FileInode, survivals: &[Survival]) -> Arc<Vec<u8>> {
        let mut content: Option<Vec<u8>> = None;
        for (change, survival) in file.changes.iter().zip(survivals) {
            if *survival == Survival::NOTHING {
                continue;
            }
            let content = content.get_or_insert_with(|| file.base.to_vec());
            match &change.edit {
                edit if *survival == Survival::ALL => edit.apply(content),
                edit @ Edit::SetLen(_) if survival.part == Part::All => edit.apply(content),
                Edit::SetLen(_) => {}
                Edit::Write { offset, bytes } => {
                    self.apply_part(file, *offset, bytes, *survival, content);
                }
            }
        }
        content.map_or_else(|| Arc::clone(&file.base), Into::into)
    }

    /// Applies what survives of a torn write.
    fn apply_part(
        &self,
        file: &FileInode,
        offset: usize,
        bytes: &[u8],
        survival: Survival,
        content: &mut Vec<u8>,
    ) {
        let len = bytes.len();
        let one = |range| std::iter::once(range).collect();
        let mut kept: Vec<Range<usize>> = match survival.part {
            Part::Nothing => Vec::new(),
            Part::All => one(0..len),
            Part::Prefix(end) => one(0..end.min(len)),
            Part::Suffix(start) => one(start.min(len)..len),
            Part::Sectors { mask, cut } => sectors(offset, len)
                .enumerate()
                .filter_map(|(number, range)| {
                    if range.contains(&cut) {
                        return Some(range.start..cut);
                    }
                    (mask >> (number % 64) & 1 == 1).then_some(range)
                })
                .collect(),
        };
        kept.retain(|range| !range.is_empty());
        let data_end = kept.last().map_or(0, |range| offset + range.end);
        let end = if survival.length {
            offset + len
        } else {
            data_end
        };
        let old_len = content.len();
        if old_len < end {
            content.resize(end, 0);
            if let Some(new) = content.get_mut(old_len..) {
                self.fill(file, survival.stale, new);
            }
        }
        for range in kept {
            let (from, to) = (range.clone(), range.start + offset..range.end + offset);
            if let (Some(to), Some(from)) = (content.get_mut(to), bytes.get(from)) {
                to.copy_from_slice(from);
            }
        }
    }

    fn fill(&self, file: &FileInode, stale: Stale, new: &mut [u8]) {
        let (old, from) = match stale {
            Stale::Zeros => return,
            Stale::Noise(seed) => return StdRng::seed_from_u64(seed).fill(new),
            Stale::OwnBytes(from) => (&file.base, from),
            Stale::OldBytes => {
                let files = self.inodes.values().filter_map(|inode| match &**inode {
                    Inode::File(file) => Some(&file.base),
                    Inode::Dir(_) => None,
                });
                let longest = files.max_by_key(|base| base.len());
                // No line begins where one of an existing file does: its blocks are not free.
                (longest.unwrap_or(&file.base), 1)
            }
        };
        for (to, from) in new.iter_mut().zip(old.iter().cycle().skip(from)) {
            *to = *from;
        }
    }
}

impl FileInode {
    fn edit(&self, index: usize) -> Option<&Edit> {
        self.changes.get(index).map(|change| &change.edit)
    }
}

/// A write's bytes by the sectors of the file that they are in.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let first = offset / SECTOR_BYTES;
    let last = (offset + len).div_ceil(SECTOR_BYTES);
    (first..last).map(move |sector| {
        let start = (sector * SECTOR_BYTES).max(offset) - offset;
        let end = ((sector + 1) * SECTOR_BYTES).min(offset + len) - offset;
        start..end
    })
}

/// The ways in which a write is torn: at the borders of sectors, a byte before and after them, and
/// a byte from its ends.
fn ways_to_tear(offset: usize, len: usize, lengthens: bool) -> Vec<Survival> {
    let mut places = BTreeSet::from([1, len.saturating_sub(1)]);
    for sector in sectors(offset, len) {
        places.extend([
            sector.start.saturating_sub(1),
            sector.start,
            sector.start + 1,
        ]);
    }
    places.retain(|place| (1..len).contains(place));
    let mut parts: Vec<Part> = Vec::new();
    for place in places {
        parts.extend([Part::Prefix(place), Part::Suffix(place)]);
    }
    let mut ways: Vec<Survival> = parts.iter().copied().map(Survival::of).collect();
    if lengthens {
        for stale in [Stale::Zeros, Stale::OldBytes, Stale::Noise(len as u64)] {
            for part in parts.iter().chain([&Part::Nothing]).copied() {
                ways.push(Survival {
                    part,
                    length: true,
                    stale,
                });
            }
        }
    }
    ways
}

impl CrashStates<'_> {
    fn carry_out(&mut self, plan: &Plan) -> VirtualDisk {
        let count = self.pending.changes.len();
        let mut choice = Vec::with_capacity(count);
        for index in 0..count {
            let survives = match plan {
                Plan::Subset(mask) => mask >> index & 1 == 1,
                Plan::AllBut(one) => index != *one,
                Plan::Only(one) => index == *one,
                Plan::First(end) => index < *end,
                Plan::Last(start) => index >= *start,
                Plan::Random => self.rng.random(),
                Plan::Torn(one, way, _) if *one == index => {
                    choice.push(*way);
                    continue;
                }
                Plan::Torn(_, _, Others::Nothing) => false,
                Plan::Torn(_, _, Others::All) => true,
                Plan::Torn(one, _, Others::Before) => index < *one,
            };
            choice.push(Survival::whole(survives));
        }
        self.disk.crashed(&self.pending, &choice)
    }
}

impl Iterator for CrashStates<'_> {
    type Item = VirtualDisk;

    fn next(&mut self) -> Option<VirtualDisk> {
        if let Some(plan) = self.plans.next() {
            return Some(self.carry_out(&plan));
        }
        self.drawn = self.drawn.checked_sub(1)?;
        // Each change survives in any way.
        let Self {
            disk, pending, rng, ..
        } = self;
        let changes = pending.changes.iter();
        let choice: Vec<Survival> = changes
            .map(|change| disk.draw(rng, *change, 50, TORN_PERCENT))
            .collect();
        Some(disk.crashed(pending, &choice))
    }
}

#[cfg(test)]
mod tests {
    use strand_core::testing::OpenMode;

    use super::*;
    use crate::sim::disk::tests::{disk_with, path};
    use crate::sim::image::Image;

    fn all(disk: &VirtualDisk) -> Vec<Image> {
        let mut images: Vec<Image> = disk
            .crash_disks(1, 2_000)
            .map(|disk| disk.image())
            .collect();
        images.sort_by_key(Image::digest);
        images.dedup();
        images
    }

    fn contents(disk: &VirtualDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let images = all(disk);
        let files = images.iter().map(|image| image.files.get(name));
        files.map(|file| file.map(|bytes| bytes.to_vec())).collect()
    }

    fn some(texts: &[&str]) -> BTreeSet<Option<Vec<u8>>> {
        let texts = texts.iter();
        texts.map(|text| Some(text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_is_synced_is_all_that_a_loss_of_power_leaves() {
        let (disk, _) = disk_with(b"abc");
        assert_eq!(all(&disk), [disk.image()]);
        assert_eq!(contents(&disk, "s/f"), some(&["abc"]));
    }

    #[test]
    fn a_program_that_relies_on_sectors_gets_them_whole() {
        let (mut disk, file) = disk_with(&[1; 4 * SECTOR_BYTES]);
        disk.sync_all();
        disk.write_at(file, &[2; 2 * SECTOR_BYTES], SECTOR_BYTES as u64)
            .unwrap();
        let mut torn = 0;
        for seed in 0..500 {
            let (left, losses) = disk.crash_in_sectors(&mut StdRng::seed_from_u64(seed));
            let content = left.content(path("s/f")).unwrap().to_vec();
            let sectors = content.chunks(SECTOR_BYTES);
            let sectors: Vec<u8> = sectors
                .map(|sector| {
                    assert!(sector.iter().all(|byte| *byte == sector[0]));
                    sector[0]
                })
                .collect();
            let expected = [[1, 1, 1, 1], [1, 2, 1, 1], [1, 2, 2, 1]];
            assert!(
                expected.iter().any(|state| *state == sectors[..]),
                "{sectors:?}"
            );
            torn += losses.torn;
        }
        assert!(torn > 10, "{torn}");
    }

    #[test]
    fn writes_over_durable_bytes_survive_in_any_part() {
        let (mut disk, file) = disk_with(b"abcdef");
        disk.write_at(file, b"12", 0).unwrap();
        disk.write_at(file, b"3", 1).unwrap();
        let found = contents(&disk, "s/f");
        for text in ["abcdef", "12cdef", "13cdef", "a3cdef", "1bcdef", "a2cdef"] {
            assert!(found.is_superset(&some(&[text])), "{text}");
        }
        assert!(
            found
                .iter()
                .flatten()
                .all(|bytes| bytes.ends_with(b"cdef") && bytes.len() == 6)
        );
        disk.sync_data(file).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["13cdef"]));
    }

    #[test]
    fn a_write_that_lengthens_may_leave_the_length_without_the_data_or_the_data_cut() {
        let (mut disk, file) = disk_with(b"ab");
        disk.write_at(file, b"1234", 2).unwrap();
        let found = contents(&disk, "s/f");
        let expected = [
            "ab",
            "ab1234",
            "ab1",
            "ab123",
            "ab\0\0\0\0",
            "ab1\0\0\0",
            "ab\x00234",
            "abbaba",
            "ab1aba",
        ];
        for text in expected {
            assert!(found.is_superset(&some(&[text])), "{text:?}");
        }
    }

    #[test]
    fn tears_are_at_the_borders_of_sectors_and_beside_them() {
        let (mut disk, file) = disk_with(&[b'o'; 2048]);
        disk.write_at(file, &[b'n'; 700], 500).unwrap();
        let found = contents(&disk, "s/f");
        let prefix = |len: usize| {
            let mut bytes = vec![b'o'; 2048];
            bytes[500..500 + len].fill(b'n');
            Some(bytes)
        };
        for len in [0, 1, 11, 12, 13, 523, 524, 525, 699, 700] {
            assert!(found.contains(&prefix(len)), "{len}");
        }
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable_then_or_later_unless_it_is_written_again() {
        let (mut disk, file) = disk_with(b"abcdef");
        disk.write_at(file, b"12", 0).unwrap();
        disk.fail_sync(file).unwrap();
        disk.write_at(file, b"9", 5).unwrap();
        disk.sync_data(file).unwrap();
        let found = contents(&disk, "s/f");
        assert!(found.is_superset(&some(&["abcde9", "12cde9"])));
        assert!(found.iter().flatten().all(|bytes| bytes.ends_with(b"cde9")));
        let mut seen = [0; 6];
        disk.read_at(file, &mut seen, 0).unwrap();
        assert_eq!(&seen, b"12cde9");

        disk.write_at(file, b"2", 1).unwrap();
        disk.sync_data(file).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["a2cde9", "12cde9"]));
        disk.write_at(file, b"12", 0).unwrap();
        disk.sync_data(file).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["12cde9"]));
        assert_eq!(disk.pending(), 0);
    }

    #[test]
    fn a_cut_after_a_failed_sync_becomes_durable_with_the_next_one() {
        let (mut disk, file) = disk_with(b"abc");
        disk.write_at(file, b"1234", 3).unwrap();
        disk.fail_sync(file).unwrap();
        disk.set_len(file, 3).unwrap();
        assert!(contents(&disk, "s/f").is_superset(&some(&["abc", "abc1234"])));
        disk.sync_data(file).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["abc"]));
    }

    #[test]
    fn a_length_may_survive_or_not() {
        let (mut disk, file) = disk_with(b"abcdef");
        disk.set_len(file, 2).unwrap();
        disk.write_at(file, b"Z", 2).unwrap();
        let expected = some(&["abcdef", "ab", "abZdef", "abZ"]);
        assert!(contents(&disk, "s/f").is_superset(&expected));
        disk.set_len(file, 5).unwrap();
        disk.sync_data(file).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["abZ\0\0"]));
    }

    #[test]
    fn a_new_file_has_its_name_after_a_sync_of_the_directory_and_its_bytes_after_its_own() {
        let (mut disk, _) = disk_with(b"abc");
        let new = disk.open(path("/s/new"), OpenMode::CreateNew).unwrap();
        disk.write_at(new, b"xyz", 0).unwrap();
        disk.sync_data(new).unwrap();
        let mut expected = some(&["xyz"]);
        expected.insert(None);
        assert_eq!(contents(&disk, "s/new"), expected);
        disk.write_at(new, b"!", 3).unwrap();
        disk.sync_dir(path("/s")).unwrap();
        let found = contents(&disk, "s/new");
        assert!(found.is_superset(&some(&["xyz", "xyz!"])) && !found.contains(&None));
    }

    #[test]
    fn a_rename_is_there_or_not_and_never_half() {
        let (mut disk, _) = disk_with(b"old");
        let new = disk.open(path("/s/f.new"), OpenMode::CreateNew).unwrap();
        disk.write_at(new, b"new", 0).unwrap();
        disk.sync_data(new).unwrap();
        disk.sync_dir(path("/s")).unwrap();
        disk.rename(path("/s/f.new"), path("/s/f")).unwrap();
        let states: BTreeSet<_> = all(&disk)
            .into_iter()
            .map(|image| {
                let text = |name: &str| image.files.get(name).map(|bytes| bytes.to_vec());
                (text("s/f"), text("s/f.new"))
            })
            .collect();
        let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
        assert_eq!(states, BTreeSet::from([(old, new.clone()), (new, None)]));
        disk.sync_dir(path("/s")).unwrap();
        assert_eq!(contents(&disk, "s/f"), some(&["new"]));
        assert_eq!(contents(&disk, "s/f.new"), BTreeSet::from([None]));
    }

    #[test]
    fn names_are_reordered_unless_a_sync_of_the_directory_is_between() {
        let (mut disk, _) = disk_with(b"abc");
        disk.open(path("/s/a"), OpenMode::CreateNew).unwrap();
        disk.remove(path("/s/f")).unwrap();
        let states: BTreeSet<_> = all(&disk)
            .iter()
            .map(|image| ["s/a", "s/f"].map(|name| image.files.contains_key(name)))
            .collect();
        let both = [false, true];
        let expected = both.into_iter().flat_map(|a| both.map(|f| [a, f]));
        assert_eq!(states, expected.collect());
    }

    #[test]
    fn a_directory_and_what_is_in_it_need_a_sync_each() {
        let (mut disk, _) = disk_with(b"abc");
        disk.create_dir(path("/s/q/r")).unwrap();
        let file = disk.open(path("/s/q/r/x"), OpenMode::CreateNew).unwrap();
        disk.write_at(file, b"x", 0).unwrap();
        disk.sync_data(file).unwrap();
        disk.sync_dir(path("/s/q/r")).unwrap();
        assert_eq!(
            contents(&disk, "s/q/r/x"),
            BTreeSet::from([None, Some(b"x".to_vec())])
        );
        disk.sync_dir(path("/s/q")).unwrap();
        disk.sync_dir(path("/s")).unwrap();
        assert_eq!(contents(&disk, "s/q/r/x"), some(&["x"]));
        assert!(disk.image().dirs.contains("s/q/r"));
    }

    #[test]
    fn many_changes_are_sampled_and_the_extremes_are_among_the_samples() {
        let (mut disk, file) = disk_with(&[b'.'; 40]);
        for at in 0..20 {
            disk.write_at(file, b"x", at).unwrap();
        }
        let found = contents(&disk, "s/f");
        let like = |kept: &dyn Fn(usize) -> bool| {
            let byte = |at| if at < 20 && kept(at) { b'x' } else { b'.' };
            Some((0..40).map(byte).collect::<Vec<u8>>())
        };
        assert!(found.contains(&like(&|_| true)) && found.contains(&like(&|_| false)));
        for one in 0..20 {
            assert!(found.contains(&like(&|at| at != one)));
            assert!(found.contains(&like(&|at| at == one)));
            assert!(
                found.contains(&like(&|at| at < one)) && found.contains(&like(&|at| at >= one))
            );
        }
    }

    #[test]
    fn the_seed_decides_all() {
        let (mut disk, file) = disk_with(b"abc");
        disk.write_at(file, &[b'x'; 3000], 3).unwrap();
        let digests = |seed| -> Vec<u128> {
            let states = disk.crash_disks(seed, 300);
            states.map(|disk| disk.digest()).collect()
        };
        assert_eq!(digests(1), digests(1));
        assert_ne!(digests(1), digests(2));
        let image = |seed| disk.crash(&mut StdRng::seed_from_u64(seed)).0.image();
        assert_eq!(image(3), image(3));
        let drawn: BTreeSet<u128> = (0..50).map(|seed| image(seed).digest()).collect();
        assert!(drawn.len() > 10);
    }

    const ROOT: InodeId = InodeId::ROOT;
    /// How often each state is cut: what can happen, happens in one of them.
    const CUTS: u64 = 600;

    /// The disks that many power losses leave of one state.
    fn cuts(disk: &VirtualDisk) -> impl Iterator<Item = VirtualDisk> {
        (0..CUTS).map(|seed| disk.crash(&mut StdRng::seed_from_u64(seed)).0)
    }

    fn disk_of(files: &[(&str, &[u8])]) -> (VirtualDisk, Vec<InodeId>) {
        let mut disk = VirtualDisk::new();
        let mut inodes = Vec::new();
        for (name, bytes) in files {
            let id = disk.create_in(ROOT, name).unwrap();
            disk.write_at(id, bytes, 0).unwrap();
            disk.sync_data(id).unwrap();
            inodes.push(id);
        }
        disk.sync_dir_inode(ROOT).unwrap();
        (disk, inodes)
    }

    fn content(disk: &VirtualDisk, name: &str) -> Option<Vec<u8>> {
        disk.content(path(name)).ok().map(<[u8]>::to_vec)
    }

    /// The different contents of a file that many power losses leave.
    fn drawn(disk: &VirtualDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        cuts(disk).map(|left| content(&left, name)).collect()
    }

    fn names(disk: &VirtualDisk) -> String {
        let image = disk.image();
        let names: Vec<&str> = image.files.keys().map(|path| &**path).collect();
        names.join(" ")
    }

    fn all_names(disk: &VirtualDisk) -> BTreeSet<String> {
        cuts(disk).map(|left| names(&left)).collect()
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_synced_is_there_after_every_drawn_cut() {
        let (disk, _) = disk_of(&[("a", b"one"), ("b", &[7; 5_000])]);
        for left in cuts(&disk) {
            assert_eq!(content(&left, "a").unwrap(), b"one");
            assert_eq!(content(&left, "b").unwrap(), [7; 5_000]);
            assert_eq!(names(&left), "a b");
        }
    }

    #[test]
    fn a_write_that_was_not_synced_is_kept_lost_or_torn() {
        let (mut disk, ids) = disk_of(&[("a", &[b'.'; 3_000])]);
        disk.write_at(ids[0], &[b'x'; 2_000], 100).unwrap();
        assert_eq!(disk.content(path("a")).unwrap()[99..102], *b".xx");
        let (mut kept, mut lost, mut torn, mut odd) = (0, 0, 0, 0);
        for content in drawn(&disk, "a").into_iter().map(Option::unwrap) {
            assert_eq!(content.len(), 3_000);
            let (before, rest) = content.split_at(100);
            let (written, after) = rest.split_at(2_000);
            assert!(before.iter().chain(after).all(|byte| *byte == b'.'));
            let count = |of: u8| -> usize {
                let same = |byte: &u8| usize::from(*byte == of);
                written.iter().map(same).sum()
            };
            let there = count(b'x');
            assert_eq!(there + count(b'.'), 2_000);
            match there {
                0 => lost += 1,
                2_000 => kept += 1,
                _ => torn += 1,
            }
            let borders = (1..2_000).filter(|at| written[at - 1] != written[*at]);
            odd += borders.filter(|at| (at + 100) % SECTOR_BYTES != 0).count();
        }
        assert!(
            kept > 0 && lost > 0 && torn > 20 && odd > 20,
            "{kept} {lost} {torn} {odd}"
        );
        disk.sync_data(ids[0]).unwrap();
        assert_eq!(drawn(&disk, "a").len(), 1);
    }

    #[test]
    fn writes_are_lost_each_by_itself() {
        let (mut disk, ids) = disk_of(&[("a", b"....")]);
        for (at, byte) in (0..).zip(b"wxyz") {
            disk.write_at(ids[0], &[*byte], at).unwrap();
        }
        let found = drawn(&disk, "a");
        // Every part of four writes.
        assert_eq!(found.len(), 16, "{found:?}");
    }

    #[test]
    fn a_file_can_be_longer_without_the_bytes_and_a_cut_can_be_undone() {
        let (mut longer, ids) = disk_of(&[("a", b"0123456789")]);
        longer.write_at(ids[0], &[b'x'; 100], 10).unwrap();
        let (mut as_before, mut zeros, mut noise, mut older) = (0, 0, 0, 0);
        for content in drawn(&longer, "a").into_iter().map(Option::unwrap) {
            assert!(content.starts_with(b"0123456789") && content.len() <= 110);
            let added = &content[10..];
            if added.is_empty() {
                as_before += 1;
            } else if added.iter().all(|byte| *byte == 0) {
                zeros += 1;
            } else if added.iter().all(u8::is_ascii_digit) {
                older += 1;
            } else if added.iter().any(|byte| !b"x\0".contains(byte)) {
                noise += 1;
            }
        }
        assert!(
            as_before > 0 && zeros > 0 && noise > 0 && older > 0,
            "{as_before} {zeros} {noise} {older}"
        );

        let (mut shorter, ids) = disk_of(&[("a", b"0123456789")]);
        shorter.set_len(ids[0], 4).unwrap();
        assert_eq!(drawn(&shorter, "a"), some(&["0123", "0123456789"]));
        shorter.sync_data(ids[0]).unwrap();
        assert_eq!(drawn(&shorter, "a"), some(&["0123"]));
    }

    #[test]
    fn the_names_of_a_directory_are_lost_each_by_itself() {
        let (mut disk, _) = disk_of(&[("old", b"1"), ("new", b"2")]);
        disk.rename_in((ROOT, "new"), (ROOT, "old")).unwrap();
        assert_eq!(drawn(&disk, "old"), some(&["1", "2"]));
        assert_eq!(all_names(&disk), set(&["old", "new old"]));
        disk.create_in(ROOT, "third").unwrap();
        // Both, one or none of the changes; the later one without the earlier one, too.
        assert_eq!(
            all_names(&disk),
            set(&["old", "new old", "old third", "new old third"])
        );
        disk.remove_in(ROOT, "old").unwrap();
        assert!(all_names(&disk).contains("new"));
        disk.sync_dir_inode(ROOT).unwrap();
        assert_eq!(all_names(&disk), set(&["third"]));
    }

    #[test]
    fn a_directory_that_is_not_durable_takes_its_files_along() {
        let (mut disk, _) = disk_of(&[]);
        let dir = disk.create_dir_in(ROOT, "dir").unwrap();
        let file = disk.create_in(dir, "file").unwrap();
        disk.sync_data(file).unwrap();
        disk.sync_dir_inode(dir).unwrap();
        assert_eq!(all_names(&disk), set(&["", "dir/file"]));
        disk.sync_dir_inode(ROOT).unwrap();
        assert_eq!(all_names(&disk), set(&["dir/file"]));
    }

    #[test]
    fn names_in_a_safe_directory_are_durable_at_once_and_files_with_two_names_stay_one() {
        let (mut disk, ids) = disk_of(&[("a", b"....")]);
        let safe = disk.create_dir_in(ROOT, "safe").unwrap();
        disk.sync_dir_inode(ROOT).unwrap();
        disk.make_safe(safe).unwrap();
        disk.link_in(ids[0], safe, "b").unwrap();
        assert_eq!(disk.attributes(ids[0]).unwrap().names, 2);
        disk.write_at(ids[0], b"xxxx", 0).unwrap();
        for left in cuts(&disk) {
            assert_eq!(content(&left, "a"), content(&left, "safe/b"));
            let [one, other] = ["a", "safe/b"].map(|name| left.lookup(path(name)).unwrap());
            assert_eq!((one, other), (ids[0], ids[0]));
            assert_eq!(left.attributes(one).unwrap().names, 2);
        }
        disk.remove_in(ROOT, "a").unwrap();
        assert_eq!(disk.attributes(ids[0]).unwrap().names, 1);
        assert_eq!(content(&disk, "safe/b").unwrap(), b"xxxx");
    }

    #[test]
    fn losses_are_counted() {
        let (mut disk, ids) = disk_of(&[("a", b"1"), ("b", b"2")]);
        let losses = |disk: &VirtualDisk, seed| disk.crash(&mut StdRng::seed_from_u64(seed)).1;
        assert_eq!(losses(&disk, 1), Losses::default());
        disk.write_at(ids[0], &[1; 700], 0).unwrap();
        disk.set_len(ids[0], 0).unwrap();
        disk.create_in(ROOT, "c").unwrap();
        disk.rename_in((ROOT, "c"), (ROOT, "d")).unwrap();
        disk.remove_in(ROOT, "b").unwrap();
        let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
        for seed in 0..CUTS {
            let losses = losses(&disk, seed);
            assert_eq!(losses.unsynced, 5);
            for (name, count) in losses.named() {
                *sum.entry(name).or_default() += count;
            }
        }
        assert!(sum.values().all(|count| *count > 0), "{sum:?}");
    }

    #[test]
    fn what_is_left_survives_the_way_through_a_directory_and_another_loss() {
        let (mut disk, ids) = disk_of(&[("a", b"1"), ("b", b"2")]);
        let dir = disk.create_dir_in(ROOT, "dir").unwrap();
        let inner = disk.create_in(dir, "c").unwrap();
        disk.write_at(inner, b"3", 0).unwrap();
        disk.sync_data(inner).unwrap();
        disk.sync_dir_inode(dir).unwrap();
        disk.link_in(ids[0], ROOT, "a2").unwrap();
        disk.sync_dir_inode(ROOT).unwrap();
        let (left, _) = disk.crash(&mut StdRng::seed_from_u64(3));
        let (again, _) = left.crash(&mut StdRng::seed_from_u64(4));
        assert_eq!(again.image(), left.image());
        let place = tempfile::tempdir().unwrap();
        left.copy_to(place.path()).unwrap();
        assert_eq!(std::fs::read(place.path().join("dir/c")).unwrap(), b"3");
        std::fs::write(place.path().join("a2"), "both").unwrap();
        assert_eq!(std::fs::read(place.path().join("a")).unwrap(), b"both");
        let mut read = VirtualDisk::new();
        read.copy_from(place.path(), path("all")).unwrap();
        assert_eq!(names(&read), "all/a all/a2 all/b all/dir/c");
        assert_eq!(content(&read, "all/b").unwrap(), b"2");
        read.remove(path("all/b")).unwrap();
        assert_eq!(content(&read, "all/b"), None);
        assert_eq!(read.pending(), 1);
    }
}
