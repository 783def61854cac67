//! A disk in memory that knows what is durable: the content that processes see, the part of it
//! that certainly survives a power loss, and the changes that may or may not.
//!
//! A pure data structure: no locks, no threads, no I/O. [`crash`](crate::sim::crash) computes what
//! a power loss leaves.
//!
//! # Assumptions about the disk (`docs/FORMAT.md`, section 9)
//! - A successful sync of a file makes its bytes and its length durable, but not its name. A
//!   successful sync of a directory makes the names in it durable, but not the bytes of the files.
//! - Of the changes that were not synced, any part survives, byte by byte and in any order. A write
//!   that lengthens a file and the file's new length survive independently: zeros, or old bytes of
//!   other files, may be in place of the data, or the data may be cut off.
//! - A rename is one change: after a crash the file has the old name or the new one, never both,
//!   and a file that was renamed over is there or replaced, never absent. A file that was created
//!   and renamed since the last sync of the directory may have no name at all.
//! - Changes of names survive independently of each other until the directory is synced, but two
//!   changes of one name keep their order: otherwise the directory would be in a state in which it
//!   never was.
//! - After a *failed* sync of a file, the writes that it should have made durable may or may not be
//!   on the disk, and the system takes their pages for clean: a later successful sync does not make
//!   them durable unless they are written again. Processes still see them. Names and cuts go
//!   through the filesystem's journal and are left to the next sync.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use strand_core::testing::OpenMode;

use crate::sim::image::{Digest, Image};

/// A longer file is a mistake of its writer.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// The number of a file or a directory, whatever its names. Never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u64);

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// The inode with this number, if there is one.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The inode's number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The attributes of a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length of a file; 0 for a directory.
    pub len_bytes: u64,
    /// The number of a file's names; 2 for a directory.
    pub names: u32,
}

/// A disk with its page cache. Cheap to clone: contents are shared until they change.
#[derive(Debug, Clone)]
pub struct VirtualDisk {
    pub(super) inodes: BTreeMap<InodeId, Arc<Inode>>,
    /// Changes of names that are not durable yet, oldest first.
    pub(super) name_changes: Vec<NameChange>,
    pub(super) next_inode: u64,
    /// Counts the changes, which orders those of different files.
    pub(super) changes: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Inode {
    File(FileInode),
    Dir(DirInode),
}

#[derive(Debug, Clone)]
pub(super) struct FileInode {
    /// The content that processes see.
    pub(super) bytes: Arc<Vec<u8>>,
    /// The content on the disk, before `changes`.
    pub(super) base: Arc<Vec<u8>>,
    /// The changes since, oldest first.
    pub(super) changes: Vec<Change>,
    pub(super) opens: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct DirInode {
    /// The names that processes see.
    pub(super) names: BTreeMap<Arc<str>, InodeId>,
    /// The names on the disk, before [`VirtualDisk::name_changes`].
    pub(super) base: BTreeMap<Arc<str>, InodeId>,
    /// Every change of a name is durable at once.
    pub(super) is_safe: bool,
    /// How often the names that processes see have changed.
    pub(super) changed: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    /// Its number among all changes of the disk.
    pub(super) at: u64,
    pub(super) edit: Edit,
    fate: Fate,
}

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// The fate of a change at a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Any part of it may survive. The next sync makes it durable.
    Dirty,
    /// A write whose sync failed: any part of it may survive, and no sync makes it durable.
    TakenForClean,
    /// It survives. Only until it is put into the base.
    Durable,
}

/// A change of names: a removal takes one, a new file gets one, a rename does both.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    /// Its number among all changes of the disk.
    pub(super) at: u64,
    pub(super) taken: Option<(InodeId, Arc<str>)>,
    pub(super) given: Option<(InodeId, Arc<str>, InodeId)>,
}

impl NameChange {
    fn dirs(&self) -> impl Iterator<Item = InodeId> {
        let taken = self.taken.as_ref().map(|(dir, _)| *dir);
        taken
            .into_iter()
            .chain(self.given.as_ref().map(|(dir, ..)| *dir))
    }

    /// Calls `set` with each name that the change sets or takes away.
    pub(super) fn each(&self, mut set: impl FnMut(InodeId, &Arc<str>, Option<InodeId>)) {
        if let Some((dir, name)) = &self.taken {
            set(*dir, name, None);
        }
        if let Some((dir, name, inode)) = &self.given {
            set(*dir, name, Some(*inode));
        }
    }
}

pub(super) fn put(
    names: &mut BTreeMap<Arc<str>, InodeId>,
    name: &Arc<str>,
    inode: Option<InodeId>,
) {
    match inode {
        Some(inode) => names.insert(Arc::clone(name), inode),
        None => names.remove(name),
    };
}

fn failure(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

fn index(offset: u64) -> io::Result<usize> {
    let offset = Some(offset).filter(|offset| *offset <= FILE_BYTES_MAX);
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    offset.ok_or_else(|| failure(io::ErrorKind::FileTooLarge))
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
            name_changes: Vec::new(),
            next_inode: InodeId::ROOT.0 + 1,
            changes: 0,
        }
    }

    /// A disk on which all of this is durable.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let mut disk = Self::new();
        let known = |done: io::Result<()>, path: &str| {
            done.unwrap_or_else(|error| unreachable!("an image has {path}: {error}"));
        };
        for dir in &image.dirs {
            known(disk.create_dir(Path::new(&**dir)), dir);
        }
        for (path, bytes) in &image.files {
            known(disk.add_file(Path::new(&**path), Arc::clone(bytes)), path);
        }
        disk.sync_all();
        disk
    }

    fn add_file(&mut self, path: &Path, bytes: Arc<Vec<u8>>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let file = FileInode {
            bytes,
            ..FileInode::default()
        };
        self.add(dir, name, Inode::File(file)).map(drop)
    }

    /// Copies a directory of the real disk to `path`, durably. A file with several names becomes
    /// several files.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a name that is no valid Unicode.
    pub fn copy_from(&mut self, from: &Path, path: &Path) -> io::Result<()> {
        self.create_dir(path)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.copy_from(&entry.path(), &path)?;
            } else {
                self.add_file(&path, fs::read(entry.path())?.into())?;
            }
        }
        self.sync_all();
        Ok(())
    }

    /// Writes the content that processes see below an existing directory of the real disk. A file
    /// with several names is linked.
    ///
    /// # Errors
    /// The system's; what was written before it stays.
    pub fn copy_to(&self, dir: &Path) -> io::Result<()> {
        let mut written: BTreeMap<InodeId, Arc<str>> = BTreeMap::new();
        let mut done = Ok(());
        self.walk(InodeId::ROOT, "", &mut |path, id, inode| {
            if done.is_err() {
                return;
            }
            let place = dir.join(&*path);
            done = match (inode, written.get(&id)) {
                (Inode::Dir(_), _) => fs::create_dir_all(place),
                (Inode::File(_), Some(first)) => fs::hard_link(dir.join(&**first), place),
                (Inode::File(file), None) => fs::write(place, &*file.bytes),
            };
            written.insert(id, path);
        });
        done
    }

    /// Calls `visit` with everything below `dir` that processes see, a directory before its files.
    fn walk(&self, dir: InodeId, prefix: &str, visit: &mut impl FnMut(Arc<str>, InodeId, &Inode)) {
        for (name, id) in self.dir(dir).into_iter().flat_map(|dir| &dir.names) {
            let path: Arc<str> = if prefix.is_empty() {
                Arc::clone(name)
            } else {
                format!("{prefix}/{name}").into()
            };
            if let Some(inode) = self.inodes.get(id) {
                visit(Arc::clone(&path), *id, inode);
                self.walk(*id, &path, visit);
            }
        }
    }

    /// Everything that processes see, which is what the death of all of them leaves.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = Image::default();
        self.walk(InodeId::ROOT, "", &mut |path, _, inode| match inode {
            Inode::File(file) => drop(image.files.insert(path, Arc::clone(&file.bytes))),
            Inode::Dir(_) => drop(image.dirs.insert(path)),
        });
        image
    }

    /// A number for everything that processes see, like [`Image::digest`], but cheaper.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        self.add_to_digest(InodeId::ROOT, &mut digest);
        digest.end()
    }

    fn add_to_digest(&self, dir: InodeId, digest: &mut Digest) {
        for (name, inode) in self.dir(dir).into_iter().flat_map(|dir| &dir.names) {
            digest.add(name.as_bytes());
            match self.inodes.get(inode).map(AsRef::as_ref) {
                Some(Inode::File(file)) => digest.add(&file.bytes),
                Some(Inode::Dir(_)) => self.add_to_digest(*inode, digest),
                None => {}
            }
        }
        digest.add(b"/"); // No name is that.
    }

    fn inode(&self, id: InodeId) -> io::Result<&Inode> {
        let inode = self.inodes.get(&id).map(AsRef::as_ref);
        inode.ok_or_else(|| failure(io::ErrorKind::NotFound))
    }

    fn inode_mut(&mut self, id: InodeId) -> io::Result<&mut Inode> {
        let inode = self.inodes.get_mut(&id).map(Arc::make_mut);
        inode.ok_or_else(|| failure(io::ErrorKind::NotFound))
    }

    pub(super) fn dir(&self, id: InodeId) -> io::Result<&DirInode> {
        match self.inode(id)? {
            Inode::Dir(dir) => Ok(dir),
            Inode::File(_) => Err(failure(io::ErrorKind::NotADirectory)),
        }
    }

    fn dir_mut(&mut self, id: InodeId) -> io::Result<&mut DirInode> {
        match self.inode_mut(id)? {
            Inode::Dir(dir) => Ok(dir),
            Inode::File(_) => Err(failure(io::ErrorKind::NotADirectory)),
        }
    }

    pub(super) fn file(&self, id: InodeId) -> io::Result<&FileInode> {
        match self.inode(id)? {
            Inode::File(file) => Ok(file),
            Inode::Dir(_) => Err(failure(io::ErrorKind::IsADirectory)),
        }
    }

    fn file_mut(&mut self, id: InodeId) -> io::Result<&mut FileInode> {
        match self.inode_mut(id)? {
            Inode::File(file) => Ok(file),
            Inode::Dir(_) => Err(failure(io::ErrorKind::IsADirectory)),
        }
    }

    /// The inode of this name in a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn lookup_in(&self, dir: InodeId, name: &str) -> io::Result<InodeId> {
        let found = self.dir(dir)?.names.get(name);
        found
            .copied()
            .ok_or_else(|| failure(io::ErrorKind::NotFound))
    }

    /// The inode at `path`, which begins at the root with or without a `/`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and `InvalidInput` for a path with `..` or no valid Unicode.
    pub fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        parts(path).try_fold(InodeId::ROOT, |dir, name| self.lookup_in(dir, name?))
    }

    /// The directory that `path` is in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(InodeId, Arc<str>)> {
        let name = parts(path)
            .last()
            .ok_or_else(|| failure(io::ErrorKind::InvalidInput))??;
        let dir = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.into()))
    }

    /// The attributes of a file or a directory.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn attributes(&self, id: InodeId) -> io::Result<Attributes> {
        Ok(match self.inode(id)? {
            Inode::Dir(_) => Attributes {
                is_dir: true,
                len_bytes: 0,
                names: 2,
            },
            Inode::File(file) => {
                let names = self.dirs().flat_map(|dir| dir.names.values());
                let names = names.filter(|named| **named == id).count();
                Attributes {
                    is_dir: false,
                    len_bytes: file.bytes.len() as u64,
                    names: u32::try_from(names).unwrap_or(u32::MAX),
                }
            }
        })
    }

    fn dirs(&self) -> impl Iterator<Item = &DirInode> {
        self.inodes.values().filter_map(|inode| match &**inode {
            Inode::Dir(dir) => Some(dir),
            Inode::File(_) => None,
        })
    }

    fn change_names(
        &mut self,
        taken: Option<(InodeId, Arc<str>)>,
        given: Option<(InodeId, Arc<str>, InodeId)>,
    ) {
        self.changes += 1;
        let at = self.changes;
        let change = NameChange { at, taken, given };
        change.each(|dir, name, inode| {
            if let Ok(dir) = self.dir_mut(dir) {
                put(&mut dir.names, name, inode);
                dir.changed += 1;
            }
        });
        let is_safe = |dir| self.dir(dir).is_ok_and(|dir| dir.is_safe);
        if change.dirs().all(is_safe) {
            self.sync_name(&change);
        } else {
            self.name_changes.push(change);
        }
    }

    fn sync_name(&mut self, change: &NameChange) {
        change.each(|dir, name, inode| {
            if let Ok(dir) = self.dir_mut(dir) {
                put(&mut dir.base, name, inode);
            }
        });
    }

    fn add(&mut self, dir: InodeId, name: Arc<str>, inode: Inode) -> io::Result<InodeId> {
        self.must_be_free(dir, &name)?;
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        self.inodes.insert(id, Arc::new(inode));
        self.change_names(None, Some((dir, name, id)));
        Ok(id)
    }

    fn must_be_free(&self, dir: InodeId, name: &str) -> io::Result<()> {
        match self.lookup_in(dir, name) {
            Ok(_) => Err(failure(io::ErrorKind::AlreadyExists)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates a file.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotADirectory`.
    pub fn create_in(&mut self, dir: InodeId, name: &str) -> io::Result<InodeId> {
        self.add(dir, name.into(), Inode::File(FileInode::default()))
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotADirectory`.
    pub fn create_dir_in(&mut self, dir: InodeId, name: &str) -> io::Result<InodeId> {
        self.add(dir, name.into(), Inode::Dir(DirInode::default()))
    }

    /// Gives a file a further name.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `IsADirectory`, `NotADirectory`.
    pub fn link_in(&mut self, id: InodeId, dir: InodeId, name: &str) -> io::Result<()> {
        self.file(id)?;
        self.must_be_free(dir, name)?;
        self.change_names(None, Some((dir, name.into(), id)));
        Ok(())
    }

    /// Opens the file or directory, so that it stays without a name until [`VirtualDisk::close`].
    ///
    /// # Errors
    /// `NotFound`.
    pub fn open_inode(&mut self, id: InodeId) -> io::Result<()> {
        if let Inode::File(file) = self.inode_mut(id)? {
            file.opens += 1;
        }
        Ok(())
    }

    /// Opens a file; to be closed by [`VirtualDisk::close`].
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `AlreadyExists`, `IsADirectory`.
    pub fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        let (dir, name) = self.place(path)?;
        self.open_in(dir, &name, mode)
    }

    /// Opens a file; see [`VirtualDisk::open`].
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `AlreadyExists`, `IsADirectory`.
    pub fn open_in(&mut self, dir: InodeId, name: &str, mode: OpenMode) -> io::Result<InodeId> {
        let id = if mode == OpenMode::CreateNew {
            self.create_in(dir, name)?
        } else {
            self.lookup_in(dir, name)?
        };
        // A directory can be opened to read, but is not read.
        if mode != OpenMode::Read {
            self.file(id)?;
        }
        self.open_inode(id)?;
        Ok(id)
    }

    /// Closes a file. One without a name is gone when no process has it open any more.
    pub fn close(&mut self, id: InodeId) {
        if let Ok(file) = self.file_mut(id) {
            file.opens = file.opens.saturating_sub(1);
        }
        self.forget(id);
    }

    /// Closes all files: every process is dead.
    pub fn close_all(&mut self) {
        let open = |(id, inode): (&InodeId, &Arc<Inode>)| match inode.as_ref() {
            Inode::File(file) if file.opens > 0 => Some(*id),
            _ => None,
        };
        let open: Vec<InodeId> = self.inodes.iter().filter_map(open).collect();
        for id in open {
            if let Ok(file) = self.file_mut(id) {
                file.opens = 0;
            }
            self.forget(id);
        }
    }

    /// Drops a file that nothing leads to any more.
    fn forget(&mut self, id: InodeId) {
        let is_open = self.file(id).map_or(true, |file| file.opens > 0);
        let may_be_named = || {
            let given = self
                .name_changes
                .iter()
                .filter_map(|change| change.given.as_ref());
            let mut names = self
                .dirs()
                .flat_map(|dir| dir.names.values().chain(dir.base.values()));
            given.map(|(.., given)| *given).any(|given| given == id)
                || names.any(|named| *named == id)
        };
        if !is_open && !may_be_named() {
            self.inodes.remove(&id);
        }
    }

    fn forget_all(&mut self) {
        let all: Vec<InodeId> = self.inodes.keys().copied().collect();
        for id in all {
            self.forget(id);
        }
    }

    /// The names in a directory with their inodes, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn entries(&self, dir: InodeId) -> io::Result<Vec<(Arc<str>, InodeId)>> {
        let names = self.dir(dir)?.names.iter();
        Ok(names.map(|(name, id)| (Arc::clone(name), *id)).collect())
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.list_in(self.lookup(path)?)
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn list_in(&self, dir: InodeId) -> io::Result<Vec<String>> {
        let names = self.dir(dir)?.names.keys();
        Ok(names.map(ToString::to_string).collect())
    }

    /// Counts a change of a name that is not on the disk.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn touch_dir(&mut self, dir: InodeId) -> io::Result<()> {
        self.dir_mut(dir)?.changed += 1;
        Ok(())
    }

    /// How often the names in a directory have changed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn changed(&self, dir: InodeId) -> io::Result<u64> {
        Ok(self.dir(dir)?.changed)
    }

    /// The directory at `path`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn open_dir(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.lookup(path)?;
        self.dir(id).map(|_| id)
    }

    /// The directory of that name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn open_dir_in(&self, dir: InodeId, name: &str) -> io::Result<InodeId> {
        let id = self.lookup_in(dir, name)?;
        self.dir(id).map(|_| id)
    }

    /// Whether a directory is at `path`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(self.dir(self.lookup(path)?).is_ok())
    }

    /// Creates a directory and its parents, unless they exist.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotADirectory`.
    pub fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.lookup(path) {
            Ok(id) if self.dir(id).is_ok() => return Ok(()),
            Ok(_) => return Err(failure(io::ErrorKind::AlreadyExists)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(above) = path.parent() {
            self.create_dir(above)?;
        }
        let (dir, name) = self.place(path)?;
        self.create_dir_in(dir, &name).map(drop)
    }

    /// Renames a file or a directory over what has the new name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `DirectoryNotEmpty`.
    pub fn rename_in(&mut self, from: (InodeId, &str), to: (InodeId, &str)) -> io::Result<()> {
        let id = self.lookup_in(from.0, from.1)?;
        self.dir(to.0)?;
        let replaced = self.lookup_in(to.0, to.1).ok();
        if replaced == Some(id) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (self.dir(id), self.dir(replaced)) {
                (Err(_), Ok(_)) => return Err(failure(io::ErrorKind::IsADirectory)),
                (Ok(_), Err(error)) => return Err(error),
                (Ok(_), Ok(there)) if !there.names.is_empty() => {
                    return Err(failure(io::ErrorKind::DirectoryNotEmpty));
                }
                _ => {}
            }
        }
        self.change_names(Some((from.0, from.1.into())), Some((to.0, to.1.into(), id)));
        Ok(())
    }

    /// Renames a file or a directory over what has the new name; see [`VirtualDisk::rename_in`].
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `DirectoryNotEmpty`.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.rename_in((from.0, &from.1), (to.0, &to.1))
    }

    /// Removes a name of a file. Processes that have it open still read and write it.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`.
    pub fn remove_in(&mut self, dir: InodeId, name: &str) -> io::Result<()> {
        self.file(self.lookup_in(dir, name)?)?;
        self.change_names(Some((dir, name.into())), None);
        Ok(())
    }

    /// Removes a file; see [`VirtualDisk::remove_in`].
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.remove_in(dir, &name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `DirectoryNotEmpty`.
    pub fn remove_dir_in(&mut self, dir: InodeId, name: &str) -> io::Result<()> {
        if !self.dir(self.lookup_in(dir, name)?)?.names.is_empty() {
            return Err(failure(io::ErrorKind::DirectoryNotEmpty));
        }
        self.change_names(Some((dir, name.into())), None);
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn sync_dir_inode(&mut self, dir: InodeId) -> io::Result<()> {
        self.dir(dir)?;
        let all = std::mem::take(&mut self.name_changes);
        let (synced, left): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|change| change.dirs().any(|of| of == dir));
        self.name_changes = left;
        for change in &synced {
            self.sync_name(change);
        }
        if !synced.is_empty() {
            self.forget_all();
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.sync_dir_inode(self.lookup(path)?)
    }

    /// From now on, every name in this directory is durable at once: for evidence, which is not
    /// part of the test.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn make_safe(&mut self, dir: InodeId) -> io::Result<()> {
        self.sync_dir_inode(dir)?;
        self.dir_mut(dir)?.is_safe = true;
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync_all(&mut self) {
        for change in std::mem::take(&mut self.name_changes) {
            self.sync_name(&change);
        }
        for inode in self.inodes.values_mut() {
            if let Inode::File(file) = Arc::make_mut(inode) {
                file.changes.clear();
                file.base = Arc::clone(&file.bytes);
            }
        }
        self.forget_all();
    }

    /// Reads at an offset; 0 bytes mean the end of the file.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn read_at(&self, id: InodeId, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = &self.file(id)?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = bytes.get(from..).unwrap_or_default();
        let len = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), there.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`.
    pub fn content(&self, path: &Path) -> io::Result<&[u8]> {
        Ok(&self.file(self.lookup(path)?)?.bytes)
    }

    /// Writes at an offset. Writing nothing does nothing.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `FileTooLarge`.
    pub fn write_at(&mut self, id: InodeId, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset = index(offset)?;
        if !bytes.is_empty() {
            let bytes = Arc::from(bytes);
            self.edit(id, Edit::Write { offset, bytes })?;
        }
        Ok(bytes.len())
    }

    /// Cuts or lengthens a file.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `FileTooLarge`.
    pub fn set_len(&mut self, id: InodeId, len_bytes: u64) -> io::Result<()> {
        let len = index(len_bytes)?;
        if self.file(id)?.bytes.len() != len {
            self.edit(id, Edit::SetLen(len))?;
        }
        Ok(())
    }

    fn edit(&mut self, id: InodeId, edit: Edit) -> io::Result<()> {
        let at = self.changes + 1;
        let file = self.file_mut(id)?;
        let len = match &edit {
            Edit::SetLen(len) => *len,
            Edit::Write { offset, bytes } => file.bytes.len().max(offset + bytes.len()),
        };
        if file.bytes.len() != len {
            // Mostly without a copy of what is there: a file may grow to 64 MiB in small steps.
            Arc::make_mut(&mut file.bytes).resize(len, 0);
        }
        if let Edit::Write { offset, bytes } = &edit
            && let Some(to) = Arc::make_mut(&mut file.bytes).get_mut(*offset..*offset + bytes.len())
        {
            to.copy_from_slice(bytes);
        }
        let fate = Fate::Dirty;
        file.changes.push(Change { at, edit, fate });
        self.changes = at;
        Ok(())
    }

    /// The file's length.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn len_bytes(&self, id: InodeId) -> io::Result<u64> {
        Ok(self.file(id)?.bytes.len() as u64)
    }

    /// Makes the file's bytes and length durable, but not its names.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn sync_data(&mut self, id: InodeId) -> io::Result<()> {
        let file = self.file_mut(id)?;
        if file.changes.iter().all(|change| change.fate == Fate::Dirty) {
            if !file.write_to_base() {
                file.base = Arc::clone(&file.bytes);
            }
            file.changes.clear();
            return Ok(());
        }
        for change in &mut file.changes {
            if change.fate == Fate::Dirty {
                change.fate = Fate::Durable;
            }
        }
        file.fold_durable();
        Ok(())
    }

    /// Fails a sync: nothing becomes durable, and the system takes the writes for clean.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn fail_sync(&mut self, id: InodeId) -> io::Result<()> {
        for change in &mut self.file_mut(id)?.changes {
            if change.fate == Fate::Dirty && matches!(change.edit, Edit::Write { .. }) {
                change.fate = Fate::TakenForClean;
            }
        }
        Ok(())
    }

    /// How many changes a power loss may keep or drop.
    #[must_use]
    pub fn pending(&self) -> usize {
        let of = |inode: &Arc<Inode>| match inode.as_ref() {
            Inode::File(file) => file.changes.len(),
            Inode::Dir(_) => 0,
        };
        self.name_changes.len() + self.inodes.values().map(of).sum::<usize>()
    }
}

impl Default for FileInode {
    fn default() -> Self {
        let nothing: Arc<Vec<u8>> = Arc::default();
        Self {
            bytes: Arc::clone(&nothing),
            base: nothing,
            changes: Vec::new(),
            opens: 0,
        }
    }
}

impl FileInode {
    /// Makes all changes in the base, if that is faster than a copy of the whole file.
    fn write_to_base(&mut self) -> bool {
        if self.base.len() != self.bytes.len() {
            return false;
        }
        let Some(base) = Arc::get_mut(&mut self.base) else {
            return false;
        };
        self.changes.iter().all(|change| match &change.edit {
            Edit::SetLen(_) => false,
            Edit::Write { offset, bytes } => {
                let to = base.get_mut(*offset..*offset + bytes.len());
                to.map(|to| to.copy_from_slice(bytes)).is_some()
            }
        })
    }

    /// Puts the changes that became durable into the base, and keeps what failed syncs left.
    fn fold_durable(&mut self) {
        let mut durable: Vec<Edit> = Vec::new();
        let mut left: Vec<Change> = Vec::new();
        // From the end, so that what was made durable later is known.
        for Change { at, edit, fate } in self.changes.drain(..).rev() {
            match (fate, edit) {
                (Fate::Durable, edit) => durable.push(edit),
                (_, Edit::Write { offset, bytes }) => {
                    let pieces = outside(offset..offset + bytes.len(), &durable);
                    left.extend(pieces.into_iter().rev().map(|piece| {
                        let within = piece.start - offset..piece.end - offset;
                        let bytes = bytes.get(within).unwrap_or_default().into();
                        let offset = piece.start;
                        let edit = Edit::Write { offset, bytes };
                        Change { at, edit, fate }
                    }));
                }
                (_, edit) => left.push(Change { at, edit, fate }),
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
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
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
    let invalid = || failure(io::ErrorKind::InvalidInput);
    path.components().filter_map(move |part| match part {
        Component::Normal(name) => Some(name.to_str().ok_or_else(invalid)),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => Some(Err(invalid())),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sim) fn path(text: &str) -> &Path {
        Path::new(text)
    }

    /// A disk with a durable directory `s` and in it a durable file `f`.
    pub(in crate::sim) fn disk_with(bytes: &[u8]) -> (VirtualDisk, InodeId) {
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
    fn a_file_that_grows_in_small_steps_is_seldom_copied() {
        let mut disk = VirtualDisk::new();
        let file = disk.open(path("/f"), OpenMode::CreateNew).unwrap();
        let (step, steps) = ([7; 512], 4_000);
        let mut places = Vec::new();
        for number in 0..steps {
            disk.write_at(file, &step, number * step.len() as u64)
                .unwrap();
            places.push(disk.file(file).unwrap().bytes.as_ptr());
        }
        places.dedup();
        assert!(places.len() < 100, "{} copies", places.len());
        assert_eq!(disk.len_bytes(file).unwrap(), steps * step.len() as u64);
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
        changed.files.insert("s/f".into(), b"abd".to_vec().into());
        assert_ne!(changed.digest(), image.digest());
    }

    #[test]
    fn a_hole_reads_as_zeros_and_no_file_is_too_long() {
        let (mut disk, file) = disk_with(b"1");
        disk.write_at(file, b"4", 3).unwrap();
        assert_eq!(disk.content(path("s/f")).unwrap(), b"1\0\x004");
        assert_eq!(disk.read_at(file, &mut [0; 99], 9).unwrap(), 0);
        let error = disk.write_at(file, b"x", u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(done: io::Result<T>, kind: io::ErrorKind) {
        assert_eq!(done.unwrap_err().kind(), kind);
    }

    #[test]
    fn by_inode_what_cannot_be_done_is_refused_and_changes_nothing() {
        use io::ErrorKind::{
            AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, NotFound,
        };
        const ROOT: InodeId = InodeId::ROOT;
        let mut disk = VirtualDisk::new();
        let file = disk.create_in(ROOT, "a").unwrap();
        let dir = disk.create_dir_in(ROOT, "dir").unwrap();
        let inner = disk.create_in(dir, "file").unwrap();
        refused(disk.create_in(ROOT, "a"), AlreadyExists);
        refused(disk.create_dir_in(ROOT, "a"), AlreadyExists);
        refused(disk.link_in(file, dir, "file"), AlreadyExists);
        refused(disk.link_in(dir, ROOT, "other"), IsADirectory);
        refused(disk.lookup_in(ROOT, "none"), NotFound);
        refused(disk.lookup_in(inner, "none"), NotADirectory);
        refused(disk.remove_in(ROOT, "none"), NotFound);
        refused(disk.remove_in(ROOT, "dir"), IsADirectory);
        refused(disk.remove_dir_in(ROOT, "a"), NotADirectory);
        refused(disk.remove_dir_in(ROOT, "dir"), DirectoryNotEmpty);
        refused(disk.rename_in((ROOT, "a"), (ROOT, "dir")), IsADirectory);
        refused(disk.rename_in((ROOT, "dir"), (ROOT, "a")), NotADirectory);
        refused(disk.rename_in((ROOT, "none"), (ROOT, "b")), NotFound);
        disk.rename_in((ROOT, "a"), (ROOT, "a")).unwrap();
        refused(disk.write_at(dir, b"x", 0), IsADirectory);
        refused(disk.read_at(InodeId::new(99), &mut [0], 0), NotFound);
        refused(disk.sync_dir_inode(inner), NotADirectory);
        refused(disk.sync_data(dir), IsADirectory);
        let names = disk.entries(ROOT).unwrap().into_iter();
        let names: Vec<_> = names.map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["a", "dir"]);
        disk.rename_in((dir, "file"), (ROOT, "file")).unwrap();
        disk.remove_dir_in(ROOT, "dir").unwrap();
        assert_eq!(disk.list(path("/")).unwrap(), ["a", "file"]);
        assert!(disk.attributes(ROOT).unwrap().is_dir);
    }
}
