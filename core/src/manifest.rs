//! The file that says which files make up the store. Replaced as a whole, by rename.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    CorruptReason, Error, Result,
    format::{FORMAT_VERSION, checked, put_checksum},
    hints::Origin,
    storage::{OpenMode, Storage, read_full, write_full},
};

const MANIFEST: &str = "MANIFEST";
const MANIFEST_NEW: &str = "MANIFEST.new";
const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// See [`FORMAT_VERSION`].
    pub(crate) format: u64,
    /// Drawn when the store is created; tells the files of one store from those of another.
    pub(crate) store: String,
    /// The first record of the first segment.
    pub(crate) first_seq: u64,
}

/// The one member that every version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: u64,
}

impl Manifest {
    pub(crate) fn new() -> Self {
        // The keys of a `RandomState` are drawn by the system.
        let draw = || RandomState::new().build_hasher().finish();
        Self {
            format: FORMAT_VERSION,
            store: format!("{:016x}{:016x}", draw(), draw()),
            first_seq: 1,
        }
    }

    pub(crate) fn origin(&self) -> Origin<'_> {
        Origin {
            format: self.format,
            store: &self.store,
        }
    }

    /// Reads the manifest of the store in `dir`; `None` when there is none.
    pub(crate) fn read(storage: &dyn Storage, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MANIFEST);
        let file = match storage.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let mut bytes = vec![0; MANIFEST_BYTES_MAX];
        let len = read_full(file.as_ref(), &mut bytes, 0).map_err(Error::io("read", &path))?;
        bytes.truncate(len);
        Self::parse(&bytes, path).map(Some)
    }

    fn parse(bytes: &[u8], path: PathBuf) -> Result<Self> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        // The version first, since a newer one may write the rest differently.
        if let Ok(AnyVersion { format }) = serde_json::from_slice(text)
            && format > FORMAT_VERSION
        {
            return Err(Error::UnsupportedVersion {
                path,
                found: format,
                supported: FORMAT_VERSION,
            });
        }
        let manifest: std::result::Result<Self, CorruptReason> = checked(text).and_then(|_| {
            let message = |error: serde_json::Error| CorruptReason::Manifest {
                message: error.to_string(),
            };
            serde_json::from_slice(text).map_err(message)
        });
        manifest.map_err(|reason| Error::Corrupt {
            path,
            offset: 0,
            reason,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let members = serde_json::to_vec(self).unwrap_or_default();
        let mut text = br#"{"crc":"00000000","#.to_vec();
        text.extend_from_slice(members.get(1..).unwrap_or_default());
        put_checksum(&mut text);
        text.push(b'\n');
        text
    }

    /// Replaces the manifest durably: the old one or the new one is there, never a mixture.
    /// The caller holds the lock.
    pub(crate) fn write(&self, storage: &dyn Storage, dir: &Path) -> Result<()> {
        let (new, path) = (dir.join(MANIFEST_NEW), dir.join(MANIFEST));
        // A writer that died may have left a `MANIFEST.new` behind.
        let file = match storage.open(&new, OpenMode::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                storage.open(&new, OpenMode::ReadWrite)
            }
            created => created,
        };
        let file = file.map_err(Error::io("create", &new))?;
        file.set_len(0).map_err(Error::io("empty", &new))?;
        write_full(file.as_ref(), &self.to_bytes(), 0).map_err(Error::io("write", &new))?;
        file.sync_data().map_err(Error::io("sync", &new))?;
        drop(file);
        storage
            .rename(&new, &path)
            .map_err(Error::io("rename", &new))?;
        storage.sync_dir(dir).map_err(Error::io("sync", dir))
    }
}

/// Log files without the manifest that names them.
pub(crate) fn manifest_missing(dir: &Path) -> Error {
    Error::Corrupt {
        path: dir.join(MANIFEST),
        offset: 0,
        reason: CorruptReason::ManifestMissing,
    }
}
