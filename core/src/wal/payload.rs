use serde::{Serialize, de::DeserializeOwned};

use crate::error::InvalidEvent;

/// What a log's records carry: anything that serde writes as one JSON object.
///
/// The object's members stand in the record's line behind `crc`, `seq` and `synced`, so it should
/// not use these names; a first member named `batch` is refused. Everything else is stored as serde
/// writes it and given back as it was stored.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use strand_core::{Error, InvalidEvent, Log, Options, Payload};
///
/// #[derive(Serialize, Deserialize)]
/// struct Job { name: String, seconds: f64 }
/// impl Payload for Job {
///     fn validate(&self) -> Result<(), InvalidEvent> {
///         if self.name.is_empty() { Err(InvalidEvent::EmptyId) } else { Ok(()) }
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let log: Log<Job> = Log::open(dir.path(), Options::default())?;
/// log.append(&Job { name: "build".into(), seconds: 1.5 })?;
/// let refused = log.append(&Job { name: String::new(), seconds: 0.0 });
/// assert!(matches!(refused, Err(Error::InvalidEvent(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Payload: Serialize + DeserializeOwned {
    /// Refuses a payload before anything is written. The default accepts all.
    ///
    /// # Errors
    /// What is wrong with it.
    fn validate(&self) -> Result<(), InvalidEvent> {
        Ok(())
    }
}
