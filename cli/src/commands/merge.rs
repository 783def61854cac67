//! `merge`: a git merge driver for exported issues.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
};

use serde::Serialize;
use strand_core::merge_files;

use super::transfer::drawn_twice;
use crate::{
    args::Merge,
    exit::{Exit, Failure},
    output::{Output, tell},
};

pub(crate) fn merge(args: &Merge, out: &mut Output) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Conflict<'a> {
        id: &'a str,
        field: Option<&'a str>,
        base: Option<&'a str>,
        ours: Option<&'a str>,
        theirs: Option<&'a str>,
    }
    if let Some(pattern) = &args.install {
        return install(pattern, out).map_err(not_merged);
    }
    let [Some(base), Some(ours), Some(theirs)] = [&args.base, &args.ours, &args.theirs] else {
        return Err(not_merged(Failure::usage("three files are required")));
    };
    let merged = merge_files(base, ours, theirs);
    let merged = merged.map_err(|error| not_merged(error.into()))?;
    for [id, new] in &merged.renamed {
        tell(&drawn_twice(id, new));
    }
    for conflict in &merged.conflicts {
        if out.json {
            let json = Conflict {
                id: &conflict.id,
                field: conflict.field.as_deref(),
                base: conflict.base.as_deref(),
                ours: conflict.ours.as_deref(),
                theirs: conflict.theirs.as_deref(),
            };
            out.result(&json, String::new)?;
        } else {
            let field = conflict.field.as_deref().unwrap_or("the whole issue");
            tell(&format!("conflict in {}: {field}", conflict.id));
        }
    }
    Ok(if merged.conflicts.is_empty() {
        Exit::Done
    } else {
        Exit::MergeConflicts
    })
}

/// Git must not take the status for that of a merge with conflicts.
fn not_merged(failure: Failure) -> Failure {
    Failure {
        exit: Exit::NotMerged,
        ..failure
    }
}

/// Ends with a status above 128 also if the driver is not found, or is killed.
const GUARD: &str = "s=$?; [ $s -le 1 ] || s=129; exit $s";

/// Sets up the git repository that this directory is in.
fn install(pattern: &str, out: &mut Output) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Installed<'a> {
        driver: &'a str,
        attributes: &'a str,
    }
    if pattern.is_empty() || pattern.contains(char::is_whitespace) {
        return Err(Failure::usage("PATTERN is one word, as in .gitattributes"));
    }
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let driver = format!("{} merge %O %A %B; {GUARD}", this_command());
    for (name, value) in [
        ("name", "strand: issues, by field"),
        ("driver", driver.as_str()),
        // For a base that is itself a merge with conflicts.
        ("recursive", "binary"),
    ] {
        git(&["config", &format!("merge.issues.{name}"), value])?;
    }
    let path = Path::new(top.trim_end_matches(['\n', '\r'])).join(".gitattributes");
    let failed = |error| Failure::io(&format!("cannot write {}", path.display()), &error);
    let line = format!("{pattern} merge=issues");
    let old = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        old => old.map_err(failed)?,
    };
    if !old.lines().any(|old| old.trim() == line) {
        let end = if old.is_empty() || old.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let file = fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{end}{line}"));
        written.map_err(failed)?;
    }
    let installed = Installed {
        driver: &driver,
        attributes: &line,
    };
    out.result(&installed, || {
        format!(
            "git merges {pattern} with strand in this clone; commit .gitattributes, and run this in \
             every other clone"
        )
    })?;
    Ok(Exit::Done)
}

/// `strand` if that is found on PATH, else this program's path.
fn this_command() -> String {
    let found = Command::new("strand").arg("--version").output();
    match std::env::current_exe() {
        Ok(path) if found.is_err() => {
            let quoted = path.to_string_lossy().replace('\'', r"'\''");
            format!("'{quoted}'")
        }
        _ => "strand".to_owned(),
    }
}

fn git(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("git").args(arguments).output();
    let output = output.map_err(|error| Failure::io("cannot run git", &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = format!("git {}: {}", arguments.join(" "), message.trim_end());
    Err(Failure::new(Exit::Failed, message))
}
