//! The systems that are measured.

mod appender;
mod bare;
#[cfg(feature = "peers")]
mod lmdb;
mod plan;
#[cfg(feature = "peers")]
mod sqlite;
mod strand;

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use strand_core::Durability;

use crate::error::Result;
use appender::Appender;

/// A way to store events, or a limit to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum System {
    /// strand, every append durable
    Strand,
    /// A locked file: lock, open, append, sync, close, unlock
    Plan,
    /// SQLite in WAL mode, `synchronous=FULL`, one transaction per event
    #[cfg(feature = "peers")]
    Sqlite,
    /// LMDB with its default durability, one transaction per event
    #[cfg(feature = "peers")]
    Lmdb,
    /// Limit: strand without syncs
    StrandBuffered,
    /// Limit: one process that writes and syncs, and does nothing else
    Bare,
    /// Limit: as `bare`, into a preallocated file
    BarePreallocated,
}

impl System {
    /// The name in options and JSON.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The name in tables and plots.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Strand => "strand",
            Self::Plan => "locked file",
            #[cfg(feature = "peers")]
            Self::Sqlite => "SQLite WAL FULL",
            #[cfg(feature = "peers")]
            Self::Lmdb => "LMDB",
            Self::StrandBuffered => "strand, no sync",
            Self::Bare => "bare fdatasync",
            Self::BarePreallocated => "bare, preallocated",
        }
    }

    /// Whether it is a limit to compare with, and no choice for a user.
    pub(crate) fn is_limit(self) -> bool {
        matches!(
            self,
            Self::StrandBuffered | Self::Bare | Self::BarePreallocated
        )
    }

    /// Whether only one process can run it.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Bare | Self::BarePreallocated)
    }

    /// Creates an empty store in an empty directory, durably.
    pub(crate) fn prepare(self, dir: &Path) -> Result<()> {
        match self {
            Self::Strand | Self::StrandBuffered => strand::prepare(dir),
            Self::Plan => plan::prepare(dir),
            #[cfg(feature = "peers")]
            Self::Sqlite => sqlite::prepare(dir),
            #[cfg(feature = "peers")]
            Self::Lmdb => lmdb::prepare(dir),
            Self::Bare => Ok(()),
            Self::BarePreallocated => bare::preallocate(dir),
        }
    }

    /// Opens a prepared store.
    pub(crate) fn open(self, dir: &Path) -> Result<Box<dyn Appender>> {
        Ok(match self {
            Self::Strand => Box::new(strand::Strand::open(dir, Durability::Synced)?),
            Self::StrandBuffered => Box::new(strand::Strand::open(dir, Durability::Buffered)?),
            Self::Plan => Box::new(plan::Plan::open(dir)?),
            #[cfg(feature = "peers")]
            Self::Sqlite => Box::new(sqlite::Sqlite::open(dir)?),
            #[cfg(feature = "peers")]
            Self::Lmdb => Box::new(lmdb::Lmdb::open(dir)?),
            Self::Bare | Self::BarePreallocated => Box::new(bare::Bare::open(dir)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;

    #[test]
    fn every_system_stores_events_in_a_prepared_directory() {
        let events = events::sample(None).unwrap();
        for system in System::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            system.prepare(dir.path()).unwrap();
            for _ in 0..2 {
                let mut appender = system.open(dir.path()).unwrap();
                for event in events.iter().take(3) {
                    appender.append(event).unwrap();
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for system in System::value_variants() {
            assert_eq!(System::from_str(&system.name(), false), Ok(*system));
        }
        assert_eq!(System::StrandBuffered.name(), "strand-buffered");
    }
}
