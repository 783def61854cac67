//! The store is the one that was opened, whatever becomes of its path.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use strand_core::{
    IssueEvent, Log, Options, Reader, Seq,
    check::{Advice, check},
};

use crate::support::{as_child, child, event, finish, ids, open_issues, options, store_of};

/// Three segments of it are soon full.
fn small() -> Options {
    options().segment_bytes_max(300)
}

fn numbered(dir: &Path) -> Vec<String> {
    ids(Reader::open(dir).unwrap().records().unwrap())
}

fn is_well(dir: &Path) {
    let report = check(dir).unwrap();
    assert_eq!(report.advice, Advice::Nothing, "{report}");
}

/// Two stores with one record each.
fn two_stores(temp: &Path) -> [PathBuf; 2] {
    ["one", "two"].map(|name| {
        let dir = temp.join(name);
        fs::create_dir(&dir).unwrap();
        store_of(&dir, 1);
        dir
    })
}

/// Appends ten records to a log of one record, reads and follows them.
fn go_on(log: &Log<IssueEvent>) {
    for number in 2..=11 {
        log.append(&event(&format!("bd-{number}"))).unwrap();
    }
    assert_eq!(ids(log.records().unwrap()).len(), 11);
}

#[test]
fn a_moved_store_goes_on_under_its_new_name() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    let log = Log::open(&one, small()).unwrap();
    let reader = Reader::<IssueEvent>::open(&one).unwrap();
    let mut follower = reader.follow(Seq::new(2)).unwrap();
    let moved = temp.path().join("moved");
    fs::rename(&one, &moved).unwrap();
    fs::rename(&two, &one).unwrap();
    go_on(&log);
    assert_eq!(ids(reader.records().unwrap()).len(), 11);
    let mut seen = Vec::new();
    while let Some(record) = follower.try_next().unwrap() {
        seen.push(record.seq.get());
    }
    assert_eq!(seen, (2..=11).collect::<Vec<_>>());
    assert_eq!(numbered(&moved).len(), 11);
    assert_eq!(numbered(&one), ["bd-1"]);
    is_well(&moved);
    is_well(&one);
}

#[test]
fn a_store_that_was_opened_by_a_symbolic_link_stays_when_the_link_is_switched() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    let link = temp.path().join("link");
    symlink(&one, &link).unwrap();
    let log = Log::open(&link, small()).unwrap();
    let issues = open_issues(&link);
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    go_on(&log);
    issues.compact().unwrap();
    issues.claim("bd-3", "agent").unwrap();
    assert_eq!(numbered(&one).len(), 1);
    assert!(one.join("snapshot-00000000000000000011.jsonl").exists());
    assert_eq!(numbered(&two), ["bd-1"]);
    is_well(&one);
    is_well(&two);
}

#[test]
fn a_relative_path_is_not_looked_up_again_after_chdir() {
    if let Some((temp, _)) = as_child() {
        std::env::set_current_dir(temp.join("one")).unwrap();
        let log = Log::open(".", small()).unwrap();
        let issues = open_issues(Path::new("."));
        std::env::set_current_dir(temp.join("two")).unwrap();
        go_on(&log);
        issues.compact().unwrap();
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = two_stores(temp.path());
    finish(child(
        "identity::a_relative_path_is_not_looked_up_again_after_chdir",
        temp.path(),
        "",
    ));
    assert!(one.join("snapshot-00000000000000000011.jsonl").exists());
    assert_eq!(numbered(&two), ["bd-1"]);
    is_well(&one);
    is_well(&two);
}
