//! Parses events, fields and versions from arguments and standard input.

use std::io::{BufRead, IsTerminal as _, Read as _};

use serde_json::value::RawValue;
use strand_core::{Batch, IssueEvent, RECORD_BYTES_MAX, Timestamp};

use crate::{
    exit::{Exit, Failure},
    output::tell,
};

/// An empty batch with the current time and an idempotency key, if there is one.
pub(crate) fn new_batch(key: Option<String>) -> Batch {
    let batch = Batch::new();
    match key {
        Some(key) => batch.key(key),
        None => batch,
    }
}

/// Parses an event. One without `ts` gets the time `now`.
pub(crate) fn event(text: &[u8], now: Timestamp) -> Result<IssueEvent, Failure> {
    let text = std::str::from_utf8(text);
    let text = text.map_err(|error| Failure::new(Exit::Refused, format!("not UTF-8: {error}")))?;
    let event = IssueEvent::from_json(text, now);
    event.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
}

/// Says that the command reads what is typed: otherwise it would seem to hang.
pub(crate) fn say_that_it_waits() {
    if std::io::stdin().is_terminal() {
        tell("strand: reading from the terminal; end with Ctrl-D on a line of its own");
    }
}

/// Reads lines, skipping blank ones and a byte order mark. Holds one line in memory.
pub(crate) struct Lines<R> {
    input: R,
    bytes: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            bytes: Vec::new(),
            number: 0,
        }
    }

    /// The next line that is not blank, and its number, counted from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>, Failure> {
        loop {
            self.bytes.clear();
            // A record is one line, and longer than its event.
            let mut line = self.input.by_ref().take(RECORD_BYTES_MAX as u64);
            let read = line.read_until(b'\n', &mut self.bytes);
            let read = read.map_err(|error| Failure::io("cannot read the input", &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read == RECORD_BYTES_MAX && !self.bytes.ends_with(b"\n") {
                let number = self.number;
                let message = format!("line {number}: longer than a record can be");
                return Err(Failure::new(Exit::Refused, message));
            }
            if self.number == 1 && self.bytes.starts_with("\u{feff}".as_bytes()) {
                self.bytes.drain(.."\u{feff}".len());
            }
            // Blank for JSON, which has four characters of white space.
            if !self.bytes.iter().all(|byte| b" \t\r\n".contains(byte)) {
                return Ok(Some((self.number, &self.bytes)));
            }
        }
    }
}

/// A field and its JSON value.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) field: String,
    pub(crate) value: Box<RawValue>,
}

/// Parses `FIELD=JSON`.
pub(crate) fn assignment(text: &str) -> Result<Assignment, String> {
    let (field, value) = field_and_rest(text)?;
    match RawValue::from_string(value.trim_matches([' ', '\t', '\n', '\r']).to_owned()) {
        Ok(value) => Ok(Assignment {
            field: field.to_owned(),
            value,
        }),
        Err(error) => {
            // An argument is one line, whatever its number.
            let error = error
                .to_string()
                .replacen(" at line 1 column ", " at column ", 1);
            let needs = "a string needs double quotes";
            Err(format!("{value:?} is not JSON ({error}); {needs}"))
        }
    }
}

/// Parses `FIELD=TEXT`.
pub(crate) fn text_assignment(text: &str) -> Result<Assignment, String> {
    let (field, value) = field_and_rest(text)?;
    let value = serde_json::value::to_raw_value(value).map_err(|error| error.to_string())?;
    Ok(Assignment {
        field: field.to_owned(),
        value,
    })
}

fn field_and_rest(text: &str) -> Result<(&str, &str), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field, value)),
        _ => Err("expected FIELD=VALUE".to_owned()),
    }
}

/// Parses a name, which is not empty.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// An issue at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Required {
    pub(crate) id: String,
    pub(crate) version: u64,
}

/// Parses `ID=VERSION`.
pub(crate) fn required(text: &str) -> Result<Required, String> {
    // The id may contain an equals sign.
    let parsed = text.rsplit_once('=').and_then(|(id, version)| {
        let version = version.parse().ok()?;
        let id = id.to_owned();
        Some(Required { id, version })
    });
    parsed.ok_or_else(|| "expected ID=VERSION, where VERSION is a number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(7);

    #[test]
    fn an_event_without_time_gets_one_and_others_keep_theirs() {
        let close = event(br#" {"op":"close","id":"bd-1","x":1.10} "#, NOW).unwrap();
        assert_eq!((close.ts, close.id.as_str()), (NOW, "bd-1"));
        assert_eq!(close.extra[0].1.get(), "1.10");
        assert_eq!(
            event(br#"{"op":"close","id":"bd-1","ts":3}"#, NOW)
                .unwrap()
                .ts,
            3
        );
        // An inner `ts` is not the event's.
        let nested = br#"{"op":"close","id":"bd-1","x":{"ts":3}}"#;
        assert_eq!(event(nested, NOW).unwrap().ts, 7);
    }

    #[test]
    fn an_invalid_event_is_refused_with_a_reason() {
        for (text, reason) in [
            ("{}", "missing field `op`"),
            ("{ }", "missing field `op`"),
            ("[]", "invalid type"),
            ("\u{a0}{}", "expected value"),
            (
                r#"{"op":"close","id":"a","id":"b"}"#,
                "duplicate field `id`",
            ),
            (r#"{"op":"close","id":"a","x":"\ud800"}"#, "column 29"),
            ("", "EOF"),
            (r#"{"op":"shout","id":"bd-1"}"#, "unknown variant"),
            (r#"{"op":"close","id":"bd-1"} x"#, "trailing"),
        ] {
            let failure = event(text.as_bytes(), NOW).unwrap_err();
            let message = failure.describe(false);
            assert!(message.contains(reason), "{text}: {message}");
            assert_eq!(failure.exit, Exit::Refused);
        }
        let failure = event(b"\xff", NOW).unwrap_err();
        assert!(failure.describe(false).contains("utf-8"));
    }

    #[test]
    fn blank_lines_are_counted_but_skipped() {
        let mut lines = Lines::new("\u{feff}a\n\n \r\n b \n\u{a0}\nc".as_bytes());
        let mut seen = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            seen.push((number, String::from_utf8(line.to_vec()).unwrap()));
        }
        let expected = [(1, "a\n"), (4, " b \n"), (5, "\u{a0}\n"), (6, "c")]
            .map(|(n, line)| (n, line.to_owned()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let endless = std::io::repeat(b'x');
        let mut lines = Lines::new(std::io::BufReader::new(endless));
        let failure = lines.next().unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
    }

    #[test]
    fn assignments() {
        let set = assignment("a=[1, 2]").unwrap();
        assert_eq!((set.field.as_str(), set.value.get()), ("a", "[1, 2]"));
        assert_eq!(assignment("a=1.10").unwrap().value.get(), "1.10");
        assert_eq!(
            text_assignment("a=b=\"c").unwrap().value.get(),
            r#""b=\"c""#
        );
        assert!(assignment("a=open").unwrap_err().contains("double quotes"));
        for text in ["a", "=1", ""] {
            assert!(
                assignment(text).is_err() && text_assignment(text).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn an_id_may_contain_an_equals_sign() {
        let found = required("a=b=12").unwrap();
        assert_eq!((found.id.as_str(), found.version), ("a=b", 12));
        for text in ["a", "a=", "a=x", "a=-1"] {
            assert!(required(text).is_err(), "{text}");
        }
    }
}
