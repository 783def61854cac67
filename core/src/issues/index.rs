//! An index over the issues of a state, built by the first query and kept up from then on.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde::Serialize;

use crate::{
    format::members::{Members, plain_string},
    issues::{
        filter::Filter,
        issue::{Dependency, Issue},
        transition::Status,
    },
};

/// The indexed fields of an issue. A field of an unusual shape counts as missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
    /// Issues that must be closed before it is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocked_by: Vec<String>,
    /// Issues that it is a part of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parents: Vec<String>,
}

impl Facts {
    pub(crate) fn of(issue: &Issue) -> Self {
        let mut facts = Self::default();
        if issue.is_carried() {
            return facts;
        }
        for (name, value) in Members::of(issue.as_json()) {
            match &*name {
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
                name => facts.set(name, value),
            }
        }
        facts.labels.sort_unstable();
        facts.labels.dedup();
        facts
    }

    /// Takes what [`Facts`] are written as.
    pub(crate) fn written(text: &str) -> Self {
        Self::plain(text).unwrap_or_else(|| Self::any(text))
    }

    /// Those of most issues: a status, perhaps an assignee, and a priority.
    fn plain(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(r#"{"status":"#)?;
        let (status, mut rest) = plain_string(rest.as_bytes())?;
        let mut assignee = None;
        if let Some(value) = rest.strip_prefix(br#","assignee":"#) {
            let (agent, behind) = plain_string(value)?;
            (assignee, rest) = (Some(agent.to_owned()), behind);
        }
        let priority = rest.strip_prefix(br#","priority":"#)?.strip_suffix(b"}")?;
        let &[digit @ b'0'..=b'9'] = priority else {
            return None;
        };
        Some(Self {
            status: Some(status.to_owned()),
            assignee,
            priority: Some(i64::from(digit - b'0')),
            ..Self::default()
        })
    }

    fn any(text: &str) -> Self {
        let mut facts = Self::default();
        for (name, value) in Members::of(text) {
            let ids = || serde_json::from_str(value).unwrap_or_default();
            match &*name {
                "blocked_by" => facts.blocked_by = ids(),
                "parents" => facts.parents = ids(),
                name => facts.set(name, value),
            }
        }
        facts
    }

    /// Takes a field of the issue.
    fn set(&mut self, name: &str, value: &str) {
        let text = || match plain_string(value.as_bytes()) {
            Some((text, _)) => Some(text.to_owned()),
            None => serde_json::from_str(value).ok(),
        };
        match name {
            "status" => self.status = text(),
            "assignee" => self.assignee = text().filter(|agent: &String| !agent.is_empty()),
            "priority" => self.priority = serde_json::from_str(value).ok(),
            "labels" => self.labels = serde_json::from_str(value).unwrap_or_default(),
            _ => {}
        }
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
    /// Not in the table itself, which has more room than issues.
    pub(crate) facts: HashMap<Arc<str>, Box<Facts>>,
    pub(crate) by_status: BTreeMap<String, Ids>,
    by_assignee: BTreeMap<String, Ids>,
    by_label: BTreeMap<String, Ids>,
}

impl Index {
    /// Of so many issues, which are sorted by id; of some, the facts are known.
    fn of<'a>(
        len: usize,
        issues: impl Iterator<Item = (&'a str, &'a Issue)>,
        known: KnownFacts,
    ) -> Self {
        /// By names, in the order of the ids: to insert one after the other takes longer.
        type Names = BTreeMap<String, Vec<Arc<str>>>;
        let mut all: [Names; 3] = Default::default();
        let mut facts = HashMap::with_capacity(len);
        let mut known = known.into_iter().peekable();
        for (id, issue) in issues {
            while known.next_if(|(known, _)| **known < *id).is_some() {}
            let known = known.next_if(|(known, _)| **known == *id);
            let (id, of_issue) = known.unwrap_or_else(|| (id.into(), None));
            let of_issue = of_issue.unwrap_or_else(|| Box::new(Facts::of(issue)));
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
            let (id, facts): (Arc<str>, _) = (id.into(), Box::new(Facts::of(issue)));
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
        if !self.facts.get(id).is_some_and(|facts| facts.depends()) {
            return BTreeSet::new(); // As most.
        }
        let known = |id: &str| Ok::<_, Infallible>(self.facts.get(id).map(|facts| &**facts));
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
pub(crate) struct Lazy {
    index: OnceLock<Index>,
    /// Until it is built.
    known: Mutex<KnownFacts>,
}

/// The facts of some issues, sorted by id, which need not be found in their texts; without those
/// that have changed since.
pub(crate) type KnownFacts = Vec<(Arc<str>, Option<Box<Facts>>)>;

impl Lazy {
    /// The index; built from `issues`, of which there are so many, if it is not there yet.
    pub(crate) fn get<'a>(
        &self,
        len: usize,
        issues: impl Iterator<Item = (&'a str, &'a Issue)>,
    ) -> &Index {
        self.index.get_or_init(|| {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Index::of(len, issues, std::mem::take(&mut known))
        })
    }

    /// Updates the index, if it is there already.
    pub(crate) fn put(&mut self, id: &str, issue: Option<&Issue>) {
        if let Some(index) = self.index.get_mut() {
            return index.put(id, issue);
        }
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Ok(at) = known.binary_search_by(|(known, _)| (**known).cmp(id))
            && let Some((_, facts)) = known.get_mut(at)
        {
            *facts = None;
        }
    }

    pub(crate) fn with(known: KnownFacts) -> Self {
        Self {
            known: Mutex::new(known),
            ..Self::default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_what_they_were_before_they_were_written() {
        for fields in [
            r#""title":"Mend""#,
            r#""title":"Mend","status":"open","priority":0,"assignee":"a\"b","labels":["b","a","b"]"#,
            r#""title":"Mend","status":"closed","priority":-3,"assignee":"","labels":[]"#,
            r#""title":"Mend","status":"open","status":"\u00fc{","priority":"1","labels":"a""#,
            r#""title":"Mend","status":null,"priority":1.5,"assignee":7,"labels":[1]"#,
            r#""title":"Mend","dependencies":[{"depends_on_id":"b\n","type":"blocks"},{"x":1},
                {"depends_on_id":"c","type":"parent-child"},{"depends_on_id":"d","type":"related"}]"#,
            r#""_type":"memory","key":"k","status":"open""#,
            r#""title":"Mend","status":"open","priority":2"#,
            r#""title":"Mend","priority":4,"status":"a}","assignee":"b{""#,
            r#""title":"Mend","status":"open","priority":12,"assignee":"b""#,
        ] {
            let issue = Issue::parse(&format!("{{\"id\":\"a\",{fields}}}")).unwrap();
            let facts = Facts::of(&issue);
            let text = serde_json::to_string(&facts).unwrap();
            assert_eq!(Facts::written(&text), facts, "{text}");
            assert_eq!(Facts::any(&text), facts, "{text}");
        }
    }

    #[test]
    fn facts_that_are_known_are_those_of_the_issues_as_they_are() {
        let issue = |id: &str, status: &str| {
            let issue = Issue::new(id, "Mend");
            issue.with("status", status).unwrap()
        };
        let issues = ["b", "d", "e"].map(|id| (id, issue(id, "open")));
        let known = ["a", "b", "c", "d"].map(|id| {
            let facts = Facts::of(&issue(id, "hooked"));
            (Arc::from(id), Some(Box::new(facts)))
        });
        let mut lazy = Lazy::with(known.into());
        lazy.put("d", Some(&issue("d", "open")));
        lazy.put("e", Some(&issue("e", "open")));
        let index = lazy.get(3, issues.iter().map(|(id, issue)| (*id, issue)));
        let status = |id: &str| index.facts[id].status.clone().unwrap();
        assert_eq!(["b", "d", "e"].map(status), ["hooked", "open", "open"]);
        assert_eq!(index.facts.len(), 3);
    }
}
