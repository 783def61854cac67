//! Checks the dependencies: their licences and sources (`deny.toml`), and the Rust they need.
//!
//! Clippy (`incompatible_msrv`) and CI's tests with the oldest Rust check our own code.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;
use crate::{cargo, process};

pub(crate) fn check() -> Result<(), Failure> {
    let mut metadata = cargo::command(&["metadata", "--format-version", "1", "--all-features"]);
    let output = process::output(metadata.stderr(Stdio::inherit()))?;
    if !output.status.success() {
        return Err(Failure::environment("ci: cargo metadata fails"));
    }
    let metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::environment(format!("cargo metadata: {error}")))?;
    let newer = newer_than_declared(&metadata);
    if !newer.is_empty() {
        return Err(Failure::violation(format!(
            "ci: FAILED: these need a newer Rust than this workspace declares: {}",
            newer.join(", ")
        )));
    }
    let deny = Command::new("cargo-deny").arg("--version").output();
    if deny.is_ok_and(|output| output.status.success()) {
        return process::run(&mut cargo::command(&["deny", "check"]));
    }
    println!("ci: SKIPPED deny.toml: cargo-deny is missing (`cargo install --locked cargo-deny`)");
    Ok(())
}

/// The packages that need a newer Rust than the workspace declares.
fn newer_than_declared(metadata: &Value) -> Vec<String> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let version = |package: &Value| package["rust_version"].as_str().map(numbers);
    let ours = packages().filter(|package| package["source"].is_null());
    let Some(declared) = ours.filter_map(version).min() else {
        return vec!["the workspace declares none".to_owned()];
    };
    let newer = packages().filter(|package| version(package) > Some(declared));
    newer
        .map(|package| format!("{} {}", package["name"], package["rust_version"]))
        .collect()
}

fn numbers(version: &str) -> [u64; 3] {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_package_that_needs_a_newer_rust_is_named() {
        let with = |theirs: Value| {
            newer_than_declared(&json!({"packages": [
                {"name": "ours", "source": null, "rust_version": "1.91"},
                {"name": "theirs", "source": "registry", "rust_version": theirs},
            ]}))
        };
        for older in [json!(null), json!("1.9"), json!("1.91"), json!("1.91.0")] {
            assert_eq!(with(older), Vec::<String>::new());
        }
        for newer in ["1.91.1", "1.100", "2.0"] {
            assert_eq!(with(json!(newer)), [format!("\"theirs\" \"{newer}\"")]);
        }
    }
}
