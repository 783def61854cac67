//! Standard output and standard error.

use std::{
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write},
    process::{Child, ChildStdin},
};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::Style;
use serde::Serialize;
use strand_core::{Receipt, Seq};

use crate::{exit::Failure, pager};

/// The command's output: text or JSON.
pub(crate) struct Output {
    pub(crate) json: bool,
    /// Whether text is coloured: on a terminal, unless `NO_COLOR` is set.
    pub(crate) coloured: bool,
    /// The text of an answer about what is stored, until it is printed.
    answer: String,
    out: BufWriter<UntilClosed<Sink>>,
    pager: Option<Child>,
}

/// Where the output goes.
#[derive(Debug)]
enum Sink {
    Stdout(StdoutLock<'static>),
    Pager(ChildStdin),
    Nowhere(io::Sink),
}

impl Sink {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(out) => out,
            Self::Pager(out) => out,
            Self::Nowhere(out) => out,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            coloured: !json && AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            answer: String::new(),
            out: into(Sink::Stdout(io::stdout().lock())),
            pager: None,
        }
    }

    /// Has a person at a terminal read what follows in a pager.
    pub(crate) fn page(&mut self) {
        if !self.json
            && io::stdout().is_terminal()
            && let Some((child, input)) = pager::start()
        {
            self.out = into(Sink::Pager(input));
            self.pager = Some(child);
        }
    }

    /// Writes buffered output, and waits until it is read in the pager.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        if let Some(mut pager) = self.pager.take() {
            self.out = into(Sink::Nowhere(io::sink()));
            pager.wait().ok();
        }
        Ok(())
    }

    /// Prints a result, as one line of JSON or as text.
    pub(crate) fn result(
        &mut self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.line(text());
        }
        // As a whole, so that a failure leaves no half of an object.
        let written = serde_json::to_vec(json).map_err(io::Error::from);
        match written {
            Ok(line) => self.line(line),
            Err(error) => self.checked(Err(error)),
        }
    }

    /// Prints the answer of a write, at once: a process that is killed before that leaves a write
    /// without an answer. If it fails, the message has the text.
    pub(crate) fn answer(
        &mut self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = text();
        text.trim_end().clone_into(&mut self.answer);
        self.result(json, || text)?;
        self.flush()
    }

    /// Prints the number of a record that was written, and what is unusual about its effect.
    pub(crate) fn receipt(
        &mut self,
        receipt: Receipt,
        effect: Option<&'static str>,
    ) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Stored {
            seq: Seq,
            repeated: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            effect: Option<&'static str>,
        }
        let Receipt { seq, repeated, .. } = receipt;
        let stored = Stored {
            seq,
            repeated,
            effect,
        };
        self.answer(&stored, || seq.to_string())
    }

    /// The text in this style, if text is coloured.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        if self.coloured {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// Prints a line, adding the newline if it is missing.
    pub(crate) fn line(&mut self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        let text = text.as_ref();
        let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
        let written = self.out.write_all(text);
        let written = written.and_then(|()| self.out.write_all(end));
        self.checked(written)
    }

    /// Lets `write` print.
    pub(crate) fn with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let written = write(&mut self.out);
        self.checked(written)
    }

    /// Writes buffered output.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        self.checked(flushed)?;
        self.answer.clear();
        Ok(())
    }

    fn checked(&self, written: io::Result<()>) -> Result<(), Failure> {
        written.map_err(|error| {
            let failure = Failure::io("cannot write the output", &error);
            match self.answer.as_str() {
                "" => failure,
                answer => failure.although_stored(answer),
            }
        })
    }

    /// Whether the reader has closed the pipe, as far as the last write showed.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.get_ref().closed
    }
}

fn into(sink: Sink) -> BufWriter<UntilClosed<Sink>> {
    BufWriter::new(UntilClosed::new(sink))
}

/// A writer that discards everything once the reader has closed the pipe, which is not a failure.
#[derive(Debug)]
struct UntilClosed<W> {
    out: W,
    closed: bool,
}

impl<W: Write> UntilClosed<W> {
    fn new(out: W) -> Self {
        Self { out, closed: false }
    }

    fn unless_closed<T>(
        &mut self,
        closed: T,
        act: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.closed {
            return Ok(closed);
        }
        match act(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(closed)
            }
            done => done,
        }
    }
}

impl<W: Write> Write for UntilClosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), Write::flush)
    }
}

/// A number of things, such as `1 issue` or `2 issues`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{end}")
}

/// Prints a line on standard error. A closed pipe is not a failure.
pub(crate) fn tell(text: &str) {
    let mut line = text.trim_end().to_owned();
    line.push('\n');
    io::stderr().write_all(line.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes this many bytes, and then fails with this error.
    struct Pipe(usize, io::ErrorKind);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_error() {
        let mut out = UntilClosed::new(Pipe(3, io::ErrorKind::BrokenPipe));
        out.write_all(b"abc").unwrap();
        assert!(!out.closed);
        out.write_all(b"defg").unwrap();
        assert!(out.closed);
        out.flush().unwrap();

        let mut full = UntilClosed::new(Pipe(3, io::ErrorKind::StorageFull));
        let error = full.write_all(b"defg").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
