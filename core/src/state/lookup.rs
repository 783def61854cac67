//! Finds single lines of a snapshot of issues by binary search, and reads nothing else.
//!
//! A line of a later file counts, so that the files are searched from the last one on.
//!
//! Every line that the search looks at is checked. Two checked lines that lie side by side prove
//! that there is none between them, so that damage leads to an error and never to a wrong answer.

use std::collections::HashMap;

use serde::Deserialize;

use crate::{
    error::Result,
    format::{
        lines::Lines,
        record::{RECORD_BYTES_MAX, checked},
        search,
    },
    issues::{
        issue::Name as Text,
        issues::{Entry, KeyedWrite},
    },
    state::{
        issues::{IssueLine, IssuePart},
        snapshot::{Header, corrupt, open_live, parse, plain_name, wrong},
    },
    wal::{
        manifest::{Manifest, SnapshotFile},
        store_dir::{StoreDir, StoreFile},
    },
};

/// How much is read at first on each side of a place whose line is wanted.
const NEAR_BYTES: u64 = 2 << 10;

/// A stretch that is no longer is read as a whole.
const STRETCH_BYTES: u64 = 16 << 10;

/// So many lines are remembered: those in the middle of long stretches, where all searches pass.
const PASSED_LINES: usize = 1_024;

/// The files of the live snapshot, open to look lines up.
#[derive(Debug)]
pub(crate) struct SnapshotLookup(Vec<FileLookup>);

#[derive(Debug)]
struct FileLookup {
    file: StoreFile,
    /// Where the lines behind the header begin and end.
    lines: std::ops::Range<u64>,
    sorted_keys: bool,
    /// How many issues there are in this file and those before it.
    issues: u64,
    without_effect: u64,
    buffer: Vec<u8>,
    /// What part of the file is in the buffer.
    held: std::ops::Range<u64>,
    /// The names of lines in the middle of a stretch, by where that begins and ends.
    passed: HashMap<(u64, u64), Passed>,
}

/// A line that a search has passed, and its name.
#[derive(Debug, Clone)]
struct Passed {
    start: u64,
    end: u64,
    is_key: bool,
    text: String,
}

/// What identifies a line. Lines are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name<'a> {
    Id(&'a str),
    Key(&'a str),
}

/// A line as far as a search needs it.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
}

/// Where a line is, or the place where it would be.
enum Found {
    /// The line's text is in the buffer, with its newline.
    Line(IssuePart),
    Before(u64),
}

impl SnapshotLookup {
    /// Opens these files of the snapshot that the manifest names; `None` if a later manifest does
    /// without one.
    pub(crate) fn open(
        dir: &StoreDir,
        manifest: &Manifest,
        files: &[SnapshotFile],
    ) -> Result<Option<Self>> {
        let mut open = Vec::new();
        for named in files {
            let Some(file) = FileLookup::open(dir, manifest, *named)? else {
                return Ok(None);
            };
            open.push(file);
        }
        Ok(Some(Self(open)))
    }

    /// The issue, or the tombstone of one, with this id.
    pub(crate) fn entry(&mut self, id: &str) -> Result<Option<Entry>> {
        for file in self.0.iter_mut().rev() {
            if let Some(entry) = file.entry(id)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What is remembered of this idempotency key.
    pub(crate) fn key(&mut self, key: &str) -> Result<Option<KeyedWrite>> {
        for file in self.0.iter_mut().rev() {
            if let Some(write) = file.key(key)? {
                return Ok(Some(write));
            }
        }
        Ok(None)
    }

    /// How many issues there are.
    pub(crate) fn issues(&self) -> u64 {
        self.0.last().map_or(0, |file| file.issues)
    }

    /// The events that changed nothing.
    pub(crate) fn without_effect(&self) -> u64 {
        self.0.last().map_or(0, |file| file.without_effect)
    }
}

impl FileLookup {
    fn open(dir: &StoreDir, manifest: &Manifest, named: SnapshotFile) -> Result<Option<Self>> {
        let Some(file) = open_live(dir, manifest, named)? else {
            return Ok(None);
        };
        let (len_bytes, mark) = (file.len_bytes()?, named.mark);
        if len_bytes != mark.bytes {
            let message = format!(
                "it has {len_bytes} bytes, and the MANIFEST says {}",
                mark.bytes
            );
            return Err(corrupt(file.path(), 0, wrong(&message)));
        }
        let mut lines = Lines::default();
        let text = match file.next_line(&mut lines)? {
            Some(span) if span.offset == 0 => lines.text(span),
            _ => return Err(corrupt(file.path(), 0, wrong("its first line is blank"))),
        };
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let header = checked(line).and_then(|members| {
            let header = Header::of_live(line, members, manifest, named.reflects())?;
            header.requires_state(None)?;
            Ok(header)
        });
        let header = header.map_err(|reason| corrupt(file.path(), 0, reason))?;
        let (issues, without_effect) = (header.all_issues(), header.without_effect());
        let (sorted_keys, lines) = (header.sorted_keys, text.len() as u64..len_bytes);
        Ok(Some(Self {
            file,
            lines,
            sorted_keys,
            issues,
            without_effect,
            buffer: Vec::new(),
            held: 0..0,
            passed: HashMap::new(),
        }))
    }

    fn entry(&mut self, id: &str) -> Result<Option<Entry>> {
        Ok(match self.find(Name::Id(id))? {
            Found::Line(IssuePart::Entry(_, entry)) => Some(entry),
            _ => None,
        })
    }

    fn key(&mut self, key: &str) -> Result<Option<KeyedWrite>> {
        if self.sorted_keys {
            return Ok(match self.find(Name::Key(key))? {
                Found::Line(IssuePart::Key(_, write)) => Some(write),
                _ => None,
            });
        }
        // No key is empty, so this is where they begin.
        let Found::Before(mut offset) = self.find(Name::Key(""))? else {
            return Ok(None);
        };
        while offset < self.lines.end {
            let line = self.line_at(offset, offset..self.lines.end)?;
            offset = line.end;
            if self.named(&line)?.1 == key
                && let IssuePart::Key(_, write) = self.parsed(&line)?
            {
                return Ok(Some(write));
            }
        }
        Ok(None)
    }

    fn find(&mut self, wanted: Name<'_>) -> Result<Found> {
        let mut rest = self.lines.clone();
        while !rest.is_empty() {
            let line = self.middle_of(&rest)?;
            let found = if line.is_key {
                Name::Key(&line.text)
            } else {
                Name::Id(&line.text)
            };
            match found.cmp(&wanted) {
                std::cmp::Ordering::Less => rest.start = line.end,
                std::cmp::Ordering::Greater => rest.end = line.start,
                std::cmp::Ordering::Equal => {
                    let line = self.line_at(line.start, line.start..line.end)?;
                    // It may not be what it was when the search passed it before.
                    self.named(&line)?;
                    return self.parsed(&line).map(Found::Line);
                }
            }
        }
        Ok(Found::Before(rest.start))
    }

    /// The line in the middle of this stretch.
    fn middle_of(&mut self, stretch: &std::ops::Range<u64>) -> Result<Passed> {
        let key = (stretch.start, stretch.end);
        if let Some(passed) = self.passed.get(&key) {
            return Ok(passed.clone());
        }
        let middle = stretch.start + (stretch.end - stretch.start) / 2;
        let line = self.line_at(middle, stretch.clone())?;
        let (is_key, text) = self.named(&line)?;
        let passed = Passed {
            start: line.start,
            end: line.end,
            is_key,
            text,
        };
        if stretch.end - stretch.start > STRETCH_BYTES && self.passed.len() < PASSED_LINES {
            self.passed.insert(key, passed.clone());
        }
        Ok(passed)
    }

    /// Reads the line that has the byte at `middle`. Both ends of `within` are ends of lines.
    fn line_at(&mut self, middle: u64, within: std::ops::Range<u64>) -> Result<Line> {
        let stretch = within.end - within.start;
        let mut near = if stretch <= STRETCH_BYTES {
            stretch
        } else {
            NEAR_BYTES
        };
        loop {
            let from = middle.saturating_sub(near).max(within.start);
            let to = middle.saturating_add(near).min(within.end);
            self.hold(from..to)?;
            let len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            let (skipped, read) = (len(from - self.held.start), len(to - from));
            let held = self.buffer.get(skipped..).unwrap_or_default();
            let held = held.get(..read).unwrap_or(held);
            let (before, behind) = held.split_at(len(middle - from).min(held.len()));
            let start = match search::last_byte(b'\n', before) {
                Some(newline) => Some(newline + 1),
                None => (from == within.start).then_some(0),
            };
            let end = search::byte(b'\n', behind).map(|newline| before.len() + newline + 1);
            if let (Some(start), Some(end)) = (start, end) {
                return Ok(Line {
                    start: from + start as u64,
                    end: from + end as u64,
                    text: skipped + start..skipped + end - 1,
                });
            }
            let all = (from, to) == (within.start, within.end);
            if all || held.len() < read || near > 2 * RECORD_BYTES_MAX as u64 {
                let reason = wrong("a line has no end");
                return Err(corrupt(self.file.path(), middle, reason));
            }
            near *= 8;
        }
    }

    /// Reads this part of the file, unless it is in the buffer.
    fn hold(&mut self, part: std::ops::Range<u64>) -> Result<()> {
        if self.held.start <= part.start && part.end <= self.held.end {
            return Ok(());
        }
        let len = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        self.buffer.resize(len, 0);
        self.held = 0..0;
        let read = self.file.read(&mut self.buffer, part.start)?;
        self.buffer.truncate(read);
        self.held = part.start..part.start + read as u64;
        Ok(())
    }

    fn text(&self, line: &Line) -> &[u8] {
        self.buffer.get(line.text.clone()).unwrap_or_default()
    }

    /// Checks a line; returns whether it is that of a key, and the id or the key.
    fn named(&self, line: &Line) -> Result<(bool, String)> {
        let text = self.text(line);
        let named = checked(text).and_then(|members| {
            if let Some((is_key, name)) = plain_name(members) {
                return Ok((is_key, name.to_owned()));
            }
            match parse::<Named<'_>>(text)? {
                Named { id: Some(id), .. } => Ok((false, id.0.into_owned())),
                Named { key: Some(key), .. } => Ok((true, key.0.into_owned())),
                _ => Err(wrong("a line has neither an id nor a key")),
            }
        });
        named.map_err(|reason| corrupt(self.file.path(), line.start, reason))
    }

    /// Parses a line that [`FileLookup::named`] has accepted.
    fn parsed(&self, line: &Line) -> Result<IssuePart> {
        parse::<IssueLine>(self.text(line))
            .map(|line| line.0)
            .map_err(|reason| corrupt(self.file.path(), line.start, reason))
    }
}

/// A line of the file, in the buffer.
struct Line {
    start: u64,
    end: u64,
    /// Without its newline.
    text: std::ops::Range<usize>,
}
