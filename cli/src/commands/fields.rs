//! The fields of an issue that `create` and `update` check. `docs/COMMAND.md` documents them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    exit::{Exit, Failure},
    output::tell,
};

pub(super) const STATUSES: [&str; 4] = ["open", "in_progress", "blocked", "closed"];

/// Checks a value that a field is set to. Warns of what is allowed but rarely meant.
pub(crate) fn check(field: &str, value: &RawValue) -> Result<(), Failure> {
    if let Some(reason) = refusal(field, value.get()) {
        return Err(Failure::new(Exit::Refused, reason));
    }
    if let ("status", Ok(status)) = (field, serde_json::from_str::<String>(value.get()))
        && !STATUSES.contains(&&*status)
    {
        tell(&format!(
            "strand: warning: status {status:?} is none of {}; the issue is not ready until it is \
             open",
            STATUSES.join(", ")
        ));
    }
    Ok(())
}

/// Checks an element that is added to a field.
pub(crate) fn check_element(field: &str, value: &RawValue) -> Result<(), Failure> {
    match refusal(field, &format!("[{}]", value.get())) {
        Some(reason) if matches!(field, "dependencies" | "labels") => {
            Err(Failure::new(Exit::Refused, reason))
        }
        _ => Ok(()),
    }
}

/// Why a field can't have this value.
fn refusal(field: &str, json: &str) -> Option<String> {
    let text = || serde_json::from_str::<String>(json).ok();
    let expected = |what: &str| Some(format!("`{field}` is {what}, not {json}"));
    match field {
        "id" => Some("an issue keeps its id; `create` takes one with `--id`".to_owned()),
        "title" => match text() {
            None => expected("a string"),
            Some(title) if title.trim().is_empty() => Some("the title is empty".to_owned()),
            Some(title) if title.contains(['\n', '\r']) => {
                Some("the title has more than one line; put the rest into `description`".to_owned())
            }
            Some(_) => None,
        },
        "status" | "issue_type" if text().is_none_or(|text| text.trim().is_empty()) => {
            expected("a string that is not empty")
        }
        "assignee" | "description" if text().is_none() => expected("a string"),
        "priority" if serde_json::from_str::<i64>(json).is_err() => expected("a whole number"),
        "labels"
            if !serde_json::from_str::<Vec<String>>(json).is_ok_and(|names| all_named(&names)) =>
        {
            expected("an array of strings that are not empty")
        }
        "dependencies" if !serde_json::from_str::<Vec<Dependency>>(json).is_ok_and(all_whole) => {
            expected("an array of objects with `depends_on_id` and `type`, both strings")
        }
        _ => None,
    }
}

#[derive(Deserialize)]
struct Dependency {
    depends_on_id: String,
    #[serde(rename = "type")]
    kind: String,
}

fn all_named(names: &[String]) -> bool {
    names.iter().all(|name| !name.trim().is_empty())
}

fn all_whole(dependencies: Vec<Dependency>) -> bool {
    let names = dependencies
        .into_iter()
        .flat_map(|one| [one.depends_on_id, one.kind]);
    all_named(&names.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_make_sense_pass() {
        for (field, json) in [
            ("title", r#""T""#),
            ("status", r#""deferred""#),
            ("assignee", r#""""#),
            ("priority", "-1"),
            ("labels", r#"["a"]"#),
            (
                "dependencies",
                r#"[{"depends_on_id":"a","type":"blocks","issue_id":"b"}]"#,
            ),
            ("other", "null"),
        ] {
            assert_eq!(refusal(field, json), None, "{field} {json}");
        }
        for (field, json) in [
            ("id", r#""b""#),
            ("title", r#"" ""#),
            ("title", r#""a\nb""#),
            ("title", "1"),
            ("status", r#""""#),
            ("status", "null"),
            ("assignee", "7"),
            ("priority", r#""1""#),
            ("labels", r#"[""]"#),
            ("labels", r#""a""#),
            ("dependencies", r#"[{"type":"blocks"}]"#),
            ("dependencies", r#"[{"depends_on_id":"","type":"blocks"}]"#),
            ("dependencies", r#"["a"]"#),
        ] {
            assert!(refusal(field, json).is_some(), "{field} {json}");
        }
    }
}
