//! The fold of the log, written a second time from the table in the documentation of
//! `strand_core::Issues`: the oracle must not trust the log about the state that its events lead
//! to. Keeps every state of every issue.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::evidence::stored::StoredRecord;

/// A digest of a state: equal states have equal digests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest {
    /// The last record that it reflects.
    pub seq: u64,
    /// How many issues there are.
    pub issues: u64,
    /// How many events changed nothing.
    pub without_effect: u64,
    /// The sum of [`issue_digest`] over all issues.
    pub digest: u64,
}

/// Every state of a log, from its records.
#[derive(Debug, Clone, Default)]
pub struct Model {
    issues: BTreeMap<String, Vec<Change>>,
    keys: HashMap<String, u64>,
    /// In the order of their numbers, which may have gaps.
    states: Vec<StateDigest>,
}

/// The state of an issue after a record.
#[derive(Debug, Clone)]
struct Change {
    seq: u64,
    /// `None`: it was deleted.
    issue: Option<Arc<str>>,
}

/// The effect of an event on an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The issue is this now.
    Put(String),
    /// The issue is gone.
    Delete,
    /// Nothing, since a field is no array.
    CannotPatch,
}

/// A number for one issue with its version and its text.
#[must_use]
pub fn issue_digest(id: &str, version: u64, text: &str) -> u64 {
    let mix = |digest: u64, &byte: &u8| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let parts = [id.as_bytes(), &version.to_le_bytes(), text.as_bytes()];
    let mut digest = 0xCBF2_9CE4_8422_2325;
    for part in parts {
        digest = part.iter().fold(digest, mix);
        digest = mix(digest, &0xFF);
    }
    // Digests are added up: all of their bits have to depend on all of the text.
    digest ^= digest >> 32;
    digest = digest.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    digest ^ (digest >> 32)
}

impl Model {
    /// All states that `records` lead to.
    ///
    /// # Errors
    /// The first event that cannot be read, with its record's number.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a StoredRecord>) -> Result<Model, String> {
        let mut model = Model::default();
        for record in records {
            let events = record.events.iter().map(|event| event.json.as_str());
            model.apply(record.seq, events)?;
        }
        Ok(model)
    }

    /// Applies the record that follows.
    ///
    /// # Errors
    /// Describes what is wrong with the event or the number. The model must not be used any more.
    pub fn apply<'a>(
        &mut self,
        seq: u64,
        events: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut state = self.last_state();
        if seq <= state.seq {
            return Err(format!("record {seq} comes behind record {}", state.seq));
        }
        state.seq = seq;
        for json in events {
            let event = Event::parse(json).map_err(|error| format!("record {seq}: {error}"))?;
            if let Some(key) = &event.key {
                self.keys.entry(key.to_string()).or_insert(seq);
            }
            let id = event.id.as_ref();
            let before = self.issues.get(id).and_then(|changes| changes.last());
            let now = before.and_then(|change| change.issue.clone());
            let was = before.map(|change| change.seq);
            let issue: Option<Arc<str>> = match fold(now.as_deref(), &event) {
                Effect::Nothing | Effect::CannotPatch => {
                    state.without_effect += 1;
                    continue;
                }
                Effect::Put(text) => Some(text.into()),
                Effect::Delete => None,
            };
            if let (Some(text), Some(version)) = (&now, was) {
                state.issues -= 1;
                state.digest = state.digest.wrapping_sub(issue_digest(id, version, text));
            }
            if let Some(text) = &issue {
                state.issues += 1;
                state.digest = state.digest.wrapping_add(issue_digest(id, seq, text));
            }
            let changes = self.issues.entry(id.to_owned()).or_default();
            changes.push(Change { seq, issue });
        }
        self.states.push(state);
        Ok(())
    }

    /// The state after the record `seq`; `None` when there is no such record.
    #[must_use]
    pub fn state(&self, seq: u64) -> Option<StateDigest> {
        if seq == 0 {
            return Some(StateDigest::default());
        }
        let at = self.states.binary_search_by_key(&seq, |state| state.seq);
        self.states.get(at.ok()?).copied()
    }

    /// The state after the last record.
    #[must_use]
    pub fn last_state(&self) -> StateDigest {
        self.states.last().copied().unwrap_or_default()
    }

    /// The version and the text of an issue after the record `seq`; without a text when it was
    /// deleted, `None` when there never was one.
    #[must_use]
    pub fn issue(&self, id: &str, seq: u64) -> Option<(u64, Option<&str>)> {
        let changes = self.issues.get(id)?;
        let known = changes.partition_point(|change| change.seq <= seq);
        let change = changes.get(known.checked_sub(1)?)?;
        Some((change.seq, change.issue.as_deref()))
    }

    /// The records behind `from` through `through` that changed one of `ids`.
    #[must_use]
    pub fn changes<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
        from: u64,
        through: u64,
    ) -> Vec<u64> {
        let changes = ids.filter_map(|id| self.issues.get(id)).flatten();
        let seqs = changes.map(|change| change.seq);
        let mut seqs: Vec<u64> = seqs
            .filter(|seq| (from + 1..=through).contains(seq))
            .collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    }

    /// The issues after the record `seq`: id, version and text.
    pub fn issues_at(&self, seq: u64) -> impl Iterator<Item = (&str, u64, &str)> {
        self.issues.keys().filter_map(move |id| {
            let (version, text) = self.issue(id, seq)?;
            Some((id.as_str(), version, text?))
        })
    }

    /// The record that carries an idempotency key.
    #[must_use]
    pub fn key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    /// How many idempotency keys the records behind `after` through `seq` carry.
    #[must_use]
    pub fn keys_between(&self, after: u64, seq: u64) -> u64 {
        let is_between = |of: &&u64| (after + 1..=seq).contains(*of);
        self.keys.values().filter(is_between).count() as u64
    }

    /// How many issues the records behind `after` through `seq` deleted.
    #[must_use]
    pub fn deleted_between(&self, after: u64, seq: u64) -> u64 {
        let is_deleted = |id: &&String| {
            let issue = self.issue(id, seq);
            issue.is_some_and(|(version, text)| version > after && text.is_none())
        };
        self.issues.keys().filter(is_deleted).count() as u64
    }

    /// How `issues` (id, version and text, in the order of the ids) differ from the state after the
    /// record `seq`; `None` when they do not.
    #[must_use]
    pub fn difference<'a>(
        &self,
        seq: u64,
        issues: impl IntoIterator<Item = (&'a str, u64, &'a str)>,
    ) -> Option<String> {
        self.difference_since(0, seq, issues)
    }

    /// As [`Model::difference`], of the issues that a record behind `after` changed last.
    #[must_use]
    pub fn difference_since<'a>(
        &self,
        after: u64,
        seq: u64,
        issues: impl IntoIterator<Item = (&'a str, u64, &'a str)>,
    ) -> Option<String> {
        if self.state(seq).is_none() {
            return Some(format!("there is no record {seq}"));
        }
        let expected = self.issues_at(seq);
        let mut expected = expected.filter(|(_, version, _)| *version > after);
        let mut found = issues.into_iter();
        loop {
            match (expected.next(), found.next()) {
                (None, None) => return None,
                (expected, found) if expected == found => {}
                (expected, found) => {
                    return Some(format!(
                        "through {seq}: {expected:?} expected, {found:?} found"
                    ));
                }
            }
        }
    }
}

/// The members of a JSON object in their order, with the text of each value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members<'a>(Vec<(String, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((name, Cow::Borrowed(value.get())));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'a> Members<'a> {
    pub(crate) fn parse(json: &'a str) -> Result<Members<'a>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let member = self.0.iter().rev().find(|(other, _)| other == name);
        member.map(|(_, value)| value.as_ref())
    }

    fn set(&mut self, name: &str, value: Cow<'a, str>) {
        match self.0.iter_mut().rev().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    fn to_json(&self) -> String {
        let members = self.0.iter();
        let members: Vec<String> = members
            .map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name.as_str())))
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

/// One event of a record.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    ts: i64,
    op: Cow<'a, str>,
    /// The issue.
    pub id: Cow<'a, str>,
    data: Option<&'a str>,
    patch: Option<&'a str>,
    /// The idempotency key.
    pub key: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    ts: i64,
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    patch: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    /// Reads an event.
    ///
    /// # Errors
    /// The message of the JSON parser.
    pub fn parse(json: &'a str) -> Result<Event<'a>, String> {
        let raw: RawEvent<'a> = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let text =
            |value: Option<&'a RawValue>| value.map(RawValue::get).filter(|text| *text != "null");
        Ok(Event {
            ts: raw.ts,
            op: raw.op,
            id: raw.id,
            data: text(raw.data),
            patch: text(raw.patch),
            key: raw.key,
        })
    }
}

/// The effect of `event` on an issue with the text `now`; `None` if it is absent or deleted.
#[must_use]
pub fn fold(now: Option<&str>, event: &Event<'_>) -> Effect {
    let op = event.op.as_ref();
    let Some(text) = now else {
        return match (op, event.data) {
            ("add", Some(data)) => Effect::Put(data.to_owned()),
            _ => Effect::Nothing,
        };
    };
    if op == "delete" {
        return Effect::Delete;
    }
    if let Some(data) = event.data {
        return Effect::Put(data.to_owned());
    }
    let Ok(mut issue) = Members::parse(text) else {
        return Effect::Nothing;
    };
    let time = format!("\"{}\"", rfc3339(event.ts));
    let status = issue.text("status").unwrap_or_default();
    let closed = matches!(status.as_str(), "closed" | "tombstone");
    let blocked = status == "blocked";
    match op {
        "close" if !closed => {
            issue.set("status", "\"closed\"".into());
            issue.set("closed_at", time.clone().into());
        }
        "reopen" if closed => {
            issue.set("status", "\"open\"".into());
            issue.0.retain(|(name, _)| name != "closed_at");
        }
        "set_blocked" if !closed && !blocked => issue.set("status", "\"blocked\"".into()),
        "unset_blocked" if blocked => issue.set("status", "\"open\"".into()),
        "patch" => {
            return match event.patch.map(|patch| apply_patch(issue, patch, &time)) {
                Some(Ok(text)) => Effect::Put(text),
                _ => Effect::CannotPatch,
            };
        }
        _ => return Effect::Nothing,
    }
    issue.set("updated_at", time.into());
    Effect::Put(issue.to_json())
}

#[derive(Deserialize)]
struct RawPatch<'a> {
    #[serde(borrow, default)]
    set: Members<'a>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(borrow, default)]
    remove: Members<'a>,
    #[serde(borrow, default)]
    add: Members<'a>,
    #[serde(borrow, default)]
    append: Members<'a>,
}

fn apply_patch(issue: Members<'_>, patch: &str, time: &str) -> Result<String, String> {
    let patch: RawPatch<'_> = serde_json::from_str(patch).map_err(|error| error.to_string())?;
    let RawPatch {
        set,
        unset,
        remove,
        add,
        append,
    } = patch;
    let mut issue = Members(
        issue
            .0
            .into_iter()
            .map(|(name, value)| (name, Cow::Owned(value.into_owned())))
            .collect(),
    );
    for (name, value) in &set.0 {
        issue.set(name, Cow::Owned(value.to_string()));
    }
    let touched = set.get("updated_at").is_some() || unset.iter().any(|name| name == "updated_at");
    if !touched {
        issue.set("updated_at", Cow::Owned(time.to_owned()));
    }
    issue.0.retain(|(name, _)| !unset.contains(name));
    for (kind, lists) in [remove, add, append].into_iter().enumerate() {
        for (name, values) in &lists.0 {
            let values: Vec<&RawValue> =
                serde_json::from_str(values).map_err(|error| error.to_string())?;
            let old = issue.get(name).unwrap_or("[]").to_owned();
            let old: Vec<&RawValue> =
                serde_json::from_str(&old).map_err(|error| error.to_string())?;
            let mut array: Vec<&str> = old.iter().map(|value| value.get()).collect();
            for value in values.iter().map(|value| value.get()) {
                match kind {
                    0 => array.retain(|other| !same(other, value)),
                    1 if array.iter().any(|other| same(other, value)) => {}
                    _ => array.push(value),
                }
            }
            let array = format!("[{}]", array.join(","));
            issue.set(name, Cow::Owned(array));
        }
    }
    Ok(issue.to_json())
}

/// Whether two texts mean one JSON value: an object's members count in any order, a number that is
/// no integer by its value.
fn same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    if let (Ok(one), Ok(other)) = (Members::parse(one), Members::parse(other)) {
        let sorted = |members: Members<'_>| {
            let members = members.0.into_iter();
            let mut members: Vec<(String, String)> = members
                .map(|(name, value)| (name, value.into_owned()))
                .collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            members
        };
        let (one, other) = (sorted(one), sorted(other));
        let mut pairs = one.iter().zip(&other);
        return one.len() == other.len()
            && pairs.all(|(one, other)| one.0 == other.0 && same(&one.1, &other.1));
    }
    let array = |text| serde_json::from_str::<Vec<&RawValue>>(text).ok();
    if let (Some(one), Some(other)) = (array(one), array(other)) {
        let mut pairs = one.iter().zip(&other);
        return one.len() == other.len() && pairs.all(|(one, other)| same(one.get(), other.get()));
    }
    let string = |text| serde_json::from_str::<String>(text).ok();
    if let (Some(one), Some(other)) = (string(one), string(other)) {
        return one == other;
    }
    decimal(one).is_some_and(|one| decimal(other) == Some(one))
}

/// A number that is no integer: its sign, its digits without zeros at the ends, and the power of
/// ten of the first one.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if !is_number || !text.contains(['.', 'e', 'E']) {
        return None;
    }
    let unsigned = text.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let from_first = digits.trim_start_matches('0');
    let leading = i64::try_from(digits.len() - from_first.len()).ok()?;
    let first = i64::try_from(whole.len()).ok()? - leading;
    let power = exponent.parse::<i64>().ok()?.checked_add(first)?;
    let digits = from_first.trim_end_matches('0').to_owned();
    let power = if digits.is_empty() { 0 } else { power };
    Some((text.starts_with('-'), digits, power))
}

/// `2024-01-29T14:53:20.123Z`, counted up year by year.
fn rfc3339(ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    /// Days of 400 years.
    const CYCLE: i64 = 146_097;
    let (days, rest) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let mut year = 1970 + days.div_euclid(CYCLE) * 400;
    let mut days = days.rem_euclid(CYCLE);
    let is_leap = |year: i64| {
        year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
    };
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, ms) = (rest / 1000 % 60, rest % 1000);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUE: &str = r#"{"id":"a","status":"open","n":1.10,"labels":["x"]}"#;

    fn after(now: Option<&str>, event: &str) -> Effect {
        fold(now, &Event::parse(event).unwrap())
    }

    fn with_status(status: &str) -> String {
        format!(r#"{{"id":"a","status":"{status}"}}"#)
    }

    /// The table, row by row: absent, open, blocked, closed, deleted. Absent and deleted are one.
    #[test]
    fn each_event_does_to_each_state_what_the_table_says() {
        let data = r#""data":{"id":"a","title":"new"}"#;
        let rows = [
            ("add", data, [true, true, true, true]),
            ("update", data, [false, true, true, true]),
            ("close", data, [false, true, true, true]),
            ("reopen", data, [false, true, true, true]),
            (
                "patch",
                r#""patch":{"set":{"p":1}}"#,
                [false, true, true, true],
            ),
            ("close", r#""data":null"#, [false, true, true, false]),
            ("reopen", r#""data":null"#, [false, false, false, true]),
            ("set_blocked", r#""data":null"#, [false, true, false, false]),
            (
                "unset_blocked",
                r#""data":null"#,
                [false, false, true, false],
            ),
            ("delete", r#""data":null"#, [false, true, true, true]),
        ];
        for (op, rest, effects) in rows {
            let event = format!(r#"{{"ts":0,"op":"{op}","id":"a",{rest}}}"#);
            let states = [None, Some("open"), Some("blocked"), Some("closed")];
            for (state, has_effect) in states.into_iter().zip(effects) {
                let now = state.map(with_status);
                let effect = after(now.as_deref(), &event);
                assert_eq!(
                    effect != Effect::Nothing,
                    has_effect,
                    "{event} on {state:?}"
                );
            }
        }
        let tombstone = with_status("tombstone");
        let close = r#"{"ts":0,"op":"close","id":"a","data":null}"#;
        assert_eq!(after(Some(&tombstone), close), Effect::Nothing);
    }

    #[test]
    fn a_change_keeps_order_and_spelling_of_everything_else() {
        let close = r#"{"ts":1706540000123,"op":"close","id":"a","data":null}"#;
        let closed = r#"{"id":"a","status":"closed","n":1.10,"labels":["x"],"closed_at":"2024-01-29T14:53:20.123Z","updated_at":"2024-01-29T14:53:20.123Z"}"#;
        assert_eq!(after(Some(ISSUE), close), Effect::Put(closed.to_owned()));
        let reopen = r#"{"ts":0,"op":"reopen","id":"a","data":null}"#;
        let Effect::Put(open) = after(Some(closed), reopen) else {
            panic!("it was closed")
        };
        assert!(!open.contains("closed_at") && open.contains(r#""status":"open","n":1.10"#));
    }

    #[test]
    fn a_patch_is_applied_part_by_part_or_not_at_all() {
        let patch = r#"{"ts":0,"op":"patch","id":"a","patch":{"set":{"n":2},"unset":["status"],"remove":{"labels":["x"]},"add":{"labels":["y","y"]},"append":{"comments":[1,1]}}}"#;
        let patched = r#"{"id":"a","n":2,"labels":["y"],"updated_at":"1970-01-01T00:00:00.000Z","comments":[1,1]}"#;
        assert_eq!(after(Some(ISSUE), patch), Effect::Put(patched.to_owned()));
        let wrong = r#"{"ts":0,"op":"patch","id":"a","patch":{"set":{"p":1},"add":{"n":[1]}}}"#;
        assert_eq!(after(Some(ISSUE), wrong), Effect::CannotPatch);
    }

    #[test]
    fn values_are_the_same_by_their_meaning() {
        for (one, other) in [
            ("1.10", "1.1"),
            ("1e2", "100.0"),
            ("-12.50E-3", "-0.0125"),
            ("0.0", "0e7"),
            (r#""\u0041""#, r#""A""#),
            (r#"{"a":[1.0],"b":2}"#, r#"{"b":2,"a":[1.00]}"#),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("1", "2"),
            ("1.1", "1.2"),
            ("1.1", "-1.1"),
            ("1e400", "1e401"),
            ("18446744073709551616", "18446744073709551617"),
            (r#""1""#, "1"),
            ("[1]", "[1,1]"),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            ("null", "false"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn every_state_is_kept_and_told_apart() {
        let add = |id: &str| {
            format!(r#"{{"ts":0,"op":"add","id":"{id}","data":{{"id":"{id}"}},"key":"k{id}"}}"#)
        };
        let delete = r#"{"ts":0,"op":"delete","id":"a","data":null}"#;
        let mut model = Model::default();
        let both = [add("a"), add("b")];
        model.apply(1, both.iter().map(String::as_str)).unwrap();
        model.apply(2, [delete, delete]).unwrap();
        model.apply(3, [add("a").as_str()]).unwrap();
        assert!(model.apply(3, [delete]).is_err());
        assert_eq!(model.issue("a", 1), Some((1, Some(r#"{"id":"a"}"#))));
        assert_eq!(model.issue("a", 2), Some((2, None)));
        assert_eq!(model.issue("c", 3), None);
        assert_eq!(model.changes(["a", "b"].into_iter(), 1, 3), [2, 3]);
        assert_eq!((model.key("kb"), model.keys_between(0, 3)), (Some(1), 2));
        let state = model.state(2).unwrap();
        assert_eq!((state.issues, state.without_effect), (1, 1));
        assert_eq!(state.digest, issue_digest("b", 1, r#"{"id":"b"}"#));
        let now: Vec<_> = model.issues_at(3).collect();
        assert_eq!(model.difference(3, now.clone()), None);
        assert!(model.difference(2, now).is_some());
        assert!(model.state(4).is_none());
    }
}
