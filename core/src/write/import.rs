//! Importing JSON lines.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, BufRead, Read as _, Seek},
    path::PathBuf,
};

use jiff::SignedDuration;

use strand_lock::crc32c_append;

use crate::{
    error::{Error, counted},
    format::{i_json::replace_lone_surrogates, record::RECORD_BYTES_MAX, seq::Seq},
    issues::{
        canonical_json::same,
        event::IssueEvent,
        issue::{ID_BYTES_MAX, Issue},
        issues::Issues,
        jsonl::{is_blank, on_one_line, parse_issue},
        merge_fields::MergeConflict,
        merge_sides::Lines,
        timestamp::{Timestamp, since_epoch},
    },
    write::{
        batch::Batch,
        conditions::{CommitError, Conflict},
        issue_log::IssueLog,
    },
};

/// How much text of issues goes into one record.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// The most that a record has besides an issue's text: the frame, and the event with an escaped id.
const FRAME_BYTES_MAX: usize = 2048;
/// A longer line does not fit into a record.
const LINE_BYTES_MAX: usize = RECORD_BYTES_MAX - FRAME_BYTES_MAX;
const _: () = assert!(FRAME_BYTES_MAX >= ID_BYTES_MAX * r"\u0000".len() + 256);
/// How many bad lines are listed; the rest is counted.
const BAD_LINES_MAX: usize = 100;
/// How many issues one record deletes: with the longest ids, these are less than a record holds.
const DELETED_AT_ONCE: usize = 2000;

/// The choices of an import for an issue that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Keep,
    Newer,
    Refuse,
}

/// What an import does with an issue that the input lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Deletes it if the file had it at the last export or import, and the store has not
    /// changed it.
    Follow,
    Keep,
    Delete,
}

/// Options of [`IssueLog::import`].
///
/// ```
/// use std::io::Cursor;
/// use strand_core::{ImportOptions, Issue, IssueLog, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the gate\"}\nno issue\n";
/// let options = ImportOptions::new(now).keep_existing().skip_bad_lines(true);
/// let imported = log.import(&mut Cursor::new(lines), options)?;
/// assert_eq!((imported.unchanged, imported.bad, imported.bad_lines[0].0), (1, 1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportOptions {
    pub(crate) ts: Timestamp,
    pub(crate) existing: Existing,
    missing: Missing,
    skip_bad_lines: bool,
    pub(crate) replace_surrogates: bool,
}

impl ImportOptions {
    /// The defaults: a line replaces an existing issue, unless the two are equal to the byte. The
    /// imported events have the time `ts`.
    #[must_use]
    pub fn new(ts: Timestamp) -> Self {
        Self {
            ts,
            existing: Existing::Replace,
            missing: Missing::Follow,
            skip_bad_lines: false,
            replace_surrogates: false,
        }
    }

    /// Keeps issues that exist.
    #[must_use]
    pub fn keep_existing(self) -> Self {
        Self {
            existing: Existing::Keep,
            ..self
        }
    }

    /// Replaces an issue only if the line's `updated_at` is later (`created_at` where there is
    /// none). An issue that was deleted at that time or later stays deleted.
    ///
    /// ```
    /// # use std::io::Cursor;
    /// # use strand_core::{ImportOptions, IssueLog, Options, Timestamp};
    /// # let dir = tempfile::tempdir()?;
    /// # let log = IssueLog::open(dir.path(), Options::default())?;
    /// let line = |title: &str, at: &str| {
    ///     Cursor::new(format!(r#"{{"id":"bd-1","title":"{title}","updated_at":"{at}"}}"#))
    /// };
    /// let options = ImportOptions::new(Timestamp::now()).newer();
    /// log.import(&mut line("Mend the gate", "2025-02-01T00:00:00Z"), options)?;
    /// let older = log.import(&mut line("Mend the fence", "2025-01-01T00:00:00Z"), options)?;
    /// assert_eq!((older.replaced, older.unchanged), (0, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn newer(self) -> Self {
        Self {
            existing: Existing::Newer,
            ..self
        }
    }

    /// Deletes all issues that the input lacks, after the others are imported, and only if no line
    /// is bad. By default, [`IssueLog::import_file`] deletes those that the file had at the last
    /// export or import, unless they have changed since.
    ///
    /// ```
    /// # use std::io::Cursor;
    /// # use strand_core::{ImportOptions, Issue, IssueLog, Options, Timestamp};
    /// # let dir = tempfile::tempdir()?;
    /// # let now = Timestamp::now();
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// let line = "{\"id\":\"bd-2\",\"title\":\"Mend the gate\"}\n";
    /// let options = ImportOptions::new(now);
    /// assert_eq!(log.import(&mut Cursor::new(line), options.keep_missing())?.deleted, 0);
    /// assert_eq!(log.import(&mut Cursor::new(line), options.delete_missing())?.deleted, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn delete_missing(self) -> Self {
        Self {
            missing: Missing::Delete,
            ..self
        }
    }

    /// Keeps all issues that the input lacks. Example: [`ImportOptions::delete_missing`].
    #[must_use]
    pub fn keep_missing(self) -> Self {
        Self {
            missing: Missing::Keep,
            ..self
        }
    }

    /// Imports nothing if an issue exists: [`ImportError::Exists`].
    ///
    /// Example: [`ImportOptions`].
    #[must_use]
    pub fn refuse_existing(self) -> Self {
        Self {
            existing: Existing::Refuse,
            ..self
        }
    }

    /// Whether to import the good lines although there are bad ones. Default: no.
    #[must_use]
    pub fn skip_bad_lines(self, skip_bad_lines: bool) -> Self {
        Self {
            skip_bad_lines,
            ..self
        }
    }

    /// Whether to write U+FFFD for each half of a surrogate pair, rather than to refuse the line;
    /// see [`Imported::surrogates`]. Default: no.
    ///
    /// ```
    /// # use std::io::Cursor;
    /// # use strand_core::{ImportOptions, IssueLog, Options, Timestamp};
    /// # let dir = tempfile::tempdir()?;
    /// # let log = IssueLog::open(dir.path(), Options::default())?;
    /// let line = r#"{"id":"bd-1","title":"Mend \ud83e"}"#;
    /// let options = ImportOptions::new(Timestamp::now());
    /// assert!(log.import(&mut Cursor::new(line), options).is_err());
    /// let imported = log.import(&mut Cursor::new(line), options.replace_surrogates(true))?;
    /// assert_eq!(imported.surrogates, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn replace_surrogates(self, replace_surrogates: bool) -> Self {
        Self {
            replace_surrogates,
            ..self
        }
    }
}

/// The result of [`IssueLog::import`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Lines that are not blank.
    pub lines: u64,
    /// Issues that did not exist.
    pub added: u64,
    /// Issues that existed and now are as their lines say.
    pub replaced: u64,
    /// Issues that existed and did not change, or that stay deleted.
    pub unchanged: u64,
    /// Issues that were deleted.
    pub deleted: u64,
    /// Lines of the file that [`IssueLog::sync`] added, changed or removed.
    pub exported: u64,
    /// What the store and the file had changed in different ways, and one of the two counted.
    pub decided: Vec<MergeConflict>,
    /// Ids that the store and the file had given to different issues: each with the new id of the
    /// later issue.
    pub renamed: Vec<[String; 2]>,
    /// Lines that were skipped because they are not issues.
    pub bad: u64,
    /// The first hundred of these: the line's number, from 1, and what is wrong with it.
    pub bad_lines: Vec<(u64, String)>,
    /// Halves of surrogate pairs that were replaced by U+FFFD.
    pub surrogates: u64,
    /// The last record that was written, if any was.
    pub last_seq: Option<Seq>,
}

impl Imported {
    fn written(&self) -> u64 {
        self.added + self.replaced
    }

    fn bad_line(&mut self, line: u64, reason: String) {
        self.bad += 1;
        if self.bad_lines.len() < BAD_LINES_MAX {
            self.bad_lines.push((line, reason));
        }
    }
}

/// Why an import failed. Each variant says what was imported nevertheless.
///
/// ```
/// use std::io::Cursor;
/// use strand_core::{ImportError, ImportOptions, IssueLog, Options, Timestamp};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\nno issue\n";
/// match log.import(&mut Cursor::new(lines), ImportOptions::new(now)) {
///     // Nothing was imported.
///     Err(ImportError::BadLines { first, .. }) => assert_eq!(first[0].0, 2),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The input could not be read. Some whole batches may have been imported.
    #[error("cannot read the lines to import")]
    Read(#[from] io::Error),
    /// The input changed between its two readings. The checked lines before may have been imported.
    #[error(
        "line {line} changed since it was checked; leave the input alone and import again \
         (from earlier lines, {} imported)",
        were(before)
    )]
    Changed {
        /// The number of the first line that changed, from 1.
        line: u64,
        /// The counts of the batches before.
        before: Box<Imported>,
    },
    /// Lines are not issues. Nothing was imported.
    #[error(
        "nothing was imported: {} no issue{}",
        if *count == 1 { "1 line is".to_owned() } else { format!("{count} lines are") },
        listed(*count, first)
    )]
    BadLines {
        /// Their number.
        count: u64,
        /// The first hundred: the line's number, from 1, and what is wrong with it.
        first: Vec<(u64, String)>,
    },
    /// An issue exists, and [`ImportOptions::refuse_existing`] is set.
    #[error(
        "line {line}: issue {id:?} exists already; from earlier lines, {} imported",
        were(before)
    )]
    Exists {
        /// The line's number, from 1.
        line: u64,
        /// The issue's id.
        id: String,
        /// The counts of the batches before. All are 0, unless another process created the issue
        /// meanwhile.
        before: Box<Imported>,
    },
    /// The store and the file changed the same in different ways. Nothing was changed.
    #[error(
        "the store and the file differ in {}; say which of the two counts",
        named(conflicts)
    )]
    Conflicts {
        /// The differences; `ours` is the store's value.
        conflicts: Vec<MergeConflict>,
    },
    /// The file has changed since the store last exported or imported it, or it never did. Nothing
    /// was written.
    #[error(
        "{} has changed since it was last exported or imported here; sync it, or import it first, \
         or overwrite what it has", path.display()
    )]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// The file is empty, although it had issues when it was last exported or imported. Nothing was
    /// changed.
    #[error(
        "{} is empty, but was not when it was last exported or imported; restore it, or remove it \
         to have it written anew", path.display()
    )]
    FileEmpty {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be found, read or written. Nothing was changed, or the store only.
    #[error(transparent)]
    File(#[from] Error),
    /// The log failed. To complete the import, repeat it: what is stored is not written again.
    #[error("the import ended after {}", counted(before.written(), "issue"))]
    Log {
        /// The log's error.
        source: Error,
        /// The counts of the batches before.
        before: Box<Imported>,
    },
}

impl IssueLog {
    /// Imports issues from JSON lines, each an object with `id` and `title`.
    ///
    /// Reads the input twice, to check it and then to write it, and keeps only the ids and the
    /// state in memory. Unless [`ImportOptions::skip_bad_lines`] is set, one bad line means that
    /// nothing is imported. Writes batches of about 1 MiB, each atomic; if the process is killed
    /// between two, import again to complete it.
    ///
    /// Each issue is stored as in its line, to the byte, without the white space around it: unknown
    /// fields, their order, and the spelling of numbers and escapes. Only a carriage return between
    /// tokens becomes a space. If an object has a name twice, both are kept, and the last one
    /// counts. Blank lines and a byte order mark are skipped. A line is *bad* if it is not a JSON
    /// object with `id` and `title`, is not UTF-8, is longer than 4,192,256 bytes, or has the id of
    /// an earlier line. A deleted issue counts as absent.
    ///
    /// Blocks, for each batch, as [`IssueLog::append`] does, and makes each as durable.
    ///
    /// # Errors
    /// [`ImportError`].
    ///
    /// ```
    /// use std::io::Cursor;
    /// use strand_core::{ImportOptions, IssueLog, Options, Timestamp};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = IssueLog::open(dir.path(), Options::default())?;
    /// let lines = "{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\n";
    /// let options = ImportOptions::new(Timestamp::now());
    /// let imported = log.import(&mut Cursor::new(lines), options)?;
    /// assert_eq!((imported.added, imported.unchanged), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import(
        &self,
        input: &mut (impl BufRead + Seek),
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        self.import_since(&Lines::new(), input, options)
    }

    /// Imports a file of which these lines were last exported or imported.
    pub(crate) fn import_since(
        &self,
        known: &Lines,
        input: &mut (impl BufRead + Seek),
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        let start = input.stream_position()?;
        let (mut imported, checked) = self.check(input, options)?;
        input.seek(io::SeekFrom::Start(start))?;
        let mut checked = checked.into_iter();
        let mut lines = IssueLines::new(options);
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
        if imported.bad == 0 {
            self.delete_missing(&lines.seen, known, options, &mut imported)?;
        }
        Ok(imported)
    }

    /// Deletes issues that the input lacks.
    fn delete_missing(
        &self,
        seen: &HashMap<Box<str>, u64>,
        known: &Lines,
        options: ImportOptions,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let is_gone = |id: &str, issue: &Issue| match options.missing {
            _ if seen.contains_key(id) => false,
            Missing::Delete => true,
            Missing::Keep => false,
            Missing::Follow => {
                let then = known.get(id);
                then.is_some_and(|then| same(then.as_raw(), issue.as_raw()))
            }
        };
        if options.missing == Missing::Keep
            || options.missing == Missing::Follow && known.is_empty()
        {
            return Ok(());
        }
        loop {
            let gone = self.with_issues(|issues| {
                let gone = issues.iter().filter(|(id, issue)| is_gone(id, issue));
                let versions =
                    gone.filter_map(|(id, _)| Some((id.to_owned(), issues.version(id)?)));
                versions.take(DELETED_AT_ONCE).collect::<Vec<_>>()
            });
            let gone = gone.map_err(|source| failed(source, imported))?;
            if gone.is_empty() {
                return Ok(());
            }
            let count = gone.len() as u64;
            let batch = gone.into_iter();
            let batch = batch.fold(Batch::at(options.ts), |batch, (id, version)| {
                batch.delete_if(id, version)
            });
            match self.commit(&batch) {
                Ok(receipt) => {
                    imported.deleted += count;
                    imported.last_seq = Some(receipt.seq);
                }
                // Another process has changed one of them meanwhile.
                Err(CommitError::Conflict(_)) => {}
                Err(error @ (CommitError::KeyReused { .. } | CommitError::Make(_))) => {
                    unreachable!("it has neither key nor closure: {error}")
                }
                Err(CommitError::Log(source)) => return Err(failed(source, imported)),
            }
        }
    }

    /// The first reading: finds the bad lines, and remembers the good ones.
    fn check(
        &self,
        input: &mut impl BufRead,
        options: ImportOptions,
    ) -> Result<(Imported, Vec<Checked>), ImportError> {
        let mut imported = Imported::default();
        let mut checked = Vec::new();
        let mut lines = IssueLines::new(options);
        let mut exists = None;
        while let Some((line, issue)) = lines.next(input)? {
            imported.lines += 1;
            let issue = match issue {
                Ok(issue) => issue,
                Err(reason) => {
                    imported.bad_line(line, reason);
                    continue;
                }
            };
            checked.push(Checked::new(line, &issue));
            if options.existing == Existing::Refuse && exists.is_none() {
                let id = issue.id();
                let found = self.with_issues(|issues| issues.get(&id).is_some());
                if found.map_err(|source| failed(source, &imported))? {
                    exists = Some((line, id));
                }
            }
        }
        imported.surrogates = lines.surrogates;
        if imported.bad > 0 && !options.skip_bad_lines {
            return Err(ImportError::BadLines {
                count: imported.bad,
                first: imported.bad_lines,
            });
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
    ) -> Result<(), ImportError> {
        let ts = options.ts;
        loop {
            let mut done = imported.clone();
            let planned = self.with_issues(|present| {
                let mut planned = Vec::new();
                for (_, issue) in issues {
                    let id = issue.id();
                    let newer = options.existing == Existing::Newer;
                    let version = match present.get(&id) {
                        None if newer && stays_deleted(present, &id, issue) => {
                            done.unchanged += 1;
                            continue;
                        }
                        None => {
                            done.added += 1;
                            None
                        }
                        Some(old) if old != issue && options.existing.prefers(issue, old) => {
                            done.replaced += 1;
                            present.version(&id)
                        }
                        Some(_) => {
                            done.unchanged += 1;
                            continue;
                        }
                    };
                    planned.push((issue.clone(), version));
                }
                planned
            });
            let planned = planned.map_err(|source| failed(source, imported))?;
            if planned.is_empty() {
                *imported = done;
                return Ok(());
            }
            let batch = Batch::at(ts);
            let batch = planned
                .into_iter()
                .fold(batch, |batch, (issue, version)| match version {
                    // Unlike an update, an `add` is stored even if the issue is deleted meanwhile.
                    _ if options.existing == Existing::Replace => {
                        batch.event(IssueEvent::add(issue, ts))
                    }
                    Some(version) => batch.update_if(issue, version),
                    None => batch.create(issue),
                });
            match self.commit(&batch) {
                Ok(receipt) => {
                    *imported = done;
                    imported.last_seq = Some(receipt.seq);
                    return Ok(());
                }
                // Another process was faster, and the issue exists now, or is another.
                Err(CommitError::Conflict(_)) if options.existing != Existing::Refuse => {}
                Err(CommitError::Conflict(Conflict { id, .. })) => {
                    let line = issues.iter().find(|(_, issue)| issue.id() == id);
                    return Err(ImportError::Exists {
                        line: line.map_or(0, |(line, _)| *line),
                        id,
                        before: Box::new(imported.clone()),
                    });
                }
                Err(error @ (CommitError::KeyReused { .. } | CommitError::Make(_))) => {
                    unreachable!("it has neither key nor closure: {error}")
                }
                Err(CommitError::Log(source)) => return Err(failed(source, imported)),
            }
        }
    }
}

impl Existing {
    /// Whether a line takes the place of an issue.
    fn prefers(self, line: &Issue, issue: &Issue) -> bool {
        match self {
            Self::Replace => true,
            Self::Newer => changed_at(line) > changed_at(issue),
            Self::Keep | Self::Refuse => false,
        }
    }
}

/// When an issue was last changed, as it says itself.
pub(crate) fn changed_at(issue: &Issue) -> Option<SignedDuration> {
    let time = |field| since_epoch(&issue.field::<String>(field)?);
    time("updated_at").or_else(|| time("created_at"))
}

/// Whether the issue was deleted after it was last changed.
pub(crate) fn stays_deleted(issues: &Issues, id: &str, issue: &Issue) -> bool {
    let deleted = issues.deleted_at(id);
    let deleted = deleted.map(|ts| SignedDuration::from_millis(ts.as_ms()));
    deleted.is_some() && deleted >= changed_at(issue)
}

/// The first few conflicts.
fn named(conflicts: &[MergeConflict]) -> String {
    const NAMED_MAX: usize = 5;
    let name = |MergeConflict { id, field, .. }: &MergeConflict| match field {
        Some(field) => format!("{id} ({field})"),
        None => format!("{id} (the whole issue)"),
    };
    let mut names: Vec<String> = conflicts.iter().take(NAMED_MAX).map(name).collect();
    if conflicts.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn were(before: &Imported) -> String {
    let count = before.written();
    let were = if count == 1 { "was" } else { "were" };
    format!("{} {were}", counted(count, "issue"))
}

fn listed(count: u64, first: &[(u64, String)]) -> String {
    let lines = first
        .iter()
        .map(|(line, reason)| format!("; line {line}: {reason}"));
    let more = if count > first.len() as u64 {
        "; …"
    } else {
        ""
    };
    lines.chain([more.to_owned()]).collect()
}

pub(crate) fn failed(source: Error, before: &Imported) -> ImportError {
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

/// Identifies a checked line in the second reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    line: u64,
    crc: u32,
}

impl Checked {
    fn new(line: u64, issue: &Issue) -> Self {
        let crc = crc32c_append(0, issue.as_json().as_bytes());
        Self { line, crc }
    }
}

/// Reads issues line by line. Holds one line, and the ids.
#[derive(Default)]
struct IssueLines {
    number: u64,
    bytes: Vec<u8>,
    seen: HashMap<Box<str>, u64>,
    replace_surrogates: bool,
    surrogates: u64,
}

impl IssueLines {
    fn new(options: ImportOptions) -> Self {
        Self {
            replace_surrogates: options.replace_surrogates,
            ..Self::default()
        }
    }

    /// The next line that is not blank, with its number: an issue, or the reason why it is not one.
    fn next(
        &mut self,
        input: &mut impl BufRead,
    ) -> io::Result<Option<(u64, Result<Issue, String>)>> {
        loop {
            self.bytes.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut self.bytes)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.bytes.len() > LINE_BYTES_MAX && !self.bytes.ends_with(b"\n") {
                input.skip_until(b'\n')?;
                let reason = format!("it is longer than {LINE_BYTES_MAX} bytes");
                return Ok(Some((self.number, Err(reason))));
            }
            let mark = "\u{feff}".as_bytes();
            if self.number == 1 && self.bytes.starts_with(mark) {
                self.bytes.drain(..mark.len());
            }
            if !is_blank(&self.bytes) {
                return Ok(Some((self.number, self.parse())));
            }
        }
    }

    fn parse(&mut self) -> Result<Issue, String> {
        if self.replace_surrogates {
            self.surrogates += replace_lone_surrogates(&mut self.bytes);
        }
        let issue = parse_issue(&self.bytes, true)?;
        let issue = match on_one_line(issue.as_json()) {
            Cow::Borrowed(_) => issue,
            Cow::Owned(text) => parse_issue(text.as_bytes(), true)?,
        };
        let id = issue.id();
        if let Some(earlier) = self.seen.get(id.as_str()) {
            return Err(format!("its id {id:?} is that of line {earlier}"));
        }
        self.seen.insert(id.into(), self.number);
        Ok(issue)
    }
}
