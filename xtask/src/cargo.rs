//! Calling cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// A cargo command in the workspace's directory.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace());
    command
}

/// Builds the harness in release mode and returns its binary, as cargo names it.
pub(crate) fn build_harness() -> Result<PathBuf, Failure> {
    build(&mut command(&["build", "--quiet", "--release"]))
}

/// Builds the harness with deliberate bugs, in a directory of its own, and returns its binary.
pub(crate) fn build_harness_with_bugs() -> Result<PathBuf, Failure> {
    build(&mut with_bugs("build"))
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

fn build(command: &mut Command) -> Result<PathBuf, Failure> {
    let output = command
        .args(["--package", "strand-stress"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::environment("the harness does not build"));
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| Failure::environment("cargo did not name the harness it built"))
}

/// The binary in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let executable = |message: serde_json::Value| {
        let is_harness = message.pointer("/target/name")? == "strand-stress";
        let path = message.get("executable")?.as_str().map(PathBuf::from);
        path.filter(|_| is_harness)
    };
    messages.filter_map(executable).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_is_found_in_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"name":"strand-lock"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"strand-stress"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"strand-stress"},"executable":"t/s"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        assert_eq!(executable(&messages.join("\n")), Some(PathBuf::from("t/s")));
        assert_eq!(executable(""), None);
    }
}
