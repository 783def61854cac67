//! Ranges of record numbers: how they are collected, counted, formatted and serialized.

use std::{fmt, ops::RangeInclusive};

use serde::{Serialize, Serializer};

/// Adds a number to ranges that end before it.
pub(crate) fn push(ranges: &mut Vec<RangeInclusive<u64>>, seq: u64) {
    match ranges.last_mut() {
        Some(last) if *last.end() + 1 == seq => *last = *last.start()..=seq,
        _ => ranges.push(seq..=seq),
    }
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

/// As objects with `from_seq` and `through_seq`.
pub(crate) fn serialize<S: Serializer>(
    ranges: &[RangeInclusive<u64>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Json {
        from_seq: u64,
        through_seq: u64,
    }
    serializer.collect_seq(ranges.iter().map(|range| Json {
        from_seq: *range.start(),
        through_seq: *range.end(),
    }))
}
