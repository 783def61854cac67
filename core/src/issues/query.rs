//! Queries that trackers ask all the time.

use std::collections::{HashSet, VecDeque};

use crate::issues::{filter::Filter, index::Index, issue::Issue, issues::Issues};

/// Queries. The first one reads every issue to build an index; later ones use it, also after
/// changes.
impl Issues {
    pub(crate) fn index(&self) -> &Index {
        self.index.get(self.len(), self.iter())
    }

    /// The issues that match the filter, sorted by id.
    ///
    /// ```
    /// use strand_core::{Filter, Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut issues = Issues::default();
    /// let mend = Issue::new("bd-1", "Mend the fence");
    /// issues.apply(Seq::new(1), [IssueEvent::add(mend, now)]);
    /// assert_eq!(issues.list(&Filter::new().status("open")).len(), 1);
    /// assert_eq!(issues.list(&Filter::new().assignee("agent-7")).len(), 0);
    /// ```
    #[must_use]
    pub fn list(&self, filter: &Filter) -> Vec<(&str, &Issue)> {
        let index = self.index();
        let all = index.candidates(filter).is_none();
        let candidates = index.candidates(filter).into_iter().flatten();
        let matching = candidates.filter(|id| {
            let facts = index.facts.get(&***id);
            facts.is_some_and(|facts| facts.matches(filter))
        });
        let mut found: Vec<_> = if all {
            self.iter()
                .filter(|(_, issue)| !issue.is_carried())
                .collect()
        } else {
            matching.filter_map(|id| self.get_with_id(id)).collect()
        };
        found.retain(|(id, issue)| filter.matches_beside_index(id, issue));
        found
    }

    /// The issues that can be worked on, most urgent first: those with the status `open` and
    /// without [blockers](Issues::blockers). A claimed issue is ready while its status is `open`.
    /// The smallest priority is the most urgent, an issue without one comes last, and the ids
    /// decide between equals. To select some of them, use [`Filter::matches`].
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut issues = Issues::default();
    /// let wait = r#"[{"issue_id":"bd-2","depends_on_id":"bd-1","type":"blocks"}]"#;
    /// let paint = Issue::from_json(&format!(
    ///     r#"{{"id":"bd-2","title":"Paint it","status":"open","dependencies":{wait}}}"#
    /// ))?;
    /// let mend = Issue::new("bd-1", "Mend the fence");
    /// issues.apply(Seq::new(1), [IssueEvent::add(mend, now)]);
    /// issues.apply(Seq::new(2), [IssueEvent::add(paint, now)]);
    /// assert_eq!(issues.ready()[0].0, "bd-1");
    /// assert_eq!(issues.blockers("bd-2"), ["bd-1"]);
    /// assert_eq!(issues.dependencies("bd-2"), [(1, "bd-1")]);
    /// issues.apply(Seq::new(3), [IssueEvent::close("bd-1", now)]);
    /// assert_eq!(issues.ready()[0].0, "bd-2");
    /// # Ok::<(), strand_core::InvalidEvent>(())
    /// ```
    #[must_use]
    pub fn ready(&self) -> Vec<(&str, &Issue)> {
        let index = self.index();
        let open = index.by_status.get("open").into_iter().flatten();
        let ready = open.filter_map(|id| {
            let facts = index.facts.get(id)?;
            let is_ready = !facts.depends() || index.blockers(id).is_empty();
            is_ready.then(|| Some((facts.urgency(), self.get_with_id(id)?)))?
        });
        let mut ready: Vec<_> = ready.collect();
        // Sorted by id already.
        ready.sort_by_key(|(urgency, _)| *urgency);
        ready.into_iter().map(|(_, issue)| issue).collect()
    }

    /// The issues that must be closed before this one is ready, sorted by id: those that it depends
    /// on (`blocks`), unless they are closed or deleted, and those that block an issue that it is a
    /// part of (`parent-child`), through any number of levels. An issue in a cycle blocks itself.
    /// Example: [`Issues::ready`].
    #[must_use]
    pub fn blockers(&self, id: &str) -> Vec<&str> {
        self.index().blockers(id).into_iter().collect()
    }

    /// All issues that this one depends on (`blocks`) or is a part of (`parent-child`), directly or
    /// not: each id once, with its distance, nearest first. An id may be that of no issue. Cycles
    /// are followed once. Example: [`Issues::ready`].
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
