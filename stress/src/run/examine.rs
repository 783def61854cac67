//! Examines the store after the agents are gone: whether it reads the content of its files,
//! recovers to one state, leaves nothing behind, and accepts the next append.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use strand_core::{
    Compacted, Filter, Issue, IssueEvent, IssueLog, Issues, Options, PointReader, Reader, Record,
    Seq, Timestamp, Version,
};
use strand_lock::FileLock;

use crate::evidence::crc32c::crc32c;
use crate::evidence::fold::{Model, StateDigest};
use crate::evidence::ledger::{Prefix, Seen, View};
use crate::evidence::stored::{
    BadLine, Segment, StoredManifest, StoredRecord, StoredSnapshot, first_seq, is_segment,
    is_snapshot, names, new_name, parse_followed_segment, parse_manifest, parse_segment,
    parse_snapshot, reflects,
};
use crate::evidence::violation::Violation;
use crate::panics::catch_panic;
use crate::run::archive::Archive;
use crate::run::bystanders::digest;
use crate::run::errors::describe;

/// How long the next append may take.
pub const NEXT_APPEND_LIMIT: Duration = Duration::from_secs(5);
/// The id of the event that is appended to see whether the store goes on.
pub(crate) const NEXT_ID: &str = "bd-next";

/// The content of the store after the agents are gone, and everything wrong with it.
#[derive(Debug, Default)]
pub struct Examination {
    /// All records in the order of the files.
    pub records: Vec<StoredRecord>,
    /// Bytes that are no record.
    pub bad_lines: Vec<BadLine>,
    /// The reads of the log itself.
    pub views: Vec<View>,
    /// Every state that the records lead to; `None` when they lead to none.
    pub model: Option<Model>,
    /// The last records of all snapshots that ever existed.
    pub snapshot_seqs: BTreeSet<u64>,
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
}

/// How many issues are read alone, at most.
const POINT_READS_MAX: usize = 1_000;

/// How many older snapshots the last compaction leaves.
const BACKUPS: usize = 1;

/// A step of the examination that failed because of the store.
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

/// Examines the store in `dir`, whose removed files are in `archive_dir`. `killed`: processes were
/// killed, so there may be something to recover. `copy_dir` does not exist: the store before the
/// last append is copied there and takes its place at the end, so that a store that is kept
/// contains exactly the records of the agents.
#[must_use]
pub fn examine(dir: &Path, archive_dir: &Path, copy_dir: &Path, killed: bool) -> Examination {
    let mut examination = Examination::default();
    let places = Places {
        dir,
        archive: archive_dir,
        copy: copy_dir,
    };
    let taken = catch_panic(|| examination.take_all(&places, killed));
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
            // Judge at least the content of the files.
            drop(examination.take_segments(&places));
        }
    }
    examination
}

struct Places<'a> {
    dir: &'a Path,
    archive: &'a Path,
    copy: &'a Path,
}

impl Places<'_> {
    /// Options that also archive the files that an open removes.
    fn options(&self) -> Options {
        Options::default().failpoint_hook(Arc::new(Archive::new(self.dir, self.archive)))
    }

    /// The segments of the store, and those that were removed from it, sorted by name, with their
    /// paths. Of a segment that was replaced, this is the last one that had the name: the earlier
    /// ones are out of everybody's sight, and what an earlier holder of the lock wrote to them was
    /// never acknowledged.
    fn segments(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut segments = BTreeMap::new();
        let version = |name: &str| {
            let number = name.split('~').nth(1);
            number.map_or(Some(1), |number| number.parse::<u32>().ok())
        };
        let mut archived = names(self.archive)?;
        archived.sort_by_key(|name| version(name));
        for (dir, names) in [(self.archive, archived), (self.dir, names(self.dir)?)] {
            for name in names {
                let bare = name.split('~').next().unwrap_or_default();
                if is_segment(bare) {
                    segments.insert(bare.to_owned(), dir.join(&name));
                }
            }
        }
        Ok(segments)
    }

    /// The snapshots of store and archive, each once, sorted by name, with their directory.
    fn snapshots(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut files = BTreeMap::new();
        for dir in [self.archive, self.dir] {
            for name in names(dir)? {
                let bare = name.split('~').next().unwrap_or_default();
                if is_snapshot(bare) {
                    files.insert(name, dir.to_owned());
                }
            }
        }
        Ok(files.into_iter().collect())
    }
}

impl Examination {
    fn take_all(&mut self, places: &Places<'_>, killed: bool) -> Result<(), Failed> {
        let dir = places.dir;
        // A reader must not touch a tail that waits for recovery.
        let begin_ns = strand_lock::monotonic_ns();
        let prefix = self.read_only(dir)?;
        self.views.push(View {
            reader: "reader before recovery".into(),
            begin_ns,
            end_ns: strand_lock::monotonic_ns(),
            through_tail: false,
            seen: Seen::Records(prefix),
        });

        let begin_ns = strand_lock::monotonic_ns();
        let first = recover(places)?;
        let reader = "reader after recovery".to_owned();
        self.views.push(View {
            reader,
            begin_ns,
            end_ns: strand_lock::monotonic_ns(),
            through_tail: true,
            seen: Seen::Records(first.prefix),
        });
        let second = recover(places)?;
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

        self.take_segments(places)
            .step("read the segments of store and archive")?;
        let archive = Archive::new(dir, places.archive);
        archive
            .forget_what_is_stored()
            .step("remove from the archive the files of the store")?;
        self.compare_read(dir)?;
        self.compare_fold(dir)?;
        self.compare_snapshots(places)?;
        self.check_leftovers(dir, killed)?;
        copy_store(dir, places.copy).step("copy the store")?;
        self.append_next(dir)?;
        self.compact_last(dir)?;
        fs::remove_dir_all(dir).step("remove the store with the last append")?;
        fs::rename(places.copy, dir).step("put the copy of the store in its place")
    }

    fn take_segments(&mut self, places: &Places<'_>) -> io::Result<()> {
        let segments = places.segments()?;
        let firsts: BTreeSet<u64> = segments.keys().filter_map(|name| first_seq(name)).collect();
        for (name, path) in segments {
            let bytes = fs::read(path)?;
            let first = first_seq(&name).unwrap_or(0);
            let successor = firsts.range(first + 1..).next();
            let segment = Segment { name, bytes };
            let (records, bad_lines) = match successor {
                Some(successor) => parse_followed_segment(&segment, *successor),
                None => parse_segment(&segment),
            };
            self.records.extend(records);
            self.bad_lines.extend(bad_lines);
        }
        match Model::of(&self.records) {
            Ok(model) => self.model = Some(model),
            Err(detail) => self.violations.push(Violation::FoldDiffers { detail }),
        }
        Ok(())
    }

    /// (12) Each file of a snapshot that ever existed is the fold of its records, and the manifest
    /// names the live ones.
    fn compare_snapshots(&mut self, places: &Places<'_>) -> Result<(), Failed> {
        let manifest = manifest(places.dir)?;
        let before = manifest.first_seq.saturating_sub(1);
        let named = manifest.files();
        if named.last().map_or(0, |(_, mark)| mark.seq) != before {
            let detail = format!("{manifest:?}");
            self.violations.push(Violation::ManifestDiffers { detail });
        }
        let mut stored = BTreeMap::new();
        let files = places.snapshots().step("list the snapshots")?;
        for (name, dir) in files {
            let bytes = fs::read(dir.join(&name)).step("read a snapshot")?;
            let (after, seq) = name.split('~').next().and_then(reflects).unwrap_or((0, 0));
            self.snapshot_seqs.insert(seq);
            if dir == places.dir {
                stored.insert(name.clone(), (bytes.len() as u64, crc32c(&bytes)));
            }
            let difference = match parse_snapshot(&bytes) {
                Ok(snapshot) if (snapshot.after, snapshot.seq) != (after, seq) => Some(format!(
                    "it says that it is through {} behind {}",
                    snapshot.seq, snapshot.after
                )),
                Ok(snapshot) => {
                    let model = self.model.as_ref();
                    model.and_then(|model| snapshot_difference(model, &snapshot))
                }
                Err(error) => Some(error),
            };
            let file = name;
            self.violations
                .extend(difference.map(|detail| Violation::SnapshotDiffers { file, detail }));
        }
        for (name, mark) in named {
            let found = stored.get(&name);
            if found != Some(&(mark.bytes, mark.crc)) {
                let detail = format!("it names {name} as {mark:?}, and there is {found:?}");
                self.violations.push(Violation::ManifestDiffers { detail });
            }
        }
        Ok(())
    }

    /// A read-only open, with the proof that it wrote nothing.
    fn read_only(&mut self, dir: &Path) -> Result<Prefix, Failed> {
        let before = list(dir).step("list the store before a read-only open")?;
        let reader = Reader::<IssueEvent>::open(dir).step("open read-only")?;
        let mut prefix = Prefix::behind(manifest(dir)?.first_seq.saturating_sub(1));
        for record in reader.records().step("read in a read-only open")? {
            let record = record.step("read a record in a read-only open")?;
            prefix = prefix.with(record.seq.get(), &record.line);
        }
        Issues::load(dir).step("load in a read-only open")?;
        // Without the hints, it is unknown.
        let durable_seq = reader.durable_seq().ok().flatten();
        drop(reader);
        if durable_seq.is_some_and(|seq| seq > Seq::new(prefix.last_seq)) {
            let detail = format!("durable {durable_seq:?}, last read {}", prefix.last_seq);
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

    /// The log reads the content of its files, line by line.
    fn compare_read(&mut self, dir: &Path) -> Result<(), Failed> {
        let reader = Reader::<IssueEvent>::open(dir).step("open read-only to compare")?;
        let mut read: Vec<Record<IssueEvent>> = Vec::new();
        for record in reader.records().step("read to compare")? {
            read.push(record.step("read a record to compare")?);
        }
        let first_seq = manifest(dir)?.first_seq;
        let behind = self.records.iter().filter(|record| record.seq >= first_seq);
        if read.len() != behind.clone().count() {
            let detail = format!("{} records read, {} stored", read.len(), behind.count());
            self.violations
                .push(Violation::ReadDiffersFromFiles { detail });
            return Ok(());
        }
        for (read, stored) in read.iter().zip(behind) {
            if (read.seq, &read.line) != (Seq::new(stored.seq), &stored.line) {
                let line = String::from_utf8_lossy(&read.line);
                let detail = format!("read {} as {}: {line}", stored.place.offset, read.seq);
                self.violations
                    .push(Violation::ReadDiffersFromFiles { detail });
                break;
            }
        }
        Ok(())
    }

    /// (12) `Issues::load` is the fold of all records ever written.
    fn compare_fold(&mut self, dir: &Path) -> Result<(), Failed> {
        let loaded = Issues::load(dir).step("load the state")?;
        let difference = self.model.as_ref().and_then(|model| {
            let (expected, found) = (model.last_state(), digest(&loaded));
            let differs = || format!("{expected:?} expected, {found:?} loaded");
            let difference = model.difference(expected.seq, issues(&loaded));
            difference.or_else(|| (expected != found).then(differs))
        });
        self.violations
            .extend(difference.map(|detail| Violation::FoldDiffers { detail }));
        self.compare_parts(dir, &loaded)
    }

    /// (12) What is read of single issues, and of those that are not closed, is what the fold of
    /// everything has.
    fn compare_parts(&mut self, dir: &Path, all: &Issues) -> Result<(), Failed> {
        let mut differs = |detail: String| {
            self.violations.push(Violation::FoldDiffers { detail });
        };
        let mut reader = PointReader::open(dir).step("open to read single issues")?;
        let every = all.len().div_ceil(POINT_READS_MAX).max(1);
        for (id, issue) in all.iter().step_by(every) {
            let found = reader.get(id).step("read a single issue")?;
            let found = found.map(|found| (found.version, found.issue));
            let expected = all.version(id).map(|version| (version, issue.clone()));
            if found != expected {
                differs(format!("{id}: {expected:?} expected, {found:?} read alone"));
            }
            let found = reader.blockers(id).step("read what blocks an issue")?;
            if found != all.blockers(id) {
                let expected = all.blockers(id);
                differs(format!(
                    "{id}: blocked by {expected:?}, by {found:?} read alone"
                ));
            }
        }
        let absent = reader
            .get(NEXT_ID)
            .step("read an issue that is not there")?;
        if all.get(NEXT_ID).is_none() && absent.is_some() {
            differs(format!(
                "{NEXT_ID} does not exist, and was read: {absent:?}"
            ));
        }
        let unclosed = Issues::load_unclosed(dir).step("load the issues that are not closed")?;
        if (unclosed.last_seq(), unclosed.ready()) != (all.last_seq(), all.ready()) {
            let [expected, found] =
                [all, &unclosed].map(|issues| (issues.last_seq(), issues.ready().len()));
            differs(format!(
                "{expected:?} expected, {found:?} loaded without closed ones"
            ));
        }
        let statuses: BTreeSet<String> =
            all.iter().filter_map(|(_, issue)| issue.status()).collect();
        let closed = ["closed", "tombstone"];
        for status in statuses
            .iter()
            .filter(|status| !closed.contains(&status.as_str()))
        {
            let filter = Filter::new().status(status);
            if unclosed.list(&filter) != all.list(&filter) {
                differs(format!(
                    "the issues that are {status} differ without closed ones"
                ));
            }
        }
        Ok(())
    }

    /// (12) A last compaction does not change the state and leaves no obsolete file.
    fn compact_last(&mut self, dir: &Path) -> Result<(), Failed> {
        let before = Issues::load(dir).step("load the state before the last compaction")?;
        let in_runs = Options::default().compact_after_bytes(0);
        let options = in_runs.backup_snapshots(BACKUPS);
        let log = IssueLog::open(dir, options).step("open for the last compaction")?;
        let compacted = log.compact().step("the last compaction")?;
        log.close().step("close after the last compaction")?;
        if !matches!(compacted, Compacted::Done { .. }) {
            let detail = format!("the last compaction was {compacted:?}");
            self.violations.push(Violation::FoldDiffers { detail });
        }
        let after = Issues::load(dir).step("load the state after the last compaction")?;
        self.compare_parts(dir, &after)?;
        let (then, now) = (digest(&before), digest(&after));
        if then != now {
            let detail = format!("{then:?} before the last compaction, {now:?} after it");
            self.violations.push(Violation::FoldDiffers { detail });
        }
        let left = names(dir).step("list the store after the last compaction")?;
        let manifest = manifest(dir)?;
        let obsolete = obsolete(&left, &manifest, BACKUPS);
        self.leave(obsolete);
        self.open_among_orphans(dir, &manifest, now)
    }

    /// (15) An open removes the leftovers of dead compactions, and nothing else.
    fn open_among_orphans(
        &mut self,
        dir: &Path,
        manifest: &StoredManifest,
        state: StateDigest,
    ) -> Result<(), Failed> {
        let before = names(dir).step("list the store before the orphans")?;
        let (live, later) = (manifest.first_seq - 1, manifest.first_seq + 9);
        let orphans = [
            new_name("MANIFEST"),
            new_name(&format!("snapshot-{later:020}.jsonl")),
            format!("snapshot-{later:020}.jsonl"),
            format!("run-{:020}-{later:020}.jsonl", live + 1),
            new_name(&format!("run-{:020}-{later:020}.jsonl", live + 1)),
            format!("log-{live:020}.jsonl"),
        ];
        for name in &orphans {
            fs::write(dir.join(name), "orphan\n").step("write an orphan")?;
        }
        let log = IssueLog::open(dir, Options::default()).step("open among the orphans")?;
        log.close().step("close among the orphans")?;
        let after = names(dir).step("list the store after the orphans")?;
        let left = after.iter().filter(|name| orphans.contains(name));
        self.leave(left.cloned().collect());
        if let Some(gone) = before.iter().find(|name| !after.contains(name)) {
            let detail = format!("an open has removed {gone} with the orphans");
            self.violations.push(Violation::FoldDiffers { detail });
        }
        let now = digest(&Issues::load(dir).step("load the state after the orphans")?);
        if now != state {
            let detail = format!("{state:?} before orphans were removed, {now:?} after that");
            self.violations.push(Violation::FoldDiffers { detail });
        }
        Ok(())
    }

    fn leave(&mut self, obsolete: Vec<String>) {
        let left = obsolete.into_iter();
        self.violations
            .extend(left.map(|path| Violation::LeftoverFile { path }));
    }

    /// There is no unknown file and no lock that is still taken.
    fn check_leftovers(&mut self, dir: &Path, killed: bool) -> Result<(), Failed> {
        let files = list(dir).step("list the store for leftovers")?;
        // An open does not count the backups.
        let names: Vec<String> = files.keys().cloned().collect();
        let obsolete = obsolete(&names, &manifest(dir)?, usize::MAX);
        self.leave(obsolete);
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

    /// The next append succeeds in time and can be read.
    fn append_next(&mut self, dir: &Path) -> Result<(), Failed> {
        let started = Instant::now();
        let options = Options::default().lock_timeout(NEXT_APPEND_LIMIT);
        let log = IssueLog::open(dir, options).step("open for the next append")?;
        let event = IssueEvent::add(
            Issue::new_at(NEXT_ID, "The next one", Timestamp::from_ms(1)),
            Timestamp::from_ms(1),
        );
        let receipt = log.append(&event).step("the next append")?;
        let took = started.elapsed();
        let last = log.log().records().step("read the next append")?.last();
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
    durable_seq: u64,
    prefix: Prefix,
}

/// Opens for appending, which recovers, makes everything durable, and reads.
fn recover(places: &Places<'_>) -> Result<Recovered, Failed> {
    let log = IssueLog::open(places.dir, places.options()).step("open for recovery")?;
    log.log().sync_all().step("sync to the tail")?;
    let mut prefix = Prefix::behind(manifest(places.dir)?.first_seq.saturating_sub(1));
    for record in log.log().records().step("read after recovery")? {
        let record = record.step("read a record after recovery")?;
        prefix = prefix.with(record.seq.get(), &record.line);
    }
    let tail_seq = log.log().tail_seq().step("look at the tail")?;
    let durable_seq = log
        .log()
        .durable_seq()
        .step("read the durable sequence number")?;
    log.close().step("close after recovery")?;
    Ok(Recovered {
        tail_seq: tail_seq.unwrap_or_default().get(),
        durable_seq: durable_seq.unwrap_or_default().get(),
        prefix,
    })
}

fn manifest(dir: &Path) -> Result<StoredManifest, Failed> {
    let bytes = fs::read(dir.join("MANIFEST")).step("read the manifest")?;
    parse_manifest(&bytes).map_err(|error| Failed {
        step: "read the manifest",
        error,
    })
}

/// The issues of a state: id, version and text.
pub(crate) fn issues(store: &Issues) -> impl Iterator<Item = (&str, u64, &str)> {
    let issues = store.iter();
    issues.map(|(id, issue)| {
        (
            id,
            store.version(id).map_or(0, Version::get),
            issue.as_json(),
        )
    })
}

/// How a file of a snapshot differs from the fold of its records.
fn snapshot_difference(model: &Model, snapshot: &StoredSnapshot) -> Option<String> {
    let (after, seq) = (snapshot.after, snapshot.seq);
    let issues = snapshot.issues.iter();
    let issues = issues.map(|(id, version, text)| (id.as_str(), *version, text.as_str()));
    let difference = model.difference_since(after, seq, issues);
    if difference.is_some() {
        return difference;
    }
    let state = model.state(seq)?;
    if snapshot.all_issues.is_some_and(|all| all != state.issues) {
        let found = snapshot.all_issues;
        return Some(format!("{found:?} issues in all, not {}", state.issues));
    }
    let expected = state.without_effect;
    if snapshot.without_effect != expected {
        let found = snapshot.without_effect;
        return Some(format!("{found} events without effect, not {expected}"));
    }
    let wrong = snapshot.tombstones.iter();
    let mut wrong = wrong.filter(|(id, version)| model.issue(id, seq) != Some((*version, None)));
    if let Some((id, version)) = wrong.next() {
        let found = model.issue(id, seq);
        return Some(format!("{id} deleted by {version}, and it is {found:?}"));
    }
    let (found, expected) = (snapshot.tombstones.len(), model.deleted_between(after, seq));
    if after > 0 && found as u64 != expected {
        return Some(format!("{found} tombstones, not {expected}"));
    }
    let (keys, expected) = (snapshot.keys.len() as u64, model.keys_between(after, seq));
    let mut wrong = snapshot.keys.iter();
    let wrong = wrong.find(|(key, of)| model.key(key) != Some(*of));
    (keys != expected || wrong.is_some())
        .then(|| format!("{keys} keys, not {expected}, or another record for {wrong:?}"))
}

/// The obsolete files: segments before the log, and those of snapshots other than the live one and
/// `backups` older ones.
fn obsolete(names: &[String], manifest: &StoredManifest, backups: usize) -> Vec<String> {
    let files = manifest.files();
    let live = manifest.snapshot.map(|mark| mark.seq);
    let bases = names.iter().filter_map(|name| reflects(name));
    let bases = bases.filter(|(after, seq)| *after == 0 && Some(*seq) < live);
    let mut older: Vec<u64> = bases.map(|(_, seq)| seq).collect();
    older.sort_unstable_by(|one, other| other.cmp(one));
    let kept = older.get(..backups.min(older.len())).unwrap_or_default();
    // A run belongs to the last base before it.
    let is_of_kept = |(after, seq): (u64, u64)| {
        let base = older.iter().find(|base| **base <= after);
        match after {
            0 => kept.contains(&seq),
            _ => Some(seq) <= live && base.is_some_and(|base| kept.contains(base)),
        }
    };
    let is_obsolete = |name: &&String| {
        let segment = first_seq(name).is_some_and(|first| first < manifest.first_seq);
        let is_live = files.iter().any(|(live, _)| live == *name);
        let snapshot = reflects(name).is_some_and(|file| !is_live && !is_of_kept(file));
        segment || snapshot
    };
    names.iter().filter(is_obsolete).cloned().collect()
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
    matches!(path, "MANIFEST" | "shm" | "quarantine")
        || is_lock(path)
        || is_segment(path)
        || is_snapshot(path)
        || is_hint(path)
}

/// Files that only make answers faster: the index of a segment, and the issues that are not closed,
/// after a record of a segment or beside a snapshot.
fn is_hint(path: &str) -> bool {
    let numbered = |kind: &str, end: &str| {
        let digits = path
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_suffix(end));
        digits
            .is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    [
        ("log-", ".index"),
        ("log-", ".unclosed"),
        ("unclosed-", ".jsonl"),
    ]
    .into_iter()
    .any(|(kind, end)| numbered(kind, end))
}

fn is_lock(path: &str) -> bool {
    matches!(path, "lock" | "sync.lock" | "compact.lock")
}

/// Copies a store that is not in use, without its volatile hints.
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
            "snapshot-00000000000000000007.jsonl",
        ] {
            assert!(belongs(path), "{path}");
        }
        for path in [
            "MANIFEST.tmp",
            "log-1.jsonl",
            "MANIFEST.00c0ffee00c0ffee.new",
            "snapshot-00000000000000000007.jsonl.00c0ffee00c0ffee.new",
            ".tmpX",
            "lock2",
        ] {
            assert!(!belongs(path), "{path}");
        }
    }

    #[test]
    fn what_the_manifest_does_not_need_is_surplus() {
        let manifest = StoredManifest {
            first_seq: 10,
            runs: Vec::new(),
            snapshot: Some(crate::evidence::stored::Mark {
                seq: 9,
                bytes: 1,
                crc: 1,
            }),
        };
        let segment = |seq: u64| format!("log-{seq:020}.jsonl");
        let snapshot = |seq: u64| format!("snapshot-{seq:020}.jsonl");
        let names = [
            segment(8),
            segment(10),
            snapshot(3),
            snapshot(5),
            snapshot(9),
            snapshot(11),
        ];
        let found = obsolete(&names, &manifest, 1);
        assert_eq!(found, [segment(8), snapshot(3), snapshot(11)]);
        let found = obsolete(&names, &manifest, usize::MAX);
        assert_eq!(found, [segment(8), snapshot(11)]);
        let never = StoredManifest {
            first_seq: 1,
            snapshot: None,
            runs: Vec::new(),
        };
        assert_eq!(obsolete(&names, &never, 9).len(), 4);
    }

    #[test]
    fn each_part_of_a_snapshot_is_compared_with_the_records() {
        let add = r#"{"ts":0,"op":"add","id":"a","data":{"id":"a","title":"t"},"key":"k"}"#;
        let gone = r#"{"ts":0,"op":"add","id":"b","data":{"id":"b","title":"t"}}"#;
        let delete = r#"{"ts":0,"op":"delete","id":"b","data":null}"#;
        let mut model = Model::default();
        model.apply(1, [add, gone]).unwrap();
        model.apply(2, [delete, delete]).unwrap();
        let right = StoredSnapshot {
            after: 0,
            all_issues: None,
            seq: 2,
            without_effect: 1,
            issues: vec![("a".into(), 1, r#"{"id":"a","title":"t"}"#.into())],
            tombstones: vec![("b".into(), 2)],
            keys: vec![("k".into(), 1)],
        };
        assert_eq!(snapshot_difference(&model, &right), None);
        let change = |change: fn(&mut StoredSnapshot)| {
            let mut snapshot = right.clone();
            change(&mut snapshot);
            snapshot
        };
        // The tombstone may have expired.
        let expired = change(|snapshot| snapshot.tombstones.clear());
        assert_eq!(snapshot_difference(&model, &expired), None);
        for wrong in [
            change(|snapshot| snapshot.issues[0].1 = 2),
            change(|snapshot| snapshot.issues[0].2.push(' ')),
            change(|snapshot| snapshot.issues.clear()),
            change(|snapshot| snapshot.without_effect = 0),
            change(|snapshot| snapshot.tombstones[0].1 = 1),
            change(|snapshot| snapshot.keys.clear()),
            change(|snapshot| snapshot.keys[0].1 = 2),
            change(|snapshot| snapshot.seq = 1),
            change(|snapshot| snapshot.seq = 3),
        ] {
            assert!(snapshot_difference(&model, &wrong).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_leftover_file_and_a_taken_lock_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let manifest =
            crate::evidence::stored::with_checksum(r#""format":1,"store":"x","first_seq":1}"#);
        fs::write(dir.path().join("MANIFEST"), manifest + "\n").unwrap();
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
