//! Faults of the machine for any program: `strace` fails a system call, or kills at one; a small
//! disk is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::held::{Beginning, release_mount};
use crate::run::config::{Config, SystemFault};

/// The calls that change something. `?`: not every system has them.
const CALLS: &str = "?write,?pwrite64,?writev,?pwritev,?pwritev2,?fsync,?fdatasync,?msync,\
                     ?rename,?renameat,?renameat2,?unlink,?unlinkat,?link,?linkat,?truncate,\
                     ?ftruncate,?fallocate,?mkdir,?mkdirat";
/// The calls that a slow disk is slow with.
const SLOW_CALLS: &str = "?fsync,?fdatasync,?msync,?sync_file_range,?syncfs,?sync,\
                          ?rename,?renameat,?renameat2";
/// One process in so many meets a fault.
const ONE_IN: u32 = 3;
/// The fault is at one of the first calls; a process that makes fewer meets none.
const CALLS_MAX: u32 = 24;

/// A fault for some of the processes of an agent, one system call after the other.
#[derive(Debug, Clone)]
pub(super) struct Injection {
    fault: Option<SystemFault>,
    slow_ms: Option<u64>,
    /// Differs from agent to agent.
    first: u32,
}

impl Injection {
    /// That of an agent; `None` if the machine is a good one.
    pub(super) fn of(config: &Config, agent: u32) -> Option<Injection> {
        let (fault, slow_ms) = (config.inject, config.slow_disk_ms);
        // Far apart, so that few writes of many agents reach every call.
        let first = agent * 7;
        (fault.is_some() || slow_ms.is_some()).then_some(Injection {
            fault,
            slow_ms,
            first,
        })
    }

    pub(super) fn kills(&self) -> bool {
        self.fault == Some(SystemFault::Kill)
    }

    /// The words that start process `number` of this agent.
    pub(super) fn wrap(&self, number: u32, argv: &[String]) -> Vec<String> {
        let call = 1 + (self.first + number / ONE_IN) % CALLS_MAX;
        let fault = match self.fault.filter(|_| number.is_multiple_of(ONE_IN)) {
            None => None,
            Some(SystemFault::Kill) => Some("signal=KILL"),
            Some(SystemFault::Eio) => Some("error=EIO"),
            Some(SystemFault::Enospc) => Some("error=ENOSPC"),
        };
        let fault = fault.map(|fault| format!("inject={CALLS}:{fault}:when={call}"));
        let slow = self.slow_ms.map(|ms| ms * 1_000);
        // It has to be there when the call is done, as a slow disk is.
        let slow = slow.map(|us| format!("inject={SLOW_CALLS}:delay_exit={us}"));
        if fault.is_none() && slow.is_none() {
            return argv.to_vec();
        }
        // A system call that is not traced is not slowed down.
        let strace = ["strace", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null"];
        let mut words: Vec<String> = strace.map(str::to_owned).to_vec();
        for inject in [slow, fault].into_iter().flatten() {
            words.extend(["-e".to_owned(), inject]);
        }
        words.push("--".to_owned());
        words.extend_from_slice(argv);
        words
    }
}

/// Why no system call can be made to fail here; `None` where one can.
pub(super) fn obstacle() -> Option<String> {
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-e",
        "inject=?write:error=EIO:when=9",
    ]);
    let ran = command
        .arg("true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match ran {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("`strace` can't trace here: {status}")),
        Err(error) => Some(format!("`strace` can't be run: {error}")),
    }
}

/// A small filesystem in memory.
#[derive(Debug)]
pub(super) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// Why it can't be mounted.
    pub(super) fn mount(dir: &Path, bytes: u64) -> Result<SmallDisk, String> {
        let beginning = Beginning::new();
        mount(dir, &format!("size={bytes}"))?;
        beginning.hold_mount(dir);
        Ok(SmallDisk {
            dir: dir.to_owned(),
        })
    }

    /// Gives it so much space that nothing fails any more.
    pub(super) fn grow(&self) -> Result<(), String> {
        mount(&self.dir, "remount,size=1g")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("-l").arg(&self.dir).status();
        if ended.is_ok_and(|status| status.success()) {
            release_mount(&self.dir);
        } else {
            eprintln!("strand-stress: {} stays mounted", self.dir.display());
        }
    }
}

fn mount(dir: &Path, options: &str) -> Result<(), String> {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(dir);
    let output = command
        .output()
        .map_err(|error| format!("`mount` can't be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("a small disk can't be mounted: {}", said.trim()))
}
