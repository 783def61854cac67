//! What can only be asked of the store itself, when the agents are gone: whether it reads what its
//! files contain, recovers to one state, leaves nothing behind, and goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use strand_core::{Issue, IssueEvent, Log, Options, Reader, Record, Store};
use strand_lock::FileLock;

use crate::agent::describe;
use crate::ledger::View;
use crate::parent::catch_panic;
use crate::stored::{BadLine, Segment, StoredRecord, is_segment, parse_segment, read_segments};
use crate::violation::Violation;
use crate::wire::Prefix;

/// How long the next append may take when everybody else is gone.
pub const NEXT_APPEND_LIMIT: Duration = Duration::from_secs(5);
/// The id of the event that is appended to see whether the store goes on.
const NEXT_ID: &str = "bd-next";

/// What the store contained when the agents were gone, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Examination {
    /// All records in the order of the files.
    pub records: Vec<StoredRecord>,
    /// Bytes that are no record.
    pub bad_lines: Vec<BadLine>,
    /// What the log's own reads saw.
    pub views: Vec<View>,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

/// A step of the examination failed; the store is what failed it.
struct Failed {
    step: &'static str,
    error: String,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failed>;
}

impl<T, E: std::error::Error + 'static> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failed> {
        self.map_err(|error| Failed {
            step,
            error: describe(&error),
        })
    }
}

/// Examines the store in `dir`; `killed`: processes were killed in the run, so there may have been
/// something to recover. `copy_dir` does not exist: the store as it is before the last append is
/// copied there and in the end takes the place of the store, so that what is kept holds exactly
/// what the agents wrote.
#[must_use]
pub fn examine(dir: &Path, copy_dir: &Path, killed: bool) -> Examination {
    let mut examination = Examination::default();
    let taken = catch_panic(|| examination.take_all(dir, copy_dir, killed));
    let taken = taken.unwrap_or_else(|error| {
        Err(Failed {
            step: "call the log",
            error,
        })
    });
    if let Err(Failed { step, error }) = taken {
        let step = step.to_owned();
        examination
            .violations
            .push(Violation::ExaminationFailed { step, error });
        if examination.records.is_empty() {
            // Judge at least what the files contain.
            if let Ok(segments) = read_segments(dir) {
                examination.take_segments(&segments);
            }
        }
    }
    examination
}

impl Examination {
    fn take_all(&mut self, dir: &Path, copy_dir: &Path, killed: bool) -> Result<(), Failed> {
        // A reader must leave alone even what waits for recovery.
        let begin_ns = strand_lock::monotonic_ns();
        let prefix = self.read_only(dir)?;
        self.views.push(View {
            reader: "reader before recovery".into(),
            begin_ns,
            end_ns: strand_lock::monotonic_ns(),
            through_tail: false,
            prefix,
        });

        let begin_ns = strand_lock::monotonic_ns();
        let first = recover(dir)?;
        let reader = "reader after recovery".to_owned();
        self.views.push(View {
            reader,
            begin_ns,
            end_ns: strand_lock::monotonic_ns(),
            through_tail: true,
            prefix: first.prefix,
        });
        let second = recover(dir)?;
        if first != second {
            let (first, second) = (format!("{first:?}"), format!("{second:?}"));
            self.violations
                .push(Violation::RecoveriesDiffer { first, second });
        }
        let read_only = self.read_only(dir)?;
        if read_only != second.prefix {
            let (first, second) = (format!("{:?}", second.prefix), format!("{read_only:?}"));
            self.violations
                .push(Violation::RecoveriesDiffer { first, second });
        }

        let segments = read_segments(dir).step("read the segments")?;
        self.take_segments(&segments);
        self.compare_read(dir)?;
        self.compare_fold(dir)?;
        self.check_leftovers(dir, killed)?;
        copy_store(dir, copy_dir).step("copy the store")?;
        self.append_next(dir)?;
        fs::remove_dir_all(dir).step("remove the store with the last append")?;
        fs::rename(copy_dir, dir).step("put the copy of the store in its place")
    }

    fn take_segments(&mut self, segments: &[Segment]) {
        for segment in segments {
            let (records, bad_lines) = parse_segment(segment);
            self.records.extend(records);
            self.bad_lines.extend(bad_lines);
        }
    }

    /// A read-only open, with the proof that it wrote nothing.
    fn read_only(&mut self, dir: &Path) -> Result<Prefix, Failed> {
        let before = list(dir).step("list the store before a read-only open")?;
        let reader = Reader::<IssueEvent>::open(dir).step("open read-only")?;
        let mut prefix = Prefix::default();
        for record in reader.read().step("read in a read-only open")? {
            let record = record.step("read a record in a read-only open")?;
            prefix = prefix.with(record.seq, &record.line);
        }
        // Without the hints, nobody knows it.
        let watermark = reader.committed_seq();
        drop(reader);
        if watermark.is_some_and(|seq| seq > prefix.last_seq) {
            let detail = format!("watermark {watermark:?}, last read {}", prefix.last_seq);
            self.violations
                .push(Violation::ReadDiffersFromFiles { detail });
        }
        let after = list(dir).step("list the store after a read-only open")?;
        let changes = differences(&before, &after);
        if !changes.is_empty() {
            self.violations
                .push(Violation::ReadOnlyOpenWrote { changes });
        }
        Ok(prefix)
    }

    /// What the log reads is what the files contain, line by line.
    fn compare_read(&mut self, dir: &Path) -> Result<(), Failed> {
        let reader = Reader::<IssueEvent>::open(dir).step("open read-only to compare")?;
        let mut read: Vec<Record<IssueEvent>> = Vec::new();
        for record in reader.read().step("read to compare")? {
            read.push(record.step("read a record to compare")?);
        }
        if read.len() != self.records.len() {
            let detail = format!("{} records read, {} stored", read.len(), self.records.len());
            self.violations
                .push(Violation::ReadDiffersFromFiles { detail });
        }
        for (read, stored) in read.iter().zip(&self.records) {
            if (read.seq, &read.line) != (stored.seq, &stored.line) {
                let line = String::from_utf8_lossy(&read.line);
                let detail = format!("read {} as {}: {line}", stored.place.offset, read.seq);
                self.violations
                    .push(Violation::ReadDiffersFromFiles { detail });
                break;
            }
        }
        Ok(())
    }

    /// `Store::load` is the fold of what is read.
    fn compare_fold(&mut self, dir: &Path) -> Result<(), Failed> {
        let loaded = Store::load(dir).step("load the state")?;
        let reader = Reader::<IssueEvent>::open(dir).step("open read-only to fold")?;
        let mut folded = Store::default();
        for record in reader.read().step("read to fold")? {
            let record = record.step("read a record to fold")?;
            for event in record.events {
                folded.apply(record.seq, event).step("apply an event")?;
            }
        }
        if loaded != folded {
            let detail = format!(
                "loaded {} issues through {}, folded {} through {}",
                loaded.len(),
                loaded.last_seq(),
                folded.len(),
                folded.last_seq()
            );
            self.violations.push(Violation::FoldDiffers { detail });
        }
        Ok(())
    }

    /// No file that does not belong there, and no lock that is still taken.
    fn check_leftovers(&mut self, dir: &Path, killed: bool) -> Result<(), Failed> {
        let files = list(dir).step("list the store for leftovers")?;
        for (path, facts) in files {
            if path.starts_with("quarantine/") {
                if !killed {
                    self.violations
                        .push(Violation::UnprovokedQuarantine { path });
                }
            } else if !belongs(&path) {
                self.violations.push(Violation::LeftoverFile { path });
            } else if is_lock(&path) && !facts.is_dir {
                let lock = FileLock::open(dir.join(&path)).step("open a lock")?;
                let taken = lock.try_lock().map(drop);
                if let Err(error) = taken {
                    let error = describe(&error);
                    self.violations
                        .push(Violation::LeftoverLock { file: path, error });
                }
            }
        }
        Ok(())
    }

    /// The next append comes through, in time, and can be read.
    fn append_next(&mut self, dir: &Path) -> Result<(), Failed> {
        let started = Instant::now();
        let options = Options::default().lock_timeout(NEXT_APPEND_LIMIT);
        let log = Log::<IssueEvent>::open(dir, options).step("open for the next append")?;
        let event = IssueEvent::add(Issue::new(NEXT_ID, "The next one", 1), 1);
        let receipt = log.append(&event).step("the next append")?;
        let took = started.elapsed();
        let last = log.read().step("read the next append")?.last();
        let last = last
            .transpose()
            .step("read the record of the next append")?;
        log.close().step("close after the next append")?;
        let mut fail = |detail| self.violations.push(Violation::NextAppendFailed { detail });
        if took > NEXT_APPEND_LIMIT {
            fail(format!("it took {} ms", took.as_millis()));
        }
        let expected_seq = self.records.last().map_or(0, |record| record.seq) + 1;
        if receipt.seq != expected_seq {
            fail(format!("its number is {}, not {expected_seq}", receipt.seq));
        }
        let is_there = last.is_some_and(|last| {
            last.seq == receipt.seq && last.events.iter().any(|event| event.id == NEXT_ID)
        });
        if !is_there {
            fail("it is not the last record of a read that began after it".to_owned());
        }
        Ok(())
    }
}

/// The state that an open for appending leads to.
#[derive(Debug, PartialEq, Eq)]
struct Recovered {
    tail_seq: u64,
    committed_seq: u64,
    prefix: Prefix,
}

/// Opens for appending, which recovers, makes everything durable, and reads.
fn recover(dir: &Path) -> Result<Recovered, Failed> {
    let log = Log::<IssueEvent>::open(dir, Options::default()).step("open for recovery")?;
    log.sync_to(log.tail_seq()).step("sync to the tail")?;
    let mut prefix = Prefix::default();
    for record in log.read().step("read after recovery")? {
        let record = record.step("read a record after recovery")?;
        prefix = prefix.with(record.seq, &record.line);
    }
    let (tail_seq, committed_seq) = (log.tail_seq(), log.committed_seq());
    log.close().step("close after recovery")?;
    Ok(Recovered {
        tail_seq,
        committed_seq,
        prefix,
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    is_dir: bool,
    length: u64,
    modified: Option<SystemTime>,
}

/// Every file under `dir` by its path in it, with `/` between the parts.
fn list(dir: &Path) -> io::Result<BTreeMap<String, Facts>> {
    let mut files = BTreeMap::new();
    let mut open: Vec<(String, PathBuf)> = vec![(String::new(), dir.to_owned())];
    while let Some((prefix, dir)) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let metadata = entry.metadata()?;
            let is_dir = metadata.is_dir();
            if is_dir {
                open.push((format!("{path}/"), entry.path()));
            }
            let length = if is_dir { 0 } else { metadata.len() };
            files.insert(
                path,
                Facts {
                    is_dir,
                    length,
                    modified: metadata.modified().ok(),
                },
            );
        }
    }
    Ok(files)
}

fn differences(before: &BTreeMap<String, Facts>, after: &BTreeMap<String, Facts>) -> Vec<String> {
    let mut changes = Vec::new();
    for (path, facts) in before {
        match after.get(path) {
            None => changes.push(format!("{path} is gone")),
            Some(now) if now != facts => changes.push(format!("{path}: {facts:?}, then {now:?}")),
            Some(_) => {}
        }
    }
    changes.extend(
        after
            .keys()
            .filter(|path| !before.contains_key(*path))
            .map(|path| format!("{path} is new")),
    );
    changes
}

/// Whether DESIGN.md §3 knows a file of this name.
fn belongs(path: &str) -> bool {
    let is_snapshot = path.starts_with("snapshot-")
        && Path::new(path)
            .extension()
            .is_some_and(|extension| extension == "jsonl");
    matches!(path, "MANIFEST" | "shm" | "quarantine")
        || is_lock(path)
        || is_segment(path)
        || is_snapshot
}

fn is_lock(path: &str) -> bool {
    matches!(path, "lock" | "sync.lock" | "compact.lock")
}

/// Copies a store that nobody uses. The volatile hints stay behind: they are about the original.
///
/// # Errors
/// A file could not be read or written.
pub fn copy_store(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.metadata()?.is_dir() {
            copy_store(&source, &target)?;
        } else if entry.file_name() != "shm" {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_directory_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("quarantine")).unwrap();
        fs::write(at("quarantine/one"), "1").unwrap();
        fs::write(at("MANIFEST"), "1").unwrap();
        let before = list(dir.path()).unwrap();
        assert_eq!(
            differences(&before, &list(dir.path()).unwrap()),
            Vec::<String>::new()
        );
        fs::write(at("MANIFEST"), "22").unwrap();
        fs::write(at("new"), "").unwrap();
        fs::remove_file(at("quarantine/one")).unwrap();
        let changes = differences(&before, &list(dir.path()).unwrap()).join("\n");
        assert!(changes.contains("MANIFEST: "), "{changes}");
        assert!(changes.contains("new is new"), "{changes}");
        assert!(changes.contains("quarantine/one is gone"), "{changes}");
    }

    #[test]
    fn strangers_do_not_belong() {
        for path in [
            "MANIFEST",
            "lock",
            "shm",
            "log-00000000000000000001.jsonl",
            "snapshot-7.jsonl",
        ] {
            assert!(belongs(path), "{path}");
        }
        for path in [
            "MANIFEST.tmp",
            "log-1.jsonl",
            "snapshot-7.jsonl.tmp",
            ".tmpX",
            "lock2",
        ] {
            assert!(!belongs(path), "{path}");
        }
    }

    #[test]
    fn a_leftover_file_and_a_taken_lock_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("MANIFEST.tmp"), "").unwrap();
        fs::create_dir(dir.path().join("quarantine")).unwrap();
        fs::write(dir.path().join("quarantine/torn"), "x").unwrap();
        let lock = FileLock::open(dir.path().join("lock")).unwrap();
        let guard = lock.lock().unwrap();
        let kinds = |killed| {
            let mut examination = Examination::default();
            assert!(examination.check_leftovers(dir.path(), killed).is_ok());
            let violations = examination.violations.iter();
            violations
                .map(|v| v.to_string().split(':').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            kinds(false),
            ["leftover file", "leftover lock", "unprovoked quarantine"]
        );
        drop(guard);
        assert_eq!(kinds(true), ["leftover file"]);
    }
}
