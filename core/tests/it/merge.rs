//! Merging exports.

use std::fs;

use proptest::prelude::*;
use strand_core::{MergeError, Side, merge, merge_files};

fn line(id: &str, fields: &str) -> String {
    format!(r#"{{"id":"{id}","title":"T"{fields}}}"#)
}

fn merged(base: &str, ours: &str, theirs: &str) -> (String, Vec<(String, Option<String>)>) {
    let merged = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).unwrap();
    let conflicts = merged.conflicts.into_iter();
    (
        merged.text,
        conflicts
            .map(|conflict| (conflict.id, conflict.field))
            .collect(),
    )
}

#[test]
fn changes_of_different_issues_and_of_different_fields_are_combined() {
    let base = [
        line("a", r#","x":1,"y":1.10"#),
        line("b", ""),
        line("c", ""),
    ]
    .join("\n");
    let ours = [
        line("a", r#","x":2,"y":1.10,"new":1"#),
        line("c", ""),
        line("d", ""),
    ]
    .join("\n");
    let theirs = [
        line("a", r#","y":2.0,"x":1,"z":[]"#),
        line("b", ""),
        line("c", r#","x":1"#),
    ]
    .join("\n");
    let expected = [
        line("a", r#","x":2,"y":2.0,"new":1,"z":[]"#),
        line("c", r#","x":1"#),
        line("d", ""),
    ];
    assert_eq!(
        merged(&base, &ours, &theirs),
        (expected.join("\n") + "\n", vec![])
    );
}

#[test]
fn arrays_are_merged_as_sets_and_the_later_time_counts() {
    let base = line(
        "a",
        r#","labels":["x","y"],"updated_at":"2025-01-01T00:00:00Z","r":1"#,
    );
    let ours = line(
        "a",
        r#","labels":["x","o"],"updated_at":"2025-01-02T00:00:00+02:00""#,
    );
    let theirs = line(
        "a",
        r#","labels":["t","x","y"],"updated_at":"2025-01-01T23:00:00Z","r":1,"comments":[{"b":1,"a":2}]"#,
    );
    let expected = line(
        "a",
        r#","labels":["x","o","t"],"updated_at":"2025-01-01T23:00:00Z","comments":[{"b":1,"a":2}]"#,
    );
    assert_eq!(merged(&base, &ours, &theirs), (expected + "\n", vec![]));
}

#[test]
fn a_conflict_keeps_both_lines_which_differ_only_in_it() {
    let base = line("a", r#","status":"open","p":1"#);
    let ours = line("a", r#","status":"closed","p":2"#);
    let theirs = line("a", r#","status":"blocked","p":1,"q":3"#);
    let one = line("a", r#","status":"closed","p":2,"q":3"#);
    let other = line("a", r#","status":"blocked","p":2,"q":3"#);
    let text = format!("<<<<<<< ours\n{one}\n=======\n{other}\n>>>>>>> theirs\n");
    assert_eq!(
        merged(&base, &ours, &theirs),
        (text, vec![("a".to_owned(), Some("status".to_owned()))])
    );
    // Deleted by one, changed by the other.
    let text = format!("<<<<<<< ours\n=======\n{theirs}\n>>>>>>> theirs\n");
    assert_eq!(
        merged(&base, "", &theirs),
        (text, vec![("a".to_owned(), None)])
    );
    // Created by both.
    let (text, conflicts) = merged("", &ours, &theirs);
    assert_eq!(conflicts.len(), 2, "{text}");
    // Not to be merged by field.
    let twice = line("a", r#","status":"closed","x":1,"x":2"#);
    let (text, conflicts) = merged(&base, &twice, &theirs);
    assert!(text.contains(&twice) && text.contains(&theirs));
    assert_eq!(conflicts, [("a".to_owned(), None)]);
}

#[test]
fn a_value_that_one_side_only_respelled_keeps_that_spelling() {
    let base = line("a", r#","n":1.1,"s":"A","o":{"p":1,"q":2},"x":1"#) + "\n";
    let anew = line("a", r#","n":1.10,"s":"\u0041","o":{"q":2,"p":1},"x":1"#) + "\n";
    assert_eq!(merged(&base, &anew, &base), (anew.clone(), vec![]));
    assert_eq!(merged(&base, &base, &anew), (anew.clone(), vec![]));
    let changed = line("a", r#","n":1.1,"s":"A","o":{"p":1,"q":2},"x":2"#) + "\n";
    let both = anew.replace("\"x\":1", "\"x\":2");
    assert_eq!(merged(&base, &anew, &changed), (both.clone(), vec![]));
    assert_eq!(merged(&base, &changed, &anew), (both, vec![]));
}

#[test]
fn numbers_that_are_equal_only_as_floats_are_a_conflict() {
    let base = line("a", r#","n":1,"x":1"#);
    let ours = line("a", r#","n":12345678901234567.2,"x":2"#);
    let theirs = line("a", r#","n":12345678901234567.1,"x":1"#);
    let (text, conflicts) = merged(&base, &ours, &theirs);
    assert_eq!(conflicts, [("a".to_owned(), Some("n".to_owned()))]);
    assert!(text.contains("567.1") && text.contains("567.2"), "{text}");
}

#[test]
fn a_line_that_is_not_an_issue_is_an_error_that_names_it() {
    let good = line("a", "");
    let cases = [
        (merge(b"{}", b"", b""), Side::Base, 1),
        (
            merge(b"", format!("\n{good}\n{good}\n").as_bytes(), b""),
            Side::Ours,
            3,
        ),
        (
            merge(b"", b"", format!("{good}\n=======\n").as_bytes()),
            Side::Theirs,
            2,
        ),
    ];
    for (result, side, line) in cases {
        match result {
            Err(MergeError::BadLine {
                side: at,
                line: number,
                ..
            }) => {
                assert_eq!((at, number), (side, line));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_merge_that_fails_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("base"), "").unwrap();
    fs::write(path("ours"), line("a", "")).unwrap();
    fs::write(path("theirs"), "nonsense").unwrap();
    merge_files(&path("base"), &path("ours"), &path("theirs")).unwrap_err();
    assert_eq!(fs::read_to_string(path("ours")).unwrap(), line("a", ""));
    assert_eq!(dir.path().read_dir().unwrap().count(), 3);
}

fn any_side() -> impl Strategy<Value = String> {
    let issue = |id: &'static str| {
        (0..4, 0..3, prop::collection::vec(0..4, 0..3)).prop_map(move |(there, x, labels)| {
            let labels: std::collections::BTreeSet<i32> = labels.into_iter().collect();
            let fields = format!(r#","x":{x},"l":{labels:?}"#)
                .replace('{', "[")
                .replace('}', "]");
            if there > 0 {
                line(id, &fields) + "\n"
            } else {
                String::new()
            }
        })
    };
    (issue("a"), issue("b")).prop_map(|(a, b)| a + &b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_merge_with_what_did_not_change_is_the_other_and_no_side_loses_anything(
        base in any_side(), ours in any_side(), theirs in any_side(),
    ) {
        prop_assert_eq!(merged(&base, &ours, &base), (ours.clone(), vec![]));
        prop_assert_eq!(merged(&base, &base, &theirs), (theirs.clone(), vec![]));
        prop_assert_eq!(merged(&base, &ours, &ours), (ours.clone(), vec![]));
        let (text, conflicts) = merged(&base, &ours, &theirs);
        let (mirrored, same_conflicts) = merged(&base, &theirs, &ours);
        prop_assert_eq!(&conflicts, &same_conflicts);
        prop_assert_eq!(text.lines().count(), mirrored.lines().count());
        // A value that one side changed or added is in its field.
        for side in [&ours, &theirs] {
            for line in side.lines().filter(|line| !base.contains(line)) {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let old = base.lines().find(|old| old.contains(&format!("\"id\":{}", value["id"])));
                let old: serde_json::Value = old.map_or(serde_json::Value::Null, |old| serde_json::from_str(old).unwrap());
                if old["x"] != value["x"] {
                    let found = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                    let found = found.filter(|found| found["id"] == value["id"] && found["x"] == value["x"]);
                    prop_assert!(found.count() > 0, "{} lost in {}", line, text);
                }
            }
        }
    }
}
