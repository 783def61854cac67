//! A new base from the files of the snapshot of issues and what changed behind them, line by line:
//! in memory is only what changed, however many issues there are.
//!
//! The lines of each file are in the order of their names. Of several with one name, the last one
//! counts. It goes into the base as it is.

use std::ops::ControlFlow;

use serde::Deserialize;

use strand_lock::crc32c_append;

use crate::{
    error::{CorruptReason, Result},
    format::{
        lines::{Lines, Span},
        record::checked,
        seq::Seq,
    },
    issues::{
        event::IssueEvent,
        issue::Name as Text,
        issues::{Entry, Issues},
        timestamp::Timestamp,
        transition::is_closed,
    },
    state::{
        issues::{IssueLine, IssuePart, Item},
        lookup::SnapshotLookup,
        snapshot::{
            Counts, Header, Out, corrupt, not_whole, open_live, parse, plain_id, read_over, wrong,
        },
        throttle::Throttle,
    },
    wal::{
        cursor::RawRecords,
        durable::End,
        manifest::{MANIFEST, Manifest, SnapshotFile, SnapshotMark},
        store_dir::{StoreDir, StoreFile},
    },
};

/// What becomes a base.
pub(super) struct NewBase<'a> {
    pub(super) dir: &'a StoreDir,
    pub(super) manifest: &'a Manifest,
    /// What changed behind the files that the manifest names.
    pub(super) later: &'a Issues,
    /// Keys of records before this one are forgotten.
    pub(super) before_seq: Seq,
    /// Tombstones of issues that were deleted before this are forgotten.
    pub(super) before: Timestamp,
}

/// A line of a base.
enum Line<'a> {
    /// Of one of the files, with its newline.
    Stored(&'a [u8]),
    Changed(Item<'a>),
}

impl Line<'_> {
    /// The issue, by its id; `None` for a key.
    fn to_issue(&self) -> std::result::Result<Option<(String, Entry)>, CorruptReason> {
        Ok(match self {
            Self::Stored(text) => {
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                match parse::<IssueLine>(text)?.0 {
                    IssuePart::Entry(id, entry) => Some((id, entry)),
                    IssuePart::Key(..) => None,
                }
            }
            Self::Changed(item) => item.to_issue(),
        })
    }
}

/// What the lines of a base are.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) issues: u64,
    pub(super) tombstones: u64,
    pub(super) keys: u64,
    /// The issues that are not closed. `None` if they are too long.
    pub(super) unclosed: Option<Issues>,
}

/// What a line is, as far as that decides whether it stays.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Issue,
    Tombstone(Timestamp),
    Key(Seq),
}

/// Whether a line is that of a key, and the id or the key. Lines are in this order.
type Name = (bool, String);

impl NewBase<'_> {
    /// Reads what the base will have. `None` if the lines of a file are not in order, which older
    /// programs wrote.
    pub(super) fn summary(
        &self,
        unclosed_bytes_max: u64,
        throttle: &mut Throttle,
    ) -> Result<Option<Summary>> {
        let mut summary = Summary::default();
        let (mut unclosed, mut bytes) = (Issues::default(), 0);
        let read = self.each(throttle, |kind, line| {
            match kind {
                Kind::Issue => summary.issues += 1,
                Kind::Tombstone(_) => summary.tombstones += 1,
                Kind::Key(_) => summary.keys += 1,
            }
            if bytes > unclosed_bytes_max || !matches!(kind, Kind::Issue) {
                return Ok(ControlFlow::Continue(()));
            }
            if let Some((id, entry)) = line.to_issue()?
                && let Some(issue) = entry.issue()
                && !is_closed(issue)
            {
                bytes += issue.as_json().len() as u64;
                unclosed.restore_entry(id, entry);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        unclosed.moved_on(self.later.last_seq());
        summary.unclosed = (bytes <= unclosed_bytes_max).then_some(unclosed);
        Ok(read.then_some(summary))
    }

    /// Writes the base, which has what `summary` says, into a new file. `None` as there.
    pub(super) fn write(
        &self,
        summary: &Summary,
        seq: u64,
        file: &StoreFile,
        throttle: &mut Throttle,
    ) -> Result<Option<SnapshotMark>> {
        let Summary {
            issues,
            tombstones,
            keys,
            ..
        } = *summary;
        let totals = [issues, tombstones, keys, self.later.without_effect()];
        let mut out = Out::new(file, seq);
        out.line(&Header::of_issues(seq, &self.manifest.store, totals))?;
        let mut written = Ok(());
        let is_read = self.each(throttle, |_, line| {
            if written.is_ok() {
                written = match line {
                    Line::Stored(text) => out.copy(text),
                    Line::Changed(item) => out.line(&item).map(drop),
                };
            }
            Ok(ControlFlow::Continue(()))
        })?;
        written?;
        out.flush()?;
        Ok(is_read.then_some(out.mark))
    }

    /// Calls `look` with the issues that the base will have, until it breaks. False as `None`
    /// above.
    pub(super) fn each_issue(
        &self,
        throttle: &mut Throttle,
        mut look: impl FnMut(&str, &Entry) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.each(throttle, |kind, line| {
            Ok(match kind {
                Kind::Issue => line.to_issue()?,
                Kind::Tombstone(_) | Kind::Key(_) => None,
            }
            .map_or(ControlFlow::Continue(()), |(id, entry)| look(&id, &entry)))
        })
    }

    /// Calls `act` with the lines of the base in their order, until it breaks.
    fn each(
        &self,
        throttle: &mut Throttle,
        mut act: impl FnMut(Kind, Line<'_>) -> std::result::Result<ControlFlow<()>, CorruptReason>,
    ) -> Result<bool> {
        let mut files = Vec::new();
        for named in self.manifest.files() {
            match FileLines::open(self.dir, self.manifest, named)? {
                Some(file) => files.push(file),
                None => return Ok(false),
            }
        }
        for file in &mut files {
            if !file.advance(throttle)? {
                return Ok(false);
            }
        }
        let entries = self.later.entries().map(|(id, entry)| {
            let kind = match entry {
                Entry::Present { .. } => Kind::Issue,
                Entry::Deleted { ts, .. } => Kind::Tombstone(*ts),
            };
            ((false, id), kind, Item::of_entry(id, entry))
        });
        let keys = self.later.keys().map(|(key, write)| {
            let kind = Kind::Key(write.seq);
            ((true, key), kind, Item::of_key(key, write))
        });
        let mut changed = entries.chain(keys).peekable();
        loop {
            let stored = files.iter().filter_map(FileLines::name);
            let first_changed = changed.peek().map(|(name, ..)| *name);
            let Some((is_key, text)) = stored.chain(first_changed).min() else {
                return Ok(true);
            };
            let name: Name = (is_key, text.to_owned());
            let is_this = |other: Option<(bool, &str)>| other == Some((name.0, &name.1));
            let mut flow = ControlFlow::Continue(());
            // The last file that has it counts, and what changed behind all of them.
            if is_this(first_changed) {
                if let Some((_, kind, item)) = changed.next()
                    && self.stays(kind)
                {
                    flow = act(kind, Line::Changed(item))
                        .map_err(|reason| corrupt(self.dir.path(), 0, reason))?;
                }
            } else if let Some(file) = files.iter().rev().find(|file| is_this(file.name()))
                && let Some(line) = &file.line
                && self.stays(line.kind)
            {
                flow = act(line.kind, Line::Stored(file.lines.text(line.span)))
                    .map_err(|reason| corrupt(file.file.path(), line.span.offset, reason))?;
            }
            if flow.is_break() {
                return Ok(true);
            }
            for file in &mut files {
                if is_this(file.name()) && !file.advance(throttle)? {
                    return Ok(false);
                }
            }
        }
    }

    fn stays(&self, kind: Kind) -> bool {
        match kind {
            Kind::Issue => true,
            Kind::Tombstone(ts) => ts >= self.before,
            Kind::Key(seq) => seq >= self.before_seq,
        }
    }
}

/// A file of the snapshot that is read line by line, and checked as a whole at its end.
struct FileLines {
    file: StoreFile,
    named: SnapshotFile,
    lines: Lines,
    said: Counts,
    found: Counts,
    bytes: u64,
    crc: u32,
    /// The line that was read last; `None` at the end.
    line: Option<FileLine>,
}

struct FileLine {
    name: Name,
    kind: Kind,
    span: Span,
}

/// A line as far as it decides which lines stay.
#[derive(Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    seq: Option<Seq>,
    deleted_ms: Option<Timestamp>,
}

impl FileLines {
    /// `None` if the file is gone, or its keys are not in order.
    fn open(dir: &StoreDir, manifest: &Manifest, named: SnapshotFile) -> Result<Option<Self>> {
        let Some(file) = open_live(dir, manifest, named)? else {
            return Ok(None);
        };
        let mut opened = Self {
            file,
            named,
            lines: Lines::default(),
            said: Counts::default(),
            found: Counts::default(),
            bytes: 0,
            crc: 0,
            line: None,
        };
        let span = opened.next_line()?;
        let text = span.map_or(&[][..], |span| opened.lines.text(span));
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let header = checked(text).and_then(|members| {
            let header = Header::of_live(text, members, manifest, named.reflects())?;
            header.requires_state(None)?;
            Ok((header.counts(), header.sorted_keys))
        });
        let (said, sorted_keys) =
            header.map_err(|reason| corrupt(opened.file.path(), 0, reason))?;
        opened.said = said;
        let [_, _, keys, _] = said;
        Ok((sorted_keys || keys == 0).then_some(opened))
    }

    fn name(&self) -> Option<(bool, &str)> {
        let line = self.line.as_ref()?;
        Some((line.name.0, &line.name.1))
    }

    fn next_line(&mut self) -> Result<Option<Span>> {
        let Some(span) = self.file.next_line(&mut self.lines)? else {
            return Ok(None);
        };
        if span.offset != self.bytes {
            let reason = wrong("this line is blank");
            return Err(corrupt(self.file.path(), self.bytes, reason));
        }
        let text = self.lines.text(span);
        self.crc = crc32c_append(self.crc, text);
        self.bytes += text.len() as u64;
        Ok(Some(span))
    }

    /// Goes on to the next line. False if that is not behind this one.
    fn advance(&mut self, throttle: &mut Throttle) -> Result<bool> {
        let Some(span) = self.next_line()? else {
            self.line = None;
            let len_bytes = self.file.len_bytes()?;
            let message = not_whole(self.named.mark, len_bytes, self.bytes, self.crc).or_else(|| {
                let (found, said) = (self.found, self.said);
                let differs = || {
                    format!(
                        "it has {found:?} issues, tombstones, keys and other lines, and its first \
                         line says {said:?}"
                    )
                };
                (found != said).then(differs)
            });
            return match message {
                None => Ok(true),
                Some(message) => Err(corrupt(self.file.path(), 0, wrong(&message))),
            };
        };
        let text = self.lines.text(span);
        throttle.did(text.len());
        let line = text.strip_suffix(b"\n").ok_or(CorruptReason::Unterminated);
        let seen = line.and_then(|text| {
            let members = checked(text)?;
            let [issues, tombstones, keys, _] = &mut self.found;
            if let Some((id, rest)) = plain_id(members)
                && is_plain_issue(rest)
            {
                *issues += 1;
                let name = (false, id.to_owned());
                return Ok(FileLine {
                    name,
                    kind: Kind::Issue,
                    span,
                });
            }
            let (name, kind) = match parse::<Seen<'_>>(text)? {
                Seen {
                    id: Some(id),
                    deleted_ms: Some(ts),
                    ..
                } => {
                    *tombstones += 1;
                    ((false, id.0.into_owned()), Kind::Tombstone(ts))
                }
                Seen { id: Some(id), .. } => {
                    *issues += 1;
                    ((false, id.0.into_owned()), Kind::Issue)
                }
                Seen {
                    key: Some(key),
                    seq: Some(seq),
                    ..
                } => {
                    *keys += 1;
                    ((true, key.0.into_owned()), Kind::Key(seq))
                }
                _ => return Err(wrong("a line has neither an id nor a key")),
            };
            Ok(FileLine { name, kind, span })
        });
        let line = seen.map_err(|reason| corrupt(self.file.path(), span.offset, reason))?;
        let before = self.line.replace(line);
        let is_behind = self.line.as_ref().zip(before.as_ref());
        Ok(is_behind.is_none_or(|(line, before)| line.name > before.name))
    }
}

/// Whether this, behind the id, is of an issue, in the layout that this crate writes.
fn is_plain_issue(rest: &[u8]) -> bool {
    let version = rest.strip_prefix(br#","version":"#).unwrap_or_default();
    let digits = version.iter().take_while(|byte| byte.is_ascii_digit());
    let rest = version.get(digits.count()..).unwrap_or_default();
    rest.starts_with(br#","issue":{"#)
}

/// The state of all issues that changed behind the first `kept` files of the snapshot, through
/// `end`, and perhaps of others. Nothing of it is forgotten, since it hides what the files before
/// it have. Also returns how many issues there are, in those files, too. `None` if a file is gone.
pub(super) fn fold_changed(
    dir: &StoreDir,
    manifest: &Manifest,
    kept: usize,
    end: End,
    throttle: &mut Throttle,
) -> Result<Option<(Issues, u64)>> {
    let files = manifest.files();
    let (kept, folded) = files.split_at(kept);
    let Some(mut before) = SnapshotLookup::open(dir, manifest, kept)? else {
        return Ok(None);
    };
    let mut issues = Issues::default();
    issues.restore_header(Seq::new(manifest.first_seq - 1), before.without_effect());
    let Some((mut issues, all)) = read_over(issues, dir, manifest, folded, throttle)? else {
        return Ok(None);
    };
    let all = all.unwrap_or_else(|| before.issues());
    // Those that are not in the part.
    let mut others = all.checked_sub(issues.len() as u64);
    let mut records = RawRecords::new(dir, manifest.first_seq, end);
    let mut scratch = Vec::new();
    while let Some(record) = records.next()? {
        let (seq, offset) = (record.line.header.seq, record.offset);
        throttle.did(record.text.len());
        let events = match record.line.body.decode::<IssueEvent>(&mut scratch) {
            Ok(events) => events,
            Err(reason) => return Err(records.refuse(seq, offset, reason)),
        };
        for event in &events {
            if issues.entry(&event.id).is_none()
                && let Some(entry) = before.entry(&event.id)?
            {
                let was = issues.len();
                issues.restore_entry(event.id.clone(), entry);
                let brought = (issues.len() - was) as u64;
                others = others.and_then(|others| others.checked_sub(brought));
            }
        }
        issues.apply(Seq::new(seq), events);
    }
    let Some(others) = others else {
        let reason = wrong(&format!("it has more than {all} issues"));
        return Err(corrupt(&dir.path_of(MANIFEST), 0, reason));
    };
    let all = others + issues.len() as u64;
    Ok(Some((issues, all)))
}
