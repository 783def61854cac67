//! When two JSON texts mean the same.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::issue::Fields;

/// Deeper than that, only equal texts are the same: nobody's input should exhaust the stack.
const DEPTH_MAX: u32 = 100;

/// Whether two texts mean the same JSON value. The order of an object's members does not count, unless one
/// name stands there twice. Integers are compared as they are written, other numbers as decimals of any length.
pub(crate) fn same(a: &RawValue, b: &RawValue) -> bool {
    same_text(a.get(), b.get(), 0)
}

fn same_text(a: &str, b: &str, depth: u32) -> bool {
    if a == b {
        return true;
    }
    if depth == DEPTH_MAX {
        return false;
    }
    let same = |a: &RawValue, b: &RawValue| same_text(a.get(), b.get(), depth + 1);
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            let (Some(a), Some(b)) = (members(a), members(b)) else {
                return false;
            };
            let mut pairs = a.iter().zip(&b);
            a.len() == b.len() && pairs.all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
        }
        (Some(b'['), Some(b'[')) => {
            let parse = serde_json::from_str::<Vec<&RawValue>>;
            let (Ok(a), Ok(b)) = (parse(a), parse(b)) else {
                return false;
            };
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b))
        }
        (Some(b'"'), Some(b'"')) => {
            let parse = |text| serde_json::from_str::<String>(text).ok();
            parse(a).is_some_and(|a| parse(b) == Some(a))
        }
        _ => number(a).is_some_and(|a| number(b) == Some(a)),
    }
}

/// The members in the order of their names; those of one name in their own.
fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let Fields(mut fields) = serde_json::from_str(object).ok()?;
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Some(fields)
}

/// A number that is no integer: its sign, its digits from the first to the last that is not 0, and the power of
/// ten of the last one. As `f64`, numbers would be the same that are not.
fn number(text: &str) -> Option<(bool, String, i64)> {
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None if text.contains('.') => (text, 0),
        None => return None,
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let power = power
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(zeros)?;
    let significant = significant.trim_start_matches('0');
    let power = if significant.is_empty() { 0 } else { power };
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_the_same_when_they_mean_the_same_value() {
        let same = |a: &str, b: &str| super::same_text(a, b, 0);
        for (a, b) in [
            ("1.10", "1.1"),
            (r#""\u0041""#, r#""A""#),
            (r#"{"a":1,"b":[ 1,2]}"#, r#"{"b":[1,2],"a":1}"#),
            ("1e2", "100.0"),
            ("-12.50E-3", "-0.0125"),
            ("0.0", "0e7"),
            ("1e400", "10.0e399"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("18446744073709551616", "18446744073709551617"),
            ("1e400", "1e401"),
            ("12345678901234567.1", "12345678901234567.2"),
            ("1e99999999999999999999", "1e99999999999999999998"),
            ("1.5", "-1.5"),
            ("0.0", "-0.0"),
            ("null", "false"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#),
            ("[1]", "[1,1]"),
            (r#""1""#, "1"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        let deep = |end: &str| format!("{}{end}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!same(&deep("1"), &deep("2")));
        assert!(same(&deep("1"), &deep("1")));
    }
}
