//! Writes that are made by the command `strand append`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use strand_stress::run::config::{Config, Durability};

use crate::common::{config, exe, harness, passes};

/// Builds the command where the harness looks for it; `None`, with a message, if there is no cargo.
fn command() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Option<PathBuf> {
    let dir = exe().parent().expect("the harness is in a directory");
    let target_dir = dir.parent().expect("of a profile");
    let profile = dir.file_name().and_then(|name| name.to_str());
    let profile = match profile.expect("a name in UTF-8") {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "strand"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match status {
        Ok(status) => assert!(status.success(), "the command does not build: {status}"),
        Err(error) => {
            eprintln!("SKIPPED: no cargo builds the command: {error}");
            return None;
        }
    }
    let path = dir.join(format!("strand{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} was not built", path.display());
    Some(path)
}

fn via_cli() -> Config {
    Config {
        one_shot: true,
        via_cli: true,
        ..config()
    }
}

#[test]
fn each_write_is_a_command() {
    if command().is_none() {
        return;
    }
    for durability in [Durability::Synced, Durability::Buffered] {
        let report = passes(&Config {
            agents: 4,
            writes: 6,
            durability,
            followers: 1,
            ..via_cli()
        });
        // The follower is one, too.
        assert_eq!(report.processes, 4 * 6 + 1);
        assert_eq!(report.acknowledged, 4 * 6);
    }
}

#[test]
fn events_that_are_too_long_for_an_argument() {
    if command().is_none() {
        return;
    }
    passes(&Config {
        agents: 2,
        writes: 4,
        payload_bytes: Some(200_000),
        ..via_cli()
    });
}

#[test]
fn kills_of_commands() {
    let Some(strand) = command() else {
        return;
    };
    let mut killed = 0;
    for _ in 0..5 {
        let report = passes(&Config {
            agents: 4,
            writes: 15,
            kill_per_second: 100.0,
            strand: Some(strand.clone()),
            ..via_cli()
        });
        killed += report.killed;
    }
    assert!(killed > 0);
}

#[test]
fn without_the_command_nothing_is_started_and_the_error_says_how_to_build_it() {
    let output = harness(&["--one-shot", "--via-cli", "--strand", "no/such/strand"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    let how = "cargo build --release -p strand";
    assert!(
        error.contains("no/such/strand is not there") && error.contains(how),
        "{error}"
    );
}

#[test]
#[cfg(unix)]
fn a_command_that_claims_more_than_it_does_is_found_out() {
    use std::os::unix::fs::PermissionsExt as _;

    let Some(strand) = command() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let liar = dir.path().join("liar");
    let script = format!(
        "#!/bin/sh\n# -C STORE COMMAND …\nif [ \"$3\" = append ]; then echo 1; else exec '{}' \"$@\"; fi\n",
        strand.display()
    );
    std::fs::write(&liar, script).expect("a script");
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let liar = liar.to_str().expect("a name in UTF-8");
    let flags = [
        "--agents",
        "1",
        "--writes",
        "1",
        "--one-shot",
        "--via-cli",
        "--strand",
        liar,
    ];
    let dir_flag = ["--dir", dir.path().to_str().expect("a name in UTF-8")];
    let output = harness(&[flags.as_slice(), dir_flag.as_slice()].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("lost"), "{text}");
}
