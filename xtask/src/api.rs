//! The public API of each published crate as text, one item a line, so that a change of it shows in
//! a review; and a check that each public item has an example.
//!
//! `public-api` reads rustdoc's JSON, which is unstable: `RUSTC_BOOTSTRAP` makes a stable toolchain
//! write it. Its format changes with the toolchain. Under a toolchain with another format the task
//! says SKIPPED and passes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use public_api::{Builder, PublicItem};
use rustdoc_types::{Crate, FORMAT_VERSION, Id, Impl, Item, ItemEnum, Type};
use serde_json::Value;

use crate::failure::Failure;
use crate::{cargo, process};

/// Each published crate and its listings: the file, and the features whose items it lists. A later
/// listing leaves out the lines of the ones before it.
const CRATES: [(&str, &[(&str, &str)]); 2] = [
    ("strand-lock", &[("lock/api.txt", "")]),
    (
        "strand-core",
        &[("core/api.txt", ""), ("core/api-testing.txt", "testing")],
    ),
];

/// `cargo xtask api [--bless]`: compares the listings with the code, or writes them.
pub(crate) fn run(bless: bool) -> Result<(), Failure> {
    let mut complaints = BTreeSet::new();
    for (package, listings) in CRATES {
        let mut listed = BTreeSet::new();
        for (file, features) in listings {
            let json = rustdoc_json(package, features)?;
            let Some(api) = Api::read(&json)? else {
                return Ok(());
            };
            complaints.extend(api.without_example());
            let mut lines = api.lines();
            lines.retain(|line| listed.insert(line.clone()));
            let text = format!(
                "# The public API of {package}, features [{features}], one item a line.\n\
                 # `cargo xtask api --bless` writes this file.\n{}\n",
                lines.join("\n")
            );
            let types = lines.iter().filter(|line| is_type(line)).count();
            println!("api: {file}: {} items, {types} of them types", lines.len());
            let path = cargo::workspace().join(file);
            if bless {
                std::fs::write(&path, &text).map_err(|error| Failure::at(&path, error))?;
            } else {
                let old = std::fs::read_to_string(&path).unwrap_or_default();
                complaints.extend(difference(&old, &text).map(|lines| {
                    format!(
                        "the public API differs from {file}:\n{lines}if that is intended, run \
                         `cargo xtask api --bless` and describe the change in CHANGELOG.md"
                    )
                }));
            }
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Failure::violation(format!(
        "api: FAILED\n{}",
        complaints.into_iter().collect::<Vec<_>>().join("\n")
    )))
}

/// The lines that only one of the texts has; `None` when there are none.
fn difference(old: &str, new: &str) -> Option<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (old.lines().collect(), new.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}\n"));
    let added = new.difference(&old).map(|line| format!("+ {line}\n"));
    let lines: String = gone.chain(added).collect();
    (!lines.is_empty()).then_some(lines)
}

/// Runs rustdoc on a package, in a target directory of its own: `RUSTC_BOOTSTRAP` rebuilds
/// everything.
fn rustdoc_json(package: &str, features: &str) -> Result<PathBuf, Failure> {
    let target_dir = cargo::workspace().join("target/api");
    let mut command = cargo::command(&["rustdoc", "--quiet", "--lib", "--package", package]);
    command
        .args(["--features", features, "--target-dir"])
        .arg(&target_dir);
    command.args([
        "--",
        "-A",
        "warnings",
        "-Z",
        "unstable-options",
        "--output-format",
        "json",
    ]);
    process::run(command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(target_dir
        .join("doc")
        .join(package.replace('-', "_"))
        .with_extension("json"))
}

struct Api {
    items: Vec<PublicItem>,
    docs: Crate,
}

impl Api {
    /// `None` where this toolchain's format is another one.
    fn read(json: &PathBuf) -> Result<Option<Api>, Failure> {
        let text = std::fs::read_to_string(json).map_err(|error| Failure::at(json, error))?;
        let unreadable = |error| Failure::environment(format!("{}: {error}", json.display()));
        let value: Value = serde_json::from_str(&text).map_err(unreadable)?;
        let found = value
            .get("format_version")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if found != u64::from(FORMAT_VERSION) {
            println!(
                "api: SKIPPED: this toolchain's rustdoc writes JSON of format {found}, and xtask \
                 reads format {FORMAT_VERSION} (see `public-api` in xtask/Cargo.toml)"
            );
            return Ok(None);
        }
        let docs = serde_json::from_value(value).map_err(unreadable)?;
        let api = Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .include_function_parameter_names(true)
            .build()
            .map_err(|error| Failure::environment(format!("{}: {error}", json.display())))?;
        Ok(Some(Api {
            items: api.into_items().collect(),
            docs,
        }))
    }

    fn doc(&self, id: Id) -> Option<&Item> {
        self.docs.index.get(&id)
    }

    /// The implemented trait, if the item is part of an `impl`.
    fn impl_of(&self, item: &PublicItem) -> Option<&Impl> {
        match &self.doc(item.parent_id()?)?.inner {
            ItemEnum::Impl(found) => Some(found),
            _ => None,
        }
    }

    /// All items but the methods that a trait demands and the traits that the compiler adds; of the
    /// latter only `Send` and `Sync`.
    fn lines(&self) -> Vec<String> {
        let is_shown = |item: &&PublicItem| match self.doc(item.id()).map(|item| &item.inner) {
            Some(ItemEnum::Impl(found)) => {
                let name = found.trait_.as_ref().map(|path| path.path.as_str());
                name != Some("StructuralPartialEq")
                    && (!found.is_synthetic || matches!(name, Some("Send" | "Sync")))
            }
            Some(ItemEnum::Function(_)) => self
                .impl_of(item)
                .is_none_or(|found| found.trait_.is_none()),
            _ => true,
        };
        self.items
            .iter()
            .filter(is_shown)
            .map(ToString::to_string)
            .collect()
    }

    /// Functions, types, traits and constants without an example of their own, behind a link, or in
    /// the documentation of their type, their trait or the crate.
    fn without_example(&self) -> Vec<String> {
        let shows = |item: &Item, name: &str| mentions(&examples(item), name);
        // A link into another crate counts: the item is checked there.
        let is_shown = |id: &Id| self.doc(*id).is_none_or(|item| !examples(item).is_empty());
        let has_example =
            |item: &Item| !examples(item).is_empty() || item.links.values().any(is_shown);
        let mut missing = Vec::new();
        for public in &self.items {
            let Some(item) = self.doc(public.id()) else {
                continue;
            };
            let Some(name) = item.name.as_deref() else {
                continue;
            };
            let found = self.impl_of(public);
            let needs_one = found.is_none_or(|found| found.trait_.is_none())
                && matches!(
                    item.inner,
                    ItemEnum::Function(_)
                        | ItemEnum::Struct(_)
                        | ItemEnum::Enum(_)
                        | ItemEnum::Trait(_)
                        | ItemEnum::TypeAlias(_)
                        | ItemEnum::Constant { .. }
                        | ItemEnum::AssocConst { .. }
                );
            let parent = match found.map(|found| &found.for_) {
                Some(Type::ResolvedPath(path)) => Some(path.id),
                _ => public.parent_id(),
            };
            let by_parent = parent.and_then(|id| self.doc(id)).is_some_and(|parent| {
                let is_trait = matches!(parent.inner, ItemEnum::Trait(_));
                shows(parent, name) || is_trait && has_example(parent)
            });
            let by_root = self
                .doc(self.docs.root)
                .is_some_and(|root| shows(root, name));
            if needs_one && !by_parent && !by_root && !has_example(item) {
                missing.push(format!("no example, and no link to one: {public}"));
            }
        }
        missing
    }
}

fn is_type(line: &str) -> bool {
    let words = line
        .trim_start_matches("#[non_exhaustive] ")
        .strip_prefix("pub ");
    let word = words.and_then(|words| words.split(' ').next());
    matches!(word, Some("struct" | "enum" | "trait" | "union"))
}

/// The code in an item's documentation.
fn examples(item: &Item) -> String {
    item.docs
        .as_deref()
        .unwrap_or_default()
        .split("```")
        .skip(1)
        .step_by(2)
        .collect()
}

/// Whether a text has a name as a word of its own.
fn mentions(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed_line_by_line() {
        assert_eq!(difference("a\nb\nc", "a\nb\nc\n"), None);
        assert_eq!(difference("a\nb", "a\nc").as_deref(), Some("- b\n+ c\n"));
    }

    #[test]
    fn names_are_found_as_whole_words() {
        assert!(mentions("log.append(&event)?", "append"));
        assert!(!mentions("log.append_batch(&event)?", "append"));
    }
}
