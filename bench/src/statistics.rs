//! Medians and quantiles.

/// The middle value, or the mean of the two in the middle; NaN if there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied();
    upper
        .zip(lower)
        .map_or(f64::NAN, |(upper, lower)| f64::midpoint(lower, upper))
}

/// The smallest of the sorted values that at least the share `q` of them do not exceed; NaN if
/// there is none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`q` is from 0 to 1, counts and values are far below 2^52"
)]
pub(crate) fn quantile(sorted: &[u64], q: f64) -> f64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    let index = rank.saturating_sub(1).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |value| *value as f64)
}

/// The median of the ratios of values that were measured one after the other.
pub(crate) fn median_ratio(over: &[f64], under: &[f64]) -> f64 {
    let ratios: Vec<f64> = over.iter().zip(under).map(|(a, b)| a / b).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=1_000).collect();
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.5), 500.0);
        assert_eq!(quantile(&values, 0.999), 999.0);
        assert_eq!(quantile(&values, 1.0), 1_000.0);
        assert_eq!(quantile(&[5], 0.999), 5.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn ratios_are_taken_within_a_round() {
        // The disk was ten times slower in the second round, for both.
        assert_eq!(median_ratio(&[100.0, 10.0, 90.0], &[50.0, 5.0, 45.0]), 2.0);
    }
}
