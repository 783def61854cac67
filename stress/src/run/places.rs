//! The files of a run.

use std::path::PathBuf;

/// Where a run happens. Only the store is the log's; the rest is the harness's own.
#[derive(Debug, Clone)]
pub struct Places {
    /// The store under test.
    pub store: PathBuf,
    /// Its address, if it is on etcd: then `store` stays empty.
    pub etcd: Option<String>,
    /// The file of the shared page.
    pub control: PathBuf,
    /// The standard error of the agents.
    pub stderr: PathBuf,
    /// Keeps the files that are removed from the store.
    pub archive: PathBuf,
    /// The directory of the followers' journals.
    pub journals: PathBuf,
}

impl Places {
    /// The journal of a follower.
    #[must_use]
    pub fn journal(&self, follower: u32) -> PathBuf {
        self.journals.join(format!("follower-{follower}"))
    }
}
