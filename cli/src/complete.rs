//! What a shell completes: the ids of issues and the usual values, as they are in the store now.

use std::{collections::BTreeMap, env, path::PathBuf};

use clap_complete::CompletionCandidate;
use strand_core::{Issue, Issues};

use crate::{place, table::printable};

/// The ids of the issues that are not closed, with their titles.
pub(crate) fn ids() -> Vec<CompletionCandidate> {
    described(Issues::load_unclosed, |issue| {
        issue.status().as_deref() != Some("closed")
    })
}

/// The ids of all issues, with their titles.
pub(crate) fn all_ids() -> Vec<CompletionCandidate> {
    described(Issues::load, |_| true)
}

pub(crate) fn statuses() -> Vec<CompletionCandidate> {
    ["open", "in_progress", "blocked", "closed"]
        .map(Into::into)
        .into()
}

pub(crate) fn types() -> Vec<CompletionCandidate> {
    values(&["bug", "chore", "epic", "feature", "task"], |issue| {
        issue.issue_type().into_iter().collect()
    })
}

pub(crate) fn labels() -> Vec<CompletionCandidate> {
    values(&[], Issue::labels)
}

pub(crate) fn assignees() -> Vec<CompletionCandidate> {
    values(&[], |issue| issue.assignee().into_iter().collect())
}

fn described(
    load: fn(PathBuf) -> strand_core::Result<Issues>,
    is_wanted: fn(&Issue) -> bool,
) -> Vec<CompletionCandidate> {
    let Some(issues) = store().and_then(|place| load(place).ok()) else {
        return Vec::new();
    };
    let candidate = |(id, issue): (&str, &Issue)| {
        CompletionCandidate::new(id).help(Some(printable(&issue.title()).into()))
    };
    let wanted = issues.iter().filter(|(_, issue)| is_wanted(issue));
    wanted.map(candidate).collect()
}

/// The usual values of a field, and those that issues have, the most frequent first.
fn values(usual: &[&str], of: fn(&Issue) -> Vec<String>) -> Vec<CompletionCandidate> {
    let mut counts: BTreeMap<String, usize> =
        usual.iter().map(|value| ((*value).to_owned(), 0)).collect();
    let issues = store().and_then(|place| Issues::load_unclosed(place).ok());
    for (_, issue) in issues.iter().flat_map(Issues::iter) {
        for value in of(issue) {
            *counts.entry(value).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(value, _)| value.into()).collect()
}

/// The store of the command line that is being written, if it is a directory: a cluster may be far
/// away.
fn store() -> Option<PathBuf> {
    let words: Vec<_> = env::args_os().collect();
    let after = words.windows(2).find_map(|pair| match pair {
        [option, store] if option == "-C" || option == "--store" => Some(PathBuf::from(store)),
        _ => None,
    });
    let place = place::find(after).ok()?;
    place.is_dir().then_some(place)
}
