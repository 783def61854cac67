//! What some records behind the snapshot did to each issue: whether it is closed after them, and
//! which of them say what it is.

use std::ops::Range;

use crate::state::{
    mentions::{Change, Name},
    tail::{Mentioned, Place, number},
};

/// What the records did to an issue in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// None of them concerns it.
    #[default]
    Untouched,
    /// If it was closed or absent before them, it is so now.
    AsBefore,
    /// It is closed or absent.
    Closed,
    /// It may be neither.
    MayBeOpen,
}

/// Which earlier events the present state of an issue depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Needs {
    #[default]
    All,
    /// The last one that says by itself whether there is an issue: a later one replaces what that
    /// was.
    Existence,
    Nothing,
}

/// What the records did to each issue that they mention, from the last one back to those that
/// decide. Most of the records are of issues that a later one closed, and are passed over.
#[derive(Debug)]
pub(super) struct Courses<'a> {
    mentioned: &'a Mentioned,
    records: Range<u64>,
    all: Vec<Course<'a>>,
    /// By their ids: 0, or 1 + the place in `all`. At most half of them are used.
    slots: Vec<u32>,
    decisive: Vec<Decisive>,
}

#[derive(Debug, Default)]
struct Course<'a> {
    id: &'a [u8],
    /// The first of the records that the present state depends on. Not of one that is closed,
    /// which hardly anybody asks for.
    first: Option<u32>,
    fate: Fate,
    needs: Needs,
}

#[derive(Debug)]
struct Decisive {
    place: Place,
    /// The next one of the same issue.
    next: Option<u32>,
}

impl Course<'_> {
    /// Goes back to an event. Returns whether the present state depends on it.
    fn go_back(&mut self, change: Change) -> bool {
        let says_existence = matches!(change, Change::Adds | Change::AddsClosed | Change::Deletes);
        let is_needed = match self.needs {
            Needs::All => true,
            Needs::Existence => says_existence,
            Needs::Nothing => false,
        };
        if !is_needed {
            return false;
        }
        if matches!(self.fate, Fate::Untouched | Fate::AsBefore) {
            self.fate = match change {
                Change::Nothing => Fate::AsBefore,
                Change::Closes | Change::Deletes | Change::AddsClosed => Fate::Closed,
                Change::Opens | Change::Replaces | Change::Adds => Fate::MayBeOpen,
            };
        }
        if self.fate == Fate::Closed {
            (self.needs, self.first) = (Needs::Nothing, None);
            return false;
        }
        if says_existence {
            self.needs = Needs::Nothing;
        } else if change == Change::Replaces {
            self.needs = Needs::Existence;
        }
        true
    }
}

impl<'a> Courses<'a> {
    pub(super) fn of(mentioned: &'a Mentioned, records: Range<u64>) -> Self {
        // Several records concern one issue.
        let count = records.end.saturating_sub(records.start);
        let issues = usize::try_from(count / 2).unwrap_or(0);
        let mut courses = Self {
            mentioned,
            records: records.clone(),
            all: Vec::with_capacity(issues),
            slots: vec![0; issues.next_power_of_two().max(64)],
            decisive: Vec::new(),
        };
        mentioned.each_back(&records, |name, change, place| {
            courses.go_back(name, change, place);
        });
        courses
    }

    fn go_back(&mut self, name: Name<'a>, change: Change, place: Place) {
        if name.is_key {
            return;
        }
        let id = name.text;
        let (slot, found) = self.find(id);
        let at = found.unwrap_or(self.all.len());
        if found.is_none() {
            let course = Course {
                id,
                ..Course::default()
            };
            self.all.push(course);
            self.put(slot, at);
        }
        if let Some(course) = self.all.get_mut(at)
            && course.go_back(change)
        {
            let this = number(self.decisive.len());
            let next = course.first.replace(this);
            self.decisive.push(Decisive { place, next });
        }
    }

    /// The place of an issue among all, and the slot where it is, or would be.
    fn find(&self, id: &[u8]) -> (usize, Option<usize>) {
        let mask = self.slots.len() - 1;
        let ends = ends(id);
        let mut slot = hash(ends) & mask;
        loop {
            let at = self.slots.get(slot).copied().unwrap_or_default();
            let Some(at) = at.checked_sub(1).map(|at| at as usize) else {
                return (slot, None);
            };
            let is_this = |course: &Course<'_>| {
                // That is all of most ids.
                course.id.len() == id.len()
                    && self::ends(course.id) == ends
                    && (id.len() <= 16 || course.id == id)
            };
            if self.all.get(at).is_some_and(is_this) {
                return (slot, Some(at));
            }
            slot = (slot + 1) & mask;
        }
    }

    fn put(&mut self, slot: usize, at: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = number(at + 1);
        }
        if 2 * self.all.len() >= self.slots.len() {
            self.slots = vec![0; 4 * self.slots.len()];
            for at in 0..self.all.len() {
                let id = self.all.get(at).map(|course| course.id);
                let (slot, _) = self.find(id.unwrap_or_default());
                if let Some(slot) = self.slots.get_mut(slot) {
                    *slot = number(at + 1);
                }
            }
        }
    }

    fn course(&self, id: &str) -> Option<&Course<'a>> {
        let (_, at) = self.find(id.as_bytes());
        self.all.get(at?)
    }

    /// What happened to the issue with this id.
    pub(super) fn fate(&self, id: &str) -> Fate {
        self.course(id)
            .map(|course| course.fate)
            .unwrap_or_default()
    }

    /// The issues that may not be closed now, whatever they were before, in the order of their last
    /// records.
    pub(super) fn may_be_open(&self) -> impl Iterator<Item = &'a str> {
        let open = self.all.iter().rev();
        let open = open.filter(|course| course.fate == Fate::MayBeOpen);
        open.filter_map(|course| std::str::from_utf8(course.id).ok())
    }

    /// Whether the present state of the issue also depends on what it was before the records, as
    /// far as [`Courses::decisive`] goes.
    pub(super) fn is_of_before(&self, id: &str) -> bool {
        self.course(id)
            .is_none_or(|course| course.needs != Needs::Nothing || course.fate == Fate::Closed)
    }

    /// The records that the present state of these issues depends on, in their order. The ids are
    /// sorted.
    pub(super) fn decisive(&self, ids: &[&str]) -> Vec<Place> {
        let mut places = Vec::new();
        let mut closed = Vec::new();
        for id in ids {
            let Some(course) = self.course(id) else {
                continue;
            };
            if course.fate == Fate::Closed {
                closed.push(course.id);
            }
            let decisive = |at: u32| self.decisive.get(at as usize);
            let next = |this: &&Decisive| this.next.and_then(decisive);
            let all = std::iter::successors(course.first.and_then(decisive), next);
            places.extend(all.map(|decisive| decisive.place));
        }
        if !closed.is_empty() {
            self.mentioned.each(|name, _, place| {
                let is_of_it = !name.is_key && closed.binary_search(&name.text).is_ok();
                if is_of_it && self.records.contains(&place.seq()) {
                    places.push(place);
                }
            });
        }
        places.sort(); // Most are.
        places.dedup();
        places
    }
}

/// The first and the last bytes of an id.
fn ends(id: &[u8]) -> [u64; 2] {
    let ends = if let (Some(first), Some(last)) = (id.first_chunk(), id.last_chunk()) {
        [*first, *last]
    } else {
        let mut short = [0; 8];
        for (to, from) in short.iter_mut().zip(id) {
            *to = *from;
        }
        [short; 2]
    };
    ends.map(u64::from_le_bytes)
}

/// Whoever chooses ids with one hash makes a look slow, and nothing wrong.
fn hash([first, last]: [u64; 2]) -> usize {
    /// Odd, and without a pattern in its bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (low, high) = (last ^ first.rotate_left(29)).carrying_mul(FACTOR, 0);
    usize::try_from((low ^ high) & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const CHANGES: [Change; 7] = [
        Change::Nothing,
        Change::Closes,
        Change::Deletes,
        Change::Opens,
        Change::Replaces,
        Change::Adds,
        Change::AddsClosed,
    ];

    /// Goes through the changes as they happened: what the fate is in the end, and on which of them
    /// the state depends.
    fn forward(changes: &[Change]) -> (Fate, Vec<usize>, bool) {
        let (mut fate, mut from, mut told) = (Fate::Untouched, 0, None);
        for (at, change) in changes.iter().enumerate() {
            match change {
                Change::Nothing if fate == Fate::Untouched => fate = Fate::AsBefore,
                Change::Nothing => {}
                Change::Closes => fate = Fate::Closed,
                Change::Opens => fate = Fate::MayBeOpen,
                Change::Replaces => (fate, from) = (Fate::MayBeOpen, at),
                Change::Adds => (fate, from, told) = (Fate::MayBeOpen, at, Some(at)),
                Change::AddsClosed | Change::Deletes => {
                    (fate, from, told) = (Fate::Closed, at, Some(at));
                }
            }
        }
        let counts = |at: &usize| *at >= from || told == Some(*at);
        let all = (0..changes.len()).filter(counts).collect();
        (fate, all, told.is_none())
    }

    #[test]
    fn the_way_back_finds_what_the_way_there_does() {
        for case in 0..CHANGES.len().pow(4) {
            let changes: Vec<Change> = (0..4)
                .map(|step| CHANGES[case / CHANGES.len().pow(step) % CHANGES.len()])
                .collect();
            for from in 0..=changes.len() {
                let changes = &changes[from..];
                let mut course = Course::default();
                let mut needed: Vec<usize> = (0..changes.len())
                    .rev()
                    .filter(|at| course.go_back(changes[*at]))
                    .collect();
                needed.reverse();
                let (fate, expected, is_on_snapshot) = forward(changes);
                assert_eq!(course.fate, fate, "{changes:?}");
                if fate != Fate::Closed {
                    assert_eq!(needed, expected, "{changes:?}");
                    let found = course.needs != Needs::Nothing;
                    assert_eq!(found, is_on_snapshot, "{changes:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_id_is_found_at_its_place(ids in prop::collection::vec("[ab]{0,9}|a{8}[ab]{0,9}a{8}", 0..400)) {
            let mentioned = Mentioned::default();
            let mut courses = Courses::of(&mentioned, 0..0);
            let mut expected = HashMap::new();
            for (seq, id) in (1..).zip(&ids) {
                let place = Place::at(seq);
                courses.go_back(Name::of_id(id), Change::Opens, place);
                expected.entry(id.as_str()).or_insert_with(Vec::new).push(place);
            }
            prop_assert_eq!(courses.all.len(), expected.len());
            for (id, places) in expected {
                prop_assert_eq!(courses.decisive(&[id]), places);
            }
            prop_assert_eq!(courses.fate("c"), Fate::Untouched);
        }
    }
}
