//! The bytes of a snapshot: the fold of all records through one, a line each. See `docs/FORMAT.md`.

use std::{borrow::Cow, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{checked, put_checksum, snapshot_name},
        resync::{Damage, Damages, Place, stretches},
        seq::Seq,
    },
    issues::{
        issue::{ID_BYTES_MAX, Issue},
        issues::{Entry, Issues},
        timestamp::Timestamp,
        version::Version,
    },
    seeded::{Bug, seeded},
    state::throttle::Throttle,
    wal::{
        manifest::{Manifest, SnapshotMark},
        store_dir::{CHUNK_BYTES, StoreDir, StoreFile},
    },
};

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header<'a> {
    pub(crate) snapshot: u64,
    #[serde(borrow)]
    pub(crate) store: Cow<'a, str>,
    issues: u64,
    tombstones: u64,
    keys: u64,
    pub(crate) without_effect: u64,
}

impl Header<'_> {
    /// How many issues, tombstones and keys there are.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [self.issues, self.tombstones, self.keys]
    }
}

/// How a header's text begins, behind the checksum.
const HEADER_START: &[u8] = br#""snapshot":"#;

/// Any line but the first. Which members are there tells what it is.
#[derive(Default, Serialize, Deserialize)]
struct Item<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_ms: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue: Option<Cow<'a, Issue>>,
}

/// Writes the state to a new file, and syncs it piece by piece, so that nobody else's sync has to wait for all of it.
pub(crate) fn write(
    store: &Issues,
    store_id: &str,
    file: &StoreFile,
    throttle: Throttle,
) -> Result<SnapshotMark> {
    let mut out = Out {
        file,
        throttle,
        mark: SnapshotMark {
            seq: store.last_seq().get(),
            bytes: 0,
            crc: 0,
        },
        chunk: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
    };
    let count = |n: usize| n as u64;
    out.line(&Header {
        snapshot: store.last_seq().get(),
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
    out.flush()?;
    Ok(out.mark)
}

struct Out<'a> {
    file: &'a StoreFile,
    mark: SnapshotMark,
    chunk: Vec<u8>,
    throttle: Throttle,
}

impl Out<'_> {
    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let start = self.chunk.len();
        self.chunk.extend_from_slice(br#"{"crc":"00000000","#);
        let members = self.chunk.len();
        serde_json::to_writer(&mut self.chunk, value)
            .map_err(|error| Error::io("write", self.file.path())(error.into()))?;
        self.chunk.remove(members); // The object's own opening brace.
        put_checksum(self.chunk.get_mut(start..).unwrap_or_default());
        self.chunk.push(b'\n');
        self.throttle.did(self.chunk.len() - start);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write(&self.chunk, self.mark.bytes)?;
        self.mark.crc = crc32c::crc32c_append(self.mark.crc, &self.chunk);
        self.mark.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        self.file.sync()
    }
}

/// Reads the snapshot that the manifest names; an empty state where it names none.
///
/// `None` when the file is gone: a compaction has put a later one in its place, and a later manifest.
pub(crate) fn read(
    dir: &StoreDir,
    manifest: &Manifest,
    throttle: &mut Throttle,
) -> Result<Option<Issues>> {
    let Some(mark) = manifest.snapshot else {
        return Ok(Some(Issues::default()));
    };
    let name = snapshot_name(mark.seq);
    let Some(file) = dir.open_if_there(&name, OpenMode::Read)? else {
        let now = Manifest::required(dir)?;
        if now == *manifest {
            let message = "it is named by the MANIFEST, but not there".to_owned();
            return Err(corrupt(
                &dir.path_of(&name),
                0,
                CorruptReason::Snapshot { message },
            ));
        }
        return Ok(None);
    };
    match read_open(&file, manifest, mark, throttle) {
        // A repair may have replaced both.
        Err(error @ Error::Corrupt { .. }) => match Manifest::read(dir) {
            Ok(Some(now)) if now != *manifest => Ok(None),
            _ => Err(error),
        },
        read => read.map(Some),
    }
}

fn read_open(
    file: &StoreFile,
    manifest: &Manifest,
    mark: SnapshotMark,
    throttle: &mut Throttle,
) -> Result<Issues> {
    let mut reading = Reading {
        store: Issues::default(),
        counts: [0; 3],
        header: None,
    };
    let (path, len_bytes) = (file.path(), file.len_bytes()?);
    let (mut bytes, mut crc) = (0, 0);
    let mut lines = Lines::default();
    while let Some(span) = file.next_line(&mut lines)? {
        if span.offset != bytes {
            let message = "a blank line stands here".to_owned();
            return Err(corrupt(path, bytes, CorruptReason::Snapshot { message }));
        }
        let line = lines.text(span);
        crc = crc32c::crc32c_append(crc, line);
        bytes += line.len() as u64;
        throttle.did(line.len());
        reading
            .line(line, manifest)
            .map_err(|reason| corrupt(path, span.offset, reason))?;
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
        None => Ok(reading.store),
        // Each line is good by itself, so that nobody knows where the wrong one is: it is the file.
        Some(message) => Err(corrupt(path, 0, CorruptReason::Snapshot { message })),
    }
}

/// What a line says.
pub(crate) enum Part<'a> {
    Header(Header<'a>),
    Issue(String, Version, Issue),
    Tombstone(String, Version, Timestamp),
    Key(String, Seq),
}

impl<'a> Part<'a> {
    /// Reads a line without its newline.
    fn parse(text: &'a [u8]) -> std::result::Result<Self, CorruptReason> {
        let members = if seeded(Bug::NoSnapshotChecksum) {
            text.get(18..).unwrap_or_default()
        } else {
            checked(text)?
        };
        let message = |error: serde_json::Error| CorruptReason::Snapshot {
            message: format!("the line is whole, but is no part of a snapshot: {error}"),
        };
        if members.starts_with(HEADER_START) {
            return serde_json::from_slice(text)
                .map(Self::Header)
                .map_err(message);
        }
        let item: Item<'_> = serde_json::from_slice(text).map_err(message)?;
        match item {
            Item {
                id: Some(id),
                version: Some(version),
                issue: Some(issue),
                ..
            } => Ok(Self::Issue(id.into_owned(), version, issue.into_owned())),
            Item {
                id: Some(id),
                version: Some(version),
                deleted_ms: Some(ts),
                ..
            } => Ok(Self::Tombstone(id.into_owned(), version, ts)),
            Item {
                key: Some(key),
                seq: Some(seq),
                ..
            } => Ok(Self::Key(key.into_owned(), seq)),
            _ => Err(misplaced()),
        }
    }

    /// Counts it, unless it is a header.
    fn count(&self, [issues, tombstones, keys]: &mut [u64; 3]) {
        match self {
            Self::Header(_) => {}
            Self::Issue(..) => *issues += 1,
            Self::Tombstone(..) => *tombstones += 1,
            Self::Key(..) => *keys += 1,
        }
    }

    /// Takes it into a state.
    pub(crate) fn restore(self, store: &mut Issues) {
        match self {
            Self::Header(header) => {
                store.restore_header(Seq::new(header.snapshot), header.without_effect)
            }
            Self::Issue(id, version, issue) => store.restore_issue(id, version, issue),
            Self::Tombstone(id, version, ts) => store.restore_tombstone(id, version, ts),
            Self::Key(key, seq) => store.restore_key(key, seq),
        }
    }
}

fn misplaced() -> CorruptReason {
    let message = "the line is neither issue, tombstone nor key".to_owned();
    CorruptReason::Snapshot { message }
}

/// The state of a snapshot that is being read.
struct Reading {
    store: Issues,
    /// Issues, tombstones, keys.
    counts: [u64; 3],
    header: Option<[u64; 3]>,
}

impl Reading {
    fn line(&mut self, line: &[u8], manifest: &Manifest) -> std::result::Result<(), CorruptReason> {
        let text = line
            .strip_suffix(b"\n")
            .ok_or(CorruptReason::Unterminated)?;
        let part = Part::parse(text)?;
        match (&part, self.header) {
            (Part::Header(header), None) => {
                self.header = Some(header.counts());
                if header.store != manifest.store {
                    let message = "it belongs to another store".to_owned();
                    return Err(CorruptReason::Snapshot { message });
                }
                if manifest.snapshot.map(|mark| mark.seq) != Some(header.snapshot) {
                    let message = format!("it says that it reflects record {}", header.snapshot);
                    return Err(CorruptReason::Snapshot { message });
                }
            }
            (Part::Header(_), Some(_)) => return Err(misplaced()),
            (_, None) => {
                let message = "it does not begin as a snapshot does".to_owned();
                return Err(CorruptReason::Snapshot { message });
            }
            (_, Some(_)) => part.count(&mut self.counts),
        }
        part.restore(&mut self.store);
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

/// What a snapshot's file holds, whatever the manifest says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) header: Option<Header<'static>>,
    /// The good lines: issues, tombstones, keys.
    pub(crate) counts: [u64; 3],
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    pub(crate) bad: Damages,
    /// There are blank lines, which no snapshot has.
    blank: bool,
}

impl Contents {
    /// Whether the file is by itself a snapshot of the records through `seq`, of this store if it is known.
    pub(crate) fn is_whole(&self, seq: u64, store: Option<&str>) -> bool {
        self.bad.is_empty()
            && !self.blank
            && self.header.as_ref().is_some_and(|header| {
                header.snapshot == seq
                    && header.counts() == self.counts
                    && store.is_none_or(|store| header.store == store)
            })
    }

    pub(crate) fn mark(&self, seq: u64) -> SnapshotMark {
        SnapshotMark {
            seq,
            bytes: self.bytes,
            crc: self.crc,
        }
    }
}

/// Reads the snapshot `name` past damaged lines, and passes the good ones to `each`.
pub(crate) fn examine(
    file: &StoreFile,
    name: &Path,
    mut each: impl FnMut(Part<'_>),
) -> Result<Contents> {
    let mut contents = Contents::default();
    let len_bytes = file.len_bytes()?;
    let mut lines = Lines::default();
    while let Some(span) = file.next_line(&mut lines)? {
        let line = lines.text(span);
        contents.blank |= span.offset != contents.bytes;
        contents.crc = crc32c::crc32c_append(contents.crc, line);
        contents.bytes += line.len() as u64;
        let first = contents.bytes == line.len() as u64;
        let is_good = |text: &[u8]| checked(text).is_ok();
        for stretch in stretches(line, is_good) {
            let text = line.get(stretch.text.clone()).unwrap_or_default();
            let parsed = match stretch.bad {
                Some(reason) => Err(reason),
                None => Part::parse(text),
            };
            let parsed = parsed.and_then(|part| match part {
                Part::Header(_) if !first => Err(misplaced()),
                part => Ok(part),
            });
            match parsed {
                Ok(part) => {
                    part.count(&mut contents.counts);
                    if let Part::Header(header) = &part {
                        contents.header = Some(Header {
                            store: Cow::Owned(header.store.clone().into_owned()),
                            ..*header
                        });
                    }
                    each(part);
                }
                Err(reason) => contents.bad.push(Damage {
                    about: about(text),
                    ..Damage::at(name, Place::of(span, &stretch.text), reason)
                }),
            }
        }
    }
    contents.blank |= contents.bytes < len_bytes;
    Ok(contents)
}

/// The id or the key in a line that is damaged elsewhere.
fn about(text: &[u8]) -> Option<String> {
    let value = [br#""id":""#.as_slice(), br#""key":""#]
        .iter()
        .find_map(|name| {
            let at = memchr::memmem::find(text, name)? + name.len();
            let rest = text.get(at..)?;
            rest.get(..memchr::memchr(b'"', rest)?)
        })?;
    let value = std::str::from_utf8(value).ok()?;
    (!value.is_empty() && value.len() <= ID_BYTES_MAX).then(|| value.to_owned())
}

fn corrupt(path: &Path, offset: u64, reason: CorruptReason) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset,
        reason,
    }
}
