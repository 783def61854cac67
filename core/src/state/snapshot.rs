//! The bytes of a snapshot: files with a header, and a line for each part of the state. The first,
//! the base, has all of the state; each run behind it has what changed since. See `docs/FORMAT.md`.

use std::{borrow::Cow, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use strand_lock::crc32c_append;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        lines::Lines,
        members::{closing, plain_string},
        record::{Reflects, SEQ_MAX, checked, put_checksum, recent_name, unclosed_name},
        resync::{Damage, Damages, Place, stretches},
        search::{self, Finder},
        seq::Seq,
    },
    issues::{
        index::Facts,
        issue::{ID_BYTES_MAX, Issue},
        issues::{Entry, Issues},
        version::Version,
    },
    state::{
        State,
        index::{BlockEnd, Last},
        issues::{IssueLine, IssuePart, Item},
        throttle::Throttle,
    },
    wal::{
        manifest::{Manifest, SnapshotFile, SnapshotMark},
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
    /// In a run: the last record of the file before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// In a run: how many issues there are, in the files before it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_issues: Option<u64>,
    /// In a file of the issues that are not closed: the checksum of the last file of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unclosed_of: Option<u32>,
    /// In one of a record behind the snapshot: where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<LogPlace>,
}

/// The last record of a block of an index: where it begins in the segment, and its checksum; where
/// the block ends in the index, and the checksum there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct LogPlace {
    offset: u64,
    crc: u32,
    index_bytes: u64,
    index_crc: u32,
}

impl LogPlace {
    fn of(end: &BlockEnd) -> Self {
        Self {
            offset: end.last.offset,
            crc: end.last.crc,
            index_bytes: end.index_bytes,
            index_crc: end.index_crc,
        }
    }
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

    /// That of a base of issues.
    pub(super) fn of_issues(snapshot: u64, store: &'a str, totals: [u64; 4]) -> Self {
        let header = Self {
            snapshot,
            store: Cow::Borrowed(store),
            ..Self::default()
        };
        header.with_totals(totals)
    }

    /// With the numbers of issues, tombstones, keys and events without effect.
    fn with_totals(self, [issues, tombstones, keys, without_effect]: [u64; 4]) -> Self {
        Self {
            issues: Some(issues),
            tombstones: Some(tombstones),
            keys: Some(keys),
            without_effect: Some(without_effect),
            sorted_keys: keys > 0,
            ..self
        }
    }

    fn with<S: State>(self, state: &S) -> Self {
        match state.issue_totals() {
            Some(totals) => self.with_totals(totals),
            None => Self {
                state: Some(Cow::Borrowed(S::NAME)),
                lines: Some(state.lines().count() as u64),
                ..self
            },
        }
    }

    /// Which records the file reflects.
    pub(crate) fn reflects(&self) -> Reflects {
        Reflects {
            after: self.after.unwrap_or_default(),
            through: self.snapshot,
        }
    }

    /// How many issues there are in this file and those before it.
    pub(super) fn all_issues(&self) -> u64 {
        self.all_issues.or(self.issues).unwrap_or_default()
    }

    /// The lines that should follow.
    pub(crate) fn counts(&self) -> Counts {
        [self.issues, self.tombstones, self.keys, self.lines].map(Option::unwrap_or_default)
    }

    pub(crate) fn without_effect(&self) -> u64 {
        self.without_effect.unwrap_or_default()
    }

    /// Parses the header of a file of the snapshot that the manifest names. `members` are those of
    /// `text`, which is intact.
    pub(super) fn of_live(
        text: &'a [u8],
        members: &[u8],
        manifest: &Manifest,
        reflects: Reflects,
    ) -> std::result::Result<Self, CorruptReason> {
        let header = Self::of_store(text, members, manifest)?;
        if header.reflects() != reflects {
            let Reflects { after, through } = header.reflects();
            let message = format!(
                "it says that it reflects records {} to {through}",
                after + 1
            );
            return Err(wrong(&message));
        }
        Ok(header)
    }

    /// As [`Header::of_live`], whatever records the file reflects.
    fn of_store(
        text: &'a [u8],
        members: &[u8],
        manifest: &Manifest,
    ) -> std::result::Result<Self, CorruptReason> {
        if !members.starts_with(HEADER_START) {
            return Err(wrong("it does not begin with a header"));
        }
        let header: Self = parse(text)?;
        if header.store != manifest.store {
            return Err(wrong("it belongs to another store"));
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

/// Writes a base, which has all of the state, to a new file. Syncs it piece by piece, so that no
/// other sync has to wait for all of it.
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

/// As [`write`], but writes a run: `part` has what changed behind the record `after`.
pub(crate) fn write_run(
    part: &Issues,
    reflects: Reflects,
    all_issues: u64,
    store_id: &str,
    file: &StoreFile,
    throttle: Throttle,
) -> Result<SnapshotMark> {
    let header = Header {
        after: Some(reflects.after),
        all_issues: Some(all_issues),
        ..Header::of(part, reflects.through, store_id)
    };
    write_with(&header, part, reflects.through, file, throttle)
}

/// Writes the issues that are not closed into the file beside the snapshot through `mark`, in the
/// form of a base.
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

/// As [`write_unclosed`], of the state after the last record of a block behind this snapshot. Does
/// not sync it. Leaves out all but the first line if it were longer than that.
pub(super) fn write_recent(
    part: &Issues,
    manifest: &Manifest,
    end: &BlockEnd,
    bytes_max: usize,
    file: &StoreFile,
) -> Result<()> {
    let header = Header {
        unclosed_of: manifest.files().last().map(|file| file.mark.crc),
        log: Some(LogPlace::of(end)),
        ..Header::of(part, end.seq, &manifest.store)
    };
    let mut text = Vec::new();
    let failed = |error: serde_json::Error| Error::io("write", file.path())(error.into());
    push_line(&mut text, &header).map_err(failed)?;
    let first = text.len();
    for (id, entry) in part.entries() {
        push_line(&mut text, &Item::with_facts(id, entry)).map_err(failed)?;
        if text.len() > bytes_max {
            text.truncate(first);
            break;
        }
    }
    file.write(&text, 0)
}

fn write_with<S: State>(
    header: &Header<'_>,
    state: &S,
    seq: u64,
    file: &StoreFile,
    mut throttle: Throttle,
) -> Result<SnapshotMark> {
    let mut out = Out::new(file, seq);
    out.line(header)?;
    throttle.did(out.chunk.len());
    let wraps = state.issue_totals().is_none();
    for line in state.lines() {
        let bytes = if wraps {
            out.line(&Wrapped { line })?
        } else {
            out.line(&line)?
        };
        throttle.did(bytes);
    }
    out.flush()?;
    Ok(out.mark)
}

/// Adds a line, with its checksum and its newline.
fn push_line(text: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    let start = text.len();
    text.extend_from_slice(br#"{"crc":"00000000","#);
    let members = text.len();
    serde_json::to_writer(&mut *text, value)?;
    text.remove(members); // The object's own opening brace.
    put_checksum(text.get_mut(start..).unwrap_or_default());
    text.push(b'\n');
    Ok(())
}

/// A file of a snapshot that is written, line by line.
pub(super) struct Out<'a> {
    file: &'a StoreFile,
    /// Of what is in the file; of all, once it is flushed.
    pub(super) mark: SnapshotMark,
    chunk: Vec<u8>,
}

impl<'a> Out<'a> {
    pub(super) fn new(file: &'a StoreFile, seq: u64) -> Self {
        Self {
            file,
            mark: SnapshotMark {
                seq,
                bytes: 0,
                crc: 0,
            },
            chunk: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
        }
    }

    /// Returns the line's length.
    pub(super) fn line(&mut self, value: &impl Serialize) -> Result<usize> {
        let start = self.chunk.len();
        push_line(&mut self.chunk, value)
            .map_err(|error| Error::io("write", self.file.path())(error.into()))?;
        let bytes = self.chunk.len() - start;
        self.flush_if_long()?;
        Ok(bytes)
    }

    /// Copies a line of another file, with its newline.
    pub(super) fn copy(&mut self, line: &[u8]) -> Result<()> {
        self.chunk.extend_from_slice(line);
        self.flush_if_long()
    }

    fn flush_if_long(&mut self) -> Result<()> {
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.write(&self.chunk, self.mark.bytes)?;
        self.mark.crc = crc32c_append(self.mark.crc, &self.chunk);
        self.mark.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        self.file.sync()
    }
}

/// Reads the snapshot that the manifest names; a default state if it names none.
///
/// `None` if a file is gone: a compaction has put a later one in its place, and a later manifest.
pub(crate) fn read<S: State>(
    dir: &StoreDir,
    manifest: &Manifest,
    throttle: &mut Throttle,
) -> Result<Option<S>> {
    let files = manifest.files();
    let Some((state, said)) = read_over(S::default(), dir, manifest, &files, throttle)? else {
        return Ok(None);
    };
    let found = state.issue_totals().map(|[issues, ..]| issues);
    if let (Some(found), Some(said), Some(last)) = (found, said, files.last())
        && found != said
    {
        let message = format!("there are {found} issues in all files, and it says {said}");
        return Err(corrupt(&dir.path_of(&last.name()), 0, wrong(&message)));
    }
    Ok(Some(state))
}

/// Reads these files of the snapshot over a state of the files before them. Also returns how many
/// issues there are in the end, if the last file says it of all files.
pub(super) fn read_over<S: State>(
    mut state: S,
    dir: &StoreDir,
    manifest: &Manifest,
    files: &[SnapshotFile],
    throttle: &mut Throttle,
) -> Result<Option<(S, Option<u64>)>> {
    let mut open = Vec::new();
    for named in files {
        let Some(file) = open_live(dir, manifest, *named)? else {
            return Ok(None);
        };
        open.push((named, file));
    }
    let mut all_issues = None;
    for (named, file) in open {
        (state, all_issues) = match read_open(state, &file, manifest, *named, throttle) {
            // A repair may have replaced both.
            Err(error @ Error::Corrupt { .. }) => match Manifest::read(dir) {
                Ok(Some(now)) if now != *manifest => return Ok(None),
                _ => return Err(error),
            },
            read => read?,
        };
    }
    Ok(Some((state, all_issues)))
}

/// Whether the snapshot that the manifest names is of [`crate::Issues`].
pub(super) fn is_of_issues(dir: &StoreDir, manifest: &Manifest) -> Result<bool> {
    let Some(base) = manifest.files().first().copied() else {
        return Ok(true);
    };
    let Some(file) = open_live(dir, manifest, base)? else {
        return Ok(false); // A compaction has just replaced it.
    };
    let mut lines = Lines::default();
    let Some(span) = file.next_line(&mut lines)? else {
        return Ok(false);
    };
    let text = lines.text(span);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let header = checked(text).and_then(|_| parse::<Header<'_>>(text));
    Ok(header.is_ok_and(|header| header.state.is_none()))
}

/// Opens a file of the snapshot that the manifest names; `None` if a later manifest does without
/// it.
pub(super) fn open_live(
    dir: &StoreDir,
    manifest: &Manifest,
    named: SnapshotFile,
) -> Result<Option<StoreFile>> {
    let name = named.name();
    let file = dir.open_if_there(&name, OpenMode::Read)?;
    if file.is_none() && Manifest::required(dir)? == *manifest {
        let reason = wrong("the MANIFEST names it, but it does not exist");
        return Err(corrupt(&dir.path_of(&name), 0, reason));
    }
    Ok(file)
}

/// A file of the issues that are not closed, of which the first line is read.
pub(super) struct UnclosedFile {
    file: StoreFile,
    lines: Lines,
    header: Header<'static>,
    /// Where the first line ends.
    begin: u64,
}

impl UnclosedFile {
    /// Opens that of a record behind the snapshot that the manifest names, in this segment. `None`
    /// if it is missing, damaged at its beginning, or that of another snapshot.
    pub(super) fn open_recent(dir: &StoreDir, manifest: &Manifest, segment: u64) -> Option<Self> {
        let of = manifest.files().last().map(|file| file.mark.crc);
        Self::open(dir, manifest, &recent_name(segment), of)
    }

    fn open(dir: &StoreDir, manifest: &Manifest, name: &str, of: Option<u32>) -> Option<Self> {
        let file = dir.open_if_there(name, OpenMode::Read).ok().flatten()?;
        let mut lines = Lines::default();
        let span = file.next_line(&mut lines).ok()??;
        let text = lines.text(span).strip_suffix(b"\n")?;
        let header = Header::of_store(text, checked(text).ok()?, manifest).ok()?;
        header.requires_state(None).ok()?;
        let is_of_it = span.offset == 0 && header.unclosed_of == of;
        let header = header.into_owned();
        is_of_it.then_some(Self {
            file,
            lines,
            header,
            begin: span.end(),
        })
    }

    /// The record through which it goes, with which a block of the index of its segment ends.
    pub(super) fn block_end(&self, segment: u64) -> Option<BlockEnd> {
        /// Sums of lengths do not come near the largest number.
        const BYTES_MAX: u64 = u64::MAX / 4;
        let LogPlace {
            offset,
            crc,
            index_bytes,
            index_crc,
        } = self.header.log?;
        let seq = self.header.snapshot;
        let is_place = segment <= seq && seq <= SEQ_MAX && offset.max(index_bytes) <= BYTES_MAX;
        is_place.then_some(BlockEnd {
            segment,
            seq,
            last: Last { offset, crc },
            index_bytes,
            index_crc,
        })
    }

    /// Reads the issues that are wanted. `None` if the file is not whole.
    pub(super) fn read(mut self, is_wanted: impl Fn(&str) -> bool) -> Option<Issues> {
        let len_bytes = self.file.len_bytes().ok()?;
        let [said, tombstones, keys, others] = self.header.counts();
        let (mut entries, mut known) = (Vec::new(), Vec::new());
        let (mut bytes, mut count) = (self.begin, 0);
        while let Some(span) = self.file.next_line(&mut self.lines).ok()? {
            (span.offset == bytes).then_some(())?;
            let line = self.lines.text(span);
            bytes += line.len() as u64;
            let text = line.strip_suffix(b"\n")?;
            let members = checked(text).ok()?;
            count += 1;
            if let Some(line) = PlainIssue::of(members) {
                if is_wanted(line.id) {
                    known.extend(line.facts());
                    entries.push((line.id.into(), line.entry()));
                }
            } else {
                match parse::<IssueLine>(text).ok()?.0 {
                    IssuePart::Entry(id, entry) => entries.push((id.into(), entry)),
                    IssuePart::Key(..) => return None,
                }
            }
        }
        let is_whole = bytes == len_bytes && said + tombstones == count && keys + others == 0;
        let is_sorted = entries.is_sorted_by(|(a, _), (b, _)| a < b);
        (is_whole && is_sorted).then_some(())?;
        let mut issues = Issues::of_entries(entries, known);
        issues.restore_header(Seq::new(self.header.snapshot), self.header.without_effect());
        Some(issues)
    }
}

/// A line of an issue, in the layout that this crate writes.
struct PlainIssue<'a> {
    id: &'a str,
    version: u64,
    facts: Option<&'a str>,
    issue: &'a str,
}

impl<'a> PlainIssue<'a> {
    /// `members` are those behind the checksum.
    fn of(members: &'a [u8]) -> Option<Self> {
        let (id, rest) = plain_id(members)?;
        let rest = std::str::from_utf8(rest).ok()?;
        let (version, rest) = rest.strip_prefix(r#","version":"#)?.split_once(',')?;
        let (facts, rest) = match rest.strip_prefix(r#""facts":{"#) {
            Some(facts) => {
                let end = closing(facts.as_bytes())? + 1;
                let facts = rest.get(..rest.len() - facts.len() + end)?;
                let rest = rest.get(facts.len()..)?.strip_prefix(',')?;
                (facts.strip_prefix(r#""facts":"#), rest)
            }
            None => (None, rest),
        };
        let issue = rest.strip_prefix(r#""issue":"#)?.strip_suffix('}')?;
        issue.starts_with('{').then_some(Self {
            id,
            version: version.parse().ok()?,
            facts,
            issue,
        })
    }

    fn entry(&self) -> Entry {
        Entry::Present {
            issue: Issue::unchanged(self.issue),
            version: Version::new(self.version),
        }
    }

    fn facts(&self) -> Option<(Arc<str>, Option<Box<Facts>>)> {
        let facts = Box::new(Facts::written(self.facts?));
        Some((self.id.into(), Some(facts)))
    }
}

/// Reads the issues that are not closed after the records of this file of the live snapshot and
/// those before it, and that are wanted. `None` if the file of them is missing, damaged, or that of
/// another snapshot.
pub(super) fn read_unclosed(
    dir: &StoreDir,
    manifest: &Manifest,
    mark: SnapshotMark,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<Issues> {
    let file = UnclosedFile::open(dir, manifest, &unclosed_name(mark.seq), Some(mark.crc))?;
    let is_of_it = file.header.reflects() == Reflects::all(mark.seq) && file.header.log.is_none();
    is_of_it.then(|| file.read(is_wanted)).flatten()
}

/// The id, or the key, of a line of issues in the layout that this crate writes; whether it is the
/// key. `members` are those behind the checksum.
pub(super) fn plain_name(members: &[u8]) -> Option<(bool, &str)> {
    if let Some((id, _)) = plain_id(members) {
        return Some((false, id));
    }
    let (key, _) = plain_string(members.strip_prefix(br#""key":"#)?)?;
    Some((true, key))
}

/// The id of a line of issues in that layout, and what follows.
pub(super) fn plain_id(members: &[u8]) -> Option<(&str, &[u8])> {
    plain_string(members.strip_prefix(br#""id":"#)?)
}

/// Also returns how many issues the file says there are in all files through it.
fn read_open<S: State>(
    state: S,
    file: &StoreFile,
    manifest: &Manifest,
    named: SnapshotFile,
    throttle: &mut Throttle,
) -> Result<(S, Option<u64>)> {
    let mark = named.mark;
    let mut reading = Reading {
        state,
        ..Reading::default()
    };
    let (path, len_bytes) = (file.path(), file.len_bytes()?);
    let (mut bytes, mut crc) = (0, 0);
    let mut lines = Lines::default();
    while let Some(span) = file.next_line(&mut lines)? {
        if span.offset != bytes {
            return Err(corrupt(path, bytes, wrong("this line is blank")));
        }
        let line = lines.text(span);
        crc = crc32c_append(crc, line);
        bytes += line.len() as u64;
        throttle.did(line.len());
        reading
            .line(line, manifest, named.reflects())
            .map_err(|reason| corrupt(path, span.offset, reason))?;
    }
    let message = not_whole(mark, len_bytes, bytes, crc).or_else(|| reading.missing());
    match message {
        None => {
            let all_issues = reading.header.as_ref().map(Header::all_issues);
            Ok((reading.state, all_issues))
        }
        // Each line is intact, so it is not known which one is wrong.
        Some(message) => Err(corrupt(path, 0, wrong(&message))),
    }
}

/// What is wrong with a file that has these bytes in its lines, and this checksum over them.
pub(super) fn not_whole(
    mark: SnapshotMark,
    len_bytes: u64,
    bytes: u64,
    crc: u32,
) -> Option<String> {
    let is_whole = (len_bytes, bytes, crc) == (mark.bytes, mark.bytes, mark.crc);
    (!is_whole).then(|| {
        format!(
            "it has {len_bytes} bytes with checksum {crc:08x}, and the MANIFEST says {} with {:08x}",
            mark.bytes, mark.crc
        )
    })
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
        reflects: Reflects,
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
        let header = Header::of_live(text, members, manifest, reflects)?;
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
        // Otherwise, the state is that of the files before it, too.
        let is_base = matches!(&self.header, Some(header) if header.reflects().is_base());
        let is_whole = self.header.is_some()
            && (said == found || !is_base)
            && said.iter().sum::<u64>() == self.lines;
        (!is_whole).then(|| {
            format!(
                "it has {} lines, with those before it {found:?} issues, tombstones, keys and \
                 other lines, and its first line says {said:?}",
                self.lines
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
    /// Whether the file is by itself a file of a snapshot that reflects these records, of this
    /// store if it is known.
    pub(crate) fn is_whole(&self, reflects: Reflects, store: Option<&str>) -> bool {
        self.bad.is_empty()
            && !self.blank
            && self.header.as_ref().is_some_and(|header| {
                header.reflects() == reflects
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
        contents.crc = crc32c_append(contents.crc, line);
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
            let at = Finder::new(*name).find(text)? + name.len();
            let rest = text.get(at..)?;
            rest.get(..search::byte(b'"', rest)?)
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
