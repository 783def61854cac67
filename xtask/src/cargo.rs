//! Calling cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

/// The harness: the package, and its binary.
const HARNESS: &str = "strand-stress";

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// The cargo that has started this program.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the workspace's directory.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(workspace());
    command
}

/// Builds the harness in release mode and returns its binary, as cargo names it.
pub(crate) fn build_harness() -> Result<PathBuf, Failure> {
    let mut command = command(&["build", "--quiet", "--release"]);
    build(command.args(["--package", HARNESS]), HARNESS)
}

/// Builds the command `strand` in release mode, beside the harness, and returns its binary.
pub(crate) fn build_command() -> Result<PathBuf, Failure> {
    let mut command = command(&["build", "--quiet", "--release"]);
    build(command.args(["--package", "strand"]), "strand")
}

/// Builds the harness with deliberate bugs, in a directory of its own, and returns its binary.
pub(crate) fn build_harness_with_bugs() -> Result<PathBuf, Failure> {
    build(with_bugs("build").args(["--package", HARNESS]), HARNESS)
}

/// The tests of `lock`, built with deliberate bugs.
pub(crate) fn lock_tests_with_bugs() -> Command {
    let mut command = with_bugs("test");
    command.args(["--package", "strand-lock", "--test", "it"]);
    command
}

fn with_bugs(task: &str) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" --cfg strand_seeded_bugs");
    let mut command = command(&[task, "--quiet", "--profile", "seeded"]);
    command
        .args(["--target-dir", "target/seeded"])
        .env("RUSTFLAGS", flags.trim_start());
    command
}

/// Runs a build and returns the binary of this name.
fn build(command: &mut Command, name: &str) -> Result<PathBuf, Failure> {
    let output = command
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::environment(format!("{name} does not build")));
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .ok_or_else(|| Failure::environment(format!("cargo did not name the {name} it built")))
}

/// The binary of this name in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let executable = |message: serde_json::Value| {
        let is_it = message.pointer("/target/name")? == name;
        let path = message.get("executable")?.as_str().map(PathBuf::from);
        path.filter(|_| is_it)
    };
    messages.filter_map(executable).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_found_in_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"name":"strand-lock"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"strand-stress"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"strand-stress"},"executable":"t/s"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        assert_eq!(
            executable(&messages.join("\n"), HARNESS),
            Some(PathBuf::from("t/s"))
        );
        assert_eq!(executable(&messages.join("\n"), "strand"), None);
    }
}
