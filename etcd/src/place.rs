use std::path::Path;

use strand_core::{IssueLog, Result, backend::Backend};

use crate::{address::Address, error::Failed, log::EtcdLog, options::Options};

/// Opens the store at a place that may be an address of etcd or a directory, for programs that take
/// either from their users. An empty directory becomes a store; on etcd, there must be one
/// ([`EtcdLog::open_or_create`] makes one).
///
/// ```
/// use strand_core::{Batch, Issue, backend::Backend};
///
/// # let dir = tempfile::tempdir()?;
/// # let place = dir.path();
/// // Or `etcd://h1,h2,h3/team`.
/// let store = strand_etcd::open(place, Default::default(), Default::default())?;
/// store.commit(&Batch::new().create(Issue::new("bd-1", "Mend the fence")).claim("bd-1", "ann"))?;
///
/// let wrong = strand_etcd::open("etcd://h1", Default::default(), Default::default());
/// assert!(wrong.is_err_and(|error| error.to_string().contains("etcd://h1")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`IssueLog::open`] or [`EtcdLog::open`]; [`Error::Unfit`](strand_core::Error::Unfit) with
/// [`Problem::Address`](crate::Problem::Address) for an address that is none.
pub fn open(
    place: impl AsRef<Path>,
    of_directory: strand_core::Options,
    of_etcd: Options,
) -> Result<Box<dyn Backend>> {
    let place = place.as_ref();
    let Some(text) = place.to_str().filter(|text| Address::is_meant(text)) else {
        return Ok(Box::new(IssueLog::open(place, of_directory)?));
    };
    let address: Address = text
        .parse()
        .map_err(|problem| Failed::from(problem).reading(&text))?;
    Ok(Box::new(EtcdLog::open(&address, of_etcd)?))
}
