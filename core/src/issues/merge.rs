//! A three-way merge of exports, by issue and by field. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use serde_json::value::RawValue;

use crate::{
    error::Error,
    issues::{
        canonical_json::{meaning, same},
        issue::Issue,
        jsonl::{is_blank, parse_issue},
        timestamp::since_epoch,
    },
};

/// One of the three inputs of a [`merge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The common ancestor.
    Base,
    /// The version that is merged into.
    Ours,
    /// The version that is merged.
    Theirs,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Ours => "ours",
            Self::Theirs => "theirs",
        })
    }
}

/// The result of a [`merge`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// The issues, one a line, sorted by id. For a conflict, both lines, between git's markers.
    pub text: String,
    /// The conflicts.
    pub conflicts: Vec<MergeConflict>,
}

/// A field or an issue that both sides of a [`merge`] changed in different ways.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeConflict {
    /// The issue's id.
    pub id: String,
    /// The field; `None` if one side deleted the issue, or if it can't be merged by field.
    pub field: Option<String>,
    /// Its value in the common ancestor, as JSON; `None` if it was missing.
    pub base: Option<String>,
    /// Its value in ours.
    pub ours: Option<String>,
    /// Its value in theirs.
    pub theirs: Option<String>,
}

/// Why a [`merge`] failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A line is not an issue, or its id occurs twice.
    #[error("line {line} of {side}: {reason}; nothing was merged")]
    BadLine {
        /// In which input.
        side: Side,
        /// The line's number, from 1.
        line: u64,
        /// The fault.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] Error),
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
/// The same rules hold for each field. Two different changes of a field are a conflict, except that
/// of two times in `updated_at` the later one counts, and that arrays are merged as sets: with what
/// either side added, and without what either removed. Values are equal if they mean the same JSON
/// value. If only one side changed how a value is written, that spelling is kept. An issue without
/// a conflict has the fields in ours' order, then those that are new in theirs.
///
/// For a conflict, both lines stand between markers, equal in all that could be merged: if you
/// choose one, you lose only what was in conflict. A file with markers can't be imported. An object
/// with the same name twice can't be merged by field.
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
/// assert!(merged.conflicts.is_empty());
/// # Ok::<(), strand_core::MergeError>(())
/// ```
///
/// # Errors
/// [`MergeError::BadLine`].
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Merged, MergeError> {
    let base = issues(Side::Base, base)?;
    let ours = issues(Side::Ours, ours)?;
    let theirs = issues(Side::Theirs, theirs)?;
    let mut merged = Merged {
        text: String::new(),
        conflicts: Vec::new(),
    };
    let ids: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for id in ids {
        merge_issue(id, base.get(id), ours.get(id), theirs.get(id), &mut merged);
    }
    Ok(merged)
}

fn issues(side: Side, text: &[u8]) -> Result<BTreeMap<String, Issue>, MergeError> {
    let mut issues = BTreeMap::new();
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if is_blank(bytes) {
            continue;
        }
        let bad = |reason| MergeError::BadLine { side, line, reason };
        let issue = parse_issue(bytes, false).map_err(bad)?;
        if let Some(twice) = issues.insert(issue.id(), issue) {
            return Err(bad(format!("its id {:?} occurs twice", twice.id())));
        }
    }
    Ok(issues)
}

impl Merged {
    fn line(&mut self, issue: &Issue) {
        self.text.push_str(issue.as_json());
        self.text.push('\n');
    }

    fn both(&mut self, ours: Option<&Issue>, theirs: Option<&Issue>) {
        self.text.push_str("<<<<<<< ours\n");
        if let Some(issue) = ours {
            self.line(issue);
        }
        self.text.push_str("=======\n");
        if let Some(issue) = theirs {
            self.line(issue);
        }
        self.text.push_str(">>>>>>> theirs\n");
    }
}

fn merge_issue(
    id: &str,
    base: Option<&Issue>,
    ours: Option<&Issue>,
    theirs: Option<&Issue>,
    merged: &mut Merged,
) {
    let raw = [base, ours, theirs].map(|issue| issue.map(Issue::as_raw));
    let by_field = || {
        let (ours, theirs) = ours.zip(theirs)?;
        let base = base.map_or_else(|| Some(Vec::new()), fields)?;
        merge_fields(id, &base, &fields(ours)?, &fields(theirs)?)
    };
    let mut decided = decide(raw, same_bytes);
    if decided == Decided::Neither {
        // By field, not by meaning of the whole: a value that one side only respelled is kept.
        match by_field() {
            Some((one, _, conflicts)) if conflicts.is_empty() => return merged.line(&one),
            Some((one, other, conflicts)) => {
                merged.both(Some(&one), Some(&other));
                return merged.conflicts.extend(conflicts);
            }
            None => decided = decide(raw, same_meaning),
        }
    }
    match decided {
        Decided::Ours => ours.into_iter().for_each(|issue| merged.line(issue)),
        Decided::Theirs => theirs.into_iter().for_each(|issue| merged.line(issue)),
        Decided::Neither => {
            merged.both(ours, theirs);
            let [base, ours, theirs] = raw.map(text);
            let (id, field) = (id.to_owned(), None);
            merged.conflicts.push(MergeConflict {
                id,
                field,
                base,
                ours,
                theirs,
            });
        }
    }
}

type Value<'a> = Option<&'a RawValue>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decided {
    Ours,
    Theirs,
    Neither,
}

/// The first three rows of the table.
fn decide(
    [base, ours, theirs]: [Value<'_>; 3],
    equal: impl Fn(Value<'_>, Value<'_>) -> bool,
) -> Decided {
    if equal(ours, theirs) || equal(base, theirs) {
        Decided::Ours
    } else if equal(base, ours) {
        Decided::Theirs
    } else {
        Decided::Neither
    }
}

fn same_bytes(a: Value<'_>, b: Value<'_>) -> bool {
    a.map(RawValue::get) == b.map(RawValue::get)
}

fn same_meaning(a: Value<'_>, b: Value<'_>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Compares bytes first, so that a value that only one side respelled keeps that spelling.
fn decide_field(values: [Value<'_>; 3]) -> Decided {
    match decide(values, same_bytes) {
        Decided::Neither => decide(values, same_meaning),
        decided => decided,
    }
}

fn text(value: Value<'_>) -> Option<String> {
    value.map(|value| value.get().to_owned())
}

type Fields<'a> = Vec<(String, &'a RawValue)>;

/// The fields of an issue; `None` if a name occurs twice.
fn fields(issue: &Issue) -> Option<Fields<'_>> {
    let fields = issue.fields().into_iter();
    let fields: Fields<'_> = fields
        .map(|(name, value)| (name.into_owned(), value))
        .collect();
    let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    (names.len() == fields.len()).then_some(fields)
}

fn by_name<'a>(fields: &'a Fields<'_>) -> HashMap<&'a str, &'a RawValue> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), *value))
        .collect()
}

/// Merges field by field. Returns the issue with ours' values for conflicts, the one with theirs',
/// and the conflicts.
fn merge_fields(
    id: &str,
    base: &Fields<'_>,
    ours: &Fields<'_>,
    theirs: &Fields<'_>,
) -> Option<(Issue, Issue, Vec<MergeConflict>)> {
    let (in_base, in_ours, in_theirs) = (by_name(base), by_name(ours), by_name(theirs));
    let (mut one, mut other, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    let new = theirs
        .iter()
        .filter(|(name, _)| !in_ours.contains_key(name.as_str()));
    for name in ours.iter().chain(new).map(|(name, _)| name) {
        let sides = [&in_base, &in_ours, &in_theirs].map(|side| side.get(name.as_str()).copied());
        let [_, ours, theirs] = sides.map(|value| value.map(Cow::Borrowed));
        let merged = match decide_field(sides) {
            Decided::Ours => Some(ours.clone()),
            Decided::Theirs => Some(theirs.clone()),
            Decided::Neither if name == "updated_at" => {
                later(sides).map(|later| Some(Cow::Borrowed(later)))
            }
            Decided::Neither => merge_arrays(sides).map(|array| Some(Cow::Owned(array))),
        };
        let (of_one, of_other) = if let Some(value) = merged {
            (value.clone(), value)
        } else {
            let [base, of_ours, of_theirs] = sides.map(text);
            conflicts.push(MergeConflict {
                id: id.to_owned(),
                field: Some(name.clone()),
                base,
                ours: of_ours,
                theirs: of_theirs,
            });
            (ours, theirs)
        };
        one.extend(of_one.map(|value| (name, value)));
        other.extend(of_other.map(|value| (name, value)));
    }
    let issue = |fields: &[(&String, Cow<'_, RawValue>)]| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str().into(), &**value))
            .collect();
        Issue::of(&fields).ok()
    };
    Some((issue(&one)?, issue(&other)?, conflicts))
}

/// The later of two times; `None` if one of them is not a time.
fn later([_, ours, theirs]: [Value<'_>; 3]) -> Value<'_> {
    let time = |value: &RawValue| {
        let text: String = serde_json::from_str(value.get()).ok()?;
        since_epoch(&text)
    };
    let (ours, theirs) = (ours?, theirs?);
    Some(if time(theirs)? > time(ours)? {
        theirs
    } else {
        ours
    })
}

/// Merges two arrays as sets; `None` if one of them is not an array.
fn merge_arrays([base, ours, theirs]: [Value<'_>; 3]) -> Option<Box<RawValue>> {
    let base = base.map_or_else(|| Some(Vec::new()), elements)?;
    let (ours, theirs) = (elements(ours?)?, elements(theirs?)?);
    let (in_base, in_ours, in_theirs) = (meanings(&base), meanings(&ours), meanings(&theirs));
    let kept = ours
        .iter()
        .filter(|(meaning, _)| in_theirs.contains(meaning) || !in_base.contains(meaning));
    let added = theirs
        .iter()
        .filter(|(meaning, _)| !in_ours.contains(meaning) && !in_base.contains(meaning));
    let merged: Vec<&RawValue> = kept.chain(added).map(|(_, value)| *value).collect();
    serde_json::value::to_raw_value(&merged).ok()
}

/// The elements of an array, each with its [`meaning`].
fn elements(array: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    let values: Vec<&RawValue> = serde_json::from_str(array.get()).ok()?;
    let values = values.into_iter();
    Some(values.map(|value| (meaning(value), value)).collect())
}

fn meanings<'a>(elements: &'a [(String, &RawValue)]) -> HashSet<&'a String> {
    elements.iter().map(|(meaning, _)| meaning).collect()
}
