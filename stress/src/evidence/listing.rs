//! What a store lists, in the terms of the oracle. A write is known by a token in its payload, and
//! its number is its place in the list, unless the store numbers its records itself.

use std::collections::{BTreeMap, HashMap};

use crate::evidence::ids::event_id;
use crate::evidence::ledger::{Ledger, Outcome};
use crate::evidence::stored::{EventText, Place, StoredRecord};
use crate::evidence::violation::Violation;

/// The name of the list where a [`Place`] names a file.
pub const LIST: &str = "list";

/// What a store shows of itself.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a fact of its own about the store"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shows {
    /// Its list is in the order of the writes.
    pub order: bool,
    /// Its records have numbers without gaps.
    pub numbers: bool,
    /// Agents repeat a write with its key until they know that it is stored or refused.
    pub retries: bool,
    /// Nothing but a dead process or the machine makes a write fail. Elsewhere that is a matter of
    /// availability.
    pub never_fails: bool,
}

impl Shows {
    /// strand shows everything.
    pub const STRAND: Shows = Shows {
        order: true,
        numbers: true,
        retries: false,
        never_fails: true,
    };
    /// strand on etcd: numbers have gaps, and calls fail without a majority.
    pub const ETCD: Shows = Shows {
        order: true,
        numbers: false,
        retries: true,
        never_fails: false,
    };
}

/// What was found out beside the records.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// The receipts of acknowledged writes: agent and write of each.
    pub receipts: Vec<(String, (u32, u32))>,
    /// The items that agents compete for.
    pub items: Vec<Item>,
    /// The batches: agent, and first and last write of each.
    pub batches: Vec<(u32, u32, u32)>,
    /// What a follower was shown, if there was one.
    pub followed: Option<Vec<StoredRecord>>,
    /// What the examination of files and checks found.
    pub violations: Vec<Violation>,
}

/// An item that one agent may win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// Its name in the store.
    pub name: String,
    /// Every agent that was told to have won it.
    pub winners: Vec<u32>,
    /// Whether the store was asked for the owner.
    pub is_shown: bool,
    /// The store's answer.
    pub owner: Option<String>,
}

/// The text by which a write is known in whatever shows it. It ends with a letter of its own: no
/// token is the beginning of another.
#[must_use]
pub fn token(agent: u32, write: u32) -> String {
    format!("qa{agent}w{write}q")
}

/// Every token in a text: agent and write.
#[must_use]
pub fn tokens(text: &str) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("qa") {
        let rest = text.get(at + 2..).unwrap_or_default();
        let own = rest.split_once('q').and_then(|(numbers, _)| {
            let (agent, write) = numbers.split_once('w')?;
            Some((agent.parse().ok()?, write.parse().ok()?))
        });
        found.extend(own.filter(|(agent, write)| {
            rest.starts_with(token(*agent, *write).trim_start_matches("qa"))
        }));
    }
    found
}

/// One line or object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub text: String,
    /// Its own number, if the store has them.
    pub number: Option<u64>,
}

/// The entries as stored records. `payload` is what an agent gave to the store at one of its
/// writes; an entry that contains it has it unaltered.
#[must_use]
pub fn records(entries: &[Entry], payload: &dyn Fn(u32, u32) -> String) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    for entry in entries {
        // Two tokens in one entry: a write was appended to a torn one.
        let mut owners: Vec<_> = tokens(&entry.text).into_iter().map(Some).collect();
        owners.dedup();
        if owners.is_empty() {
            owners.push(None);
        }
        for owner in owners {
            let place = records.len() as u64 + 1;
            let whole = owner
                .map(|(agent, write)| payload(agent, write))
                .filter(|payload| entry.text.contains(payload.as_str()));
            let event = EventText {
                id: owner.map_or_else(
                    || entry.text.chars().take(80).collect(),
                    |(agent, write)| event_id(agent, write),
                ),
                key: None,
                json: whole.unwrap_or_else(|| entry.text.clone()),
            };
            records.push(StoredRecord {
                seq: entry.number.unwrap_or(place),
                events: vec![event],
                line: Vec::new(),
                place: Place {
                    file: LIST.to_owned(),
                    offset: place,
                },
            });
        }
    }
    records
}

/// Gives each acknowledged write the number of its record; 0 where there is none.
pub fn number(ledger: &mut Ledger, records: &[StoredRecord]) {
    let mut places: HashMap<(u32, u32), u64> = HashMap::new();
    for record in records {
        if let Some(owner) = record.owner() {
            places.entry(owner).or_insert(record.seq);
        }
    }
    for operation in &mut ledger.operations {
        if let Outcome::Acknowledged { seq, .. } = &mut operation.outcome {
            let key = (operation.agent, operation.write);
            *seq = places.get(&key).copied().unwrap_or(0);
        }
    }
}

/// How often each kind of violation was found.
#[must_use]
pub fn kinds(violations: &[Violation]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for violation in violations {
        *kinds.entry(violation.kind()).or_default() += 1;
    }
    kinds
}
