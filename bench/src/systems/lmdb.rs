//! LMDB. A key is the number of its event, so that each is put behind the last.

use std::path::Path;

use heed::byteorder::BigEndian;
use heed::types::{ByteSlice, U64};
use heed::{Database, Env, EnvOpenOptions};

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

const MAP_BYTES: usize = 1 << 30;
/// More than there are agents.
const READERS_MAX: u32 = 1_024;

pub(super) struct Lmdb {
    env: Env,
    events: Database<heed::types::OwnedType<U64<BigEndian>>, ByteSlice>,
}

pub(super) fn prepare(dir: &Path) -> Result<()> {
    Lmdb::open(dir).map(drop)
}

impl Lmdb {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let env = EnvOpenOptions::new()
            .map_size(MAP_BYTES)
            .max_readers(READERS_MAX)
            .open(dir)
            .map_err(text)?;
        let events = match env.open_database(None).map_err(text)? {
            Some(events) => events,
            None => env.create_database(None).map_err(text)?,
        };
        Ok(Self { env, events })
    }
}

impl Appender for Lmdb {
    fn append(&mut self, event: &Event) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(text)?;
        let last = self.events.last(&transaction).map_err(text)?;
        let seq = last.map_or(0, |(seq, _)| seq.get()) + 1;
        self.events
            .append(&mut transaction, &U64::new(seq), event.text.as_bytes())
            .map_err(text)?;
        transaction.commit().map_err(text)
    }
}

/// heed's errors cannot be boxed; their messages say it all.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn text(error: heed::Error) -> Box<dyn std::error::Error> {
    error.to_string().into()
}
