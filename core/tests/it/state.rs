//! Compaction of a log whose payload and state are not those of this crate.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use strand_core::{
    Compacted, Compactor, CorruptReason, Error, Issues, Live, Log, Options, Payload, Seq, State,
    Timestamp,
    check::{Advice, check},
    repair::repair,
};

use crate::support::{Mortal, names, open_issues, options};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    seconds: u64,
}

impl Payload for Job {}

/// How often each job ran and how long, and the record of its last run.
#[derive(Debug, Clone, Default, PartialEq)]
struct Jobs {
    runs: u64,
    by_name: BTreeMap<String, (u64, u64)>,
}

#[derive(Serialize, Deserialize)]
enum JobLine {
    Runs(u64),
    Job(String, u64, u64),
}

impl State for Jobs {
    const NAME: &'static str = "jobs";
    type Payload = Job;
    type Line = JobLine;

    fn apply(&mut self, seq: Seq, jobs: Vec<Job>) {
        for Job { name, seconds } in jobs {
            self.runs += 1;
            let (total, last) = self.by_name.entry(name).or_default();
            *total += seconds;
            *last = seq.get();
        }
    }

    fn lines(&self) -> impl Iterator<Item = impl Serialize> {
        let jobs = self.by_name.iter();
        let jobs = jobs.map(|(name, (total, last))| JobLine::Job(name.clone(), *total, *last));
        std::iter::once(JobLine::Runs(self.runs)).chain(jobs)
    }

    fn restore(&mut self, line: JobLine) {
        match line {
            JobLine::Runs(runs) => self.runs = runs,
            JobLine::Job(name, total, last) => {
                self.by_name.insert(name, (total, last));
            }
        }
    }

    fn forget(&mut self, before_seq: Seq, _before: Timestamp) {
        self.by_name
            .retain(|_, (_, last)| *last >= before_seq.get());
    }

    fn entries(&self) -> usize {
        self.by_name.len()
    }
}

/// Another state of the same payload.
#[derive(Debug, Default)]
struct Count(u64);

impl State for Count {
    const NAME: &'static str = "count";
    type Payload = Job;
    type Line = u64;

    fn apply(&mut self, _seq: Seq, jobs: Vec<Job>) {
        self.0 += jobs.len() as u64;
    }

    fn lines(&self) -> impl Iterator<Item = impl Serialize> {
        std::iter::once(self.0)
    }

    fn restore(&mut self, line: u64) {
        self.0 = line;
    }
}

fn job(name: &str, seconds: u64) -> Job {
    let name = name.to_owned();
    Job { name, seconds }
}

fn open(dir: &Path, options: Options) -> Log<Job> {
    Log::open(dir, options).unwrap()
}

/// Three records, of which one is a batch.
fn varied(dir: &Path) -> Log<Job> {
    let log = open(dir, options());
    log.append(&job("build", 2)).unwrap();
    log.append_batch(&[job("test", 5), job("build", 3)])
        .unwrap();
    log.append(&job("clean", 1)).unwrap();
    log
}

fn load(dir: &Path) -> Jobs {
    Live::open(dir).unwrap().into_state()
}

fn snapshot_of(dir: &Path, seq: u64) -> String {
    fs::read_to_string(dir.join(format!("snapshot-{seq:020}.jsonl"))).unwrap()
}

#[test]
fn a_log_of_any_payload_is_compacted_into_a_snapshot_of_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    let mut live = Live::<Jobs>::open(dir.path()).unwrap();
    let before = live.state().clone();
    assert_eq!((before.runs, before.by_name["build"]), (4, (5, 2)));

    let Ok(Compacted::Done {
        seq,
        entries,
        bytes,
        ..
    }) = log.compact::<Jobs>()
    else {
        panic!("there is something to compact");
    };
    assert_eq!((seq.get(), entries), (3, 3));
    let text = snapshot_of(dir.path(), 3);
    assert_eq!(bytes, text.len() as u64);
    let without_crc: Vec<&str> = text.lines().map(|line| &line[18..]).collect();
    let (header, lines) = without_crc.split_first().unwrap();
    assert!(header.starts_with(r#""snapshot":3,"store":""#), "{header}");
    assert!(
        header.ends_with(r#","state":"jobs","lines":4}"#),
        "{header}"
    );
    assert_eq!(
        lines,
        [
            r#""line":{"Runs":4}}"#,
            r#""line":{"Job":["build",5,2]}}"#,
            r#""line":{"Job":["clean",1,3]}}"#,
            r#""line":{"Job":["test",5,2]}}"#,
        ]
    );
    assert!(matches!(log.compact::<Jobs>(), Ok(Compacted::NothingNew)));
    assert_eq!(load(dir.path()), before);

    log.append(&job("test", 6)).unwrap();
    assert_eq!(live.refresh().unwrap(), 4);
    assert_eq!(live.state().by_name["test"], (11, 4));
    assert_eq!(*live.state(), load(dir.path()));
    let report = check(dir.path()).unwrap();
    assert_eq!(report.advice, Advice::Nothing, "{report}");
    assert_eq!(report.snapshots[0].other_lines, 4);
}

#[test]
fn a_compactor_compacts_it_and_forgets_what_the_state_thinks_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let options = options().compact_after_records(3).idempotency_records(1);
    drop(varied(dir.path()));
    let log = Arc::new(open(dir.path(), options));
    let compactor = Compactor::start::<Jobs>(Arc::clone(&log), Duration::from_millis(1)).unwrap();
    while log.compaction_due().unwrap() {
        std::thread::yield_now();
    }
    assert_eq!(compactor.stop().unwrap(), 1);
    let jobs = load(dir.path());
    assert_eq!(
        (jobs.runs, jobs.by_name.len()),
        (4, 3),
        "all ran in the last two records"
    );

    log.append(&job("test", 1)).unwrap();
    assert!(matches!(log.compact::<Jobs>(), Ok(Compacted::Done { .. })));
    let jobs = load(dir.path());
    assert_eq!(
        (jobs.runs, jobs.by_name.len()),
        (5, 2),
        "`build` is forgotten"
    );
}

#[test]
fn a_compaction_that_dies_at_any_call_leaves_the_state_whole() {
    for calls in 0.. {
        let dir = tempfile::tempdir().unwrap();
        drop(varied(dir.path()));
        let expected = load(dir.path());
        let storage = Mortal::of_calls(u64::MAX);
        let log = open(dir.path(), options().storage(Arc::new(storage.clone())));
        storage.left.store(calls, Ordering::SeqCst);
        let compacted = log.compact::<Jobs>();
        drop(log);
        assert_eq!(load(dir.path()), expected, "after {calls} calls");

        let log = open(dir.path(), options());
        assert_eq!(load(dir.path()), expected, "after {calls} calls");
        let leftovers = names(dir.path());
        assert!(!leftovers.iter().any(|name| name.contains(".new")));
        assert_eq!(log.append(&job("build", 1)).unwrap().seq, 4);
        assert!(matches!(log.compact::<Jobs>(), Ok(Compacted::Done { .. })));
        assert_eq!(load(dir.path()).by_name["build"], (6, 4));
        if compacted.is_ok() {
            assert!(calls > 20, "{calls}");
            return;
        }
    }
}

#[test]
fn the_snapshot_of_another_state_is_not_read() {
    let is_refused = |error: Error, found: &str, expected: &str| {
        let Error::Corrupt {
            reason: CorruptReason::Payload { message },
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert!(
            message.contains(found) && message.contains(expected),
            "{message}"
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    log.compact::<Jobs>().unwrap();
    is_refused(
        Live::<Count>::open(dir.path()).unwrap_err(),
        "jobs",
        "count",
    );
    is_refused(Issues::load(dir.path()).unwrap_err(), "jobs", "issues");
    log.append(&job("test", 1)).unwrap();
    is_refused(log.compact::<Count>().unwrap_err(), "jobs", "count");
    assert_eq!(load(dir.path()).runs, 5);

    let dir = tempfile::tempdir().unwrap();
    let issues = open_issues(dir.path());
    issues.append(&crate::support::event("bd-1")).unwrap();
    issues.compact().unwrap();
    is_refused(
        Live::<Jobs>::open(dir.path()).unwrap_err(),
        "issues",
        "jobs",
    );
}

#[test]
fn damage_is_found_and_a_lost_line_is_not_repaired_away() {
    let dir = tempfile::tempdir().unwrap();
    let log = varied(dir.path());
    log.compact::<Jobs>().unwrap();
    log.append(&job("test", 1)).unwrap();
    drop(log);
    // Without the manifest, the snapshot is whole by itself.
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    assert_eq!(check(dir.path()).unwrap().advice, Advice::Repair);
    repair(dir.path(), &options()).unwrap();
    assert_eq!(load(dir.path()).runs, 5);

    let path = dir.path().join("snapshot-00000000000000000003.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let changed = whole.replace(r#""clean",1"#, r#""clean",2"#);
    let one_less = lines[..lines.len() - 1].concat();
    let headless = lines[1..].concat();
    for damaged in [changed, one_less, headless] {
        fs::write(&path, &damaged).unwrap();
        let error = Live::<Jobs>::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(check(dir.path()).unwrap().advice, Advice::RestoreBackup);
        let refused = repair(dir.path(), &options());
        assert!(
            matches!(refused, Err(Error::BeyondRepair { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}
