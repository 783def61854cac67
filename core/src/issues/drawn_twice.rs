//! Two branches that drew the same id for different issues: the later one gets another id. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::issues::{
    issue::{Fields, ID_BYTES_MAX, Issue, digest},
    merge_sides::{Base, Lines},
    timestamp::since_epoch,
};

const DIGITS: usize = 4;

/// Renames the later of two issues in each pair that has one id, and returns the old and the new
/// ids. Follows earlier renames of the same kind, so that a branch that doesn't know of them yet
/// changes the issue that it means.
pub(crate) fn rename(base: &mut Base, ours: &mut Lines, theirs: &mut Lines) -> Vec<[String; 2]> {
    follow(base, ours, theirs);
    follow(base, theirs, ours);
    let mut renamed = Vec::new();
    let both: Vec<String> = ours.keys().cloned().collect();
    for id in both {
        let (Some(one), Some(other)) = (ours.get(&id), theirs.get(&id)) else {
            continue;
        };
        if !base.lacks(&id) || !are_different(one, other) {
            continue;
        }
        let theirs_is_later = age(one) < age(other);
        let later = if theirs_is_later { other } else { one };
        let is_free = |new: &String| {
            [&base.issues, &*ours, &*theirs].into_iter().all(|side| {
                side.get(new)
                    .is_none_or(|issue| created(issue) == created(later))
            })
        };
        let Some(new) = names(&id, later).find(is_free) else {
            continue;
        };
        let side = if theirs_is_later {
            &mut *theirs
        } else {
            &mut *ours
        };
        rename_in(side, &id, &new);
        renamed.push([id, new]);
    }
    renamed
}

/// If `side` has renamed an issue of the base, renames it in the base and on the other side, too.
fn follow(base: &mut Base, side: &Lines, other: &mut Lines) {
    let ids: Vec<String> = base.issues.keys().cloned().collect();
    for id in ids {
        let (Some(old), Some(now)) = (base.issues.get(&id), side.get(&id)) else {
            continue;
        };
        if !are_different(old, now) {
            continue;
        }
        let is_it =
            |issue: Option<&Issue>| issue.is_some_and(|issue| created(issue) == created(old));
        let mut names = names(&id, old).take(2);
        let Some(new) = names.find(|new| is_it(side.get(new)) && base.lacks(new)) else {
            continue;
        };
        if is_it(other.get(&id)) {
            rename_in(other, &id, &new);
        }
        rename_in(&mut base.issues, &id, &new);
    }
}

/// Whether two issues with one id were created as different ones.
fn are_different(one: &Issue, other: &Issue) -> bool {
    let (first, second) = (created(one), created(other));
    first.is_some() && second.is_some() && first != second && one.title() != other.title()
}

/// When it was created, in one spelling.
fn created(issue: &Issue) -> Option<String> {
    let text = issue.field::<String>("created_at")?;
    Some(since_epoch(&text).map_or(text, |time| format!("{:040}", time.as_nanos())))
}

/// Orders issues of one id, on all branches alike.
fn age(issue: &Issue) -> (Option<String>, &str) {
    (created(issue), issue.as_json())
}

/// The new ids for an issue, in the order of preference. They don't depend on what can change, so
/// that two clones that merge the same branches choose the same.
fn names(id: &str, issue: &Issue) -> impl Iterator<Item = String> + use<> {
    let (id, created) = (id.to_owned(), created(issue).unwrap_or_default());
    let fits = id.len() + 1 + DIGITS <= ID_BYTES_MAX;
    (0..100).filter(move |_| fits).map(move |attempt: u32| {
        let mut rest = digest(&[&id, &created, &attempt.to_string()]);
        let digit = |_| {
            let digit = u32::try_from(rest % 36).unwrap_or(0);
            rest /= 36;
            char::from_digit(digit, 36).unwrap_or('0')
        };
        let digits: String = (0..DIGITS).map(digit).collect();
        format!("{id}-{digits}")
    })
}

/// Gives an issue another id, also where others depend on it.
fn rename_in(side: &mut Lines, old: &str, new: &str) {
    let Some(issue) = side.remove(old) else {
        return;
    };
    let issue = issue.with("id", new).unwrap_or(issue);
    side.insert(new.to_owned(), issue);
    for issue in side.values_mut() {
        if memchr::memmem::find(issue.as_json().as_bytes(), old.as_bytes()).is_some()
            && let Some(redirected) = redirect(issue, old, new)
        {
            *issue = redirected;
        }
    }
}

/// The issue with dependencies on `new` in place of `old`, if it has any.
fn redirect(issue: &Issue, old: &str, new: &str) -> Option<Issue> {
    let new = serde_json::value::to_raw_value(new).ok()?;
    let elements: Vec<&RawValue> = serde_json::from_str(issue.get("dependencies")?.get()).ok()?;
    let mut found = false;
    let redirected = elements.into_iter().map(|element| {
        let Ok(Fields(mut fields)) = serde_json::from_str::<Fields<'_>>(element.get()) else {
            return Cow::Borrowed(element);
        };
        let mut here = false;
        for (name, value) in &mut fields {
            let names_an_issue = matches!(&**name, "issue_id" | "depends_on_id");
            if names_an_issue && serde_json::from_str(value.get()).is_ok_and(|id: String| id == old)
            {
                *value = &new;
                here = true;
            }
        }
        found |= here;
        match Issue::of(&fields) {
            Ok(changed) if here => Cow::Owned(changed.as_raw().to_owned()),
            _ => Cow::Borrowed(element),
        }
    });
    let redirected: Vec<Cow<'_, RawValue>> = redirected.collect();
    found.then(|| issue.with("dependencies", &redirected).ok())?
}
