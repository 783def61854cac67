use std::{path::PathBuf, time::Duration};

/// How to use a store on etcd.
///
/// ```
/// use std::{path::PathBuf, time::Duration};
/// use strand_etcd::Options;
///
/// let options = Options::default()
///     .timeout(Duration::from_secs(10))
///     .attempt_timeout(Duration::from_secs(2))
///     .password("secret")
///     .allow_single_member(true)
///     .idempotency_keys(1_000)
///     .tombstone_ms(1_000)
///     .compact_after_records(500)
///     .epoch_revisions(64)
///     .trim_history(false)
///     .remember_in("/var/lib/agent/etcd");
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) password: Option<String>,
    pub(crate) allow_single_member: bool,
    pub(crate) idempotency_keys: usize,
    pub(crate) tombstone_ms: u64,
    pub(crate) compact_after_records: u64,
    pub(crate) epoch_revisions: u64,
    pub(crate) trim_history: bool,
    pub(crate) memory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(3),
            password: None,
            allow_single_member: false,
            idempotency_keys: 100_000,
            tombstone_ms: 30 * 24 * 3600 * 1000,
            compact_after_records: 20_000,
            epoch_revisions: 2048,
            trim_history: true,
            memory: None,
        }
    }
}

impl Options {
    /// How long a call may take altogether. Default: 30 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How long one member may take to answer, before the next one is asked. Default: 3 s.
    #[must_use]
    pub fn attempt_timeout(self, attempt_timeout: Duration) -> Self {
        Self {
            attempt_timeout,
            ..self
        }
    }

    /// The password of the user that the address names. Default: none.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        Self {
            password: Some(password.into()),
            ..self
        }
    }

    /// Whether to use a cluster with fewer than three voting members. It is as safe as its disks
    /// are. Default: no.
    #[must_use]
    pub fn allow_single_member(self, allow_single_member: bool) -> Self {
        Self {
            allow_single_member,
            ..self
        }
    }

    /// How many idempotency keys a compaction leaves: those of the last records. Default: 100,000.
    #[must_use]
    pub fn idempotency_keys(self, idempotency_keys: usize) -> Self {
        Self {
            idempotency_keys,
            ..self
        }
    }

    /// How long a compaction remembers deleted issues, in milliseconds. Default: 30 days.
    #[must_use]
    pub fn tombstone_ms(self, tombstone_ms: u64) -> Self {
        Self {
            tombstone_ms,
            ..self
        }
    }

    /// With so many records, a compaction is due. Default: 20,000.
    #[must_use]
    pub fn compact_after_records(self, compact_after_records: u64) -> Self {
        Self {
            compact_after_records,
            ..self
        }
    }

    /// After so many revisions, a writer begins a new epoch: to see what is new, others read the
    /// records of one epoch. Default: 2,048.
    #[must_use]
    pub fn epoch_revisions(self, epoch_revisions: u64) -> Self {
        Self {
            epoch_revisions,
            ..self
        }
    }

    /// Whether a compaction lets etcd forget all revisions before its snapshot, those of other
    /// programs' keys, too. Otherwise something else must (`--auto-compaction-retention`), or the
    /// database grows. Default: yes.
    #[must_use]
    pub fn trim_history(self, trim_history: bool) -> Self {
        Self {
            trim_history,
            ..self
        }
    }

    /// Where to remember, in a small file for each cluster, the highest revision that was seen. An
    /// open refuses a cluster that is behind it, as after a restored backup. Default: nowhere; then
    /// only what this log has seen itself counts.
    #[must_use]
    pub fn remember_in(self, dir: impl Into<PathBuf>) -> Self {
        Self {
            memory: Some(dir.into()),
            ..self
        }
    }
}
