//! The issues that are not closed, found without reading those that are: in trackers, a few hundred
//! of many thousand.
//!
//! A compaction writes them into a file beside the snapshot. The runs that were written since, if
//! any, are read over it. Of the records behind the snapshot, those are decoded that the present
//! state of an issue depends on which may not be closed now; see [`Courses`]. Whoever knows the
//! issues after one of these records goes on from there; see [`super::recent`].

use std::collections::{BTreeMap, HashSet};

use crate::{
    env::storage::OpenMode,
    error::Result,
    format::{
        record::{recent_name, segment_name},
        seq::Seq,
    },
    issues::{
        event::IssueEvent,
        issues::{Entry, Issues},
    },
    state::{
        courses::{Courses, Fate},
        index::BlockEnd,
        lookup::SnapshotLookup,
        snapshot::{self, UnclosedFile, read_over},
        tail::{Segments, Tail},
        throttle::Throttle,
    },
    wal::{
        manifest::{Manifest, SnapshotFile},
        store_dir::StoreDir,
    },
};

/// The file is written anew once so much of the log is behind it, in blocks of the index.
const LOG_BLOCKS: u64 = 4;

/// It is no longer than that.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads the issues that are not closed, and perhaps some that are, through this record. `None` if
/// there is no file of them.
pub(super) fn read(
    dir: &StoreDir,
    manifest: &Manifest,
    snapshot: &mut SnapshotLookup,
    tail: &mut Tail,
    through: u64,
) -> Result<Option<Issues>> {
    let Tail {
        mentioned,
        segments,
        ..
    } = tail;
    let courses = Courses::of(mentioned, manifest.first_seq..through + 1);
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
        closed: BTreeMap::new(),
        others: Others::OfSnapshot(snapshot),
        courses: &courses,
        segments,
    };
    unclosed.fold()?;
    unclosed.issues.moved_on(Seq::new(through));
    Ok(Some(unclosed.issues))
}

/// Brings the issues that are not closed after some record, and perhaps some that are, from there
/// to the end of the tail. `others` are issues as they are then.
pub(super) fn go_on(
    issues: Issues,
    tail: &mut Tail,
    others: &mut dyn FnMut(&[&str]) -> Result<Issues>,
) -> Result<Issues> {
    let through = tail.last_seq();
    let Tail {
        mentioned,
        segments,
        ..
    } = tail;
    let courses = Courses::of(mentioned, issues.last_seq().get() + 1..through + 1);
    let mut unclosed = Unclosed {
        issues,
        closed: BTreeMap::new(),
        others: Others::AfterTail(others),
        courses: &courses,
        segments,
    };
    unclosed.fold()?;
    unclosed.issues.moved_on(Seq::new(through));
    Ok(unclosed.issues)
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

/// Whether it is time to write the file beside the log, as of the last block of the tail's indexes.
pub(super) fn is_due(dir: &StoreDir, manifest: &Manifest, tail: &Tail) -> bool {
    let Some(end) = tail.mentioned.block_end() else {
        return false;
    };
    let written = UnclosedFile::open_recent(dir, manifest, end.segment);
    let written = written.and_then(|file| file.block_end(end.segment));
    let behind = match written {
        Some(written) if written.seq <= end.seq => {
            end.last.offset.saturating_sub(written.last.offset)
        }
        _ => tail.mentioned.bytes_before(end.segment) + end.last.offset,
    };
    behind >= LOG_BLOCKS * dir.index_block_bytes()
}

/// Writes the issues that are not closed after the last record of a block, unless the segment is
/// gone. A file that can't be written is one that is missing.
pub(super) fn write(dir: &StoreDir, manifest: &Manifest, end: &BlockEnd, issues: &Issues) {
    let name = recent_name(end.segment);
    let write = || -> Result<()> {
        dir.remove(&name)?;
        let segment = dir.open_if_there(&segment_name(end.segment), OpenMode::Read)?;
        if segment.is_some()
            && let Some(file) = dir.create_new(&name)?
        {
            snapshot::write_recent(issues, manifest, end, FILE_BYTES_MAX, &file)?;
        }
        Ok(())
    };
    if write().is_err() {
        dir.remove(&name).ok();
    }
}

struct Unclosed<'a> {
    issues: Issues,
    /// As they were before the records, which closed them: they may be parents of others.
    closed: BTreeMap<String, Entry>,
    others: Others<'a>,
    courses: &'a Courses<'a>,
    segments: &'a mut Segments,
}

/// Issues that are not in the table: they were closed or absent before the records.
enum Others<'a> {
    /// They are as the snapshot has them, before the records.
    OfSnapshot(&'a mut SnapshotLookup),
    /// They are looked up as they are after the records.
    AfterTail(&'a mut dyn FnMut(&[&str]) -> Result<Issues>),
}

impl Unclosed<'_> {
    fn fold(&mut self) -> Result<()> {
        self.apply_tail()?;
        self.bring_parents()
    }

    /// Leaves out the issues that the tail closes. Applies what it says of the others, and of those
    /// that it may have opened.
    #[expect(
        clippy::stable_sort_primitive,
        reason = "in the order of the log, most ids are sorted"
    )]
    fn apply_tail(&mut self) -> Result<()> {
        let courses = self.courses;
        let (mut known, mut closed) = (Vec::new(), Vec::new());
        for (id, _) in self.issues.entries() {
            match courses.fate(id) {
                Fate::Untouched | Fate::MayBeOpen => {}
                Fate::AsBefore => known.push(id.to_owned()),
                Fate::Closed => closed.push(id.to_owned()),
            }
        }
        let of_issues = |id: String| Some((self.issues.take_entry(&id)?, id));
        let closed = closed.into_iter().filter_map(of_issues);
        self.closed.extend(closed.map(|(entry, id)| (id, entry)));
        let known = known.iter().map(String::as_str);
        let mut changed: Vec<&str> = known.chain(courses.may_be_open()).collect();
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
        let (mut own, mut others) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            if let Some((id, entry)) = self.closed.remove_entry(*id) {
                self.issues.restore_entry(id, entry);
            }
            let is_other = self.courses.is_of_before(id) && self.issues.entry(id).is_none();
            match &mut self.others {
                Others::AfterTail(_) if is_other => others.push(*id),
                Others::OfSnapshot(snapshot) if is_other => {
                    own.push(*id);
                    if let Some(entry) = snapshot.entry(id)? {
                        self.issues.restore_entry((*id).to_owned(), entry);
                    }
                }
                _ => own.push(*id),
            }
        }
        let places = self.courses.decisive(&own);
        let is_wanted = |event: &IssueEvent| own.binary_search(&event.id.as_str()).is_ok();
        self.segments.each_of(&places, Some(&own), |seq, events| {
            for event in events.into_iter().filter(is_wanted) {
                self.issues.apply_event(seq, event);
            }
        })?;
        if let Others::AfterTail(look_up) = &mut self.others
            && !others.is_empty()
        {
            self.issues.restore_all(&look_up(&others)?);
        }
        Ok(())
    }
}
