//! Whether two JSON texts mean the same value, and one spelling for all that do.

use serde_json::value::RawValue;

use crate::issues::issue::{Fields, RawFields};

/// Below this depth, only equal texts are the same: no input may exhaust the stack.
const DEPTH_MAX: u32 = 100;

/// Whether two texts mean the same JSON value. The order of an object's members does not count,
/// unless a name occurs twice. Integers are compared as they are written, other numbers as decimals
/// of any length.
pub(crate) fn same(a: &RawValue, b: &RawValue) -> bool {
    same_text(a.get(), b.get())
}

fn same_text(a: &str, b: &str) -> bool {
    // The first byte tells values of different kinds apart, without parsing.
    let kind = |text: &str| {
        text.bytes()
            .next()
            .filter(|byte| br#"{["tfn"#.contains(byte))
    };
    a == b || kind(a) == kind(b) && meaning_of_text(a) == meaning_of_text(b)
}

/// A canonical text: two values are the [`same`] if and only if these are equal.
pub(crate) fn meaning(value: &RawValue) -> String {
    meaning_of_text(value.get())
}

fn meaning_of_text(text: &str) -> String {
    let mut meaning = String::with_capacity(text.len());
    write_meaning(text, 0, &mut meaning);
    meaning
}

/// Writes the text with sorted names, and one spelling of each string and number. A text that
/// cannot be parsed, or is nested too deeply, is written as it is; it equals no canonical spelling.
fn write_meaning(text: &str, depth: u32, out: &mut String) {
    let written = match text.as_bytes().first() {
        _ if depth == DEPTH_MAX => None,
        Some(b'{') => serde_json::from_str(text)
            .ok()
            .map(|Fields(fields)| write_members(fields, depth + 1, out)),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
            .ok()
            .map(|values| {
                out.push('[');
                for value in values {
                    write_meaning(value.get(), depth + 1, out);
                    out.push(',');
                }
                out.push(']');
            }),
        Some(b'"') => serde_json::from_str::<String>(text)
            .ok()
            .map(|text| write_string(&text, out)),
        _ => number(text).map(|(negative, digits, power)| {
            out.push_str(if negative { "-" } else { "" });
            out.push_str(&digits);
            out.push('e');
            out.push_str(&power.to_string());
        }),
    };
    if written.is_none() {
        out.push_str(text);
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Writes an object with these members, sorted by name; members of one name keep their order.
fn write_members(mut members: RawFields<'_>, depth: u32, out: &mut String) {
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push('{');
    for (name, value) in members {
        write_string(&name, out);
        out.push(':');
        write_meaning(value.get(), depth, out);
        out.push(',');
    }
    out.push('}');
}

/// A canonical text of an object with these members: see [`meaning`].
pub(crate) fn meaning_of_members(members: RawFields<'_>) -> String {
    let mut meaning = String::new();
    write_members(members, 1, &mut meaning);
    meaning
}

/// A number that is not an integer: its sign, its significant digits, and the power of ten of the
/// last one. As `f64`, different numbers would be equal.
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
        let same = |a: &str, b: &str| super::same_text(a, b);
        for (a, b) in [
            ("1.10", "1.1"),
            (r#""\u0041""#, r#""A""#),
            (r#"{"a":1,"b":[ 1,2]}"#, r#"{"b":[1,2],"a":1}"#),
            ("1e2", "100.0"),
            ("-12.50E-3", "-0.0125"),
            ("0.0", "0e7"),
            ("1e400", "10.0e399"),
            (r#"["\ud800",{"a":1.0}]"#, r#"[ "\ud800", {"a":1.00} ]"#),
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
            (r#""\ud800""#, r#""\\ud800""#),
            (r#""\ud800""#, r#""\udc00""#),
            (r#"["a","b"]"#, r#"["a,b"]"#),
            (r#"[["a"],"b"]"#, r#"[["a","b"]]"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        let deep = |end: &str| format!("{}{end}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!same(&deep("1"), &deep("2")));
        assert!(same(&deep("1"), &deep("1")));
    }
}
