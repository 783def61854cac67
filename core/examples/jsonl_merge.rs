//! A git merge driver for files of issues.
//!
//! ```sh
//! cargo build --release --example jsonl_merge
//! git config merge.issues.driver "target/release/examples/jsonl_merge %O %A %B"
//! echo "*.jsonl merge=issues" >> .gitattributes
//! ```
//!
//! Exit status: 0 merged, 1 merged but for the conflicts that are listed, 129 not merged (the file is as it was).
//! Git takes any status up to 128 for a conflict that the driver has written into the file; then a commit would
//! silently drop what the other branch did. With 129 it ends the merge.

use std::{path::Path, process::ExitCode};

/// Above 128, see the module.
const NOT_MERGED: u8 = 129;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [base, ours, theirs] = arguments.as_slice() else {
        eprintln!("usage: jsonl_merge BASE OURS THEIRS");
        return ExitCode::from(NOT_MERGED);
    };
    match strand_core::merge_files(Path::new(base), Path::new(ours), Path::new(theirs)) {
        Ok(merged) => {
            for conflict in &merged.conflicts {
                let field = conflict.field.as_deref().unwrap_or("the whole issue");
                eprintln!("conflict in {}: {field}", conflict.id);
            }
            ExitCode::from(u8::from(!merged.conflicts.is_empty()))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(NOT_MERGED)
        }
    }
}
