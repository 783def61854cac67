//! Reads lists and other files of a store.

use serde_json::Value;

use crate::evidence::listing::Entry;
use crate::stores::spec::{Format, List, Pattern};

/// The entries of a list.
///
/// # Errors
/// What the output should have been.
pub(super) fn entries(list: &List, output: &str) -> Result<Vec<Entry>, String> {
    let lines = output.lines().filter(|line| {
        let is_skipped = list.skip.as_ref().is_some_and(|skip| skip.is_in(line));
        !line.trim().is_empty() && !is_skipped
    });
    match list.format {
        Format::Lines => {
            let number = match list.number.as_str() {
                "" => None,
                text => {
                    let pattern = Pattern::try_from(text.to_owned());
                    Some(pattern.map_err(|error| format!("[list] number: {error}"))?)
                }
            };
            Ok(lines
                .map(|line| Entry {
                    text: line.to_owned(),
                    number: number
                        .as_ref()
                        .and_then(|number| number.find(line)?.parse().ok()),
                })
                .collect())
        }
        Format::Json => {
            let value: Value = serde_json::from_str(output)
                .map_err(|error| format!("it printed no JSON: {error}"))?;
            let items = at(&value, &list.items).and_then(Value::as_array);
            let items = items.ok_or_else(|| {
                format!("there is no array at {:?} in what it printed", list.items)
            })?;
            items.iter().map(|item| entry(list, item)).collect()
        }
        Format::Jsonl => {
            let lines = lines.map(|line| {
                let value: Value = serde_json::from_str(line)
                    .map_err(|error| format!("a line is no JSON: {error}: {line}"))?;
                entry(list, &value)
            });
            lines.collect()
        }
    }
}

fn entry(list: &List, item: &Value) -> Result<Entry, String> {
    let text = at(item, &list.text)
        .ok_or_else(|| format!("an item has nothing at {:?}: {item}", list.text))?;
    let number = match list.number.as_str() {
        "" => None,
        path => at(item, path).and_then(|number| match number {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        }),
    };
    let text = text
        .as_str()
        .map_or_else(|| text.to_string(), str::to_owned);
    Ok(Entry { text, number })
}

/// The value at a path as `a.b.0`; the empty path is the value itself.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let names = path.split('.').filter(|name| !name.is_empty());
    let mut value = value;
    for name in names {
        value = match value {
            Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
            value => value.get(name)?,
        };
    }
    Some(value)
}

/// Whether a file has its form; otherwise what is wrong.
pub(super) fn is_valid(format: Format, bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    match format {
        Format::Json => serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map(drop)
            .map_err(|error| error.to_string()),
        Format::Lines | Format::Jsonl => {
            if !text.is_empty() && !text.ends_with('\n') {
                return Err("the last line has no end".to_owned());
            }
            for (number, line) in (1..).zip(text.lines()) {
                if format == Format::Jsonl {
                    serde_json::from_str::<serde::de::IgnoredAny>(line)
                        .map_err(|error| format!("line {number}: {error}"))?;
                }
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &str) -> List {
        toml::from_str(&format!("argv = [\"x\"]\n{fields}")).expect("a list")
    }

    fn entry(text: &str, number: Option<u64>) -> Entry {
        let text = text.to_owned();
        Entry { text, number }
    }

    #[test]
    fn a_list_is_read_in_each_form() {
        let lines = list("skip = \"^ID\"\nnumber = '^(\\d+)'");
        let read = entries(&lines, "ID title\n\n7 a\nb\n").expect("lines");
        assert_eq!(read, [entry("7 a", Some(7)), entry("b", None)]);
        let json = list("format = \"json\"\nitems = \"x.all\"\ntext = \"t\"\nnumber = \"n\"");
        let text = r#"{"x":{"all":[{"t":"a","n":3},{"t":"b","n":"4"}]}}"#;
        let read = entries(&json, text).expect("JSON");
        assert_eq!(read, [entry("a", Some(3)), entry("b", Some(4))]);
        let jsonl = list("format = \"jsonl\"");
        let read = entries(&jsonl, "{\"a\":1}\n").expect("lines of JSON");
        assert_eq!(read, [entry("{\"a\":1}", None)]);
        for (list, text) in [(&json, "{"), (&json, "{}"), (&jsonl, "x\n")] {
            assert!(entries(list, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_cut_is_not_valid() {
        for format in [Format::Json, Format::Jsonl, Format::Lines] {
            let whole = "{\"a\":1}\n";
            assert_eq!(is_valid(format, whole.as_bytes()), Ok(()));
            assert!(is_valid(format, b"{\"a\":").is_err());
        }
        assert!(is_valid(Format::Jsonl, b"{\"a\":1}\n{\"b\"\n").is_err());
    }
}
