//! Issues as JSON lines: the file that people commit to git, and other tools read.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{self, BufRead, BufWriter, Read as _, Seek, Write},
    path::Path,
};

use serde_json::value::RawValue;
use strand_lock::files;

use crate::{
    error::{Error, InvalidEvent, Result},
    format::{record::RECORD_BYTES_MAX, seq::Seq},
    issues::{
        event::IssueEvent,
        issue::{ID_BYTES_MAX, Issue},
        issues::Issues,
        timestamp::Timestamp,
    },
    write::batch::Batch,
    write::issue_log::IssueLog,
};

/// So much text of issues goes into one record.
const BATCH_BYTES: usize = 1 << 20;
/// What a record has beside an issue's text, at most: the frame, and the event with an id that is escaped.
const FRAME_BYTES_MAX: usize = 2048;
/// A longer line does not fit into a record.
const LINE_BYTES_MAX: usize = RECORD_BYTES_MAX - FRAME_BYTES_MAX;
const _: () = assert!(FRAME_BYTES_MAX >= ID_BYTES_MAX * r"\u0000".len() + 256);
/// So many bad lines are told of; the others are counted.
const BAD_LINES_MAX: usize = 100;

/// Writes all issues as JSON lines: in the order of their ids (by bytes), each exactly as it is stored. The
/// same state gives the same bytes. In an issue of several lines, which no log holds, spaces take the place of line ends.
///
/// # Errors
/// The writer's.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp, write_jsonl};
///
/// let now = Timestamp::now();
/// let mut store = Issues::default();
/// let issue = Issue::from_json(r#"{"id":"bd-1","title":"Mend the fence","x":1.10}"#)?;
/// store.apply(Seq::new(1), IssueEvent::add(issue, now))?;
/// let mut out = Vec::new();
/// write_jsonl(&store, &mut out)?;
/// assert_eq!(out, b"{\"id\":\"bd-1\",\"title\":\"Mend the fence\",\"x\":1.10}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_jsonl(store: &Issues, out: &mut impl Write) -> io::Result<()> {
    for (_, issue) in store.iter() {
        out.write_all(on_one_line(issue.as_json()).as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// An issue's text without line ends. They can't stand inside a JSON string, so that they are only white space.
fn on_one_line(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.replace(['\n', '\r'], " "))
    }
}

/// Replaces the file at `path` by the issues as JSON lines, see [`write_jsonl`]; answers how many there are.
///
/// The file is written under another name in the same directory, synced and renamed, so that there is always
/// the old one or the new one. An existing file keeps its permissions; of a symbolic link, the file that it
/// leads to is replaced. Blocks for two syncs of the disk. A process that is killed meanwhile leaves the other file behind.
///
/// # Errors
/// [`Error::Io`]: the old file is as it was, and no other is left behind. Where the directory could not be synced, which the
/// error names, the new file is there, but a loss of power may bring back the old one.
///
/// ```
/// use strand_core::{IssueLog, Issue, Issues, Options, Timestamp, export};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// let file = dir.path().join("issues.jsonl");
/// assert_eq!(export(&Issues::load(dir.path())?, &file)?, 1);
/// assert!(std::fs::read_to_string(&file)?.starts_with(r#"{"id":"bd-1","#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export(store: &Issues, path: impl AsRef<Path>) -> Result<u64> {
    let path = path.as_ref();
    replace_atomically(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_jsonl(store, &mut out)?;
        out.flush()
    })?;
    Ok(store.len() as u64)
}

/// Writes a file beside `path`, and puts it in its place when it is whole and durable.
pub(crate) fn replace_atomically(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(
        ".{}.new",
        crate::wal::manifest::random_id(&crate::env::system::ThisMachine)
    ));
    let new = dir.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        if let Ok(old) = path.metadata() {
            file.set_permissions(old.permissions())?;
        }
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        files::rename(&new, path)
    })();
    if let Err(error) = written {
        std::fs::remove_file(&new).ok();
        return Err(Error::io("write", path)(error));
    }
    files::sync_dir(dir).map_err(Error::io("sync", dir))
}

/// What an import does with an issue whose id is there already; see [`ImportOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Existing {
    /// The line takes its place, unless both are the same to the byte.
    #[default]
    Replace,
    /// It stays as it is.
    Keep,
    /// Nothing is imported.
    Refuse,
}

/// How [`IssueLog::import`] works.
///
/// ```
/// use std::io::Cursor;
/// use strand_core::{IssueLog, Existing, ImportOptions, Issue, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the gate\"}\nno issue\n";
/// let options = ImportOptions::new(now).existing(Existing::Keep).skip_bad_lines(true);
/// let imported = log.import(&mut Cursor::new(lines), options)?;
/// assert_eq!((imported.unchanged, imported.bad.count, imported.bad.first[0].line), (1, 1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The time of the events.
    pub ts: Timestamp,
    /// What becomes of issues that exist. Default: they are replaced.
    pub existing: Existing,
    /// Import the good lines although there are bad ones. Default: false.
    pub skip_bad_lines: bool,
}

impl ImportOptions {
    /// The default, with events of this time.
    #[must_use]
    pub fn new(ts: Timestamp) -> Self {
        Self {
            ts,
            existing: Existing::default(),
            skip_bad_lines: false,
        }
    }

    /// Sets [`ImportOptions::existing`].
    #[must_use]
    pub fn existing(self, existing: Existing) -> Self {
        Self { existing, ..self }
    }

    /// Sets [`ImportOptions::skip_bad_lines`].
    #[must_use]
    pub fn skip_bad_lines(self, skip_bad_lines: bool) -> Self {
        Self {
            skip_bad_lines,
            ..self
        }
    }
}

/// What an import did: the answer of [`IssueLog::import`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Lines that were not blank.
    pub lines: u64,
    /// Issues that were not there.
    pub added: u64,
    /// Issues that were there, and are as their lines say now.
    pub replaced: u64,
    /// Issues that were there, and are as before.
    pub unchanged: u64,
    /// Lines that are no issue, passed over on demand.
    pub bad: BadLines,
    /// The last record that was written, if any was.
    pub last_seq: Option<Seq>,
}

/// Lines that are no issue: see [`ImportOptions`] and [`ImportError`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadLines {
    /// How many there are.
    pub count: u64,
    /// The first hundred.
    pub first: Vec<BadLine>,
}

/// A line that is no issue: see [`ImportOptions`] and [`ImportError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for BadLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines are no issues", self.count)?;
        for BadLine { line, reason } in &self.first {
            write!(f, "; line {line}: {reason}")?;
        }
        if self.count > self.first.len() as u64 {
            write!(f, "; …")?;
        }
        Ok(())
    }
}

impl BadLines {
    fn push(&mut self, line: u64, reason: String) {
        self.count += 1;
        if self.first.len() < BAD_LINES_MAX {
            self.first.push(BadLine { line, reason });
        }
    }
}

/// Why an import ended. Each variant says what was imported before.
///
/// ```
/// use std::io::Cursor;
/// use strand_core::{IssueLog, ImportError, ImportOptions, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\nno issue\n";
/// match log.import(&mut Cursor::new(lines), ImportOptions::new(now)) {
///     Err(ImportError::BadLines(bad)) => assert_eq!(bad.first[0].line, 2), // Nothing was imported.
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The input could not be read. What was imported before is whole.
    #[error("cannot read the lines to import")]
    Read(#[from] io::Error),
    /// Somebody changed the input between its two readings. What was imported before is whole, and was checked.
    #[error(
        "line {line} is not what it was when it was checked; leave the input alone and import again \
         ({} issues of earlier lines were imported)", before.added + before.replaced
    )]
    Changed {
        /// The number of the first line that is different, from 1.
        line: u64,
        /// What was imported before.
        before: Box<Imported>,
    },
    /// There are lines that are no issue. Nothing was imported.
    #[error("{0}; nothing was imported")]
    BadLines(BadLines),
    /// There are issues that should not exist yet.
    #[error(
        "line {line}: there is an issue {id:?} already; {} issues of earlier lines were imported", before.added
    )]
    Exists {
        /// The line's number, from 1.
        line: u64,
        /// The id.
        id: String,
        /// What was imported before; nothing, unless somebody else created the issue meanwhile.
        before: Box<Imported>,
    },
    /// The log failed. Import again to complete it: what is there is not written again.
    #[error("the import ended after {} issues", before.added + before.replaced)]
    Log {
        /// How.
        #[source]
        source: Error,
        /// What was imported before.
        before: Box<Imported>,
    },
}

impl IssueLog {
    /// Imports issues from JSON lines, each an object with `id` and `title`.
    ///
    /// All or nothing, unless [`ImportOptions::skip_bad_lines`] is set: the input is read once to check it, and again
    /// to write it, so that memory holds no more than the ids and the state. What is written are batches of about 1 MiB, each of
    /// them whole or not at all; an import that is killed leaves some of them, and importing again completes it.
    ///
    /// Each issue is stored as its line says, to the byte, without the white space around it: unknown fields,
    /// order, the spelling of numbers and escapes. Only a carriage return between tokens becomes a space. A name that stands twice in an object is kept twice, and the
    /// last one counts. Blank lines and a byte order mark at the beginning are passed over. Bad is a line that is no JSON
    /// object with `id` and `title`, is not UTF-8, is longer than 4,192,256 bytes, or has the id of an earlier line.
    /// A deleted issue counts as one that is not there.
    ///
    /// Blocks as [`crate::Log::append`] does for each batch, and each is as durable as [`crate::Options::durability`] says.
    ///
    /// # Errors
    /// [`ImportError`].
    ///
    /// ```
    /// use std::io::Cursor;
    /// use strand_core::{IssueLog, ImportOptions, Issues, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\n";
    /// let imported = log.import(&mut Cursor::new(lines), ImportOptions::new(now))?;
    /// assert_eq!((imported.added, imported.unchanged), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import(
        &self,
        input: &mut (impl BufRead + Seek),
        options: ImportOptions,
    ) -> std::result::Result<Imported, ImportError> {
        let start = input.stream_position()?;
        let (mut imported, checked) = self.check(input, options)?;
        input.seek(io::SeekFrom::Start(start))?;
        let mut checked = checked.into_iter();
        let mut lines = IssueLines::default();
        let mut pending: Vec<(u64, Issue)> = Vec::new();
        let mut bytes = 0;
        while let Some((number, issue)) = lines.next(input)? {
            let Ok(issue) = issue else { continue };
            let expected = checked.next();
            if expected != Some(Checked::new(number, &issue)) {
                let line = expected.map_or(number, |checked| checked.line.min(number));
                return Err(changed(line, imported));
            }
            let len = issue.as_json().len();
            if bytes + len > BATCH_BYTES {
                self.import_some(&pending, options, &mut imported)?;
                pending.clear();
                bytes = 0;
            }
            bytes += len + 64; // The event around it.
            pending.push((number, issue));
        }
        if let Some(missing) = checked.next() {
            return Err(changed(missing.line, imported));
        }
        self.import_some(&pending, options, &mut imported)?;
        Ok(imported)
    }

    /// The first reading: what is wrong with the lines, whether any of them may be imported, and which.
    fn check(
        &self,
        input: &mut impl BufRead,
        options: ImportOptions,
    ) -> std::result::Result<(Imported, Vec<Checked>), ImportError> {
        let mut imported = Imported::default();
        let mut checked = Vec::new();
        let mut lines = IssueLines::default();
        let mut exists = None;
        while let Some((line, issue)) = lines.next(input)? {
            imported.lines += 1;
            checked.extend(issue.as_ref().ok().map(|issue| Checked::new(line, issue)));
            match issue {
                Err(reason) => imported.bad.push(line, reason),
                Ok(issue) if options.existing == Existing::Refuse && exists.is_none() => {
                    let id = issue.id();
                    let found = self.with_issues(|store| store.get(&id).is_some());
                    if found.map_err(|source| failed(source, &imported))? {
                        exists = Some((line, id));
                    }
                }
                Ok(_) => {}
            }
        }
        if imported.bad.count > 0 && !options.skip_bad_lines {
            return Err(ImportError::BadLines(imported.bad));
        }
        match exists {
            Some((line, id)) => Err(ImportError::Exists {
                line,
                id,
                before: Box::new(imported),
            }),
            None => Ok((imported, checked)),
        }
    }

    /// Writes some issues as one record.
    fn import_some(
        &self,
        issues: &[(u64, Issue)],
        options: ImportOptions,
        imported: &mut Imported,
    ) -> std::result::Result<(), ImportError> {
        loop {
            let mut batch = Batch::new(options.ts);
            let mut done = imported.clone();
            let written = self.with_issues(|store| {
                for (_, issue) in issues {
                    match store.get(&issue.id()) {
                        Some(old) if options.existing == Existing::Replace && old != issue => {
                            done.replaced += 1;
                            // `add`, and not `update`: it is stored also if somebody deletes the old one now.
                            batch.add(IssueEvent::add(issue.clone(), options.ts), false);
                        }
                        Some(_) => done.unchanged += 1,
                        None => {
                            done.added += 1;
                            let add = IssueEvent::add(issue.clone(), options.ts);
                            batch.add(add, options.existing != Existing::Replace);
                        }
                    }
                }
            });
            written.map_err(|source| failed(source, imported))?;
            if batch.is_empty() {
                *imported = done;
                return Ok(());
            }
            match self.commit(&batch) {
                Ok(receipt) => {
                    *imported = done;
                    imported.last_seq = Some(receipt.seq);
                    return Ok(());
                }
                // Somebody was faster; it is among the existing ones now.
                Err(Error::AlreadyExists { .. }) if options.existing == Existing::Keep => {}
                Err(Error::AlreadyExists { id, .. }) => {
                    let line = issues.iter().find(|(_, issue)| issue.id() == id);
                    return Err(ImportError::Exists {
                        line: line.map_or(0, |(line, _)| *line),
                        id,
                        before: Box::new(imported.clone()),
                    });
                }
                Err(source) => return Err(failed(source, imported)),
            }
        }
    }
}

fn failed(source: Error, before: &Imported) -> ImportError {
    ImportError::Log {
        source,
        before: Box::new(before.clone()),
    }
}

fn changed(line: u64, before: Imported) -> ImportError {
    ImportError::Changed {
        line,
        before: Box::new(before),
    }
}

/// By what the second reading knows a line that the first has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    line: u64,
    crc: u32,
}

impl Checked {
    fn new(line: u64, issue: &Issue) -> Self {
        let crc = crc32c::crc32c(issue.as_json().as_bytes());
        Self { line, crc }
    }
}

/// Reads issues line by line. Holds one line and the ids.
#[derive(Default)]
struct IssueLines {
    number: u64,
    bytes: Vec<u8>,
    seen: HashMap<Box<str>, u64>,
}

impl IssueLines {
    /// The next line that is not blank, with its number: an issue, or the reason why it is none.
    fn next(
        &mut self,
        input: &mut impl BufRead,
    ) -> io::Result<Option<(u64, std::result::Result<Issue, String>)>> {
        loop {
            self.bytes.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            if input
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut self.bytes)?
                == 0
            {
                return Ok(None);
            }
            self.number += 1;
            let too_long = self.bytes.len() > LINE_BYTES_MAX && !self.bytes.ends_with(b"\n");
            if too_long {
                skip_line(input)?;
                let reason = format!("it is longer than {LINE_BYTES_MAX} bytes");
                return Ok(Some((self.number, Err(reason))));
            }
            let mark = if self.number == 1 { "\u{feff}" } else { "" };
            let line = self.bytes.strip_prefix(mark.as_bytes());
            let line = line.unwrap_or(&self.bytes).trim_ascii();
            if !line.is_empty() {
                let issue = parse_issue(line).and_then(|issue| {
                    let issue = match on_one_line(issue.as_json()) {
                        Cow::Borrowed(_) => issue,
                        Cow::Owned(text) => parse_issue(text.as_bytes())?,
                    };
                    match self.seen.insert(issue.id().into(), self.number) {
                        Some(earlier) => {
                            let id = issue.id();
                            self.seen.insert(id.as_str().into(), earlier);
                            Err(format!("its id {id:?} is that of line {earlier}"))
                        }
                        None => Ok(issue),
                    }
                });
                return Ok(Some((self.number, issue)));
            }
        }
    }
}

/// The issue that a line without white space around it is.
pub(crate) fn parse_issue(line: &[u8]) -> std::result::Result<Issue, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
    Issue::from_json(text).map_err(|error| {
        // An object whose names can't be read seems to have no fields at all.
        let names = serde_json::from_str::<BTreeMap<String, &RawValue>>(text);
        match (&error, names) {
            (InvalidEvent::Field { .. }, Err(reason)) => format!("a name can't be read: {reason}"),
            _ => error.to_string(),
        }
    })
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let used = end.map_or(buffer.len(), |end| end + 1);
        let ended = end.is_some() || buffer.is_empty();
        input.consume(used);
        if ended {
            return Ok(());
        }
    }
}
