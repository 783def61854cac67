//! `cargo xtask bench`: builds the benchmark with the systems it compares strand with and the command `strand`, and runs it.

use std::process::Command;

use crate::{Failure, cargo, harness};

/// Passes all flags through. Paths in them are the caller's, so the directory stays as it is.
pub(crate) fn run(flags: &[String]) -> Result<(), Failure> {
    cargo::build_command()?;
    let cargo = cargo::program();
    let mut command = Command::new(&cargo);
    command
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(cargo::workspace().join("Cargo.toml"))
        .args(["--package", "strand-bench", "--features", "peers", "--"])
        .args(flags);
    harness::run(&mut command, cargo.as_ref())
}
