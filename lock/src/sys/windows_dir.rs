use std::{
    fs::{File, OpenOptions},
    io,
    os::windows::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_BACKUP_SEMANTICS;

use super::{
    change::Change,
    file_state::FileState,
    open_mode::OpenMode,
    windows::{file_state, last_change, rename, sync_dir},
};

/// The full path of a directory, and a handle to it. A directory with open files can't be moved
/// here, nor any above it.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    handle: File,
}

impl Dir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
        let handle = options.open(&path)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path, handle })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open_dir(&self, name: &Path) -> io::Result<Self> {
        Self::open(&self.path.join(name))
    }

    pub(crate) fn open_file(&self, name: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew);
        options.open(self.path.join(name))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let names = self.path.read_dir()?;
        let names = names.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    pub(crate) fn create_dir(&self, name: &Path) -> io::Result<()> {
        std::fs::create_dir(self.path.join(name))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        rename(&self.path.join(from), &self.path.join(to))
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.path)
    }

    pub(crate) fn state_of(&self, name: &Path) -> io::Result<FileState> {
        let mut options = OpenOptions::new();
        options
            .access_mode(0) // Only to ask for its attributes, which nothing excludes.
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
        file_state(&options.open(self.path.join(name))?)
    }

    /// The last change of a name in it; `None` once it was removed.
    pub(crate) fn last_change(&self) -> io::Result<Option<Change>> {
        last_change(&self.handle)
    }
}
