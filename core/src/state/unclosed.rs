//! The issues that are not closed, found without reading those that are: in trackers, a few hundred
//! of many thousand.
//!
//! A compaction writes them into a file beside the snapshot. The runs that were written since, if
//! any, are read over it. Of the records behind the snapshot, those are decoded that the present
//! state of an issue depends on which may not be closed now; see [`Courses`].

use std::collections::HashSet;

use crate::{
    error::Result,
    format::seq::Seq,
    issues::{event::IssueEvent, issues::Issues, transition::is_closed},
    state::{
        courses::{Courses, Fate},
        lookup::SnapshotLookup,
        snapshot::{self, read_over},
        tail::{Segments, Tail},
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
    let last_seq = tail.last_seq();
    let Tail {
        mentioned,
        segments,
        ..
    } = tail;
    let courses = Courses::of(mentioned);
    let files = manifest.files();
    let issues = match files.as_slice() {
        [] => Some(Issues::default()), // All of it is in the tail.
        files => after(dir, manifest, files, 0, |id| {
            courses.fate(id) != Fate::Closed
        }),
    };
    let Some(issues) = issues else {
        return Ok(None);
    };
    let mut unclosed = Unclosed {
        issues,
        snapshot,
        courses: &courses,
        segments,
    };
    unclosed.apply_tail()?;
    unclosed.bring_parents()?;
    unclosed.issues.moved_on(Seq::new(last_seq));
    Ok(Some(unclosed.issues))
}

/// The issues that are not closed, and perhaps some that are, after the records of these files of
/// the snapshot. `None` if there is no file of them, or something is wrong.
///
/// The last `folded` of the files are not read. They may still count: the caller has what they
/// changed. An issue that is not wanted may be missing.
pub(super) fn after(
    dir: &StoreDir,
    manifest: &Manifest,
    files: &[SnapshotFile],
    folded: usize,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<Issues> {
    let read = |(at, file): (usize, &SnapshotFile)| {
        let issues = snapshot::read_unclosed(dir, manifest, file.mark, &is_wanted)?;
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
    courses: &'a Courses<'a>,
    segments: &'a mut Segments,
}

impl Unclosed<'_> {
    /// Leaves out the issues that are closed after the tail. Applies what that says of the others,
    /// and of those that it may have opened.
    #[expect(
        clippy::stable_sort_primitive,
        reason = "in the order of the log, most ids are sorted"
    )]
    fn apply_tail(&mut self) -> Result<()> {
        let courses = self.courses;
        let mut changed: Vec<String> = Vec::new();
        self.issues.retain(|id, entry| match courses.fate(id) {
            Fate::Untouched | Fate::MayBeOpen => true,
            Fate::AsBefore => {
                let stays = entry.issue().is_some_and(|issue| !is_closed(issue));
                changed.extend(stays.then(|| id.to_owned()));
                stays
            }
            Fate::Closed => false,
        });
        let changed = changed.iter().map(String::as_str);
        let mut changed: Vec<&str> = changed.chain(courses.may_be_open()).collect();
        changed.sort();
        self.apply(&changed)
    }

    /// Adds the issues, closed ones, too, that those that are not closed are a part of: they pass
    /// on what blocks them.
    fn bring_parents(&mut self) -> Result<()> {
        let index = self.issues.index(); // Queries need it, too.
        let present = index.facts.values();
        let mut wanted: Vec<String> = present.flat_map(|facts| facts.parents.clone()).collect();
        let mut known = HashSet::new();
        loop {
            wanted.retain(|id| known.insert(id.clone()) && self.issues.entry(id).is_none());
            if wanted.is_empty() {
                return Ok(());
            }
            wanted.sort_unstable();
            let ids: Vec<&str> = wanted.iter().map(String::as_str).collect();
            self.apply(&ids)?;
            let index = self.issues.index();
            let found = wanted.iter().filter_map(|id| index.facts.get(&**id));
            wanted = found.flat_map(|facts| facts.parents.clone()).collect();
        }
    }

    /// Makes the issues with these ids, which are sorted, what they are after the tail.
    fn apply(&mut self, ids: &[&str]) -> Result<()> {
        for id in ids {
            if self.courses.is_on_snapshot(id)
                && self.issues.entry(id).is_none()
                && let Some(entry) = self.snapshot.entry(id)?
            {
                self.issues.restore_entry((*id).to_owned(), entry);
            }
        }
        let places = self.courses.decisive(ids);
        let is_wanted = |event: &IssueEvent| ids.binary_search(&event.id.as_str()).is_ok();
        self.segments.each_of(&places, Some(ids), |seq, events| {
            for event in events.into_iter().filter(is_wanted) {
                self.issues.apply_event(seq, event);
            }
        })
    }
}
