//! Issues in a real git repository: branches that are merged, rebased and cherry-picked, and clones
//! whose stores are synced.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{run, strand};

const FILE: &str = "issues.jsonl";

/// A clone, or a repository of its own.
struct Repository(PathBuf);

impl Repository {
    /// `None`, and a reason, where the test can't run.
    fn new(dir: &Path) -> Option<Self> {
        let there = Command::new("git").arg("--version").output();
        if !there.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: this test needs git");
            return None;
        }
        let repository = Self(dir.to_owned());
        repository.ok(&["init", "-q", "-b", "main"]);
        repository.configure();
        Some(repository)
    }

    fn configure(&self) {
        for (name, value) in [
            ("user.name", "t"),
            ("user.email", "t@t"),
            ("commit.gpgsign", "false"),
            ("gc.auto", "0"),
            ("advice.diverging", "false"),
        ] {
            self.ok(&["config", name, value]);
        }
        let done = run(strand().current_dir(&self.0).args(["merge", "--install"]));
        assert_eq!(done.code, 0, "{}", done.err);
    }

    /// Whether git did it, and what it said.
    fn git(&self, arguments: &[&str]) -> (bool, String) {
        let mut git = Command::new("git");
        let output = git.current_dir(&self.0).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (done, text) = self.git(arguments);
        assert!(done, "git {arguments:?}: {text}");
        text.trim_end().to_owned()
    }

    fn write(&self, lines: &BTreeMap<String, String>) {
        let text: String = lines.values().flat_map(|line| [line, "\n"]).collect();
        fs::write(self.0.join(FILE), text).unwrap();
    }

    fn commit(&self) {
        self.ok(&["add", "-A"]);
        self.ok(&["commit", "-q", "-m", "a change"]);
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.join(FILE)).unwrap()
    }

    /// The lines of the file as they are checked out.
    fn lines(&self) -> BTreeMap<String, String> {
        let text = self.text();
        let lines = text.lines().map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"));
            let id = value["id"].as_str().or(value["key"].as_str()).unwrap();
            (id.to_owned(), line.to_owned())
        });
        lines.collect()
    }

    fn strand(&self, arguments: &[&str]) -> String {
        let done = run(strand().current_dir(&self.0).args(arguments));
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.err);
        done.out
    }
}

/// A new issue, as a tracker writes it.
fn issue(id: &str, title: &str, second: u32) -> Value {
    let at = format!("2025-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
    json!({
        "id": id, "title": title, "status": "open", "created_at": at, "updated_at": at,
        "content_hash": "0", "labels": [],
    })
}

/// Changes one issue as `who`: a field of its own, a label, and the bookkeeping that all change.
fn change(line: &mut String, who: &str, step: u32) {
    let mut value: Value = serde_json::from_str(line).unwrap();
    value[who] = json!(step);
    value["updated_at"] = json!(format!("2025-02-01T00:{:02}:{:02}Z", step / 60, step % 60));
    value["content_hash"] = json!(format!("{who}{step}"));
    value["labels"]
        .as_array_mut()
        .unwrap()
        .push(json!(format!("{who}{step}")));
    *line = value.to_string();
}

#[test]
fn two_hundred_commits_are_merged_rebased_and_cherry_picked_without_an_abort() {
    let dir = tempfile::tempdir().unwrap();
    let Some(repository) = Repository::new(dir.path()) else {
        return;
    };
    let mut expected: BTreeMap<String, BTreeMap<&str, u32>> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for number in 0..20 {
        let id = format!("bd-{number:02}");
        lines.insert(id.clone(), issue(&id, "T", number).to_string());
        expected.insert(id, BTreeMap::new());
    }
    let memory = |value: u32| json!({"_type":"memory","key":"m","value":value}).to_string();
    lines.insert("m".to_owned(), memory(0));
    repository.write(&lines);
    repository.commit();
    let mut commits = 1;
    let mut drawn = 0;
    for round in 0..50 {
        for (branch, who) in [("a", "by_a"), ("b", "by_b")] {
            repository.ok(&["checkout", "-q", "-B", branch, "main"]);
            for step in 0..2 {
                let mut lines = repository.lines();
                // Both sides change the same issue in the same round.
                let id = format!("bd-{:02}", (round * 2 + step) % 20);
                if let Some(line) = lines.get_mut(&id) {
                    change(line, who, round * 2 + step);
                    expected.get_mut(&id).unwrap().insert(who, round * 2 + step);
                }
                let id = format!("{branch}-{round:02}");
                if step == 0 {
                    lines.insert(id.clone(), issue(&id, "new", 100 + round).to_string());
                    expected.insert(id, BTreeMap::new());
                } else if round >= 4 && branch == "a" {
                    let old = format!("b-{:02}", round - 4);
                    lines.remove(&old);
                    expected.remove(&old);
                    lines.insert("m".to_owned(), memory(round));
                }
                if round % 10 == 9 && step == 1 {
                    let id = format!("same-{round:02}");
                    let title = format!("drawn by {who}");
                    let second = 300 + round + u32::from(branch == "b");
                    lines.insert(id.clone(), issue(&id, &title, second).to_string());
                    drawn += 1;
                }
                repository.write(&lines);
                repository.commit();
                commits += 1;
            }
        }
        repository.ok(&["checkout", "-q", "main"]);
        repository.ok(&["merge", "-q", "-m", "a", "a"]);
        match round % 3 {
            0 => drop(repository.ok(&["merge", "-q", "--no-ff", "-m", "b", "b"])),
            1 => {
                repository.ok(&["rebase", "-q", "main", "b"]);
                repository.ok(&["checkout", "-q", "main"]);
                repository.ok(&["merge", "-q", "--ff-only", "b"]);
            }
            _ => drop(repository.ok(&["cherry-pick", "b~2..b"])),
        }
    }
    assert!(commits > 200, "{commits}");
    let lines = repository.lines();
    assert_eq!(lines.len(), expected.len() + 1 + drawn);
    assert_eq!(lines["m"], memory(49));
    for (id, changes) in &expected {
        let value: Value = serde_json::from_str(&lines[id]).unwrap();
        for (who, step) in changes {
            assert_eq!(value[*who], *step, "{id} {who}");
        }
    }
    // All of it is a tracker's file still.
    repository.strand(&["init"]);
    repository.strand(&["sync", FILE]);
    let text = repository.text();
    assert_eq!(repository.strand(&["export"]), text);
    assert_eq!(text.lines().count(), lines.len());
}

#[test]
fn a_criss_cross_merge_whose_bases_conflict_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let Some(repository) = Repository::new(dir.path()) else {
        return;
    };
    let with = |x: u32, y: u32| {
        let line = json!({"id":"k","title":"T","x":x,"y":y}).to_string();
        BTreeMap::from([("k".to_owned(), line)])
    };
    let commit = |x: u32, y: u32| {
        repository.write(&with(x, y));
        repository.commit();
    };
    // Also for a clone that has only the driver: then git hands over a base with markers.
    for (round, recursive) in [(0, true), (1, false)] {
        if !recursive {
            repository.ok(&["config", "--unset", "merge.issues.recursive"]);
        }
        let start = format!("start-{round}");
        repository.ok(&["checkout", "-q", "--orphan", &start]);
        commit(0, 0);
        repository.ok(&["checkout", "-q", "-B", "one", &start]);
        commit(1, 0);
        repository.ok(&["checkout", "-q", "-B", "two", &start]);
        commit(2, 0);
        repository.ok(&["checkout", "-q", "-B", "one-2", "one"]);
        for (branch, other, x, y) in [("one-2", "two", 3, 0), ("two-2", "one", 3, 5)] {
            let from = other.replace("two", "one-").replace("one-", "one");
            let from = if branch == "one-2" {
                from.as_str()
            } else {
                "two"
            };
            repository.ok(&["checkout", "-q", "-B", branch, from]);
            let (merged, text) = repository.git(&["merge", "-q", "-m", "m", other]);
            assert!(!merged && repository.text().contains("<<<<<<<"), "{text}");
            commit(x, y);
        }
        repository.ok(&["merge", "-q", "-m", "criss-cross", "one-2"]);
        assert_eq!(repository.lines(), with(3, 5));
    }
}

#[test]
fn two_clones_with_stores_keep_in_step_through_git() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    fs::create_dir(&origin).unwrap();
    let Some(first) = Repository::new(&origin) else {
        return;
    };
    first.ok(&["config", "receive.denyCurrentBranch", "updateInstead"]);
    fs::write(origin.join(".gitignore"), ".strand/\n").unwrap();
    first.strand(&["init"]);
    for id in ["a", "b", "c"] {
        first.strand(&["create", "T", "--id", id]);
    }
    first.strand(&["sync", FILE]);
    first.commit();
    first.ok(&["clone", "-q", ".", "../clone"]);
    let second = Repository(dir.path().join("clone"));
    second.configure();
    second.strand(&["init"]);
    second.strand(&["sync", FILE]);
    // Both go on, offline.
    first.strand(&["delete", "b"]);
    first.strand(&["update", "a", "--set", "x=1"]);
    first.strand(&["create", "First", "--id", "same"]);
    first.strand(&["sync", FILE]);
    first.commit();
    second.strand(&["update", "a", "--set", "y=1"]);
    std::thread::sleep(std::time::Duration::from_millis(2));
    second.strand(&["create", "Second", "--id", "same"]);
    second.strand(&["close", "c"]);
    second.strand(&["sync", FILE]);
    second.commit();
    second.strand(&["update", "same", "--set", "late=1"]);
    second.ok(&["pull", "-q", "--no-rebase", "--no-edit"]);
    second.strand(&["sync", FILE]);
    second.commit();
    second.ok(&["push", "-q"]);
    first.strand(&["sync", FILE]);
    assert_eq!(first.strand(&["export"]), second.strand(&["export"]));
    assert_eq!(first.strand(&["export"]), second.text());
    let lines = first.lines();
    assert!(!lines.contains_key("b"));
    let a: Value = serde_json::from_str(&lines["a"]).unwrap();
    assert_eq!((&a["x"], &a["y"]), (&json!(1), &json!(1)));
    assert!(lines["same"].contains("First") && lines["c"].contains("closed"));
    let renamed = lines.iter().find(|(id, _)| id.starts_with("same-"));
    let (_, renamed) = renamed.unwrap();
    assert!(
        renamed.contains("Second") && renamed.contains(r#""late":1"#),
        "{renamed}"
    );
}

#[test]
fn an_installation_is_complete_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let Some(repository) = Repository::new(dir.path()) else {
        return;
    };
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join(".gitattributes"), "*.png binary").unwrap();
    for _ in 0..2 {
        let mut install = strand();
        install.current_dir(dir.path().join("sub"));
        assert_eq!(run(install.args(["merge", "--install", "*.jsonl"])).code, 0);
    }
    let attributes = fs::read_to_string(dir.path().join(".gitattributes")).unwrap();
    assert_eq!(attributes, "*.png binary\n*.jsonl merge=issues\n");
    assert_eq!(
        repository.ok(&["config", "merge.issues.recursive"]),
        "binary"
    );
    let driver = repository.ok(&["config", "merge.issues.driver"]);
    assert!(driver.contains(" merge %O %A %B; "), "{driver}");
    let outside = tempfile::tempdir().unwrap();
    let done = run(strand()
        .current_dir(outside.path())
        .args(["merge", "--install"]));
    assert!(done.code != 0 && done.err.contains("git"), "{}", done.err);
    assert_eq!(
        run(strand().args(["merge", "--install", "two words"])).code,
        129
    );
}

#[cfg(unix)]
#[test]
fn the_recipe_aborts_the_merge_where_the_command_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(repository) = Repository::new(dir.path()) else {
        return;
    };
    let driver = repository.ok(&["config", "merge.issues.driver"]);
    let (_, guard) = driver.split_once(';').unwrap();
    let lines = |x: u32| {
        BTreeMap::from([(
            "a".to_owned(),
            json!({"id":"a","title":"T","x":x}).to_string(),
        )])
    };
    repository.write(&lines(0));
    repository.commit();
    for missing in ["/nowhere/strand", "kill -9 $$ #"] {
        let recipe = format!("{missing} merge %O %A %B\n{guard}");
        repository.ok(&["config", "merge.issues.driver", &recipe]);
        repository.ok(&["checkout", "-q", "-B", "theirs", "main"]);
        repository.write(&lines(1));
        repository.commit();
        repository.ok(&["checkout", "-q", "-B", "ours", "main"]);
        repository.write(&lines(2));
        repository.commit();
        let (merged, _) = repository.git(&["merge", "-q", "-m", "m", "theirs"]);
        assert!(!merged);
        // A commit would drop the other branch's changes.
        assert!(
            !repository
                .git(&["rev-parse", "-q", "--verify", "MERGE_HEAD"])
                .0,
            "{missing}"
        );
        assert_eq!(repository.lines(), lines(2));
    }
}
