//! Arguments with placeholders: `{store}`, `{payload:sql}`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::run::config::shell_word;

/// The values of placeholders, by name.
pub(super) type Values = BTreeMap<&'static str, String>;

/// Every placeholder that there is, for messages.
const NAMES: [&str; 16] = [
    "store", "run", "work", "spec", "token", "payload", "agent", "write", "item", "receipt",
    "export", "witness", "old", "new", "writes", "from",
];

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(&'static str, Filter),
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Plain,
    /// Within the quotes of an SQL string.
    Sql,
    /// Within the quotes of a JSON string.
    Json,
    /// One word of a shell.
    Shell,
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once('{') {
            let inner = behind.split_once('}').filter(|(inner, _)| {
                let (name, filter) = inner.split_once(':').unwrap_or((inner, "x"));
                let is_word = |text: &str| {
                    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase())
                };
                // `${x}` is a shell's.
                is_word(name) && is_word(filter) && !before.ends_with('$')
            });
            let Some((inner, behind_it)) = inner else {
                parts.push(Part::Text(format!("{before}{{")));
                rest = behind;
                continue;
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::parse(inner)?);
            rest = behind_it;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template(parts))
    }
}

impl Part {
    fn parse(inner: &str) -> Result<Part, String> {
        let (name, filter) = inner.split_once(':').unwrap_or((inner, ""));
        let known = NAMES.into_iter().find(|known| *known == name);
        let known = known.ok_or_else(|| {
            format!(
                "there is no placeholder {{{name}}}; there are {}",
                NAMES.join(", ")
            )
        })?;
        let filter = match filter {
            "" => Filter::Plain,
            "sql" => Filter::Sql,
            "json" => Filter::Json,
            "sh" => Filter::Shell,
            _ => return Err(format!("{{{inner}}}: behind the colon is sql, json or sh")),
        };
        Ok(Part::Value(known, filter))
    }
}

impl Template {
    /// The text with these values.
    ///
    /// # Errors
    /// A placeholder has no value here.
    pub(super) fn fill(&self, values: &Values) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Value(name, filter) => {
                    let value = values
                        .get(name)
                        .ok_or_else(|| format!("{{{name}}} has no value here"))?;
                    text.push_str(&filter.apply(value));
                }
            }
        }
        Ok(text)
    }

    /// Whether it has the placeholder.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Value(own, _) if *own == name))
    }
}

impl Filter {
    fn apply(self, value: &str) -> String {
        match self {
            Filter::Plain => value.to_owned(),
            Filter::Sql => value.replace('\'', "''"),
            Filter::Json => {
                let quoted = serde_json::Value::from(value).to_string();
                quoted
                    .get(1..quoted.len() - 1)
                    .unwrap_or_default()
                    .to_owned()
            }
            Filter::Shell => shell_word(value),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Value(name, _) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// A line for a shell.
pub(crate) fn shell_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::try_from(text.to_owned()).expect("a template")
    }

    #[test]
    fn values_are_written_as_their_place_needs_it() {
        let payload = "it's \"é\"".to_owned();
        let values = Values::from([("payload", payload), ("store", "/a b".to_owned())]);
        for (text, filled) in [
            ("{payload}", "it's \"é\""),
            ("insert('{payload:sql}')", "insert('it''s \"é\"')"),
            ("{\"t\":\"{payload:json}\"}", "{\"t\":\"it's \\\"é\\\"\"}"),
            ("cat {store:sh}", "cat '/a b'"),
            (
                "${store} {} {\"a\":{\"b\":1}}",
                "${store} {} {\"a\":{\"b\":1}}",
            ),
        ] {
            assert_eq!(template(text).fill(&values).as_deref(), Ok(filled));
        }
        let error = template("{token}").fill(&values).expect_err("no value");
        assert!(error.contains("{token}"), "{error}");
    }

    #[test]
    fn an_unknown_placeholder_is_named_with_those_that_there_are() {
        let error = Template::try_from("x {title}".to_owned()).expect_err("unknown");
        assert!(
            error.contains("{title}") && error.contains("payload"),
            "{error}"
        );
        assert!(Template::try_from("{payload:xml}".to_owned()).is_err());
    }
}
