//! `push` and `pull`: a directory and another store take each other's changes.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use strand_core::{Error, ImportOptions, IssueLog, Issues, Seq, Timestamp, backend::Backend};

use super::{open, transfer::report};
use crate::{
    args::{PreferStore, Pull, Push, Writing},
    exit::Failure,
    output::Output,
    remote,
};

/// How long one wait for a record takes.
const A_WHILE: Duration = Duration::from_mins(1);
/// Records that come so soon after one another are taken together.
const TOGETHER: Duration = Duration::from_millis(100);
/// Those of a time that is no longer than this.
const TOGETHER_MAX: Duration = Duration::from_secs(1);
/// The pause after the other store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

fn options(prefer: Option<PreferStore>) -> ImportOptions {
    let options = ImportOptions::new(Timestamp::now());
    match prefer {
        None => options.refuse_existing(),
        Some(PreferStore::Other) => options,
        Some(PreferStore::Dir) => options.keep_existing(),
        Some(PreferStore::Newer) => options.newer(),
    }
}

/// The directory of an exchange.
fn directory(place: &Path, writing: &Writing, out: &Output) -> Result<IssueLog, Failure> {
    if remote::address(place)?.is_some() {
        let message = "one of the two is a directory: `strand push DIR STORE`, \
                       `strand pull STORE DIR`";
        return Err(Failure::usage(message));
    }
    open::log(place, writing, out)
}

/// What the directory remembers the other store by.
fn name(place: &Path) -> Result<String, Failure> {
    if let Some(address) = remote::address(place)? {
        return Ok(address.to_string());
    }
    let found = place.canonicalize();
    let found = found.map_err(|error| Failure::io(&place.display().to_string(), &error))?;
    Ok(found.to_string_lossy().into_owned())
}

pub(crate) fn push(args: &Push, out: &mut Output) -> Result<(), Failure> {
    let ours = directory(&args.dir, &args.writing, out)?;
    let other = open::store(&args.to, &args.writing, out)?;
    let pushed = ours.push(other.as_ref(), &name(&args.to)?, options(args.prefer))?;
    report(&pushed, out)
}

pub(crate) fn pull(args: &Pull, out: &mut Output) -> Result<(), Failure> {
    let ours = directory(&args.dir, &args.writing, out)?;
    let other = open::store(&args.from, &args.writing, out)?;
    let name = name(&args.from)?;
    let pull = |out: &mut Output| -> Result<(), Failure> {
        let pulled = ours.pull(other.as_ref(), &name, options(args.prefer))?;
        report(&pulled, out)?;
        out.flush()
    };
    // Whatever comes after this is a reason for another pull.
    let seen = last_seq(other.as_ref())?;
    pull(out)?;
    if !args.follow {
        return Ok(());
    }
    let mut next = seen.next();
    while !out.is_closed() {
        match wait(other.as_ref(), &mut next) {
            Ok(true) => pull(out)?,
            Ok(false) => {}
            Err(Error::Compacted { .. }) => {
                next = last_seq(other.as_ref())?.next();
                pull(out)?;
            }
            Err(Error::Unavailable { .. }) => thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn last_seq(store: &dyn Backend) -> Result<Seq, Failure> {
    let mut last = Seq::default();
    store.look(&mut |issues: &Issues| last = issues.last_seq())?;
    Ok(last)
}

/// Waits for records from `next` on; false if none came.
fn wait(store: &dyn Backend, next: &mut Seq) -> Result<bool, Error> {
    let mut records = store.follow(*next)?;
    let Some(first) = records.next_before(Instant::now() + A_WHILE)? else {
        return Ok(false);
    };
    *next = first.seq.next();
    let end = Instant::now() + TOGETHER_MAX;
    while let Some(record) = records.next_before(end.min(Instant::now() + TOGETHER))? {
        *next = record.seq.next();
    }
    Ok(true)
}
