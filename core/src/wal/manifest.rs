//! The file that names the other files of the store. It is replaced as a whole, by a rename.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use strand_lock::crc32c_append;

use crate::{
    env::{storage::OpenMode, system::Host},
    error::{CorruptReason, Error, Result},
    format::record::{
        FORMAT_VERSION, FORMAT_WITHOUT_RUNS, Reflects, SEQ_MAX, checked, put_checksum, segment_name,
    },
    wal::store_dir::{StoreDir, StoreFile},
};

pub(crate) const MANIFEST: &str = "MANIFEST";
const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// A manifest of this version is shorter.
const MANIFEST_BYTES_USUAL: usize = 1 << 10;

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// See [`FORMAT_VERSION`]: the oldest version that has all that is here.
    pub(crate) format: u64,
    /// The random id of the store, which distinguishes its files from those of others.
    pub(crate) store: String,
    /// The first record of the first segment.
    pub(crate) first_seq: u64,
    /// The base of the snapshot of the records before `first_seq`; `None` if there are none.
    #[serde(default)]
    pub(crate) snapshot: Option<SnapshotMark>,
    /// What changed since the base: each has what the records behind the file before it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) runs: Vec<SnapshotMark>,
}

/// Names a file of the live snapshot, and proves that it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotMark {
    /// The last record that it reflects.
    pub(crate) seq: u64,
    /// The file's length.
    pub(crate) bytes: u64,
    /// The checksum of all its bytes.
    pub(crate) crc: u32,
}

/// A file of the live snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// The last record that the file before it reflects; 0 for the base.
    pub(crate) after: u64,
    pub(crate) mark: SnapshotMark,
}

impl SnapshotFile {
    pub(crate) fn reflects(&self) -> Reflects {
        Reflects {
            after: self.after,
            through: self.mark.seq,
        }
    }

    pub(crate) fn name(&self) -> String {
        self.reflects().name()
    }
}

/// The one member that every version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: u64,
}

impl Manifest {
    pub(crate) fn new(host: &dyn Host) -> Self {
        Self {
            format: FORMAT_WITHOUT_RUNS,
            store: random_id(host),
            first_seq: 1,
            snapshot: None,
            runs: Vec::new(),
        }
    }

    /// The same store with a snapshot of these files, the base first.
    pub(crate) fn with_snapshot(&self, files: &[SnapshotMark]) -> Self {
        let runs = files.get(1..).unwrap_or_default().to_vec();
        Self {
            format: if runs.is_empty() {
                FORMAT_WITHOUT_RUNS
            } else {
                FORMAT_VERSION
            },
            store: self.store.clone(),
            first_seq: files.last().map_or(0, |last| last.seq) + 1,
            snapshot: files.first().copied(),
            runs,
        }
    }

    /// The files of the snapshot. Each is read over those before it.
    pub(crate) fn files(&self) -> Vec<SnapshotFile> {
        let mut after = 0;
        let marks = self.snapshot.iter().chain(&self.runs);
        let files = marks.map(|mark| SnapshotFile {
            after: std::mem::replace(&mut after, mark.seq),
            mark: *mark,
        });
        files.collect()
    }

    /// How long the snapshot is, in all its files.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.files().iter().map(|file| file.mark.bytes).sum()
    }

    /// Reads the manifest of the store in `dir`; `None` if there is none.
    pub(crate) fn read(dir: &StoreDir) -> Result<Option<Self>> {
        let Some(file) = dir.open_if_there(MANIFEST, OpenMode::Read)? else {
            dir.require_same(None)?;
            return Ok(None);
        };
        let mut bytes = vec![0; MANIFEST_BYTES_USUAL];
        let mut len = file.read(&mut bytes, 0)?;
        if len == bytes.len() {
            bytes.resize(MANIFEST_BYTES_MAX, 0);
            len += file.read(bytes.get_mut(len..).unwrap_or_default(), len as u64)?;
        }
        bytes.truncate(len);
        let manifest = Self::parse(&bytes, file.path().to_owned())?;
        dir.require_same(Some(&manifest.store))?;
        Ok(Some(manifest))
    }

    /// As [`Manifest::read`], where there must be one.
    pub(crate) fn required(dir: &StoreDir) -> Result<Self> {
        Self::read(dir)?.ok_or_else(|| manifest_missing(dir))
    }

    /// Makes `dir` a store. Only for the holder of `lock`; `require_lock` checks that others find
    /// that one.
    ///
    /// A process that dies in here leaves at most an empty segment.
    pub(crate) fn create(dir: &StoreDir, require_lock: impl Fn() -> Result<()>) -> Result<Self> {
        if !is_new(dir)? {
            require_lock()?; // If it was removed, its next holder has made the store meanwhile.
            return Err(manifest_missing(dir));
        }
        let manifest = Self::new(dir.host());
        drop(dir.create_new(&segment_name(manifest.first_seq))?);
        dir.sync()?;
        manifest.write(dir, require_lock)?;
        Ok(manifest)
    }

    /// Whether the snapshot that it names is there, with these lengths and checksums. True where it
    /// names none.
    pub(crate) fn snapshot_is_whole(&self, dir: &StoreDir) -> Result<bool> {
        for named in self.files() {
            let Some(file) = dir.open_if_there(&named.name(), OpenMode::Read)? else {
                return Ok(false);
            };
            let (mut len, mut crc) = (0, 0);
            file.chunks(0..u64::MAX, |_, bytes| {
                crc = crc32c_append(crc, bytes);
                len += bytes.len() as u64;
                Ok(())
            })?;
            if (len, crc) != (named.mark.bytes, named.mark.crc) {
                return Ok(false);
            }
        }
        Ok(true)
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
        let manifest = manifest.and_then(Self::consistent);
        manifest.map_err(|reason| Error::Corrupt {
            path,
            offset: 0,
            reason,
        })
    }

    fn consistent(self) -> std::result::Result<Self, CorruptReason> {
        let files = self.files();
        let before = files.last().map_or(0, |file| file.mark.seq);
        if self.snapshot.is_none() && !self.runs.is_empty() {
            let message = "it names runs without a snapshot".to_owned();
            return Err(CorruptReason::Manifest { message });
        }
        let mut runs = files.iter().skip(1);
        if let Some(run) = runs.find(|run| run.mark.seq <= run.after) {
            let (seq, after) = (run.mark.seq, run.after);
            let message = format!("the run through record {seq} is behind record {after}");
            return Err(CorruptReason::Manifest { message });
        }
        if self.first_seq.checked_sub(1) == Some(before) && self.first_seq <= SEQ_MAX {
            Ok(self)
        } else {
            let message = format!(
                "the log begins with record {}, but the snapshot ends with {before}",
                self.first_seq
            );
            Err(CorruptReason::Manifest { message })
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let object = serde_json::to_vec(self)
            .unwrap_or_else(|error| unreachable!("numbers and strings can be written: {error}"));
        let mut text = br#"{"crc":"00000000","#.to_vec();
        text.extend(object.into_iter().skip(1)); // Without its opening brace.
        put_checksum(&mut text);
        text.push(b'\n');
        text
    }

    /// Replaces the manifest durably: a reader sees the old one or the new one, never a mixture.
    ///
    /// Only for the holder of `lock` if there is none yet, and of `compact.lock` if there is one.
    /// Right before it replaces the old one, calls `before_rename`.
    pub(crate) fn write(
        &self,
        dir: &StoreDir,
        before_rename: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let write = |file: &StoreFile| file.write(&self.to_bytes(), 0);
        dir.replace_file(MANIFEST, write, before_rename)
    }
}

/// Whether a directory without a manifest holds no store yet: it is empty, or has the empty segment
/// that a creation begins with.
pub(crate) fn is_new(dir: &StoreDir) -> Result<bool> {
    if dir
        .list()?
        .iter()
        .any(|name| Reflects::of_name(name).is_some())
    {
        return Ok(false);
    }
    match dir.segments()?.as_slice() {
        [] => Ok(true),
        [1] => match dir.open_if_there(&segment_name(1), OpenMode::Read)? {
            None => Ok(true),
            Some(file) => Ok(file.len_bytes()? == 0),
        },
        _ => Ok(false),
    }
}

/// 32 random hexadecimal digits.
pub(crate) fn random_id(host: &dyn Host) -> String {
    format!("{:016x}{:016x}", host.random(), host.random())
}

/// The error for log files without a manifest.
pub(crate) fn manifest_missing(dir: &StoreDir) -> Error {
    Error::Corrupt {
        path: dir.path_of(MANIFEST),
        offset: 0,
        reason: CorruptReason::ManifestMissing,
    }
}
