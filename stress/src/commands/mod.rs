//! The subcommands of `strand-stress`: parse, run, report.

#[cfg(unix)]
pub mod compare;
pub mod powercut;
pub mod run;
pub mod soak;
#[cfg(unix)]
pub mod store;
pub mod torture;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The exit status after a wrong command line.
pub const EXIT_USAGE: u8 = 2;

/// Prints a line. A closed pipe is no failure.
fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// The path of this binary; if it is unknown, prints why.
fn own_binary() -> Option<PathBuf> {
    let exe = std::env::current_exe();
    exe.inspect_err(|error| eprintln!("strand-stress: cannot find its own binary: {error}"))
        .ok()
}

/// Writes a report to a file, if one was asked for; prints an error and returns `false` if that
/// fails.
fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> bool {
    let written = path.map(|path| std::fs::write(path, text()).map_err(|error| (path, error)));
    if let Some(Err((path, error))) = written {
        eprintln!("strand-stress: cannot write {}: {error}", path.display());
        return false;
    }
    true
}
