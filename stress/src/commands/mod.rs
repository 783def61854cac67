//! The subcommands of `strand-stress`: parse, run, report.

#[cfg(unix)]
pub mod compare;
pub mod powercut;
pub mod run;
pub mod soak;
#[cfg(unix)]
pub mod store;
pub mod torture;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::run::config::Config;

/// The exit status after a wrong command line.
pub const EXIT_USAGE: u8 = 2;

/// How often the verdict of a run is shown when runs go on for a time.
const SHOWN_EVERY: Duration = Duration::from_secs(10);

/// Runs one after the other, for a number of times or for a time.
struct Runs {
    began: Instant,
    shown: Instant,
    limit: Option<Duration>,
    number: u32,
}

impl Runs {
    fn new(config: &Config) -> Runs {
        let minutes = config.minutes;
        Runs {
            began: Instant::now(),
            shown: Instant::now(),
            limit: minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
            number: config.iterations,
        }
    }

    /// Whether there is another run after this one.
    fn go_on_after(&self, iteration: u32) -> bool {
        match self.limit {
            Some(limit) => self.began.elapsed() < limit,
            None => iteration + 1 < self.number,
        }
    }

    /// Whether the verdict of a run is shown that is followed by another one.
    fn show(&mut self) -> bool {
        let shows = self.limit.is_none() || self.shown.elapsed() >= SHOWN_EVERY;
        if shows {
            self.shown = Instant::now();
        }
        shows
    }
}

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

/// Whether reports can be written to these files, so that no run ends without the report that was
/// asked for. Prints an error if not. A file that is there stays as it is.
fn can_write(paths: [Option<&Path>; 2]) -> bool {
    paths.into_iter().flatten().all(|path| {
        let is_new = !path.exists();
        let opened = OpenOptions::new().append(true).create(true).open(path);
        if is_new && opened.is_ok() {
            std::fs::remove_file(path).ok();
        }
        is_written(path, opened.map(drop))
    })
}

/// Writes a report to a file, if one was asked for; prints an error and returns `false` if that
/// fails.
fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> bool {
    path.is_none_or(|path| is_written(path, std::fs::write(path, text())))
}

/// Whether that is so; prints the error if not.
fn is_written(path: &Path, written: io::Result<()>) -> bool {
    written
        .inspect_err(|error| eprintln!("strand-stress: cannot write {}: {error}", path.display()))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_reports_are_looked_at_and_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        std::fs::write(&old, "report").unwrap();
        assert!(can_write([Some(&new), Some(&old)]));
        assert!(!new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "report");
        assert!(can_write([None, None]));
        assert!(!can_write([None, Some(&new.join("below"))]));
        assert!(!can_write([Some(dir.path()), None]), "a directory");
    }
}
