//! Answers to the questions that a tracker asks all the time, from an index that is built when the first one
//! is asked, and kept up from then on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
};

use crate::issues::{
    issue::{Dependency, Issue},
    issues::Issues,
    transition::Status,
};

/// Which issues [`Issues::list`] answers: those that match all that is given.
///
/// ```
/// use strand_core::{Filter, Issue, Patch, Timestamp};
/// # use strand_core::{IssueLog, Issues, Options};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// # let log = IssueLog::open(dir.path(), Options::default())?;
/// # log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// log.patch("bd-1", Patch::new().add_label("garden").set("assignee", "agent-7")?, now)?;
/// let issues = Issues::load(dir.path())?;
/// let filter = Filter::new().status("open").label("garden").assignee("agent-7");
/// assert_eq!(issues.list(&filter).len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// With this status.
    pub status: Option<String>,
    /// Of this assignee.
    pub assignee: Option<String>,
    /// With this label.
    pub label: Option<String>,
}

impl Filter {
    /// A filter that all issues match.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those with this status.
    #[must_use]
    pub fn status(self, status: impl Into<String>) -> Self {
        Self {
            status: Some(status.into()),
            ..self
        }
    }

    /// Only those of this assignee.
    #[must_use]
    pub fn assignee(self, assignee: impl Into<String>) -> Self {
        Self {
            assignee: Some(assignee.into()),
            ..self
        }
    }

    /// Only those with this label.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(label.into()),
            ..self
        }
    }
}

/// What the index knows of an issue. A field of an unusual shape counts as missing.
#[derive(Debug, Default)]
struct Facts {
    status: Option<String>,
    assignee: Option<String>,
    labels: Vec<String>,
    /// What must be closed before it is ready.
    blocked_by: Vec<String>,
    /// What it is a part of.
    parents: Vec<String>,
}

impl Facts {
    fn of(issue: &Issue) -> Self {
        let mut facts = Self::default();
        for (name, value) in issue.fields() {
            let text = || serde_json::from_str(value.get()).ok();
            match &*name {
                "status" => facts.status = text(),
                "assignee" => facts.assignee = text().filter(|agent: &String| !agent.is_empty()),
                "labels" => facts.labels = serde_json::from_str(value.get()).unwrap_or_default(),
                "dependencies" => {
                    (facts.blocked_by, facts.parents) = (Vec::new(), Vec::new());
                    for dependency in dependencies(value.get()) {
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

    fn is_closed(&self) -> bool {
        Status::of(self.status.as_deref()) == Status::Closed
    }

    fn matches(&self, filter: &Filter) -> bool {
        (filter.status.is_none() || self.status == filter.status)
            && (filter.assignee.is_none() || self.assignee == filter.assignee)
            && filter
                .label
                .as_ref()
                .is_none_or(|label| self.labels.contains(label))
    }
}

/// Those of the dependencies that have the usual shape: one of another does not hide the rest.
fn dependencies(array: &str) -> impl Iterator<Item = Dependency> {
    let elements: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(array).unwrap_or_default();
    elements
        .into_iter()
        .filter_map(|element| serde_json::from_str(element.get()).ok())
}

type Ids = BTreeSet<Arc<str>>;

#[derive(Debug, Default)]
struct Index {
    facts: HashMap<Arc<str>, Facts>,
    by_status: BTreeMap<String, Ids>,
    by_assignee: BTreeMap<String, Ids>,
    by_label: BTreeMap<String, Ids>,
}

impl Index {
    fn of<'a>(issues: impl Iterator<Item = (&'a str, &'a Issue)>) -> Self {
        let mut index = Self::default();
        for (id, issue) in issues {
            index.put(id, Some(issue));
        }
        index
    }

    /// The issue is now this; `None` when it is not there any more.
    fn put(&mut self, id: &str, issue: Option<&Issue>) {
        if let Some((id, facts)) = self.facts.remove_entry(id) {
            self.each(&facts, |ids, name| {
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
            self.each(&facts, |ids, name| {
                let of_name = ids.entry(name.to_owned()).or_default();
                of_name.insert(Arc::clone(&id));
            });
            self.facts.insert(id, facts);
        }
    }

    fn each(&mut self, facts: &Facts, mut act: impl FnMut(&mut BTreeMap<String, Ids>, &str)) {
        if let Some(status) = &facts.status {
            act(&mut self.by_status, status);
        }
        if let Some(assignee) = &facts.assignee {
            act(&mut self.by_assignee, assignee);
        }
        for label in &facts.labels {
            act(&mut self.by_label, label);
        }
    }

    /// The smallest set that contains all that match; `None` for all issues.
    fn candidates(&self, filter: &Filter) -> Option<&Ids> {
        static NONE: Ids = Ids::new();
        let by = [
            (&self.by_status, &filter.status),
            (&self.by_assignee, &filter.assignee),
            (&self.by_label, &filter.label),
        ];
        let sets = by
            .into_iter()
            .filter_map(|(ids, name)| Some(ids.get(name.as_ref()?).unwrap_or(&NONE)));
        sets.min_by_key(|ids| ids.len())
    }

    /// The open issues that `id` or one of those that it is a part of waits for.
    fn blockers(&self, id: &str) -> BTreeSet<&str> {
        let mut blockers = BTreeSet::new();
        let mut seen = HashSet::from([id]);
        let mut whole = vec![id];
        while let Some(facts) = whole.pop().map(|id| self.facts.get(id)) {
            let Some(facts) = facts else { continue };
            let is_open = |id: &&String| {
                let facts = self.facts.get(id.as_str());
                facts.is_some_and(|facts| !facts.is_closed())
            };
            blockers.extend(facts.blocked_by.iter().filter(is_open).map(String::as_str));
            for parent in &facts.parents {
                if seen.insert(parent) {
                    whole.push(parent);
                }
            }
        }
        blockers
    }
}

/// The index of a store, which is no part of its state: a copy builds its own, and all are equal.
#[derive(Debug, Default)]
pub(crate) struct Lazy(OnceLock<Index>);

impl Lazy {
    /// Keeps up with a change, if the index is there already.
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

/// Queries. The first one reads every issue once, to build an index; later ones, also after changes, use it.
impl Issues {
    fn index(&self) -> &Index {
        self.index.0.get_or_init(|| Index::of(self.iter()))
    }

    /// The issues that match, in the order of their ids.
    ///
    /// ```
    /// use strand_core::{Filter, Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut store = Issues::default();
    /// store.apply(Seq::new(1), IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now));
    /// assert_eq!(store.list(&Filter::new().status("open")).len(), 1);
    /// assert_eq!(store.list(&Filter::new().assignee("agent-7")).len(), 0);
    /// # Ok::<(), strand_core::InvalidEvent>(())
    /// ```
    #[must_use]
    pub fn list(&self, filter: &Filter) -> Vec<(&str, &Issue)> {
        let index = self.index();
        let Some(candidates) = index.candidates(filter) else {
            return self.iter().collect();
        };
        let matching = candidates.iter().filter(|id| {
            let facts = index.facts.get(&***id);
            facts.is_some_and(|facts| facts.matches(filter))
        });
        matching.filter_map(|id| self.get_with_id(id)).collect()
    }

    /// The issues that can be worked on, in the order of their ids: their status is `open`, and
    /// [`Issues::blockers`] has nothing for them. Claimed ones are among them as long as their status is `open`.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut store = Issues::default();
    /// let wait = r#"[{"issue_id":"bd-2","depends_on_id":"bd-1","type":"blocks"}]"#;
    /// let text = format!(r#"{{"id":"bd-2","title":"Paint it","status":"open","dependencies":{wait}}}"#);
    /// store.apply(Seq::new(1), IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now));
    /// store.apply(Seq::new(2), IssueEvent::add(Issue::from_json(&text)?, now));
    /// assert_eq!(store.ready()[0].0, "bd-1");
    /// assert_eq!(store.blockers("bd-2"), ["bd-1"]);
    /// assert_eq!(store.dependencies("bd-2"), [(1, "bd-1")]);
    /// store.apply(Seq::new(3), IssueEvent::close("bd-1", now));
    /// assert_eq!(store.ready()[0].0, "bd-2");
    /// # Ok::<(), strand_core::InvalidEvent>(())
    /// ```
    #[must_use]
    pub fn ready(&self) -> Vec<(&str, &Issue)> {
        let index = self.index();
        let open = index.by_status.get("open").into_iter().flatten();
        let ready = open.filter(|id| index.blockers(id).is_empty());
        ready.filter_map(|id| self.get_with_id(id)).collect()
    }

    /// The issues that must be closed before this one is ready, in the order of their ids: those that it depends on
    /// (`blocks`) and that are neither closed nor gone, and those of the issues that it is a part of
    /// (`parent-child`), through any number of levels. Cycles do no harm: who waits for itself is blocked.
    /// Example: [`Issues::ready`].
    #[must_use]
    pub fn blockers(&self, id: &str) -> Vec<&str> {
        self.index().blockers(id).into_iter().collect()
    }

    /// Everything that the issue depends on (`blocks`) or is a part of (`parent-child`), also
    /// indirectly: each id once, with the number of steps to it, nearest first. Ids of issues that are
    /// not there are among them. Cycles do no harm. Example: [`Issues::ready`].
    #[must_use]
    pub fn dependencies(&self, id: &str) -> Vec<(usize, &str)> {
        let index = self.index();
        let mut found: Vec<(usize, &str)> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut walk = VecDeque::from([(0, id)]);
        while let Some((depth, id)) = walk.pop_front() {
            let Some(facts) = index.facts.get(id) else {
                continue;
            };
            for next in facts.blocked_by.iter().chain(&facts.parents) {
                if seen.insert(next) {
                    found.push((depth + 1, next));
                    walk.push_back((depth + 1, next));
                }
            }
        }
        found
    }
}
