//! Selects and orders the issues to list.

use std::cmp::Reverse;

use strand_core::{Filter, Issue, Issues};

use crate::args::Wanted;

impl Wanted {
    /// The matching issues, ordered by id.
    pub(crate) fn list<'a>(
        &self,
        issues: &'a Issues,
        status: Option<&str>,
    ) -> Vec<(&'a str, &'a Issue)> {
        let mut filter = Filter::new();
        if let Some(status) = status {
            filter = filter.status(status);
        }
        if let Some(assignee) = &self.assignee {
            filter = filter.assignee(assignee);
        }
        if let Some(label) = self.labels.first() {
            filter = filter.label(label);
        }
        self.keep(issues.list(&filter))
    }

    /// The matching issues that are ready to be worked on, most urgent first.
    pub(crate) fn ready<'a>(&self, issues: &'a Issues) -> Vec<(&'a str, &'a Issue)> {
        let mut ready = self.keep(issues.ready());
        ready.sort_by_cached_key(|(id, issue)| (urgency(issue), *id));
        ready
    }

    fn keep<'a>(&self, mut issues: Vec<(&'a str, &'a Issue)>) -> Vec<(&'a str, &'a Issue)> {
        issues.retain(|(id, issue)| self.matches(id, issue));
        issues
    }

    fn matches(&self, id: &str, issue: &Issue) -> bool {
        let is = |wanted: &Option<String>, field: fn(&Issue) -> Option<String>| {
            wanted.is_none() || field(issue) == *wanted
        };
        is(&self.assignee, Issue::assignee)
            && is(&self.kind, Issue::issue_type)
            && (self.priority.is_none() || issue.priority() == self.priority)
            && (self.labels.is_empty() || {
                let labels = issue.labels();
                self.labels.iter().all(|label| labels.contains(label))
            })
            && self
                .text
                .as_ref()
                .is_none_or(|text| contains(id, issue, text))
    }
}

/// Whether an issue's id, title or description contains the text, in upper or lower case.
fn contains(id: &str, issue: &Issue, text: &str) -> bool {
    let text = text.to_lowercase();
    let is_in = |field: &str| field.to_lowercase().contains(&text);
    is_in(id) || is_in(&issue.title()) || issue.description().is_some_and(|field| is_in(&field))
}

/// Smaller is more urgent; an issue without priority comes last.
fn urgency(issue: &Issue) -> (Reverse<bool>, i64) {
    let priority = issue.priority();
    (Reverse(priority.is_some()), priority.unwrap_or(0))
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
