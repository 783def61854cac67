//! Ranges of record numbers: how they are collected, counted, formatted and serialized.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Adds a number to ranges that end before it.
pub(crate) fn push(ranges: &mut Vec<RangeInclusive<u64>>, seq: u64) {
    match ranges.last_mut() {
        Some(last) if *last.end() + 1 == seq => *last = *last.start()..=seq,
        _ => ranges.push(seq..=seq),
    }
}

/// The ranges of these numbers.
pub(crate) fn of(numbers: BTreeSet<u64>) -> Vec<RangeInclusive<u64>> {
    let mut ranges = Vec::new();
    for seq in numbers {
        push(&mut ranges, seq);
    }
    ranges
}

/// Whether a number is in one of the ranges, which are in order.
pub(crate) fn contain(ranges: &[RangeInclusive<u64>], seq: u64) -> bool {
    let before = ranges.partition_point(|range| *range.end() < seq);
    ranges.get(before).is_some_and(|range| range.contains(&seq))
}

pub(crate) fn count(ranges: &[RangeInclusive<u64>]) -> u64 {
    let lens = ranges
        .iter()
        .map(|range| (range.end() + 1).saturating_sub(*range.start()));
    lens.sum()
}

/// `2, 5 to 9`
pub(crate) fn words(ranges: &[RangeInclusive<u64>]) -> impl fmt::Display {
    let words: Vec<String> = ranges
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first} to {last}"),
        })
        .collect();
    words.join(", ")
}

#[derive(Serialize, Deserialize)]
struct Json {
    from_seq: u64,
    through_seq: u64,
}

/// As objects with `from_seq` and `through_seq`.
pub(crate) fn serialize<S: Serializer>(
    ranges: &[RangeInclusive<u64>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(|range| Json {
        from_seq: *range.start(),
        through_seq: *range.end(),
    }))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RangeInclusive<u64>>, D::Error> {
    let ranges = Vec::<Json>::deserialize(deserializer)?;
    let ranges = ranges
        .iter()
        .map(|range| range.from_seq..=range.through_seq);
    Ok(ranges.collect())
}
