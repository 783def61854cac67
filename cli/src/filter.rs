//! Selects and orders the issues to list.

use strand_core::{Filter, Issue, Issues};

use crate::args::Wanted;

impl Wanted {
    /// The matching issues, ordered by id.
    pub(crate) fn list<'a>(
        &self,
        issues: &'a Issues,
        status: Option<&str>,
    ) -> Vec<(&'a str, &'a Issue)> {
        let filter = self.filter();
        issues.list(&match status {
            Some(status) => filter.status(status),
            None => filter,
        })
    }

    /// Whether [`Wanted::list`] has this issue.
    pub(crate) fn lists(&self, id: &str, issue: &Issue, status: Option<&str>) -> bool {
        let is_of_status = status.is_none_or(|status| issue.status().as_deref() == Some(status));
        is_of_status && !issue.is_carried() && self.filter().matches(id, issue)
    }

    /// The matching issues that are ready to be worked on, most urgent first.
    pub(crate) fn ready<'a>(&self, issues: &'a Issues) -> Vec<(&'a str, &'a Issue)> {
        let filter = self.filter();
        let mut ready = issues.ready();
        ready.retain(|(id, issue)| filter.matches(id, issue));
        ready
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        for label in &self.labels {
            filter = filter.label(label);
        }
        if let Some(assignee) = &self.assignee {
            filter = filter.assignee(assignee);
        }
        if let Some(priority) = self.priority {
            filter = filter.priority(priority);
        }
        if let Some(kind) = &self.kind {
            filter = filter.issue_type(kind);
        }
        if let Some(text) = &self.text {
            filter = filter.text(text);
        }
        filter
    }
}

/// Whether the issue is unassigned.
pub(crate) fn is_free(issue: &Issue) -> bool {
    issue.assignee().is_none_or(|agent| agent.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use strand_core::{IssueEvent, Seq, Timestamp};

    use super::*;

    fn wanted(options: &[&str]) -> Wanted {
        let command = Wanted::augment_args(clap::Command::new("list")).no_binary_name(true);
        Wanted::from_arg_matches(&command.get_matches_from(options)).unwrap()
    }

    fn state(given: &[(&str, &str)]) -> Issues {
        let mut issues = Issues::default();
        for (seq, (id, fields)) in (1..).zip(given) {
            let json = format!(r#"{{"id":"{id}","title":"The {id}","status":"open"{fields}}}"#);
            let issue = Issue::from_json(&json).unwrap();
            issues.apply(
                Seq::new(seq),
                [IssueEvent::add(issue, Timestamp::from_ms(0))],
            );
        }
        issues
    }

    fn ids(issues: &[(&str, &Issue)]) -> String {
        issues
            .iter()
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn each_criterion_narrows_the_list() {
        let issues = state(&[
            ("a", r#","priority":1,"assignee":"x","labels":["l","m"]"#),
            ("b", r#","priority":2,"issue_type":"bug","labels":["l"]"#),
            ("c", r#","description":"Über den ZAUN","assignee":"x""#),
        ]);
        for (options, expected) in [
            (&[][..], "a b c"),
            (&["--assignee", "x"], "a c"),
            (&["--priority", "2"], "b"),
            (&["--type", "bug"], "b"),
            (&["--label", "l"], "a b"),
            (&["--label", "l", "--label", "m"], "a"),
            (&["--text", "über den zaun"], "c"),
            (&["--text", "THE B"], "b"),
        ] {
            let found = wanted(options);
            assert_eq!(ids(&found.list(&issues, None)), expected, "{options:?}");
            let listed = issues
                .iter()
                .filter(|(id, issue)| found.lists(id, issue, None));
            assert_eq!(ids(&listed.collect::<Vec<_>>()), expected, "{options:?}");
        }
        let all = Wanted::default();
        assert_eq!(ids(&all.list(&issues, Some("closed"))), "");
        assert_eq!(ids(&all.list(&issues, Some("open"))), "a b c");
    }

    #[test]
    fn ready_issues_come_by_urgency_and_blocked_ones_not_at_all() {
        let blocked = r#","priority":0,"dependencies":[{"issue_id":"z","depends_on_id":"a","type":"blocks"}]"#;
        let issues = state(&[
            ("a", r#","priority":2"#),
            ("b", ""),
            ("c", r#","priority":0"#),
            ("d", r#","priority":-1"#),
            ("e", r#","priority":0,"assignee":"x""#),
            ("z", blocked),
        ]);
        assert_eq!(ids(&Wanted::default().ready(&issues)), "d c e a b");
        assert!(is_free(issues.get("c").unwrap()) && !is_free(issues.get("e").unwrap()));
    }
}
