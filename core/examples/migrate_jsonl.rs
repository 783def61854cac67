//! Imports the issues of a plain JSONL file, to which older agents appended one line for each issue
//! and each change.
//!
//! ```sh
//! printf '%s\n' '{"id":"bd-1","title":"Mend the fence"}' 'oops' \
//!     '{"id":"bd-1","title":"Mend it","x":1.10}' > old.jsonl
//! mkdir -p store
//! run() { cargo run -q -p strand-core --example migrate_jsonl -- "$@"; }
//! run old.jsonl store              # names line 2, and changes nothing
//! run old.jsonl store --skip-bad   # 1 issue, compared to the byte
//! ```
//!
//! The last line of an issue counts. Expect each bad line with its number on standard error, and a
//! count of what was done. The exit status is 0 only if every issue of the file is in the store.
//! Run it as often as you like: a second run finishes what a killed one has left, and never
//! overwrites an issue that is in the store already, since it may have been changed there. Stop the
//! older agents before the last run.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Cursor},
    path::Path,
};

use strand_core::{ImportOptions, Issue, IssueLog, Issues, Options, Timestamp, export};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (file, dir, skip_bad) = match arguments.as_slice() {
        [file, dir] => (*file, *dir, false),
        [file, dir, "--skip-bad"] => (*file, *dir, true),
        _ => return Err("usage: migrate_jsonl FILE.jsonl STORE [--skip-bad]".into()),
    };
    let old = Old::read(file)?;
    for (line, reason) in &old.bad {
        eprintln!("{file}, line {line}: {reason}");
    }
    if !old.bad.is_empty() && !skip_bad {
        return Err(format!(
            "{} bad lines; nothing was changed; correct them, or leave them out with --skip-bad",
            old.bad.len()
        )
        .into());
    }

    let log = IssueLog::open(dir, Options::default())?;
    let before = log.with_issues(Issues::clone)?;
    let lines: String = old
        .issues
        .values()
        .flat_map(|issue| [issue.as_json(), "\n"])
        .collect();
    let options = ImportOptions::new(Timestamp::now()).keep_existing();
    let imported = log.import(&mut Cursor::new(lines), options)?;

    // Compared with what an export contains from now on.
    let exported = Path::new(dir).with_extension("exported.jsonl");
    export(&Issues::load(dir)?, &exported)?;
    let after = Old::read(&exported)?;
    let mut problems = 0;
    for (id, issue) in &old.issues {
        match after.issues.get(id) {
            Some(found) if found == issue => {}
            Some(_) if before.get(id).is_some() => {
                println!("{id}: the store had it already, and keeps what it has");
            }
            Some(found) => {
                eprintln!(
                    "{id}: stored is {}, not {}",
                    found.as_json(),
                    issue.as_json()
                );
                problems += 1;
            }
            None => {
                eprintln!("{id}: not in the store");
                problems += 1;
            }
        }
    }
    fs::remove_file(&exported)?;
    println!(
        "{} lines with {} issues: {} added, {} there before, {} bad lines left out",
        old.lines,
        old.issues.len(),
        imported.added,
        imported.unchanged,
        old.bad.len()
    );
    if problems > 0 {
        return Err(format!("{problems} issues are not as in the file").into());
    }
    Ok(())
}

/// The contents of a file.
#[derive(Default)]
struct Old {
    lines: u64,
    /// The last line of each issue.
    issues: BTreeMap<String, Issue>,
    /// The lines that are no issue: their numbers, from 1, and the reasons.
    bad: Vec<(u64, String)>,
}

impl Old {
    fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut old = Self::default();
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            old.lines += 1;
            let line = match line.strip_prefix(b"\xef\xbb\xbf") {
                Some(rest) if old.lines == 1 => rest, // A byte order mark.
                _ => &line,
            };
            match issue(line.trim_ascii()) {
                Ok(None) => {}
                Ok(Some(issue)) => drop(old.issues.insert(issue.id(), issue)),
                Err(reason) => old.bad.push((old.lines, reason)),
            }
        }
        Ok(old)
    }
}

/// The issue in a line; `None` for a blank line.
fn issue(line: &[u8]) -> Result<Option<Issue>, String> {
    let text = str::from_utf8(line).map_err(|error| error.to_string())?;
    if text.is_empty() {
        return Ok(None);
    }
    let issue = Issue::from_json(text).map_err(|error| error.to_string())?;
    Ok(Some(issue))
}
