//! A three-way merge of exports, by issue. Pure.

use std::collections::BTreeSet;

use crate::{
    error::Error,
    issues::{
        drawn_twice,
        issue::Issue,
        jsonl::on_one_line,
        merge_fields::{
            Decided, MergeConflict, decide, fields, merge_fields, same_bytes, same_meaning, text,
        },
        merge_sides::{Base, Lines, read},
    },
};

/// The result of a [`merge`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// The issues, one a line, sorted by id. For a conflict, both lines, between git's markers.
    pub text: String,
    /// The conflicts.
    pub conflicts: Vec<MergeConflict>,
    /// Ids that both sides had given to different issues: each with the new id of the later issue.
    pub renamed: Vec<[String; 2]>,
}

/// Merges two exports with their common ancestor.
///
/// | base to ours | base to theirs | result |
/// | --- | --- | --- |
/// | the same | anything | theirs |
/// | anything | the same | ours |
/// | the same change | the same change | the change |
/// | changed | changed otherwise | field by field |
/// | deleted | changed, or the other way round | a conflict |
///
/// The same rules hold for each field. If both sides changed a field in different ways:
///
/// | field | result |
/// | --- | --- |
/// | an array | a set: with what either side added, without what either removed |
/// | `updated_at` | the later time |
/// | `created_at` | the earlier time |
/// | `closed_at`, `deleted_at` | the later time; of a time and none, the one of the merged `status` |
/// | `content_hash` | that of the side whose content is the merged one; none if neither's is |
/// | anything else | a conflict |
///
/// Values are equal if they mean the same JSON value. If only one side changed how a value is
/// written, that spelling is kept. An issue without a conflict has the fields in ours' order, then
/// those that are new in theirs.
///
/// For a conflict, both lines stand between markers, equal in all that could be merged: if you
/// choose one, you lose only what was in conflict. A file with markers can't be imported. An object
/// with the same name twice, and a [carried line](Issue::is_carried), are merged as a whole.
///
/// If both sides have an id that the base has not, with different `title` and `created_at`, two
/// branches drew it for different issues. Both are kept, the later one under a new id
/// ([`Merged::renamed`]), also where the `dependencies` of its side name it. The new id is the same
/// wherever the two branches are merged.
///
/// Nothing in the base is an error, since history can't be changed. What is unreadable there, or
/// occurs twice, or stands between markers, is unknown; of two lines for an issue, what they agree
/// on is known.
///
/// ```
/// use strand_core::merge;
///
/// let base = br#"{"id":"bd-1","title":"Mend","status":"open","labels":["a"]}"#;
/// let ours = br#"{"id":"bd-1","title":"Mend","status":"closed","labels":["a"]}"#;
/// let theirs = br#"{"id":"bd-1","title":"Mend","status":"open","labels":["a","b"]}"#;
/// let merged = merge(base, ours, theirs)?;
/// let line = r#"{"id":"bd-1","title":"Mend","status":"closed","labels":["a","b"]}"#;
/// assert_eq!(merged.text.trim_end(), line);
/// assert!(merged.conflicts.is_empty() && merged.renamed.is_empty());
/// # Ok::<(), strand_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::BadLine`]: a line of `ours` or `theirs` is no issue, or has the id of an earlier line
/// that says something else.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Merged, Error> {
    let ours = read("ours", ours)?;
    let theirs = read("theirs", theirs)?;
    Ok(three_way(Base::read(base), ours, theirs).into_merged())
}

/// What becomes of an issue.
#[derive(Debug)]
pub(crate) enum Fate {
    Merged(Issue),
    Deleted,
    /// What ours and theirs have, equal in all that could be merged.
    Conflict {
        ours: Option<Issue>,
        theirs: Option<Issue>,
        conflicts: Vec<MergeConflict>,
    },
}

/// A merge that is not written down yet.
#[derive(Debug)]
pub(crate) struct ThreeWay {
    pub(crate) issues: Vec<(String, Fate)>,
    pub(crate) renamed: Vec<[String; 2]>,
}

pub(crate) fn three_way(mut base: Base, mut ours: Lines, mut theirs: Lines) -> ThreeWay {
    let renamed = drawn_twice::rename(&mut base, &mut ours, &mut theirs);
    let ids: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let issues = ids.into_iter().map(|id| {
        let (ours, theirs) = (ours.get(id), theirs.get(id));
        // An issue that the base may not have had may be new on the side that has it.
        let is_new = (ours.is_none() || theirs.is_none()) && base.is_uncertain(id);
        let base = base.issues.get(id).filter(|_| !is_new);
        (id.clone(), merge_issue(id, [base, ours, theirs]))
    });
    let issues = issues.collect();
    ThreeWay { issues, renamed }
}

impl ThreeWay {
    pub(crate) fn into_merged(self) -> Merged {
        let mut merged = Merged {
            text: String::new(),
            conflicts: Vec::new(),
            renamed: self.renamed,
        };
        for (_, fate) in self.issues {
            match fate {
                Fate::Merged(issue) => merged.line(&issue),
                Fate::Deleted => {}
                Fate::Conflict {
                    ours,
                    theirs,
                    conflicts,
                } => {
                    for (marker, issue) in [("<<<<<<< ours\n", ours), ("=======\n", theirs)] {
                        merged.text.push_str(marker);
                        if let Some(issue) = issue {
                            merged.line(&issue);
                        }
                    }
                    merged.text.push_str(">>>>>>> theirs\n");
                    merged.conflicts.extend(conflicts);
                }
            }
        }
        merged
    }
}

impl Merged {
    fn line(&mut self, issue: &Issue) {
        self.text.push_str(&on_one_line(issue.as_json()));
        self.text.push('\n');
    }
}

fn merge_issue(id: &str, [base, ours, theirs]: [Option<&Issue>; 3]) -> Fate {
    let raw = [base, ours, theirs].map(|issue| issue.map(Issue::as_raw));
    let by_field = || {
        let (ours, theirs) = ours.zip(theirs)?;
        if ours.is_carried() || theirs.is_carried() {
            return None;
        }
        let base = base.map_or_else(|| Some(Vec::new()), fields)?;
        merge_fields(id, &base, &fields(ours)?, &fields(theirs)?)
    };
    let mut decided = decide(raw, same_bytes);
    if decided == Decided::Neither {
        // By field, not by meaning of the whole: a value that one side only respelled is kept.
        match by_field() {
            Some((one, _, conflicts)) if conflicts.is_empty() => return Fate::Merged(one),
            Some((one, other, conflicts)) => {
                return Fate::Conflict {
                    ours: Some(one),
                    theirs: Some(other),
                    conflicts,
                };
            }
            None => decided = decide(raw, same_meaning),
        }
    }
    let side = match decided {
        Decided::Ours => ours,
        Decided::Theirs => theirs,
        Decided::Neither => {
            let [base, of_ours, of_theirs] = raw.map(text);
            let conflict = MergeConflict {
                id: id.to_owned(),
                field: None,
                base,
                ours: of_ours,
                theirs: of_theirs,
            };
            return Fate::Conflict {
                ours: ours.cloned(),
                theirs: theirs.cloned(),
                conflicts: vec![conflict],
            };
        }
    };
    side.map_or(Fate::Deleted, |issue| Fate::Merged(issue.clone()))
}
