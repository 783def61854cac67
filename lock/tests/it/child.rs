//! Child processes: this test binary, run again in a role.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
};

use crate::PATIENCE;

const ROLE: &str = "STRAND_LOCK_TEST_ROLE";
const DIR: &str = "STRAND_LOCK_TEST_DIR";
/// Tells a child's messages from what the test harness prints.
const MARK: &str = "@@";

/// A child in a role. It ends with its role, when its standard input is closed, or on drop.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    messages: mpsc::Receiver<String>,
}

impl Child {
    pub(crate) fn start(role: &str, dir: &Path) -> Self {
        let mut process = command(role, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, message)) = line.split_once(MARK)
                    && sender.send(message.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self {
            input: process.stdin.take(),
            process,
            messages,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next message; panics if none comes.
    pub(crate) fn hear(&self) -> String {
        self.messages
            .recv_timeout(PATIENCE)
            .expect("the child says something")
    }

    pub(crate) fn expect(&self, message: &str) {
        assert_eq!(self.hear(), message);
    }

    /// All messages from now on, until the child and all processes that inherited its output end.
    pub(crate) fn hear_all(&mut self) -> Vec<String> {
        self.close_input();
        let mut all = Vec::new();
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(message) => all.push(message),
                Err(mpsc::RecvTimeoutError::Disconnected) => return all,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the child does not end: {all:?}"),
            }
        }
    }

    /// Lets the child return from one [`wait_for_word`].
    pub(crate) fn tell(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Lets the child return from every [`wait_for_word`].
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends `SIGKILL` (`TerminateProcess`); the child is a zombie until [`Child::reap`] or drop.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Waits for the end of a child that was killed.
    #[cfg(any(target_os = "linux", windows))]
    pub(crate) fn reap(&mut self) {
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The command that runs this binary in a role.
pub(crate) fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir);
    command
}

/// Sends a message to the parent; called in a child.
pub(crate) fn say(message: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{message}").unwrap();
    out.flush().unwrap();
}

/// Waits until the parent sends a word or is gone; called in a child.
pub(crate) fn wait_for_word() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Where children start. As a test of its own it does nothing.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let dir = std::path::PathBuf::from(std::env::var_os(DIR).unwrap());
    match role.as_str() {
        "hold" => crate::processes::hold(&dir),
        "acquire" => crate::processes::acquire(&dir),
        "try" => crate::processes::try_all(&dir),
        "linger" => crate::processes::linger(),
        "hold_and_spawn" => crate::processes::hold_and_spawn(&dir),
        "increment" => crate::processes::increment(&dir),
        "intervals" => crate::processes::intervals(&dir),
        "boot" => say(strand_lock::boot_id()),
        "keep_open" => crate::files::keep_open(&dir),
        #[cfg(unix)]
        "touch_what_is_gone" => crate::page::touch_what_is_gone(&dir),
        "answer" => crate::page::answer(&dir),
        #[cfg(unix)]
        "hold_and_fork" => crate::fork::hold_and_fork(&dir),
        _ => panic!("no such role: {role}"),
    }
}
