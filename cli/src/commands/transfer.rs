//! `import`, `export` and `sync`: issues as JSON Lines.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Seek as _},
    ops::ControlFlow,
    path::Path,
};

use serde::Serialize;
use strand_core::{
    ImportOptions, Imported, Issues, Seq, Timestamp, export_mirror, overwrite_mirror, write_jsonl,
};

use super::open;
use crate::{
    args::{Existing, Export, Import, Prefer, Sync},
    exit::Failure,
    input::say_that_it_waits,
    output::{Output, counted, tell},
    remote,
};

pub(crate) fn import(dir: &Path, args: &Import, out: &mut Output) -> Result<(), Failure> {
    let options = ImportOptions::new(Timestamp::now())
        .skip_bad_lines(args.skip_bad_lines)
        .replace_surrogates(args.replace_surrogates);
    let options = match args.existing {
        Existing::Replace => options,
        Existing::Keep => options.keep_existing(),
        Existing::Newer => options.newer(),
        Existing::Refuse => options.refuse_existing(),
    };
    let options = if args.missing.delete_missing {
        options.delete_missing()
    } else if args.missing.keep_missing {
        options.keep_missing()
    } else {
        options
    };
    let log = open::log(dir, &args.writing, out)?;
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let imported = match file {
        Some(file) if file.is_file() => log.import_file(file, options)?,
        other => log.import(&mut spooled(other)?, options)?,
    };
    report(&imported, out)
}

pub(crate) fn sync(dir: &Path, args: &Sync, out: &mut Output) -> Result<(), Failure> {
    let options = ImportOptions::new(Timestamp::now()).replace_surrogates(args.replace_surrogates);
    let options = match args.prefer {
        None => options.refuse_existing(),
        Some(Prefer::File) => options,
        Some(Prefer::Store) => options.keep_existing(),
        Some(Prefer::Newer) => options.newer(),
    };
    let log = open::log(dir, &args.writing, out)?;
    report(&log.sync(&args.file, options)?, out)
}

/// Prints what an import or a sync did.
pub(super) fn report(imported: &Imported, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        lines: u64,
        added: u64,
        replaced: u64,
        unchanged: u64,
        #[serde(skip_serializing_if = "is_zero")]
        deleted: u64,
        #[serde(skip_serializing_if = "is_zero")]
        exported: u64,
        bad: u64,
        bad_lines: Vec<Bad<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        surrogates: u64,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        renamed: &'a [[String; 2]],
        last_seq: u64,
    }
    #[derive(Serialize)]
    struct Bad<'a> {
        line: u64,
        reason: &'a str,
    }
    let Imported {
        lines,
        added,
        replaced,
        unchanged,
        deleted,
        exported,
        bad,
        bad_lines,
        surrogates,
        renamed,
        decided,
        last_seq,
        ..
    } = imported;
    let bad_lines = bad_lines.iter().map(|(line, reason)| Bad {
        line: *line,
        reason,
    });
    let bad_lines: Vec<Bad<'_>> = bad_lines.collect();
    if !out.json {
        for Bad { line, reason } in &bad_lines {
            tell(&format!("strand: skipped line {line}: {reason}"));
        }
        if *surrogates > 0 {
            tell(&format!(
                "strand: halves of surrogate pairs replaced: {surrogates}"
            ));
        }
        for conflict in decided {
            let field = conflict.field.as_deref().unwrap_or("the whole issue");
            tell(&format!("strand: decided: {} ({field})", conflict.id));
        }
        for [id, new] in renamed {
            tell(&drawn_twice(id, new));
        }
    }
    let done = Done {
        lines: *lines,
        added: *added,
        replaced: *replaced,
        unchanged: *unchanged,
        deleted: *deleted,
        exported: *exported,
        bad: *bad,
        bad_lines,
        surrogates: *surrogates,
        renamed,
        last_seq: last_seq.map_or(0, Seq::get),
    };
    out.answer(&done, || {
        let counts = format!(
            "{}: {added} added, {replaced} replaced, {unchanged} unchanged",
            counted(*lines, "line")
        );
        let also = [(deleted, "deleted"), (exported, "exported")];
        let also = also.into_iter().filter(|(count, _)| **count > 0);
        let also = also.map(|(count, done)| format!(", {count} {done}"));
        format!("{counts}{}, {bad} bad", also.collect::<String>())
    })
}

/// Says that an issue has a new id.
pub(crate) fn drawn_twice(id: &str, new: &str) -> String {
    format!("strand: two issues had drawn the id {id}; the later one is {new} now")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A copy of what can't be read twice, as an import does: of standard input, or of a pipe. It goes
/// away with the process.
fn spooled(path: Option<&Path>) -> Result<BufReader<File>, Failure> {
    let copy = tempfile::tempfile();
    let mut copy = copy.map_err(|error| Failure::io("cannot create a temporary file", &error))?;
    let copied = match path {
        None => {
            say_that_it_waits();
            io::copy(&mut io::stdin().lock(), &mut copy)
        }
        Some(path) => {
            let failed = |error| Failure::io(&format!("cannot open {}", path.display()), &error);
            io::copy(&mut File::open(path).map_err(failed)?, &mut copy)
        }
    };
    let copied = copied.and_then(|_| copy.rewind());
    copied.map_err(|error| Failure::io("cannot read the input", &error))?;
    Ok(BufReader::new(copy))
}

/// Prints issues one after the other: there may be more than fits into memory.
fn print_each(dir: &Path, out: &mut Output) -> Result<(), Failure> {
    let mut printed = Ok(());
    Issues::each(dir, |_, _, issue| {
        // A store has each in one line.
        printed = out.with(|out| writeln!(out, "{}", issue.as_json()));
        if printed.is_err() || out.is_closed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    printed
}

pub(crate) fn export(dir: &Path, args: &Export, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        file: Cow<'a, str>,
        issues: u64,
    }
    let file = args.file();
    if file.is_none() && remote::address(dir)?.is_none() {
        return print_each(dir, out);
    }
    let issues = open::issues(dir)?;
    let Some(file) = file else {
        return out.with(|mut out| write_jsonl(&issues, &mut out));
    };
    let issues = if args.force {
        overwrite_mirror(dir, &issues, file)?
    } else {
        export_mirror(dir, &issues, file)?
    };
    let done = Done {
        file: file.to_string_lossy(),
        issues,
    };
    out.result(&done, || counted(issues, "issue"))
}
