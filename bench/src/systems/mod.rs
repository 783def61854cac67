//! The systems that are measured.

mod appender;
mod bare;
#[cfg(feature = "peers")]
mod fjall;
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

use std::iter;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use strand_core::Durability;

use crate::error::Result;
use crate::mode::Mode;
pub(crate) use appender::Appender;
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
    /// fjall, a store for one process: each event is inserted and synced
    #[cfg(feature = "peers")]
    Fjall,
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
            #[cfg(feature = "peers")]
            Self::Fjall => "fjall",
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

    /// Whether agents of this kind can share it.
    pub(crate) fn runs_in(self, mode: Mode) -> bool {
        match self {
            #[cfg(feature = "peers")]
            Self::Fjall => mode == Mode::Thread,
            _ => mode == Mode::Process || !self.is_one_process(),
        }
    }

    /// Whether the agents are connections of one process, which has no threads.
    pub(crate) fn is_one_process(self) -> bool {
        match self {
            #[cfg(all(feature = "peers", unix))]
            Self::RedisConnections => true,
            _ => false,
        }
    }

    /// Whether a server or other threads work for the agents, so that their own processor time says
    /// little.
    pub(crate) fn has_helpers(self) -> bool {
        match self {
            #[cfg(feature = "peers")]
            Self::Fjall => true,
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
            _ => !self.has_helpers(),
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
            #[cfg(feature = "peers")]
            Self::Fjall => fjall::prepare(dir),
            Self::Bare => Ok(()),
            Self::BarePreallocated => bare::preallocate(dir),
        }?;
        Ok(Prepared::default())
    }

    /// Opens a prepared store. Each sync takes longer by `slow_sync`, where that is possible.
    pub(crate) fn open(self, dir: &Path, slow_sync: Duration) -> Result<Box<dyn Appender>> {
        Ok(match self {
            Self::Strand | Self::StrandBuffered => {
                Box::new(strand::Strand::open(dir, self.durability(), slow_sync)?)
            }
            Self::Plan => Box::new(plan::Plan::open(dir, slow_sync)?),
            #[cfg(feature = "peers")]
            Self::Sqlite => Box::new(sqlite::Sqlite::open(dir)?),
            #[cfg(feature = "peers")]
            Self::Lmdb => Box::new(lmdb::Lmdb::open(dir)?),
            #[cfg(feature = "peers")]
            Self::Fjall => Box::new(fjall::Fjall::open(dir)?),
            #[cfg(all(feature = "peers", unix))]
            Self::Redis | Self::RedisConnections => Box::new(Redis::open(dir)?),
            #[cfg(all(feature = "peers", unix))]
            Self::Postgres => Box::new(postgres::Postgres::open(dir)?),
            Self::Bare | Self::BarePreallocated => Box::new(bare::Bare::open(dir, slow_sync)?),
        })
    }

    /// Opens a prepared store for threads of this process, once if they can share it.
    pub(crate) fn open_for_threads(
        self,
        dir: &Path,
        slow_sync: Duration,
        threads: usize,
    ) -> Result<Vec<Box<dyn Appender>>> {
        match self {
            Self::Strand | Self::StrandBuffered => {
                let strand = strand::Strand::open(dir, self.durability(), slow_sync)?;
                let others = iter::repeat_with(|| strand.for_another_thread());
                let others: Vec<_> = others.take(threads.saturating_sub(1)).collect();
                let all = iter::once(strand).chain(others);
                Ok(all
                    .map(|one| -> Box<dyn Appender> { Box::new(one) })
                    .collect())
            }
            #[cfg(feature = "peers")]
            Self::Fjall => {
                let fjall = fjall::Fjall::open(dir)?;
                let all = iter::repeat_with(|| -> Box<dyn Appender> { Box::new(fjall.clone()) });
                Ok(all.take(threads).collect())
            }
            _ => (0..threads).map(|_| self.open(dir, slow_sync)).collect(),
        }
    }

    fn durability(self) -> Durability {
        match self {
            Self::StrandBuffered => Durability::Buffered,
            _ => Durability::Synced,
        }
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
    fn threads_store_events_in_one_directory() {
        let events = events::sample(None).unwrap();
        for system in installed().filter(|system| system.runs_in(Mode::Thread)) {
            let dir = new_dir(&std::env::temp_dir()).unwrap();
            let _prepared = system.prepare(dir.path()).unwrap();
            let threads = system.open_for_threads(dir.path(), Duration::ZERO, 3);
            let threads = threads.unwrap();
            assert_eq!(threads.len(), 3, "{system:?}");
            std::thread::scope(|scope| {
                for mut appender in threads {
                    let events = &events[..3];
                    scope.spawn(move || {
                        for event in events {
                            appender.append(event).unwrap();
                        }
                    });
                }
            });
            if system == System::Strand {
                let issues = strand_core::Issues::load(dir.path()).unwrap();
                assert_eq!(issues.last_seq().get(), 9);
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
