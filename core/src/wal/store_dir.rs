//! A store's directory and its files. Callers give names. The directory is opened once: whatever
//! becomes of its path, the store is the one that was opened. Paths exist only in messages.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use strand_lock::{Filesystem, FilesystemKind, LockError, LockState, PageError, SharedPage};

use crate::{
    env::{
        share::{new_name, replaced_name},
        storage::{Dir, Disk, OpenMode, Storage, StorageFile, read_full, write_full},
        system::{Host, Page, PageView, StoreLock},
    },
    error::{Error, Outcome, Result},
    format::{
        lines::{Lines, Span},
        record::segment_first_seq,
    },
};

/// How much of a file is copied at a time.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// The directory in a store for what a recovery cut off and what a repair replaced.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The directory in a store for what is remembered of exported and imported files.
pub(crate) const MIRRORS: &str = "mirrors";

/// A file that is written, and does not have its name yet: from [`StoreDir::write_new`].
#[derive(Debug)]
#[must_use]
pub(crate) struct NewFile {
    name: String,
    replaces: String,
}

impl NewFile {
    fn of(replaces: &str, host: &dyn Host) -> Self {
        Self {
            name: new_name(replaces, host.random()),
            replaces: replaces.to_owned(),
        }
    }
}

/// An open directory in its environment. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StoreDir {
    storage: Arc<dyn Storage>,
    dir: Dir,
    /// The id of the store that was first found in it. Clones share it.
    store: Arc<OnceLock<String>>,
}

impl StoreDir {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`Error::MissingDirectory`], [`Error::NotADirectory`], [`Error::Io`].
    pub(crate) fn open_at(storage: &Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let dir = storage.open_dir(path).map_err(|error| {
            let path = path.to_owned();
            match error.kind() {
                io::ErrorKind::NotFound => Error::MissingDirectory { path },
                io::ErrorKind::NotADirectory => Error::NotADirectory { path },
                _ => Error::io("open", path)(error),
            }
        })?;
        Ok(Self::new(storage, dir))
    }

    fn new(storage: &Arc<dyn Storage>, dir: Dir) -> Self {
        Self {
            storage: Arc::clone(storage),
            dir,
            store: Arc::default(),
        }
    }

    /// The same directory, in which any store may be found.
    pub(crate) fn afresh(&self) -> Self {
        Self::new(&self.storage, self.dir.clone())
    }

    pub(crate) fn on_disk(path: &Path) -> Result<Self> {
        Self::open_at(&(Arc::new(Disk) as Arc<dyn Storage>), path)
    }

    /// The path by which it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file in it, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// How much of the log a block of an index covers. What no block covers is read again by
    /// everybody.
    pub(crate) fn index_block_bytes(&self) -> u64 {
        self.storage.index_block_bytes()
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.storage.host()
    }

    pub(crate) fn filesystem(&self) -> io::Result<Filesystem> {
        self.host().filesystem(&self.dir)
    }

    /// The kind of it alone, which takes less time.
    pub(crate) fn filesystem_kind(&self) -> Result<FilesystemKind> {
        named(
            "examine",
            self.path(),
            self.host().filesystem_kind(&self.dir),
        )
    }

    /// A directory in it; `None` where there is none, or that can't be found out.
    pub(crate) fn subdir(&self, name: &str) -> Option<Self> {
        let dir = self.storage.open_subdir(&self.dir, name).ok()?;
        Some(Self::new(&self.storage, dir))
    }

    /// Creates a directory in it, unless there is one.
    pub(crate) fn create_subdir(&self, name: &str) -> Result<Self> {
        let path = self.path_of(name);
        named("create", &path, self.storage.create_dir(&self.dir, name))?;
        let opened = self.storage.open_subdir(&self.dir, name);
        Ok(Self::new(&self.storage, named("open", &path, opened)?))
    }

    /// Checks that a store that was found in it is the one that was found first: `None` when there
    /// is no manifest now.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`].
    pub(crate) fn require_same(&self, store: Option<&str>) -> Result<()> {
        let is_same = match (self.store.get(), store) {
            (Some(first), Some(found)) => first == found,
            (None, Some(found)) => self.store.get_or_init(|| found.to_owned()) == found,
            // A lost manifest is damage. All segments do not get lost with it.
            (Some(_), None) => self.segments().is_ok_and(|segments| !segments.is_empty()),
            (None, None) => true,
        };
        if is_same {
            return Ok(());
        }
        Err(replaced(self.path()))
    }

    /// The names in the directory, in no order.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        named("list", self.path(), self.storage.list(&self.dir))
    }

    /// The first sequence numbers of all segments, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>> {
        let names = self.list()?;
        let mut segments: Vec<u64> = names
            .iter()
            .filter_map(|name| segment_first_seq(name))
            .collect();
        segments.sort_unstable();
        Ok(segments)
    }

    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<StoreFile> {
        let path = self.path_of(name);
        match self.storage.open(&self.dir, name, mode) {
            Ok(file) => Ok(StoreFile { path, file }),
            Err(error) if mode == OpenMode::CreateNew => named("create", &path, Err(error)),
            Err(error) => named("open", &path, Err(error)),
        }
    }

    /// `None` when there is no such file.
    pub(crate) fn open_if_there(&self, name: &str, mode: OpenMode) -> Result<Option<StoreFile>> {
        unless(io::ErrorKind::NotFound, self.open(name, mode))
    }

    /// Checks that a file, if it is there, has content that is `ours`.
    ///
    /// # Errors
    /// [`Error::ForeignFile`], [`Error::Io`].
    pub(crate) fn require_ours(&self, name: &str, ours: fn(&[u8]) -> bool) -> Result<()> {
        let Some(file) = self.open_if_there(name, OpenMode::Read)? else {
            return Ok(());
        };
        // One byte more than a page, which all these files have.
        let mut bytes = vec![0; SharedPage::BYTES + 1];
        // If it can't be read, using it will say why.
        let Ok(len) = file.read(&mut bytes, 0) else {
            return Ok(());
        };
        if ours(bytes.get(..len).unwrap_or_default()) {
            return Ok(());
        }
        let path = file.path().to_owned();
        Err(Error::ForeignFile { path })
    }

    /// `None` when there is such a file already.
    pub(crate) fn create_new(&self, name: &str) -> Result<Option<StoreFile>> {
        unless(
            io::ErrorKind::AlreadyExists,
            self.open(name, OpenMode::CreateNew),
        )
    }

    /// Removes a file, if it is there. Lasts only after [`StoreDir::sync`].
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match self.storage.remove(&self.dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => named("remove", &self.path_of(name), removed),
        }
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<()> {
        named("sync", self.path(), self.storage.sync_dir(&self.dir))
    }

    /// Replaces a file as a whole, durably: a reader sees the old one or the new one, never a part.
    ///
    /// Writes the new one under another name first, and removes that when it fails, so that a full
    /// disk is no fuller than before. The caller holds a lock that excludes all others who do the
    /// same, and looks right before the rename whether others find that lock: see
    /// [`super::named`].
    pub(crate) fn replace_file(
        &self,
        name: &str,
        write: impl FnOnce(&StoreFile) -> Result<()>,
        before_rename: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let new = self.write_new(name, write)?;
        before_rename()
            .and_then(|()| self.put_in_place(&new))
            .inspect_err(|_| self.remove_new(&new))?;
        self.sync()
    }

    /// The first half of [`StoreDir::replace_file`]: all that needs space.
    pub(crate) fn write_new(
        &self,
        name: &str,
        write: impl FnOnce(&StoreFile) -> Result<()>,
    ) -> Result<NewFile> {
        // Whoever holds a lock that was removed may do the same now. Its rename must not find this
        // file.
        let new = NewFile::of(name, self.host());
        let file = self.open(&new.name, OpenMode::CreateNew)?;
        let written = write(&file).and_then(|()| file.sync());
        drop(file);
        match written {
            Ok(()) => Ok(new),
            Err(error) => {
                self.remove_new(&new);
                Err(error)
            }
        }
    }

    /// The second half of [`StoreDir::replace_file`], but for the sync of the directory.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`]: the holder of another lock has removed the new file.
    pub(crate) fn put_in_place(&self, new: &NewFile) -> Result<()> {
        match self.storage.rename(&self.dir, &new.name, &new.replaces) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(replaced(&self.path_of(&new.replaces)))
            }
            renamed => named("rename", &self.path_of(&new.name), renamed),
        }
    }

    /// Removes the files that are about to replace segments, so that no rename of them succeeds
    /// from here on.
    pub(crate) fn remove_new_segments(&self) -> Result<()> {
        let is_new_segment = |name: &&String| {
            replaced_name(name).is_some_and(|name| segment_first_seq(name).is_some())
        };
        let names = self.list()?;
        names
            .iter()
            .filter(is_new_segment)
            .try_for_each(|name| self.remove(name))
    }

    /// Creates an empty file that gets its name only after the look `before_rename`, as in
    /// [`StoreDir::replace_file`]. Lasts only after [`StoreDir::sync`].
    ///
    /// # Errors
    /// As there. The file is not there then.
    pub(crate) fn create_file(
        &self,
        name: &str,
        before_rename: impl FnOnce() -> Result<()>,
    ) -> Result<StoreFile> {
        if self.identity_of(name)?.is_some() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Error::io("create", self.path_of(name))(source));
        }
        let new = NewFile::of(name, self.host());
        let file = self.open(&new.name, OpenMode::CreateNew)?;
        before_rename()
            .and_then(|()| self.put_in_place(&new))
            .inspect_err(|_| self.remove_new(&new))?;
        Ok(StoreFile {
            path: self.path_of(name),
            ..file
        })
    }

    /// Undoes [`StoreDir::write_new`]. Failing is harmless: the next open removes the file.
    pub(crate) fn remove_new(&self, new: &NewFile) {
        self.remove(&new.name).ok();
    }

    /// Opens the lock file `name`; creates it when missing.
    pub(crate) fn open_lock(
        &self,
        name: &str,
    ) -> std::result::Result<Box<dyn StoreLock>, LockError> {
        self.host().open_lock(&self.dir, name)
    }

    /// Looks at the lock file `name`. `None` when it can't be read.
    pub(crate) fn look_at_lock(&self, name: &str) -> Option<LockState> {
        self.host().look_at_lock(&self.dir, name).ok()
    }

    /// Maps the page `name`; creates it when missing.
    pub(crate) fn open_page(
        &self,
        name: &str,
        area_words: usize,
    ) -> std::result::Result<Box<dyn Page>, PageError> {
        self.host().open_page(&self.dir, name, area_words)
    }

    /// Maps the page `name` to read it. `None` when there is none that can be read.
    pub(crate) fn open_page_to_read(&self, name: &str) -> Option<Box<dyn PageView>> {
        self.host().open_page_to_read(&self.dir, name).ok()
    }

    /// What identifies the file of that name; `None` when there is none.
    pub(crate) fn identity_of(&self, name: &str) -> Result<Option<(u64, u64)>> {
        match self.storage.identity_of(&self.dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            identity => named("examine", &self.path_of(name), identity.map(Some)),
        }
    }

    /// See [`Dir::stamp`].
    pub(crate) fn stamp(&self) -> Result<Option<u64>> {
        named("examine", self.path(), self.storage.stamp(&self.dir))
    }
}

/// The error of a call that changed nothing, for what is not the file or directory that was opened.
pub(crate) fn replaced(path: &Path) -> Error {
    Error::StoreReplaced {
        path: path.to_owned(),
        outcome: Outcome::Rejected,
    }
}

/// Adds to an error what was done to which file. Costs nothing unless there is one.
fn named<T>(op: &'static str, path: &Path, done: io::Result<T>) -> Result<T> {
    done.map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => Error::ForeignFile {
            path: path.to_owned(),
        },
        _ => Error::io(op, path)(source),
    })
}

/// Makes `None` of an I/O error of this kind.
fn unless(kind: io::ErrorKind, opened: Result<StoreFile>) -> Result<Option<StoreFile>> {
    match opened {
        Err(Error::Io { source, .. }) if source.kind() == kind => Ok(None),
        opened => opened.map(Some),
    }
}

/// An open file that knows its path, so that its errors name it.
#[derive(Debug)]
pub(crate) struct StoreFile {
    path: PathBuf,
    file: Box<dyn StorageFile>,
}

impl StoreFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for one system call whose error the caller looks at.
    pub(crate) fn raw(&self) -> &dyn StorageFile {
        self.file.as_ref()
    }

    pub(crate) fn len_bytes(&self) -> Result<u64> {
        named("examine", &self.path, self.file.len_bytes())
    }

    /// Reads until `buffer` is full or the file ends; returns how much was read.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        named("read", &self.path, read_full(self.raw(), buffer, offset))
    }

    /// The next line that is not blank; `None` at the end of the file.
    pub(crate) fn next_line(&self, lines: &mut Lines) -> Result<Option<Span>> {
        let read = |buffer: &mut [u8], offset| read_full(self.raw(), buffer, offset);
        named("read", &self.path, lines.next(read))
    }

    /// Calls `each` with the bytes of a range, piece by piece, until the range or the file ends.
    pub(crate) fn chunks(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let len =
            |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut buffer = vec![0; len(&range).min(CHUNK_BYTES)];
        let mut rest = range;
        while !rest.is_empty() {
            let want = len(&rest).min(CHUNK_BYTES);
            let read = self.read(buffer.get_mut(..want).unwrap_or_default(), rest.start)?;
            if read == 0 {
                break;
            }
            each(rest.start, buffer.get(..read).unwrap_or_default())?;
            rest.start += read as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        named("write", &self.path, write_full(self.raw(), bytes, offset))
    }

    pub(crate) fn set_len(&self, len_bytes: u64) -> Result<()> {
        named("cut", &self.path, self.file.set_len(len_bytes))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        named("sync", &self.path, self.file.sync_data())
    }

    /// What identifies the file, by whatever name.
    pub(crate) fn identity(&self) -> Result<(u64, u64)> {
        named("examine", &self.path, self.file.identity())
    }
}
