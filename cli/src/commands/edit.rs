//! `edit`: an issue in the user's editor.

use std::{fmt::Write as _, fs, io::Write as _, path::Path, process::Command};

use strand_core::{Batch, Issue};

use super::open;
use crate::{
    args::Edit,
    exit::{Exit, Failure},
    output::Output,
};

pub(crate) fn edit(dir: &Path, args: &Edit, out: &mut Output) -> Result<(), Failure> {
    let log = open::store(dir, &args.writing, out)?;
    let Some(found) = log.get(&args.id)? else {
        let missing = format!("there is no issue {:?}", args.id);
        return Err(Failure::new(Exit::NotFound, missing));
    };
    let before = spread(&found.issue);
    let after = in_editor(&before)?;
    if after == before {
        return out.line("nothing changed");
    }
    let issue = Issue::from_json(after.trim()).map_err(strand_core::Error::InvalidEvent)?;
    if issue.id() != args.id {
        return Err(Failure::new(Exit::Refused, "an issue keeps its id"));
    }
    let batch = Batch::new().update_if(issue, found.version);
    out.receipt(log.commit(&batch)?, None)
}

/// The issue with a line for each field, each value as it was written.
fn spread(issue: &Issue) -> String {
    let mut text = String::from("{");
    for (number, (name, value)) in issue.fields().into_iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let name = serde_json::Value::from(&*name);
        write!(text, "{comma}\n  {name}: {}", value.get()).ok();
    }
    text + "\n}\n"
}

fn in_editor(text: &str) -> Result<String, Failure> {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|editor| !editor.trim().is_empty())
    };
    let editor = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    let named = |error| Failure::io("cannot edit the issue", &error);
    let mut file = tempfile::Builder::new()
        .suffix(".json")
        .tempfile()
        .map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)?;
    // As git does: the variable may have arguments.
    let mut words = editor.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("vi"));
    let status = command.args(words).arg(file.path()).status();
    let status = status.map_err(|error| Failure::io(&format!("cannot run {editor}"), &error))?;
    if !status.success() {
        let message = format!("{editor} ended with {status}; the issue is as it was");
        return Err(Failure::new(Exit::Failed, message));
    }
    fs::read_to_string(file.path()).map_err(named)
}
