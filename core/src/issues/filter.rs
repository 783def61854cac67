//! Which issues a query lists.

/// A filter of [`crate::Issues::list`]: an issue must match every field that is set.
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
