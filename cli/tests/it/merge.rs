//! `merge`, as git calls it.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::support::{Done, lines, plain, run, strand};

fn line(id: &str, fields: &str) -> String {
    format!(r#"{{"id":"{id}","title":"T"{fields}}}"#)
}

/// The three files of a merge.
struct Files(tempfile::TempDir);

impl Files {
    fn new(base: &str, ours: &str, theirs: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for (name, text) in [("base", base), ("ours", ours), ("theirs", theirs)] {
            fs::write(files.0.path().join(name), text).unwrap();
        }
        files
    }

    fn merge(&self, arguments: &[&str]) -> (Done, String) {
        let mut merge = strand();
        merge
            .current_dir(self.0.path())
            .arg("merge")
            .args(["base", "ours", "theirs"]);
        let done = run(merge.args(arguments));
        (
            done,
            fs::read_to_string(self.0.path().join("ours")).unwrap(),
        )
    }
}

#[test]
fn the_statuses_are_those_that_git_expects() {
    let files = Files::new(
        &line("a", ""),
        &line("a", r#","x":1"#),
        &line("a", r#","y":2"#),
    );
    let (done, text) = files.merge(&[]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(text, line("a", r#","x":1,"y":2"#) + "\n");

    let files = Files::new("", &line("a", r#","x":1"#), &line("a", r#","x":2"#));
    let (done, text) = files.merge(&[]);
    assert_eq!((done.code, done.err.as_str()), (1, "conflict in a: x\n"));
    assert!(text.starts_with("<<<<<<< ours\n"), "{text}");

    let files = Files::new("", &line("a", r#","x":1"#), &line("a", r#","x":2"#));
    let (done, _) = files.merge(&["--json"]);
    let conflict = json!({"id":"a","field":"x","base":null,"ours":"1","theirs":"2"});
    assert_eq!((done.code, lines(&done.out)), (1, vec![conflict]));

    let files = Files::new("", &line("a", ""), "nonsense");
    let (done, text) = files.merge(&[]);
    assert_eq!((done.code, text), (129, line("a", "")));
    assert!(done.err.contains("line 1 of theirs"), "{}", done.err);
}

#[test]
fn wrong_arguments_are_not_a_conflict() {
    for arguments in [
        &["merge"][..],
        &["merge", "a", "b"],
        &["--json", "merge", "a"],
        &["merge", "no", "such", "file"],
    ] {
        assert_eq!(plain(arguments).code, 129, "{arguments:?}");
    }
    assert_eq!(plain(&["merge", "--help"]).code, 0);
}

fn git(dir: &Path, arguments: &[&str]) -> bool {
    let output = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

/// A repository that merges its issues with the command.
struct Branches(tempfile::TempDir);

impl Branches {
    /// Returns `None`, and prints why, where the test can't run.
    fn new(base: &str) -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            eprintln!("SKIPPED: this test needs git");
            return None;
        }
        let branches = Self(tempfile::tempdir().unwrap());
        assert!(branches.git(&["init", "-q", "-b", "main"]));
        let driver = format!("'{}' merge %O %A %B", env!("CARGO_BIN_EXE_strand"));
        assert!(branches.git(&["config", "merge.issues.driver", &driver]));
        let attributes = branches.0.path().join(".gitattributes");
        fs::write(attributes, "*.jsonl merge=issues\n").unwrap();
        branches.commit(base);
        assert!(branches.git(&["branch", "theirs"]));
        Some(branches)
    }

    fn git(&self, arguments: &[&str]) -> bool {
        git(self.0.path(), arguments)
    }

    fn commit(&self, text: &str) {
        fs::write(self.0.path().join("i.jsonl"), text).unwrap();
        assert!(self.git(&["add", "-A"]));
        assert!(self.git(&["commit", "-q", "-m", "a change"]));
    }

    /// Merges two branches; returns whether git merged them, and the content of the file.
    fn merge(&self, ours: &str, theirs: &str) -> (bool, String) {
        assert!(self.git(&["checkout", "-q", "theirs"]));
        self.commit(theirs);
        assert!(self.git(&["checkout", "-q", "main"]));
        self.commit(ours);
        let merged = self.git(&["merge", "-q", "-m", "merged", "theirs"]);
        let text = fs::read_to_string(self.0.path().join("i.jsonl")).unwrap();
        (merged, text)
    }
}

#[test]
fn git_merges_two_branches_with_it() {
    let line = |id: &str, fields: &str| line(id, fields) + "\n";
    let Some(branches) = Branches::new(&line("a", r#","x":1,"y":1"#)) else {
        return;
    };
    let ours = line("a", r#","x":2,"y":1"#);
    let theirs = line("a", r#","x":1,"y":2"#) + &line("b", "");
    let expected = line("a", r#","x":2,"y":2"#) + &line("b", "");
    assert_eq!(branches.merge(&ours, &theirs), (true, expected));

    let ours = line("a", r#","x":8,"y":2"#);
    let theirs = line("a", r#","x":9,"y":2"#);
    let both = format!("<<<<<<< ours\n{ours}=======\n{theirs}>>>>>>> theirs\n");
    assert_eq!(branches.merge(&ours, &theirs), (false, both));
    assert!(!branches.git(&["commit", "-q", "-m", "no file is resolved"]));
}

#[test]
fn git_aborts_the_merge_of_a_file_that_is_not_issues() {
    let line = |id: &str, fields: &str| line(id, fields) + "\n";
    let Some(branches) = Branches::new(&line("a", "")) else {
        return;
    };
    let ours = line("a", r#","x":1"#);
    let theirs = line("a", r#","x":2"#) + "nonsense\n";
    assert_eq!(branches.merge(&ours, &theirs), (false, ours));
    // A commit would drop the other branch's changes.
    assert!(!branches.git(&["rev-parse", "-q", "--verify", "MERGE_HEAD"]));
}
