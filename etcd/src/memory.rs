//! The highest revision of a cluster that processes of this machine have seen, in a file: a cluster
//! that was restored from a backup would answer as if later writes had never been.
//!
//! A memory is a help and no part of the store: what can't be read says nothing, and a process that
//! is killed forgets what it has seen since it last wrote.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A process that goes on for long writes after so many revisions.
const EVERY_REVISIONS: u64 = 1_000;

/// The memory of one cluster.
#[derive(Debug)]
pub(crate) struct Memory {
    file: PathBuf,
    written: AtomicU64,
}

impl Memory {
    /// That of a cluster, below a directory.
    pub(crate) fn of(dir: &Path, cluster: u64) -> Self {
        let file = dir.join(format!("{cluster:x}"));
        Self {
            written: AtomicU64::new(read(&file)),
            file,
        }
    }

    /// The highest revision that was seen, as far as it was written.
    pub(crate) fn revision(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Takes note of a revision that was seen now. Not each is written, unless it `is_last`.
    pub(crate) fn see(&self, revision: u64, is_last: bool) {
        let written = self.revision();
        let is_due = revision >= written.saturating_add(EVERY_REVISIONS) || is_last;
        if revision <= written || !is_due {
            return;
        }
        self.written.store(revision, Ordering::Relaxed);
        // Another process may have written a higher one meanwhile.
        if read(&self.file) < revision {
            write(&self.file, revision);
        }
    }
}

/// 0 if there is none, or what there is is no number.
fn read(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn write(file: &Path, revision: u64) {
    let own = file.with_extension(std::process::id().to_string());
    let written = file
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&own, format!("{revision}\n")))
        .and_then(|()| fs::rename(&own, file));
    if written.is_err() {
        fs::remove_file(&own).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_only_grows_and_survives_damage() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/later");
        let memory = Memory::of(&dir, 0xAB);
        assert_eq!(memory.revision(), 0);
        memory.see(7, false);
        assert!(!dir.exists(), "few revisions are not written at once");
        memory.see(7, true);
        assert_eq!(fs::read_to_string(dir.join("ab")).unwrap(), "7\n");
        memory.see(7 + EVERY_REVISIONS, false);
        let other = Memory::of(&dir, 0xAB);
        assert_eq!(other.revision(), 7 + EVERY_REVISIONS);
        other.see(9, true);
        assert_eq!(Memory::of(&dir, 0xAB).revision(), 7 + EVERY_REVISIONS);
        assert_eq!(Memory::of(&dir, 0xAC).revision(), 0);
        fs::write(dir.join("ab"), "").unwrap();
        assert_eq!(Memory::of(&dir, 0xAB).revision(), 0);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing beside it");
        // A place where nothing can be written is no failure.
        Memory::of(&dir.join("ab"), 1).see(5, true);
    }
}
