//! The issues that are not closed, found without reading those that are: in trackers, a few hundred
//! of many thousand.
//!
//! A compaction writes them into a file beside the snapshot. The runs that were written since, if
//! any, are read over it. Of the records behind the snapshot, those are decoded that the present
//! state of an issue depends on which may not be closed now; see [`Tail::courses`].

use std::collections::{BTreeMap, HashSet};

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
        tail::{ByName, Course, Fate, Tail},
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
    let files = manifest.files();
    let issues = match files.as_slice() {
        [] => Some(Issues::default()), // All of it is in the tail.
        files => after(dir, manifest, files, 0),
    };
    let Some(issues) = issues else {
        return Ok(None);
    };
    let mut unclosed = Unclosed {
        issues,
        snapshot,
        tail,
    };
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
    /// Leaves out the issues that are closed after the tail. Applies what that says of the others,
    /// and of those that it may have opened.
    fn apply_tail(&mut self) -> Result<()> {
        let present = self.issues.entries().map(|(id, _)| NameHash::of_id(id));
        let mut courses = self.tail.courses_and_opened(present);
        self.issues.retain(|id, entry| {
            let course = courses.get(&NameHash::of_id(id)).copied();
            match course.unwrap_or_default().fate {
                Fate::Untouched | Fate::MayBeOpen => true,
                Fate::AsBefore => entry.issue().is_some_and(|issue| !is_closed(issue)),
                Fate::Closed => false,
            }
        });
        let names: HashSet<NameHash> = {
            let present = self.issues.entries().map(|(id, _)| NameHash::of_id(id));
            present.collect()
        };
        courses.retain(|name, course| match course.fate {
            Fate::MayBeOpen => true,
            Fate::AsBefore => names.contains(name),
            Fate::Untouched | Fate::Closed => false,
        });
        self.apply(&courses, &[])
    }

    /// Adds the issues, closed ones, too, that those that are not closed are a part of: they pass
    /// on what blocks them.
    fn bring_parents(&mut self) -> Result<()> {
        let present = self.issues.iter();
        let mut wanted: Vec<String> = present.flat_map(|(_, issue)| parents(issue)).collect();
        let mut known = HashSet::new();
        loop {
            wanted.retain(|id| known.insert(id.clone()) && self.issues.entry(id).is_none());
            if wanted.is_empty() {
                return Ok(());
            }
            wanted.sort_unstable();
            let names = wanted.iter().map(|id| NameHash::of_id(id));
            let courses = self.tail.courses(names);
            self.apply(&courses, &wanted)?;
            let found = wanted.iter().filter_map(|id| self.issues.get(id));
            wanted = found.flat_map(parents).collect();
        }
    }

    /// Makes the issues that go through these courses what they are after the tail. `ids` are those
    /// of them that are known, and not there yet.
    fn apply(&mut self, courses: &ByName<Course>, ids: &[String]) -> Result<()> {
        let records = self.tail.decisive(courses);
        let mut later: BTreeMap<String, Vec<(Seq, IssueEvent)>> = BTreeMap::new();
        for id in ids {
            later.insert(id.clone(), Vec::new());
        }
        self.tail.each_of(&records, |seq, events| {
            for event in events {
                if courses.contains_key(&NameHash::of_id(&event.id)) {
                    match later.get_mut(&event.id) {
                        Some(of_issue) => of_issue.push((seq, event)),
                        None => drop(later.insert(event.id.clone(), vec![(seq, event)])),
                    }
                }
            }
        })?;
        for (id, events) in later {
            let course = courses.get(&NameHash::of_id(&id));
            let is_on_snapshot = course.is_some_and(Course::is_on_snapshot);
            if is_on_snapshot
                && self.issues.entry(&id).is_none()
                && let Some(entry) = self.snapshot.entry(&id)?
            {
                self.issues.restore_entry(id, entry);
            }
            for (seq, event) in events {
                self.issues.apply_event(seq, event);
            }
        }
        Ok(())
    }
}

/// The issues that this one is a part of.
fn parents(issue: &Issue) -> Vec<String> {
    let text = issue.as_json().as_bytes();
    let has = |part: &[u8]| memchr::memmem::find(text, part).is_some();
    // Most issues have none, and need not be parsed to see that. An escape may spell any letter.
    if has(b"parent-child") || has(b"\\u") {
        Facts::of(issue).parents
    } else {
        Vec::new()
    }
}
