//! What is measured.

mod bare;
#[cfg(feature = "peers")]
mod lmdb;
mod plan;
#[cfg(feature = "peers")]
mod sqlite;
mod strand;

use std::path::Path;

use clap::ValueEnum;
use strand_core::Durability;

use crate::{Result, events::Event};

/// An open store.
pub(crate) trait Appender {
    /// Writes one event, and returns when it is as durable as the system promises.
    fn append(&mut self, event: &Event) -> Result<()>;
}

/// A way to store events, or a limit of such ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// strand, every append durable.
    Strand,
    /// Lock, open, append, sync, close, unlock: the plan that strand began from.
    Plan,
    /// SQLite, WAL, `synchronous=FULL`, one transaction an event.
    #[cfg(feature = "peers")]
    Sqlite,
    /// LMDB with its default durability, one transaction an event.
    #[cfg(feature = "peers")]
    Lmdb,
    /// Limit: strand without syncs.
    StrandBuffered,
    /// Limit: one process that appends and syncs, and does nothing else.
    Bare,
    /// Limit: as `bare`, into a file that has its length already.
    BarePreallocated,
}

impl System {
    /// Its name in options and files.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Its name for people.
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

    /// A limit that others are compared with, not a choice.
    pub(crate) fn is_limit(self) -> bool {
        matches!(
            self,
            Self::StrandBuffered | Self::Bare | Self::BarePreallocated
        )
    }

    /// Only one process does it.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Bare | Self::BarePreallocated)
    }

    /// Makes an empty store in an empty directory, durably.
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
