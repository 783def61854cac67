//! `--archive`: the records that compactions remove are kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Done, Store, lines, run, spawn};

/// The numbers of the records that `strand follow --archive` prints.
fn followed(store: &Store, archive: &Path) -> Vec<u64> {
    let archive = archive.to_str().unwrap();
    let text = store.ok("follow", &["--archive", archive, "--until-idle-ms", "0"]);
    seqs(&text)
}

fn seqs(text: &str) -> Vec<u64> {
    let seq = |line: serde_json::Value| line["seq"].as_u64().unwrap();
    lines(text).into_iter().map(seq).collect()
}

fn first_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

fn write(store: &Store, times: u32) {
    for x in 1..=times {
        store.ok("update", &["a", "--set", &format!("x={x}")]);
    }
}

/// The lines of the log, without its blank ones.
fn log_lines(store: &Store) -> String {
    let names = fs::read_dir(store.dir()).unwrap();
    let mut segments: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("log-") && !name.contains("index"))
        .collect();
    segments.sort();
    let mut lines = String::new();
    for segment in segments {
        let text = fs::read_to_string(store.file(&segment)).unwrap();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    lines
}

fn archive_dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("made").join("by").join("it");
    (dir, archive)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn all_history_is_read_from_the_archive_and_goes_on_live() {
    let store = Store::of(&[("a", "")]);
    let (_dir, archive) = archive_dir();
    let to_archive = ["--archive", archive.to_str().unwrap()];
    let mut history = String::new();
    for _ in 0..3 {
        write(&store, 4);
        history += &log_lines(&store);
        store.ok("compact", &to_archive);
    }
    write(&store, 2);
    history += &log_lines(&store);
    assert_eq!(seqs(&history), first_to(15));
    let text = store.ok(
        "follow",
        &[&to_archive[..], &["--until-idle-ms", "0"]].concat(),
    );
    assert_eq!(text + "\n", history);
    let later = [&to_archive[..], &["--from", "7", "--limit", "8"]].concat();
    assert_eq!(
        seqs(&store.ok("follow", &later)),
        (7..=14).collect::<Vec<_>>()
    );

    // A follower that is waiting goes on beside compactions.
    let mut follow = store.command("follow", &[&to_archive[..], &["--limit", "20"]].concat());
    let follow = spawn(&mut follow);
    for _ in 0..5 {
        write(&store, 1);
        store.ok("compact", &to_archive);
    }
    let done = Done::of(follow.wait_with_output().unwrap());
    assert_eq!(
        (done.code, seqs(&done.out)),
        (0, first_to(20)),
        "{}",
        done.err
    );

    // Other programs read it.
    let zcat = "zcat \"$1\"/log-*.jsonl.gz | jq -c .seq";
    let piped = Command::new("sh")
        .args(["-c", zcat, "sh"])
        .arg(&archive)
        .output();
    match piped.map(Done::of) {
        Ok(piped) if piped.err.is_empty() => assert_eq!(piped.out.lines().count(), 20),
        piped => eprintln!("SKIPPED: this test needs zcat and jq: {piped:?}"),
    }
}

/// A compaction may die at any step: after a copy was made, or when the segment is not needed any
/// more but not removed yet.
#[test]
fn a_compaction_that_died_between_the_copy_and_the_removal_is_repeated() {
    let store = Store::of(&[("a", "")]);
    let (dir, archive) = archive_dir();
    let to_archive = ["--archive", archive.to_str().unwrap()];
    write(&store, 3);
    let before = dir.path().join("before");
    copy(store.dir(), &before);
    store.ok("compact", &to_archive);

    // Copied, and nothing else.
    for entry in fs::read_dir(store.dir()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    copy(&before, store.dir());
    fs::write(
        archive.join("log-00000000000000000001.jsonl.gz.new"),
        "half",
    )
    .unwrap();
    assert_eq!(followed(&store, &archive), first_to(4));
    store.ok("compact", &to_archive);
    write(&store, 1);
    assert_eq!(followed(&store, &archive), first_to(5));

    // Not needed, and not removed.
    let name = "log-00000000000000000001.jsonl";
    fs::copy(before.join(name), store.file(name)).unwrap();
    write(&store, 1);
    store.ok("compact", &to_archive);
    assert!(!store.file(name).exists());
    assert_eq!(followed(&store, &archive), first_to(6));
}

#[test]
fn killed_compactions_lose_nothing_and_repeat_nothing() {
    let store = Store::of(&[("a", "")]);
    let (_dir, archive) = archive_dir();
    let to_archive = ["--archive", archive.to_str().unwrap()];
    let mut last = 1;
    for round in 0..30 {
        write(&store, 2);
        last += 2;
        let mut compact = spawn(&mut store.command("compact", &to_archive));
        std::thread::sleep(Duration::from_millis(round));
        compact.kill().unwrap();
        compact.wait().unwrap();
        if round % 10 == 0 {
            assert_eq!(followed_or_none(&store, &archive), first_to(last));
        }
    }
    store.ok("compact", &to_archive);
    assert_eq!(followed(&store, &archive), first_to(last));
    assert_eq!(store.json("doctor", &[])["advice"], "nothing");
}

/// As [`followed`], where there may be no archive yet.
fn followed_or_none(store: &Store, archive: &Path) -> Vec<u64> {
    if archive.join("STORE").exists() {
        return followed(store, archive);
    }
    seqs(&store.ok("follow", &["--from", "1", "--until-idle-ms", "0"]))
}

#[test]
fn an_archive_is_written_in_the_background_too() {
    let store = Store::of(&[("a", "")]);
    let (_dir, archive) = archive_dir();
    let refused = store.run("follow", &["--archive", "--until-idle-ms", "0"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    write(&store, 3);
    store.ok("compact", &["--archive", archive.to_str().unwrap()]);
    let other = archive.with_file_name("other");
    let refused = store.run("compact", &["--archive", other.to_str().unwrap()]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    let report = store.json("doctor", &[]);
    let files = report["files"].as_array().unwrap();
    let setting = files.iter().find(|file| file["file"] == "archive-dir");
    assert_eq!(setting.unwrap()["kind"], "setting");

    // More than a log is long before it is due.
    let text = "x".repeat(1 << 20);
    for _ in 0..5 {
        let event = json!({"op": "patch", "id": "a", "patch": {"set": {"x": text}}});
        let done = store.fed("append", &[], &event.to_string());
        assert_eq!(done.code, 0, "{}", done.err);
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    while store.file("log-00000000000000000005.jsonl").exists() {
        assert!(Instant::now() < deadline, "nobody compacts it");
        std::thread::sleep(Duration::from_millis(10));
    }
    let done = store.ok("follow", &["--archive", "--until-idle-ms", "0"]);
    assert_eq!(seqs(&done), first_to(9));
}

#[test]
fn an_archive_that_cannot_be_written_or_read_says_why_and_nothing_is_removed() {
    let store = Store::of(&[("a", "")]);
    let (dir, archive) = archive_dir();
    let to_archive = ["--archive", archive.to_str().unwrap()];
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let done = store.run("compact", &["--archive", file.to_str().unwrap()]);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(store.first_segment().exists());

    // Another store's records would be taken for this one's.
    store.ok("compact", &to_archive);
    let other = Store::of(&[("b", "")]);
    for command in ["compact", "follow"] {
        let done = other.run(command, &to_archive);
        assert_eq!(done.code, 10, "{}", done.err);
        assert!(
            done.err.contains("archive of another store"),
            "{}",
            done.err
        );
    }
    assert!(other.first_segment().exists());

    // A copy of the store that went on in another way.
    let copied = dir.path().join("copy");
    copy(store.dir(), &copied);
    write(&store, 1);
    store.ok("compact", &to_archive);
    let strand = |arguments: &[&str]| {
        let mut strand = crate::support::strand();
        run(strand.arg("-C").arg(&copied).args(arguments))
    };
    assert_eq!(strand(&["close", "a"]).code, 0);
    let done = strand(&["compact", to_archive[0], to_archive[1]]);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.contains("has other records"), "{}", done.err);
    assert!(copied.join("log-00000000000000000002.jsonl").exists());
    let done = strand(&["doctor"]);
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.out.contains("has other records"), "{}", done.out);

    let first = archive.join("log-00000000000000000001.jsonl.gz");
    let mut bytes = fs::read(&first).unwrap();
    bytes.truncate(bytes.len() - 9);
    fs::write(&first, bytes).unwrap();
    let follow = [&to_archive[..], &["--until-idle-ms", "0"]].concat();
    assert_eq!(store.run("follow", &follow).code, 6);
    fs::remove_file(&first).unwrap();
    let done = store.run("follow", &follow);
    assert_eq!(done.code, 11, "{}", done.err);
}

/// Nobody sees why a compaction in the background fails.
#[test]
fn the_doctor_says_what_stops_compactions_from_archiving() {
    let store = Store::of(&[("a", "")]);
    let (dir, archive) = archive_dir();
    assert_eq!(store.json("doctor", &[])["archive"], json!(null));
    store.ok("compact", &["--archive", archive.to_str().unwrap()]);
    write(&store, 1);
    let good = json!({"dir": archive, "problem": null});
    assert_eq!(store.json("doctor", &[])["archive"], good);
    let bad = |code: i32, why: &str| {
        let done = store.run("doctor", &[]);
        assert_eq!(done.code, code, "{}", done.out);
        let line = done.out.lines().find(|line| line.starts_with("archive: "));
        let line = line.unwrap_or_default();
        assert!(line.contains(why), "{line}");
        assert_ne!(store.run("compact", &[]).code, 0);
        let report = &lines(&store.run("doctor", &["--json"]).out)[0];
        assert_eq!(report["advice"], "nothing");
        assert!(line.contains(report["archive"]["problem"].as_str().unwrap()));
    };

    let away = dir.path().join("away");
    fs::rename(&archive, &away).unwrap();
    bad(1, "cannot read");
    // A directory that is there because the disk is not mounted is no archive, either.
    fs::create_dir(&archive).unwrap();
    bad(1, "cannot read");
    fs::write(archive.join("STORE"), "another\n").unwrap();
    bad(10, "archive of another store");
    fs::remove_dir_all(&archive).unwrap();
    fs::rename(&away, &archive).unwrap();

    // As on a full disk, for whoever runs the tests.
    let segment = archive.join("log-00000000000000000002.jsonl.gz.new");
    for name in [&segment, &archive.join("doctor.new")] {
        fs::create_dir(name).unwrap();
    }
    bad(1, "cannot write");
    for name in [&segment, &archive.join("doctor.new")] {
        fs::remove_dir(name).unwrap();
    }
    assert_eq!(store.json("doctor", &[])["archive"], good);
    store.ok("compact", &[]);
}
