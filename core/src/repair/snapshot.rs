//! Decides how to rebuild a damaged live snapshot.

use std::path::Path;

use crate::{
    error::{CorruptReason, Error, Result},
    format::{
        record::{Reflects, segment_name},
        resync::{Damage, Damages},
        seq::Seq,
    },
    inspect::find::{Chain, Left, chains, contents},
    issues::issues::Issues,
    repair::report::RepairedSnapshot,
    state::{
        issues::{IssueLine, IssuePart},
        materialize::Materialized,
        snapshot::{Contents, Counts, Header, Part},
        throttle::Throttle,
    },
    wal::{
        durable::End,
        manifest::{Manifest, SnapshotFile, SnapshotMark},
        store_dir::StoreDir,
    },
};

/// How the live snapshot will be repaired. A damaged one becomes one file again.
pub(crate) struct SnapshotPlan {
    /// The state to write; `None` if the files are whole, and only the manifest is wrong.
    pub(crate) issues: Option<Issues>,
    /// The files as they are.
    pub(crate) marks: Vec<SnapshotMark>,
    /// The damaged files.
    pub(crate) bad: Vec<BadFile>,
    pub(crate) report: RepairedSnapshot,
}

/// A damaged file of the live snapshot.
pub(crate) struct BadFile {
    pub(crate) name: String,
    pub(crate) damages: Damages,
    pub(crate) exists: bool,
}

/// A file of the live snapshot, and what is left of it.
struct Examined {
    file: SnapshotFile,
    exists: bool,
    contents: Contents,
    left: Left,
}

impl SnapshotPlan {
    /// `None` if the snapshot is good, or the manifest names none.
    pub(crate) fn of(
        dir: &StoreDir,
        names: &[String],
        manifest: &Manifest,
    ) -> Result<Option<Self>> {
        let mut files = Vec::new();
        for file in manifest.files() {
            let contents = contents(dir, &file.name(), |_| {})?;
            let exists = contents.is_some();
            let contents = contents.unwrap_or_default();
            files.push(Examined {
                file,
                exists,
                left: Left::of(&contents, file.reflects(), &manifest.store),
                contents,
            });
        }
        let as_it_is = |one: &Examined| one.contents.mark(one.file.mark.seq);
        let marks: Vec<SnapshotMark> = files.iter().map(as_it_is).collect();
        let (Some(base), Some(last)) = (files.first(), marks.last()) else {
            return Ok(None);
        };
        let seq = last.seq;
        let is_whole = files.iter().all(|one| one.left == Left::Whole);
        if is_whole
            && files
                .iter()
                .zip(&marks)
                .all(|(one, mark)| one.file.mark == *mark)
        {
            return Ok(None);
        }
        let (issues, report) = if is_whole {
            (None, RepairedSnapshot::Itself { seq })
        } else if base.contents.is_of_other_state() {
            return Err(Error::BeyondRepair {
                path: dir.path_of(&base.file.name()),
                reason: "it is not a snapshot of issues, and cannot be rebuilt".to_owned(),
            });
        } else {
            let (issues, report) = rebuild(dir, names, manifest, seq, &files)?;
            (Some(issues), report)
        };
        let bad = files.into_iter().filter(|one| one.left != Left::Whole);
        let bad = bad.map(|one| BadFile {
            name: one.file.name(),
            damages: one.contents.bad,
            exists: one.exists,
        });
        Ok(Some(Self {
            issues,
            bad: bad.collect(),
            marks,
            report,
        }))
    }

    /// The last record that it reflects.
    pub(crate) fn seq(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.seq)
    }

    /// The name of the file to write, if one is to be written.
    pub(crate) fn written(&self) -> Option<String> {
        let is_written = self.issues.is_some();
        is_written.then(|| Reflects::all(self.seq()).name())
    }
}

/// Rebuilds the state from what loses least.
fn rebuild(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
    seq: u64,
    files: &[Examined],
) -> Result<(Issues, RepairedSnapshot)> {
    let backups = backups(dir, names, seq, &manifest.store)?;
    if let Some((since_seq, issues)) = fold_again(dir, names, manifest, seq, &backups) {
        return Ok((issues, RepairedSnapshot::Records { seq, since_seq }));
    }
    let mut recovered = Issues::default();
    let mut lost_lines = Damages::default();
    for Examined {
        file,
        exists,
        contents,
        left,
    } in files
    {
        if matches!(left, Left::Whole | Left::GoodLines) {
            self::contents(dir, &file.name(), |part| {
                restore_latest(part, &mut recovered);
            })?;
        } else {
            let message = if *exists {
                "no line of it is good"
            } else {
                "it does not exist"
            };
            let reason = CorruptReason::Snapshot {
                message: message.to_owned(),
            };
            lost_lines.push(Damage::of_file(Path::new(&file.name()), 0, reason));
        }
        lost_lines.append(contents.bad.clone());
    }
    let headers = || files.iter().filter_map(|one| one.contents.header.as_ref());
    let without_effect = headers().map(Header::without_effect).max().unwrap_or(0);
    let Some(base) = files.first() else {
        unreachable!("a snapshot has a base");
    };
    if matches!(base.left, Left::Whole | Left::GoodLines) {
        recovered.restore_header(Seq::new(seq), without_effect);
        let header = headers().next().filter(|_| files.len() == 1);
        let report = RepairedSnapshot::GoodLines {
            seq,
            lost_lines: lost_lines.listed,
            lost_lines_left_off: lost_lines.left_off,
            counts_before: header.map(|header| issue_counts(header.counts())),
            counts: recovered.counts(),
        };
        return Ok((recovered, report));
    }
    // The runs are read over an older snapshot.
    let base_seq = base.file.mark.seq;
    let backup = backups.iter().find(|backup| backup.seq() <= base_seq);
    let mut issues = Issues::default();
    let backup_seq = match (base.left, backup) {
        (Left::Older(older), backup) if backup.is_none_or(|backup| backup.seq() < older) => {
            self::contents(dir, &base.file.name(), |part| part.restore(&mut issues))?;
            older
        }
        (_, Some(backup)) => {
            let backup = manifest.with_snapshot(&backup.marks);
            for file in backup.files() {
                self::contents(dir, &file.name(), |part| part.restore(&mut issues))?;
            }
            backup.first_seq - 1
        }
        (_, None) => {
            return Err(Error::BeyondRepair {
                path: dir.path_of(&base.file.name()),
                reason: "no line of it is good, and there is no older snapshot".to_owned(),
            });
        }
    };
    issues.restore_all(&recovered);
    let without_effect = issues.without_effect().max(without_effect);
    issues.restore_header(Seq::new(seq), without_effect);
    let are_runs_whole = files.iter().skip(1).all(|one| one.left == Left::Whole);
    let seq = if are_runs_whole { base_seq } else { seq };
    Ok((issues, RepairedSnapshot::Backup { seq, backup_seq }))
}

fn issue_counts([issues, tombstones, keys, _]: Counts) -> [u64; 3] {
    [issues, tombstones, keys]
}

/// Applies a line of a damaged snapshot, which may repeat another one: the later version counts.
fn restore_latest(part: Part<'_>, issues: &mut Issues) {
    let is_known = match &part {
        Part::Issues(IssueLine(IssuePart::Entry(id, entry))) => issues
            .version(id)
            .is_some_and(|known| known > entry.version()),
        Part::Issues(IssueLine(IssuePart::Key(key, write))) => {
            issues.key(key).is_some_and(|known| known > write.seq)
        }
        Part::Header(_) | Part::Other => false,
    };
    if !is_known {
        part.restore(issues);
    }
}

/// The older snapshots that are whole, the latest first.
fn backups(dir: &StoreDir, names: &[String], before: u64, store: &str) -> Result<Vec<Chain>> {
    let mut chains = chains(dir, names)?;
    chains.retain(|chain| {
        let is_ours = chain.store.as_deref() == Some(store);
        chain.seq() < before && chain.is_whole && is_ours && !chain.is_of_other_state
    });
    Ok(chains)
}

/// The state from an older snapshot, or from none, and all records since, if they exist.
fn fold_again(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
    through: u64,
    backups: &[Chain],
) -> Option<(u64, Issues)> {
    let mut bases = backups.iter().map(|backup| &*backup.marks).chain([&[][..]]);
    bases.find_map(|base| {
        let earlier = manifest.with_snapshot(base);
        if !names.contains(&segment_name(earlier.first_seq)) {
            return None;
        }
        let end = || End::Seq(through);
        let folded = Materialized::through(dir, &earlier, Throttle::HURRIED, end);
        let issues: Issues = folded.ok()??.state;
        (issues.last_seq() == through).then_some((earlier.first_seq - 1, issues))
    })
}
