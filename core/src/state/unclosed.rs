//! The issues that are not closed, found without reading those that are: in trackers, a few hundred
//! of many thousand.
//!
//! A compaction writes them into a file beside the snapshot. The runs that were written since, if
//! any, are read over it. Of the records behind the snapshot, those are decoded that the present
//! state of an issue depends on which may not be closed now; see [`Tail::decisive`].

use std::collections::{HashMap, HashSet};

use crate::{
    error::Result,
    format::seq::Seq,
    issues::{
        event::IssueEvent, index::Facts, issue::Issue, issues::Issues, transition::is_closed,
    },
    state::{
        lookup::SnapshotLookup,
        mentions::NameHash,
        snapshot::{self, read_over},
        tail::{Fate, Tail},
        throttle::Throttle,
    },
    wal::{
        manifest::{Manifest, SnapshotFile},
        store_dir::StoreDir,
    },
};

/// Reads the issues that are not closed, and perhaps some that are, through the end of the tail.
/// `None` if there is no file of them.
pub(super) fn read(
    dir: &StoreDir,
    manifest: &Manifest,
    snapshot: &mut SnapshotLookup,
    tail: &mut Tail,
) -> Result<Option<Issues>> {
    let Some(issues) = after(dir, manifest, &manifest.files(), 0) else {
        return Ok(None);
    };
    let mut unclosed = Unclosed {
        issues,
        snapshot,
        tail,
    };
    unclosed.drop_closed();
    unclosed.apply_tail()?;
    unclosed.bring_parents()?;
    let last_seq = unclosed.tail.last_seq();
    unclosed.issues.moved_on(Seq::new(last_seq));
    Ok(Some(unclosed.issues))
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

struct Unclosed<'a> {
    issues: Issues,
    snapshot: &'a mut SnapshotLookup,
    tail: &'a mut Tail,
}

impl Unclosed<'_> {
    /// Leaves out the issues that are closed after the tail.
    fn drop_closed(&mut self) {
        let tail = &*self.tail;
        self.issues
            .retain(|id, entry| match tail.fate(NameHash::of_id(id)) {
                Fate::Untouched | Fate::MayBeOpen => true,
                Fate::AsBefore => entry.issue().is_some_and(|issue| !is_closed(issue)),
                Fate::Closed => false,
            });
    }

    /// Applies what the tail says of the issues that are there, and of those that it may have
    /// opened.
    fn apply_tail(&mut self) -> Result<()> {
        let present = self.issues.entries().map(|(id, _)| NameHash::of_id(id));
        let names: HashSet<NameHash> = present.chain(self.tail.opened()).collect();
        let mut without_snapshot = HashSet::new();
        let mut seqs = Vec::new();
        for name in &names {
            let decisive = self.tail.decisive(*name);
            if !decisive.on_snapshot {
                without_snapshot.insert(*name);
            }
            seqs.extend(decisive.seqs);
        }
        seqs.sort_unstable();
        seqs.dedup();
        let mut later: HashMap<String, Vec<(Seq, IssueEvent)>> = HashMap::new();
        self.tail.each_of(&seqs, |seq, events| {
            for event in events {
                if names.contains(&NameHash::of_id(&event.id)) {
                    let of_issue = later.entry(event.id.clone()).or_default();
                    of_issue.push((seq, event));
                }
            }
        })?;
        for (id, events) in later {
            let depends = !without_snapshot.contains(&NameHash::of_id(&id));
            if depends && self.issues.entry(&id).is_none() {
                self.restore(&id)?;
            }
            for (seq, event) in events {
                self.issues.apply_event(seq, event);
            }
        }
        Ok(())
    }

    /// Adds what the snapshot has of this issue.
    fn restore(&mut self, id: &str) -> Result<()> {
        if let Some(entry) = self.snapshot.entry(id)? {
            self.issues.restore_entry(id.to_owned(), entry);
        }
        Ok(())
    }

    /// Adds the issues, closed ones, too, that those that are not closed are a part of: they pass
    /// on what blocks them.
    fn bring_parents(&mut self) -> Result<()> {
        let parents = |issue: &Issue| Facts::of(issue).parents;
        let present = self.issues.iter();
        let mut wanted: Vec<String> = present.flat_map(|(_, issue)| parents(issue)).collect();
        while let Some(id) = wanted.pop() {
            if self.issues.entry(&id).is_none() {
                self.bring(&id)?;
                wanted.extend(self.issues.get(&id).map(parents).into_iter().flatten());
            }
        }
        Ok(())
    }

    /// Adds what the whole state has of this issue, which is not among them yet.
    fn bring(&mut self, id: &str) -> Result<()> {
        let decisive = self.tail.decisive(NameHash::of_id(id));
        if decisive.on_snapshot {
            self.restore(id)?;
        }
        let issues = &mut self.issues;
        self.tail.each_of(&decisive.seqs, |seq, events| {
            let of_issue = events.into_iter().filter(|event| event.id == id);
            of_issue.for_each(|event| issues.apply_event(seq, event));
        })
    }
}
