//! fjall, a store of keys and values for the threads of one process. A key is the number of its
//! event.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

#[derive(Clone)]
pub(super) struct Fjall {
    database: Database,
    events: Keyspace,
    last: Arc<AtomicU64>,
}

pub(super) fn prepare(dir: &Path) -> Result<()> {
    let fjall = Fjall::open(dir)?;
    Ok(fjall.database.persist(PersistMode::SyncAll)?)
}

impl Fjall {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir).open()?;
        let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
        let last = match events.last_key_value() {
            Some(last) => u64::from_be_bytes(last.key()?.as_ref().try_into()?),
            None => 0,
        };
        let last = Arc::new(AtomicU64::new(last));
        Ok(Self {
            database,
            events,
            last,
        })
    }
}

impl Appender for Fjall {
    /// A batch of one, which is faster than to insert and then to sync.
    fn append(&mut self, event: &Event) -> Result<()> {
        let seq = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let batch = self.database.batch();
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        batch.insert(&self.events, seq.to_be_bytes(), event.text.as_str());
        Ok(batch.commit()?)
    }
}
