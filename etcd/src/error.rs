use strand_core::{Error, Outcome};

/// A fault of a cluster, a call or an address: the source of
/// [`strand_core::Error::Unavailable`] and [`strand_core::Error::Unfit`].
///
/// ```
/// use strand_etcd::{Address, Problem};
///
/// let problem = "etcd://h1".parse::<Address>().unwrap_err();
/// assert!(matches!(problem, Problem::Address { .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The address is not one.
    #[error("{address:?} is not a store's address: {reason}")]
    Address {
        /// The address.
        address: String,
        /// The fault.
        reason: String,
    },
    /// A certificate or a key can't be read.
    #[error("{file} is of no use: {reason}")]
    Certificate {
        /// The file.
        file: String,
        /// The fault.
        reason: String,
    },
    /// No member answered in time.
    #[error("no member answered in time; the last one, {endpoint}: {reason}")]
    NoAnswer {
        /// The member that was tried last.
        endpoint: String,
        /// The reason why it is none.
        reason: String,
    },
    /// etcd refused the call.
    #[error("etcd refuses: {message} (code {code})")]
    Refused {
        /// The code of gRPC.
        code: u32,
        /// etcd's message.
        message: String,
    },
    /// etcd takes a user, or a client certificate with a common name, but not both from one client
    /// of its gateway. It has done nothing.
    #[error(
        "etcd has users, and then refuses a client certificate with a common name (CN): {endpoint}; \
         use a certificate without a CN (in the address: cert, key)"
    )]
    CommonName {
        /// The member.
        endpoint: String,
    },
    /// A version of etcd that is too old, or is known to lose or corrupt data.
    #[error("{endpoint} runs etcd {version}, which {reason}; upgrade it to {instead} or later")]
    Version {
        /// The member.
        endpoint: String,
        /// Its version.
        version: String,
        /// The fault.
        reason: &'static str,
        /// A version to use instead.
        instead: &'static str,
    },
    /// The cluster has too few members to survive the loss of one.
    #[error(
        "the cluster has {voting} voting members, and a loss of one disk may lose everything; \
         use 3, or say allow_single_member"
    )]
    TooFewMembers {
        /// How many members vote.
        voting: usize,
    },
    /// A member has raised an alarm.
    #[error("etcd has raised the alarm {alarm}; see `etcdctl alarm list`")]
    Alarm {
        /// `NOSPACE` or `CORRUPT`.
        alarm: String,
    },
    /// This is not the cluster in which the store was created, or that answered before.
    #[error(
        "it was seen in cluster {expected}, and this is cluster {found}: a restored backup, or \
         another cluster at this address"
    )]
    OtherCluster {
        /// The id of the right cluster.
        expected: String,
        /// The id of the cluster that answered.
        found: String,
    },
    /// The cluster has forgotten revisions that it had.
    #[error("revision {seen} was seen, and now the cluster is at {found}: a restored backup")]
    WentBack {
        /// The highest revision that was seen.
        seen: u64,
        /// The revision of the answer.
        found: u64,
    },
    /// The store was written by a newer version of this crate.
    #[error("the store has layout {found}, but this program knows layouts up to {supported}")]
    Layout {
        /// The store's layout.
        found: u64,
        /// The newest layout that this crate knows.
        supported: u64,
    },
    /// There is no such store; [`crate::EtcdLog::open_or_create`] makes it.
    #[error("there is no such store")]
    NoStore,
    /// Stored values are not what this crate writes, or an answer is not etcd's.
    #[error("{what} is not as it was written: {reason}")]
    Damaged {
        /// The key, or the kind of answer.
        what: String,
        /// The fault.
        reason: String,
    },
}

impl Problem {
    /// Whether the cluster must not be used as it is.
    fn is_unfit(&self) -> bool {
        match self {
            Self::Version { .. }
            | Self::TooFewMembers { .. }
            | Self::Alarm { .. }
            | Self::OtherCluster { .. }
            | Self::WentBack { .. }
            | Self::Layout { .. }
            | Self::Damaged { .. }
            | Self::Certificate { .. }
            | Self::CommonName { .. }
            | Self::Address { .. } => true,
            Self::NoAnswer { .. } | Self::Refused { .. } | Self::NoStore => false,
        }
    }
}

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) problem: Problem,
    /// The call may have been carried out nevertheless.
    pub(crate) maybe_done: bool,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            maybe_done: false,
        }
    }
}

impl Failed {
    /// The error of a call that stores nothing that a caller waits for.
    pub(crate) fn reading(self, store: &impl ToString) -> Error {
        self.into_error(store.to_string(), None)
    }

    /// The error of a write with this key.
    pub(crate) fn writing(self, store: &impl ToString, key: &str) -> Error {
        let key = self.maybe_done.then(|| key.to_owned());
        self.into_error(store.to_string(), key)
    }

    fn into_error(self, store: String, key: Option<String>) -> Error {
        if key.is_none() && self.problem == Problem::NoStore {
            return Error::NoStore { path: store.into() };
        }
        let source = Box::new(self.problem.clone());
        if key.is_none() && self.problem.is_unfit() {
            return Error::Unfit { store, source };
        }
        Error::Unavailable {
            store,
            outcome: match key {
                Some(_) => Outcome::Unknown,
                None => Outcome::Rejected,
            },
            key,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_did_not_happen_is_rejected() {
        let problem = || Problem::NoAnswer {
            endpoint: "http://h:2379".to_owned(),
            reason: "timeout".to_owned(),
        };
        let maybe = |maybe_done| Failed {
            problem: problem(),
            maybe_done,
        };
        let unknown = maybe(true).writing(&"etcd://h/s", "k");
        assert_eq!(unknown.outcome(), Outcome::Unknown);
        assert!(unknown.to_string().contains("key \"k\""), "{unknown}");
        assert!(!unknown.is_retryable());
        let rejected = maybe(false).writing(&"etcd://h/s", "k");
        assert_eq!(rejected.outcome(), Outcome::Rejected);
        assert!(rejected.is_retryable() && !rejected.to_string().contains("key"));
        assert_eq!(
            maybe(true).reading(&"etcd://h/s").outcome(),
            Outcome::Rejected
        );

        let unfit = Failed::from(Problem::TooFewMembers { voting: 1 }).reading(&"etcd://h/s");
        assert!(matches!(unfit, Error::Unfit { .. }), "{unfit}");
        // A write that met a restored backup may be stored there.
        let back = Failed {
            problem: Problem::WentBack { seen: 9, found: 3 },
            maybe_done: true,
        };
        assert_eq!(back.writing(&"etcd://h/s", "k").outcome(), Outcome::Unknown);
    }
}
