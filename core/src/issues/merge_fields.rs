//! The merge of one issue, field by field. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
};

use serde_json::value::RawValue;

use crate::issues::{
    canonical_json::{meaning, same},
    issue::Issue,
    timestamp::since_epoch,
};

/// A field or an issue that both sides of a [`crate::merge`] changed in different ways.
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

pub(crate) type Value<'a> = Option<&'a RawValue>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Ours,
    Theirs,
    Neither,
}

/// The first three rows of the table in [`crate::merge`].
pub(crate) fn decide(
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

pub(crate) fn same_bytes(a: Value<'_>, b: Value<'_>) -> bool {
    a.map(RawValue::get) == b.map(RawValue::get)
}

pub(crate) fn same_meaning(a: Value<'_>, b: Value<'_>) -> bool {
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

/// What becomes of a field that both sides changed in different ways.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Arrays are merged as sets. Anything else is a conflict.
    Value,
    /// Of two times, the earlier.
    Earlier,
    /// Of two times, the later.
    Later,
    /// Of two times, the later; of a time and none, what the side with the result's `status` has.
    OfStatus,
    /// That of the side whose content is the result's; none if neither's is.
    OfContent,
}

impl Rule {
    fn of(field: &str) -> Self {
        match field {
            "created_at" => Self::Earlier,
            "updated_at" => Self::Later,
            "closed_at" | "deleted_at" => Self::OfStatus,
            "content_hash" => Self::OfContent,
            _ => Self::Value,
        }
    }
}

pub(crate) type FieldsOf<'a> = Vec<(String, &'a RawValue)>;

/// The fields of an issue; `None` if a name occurs twice.
pub(crate) fn fields(issue: &Issue) -> Option<FieldsOf<'_>> {
    let fields = issue.fields().into_iter();
    let fields: FieldsOf<'_> = fields
        .map(|(name, value)| (name.into_owned(), value))
        .collect();
    let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    (names.len() == fields.len()).then_some(fields)
}

/// The fields that two issues have in common.
pub(crate) fn common(one: &Issue, other: &Issue) -> Option<Issue> {
    let (one, other) = (fields(one)?, fields(other)?);
    let other = by_name(&other);
    let agreed = one.into_iter().filter(|(name, value)| {
        let other = other.get(name.as_str()).copied();
        same_meaning(Some(value), other)
    });
    let agreed: Vec<_> = agreed.map(|(name, value)| (name.into(), value)).collect();
    Issue::of(&agreed).ok()
}

type ByName<'a> = HashMap<&'a str, &'a RawValue>;

fn by_name<'a>(fields: &'a FieldsOf<'_>) -> ByName<'a> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), *value))
        .collect()
}

/// A field of the result: the value with ours' side of each conflict, and that with theirs'.
struct Slot<'a> {
    name: &'a str,
    sides: [Value<'a>; 3],
    result: [Option<Cow<'a, RawValue>>; 2],
    is: Is,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Decided,
    InConflict,
    /// Decided by the other fields.
    Open(Rule),
}

impl<'a> Slot<'a> {
    fn new(name: &'a str, sides: [Value<'a>; 3]) -> Self {
        let [_, ours, theirs] = sides;
        let one = |value: Value<'a>| (value.map(Cow::Borrowed), Is::Decided);
        let (result, is) = match decide_field(sides) {
            Decided::Ours => one(ours),
            Decided::Theirs => one(theirs),
            Decided::Neither => {
                let rule = Rule::of(name);
                let found = match rule {
                    Rule::Value => merge_arrays(sides).map(Cow::Owned),
                    Rule::Earlier => of_two_times(sides, |ours, theirs| theirs < ours),
                    Rule::Later | Rule::OfStatus => {
                        of_two_times(sides, |ours, theirs| theirs > ours)
                    }
                    Rule::OfContent => None,
                };
                match (found, rule) {
                    (Some(found), _) => (Some(found), Is::Decided),
                    (None, Rule::OfStatus | Rule::OfContent) => (None, Is::Open(rule)),
                    (None, _) => (None, Is::InConflict),
                }
            }
        };
        let result = match is {
            Is::Decided => [result.clone(), result],
            _ => [ours, theirs].map(|value| value.map(Cow::Borrowed)),
        };
        Self {
            name,
            sides,
            result,
            is,
        }
    }

    fn merged(&self) -> Value<'_> {
        let [one, _] = &self.result;
        one.as_deref()
    }

    /// Decides an open field of an issue without conflicts. If there are some, each of the two
    /// lines keeps what goes with it.
    fn follow(&mut self, has_status_of_ours: bool, content_of: [bool; 2]) {
        let [ours, theirs] = self.result.clone();
        let value = match (self.is, content_of) {
            (Is::Open(Rule::OfStatus), _) if has_status_of_ours => ours,
            (Is::Open(Rule::OfStatus), _) | (Is::Open(_), [false, true]) => theirs,
            (Is::Open(_), [true, _]) => ours,
            (Is::Open(_), [false, false]) => None,
            _ => return,
        };
        self.result = [value.clone(), value];
    }
}

/// Merges field by field. Returns the issue with ours' values for conflicts, the one with theirs',
/// and the conflicts.
pub(crate) fn merge_fields(
    id: &str,
    base: &FieldsOf<'_>,
    ours: &FieldsOf<'_>,
    theirs: &FieldsOf<'_>,
) -> Option<(Issue, Issue, Vec<MergeConflict>)> {
    let (in_base, in_ours, in_theirs) = (by_name(base), by_name(ours), by_name(theirs));
    let new = theirs
        .iter()
        .filter(|(name, _)| !in_ours.contains_key(name.as_str()));
    let names = ours.iter().chain(new).map(|(name, _)| name.as_str());
    let mut slots: Vec<Slot<'_>> = names
        .map(|name| {
            let sides = [&in_base, &in_ours, &in_theirs].map(|side| side.get(name).copied());
            Slot::new(name, sides)
        })
        .collect();
    let conflicts = slots.iter().filter(|slot| slot.is == Is::InConflict);
    let conflicts: Vec<MergeConflict> = conflicts
        .map(|slot| {
            let [base, ours, theirs] = slot.sides.map(text);
            MergeConflict {
                id: id.to_owned(),
                field: Some(slot.name.to_owned()),
                base,
                ours,
                theirs,
            }
        })
        .collect();
    if conflicts.is_empty() {
        let is_that_of = |side: &ByName<'_>, slot: &Slot<'_>| {
            same_meaning(slot.merged(), side.get(slot.name).copied())
        };
        let status = slots.iter().find(|slot| slot.name == "status");
        let has_status_of_ours = status.is_none_or(|slot| is_that_of(&in_ours, slot));
        let content_of = [&in_ours, &in_theirs].map(|side| {
            let content = |slot: &&Slot<'_>| Rule::of(slot.name) == Rule::Value;
            let mut content = slots.iter().filter(content);
            content.all(|slot| is_that_of(side, slot))
        });
        for slot in &mut slots {
            slot.follow(has_status_of_ours, content_of);
        }
    }
    let [one, other] = [0, 1].map(|side: usize| {
        let fields = slots.iter().filter_map(|slot| {
            let value = slot.result.get(side)?.as_deref()?;
            Some((slot.name.into(), value))
        });
        Issue::of(&fields.collect::<Vec<_>>()).ok()
    });
    let (one, other) = one.zip(other)?;
    Some((one, other, conflicts))
}

pub(crate) fn text(value: Value<'_>) -> Option<String> {
    value.map(|value| value.get().to_owned())
}

/// Ours of two times, or theirs; `None` if one of them is not a time.
fn of_two_times(
    [_, ours, theirs]: [Value<'_>; 3],
    is_theirs: impl Fn(jiff::SignedDuration, jiff::SignedDuration) -> bool,
) -> Option<Cow<'_, RawValue>> {
    let time = |value: &RawValue| {
        let text: String = serde_json::from_str(value.get()).ok()?;
        since_epoch(&text)
    };
    let (ours, theirs) = (ours?, theirs?);
    let of_theirs = is_theirs(time(ours)?, time(theirs)?);
    Some(Cow::Borrowed(if of_theirs { theirs } else { ours }))
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
