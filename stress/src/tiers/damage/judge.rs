//! The log's answers about a damaged store, and whether they are allowed.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use strand_core::{
    CorruptReason, Error, Issue, IssueEvent, LiveIssues, Log, Options, Payload, Reader, Record,
    Recovery, Result, Seq, Timestamp,
};

use crate::evidence::stored::parse_manifest;
use crate::run::errors::describe;
use crate::sim::START_MS;
use crate::sim::image::Image;
use crate::sim::solo::{CALLS_MAX, Solo};
use crate::tiers::damage::change::{Case, Damage, Knowing, Origin, Stores, Touched};
use crate::tiers::damage::store::{
    Base, DIR, SHM, header, image, machine, segment_name, segments, storage,
};

/// How a case ended; of several answers the last of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Verdict {
    /// Every answer is that of the undamaged store.
    Same,
    /// The same, after bytes that are no acknowledged record were moved to quarantine.
    Moved,
    /// An error names the place.
    Exact,
    /// See the documentation of this module.
    TakenForTorn,
    /// See there.
    HiddenByOldPage,
    /// See there.
    OfAnotherStore,
}

impl Verdict {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 6] = [
        Self::Same,
        Self::Moved,
        Self::Exact,
        Self::TakenForTorn,
        Self::HiddenByOldPage,
        Self::OfAnotherStore,
    ];

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Same => "same answer",
            Self::Moved => "same answer, junk moved to quarantine",
            Self::Exact => "exact error",
            Self::TakenForTorn => "by design: taken for torn",
            Self::HiddenByOldPage => "by design: hidden by an old page",
            Self::OfAnotherStore => "by design: records of another store",
        }
    }
}

/// An event that is not looked into: the records are compared by their bytes.
#[derive(Debug)]
struct Any;

impl Serialize for Any {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Payload for Any {}

/// The answer of one way to read.
#[derive(Debug)]
enum Answer {
    /// All there is through this record, and all of it right.
    Through(u64),
    /// It ended with an error; what came before was right.
    Failed(Error),
    /// Something else than what was stored.
    Wrong(String),
}

/// Where near the end a follower starts that does not want all records.
const NEAR_THE_END: u64 = 15;

/// The process that asks how far the log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Reader,
    Writer,
}

/// One case and everything that is needed to judge it.
pub(super) struct Judge<'a> {
    pub(super) stores: &'a Stores,
    pub(super) case: Case,
    pub(super) image: &'a Image,
    pub(super) touched: &'a [Touched],
}

impl Judge<'_> {
    fn base(&self) -> &Base {
        &self.stores.base
    }

    /// A machine with the store. Elsewhere is another boot: the hints of a page hold for one file
    /// and one boot.
    fn machine(&self) -> Solo {
        let boot = if self.case.knowing == Knowing::Elsewhere {
            2
        } else {
            1
        };
        machine(self.image, boot, 0)
    }

    /// Reads the store in every way, and opens it to append.
    pub(super) fn verdict(&self) -> std::result::Result<Verdict, String> {
        let mut verdict = Verdict::Same;
        let machine = self.machine();
        let answers = self.read(&machine);
        for (way, from, answer) in answers {
            let judged = self.judge_answer(from, answer);
            verdict = verdict.max(judged.map_err(|what| format!("{way}: {what}"))?);
        }
        if image(&machine) != *self.image {
            return Err("a reader changed the store".to_owned());
        }
        if machine.calls() >= CALLS_MAX {
            return Err("reading does not end".to_owned());
        }
        let appended = self.append().map_err(|what| format!("append: {what}"))?;
        Ok(verdict.max(appended))
    }

    /// All ways to read, each with its name.
    fn read(&self, machine: &Solo) -> Vec<(&'static str, u64, Answer)> {
        let base = self.base();
        let (first, last) = (base.first_seq(), base.last_seq());
        let reader = match Reader::<Any>::open_in(&storage(machine), Path::new(DIR)) {
            Ok(reader) => reader,
            Err(error) => return vec![("open", 1, Answer::Failed(error))],
        };
        let records = match reader.records() {
            Ok(records) => self.records(first, records),
            Err(error) => Answer::Failed(error),
        };
        let verified = match reader.verify() {
            Ok(count) => Answer::Through(first - 1 + count),
            Err(error) => Answer::Failed(error),
        };
        let mut answers = vec![("read", first, records), ("verify", first, verified)];
        // Where less is known beside the files, the other ways to read take turns.
        let turn = match self.case.damage {
            Damage::Byte { at, .. } | Damage::Cut { len: at, .. }
                if self.case.knowing != Knowing::Running =>
            {
                Some(at % 2)
            }
            _ => None,
        };
        if turn != Some(0) {
            answers.push(("state", first, self.state(machine)));
            answers.push(("follow from 1", 1, self.follow(&reader, 1)));
        }
        if turn != Some(1) {
            answers.push(("follow", first, self.follow(&reader, first)));
            let from = last - NEAR_THE_END;
            answers.push(("follow the end", from, self.follow(&reader, from)));
        }
        answers
    }

    fn records(&self, first: u64, records: impl Iterator<Item = Result<Record<Any>>>) -> Answer {
        let mut next = first;
        for record in records {
            match record {
                Ok(record) => {
                    if let Some(wrong) = self.differs(next, &record) {
                        return Answer::Wrong(wrong);
                    }
                    next += 1;
                }
                Err(error) => return Answer::Failed(error),
            }
        }
        Answer::Through(next - 1)
    }

    fn differs(&self, expected: u64, record: &Record<Any>) -> Option<String> {
        let stored = self.base().line(expected);
        if record.seq == expected && stored.is_some_and(|stored| stored.text == record.line) {
            return None;
        }
        let text = String::from_utf8_lossy(&record.line);
        Some(format!(
            "for record {expected} it answered {}: {text}",
            record.seq
        ))
    }

    fn state(&self, machine: &Solo) -> Answer {
        let snapshot = match LiveIssues::open_in(&storage(machine), Path::new(DIR)) {
            Ok(snapshot) => snapshot,
            Err(error) => return Answer::Failed(error),
        };
        let seq = snapshot.state().last_seq();
        if self
            .base()
            .state(seq.get())
            .is_some_and(|state| *state == *snapshot.state())
        {
            Answer::Through(seq.get())
        } else {
            Answer::Wrong(format!("the state as of record {seq} is another"))
        }
    }

    fn follow(&self, reader: &Reader<Any>, from: u64) -> Answer {
        let mut follower = match reader.follow(Seq::new(from)) {
            Ok(follower) => follower,
            Err(error) => return Answer::Failed(error),
        };
        let first = self.base().first_seq();
        let mut next = from;
        loop {
            match follower.try_next() {
                Ok(Some(record)) => {
                    if let Some(wrong) = self.differs(next, &record) {
                        return Answer::Wrong(wrong);
                    }
                    next += 1;
                }
                Ok(None) => return Answer::Through(next - 1),
                Err(Error::Compacted {
                    from_seq,
                    snapshot_seq,
                    ..
                }) if from < first && (from_seq, snapshot_seq) == (from, first - 1) => {
                    return Answer::Through(self.base().last_seq());
                }
                Err(error) => {
                    // Nothing may be passed over.
                    return match follower.try_next() {
                        Err(again) if describe(&again) == describe(&error) => Answer::Failed(error),
                        other => Answer::Wrong(format!("after {}: {other:?}", describe(&error))),
                    };
                }
            }
        }
    }

    fn judge_answer(&self, from: u64, answer: Answer) -> std::result::Result<Verdict, String> {
        match answer {
            Answer::Through(seq) if seq == self.base().last_seq() => Ok(Verdict::Same),
            Answer::Through(seq) => {
                // A follower that starts after the end sees nothing.
                let allowed = self.last_known(Who::Reader);
                let near_the_end = from > self.base().first_seq() && self.may_end_after(seq);
                match allowed {
                    Some((last, why)) if last.max(from - 1) == seq => Ok(why),
                    None if near_the_end => Ok(Verdict::TakenForTorn),
                    None if self
                        .foreign_end()
                        .is_some_and(|end| end.max(from - 1) == seq) =>
                    {
                        Ok(Verdict::OfAnotherStore)
                    }
                    _ => Err(format!("it ends silently after record {seq}")),
                }
            }
            Answer::Failed(error) => self.judge_error(&error),
            Answer::Wrong(_) if self.is_of_another_store() => Ok(Verdict::OfAnotherStore),
            Answer::Wrong(what) => Err(what),
        }
    }

    fn judge_error(&self, error: &Error) -> std::result::Result<Verdict, String> {
        if self.is_exact(error) {
            Ok(Verdict::Exact)
        } else {
            Err(format!(
                "the error does not name the place: {}",
                describe(error)
            ))
        }
    }

    /// Whether an error names a damaged file, and a place at or before the damage in the same line.
    fn is_exact(&self, error: &Error) -> bool {
        match error {
            Error::Corrupt {
                path,
                offset,
                reason,
            } => {
                let Some(name) = name_of(path) else {
                    return false;
                };
                let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.touched.iter().any(|touched| {
                    self.is_there(touched, name, at, reason)
                        || self.is_the_gap(touched, name, at, reason)
                        || self.is_contradiction(touched, name)
                        || is_an_overlap(touched, name, at, reason)
                })
            }
            Error::UnsupportedVersion { path, .. } => self.is_touched(path),
            // A manifest of another moment contradicts the other files.
            Error::Compacted { snapshot, .. } => self.touched.iter().any(|touched| {
                name_of(snapshot).is_some_and(|name| self.is_contradiction(touched, name))
            }),
            _ => false,
        }
    }

    fn is_touched(&self, path: &Path) -> bool {
        name_of(path).is_some_and(|name| self.touched.iter().any(|touched| touched.name == name))
    }

    fn is_there(&self, touched: &Touched, name: &str, at: usize, reason: &CorruptReason) -> bool {
        if touched.name != name {
            return false;
        }
        // The manifest is one line. A fault of a snapshot as a whole has no place.
        if name == "MANIFEST" || at == 0 && matches!(reason, CorruptReason::Snapshot { .. }) {
            return at == 0;
        }
        let old = if self.case.torn {
            &self.base().torn
        } else {
            &self.base().image
        };
        let old = old.get(name).unwrap_or_default();
        let now = self.image.get(name).unwrap_or_default();
        // Where several places are damaged, any of them may be met.
        let differs = |at: &usize| old.get(*at) != now.get(*at);
        let Some(damage) = (at..old.len().max(now.len())).find(differs) else {
            // The file is missing or superfluous: then what should follow it is missing, too.
            return at == touched.first || !touched.was_there && at == now.len();
        };
        let before = old.get(..damage.min(old.len())).unwrap_or_default();
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        line_start.map_or(0, |newline| newline + 1) <= at
    }

    /// A manifest that is whole, but of another moment or another store, is no fault by itself: it
    /// names files that are missing or different.
    fn is_contradiction(&self, touched: &Touched, name: &str) -> bool {
        if touched.name != "MANIFEST" {
            return false;
        }
        let manifest = self
            .image
            .get("MANIFEST")
            .and_then(|bytes| parse_manifest(bytes).ok());
        manifest.is_some_and(|manifest| {
            let mut files = manifest.files().into_iter();
            name == segment_name(manifest.first_seq) || files.any(|(file, _)| file == name)
        })
    }

    /// Missing records have a place in the log with two names: the end of the record before them,
    /// and the segment that would begin with them.
    fn is_the_gap(&self, touched: &Touched, name: &str, at: usize, reason: &CorruptReason) -> bool {
        let CorruptReason::Missing { from_seq, .. } = reason else {
            return false;
        };
        let base = self.base();
        let lost = if touched.was_there {
            base.record_at(&touched.name, touched.first)
        } else {
            // A name that says that there were more records.
            touched
                .name
                .starts_with("log-")
                .then(|| base.last_seq() + 1)
        };
        let lost_behind = self.foreign_end().map(|last| last + 1);
        let before = base.line(from_seq - 1);
        [lost, lost_behind].contains(&Some(*from_seq))
            && ((name, at) == (segment_name(*from_seq).as_str(), 0)
                || before.is_some_and(|line| (name, at) == (line.file.as_str(), line.end)))
    }

    /// Records of another store that fit to the byte: no record says which store it belongs to.
    fn is_of_another_store(&self) -> bool {
        matches!(
            self.case.damage,
            Damage::Content {
                from: Origin::Twin | Origin::Stranger,
                ..
            }
        ) && self
            .touched
            .iter()
            .all(|touched| touched.name.starts_with("log-"))
    }

    /// The last record of the last segment, if that is another store's.
    fn foreign_end(&self) -> Option<u64> {
        let touched = self.touched.last().filter(|_| self.is_of_another_store())?;
        let last = segments(self.image).into_iter().next_back()?;
        let bytes = self
            .image
            .get(&touched.name)
            .filter(|_| last == touched.name)?;
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter_map(header).map(|(seq, _)| seq).max()
    }

    /// The last record that is sure to be found, with the reason, where that is less than all and
    /// no process can know better.
    fn last_known(&self, who: Who) -> Option<(u64, Verdict)> {
        let shm = self.touched.iter().any(|touched| touched.name == SHM);
        let old_page = || {
            let seq = self.stale_durable_seq().filter(|_| who == Who::Reader)?;
            Some((seq, Verdict::HiddenByOldPage))
        };
        let torn = || self.lost_tail().map(|seq| (seq, Verdict::TakenForTorn));
        match self.case.knowing {
            Knowing::Running | Knowing::Elsewhere if !shm => None,
            Knowing::Running | Knowing::Nothing if shm => old_page().or_else(torn),
            _ => torn(),
        }
    }

    /// The last record that is sure to be found when nothing says how far the log was acknowledged:
    /// the one before the damage, if the damage is in the live segment and no remaining record says
    /// that more was durable.
    fn lost_tail(&self) -> Option<u64> {
        let touched = self.only_the_live_segment()?;
        let first = self.base().record_at(&touched.name, touched.first)?;
        let lost = first <= self.base().last_seq() && self.highest_synced(&touched.name) < first;
        lost.then(|| first - 1)
    }

    /// Whether a follower that starts near the end, and does not read what is before, may take the
    /// next record for torn.
    fn may_end_after(&self, seq: u64) -> bool {
        let unknown = self.case.knowing == Knowing::Nothing;
        let (Some(touched), Some(next)) = (self.only_the_live_segment(), self.base().line(seq + 1))
        else {
            return false;
        };
        let now = self.image.get(&touched.name).unwrap_or_default();
        let damaged = now.get(next.start..next.end - 1) != Some(&next.text);
        unknown && damaged && self.highest_synced(&touched.name) <= seq
    }

    fn only_the_live_segment(&self) -> Option<&Touched> {
        let mut of_log = self
            .touched
            .iter()
            .filter(|touched| touched.name.starts_with("log-"));
        let touched = of_log
            .next()
            .filter(|touched| touched.name == self.base().live())?;
        of_log.next().is_none().then_some(touched)
    }

    /// How far the whole records in a file say that the log was durable.
    fn highest_synced(&self, name: &str) -> u64 {
        let bytes = self.image.get(name).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n');
        // A damaged newline joins two lines, and the second is still a record.
        let parsed = lines.flat_map(|line| {
            let starts = (0..line.len()).filter(|at| {
                line.get(*at..)
                    .is_some_and(|rest| rest.starts_with(b"{\"crc\":\""))
            });
            starts.filter_map(|at| header(line.get(at..)?))
        });
        parsed.map(|(_, synced)| synced).max().unwrap_or(0)
    }

    /// The durable sequence number of an earlier moment of the same page.
    fn stale_durable_seq(&self) -> Option<u64> {
        const DURABLE: usize = 16 * 8;
        let bytes = self.image.get(SHM)?.get(DURABLE..DURABLE + 8)?;
        let word = u64::from_le_bytes(bytes.try_into().ok()?);
        let known = self.base().history.iter().any(|image| {
            image.get(SHM).and_then(|old| old.get(DURABLE..DURABLE + 8)) == Some(bytes)
        });
        known.then_some(word >> 16)
    }

    /// Opens the store to append, appends, and looks at what has become of the files.
    fn append(&self) -> std::result::Result<Verdict, String> {
        let machine = self.machine();
        let options = Options::default()
            .storage(storage(&machine))
            .preallocate_bytes(1024);
        let event = IssueEvent::add(
            Issue::new_at("bd-new", "Appended", Timestamp::from_ms(START_MS)),
            Timestamp::from_ms(START_MS),
        );
        let appended = Log::<IssueEvent>::open(DIR, options).and_then(|log| {
            let recovery = log.recovery().clone();
            Ok((log.append(&event)?.seq, recovery))
        });
        if machine.calls() >= CALLS_MAX {
            return Err("it does not end".to_owned());
        }
        let after = image(&machine);
        match appended {
            Err(error) => {
                self.unchanged(&after)
                    .map_err(|what| format!("{what}, and then: {}", describe(&error)))?;
                self.judge_error(&error)
            }
            Ok((seq, recovery)) => {
                let verdict = self.appended(&machine, &after, seq.get(), &recovery);
                verdict.map_err(|what| format!("{what}; record {seq}, {recovery}"))
            }
        }
    }

    fn unchanged(&self, after: &Image) -> std::result::Result<(), String> {
        let names = self.image.files.keys().chain(after.files.keys());
        let changed: Vec<_> = names
            .filter(|name| !is_volatile(name) && self.image.get(name) != after.get(name))
            .collect();
        if changed.is_empty() {
            Ok(())
        } else {
            Err(format!("it changed {changed:?}"))
        }
    }

    /// A record was appended: is it where it belongs, and is everything else as it was?
    fn appended(
        &self,
        machine: &Solo,
        after: &Image,
        seq: u64,
        recovery: &Recovery,
    ) -> std::result::Result<Verdict, String> {
        let base = self.base();
        let is_behind_all = seq - 1 == base.last_seq();
        let numbered = if is_behind_all {
            Verdict::Same
        } else {
            match self.last_known(Who::Writer) {
                Some((last, why)) if seq - 1 == last => why,
                _ => return Err("it has another number than it should".to_owned()),
            }
        };
        let mut segments = segments(after).into_iter().rev();
        let target = segments.find(|name| self.image.get(name) != after.get(name));
        let target = target.ok_or("no segment is longer now")?;
        let others = self.others_are_as_they_were(&target, after, recovery)?;
        let before = self.image.get(&target).unwrap_or_default();
        let now = after.get(&target).unwrap_or_default();
        let start = start_of(now, seq).ok_or("it is not in the log")?;
        if now.get(..start) != before.get(..start) {
            return Err("the bytes before it have changed".to_owned());
        }
        let rest = before.get(start..).unwrap_or_default();
        let behind = cut_bytes_are_kept(rest, after, recovery)?;
        // And everything is there that was there.
        let reader = Reader::<Any>::open_in(&storage(machine), Path::new(DIR));
        let read = match reader.and_then(|reader| reader.verify()) {
            Ok(count) if base.first_seq() - 1 + count == seq => Verdict::Same,
            Ok(count) => return Err(format!("{count} records are there now")),
            Err(error) if is_behind_all => self.judge_error(&error)?,
            Err(error) => return Err(format!("now {}", describe(&error))),
        };
        Ok(numbered.max(others).max(behind).max(read))
    }

    /// All files but the segment that was appended to: only copies that the damage added may be
    /// gone, and what is in quarantine.
    fn others_are_as_they_were(
        &self,
        target: &str,
        after: &Image,
        recovery: &Recovery,
    ) -> std::result::Result<Verdict, String> {
        let kept = recovery.quarantined.as_deref().and_then(name_of);
        let kept = kept.and_then(|name| after.get(name));
        let mut verdict = Verdict::Same;
        for (name, bytes) in &self.image.files {
            let now = after.files.get(name);
            if is_volatile(name) || **name == *target || now == Some(bytes) {
                continue;
            }
            let is_added = |touched: &Touched| touched.name == **name && !touched.was_there;
            let is_copy = now.is_none() && self.touched.iter().any(is_added);
            if !is_copy && kept != Some(bytes.as_ref()) {
                return Err(format!("it changed or removed {name}"));
            }
            verdict = Verdict::Moved;
        }
        Ok(verdict)
    }
}

/// Files that say nothing of the records.
fn is_volatile(name: &str) -> bool {
    matches!(name, SHM | "lock" | "compact.lock")
}

/// Where the line of a record begins.
fn start_of(segment: &[u8], seq: u64) -> Option<usize> {
    let numbered = format!("\"seq\":{seq},");
    let mut start = 0;
    for line in segment.split(|byte| *byte == b'\n') {
        let members = line.get(18..).unwrap_or_default();
        if members.starts_with(numbered.as_bytes()) && header(line).is_some() {
            return Some(start);
        }
        start += line.len() + 1;
    }
    None
}

/// Bytes that were cut off before a new record must be in quarantine, except for free space and
/// damage in it.
fn cut_bytes_are_kept(
    rest: &[u8],
    after: &Image,
    recovery: &Recovery,
) -> std::result::Result<Verdict, String> {
    let begins_at_once = rest.first().is_some_and(|byte| *byte != b'\n');
    if recovery.quarantined.is_none() && !begins_at_once {
        return Ok(Verdict::Same);
    }
    let blank = rest.iter().rev().take_while(|byte| **byte == b'\n').count();
    let cut = rest.get(..rest.len() - blank).unwrap_or_default();
    let kept = recovery.quarantined.as_deref().and_then(name_of);
    let kept = kept.and_then(|name| after.get(name)).unwrap_or_default();
    if kept.strip_suffix(b"\n").unwrap_or(kept) == cut && recovery.cut_bytes >= cut.len() as u64 {
        Ok(Verdict::Moved)
    } else {
        Err("what was cut off is not in quarantine".to_owned())
    }
}

/// Two segments claim the same records, and the damage added one of them: nothing says which.
fn is_an_overlap(touched: &Touched, name: &str, at: usize, reason: &CorruptReason) -> bool {
    let CorruptReason::Sequence { expected, found } = reason else {
        return false;
    };
    !touched.was_there
        && at == 0
        && name == segment_name(*found)
        && (touched.name.as_str() < name && expected > found)
}

/// A file's name in the store.
fn name_of(path: &Path) -> Option<&str> {
    path.strip_prefix(DIR).ok()?.to_str()
}
