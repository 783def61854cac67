//! Lines of a file, through a buffer. Pure: the caller reads.

use std::io;

use crate::format::search;

/// Splits a file into lines, through a buffer that grows to the longest line and no further.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    unread: std::ops::Range<usize>,
    /// Where in the file the unread part begins.
    offset: u64,
    /// How many lines were passed since the beginning, blank ones included.
    passed: u64,
    /// How much is read next: little at first, since there is little behind the last record.
    chunk_bytes: usize,
    reads: u64,
}

/// A line in the buffer, until the next one is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Its number, counted from 1 where the reading began.
    pub(crate) number: u64,
    start: usize,
    len: usize,
}

impl Span {
    /// Where in the file it ends.
    pub(crate) fn end(self) -> u64 {
        self.offset + self.len as u64
    }
}

const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;

impl Lines {
    /// Starts over at `offset`, and keeps the buffer.
    pub(crate) fn restart(&mut self, offset: u64) {
        self.unread = 0..0;
        self.offset = offset;
        self.passed = 0;
        self.chunk_bytes = CHUNK_BYTES_MIN;
    }

    /// Goes on at `offset`, without reading again what is in the buffer. Whoever goes on near its
    /// end again and again reads more and more at once.
    pub(crate) fn seek(&mut self, offset: u64) {
        let ahead = offset.checked_sub(self.offset).map(usize::try_from);
        match ahead {
            Some(Ok(ahead)) if ahead <= self.unread.len() => self.skip(ahead),
            Some(Ok(ahead)) if ahead <= self.unread.len() + self.chunk_bytes / 2 => {
                let chunk_bytes = self.chunk_bytes;
                self.restart(offset);
                self.chunk_bytes = chunk_bytes;
            }
            _ => self.restart(offset),
        }
    }

    /// The next line that is not blank, or `None` at the end of the file.
    ///
    /// `read` fills a buffer from an offset on, and returns how much was there.
    pub(crate) fn next(
        &mut self,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Option<Span>> {
        let mut searched = 0;
        loop {
            if searched == 0 {
                let blank = self
                    .unread()
                    .iter()
                    .take_while(|byte| **byte == b'\n')
                    .count();
                self.skip(blank);
                self.passed += blank as u64;
            }
            if let Some(end) = self
                .unread()
                .get(searched..)
                .and_then(|new| search::byte(b'\n', new))
            {
                return Ok(Some(self.take(searched + end + 1)));
            }
            searched = self.unread.len();
            if self.fill(&mut read)? == 0 {
                return Ok((searched > 0).then(|| self.take(searched)));
            }
        }
    }

    /// The bytes of the line that [`Lines::next`] returned last, with its newline unless the file
    /// ends without one.
    pub(crate) fn text(&self, span: Span) -> &[u8] {
        self.buffer
            .get(span.start..span.start + span.len)
            .unwrap_or_default()
    }

    /// How often it has read from the file. All lines since the last time were there then.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.unread.clone()).unwrap_or_default()
    }

    fn take(&mut self, len: usize) -> Span {
        self.passed += 1;
        let span = Span {
            offset: self.offset,
            number: self.passed,
            start: self.unread.start,
            len,
        };
        self.skip(len);
        span
    }

    fn skip(&mut self, len: usize) {
        self.unread.start += len;
        self.offset += len as u64;
    }

    /// Reads more behind the unread part; returns how much.
    fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let chunk_bytes = self.chunk_bytes.max(CHUNK_BYTES_MIN);
        self.chunk_bytes = (2 * chunk_bytes).min(CHUNK_BYTES_MAX);
        let wanted = self.unread.end..self.unread.end + chunk_bytes;
        if self.buffer.len() < wanted.end {
            self.buffer.resize(wanted.end, 0);
        }
        let end = self.offset + self.unread.len() as u64;
        let room = self.buffer.get_mut(wanted).unwrap_or_default();
        let read = read(room, end)?;
        self.reads += 1;
        self.unread.end += read;
        Ok(read)
    }
}
