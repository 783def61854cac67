//! Files that the manifest does not need, and their removal under `compact.lock`.

use std::collections::BTreeSet;

use strand_lock::LockError;

use crate::{
    env::{failpoint::Failpoint, share::replaced_name, system::StoreLock},
    error::Result,
    format::record::{
        Reflects, index_first_seq, recent_first_seq, segment_first_seq, unclosed_seq,
    },
    wal::{
        manifest::{MANIFEST, Manifest},
        named::require_named,
        store_dir::replaced,
        writer::Writer,
    },
};

/// The lock file of compactions and repairs.
pub(crate) const COMPACT_LOCK: &str = "compact.lock";

/// The files in a store's directory that this manifest does not need: those before its snapshot,
/// except the latest `backups` older snapshots with their runs, and those that a compaction or a
/// repair that died was about to put in their place.
pub(crate) fn obsolete(names: &[String], manifest: &Manifest, backups: usize) -> Vec<String> {
    let live = manifest.files();
    let base = manifest.snapshot.map_or(0, |mark| mark.seq);
    let all = || names.iter().filter_map(|name| Reflects::of_name(name));
    let bases: BTreeSet<u64> = all()
        .filter(|file| file.is_base() && file.through < base)
        .map(|file| file.through)
        .collect();
    let kept: BTreeSet<u64> = bases.iter().rev().take(backups).copied().collect();
    let is_kept = |file: Reflects| {
        let is_live = live.iter().any(|one| one.reflects() == file);
        let base_of_it = if file.is_base() {
            Some(file.through)
        } else if file.through <= base {
            bases.range(..=file.after).next_back().copied()
        } else {
            None // It belongs to the live base, and has become part of another run.
        };
        is_live || base_of_it.is_some_and(|base| kept.contains(&base))
    };
    let copies: BTreeSet<&String> = copies_of_last(names).collect();
    let is_obsolete = |name: &&String| {
        let replaces = |name: &str| {
            let file = Reflects::of_name(name).is_some() || segment_first_seq(name).is_some();
            name == MANIFEST || file
        };
        let being_written = replaced_name(name).is_some_and(replaces) && !copies.contains(name);
        let snapshot = Reflects::of_name(name).is_some_and(|file| !is_kept(file));
        let segment = segment_first_seq(name)
            .or(index_first_seq(name))
            .or(recent_first_seq(name))
            .is_some_and(|first| first < manifest.first_seq);
        let is_of_live = |seq| live.iter().any(|file| file.mark.seq == seq);
        let unclosed = unclosed_seq(name).is_some_and(|seq| !is_of_live(seq));
        being_written || snapshot || unclosed || segment
    };
    names.iter().filter(is_obsolete).cloned().collect()
}

/// The copies of the last segment. The holder of `lock` may be writing one.
///
/// A file that is to be the next segment is none. If it is removed in its short life, the rotation
/// is tried again.
fn copies_of_last(names: &[String]) -> impl Iterator<Item = &String> {
    let last = names
        .iter()
        .filter_map(|name| segment_first_seq(name))
        .max();
    names.iter().filter(move |name| {
        last.is_some() && replaced_name(name).and_then(segment_first_seq) == last
    })
}

impl Writer {
    /// Does `work` under `compact.lock`; `None` while another thread or process holds it.
    pub(crate) fn alone<T>(&self, work: impl FnOnce(&Alone<'_>) -> Result<T>) -> Result<Option<T>> {
        let lock = self.dir.open_lock(COMPACT_LOCK)?;
        let guard = match lock.try_lock() {
            Err(LockError::Contended { .. }) => return Ok(None),
            locked => locked?,
        };
        let alone = Alone {
            writer: self,
            lock: lock.as_ref(),
        };
        let done = work(&alone).or_else(|error| {
            // Whoever holds the next `compact.lock` changes the same files.
            alone.require_named()?;
            Err(error)
        })?;
        guard.unlock()?;
        Ok(Some(done))
    }

    /// Removes what a compaction that died has left behind, unless one is running.
    ///
    /// `manifest` is as it was a moment ago, which tells whether to look closer.
    pub(crate) fn remove_orphans(&self, manifest: &Manifest) -> Result<()> {
        let names = self.dir.list()?;
        if copies_of_last(&names).next().is_some() {
            // Only the holder of the lock makes such copies, so all that are there are orphans.
            let locked = self.lock()?;
            self.dir.remove_new_segments()?;
            locked.unlock()?;
        }
        if obsolete(&names, manifest, usize::MAX).is_empty() {
            return Ok(());
        }
        self.alone(|alone| alone.remove_superseded(&self.manifest()?, usize::MAX))
            .map(drop)
    }
}

/// A [`Writer`] that holds `compact.lock`.
pub(crate) struct Alone<'a> {
    writer: &'a Writer,
    lock: &'a dyn StoreLock,
}

impl Alone<'_> {
    /// Checks that the held lock is the one that others find. To be called right before a name
    /// changes.
    ///
    /// # Errors
    /// [`Error::StoreReplaced`](crate::Error::StoreReplaced), [`Error::Io`](crate::Error::Io).
    pub(crate) fn require_named(&self) -> Result<()> {
        require_named(&self.writer.dir, COMPACT_LOCK, self.lock)
    }

    /// As [`Alone::remove_obsolete`], if the files that the manifest names are there. One of an
    /// earlier moment or of another store must not remove files that it knows nothing of.
    pub(crate) fn remove_superseded(&self, manifest: &Manifest, backups: usize) -> Result<()> {
        let dir = &self.writer.dir;
        let begins = dir.segments()?.contains(&manifest.first_seq);
        if begins && manifest.snapshot_is_whole(dir)? {
            self.remove_obsolete(manifest, backups)?;
        }
        Ok(())
    }

    /// Removes the obsolete files, and returns their names.
    pub(crate) fn remove_obsolete(
        &self,
        manifest: &Manifest,
        backups: usize,
    ) -> Result<Vec<String>> {
        let Self { writer, .. } = self;
        let obsolete = obsolete(&writer.dir.list()?, manifest, backups);
        if obsolete.is_empty() {
            return Ok(obsolete);
        }
        // The process that wrote the manifest may have died before the name was durable, or the
        // sync of the directory failed.
        writer.dir.sync()?;
        writer.reached(Failpoint::BeforeRemoval);
        // Whoever held a `compact.lock` that was removed may have looked in time, and be about to
        // rename its manifest. Without the new file it can't, and what is named now stays named.
        let (pending, old): (Vec<_>, Vec<_>) = obsolete
            .iter()
            .partition(|name| replaced_name(name).is_some());
        self.require_named()?;
        for name in pending {
            writer.dir.remove(name)?;
        }
        if writer.manifest()? != *manifest {
            return Err(replaced(&writer.dir.path_of(MANIFEST)));
        }
        self.require_named()?;
        for name in old {
            // It may be gone: a process that died removed it, or a reader has closed it only now.
            writer.dir.remove(name)?;
        }
        writer.dir.sync()?;
        writer.reached(Failpoint::OldFilesRemoved);
        Ok(obsolete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::share::new_name;
    use crate::wal::manifest::SnapshotMark;

    #[test]
    fn obsolete_is_what_the_manifest_does_not_need() {
        let names: Vec<String> = [
            "MANIFEST",
            "MANIFEST.00c0ffee00c0ffee.new",
            "lock",
            "compact.lock",
            "shm",
            "quarantine",
            "notes.txt",
            "snapshot-00000000000000000004.jsonl",
            "snapshot-00000000000000000007.jsonl",
            "snapshot-00000000000000000009.jsonl",
            "snapshot-00000000000000000011.jsonl",
            "snapshot-00000000000000000012.jsonl.00c0ffee00c0ffee.new",
            "unclosed-00000000000000000007.jsonl",
            "unclosed-00000000000000000009.jsonl",
            "log-00000000000000000001.jsonl",
            "log-00000000000000000008.jsonl",
            "log-00000000000000000008.index",
            "log-00000000000000000008.unclosed",
            "log-00000000000000000010.jsonl",
            "log-00000000000000000010.index",
            "log-00000000000000000010.unclosed",
            "log-00000000000000000010.jsonl.00c0ffee00c0ffee.new",
            "log-00000000000000000012.jsonl",
            "log-00000000000000000012.jsonl.00c0ffee00c0ffee.new",
        ]
        .map(str::to_owned)
        .into();
        let mark = SnapshotMark {
            seq: 9,
            bytes: 1,
            crc: 2,
        };
        let new = Manifest::new(&crate::env::system::ThisMachine);
        let manifest = new.with_snapshot(&[mark]);
        let orphans = [
            "MANIFEST.00c0ffee00c0ffee.new",
            "snapshot-00000000000000000011.jsonl",
            "snapshot-00000000000000000012.jsonl.00c0ffee00c0ffee.new",
            "unclosed-00000000000000000007.jsonl",
            "log-00000000000000000001.jsonl",
            "log-00000000000000000008.jsonl",
            "log-00000000000000000008.index",
            "log-00000000000000000008.unclosed",
            "log-00000000000000000010.jsonl.00c0ffee00c0ffee.new",
        ];
        assert_eq!(obsolete(&names, &manifest, usize::MAX), orphans);
        let with_one_backup = obsolete(&names, &manifest, 1);
        assert!(with_one_backup.contains(&"snapshot-00000000000000000004.jsonl".to_owned()));
        assert_eq!(with_one_backup.len(), orphans.len() + 1);
        assert_eq!(obsolete(&names, &manifest, 0).len(), orphans.len() + 2);
        let never_compacted = obsolete(&names, &new, usize::MAX);
        assert_eq!(never_compacted.len(), 9, "{never_compacted:?}");
    }

    #[test]
    fn runs_live_and_die_with_the_snapshot_that_they_belong_to() {
        let run = |first: u64, last: u64| format!("run-{first:020}-{last:020}.jsonl");
        let snapshot = |seq: u64| Reflects::all(seq).name();
        let names = [
            snapshot(4),
            run(5, 6),
            snapshot(9),
            run(10, 12),
            run(13, 14),
            snapshot(15),
            run(16, 18),
            run(16, 20),
            run(19, 20),
            run(21, 22),
            run(21, 25),
            run(12, 16),
            "unclosed-00000000000000000015.jsonl".to_owned(),
            "unclosed-00000000000000000018.jsonl".to_owned(),
            "unclosed-00000000000000000020.jsonl".to_owned(),
            new_name(&run(21, 26), 7),
        ];
        let mark = |seq| SnapshotMark {
            seq,
            bytes: 1,
            crc: 2,
        };
        let new = Manifest::new(&crate::env::system::ThisMachine);
        let manifest = new.with_snapshot(&[mark(15), mark(20), mark(22)]);
        let merged = [
            run(16, 18),
            run(19, 20),
            run(21, 25),
            run(12, 16),
            "unclosed-00000000000000000018.jsonl".to_owned(),
            new_name(&run(21, 26), 7),
        ];
        assert_eq!(obsolete(&names, &manifest, usize::MAX), merged);
        let mut with_one_backup = vec![snapshot(4), run(5, 6)];
        with_one_backup.extend(merged.clone());
        assert_eq!(obsolete(&names, &manifest, 1), with_one_backup);
        assert_eq!(obsolete(&names, &manifest, 0).len(), merged.len() + 5);
    }
}
