//! Points in time, and RFC 3339, the form in which issues carry them.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{SignedDuration, civil::DateTime, fmt::temporal::Pieces};
use serde::{Deserialize, Serialize};

/// The first and the last year that RFC 3339 can write.
const FIRST: DateTime = DateTime::constant(0, 1, 1, 0, 0, 0, 0);
const LAST: DateTime = DateTime::constant(9999, 12, 31, 23, 59, 59, 999_999_999);
const SECONDS_OF_A_DAY: i64 = 86_400;
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A point in time: milliseconds since the start of 1970 in UTC.
///
/// Displayed in the form of RFC 3339, always in UTC and with milliseconds. A time outside of the
/// years 0 to 9999, which that form cannot express, is displayed as the nearest that it can.
///
/// ```
/// use strand_core::Timestamp;
///
/// let ts = Timestamp::from_ms(1_706_540_000_123);
/// assert_eq!(ts.to_string(), "2024-01-29T14:53:20.123Z");
/// assert_eq!(Timestamp::parse("2024-01-29T15:53:20.123+01:00"), Some(ts));
/// assert_eq!(Timestamp::parse("2024-13-29T15:53:20Z"), None);
/// assert!(Timestamp::now().as_ms() > ts.as_ms());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// So many milliseconds after the start of 1970, or before it.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start of 1970.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// The present time by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        let ms = |since: std::time::Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self(ms(since)),
            Err(before) => Self(-ms(before.duration())),
        }
    }

    /// The time so many milliseconds earlier, or the earliest there is.
    ///
    /// Example: [`Timestamp`].
    #[must_use]
    pub const fn saturating_sub_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }

    /// Reads a time in the form of RFC 3339, with any offset from UTC. What is finer than a
    /// millisecond is cut off. `None` for anything else, such as a thirteenth month.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ms = since_epoch(text)?.as_nanos().div_euclid(1_000_000);
        Some(Self(i64::try_from(ms).ok()?))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = EPOCH.saturating_add(SignedDuration::from_millis(self.0));
        write!(f, "{:.3}Z", time.clamp(FIRST, LAST))
    }
}

impl PartialEq<i64> for Timestamp {
    fn eq(&self, ms: &i64) -> bool {
        self.0 == *ms
    }
}

/// The exact time that a text in the form of RFC 3339 names, since the start of 1970.
///
/// jiff checks the ranges. It also reads forms beside RFC 3339, and at most 9 digits of a fraction,
/// so the text's shape is checked here. A leap second is the first second of the next minute.
pub(crate) fn since_epoch(text: &str) -> Option<SignedDuration> {
    let (time, rest) = text.split_at_checked("2024-01-29T14:53:20".len())?;
    let (fraction, zone) = rest.split_at_checked(rest.find(['Z', 'z', '+', '-'])?)?;
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    let time_is_right = matches!(
        shape(time).as_str(),
        "0000-00-00T00:00:00" | "0000-00-00t00:00:00" | "0000-00-00 00:00:00"
    );
    let fraction_is_right =
        fraction.is_empty() || fraction.len() > 1 && shape(fraction).trim_end_matches('0') == ".";
    let zone_is_right = matches!(shape(zone).as_str(), "Z" | "z" | "+00:00" | "-00:00");
    if !(time_is_right && fraction_is_right && zone_is_right) {
        return None;
    }
    let nanos = fraction.get(..".123456789".len()).unwrap_or(fraction);
    let text = format!("{time}{nanos}{zone}");
    let pieces = Pieces::parse(&text).ok()?;
    let offset = i64::from(pieces.to_numeric_offset()?.seconds());
    let leap = i64::from(time.ends_with(":60"));
    let local = pieces
        .date()
        .to_datetime(pieces.time()?)
        .duration_since(EPOCH);
    let utc = local + SignedDuration::from_secs(leap - offset);
    (offset.abs() < SECONDS_OF_A_DAY).then_some(utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_706_540_000_123, "2024-01-29T14:53:20.123Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            let ts = Timestamp::from_ms(ms);
            assert_eq!(ts.to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(ts));
        }
    }

    #[test]
    fn a_time_that_the_form_cannot_express_is_displayed_as_the_nearest() {
        for (ms, text) in [
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001, "0000-01-01T00:00:00.000Z"),
            (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn times_are_read_with_any_offset_and_precision() {
        let known = since_epoch("2025-10-12T07:43:03.453438000Z");
        assert!(known.is_some());
        for text in [
            "2025-10-12T00:43:03.453438-07:00",
            "2025-10-12 07:43:03.453438z",
            "2025-10-12t07:43:03.453438-00:00",
            "2025-10-13T07:42:03.45343800000000000+23:59",
        ] {
            assert_eq!(since_epoch(text), known, "{text}");
        }
        let before = Timestamp::parse("1969-12-31T23:59:59.9999Z");
        assert_eq!(before, Some(Timestamp::from_ms(-1)));
        let extremes = ["0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59.9-23:59"];
        assert!(extremes.map(since_epoch).iter().all(Option::is_some));
    }

    #[test]
    fn a_leap_second_is_the_first_of_the_next_minute() {
        for (leap, next) in [
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2016-12-31T15:59:60.25-08:00", "2017-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(since_epoch(leap), since_epoch(next));
            assert!(since_epoch(leap) > since_epoch("2016-12-31T23:59:59.9Z"));
        }
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "2025",
            "2025-10-12",
            "2025-10-12T00:43Z",
            "20251012T004303Z",
            "2025-10-12T00:43:03",
            "2025-10-12T00:43:03.",
            "2025-10-12T00:43:03.Z",
            "2025-10-12T00:43:03,5Z",
            "2025-10-12T00:43:03.5.5Z",
            "2025-10-12T00:43:03Z[UTC]",
            "now",
            "2025-10-12T00:43:03*01:00",
            "2025-10-12T00:43:03+01",
            "2025-10-12T00:43:03+1:00",
            "2025-10-12T00:43:03+-1:00",
            "2025-10-12T00:43:03+01:000",
            "2025-10-12T00:43:03+9000000000000000000:00",
            "2025-10-12T00:43:03+01:0é",
            "2025-10-12T00:43:0é.Z",
            "2025-00-12T00:43:03Z",
            "2025-13-12T00:43:03Z",
            "2025-02-29T00:43:03Z",
            "2025-10-00T00:43:03Z",
            "2025-10-12T24:00:00Z",
            "2025-10-12T99:43:03Z",
            "2025-10-12T00:60:03Z",
            "2025-10-12T00:43:61Z",
            "2025-10-12T00:43:03+24:00",
            "2025-10-12T00:43:03+99:00",
            "2025-10-12T00:43:03+01:60",
        ] {
            assert_eq!(since_epoch(text), None, "{text}");
        }
    }
}
