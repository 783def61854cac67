/// A time in the form of RFC 3339, in UTC: `2024-01-29T14:53:20.123Z`. `ts` in milliseconds since 1970.
pub(crate) fn rfc3339(ts: i64) -> String {
    let (days, ms) = (ts.div_euclid(86_400_000), ts.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms": eras of 400 years that begin in March).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The seconds since 1970 and the nanoseconds of a time in the form of RFC 3339, with any offset; `None` for other texts.
pub(crate) fn parse_rfc3339(text: &str) -> Option<(i64, u32)> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().ok()).flatten()
    };
    let marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let marked = marks
        .iter()
        .all(|(at, mark)| text.get(*at..=*at) == Some(mark));
    if !marked || !matches!(text.get(10..11), Some("T" | "t" | " ")) {
        return None;
    }
    let date = days(number(0..4)?, number(5..7)?, number(8..10)?);
    let time = (number(11..13)? * 60 + number(14..16)?) * 60 + number(17..19)?;
    let rest = text.get(19..)?;
    let (nanos, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let (digits, zone) = rest.split_at(end);
            (format!("{digits:0<9}").get(..9)?.parse().ok()?, zone)
        }
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let at = text.len().checked_sub("+00:00".len())?;
            if zone.len() != text.len() - at || zone.get(3..4) != Some(":") {
                return None;
            }
            let minutes = number(at + 1..at + 3)? * 60 + number(at + 4..at + 6)?;
            match zone.get(..1)? {
                "+" => minutes * 60,
                "-" => -minutes * 60,
                _ => return None,
            }
        }
    };
    Some((date * 86_400 + time - offset, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_706_540_000_123), "2024-01-29T14:53:20.123Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn times_are_read_with_any_offset_and_precision() {
        for ts in [
            0,
            1_706_540_000_123,
            951_782_400_000,
            -1,
            -62_135_596_800_000,
        ] {
            let (seconds, nanos) = parse_rfc3339(&rfc3339(ts)).expect("a time");
            assert_eq!(seconds * 1000 + i64::from(nanos) / 1_000_000, ts);
        }
        let known = parse_rfc3339("2025-10-12T00:43:03.453438-07:00").expect("a time");
        assert_eq!(parse_rfc3339("2025-10-12T07:43:03.453438000Z"), Some(known));
        for text in [
            "",
            "2025",
            "2025-10-12T00:43:03",
            "2025-10-12T00:43:03.",
            "now",
            "2025-10-12T00:43:03*01:00",
            "2025-10-12T00:43:03+1:00",
            "2025-10-12T00:43:03+-1:00",
            "2025-10-12T00:43:03+01:000",
            "2025-10-12T00:43:03+9000000000000000000:00",
            "2025-10-12T00:43:03+01:0é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
