//! A store and a file of JSON lines that mirrors it: `import`, `export` and `sync`.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::support::{Done, Store, issue, plain};

/// A directory for a file that two stores share, as two clones of a repository do.
struct Shared {
    a: Store,
    b: Store,
    dir: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        Self {
            a: Store::new(),
            b: Store::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, store: &Store, command: &str, name: &str, more: &[&str]) -> Done {
        let path = self.path(name);
        let mut arguments = vec![path.to_str().unwrap()];
        arguments.extend_from_slice(more);
        store.run(command, &arguments)
    }

    fn ok(&self, store: &Store, command: &str, name: &str, more: &[&str]) -> String {
        let done = self.run(store, command, name, more);
        assert_eq!(done.code, 0, "{command}: {}", done.err);
        done.out.trim_end().to_owned()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, lines: &[String]) {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        fs::write(self.path(name), text).unwrap();
    }
}

fn x(id: &str, x: u32) -> String {
    issue(id, &format!(r#","x":{x}"#))
}

fn lines_of(store: &Store) -> Vec<String> {
    let exported = store.ok("export", &[]);
    exported.lines().map(str::to_owned).collect()
}

#[test]
fn a_deletion_that_git_has_merged_travels_through_an_import() {
    let shared = Shared::new();
    let Shared { a, b, .. } = &shared;
    shared.write("f", &["a", "b", "c"].map(|id| issue(id, "")));
    shared.ok(a, "import", "f", &[]);
    shared.ok(a, "export", "f", &[]);
    fs::copy(shared.path("f"), shared.path("base")).unwrap();
    shared.ok(b, "import", "f", &[]);
    b.ok("delete", &["b"]);
    shared.ok(b, "export", "theirs", &[]);
    let [base, ours, theirs] = ["base", "f", "theirs"].map(|name| shared.path(name));
    assert_eq!(
        plain(&[
            "merge".as_ref(),
            base.as_os_str(),
            ours.as_os_str(),
            theirs.as_os_str()
        ])
        .code,
        0
    );
    let out = shared.ok(a, "import", "f", &[]);
    assert_eq!(
        out,
        "2 lines: 0 added, 0 replaced, 2 unchanged, 1 deleted, 0 bad"
    );
    shared.ok(a, "export", "f", &[]);
    assert!(!shared.text("f").contains(r#""id":"b""#));
}

#[test]
fn an_import_deletes_only_what_the_file_had_and_the_store_has_not_changed() {
    let shared = Shared::new();
    let a = &shared.a;
    shared.write("f", &["a", "b", "c"].map(|id| x(id, 1)));
    shared.ok(a, "import", "f", &[]);
    a.ok("create", &["Mine", "--id", "mine"]);
    a.ok("update", &["b", "--set", "x=2"]);
    shared.write("f", &[x("a", 1)]);
    let out = shared.ok(a, "import", "f", &["--keep-missing"]);
    assert!(!out.contains("deleted"), "{out}");
    // It was imported without them, so that they are the store's own now.
    let out = shared.ok(a, "import", "f", &[]);
    assert!(!out.contains("deleted"), "{out}");
    shared.write("f", &["a", "b", "c"].map(|id| x(id, 1)));
    shared.ok(a, "import", "f", &["--existing", "keep"]);
    shared.write("f", &[x("a", 1)]);
    let out = shared.ok(a, "import", "f", &[]);
    assert!(out.contains("1 deleted"), "{out}");
    let ids = |store: &Store| lines_of(store).len();
    assert_eq!(ids(a), 3);
    let out = shared.ok(a, "import", "f", &["--delete-missing", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done["deleted"], 2);
    assert_eq!(lines_of(a), [x("a", 1)]);
    // A bad line may be the issue that seems to be missing.
    fs::write(shared.path("f"), "nonsense\n").unwrap();
    let out = shared.ok(a, "import", "f", &["--delete-missing", "--skip-bad-lines"]);
    assert!(!out.contains("deleted"), "{out}");
    let done = a.fed("import", &["--delete-missing"], &x("z", 1));
    assert_eq!((done.code, lines_of(a)), (0, vec![x("z", 1)]));
}

#[test]
fn an_older_line_replaces_a_newer_issue_or_a_deletion_only_if_it_is_to() {
    let at = |day: u32, x: u32| {
        issue(
            "a",
            &format!(r#","x":{x},"updated_at":"2025-01-0{day}T00:00:00Z""#),
        )
    };
    let store = Store::new();
    let import = |line: &str, existing: &str| {
        let done = store.fed("import", &["--existing", existing], line);
        assert_eq!(done.code, 0, "{}", done.err);
        lines_of(&store)
    };
    import(&at(2, 2), "newer");
    assert_eq!(import(&at(1, 1), "newer"), [at(2, 2)]);
    assert_eq!(import(&issue("a", ""), "newer"), [at(2, 2)]);
    assert_eq!(import(&at(3, 3), "newer"), [at(3, 3)]);
    store.ok("delete", &["a"]);
    assert_eq!(import(&at(4, 4), "newer"), [""; 0]);
    let later = at(4, 4).replace("2025", "2999");
    assert_eq!(import(&later, "newer"), [later.as_str()]);
    assert_eq!(import(&at(1, 1), "replace"), [at(1, 1)]);
}

#[test]
fn an_export_does_not_overwrite_what_others_have_written() {
    let shared = Shared::new();
    let a = &shared.a;
    a.ok("create", &["Mine", "--id", "mine"]);
    // A pulled file that was never imported.
    shared.write("f", &[issue("a", "")]);
    let done = shared.run(a, "export", "f", &[]);
    assert_eq!(done.code, 4, "{}", done.err);
    assert!(done.err.contains("has changed since"), "{}", done.err);
    assert_eq!(shared.text("f"), issue("a", "") + "\n");
    shared.ok(a, "import", "f", &[]);
    shared.ok(a, "export", "f", &[]);
    a.ok("close", &["a"]);
    shared.ok(a, "export", "f", &[]);
    let ours = shared.text("f");
    let theirs = ours.clone() + &issue("z", "") + "\n";
    fs::write(shared.path("f"), &theirs).unwrap();
    assert_eq!(shared.run(a, "export", "f", &[]).code, 4);
    assert_eq!(shared.text("f"), theirs);
    shared.ok(a, "export", "f", &["--force"]);
    assert_eq!(shared.text("f"), ours);
    // What is as it would be anyway, or gone, is no loss.
    fs::copy(shared.path("f"), shared.path("same")).unwrap();
    shared.ok(a, "export", "same", &[]);
    fs::remove_file(shared.path("f")).unwrap();
    shared.ok(a, "export", "f", &[]);
    fs::write(shared.path("empty"), "").unwrap();
    shared.ok(a, "export", "empty", &[]);
}

#[test]
fn many_other_files_do_not_make_a_store_forget_the_one_in_use() {
    let shared = Shared::new();
    let a = &shared.a;
    shared.write("f", &[issue("a", "")]);
    shared.ok(a, "sync", "f", &[]);
    for number in 0..40 {
        shared.ok(a, "export", &format!("backup-{number}"), &[]);
        if number % 10 == 9 {
            shared.ok(a, "sync", "f", &[]);
        }
    }
    let kept = fs::read_dir(a.file("mirrors")).unwrap().count();
    assert!(kept <= 17, "{kept}");
    a.ok("delete", &["a"]);
    a.ok("create", &["Other", "--id", "b"]);
    shared.ok(a, "sync", "f", &[]);
    assert!(!shared.text("f").contains(r#""id":"a""#));
    let report = a.json("doctor", &[]);
    let files = report["files"].as_array().unwrap();
    assert!(
        files.iter().any(|file| file["kind"] == "mirrors"),
        "{report}"
    );
}

#[test]
fn a_sync_takes_the_changes_of_both_sides_and_deletions_count() {
    let shared = Shared::new();
    let Shared { a, b, .. } = &shared;
    shared.write("f", &["a", "b", "c", "d"].map(|id| x(id, 1)));
    for store in [a, b] {
        assert_eq!(
            shared.ok(store, "sync", "f", &[]),
            "4 lines: 4 added, 0 replaced, 0 unchanged, 0 bad"
        );
        shared.ok(store, "sync", "f", &[]);
    }
    // A changes one and deletes another; B, which has not heard of it, does the same elsewhere.
    a.ok(
        "update",
        &[
            "a",
            "--set",
            "x=2",
            "--set",
            "updated_at=\"2025-01-01T00:00:00Z\"",
        ],
    );
    a.ok("delete", &["b"]);
    b.ok(
        "update",
        &[
            "a",
            "--set",
            "y=2",
            "--set",
            "updated_at=\"2025-01-02T00:00:00Z\"",
        ],
    );
    b.ok("delete", &["c"]);
    b.ok("create", &["New", "--id", "new"]);
    shared.ok(a, "sync", "f", &[]);
    let out = shared.ok(b, "sync", "f", &[]);
    assert_eq!(
        out,
        "3 lines: 0 added, 1 replaced, 2 unchanged, 1 deleted, 3 exported, 0 bad"
    );
    let out = shared.ok(a, "sync", "f", &[]);
    assert_eq!(
        out,
        "3 lines: 1 added, 1 replaced, 1 unchanged, 1 deleted, 0 bad"
    );
    assert_eq!(lines_of(a), lines_of(b));
    assert_eq!(lines_of(a).join("\n") + "\n", shared.text("f"));
    let merged = a.json("show", &["a"]);
    assert_eq!(
        (&merged["issue"]["x"], &merged["issue"]["y"]),
        (&json!(2), &json!(2))
    );
    // Once more, there is nothing to do: no record, and the file is not touched.
    let before = fs::metadata(shared.path("f")).unwrap().modified().unwrap();
    let again = shared.ok(a, "sync", "f", &["--json"]);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(
        (&again["last_seq"], &again["exported"]),
        (&json!(0), &json!(null))
    );
    assert_eq!(
        fs::metadata(shared.path("f")).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn what_both_sides_changed_otherwise_is_decided_by_the_user() {
    for (prefer, expected) in [("file", 3), ("store", 2), ("newer", 3)] {
        let shared = Shared::new();
        let a = &shared.a;
        shared.write("f", &[x("a", 1), x("b", 1)]);
        shared.ok(a, "sync", "f", &[]);
        a.ok("update", &["a", "--set", "x=2"]);
        a.ok("update", &["b", "--set", "y=2"]);
        let later = x("a", 3).replace('}', r#","updated_at":"2999-01-01T00:00:00Z"}"#);
        shared.write("f", &[later, x("b", 1)]);
        let before = (lines_of(a), shared.text("f"));
        let done = shared.run(a, "sync", "f", &[]);
        assert_eq!(done.code, 4);
        assert!(done.err.contains("a (x)"), "{}", done.err);
        assert_eq!((lines_of(a), shared.text("f")), before);
        let done = shared.run(a, "sync", "f", &["--prefer", prefer]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.err.contains("decided: a (x)"), "{}", done.err);
        assert_eq!(a.json("show", &["a"])["issue"]["x"], expected, "{prefer}");
        assert_eq!(lines_of(a).join("\n") + "\n", shared.text("f"));
        assert!(shared.text("f").contains(r#""y":2"#));
        shared.ok(a, "sync", "f", &[]);
    }
}

#[test]
fn a_first_sync_adds_and_does_not_bring_back_what_was_deleted_later() {
    let shared = Shared::new();
    let a = &shared.a;
    let old = issue("a", r#","updated_at":"2025-01-01T00:00:00Z""#);
    assert_eq!(
        a.fed("import", &[], &(old.clone() + "\n" + &issue("mine", "")))
            .code,
        0
    );
    a.ok("delete", &["a"]);
    let created = |title: &str, day: u32| {
        format!(
            r#"{{"id":"k","title":"{title}","status":"open","created_at":"2025-01-0{day}T00:00:00Z"}}"#
        )
    };
    assert_eq!(a.fed("import", &[], &created("Mend", 2)).code, 0);
    shared.write("f", &[old, issue("b", ""), created("Paint", 1)]);
    let done = shared.run(a, "sync", "f", &[]);
    assert_eq!(done.code, 0, "{}", done.err);
    // Two issues had the id `k`; the later one, which is the store's, has another now.
    assert!(done.err.contains("had drawn the id k"), "{}", done.err);
    assert!(a.ok("show", &["k"]).contains("Paint"));
    let text = shared.text("f");
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains("Mend") && !text.contains(r#""id":"a""#),
        "{text}"
    );
    assert_eq!(lines_of(a).join("\n") + "\n", text);
}

#[test]
fn a_file_that_was_emptied_deletes_nothing_and_a_missing_one_is_written() {
    let shared = Shared::new();
    let a = &shared.a;
    shared.write("f", &[issue("a", "")]);
    shared.ok(a, "sync", "f", &[]);
    fs::write(shared.path("f"), "").unwrap();
    let done = shared.run(a, "sync", "f", &[]);
    assert_eq!(done.code, 9);
    assert!(done.err.contains("is empty"), "{}", done.err);
    a.ok("create", &["New", "--id", "b"]);
    fs::remove_file(shared.path("f")).unwrap();
    shared.ok(a, "sync", "f", &[]);
    assert_eq!(lines_of(a).len(), 2);
    assert_eq!(lines_of(a).join("\n") + "\n", shared.text("f"));
    // Nor does a bad line change anything.
    fs::write(shared.path("f"), "nonsense\n").unwrap();
    let done = shared.run(a, "sync", "f", &[]);
    assert_eq!(done.code, 9);
    assert!(done.err.contains("line 1"), "{}", done.err);
    assert_eq!(shared.text("f"), "nonsense\n");
}

#[test]
fn agents_go_on_writing_while_a_file_is_synced() {
    let shared = Shared::new();
    let a = &shared.a;
    shared.write("f", &[x("a", 1)]);
    shared.ok(a, "sync", "f", &[]);
    std::thread::scope(|scope| {
        for agent in 0..2 {
            scope.spawn(move || {
                for number in 0..10 {
                    a.ok("create", &["T", "--id", &format!("n-{agent}-{number}")]);
                    a.ok("update", &["a", "--set", &format!("y{agent}={number}")]);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 0..8 {
                    // An export between the two would be refused.
                    shared.ok(a, "sync", "f", &["--prefer", "store"]);
                    a.ok("update", &["a", "--set", &format!("z={number}")]);
                }
            });
        }
    });
    shared.ok(a, "sync", "f", &[]);
    assert_eq!(lines_of(a).len(), 21);
    assert_eq!(lines_of(a).join("\n") + "\n", shared.text("f"));
    let issue = &a.json("show", &["a"])["issue"];
    assert_eq!(
        (&issue["y0"], &issue["y1"], &issue["z"]),
        (&json!(9), &json!(9), &json!(7))
    );
}
