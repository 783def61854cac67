//! The subcommands of `strand-stress`: parse, run, report.

pub mod powercut;
pub mod run;
pub mod soak;
pub mod torture;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The exit status after a wrong command line.
pub const EXIT_USAGE: u8 = 2;

/// Prints a line. When the reader has closed the pipe, there is no one to tell.
fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// The path of this binary; if there is none, prints why.
fn own_binary() -> Option<PathBuf> {
    let exe = std::env::current_exe();
    exe.inspect_err(|error| eprintln!("strand-stress: cannot find its own binary: {error}"))
        .ok()
}

/// Writes a report to the file that was asked for, if one was; `false`, and said so, when that failed.
fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> bool {
    let written = path.map(|path| std::fs::write(path, text()).map_err(|error| (path, error)));
    if let Some(Err((path, error))) = written {
        eprintln!("strand-stress: cannot write {}: {error}", path.display());
        return false;
    }
    true
}
