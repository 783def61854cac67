//! The fold: the effect of events on issues is the same however it is computed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use strand_core::{
    Batch, CommitError, Durability, Filter, Issue, IssueEvent, IssueLog, Issues, LiveIssues, Op,
    Options, Patch, Seq, Timestamp, Version,
};

use crate::support::{TS, after, options};

fn issue(id: &str, status: &str) -> Issue {
    Issue::new_at(id, "Mend the fence", TS)
        .with("status", status)
        .unwrap()
}

fn at(ts: i64, op: Op) -> IssueEvent {
    let id = "bd-1";
    match op {
        Op::Add => IssueEvent::add(issue(id, "in_progress"), Timestamp::from_ms(ts)),
        Op::Update => IssueEvent::update(issue(id, "hooked"), Timestamp::from_ms(ts)),
        Op::Close => IssueEvent::close(id, Timestamp::from_ms(ts)),
        Op::Reopen => IssueEvent::reopen(id, Timestamp::from_ms(ts)),
        Op::Delete => IssueEvent::delete(id, Timestamp::from_ms(ts)),
        Op::SetBlocked => IssueEvent::set_blocked(id, Timestamp::from_ms(ts)),
        Op::UnsetBlocked => IssueEvent::unset_blocked(id, Timestamp::from_ms(ts)),
        Op::Patch => IssueEvent::patch(id, Patch::new().add_label("a"), Timestamp::from_ms(ts)),
        other => panic!("{other:?}"),
    }
}

/// A store in which `bd-1` is in this state, through record 10.
fn store_with(state: &str) -> Issues {
    let mut store = Issues::default();
    match state {
        "absent" => {}
        "deleted" => {
            store.apply(Seq::new(9), [IssueEvent::add(issue("bd-1", "open"), TS)]);
            store.apply(Seq::new(10), [IssueEvent::delete("bd-1", TS)]);
        }
        status => {
            store.apply(Seq::new(10), [IssueEvent::add(issue("bd-1", status), TS)]);
        }
    }
    store
}

#[test]
fn each_event_does_to_each_state_what_the_table_says() {
    let states = ["absent", "open", "blocked", "closed", "deleted"];
    let table = [
        (Op::Add, ["in_progress"; 5]),
        (Op::Update, ["–", "hooked", "hooked", "hooked", "–"]),
        (Op::Patch, ["–", "open", "blocked", "closed", "–"]),
        (Op::Close, ["–", "closed", "closed", "–", "–"]),
        (Op::Reopen, ["–", "–", "–", "open", "–"]),
        (Op::SetBlocked, ["–", "blocked", "–", "–", "–"]),
        (Op::UnsetBlocked, ["–", "–", "open", "–", "–"]),
        (Op::Delete, ["–", "gone", "gone", "gone", "–"]),
    ];
    for (op, row) in table {
        for (state, expected) in states.into_iter().zip(row) {
            let before = store_with(state);
            let mut store = before.clone();
            store.apply(Seq::new(11), [at(after(60_000).as_ms(), op)]);
            let case = format!("{op:?} on {state}");
            let now = store.get("bd-1");
            if expected == "–" {
                assert_eq!(store.without_effect(), 1, "{case}");
                assert_eq!(now, before.get("bd-1"), "{case}");
                assert_eq!(store.version("bd-1"), before.version("bd-1"), "{case}");
                continue;
            }
            assert_eq!(store.without_effect(), 0, "{case}");
            assert_eq!(store.version("bd-1"), Some(Version::new(11)), "{case}");
            assert_eq!(store.len(), usize::from(expected != "gone"), "{case}");
            let Some(now) = now else {
                assert_eq!(expected, "gone", "{case}");
                continue;
            };
            assert_eq!(now.status().as_deref(), Some(expected), "{case}");
            let is_whole = matches!(op, Op::Add | Op::Update);
            let changed_at = "2024-01-29T14:54:20.123Z";
            assert_eq!(
                now.field::<String>("updated_at").unwrap() == changed_at,
                !is_whole,
                "{case}"
            );
            let closed_at = (op == Op::Close).then_some(changed_at);
            assert_eq!(
                now.field::<String>("closed_at").as_deref(),
                closed_at,
                "{case}"
            );
        }
    }
}

#[test]
fn a_patch_leaves_every_byte_that_it_does_not_name() {
    let text = r#"{"id":"bd-1","n":1.10,"title":"\u0041🪢","big":18446744073709551616,"n":1e400,"labels":["b", "a"],"x":{"labels":[ ]}}"#;
    let issue = Issue::from_json(text).unwrap();
    assert_eq!(Patch::new().apply(&issue).unwrap(), issue);
    let patch = Patch::new()
        .remove_label("b")
        .add_label("a")
        .add_label("c")
        .set("new", &json!({"a": 1}))
        .unwrap()
        .append_comment(&json!({"text": "done"}))
        .unwrap();
    let patched = patch.apply(&issue).unwrap();
    assert_eq!(
        patched.as_json(),
        r#"{"id":"bd-1","n":1.10,"title":"\u0041🪢","big":18446744073709551616,"n":1e400,"labels":["a","c"],"x":{"labels":[ ]},"new":{"a":1},"comments":[{"text":"done"}]}"#
    );
    let taken = Patch::new()
        .unset("n")
        .unset("missing")
        .apply(&issue)
        .unwrap();
    assert!(!taken.as_json().contains(r#""n""#));
    assert!(Patch::new().add("n", &1).unwrap().apply(&issue).is_err());
}

#[test]
fn a_patch_of_a_later_version_keeps_its_members_and_one_that_takes_the_id_is_refused() {
    let text = r#"{"ts":1,"op":"patch","id":"bd-1","patch":{"set":{"a":1.10},"remove":{"l":[1]},"x-new":[1]},"key":"k","extra":2}"#;
    let event: IssueEvent = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), text);
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), options()).unwrap();
    log.append(&event).unwrap();
    let refused = [
        Patch::new().set("id", "bd-2").unwrap(),
        Patch::new().unset("title"),
        Patch::new().set("title", &1).unwrap(),
        Patch::new().append("id", "x").unwrap(),
        Patch::new().set("title", &"x".repeat(70_000)).unwrap(),
    ];
    for patch in refused {
        log.append(&IssueEvent::patch("bd-1", patch, TS))
            .unwrap_err();
    }
}

#[test]
fn no_patch_makes_an_issue_longer_than_a_record() {
    let text = "x".repeat(3 << 20);
    let patch = || Patch::new().append_comment(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = IssueLog::open(dir.path(), options()).unwrap();
    log.create(issue("bd-1", "open")).unwrap();
    log.patch("bd-1", patch()).unwrap();
    let refused = log.patch("bd-1", patch());
    assert!(
        matches!(
            refused,
            Err(CommitError::Log(strand_core::Error::InvalidEvent(_)))
        ),
        "{refused:?}"
    );
    log.append(&IssueEvent::patch("bd-1", patch(), TS)).unwrap();
    log.compact().unwrap();
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(
        (store.version("bd-1"), store.without_effect()),
        (Some(Version::new(2)), 1)
    );
}

fn queried(store: &Issues) -> Vec<String> {
    let ids = |found: Vec<(&str, &Issue)>| {
        found
            .iter()
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let filters = [
        Filter::new().status("open"),
        Filter::new().assignee("ann").label("red"),
        Filter::new().label("red").status("closed"),
        Filter::new().label("none"),
        Filter::new(),
    ];
    let mut answers: Vec<String> = filters
        .iter()
        .map(|filter| ids(store.list(filter)))
        .collect();
    answers.push(ids(store.ready()));
    answers.extend(store.iter().map(|(id, _)| store.blockers(id).join(" ")));
    answers
}

#[test]
fn each_criterion_narrows_a_list_and_what_is_ready_comes_by_urgency() {
    let blocked =
        r#","priority":0,"dependencies":[{"issue_id":"z","depends_on_id":"a","type":"blocks"}]"#;
    let mut issues = Issues::default();
    let given = [
        ("a", r#","priority":2,"assignee":"x","labels":["l","m"]"#),
        ("b", r#","issue_type":"bug","labels":["l"]"#),
        (
            "c",
            r#","priority":0,"description":"Über den ZAUN","assignee":"x""#,
        ),
        ("d", r#","priority":-1"#),
        ("e", r#","priority":0"#),
        ("z", blocked),
    ];
    for (seq, (id, fields)) in (1..).zip(given) {
        let json = format!(r#"{{"id":"{id}","title":"The {id}","status":"open"{fields}}}"#);
        let issue = Issue::from_json(&json).unwrap();
        let added = IssueEvent::add(issue, Timestamp::from_ms(0));
        issues.apply(Seq::new(seq), [added]);
    }
    let ids = |found: Vec<(&str, &Issue)>| {
        let ids: Vec<&str> = found.into_iter().map(|(id, _)| id).collect();
        ids.join(" ")
    };
    let all = Filter::new;
    for (filter, expected) in [
        (all(), "a b c d e z"),
        (all().assignee("x"), "a c"),
        (all().priority(0), "c e z"),
        (all().priority(0).assignee("x"), "c"),
        (all().issue_type("bug"), "b"),
        (all().label("l"), "a b"),
        (all().label("l").label("m"), "a"),
        (all().label("m").label("l").status("closed"), ""),
        (all().text("über den zaun"), "c"),
        (all().text("THE B"), "b"),
        (all().text("Z").status("open"), "c z"),
    ] {
        assert_eq!(ids(issues.list(&filter)), expected, "{filter:?}");
        let matching = issues
            .iter()
            .filter(|(id, issue)| filter.matches(id, issue));
        assert_eq!(ids(matching.collect()), expected, "{filter:?}");
    }
    assert_eq!(ids(issues.ready()), "d c e a b");
    let more = Patch::new().set("priority", &-2).unwrap();
    issues.apply(
        Seq::new(9),
        [IssueEvent::patch("b", more, Timestamp::from_ms(0))],
    );
    assert_eq!(ids(issues.ready()), "b d c e a");
}

#[test]
fn queries_find_by_status_assignee_and_label_and_what_is_ready() {
    let depends =
        |on: &str, kind: &str| json!({"issue_id": "x", "depends_on_id": on, "type": kind});
    let with = |id: &str, status: &str, fields: Value| {
        let fields = fields.as_object().unwrap().clone();
        let issue = fields
            .iter()
            .fold(issue(id, status), |issue, (name, value)| {
                issue.with(name, value).unwrap()
            });
        IssueEvent::add(issue, TS)
    };
    let mut store = Issues::default();
    let events = [
        with(
            "a",
            "open",
            json!({"assignee": "ann", "labels": ["red", "red"]}),
        ),
        with(
            "b",
            "open",
            json!({"dependencies": [depends("a", "blocks"), 7]}),
        ),
        with(
            "c",
            "open",
            json!({"dependencies": [depends("b", "parent-child")], "labels": 5}),
        ),
        with("d", "closed", json!({"labels": ["red"], "assignee": "ann"})),
        with(
            "e",
            "open",
            json!({"dependencies": [depends("d", "blocks"), depends("gone", "blocks"), depends("a", "related")]}),
        ),
        with(
            "f",
            "open",
            json!({"dependencies": [depends("g", "blocks")], "assignee": ""}),
        ),
        with(
            "g",
            "open",
            json!({"dependencies": [depends("f", "blocks"), depends("f", "parent-child")]}),
        ),
    ];
    for (seq, event) in (1..).zip(events) {
        store.apply(Seq::new(seq), [event]);
    }
    let answers = queried(&store);
    assert_eq!(
        answers[..6],
        ["a b c e f g", "a d", "d", "", "a b c d e f g", "a e"]
    );
    assert_eq!(answers[6..], ["", "a", "a", "", "", "g", "f g"]);
    assert_eq!(store.dependencies("c"), [(1, "b"), (2, "a")]);
    assert_eq!(store.dependencies("f"), [(1, "g"), (2, "f")]);
    assert_eq!(store.dependencies("e"), [(1, "d"), (1, "gone")]);
    // The index is kept up.
    store.apply(Seq::new(8), [IssueEvent::close("a", TS)]);
    store.apply(Seq::new(9), [IssueEvent::delete("g", TS)]);
    let patch = Patch::new()
        .add_label("none")
        .set("assignee", "bob")
        .unwrap();
    store.apply(Seq::new(10), [IssueEvent::patch("e", patch, TS)]);
    assert_eq!(
        queried(&store),
        queried(&store.clone()),
        "a copy builds its own"
    );
    assert_eq!(queried(&store)[3..6], ["e", "a b c d e f", "b c e f"]);
}

/// The table again, on plain values.
fn reference(state: &mut BTreeMap<String, Value>, event: &IssueEvent) {
    let (id, ts) = (event.id.clone(), event.ts);
    let now = format!("2024-01-29T14:53:20.{:03}Z", ts.as_ms() - TS.as_ms() + 123);
    let text = serde_json::to_value(event).unwrap();
    let Some(issue) = state.get_mut(&id) else {
        if event.op == Op::Add {
            state.insert(id, text["data"].clone());
        }
        return;
    };
    let status = issue["status"].as_str().unwrap_or("").to_owned();
    let fields = issue.as_object_mut().unwrap();
    let mut set = |values: &[(&str, &str)]| {
        for (name, value) in values {
            fields.insert((*name).to_owned(), json!(value));
        }
        fields.insert("updated_at".to_owned(), json!(now));
    };
    match event.op {
        Op::Delete => drop(state.remove(&id)),
        _ if text["data"].is_object() => *issue = text["data"].clone(),
        Op::Close if status != "closed" => set(&[("status", "closed"), ("closed_at", &now)]),
        Op::Reopen if status == "closed" => {
            set(&[("status", "open")]);
            fields.remove("closed_at");
        }
        Op::SetBlocked if !["closed", "blocked"].contains(&&*status) => {
            set(&[("status", "blocked")]);
        }
        Op::UnsetBlocked if status == "blocked" => set(&[("status", "open")]),
        Op::Patch => {
            set(&[]);
            for (name, value) in text["patch"]["set"].as_object().into_iter().flatten() {
                fields.insert(name.clone(), value.clone());
            }
            for label in text["patch"]["add"]["labels"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let labels = fields.entry("labels").or_insert_with(|| json!([]));
                let labels = labels.as_array_mut().unwrap();
                if !labels.contains(label) {
                    labels.push(label.clone());
                }
            }
        }
        _ => {}
    }
}

pub(crate) fn any_event() -> impl Strategy<Value = IssueEvent> {
    let id = (0..4).prop_map(|number| format!("bd-{number}"));
    let status = prop_oneof![
        Just("open"),
        Just("blocked"),
        Just("closed"),
        Just("hooked")
    ];
    (id, status, 0..10, 0..800_i64).prop_map(|(id, status, kind, later)| {
        let ts = after(later);
        match kind {
            0 | 1 => IssueEvent::add(issue(&id, status), ts),
            2 => IssueEvent::update(issue(&id, status), ts),
            3 => IssueEvent::close(id, ts),
            4 => IssueEvent::reopen(id, ts),
            5 => IssueEvent::delete(id, ts),
            6 => IssueEvent::set_blocked(id, ts),
            7 => IssueEvent::unset_blocked(id, ts),
            8 => {
                let patch = Patch::new().set("priority", &(later % 5)).unwrap();
                IssueEvent::patch(id, patch.set("status", status).unwrap(), ts)
            }
            _ => IssueEvent::patch(id, Patch::new().add_label(status), ts)
                .with_key(format!("k{later}")),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_fold_is_that_of_plain_values_also_when_records_are_applied_again(
        events in prop::collection::vec(any_event(), 1..60),
    ) {
        let mut store = Issues::default();
        let mut plain = BTreeMap::new();
        for (seq, event) in (1..).zip(&events) {
            reference(&mut plain, event);
            prop_assert!(store.apply(Seq::new(seq), [event.clone()]));
        }
        let values: BTreeMap<String, Value> = store
            .iter()
            .map(|(id, issue)| (id.to_owned(), serde_json::from_str(issue.as_json()).unwrap()))
            .collect();
        prop_assert_eq!(values, plain);
        let once = store.clone();
        for (seq, event) in (1..).zip(&events) {
            prop_assert!(!store.apply(Seq::new(seq), [event.clone()]));
        }
        prop_assert_eq!(store, once);
    }

    #[test]
    fn the_state_is_the_same_wherever_the_log_is_split_into_snapshot_and_rest(
        events in prop::collection::vec(any_event(), 1..25),
        splits in prop::collection::vec(any::<bool>(), 25),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let keeps = options().tombstone_ms(u64::MAX).durability(strand_core::Durability::Buffered);
        let log = IssueLog::open(dir.path(), keeps).unwrap();
        let mut whole = Issues::default();
        let mut followed = LiveIssues::open(dir.path()).unwrap();
        for ((seq, event), split) in (1..).zip(&events).zip(splits) {
            log.append(event).unwrap();
            whole.apply(Seq::new(seq), [event.clone()]);
            if split {
                log.compact().unwrap();
                followed.refresh().unwrap();
                prop_assert_eq!(followed.state(), &whole);
            }
        }
        log.log().sync_all().unwrap();
        prop_assert_eq!(Issues::load(dir.path()).unwrap(), whole);
    }

    #[test]
    fn patches_of_different_fields_commute(a in 0..100, b in "[a-z]{0,5}", first in any::<bool>()) {
        let mine = Patch::new().set("priority", &a).unwrap();
        let theirs = Patch::new().set("owner", &b).unwrap();
        let (one, two) = if first { (&mine, &theirs) } else { (&theirs, &mine) };
        let patched = two.apply(&one.apply(&issue("bd-1", "open")).unwrap()).unwrap();
        prop_assert_eq!(patched.priority(), Some(i64::from(a)));
        prop_assert_eq!(patched.field::<String>("owner"), Some(b));
    }
}

#[test]
fn live_issues_forget_in_time_what_compactions_have_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default()
        .durability(Durability::Buffered)
        .tombstone_ms(0)
        .idempotency_records(100);
    let log = IssueLog::open(dir.path(), options).unwrap();
    log.append(&IssueEvent::add(issue("bd-stays", "open"), TS))
        .unwrap();
    let mut followed = LiveIssues::open(dir.path()).unwrap();
    for number in 0..6_000 {
        let id = format!("bd-{number}");
        let create = Batch::at(TS).key(format!("key-{number}"));
        log.commit(&create.create(issue(&id, "open"))).unwrap();
        log.append(&IssueEvent::delete(id, TS)).unwrap();
        if number % 500 == 0 {
            log.log().sync_all().unwrap();
            assert_eq!(
                Some(followed.refresh().unwrap()),
                log.log().tail_seq().unwrap()
            );
            log.compact().unwrap();
        }
    }
    assert_eq!(
        (
            followed.state().version("bd-0"),
            followed.state().key("key-0")
        ),
        (None, None)
    );
    // It is still a usable state.
    log.log().sync_all().unwrap();
    assert_eq!(followed.refresh().unwrap(), 12_001);
    let loaded = Issues::load(dir.path()).unwrap();
    assert_eq!(
        followed.state().iter().collect::<Vec<_>>(),
        loaded.iter().collect::<Vec<_>>()
    );
    assert_eq!(followed.state().version("bd-stays"), Some(Version::new(1)));
}
