//! Servers of peers: where their programs are, and how they are started and ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Result;

const START_MAX: Duration = Duration::from_secs(30);
/// Where Debian has the programs of PostgreSQL, in a directory for each version.
const DEBIAN: &str = "/usr/lib/postgresql";
const LOG: &str = "server.log";

/// The path of a program, or why there is none.
pub(super) fn find(program: &str) -> std::result::Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    let mut paths = dirs.into_iter().map(|dir| dir.join(program));
    paths
        .find(|path| path.is_file())
        .ok_or_else(|| format!("`{program}` is not installed"))
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    end_by: Signal,
}

impl Server {
    /// Starts the server of the store in `dir`, and waits until `connect` succeeds. It ends at once
    /// by the signal `end_by`, and its other processes too.
    pub(super) fn start<T>(
        dir: &Path,
        mut command: Command,
        end_by: Signal,
        connect: impl Fn(&Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        let log = fs::File::create(dir.join(LOG))?;
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let mut server = Self { child, end_by };
        let started = Instant::now();
        loop {
            let error = match connect(dir) {
                Ok(connection) => return Ok((server, connection)),
                Err(error) => error,
            };
            let ended = server.child.try_wait()?;
            if ended.is_some() || started.elapsed() > START_MAX {
                let log = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
                let program = command.get_program().display();
                return Err(format!("{program} does not answer: {error}\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, self.end_by).ok(); // Fails for one that has ended.
        }
        self.child.wait().ok();
    }
}
