//! Issues as JSON lines: the file that people commit to git and other tools read.

use std::{borrow::Cow, collections::BTreeMap, io, str};

use serde_json::value::RawValue;

use crate::{
    error::json_problem,
    format::{
        i_json::{self, NESTING_MAX},
        search,
    },
    issues::{issue::Issue, issues::Issues},
};

/// Writes all issues as JSON lines, sorted by id (by bytes), each exactly as it is stored.
///
/// Equal states give equal bytes. If an issue has line breaks, which no log contains, they become
/// spaces.
///
/// # Errors
/// Those of `out`.
///
/// ```
/// use strand_core::{Issue, IssueEvent, Issues, Seq, Timestamp, write_jsonl};
///
/// let mut issues = Issues::default();
/// let issue = Issue::from_json(r#"{"id":"bd-1","title":"Mend the fence","x":1.10}"#)?;
/// issues.apply(Seq::new(1), [IssueEvent::add(issue, Timestamp::now())]);
/// let mut out = Vec::new();
/// write_jsonl(&issues, &mut out)?;
/// assert_eq!(out, b"{\"id\":\"bd-1\",\"title\":\"Mend the fence\",\"x\":1.10}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_jsonl(issues: &Issues, out: &mut impl io::Write) -> io::Result<()> {
    for (_, issue) in issues.iter() {
        out.write_all(on_one_line(issue.as_json()).as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A JSON text without line breaks. A JSON string has none, so they are only white space.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    if search::either(b'\n', b'\r', text.as_bytes()).is_none() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.replace(['\n', '\r'], " "))
    }
}

/// Whether a line has nothing but what JSON takes for white space: four characters, no others.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| b" \t\r\n".contains(byte))
}

/// Parses a line. An error says why the line is not an issue.
///
/// `strict` refuses what other programs can't read; see [`i_json`].
pub(crate) fn parse_issue(line: &[u8], strict: bool) -> Result<Issue, String> {
    let text = str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let issue = Issue::parse(text).map_err(|error| error.to_string())?;
    if strict {
        i_json::check(line, NESTING_MAX).map_err(|error| error.to_string())?;
    }
    match issue.validated_id() {
        Ok(_) => Ok(issue),
        // An object with an unreadable name seems to have no fields.
        Err(error) => Err(
            match serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
                Err(reason) => format!("a name can't be read: {}", json_problem(&reason)),
                Ok(_) => error.to_string(),
            },
        ),
    }
}
