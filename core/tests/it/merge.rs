//! Merging exports.

use std::fs;

use proptest::prelude::*;
use strand_core::{Error, Issue, merge, merge_files};

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
    let other = line("a", r#","x":1"#);
    let cases = [
        (merge(b"", b"{}", b""), "ours", 1),
        (
            merge(b"", format!("\n{good}\n{other}\n").as_bytes(), b""),
            "ours",
            3,
        ),
        (
            merge(b"", b"", format!("{good}\n=======\n").as_bytes()),
            "theirs",
            2,
        ),
    ];
    for (result, side, number) in cases {
        match result {
            Err(Error::BadLine { file, line, .. }) => {
                assert_eq!((file.as_path(), line), (side.as_ref(), number));
            }
            other => panic!("{other:?}"),
        }
    }
    // The same twice says nothing new.
    assert_eq!(
        merged("", &format!("{good}\n{good}"), ""),
        (good + "\n", vec![])
    );
}

#[test]
fn a_line_with_a_name_that_is_no_text_is_an_error_wherever_the_name_is() {
    let base = line("a", r#","x":1,"y":1"#);
    let theirs = line("a", r#","x":1,"y":2"#);
    for ours in [
        r#"{"id":"a","title":"T","x":1,"y":1,"\ud800":1}"#,
        r#"{"\ud800":1,"id":"a","title":"T","x":1,"y":1}"#,
    ] {
        let merged = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
        let Err(Error::BadLine { file, reason, .. }) = merged else {
            panic!("{merged:?}");
        };
        assert_eq!(file.as_path().to_str(), Some("ours"));
        assert!(reason.contains("a name can't be read"), "{reason}");
    }
}

#[test]
fn nothing_in_the_base_is_an_error_since_history_cannot_be_changed() {
    let (a, b, c) = (line("a", r#","x":1"#), line("b", ""), line("c", ""));
    // Both sides have repaired it, and one has changed it.
    let twice = [a.as_str(), &line("a", r#","x":2"#), &b].join("\n");
    let repaired = format!("{a}\n{b}\n");
    assert_eq!(
        merged(&twice, &repaired, &repaired),
        (repaired.clone(), vec![])
    );
    // What the two lines agree on is known.
    let closed = format!("{}\n{b}\n", line("a", r#","x":1,"status":"closed""#));
    assert_eq!(merged(&twice, &repaired, &closed), (closed.clone(), vec![]));
    let renamed = format!("{}\n{b}\n", a.replace(r#""title":"T""#, r#""title":"U""#));
    let both = renamed.replace(r#""x":1"#, r#""x":1,"status":"closed""#);
    assert_eq!(merged(&twice, &renamed, &closed), (both, vec![]));
    // What only one side has may be new.
    assert_eq!(
        merged("nonsense\n", &repaired, &b),
        (repaired.clone(), vec![])
    );
    // A criss-cross merge leaves the driver's own markers, also for a deletion.
    let conflict = format!(
        "<<<<<<< ours\n{a}\n=======\n{}\n>>>>>>> theirs\n<<<<<<< ours\n=======\n{c}\n>>>>>>> theirs\n{b}\n",
        line("a", r#","x":2"#)
    );
    assert_eq!(merged(&conflict, &repaired, &closed), (closed, vec![]));
    assert_eq!(merged(&conflict, &c, &repaired).0, format!("{a}\n{c}\n"));
}

#[test]
fn bookkeeping_fields_have_rules_of_their_own() {
    let at = |day: u32| format!("\"2025-01-0{day}T00:00:00Z\"");
    let issue =
        |status: &str, rest: &str| line("a", &format!(r#","status":"{status}"{rest}"#)) + "\n";
    let closed =
        |day: u32, rest: &str| issue("closed", &format!(r#","closed_at":{}{rest}"#, at(day)));
    let clean = |base: &str, ours: &str, theirs: &str, expected: &str| {
        assert_eq!(merged(base, ours, theirs), (expected.to_owned(), vec![]));
        let (mirrored, conflicts) = merged(base, theirs, ours);
        let fields = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
        assert_eq!((fields(&mirrored), conflicts), (fields(expected), vec![]));
    };
    // Closed by both: the later time.
    clean(
        &issue("open", ""),
        &closed(2, ""),
        &closed(3, ""),
        &closed(3, ""),
    );
    // Reopened by one, while the other touched the time only.
    clean(
        &closed(1, ""),
        &issue("open", ""),
        &closed(2, ""),
        &issue("open", ""),
    );
    // Closed by one, while the other removed the time from what was open.
    clean(
        &issue("open", r#","closed_at":"x""#),
        &closed(2, ""),
        &issue("open", ""),
        &closed(2, ""),
    );
    let deleted = |day: u32| issue("tombstone", &format!(r#","deleted_at":{}"#, at(day)));
    clean(&issue("open", ""), &deleted(1), &deleted(2), &deleted(2));
    let created = |day: u32| issue("open", &format!(r#","created_at":{}"#, at(day)));
    clean(&issue("open", ""), &created(2), &created(1), &created(1));
    // A digest of the content is that of the side that has the content, or none.
    let hashed = |x: u32, y: u32, hash: &str| {
        issue(
            "open",
            &format!(r#","x":{x},"y":{y},"content_hash":"{hash}""#),
        )
    };
    clean(
        &hashed(1, 1, "a"),
        &hashed(2, 1, "b"),
        &hashed(1, 1, "c"),
        &hashed(2, 1, "b"),
    );
    let neither = issue("open", r#","x":2,"y":2"#);
    clean(
        &hashed(1, 1, "a"),
        &hashed(2, 1, "b"),
        &hashed(1, 2, "c"),
        &neither,
    );
    // In a conflict, each line keeps what goes with it, and nothing else is listed.
    let (text, conflicts) = merged(&hashed(1, 1, "a"), &hashed(2, 1, "b"), &hashed(3, 1, "c"));
    assert_eq!(conflicts, [("a".to_owned(), Some("x".to_owned()))]);
    assert!(
        text.contains(&hashed(2, 1, "b")) && text.contains(&hashed(3, 1, "c")),
        "{text}"
    );
}

#[test]
fn lines_that_are_no_issue_are_merged_as_a_whole() {
    let memory = |key: &str, value: u32| {
        format!(r#"{{"_type":"memory","key":"{key}","value":{value}}}"#) + "\n"
    };
    let issue = line("a", "") + "\n";
    let base = memory("k", 1) + &memory("l", 1) + &issue;
    let ours = memory("k", 2) + &memory("l", 1) + &issue;
    let theirs = issue.clone() + &memory("k", 1) + &memory("m", 1);
    let expected = memory("k", 2) + &memory("m", 1) + &issue;
    assert_eq!(merged(&base, &ours, &theirs), (expected, vec![]));
    let (text, conflicts) = merged(
        &base,
        &ours,
        &base.replace("k\",\"value\":1", "k\",\"value\":3"),
    );
    assert_eq!(conflicts, [("_memory:k".to_owned(), None)]);
    assert!(
        text.contains(&memory("k", 2)) && text.contains(&memory("k", 3)),
        "{text}"
    );
    // Without a key, each is what it says.
    let note = |text: &str| format!(r#"{{"_type":"note","text":"{text}"}}"#) + "\n";
    let (text, conflicts) = merged(&note("a"), &note("b"), &(note("a") + &note("c")));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (lines.join("\n") + "\n", conflicts),
        (note("b") + &note("c"), vec![])
    );
}

/// Two branches that drew the id `a`.
fn drawn(title: &str, day: u32, rest: &str) -> String {
    format!(r#"{{"id":"a","title":"{title}","created_at":"2025-01-0{day}T00:00:00Z"{rest}}}"#)
        + "\n"
}

#[test]
fn two_issues_that_drew_one_id_are_both_kept() {
    let depends = |id: &str, on: &str| {
        line(
            id,
            &format!(
                r#","dependencies":[{{"issue_id":"{id}","depends_on_id":"{on}","type":"blocks"}}]"#
            ),
        ) + "\n"
    };
    let base = line("b", "") + "\n" + &line("c", "") + "\n";
    let ours = drawn("Mend", 1, "") + &depends("b", "a") + &line("c", "") + "\n";
    let theirs = drawn("Paint", 2, r#","x":1"#) + &line("b", "") + "\n" + &depends("c", "a");
    let merge_both = |ours: &str, theirs: &str| {
        merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).unwrap()
    };
    let merged = merge_both(&ours, &theirs);
    assert_eq!(merged.conflicts, []);
    let [renamed] = merged.renamed.as_slice() else {
        panic!("{merged:?}")
    };
    let [id, new] = renamed;
    assert!(
        id == "a" && new.starts_with("a-") && new.len() == 6,
        "{renamed:?}"
    );
    let paint = drawn("Paint", 2, r#","x":1"#).replace(r#""id":"a""#, &format!(r#""id":"{new}""#));
    let expected = drawn("Mend", 1, "") + &paint + &depends("b", "a") + &depends("c", new);
    assert_eq!(merged.text, expected);
    // The other clone chooses the same.
    let mirrored = merge_both(&theirs, &ours);
    assert_eq!(
        (&mirrored.text, &mirrored.renamed),
        (&expected, &merged.renamed)
    );
    // Merged once more with a branch that has not heard of it and goes on with its own.
    let later = theirs.replace(r#""x":1"#, r#""x":2"#);
    let again =
        strand_core::merge(theirs.as_bytes(), expected.as_bytes(), later.as_bytes()).unwrap();
    assert_eq!((&again.conflicts, &again.renamed), (&vec![], &vec![]));
    assert_eq!(again.text, expected.replace(r#""x":1"#, r#""x":2"#));
    // And with a base from before both, as after a cherry-pick.
    let again = merge_both(&expected, &later);
    assert_eq!(again.text.matches("Paint").count(), 2, "{}", again.text);
    assert_eq!(again.conflicts[0].field.as_deref(), Some("x"));
}

#[test]
fn one_issue_that_both_sides_added_keeps_its_id() {
    // Cherry-picked, and then changed: one time of creation.
    let ours = drawn("Mend", 1, r#","x":1"#);
    let (_, conflicts) = merged("", &ours, &drawn("Mend it", 1, r#","x":1"#));
    assert_eq!(conflicts, [("a".to_owned(), Some("title".to_owned()))]);
    // An id that the base may have had.
    let (_, conflicts) = merged("nonsense", &ours, &drawn("Paint", 2, ""));
    assert_eq!(conflicts, [("a".to_owned(), Some("title".to_owned()))]);
    assert!(Issue::from_json(ours.trim_end()).is_ok());
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
