//! `cargo xtask ci layout`: modules import downwards, no two files import each other in a circle,
//! and comments keep to the width.
//!
//! Reads tokens, not types: a path that starts with `crate`, `super`, `self`, a child module or an
//! imported module counts as an import of the file that holds the last module of the path. Unit
//! tests (`#[cfg(test)]`) may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::cargo;
use crate::failure::Failure;

const COMMENT_COLUMNS_MAX: usize = 100;

const CRATES: [&str; 6] = ["lock", "core", "cli", "stress", "bench", "xtask"];

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
    ("panics", ""),
    ("random", ""),
    ("evidence", ""),
    ("sim", "panics evidence random"),
    ("powerfs", "sim random"),
    ("fuzz", "panics evidence sim"),
    ("run", "panics evidence random"),
    ("tiers", "panics evidence random sim powerfs run"),
    ("soak", "panics evidence run"),
    ("report", "evidence run tiers soak"),
    ("commands", "panics evidence run tiers soak report"),
    ("main", "commands run soak lib"),
];

/// Files below the first path may import of another crate only what is below the others.
const FOREIGN: [(&str, &str, &[&str]); 2] = [
    ("stress/src/evidence/", "strand_core", &[]),
    ("bench/src/", "strand_stress", &["report"]),
];

/// A module path, from the root of its crate; of another crate, with the crate's name first.
type ModulePath = Vec<String>;

/// What each file of a crate imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check() -> Result<(), Failure> {
    let mut complaints = Vec::new();
    for name in CRATES {
        let krate = Crate::read(name)?;
        complaints.extend(krate.long_comments());
        let (imports, foreign) = krate.imports()?;
        complaints.extend(upward(&imports));
        complaints.extend(not_allowed(&foreign));
        complaints.extend(circles(&imports));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Failure::violation(format!(
        "ci: FAILED: layout\n{}",
        complaints.join("\n")
    )))
}

/// The Rust files of a crate: the text of each, by its path in the crate's directory.
struct Crate {
    name: &'static str,
    files: BTreeMap<PathBuf, String>,
}

impl Crate {
    fn read(name: &'static str) -> Result<Crate, Failure> {
        let root = cargo::workspace().join(name);
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files)
            .map_err(|error| Failure::environment(format!("{}: {error}", root.display())))?;
        Ok(Crate { name, files })
    }

    fn label(&self, file: &Path) -> String {
        format!("{}/{}", self.name, file.display())
    }

    fn long_comments(&self) -> Vec<String> {
        let mut long = Vec::new();
        for (file, text) in &self.files {
            for (number, line) in (1..).zip(text.lines()) {
                let columns = line.chars().count();
                if line.trim_start().starts_with("//")
                    && columns > COMMENT_COLUMNS_MAX
                    && !line.contains("://")
                {
                    let label = self.label(file);
                    long.push(format!("{label}:{number}: a comment of {columns} columns"));
                }
            }
        }
        long
    }

    /// The files of this crate that each file imports, and what it imports of other crates.
    fn imports(&self) -> Result<(Imports, Imports), Failure> {
        let has_lib = self.files.contains_key(Path::new("src/lib.rs"));
        let sources = self.files.iter().filter_map(|(file, text)| {
            let module = module_of(file.strip_prefix("src").ok()?, has_lib);
            Some((module, self.label(file), text))
        });
        let modules: BTreeMap<ModulePath, String> = sources
            .clone()
            .map(|(module, label, _)| (module, label))
            .collect();
        let mut imports = (Imports::new(), Imports::new());
        for (here, label, text) in sources {
            let tokens: TokenStream = text
                .parse()
                .map_err(|error| Failure::violation(format!("{label}: {error}")))?;
            let mut scan = Scan {
                own_name: format!("strand_{}", self.name),
                modules: &modules,
                here,
                aliases: BTreeMap::new(),
                found: BTreeSet::new(),
                foreign: BTreeSet::new(),
            };
            scan.walk(tokens);
            scan.found.remove(&label);
            imports.0.insert(label.clone(), scan.found);
            imports.1.insert(label, scan.foreign);
        }
        Ok(imports)
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, String>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(root).unwrap_or(&path).to_owned();
            files.insert(file, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The module that a file holds. `main` is the root only where there is no `lib`.
fn module_of(file: &Path, has_lib: bool) -> ModulePath {
    let stem = file.with_extension("");
    let mut module: ModulePath = stem
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let is_root = match module.as_slice() {
        [only] => only == "lib" || only == "main" && !has_lib,
        _ => false,
    };
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// Collects the imports of one file.
struct Scan<'a> {
    /// The crate, as its own binary and examples call it.
    own_name: String,
    modules: &'a BTreeMap<Vec<String>, String>,
    /// The module whose tokens are read.
    here: Vec<String>,
    /// Imported modules, by the name they have here.
    aliases: BTreeMap<String, Vec<String>>,
    found: BTreeSet<String>,
    foreign: BTreeSet<String>,
}

impl Scan<'_> {
    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [first, after @ ..] = rest {
            match (first, after) {
                // An attribute and what it is about.
                (TokenTree::Punct(hash), [TokenTree::Group(attribute), item @ ..])
                    if hash.as_char() == '#' && is_cfg_test(&attribute.stream()) =>
                {
                    rest = skip_item(item);
                    continue;
                }
                (
                    TokenTree::Ident(word),
                    [TokenTree::Ident(name), TokenTree::Group(body), item @ ..],
                ) if word == "mod" => {
                    self.here.push(name.to_string());
                    self.walk(body.stream());
                    self.here.pop();
                    rest = item;
                    continue;
                }
                (TokenTree::Ident(_), _) => {
                    let is_use = matches!(first, TokenTree::Ident(word) if *word == "use");
                    let path = if is_use { after } else { rest };
                    let left = self.tree(&[], path, is_use);
                    if left.len() < path.len() {
                        rest = left;
                        continue;
                    }
                }
                (TokenTree::Group(group), _) => self.walk(group.stream()),
                _ => {}
            }
            rest = after;
        }
    }

    /// Reads a path or a tree of them below `prefix`; returns the tokens after it.
    fn tree<'t>(
        &mut self,
        prefix: &[String],
        mut rest: &'t [TokenTree],
        is_use: bool,
    ) -> &'t [TokenTree] {
        let mut path = prefix.to_vec();
        let mut alias = None;
        loop {
            match rest {
                [TokenTree::Ident(word), TokenTree::Ident(name), after @ ..]
                    if *word == "as" && is_use =>
                {
                    alias = Some(name.to_string());
                    rest = after;
                    break;
                }
                [TokenTree::Ident(segment), after @ ..] => {
                    path.push(segment.to_string());
                    rest = after;
                }
                [TokenTree::Group(group), after @ ..] if group.delimiter() == Delimiter::Brace => {
                    let members: Vec<TokenTree> = group.stream().into_iter().collect();
                    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                    for member in members.split(is_comma).filter(|member| !member.is_empty()) {
                        self.tree(&path, member, is_use);
                    }
                    return after;
                }
                _ => {}
            }
            match rest {
                [TokenTree::Punct(one), TokenTree::Punct(two), after @ ..]
                    if one.as_char() == ':' && two.as_char() == ':' =>
                {
                    rest = after;
                }
                [TokenTree::Ident(word), ..] if *word == "as" && is_use => {}
                _ => break,
            }
            if !matches!(rest, [TokenTree::Ident(_) | TokenTree::Group(_), ..]) {
                break;
            }
        }
        if is_use || path.len() > 1 {
            self.add(&path, alias, is_use);
        }
        rest
    }

    fn add(&mut self, path: &[String], alias: Option<String>, is_use: bool) {
        let Some(path) = self.absolute(path) else {
            if path.first().is_some_and(|name| name.starts_with("strand_")) {
                self.foreign.insert(path.join("::"));
            }
            return;
        };
        let mut module = path.as_slice();
        while !self.modules.contains_key(module) {
            let Some((_, shorter)) = module.split_last() else {
                return;
            };
            module = shorter;
        }
        if is_use && module.len() == path.len() {
            let name = alias.or_else(|| path.last().cloned());
            self.aliases.extend(name.map(|name| (name, path.clone())));
        }
        self.found.extend(self.modules.get(module).cloned());
    }

    /// The path from the root of the crate; `None` for one into another crate, or of a local name.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            name if name == self.own_name => Vec::new(),
            "self" => self.here.clone(),
            "super" => self.here.split_last()?.1.to_vec(),
            name => {
                let child = [self.here.as_slice(), &[name.to_owned()]].concat();
                let is_child = self.modules.contains_key(&child);
                is_child
                    .then_some(child)
                    .or_else(|| self.aliases.get(name).cloned())?
            }
        };
        for segment in rest {
            match segment.as_str() {
                "super" => drop(absolute.pop()),
                "self" => {}
                name => absolute.push(name.to_owned()),
            }
        }
        Some(absolute)
    }
}

fn is_cfg_test(attribute: &TokenStream) -> bool {
    attribute.to_string().replace(' ', "") == "cfg(test)"
}

/// The tokens after an item: after its braces or its semicolon.
fn skip_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    };
    let end = tokens
        .iter()
        .position(is_end)
        .map_or(tokens.len(), |at| at + 1);
    tokens.get(end..).unwrap_or_default()
}

/// Imports against the order of the areas.
fn upward(imports: &Imports) -> Vec<String> {
    let area_of = |file: &str| {
        let (_, path) = file.split_once("/src/").unwrap_or(("", file));
        let area = path.split('/').next().unwrap_or(path);
        area.trim_end_matches(".rs").to_owned()
    };
    let mut found = Vec::new();
    for (file, targets) in imports {
        let order = match file.split('/').next() {
            Some("core") => CORE,
            Some("stress") => STRESS,
            _ => continue,
        };
        let area = area_of(file);
        if area == "lib" {
            continue;
        }
        let Some((_, below)) = order.iter().find(|(name, _)| *name == area) else {
            found.push(format!(
                "{file}: `{area}` has no place in the order (xtask/src/layout.rs)"
            ));
            continue;
        };
        for target in targets {
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

fn not_allowed(foreign: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    for (prefix, krate, allowed) in FOREIGN {
        let files = foreign.iter().filter(|(file, _)| file.starts_with(prefix));
        for (file, paths) in files {
            for path in paths {
                let mut segments = path.split("::");
                let is_of_crate = segments.next() == Some(krate);
                if is_of_crate && !segments.next().is_some_and(|next| allowed.contains(&next)) {
                    found.push(format!("{file} imports {path}"));
                }
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

    fn krate(name: &'static str, files: &[(&str, &str)]) -> Crate {
        let files = files
            .iter()
            .map(|(file, text)| (Path::new("src").join(file), (*text).to_owned()));
        Crate {
            name,
            files: files.collect(),
        }
    }

    fn imports(name: &'static str, files: &[(&str, &str)]) -> (Imports, Imports) {
        let imports = krate(name, files).imports();
        imports.unwrap_or_else(|failure| panic!("{}", failure.message))
    }

    #[test]
    fn every_way_to_name_a_module_is_an_import() {
        let a = "use crate::b::{self, c::{C as D, E}}; use super::lib_name;
            #[cfg(test)] mod tests { use crate::only::in_tests; }
            //! use crate::only::in_comment;
            fn f() { d::x(); b::c::y(); let s = \"crate::only::in_text\"; }
            mod inline { use super::super::e::*; }";
        let files = [
            ("lib.rs", ""),
            ("a/mod.rs", a),
            ("a/d.rs", ""),
            ("b.rs", ""),
            ("b/c.rs", ""),
            ("e.rs", ""),
            ("only.rs", ""),
        ];
        let (found, _) = imports("lock", &files);
        let found: Vec<&str> = found["lock/src/a/mod.rs"]
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(
            found,
            [
                "lock/src/a/d.rs",
                "lock/src/b.rs",
                "lock/src/b/c.rs",
                "lock/src/e.rs",
                "lock/src/lib.rs"
            ]
        );
    }

    #[test]
    fn imports_against_the_order_are_found() {
        let files = [
            ("lib.rs", "pub use wal::log::Log;"),
            (
                "wal/log.rs",
                "use crate::{env::Disk, issues::Issues, Error};",
            ),
            ("env.rs", ""),
            ("issues.rs", ""),
            ("new.rs", ""),
        ];
        let found = upward(&imports("core", &files).0);
        let expected = [
            "core/src/new.rs: `new` has no place in the order (xtask/src/layout.rs)",
            "core/src/wal/log.rs imports core/src/issues.rs: `wal` may not import `issues`",
            "core/src/wal/log.rs imports core/src/lib.rs: `wal` may not import `lib`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_crates_are_imported_where_they_may_be() {
        let text = "use strand_core::Seq; use strand_lock::Page;";
        let files = [("lib.rs", ""), ("evidence/a.rs", text), ("run.rs", text)];
        let found = not_allowed(&imports("stress", &files).1);
        assert_eq!(found, ["stress/src/evidence/a.rs imports strand_core::Seq"]);
    }

    #[test]
    fn circles_are_found_whatever_their_length() {
        let files = [
            ("main.rs", "use a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "fn f() { crate::c::g() }"),
            ("c.rs", "use super::a;"),
        ];
        let found = circles(&imports("cli", &files).0);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("3 files"), "{found:?}");
        let no_way_back = [&files[..3], &[("c.rs", "")]].concat();
        assert_eq!(circles(&imports("cli", &no_way_back).0), [""; 0]);
    }

    #[test]
    fn a_long_comment_is_found() {
        let text = format!(
            "// {}\n//{}\nlet long = {};",
            "a".repeat(97),
            "ä".repeat(99),
            "1".repeat(200)
        );
        assert_eq!(
            krate("cli", &[("main.rs", &text)]).long_comments(),
            ["cli/src/main.rs:2: a comment of 101 columns"]
        );
    }
}
