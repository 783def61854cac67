//! `show`, `list` and `ready`.

use std::path::Path;

use serde::Serialize;
use strand_core::{Issue, Issues, PointReader, Version, Versioned};

use super::{fields::STATUSES, open};
use crate::{
    args::{List, Ready, Show},
    exit::{Exit, Failure},
    filter::is_free,
    output::{Output, tell},
    remote,
    table::{columns, highlighted, printable, with_names},
};

pub(crate) fn show(dir: &Path, args: &Show, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Shown<'a> {
        id: &'a str,
        version: Version,
        blocked_by: &'a [String],
        issue: &'a Issue,
    }
    out.page();
    for (number, id) in args.ids.iter().enumerate() {
        let Some((issue, version, blocked_by)) = found(dir, id)? else {
            let missing = format!("there is no issue {id:?}");
            return Err(Failure::new(Exit::NotFound, missing));
        };
        let shown = Shown {
            id,
            version,
            blocked_by: &blocked_by,
            issue: &issue,
        };
        if number > 0 && !out.json {
            out.line("")?;
        }
        let coloured = out.coloured;
        out.result(&shown, || {
            let fields = fields(&issue, version, &blocked_by);
            if coloured {
                with_names(&fields)
            } else {
                fields
            }
        })?;
    }
    Ok(())
}

/// An issue, its version, and the issues that block it.
fn found(dir: &Path, id: &str) -> Result<Option<(Issue, Version, Vec<String>)>, Failure> {
    if remote::address(dir)?.is_some() {
        let issues = open::issues(dir)?;
        let blockers = issues.blockers(id).into_iter().map(str::to_owned);
        let found = issues.get(id).cloned().zip(issues.version(id));
        return Ok(found.map(|(issue, version)| (issue, version, blockers.collect())));
    }
    let mut issues = PointReader::open(dir)?;
    let Some(Versioned { issue, version, .. }) = issues.get(id)? else {
        return Ok(None);
    };
    Ok(Some((issue, version, issues.blockers(id)?)))
}

/// The fields of an issue in their order, then its version and what blocks it.
fn fields(issue: &Issue, version: Version, blocked_by: &[String]) -> String {
    let field = |(name, value): (std::borrow::Cow<'_, str>, &serde_json::value::RawValue)| {
        let text = serde_json::from_str::<String>(value.get());
        let text = text.unwrap_or_else(|_| value.get().to_owned());
        [printable(&name), printable(&text)]
    };
    let mut rows: Vec<[String; 2]> = issue.fields().into_iter().map(field).collect();
    rows.push(["version:".to_owned(), version.to_string()]);
    if !blocked_by.is_empty() {
        rows.push(["blocked by:".to_owned(), printable(&blocked_by.join(", "))]);
    }
    columns(rows)
}

pub(crate) fn list(dir: &Path, args: &List, out: &mut Output) -> Result<(), Failure> {
    let status = args.status.as_deref();
    let issues = match status {
        None | Some("closed" | "tombstone") => open::issues(dir)?,
        Some(_) => open::unclosed(dir)?,
    };
    let mut found = args.wanted.list(&issues, status);
    if !out.json {
        note_mistakes(args, &found);
    }
    if let Some(field) = &args.sort {
        found.sort_by_cached_key(|(_, issue)| sort_key(issue, field));
    }
    if args.reverse {
        found.reverse();
    }
    if args.columns.is_empty() || out.json {
        return print(&issues, &found, args.limit, out);
    }
    let head = args.columns.iter().map(|name| name.to_uppercase());
    let mut rows: Vec<Vec<String>> = vec![head.collect()];
    let found = found.iter().take(args.limit.unwrap_or(usize::MAX));
    rows.extend(found.clone().map(|(_, issue)| {
        let cells = args.columns.iter().map(|name| cell(issue, name));
        cells.collect()
    }));
    print_table(&columns(rows), found, out)
}

/// Names that no issue has are probably mistyped.
fn note_mistakes(args: &List, found: &[(&str, &Issue)]) {
    let unknown = |status: &&str| !STATUSES.contains(status) && *status != "tombstone";
    if found.is_empty()
        && let Some(status) = args.status.as_deref().filter(unknown)
    {
        let usual = STATUSES.join(", ");
        tell(&format!(
            "strand: no issue has the status {status:?}; usual ones are {usual}"
        ));
    }
    for name in args.columns.iter().chain(&args.sort) {
        let has = |(_, issue): &(&str, &Issue)| issue.get(field_name(name)).is_some();
        if !found.is_empty() && !found.iter().any(has) {
            tell(&format!(
                "strand: none of these issues has a field {name:?}"
            ));
        }
    }
}

fn print_table<'a>(
    table: &str,
    issues: impl Iterator<Item = &'a (&'a str, &'a Issue)>,
    out: &mut Output,
) -> Result<(), Failure> {
    out.page();
    if out.coloured {
        let statuses = issues.map(|(_, issue)| issue.status());
        return out.line(highlighted(table, statuses));
    }
    out.line(table)
}

/// Whether the field is missing, its number, and its text: so that missing ones come last.
fn sort_key(issue: &Issue, field: &str) -> (bool, i64, String) {
    let field = field_name(field);
    (
        issue.get(field).is_none(),
        issue.field(field).unwrap_or_default(),
        cell(issue, field),
    )
}

/// The name in the issue of a column's name.
fn field_name(name: &str) -> &str {
    match name {
        "type" => "issue_type",
        name => name,
    }
}

/// A field as text: a string without quotes, everything else as JSON.
fn cell(issue: &Issue, name: &str) -> String {
    let value = issue.get(field_name(name)).map_or("", |value| value.get());
    let text = serde_json::from_str::<String>(value);
    printable(&text.unwrap_or_else(|_| value.to_owned()))
}

pub(crate) fn ready(dir: &Path, args: &Ready, out: &mut Output) -> Result<(), Failure> {
    let issues = open::unclosed(dir)?;
    let mut found = args.wanted.ready(&issues);
    found.retain(|(_, issue)| !args.free || is_free(issue));
    print(&issues, &found, args.limit, out)
}

fn print(
    issues: &Issues,
    found: &[(&str, &Issue)],
    limit: Option<usize>,
    out: &mut Output,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Listed<'a> {
        id: &'a str,
        version: Option<Version>,
        issue: &'a Issue,
    }
    let found = found.iter().take(limit.unwrap_or(usize::MAX));
    if !out.json {
        return print_table(&table(found.clone()), found, out);
    }
    for (id, issue) in found {
        let version = issues.version(id);
        out.result(&Listed { id, version, issue }, String::new)?;
        if out.is_closed() {
            break;
        }
    }
    Ok(())
}

fn table<'a>(issues: impl Iterator<Item = &'a (&'a str, &'a Issue)>) -> String {
    let head = ["ID", "STATUS", "PRIORITY", "TYPE", "ASSIGNEE", "TITLE"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(issues.map(|(id, issue)| {
        // Parsed once for all cells.
        let fields = issue.fields();
        let value = |name: &str| {
            let field = fields.iter().rev().find(|(field, _)| field == name);
            field.map_or("", |(_, value)| value.get())
        };
        let text = |name| {
            let text = serde_json::from_str::<String>(value(name));
            printable(&text.unwrap_or_default())
        };
        let priority = serde_json::from_str::<i64>(value("priority"));
        [
            printable(id),
            text("status"),
            priority.map_or_else(|_| String::new(), |priority| priority.to_string()),
            text("issue_type"),
            text("assignee"),
            text("title"),
        ]
    }));
    columns(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_shown_unquoted_and_other_values_as_json() {
        let json = r#"{"id":"a","title":"A \"b\"\n\u001b","x":1.10,"labels":["l"]}"#;
        let text = fields(
            &Issue::from_json(json).unwrap(),
            Version::new(7),
            &["b".to_owned(), "c".to_owned()],
        );
        let expected = "id           a\n\
                        title        A \"b\"\\n\\u{1b}\n\
                        x            1.10\n\
                        labels       [\"l\"]\n\
                        version:     7\n\
                        blocked by:  b, c\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_table_has_a_head_and_leaves_missing_fields_empty() {
        let issue = Issue::from_json(r#"{"id":"a","title":"T","priority":0}"#).unwrap();
        let text = table([("a", &issue)].iter());
        let expected = "ID  STATUS  PRIORITY  TYPE  ASSIGNEE  TITLE\n\
                        a           0                         T\n";
        assert_eq!(text, expected);
    }
}
