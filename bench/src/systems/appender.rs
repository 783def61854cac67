use crate::error::Result;
use crate::events::Event;

/// An open store.
pub(crate) trait Appender: Send {
    /// Writes one event, and returns when it is as durable as the system promises.
    fn append(&mut self, event: &Event) -> Result<()>;

    /// How many syncs it has made, if it knows.
    fn syncs(&self) -> Option<u64> {
        None
    }
}
