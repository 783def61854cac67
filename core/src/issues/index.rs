//! An index over the issues of a state, built by the first query and kept up from then on.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use crate::{
    format::members::{Members, plain_string},
    issues::{
        filter::Filter,
        issue::{Dependency, Issue},
        transition::Status,
    },
};

/// The indexed fields of an issue. A field of an unusual shape counts as missing.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    status: Option<String>,
    assignee: Option<String>,
    labels: Vec<String>,
    priority: Option<i64>,
    /// Issues that must be closed before it is ready.
    pub(crate) blocked_by: Vec<String>,
    /// Issues that it is a part of.
    pub(crate) parents: Vec<String>,
}

impl Facts {
    pub(crate) fn of(issue: &Issue) -> Self {
        let mut facts = Self::default();
        if issue.is_carried() {
            return facts;
        }
        for (name, value) in Members::of(issue.as_json()) {
            let text = || match plain_string(value.as_bytes()) {
                Some((text, _)) => Some(text.to_owned()),
                None => serde_json::from_str(value).ok(),
            };
            match &*name {
                "status" => facts.status = text(),
                "assignee" => facts.assignee = text().filter(|agent: &String| !agent.is_empty()),
                "priority" => facts.priority = serde_json::from_str(value).ok(),
                "labels" => facts.labels = serde_json::from_str(value).unwrap_or_default(),
                "dependencies" => {
                    (facts.blocked_by, facts.parents) = (Vec::new(), Vec::new());
                    for dependency in dependencies(value) {
                        match dependency.kind.as_str() {
                            "blocks" => facts.blocked_by.push(dependency.depends_on_id),
                            "parent-child" => facts.parents.push(dependency.depends_on_id),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        facts.labels.sort_unstable();
        facts.labels.dedup();
        facts
    }

    /// Calls `act` with each of its names and the table, of those by status, assignee and label,
    /// that has it.
    fn each<T>(
        &self,
        [by_status, by_assignee, by_label]: [&mut T; 3],
        mut act: impl FnMut(&mut T, &str),
    ) {
        if let Some(status) = &self.status {
            act(by_status, status);
        }
        if let Some(assignee) = &self.assignee {
            act(by_assignee, assignee);
        }
        for label in &self.labels {
            act(by_label, label);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        Status::of(self.status.as_deref()) == Status::Closed
    }

    /// Whether there are issues that may block it.
    pub(crate) fn depends(&self) -> bool {
        !self.blocked_by.is_empty() || !self.parents.is_empty()
    }

    /// Smaller is more urgent; an issue without priority comes last.
    pub(crate) fn urgency(&self) -> (bool, i64) {
        (self.priority.is_none(), self.priority.unwrap_or(0))
    }

    /// Whether the indexed fields match.
    pub(crate) fn matches(&self, filter: &Filter) -> bool {
        (filter.status.is_none() || self.status == filter.status)
            && (filter.assignee.is_none() || self.assignee == filter.assignee)
            && filter
                .labels
                .iter()
                .all(|label| self.labels.contains(label))
    }
}

/// The dependencies of the usual shape; others are skipped.
fn dependencies(array: &str) -> impl Iterator<Item = Dependency> {
    let elements: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(array).unwrap_or_default();
    elements
        .into_iter()
        .filter_map(|element| serde_json::from_str(element.get()).ok())
}

type Ids = BTreeSet<Arc<str>>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) facts: HashMap<Arc<str>, Facts>,
    pub(crate) by_status: BTreeMap<String, Ids>,
    by_assignee: BTreeMap<String, Ids>,
    by_label: BTreeMap<String, Ids>,
}

impl Index {
    /// Of so many issues, which are sorted by id.
    fn of<'a>(len: usize, issues: impl Iterator<Item = (&'a str, &'a Issue)>) -> Self {
        /// By names, in the order of the ids: to insert one after the other takes longer.
        type Names = BTreeMap<String, Vec<Arc<str>>>;
        let mut all: [Names; 3] = Default::default();
        let mut facts = HashMap::with_capacity(len);
        for (id, issue) in issues {
            let (id, of_issue): (Arc<str>, _) = (id.into(), Facts::of(issue));
            let [by_status, by_assignee, by_label] = &mut all;
            of_issue.each(
                [by_status, by_assignee, by_label],
                |names, name| match names.get_mut(name) {
                    Some(ids) => ids.push(Arc::clone(&id)),
                    None => drop(names.insert(name.to_owned(), vec![Arc::clone(&id)])),
                },
            );
            facts.insert(id, of_issue);
        }
        let [by_status, by_assignee, by_label] = all.map(|names| {
            let sets = names.into_iter();
            sets.map(|(name, ids)| (name, ids.into_iter().collect()))
                .collect()
        });
        Self {
            facts,
            by_status,
            by_assignee,
            by_label,
        }
    }

    /// Puts an issue in its new form; `None` removes it.
    fn put(&mut self, id: &str, issue: Option<&Issue>) {
        if let Some((id, facts)) = self.facts.remove_entry(id) {
            facts.each(self.by_names(), |ids, name| {
                if let Some(of_name) = ids.get_mut(name) {
                    of_name.remove(&id);
                    if of_name.is_empty() {
                        ids.remove(name);
                    }
                }
            });
        }
        if let Some(issue) = issue {
            let (id, facts): (Arc<str>, _) = (id.into(), Facts::of(issue));
            facts.each(self.by_names(), |ids, name| {
                let of_name = ids.entry(name.to_owned()).or_default();
                of_name.insert(Arc::clone(&id));
            });
            self.facts.insert(id, facts);
        }
    }

    fn by_names(&mut self) -> [&mut BTreeMap<String, Ids>; 3] {
        [
            &mut self.by_status,
            &mut self.by_assignee,
            &mut self.by_label,
        ]
    }

    /// The smallest set that contains all issues that match; `None` for all issues.
    pub(crate) fn candidates(&self, filter: &Filter) -> Option<&Ids> {
        static NONE: Ids = Ids::new();
        let by = [
            (&self.by_status, &filter.status),
            (&self.by_assignee, &filter.assignee),
        ];
        let by = by
            .into_iter()
            .filter_map(|(ids, name)| Some((ids, name.as_ref()?)));
        let labels = filter.labels.iter().map(|label| (&self.by_label, label));
        let sets = by
            .chain(labels)
            .map(|(ids, name)| ids.get(name).unwrap_or(&NONE));
        sets.min_by_key(|ids| ids.len())
    }

    /// As [`blockers`].
    pub(crate) fn blockers(&self, id: &str) -> BTreeSet<&str> {
        if !self.facts.get(id).is_some_and(Facts::depends) {
            return BTreeSet::new(); // As most.
        }
        let known = |id: &str| Ok::<_, Infallible>(self.facts.get(id));
        let Ok(blockers) = blockers(id, known);
        let own = |id: &String| self.facts.get_key_value(id.as_str());
        blockers
            .iter()
            .filter_map(|id| Some(&**own(id)?.0))
            .collect()
    }
}

/// The open issues that block `id` or an issue that it is a part of. `facts` are those of an issue
/// that exists.
pub(crate) fn blockers<F: Borrow<Facts>, E>(
    id: &str,
    mut facts: impl FnMut(&str) -> Result<Option<F>, E>,
) -> Result<BTreeSet<String>, E> {
    let mut blockers = BTreeSet::new();
    let mut seen = HashSet::from([id.to_owned()]);
    let mut whole = vec![id.to_owned()];
    while let Some(part) = whole.pop() {
        let Some(of_part) = facts(&part)? else {
            continue;
        };
        let of_part = of_part.borrow();
        for id in &of_part.blocked_by {
            if facts(id)?.is_some_and(|facts| !facts.borrow().is_closed()) {
                blockers.insert(id.clone());
            }
        }
        for parent in &of_part.parents {
            if seen.insert(parent.clone()) {
                whole.push(parent.clone());
            }
        }
    }
    Ok(blockers)
}

/// The index of a state, and no part of it: a copy builds its own, and all are equal.
#[derive(Debug, Default)]
pub(crate) struct Lazy(OnceLock<Index>);

impl Lazy {
    /// The index; built from `issues`, of which there are so many, if it is not there yet.
    pub(crate) fn get<'a>(
        &self,
        len: usize,
        issues: impl Iterator<Item = (&'a str, &'a Issue)>,
    ) -> &Index {
        self.0.get_or_init(|| Index::of(len, issues))
    }

    /// Updates the index, if it is there already.
    pub(crate) fn put(&mut self, id: &str, issue: Option<&Issue>) {
        if let Some(index) = self.0.get_mut() {
            index.put(id, issue);
        }
    }
}

impl Clone for Lazy {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Lazy {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Lazy {}
