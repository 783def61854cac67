//! What a filesystem stores, and what a loss of power leaves of it: data and a pure function, without I/O.
//!
//! Each file and each directory has a present state, which every process sees, a durable one, and the list of changes
//! between the two. A sync of the file, or of the directory, empties the list. What [`Disk::remains`] leaves is the
//! durable state and *any* part of the changes, as nasty as POSIX allows:
//!
//! - a write may be kept, lost, or torn at borders of 512 bytes and in one place at an odd byte, whatever became of the writes
//!   before and after it;
//! - a file may have got its new length without the bytes: zeros, noise, or older bytes of the file;
//! - a change of a file's length, a new name, a rename and a removal may be kept or lost, each by itself. A rename is
//!   atomic: the old names or the new ones;
//! - a sync of a file does not make its name durable: that takes a sync of its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Serialize;

/// A file's or a directory's number.
pub type Ino = u64;

/// The root directory.
pub const ROOT: Ino = 1;

/// A disk writes so many bytes at once, or none of them; usually.
const SECTOR_BYTES: usize = 512;

/// Why an operation can't be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such name, or no such file.
    NotFound,
    /// The name is taken.
    Exists,
    /// It is no directory.
    NotADirectory,
    /// It is a directory.
    IsADirectory,
    /// The directory has entries.
    NotEmpty,
    /// From one directory to another: the model does not know it.
    OtherDirectory,
    /// It can't be done at all.
    Invalid,
}

/// What is known of a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// A file's length.
    pub len_bytes: u64,
    /// How many names it has.
    pub names: u32,
}

/// Everything that is stored.
#[derive(Debug)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    next_ino: Ino,
    /// Counts the changes.
    changes: u64,
}

#[derive(Debug)]
struct Node {
    names: u32,
    body: Body,
}

#[derive(Debug)]
enum Body {
    File(File),
    Dir(Dir),
}

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(u64, Change)>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Dir {
    now: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
    unsynced: Vec<(u64, NameChange)>,
    /// Every change is durable at once.
    is_safe: bool,
}

#[derive(Debug)]
enum NameChange {
    Add { name: String, ino: Ino },
    Remove { name: String },
    Rename { from: String, to: String, ino: Ino },
}

/// What a loss of power took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Changes that were not synced when the power went.
    pub unsynced: u64,
    /// Writes of which nothing is left.
    pub writes: u64,
    /// Writes of which a part is left.
    pub torn: u64,
    /// Lengths that came without their bytes.
    pub lengths_without_bytes: u64,
    /// Other changes of length.
    pub lengths: u64,
    /// New names.
    pub names: u64,
    /// Renames.
    pub renames: u64,
    /// Removals: the name is back.
    pub removals: u64,
}

/// What is on the disk when the power is back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Directories by their path below the root, with `/` between the parts.
    dirs: BTreeSet<String>,
    /// Files by their path. Two paths may lead to one file.
    files: BTreeMap<String, Ino>,
    contents: BTreeMap<Ino, Vec<u8>>,
}

impl Default for Disk {
    /// An empty one.
    fn default() -> Disk {
        let root = Node {
            names: 2,
            body: Body::Dir(Dir::default()),
        };
        Disk {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            changes: 0,
        }
    }
}

impl Disk {
    /// A disk after a start with what a loss of power has left: all of it is durable. Files have the numbers that they had.
    #[must_use]
    pub fn with(remains: &Remains) -> Disk {
        let mut disk = Disk::default();
        let last_ino = remains.contents.keys().next_back().copied();
        disk.next_ino = last_ino.unwrap_or(ROOT) + 1;
        let mut dirs: BTreeMap<&str, Ino> = BTreeMap::from([("", ROOT)]);
        for path in &remains.dirs {
            let (parent, name) = split(path);
            let node = Node {
                names: 2,
                body: Body::Dir(Dir::default()),
            };
            let ino = disk.add(node);
            disk.enter_durably(dirs.get(parent).copied(), name, ino);
            dirs.insert(path, ino);
        }
        for (path, ino) in &remains.files {
            let (parent, name) = split(path);
            let node = disk.nodes.entry(*ino).or_insert_with(|| {
                let bytes = remains.contents.get(ino).cloned().unwrap_or_default();
                let file = File {
                    now: bytes.clone(),
                    durable: bytes,
                    unsynced: Vec::new(),
                };
                Node {
                    names: 0,
                    body: Body::File(file),
                }
            });
            node.names += 1;
            disk.enter_durably(dirs.get(parent).copied(), name, *ino);
        }
        disk
    }

    fn add(&mut self, node: Node) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.nodes.insert(ino, node);
        ino
    }

    fn enter_durably(&mut self, parent: Option<Ino>, name: &str, ino: Ino) {
        let node = parent.and_then(|parent| self.nodes.get_mut(&parent));
        if let Some(Node {
            body: Body::Dir(dir),
            ..
        }) = node
        {
            dir.now.insert(name.to_owned(), ino);
            dir.durable.insert(name.to_owned(), ino);
        }
    }

    fn file(&self, ino: Ino) -> Result<&File, Refusal> {
        match &self.nodes.get(&ino).ok_or(Refusal::NotFound)?.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Refusal::IsADirectory),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File, Refusal> {
        match &mut self.nodes.get_mut(&ino).ok_or(Refusal::NotFound)?.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Refusal::IsADirectory),
        }
    }

    fn dir(&self, ino: Ino) -> Result<&Dir, Refusal> {
        match &self.nodes.get(&ino).ok_or(Refusal::NotFound)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Refusal::NotADirectory),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir, Refusal> {
        match &mut self.nodes.get_mut(&ino).ok_or(Refusal::NotFound)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Refusal::NotADirectory),
        }
    }

    fn change_names(&mut self, parent: Ino, change: NameChange) -> Result<(), Refusal> {
        self.changes += 1;
        let at = self.changes;
        let dir = self.dir_mut(parent)?;
        change.apply(&mut dir.now);
        if dir.is_safe {
            change.apply(&mut dir.durable);
        } else {
            dir.unsynced.push((at, change));
        }
        Ok(())
    }

    fn count_names(&mut self, ino: Ino, difference: i32) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names = node.names.saturating_add_signed(difference);
        }
    }

    /// What is known of a file or a directory.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, Refusal> {
        let node = self.nodes.get(&ino).ok_or(Refusal::NotFound)?;
        let (is_dir, len_bytes) = match &node.body {
            Body::Dir(_) => (true, 0),
            Body::File(file) => (false, file.now.len() as u64),
        };
        Ok(Attributes {
            is_dir,
            len_bytes,
            names: node.names,
        })
    }

    /// The file of this name.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotADirectory`].
    pub fn lookup(&self, parent: Ino, name: &str) -> Result<Ino, Refusal> {
        let found = self.dir(parent)?.now.get(name);
        found.copied().ok_or(Refusal::NotFound)
    }

    /// The entries of a directory, in the order of their names.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotADirectory`].
    pub fn list(&self, ino: Ino) -> Result<Vec<(String, Ino)>, Refusal> {
        let entries = self.dir(ino)?.now.iter();
        Ok(entries.map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    /// A new file.
    ///
    /// # Errors
    /// [`Refusal::Exists`], and as [`Disk::lookup`].
    pub fn create(&mut self, parent: Ino, name: &str) -> Result<Ino, Refusal> {
        let body = Body::File(File::default());
        self.enter(parent, name, Node { names: 1, body })
    }

    /// A new directory.
    ///
    /// # Errors
    /// [`Refusal::Exists`], and as [`Disk::lookup`].
    pub fn make_dir(&mut self, parent: Ino, name: &str) -> Result<Ino, Refusal> {
        let body = Body::Dir(Dir::default());
        self.enter(parent, name, Node { names: 2, body })
    }

    fn enter(&mut self, parent: Ino, name: &str, node: Node) -> Result<Ino, Refusal> {
        self.require_free(parent, name)?;
        let ino = self.add(node);
        let name = name.to_owned();
        self.change_names(parent, NameChange::Add { name, ino })?;
        Ok(ino)
    }

    fn require_free(&self, parent: Ino, name: &str) -> Result<(), Refusal> {
        match self.lookup(parent, name) {
            Err(Refusal::NotFound) => Ok(()),
            Ok(_) => Err(Refusal::Exists),
            Err(refusal) => Err(refusal),
        }
    }

    /// A further name of a file.
    ///
    /// # Errors
    /// [`Refusal::Exists`], [`Refusal::IsADirectory`], and as [`Disk::lookup`].
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &str) -> Result<(), Refusal> {
        self.file(ino)?;
        self.require_free(parent, name)?;
        let name = name.to_owned();
        self.change_names(parent, NameChange::Add { name, ino })?;
        self.count_names(ino, 1);
        Ok(())
    }

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// [`Refusal::IsADirectory`], and as [`Disk::lookup`].
    pub fn unlink(&mut self, parent: Ino, name: &str) -> Result<(), Refusal> {
        let ino = self.lookup(parent, name)?;
        self.file(ino)?;
        let name = name.to_owned();
        self.change_names(parent, NameChange::Remove { name })?;
        self.count_names(ino, -1);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Refusal::NotADirectory`], [`Refusal::NotEmpty`], and as [`Disk::lookup`].
    pub fn remove_dir(&mut self, parent: Ino, name: &str) -> Result<(), Refusal> {
        let ino = self.lookup(parent, name)?;
        if !self.dir(ino)?.now.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        let name = name.to_owned();
        self.change_names(parent, NameChange::Remove { name })?;
        self.count_names(ino, -2);
        Ok(())
    }

    /// Renames a file, over another one of the new name if there is one.
    ///
    /// # Errors
    /// [`Refusal::OtherDirectory`], [`Refusal::IsADirectory`] for directories on either side, and as [`Disk::lookup`].
    pub fn rename(
        &mut self,
        parent: Ino,
        from: &str,
        new_parent: Ino,
        to: &str,
    ) -> Result<(), Refusal> {
        if parent != new_parent {
            return Err(Refusal::OtherDirectory);
        }
        let ino = self.lookup(parent, from)?;
        self.file(ino)?;
        let replaced = self.lookup(parent, to).ok();
        if let Some(replaced) = replaced {
            self.file(replaced)?;
        }
        if replaced == Some(ino) {
            return Ok(());
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change_names(parent, NameChange::Rename { from, to, ino })?;
        if let Some(replaced) = replaced {
            self.count_names(replaced, -1);
        }
        Ok(())
    }

    /// The bytes of a file from `offset` on, `len_bytes` at most.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::IsADirectory`].
    pub fn read(&self, ino: Ino, offset: u64, len_bytes: usize) -> Result<&[u8], Refusal> {
        let now = &self.file(ino)?.now;
        let from = index(offset)?.min(now.len());
        let to = from.saturating_add(len_bytes).min(now.len());
        Ok(now.get(from..to).unwrap_or_default())
    }

    /// Writes.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::IsADirectory`], [`Refusal::Invalid`] far beyond any memory.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let offset = index(offset)?;
        let change = Change::Write {
            offset,
            bytes: bytes.to_owned(),
        };
        self.change_file(ino, change)
    }

    /// Cuts or lengthens a file.
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn set_len(&mut self, ino: Ino, len_bytes: u64) -> Result<(), Refusal> {
        self.change_file(ino, Change::Length(index(len_bytes)?))
    }

    fn change_file(&mut self, ino: Ino, change: Change) -> Result<(), Refusal> {
        self.changes += 1;
        let at = self.changes;
        let file = self.file_mut(ino)?;
        change.apply(&mut file.now);
        file.unsynced.push((at, change));
        Ok(())
    }

    /// Makes a file's bytes and length durable, but not its names.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::IsADirectory`].
    pub fn sync_file(&mut self, ino: Ino) -> Result<(), Refusal> {
        let file = self.file_mut(ino)?;
        for (_, change) in file.unsynced.drain(..) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotADirectory`].
    pub fn sync_dir(&mut self, ino: Ino) -> Result<(), Refusal> {
        let dir = self.dir_mut(ino)?;
        dir.unsynced.clear();
        dir.durable.clone_from(&dir.now);
        Ok(())
    }

    /// From now on, every name in this directory is durable at once: for evidence, which is no part of the test.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotADirectory`].
    pub fn make_safe(&mut self, ino: Ino) -> Result<(), Refusal> {
        self.sync_dir(ino)?;
        self.dir_mut(ino)?.is_safe = true;
        Ok(())
    }

    /// What a loss of power leaves at this moment: a function of the disk and of `random` alone.
    #[must_use]
    pub fn remains(&self, random: &mut StdRng) -> (Remains, Losses) {
        let mut cut = PowerCut {
            fate: Fate::draw(random, self.changes),
            random,
            losses: Losses::default(),
        };
        let mut remains = Remains::default();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = open.pop() {
            let Ok(dir) = self.dir(ino) else { continue };
            for (name, ino) in cut.names(dir) {
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}/{name}")
                };
                match self.nodes.get(&ino).map(|node| &node.body) {
                    Some(Body::Dir(_)) => {
                        remains.dirs.insert(path.clone());
                        open.push((path, ino));
                    }
                    Some(Body::File(file)) => {
                        let contents = &mut remains.contents;
                        contents.entry(ino).or_insert_with(|| cut.bytes(file));
                        remains.files.insert(path, ino);
                    }
                    None => {}
                }
            }
        }
        (remains, cut.losses)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Longer files are a mistake of whoever writes them.
const FILE_BYTES_MAX: u64 = 1 << 32;

fn index(offset: u64) -> Result<usize, Refusal> {
    if offset > FILE_BYTES_MAX {
        return Err(Refusal::Invalid);
    }
    usize::try_from(offset).map_err(|_| Refusal::Invalid)
}

/// Writes over `file`, which becomes long enough; a hole between its end and `offset` reads as zeros.
fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset.saturating_add(bytes.len());
    if file.len() < end && !bytes.is_empty() {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(file, *offset, bytes),
            Change::Length(len_bytes) => file.resize(*len_bytes, 0),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Ino>) {
        match self {
            NameChange::Add { name, ino } => drop(names.insert(name.clone(), *ino)),
            NameChange::Remove { name } => drop(names.remove(name)),
            NameChange::Rename { from, to, ino } => {
                // Where the old name was lost, or is another file's by now, there is only the new one.
                if names.get(from) == Some(ino) {
                    names.remove(from);
                }
                names.insert(to.clone(), *ino);
            }
        }
    }
}

/// Which of the changes that were not synced a loss of power keeps.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Everything,
    Nothing,
    /// Those through this one, as a disk that reorders nothing.
    Through(u64),
    /// Each with this probability, in percent.
    Each(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    Part,
    Nothing,
}

impl Fate {
    fn draw(random: &mut StdRng, changes: u64) -> Fate {
        match random.random_range(0..10) {
            0 => Fate::Everything,
            1 => Fate::Nothing,
            // The last changes are those that are not synced.
            2 | 3 => Fate::Through(changes.saturating_sub(random.random_range(0..24))),
            4 | 5 => Fate::Each(10),
            6 | 7 => Fate::Each(50),
            _ => Fate::Each(90),
        }
    }
}

struct PowerCut<'a> {
    fate: Fate,
    random: &'a mut StdRng,
    losses: Losses,
}

/// Of the writes whose fate is drawn, so many in a hundred are torn.
const TORN_PERCENT: u32 = 30;
/// Of lost bytes behind a file's end, so many in a hundred leave their length behind.
const LENGTH_ONLY_PERCENT: u32 = 40;

impl PowerCut<'_> {
    fn happens(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn keeps(&mut self, change: u64) -> bool {
        match self.fate {
            Fate::Everything => true,
            Fate::Nothing => false,
            Fate::Through(last) => change <= last,
            Fate::Each(percent) => self.happens(percent),
        }
    }

    fn keeps_of_write(&mut self, change: u64) -> Kept {
        let torn = match self.fate {
            Fate::Everything | Fate::Nothing => false,
            Fate::Through(last) => change == last.saturating_add(1),
            Fate::Each(_) => self.happens(TORN_PERCENT),
        };
        match (torn, self.keeps(change)) {
            (true, _) => Kept::Part,
            (false, true) => Kept::All,
            (false, false) => Kept::Nothing,
        }
    }

    fn names(&mut self, dir: &Dir) -> BTreeMap<String, Ino> {
        let mut names = dir.durable.clone();
        for (at, change) in &dir.unsynced {
            self.losses.unsynced += 1;
            if self.keeps(*at) {
                change.apply(&mut names);
            } else {
                *match change {
                    NameChange::Add { .. } => &mut self.losses.names,
                    NameChange::Remove { .. } => &mut self.losses.removals,
                    NameChange::Rename { .. } => &mut self.losses.renames,
                } += 1;
            }
        }
        names
    }

    fn bytes(&mut self, file: &File) -> Vec<u8> {
        let mut bytes = file.durable.clone();
        for (at, change) in &file.unsynced {
            self.losses.unsynced += 1;
            match change {
                Change::Length(len_bytes) => {
                    if self.keeps(*at) {
                        bytes.resize(*len_bytes, 0);
                    } else {
                        self.losses.lengths += 1;
                    }
                }
                Change::Write {
                    offset,
                    bytes: written,
                } => {
                    let end = offset.saturating_add(written.len());
                    match self.keeps_of_write(*at) {
                        Kept::All => {
                            self.fill(&mut bytes, *offset, file);
                            put(&mut bytes, *offset, written);
                            continue;
                        }
                        Kept::Part => {
                            self.losses.torn += 1;
                            self.tear(&mut bytes, *offset, written, file);
                        }
                        Kept::Nothing => self.losses.writes += 1,
                    }
                    if bytes.len() < end && self.happens(LENGTH_ONLY_PERCENT) {
                        self.losses.lengths_without_bytes += 1;
                        self.fill(&mut bytes, end, file);
                    }
                }
            }
        }
        bytes
    }

    /// Puts a part of what was written into the file.
    fn tear(&mut self, bytes: &mut Vec<u8>, offset: usize, written: &[u8], file: &File) {
        // In some writes a few parts survive, in others most of them.
        let percent = self.random.random_range(0..=100);
        let odd = self.random.random_range(0..written.len().max(1));
        let mut from = 0;
        while from < written.len() {
            let border = (offset + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
            let to = (border - offset).min(written.len());
            let (mut part_from, mut part_to) = (from, to);
            let is_odd = (from..to).contains(&odd);
            if is_odd {
                if self.random.random() {
                    part_to = odd;
                } else {
                    part_from = odd;
                }
            }
            if is_odd || self.happens(percent) {
                let part = written.get(part_from..part_to).unwrap_or_default();
                if !part.is_empty() {
                    self.fill(bytes, offset + part_from, file);
                    put(bytes, offset + part_from, part);
                }
            }
            from = to;
        }
    }

    /// Lengthens `bytes` to `len_bytes`, if they are shorter, with what a disk may show where nothing was written.
    fn fill(&mut self, bytes: &mut Vec<u8>, len_bytes: usize, file: &File) {
        let missing = len_bytes.saturating_sub(bytes.len());
        if missing == 0 {
            return;
        }
        let older = &file.durable;
        match self.random.random_range(0..4) {
            0 => bytes.extend((0..missing).map(|_| self.random.random::<u8>())),
            1 if !older.is_empty() => {
                let from = self.random.random_range(0..older.len());
                bytes.extend(older.iter().cycle().skip(from).take(missing));
            }
            _ => bytes.resize(len_bytes, 0),
        }
    }
}

impl Remains {
    /// The paths of the files, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The bytes of a file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        let bytes = self.contents.get(self.files.get(path)?)?;
        Some(bytes)
    }

    /// Whether two paths lead to one file.
    #[must_use]
    pub fn is_same(&self, one: &str, other: &str) -> bool {
        let number = |path: &str| self.files.get(path);
        number(one).is_some() && number(one) == number(other)
    }

    /// Takes a file's name away.
    pub fn forget(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// Adds a directory.
    pub fn add_dir(&mut self, path: &str) {
        self.dirs.insert(path.to_owned());
    }

    /// Takes in all that is in the directory `from`, as the directory `path`. Files with several names become
    /// several files.
    ///
    /// # Errors
    /// A file could not be read, or has a name that is not Unicode.
    pub fn read(&mut self, from: &Path, path: &str) -> io::Result<()> {
        self.add_dir(path);
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|name| io::Error::other(format!("{}", name.display())))?;
            let path = format!("{path}/{name}");
            if entry.file_type()?.is_dir() {
                self.read(&entry.path(), &path)?;
            } else {
                let ino = self.contents.keys().next_back().map_or(ROOT, |ino| *ino) + 1;
                self.contents.insert(ino, fs::read(entry.path())?);
                self.files.insert(path, ino);
            }
        }
        Ok(())
    }

    /// Writes everything below `dir`, which exists. A file with several names is linked.
    ///
    /// # Errors
    /// A file could not be written or linked.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        for path in &self.dirs {
            fs::create_dir_all(dir.join(path))?;
        }
        let mut written: BTreeMap<Ino, &str> = BTreeMap::new();
        for (path, ino) in &self.files {
            if let Some(first) = written.get(ino) {
                fs::hard_link(dir.join(first), dir.join(path))?;
            } else {
                let bytes = self.contents.get(ino).map_or(&[][..], Vec::as_slice);
                fs::write(dir.join(path), bytes)?;
                written.insert(*ino, path);
            }
        }
        Ok(())
    }
}

impl Losses {
    /// Adds those of another cut.
    pub fn add(&mut self, other: Losses) {
        let Losses {
            unsynced,
            writes,
            torn,
            lengths_without_bytes,
            lengths,
            names,
            renames,
            removals,
        } = other;
        self.unsynced += unsynced;
        self.writes += writes;
        self.torn += torn;
        self.lengths_without_bytes += lengths_without_bytes;
        self.lengths += lengths;
        self.names += names;
        self.renames += renames;
        self.removals += removals;
    }

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

#[cfg(test)]
mod tests;
