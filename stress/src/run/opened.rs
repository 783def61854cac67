//! The store that a process of the run works on.

use strand_core::backend::Backend;
use strand_core::{Error, IssueLog};
use strand_etcd::EtcdLog;

/// A store that was opened for writing.
pub(crate) enum Opened {
    /// A directory.
    Directory(Box<IssueLog>),
    /// A store on etcd.
    Etcd(Box<EtcdLog>),
}

impl Opened {
    pub(crate) fn backend(&self) -> &dyn Backend {
        match self {
            Opened::Directory(log) => log.as_ref(),
            Opened::Etcd(log) => log.as_ref(),
        }
    }

    /// The log, if it is one of a directory.
    pub(crate) fn directory(&self) -> Option<&IssueLog> {
        match self {
            Opened::Directory(log) => Some(log),
            Opened::Etcd(_) => None,
        }
    }

    pub(crate) fn close(self) -> Result<(), Error> {
        match self {
            Opened::Directory(log) => log.close(),
            Opened::Etcd(_) => Ok(()),
        }
    }
}
