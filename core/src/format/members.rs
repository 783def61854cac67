//! The members of an object, found without parsing its values. For texts that are valid JSON; of
//! others, it finds anything. Pure.

use std::borrow::Cow;

/// The members of an object, each value as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Members<'a>(Option<&'a str>);

impl<'a> Members<'a> {
    pub(crate) fn of(object: &'a str) -> Self {
        Self(object.trim_ascii_start().strip_prefix('{'))
    }

    fn take(&mut self) -> Option<(Cow<'a, str>, &'a str)> {
        let rest = self.0.take()?.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        let end = string_end(rest.as_bytes(), 0).filter(|_| rest.starts_with('"'))?;
        let (name, rest) = rest.split_at_checked(end + 1)?;
        let rest = rest.trim_ascii_start().strip_prefix(':')?;
        let rest = rest.trim_ascii_start();
        let (value, rest) = rest.split_at_checked(value_end(rest.as_bytes())?)?;
        self.0 = Some(rest);
        let plain = name.get(1..end)?;
        let name = if plain.contains('\\') {
            Cow::Owned(serde_json::from_str(name).ok()?)
        } else {
            Cow::Borrowed(plain)
        };
        Some((name, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.take()
    }
}

/// Where the value ends that the text begins with.
fn value_end(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => Some(string_end(text, 0)? + 1),
        b'{' | b'[' => Some(closing(text.get(1..)?)? + 2),
        _ => {
            let ends =
                |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            text.iter().position(ends)
        }
    }
}

/// Where the closing brace is of an object, or the bracket of an array, whose opening one stands
/// before the text.
pub(crate) fn closing(text: &[u8]) -> Option<usize> {
    let mut depth = 1_u32;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
        at += 1;
    }
}

/// Where the closing quote is of a string whose opening one is at this place.
pub(crate) fn string_end(text: &[u8], quote: usize) -> Option<usize> {
    let mut from = quote + 1;
    loop {
        let end = from + memchr::memchr(b'"', text.get(from..)?)?;
        let backslashes = text.get(quote + 1..end)?.iter().rev();
        if backslashes.take_while(|byte| **byte == b'\\').count() % 2 == 0 {
            return Some(end);
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[a-z"\\\[\]{},: ü]{0,6}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let names = r#"[a-c"\\}]{0,2}"#;
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names, inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_members_are_those_that_a_parser_finds(value in any_value(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let found: Vec<(String, Value)> = Members::of(&text)
                .map(|(name, value)| (name.into_owned(), serde_json::from_str(value).unwrap()))
                .collect();
            let expected = value.as_object().cloned().unwrap_or_default();
            prop_assert_eq!(found, Vec::from_iter(expected));
        }

        #[test]
        fn no_text_is_refused_by_a_panic(text in r#"[{}\[\]",:\\a1 ü]{0,20}"#) {
            prop_assert!(Members::of(&text).count() <= text.len());
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_found_twice() {
        let found: Vec<_> = Members::of(r#" {"a":1 , "\u0061":"2" } "#).collect();
        assert_eq!(found, [(Cow::Borrowed("a"), "1"), ("a".into(), r#""2""#)]);
    }
}
