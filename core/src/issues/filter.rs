//! Which issues a query lists.

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
/// assert_eq!(Issues::load(dir.path())?.list(&filter).len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub(crate) status: Option<String>,
    pub(crate) assignee: Option<String>,
    pub(crate) label: Option<String>,
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

    /// Only issues with this label.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        let label = Some(label.into());
        Self { label, ..self }
    }
}
