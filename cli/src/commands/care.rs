//! `compact`, `doctor` and `repair`: maintenance.

use std::{fmt, path::Path};

use serde::Serialize;
use strand_core::{
    Compacted, Error, IssueEvent, Reader,
    backend::Backend,
    check::{Advice, CheckReport, check},
    repair,
};

use super::open;
use crate::{
    archive::Archive,
    args::{Compact, Repair},
    exit::{Exit, Failure},
    output::{Output, counted},
    remote,
};

pub(crate) fn compact(dir: &Path, args: &Compact, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        compacted: bool,
        seq: u64,
        issues: u64,
        bytes: u64,
        removed: &'a [String],
        lock_held_ms: u128,
        elapsed_ms: u128,
    }
    #[derive(Serialize)]
    struct Nothing {
        compacted: bool,
        reason: &'static str,
    }
    let log = open_to_compact(dir, args, out)?;
    let mut nothing = |reason, text: &str| {
        let compacted = false;
        out.result(&Nothing { compacted, reason }, || text.to_owned())
    };
    if args.if_due && !log.compaction_due()? {
        return nothing("not_due", "nothing to do: the log is short");
    }
    match log.compact()? {
        Compacted::Done {
            seq,
            entries: issues,
            bytes,
            removed,
            lock_held,
            elapsed,
            ..
        } => {
            let done = Done {
                compacted: true,
                seq: seq.get(),
                issues,
                bytes,
                removed: &removed,
                lock_held_ms: lock_held.as_millis(),
                elapsed_ms: elapsed.as_millis(),
            };
            out.answer(&done, || {
                let files = removed.len();
                format!(
                    "folded the records through {seq} into a snapshot of {} in {elapsed:.1?}; \
                     wrote {bytes} bytes; obsolete files removed: {files}",
                    counted(issues, "issue")
                )
            })
        }
        Compacted::AlreadyRunning => nothing(
            "already_running",
            "nothing done: another process is compacting this store",
        ),
        _ => nothing("nothing_new", "nothing to do: there are no new records"),
    }
}

/// The store, with an archive if there is to be one.
fn open_to_compact(dir: &Path, args: &Compact, out: &Output) -> Result<Box<dyn Backend>, Failure> {
    if remote::address(dir)?.is_some() {
        return open::store(dir, &args.writing, out);
    }
    // Says that there is no store, before a directory is made.
    Reader::<IssueEvent>::open(dir)?;
    let mut options = open::options(&args.writing, out.json);
    if let Some(archive) = Archive::to_write(dir, args.archive.as_deref())? {
        options = options.archive(move |segment, bytes| archive.keep(segment, bytes));
    }
    Ok(Box::new(open::log_with(dir, options, out)?))
}

/// What the command adds to the report of the library.
#[derive(Serialize)]
struct Examined<'a> {
    #[serde(flatten)]
    report: &'a CheckReport,
    archive: &'a Option<ArchiveReport>,
}

#[derive(Serialize)]
struct ArchiveReport {
    dir: String,
    problem: Option<String>,
}

impl fmt::Display for ArchiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => writeln!(f, "archive: {}", self.dir),
            Some(problem) => writeln!(
                f,
                "archive: {problem}; until that is mended, no compaction removes anything"
            ),
        }
    }
}

pub(crate) fn doctor(dir: &Path, out: &mut Output) -> Result<Exit, Failure> {
    let report = check(dir)?;
    if report.store.is_none() && report.advice == Advice::Open {
        let path = dir.to_owned();
        return Err(Error::NoStore { path }.into());
    }
    let (archive, problem) = match Archive::examine(dir) {
        None => (None, None),
        Some((dir, examined)) => {
            let failure = examined.err();
            let problem = failure.as_ref().map(|failure| failure.message.clone());
            let dir = dir.to_string_lossy().into_owned();
            (Some(ArchiveReport { dir, problem }), failure)
        }
    };
    let examined = Examined {
        report: &report,
        archive: &archive,
    };
    out.result(&examined, || match &archive {
        None => report.to_string(),
        Some(archive) => format!("{report}{archive}"),
    })?;
    Ok(match report.advice {
        Advice::Nothing | Advice::Open => problem.map_or(Exit::Done, |failure| failure.exit),
        Advice::Repair | Advice::RestoreBackup => Exit::Corrupt,
        Advice::Upgrade => Exit::Unusable,
        _ => Exit::Failed,
    })
}

pub(crate) fn repair(dir: &Path, args: &Repair, out: &mut Output) -> Result<(), Failure> {
    let options = open::options(&args.writing, out.json);
    let report = repair::repair(dir, &options)?;
    out.answer(&report, || report.to_string())
}
