//! Decides how to rebuild a damaged live snapshot.

use crate::{
    error::{Error, Result},
    format::{
        record::{segment_name, snapshot_name},
        resync::Damages,
        seq::Seq,
    },
    inspect::find::{Left, contents, snapshots},
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
        manifest::{Manifest, SnapshotMark},
        store_dir::StoreDir,
    },
};

/// How the live snapshot will be repaired.
pub(crate) struct SnapshotPlan {
    /// The state to write; `None` if the file is whole, and only the manifest is wrong.
    pub(crate) issues: Option<Issues>,
    pub(crate) mark: SnapshotMark,
    pub(crate) bad: Damages,
    /// Whether there is an old file.
    pub(crate) exists: bool,
    pub(crate) report: RepairedSnapshot,
}

impl SnapshotPlan {
    /// `None` if the snapshot is good, or the manifest names none.
    pub(crate) fn of(
        dir: &StoreDir,
        names: &[String],
        manifest: &Manifest,
    ) -> Result<Option<Self>> {
        let Some(mark) = manifest.snapshot else {
            return Ok(None);
        };
        let seq = mark.seq;
        let mut recovered = Issues::default();
        let contents = contents(dir, &snapshot_name(seq), |part| {
            restore_latest(part, &mut recovered);
        })?;
        let exists = contents.is_some();
        let contents = contents.unwrap_or_default();
        let left = Left::of(&contents, seq, &manifest.store);
        if left == Left::Whole && contents.mark(seq) == mark {
            return Ok(None);
        }
        if left != Left::Whole && contents.is_of_other_state() {
            return Err(Error::BeyondRepair {
                path: dir.path_of(&snapshot_name(seq)),
                reason: "it is not a snapshot of issues, and cannot be rebuilt".to_owned(),
            });
        }
        let (issues, report) = if left == Left::Whole {
            (None, RepairedSnapshot::Itself { seq })
        } else {
            let (issues, report) = rebuild(dir, names, manifest, seq, left, recovered, &contents)?;
            (Some(issues), report)
        };
        Ok(Some(Self {
            issues,
            mark: contents.mark(seq),
            bad: contents.bad,
            exists,
            report,
        }))
    }
}

/// Rebuilds the state from what loses least.
fn rebuild(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
    seq: u64,
    left: Left,
    mut recovered: Issues,
    contents: &Contents,
) -> Result<(Issues, RepairedSnapshot)> {
    let backups = backups(dir, names, seq, &manifest.store)?;
    if let Some((since_seq, issues)) = fold_again(dir, names, manifest, seq, &backups) {
        return Ok((issues, RepairedSnapshot::Records { seq, since_seq }));
    }
    if left == Left::GoodLines {
        let header = contents.header.as_ref();
        recovered.restore_header(Seq::new(seq), header.map_or(0, Header::without_effect));
        let report = RepairedSnapshot::GoodLines {
            seq,
            lost_lines: contents.bad.listed.clone(),
            lost_lines_left_off: contents.bad.left_off,
            counts_before: header.map(|header| issue_counts(header.counts())),
            counts: recovered.counts(),
        };
        return Ok((recovered, report));
    }
    let backup = backups.first().map(|mark| mark.seq);
    let (backup_seq, mut issues) = match (left, backup) {
        (Left::Older(older), backup) if backup.is_none_or(|backup| backup < older) => {
            (older, recovered)
        }
        (_, Some(backup)) => {
            let mut issues = Issues::default();
            self::contents(dir, &snapshot_name(backup), |part| {
                part.restore(&mut issues);
            })?;
            (backup, issues)
        }
        (_, None) => {
            return Err(Error::BeyondRepair {
                path: dir.path_of(&snapshot_name(seq)),
                reason: "no line of it is good, and there is no older snapshot".to_owned(),
            });
        }
    };
    issues.restore_header(Seq::new(seq), issues.without_effect());
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
fn backups(
    dir: &StoreDir,
    names: &[String],
    before: u64,
    store: &str,
) -> Result<Vec<SnapshotMark>> {
    let mut whole = Vec::new();
    for seq in snapshots(names)
        .into_iter()
        .rev()
        .filter(|seq| *seq < before)
    {
        let found = contents(dir, &snapshot_name(seq), |_| {})?.unwrap_or_default();
        if found.is_whole(seq, Some(store)) && !found.is_of_other_state() {
            whole.push(found.mark(seq));
        }
    }
    Ok(whole)
}

/// The state from an older snapshot, or from none, and all records since, if they exist.
fn fold_again(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
    through: u64,
    backups: &[SnapshotMark],
) -> Option<(u64, Issues)> {
    let mut bases = backups.iter().copied().map(Some).chain([None]);
    bases.find_map(|base| {
        let since_seq = base.map_or(0, |mark| mark.seq);
        if !names.contains(&segment_name(since_seq + 1)) {
            return None;
        }
        let earlier = Manifest {
            first_seq: since_seq + 1,
            snapshot: base,
            ..manifest.clone()
        };
        let end = || End::Seq(through);
        let folded = Materialized::through(dir, &earlier, Throttle::HURRIED, end);
        let issues: Issues = folded.ok()??.state;
        (issues.last_seq() == through).then_some((since_seq, issues))
    })
}
