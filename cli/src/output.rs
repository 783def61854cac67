//! What is printed, and to whom.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::exit::Failure;

/// The command's output: words or JSON, as was asked for.
pub(crate) struct Output {
    pub(crate) json: bool,
    out: BufWriter<UntilClosed<StdoutLock<'static>>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            out: BufWriter::new(UntilClosed::new(io::stdout().lock())),
        }
    }

    /// Prints a result: as one line of JSON, or the words.
    pub(crate) fn result(
        &mut self,
        json: &impl Serialize,
        words: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.line(words());
        }
        let written = serde_json::to_writer(&mut self.out, json).map_err(io::Error::from);
        failing(written.and_then(|()| self.out.write_all(b"\n")))
    }

    /// Prints a line; the newline is added where it is missing.
    pub(crate) fn line(&mut self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        let text = text.as_ref();
        let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
        failing(
            self.out
                .write_all(text)
                .and_then(|()| self.out.write_all(end)),
        )
    }

    /// Lets `write` print.
    pub(crate) fn with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        failing(write(&mut self.out))
    }

    /// Hands on what was printed so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        failing(self.out.flush())
    }

    /// True once nobody reads the output any more. Noticed when something is handed on.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.get_ref().closed
    }
}

fn failing(written: io::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| Failure::io("cannot write the output", &error))
}

/// Passes everything on until the reader has closed the pipe, and then nothing: that is no failure.
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

/// Tells a person something beside the output. That nobody listens is no failure.
pub(crate) fn tell(text: &str) {
    let mut line = text.trim_end().to_owned();
    line.push('\n');
    io::stderr().write_all(line.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and is closed then.
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
    fn a_closed_pipe_is_no_error_and_others_are() {
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
