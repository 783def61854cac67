//! `import` and `export`: issues as JSON Lines.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read as _},
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
        last_seq: u64,
    }
    #[derive(Serialize)]
    struct Bad<'a> {
        line: u64,
        reason: &'a str,
    }
    let options = ImportOptions::new(Timestamp::now()).skip_bad_lines(args.skip_bad_lines);
    let options = match args.existing {
        Existing::Replace => options,
        Existing::Keep => options.keep_existing(),
        Existing::Refuse => options.refuse_existing(),
    };
    let log = open::log(dir, &args.writing, out)?;
    let imported = if let Some(path) = &args.file {
        let file = File::open(path);
        let file = file.map_err(|error| Failure::io(&opening(path), &error))?;
        log.import(&mut BufReader::new(file), options)?
    } else {
        // The import reads it twice.
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        read.map_err(|error| Failure::io("cannot read the input", &error))?;
        log.import(&mut Cursor::new(bytes), options)?
    };
    let Imported {
        lines,
        added,
        replaced,
        unchanged,
        bad,
        bad_lines,
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
    }
    let done = Done {
        lines: *lines,
        added: *added,
        replaced: *replaced,
        unchanged: *unchanged,
        bad: *bad,
        bad_lines,
        last_seq: last_seq.map_or(0, Seq::get),
    };
    out.result(&done, || {
        format!(
            "{lines} lines: {added} added, {replaced} replaced, {unchanged} unchanged, {bad} bad"
        )
    })
}

fn opening(path: &Path) -> String {
    format!("cannot open {}", path.display())
}

pub(crate) fn export(dir: &Path, args: &Export, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        file: &'a Path,
        issues: u64,
    }
    let issues = Issues::load(dir)?;
    let Some(file) = args.file.as_deref() else {
        return out.with(|mut out| write_jsonl(&issues, &mut out));
    };
    let issues = strand_core::export(&issues, file)?;
    out.result(&Done { file, issues }, || format!("{issues} issues"))
}
