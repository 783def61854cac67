//! Stores on etcd: where an address stands in the place of a directory.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use strand_etcd::{Address, EtcdLog, Options};

use crate::{
    args::{OnStore, Writing},
    exit::{Exit, Failure},
};

const PASSWORD: &str = "STRAND_ETCD_PASSWORD";

/// The address that a place is; `None` for a directory.
pub(crate) fn address(place: &Path) -> Result<Option<Address>, Failure> {
    let Some(text) = place.to_str().filter(|text| Address::is_meant(text)) else {
        return Ok(None);
    };
    let parsed = text.parse().map(Some);
    parsed.map_err(|problem: strand_etcd::Problem| Failure::usage(problem.to_string()))
}

pub(crate) fn open(address: &Address, writing: Option<&Writing>) -> Result<EtcdLog, Failure> {
    Ok(EtcdLog::open(address, options(writing)?)?)
}

/// Creates a store, unless it exists. True if it did not.
pub(crate) fn create(address: &Address, writing: &Writing) -> Result<bool, Failure> {
    Ok(EtcdLog::open_or_create(address, options(Some(writing))?)?.1)
}

fn options(writing: Option<&Writing>) -> Result<Options, Failure> {
    let mut options = Options::default();
    if let Some(writing) = writing {
        if writing.buffered {
            let message = "--buffered is for directories: etcd syncs every write";
            return Err(Failure::usage(message));
        }
        options = options.timeout(Duration::from_millis(writing.timeout_ms));
    }
    if let Some(dir) = memory() {
        options = options.remember_in(dir);
    }
    Ok(match env::var(PASSWORD) {
        Ok(password) => options.password(password),
        Err(_) => options,
    })
}

/// Where this user's programs keep what they remember; `None` where there is no such place.
fn memory() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|dir| dir.is_absolute());
    let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")))?;
    Some(state.join("strand/etcd"))
}

/// Refuses the commands that are about files.
pub(crate) fn require_possible(command: &OnStore) -> Result<(), Failure> {
    let (name, instead) = match command {
        OnStore::Doctor => (
            "doctor",
            "`etcdctl endpoint health` and `etcdctl alarm list`",
        ),
        OnStore::Repair(_) => ("repair", "etcd's snapshots"),
        OnStore::Stat => ("stat", "`strand list` and `etcdctl endpoint status`"),
        OnStore::Import(_) => ("import", "`strand batch` with up to 120 issues"),
        OnStore::Sync(_) => ("sync", "`strand pull` and a directory"),
        OnStore::Compact(args) if args.archive.is_some() => {
            ("compact --archive", "`strand follow`")
        }
        OnStore::Follow(args) if args.archive.is_some() => ("follow --archive", "`strand follow`"),
        OnStore::Export(args) if args.file().is_some() => ("export FILE", "standard output"),
        _ => return Ok(()),
    };
    let message = format!("`strand {name}` is for directories; on etcd, use {instead}");
    Err(Failure::new(Exit::Usage, message))
}
