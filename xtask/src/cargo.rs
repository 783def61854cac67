//! Calling cargo.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;
use crate::process;

/// The package of the harness, and its binary.
const HARNESS: &str = "strand-stress";

/// The directory of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// The cargo that started this program.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the workspace.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(workspace());
    command
}

/// Builds the harness in release mode and returns the path of its binary.
pub(crate) fn build_harness() -> Result<PathBuf, Failure> {
    build_package(release_build(), HARNESS)
}

/// Builds the command `strand` in release mode, beside the harness, and returns its path.
pub(crate) fn build_command() -> Result<PathBuf, Failure> {
    build_package(release_build(), "strand")
}

/// A build takes minutes the first time: on a terminal, cargo shows how far it is.
fn release_build() -> Command {
    let mut command = command(&["build", "--release"]);
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    command
}

/// Builds the harness with a cargo command of the caller's.
pub(crate) fn build_harness_by(command: Command) -> Result<PathBuf, Failure> {
    build_package(command, HARNESS)
}

/// Builds a package whose binary has its name.
fn build_package(mut command: Command, name: &str) -> Result<PathBuf, Failure> {
    let messages = build(command.args(["--package", name]))?
        .ok_or_else(|| Failure::violation(format!("{name} does not build")))?;
    executable(&messages, name)
        .ok_or_else(|| Failure::environment(format!("cargo did not name the {name} it built")))
}

/// Runs a build; returns cargo's messages, or `None` where the build failed and said why.
pub(crate) fn build(command: &mut Command) -> Result<Option<Vec<Value>>, Failure> {
    command.args(["--message-format", "json-render-diagnostics"]);
    let output = process::output(command.stderr(Stdio::inherit()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(output.status.success().then(|| messages.collect()))
}

/// The binary of this name in cargo's messages.
fn executable(messages: &[Value], name: &str) -> Option<PathBuf> {
    let executable = |message: &Value| {
        let path = message.get("executable")?.as_str()?;
        (message.pointer("/target/name")? == name).then(|| PathBuf::from(path))
    };
    messages.iter().filter_map(executable).next_back()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binary_is_found_in_cargos_messages() {
        let artifact = |name: &str, executable: Value| json!({"reason": "compiler-artifact", "target": {"name": name}, "executable": executable});
        let messages = [
            artifact("strand-lock", json!(null)),
            artifact(HARNESS, json!(null)),
            artifact(HARNESS, json!("t/s")),
            json!({"reason": "build-finished", "success": true}),
        ];
        assert_eq!(executable(&messages, HARNESS), Some(PathBuf::from("t/s")));
        assert_eq!(executable(&messages, "strand"), None);
    }
}
