//! The systems that are measured.

mod appender;
mod bare;
#[cfg(feature = "peers")]
mod lmdb;
mod plan;
#[cfg(all(feature = "peers", unix))]
mod postgres;
#[cfg(all(feature = "peers", unix))]
mod redis;
#[cfg(all(feature = "peers", unix))]
mod servers;
#[cfg(feature = "peers")]
mod sqlite;
mod strand;

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use strand_core::Durability;

use crate::error::Result;
use appender::Appender;
#[cfg(all(feature = "peers", unix))]
pub(crate) use redis::Redis;

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
    /// Redis with an append-only file that is synced before each answer, a client process each
    #[cfg(all(feature = "peers", unix))]
    Redis,
    /// The same with one client process, which has a connection for each agent
    #[cfg(all(feature = "peers", unix))]
    RedisConnections,
    /// PostgreSQL with its default durability, one transaction per event
    #[cfg(all(feature = "peers", unix))]
    Postgres,
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
            #[cfg(all(feature = "peers", unix))]
            Self::Redis => "Redis AOF always",
            #[cfg(all(feature = "peers", unix))]
            Self::RedisConnections => "Redis, one client",
            #[cfg(all(feature = "peers", unix))]
            Self::Postgres => "PostgreSQL",
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

    /// Whether all agents are one process.
    pub(crate) fn is_one_process(self) -> bool {
        match self {
            #[cfg(all(feature = "peers", unix))]
            Self::RedisConnections => true,
            _ => false,
        }
    }

    /// Whether a server works for the agents, so that their own processor time says little.
    pub(crate) fn has_server(self) -> bool {
        match self {
            #[cfg(all(feature = "peers", unix))]
            Self::Redis | Self::RedisConnections | Self::Postgres => true,
            _ => false,
        }
    }

    /// Whether syncs can be made slow. The libraries of SQLite and LMDB, and servers, sync by
    /// themselves.
    pub(crate) fn can_be_slowed(self) -> bool {
        match self {
            #[cfg(feature = "peers")]
            Self::Sqlite | Self::Lmdb => false,
            _ => !self.has_server(),
        }
    }

    /// Why it can't be run here, if it can't.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            #[cfg(all(feature = "peers", unix))]
            Self::Redis | Self::RedisConnections => redis::missing(),
            #[cfg(all(feature = "peers", unix))]
            Self::Postgres => postgres::missing(),
            _ => None,
        }
    }

    /// Creates an empty store in an empty directory, durably. What is returned has to be kept until
    /// the store is not used any more.
    pub(crate) fn prepare(self, dir: &Path) -> Result<Prepared> {
        match self {
            #[cfg(all(feature = "peers", unix))]
            Self::Redis | Self::RedisConnections => {
                return redis::prepare(dir).map(Prepared::served);
            }
            #[cfg(all(feature = "peers", unix))]
            Self::Postgres => return postgres::prepare(dir).map(Prepared::served),
            Self::Strand | Self::StrandBuffered => strand::prepare(dir),
            Self::Plan => plan::prepare(dir),
            #[cfg(feature = "peers")]
            Self::Sqlite => sqlite::prepare(dir),
            #[cfg(feature = "peers")]
            Self::Lmdb => lmdb::prepare(dir),
            Self::Bare => Ok(()),
            Self::BarePreallocated => bare::preallocate(dir),
        }?;
        Ok(Prepared::default())
    }

    /// Opens a prepared store. Each sync takes longer by `slow_sync`, where that is possible.
    pub(crate) fn open(self, dir: &Path, slow_sync: Duration) -> Result<Box<dyn Appender>> {
        Ok(match self {
            Self::Strand | Self::StrandBuffered => {
                let durability = if self == Self::Strand {
                    Durability::Synced
                } else {
                    Durability::Buffered
                };
                Box::new(strand::Strand::open(dir, durability, slow_sync)?)
            }
            Self::Plan => Box::new(plan::Plan::open(dir, slow_sync)?),
            #[cfg(feature = "peers")]
            Self::Sqlite => Box::new(sqlite::Sqlite::open(dir)?),
            #[cfg(feature = "peers")]
            Self::Lmdb => Box::new(lmdb::Lmdb::open(dir)?),
            #[cfg(all(feature = "peers", unix))]
            Self::Redis | Self::RedisConnections => Box::new(Redis::open(dir)?),
            #[cfg(all(feature = "peers", unix))]
            Self::Postgres => Box::new(postgres::Postgres::open(dir)?),
            Self::Bare | Self::BarePreallocated => Box::new(bare::Bare::open(dir, slow_sync)?),
        })
    }
}

/// A prepared store, and its server, which ends when this is dropped.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Prepared {
    #[cfg(all(feature = "peers", unix))]
    _server: Option<servers::Server>,
}

#[cfg(all(feature = "peers", unix))]
impl Prepared {
    fn served(server: servers::Server) -> Self {
        Self {
            _server: Some(server),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::events;
    use crate::runner::new_dir;

    fn installed() -> impl Iterator<Item = System> {
        System::value_variants().iter().copied().filter(|system| {
            let missing = system.missing();
            if let Some(why) = &missing {
                println!("{}: SKIPPED, {why}", system.title());
            }
            missing.is_none()
        })
    }

    #[test]
    fn every_system_stores_events_in_a_prepared_directory() {
        let events = events::sample(None).unwrap();
        for system in installed() {
            let dir = new_dir(&std::env::temp_dir()).unwrap();
            let _prepared = system.prepare(dir.path()).unwrap();
            for _ in 0..2 {
                let mut appender = system.open(dir.path(), Duration::ZERO).unwrap();
                for event in events.iter().take(3) {
                    appender.append(event).unwrap();
                }
            }
        }
    }

    #[test]
    fn an_append_waits_for_a_slow_sync() {
        let slow_sync = Duration::from_millis(30);
        let event = &events::sample(None).unwrap()[0];
        for system in installed() {
            let dir = new_dir(&std::env::temp_dir()).unwrap();
            let _prepared = system.prepare(dir.path()).unwrap();
            let mut appender = system.open(dir.path(), slow_sync).unwrap();
            let started = Instant::now();
            appender.append(event).unwrap();
            let syncs = system.can_be_slowed() && system != System::StrandBuffered;
            assert!(!syncs || started.elapsed() >= slow_sync, "{system:?}");
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
