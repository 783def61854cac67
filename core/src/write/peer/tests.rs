use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    error::{Error, Outcome, Result},
    format::seq::Seq,
    issues::{event::IssueEvent, issues::Issues, patch::Patch, timestamp::Timestamp},
    options::Options,
    state::compaction::Compacted,
    wal::log::Receipt,
    write::{backend::Follow, batch::Batch, conditions::CommitError},
};

const NOW: Timestamp = Timestamp::from_ms(7);

struct Pair {
    _dirs: [tempfile::TempDir; 2],
    ours: IssueLog,
    theirs: IssueLog,
}

impl Pair {
    fn new() -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [ours, theirs] =
            [0, 1].map(|n: usize| IssueLog::open(dirs[n].path(), Options::default()).unwrap());
        Self {
            _dirs: dirs,
            ours,
            theirs,
        }
    }

    fn options() -> ImportOptions {
        ImportOptions::new(NOW).refuse_existing()
    }

    fn pull(&self) -> Imported {
        self.ours.pull(&self.theirs, "t", Self::options()).unwrap()
    }

    fn push(&self) -> Imported {
        self.ours.push(&self.theirs, "t", Self::options()).unwrap()
    }

    fn exchange(&self) {
        self.pull();
        self.push();
    }

    fn texts(&self) -> [Vec<String>; 2] {
        [&self.ours, &self.theirs].map(|log| {
            let state = log.live().unwrap().into_state();
            state
                .iter()
                .map(|(_, issue)| issue.as_json().to_owned())
                .collect()
        })
    }

    fn assert_equal(&self) {
        let [ours, theirs] = self.texts();
        assert_eq!(ours, theirs);
    }
}

fn issue(id: &str) -> Issue {
    Issue::new_at(id, id, NOW)
}

fn set(log: &IssueLog, id: &str, field: &str) {
    log.patch(id, Patch::new().set(field, &1).unwrap()).unwrap();
}

/// Fails after some writes, as if the process had been killed then: before the write, or after it.
struct Dies<'a> {
    store: &'a IssueLog,
    left: AtomicU32,
    after: bool,
}

impl Backend for Dies<'_> {
    fn append(&self, event: &IssueEvent) -> Result<Receipt> {
        self.store.append(event)
    }

    fn append_batch(&self, events: &[IssueEvent]) -> Result<Receipt> {
        self.store.append_batch(events)
    }

    fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.store.commit(batch);
        }
        if self.after {
            self.store.commit(batch)?;
        }
        Err(CommitError::Log(Error::Unavailable {
            store: "t".to_owned(),
            outcome: Outcome::Unknown,
            key: None,
            source: "killed".into(),
        }))
    }

    fn look(&self, look: &mut dyn FnMut(&Issues)) -> Result<()> {
        self.store.with_issues(look)
    }

    fn issues(&self) -> Result<Issues> {
        Backend::issues(self.store)
    }

    fn follow(&self, from_seq: Seq) -> Result<Box<dyn Follow>> {
        Backend::follow(self.store, from_seq)
    }

    fn compact(&self) -> Result<Compacted> {
        self.store.compact()
    }

    fn compaction_due(&self) -> Result<bool> {
        self.store.compaction_due()
    }
}

#[test]
fn changes_go_both_ways_and_each_way_changes_one_store() {
    let pair = Pair::new();
    for id in ["a", "b", "c", "d"] {
        pair.ours.create(issue(id)).unwrap();
    }
    assert_eq!(pair.push().added, 4);
    pair.assert_equal();
    // Different fields of one issue, a deletion on each side, a new issue on each side.
    set(&pair.ours, "a", "mine");
    set(&pair.theirs, "a", "other");
    pair.ours.commit(&Batch::at(NOW).delete("b")).unwrap();
    pair.theirs.commit(&Batch::at(NOW).delete("c")).unwrap();
    pair.ours.create(issue("e")).unwrap();
    pair.theirs.create(issue("f")).unwrap();
    let [_, theirs] = pair.texts();
    let pulled = pair.pull();
    assert_eq!((pulled.added, pulled.replaced, pulled.deleted), (1, 1, 1));
    assert_eq!(pair.texts()[1], theirs);
    let [ours, _] = pair.texts();
    let pushed = pair.push();
    assert_eq!((pushed.added, pushed.replaced, pushed.deleted), (1, 1, 1));
    assert_eq!(pair.texts()[0], ours);
    pair.assert_equal();
    let pulled = pair.pull();
    assert_eq!((pulled.added, pulled.replaced, pulled.deleted), (0, 0, 0));
    pair.assert_equal();
}

#[test]
fn a_push_keeps_what_the_other_store_has_had_meanwhile() {
    let pair = Pair::new();
    pair.theirs.create(issue("a")).unwrap();
    pair.exchange();
    set(&pair.theirs, "a", "other");
    pair.theirs.create(issue("b")).unwrap();
    set(&pair.ours, "a", "mine");
    assert_eq!(pair.push().replaced, 1);
    assert_eq!(pair.pull().added, 1);
    pair.assert_equal();
    let state = pair.ours.live().unwrap().into_state();
    let text = state.get("a").unwrap().as_json();
    assert!(text.contains("mine") && text.contains("other"), "{text}");
}

#[test]
fn a_conflict_is_listed_or_decided() {
    let pair = Pair::new();
    pair.ours.create(issue("a")).unwrap();
    pair.push();
    let title = |log: &IssueLog, title: &str| {
        let patch = Patch::new().set("title", &title).unwrap();
        log.patch("a", patch).unwrap();
    };
    title(&pair.ours, "mine");
    title(&pair.theirs, "theirs");
    let before = pair.texts();
    let refused = pair.ours.pull(&pair.theirs, "t", Pair::options());
    let Err(ImportError::Conflicts { conflicts }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(conflicts[0].field.as_deref(), Some("title"));
    assert_eq!(pair.texts(), before);
    // Ours counts, so nothing changes here, and the push has no conflict any more.
    let keep = ImportOptions::new(NOW).keep_existing();
    let pulled = pair.ours.pull(&pair.theirs, "t", keep).unwrap();
    assert_eq!(pulled.decided.len(), 1);
    assert_eq!(pair.push().replaced, 1);
    pair.assert_equal();
    assert!(pair.texts()[1][0].contains("mine"));
}

#[test]
fn a_store_that_has_lost_everything_takes_nothing_away() {
    let pair = Pair::new();
    pair.theirs.create(issue("a")).unwrap();
    pair.exchange();
    pair.theirs.commit(&Batch::at(NOW).delete("a")).unwrap();
    let refused = pair.ours.pull(&pair.theirs, "t", Pair::options());
    assert!(matches!(refused, Err(ImportError::FileEmpty { .. })));
}

#[test]
fn whatever_is_interrupted_and_repeated_converges() {
    for (after, writes) in [false, true]
        .into_iter()
        .zip(0..2)
        .chain([(true, 0), (false, 1)])
    {
        let pair = Pair::new();
        // Several records in each direction.
        for n in 0..250 {
            pair.ours.create(issue(&format!("ours-{n}"))).unwrap();
            pair.theirs.create(issue(&format!("theirs-{n}"))).unwrap();
        }
        let dying = |store| Dies {
            store,
            left: AtomicU32::new(writes),
            after,
        };
        let pushed = pair.ours.push(&dying(&pair.theirs), "t", Pair::options());
        assert!(matches!(pushed, Err(ImportError::Log { .. })), "{pushed:?}");
        // Others go on meanwhile.
        set(&pair.theirs, "theirs-3", "later");
        set(&pair.ours, "ours-7", "later");
        pair.exchange();
        pair.exchange();
        pair.assert_equal();
        assert_eq!(pair.texts()[0].len(), 500);

        // A pull that was killed before it was remembered.
        let mirror = Mirror::of_store(pair.ours.dir(), "t");
        let remembered = mirror.base_text();
        pair.theirs
            .commit(&Batch::at(NOW).delete("ours-1"))
            .unwrap();
        set(&pair.theirs, "ours-2", "theirs");
        pair.theirs.create(issue("new")).unwrap();
        pair.pull();
        mirror.set_base_text(&remembered);
        set(&pair.ours, "ours-2", "ours");
        pair.exchange();
        pair.assert_equal();
        assert_eq!(pair.texts()[0].len(), 500);
    }
}

impl Mirror {
    fn base_text(&self) -> Vec<u8> {
        std::fs::read(&self.base).unwrap()
    }

    fn set_base_text(&self, text: &[u8]) {
        std::fs::write(&self.base, text).unwrap();
    }
}
