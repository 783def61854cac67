//! Which issues a query lists.

use crate::issues::issue::Issue;

/// Selects the issues of [`Issues::list`](crate::Issues::list): those that match all that is set.
///
/// ```
/// use strand_core::{Filter, Issue, IssueLog, Issues, Options, Patch};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// log.patch("bd-1", Patch::new().add_label("garden").set("assignee", "agent-7")?)?;
/// let filter = Filter::new().status("open").label("garden").assignee("agent-7");
/// let issues = Issues::load(dir.path())?;
/// assert_eq!(issues.list(&filter).len(), 1);
/// let urgent = Filter::new().priority(0).issue_type("task").text("FENCE");
/// assert!(!issues.ready().into_iter().any(|(id, issue)| urgent.matches(id, issue)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub(crate) status: Option<String>,
    pub(crate) assignee: Option<String>,
    pub(crate) labels: Vec<String>,
    priority: Option<i64>,
    issue_type: Option<String>,
    text: Option<String>,
}

impl Filter {
    /// A filter that all issues match.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only issues with this status.
    #[must_use]
    pub fn status(self, status: impl Into<String>) -> Self {
        let status = Some(status.into());
        Self { status, ..self }
    }

    /// Only issues with this assignee.
    #[must_use]
    pub fn assignee(self, assignee: impl Into<String>) -> Self {
        let assignee = Some(assignee.into());
        Self { assignee, ..self }
    }

    /// Only issues with this label; call it again to require several.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// Only issues with this priority.
    #[must_use]
    pub fn priority(self, priority: i64) -> Self {
        let priority = Some(priority);
        Self { priority, ..self }
    }

    /// Only issues of this type: `bug`, `task`, …
    #[must_use]
    pub fn issue_type(self, issue_type: impl Into<String>) -> Self {
        let issue_type = Some(issue_type.into());
        Self { issue_type, ..self }
    }

    /// Only issues with this text in the id, title or description, in upper or lower case.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        let text = Some(text.to_lowercase());
        Self { text, ..self }
    }

    /// Whether the issue with this id matches all that is set.
    #[must_use]
    pub fn matches(&self, id: &str, issue: &Issue) -> bool {
        let is = |wanted: &Option<String>, field: fn(&Issue) -> Option<String>| {
            wanted.is_none() || field(issue) == *wanted
        };
        is(&self.status, Issue::status)
            && is(&self.assignee, Issue::assignee)
            && (self.labels.is_empty() || {
                let labels = issue.labels();
                self.labels.iter().all(|label| labels.contains(label))
            })
            && self.matches_beside_index(id, issue)
    }

    /// As [`Filter::matches`], for what the index has not.
    pub(crate) fn matches_beside_index(&self, id: &str, issue: &Issue) -> bool {
        (self.priority.is_none() || issue.priority() == self.priority)
            && (self.issue_type.is_none() || issue.issue_type() == self.issue_type)
            && self.text.as_ref().is_none_or(|text| {
                let has = |field: &str| field.to_lowercase().contains(text);
                let description = || issue.description().unwrap_or_default();
                has(id) || has(&issue.title()) || has(&description())
            })
    }
}
