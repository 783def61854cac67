//! The bytes of a snapshot: a header, and a line for each part of the state. See `docs/FORMAT.md`.

use std::{borrow::Cow, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        record::{checked, put_checksum, snapshot_name, unclosed_name},
        resync::{Damage, Damages, Place, stretches},
        seq::Seq,
    },
    issues::{
        issue::ID_BYTES_MAX,
        issues::{Entry, Issues},
    },
    state::{
        State,
        issues::{IssueLine, IssuePart},
        throttle::Throttle,
    },
    wal::{
        manifest::{Manifest, SnapshotMark},
        store_dir::{CHUNK_BYTES, StoreDir, StoreFile},
    },
};

/// The first line. That of issues, which is older than the others, has no `state` and `lines`; the
/// others have nothing behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header<'a> {
    pub(crate) snapshot: u64,
    #[serde(borrow)]
    pub(crate) store: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issues: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tombstones: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_effect: Option<u64>,
    /// Whether the keys are in the order of their bytes. Older snapshots have them in the order of
    /// their records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sorted_keys: bool,
    /// In a file of the issues that are not closed: the checksum of the snapshot beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unclosed_of: Option<u32>,
}

/// How many issues, tombstones, keys, and lines of another state there are.
pub(crate) type Counts = [u64; 4];

impl<'a> Header<'a> {
    fn of(state: &impl State, snapshot: u64, store: &'a str) -> Self {
        let header = Self {
            snapshot,
            store: Cow::Borrowed(store),
            ..Self::default()
        };
        header.with(state)
    }

    fn with<S: State>(self, state: &S) -> Self {
        match state.issue_totals() {
            Some([issues, tombstones, keys, without_effect]) => Self {
                issues: Some(issues),
                tombstones: Some(tombstones),
                keys: Some(keys),
                without_effect: Some(without_effect),
                sorted_keys: keys > 0,
                ..self
            },
            None => Self {
                state: Some(Cow::Borrowed(S::NAME)),
                lines: Some(state.lines().count() as u64),
                ..self
            },
        }
    }

    /// The lines that should follow.
    pub(crate) fn counts(&self) -> Counts {
        [self.issues, self.tombstones, self.keys, self.lines].map(Option::unwrap_or_default)
    }

    pub(crate) fn without_effect(&self) -> u64 {
        self.without_effect.unwrap_or_default()
    }

    /// Parses the header of the snapshot that the manifest names. `members` are those of `text`,
    /// which is intact.
    pub(super) fn of_live(
        text: &'a [u8],
        members: &[u8],
        manifest: &Manifest,
        mark: SnapshotMark,
    ) -> std::result::Result<Self, CorruptReason> {
        if !members.starts_with(HEADER_START) {
            return Err(wrong("it does not begin with a header"));
        }
        let header: Self = parse(text)?;
        if header.store != manifest.store {
            return Err(wrong("it belongs to another store"));
        }
        if header.snapshot != mark.seq {
            let message = format!("it says that it reflects record {}", header.snapshot);
            return Err(wrong(&message));
        }
        Ok(header)
    }

    /// Checks that the snapshot is of this state; `None` for [`crate::Issues`].
    pub(super) fn requires_state(
        &self,
        expected: Option<&str>,
    ) -> std::result::Result<(), CorruptReason> {
        if self.state.as_deref() == expected {
            return Ok(());
        }
        let name = |state: Option<&str>| match state {
            Some(name) => format!("{name:?}"),
            None => "issues".to_owned(),
        };
        let (found, expected) = (name(self.state.as_deref()), name(expected));
        let message = format!("the snapshot is of the state {found}, not {expected}");
        Err(CorruptReason::Payload { message })
    }

    fn into_owned(self) -> Header<'static> {
        Header {
            store: Cow::Owned(self.store.into_owned()),
            state: self.state.map(|state| Cow::Owned(state.into_owned())),
            ..self
        }
    }
}

/// How the text of a header begins, behind the checksum.
const HEADER_START: &[u8] = br#""snapshot":"#;

/// A line of a state that is not [`crate::Issues`], whose lines have their members side by side.
#[derive(Serialize, Deserialize)]
struct Wrapped<L> {
    line: L,
}

/// How its text begins, behind the checksum.
const WRAPPED_START: &[u8] = br#""line":"#;

/// Writes the state to a new file, and syncs it piece by piece, so that no other sync has to wait
/// for all of it.
pub(crate) fn write<S: State>(
    state: &S,
    seq: u64,
    store_id: &str,
    file: &StoreFile,
    throttle: Throttle,
) -> Result<SnapshotMark> {
    write_with(
        &Header::of(state, seq, store_id),
        state,
        seq,
        file,
        throttle,
    )
}

/// Writes the issues that are not closed into the file beside the snapshot `mark`, in its form.
pub(crate) fn write_unclosed<S: State>(
    part: &S,
    mark: SnapshotMark,
    store_id: &str,
    file: &StoreFile,
    throttle: Throttle,
) -> Result<SnapshotMark> {
    let header = Header {
        unclosed_of: Some(mark.crc),
        ..Header::of(part, mark.seq, store_id)
    };
    write_with(&header, part, mark.seq, file, throttle)
}

fn write_with<S: State>(
    header: &Header<'_>,
    state: &S,
    seq: u64,
    file: &StoreFile,
    throttle: Throttle,
) -> Result<SnapshotMark> {
    let mut out = Out {
        file,
        throttle,
        mark: SnapshotMark {
            seq,
            bytes: 0,
            crc: 0,
        },
        chunk: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
    };
    out.line(header)?;
    let wraps = state.issue_totals().is_none();
    for line in state.lines() {
        if wraps {
            out.line(&Wrapped { line })?;
        } else {
            out.line(&line)?;
        }
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

/// Reads the snapshot that the manifest names; a default state if it names none.
///
/// `None` if the file is gone: a compaction has put a later one in its place, and a later manifest.
pub(crate) fn read<S: State>(
    dir: &StoreDir,
    manifest: &Manifest,
    throttle: &mut Throttle,
) -> Result<Option<S>> {
    let Some(mark) = manifest.snapshot else {
        return Ok(Some(S::default()));
    };
    let Some(file) = open_live(dir, manifest, mark)? else {
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

/// Opens the snapshot that the manifest names; `None` if a later manifest does without it.
pub(super) fn open_live(
    dir: &StoreDir,
    manifest: &Manifest,
    mark: SnapshotMark,
) -> Result<Option<StoreFile>> {
    let name = snapshot_name(mark.seq);
    let file = dir.open_if_there(&name, OpenMode::Read)?;
    if file.is_none() && Manifest::required(dir)? == *manifest {
        let reason = wrong("the MANIFEST names it, but it does not exist");
        return Err(corrupt(&dir.path_of(&name), 0, reason));
    }
    Ok(file)
}

/// Reads the issues that are not closed from the file beside the live snapshot. `None` if it is
/// missing, damaged, or that of another snapshot.
pub(super) fn read_unclosed(
    dir: &StoreDir,
    manifest: &Manifest,
    mark: SnapshotMark,
) -> Option<Issues> {
    let file = dir.open_if_there(&unclosed_name(mark.seq), OpenMode::Read);
    let file = file.ok().flatten()?;
    let len_bytes = file.len_bytes().ok()?;
    let mut reading = Reading::<Issues>::default();
    let mut lines = Lines::default();
    let mut bytes = 0;
    while let Some(span) = file.next_line(&mut lines).ok()? {
        (span.offset == bytes).then_some(())?;
        let line = lines.text(span);
        bytes += line.len() as u64;
        reading.line(line, manifest, mark).ok()?;
    }
    let is_of_it = reading.header.as_ref()?.unclosed_of == Some(mark.crc);
    (is_of_it && bytes == len_bytes && reading.missing().is_none()).then_some(reading.state)
}

fn read_open<S: State>(
    file: &StoreFile,
    manifest: &Manifest,
    mark: SnapshotMark,
    throttle: &mut Throttle,
) -> Result<S> {
    let mut reading = Reading::<S>::default();
    let (path, len_bytes) = (file.path(), file.len_bytes()?);
    let (mut bytes, mut crc) = (0, 0);
    let mut lines = Lines::default();
    while let Some(span) = file.next_line(&mut lines)? {
        if span.offset != bytes {
            return Err(corrupt(path, bytes, wrong("this line is blank")));
        }
        let line = lines.text(span);
        crc = crc32c::crc32c_append(crc, line);
        bytes += line.len() as u64;
        throttle.did(line.len());
        reading
            .line(line, manifest, mark)
            .map_err(|reason| corrupt(path, span.offset, reason))?;
    }
    let whole = (len_bytes, bytes, crc) == (mark.bytes, mark.bytes, mark.crc);
    let message = if whole {
        reading.missing()
    } else {
        Some(format!(
            "it has {len_bytes} bytes with checksum {crc:08x}, and the MANIFEST says {} with {:08x}",
            mark.bytes, mark.crc
        ))
    };
    match message {
        None => Ok(reading.state),
        // Each line is intact, so it is not known which one is wrong.
        Some(message) => Err(corrupt(path, 0, wrong(&message))),
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(
    text: &'a [u8],
) -> std::result::Result<T, CorruptReason> {
    let message = |error| format!("the line is intact, but not part of a snapshot: {error}");
    serde_json::from_slice(text).map_err(|error| wrong(&message(error)))
}

/// A snapshot that is being read.
#[derive(Default)]
struct Reading<S> {
    header: Option<Header<'static>>,
    state: S,
    lines: u64,
}

impl<S: State> Reading<S> {
    fn line(
        &mut self,
        line: &[u8],
        manifest: &Manifest,
        mark: SnapshotMark,
    ) -> std::result::Result<(), CorruptReason> {
        let text = line
            .strip_suffix(b"\n")
            .ok_or(CorruptReason::Unterminated)?;
        let members = checked(text)?;
        if let Some(header) = &self.header {
            let line = match &header.state {
                Some(_) => parse::<Wrapped<S::Line>>(text)?.line,
                None => parse(text)?,
            };
            self.state.restore(line);
            self.lines += 1;
            return Ok(());
        }
        let header = Header::of_live(text, members, manifest, mark)?;
        let expected = Header::default().with(&self.state).state;
        header.requires_state(expected.as_deref())?;
        self.state
            .restore_issue_totals(Seq::new(header.snapshot), header.without_effect());
        self.header = Some(header.into_owned());
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let said = self.header.as_ref().map(Header::counts).unwrap_or_default();
        let found = match self.state.issue_totals() {
            Some([issues, tombstones, keys, _]) => [issues, tombstones, keys, 0],
            None => [0, 0, 0, self.lines],
        };
        let is_whole =
            self.header.is_some() && said == found && said.iter().sum::<u64>() == self.lines;
        (!is_whole).then(|| {
            format!(
                "it has {found:?} issues, tombstones, keys and other lines, and its first line \
                 says {said:?}"
            )
        })
    }
}

pub(super) fn wrong(message: &str) -> CorruptReason {
    let message = message.to_owned();
    CorruptReason::Snapshot { message }
}

/// A line, whatever its state.
pub(crate) enum Part<'a> {
    Header(Header<'a>),
    Issues(IssueLine),
    /// A line of another state.
    Other,
}

impl<'a> Part<'a> {
    /// Reads a line without its newline.
    fn parse(text: &'a [u8]) -> std::result::Result<Self, CorruptReason> {
        let members = checked(text)?;
        if members.starts_with(HEADER_START) {
            parse(text).map(Self::Header)
        } else if members.starts_with(WRAPPED_START) {
            Ok(Self::Other)
        } else {
            parse(text).map(Self::Issues)
        }
    }

    /// Restores it in a state of issues.
    pub(crate) fn restore(self, issues: &mut Issues) {
        match self {
            Self::Header(header) => {
                issues.restore_header(Seq::new(header.snapshot), header.without_effect());
            }
            Self::Issues(line) => issues.restore(line),
            Self::Other => {}
        }
    }

    /// Counts it, unless it is a header.
    fn count(&self, [issues, tombstones, keys, others]: &mut Counts) {
        match self {
            Self::Header(_) => {}
            Self::Issues(IssueLine(IssuePart::Entry(_, Entry::Present { .. }))) => *issues += 1,
            Self::Issues(IssueLine(IssuePart::Entry(_, Entry::Deleted { .. }))) => *tombstones += 1,
            Self::Issues(IssueLine(IssuePart::Key(..))) => *keys += 1,
            Self::Other => *others += 1,
        }
    }
}

/// The contents of a snapshot's file, whatever the manifest says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) header: Option<Header<'static>>,
    /// The intact lines.
    pub(crate) counts: Counts,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    pub(crate) bad: Damages,
    /// Whether there are blank lines, which no snapshot has.
    blank: bool,
}

impl Contents {
    /// Whether the file is by itself a snapshot of the records through `seq`, of this store if it
    /// is known.
    pub(crate) fn is_whole(&self, seq: u64, store: Option<&str>) -> bool {
        self.bad.is_empty()
            && !self.blank
            && self.header.as_ref().is_some_and(|header| {
                header.snapshot == seq
                    && header.counts() == self.counts
                    && store.is_none_or(|store| header.store == store)
            })
    }

    /// Whether it is a snapshot of a state other than [`crate::Issues`].
    pub(crate) fn is_of_other_state(&self) -> bool {
        let [.., others] = self.counts;
        others > 0 || matches!(&self.header, Some(header) if header.state.is_some())
    }

    pub(crate) fn mark(&self, seq: u64) -> SnapshotMark {
        SnapshotMark {
            seq,
            bytes: self.bytes,
            crc: self.crc,
        }
    }
}

/// Reads the snapshot `name` past damaged lines, and passes the intact ones to `each`.
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
                Part::Header(_) if !first => Err(wrong("this header is not the first line")),
                part => Ok(part),
            });
            match parsed {
                Ok(part) => {
                    part.count(&mut contents.counts);
                    if let Part::Header(header) = &part {
                        contents.header = Some(header.clone().into_owned());
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

/// The id or the key in a damaged line.
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

pub(super) fn corrupt(path: &Path, offset: u64, reason: CorruptReason) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset,
        reason,
    }
}
