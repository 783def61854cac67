//! The members of an object, found without parsing its values. For texts that are valid JSON; of
//! others, it finds anything. Pure.

use std::borrow::Cow;

use crate::format::search::either;

/// The members of an object, each value as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Members<'a> {
    rest: Option<&'a str>,
    is_whole: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn of(object: &'a str) -> Self {
        Self {
            rest: object.trim_ascii_start().strip_prefix('{'),
            is_whole: false,
        }
    }

    /// Whether all members were found. None is found from a name on that is no text, since it has
    /// half a surrogate pair.
    pub(crate) fn were_whole(&self) -> bool {
        self.is_whole
    }

    fn take(&mut self) -> Option<(Cow<'a, str>, &'a str)> {
        let text = self.rest.take()?;
        let bytes = text.as_bytes();
        let mut at = token(bytes, 0);
        if bytes.get(at) == Some(&b',') {
            at = token(bytes, at + 1);
        }
        self.is_whole = bytes.get(at) == Some(&b'}');
        let name = (bytes.get(at) == Some(&b'"')).then_some(at)?;
        let (name_end, is_plain) = string(bytes, name)?;
        let colon = token(bytes, name_end + 1);
        (bytes.get(colon) == Some(&b':')).then_some(())?;
        let value = token(bytes, colon + 1);
        let value_end = value + value_end(bytes.get(value..)?)?;
        self.rest = text.get(value_end..);
        let name = if is_plain {
            Cow::Borrowed(text.get(name + 1..name_end)?)
        } else {
            Cow::Owned(serde_json::from_str(text.get(name..=name_end)?).ok()?)
        };
        Some((name, text.get(value..value_end)?))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.take()
    }
}

/// Where white space from this place on ends.
fn token(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The string that the text begins with, and what follows. `None` if it has escapes.
pub(crate) fn plain_string(text: &[u8]) -> Option<(&str, &[u8])> {
    if !text.starts_with(b"\"") {
        return None;
    }
    let (end, is_plain) = string(text, 0)?;
    let text_of_it = text.get(1..end).filter(|_| is_plain)?;
    Some((std::str::from_utf8(text_of_it).ok()?, text.get(end + 1..)?))
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
    Some(string(text, quote)?.0)
}

/// As [`string_end`], and whether the string has no escapes.
fn string(text: &[u8], quote: usize) -> Option<(usize, bool)> {
    let (mut at, mut is_plain) = (quote + 1, true);
    loop {
        at += special(text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some((at, is_plain));
        }
        is_plain = false;
        at += 2; // What is escaped ends nothing.
    }
}

/// Where the first quote or backslash is.
fn special(text: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    /// The lowest bit that is set is in the first byte of this value.
    fn of(word: u64, byte: u8) -> u64 {
        let zeros = word ^ (EACH * u64::from(byte));
        zeros.wrapping_sub(EACH) & !zeros & EACH << 7
    }
    // Most strings are short, and found sooner than a search would begin.
    let (words, _) = text.as_chunks::<8>();
    let mut from = 0;
    for word in words.iter().take(2) {
        let word = u64::from_le_bytes(*word);
        let found = of(word, b'"') | of(word, b'\\');
        if found != 0 {
            return Some(from + found.trailing_zeros() as usize / 8);
        }
        from += 8;
    }
    Some(from + either(b'"', b'\\', text.get(from..)?)?)
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
