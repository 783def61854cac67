//! What the workspace depends on: by licence and source (`deny.toml`), and by the Rust it asks for.
//!
//! That our own code needs no newer Rust than it declares is clippy's to find (`incompatible_msrv`), and the tests' under
//! that Rust.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::{Failure, cargo, ci};

pub(crate) fn check() -> Result<(), Failure> {
    let started = Instant::now();
    let output = cargo::command(&["metadata", "--format-version", "1", "--all-features"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::environment("cargo does not tell the packages"));
    }
    let metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::environment(format!("cargo metadata: {error}")))?;
    let newer = newer_than_declared(&metadata);
    if !newer.is_empty() {
        return Err(Failure::violation(format!(
            "ci: FAILED: they need a newer Rust than this workspace declares: {}",
            newer.join(", ")
        )));
    }
    ci::passed("the Rust that the dependencies need", started);
    let deny = Command::new("cargo-deny").arg("--version").output();
    if deny.is_ok_and(|output| output.status.success()) {
        return ci::step("deny.toml", &mut cargo::command(&["deny", "check"]));
    }
    println!("ci: SKIPPED deny.toml: there is no cargo-deny (`cargo install --locked cargo-deny`)");
    Ok(())
}

/// The packages that ask for more than the workspace's own do.
fn newer_than_declared(metadata: &Value) -> Vec<String> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let version = |package: &Value| package["rust_version"].as_str().map(numbers);
    let ours = packages().filter(|package| package["source"].is_null());
    let Some(declared) = ours.filter_map(version).min() else {
        return vec!["the workspace, which declares none".to_owned()];
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
    fn a_package_that_asks_for_more_is_named() {
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
