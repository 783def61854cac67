//! An open segment: its file, and questions to its bytes.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    env::storage::OpenMode,
    error::Result,
    format::{
        lines::Lines,
        record::{END_MARK, Header, Line, RECORD_BYTES_MAX, segment_name},
        scan::Scan,
        search::last_byte,
    },
    wal::{
        shm::TailHint,
        store_dir::{StoreDir, StoreFile},
    },
};

/// How much is read at a time when reading backwards.
const WINDOW_BYTES: u64 = 64 << 10;

/// The segment that records are appended to, or the one before it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    pub(crate) file: StoreFile,
    /// How long the file was when this process last looked, free space included. Only a hint.
    len_bytes: AtomicU64,
    /// What identifies the file, where it is written to.
    identity: Option<(u64, u64)>,
}

/// The bytes at the place where the log should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nothing, or free space.
    Nothing,
    /// Bytes of a writer that died before it published them.
    Bytes,
    /// The log is shorter, or no record ends there.
    NotATail,
}

impl Segment {
    pub(crate) fn new(first_seq: u64, file: StoreFile) -> Self {
        Self {
            first_seq,
            file,
            len_bytes: AtomicU64::new(0),
            identity: None,
        }
    }

    /// A segment that is written to.
    pub(crate) fn writable(first_seq: u64, file: StoreFile) -> Result<Self> {
        let identity = Some(file.identity()?);
        Ok(Self {
            identity,
            ..Self::new(first_seq, file)
        })
    }

    /// The first record, and what identifies the file.
    pub(crate) fn identity(&self) -> Option<(u64, (u64, u64))> {
        Some((self.first_seq, self.identity?))
    }

    /// Scans from an offset on, where the record `next_seq` should be.
    pub(crate) fn scan(&self, next_seq: u64, from: u64) -> Result<Scan> {
        let mut scan = Scan::new(next_seq, from);
        let mut lines = Lines::default();
        lines.restart(from);
        while let Some(span) = self.file.next_line(&mut lines)? {
            scan.line(lines.text(span), span.offset);
        }
        Ok(scan)
    }

    /// Looks at the byte before the tail and at the one behind it.
    pub(crate) fn behind(&self, tail: TailHint) -> Result<Behind> {
        let mut bytes = [0; 2];
        let before = tail.offset.min(1);
        let window = bytes
            .get_mut(..1 + usize::from(before == 1))
            .unwrap_or_default();
        let read = self.file.read(window, tail.offset - before)?;
        Ok(match (before, window.get(..read).unwrap_or_default()) {
            (0, [] | [b'\n']) | (1, [b'\n'] | [b'\n', b'\n']) => Behind::Nothing,
            // The mark of a segment that has a successor.
            (0, [b'\t']) | (1, [b'\n', b'\t']) => Behind::NotATail,
            (0, [_]) | (1, [b'\n', _]) => Behind::Bytes,
            _ => Behind::NotATail,
        })
    }

    /// Reads the last record: is it the one that the tail says?
    pub(crate) fn ends_with(&self, tail: TailHint) -> Result<bool> {
        if tail.seq < tail.segment {
            return Ok(tail.offset == 0);
        }
        let len = usize::try_from(tail.offset - tail.last_offset).unwrap_or(usize::MAX);
        if len > RECORD_BYTES_MAX {
            return Ok(false);
        }
        let mut line = vec![0; len];
        let read = self.file.read(&mut line, tail.last_offset)?;
        let text = line.get(..read).and_then(|line| line.strip_suffix(b"\n"));
        Ok(text.and_then(seq_of) == Some(tail.seq))
    }

    /// The number of the first record; `None` where the first line is none.
    pub(crate) fn first_record(&self) -> Result<Option<u64>> {
        let mut lines = Lines::default();
        lines.restart(0);
        let Some(span) = self.file.next_line(&mut lines)? else {
            return Ok(None);
        };
        Ok(lines.text(span).strip_suffix(b"\n").and_then(seq_of))
    }

    /// The header of the last record; `None` where the last line is none. Reads backwards.
    pub(crate) fn last_record(&self) -> Result<Option<Header>> {
        let mut end = self.file.len_bytes()?;
        // The part of the last line that was read.
        let mut line = Vec::new();
        loop {
            let from = end.saturating_sub(WINDOW_BYTES);
            let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
            let read = self.file.read(&mut bytes, from)?;
            bytes.truncate(read);
            if line.is_empty() {
                bytes.truncate(content_len(&bytes));
            }
            bytes.append(&mut line);
            let start = last_byte(b'\n', &bytes).map(|newline| newline + 1);
            if start.is_some() || from == 0 || bytes.len() > RECORD_BYTES_MAX {
                return Ok(bytes.get(start.unwrap_or(0)..).and_then(header_of));
            }
            (end, line) = (from, bytes);
        }
    }

    /// Where the records above `durable_seq` begin; `None` when there are none.
    ///
    /// They are few, so this reads backwards, in growing steps.
    fn in_doubt_from(&self, tail: TailHint, durable_seq: u64) -> Result<Option<u64>> {
        if durable_seq >= tail.seq {
            return Ok(None);
        }
        let mut window = WINDOW_BYTES;
        loop {
            let from = tail.offset.saturating_sub(window);
            let mut bytes = vec![0; usize::try_from(tail.offset - from).unwrap_or(usize::MAX)];
            self.file.read(&mut bytes, from)?;
            // The first line of a window that begins within the file is only the end of one.
            let mut offset = from;
            for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                let whole = number > 0 || from == 0;
                let seq = Line::trusted(text)
                    .filter(|_| whole)
                    .map(|line| line.header.seq);
                match seq {
                    Some(seq) if seq == durable_seq + 1 => return Ok(Some(offset)),
                    Some(seq) if seq > durable_seq + 1 && from > 0 => break,
                    _ => offset += line.len() as u64,
                }
            }
            if from == 0 {
                return Ok(Some(0)); // All of this segment is in doubt.
            }
            window *= 8;
        }
    }

    /// Writes a range of the file again as it is.
    ///
    /// After a failed sync, the system may hold pages for clean that never reached the disk. A
    /// later sync covers them only if they were written again. // I7
    pub(crate) fn rewrite(&self, from: u64, to: u64) -> Result<()> {
        let write = |offset, bytes: &[u8]| self.file.write(bytes, offset);
        self.file.chunks(from..to, write)
    }

    /// Rewrites the records above `durable_seq`.
    pub(crate) fn rewrite_in_doubt(&self, tail: TailHint, durable_seq: u64) -> Result<()> {
        match self.in_doubt_from(tail, durable_seq)? {
            Some(from) => self.rewrite(from, tail.offset),
            None => Ok(()),
        }
    }

    /// Rewrites the records above `durable_seq`, and syncs.
    pub(crate) fn sync_in_doubt(&self, tail: TailHint, durable_seq: u64) -> Result<()> {
        self.rewrite_in_doubt(tail, durable_seq)?;
        self.file.sync()
    }

    /// Writes `want` bytes of free space behind the log when the file ends before `end`.
    ///
    /// Failing is harmless: the record is then written at the end of the file, or fails by itself.
    pub(crate) fn preallocate(&self, want: u64, end: u64) {
        let want = usize::try_from(want).unwrap_or(0);
        if want == 0 || end <= self.len_bytes.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut len) = self.file.len_bytes() else {
            return;
        };
        if end > len {
            let space = vec![b'\n'; want];
            len += self.file.raw().write_at(&space, len).unwrap_or(0) as u64;
        }
        self.len_bytes.store(len, Ordering::Relaxed);
    }

    /// Has the next append look at the file's length anew.
    pub(crate) fn forget_len(&self) {
        self.len_bytes.store(0, Ordering::Relaxed);
    }
}

/// The length without free space, and without the mark of a segment that has a successor.
fn content_len(bytes: &[u8]) -> usize {
    // Free space is long: a comparison of many bytes is faster than many of one.
    const FREE: [u8; 1024] = [b'\n'; 1024];
    let without_newlines = |mut bytes: &[u8]| {
        while let Some(rest) = bytes.strip_suffix(&FREE) {
            bytes = rest;
        }
        let last = bytes.iter().rposition(|byte| *byte != b'\n');
        last.map_or(0, |last| last + 1)
    };
    let len = without_newlines(bytes);
    let mark = END_MARK.strip_suffix(b"\n").unwrap_or(END_MARK);
    match bytes.get(..len).and_then(|text| text.strip_suffix(mark)) {
        Some(text) => without_newlines(text),
        None => len,
    }
}

/// The number of the record that is this text.
fn seq_of(text: &[u8]) -> Option<u64> {
    header_of(text).map(|header| header.seq)
}

fn header_of(text: &[u8]) -> Option<Header> {
    Line::parse(text).ok().map(|line| line.header)
}

/// The segment that this process has open to write: one at most.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    dir: StoreDir,
    open: Mutex<Option<Arc<Segment>>>,
}

impl OpenSegment {
    pub(crate) fn new(dir: &StoreDir) -> Self {
        Self {
            dir: dir.clone(),
            open: Mutex::default(),
        }
    }

    /// The segment that begins with `first_seq`, if it is the open one.
    pub(crate) fn get(&self, first_seq: u64) -> Option<Arc<Segment>> {
        let is_it = |segment: &&Arc<Segment>| segment.first_seq == first_seq;
        self.slot().as_ref().filter(is_it).map(Arc::clone)
    }

    /// Opens the segment that begins with `first_seq`; `None` when there is none.
    pub(crate) fn open(&self, first_seq: u64) -> Result<Option<Arc<Segment>>> {
        let name = segment_name(first_seq);
        let file = self.dir.open_if_there(&name, OpenMode::ReadWrite)?;
        let segment = file.map(|file| Segment::writable(first_seq, file));
        Ok(segment.transpose()?.map(|segment| self.put(segment)))
    }

    pub(crate) fn put(&self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        *self.slot() = Some(Arc::clone(&segment));
        segment
    }

    /// The first record of the open segment, and what identifies its file.
    pub(crate) fn identity(&self) -> Option<(u64, (u64, u64))> {
        self.slot().as_ref()?.identity()
    }

    /// Closes the open segment, so that it is looked for by name.
    pub(crate) fn close(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Segment>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_and_the_mark_are_no_content_however_long_it_is() {
        for free in [0, 1, 2, 1_023, 1_024, 1_025, 2_047, 2_048, 2_049, 70_000] {
            for text in ["", "x", "\nx", "{}\n{}"] {
                let newlines = "\n".repeat(free);
                let len = text.trim_end_matches('\n').len();
                let bytes = format!("{text}{newlines}");
                assert_eq!(content_len(bytes.as_bytes()), len, "{text:?}, {free}");
                let mark = std::str::from_utf8(END_MARK).unwrap();
                let marked = format!("{text}\n{mark}{newlines}");
                assert_eq!(content_len(marked.as_bytes()), len, "{text:?}, {free}");
            }
        }
    }
}
