//! Evidence that survives compaction: before a file of the store is removed, it gets a second name
//! outside of it, so that archive and store together hold every record that was ever written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use strand_core::testing::{Failpoint, FailpointHook};
use strand_lock::files;

use crate::evidence::stored::{is_segment, is_snapshot};

/// The exit status of a process that could not keep the evidence.
const EXIT_NO_ARCHIVE: i32 = 92;
/// A file that comes and goes more often is no longer that of a compaction.
const TRIES_MAX: u32 = 100;

/// The archive of a store.
#[derive(Debug, Clone)]
pub struct Archive {
    store: PathBuf,
    dir: PathBuf,
}

impl Archive {
    /// The archive in `dir` of the store in `store`.
    #[must_use]
    pub fn new(store: &Path, dir: &Path) -> Archive {
        Archive {
            store: store.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// Links every segment and snapshot that is not in the archive yet. A link of the live segment
    /// stays the same file, and a closed one never changes.
    ///
    /// # Errors
    /// A directory could not be read, or a link not be made.
    pub fn keep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.store)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_segment(&name) || is_snapshot(&name) {
                self.keep_unless_gone(&entry.path(), &name)?;
            }
        }
        Ok(())
    }

    /// After `compact.lock` was displaced, two compactors work at once. The other one may have kept
    /// and removed the file, and may have made it again since.
    fn keep_unless_gone(&self, path: &Path, name: &str) -> io::Result<()> {
        for _ in 1..TRIES_MAX {
            match self.keep_file(path, name) {
                Err(_) if !path.exists() => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                kept => return kept,
            }
        }
        self.keep_file(path, name)
    }

    /// A file that replaces one of the same name gets a number.
    fn keep_file(&self, path: &Path, name: &str) -> io::Result<()> {
        let mut target = self.dir.join(name);
        let mut number = 1;
        loop {
            match fs::hard_link(path, &target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked,
            }
            if is_same_file(path, &target)? {
                return Ok(());
            }
            number += 1;
            target = self.dir.join(format!("{name}~{number}"));
        }
    }

    /// Removes the names that the store has, too: only the removed files are left.
    ///
    /// # Errors
    /// A directory could not be read, or a name not be removed.
    pub fn forget_what_is_stored(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let stored = self.store.join(entry.file_name());
            if stored.exists() && is_same_file(&entry.path(), &stored)? {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Archives what is about to be removed at `point`. A process that can't keep the evidence ends
    /// here.
    pub(crate) fn pass(&self, point: Failpoint) {
        if point == Failpoint::BeforeRemoval
            && let Err(error) = self.keep()
        {
            eprintln!("cannot archive a file before its removal: {error}");
            std::process::exit(EXIT_NO_ARCHIVE);
        }
    }
}

impl FailpointHook for Archive {
    fn reached(&self, point: Failpoint) {
        self.pass(point);
    }
}

fn is_same_file(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(files::identity(one)? == files::identity(other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_and_what_is_replaced_stays_in_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let (store, kept) = (dir.path().join("store"), dir.path().join("archive"));
        fs::create_dir(&store).unwrap();
        fs::create_dir(&kept).unwrap();
        let archive = Archive::new(&store, &kept);
        let (segment, snapshot) = (
            "log-00000000000000000001.jsonl",
            "snapshot-00000000000000000007.jsonl",
        );
        fs::write(store.join(segment), "1").unwrap();
        fs::write(store.join(snapshot), "old").unwrap();
        fs::write(store.join("MANIFEST"), "m").unwrap();
        archive.reached(Failpoint::BeforeRemoval);
        fs::write(store.join("new"), "new").unwrap();
        fs::rename(store.join("new"), store.join(snapshot)).unwrap();
        archive.reached(Failpoint::BeforeRemoval);
        archive.reached(Failpoint::BeforeRemoval);
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let replaced = format!("{snapshot}~2");
        assert_eq!(names(&kept), [segment, snapshot, &replaced]);
        fs::remove_file(store.join(segment)).unwrap();
        fs::remove_file(store.join(snapshot)).unwrap();
        archive.forget_what_is_stored().unwrap();
        assert_eq!(names(&kept), [segment, snapshot, &replaced]);
        assert_eq!(fs::read_to_string(kept.join(replaced)).unwrap(), "new");
    }
}
