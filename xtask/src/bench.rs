//! `cargo xtask bench`: builds the benchmark with the systems it compares strand with and the command `strand`, and runs it.

use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo};

/// Passes all flags through. Paths in them are the caller's, so the directory stays as it is.
pub(crate) fn run(flags: &[String]) -> Result<(), Failure> {
    cargo::build_command()?;
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = manifest_dir.parent().unwrap_or(manifest_dir);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(workspace.join("Cargo.toml"))
        .args(["--package", "strand-bench", "--features", "peers", "--"])
        .args(flags)
        .status()
        .map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    match status.code() {
        Some(0) => Ok(()),
        // It has said why.
        code => Err(Failure {
            message: String::new(),
            code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        }),
    }
}
