//! The store that is damaged, and what is true of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use strand_core::{
    Durability, Issue, IssueEvent, IssueLog, Issues, LiveIssues, Options, Patch, Result, Timestamp,
    testing::Storage,
};
use strand_lock::SharedPage;

use crate::evidence::crc32c::crc32c;
use crate::evidence::stored::{is_segment, parse_manifest};
use crate::sim::START_MS;
use crate::sim::disk::VirtualDisk;
use crate::sim::image::Image;
use crate::sim::page::PageContent;
use crate::sim::solo::Solo;

/// The directory of the store on its machine: the root.
pub(super) const DIR: &str = "";
/// The file that all writers map.
pub(super) const SHM: &str = "shm";

/// The length of a closed segment, about.
const CLOSED_BYTES: u64 = 8 << 10;
/// The least length of the live segment, so that a search for a record halves it first.
const LIVE_BYTES: usize = 18 << 10;
/// The least number of bytes of the store.
const STORE_BYTES_MIN: usize = 64 << 10;
/// How much free space is preallocated at a time.
const FREE_BYTES: u64 = 2 << 10;
/// How many records at the end are above every `synced` on the disk.
const LAST_GROUP: usize = 3;
const ISSUES: u64 = 22;

/// A machine whose disk holds this store, started for the `boot`th time. Its file `shm` is mapped,
/// and lock files are no files of its disk.
pub(super) fn machine(image: &Image, boot: u32, seed: u64) -> Solo {
    let mut files = image.clone();
    let page = files.files.remove(SHM);
    let page = page.map(|bytes| PageContent::from_bytes(&bytes));
    Solo::new(VirtualDisk::from_image(&files), page.as_ref(), boot, seed)
}

/// The store of a machine.
pub(super) fn image(machine: &Solo) -> Image {
    let mut image = machine.disk().image();
    if let Some(page) = machine.page() {
        image.put(SHM, page.to_bytes());
    }
    image
}

/// The machine as the log's storage.
pub(super) fn storage(machine: &Solo) -> Arc<dyn Storage> {
    Arc::new(machine.clone())
}

/// A record, and its place.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) file: String,
    pub(super) start: usize,
    /// Behind its newline.
    pub(super) end: usize,
    /// Without the newline.
    pub(super) text: Vec<u8>,
}

/// A store, what it was at earlier moments, and what is in it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) image: Image,
    /// The same store after a crash in the middle of the next record.
    pub(super) torn: Image,
    /// Earlier moments.
    pub(super) history: Vec<Image>,
    /// Every acknowledged record behind the live snapshot.
    pub(super) lines: Vec<Line>,
    /// The states as of records that were asked for.
    states: Mutex<HashMap<u64, Arc<Issues>>>,
}

/// The recipe of a store: everything follows from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) seed: u64,
    /// The letter of made-up text. Stores that differ in nothing else have records of the same
    /// lengths and numbers.
    pub(super) letter: char,
    /// How many records are written before each compaction: the last ones become a run.
    pub(super) before: [u64; 3],
}

impl Base {
    /// Writes the store on a machine of its own.
    pub(super) fn new(recipe: Recipe) -> Result<Self> {
        let machine = machine(&Image::default(), 1, recipe.seed ^ u64::from(recipe.letter));
        let image = || image(&machine);
        let options = || {
            Options::default()
                .storage(storage(&machine))
                .preallocate_bytes(FREE_BYTES)
                .compact_after_bytes(0)
        };
        let small = || options().segment_bytes_max(CLOSED_BYTES);
        let mut writer = Writer {
            recipe,
            random: StdRng::seed_from_u64(recipe.seed),
            count: 0,
        };
        let mut history = Vec::new();
        let log = IssueLog::open(DIR, small())?;
        history.push(image());
        for records in recipe.before {
            for number in 0..records {
                writer.append(&log)?;
                if number % 20 == 0 {
                    history.push(image());
                }
            }
            log.compact()?;
            history.push(image());
        }
        // Two closed segments, and then the live one.
        let mut number = 0;
        while segments(&image()).len() < 3 {
            writer.append(&log)?;
            number += 1;
            if number % 15 == 0 {
                history.push(image());
            }
        }
        log.close()?;
        let log = IssueLog::open(DIR, options())?;
        let live = segments(&image()).pop().unwrap_or_default();
        let is_long_enough = |image: &Image| {
            let bytes = image.get(&live).unwrap_or_default();
            let blank = bytes.iter().rev().take_while(|byte| **byte == b'\n');
            let all: usize = image.files.values().map(|bytes| bytes.len()).sum();
            bytes.len() - blank.count() >= LIVE_BYTES && all >= STORE_BYTES_MIN
        };
        while !is_long_enough(&image()) {
            writer.append(&log)?;
            number += 1;
            if number % 15 == 0 {
                history.push(image());
            }
        }
        log.close()?;
        // The last records are made durable together.
        let log = IssueLog::open(DIR, options().durability(Durability::Buffered))?;
        for _ in 0..LAST_GROUP {
            writer.append(&log)?;
        }
        history.push(image());
        log.close()?;
        let mut image = image();
        // The note of a holder that was killed.
        for name in ["lock", "compact.lock"] {
            let mut page = [0; SharedPage::BYTES];
            let (note, _) = page.split_at_mut(128);
            StdRng::seed_from_u64(recipe.seed).fill_bytes(note);
            // A pid has 32 bits, and some words are free.
            for free in [4..8, 32..64] {
                note.get_mut(free)
                    .into_iter()
                    .flatten()
                    .for_each(|byte| *byte = 0);
            }
            image.put(name, page.to_vec());
        }
        let lines = lines(&image);
        let torn = torn(&image, options(), &lines)?;
        Ok(Self {
            image,
            torn,
            history,
            lines,
            states: Mutex::default(),
        })
    }

    /// The number of the first record behind the snapshot.
    pub(super) fn first_seq(&self) -> u64 {
        self.lines.first().map_or(1, |line| line.seq)
    }

    /// The number of the last acknowledged record.
    pub(super) fn last_seq(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.seq)
    }

    /// A record.
    pub(super) fn line(&self, seq: u64) -> Option<&Line> {
        let index = seq.checked_sub(self.first_seq())?;
        self.lines.get(usize::try_from(index).ok()?)
    }

    /// The names of the live snapshot's files.
    pub(super) fn live_snapshot(&self) -> Vec<String> {
        let manifest = self.image.get("MANIFEST").map(parse_manifest);
        let files = manifest.and_then(std::result::Result::ok);
        let files = files.map(|manifest| manifest.files()).unwrap_or_default();
        files.into_iter().map(|(name, _)| name).collect()
    }

    /// The name of the segment that is appended to.
    pub(super) fn live(&self) -> &str {
        self.lines.last().map_or("", |line| &line.file)
    }

    /// The record that a byte of a segment belongs to; the one to come, for a byte of free space.
    pub(super) fn record_at(&self, file: &str, at: usize) -> Option<u64> {
        let mut of_file = self.lines.iter().filter(|line| line.file == file);
        let first = of_file.clone().next()?.seq;
        let found = of_file.find(|line| at < line.end).map(|line| line.seq);
        let count = self.lines.iter().filter(|line| line.file == file).count();
        Some(found.unwrap_or(first + count as u64))
    }

    /// The state that the records through this one lead to, read from a store that has no more.
    pub(super) fn state(&self, seq: u64) -> Option<Arc<Issues>> {
        let states = || self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states().get(&seq) {
            return Some(Arc::clone(state));
        }
        let mut image = self.image.clone();
        image.files.remove(SHM);
        let first = self.lines.first().map(|line| &line.file);
        for line in self.lines.iter().rev().filter(|line| line.seq > seq) {
            let bytes = image.get(&line.file).unwrap_or_default();
            let kept = bytes.get(..line.start).unwrap_or(bytes).to_vec();
            if kept.is_empty() && Some(&line.file) != first {
                image.files.remove(line.file.as_str());
            } else {
                image.put(&line.file, kept);
            }
        }
        // Nor the mark that says that the log goes on.
        if let Some(last) = self.lines.iter().rev().find(|line| line.seq <= seq) {
            let bytes = image.get(&last.file).unwrap_or_default();
            let end = last.start + last.text.len() + 1;
            let kept = bytes.get(..end).unwrap_or(bytes).to_vec();
            image.put(&last.file, kept);
        }
        let machine = machine(&image, 1, 0);
        let state = LiveIssues::open_in(&storage(&machine), Path::new(DIR)).ok()?;
        let state = Arc::new(state.into_state());
        if state.last_seq() != seq {
            return None;
        }
        states().insert(seq, Arc::clone(&state));
        Some(state)
    }
}

/// The names of the segments, in their order.
pub(super) fn segments(image: &Image) -> Vec<String> {
    let names = image.files.keys();
    names
        .filter(|name| is_segment(name))
        .map(ToString::to_string)
        .collect()
}

/// The name of the segment whose first record has this number.
pub(super) fn segment_name(first_seq: u64) -> String {
    format!("log-{first_seq:020}.jsonl")
}

/// The name of the snapshot that reflects the records through this one.
pub(super) fn snapshot_name(seq: u64) -> String {
    format!("snapshot-{seq:020}.jsonl")
}

/// The name of a run of what the records from the first through the last of these changed.
pub(super) fn run_name(first_seq: u64, last_seq: u64) -> String {
    format!("run-{first_seq:020}-{last_seq:020}.jsonl")
}

/// `seq` and `synced` of a whole record, read without the log's help.
pub(super) fn header(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?;
    let (digits, covered) = text.strip_prefix("{\"crc\":\"")?.split_at_checked(8)?;
    let covered = covered.strip_prefix("\",")?;
    let number = |text: &str| {
        let digits = text.split(|char: char| !char.is_ascii_digit()).next()?;
        let number: u64 = digits.parse().ok()?;
        (number.to_string() == digits).then_some(number)
    };
    let (seq, rest) = covered.strip_prefix("\"seq\":")?.split_once(',')?;
    let seq = seq.parse().ok().filter(|_| number(seq).is_some())?;
    let synced = number(rest.strip_prefix("\"synced\":")?)?;
    let whole = covered.ends_with('}') && format!("{:08x}", crc32c(covered.as_bytes())) == digits;
    (whole && synced < seq).then_some((seq, synced))
}

fn lines(image: &Image) -> Vec<Line> {
    let mut lines = Vec::new();
    for file in segments(image) {
        let mut start = 0;
        for text in image
            .get(&file)
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
        {
            let end = start + text.len() + 1;
            if let Some((seq, _)) = header(text) {
                lines.push(Line {
                    seq,
                    file: file.clone(),
                    start,
                    end,
                    text: text.to_vec(),
                });
            }
            start = end;
        }
    }
    lines
}

/// The store after a crash with half of the next record written.
fn torn(before: &Image, options: Options, lines: &[Line]) -> Result<Image> {
    let machine = machine(before, 1, 0);
    let options = options
        .storage(storage(&machine))
        .durability(Durability::Buffered);
    let log = IssueLog::open(DIR, options)?;
    log.append(&IssueEvent::add(
        Issue::new_at("bd-torn", "Was being written", Timestamp::from_ms(START_MS)),
        Timestamp::from_ms(START_MS),
    ))?;
    let (name, tail) = lines
        .last()
        .map_or(("", 0), |line| (line.file.as_str(), line.end));
    let mut bytes = image(&machine)
        .get(name)
        .map(<[u8]>::to_vec)
        .unwrap_or_default();
    let line = bytes.iter().skip(tail).take_while(|byte| **byte != b'\n');
    let half = tail + line.count() / 2;
    for byte in bytes.iter_mut().skip(half) {
        *byte = b'\n';
    }
    let mut torn = before.clone();
    torn.put(name, bytes);
    Ok(torn)
}

struct Writer {
    recipe: Recipe,
    random: StdRng,
    count: u64,
}

impl Writer {
    fn draw(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below)
    }

    fn text(&mut self, bytes_max: u64) -> String {
        let letter = self.recipe.letter;
        let words = self.draw(bytes_max / 6 + 1);
        (0..words)
            .map(|word| {
                if word % 7 == 3 {
                    "é \" ".to_owned()
                } else {
                    format!("{letter}{letter}{letter} ")
                }
            })
            .collect()
    }

    fn event(&mut self) -> Result<IssueEvent> {
        let ts = START_MS.saturating_add_unsigned(self.count * 1000);
        let id = format!("bd-{}", self.draw(ISSUES));
        Ok(match self.draw(16) {
            0 => IssueEvent::close(id, Timestamp::from_ms(ts)),
            1 => IssueEvent::reopen(id, Timestamp::from_ms(ts)),
            2 => IssueEvent::delete(id, Timestamp::from_ms(ts)),
            3 => IssueEvent::set_blocked(id, Timestamp::from_ms(ts)),
            4..=6 => {
                let text = self.text(360);
                let patch = Patch::new().set("notes", &text)?.add_label("garden");
                IssueEvent::patch(id, patch, Timestamp::from_ms(ts))
            }
            7 => {
                let long = self.text(1500);
                let issue = Issue::new_at(&id, "Mend the long fence", Timestamp::from_ms(ts));
                IssueEvent::add(issue.with("description", &long)?, Timestamp::from_ms(ts))
            }
            _ => {
                let text = self.text(600);
                let issue = Issue::new_at(&id, "Mend the fence", Timestamp::from_ms(ts));
                let event =
                    IssueEvent::add(issue.with("description", &text)?, Timestamp::from_ms(ts));
                if self.draw(3) == 0 {
                    event.with_key(format!("agent/{}", self.count))
                } else {
                    event
                }
            }
        })
    }

    fn append(&mut self, log: &IssueLog) -> Result<()> {
        self.count += 1;
        if self.draw(10) == 0 {
            let events = [self.event()?, self.event()?];
            log.append_batch(&events)?;
        } else {
            log.append(&self.event()?)?;
        }
        Ok(())
    }
}

/// Makes sure that what the tests are about is there.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_has_all_kinds_of_files_and_is_long_enough() {
        for seed in 0..10 {
            check(Recipe {
                seed,
                letter: 'a',
                before: [40, 50, 4],
            });
        }
    }

    fn check(recipe: Recipe) {
        let base = Base::new(recipe).unwrap();
        let bytes: usize = base.image.files.values().map(|bytes| bytes.len()).sum();
        assert!(
            (STORE_BYTES_MIN..STORE_BYTES_MIN + (48 << 10)).contains(&bytes),
            "{bytes}"
        );
        let names: Vec<_> = base.image.files.keys().collect();
        let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        for (prefix, files) in [
            ("MANIFEST", 1),
            ("snapshot-", 2),
            ("run-", 1),
            ("log-", 3),
            ("shm", 1),
            ("lock", 1),
            ("compact.lock", 1),
        ] {
            assert_eq!(count(prefix), files, "{names:?}");
        }
        let live = base.image.get(base.live()).unwrap();
        let tail = base.lines.last().unwrap().end;
        assert!(live[tail..].iter().all(|byte| *byte == b'\n'));
        assert!(live.len() > tail, "there is free space");
        for (number, line) in (base.first_seq()..).zip(&base.lines) {
            assert_eq!(line.seq, number);
        }
        let highest = base.lines.iter().filter_map(|line| header(&line.text));
        let highest = highest.map(|(_, synced)| synced).max().unwrap();
        assert_eq!(highest, base.last_seq() - LAST_GROUP as u64);
        assert_ne!(base.torn, base.image);
        assert_eq!(
            base.state(base.last_seq()).unwrap().last_seq(),
            base.last_seq()
        );
        // The same each time.
        assert_eq!(Base::new(recipe).unwrap().image, base.image);
        let twin = Base::new(Recipe {
            letter: 'b',
            ..recipe
        });
        let twin = twin.unwrap();
        let places = |base: &Base| -> Vec<_> {
            let lines = base.lines.iter();
            lines.map(|line| (line.seq, line.start, line.end)).collect()
        };
        assert_eq!(places(&twin), places(&base));
        assert_ne!(twin.image, base.image);
    }
}
