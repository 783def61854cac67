//! The damage to a store's files: a list of all of it, and each applied to a copy.

use std::sync::Arc;

use crate::evidence::stored::new_name;
use crate::sim::image::Image;
use crate::tiers::damage::store::{Base, SHM, run_name, segment_name, snapshot_name};

/// Blocks of these sizes are swapped, replaced and zeroed: a sector and a page.
const BLOCK_BYTES: [usize; 2] = [512, 4096];
/// All bits of the bytes of files up to this length are flipped, and two of those of longer ones.
const SMALL_BYTES: usize = 4096;

/// The knowledge of the machine beside the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Knowing {
    /// The page of hints is good: the system has been running all the time.
    Running,
    /// The files were copied elsewhere, or the system was restarted: the page is an old one, but
    /// the durable sequence number in it counts.
    Elsewhere,
    /// The page is gone.
    Nothing,
}

/// Where other bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// The same store at an earlier moment.
    Earlier(u8),
    /// A store whose records have the same numbers and lengths, and another content.
    Twin,
    /// Any other store.
    Stranger,
    /// The same store now.
    Same,
}

/// A change of one or two files. They are named by their place among all names, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Damage {
    /// None; only what is known beside the files is another.
    None,
    /// A byte has another value.
    Byte { file: u8, at: u32, value: u8 },
    /// A file ends too early.
    Cut { file: u8, len: u32 },
    /// Bytes stand behind a file's end.
    Grown { file: u8, count: u16, with: u8 },
    /// Two blocks stand in each other's place.
    Swapped { size: u16, blocks: [(u8, u16); 2] },
    /// A block is what it was before, or all of one byte.
    Block {
        size: u16,
        file: u8,
        block: u16,
        with: Filling,
    },
    /// A whole line of a file is missing, repeated, or after the next one.
    Line { file: u8, line: u16, now: LineNow },
    /// A file is not there.
    Missing { file: u8 },
    /// There is another file's content under this name, which need not have been there.
    Content { of: u8, from: Origin, now: Name },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Filling {
    Earlier(u8),
    All(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LineNow {
    Missing,
    Twice,
    BehindTheNext,
}

/// The name of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// Of a file of the store.
    File(u8),
    Segment(u32),
    Snapshot(u32),
    Run(u32, u32),
    NewManifest,
    NewSnapshot(u32),
}

/// One case: a change, and what is known beside the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Case {
    pub(super) damage: Damage,
    pub(super) knowing: Knowing,
    /// Done to the store in which the last write was torn.
    pub(super) torn: bool,
}

/// A file that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) name: String,
    /// Its first byte that differs.
    pub(super) first: usize,
    pub(super) was_there: bool,
    pub(super) is_there: bool,
}

/// The kind of a file.
pub(super) fn kind(base: &Base, name: &str) -> &'static str {
    let is_live = base.live_snapshot().iter().any(|live| live == name);
    match name {
        "MANIFEST" => "manifest",
        "lock" => "lock",
        "compact.lock" => "compact.lock",
        SHM => "shm",
        _ if name == base.live() => "live segment",
        _ if name.starts_with("log-") => "closed segment",
        _ if is_live && name.starts_with("run-") => "run",
        _ if is_live => "snapshot",
        _ if name.starts_with("snapshot-") || name.starts_with("run-") => "older snapshot",
        _ => "other",
    }
}

/// The stores that a run works with.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) base: Base,
    pub(super) twin: Base,
    pub(super) stranger: Base,
    /// The base's files in order.
    pub(super) names: Vec<Arc<str>>,
}

impl Stores {
    pub(super) fn new(base: Base, twin: Base, stranger: Base) -> Self {
        let names = base.image.files.keys().cloned().collect();
        Self {
            base,
            twin,
            stranger,
            names,
        }
    }

    fn name(&self, file: u8) -> &str {
        self.names.get(usize::from(file)).map_or("", AsRef::as_ref)
    }

    fn image(&self, origin: Origin) -> &Image {
        let earlier = |index: u8| self.base.history.get(usize::from(index));
        match origin {
            Origin::Earlier(index) => earlier(index).unwrap_or(&self.base.image),
            Origin::Twin => &self.twin.image,
            Origin::Stranger => &self.stranger.image,
            Origin::Same => &self.base.image,
        }
    }

    /// The files of an image in order: those that a [`Damage::Content`] speaks of.
    fn file_of(&self, origin: Origin, index: u8) -> Option<(&Arc<str>, &Arc<Vec<u8>>)> {
        self.image(origin).files.iter().nth(usize::from(index))
    }

    fn path(&self, name: Name) -> String {
        match name {
            Name::File(file) => self.name(file).to_owned(),
            Name::Segment(first_seq) => segment_name(first_seq.into()),
            Name::Snapshot(seq) => snapshot_name(seq.into()),
            Name::Run(first, last) => run_name(first.into(), last.into()),
            Name::NewManifest => new_name("MANIFEST"),
            Name::NewSnapshot(seq) => new_name(&snapshot_name(seq.into())),
        }
    }

    /// The store before the damage of a case, as far as it is known.
    fn before(&self, case: Case) -> Image {
        let mut image = if case.torn {
            &self.base.torn
        } else {
            &self.base.image
        }
        .clone();
        match case.knowing {
            Knowing::Running | Knowing::Elsewhere => {}
            Knowing::Nothing => drop(image.files.remove(SHM)),
        }
        image
    }

    /// The damaged store, and the files that are not as they were; `None` where that is none.
    pub(super) fn apply(&self, case: Case) -> Option<(Image, Vec<Touched>)> {
        let before = self.before(case);
        let mut image = before.clone();
        self.damage(&mut image, case.damage)?;
        let touched = touched(&before, &image);
        (!touched.is_empty() || case.damage == Damage::None).then_some((image, touched))
    }

    fn damage(&self, image: &mut Image, damage: Damage) -> Option<()> {
        let mut edit = |file: u8, change: &dyn Fn(&mut Vec<u8>)| {
            let bytes = image.files.get_mut(self.name(file))?;
            let mut changed = bytes.to_vec();
            change(&mut changed);
            *bytes = changed.into();
            Some(())
        };
        match damage {
            Damage::None => Some(()),
            Damage::Byte { file, at, value } => edit(file, &|bytes| {
                if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte = value;
                }
            }),
            Damage::Cut { file, len } => edit(file, &|bytes| bytes.truncate(len as usize)),
            Damage::Grown { file, count, with } => edit(file, &|bytes| {
                bytes.resize(bytes.len() + usize::from(count), with);
            }),
            Damage::Swapped {
                size,
                blocks: [a, b],
            } => {
                let range = |block: u16| usize::from(block) * usize::from(size);
                let piece = |image: &Image, (file, block): (u8, u16)| {
                    let bytes = image.get(self.name(file))?;
                    bytes
                        .get(range(block)..range(block) + usize::from(size))
                        .map(<[u8]>::to_vec)
                };
                let (in_a, in_b) = (piece(image, a)?, piece(image, b)?);
                for ((file, block), piece) in [(a, in_b), (b, in_a)] {
                    let bytes = image.files.get_mut(self.name(file))?;
                    let from = range(block);
                    Arc::make_mut(bytes)
                        .get_mut(from..from + piece.len())?
                        .copy_from_slice(&piece);
                }
                Some(())
            }
            Damage::Block {
                size,
                file,
                block,
                with,
            } => {
                let (size, name) = (usize::from(size), self.name(file));
                let from = usize::from(block) * size;
                let now = match with {
                    Filling::All(byte) => vec![byte; size],
                    Filling::Earlier(index) => {
                        let old = self.base.history.get(usize::from(index))?.get(name)?;
                        old.get(from..old.len().min(from + size))?.to_vec()
                    }
                };
                edit(file, &|bytes| {
                    for (byte, now) in bytes.iter_mut().skip(from).zip(&now) {
                        *byte = *now;
                    }
                })
            }
            Damage::Line { file, line, now } => {
                let bytes = image.get(self.name(file))?;
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let line = usize::from(line);
                match now {
                    LineNow::Missing => drop(lines.remove(line)),
                    LineNow::Twice => lines.insert(line, lines.get(line)?),
                    LineNow::BehindTheNext if line + 1 < lines.len() => lines.swap(line, line + 1),
                    LineNow::BehindTheNext => return None,
                }
                let bytes = lines.concat();
                image.put(self.name(file), bytes);
                Some(())
            }
            Damage::Missing { file } => image.files.remove(self.name(file)).map(drop),
            Damage::Content { of, from, now } => {
                let (_, bytes) = self.file_of(from, of)?;
                image.put(&self.path(now), Arc::clone(bytes));
                Some(())
            }
        }
    }

    /// Every case there is, those that a short run may not leave out first.
    pub(super) fn cases(&self) -> (Vec<Case>, Vec<Case>) {
        let mut list = Lister {
            stores: self,
            few: Vec::new(),
            many: Vec::new(),
        };
        list.all();
        (list.few, list.many)
    }

    /// The case in words.
    pub(super) fn describe(&self, case: Case) -> String {
        let Case {
            damage,
            knowing,
            torn,
        } = case;
        let what = match damage {
            Damage::None => "nothing".to_owned(),
            Damage::Byte { file, at, value } => {
                format!("byte {at} of {} is {value:#04x}", self.name(file))
            }
            Damage::Cut { file, len } => format!("{} ends after {len} bytes", self.name(file)),
            Damage::Grown { file, count, with } => {
                format!(
                    "{count} bytes {with:#04x} behind the end of {}",
                    self.name(file)
                )
            }
            Damage::Swapped {
                size,
                blocks: [(a, i), (b, j)],
            } => format!(
                "block {i} of {} and block {j} of {} (of {size} bytes) are swapped",
                self.name(a),
                self.name(b)
            ),
            Damage::Block {
                size,
                file,
                block,
                with,
            } => {
                let now = match with {
                    Filling::All(byte) => format!("all {byte:#04x}"),
                    Filling::Earlier(moment) => format!("as at moment {moment}"),
                };
                format!(
                    "block {block} (of {size} bytes) of {} is {now}",
                    self.name(file)
                )
            }
            Damage::Line { file, line, now } => {
                format!("line {line} of {}: {now:?}", self.name(file))
            }
            Damage::Missing { file } => format!("{} is missing", self.name(file)),
            Damage::Content { of, from, now } => {
                let name = self.file_of(from, of).map_or("nothing", |(name, _)| name);
                format!("{} is {name} of {from:?}", self.path(now))
            }
        };
        let torn = if torn { ", after a torn write" } else { "" };
        let known = match knowing {
            Knowing::Running => "while the system runs",
            Knowing::Elsewhere => "elsewhere, or after a reboot",
            Knowing::Nothing => "without shm",
        };
        format!("{what}, {known}{torn}")
    }
}

/// The files that differ, in order.
fn touched(before: &Image, now: &Image) -> Vec<Touched> {
    let mut touched = Vec::new();
    let gone = before
        .files
        .keys()
        .filter(|name| !now.files.contains_key(*name));
    touched.extend(gone.map(|name| Touched {
        name: name.to_string(),
        first: 0,
        was_there: true,
        is_there: false,
    }));
    for (name, bytes) in &now.files {
        let old = before.files.get(name);
        if old.is_some_and(|old| Arc::ptr_eq(old, bytes) || old == bytes) {
            continue;
        }
        let was_there = old.is_some();
        let old = old.map_or(&[][..], |old| old.as_slice());
        let first = old
            .iter()
            .zip(bytes.iter())
            .take_while(|(old, now)| old == now)
            .count();
        touched.push(Touched {
            name: name.to_string(),
            first,
            was_there,
            is_there: true,
        });
    }
    touched
}

struct Lister<'a> {
    stores: &'a Stores,
    few: Vec<Case>,
    many: Vec<Case>,
}

const ALL_KNOWING: [Knowing; 3] = [Knowing::Running, Knowing::Elsewhere, Knowing::Nothing];

impl Lister<'_> {
    fn all(&mut self) {
        let files: Vec<(u8, &str, &'static str, &[u8])> = (0..)
            .zip(&self.stores.base.image.files)
            .map(|(file, (name, bytes))| {
                (
                    file,
                    &**name,
                    kind(&self.stores.base, name),
                    bytes.as_slice(),
                )
            })
            .collect();
        self.few_everywhere(Damage::None);
        for (file, name, kind, bytes) in &files {
            self.bytes(*file, kind, bytes);
            self.cuts(*file, kind, bytes);
            self.blocks(*file, name, bytes);
            self.lines(*file, kind, bytes);
            for (count, with) in [
                (1, 0),
                (1, 0xFF),
                (1, b'\n'),
                (513, 0),
                (5000, b'\n'),
                (70, b'x'),
            ] {
                self.few_everywhere(Damage::Grown {
                    file: *file,
                    count,
                    with,
                });
            }
            self.few_everywhere(Damage::Missing { file: *file });
        }
        self.swaps(&files);
        self.contents(&files);
        self.torn_tail();
    }

    fn few(&mut self, damage: Damage, knowing: Knowing) {
        self.few.push(Case {
            damage,
            knowing,
            torn: false,
        });
    }

    fn few_everywhere(&mut self, damage: Damage) {
        for knowing in ALL_KNOWING {
            self.few(damage, knowing);
        }
    }

    fn many(&mut self, damage: Damage, knowing: Knowing) {
        self.many.push(Case {
            damage,
            knowing,
            torn: false,
        });
    }

    fn bytes(&mut self, file: u8, kind: &str, bytes: &[u8]) {
        if matches!(kind, "lock" | "compact.lock") {
            return; // The bytes of these matter to real locks only, which have them all changed.
        }
        let small = bytes.len() <= SMALL_BYTES;
        for (at, byte) in (0..).zip(bytes) {
            let flipped = |bit: u8| byte ^ 1 << bit;
            let bits = if small { 0..8 } else { 0..1 };
            let mut values: Vec<u8> = bits.map(flipped).collect();
            values.extend([flipped(7), 0, 0xFF]);
            values.sort_unstable();
            values.dedup();
            for value in values.into_iter().filter(|value| value != byte) {
                let damage = Damage::Byte { file, at, value };
                self.many(damage, Knowing::Running);
                let one = value == flipped(0);
                match kind {
                    "live segment" => {
                        self.many(damage, Knowing::Nothing);
                        if one {
                            self.many(damage, Knowing::Elsewhere);
                        }
                    }
                    "closed segment" if one => self.many(damage, Knowing::Nothing),
                    "manifest" | "shm" if one => self.many(damage, Knowing::Elsewhere),
                    _ => {}
                }
            }
        }
    }

    fn cuts(&mut self, file: u8, kind: &str, bytes: &[u8]) {
        for (len, _) in (0..).zip(bytes) {
            let damage = Damage::Cut { file, len };
            match kind {
                "lock" | "compact.lock" if len % 512 != 0 => {}
                "live segment" => {
                    for knowing in ALL_KNOWING {
                        self.many(damage, knowing);
                    }
                }
                "closed segment" => {
                    self.many(damage, Knowing::Running);
                    self.many(damage, Knowing::Nothing);
                }
                _ => self.many(damage, Knowing::Running),
            }
        }
    }

    fn blocks(&mut self, file: u8, name: &str, bytes: &[u8]) {
        for size in BLOCK_BYTES {
            for block in 0..bytes.len().div_ceil(size) {
                let (Ok(block), Ok(bytes_of_block)) = (u16::try_from(block), u16::try_from(size))
                else {
                    continue;
                };
                let mut block_is = |with| {
                    let damage = Damage::Block {
                        size: bytes_of_block,
                        file,
                        block,
                        with,
                    };
                    for knowing in ALL_KNOWING {
                        self.many.push(Case {
                            damage,
                            knowing,
                            torn: false,
                        });
                    }
                };
                block_is(Filling::All(0));
                block_is(Filling::All(0xFF));
                block_is(Filling::All(b'\n'));
                // Each earlier content once.
                let range = usize::from(block) * size..usize::from(block) * size + size;
                let mut seen: Vec<&[u8]> = Vec::new();
                for (moment, image) in (0..).zip(&self.stores.base.history) {
                    let old = image.get(name).unwrap_or_default();
                    let old = old
                        .get(range.start..old.len().min(range.end))
                        .unwrap_or_default();
                    if !old.is_empty() && !seen.contains(&old) {
                        seen.push(old);
                        block_is(Filling::Earlier(moment));
                    }
                }
            }
        }
    }

    fn lines(&mut self, file: u8, kind: &str, bytes: &[u8]) {
        if kind == "lock" || kind == "compact.lock" || kind == "shm" {
            return;
        }
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .take_while(|line| !line.is_empty());
        for (line, _) in (0..).zip(lines) {
            for now in [LineNow::Missing, LineNow::Twice, LineNow::BehindTheNext] {
                let damage = Damage::Line { file, line, now };
                for knowing in ALL_KNOWING {
                    self.many(damage, knowing);
                }
            }
        }
    }

    fn swaps(&mut self, files: &[(u8, &str, &'static str, &[u8])]) {
        for size in BLOCK_BYTES {
            let blocks: Vec<(u8, u16)> = files
                .iter()
                .filter(|(_, _, kind, _)| !matches!(*kind, "lock" | "compact.lock"))
                .flat_map(|(file, _, _, bytes)| {
                    let whole = u16::try_from(bytes.len() / size).unwrap_or(0);
                    (0..whole).map(|block| (*file, block))
                })
                .collect();
            let Ok(size) = u16::try_from(size) else {
                continue;
            };
            for (index, a) in blocks.iter().enumerate() {
                for b in blocks.iter().skip(index + 1) {
                    let damage = Damage::Swapped {
                        size,
                        blocks: [*a, *b],
                    };
                    self.many(damage, Knowing::Running);
                    if a.0 == b.0 {
                        self.many(damage, Knowing::Nothing);
                    }
                }
            }
        }
    }

    /// Files under other names, of earlier moments, and of other stores.
    fn contents(&mut self, files: &[(u8, &str, &'static str, &[u8])]) {
        let stores = self.stores;
        let number = |seq: u64| u32::try_from(seq).unwrap_or(u32::MAX);
        let (first, last) = (stores.base.first_seq(), stores.base.last_seq());
        let mut doubled = vec![Name::NewManifest, Name::NewSnapshot(number(last))];
        doubled.extend(
            [1, first - 2, first + 3, last - 5, last + 1, last + 5]
                .map(|seq| Name::Segment(number(seq))),
        );
        let runs = [
            (first, first + 1),
            (first - 2, first - 1),
            (first - 9, first),
        ];
        doubled.extend(runs.map(|(first, last)| Name::Run(number(first), number(last))));
        doubled.extend(
            [1, first - 3, first + 1, last, last + 4].map(|seq| Name::Snapshot(number(seq))),
        );
        for (of, name, _, _) in files {
            let other = |new: &Name| match new {
                Name::Segment(_) => name.starts_with("log-"),
                Name::Snapshot(_) | Name::NewSnapshot(_) => name.starts_with("snapshot-"),
                Name::Run(..) => name.starts_with("run-") || name.starts_with("snapshot-"),
                Name::NewManifest => *name == "MANIFEST",
                Name::File(_) => true,
            };
            let everywhere = files.iter().map(|(file, ..)| Name::File(*file));
            for now in everywhere.chain(doubled.iter().copied().filter(other)) {
                self.few_everywhere(Damage::Content {
                    of: *of,
                    from: Origin::Same,
                    now,
                });
            }
        }
        let origins = [Origin::Twin, Origin::Stranger]
            .into_iter()
            .chain((0..).map(Origin::Earlier).take(stores.base.history.len()));
        for from in origins {
            let mut seen: Vec<(&Arc<str>, &Arc<Vec<u8>>)> = Vec::new();
            for (of, (name, bytes)) in (0..).zip(&stores.image(from).files) {
                if seen.contains(&(name, bytes)) {
                    continue;
                }
                seen.push((name, bytes));
                let of_kind = |kind: &str| name.split('-').next() == kind.split('-').next();
                let mut names: Vec<Name> = files
                    .iter()
                    .filter(|(_, other, _, _)| of_kind(other))
                    .map(|(file, ..)| Name::File(*file))
                    .collect();
                // Under its own name, where there is no such file.
                let mut numbers = name.split(['-', '.']).skip(1).map(str::parse);
                let mut next = || numbers.next()?.ok();
                names.extend(match (name.split('-').next(), next(), next()) {
                    (Some("log"), Some(seq), _) => Some(Name::Segment(seq)),
                    (Some("snapshot"), Some(seq), _) => Some(Name::Snapshot(seq)),
                    (Some("run"), Some(first), Some(last)) => Some(Name::Run(first, last)),
                    _ => None,
                });
                for now in names {
                    self.few_everywhere(Damage::Content { of, from, now });
                }
            }
        }
    }

    /// The record that was being written at a crash, and the records before it.
    fn torn_tail(&mut self) {
        let base = &self.stores.base;
        let live = base.live();
        let Some(file) = self.stores.names.iter().position(|name| **name == *live) else {
            return;
        };
        let Ok(file) = u8::try_from(file) else { return };
        let bytes = base.torn.get(live).unwrap_or_default();
        let from = base.lines.iter().rev().nth(3).map_or(0, |line| line.start);
        let end = bytes.len()
            - bytes
                .iter()
                .rev()
                .take_while(|byte| **byte == b'\n')
                .count();
        for at in from..end + 2 {
            let (Ok(at_u32), Some(byte)) = (u32::try_from(at), bytes.get(at)) else {
                continue;
            };
            let mut damages = vec![Damage::Cut { file, len: at_u32 }];
            for value in [0, 0xFF, byte ^ 1, byte ^ 0x80, b'\n'] {
                if value != *byte {
                    damages.push(Damage::Byte {
                        file,
                        at: at_u32,
                        value,
                    });
                }
            }
            for damage in damages {
                for knowing in ALL_KNOWING {
                    self.many.push(Case {
                        damage,
                        knowing,
                        torn: true,
                    });
                }
            }
        }
        for knowing in ALL_KNOWING {
            self.few.push(Case {
                damage: Damage::None,
                knowing,
                torn: true,
            });
        }
    }
}
