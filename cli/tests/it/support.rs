//! Runs the command.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The command, with an empty standard input.
pub(crate) fn strand() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strand"));
    command.stdin(Stdio::null());
    for name in ["STRAND_AGENT", "STRAND_DIR", "STRAND_NO_AUTO_COMPACT"] {
        command.env_remove(name);
    }
    command
}

/// A store created by `strand init`.
pub(crate) struct Store(TempDir);

impl Store {
    pub(crate) fn new() -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        store.ok("init", &[]);
        store
    }

    /// A store with these issues, given as ids and JSON members beside id, title and status.
    pub(crate) fn of(issues: &[(&str, &str)]) -> Self {
        let store = Self::new();
        let lines: Vec<String> = issues
            .iter()
            .map(|(id, fields)| issue(id, fields))
            .collect();
        let done = store.fed("import", &[], &lines.join("\n"));
        assert_eq!(done.code, 0, "{}", done.err);
        store
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A file's path in the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn first_segment(&self) -> PathBuf {
        self.file("log-00000000000000000001.jsonl")
    }

    /// `strand -C STORE COMMAND …`.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut strand = strand();
        strand.arg("-C").arg(self.dir());
        strand.arg(command).args(arguments);
        strand
    }

    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Done {
        run(&mut self.command(command, arguments))
    }

    /// Runs the command with this standard input.
    pub(crate) fn fed(&self, command: &str, arguments: &[&str], input: &str) -> Done {
        fed(&mut self.command(command, arguments), input)
    }

    /// Runs the command and returns its output without the last newline.
    pub(crate) fn ok(&self, command: &str, arguments: &[&str]) -> String {
        let done = self.run(command, arguments);
        assert_eq!(done.code, 0, "strand {command} {arguments:?}: {}", done.err);
        done.out.trim_end_matches('\n').to_owned()
    }

    /// Runs the command with `--json` and returns the only object that it prints.
    pub(crate) fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let mut lines = self.json_lines(command, arguments);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    pub(crate) fn json_lines(&self, command: &str, arguments: &[&str]) -> Vec<Value> {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        lines(&self.ok(command, &with_json))
    }
}

/// An open issue as a line of JSON.
pub(crate) fn issue(id: &str, fields: &str) -> String {
    format!(r#"{{"id":"{id}","title":"The {id}","status":"open"{fields}}}"#)
}

/// Each line parsed.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    text.lines().map(parse).collect()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn run(command: &mut Command) -> Done {
    Done::of(command.output().unwrap())
}

/// `strand` with these arguments, and no store.
pub(crate) fn plain<A: AsRef<OsStr>>(arguments: &[A]) -> Done {
    run(strand().args(arguments))
}

pub(crate) fn fed(command: &mut Command, input: &str) -> Done {
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    // The command may end before it has read everything.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    Done::of(child.wait_with_output().unwrap())
}

/// Starts the command with pipes.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
