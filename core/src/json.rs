//! When two JSON texts mean the same.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::issue::Fields;

/// Deeper than that, only equal texts are the same: nobody's input should exhaust the stack.
const DEPTH_MAX: u32 = 100;

/// Whether two texts mean the same JSON value. The order of an object's members does not count, unless one
/// name stands there twice. Integers of any size are compared by their digits, other numbers as `f64`.
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

/// A number that is no integer.
fn number(text: &str) -> Option<f64> {
    let is_integer = text
        .bytes()
        .all(|byte| byte == b'-' || byte.is_ascii_digit());
    let number: f64 = text.parse().ok()?;
    (!is_integer && number.is_finite()).then_some(number)
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
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("18446744073709551616", "18446744073709551617"),
            ("1e400", "1e401"),
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
