//! `cargo xtask ci layout`: modules import downwards, no two files import each other in a circle,
//! each file is compiled, and comments keep to the width.
//!
//! Reads tokens, not types: a path that starts with `crate`, `super`, `self`, a child module or an
//! imported module counts as an import of the file that holds the last module of the path. Unit
//! tests (`#[cfg(test)]`) may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::cargo;
use crate::failure::Failure;

const COMMENT_COLUMNS_MAX: usize = 100;

const CRATES: [&str; 7] = ["lock", "core", "etcd", "cli", "stress", "bench", "xtask"];

/// An area of a crate (a first-level module) and the other areas that it may import.
type Area = (&'static str, &'static str);

const CORE: &[Area] = &[
    ("error", ""),
    ("format", "error"),
    ("env", "error"),
    ("issues", "error format"),
    ("options", "error env"),
    ("telemetry", "error"),
    ("wal", "error format env options telemetry"),
    ("state", "error format env options telemetry issues wal"),
    (
        "write",
        "error format env options telemetry issues wal state",
    ),
    ("inspect", "error format env options issues wal state"),
    ("check", "error format env options issues wal state inspect"),
    (
        "repair",
        "error format env options telemetry issues wal state inspect",
    ),
    (
        "testing",
        "error format env options issues wal state write check",
    ),
];

const STRESS: &[Area] = &[
    ("held", ""),
    ("panics", ""),
    ("random", ""),
    ("evidence", ""),
    ("interrupt", "held evidence"),
    ("sim", "panics evidence random"),
    ("powerfs", "held sim random"),
    ("fuzz", "panics evidence sim"),
    ("run", "panics evidence random"),
    ("tiers", "panics evidence interrupt random sim powerfs run"),
    ("soak", "held panics evidence interrupt run"),
    ("stores", "held evidence sim powerfs run"),
    ("report", "evidence run tiers soak stores"),
    (
        "commands",
        "panics evidence interrupt run tiers soak stores report",
    ),
    ("main", "commands run tiers soak stores lib"),
];

/// Files below the first path may not import of another crate what is not below the last.
const FOREIGN: [(&str, &str, &str); 2] = [
    ("stress/src/evidence/", "strand_core::", "none of it"),
    ("bench/src/", "strand_stress::", "strand_stress::report"),
];

/// The imports of each file of a crate: other files of it, and paths into other crates of ours.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check() -> Result<(), Failure> {
    let mut complaints = Vec::new();
    for name in CRATES {
        let krate = Crate::read(name)?;
        complaints.extend(krate.wide_comments());
        complaints.extend(krate.outside_of_modules());
        let imports = krate.imports()?;
        complaints.extend(forbidden(&imports));
        complaints.extend(circles(&imports));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    let complaints = complaints.join("\n");
    Err(Failure::violation(format!(
        "ci: FAILED: layout\n{complaints}"
    )))
}

/// The Rust files of a crate: the text of each, by its path in the workspace.
struct Crate {
    name: &'static str,
    files: BTreeMap<String, String>,
}

impl Crate {
    fn read(name: &'static str) -> Result<Crate, Failure> {
        let mut files = BTreeMap::new();
        let mut open = vec![PathBuf::from(name)];
        while let Some(path) = open.pop() {
            let full = cargo::workspace().join(&path);
            let failed = |error| Failure::at(&full, error);
            if full.is_dir() && !path.ends_with("target") {
                for entry in std::fs::read_dir(&full).map_err(failed)? {
                    open.push(path.join(entry.map_err(failed)?.file_name()));
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&full).map_err(failed)?;
                files.insert(path.display().to_string(), text);
            }
        }
        Ok(Crate { name, files })
    }

    /// Comments beyond [`COMMENT_COLUMNS_MAX`], except addresses and rows of tables, which cannot
    /// be wrapped.
    fn wide_comments(&self) -> Vec<String> {
        let mut wide = Vec::new();
        for (file, text) in &self.files {
            for (number, line) in (1..).zip(text.lines()) {
                let columns = line.chars().count();
                let line = line.trim_start();
                let is_row = line.starts_with("//! |") || line.starts_with("/// |");
                let is_comment = line.starts_with("//") && !line.contains("://");
                if is_comment && !is_row && columns > COMMENT_COLUMNS_MAX {
                    wide.push(format!("{file}:{number}: a comment of {columns} columns"));
                }
            }
        }
        wide
    }

    /// The files below `src` by their modules; the root of the crate has the empty path.
    fn modules(&self) -> BTreeMap<Vec<String>, String> {
        let module = |file: &str| {
            let path = file
                .strip_prefix(self.name)?
                .strip_prefix("/src/")?
                .strip_suffix(".rs")?;
            let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
            let has_lib = self
                .files
                .contains_key(&format!("{}/src/lib.rs", self.name));
            let root = if has_lib { "lib" } else { "main" };
            if module == [root] || module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            Some(module)
        };
        let modules = self
            .files
            .keys()
            .filter_map(|file| Some((module(file)?, file.clone())));
        modules.collect()
    }

    /// Files that no module declares: they are not compiled, and nobody notices when they go stale.
    fn outside_of_modules(&self) -> Vec<String> {
        let modules = self.modules();
        let is_declared = |module: &[String]| {
            let [above @ .., name] = module else {
                return true;
            };
            let above = modules.get(above).and_then(|file| self.files.get(file));
            let words = [format!("mod {name};"), format!("\"{name}.rs\"")];
            module == ["main"]
                || above.is_some_and(|text| words.iter().any(|word| text.contains(word)))
        };
        let outside = modules.iter().filter(|(module, _)| !is_declared(module));
        outside
            .map(|(_, file)| format!("{file} is in no module"))
            .collect()
    }

    fn imports(&self) -> Result<Imports, Failure> {
        let modules = self.modules();
        let mut imports = Imports::new();
        for (here, file) in &modules {
            let text = self.files.get(file).map(String::as_str).unwrap_or_default();
            let tokens: TokenStream = text
                .parse()
                .map_err(|error| Failure::violation(format!("{file}: {error}")))?;
            let mut scan = Scan {
                own_name: format!("strand_{}", self.name),
                modules: &modules,
                here: here.clone(),
                found: BTreeSet::new(),
            };
            scan.walk(tokens);
            scan.found.remove(file);
            imports.insert(file.clone(), scan.found);
        }
        Ok(imports)
    }
}

/// Collects the imports of one file.
struct Scan<'a> {
    /// The name of the crate in its own binary and examples.
    own_name: String,
    modules: &'a BTreeMap<Vec<String>, String>,
    /// The module whose tokens are read.
    here: Vec<String>,
    found: BTreeSet<String>,
}

impl Scan<'_> {
    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        loop {
            rest = match rest {
                [] => return,
                [
                    TokenTree::Punct(hash),
                    TokenTree::Group(attribute),
                    item @ ..,
                ] if hash.as_char() == '#' && attribute.to_string() == "[cfg (test)]" => {
                    skip_item(item)
                }
                [
                    TokenTree::Ident(word),
                    TokenTree::Ident(name),
                    TokenTree::Group(body),
                    rest @ ..,
                ] if word == "mod" => {
                    self.here.push(name.to_string());
                    self.walk(body.stream());
                    self.here.pop();
                    rest
                }
                [TokenTree::Ident(_), ..] => self.tree(Vec::new(), rest),
                [TokenTree::Group(group), rest @ ..] => {
                    self.walk(group.stream());
                    rest
                }
                [_, rest @ ..] => rest,
            };
        }
    }

    /// Reads a path, or a tree of paths below `path`; returns the tokens after it.
    fn tree<'t>(&mut self, mut path: Vec<String>, mut rest: &'t [TokenTree]) -> &'t [TokenTree] {
        loop {
            match rest {
                [TokenTree::Ident(segment), after @ ..] => {
                    path.push(segment.to_string());
                    rest = after;
                }
                [TokenTree::Group(group), after @ ..]
                    if group.delimiter() == Delimiter::Brace && !path.is_empty() =>
                {
                    let members: Vec<TokenTree> = group.stream().into_iter().collect();
                    for member in members.split(|token| is_punct(token, ',')) {
                        self.tree(path.clone(), member);
                    }
                    return after;
                }
                _ => break,
            }
            match rest {
                [one, two, after @ ..] if is_punct(one, ':') && is_punct(two, ':') => rest = after,
                _ => break,
            }
        }
        self.add(&path);
        rest
    }

    fn add(&mut self, path: &[String]) {
        let [first, rest @ ..] = path else { return };
        if rest.is_empty() {
            return;
        }
        let child = [self.here.as_slice(), std::slice::from_ref(first)].concat();
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            name if name == self.own_name => Vec::new(),
            "self" => self.here.clone(),
            "super" => self
                .here
                .split_last()
                .map_or(Vec::new(), |(_, parent)| parent.to_vec()),
            _ if self.modules.contains_key(&child) => child,
            name => {
                self.found
                    .extend(name.starts_with("strand_").then(|| path.join("::")));
                return;
            }
        };
        for segment in rest {
            match segment.as_str() {
                "super" => drop(absolute.pop()),
                "self" => {}
                name => absolute.push(name.to_owned()),
            }
        }
        while !absolute.is_empty() && !self.modules.contains_key(&absolute) {
            absolute.pop();
        }
        self.found.extend(self.modules.get(&absolute).cloned());
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// The tokens after an item: after its braces or its semicolon.
fn skip_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    };
    let end = tokens
        .iter()
        .position(is_end)
        .map_or(tokens.len(), |at| at + 1);
    tokens.get(end..).unwrap_or_default()
}

/// Imports against the order of the areas, or of what another crate keeps to others.
fn forbidden(imports: &Imports) -> Vec<String> {
    let area_of = |file: &str| {
        let path = file.split_once("/src/").map_or(file, |(_, path)| path);
        path.split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs")
            .to_owned()
    };
    let mut found = Vec::new();
    for (file, targets) in imports {
        for target in targets {
            let is_forbidden = |(prefix, krate, allowed): &(&str, &str, &str)| {
                file.starts_with(prefix)
                    && target.starts_with(krate)
                    && !target.starts_with(allowed)
            };
            if FOREIGN.iter().any(is_forbidden) {
                found.push(format!("{file} imports {target}"));
            }
        }
        let area = area_of(file);
        let order = match file.split('/').next() {
            Some("core") if area != "lib" => CORE,
            Some("stress") if area != "lib" => STRESS,
            _ => continue,
        };
        let Some((_, below)) = order.iter().find(|(name, _)| *name == area) else {
            found.push(format!(
                "{file}: `{area}` has no place in the order (xtask/src/layout.rs)"
            ));
            continue;
        };
        for target in targets.iter().filter(|target| target.contains('/')) {
            let other = area_of(target);
            if other != area && !below.split(' ').any(|name| name == other) {
                found.push(format!(
                    "{file} imports {target}: `{area}` may not import `{other}`"
                ));
            }
        }
    }
    found
}

/// Sets of files of which each reaches each other, with the imports that make the circle.
fn circles(imports: &Imports) -> Vec<String> {
    let reached_from = |start: &String| {
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(file) = open.pop() {
            for next in imports.get(file).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let reach: BTreeMap<&String, BTreeSet<&String>> = imports
        .keys()
        .map(|file| (file, reached_from(file)))
        .collect();
    let mut circles = BTreeSet::new();
    for (file, reached) in &reach {
        let returns = |other: &&&String| reach.get(**other).is_some_and(|back| back.contains(file));
        let circle: BTreeSet<&String> = reached.iter().filter(returns).copied().collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    let describe = |circle: &BTreeSet<&String>| {
        let lines = circle.iter().map(|file| {
            let targets = imports.get(*file).into_iter().flatten();
            let inside = targets
                .filter(|other| circle.contains(other))
                .map(String::as_str);
            format!(
                "\n    {file} imports {}",
                inside.collect::<Vec<_>>().join(", ")
            )
        });
        let count = circle.len();
        format!(
            "{count} files import each other in circles:{}",
            lines.collect::<String>()
        )
    };
    circles.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of files below `src`, each with its text.
    fn krate(name: &'static str, files: &[(&str, &str)]) -> Crate {
        let path = |file: &str| format!("{name}/src/{file}.rs");
        let files = files
            .iter()
            .map(|(file, text)| (path(file), (*text).to_owned()));
        Crate {
            name,
            files: files.collect(),
        }
    }

    fn imports(name: &'static str, files: &[(&str, &str)]) -> Imports {
        let imports = krate(name, files).imports();
        imports.unwrap_or_else(|failure| panic!("{}", failure.message))
    }

    #[test]
    fn every_way_to_name_a_module_is_an_import() {
        let a = "use crate::b::{self, c::{C as D, E},}; use super::lib_name;
            #[cfg(test)] mod tests { use crate::only::in_tests; }
            //! use crate::only::in_comment;
            fn f() { d::x(); let s = \"crate::only::in_text\"; }
            mod inline { use super::super::e::*; }";
        let others = ["lib", "a/d", "b", "b/c", "e", "only"].map(|file| (file, ""));
        let found = imports("cli", &[&[("a/mod", a)][..], &others].concat());
        let found: Vec<&str> = found["cli/src/a/mod.rs"]
            .iter()
            .map(String::as_str)
            .collect();
        let expected = ["a/d", "b", "b/c", "e", "lib"].map(|file| format!("cli/src/{file}.rs"));
        assert_eq!(found, expected);
    }

    #[test]
    fn imports_against_the_order_are_found() {
        let log = "use crate::{env::Disk, issues::Issues, Error};";
        let files = [("lib", "pub use wal::log::Log;"), ("wal/log", log)];
        let others = ["env", "issues", "new"].map(|file| (file, ""));
        let found = forbidden(&imports("core", &[&files[..], &others].concat()));
        let expected = [
            "core/src/new.rs: `new` has no place in the order (xtask/src/layout.rs)",
            "core/src/wal/log.rs imports core/src/issues.rs: `wal` may not import `issues`",
            "core/src/wal/log.rs imports core/src/lib.rs: `wal` may not import `lib`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_some_files_may_import_another_crate() {
        let text = "use strand_core::Seq; use strand_lock::Page;";
        let found = forbidden(&imports("stress", &[("evidence/a", text), ("run", text)]));
        assert_eq!(found, ["stress/src/evidence/a.rs imports strand_core::Seq"]);
        let text = "use strand_stress::{report::text::columns, run::config::Config};";
        let found = forbidden(&imports("bench", &[("a", text)]));
        assert_eq!(
            found,
            ["bench/src/a.rs imports strand_stress::run::config::Config"]
        );
    }

    #[test]
    fn circles_are_found_whatever_their_length() {
        let files = [
            ("main", "use a::A;"),
            ("a", "use crate::b::B;"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "use super::a;"),
        ];
        let found = circles(&imports("cli", &files));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("3 files"), "{found:?}");
        let no_way_back = [&files[..3], &[("c", "")]].concat();
        assert_eq!(circles(&imports("cli", &no_way_back)), [""; 0]);
    }

    #[test]
    fn a_file_that_is_not_compiled_is_found() {
        let lib = "pub mod a; #[path = \"c.rs\"] mod b;";
        let files = [("lib", lib), ("main", ""), ("a/mod", "mod one;"), ("c", "")];
        let more = [("a/one", ""), ("a/two", "mod of_stale;"), ("d", "")];
        let found = krate("stress", &[&files[..], &more].concat()).outside_of_modules();
        let expected = ["a/two", "d"].map(|file| format!("stress/src/{file}.rs is in no module"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wide_comment_is_found() {
        let [a, b, c] = [("a", 97), ("ä", 99), ("1", 200)].map(|(text, times)| text.repeat(times));
        let text = format!("// {a}\n//{b}\nlet wide = {c};\n//! | {c} |");
        let found = krate("cli", &[("main", &text)]).wide_comments();
        assert_eq!(found, ["cli/src/main.rs:2: a comment of 101 columns"]);
    }
}
