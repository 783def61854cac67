//! The bytes of a snapshot: the fold of all records through one, a line each. See `docs/FORMAT.md`.

use std::{borrow::Cow, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    CorruptReason, Error, Issue, Result, Storage, StorageFile, Store,
    format::{checked, put_checksum, snapshot_name},
    lines::Lines,
    manifest::{Manifest, SnapshotMark},
    pace::Pace,
    seeded::{Bug, seeded},
    storage::{OpenMode, read_full, write_full},
    store::Entry,
};

/// How much is written at a time.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header<'a> {
    snapshot: u64,
    #[serde(borrow)]
    store: Cow<'a, str>,
    issues: u64,
    tombstones: u64,
    keys: u64,
    without_effect: u64,
}

/// Any line but the first. Which members are there tells what it is.
#[derive(Default, Serialize, Deserialize)]
struct Item<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue: Option<Cow<'a, Issue>>,
}

/// Writes the state to a new file, and syncs it piece by piece, so that nobody else's sync has to wait for all of it.
pub(crate) fn write(
    store: &Store,
    store_id: &str,
    file: &dyn StorageFile,
    path: &Path,
    pace: Pace,
) -> Result<SnapshotMark> {
    let mut out = Out {
        file,
        pace,
        mark: SnapshotMark {
            seq: store.last_seq(),
            bytes: 0,
            crc: 0,
        },
        chunk: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
    };
    let written = (|| {
        let count = |n: usize| n as u64;
        out.line(&Header {
            snapshot: store.last_seq(),
            store: Cow::Borrowed(store_id),
            issues: count(store.len()),
            tombstones: count(store.entries().count() - store.len()),
            keys: count(store.keys().count()),
            without_effect: store.without_effect(),
        })?;
        for (id, entry) in store.entries() {
            let (issue, deleted_ms) = match entry {
                Entry::Present { issue, .. } => (Some(Cow::Borrowed(issue)), None),
                Entry::Deleted { ts, .. } => (None, Some(*ts)),
            };
            out.line(&Item {
                id: Some(Cow::Borrowed(id)),
                version: Some(entry.version()),
                deleted_ms,
                issue,
                ..Item::default()
            })?;
        }
        for (key, seq) in store.keys() {
            out.line(&Item {
                key: Some(Cow::Borrowed(key)),
                seq: Some(seq),
                ..Item::default()
            })?;
        }
        out.flush()
    })();
    written.map_err(Error::io("write", path))?;
    Ok(out.mark)
}

struct Out<'a> {
    file: &'a dyn StorageFile,
    mark: SnapshotMark,
    chunk: Vec<u8>,
    pace: Pace,
}

impl Out<'_> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let start = self.chunk.len();
        self.chunk.extend_from_slice(br#"{"crc":"00000000","#);
        let members = self.chunk.len();
        serde_json::to_writer(&mut self.chunk, value)?;
        self.chunk.remove(members); // The object's own opening brace.
        put_checksum(self.chunk.get_mut(start..).unwrap_or_default());
        self.chunk.push(b'\n');
        self.pace.did(self.chunk.len() - start);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, &self.chunk, self.mark.bytes)?;
        self.mark.crc = crc32c::crc32c_append(self.mark.crc, &self.chunk);
        self.mark.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        self.file.sync_data()
    }
}

/// Reads the snapshot that the manifest names; an empty state where it names none.
///
/// `None` when the file is gone: a compaction has put a later one in its place, and a later manifest.
pub(crate) fn read(
    storage: &dyn Storage,
    dir: &Path,
    manifest: &Manifest,
    pace: &mut Pace,
) -> Result<Option<Store>> {
    let Some(mark) = manifest.snapshot else {
        return Ok(Some(Store::default()));
    };
    let path = dir.join(snapshot_name(mark.seq));
    let file = match storage.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let now = Manifest::required(storage, dir)?;
            if now == *manifest {
                let message = "it is named by the MANIFEST, but not there".to_owned();
                return Err(corrupt(&path, 0, CorruptReason::Snapshot { message }));
            }
            return Ok(None);
        }
        opened => opened.map_err(Error::io("open", &path))?,
    };
    let mut reading = Reading {
        store: Store::default(),
        counts: [0; 3],
        header: None,
    };
    let len_bytes = file.len_bytes().map_err(Error::io("examine", &path))?;
    let (mut bytes, mut crc) = (0, 0);
    let mut lines = Lines::default();
    while let Some(span) = lines
        .next(file.as_ref())
        .map_err(Error::io("read", &path))?
    {
        if span.offset != bytes {
            let message = "a blank line stands here".to_owned();
            return Err(corrupt(&path, bytes, CorruptReason::Snapshot { message }));
        }
        let line = lines.text(span);
        crc = crc32c::crc32c_append(crc, line);
        bytes += line.len() as u64;
        pace.did(line.len());
        reading
            .line(line, manifest)
            .map_err(|reason| corrupt(&path, span.offset, reason))?;
    }
    let whole = (len_bytes, bytes, crc) == (mark.bytes, mark.bytes, mark.crc);
    let message = if whole || seeded(Bug::NoSnapshotChecksum) {
        reading.missing()
    } else {
        Some(format!(
            "it has {len_bytes} bytes with checksum {crc:08x}, and the MANIFEST says {} with {:08x}",
            mark.bytes, mark.crc
        ))
    };
    match message {
        None => Ok(Some(reading.store)),
        // Each line is good by itself, so that nobody knows where the wrong one is: it is the file.
        Some(message) => Err(corrupt(&path, 0, CorruptReason::Snapshot { message })),
    }
}

/// Whether the snapshot that the manifest names is there, with the length and the checksum that it says. True where it
/// names none.
pub(crate) fn is_whole(storage: &dyn Storage, dir: &Path, manifest: &Manifest) -> Result<bool> {
    let Some(mark) = manifest.snapshot else {
        return Ok(true);
    };
    let path = dir.join(snapshot_name(mark.seq));
    let file = match storage.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let read = read_full(file.as_ref(), &mut chunk, bytes).map_err(Error::io("read", &path))?;
        if read == 0 {
            return Ok((bytes, crc) == (mark.bytes, mark.crc));
        }
        crc = crc32c::crc32c_append(crc, chunk.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// The state of a snapshot that is being read.
struct Reading {
    store: Store,
    /// Issues, tombstones, keys.
    counts: [u64; 3],
    header: Option<[u64; 3]>,
}

impl Reading {
    fn line(&mut self, line: &[u8], manifest: &Manifest) -> std::result::Result<(), CorruptReason> {
        let text = line
            .strip_suffix(b"\n")
            .ok_or(CorruptReason::Unterminated)?;
        if !seeded(Bug::NoSnapshotChecksum) {
            checked(text)?;
        }
        let message = |error: serde_json::Error| CorruptReason::Snapshot {
            message: format!("the line is whole, but is no part of a snapshot: {error}"),
        };
        if self.header.is_none() {
            let header: Header<'_> = serde_json::from_slice(text).map_err(message)?;
            self.header = Some([header.issues, header.tombstones, header.keys]);
            if header.store != manifest.store {
                let message = "it belongs to another store".to_owned();
                return Err(CorruptReason::Snapshot { message });
            }
            if manifest.snapshot.map(|mark| mark.seq) != Some(header.snapshot) {
                let message = format!("it says that it reflects record {}", header.snapshot);
                return Err(CorruptReason::Snapshot { message });
            }
            self.store
                .restore_header(header.snapshot, header.without_effect);
            return Ok(());
        }
        let item: Item<'_> = serde_json::from_slice(text).map_err(message)?;
        let [issues, tombstones, keys] = &mut self.counts;
        match item {
            Item {
                id: Some(id),
                version: Some(version),
                issue: Some(issue),
                ..
            } => {
                *issues += 1;
                self.store
                    .restore_issue(id.into_owned(), version, issue.into_owned());
            }
            Item {
                id: Some(id),
                version: Some(version),
                deleted_ms: Some(ts),
                ..
            } => {
                *tombstones += 1;
                self.store.restore_tombstone(id.into_owned(), version, ts);
            }
            Item {
                key: Some(key),
                seq: Some(seq),
                ..
            } => {
                *keys += 1;
                self.store.restore_key(key.into_owned(), seq);
            }
            _ => {
                let message = "the line is neither issue, tombstone nor key".to_owned();
                return Err(CorruptReason::Snapshot { message });
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let said = self.header.unwrap_or_default();
        (self.header.is_none() || said != self.counts).then(|| {
            format!(
                "it has {:?} issues, tombstones and keys, and its first line says {said:?}",
                self.counts
            )
        })
    }
}

fn corrupt(path: &Path, offset: u64, reason: CorruptReason) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset,
        reason,
    }
}
