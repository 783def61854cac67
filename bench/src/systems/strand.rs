//! strand, through its library.

use std::path::Path;

use strand_core::{Durability, IssueEvent, Log, Options};

use super::appender::Appender;
use crate::error::Result;
use crate::events::Event;

pub(crate) struct Strand(Log<IssueEvent>);

pub(super) fn prepare(dir: &Path) -> Result<()> {
    let log = Log::<IssueEvent>::open(dir, Options::default())?;
    Ok(log.close()?)
}

impl Strand {
    pub(crate) fn open(dir: &Path, durability: Durability) -> Result<Self> {
        Ok(Self(Log::open(
            dir,
            Options::default().durability(durability),
        )?))
    }
}

impl Appender for Strand {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.0.append(&event.decoded)?;
        Ok(())
    }
}
