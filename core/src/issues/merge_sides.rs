//! Reads the files of a merge: two sides without faults, and a base that may have any. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    error::Error,
    issues::{
        issue::Issue,
        jsonl::{is_blank, parse_issue},
        merge_fields::common,
    },
};

/// The lines of a file by their ids.
pub(crate) type Lines = BTreeMap<String, Issue>;

/// The numbered lines of a file, without blank ones and a byte order mark.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    lines.filter(|(_, line)| !is_blank(line))
}

/// Reads one of the two sides.
pub(crate) fn read(file: impl Into<PathBuf>, text: &[u8]) -> Result<Lines, Error> {
    let file = file.into();
    let mut issues = BTreeMap::new();
    for (line, bytes) in lines(text) {
        let bad = |reason| Error::BadLine {
            file: file.clone(),
            line,
            reason,
        };
        let issue = parse_issue(bytes, false).map_err(bad)?;
        if let Some(twice) = issues.insert(issue.id(), issue.clone())
            && twice != issue
        {
            return Err(bad(format!("its id {:?} occurs twice", twice.id())));
        }
    }
    Ok(issues)
}

/// The common ancestor.
#[derive(Debug, Default)]
pub(crate) struct Base {
    pub(crate) issues: Lines,
    /// What it had of these is not certain.
    unknown: BTreeSet<String>,
    /// A line can't be read, so that any issue may have been there.
    unreadable: bool,
}

impl Base {
    /// Accepts anything.
    pub(crate) fn read(text: &[u8]) -> Self {
        let mut base = Self::default();
        let mut between_markers = false;
        let mut versions: BTreeMap<String, Vec<Issue>> = BTreeMap::new();
        for (_, line) in lines(text) {
            match parse_issue(line, false) {
                Ok(issue) => {
                    let id = issue.id();
                    if between_markers {
                        base.unknown.insert(id.clone());
                    }
                    versions.entry(id).or_default().push(issue);
                }
                Err(_) if line.starts_with(b"<<<<<<<") => between_markers = true,
                Err(_) if line.starts_with(b">>>>>>>") => between_markers = false,
                Err(_) if between_markers => {}
                Err(_) => base.unreadable = true,
            }
        }
        for (id, mut versions) in versions {
            versions.dedup();
            let several = versions.len() > 1;
            let known = match versions.pop() {
                // Between the markers of a deletion, there is one.
                Some(_) if !several && base.unknown.contains(&id) => None,
                Some(last) => versions.iter().try_fold(last, |all, one| common(&all, one)),
                None => None,
            };
            if several {
                base.unknown.insert(id.clone());
            }
            if let Some(known) = known {
                base.issues.insert(id, known);
            }
        }
        base
    }

    /// Whether what it had of this issue is not certain.
    pub(crate) fn is_uncertain(&self, id: &str) -> bool {
        self.unknown.contains(id)
    }

    /// Whether it certainly had no such issue.
    pub(crate) fn lacks(&self, id: &str) -> bool {
        !self.unreadable && !self.unknown.contains(id) && !self.issues.contains_key(id)
    }
}
