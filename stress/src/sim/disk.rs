//! A disk in memory that knows what is durable: what processes see, what certainly survives a loss of power,
//! and what may or may not. A pure data structure: no locks, no threads, no I/O.
//!
//! # What is assumed of the disk (`docs/FORMAT.md`, section 9)
//! - A successful sync of a file makes its bytes and its length durable, and nothing else: not its name. One of
//!   a directory makes the names in it durable, and nothing else: not the bytes of the files.
//! - Of what was not synced, any part survives, byte by byte and in any order. A write that lengthens a file
//!   and the file's new length survive independently of each other: there may be zeros, or old bytes of other files,
//!   where its data should be, or the data may be cut off.
//! - A rename is one change: after a crash the file has the old name or the new one, never both, and a
//!   file that was renamed over is there or replaced, never absent. A file that was created and renamed
//!   since the last sync of the directory may have no name at all.
//! - Changes of names survive independently of each other until the directory is synced, but two of one name are
//!   not turned around: that would be a state in which the directory never was.
//! - After a *failed* sync of a file, the writes that it should have made durable may or may not be on the disk, and the
//!   system takes their pages for clean: a later sync that succeeds does not make them durable, unless they are written
//!   again. Processes go on seeing them. Names and cuts go through the filesystem's journal, and are left to
//!   the next sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};
use strand_core::testing::OpenMode;

/// What disks write as a whole, as far as anything does.
const SECTOR_BYTES: usize = 512;
/// Of more changes than can be tried in all subsets, so many are left out, kept alone, and so on.
const SAMPLES_MAX: usize = 64;
/// Of each file, so many of the last writes are torn.
const RECENT: usize = 64;
/// All subsets of so many changes are tried.
const SUBSETS_OF_MAX: usize = 12;

/// A file or a directory, whatever its name. Never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    const ROOT: Self = Self(1);

    /// The inode's number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

/// What is on a disk that nobody uses: the files with their bytes, and the directories. Paths are relative
/// to the root, with `/` between their parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The files.
    pub files: BTreeMap<Arc<str>, Arc<[u8]>>,
    /// The directories but for the root.
    pub dirs: BTreeSet<Arc<str>>,
}

impl Image {
    /// A number for the content: images that differ have different ones, but for chance.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        for dir in &self.dirs {
            digest.add(dir.as_bytes());
        }
        digest.add(&[]);
        for (path, bytes) in &self.files {
            digest.add(path.as_bytes());
            digest.add(bytes);
        }
        digest.end()
    }

    /// Writes the files into a directory of the real disk.
    ///
    /// # Errors
    /// The system's.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        for path in &self.dirs {
            std::fs::create_dir_all(dir.join(&**path))?;
        }
        self.files
            .iter()
            .try_for_each(|(path, bytes)| std::fs::write(dir.join(&**path), bytes))
    }
}

/// Two sums of 64 bits over pieces of bytes; not for adversaries.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    sums: [u64; 2],
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            sums: [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93],
        }
    }
}

impl Digest {
    fn word(&mut self, word: u64) {
        let [a, b] = &mut self.sums;
        *a = (*a ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        *a ^= *a >> 32;
        *b = (b.rotate_left(29) ^ word).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    }

    /// Adds bytes and their number.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    pub(crate) fn end(mut self) -> u128 {
        self.word(0);
        let [a, b] = self.sums;
        u128::from(a) << 64 | u128::from(b ^ (b >> 31))
    }
}

/// A disk with its page cache. Cheap to clone: contents are shared until they change.
#[derive(Debug, Clone)]
pub struct VirtualDisk {
    inodes: BTreeMap<InodeId, Arc<Inode>>,
    /// Changes of names that are not durable yet, in their order.
    renames: Vec<NameChange>,
    next: u32,
}

#[derive(Debug, Clone)]
enum Inode {
    File(FileInode),
    Dir(DirInode),
}

#[derive(Debug, Clone)]
struct FileInode {
    /// What processes see.
    bytes: Arc<[u8]>,
    /// What is on the disk, before `changes`.
    base: Arc<[u8]>,
    /// What was done since, in its order.
    changes: Vec<Change>,
    opens: u32,
}

#[derive(Debug, Clone, Default)]
struct DirInode {
    /// What processes see.
    names: BTreeMap<Arc<str>, InodeId>,
    /// What is on the disk, before [`VirtualDisk::renames`].
    base: BTreeMap<Arc<str>, InodeId>,
}

#[derive(Debug, Clone)]
struct Change {
    what: Edit,
    fate: Fate,
}

#[derive(Debug, Clone)]
enum Edit {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// What becomes of a change when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Any part of it may survive. The next sync makes it durable.
    Dirty,
    /// A write whose sync failed: any part of it may survive, and no sync makes it durable.
    TakenForClean,
    /// It survives. Only until it is put into the base.
    Durable,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link {
        dir: InodeId,
        name: Arc<str>,
        inode: InodeId,
    },
    Unlink {
        dir: InodeId,
        name: Arc<str>,
    },
    Rename {
        from: (InodeId, Arc<str>),
        to: (InodeId, Arc<str>),
        inode: InodeId,
    },
}

impl NameChange {
    fn touches(&self, dir: InodeId) -> bool {
        match self {
            Self::Link { dir: of, .. } | Self::Unlink { dir: of, .. } => *of == dir,
            Self::Rename { from, to, .. } => from.0 == dir || to.0 == dir,
        }
    }

    fn inode(&self) -> Option<InodeId> {
        match self {
            Self::Link { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            Self::Unlink { .. } => None,
        }
    }
}

fn failure(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

impl Default for VirtualDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtualDisk {
    /// An empty disk: a root directory.
    #[must_use]
    pub fn new() -> Self {
        let root = Arc::new(Inode::Dir(DirInode::default()));
        Self {
            inodes: BTreeMap::from([(InodeId::ROOT, root)]),
            renames: Vec::new(),
            next: 2,
        }
    }

    /// A disk on which all of this is durable.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let mut disk = Self::new();
        for dir in &image.dirs {
            let made = disk.create_dir(Path::new(&**dir));
            made.unwrap_or_else(|error| unreachable!("{dir} can be created: {error}"));
        }
        for (path, bytes) in &image.files {
            let place = Path::new(&**path);
            let opened = disk.open(place, OpenMode::CreateNew);
            let inode =
                opened.unwrap_or_else(|error| unreachable!("{path} can be created: {error}"));
            disk.close(inode);
            if let Some(file) = disk.file_mut(inode) {
                file.bytes = Arc::clone(bytes);
                file.base = Arc::clone(bytes);
            }
        }
        for change in std::mem::take(&mut disk.renames) {
            disk.sync_name(&change);
        }
        disk
    }

    /// All that processes see: what the death of all of them leaves.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = Image::default();
        self.add_to_image(InodeId::ROOT, "", &mut image);
        image
    }

    fn add_to_image(&self, dir: InodeId, prefix: &str, image: &mut Image) {
        for (name, inode) in self.dir(dir).iter().flat_map(|dir| &dir.names) {
            let path: Arc<str> = if prefix.is_empty() {
                Arc::clone(name)
            } else {
                format!("{prefix}/{name}").into()
            };
            match self.inodes.get(inode).map(AsRef::as_ref) {
                Some(Inode::File(file)) => {
                    image.files.insert(path, Arc::clone(&file.bytes));
                }
                Some(Inode::Dir(_)) => {
                    self.add_to_image(*inode, &path, image);
                    image.dirs.insert(path);
                }
                None => {}
            }
        }
    }

    /// A number for all that processes see, as [`Image::digest`], but cheaper.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        self.add_to_digest(InodeId::ROOT, &mut digest);
        digest.end()
    }

    fn add_to_digest(&self, dir: InodeId, digest: &mut Digest) {
        for (name, inode) in self.dir(dir).iter().flat_map(|dir| &dir.names) {
            digest.add(name.as_bytes());
            match self.inodes.get(inode).map(AsRef::as_ref) {
                Some(Inode::File(file)) => digest.add(&file.bytes),
                Some(Inode::Dir(_)) => self.add_to_digest(*inode, digest),
                None => {}
            }
        }
        digest.add(b"/"); // No name is that.
    }

    fn dir(&self, inode: InodeId) -> Option<&DirInode> {
        match self.inodes.get(&inode)?.as_ref() {
            Inode::Dir(dir) => Some(dir),
            Inode::File(_) => None,
        }
    }

    fn dir_mut(&mut self, inode: InodeId) -> Option<&mut DirInode> {
        match Arc::make_mut(self.inodes.get_mut(&inode)?) {
            Inode::Dir(dir) => Some(dir),
            Inode::File(_) => None,
        }
    }

    fn file(&self, inode: InodeId) -> Option<&FileInode> {
        match self.inodes.get(&inode)?.as_ref() {
            Inode::File(file) => Some(file),
            Inode::Dir(_) => None,
        }
    }

    fn file_mut(&mut self, inode: InodeId) -> Option<&mut FileInode> {
        match Arc::make_mut(self.inodes.get_mut(&inode)?) {
            Inode::File(file) => Some(file),
            Inode::Dir(_) => None,
        }
    }

    fn open_file(&self, inode: InodeId) -> io::Result<&FileInode> {
        self.file(inode)
            .ok_or_else(|| failure(io::ErrorKind::IsADirectory))
    }

    fn open_file_mut(&mut self, inode: InodeId) -> io::Result<&mut FileInode> {
        self.file_mut(inode)
            .ok_or_else(|| failure(io::ErrorKind::IsADirectory))
    }

    /// The inode at `path`, which begins at the root with or without a `/`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and `InvalidInput` for a path with `..` or no valid Unicode.
    pub fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = InodeId::ROOT;
        for name in parts(path) {
            let dir = self.dir(at);
            let dir = dir.ok_or_else(|| failure(io::ErrorKind::NotADirectory))?;
            at = *dir
                .names
                .get(name?)
                .ok_or_else(|| failure(io::ErrorKind::NotFound))?;
        }
        Ok(at)
    }

    /// The directory that `path` is in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(InodeId, Arc<str>)> {
        let name = parts(path)
            .last()
            .ok_or_else(|| failure(io::ErrorKind::InvalidInput))??;
        let dir = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        match self.dir(dir) {
            Some(_) => Ok((dir, name.into())),
            None => Err(failure(io::ErrorKind::NotADirectory)),
        }
    }

    fn add(&mut self, (dir, name): (InodeId, Arc<str>), inode: Inode) -> InodeId {
        let id = InodeId(self.next);
        self.next += 1;
        self.inodes.insert(id, Arc::new(inode));
        if let Some(dir) = self.dir_mut(dir) {
            dir.names.insert(Arc::clone(&name), id);
        }
        self.renames.push(NameChange::Link {
            dir,
            name,
            inode: id,
        });
        id
    }

    /// Opens a file; to be closed by [`VirtualDisk::close`].
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `AlreadyExists`, `IsADirectory`.
    pub fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        let inode = match (mode, self.lookup(path)) {
            (OpenMode::CreateNew, Ok(_)) => return Err(failure(io::ErrorKind::AlreadyExists)),
            (OpenMode::CreateNew, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                let place = self.place(path)?;
                self.add(place, Inode::File(FileInode::default()))
            }
            (_, found) => found?,
        };
        match self.file_mut(inode) {
            Some(file) => file.opens += 1,
            // A directory can be opened to read, and then not be read.
            None if mode == OpenMode::Read => {}
            None => return Err(failure(io::ErrorKind::IsADirectory)),
        }
        Ok(inode)
    }

    /// Closes a file. One that has no name is gone when nobody has it open any more.
    pub fn close(&mut self, inode: InodeId) {
        if let Some(file) = self.file_mut(inode) {
            file.opens = file.opens.saturating_sub(1);
        }
        self.forget(inode);
    }

    /// Closes all files: every process is dead.
    pub fn close_all(&mut self) {
        let open = |(id, inode): (&InodeId, &Arc<Inode>)| match inode.as_ref() {
            Inode::File(file) if file.opens > 0 => Some(*id),
            _ => None,
        };
        let open: Vec<InodeId> = self.inodes.iter().filter_map(open).collect();
        for inode in open {
            if let Some(file) = self.file_mut(inode) {
                file.opens = 0;
            }
            self.forget(inode);
        }
    }

    /// Drops an inode that nobody can come to any more.
    fn forget(&mut self, inode: InodeId) {
        let named = |dir: &DirInode| {
            dir.names.values().any(|id| *id == inode) || dir.base.values().any(|id| *id == inode)
        };
        let is_open = self.file(inode).is_none_or(|file| file.opens > 0);
        let may_be_named = || {
            self.renames
                .iter()
                .any(|change| change.inode() == Some(inode))
                || self
                    .inodes
                    .values()
                    .any(|other| matches!(other.as_ref(), Inode::Dir(dir) if named(dir)))
        };
        if !is_open && !may_be_named() {
            self.inodes.remove(&inode);
        }
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.dir(self.lookup(path)?);
        let dir = dir.ok_or_else(|| failure(io::ErrorKind::NotADirectory))?;
        Ok(dir.names.keys().map(ToString::to_string).collect())
    }

    /// Whether a directory is at `path`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(self.dir(self.lookup(path)?).is_some())
    }

    /// Creates a directory and those above it, unless they exist.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotADirectory`.
    pub fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.lookup(path) {
            Ok(inode) if self.dir(inode).is_some() => return Ok(()),
            Ok(_) => return Err(failure(io::ErrorKind::AlreadyExists)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(above) = path.parent() {
            self.create_dir(above)?;
        }
        let place = self.place(path)?;
        self.add(place, Inode::Dir(DirInode::default()));
        Ok(())
    }

    /// Renames a file or a directory over what has that name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `DirectoryNotEmpty`.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, inode) = (self.place(from)?, self.lookup(from)?);
        let (to, replaced) = (self.place(to)?, self.lookup(to).ok());
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            let kind = match (self.dir(inode), self.dir(replaced)) {
                (None, Some(_)) => Some(io::ErrorKind::IsADirectory),
                (Some(_), None) => Some(io::ErrorKind::NotADirectory),
                (Some(_), Some(there)) if !there.names.is_empty() => {
                    Some(io::ErrorKind::DirectoryNotEmpty)
                }
                _ => None,
            };
            if let Some(kind) = kind {
                return Err(failure(kind));
            }
        }
        if let Some(dir) = self.dir_mut(from.0) {
            dir.names.remove(&from.1);
        }
        if let Some(dir) = self.dir_mut(to.0) {
            dir.names.insert(Arc::clone(&to.1), inode);
        }
        self.renames.push(NameChange::Rename { from, to, inode });
        Ok(())
    }

    /// Removes a file. Who has it open can go on reading and writing it.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let ((dir, name), inode) = (self.place(path)?, self.lookup(path)?);
        if self.dir(inode).is_some() {
            return Err(failure(io::ErrorKind::IsADirectory));
        }
        if let Some(dir) = self.dir_mut(dir) {
            dir.names.remove(&name);
        }
        self.renames.push(NameChange::Unlink { dir, name });
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup(path)?;
        if self.dir(dir).is_none() {
            return Err(failure(io::ErrorKind::NotADirectory));
        }
        let all = std::mem::take(&mut self.renames);
        let (settled, left) = all.into_iter().partition(|change| change.touches(dir));
        self.renames = left;
        let settled: Vec<NameChange> = settled;
        for change in &settled {
            self.sync_name(change);
        }
        if !settled.is_empty() {
            let all: Vec<InodeId> = self.inodes.keys().copied().collect();
            for inode in all {
                self.forget(inode);
            }
        }
        Ok(())
    }

    fn sync_name(&mut self, change: &NameChange) {
        change_names(change, |dir, name, inode| {
            let dir = self.inodes.get_mut(&dir).map(Arc::make_mut);
            if let Some(Inode::Dir(dir)) = dir {
                put(&mut dir.base, name, inode);
            }
        });
    }

    /// Reads at an offset; 0 bytes mean the end of the file.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn read_at(&self, inode: InodeId, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = &self.open_file(inode)?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = bytes.get(from..).unwrap_or_default();
        let len = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), there.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    /// Writes at an offset. Writing nothing does nothing.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn write_at(&mut self, inode: InodeId, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let file = self.open_file_mut(inode)?;
        let offset = usize::try_from(offset).map_err(|_| failure(io::ErrorKind::FileTooLarge))?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = offset + bytes.len();
        if file.bytes.len() < end {
            let mut longer = Vec::with_capacity(end);
            longer.extend_from_slice(&file.bytes);
            longer.resize(end, 0);
            file.bytes = longer.into();
        }
        if let Some(to) = Arc::make_mut(&mut file.bytes).get_mut(offset..end) {
            to.copy_from_slice(bytes);
        }
        file.changes.push(Change {
            what: Edit::Write {
                offset,
                bytes: bytes.into(),
            },
            fate: Fate::Dirty,
        });
        Ok(bytes.len())
    }

    /// Cuts or lengthens a file.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn set_len(&mut self, inode: InodeId, len_bytes: u64) -> io::Result<()> {
        let file = self.open_file_mut(inode)?;
        let len = usize::try_from(len_bytes).map_err(|_| failure(io::ErrorKind::FileTooLarge))?;
        if file.bytes.len() == len {
            return Ok(());
        }
        let mut bytes = file.bytes.to_vec();
        bytes.resize(len, 0);
        file.bytes = bytes.into();
        let what = Edit::SetLen(len);
        let fate = Fate::Dirty;
        file.changes.push(Change { what, fate });
        Ok(())
    }

    /// The file's length.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn len_bytes(&self, inode: InodeId) -> io::Result<u64> {
        Ok(self.open_file(inode)?.bytes.len() as u64)
    }

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn sync_data(&mut self, inode: InodeId) -> io::Result<()> {
        let file = self.open_file_mut(inode)?;
        if file.changes.iter().all(|change| change.fate == Fate::Dirty) {
            file.changes.clear();
            file.base = Arc::clone(&file.bytes);
            return Ok(());
        }
        for change in &mut file.changes {
            if change.fate == Fate::Dirty {
                change.fate = Fate::Durable;
            }
        }
        file.settle();
        Ok(())
    }

    /// What a sync that fails does: nothing becomes durable, and the writes that it should have made durable are
    /// taken for clean.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn fail_sync(&mut self, inode: InodeId) -> io::Result<()> {
        let file = self.open_file_mut(inode)?;
        for change in &mut file.changes {
            if change.fate == Fate::Dirty && matches!(change.what, Edit::Write { .. }) {
                change.fate = Fate::TakenForClean;
            }
        }
        Ok(())
    }

    /// How many changes a loss of power may keep or drop.
    #[must_use]
    pub fn pending(&self) -> usize {
        let of = |inode: &Arc<Inode>| match inode.as_ref() {
            Inode::File(file) => file.changes.len(),
            Inode::Dir(_) => 0,
        };
        self.renames.len() + self.inodes.values().map(of).sum::<usize>()
    }
}

impl Default for FileInode {
    fn default() -> Self {
        let nothing: Arc<[u8]> = Arc::new([]);
        Self {
            bytes: Arc::clone(&nothing),
            base: nothing,
            changes: Vec::new(),
            opens: 0,
        }
    }
}

impl FileInode {
    /// Puts what became durable into the base. What is left is what failed syncs left of it.
    fn settle(&mut self) {
        let mut durable: Vec<Edit> = Vec::new();
        let mut left: Vec<Change> = Vec::new();
        // From the end, so that what was made durable later is known.
        for change in self.changes.drain(..).rev() {
            match (change.fate, change.what) {
                (Fate::Durable, what) => durable.push(what),
                (fate, Edit::Write { offset, bytes }) => {
                    let pieces = outside(offset..offset + bytes.len(), &durable);
                    left.extend(pieces.into_iter().rev().map(|piece| {
                        let within = piece.start - offset..piece.end - offset;
                        let bytes = bytes.get(within).unwrap_or_default().into();
                        let offset = piece.start;
                        let what = Edit::Write { offset, bytes };
                        Change { what, fate }
                    }));
                }
                (fate, what) => left.push(Change { what, fate }),
            }
        }
        let mut content = self.base.to_vec();
        for edit in durable.iter().rev() {
            edit.apply(&mut content);
        }
        self.base = content.into();
        left.reverse();
        self.changes = left;
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => content.resize(*len, 0),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(to) = content.get_mut(*offset..end) {
                    to.copy_from_slice(bytes);
                }
            }
        }
    }
}

/// The parts of a range that no later edit overwrites or cuts off.
fn outside(range: Range<usize>, later: &[Edit]) -> Vec<Range<usize>> {
    let mut pieces = vec![range];
    for edit in later {
        let covered = match edit {
            Edit::Write { offset, bytes } => *offset..offset + bytes.len(),
            Edit::SetLen(len) => *len..usize::MAX,
        };
        let without = |piece: Range<usize>| {
            let before = piece.start..piece.end.min(covered.start);
            let behind = piece.start.max(covered.end)..piece.end;
            [before, behind]
        };
        pieces = pieces.into_iter().flat_map(without).collect();
        pieces.retain(|piece| !piece.is_empty());
    }
    pieces
}

fn parts(path: &Path) -> impl Iterator<Item = io::Result<&str>> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(
            name.to_str()
                .ok_or_else(|| failure(io::ErrorKind::InvalidInput)),
        ),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => {
            Some(Err(failure(io::ErrorKind::InvalidInput)))
        }
    })
}

/// Calls `set` with each name that a change sets or takes away.
fn change_names(change: &NameChange, mut set: impl FnMut(InodeId, &Arc<str>, Option<InodeId>)) {
    match change {
        NameChange::Link { dir, name, inode } => set(*dir, name, Some(*inode)),
        NameChange::Unlink { dir, name } => set(*dir, name, None),
        NameChange::Rename { from, to, inode } => {
            set(from.0, &from.1, None);
            set(to.0, &to.1, Some(*inode));
        }
    }
}

fn put(names: &mut BTreeMap<Arc<str>, InodeId>, name: &Arc<str>, inode: Option<InodeId>) {
    match inode {
        Some(inode) => names.insert(Arc::clone(name), inode),
        None => names.remove(name),
    };
}

/// What survives of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    All,
    /// The first bytes of a write.
    Prefix(usize),
    /// The bytes of a write from one on.
    Suffix(usize),
    /// Of each sector of a write what this bit says.
    Sectors(u64),
}

/// What survives of a change, and what is where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Survival {
    part: Part,
    /// Of a write that lengthened the file: whether its whole length survived all the same.
    length: bool,
    /// What is read where the length survived and the data did not.
    stale: Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stale {
    Zeros,
    /// What the beginning of another file was, or of this one.
    OldBytes,
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

/// One change that may or may not survive.
#[derive(Debug, Clone, Copy)]
enum Optional {
    Name(usize),
    /// The inode, and which of its changes.
    File(InodeId, usize),
}

/// Goes through what a loss of power may leave.
///
/// First all subsets of the changes (where there are few, otherwise a choice of them), then torn ones.
/// The order is decided by the seed.
#[derive(Debug)]
pub struct CrashStates<'a> {
    disk: &'a VirtualDisk,
    optional: Vec<Optional>,
    /// Where in `optional` the changes of a file begin.
    firsts: BTreeMap<InodeId, usize>,
    plans: std::vec::IntoIter<Plan>,
    rng: StdRng,
    /// So many more are drawn when the plans are over.
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
    /// One change survives so, and the others as this says.
    Torn(usize, Survival, Others),
}

#[derive(Debug, Clone, Copy)]
enum Others {
    Nothing,
    All,
    /// Those before it, and none behind it.
    Before,
}

impl VirtualDisk {
    /// The states that a loss of power now may leave, as disks on which all is durable and nothing open.
    ///
    /// All subsets of the pending changes where there are 12 at most, else a choice of them; and torn
    /// changes, of which `torn_max` are chosen by the seed where there are more, or drawn where there are less
    /// and anything can be torn. The same state may come more than once.
    #[must_use]
    pub fn crash_disks(&self, seed: u64, torn_max: usize) -> CrashStates<'_> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut optional: Vec<Optional> = (0..self.renames.len()).map(Optional::Name).collect();
        let mut firsts = BTreeMap::new();
        let mut tears: Vec<Plan> = Vec::new();
        for (id, inode) in &self.inodes {
            let Inode::File(file) = inode.as_ref() else {
                continue;
            };
            firsts.insert(*id, optional.len());
            for (index, change) in file.changes.iter().enumerate() {
                let is_recent = index + RECENT >= file.changes.len();
                if let (Edit::Write { offset, bytes }, true) = (&change.what, is_recent) {
                    let lengthens = offset + bytes.len() > file.base.len();
                    let ways = ways_to_tear(*offset, bytes.len(), lengthens);
                    for way in ways {
                        for others in [Others::Nothing, Others::All, Others::Before] {
                            tears.push(Plan::Torn(optional.len(), way, others));
                        }
                    }
                }
                optional.push(Optional::File(*id, index));
            }
        }
        let count = optional.len();
        let mut plans: Vec<Plan> = Vec::new();
        if count <= SUBSETS_OF_MAX {
            plans.extend((0..1 << count).map(Plan::Subset));
        } else {
            plans.extend([Plan::First(0), Plan::First(count)]);
            for index in (0..count).step_by(count.div_ceil(SAMPLES_MAX)) {
                plans.extend([Plan::AllBut(index), Plan::Only(index)]);
                plans.extend([Plan::First(index), Plan::Last(index)]);
            }
            plans.extend(std::iter::repeat_n(
                Plan::Random,
                1 << SUBSETS_OF_MAX.min(8),
            ));
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
            optional,
            firsts,
            plans: plans.into_iter(),
            rng,
            drawn,
        }
    }

    /// The states that a loss of power now may leave; see [`VirtualDisk::crash_disks`].
    pub fn crash_states(&self, seed: u64, torn_max: usize) -> impl Iterator<Item = Image> + '_ {
        self.crash_disks(seed, torn_max).map(|disk| disk.image())
    }

    /// One state that a loss of power now may leave.
    pub fn random_crash<R: Rng + ?Sized>(&self, rng: &mut R) -> Image {
        let mut states = self.crash_disks(rng.random(), 0);
        let count = states.optional.len();
        let plan = match rng.random_range(0..8) {
            0 => Some(Plan::First(0)),
            1 => Some(Plan::First(count)),
            2 => Some(Plan::First(rng.random_range(0..=count))),
            3 => Some(Plan::Random),
            _ => None,
        };
        let disk = match plan {
            Some(plan) => states.carry_out(&plan),
            None => states.drawn(),
        };
        disk.image()
    }

    /// The disk after a loss of power that each change survives as `survives` says.
    fn crashed(&self, survives: &dyn Fn(Optional) -> Survival) -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            renames: Vec::new(),
            next: self.next,
        };
        let mut names: BTreeMap<InodeId, BTreeMap<Arc<str>, InodeId>> = BTreeMap::new();
        for (index, change) in self.renames.iter().enumerate() {
            if survives(Optional::Name(index)).part == Part::Nothing {
                continue;
            }
            change_names(change, |dir, name, inode| {
                let Some(base) = self.dir(dir).map(|dir| &dir.base) else {
                    return;
                };
                let names = names.entry(dir).or_insert_with(|| base.clone());
                put(names, name, inode);
            });
        }
        self.revive(InodeId::ROOT, &mut names, survives, &mut disk);
        disk
    }

    fn revive(
        &self,
        id: InodeId,
        names: &mut BTreeMap<InodeId, BTreeMap<Arc<str>, InodeId>>,
        survives: &dyn Fn(Optional) -> Survival,
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
                let content = self.content(id, file, survives);
                let file = FileInode {
                    bytes: Arc::clone(&content),
                    base: content,
                    changes: Vec::new(),
                    opens: 0,
                };
                to.inodes.insert(id, Arc::new(Inode::File(file)));
            }
            Inode::Dir(dir) => {
                let base = names.remove(&id).unwrap_or_else(|| dir.base.clone());
                for inode in base.values() {
                    self.revive(*inode, names, survives, to);
                }
                let names = base.clone();
                let dir = Inode::Dir(DirInode { names, base });
                to.inodes.insert(id, Arc::new(dir));
            }
        }
    }

    fn content(
        &self,
        id: InodeId,
        file: &FileInode,
        survives: &dyn Fn(Optional) -> Survival,
    ) -> Arc<[u8]> {
        let mut content: Option<Vec<u8>> = None;
        for (index, change) in file.changes.iter().enumerate() {
            let survival = survives(Optional::File(id, index));
            if survival == Survival::NOTHING {
                continue;
            }
            let content = content.get_or_insert_with(|| file.base.to_vec());
            match &change.what {
                what if survival.part == Part::All => what.apply(content),
                Edit::SetLen(_) => {}
                Edit::Write { offset, bytes } => {
                    self.apply_part(*offset, bytes, survival, content);
                }
            }
        }
        content.map_or_else(|| Arc::clone(&file.base), Into::into)
    }

    /// Applies what survives of a torn write.
    fn apply_part(&self, offset: usize, bytes: &[u8], survival: Survival, content: &mut Vec<u8>) {
        let len = bytes.len();
        let one = |range| std::iter::once(range).collect();
        let kept: Vec<Range<usize>> = match survival.part {
            Part::Nothing => Vec::new(),
            Part::All => one(0..len),
            Part::Prefix(end) => one(0..end.min(len)),
            Part::Suffix(start) => one(start.min(len)..len),
            Part::Sectors(mask) => {
                let of = sectors(offset, len).enumerate();
                of.filter(|(number, _)| mask >> (number % 64) & 1 == 1)
                    .map(|(_, range)| range)
                    .collect()
            }
        };
        let data_end = kept.last().map_or(0, |range| offset + range.end);
        let end = if survival.length {
            offset + len
        } else {
            data_end
        };
        let old_len = content.len();
        if old_len < end {
            content.resize(end, 0);
            if let Some(new) = content.get_mut(old_len.max(offset)..) {
                self.fill(survival.stale, new);
            }
        }
        for range in kept {
            let (from, to) = (range.clone(), range.start + offset..range.end + offset);
            if let (Some(to), Some(from)) = (content.get_mut(to), bytes.get(from)) {
                to.copy_from_slice(from);
            }
        }
    }

    fn fill(&self, stale: Stale, new: &mut [u8]) {
        match stale {
            Stale::Zeros => {}
            Stale::Noise(seed) => StdRng::seed_from_u64(seed).fill(new),
            Stale::OldBytes => {
                let files = self
                    .inodes
                    .values()
                    .filter_map(|inode| match inode.as_ref() {
                        Inode::File(file) => Some(&file.base),
                        Inode::Dir(_) => None,
                    });
                let Some(old) = files.max_by_key(|base| base.len()) else {
                    return;
                };
                // No line begins where one of a file that is there does: its blocks are not free.
                for (to, from) in new.iter_mut().zip(old.iter().cycle().skip(1)) {
                    *to = *from;
                }
            }
        }
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

/// The ways in which a write is torn: at the borders of sectors, a byte before and behind them, and a byte from its ends.
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
    /// Any way in which a change may survive.
    fn draw(&mut self, optional: Optional) -> Survival {
        let len = match optional {
            Optional::Name(_) => return Survival::whole(self.rng.random()),
            Optional::File(id, index) => {
                let file = self.disk.file(id);
                let change = file.and_then(|file| file.changes.get(index));
                match change.map(|change| &change.what) {
                    Some(Edit::Write { bytes, .. }) => bytes.len(),
                    _ => return Survival::whole(self.rng.random()),
                }
            }
        };
        let part = match self.rng.random_range(0..6) {
            0 => Part::Nothing,
            1 | 2 => Part::All,
            3 => Part::Prefix(self.rng.random_range(0..=len)),
            4 => Part::Suffix(self.rng.random_range(0..=len)),
            _ => Part::Sectors(self.rng.random()),
        };
        let stale = match self.rng.random_range(0..4) {
            0 => Stale::OldBytes,
            1 => Stale::Noise(self.rng.random()),
            _ => Stale::Zeros,
        };
        Survival {
            part,
            length: self.rng.random(),
            stale,
        }
    }

    /// A state in which each change survives in any way.
    fn drawn(&mut self) -> VirtualDisk {
        let optional = self.optional.clone();
        let choice: Vec<Survival> = optional.into_iter().map(|one| self.draw(one)).collect();
        self.crashed(&choice)
    }

    fn carry_out(&mut self, plan: &Plan) -> VirtualDisk {
        let count = self.optional.len();
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
        self.crashed(&choice)
    }

    fn crashed(&self, choice: &[Survival]) -> VirtualDisk {
        let survives = |wanted: Optional| {
            let index = match wanted {
                Optional::Name(index) => Some(index),
                Optional::File(id, index) => self.firsts.get(&id).map(|first| first + index),
            };
            let found = index.and_then(|index| choice.get(index));
            found.copied().unwrap_or(Survival::NOTHING)
        };
        self.disk.crashed(&survives)
    }
}

impl Iterator for CrashStates<'_> {
    type Item = VirtualDisk;

    fn next(&mut self) -> Option<VirtualDisk> {
        if let Some(plan) = self.plans.next() {
            return Some(self.carry_out(&plan));
        }
        self.drawn = self.drawn.checked_sub(1)?;
        Some(self.drawn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> &Path {
        Path::new(text)
    }

    /// A disk with a durable directory `s` and in it a durable file `f`.
    fn disk_with(bytes: &[u8]) -> (VirtualDisk, InodeId) {
        let mut disk = VirtualDisk::new();
        disk.create_dir(path("/s")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        let file = disk.open(path("/s/f"), OpenMode::CreateNew).unwrap();
        disk.write_at(file, bytes, 0).unwrap();
        disk.sync_data(file).unwrap();
        disk.sync_dir(path("/s")).unwrap();
        assert_eq!(disk.pending(), 0);
        (disk, file)
    }

    fn all(disk: &VirtualDisk) -> Vec<Image> {
        let mut images: Vec<Image> = disk.crash_states(1, 2_000).collect();
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
    fn names_are_reordered_unless_a_sync_of_the_directory_stands_between() {
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
    fn a_removed_file_can_be_used_by_who_has_it_open() {
        let (mut disk, file) = disk_with(b"abc");
        disk.remove(path("/s/f")).unwrap();
        disk.sync_dir(path("/s")).unwrap();
        disk.write_at(file, b"d", 3).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(disk.read_at(file, &mut bytes, 1).unwrap(), 3);
        assert_eq!(&bytes[..3], b"bcd");
        assert!(disk.image().files.is_empty());
        disk.close(file);
        assert!(disk.read_at(file, &mut bytes, 0).is_err());
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
    fn mistakes_get_the_answers_of_a_real_system() {
        let (mut disk, file) = disk_with(b"abc");
        disk.create_dir(path("/s/d")).unwrap();
        disk.create_dir(path("/s/d")).unwrap();
        let kind = |result: io::Result<InodeId>| result.unwrap_err().kind();
        assert_eq!(
            kind(disk.open(path("/s/none"), OpenMode::Read)),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            kind(disk.open(path("/s/f"), OpenMode::CreateNew)),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(disk.open(path("/s/f/x"), OpenMode::CreateNew)),
            io::ErrorKind::NotADirectory
        );
        assert_eq!(
            kind(disk.open(path("/s/d"), OpenMode::ReadWrite)),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            disk.remove(path("/s/d")).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            disk.rename(path("/s/f"), path("/s/d")).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            disk.create_dir(path("/s/f")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            disk.list(path("/s/f")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        assert_eq!(
            disk.open(path("/s/../s"), OpenMode::Read)
                .unwrap_err()
                .kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(disk.is_dir(path("/s")).unwrap() && !disk.is_dir(path("/s/f")).unwrap());
        assert_eq!(disk.len_bytes(file).unwrap(), 3);
        let mut names = disk.list(path("/s")).unwrap();
        names.sort();
        assert_eq!(names, ["d", "f"]);
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
        let image = |seed| disk.random_crash(&mut StdRng::seed_from_u64(seed));
        assert_eq!(image(3), image(3));
        let drawn: BTreeSet<u128> = (0..50).map(|seed| image(seed).digest()).collect();
        assert!(drawn.len() > 10);
    }

    #[test]
    fn an_image_makes_the_disk_that_it_was_made_from() {
        let (mut disk, _) = disk_with(b"abc");
        disk.create_dir(path("/s/q")).unwrap();
        let file = disk.open(path("/s/q/x"), OpenMode::CreateNew).unwrap();
        disk.write_at(file, b"x", 0).unwrap();
        let image = disk.image();
        let again = VirtualDisk::from_image(&image);
        assert_eq!((again.image(), again.pending()), (image.clone(), 0));
        assert_eq!(again.digest(), disk.digest());
        let mut changed = image.clone();
        changed.files.insert("s/f".into(), b"abd".as_slice().into());
        assert_ne!(changed.digest(), image.digest());
    }
}
