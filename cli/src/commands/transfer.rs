//! `import` and `export`: issues as JSON Lines.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Seek as _},
    path::Path,
};

use serde::Serialize;
use strand_core::{ImportOptions, Imported, Issues, Seq, Timestamp, write_jsonl};

use super::open;
use crate::{
    args::{Existing, Export, Import},
    exit::Failure,
    output::{Output, tell},
};

pub(crate) fn import(dir: &Path, args: &Import, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        lines: u64,
        added: u64,
        replaced: u64,
        unchanged: u64,
        bad: u64,
        bad_lines: Vec<Bad<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        surrogates: u64,
        last_seq: u64,
    }
    #[derive(Serialize)]
    struct Bad<'a> {
        line: u64,
        reason: &'a str,
    }
    let options = ImportOptions::new(Timestamp::now())
        .skip_bad_lines(args.skip_bad_lines)
        .replace_surrogates(args.replace_surrogates);
    let options = match args.existing {
        Existing::Replace => options,
        Existing::Keep => options.keep_existing(),
        Existing::Refuse => options.refuse_existing(),
    };
    let log = open::log(dir, &args.writing, out)?;
    let imported = log.import(&mut input(args.file.as_deref())?, options)?;
    let Imported {
        lines,
        added,
        replaced,
        unchanged,
        bad,
        bad_lines,
        surrogates,
        last_seq,
        ..
    } = &imported;
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
    }
    let done = Done {
        lines: *lines,
        added: *added,
        replaced: *replaced,
        unchanged: *unchanged,
        bad: *bad,
        bad_lines,
        surrogates: *surrogates,
        last_seq: last_seq.map_or(0, Seq::get),
    };
    out.answer(&done, || {
        format!(
            "{lines} lines: {added} added, {replaced} replaced, {unchanged} unchanged, {bad} bad"
        )
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The lines to import, which the import reads twice. What can't be read twice is copied to a
/// temporary file, which goes away with the process.
fn input(path: Option<&Path>) -> Result<BufReader<File>, Failure> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        return spooled(&mut io::stdin().lock());
    };
    let failed = |error| Failure::io(&format!("cannot open {}", path.display()), &error);
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(BufReader::new(file));
    }
    spooled(&mut file)
}

fn spooled(input: &mut impl io::Read) -> Result<BufReader<File>, Failure> {
    let mut copy = tempfile::tempfile()
        .map_err(|error| Failure::io("cannot create a temporary file", &error))?;
    let copied = io::copy(input, &mut copy).and_then(|_| copy.rewind());
    copied.map_err(|error| Failure::io("cannot read the input", &error))?;
    Ok(BufReader::new(copy))
}

/// Whether a path stands for standard output, which may be open to append.
fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        .iter()
        .any(|name| path == Path::new(name))
}

pub(crate) fn export(dir: &Path, args: &Export, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        file: Cow<'a, str>,
        issues: u64,
    }
    let issues = Issues::load(dir)?;
    let file = args.file.as_deref().filter(|file| !is_stdout(file));
    let Some(file) = file else {
        return out.with(|mut out| write_jsonl(&issues, &mut out));
    };
    let issues = strand_core::export(&issues, file)?;
    let done = Done {
        file: file.to_string_lossy(),
        issues,
    };
    out.result(&done, || format!("{issues} issues"))
}
