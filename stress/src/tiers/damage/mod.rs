//! T9: damage. In a small store, every byte of the files is changed, every file is cut at every
//! place, blocks are swapped, zeroed and replaced by their earlier content, and whole files are
//! removed, doubled, and replaced by those of other moments and other stores. Each time the store
//! is read in every way and opened to append.
//!
//! # Requirements
//! Either an error names the damaged file, and a place at or before the damage in the same line;
//! then opening to append has changed nothing. Or the answer is provably the same: every
//! acknowledged record byte for byte, in order, and the same state. Never a panic, and never less
//! than that without an error. An appender may overlook what it need not read (closed segments, the
//! snapshot). Then its record has the right number and is after the last one, and nothing else has
//! changed.
//!
//! Three things may be known beside the files: the system has kept running, and `shm` is good; the
//! files are elsewhere, or the system was restarted, so that only the durable sequence number in
//! `shm` counts; or `shm` is gone.
//!
//! # The place in an error
//! - A missing record has a place between two others, with two names: the end of the record before
//!   it, and the beginning of the segment that would begin with it. Nothing says whether a file was
//!   cut between two records or the next file is missing.
//! - The manifest is one line. A snapshot whose lines are good one by one, but not together, is
//!   wrong as a whole (place 0): its checksum covers the file.
//! - A manifest that is whole, but of another moment or another store, is no fault by itself. The
//!   error names the file that contradicts it.
//! - Of two segments that claim the same records, the error names the later one.
//!
//! # Limits by design
//! These are counted apart; each is allowed only where its conditions hold.
//! - *Taken for torn*: `shm` is gone, and the damage begins in a record of the live segment that no
//!   remaining record calls durable (the last group, or all that was cut off). It looks like a
//!   write that a crash interrupted. The log ends before it; whole bytes that were cut off are in
//!   `quarantine/`, and [`Recovery`](strand_core::Recovery) says so. A live segment whose end is
//!   missing leaves nothing to keep.
//! - *Hidden by an old page*: `shm` has the content of an earlier moment of the same boot and file,
//!   which only a process that writes into it can bring about. Readers believe its durable sequence
//!   number and end there. A writer finds the records after it.
//! - *Records of another store*: a segment whose records have the right numbers. A record does not
//!   say which store it belongs to. (Snapshots and manifests do.)
//!
//! What only saves reading is damaged in a store of its own, in which single issues are looked up
//! (`indexes.rs`).
//!
//! The content of free space and of an older snapshot, and the bytes of `shm` without a meaning,
//! change no answer. Only real locks read the bytes of `lock` and `compact.lock`, so those are
//! changed under real locks.

mod change;
mod indexes;
mod judge;
mod locks;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::evidence::stored;
use crate::panics::catch_panic;
use crate::sim::image::Image;
use crate::tiers::damage::change::{Case, Stores, kind};
use crate::tiers::damage::judge::{Judge, Verdict};
use crate::tiers::damage::store::{Base, Recipe};
use crate::tiers::pool;
use crate::tiers::tally::{Budget, FINDINGS_MAX, Finding, Tally, replay_line};

const TIER: &str = "T9";
/// A quick run tries one in this many of the cases that are many.
const QUICK_ONE_IN: u32 = 20;

/// How many cases ended how, by the kind of the damaged file.
type Counts = BTreeMap<(&'static str, Verdict), u64>;

/// Tries all damage there is. A quick run tries all of the kinds that are few, and of the others a
/// part that the seed decides.
#[must_use]
pub fn run(budget: &Budget) -> Tally {
    let mut random = StdRng::seed_from_u64(budget.seed);
    let tally = match Stores::build(budget.seed) {
        Ok(stores) => try_all(budget, &mut random, &stores),
        Err(error) => new_tally().stopped(format!("cannot write the store: {error}")),
    };
    let indexes = indexes::run(budget, &mut random, QUICK_ONE_IN, new_tally());
    let locks = locks::run(budget, &mut random, QUICK_ONE_IN, new_tally());
    Tally {
        cases: tally.cases + indexes.cases + locks.cases,
        counts: [tally.counts, indexes.counts, locks.counts].concat(),
        violations: [tally.violations, indexes.violations, locks.violations].concat(),
        environment: tally
            .environment
            .or(indexes.environment)
            .or(locks.environment),
        ..locks
    }
}

/// Replays one case by its number.
#[must_use]
pub fn replay(budget: &Budget, number: &str) -> Tally {
    replay_one(budget, number).unwrap_or_else(|error| new_tally().stopped(error))
}

fn replay_one(budget: &Budget, number: &str) -> Result<Tally, String> {
    let of_lock = number.strip_prefix(locks::PREFIX);
    let of_index = number.strip_prefix(indexes::PREFIX);
    let index = of_lock.or(of_index).unwrap_or(number).parse::<usize>();
    let index = index.map_err(|_| format!("{number:?} is no case"))?;
    let mut tally = new_tally();
    if of_lock.is_some() {
        return Ok(locks::replay(index, tally));
    }
    if of_index.is_some() {
        return Ok(indexes::replay(budget, index, tally));
    }
    let stores = Stores::build(budget.seed).map_err(|error| error.to_string())?;
    let (few, many) = stores.cases();
    let case = few.into_iter().chain(many).nth(index);
    let case = case.ok_or_else(|| format!("there is no case {index}"))?;
    tally.cases = 1;
    match try_one(&stores, case) {
        None => tally.add("changes nothing", 1),
        Some(tried) => match tried.verdict {
            Ok(verdict) => {
                tally.add(format!("{}: {}", stores.describe(case), verdict.name()), 1);
            }
            Err(what) => {
                let found = finding(budget, &stores, index, case, &what, &tried.image);
                tally.violations.push(found);
            }
        },
    }
    Ok(tally)
}

fn new_tally() -> Tally {
    Tally::new(TIER, "damaged stores")
}

impl Stores {
    fn build(seed: u64) -> strand_core::Result<Self> {
        let recipe = |seed, letter, before| {
            Base::new(Recipe {
                seed,
                letter,
                before,
            })
        };
        let base = recipe(seed, 'a', [40, 50, 4])?;
        // Files of the stranger fit nowhere. Those of the twin fit everywhere, and a store with
        // some that fit is no other case.
        let names = |base: &Base| base.image.files.keys().cloned().collect::<Vec<_>>();
        let taken = names(&base);
        let fits = |name: &Arc<str>| stored::is_segment(name) && taken.contains(name);
        let mut other = 0;
        let stranger = loop {
            other += 1;
            let stranger = recipe(seed.wrapping_add(other), 'a', [45, 59 + other, 4])?;
            if !names(&stranger).iter().any(fits) {
                break stranger;
            }
        };
        Ok(Self::new(base, recipe(seed, 'b', [40, 50, 4])?, stranger))
    }
}

fn try_all(budget: &Budget, random: &mut StdRng, stores: &Stores) -> Tally {
    let (few, many) = stores.cases();
    let one_in = if budget.quick { QUICK_ONE_IN } else { 1 };
    let first_of_many = few.len();
    let all = few.into_iter().chain(many).enumerate();
    let cases = all.filter(|(index, _)| *index < first_of_many || random.random_ratio(1, one_in));
    let counted: Mutex<(Counts, Vec<Finding>)> = Mutex::default();
    let work = |(): &mut (), (index, case)| {
        let Some(tried) = try_one(stores, case) else {
            return ControlFlow::Continue(());
        };
        budget.count(1);
        let finding = |what: &str| finding(budget, stores, index, case, what, &tried.image);
        let verdict = tried.verdict.as_ref().map_err(|what| finding(what));
        let mut sum = counted.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Ok(verdict) => *sum.0.entry((tried.kind, *verdict)).or_default() += 1,
            Err(finding) => sum.1.push(finding),
        }
        if sum.1.len() >= FINDINGS_MAX {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    pool::run(budget, cases, || (), work);
    let (counts, violations) = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    Tally {
        cases: counts.values().sum::<u64>() + violations.len() as u64,
        counts: summed(&counts),
        violations,
        ..new_tally()
    }
}

/// By result, and then by kind of file and result.
fn summed(counts: &Counts) -> Vec<(String, u64)> {
    let mut by_verdict: BTreeMap<Verdict, u64> = BTreeMap::new();
    for ((_, verdict), count) in counts {
        *by_verdict.entry(*verdict).or_default() += count;
    }
    let all = by_verdict
        .into_iter()
        .map(|(verdict, count)| (verdict.name().to_owned(), count));
    let by_kind = counts
        .iter()
        .map(|((kind, verdict), count)| (format!("{kind}: {}", verdict.name()), *count));
    all.chain(by_kind).collect()
}

/// The result of one case.
struct Tried {
    kind: &'static str,
    verdict: Result<Verdict, String>,
    image: Image,
}

/// `None` where nothing would be another.
fn try_one(stores: &Stores, case: Case) -> Option<Tried> {
    let (image, touched) = stores.apply(case)?;
    let kind = touched
        .first()
        .map_or("none", |touched| kind(&stores.base, &touched.name));
    let judge = Judge {
        stores,
        case,
        image: &image,
        touched: &touched,
    };
    let verdict = catch_panic(|| judge.verdict()).flatten();
    Some(Tried {
        kind,
        verdict,
        image,
    })
}

fn finding(
    budget: &Budget,
    stores: &Stores,
    index: usize,
    case: Case,
    what: &str,
    image: &Image,
) -> Finding {
    let seed = budget.seed;
    Finding {
        what: format!("{}: {what}\n  seed {seed}, {case:?}", stores.describe(case)),
        replay: replay_line(TIER, Some(seed), index),
        kept: keep(image).ok(),
    }
}

/// Writes the damaged store to a directory that stays.
fn keep(image: &Image) -> io::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("strand-t9-").tempdir()?;
    image.write_to(dir.path())?;
    Ok(dir.keep())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_of_all_few_kinds_is_found_or_harmless() {
        let stores = Stores::build(2).unwrap();
        let (few, many) = stores.cases();
        let sample = many.into_iter().skip(7).step_by(1009);
        let mut verdicts = BTreeMap::new();
        for case in few.into_iter().step_by(3).chain(sample) {
            let Some(tried) = try_one(&stores, case) else {
                continue;
            };
            match tried.verdict {
                Ok(verdict) => *verdicts.entry(verdict).or_insert(0) += 1,
                Err(what) => panic!("{}: {what}\n{case:?}", stores.describe(case)),
            }
        }
        // A judge that never comes to one of these would not have looked.
        assert_eq!(verdicts.len(), Verdict::ALL.len(), "{verdicts:?}");
    }

    #[test]
    fn a_case_is_done_again_by_its_number() {
        let tally = replay(&Budget::quick(1, 0.0), "17");
        assert_eq!((tally.cases, tally.violations.len()), (1, 0));
        assert!(replay(&Budget::quick(1, 0.0), "x").environment.is_some());
        assert!(
            replay(&Budget::quick(1, 0.0), "99999999")
                .environment
                .is_some()
        );
        assert_eq!(replay(&Budget::quick(1, 0.0), "lock-5").cases, 1);
        let tally = replay(&Budget::quick(1, 0.0), "index-5");
        assert_eq!((tally.cases, tally.violations.len()), (1, 0));
    }
}
