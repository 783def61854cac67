//! The issues that are not closed, found without reading those that are: in trackers, a few hundred
//! of many thousand.
//!
//! A compaction writes them into a file beside the snapshot. The runs that were written since, if
//! any, are read over it. What the records behind the snapshot change of other issues is applied to
//! their lines in the snapshot, where that can matter.

use std::collections::HashMap;

use crate::{
    error::Result,
    format::seq::Seq,
    issues::{
        event::{IssueEvent, Op},
        index::Facts,
        issue::Issue,
        issues::Issues,
        transition::is_closed,
    },
    state::{
        lookup::SnapshotLookup,
        materialize::Materialized,
        snapshot::{self, read_over},
        throttle::Throttle,
    },
    wal::{
        cursor::RawRecords,
        durable::End,
        manifest::{Manifest, SnapshotFile},
        store_dir::StoreDir,
    },
};

/// Reads the issues that are not closed, and perhaps some that are, to where `end` says. Reads all
/// issues where that is necessary.
pub(crate) fn load(dir: &StoreDir, mut end: impl FnMut() -> End) -> Result<Issues> {
    match Unclosed::read(dir, &mut end) {
        Ok(Some(unclosed)) => Ok(unclosed.issues),
        // Whatever is wrong, reading everything says so.
        Ok(None) | Err(_) => Ok(Materialized::load(dir, end)?.state),
    }
}

/// The issues that are not closed, and perhaps some that are, after the records of these files of
/// the snapshot. `None` if there is no file of them, or something is wrong.
///
/// The last `folded` of the files are not read. They may still count: the caller has what they
/// changed.
pub(super) fn after(
    dir: &StoreDir,
    manifest: &Manifest,
    files: &[SnapshotFile],
    folded: usize,
) -> Option<Issues> {
    let read = |(at, file): (usize, &SnapshotFile)| {
        let issues = snapshot::read_unclosed(dir, manifest, file.mark)?;
        Some((at, issues))
    };
    let (at, issues) = files.iter().enumerate().rev().find_map(read)?;
    let later = files.get(at + 1..files.len() - folded).unwrap_or_default();
    let mut throttle = Throttle::HURRIED;
    let (issues, _) = read_over(issues, dir, manifest, later, &mut throttle).ok()??;
    Some(issues)
}

struct Unclosed {
    issues: Issues,
    snapshot: SnapshotLookup,
    /// What happened behind the snapshot to an issue that is not among `issues`.
    later: HashMap<String, Vec<(Seq, IssueEvent)>>,
}

impl Unclosed {
    /// `None` if there is no file of them.
    fn read(dir: &StoreDir, mut end: impl FnMut() -> End) -> Result<Option<Self>> {
        let manifest = Manifest::required(dir)?;
        let files = manifest.files();
        let Some(issues) = after(dir, &manifest, &files, 0) else {
            return Ok(None);
        };
        let Some(snapshot) = SnapshotLookup::open(dir, &manifest, &files)? else {
            return Ok(None);
        };
        let mut unclosed = Self {
            issues,
            snapshot,
            later: HashMap::new(),
        };
        let last_seq = unclosed.apply(RawRecords::new(dir, manifest.first_seq, end()))?;
        unclosed.bring_reopened()?;
        unclosed.bring_parents()?;
        unclosed.issues.moved_on(last_seq);
        Ok(Some(unclosed))
    }

    /// Applies the records, or keeps them for later; returns the last one.
    fn apply(&mut self, mut records: RawRecords) -> Result<Seq> {
        let mut scratch = Vec::new();
        while let Some(record) = records.next()? {
            let (seq, offset) = (record.line.header.seq, record.offset);
            let events = match record.line.body.decode::<IssueEvent>(&mut scratch) {
                Ok(events) => events,
                Err(reason) => return Err(records.refuse(seq, offset, reason)),
            };
            for event in events {
                if self.issues.entry(&event.id).is_some() {
                    self.issues.apply_event(Seq::new(seq), event);
                } else {
                    let id = event.id.clone();
                    let later = self.later.entry(id).or_default();
                    later.push((Seq::new(seq), event));
                }
            }
        }
        Ok(Seq::new(records.next_seq() - 1))
    }

    /// Adds the issues that were closed or absent and may not be any more.
    fn bring_reopened(&mut self) -> Result<()> {
        let reopened = self.later.iter().filter(|(_, events)| may_open(events));
        let reopened: Vec<String> = reopened.map(|(id, _)| id.clone()).collect();
        reopened.iter().try_for_each(|id| self.bring(id).map(drop))
    }

    /// Adds the issues, closed ones, too, that those that are not closed are a part of: they pass
    /// on what blocks them.
    fn bring_parents(&mut self) -> Result<()> {
        let parents = |issue: &Issue| Facts::of(issue).parents;
        let present = self.issues.iter();
        let mut wanted: Vec<String> = present.flat_map(|(_, issue)| parents(issue)).collect();
        while let Some(id) = wanted.pop() {
            if self.issues.entry(&id).is_none() && self.bring(&id)? {
                wanted.extend(self.issues.get(&id).map(parents).into_iter().flatten());
            }
        }
        Ok(())
    }

    /// Adds what the whole state has of this issue, which is not among them yet. False if that is
    /// nothing.
    fn bring(&mut self, id: &str) -> Result<bool> {
        if let Some(entry) = self.snapshot.entry(id)? {
            self.issues.restore_entry(id.to_owned(), entry);
        }
        for (seq, event) in self.later.remove(id).unwrap_or_default() {
            self.issues.apply_event(seq, event);
        }
        Ok(self.issues.entry(id).is_some())
    }
}

/// Whether an issue that was closed or absent may be neither after these events.
fn may_open(events: &[(Seq, IssueEvent)]) -> bool {
    let mut may = false;
    for (_, event) in events {
        may = match (event.op, &event.data) {
            (Op::Delete, _) | (Op::Close, None) => false,
            (Op::Reopen | Op::Patch, None) => true,
            (_, Some(issue)) => !is_closed(issue),
            (_, None) => may,
        };
    }
    may
}
