//! What a text must be besides JSON so that other programs read it, too. Takes valid JSON.

use std::sync::LazyLock;

use crate::{
    error::InvalidEvent,
    format::search::{self, Finder},
};

/// How deep objects and arrays of an issue may be nested. Parsers of other programs end at 128
/// (serde's), 256 (jq's) or about 1,000 (Python's), counted from the record's own object.
pub(crate) const NESTING_MAX: usize = 100;
/// The same for a record's payload, in which an issue, or a value of one, is nested.
pub(crate) const PAYLOAD_NESTING_MAX: usize = NESTING_MAX + 10;
/// The members of a record beside its payload's.
pub(crate) const RESERVED: [&str; 4] = ["crc", "seq", "synced", "batch"];
/// What takes the place of half a surrogate pair.
const REPLACEMENT: &[u8] = br"\ufffd";

/// Refuses half a surrogate pair, which no other program needs to accept (RFC 7493), and deep
/// nesting.
pub(crate) fn check(text: &[u8], nesting_max: usize) -> Result<(), InvalidEvent> {
    if let Some(at) = lone_surrogate(text, 0) {
        return Err(InvalidEvent::LoneSurrogate { column: at + 1 });
    }
    if is_deeper_than(text, nesting_max) {
        return Err(InvalidEvent::TooDeep { max: nesting_max });
    }
    Ok(())
}

/// The offset of the first escape, from this one on, that is half a surrogate pair.
fn lone_surrogate(text: &[u8], mut from: usize) -> Option<usize> {
    loop {
        // Only strings have backslashes.
        let at = from + search::byte(b'\\', text.get(from..)?)?;
        from = at
            + match (unit(text, at), unit(text, at + 6)) {
                (None, _) => 2,
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => return Some(at),
                (Some(_), _) => 6,
            };
    }
}

/// The UTF-16 code unit that is escaped at this offset.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Writes U+FFFD over each half of a surrogate pair. Returns their number.
pub(crate) fn replace_lone_surrogates(text: &mut [u8]) -> u64 {
    let (mut count, mut from) = (0, 0);
    while let Some(at) = lone_surrogate(text, from) {
        from = at + REPLACEMENT.len();
        if let Some(escape) = text.get_mut(at..from) {
            escape.copy_from_slice(REPLACEMENT);
        }
        count += 1;
    }
    count
}

fn is_deeper_than(text: &[u8], max: usize) -> bool {
    let mut rest = text;
    for _ in 0..=max {
        match search::either(b'{', b'[', rest) {
            Some(at) => rest = rest.get(at + 1..).unwrap_or_default(),
            None => return false,
        }
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in outside_strings(text).map(|(_, byte)| byte) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = depth.max(deepest);
    }
    deepest > max
}

/// The bytes outside of strings, and the quotes at the start of each, with their offsets.
fn outside_strings(text: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let (mut in_string, mut escaped) = (false, false);
    text.iter().copied().enumerate().filter(move |(_, byte)| {
        let is_outside = !in_string;
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else {
            in_string = *byte == b'"';
        }
        is_outside
    })
}

/// A name of [`RESERVED`] among the members of this object.
pub(crate) fn reserved_member(text: &[u8]) -> Option<&'static str> {
    /// Made once: that takes longer than to search a text with them.
    static QUOTED: LazyLock<[Finder<'static>; 4]> =
        LazyLock::new(|| RESERVED.map(|name| Finder::new(format!("\"{name}\"").into_bytes())));
    let mut names = RESERVED.into_iter().zip(&*QUOTED);
    let found =
        names.find(|(_, quoted)| quoted.find(text).is_some() && has_member(text, quoted.needle()));
    found.map(|(name, _)| name)
}

fn has_member(object: &[u8], quoted: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut named = false;
    for (at, byte) in outside_strings(object) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' if depth == 1 => {
                let from = object.get(at..).unwrap_or_default();
                named = from.starts_with(quoted);
            }
            b':' if depth == 1 && named => return true,
            b',' => named = false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_is_found_where_it_is() {
        for (text, at) in [
            (r#""\ud800""#, Some(1)),
            (r#""a\udfff""#, Some(2)),
            (r#"["\\","\uD834\uDD1E","\ud834\u0041"]"#, Some(22)),
            (r#""\udd1e\ud834""#, Some(1)),
            (r#""\ud834\\ud834""#, Some(1)),
            (r#""\\ud800""#, None),
            (r#""\\\ud800""#, Some(3)),
            (r#""\ud834\udd1e\uffff\u0000""#, None),
            ("{}", None),
        ] {
            assert_eq!(lone_surrogate(text.as_bytes(), 0), at, "{text}");
        }
        let mut text = *br#"["\ud800","\ud834\udd1e\udd1e"]"#;
        assert_eq!(replace_lone_surrogates(&mut text), 2);
        assert_eq!(&text, br#"["\ufffd","\ud834\udd1e\ufffd"]"#);
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_deeper_than(nested(7).as_bytes(), 7));
        assert!(is_deeper_than(nested(8).as_bytes(), 7));
        assert!(!is_deeper_than(
            br#"["[[[","\"[[[[[",[],[],{},{"a":[]}]"#,
            3
        ));
    }

    #[test]
    fn only_a_member_of_the_object_itself_is_reserved() {
        for text in [
            r#"{"a":1,"seq":5}"#,
            r#"{"crc" :1}"#,
            r#"{"a":{},"batch":[]}"#,
        ] {
            assert!(reserved_member(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            r#"{"a":{"seq":5}}"#,
            r#"{"a":"seq"}"#,
            r#"{"a":"\"seq\":"}"#,
            r#"{"a":["crc",{"crc":1}],"b":"batch"}"#,
            r#"{"sequence":1}"#,
        ] {
            assert_eq!(reserved_member(text.as_bytes()), None, "{text}");
        }
    }
}
