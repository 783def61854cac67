//! Damage to what saves reading: the indexes beside the log, the files of unclosed issues, and the
//! files of the snapshot in which single issues are looked up. Each issue and key is asked for by
//! itself, and the issues that are not closed together, by a reader and by a writer.
//!
//! # Requirements
//! An answer is what the fold of all records says. Or it is an error that names the damaged file;
//! where that is a hint, there is none. Afterwards the writer's store has the same state, and
//! readers agree with it again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use strand_core::{
    Batch, CommitError, Error, Issue, IssueLog, Issues, LiveIssues, Options, Patch, PointReader,
    Result, Seq, Versioned,
};

use crate::panics::catch_panic;
use crate::run::errors::describe;
use crate::sim::image::Image;
use crate::sim::solo::Solo;
use crate::tiers::damage::store::{DIR, image, machine, storage};
use crate::tiers::pool;
use crate::tiers::tally::{Budget, Finding, Tally, replay_line};

/// In front of a case's number.
pub(super) const PREFIX: &str = "index-";
/// A full run tries one in so many of the changed bytes and lengths of files that are no hints: the
/// other cases of this tier read these in every way, too.
const OTHERS_ONE_IN: usize = 64;
const ISSUES: u64 = 14;
const CLOSED_BYTES: u64 = 3 << 10;

/// Another content of one file.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// A byte has other bits.
    Byte { at: usize, flipped: u8 },
    /// The file ends there.
    Cut { len: usize },
    /// What it ends with stands there once more.
    Doubled { from: usize },
    /// The file is not there.
    Missing,
    /// It is what it was at an earlier moment.
    Earlier { moment: usize },
    /// It is that of another store: of one with the same numbers, or of any.
    Foreign { is_twin: bool },
    /// It is another file of the same store.
    Other { file: usize },
}

#[derive(Debug, Clone, Copy)]
struct Case {
    file: usize,
    change: Change,
}

/// A store, and what is true of it.
struct Indexed {
    image: Image,
    history: Vec<Image>,
    issues: Issues,
    ids: Vec<String>,
    /// Each key with the record in which it was used.
    keys: BTreeMap<String, Seq>,
}

struct Stores {
    base: Indexed,
    twin: Indexed,
    stranger: Indexed,
    names: Vec<Arc<str>>,
}

/// Tries all of it; in a quick run, one in `quick_one_in` of what is changed within files.
pub(super) fn run(budget: &Budget, random: &mut StdRng, quick_one_in: u32, tally: Tally) -> Tally {
    let stores = match Stores::build(budget.seed) {
        Ok(stores) => stores,
        Err(error) => return tally.stopped(format!("cannot write a store with indexes: {error}")),
    };
    let one_in = if budget.quick { quick_one_in } else { 1 };
    let cases = stores.cases().into_iter().enumerate().filter(|(_, case)| {
        let is_one_of_many = matches!(case.change, Change::Byte { .. } | Change::Cut { .. });
        !is_one_of_many || random.random_ratio(1, one_in)
    });
    let sum = Mutex::new((tally, BTreeMap::<String, u64>::new()));
    let work = |(): &mut (), (number, case): (usize, Case)| {
        let tried = stores.try_case(case);
        budget.count(1);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, counts) = &mut *sum;
        tally.cases += u64::from(!matches!(tried, Ok(None)));
        match tried {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                let kind = kind(stores.name(case.file));
                *counts.entry(format!("{kind}: {verdict}")).or_default() += 1;
            }
            Err(what) => tally
                .violations
                .push(stores.finding(budget, number, case, &what)),
        }
        if tally.is_full() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, cases, || (), work);
    let (mut tally, counts) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (name, count) in counts {
        tally.add(format!("single issues, {name}"), count);
    }
    tally
}

/// Replays one case.
pub(super) fn replay(budget: &Budget, number: usize, mut tally: Tally) -> Tally {
    let stores = match Stores::build(budget.seed) {
        Ok(stores) => stores,
        Err(error) => return tally.stopped(error),
    };
    let Some(case) = stores.cases().get(number).copied() else {
        return tally.stopped(format!("there is no case {number}"));
    };
    tally.cases = 1;
    match stores.try_case(case) {
        Ok(verdict) => tally.add(verdict.unwrap_or("changes nothing"), 1),
        Err(what) => tally
            .violations
            .push(stores.finding(budget, number, case, &what)),
    }
    tally
}

/// The kind of a file.
fn kind(name: &str) -> &'static str {
    let first = name.split_once('-').map_or(name, |(first, _)| first);
    let last = name.rsplit_once('.').map_or("", |(_, last)| last);
    match (first, last) {
        ("log", "index") => "index",
        ("log", "unclosed") => "unclosed issues of the log",
        ("log", "jsonl") => "segment",
        ("unclosed", _) => "unclosed issues of the snapshot",
        ("snapshot", _) => "snapshot",
        ("run", _) => "run",
        _ => "other",
    }
}

/// What only saves reading: there is no error for it.
fn is_hint(name: &str) -> bool {
    kind(name) == "index" || kind(name).starts_with("unclosed")
}

/// The errors, or a wrong answer.
type Found = std::result::Result<Vec<Error>, String>;

impl Indexed {
    /// Each key with its record, and one that was not used.
    fn keys(&self) -> impl Iterator<Item = (&str, Option<Seq>)> {
        let used = self
            .keys
            .iter()
            .map(|(key, seq)| (key.as_str(), Some(*seq)));
        used.chain([("agent/unused", None)])
    }

    /// Writes a store with a snapshot, two runs, and segments, all with what belongs to them.
    fn new(seed: u64, letter: char, first: u64) -> std::result::Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let machine = machine(&Image::default(), 1, seed ^ u64::from(letter));
        let options = options(&machine).segment_bytes_max(CLOSED_BYTES);
        let log = IssueLog::open(DIR, options).map_err(|error| text(&error))?;
        let mut random = StdRng::seed_from_u64(seed);
        let (mut history, mut keys) = (Vec::new(), BTreeMap::new());
        let mut write = |log: &IssueLog, count: u64| -> std::result::Result<(), String> {
            let id = format!("bd-{}", random.random_range(0..ISSUES));
            let words = format!("{letter} ").repeat(random.random_range(1..60));
            let batch = match (random.random_range(0..8), log.get(&id)) {
                (_, Err(error)) => return Err(text(&error)),
                (_, Ok(None)) => Batch::new().create(
                    Issue::new(&id, "Mend the fence")
                        .with("description", &words)
                        .map_err(|error| text(&error))?,
                ),
                (0, _) => Batch::new().delete(&id),
                (1 | 2, _) => Batch::new().close(&id),
                (3, _) => Batch::new().reopen(&id),
                _ => {
                    let patch = Patch::new().set("notes", &words);
                    let patch = patch.map_err(|error| text(&error))?.add_label("garden");
                    Batch::new().patch(&id, patch)
                }
            };
            let key = format!("agent/{count}");
            let is_keyed = random.random_ratio(1, 3);
            let batch = if is_keyed { batch.key(&key) } else { batch };
            match log.commit(&batch) {
                Ok(receipt) if is_keyed => drop(keys.insert(key, receipt.seq)),
                // It may be closed, or open, already.
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(text(&error)),
            }
            Ok(())
        };
        for (records, is_compacted) in [(first, true), (20, true), (9, true), (45, false)] {
            for count in 0..records {
                write(&log, history.len() as u64 * 1_000 + count)?;
                log.with_unclosed(|_| ()).map_err(|error| text(&error))?;
                if count % 8 == 0 {
                    history.push(image(&machine));
                }
            }
            if is_compacted {
                log.compact().map_err(|error| text(&error))?;
            }
        }
        log.close().map_err(|error| text(&error))?;
        let issues = LiveIssues::open_in(&storage(&machine), Path::new(DIR));
        let mut ids: Vec<String> = (0..ISSUES).map(|number| format!("bd-{number}")).collect();
        ids.push("none".to_owned());
        Ok(Indexed {
            image: image(&machine),
            history,
            issues: issues.map_err(|error| text(&error))?.into_state(),
            ids,
            keys,
        })
    }
}

fn options(machine: &Solo) -> Options {
    Options::default()
        .storage(storage(machine))
        .compact_after_bytes(0)
}

impl Stores {
    fn build(seed: u64) -> std::result::Result<Self, String> {
        let base = Indexed::new(seed, 'a', 30)?;
        let names = base.image.files.keys();
        let names = names.filter(|name| kind(name) != "other").cloned();
        Ok(Self {
            names: names.collect(),
            twin: Indexed::new(seed, 'b', 30)?,
            stranger: Indexed::new(seed.wrapping_add(1), 'a', 30)?,
            base,
        })
    }

    fn name(&self, file: usize) -> &str {
        self.names.get(file).map_or("", AsRef::as_ref)
    }

    fn bytes(&self, file: usize) -> &[u8] {
        self.base.image.get(self.name(file)).unwrap_or_default()
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for file in 0..self.names.len() {
            let mut add = |change| cases.push(Case { file, change });
            let (name, len) = (self.name(file), self.bytes(file).len());
            // Indexes are short.
            let (step, flips): (usize, &[u8]) = match kind(name) {
                "index" => (1, &[0x01, 0x10, 0xff]),
                _ if is_hint(name) => (1, &[0x01]),
                _ => (OTHERS_ONE_IN, &[0x01]),
            };
            for at in (0..len).step_by(step) {
                for &flipped in flips {
                    add(Change::Byte { at, flipped });
                }
                if at % 4 == 0 || kind(name) == "index" {
                    add(Change::Cut { len: at });
                }
            }
            if is_hint(name) {
                for back in [1, 4, 28, 40, 200] {
                    let from = len.saturating_sub(back);
                    add(Change::Doubled { from });
                }
            }
            add(Change::Missing);
            for moment in 0..self.base.history.len() {
                add(Change::Earlier { moment });
            }
            for is_twin in [true, false] {
                add(Change::Foreign { is_twin });
            }
            for other in 0..self.names.len() {
                if other != file && kind(self.name(other)) == kind(name) {
                    add(Change::Other { file: other });
                }
            }
        }
        cases
    }

    /// The store with the change; `None` where that is none.
    fn apply(&self, case: Case) -> Option<Image> {
        let name = self.name(case.file);
        let good = self.bytes(case.file);
        let changed = match case.change {
            Change::Byte { at, flipped } => {
                let mut bytes = good.to_vec();
                *bytes.get_mut(at)? ^= flipped;
                bytes
            }
            Change::Cut { len } => good.get(..len)?.to_vec(),
            Change::Doubled { from } => [good, good.get(from..)?].concat(),
            Change::Missing => {
                let mut image = self.base.image.clone();
                image.files.remove(name);
                return Some(image);
            }
            Change::Earlier { moment } => self.base.history.get(moment)?.get(name)?.to_vec(),
            Change::Foreign { is_twin: true } => self.twin.image.get(name)?.to_vec(),
            Change::Foreign { is_twin: false } => self.stranger.image.get(name)?.to_vec(),
            Change::Other { file } => self.bytes(file).to_vec(),
        };
        let mut image = self.base.image.clone();
        image.put(name, changed);
        (image != self.base.image).then_some(image)
    }

    /// How it ended; `None` where the case changes nothing.
    fn try_case(&self, case: Case) -> std::result::Result<Option<&'static str>, String> {
        let Some(image) = self.apply(case) else {
            return Ok(None);
        };
        let name = self.name(case.file);
        // A record does not say which store it belongs to.
        let is_of_another_store =
            kind(name) == "segment" && matches!(case.change, Change::Foreign { .. });
        match catch_panic(|| self.judge(name, &image))? {
            Err(_) if is_of_another_store => Ok(Some("by design: records of another store")),
            judged => judged.map(Some),
        }
    }

    fn judge(&self, name: &str, damaged: &Image) -> std::result::Result<&'static str, String> {
        let machine = machine(damaged, 1, 0);
        let mut errors = 0;
        let mut look = |what: &str, found: Found| {
            let found = found.map_err(|wrong| format!("{what}: {wrong}"))?;
            errors += found.len();
            match found
                .iter()
                .find(|error| is_hint(name) || !names(error, name))
            {
                None => Ok(()),
                Some(error) => Err(format!("{what}: {}", describe(error))),
            }
        };
        look("a reader", self.read(&machine))?;
        if image(&machine) != *damaged {
            return Err("a reader changed the store".to_owned());
        }
        look("a writer", self.write(&machine))?;
        look("a reader after the writer", self.read(&machine))?;
        let after = match LiveIssues::open_in(&storage(&machine), Path::new(DIR)) {
            Ok(after) if after.state() != &self.base.issues => Err("it is another".to_owned()),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Ok(vec![error]),
        };
        look("the state after the writer", after)?;
        Ok(if errors == 0 { "same answer" } else { "error" })
    }

    /// Each issue and key; behind an error, the others are asked for all the same.
    fn read(&self, machine: &Solo) -> Found {
        let mut reader = match PointReader::open_in(&storage(machine), Path::new(DIR)) {
            Ok(reader) => reader,
            Err(error) => return Ok(vec![error]),
        };
        let mut errors = self.each_issue(|id| reader.get(id))?;
        for (key, seq) in self.base.keys() {
            match reader.key(key) {
                Err(error) => errors.push(error),
                Ok(found) if found == seq => {}
                Ok(found) => {
                    return Err(format!("{key} was used in {seq:?}, and not in {found:?}"));
                }
            }
        }
        Ok(errors)
    }

    fn each_issue(&self, mut get: impl FnMut(&str) -> Result<Option<Versioned>>) -> Found {
        let mut errors = Vec::new();
        for id in &self.base.ids {
            match get(id) {
                Err(error) => errors.push(error),
                Ok(found) => self.differs(id, found).map_or(Ok(()), Err)?,
            }
        }
        Ok(errors)
    }

    fn differs(&self, id: &str, found: Option<Versioned>) -> Option<String> {
        let issues = &self.base.issues;
        let found = found.map(|found| (found.version, found.issue));
        let expected = issues.version(id).zip(issues.get(id).cloned());
        (found != expected).then(|| format!("{id} is {expected:?}, and it found {found:?}"))
    }

    /// As [`Self::read`], and the issues that are not closed.
    fn write(&self, machine: &Solo) -> Found {
        let log = match IssueLog::open(DIR, options(machine)) {
            Ok(log) => log,
            Err(error) => return Ok(vec![error]),
        };
        let unclosed = log.with_unclosed(|part| self.unclosed_differ(part));
        let mut errors = match unclosed {
            Ok(wrong) => wrong.map_or(Ok(Vec::new()), Err)?,
            Err(error) => vec![error],
        };
        errors.extend(self.each_issue(|id| log.get(id))?);
        for (key, seq) in self.base.keys() {
            // There is no such issue, so a new key stores nothing. Another batch had the key.
            let again = log.commit(&Batch::new().key(key).close("none"));
            match (again, seq) {
                (Err(CommitError::KeyReused { seq: known, .. }), Some(seq)) if known == seq => {}
                (Err(CommitError::Conflict(_)), None) => {}
                (Err(CommitError::Log(error)), _) => errors.push(error),
                (again, _) => return Err(format!("{key} of {seq:?} again: {again:?}")),
            }
        }
        errors.extend(log.close().err());
        Ok(errors)
    }

    fn unclosed_differ(&self, part: &Issues) -> Option<String> {
        let all = &self.base.issues;
        let is_closed = |issue: &Issue| {
            let status = issue.status();
            matches!(status.as_deref(), Some("closed" | "tombstone"))
        };
        let missing = all.iter().find(|(id, issue)| {
            !is_closed(issue) && part.get(id).is_none_or(|found| found != *issue)
        });
        let wrong = part.iter().find(|(id, issue)| all.get(id) != Some(issue));
        match missing.or(wrong) {
            Some((id, _)) => Some(format!("{id} is another among the unclosed ones")),
            None if part.ready() != all.ready() => Some("others are ready".to_owned()),
            None => None,
        }
    }

    fn finding(&self, budget: &Budget, number: usize, case: Case, what: &str) -> Finding {
        let name = self.name(case.file);
        Finding {
            what: format!("{name}, {:?}: {what}", case.change),
            replay: replay_line("T9", Some(budget.seed), format_args!("{PREFIX}{number}")),
            kept: None,
        }
    }
}

/// Whether an error is about this file. That a segment is missing, or ends too early, is said of
/// its neighbours, too.
fn names(error: &Error, name: &str) -> bool {
    match error {
        Error::Corrupt { path, .. } => {
            path.as_path() == Path::new(DIR).join(name) || kind(name) == "segment"
        }
        Error::UnsupportedVersion { path, .. } => path.as_path() == Path::new(DIR).join(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: usize = 499;

    #[test]
    fn the_store_has_every_kind_of_hint_and_all_are_used() {
        for seed in 0..4 {
            let stores = Stores::build(seed).unwrap();
            let count = |wanted: &str| {
                let names = stores.names.iter();
                names.filter(|name| kind(name) == wanted).count()
            };
            assert!(count("index") > 1, "{:?}", stores.names);
            for kind in [
                "unclosed issues of the log",
                "unclosed issues of the snapshot",
                "segment",
                "snapshot",
                "run",
            ] {
                assert!(count(kind) > 0, "{kind}: {:?}", stores.names);
            }
            let judged = stores.judge("", &stores.base.image);
            assert_eq!(judged, Ok("same answer"));
        }
    }

    /// Cases from each part of each file.
    #[test]
    fn no_damage_leads_to_a_wrong_answer() {
        let stores = Stores::build(7).unwrap();
        let cases = stores.cases().into_iter().step_by(STEP);
        let wrong = cases.filter_map(|case| {
            let what = stores.try_case(case).err()?;
            Some(format!(
                "{}, {:?}: {what}",
                stores.name(case.file),
                case.change
            ))
        });
        assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
    }

    /// In a store where one question meets an error, another record is expected of each key in
    /// turn. Whoever asks for the key answers something else then.
    #[test]
    fn keys_are_asked_for_behind_an_error() {
        let mut stores = Stores::build(7).unwrap();
        let cases = stores.cases().into_iter().filter(|case| {
            kind(stores.name(case.file)) == "snapshot" && matches!(case.change, Change::Byte { .. })
        });
        let mut images = cases.filter_map(|case| stores.apply(case));
        let looks = |stores: &Stores, image: &Image| {
            let machine = machine(image, 1, 0);
            [stores.read(&machine), stores.write(&machine)]
        };
        let fails = |found: &Found| found.as_ref().is_ok_and(|errors| errors.len() == 1);
        let image = images.find(|image| looks(&stores, image).iter().all(fails));
        let image = image.expect("damage that a reader and a writer meet");
        let mut answered = [0, 0];
        for key in stores.base.keys.keys().cloned().collect::<Vec<_>>() {
            let seq = stores.base.keys[&key];
            stores
                .base
                .keys
                .insert(key.clone(), Seq::new(seq.get() + 1));
            for (answered, found) in answered.iter_mut().zip(looks(&stores, &image)) {
                *answered += usize::from(found.is_err_and(|wrong| wrong.starts_with(&key)));
            }
            stores.base.keys.insert(key, seq);
        }
        let most = stores.base.keys.len() / 2;
        assert!(
            answered.iter().all(|count| *count > most),
            "{answered:?} of {most}"
        );
    }
}
