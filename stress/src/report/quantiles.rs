//! Distributions of durations.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::run::config::TIMEOUT_S_MAX;

/// The points of a distribution that are reported.
pub const SHARES: [f64; 11] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0,
];
/// A distribution of durations in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A point of a distribution: this share of the durations is at most `us`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Share {
    /// From 0, the shortest, to 1, the longest.
    pub share: f64,
    /// Microseconds.
    pub us: f64,
}

/// Durations of one kind, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Durations {
    /// Sum.
    pub total: f64,
    /// Mean.
    pub mean: f64,
    /// The longest.
    pub max: f64,
}

pub(super) fn durations(total_ns: u64, number: u64, longest_ns: u64) -> Durations {
    let total = micros(total_ns);
    Durations {
        total,
        mean: ratio(total, count(number)),
        max: micros(longest_ns),
    }
}

fn histogram(all_ns: impl Iterator<Item = u64>) -> Option<Histogram<u64>> {
    const SIGNIFICANT_DIGITS: u8 = 3;
    const LONGEST_NS: u64 = TIMEOUT_S_MAX * 1_000_000_000;
    let bounded = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
    let mut histogram = bounded.ok()?;
    for ns in all_ns {
        histogram.saturating_record(ns);
    }
    Some(histogram)
}

/// The points at [`SHARES`]; none if there are no durations.
pub(super) fn distribution(all_ns: impl Iterator<Item = u64>) -> Vec<Share> {
    let histogram = histogram(all_ns).filter(|histogram| !histogram.is_empty());
    let shares = |histogram: Histogram<u64>| {
        let at = |share| Share {
            share,
            us: micros(histogram.value_at_quantile(share)),
        };
        SHARES.map(at).to_vec()
    };
    histogram.map_or_else(Vec::new, shares)
}

pub(crate) fn quantiles(all_ns: impl Iterator<Item = u64>) -> Quantiles {
    let Some(histogram) = histogram(all_ns) else {
        return Quantiles::default();
    };
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    Quantiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max()),
    }
}

pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

pub(super) fn micros(ns: u64) -> f64 {
    count(ns) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "for people; exact up to 2^53")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_durations() {
        let q = quantiles((1..=1_000).map(|us| us * 1_000));
        for (found, expected) in [
            (q.p50, 500.0),
            (q.p90, 900.0),
            (q.p99, 990.0),
            (q.p999, 999.0),
            (q.max, 1_000.0),
        ] {
            assert!((found - expected).abs() <= 1.0, "{q:?}");
        }
        assert_eq!(quantiles(std::iter::empty()), Quantiles::default());
    }
}
