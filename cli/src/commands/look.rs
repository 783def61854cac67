//! `show`, `list` and `ready`.

use std::{ops::ControlFlow, path::Path};

use clap::builder::styling::Style;
use serde::Serialize;
use strand_core::{Issue, Issues, PointReader, Version, Versioned};

use super::{fields::STATUSES, open};
use crate::{
    args::{List, Ready, Show},
    exit::{Exit, Failure},
    filter::is_free,
    output::{Output, tell},
    remote,
    table::{Widths, columns, printable, style_of, with_names},
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
        let text = string(value.get()).unwrap_or_else(|| value.get().to_owned());
        [printable(&name), printable(&text)]
    };
    let mut rows: Vec<[String; 2]> = issue.fields().into_iter().map(field).collect();
    rows.push(["version:".to_owned(), version.to_string()]);
    if !blocked_by.is_empty() {
        rows.push(["blocked by:".to_owned(), printable(&blocked_by.join(", "))]);
    }
    columns(&rows)
}

/// Goes through issues in their order, until the function breaks.
type Each<'a> = dyn Fn(&mut Look<'_>) -> Result<(), Failure> + 'a;
type Look<'a> = dyn FnMut(&str, Option<Version>, &Issue) -> ControlFlow<()> + 'a;

pub(crate) fn list(dir: &Path, args: &List, out: &mut Output) -> Result<(), Failure> {
    let status = args.status.as_deref();
    let may_be_closed = matches!(status, None | Some("closed" | "tombstone"));
    if may_be_closed && args.sort.is_none() && !args.reverse && remote::address(dir)?.is_none() {
        // There may be more than fits into memory.
        let each = |look: &mut Look<'_>| {
            Issues::each(dir, |id, version, issue| {
                if args.wanted.lists(id, issue, status) {
                    look(id, Some(version), issue)
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok(())
        };
        return list_each(&each, args, out);
    }
    let issues = if may_be_closed {
        open::issues(dir)?
    } else {
        open::unclosed(dir)?
    };
    let mut found = args.wanted.list(&issues, status);
    if let Some(field) = &args.sort {
        found.sort_by_cached_key(|(_, issue)| sort_key(issue, field));
    }
    if args.reverse {
        found.reverse();
    }
    let each = |look: &mut Look<'_>| {
        each_of(&issues, &found, look);
        Ok(())
    };
    list_each(&each, args, out)
}

fn list_each(each: &Each<'_>, args: &List, out: &mut Output) -> Result<(), Failure> {
    if !out.json {
        note_mistakes(args, each)?;
    }
    print(each, &args.columns, args.limit, out)
}

fn each_of(issues: &Issues, found: &[(&str, &Issue)], look: &mut Look<'_>) {
    for (id, issue) in found {
        if look(id, issues.version(id), issue).is_break() {
            break;
        }
    }
}

/// Names that no issue has are probably mistyped.
fn note_mistakes(args: &List, each: &Each<'_>) -> Result<(), Failure> {
    let unknown = |status: &&str| !STATUSES.contains(status) && *status != "tombstone";
    let unknown = args.status.as_deref().filter(unknown);
    let mut names: Vec<&String> = args.columns.iter().chain(&args.sort).collect();
    if unknown.is_none() && names.is_empty() {
        return Ok(());
    }
    let mut is_empty = true;
    each(&mut |_, _, issue| {
        is_empty = false;
        names.retain(|name| issue.get(field_name(name)).is_none());
        if names.is_empty() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if !is_empty {
        for name in names {
            tell(&format!(
                "strand: none of these issues has a field {name:?}"
            ));
        }
    } else if let Some(status) = unknown {
        let usual = STATUSES.join(", ");
        tell(&format!(
            "strand: no issue has the status {status:?}; usual ones are {usual}"
        ));
    }
    Ok(())
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
    printable(&string(value).unwrap_or_else(|| value.to_owned()))
}

/// The string that this JSON is. Everything else is left alone: to refuse it as a string takes the
/// parser longer than to read one.
fn string(json: &str) -> Option<String> {
    let is_string = json.starts_with('"');
    is_string.then(|| serde_json::from_str(json).ok()).flatten()
}

pub(crate) fn ready(dir: &Path, args: &Ready, out: &mut Output) -> Result<(), Failure> {
    let issues = open::unclosed(dir)?;
    let mut found = args.wanted.ready(&issues);
    found.retain(|(_, issue)| !args.free || is_free(issue));
    let each = |look: &mut Look<'_>| {
        each_of(&issues, &found, look);
        Ok(())
    };
    print(&each, &[], args.limit, out)
}

/// So many bytes of the rows of a table are kept in memory.
const ROWS_BYTES_MAX: usize = 256 << 10;

/// Prints issues: each one as a line of JSON, or as a row with these columns, or the usual ones.
fn print(
    each: &Each<'_>,
    columns: &[String],
    limit: Option<usize>,
    out: &mut Output,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Listed<'a> {
        id: &'a str,
        version: Option<Version>,
        issue: &'a Issue,
    }
    let each = |look: &mut Look<'_>| {
        let mut left = limit.unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(());
        }
        each(&mut |id, version, issue| {
            left -= 1;
            look(id, version, issue)?;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    let mut printed = Ok(());
    let mut put = |line: Result<(), Failure>, is_closed: bool| {
        printed = line;
        if printed.is_err() || is_closed {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    if out.json {
        each(&mut |id, version, issue| {
            let line = out.result(&Listed { id, version, issue }, String::new);
            put(line, out.is_closed())
        })?;
        return printed;
    }
    // Once for the widths of the columns, and once more for the rows, unless there are only a few.
    let head = head(columns);
    let mut widths = Widths::default();
    widths.fit(&head);
    let coloured = out.coloured;
    let style_of = |issue: &Issue| {
        if coloured {
            style_of(issue.status().as_deref())
        } else {
            Style::new()
        }
    };
    let (mut kept, mut bytes) = (Some(Vec::new()), 0);
    each(&mut |id, _, issue| {
        let cells = row(id, issue, columns);
        widths.fit(&cells);
        bytes += cells.iter().map(String::len).sum::<usize>();
        if let Some(rows) = kept.as_mut().filter(|_| bytes <= ROWS_BYTES_MAX) {
            rows.push((style_of(issue), cells));
        } else {
            kept = None;
        }
        ControlFlow::Continue(())
    })?;
    out.page();
    out.line(out.styled(Style::new().bold(), &widths.line(&head)))?;
    let mut line = |style: Style, cells: &[String]| {
        let line = out.styled(style, &widths.line(cells));
        put(out.line(line), out.is_closed())
    };
    if let Some(rows) = kept {
        for (style, cells) in &rows {
            if line(*style, cells).is_break() {
                break;
            }
        }
    } else {
        each(&mut |id, _, issue| line(style_of(issue), &row(id, issue, columns)))?;
    }
    printed
}

fn head(columns: &[String]) -> Vec<String> {
    if columns.is_empty() {
        return ["ID", "STATUS", "PRIORITY", "TYPE", "ASSIGNEE", "TITLE"]
            .map(str::to_owned)
            .to_vec();
    }
    columns.iter().map(|name| name.to_uppercase()).collect()
}

fn row(id: &str, issue: &Issue, columns: &[String]) -> Vec<String> {
    if !columns.is_empty() {
        return columns.iter().map(|name| cell(issue, name)).collect();
    }
    // Parsed once for all cells.
    let fields = issue.fields();
    let value = |name: &str| {
        let field = fields.iter().rev().find(|(field, _)| field == name);
        field.map_or("", |(_, value)| value.get())
    };
    let text = |name| printable(&string(value(name)).unwrap_or_default());
    let priority = Some(value("priority")).filter(|priority| !priority.is_empty());
    let priority = priority.and_then(|priority| serde_json::from_str::<i64>(priority).ok());
    vec![
        printable(id),
        text("status"),
        priority.map_or_else(String::new, |priority| priority.to_string()),
        text("issue_type"),
        text("assignee"),
        text("title"),
    ]
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
        let rows = vec![head(&[]), row("a", &issue, &[])];
        let text = columns(&rows);
        let expected = "ID  STATUS  PRIORITY  TYPE  ASSIGNEE  TITLE\n\
                        a           0                         T\n";
        assert_eq!(text, expected);
    }
}
