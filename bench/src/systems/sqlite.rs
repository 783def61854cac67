//! SQLite. One row per event, by a rising key: the closest to a log.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

const BUSY_TIMEOUT: Duration = Duration::from_mins(1);
const INSERT: &str = "INSERT INTO events (event) VALUES (?1)";

pub(crate) struct Sqlite(Connection);

pub(super) fn prepare(dir: &Path) -> Result<()> {
    let connection = Connection::open(dir.join("events.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute(
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, event TEXT)",
        (),
    )?;
    Ok(())
}

impl Sqlite {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("events.db"))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.prepare_cached(INSERT)?;
        Ok(Self(connection))
    }
}

impl Appender for Sqlite {
    /// A single statement is a transaction. It takes the write lock at once, as `BEGIN IMMEDIATE`
    /// would, without two more statements.
    fn append(&mut self, event: &Event) -> Result<()> {
        self.0.prepare_cached(INSERT)?.execute([&event.text])?;
        Ok(())
    }
}
