//! Writes with conditions: exactly one of those who compete succeeds, and the others are told why
//! not.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use strand_core::{
    Batch, CommitError, Conflict, Durability, Error, Expected, InvalidEvent, Issue, IssueEvent,
    IssueLog, Issues, Outcome, Patch, Reader, Seq, Timestamp, Version,
};

use crate::support::{Recorder, TS, as_child, child, finish, open_issues, options};

fn issue(id: &str) -> Issue {
    Issue::new_at(id, "Mend the fence", TS)
}

fn expected(error: CommitError) -> Expected {
    match error {
        CommitError::Conflict(conflict) => conflict.expected,
        error => panic!("{error}"),
    }
}

#[test]
fn an_update_needs_the_version_that_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open_issues(dir.path()), open_issues(dir.path()));
    let version = one.create(issue("bd-1")).unwrap().version();
    let mine = issue("bd-1").with("priority", &1).unwrap();
    let theirs = issue("bd-1").with("priority", &2).unwrap();
    let won = one.update_if(mine.clone(), version).unwrap().version();
    match other.update_if(theirs, version) {
        Err(CommitError::Conflict(conflict)) => assert_eq!(
            conflict,
            Conflict {
                id: "bd-1".to_owned(),
                expected: Expected::Version(version),
                version: Some(won),
                issue: Some(mine.clone()),
            }
        ),
        result => panic!("{result:?}"),
    }
    assert_eq!(
        one.log().tail_seq().unwrap(),
        Some(Seq::new(won.get())),
        "nothing was written"
    );
    other.append(&IssueEvent::delete("bd-1", TS)).unwrap();
    let deleted = one.update_if(mine, won).unwrap_err();
    assert!(
        matches!(
            &deleted,
            CommitError::Conflict(Conflict {
                version: Some(version),
                issue: None,
                ..
            }) if *version == 3
        ),
        "{deleted:?}"
    );
    assert!(deleted.is_conflict());
}

#[test]
fn creating_an_existing_issue_is_an_error_even_if_another_process_created_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open_issues(dir.path()), open_issues(dir.path()));
    one.create(issue("bd-1")).unwrap();
    let again = other.create(issue("bd-1")).unwrap_err();
    assert!(
        matches!(&again, CommitError::Conflict(conflict)
            if conflict.expected == Expected::Absent && conflict.version == Some(Version::new(1))),
        "{again:?}"
    );
    one.compact().unwrap();
    other.create(issue("bd-1")).unwrap_err();
    one.append(&IssueEvent::delete("bd-1", TS)).unwrap();
    other.create(issue("bd-1")).unwrap();
    let missing = other
        .patch("bd-2", Patch::new().add_label("a"))
        .unwrap_err();
    assert_eq!(expected(missing), Expected::Present);
}

#[test]
fn changes_of_different_fields_both_survive() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open_issues(dir.path()), open_issues(dir.path()));
    one.create(issue("bd-1")).unwrap();
    let priority = Patch::new().set("priority", &0).unwrap();
    one.patch("bd-1", priority.add_label("red")).unwrap();
    other.patch("bd-1", Patch::new().add_label("blue")).unwrap();
    let now = Issues::load(dir.path()).unwrap();
    let now = now.get("bd-1").unwrap();
    assert_eq!(
        (now.priority(), now.labels()),
        (Some(0), vec!["red".into(), "blue".into()])
    );
    let no_array = one.patch("bd-1", Patch::new().add("title", &"x").unwrap());
    assert!(
        matches!(no_array, Err(CommitError::Log(Error::InvalidEvent(_)))),
        "{no_array:?}"
    );
    assert_eq!(one.log().tail_seq().unwrap(), Some(Seq::new(3)));
}

#[test]
fn every_step_of_a_batch_has_its_condition() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.commit(&Batch::at(TS).create(issue("bd-1")).create(issue("bd-2")))
        .unwrap();
    let batch = || Batch::at(TS);
    let patch = || Patch::new().set("priority", &0).unwrap();
    let of_missing = [
        batch().update(issue("bd-9")),
        batch().patch("bd-9", patch()),
        batch().close("bd-9"),
        batch().reopen("bd-9"),
        batch().delete("bd-9"),
    ];
    for step in &of_missing {
        let refused = log.commit(step).unwrap_err();
        assert!(refused.is_conflict());
        assert!(
            matches!(&refused, CommitError::Conflict(Conflict { id, .. }) if id == "bd-9"),
            "{refused:?}"
        );
        assert_eq!(expected(refused), Expected::Present);
    }
    let of_another_version = [
        batch().update_if(issue("bd-1"), Version::new(7)),
        batch().patch_if("bd-1", Version::new(7), patch()),
        batch().close_if("bd-1", Version::new(7)),
        batch().delete_if("bd-1", Version::new(7)),
        batch().require("bd-1", Version::new(7)).close("bd-2"),
    ];
    for step in &of_another_version {
        let refused = log.commit(step).unwrap_err();
        assert!(
            matches!(
                refused,
                CommitError::Conflict(Conflict {
                    expected: Expected::Version(expected),
                    version: Some(version),
                    ..
                }) if expected == 7 && version == 1
            ),
            "{refused:?}"
        );
    }
    assert_eq!(
        log.log().tail_seq().unwrap(),
        Some(Seq::new(1)),
        "nothing was written"
    );

    let all = batch()
        .patch_if("bd-1", Version::new(1), patch())
        .close("bd-1")
        .reopen("bd-1")
        .update(issue("bd-2").with("priority", &5).unwrap())
        .event(IssueEvent::add(issue("bd-2"), TS));
    assert_eq!(log.commit(&all).unwrap().seq, 2);
    let now = Issues::load(dir.path()).unwrap();
    let one = now.get("bd-1").unwrap();
    assert_eq!(
        (one.status().as_deref(), one.priority()),
        (Some("open"), Some(0))
    );
    assert_eq!(
        now.get("bd-2").unwrap(),
        &issue("bd-2"),
        "the event came last"
    );
}

#[test]
fn a_batch_is_written_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.create(issue("bd-1")).unwrap();
    log.create(issue("bd-2")).unwrap();
    let both = Batch::at(TS)
        .close_if("bd-1", Version::new(1))
        .close_if("bd-2", Version::new(1));
    let refused = log.commit(&both).unwrap_err();
    assert!(
        matches!(&refused, CommitError::Conflict(Conflict { id, expected: Expected::Version(_), .. })
            if id == "bd-2"),
        "{refused:?}"
    );
    assert_eq!(
        Issues::load(dir.path())
            .unwrap()
            .get("bd-1")
            .unwrap()
            .status()
            .unwrap(),
        "open"
    );

    let chain = Batch::at(TS)
        .create(issue("bd-3"))
        .patch("bd-3", Patch::new().add_label("a"))
        .claim("bd-3", "agent-7")
        .require("bd-2", Version::new(2))
        .require_absent("bd-4")
        .delete_if("bd-2", Version::new(2));
    let seq = log.commit(&chain).unwrap().seq;
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(store.version("bd-3"), Some(Version::new(seq.get())));
    let three = store.get("bd-3").unwrap();
    assert_eq!(
        (three.assignee().unwrap(), three.labels()),
        ("agent-7".into(), vec!["a".into()])
    );
    assert!(store.get("bd-2").is_none());
    let twice = Batch::at(TS).create(issue("bd-5")).create(issue("bd-5"));
    assert_eq!(expected(log.commit(&twice).unwrap_err()), Expected::Absent);
    let gone = Batch::at(TS).delete("bd-1").close("bd-1");
    assert_eq!(expected(log.commit(&gone).unwrap_err()), Expected::Present);
    let nothing = log.commit(&Batch::at(TS).require("bd-1", Version::new(1)));
    assert!(matches!(
        nothing,
        Err(CommitError::Log(Error::InvalidEvent(
            InvalidEvent::EmptyBatch
        )))
    ));
}

#[test]
fn a_repeated_write_is_answered_with_its_first_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let write = Batch::at(TS).key("agent-7/1").create(issue("bd-1"));
    let first = open_issues(dir.path()).commit(&write).unwrap();
    assert_eq!((first.seq.get(), first.repeated), (1, false));
    let log = open_issues(dir.path());
    log.create(issue("bd-2")).unwrap();
    let again = log.commit(&write).unwrap();
    assert_eq!((again.seq.get(), again.repeated), (1, true));
    log.compact().unwrap();
    assert_eq!(open_issues(dir.path()).commit(&write).unwrap(), again);
    assert_eq!(log.log().tail_seq().unwrap(), Some(Seq::new(2)));
    let mine = Batch::at(TS).key("agent-7/2").claim("bd-2", "agent-7");
    assert_eq!(log.commit(&mine).unwrap().seq, 3);
    assert_eq!(
        log.commit(&mine).unwrap().seq,
        3,
        "though it can't be claimed any more"
    );

    let forgetful = IssueLog::open(dir.path(), options().idempotency_records(1)).unwrap();
    let refused = forgetful.commit(&write).unwrap_err();
    assert_eq!(expected(refused), Expected::Absent);
    for bad in ["", &"k".repeat(257)] {
        let refused = log.commit(&Batch::at(TS).key(bad).create(issue("bd-3")));
        assert!(
            matches!(refused, Err(CommitError::Log(Error::InvalidEvent(_)))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_conflict_reports_only_durable_state() {
    let dir = tempfile::tempdir().unwrap();
    let buffered = IssueLog::open(dir.path(), options().durability(Durability::Buffered)).unwrap();
    buffered.create(issue("bd-1")).unwrap();
    let synced = open_issues(dir.path());
    buffered.claim("bd-1", "agent-7").unwrap();
    assert!(synced.log().durable_seq().unwrap() < Some(Seq::new(2)));
    synced.claim("bd-1", "agent-8").unwrap_err();
    assert_eq!(synced.log().durable_seq().unwrap(), Some(Seq::new(2)));
}

#[test]
fn conditions_work_without_shared_memory() {
    let dir = tempfile::tempdir().unwrap();
    let one = IssueLog::open(dir.path(), options().share_memory(false)).unwrap();
    let other = IssueLog::open(dir.path(), options().share_memory(false)).unwrap();
    let shared = open_issues(dir.path());
    one.create(issue("bd-1")).unwrap();
    other.create(issue("bd-1")).unwrap_err();
    other.claim("bd-1", "agent-7").unwrap();
    shared.claim("bd-1", "agent-8").unwrap_err();
    shared.compact().unwrap();
    one.claim("bd-1", "agent-9").unwrap_err();
    one.create(issue("bd-2")).unwrap();
    other.compact().unwrap();
    shared.claim("bd-2", "agent-8").unwrap();
    assert_eq!(Issues::load(dir.path()).unwrap().len(), 2);
}

#[test]
fn without_shared_memory_an_undone_write_is_in_no_state() {
    let dir = tempfile::tempdir().unwrap();
    let alone = options().share_memory(false);
    let recorder = Recorder::default();
    let with_space = alone.clone().preallocate_bytes(4096);
    let one = IssueLog::open(dir.path(), with_space.storage(Arc::new(recorder.clone()))).unwrap();
    let other = Arc::new(
        IssueLog::open(
            dir.path(),
            alone.clone().lock_timeout(Duration::from_millis(20)),
        )
        .unwrap(),
    );
    one.create(issue("bd-1")).unwrap();
    assert_eq!(other.with_issues(Issues::len).unwrap(), 1);
    // All but the newline, in front of free space: a whole line until it is cut off.
    let line = [
        br#"{"crc":"00000000","seq":2,"synced":1,"#.as_slice(),
        &serde_json::to_vec(&IssueEvent::add(issue("bd-2"), TS)).unwrap()[1..],
    ];
    recorder.write_next_only(line.concat().len());
    let (reader, seen) = (Arc::clone(&other), Arc::new(Mutex::new(None)));
    let noted = Arc::clone(&seen);
    recorder.before_set_len(move || {
        *noted.lock().unwrap() = Some(reader.with_issues(Issues::len).ok());
    });
    let refused = one.append(&IssueEvent::add(issue("bd-2"), TS)).unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Rejected);
    assert!(matches!(*seen.lock().unwrap(), Some(None | Some(1))));
    one.create(issue("bd-3")).unwrap();
    let ids = |store: &Issues| {
        store
            .iter()
            .map(|(id, _)| id.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(other.with_issues(ids).unwrap(), ["bd-1", "bd-3"]);
    other.create(issue("bd-2")).unwrap();
}

const ISSUES: u64 = 40;

#[test]
fn of_many_processes_exactly_one_claims_each_issue_while_the_log_is_compacted() {
    if let Some((dir, agent)) = as_child() {
        let log = open_issues(&dir);
        let offset: u64 = agent.parse().unwrap();
        for number in 0..ISSUES {
            let id = format!("bd-{}", (number + 7 * offset) % ISSUES);
            match log.claim(&id, &agent) {
                Ok(_) => {}
                Err(CommitError::Conflict(conflict)) => {
                    assert_ne!(conflict.issue.unwrap().assignee().unwrap(), agent);
                }
                Err(error) => panic!("{error}"),
            }
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    for number in 0..ISSUES {
        log.create(issue(&format!("bd-{number}"))).unwrap();
    }
    let reader = Reader::<IssueEvent>::open(dir.path()).unwrap();
    let mut follower = reader.follow(Seq::new(ISSUES + 1)).unwrap();
    let name =
        "conditions::of_many_processes_exactly_one_claims_each_issue_while_the_log_is_compacted";
    let children: Vec<_> = (0..4)
        .map(|agent| child(name, dir.path(), &agent.to_string()))
        .collect();
    let mut claimed = BTreeSet::new();
    while claimed.len() < usize::try_from(ISSUES).unwrap() {
        match follower.try_next() {
            Ok(Some(record)) => {
                assert!(claimed.insert(record.events[0].id.clone()), "claimed twice");
            }
            Ok(None) => drop(log.compact().unwrap()),
            // Records came between the look and the compaction, which took them: the state has
            // them.
            Err(Error::Compacted { snapshot_seq, .. }) => {
                let state = log.live().unwrap();
                let seen = |version: Version| (ISSUES + 1..=snapshot_seq).contains(&version.get());
                let ids = state.state().iter().map(|(id, _)| id);
                claimed = ids
                    .filter(|id| state.state().version(id).is_some_and(seen))
                    .map(str::to_owned)
                    .collect();
                follower = reader.follow(Seq::new(snapshot_seq + 1)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    children.into_iter().for_each(finish);
    assert_eq!(follower.try_next().unwrap(), None);
    assert_eq!(log.log().tail_seq().unwrap(), Some(Seq::new(2 * ISSUES)));
}

#[test]
fn new_ids_are_unique() {
    if let Some((dir, agent)) = as_child() {
        let log = open_issues(&dir);
        for _ in 0..100 {
            let (id, _) = log.create_new("bd", |id| Ok(issue(id))).unwrap();
            log.patch(&id, Patch::new().add_label(&agent)).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(open_issues(dir.path()));
    let children: Vec<_> = (0..3)
        .map(|agent| {
            child(
                "conditions::new_ids_are_unique",
                dir.path(),
                &agent.to_string(),
            )
        })
        .collect();
    children.into_iter().for_each(finish);
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(store.len(), 300);
    assert!(
        store
            .iter()
            .all(|(id, issue)| id.len() <= 7 && issue.labels().len() == 1)
    );
}

/// Otherwise, a process that lives for long would need more and more memory.
#[test]
fn live_issues_forget_what_a_compaction_would() {
    let dir = tempfile::tempdir().unwrap();
    let options = options()
        .durability(Durability::Buffered)
        .tombstone_ms(0)
        .idempotency_records(100);
    let log = IssueLog::open(dir.path(), options).unwrap();
    let write = |number: u64| {
        let id = format!("bd-{number}");
        let batch = Batch::at(TS).key(format!("key {number}"));
        log.commit(&batch.create(issue(&id)).delete(&id)).unwrap()
    };
    let known = |number: u64| {
        let look = |store: &Issues| {
            let id = format!("bd-{number}");
            (store.version(&id), store.key(&format!("key {number}")))
        };
        log.with_issues(look).unwrap()
    };
    log.create(issue("bd-stays")).unwrap();
    assert_eq!(known(1), (None, None)); // From here on, it has all issues.
    for number in 2..=50 {
        assert_eq!(write(number).seq, number);
    }
    assert_eq!(known(2), (Some(Version::new(2)), Some(Seq::new(2))));
    // A repeated write is stored once, as long as its key is remembered.
    assert!(write(2).repeated);
    for number in 51..=20_000 {
        write(number);
    }
    assert_eq!(known(2), (None, None));
    let remembered = (1..=20_000).filter(|number| known(*number) != (None, None));
    assert!(remembered.count() < 10_000);
    assert_eq!(known(20_000).1, Some(Seq::new(20_000)));
    assert!(write(20_000).repeated);
    assert!(
        log.with_issues(|store| store.get("bd-stays").is_some())
            .unwrap()
    );
}

#[test]
fn an_empty_agent_claims_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.create(issue("bd-1")).unwrap();
    for agent in ["", " ", "\t\n"] {
        let refused = log.claim("bd-1", agent);
        assert!(
            matches!(
                refused,
                Err(CommitError::Log(Error::InvalidEvent(
                    InvalidEvent::EmptyAgent
                )))
            ),
            "{refused:?}"
        );
    }
    log.claim("bd-1", "agent-7").unwrap();
}

#[test]
fn a_key_of_another_operation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    log.create(issue("bd-1")).unwrap();
    let claim = |agent: &str| Batch::at(TS).key("claim/bd-1").claim("bd-1", agent);
    log.commit(&claim("A")).unwrap();
    let is_reused = |log: &IssueLog, batch: &Batch, of: u64| match log.commit(batch) {
        Err(error @ CommitError::KeyReused { .. }) => {
            assert_eq!(error.outcome(), Outcome::Rejected);
            assert!(!error.is_conflict() && !error.is_retryable());
            matches!(error, CommitError::KeyReused { seq, .. } if seq == of)
        }
        other => panic!("{other:?}"),
    };
    let both = Batch::at(TS)
        .key("both")
        .close("bd-1")
        .create(issue("bd-2"));
    log.commit(&both).unwrap();
    let one = Batch::at(TS).key("both").close("bd-1");
    // From the log, from memory, and from a snapshot.
    for _ in 0..2 {
        let fresh = open_issues(dir.path());
        for log in [&log, &fresh] {
            assert!(is_reused(log, &claim("B"), 2));
            assert!(is_reused(log, &one, 3));
            assert!(log.commit(&claim("A")).unwrap().repeated);
            // Later, and under other conditions, it is the same operation.
            let later = Batch::at(Timestamp::now()).key("both");
            let mut again = issue("bd-2");
            for time in ["created_at", "updated_at"] {
                again = again.with(time, "2030-01-01T00:00:00Z").unwrap();
            }
            let later = later.close_if("bd-1", Version::new(9)).create(again);
            assert_eq!(log.commit(&later).unwrap().seq, 3);
        }
        log.compact().unwrap();
    }
    assert_eq!(log.log().tail_seq().unwrap(), Some(Seq::new(3)));
}

#[test]
fn a_look_sees_appends_of_others_after_the_hints_were_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open_issues(dir.path()), open_issues(dir.path()));
    here.create(issue("bd-1")).unwrap();
    std::fs::remove_file(dir.path().join("shm")).unwrap();
    there.create(issue("bd-2")).unwrap();
    assert_eq!(here.with_issues(Issues::len).unwrap(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_look_sees_appends_of_others_after_the_hints_were_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open_issues(dir.path()), open_issues(dir.path()));
    here.create(issue("bd-1")).unwrap();
    let shm = std::fs::File::options()
        .write(true)
        .open(dir.path().join("shm"));
    shm.unwrap().set_len(0).unwrap();
    assert!(here.get("bd-1").unwrap().is_some());
    there.create(issue("bd-2")).unwrap();
    assert!(here.get("bd-2").unwrap().is_some());
}
