//! The queries of a tracker, answered from an index.

use std::collections::{HashSet, VecDeque};

use crate::issues::{filter::Filter, index::Index, issue::Issue, issues::Issues};

/// Queries. The first one reads every issue, to build an index; later ones use it, also after
/// changes.
impl Issues {
    fn index(&self) -> &Index {
        self.index.get(self.iter())
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
    /// they have no [`Issues::blockers`]. Includes claimed issues whose status is `open`.
    ///
    /// ```
    /// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut store = Issues::default();
    /// let wait = r#"[{"issue_id":"bd-2","depends_on_id":"bd-1","type":"blocks"}]"#;
    /// let rest = r#""id":"bd-2","title":"Paint it","status":"open""#;
    /// let text = format!(r#"{{{rest},"dependencies":{wait}}}"#);
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

    /// The issues that must be closed before this one is ready, in the order of their ids: those
    /// that it depends on (`blocks`) and that are open, and those of the issues that it is a part
    /// of (`parent-child`), through any number of levels. An issue that waits for itself is
    /// blocked. Example: [`Issues::ready`].
    #[must_use]
    pub fn blockers(&self, id: &str) -> Vec<&str> {
        self.index().blockers(id).into_iter().collect()
    }

    /// Everything that the issue depends on (`blocks`) or is a part of (`parent-child`), also
    /// indirectly: each id once, with the number of steps to it, nearest first. Includes ids of
    /// issues that do not exist. Cycles are allowed. Example: [`Issues::ready`].
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
