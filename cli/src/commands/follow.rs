//! `follow`: the log's lines as they become durable.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use strand_core::{Error, Follower, Issues, Payload, Reader, Seq};

use crate::{
    archive::{Archive, Archived},
    args::Follow,
    exit::Failure,
    output::Output,
    remote,
};

/// How long one wait takes where there is no limit.
const A_WHILE: Duration = Duration::from_hours(1);

/// Accepts any object, so that the lines of every log can be printed.
#[derive(Serialize, Deserialize)]
struct Anything {}

impl Payload for Anything {}

pub(crate) fn follow(dir: &Path, args: &Follow, out: &mut Output) -> Result<(), Failure> {
    end_with_the_reader();
    if let Some(address) = remote::address(dir)? {
        let log = remote::open(&address, None)?;
        let from = match args.from {
            Some(from) => Seq::new(from),
            None => log.with_issues(Issues::last_seq)?.next(),
        };
        let mut records = log.follow(from)?;
        return print(args, out, |until| {
            let record = match until {
                None => records.try_next()?,
                Some(deadline) => records.next_before(deadline)?,
            };
            Ok(record.map(|record| record.line))
        });
    }
    let reader: Reader<Anything> = Reader::open(dir)?;
    if let Some(archive) = &args.archive {
        let mut records = History::open(dir, archive.as_deref(), reader, args.from.unwrap_or(1))?;
        return print(args, out, |until| records.next(until));
    }
    let mut records = match args.from {
        Some(from) => reader.follow(Seq::new(from))?,
        None => reader.follow_new()?,
    };
    print(args, out, |until| {
        let record = match until {
            None => records.try_next()?,
            Some(deadline) => records.next_before(deadline)?,
        };
        Ok(record.map(|record| record.line))
    })
}

/// Prints the lines of a log. `next` returns the next one, and waits for it if there is a deadline.
fn print(
    args: &Follow,
    out: &mut Output,
    mut next: impl FnMut(Option<Instant>) -> Result<Option<Vec<u8>>, Failure>,
) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 && !out.is_closed() {
        let mut line = next(None)?;
        if line.is_none() {
            // Nothing more for now, so the reader gets all lines so far.
            out.flush()?;
            if out.is_closed() {
                break;
            }
            let idle = args.until_idle_ms.map(Duration::from_millis);
            line = next(Some(Instant::now() + idle.unwrap_or(A_WHILE)))?;
            if line.is_none() && idle.is_some() {
                break;
            }
        }
        if let Some(line) = line {
            out.line(&line)?;
            left -= 1;
        }
    }
    Ok(())
}

/// The records of an archive, and those of the log that it is written from.
struct History {
    archived: Archived,
    reads_archive: bool,
    reader: Reader<Anything>,
    live: Follower<Anything>,
}

impl History {
    fn open(
        dir: &Path,
        archive: Option<&Path>,
        reader: Reader<Anything>,
        from: u64,
    ) -> Result<Self, Failure> {
        let archive = match archive {
            Some(archive) => archive.to_owned(),
            None => Archive::setting(dir)?.ok_or_else(|| {
                Failure::usage("this store has no archive; name one: --archive DIR")
            })?,
        };
        Ok(Self {
            archived: Archive::to_read(dir, &archive)?.records(from),
            reads_archive: true,
            live: reader.follow(Seq::new(from))?,
            reader,
        })
    }

    /// The line of the next record; waits for it if there is a deadline.
    fn next(&mut self, until: Option<Instant>) -> Result<Option<Vec<u8>>, Failure> {
        let mut compacted = None;
        loop {
            if self.reads_archive {
                let archived = self.archived.next()?;
                if archived.is_some() {
                    return Ok(archived);
                }
                if let Some(error) = compacted {
                    return Err(error);
                }
                self.reads_archive = false;
                self.live = self.reader.follow(Seq::new(self.archived.next_seq()))?;
            }
            let record = match until {
                None => self.live.try_next(),
                Some(deadline) => self.live.next_before(deadline),
            };
            match record {
                Err(error @ Error::Compacted { .. }) => {
                    self.archived.seek(self.live.next_seq().get());
                    self.reads_archive = true;
                    compacted = Some(error.into());
                }
                record => return Ok(record?.map(|record| record.line)),
            }
        }
    }
}

/// Ends the process when nobody can read its output any more. An idle log gives nothing to write,
/// so that no write would find out.
#[cfg(unix)]
fn end_with_the_reader() {
    use rustix::event::{PollFd, PollFlags, poll};
    std::thread::spawn(|| {
        let out = std::io::stdout();
        // These two are reported without being asked for.
        let gone = PollFlags::ERR | PollFlags::HUP;
        let mut polled = [PollFd::new(&out, PollFlags::empty())];
        while poll(&mut polled, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        if polled.iter().any(|out| out.revents().intersects(gone)) {
            std::process::exit(0);
        }
    });
}

/// Elsewhere it ends with the next record.
#[cfg(not(unix))]
fn end_with_the_reader() {}
