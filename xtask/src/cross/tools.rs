//! Finds the tools: a Rust for the target, a C compiler, Wine.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo;

pub(super) const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// Variables that name a tool, or a directory.
pub(super) const PREFIX: &str = "STRAND_CROSS_PREFIX";
pub(super) const CARGO: &str = "STRAND_CROSS_CARGO";
pub(super) const RUSTC: &str = "STRAND_CROSS_RUSTC";
pub(super) const CC: &str = "STRAND_CROSS_CC";
pub(super) const WINE: &str = "STRAND_CROSS_WINE";

/// Where everything is built.
pub(super) fn target_dir() -> PathBuf {
    cargo::workspace().join("target/cross")
}

/// A Rust that can build for a target: with its standard library, or with the library's source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rust {
    cargo: PathBuf,
    rustc: PathBuf,
    builds_std: bool,
}

impl Rust {
    /// The first one with the target's library, else the first with the source.
    pub(super) fn find(target: &str) -> Result<Rust, String> {
        let all = Self::all();
        let has = |sysroot: &Path| has_std(sysroot, target);
        let mut found = all.iter().filter(|(_, _, sysroot)| has(sysroot));
        let mut with_source = all.iter().filter(|(_, _, sysroot)| has_source(sysroot));
        let (one, builds_std) = match (found.next(), with_source.next()) {
            (Some(one), _) => (one, false),
            (None, Some(one)) => (one, true),
            (None, None) => {
                let looked: Vec<String> = all
                    .iter()
                    .map(|(_, rustc, _)| rustc.display().to_string())
                    .collect();
                return Err(format!(
                    "a Rust with the standard library for {target}, or with its source (looked at: {}). Get one by\n    \
                     rustup target add {target}\n  or, with the source, for all targets:\n    \
                     rustup component add rust-src\n  or on Debian, as a second Rust:\n    \
                     apt-get install rustc-web cargo-web libstd-rust-web-dev rust-web-src\n  \
                     or name one by {RUSTC} and {CARGO}",
                    looked.join(", ")
                ));
            }
        };
        Ok(Rust {
            cargo: one.0.clone(),
            rustc: one.1.clone(),
            builds_std,
        })
    }

    /// Cargo, compiler and sysroot of each Rust in PATH.
    fn all() -> Vec<(PathBuf, PathBuf, PathBuf)> {
        let named = env::var_os(RUSTC).map(PathBuf::from);
        let compilers = named.map_or_else(|| in_path("rustc"), |named| vec![named]);
        let all = compilers.into_iter().filter_map(|rustc| {
            let beside = rustc.with_file_name(format!("cargo{}", env::consts::EXE_SUFFIX));
            let cargo = env::var_os(CARGO).map_or(beside, PathBuf::from);
            let output = Command::new(&rustc).args(["--print", "sysroot"]).output();
            let output = output.ok().filter(|output| output.status.success())?;
            let sysroot = String::from_utf8(output.stdout).ok()?;
            Some((cargo, rustc, PathBuf::from(sysroot.trim_end())))
        });
        all.filter(|(cargo, ..)| cargo.is_file()).collect()
    }

    /// A cargo command for the target.
    pub(super) fn command(&self, task: &str, target: &str, panic: &str, dir: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .args([task, "--target", target, "--target-dir"])
            .arg(dir)
            .env("RUSTC", &self.rustc)
            .env_remove("CARGO");
        if self.builds_std {
            command
                .arg(format!("-Zbuild-std=std,{panic}"))
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    pub(super) fn describe(&self) -> String {
        let how = if self.builds_std {
            ", which builds the standard library"
        } else {
            ""
        };
        format!("{}{how}", version(&self.rustc))
    }
}

fn has_std(sysroot: &Path, target: &str) -> bool {
    let lib = sysroot.join("lib/rustlib").join(target).join("lib");
    let names = lib.read_dir().into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name.starts_with("libstd-"))
}

fn has_source(sysroot: &Path) -> bool {
    let source = "lib/rustlib/src/rust/library/std/Cargo.toml";
    sysroot.join(source).is_file()
}

/// The tools that build and run Windows programs.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) rust: Rust,
    pub(super) cc: PathBuf,
    pub(super) wine: PathBuf,
    /// Runs a program without randomness in its memory.
    pub(super) setarch: Option<PathBuf>,
    /// Compiles for this machine.
    pub(super) own_cc: Option<PathBuf>,
}

impl Windows {
    /// The tools, or all that are missing and how to get them.
    pub(super) fn find() -> Result<Windows, Vec<String>> {
        let named = |variable: &str| env::var_os(variable).map(PathBuf::from);
        let rust = Rust::find(WINDOWS);
        let cc = named(CC)
            .or_else(|| in_path("x86_64-w64-mingw32-gcc").into_iter().next())
            .ok_or_else(|| {
                format!(
                    "x86_64-w64-mingw32-gcc, which links for Windows. Get it by\n    \
                     apt-get install gcc-mingw-w64-x86-64\n  or name one by {CC}"
                )
            });
        let wine = named(WINE).or_else(wine).ok_or_else(|| {
            format!(
                "Wine for 64-bit programs. Get it by\n    apt-get install wine wine64\n  \
                 or name its wine64 by {WINE} (its files go to {PREFIX}, or target/cross/wine)"
            )
        });
        match (rust, cc, wine) {
            (Ok(rust), Ok(cc), Ok(wine)) => Ok(Windows {
                rust,
                cc,
                wine,
                setarch: in_path("setarch").into_iter().next(),
                own_cc: in_path("cc").into_iter().next(),
            }),
            (rust, cc, wine) => Err([rust.err(), cc.err(), wine.err()]
                .into_iter()
                .flatten()
                .collect()),
        }
    }

    pub(super) fn wine_version(&self) -> String {
        version(&self.wine)
    }
}

/// The loader: in the library directory beside the wrapper `wine`, else in PATH.
fn wine() -> Option<PathBuf> {
    let beside = |wrapper: PathBuf| {
        let wrapper = wrapper.canonicalize().ok()?;
        let loader = wrapper.parent()?.parent()?.join("lib/wine/wine64");
        loader.is_file().then_some(loader)
    };
    in_path("wine").into_iter().find_map(beside).or_else(|| {
        let all = in_path("wine64").into_iter().chain(in_path("wine"));
        all.into_iter().next()
    })
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines()
        .next()
        .unwrap_or("of unknown version")
        .to_owned()
}

/// All programs of this name in PATH.
fn in_path(name: &str) -> Vec<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path).map(|dir| dir.join(&name));
    candidates.filter(|program| program.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_library_is_known_by_its_file_and_its_source_by_the_manifest() {
        let dir = env::temp_dir().join(format!("strand-xtask-sysroot-{}", std::process::id()));
        let lib = dir.join("lib/rustlib").join(WINDOWS).join("lib");
        std::fs::create_dir_all(&lib).unwrap();
        assert!(!has_std(&dir, WINDOWS));
        std::fs::write(lib.join("libstd-0123.rlib"), "").unwrap();
        assert!(has_std(&dir, WINDOWS) && !has_std(&dir, "another"));
        assert!(!has_source(&dir));
        let source = dir.join("lib/rustlib/src/rust/library/std");
        std::fs::create_dir_all(&source).unwrap();
        std::fs::write(source.join("Cargo.toml"), "").unwrap();
        assert!(has_source(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
