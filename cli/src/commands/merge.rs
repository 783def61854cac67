//! `merge`: a git merge driver for exported issues.

use serde::Serialize;
use strand_core::merge_files;

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
    let merged = merge_files(&args.base, &args.ours, &args.theirs);
    let merged = merged.map_err(|error| Failure {
        exit: Exit::NotMerged,
        ..Failure::from(error)
    })?;
    for [id, new] in &merged.renamed {
        tell(&format!(
            "strand: both branches drew the id {id}; the later issue is {new} now"
        ));
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
