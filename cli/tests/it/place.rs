//! Which store a command works on.

use std::{fs, path::Path, process::Command};

use crate::support::{run, strand};

fn strand_in(dir: &Path, arguments: &[&str]) -> Command {
    let mut strand = strand();
    strand.current_dir(dir).args(arguments);
    strand
}

fn ok(command: &mut Command) -> String {
    let done = run(command);
    assert_eq!(done.code, 0, "{command:?}: {}", done.err);
    done.out.trim_end().to_owned()
}

/// A directory with the stores `.strand` and `other`, of one issue each.
fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let init = ok(&mut strand_in(dir.path(), &["init"]));
    assert_eq!(init, ".strand is now a store");
    ok(&mut strand_in(dir.path(), &["-C", "other", "init"]));
    ok(&mut strand_in(dir.path(), &["create", "T", "--id", "here"]));
    let other = ["create", "T", "--id", "other", "-C", "other"];
    ok(&mut strand_in(dir.path(), &other));
    dir
}

#[test]
fn a_project_has_its_store_for_all_directories_below() {
    let dir = project();
    let below = dir.path().join("a/b");
    for current in [dir.path(), &below, &dir.path().join(".strand")] {
        let shown = ok(&mut strand_in(current, &["show", "here"]));
        assert!(shown.starts_with("id "), "{shown}");
    }
    // A directory below may have a store of its own.
    ok(&mut strand_in(&below, &["init"]));
    assert_eq!(run(&mut strand_in(&below, &["show", "here"])).code, 3);
}

#[test]
fn the_option_goes_before_the_variable_and_that_before_the_directory() {
    let dir = project();
    let with = |arguments: &[&str], variable: &str| {
        run(strand_in(dir.path(), arguments).env("STRAND_DIR", variable)).code
    };
    assert_eq!(with(&["show", "other"], "other"), 0);
    assert_eq!(with(&["-C", ".strand", "show", "here"], "other"), 0);
    assert_eq!(with(&["show", "here", "--store", ".strand"], "other"), 0);
    assert_eq!(with(&["show", "here"], "missing"), 7);
    // As if it were not set.
    assert_eq!(with(&["show", "here"], ""), 0);
    assert_eq!(with(&["init"], "third"), 0);
    assert!(dir.path().join("third/MANIFEST").is_file());
}

#[test]
fn without_a_store_the_error_names_the_ways_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(&mut strand_in(dir.path(), &["list"]));
    assert_eq!(done.code, 7);
    for way in ["`strand init`", "-C STORE", "STRAND_DIR"] {
        assert!(done.err.contains(way), "{}", done.err);
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
