use serde::{Serialize, de::DeserializeOwned};

use crate::error::InvalidEvent;

/// The payload of a log's records: any type that serde writes as one JSON object.
///
/// The object's members follow `crc`, `seq` and `synced` in the record's line, so a member of one
/// of these names, or named `batch`, is refused ([`InvalidEvent::Reserved`]). The rest is stored as
/// serde writes it, and read as it was stored.
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
    /// Validates the payload before anything is written. The default accepts all.
    ///
    /// # Errors
    /// The reason to refuse it.
    fn validate(&self) -> Result<(), InvalidEvent> {
        Ok(())
    }

    /// The payload with these members, behind the opening brace of its object, if that can be told
    /// sooner than by parsing them. It must be the same that serde reads.
    #[doc(hidden)]
    #[must_use]
    fn of_members(members: &str) -> Option<Self> {
        let _ = members;
        None
    }
}
