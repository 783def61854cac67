//! `SPEC.toml`: how the command line of a store is used. docs/STORES.md describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::stores::template::Template;

/// The specs that come along, by name.
pub const BUILT_IN: [(&str, &str); 9] = [
    ("strand-cli", include_str!("../../stores/strand-cli.toml")),
    ("sqlite", include_str!("../../stores/sqlite.toml")),
    (
        "sqlite-no-timeout",
        include_str!("../../stores/sqlite-no-timeout.toml"),
    ),
    ("git", include_str!("../../stores/git.toml")),
    ("redis", include_str!("../../stores/redis.toml")),
    ("taskwarrior", include_str!("../../stores/taskwarrior.toml")),
    ("br", include_str!("../../stores/br.toml")),
    ("files", include_str!("../../stores/files.toml")),
    ("jsonl", include_str!("../../stores/jsonl.toml")),
];

/// The description of a store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name for people.
    pub name: String,
    /// Prints the version; where it can't be run, the store isn't there.
    pub version: Vec<String>,
    /// The directory in which commands run.
    #[serde(default = "store_dir")]
    pub workdir: Template,
    /// Variables of the environment.
    #[serde(default)]
    pub env: BTreeMap<String, Template>,
    /// Makes the store, in an empty directory.
    pub init: Option<Call>,
    /// Runs beside the agents.
    pub serve: Option<Serve>,
    /// Makes a write.
    pub append: Call,
    /// Makes several writes, or none of them.
    pub batch: Option<Call>,
    /// Competes for an item.
    pub claim: Option<Call>,
    /// Lists every write.
    pub list: List,
    /// Prints all writes as they come, and does not end.
    pub follow: Option<List>,
    /// Says whose an item is.
    pub show: Option<Show>,
    /// Reads an item.
    pub get: Option<Get>,
    /// Changes an item, if it is still as it was read.
    pub set: Option<Call>,
    /// Writes a file with all writes.
    pub export: Option<Export>,
    /// Files that have to be valid at all times.
    #[serde(default)]
    pub artifact: Vec<Artifact>,
    /// Commands that have to succeed after the run.
    #[serde(default)]
    pub check: Vec<Check>,
    /// Files that must not be there after the run.
    #[serde(default)]
    pub leftovers: Vec<String>,
    /// Runs `{witness}` while it holds a lock.
    pub exclusive: Option<Call>,
}

fn store_dir() -> Template {
    Template::try_from("{store}".to_owned()).unwrap_or_else(|error| unreachable!("{error}"))
}

/// A command and the meaning of its answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The program and its arguments.
    pub argv: Vec<Template>,
    /// Its standard input.
    pub stdin: Option<Template>,
    /// Exit statuses of success.
    #[serde(default = "zero")]
    pub ok: Vec<i32>,
    /// Exit statuses of a refusal: nothing is stored, try again or elsewhere.
    #[serde(default)]
    pub refused: Vec<i32>,
    /// Output like this is a refusal, too.
    pub refused_says: Option<Pattern>,
    /// Exit statuses of a failure after which nothing is stored.
    #[serde(default)]
    pub rejected: Vec<i32>,
    /// Finds the receipt in standard output: its first group, or all of it.
    pub receipt: Option<Pattern>,
    /// An interrupted write is made again, and must still be stored once.
    #[serde(default)]
    pub idempotent: bool,
    /// In `[batch]`: the form of a write.
    pub each: Option<Template>,
    /// In `[batch]`: what is between two writes in `{writes}`.
    #[serde(default = "newline")]
    pub join: String,
}

fn newline() -> String {
    "\n".to_owned()
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// A server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// The program and its arguments; it must not go to the background.
    pub argv: Vec<Template>,
    /// Succeeds when the server can be used.
    pub ready: Vec<Template>,
}

/// How every write is listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The program and its arguments.
    pub argv: Vec<Template>,
    /// How the output is read.
    #[serde(default)]
    pub format: Format,
    /// With JSON: where the array is, as `issues.all`.
    #[serde(default)]
    pub items: String,
    /// With JSON: where the text of an item is; all of it by default.
    #[serde(default)]
    pub text: String,
    /// With JSON: where the number of an item is; with lines: a pattern that finds it.
    #[serde(default)]
    pub number: String,
    /// Whether it is in the order of the writes.
    #[serde(default)]
    pub ordered: bool,
    /// Lines that are no writes: headings, other records. Not for one JSON text.
    pub skip: Option<Pattern>,
    /// Whether it shows the whole payload, and not only the token.
    #[serde(default = "yes")]
    pub whole: bool,
}

fn yes() -> bool {
    true
}

/// The form of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A line for each write.
    #[default]
    Lines,
    /// A JSON text with an array.
    Json,
    /// A JSON text in each line.
    Jsonl,
}

/// How the owner of an item is shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// The program and its arguments.
    pub argv: Vec<Template>,
    /// Finds the owner in standard output.
    pub owner: Pattern,
}

/// How an item is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The program and its arguments.
    pub argv: Vec<Template>,
    /// Finds its value or version in standard output; the empty text where it matches nothing.
    pub value: Pattern,
}

/// How everything is exported.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The program and its arguments.
    pub argv: Vec<Template>,
}

/// A file that has to be valid whenever it is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where.
    pub path: Template,
    /// Its form.
    pub format: Format,
    /// Whether it has every acknowledged write after the last export.
    #[serde(default)]
    pub complete: bool,
}

/// A command that has to succeed after the run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<Template>,
    /// Standard output has to match this, too.
    pub says: Option<Pattern>,
}

/// A regular expression.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = regex_lite::Error;

    /// `^` and `$` are the ends of any line, as in other tools that look at output.
    fn try_from(text: String) -> Result<Pattern, regex_lite::Error> {
        let pattern = RegexBuilder::new(&text).multi_line(true).build();
        pattern.map(Pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Pattern {
    /// The first group of the first match, or all of it.
    pub(super) fn find(&self, text: &str) -> Option<String> {
        let groups = self.0.captures(text)?;
        let found = groups.get(1).or_else(|| groups.get(0))?;
        Some(found.as_str().to_owned())
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl Spec {
    /// Reads the spec in a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Spec, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Spec::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the text of a spec.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Spec, String> {
        let spec: Spec = toml::from_str(text).map_err(|error| error.to_string())?;
        spec.check()?;
        Ok(spec)
    }

    /// Whether a follower can begin behind what was shown before.
    pub(super) fn resumes(&self) -> bool {
        let mut words = self.follow.iter().flat_map(|follow| &follow.argv);
        words.any(|word| word.has("from"))
    }

    /// What no type says.
    fn check(&self) -> Result<(), String> {
        let has = |argv: &[Template], stdin: Option<&Template>, names: &[&str]| {
            argv.iter()
                .chain(stdin)
                .any(|part| names.iter().any(|name| part.has(name)))
        };
        let calls = [
            ("init", &self.init),
            ("batch", &self.batch),
            ("claim", &self.claim),
            ("set", &self.set),
            ("exclusive", &self.exclusive),
        ];
        let calls = calls
            .into_iter()
            .filter_map(|(name, call)| Some((name, &call.as_ref()?.argv)));
        let all = calls.chain([("append", &self.append.argv), ("list", &self.list.argv)]);
        let all = all.chain(self.follow.iter().map(|follow| ("follow", &follow.argv)));
        let serve = self.serve.iter();
        let serve = serve.flat_map(|serve| [("serve", &serve.argv), ("serve", &serve.ready)]);
        for (name, argv) in all.chain(serve) {
            if argv.is_empty() {
                return Err(format!(
                    "[{name}] has an empty argv, which names no program"
                ));
            }
        }
        if self.version.is_empty() {
            return Err("version names no program, as [\"program\", \"--version\"]".to_owned());
        }
        let append = &self.append;
        if !has(&append.argv, append.stdin.as_ref(), &["payload", "token"]) {
            return Err(
                "[append] has neither {payload} nor {token}: no write could be told from another"
                    .to_owned(),
            );
        }
        if let Some(batch) = &self.batch {
            let each = batch.each.as_ref();
            if !has(&batch.argv, batch.stdin.as_ref(), &["writes"])
                || each.is_some_and(|each| !(each.has("payload") || each.has("token")))
            {
                return Err(
                    "[batch] needs {writes}, and `each` needs {payload} or {token}".to_owned(),
                );
            }
        }
        if let Some(follow) = &self.follow
            && (follow.format == Format::Json
                || follow.ordered
                || !(follow.whole && follow.items.is_empty()))
        {
            return Err(
                "[follow] is read line by line: it has argv, format = \"lines\" or \"jsonl\", \
                 text, skip and number"
                    .to_owned(),
            );
        }
        if let Some(claim) = &self.claim {
            let stdin = claim.stdin.as_ref();
            if !has(&claim.argv, stdin, &["item", "token"]) || !has(&claim.argv, stdin, &["agent"])
            {
                return Err("[claim] needs {item} or {token}, and {agent}".to_owned());
            }
        }
        if self.show.is_some() && self.claim.is_none() {
            return Err("[show] says whose an item is; it needs [claim]".to_owned());
        }
        if self.get.is_some() != self.set.is_some() {
            return Err("[get] and [set] go together".to_owned());
        }
        if let Some(set) = &self.set {
            let stdin = set.stdin.as_ref();
            let needed = [&["item", "token"][..], &["old"], &["new"]];
            if !needed.iter().all(|names| has(&set.argv, stdin, names)) {
                return Err("[set] needs {item} or {token}, {old} and {new}".to_owned());
            }
        }
        if let Some(exclusive) = &self.exclusive
            && !has(&exclusive.argv, None, &["witness"])
        {
            return Err("[exclusive] has to run {witness} while it holds the lock".to_owned());
        }
        if self.list.format == Format::Lines
            && !(self.list.items.is_empty() && self.list.text.is_empty())
        {
            return Err("[list] items and text are for format = \"json\" or \"jsonl\"".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_that_comes_along_is_one() {
        for (name, text) in BUILT_IN {
            let spec = Spec::parse(text);
            assert!(spec.is_ok(), "{name}: {}", spec.expect_err("an error"));
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_where() {
        let good = "name = \"x\"\nversion = [\"x\"]\n[append]\nargv = [\"x\", \"{payload}\"]\n\
                    [list]\nargv = [\"x\"]\n";
        assert!(Spec::parse(good).is_ok());
        for (from, to, says) in [
            ("{payload}", "{title}", "no placeholder {title}"),
            ("{payload}", "x", "neither {payload} nor {token}"),
            ("[list]", "[liste]", "liste"),
            (
                "argv = [\"x\"]\n",
                "argv = []\n",
                "[list] has an empty argv",
            ),
            ("[list]\n", "[list]\ntext = \"a\"\n", "are for format"),
            ("[list]\n", "[list]\nskip = \"(\"\n", "skip"),
            (
                "[list]\n",
                "[exclusive]\nargv = [\"flock\"]\n[list]\n",
                "{witness}",
            ),
            (
                "[list]\n",
                "[claim]\nargv = [\"c\", \"{item}\"]\n[list]\n",
                "{agent}",
            ),
        ] {
            let error = Spec::parse(&good.replace(from, to)).expect_err(says);
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
